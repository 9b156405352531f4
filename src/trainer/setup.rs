//! What a step is taken with and no step changes; only a reload replaces parts of it.

use std::rc::Rc;
use std::sync::Arc;

use splitmask_pipeline::config::PipelineConfig;
use splitmask_pipeline::cursor::Cursor;
use splitmask_pipeline::error::PipelineError;
use splitmask_pipeline::metrics::PipelineMetrics;
use splitmask_pipeline::request::SampleRequest;
use tch::Device;
use torch_ext::{Autocast, TorchError};

use super::feed::{Feed, Supply};
use super::ranks::launching::Launching;
use super::ranks::peers::Peers;
use super::spec::TrainerSpec;
use super::state::RunState;
use crate::checkpoint::Policy;
use crate::eval::Subject;
use crate::eval::data::{Sets, TrainingPass};
use crate::eval::features::ValFeatures;
use crate::eval::pool::Pool;
use crate::eval::sharing::Helpers;
use crate::optim::{learning_rate, weight_decay};
use crate::words::Words;

/// Settings, device, and where data and words come from.
pub(super) struct Setup {
    pub(super) spec: TrainerSpec,
    pub(super) device: Device,
    pub(super) words: Rc<Words>,
    /// What the pipeline makes of each sample.
    pub(super) request: Arc<SampleRequest>,
    pub(super) supply: Supply,
    /// How this process came to its place among the ranks.
    pub(super) launching: Launching,
    /// `[pipeline]` with this process's share of the processors.
    pub(super) own_pipeline: PipelineConfig,
    /// The other ranks; `None` for one process.
    pub(super) peers: Option<Rc<Peers>>,
}

impl Setup {
    /// Learning rate and weight decay of a step.
    pub(super) fn schedule(&self, step: u64) -> (f64, f64) {
        (learning_rate(&self.spec.optim, step), weight_decay(&self.spec.optim, step))
    }

    /// Starts the stream of batches behind `start`, for `device`.
    ///
    /// # Errors
    /// As [`Feed::open`].
    pub(super) fn open_feed(&self, start: Cursor, device: Device, metrics: &PipelineMetrics) -> Result<Feed, PipelineError> {
        let share = self.launching.share();
        Feed::open(&self.supply, &self.spec, &self.request, &self.words, start, share, device, metrics)
    }

    /// Whether this process writes into the run folder, evaluates and answers: the one, or rank 0.
    pub(super) fn first(&self) -> bool {
        self.peers.as_ref().is_none_or(|peers| peers.first())
    }

    /// bf16 autocast on the device while the guard lives, if `train.precision` asks for it.
    ///
    /// # Errors
    /// What libtorch said.
    pub(super) fn autocast(&self) -> Result<Option<Autocast>, TorchError> {
        let bf16 = self.spec.train.precision.is_bf16(self.device);
        bf16.then(|| Autocast::bf16(self.device)).transpose()
    }

    /// Which checkpoints stay.
    pub(super) fn retention(&self, state: &RunState) -> Policy {
        Policy {
            keep: self.spec.checkpoint.keep,
            keep_every: self.spec.checkpoint.keep_every_steps,
            best: state.patience.best.map(|(_, step)| step),
        }
    }

    /// The run's model as evaluations take it, with the features that a probe learns from, and those of `data.val` that evaluations share.
    pub(super) fn subject<'a>(&'a self, state: &'a RunState, places: Vec<(usize, Pool)>, val_features: &'a ValFeatures) -> Subject<'a> {
        let spec = &self.spec;
        Subject {
            objective: state.objective.as_ref(),
            device: self.device,
            bf16: spec.train.precision.is_bf16(self.device),
            normalise: spec.train.normalise(),
            eval: &spec.eval,
            sets: Sets {
                data: &spec.data,
                pipeline: &self.own_pipeline,
                image: spec.model.image,
                crop_ratio: spec.eval.crop_ratio,
                seed: spec.seed,
            },
            training: TrainingPass {
                words: &self.words,
                request: &self.request,
                batch: spec.train.batch as usize,
                // Each rank has as many of its own share.
                micro_batches: state.micro_batches.max(1) * self.peers.as_ref().map_or(1, |peers| peers.world()),
                step: state.step,
                total_steps: spec.optim.total_steps,
                classes: spec.objective.classes().map(|_| spec.labels.names.as_slice()),
                outputs: spec.labels.counts.len().max(spec.objective.classes().unwrap_or(0) as usize),
            },
            places,
            val_features,
            helpers: self.peers.as_deref().map(|peers| peers as &dyn Helpers),
        }
    }
}
