//! The loop that owns the run: starts the trainer, forwards what is asked of it, drains it.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use super::admin::AdminThread;
use super::board::{SharedBoard, lock as held};
use super::events::{CheckpointAnswer, Event, Notice, Trigger};
use super::journal::{self, Entry, Journal};
use super::lock::RunLock;
use super::logging::LogHandle;
use super::progress::{self, Progress};
use super::reload::Pending;
use super::systemd::ServiceManager;
use super::watchdog::Watchdog;
use super::{Train, start, threads};
use crate::config::{Change, Config, Source};
use crate::error::{CliError, ExitCode};
use crate::telemetry::metrics::{ReloadOutcome, RunFile, TrainMetrics, unix_seconds};
use crate::trainer::control::{Command, Outcome, Status, StatusBoard};

/// Longest pause between two looks at status, watchdog and deadline.
const TICK: Duration = Duration::from_millis(100);

/// What a supervisor is made of.
pub(super) struct Parts<T> {
    pub(super) source: Source,
    pub(super) metrics: TrainMetrics,
    pub(super) log: Option<LogHandle>,
    pub(super) progress: Option<Progress>,
    pub(super) config: Arc<Config>,
    pub(super) board: SharedBoard,
    pub(super) status: StatusBoard,
    pub(super) events: Sender<Event>,
    pub(super) inbox: Receiver<Event>,
    pub(super) admin: AdminThread,
    pub(super) lock: RunLock,
    pub(super) changes_at_start: Vec<Change>,
    pub(super) train: Arc<T>,
}

struct Draining {
    deadline: Instant,
    why: &'static str,
}

/// The state of the daemon.
pub(super) struct Supervisor<T> {
    pub(super) parts: Parts<T>,
    /// To the trainer that runs now; closed once it has ended.
    pub(super) commands: Sender<Command>,
    /// The reload that is under way.
    pub(super) pending: Option<Pending>,
    /// A reload was asked for meanwhile; the last one wins.
    pub(super) again: Option<Trigger>,
    /// Digest of the file at the last attempt to load it.
    pub(super) attempted: Option<String>,
    pub(super) generation: u64,
    pub(super) journal: Journal,
    pub(super) manager: ServiceManager,
    watchdog: Watchdog,
    draining: Option<Draining>,
    /// Batches consumed at the last rollback that the journal tells of.
    rollback_told: Option<u64>,
    /// Number of the last failure beside training that the journal tells of.
    failure_told: u64,
    /// The first trainer took its first batch: the start is accepted.
    accepted: bool,
}

impl<T: Train> Supervisor<T> {
    pub(super) fn new(parts: Parts<T>) -> Self {
        let (commands, _) = channel();
        let watchdog = Watchdog::new(Instant::now(), Duration::from_secs_f64(parts.config.admin.watchdog_s));
        Self {
            journal: Journal::of(&parts.config.run_dir(), parts.metrics.write_failures.of(RunFile::Journal).clone()),
            parts,
            commands,
            pending: None,
            again: None,
            attempted: None,
            generation: 0,
            manager: ServiceManager::from_environment(),
            watchdog,
            draining: None,
            rollback_told: None,
            failure_told: 0,
            accepted: false,
        }
    }

    /// Runs to the end.
    pub(super) fn run(mut self) -> Result<Outcome, CliError> {
        let config = Arc::clone(&self.parts.config);
        let result = self.spawn(&config).and_then(|()| self.serve());
        if let Some(progress) = &self.parts.progress {
            progress.show(&self.status());
            progress.clear();
        }
        if !self.accepted
            && let Err(e) = &result
        {
            tracing::debug!(error = %e.message, "the start was refused");
            self.parts.lock.undo();
            return result;
        }
        let (outcome, error) = match &result {
            Ok(Outcome::Finished { .. }) => ("finished", None),
            Ok(Outcome::Stopped { .. }) => ("stopped", None),
            Err(e) => ("failed", Some(e.message.as_str())),
        };
        let why = self.draining.as_ref().map_or("trainer", |d| d.why);
        self.note("stop", why, outcome, &[], error);
        match error {
            None => tracing::info!(step = self.status().step, outcome, "the run ends"),
            Some(error) => tracing::error!(step = self.status().step, outcome, error, "the run ends"),
        }
        result
    }

    fn serve(&mut self) -> Result<Outcome, CliError> {
        loop {
            match self.parts.inbox.recv_timeout(TICK) {
                Ok(Event::TrainerEnded(result)) => {
                    if let Some(end) = self.trainer_ended(result) {
                        return end;
                    }
                }
                Ok(Event::Notice(Notice::Terminate)) if self.draining.is_some() => {
                    return Err(CliError {
                        code: ExitCode::Stopped,
                        message: "second signal: stopped at once; the run goes on from its last checkpoint".into(),
                        hint: None,
                    });
                }
                Ok(event) => self.handle(event),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => unreachable!("the supervisor holds a sender"),
            }
            self.look();
            if self.draining.as_ref().is_some_and(|d| Instant::now() > d.deadline) {
                let grace = self.parts.config.admin.grace_s;
                return Err(CliError {
                    code: ExitCode::Stopped,
                    message: format!("admin.grace_s = {grace} ran out before the last checkpoint; the run goes on from the one before"),
                    hint: Some("raise admin.grace_s, or checkpoint.every_steps less far apart".into()),
                });
            }
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Notice(Notice::Terminate) => self.drain("signal"),
            Event::Quit => self.drain("http"),
            Event::Notice(Notice::Hangup) => self.reload_unasked(Trigger::Signal),
            Event::FileChanged(digest) => {
                if self.parts.config.admin.watch && self.attempted.as_ref() != Some(&digest) {
                    self.reload_unasked(Trigger::File);
                }
            }
            Event::Reload(reply) => self.reload_asked(reply),
            Event::Notice(Notice::Checkpoint) => self.checkpoint(|answer| match answer {
                Ok((path, step)) => tracing::info!(step, path = %path.display(), "checkpoint by signal"),
                Err(e) => tracing::warn!(error = %e, "checkpoint by signal failed"),
            }),
            Event::Checkpoint(reply) => self.checkpoint(move |answer| {
                let _ = reply.send(answer);
            }),
            Event::Reconfigured(answer) => self.reconfigured(answer),
            Event::TrainerEnded(_) => unreachable!("handled by the loop"),
        }
    }

    /// Starts a trainer thread. Its last act is [`Event::TrainerEnded`].
    pub(super) fn spawn(&mut self, config: &Config) -> Result<(), CliError> {
        {
            let mut status = held(&self.parts.status);
            let history = std::mem::take(&mut status.history);
            *status = Status {
                history,
                step: status.step,
                total_steps: config.optim.total_steps,
                ..Status::default()
            };
        }
        let (commands, inbox) = channel();
        self.commands = commands;
        let spec = config.trainer_spec();
        let (train, status, events) = (
            Arc::clone(&self.parts.train),
            Arc::clone(&self.parts.status),
            self.parts.events.clone(),
        );
        let body = move || {
            let result = std::panic::catch_unwind(AssertUnwindSafe(|| train(spec, inbox, status)));
            let result = result.unwrap_or_else(|panic| {
                let text = panic
                    .downcast_ref::<String>()
                    .map(String::as_str)
                    .or_else(|| panic.downcast_ref::<&str>().copied())
                    .unwrap_or("no message");
                Err(CliError {
                    code: ExitCode::Internal,
                    message: format!("the trainer panicked: {text}"),
                    hint: Some("this is a bug; the log holds the place".into()),
                })
            });
            let _ = events.send(Event::TrainerEnded(result));
        };
        let thread = std::thread::Builder::new().name("trainer".into()).stack_size(16 << 20).spawn(body);
        thread.map(drop).map_err(|e| CliError {
            code: ExitCode::Internal,
            message: format!("no trainer thread: {e}"),
            hint: None,
        })
    }

    /// Answers how the daemon ends, or `None` when another trainer was started.
    fn trainer_ended(&mut self, result: Result<Outcome, CliError>) -> Option<Result<Outcome, CliError>> {
        let draining = self.draining.is_some();
        let end = self.trainer_ended_in_reload(result, draining)?;
        if let Ok(Outcome::Finished { .. }) = &end {
            self.accept();
        }
        Some(end)
    }

    fn look(&mut self) {
        let status = self.status();
        if status.ready && !self.accepted {
            self.accept();
        }
        self.reload_progress(status.ready);
        self.tell_rollback(&status);
        self.tell_failures(&status);
        self.journal.catch_up();
        self.watchdog.set_floor(Duration::from_secs_f64(self.parts.config.admin.watchdog_s));
        let stuck = self.watchdog.look(&status, Instant::now());
        let before = std::mem::replace(&mut held(&self.parts.board).stuck, stuck.clone());
        if let Some(reason) = stuck.as_ref().filter(|_| before.is_none()) {
            match threads::write(&self.parts.config.run_dir(), reason, &status) {
                Ok(file) => tracing::error!(reason, threads = %file.display(), "watchdog: the trainer is stuck"),
                Err(error) => tracing::error!(reason, %error, "watchdog: the trainer is stuck; {}", threads::report()),
            }
            self.note("stuck", "watchdog", "failed", &[], Some(reason));
        }
        self.manager.tick(stuck.is_none(), || {
            format!("step {}/{} · {}", status.step, status.total_steps, progress::line(&status))
        });
        if let Some(progress) = &self.parts.progress {
            progress.show(&status);
        }
        if self.accepted
            && self.pending.is_none()
            && self.draining.is_none()
            && let Some(trigger) = self.again.take()
        {
            self.reload_unasked(trigger);
        }
    }

    fn tell_rollback(&mut self, status: &Status) {
        if let Some(rollback) = &status.last_rollback
            && self.rollback_told.replace(rollback.consumed) != Some(rollback.consumed)
        {
            let what = format!(
                "{}: from step {} to the checkpoint at step {}, images {} to {} are left out",
                rollback.reason,
                rollback.from_step,
                rollback.to_step,
                rollback.skipped_from.samples(),
                rollback.skipped_to.samples()
            );
            self.note("rollback", "trainer", "applied", &[], Some(&what));
        }
    }

    /// Evaluations, pictures and the like that failed, while training went on.
    fn tell_failures(&mut self, status: &Status) {
        let last = status.side_failures.last().map_or(0, |failure| failure.number);
        // A trainer that was rebuilt counts anew.
        if last < self.failure_told {
            self.failure_told = 0;
        }
        let told = std::mem::replace(&mut self.failure_told, last);
        for failure in status.side_failures.iter().filter(|failure| failure.number > told) {
            self.note("side failure", failure.task, "failed", &[], Some(&failure.error));
        }
    }

    /// The config of the start is in force.
    fn accept(&mut self) {
        if std::mem::replace(&mut self.accepted, true) {
            return;
        }
        self.in_force();
        // The start is no reload: `_reloads_total` counts what came after it.
        self.parts.metrics.config_generation.set(self.generation as f64);
        self.parts.metrics.config_last_reload_success_timestamp.set(unix_seconds());
        let changes = std::mem::take(&mut self.parts.changes_at_start);
        self.note("start", "start", ReloadOutcome::Applied.label(), &changes, None);
        tracing::info!(
            outcome = "applied", trigger = "start", step = self.status().step, sha256 = %self.parts.config.sha256(),
            changes = %start::listed(&changes), "config loaded"
        );
        self.manager.ready();
    }

    /// Makes the current config known as accepted.
    pub(super) fn in_force(&mut self) {
        self.generation += 1;
        journal::keep_last_good(&self.parts.config.run_dir(), &self.parts.config.to_toml());
        let mut board = held(&self.parts.board);
        board.generation = self.generation;
        board.config_sha256 = self.parts.config.sha256();
        board.config = Arc::clone(&self.parts.config);
    }

    pub(super) fn is_ready(&self) -> bool {
        self.accepted && self.draining.is_none()
    }

    pub(super) fn status(&self) -> Status {
        held(&self.parts.status).clone()
    }

    pub(super) fn note(&mut self, event: &str, trigger: &str, outcome: &str, changes: &[Change], error: Option<&str>) {
        let sha256 = self.parts.config.sha256();
        let step = self.status().step;
        self.journal.append(&Entry {
            time: journal::now(),
            event,
            trigger,
            step,
            sha256: &sha256,
            outcome,
            changes,
            error,
        });
    }

    fn drain(&mut self, why: &'static str) {
        if self.draining.is_some() {
            return;
        }
        let grace = Duration::from_secs_f64(self.parts.config.admin.grace_s);
        tracing::info!(
            grace_s = grace.as_secs_f64(),
            why,
            "draining: the step is finished, a checkpoint written"
        );
        held(&self.parts.board).draining = true;
        self.manager.stopping(grace);
        self.draining = Some(Draining {
            deadline: Instant::now() + grace,
            why,
        });
        // A trainer that has ended already needs no command; its end is on its way.
        let _ = self.commands.send(Command::Stop);
    }

    fn checkpoint(&self, answer: impl FnOnce(CheckpointAnswer) + Send + 'static) {
        if !self.is_ready() {
            return answer(Err("not ready".into()));
        }
        let (reply, answered) = channel();
        if self.commands.send(Command::Checkpoint { reply }).is_err() {
            return answer(Err("the trainer has ended".into()));
        }
        let wait = move || {
            answer(
                answered
                    .recv()
                    .unwrap_or_else(|_| Err("the trainer ended before it answered".into())),
            );
        };
        if let Err(e) = std::thread::Builder::new().name("answer".into()).spawn(wait) {
            tracing::warn!(error = %e, "no thread to wait for the checkpoint");
        }
    }
}
