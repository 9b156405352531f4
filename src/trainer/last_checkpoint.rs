//! Checkpoints that somebody waits for: those asked for, and the one that a run ends with. What a run has learnt is worth more than its end on time:
//! where the disk refuses the last checkpoint, it is tried again.

use std::path::PathBuf;
use std::time::Instant;

use super::error::TrainError;
use super::pause::{FIRST_RETRY, RETRY};
use super::run::Trainer;
use crate::telemetry::metrics::PauseReason;

impl Trainer {
    /// Writes a checkpoint and waits until it is safe on disk.
    pub(super) fn checkpoint(&mut self) -> Result<PathBuf, TrainError> {
        self.hooks.checkpoint.write(&mut self.state, &self.setup, &mut self.out)
    }

    /// The checkpoint of this step, written unless it is there: many who ask at one step get one, and a stop does not wait behind them.
    pub(super) fn checkpoint_of_step(&mut self) -> Result<PathBuf, TrainError> {
        match self.hooks.checkpoint.written_at(self.state.step) {
            Some(folder) => Ok(folder),
            None => self.checkpoint(),
        }
    }

    /// The schedule is done: writes the last checkpoint unless it is there. Answers false where the disk refuses it: the run is paused then, tries again,
    /// and hears reloads (fewer `checkpoint.keep` frees room) and stops.
    ///
    /// # Errors
    /// What no waiting mends: the folder is no longer the run's, a bug.
    pub(super) fn last_checkpoint(&mut self) -> Result<bool, TrainError> {
        // One that was due at this very step is on its way.
        self.hooks.checkpoint.settle();
        if self.hooks.checkpoint.last_step() == Some(self.state.step) {
            return Ok(true);
        }
        match self.checkpoint() {
            Ok(_) => Ok(true),
            Err(error) if error.may_pass() => {
                let reason = format!(
                    "all steps are done and the last checkpoint cannot be written: {error}; make room or mend the disk: it is tried again, every {} s at \
                     least, and the run ends once it is written. A stop tries for admin.grace_s more",
                    RETRY.as_secs()
                );
                self.pause(PauseReason::Disk, false, reason);
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// The checkpoint of a stop: tried again while the disk refuses it, for `admin.grace_s`.
    ///
    /// # Errors
    /// Why the last try failed.
    pub(super) fn checkpoint_within_grace(&mut self) -> Result<PathBuf, TrainError> {
        let until = Instant::now() + self.setup.spec.grace;
        let mut wait = FIRST_RETRY;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.checkpoint_of_step() {
                Err(error) if error.may_pass() && !left.is_zero() => {
                    tracing::error!(step = self.state.step, %error, left_s = left.as_secs(), "the last checkpoint cannot be written; it is tried again");
                    self.out.board().unsaved = Some(error.to_string());
                    std::thread::sleep(wait.min(left));
                    wait = RETRY.min(wait * 2);
                }
                done => {
                    if done.is_ok() {
                        self.out.board().unsaved = None;
                    }
                    return done;
                }
            }
        }
    }

    /// The run fails for a reason of its own, which is what it ends with: a checkpoint is tried as long as for a stop, and told if there can be none.
    pub(super) fn checkpoint_before_failing(&mut self) {
        if let Err(error) = self.checkpoint_within_grace() {
            tracing::error!(%error, "no checkpoint could be written; an older one, if there is any, stands");
        }
    }

    /// Writes the checkpoint of a pause; whether it could be written. Why not is logged.
    pub(super) fn checkpoint_at_pause(&mut self) -> bool {
        let written = self.checkpoint();
        if let Err(error) = &written {
            tracing::error!(step = self.state.step, %error, "no checkpoint could be written at the pause; it is tried again, and an older one, if there is any, stands");
        }
        written.is_ok()
    }
}
