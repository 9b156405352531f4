//! How long a rank's own part of a step takes. Backward ends at the same time on all ranks, and so does a step: what tells a slow rank is how little of it
//! it has waited for others ([`torch_ext::ranks::Ranks::waited`]). Times are the host's: on a GPU, where it runs ahead of the device, they tell of the host.

use std::time::{Duration, Instant};

/// Of the steps since the last log line.
#[derive(Debug, Default)]
pub(in crate::trainer) struct Pace {
    /// When the step under way began, and how long the rank had waited until then.
    began: Option<(Instant, Duration)>,
    /// How long it had waited when these steps began.
    before: Duration,
    steps: u32,
    own: Duration,
    /// Waited in steps; known when they are taken.
    pub(in crate::trainer) exchange: Duration,
    /// Waited between steps.
    pub(in crate::trainer) tick: Duration,
    /// What the words between steps took by themselves.
    pub(in crate::trainer) tick_message: Duration,
    /// How many words these times are of.
    pub(in crate::trainer) ticks: u32,
}

impl Pace {
    /// The first forward pass of a step begins; the rank has `waited` for others until now, as in the calls below.
    pub(super) fn begin(&mut self, now: Instant, waited: Duration) {
        self.began = Some((now, waited));
    }

    /// The last backward of the step is over.
    pub(super) fn end(&mut self, now: Instant, waited: Duration) {
        let Some((began, before)) = self.began.take() else { return };
        self.steps += 1;
        self.own += now.duration_since(began).saturating_sub(waited - before);
    }

    /// What there is to tell of the steps until now; the next ones are counted anew.
    pub(super) fn take(&mut self, waited: Duration) -> Self {
        let next = Self {
            before: waited,
            ..Self::default()
        };
        let done = std::mem::replace(self, next);
        Self {
            exchange: waited - done.before,
            ..done
        }
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
    fn waiting_is_no_work_of_ones_own_and_what_is_waited_behind_backward_counts_too() {
        let (ms, start) = (Duration::from_millis, Instant::now());
        let mut pace = Pace::default();
        pace.begin(start, ms(0));
        pace.end(start + ms(70), ms(15));
        // 5 ms for the sums behind it.
        pace.begin(start + ms(100), ms(20));
        pace.end(start + ms(200), ms(65));
        let told = pace.take(ms(70));
        assert!((told.own_step() - 0.055).abs() < 1e-9, "{told:?}");
        assert_eq!(told.exchange, ms(70));
        let none = pace.take(ms(70));
        assert_eq!((none.own_step(), none.exchange), (0.0, Duration::ZERO));
        pace.end(start, ms(90));
        assert_eq!(pace.take(ms(90)).exchange, ms(20));
    }
}
