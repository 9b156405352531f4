//! Editing the config of a running daemon, and what it refuses.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::ground::{Daemon, Ground, splitmask};

#[test]
fn an_edited_config_is_applied_and_a_typo_refused() {
    let ground = Ground::new();
    let mut daemon = Daemon::start(
        ground.train(&["--set", "optim.total_steps=1000000", "--enable-lifecycle"]),
        &ground.path("log"),
    );
    daemon.until("the first steps", |d| d.status()["step"].as_u64().is_some_and(|s| s >= 4));
    let metric = |d: &Daemon, line: &str| d.ask("GET", "/metrics").is_some_and(|(_, body)| body.lines().any(|l| l == line));

    // A learning rate (live) and a worker count (rebuild), by the file watch alone.
    let edited = ground
        .config_text()
        .replace("lr = 1e-3", "lr = 5e-4")
        .replace("workers = 2", "workers = 3");
    fs::write(ground.config(), &edited).unwrap();
    daemon.until("the edit is applied", |d| {
        metric(d, "splitmask_config_reloads_total{outcome=\"applied\"} 1")
    });
    daemon.until("the new rate", |d| {
        d.status()["learning_rate"].as_f64().is_some_and(|lr| (lr - 5e-4).abs() < 1e-6)
    });
    // A number may be there before its line of the log.
    daemon.until("the key in the log", |d| d.log().contains("optim.lr"));

    // A typo: refused, named, and the run goes on.
    fs::write(ground.config(), edited.replace("lr = 5e-4", "lrr = 5e-4")).unwrap();
    daemon.until("the typo is refused", |d| {
        metric(d, "splitmask_config_reloads_total{outcome=\"invalid\"} 1")
    });
    daemon.until("the typo in the metrics and the log", |d| {
        metric(d, "splitmask_config_last_reload_successful 0") && d.log().contains("lrr")
    });
    let before = daemon.status()["step"].as_u64().unwrap();
    daemon.until("more steps", |d| d.status()["step"].as_u64().is_some_and(|s| s > before + 3));

    // A frozen key by POST: 409, named.
    fs::write(ground.config(), edited.replace("depth = 2", "depth = 3")).unwrap();
    daemon.until("the frozen key is refused", |d| {
        metric(d, "splitmask_config_reloads_total{outcome=\"frozen\"} 1") || d.ask("POST", "/-/reload").is_some_and(|(code, _)| code == 409)
    });
    daemon.until("the frozen key in the log", |d| d.log().contains("model.depth"));

    // A batch size: the trainer is rebuilt in the process, from a checkpoint.
    fs::write(ground.config(), edited.replace("batch = 16", "batch = 8")).unwrap();
    daemon.until("the restart", |d| {
        metric(d, "splitmask_config_reloads_total{outcome=\"applied\"} 2")
    });
    let before = daemon.status()["step"].as_u64().unwrap();
    daemon.until("steps of the rebuilt trainer", |d| {
        d.status()["step"].as_u64().is_some_and(|s| s > before + 3)
    });

    // Metrics are well-formed by Prometheus's own tool.
    let (code, metrics) = daemon.ask("GET", "/metrics").unwrap();
    assert_eq!(code, 200);
    let mut tool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool of the Debian package `prometheus` is needed: `make setup`");
    tool.stdin.take().unwrap().write_all(metrics.as_bytes()).unwrap();
    let checked = tool.wait_with_output().unwrap();
    assert!(
        checked.status.success(),
        "{}{}",
        String::from_utf8_lossy(&checked.stdout),
        String::from_utf8_lossy(&checked.stderr)
    );

    let (code, body) = daemon.ask("POST", "/-/checkpoint").unwrap();
    assert_eq!(code, 200, "{body}");
    assert_eq!(daemon.ask("POST", "/-/quit").unwrap().0 / 100, 2);
    assert_eq!(daemon.end().code(), Some(75));
}

/// (what, arguments, words that the message must hold)
const REFUSED: &[(&str, &[&str], &[&str])] = &[
    ("unknown key", &["--set", "optim.lrr=1e-3"], &["optim.lrr", "optim.lr"]),
    ("mistyped value", &["--set", "optim.lr=\"fast\""], &["optim.lr", "fast"]),
    ("out of range", &["--set", "train.batch=0"], &["train.batch", "0"]),
    ("empty bucket", &["--set", "data.train=\"EMPTY\""], &["EMPTY", "splitmask pack"]),
    (
        "pattern without match",
        &["--set", "data.train=\"DATA/train/nothing-*.tar\""],
        &["nothing-*.tar"],
    ),
    ("codebook of another size", &["--set", "model.patch=4"], &["words.safetensors"]),
    (
        "missing codebook",
        &["--set", "codebook.path=\"nowhere.safetensors\""],
        &["nowhere.safetensors"],
    ),
];

#[test]
fn bad_input_exits_64_with_a_hint_and_writes_nothing() {
    let ground = Ground::new();
    fs::create_dir(ground.path("empty")).unwrap();
    let fill = |text: &str| {
        text.replace("EMPTY", &ground.path("empty").display().to_string())
            .replace("DATA", &ground.path("data").display().to_string())
    };
    for (what, arguments, words) in REFUSED {
        let arguments: Vec<String> = arguments.iter().map(|a| fill(a)).collect();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let output = ground.train(&arguments).output().unwrap();
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{what}: {message}");
        for word in *words {
            assert!(message.contains(&fill(word)), "{what}: {word:?} is not in: {message}");
        }
        assert!(!ground.path("run/checkpoints").exists(), "{what}: something was written");
        assert!(!ground.path("run/metrics.jsonl").exists(), "{what}: something was written");
    }
}

/// It may be back tomorrow: that is no fault of the config.
#[test]
fn a_new_run_whose_bucket_does_not_answer_ends_with_74_and_writes_nothing() {
    let ground = Ground::new();
    let set = [
        "--set",
        "data.train=\"http://127.0.0.1:9/x\"",
        "--set",
        "pipeline.retry_budget_s=0.2",
    ];
    let output = ground.train(&set).output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(74), "{message}");
    assert!(message.contains("127.0.0.1:9") && message.contains("hint: "), "{message}");
    assert!(!ground.path("run/checkpoints").exists() && !ground.path("run/metrics.jsonl").exists());
}

#[test]
fn a_checkpoint_of_another_geometry_and_a_run_in_use_are_refused() {
    let ground = Ground::new();
    let output = ground.train(&["--set", "optim.total_steps=10"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let output = ground.train(&["--set", "model.depth=3"]).output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(64), "{message}");
    assert!(message.contains("model.depth"), "{message}");

    let mut daemon = Daemon::start(ground.train(&["--set", "optim.total_steps=1000000"]), &ground.path("log"));
    daemon.until("a step", |d| d.status()["step"].as_u64().is_some_and(|s| s > 10));
    let output = ground.train(&[]).output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(64), "{message}");
    assert!(message.contains("in use"), "{message}");
}

#[test]
fn corrupt_members_past_the_budget_end_the_run_with_74_after_a_checkpoint() {
    let ground = Ground::new();
    // Every shard's image bytes are damaged in the middle, headers and tar structure kept.
    let train = ground.path("data/train");
    for entry in fs::read_dir(&train)
        .unwrap()
        .flatten()
        .filter(|e| e.path().extension().is_some_and(|x| x == "tar"))
    {
        let mut bytes = fs::read(entry.path()).unwrap();
        let starts: Vec<usize> = bytes.windows(4).enumerate().filter(|(_, w)| w == b"IDAT").map(|(i, _)| i).collect();
        for at in starts {
            for b in &mut bytes[at + 4..at + 24] {
                *b ^= 0x5a;
            }
        }
        fs::write(entry.path(), bytes).unwrap();
    }
    let output = ground.train(&["--set", "data.failure_budget=0.2"]).output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(74), "{message}");
    assert!(message.contains("corrupt"), "reasons are named: {message}");
    assert!(
        !splitmask::checkpoint::steps(&ground.path("run/checkpoints")).is_empty(),
        "a checkpoint was written"
    );
}

/// Stderr on a full disk: supervisors go by the exit code, which stays what it is.
#[test]
fn a_log_that_cannot_be_written_changes_no_exit_code() {
    let full = || fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let unread = |mut command: Command| command.stdout(full()).stderr(full()).spawn().unwrap();
    let mut report = splitmask();
    report.args(["report", "/no/such/run"]);
    assert_eq!(unread(report).wait().unwrap().code(), Some(64));
    let mut help = splitmask();
    help.arg("--help");
    assert_eq!(unread(help).wait().unwrap().code(), Some(74), "stdout is what was asked for");
    let ground = Ground::new();
    let mut trained = unread(ground.train(&["--set", "optim.total_steps=1000000"]));
    while !fs::exists(ground.path("run/metrics.jsonl")).unwrap() {
        assert!(trained.try_wait().unwrap().is_none(), "it ended before its first line");
        std::thread::sleep(Duration::from_millis(20));
    }
    kill(Pid::from_raw(trained.id() as i32), Signal::SIGTERM).unwrap();
    assert_eq!(trained.wait().unwrap().code(), Some(75));
}
