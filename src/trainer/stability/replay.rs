//! The replay folder of a run that gave up: the bad batch, the weights it met, and how to take that step again.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::task::Poll;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use splitmask_pipeline::cursor::Cursor;
use splitmask_pipeline::error::PipelineError;
use splitmask_pipeline::metrics::PipelineMetrics;
use splitmask_pipeline::types::{Batch, SampleId};
use tch::{Device, Tensor, nn};

use super::Instability;
use crate::checkpoint::put_weights;
use crate::tensor::{Look, choose_device, load_batch, save_batch, watched};
use crate::trainer::error::TrainError;
use crate::trainer::feed::PATIENCE;
use crate::trainer::meter::COUNTED;
use crate::trainer::setup::Setup;
use crate::trainer::spec::TrainerSpec;
use crate::trainer::state::RunState;
use crate::trainer::step::pass::{Pass, scalar};
use crate::words::WordsFoundBy;

/// Longest time for which the bad batch is awaited.
const REREAD_PATIENCE: Duration = Duration::from_secs(60);

/// What a replay folder says of its step; the file `replay.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Replay {
    /// Why the run gave up.
    pub reason: String,
    /// Optimizer steps before the bad one.
    pub step: u64,
    /// Number of the batch among all that the run consumed, from 1.
    pub consumed: u64,
    /// Seed of the run; that of the step follows from it and `step`.
    pub seed: u64,
    /// Micro-batches that the batch was processed in.
    #[serde(rename = "parts")]
    pub micro_batches: usize,
    /// Where the batch begins in the data.
    pub cursor: Cursor,
    /// Whether the weights are those that the step met; false if good steps followed before the host read of the bad one.
    pub exact: bool,
    /// (total loss, gradient norm) of the latest steps, oldest first; null = not finite.
    #[serde(with = "crate::exact")]
    pub recent: VecDeque<Option<(f64, f64)>>,
    /// The samples of the batch.
    pub samples: Vec<SampleId>,
}

const FACTS: &str = "replay.json";
const CONFIG: &str = "config.toml";
const WEIGHTS: &str = "model.safetensors";
const BATCH: &str = "batch.safetensors";

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> TrainError + '_ {
    move |source| TrainError::Io {
        path: path.to_owned(),
        source,
    }
}

/// Writes `RUN/replay/step-…` with the latest bad step; answers the folder.
///
/// # Errors
/// The batch cannot be read again, or the folder cannot be written.
pub(super) fn write_replay(state: &RunState, setup: &Setup, instability: &Instability) -> Result<PathBuf, TrainError> {
    let consumed = state.ladder.last_bad().unwrap_or(instability.first_bad);
    let step = state.step_of(consumed).saturating_sub(1);
    let back = (state.ladder.consumed() - consumed) as usize;
    let cursor = state.trail.iter().rev().nth(back).copied().unwrap_or(state.cursor);
    let batch = read_again(setup, cursor)?;
    let folder = setup.spec.run_dir.join("replay").join(format!("step-{step:08}"));
    setup.spec.check_folder()?;
    std::fs::create_dir_all(&folder).map_err(io(&folder))?;
    let facts = Replay {
        reason: instability.reason.clone(),
        step,
        consumed,
        seed: setup.spec.seed,
        micro_batches: state.micro_batches.max(1),
        cursor,
        exact: state.ladder.ends_badly() && back < state.trail.len(),
        recent: state.ladder.save().recent,
        samples: batch.ids.clone(),
    };
    let of_variable = |(n, t): (String, Tensor)| (n, t.detach().to_device(Device::Cpu));
    let mut weights: Vec<(String, Tensor)> = state.vars.variables().into_iter().map(of_variable).collect();
    weights.sort_by(|a, b| a.0.cmp(&b.0));
    Tensor::write_safetensors(&weights, folder.join(WEIGHTS))?;
    save_batch(&batch, &folder.join(BATCH))?;
    let config = folder.join(CONFIG);
    std::fs::write(&config, &setup.spec.config_toml).map_err(io(&config))?;
    let text = serde_json::to_string_pretty(&facts).expect("plain data serialises");
    let path = folder.join(FACTS);
    std::fs::write(&path, text).map_err(io(&path))?;
    Ok(folder)
}

/// The batch that begins at `cursor`, made anew; the same bytes, since a batch is a function of seed and position.
fn read_again(setup: &Setup, cursor: Cursor) -> Result<Batch, TrainError> {
    let mut feed = setup.open_feed(cursor, Device::Cpu, &PipelineMetrics::default())?;
    let began = Instant::now();
    while began.elapsed() < REREAD_PATIENCE {
        if let Poll::Ready(staged) = feed.next(PATIENCE)? {
            return Ok(staged.batch);
        }
    }
    Err(PipelineError::Unreachable {
        url: setup.spec.data.first_place().to_owned(),
        detail: format!("the bad batch could not be read again within {} s", REREAD_PATIENCE.as_secs()),
    }
    .into())
}

/// What taking a step again showed: every tensor that was looked at, in order of its making.
#[derive(Debug)]
pub struct Retaken {
    /// The folder's facts.
    pub facts: Replay,
    /// Weights, then the input and the activations of the forward pass, the losses, the gradients.
    pub looks: Vec<Look>,
}

impl Retaken {
    /// The first tensor that holds NaN or infinity.
    #[must_use]
    pub fn first_nonfinite(&self) -> Option<&Look> {
        self.looks.iter().find(|l| l.nonfinite > 0)
    }
}

/// The config of a replay folder, as text.
///
/// # Errors
/// It cannot be read.
pub fn config_text(folder: &Path) -> Result<String, TrainError> {
    if !folder.join(FACTS).is_file() {
        return Err(TrainError::BadSetting {
            key: "FOLDER".into(),
            value: folder.display().to_string(),
            detail: format!("is no replay folder: there is no {FACTS} in it"),
            hint: Some("an unstable run writes RUN/replay/step-… and names it; name that folder".into()),
        });
    }
    let path = folder.join(CONFIG);
    std::fs::read_to_string(&path).map_err(io(&path))
}

/// Takes the step of a replay folder again with its batch, weights and seed, and looks at every tensor on the way. Changes nothing on disk.
///
/// # Errors
/// Unreadable files, or what libtorch said.
pub fn retake(folder: &Path, spec: &TrainerSpec) -> Result<Retaken, TrainError> {
    let path = folder.join(FACTS);
    let text = std::fs::read_to_string(&path).map_err(io(&path))?;
    let damaged = |path: PathBuf, detail: String| TrainError::BadFile { path, detail };
    let facts: Replay = serde_json::from_str(&text).map_err(|e| damaged(path.clone(), e.to_string()))?;
    let batch = load_batch(&folder.join(BATCH)).map_err(|e| damaged(folder.join(BATCH), e.to_string()))?;
    let (device, _) = choose_device(&spec.train.device)?;
    // A batch that came without words had them found on the device; here that may be another one than then.
    let mut spec = spec.clone();
    spec.codebook.found_by = match batch.words.is_empty() {
        true => WordsFoundBy::Device,
        false => WordsFoundBy::Pipeline,
    };
    let spec = &spec;
    let words = spec.load_words(device)?;
    let vars = nn::VarStore::new(device);
    let scope = spec.scope(words.len());
    let objective = spec.objective.build(&vars.root(), &scope);
    let weights = Tensor::read_safetensors(folder.join(WEIGHTS)).map_err(|e| damaged(folder.join(WEIGHTS), e.to_string()))?;
    put_weights(folder, &weights, &vars)?;
    let mut variables: Vec<(String, Tensor)> = vars.variables().into_iter().collect();
    variables.sort_by(|a, b| a.0.cmp(&b.0));
    let mut looks: Vec<Look> = variables.iter().map(|(name, t)| Look::at(format!("weight {name}"), t)).collect();
    let pass = Pass {
        objective: objective.as_ref(),
        spec,
        device,
        step: facts.step,
        consumed: facts.consumed,
        micro_batches: facts.micro_batches,
        words: Some(&words),
        sent: None,
        peers: None,
        rank: 0,
    };
    let (scalars, seen) = watched(|| pass.gradients(&batch, |_| {}));
    looks.extend(seen);
    let scalars = scalars?;
    // A mean over a share of the batch comes multiplied by it.
    let counted = scalar(&scalars.scalars, COUNTED);
    let weighed = scalars.weighed.iter().filter(|(name, _)| *name != "total");
    let means = weighed.filter_map(|(name, value)| Some((name, value / counted?)));
    looks.extend(means.map(|(name, value)| Look::at(format!("loss {name}"), &value)));
    let whole = scalars.scalars.iter().filter(|(name, _)| *name != COUNTED);
    looks.extend(whole.map(|(name, value)| Look::at(format!("loss {name}"), value)));
    // Backward makes them from the top down.
    let gradients = variables.iter().rev().filter(|(_, t)| torch_ext::has_grad(t));
    looks.extend(gradients.map(|(name, t)| Look::at(format!("gradient {name}"), &t.grad())));
    // Each gradient may be finite and the sum of their squares not.
    let with_gradient: Vec<Tensor> = vars.trainable_variables().into_iter().filter(torch_ext::has_grad).collect();
    let gradients: Vec<Tensor> = with_gradient.iter().map(Tensor::grad).collect();
    if !gradients.is_empty() {
        looks.push(Look::at("norm of all gradients", &torch_ext::global_norm(&gradients)?));
    }
    Ok(Retaken { facts, looks })
}
