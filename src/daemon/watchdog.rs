//! Is the trainer stuck? Judged by its own progress, never by the network.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::trainer::control::{State, Status};

/// Times the median step.
const FACTOR: u32 = 10;
/// Steps that the median is taken over.
const WINDOW: usize = 64;

/// Watches [`Status::last_progress_s`] for change.
#[derive(Debug)]
pub struct Watchdog {
    floor: Duration,
    last_value: f64,
    last_change: Instant,
    last_step: (u64, Instant),
    steps: VecDeque<Duration>,
}

impl Watchdog {
    /// Starts now; `floor` is the shortest time without progress that counts as stuck.
    #[must_use]
    pub fn new(now: Instant, floor: Duration) -> Self {
        Self {
            floor,
            last_value: 0.0,
            last_change: now,
            last_step: (0, now),
            steps: VecDeque::new(),
        }
    }

    /// Changes the floor.
    pub fn set_floor(&mut self, floor: Duration) {
        self.floor = floor;
    }

    /// Time without progress that counts as stuck: ten median steps, at least the floor.
    #[must_use]
    pub fn limit(&self) -> Duration {
        let mut steps: Vec<Duration> = self.steps.iter().copied().collect();
        steps.sort_unstable();
        steps
            .get(steps.len() / 2)
            .map_or(self.floor, |median| self.floor.max(*median * FACTOR))
    }

    /// Looks once; answers why the trainer counts as stuck, if it does. Slow phases (start, checkpoint, evaluation, waiting for a bucket,
    /// draining) are no reason.
    pub fn look(&mut self, status: &Status, now: Instant) -> Option<String> {
        if status.step != self.last_step.0 {
            let taken = u32::try_from(status.step.saturating_sub(self.last_step.0)).unwrap_or(u32::MAX);
            if self.last_step.0 > 0 && taken > 0 {
                self.steps.push_back((now - self.last_step.1) / taken);
                if self.steps.len() > WINDOW {
                    self.steps.pop_front();
                }
            }
            self.last_step = (status.step, now);
        }
        if status.state != State::Training || status.last_progress_s != self.last_value {
            self.last_value = status.last_progress_s;
            self.last_change = now;
            return None;
        }
        let idle = now - self.last_change;
        (idle > self.limit()).then(|| {
            format!(
                "no progress since step {} for {} s (limit {} s)",
                status.step,
                idle.as_secs(),
                self.limit().as_secs()
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(state: State, step: u64, progress: f64) -> Status {
        Status {
            state,
            step,
            last_progress_s: progress,
            ..Status::default()
        }
    }

    #[test]
    fn fires_after_the_limit_and_recovers() {
        let start = Instant::now();
        let after = |s: u64| start + Duration::from_secs(s);
        let mut dog = Watchdog::new(start, Duration::from_secs(300));
        assert_eq!(dog.look(&status(State::Training, 1, 1.0), after(1)), None);
        assert_eq!(dog.look(&status(State::Training, 1, 1.0), after(300)), None);
        let reason = dog.look(&status(State::Training, 1, 1.0), after(302)).unwrap();
        assert!(reason.contains("since step 1") && reason.contains("limit 300"), "{reason}");
        assert_eq!(dog.look(&status(State::Training, 2, 303.0), after(303)), None);
    }

    #[test]
    fn slow_phases_and_outages_are_no_reason() {
        let start = Instant::now();
        let mut dog = Watchdog::new(start, Duration::from_secs(300));
        for state in [
            State::Starting,
            State::WaitingForData,
            State::Checkpointing,
            State::Evaluating,
            State::Draining,
        ] {
            assert_eq!(
                dog.look(&status(state, 1, 1.0), start + Duration::from_secs(86_400)),
                None,
                "{state:?}"
            );
        }
    }

    #[test]
    fn long_steps_stretch_the_limit() {
        let start = Instant::now();
        let mut dog = Watchdog::new(start, Duration::from_secs(1));
        for step in 1..=20 {
            assert_eq!(
                dog.look(&status(State::Training, step, step as f64), start + Duration::from_secs(60 * step)),
                None
            );
        }
        assert_eq!(dog.limit(), Duration::from_secs(600));
    }
}
