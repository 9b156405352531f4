//! Looking at the latest steps, and going back to an older checkpoint past the data that went wrong.

use std::path::Path;
use std::time::Duration;

use splitmask_pipeline::cursor::Cursor;

use super::assemble::Trainer;
use super::control::State;
use super::error::TrainError;
use super::metrics_log::MetricsLog;
use super::stability::Trouble;
use crate::checkpoint::{self, Rollback, Stability, folder_of};
use crate::telemetry::metrics::unix_seconds;

/// Longest time for which the bad batch is awaited for the replay folder.
pub(super) const REREAD_PATIENCE: Duration = Duration::from_secs(60);

/// A start from an older checkpoint, but with the data and the memory of the run that failed.
pub(super) struct Detour {
    /// Where the data goes on.
    pub(super) cursor: Cursor,
    /// What the run remembered.
    stability: Stability,
    rollback: Rollback,
    /// With the lines that wait for room on the disk.
    metrics_log: MetricsLog,
}

impl Detour {
    /// What the run remembers after it, and its log: starting at `to_step`, whose checkpoint stood at `from` in the data.
    pub(super) fn memory(self, to_step: u64, from: Cursor) -> (Stability, MetricsLog) {
        let mut stability = self.stability;
        stability.recent.clear();
        stability.judged = stability.consumed;
        stability.rollbacks.push(Rollback {
            to_step,
            skipped_from: from,
            ..self.rollback
        });
        (stability, self.metrics_log)
    }
}

impl Trainer {
    /// Number, counted from 1, of the step that took the batch `consumed`. Holds for batches since the last rollback.
    pub(super) fn step_of(&self, consumed: u64) -> u64 {
        self.step.saturating_sub(self.ladder.consumed().saturating_sub(consumed))
    }

    /// Reads the losses and norms that are on the device; skipped steps are counted and logged.
    pub(super) fn read_ladder(&mut self) -> Result<(), TrainError> {
        for consumed in self.ladder.read(self.spec.stability.window)? {
            self.telemetry.train.nonfinite_steps.inc();
            tracing::warn!(
                step = self.step_of(consumed),
                "loss or gradient was not finite: the step was skipped"
            );
        }
        Ok(())
    }

    /// Judges the steps since the last look; answers why to go back, if so.
    pub(super) fn look(&mut self) -> Result<Option<Trouble>, TrainError> {
        self.read_ladder()?;
        let finding = self.ladder.judge(&self.spec.stability);
        for spike in &finding.spikes {
            self.telemetry.train.loss_spikes.inc();
            tracing::warn!(
                step = self.step_of(spike.consumed),
                loss = spike.loss,
                grad_norm = spike.norm,
                "loss spike: the window has a loss of {:.4} ± {:.4} and a median norm of {:.3}",
                spike.mean,
                spike.sigma,
                spike.median_norm
            );
        }
        Ok(finding.trouble)
    }

    /// Goes back to the newest checkpoint from before the trouble (or to the oldest there is, or to the start), and on with the data behind it.
    ///
    /// # Errors
    /// [`TrainError::NonFinite`] if that was done too often, with a replay folder; or a failure to restore.
    pub(super) fn roll_back(mut self, trouble: &Trouble) -> Result<Self, TrainError> {
        if self.ladder.at_the_limit(&self.spec.stability) {
            return Err(self.give_up(trouble));
        }
        self.set_state(State::Starting);
        if let Err(e) = self.checkpoints.wait() {
            tracing::error!(error = %e, "a checkpoint could not be written; the older one stands");
        }
        let first_bad_step = self.step_of(trouble.first_bad);
        let root = folder_of(&self.spec.run_dir);
        let to_step = rollback_target(&root, first_bad_step)?;
        // First of all: a process killed from here on starts at the target, meets the same trouble and decides the same.
        for (step, folder) in checkpoint::list(&root)?.into_iter().filter(|(step, _)| *step > to_step) {
            tracing::warn!(step, "the checkpoint of the failed steps is deleted");
            checkpoint::delete(&folder)?;
        }
        let m = &self.telemetry.train;
        m.rollbacks.inc();
        m.last_rollback_timestamp.set(unix_seconds());
        let images = self.cursor.samples();
        tracing::error!(
            from_step = self.step,
            to_step,
            first_bad_step,
            reason = trouble.reason,
            "rollback: training goes on from the older checkpoint, behind the data consumed so far ({images} images)"
        );
        let detour = Detour {
            cursor: self.cursor,
            stability: self.ladder.save(),
            rollback: Rollback {
                consumed: self.ladder.consumed(),
                from_step: self.step,
                to_step,
                first_bad_step,
                reason: trouble.reason.clone(),
                skipped_from: Cursor::default(),
                skipped_to: self.cursor,
            },
            metrics_log: self.metrics_log,
        };
        let (spec, supply) = (self.spec.clone(), self.supply.clone());
        let (status, telemetry) = (self.status.clone(), self.telemetry.clone());
        // Memory of the device, and threads of the pipeline.
        drop((self.vars, self.objective, self.optimizer, self.ema, self.words, self.feed));
        let mut next = Self::assemble(spec, supply, status, telemetry, Some(detour))?;
        {
            let mut status = next.status.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            status.history.retain(|(step, ..)| *step <= next.step);
            status.last_rollback = next.ladder.save().rollbacks.pop();
        }
        next.show_watch();
        // The link may have led to a checkpoint that is gone.
        if let Some((_, step)) = next.watch.best
            && let Err(error) = checkpoint::mark_best(&root, step)
        {
            tracing::warn!(step, %error, "checkpoints/best could not be put back");
        }
        // From here on a resume knows of the rollback. Without it, it would meet the same trouble and go back too.
        if let Err(error) = next.checkpoint() {
            tracing::error!(%error, "no checkpoint after the rollback; training goes on");
        }
        Ok(next)
    }

    fn give_up(&mut self, trouble: &Trouble) -> TrainError {
        let replay = match self.write_replay(trouble) {
            Ok(folder) => Some(folder),
            Err(e) => {
                tracing::error!(error = %e, "the replay folder could not be written");
                None
            }
        };
        TrainError::NonFinite {
            reason: trouble.reason.clone(),
            step: self.step,
            limit: self.spec.stability.rollback_limit,
            replay,
        }
    }
}

/// Step of the checkpoint to go back to: the newest good one from before the bad step, else the oldest good one, else 0 for the start.
fn rollback_target(root: &Path, first_bad_step: u64) -> Result<u64, TrainError> {
    if let Some(good) = checkpoint::newest_good_before(root, first_bad_step)?.good {
        return Ok(good.progress.step);
    }
    let later = checkpoint::list(root)?;
    Ok(later
        .iter()
        .find_map(|(_, folder)| checkpoint::read(folder).ok())
        .map_or(0, |good| good.progress.step))
}
