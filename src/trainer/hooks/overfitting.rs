//! Whether a run still gets better: a warning, gauges and status from the patience with it. Evaluations call it; it is no hook of its own.

use serde_json::json;
use sha2::{Digest, Sha256};

use crate::eval::config::Watched;
use crate::eval::patience::{Verdict, Way};
use crate::eval::pool::Pool;
use crate::trainer::outlets::Outlets;
use crate::trainer::setup::Setup;
use crate::trainer::spec::TrainerSpec;
use crate::trainer::state::RunState;

/// Takes the value of the evaluation that `eval.watch` names into account; answers whether it is the best so far.
pub(super) fn observe(value: f64, state: &mut RunState, setup: &Setup, out: &Outlets) -> bool {
    let config = &setup.spec.eval;
    let (watched, patience) = (config.watch, config.patience);
    let drawn_views = watched == Watched::Loss && setup.request.views.len() > 1;
    let way = Way {
        pool: if watched == Watched::Knn { config.pool } else { Pool::default() },
        weights: config.weights,
        drawn_views,
        settings: digest(&setup.spec, drawn_views),
    };
    state.patience.complete(way);
    let before = state.patience;
    let verdict = state.patience.observe((watched, way), value, state.step, patience);
    if let (Some((best, at)), true) = (before.best, (before.watched, before.way) != (watched, way)) {
        tracing::info!(
            step = state.step,
            "evaluations are measured in another way than the best one so far ({best:.4} at step {at}): the best is looked for anew"
        );
    }
    if verdict == Verdict::Overfitting
        && let Some((best, at)) = state.patience.best
    {
        tracing::warn!(
            step = state.step,
            evaluations = state.patience.since,
            "over-fitting: {} is {value:.4}, and was best ({best:.4}) at step {at}; that checkpoint is kept as checkpoints/best",
            watched.evaluation().number.name
        );
    }
    show(state, setup, out);
    verdict == Verdict::Best
}

/// The first bytes of the digest of what a score depends on besides: the images, how they are looked at, and for a loss the settings of the objective, of which
/// a temperature or a weight may change as it trains.
fn digest(spec: &TrainerSpec, drawn_views: bool) -> u64 {
    let (data, eval) = (&spec.data, &spec.eval);
    let of = match eval.watch {
        Watched::Knn => json!([
            data.train,
            data.sources,
            data.fraction,
            eval.k,
            eval.temperature,
            eval.max_reference,
            eval.min_class,
            eval.crop_ratio
        ]),
        Watched::Loss => json!([
            spec.objective.judged_by(),
            spec.train.batch,
            eval.crop_ratio,
            drawn_views.then_some(&spec.augment)
        ]),
        Watched::Classify => json!([eval.crop_ratio]),
        Watched::Segment => json!([data.map, data.map_reduce_zero, eval.slide, eval.slide_stride]),
        Watched::Detect => json!([data.objects]),
    };
    let digest = Sha256::digest(json!([data.val, eval.max_queries, of]).to_string());
    u64::from_be_bytes(std::array::from_fn(|i| digest[i]))
}

/// Sets gauges and status; called at a resume too.
pub(super) fn show(state: &RunState, setup: &Setup, out: &Outlets) {
    let (m, patience) = (&out.telemetry.train, &state.patience);
    let overfitting = patience.overfitting(setup.spec.eval.patience);
    m.eval.since_best.set(f64::from(patience.since));
    m.eval.best_step.set(patience.best.map_or(0.0, |(_, step)| step as f64));
    m.eval.overfitting.set(f64::from(u8::from(overfitting)));
    let mut board = out.board();
    let number = patience.watched.evaluation().number.name;
    board.best = patience.best.map(|(value, step)| (number.to_owned(), value, step));
    board.overfitting = overfitting;
}
