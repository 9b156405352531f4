//! The trainer's thread: what it is started with, and what its end means.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use super::Supervisor;
use crate::config::Config;
use crate::daemon::daemon_status::lock as held;
use crate::daemon::events::Event;
use crate::daemon::settings::Settings;
use crate::daemon::train::{Train, panicked};
use crate::daemon::transaction::{self, End};
use crate::exit::{CliError, ExitCode};
use crate::trainer::control::{Failure, Outcome, Status, trainer_thread};
use crate::trainer::spec::TrainerSpec;

impl<T: Train> Supervisor<T> {
    /// Starts a trainer thread. Its last act is [`Event::TrainerEnded`].
    pub(super) fn spawn(&mut self, settings: Settings) {
        let config = Arc::clone(&settings.config);
        {
            let mut status = held(&self.parts.status);
            *status = Status {
                step: status.step,
                total_steps: config.optim.total_steps,
                ..Status::default()
            };
        }
        self.ready = false;
        self.built_with = settings;
        let (commands, inbox) = channel();
        self.commands = commands;
        self.hold_new_trainer();
        let spec = self.trainer_spec(&config);
        let (train, status, events) = (
            Arc::clone(&self.parts.train),
            Arc::clone(&self.parts.status),
            self.parts.events.clone(),
        );
        let body = move || {
            let result = std::panic::catch_unwind(AssertUnwindSafe(|| train(spec, inbox, status)));
            torch_ext::give_back_freed_memory();
            let _ = events.send(Event::TrainerEnded(result.unwrap_or_else(|panic| Err(panicked(&*panic)))));
        };
        if let Err(e) = trainer_thread().spawn(body) {
            self.end = Some(Err(CliError::internal("no trainer thread", &e)));
        }
    }

    /// What a trainer is built from: the config, and the lock by which it recognises its folder.
    pub(super) fn trainer_spec(&self, config: &Config) -> TrainerSpec {
        TrainerSpec {
            lock: self.parts.lock.as_ref().map(|lock| lock.held().clone()),
            ..config.trainer_spec()
        }
    }

    pub(super) fn trainer_ended(&mut self, result: Result<Outcome, Failure>) {
        let end = match &result {
            Ok(Outcome::Finished { .. }) => {
                self.accept();
                End::Finished
            }
            Ok(Outcome::Stopped { .. }) => End::Stopped,
            Err(failure) if failure.away && self.may_wait() => End::Away,
            Err(failure) if failure.error.code == ExitCode::Io => End::Disk,
            Err(_) => End::Failed,
        };
        self.last = Some(result.map_err(|failure| self.why_it_ended(failure)));
        if let Some(Err(e)) = &self.last {
            let why = e.with_hint();
            if end == End::Away {
                self.bucket_says.clone_from(&e.message);
            }
            if self.pending.is_some() && self.draining.is_none() {
                tracing::warn!(error = why, "the trainer ended during a reload");
                self.blame_in_words(&why);
            }
        }
        self.happens(transaction::Event::Ended(end));
    }

    /// A run that has a checkpoint, or is given up only after its retry budget, may wait for its bucket.
    fn may_wait(&self) -> bool {
        let budget = Duration::from_secs_f64(self.parts.settings.config.pipeline.retry_budget_s);
        self.accepted || self.parts.from.is_some() || self.began.elapsed() < budget
    }
}
