//! Layers as torchvision starts them. `tch`'s own start otherwise.

use tch::Tensor;
use tch::nn::{Linear, Path};

use crate::model::{Init, parameter};

/// PyTorch's default for weights and biases of a layer that sums over so many inputs.
pub(super) fn by_inputs(inputs: i64) -> Init {
    Init::Uniform {
        bound: 1.0 / (inputs as f64).sqrt(),
    }
}

/// Kaiming's normal distribution for a ReLU, by what each input is added to (arXiv 1502.01852).
pub(super) fn by_outputs(outputs: i64) -> Init {
    Init::Normal {
        std: (2.0 / outputs as f64).sqrt(),
    }
}

/// A convolution with bias that keeps the size of a map.
#[derive(Debug)]
pub(super) struct Convolution {
    weight: Tensor,
    bias: Tensor,
    padding: i64,
}

impl Convolution {
    /// `inputs` → `outputs` channels by an odd `kernel`; parameters under `vs`.
    pub(super) fn new(vs: &Path<'_>, inputs: i64, outputs: i64, kernel: i64, weight: Init, bias: Init) -> Self {
        Self {
            weight: parameter(vs, "weight", &[outputs, inputs, kernel, kernel], weight),
            bias: parameter(vs, "bias", &[outputs], bias),
            padding: kernel / 2,
        }
    }

    /// B×C×H×W to B×K×H×W.
    pub(super) fn forward(&self, x: &Tensor) -> Tensor {
        x.conv2d(&self.weight, Some(&self.bias), [1, 1], [self.padding; 2], [1, 1], 1)
    }
}

/// A transposed convolution of 2 × 2 with stride 2 and bias: twice the side of a map.
#[derive(Debug)]
pub(super) struct Doubling {
    weight: Tensor,
    bias: Tensor,
}

impl Doubling {
    /// `inputs` → `outputs` channels; parameters under `vs`. PyTorch takes the outputs of a transposed convolution for its inputs.
    pub(super) fn new(vs: &Path<'_>, inputs: i64, outputs: i64, weight: Init) -> Self {
        Self {
            weight: parameter(vs, "weight", &[inputs, outputs, 2, 2], weight),
            bias: parameter(vs, "bias", &[outputs], by_inputs(4 * outputs)),
        }
    }

    /// B×C×H×W to B×K×2H×2W.
    pub(super) fn forward(&self, x: &Tensor) -> Tensor {
        x.conv_transpose2d(&self.weight, Some(&self.bias), [2, 2], [0, 0], [0, 0], 1, [1, 1])
    }
}

/// PyTorch's linear layer with its default start.
pub(super) fn linear(vs: &Path<'_>, inputs: i64, outputs: i64) -> Linear {
    let init = by_inputs(inputs);
    Linear {
        ws: parameter(vs, "weight", &[outputs, inputs], init),
        bs: Some(parameter(vs, "bias", &[outputs], init)),
    }
}
