//! What ranks do to their host beside the work: sockets that listen, threads that could take signals.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use tch::Tensor;
use torch_ext::ranks::{Ranks, Reduce};

use crate::child::{report, together};
use crate::cluster::{Cluster, Process};

pub(crate) fn play(scenario: &str) -> bool {
    match scenario {
        "listening" => together(listening),
        "signals" => signals(),
        _ => return false,
    }
    true
}

/// Local addresses of this process's listening sockets, as /proc/net/tcp writes them.
fn listening(ranks: &Ranks) {
    let own: BTreeSet<String> = fs::read_dir("/proc/self/fd")
        .unwrap()
        .flatten()
        .filter_map(|f| fs::read_link(f.path()).ok())
        .filter_map(|p| Some(p.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    let mut found = Vec::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        for line in fs::read_to_string(table).unwrap_or_default().lines().skip(1) {
            let column: Vec<&str> = line.split_whitespace().collect();
            // State 0A is LISTEN, column 9 the inode.
            if column[3] == "0A" && own.contains(column[9]) {
                found.push(column[1].split(':').next().unwrap().to_owned());
            }
        }
    }
    ranks.tick(&[0]).unwrap();
    report("listens", found.join(" "));
}

/// A line of /proc/…/status that holds a set of signals.
fn signal_set(status: &Path, name: &str) -> u64 {
    let text = fs::read_to_string(status).unwrap();
    let set = text.lines().find_map(|l| l.strip_prefix(name)).unwrap();
    u64::from_str_radix(set.trim(), 16).unwrap()
}

/// The process was started with SIGTERM held back: no thread that ranks bring takes it, and no handler is installed.
fn signals() {
    const TERM: u64 = 1 << 14;
    let own = Path::new("/proc/self/status");
    let handled = signal_set(own, "SigCgt:");
    together(|ranks| {
        let x = Tensor::from(1f32);
        ranks.all_reduce(&[(&x, Reduce::Sum)]).unwrap();
        let threads: Vec<_> = fs::read_dir("/proc/self/task").unwrap().flatten().collect();
        for thread in &threads {
            assert_eq!(signal_set(&thread.path().join("status"), "SigBlk:") & TERM, TERM);
        }
        assert_eq!(signal_set(own, "SigCgt:"), handled);
        report("threads", threads.len());
    });
}

#[test]
fn nothing_listens_beyond_the_address_of_rank_0() {
    for (rank, o) in Cluster::new(2).succeed("listening").iter().enumerate() {
        let all: Vec<&str> = o.report("listens").split(' ').collect();
        // 127.0.0.1; gloo's socket, and on rank 0 the store's.
        assert!(all.iter().all(|a| *a == "0100007F"), "{}", o.output);
        assert!(all.len() > usize::from(rank == 0), "{}", o.output);
    }
}

/// A handler that interrupts a product of oneDNN's damages the heap, so a program holds signals back and takes them in one thread.
#[test]
fn threads_of_ranks_take_no_signal_that_the_program_holds_back() {
    let cluster = Cluster::new(2);
    let start = |rank| {
        let mut command = Command::new("env");
        command.arg("--block-signal=TERM").arg(std::env::current_exe().unwrap());
        cluster.start_by(command, "signals", rank, &[])
    };
    for o in [start(0), start(1)].map(Process::end) {
        assert_eq!(o.code, Some(0), "{}", o.output);
        assert!(o.number("threads") > 4.0, "those of gloo are among them: {}", o.output);
    }
}
