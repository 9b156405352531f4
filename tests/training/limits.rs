//! Clocks that jump, and limits of the machine: open files, the size of files, memory, threads.
#![expect(clippy::print_stdout, reason = "measurements are read with --nocapture")]

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::ground::{Daemon, Ground};
use crate::preload::{Faults, met};

const STEPS: u64 = 300;

/// A small model, whose run takes a second or two.
fn train(ground: &Ground, run: &str) -> Command {
    let dir = format!("run.dir=\"{}\"", ground.path(run).display());
    let steps = format!("optim.total_steps={STEPS}");
    let mut command = ground.train(&[]);
    for set in [
        dir.as_str(),
        &steps,
        "model.width=16",
        "model.depth=1",
        "train.batch=8",
        "picture.every_steps=0",
    ] {
        command.args(["--set", set]);
    }
    command
}

fn undisturbed(ground: &Ground) -> Vec<Value> {
    let output = train(ground, "clean").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    ground.trace("clean")
}

/// A command under limits of the shell, such as `-n 64`.
fn limited(limits: &str, command: &Command) -> Command {
    let mut shell = Command::new("bash");
    shell
        .arg("-c")
        .arg(format!("ulimit {limits} && exec \"$@\""))
        .arg("bash")
        .arg(command.get_program());
    shell.args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell
}

fn finished(mut daemon: Daemon, ground: &Ground, want: &[Value]) {
    let status = daemon.child.wait().unwrap();
    assert_eq!(status.code(), Some(0), "{}", daemon.log());
    assert_eq!(ground.trace("run"), want);
}

#[test]
fn a_clock_that_jumps_by_a_day_changes_nothing() {
    let ground = Ground::new();
    let want = undisturbed(&ground);
    let clock = ground.path("clock");
    fs::write(&clock, "0").unwrap();
    let mut command = train(&ground, "run");
    command.args(["--set", "admin.watchdog_exit=true", "--set", "log.every_steps=4"]);
    Faults::below(&ground.path("run")).clock(&clock).preload(&mut command);
    let mut daemon = Daemon::start(command, &ground.path("log"));
    for (n, jump) in [86_400, -86_400, 3_600, -1, 0].into_iter().enumerate() {
        let after = 30 * (n as u64 + 1);
        daemon.until("the step of the jump", |d| d.status()["step"].as_u64().is_some_and(|s| s >= after));
        fs::write(&clock, jump.to_string()).unwrap();
        assert_eq!(daemon.ask("GET", "/-/healthy").unwrap().0, 200, "after a jump by {jump} s");
        let rate = daemon.status()["images_per_second"].as_f64().unwrap();
        assert!((0.0..1e6).contains(&rate), "{rate} images a second after a jump by {jump} s");
    }
    let log = daemon.log();
    finished(daemon, &ground, &want);
    assert!(!log.contains("no progress"), "{log}");
    // The jump was there to be seen: wall time is told as the clock says.
    let text = fs::read_to_string(ground.path("run/metrics.jsonl")).unwrap();
    let times: Vec<f64> = text
        .lines()
        .map(|l| serde_json::from_str::<Value>(l).unwrap()["time"].as_f64().unwrap())
        .collect();
    let span = times.iter().copied().fold(f64::MIN, f64::max) - times.iter().copied().fold(f64::MAX, f64::min);
    assert!(span > 86_400.0, "{span}");
    let seconds = text
        .lines()
        .filter_map(|l| serde_json::from_str::<Value>(l).unwrap()["images_per_second"].as_f64());
    for rate in seconds {
        assert!(rate > 0.0 && rate < 1e6, "{rate} images a second");
    }
}

/// Open files of a process.
fn open_files(process: u32) -> usize {
    fs::read_dir(format!("/proc/{process}/fd")).map_or(0, |entries| entries.count())
}

/// A field of `/proc/…/status`: a number, or kB.
fn field(process: u32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix(name)).unwrap_or(": 0");
    line.trim_start_matches(':').split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn files_that_run_out_are_waited_for_and_none_is_left_open() {
    let ground = Ground::new();
    let want = undisturbed(&ground);
    let flag = ground.path("no-files");
    // No new file can be opened: shards, checkpoints, lines, the config.
    let faults = Faults::below(&ground.path("")).meet("open*", "*", 0, "EMFILE").only_while(&flag);
    let mut command = train(&ground, "run");
    faults.preload(&mut command);
    let mut daemon = Daemon::start(command, &ground.path("log"));
    daemon.until("the first checkpoint", |d| {
        d.status()["last_checkpoint_step"].as_u64().is_some_and(|s| s >= 15)
    });
    fs::write(&flag, "").unwrap();
    daemon.until("trouble", |d| d.log().contains("Too many open files"));
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(2) {
        assert_eq!(daemon.ask("GET", "/-/healthy").unwrap().0, 200);
        std::thread::sleep(Duration::from_millis(100));
    }
    fs::remove_file(&flag).unwrap();
    finished(daemon, &ground, &want);

    // A disk that stumbles while shards are read, twice and three times in a row.
    let mut faults = Faults::below(&ground.path("data"));
    for nth in [3, 4, 40, 41, 42] {
        faults = faults.meet("read", "train/*.tar", nth, "EIO");
    }
    let log = ground.path("stumbles.calls");
    let mut command = train(&ground, "stumbles");
    let output = faults.logged(&log).preload(&mut command).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(met(&log).len(), 5);
    assert_eq!(ground.trace("stumbles"), want);

    // A limit of the process is enough for all that it needs, and use of files and threads does not grow.
    let mut command = train(&ground, "few");
    command.args(["--set", "optim.total_steps=1000000"]);
    let mut daemon = Daemon::start(limited("-n 128", &command), &ground.path("few.log"));
    let step = |d: &Daemon| d.status()["step"].as_u64().unwrap_or(0);
    daemon.until("some steps", |d| step(d) >= 60);
    let process = daemon.child.id();
    let look = |d: &mut Daemon, more: u64| {
        let (mut files, mut threads, from) = (0, 0, step(d));
        d.until("more steps", |d| {
            files = files.max(open_files(process));
            threads = threads.max(field(process, "Threads"));
            step(d) >= from + more
        });
        (files, threads)
    };
    let early = look(&mut daemon, 100);
    let late = look(&mut daemon, 300);
    println!("(open files, threads) at most: {early:?} early, {late:?} later");
    // Pools of threads grow with the load of the machine; one more for each of the 20 checkpoints would be a leak.
    assert!(late.0 <= early.0 + 8 && late.1 <= early.1 + 8, "{early:?} {late:?}");
    assert!(late.0 < 100);
}

#[test]
fn a_file_that_may_not_grow_is_a_failed_write_and_no_end() {
    let ground = Ground::new();
    let want = undisturbed(&ground);
    let moments = fs::metadata(ground.path("clean/checkpoints/step-00000300/optimizer.safetensors"))
        .unwrap()
        .len();
    // In KiB: the largest file of a checkpoint does not fit, everything else does.
    let command = train(&ground, "run");
    let mut daemon = Daemon::start(limited(&format!("-f {}", moments * 9 / 10 / 1024), &command), &ground.path("log"));
    daemon.until("checkpoints that fail", |d| {
        d.log().matches("a checkpoint could not be written").count() >= 2
    });
    assert!(daemon.log().contains("File too large"), "{}", daemon.log());
    daemon.signal("KILL");
    assert!(!daemon.end().success());
    let daemon = Daemon::start(train(&ground, "run"), &ground.path("log"));
    finished(daemon, &ground, &want);
}

#[test]
fn memory_stays_where_it_is_and_too_little_of_it_is_told() {
    let ground = Ground::new();
    let mut command = train(&ground, "long");
    command.args(["--set", "optim.total_steps=1000000", "--set", "eval.every_steps=50"]);
    let mut daemon = Daemon::start(command, &ground.path("long.log"));
    let process = daemon.child.id();
    let step = |d: &Daemon| d.status()["step"].as_u64().unwrap_or(0);
    daemon.until("it is warm", |d| step(d) >= 200);
    let (early, space) = (field(process, "VmHWM"), field(process, "VmPeak"));
    daemon.until("many steps", |d| step(d) >= 800);
    let late = field(process, "VmHWM");
    println!("peak memory {early} kB after 200 steps, {late} kB after 800; address space {space} kB");
    assert!(late < early + (24 << 10), "{early} kB became {late} kB");
    daemon.signal("TERM");
    assert_eq!(daemon.end().code(), Some(75));

    // With a tenth more than it takes, all is as ever.
    let want = undisturbed(&ground);
    let daemon = Daemon::start(
        limited(&format!("-v {}", space + space / 10), &train(&ground, "run")),
        &ground.path("log"),
    );
    finished(daemon, &ground, &want);

    // With much less it ends: in words with 74 where libtorch or a thread finds no room; an allocation of Rust's own aborts the process. Whatever it was,
    // nothing is damaged, and with more memory the run goes on to its end.
    let mut ends = Vec::new();
    for hundredths in [25, 35, 40, 45, 50] {
        let mut tight = train(&ground, "tight");
        tight.env("RUST_BACKTRACE", "1");
        let mut command = limited(&format!("-v {}", space * hundredths / 100), &tight);
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        println!(
            "{hundredths} hundredths of the address space: {:?}: {}",
            output.status,
            said.lines().last().unwrap_or_default()
        );
        assert!(!said.contains("this is a bug"), "{hundredths} hundredths: {said}");
        assert_eq!(
            said.contains("panicked at"),
            said.contains("no backtrace"),
            "{hundredths} hundredths: {said}"
        );
        // Too little for libtorch's own initialisers, which run before ours: the linker says so (127), or the process dies without a word.
        let before_main = said.is_empty() || output.status.code() == Some(127);
        // oneDNN writes through a null pointer where its compiler finds no room for a kernel (libtorch 2.11, `jit_avx_gemv_t_f32_kern_t`): 11.
        assert!(
            before_main || matches!(output.status.signal(), Some(6 | 11)) || matches!(output.status.code(), Some(0 | 74)),
            "{hundredths} hundredths: {:?}: {said}",
            output.status
        );
        ends.push(output.status.success());
    }
    assert!(ends.contains(&false), "no limit was too tight");
    let output = train(&ground, "tight").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !said.contains("damaged"), "{said}");
    // Where oneDNN finds room for a kernel's slower form alone, it takes that one without a word, which rounds otherwise: a step that was taken so is the
    // same up to rounding, and on the same batch.
    let of_data =
        |line: &Value| ["step", "epoch", "images", "learning_rate", "token_entropy", "codebook_perplexity"].map(|key| line[key].clone());
    let got = ground.trace("tight");
    assert_eq!(
        got.iter().map(of_data).collect::<Vec<_>>(),
        want.iter().map(of_data).collect::<Vec<_>>()
    );
    for (got, want) in got.iter().zip(&want) {
        let [got, want] = [got, want].map(|line| line["total"].as_f64().unwrap());
        assert!((got / want - 1.0).abs() < 0.1, "{got} {want}");
    }
}
