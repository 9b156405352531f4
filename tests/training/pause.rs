//! A pause that somebody asks for: behind a checkpoint, for as long as nobody ends it, over reloads, and without a trace in the losses.

use std::fs;

use serde_json::Value;

use crate::ground::{Daemon, Ground};

/// Enough of them that a person could ask in the middle.
const STEPS: &str = "optim.total_steps=240";

fn asked(daemon: &Daemon, path: &str) -> (u16, Value) {
    let (code, body) = daemon
        .ask("POST", path)
        .unwrap_or_else(|| panic!("{path}: no answer\n{}", daemon.log()));
    (code, serde_json::from_str(&body).unwrap())
}

#[test]
fn a_paused_run_stands_still_over_reloads_and_goes_on_with_the_same_losses() {
    let ground = Ground::new();
    let clean = format!("run.dir=\"{}\"", ground.path("clean").display());
    let output = ground.train(&["--set", STEPS, "--set", &clean]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let mut daemon = Daemon::start(ground.train(&["--set", STEPS, "--enable-lifecycle"]), &ground.path("log"));
    daemon.until("it is ready", |d| d.ask("GET", "/-/ready").is_some_and(|(code, _)| code == 200));
    let (code, at) = asked(&daemon, "/-/pause");
    assert_eq!(code, 200, "{at}");
    let step = at["step"].as_u64().unwrap();
    assert!(fs::exists(at["checkpoint"].as_str().unwrap()).unwrap(), "{at}");
    // Asking twice is asking once.
    assert_eq!(asked(&daemon, "/-/pause"), (200, at));
    let stands = |d: &Daemon, when: &str| {
        let status = d.status();
        assert_eq!(
            (&status["state"], &status["pause_asked"], status["step"].as_u64()),
            (&"paused".into(), &true.into(), Some(step)),
            "{when}"
        );
    };
    stands(&daemon, "at once");
    let (code, why) = daemon.ask("GET", "/-/ready").unwrap();
    assert!(code == 503 && why.contains("paused: asked for"), "{code} {why}");
    assert_eq!(daemon.ask("GET", "/-/healthy").unwrap().0, 200);
    let paused = |d: &Daemon| {
        d.ask("GET", "/metrics")
            .unwrap()
            .1
            .contains("splitmask_train_paused{reason=\"asked\"} 1\n")
    };
    assert!(paused(&daemon));

    // A key that is live, one that needs another pipeline, and one that needs another trainer: all are taken, and none ends the pause.
    let texts = [
        ("every_steps = 15", "every_steps = 14"),
        ("workers = 2", "workers = 1"),
        ("threads = 1", "threads = 2"),
    ];
    let mut text = ground.config_text();
    for (old, new) in texts {
        text = text.replace(old, new);
        fs::write(ground.config(), &text).unwrap();
        // The file watch may be quicker than this reload; either way the change is in force.
        daemon.until(new, |d| {
            let (code, answer) = asked(d, "/-/reload");
            assert!(code == 200 || code == 429 || code == 503, "{new}: {code} {answer}");
            answer["outcome"] == "unchanged"
        });
        stands(&daemon, new);
    }
    text = text.replace("threads = 2", "threads = 1");
    fs::write(ground.config(), &text).unwrap();
    daemon.until("one thread again", |d| asked(d, "/-/reload").1["outcome"] == "unchanged");
    stands(&daemon, "before it goes on");

    let (code, at) = asked(&daemon, "/-/resume");
    assert_eq!((code, at["step"].as_u64()), (200, Some(step)), "{at}");
    let status = daemon.child.wait().unwrap();
    assert!(status.success(), "{}", daemon.log());
    assert_eq!(ground.trace("run"), ground.trace("clean"), "same stream, same losses");
    let journal = fs::read_to_string(ground.path("run/journal.jsonl")).unwrap();
    let pauses: Vec<Value> = journal
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|line| line["event"] == "pause")
        .collect();
    let told: Vec<_> = pauses
        .iter()
        .map(|line| (line["trigger"].as_str(), line["outcome"].as_str()))
        .collect();
    assert_eq!(told, [(Some("http"), Some("begun")), (Some("http"), Some("over"))], "{journal}");
}

#[test]
fn a_paused_run_that_is_killed_goes_on_without_its_pause() {
    let ground = Ground::new();
    let mut daemon = Daemon::start(ground.train(&["--set", STEPS, "--enable-lifecycle"]), &ground.path("log"));
    daemon.until("it is ready", |d| d.ask("GET", "/-/ready").is_some_and(|(code, _)| code == 200));
    let (code, at) = asked(&daemon, "/-/pause");
    assert_eq!(code, 200, "{at}");
    daemon.child.kill().unwrap();
    daemon.child.wait().unwrap();
    let output = ground.train(&["--set", STEPS]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(
        told.contains(&format!("going on from the checkpoint at step {}", at["step"])),
        "{told}"
    );
}
