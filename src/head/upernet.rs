//! UperNet: classes of pixels from maps of four sizes, the coarsest also pooled.

use tch::Tensor;
use tch::nn::Path;
use torch_ext::ranks::{Ranks, RanksError};

use super::batch_norm::{Affine, BatchNorm};
use super::neck::Neck;
use crate::model::{Init, drop_channels, parameter};

/// Sides of the grids that the coarsest map is averaged to.
pub const POOLS: [i64; 4] = [1, 2, 3, 6];
/// Which of the four maps the auxiliary head sees, from 0.
pub const AUXILIARY_MAP: usize = 2;
/// Deviation of the classifiers' weights at the start, as in mmsegmentation.
const CLASSIFIER_DEVIATION: f64 = 0.01;

/// What a UperNet is made of, and how it learns.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct UperNetShape {
    /// The blocks whose outputs it sees, counted from 1, ascending.
    pub blocks: [usize; 4],
    /// Channels of its convolutions.
    pub width: i64,
    /// Channels of the auxiliary head.
    pub auxiliary_width: i64,
    /// Weight of that head's loss; 0 = there is none.
    pub auxiliary_weight: f64,
    /// Share of the channels that the classifiers do not see in a step of training.
    pub dropout: f64,
}

impl UperNetShape {
    /// The blocks at a third, half and two thirds of `layers` and the last one: 4, 6, 8, 12 of 12. `None` for fewer than four.
    #[must_use]
    pub fn blocks_of(layers: usize) -> Option<[usize; 4]> {
        (layers >= 4).then(|| [layers / 3, layers / 2, (2 * layers).div_ceil(3), layers])
    }

    /// Floating point operations of a forward pass over one image, as in training, of `side` × `side` patches of `dim` columns to `classes`.
    #[must_use]
    pub fn flops(&self, dim: i64, side: i64, classes: i64) -> f64 {
        let conv =
            |side: i64, inputs: i64, outputs: i64, kernel: i64| 2.0 * (side * side * kernel * kernel) as f64 * (inputs * outputs) as f64;
        let (width, coarsest) = (self.width, side / 2);
        let pools: f64 = POOLS.iter().map(|pool| conv(*pool, dim, width, 1)).sum();
        let sides = [4 * side, 2 * side, side];
        let levels: f64 = sides
            .iter()
            .map(|side| conv(*side, dim, width, 1) + conv(*side, width, width, 3))
            .sum();
        let fused = conv(4 * side, 4 * width, width, 3) + conv(4 * side, width, classes, 1);
        let auxiliary = conv(side, dim, self.auxiliary_width, 3) + conv(side, self.auxiliary_width, classes, 1);
        let auxiliary = if self.auxiliary_weight > 0.0 { auxiliary } else { 0.0 };
        Neck::flops(dim, side) + pools + conv(coarsest, dim + 4 * width, width, 3) + levels + fused + auxiliary
    }
}

/// Convolution without bias, BatchNorm, ReLU; the side of the map stays.
#[derive(Debug)]
struct ConvNorm {
    weight: Tensor,
    norm: BatchNorm,
}

impl ConvNorm {
    /// From `inputs` to `outputs` channels by a kernel of `kernel` × `kernel` (1 or 3). The spread at the start is mmsegmentation's: that of the gradient is kept (He et
    /// al., arXiv 1502.01852).
    fn new(vs: &Path<'_>, inputs: i64, outputs: i64, kernel: i64) -> Self {
        let std = (2.0 / (outputs * kernel * kernel) as f64).sqrt();
        Self {
            weight: parameter(vs, "weight", &[outputs, inputs, kernel, kernel], Init::Normal { std }),
            norm: BatchNorm::new(&(vs / "norm"), outputs, Affine::ScaleAndShift),
        }
    }

    fn forward(&self, x: &Tensor, training: Option<&Ranks>) -> Result<Tensor, RanksError> {
        let around = self.weight.size()[3] / 2;
        let y = x.conv2d(&self.weight, None::<&Tensor>, [1, 1], [around, around], [1, 1], 1);
        Ok(self.norm.forward(&y, 1, training)?.relu())
    }
}

/// A linear classifier of each cell, behind a dropout of channels.
#[derive(Debug)]
struct Classifier {
    weight: Tensor,
    bias: Tensor,
    dropout: f64,
}

impl Classifier {
    fn new(vs: &Path<'_>, inputs: i64, classes: i64, dropout: f64) -> Self {
        let init = Init::Normal { std: CLASSIFIER_DEVIATION };
        Self {
            weight: parameter(vs, "weight", &[classes, inputs, 1, 1], init),
            bias: parameter(vs, "bias", &[classes], Init::Const(0.0)),
            dropout,
        }
    }

    fn forward(&self, x: Tensor, train: bool) -> Tensor {
        let x = drop_channels(x, if train { self.dropout } else { 0.0 });
        x.conv2d(&self.weight, Some(&self.bias), [1, 1], [0, 0], [1, 1], 1)
    }
}

/// Bilinearly to the size of another map.
fn resized(x: &Tensor, like: &Tensor) -> Tensor {
    x.upsample_bilinear2d(&like.size()[2..], false, None, None)
}

/// UperNet (arXiv 1807.10221) as mmsegmentation and transformers build it, on a plain vision transformer: a [`Neck`], the coarsest map pooled to four grids
/// (arXiv 1612.01105), sums from coarse to fine, all maps in one, a classifier. An auxiliary head on the third map learns beside it.
#[derive(Debug)]
pub struct UperNet {
    neck: Neck,
    pools: Vec<ConvNorm>,
    pooled: ConvNorm,
    laterals: Vec<ConvNorm>,
    smooth: Vec<ConvNorm>,
    fused: ConvNorm,
    classifier: Classifier,
    auxiliary: Option<(ConvNorm, Classifier)>,
}

impl UperNet {
    /// From maps of `dim` channels to `classes`, under `vs`: `neck.*`, `pools.N`, `pooled`, `laterals.N`, `smooth.N`, `fused`, `auxiliary`, each with `weight` and
    /// `norm.*`; `classifier.*`, `auxiliary.classifier.*`.
    #[must_use]
    pub fn new(vs: &Path<'_>, dim: i64, shape: &UperNetShape, classes: i64) -> Self {
        let width = shape.width;
        let levels = |name: &str, inputs: i64, kernel: i64| -> Vec<ConvNorm> {
            (0..3).map(|n| ConvNorm::new(&(vs / name / n), inputs, width, kernel)).collect()
        };
        let pools = |n: usize| ConvNorm::new(&(vs / "pools" / n), dim, width, 1);
        let auxiliary = || {
            let (vs, width) = (vs / "auxiliary", shape.auxiliary_width);
            let classifier = Classifier::new(&(&vs / "classifier"), width, classes, shape.dropout);
            (ConvNorm::new(&vs, dim, width, 3), classifier)
        };
        Self {
            neck: Neck::new(&(vs / "neck"), dim),
            pools: (0..POOLS.len()).map(pools).collect(),
            pooled: ConvNorm::new(&(vs / "pooled"), dim + POOLS.len() as i64 * width, width, 3),
            laterals: levels("laterals", dim, 1),
            smooth: levels("smooth", width, 3),
            fused: ConvNorm::new(&(vs / "fused"), 4 * width, width, 3),
            classifier: Classifier::new(&(vs / "classifier"), width, classes, shape.dropout),
            auxiliary: (shape.auxiliary_weight > 0.0).then(auxiliary),
        }
    }

    /// Maps of four sizes of [`Neck::maps`], for the heads; in `training` by statistics of the batch ([`BatchNorm::forward`]), as the heads.
    ///
    /// # Errors
    /// Ranks that are no longer together.
    pub fn necked(&self, maps: &[Tensor; 4], training: Option<&Ranks>) -> Result<[Tensor; 4], RanksError> {
        self.neck.forward(maps, training)
    }

    /// Logits B×K×4g×4g of [`UperNet::necked`] maps. Training draws the dropped channels from libtorch's generator of the device.
    ///
    /// # Errors
    /// Ranks that are no longer together.
    pub fn logits(&self, maps: &[Tensor; 4], training: Option<&Ranks>) -> Result<Tensor, RanksError> {
        let coarsest = &maps[3];
        let mut pyramid = vec![coarsest.shallow_clone()];
        for (pool, side) in self.pools.iter().zip(POOLS) {
            let averaged = pool.forward(&coarsest.adaptive_avg_pool2d([side, side]), training)?;
            pyramid.push(resized(&averaged, coarsest));
        }
        let mut above = self.pooled.forward(&Tensor::cat(&pyramid, 1), training)?;
        let mut outputs = vec![above.shallow_clone()];
        for level in (0..3).rev() {
            let lateral = self.laterals[level].forward(&maps[level], training)?;
            above = &lateral + resized(&above, &lateral);
            outputs.insert(0, self.smooth[level].forward(&above, training)?);
        }
        let finest = outputs[0].shallow_clone();
        let outputs: Vec<Tensor> = outputs.iter().map(|map| resized(map, &finest)).collect();
        let fused = self.fused.forward(&Tensor::cat(&outputs, 1), training)?;
        Ok(self.classifier.forward(fused, training.is_some()))
    }

    /// Logits B×K×g×g of the auxiliary head, where there is one.
    ///
    /// # Errors
    /// Ranks that are no longer together.
    pub fn auxiliary_logits(&self, maps: &[Tensor; 4], training: Option<&Ranks>) -> Result<Option<Tensor>, RanksError> {
        let Some((conv, classifier)) = &self.auxiliary else {
            return Ok(None);
        };
        let seen = conv.forward(&maps[AUXILIARY_MAP], training)?;
        Ok(Some(classifier.forward(seen, training.is_some())))
    }

    /// Moves the running statistics, unless the step was skipped.
    pub fn after_step(&mut self, skipped: &Tensor) {
        self.neck.after_step(skipped);
        let levels = [&mut self.pools, &mut self.laterals, &mut self.smooth].into_iter().flatten();
        let single = [&mut self.pooled, &mut self.fused];
        let auxiliary = self.auxiliary.iter_mut().map(|(conv, _)| conv);
        for conv in levels.chain(single).chain(auxiliary) {
            conv.norm.after_step(skipped);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_the_papers_at_twelve_and_four_different_ones_at_any_depth() {
        assert_eq!(UperNetShape::blocks_of(12), Some([4, 6, 8, 12]));
        assert_eq!(UperNetShape::blocks_of(24), Some([8, 12, 16, 24]));
        assert_eq!(UperNetShape::blocks_of(4), Some([1, 2, 3, 4]));
        assert_eq!(UperNetShape::blocks_of(3), None);
        for layers in 4..100 {
            let blocks = UperNetShape::blocks_of(layers).unwrap();
            assert!(blocks[0] > 0 && blocks.is_sorted_by(|a, b| a < b), "{layers}: {blocks:?}");
        }
    }
}
