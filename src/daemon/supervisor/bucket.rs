//! What the supervisor does while the bucket of a start does not answer.

use std::time::Instant;

use super::Supervisor;
use crate::daemon::bucket_wait::BucketWait;
use crate::daemon::daemon_status::lock as held;
use crate::daemon::train::Train;
use crate::daemon::transaction;
use crate::trainer::control::State;

impl<T: Train> Supervisor<T> {
    /// The trainer could not start for want of its bucket.
    pub(super) fn await_bucket(&mut self) {
        let now = Instant::now();
        let wait = self.bucket_wait.get_or_insert_with(|| BucketWait::begin(now));
        let (pause, lasts) = (wait.failed(now), wait.lasts(now));
        let reason = self.bucket_says.clone();
        let first = held(&self.parts.shown).waiting.replace(reason.clone()).is_none();
        held(&self.parts.status).state = State::WaitingForData;
        self.parts.metrics.bucket_away.set(1.0);
        tracing::warn!(
            reason,
            waiting_s = lasts.as_secs(),
            "the bucket does not answer; the start is tried again in {:.0} s",
            pause.as_secs_f64()
        );
        if first && self.parts.from.is_some() {
            self.note("waiting", "trainer", "failed", &[], Some(&reason));
        }
    }

    /// Tries again when it is time.
    pub(super) fn look_for_bucket(&mut self) {
        let due = self.bucket_wait.as_ref().is_some_and(|wait| wait.is_due(Instant::now()));
        if due && self.transaction.waits() {
            self.happens(transaction::Event::Retry);
        }
    }

    /// A trainer has its first batch.
    pub(super) fn bucket_is_back(&mut self) {
        if let Some(wait) = self.bucket_wait.take() {
            tracing::info!(waited_s = wait.lasts(Instant::now()).as_secs(), "the bucket answers");
        }
        held(&self.parts.shown).waiting = None;
        self.parts.metrics.bucket_away.set(0.0);
    }
}
