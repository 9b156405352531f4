//! How the process ends: what a stop waits for, and what is told when that does not come.

use std::time::{Duration, Instant};

use super::{Supervisor, TICK};
use crate::daemon::daemon_status::lock as held;
use crate::daemon::draining::Draining;
use crate::daemon::events::Event;
use crate::daemon::train::Train;
use crate::daemon::{start, transaction};
use crate::exit::{CliError, ExitCode};
use crate::signals::{Signal, Stop, StopRequests};
use crate::trainer::control::Failure;

impl<T: Train> Supervisor<T> {
    /// Lets whoever scrapes at intervals read that the run is finished, so that its end is not taken for a crash.
    pub(super) fn stay_for_scraper(&mut self) {
        let now = Instant::now();
        self.parts.metrics.finished.set(1.0);
        let Some(until) = held(self.parts.admin.scrapes()).expected_by(now) else {
            return;
        };
        tracing::info!(
            "finished; staying up to {:.0} s for the next scrape of /metrics",
            (until - now).as_secs_f64()
        );
        while Instant::now() < until && !held(self.parts.admin.scrapes()).any_since(now) {
            if let Ok(Event::Signal(Signal::Terminate | Signal::Interrupt, _) | Event::Quit) = self.parts.inbox.recv_timeout(TICK) {
                return;
            }
        }
        // The answer to that scrape is on its way.
        std::thread::sleep(TICK);
    }

    /// The time for the last checkpoint is over.
    pub(super) fn grace_over(&self) -> CliError {
        let grace = self.parts.settings.config.admin.grace_s;
        let (code, why, hint) = match self.status().unsaved {
            Some(error) => (
                ExitCode::Io,
                format!("could be written: {error}"),
                "make room or mend the disk, and start it again",
            ),
            None => (
                ExitCode::Stopped,
                "was written".into(),
                "raise admin.grace_s, or checkpoint.every_steps less far apart",
            ),
        };
        CliError {
            code,
            message: format!(
                "admin.grace_s = {grace} ran out before the last checkpoint {why}; the run goes on from the one before, or begins anew if there is none"
            ),
            hint: Some(hint.into()),
        }
    }

    /// What a trainer that failed is told as.
    pub(super) fn why_it_ended(&self, failure: Failure) -> CliError {
        let disk = failure.error.code == ExitCode::Io;
        if failure.away && self.draining.is_some() {
            self.stopped()
        } else if disk && self.draining.is_some() && self.status().unsaved.is_some() {
            // The trainer and this thread count the same time for the last checkpoint: whichever sees its end first, the words are the same.
            self.grace_over()
        } else {
            self.built_with.located(failure)
        }
    }

    /// A stop found no trainer that had anything to save.
    pub(super) fn stopped(&self) -> CliError {
        let mut error = start::stopped();
        if self.accepted || self.parts.from.is_some() {
            error.message = "stopped while no trainer ran; the newest checkpoint holds everything".into();
        }
        error
    }

    /// SIGTERM or SIGINT came.
    pub(super) fn asked_to_stop(&mut self, signal: Signal, at: Instant) {
        match self.stops.judge(at) {
            Stop::Orderly => self.drain("signal"),
            Stop::Repeated => tracing::info!(
                "{} less than {} s after the first request to stop: taken for the same one; a later one ends at once",
                signal.name(),
                StopRequests::APART.as_secs()
            ),
            Stop::AtOnce => {
                self.impatient = true;
                self.end = Some(Err(CliError {
                    code: ExitCode::Stopped,
                    message: format!(
                        "{} {} s or more after the first request to stop: stopped at once, without a checkpoint; the run goes on from its last one",
                        signal.name(),
                        StopRequests::APART.as_secs()
                    ),
                    hint: None,
                }));
            }
        }
    }

    pub(super) fn drain(&mut self, why: &'static str) {
        if self.draining.is_some() {
            return;
        }
        let grace = Duration::from_secs_f64(self.parts.settings.config.admin.grace_s);
        tracing::info!(
            grace_s = grace.as_secs_f64(),
            why,
            "draining: the step is finished, a checkpoint written"
        );
        held(&self.parts.shown).draining = true;
        self.manager.stopping(grace);
        self.draining = Some(Draining {
            deadline: Instant::now() + grace,
            why,
        });
        self.happens(transaction::Event::Drain);
    }
}
