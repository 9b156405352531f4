//! SIGTERM at any moment of a run, from before `main` to the last checkpoint: it ends in order, and the run goes on as if it had not been stopped.
#![expect(clippy::print_stdout, reason = "moments and seed are read with --nocapture")]

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::ground::Ground;
use crate::signals::has_begun;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// `SPLITMASK_STOPS=100 SPLITMASK_SEED=… cargo test --test training stops -- --nocapture` is the whole row of the fault matrix.
#[test]
fn a_stop_at_a_random_moment_ends_in_order_and_costs_nothing() {
    let ground = Ground::new();
    let (stops, seed) = (number("SPLITMASK_STOPS", 6), number("SPLITMASK_SEED", 1));
    let train = |run: &str| {
        let dir = format!("run.dir=\"{}\"", ground.path(run).display());
        let mut command = ground.train(&[]);
        for set in [
            "optim.total_steps=300",
            "eval.every_steps=50",
            "model.width=16",
            "train.batch=8",
            &dir,
        ] {
            command.args(["--set", set]);
        }
        command.stderr(fs::File::create(ground.path("log")).unwrap());
        command
    };
    let began = Instant::now();
    assert!(train("clean").status().unwrap().success());
    // Moments are drawn over the whole of a run, a bit beyond its end.
    let whole = began.elapsed().mul_f64(1.1);
    let want = ground.trace("clean");
    let mut random = StdRng::seed_from_u64(seed);
    let (mut stopped, mut finished, mut unborn, mut slowest) = (0, 0, 0, Duration::ZERO);
    let mut n = 0;
    let mut folder = 0;
    while n < stops {
        let run = format!("stopped-{folder}");
        let mut child = train(&run).spawn().unwrap();
        let moment = whole.mul_f64(random.random::<f64>().powi(2));
        std::thread::sleep(moment);
        let ended = child.try_wait().unwrap();
        let begun = has_begun(&child);
        let asked = Instant::now();
        if ended.is_none() {
            // Of a process that has ended by itself there is nothing to be told.
            let _ = kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM);
        }
        let status = child.wait().unwrap();
        let code = status.code();
        slowest = slowest.max(asked.elapsed());
        let log = fs::read_to_string(ground.path("log")).unwrap();
        println!("seed {seed}, stop {n} after {moment:?}: {code:?}");
        match code {
            Some(75) => stopped += 1,
            // All steps were done by then.
            Some(0) => {
                finished += 1;
                assert_eq!(ground.trace(&run), want, "{moment:?}: {log}");
                folder += 1;
            }
            // The system was still loading the program, which a signal ends as it ends any: no line of ours had run.
            None if !begun && log.is_empty() && status.signal() == Some(Signal::SIGTERM as i32) => unborn += 1,
            other => panic!("after {moment:?}: {other:?}: {log}"),
        }
        n += 1;
    }
    println!("{stopped} stopped, {finished} finished, {unborn} ended while they were loaded, slowest end {slowest:?}");
    assert!(stopped > 0, "no stop came before the end");
    assert!(slowest < Duration::from_secs(15), "{slowest:?}");
    let run = format!("stopped-{folder}");
    assert!(
        train(&run).status().unwrap().success(),
        "{}",
        fs::read_to_string(ground.path("log")).unwrap()
    );
    assert_eq!(ground.trace(&run), want);
    let weights = |run: &str| fs::read(ground.path(run).join("checkpoints/step-00000300/model.safetensors")).unwrap();
    assert!(weights(&run) == weights("clean"), "other weights");
}
