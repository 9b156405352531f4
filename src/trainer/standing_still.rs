//! How a run stands still: by itself, because it cannot go on, or because somebody asked for it. Both may be at once, and it goes on when neither is left.

use std::path::PathBuf;
use std::time::Duration;

use splitmask_pipeline::error::PipelineError;

use super::control::{PausedAt, ResumedAt, State};
use super::error::TrainError;
use super::feed::PATIENCE;
use super::pause::{Due, Pause};
use super::run::Trainer;
use super::state::OTHER_SHARDS;
use crate::telemetry::metrics::PauseReason;

/// What is told of a pause that was asked for.
const ASKED: &str = "asked for: weights, memory and the device are kept, and the run goes on by POST /-/resume (the button on the page), or by the same command \
                     after a stop";

impl Trainer {
    /// The stream of batches ended with `error`: pauses where that may pass, else writes a checkpoint and ends the run with it.
    pub(super) fn pause_or_end(&mut self, error: PipelineError) -> Result<(), TrainError> {
        let begun = self.out.board().ready;
        let Some(why) = Pause::reason(&error, self.setup.spec.data.on_budget).filter(|_| begun) else {
            self.checkpoint_before_failing();
            return Err(error.into());
        };
        let safe = self.checkpoint_at_pause();
        let reason = match error.hint() {
            Some(hint) => format!("{error}; {hint}"),
            None => error.to_string(),
        };
        self.pause(why, safe, reason);
        Ok(())
    }

    /// Begins a pause of a run that cannot go on by itself; `safe` says whether its checkpoint is written.
    pub(super) fn pause(&mut self, why: PauseReason, safe: bool, reason: String) {
        tracing::error!(step = self.state.step, "paused: {reason}");
        self.paused = Some(Pause::begin(why, reason, self.setup.spec.pipeline.retry_budget_s, safe));
        self.tell_pauses();
    }

    /// [`super::control::Command::Pause`].
    pub(super) fn hold(&mut self) -> PausedAt {
        let written = self.checkpoint_of_step().map_err(|e| e.to_string());
        self.hold_behind(written)
    }

    /// Stands still behind a checkpoint, or without it where the disk refuses it.
    pub(super) fn hold_behind(&mut self, written: Result<PathBuf, String>) -> PausedAt {
        let (safe, error) = (written.is_ok(), written.as_ref().err().cloned());
        if let Some(pause) = &mut self.held {
            pause.tried_checkpoint(safe);
        } else {
            match &error {
                None => tracing::info!(step = self.state.step, "paused: {ASKED}"),
                Some(error) => tracing::error!(
                    step = self.state.step,
                    error,
                    "paused, and its checkpoint cannot be written: it is tried again, and an older one, if there is any, stands"
                ),
            }
            let pause = Pause::begin(PauseReason::Asked, ASKED.into(), self.setup.spec.pipeline.retry_budget_s, safe);
            self.held = Some(pause);
        }
        self.tell_pauses();
        PausedAt {
            step: self.state.step,
            checkpoint: written.ok(),
            error,
        }
    }

    /// [`super::control::Command::Resume`].
    pub(super) fn let_go(&mut self) -> ResumedAt {
        if let Some(pause) = self.held.take() {
            // The log interval that the pause fell into is told without it.
            self.hooks.leave_out(pause.began.elapsed());
            self.went_on();
        }
        ResumedAt {
            step: self.state.step,
            paused: self.paused.as_ref().map(|pause| pause.reason.clone()),
        }
    }

    /// What a pause of its own waited for is there: it is over.
    pub(super) fn resume(&mut self) {
        if self.paused.take().is_some() {
            self.went_on();
        }
    }

    /// Takes no steps.
    pub(super) fn is_paused(&self) -> bool {
        self.paused.is_some() || self.held.is_some()
    }

    fn went_on(&mut self) {
        self.tell_pauses();
        if !self.is_paused() {
            tracing::info!(step = self.state.step, "no longer paused");
            self.show(State::WaitingForData);
        }
    }

    /// Shows why nothing moves, or that it does again.
    fn tell_pauses(&self) {
        let pauses = || self.paused.iter().chain(&self.held);
        {
            let mut board = self.out.board();
            board.paused = pauses().next().map(|pause| pause.reason.clone());
            board.pause_asked = self.held.is_some();
        }
        let reasons: Vec<PauseReason> = pauses().map(|pause| pause.why).collect();
        self.out.telemetry.train.set_paused(&reasons);
        if self.is_paused() {
            self.show(State::Paused);
        }
    }

    /// Waits a little, and does what is due in a pause.
    ///
    /// # Errors
    /// The data of a trainer that has not taken a batch yet cannot be had.
    pub(super) fn stay_paused(&mut self) -> Result<(), TrainError> {
        std::thread::sleep(PATIENCE);
        match self.paused.as_mut().and_then(Pause::due) {
            None => {}
            Some(Due::Checkpoint) => {
                let safe = self.checkpoint_at_pause();
                self.show(State::Paused);
                if self.paused.as_mut().is_some_and(|pause| pause.tried_checkpoint(safe)) {
                    self.resume();
                }
            }
            Some(Due::AskBucket) => {
                let (start, device) = (self.state.cursor, self.setup.device);
                match self.setup.open_feed(start, device, &self.out.telemetry.pipeline) {
                    Ok(feed) => {
                        if self.state.take_shards(feed.shards()) && self.setup.first() {
                            tracing::warn!(step = self.state.step, "{OTHER_SHARDS}");
                        }
                        self.feed = feed;
                        self.resume();
                    }
                    Err(error) => tracing::warn!("still paused: {error}"),
                }
            }
        }
        if let Some(Due::Checkpoint) = self.held.as_mut().and_then(Pause::due) {
            let safe = self.checkpoint_at_pause();
            self.show(State::Paused);
            if let Some(pause) = &mut self.held {
                pause.tried_checkpoint(safe);
            }
        }
        // A trainer that a reload built in the pause: it is ready once it could take a step, as one that trains is.
        let ready = self.out.board().ready;
        if self.paused.is_none() && !ready {
            match self.feed.fetch(Duration::ZERO) {
                Ok(true) => self.out.board().ready = true,
                Ok(false) => {}
                Err(error) => self.pause_or_end(error)?,
            }
        }
        Ok(())
    }
}
