//! A bucket that is away, refuses its credentials or is full of bad samples: the run waits, says why, and goes on as if nothing had happened.
#![expect(clippy::print_stdout, reason = "a measurement that is read with --nocapture")]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::fault_server::{Fault, FaultServer};
use crate::ground::{Daemon, Ground};

const STEPS: &str = "optim.total_steps=240";

/// The packed training shards as objects `b/t-NNN.tar`, and the range that names them.
pub(crate) fn objects(ground: &Ground) -> (Vec<(String, Vec<u8>)>, String) {
    let mut paths: Vec<_> = fs::read_dir(ground.path("data/train"))
        .unwrap()
        .flatten()
        .map(|e| e.path())
        .filter(|p| p.extension().is_some_and(|e| e == "tar"))
        .collect();
    paths.sort();
    let last = paths.len() - 1;
    let all = paths
        .iter()
        .enumerate()
        .map(|(n, p)| (format!("b/t-{n:03}.tar"), fs::read(p).unwrap()))
        .collect();
    (all, format!("t-{{000..{last:03}}}.tar"))
}

fn undisturbed(ground: &Ground) -> Vec<serde_json::Value> {
    let run = format!("run.dir=\"{}\"", ground.path("clean").display());
    let output = ground.train(&["--set", STEPS, "--set", &run]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    ground.trace("clean")
}

fn start(ground: &Ground, url: &str, more: &[&str], environment: &[(&str, &str)]) -> Daemon {
    let train = format!("data.train=\"{url}\"");
    let mut arguments = vec!["--set", STEPS, "--set", &train, "--enable-lifecycle"];
    more.iter().for_each(|set| arguments.extend(["--set", set]));
    let mut command: Command = ground.train(&arguments);
    command.envs(environment.iter().copied()).env("RUST_LOG", "debug");
    Daemon::start(command, &ground.path("log"))
}

fn finish(mut daemon: Daemon, ground: &Ground, clean: &[serde_json::Value]) {
    // The daemon may end between two looks, so its end is not awaited by its status.
    let status = daemon.child.wait().unwrap();
    assert!(status.success(), "{}", daemon.log());
    assert_eq!(ground.trace("run"), clean, "same stream, same losses");
}

/// How long the store is away: seconds, or as long as the whole row 19 of the fault matrix asks for, `SPLITMASK_OUTAGE_S=1200`.
fn outage() -> Duration {
    Duration::from_secs(std::env::var("SPLITMASK_OUTAGE_S").map_or(2, |text| text.parse().expect("whole seconds")))
}

#[test]
fn an_outage_is_waited_out_in_good_health_and_changes_nothing() {
    let ground = Ground::new();
    let clean = undisturbed(&ground);
    let (all, range) = objects(&ground);
    let down = Arc::new(AtomicU64::new(0));
    let script = Arc::clone(&down);
    let server = FaultServer::start(all, move |_| match script.load(Ordering::SeqCst) {
        0 => Fault::None,
        _ => Fault::Reset(0),
    });
    let mut daemon = start(&ground, &format!("{}/b/{range}", server.url()), &[], &[]);
    daemon.until("the first steps", |d| d.status()["step"].as_u64().is_some_and(|s| s >= 8));
    down.store(1, Ordering::SeqCst);
    daemon.until("it waits", |d| d.status()["state"] == "waiting_for_data");
    assert_eq!(daemon.ask("GET", "/-/healthy").unwrap().0, 200, "an outage is no illness");
    assert_eq!(daemon.ask("GET", "/-/ready").unwrap().0, 200);
    let (step, began, length) = (daemon.status()["step"].clone(), Instant::now(), outage());
    while began.elapsed() < length {
        std::thread::sleep(Duration::from_millis(500).min(length - began.elapsed().min(length)));
        let status = daemon.status();
        assert_eq!((&status["state"], &status["step"]), (&"waiting_for_data".into(), &step));
        for path in ["/-/healthy", "/-/ready"] {
            assert_eq!(daemon.ask("GET", path).unwrap().0, 200, "{path} after {:?}", began.elapsed());
        }
    }
    down.store(0, Ordering::SeqCst);
    let back = Instant::now();
    daemon.until("it goes on", |d| d.status()["step"] != step);
    println!(
        "an outage of {length:?}; the next step came {:.1} s after its end",
        back.elapsed().as_secs_f64()
    );
    assert!(back.elapsed() < Duration::from_secs(20), "{:?}", back.elapsed());
    finish(daemon, &ground, &clean);
}

/// Each reason of `splitmask_train_paused` with its value.
fn paused(daemon: &Daemon) -> Vec<String> {
    let text = daemon.ask("GET", "/metrics").unwrap().1;
    ["failure_budget", "denied"]
        .map(|reason| {
            let name = format!("splitmask_train_paused{{reason=\"{reason}\"}} ");
            let value = text.lines().find_map(|l| l.strip_prefix(&name));
            format!("{reason} {}", value.unwrap_or("is not there"))
        })
        .to_vec()
}

/// What a provider's credential service answers; the secrets must show up nowhere.
const KEYS: [&str; 3] = [
    r#"{"AccessKeyId":"AKONE","SecretAccessKey":"canary-secret-1","Token":"canary-token-1","Expiration":"2099-01-01T00:00:00Z"}"#,
    r#"{"AccessKeyId":"AKTWO","SecretAccessKey":"canary-secret-2","Token":"canary-token-2","Expiration":"2099-01-01T00:00:00Z"}"#,
    r#"{"AccessKeyId":"AKTHREE","SecretAccessKey":"canary-secret-3","Token":"canary-token-3","Expiration":"2099-01-01T00:00:00Z"}"#,
];
const NAMES: [&str; 3] = ["AKONE", "AKTWO", "AKTHREE"];

#[test]
fn refused_credentials_are_read_again_and_then_the_run_pauses_with_clear_text() {
    let ground = Ground::new();
    let clean = undisturbed(&ground);
    let (all, range) = objects(&ground);
    // Which credentials the service hands out, and which the store accepts.
    let (service, store) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (handed, accepted) = (Arc::clone(&service), Arc::clone(&store));
    let server = FaultServer::start(all, move |r| {
        if r.key == "keys" {
            return Fault::Text(KEYS[handed.load(Ordering::SeqCst) as usize]);
        }
        let signed = r.headers.get("authorization").map_or("", String::as_str);
        if signed.contains(&format!("Credential={}/", NAMES[accepted.load(Ordering::SeqCst) as usize])) {
            Fault::None
        } else {
            Fault::Status(403)
        }
    });
    let token = ground.path("pod-token");
    fs::write(&token, "canary-pod-token").unwrap();
    let environment = [
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("{}/keys", server.url())),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", token.display().to_string()),
        ("AWS_REGION", "us-east-1".into()),
    ];
    let environment: Vec<(&str, &str)> = environment.iter().map(|(k, v)| (*k, v.as_str())).collect();
    let endpoint = format!("data.endpoint=\"{}\"", server.url());
    let more = [endpoint.as_str(), "pipeline.retry_budget_s=1"];
    let mut daemon = start(&ground, &format!("s3://b/{range}"), &more, &environment);
    let step = |d: &Daemon| d.status()["step"].as_u64().unwrap_or(0);
    daemon.until("the first steps", |d| step(d) >= 8);

    // Rotated: the store refuses the old ones, the service has new ones. Nobody notices.
    service.store(1, Ordering::SeqCst);
    store.store(1, Ordering::SeqCst);
    let at = step(&daemon);
    daemon.until("steps after the rotation", |d| step(d) > at + 24);

    // Revoked: the service still hands out what the store refuses.
    store.store(2, Ordering::SeqCst);
    daemon.until("it pauses", |d| d.status()["state"] == "paused");
    let (code, body) = daemon.ask("GET", "/-/ready").unwrap();
    assert_eq!(code, 503);
    assert!(
        body.contains("access denied") && body.contains("credentials may have expired"),
        "{body}"
    );
    assert_eq!(daemon.ask("GET", "/-/healthy").unwrap().0, 200);
    assert_eq!(paused(&daemon), ["failure_budget 0", "denied 1"]);

    // Granted again: the paused run finds out by itself.
    service.store(2, Ordering::SeqCst);
    let at = step(&daemon);
    daemon.until("it goes on", |d| step(d) > at || d.status()["state"] == "training");
    assert_eq!(paused(&daemon), ["failure_budget 0", "denied 0"]);
    let log = daemon.log();
    for secret in ["canary-secret", "canary-token", "canary-pod-token"] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
    assert!(log.contains("DEBUG"), "the log was not asked for all");
    finish(daemon, &ground, &clean);
}

#[test]
fn a_mixture_goes_on_after_a_kill_as_if_nothing_had_happened() {
    let ground = Ground::new();
    let place = |set: &str| ground.path("data").join(set).display().to_string();
    let sources = format!(
        "data.sources=[{{name=\"most\",url=\"{}\",weight=3}},{{name=\"rest\",url=\"{}\",weight=1}}]",
        place("train"),
        place("val")
    );
    let train = |run: &str| {
        let run = format!("run.dir=\"{}\"", ground.path(run).display());
        ground.train(&["--set", STEPS, "--set", "data.train=\"\"", "--set", &sources, "--set", &run])
    };
    let output = train("whole").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for step in [20, 70] {
        let mut daemon = Daemon::start(train("killed"), &ground.path("log"));
        daemon.until("the step of the kill", |d| d.status()["step"].as_u64().is_some_and(|s| s >= step));
        daemon.signal("KILL");
        assert!(!daemon.end().success());
    }
    let output = train("killed").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(ground.trace("killed"), ground.trace("whole"));
}

/// Damages every n-th picture of each shard in its middle.
fn damage(folder: &Path, every: usize) {
    for entry in fs::read_dir(folder)
        .unwrap()
        .flatten()
        .filter(|e| e.path().extension().is_some_and(|x| x == "tar"))
    {
        let mut bytes = fs::read(entry.path()).unwrap();
        let starts: Vec<usize> = bytes.windows(4).enumerate().filter(|(_, w)| w == b"IDAT").map(|(i, _)| i).collect();
        for at in starts.into_iter().step_by(every) {
            bytes[at + 4..at + 24].iter_mut().for_each(|b| *b ^= 0x5a);
        }
        fs::write(entry.path(), bytes).unwrap();
    }
}

#[test]
fn past_the_failure_budget_the_run_pauses_and_a_reload_that_raises_it_goes_on() {
    let ground = Ground::new();
    damage(&ground.path("data/train"), 12);
    let sets = ["--set", "optim.total_steps=1000000", "--enable-lifecycle"];
    let mut daemon = Daemon::start(ground.train(&sets), &ground.path("log"));
    daemon.until("it pauses", |d| d.status()["state"] == "paused");
    let status = daemon.status();
    let reason = status["paused"].as_str().unwrap();
    assert!(
        reason.contains("samples failed (budget 0.01)") && reason.contains("data.failure_budget"),
        "{reason}"
    );
    assert_eq!(reason.matches("(corrupt)").count(), 5, "five examples: {reason}");
    let (code, body) = daemon.ask("GET", "/-/ready").unwrap();
    assert!(code == 503 && body.starts_with("paused: "), "{code} {body}");
    assert_eq!(daemon.ask("GET", "/-/healthy").unwrap().0, 200);
    assert_eq!(paused(&daemon), ["failure_budget 1", "denied 0"]);
    let step = status["step"].as_u64().unwrap();
    assert!(
        (1..10_000 / 16).contains(&step),
        "it began, and saw less than 10,000 samples: {step}"
    );
    assert!(!splitmask::checkpoint::steps(&ground.path("run/checkpoints")).is_empty());

    let edited = ground
        .config_text()
        .replace("shuffle_window = 48", "shuffle_window = 48\nfailure_budget = 0.5");
    fs::write(ground.config(), edited).unwrap();
    daemon.until("it goes on", |d| d.status()["step"].as_u64().is_some_and(|s| s > step + 20));
    assert_eq!(daemon.ask("GET", "/-/ready").unwrap().0, 200);
    assert!(daemon.status()["paused"].is_null());
    assert_eq!(paused(&daemon), ["failure_budget 0", "denied 0"]);
    daemon.signal("TERM");
    assert_eq!(daemon.end().code(), Some(75));

    // The other policy, from the same place on.
    let output = ground
        .train(&[
            "--set",
            "data.on_budget=\"stop\"",
            "--set",
            "data.failure_budget=0.01",
            "--set",
            "optim.total_steps=1000000",
        ])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(74), "{}", String::from_utf8_lossy(&output.stderr));
}
