//! Pre-trained encoders, and networks that learnt classes, as files that other libraries load, and files of other libraries as a start.
//!
//! A format is one [`Exporter`] in [`EXPORTERS`]; the conformance test runs over all of them. Names, shapes and settings were read off
//! timm 1.0 and transformers 4.57 and 5, and are kept in `tests/fixtures/interop` as golden lists, and as small networks with heads and what they answer.

mod beit;
mod card;
mod encoder;
mod files;
mod head;
mod import;
mod names;
mod pictures;
mod plain;
mod pyramid;
#[cfg(test)]
mod tests;
mod timm;
mod torchvision;
mod upernet;
mod verify;
mod vit;

use std::collections::BTreeMap;
use std::path::PathBuf;

use tch::Tensor;

pub use card::{Card, Measured, PixelClasses};
pub use encoder::{Encoder, Parts};
pub use files::{Dtype, Export, MODEL, VERIFICATION, export, read_metadata, write_tensors};
pub use head::{ClassHead, Seen};
pub use import::{Foreign, Imported, import};
pub use pictures::Picture;
pub use verify::{Verified, verify};

use crate::model::config::VitConfig;

/// Tensors by name, sorted.
pub type Tensors = BTreeMap<String, Tensor>;

/// Names and shapes of a file.
pub type Layout = BTreeMap<String, Vec<i64>>;

/// Why nothing was exported, or an export is not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The format has no word for something the model has.
    #[error("format {format} cannot express {what}")]
    Cannot {
        /// Name of the format.
        format: &'static str,
        /// What the model has.
        what: &'static str,
        /// What to do.
        hint: String,
    },
    /// Averaged weights were asked for and there are none.
    #[error("{path}: no averaged weights in it (tensors named ema.*)")]
    NoAverage {
        /// Checkpoint.
        path: PathBuf,
    },
    /// A file that is not what its format says.
    #[error("{path}: {detail}")]
    Bad {
        /// File or folder.
        path: PathBuf,
        /// What is wrong.
        detail: String,
        /// What to do.
        hint: Option<String>,
    },
    /// The file system said no.
    #[error("{path}: {source}")]
    Io {
        /// File or folder.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// A tensor that is missing, left over, or of another shape.
    #[error("tensors do not make this encoder: {0}")]
    Tensors(String),
    /// libtorch said no.
    #[error("libtorch: {0}")]
    Torch(#[from] tch::TchError),
}

impl ExportError {
    /// What to do next.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Cannot { hint, .. } => Some(hint.clone()),
            Self::NoAverage { .. } => Some("export --weights raw, or train with a weight average (ema.decay, for example 0.999)".into()),
            Self::Bad { hint, .. } => hint.clone(),
            Self::Io { .. } | Self::Tensors(_) | Self::Torch(_) => None,
        }
    }
}

/// What an exported model answers an image with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Classes, by a head.
    Classes,
    /// A feature: the mean of the patch tokens.
    MeanOfPatches,
    /// A feature: the class token.
    ClassToken,
}

impl Answer {
    /// The feature of `tokens` B×(1+N)×D in Python, with what a reader must know.
    fn in_python(self) -> &'static str {
        match self {
            Self::ClassToken => "tokens[:, 0]   # the class token, which the run was measured by (eval.pool)",
            Self::Classes | Self::MeanOfPatches => "tokens[:, 1:].mean(1)   # the class token comes first",
        }
    }
}

/// One format. The encoder is always the same function: whatever [`Exporter::tensors`] writes, [`Exporter::read`] turns back into an
/// encoder with equal features, and equal logits where it has a head.
pub trait Exporter: Sync {
    /// Value of `--format`.
    fn name(&self) -> &'static str;

    /// One line.
    fn doc(&self) -> &'static str;

    /// The same encoder in terms this format has: biases joined, LayerScale folded into matrices where there is no place for it.
    ///
    /// # Errors
    /// [`ExportError::Cannot`].
    fn express(&self, encoder: &Encoder) -> Result<Encoder, ExportError>;

    /// Tensors of an [`Exporter::express`]ed encoder under the format's names.
    fn tensors(&self, encoder: &Encoder) -> Tensors;

    /// Names and shapes that the library asks for, written down independently of [`Exporter::tensors`].
    fn layout(&self, encoder: &Encoder) -> Layout;

    /// The inverse of [`Exporter::tensors`]; `like` has the geometry.
    ///
    /// # Errors
    /// [`ExportError::Tensors`] naming the first one missing.
    fn read(&self, tensors: &Tensors, like: &Encoder) -> Result<Encoder, ExportError>;

    /// The other files of the folder (name, content), without the card.
    fn settings(&self, encoder: &Encoder, card: &Card, dtype: Dtype) -> Vec<(&'static str, String)>;

    /// How to load the folder, whose name is `folder`, for such an answer: code for the card.
    fn snippet(&self, folder: &str, answer: Answer) -> String;

    /// `library_name` of the card's front matter, if it has one.
    fn library(&self) -> Option<&'static str>;
}

/// All formats.
pub static EXPORTERS: &[&dyn Exporter] = &[
    &timm::Timm,
    &vit::HfVit,
    &beit::HfBeit,
    &upernet::HfUperNet,
    &torchvision::MaskRcnn,
    &plain::Plain,
];

/// The format of a name.
#[must_use]
pub fn exporter(name: &str) -> Option<&'static dyn Exporter> {
    EXPORTERS.iter().copied().find(|e| e.name() == name)
}

/// How to load a classifier with transformers.
fn classification_snippet(folder: &str, class: &str) -> String {
    format!(
        "from transformers import AutoImageProcessor, {class}\n\
         model = {class}.from_pretrained(\"{folder}\").eval()\n\
         processor = AutoImageProcessor.from_pretrained(\"{folder}\")\n\
         logits = model(**processor(images, return_tensors=\"pt\")).logits\n\
         names = [model.config.id2label[int(i)] for i in logits.argmax(-1)]"
    )
}

/// Hidden width of the MLP.
fn hidden(model: &VitConfig) -> i64 {
    (model.dim() as f64 * model.mlp_ratio).round() as i64
}

/// `preprocessor_config.json` of the transformers formats: resize to the square with a bicubic filter, ImageNet-style normalisation.
fn preprocessor(encoder: &Encoder, card: &Card) -> String {
    let side = encoder.model.image;
    let value = serde_json::json!({
        "image_processor_type": "ViTImageProcessor",
        "do_resize": true, "size": { "height": side, "width": side }, "resample": 3,
        "do_rescale": true, "rescale_factor": 1.0 / 255.0,
        "do_normalize": true, "image_mean": card.mean, "image_std": card.std,
    });
    format!("{value:#}\n")
}
