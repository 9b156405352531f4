//! The loop that owns the run: starts the trainer, forwards what is asked of it, drains it.

mod bucket;
mod certificate;
mod ending;
mod journal_lines;
mod mirror;
mod observe;
mod pause;
mod reload;
mod trainer;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use torch_ext::ranks::{Launch, Launcher};

use super::admin::AdminThread;
use super::bucket_wait::BucketWait;
use super::daemon_status::{SharedDaemonStatus, lock as held};
use super::draining::Draining;
use super::events::{CheckpointAnswer, Event, Trigger};
use super::file_work::FileWork;
use super::journal::Journal;
use super::lock::RunLock;
use super::logging::LogHandle;
use super::pauses::Pauses;
use super::pending_reload::Pending;
use super::progress::Progress;
use super::settings::Settings;
use super::systemd::ServiceManager;
use super::train::Train;
use super::transaction::{self, Action, Transaction};
use super::watchdog::Watchdog;
use crate::config::{Change, Source};
use crate::exit::{CliError, ExitCode};
use crate::mirror::Mirror;
use crate::signals::{Signal, StopRequests};
use crate::telemetry::metrics::{RunFile, TrainMetrics};
use crate::trainer::control::{Command, Outcome, Reply, Status, StatusBoard};

/// Longest pause between two looks at status, watchdog and deadline.
pub(super) const TICK: Duration = Duration::from_millis(100);
/// Time that the disk has at the end for what is still to be written.
const LAST_WRITES: Duration = Duration::from_secs(5);
/// Time to give the lease of the mirror back where the start was refused.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What a supervisor is made of.
pub(super) struct Parts<T> {
    pub(super) source: Source,
    pub(super) metrics: TrainMetrics,
    pub(super) log: Option<LogHandle>,
    pub(super) progress: Option<Progress>,
    /// In force.
    pub(super) settings: Settings,
    pub(super) shown: SharedDaemonStatus,
    pub(super) status: StatusBoard,
    pub(super) events: Sender<Event>,
    pub(super) inbox: Receiver<Event>,
    pub(super) admin: AdminThread,
    pub(super) files: FileWork,
    /// Of the run folder; of several ranks, rank 0 alone has it.
    pub(super) lock: Option<Arc<RunLock>>,
    /// This process's place among the ranks.
    pub(super) launch: Launch,
    /// The checkpoint that the run goes on from, and what differs from its config.
    pub(super) from: Option<(u64, Vec<Change>)>,
    /// The copy of the run folder in a store; of several ranks, rank 0 alone keeps it.
    pub(super) mirror: Option<Mirror>,
    /// Which of run folder and mirror it goes on from, and why; until the journal has it.
    pub(super) told: Option<String>,
    /// A SIGHUP came during the start.
    pub(super) hangup: bool,
    pub(super) train: Arc<T>,
}

/// The state of the daemon.
pub(super) struct Supervisor<T> {
    pub(super) parts: Parts<T>,
    /// What is under way, by rules without side effects.
    pub(super) transaction: Transaction,
    /// To the trainer that runs now; closed once it has ended.
    pub(super) commands: Sender<Command>,
    /// What that trainer was built with.
    built_with: Settings,
    /// How the last trainer ended.
    last: Option<Result<Outcome, CliError>>,
    /// Set when the loop is to return.
    pub(super) end: Option<Result<Outcome, CliError>>,
    /// What is known of the reload that is under way.
    pub(super) pending: Option<Pending>,
    /// Reloads of this process.
    pub(super) reloads: u64,
    /// Since when a thread reads the config file.
    pub(super) reading: Option<Instant>,
    /// Step at which the trainer took over the config of the reload under way.
    pub(super) applied_at: Option<u64>,
    /// A reload was asked for meanwhile; the last one wins.
    pub(super) again: Option<Trigger>,
    /// Digest of the file at the last attempt to load it.
    pub(super) attempted: Option<String>,
    pub(super) generation: u64,
    /// None where another rank writes it.
    pub(super) journal: Option<Arc<std::sync::Mutex<Journal>>>,
    pub(super) manager: ServiceManager,
    pub(super) watchdog: Watchdog,
    pub(super) stops: StopRequests,
    pub(super) draining: Option<Draining>,
    began: Instant,
    /// The process that started this one.
    pub(super) parent: u32,
    /// Tries of a start whose bucket does not answer.
    pub(super) bucket_wait: Option<BucketWait>,
    /// What it said at the last of them.
    pub(super) bucket_says: String,
    /// The trainer that runs now has taken its first batch.
    pub(super) ready: bool,
    /// Batches consumed at the last rollback that the journal tells of.
    pub(super) rollback_told: Option<u64>,
    /// Pauses, as asked for and as told.
    pauses: Pauses,
    /// Number of the last failure beside training that the journal tells of.
    pub(super) failure_told: u64,
    /// The first trainer took its first batch: the start is accepted.
    pub(super) accepted: bool,
    pub(super) folder_lost: bool,
    /// A second request to stop: nothing is waited for.
    pub(super) impatient: bool,
}

impl<T: Train> Supervisor<T> {
    pub(super) fn new(parts: Parts<T>) -> Self {
        let (commands, _) = channel();
        let now = Instant::now();
        let config = &parts.settings.config;
        Self {
            transaction: Transaction::FIRST,
            commands,
            built_with: parts.settings.clone(),
            last: None,
            end: None,
            pending: None,
            reloads: 0,
            reading: None,
            applied_at: None,
            again: parts.hangup.then_some(Trigger::Signal),
            attempted: None,
            generation: 0,
            journal: parts.lock.as_ref().map(|lock| {
                Arc::new(std::sync::Mutex::new(Journal::of(
                    &config.run_dir(),
                    lock.held(),
                    parts.metrics.write_failures.of(RunFile::Journal).clone(),
                )))
            }),
            manager: ServiceManager::from_environment(),
            parent: std::os::unix::process::parent_id(),
            watchdog: Watchdog::new(now, Duration::from_secs_f64(config.admin.watchdog_s)),
            stops: StopRequests::default(),
            draining: None,
            began: now,
            bucket_wait: None,
            bucket_says: String::new(),
            ready: false,
            rollback_told: None,
            pauses: Pauses::default(),
            failure_told: 0,
            accepted: false,
            folder_lost: false,
            impatient: false,
            parts,
        }
    }

    /// Runs to the end.
    pub(super) fn run(mut self) -> Result<Outcome, CliError> {
        self.spawn(self.parts.settings.clone());
        let result = self.serve();
        if let Some(progress) = &self.parts.progress {
            progress.show(&self.status());
            progress.clear();
        }
        if let (false, Err(e)) = (self.accepted, &result) {
            tracing::debug!(error = %e.message, "the start was refused");
            if let Some(lock) = self.parts.lock.clone().filter(|_| !self.folder_lost) {
                self.parts.files.run(move || lock.undo());
            }
            self.parts.files.finish(LAST_WRITES);
            if self.parts.from.is_some() && self.is_draining() {
                self.finish_mirror();
            } else {
                self.parts.mirror.iter().for_each(|mirror| mirror.leave(LAST_WORDS));
            }
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
        self.parts.files.finish(LAST_WRITES);
        self.finish_mirror();
        if let Ok(Outcome::Finished { .. }) = &result {
            self.stay_for_scraper();
        }
        result
    }

    fn serve(&mut self) -> Result<Outcome, CliError> {
        loop {
            match self.parts.inbox.recv_timeout(TICK) {
                Ok(event) => self.handle(event),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => unreachable!("the supervisor holds a sender"),
            }
            if self.end.is_none() {
                self.look();
            }
            if let Some(end) = self.end.take() {
                return end;
            }
            if self.draining.as_ref().is_some_and(|d| Instant::now() > d.deadline) {
                return Err(self.grace_over());
            }
        }
    }

    fn handle(&mut self, event: Event) {
        // The trainer may have taken its first batch since the last tick: who has seen its steps must not be told that it is not ready.
        self.look_ready();
        match event {
            Event::Signal(signal @ (Signal::Terminate | Signal::Interrupt), at) => self.asked_to_stop(signal, at),
            // torchrun hands its own end on by whichever signal it got.
            Event::Signal(Signal::Hangup, at) if self.parts.launch.by == Launcher::Torchrun => {
                self.stops.judge(at);
                self.drain("signal");
            }
            Event::Signal(Signal::Hangup, _) if self.parts.launch.rank > 0 => {
                tracing::warn!(
                    "a config is reloaded through rank 0: this signal does nothing on rank {}",
                    self.parts.launch.rank
                );
            }
            Event::Signal(Signal::Hangup, _) => self.reload_unasked(Trigger::Signal),
            Event::Signal(Signal::User1, _) => self.checkpoint(|answer| match answer {
                Ok((path, step)) => tracing::info!(step, path = %path.display(), "checkpoint by signal"),
                Err(e) => tracing::warn!(error = %e, "checkpoint by signal failed"),
            }),
            Event::Quit if self.draining.is_none() => {
                self.stops.judge(Instant::now());
                self.drain("http");
            }
            Event::File(found) => self.file_watched(&found),
            Event::RunFolderLost(reason) => {
                self.folder_lost = true;
                self.end = Some(Err(CliError {
                    code: ExitCode::Io,
                    message: format!("{reason}; the run stops before it writes where another process may"),
                    hint: Some(
                        "its checkpoints are where the folder is now; put it back, or set run.dir to that place, and start again".into(),
                    ),
                }));
            }
            Event::Certificate(found) => self.certificate_changed(found),
            Event::Reload(reply) => self.reload_asked(reply),
            Event::Pause(reply) => self.pause_asked(reply),
            Event::Resume(reply) => self.resume_asked(reply),
            Event::Checkpoint(reply) => self.checkpoint(move |answer| drop(reply.send(answer))),
            Event::Read(number, reading) => self.config_read(number, *reading),
            Event::Reconfigured(answer) => self.reconfigured(answer),
            Event::Saved(answer) => self.saved(answer),
            Event::TrainerEnded(result) => self.trainer_ended(result),
            Event::Quit | Event::Started(_) => {}
        }
    }

    /// Takes in what happens, by the rules, and does what they say.
    pub(super) fn happens(&mut self, event: transaction::Event) {
        for action in self.transaction.on(event) {
            match action {
                Action::Read => self.read_config(),
                Action::Ask(reach) => self.ask(reach),
                Action::Save => self.save(),
                Action::Stop => drop(self.commands.send(Command::Stop)),
                Action::StartNew => {
                    if let Some(settings) = self.new_settings() {
                        self.spawn(settings);
                    }
                }
                Action::StartOld => self.spawn(self.parts.settings.clone()),
                Action::Commit | Action::GiveUp | Action::Same => self.conclude(action),
                Action::Await => self.await_bucket(),
                Action::End => {
                    // One that has not taken its first step is not waited for; it ends by itself once nobody can ask anything of it.
                    self.commands = channel().0;
                    let last = match self.last.take() {
                        // A stop while the bucket is awaited: that it was away is not why the run ends.
                        Some(Err(_)) if self.draining.is_some() && self.bucket_wait.is_some() => Err(self.stopped()),
                        Some(last) => last,
                        None => Err(self.stopped()),
                    };
                    self.end.get_or_insert(last);
                }
            }
        }
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.is_some()
    }

    fn checkpoint(&self, answer: impl FnOnce(CheckpointAnswer) + Send + 'static) {
        if !self.ready || self.is_draining() {
            return answer(Err("not ready".into()));
        }
        // A trainer that has ended drops the command, and that answers it.
        let _ = self.commands.send(Command::Checkpoint { reply: Reply::new(answer) });
    }

    pub(super) fn status(&self) -> Status {
        held(&self.parts.status).clone()
    }
}
