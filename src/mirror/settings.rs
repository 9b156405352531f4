//! What the config says of the mirror, as plain data.

use std::path::PathBuf;
use std::time::Duration;

use crate::checkpoint::Policy;
use crate::held_lock::HeldLock;
use crate::telemetry::metrics::MirrorMetrics;

/// What a mirror is opened for.
#[derive(Clone)]
pub struct Opening {
    /// Folder of the run, locked by this process.
    pub run_dir: PathBuf,
    /// How it is recognised.
    pub lock: HeldLock,
    /// `run.name`.
    pub run: String,
    /// Counts.
    pub metrics: MirrorMetrics,
    /// Time for which a run without a checkpoint here waits for a store that does not answer.
    pub patience: Duration,
}

/// Where the mirror is, and how it is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct MirrorSettings {
    /// Key that named the place, for messages: `checkpoint.mirror`, or `run.dir`.
    pub key: &'static str,
    /// Address of its prefix, or a folder.
    pub address: String,
    /// In place of the provider's address; empty = the provider's.
    pub endpoint: String,
    /// Megabytes per second of uploads at most; 0 = no limit.
    pub mb_s: f64,
    /// Time without a word after which the holder of the lease counts as gone.
    pub lease: Duration,
    /// Newest checkpoints that are kept.
    pub keep: u32,
    /// Multiples of this step are kept for ever; 0 = none.
    pub keep_every: u64,
}

impl MirrorSettings {
    /// Whether another place is meant: one that is opened anew.
    #[must_use]
    pub fn is_elsewhere(&self, other: &Self) -> bool {
        (&self.address, &self.endpoint, self.lease) != (&other.address, &other.endpoint, other.lease)
    }

    /// Which checkpoints of the mirror stay.
    #[must_use]
    pub fn policy(&self, best: Option<u64>) -> Policy {
        Policy {
            keep: self.keep,
            keep_every: self.keep_every,
            best,
        }
    }
}
