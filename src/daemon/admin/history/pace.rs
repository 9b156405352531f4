//! How long a step takes at present, from the times of log lines.

use std::collections::VecDeque;

/// Log intervals that are looked at.
const INTERVALS: usize = 64;
/// An interval that took so many times as long a step as the median one holds a restart, not training.
const OUTLIER: f64 = 10.0;

/// The latest log lines.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// (step, Unix seconds), oldest first.
    lines: VecDeque<(u64, f64)>,
}

impl Pace {
    pub(super) fn note(&mut self, step: u64, time: f64) {
        self.lines.push_back((step, time));
        if self.lines.len() > INTERVALS + 1 {
            self.lines.pop_front();
        }
    }

    /// Seconds of a step, evaluations and checkpoints included, restarts not; `None` before the second line.
    pub(super) fn seconds_per_step(&self) -> Option<f64> {
        let pairs = self.lines.iter().zip(self.lines.iter().skip(1));
        let intervals = pairs.filter_map(|(a, b)| {
            let steps = b.0.checked_sub(a.0).filter(|steps| *steps > 0)? as f64;
            (b.1 > a.1).then_some((steps, b.1 - a.1))
        });
        let intervals: Vec<(f64, f64)> = intervals.collect();
        let mut each: Vec<f64> = intervals.iter().map(|(steps, seconds)| seconds / steps).collect();
        each.sort_by(f64::total_cmp);
        let median = *each.get(each.len() / 2)?;
        let usual = intervals.iter().filter(|(steps, seconds)| seconds / steps <= OUTLIER * median);
        let (steps, seconds) = usual.fold((0.0, 0.0), |sum, (steps, seconds)| (sum.0 + steps, sum.1 + seconds));
        Some(seconds / steps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_night_between_two_starts_is_no_pace() {
        let mut pace = Pace::default();
        assert_eq!(pace.seconds_per_step(), None);
        let mut time = 0.0;
        for n in 0..40u64 {
            time += if n == 20 { 30_000.0 } else { 5.0 };
            pace.note(10 * n, time);
        }
        assert!((pace.seconds_per_step().unwrap() - 0.5).abs() < 1e-9);
        // A rollback goes back, and a clock may.
        pace.note(100, time + 1.0);
        pace.note(110, time - 100.0);
        assert!((pace.seconds_per_step().unwrap() - 0.5).abs() < 1e-9);
    }
}
