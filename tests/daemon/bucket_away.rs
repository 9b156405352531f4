//! A bucket that does not answer: a run with a checkpoint waits for it in good health, a new one ends, and both hear what they are told.

use std::fs;
use std::time::{Duration, Instant};

use crate::fake::AWAY;
use crate::process::{Daemon, Ground};

fn away_until(ground: &Ground, exists: bool) {
    if exists {
        fs::write(ground.path("bucket"), "").unwrap();
    } else {
        let _ = fs::remove_file(ground.path("bucket"));
    }
}

fn away(ground: &Ground) -> String {
    format!("data.train=\"{AWAY}{}\"", ground.path("bucket").display())
}

/// A run with a checkpoint, whose bucket is away.
fn waiting(ground: &Ground, sets: &[&str]) -> Daemon {
    let bucket = away(ground);
    let all: Vec<&str> = sets.iter().copied().chain([bucket.as_str(), "admin.watch=false"]).collect();
    away_until(ground, true);
    let daemon = ground.daemon(&all).ready();
    daemon.signal("TERM");
    assert_eq!(daemon.end(), 75);
    away_until(ground, false);
    let mut daemon = ground.daemon(&all);
    daemon.until("it waits", |d| {
        d.ask("GET", "/-/ready")
            .is_some_and(|(_, body)| body.starts_with("waiting for the bucket: "))
    });
    daemon
}

#[test]
fn a_run_whose_bucket_is_away_waits_in_good_health_and_goes_on() {
    let ground = Ground::new();
    let mut daemon = waiting(&ground, &[]);
    let (code, why) = daemon.ask("GET", "/-/ready").unwrap();
    assert!(code == 503 && why.contains("connection refused"), "{code} {why}");
    assert_eq!(daemon.ask("GET", "/-/healthy").unwrap().0, 200);
    let (_, status) = daemon.json("GET", "/api/v1/status");
    assert_eq!((&status["state"], &status["ready"]), (&"waiting_for_data".into(), &false.into()));
    assert!(status["waiting"].as_str().unwrap().contains("connection refused"), "{status}");
    assert_eq!(daemon.metric("splitmask_train_bucket_away"), 1.0);
    assert_eq!(daemon.ask("POST", "/-/checkpoint").unwrap().0, 503);
    daemon.until("it tries again by itself", |d| d.log().matches("is tried again").count() >= 2);
    away_until(&ground, true);
    let mut daemon = daemon.ready();
    assert_eq!(daemon.metric("splitmask_train_bucket_away"), 0.0);
    assert!(daemon.json("GET", "/api/v1/status").1["waiting"].is_null());
    // The journal is written by a thread of its own.
    daemon.until("the start is in the journal", |_| {
        let events: Vec<String> = ground.journal().iter().map(|e| e["event"].as_str().unwrap().to_owned()).collect();
        events == ["start", "stop", "waiting", "start"]
    });
    daemon.signal("TERM");
    assert_eq!(daemon.end(), 75);
}

#[test]
fn a_run_that_waits_can_be_stopped_and_reloaded() {
    let ground = Ground::new();
    let daemon = waiting(&ground, &[]);
    let began = Instant::now();
    daemon.signal("TERM");
    assert_eq!(daemon.end(), 75);
    assert!(began.elapsed() < Duration::from_secs(3));

    // The file names the bucket from here on, so that a reload can name another.
    let ground = Ground::new();
    let text = |train: &str| ground.text("").replace("train = \"shards\"", &format!("train = \"{train}\""));
    let bucket = format!("{AWAY}{}", ground.path("bucket").display());
    away_until(&ground, true);
    ground.write(&text(&bucket));
    let daemon = ground.daemon(&["admin.watch=false"]).ready();
    daemon.signal("TERM");
    assert_eq!(daemon.end(), 75);
    away_until(&ground, false);
    let mut daemon = ground.daemon(&["admin.watch=false"]);
    daemon.until("it waits", |d| {
        d.ask("GET", "/-/ready").is_some_and(|(_, body)| body.starts_with("waiting"))
    });
    // A wrong one is refused, and the old one is waited for.
    ground.write(&text("nowhere"));
    let (code, report) = daemon.json("POST", "/-/reload");
    assert_eq!(code, 500, "{report}");
    assert!(report["error"].as_str().unwrap().contains("nowhere: no shards found"), "{report}");
    assert!(daemon.ask("GET", "/-/ready").unwrap().1.starts_with("waiting"));
    ground.write(&text(&bucket).replace("[codebook]", "[optim]\nlr = 1e-7x\n[codebook]"));
    assert_eq!(daemon.json("POST", "/-/reload").0, 422);
    // A live change is in force for the next try.
    ground.write(&text(&bucket).replace("[codebook]", "[optim]\nlr = 1e-4\n[codebook]"));
    let (code, report) = daemon.json("POST", "/-/reload");
    assert_eq!((code, report["outcome"].as_str()), (200, Some("applied")), "{report}");
    assert!(daemon.ask("GET", "/-/ready").unwrap().1.starts_with("waiting"));
    // Another bucket, which is there.
    ground.write(&text("shards"));
    let (code, report) = daemon.json("POST", "/-/reload");
    assert_eq!((code, report["outcome"].as_str()), (200, Some("applied")), "{report}");
    let daemon = daemon.ready();
    assert_eq!(daemon.metric("splitmask_train_bucket_away"), 0.0);
    daemon.signal("TERM");
    assert_eq!(daemon.end(), 75);
}

#[test]
fn a_new_run_whose_bucket_is_away_ends_with_74_after_its_retry_budget() {
    let ground = Ground::new();
    let began = Instant::now();
    let (code, said) = ground.refused(&[&away(&ground), "pipeline.retry_budget_s=2"]);
    assert_eq!(code, 74, "{said}");
    assert!(
        (Duration::from_secs(2)..Duration::from_secs(20)).contains(&began.elapsed()),
        "{:?}",
        began.elapsed()
    );
    assert!(
        said.contains("connection refused") && said.contains("command line: data.train"),
        "{said}"
    );
    assert!(!ground.path("run").exists(), "it left something");
    // Stopped while it waits.
    let mut daemon = ground.daemon(&[&away(&ground)]);
    daemon.until("it waits", |d| d.log().contains("does not answer"));
    daemon.signal("TERM");
    assert_eq!(daemon.end(), 75);
    assert!(!ground.path("run").exists(), "it left something");
}

#[test]
fn a_reload_that_needs_a_new_trainer_while_the_bucket_is_away_keeps_the_old_config() {
    let ground = Ground::new();
    away_until(&ground, true);
    let mut daemon = ground.daemon(&[&away(&ground), "admin.watch=false"]).ready();
    daemon.until("some steps", |d| d.step() > 5);
    away_until(&ground, false);
    ground.write(&ground.text("[train]\nbatch = 64\n"));
    let (code, report) = daemon.json("POST", "/-/reload");
    assert_eq!((code, report["outcome"].as_str()), (500, Some("failed")), "{report}");
    assert!(report["error"].as_str().unwrap().contains("connection refused"), "{report}");
    assert_eq!(daemon.ask("GET", "/-/healthy").unwrap().0, 200);
    away_until(&ground, true);
    let mut daemon = daemon.ready();
    let step = daemon.step();
    daemon.until("the run goes on", |d| d.step() > step + 2);
    assert!(
        ground.read("run/fake.log").lines().last().unwrap().contains("batch=128"),
        "{}",
        ground.read("run/fake.log")
    );
    daemon.signal("TERM");
    assert_eq!(daemon.end(), 75);
}
