//! A ground with a config, and a daemon process on it.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::free_port::free_port;

/// A folder with `c.toml`; the run is in `run`.
pub(crate) struct Ground {
    dir: TempDir,
}

impl Ground {
    pub(crate) fn new() -> Self {
        let ground = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        ground.write(&ground.text(""));
        ground
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn text(&self, more: &str) -> String {
        format!(
            "[data]\ntrain = \"shards\"\n[codebook]\npath = \"words\"\n[run]\nname = \"fake\"\ndir = {:?}\n{more}",
            self.path("run").display().to_string()
        )
    }

    pub(crate) fn write(&self, text: &str) {
        fs::write(self.path("c.toml"), text).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    pub(crate) fn journal(&self) -> Vec<Value> {
        self.read("run/journal.jsonl")
            .lines()
            .map(|l| serde_json::from_str(l).unwrap())
            .collect()
    }

    pub(crate) fn daemon(&self, sets: &[&str]) -> Daemon {
        self.daemon_with(sets, |_| {})
    }

    /// Starts a daemon with its admin server on a free port and lifecycle on; `sets` come after these and win.
    pub(crate) fn daemon_with(&self, sets: &[&str], more: impl FnOnce(&mut Command)) -> Daemon {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let mut all = vec![format!("admin.bind=\"{address}\""), "admin.lifecycle=true".to_owned()];
        all.extend(sets.iter().map(|s| (*s).to_owned()));
        let log = fs::OpenOptions::new().create(true).append(true).open(self.path("log")).unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "fake::daemon_process", "--nocapture"])
            .env("FAKE_DAEMON_CONFIG", self.path("c.toml"))
            .env("FAKE_DAEMON_SETS", all.join("\n"))
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        more(&mut command);
        Daemon {
            child: spawned_holding_signals(&mut command),
            address,
            log: self.path("log"),
        }
    }

    /// Starts a daemon that must end by itself; answers its exit code and everything it said.
    pub(crate) fn refused(&self, sets: &[&str]) -> (i32, String) {
        let before = self.read("log").len();
        let code = self.daemon(sets).end();
        (code, self.read("log")[before..].to_owned())
    }
}

/// The program holds its signals from before `main`; this test binary as a daemon inherits that from a thread that does.
fn spawned_holding_signals(command: &mut Command) -> Child {
    std::thread::scope(|scope| {
        let spawn = scope.spawn(|| {
            splitmask::signals::hold();
            command.spawn().unwrap()
        });
        spawn.join().unwrap()
    })
}

pub(crate) struct Daemon {
    child: Child,
    pub(crate) address: SocketAddr,
    log: PathBuf,
}

impl Daemon {
    /// Waits for readiness.
    pub(crate) fn ready(mut self) -> Self {
        self.until("ready", |d| d.ask("GET", "/-/ready").is_some_and(|(code, _)| code == 200));
        self
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn ask(&self, method: &str, path: &str) -> Option<(u16, String)> {
        request(self.address, method, path, &format!("Host: {}\r\n", self.address))
    }

    /// A request with more header lines and a body.
    pub(crate) fn send(&self, method: &str, path: &str, headers: &str, body: &str) -> (u16, String) {
        let headers = format!("Host: {}\r\n{headers}Content-Length: {}\r\n", self.address, body.len());
        request_with(self.address, method, path, &headers, body).unwrap_or_else(|| panic!("{method} {path}: no answer\n{}", self.log()))
    }

    /// An answer as (status, JSON).
    pub(crate) fn json(&self, method: &str, path: &str) -> (u16, Value) {
        let (code, body) = self
            .ask(method, path)
            .unwrap_or_else(|| panic!("{method} {path}: no answer\n{}", self.log()));
        (
            code,
            serde_json::from_str(&body).unwrap_or_else(|e| panic!("{method} {path}: {e}: {body}")),
        )
    }

    pub(crate) fn step(&self) -> u64 {
        self.json("GET", "/api/v1/status").1["step"].as_u64().unwrap()
    }

    pub(crate) fn metric(&self, series: &str) -> f64 {
        let (_, text) = self.ask("GET", "/metrics").unwrap();
        let line = text
            .lines()
            .find(|l| l.strip_prefix(series).is_some_and(|rest| rest.starts_with(' ')));
        line.unwrap_or_else(|| panic!("no {series} in\n{text}"))
            .rsplit(' ')
            .next()
            .unwrap()
            .parse()
            .unwrap()
    }

    pub(crate) fn until(&mut self, what: &str, mut holds: impl FnMut(&mut Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !holds(self) {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the daemon ended ({status}) before {what}:\n{}", self.log());
            }
            assert!(Instant::now() < deadline, "waited too long until {what}:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn signal(&self, name: &str) {
        assert!(
            Command::new("kill")
                .arg(format!("-{name}"))
                .arg(self.pid().to_string())
                .status()
                .unwrap()
                .success()
        );
    }

    /// Waits for the end; answers the exit code.
    pub(crate) fn end(mut self) -> i32 {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().unwrap_or(-1);
            }
            assert!(Instant::now() < deadline, "the daemon does not end:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One request with these header lines; (status, body).
pub(crate) fn request(address: SocketAddr, method: &str, path: &str, headers: &str) -> Option<(u16, String)> {
    request_with(address, method, path, headers, "")
}

fn request_with(address: SocketAddr, method: &str, path: &str, headers: &str, body: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
    write!(stream, "{method} {path} HTTP/1.1\r\n{headers}Connection: close\r\n\r\n{body}").ok()?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let (_, body) = text.split_once("\r\n\r\n")?;
    Some((text.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

/// All files below a folder with their content.
pub(crate) fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push((path.clone(), fs::read(&path).unwrap_or_default()));
        }
    }
    found
}
