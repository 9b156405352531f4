//! What a start has made.

use std::net::TcpListener;
use std::sync::Arc;

use super::lock::RunLock;
use super::policy::Policy;
use super::settings::Settings;
use super::tls::Identity;
use crate::config::Change;
use crate::mirror::Mirror;

/// What the supervisor takes over.
#[derive(Debug)]
pub struct Started {
    pub(super) settings: Settings,
    /// Digest of the config file.
    pub(super) file_sha256: String,
    pub(super) policy: Policy,
    /// Of the run folder; of several ranks, rank 0 alone has it.
    pub(super) lock: Option<Arc<RunLock>>,
    pub(super) listener: Option<TcpListener>,
    /// The checkpoint that the run goes on from, and what differs from its config.
    pub(super) from: Option<(u64, Vec<Change>)>,
    /// The copy of the run folder in a store; of several ranks, rank 0 alone keeps it.
    pub(super) mirror: Option<Mirror>,
    /// What the admin server is served with, where it speaks TLS.
    pub(super) tls: Option<Identity>,
    /// Which of run folder and mirror it goes on from, and why.
    pub(super) told: Option<String>,
}
