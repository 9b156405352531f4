//! One process is no world.

use std::fs;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use super::company::Company;
use super::{EACH, STEPS};
use crate::free_port::free_port;
use crate::ground::{Daemon, Ground};

/// Keeps a run in its sixth step.
const HANG: &str = "debug.inject=\"hang@6\"";

/// The variables of a launcher that starts one process.
fn launcher(port: &str) -> [(&str, &str); 6] {
    [
        ("RANK", "0"),
        ("WORLD_SIZE", "1"),
        ("LOCAL_RANK", "0"),
        ("LOCAL_WORLD_SIZE", "1"),
        ("MASTER_ADDR", "127.0.0.1"),
        ("MASTER_PORT", port),
    ]
}

/// One process touches none of it: the port stays another's, and every bit is that of a start without a launcher.
#[test]
fn a_world_of_one_is_no_world() {
    let ground = Ground::new();
    let held = TcpListener::bind(("127.0.0.1", free_port())).unwrap();
    held.set_nonblocking(true).unwrap();
    let port = held.local_addr().unwrap().port().to_string();
    let run = |run: &str, env: &[(&str, &str)]| {
        let set = format!("run.dir=\"{}\"", ground.path(run).display());
        let done = ground
            .train(&["--set", STEPS, "--set", EACH, "--set", &set])
            .envs(env.iter().copied())
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        ground.trace(run)
    };
    let alone = run("alone", &[]);
    let launched = run("launched", &launcher(&port));
    assert_eq!(alone, launched);
    std::thread::sleep(Duration::from_millis(10));
    assert!(held.accept().is_err(), "nobody came to the port");
}

/// The threads of a process by their names, and how many sockets it holds.
fn footprint(daemon: &Daemon) -> (Vec<String>, usize) {
    let of = |what: &str| fs::read_dir(format!("/proc/{}/{what}", daemon.child.id())).unwrap().flatten();
    let names = of("task").filter_map(|thread| fs::read_to_string(thread.path().join("comm")).ok());
    let mut names: Vec<String> = names.map(|name| name.trim().to_owned()).collect();
    names.sort();
    let files = of("fd").filter_map(|file| fs::read_link(file.path()).ok());
    let sockets = files.filter(|file| file.to_string_lossy().starts_with("socket:")).count();
    (names, sockets)
}

/// In the middle of a step one process has the same threads and sockets with a launcher as without, and two that train together have more.
#[test]
fn a_world_of_one_starts_no_thread_and_opens_no_socket() {
    let ground = Ground::new();
    let port = free_port().to_string();
    let start = |run: &str, env: &[(&str, &str)]| {
        let set = format!("run.dir=\"{}\"", ground.path(run).display());
        let mut command = ground.train(&["--set", HANG, "--set", EACH, "--set", &set]);
        command.envs(env.iter().copied());
        let mut daemon = Daemon::start(command, &ground.path(&format!("{run}.log")));
        daemon.until("the step before the one that it stays in", |d| d.status()["step"] == 5);
        daemon
    };
    let (alone, launched) = (start("alone", &[]), start("launched", &launcher(&port)));
    // Threads of the admin server that gave the last answer go a while after it.
    let began = Instant::now();
    while footprint(&alone) != footprint(&launched) {
        let (alone, launched) = (footprint(&alone), footprint(&launched));
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "{launched:?}, without a launcher {alone:?}"
        );
        std::thread::sleep(Duration::from_millis(100));
    }
    let mut company = Company::start(&ground, "two", 2, &[HANG, EACH]);
    company.until_step(5);
    let (one, of_two) = (footprint(&alone), footprint(company.rank(0)));
    assert!(of_two.0.len() > one.0.len() && of_two.1 > one.1, "{of_two:?}, alone {one:?}");
}
