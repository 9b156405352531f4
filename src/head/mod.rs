//! What objectives put on top of a backbone.

mod decoder;

use tch::Tensor;
use tch::nn::{self, Path};

pub use decoder::{Decoder, DecoderConfig};

use crate::model::{Init, linear, through};
use crate::tensor::look;

/// Linear classifier over visual words: …×D → …×V.
#[derive(Debug)]
pub struct MimHead(nn::Linear);

impl MimHead {
    /// Under `vs` (`weight`, `bias`).
    #[must_use]
    pub fn new(vs: &Path<'_>, dim: i64, vocabulary: i64, weights: Init) -> Self {
        Self(linear(vs, dim, vocabulary, true, weights))
    }

    /// Logits of the words.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let logits = through(&self.0, x);
        look(|| "mim_head".into(), &logits);
        logits
    }
}
