//! The admin server: one thread with its own runtime, so that it answers while everything else is busy.

mod acts;
mod connections;
mod file_reads;
mod guard;
mod history;
mod new_lines;
mod page;
mod pipeline;
mod probes;
mod refusal;
mod routes;
mod run_data;
mod run_events;
mod shared;
mod status;

use std::net::TcpListener;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use super::policy::Policy;
use super::scrapes::Scrapes;
use super::tls::Identity;

pub(crate) use shared::Shared;

/// The thread. Dropping it ends the server.
pub(crate) struct AdminThread {
    handle: Handle,
    shared: Arc<Shared>,
    accepting: Option<AbortHandle>,
    _until: oneshot::Sender<()>,
}

impl AdminThread {
    /// Starts the thread.
    ///
    /// # Errors
    /// No runtime or no thread.
    pub(crate) fn start(shared: Arc<Shared>) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (until, ended) = oneshot::channel();
        std::thread::Builder::new().name("admin".into()).spawn(move || {
            let _ = runtime.block_on(ended);
        })?;
        Ok(Self {
            handle,
            shared,
            accepting: None,
            _until: until,
        })
    }

    /// Serves on a new address from now on, or nowhere. Connections of the old address are finished.
    pub(crate) fn serve(&mut self, listener: Option<TcpListener>) {
        if let Some(old) = self.accepting.take() {
            old.abort();
        }
        if let Some(listener) = listener {
            let shared = Arc::clone(&self.shared);
            self.accepting = Some(
                self.handle
                    .spawn(connections::accept(listener, Arc::clone(&shared), routes::router(shared)))
                    .abort_handle(),
            );
        }
    }

    /// When `/metrics` was read.
    pub(crate) fn scrapes(&self) -> &Mutex<Scrapes> {
        &self.shared.scrapes
    }

    /// Replaces what connections are served with from the next one on.
    pub(crate) fn set_tls(&self, identity: Option<Identity>) {
        *self.shared.tls.write().unwrap_or_else(PoisonError::into_inner) = identity;
    }

    /// What they are served with.
    pub(crate) fn tls(&self) -> Option<Identity> {
        self.shared.tls.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces who may post.
    pub(crate) fn set_policy(&self, policy: Policy) {
        *self.shared.policy.write().unwrap_or_else(PoisonError::into_inner) = policy;
    }
}
