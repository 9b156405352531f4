//! The reload transaction: load → validate → compare → act on the strongest class → commit or keep the old config.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::mpsc::channel;

use tokio::sync::oneshot;

use super::board::{LastReload, lock as held};
use super::events::{Event, ReloadReport, Trigger};
use super::start::{frozen, listed};
use super::supervisor::Supervisor;
use super::{Train, admin, journal};
use crate::config::diff::strongest;
use crate::config::{Change, Class, Config, ConfigError, diff};
use crate::error::CliError;
use crate::telemetry::metrics::ReloadOutcome;
use crate::trainer::control::{Command, Outcome, Reach};

/// A reload between its acceptance as valid and its commit.
pub(super) struct Pending {
    trigger: Trigger,
    reply: Option<oneshot::Sender<ReloadReport>>,
    config: Arc<Config>,
    changes: Vec<Change>,
    policy: admin::Policy,
    /// The admin server moves to this one (`Some(None)`: it ends).
    listener: Option<Option<TcpListener>>,
    stage: Stage,
}

enum Stage {
    /// The trainer was asked to take the config over.
    Asked,
    /// The trainer was asked to stop, for a rebuild with the new config.
    Stopping,
    /// The new trainer builds itself.
    Starting,
    /// The new trainer failed; one with the old config builds itself.
    Returning { error: String },
}

/// How a reload ends, before it is told.
struct Verdict {
    outcome: ReloadOutcome,
    step: Option<u64>,
    changes: Vec<Change>,
    error: Option<String>,
    problems: Vec<crate::config::Problem>,
}

impl Verdict {
    fn failed(changes: Vec<Change>, error: String) -> Self {
        Self {
            outcome: ReloadOutcome::Failed,
            step: None,
            changes,
            error: Some(error),
            problems: Vec::new(),
        }
    }

    fn invalid(error: &ConfigError) -> Self {
        Self {
            outcome: ReloadOutcome::Invalid,
            step: None,
            changes: Vec::new(),
            error: Some(error.to_string()),
            problems: error.problems.clone(),
        }
    }
}

impl<T: Train> Supervisor<T> {
    /// SIGHUP or a changed file: nobody waits for the answer, so it can be put off and merged with others.
    pub(super) fn reload_unasked(&mut self, trigger: Trigger) {
        if self.pending.is_some() || !self.is_ready() {
            self.again = Some(trigger);
        } else {
            self.begin(trigger, None);
        }
    }

    /// `POST /-/reload`.
    pub(super) fn reload_asked(&mut self, reply: oneshot::Sender<ReloadReport>) {
        if self.pending.is_some() || !self.is_ready() {
            self.parts.metrics.record_reload(ReloadOutcome::Busy, self.generation);
            let error = if self.pending.is_some() {
                "another reload is running"
            } else {
                "not ready"
            };
            let _ = reply.send(ReloadReport {
                outcome: ReloadOutcome::Busy,
                applied_at_step: None,
                config_sha256: self.parts.config.sha256(),
                changes: Vec::new(),
                error: Some(error.into()),
                problems: Vec::new(),
            });
        } else {
            self.begin(Trigger::Http, Some(reply));
        }
    }

    fn begin(&mut self, trigger: Trigger, reply: Option<oneshot::Sender<ReloadReport>>) {
        self.manager.reloading();
        let loaded = self.parts.source.load();
        self.attempted = match &loaded {
            Ok(loaded) => Some(loaded.file_sha256.clone()),
            Err(_) => self.parts.source.file_sha256(),
        };
        let new = match loaded {
            Ok(loaded) => loaded.config,
            Err(e) => return self.end(trigger, reply, Verdict::invalid(&e)),
        };
        let changes = diff(&self.parts.config, &new);
        let policy = match admin::Policy::of(&new.admin) {
            Ok(policy) => policy,
            Err(e) => {
                return self.end(
                    trigger,
                    reply,
                    Verdict {
                        outcome: ReloadOutcome::Invalid,
                        ..Verdict::failed(changes, e)
                    },
                );
            }
        };
        let Some(class) = strongest(&changes) else {
            // The content of the token file may be new even so.
            self.parts.admin.set_policy(policy);
            let verdict = Verdict {
                outcome: ReloadOutcome::Unchanged,
                step: Some(self.status().step),
                changes,
                error: None,
                problems: Vec::new(),
            };
            return self.end(trigger, reply, verdict);
        };
        if class == Class::Frozen {
            let refused = frozen(&changes);
            let error = format!(
                "a run cannot change {}; the old config goes on. Start a new run for it: another run.dir, and run.init_from to keep the weights",
                listed(&refused)
            );
            return self.end(
                trigger,
                reply,
                Verdict {
                    outcome: ReloadOutcome::Frozen,
                    ..Verdict::failed(refused, error)
                },
            );
        }
        let listener = if new.admin.bind == self.parts.config.admin.bind {
            None
        } else {
            match admin::bind(&new.admin.bind) {
                Ok(listener) => Some(listener),
                Err(e) => return self.end(trigger, reply, Verdict::failed(changes, e)),
            }
        };
        let config = Arc::new(new);
        let stage = match class {
            Class::Restart => {
                let _ = self.commands.send(Command::Stop);
                Stage::Stopping
            }
            Class::Live | Class::Rebuild | Class::Frozen => {
                self.ask(&config, if class == Class::Rebuild { Reach::Rebuild } else { Reach::Live });
                Stage::Asked
            }
        };
        self.pending = Some(Pending {
            trigger,
            reply,
            config,
            changes,
            policy,
            listener,
            stage,
        });
    }

    fn ask(&self, config: &Config, reach: Reach) {
        let (reply, answered) = channel();
        let _ = self.commands.send(Command::Reconfigure {
            spec: Box::new(config.trainer_spec()),
            reach,
            reply,
        });
        let events = self.parts.events.clone();
        let wait = move || {
            let answer = answered
                .recv()
                .unwrap_or_else(|_| Err("the trainer ended before it answered".into()));
            let _ = events.send(Event::Reconfigured(answer));
        };
        if let Err(e) = std::thread::Builder::new().name("answer".into()).spawn(wait) {
            let _ = self
                .parts
                .events
                .send(Event::Reconfigured(Err(format!("no thread to wait for the trainer: {e}"))));
        }
    }

    pub(super) fn reconfigured(&mut self, answer: Result<u64, String>) {
        match self.pending.take() {
            Some(pending) if matches!(pending.stage, Stage::Asked) => match answer {
                Ok(step) => self.commit(pending, step),
                Err(error) => self.give_up(pending, error),
            },
            other => self.pending = other,
        }
    }

    /// A trainer that was rebuilt is ready.
    pub(super) fn reload_progress(&mut self, ready: bool) {
        if !ready {
            return;
        }
        match self.pending.take() {
            Some(pending) if matches!(pending.stage, Stage::Starting) => {
                let step = self.status().step;
                self.commit(pending, step);
            }
            Some(mut pending) => match std::mem::replace(&mut pending.stage, Stage::Asked) {
                Stage::Returning { error } => self.give_up(pending, error),
                stage => {
                    pending.stage = stage;
                    self.pending = Some(pending);
                }
            },
            None => {}
        }
    }

    /// The trainer ended; answers the daemon's end, or `None` if the reload goes on with another trainer.
    pub(super) fn trainer_ended_in_reload(
        &mut self,
        result: Result<Outcome, CliError>,
        draining: bool,
    ) -> Option<Result<Outcome, CliError>> {
        let Some(mut pending) = self.pending.take() else {
            return Some(result);
        };
        match (&pending.stage, &result) {
            (Stage::Stopping, Ok(Outcome::Stopped { .. })) if !draining => {
                let config = Arc::clone(&pending.config);
                pending.stage = Stage::Starting;
                self.pending = Some(pending);
                return self.spawn(&config).err().map(Err);
            }
            (Stage::Starting, Err(e)) if !draining => {
                tracing::warn!(error = %e.message, "the trainer could not be rebuilt; going back to the old config");
                pending.stage = Stage::Returning { error: e.message.clone() };
                self.pending = Some(pending);
                let config = Arc::clone(&self.parts.config);
                return self.spawn(&config).err().map(Err);
            }
            (Stage::Starting, Ok(Outcome::Finished { step })) => {
                let step = *step;
                self.commit(pending, step);
            }
            (Stage::Returning { error }, _) => {
                let error = error.clone();
                self.give_up(pending, error);
            }
            _ => self.give_up(pending, "the run ended first".into()),
        }
        Some(result)
    }

    fn commit(&mut self, pending: Pending, step: u64) {
        let Pending {
            trigger,
            reply,
            config,
            changes,
            policy,
            listener,
            ..
        } = pending;
        if let Some(listener) = listener {
            let address = listener.as_ref().and_then(|l| l.local_addr().ok());
            self.parts.admin.serve(listener);
            if let Err(e) = self.parts.lock.describe(address) {
                tracing::warn!(error = %e, "the lock file does not tell the new admin address");
            }
        }
        self.parts.admin.set_policy(policy);
        if let Some(log) = &self.parts.log {
            log.set(&config.log.filter);
        }
        self.parts.config = config;
        self.in_force();
        self.end(
            trigger,
            reply,
            Verdict {
                outcome: ReloadOutcome::Applied,
                step: Some(step),
                changes,
                error: None,
                problems: Vec::new(),
            },
        );
    }

    fn give_up(&mut self, pending: Pending, error: String) {
        let Pending {
            trigger, reply, changes, ..
        } = pending;
        self.end(trigger, reply, Verdict::failed(changes, error));
    }

    /// One log line, one count, one line of the journal, one answer.
    fn end(&mut self, trigger: Trigger, reply: Option<oneshot::Sender<ReloadReport>>, verdict: Verdict) {
        let Verdict {
            outcome,
            step,
            changes,
            error,
            problems,
        } = verdict;
        let (label, sha256) = (outcome.label(), self.parts.config.sha256());
        self.parts.metrics.record_reload(outcome, self.generation);
        held(&self.parts.board).last_reload = Some(LastReload {
            time: journal::now(),
            outcome: label,
            trigger: trigger.name(),
            error: error.clone(),
        });
        // Nothing happened: a signal every second must not fill the disk.
        if outcome != ReloadOutcome::Unchanged {
            self.note("reload", trigger.name(), label, &changes, error.as_deref());
        }
        let step_now = step.unwrap_or_else(|| self.status().step);
        match &error {
            None => {
                tracing::info!(outcome = label, trigger = trigger.name(), step = step_now, sha256, changes = %listed(&changes), "config reload");
            }
            Some(error) => tracing::warn!(
                outcome = label,
                trigger = trigger.name(),
                step = step_now,
                sha256,
                error,
                "config reload"
            ),
        }
        self.manager.ready();
        if let Some(reply) = reply {
            let _ = reply.send(ReloadReport {
                outcome,
                applied_at_step: step,
                config_sha256: sha256,
                changes,
                error,
                problems,
            });
        }
    }
}
