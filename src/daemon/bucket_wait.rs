//! A start whose bucket does not answer is not a wrong start: when to try it again, and for how long.

use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

use super::daemon_status::lock as held;
use super::supervisor::Supervisor;
use super::{Train, transaction};
use crate::trainer::control::State;

/// Pauses between two tries, shortest and longest.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// The tries of one start.
#[derive(Debug)]
pub(super) struct BucketWait {
    began: Instant,
    pauses: ExponentialBackoff,
    next: Instant,
}

impl BucketWait {
    /// Begins with a first failure at `now`.
    pub(super) fn begin(now: Instant) -> Self {
        let pauses = ExponentialBuilder::default()
            .with_min_delay(PAUSES.0)
            .with_max_delay(PAUSES.1)
            .with_jitter()
            .without_max_times();
        Self {
            began: now,
            pauses: pauses.build(),
            next: now,
        }
    }

    /// A try failed at `now`; answers the pause until the next.
    pub(super) fn failed(&mut self, now: Instant) -> Duration {
        let pause = self.pauses.next().unwrap_or(PAUSES.1);
        self.next = now + pause;
        pause
    }

    /// Whether it is time for the next try.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        now >= self.next
    }

    /// Time since the first failure.
    pub(super) fn lasts(&self, now: Instant) -> Duration {
        now - self.began
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_half_a_minute_and_never_end() {
        let now = Instant::now();
        let mut wait = BucketWait::begin(now);
        let pauses: Vec<Duration> = (0..1000).map(|_| wait.failed(now)).collect();
        assert!(pauses[0] >= PAUSES.0 && pauses[0] < PAUSES.0 * 3, "{:?}", pauses[0]);
        // Jitter adds up to one shortest pause.
        assert!(pauses[10..].iter().all(|p| (PAUSES.1..=PAUSES.1 * 2).contains(p)), "{pauses:?}");
        assert!(!wait.is_due(now + PAUSES.1 - Duration::from_millis(1)) && wait.is_due(now + PAUSES.1 * 2));
    }
}
