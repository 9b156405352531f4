//! `[train]` and `[augment]`: how a step is made, and from which views.

use serde::{Deserialize, Serialize};
use splitmask_pipeline::request::{ColourConfig, CropConfig};
use tch::Device;

use crate::setting::{Findings, settings};
use crate::tensor::{Normalise, multiplies_bf16};

/// Number format of the matrix products; weights and optimizer state are always f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// 32-bit floats.
    F32,
    /// bfloat16 autocast; softmax, norms and losses stay f32.
    #[default]
    Bf16,
    /// `bf16` where the device has instructions for it, else `f32`.
    Auto,
}

impl Precision {
    /// Whether the matrix products of a device run under bf16 autocast.
    #[must_use]
    pub fn is_bf16(self, device: Device) -> bool {
        match self {
            Self::F32 => false,
            Self::Bf16 => true,
            Self::Auto => multiplies_bf16(device),
        }
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

impl AugmentConfig {
    /// Checks that crops and colours can be drawn.
    pub fn check(&self, found: &mut Findings) {
        self.crop.check(CropConfig::TABLE, found);
        self.colour.check(ColourConfig::TABLE, found);
    }
}

settings! {
    /// `[train]`: how a step is made. The gradients are those of the whole batch, in however many parts it is processed.
    pub struct TrainConfig in "train" {
        /// Images of one optimizer step.
        Restart batch: u32 = 128,
        /// Micro-batches that a batch is processed in; 0 = as few as fit into memory.
        Restart accumulate: u32 = 1,
        /// `split` the batch into more micro-batches, or `stop`, when a step does not fit into memory.
        Live on_oom: OnOom = OnOom::Split,
        /// Peak of the device, 10¹² operations per second; 0 = by its name, or measured on a CPU.
        Restart peak_tflops: f64 = 0.0,
        /// `bf16` autocast, `f32`, or `auto`: bf16 where the device has instructions for it. Without them bf16 is many times slower.
        Restart precision: Precision = Precision::Bf16,
        /// Multiply f32 on a GPU's tensor cores with 10 bits of mantissa (TF32): faster, errors of about 1e-3; no effect on `bf16` products and on a CPU.
        Restart tf32: bool = false,
        /// Take only a GPU's algorithms that give the same bits each time; slower. On a CPU every run does.
        Restart deterministic: bool = false,
        /// Record forward and backward as a CUDA graph and launch them at once; for SplitMask, BEiT and MAE on one GPU. Takes more memory (docs/gpu.md).
        Live cuda_graph: bool = false,
        /// `auto`, `cpu`, `cuda` or `cuda:N`.
        Restart device: String = "auto".into(),
        /// Libtorch's threads on the CPU; 0 = one per core.
        Restart threads: u32 = 0,
        /// Per-channel mean of pixels in 0..1.
        Restart mean: [f64; 3] = [0.485, 0.456, 0.406],
        /// Per-channel standard deviation.
        Restart std: [f64; 3] = [0.229, 0.224, 0.225],
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

    /// Checks ranges.
    pub fn check(&self, found: &mut Findings) {
        found.need((1..=65_536).contains(&self.batch), "train.batch", self.batch, "1 to 65536 images");
        found.need(
            self.accumulate == 0 || self.batch.is_multiple_of(self.accumulate),
            "train.accumulate",
            self.accumulate,
            format!("0 (as few as fit into memory) or a divisor of train.batch = {}", self.batch),
        );
        let index = self.device.strip_prefix("cuda:").is_some_and(|n| n.parse::<u8>().is_ok());
        found.need(
            index || ["auto", "cpu", "cuda"].contains(&self.device.as_str()),
            "train.device",
            format!("{:?}", self.device),
            "\"auto\", \"cpu\", \"cuda\" or \"cuda:N\"",
        );
        found.need(
            self.peak_tflops >= 0.0 && self.peak_tflops.is_finite(),
            "train.peak_tflops",
            self.peak_tflops,
            "0 (unset) or above",
        );
        found.need(self.threads <= 1024, "train.threads", self.threads, "0 (one per core) to 1024");
        found.need(
            self.mean.iter().all(|m| (0.0..=1.0).contains(m)),
            "train.mean",
            format!("{:?}", self.mean),
            "three values of 0 to 1",
        );
        found.need(
            self.std.iter().all(|s| *s > 0.0 && *s <= 1.0),
            "train.std",
            format!("{:?}", self.std),
            "three values above 0, at most 1",
        );
    }
}
