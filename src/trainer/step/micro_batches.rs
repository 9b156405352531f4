//! In how many micro-batches a batch is processed: more where a step does not fit into memory, and as few as fit where `train.accumulate = 0`.

use std::fs;

use splitmask_pipeline::types::Batch;
use tch::{Device, Tensor};

use super::kept_parts::{KeptParts, lacked_memory};
use super::memory::{free_memory, kilobytes};
use super::pass::{Pass, PassOutcome};
use super::recorded::Recorder;
use crate::trainer::error::{TrainError, device_panics_caught};
use crate::trainer::feed::Staged;
use crate::trainer::outlets::Outlets;
use crate::trainer::setup::Setup;
use crate::trainer::spec::OnOom;
use crate::trainer::state::RunState;

/// Share of the free memory that the automatic choice uses.
const SHARE: f64 = 0.8;
/// Images that the memory of one image is measured with, at most.
const PROBE: usize = 4;

/// The next larger divisor of `batch` from `now` on, at least doubling where there is one.
#[must_use]
fn more(batch: usize, now: usize) -> Option<usize> {
    let divides = |p: &usize| batch.is_multiple_of(*p);
    (2 * now..=batch).find(divides).or_else(|| (now + 1..=batch).find(divides))
}

/// Fewest micro-batches of a batch such that one, at `image_bytes` for each image, fits into `room`.
#[must_use]
fn fewest_that_fit(batch: usize, image_bytes: f64, room: f64) -> usize {
    let fits = |n: &usize| batch.is_multiple_of(*n) && (batch / *n) as f64 * image_bytes <= room;
    (1..=batch).find(fits).unwrap_or(batch)
}

/// Gradients of a batch, in as many micro-batches as it takes.
///
/// # Errors
/// [`TrainError::OutOfMemory`] where not even one image fits or `train.on_oom` says so; other failures as they are.
pub(super) fn gradients_that_fit(
    state: &mut RunState,
    setup: &Setup,
    staged: &Staged,
    out: &mut Outlets,
) -> Result<PassOutcome, TrainError> {
    let (batch, sent) = (&staged.batch, staged.sent.as_ref());
    if state.micro_batches == 0 {
        let found = find(state, setup, batch)?;
        // Each rank measures its own memory; the smallest decides for all.
        state.micro_batches = match &setup.peers {
            Some(peers) => usize::try_from(peers.tick(&[found as i64])?[0]).unwrap_or(found),
            None => found,
        };
        tracing::info!(
            micro_batches = state.micro_batches,
            images = batch.len / state.micro_batches,
            "train.accumulate = 0: the batch is processed in micro-batches of that many images"
        );
    }
    let may_split = setup.spec.train.on_oom == OnOom::Split && !setup.spec.objective.whole_batch();
    if let Some(peers) = setup.peers.as_deref().filter(|peers| may_split && peers.begins_first_step()) {
        let before = state.micro_batches;
        let kept = peers.first().then(|| KeptParts::read(&setup.spec.run_dir)).flatten();
        // Behind that step the checkpoints know the parts.
        if let Some(kept) = kept.filter(|kept| kept.step > state.step) {
            tracing::info!(
                ?kept,
                "an earlier start ended for lack of memory, as parts.json in the run folder says"
            );
            state.micro_batches = before.max(fewest_that_fit(batch.len, 1.0, kept.images as f64));
        }
        let own = fits_alone(state, setup, batch)?;
        state.micro_batches = usize::try_from(peers.tick(&[own as i64])?[0]).unwrap_or(own);
        if state.micro_batches != before {
            out.telemetry.train.memory_splits.inc();
            tracing::warn!(
                from = before,
                here = own,
                to = state.micro_batches,
                "a step does not fit into the memory of some rank, now or at an earlier start: all process their batches in more micro-batches, with the same result"
            );
        }
    }
    loop {
        let mut recordings = std::mem::take(&mut state.recordings);
        let pass = Pass::next(state, setup, sent);
        let done = device_panics_caught(|| {
            let phase = |phase| {
                out.clock.switch(phase);
            };
            Recorder::new(setup.device, &mut recordings).gradients(&pass, || state.optimizer.params(), batch, phase)
        });
        state.recordings = recordings;
        if let (Some(peers), Err(error)) = (&setup.peers, &done)
            && may_split
            && peers.first()
            && lacked_memory(error)
        {
            keep_parts(state, setup, batch.len, error);
        }
        let error = match done {
            Err(TrainError::OutOfMemory { detail, .. }) => detail,
            other => return other,
        };
        state.optimizer.zero_grad()?;
        let room_made = state.recordings.make_room();
        torch_ext::cuda_empty_cache()?;
        if room_made {
            continue;
        }
        // With several ranks the others have gone on without this one.
        let may_split = may_split && setup.peers.is_none();
        let Some(more) = more(batch.len, state.micro_batches).filter(|_| may_split) else {
            return Err(TrainError::OutOfMemory {
                detail: error,
                batch: batch.len,
                micro_batches: state.micro_batches,
            });
        };
        out.telemetry.train.memory_splits.inc();
        tracing::warn!(
            step = state.step + 1,
            from = state.micro_batches,
            to = more,
            error,
            "a step did not fit into memory: the batch is processed in more micro-batches from now on, with the same result"
        );
        state.micro_batches = more;
    }
}

/// Rank 0, where a later step did not fit into the memory of a rank: leaves with how many images at once the next start is to begin.
fn keep_parts(state: &RunState, setup: &Setup, images: usize, error: &TrainError) {
    // One image is the least that can be tried.
    let Some(parts) = more(images, state.micro_batches) else { return };
    let (spec, images, step) = (&setup.spec, images / parts, state.step + 1);
    let kept = KeptParts {
        images,
        step,
        error: error.to_string(),
    };
    let written = spec.check_folder().map_err(|e| e.to_string());
    match written.and_then(|()| kept.write(&spec.run_dir).map_err(|e| e.to_string())) {
        Ok(()) => tracing::error!(
            step,
            parts,
            images,
            "a step did not fit into the memory of a rank, which ends the run: the next start takes batches in that many parts"
        ),
        Err(why) => tracing::error!(step, why, "a step did not fit into the memory of a rank; raise train.accumulate"),
    }
}

/// The first step, tried before the other ranks wait for its gradients: the fewest micro-batches, from the present number on, of which one fits. What the
/// optimizer will hold from the first step on is held meanwhile.
///
/// # Errors
/// [`TrainError::OutOfMemory`] where not even one image fits; other failures as they are.
fn fits_alone(state: &mut RunState, setup: &Setup, batch: &Batch) -> Result<usize, TrainError> {
    loop {
        let done = device_panics_caught(|| {
            let moments = |of: &Tensor| Ok::<_, TrainError>([of.f_zeros_like()?, of.f_zeros_like()?]);
            let trained = state.trained().named;
            let new = trained.iter().filter(|_| state.step == 0);
            let _held = new.map(|(_, of)| moments(of)).collect::<Result<Vec<_>, _>>()?;
            Pass::alone(state, setup).first_micro_batch(batch)
        });
        state.optimizer.zero_grad()?;
        match done {
            Ok(()) => return Ok(state.micro_batches),
            Err(TrainError::OutOfMemory { detail, .. }) => {
                torch_ext::cuda_empty_cache()?;
                state.micro_batches = more(batch.len, state.micro_batches).ok_or(TrainError::OutOfMemory {
                    detail,
                    batch: batch.len,
                    micro_batches: state.micro_batches,
                })?;
            }
            Err(other) => return Err(other),
        }
    }
}

/// On CUDA one: a lack of memory divides it. On a CPU, where a lack of memory is the end of the process, by measuring.
fn find(state: &mut RunState, setup: &Setup, batch: &Batch) -> Result<usize, TrainError> {
    if setup.device != Device::Cpu || setup.spec.objective.whole_batch() {
        return Ok(1);
    }
    let probe = (1..=PROBE.min(batch.len)).rev().find(|n| batch.len.is_multiple_of(*n)).unwrap_or(1);
    state.micro_batches = batch.len / probe;
    // Twice: the first time also fills libtorch's own caches.
    let mut grown = 0.0;
    for _ in 0..2 {
        // Memory that is kept from the pass before would hide the growth.
        torch_ext::give_back_freed_memory();
        let before = kilobytes("/proc/self/status", "VmRSS");
        // Makes the peak begin anew; where the kernel refuses, the old peak only makes the estimate too large.
        let _ = fs::write("/proc/self/clear_refs", "5");
        Pass::alone(state, setup).first_micro_batch(batch)?;
        state.optimizer.zero_grad()?;
        let peak = kilobytes("/proc/self/status", "VmHWM");
        let (Some(before), Some(peak)) = (before, peak) else {
            return Ok(1);
        };
        grown = (peak - before).max(0.0);
    }
    let each = grown / probe as f64;
    torch_ext::give_back_freed_memory();
    let Some(room) = free_memory() else { return Ok(1) };
    tracing::info!(
        image_mib = each / f64::from(1 << 20),
        free_mib = room / f64::from(1 << 20),
        "measured the memory of a step"
    );
    Ok(fewest_that_fit(batch.len, each, SHARE * room))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_divisors_and_grow_at_least_twofold() {
        assert_eq!(more(12, 1), Some(2));
        assert_eq!(more(12, 2), Some(4));
        assert_eq!(more(12, 4), Some(12));
        assert_eq!(more(9, 1), Some(3));
        assert_eq!(more(12, 12), None);
        assert_eq!(more(1, 1), None);
    }

    #[test]
    fn the_largest_micro_batch_that_fits_is_taken() {
        assert_eq!(fewest_that_fit(12, 10.0, 1000.0), 1);
        assert_eq!(fewest_that_fit(12, 10.0, 119.0), 2);
        assert_eq!(fewest_that_fit(12, 10.0, 45.0), 3);
        assert_eq!(fewest_that_fit(12, 10.0, 1.0), 12, "one image must fit");
        assert_eq!(fewest_that_fit(7, 10.0, 60.0), 7);
    }
}
