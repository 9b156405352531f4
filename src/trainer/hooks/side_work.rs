//! Evaluations and pictures are done beside training and must never end it: whatever they answer or panic is logged, counted, shown on the status board,
//! and told in the run's journal.

use crate::eval::EvalError;
use crate::optim::Weights;
use crate::telemetry::metrics::{Phase, SideTask};
use crate::trainer::control::State;
use crate::trainer::outlets::Outlets;
use crate::trainer::setup::Setup;
use crate::trainer::state::RunState;

/// Does `work` on the state with the `weights` in place, behind a fence; `None` if it failed.
pub(super) fn beside_training<T>(
    task: SideTask,
    weights: Weights,
    state: &mut RunState,
    setup: &Setup,
    out: &mut Outlets,
    work: impl FnOnce(&RunState) -> Result<T, EvalError>,
) -> Option<T> {
    out.show(State::Evaluating, state, setup);
    out.clock.switch(Phase::Eval);
    let done = state.fenced_with(weights, work);
    out.clock.switch(Phase::Other);
    done.map_err(|error| note_failure(task, &error, state, out)).ok()
}

fn note_failure(task: SideTask, error: &EvalError, state: &RunState, out: &Outlets) {
    let hint = error.hint().map_or_else(String::new, |hint| format!("; {hint}"));
    tracing::error!(step = state.step, %error, "{} failed; training goes on{hint}", task.label());
    out.telemetry.train.eval.failures.of(task).inc();
    out.board().note_failure(task.label(), state.step, format!("{error}{hint}"));
}
