//! Which object a box is to find, by torchvision's rules (arXiv 1506.01497 §3.1.2, arXiv 1504.08083 §2.3).

use super::corners::{Columns, Corners};

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
    let columns = Columns::new(candidates);
    let (mut best, mut whose) = (vec![f32::NEG_INFINITY; candidates.len()], vec![0u32; candidates.len()]);
    let mut overlaps = vec![0f32; candidates.len()];
    let mut highest = Vec::with_capacity(objects.len());
    for (number, &object) in objects.iter().enumerate() {
        columns.overlaps(object, &mut overlaps);
        for ((best, whose), &overlap) in best.iter_mut().zip(&mut whose).zip(&overlaps) {
            let better = overlap > *best;
            *best = if better { overlap } else { *best };
            *whose = if better { number as u32 } else { *whose };
        }
        highest.push(
            overlaps
                .iter()
                .copied()
                .fold(f32::NEG_INFINITY, |most, overlap| if overlap > most { overlap } else { most }),
        );
    }
    let by_threshold = |(&overlap, &number): (&f32, &u32)| {
        if overlap >= thresholds.object {
            Match::Object(number as usize)
        } else if overlap < thresholds.background {
            Match::Background
        } else {
            Match::Unclear
        }
    };
    let mut matches: Vec<Match> = best.iter().zip(&whose).map(by_threshold).collect();
    if thresholds.best_of_each {
        for (&object, &highest) in objects.iter().zip(&highest) {
            columns.overlaps(object, &mut overlaps);
            for ((found, &whose), &overlap) in matches.iter_mut().zip(&whose).zip(&overlaps) {
                if overlap == highest {
                    *found = Match::Object(whose as usize);
                }
            }
        }
    }
    matches
}
