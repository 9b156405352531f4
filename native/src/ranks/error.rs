//! What can go wrong between ranks. Three kinds of errors are told apart, because a program must treat them differently: the launch was wrong (fix it
//! and start again), another rank failed ([`RanksError::Lost`]: leave and be started again), this rank failed itself ([`RanksError::Torch`]).

use std::fmt;
use std::time::Duration;

use crate::TorchError;
use crate::ranks::nccl::NcclUnavailable;

/// Why ranks could not come together, or no longer are.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RanksError {
    /// The launcher's environment is not usable.
    #[error("environment variable {key}={value}: {reason}")]
    Environment {
        /// Which variable.
        key: &'static str,
        /// What it holds; `(not set)` if nothing.
        value: String,
        /// What is wrong and what to do.
        reason: String,
    },
    /// Rank 0 cannot serve at the address it was given, or gloo cannot use the interface.
    #[error("{what}: {reason}")]
    Address {
        /// Which address or interface, and where it was written.
        what: String,
        /// What is wrong and what to do.
        reason: String,
    },
    /// Not all ranks came.
    #[error("{}", .0)]
    Late(Late),
    /// All came, and they do not fit together.
    #[error("{}", misfits(.0))]
    Misfit(Vec<Misfit>),
    /// Two processes were given one rank.
    #[error("another process is rank {rank} already ({other}); each needs a rank of its own")]
    Taken {
        /// Which rank.
        rank: usize,
        /// The other process.
        other: String,
    },
    /// The caller's wish not to wait any longer.
    #[error("stopped while waiting for the other ranks")]
    Cancelled,
    /// Another rank failed or was silent for too long. This rank's connections are closed by now; every later collective is refused.
    #[error("{}", .0)]
    Lost(Box<Loss>),
    /// A collective after one that failed, or after this rank has left.
    #[error("{call}: refused, because an earlier call failed or this rank has left; the ranks are no longer together")]
    Apart {
        /// Which call.
        call: &'static str,
    },
    /// A parameter had no gradient in the backward that synchronises, so its bucket was never reduced.
    #[error(
        "no gradient reached {} in this backward; with several ranks every parameter needs one in each step (freeze it, or leave it out of the reducer)",
        names(.0)
    )]
    NoGradient(Vec<String>),
    /// Ranks hold different values where they must hold the same.
    #[error("{}", .0)]
    Drift(Drift),
    /// NCCL was asked for and is not to be had.
    #[error(transparent)]
    Nccl(#[from] NcclUnavailable),
    /// A call with arguments that no rank can serve; nothing was sent.
    #[error("{call}: {reason}")]
    Usage {
        /// Which call.
        call: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// This rank's own failure, such as no memory.
    #[error(transparent)]
    Torch(#[from] TorchError),
}

/// Who did not come in time.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Late {
    /// How long was waited.
    pub waited: Duration,
    /// Ranks that came, this one included.
    pub here: usize,
    /// How many there should be.
    pub world: usize,
    /// Ranks that did not come, as far as this rank knows.
    pub missing: Vec<usize>,
    /// What was seen instead.
    pub note: String,
}

impl fmt::Display for Late {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { waited, here, world, .. } = self;
        write!(f, "waited {} s for {world} ranks", waited.as_secs())?;
        if *here > 0 {
            write!(f, ", {here} came")?;
        }
        if !self.missing.is_empty() {
            let list: Vec<String> = self.missing.iter().take(16).map(ToString::to_string).collect();
            let more = if self.missing.len() > 16 { ", …" } else { "" };
            write!(f, "; missing: {}{more}", list.join(", "))?;
        }
        if !self.note.is_empty() {
            write!(f, "; {}", self.note)?;
        }
        Ok(())
    }
}

/// Why a rank cannot work with the others.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Misfit {
    /// It has something else than rank 0.
    Differs {
        /// Which rank.
        rank: usize,
        /// Its host.
        host: String,
        /// In what, such as `version`.
        what: String,
        /// What it has.
        theirs: String,
        /// What rank 0 has.
        ours: String,
    },
    /// It came to say that it cannot take part.
    Refuses {
        /// Which rank.
        rank: usize,
        /// Its host.
        host: String,
        /// Why not.
        why: String,
    },
    /// It was given the device of another rank.
    Shares {
        /// Which rank.
        rank: usize,
        /// Its host.
        host: String,
        /// The other rank.
        with: usize,
        /// What identifies the device.
        device: String,
    },
    /// Only its own host can reach it.
    Loopback {
        /// Which rank.
        rank: usize,
        /// Its host.
        host: String,
        /// The address at which it would wait for the others.
        address: String,
    },
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Differs {
                rank,
                host,
                what,
                theirs,
                ours,
            } => write!(f, "rank {rank} on host {host} has {what} {theirs}, rank 0 has {ours}"),
            Self::Refuses { rank, host, why } => write!(f, "rank {rank} on host {host} cannot start: {why}"),
            Self::Shares { rank, host, with, device } => {
                write!(f, "rank {rank} on host {host} was given the device of rank {with}, {device}")
            }
            Self::Loopback { rank, host, address } => write!(
                f,
                "rank {rank} on host {host} waits at {address}, where only its own host reaches it (set GLOO_SOCKET_IFNAME to the interface of \
                 the network between the hosts, or MASTER_ADDR to an address on it)"
            ),
        }
    }
}

fn misfits(list: &[Misfit]) -> String {
    let list: Vec<String> = list.iter().map(ToString::to_string).collect();
    format!("the ranks do not fit together: {}", list.join("; "))
}

fn names(list: &[String]) -> String {
    let shown = list.iter().take(8).map(String::as_str).collect::<Vec<_>>().join(", ");
    if list.len() > 8 {
        format!("{shown} and {} more", list.len() - 8)
    } else if list.is_empty() {
        "some parameter".into()
    } else {
        shown
    }
}

/// What is known about the end of another rank.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// It left last words.
    Words {
        /// Which rank.
        rank: usize,
        /// Its host.
        host: String,
        /// What it said.
        text: String,
    },
    /// It said nothing: killed, stopped, cut off, or in something long.
    Silent {
        /// Which rank.
        rank: usize,
        /// Its host.
        host: String,
    },
    /// The store is gone, and with it whatever anybody said: the host of rank 0, or its launcher's, is down.
    NoStore {
        /// The host where the store was, and whose it was.
        whose: String,
    },
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Words { rank, host, text } => write!(f, "rank {rank} on host {host}: {text}"),
            Self::Silent { rank, host } => write!(f, "no word from rank {rank} on host {host}: killed, stopped or cut off"),
            Self::NoStore { whose } => write!(f, "the store of {whose} does not answer: killed, stopped or cut off"),
        }
    }
}

/// How another rank was lost.
#[derive(Debug, Clone)]
pub struct Loss {
    /// In which call it was noticed.
    pub call: &'static str,
    /// How long that call had taken.
    pub after: Duration,
    /// What the network said.
    pub message: String,
    /// What the others said before they went; the silent ones where nobody said anything.
    pub causes: Vec<Cause>,
}

impl Loss {
    /// `message` is libtorch's, of which the first line is kept.
    pub(super) fn new(call: &'static str, after: Duration, message: &str, causes: Vec<Cause>) -> Self {
        Self {
            call,
            after,
            message: message.lines().next().unwrap_or_default().to_owned(),
            causes,
        }
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, cause) in self.causes.iter().enumerate() {
            let sep = if i == 0 { "" } else { "; " };
            write!(f, "{sep}{cause}")?;
        }
        let sep = if self.causes.is_empty() {
            "a connection between the ranks is lost, though all of them answer and none said that it failed"
        } else {
            ""
        };
        let (call, ms) = (self.call, self.after.as_millis());
        write!(f, "{sep} (noticed in {call} after {ms} ms: {})", self.message)
    }
}

/// Where a rank's values are not those of rank 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drift {
    /// Ranks with their hosts, and the first tensor that differs there.
    pub ranks: Vec<(usize, String, String)>,
    /// How many tensors were compared.
    pub compared: usize,
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("weights are no longer the same on all ranks: ")?;
        for (i, (rank, host, tensor)) in self.ranks.iter().enumerate() {
            let sep = if i == 0 { "" } else { "; " };
            write!(f, "{sep}rank {rank} on host {host} holds another {tensor} than rank 0")?;
        }
        write!(f, " ({} tensors compared)", self.compared)
    }
}
