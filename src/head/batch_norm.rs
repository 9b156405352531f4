//! BatchNorm whose running statistics follow the optimizer's steps.

use std::cell::RefCell;

use tch::nn::Path;
use tch::{Device, Kind, Tensor};
use torch_ext::Autocast;

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
}

/// Batch normalisation of rows M×D (arXiv 1502.03167), in f32: in training by mean and variance of the rows themselves, elsewhere by running ones.
///
/// The running ones are variables without gradient (`running_mean`, `running_var`), so checkpoint, average of weights and resume hold them like any
/// other. Unlike PyTorch's they do not move in the forward pass: [`BatchNorm::after_step`] moves them, and leaves them where the step was skipped.
#[derive(Debug)]
pub struct BatchNorm {
    weight: Tensor,
    bias: Option<Tensor>,
    running_mean: Tensor,
    running_var: Tensor,
    /// Mean and variance of the rows of the latest training pass, until its step has been taken or skipped.
    latest: RefCell<Option<[Tensor; 2]>>,
}

impl BatchNorm {
    /// Parameters and running statistics of `dim` columns under `vs`. Draws nothing.
    #[must_use]
    pub fn new(vs: &Path<'_>, dim: i64, affine: Affine) -> Self {
        let options = (Kind::Float, Device::Cpu);
        Self {
            weight: parameter(vs, "weight", &[dim], Init::Const(1.0)),
            bias: (affine == Affine::ScaleAndShift).then(|| parameter(vs, "bias", &[dim], Init::Const(0.0))),
            running_mean: untrained(vs, "running_mean", &Tensor::zeros([dim], options)),
            running_var: untrained(vs, "running_var", &Tensor::ones([dim], options)),
            latest: RefCell::new(None),
        }
    }

    /// Rows M×D, at least 2 in training, to rows of the same shape, f32. Training passes are one a step and see the whole batch.
    pub fn forward(&self, x: &Tensor, train: bool) -> Tensor {
        let _f32 = Autocast::off(x.device()).expect("switching autocast off needs no device");
        let x = x.to_kind(Kind::Float);
        let running = if train {
            let (var, mean) = tch::no_grad(|| x.var_mean_dim([0i64].as_slice(), true, false));
            self.latest.replace(Some([mean, var]));
            None
        } else {
            Some((&self.running_mean, &self.running_var))
        };
        let (mean, var) = running.unzip();
        x.batch_norm(Some(&self.weight), self.bias.as_ref(), mean, var, train, MOMENTUM, EPSILON, true)
    }

    /// Moves the running statistics towards those of the latest training pass; where the scalar `skipped` (f32, on the device) is 1, they stay bit for
    /// bit, whatever that pass met. No host sync.
    pub fn after_step(&mut self, skipped: &Tensor) {
        let Some([mean, var]) = self.latest.take() else { return };
        tch::no_grad(|| {
            let skipped = skipped.to_kind(Kind::Bool);
            for (running, latest) in [(&mut self.running_mean, mean), (&mut self.running_var, var)] {
                let moved = &*running * (1.0 - MOMENTUM) + latest * MOMENTUM;
                // Chosen, not weighted: 0 times what is not finite is not finite.
                let next = running.where_self(&skipped, &moved);
                running.copy_(&next);
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
        let y = norm.forward(&x, true);
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
            near(&norm.forward(&x, false), &as_it_is),
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
            let _ = norm.forward(&x, true);
            norm.after_step(&flag(0.0));
        }
        let apart = (norm.forward(&x, false) - y).abs().max().double_value(&[]);
        assert!(apart < 0.05, "{apart}");
    }

    #[test]
    fn a_skipped_step_and_an_evaluation_leave_the_running_statistics_bit_for_bit() {
        let _turn = crate::tensor::alone();
        tch::manual_seed(4);
        let vs = VarStore::new(Device::Cpu);
        let mut norm = BatchNorm::new(&vs.root(), 3, Affine::Scale);
        assert!(!vs.variables().contains_key("bias"));
        let _ = norm.forward(&rows(8), true);
        norm.after_step(&flag(0.0));
        let state = || ["running_mean", "running_var"].map(|name| vs.variables()[name].copy());
        let before = state();
        let _ = norm.forward(&(rows(8) * f64::NAN), true);
        norm.after_step(&flag(1.0));
        let _ = norm.forward(&rows(8), false);
        // No training pass since.
        norm.after_step(&flag(0.0));
        assert_eq!(state(), before);
        let _ = norm.forward(&rows(8), true);
        norm.after_step(&flag(0.0));
        assert_ne!(state(), before);
    }

    #[test]
    fn stays_f32_under_autocast() {
        let _turn = crate::tensor::alone();
        tch::manual_seed(5);
        let vs = VarStore::new(Device::Cpu);
        let norm = BatchNorm::new(&vs.root(), 3, Affine::ScaleAndShift);
        let x = rows(8).to_kind(Kind::BFloat16);
        let plain = norm.forward(&x, true);
        let _bf16 = Autocast::bf16(Device::Cpu).unwrap();
        let y = norm.forward(&x, true);
        assert_eq!((y.kind(), &y), (Kind::Float, &plain));
    }
}
