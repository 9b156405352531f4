//! The checkpoint that a run ends with: one for a step, and tried again where the disk refuses it.

use std::fs;

use crate::ground::{Daemon, Ground};

/// A run whose checkpoints cannot be written from the moment on at which this returns: a file has the place of their folder.
fn without_room(ground: &Ground, run: &str, set: &[&str]) -> Daemon {
    let dir = format!("run.dir=\"{}\"", ground.path(run).display());
    let mut command = ground.train(&["--set", "checkpoint.every_steps=1000000", "--set", &dir]);
    command.args(set);
    let mut daemon = Daemon::start(command, &ground.path(&format!("{run}.log")));
    daemon.until("the first steps", |d| d.status()["step"].as_u64().is_some_and(|s| s >= 4));
    fs::write(ground.path(run).join("checkpoints"), "").unwrap();
    daemon
}

fn give_room(ground: &Ground, run: &str) {
    fs::remove_file(ground.path(run).join("checkpoints")).unwrap();
}

fn steps(ground: &Ground, run: &str) -> Vec<u64> {
    splitmask::checkpoint::steps(&ground.path(run).join("checkpoints"))
}

#[test]
fn a_finished_training_waits_for_room_and_loses_nothing() {
    let ground = Ground::new();
    let text = ground.config_text().replace("total_steps = 120", "total_steps = 1000000");
    fs::write(ground.config(), &text).unwrap();
    let mut daemon = without_room(&ground, "run", &["--enable-lifecycle"]);
    fs::write(ground.config(), text.replace("total_steps = 1000000", "total_steps = 11")).unwrap();
    daemon.until("the pause", |d| d.status()["state"] == "paused");
    let (code, why) = daemon.ask("GET", "/-/ready").unwrap();
    assert!(
        code == 503 && why.contains("last checkpoint cannot be written") && why.contains("make room"),
        "{code} {why}"
    );
    let (_, metrics) = daemon.ask("GET", "/metrics").unwrap();
    assert!(metrics.contains("splitmask_train_paused{reason=\"disk\"} 1"), "{metrics}");
    let step = daemon.status()["step"].as_u64().unwrap();
    give_room(&ground, "run");
    let status = daemon.child.wait().unwrap();
    assert_eq!(status.code(), Some(0), "{}", daemon.log());
    assert_eq!(steps(&ground, "run"), [step]);
    assert_eq!(ground.trace("run").last().unwrap()["step"].as_u64().unwrap(), step / 4 * 4);
}

#[test]
fn a_link_to_checkpoints_that_are_not_there_is_refused_before_a_step() {
    let ground = Ground::new();
    fs::create_dir_all(ground.path("run")).unwrap();
    std::os::unix::fs::symlink(ground.path("unmounted"), ground.path("run/checkpoints")).unwrap();
    let dir = format!("run.dir=\"{}\"", ground.path("run").display());
    let refused = ground.train(&["--set", &dir]).output().unwrap();
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(64), "{told}");
    assert!(
        told.contains("link to a place that is not there") && told.contains("is its disk mounted?"),
        "{told}"
    );
    assert!(!ground.path("run/metrics.jsonl").exists());
}

#[test]
fn a_stop_tries_its_checkpoint_until_the_grace_is_over() {
    let ground = Ground::new();
    let set = ["--set", "optim.total_steps=1000000"];
    let mut daemon = without_room(&ground, "run", &set);
    daemon.signal("TERM");
    daemon.until("the first try", |d| d.log().contains("it is tried again"));
    give_room(&ground, "run");
    let status = daemon.child.wait().unwrap();
    assert_eq!(status.code(), Some(75), "{}", daemon.log());
    assert_eq!(steps(&ground, "run").len(), 1);

    let mut daemon = without_room(&ground, "full", &[set[0], set[1], "--set", "admin.grace_s=2"]);
    daemon.signal("TERM");
    let status = daemon.child.wait().unwrap();
    let log = daemon.log();
    assert_eq!(status.code(), Some(74), "{log}");
    assert!(
        log.contains("the run goes on from the one before") && log.contains("make room"),
        "{log}"
    );
}

#[test]
fn many_who_ask_at_one_step_get_one_checkpoint_and_so_does_the_last() {
    let ground = Ground::new();
    let set = ["--set", "optim.total_steps=1000000", "--set", "checkpoint.every_steps=1000000"];
    let mut daemon = Daemon::start(ground.train(&set), &ground.path("log"));
    daemon.until("the first steps", |d| d.status()["step"].as_u64().is_some_and(|s| s >= 4));
    for _ in 0..60 {
        daemon.signal("USR1");
    }
    daemon.signal("TERM");
    let status = daemon.child.wait().unwrap();
    let log = daemon.log();
    assert_eq!(status.code(), Some(75), "{log}");
    let written: Vec<&str> = log.lines().filter(|line| line.contains("INFO checkpoint step=")).collect();
    let step = |line: &&str| line.split("step=").nth(1).unwrap().split(' ').next().unwrap().to_owned();
    let mut once: Vec<String> = written.iter().map(step).collect();
    once.dedup();
    assert!(
        !written.is_empty() && once.len() == written.len(),
        "a step was written twice: {written:?}"
    );

    // The last step is one at which a checkpoint is due.
    let output = ground
        .train(&[
            "--set",
            "optim.total_steps=20",
            "--set",
            "checkpoint.every_steps=10",
            "--set",
            "run.dir=\"RUN\"",
        ])
        .current_dir(ground.dir.path())
        .output()
        .unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{log}");
    assert_eq!(log.matches("checkpoint step=20 ").count(), 1, "{log}");
}
