//! Starts processes of this test program as ranks, gives them a bounded time, and leaves none behind.

use std::collections::BTreeMap;
use std::io::Read;
use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// Which scenario of `child` a process plays.
pub(crate) const SCENARIO: &str = "TORCH_EXT_TEST_SCENARIO";
/// However slow the machine: a process that lives longer is killed and fails its test.
const BOUND: Duration = Duration::from_secs(120);

/// Clusters that there may still be: the processes of two are enough for a small machine, and much of their time is waiting.
static FREE: Mutex<usize> = Mutex::new(2);
static FREED: Condvar = Condvar::new();

/// One of the places of [`FREE`].
struct Turn;

impl Turn {
    fn wait() -> Self {
        let free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = FREED.wait_while(free, |n| *n == 0).unwrap_or_else(PoisonError::into_inner);
        *free -= 1;
        Self
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *FREE.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        FREED.notify_one();
    }
}

/// What became of a process.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) signal: Option<i32>,
    /// What it reported, by name.
    pub(crate) reports: BTreeMap<String, String>,
    pub(crate) output: String,
}

impl Outcome {
    #[track_caller]
    pub(crate) fn report(&self, name: &str) -> &str {
        self.reports
            .get(name)
            .map_or_else(|| panic!("no report of {name} in:\n{}", self.output), String::as_str)
    }

    #[track_caller]
    pub(crate) fn number(&self, name: &str) -> f64 {
        self.report(name).parse().unwrap()
    }
}

/// A process under way.
pub(crate) struct Process {
    child: Child,
    text: Receiver<String>,
    born: Instant,
}

/// Where ranks meet, and how many they are.
pub(crate) struct Cluster {
    pub(crate) world: usize,
    pub(crate) port: u16,
    env: Vec<(String, String)>,
    _turn: Turn,
}

impl Cluster {
    /// `world` ranks that will meet at a free port. It waits until there are fewer than two others.
    pub(crate) fn new(world: usize) -> Self {
        let turn = Turn::wait();
        Self {
            world,
            port: free_port(),
            env: Vec::new(),
            _turn: turn,
        }
    }

    pub(crate) fn env(mut self, key: &str, value: &str) -> Self {
        self.env.push((key.into(), value.into()));
        self
    }

    /// One rank that plays `scenario`; later variables win.
    pub(crate) fn start(&self, scenario: &str, rank: usize, env: &[(&str, &str)]) -> Process {
        self.start_by(Command::new(std::env::current_exe().unwrap()), scenario, rank, env)
    }

    /// As [`Self::start`], by a `command` that ends with this test program.
    pub(crate) fn start_by(&self, mut command: Command, scenario: &str, rank: usize, env: &[(&str, &str)]) -> Process {
        command.args(["--exact", "child::rank", "--nocapture", "--test-threads=1"]);
        for key in [
            "GLOO_SOCKET_IFNAME",
            "LOCAL_RANK",
            "LOCAL_WORLD_SIZE",
            "TORCHELASTIC_RUN_ID",
            "TORCHELASTIC_USE_AGENT_STORE",
        ] {
            command.env_remove(key);
        }
        command
            .env(SCENARIO, scenario)
            .env("OMP_NUM_THREADS", "1")
            .env("RANK", rank.to_string())
            .env("WORLD_SIZE", self.world.to_string())
            .env("MASTER_ADDR", "127.0.0.1")
            .env("MASTER_PORT", self.port.to_string())
            .envs(self.env.iter().map(|(k, v)| (k, v)))
            .envs(env.iter().copied());
        Process::spawn(&mut command)
    }

    pub(crate) fn start_all(&self, scenario: &str) -> Vec<Process> {
        (0..self.world).map(|rank| self.start(scenario, rank, &[])).collect()
    }

    /// Every rank plays `scenario` to its end.
    pub(crate) fn play(&self, scenario: &str) -> Vec<Outcome> {
        self.start_all(scenario).into_iter().map(Process::end).collect()
    }

    /// As [`Self::play`]; all must come to a good end.
    #[track_caller]
    pub(crate) fn succeed(&self, scenario: &str) -> Vec<Outcome> {
        let outcomes = self.play(scenario);
        for (rank, o) in outcomes.iter().enumerate() {
            assert_eq!(
                o.code,
                Some(0),
                "rank {rank} of {}, signal {:?}:\n{}",
                self.world,
                o.signal,
                o.output
            );
        }
        outcomes
    }
}

/// A port that nobody listens at, below those that the kernel gives to whoever asks for any: rank 0 binds it a while later.
fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    (0..1000)
        .find_map(|_| {
            // Test programs that run side by side begin at different places.
            let n = std::process::id()
                .wrapping_mul(97)
                .wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
            let port = 15_000 + u16::try_from(n % 15_000).unwrap();
            TcpListener::bind(("127.0.0.1", port)).is_ok().then_some(port)
        })
        .expect("a free port")
}

impl Process {
    pub(crate) fn spawn(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (send, text) = mpsc::channel();
        let pipes: [Box<dyn Read + Send>; 2] = [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
        for mut pipe in pipes {
            let send = send.clone();
            std::thread::spawn(move || {
                let mut bytes = [0; 4096];
                while let Ok(n) = pipe.read(&mut bytes) {
                    if n == 0 || send.send(String::from_utf8_lossy(&bytes[..n]).into_owned()).is_err() {
                        break;
                    }
                }
            });
        }
        let born = Instant::now();
        Self { child, text, born }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends the signal (`KILL`, `STOP`, `CONT`); answers the time at which that was done.
    pub(crate) fn signal(&self, name: &str) -> Duration {
        let now = now();
        let done = Command::new("sh")
            .args(["-c", &format!("kill -{name} {}", self.pid())])
            .status()
            .unwrap();
        assert!(done.success());
        now
    }

    /// Waits until the process has reported `name`; what it said until then is in front of what [`Self::end`] shows.
    #[track_caller]
    pub(crate) fn wait_for(&self, name: &str, before: &mut String) {
        let mark = format!("# {name} ");
        while !before.contains(&mark) {
            let left = BOUND.saturating_sub(self.born.elapsed());
            match self.text.recv_timeout(left) {
                Ok(text) => before.push_str(&text),
                Err(e) => panic!("no report of {name} ({e}) in:\n{before}"),
            }
        }
    }

    /// Waits for the end.
    pub(crate) fn end(self) -> Outcome {
        self.end_after(String::new())
    }

    pub(crate) fn end_after(mut self, mut output: String) -> Outcome {
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if self.born.elapsed() > BOUND {
                output.push_str("\n(killed: it took too long)\n");
                let _ = self.child.kill();
                break self.child.wait().unwrap();
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        // The pipes end with the process.
        while let Ok(text) = self.text.recv_timeout(Duration::from_secs(10)) {
            output.push_str(&text);
        }
        let reports = output
            .lines()
            .filter_map(|line| line.split_once("# ")?.1.split_once(' '))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        Outcome {
            code: status.code(),
            signal: status.signal(),
            reports,
            output,
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A test that failed leaves nothing running and no zombie; a process that has ended is not harmed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Time of day, which processes of one machine share.
pub(crate) fn now() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap()
}
