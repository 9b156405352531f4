//! What the handlers see.

use std::path::PathBuf;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, RwLock};

use axum::extract::State;
use prometheus::Registry;

use super::file_reads::FileReads;
use super::history::History;
use super::pipeline::PipelineRates;
use super::run_events::RunEvents;
use crate::config::Config;
use crate::daemon::daemon_status::{SharedDaemonStatus, lock};
use crate::daemon::edit::Editor;
use crate::daemon::events::Event;
use crate::daemon::policy::Policy;
use crate::daemon::scrapes::Scrapes;
use crate::daemon::tls::Identity;
use crate::trainer::control::StatusBoard;

/// Bytes of a request's body: the text of a config, with room.
pub(super) const BODY_BYTES: usize = 64 << 10;

/// State of the handlers.
pub(super) type Seen = State<Arc<Shared>>;

/// What the handlers see.
pub(crate) struct Shared {
    pub(super) status: StatusBoard,
    pub(super) shown: SharedDaemonStatus,
    pub(super) registry: Registry,
    pub(super) events: Sender<Event>,
    pub(super) policy: RwLock<Policy>,
    /// What the next connection is served with; none = plain HTTP.
    pub(super) tls: RwLock<Option<Identity>>,
    pub(super) scrapes: Mutex<Scrapes>,
    /// This process's number among the ranks.
    pub(super) rank: usize,
    pub(super) pipeline: Mutex<PipelineRates>,
    pub(super) reads: FileReads,
    /// Locked by the thread of [`FileReads`] only.
    pub(super) files: Arc<Mutex<RunFiles>>,
    pub(super) editor: Editor,
}

/// What was read of the run folder, which is the same for the life of a run.
pub(super) struct RunFiles {
    pub(super) run_dir: PathBuf,
    pub(super) history: History,
    /// The history of one earlier run, by its name.
    pub(super) earlier: Option<(String, History)>,
    pub(super) events: RunEvents,
}

impl Shared {
    /// Starts the thread that reads files.
    ///
    /// # Errors
    /// There can be no thread.
    pub(crate) fn new(
        status: StatusBoard,
        shown: SharedDaemonStatus,
        registry: Registry,
        events: Sender<Event>,
        policy: Policy,
        rank: usize,
        editor: Editor,
    ) -> std::io::Result<Arc<Self>> {
        let run_dir = lock(&shown).config.run_dir();
        Ok(Arc::new(Self {
            status,
            shown,
            registry,
            events,
            policy: RwLock::new(policy),
            tls: RwLock::default(),
            scrapes: Mutex::default(),
            rank,
            pipeline: Mutex::default(),
            reads: FileReads::start()?,
            files: Arc::new(Mutex::new(RunFiles {
                history: History::of(run_dir.join("metrics.jsonl")),
                earlier: None,
                events: RunEvents::of(run_dir.clone()),
                run_dir,
            })),
            editor,
        }))
    }

    /// The config in force.
    pub(super) fn config(&self) -> Arc<Config> {
        Arc::clone(&lock(&self.shown).config)
    }
}
