//! Forward and backward over one batch, part by part: what a step and its replay have in common.
//!
//! The parts change no result: drop path gives an image the same fate in any of them, and a loss between images is taken over the whole batch
//! (gradient cache, arXiv 2101.06983).

use std::ops::Range;

use splitmask_pipeline::seed::{Purpose, derive};
use splitmask_pipeline::types::Batch;
use tch::{Device, Kind, Tensor};
use torch_ext::Autocast;

use super::error::TrainError;
use super::spec::{Precision, TrainerSpec};
use super::words::Words;
use crate::loss::perplexity;
use crate::model::BatchRows;
use crate::objective::{BetweenImages, Losses, Objective, ObjectiveError, StepContext};
use crate::telemetry::metrics::Phase;
use crate::tensor::{SentBatch, StepInput, look};

/// A batch's numbers by name, over all its parts; f64 scalars on the device.
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
    /// Where words come from; `None` for a batch that brings its words.
    pub(super) words: Option<&'a Words>,
    /// The whole batch on the device; `None` = each part is sent when it is its turn.
    pub(super) sent: Option<&'a SentBatch>,
}

/// What a pass leaves besides gradients.
#[derive(Default)]
pub(super) struct Passed {
    /// The batch's numbers, its total under `total`.
    pub(super) scalars: Scalars,
    /// Words that were made on the device, part by part.
    pub(super) made: Vec<Tensor>,
    /// Histograms by name, summed over the parts.
    counts: Scalars,
}

impl Pass<'_> {
    /// Leaves the gradients of a batch's mean loss with the parameters (on top of what is there) and answers its numbers, the total under `total`.
    ///
    /// # Errors
    /// The batch does not fit the objective, or what libtorch said.
    pub(super) fn gradients(&self, batch: &Batch, mut phase: impl FnMut(Phase)) -> Result<Passed, TrainError> {
        let mut passed = Passed::default();
        let compared = match self.objective.between_images() {
            Some(between) if self.parts > 1 => Some(self.compared(between, batch, &mut passed.scalars, &mut phase)?),
            _ => None,
        };
        for part in 0..self.parts {
            self.part(part, batch, compared.as_ref(), &mut passed, &mut phase)?;
        }
        for (name, counts) in std::mem::take(&mut passed.counts) {
            passed.scalars.push((name, perplexity(&counts)));
        }
        Ok(passed)
    }

    /// Forward and backward of one part, as if the others did not exist: what the memory of a part is measured with.
    ///
    /// # Errors
    /// As [`Pass::gradients`].
    pub(super) fn first_part(&self, batch: &Batch) -> Result<(), TrainError> {
        self.part(0, batch, None, &mut Passed::default(), &mut |_| {})
    }

    /// Total loss of a batch of at most `train.batch` images as training would couple them, however many parts it takes: without gradient, drop path or
    /// injected faults. The host waits for it.
    ///
    /// # Errors
    /// As [`Pass::gradients`].
    pub(super) fn loss(&self, batch: &Batch) -> Result<f64, TrainError> {
        let _guard = tch::no_grad_guard();
        let size = (self.spec.train.batch as usize / self.parts).max(1);
        let between = self.objective.between_images().filter(|_| size < batch.len);
        let (mut total, mut described) = (0.0, Vec::new());
        for start in (0..batch.len).step_by(size) {
            let range = start..batch.len.min(start + size);
            let share = range.len() as f64 / batch.len as f64;
            let (input, _) = self.input(batch, range, &mut |_| {})?;
            let ctx = StepContext::evaluation(self.step, self.spec.optim.total_steps, input.len);
            let losses = match between {
                Some(between) => {
                    let (losses, descriptors) = self.autocast(|| between.describe(&input, &ctx))?;
                    described.push(descriptors);
                    losses
                }
                None => self.autocast(|| self.objective.forward(&input, &ctx))?,
            };
            total += share * losses.total.double_value(&[]);
        }
        if let Some(between) = between {
            total += between.compare(&Tensor::f_cat(&described, 1)?).total.double_value(&[]);
        }
        Ok(total)
    }

    /// First pass: the descriptors of all parts, and the gradient of the term between images for them.
    fn compared(
        &self,
        between: &dyn BetweenImages,
        batch: &Batch,
        scalars: &mut Scalars,
        phase: &mut impl FnMut(Phase),
    ) -> Result<Tensor, TrainError> {
        let mut described = Vec::new();
        for part in 0..self.parts {
            phase(Phase::Copy);
            let (input, _) = self.part_input(batch, part, phase)?;
            let ctx = self.begin(part, batch.len);
            let _rows = ctx.rows.enter();
            described.push(tch::no_grad(|| self.autocast(|| between.describe(&input, &ctx)))?.1);
        }
        let leaf = Tensor::f_cat(&described, 1)?.set_requires_grad(true);
        let losses = between.compare(&leaf);
        phase(Phase::Backward);
        losses.total.f_backward()?;
        for (name, value) in losses
            .terms
            .iter()
            .chain(&losses.stats)
            .map(|(n, v)| (*n, v))
            .chain([("total", &losses.total)])
        {
            add(scalars, name, value.detach().to_kind(Kind::Double));
        }
        Ok(leaf.grad())
    }

    /// Second pass, or the only one: a part's own losses, and its share of the gradient of the term between images.
    fn part(
        &self,
        part: usize,
        batch: &Batch,
        compared: Option<&Tensor>,
        passed: &mut Passed,
        phase: &mut impl FnMut(Phase),
    ) -> Result<(), TrainError> {
        phase(Phase::Copy);
        let (input, made) = self.part_input(batch, part, phase)?;
        let ctx = self.begin(part, batch.len);
        let _rows = ctx.rows.enter();
        self.spec.debug.fail_in_forward(self.consumed, self.parts)?;
        let parts = self.parts as f64;
        let (losses, target) = match (compared, self.objective.between_images()) {
            (Some(gradient), Some(between)) => {
                let (losses, described) = self.autocast(|| between.describe(&input, &ctx))?;
                let gradient = gradient.narrow(1, part as i64 * input.len, input.len);
                let target = &losses.total / parts + (described * gradient).sum(Kind::Float);
                (losses, target)
            }
            _ => {
                let losses = self.autocast(|| self.objective.forward(&input, &ctx))?;
                let target = &losses.total / parts;
                (losses, target)
            }
        };
        phase(Phase::Backward);
        let factor = self.spec.debug.loss_factor(self.consumed);
        if factor == 1.0 {
            target.f_backward()?;
        } else {
            (target * factor).f_backward()?;
        }
        self.sum_up(passed, losses, factor);
        passed.made.extend(made);
        Ok(())
    }

    /// Sets the generator and answers where a part stands. Drop path draws from libtorch's generator; seeding it by step makes a step a function of
    /// (seed, step, batch, weights) alone.
    fn begin(&self, part: usize, total: usize) -> StepContext {
        let ctx = step_context(self.spec, self.step, part, total, self.parts);
        tch::manual_seed(ctx.seed as i64);
        ctx
    }

    /// A part on the device with the faults that are to be injected, and its words if they were made there.
    fn part_input(&self, batch: &Batch, part: usize, phase: &mut impl FnMut(Phase)) -> Result<(StepInput, Option<Tensor>), TrainError> {
        let size = batch.len / self.parts;
        let (input, made) = self.input(batch, part * size..(part + 1) * size, phase)?;
        self.spec.debug.spoil(&input, self.consumed);
        for (i, view) in input.views.iter().enumerate() {
            look(|| format!("input view {i}"), &view.pixels);
        }
        Ok((input, made))
    }

    /// Images `range` of a batch on the device, and their words if they were made there.
    fn input(&self, batch: &Batch, range: Range<usize>, phase: &mut impl FnMut(Phase)) -> Result<(StepInput, Option<Tensor>), TrainError> {
        let normalise = self.spec.train.normalise();
        let own;
        let (sent, range) = match self.sent {
            Some(sent) => (sent, range),
            None => {
                let len = range.len();
                own = SentBatch::send(batch, range, self.device)?;
                (&own, 0..len)
            }
        };
        let target = sent.target(&range)?;
        let mut input = sent.input(range, &normalise)?;
        phase(Phase::Forward);
        if let Some(words) = self.words {
            words.fill(&mut input, target.as_ref());
        }
        let made = target.and(input.words.as_ref().map(Tensor::shallow_clone));
        Ok((input, made))
    }

    fn autocast<T>(&self, forward: impl FnOnce() -> Result<T, ObjectiveError>) -> Result<T, TrainError> {
        let bf16 = self.spec.train.precision == Precision::Bf16;
        let _autocast = bf16.then(|| Autocast::bf16(self.device)).transpose()?;
        Ok(forward()?)
    }

    fn sum_up(&self, passed: &mut Passed, losses: Losses, factor: f64) {
        let scalars = &mut passed.scalars;
        let share = |value: &Tensor| value.detach().to_kind(Kind::Double) / self.parts as f64;
        for (name, value) in losses.terms.iter().chain(&losses.stats) {
            add(scalars, name, share(value));
        }
        add(scalars, "total", share(&losses.total) * factor);
        for (name, counts) in losses.counts {
            add(&mut passed.counts, name, counts);
        }
    }
}

/// Where part `part` of `parts` of a batch of `total` images stands in the training, at a step.
pub(super) fn step_context(spec: &TrainerSpec, step: u64, part: usize, total: usize, parts: usize) -> StepContext {
    let len = total / parts;
    StepContext {
        step,
        total: spec.optim.total_steps,
        train: true,
        seed: derive(spec.seed, Purpose::Step, step, 0, 0),
        rows: BatchRows {
            start: (part * len) as i64,
            len: len as i64,
            total: total as i64,
        },
    }
}

fn add(scalars: &mut Scalars, name: &'static str, value: Tensor) {
    match scalars.iter_mut().find(|(n, _)| *n == name) {
        Some((_, sum)) => *sum += value,
        None => scalars.push((name, value)),
    }
}

/// The number of that name.
pub(super) fn scalar<'a>(scalars: &'a Scalars, name: &str) -> Option<&'a Tensor> {
    scalars.iter().find(|(n, _)| *n == name).map(|(_, value)| value)
}

#[cfg(test)]
mod tests;
