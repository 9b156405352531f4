//! Several processes (ranks) that train one model: each has the model and a share of the batch, and gradients are averaged. PyTorch's own engine
//! (c10d with gloo and NCCL, arXiv 2006.15704) does the work; this is its safe side.
//!
//! ```no_run
//! use torch_ext::ranks::{Greeting, Launch, Options, Ranks, Reduce};
//! # fn main() -> Result<(), torch_ext::ranks::RanksError> {
//! let mut options = Options::new(Launch::from_env()?);
//! options.greeting = Greeting::default().with("version", env!("CARGO_PKG_VERSION"));
//! let ranks = Ranks::join(&options)?;
//! let loss = tch::Tensor::from(0.5f32);
//! ranks.all_reduce(&[(&loss, Reduce::Mean)])?;
//! ranks.leave()
//! # }
//! ```
//!
//! Every rank makes the same calls in the same order. A call that fails because of another rank closes this rank's connections, so that all others
//! notice within milliseconds, finds out who went and why ([`RanksError::Lost`]), and every later call is refused: there is no going on with fewer. The
//! program says why, and ends by [`leave_at_once`]; its launcher starts all ranks again. An orderly end is [`Ranks::leave`], called by all.
//!
//! One rank ([`Ranks::alone`]) has no thread, no socket and no copy: every collective is the identity.

mod collectives;
mod error;
mod farewell;
mod ffi;
mod fit;
mod greeting;
mod join;
mod last_words;
mod launch;
mod nccl;
mod reducer;
mod tick;

use std::cell::Cell;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub use collectives::Reduce;
pub use error::{Cause, Drift, Late, Loss, Misfit, RanksError};
pub use greeting::{Greeting, Member};
pub use join::{Backend, Options};
pub use last_words::{LastWords, leave_at_once};
pub use launch::{Launch, Launcher, Meeting};
pub use nccl::NcclUnavailable;
pub use reducer::{BUCKET_BYTES, Part, Reducer, Traffic};
pub use tick::{TICK_WORDS, Tick};

use crate::TorchError;

/// The ranks, seen from one of them. It may move between threads; one thread at a time uses it. A clone is another handle on the same connections.
#[derive(Debug, Clone)]
pub struct Ranks {
    launch: Launch,
    group: Option<Arc<Group>>,
    // Collectives pair up by their order, so two threads must not make them at once: not Sync.
    one_thread: PhantomData<Cell<()>>,
}

/// What all handles share. Fields are dropped in this order: the connections before the store through which they were made.
#[derive(Debug)]
struct Group {
    links: ManuallyDrop<ffi::Links>,
    words: Arc<last_words::Shared>,
    apart: AtomicBool,
    left: AtomicBool,
}

impl Ranks {
    /// One rank.
    #[must_use]
    pub const fn alone() -> Self {
        Self {
            launch: Launch::alone(),
            group: None,
            one_thread: PhantomData,
        }
    }

    /// Comes together with the other ranks that the launcher started: waits for all of them, in any order of their starts, and compares what they say
    /// of themselves. A launch of one rank is [`Self::alone`].
    ///
    /// # Errors
    /// An address that cannot be used, ranks that did not come in time or do not fit together, NCCL without CUDA, or what libtorch said.
    pub fn join(options: &Options) -> Result<Self, RanksError> {
        Self::join_while(options, &|| true)
    }

    /// As [`Self::join`], as long as `go_on` answers true; it is asked many times a second.
    ///
    /// # Errors
    /// As there; [`RanksError::Cancelled`].
    pub fn join_while(options: &Options, go_on: &dyn Fn() -> bool) -> Result<Self, RanksError> {
        let launch = options.launch.clone();
        let meeting = match &launch.meeting {
            Some(meeting) if launch.world > 1 => meeting,
            _ => return Ok(Self::alone()),
        };
        let joined = join::join(options, meeting, go_on)?;
        Ok(Self::of(launch, joined))
    }

    fn of(launch: Launch, joined: join::Joined) -> Self {
        let group = Group {
            links: ManuallyDrop::new(joined.links),
            words: joined.words,
            apart: AtomicBool::new(false),
            left: AtomicBool::new(false),
        };
        Self {
            launch,
            group: Some(Arc::new(group)),
            one_thread: PhantomData,
        }
    }

    /// Tries `backend` on this machine alone: a group of one rank, which unlike [`Self::alone`] opens a store and connections, sums a tensor on `device`
    /// over itself. Answers how long the second of two sums took. Says what a run of several ranks would meet here, but for the network.
    ///
    /// # Errors
    /// As [`Self::join`]; a sum that is not the tensor itself.
    pub fn rehearse(device: tch::Device, backend: Backend) -> Result<Duration, RanksError> {
        const CALL: &str = "rehearsal";
        const VALUES: i64 = 1 << 20;
        let free = std::net::TcpListener::bind(("127.0.0.1", 0)).and_then(|l| l.local_addr());
        let free = free.map_err(|e| spoken(CALL, &format!("no port of 127.0.0.1 can be had: {e}")))?;
        let meeting = Meeting {
            host: "127.0.0.1".into(),
            port: free.port(),
            agent: false,
        };
        let options = Options {
            device,
            backend,
            join_timeout: Duration::from_secs(60),
            ..Options::new(Launch::alone())
        };
        let ranks = Self::of(Launch::alone(), join::join(&options, &meeting, &|| true)?);
        let sum = || -> Result<Duration, RanksError> {
            let x = tch::Tensor::arange(VALUES, (tch::Kind::Float, device));
            let began = Instant::now();
            ranks.all_reduce(&[(&x, Reduce::Sum)])?;
            // Reading a value waits for the device.
            let last = x.double_value(&[VALUES - 1]);
            if last != (VALUES - 1) as f64 {
                return Err(spoken(CALL, &format!("the sum over one rank is {last} where {} went in", VALUES - 1)).into());
            }
            Ok(began.elapsed())
        };
        sum()?;
        let taken = sum()?;
        ranks.leave()?;
        Ok(taken)
    }

    /// This rank's number, from 0.
    #[must_use]
    pub const fn rank(&self) -> usize {
        self.launch.rank
    }

    /// How many ranks there are.
    #[must_use]
    pub const fn world(&self) -> usize {
        self.launch.world
    }

    /// This rank's place, as the launcher told it.
    #[must_use]
    pub const fn launch(&self) -> &Launch {
        &self.launch
    }

    /// All ranks as they introduced themselves, in the order of ranks; nothing for one rank.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        self.group.as_ref().map_or(&[], |g| &g.words.members)
    }

    /// How long this rank has waited for the others in steps until now: in [`Self::all_reduce`], [`Self::gather`], [`Self::exchange`], in
    /// [`Self::normalised`] and its backward, and in a [`Reducer`]'s backward from its last bucket on. It only grows, and is the host's time: on CUDA, where
    /// the device waits, next to nothing. Alone zero.
    #[must_use]
    pub fn waited(&self) -> Duration {
        self.group.as_ref().map_or(Duration::ZERO, |group| group.links.waited())
    }

    /// Waits for all ranks and closes the connections: nobody fails because this rank goes. Every rank calls it; one that ends without it fails for the
    /// others. First all meet in a last tick; then each says in the store that it has read the tick's answer, and closes when all have said so, or after
    /// five seconds if one has died in between. With a clone, a [`Reducer`] or a [`Tick`] the connections stay open until that is dropped, and are not used.
    ///
    /// # Errors
    /// A rank was lost before.
    pub fn leave(self) -> Result<(), RanksError> {
        self.tick(&[])?;
        if let Some(group) = &self.group {
            farewell::part(&group.words);
            group.left.store(true, Ordering::SeqCst);
        }
        Ok(())
    }

    /// This rank's failure in something that all take part in, noticed outside of this module, such as a panic in the middle of a step: leaves `text` as
    /// last words and closes the connections.
    pub fn fail(&self, text: &str) {
        if let Some(group) = &self.group {
            group.fail(text);
        }
    }
}

impl Group {
    /// Refuses `call` if an earlier one failed, or this rank has left.
    fn together(&self, call: &'static str) -> Result<Instant, RanksError> {
        if self.apart.load(Ordering::SeqCst) || self.left.load(Ordering::SeqCst) {
            return Err(RanksError::Apart { call });
        }
        Ok(Instant::now())
    }

    /// Words first, so that whoever notices by a broken connection finds them.
    fn fail(&self, text: &str) {
        if !self.apart.swap(true, Ordering::SeqCst) {
            // The connections break in any case, which is how the others notice.
            let _ = LastWords(Some(Arc::clone(&self.words))).say(text);
            self.links.cut();
        }
    }

    /// What a failed call, begun at `since`, means. Whichever it was, this rank no longer takes part. A failure that looks like this rank's own counts as
    /// another's if that one has left last words: libtorch may report a broken connection as an error of its own.
    fn judge(&self, call: &'static str, since: Instant, failure: ffi::Failure) -> RanksError {
        let words = LastWords(Some(Arc::clone(&self.words)));
        if failure.peer || !words.heard().is_empty() {
            return self.lost(call, since, &failure.error.message);
        }
        self.fail(&failure.error.to_string());
        failure.error.into()
    }

    fn lost(&self, call: &'static str, since: Instant, message: &str) -> RanksError {
        let after = since.elapsed();
        self.apart.store(true, Ordering::SeqCst);
        self.links.cut();
        RanksError::Lost(Box::new(Loss::new(call, after, message, last_words::inquire(&self.words))))
    }
}

impl Drop for Group {
    #[expect(unsafe_code, reason = "the links are dropped here or never")]
    fn drop(&mut self) {
        if self.left.load(Ordering::SeqCst) {
            // SAFETY: this is the only place that drops them, and the group is not used again.
            unsafe { ManuallyDrop::drop(&mut self.links) };
        } else {
            // A panic, an early return, a lost rank: the others notice now. Destroying a process group waits for what is under way in it, which here
            // would be until a time-out, so its threads are left to the end of the process.
            if !self.words.spoke() {
                self.fail(if std::thread::panicking() {
                    "panicked"
                } else {
                    "ended without waiting for the others"
                });
            }
            self.links.cut();
            last_words::host(&self.words);
        }
    }
}

/// What libtorch said, without its C++ backtrace.
fn spoken(call: &'static str, message: &str) -> TorchError {
    let end = message.find("\nException raised from").unwrap_or(message.len());
    TorchError {
        call,
        message: message[..end].trim_end().to_owned(),
    }
}
