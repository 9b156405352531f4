//! `[checkpoint]`: when and how many.

use crate::setting::{Findings, settings};

settings! {
    /// `[checkpoint]`: when and how many.
    pub struct CheckpointConfig in "checkpoint" {
        /// Steps between checkpoints.
        Live every_steps: u64 = 1000,
        /// Newest checkpoints that are kept.
        Live keep: u32 = 3,
        /// Checkpoints at multiples of this are kept for ever; 0 = none.
        Live keep_every_steps: u64 = 0,
    }
}

impl CheckpointConfig {
    /// Checks ranges.
    pub fn check(&self, found: &mut Findings) {
        found.need(self.every_steps >= 1, "checkpoint.every_steps", self.every_steps, "at least 1 step");
        found.need(self.keep >= 1, "checkpoint.keep", self.keep, "at least 1");
    }
}
