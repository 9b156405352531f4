//! The over-fitting watch in the training loop: warning, gauges, status.

use super::assemble::Trainer;
use crate::eval::watch::Verdict;

impl Trainer {
    /// Takes an evaluation into the watch, the gauges and the status; answers whether it is the best so far.
    pub(super) fn watch_evaluation(&mut self, value: f64) -> bool {
        let (watched, patience) = (self.spec.eval.watch, self.spec.eval.patience);
        let verdict = self.watch.observe(watched, value, self.step, patience);
        if verdict == Verdict::Overfitting
            && let Some((best, at)) = self.watch.best
        {
            tracing::warn!(
                step = self.step,
                evaluations = self.watch.since,
                "over-fitting: {} is {value:.4}, and was best ({best:.4}) at step {at}; that checkpoint is kept as checkpoints/best",
                watched.label()
            );
        }
        self.show_watch();
        verdict == Verdict::Best
    }

    /// Gauges and status from the watch's state; called at a resume too.
    pub(super) fn show_watch(&self) {
        let m = &self.telemetry.train;
        let overfitting = self.watch.overfitting(self.spec.eval.patience);
        m.eval_since_best.set(f64::from(self.watch.since));
        m.eval_best_step.set(self.watch.best.map_or(0.0, |(_, step)| step as f64));
        m.eval_overfitting.set(f64::from(u8::from(overfitting)));
        let mut status = self.status.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        status.best = self
            .watch
            .best
            .map(|(value, step)| (self.watch.watched.label().to_owned(), value, step));
        status.overfitting = overfitting;
    }
}
