//! One optimizer step, on one screen.

use std::time::Instant;

use tch::Tensor;
use torch_ext::ranks::Ranks;

use super::micro_batches::gradients_that_fit;
use super::pass::{PassOutcome, scalar, step_context};
use crate::optim::Stepped;
use crate::telemetry::metrics::{Phase, unix_seconds};
use crate::trainer::error::TrainError;
use crate::trainer::feed::Staged;
use crate::trainer::outlets::Outlets;
use crate::trainer::ranks::peers::Peers;
use crate::trainer::setup::Setup;
use crate::trainer::state::RunState;

/// Takes a step in five acts. A step whose loss or gradients are not finite leaves weights and moments as they were; the host learns of it at the next
/// stability check (`stability.check_every_steps`).
///
/// # Errors
/// The batch does not fit the objective or the memory, or what libtorch said; then the step was not taken.
pub(in crate::trainer) fn take_step(state: &mut RunState, setup: &Setup, staged: &Staged, out: &mut Outlets) -> Result<(), TrainError> {
    let began = Instant::now();
    if let Some(peers) = setup.peers.as_deref().filter(|peers| peers.trains_more_at(state.step)) {
        peers.reduce(&state.trained())?;
    }
    // 1. Forward and backward: the gradients of the batch are with the parameters.
    let outcome = gradients_that_fit(state, setup, staged, out)?;
    let total = scalar(&outcome.scalars, "total").expect("a pass answers its total").shallow_clone();
    out.clock.switch(Phase::Optimizer);
    // 2. Clip and update the weights.
    let (lr, wd) = setup.schedule(state.step);
    let stepped = state.optimizer.step_unless_nonfinite(lr, wd, setup.spec.optim.clip, &total)?;
    // 3. What follows the weights: the objective's own averages (a teacher) and the run's.
    let alone = Ranks::alone();
    let ranks = setup.peers.as_deref().map_or(&alone, Peers::ranks);
    let ctx = step_context(&setup.spec, state.step, 0, staged.batch.len, 1, ranks);
    state.objective.after_step(&ctx, &stepped.skipped)?;
    if let Some(ema) = &state.ema {
        ema.update(setup.spec.ema.decay, &stepped.skipped)?;
    }
    let debug = &setup.spec.debug;
    debug.drift(state.ladder.consumed() + 1, ranks.rank(), || state.trained().named);
    // 4. Note the numbers, on the device: no step waits for it.
    note(state, &outcome, &total, &stepped);
    state.optimizer.zero_grad()?;
    out.clock.switch(Phase::Other);
    // 5. Move on: counters and the place in the data.
    advance(state, setup, staged, outcome.word_counts.is_some(), out);
    out.telemetry.train.step_duration.observe(began.elapsed().as_secs_f64());
    Ok(())
}

fn note(state: &mut RunState, outcome: &PassOutcome, total: &Tensor, stepped: &Stepped) {
    outcome.made_words.iter().for_each(|words| state.usage.observe_on_device(words));
    if let Some((counts, words)) = &outcome.word_counts {
        state.usage.observe_counts(counts, *words);
    }
    state.meter.step();
    outcome
        .weighed
        .iter()
        .for_each(|(name, value)| state.meter.add_weighed(name, value));
    let unweighed = |name: &str| scalar(&outcome.weighed, name).is_none();
    for (name, value) in outcome.scalars.iter().filter(|(name, _)| unweighed(name)) {
        state.meter.add(name, value);
    }
    state.meter.add("grad_norm", &stepped.norm.nan_to_num(0.0, 0.0, 0.0));
    state.ladder.observe(total, &stepped.norm);
}

fn advance(state: &mut RunState, setup: &Setup, staged: &Staged, counted: bool, out: &Outlets) {
    let batch = &staged.batch;
    if !batch.words.is_empty() && !counted {
        state.usage.observe(&batch.words);
    }
    if state.trail.len() > setup.spec.stability.check_every_steps as usize {
        state.trail.pop_front();
    }
    state.trail.push_back(state.cursor);
    let epochs = u64::from(batch.cursor.epoch.saturating_sub(state.cursor.epoch));
    state.cursor = batch.cursor;
    state.step += 1;
    tracing::trace!(
        target: "splitmask::images",
        step = state.step,
        images = ?batch.ids.iter().map(|id| (id.epoch, id.shard, id.member)).collect::<Vec<_>>(),
        "epoch, shard and place in it of this rank's images"
    );
    let m = &out.telemetry.train;
    m.steps.inc();
    m.images.inc_by(batch.len as u64);
    m.epochs.inc_by(epochs);
    m.last_step_timestamp.set(unix_seconds());
    out.board().ready = true;
}
