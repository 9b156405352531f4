//! A program under test that hangs must not hang the suite: after [`limit`] it is killed, and where its threads stood is told on stderr. The test that
//! waits for it then fails with what that test has to say.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Once;
use std::time::{Duration, Instant};

/// Far more than any program of the suite takes, also on a machine that does much else; more where a test is asked to take long (`SPLITMASK_OUTAGE_S`).
pub(super) fn limit() -> Duration {
    let outage = std::env::var("SPLITMASK_OUTAGE_S").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(600 + outage.unwrap_or(0))
}

/// From now on no program under test that this process starts, itself or through others, runs for longer.
pub(super) fn watch() {
    static WATCHED: Once = Once::new();
    WATCHED.call_once(|| {
        std::thread::spawn(look_about);
    });
}

/// A process, and when it began in the kernel's ticks: numbers of processes are given again.
type Process = (u32, u64);

fn look_about() {
    let mut since: HashMap<Process, Instant> = HashMap::new();
    loop {
        let now = Instant::now();
        let running = under_test();
        since.retain(|process, _| running.contains(process));
        for process in running {
            if now.duration_since(*since.entry(process).or_insert(now)) > limit() {
                end(process.0);
            }
        }
        std::thread::sleep(Duration::from_secs(5));
    }
}

/// Processes of the program that this one started, itself or through others.
fn under_test() -> Vec<Process> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let program = Path::new(env!("CARGO_BIN_EXE_splitmask")).canonicalize().ok();
    numbers
        .filter(|id| fs::read_link(format!("/proc/{id}/exe")).ok() == program && descends(*id))
        .filter_map(|id| Some((id, stat(id)?.1)))
        .collect()
}

fn descends(mut id: u32) -> bool {
    while let Some((parent, _)) = stat(id).filter(|(parent, _)| *parent != 0) {
        if parent == std::process::id() {
            return true;
        }
        id = parent;
    }
    false
}

/// Parent and beginning of a process, by proc(5).
fn stat(id: u32) -> Option<(u32, u64)> {
    let text = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // Its name comes second, in parentheses, and may have any.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    Some((fields.get(1)?.parse().ok()?, fields.get(19)?.parse().ok()?))
}

#[expect(clippy::print_stderr, reason = "a log of CI is to name what hung")]
fn end(id: u32) {
    let of = |path: &str| fs::read_to_string(format!("/proc/{id}/{path}")).unwrap_or_default();
    eprintln!("\nprocess {id} is killed after {:?}: {}", limit(), of("cmdline").replace('\0', " "));
    for thread in fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten().flatten() {
        let thread = thread.file_name().to_string_lossy().into_owned();
        let of = |name: &str| of(&format!("task/{thread}/{name}")).trim().to_owned();
        eprintln!("  {thread} {}: in {}, {}", of("comm"), of("wchan"), of("syscall"));
    }
    let _ = Command::new("kill").args(["-KILL", &id.to_string()]).status();
}

#[test]
fn programs_under_test_are_found_and_killed_and_other_processes_are_not_found() {
    use std::os::unix::process::ExitStatusExt as _;

    let ground = super::Ground::new();
    let mut endless = ground.train(&["--set", "optim.total_steps=1000000"]);
    let mut child = endless.stderr(std::process::Stdio::null()).spawn().unwrap();
    let began = Instant::now();
    let found = || under_test().iter().any(|process| process.0 == child.id());
    // Until it is executed it is a copy of this process.
    while !found() {
        assert!(began.elapsed() < Duration::from_secs(60), "it is not found");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(!under_test().iter().any(|process| process.0 == std::process::id()));
    end(child.id());
    assert_eq!(child.wait().unwrap().signal(), Some(9));
}
