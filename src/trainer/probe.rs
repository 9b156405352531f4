//! Linear probes: of a checkpoint at leisure, and of the running encoder within a budget of time.

use std::ops::RangeInclusive;
use std::task::Poll;
use std::time::{Duration, Instant};

use splitmask_pipeline::run::BatchStream;
use tch::Device;

use super::assemble::Trainer;
use super::control::uptime_s;
use super::spec::{Precision, ProbeLayers, TrainerSpec};
use super::survey::labelled_set;
use crate::eval::EvalError;
use crate::eval::classes::match_classes;
use crate::eval::features::{Layered, Pass, Pool, extract_layers};
use crate::eval::linear::{Linear, Probe, probe};
use crate::model::Vit;
use crate::telemetry::metrics::{EvalTask, SideTask};

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
/// Unreadable shards, none with labels, or [`EvalError::OutOfTime`] once `go_on` says no.
pub fn linear(
    vit: &Vit,
    spec: &TrainerSpec,
    device: Device,
    places: &[(usize, Pool)],
    mut go_on: impl FnMut(ProbeStage) -> bool,
) -> Result<Linear, EvalError> {
    let normalise = spec.train.normalise();
    let mut features = |url: &str, most: u32, stage: fn(usize) -> ProbeStage| -> Result<Layered, EvalError> {
        let pass = Pass {
            normalise: &normalise,
            device,
            bf16: spec.train.precision == Precision::Bf16,
            most: most as usize,
        };
        // A bucket that does not answer must not outlast the budget either.
        let (seen, expired) = (std::cell::Cell::new(0), std::cell::Cell::new(false));
        let asked = std::cell::RefCell::new(&mut go_on);
        let next = |stream: &mut BatchStream| {
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
        };
        let found = extract_layers(vit, pass, places, labelled_set(spec, url)?.read(next), |n| {
            seen.set(n);
            (asked.borrow_mut())(stage(n))
        });
        if expired.get() { Err(EvalError::OutOfTime) } else { found }
    };
    let references = features(spec.data.first_place(), spec.eval.max_reference, ProbeStage::Train)?;
    let queries = features(&spec.data.val, spec.eval.max_queries, ProbeStage::Val)?;
    let matched = match_classes(&references.labels, &queries.labels, spec.eval.min_class)?;
    let _guard = tch::no_grad_guard();
    probe(&references, &queries, &matched, |done, of| go_on(ProbeStage::Fit(done, of)))
}

impl Trainer {
    /// Probes the last layer or all of them now, for `eval.linear_budget_s` at most.
    pub(super) fn evaluate_linear(&mut self) {
        let last = self.objective.encoder().depth();
        let first = match self.spec.eval.probe_layers {
            ProbeLayers::Last => last,
            ProbeLayers::All => 1,
        };
        let Some(found) = self.beside_training_averaged(SideTask::Linear, |trainer| trainer.probe_now(first..=last)) else {
            return;
        };
        self.tell(&found.remarks);
        // The last layer's is the run's number, with and without the others, so that its curve means one thing.
        let top1 = found.probes.last().map_or(0.0, |probe| probe.top1);
        let (best, layers) = (found.best, found.probes.len());
        let all = (layers > 1).then(|| format!(", best of {layers} layers {:.4} (layer {})", best.top1, best.layer));
        tracing::info!(
            step = self.step,
            "linear probe {top1:.4}{} (chance {:.4}, commonest class {:.4})",
            all.unwrap_or_default(),
            found.chance,
            found.majority
        );
        let m = &self.telemetry.train;
        m.eval_accuracy.of(EvalTask::Linear).set(top1);
        // Nothing stays of an earlier probe of all layers.
        (1..first).for_each(|layer| m.set_layer_accuracy(layer, 0.0));
        for probe in &found.probes {
            m.set_layer_accuracy(probe.layer, probe.top1);
        }
        if layers > 1 {
            self.note_layers(&found.probes);
        }
        self.note_evaluation("linear", "linear_accuracy", top1);
    }

    fn probe_now(&self, layers: RangeInclusive<usize>) -> Result<Linear, EvalError> {
        let budget = self.spec.eval.linear_budget_s;
        let deadline = Instant::now() + Duration::from_secs_f64(budget);
        let alive = |_: ProbeStage| {
            self.status
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .last_progress_s = uptime_s();
            Instant::now() < deadline
        };
        let places: Vec<(usize, Pool)> = layers.map(|layer| (layer, Pool::Mean)).collect();
        linear(self.objective.encoder(), &self.spec, self.device, &places, alive).map_err(|e| match e {
            EvalError::OutOfTime => EvalError::OverBudget { seconds: budget },
            other => other,
        })
    }

    /// A line of `metrics.jsonl` with the accuracy of every layer, the first one first.
    fn note_layers(&mut self, probes: &[Probe]) {
        let layers: Vec<f64> = probes.iter().map(|probe| probe.top1).collect();
        let line = serde_json::json!({ "step": self.step, "linear_layers": layers });
        self.metrics_log.write(line.as_object().cloned().unwrap_or_default());
    }
}
