//! Where plain batches become tensors on a device.
//!
//! Shape letters here and above: `B` images of a step, `S` side of a view in pixels, `N` patches of an image, `K` patches that
//! one set sees, `D` width, `V` visual words, `H` heads.

mod device;
mod finite;
mod hidden;
mod host_batch;
mod rows;
mod stored_batch;
mod stored_objects;

use std::borrow::Cow;

use tch::Tensor;

use splitmask_pipeline::types::{Object, PatchSet};

pub use device::{choose_device, multiplies_bf16, parse_device};
pub use finite::{Look, is_finite, look, watched};
pub use hidden::HiddenPatches;
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
    #[error("batch: sample {sample} has {got} patches in set {set:?}, sample 0 has {want}")]
    RaggedSets {
        /// Index in the batch.
        sample: usize,
        /// The set.
        set: PatchSet,
        /// Patches there.
        got: usize,
        /// Patches of sample 0.
        want: usize,
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

/// The sets A and B of patches, and what is outside of each, as ascending patch indices (i64, on the device). What the sets mean is the objective's
/// matter: SplitMask's branches see one each, BEiT masks the patches in A and has no B.
#[derive(Debug)]
pub struct PatchSets {
    /// Patches N of an image.
    pub patches: i64,
    /// B×K: in A.
    pub a: Tensor,
    /// B×K: in B; no columns where the mask has one set.
    pub b: Tensor,
    /// B×(N−K): not in A.
    pub not_a: Tensor,
    /// B×(N−K): not in B.
    pub not_b: Tensor,
}

/// A view of all images of a step.
#[derive(Debug)]
pub struct NamedView {
    /// As the objective's request names it.
    pub name: Cow<'static, str>,
    /// f32 B×3×S×S, normalised.
    pub pixels: Tensor,
}

/// What one forward pass sees.
#[derive(Debug)]
pub struct StepInput {
    /// Images B.
    pub len: i64,
    /// The views, in the order of the objective's request.
    pub views: Vec<NamedView>,
    /// i64 B×N: visual word of each patch of the view that the request names.
    pub words: Option<Tensor>,
    /// Largest word; checked against the vocabulary on the host, because a device would only crash.
    pub largest_word: u32,
    /// How the patches are divided.
    pub sets: Option<PatchSets>,
    /// Which patches of the views that the request names are hidden.
    pub hidden: Option<HiddenPatches>,
    /// i64 B×S×S: class of each pixel of the view whose map the request asks for, −1 where nothing is said.
    pub maps: Option<Tensor>,
    /// Objects in the view whose objects the request asks for, of each image, on the host: what they are matched with is matched there.
    pub objects: Option<Vec<Vec<Object>>>,
    /// i64 B: class index, −1 if unknown.
    pub labels: Tensor,
}

impl StepInput {
    /// Pixels of the first view of that name: f32 B×3×S×S, normalised.
    #[must_use]
    pub fn view(&self, name: &str) -> Option<&Tensor> {
        self.views_named(name).next()
    }

    /// All tensors of it, in one order.
    #[must_use]
    pub fn tensors(&self) -> Vec<&Tensor> {
        let sets = self.sets.iter().flat_map(|sets| [&sets.a, &sets.b, &sets.not_a, &sets.not_b]);
        let views = self.views.iter().map(|view| &view.pixels);
        views
            .chain(&self.words)
            .chain(sets)
            .chain(self.hidden.iter().map(|hidden| &hidden.rows))
            .chain(&self.maps)
            .chain([&self.labels])
            .collect()
    }

    /// Pixels of all views of that name, which are of one size.
    pub fn views_named(&self, name: &str) -> impl Iterator<Item = &Tensor> {
        self.views.iter().filter(move |view| view.name == name).map(|view| &view.pixels)
    }
}

/// libtorch's random generator is one per process: tests that draw from it take turns.
#[cfg(test)]
pub(crate) fn alone() -> std::sync::MutexGuard<'static, ()> {
    static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());
    TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
