//! Under torchrun itself: the one of TORCHRUN, else that of `make setup`, which needs Python 3.11.

use std::path::PathBuf;
use std::process::Command;

use crate::cluster::{Cluster, Process, SCENARIO};

fn torchrun(scenario: &str, ranks: usize, arguments: &[&str], env: &[(&str, &str)]) -> crate::cluster::Outcome {
    // A turn among the clusters.
    let _turn = Cluster::new(1);
    let folder = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let cache = || {
        folder("XDG_CACHE_HOME")
            .unwrap_or_else(|| folder("HOME").unwrap().join(".cache"))
            .join("splitmask")
    };
    let laid_out = || folder("SPLITMASK_CACHE").unwrap_or_else(cache).join("torchrun-2.11.0/bin/torchrun");
    let program = folder("TORCHRUN").unwrap_or_else(laid_out);
    assert!(
        program.exists(),
        "{} is missing; `setup/setup.sh torchrun` lays it there for Python 3.11, TORCHRUN=FILE names another",
        program.display()
    );
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
fn ranks_of_torchrun_meet_at_its_agents_store() {
    let o = torchrun("join", 2, &[], &[]);
    assert_eq!(o.code, Some(0), "{}", o.output);
    assert_eq!(o.report("pids").split(' ').count(), 2);
    let o = torchrun("move", 4, &[], &[]);
    assert_eq!(o.code, Some(0), "{}", o.output);
}

#[test]
fn torchrun_starts_the_ranks_again_and_they_meet_beside_the_keys_of_the_last_attempt() {
    // Rank 1 dies once and then again; at the third attempt all stay.
    let o = torchrun("mortal", 3, &["--max-restarts=2", "--monitor-interval=0.1"], &[]);
    assert_eq!(o.code, Some(0), "{}", o.output);
    assert_eq!(o.output.matches("# pids ").count(), 3, "{}", o.output);
}
