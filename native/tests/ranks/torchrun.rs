//! Under torchrun itself, where it is at hand: `TORCHRUN=…/bin/torchrun cargo test -p torch-ext --test ranks -- --ignored`. It comes only with the whole
//! Python package of PyTorch (4.7 GB with its CUDA packages), so `make setup` does not bring it.

use std::process::Command;

use crate::cluster::{Cluster, Process, SCENARIO};

fn torchrun(scenario: &str, ranks: usize, arguments: &[&str], env: &[(&str, &str)]) -> crate::cluster::Outcome {
    // A turn among the clusters.
    let _turn = Cluster::new(1);
    let program = std::env::var("TORCHRUN").expect("TORCHRUN names the program");
    let own = std::env::current_exe().unwrap();
    let mut command = Command::new(program);
    command
        .args(["--standalone", "--no-python", &format!("--nproc-per-node={ranks}")])
        .args(arguments)
        .arg(own)
        .args(["--exact", "child::rank", "--nocapture", "--test-threads=1"])
        .env(SCENARIO, scenario)
        .envs(env.iter().copied());
    Process::spawn(&mut command).end()
}

#[test]
#[ignore = "needs torchrun: TORCHRUN names it"]
fn ranks_of_torchrun_meet_at_its_agents_store() {
    let o = torchrun("join", 2, &[], &[]);
    assert_eq!(o.code, Some(0), "{}", o.output);
    assert_eq!(o.report("pids").split(' ').count(), 2);
    let o = torchrun("move", 4, &[], &[]);
    assert_eq!(o.code, Some(0), "{}", o.output);
}

#[test]
#[ignore = "needs torchrun: TORCHRUN names it"]
fn torchrun_starts_the_ranks_again_and_they_meet_beside_the_keys_of_the_last_attempt() {
    // Rank 1 dies once and then again; at the third attempt all stay.
    let o = torchrun("mortal", 3, &["--max-restarts=2", "--monitor-interval=0.1"], &[]);
    assert_eq!(o.code, Some(0), "{}", o.output);
    assert_eq!(o.output.matches("# pids ").count(), 3, "{}", o.output);
}
