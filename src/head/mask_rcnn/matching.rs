//! Which object a box is to find, by torchvision's rules (arXiv 1506.01497 §3.1.2, arXiv 1504.08083 §2.3).

use super::corners::{Corners, area, overlap_with_areas};

/// What a candidate stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Match {
    /// The object of that number.
    Object(usize),
    /// Nothing.
    Background,
    /// Neither clearly: it is not learnt from.
    Unclear,
}

/// Overlaps that decide, compared as f32.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Thresholds {
    /// From here on a candidate stands for the object that it overlaps most.
    pub object: f32,
    /// Below, it stands for background.
    pub background: f32,
    /// Whether the candidates that overlap an object as much as the best one of all stand for the object they overlap most themselves, however little
    /// that is: then no object is left out.
    pub best_of_each: bool,
}

/// The match of each candidate. Of objects that a candidate overlaps alike the first counts; without objects all is background.
#[must_use]
pub fn matched(objects: &[Corners], candidates: &[Corners], thresholds: Thresholds) -> Vec<Match> {
    if objects.is_empty() {
        return vec![Match::Background; candidates.len()];
    }
    let areas: Vec<f32> = candidates.iter().map(|&candidate| area(candidate)).collect();
    let mut best = vec![(f32::NEG_INFINITY, 0usize); candidates.len()];
    let overlaps_of = |object: Corners, overlaps: &mut Vec<f32>| {
        let own = area(object);
        let of = candidates.iter().zip(&areas);
        overlaps.clear();
        overlaps.extend(of.map(|(&candidate, &area)| overlap_with_areas(object, candidate, own, area)));
    };
    let mut overlaps = Vec::with_capacity(candidates.len());
    let mut highest = Vec::with_capacity(objects.len());
    for (number, &object) in objects.iter().enumerate() {
        overlaps_of(object, &mut overlaps);
        for (best, &overlap) in best.iter_mut().zip(&overlaps) {
            if overlap > best.0 {
                *best = (overlap, number);
            }
        }
        highest.push(overlaps.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    }
    let by_threshold = |&(overlap, number): &(f32, usize)| {
        if overlap >= thresholds.object {
            Match::Object(number)
        } else if overlap < thresholds.background {
            Match::Background
        } else {
            Match::Unclear
        }
    };
    let mut matches: Vec<Match> = best.iter().map(by_threshold).collect();
    if thresholds.best_of_each {
        for (&object, &highest) in objects.iter().zip(&highest) {
            overlaps_of(object, &mut overlaps);
            for ((found, best), &overlap) in matches.iter_mut().zip(&best).zip(&overlaps) {
                if overlap == highest {
                    *found = Match::Object(best.1);
                }
            }
        }
    }
    matches
}
