//! An hour of everything at once: a store that throttles, breaks off and is slow, one bad sample in a hundred, a reload every ten seconds, kill -9 every minute,
//! a scraper and clients that never read. Nothing may be lost, memory must stay where it is, and the losses are those of a run in peace.
//!
//! `SPLITMASK_SOAK_MINUTES=60 cargo test --test training soak -- --ignored --nocapture`; `SPLITMASK_SOAK_PICTURE=docs/soak-of-faults.svg` draws it.
#![expect(clippy::print_stdout, reason = "a measurement that is read with --nocapture")]

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use splitmask::picture::{Point, plot};

use crate::bucket_trouble::{damage, objects};
use crate::fault_server::{Fault, FaultServer};
use crate::ground::{Daemon, Ground};
use crate::reload_storm::{edited, put};

/// Steps between two checkpoints.
const EVERY: u64 = 50;
const RELOAD: Duration = Duration::from_secs(10);
const KILL: Duration = Duration::from_secs(60);

fn minutes() -> f64 {
    std::env::var("SPLITMASK_SOAK_MINUTES").map_or(60.0, |text| text.parse().expect("SPLITMASK_SOAK_MINUTES is a number"))
}

/// `splitmask train` of a run that nobody lets come to its end.
fn train(ground: &Ground, run: &str, data: &str, every: u64) -> Command {
    let sets = [
        format!("run.dir=\"{}\"", ground.path(run).display()),
        format!("data.train=\"{data}\""),
        format!("checkpoint.every_steps={every}"),
        "data.failure_budget=0.05".to_owned(),
        "picture.every_steps=1000".to_owned(),
        "optim.total_steps=1000000".to_owned(),
        "log.every_steps=10".to_owned(),
    ];
    let mut command = ground.train(&["--enable-lifecycle"]);
    for set in &sets {
        command.args(["--set", set]);
    }
    command
}

/// One of the two disturbed runs.
struct Disturbed {
    name: &'static str,
    /// Whether it is killed, or lives through all of it.
    killed: bool,
    daemon: Daemon,
    kills: u64,
    /// (seconds, resident kB, step)
    seen: Vec<(f64, u64, u64)>,
}

impl Disturbed {
    fn start(ground: &Ground, name: &'static str, killed: bool, data: &str) -> Self {
        Self {
            name,
            killed,
            daemon: Daemon::start(train(ground, name, data, EVERY), &ground.path(&format!("{name}.log"))),
            kills: 0,
            seen: Vec::new(),
        }
    }

    fn look(&mut self, at: f64) {
        if let Some(status) = self.daemon.child.try_wait().unwrap() {
            panic!("{} ended by itself ({status}) after {at:.0} s:\n{}", self.name, self.daemon.log());
        }
        let status = fs::read_to_string(format!("/proc/{}/status", self.daemon.child.id())).unwrap_or_default();
        let resident = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
        let resident = resident.and_then(|l| l.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0);
        if let Some(step) = self.daemon.status()["step"].as_u64() {
            self.seen.push((at, resident, step));
        }
    }
}

/// Median of the resident memory seen between two shares of the time, MB.
fn memory(seen: &[(f64, u64, u64)], from: f64, to: f64) -> f64 {
    let end = seen.last().map_or(0.0, |s| s.0);
    let mut inside: Vec<u64> = seen.iter().filter(|s| (from * end..=to * end).contains(&s.0)).map(|s| s.1).collect();
    inside.sort_unstable();
    inside.get(inside.len() / 2).map_or(0.0, |kb| *kb as f64 / 1024.0)
}

/// A scraper, a browser that looks at the page, and clients that ask and never read.
fn ask_around(addresses: &[String], enough: &AtomicBool, scrapes: &AtomicU64) {
    let mut deaf: Vec<TcpStream> = Vec::new();
    let mut n = 0u64;
    while !enough.load(Ordering::SeqCst) {
        for address in addresses {
            let paths = ["/metrics", "/api/v1/status", "/api/v1/history", "/metrics", "/api/v1/events", "/"];
            let path = paths[(n % 6) as usize];
            let Ok(mut stream) = TcpStream::connect(address) else { continue };
            let _ = stream.set_read_timeout(Some(Duration::from_secs(20)));
            let mut text = String::new();
            let asked = write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
            if asked.is_ok() && std::io::Read::read_to_string(&mut stream, &mut text).is_ok() && text.starts_with("HTTP/1.1 200") {
                scrapes.fetch_add(1, Ordering::SeqCst);
            }
            if n % 5 == 0
                && let Ok(mut stream) = TcpStream::connect(address)
            {
                let _ = stream.set_nonblocking(true);
                let _ = stream.write(format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\n\r\n").repeat(200).as_bytes());
                deaf.push(stream);
            }
        }
        if deaf.len() > 40 {
            deaf.clear();
        }
        n += 1;
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// Lines of a log with a word.
fn count(ground: &Ground, run: &str, word: &str) -> usize {
    let text = fs::read_to_string(ground.path(&format!("{run}.log"))).unwrap_or_default();
    text.lines().filter(|l| l.contains(word)).count()
}

#[test]
#[ignore = "an hour; SPLITMASK_SOAK_MINUTES shortens it"]
fn soak() {
    let ground = Ground::new();
    damage(&ground.path("data/train"), 100);
    let (all, range) = objects(&ground);
    let requests = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&requests);
    let server = FaultServer::start(all, move |r| {
        let n = counted.fetch_add(1, Ordering::SeqCst);
        match (r.method.as_str(), n % 40) {
            ("GET", 3 | 13 | 23 | 33) => Fault::SlowDown(1),
            ("GET", 7 | 27) => Fault::Status(500),
            ("GET", 17) => Fault::Reset(20_000),
            ("GET", 37) => Fault::EndEarly(30_000),
            _ => Fault::Far { latency_ms: 30, kilobytes_per_s: 300 },
        }
    });
    let data = format!("{}/b/{range}", server.url());
    let text = ground.config_text();
    let length = Duration::from_secs_f64(minutes() * 60.0);
    let mut runs = [
        Disturbed::start(&ground, "killed", true, &data),
        Disturbed::start(&ground, "steady", false, &data),
    ];
    let (enough, scrapes) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let began = Instant::now();
    let (mut reloads, mut next_reload, mut next_kill) = (0usize, RELOAD, KILL);
    let mut addresses: Vec<String> = runs.iter().map(|r| r.daemon.address.clone()).collect();
    let asker = |addresses: Vec<String>| {
        let (enough, scrapes) = (Arc::clone(&enough), Arc::clone(&scrapes));
        std::thread::spawn(move || ask_around(&addresses, &enough, &scrapes))
    };
    let mut askers = vec![asker(addresses.clone())];
    while began.elapsed() < length {
        let at = began.elapsed();
        for run in &mut runs {
            run.look(at.as_secs_f64());
        }
        if at >= next_reload {
            put(&ground, &edited(&text, reloads));
            runs.iter().for_each(|run| run.daemon.signal("HUP"));
            (reloads, next_reload) = (reloads + 1, next_reload + RELOAD);
        }
        if at >= next_kill {
            // A start reads the file, which must be one that it takes.
            put(&ground, &text);
            for run in runs.iter_mut().filter(|run| run.killed) {
                run.daemon.signal("KILL");
                run.daemon.child.wait().unwrap();
                run.daemon = Daemon::start(train(&ground, run.name, &data, EVERY), &ground.path(&format!("{}.log", run.name)));
                run.kills += 1;
            }
            next_kill += KILL;
            // The scraper follows the new process to its port.
            enough.store(true, Ordering::SeqCst);
            askers.drain(..).for_each(|a| a.join().unwrap());
            enough.store(false, Ordering::SeqCst);
            addresses = runs.iter().map(|r| r.daemon.address.clone()).collect();
            askers.push(asker(addresses.clone()));
        }
        std::thread::sleep(Duration::from_secs(1));
    }
    enough.store(true, Ordering::SeqCst);
    askers.drain(..).for_each(|a| a.join().unwrap());
    put(&ground, &text);
    for run in &mut runs {
        run.daemon.signal("TERM");
        let status = run.daemon.child.wait().unwrap();
        assert_eq!(status.code(), Some(75), "{}: {}", run.name, run.daemon.log());
    }

    // In peace: from the disk, without a reload, to behind the last steps of both.
    let last = |run: &str| ground.trace(run).last().unwrap()["step"].as_u64().unwrap();
    let periodic = |run: &str| {
        let steps = splitmask::checkpoint::steps(&ground.path(run).join("checkpoints"));
        steps.into_iter().filter(|s| s % EVERY == 0).max().unwrap()
    };
    let (far, of_weights) = (runs.iter().map(|r| last(r.name)).max().unwrap(), periodic("killed"));
    let disk = ground.path("data/train").display().to_string();
    let mut peace = Daemon::start(train(&ground, "peace", &disk, of_weights), &ground.path("peace.log"));
    let patience = Instant::now();
    while peace.status()["step"].as_u64().unwrap_or(0) <= far.max(of_weights) {
        assert!(peace.child.try_wait().unwrap().is_none(), "{}", peace.log());
        assert!(patience.elapsed() < 2 * length + Duration::from_secs(600), "the run in peace is too slow");
        std::thread::sleep(Duration::from_millis(200));
    }
    peace.signal("TERM");
    assert_eq!(peace.child.wait().unwrap().code(), Some(75), "{}", peace.log());
    let want = ground.trace("peace");
    let weights = |run: &str| fs::read(ground.path(run).join(format!("checkpoints/step-{of_weights:08}/model.safetensors"))).unwrap();

    let mut points = Vec::new();
    let mut steps = Vec::new();
    for run in &runs {
        let have = ground.trace(run.name);
        let (early, late) = (memory(&run.seen, 0.1, 0.3), memory(&run.seen, 0.8, 1.0));
        println!(
            "{}: {:.0} minutes, {} steps, {} kills, {} lines told {} times damaged, memory {early:.1} MB early and {late:.1} MB late",
            run.name,
            began.elapsed().as_secs_f64() / 60.0,
            last(run.name),
            run.kills,
            have.len(),
            count(&ground, run.name, "is damaged"),
        );
        println!(
            "  reloads: {} applied, {} refused; slow or refused requests: {}; checkpoints {}",
            count(&ground, run.name, "outcome=\"applied\""),
            count(&ground, run.name, "outcome=\"invalid\"") + count(&ground, run.name, "outcome=\"frozen\""),
            count(&ground, run.name, "retry"),
            count(&ground, run.name, "INFO checkpoint step="),
        );
        for (at, resident, step) in &run.seen {
            let point = |value| Point {
                step: *at as u64,
                curve: if run.killed { "killed every minute" } else { "never killed" }.into(),
                value,
            };
            points.push(point(*resident as f64 / 1024.0));
            steps.push(point(*step as f64 / 1000.0));
        }
    }
    println!(
        "{reloads} reloads asked for, {} scrapes answered, {} requests to the store",
        scrapes.load(Ordering::SeqCst),
        requests.load(Ordering::SeqCst)
    );
    if let Ok(path) = std::env::var("SPLITMASK_SOAK_PICTURE") {
        let upper = plot("resident memory", ("seconds", "MB"), &points).unwrap();
        let lower = plot("training", ("seconds", "thousand steps"), &steps).unwrap();
        let below = lower.replacen("<svg ", "<svg y=\"360\" ", 1);
        let both = format!("<svg width=\"900\" height=\"720\" viewBox=\"0 0 900 720\" xmlns=\"http://www.w3.org/2000/svg\">\n{upper}{below}</svg>\n");
        fs::write(path, both).unwrap();
    }
    for run in &runs {
        let have = ground.trace(run.name);
        assert_eq!(have[..], want[..have.len()], "{}: other losses, or lines that are missing", run.name);
    }
    assert!(weights("killed") == weights("peace"), "other weights");
    let steady = &runs[1].seen;
    let (early, late) = (memory(steady, 0.1, 0.3), memory(steady, 0.8, 1.0));
    assert!(late < early * 1.05 + 4.0, "memory grows: {early} MB, then {late} MB");
    assert_eq!(count(&ground, "killed", "is damaged"), 0);
}
