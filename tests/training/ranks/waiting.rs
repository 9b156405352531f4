//! Ranks that keep the others waiting: without a batch, by slow work, for ever.

use std::fs;

use serde_json::Value;

use super::EACH;
use super::company::{Company, metric};
use crate::ground::Ground;

/// A rank without a batch keeps all waiting between two steps, for longer than a step may take, and there they hear whatever is asked of any of them.
#[test]
fn ranks_that_wait_for_the_batch_of_one_hear_commands_and_lose_nothing() {
    let ground = Ground::new();
    let sets = [
        "optim.total_steps=40",
        EACH,
        "checkpoint.every_steps=1000",
        "admin.lifecycle=true",
        "admin.watch=false",
    ];
    Company::start(&ground, "clean", 2, &sets).finish();
    let calm = ground.config_text();
    let starve = |faults: &str| fs::write(ground.config(), format!("{calm}[debug]\ninject = \"{faults}\"\n")).unwrap();
    starve("starve@12#1");
    let impatient: Vec<&str> = sets.into_iter().chain(["ranks.step_timeout_s=5"]).collect();
    let mut company = Company::start(&ground, "run", 2, &impatient);
    company.until_it_waits(11);
    let booked = [0, 1].map(|rank| format!("splitmask_train_phase_seconds_total{{phase=\"data_wait\",rank=\"{rank}\"}}"));
    let before = [0, 1].map(|rank| metric(company.rank(rank), &booked[rank]).unwrap());
    for rank in 0..2 {
        // A second of it is over.
        company.rank(rank).until("it waits for longer than a step may take", |d| {
            metric(d, &booked[rank]).is_some_and(|seconds| seconds > before[rank] + 5.0)
        });
    }
    company.rank(1).signal("USR1");
    let written = || splitmask::checkpoint::steps(&ground.path("run/checkpoints"));
    company.rank(1).until("the checkpoint", |_| written() == [11]);
    starve("starve@30#0");
    let (code, body) = company.rank(0).ask("POST", "/-/reload").unwrap();
    let report: Value = serde_json::from_str(&body).unwrap();
    assert!(code == 200 && report["applied_at_step"] == 11, "{code} {report}");
    company.until_it_waits(29);
    company.stop(1, 29);

    fs::write(ground.config(), &calm).unwrap();
    Company::start(&ground, "run", 2, &sets).finish();
    assert_eq!(ground.trace("clean"), ground.trace("run"), "same images, same losses");
}

/// A rank whose own work takes longer is named, and only while it does.
#[test]
fn a_slow_rank_is_named_with_its_time() {
    let ground = Ground::new();
    let sets = ["optim.total_steps=12", EACH, "debug.inject=\"slow@3-7#1\""];
    let mut company = Company::start(&ground, "run", 2, &sets);
    let shown = |name: &str, rank: usize| format!("splitmask_ranks_{name}{{rank=\"{rank}\"}}");
    company.rank(1).until("its gauges tell that it is slow", |d| {
        let (seconds, slow) = (metric(d, &shown("own_step_seconds", 1)), metric(d, &shown("straggling", 1)));
        seconds.is_some_and(|s| s > 2.0) && slow == Some(1.0)
    });
    company.rank(0).until("its own gauges tell that it is not", |d| {
        let (seconds, slow) = (metric(d, &shown("own_step_seconds", 0)), metric(d, &shown("straggling", 0)));
        seconds.is_some_and(|s| s < 2.0) && slow == Some(0.0)
    });
    company.finish();
    let log = fs::read_to_string(ground.path("run-0.log")).unwrap();
    let parts = ["WARN", "rank 1 on host", "is slow: its own part of a step takes"];
    assert!(log.lines().any(|line| parts.iter().all(|part| line.contains(part))), "{log}");
    let lines = fs::read_to_string(ground.path("run/metrics.jsonl")).unwrap();
    let of_line = |line: &str| -> [f64; 2] {
        let line: Value = serde_json::from_str(line).unwrap();
        serde_json::from_value(line["rank_step_seconds"].clone()).unwrap()
    };
    let seconds: Vec<_> = lines.lines().map(of_line).collect();
    assert_eq!(seconds.len(), 12);
    // Waiting for the slow one is no work of the other.
    assert!(
        seconds[2..7].iter().all(|[other, slow]| *slow > 2.0 && *other < slow / 1.2),
        "{seconds:?}"
    );
    assert!(seconds[11][1] < 2.0, "{seconds:?}");
}

/// The others wait for a rank that is stuck, so its watchdog ends it, and they hear why.
#[test]
fn a_rank_that_hangs_is_ended_by_its_watchdog_and_the_others_with_it() {
    let ground = Ground::new();
    let mut company = Company::start_each(&ground, "run", 2, &|rank| {
        // Whoever waits in a step makes no progress either, and the one that hangs is to be the first to be found.
        let seconds = [600, 15][rank];
        let watchdog = format!("admin.watchdog_s={seconds}");
        vec![EACH.to_owned(), "debug.inject=\"hang@6#1\"".to_owned(), watchdog]
    });
    let (code, log) = company.end_of(1);
    assert!(
        code == Some(77) && log.contains("watchdog: the trainer is stuck") && log.contains("no progress since step 5"),
        "{code:?} {log}"
    );
    let (code, log) = company.end_of(0);
    assert!(
        code == Some(75) && log.contains("rank 1 on host") && log.contains("the trainer is stuck: no progress since step 5"),
        "{code:?} {log}"
    );
}
