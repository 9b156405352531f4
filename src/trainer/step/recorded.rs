//! Forward and backward as one launch: a CUDA graph for each shape of input (`train.cuda_graph`), because a GPU can be done with a small model's kernels sooner
//! than a host has asked for them.
//!
//! A graph repeats what was recorded with the memory that was recorded, so only passes qualify in which nothing but the input, the weights and the device's
//! generator differs from step to step ([`crate::objective::Objective::repeats`]). The optimizer and what follows it stay outside: their numbers change with the schedule.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use splitmask_pipeline::types::Batch;
use tch::{Device, Tensor};
use torch_ext::Graph;

use super::pass::{Pass, PassOutcome, Scalars};
use super::recordings::{Launch, Recording, Recordings};
use crate::exit::panic_text;
use crate::objective::StepContext;
use crate::telemetry::metrics::Phase;
use crate::tensor::StepInput;
use crate::trainer::error::TrainError;

/// Passes before the first recording: libraries choose kernels and reserve memory in them, which cannot be recorded.
const WARM_UP: u32 = 3;
/// Shapes of input that are recorded; each holds the memory of a step's activations. Masks that cover a varying number of patches have many.
const SHAPES: usize = 2;

/// Records [`Pass::whole`] of an input: its numbers, filled by a launch, and how to launch it.
type Record = fn(&Pass<'_>, &Rc<StepInput>, &StepContext, &[Tensor]) -> Result<(Scalars, Launch), TrainError>;

/// Takes passes by what a run has recorded, and records.
pub(in crate::trainer) struct Recorder<'a> {
    /// `None` where nothing can be recorded.
    record: Option<Record>,
    held: &'a mut Recordings,
}

impl<'a> Recorder<'a> {
    /// One that records CUDA graphs, on a device that has them.
    pub(in crate::trainer) fn new(device: Device, held: &'a mut Recordings) -> Self {
        let cuda: Record = |pass, input, ctx, _| {
            let (graph, scalars) = Graph::record(pass.device, || pass.whole(input, ctx))?;
            Ok((scalars, Box::new(move || Ok(graph.replay()?))))
        };
        let record = device.is_cuda().then_some(cuda);
        Self { record, held }
    }

    /// As [`Pass::gradients`], by a recording where that gives the same: then there must be no gradients yet. `params` are those that may get one.
    ///
    /// # Errors
    /// As [`Pass::gradients`]. A recording that fails is told, costs nothing else, and is not tried again.
    pub(in crate::trainer) fn gradients(
        &mut self,
        pass: &Pass<'_>,
        params: impl FnOnce() -> Vec<Tensor>,
        batch: &Batch,
        mut phase: impl FnMut(Phase),
    ) -> Result<PassOutcome, TrainError> {
        let wanted = pass.spec.train.cuda_graph;
        let record = match (self.record.ok_or("it does not train on a GPU"), repeats(pass)) {
            (Ok(record), Ok(())) if wanted => record,
            (by, repeats) => {
                // Their memory is better used by what is done instead.
                self.held.all.clear();
                let told = by.err().or(repeats.err()).filter(|_| wanted);
                if let Some(because) = told.filter(|_| self.held.told != told) {
                    tracing::warn!(because, "train.cuda_graph = true has no effect: a step is not recorded");
                }
                self.held.told = told;
                return pass.gradients(batch, phase);
            }
        };
        if self.held.objective.as_ref() != Some(&pass.spec.objective) {
            *self.held = Recordings {
                objective: Some(pass.spec.objective.clone()),
                given_up: self.held.given_up,
                ..Recordings::default()
            };
        }
        phase(Phase::Copy);
        let (input, made) = pass.one_input(batch, 0, &mut phase)?;
        let ctx = pass.begin(0, batch.len);
        let warm = self.held.seen >= WARM_UP;
        self.held.seen = (self.held.seen + 1).min(WARM_UP);
        let may_record = warm && !self.held.given_up && self.held.all.len() < SHAPES;
        let known = self.held.all.iter_mut().find(|recording| recording.fits(&input));
        let scalars = match known {
            // What a pass checks on the host is checked by one that is not recorded.
            Some(recording) if input.largest_word > recording.largest_word => {
                recording.largest_word = input.largest_word;
                pass.whole(&input, &ctx)?
            }
            Some(recording) => recording.replay(&input)?,
            None if may_record => self.recorded(record, pass, input, &ctx, params())?,
            None => pass.whole(&input, &ctx)?,
        };
        Ok(PassOutcome {
            scalars,
            made_words: made.into_iter().collect(),
            ..PassOutcome::default()
        })
    }

    /// Records a pass and launches it.
    fn recorded(
        &mut self,
        record: Record,
        pass: &Pass<'_>,
        input: StepInput,
        ctx: &StepContext,
        params: Vec<Tensor>,
    ) -> Result<Scalars, TrainError> {
        let input = Rc::new(input);
        // tch's plain methods say by a panic that a call cannot be recorded.
        let tried = catch_unwind(AssertUnwindSafe(|| record(pass, &input, ctx, &params)));
        let tried = tried
            .map_err(|panic| panic_text(&*panic))
            .and_then(|done| done.map_err(|e| e.to_string()));
        let (scalars, launch) = match tried {
            Ok(recorded) => recorded,
            Err(error) => {
                self.held.given_up = true;
                // They may share a generator with the one that failed.
                self.held.all.clear();
                torch_ext::clear_grads(&params)?;
                tracing::warn!(
                    error,
                    "train.cuda_graph: a step could not be recorded as a CUDA graph; steps go on launch by launch, with the same result"
                );
                // What failed may have drawn random numbers.
                return pass.whole(&input, &pass.begin(0, ctx.rows.total as usize));
            }
        };
        let params: Vec<Tensor> = params.into_iter().filter(torch_ext::has_grad).collect();
        let recording = Recording {
            launch,
            grads: params.iter().map(Tensor::grad).collect(),
            params,
            scalars,
            largest_word: input.largest_word,
            input,
        };
        tracing::info!(
            step = pass.step + 1,
            images = recording.input.len,
            "recorded a step's forward and backward as a CUDA graph"
        );
        let scalars = recording.launched()?;
        self.held.all.push(recording);
        Ok(scalars)
    }
}

/// Whether the next pass does what this one does, on other images, and may be recorded.
///
/// # Errors
/// Why not, to be read behind "because".
fn repeats(pass: &Pass<'_>) -> Result<(), &'static str> {
    let reasons = [
        (pass.peers.is_some(), "several ranks exchange gradients within it"),
        (pass.micro_batches > 1, "it goes through the batch in several parts"),
        (
            !pass.objective.repeats(),
            "more than its images is new in each step of this objective",
        ),
        (!pass.spec.debug.inject.is_empty(), "faults are injected"),
    ];
    reasons.iter().find(|(holds, _)| *holds).map_or(Ok(()), |(_, reason)| Err(*reason))
}

#[cfg(test)]
mod tests;
