//! How parameters start. Everything is drawn on the CPU from libtorch's global generator, so a seed gives the same weights on every device.

use tch::nn::{self, Path};
use tch::{Device, Kind, Tensor};

/// Distribution of a new parameter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// One value.
    Const(f64),
    /// Normal, mean 0. Timm's `trunc_normal_(std=0.02)` cuts at ±2, a hundred standard deviations out: this.
    Normal {
        /// Standard deviation.
        std: f64,
    },
    /// Normal cut at ± one `std`, as BEiT's wrapper does (arXiv 2106.08254; its spread is 0.54 `std`).
    CutNormal {
        /// Standard deviation before the cut.
        std: f64,
    },
    /// Uniform in ± `bound`.
    Uniform {
        /// Largest absolute value.
        bound: f64,
    },
    /// Uniform in ± √(6 ÷ (inputs + outputs)) of a matrix outputs×inputs (Glorot and Bengio 2010); what stands behind the first dimension is input.
    Xavier,
    /// The same, with query, key and value as three matrices and a class token of almost nothing (arXiv 2104.02057's code).
    XavierOfThree,
}

impl Init {
    /// What mask tokens and position tables are drawn from where the matrices are drawn from this: they have no inputs and outputs.
    pub(crate) fn of_tokens(self) -> Self {
        match self {
            Self::Xavier | Self::XavierOfThree => Self::Normal { std: 0.02 },
            other => other,
        }
    }

    /// The same for a class token.
    pub(crate) fn of_class_token(self) -> Self {
        match self {
            Self::XavierOfThree => Self::Normal { std: 1e-6 },
            other => other.of_tokens(),
        }
    }

    /// The same for query, key and value in one matrix, of `dim` inputs each.
    pub(crate) fn of_query_key_value(self, dim: i64) -> Self {
        match self {
            Self::XavierOfThree => Self::Uniform {
                bound: (6.0 / (2 * dim) as f64).sqrt(),
            },
            other => other,
        }
    }

    fn draw(self, dims: &[i64]) -> Tensor {
        let options = (Kind::Float, Device::Cpu);
        match self {
            Self::Const(value) => Tensor::full(dims, value, options),
            Self::Normal { std } => Tensor::randn(dims, options) * std,
            Self::CutNormal { std } => {
                // Inverse of the distribution function: Φ(±1) = 0.5 ± 0.341 in terms of erf.
                const ERF_CUT: f64 = 0.682_689_492_137_085_9; // erf(1/√2)
                Tensor::zeros(dims, options).uniform_(-ERF_CUT, ERF_CUT).erfinv() * (std * std::f64::consts::SQRT_2)
            }
            Self::Uniform { bound } => Tensor::zeros(dims, options).uniform_(-bound, bound),
            Self::Xavier | Self::XavierOfThree => {
                let inputs: i64 = dims[1..].iter().product();
                let bound = (6.0 / (dims[0] + inputs) as f64).sqrt();
                Self::Uniform { bound }.draw(dims)
            }
        }
    }
}

/// A trainable parameter `name` under `vs`.
pub fn parameter(vs: &Path<'_>, name: &str, dims: &[i64], init: Init) -> Tensor {
    vs.var_copy(name, &init.draw(dims))
}

/// A variable `name` under `vs` that begins with `value`, is saved with the others and gets no gradient.
pub fn untrained(vs: &Path<'_>, name: &str, value: &Tensor) -> Tensor {
    let mut variable = vs.zeros_no_train(name, &value.size());
    tch::no_grad(|| variable.copy_(value));
    variable
}

/// Linear layer of `inputs` → `outputs` under `vs`; the bias starts at 0.
#[must_use]
pub fn linear(vs: &Path<'_>, inputs: i64, outputs: i64, bias: bool, init: Init) -> nn::Linear {
    let ws = parameter(vs, "weight", &[outputs, inputs], init);
    let bs = bias.then(|| parameter(vs, "bias", &[outputs], Init::Const(0.0)));
    nn::Linear { ws, bs }
}

/// x …×K through a matrix N×K and an optional bias.
pub fn project(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
    torch_ext::linear(x, weight, bias).unwrap_or_else(|e| panic!("{e}"))
}

/// x …×K through a layer.
pub fn through(layer: &nn::Linear, x: &Tensor) -> Tensor {
    project(x, &layer.ws, layer.bs.as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cut_normal_is_cut_and_has_its_spread() {
        let _turn = crate::tensor::alone();
        let x = Init::CutNormal { std: 0.02 }.draw(&[100_000]);
        assert!(x.abs().max().double_value(&[]) <= 0.02 * (1.0 + 1e-5));
        let spread = x.std(true).double_value(&[]) / 0.02;
        assert!((spread - 0.5396).abs() < 0.01, "{spread}");
    }

    #[test]
    fn what_is_untrained_is_saved_and_gets_no_gradient() {
        let vs = nn::VarStore::new(Device::Cpu);
        let value = Tensor::arange(6, (Kind::Float, Device::Cpu)).view([2, 3]);
        let table = untrained(&vs.root(), "table", &value);
        assert_eq!((&table, table.requires_grad()), (&value, false));
        assert_eq!(vs.variables()["table"], value);
    }

    #[test]
    fn the_others_have_their_spread() {
        let _turn = crate::tensor::alone();
        let std = |i: Init| i.draw(&[100_000]).std(true).double_value(&[]);
        assert!((std(Init::Normal { std: 0.02 }) - 0.02).abs() < 5e-4);
        assert!((std(Init::Uniform { bound: 3.0 }) - 3f64.sqrt()).abs() < 0.02);
        let matrix = Init::Xavier.draw(&[200, 10, 10, 10]);
        let bound = (6.0f64 / 1200.0).sqrt();
        assert!((matrix.std(true).double_value(&[]) / bound - 1.0 / 3f64.sqrt()).abs() < 0.005);
        assert!(matrix.abs().max().double_value(&[]) <= bound * (1.0 + 1e-6));
        let three = Init::XavierOfThree.of_query_key_value(100).draw(&[300, 100]);
        assert!((three.abs().max().double_value(&[]) / (6.0f64 / 200.0).sqrt() - 1.0).abs() < 1e-3);
        assert_eq!(Init::Xavier.of_query_key_value(100), Init::Xavier);
        assert_eq!(Init::Const(2.0).draw(&[3]).sum(Kind::Float).double_value(&[]), 6.0);
    }
}
