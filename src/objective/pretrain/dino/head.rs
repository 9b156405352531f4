//! The projection head (arXiv 2104.14294 §3.2, appendix C).

use tch::nn::{self, Path};
use tch::{Kind, Tensor};

use super::DinoConfig;
use crate::loss::unit_rows;
use crate::model::{Init, linear, parameter, project, through};
use crate::tensor::look;

/// Three linear layers with GELU between them, the result at length 1, and its products with K prototypes: a linear layer without bias whose rows are
/// normalised to length 1 (weight normalisation, arXiv 1602.07868) and multiplied by a gain each.
#[derive(Debug)]
pub(super) struct Head {
    layers: [nn::Linear; 3],
    /// Directions of the prototypes, K×bottleneck; their lengths do not matter.
    last: Tensor,
    /// K×1; none = 1.
    gain: Option<Tensor>,
}

impl Head {
    /// Parameters under `vs`: `fc1`, `fc2`, `fc3`, `last`.
    pub(super) fn new(vs: &Path<'_>, width: i64, prototypes: u32, config: &DinoConfig) -> Self {
        let [hidden, bottleneck, prototypes] = [config.hidden, config.bottleneck, prototypes].map(i64::from);
        let layer = |name: &str, inputs, outputs| linear(&(vs / name), inputs, outputs, true, Init::Normal { std: 0.02 });
        let layers = [
            layer("fc1", width, hidden),
            layer("fc2", hidden, hidden),
            layer("fc3", hidden, bottleneck),
        ];
        // PyTorch's default of a linear layer, as the authors' code leaves this one.
        let directions = Init::Uniform {
            bound: 1.0 / (bottleneck as f64).sqrt(),
        };
        let last = vs / "last";
        Self {
            layers,
            last: parameter(&last, "weight", &[prototypes, bottleneck], directions),
            gain: (!config.fixed_gain).then(|| parameter(&last, "gain", &[prototypes, 1], Init::Const(1.0))),
        }
    }

    /// Features M×D to vectors of length 1: f32 M×bottleneck.
    pub(super) fn bottleneck(&self, x: &Tensor) -> Tensor {
        let [first, second, third] = &self.layers;
        let x = through(first, x).gelu("none");
        let x = through(second, &x).gelu("none");
        unit_rows(&through(third, &x))
    }

    /// Features M×D to outputs f32 M×K, before any temperature. With `frozen` no gradient reaches the last layer.
    pub(super) fn forward(&self, x: &Tensor, frozen: bool) -> Tensor {
        let prototypes = self.prototypes(frozen);
        products(&self.bottleneck(x), &prototypes)
    }

    /// What [`Head::bottleneck`] answers to outputs, without gradient.
    pub(super) fn outputs(&self, vectors: &Tensor) -> Tensor {
        tch::no_grad(|| products(vectors, &self.prototypes(true)))
    }

    /// The prototypes K×bottleneck; with `frozen` no gradient reaches them.
    fn prototypes(&self, frozen: bool) -> Tensor {
        let used = |t: &Tensor| if frozen { t.detach() } else { t.shallow_clone() };
        let directions = unit_rows(&used(&self.last));
        self.gain
            .as_ref()
            .map_or_else(|| directions.shallow_clone(), |gain| &directions * used(gain))
    }
}

/// Products M×K with the prototypes.
fn products(vectors: &Tensor, prototypes: &Tensor) -> Tensor {
    let outputs = project(vectors, prototypes, None).to_kind(Kind::Float);
    look(|| "dino head".into(), &outputs);
    outputs
}
