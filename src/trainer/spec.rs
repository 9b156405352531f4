//! Everything a trainer is built from: the component settings it needs, as plain data.

use std::path::PathBuf;
use std::time::Duration;

use splitmask_pipeline::config::{DataConfig, PipelineConfig};
use tch::Device;

use crate::checkpoint::CheckpointError;
use crate::eval::config::EvalConfig;
use crate::held_lock::HeldLock;
use crate::model::config::VitConfig;
use crate::objective::{ObjectiveConfig, Scope};
use crate::optim::EmaConfig;
use crate::optim::config::OptimConfig;
use crate::words::{CodebookConfig, Words, WordsError};

pub use super::config::{AugmentConfig, OnOom, Precision, TrainConfig};
pub use super::fault_injection::DebugConfig;
pub use super::labels::TrainingLabels;
pub use super::ranks::config::RanksConfig;
pub use super::stability::{SpikeAction, StabilityConfig};
pub use crate::checkpoint::CheckpointConfig;
pub use crate::picture::PictureConfig;
pub use crate::telemetry::log_config::LogConfig;

/// What one trainer is built from. Made by the daemon out of a validated config; the trainer never sees the config.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainerSpec {
    /// Seed of everything random.
    pub seed: u64,
    /// Folder of checkpoints, pictures, `metrics.jsonl`.
    pub run_dir: PathBuf,
    /// The lock by which the folder is recognised, if the caller holds one: nothing is written once the folder is another.
    pub lock: Option<HeldLock>,
    /// The visual words, and who finds them.
    pub codebook: CodebookConfig,
    /// Weights to start from instead of a random initialisation, for a new run only.
    pub init_from: Option<PathBuf>,
    /// Whether tensors of the encoder that `init_from` does not hold may start at random.
    pub init_partial: bool,
    /// `[data]`.
    pub data: DataConfig,
    /// `[pipeline]`.
    pub pipeline: PipelineConfig,
    /// `[augment]`.
    pub augment: AugmentConfig,
    /// `[model]`.
    pub model: VitConfig,
    /// `[objective]`.
    pub objective: ObjectiveConfig,
    /// `[optim]`.
    pub optim: OptimConfig,
    /// `[ema]`.
    pub ema: EmaConfig,
    /// `[train]`.
    pub train: TrainConfig,
    /// `[ranks]`.
    pub ranks: RanksConfig,
    /// `[stability]`.
    pub stability: StabilityConfig,
    /// `[debug]`.
    pub debug: DebugConfig,
    /// `[checkpoint]`.
    pub checkpoint: CheckpointConfig,
    /// `[eval]`.
    pub eval: EvalConfig,
    /// `[picture]`.
    pub picture: PictureConfig,
    /// `[log]`.
    pub log: LogConfig,
    /// Time for which the checkpoint that the run ends with is tried again where the disk refuses it.
    pub grace: Duration,
    /// Classes of the training set, where the objective learns them: none before a trainer has read them.
    pub labels: TrainingLabels,
    /// The whole effective config as TOML, stored in each checkpoint.
    pub config_toml: String,
}

impl TrainerSpec {
    /// What the objective's plan meets, with a vocabulary of `words`.
    #[must_use]
    pub fn scope(&self, words: usize) -> Scope<'_> {
        Scope {
            model: &self.model,
            crop: self.augment.crop,
            colour: self.augment.colour,
            batch: self.train.batch,
            steps: self.optim.total_steps,
            words: words as i64,
            label_counts: &self.labels.counts,
        }
    }

    /// Takes over the classes of the training set. The config of checkpoints then says how many there are, so that whoever builds the network from one
    /// needs no data.
    pub(super) fn take_labels(&mut self, labels: TrainingLabels) {
        if let (Some(0), classes @ 1..) = (self.objective.classes(), labels.counts.len()) {
            let mut config: toml::Table = self.config_toml.parse().expect("the effective config is TOML");
            if let Some(objective) = config.get_mut("objective").and_then(toml::Value::as_table_mut) {
                objective.insert("classes".into(), toml::Value::Integer(classes as i64));
                self.config_toml = toml::to_string(&config).expect("what was TOML is TOML");
            }
        }
        self.labels = labels;
    }

    /// Before something is written into the run folder: is it still the run's?
    ///
    /// # Errors
    /// [`CheckpointError::FolderLost`].
    pub fn check_folder(&self) -> Result<(), CheckpointError> {
        Ok(self.lock.as_ref().map_or(Ok(()), HeldLock::check)?)
    }

    /// Loads the visual words of the run. Draws from libtorch's CPU generator: seed it afterwards.
    ///
    /// # Errors
    /// As [`Words::load`].
    pub fn load_words(&self, device: Device) -> Result<Words, WordsError> {
        let needed = self.objective.request(&self.scope(0)).words.is_some();
        Words::load(&self.codebook, &self.model, self.data.first_place(), needed, device)
    }
}
