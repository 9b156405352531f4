//! Going back to an older checkpoint, and on with the data behind what went wrong.

use std::path::{Path, PathBuf};

use splitmask_pipeline::cursor::Cursor;

use super::Instability;
use super::after_rollback::AfterRollback;
use super::replay::write_replay;
use crate::checkpoint::{self, Rollback, folder_of};
use crate::telemetry::metrics::unix_seconds;
use crate::trainer::assemble::{Company, assemble};
use crate::trainer::control::State;
use crate::trainer::error::TrainError;
use crate::trainer::run::Trainer;

/// Goes back to the newest checkpoint from before the instability (or to the oldest there is, or to the start), and on with the data behind it.
///
/// # Errors
/// [`TrainError::NonFinite`] if that was done too often, with a replay folder; or a failure to restore.
pub(in crate::trainer) fn roll_back(mut run: Trainer, instability: &Instability) -> Result<Trainer, TrainError> {
    if run.state.ladder.at_the_limit(&run.setup.spec.stability) {
        return Err(give_up(&run, instability));
    }
    run.show(State::Starting);
    run.hooks.checkpoint.settle();
    let state = &run.state;
    let first_bad_step = state.step_of(instability.first_bad);
    let root = folder_of(&run.setup.spec.run_dir);
    let (first, peers) = (run.setup.first(), run.setup.peers.clone());
    let mut to_step = if first { target(&root, first_bad_step)? } else { 0 };
    if first {
        run.setup.spec.check_folder()?;
        // First of all: a process killed from here on starts at the target, meets the same instability and decides the same.
        for (step, folder) in checkpoint::list(&root)?.into_iter().filter(|(step, _)| *step > to_step) {
            tracing::warn!(step, "the checkpoint of the failed steps is deleted");
            checkpoint::delete(&folder)?;
        }
    }
    if let Some(peers) = &peers {
        // Rank 0 alone sees the run folder.
        to_step = u64::try_from(peers.tick(&[to_step as i64])?[0]).unwrap_or(0);
        peers.release();
    }
    let m = &run.out.telemetry.train;
    m.rollbacks.inc();
    m.last_rollback_timestamp.set(unix_seconds());
    let images = state.cursor.samples();
    tracing::error!(
        from_step = state.step,
        to_step,
        first_bad_step,
        reason = instability.reason,
        "rollback: training goes on from the older checkpoint, behind the data consumed so far ({images} images)"
    );
    let after = AfterRollback {
        cursor: state.cursor,
        stability: state.ladder.save(),
        rollback: Rollback {
            consumed: state.ladder.consumed(),
            from_step: state.step,
            to_step,
            first_bad_step,
            reason: instability.reason.clone(),
            skipped_from: Cursor::default(),
            skipped_to: state.cursor,
        },
        metrics_log: run.out.metrics_log,
    };
    let (spec, supply) = (run.setup.spec.clone(), run.setup.supply.clone());
    let (status, telemetry) = (run.out.status, run.out.telemetry);
    let company = Company {
        launching: run.setup.launching.clone(),
        peers: peers.clone(),
    };
    // Memory of the device, and threads of the pipeline.
    drop((run.state, run.feed, run.setup));
    let mut next = assemble(spec, supply, status, telemetry, company, Some(after))?;
    {
        let mut board = next.out.board();
        board.last_rollback = next.state.ladder.save().rollbacks.pop();
    }
    if let Some(peers) = &peers {
        next.state.places = peers.places(next.state.cursor, next.out.telemetry.train.images.get())?;
        if !first {
            return Ok(next);
        }
    }
    // The link may have led to a checkpoint that is gone.
    if let Some((_, step)) = next.state.patience.best
        && let Err(error) = checkpoint::mark_best(&root, step)
    {
        tracing::warn!(step, %error, "checkpoints/best could not be put back");
    }
    // From here on a resume knows of the rollback. Without it, it would meet the same instability and go back too.
    if let Err(error) = next.checkpoint() {
        tracing::error!(%error, "no checkpoint after the rollback; training goes on");
    }
    Ok(next)
}

fn give_up(run: &Trainer, instability: &Instability) -> TrainError {
    if run.setup.peers.is_some() {
        tracing::error!("no replay folder: the bad batch lies on several ranks, and a replay takes a whole one");
        return gave_up(run, instability, None);
    }
    let replay = match write_replay(&run.state, &run.setup, instability) {
        Ok(folder) => Some(folder),
        Err(e) => {
            tracing::error!(error = %e, "the replay folder could not be written");
            None
        }
    };
    gave_up(run, instability, replay)
}

fn gave_up(run: &Trainer, instability: &Instability, replay: Option<PathBuf>) -> TrainError {
    TrainError::NonFinite {
        reason: instability.reason.clone(),
        step: run.state.step,
        limit: run.setup.spec.stability.rollback_limit,
        replay,
    }
}

/// Step of the checkpoint to go back to: the newest good one from before the bad step, else the oldest good one, else 0 for the start.
fn target(root: &Path, first_bad_step: u64) -> Result<u64, TrainError> {
    if let Some(good) = checkpoint::newest_good_before(root, first_bad_step)?.good {
        return Ok(good.progress.step);
    }
    let later = checkpoint::list(root)?;
    Ok(later
        .iter()
        .find_map(|(_, folder)| checkpoint::read(folder).ok())
        .map_or(0, |good| good.progress.step))
}
