//! An object server with scripted faults: GET and HEAD with Range, ETag and If-Match, on a free loopback port.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What happens to one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Answered as asked.
    None,
    /// This status and no object.
    Status(u16),
    /// A 503 with `Retry-After`, seconds.
    SlowDown(u64),
    /// The connection is reset after so many bytes of the body.
    Reset(usize),
    /// The body ends after so many bytes, and the header agrees: no error at the wire.
    EndEarly(usize),
    /// Nothing more is sent after so many bytes; the connection stays open.
    Stall(usize),
    /// The body comes in pieces of so many bytes, one each 10 ms.
    Trickle(usize),
    /// From now on the object has another content and ETag.
    Replace,
    /// Nothing for so many milliseconds, then the body, all connections together at so many MB/s.
    Link { latency_ms: u64, megabytes_per_s: u64 },
    /// Nothing for so many milliseconds, then the body, each connection by itself at so many KB/s.
    Far { latency_ms: u64, kilobytes_per_s: u64 },
    /// A 200 with this text, whether or not there is such an object.
    Text(&'static str),
    /// This status, and the object's other address, where it is served.
    Redirect(u16),
}

/// What the server can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ability {
    /// Ranges, lengths, versions.
    All,
    /// Answers a request for a range with the whole object, as Python's `http.server` does.
    Whole,
    /// The same, in chunks, without saying how long it is or which version; it takes no HEAD.
    Chunked,
}

/// One request, numbered from 0 for its method and key.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) key: String,
    pub(crate) number: u64,
    pub(crate) range: Option<(u64, u64)>,
    /// Whether it is for the address that a redirection gave.
    pub(crate) moved: bool,
    pub(crate) headers: BTreeMap<String, String>,
}

type Script = Box<dyn Fn(&Request) -> Fault + Send + Sync>;

/// Content and version by key.
type Objects = BTreeMap<String, (Arc<Vec<u8>>, u64)>;

struct Shared {
    objects: Mutex<Objects>,
    /// Content of every `.tar` that is no object.
    everywhere: Mutex<Option<Arc<Vec<u8>>>>,
    ability: Mutex<Ability>,
    /// When the link is free again.
    link: Mutex<Option<Instant>>,
    counts: Mutex<BTreeMap<String, u64>>,
    script: Script,
    closing: AtomicBool,
    sent: AtomicU64,
    requests: AtomicU64,
}

/// Serves until dropped.
pub(crate) struct FaultServer {
    shared: Arc<Shared>,
    port: u16,
}

impl FaultServer {
    pub(crate) fn start(objects: Vec<(String, Vec<u8>)>, script: impl Fn(&Request) -> Fault + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            objects: Mutex::new(objects.into_iter().map(|(k, v)| (k, (Arc::new(v), 1))).collect()),
            everywhere: Mutex::default(),
            ability: Mutex::new(Ability::All),
            link: Mutex::default(),
            counts: Mutex::default(),
            script: Box::new(script),
            closing: AtomicBool::new(false),
            sent: AtomicU64::new(0),
            requests: AtomicU64::new(0),
        });
        let server = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if server.closing.load(Ordering::SeqCst) {
                    return;
                }
                let server = Arc::clone(&server);
                std::thread::spawn(move || drop(stream.map(|s| server.serve(&s))));
            }
        });
        Self { shared, port }
    }

    /// `http://127.0.0.1:PORT`.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// From now on every `.tar` exists, with this content.
    pub(crate) fn serve_everywhere(&self, bytes: Vec<u8>) {
        *self.shared.everywhere.lock().unwrap() = Some(Arc::new(bytes));
    }

    /// From now on it can do so much.
    pub(crate) fn limit(&self, ability: Ability) {
        *self.shared.ability.lock().unwrap() = ability;
    }

    /// Bytes of bodies sent.
    pub(crate) fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::SeqCst)
    }

    /// Requests answered.
    pub(crate) fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::SeqCst)
    }
}

impl Drop for FaultServer {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(("127.0.0.1", self.port)));
    }
}

impl Shared {
    /// One request per connection: simple, and a reset hurts nobody else.
    fn serve(&self, stream: &TcpStream) -> std::io::Result<()> {
        let Some(request) = self.read(stream)? else { return Ok(()) };
        self.requests.fetch_add(1, Ordering::SeqCst);
        let fault = (self.script)(&request);
        let mut out = stream;
        let status = |mut out: &TcpStream, code: u16, extra: &str| {
            write!(
                out,
                "HTTP/1.1 {code} Fault\r\n{extra}Content-Length: 0\r\nConnection: close\r\n\r\n"
            )
        };
        if let Fault::Link { latency_ms, .. } | Fault::Far { latency_ms, .. } = fault {
            std::thread::sleep(Duration::from_millis(latency_ms));
        }
        let ability = *self.ability.lock().unwrap();
        if ability == Ability::Chunked && request.method == "HEAD" {
            return status(out, 405, "");
        }
        match fault {
            Fault::Redirect(code) if !request.moved => return status(out, code, &format!("Location: /moved/{}\r\n", request.key)),
            Fault::Status(code) => return status(out, code, ""),
            Fault::SlowDown(seconds) => return status(out, 503, &format!("Retry-After: {seconds}\r\n")),
            Fault::Text(text) => {
                return write!(
                    out,
                    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}",
                    text.len()
                );
            }
            Fault::Replace => {
                if let Some((bytes, version)) = self.objects.lock().unwrap().get_mut(&request.key) {
                    Arc::make_mut(bytes).iter_mut().for_each(|b| *b = !*b);
                    *version += 1;
                }
            }
            _ => {}
        }
        let object = self.objects.lock().unwrap().get(&request.key).cloned();
        let everywhere = || self.everywhere.lock().unwrap().clone().filter(|_| request.key.ends_with(".tar"));
        let Some((bytes, version)) = object.or_else(|| Some((everywhere()?, 1))) else {
            return status(out, 404, "");
        };
        let etag = format!("\"v{version}\"");
        if request.headers.get("if-match").is_some_and(|wanted| *wanted != etag) {
            return status(out, 412, "");
        }
        let size = bytes.len() as u64;
        let (code, body, range) = match request.range.filter(|_| ability == Ability::All) {
            Some((from, _)) if from >= size => return status(out, 416, &format!("Content-Range: bytes */{size}\r\n")),
            Some((from, to)) => {
                let to = to.min(size - 1);
                let line = format!("Content-Range: bytes {from}-{to}/{size}\r\n");
                (206, &bytes[from as usize..=to as usize], line)
            }
            None => (200, &bytes[..], String::new()),
        };
        let length = match fault {
            Fault::EndEarly(n) => n.min(body.len()),
            _ => body.len(),
        };
        if ability == Ability::Chunked {
            return self.send_chunked(out, body, fault);
        }
        write!(
            out,
            "HTTP/1.1 {code} OK\r\n{range}ETag: {etag}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
        )?;
        if request.method == "HEAD" {
            return Ok(());
        }
        let send = |mut out: &TcpStream, bytes: &[u8]| -> std::io::Result<()> {
            out.write_all(bytes)?;
            self.sent.fetch_add(bytes.len() as u64, Ordering::SeqCst);
            Ok(())
        };
        match fault {
            Fault::Reset(n) | Fault::Stall(n) => {
                send(out, &body[..n.min(body.len())])?;
                if matches!(fault, Fault::Stall(_)) {
                    std::thread::sleep(Duration::from_secs(20));
                }
                // Closing before the announced length is a broken body for the client.
                Ok(())
            }
            Fault::Link { megabytes_per_s, .. } => {
                for piece in body.chunks(128 << 10) {
                    let free_at = {
                        let mut link = self.link.lock().unwrap();
                        let begin = link.unwrap_or_else(Instant::now).max(Instant::now());
                        let end = begin + Duration::from_secs_f64(piece.len() as f64 / (megabytes_per_s as f64 * 1e6));
                        *link = Some(end);
                        end
                    };
                    std::thread::sleep(free_at.saturating_duration_since(Instant::now()));
                    send(out, piece)?;
                }
                Ok(())
            }
            Fault::Far { kilobytes_per_s, .. } => {
                let (start, mut sent) = (Instant::now(), 0);
                for piece in body.chunks((body.len() / 4).max(1)) {
                    sent += piece.len();
                    let due = Duration::from_secs_f64(sent as f64 / (kilobytes_per_s as f64 * 1e3));
                    std::thread::sleep(due.saturating_sub(start.elapsed()));
                    send(out, piece)?;
                }
                Ok(())
            }
            Fault::Trickle(piece) => {
                for piece in body.chunks(piece) {
                    send(out, piece)?;
                    std::thread::sleep(Duration::from_millis(10));
                }
                Ok(())
            }
            _ => send(out, &body[..length]),
        }
    }

    fn send_chunked(&self, mut out: &TcpStream, body: &[u8], fault: Fault) -> std::io::Result<()> {
        write!(out, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n")?;
        let most = if let Fault::Reset(n) = fault { n } else { usize::MAX };
        for piece in body[..most.min(body.len())].chunks(50_000) {
            write!(out, "{:x}\r\n", piece.len())?;
            out.write_all(piece)?;
            out.write_all(b"\r\n")?;
            self.sent.fetch_add(piece.len() as u64, Ordering::SeqCst);
        }
        if most > body.len() { out.write_all(b"0\r\n\r\n") } else { Ok(()) }
    }

    fn read(&self, stream: &TcpStream) -> std::io::Result<Option<Request>> {
        let mut lines = BufReader::new(stream).lines();
        let Some(first) = lines.next().transpose()? else { return Ok(None) };
        let mut words = first.split(' ');
        let (method, path) = (words.next().unwrap_or_default().to_owned(), words.next().unwrap_or_default());
        let key = path.split('?').next().unwrap_or_default().trim_start_matches('/');
        let (moved, key) = match key.strip_prefix("moved/") {
            Some(key) => (true, key.to_owned()),
            None => (false, key.to_owned()),
        };
        let mut headers = BTreeMap::new();
        for line in lines {
            let line = line?;
            if line.is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(':') {
                headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
            }
        }
        let range = headers.get("range").and_then(|r| {
            let (from, to) = r.strip_prefix("bytes=")?.split_once('-')?;
            Some((from.parse().ok()?, to.parse().ok()?))
        });
        let number = {
            let mut counts = self.counts.lock().unwrap();
            let count = counts.entry(format!("{method} {key}")).or_default();
            *count += 1;
            *count - 1
        };
        Ok(Some(Request {
            method,
            key,
            number,
            range,
            moved,
            headers,
        }))
    }
}
