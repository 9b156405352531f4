//! Signals: held back from every thread, taken by one.
//!
//! A signal handler runs on whatever thread the kernel picks, and oneDNN's AVX2 and AVX-512 products (libtorch 2.11) do not survive one: after a
//! few dozen SIGHUPs the process dies, or trains on with a damaged heap. So no handler is ever installed. [`hold`] blocks the signals before
//! `main`, every thread inherits that, and the thread of [`listen`] waits for them. One that comes earlier stays pending until then.
//!
//! A signal that `tgkill` addresses to a single thread stays pending there and has no effect; `kill`, also of a thread's id, addresses the process.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal as Number, raise};

use crate::exit;

/// A signal that is held back and handed to the listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGHUP.
    Hangup,
    /// SIGINT.
    Interrupt,
    /// SIGTERM.
    Terminate,
    /// SIGUSR1.
    User1,
}

impl Signal {
    const ALL: [Self; 4] = [Self::Hangup, Self::Interrupt, Self::Terminate, Self::User1];

    const fn number(self) -> Number {
        match self {
            Self::Hangup => Number::SIGHUP,
            Self::Interrupt => Number::SIGINT,
            Self::Terminate => Number::SIGTERM,
            Self::User1 => Number::SIGUSR1,
        }
    }

    /// As the manual calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.number().as_str()
    }
}

type Listener = Box<dyn FnMut(Signal) + Send>;

/// The listener in force; `None` until the thread that waits has been started.
static LISTENER: Mutex<Option<Listener>> = Mutex::new(None);

fn held() -> SigSet {
    // SIGPIPE too: Rust ignores it, but only from `main` on. SIGXFSZ, so that a file that outgrows `ulimit -f` is a failed write like any other and no end
    // without a word. The kernel sends both to the thread that writes, where they stay pending.
    let of_writes = [Number::SIGPIPE, Number::SIGXFSZ];
    Signal::ALL.iter().map(|s| s.number()).chain(of_writes).collect()
}

/// Blocks the signals in the calling thread and in every thread that it starts.
///
/// Made to be called before `main`, where libtorch's constructors take 0.3 s and may start threads. Allocates nothing.
pub extern "C" fn hold() {
    let _ = held().thread_block();
}

/// Hands every signal to `listener` from now on, those that are pending first. A later call replaces the listener.
///
/// # Errors
/// The thread that waits cannot be started.
pub fn listen(listener: impl FnMut(Signal) + Send + 'static) -> io::Result<()> {
    hold();
    let first = LISTENER
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .replace(Box::new(listener))
        .is_none();
    if first {
        std::thread::Builder::new().name("signals".into()).spawn(wait)?;
    }
    Ok(())
}

fn wait() {
    let held = held();
    loop {
        let Ok(number) = held.wait() else { continue };
        let signal = Signal::ALL.into_iter().find(|s| s.number() == number);
        if let (Some(signal), Some(listener)) = (signal, LISTENER.lock().unwrap_or_else(PoisonError::into_inner).as_mut()) {
            listener(signal);
        }
    }
}

/// Tells whether a request to stop is a new one. `timeout`, SLURM and terminals signal a process and then its whole group, so that one request
/// comes twice within milliseconds; only one that comes later shows that somebody does not want to wait any more.
#[derive(Debug, Default)]
pub struct StopRequests {
    first: Option<Instant>,
}

/// What a request to stop means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// The first one: save what there is, then end.
    Orderly,
    /// The first one once more.
    Repeated,
    /// End at once.
    AtOnce,
}

impl StopRequests {
    /// Time after the first request from which on another one means "at once".
    pub const APART: Duration = Duration::from_secs(1);

    /// Judges a request that comes `now`.
    pub fn judge(&mut self, now: Instant) -> Stop {
        match self.first {
            None => {
                self.first = Some(now);
                Stop::Orderly
            }
            Some(first) if now.duration_since(first) < Self::APART => Stop::Repeated,
            Some(_) => Stop::AtOnce,
        }
    }
}

/// A listener for commands that hold nothing worth saving: the signal does to the process what it would do without us. One that the process was
/// started to ignore (`nohup`, a shell's background job) is ignored.
pub fn by_default() -> impl FnMut(Signal) + Send + 'static {
    let ignored = ignored_at_start();
    move |signal| {
        if ignored & (1 << (signal.number() as i32 - 1)) == 0 {
            let _ = SigSet::from(signal.number()).thread_unblock();
            let _ = raise(signal.number());
            // Only the first process of a container comes here: the kernel keeps it alive.
            exit::at_once(128 + signal.number() as i32);
        }
    }
}

/// Bit n − 1 stands for signal n. Nobody in this process changes what it does to the signals that are held.
fn ignored_at_start() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|l| l.strip_prefix("SigIgn:"));
    mask.and_then(|m| u64::from_str_radix(m.trim(), 16).ok()).unwrap_or(0)
}

/// Lets a child process have the signals that this process holds back.
#[expect(unsafe_code, reason = "runs between fork and exec")]
pub fn let_through(command: &mut Command) -> &mut Command {
    let held = held();
    // SAFETY: `pthread_sigmask` is async-signal-safe, and the set is made before the fork.
    unsafe { command.pre_exec(move || held.thread_unblock().map_err(io::Error::from)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_request_counts_a_second_after_the_first() {
        let start = Instant::now();
        let after = |ms: u64| start + Duration::from_millis(ms);
        let mut requests = StopRequests::default();
        let judged: Vec<Stop> = [0, 1, 999, 1000, 1001].into_iter().map(|ms| requests.judge(after(ms))).collect();
        assert_eq!(judged, [Stop::Orderly, Stop::Repeated, Stop::Repeated, Stop::AtOnce, Stop::AtOnce]);
    }

    #[test]
    fn a_child_of_a_thread_that_holds_signals_gets_them() {
        let masks = std::thread::spawn(|| {
            hold();
            let blocked = |command: &mut Command| {
                let output = command.args(["^SigBlk", "/proc/self/status"]).output().unwrap();
                let text = String::from_utf8(output.stdout).unwrap();
                u64::from_str_radix(text.split_whitespace().nth(1).unwrap(), 16).unwrap()
            };
            (blocked(&mut Command::new("grep")), blocked(let_through(&mut Command::new("grep"))))
        });
        let (plain, let_through) = masks.join().unwrap();
        let terminate = 1 << (Signal::Terminate.number() as i32 - 1);
        assert_ne!(plain & terminate, 0, "the test would see a mask that is inherited");
        assert_eq!(let_through, 0);
    }
}
