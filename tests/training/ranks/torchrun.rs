//! Two ranks under torchrun itself, of which one is killed over and over, or which it leaves: the run comes to the undisturbed end, bit for bit.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::company::{Company, progress};
use crate::ground::Ground;
use crate::servers::installed;

/// torchrun: the one of TORCHRUN, else that of `make setup`, which needs Python 3.11.
fn torchrun() -> PathBuf {
    std::env::var_os("TORCHRUN").map_or_else(
        || {
            installed(
                "torchrun-2.11.0/bin/torchrun",
                "PyTorch's launcher (for Python 3.11; TORCHRUN=FILE names another)",
            )
        },
        PathBuf::from,
    )
}

/// torchrun, which starts all ranks again when one is lost.
struct Agent {
    child: Child,
    log: PathBuf,
}

impl Agent {
    /// Two ranks of the run `run`, by the command of docs/distributed.md.
    fn start(ground: &Ground, run: &str, sets: &[&str]) -> Self {
        let log = ground.path(&format!("{run}.log"));
        let train = ground.train(&["--set", &format!("run.dir=\"{}\"", ground.path(run).display())]);
        let mut command = Command::new(torchrun());
        command
            .args([
                "--standalone",
                "--no-python",
                "--nproc-per-node=2",
                "--max-restarts=40",
                "--monitor-interval=0.1",
            ])
            .arg(train.get_program())
            .args(train.get_args());
        for set in sets {
            command.args(["--set", set]);
        }
        for key in ["RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"] {
            command.env_remove(key);
        }
        let sink = fs::File::create(&log).unwrap();
        command
            .stdin(Stdio::null())
            .stdout(sink.try_clone().unwrap())
            .stderr(sink)
            .env_remove("RUST_LOG");
        let child = command.spawn().expect("torchrun starts");
        Self { child, log }
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The process of a rank, where it lives.
    fn process_of(&self, rank: usize) -> Option<u32> {
        let own = format!("\nPPid:\t{}\n", self.child.id());
        fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
            let id = entry.file_name().to_str()?.parse().ok()?;
            let status = fs::read_to_string(entry.path().join("status")).ok()?;
            let living = status.contains(&own) && !status.contains("\nState:\tZ");
            let environment = fs::read(entry.path().join("environ")).ok()?;
            let named = environment.split(|b| *b == 0).any(|v| v == format!("RANK={rank}").as_bytes());
            (living && named).then_some(id)
        })
    }

    /// Waits until `what` gives something; the ranks must not end before.
    fn until<T>(&mut self, what: &str, mut found: impl FnMut(&Self) -> Option<T>) -> T {
        let deadline = Instant::now() + Duration::from_secs(120);
        loop {
            if let Some(found) = found(self) {
                return found;
            }
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("torchrun ended ({status}) before {what}:\n{}", self.log());
            }
            assert!(Instant::now() < deadline, "waited too long for {what}:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// How it ends, within three minutes.
    fn end(&mut self) -> ExitStatus {
        let deadline = Instant::now() + Duration::from_secs(180);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "it does not end:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Its ranks notice that it is gone, and end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The step of the run's last line of metrics.
fn step(ground: &Ground, run: &str) -> u64 {
    ground.trace(run).last().and_then(|line| line["step"].as_u64()).unwrap_or(0)
}

/// Kills one rank after the other `kills` times; three times of four while steps are taken, else within a second and a half after all were started anew,
/// which is before or while they meet, while they read the checkpoint, or in their first steps.
fn killed(kills: u64, seed: u64) {
    const EVERY: u64 = 15;
    let ground = Ground::new();
    let total = format!("optim.total_steps={}", EVERY * (kills + 2));
    let sets = [total.as_str(), "log.every_steps=1", "checkpoint.every_steps=10"];
    Company::start(&ground, "undisturbed", 2, &sets).finish();

    let mut moments = format!("moments of seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut agent = Agent::start(&ground, "killed", &sets);
    let mut last = None;
    for number in 0..kills {
        let rank = (number % 2) as usize;
        let other = |agent: &Agent, rank: usize| agent.process_of(rank).filter(|id| Some(*id) != last);
        let victim = agent.until("both ranks", |agent| other(agent, 1 - rank).and(other(agent, rank)));
        if number % 4 == 2 {
            std::thread::sleep(Duration::from_millis(random.random_range(0..1500)));
        } else {
            let at = EVERY * number + random.random_range(1..EVERY);
            agent.until("the step of the kill", |_| (step(&ground, "killed") >= at).then_some(()));
            std::thread::sleep(Duration::from_millis(random.random_range(0..20)));
        }
        moments += &format!("; rank {rank} behind step {}", step(&ground, "killed"));
        kill(Pid::from_raw(victim as i32), Signal::SIGKILL)
            .unwrap_or_else(|e| panic!("rank {rank} cannot be killed ({e}):\n{}", agent.log()));
        last = Some(victim);
    }
    let status = agent.end();
    assert!(status.success(), "{moments}: {status}: {}", agent.log());

    let (want, have) = (ground.trace("undisturbed"), ground.trace("killed"));
    assert_eq!(want.len(), have.len());
    for (want, have) in want.iter().zip(&have) {
        assert_eq!(want, have, "{moments}: the resumed run differs at step {}", want["step"]);
    }
    let weights = |run: &str| {
        let root = ground.path(run).join("checkpoints");
        let last = splitmask::checkpoint::steps(&root).pop().unwrap();
        fs::read(root.join(format!("step-{last:08}/model.safetensors"))).unwrap()
    };
    assert!(weights("undisturbed") == weights("killed"), "{moments}: other weights");
    let (want, have) = (progress(&ground, "undisturbed"), progress(&ground, "killed"));
    assert_eq!(want["cursors"], have["cursors"]);
    assert_eq!(want["word_counts"], have["word_counts"]);
}

/// Three moments; `SPLITMASK_RANK_KILLS=20 SPLITMASK_SEED=2` for more and others.
#[test]
fn ranks_killed_under_torchrun_come_to_the_undisturbed_end() {
    let number = |name: &str, default: u64| std::env::var(name).map_or(default, |n| n.parse().expect("a number"));
    killed(number("SPLITMASK_RANK_KILLS", 3), number("SPLITMASK_SEED", 1));
}

/// Ranks whose torchrun may end before them; killed when dropped.
struct Ranks([u32; 2]);

impl Ranks {
    /// Those that still run; one that has ended and is not waited for by anybody has no program any more.
    fn running(&self) -> impl Iterator<Item = u32> {
        let program = fs::canonicalize(env!("CARGO_BIN_EXE_splitmask")).unwrap();
        let runs = move |id: &u32| fs::read_link(format!("/proc/{id}/exe")).is_ok_and(|file| file == program);
        self.0.into_iter().filter(runs)
    }
}

impl Drop for Ranks {
    fn drop(&mut self) {
        for id in self.running() {
            let _ = kill(Pid::from_raw(id as i32), Signal::SIGKILL);
        }
    }
}

/// torchrun hands on a signal that ends it, whichever it is, and a torchrun that is killed leaves its ranks to themselves. Each time they end behind a
/// checkpoint, and the run goes on from there.
#[test]
fn ranks_end_with_their_torchrun_behind_a_checkpoint() {
    let ground = Ground::new();
    let sets = ["optim.total_steps=60", "log.every_steps=1", "checkpoint.every_steps=1000"];
    Company::start(&ground, "undisturbed", 2, &sets).finish();
    for (signal, at) in [(Signal::SIGTERM, 10), (Signal::SIGHUP, 20), (Signal::SIGKILL, 30)] {
        // So that they are in the middle of the run when the signal comes, however slow this test is.
        let starving = format!("debug.inject=\"starve@{}#1\"", at + 1);
        let mut agent = Agent::start(&ground, "left", &[&sets[..], &[starving.as_str()]].concat());
        agent.until("the step before the signal", |_| (step(&ground, "left") >= at).then_some(()));
        let ranks = agent.until("both ranks", |agent| Some(Ranks([agent.process_of(0)?, agent.process_of(1)?])));
        kill(Pid::from_raw(agent.child.id() as i32), signal).unwrap();
        let status = agent.end();
        assert!(!status.success(), "{signal}: {status}");
        let deadline = Instant::now() + Duration::from_secs(120);
        while ranks.running().next().is_some() {
            assert!(
                Instant::now() < deadline,
                "{signal}: ranks go on without torchrun:\n{}",
                agent.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        let log = agent.log();
        let ended = log.matches(&format!("stopped at step {at} after a checkpoint")).count();
        assert_eq!(ended, 2, "{signal}: {log}");
        assert_eq!(
            log.contains("torchrun, which started this rank, is gone"),
            signal == Signal::SIGKILL,
            "{signal}: {log}"
        );
        let newest = splitmask::checkpoint::steps(&ground.path("left/checkpoints")).pop();
        assert_eq!(newest, Some(at), "{signal}: {log}");
    }
    Company::start(&ground, "left", 2, &sets).finish();
    assert_eq!(ground.trace("undisturbed"), ground.trace("left"));
}
