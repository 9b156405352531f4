//! Linear probes: of a checkpoint at leisure, and of the running encoder within a budget of time.

use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use tch::Device;

use super::assemble::Trainer;
use super::control::{State, uptime_s};
use super::error::TrainError;
use super::spec::{Precision, TrainerSpec};
use super::survey::eval_stream;
use crate::eval::features::{FeatureError, Layered, Pass, Pool, extract_layers};
use crate::eval::linear::{Linear, probe};
use crate::model::Vit;
use crate::telemetry::metrics::{EvalTask, Phase};

/// Longest wait for a batch before the budget is looked at.
const PATIENCE: Duration = Duration::from_millis(100);

/// How far a linear evaluation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeStage {
    /// Features of so many images of the training set.
    Train(usize),
    /// Features of so many images of the validation set.
    Val(usize),
    /// Probes done, of how many.
    Fit(usize, usize),
}

/// Linear probes of the layers `places` (from 1, in range) on `data.val`, trained on `data.train`. `go_on` hears the stage often and may
/// end the evaluation.
///
/// # Errors
/// Unreadable shards, none with labels, or [`FeatureError::OutOfTime`] once `go_on` says no.
pub fn linear(
    vit: &Vit,
    spec: &TrainerSpec,
    device: Device,
    places: &[(usize, Pool)],
    mut go_on: impl FnMut(ProbeStage) -> bool,
) -> Result<Linear, FeatureError> {
    let normalise = spec.train.normalise();
    let mut features = |url: &str, most: u32, stage: fn(usize) -> ProbeStage| -> Result<Layered, FeatureError> {
        let mut stream = eval_stream(spec, url)?;
        let pass = Pass {
            normalise: &normalise,
            device,
            bf16: spec.train.precision == Precision::Bf16,
            most: most as usize,
        };
        // A bucket that does not answer must not outlast the budget either.
        let (seen, expired) = (std::cell::Cell::new(0), std::cell::Cell::new(false));
        let asked = std::cell::RefCell::new(&mut go_on);
        let batches = std::iter::from_fn(|| {
            loop {
                match stream.next_timeout(PATIENCE) {
                    Poll::Ready(batch) => return batch,
                    Poll::Pending if (asked.borrow_mut())(stage(seen.get())) => {}
                    Poll::Pending => {
                        expired.set(true);
                        return None;
                    }
                }
            }
        });
        let found = extract_layers(vit, pass, places, batches, |n| {
            seen.set(n);
            (asked.borrow_mut())(stage(n))
        });
        if expired.get() { Err(FeatureError::OutOfTime) } else { found }
    };
    let references = features(spec.data.first_place(), spec.eval.max_reference, ProbeStage::Train)?;
    let queries = features(&spec.data.val, spec.eval.max_queries, ProbeStage::Val)?;
    let least = i64::from(spec.eval.min_class);
    let queries = queries.of_frequent_classes(&references.labels, least)?;
    let references = references.of_frequent_classes(&references.labels, least)?;
    let _guard = tch::no_grad_guard();
    probe(&references, &queries, |done, of| go_on(ProbeStage::Fit(done, of)))
}

impl Trainer {
    /// Probes the last layer now, for `eval.linear_budget_s` at most; a failure is logged and training goes on.
    pub(super) fn evaluate_linear(&mut self) -> Result<(), TrainError> {
        self.set_state(State::Evaluating);
        self.clock.switch(Phase::Eval);
        let status = Arc::clone(&self.status);
        let budget = self.spec.eval.linear_budget_s;
        let deadline = Instant::now() + Duration::from_secs_f64(budget);
        let alive = |_: ProbeStage| {
            status.lock().unwrap_or_else(std::sync::PoisonError::into_inner).last_progress_s = uptime_s();
            Instant::now() < deadline
        };
        self.swap_averages();
        let vit = self.objective.backbone();
        let places = [(vit.depth(), Pool::Mean)];
        let measured = linear(vit, &self.spec, self.device, &places, alive);
        self.swap_averages();
        match measured {
            Ok(found) => {
                tracing::info!(
                    step = self.step,
                    "linear probe {:.4} (chance {:.4}, commonest class {:.4})",
                    found.best.top1,
                    found.chance,
                    found.majority
                );
                self.telemetry.train.eval_accuracy.of(EvalTask::Linear).set(found.best.top1);
                self.note_evaluation("linear", "linear_accuracy", found.best.top1)?;
            }
            Err(FeatureError::OutOfTime) => tracing::warn!(
                step = self.step,
                "the linear probe took longer than eval.linear_budget_s = {budget} and was given up; raise it, or lower eval.max_reference"
            ),
            Err(e) => tracing::error!(error = %e, "the linear probe failed; training goes on"),
        }
        self.clock.switch(Phase::Other);
        Ok(())
    }
}
