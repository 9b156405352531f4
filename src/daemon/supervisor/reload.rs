//! Carries out what the rules of [`crate::daemon::transaction`] say of a reload: reads, asks, commits, answers.

use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::Supervisor;
use crate::config::{Change, Problem};
use crate::daemon::changes::listed;
use crate::daemon::daemon_status::{LastReload, lock as held};
use crate::daemon::events::{Event, ReloadReport, Trigger};
use crate::daemon::file_watch::Found;
use crate::daemon::journal;
use crate::daemon::pending_reload::Pending;
use crate::daemon::reading::{self, NewConfig, Reading, Refusal};
use crate::daemon::train::Train;
use crate::daemon::transaction::{self, Action};
use crate::telemetry::metrics::ReloadOutcome;
use crate::trainer::control::{Command, Reach, Reply};

/// Time for the config file to be read; a disk that needs longer is away.
const READING_LIMIT: Duration = Duration::from_secs(10);

/// How a reload ends, before it is told.
struct Verdict {
    outcome: ReloadOutcome,
    step: Option<u64>,
    changes: Vec<Change>,
    error: Option<String>,
    shadowed: Vec<String>,
    warnings: Vec<String>,
    problems: Vec<Problem>,
}

impl From<Refusal> for Verdict {
    fn from(refusal: Refusal) -> Self {
        Self {
            outcome: refusal.outcome,
            step: None,
            changes: refusal.changes,
            error: Some(refusal.error),
            shadowed: Vec::new(),
            warnings: Vec::new(),
            problems: refusal.problems,
        }
    }
}

impl<T: Train> Supervisor<T> {
    /// SIGHUP or a changed file: nobody waits for the answer, so it can be put off and merged with others.
    pub(super) fn reload_unasked(&mut self, trigger: Trigger) {
        if self.transaction.may_begin() {
            self.begin(trigger, None);
        } else {
            self.again = Some(trigger);
        }
    }

    /// What the watch of the config file found.
    pub(super) fn file_watched(&mut self, found: &Found) {
        if !self.parts.settings.config.admin.watch {
            return;
        }
        match found {
            Found::Changed(digest) if self.attempted.as_ref() == Some(digest) => {}
            // Of a file that is gone, the reading says so.
            Found::Changed(_) | Found::Gone => self.reload_unasked(Trigger::File),
            Found::Unfinished => {
                let error = format!(
                    "{}: the new content does not end with a newline, so it may be half written, and the old config goes on; it is taken once it ends with one, \
                     or as it is by SIGHUP or POST /-/reload",
                    self.parts.source.file.display()
                );
                let refusal = Refusal {
                    outcome: ReloadOutcome::Invalid,
                    ..Refusal::failed(Vec::new(), error)
                };
                self.tell(Trigger::File, None, refusal.into());
            }
        }
    }

    /// `POST /-/reload`.
    pub(super) fn reload_asked(&mut self, reply: oneshot::Sender<ReloadReport>) {
        if self.transaction.may_begin() {
            return self.begin(Trigger::Http, Some(reply));
        }
        self.parts.metrics.record_reload(ReloadOutcome::Busy, self.generation);
        let error = if self.pending.is_some() {
            "another reload is running"
        } else {
            "not ready"
        };
        let _ = reply.send(ReloadReport {
            outcome: ReloadOutcome::Busy,
            applied_at_step: None,
            config_sha256: self.parts.settings.config.sha256(),
            changes: Vec::new(),
            error: Some(error.into()),
            shadowed: Vec::new(),
            warnings: Vec::new(),
            problems: Vec::new(),
        });
    }

    fn begin(&mut self, trigger: Trigger, reply: Option<oneshot::Sender<ReloadReport>>) {
        self.manager.reloading();
        self.reloads += 1;
        self.pending = Some(Pending {
            number: self.reloads,
            trigger,
            reply,
            began: Instant::now(),
            new: None,
            refusal: None,
        });
        self.happens(transaction::Event::Begin);
    }

    /// Has the file read by a thread. One that still hangs in an earlier reading is enough.
    pub(super) fn read_config(&mut self) {
        if let Some(since) = self.reading {
            let error = format!(
                "the config file has been read for {} s without an answer; the old config goes on",
                since.elapsed().as_secs()
            );
            return self.refuse(Refusal::failed(Vec::new(), error));
        }
        let (source, in_force) = (self.parts.source.clone(), self.parts.settings.clone());
        let (events, number, world) = (self.parts.events.clone(), self.reloads, self.parts.launch.world);
        let body = move || {
            let reading = Box::new(reading::read(&source, &in_force, world));
            let _ = events.send(Event::Read(number, reading));
        };
        match std::thread::Builder::new().name("reading".into()).spawn(body) {
            Ok(_) => self.reading = Some(Instant::now()),
            Err(e) => self.refuse(Refusal::failed(Vec::new(), format!("no thread to read the config file: {e}"))),
        }
    }

    /// Gives up on a file that does not come.
    pub(super) fn time_reading(&mut self) {
        let late = self.pending.as_ref().is_some_and(|p| p.began.elapsed() > READING_LIMIT);
        if late && self.transaction.is_reading() {
            let file = self.parts.source.file.display();
            let error = format!(
                "{file}: cannot be read: no answer for {} s; the old config goes on",
                READING_LIMIT.as_secs()
            );
            self.refuse(Refusal::failed(Vec::new(), error));
        }
    }

    /// The file was read, perhaps too late.
    pub(super) fn config_read(&mut self, number: u64, reading: Reading) {
        self.reading = None;
        self.attempted = reading.file_sha256;
        let Some(pending) = self.pending.as_mut().filter(|p| p.number == number) else {
            return;
        };
        match reading.found {
            Err(refusal) => self.refuse(refusal),
            Ok(new) => {
                let event = new.class.map_or(transaction::Event::Unchanged, transaction::Event::Valid);
                pending.new = Some(new);
                self.happens(event);
            }
        }
    }

    fn refuse(&mut self, refusal: Refusal) {
        self.blame(refusal);
        self.happens(transaction::Event::Refused);
    }

    /// Remembers why the reload under way will fail; the first reason is the one that is told.
    fn blame(&mut self, refusal: Refusal) {
        if let Some(pending) = &mut self.pending {
            pending.refusal.get_or_insert(refusal);
        }
    }

    /// The error behind the place of the changed key that it begins with, or whose value it begins with, as one of an address does.
    fn placed(&self, error: String) -> String {
        let new = self.pending.as_ref().and_then(|pending| pending.new.as_ref());
        let named = new.and_then(|new| {
            let by_key = |change: &&Change| error.starts_with(&format!("{} =", change.path));
            let by_value = |change: &&Change| {
                let value = change.new.trim_matches('"');
                !value.is_empty() && error.starts_with(&format!("{value}: "))
            };
            let (change, key) = match new.changes.iter().find(by_key) {
                Some(change) => (change, String::new()),
                None => new
                    .changes
                    .iter()
                    .find(by_value)
                    .map(|change| (change, format!("{}: ", change.path)))?,
            };
            Some(format!("{}: {key}", new.settings.places.get(&change.path)?))
        });
        match named {
            Some(place) => place + &error,
            None => error,
        }
    }

    /// As [`Self::blame`], in words.
    pub(super) fn blame_in_words(&mut self, error: &str) {
        let changes = self.pending.as_ref().and_then(|p| p.new.as_ref()).map(|n| n.changes.clone());
        self.blame(Refusal::failed(changes.unwrap_or_default(), error.to_owned()));
    }

    pub(super) fn ask(&mut self, reach: Reach) {
        let Some(new) = self.pending.as_ref().and_then(|p| p.new.as_ref()) else {
            return;
        };
        let events = self.parts.events.clone();
        let _ = self.commands.send(Command::Reconfigure {
            spec: Box::new(self.trainer_spec(&new.settings.config)),
            reach,
            reply: Reply::new(move |answer| drop(events.send(Event::Reconfigured(answer)))),
        });
    }

    pub(super) fn save(&mut self) {
        let events = self.parts.events.clone();
        let _ = self.commands.send(Command::Checkpoint {
            reply: Reply::new(move |answer| drop(events.send(Event::Saved(answer.map(|(_, step)| step))))),
        });
    }

    pub(super) fn reconfigured(&mut self, answer: Result<u64, String>) {
        match answer {
            Ok(step) => {
                self.applied_at = Some(step);
                self.happens(transaction::Event::TookOver);
            }
            Err(error) => {
                let error = self.placed(error);
                self.blame_in_words(&error);
                self.happens(transaction::Event::Declined);
            }
        }
    }

    pub(super) fn saved(&mut self, answer: Result<u64, String>) {
        match answer {
            Ok(_) => self.happens(transaction::Event::Saved),
            Err(error) => {
                self.blame_in_words(&format!("the trainer is not rebuilt: its checkpoint cannot be written: {error}"));
                self.happens(transaction::Event::Unsaved);
            }
        }
    }

    /// The config that the reload under way brings.
    pub(super) fn new_settings(&self) -> Option<crate::daemon::settings::Settings> {
        Some(self.pending.as_ref()?.new.as_ref()?.settings.clone())
    }

    /// Ends the reload under way: with the new config in force, the old one, or one that is the same.
    pub(super) fn conclude(&mut self, action: Action) {
        let Some(pending) = self.pending.take() else { return };
        let step = self.applied_at.take().unwrap_or_else(|| self.status().step);
        let verdict = match (action, pending.new) {
            (Action::Commit, Some(new)) => {
                let (changes, shadowed, warnings) = (new.changes.clone(), new.shadowed.clone(), new.warnings.clone());
                self.commit(new);
                Verdict {
                    outcome: ReloadOutcome::Applied,
                    step: Some(step),
                    changes,
                    error: None,
                    shadowed,
                    warnings,
                    problems: Vec::new(),
                }
            }
            (Action::Same, Some(new)) => {
                // The content of tokens, certificate and key may be new even so.
                self.parts.admin.set_policy(new.policy);
                self.take_identity(new.tls);
                Verdict {
                    outcome: ReloadOutcome::Unchanged,
                    step: Some(step),
                    changes: new.changes,
                    error: None,
                    shadowed: new.shadowed,
                    warnings: new.warnings,
                    problems: Vec::new(),
                }
            }
            (_, new) => {
                let changes = new.map(|n| n.changes).unwrap_or_default();
                let ended = || Refusal::failed(changes, "the run ended first".into());
                pending.refusal.unwrap_or_else(ended).into()
            }
        };
        self.tell(pending.trigger, pending.reply, verdict);
    }

    fn commit(&mut self, new: NewConfig) {
        self.take_identity(new.tls);
        if let Some(listener) = new.listener {
            let address = listener.as_ref().and_then(|l| l.local_addr().ok());
            self.parts.admin.serve(listener);
            let lock = self.parts.lock.clone();
            self.parts.files.run(move || {
                if let Some(Err(e)) = lock.map(|lock| lock.describe(address)) {
                    tracing::warn!(error = %e, "the lock file does not tell the new admin address");
                }
            });
        }
        self.parts.admin.set_policy(new.policy);
        if let Some(log) = &self.parts.log {
            log.set(&new.settings.config.log.filter);
        }
        self.parts.settings = new.settings;
        self.in_force();
    }

    /// One log line, one count, one line of the journal, one answer.
    fn tell(&mut self, trigger: Trigger, reply: Option<oneshot::Sender<ReloadReport>>, verdict: Verdict) {
        let Verdict {
            outcome,
            step,
            changes,
            error,
            shadowed,
            warnings,
            problems,
        } = verdict;
        let (label, sha256) = (outcome.label(), self.parts.settings.config.sha256());
        self.parts.metrics.record_reload(outcome, self.generation);
        held(&self.parts.shown).last_reload = Some(LastReload {
            time: journal::now(),
            outcome: label,
            trigger: trigger.name(),
            error: error.clone(),
            shadowed: shadowed.clone(),
        });
        for told in shadowed.iter().chain(&warnings) {
            tracing::warn!("config reload: {told}");
        }
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
                shadowed,
                warnings,
                problems,
            });
        }
    }
}
