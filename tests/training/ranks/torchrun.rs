//! Two ranks under torchrun itself, of which one is killed over and over: the run comes to the end of an undisturbed one, bit for bit.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

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
    for kill in 0..kills {
        let rank = (kill % 2) as usize;
        let other = |agent: &Agent, rank: usize| agent.process_of(rank).filter(|id| Some(*id) != last);
        let victim = agent.until("both ranks", |agent| other(agent, 1 - rank).and(other(agent, rank)));
        if kill % 4 == 2 {
            std::thread::sleep(Duration::from_millis(random.random_range(0..1500)));
        } else {
            let at = EVERY * kill + random.random_range(1..EVERY);
            agent.until("the step of the kill", |_| (step(&ground, "killed") >= at).then_some(()));
            std::thread::sleep(Duration::from_millis(random.random_range(0..20)));
        }
        moments += &format!("; rank {rank} behind step {}", step(&ground, "killed"));
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(victim as i32), nix::sys::signal::Signal::SIGKILL)
            .unwrap_or_else(|e| panic!("rank {rank} cannot be killed ({e}):\n{}", agent.log()));
        last = Some(victim);
    }
    let began = Instant::now();
    let status = loop {
        if let Some(status) = agent.child.try_wait().unwrap() {
            break status;
        }
        assert!(began.elapsed() < Duration::from_secs(180), "it does not end:\n{}", agent.log());
        std::thread::sleep(Duration::from_millis(50));
    };
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
