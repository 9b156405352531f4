//! A feature pyramid (arXiv 1612.03144) on the maps that [`Neck`](crate::head::Neck) makes of a plain transformer.

use tch::Tensor;
use tch::nn::Path;

use super::layers::Convolution;
use crate::model::Init;

/// Maps that the pyramid is made of. It adds one more, of every second cell of the last.
pub const SCALES: usize = 4;

/// Numbers, from 1, of the blocks whose outputs are taken: those at a third, half, two thirds and the end.
#[must_use]
pub fn blocks_taken(layers: i64) -> [usize; SCALES] {
    [1.0 / 3.0, 1.0 / 2.0, 2.0 / 3.0, 1.0].map(|share| (layers as f64 * share).round_ties_even().max(1.0) as usize)
}

/// Convolutions that give each map what the coarser ones show.
#[derive(Debug)]
pub(super) struct Pyramid {
    /// From `D` columns to the pyramid's, for each scale.
    lateral: Vec<Convolution>,
    /// What is read off, for each scale.
    output: Vec<Convolution>,
}

impl Pyramid {
    /// From `dim` columns to `channels`, under `vs`: `pyramid.inner_blocks.*`, `pyramid.layer_blocks.*` as in torchvision.
    pub(super) fn new(vs: &Path<'_>, dim: i64, channels: i64) -> Self {
        let convolutions = |list: &str, inputs: i64, kernel: i64| -> Vec<Convolution> {
            // Kaiming's uniform distribution without a gain.
            let bound = (3.0 / (inputs * kernel * kernel) as f64).sqrt();
            let of_scale = |n: usize| {
                let vs = vs / "pyramid" / list / n / 0;
                Convolution::new(&vs, inputs, channels, kernel, Init::Uniform { bound }, Init::Const(0.0))
            };
            (0..SCALES).map(of_scale).collect()
        };
        Self {
            lateral: convolutions("inner_blocks", dim, 1),
            output: convolutions("layer_blocks", channels, 3),
        }
    }

    /// Maps B×D of falling sides to as many B×C and one of half the last one's side, the finest first.
    pub(super) fn forward(&self, scaled: &[Tensor; SCALES]) -> Vec<Tensor> {
        let mut maps = Vec::with_capacity(SCALES + 1);
        let mut above: Option<Tensor> = None;
        for n in (0..SCALES).rev() {
            let mut inner = self.lateral[n].forward(&scaled[n]);
            if let Some(above) = above {
                let size = inner.size();
                inner = &inner + above.upsample_nearest2d(&size[2..], None, None);
            }
            maps.push(self.output[n].forward(&inner));
            above = Some(inner);
        }
        maps.reverse();
        maps.push(maps[SCALES - 1].max_pool2d([1, 1], [2, 2], [0, 0], [1, 1], false));
        maps
    }
}
