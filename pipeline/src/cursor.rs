//! A position in the endless stream of samples, small enough for a checkpoint.

use serde::{Deserialize, Serialize};

/// Where the stream goes on: everything before it was consumed, nothing after it.
///
/// The stream of an epoch is the shards in plan order; consecutive *windows* of `shuffle_window` samples are permuted as a whole. So a
/// position is the window's first sample plus the number of samples taken from it, and a resume re-reads one window at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cursor {
    /// Pass over the data, from 0.
    pub epoch: u32,
    /// Place in the epoch's shard plan of the shard that holds the window's first sample.
    pub plan_position: u32,
    /// Sample of that shard at which the window begins.
    pub member: u32,
    /// Samples of the permuted window already taken, over all ranks. With several ranks it may reach into the next window by less than
    /// their number, because all ranks finish a row of one sample each.
    pub taken: u32,
    /// Samples of all windows before this one, over all ranks and epochs; their ranks follow from it.
    #[serde(default)]
    pub before: u64,
}

impl Cursor {
    /// Samples consumed since the start of the run, over all ranks.
    #[must_use]
    pub fn samples(&self) -> u64 {
        self.before + u64::from(self.taken)
    }
}
