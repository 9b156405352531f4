//! How training fails, and with which exit code.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;

use splitmask_pipeline::error::PipelineError;
use thiserror::Error;
use torch_ext::ranks::RanksError;

use crate::checkpoint::CheckpointError;
use crate::exit::{CliError, ExitCode, code_of_pipeline, panic_text};
use crate::objective::ObjectiveError;
use crate::optim::OptimError;
use crate::tensor::TensorError;
use crate::trainer::control::{Blame, Failure};
use crate::words::WordsError;

/// Why a trainer could not start or go on.
#[derive(Debug, Error)]
pub enum TrainError {
    /// The stream of batches ended with an error; a checkpoint was written.
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    /// A checkpoint could not be read, or the last one not written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Settings that do not fit each other or the data.
    #[error("{key} = {value}: {detail}")]
    BadSetting {
        /// Config key.
        key: String,
        /// Its value.
        value: String,
        /// What is allowed.
        detail: String,
        /// What to do next.
        hint: Option<String>,
    },
    /// A device that is not there, or a batch that is not what the objective needs.
    #[error(transparent)]
    Tensor(TensorError),
    /// Training goes wrong again and again.
    #[error("{reason}, up to step {step}, and that was the last rollback of stability.rollback_limit = {limit}")]
    NonFinite {
        /// What happened.
        reason: String,
        /// Step.
        step: u64,
        /// The limit.
        limit: u32,
        /// Folder with what is needed to take the bad step again, if it could be written.
        replay: Option<PathBuf>,
    },
    /// A file of the run folder.
    #[error("{path}: {source}")]
    Io {
        /// File.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// A file of a replay folder that does not hold what it should.
    #[error("{path}: {detail}")]
    BadFile {
        /// File.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// A step does not fit into memory.
    #[error("out of memory{}: {detail}", if *batch == 0 { String::new() } else { format!(" in a step of {batch} images in {micro_batches} parts") })]
    OutOfMemory {
        /// What libtorch said.
        detail: String,
        /// Images of the batch; 0 = it was in no step.
        batch: usize,
        /// Micro-batches that it was processed in.
        micro_batches: usize,
    },
    /// The device fails for good in this process (an ECC error, an illegal access, a lost bus): what it holds cannot be read any more.
    #[error("the device is lost: {detail}")]
    DeviceLost {
        /// What libtorch said.
        detail: String,
    },
    /// The optimizer was asked for a step that it cannot take.
    #[error(transparent)]
    Optim(OptimError),
    /// The objective refuses a batch or settings.
    #[error(transparent)]
    Objective(ObjectiveError),
    /// Ranks that do not come together, do not fit together, or are no longer together.
    #[error("{0}")]
    Ranks(RanksError),
    /// Another rank ended the run, at a boundary that all reached together.
    #[error("{0}")]
    OtherRank(String),
    /// libtorch said no (a missing operator, a wrong shape).
    #[error("libtorch: {0}")]
    Torch(String),
}

impl TrainError {
    /// Exit code of the process.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::BadSetting { .. } | Self::BadFile { .. } => ExitCode::Usage,
            Self::Checkpoint(e) => e.exit_code(),
            Self::Io { .. } => ExitCode::Io,
            Self::NonFinite { .. } => ExitCode::NonFinite,
            // For the supervisor to start again: a new process gets the device back, if anything does.
            Self::DeviceLost { .. } => ExitCode::Stopped,
            Self::OutOfMemory { .. } => ExitCode::Io,
            // For the launcher to start all again.
            Self::OtherRank(_)
            | Self::Ranks(RanksError::Lost(_) | RanksError::Late(_) | RanksError::Apart { .. } | RanksError::Cancelled) => {
                ExitCode::Stopped
            }
            Self::Ranks(RanksError::NoGradient(_) | RanksError::Drift(_) | RanksError::Torch(_)) => ExitCode::Internal,
            Self::Ranks(_) => ExitCode::Usage,
            Self::Objective(ObjectiveError::Word { .. } | ObjectiveError::Kind { .. }) => ExitCode::Usage,
            Self::Torch(_) | Self::Optim(_) | Self::Objective(_) => ExitCode::Internal,
            Self::Tensor(e) => e.exit_code(),
            Self::Pipeline(e) => code_of_pipeline(e),
        }
    }

    /// Whether the ranks found it out when they met: those whom it concerns have heard it, and nobody waits for this one.
    #[must_use]
    pub fn is_of_meeting(&self) -> bool {
        matches!(self, Self::Ranks(RanksError::Misfit(_) | RanksError::Taken { .. }))
    }

    /// Whether the same write may succeed later: see [`CheckpointError::may_pass`].
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Checkpoint(e) => e.may_pass(),
            Self::Io { .. } => true,
            _ => false,
        }
    }

    /// What to do next.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Pipeline(e) => e.hint(),
            Self::BadSetting { hint, .. } => hint.clone(),
            Self::Checkpoint(e) => e.hint(),
            Self::NonFinite { replay, .. } => {
                let mut hint = String::from(
                    "lower optim.lr or optim.clip, or set train.precision = \"f32\"; the run goes on from its last checkpoint",
                );
                if let Some(folder) = replay {
                    hint.push_str(&format!(
                        "\n`splitmask replay {}` takes the bad step again and says what becomes non-finite first",
                        folder.display()
                    ));
                }
                Some(hint)
            }
            Self::OutOfMemory { .. } => Some(
                "raise train.accumulate (0 = as many parts as it takes), set model.checkpoint_activations = true or train.on_oom = \"split\", or lower train.batch; \
                 none of them but the last changes the result"
                    .into(),
            ),
            Self::DeviceLost { .. } => Some("the same command goes on from the last complete checkpoint; if it comes again, `dmesg` and nvidia-smi may say why".into()),
            Self::Tensor(e) => e.hint(),
            Self::Objective(ObjectiveError::Word { .. }) => {
                Some("set codebook.path to the file that the run began with; another vocabulary needs a run of its own".into())
            }
            Self::BadFile { .. } => Some("name a folder that a run wrote: RUN/replay/step-…".into()),
            Self::OtherRank(_) | Self::Ranks(RanksError::Lost(_)) => {
                Some("start all ranks again: the same command goes on from the last complete checkpoint".into())
            }
            Self::Ranks(RanksError::Environment { .. } | RanksError::Address { .. } | RanksError::Late(_) | RanksError::Nccl(_)) => {
                Some("docs/distributed.md says how ranks are started".into())
            }
            Self::Io { .. } | Self::Objective(_) | Self::Optim(_) | Self::Torch(_) | Self::Ranks(_) => None,
        }
    }
}

impl TrainError {
    /// What a text of libtorch's says about the device: out of memory, or lost. `None` = neither.
    #[must_use]
    pub fn of_device(text: &str) -> Option<Self> {
        let has = |part: &str| text.contains(part);
        let detail = || {
            let from = text.find("CUDA").or_else(|| text.find("DefaultCPUAllocator")).unwrap_or(0);
            text[from..]
                .lines()
                .next()
                .unwrap_or_default()
                .trim_end_matches(['"', ')'])
                .to_owned()
        };
        // bad_alloc is what C++ says itself, where libtorch allocates something else than a tensor; the libraries of CUDA have words of their own, oneDNN
        // tells no reason, but has no other one for a call that worked before, and libtorch's own text may find no room itself.
        let lacks_memory = [
            "out of memory",
            "std::bad_alloc",
            "not enough memory",
            "can't allocate memory",
            "CUBLAS_STATUS_ALLOC_FAILED",
            "CUDNN_STATUS_ALLOC_FAILED",
            "could not execute a primitive",
            "<Error computing Error::what()>",
        ];
        // A "primitive descriptor" that cannot be created is of a shape that oneDNN does not have.
        let no_kernel = has("could not create a primitive") && !has("primitive descriptor");
        if no_kernel || lacks_memory.into_iter().any(has) {
            return Some(Self::OutOfMemory {
                detail: detail(),
                batch: 0,
                micro_batches: 0,
            });
        }
        // Every other error of the driver sticks to the process.
        (has("CUDA error:") || has("CUDNN_STATUS_EXECUTION_FAILED") || has("CUBLAS_STATUS_EXECUTION_FAILED"))
            .then(|| Self::DeviceLost { detail: detail() })
    }

    fn of_torch(text: &str) -> Self {
        Self::of_device(text).unwrap_or_else(|| Self::Torch(text.lines().next().unwrap_or_default().to_owned()))
    }
}

/// Runs something of libtorch's whose lack of memory comes as an error or as a panic of tch; other panics go on.
///
/// # Errors
/// Those of `run`, [`TrainError::OutOfMemory`] or [`TrainError::DeviceLost`].
pub(super) fn device_panics_caught<T>(run: impl FnOnce() -> Result<T, TrainError>) -> Result<T, TrainError> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| match TrainError::of_device(&panic_text(&*panic)) {
        Some(error) => Err(error),
        None => resume_unwind(panic),
    })
}

impl From<tch::TchError> for TrainError {
    fn from(e: tch::TchError) -> Self {
        Self::of_torch(&e.to_string())
    }
}

impl From<RanksError> for TrainError {
    fn from(e: RanksError) -> Self {
        match e {
            RanksError::Torch(e) => e.into(),
            other => Self::Ranks(other),
        }
    }
}

impl From<torch_ext::TorchError> for TrainError {
    fn from(e: torch_ext::TorchError) -> Self {
        Self::of_torch(&e.to_string())
    }
}

impl From<TensorError> for TrainError {
    fn from(e: TensorError) -> Self {
        match e {
            TensorError::Torch(text) => Self::of_torch(&text),
            other => Self::Tensor(other),
        }
    }
}

impl From<OptimError> for TrainError {
    fn from(e: OptimError) -> Self {
        match e {
            OptimError::Torch(e) => e.into(),
            OptimError::Tch(text) => Self::of_torch(&text),
            other => Self::Optim(other),
        }
    }
}

impl From<ObjectiveError> for TrainError {
    fn from(e: ObjectiveError) -> Self {
        match e {
            ObjectiveError::Torch(text) => Self::of_torch(&text),
            ObjectiveError::Ranks(e) => (*e).into(),
            other => Self::Objective(other),
        }
    }
}

impl From<WordsError> for TrainError {
    fn from(e: WordsError) -> Self {
        match e {
            WordsError::Pipeline(e) => Self::Pipeline(e),
            WordsError::Unusable { path, detail, hint } => Self::BadSetting {
                key: "codebook.path".into(),
                value: path,
                detail,
                hint: Some(hint),
            },
        }
    }
}

impl From<TrainError> for CliError {
    fn from(e: TrainError) -> Self {
        Self {
            code: e.exit_code(),
            hint: e.hint(),
            message: e.to_string(),
        }
    }
}

impl From<TrainError> for Failure {
    fn from(e: TrainError) -> Self {
        use PipelineError as P;
        let blame = match &e {
            TrainError::BadSetting { key, .. } | TrainError::Pipeline(P::BadSetting { key, .. }) => Some(Blame::Key(key.clone())),
            TrainError::Tensor(TensorError::BadDevice(_) | TensorError::NoDevice { .. }) => Some(Blame::Key("train.device".into())),
            TrainError::Pipeline(P::BadCodebook { .. }) => Some(Blame::Key("codebook.path".into())),
            TrainError::Pipeline(
                P::BadUrl { url, .. }
                | P::Empty { url, .. }
                | P::Refused { url, .. }
                | P::Unreachable { url, .. }
                | P::BadManifest { url, .. },
            ) => Some(Blame::Address(url.clone())),
            _ => None,
        };
        Self {
            blame,
            away: matches!(e, TrainError::Pipeline(P::Unreachable { .. })),
            error: e.into(),
        }
    }
}

#[cfg(test)]
mod tests;
