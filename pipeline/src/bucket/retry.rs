//! How often and how long something is tried again: the limit, and the waiting between two tries.

use std::time::{Duration, Instant};

use rand::Rng;

const FIRST_DELAY: Duration = Duration::from_millis(50);
const LAST_DELAY: Duration = Duration::from_secs(15);

/// Tries that have had no success so far. The limit is a time without progress, however many tries fit into it.
#[derive(Debug)]
pub struct Retries {
    budget: Duration,
    progress: Instant,
    attempts: u32,
    backoff: Backoff,
}

/// The budget is spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spent {
    /// Tries since there was progress.
    pub attempts: u32,
    /// Time since then.
    pub elapsed: Duration,
}

impl Retries {
    /// Allows tries for this long without progress.
    #[must_use]
    pub fn new(budget: Duration) -> Self {
        Self {
            budget,
            progress: Instant::now(),
            attempts: 0,
            backoff: Backoff::default(),
        }
    }

    /// There was progress: time and waiting begin anew.
    pub fn progressed(&mut self) {
        *self = Self::new(self.budget);
    }

    /// Tries since there was progress.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Counts a failed try; answers how long to wait before the next one: `asked` if somebody said so, else longer from try to try.
    ///
    /// # Errors
    /// [`Spent`] if the wait would go beyond the budget.
    pub fn next(&mut self, asked: Option<Duration>) -> Result<Duration, Spent> {
        self.attempts += 1;
        let delay = asked.unwrap_or_else(|| self.backoff.delay());
        let elapsed = self.progress.elapsed();
        if elapsed + delay > self.budget {
            return Err(Spent {
                attempts: self.attempts,
                elapsed,
            });
        }
        Ok(delay)
    }
}

/// Exponential waiting with decorrelated jitter, so that many readers do not come back at once.
#[derive(Debug)]
struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Self(FIRST_DELAY)
    }
}

impl Backoff {
    /// The next delay: uniform between the first and three times the last one, at most 15 s.
    fn delay(&mut self) -> Duration {
        let top = (self.0 * 3).min(LAST_DELAY);
        self.0 = rand::rng().random_range(FIRST_DELAY..=top);
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_and_stay_bounded() {
        let mut backoff = Backoff::default();
        let delays: Vec<_> = (0..50).map(|_| backoff.delay()).collect();
        assert!(delays.iter().all(|d| (FIRST_DELAY..=LAST_DELAY).contains(d)));
        assert!(delays[0] <= FIRST_DELAY * 3);
        assert!(delays.iter().max().unwrap() > &Duration::from_secs(1));
    }

    #[test]
    fn the_budget_is_a_time_without_progress() {
        let mut retries = Retries::new(Duration::from_secs(1));
        assert_eq!(retries.next(Some(Duration::from_millis(900))), Ok(Duration::from_millis(900)));
        let spent = retries.next(Some(Duration::from_secs(2))).unwrap_err();
        assert_eq!(spent.attempts, 2);
        retries.progressed();
        assert!(retries.next(None).is_ok());
        assert_eq!(Retries::new(Duration::ZERO).next(None).unwrap_err().attempts, 1);
    }
}
