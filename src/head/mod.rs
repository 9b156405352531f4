//! What objectives put on top of a backbone.

mod batch_norm;
mod decoder;
mod deconv;
pub mod mask_rcnn;
mod neck;
mod projection;
mod upernet;

use tch::Tensor;
use tch::nn::{self, Path};

pub use batch_norm::{Affine, BatchNorm};
pub use decoder::{Decoder, DecoderConfig};
pub use deconv::DeconvHead;
pub use neck::Neck;
pub use projection::{Projection, ProjectionConfig};
pub use upernet::{AUXILIARY_MAP, POOLS, UperNet, UperNetShape};

use crate::loss::token_cross_entropy;
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

    /// Mean cross-entropy in nats of rows `x` M×D against `words` (i64 M), f32 scalar, and the likeliest word of each row (i64 M, no gradient).
    pub fn cross_entropy(&self, x: &Tensor, words: &Tensor) -> (Tensor, Tensor) {
        let bias = self.0.bs.as_ref().expect("the head has a bias");
        let (loss, likeliest) = token_cross_entropy(x, &self.0.ws, bias, words);
        look(|| "mim_head".into(), &loss);
        (loss, likeliest)
    }

    /// Logits of the words.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        through(&self.0, x)
    }
}
