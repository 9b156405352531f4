//! What is kept over a rollback.

use splitmask_pipeline::cursor::Cursor;

use crate::checkpoint::{Rollback, Stability};
use crate::trainer::metrics_log::MetricsLog;

/// What a start from an older checkpoint takes over from the run that failed: its place in the data and its memory.
pub(in crate::trainer) struct AfterRollback {
    /// Where the data goes on.
    pub(in crate::trainer) cursor: Cursor,
    /// What the run remembered.
    pub(super) stability: Stability,
    /// The rollback itself.
    pub(super) rollback: Rollback,
    /// With the lines that wait for room on the disk.
    pub(super) metrics_log: MetricsLog,
}

impl AfterRollback {
    /// What the run remembers after it, and its log: starting at `to_step`, whose checkpoint stood at `from` in the data.
    pub(in crate::trainer) fn memory(self, to_step: u64, from: Cursor) -> (Stability, MetricsLog) {
        let mut stability = self.stability;
        stability.recent.clear();
        stability.judged = stability.consumed;
        stability.rollbacks.push(Rollback {
            to_step,
            skipped_from: from,
            ..self.rollback
        });
        (stability, self.metrics_log)
    }
}
