//! How training fails, and with which exit code.

use std::path::PathBuf;

use splitmask_pipeline::error::PipelineError;
use thiserror::Error;

use crate::checkpoint::CheckpointError;
use crate::error::{CliError, ExitCode};
use crate::objective::ObjectiveError;
use crate::optim::OptimError;
use crate::tensor::TensorError;

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
    Tensor(#[from] TensorError),
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
    /// libtorch said no (out of memory, a missing operator).
    #[error("libtorch: {0}")]
    Torch(String),
}

impl TrainError {
    /// Exit code of the process.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::BadSetting { .. } | Self::Checkpoint(CheckpointError::Mismatch { .. }) => ExitCode::Usage,
            Self::Checkpoint(_) | Self::Io { .. } => ExitCode::Io,
            Self::NonFinite { .. } => ExitCode::NonFinite,
            Self::Torch(_) => ExitCode::Internal,
            Self::Tensor(e) => match e {
                TensorError::BadDevice(_) | TensorError::NoDevice { .. } => ExitCode::Usage,
                _ => ExitCode::Internal,
            },
            Self::Pipeline(e) => match e {
                PipelineError::BadUrl { .. }
                | PipelineError::Empty { .. }
                | PipelineError::BadManifest { .. }
                | PipelineError::BadCodebook { .. }
                | PipelineError::BadSetting { .. }
                // Only opening a bucket answers this: a wrong address rather than a bad day.
                | PipelineError::Unreachable { .. } => ExitCode::Usage,
                PipelineError::Panicked { .. } => ExitCode::Internal,
                PipelineError::FailureBudget { .. } | PipelineError::Shard(_) | PipelineError::Io { .. } => {
                    ExitCode::Io
                }
            },
        }
    }

    /// What to do next.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Pipeline(e) => e.hint(),
            Self::BadSetting { hint, .. } => hint.clone(),
            Self::Checkpoint(CheckpointError::Mismatch { .. }) => {
                Some("geometry is frozen for the life of a run: take another run.dir, or start from the weights with run.init_from".into())
            }
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
            Self::Torch(text) if text.contains("out of memory") => Some("lower train.batch or raise train.accumulate".into()),
            Self::Tensor(TensorError::BadDevice(_) | TensorError::NoDevice { .. }) => {
                Some("`splitmask doctor` says which devices there are; train.device = \"auto\" takes the best".into())
            }
            Self::Tensor(_) | Self::Checkpoint(_) | Self::Io { .. } | Self::Torch(_) => None,
        }
    }
}

impl From<tch::TchError> for TrainError {
    fn from(e: tch::TchError) -> Self {
        Self::Torch(e.to_string().lines().next().unwrap_or_default().to_owned())
    }
}

impl From<torch_ext::TorchError> for TrainError {
    fn from(e: torch_ext::TorchError) -> Self {
        Self::Torch(e.to_string())
    }
}

impl From<OptimError> for TrainError {
    fn from(e: OptimError) -> Self {
        Self::Torch(e.to_string())
    }
}

impl From<ObjectiveError> for TrainError {
    fn from(e: ObjectiveError) -> Self {
        Self::Torch(e.to_string())
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
