//! A run that cannot have its data, or cannot write the checkpoint that it is to end with, pauses rather than ends: weights stay in memory, and a reload,
//! the bucket's consent or room on the disk lets it go on. One that somebody asks to pause does the same until it is asked to go on.

use std::time::{Duration, Instant};

use splitmask_pipeline::config::OnBudget;
use splitmask_pipeline::error::{PipelineError, ShardError};

use crate::telemetry::metrics::PauseReason;

/// Longest time between two tries to write the checkpoint of a pause, and between two looks whether credentials were renewed.
pub(super) const RETRY: Duration = Duration::from_secs(30);
/// Time before the first of those tries; each waits twice as long as the one before.
pub(super) const FIRST_RETRY: Duration = Duration::from_secs(1);

/// Why and how a run is paused.
pub(super) struct Pause {
    pub(super) why: PauseReason,
    /// The same in words, with what to do.
    pub(super) reason: String,
    pub(super) began: Instant,
    /// When the checkpoint of this pause is tried again, if it is not written.
    write_at: Option<Instant>,
    write_after: Duration,
    /// When the bucket is asked again; `None` = only a reload helps.
    again: Option<Instant>,
    every: Duration,
}

/// What is due in a pause.
pub(super) enum Due {
    /// The checkpoint that could not be written before.
    Checkpoint,
    /// To ask the bucket again.
    AskBucket,
}

impl Pause {
    /// Why, if this end of the stream is worth waiting for a person. Only for a run that has taken a step: before that its config is wrong, and whoever
    /// started it is still there.
    pub(super) fn reason(error: &PipelineError, on_budget: OnBudget) -> Option<PauseReason> {
        match error {
            PipelineError::FailureBudget { .. } if on_budget == OnBudget::Pause => Some(PauseReason::FailureBudget),
            PipelineError::Shard(ShardError::Denied { .. }) => Some(PauseReason::Denied),
            _ => None,
        }
    }

    /// Begins now; `safe` says whether its checkpoint is written.
    pub(super) fn begin(why: PauseReason, reason: String, retry_budget_s: f64, safe: bool) -> Self {
        let every = RETRY.min(Duration::from_secs_f64(retry_budget_s));
        Self {
            why,
            reason,
            began: Instant::now(),
            write_at: (!safe).then(|| Instant::now() + FIRST_RETRY),
            write_after: FIRST_RETRY,
            again: (why == PauseReason::Denied).then(|| Instant::now() + every),
            every,
        }
    }

    /// What is due now, if anything is; the next time is set then.
    pub(super) fn due(&mut self) -> Option<Due> {
        let now = Instant::now();
        if self.write_at.is_some_and(|at| now >= at) {
            return Some(Due::Checkpoint);
        }
        if self.again.is_none_or(|again| now < again) {
            return None;
        }
        self.again = Some(now + self.every);
        Some(Due::AskBucket)
    }

    /// The checkpoint was tried again. Answers whether that was all that this pause waited for.
    pub(super) fn tried_checkpoint(&mut self, safe: bool) -> bool {
        self.write_after = RETRY.min(self.write_after * 2);
        self.write_at = (!safe).then(|| Instant::now() + self.write_after);
        safe && self.why == PauseReason::Disk
    }
}
