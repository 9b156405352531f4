//! Evaluations during training: those rows of [`EVALUATIONS`] that are due, each shown and logged the same way.

use std::time::{Duration, Instant};

use serde_json::json;

use super::pictures::put_drawn;
use super::side_work::beside_training;
use super::{Boundary, Flow, Hook, overfitting};
use crate::eval::config::ProbeLayers;
use crate::eval::extract::share;
use crate::eval::features::ValFeatures;
use crate::eval::pool::Pool;
use crate::eval::sharing::Helpers;
use crate::eval::{EVALUATIONS, EvalError, Evaluation, Progress, Score};
use crate::optim::Weights;
use crate::telemetry::metrics::Phase;
use crate::trainer::control::{State, held, uptime_s};
use crate::trainer::error::TrainError;
use crate::trainer::outlets::Outlets;
use crate::trainer::setup::Setup;
use crate::trainer::state::RunState;
use crate::trainer::tensorboard::TensorBoard;

/// Stateless: what the run remembers of its evaluations is its patience.
pub(super) struct Evaluate;

fn is_due(evaluation: &Evaluation, at: &Boundary<'_>) -> bool {
    at.is_multiple_of((evaluation.every)(&at.setup.spec.eval))
}

impl Hook for Evaluate {
    fn due(&self, at: &Boundary<'_>) -> bool {
        EVALUATIONS.iter().any(|e| is_due(e, at))
    }

    fn beside_training(&self) -> bool {
        true
    }

    fn run(&mut self, state: &mut RunState, at: &Boundary<'_>, out: &mut Outlets) -> Result<Flow, TrainError> {
        let config = &at.setup.spec.eval;
        let mut flow = Flow::GoOn;
        // Nothing changes the weights between the evaluations of one boundary.
        let val_features = ValFeatures::new();
        for &evaluation in EVALUATIONS.iter().filter(|e| is_due(e, at)) {
            let Some(score) = measure(evaluation, &val_features, state, at.setup, out) else {
                continue;
            };
            tell(evaluation, &score, config.weights, state, out);
            put(evaluation, &score, state, at.setup, out);
            let watched = config.watch.evaluation().name == evaluation.name;
            // The best one so far is worth a checkpoint of its own.
            if watched && overfitting::observe(score.value, state, at.setup, out) {
                flow = Flow::Checkpoint;
            }
        }
        if let Some(peers) = &at.setup.peers {
            peers.dismiss_helpers()?;
        }
        Ok(flow)
    }

    /// Makes this rank's share of whatever features rank 0 asks for.
    fn help(&mut self, state: &mut RunState, at: &Boundary<'_>, out: &mut Outlets) -> Result<(), TrainError> {
        let setup = at.setup;
        let Some(peers) = setup.peers.as_deref() else { return Ok(()) };
        while let Some(wanted) = peers.asked_to_help()? {
            out.show(State::Evaluating, state, setup);
            out.clock.switch(Phase::Eval);
            let status = out.status.clone();
            let mut go_on = |progress| {
                if progress != Progress::Waiting {
                    held(&status).last_progress_s = uptime_s();
                }
                true
            };
            // The features of data.val are kept by rank 0.
            let val_features = ValFeatures::new();
            let own = state.fenced_with(setup.spec.eval.weights, |state| {
                share(
                    &setup.subject(state, places(state, setup), &val_features),
                    &wanted,
                    peers,
                    &mut go_on,
                )
            });
            match peers.bring(own) {
                // Rank 0 notes why there are none, its own failure or another's.
                Ok(_) | Err(EvalError::OtherRank(_)) => {}
                Err(EvalError::Ranks(lost)) => return Err(TrainError::OtherRank(lost)),
                Err(own) => {
                    tracing::warn!(step = state.step, error = %own, "this rank's share of an evaluation failed; rank 0 tells of it");
                }
            }
            out.clock.switch(Phase::Other);
        }
        Ok(())
    }
}

/// Measures behind the fence, within the evaluation's budget of time.
fn measure(evaluation: &Evaluation, val_features: &ValFeatures, state: &mut RunState, setup: &Setup, out: &mut Outlets) -> Option<Score> {
    let config = &setup.spec.eval;
    let budget_s = (evaluation.budget_s)(config);
    let deadline = budget_s.map(|seconds| Instant::now() + Duration::from_secs_f64(seconds));
    let status = out.status.clone();
    let mut go_on = |progress| {
        // The watchdog hears of everything but waiting.
        if progress != Progress::Waiting {
            held(&status).last_progress_s = uptime_s();
        }
        deadline.is_none_or(|deadline| Instant::now() < deadline)
    };
    beside_training(evaluation.task, config.weights, state, setup, out, |state| {
        let found = (evaluation.run)(&setup.subject(state, places(state, setup), val_features), &mut go_on);
        found.map_err(|e| match (e, budget_s) {
            (EvalError::OutOfTime, Some(seconds)) => EvalError::OverBudget { seconds },
            (other, _) => other,
        })
    })
}

/// The features that a probe learns from.
fn places(state: &RunState, setup: &Setup) -> Vec<(usize, Pool)> {
    let (config, last) = (&setup.spec.eval, state.objective.encoder().depth());
    let layers = match config.probe_layers {
        ProbeLayers::Last => last..=last,
        ProbeLayers::All => 1..=last,
    };
    layers.map(|layer| (layer, config.pool)).collect()
}

/// Puts the picture of a score into the run folder, behind the fence.
fn put(evaluation: &Evaluation, score: &Score, state: &mut RunState, setup: &Setup, out: &mut Outlets) {
    let Some((name, picture)) = &score.picture else { return };
    let before = out.tensorboard.as_ref().map(TensorBoard::drawn);
    let step = state.step;
    beside_training(evaluation.task, setup.spec.eval.weights, state, setup, out, |_| {
        put_drawn(&setup.spec, name, step, picture)
    });
    if let Some((events, before)) = out.tensorboard.as_mut().zip(before) {
        events.pictures(state.step, &before);
    }
}

/// Puts a score where it is looked for: log, gauges, `metrics.jsonl`, status board.
fn tell(evaluation: &Evaluation, score: &Score, weights: Weights, state: &RunState, out: &mut Outlets) {
    let step = state.step;
    for line in score.remarks.lines() {
        tracing::warn!(step, "evaluation: {line}");
    }
    tracing::info!(step, "{}", score.line);
    let m = &out.telemetry.train;
    if !score.layers.is_empty() {
        // Nothing stays of an earlier evaluation of other layers.
        (1..=state.objective.encoder().depth()).for_each(|layer| m.eval.set_layer_accuracy(layer, 0.0));
        score
            .layers
            .iter()
            .for_each(|(layer, top1)| m.eval.set_layer_accuracy(*layer, *top1));
    }
    if score.layers.len() > 1 {
        let layers: Vec<f64> = score.layers.iter().map(|(_, top1)| *top1).collect();
        let key = format!("{}_layers", evaluation.name);
        out.log(&json!({ "step": step, key: layers }));
    }
    let mut line = json!({ "step": step, "weights": weights.name() });
    for (number, value) in evaluation.numbers().zip(std::iter::once(&score.value).chain(&score.beside)) {
        (number.gauge)(&out.telemetry.train).set(*value);
        line[number.name] = json!(value);
    }
    out.log(&line);
    let mut board = out.board();
    board.evaluations.retain(|(done, _, _)| done != evaluation.name);
    board.evaluations.push((evaluation.name.into(), score.value, step));
    // What guessing among the classes would score, where the number is an accuracy.
    if let Some(chance) = score.details["chance"].as_f64() {
        let number = evaluation.number.name;
        board.chance.retain(|(of, _)| of != number);
        board.chance.push((number.into(), chance));
    }
}
