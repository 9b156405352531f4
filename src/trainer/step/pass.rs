//! Forward and backward over one batch, one micro-batch after the other: what a step and its replay have in common.
//!
//! The micro-batches change no result: drop path gives an image the same fate in any of them, and a loss between images is taken over the whole batch
//! (gradient cache, arXiv 2101.06983); images that are mixed in pairs meet their partners. Nor do the ranks, where the batch is one share of several:
//! gradients are averaged in the last micro-batch's backward, the loss between images is taken over the images of all ranks, and partners come from the
//! rank that has them.

use std::ops::Range;

use splitmask_pipeline::seed::{Purpose, derive};
use splitmask_pipeline::types::Batch;
use tch::{Device, Kind, Tensor};
use torch_ext::Autocast;
use torch_ext::ranks::Ranks;

use super::exchanged::Partners;
use crate::loss::{count_words, perplexity};
use crate::model::BatchRows;
use crate::objective::{BetweenImages, Losses, Objective, ObjectiveError, StepContext};
use crate::telemetry::metrics::Phase;
use crate::tensor::{SentBatch, StepInput, look};
use crate::trainer::error::TrainError;
use crate::trainer::meter::COUNTED;
use crate::trainer::ranks::peers::Peers;
use crate::trainer::setup::Setup;
use crate::trainer::spec::TrainerSpec;
use crate::trainer::state::RunState;
use crate::words::Words;

/// A batch's numbers by name, over all its micro-batches; f64 scalars on the device.
pub(in crate::trainer) type Scalars = Vec<(&'static str, Tensor)>;

/// Everything besides the batch that a pass depends on; the same values and weights give the same gradients.
pub(in crate::trainer) struct Pass<'a> {
    pub(in crate::trainer) objective: &'a dyn Objective,
    pub(in crate::trainer) spec: &'a TrainerSpec,
    pub(in crate::trainer) device: Device,
    /// Optimizer steps done before.
    pub(in crate::trainer) step: u64,
    /// Number of the batch among all that the run consumed, from 1.
    pub(in crate::trainer) consumed: u64,
    /// Micro-batches that the batch is processed in.
    pub(in crate::trainer) micro_batches: usize,
    /// Where words come from; `None` for a batch that brings its words.
    pub(in crate::trainer) words: Option<&'a Words>,
    /// The whole batch on the device; `None` = each micro-batch is sent when it is its turn.
    pub(in crate::trainer) sent: Option<&'a SentBatch>,
    /// The other ranks, which have the other images of the step's batch; `None` = it is whole, or is taken as if it were.
    pub(in crate::trainer) peers: Option<&'a Peers>,
    /// Number of this process among the ranks.
    pub(in crate::trainer) rank: usize,
}

/// What a pass leaves besides gradients.
#[derive(Default)]
pub(in crate::trainer) struct PassOutcome {
    /// The batch's numbers, its total under `total`.
    pub(in crate::trainer) scalars: Scalars,
    /// Those that are means over a share of the batch, multiplied by that share, which is the scalar [`COUNTED`]; the total among them.
    pub(in crate::trainer) weighed: Scalars,
    /// Words that were made on the device, one tensor for each micro-batch.
    pub(in crate::trainer) made_words: Vec<Tensor>,
    /// How often each word came in the batch of all ranks (i64 V), and how many words those were; only where there are several ranks.
    pub(in crate::trainer) word_counts: Option<(Tensor, usize)>,
    /// Histograms by name, summed over the micro-batches; none at the end of a pass.
    pub(super) counts: Scalars,
}

impl PassOutcome {
    /// Turns the histograms into numbers.
    fn sum_up_counts(&mut self) {
        for (name, counts) in std::mem::take(&mut self.counts) {
            self.scalars.push((name, perplexity(&counts)));
        }
    }
}

impl<'a> Pass<'a> {
    /// The pass of the next step.
    pub(in crate::trainer) fn next(state: &'a RunState, setup: &'a Setup, sent: Option<&'a SentBatch>) -> Self {
        Self {
            objective: state.objective.as_ref(),
            spec: &setup.spec,
            device: setup.device,
            step: state.step,
            consumed: state.ladder.consumed() + 1,
            micro_batches: state.micro_batches.max(1),
            words: Some(&setup.words),
            sent,
            peers: setup.peers.as_deref(),
            rank: setup.peers.as_deref().map_or(0, Peers::rank),
        }
    }

    /// The pass of the next step as if there were no other ranks: nothing is exchanged, and no rank waits.
    pub(in crate::trainer) fn alone(state: &'a RunState, setup: &'a Setup) -> Self {
        Self {
            peers: None,
            ..Self::next(state, setup, None)
        }
    }

    /// Leaves the gradients of a batch's mean loss with the parameters (on top of what is there) and answers its numbers, the total under `total`.
    ///
    /// # Errors
    /// The batch does not fit the objective, or what libtorch said.
    pub(in crate::trainer) fn gradients(&self, batch: &Batch, mut phase: impl FnMut(Phase)) -> Result<PassOutcome, TrainError> {
        let mut outcome = PassOutcome::default();
        self.peers.map(Peers::begin_step).transpose()?;
        let compared = match self.objective.between_images() {
            Some(between) if self.micro_batches > 1 => Some(self.compared(between, batch, &mut outcome.scalars, &mut phase)?),
            _ => None,
        };
        let partners = match (self.peers, self.objective.mixed_images()) {
            (Some(peers), Some(mixed)) => Some(self.partners_of_ranks(peers, mixed, batch)?),
            _ => None,
        };
        for index in 0..self.micro_batches {
            self.one(index, batch, compared.as_ref(), partners.as_ref(), &mut outcome, &mut phase)?;
        }
        if let Some(peers) = self.peers {
            self.over_ranks(peers, batch, &mut outcome)?;
        }
        outcome.sum_up_counts();
        Ok(outcome)
    }

    /// What [`Pass::gradients`] does with a batch in one piece that is on the device, its random numbers begun: all that a recording repeats.
    pub(super) fn whole(&self, input: &StepInput, ctx: &StepContext) -> Result<Scalars, TrainError> {
        let _rows = ctx.rows.enter();
        let losses = self.autocast(|| self.objective.forward(input, ctx))?;
        losses.total.f_backward()?;
        let mut outcome = PassOutcome::default();
        self.sum_up(&mut outcome, losses, 1.0);
        outcome.sum_up_counts();
        debug_assert!(outcome.weighed.is_empty(), "what is recorded counts all of its images");
        Ok(outcome.scalars)
    }

    /// The numbers of all ranks' shares of the batch, in one message.
    fn over_ranks(&self, peers: &Peers, batch: &Batch, outcome: &mut PassOutcome) -> Result<(), TrainError> {
        let vocabulary = self.words.map_or(0, Words::len) as i64;
        let made = outcome.made_words.iter().map(|words| words.flatten(0, -1)).collect::<Vec<_>>();
        let own = match (made.as_slice(), batch.words.as_slice()) {
            ([], []) => None,
            ([], words) => Some(Tensor::from_slice(&words.iter().map(|w| i64::from(*w)).collect::<Vec<_>>()).to_device(self.device)),
            (made, _) => Some(Tensor::f_cat(made, 0)?),
        };
        outcome.made_words.clear();
        let words = own.as_ref().map_or(0, Tensor::numel);
        let mut own = own.filter(|_| vocabulary > 0).map(|words| count_words(&words, vocabulary));
        let scalars = outcome.scalars.iter_mut().chain(&mut outcome.weighed);
        let mut scalars: Vec<&mut Tensor> = scalars.map(|(_, value)| value).collect();
        let mut counts: Vec<&mut Tensor> = outcome.counts.iter_mut().map(|(_, counts)| counts).chain(&mut own).collect();
        peers.sum_up(&mut scalars, &mut counts)?;
        outcome.word_counts = own.map(|counts| (counts, words * peers.world()));
        Ok(())
    }

    /// Forward and backward of one micro-batch, as if the others did not exist: what the memory of one is measured with.
    ///
    /// # Errors
    /// As [`Pass::gradients`].
    pub(in crate::trainer) fn first_micro_batch(&self, batch: &Batch) -> Result<(), TrainError> {
        self.one(0, batch, None, None, &mut PassOutcome::default(), &mut |_| {})
    }

    /// First pass: the descriptors of all micro-batches, and the gradient of the term between images for them.
    fn compared(
        &self,
        between: &dyn BetweenImages,
        batch: &Batch,
        scalars: &mut Scalars,
        phase: &mut impl FnMut(Phase),
    ) -> Result<Tensor, TrainError> {
        let mut described = Vec::new();
        for index in 0..self.micro_batches {
            phase(Phase::Copy);
            let (input, _) = self.one_input(batch, index, phase)?;
            let ctx = self.begin(index, batch.len);
            let _rows = ctx.rows.enter();
            described.push(self.autocast(|| between.descriptors(&input, &ctx))?);
        }
        self.gradient_between(between, &Tensor::f_cat(&described, 1)?, &self.begin(0, batch.len), scalars, phase)
    }

    /// The gradient of the term between the images of the whole batch for the descriptors of these (branches × images × width, without graph), such that
    /// its mean over the ranks is that of the batch: every rank computes the same term, whose gradient each rank sends back through its own images alone.
    fn gradient_between(
        &self,
        between: &dyn BetweenImages,
        described: &Tensor,
        ctx: &StepContext,
        scalars: &mut Scalars,
        phase: &mut impl FnMut(Phase),
    ) -> Result<Tensor, TrainError> {
        let whole = match self.peers {
            Some(peers) => peers.whole_batch(described)?,
            None => described.shallow_clone(),
        };
        let leaf = whole.set_requires_grad(true);
        let losses = between.compare(&leaf, ctx)?;
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
        Ok(match self.peers {
            Some(peers) => peers.own_images(&leaf.grad()) * peers.world() as f64,
            None => leaf.grad(),
        })
    }

    /// Second pass, or the only one: a micro-batch's own losses, and its share of the gradient of the term between images.
    fn one(
        &self,
        index: usize,
        batch: &Batch,
        compared: Option<&Tensor>,
        partners: Option<&Partners>,
        outcome: &mut PassOutcome,
        phase: &mut impl FnMut(Phase),
    ) -> Result<(), TrainError> {
        phase(Phase::Copy);
        let (input, made) = self.one_input(batch, index, phase)?;
        let ctx = self.begin(index, batch.len);
        let _rows = ctx.rows.enter();
        self.spec.debug.fail_in_forward(self.consumed, self.micro_batches, self.rank)?;
        let micro_batches = self.micro_batches as f64;
        let (losses, target) = match (compared, self.objective.between_images()) {
            (Some(gradient), Some(between)) => {
                let (losses, described) = self.autocast(|| between.describe(&input, &ctx))?;
                let gradient = gradient.narrow(1, index as i64 * input.len, input.len);
                let target = &losses.total / micro_batches + (described * gradient).sum(Kind::Float);
                (losses, target)
            }
            // Every rank's descriptors are gathered without their graph, so one forward pass is enough.
            (None, Some(between)) if self.peers.is_some() => {
                let (losses, described) = self.autocast(|| between.describe(&input, &ctx))?;
                let gradient = self.gradient_between(between, &described.detach(), &ctx, &mut outcome.scalars, phase)?;
                let target = &losses.total + (described * gradient).sum(Kind::Float);
                (losses, target)
            }
            _ => {
                let losses = match self.objective.mixed_images() {
                    Some(mixed) if self.micro_batches > 1 || partners.is_some() => {
                        let (theirs, labels) = match partners {
                            Some(partners) => self.partners_of_part(partners, index)?,
                            None => self.partners(batch, index)?,
                        };
                        // Where no image of the part is mixed there are no partners; the part itself is passed instead, and not looked at.
                        let theirs = theirs.as_ref().unwrap_or(&input);
                        self.autocast(|| mixed.forward_part(&input, theirs, &labels, &ctx))?
                    }
                    _ => self.autocast(|| self.objective.forward(&input, &ctx))?,
                };
                let target = &losses.total / micro_batches;
                (losses, target)
            }
        };
        phase(Phase::Backward);
        let factor = self.spec.debug.loss_factor(self.consumed, self.rank);
        let target = if factor == 1.0 { target } else { target * factor };
        match self.peers {
            Some(peers) => peers.backward(&target, index + 1 == self.micro_batches)?,
            None => target.f_backward()?,
        }
        self.sum_up(outcome, losses, factor);
        outcome.made_words.extend(made);
        Ok(())
    }

    /// Sets the generator and answers where a micro-batch stands. Drop path draws from libtorch's generator; seeding it by step makes a step a function of
    /// (seed, step, batch, weights) alone.
    pub(super) fn begin(&self, index: usize, total: usize) -> StepContext {
        let alone = Ranks::alone();
        let ranks = self.peers.map_or(&alone, Peers::ranks);
        let ctx = step_context(self.spec, self.step, index, total, self.micro_batches, ranks);
        tch::manual_seed(ctx.seed as i64);
        ctx
    }

    /// A micro-batch on the device with the faults that are to be injected, and its words if they were made there.
    pub(super) fn one_input(
        &self,
        batch: &Batch,
        index: usize,
        phase: &mut impl FnMut(Phase),
    ) -> Result<(StepInput, Option<Tensor>), TrainError> {
        let size = batch.len / self.micro_batches;
        let (input, made) = self.input(batch, index * size..(index + 1) * size, phase)?;
        self.spec.debug.spoil(&input, self.consumed, self.rank);
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
                let mut part = SentBatch::send(batch, range, self.device)?;
                self.words.map(|words| words.find(&mut part)).transpose()?;
                own = part;
                (&own, 0..len)
            }
        };
        let input = sent.input(range, &normalise)?;
        phase(Phase::Forward);
        let made = input.words.as_ref().filter(|_| batch.words.is_empty()).map(Tensor::shallow_clone);
        Ok((input, made))
    }

    fn autocast<T>(&self, forward: impl FnOnce() -> Result<T, ObjectiveError>) -> Result<T, TrainError> {
        let _autocast = self
            .spec
            .train
            .precision
            .is_bf16(self.device)
            .then(|| Autocast::bf16(self.device))
            .transpose()?;
        Ok(forward()?)
    }

    fn sum_up(&self, outcome: &mut PassOutcome, losses: Losses, factor: f64) {
        let share = |value: &Tensor| value.detach().to_kind(Kind::Double) / self.micro_batches as f64;
        let total = share(&losses.total) * factor;
        for (name, value) in losses.terms.iter().chain(&losses.stats) {
            match &losses.counted {
                Some(counted) => add(&mut outcome.weighed, name, share(value) * counted.to_kind(Kind::Double)),
                None => add(&mut outcome.scalars, name, share(value)),
            }
        }
        for (name, value) in &losses.shares {
            add(&mut outcome.scalars, name, share(value));
        }
        if let Some(counted) = &losses.counted {
            add(&mut outcome.weighed, "total", &total * counted.to_kind(Kind::Double));
            add(&mut outcome.scalars, COUNTED, share(counted));
        }
        add(&mut outcome.scalars, "total", total);
        for (name, counts) in losses.counts {
            add(&mut outcome.counts, name, counts);
        }
    }
}

/// Where micro-batch `index` of `micro_batches` stands in the training, at a step: of the `total` images that this one of `ranks` has of a batch, which
/// are its every W-th for W ranks.
pub(in crate::trainer) fn step_context(
    spec: &TrainerSpec,
    step: u64,
    index: usize,
    total: usize,
    micro_batches: usize,
    ranks: &Ranks,
) -> StepContext {
    let len = total / micro_batches;
    let (rank, world) = (ranks.rank(), ranks.world());
    StepContext {
        step,
        total: spec.optim.total_steps,
        train: true,
        seed: derive(spec.seed, Purpose::Step, step, 0, 0),
        rows: BatchRows {
            start: (index * len * world + rank) as i64,
            len: len as i64,
            total: (total * world) as i64,
            stride: world as i64,
        },
        ranks: ranks.clone(),
    }
}

fn add(scalars: &mut Scalars, name: &'static str, value: Tensor) {
    match scalars.iter_mut().find(|(n, _)| *n == name) {
        Some((_, sum)) => *sum += value,
        None => scalars.push((name, value)),
    }
}

/// The number of that name.
pub(in crate::trainer) fn scalar<'a>(scalars: &'a Scalars, name: &str) -> Option<&'a Tensor> {
    scalars.iter().find(|(n, _)| *n == name).map(|(_, value)| value)
}

#[cfg(test)]
pub(in crate::trainer) mod tests;
