//! A hundred reloads a second by file, signal and request, of every class and with every outcome: the run is the undisturbed one.
#![expect(clippy::print_stdout, reason = "what became of the storm is read with --nocapture")]

use std::fs;
use std::time::{Duration, Instant};

use crate::ground::{Daemon, Ground};

/// The config with what no loss depends on changed: live, rebuild and restart keys, an error, a frozen key.
fn edited(text: &str, n: usize) -> String {
    match n % 6 {
        0 => text.replace("workers = 2", "workers = 3"),
        1 => text.replace("[log]", "[log]\nfilter = \"debug\""),
        2 => text.replace("total_steps", "totel_steps"),
        3 => text.replace("queue_batches = 2", &format!("queue_batches = {}", 1 + n / 6 % 4)),
        4 => text.replace("depth = 2", "depth = 3"),
        _ => text.replace("keep = 2", &format!("keep = {}", 2 + n / 6 % 3)),
    }
}

/// Writes a config as editors do that replace the file.
fn put(ground: &Ground, text: &str) {
    let beside = ground.path("config.toml.new");
    fs::write(&beside, text).unwrap();
    fs::rename(beside, ground.config()).unwrap();
}

#[test]
fn a_storm_of_reloads_by_all_ways_leaves_the_losses_as_they_are() {
    let ground = Ground::new();
    let text = ground.config_text();
    let train = |run: &str| {
        let dir = format!("run.dir=\"{}\"", ground.path(run).display());
        let sets = [
            "optim.total_steps=1000000",
            "picture.every_steps=0",
            "model.width=16",
            "train.batch=8",
            &dir,
        ];
        let mut command = ground.train(&["--enable-lifecycle"]);
        for set in sets {
            command.args(["--set", set]);
        }
        command
    };
    let mut daemon = Daemon::start(train("run"), &ground.path("log"));
    let step = |d: &Daemon| d.status()["step"].as_u64().unwrap_or(0);
    daemon.until("the first steps", |d| step(d) >= 4);
    let outcomes = |d: &Daemon| {
        let (_, metrics) = d.ask("GET", "/metrics").unwrap();
        ["applied", "invalid", "frozen"].map(|name| -> f64 {
            let line = format!("splitmask_config_reloads_total{{outcome=\"{name}\"}} ");
            metrics.lines().find_map(|l| l.strip_prefix(&line)).unwrap().parse().unwrap()
        })
    };
    let (from, began) = (step(&daemon), Instant::now());
    let (mut sent, mut slowest) = (0usize, Duration::ZERO);
    // Which edits of the storm are the last ones when the daemon looks is chance: it goes on until each outcome was there.
    loop {
        put(&ground, &edited(&text, sent));
        daemon.signal("HUP");
        if sent % 3 == 0 {
            let asked = Instant::now();
            let (code, body) = daemon.ask("POST", "/-/reload").expect("an answer");
            slowest = slowest.max(asked.elapsed());
            assert!(matches!(code, 200 | 409 | 422 | 429 | 500), "{code} {body}");
        }
        sent += 1;
        if sent % 20 == 0 {
            assert_eq!(daemon.ask("GET", "/-/healthy").unwrap().0, 200);
            let [applied, invalid, frozen] = outcomes(&daemon);
            if began.elapsed() > Duration::from_secs(3) && applied >= 3.0 && invalid >= 1.0 && frozen >= 1.0 {
                break;
            }
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "{applied} applied, {invalid} invalid, {frozen} frozen"
            );
        }
        let due = Duration::from_millis(10) * sent as u32;
        std::thread::sleep(due.saturating_sub(began.elapsed()));
    }
    let steps_taken = step(&daemon) - from;
    put(&ground, &text.replace("keep = 2", "keep = 4"));
    daemon.until("the last one", |d| {
        let (_, config) = d.ask("GET", "/api/v1/config").unwrap_or_default();
        let config: serde_json::Value = serde_json::from_str(&config).unwrap_or_default();
        let keep = config["settings"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|s| s["path"] == "checkpoint.keep");
        keep.is_some_and(|s| s["value"] == 4)
    });
    let [applied, invalid, frozen] = outcomes(&daemon);
    println!(
        "{sent} edits and signals, {steps_taken} steps meanwhile: {applied} applied, {invalid} invalid, {frozen} frozen, slowest answer {slowest:?}"
    );
    assert!(applied <= 2.0 * (steps_taken as f64 + 2.0), "{applied} in {steps_taken} steps");
    assert!(slowest < Duration::from_secs(20), "{slowest:?}");
    daemon.signal("TERM");
    let status = daemon.child.wait().unwrap();
    assert_eq!(status.code(), Some(75), "{}", daemon.log());
    let have = ground.trace("run");
    let last = have.last().unwrap()["step"].as_u64().unwrap();
    // A run that nobody disturbs, as far as that.
    fs::write(ground.config(), &text).unwrap();
    let mut clean = Daemon::start(train("clean"), &ground.path("clean.log"));
    clean.until("as far as the other came", |d| step(d) > last);
    clean.signal("TERM");
    assert_eq!(clean.child.wait().unwrap().code(), Some(75), "{}", clean.log());
    let want = ground.trace("clean");
    assert_eq!(have[..], want[..have.len()]);
}
