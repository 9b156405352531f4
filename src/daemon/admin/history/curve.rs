//! One curve of a run, thinned while it grows: its memory is the same for a thousand values and for ten million.

/// Points of a curve at most.
pub(super) const MOST_POINTS: usize = 2000;
/// Stretches of a curve at most. Each gives two points, its lowest and its highest, and the first and last value of all come beside them.
const STRETCHES: usize = MOST_POINTS / 2 - 1;

type Point = (u64, f64);

/// As many values in a row as every other stretch holds.
#[derive(Debug, Clone, Copy)]
struct Stretch {
    values: u64,
    low: Point,
    high: Point,
}

impl Stretch {
    fn take(&mut self, other: Self) {
        self.values += other.values;
        if other.low.1 < self.low.1 {
            self.low = other.low;
        }
        if other.high.1 > self.high.1 {
            self.high = other.high;
        }
    }
}

/// A curve. As long as it has few values it holds them all; beyond, neighbours become one stretch that keeps its extremes, so that no peak is lost.
#[derive(Debug, Clone)]
pub(super) struct Curve {
    stretches: Vec<Stretch>,
    /// Values of a stretch.
    width: u64,
    first: Option<Point>,
    last: Option<Point>,
    /// Values that were put in.
    pub(super) values: u64,
    /// Values that are no number: a loss that was not finite is written as null.
    pub(super) not_finite: u64,
}

impl Default for Curve {
    fn default() -> Self {
        Self {
            stretches: Vec::new(),
            width: 1,
            first: None,
            last: None,
            values: 0,
            not_finite: 0,
        }
    }
}

impl Curve {
    /// Takes the value at a step.
    pub(super) fn push(&mut self, step: u64, value: f64) {
        let point = (step, value);
        self.values += 1;
        self.first.get_or_insert(point);
        self.last = Some(point);
        let one = Stretch {
            values: 1,
            low: point,
            high: point,
        };
        match self.stretches.last_mut().filter(|s| s.values < self.width) {
            Some(open) => open.take(one),
            None => {
                if self.stretches.len() == STRETCHES {
                    self.halve();
                }
                // Halving may have left room in the last stretch.
                match self.stretches.last_mut().filter(|s| s.values < self.width) {
                    Some(open) => open.take(one),
                    None => self.stretches.push(one),
                }
            }
        }
    }

    fn halve(&mut self) {
        self.width *= 2;
        let merged = self.stretches.chunks(2).map(|pair| {
            let mut first = pair[0];
            pair[1..].iter().for_each(|second| first.take(*second));
            first
        });
        self.stretches = merged.collect();
    }

    /// What is drawn: (step, value) by step, at most [`MOST_POINTS`].
    pub(super) fn points(&self) -> Vec<Point> {
        let extremes = self.stretches.iter().flat_map(|s| [s.low, s.high]);
        let mut points: Vec<Point> = extremes.chain(self.first).chain(self.last).collect();
        points.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
        points.dedup();
        points
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(values: impl Iterator<Item = f64>) -> Curve {
        let mut curve = Curve::default();
        values.enumerate().for_each(|(step, value)| curve.push(step as u64, value));
        curve
    }

    #[test]
    fn a_short_curve_is_whole() {
        let points = curve((0..999).map(|n| f64::from(n).sin())).points();
        assert_eq!(points.len(), 999);
        assert!(points.iter().all(|(step, value)| *value == (*step as f64).sin()));
        assert!(Curve::default().points().is_empty());
    }

    #[test]
    fn a_long_curve_keeps_its_ends_and_every_peak_in_few_points() {
        for length in [1000usize, 1001, 1999, 2000, 5000, 123_456] {
            let peak = length / 3;
            let curve = curve((0..length).map(|n| if n == peak { 1e6 } else { (n as f64).sin() }));
            let points = curve.points();
            assert!((900..=MOST_POINTS).contains(&points.len()), "{length}: {} points", points.len());
            assert!(points.windows(2).all(|w| w[0].0 < w[1].0), "{length}: in order, each step once");
            assert_eq!(points[0].0, 0);
            assert_eq!(points.last().unwrap().0, length as u64 - 1);
            assert!(points.contains(&(peak as u64, 1e6)), "{length}: the peak is there");
            assert_eq!(curve.values, length as u64);
            // No stretch of the run is left empty.
            let widest = points.windows(2).map(|w| w[1].0 - w[0].0).max().unwrap();
            assert!(widest as usize <= 8 * length.div_ceil(STRETCHES), "{length}: a gap of {widest}");
        }
    }
}
