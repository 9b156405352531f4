//! The daemon: one trainer, watched over by one supervisor loop that owns every decision.
//!
//! Threads: the caller's runs the supervisor, which neither reads nor writes a file · `signals` takes the signals · `trainer` owns the tensors ·
//! `admin` runs HTTP on its own runtime · `file-reads` reads what it shows of the run folder, and edits the config · `config-watch`, `folder-watch`
//! and `tls-watch` poll the config file, the run folder, and certificate and key · `files` writes journal and accepted configs · `mirror`, `mirror-lease` and `mirror-io` copy the run into a
//! store ([`crate::mirror`]) · `start` and `reading` read the config and end. All of them talk to the supervisor by [`events::Event`]; the daemon names no
//! tensor.

pub mod admin;
mod bucket_wait;
mod changes;
pub mod daemon_status;
mod draining;
mod edit;
pub mod events;
mod file_watch;
mod file_work;
pub mod journal;
mod listen;
pub mod lock;
pub mod logging;
mod pauses;
mod pending_reload;
pub mod policy;
pub mod progress;
mod reading;
mod scrapes;
pub mod settings;
pub mod start;
mod started;
mod supervisor;
pub mod systemd;
pub mod threads;
mod tls;
mod train;
mod transaction;
pub mod watchdog;

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use prometheus::Registry;
use torch_ext::ranks::Launch;

use crate::config::Source;
use crate::exit::CliError;
use crate::mirror::Mirror;
use crate::signals;
use crate::telemetry::metrics::TrainMetrics;
use crate::trainer::control::{Outcome, Status, StatusBoard};
use changes::listed;
use daemon_status::DaemonStatus;
use events::Event;
use started::Started;
pub use train::Train;

/// Pause between two looks whether the run folder is still there.
const FOLDER_WATCH_EVERY: Duration = Duration::from_millis(100);

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
    /// This process's place among the ranks. Rank 0 alone has run folder, journal and reloads; the others show `/metrics` and their health.
    pub launch: Launch,
}

/// Runs until the trainer is done or a signal ends it. From here on signals are heard.
///
/// The trainer's thread may still run when this returns: end the process by [`crate::exit::at_once`].
///
/// # Errors
/// Exit code 64 for a config, run folder or input that was refused (nothing is left behind), 75 for a stop without a last checkpoint; else what
/// the trainer failed with.
pub fn run(args: DaemonArgs, train: impl Train) -> Result<Outcome, CliError> {
    let (events, inbox) = channel();
    let heard = events.clone();
    signals::listen(move |signal| drop(heard.send(Event::Signal(signal, Instant::now()))))
        .map_err(|e| CliError::internal("signals cannot be heard", &e))?;
    let (started, hangup) = start::begin(&args.source, &args.metrics, &args.launch, &events, &inbox)?;
    let Started {
        settings,
        file_sha256,
        policy,
        lock,
        listener,
        from,
        mirror,
        told,
        tls,
    } = started;
    let config = Arc::clone(&settings.config);
    if let Some(log) = &args.log {
        log.set(&config.log.filter);
    }
    let status: StatusBoard = Arc::new(Mutex::new(Status::default()));
    let mirrored = mirror.as_ref().map(Mirror::status).unwrap_or_default();
    let shown = Arc::new(Mutex::new(DaemonStatus::starting(Arc::clone(&config), mirrored)));
    let editor = edit::Editor::new(args.source.clone(), Arc::clone(&settings.shadowed), args.launch.world);
    let threads = admin::Shared::new(
        Arc::clone(&status),
        Arc::clone(&shown),
        args.registry,
        events.clone(),
        policy,
        args.launch.rank,
        editor,
    )
    .and_then(admin::AdminThread::start)
    .and_then(|admin| Ok((admin, file_work::FileWork::start()?)));
    let (mut admin, files) = threads.map_err(|e| {
        lock.iter().for_each(|lock| lock.undo());
        CliError::internal("a thread of the daemon could not be started", &e)
    })?;
    let address = listener.as_ref().and_then(|l| l.local_addr().ok());
    admin.set_tls(tls);
    args.metrics.tls_last_load_successful.set(1.0);
    admin.serve(listener);
    if let Some(address) = address {
        tracing::info!(address = %address, lifecycle = config.admin.lifecycle, "admin page at {}", config.admin.url(address));
    }
    if let Some((step, changes)) = &from {
        tracing::info!(step, changes = %listed(changes), "going on from the checkpoint at step {step}");
    }
    let (_stop_tls, tls_stopped) = channel();
    let (followed, renewed) = (Arc::clone(&shown), events.clone());
    let follow = move || tls::follow(&followed, &tls_stopped, |found| drop(renewed.send(Event::Certificate(found))));
    if let Err(e) = std::thread::Builder::new().name("tls-watch".into()).spawn(follow) {
        tracing::warn!(error = %e, "a renewed certificate is not noticed; SIGHUP and POST /-/reload read it");
    }
    // Dropped at the end, which ends the threads; one that hangs is not waited for.
    let _watches = lock
        .as_ref()
        .map(|lock| watch(&args.source, file_sha256, args.watch_every, lock, &events));
    supervisor::Supervisor::new(supervisor::Parts {
        source: args.source,
        metrics: args.metrics,
        log: args.log,
        progress: args.progress,
        settings,
        shown,
        status,
        events,
        inbox,
        admin,
        files,
        lock,
        launch: args.launch,
        from,
        mirror,
        told,
        hangup,
        train: Arc::new(train),
    })
    .run()
}

/// Starts the threads that look at files again and again.
fn watch(source: &Source, file_sha256: String, every: Duration, lock: &Arc<lock::RunLock>, events: &Sender<Event>) -> [Sender<()>; 2] {
    let (stop_config, config_stopped) = channel();
    let (watched, changed) = (file_watch::ContentWatch::new(source.file.clone(), file_sha256), events.clone());
    let follow = move || {
        file_watch::follow(watched, every, &config_stopped, |found| {
            let _ = changed.send(Event::File(found));
        });
    };
    if let Err(e) = std::thread::Builder::new().name("config-watch".into()).spawn(follow) {
        tracing::warn!(error = %e, "the config file is not watched; SIGHUP and POST /-/reload still work");
    }
    let (stop_folder, folder_stopped) = channel::<()>();
    let (lock, lost) = (Arc::clone(lock), events.clone());
    let look = move || {
        while folder_stopped.recv_timeout(FOLDER_WATCH_EVERY) == Err(RecvTimeoutError::Timeout) {
            if let Some(reason) = lock.held().lost() {
                let _ = lost.send(Event::RunFolderLost(reason));
                return;
            }
        }
    };
    if let Err(e) = std::thread::Builder::new().name("folder-watch".into()).spawn(look) {
        tracing::warn!(error = %e, "nobody notices if the run folder is renamed or deleted");
    }
    [stop_config, stop_folder]
}
