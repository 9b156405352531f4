//! The copy of a run in an object store, as metrics.

use prometheus::{Gauge, IntCounter, Registry};

use crate::telemetry::labels::{MirrorFailure, PerLabel};
use crate::telemetry::register::{count_per, counter, gauge};

/// Metrics of `checkpoint.mirror`.
#[derive(Clone)]
pub struct MirrorMetrics {
    /// `splitmask_checkpoint_mirror_on`.
    pub on: Gauge,
    /// `splitmask_checkpoint_mirror_lease_held`.
    pub lease_held: Gauge,
    /// `splitmask_checkpoint_mirror_uploads_total`.
    pub uploads: IntCounter,
    /// `splitmask_checkpoint_mirror_bytes_total`.
    pub bytes: IntCounter,
    /// `splitmask_checkpoint_mirror_failures_total`.
    pub failures: PerLabel<MirrorFailure, IntCounter>,
    /// `splitmask_checkpoint_mirror_last_step`.
    pub last_step: Gauge,
    /// `splitmask_checkpoint_mirror_newest_timestamp_seconds`.
    pub newest_timestamp: Gauge,
}

impl MirrorMetrics {
    pub(super) fn new(r: &Registry) -> prometheus::Result<Self> {
        Ok(Self {
            on: gauge(
                r,
                "splitmask_checkpoint_mirror_on",
                "1 while checkpoint.mirror names a place, else 0.",
            )?,
            lease_held: gauge(
                r,
                "splitmask_checkpoint_mirror_lease_held",
                "1 while this process holds the lease of the mirror and may write to it, else 0.",
            )?,
            uploads: counter(
                r,
                "splitmask_checkpoint_mirror_uploads_total",
                "Checkpoints that this process uploaded whole.",
            )?,
            bytes: counter(
                r,
                "splitmask_checkpoint_mirror_bytes_total",
                "Data that went to the mirror's store, in bytes; those of failed uploads count too.",
            )?,
            failures: count_per(
                r,
                "splitmask_checkpoint_mirror_failures_total",
                "Tries to upload or to prune that failed, by reason; they are made again, and training never waits for them.",
            )?,
            last_step: gauge(
                r,
                "splitmask_checkpoint_mirror_last_step",
                "Step of the newest checkpoint that the mirror holds whole; 0 = none known.",
            )?,
            newest_timestamp: gauge(
                r,
                "splitmask_checkpoint_mirror_newest_timestamp_seconds",
                "When the newest checkpoint that the mirror holds whole was written on this machine, in seconds since 1970; 0 = none by this process.",
            )?,
        })
    }
}
