//! What the handlers see.

use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, RwLock};

use prometheus::Registry;

use crate::daemon::daemon_status::SharedDaemonStatus;
use crate::daemon::events::Event;
use crate::daemon::policy::Policy;
use crate::daemon::scrapes::Scrapes;
use crate::trainer::control::StatusBoard;

/// What the handlers see.
pub(crate) struct Shared {
    pub(super) status: StatusBoard,
    pub(super) shown: SharedDaemonStatus,
    pub(super) registry: Registry,
    pub(super) events: Sender<Event>,
    pub(super) policy: RwLock<Policy>,
    pub(super) scrapes: Mutex<Scrapes>,
    /// This process's number among the ranks.
    pub(super) rank: usize,
}

impl Shared {
    pub(crate) fn new(
        status: StatusBoard,
        shown: SharedDaemonStatus,
        registry: Registry,
        events: Sender<Event>,
        policy: Policy,
        rank: usize,
    ) -> Arc<Self> {
        Arc::new(Self {
            status,
            shown,
            registry,
            events,
            policy: RwLock::new(policy),
            scrapes: Mutex::default(),
            rank,
        })
    }
}
