//! Signals at every moment and to every thread, on the real program: heard by one thread, felt by no other.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::ground::{Daemon, Ground, splitmask};

const HELD: [Signal; 4] = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM, Signal::SIGUSR1];

fn send(id: u32, signal: Signal) {
    // Of a process that has ended by itself there is nothing to be told.
    let _ = kill(Pid::from_raw(id as i32), signal);
}

/// (id, name) of every thread of a process.
fn threads(process: u32) -> Vec<(u32, String)> {
    let entries = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    entries
        .filter_map(|e| {
            let id = e.file_name().to_str()?.parse().ok()?;
            let name = fs::read_to_string(e.path().join("comm")).ok()?;
            Some((id, name.trim().to_owned()))
        })
        .collect()
}

/// A mask of `/proc/…/status`, by its name there.
fn mask(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|l| l.strip_prefix(name)).unwrap_or(":0");
    u64::from_str_radix(line.trim_start_matches(':').trim(), 16).unwrap()
}

fn bits(signals: &[Signal]) -> u64 {
    signals.iter().map(|s| 1u64 << (*s as i32 - 1)).sum()
}

/// No thread can be interrupted by a handler, and none takes a signal by chance.
#[track_caller]
fn every_thread_holds_signals(process: u32) {
    let wanted = bits(&HELD);
    for (thread, name) in threads(process) {
        let Ok(status) = fs::read_to_string(format!("/proc/{process}/task/{thread}/status")) else {
            continue;
        };
        // The thread that takes them has them unblocked while it waits in sigwait, which is no handler.
        if name != "signals" {
            assert_eq!(mask(&status, "SigBlk") & wanted, wanted, "{name} can be interrupted");
        }
        assert_eq!(mask(&status, "SigCgt") & wanted, 0, "there is a handler");
    }
}

/// Whether the process holds its signals: it has begun, though perhaps not reached `main`. Before that the system is still loading it.
pub(crate) fn has_begun(child: &Child) -> bool {
    let wanted = bits(&HELD);
    fs::read_to_string(format!("/proc/{}/status", child.id())).map_or(0, |s| mask(&s, "SigBlk")) & wanted == wanted
}

/// Waits until the process has begun.
fn held(child: &Child) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !has_begun(child) {
        assert!(Instant::now() < deadline, "signals are never held");
        std::thread::sleep(Duration::from_micros(200));
    }
}

#[test]
fn a_storm_of_signals_at_the_threads_that_compute_changes_nothing() {
    let ground = Ground::new();
    let set = ["--set", "optim.total_steps=400", "--set", "train.threads=2"];
    let clean = format!("run.dir=\"{}\"", ground.path("clean").display());
    let output = ground.train(&set).args(["--set", &clean]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut daemon = Daemon::start(ground.train(&set), &ground.path("log"));
    daemon.until("the first steps", |d| d.status()["step"].as_u64().is_some_and(|s| s >= 4));
    every_thread_holds_signals(daemon.child.id());
    let (mut sent, began) = (0, Instant::now());
    while daemon.child.try_wait().unwrap().is_none() {
        for (thread, name) in threads(daemon.child.id()) {
            if name == "trainer" || name.starts_with("splitmask") || name.contains("decode") {
                send(thread, Signal::SIGHUP);
                send(thread, Signal::SIGPIPE);
                sent += 2;
            }
        }
        send(daemon.child.id(), Signal::SIGHUP);
        std::thread::sleep(Duration::from_millis(5));
    }
    let rate = f64::from(sent) / began.elapsed().as_secs_f64();
    assert!(rate > 50.0, "only {rate:.0} signals a second");
    let log = daemon.log();
    assert!(log.contains("unchanged"), "they were heard: {log}");
    assert_eq!(daemon.end().code(), Some(0), "{log}");
    assert_eq!(ground.trace("run"), ground.trace("clean"));
}

#[test]
fn a_stop_that_comes_before_main_ends_in_order() {
    let ground = Ground::new();
    for (signal, more) in [
        (Signal::SIGTERM, 0),
        (Signal::SIGINT, 0),
        (Signal::SIGTERM, 100),
        (Signal::SIGTERM, 400),
    ] {
        let child = ground.train(&[]).stderr(Stdio::piped()).spawn().unwrap();
        held(&child);
        std::thread::sleep(Duration::from_millis(more));
        send(child.id(), Signal::SIGHUP);
        send(child.id(), Signal::SIGUSR1);
        send(child.id(), signal);
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(75), "{signal} after {more} ms: {said}");
        assert!(said.contains("stopped"), "{said}");
        assert!(!said.contains("going on"), "{said}");
    }
}

/// A shell has the programs of its background ignore SIGINT, and they hand that on: under such a shell too, these begin as from a terminal.
fn with_default_signals(command: &Command) -> Command {
    let mut env = Command::new("env");
    env.arg("--default-signal=HUP,INT,TERM").arg(command.get_program());
    env.args(command.get_args())
        .envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    env
}

#[test]
fn other_commands_end_by_their_signal_and_run_no_handler() {
    let ground = Ground::new();
    let output = ground.train(&["--set", "optim.total_steps=10"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let commands: [(&str, fn(&Ground) -> Command); 3] = [
        ("bench", |ground| {
            let mut command = splitmask();
            command.args(["bench", "pipeline"]).arg(ground.config());
            command
        }),
        ("eval", |ground| {
            let mut command = splitmask();
            command.args(["eval", "linear"]).arg(ground.path("run"));
            command
        }),
        ("pack", |ground| {
            let mut command = splitmask();
            command.arg("pack").arg(ground.path("images")).arg(ground.path("again"));
            command
        }),
    ];
    for (name, command) in commands {
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            let mut child = with_default_signals(&command(&ground))
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            held(&child);
            send(child.id(), signal);
            let status = child.wait().unwrap();
            assert_eq!(
                std::os::unix::process::ExitStatusExt::signal(&status),
                Some(signal as i32),
                "{name}: {status}"
            );
        }
    }
    // In the middle of its work.
    let mut child = with_default_signals(commands[0].1(&ground).args(["--images", "1000000"]))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while threads(child.id()).len() < 4 {
        assert!(Instant::now() < deadline, "no work is done");
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(Duration::from_millis(200));
    every_thread_holds_signals(child.id());
    send(child.id(), Signal::SIGINT);
    let status = child.wait().unwrap();
    assert_eq!(
        std::os::unix::process::ExitStatusExt::signal(&status),
        Some(Signal::SIGINT as i32),
        "{status}"
    );
    // What the shell told a background job to ignore is ignored.
    let mut ignoring = Command::new("sh");
    ignoring
        .arg("-c")
        .arg("trap '' HUP INT; exec \"$@\"")
        .arg("sh")
        .arg(env!("CARGO_BIN_EXE_splitmask"));
    let mut child = ignoring
        .args(["inspect"])
        .arg(ground.path("data/train"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    held(&child);
    send(child.id(), Signal::SIGHUP);
    send(child.id(), Signal::SIGINT);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn two_stops_at_once_are_one_and_a_later_one_is_impatience() {
    let ground = Ground::new();
    let set = ["--set", "optim.total_steps=1000000"];
    let mut daemon = Daemon::start(ground.train(&set), &ground.path("log"));
    daemon.until("the first steps", |d| d.status()["step"].as_u64().is_some_and(|s| s >= 4));
    let id = daemon.child.id();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGTERM] {
        send(id, signal);
        std::thread::sleep(Duration::from_millis(1));
    }
    let status = daemon.child.wait().unwrap();
    let log = daemon.log();
    assert_eq!(status.code(), Some(75), "{log}");
    let stopped: u64 = log
        .split("stopped at step ")
        .nth(1)
        .unwrap()
        .split(' ')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    assert_eq!(
        splitmask::checkpoint::steps(&ground.path("run/checkpoints")).last(),
        Some(&stopped),
        "{log}"
    );

    // A trainer that hangs obeys nothing; only somebody who waited a second may end the process around it.
    let hang = ["--set", "optim.total_steps=1000000", "--set", "debug.inject=\"hang@4\""];
    let run = format!("run.dir=\"{}\"", ground.path("hung").display());
    let mut command = ground.train(&hang);
    command.args(["--set", &run]);
    let mut daemon = Daemon::start(command, &ground.path("log2"));
    daemon.until("the step before the hang", |d| d.status()["step"].as_u64().is_some_and(|s| s >= 3));
    let id = daemon.child.id();
    send(id, Signal::SIGTERM);
    let began = Instant::now();
    daemon.until("draining", |d| {
        d.ask("GET", "/-/ready")
            .is_some_and(|(code, body)| code == 503 && body.contains("draining"))
    });
    send(id, Signal::SIGTERM);
    std::thread::sleep(Duration::from_millis(1200).saturating_sub(began.elapsed()));
    assert!(daemon.child.try_wait().unwrap().is_none(), "{}", daemon.log());
    send(id, Signal::SIGTERM);
    let status = daemon.child.wait().unwrap();
    let log = daemon.log();
    assert_eq!(status.code(), Some(75), "{log}");
    assert!(log.contains("taken for the same one") && log.contains("stopped at once"), "{log}");
}
