//! A learnt vocabulary: the discrete VAE of DALL-E (arXiv 2102.12092 §2.1 and appendix A), which BEiT takes its words from.
//!
//! [`Dvae`] is the tokenizer and its file; [`Training`] makes one from pictures. A word is the argmax over the encoder's logits at one place
//! of a grid; the picture has `stride` pixels a side for each place. Names of parameters are those of the published encoder.

mod file;
mod geometry;
mod loss;
mod net;
mod tokenizer;
mod train;

use std::path::PathBuf;

pub use file::{Header, is_dvae};
pub use geometry::Geometry;
pub use loss::{Reconstruction, map_pixels, unmap_pixels};
pub use net::{Decoder, Encoder};
pub use tokenizer::Dvae;
pub use train::{Options, StepReport, Training};

/// Why a dVAE could not be read, written or trained.
#[derive(Debug, thiserror::Error)]
pub enum DvaeError {
    /// The file system said no.
    #[error("{path}: {source}")]
    Io {
        /// File.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// A file that is no dVAE, or a damaged one.
    #[error("{path}: {detail}")]
    Bad {
        /// File.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// A setting out of range.
    #[error("{key} = {value}: expected {allowed}")]
    Setting {
        /// Which one.
        key: &'static str,
        /// Its value.
        value: String,
        /// What is allowed.
        allowed: String,
    },
    /// libtorch said no.
    #[error("libtorch: {0}")]
    Torch(String),
}

impl From<tch::TchError> for DvaeError {
    fn from(e: tch::TchError) -> Self {
        Self::Torch(e.to_string().lines().next().unwrap_or_default().to_owned())
    }
}

impl From<crate::optim::OptimError> for DvaeError {
    fn from(e: crate::optim::OptimError) -> Self {
        Self::Torch(e.to_string())
    }
}
