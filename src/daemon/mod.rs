//! The daemon: one trainer, watched over by one supervisor loop that owns every decision.
//!
//! Threads: the caller's runs the supervisor · `trainer` owns the tensors · `admin` runs signals and HTTP on its own runtime · `watch`
//! polls the config file. All of them talk to the supervisor by [`events::Event`]; the daemon names no tensor.

pub mod admin;
pub mod board;
pub mod events;
pub mod journal;
pub mod lock;
pub mod logging;
pub mod progress;
mod reload;
mod signals;
mod stack_scan;
pub mod start;
mod supervisor;
pub mod systemd;
pub mod threads;
pub mod watch;
pub mod watchdog;

use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use prometheus::Registry;

use crate::config::{Loaded, Source};
use crate::error::{CliError, ExitCode};
use crate::telemetry::metrics::TrainMetrics;
use crate::trainer::control::{Command, Outcome, Status, StatusBoard};
use crate::trainer::spec::TrainerSpec;

/// What a daemon is started with.
pub struct DaemonArgs {
    /// Where the config comes from; read again at each reload.
    pub source: Source,
    /// The inventory, registered in `registry`.
    pub metrics: TrainMetrics,
    /// What `/metrics` renders.
    pub registry: Registry,
    /// The log whose filter follows the config.
    pub log: Option<logging::LogHandle>,
    /// The line on the terminal.
    pub progress: Option<progress::Progress>,
    /// Pause between two looks at the config file.
    pub watch_every: Duration,
}

/// A trainer as the daemon sees it: blocks until done, obeys commands, keeps the status board; `splitmask::trainer::run` or a fake one.
pub trait Train: Fn(TrainerSpec, Receiver<Command>, StatusBoard) -> Result<Outcome, CliError> + Send + Sync + 'static {}

impl<F: Fn(TrainerSpec, Receiver<Command>, StatusBoard) -> Result<Outcome, CliError> + Send + Sync + 'static> Train for F {}

/// Runs until the trainer is done or a signal ends it.
///
/// # Errors
/// Exit code 64 for a config, run folder or input that was refused (nothing is left behind); else what the trainer failed with.
pub fn run(args: DaemonArgs, train: impl Train) -> Result<Outcome, CliError> {
    let loaded = args.source.load().map_err(|e| start::refused(e, &args.source))?;
    start(args, loaded, Arc::new(train))
}

fn start(args: DaemonArgs, loaded: Loaded, train: Arc<impl Train>) -> Result<Outcome, CliError> {
    let Loaded { config, file_sha256, .. } = loaded;
    let config = Arc::new(config);
    let policy = admin::Policy::of(&config.admin).map_err(|message| CliError::usage(message, None))?;
    let run_dir = config.run_dir();
    let from = start::against_checkpoint(&config)?;
    let mut lock = lock::RunLock::take(&run_dir)?;
    let listener = match admin::bind(&config.admin.bind) {
        Ok(listener) => listener,
        Err(message) => {
            lock.undo();
            return Err(CliError::usage(message, "choose another admin.bind, or \"\" for none".to_owned()));
        }
    };
    let address = listener.as_ref().and_then(|l| l.local_addr().ok());
    if let Err(e) = lock.describe(address) {
        lock.undo();
        return Err(CliError::io(format!("{}: {e}", run_dir.display())));
    }
    if let Some(log) = &args.log {
        log.set(&config.log.filter);
    }
    let (events, inbox) = channel();
    let status: StatusBoard = Arc::new(Mutex::new(Status::default()));
    let board = Arc::new(Mutex::new(board::Board {
        config_sha256: config.sha256(),
        config: Arc::clone(&config),
        generation: 0,
        last_reload: None,
        draining: false,
        stuck: None,
        started: Instant::now(),
    }));
    let shared = admin::Shared::new(Arc::clone(&status), Arc::clone(&board), args.registry, events.clone(), policy);
    let admin = admin::AdminThread::start(shared, |runtime| signals::subscribe(runtime, &events));
    let mut admin = match admin {
        Ok(admin) => admin,
        Err(e) => {
            lock.undo();
            return Err(CliError {
                code: ExitCode::Internal,
                message: format!("the admin thread could not be started: {e}"),
                hint: None,
            });
        }
    };
    admin.serve(listener);
    if let Some(address) = address {
        tracing::info!(address = %address, lifecycle = config.admin.lifecycle, "admin page at http://{address}/");
    }
    if let Some((step, changes)) = &from {
        tracing::info!(step, changes = %start::listed(changes), "going on from the checkpoint at step {step}");
    }

    let (stop_watch, stopped) = channel();
    let watched = watch::ContentWatch::new(args.source.file.clone(), file_sha256);
    let changed = events.clone();
    let every = args.watch_every;
    let watcher = std::thread::Builder::new().name("watch".into()).spawn(move || {
        watch::follow(watched, every, &stopped, |digest| {
            let _ = changed.send(events::Event::FileChanged(digest));
        });
    });
    if let Err(e) = &watcher {
        tracing::warn!(error = %e, "the config file is not watched; SIGHUP and POST /-/reload still work");
    }

    let supervisor = supervisor::Supervisor::new(supervisor::Parts {
        source: args.source,
        metrics: args.metrics,
        log: args.log,
        progress: args.progress,
        config,
        board,
        status,
        events,
        inbox,
        admin,
        lock,
        changes_at_start: from.map(|(_, changes)| changes).unwrap_or_default(),
        train,
    });
    let result = supervisor.run();
    drop(stop_watch);
    if let Ok(watcher) = watcher {
        let _ = watcher.join();
    }
    result
}
