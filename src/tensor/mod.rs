//! Where plain batches become tensors on a device.
//!
//! Shape letters here and above: `B` images of a step, `S` side of a view in pixels, `N` patches of an image, `K` patches that
//! one set sees, `D` width, `V` visual words, `H` heads.

mod device;
mod finite;
mod host_batch;
mod rows;
mod stored_batch;

use tch::Tensor;

pub use device::{choose_device, parse_device};
pub use finite::{Look, look, watched};
pub use host_batch::{Normalise, SentBatch, step_input};
pub use rows::{flat_rows, place_rows, take_rows};
pub use stored_batch::{load_batch, save_batch};

/// Why a batch cannot become a step's input, or a device cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TensorError {
    /// `train.device` is none of the known words.
    #[error("train.device = \"{0}\": must be auto, cpu, cuda or cuda:N")]
    BadDevice(String),
    /// A device was asked for by name and is not there.
    #[error("train.device = \"{wanted}\": {reason}")]
    NoDevice {
        /// The setting.
        wanted: String,
        /// Why not, and what to do.
        reason: String,
    },
    /// A buffer of the batch has another length than its shape says.
    #[error("batch: {what} holds {got} values, its shape asks for {want}")]
    BadBuffer {
        /// Which buffer.
        what: String,
        /// Its length.
        got: usize,
        /// The length its shape asks for.
        want: usize,
    },
    /// The samples of a batch disagree about how many patches a set has, so they make no rectangular tensor.
    #[error("batch: sample {sample} has {got} patches in set {set}, sample 0 has {want}")]
    RaggedParts {
        /// Index in the batch.
        sample: usize,
        /// `A` or `B`.
        set: char,
        /// Patches there.
        got: usize,
        /// Patches of sample 0.
        want: usize,
    },
    /// A part other than 0, 1, 2.
    #[error("batch: sample {sample} assigns patch {patch} to part {part}; parts are 0 (none), 1 (A) and 2 (B)")]
    BadPart {
        /// Index in the batch.
        sample: usize,
        /// Index of the patch.
        patch: usize,
        /// The value.
        part: u8,
    },
    /// What libtorch said.
    #[error("{0}")]
    Torch(String),
    /// A range of samples beyond the batch.
    #[error("batch: samples {start}..{end} of {len} asked for")]
    BadRange {
        /// First sample.
        start: usize,
        /// Behind the last sample.
        end: usize,
        /// Samples in the batch.
        len: usize,
    },
}

impl From<torch_ext::TorchError> for TensorError {
    fn from(e: torch_ext::TorchError) -> Self {
        Self::Torch(e.to_string())
    }
}

/// Which patches the sets A and B see, as ascending patch indices (i64, on the device).
#[derive(Debug)]
pub struct Parts {
    /// Patches N of an image.
    pub patches: i64,
    /// B×K: in set A; for a single mask, the masked patches.
    pub seen_a: Tensor,
    /// B×K: in set B; no columns for a single mask.
    pub seen_b: Tensor,
    /// B×(N−K): not in A.
    pub absent_a: Tensor,
    /// B×(N−K): not in B.
    pub absent_b: Tensor,
}

/// What one forward pass sees.
#[derive(Debug)]
pub struct StepInput {
    /// Images B.
    pub len: i64,
    /// One per view, f32 B×3×S×S, normalised.
    pub views: Vec<Tensor>,
    /// i64 B×N: visual word of each patch of view 0.
    pub words: Option<Tensor>,
    /// Largest word; checked against the vocabulary on the host, because a device would only crash.
    pub largest_word: u32,
    /// How the patches of view 0 are divided.
    pub parts: Option<Parts>,
    /// i64 B: class index, −1 if unknown.
    pub labels: Tensor,
}

/// libtorch's random generator is one per process: tests that draw from it take turns.
#[cfg(test)]
pub(crate) fn alone() -> std::sync::MutexGuard<'static, ()> {
    static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());
    TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
