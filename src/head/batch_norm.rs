//! BatchNorm whose running statistics follow the optimizer's steps.

use std::cell::RefCell;

use tch::nn::Path;
use tch::{Device, Kind, Tensor};
use torch_ext::Autocast;
use torch_ext::ranks::{Ranks, RanksError};

use crate::model::{Init, parameter, untrained};

/// Added to the variance, as in PyTorch.
const EPSILON: f64 = 1e-5;
/// Share of a batch in the new running statistics, as in PyTorch.
const MOMENTUM: f64 = 0.1;

/// What a normalised column is multiplied by and moved by. PyTorch's beginning: scale 1, shift 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Affine {
    /// A learned scale and a learned shift.
    ScaleAndShift,
    /// A learned scale alone.
    Scale,
    /// Neither: columns keep mean 0 and variance 1.
    Neither,
}

/// Batch normalisation of rows M×D, or of maps B×D×h×w whose cells are rows (arXiv 1502.03167), in f32: in training by mean and variance of the rows
/// themselves, elsewhere by running ones. Rows of several views of a batch may stand in one tensor and be normalised view by view. On several ranks the
/// rows are those of all of them, and the running statistics are the same on each.
///
/// The running ones are variables without gradient (`running_mean`, `running_var`), so checkpoint, average of weights and resume hold them like any
/// other. Unlike PyTorch's they do not move in the forward pass: [`BatchNorm::after_step`] moves them, and leaves them where the step was skipped.
#[derive(Debug)]
pub struct BatchNorm {
    weight: Option<Tensor>,
    bias: Option<Tensor>,
    running_mean: Tensor,
    running_var: Tensor,
    /// Mean and variance of each group of rows of the latest training pass, in order, until its step has been taken or skipped.
    latest: RefCell<Vec<[Tensor; 2]>>,
}

impl BatchNorm {
    /// Parameters and running statistics of `dim` columns under `vs`. Draws nothing.
    #[must_use]
    pub fn new(vs: &Path<'_>, dim: i64, affine: Affine) -> Self {
        let options = (Kind::Float, Device::Cpu);
        Self {
            weight: (affine != Affine::Neither).then(|| parameter(vs, "weight", &[dim], Init::Const(1.0))),
            bias: (affine == Affine::ScaleAndShift).then(|| parameter(vs, "bias", &[dim], Init::Const(0.0))),
            running_mean: untrained(vs, "running_mean", &Tensor::zeros([dim], options)),
            running_var: untrained(vs, "running_var", &Tensor::ones([dim], options)),
            latest: RefCell::new(vec![]),
        }
    }

    /// Rows M×D, or maps B×D×h×w, to a tensor of the same shape, f32. In `training` (by whom, see [`crate::objective::StepContext::training`]) they are `groups` groups of equal
    /// size, at least 2 rows each over all ranks, one behind the other, and each is normalised by itself. Training passes are one a step and see the
    /// whole batch, or a rank's share of it.
    ///
    /// # Errors
    /// Ranks that are no longer together.
    pub fn forward(&self, x: &Tensor, groups: i64, training: Option<&Ranks>) -> Result<Tensor, RanksError> {
        let _f32 = Autocast::off(x.device()).expect("switching autocast off needs no device");
        let x = x.to_kind(Kind::Float);
        let normalise = |x: &Tensor, running: Option<[&Tensor; 2]>| {
            let [mean, var] = [0, 1].map(|i| running.map(|both| both[i]));
            let train = training.is_some();
            x.batch_norm(self.weight.as_ref(), self.bias.as_ref(), mean, var, train, MOMENTUM, EPSILON, true)
        };
        let Some(ranks) = training else {
            return Ok(normalise(&x, Some([&self.running_mean, &self.running_var])));
        };
        if ranks.world() > 1 {
            let d = x.size()[1];
            if x.dim() == 2 {
                return self.over_ranks(&x, groups, ranks);
            }
            let cells = x.permute([0, 2, 3, 1]);
            let rows = self.over_ranks(&cells.reshape([-1, d]), groups, ranks)?;
            return Ok(rows.view_as(&cells).permute([0, 3, 1, 2]));
        }
        let groups = x.chunk(groups, 0);
        let statistics = |group: &Tensor| {
            let all_but_columns: &[i64] = if group.dim() == 4 { &[0, 2, 3] } else { &[0] };
            let (var, mean) = tch::no_grad(|| group.var_mean_dim(all_but_columns, true, false));
            [mean, var]
        };
        self.latest.replace(groups.iter().map(statistics).collect());
        Ok(match groups.as_slice() {
            [all] => normalise(all, None),
            groups => Tensor::cat(&groups.iter().map(|group| normalise(group, None)).collect::<Vec<_>>(), 0),
        })
    }

    /// By mean and variance of each group's rows on all ranks.
    fn over_ranks(&self, x: &Tensor, groups: i64, ranks: &Ranks) -> Result<Tensor, RanksError> {
        let (mut rows, statistics) = ranks.normalised(x, groups, EPSILON)?;
        let n = (x.size()[0] / groups * ranks.world() as i64) as f64;
        // The running variance is the unbiased one, as in PyTorch.
        let of_group = |group| [statistics.get(0).get(group), statistics.get(1).get(group) * (n / (n - 1.0))];
        self.latest.replace((0..groups).map(of_group).collect());
        if let Some(weight) = &self.weight {
            rows = &rows * weight;
        }
        if let Some(bias) = &self.bias {
            rows = &rows + bias;
        }
        Ok(rows)
    }

    /// Moves the running statistics towards those of the latest training pass, once for each of its groups in order; where the scalar `skipped` (f32, on
    /// the device) is 1, they stay bit for bit, whatever that pass met. No host sync.
    pub fn after_step(&mut self, skipped: &Tensor) {
        let latest = self.latest.take();
        tch::no_grad(|| {
            let skipped = skipped.to_kind(Kind::Bool);
            for [mean, var] in latest {
                for (running, latest) in [(&mut self.running_mean, mean), (&mut self.running_var, var)] {
                    let moved = &*running * (1.0 - MOMENTUM) + latest * MOMENTUM;
                    // Chosen, not weighted: 0 times what is not finite is not finite.
                    let next = running.where_self(&skipped, &moved);
                    running.copy_(&next);
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use tch::nn::VarStore;

    use super::*;

    fn rows(m: i64) -> Tensor {
        Tensor::randn([m, 3], (Kind::Float, Device::Cpu)) * 2.0 + 5.0
    }

    fn near(a: &Tensor, b: &Tensor) -> bool {
        a.size() == b.size() && (a - b).abs().max().double_value(&[]) < 1e-5
    }

    fn flag(skipped: f32) -> Tensor {
        Tensor::from(skipped)
    }

    #[test]
    fn training_normalises_by_the_batch_and_evaluation_by_what_was_seen() {
        let _turn = crate::tensor::alone();
        tch::manual_seed(3);
        let vs = VarStore::new(Device::Cpu);
        let mut norm = BatchNorm::new(&vs.root(), 3, Affine::ScaleAndShift);
        let x = rows(64);
        let y = norm.forward(&x, 1, Some(&Ranks::alone())).unwrap();
        let spread = y.std_dim([0i64].as_slice(), false, false);
        assert!(near(
            &y.mean_dim([0i64].as_slice(), false, None),
            &Tensor::zeros([3], (Kind::Float, Device::Cpu))
        ));
        assert!(
            near(&spread, &Tensor::ones([3], (Kind::Float, Device::Cpu))),
            "the scale begins at 1: {spread}"
        );
        let as_it_is = &x / (1.0 + EPSILON).sqrt();
        assert!(
            near(&norm.forward(&x, 1, None).unwrap(), &as_it_is),
            "nothing was seen yet: mean 0, variance 1"
        );
        norm.after_step(&flag(0.0));
        let vars = vs.variables();
        assert!(near(&vars["running_mean"], &(x.mean_dim([0i64].as_slice(), false, None) * 0.1)));
        let var = x.var_dim([0i64].as_slice(), true, false);
        assert!(
            near(&vars["running_var"], &(var * 0.1 + 0.9)),
            "PyTorch keeps the unbiased variance"
        );
        for _ in 0..200 {
            let _ = norm.forward(&x, 1, Some(&Ranks::alone())).unwrap();
            norm.after_step(&flag(0.0));
        }
        let apart = (norm.forward(&x, 1, None).unwrap() - y).abs().max().double_value(&[]);
        assert!(apart < 0.05, "{apart}");
    }

    #[test]
    fn a_skipped_step_and_an_evaluation_leave_the_running_statistics_bit_for_bit() {
        let _turn = crate::tensor::alone();
        tch::manual_seed(4);
        let vs = VarStore::new(Device::Cpu);
        let mut norm = BatchNorm::new(&vs.root(), 3, Affine::Scale);
        assert!(!vs.variables().contains_key("bias"));
        let _ = norm.forward(&rows(8), 1, Some(&Ranks::alone())).unwrap();
        norm.after_step(&flag(0.0));
        let state = || ["running_mean", "running_var"].map(|name| vs.variables()[name].copy());
        let before = state();
        let _ = norm.forward(&(rows(8) * f64::NAN), 1, Some(&Ranks::alone())).unwrap();
        norm.after_step(&flag(1.0));
        let _ = norm.forward(&rows(8), 1, None).unwrap();
        // No training pass since.
        norm.after_step(&flag(0.0));
        assert_eq!(state(), before);
        let _ = norm.forward(&rows(8), 1, Some(&Ranks::alone())).unwrap();
        norm.after_step(&flag(0.0));
        assert_ne!(state(), before);
    }

    #[test]
    fn groups_are_normalised_apart_and_move_the_running_statistics_one_after_the_other() {
        let _turn = crate::tensor::alone();
        tch::manual_seed(6);
        let built = || {
            let vs = VarStore::new(Device::Cpu);
            let norm = BatchNorm::new(&vs.root(), 3, Affine::Neither);
            (vs, norm)
        };
        let ((vs, mut norm), (other_vs, mut other)) = (built(), built());
        assert_eq!(vs.variables().len(), 2, "no scale and no shift");
        let (a, b) = (rows(8), rows(8) * 3.0);
        let both = norm.forward(&Tensor::cat(&[&a, &b], 0), 2, Some(&Ranks::alone())).unwrap();
        norm.after_step(&flag(0.0));
        let one = other.forward(&a, 1, Some(&Ranks::alone())).unwrap();
        other.after_step(&flag(0.0));
        let two = other.forward(&b, 1, Some(&Ranks::alone())).unwrap();
        other.after_step(&flag(0.0));
        assert_eq!(both, Tensor::cat(&[&one, &two], 0));
        for name in ["running_mean", "running_var"] {
            assert_eq!(vs.variables()[name], other_vs.variables()[name], "{name}");
        }
        // What is kept of an evaluation does not depend on how the rows are grouped.
        assert_eq!(norm.forward(&a, 2, None).unwrap(), norm.forward(&a, 1, None).unwrap());
    }

    #[test]
    fn stays_f32_under_autocast() {
        let _turn = crate::tensor::alone();
        tch::manual_seed(5);
        let vs = VarStore::new(Device::Cpu);
        let norm = BatchNorm::new(&vs.root(), 3, Affine::ScaleAndShift);
        let x = rows(8).to_kind(Kind::BFloat16);
        let plain = norm.forward(&x, 1, Some(&Ranks::alone())).unwrap();
        let _bf16 = Autocast::bf16(Device::Cpu).unwrap();
        let y = norm.forward(&x, 1, Some(&Ranks::alone())).unwrap();
        assert_eq!((y.kind(), &y), (Kind::Float, &plain));
    }
}
