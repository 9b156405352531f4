//! The projection that a contrastive loss is taken on: fully connected layers, each followed by BatchNorm, ReLU between them.

use serde::{Deserialize, Serialize};
use tch::Tensor;
use tch::nn::{self, Path};
use torch_ext::ranks::{Ranks, RanksError};

use crate::head::{Affine, BatchNorm};
use crate::model::{Init, linear, linear_flops, through};
use crate::setting::Class::Frozen;
use crate::setting::{Findings, Fitting, Key, key};
use crate::tensor::look;

/// `[objective.projection]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProjectionConfig {
    /// Layers.
    pub layers: u32,
    /// Width between layers.
    pub hidden: u32,
    /// Width of the result.
    pub out: u32,
}

impl Default for ProjectionConfig {
    /// Those of MoCo v3 for its ViTs (arXiv 2104.02057 §5).
    fn default() -> Self {
        Self {
            layers: 3,
            hidden: 4096,
            out: 256,
        }
    }
}

/// Width of the narrowest encoder that the default hidden width is published for: ViT-S.
const PUBLISHED_FOR: i64 = 384;

impl ProjectionConfig {
    /// Its keys, as they stand in `[objective]`.
    pub const KEYS: &'static [Key] = &[
        key(Frozen, "projection.layers", "layers of the projection head"),
        key(Frozen, "projection.hidden", "width between its layers"),
        key(Frozen, "projection.out", "width of the projections that are compared"),
    ];

    /// A default hidden width keeps its proportion to an encoder of `dim` that is narrower than those it is published for.
    pub fn fit(&mut self, dim: i64, fitting: &mut Fitting<'_>) {
        let share = i64::from(self.hidden) * dim / PUBLISHED_FOR;
        if let (true, Ok(share)) = (dim < PUBLISHED_FOR, u32::try_from(share.max(1))) {
            let why = format!("it is for encoders {PUBLISHED_FOR} wide or wider, this one is {dim} wide");
            fitting.fit("objective.projection.hidden", &mut self.hidden, share, why);
        }
    }

    /// Checks ranges.
    pub fn check(&self, found: &mut Findings) {
        found.need(
            (1..=8).contains(&self.layers),
            "objective.projection.layers",
            self.layers,
            "1 to 8 (3 for ViTs)",
        );
        for (name, width) in [("hidden", self.hidden), ("out", self.out)] {
            let key = format!("objective.projection.{name}");
            found.need((2..=65_536).contains(&width), &key, width, "2 to 65536");
        }
    }

    /// Inputs and outputs of each layer behind `dim` columns.
    fn widths(&self, dim: i64) -> Vec<(i64, i64)> {
        let hidden = i64::from(self.hidden);
        let mut widths = vec![hidden; self.layers.max(1) as usize + 1];
        widths[0] = dim;
        widths[self.layers.max(1) as usize] = i64::from(self.out);
        widths.windows(2).map(|pair| (pair[0], pair[1])).collect()
    }

    /// Floating point operations for `rows` rows of `dim` columns.
    #[must_use]
    pub fn flops(&self, rows: i64, dim: i64) -> f64 {
        self.widths(dim)
            .into_iter()
            .map(|(inputs, outputs)| linear_flops(rows, inputs, outputs))
            .sum()
    }
}

/// Rows M×D to projections M×P. No layer has a bias, since BatchNorm would take it away; the last norm has no shift (SimCLR's code), or neither scale nor
/// shift (MoCo v3's).
#[derive(Debug)]
pub struct Projection {
    name: String,
    layers: Vec<(nn::Linear, BatchNorm)>,
}

impl Projection {
    /// Parameters and running statistics under `vs`: `linear.N.weight`, `norm.N.*`; the last norm has `last_norm`. Matrices begin as PyTorch's: uniform in
    /// ± 1 ÷ √inputs.
    #[must_use]
    pub fn new(vs: &Path<'_>, dim: i64, config: &ProjectionConfig, last_norm: Affine) -> Self {
        let widths = config.widths(dim);
        let last = widths.len() - 1;
        let layer = |(i, (inputs, outputs)): (usize, (i64, i64))| {
            let bound = 1.0 / (inputs as f64).sqrt();
            let affine = if i == last { last_norm } else { Affine::ScaleAndShift };
            (
                linear(&(vs / "linear" / i), inputs, outputs, false, Init::Uniform { bound }),
                BatchNorm::new(&(vs / "norm" / i), outputs, affine),
            )
        };
        Self {
            name: vs.components().last().unwrap_or("projection").to_owned(),
            layers: widths.into_iter().enumerate().map(layer).collect(),
        }
    }

    /// Rows M×D to M×P, f32. A training pass sees all rows of a batch, or of a rank's share of it, at once, as `groups` groups: those of a group are
    /// normalised by each other.
    ///
    /// # Errors
    /// As [`BatchNorm::forward`].
    pub fn forward(&self, x: &Tensor, groups: i64, training: Option<&Ranks>) -> Result<Tensor, RanksError> {
        let mut x = x.shallow_clone();
        for (i, (linear, norm)) in self.layers.iter().enumerate() {
            if i > 0 {
                x = x.relu();
            }
            x = norm.forward(&through(linear, &x), groups, training)?;
            look(|| format!("{}.{i}", self.name), &x);
        }
        Ok(x)
    }

    /// See [`BatchNorm::after_step`].
    pub fn after_step(&mut self, skipped: &Tensor) {
        for (_, norm) in &mut self.layers {
            norm.after_step(skipped);
        }
    }
}

#[cfg(test)]
mod tests {
    use tch::nn::VarStore;
    use tch::{Device, Kind};

    use super::*;

    #[test]
    fn layers_have_the_widths_and_names_that_were_asked_for() {
        let _turn = crate::tensor::alone();
        let vs = VarStore::new(Device::Cpu);
        let config = ProjectionConfig {
            layers: 3,
            hidden: 6,
            out: 4,
        };
        let head = Projection::new(&(vs.root() / "projection"), 5, &config, Affine::Scale);
        let shape = |name: &str| vs.variables()[&format!("projection.{name}")].size();
        assert_eq!([0, 1, 2].map(|i| shape(&format!("linear.{i}.weight"))), [[6, 5], [6, 6], [4, 6]]);
        assert_eq!((shape("norm.1.bias"), shape("norm.2.running_var")), (vec![6], vec![4]));
        assert!(!vs.variables().contains_key("projection.norm.2.bias") && !vs.variables().contains_key("projection.linear.0.bias"));
        let x = Tensor::randn([7, 5], (Kind::Float, Device::Cpu));
        assert_eq!(head.forward(&x, 1, Some(&Ranks::alone())).unwrap().size(), [7, 4]);
        assert_eq!(config.flops(7, 5), 2.0 * 7.0 * (30.0 + 36.0 + 24.0));
        let one = ProjectionConfig { layers: 1, ..config };
        assert_eq!(one.flops(7, 5), 2.0 * 7.0 * 20.0);
    }

    #[test]
    fn the_default_width_keeps_its_proportion_to_a_narrow_encoder() {
        let fitted = |dim, set: &'static str| {
            let is_set = |key: &str| key == set;
            let (mut config, mut fitting) = (ProjectionConfig::default(), Fitting::new(&is_set));
            config.fit(dim, &mut fitting);
            (config.hidden, fitting.fitted().len())
        };
        assert_eq!(fitted(384, ""), (4096, 0));
        assert_eq!(fitted(768, ""), (4096, 0));
        assert_eq!(fitted(96, ""), (1024, 1));
        assert_eq!(fitted(96, "objective.projection.hidden"), (4096, 0));
    }

    #[test]
    fn widths_out_of_range_are_refused_by_key() {
        let mut found = Findings::default();
        ProjectionConfig {
            layers: 0,
            hidden: 1,
            out: 70_000,
        }
        .check(&mut found);
        let keys: Vec<String> = found.found().into_iter().map(|v| v.key).collect();
        assert_eq!(
            keys,
            [
                "objective.projection.layers",
                "objective.projection.hidden",
                "objective.projection.out"
            ]
        );
    }
}
