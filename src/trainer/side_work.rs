//! Evaluations and pictures are done beside training and must never end it: whatever they answer or panic is logged, counted, shown on the status board,
//! and told in the run's journal.

use super::assemble::Trainer;
use super::control::State;
use super::spec::Weights;
use crate::eval::{EvalError, fenced};
use crate::telemetry::metrics::{Phase, SideTask};

impl Trainer {
    /// Does `work` behind a fence; `None` if it failed. `work` must not change what training goes on from.
    pub(super) fn beside_training<T>(&mut self, task: SideTask, work: impl FnOnce(&Self) -> Result<T, EvalError>) -> Option<T> {
        self.set_state(State::Evaluating);
        self.clock.switch(Phase::Eval);
        let done = fenced(|| work(self));
        self.clock.switch(Phase::Other);
        done.map_err(|error| self.note_side_failure(task, &error)).ok()
    }

    /// As [`Trainer::beside_training`], with the averaged weights in place of the trained ones if `eval.weights = "ema"`.
    pub(super) fn beside_training_averaged<T>(&mut self, task: SideTask, work: impl FnOnce(&Self) -> Result<T, EvalError>) -> Option<T> {
        let averaged = self.spec.eval.weights == Weights::Ema && self.ema.is_some();
        if averaged && let Err(error) = self.swap_averages() {
            self.note_side_failure(task, &error);
            return None;
        }
        let done = self.beside_training(task, work);
        if averaged {
            // What was exchanged once can be exchanged back; if not, the weights are not those of the run any more, and it must end.
            self.swap_averages().expect("the trained weights are put back");
        }
        done
    }

    fn swap_averages(&mut self) -> Result<(), EvalError> {
        self.ema.as_mut().map_or(Ok(()), |ema| Ok(ema.swap()?))
    }

    fn note_side_failure(&self, task: SideTask, error: &EvalError) {
        let hint = error.hint().map_or_else(String::new, |hint| format!("; {hint}"));
        tracing::error!(step = self.step, %error, "{} failed; training goes on{hint}", task.label());
        self.telemetry.train.eval_failures.of(task).inc();
        let mut status = self.status.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        status.note_failure(task.label(), self.step, format!("{error}{hint}"));
    }
}
