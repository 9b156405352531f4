//! What a rank's process does: the scenario that its environment names.

use std::io::Write;
use std::time::Duration;

use torch_ext::ranks::{Greeting, Launch, Options, Ranks, RanksError, leave_at_once};

use crate::cluster::{SCENARIO, now};
use crate::{alone, collectives, failure, host, joining, reducer, shared_norm};

/// Does nothing unless a test started this process as a rank.
#[test]
fn rank() {
    let Ok(scenario) = std::env::var(SCENARIO) else { return };
    tch::set_num_threads(1);
    let play = [
        alone::play,
        collectives::play,
        failure::play,
        host::play,
        joining::play,
        reducer::play,
        shared_norm::play,
    ];
    assert!(play.iter().any(|play| play(&scenario)), "no scenario {scenario}");
}

/// One line for the test that started this process.
pub(crate) fn report(name: &str, value: impl std::fmt::Display) {
    let mut out = std::io::stdout().lock();
    // The test is gone if this fails.
    let _ = writeln!(out, "# {name} {value}");
    let _ = out.flush();
}

/// From the environment, with short time-outs.
pub(crate) fn options() -> Options {
    let mut o = Options::new(Launch::from_env().unwrap());
    o.greeting = Greeting::default().with("version", &variable("TEST_VERSION").unwrap_or_else(|| "1".into()));
    let time = |key, default| Duration::from_secs_f64(variable(key).map_or(default, |v| v.parse().unwrap()));
    o.join_timeout = time("TEST_JOIN_S", 60.0);
    o.step_timeout = time("TEST_STEP_S", 60.0);
    o.control_timeout = time("TEST_CONTROL_S", 60.0);
    o.checked = variable("TEST_CHECKED").is_some();
    o
}

pub(crate) fn variable(key: &str) -> Option<String> {
    std::env::var(key).ok()
}

pub(crate) fn join() -> Ranks {
    Ranks::join(&options()).unwrap()
}

/// Joins, does `work` and leaves, which every rank must: one that just ends is a failure to the others, who may still be in the last collective.
pub(crate) fn together(work: impl FnOnce(&Ranks)) {
    let ranks = join();
    work(&ranks);
    ranks.leave().unwrap();
}

/// Reports the error and when it came, then leaves as a program should.
pub(crate) fn leave_for(e: &RanksError) -> ! {
    report("at", now().as_secs_f64());
    report("kind", kind(e));
    report("error", e.to_string().replace('\n', " "));
    if let Some(linger) = variable("TEST_LINGER_S") {
        std::thread::sleep(Duration::from_secs_f64(linger.parse().unwrap()));
    }
    leave_at_once(75)
}

pub(crate) fn kind(e: &RanksError) -> &'static str {
    match e {
        RanksError::Environment { .. } => "environment",
        RanksError::Address { .. } => "address",
        RanksError::Late(_) => "late",
        RanksError::Misfit(_) => "misfit",
        RanksError::Taken { .. } => "taken",
        RanksError::Cancelled => "cancelled",
        RanksError::Lost(_) => "lost",
        RanksError::Apart { .. } => "apart",
        RanksError::NoGradient(_) => "no-gradient",
        RanksError::Drift(_) => "drift",
        RanksError::Nccl(_) => "nccl",
        RanksError::Usage { .. } => "usage",
        RanksError::Torch(_) => "torch",
    }
}
