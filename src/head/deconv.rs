//! Transposed convolutions from a grid of patches to a finer map of classes.

use tch::Tensor;
use tch::nn::Path;
use torch_ext::ranks::{Ranks, RanksError};

use super::batch_norm::{Affine, BatchNorm};
use crate::model::{Init, parameter};

/// Side of the kernel of a transposed convolution; with stride 2 and padding 1 it doubles the side of a map.
const KERNEL: i64 = 4;
/// Deviation of the classifier's weights at the start, as in mmsegmentation.
const CLASSIFIER_DEVIATION: f64 = 0.01;

/// One doubling: transposed convolution without bias, BatchNorm, ReLU.
#[derive(Debug)]
struct Doubling {
    weight: Tensor,
    norm: BatchNorm,
}

/// The decoder of ViTPose (arXiv 2204.12484 §3.1) as a head of segmentation: doublings of the encoder's map until a cell is 4 pixels wide, and a linear
/// classifier of each cell.
#[derive(Debug)]
pub struct DeconvHead {
    doublings: Vec<Doubling>,
    weight: Tensor,
    bias: Tensor,
}

impl DeconvHead {
    /// How many doublings take a patch of that side to 4 pixels; `None` where they miss it.
    #[must_use]
    pub fn doublings(patch: u32) -> Option<usize> {
        let times = patch / 4;
        (patch.is_multiple_of(4) && times.is_power_of_two()).then(|| times.ilog2() as usize)
    }

    /// From `inputs` columns by `doublings` of `width` channels each to `classes`, under `vs`: `deconv.N.weight`, `deconv.N.norm.*`, `classifier.*`.
    #[must_use]
    pub fn new(vs: &Path<'_>, inputs: i64, doublings: usize, width: i64, classes: i64) -> Self {
        let mut from = inputs;
        let layers = (0..doublings).map(|n| {
            let vs = vs / "deconv" / n;
            // Each cell of the finer map is a sum over 2 × 2 taps of every input (He et al., arXiv 1502.01852).
            let std = (2.0 / (4 * from) as f64).sqrt();
            let weight = parameter(&vs, "weight", &[from, width, KERNEL, KERNEL], Init::Normal { std });
            from = width;
            Doubling {
                weight,
                norm: BatchNorm::new(&(vs / "norm"), width, Affine::ScaleAndShift),
            }
        });
        let doublings = layers.collect();
        let vs = vs / "classifier";
        let init = Init::Normal { std: CLASSIFIER_DEVIATION };
        Self {
            doublings,
            weight: parameter(&vs, "weight", &[classes, from, 1, 1], init),
            bias: parameter(&vs, "bias", &[classes], Init::Const(0.0)),
        }
    }

    /// A map B×D×h×w to logits B×K×H×W, where H = h·2ⁿ after n doublings; in `training` by statistics of the batch ([`BatchNorm::forward`]).
    ///
    /// # Errors
    /// Ranks that are no longer together.
    pub fn forward(&self, map: &Tensor, training: Option<&Ranks>) -> Result<Tensor, RanksError> {
        let mut x = map.shallow_clone();
        for Doubling { weight, norm } in &self.doublings {
            let finer = x.conv_transpose2d(weight, None::<&Tensor>, [2, 2], [1, 1], [0, 0], 1, [1, 1]);
            x = norm.forward(&finer, 1, training)?.relu();
        }
        Ok(x.conv2d(&self.weight, Some(&self.bias), [1, 1], [0, 0], [1, 1], 1))
    }

    /// Moves the running statistics, unless the step was skipped.
    pub fn after_step(&mut self, skipped: &Tensor) {
        self.doublings.iter_mut().for_each(|doubling| doubling.norm.after_step(skipped));
    }

    /// Floating point operations of a forward pass over one image of `side` × `side` cells of `inputs` columns.
    #[must_use]
    pub fn flops(inputs: i64, side: i64, doublings: usize, width: i64, classes: i64) -> f64 {
        let (mut from, mut side, mut sum) = (inputs as f64, side as f64, 0.0);
        for _ in 0..doublings {
            side *= 2.0;
            // Four taps for each cell of the finer map.
            sum += 2.0 * 4.0 * side * side * from * width as f64;
            from = width as f64;
        }
        sum + 2.0 * side * side * from * classes as f64
    }
}
