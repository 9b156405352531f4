//! Processes that are the ranks of one run, and what is read from it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::free_port::free_port;
use crate::ground::{Daemon, Ground, splitmask};

/// All ranks of a run; killed when dropped.
pub(crate) struct Company {
    ranks: Vec<Option<Daemon>>,
    logs: Vec<PathBuf>,
}

impl Company {
    /// `world` ranks of the run `run` with these settings, by the variables that any launcher sets.
    pub(crate) fn start(ground: &Ground, run: &str, world: usize, sets: &[&str]) -> Self {
        Self::start_each(ground, run, world, &|_| sets.iter().map(|set| (*set).to_owned()).collect())
    }

    /// As [`Company::start`], with settings of each rank's own.
    pub(crate) fn start_each(ground: &Ground, run: &str, world: usize, sets: &dyn Fn(usize) -> Vec<String>) -> Self {
        let port = free_port();
        Self::of(ground, run, world, &|_| ground.train(&[]), sets, |command, rank, log| {
            Daemon::start(launched(command, rank, world, port), log)
        })
    }

    /// As [`Company::start`], each rank in its own of `folders` ([`folders`]), from where it reads its config.
    pub(crate) fn in_folders(ground: &Ground, run: &str, folders: &[PathBuf], sets: &[&str]) -> Self {
        let (port, world) = (free_port(), folders.len());
        let train = |rank: usize| {
            let mut command = splitmask();
            command.args(["train", "--config", "config.toml"]).current_dir(&folders[rank]);
            command
        };
        let sets = |_| sets.iter().map(|set| (*set).to_owned()).collect();
        Self::of(ground, run, world, &train, &sets, |command, rank, log| {
            Daemon::start(launched(command, rank, world, port), log)
        })
    }

    /// As [`Company::start`]; each rank knows its number on this host, and answers at that many ports behind one address.
    pub(crate) fn with_local_ranks(ground: &Ground, run: &str, world: usize, sets: &[&str]) -> Self {
        let (port, admin) = (free_port(), free_port());
        let sets = |_| {
            sets.iter()
                .map(|set| (*set).to_owned())
                .chain(["admin.lifecycle=true".into()])
                .collect()
        };
        Self::of(ground, run, world, &|_| ground.train(&[]), &sets, |command, rank, log| {
            let mut command = launched(command, rank, world, port);
            command
                .env("LOCAL_RANK", rank.to_string())
                .env("LOCAL_WORLD_SIZE", world.to_string());
            Daemon::start_at(command, log, admin, admin + rank as u16)
        })
    }

    fn of(
        ground: &Ground,
        run: &str,
        world: usize,
        train: &dyn Fn(usize) -> Command,
        sets: &dyn Fn(usize) -> Vec<String>,
        start: impl Fn(Command, usize, &Path) -> Daemon,
    ) -> Self {
        let logs: Vec<_> = (0..world).map(|rank| ground.path(&format!("{run}-{rank}.log"))).collect();
        let one = |rank: usize| {
            let _ = fs::remove_file(&logs[rank]);
            let mut command = train(rank);
            command.args(["--set", &format!("run.dir=\"{}\"", ground.path(run).display())]);
            for set in sets(rank) {
                command.arg("--set").arg(set);
            }
            Some(start(command, rank, &logs[rank]))
        };
        Self {
            ranks: (0..world).map(one).collect(),
            logs,
        }
    }

    pub(crate) fn rank(&mut self, rank: usize) -> &mut Daemon {
        self.ranks[rank].as_mut().expect("it runs")
    }

    /// Steps that rank 0 has done.
    pub(crate) fn step(&mut self) -> u64 {
        self.rank(0).status()["step"].as_u64().unwrap_or(0)
    }

    /// Waits until rank 0 has done so many steps.
    pub(crate) fn until_step(&mut self, step: u64) {
        self.rank(0)
            .until("the step", |d| d.status()["step"].as_u64().is_some_and(|s| s >= step));
    }

    /// Waits until all stand still behind this step because some rank has no batch.
    pub(crate) fn until_it_waits(&mut self, step: u64) {
        self.rank(0).until("it waits for data", |d| {
            let status = d.status();
            status["state"] == "waiting_for_data" && status["step"] == step
        });
    }

    /// A signal to rank `at` stops all behind a checkpoint of this step; answers their logs.
    pub(crate) fn stop(mut self, at: usize, step: u64) -> Vec<String> {
        self.rank(at).signal("TERM");
        let mut logs = Vec::new();
        for rank in 0..self.ranks.len() {
            let (code, log) = self.end_of(rank);
            assert_eq!(code, Some(75), "rank {rank}: {log}");
            assert!(
                log.contains(&format!("stopped at step {step} after a checkpoint")),
                "rank {rank}: {log}"
            );
            logs.push(log);
        }
        logs
    }

    /// Exit code and log of a rank that ends within two minutes.
    pub(crate) fn end_of(&mut self, rank: usize) -> (Option<i32>, String) {
        let mut daemon = self.ranks[rank].take().expect("it runs");
        let deadline = Instant::now() + Duration::from_secs(120);
        let status = loop {
            if let Some(status) = daemon.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "rank {rank} does not end: {}", daemon.log());
            std::thread::sleep(Duration::from_millis(20));
        };
        let log = fs::read_to_string(&self.logs[rank]).unwrap_or_default();
        (status.code(), log)
    }

    /// All ranks come to the end of the schedule.
    pub(crate) fn finish(mut self) {
        for rank in 0..self.ranks.len() {
            let (code, log) = self.end_of(rank);
            assert_eq!(code, Some(0), "rank {rank}: {log}");
        }
    }
}

fn launched(mut command: Command, rank: usize, world: usize, port: u16) -> Command {
    for key in [
        "LOCAL_RANK",
        "LOCAL_WORLD_SIZE",
        "TORCHELASTIC_RUN_ID",
        "TORCHELASTIC_USE_AGENT_STORE",
        "GLOO_SOCKET_IFNAME",
    ] {
        command.env_remove(key);
    }
    command
        .env("RANK", rank.to_string())
        .env("WORLD_SIZE", world.to_string())
        .env("MASTER_ADDR", "127.0.0.1")
        .env("MASTER_PORT", port.to_string());
    command
}

/// The ground's config with another objective.
pub(crate) fn with_objective(ground: &Ground, kind: &str, more: &str) -> String {
    let text = ground.config_text();
    let (before, rest) = text.split_once("[objective]").unwrap();
    let (_, after) = rest.split_once("[optim]").unwrap();
    format!("{before}[objective]\nkind = \"{kind}\"\n{more}[optim]{after}")
}

/// A folder for each rank with its own config, shards and words. The config names them by relative paths, so that it is the same on all.
pub(crate) fn folders(ground: &Ground, world: usize) -> Vec<PathBuf> {
    let text = ground.config_text().replace(&format!("{}/", ground.dir.path().display()), "");
    let of_rank = |rank: usize| {
        let folder = ground.path(&format!("of-rank-{rank}"));
        for set in ["data/train", "data/val"] {
            fs::create_dir_all(folder.join(set)).unwrap();
            for entry in fs::read_dir(ground.path(set)).unwrap().flatten() {
                fs::copy(entry.path(), folder.join(set).join(entry.file_name())).unwrap();
            }
        }
        fs::copy(ground.path("words.safetensors"), folder.join("words.safetensors")).unwrap();
        fs::write(folder.join("config.toml"), &text).unwrap();
        folder
    };
    (0..world).map(of_rank).collect()
}

/// The value of a series among a rank's own metrics.
pub(crate) fn metric(daemon: &Daemon, series: &str) -> Option<f64> {
    let (_, text) = daemon.ask("GET", "/metrics")?;
    text.lines().find_map(|line| line.strip_prefix(series)?.trim_start().parse().ok())
}

/// `progress.json` of the newest checkpoint of a run.
pub(crate) fn progress(ground: &Ground, run: &str) -> Value {
    let last = splitmask::checkpoint::steps(&ground.path(run).join("checkpoints")).pop().unwrap();
    progress_at(ground, run, last)
}

/// `progress.json` of a checkpoint of a run.
pub(crate) fn progress_at(ground: &Ground, run: &str, step: u64) -> Value {
    let file = ground.path(run).join(format!("checkpoints/step-{step:08}/progress.json"));
    serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap()
}

/// What a log with `splitmask::images=trace` tells: the images of each step, in their order.
pub(crate) fn images(log: &str) -> BTreeMap<u64, Vec<String>> {
    let of = |line: &str| {
        let (_, told) = line.split_once(" step=")?;
        let (step, told) = told.split_once(" images=[(")?;
        let (images, _) = told.split_once(")]")?;
        Some((step.parse().ok()?, images.split("), (").map(str::to_owned).collect()))
    };
    log.lines().filter_map(of).collect()
}

/// Whether a number counts which of several outputs is the largest: rounding may turn a tie, which differs from processor to processor.
fn is_counted(key: &str) -> bool {
    key.ends_with("_accuracy") || key == "predicted_perplexity"
}

/// How far such a number may be off: by one of the 16 images of a batch.
const ONE_OF_A_BATCH: f64 = 1.0 / 16.0 + 1e-6;

/// The lines of a run's steps, those that tell of rollbacks left out.
pub(crate) fn steps(lines: Vec<Value>) -> Vec<Value> {
    lines.into_iter().filter(|line| line.get("rollback").is_none()).collect()
}

/// Two runs have the same lines, and numbers that differ by the rounding of sums alone: `within` of their size, or of 1 where they are smaller.
#[track_caller]
pub(crate) fn close(want: &[Value], have: &[Value], within: f64) {
    assert_eq!(want.len(), have.len());
    for (want, have) in want.iter().zip(have) {
        let (want, have) = (want.as_object().unwrap(), have.as_object().unwrap());
        assert_eq!(want.keys().collect::<Vec<_>>(), have.keys().collect::<Vec<_>>());
        let finite = want["total"].is_number();
        for (key, a) in want {
            // Which of several NaN is the largest has no meaning.
            if !finite && is_counted(key) {
                continue;
            }
            match (a.as_f64(), have[key].as_f64()) {
                (Some(x), Some(y)) => {
                    let within = if is_counted(key) { ONE_OF_A_BATCH } else { within };
                    let near = (x - y).abs() <= within * x.abs().max(1.0);
                    assert!(near, "step {}: {key} is {y}, alone {x}", want["step"]);
                }
                _ => assert_eq!(*a, have[key], "step {}: {key}", want["step"]),
            }
        }
    }
}
