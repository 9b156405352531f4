//! What the mirror does, for the status page and its JSON.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

/// What the mirror's thread is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum MirrorState {
    /// No mirror is configured.
    #[default]
    Off,
    /// Asking the store who holds the mirror and what it has.
    Opening,
    /// Bringing a checkpoint to this machine.
    Fetching,
    /// Everything is there.
    Current,
    /// Uploading.
    Uploading,
    /// The last try failed; it is made again.
    Retrying,
    /// Nothing is uploaded any more: somebody else holds the mirror, or it holds what this process does not know.
    Barred,
}

/// A transfer under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Transfer {
    /// Of the checkpoint of this step.
    pub step: u64,
    /// Bytes that went.
    pub bytes: u64,
    /// Bytes in all.
    pub of: u64,
}

/// Snapshot for `/api/v1/status` and the page.
#[derive(Debug, Clone, PartialEq, Serialize, Default)]
pub struct MirrorStatus {
    /// Where it is, without secrets; empty = none.
    pub address: String,
    /// What is being done.
    pub state: MirrorState,
    /// Newest checkpoint that the mirror holds whole.
    pub step: Option<u64>,
    /// Newest complete checkpoint in the run folder.
    pub local_step: Option<u64>,
    /// When the mirror's newest was written on this machine, in seconds since 1970; none before the first by this process.
    pub newest_unix_seconds: Option<f64>,
    /// What is on its way.
    pub transfer: Option<Transfer>,
    /// Checkpoints that this process uploaded whole.
    pub uploads: u64,
    /// Tries that failed.
    pub failures: u64,
    /// Why the last one did, until one succeeds.
    pub last_error: Option<String>,
    /// Until when this process holds the mirror, if nothing more comes; RFC 3339.
    pub lease_until: Option<String>,
}

/// Written by the mirror's threads, read by the admin server.
pub type SharedMirrorStatus = Arc<Mutex<MirrorStatus>>;

/// Holds the status for a moment; whoever panicked with it in hand left whole values.
pub(super) fn held(status: &SharedMirrorStatus) -> MutexGuard<'_, MirrorStatus> {
    status.lock().unwrap_or_else(PoisonError::into_inner)
}
