//! The admin server: one thread with its own runtime, so that it answers while everything else is busy.

mod guard;
mod routes;

use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::Sender;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use prometheus::Registry;
use tokio::runtime::{Handle, Runtime};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::AbortHandle;

use super::board::SharedBoard;
use super::events::Event;
use crate::trainer::control::StatusBoard;

pub use guard::Policy;

/// Connections served at once; more wait in the kernel's queue.
const CONNECTIONS: usize = 32;
/// Time for a client to send its headers, also between two requests of a connection.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// Time that a connection may live.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(900);
/// Bytes of headers; a read may overshoot it once.
const HEADER_BYTES: usize = 64 << 10;

/// What the handlers see.
pub(crate) struct Shared {
    status: StatusBoard,
    board: SharedBoard,
    registry: Registry,
    events: Sender<Event>,
    policy: RwLock<Policy>,
}

impl Shared {
    pub(crate) fn new(status: StatusBoard, board: SharedBoard, registry: Registry, events: Sender<Event>, policy: Policy) -> Arc<Self> {
        Arc::new(Self { status, board, registry, events, policy: RwLock::new(policy) })
    }
}

/// Binds the address of a validated config; empty = `None`.
///
/// # Errors
/// Names key, value and the system's reason.
pub(crate) fn bind(address: &str) -> Result<Option<TcpListener>, String> {
    if address.is_empty() {
        return Ok(None);
    }
    let named = |e: &dyn std::fmt::Display| format!("admin.bind = \"{address}\": {e}");
    let parsed: SocketAddr = address.parse().map_err(|e: std::net::AddrParseError| named(&e))?;
    let listener = TcpListener::bind(parsed).map_err(|e| named(&e))?;
    listener.set_nonblocking(true).map_err(|e| named(&e))?;
    Ok(Some(listener))
}

/// The thread. Dropping it ends the server.
pub(crate) struct AdminThread {
    handle: Handle,
    shared: Arc<Shared>,
    accepting: Option<AbortHandle>,
    _until: oneshot::Sender<()>,
}

impl AdminThread {
    /// Starts the thread; `setup` subscribes what else lives on its runtime.
    ///
    /// # Errors
    /// No runtime, no thread, or `setup` failed.
    pub(crate) fn start(shared: Arc<Shared>, setup: impl FnOnce(&Runtime) -> std::io::Result<()>) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        setup(&runtime)?;
        let handle = runtime.handle().clone();
        let (until, ended) = oneshot::channel();
        std::thread::Builder::new().name("admin".into()).spawn(move || {
            let _ = runtime.block_on(ended);
        })?;
        Ok(Self { handle, shared, accepting: None, _until: until })
    }

    /// Serves on a new address from now on, or nowhere. Connections of the old address are finished.
    pub(crate) fn serve(&mut self, listener: Option<TcpListener>) {
        if let Some(old) = self.accepting.take() {
            old.abort();
        }
        if let Some(listener) = listener {
            let shared = Arc::clone(&self.shared);
            self.accepting = Some(self.handle.spawn(accept(listener, shared)).abort_handle());
        }
    }

    /// Replaces who may post.
    pub(crate) fn set_policy(&self, policy: Policy) {
        *self.shared.policy.write().unwrap_or_else(PoisonError::into_inner) = policy;
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(e) => return tracing::error!(error = %e, "the admin server cannot serve"),
    };
    let router = routes::router(shared);
    let free = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&free).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(e) => {
                // Out of file descriptors or a client that went away: neither may end the server.
                tracing::debug!(error = %e, "accept");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let service = TowerToHyperService::new(router.clone());
        tokio::spawn(async move {
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .max_buf_size(HEADER_BYTES)
                .serve_connection(TokioIo::new(stream), service);
            if let Ok(Err(e)) = tokio::time::timeout(CONNECTION_TIMEOUT, connection).await {
                tracing::trace!(error = %e, "admin connection");
            }
            drop(permit);
        });
    }
}
