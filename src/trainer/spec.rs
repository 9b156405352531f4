//! Everything a trainer is built from: the component settings it needs, as plain data.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use splitmask_pipeline::config::{DataConfig, PipelineConfig};
use splitmask_pipeline::request::{ColourConfig, CropConfig};
use tch::Device;

use crate::checkpoint::CheckpointError;
use crate::eval::config::EvalConfig;
use crate::held_lock::HeldLock;
use crate::model::config::VitConfig;
use crate::objective::{ObjectiveConfig, Scope};
use crate::optim::EmaConfig;
use crate::optim::config::OptimConfig;
use crate::tensor::Normalise;
use crate::words::{Words, WordsError};

pub use super::fault_injection::DebugConfig;
pub use super::stability::{SpikeAction, StabilityConfig};

/// Number format of the matrix products; weights and optimizer state are always f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// 32-bit floats.
    F32,
    /// bfloat16 autocast; softmax, norms and losses stay f32.
    #[default]
    Bf16,
}

impl Precision {
    /// Whether the matrix products run under bf16 autocast.
    #[must_use]
    pub fn is_bf16(self) -> bool {
        self == Self::Bf16
    }
}

/// What happens when a step does not fit into memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum OnOom {
    /// The batch is processed in more micro-batches from then on; same batch, same random numbers.
    #[default]
    Split,
    /// The run ends with an error that says what to lower.
    Stop,
}

/// `[augment]`: crop, flip and colour of the training views.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct AugmentConfig {
    /// Crop and flip.
    pub crop: CropConfig,
    /// Colour changes.
    pub colour: ColourConfig,
}

/// `[train]`: how a step is made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainConfig {
    /// Images of one optimizer step.
    pub batch: u32,
    /// Micro-batches that a batch is processed in, one after the other; divides `batch`. 0 = as few as fit into memory, found at the first step and kept
    /// for the run. The gradients are those of the whole batch either way: a loss between images sees all of them.
    pub accumulate: u32,
    /// What happens when a step does not fit into memory.
    pub on_oom: OnOom,
    /// Peak of the device in 10¹² operations per second, for the utilisation metric; 0 = known devices' table, or measured on a CPU.
    pub peak_tflops: f64,
    /// Number format.
    pub precision: Precision,
    /// `auto` (CUDA if there is one), `cpu`, `cuda` or `cuda:N`.
    pub device: String,
    /// Threads of libtorch on the CPU; 0 = one per core.
    pub threads: u32,
    /// Per-channel mean of pixels in 0..1 that views are normalised with.
    pub mean: [f64; 3],
    /// Per-channel standard deviation.
    pub std: [f64; 3],
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            batch: 128,
            accumulate: 1,
            on_oom: OnOom::Split,
            peak_tflops: 0.0,
            precision: Precision::Bf16,
            device: "auto".into(),
            threads: 0,
            mean: [0.485, 0.456, 0.406],
            std: [0.229, 0.224, 0.225],
        }
    }
}

impl TrainConfig {
    /// How pixels are normalised.
    #[must_use]
    pub fn normalise(&self) -> Normalise {
        Normalise {
            mean: self.mean,
            std: self.std,
        }
    }
}

/// `[checkpoint]`: when and how many.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CheckpointConfig {
    /// Steps between checkpoints.
    pub every_steps: u64,
    /// Newest checkpoints that are kept.
    pub keep: u32,
    /// Checkpoints at multiples of this step are kept for ever; 0 = none.
    pub keep_every_steps: u64,
}

impl Default for CheckpointConfig {
    fn default() -> Self {
        Self {
            every_steps: 1000,
            keep: 3,
            keep_every_steps: 0,
        }
    }
}

/// `[picture]`: `inpaint.png` and `curves.svg` in the run folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PictureConfig {
    /// Steps between pictures; 0 = only at the end.
    pub every_steps: u64,
    /// Images in the inpainting picture.
    pub rows: u32,
}

impl Default for PictureConfig {
    fn default() -> Self {
        Self {
            every_steps: 1000,
            rows: 8,
        }
    }
}

/// `[log]`: the step log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// Steps between lines of `metrics.jsonl`, log lines and updates of the loss gauges.
    pub every_steps: u64,
    /// Filter of the log, as of `RUST_LOG` (which wins).
    pub filter: String,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            every_steps: 10,
            filter: "info".into(),
        }
    }
}

/// What one trainer is built from. Made by the daemon out of a validated config; the trainer never sees the config.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainerSpec {
    /// Seed of everything random.
    pub seed: u64,
    /// Folder of checkpoints, pictures, `metrics.jsonl`.
    pub run_dir: PathBuf,
    /// The lock by which the folder is recognised, if the caller holds one: nothing is written once the folder is another.
    pub lock: Option<HeldLock>,
    /// File of the codebook.
    pub codebook: PathBuf,
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
            words: words as i64,
        }
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
