//! Accepts connections and sees to it that nobody keeps the others out: a client that does nothing makes room for one that comes.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::TcpListener;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

use super::refusal::refusal;
use super::shared::Shared;

/// Connections open at once.
const MOST: usize = 256;
/// A connection without a request under way makes room for another after this time without one.
const IDLE: Duration = Duration::from_millis(500);
/// Time for a client to send its headers, also between two requests of a connection; and for its TLS handshake.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for which a client may not read what is sent to it.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// Time that a connection may live.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(900);
/// Bytes of headers; a read may overshoot it once.
const HEADER_BYTES: usize = 64 << 10;

/// What a connection does.
#[derive(Debug, Default)]
struct Activity {
    /// Requests whose answer is being made.
    running: AtomicUsize,
    /// Last beginning or end of a request, or the connection's own; milliseconds since the server began.
    last: AtomicU64,
}

fn milliseconds() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    u64::try_from(START.get_or_init(Instant::now).elapsed().as_millis()).unwrap_or(u64::MAX)
}

impl Activity {
    fn begin(self: &Arc<Self>) -> Running {
        self.running.fetch_add(1, Ordering::Relaxed);
        self.last.store(milliseconds(), Ordering::Relaxed);
        Running(Arc::clone(self))
    }

    /// Time for which it has done nothing; none while an answer is being made.
    fn idle(&self) -> Option<Duration> {
        (self.running.load(Ordering::Relaxed) == 0)
            .then(|| Duration::from_millis(milliseconds().saturating_sub(self.last.load(Ordering::Relaxed))))
    }
}

/// A request under way; its end is its drop.
struct Running(Arc<Activity>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.last.store(milliseconds(), Ordering::Relaxed);
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The connections that are open.
#[derive(Default)]
struct Connections {
    tasks: JoinSet<()>,
    open: HashMap<Id, (Arc<Activity>, AbortHandle)>,
}

impl Connections {
    fn forget_ended(&mut self) {
        while let Some(ended) = self.tasks.try_join_next_with_id() {
            self.forget(ended);
        }
    }

    fn forget(&mut self, ended: Result<(Id, ()), JoinError>) {
        self.open.remove(&ended.map_or_else(|e| e.id(), |(id, ())| id));
    }

    /// Closes the connection that has been idle longest. Answers how long to wait before one may be closed, if none may.
    fn make_room(&mut self) -> Option<Duration> {
        let idle = self.open.iter().filter_map(|(id, (activity, _))| Some((activity.idle()?, *id)));
        let Some((idle, id)) = idle.max_by_key(|(idle, _)| *idle) else {
            return Some(IDLE);
        };
        if idle < IDLE {
            return Some(IDLE - idle);
        }
        if let Some((_, task)) = self.open.remove(&id) {
            task.abort();
        }
        None
    }

    fn serve(&mut self, stream: TcpStream, tls: Option<Arc<ServerConfig>>, router: Router) {
        let activity = Arc::new(Activity::default());
        activity.last.store(milliseconds(), Ordering::Relaxed);
        let task = self.tasks.spawn(serve(stream, tls, router, Arc::clone(&activity)));
        self.open.insert(task.id(), (activity, task));
    }
}

impl Drop for Connections {
    fn drop(&mut self) {
        // When the server moves to another address, whoever is connected gets his answer.
        self.tasks.detach_all();
    }
}

/// First byte of a TLS handshake (RFC 8446, section 5.1).
const HANDSHAKE: u8 = 22;

async fn serve(stream: TcpStream, tls: Option<Arc<ServerConfig>>, router: Router, activity: Arc<Activity>) {
    let conversation = async move {
        let Some(server) = tls else {
            return converse(written_in_time(stream), router, activity).await;
        };
        let mut first = [0];
        match tokio::time::timeout(HEADER_TIMEOUT, stream.peek(&mut first)).await {
            Ok(Ok(1)) if first[0] == HANDSHAKE => {}
            Ok(Ok(1)) => {
                let words = || async {
                    let mut answer = refusal(StatusCode::BAD_REQUEST, "this port speaks TLS (admin.tls_cert): ask by https://");
                    answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                    answer
                };
                return converse(written_in_time(stream), Router::new().fallback(words), activity).await;
            }
            _ => return,
        }
        let handshake = TlsAcceptor::from(server).accept(written_in_time(stream));
        match tokio::time::timeout(HEADER_TIMEOUT, handshake).await {
            Ok(Ok(stream)) => converse(stream, router, activity).await,
            Ok(Err(e)) => tracing::trace!(error = %e, "TLS handshake"),
            Err(_) => tracing::trace!("TLS handshake: not done in time"),
        }
    };
    let _ = tokio::time::timeout(CONNECTION_TIMEOUT, conversation).await;
}

/// A client that does not read is given up.
fn written_in_time(stream: TcpStream) -> Pin<Box<TimeoutStream<TcpStream>>> {
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(WRITE_TIMEOUT));
    Box::pin(stream)
}

/// Answers requests until the client has no more.
async fn converse(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, router: Router, activity: Arc<Activity>) {
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let running = activity.begin();
        let router = router.clone();
        async move {
            // One answer each in turn: a client that asks for a thousand at once waits for the others.
            tokio::task::yield_now().await;
            let answer: Result<Response, Infallible> = router.oneshot(Request::from(request).map(axum::body::Body::new)).await;
            drop(running);
            answer
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(HEADER_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(e) = connection.await {
        tracing::trace!(error = %e, "admin connection");
    }
}

/// Accepts for as long as its task lives.
pub(super) async fn accept(listener: TcpListener, shared: Arc<Shared>, router: Router) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(e) => return tracing::error!(error = %e, "the admin server cannot serve"),
    };
    let mut connections = Connections::default();
    loop {
        connections.forget_ended();
        if connections.open.len() >= MOST
            && let Some(wait) = connections.make_room()
        {
            if let Ok(Some(ended)) = tokio::time::timeout(wait, connections.tasks.join_next_with_id()).await {
                connections.forget(ended);
            }
            continue;
        }
        match listener.accept().await {
            Ok((stream, _)) => {
                let tls = shared.tls.read().unwrap_or_else(PoisonError::into_inner).clone();
                connections.serve(stream, tls.map(|identity| identity.server), router.clone());
            }
            Err(e) => {
                // Out of file descriptors or a client that went away: neither may end the server.
                tracing::debug!(error = %e, "accept");
                connections.make_room();
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}
