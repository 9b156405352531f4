//! What the supervisor knows beside the trainer's own status, for the admin server to show.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde::Serialize;

use crate::config::Config;
use crate::mirror::SharedMirrorStatus;

/// The last reload, for status and page.
#[derive(Debug, Clone, Serialize)]
pub struct LastReload {
    /// RFC 3339.
    pub time: String,
    /// How it ended.
    pub outcome: &'static str,
    /// What asked for it.
    pub trigger: &'static str,
    /// Why not.
    pub error: Option<String>,
    /// Keys that were edited in the file without effect, because environment or command line set them.
    pub shadowed: Vec<String>,
}

/// Written by the supervisor, read by the admin server.
#[derive(Debug)]
pub struct DaemonStatus {
    /// Config in force.
    pub config: Arc<Config>,
    /// Its digest.
    pub config_sha256: String,
    /// Counts accepted configs of this process, from 1.
    pub generation: u64,
    /// The last reload, if any.
    pub last_reload: Option<LastReload>,
    /// Draining has begun.
    pub draining: bool,
    /// Why the trainer counts as stuck.
    pub stuck: Option<String>,
    /// Why no trainer runs: what the bucket, which does not answer, said last.
    pub waiting: Option<String>,
    /// The copy of the run in a store.
    pub mirror: SharedMirrorStatus,
    /// Start of the process.
    pub started: Instant,
}

impl DaemonStatus {
    /// Before the start is accepted.
    #[must_use]
    pub fn starting(config: Arc<Config>, mirror: SharedMirrorStatus) -> Self {
        Self {
            config_sha256: config.sha256(),
            config,
            generation: 0,
            last_reload: None,
            draining: false,
            stuck: None,
            waiting: None,
            mirror,
            started: Instant::now(),
        }
    }
}

/// Shared by the supervisor and the admin server.
pub type SharedDaemonStatus = Arc<Mutex<DaemonStatus>>;

/// Locks, also after a panic elsewhere: what is shown is replaced as a whole.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
