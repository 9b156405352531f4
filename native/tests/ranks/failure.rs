//! A rank that fails, dies or stops: the others notice, say who and why, and leave.

use std::time::{Duration, Instant};

use tch::{Device, Kind, Tensor};
use torch_ext::ranks::{Part, Ranks, RanksError, Reduce, Reducer};

use crate::child::{join, kind, leave_for, report, variable};
use crate::cluster::{Cluster, Outcome, Process, now};

pub(crate) fn play(scenario: &str) -> bool {
    match scenario {
        "steps" => steps(&join()),
        "words-in-backward" => words_in_backward(&join()),
        "panic-between" => fail_between(&join()),
        "different-calls" => different_calls(&join()),
        "drop-under-way" => drop_under_way(join()),
        _ => return false,
    }
    true
}

/// Steps without end, each with a tick on its way.
fn steps(ranks: &Ranks) {
    let x = Tensor::ones([1 << 16], (Kind::Float, Device::Cpu));
    let step = || -> Result<(), RanksError> {
        let tick = ranks.begin_tick(&[0])?;
        ranks.all_reduce(&[(&x, Reduce::Mean)])?;
        tick.finish().map(drop)
    };
    step().unwrap();
    report("running", ranks.rank());
    loop {
        if let Err(e) = step() {
            // There is no going on.
            let next = ranks.all_reduce(&[(&x, Reduce::Mean)]).unwrap_err();
            report("next", kind(&next));
            report("tick", kind(&ranks.tick(&[0]).unwrap_err()));
            leave_for(&e);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn weights() -> Vec<(String, Tensor)> {
    tch::manual_seed(1);
    let leaf = |i: usize| {
        let w = Tensor::randn([32, 32], (Kind::Float, Device::Cpu)) * 0.1;
        (format!("layer.{i}"), w.set_requires_grad(true))
    };
    (0..6).map(leaf).collect()
}

/// Out of memory on one rank in the middle of a backward that all take part in.
fn words_in_backward(ranks: &Ranks) {
    let params = weights();
    let mut reducer = Reducer::new(ranks, &params, 1 << 12).unwrap();
    for step in 0..3 {
        let fails = step == 2 && ranks.rank().to_string() == variable("TEST_GONE").unwrap();
        let mut y = Tensor::ones([4, 32], (Kind::Float, Device::Cpu));
        reducer.begin().unwrap();
        for (i, (_, w)) in params.iter().enumerate() {
            y = y.matmul(w).tanh();
            if i == 3 {
                let first = std::cell::Cell::new(true);
                // The body runs once forward and once in backward.
                let body = move |x: &Tensor, _: Option<&Tensor>| {
                    assert!(first.replace(false) || !fails, "out of memory (made up)");
                    x * 1.0
                };
                y = torch_ext::recomputed(&y, None, body).unwrap();
            }
        }
        torch_ext::clear_grads(&params.iter().map(|(_, w)| w.shallow_clone()).collect::<Vec<_>>()).unwrap();
        if let Err(e) = reducer.backward(&y.sum(Kind::Float), Part::Last) {
            report("step", step);
            leave_for(&e);
        }
    }
}

/// A failure outside of every collective: rank 1 says why and goes.
fn fail_between(ranks: &Ranks) {
    ranks.tick(&[0]).unwrap();
    if ranks.rank() == 1 {
        assert!(ranks.last_words().heard().is_empty());
        // From another thread, as a watchdog would.
        let words = ranks.last_words();
        std::thread::spawn(move || words.say("the disk of this host is full").unwrap())
            .join()
            .unwrap();
        torch_ext::ranks::leave_at_once(74);
    }
    let e = ranks.tick(&[0]).unwrap_err();
    // Rank 2 has read what it needs by now, so the store may be gone with rank 0.
    if ranks.rank() == 0 {
        report("heard", ranks.last_words().heard().len());
    }
    leave_for(&e);
}

fn different_calls(ranks: &Ranks) {
    let x = Tensor::ones([8], (Kind::Float, Device::Cpu));
    let since = Instant::now();
    let answer = if ranks.rank() == 0 {
        ranks.all_reduce(&[(&x, Reduce::Sum)])
    } else {
        ranks.gather(&x).map(drop)
    };
    report("took", since.elapsed().as_secs_f64());
    leave_for(&answer.unwrap_err());
}

/// Rank 0 returns early, with a tick on its way that nobody answers.
fn drop_under_way(ranks: Ranks) {
    ranks.tick(&[0]).unwrap();
    if ranks.rank() == 0 {
        let tick = ranks.begin_tick(&[1]).unwrap();
        let since = Instant::now();
        drop(tick);
        drop(ranks);
        report("took", since.elapsed().as_secs_f64());
        return;
    }
    std::thread::sleep(Duration::from_millis(500));
    let since = Instant::now();
    let e = ranks.tick(&[0]).unwrap_err();
    report("took", since.elapsed().as_secs_f64());
    leave_for(&e);
}

/// Starts steps on all ranks; answers when all are running.
fn running(cluster: &Cluster) -> (Vec<Process>, Vec<String>) {
    let processes = cluster.start_all("steps");
    let before = processes.iter().map(|p| {
        let mut before = String::new();
        p.wait_for("running", &mut before);
        before
    });
    let before = before.collect();
    (processes, before)
}

fn end((processes, before): (Vec<Process>, Vec<String>)) -> Vec<Outcome> {
    processes.into_iter().zip(before).map(|(p, before)| p.end_after(before)).collect()
}

/// How long after `event` each survivor knew, at worst; all must have left with 75, refusing further calls.
#[track_caller]
fn noticed(outcomes: &[Outcome], gone: usize, event: Duration) -> f64 {
    let mut worst: f64 = 0.0;
    for (rank, o) in outcomes.iter().enumerate().filter(|(rank, _)| *rank != gone) {
        assert_eq!(o.code, Some(75), "rank {rank}, signal {:?}:\n{}", o.signal, o.output);
        assert_eq!((o.report("kind"), o.report("next"), o.report("tick")), ("lost", "apart", "apart"));
        worst = worst.max(o.number("at") - event.as_secs_f64());
    }
    worst
}

/// Kills rank `gone` of four; every survivor then stays for two more seconds, so that none learns it from another one's end.
#[track_caller]
fn kill(gone: usize) {
    let mut took = Vec::new();
    // A busy machine may hold a process up for longer than what is measured here.
    for _ in 0..3 {
        let cluster = Cluster::new(4).env("TEST_LINGER_S", "2");
        let all = running(&cluster);
        let event = all.0[gone].signal("KILL");
        let outcomes = end(all);
        assert_eq!(outcomes[gone].signal, Some(9));
        took.push(noticed(&outcomes, gone, event));
        for (rank, o) in outcomes.iter().enumerate().filter(|(rank, _)| *rank != gone) {
            let error = o.report("error");
            let named = if gone == 0 {
                "the store of rank 0 on host".into()
            } else {
                format!("no word from rank {gone} on host")
            };
            assert!(error.contains(&named), "rank {rank}: {error}");
            assert_eq!(error.matches("rank ").count(), 1, "rank {rank} names one rank: {error}");
        }
        if took.last().is_some_and(|t| *t < 1.0) {
            return;
        }
    }
    panic!("survivors knew after {took:?} s");
}

#[test]
fn a_killed_rank_is_noticed_and_named_by_all_in_under_a_second() {
    kill(1);
}

#[test]
fn a_killed_rank_0_is_noticed_and_named_by_all_in_under_a_second() {
    kill(0);
}

#[test]
fn a_stopped_rank_shows_by_the_time_out_and_is_named() {
    for gone in [1, 0] {
        let cluster = Cluster::new(3).env("TEST_STEP_S", "2").env("TEST_CONTROL_S", "3");
        let (mut processes, mut before) = running(&cluster);
        let event = processes[gone].signal("STOP");
        let (stopped, _) = (processes.remove(gone), before.remove(gone));
        let outcomes = end((processes, before));
        let worst = noticed(&outcomes, usize::MAX, event);
        assert!((1.5..15.0).contains(&worst), "known after {worst} s");
        for o in &outcomes {
            let error = o.report("error");
            let named = if gone == 0 {
                "the store of rank 0 on host"
            } else {
                "no word from rank 1 on host"
            };
            assert!(error.contains(named) && error.contains("killed, stopped or cut off"), "{error}");
            assert!(
                o.output.contains("Timed out waiting") || o.output.contains("closed") || o.output.contains("reset"),
                "{}",
                o.output
            );
        }
        stopped.signal("KILL");
        assert_eq!(stopped.end().signal, Some(9));
    }
}

#[test]
fn a_failure_inside_of_backward_ends_all_with_its_words() {
    // Rank 0 has the store, in which its words must be found though it goes.
    for gone in [1, 0] {
        let outcomes = Cluster::new(3).env("TEST_GONE", &gone.to_string()).play("words-in-backward");
        for (rank, o) in outcomes.iter().enumerate() {
            assert_eq!((o.code, o.report("step")), (Some(75), "2"), "rank {rank}: {}", o.output);
            let error = o.report("error");
            if rank == gone {
                assert_eq!(o.report("kind"), "torch");
                assert!(error.contains("out of memory (made up)"), "{error}");
            } else {
                assert_eq!(o.report("kind"), "lost");
                let words =
                    error.starts_with(&format!("rank {gone} on host ")) && error.contains("libtorch, backward: out of memory (made up)");
                assert!(words, "{error}");
            }
        }
    }
}

#[test]
fn last_words_from_any_thread_reach_the_others() {
    let outcomes = Cluster::new(3).play("panic-between");
    assert_eq!(outcomes[0].report("heard"), "1", "{}", outcomes[0].output);
    for o in [&outcomes[0], &outcomes[2]] {
        assert_eq!(o.code, Some(75), "{}", o.output);
        let error = o.report("error");
        assert!(
            error.starts_with("rank 1 on host ") && error.contains(": the disk of this host is full"),
            "{error}"
        );
        assert!(error.contains("noticed in the tick"), "{error}");
    }
}

#[test]
fn ranks_in_different_calls_are_told_at_once_where_calls_are_checked() {
    for o in Cluster::new(2).env("TEST_CHECKED", "1").play("different-calls") {
        assert!(o.number("took") < 10.0, "the time-out is 60 s: {}", o.output);
        assert!(
            o.output.contains("mismatch between collectives") || o.report("error").contains("rank"),
            "{}",
            o.output
        );
    }
}

#[test]
fn an_early_return_waits_for_nobody_and_the_others_notice() {
    let outcomes = Cluster::new(2).play("drop-under-way");
    assert_eq!(outcomes[0].code, Some(0), "{}", outcomes[0].output);
    assert_eq!(
        (outcomes[1].code, outcomes[1].report("kind")),
        (Some(75), "lost"),
        "{}",
        outcomes[1].output
    );
    for o in &outcomes {
        assert!(o.number("took") < 10.0, "the time-out is 60 s: {}", o.output);
    }
}

#[test]
fn no_process_of_these_tests_outlives_its_test() {
    let cluster = Cluster::new(2);
    let processes = cluster.start_all("steps");
    let pids: Vec<u32> = processes.iter().map(Process::pid).collect();
    let since = now();
    drop(processes);
    for pid in pids {
        assert!(
            !std::path::Path::new(&format!("/proc/{pid}")).exists(),
            "process {pid} is still there, perhaps as a zombie"
        );
    }
    assert!(now() - since < Duration::from_secs(30));
}
