//! From a plain transformer to maps of several scales: outputs of four blocks at four scales (arXiv 2106.09681 §4.3), and a feature pyramid
//! (arXiv 1612.03144).

use tch::Tensor;
use tch::nn::Path;
use torch_ext::ranks::{Ranks, RanksError};

use super::layers::{Convolution, Doubling, by_inputs};
use crate::head::{Affine, BatchNorm};
use crate::model::Init;

/// Maps that the pyramid is made of. It adds one more, of every second cell of the last.
pub const SCALES: usize = 4;

/// Numbers, from 1, of the blocks whose outputs are taken: those at a third, half, two thirds and the end.
#[must_use]
pub fn blocks_taken(layers: i64) -> [usize; SCALES] {
    [1.0 / 3.0, 1.0 / 2.0, 2.0 / 3.0, 1.0].map(|share| (layers as f64 * share).round_ties_even().max(1.0) as usize)
}

/// Makes the maps.
#[derive(Debug)]
pub(super) struct Neck {
    /// A quarter of a patch: two doublings with a norm between them.
    quarter: (Doubling, BatchNorm, Doubling),
    /// Half a patch.
    half: Doubling,
    /// From `D` columns to the pyramid's, for each scale.
    lateral: Vec<Convolution>,
    /// What is read off, for each scale.
    output: Vec<Convolution>,
}

impl Neck {
    /// From `dim` columns to `channels`, under `vs`: `neck.*`, `pyramid.*` as in the script that `splitmask export` writes.
    pub(super) fn new(vs: &Path<'_>, dim: i64, channels: i64) -> Self {
        let neck = vs / "neck";
        let up = |vs: &Path<'_>| Doubling::new(vs, dim, dim, by_inputs(4 * dim));
        let first = &neck / 0;
        let quarter = (
            up(&(&first / 0)),
            BatchNorm::new(&(&first / 1), dim, Affine::ScaleAndShift),
            up(&(&first / 3)),
        );
        let half = up(&(&neck / 1));
        let pyramid = |list: &str, inputs: i64, kernel: i64| -> Vec<Convolution> {
            // Kaiming's uniform distribution without a gain.
            let bound = (3.0 / (inputs * kernel * kernel) as f64).sqrt();
            let of_scale = |n: usize| {
                let vs = vs / "pyramid" / list / n / 0;
                Convolution::new(&vs, inputs, channels, kernel, Init::Uniform { bound }, Init::Const(0.0))
            };
            (0..SCALES).map(of_scale).collect()
        };
        Self {
            quarter,
            half,
            lateral: pyramid("inner_blocks", dim, 1),
            output: pyramid("layer_blocks", channels, 3),
        }
    }

    /// Maps B×D×g×g of the four blocks to maps B×C of a quarter, half, one, two and four patches a cell, the finest first.
    ///
    /// # Errors
    /// Ranks that are no longer together.
    pub(super) fn forward(&self, blocks: &[Tensor; SCALES], training: Option<&Ranks>) -> Result<Vec<Tensor>, RanksError> {
        let (first, norm, second) = &self.quarter;
        let scaled = [
            second.forward(&norm.forward(&first.forward(&blocks[0]), 1, training)?.gelu("none")),
            self.half.forward(&blocks[1]),
            blocks[2].shallow_clone(),
            blocks[3].max_pool2d([2, 2], [2, 2], [0, 0], [1, 1], false),
        ];
        let mut maps = Vec::with_capacity(SCALES + 1);
        let mut above: Option<Tensor> = None;
        for n in (0..SCALES).rev() {
            let mut inner = self.lateral[n].forward(&scaled[n]);
            if let Some(above) = above {
                let size = inner.size();
                inner += above.upsample_nearest2d(&size[2..], None, None);
            }
            maps.push(self.output[n].forward(&inner));
            above = Some(inner);
        }
        maps.reverse();
        maps.push(maps[SCALES - 1].max_pool2d([1, 1], [2, 2], [0, 0], [1, 1], false));
        Ok(maps)
    }

    /// Moves the running statistics, unless the step was skipped.
    pub(super) fn after_step(&mut self, skipped: &Tensor) {
        self.quarter.1.after_step(skipped);
    }
}
