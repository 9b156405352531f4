//! Everything a trainer is built from: the component settings it needs, as plain data.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use splitmask_pipeline::config::{DataConfig, PipelineConfig};
use splitmask_pipeline::request::{ColourConfig, CropConfig};

use crate::eval::watch::Watched;
use crate::model::config::VitConfig;
use crate::objective::{ObjectiveConfig, Scope};
use crate::optim::EmaConfig;
use crate::optim::config::OptimConfig;
use crate::tensor::Normalise;

pub use super::inject::DebugConfig;
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

/// Which weights of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum Weights {
    /// Those that are trained.
    #[default]
    Raw,
    /// Their moving average.
    Ema,
}

/// Which layers a linear probe during training reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum ProbeLayers {
    /// The last one, after the final norm.
    #[default]
    Last,
    /// Each of them (arXiv 2112.10740 Fig. 5): one pass over the images, but as many fits.
    All,
}

/// What happens when a step does not fit into memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum OnOom {
    /// The batch is processed in more parts from then on; same batch, same random numbers.
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
    /// Parts that a batch is processed in, one after the other; divides `batch`. 0 = as few as fit into memory, found at the first step and kept
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

/// `[eval]`: k-NN accuracy (arXiv 2104.14294 §4.1) or loss on `data.val` during training, and a linear probe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EvalConfig {
    /// Steps between evaluations; 0 = only by command.
    pub every_steps: u64,
    /// Neighbours that vote.
    pub k: u32,
    /// Temperature of the votes' weights.
    pub temperature: f64,
    /// Labelled training images that are searched at most, by hash of their key; 0 = all.
    pub max_reference: u32,
    /// Validation images at most; 0 = all.
    pub max_queries: u32,
    /// Share of the resized image's side that the centre crop keeps.
    pub crop_ratio: f64,
    /// Classes with fewer labelled training images are left out.
    pub min_class: u32,
    /// What an evaluation measures.
    pub watch: Watched,
    /// Evaluations without a new best after which the run warns of over-fitting; 0 = never.
    pub patience: u32,
    /// Steps between linear probes; 0 = only by command.
    pub linear_every_steps: u64,
    /// Which layers they report.
    pub probe_layers: ProbeLayers,
    /// Seconds after which a linear probe is given up and training goes on; looked at between batches and between iterations of a fit.
    pub linear_budget_s: f64,
    /// Which weights are evaluated.
    pub weights: Weights,
}

impl Default for EvalConfig {
    fn default() -> Self {
        Self {
            every_steps: 0,
            k: 20,
            temperature: 0.07,
            max_reference: 0,
            max_queries: 0,
            crop_ratio: 0.875,
            min_class: 1,
            watch: Watched::Knn,
            patience: 3,
            linear_every_steps: 0,
            probe_layers: ProbeLayers::Last,
            linear_budget_s: 60.0,
            weights: Weights::Raw,
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

    /// Whether the objective asks for visual words.
    #[must_use]
    pub fn needs_words(&self) -> bool {
        self.objective.request(&self.scope(0)).words.is_some()
    }
}
