//! Forward and backward over one batch, part by part: what a step and its replay have in common.

use splitmask_pipeline::seed::{Purpose, derive};
use splitmask_pipeline::types::Batch;
use tch::{Device, Kind, Tensor};
use torch_ext::Autocast;

use super::error::TrainError;
use super::spec::{Precision, TrainerSpec};
use crate::objective::{Losses, Objective, ObjectiveError};
use crate::telemetry::metrics::Phase;
use crate::tensor::{StepInput, look, step_input};

/// A batch's numbers by name, summed over its parts; f64 scalars on the device.
pub(super) type Scalars = Vec<(&'static str, Tensor)>;

/// Everything besides the batch that a pass depends on; the same values and weights give the same gradients.
pub(super) struct Pass<'a> {
    pub(super) objective: &'a dyn Objective,
    pub(super) spec: &'a TrainerSpec,
    pub(super) device: Device,
    /// Optimizer steps done before.
    pub(super) step: u64,
    /// Number of the batch among all that the run consumed, from 1.
    pub(super) consumed: u64,
    /// Parts that the batch is processed in.
    pub(super) parts: usize,
}

impl Pass<'_> {
    /// Leaves the gradients of a batch's mean loss with the parameters (on top of what is there) and answers its numbers, the total under `total`.
    ///
    /// # Errors
    /// The batch does not fit the objective, or what libtorch said.
    pub(super) fn gradients(&self, batch: &Batch, mut phase: impl FnMut(Phase)) -> Result<Scalars, TrainError> {
        // Drop path draws from libtorch's generator; seeding it by step makes a step a function of (seed, step, batch, weights) alone.
        tch::manual_seed(derive(self.spec.seed, Purpose::Step, self.step, 0, 0) as i64);
        let mut scalars = Scalars::new();
        for part in 0..self.parts {
            phase(Phase::Copy);
            let input = self.input(batch, part)?;
            phase(Phase::Forward);
            let losses = self.autocast(|| self.objective.forward_t(&input, true))?;
            phase(Phase::Backward);
            let total = self.spec.debug.loss(losses.total.shallow_clone(), self.consumed);
            (&total / self.parts as f64).f_backward()?;
            self.add(&mut scalars, &losses, &total);
        }
        Ok(scalars)
    }

    fn input(&self, batch: &Batch, part: usize) -> Result<StepInput, TrainError> {
        let size = batch.len / self.parts;
        let input = step_input(batch, part * size..(part + 1) * size, self.device, &self.spec.train.normalise())?;
        self.spec.debug.spoil(&input, self.consumed);
        for (i, view) in input.views.iter().enumerate() {
            look(|| format!("input view {i}"), view);
        }
        Ok(input)
    }

    fn autocast<T>(&self, forward: impl FnOnce() -> Result<T, ObjectiveError>) -> Result<T, TrainError> {
        let bf16 = self.spec.train.precision == Precision::Bf16;
        let _autocast = bf16.then(|| Autocast::bf16(self.device)).transpose()?;
        Ok(forward()?)
    }

    fn add(&self, scalars: &mut Scalars, losses: &Losses, total: &Tensor) {
        let terms = losses.terms.iter().chain(&losses.stats).map(|(name, value)| (*name, value));
        for (name, value) in terms.chain([("total", total)]) {
            let share = value.detach().to_kind(Kind::Double) / self.parts as f64;
            match scalars.iter_mut().find(|(n, _)| *n == name) {
                Some((_, sum)) => *sum += share,
                None => scalars.push((name, share)),
            }
        }
    }
}

/// The number of that name.
pub(super) fn scalar<'a>(scalars: &'a Scalars, name: &str) -> Option<&'a Tensor> {
    scalars.iter().find(|(n, _)| *n == name).map(|(_, value)| value)
}
