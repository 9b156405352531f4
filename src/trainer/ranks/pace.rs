//! How long a rank's own part of a step takes. Backward ends at the same time on all ranks, and so does a step: what tells a slow rank is when its last
//! gradients are on their way. Times are the host's: on a GPU, where it runs ahead of the device, they tell of the host.

use std::time::{Duration, Instant};

/// Of the steps since the last log line.
#[derive(Debug, Default)]
pub(in crate::trainer) struct Pace {
    /// When the step under way began.
    began: Option<Instant>,
    /// Within it: waited for other ranks in its forward passes.
    pub(super) waited: Duration,
    steps: u32,
    own: Duration,
    /// Waited in steps.
    pub(in crate::trainer) exchange: Duration,
    /// Waited between steps.
    pub(in crate::trainer) tick: Duration,
    /// What the words between steps took by themselves.
    pub(in crate::trainer) tick_message: Duration,
    /// How many words these times are of.
    pub(in crate::trainer) ticks: u32,
}

impl Pace {
    /// The first forward pass of a step begins.
    pub(super) fn begin(&mut self) {
        (self.began, self.waited) = (Some(Instant::now()), Duration::ZERO);
    }

    /// The last backward of the step, which began then, is over: this rank's last gradients left after `last`, all were averaged after `whole`.
    pub(super) fn end(&mut self, backward: Instant, last: Duration, whole: Duration) {
        let Some(began) = self.began.take() else { return };
        self.steps += 1;
        self.own += (backward.duration_since(began) + last).saturating_sub(self.waited);
        self.exchange += whole.saturating_sub(last) + self.waited;
    }

    /// A word between two steps took so long here; the one before took `least` where it was shortest, 0 where there was none before.
    pub(super) fn ticked(&mut self, whole: Duration, least: Duration) {
        self.tick += whole;
        self.tick_message += least;
        self.ticks += 1;
    }

    /// Seconds of own work in a step; 0 without one.
    pub(in crate::trainer) fn own_step(&self) -> f64 {
        self.own.as_secs_f64() / f64::from(self.steps.max(1))
    }
}

/// Own work beyond so many times the median makes a straggler.
const SLOW: f64 = 1.2;
/// Differences below so many seconds are the machine's noise.
const NOISE: f64 = 0.002;

/// Which ranks hold the others up, and the median of all, seconds.
pub(in crate::trainer) fn stragglers(paces: &[f64]) -> (Vec<usize>, f64) {
    let mut sorted = paces.to_vec();
    sorted.sort_by(f64::total_cmp);
    // The lower one of two middle ones: of two ranks the slower one is the straggler.
    let median = sorted.get((sorted.len().max(1) - 1) / 2).copied().unwrap_or(0.0);
    let slow = |pace: f64| pace > SLOW * median && pace > median + NOISE;
    ((0..paces.len()).filter(|rank| slow(paces[*rank])).collect(), median)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_a_fifth_slower_than_the_median_is_named() {
        assert_eq!(stragglers(&[0.10, 0.11, 0.10, 0.13]), (vec![3], 0.10));
        assert_eq!(stragglers(&[0.10, 0.13]).0, [1], "of two the slower one");
        assert_eq!(stragglers(&[0.10, 0.119]).0, [0; 0]);
        assert_eq!(stragglers(&[0.001, 0.002]).0, [0; 0], "a millisecond is noise");
        assert_eq!(stragglers(&[0.2, 0.1, 0.2, 0.1, 0.1]).0, [0, 2]);
        assert_eq!(stragglers(&[]).0, [0; 0]);
    }

    #[test]
    fn own_work_ends_where_the_last_gradients_leave_and_waiting_is_none_of_it() {
        let ms = Duration::from_millis;
        let mut pace = Pace::default();
        let mut step = |waited: u64| {
            pace.begin();
            pace.waited += ms(waited);
            let backward = pace.began.unwrap() + ms(50);
            pace.end(backward, ms(20), ms(35));
        };
        step(0);
        step(30);
        assert!((pace.own_step() - 0.055).abs() < 1e-9, "{pace:?}");
        assert_eq!(pace.exchange, ms(60));
        let mut none = Pace::default();
        none.end(Instant::now(), ms(1), ms(2));
        assert_eq!((none.own_step(), none.exchange), (0.0, Duration::ZERO));
    }
}
