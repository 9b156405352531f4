//! `[checkpoint]`: when and how many.

use splitmask_pipeline::bucket::prefix::Prefix;
use splitmask_pipeline::bucket::secret::hidden;

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
        /// Where checkpoints, journal, metrics and pictures are copied to in the background, and come back from: s3://, gs://, az://, a folder, file://; empty = nowhere.
        Live mirror: String = String::new(),
        /// Address of the mirror's server, in place of the provider's; empty = the provider's.
        Live mirror_endpoint: String = String::new(),
        /// Megabytes per second that uploads to the mirror take at most; 0 = no limit.
        Live mirror_mb_s: f64 = 0.0,
        /// Seconds without a word after which a machine that holds the mirror counts as gone.
        Live mirror_lease_s: f64 = 60.0,
    }
}

impl CheckpointConfig {
    /// Checks ranges.
    pub fn check(&self, found: &mut Findings) {
        found.need(self.every_steps >= 1, "checkpoint.every_steps", self.every_steps, "at least 1 step");
        found.need(self.keep >= 1, "checkpoint.keep", self.keep, "at least 1");
        found.need(
            (0.0..=100_000.0).contains(&self.mirror_mb_s),
            "checkpoint.mirror_mb_s",
            self.mirror_mb_s,
            "0 (no limit) to 100000 MB/s",
        );
        found.need(
            (1.0..=3600.0).contains(&self.mirror_lease_s),
            "checkpoint.mirror_lease_s",
            self.mirror_lease_s,
            "1 to 3600 seconds",
        );
        if !self.mirror.is_empty()
            && let Err(why) = Prefix::check(&self.mirror)
        {
            found.need(
                false,
                "checkpoint.mirror",
                format!("{:?}", hidden(&self.mirror)),
                format!("an address that can be written to, such as s3://bucket/runs/x, gs://, az:// or a folder: {why}"),
            );
        }
    }
}
