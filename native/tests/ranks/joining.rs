//! Ranks come together whatever happened before, and say why if they cannot.

use std::time::{Duration, Instant};

use torch_ext::ranks::{Backend, Meeting, Options, Ranks, RanksError};

use crate::child::{join, kind, leave_for, options, report, together, variable};
use crate::cluster::{Cluster, Outcome, Process};

pub(crate) fn play(scenario: &str) -> bool {
    match scenario {
        "join" => together(meet),
        "agent" => agent(),
        "doomed" => doomed(),
        "mortal" => mortal(),
        "refused" => refused(),
        "cancelled" => cancelled(),
        "wishes" => wishes(),
        _ => return false,
    }
    true
}

fn meet(ranks: &Ranks) {
    let sum = ranks.tick(&[ranks.rank() as i64]).unwrap();
    assert_eq!(sum, [ranks.world() as i64 - 1]);
    let members = ranks.members();
    assert_eq!(members.len(), ranks.world());
    assert_eq!(members[ranks.rank()].pid, std::process::id());
    let pids: Vec<String> = members.iter().map(|m| m.pid.to_string()).collect();
    report("pids", pids.join(" "));
}

/// As an agent of torchrun does, keeps one store over several attempts of its ranks: it is rank 0 of the first, which hosts the store, and a client of
/// that store ever after. The other ranks of attempt n are started by the test when attempt n - 1 has failed.
fn agent() {
    let mut kept = Vec::new();
    for attempt in 0..3 {
        let mut o = options();
        let meeting = o.launch.meeting.take().unwrap();
        o.launch.meeting = Some(Meeting {
            agent: attempt > 0,
            ..meeting
        });
        // The last attempt is with fewer ranks: a host did not come back.
        if attempt == 2 {
            o.launch.world = 2;
        }
        let ranks = Ranks::join(&o).unwrap();
        report(&format!("joined.{attempt}"), ranks.world());
        if attempt < 2 {
            while ranks.tick(&[0]).is_ok() {}
            report(&format!("failed.{attempt}"), ranks.world());
            kept.push(ranks);
        } else {
            meet(&ranks);
            ranks.leave().unwrap();
        }
    }
}

/// A rank of an attempt that ends badly: rank 1 dies, or (`TEST_DIES=early`) it dies between its greeting and the connections.
fn doomed() {
    let o = options();
    let rank = o.launch.rank;
    if rank == 1 && variable("TEST_DIES").is_some() {
        std::thread::spawn(|| {
            std::thread::sleep(Duration::from_millis(1500));
            torch_ext::ranks::leave_at_once(1)
        });
    }
    let ranks = Ranks::join(&o).unwrap();
    if rank == 1 {
        ranks.tick(&[0]).unwrap();
        torch_ext::ranks::leave_at_once(1);
    }
    loop {
        if let Err(e) = ranks.tick(&[0]) {
            leave_for(&e);
        }
    }
}

/// Rank 1 dies in each of torchrun's attempts but the third.
fn mortal() {
    let ranks = join();
    if variable("TORCHELASTIC_RESTART_COUNT").as_deref() == Some("2") {
        meet(&ranks);
        return ranks.leave().unwrap();
    }
    if ranks.rank() == 1 {
        torch_ext::ranks::leave_at_once(1);
    }
    loop {
        if let Err(e) = ranks.tick(&[0]) {
            leave_for(&e);
        }
    }
}

fn refused() {
    let since = Instant::now();
    let e = Ranks::join(&options()).unwrap_err();
    report("took", since.elapsed().as_secs_f64());
    leave_for(&e);
}

fn cancelled() {
    let since = Instant::now();
    let e = Ranks::join_while(&options(), &|| since.elapsed() < Duration::from_millis(300)).unwrap_err();
    report("took", since.elapsed().as_secs_f64());
    leave_for(&e);
}

/// What cannot be had is said before anybody waits.
fn wishes() {
    let refuse = |o: &Options| Ranks::join(o).unwrap_err();
    let nccl = Options {
        backend: Backend::Nccl,
        ..options()
    };
    let e = refuse(&nccl);
    assert_eq!(kind(&e), "nccl");
    assert!(e.to_string().starts_with("NCCL without CUDA: "), "{e}");
    if !tch::Cuda::is_available() {
        let cuda = Options {
            device: tch::Device::Cuda(0),
            ..options()
        };
        let e = refuse(&cuda);
        assert!(
            matches!(e, RanksError::Nccl(_)) && e.to_string().starts_with("NCCL without CUDA: "),
            "{e}"
        );
        report("cuda", e);
    }
}

#[track_caller]
fn joined(outcomes: &[Outcome]) {
    for o in outcomes {
        assert_eq!(o.code, Some(0), "{}", o.output);
        assert_eq!(o.report("pids"), outcomes[0].report("pids"), "all know the same members");
    }
}

fn end_all(processes: Vec<Process>) -> Vec<Outcome> {
    processes.into_iter().map(Process::end).collect()
}

#[test]
fn ranks_come_in_any_order_at_any_time() {
    let cluster = Cluster::new(3);
    let mut processes = Vec::new();
    for rank in [2, 0, 1] {
        processes.push(cluster.start("join", rank, &[]));
        std::thread::sleep(Duration::from_millis(700));
    }
    joined(&end_all(processes));
}

#[test]
fn keys_of_earlier_attempts_do_not_break_a_join() {
    let cluster = Cluster::new(3);
    let agent = cluster.start("agent", 0, &[]);
    let mut seen = String::new();
    let of_agent = [("TORCHELASTIC_USE_AGENT_STORE", "True")];
    // Twice three ranks of which one dies, with all the keys that they leave behind.
    for attempt in 0..2 {
        let others: Vec<Process> = (1..3).map(|rank| cluster.start("doomed", rank, &of_agent)).collect();
        agent.wait_for(&format!("failed.{attempt}"), &mut seen);
        let ends = end_all(others);
        assert_eq!(
            (ends[0].code, ends[1].code),
            (Some(1), Some(75)),
            "{}{}",
            ends[0].output,
            ends[1].output
        );
    }
    // Then two.
    let last = cluster.start("join", 1, &[("TORCHELASTIC_USE_AGENT_STORE", "True"), ("WORLD_SIZE", "2")]);
    let last = last.end();
    let agent = agent.end_after(seen);
    assert_eq!((agent.report("joined.1"), agent.report("joined.2")), ("3", "2"));
    joined(&[agent, last]);
}

#[test]
fn a_rank_started_again_while_the_others_are_awaited_is_taken_in() {
    let cluster = Cluster::new(3);
    let zero = cluster.start("join", 0, &[]);
    let early = cluster.start("doomed", 1, &[("TEST_DIES", "early")]).end();
    assert_eq!(early.code, Some(1), "{}", early.output);
    // Whether or not the last rank is there before the dead one has been started again.
    let two = cluster.start("join", 2, &[]);
    std::thread::sleep(Duration::from_secs(1));
    let again = cluster.start("join", 1, &[]);
    joined(&end_all(vec![zero, again, two]));
}

#[test]
fn ranks_that_differ_are_named_to_all() {
    let cluster = Cluster::new(3);
    let version = |v| [("TEST_VERSION", v)];
    let all = end_all(vec![
        cluster.start("refused", 0, &version("2.0")),
        cluster.start("refused", 1, &version("2.0")),
        cluster.start("refused", 2, &version("1.9")),
    ]);
    for o in all {
        assert_eq!((o.code, o.report("kind")), (Some(75), "misfit"), "{}", o.output);
        let error = o.report("error");
        assert!(error.starts_with("the ranks do not fit together: rank 2 on host "), "{error}");
        assert!(error.ends_with(" has version 1.9, rank 0 has 2.0"), "{error}");
    }
}

#[test]
fn two_processes_of_one_rank_are_told() {
    let cluster = Cluster::new(3).env("TEST_JOIN_S", "5");
    let all = [0, 1, 1].map(|rank| cluster.start("refused", rank, &[]));
    let ends = end_all(all.into());
    assert_eq!(ends[0].report("kind"), "late", "{}", ends[0].output);
    let twins: Vec<&Outcome> = ends[1..].iter().collect();
    let taken = twins
        .iter()
        .find(|o| o.report("kind") == "taken")
        .unwrap_or_else(|| panic!("{twins:?}"));
    assert!(
        taken.report("error").starts_with("another process is rank 1 already (host "),
        "{}",
        taken.output
    );
}

#[test]
fn who_does_not_come_is_named_in_time() {
    let late = |rank: usize, env: &[(&str, &str)]| {
        let cluster = Cluster::new(3).env("TEST_JOIN_S", "1.5");
        let o = cluster.start("refused", rank, env).end();
        assert_eq!((o.code, o.report("kind")), (Some(75), "late"), "{}", o.output);
        assert!((1.4..15.0).contains(&o.number("took")), "{}", o.output);
        o.report("error").to_owned()
    };
    assert_eq!(late(0, &[]), "waited 1 s for 3 ranks, 1 came; missing: 1, 2");
    let alone = late(1, &[]);
    assert!(
        alone.starts_with("waited 1 s for 3 ranks; missing: 0; no store at MASTER_ADDR=127.0.0.1, MASTER_PORT="),
        "{alone}"
    );
    assert!(alone.ends_with("Connection refused (os error 111))"), "{alone}");
    let nowhere = late(1, &[("MASTER_ADDR", "no.such.host.invalid")]);
    assert!(nowhere.contains("cannot resolve no.such.host.invalid"), "{nowhere}");
}

#[test]
fn another_number_of_ranks_is_told() {
    // Rank 1 comes first, so that it is there however short rank 0 waits. It is refused at once; rank 0 goes on waiting for the right one.
    let cluster = Cluster::new(2);
    let one = cluster.start("refused", 1, &[("WORLD_SIZE", "4")]);
    let zero = cluster.start("refused", 0, &[("TEST_JOIN_S", "3")]);
    let ends = end_all(vec![zero, one]);
    assert_eq!((ends[0].report("kind"), ends[1].report("kind")), ("late", "misfit"), "{ends:?}");
    let error = ends[0].report("error");
    assert!(
        error.contains("a rank 1 on host ") && error.contains(" was told that there are 4 ranks"),
        "{error}"
    );
    let error = ends[1].report("error");
    assert!(
        error.starts_with("the ranks do not fit together: rank 1 on host ") && error.ends_with(" has WORLD_SIZE 4, rank 0 has 2"),
        "{error}"
    );
}

#[test]
fn waiting_ends_when_the_caller_says_so() {
    for rank in [0, 1] {
        let o = Cluster::new(2).start("cancelled", rank, &[]).end();
        assert_eq!(o.report("kind"), "cancelled");
        assert!(o.number("took") < 10.0, "the time-out is 60 s: {}", o.output);
    }
}

#[test]
fn addresses_that_cannot_serve_are_refused_with_the_reason() {
    let refused = |rank: usize, env: &[(&str, &str)]| {
        let o = Cluster::new(2).start("refused", rank, env).end();
        assert!(o.number("took") < 10.0, "at once: {}", o.output);
        assert_eq!(o.report("kind"), "address", "{}", o.output);
        o.report("error").to_owned()
    };
    // An address of documentation (RFC 5737), so not of this host.
    let elsewhere = refused(0, &[("MASTER_ADDR", "192.0.2.1")]);
    assert!(
        elsewhere.contains("MASTER_ADDR must be an address of the host of rank 0"),
        "{elsewhere}"
    );
    let loopback = refused(0, &[("LOCAL_WORLD_SIZE", "1")]);
    assert!(loopback.contains("127.0.0.1, which other hosts cannot reach"), "{loopback}");
    let unknown = refused(0, &[("MASTER_ADDR", "no.such.host.invalid")]);
    assert!(unknown.contains("rank 0 cannot resolve that name"), "{unknown}");
}

#[test]
fn a_port_that_is_taken_is_told() {
    let cluster = Cluster::new(2);
    let _taken = std::net::TcpListener::bind(("127.0.0.1", cluster.port)).unwrap();
    let o = cluster.start("refused", 0, &[]).end();
    assert!(o.report("error").contains("Address already in use"), "{}", o.output);
}

#[test]
fn interfaces_are_those_that_were_named() {
    joined(&Cluster::new(2).env("GLOO_SOCKET_IFNAME", "lo").play("join"));
    for o in Cluster::new(2).env("GLOO_SOCKET_IFNAME", "lo,nope0").play("refused") {
        assert_eq!(o.report("kind"), "address", "{}", o.output);
        assert!(
            o.report("error").contains("GLOO_SOCKET_IFNAME=lo,nope0: no such interface"),
            "{}",
            o.output
        );
    }
}

#[test]
fn nccl_without_cuda_is_refused_before_anybody_waits() {
    let o = Cluster::new(2).start("wishes", 0, &[]).end();
    assert_eq!(o.code, Some(0), "{}", o.output);
}
