//! Forward and backward as one launch: a CUDA graph for each shape of input (`train.cuda_graph`), because a GPU can be done with a small model's kernels sooner
//! than a host has asked for them.
//!
//! A graph repeats what was recorded with the memory that was recorded, so only passes qualify in which nothing but the input, the weights and the device's
//! generator differs from step to step ([`crate::objective::Objective::repeats`]). The optimizer and what follows it stay outside: their numbers change with the schedule.

use std::fmt::{self, Debug, Formatter};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use splitmask_pipeline::types::Batch;
use tch::Tensor;
use torch_ext::Graph;

use super::pass::{Pass, PassOutcome, Scalars};
use crate::exit::panic_text;
use crate::objective::{ObjectiveConfig, StepContext};
use crate::telemetry::metrics::Phase;
use crate::tensor::StepInput;
use crate::trainer::error::TrainError;

/// Passes before the first recording: libraries choose kernels and reserve memory in them, which cannot be recorded.
const WARM_UP: u32 = 3;
/// Shapes of input that are recorded; each holds the memory of a step's activations. Masks that cover a varying number of patches have many.
const SHAPES: usize = 2;

/// Launches what was recorded.
type Launch = Box<dyn Fn() -> Result<(), TrainError>>;
/// Records [`Pass::whole`] of an input: its numbers, filled by a launch, and how to launch it.
type Record = fn(&Pass<'_>, &Rc<StepInput>, &StepContext, &[Tensor]) -> Result<(Scalars, Launch), TrainError>;

/// The recordings of a run.
pub(in crate::trainer) struct Recorder {
    record: Record,
    /// The settings that were recorded.
    objective: Option<ObjectiveConfig>,
    /// Passes by these settings so far, up to [`WARM_UP`].
    seen: u32,
    recordings: Vec<Recording>,
    /// Whether a recording failed; no other is tried.
    given_up: bool,
    /// Why nothing is recorded, as it was told.
    told: Option<&'static str>,
}

impl Default for Recorder {
    fn default() -> Self {
        Self::of(|pass, input, ctx, _| {
            let (graph, scalars) = Graph::record(pass.device, || pass.whole(input, ctx))?;
            Ok((scalars, Box::new(move || Ok(graph.replay()?))))
        })
    }
}

impl Debug for Recorder {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "Recorder of {} graphs", self.recordings.len())
    }
}

/// One shape of input. All tensors of it belong to the recording, and each launch writes them anew.
struct Recording {
    launch: Launch,
    input: Rc<StepInput>,
    params: Vec<Tensor>,
    grads: Vec<Tensor>,
    scalars: Scalars,
    /// Largest word that a pass has checked against the vocabulary.
    largest_word: u32,
}

impl Recorder {
    fn of(record: Record) -> Self {
        Self {
            record,
            objective: None,
            seen: 0,
            recordings: Vec::new(),
            given_up: false,
            told: None,
        }
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
        let repeats = pass.repeats();
        if !pass.spec.train.cuda_graph || repeats.is_err() {
            // Their memory is better used by what is done instead.
            self.recordings.clear();
            let told = repeats.err().filter(|_| pass.spec.train.cuda_graph);
            if let Some(because) = told.filter(|_| self.told != told) {
                tracing::warn!(because, "train.cuda_graph = true has no effect: a step is not recorded");
            }
            self.told = told;
            return pass.gradients(batch, phase);
        }
        if self.objective.as_ref() != Some(&pass.spec.objective) {
            *self = Self {
                objective: Some(pass.spec.objective.clone()),
                given_up: self.given_up,
                ..Self::of(self.record)
            };
        }
        phase(Phase::Copy);
        let (input, made) = pass.one_input(batch, 0, &mut phase)?;
        let ctx = pass.begin(0, batch.len);
        let warm = self.seen >= WARM_UP;
        self.seen = (self.seen + 1).min(WARM_UP);
        let may_record = warm && !self.given_up && self.recordings.len() < SHAPES;
        let known = self.recordings.iter_mut().find(|recording| recording.fits(&input));
        let scalars = match known {
            // What a pass checks on the host is checked by one that is not recorded.
            Some(recording) if input.largest_word > recording.largest_word => {
                recording.largest_word = input.largest_word;
                pass.whole(&input, &ctx)?
            }
            Some(recording) => recording.replay(&input)?,
            None if may_record => self.recorded(pass, input, &ctx, params())?,
            None => pass.whole(&input, &ctx)?,
        };
        Ok(PassOutcome {
            scalars,
            made_words: made.into_iter().collect(),
            ..PassOutcome::default()
        })
    }

    /// Gives the memory of the recordings back for good, where a step lacks it. Answers whether there were any.
    pub(in crate::trainer) fn make_room(&mut self) -> bool {
        let any = !self.recordings.is_empty();
        if any {
            self.recordings.clear();
            self.given_up = true;
            tracing::warn!("train.cuda_graph: a step does not fit into memory beside the recorded ones, which are given up");
        }
        any
    }

    /// Records a pass and launches it.
    fn recorded(&mut self, pass: &Pass<'_>, input: StepInput, ctx: &StepContext, params: Vec<Tensor>) -> Result<Scalars, TrainError> {
        let input = Rc::new(input);
        // tch's plain methods say by a panic that a call cannot be recorded.
        let tried = catch_unwind(AssertUnwindSafe(|| (self.record)(pass, &input, ctx, &params)));
        let tried = tried
            .map_err(|panic| panic_text(&*panic))
            .and_then(|done| done.map_err(|e| e.to_string()));
        let (scalars, launch) = match tried {
            Ok(recorded) => recorded,
            Err(error) => {
                self.given_up = true;
                // They may share a generator with the one that failed.
                self.recordings.clear();
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
        self.recordings.push(recording);
        Ok(scalars)
    }
}

impl Recording {
    fn fits(&self, input: &StepInput) -> bool {
        let (own, new) = (self.input.tensors(), input.tensors());
        own.len() == new.len() && own.iter().zip(new).all(|(own, new)| own.size() == new.size())
    }

    fn replay(&self, input: &StepInput) -> Result<Scalars, TrainError> {
        for (own, new) in self.input.tensors().into_iter().zip(input.tensors()) {
            own.shallow_clone().f_copy_(new)?;
        }
        self.launched()
    }

    /// Leaves the gradients with the parameters and answers copies of the numbers, which the next launch leaves alone.
    fn launched(&self) -> Result<Scalars, TrainError> {
        (self.launch)()?;
        torch_ext::set_grads(&self.params, &self.grads)?;
        let values: Vec<&Tensor> = self.scalars.iter().map(|(_, value)| value).collect();
        let values = Tensor::f_stack(&values, 0)?.f_unbind(0)?;
        Ok(self.scalars.iter().map(|(name, _)| *name).zip(values).collect())
    }
}

#[cfg(test)]
mod tests;
