//! What happens to all ranks where one fails.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::company::{Company, close, progress, steps};
use super::{EACH, trace};
use crate::free_port::free_port;
use crate::ground::{Daemon, Ground};

#[test]
fn what_is_not_finite_on_one_rank_is_skipped_by_all() {
    let ground = Ground::new();
    let want = trace(&ground, "one", 1, &["debug.inject=\"nan@5\""]);
    let have = trace(&ground, "two", 2, &["debug.inject=\"nan@5#1\""]);
    assert!(have[4]["total"].is_null() && want[4]["total"].is_null());
    close(&want, &have, 1e-5);
}

#[test]
fn a_rollback_is_made_by_all() {
    let ground = Ground::new();
    let sets = |inject: &str| {
        let own = [
            "optim.total_steps=40",
            EACH,
            "checkpoint.every_steps=5",
            "stability.check_every_steps=5",
            "stability.nonfinite_run=3",
        ];
        let own = own.map(str::to_owned);
        own.into_iter().chain([format!("debug.inject=\"{inject}\"")]).collect::<Vec<_>>()
    };
    Company::start_each(&ground, "one", 1, &|_| sets("nan@18-22")).finish();
    Company::start_each(&ground, "two", 2, &|_| sets("nan@18-22#1")).finish();
    let told = |run: &str| ground.trace(run).iter().filter(|line| line.get("rollback").is_some()).count();
    assert_eq!((told("one"), told("two")), (1, 1));
    close(&steps(ground.trace("one")), &steps(ground.trace("two")), 1e-4);
    assert_eq!(progress(&ground, "one")["word_counts"], progress(&ground, "two")["word_counts"]);
}

/// What is asked for during the step before a rollback is not forgotten with what is rolled back.
#[test]
fn a_stop_that_is_heard_just_before_a_rollback_stops_all_behind_it() {
    let ground = Ground::new();
    let sets = [
        "optim.total_steps=400",
        EACH,
        "checkpoint.every_steps=5",
        "stability.check_every_steps=5",
        "stability.nonfinite_run=3",
        "debug.inject=\"slow@19,nan@18-22\"",
    ];
    let mut company = Company::start(&ground, "run", 2, &sets);
    company.until_step(18);
    company.rank(1).signal("TERM");
    for rank in 0..2 {
        let (code, log) = company.end_of(rank);
        assert_eq!(code, Some(75), "rank {rank}: {log}");
        assert!(log.contains("after a checkpoint"), "rank {rank}: {log}");
    }
    assert_eq!(ground.trace("run").iter().filter(|line| line.get("rollback").is_some()).count(), 1);
    assert!(
        ground.trace("run").last().unwrap()["step"].as_u64() < Some(30),
        "it stopped behind the rollback"
    );
}

/// The first step is tried before the ranks wait for each other: where it does not fit into the memory of one, all take it in parts.
#[test]
fn a_first_step_that_one_rank_has_no_memory_for_is_taken_in_parts_by_all() {
    let ground = Ground::new();
    let want = trace(&ground, "parts", 2, &["train.accumulate=2"]);
    let have = trace(&ground, "tried", 2, &["debug.inject=\"oom@1#1\""]);
    close(&want, &have, 1e-9);
    for rank in 0..2 {
        let log = std::fs::read_to_string(ground.path(&format!("tried-{rank}.log"))).unwrap();
        assert!(
            log.contains("does not fit into the memory of some rank") && log.contains("to=2"),
            "{log}"
        );
    }
    assert_eq!(progress(&ground, "tried")["parts"], 2);
}

/// A rank that cannot start waits for the others, so that they hear it from it, but says why at once and goes when it is told to.
#[test]
fn a_rank_that_cannot_start_says_why_at_once_and_hears_a_stop() {
    let ground = Ground::new();
    let mut command = ground.train(&["--set", "run.no_such_key=1"]);
    command
        .envs([("RANK", "0"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "127.0.0.1")])
        .env("MASTER_PORT", free_port().to_string());
    let mut rank = Daemon::start(command, &ground.path("lone.log"));
    rank.until("it says why", |rank| rank.log().contains("no_such_key"));
    let asked = Instant::now();
    rank.signal("TERM");
    assert_eq!(rank.end().code(), Some(64));
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
}

/// A rank that fails by itself tells the others why, and what it tells is what they log. Where it is memory that it lacks, the next start takes smaller parts.
#[test]
fn a_rank_that_fails_leaves_its_words_with_the_others() {
    let ground = Ground::new();
    let mut company = Company::start(&ground, "run", 2, &["debug.inject=\"oom@5#1\"", EACH]);
    let (code, log) = company.end_of(1);
    assert!(
        code == Some(74) && log.contains("out of memory in a step of 8 images"),
        "{code:?} {log}"
    );
    let (code, log) = company.end_of(0);
    assert!(
        code == Some(75) && log.contains("rank 1 on host") && log.contains("out of memory"),
        "{code:?} {log}"
    );
    let kept: Value = serde_json::from_slice(&std::fs::read(ground.path("run/parts.json")).unwrap()).unwrap();
    assert_eq!((&kept["images"], &kept["step"]), (&4.into(), &5.into()), "{log}");
    Company::start(&ground, "run", 2, &["debug.inject=\"oom@5#1\"", EACH]).finish();
    let log = std::fs::read_to_string(ground.path("run-0.log")).unwrap();
    assert!(
        log.contains("does not fit into the memory of some rank") && log.contains("to=2"),
        "{log}"
    );
    assert_eq!(progress(&ground, "run")["parts"], 2);
}

/// Weights that are no longer the same on all ranks end the run at the next log step, which is not told any more: with the rank and the tensor.
#[test]
fn weights_that_came_apart_end_all_ranks_at_the_next_log_step() {
    let ground = Ground::new();
    let mut company = Company::start(&ground, "run", 2, &["log.every_steps=4", "debug.inject=\"drift@5#1\""]);
    let logs = [0, 1].map(|rank| {
        let (code, log) = company.end_of(rank);
        assert_eq!(code, Some(70), "rank {rank}: {log}");
        log
    });
    let changed = logs[1]
        .split("debug.inject changed ")
        .nth(1)
        .and_then(|rest| rest.split(' ').next());
    let changed = changed.unwrap_or_else(|| panic!("{}", logs[1]));
    for log in &logs {
        let told = format!("holds another {changed} than rank 0");
        assert!(log.contains("rank 1 on host") && log.contains(&told), "{told}: {log}");
    }
    let told: Vec<_> = ground.trace("run").iter().map(|line| line["step"].as_u64()).collect();
    assert_eq!(told, [Some(4)]);
}

/// Whoever is killed, the others leave with its name, and the same command goes on to the very end of an undisturbed run.
#[test]
fn a_killed_rank_ends_all_and_a_new_start_goes_on_bit_for_bit() {
    let ground = Ground::new();
    let sets = ["optim.total_steps=120", "log.every_steps=4", "checkpoint.every_steps=15"];
    Company::start(&ground, "undisturbed", 2, &sets).finish();
    for (victim, step) in [(1, 20), (0, 50)] {
        let mut company = Company::start(&ground, "killed", 2, &sets);
        company.until_step(step);
        company.rank(victim).signal("KILL");
        let (code, log) = company.end_of(1 - victim);
        assert_eq!(code, Some(75), "{log}");
        let named = match victim {
            1 => "no word from rank 1",
            _ => "the store of rank 0",
        };
        assert!(log.contains(named), "{log}");
    }
    Company::start(&ground, "killed", 2, &sets).finish();
    let (want, have) = (ground.trace("undisturbed"), ground.trace("killed"));
    assert_eq!(want.len(), have.len());
    for (want, have) in want.iter().zip(&have) {
        assert_eq!(want, have, "the resumed run differs at step {}", want["step"]);
    }
}
