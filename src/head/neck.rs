//! Maps of four sizes from a plain vision transformer, whose blocks all have one.

use tch::Tensor;
use tch::nn::Path;
use torch_ext::ranks::{Ranks, RanksError};

use super::batch_norm::{Affine, BatchNorm};
use crate::model::{Init, parameter};

/// A transposed convolution whose kernel and stride are 2, so that it doubles the side of a map. Without the bias that others give it: what is the same in
/// all cells of a channel is taken away by the batch normalisation behind it or behind the convolution that follows, or given by the bias of that convolution.
#[derive(Debug)]
struct Doubling(Tensor);

impl Doubling {
    /// Of `dim` channels to as many. Starts as PyTorch's.
    fn new(vs: &Path<'_>, dim: i64) -> Self {
        let bound = 1.0 / (4.0 * dim as f64).sqrt();
        Self(parameter(vs, "weight", &[dim, dim, 2, 2], Init::Uniform { bound }))
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        x.conv_transpose2d(&self.0, None::<&Tensor>, [2, 2], [0, 0], [0, 0], 1, [1, 1])
    }
}

/// XCiT's neck (arXiv 2106.09681, its code), which BEiT's segmentation uses too: the first of four maps is doubled twice, the second once, the third stays,
/// the fourth is halved by its maxima. With patches of 16 pixels the cells are then 4, 8, 16 and 32 pixels wide.
#[derive(Debug)]
pub struct Neck {
    first: Doubling,
    norm: BatchNorm,
    second: Doubling,
    single: Doubling,
}

impl Neck {
    /// Of maps of `dim` channels, under `vs`: `first.weight`, `first.norm.*`, `second.weight` (the first map's), `single.weight` (the second map's).
    #[must_use]
    pub fn new(vs: &Path<'_>, dim: i64) -> Self {
        Self {
            first: Doubling::new(&(vs / "first"), dim),
            norm: BatchNorm::new(&(vs / "first" / "norm"), dim, Affine::ScaleAndShift),
            second: Doubling::new(&(vs / "second"), dim),
            single: Doubling::new(&(vs / "single"), dim),
        }
    }

    /// The outputs of an encoder's blocks, B×(1+N)×D each with the class token first, as maps B×D×g×g.
    ///
    /// # Panics
    /// If these are not four.
    pub fn maps(outputs: &[Tensor]) -> [Tensor; 4] {
        let map = |tokens: &Tensor| {
            let (images, tokens_n, dim) = tokens.size3().expect("tokens are B×(1+N)×D");
            let side = ((tokens_n - 1) as f64).sqrt() as i64;
            tokens.narrow(1, 1, side * side).transpose(1, 2).reshape([images, dim, side, side])
        };
        let maps: Vec<Tensor> = outputs.iter().map(map).collect();
        maps.try_into().expect("outputs of four blocks")
    }

    /// Four maps B×D×g×g to B×D×4g×4g, B×D×2g×2g, B×D×g×g and B×D×⌊g/2⌋×⌊g/2⌋; g is at least 2. In `training` by statistics of the batch
    /// ([`BatchNorm::forward`]).
    ///
    /// # Errors
    /// Ranks that are no longer together.
    pub fn forward(&self, [first, second, third, fourth]: &[Tensor; 4], training: Option<&Ranks>) -> Result<[Tensor; 4], RanksError> {
        let finer = self.norm.forward(&self.first.forward(first), 1, training)?.gelu("none");
        Ok([
            self.second.forward(&finer),
            self.single.forward(second),
            third.shallow_clone(),
            fourth.max_pool2d([2, 2], [2, 2], [0, 0], [1, 1], false),
        ])
    }

    /// Moves the running statistics, unless the step was skipped.
    pub fn after_step(&mut self, skipped: &Tensor) {
        self.norm.after_step(skipped);
    }

    /// Floating point operations of a forward pass over one image of `side` × `side` cells of `dim` channels.
    #[must_use]
    pub fn flops(dim: i64, side: i64) -> f64 {
        // A cell of a finer map has one tap. Two maps of twice the side, one of four times.
        let cells = (2 * 4 + 16) * side * side;
        2.0 * cells as f64 * (dim * dim) as f64
    }
}
