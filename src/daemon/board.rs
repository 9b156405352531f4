//! What the supervisor lets the admin server show.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde::Serialize;

use crate::config::Config;

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
}

/// Written by the supervisor, read by the admin server.
#[derive(Debug)]
pub struct Board {
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
    /// Start of the process.
    pub started: Instant,
}

/// Shared board.
pub type SharedBoard = Arc<Mutex<Board>>;

/// Locks, also after a panic elsewhere: what is shown is replaced as a whole.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
