//! A proxy before a real store, which can be away, slow, overwhelmed, or break uploads in their middle.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What becomes of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weather {
    /// They pass.
    Fair,
    /// They are closed at once.
    Away,
    /// Each request is answered 503 with `Retry-After: 1`.
    Throttling,
    /// They break after so many bytes from the client.
    Tearing(usize),
    /// So many bytes of the client pass each 10 ms.
    Slow(usize),
}

struct Shared {
    weather: Mutex<Weather>,
    /// Counts changes of the weather: connections of before are closed.
    changes: AtomicU64,
    closing: AtomicBool,
    /// Bytes from clients.
    passed: AtomicU64,
    store: String,
}

/// Stands before a store until dropped.
pub(crate) struct StoreProxy {
    shared: Arc<Shared>,
    /// `http://127.0.0.1:PORT`.
    pub(crate) endpoint: String,
    port: u16,
}

impl StoreProxy {
    /// Before the store at `endpoint`.
    pub(crate) fn before(endpoint: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            weather: Mutex::new(Weather::Fair),
            changes: AtomicU64::new(0),
            closing: AtomicBool::new(false),
            passed: AtomicU64::new(0),
            store: endpoint.trim_start_matches("http://").to_owned(),
        });
        let serving = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if serving.closing.load(Ordering::SeqCst) {
                    return;
                }
                let serving = Arc::clone(&serving);
                std::thread::spawn(move || serving.serve(&client));
            }
        });
        Self {
            shared,
            endpoint: format!("http://127.0.0.1:{port}"),
            port,
        }
    }

    /// From now on.
    pub(crate) fn turn(&self, weather: Weather) {
        *self.shared.weather.lock().unwrap() = weather;
        self.shared.changes.fetch_add(1, Ordering::SeqCst);
    }

    /// Bytes that clients have sent.
    pub(crate) fn passed(&self) -> u64 {
        self.shared.passed.load(Ordering::SeqCst)
    }
}

impl Drop for StoreProxy {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(("127.0.0.1", self.port)));
    }
}

impl Shared {
    fn serve(&self, client: &TcpStream) {
        let weather = *self.weather.lock().unwrap();
        let before = self.changes.load(Ordering::SeqCst);
        match weather {
            Weather::Away => {}
            Weather::Throttling => self.throttle(client),
            _ => {
                let Ok(store) = TcpStream::connect(&self.store) else { return };
                std::thread::scope(|scope| {
                    scope.spawn(|| self.pump(&store, client, before, None));
                    self.pump(client, &store, before, Some(weather));
                });
            }
        }
        let _ = client.shutdown(Shutdown::Both);
    }

    /// Answers one request without looking at it.
    fn throttle(&self, mut client: &TcpStream) {
        let _ = client.set_read_timeout(Some(Duration::from_millis(300)));
        let (mut head, mut buffer) = (Vec::new(), [0; 4096]);
        while !head.windows(4).any(|w| w == b"\r\n\r\n") {
            match client.read(&mut buffer) {
                Ok(n) if n > 0 => head.extend_from_slice(&buffer[..n]),
                _ => return,
            }
        }
        // The body is read to its end, or the client would see a reset instead of the answer.
        while client.read(&mut buffer).is_ok_and(|n| n > 0) {}
        let _ = client.write_all(b"HTTP/1.1 503 Slow Down\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    }

    /// Carries bytes one way until either end closes or the weather changes.
    fn pump(&self, mut from: &TcpStream, mut to: &TcpStream, before: u64, weather: Option<Weather>) {
        let _ = from.set_read_timeout(Some(Duration::from_millis(50)));
        let mut buffer = vec![0; 16 << 10];
        let mut carried = 0;
        while self.changes.load(Ordering::SeqCst) == before {
            let most = match weather {
                Some(Weather::Slow(bytes)) => {
                    std::thread::sleep(Duration::from_millis(10));
                    bytes.min(buffer.len())
                }
                _ => buffer.len(),
            };
            match from.read(&mut buffer[..most]) {
                Ok(0) => break,
                Ok(n) => {
                    carried += n;
                    if weather.is_some() {
                        self.passed.fetch_add(n as u64, Ordering::SeqCst);
                    }
                    if matches!(weather, Some(Weather::Tearing(after)) if carried > after) || to.write_all(&buffer[..n]).is_err() {
                        break;
                    }
                }
                Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
                Err(_) => break,
            }
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    }
}
