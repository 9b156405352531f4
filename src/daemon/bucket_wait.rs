//! A start whose bucket does not answer is not a wrong start: when to try it again, and for how long.

use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

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
