//! Which detection found which object, in one picture and class.

use super::area::SizeRange;
use super::overlap::Shape;

/// Overlaps from which an object counts as found: 0.5, 0.55 … 0.95.
pub(super) const OVERLAPS: usize = 10;
/// Detections of a picture and class that count at most.
pub(super) const MOST: usize = 100;

/// The `k`-th overlap.
pub(super) fn overlap_of(k: usize) -> f64 {
    if k + 1 == OVERLAPS {
        return 0.95;
    }
    k as f64 * ((0.95 - 0.5) / (OVERLAPS - 1) as f64) + 0.5
}

/// An object that is to be found.
pub(super) struct Wanted<'a> {
    pub(super) shape: &'a Shape,
    pub(super) area: f64,
    pub(super) crowd: bool,
}

/// What became of a detection at one overlap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It found an object.
    Right,
    /// It found none.
    Wrong,
    /// It found a crowd or an object of another size, or none and is of another size itself: it does not count.
    Left,
}

/// Overlaps of each detection with each object, the best detections first; the same for all ranges of sizes.
pub(super) struct Overlaps(Vec<Vec<f64>>);

impl Overlaps {
    pub(super) fn of(found: &[(&Shape, f64)], wanted: &[Wanted<'_>]) -> Self {
        Self(
            found
                .iter()
                .map(|(shape, _)| wanted.iter().map(|w| shape.overlap(w.shape, w.crowd)).collect())
                .collect(),
        )
    }
}

/// The fates of `found` (shape and area, the best first) by overlap, and how many objects count. Each detection takes the free object with which it
/// overlaps most; one that counts before one that does not, and crowds are never used up.
pub(super) fn fates(
    found: &[(&Shape, f64)],
    wanted: &[Wanted<'_>],
    overlaps: &Overlaps,
    range: SizeRange,
) -> (Vec<[Fate; OVERLAPS]>, usize) {
    let left: Vec<bool> = wanted.iter().map(|w| w.crowd || !range.holds(w.area)).collect();
    let (counting, rest): (Vec<usize>, Vec<usize>) = (0..wanted.len()).partition(|&w| !left[w]);
    let mut all = vec![[Fate::Wrong; OVERLAPS]; found.len()];
    for k in 0..OVERLAPS {
        let mut taken = vec![false; wanted.len()];
        for (fate, (&(_, area), overlaps)) in all.iter_mut().zip(found.iter().zip(&overlaps.0)) {
            let best = |among: &[usize]| {
                // Of equal overlaps the later object is taken, as by COCO's authors.
                let mut best = (overlap_of(k).min(1.0 - 1e-10), None);
                for &w in among {
                    if (!taken[w] || wanted[w].crowd) && overlaps[w] >= best.0 {
                        best = (overlaps[w], Some(w));
                    }
                }
                best.1
            };
            let object = best(&counting).or_else(|| best(&rest));
            fate[k] = match object {
                Some(w) if left[w] => Fate::Left,
                Some(_) => Fate::Right,
                None if !range.holds(area) => Fate::Left,
                None => Fate::Wrong,
            };
            if let Some(w) = object {
                taken[w] = true;
            }
        }
    }
    (all, counting.len())
}
