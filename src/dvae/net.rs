//! Encoder and decoder (arXiv 2102.12092 appendix A.1), with the published parameter names.

use tch::nn::Path;
use tch::{Kind, Tensor};

use super::geometry::Geometry;
use crate::model::{Init, parameter};

/// Convolution that keeps the size; weights start normal with variance 1 ÷ fan-in, biases at 0.
#[derive(Debug)]
struct Conv {
    w: Tensor,
    b: Tensor,
    pad: i64,
}

impl Conv {
    fn new(vs: &Path<'_>, inputs: i64, outputs: i64, kernel: i64) -> Self {
        let std = 1.0 / ((inputs * kernel * kernel) as f64).sqrt();
        Self {
            w: parameter(vs, "w", &[outputs, inputs, kernel, kernel], Init::Normal { std }),
            b: parameter(vs, "b", &[outputs], Init::Const(0.0)),
            pad: (kernel - 1) / 2,
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        x.conv2d(&self.w, Some(&self.b), [1, 1], [self.pad, self.pad], [1, 1], 1)
    }
}

/// x + gain · four convolutions, each behind a ReLU; the way around is a 1×1 convolution where the width changes.
#[derive(Debug)]
struct Block {
    around: Option<Conv>,
    convs: [Conv; 4],
    gain: f64,
}

impl Block {
    fn new(vs: &Path<'_>, inputs: i64, outputs: i64, kernels: [i64; 4], gain: f64) -> Self {
        let hidden = outputs / 4;
        let widths = [inputs, hidden, hidden, hidden, outputs];
        let path = vs / "res_path";
        Self {
            around: (inputs != outputs).then(|| Conv::new(&(vs / "id_path"), inputs, outputs, 1)),
            convs: std::array::from_fn(|i| Conv::new(&(&path / format!("conv_{}", i + 1)), widths[i], widths[i + 1], kernels[i])),
            gain,
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let branch = self.convs.iter().fold(x.shallow_clone(), |y, conv| conv.forward(&y.relu()));
        let around = self.around.as_ref().map_or_else(|| x.shallow_clone(), |conv| conv.forward(x));
        around + branch * self.gain
    }
}

/// Groups of blocks between an input and an output convolution.
#[derive(Debug)]
struct Stack {
    input: Conv,
    groups: Vec<Vec<Block>>,
    output: Conv,
}

impl Stack {
    fn new(vs: &Path<'_>, g: &Geometry, input: (i64, i64, i64), widths: &[i64], kernels: [i64; 4], outputs: i64) -> Self {
        let vs = vs / "blocks";
        let mut before = input.1;
        let groups = widths.iter().enumerate().map(|(i, &width)| {
            let group = &vs / format!("group_{}", i + 1);
            let blocks = (0..g.blocks).map(|j| {
                let from = std::mem::replace(&mut before, width);
                Block::new(&(&group / format!("block_{}", j + 1)), from, width, kernels, g.gain())
            });
            blocks.collect()
        });
        let groups = groups.collect();
        Self {
            input: Conv::new(&(&vs / "input"), input.0, input.1, input.2),
            groups,
            output: Conv::new(&(&vs / "output" / "conv"), *widths.last().expect("a stride has groups"), outputs, 1),
        }
    }

    fn forward(&self, x: &Tensor, between: impl Fn(Tensor) -> Tensor) -> Tensor {
        let mut x = self.input.forward(x);
        for (i, group) in self.groups.iter().enumerate() {
            if i > 0 {
                x = between(x);
            }
            x = group.iter().fold(x, |x, block| block.forward(&x));
        }
        self.output.forward(&x.relu())
    }
}

/// Pictures → logits of the words.
#[derive(Debug)]
pub struct Encoder(Stack);

impl Encoder {
    /// Parameters under `vs`: `blocks.input.*`, `blocks.group_i.block_j.{id_path,res_path.conv_k}.*`, `blocks.output.conv.*`.
    #[must_use]
    pub fn new(vs: &Path<'_>, g: &Geometry) -> Self {
        let widths: Vec<i64> = (0..g.groups()).map(|i| g.channels(i)).collect();
        Self(Stack::new(vs, g, (3, g.width, 7), &widths, [3, 3, 3, 1], g.words))
    }

    /// Scales and shifts the output so that each word's logit has mean 0 and variance 1 over `x`, a first batch of mapped pixels: initialisation
    /// from data (arXiv 1602.07868 §3). Without it one word wins everywhere before anything is learnt.
    pub(super) fn standardise(&mut self, x: &Tensor) {
        tch::no_grad(|| {
            let logits = self.forward(x);
            let over = [0i64, 2, 3];
            let mean = logits.mean_dim(over.as_slice(), false, Kind::Float);
            let std = logits.std_dim(over.as_slice(), false, false).clamp_min(1e-6);
            let output = &mut self.0.output;
            let _ = output.w.g_div_(&std.view([-1, 1, 1, 1]));
            output.b.copy_(&((&output.b - mean) / std));
        });
    }

    /// B×3×S×S mapped pixels ([`super::map_pixels`]) → B×V×(S÷stride)×(S÷stride).
    pub fn forward(&self, x: &Tensor) -> Tensor {
        self.0.forward(x, |x| x.max_pool2d([2, 2], [2, 2], [0, 0], [1, 1], false))
    }
}

/// Words, hard or relaxed → statistics of pixels.
#[derive(Debug)]
pub struct Decoder(Stack);

impl Decoder {
    /// Parameters under `vs`, named as the encoder's.
    #[must_use]
    pub fn new(vs: &Path<'_>, g: &Geometry) -> Self {
        let widths: Vec<i64> = (0..g.groups()).rev().map(|i| g.channels(i)).collect();
        Self(Stack::new(vs, g, (g.words, g.embedding(), 1), &widths, [1, 3, 3, 3], 6))
    }

    /// B×V×g×g weights of the words (one-hot or relaxed) → B×6×(g·stride)×(g·stride): locations, then log scales, of the logits of mapped pixels.
    pub fn forward(&self, y: &Tensor) -> Tensor {
        self.0.forward(y, |x| {
            let (_, _, h, w) = x.size4().expect("four dimensions");
            x.upsample_nearest2d([2 * h, 2 * w], None, None)
        })
    }
}
