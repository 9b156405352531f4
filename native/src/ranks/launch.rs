//! Who this process is among the ranks, read from what launchers put into the environment.

use crate::ranks::RanksError;

/// What started the ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Launcher {
    /// Nothing: one process.
    Alone,
    /// torchrun (torch elastic), whose agent hosts the store and restarts ranks.
    Torchrun,
    /// `srun`.
    Slurm,
    /// RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT from anything else.
    Environment,
}

/// Where the ranks meet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meeting {
    /// Name or address of the host of rank 0 (or of torchrun's agent).
    pub host: String,
    /// TCP port there.
    pub port: u16,
    /// The launcher's agent serves the store there; else rank 0 does.
    pub agent: bool,
}

/// A process's place among the ranks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// Who says so.
    pub by: Launcher,
    /// From 0.
    pub rank: usize,
    /// How many ranks there are.
    pub world: usize,
    /// Number among those of this host, from 0.
    pub local_rank: usize,
    /// Ranks of this host, where the launcher tells it.
    pub local_world: Option<usize>,
    /// Where to meet; nothing for one rank.
    pub meeting: Option<Meeting>,
}

impl Launch {
    /// One process and no others.
    #[must_use]
    pub const fn alone() -> Self {
        Self {
            by: Launcher::Alone,
            rank: 0,
            world: 1,
            local_rank: 0,
            local_world: Some(1),
            meeting: None,
        }
    }

    /// From this process's environment: RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT (torchrun, Kubernetes, systemd), else
    /// SLURM's variables of a job *step* (what `srun` sets; a batch script itself is no rank), else alone.
    ///
    /// # Errors
    /// A variable that is missing or makes no sense beside the others.
    pub fn from_env() -> Result<Self, RanksError> {
        Self::read(|key| std::env::var(key).ok())
    }

    /// As [`Self::from_env`], from any source of variables.
    ///
    /// # Errors
    /// As there.
    pub fn read(get: impl Fn(&str) -> Option<String>) -> Result<Self, RanksError> {
        let env = Env(&get);
        if env.text("RANK").is_some() || env.text("WORLD_SIZE").is_some() {
            env.of_ranks()
        } else if env.text("SLURM_STEP_NUM_TASKS").is_some() && env.text("SLURM_PROCID").is_some() {
            env.of_slurm()
        } else {
            Ok(Self::alone())
        }
    }

    /// Which of `visible` CUDA devices is this rank's: `cuda:LOCAL_RANK`, or the only one where the launcher shows each rank its own.
    ///
    /// # Errors
    /// More ranks on this host than devices.
    pub fn cuda_index(&self, visible: usize) -> Result<usize, RanksError> {
        match visible {
            1 => Ok(0),
            n if self.local_rank < n => Ok(self.local_rank),
            n => Err(RanksError::Environment {
                key: "LOCAL_RANK",
                value: self.local_rank.to_string(),
                reason: format!("this host shows {n} CUDA devices; start at most {n} ranks here"),
            }),
        }
    }
}

struct Env<'a, F>(&'a F);

impl<F: Fn(&str) -> Option<String>> Env<'_, F> {
    /// A variable that is set and not empty.
    fn text(&self, key: &str) -> Option<String> {
        (self.0)(key).map(|v| v.trim().to_owned()).filter(|v| !v.is_empty())
    }

    fn wrong(&self, key: &'static str, reason: impl Into<String>) -> RanksError {
        RanksError::Environment {
            key,
            value: self.text(key).unwrap_or_else(|| "(not set)".into()),
            reason: reason.into(),
        }
    }

    fn number<T: std::str::FromStr>(&self, key: &'static str) -> Result<Option<T>, RanksError> {
        self.text(key)
            .map(|v| {
                v.parse()
                    .map_err(|_| self.wrong(key, format!("a whole number is needed ({})", std::any::type_name::<T>())))
            })
            .transpose()
    }

    fn needed<T: std::str::FromStr>(&self, key: &'static str, why: &str) -> Result<T, RanksError> {
        self.number(key)?.ok_or_else(|| self.wrong(key, why))
    }

    fn of_ranks(&self) -> Result<Launch, RanksError> {
        let world: usize = self.needed("WORLD_SIZE", "RANK is set, so the number of ranks must be too")?;
        if world == 0 {
            return Err(self.wrong("WORLD_SIZE", "at least 1"));
        }
        if world == 1 {
            return Ok(Launch::alone());
        }
        let rank: usize = self.needed("RANK", "WORLD_SIZE is set, so each process must be told its rank")?;
        if rank >= world {
            return Err(self.wrong("RANK", format!("ranks go from 0 to WORLD_SIZE - 1 = {}", world - 1)));
        }
        let host = self
            .text("MASTER_ADDR")
            .ok_or_else(|| self.wrong("MASTER_ADDR", "the name or address of the host of rank 0 is needed"))?;
        let port = self.needed(
            "MASTER_PORT",
            "a free TCP port of the host of rank 0 is needed, the same on all ranks",
        )?;
        let local_world: Option<usize> = self.number("LOCAL_WORLD_SIZE")?;
        let local_rank = self.number("LOCAL_RANK")?.unwrap_or(0);
        if local_world.is_some_and(|n| local_rank >= n) {
            return Err(self.wrong("LOCAL_RANK", "it goes from 0 to LOCAL_WORLD_SIZE - 1"));
        }
        let elastic = self.text("TORCHELASTIC_RUN_ID").is_some();
        Ok(Launch {
            by: if elastic { Launcher::Torchrun } else { Launcher::Environment },
            rank,
            world,
            local_rank,
            local_world,
            meeting: Some(Meeting {
                host,
                port,
                agent: self.text("TORCHELASTIC_USE_AGENT_STORE").is_some_and(|v| v == "True"),
            }),
        })
    }

    fn of_slurm(&self) -> Result<Launch, RanksError> {
        let world: usize = self.needed("SLURM_STEP_NUM_TASKS", "a number of tasks")?;
        if world <= 1 {
            return Ok(Launch::alone());
        }
        let rank: usize = self.needed("SLURM_PROCID", "the number of this task")?;
        if rank >= world {
            return Err(self.wrong("SLURM_PROCID", format!("the step has {world} tasks")));
        }
        let node: usize = self.number("SLURM_NODEID")?.unwrap_or(0);
        let local_world = self.text("SLURM_STEP_TASKS_PER_NODE").and_then(|t| tasks_of_node(&t, node));
        let nodes = self.text("SLURM_STEP_NODELIST").or_else(|| self.text("SLURM_JOB_NODELIST"));
        let host = match self.text("MASTER_ADDR") {
            Some(host) => host,
            None => nodes
                .as_deref()
                .and_then(first_node)
                .ok_or_else(|| self.wrong("SLURM_STEP_NODELIST", "no first host in it; set MASTER_ADDR to the host of rank 0"))?,
        };
        let port = match self.number("MASTER_PORT")? {
            Some(port) => port,
            None => slurm_port(
                self.needed("SLURM_JOB_ID", "set MASTER_PORT to a free TCP port of the host of rank 0")?,
                self.number("SLURM_STEP_ID")?.unwrap_or(0),
            ),
        };
        Ok(Launch {
            by: Launcher::Slurm,
            rank,
            world,
            local_rank: self.number("SLURM_LOCALID")?.unwrap_or(0),
            local_world,
            meeting: Some(Meeting { host, port, agent: false }),
        })
    }
}

/// A port that all ranks of a step work out alike and that two jobs on one host rarely share: 15,000 to 29,999, below what kernels give out.
fn slurm_port(job: u64, step: u64) -> u16 {
    let spread = job.wrapping_mul(7919).wrapping_add(step) % 15_000;
    15_000 + u16::try_from(spread).unwrap_or(0)
}

/// The first host of SLURM's short form: `gpu[03-05,9],other` → `gpu03`.
fn first_node(list: &str) -> Option<String> {
    let end = list.find([',', '[']).unwrap_or(list.len());
    let (name, rest) = list.split_at(end);
    let Some(range) = rest.strip_prefix('[') else {
        return (!name.is_empty()).then(|| name.to_owned());
    };
    let (range, behind) = range.split_once(']')?;
    let first = range.split([',', '-']).next()?;
    let suffix = behind.split(',').next().unwrap_or("");
    // `rack[1-2]n[3-4]`: the rest is a list of the same form.
    let suffix = if suffix.contains('[') {
        first_node(behind)?
    } else {
        suffix.to_owned()
    };
    Some(format!("{name}{first}{suffix}"))
}

/// How many tasks node `node` has, from SLURM's `4(x2),3`.
fn tasks_of_node(list: &str, node: usize) -> Option<usize> {
    let mut before = 0;
    for part in list.split(',') {
        let (tasks, times) = match part.split_once("(x") {
            Some((tasks, times)) => (tasks, times.strip_suffix(')')?.parse().ok()?),
            None => (part, 1usize),
        };
        before += times;
        if node < before {
            return tasks.parse().ok();
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Launch, RanksError> {
        let map: BTreeMap<&str, &str> = pairs.iter().copied().collect();
        Launch::read(|key| map.get(key).map(|v| (*v).to_owned()))
    }

    const PLAIN: [(&str, &str); 4] = [
        ("RANK", "3"),
        ("WORLD_SIZE", "4"),
        ("MASTER_ADDR", "10.0.0.7"),
        ("MASTER_PORT", "29500"),
    ];

    #[test]
    fn nothing_set_is_one_process_and_so_is_a_world_of_one() {
        assert_eq!(read(&[]).unwrap(), Launch::alone());
        assert_eq!(read(&[("WORLD_SIZE", "1"), ("RANK", "0")]).unwrap(), Launch::alone());
        assert_eq!(read(&[("WORLD_SIZE", "1"), ("MASTER_PORT", "no")]).unwrap(), Launch::alone());
        assert_eq!(read(&[("RANK", ""), ("WORLD_SIZE", " ")]).unwrap(), Launch::alone());
    }

    #[test]
    fn torchruns_environment_is_read() {
        let mut env = PLAIN.to_vec();
        env.extend([
            ("LOCAL_RANK", "1"),
            ("LOCAL_WORLD_SIZE", "2"),
            ("TORCHELASTIC_RUN_ID", "job7"),
            ("TORCHELASTIC_USE_AGENT_STORE", "True"),
        ]);
        let launch = read(&env).unwrap();
        assert_eq!((launch.by, launch.rank, launch.world), (Launcher::Torchrun, 3, 4));
        assert_eq!((launch.local_rank, launch.local_world), (1, Some(2)));
        let meeting = launch.meeting.unwrap();
        assert_eq!((meeting.host.as_str(), meeting.port, meeting.agent), ("10.0.0.7", 29500, true));
        *env.last_mut().unwrap() = ("TORCHELASTIC_USE_AGENT_STORE", "False");
        assert!(!read(&env).unwrap().meeting.unwrap().agent);
    }

    #[test]
    fn what_is_missing_or_makes_no_sense_is_named() {
        let key = |env: &[(&str, &str)]| match read(env).unwrap_err() {
            RanksError::Environment { key, .. } => key,
            other => panic!("{other}"),
        };
        let with = |key: &'static str, value: &'static str| {
            let mut env: Vec<_> = PLAIN.into_iter().filter(|(k, _)| *k != key).collect();
            env.push((key, value));
            env
        };
        assert_eq!(key(&[("RANK", "0")]), "WORLD_SIZE");
        assert_eq!(key(&with("WORLD_SIZE", "0")), "WORLD_SIZE");
        assert_eq!(key(&with("WORLD_SIZE", "many")), "WORLD_SIZE");
        assert_eq!(key(&with("RANK", "")), "RANK");
        assert_eq!(key(&with("RANK", "4")), "RANK");
        assert_eq!(key(&with("RANK", "-1")), "RANK");
        assert_eq!(key(&with("MASTER_ADDR", "")), "MASTER_ADDR");
        assert_eq!(key(&with("MASTER_PORT", "")), "MASTER_PORT");
        assert_eq!(key(&with("MASTER_PORT", "70000")), "MASTER_PORT");
        let mut env = PLAIN.to_vec();
        env.extend([("LOCAL_RANK", "2"), ("LOCAL_WORLD_SIZE", "2")]);
        assert_eq!(key(&env), "LOCAL_RANK");
        let text = read(&with("RANK", "4")).unwrap_err().to_string();
        assert_eq!(text, "environment variable RANK=4: ranks go from 0 to WORLD_SIZE - 1 = 3");
    }

    #[test]
    fn a_slurm_step_is_read_and_a_batch_script_is_no_rank() {
        let step = [
            ("SLURM_JOB_ID", "4711"),
            ("SLURM_STEP_ID", "0"),
            ("SLURM_PROCID", "5"),
            ("SLURM_LOCALID", "1"),
            ("SLURM_NODEID", "1"),
            ("SLURM_STEP_NUM_TASKS", "7"),
            ("SLURM_STEP_NODELIST", "gpu[03-04]"),
            ("SLURM_STEP_TASKS_PER_NODE", "4,3"),
        ];
        let launch = read(&step).unwrap();
        assert_eq!((launch.by, launch.rank, launch.world), (Launcher::Slurm, 5, 7));
        assert_eq!((launch.local_rank, launch.local_world), (1, Some(3)));
        let meeting = launch.meeting.unwrap();
        assert_eq!((meeting.host.as_str(), meeting.agent), ("gpu03", false));
        assert!((15_000..30_000).contains(&meeting.port));
        // Every task of the step works out the same port, another step and another job another one.
        let port = |key: &str, value: &'static str| {
            let env: Vec<_> = step.iter().map(|&(k, v)| (k, if k == key { value } else { v })).collect();
            read(&env).unwrap().meeting.unwrap().port
        };
        assert_eq!(port("SLURM_PROCID", "0"), meeting.port);
        assert_ne!(port("SLURM_STEP_ID", "1"), meeting.port);
        assert_ne!(port("SLURM_JOB_ID", "4712"), meeting.port);
        let own = [step.as_slice(), &[("MASTER_ADDR", "10.1.1.1"), ("MASTER_PORT", "1234")]].concat();
        let meeting = read(&own).unwrap().meeting.unwrap();
        assert_eq!((meeting.host.as_str(), meeting.port), ("10.1.1.1", 1234));
        let script = [("SLURM_JOB_ID", "4711"), ("SLURM_PROCID", "0"), ("SLURM_NTASKS", "7")];
        assert_eq!(read(&script).unwrap(), Launch::alone());
        // torchrun inside of a step: its variables win.
        let both = [step.as_slice(), &PLAIN].concat();
        assert_eq!(read(&both).unwrap().rank, 3);
    }

    #[test]
    fn slurms_short_forms_are_read() {
        let first = |list| first_node(list).unwrap_or_default();
        assert_eq!(first("vm"), "vm");
        assert_eq!(first("a,b"), "a");
        assert_eq!(first("gpu[007-012,20],cpu1"), "gpu007");
        assert_eq!(first("gpu[5,9]-ib"), "gpu5-ib");
        assert_eq!(first("rack[1-2]n[3-4],x"), "rack1n3");
        assert_eq!(first(""), "");
        assert_eq!(first("gpu[1-2"), "");
        assert_eq!(tasks_of_node("4(x2),3", 0), Some(4));
        assert_eq!(tasks_of_node("4(x2),3", 1), Some(4));
        assert_eq!(tasks_of_node("4(x2),3", 2), Some(3));
        assert_eq!(tasks_of_node("4(x2),3", 3), None);
        assert_eq!(tasks_of_node("nonsense", 0), None);
    }

    #[test]
    fn the_device_is_that_of_the_local_rank_or_the_only_one() {
        let at = |local_rank, local_world| Launch {
            local_rank,
            local_world,
            ..Launch::alone()
        };
        assert_eq!(at(3, Some(4)).cuda_index(8).unwrap(), 3);
        assert_eq!(at(3, Some(4)).cuda_index(1).unwrap(), 0);
        assert_eq!(at(0, None).cuda_index(1).unwrap(), 0);
        let text = at(3, Some(4)).cuda_index(2).unwrap_err().to_string();
        assert!(text.contains("LOCAL_RANK=3") && text.contains("2 CUDA devices"), "{text}");
    }
}
