//! RandAugment (arXiv 1909.13719) as DeiT trains with it: timm's `rand-m9-mstd0.5-inc1`, byte for byte Pillow's operations, on planar u8 views.

mod operations;

use rand::Rng;

use crate::request::RandAugment;

use operations::{MOST, OPERATIONS, Operation};

/// Operations that are drawn for a view.
const DRAWN: usize = 2;
/// Probability that a drawn operation is applied.
const APPLIED: f64 = 0.5;
/// What RandAugment does to one view, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct RandAugmentDraw([Option<Operation>; DRAWN]);

impl RandAugmentDraw {
    /// Draws two of the 15 operations, each alike likely and applied every other time, with a magnitude of its own. Randomness: `rng`; nothing is drawn
    /// where none is asked for.
    pub fn random(asked: Option<&RandAugment>, rng: &mut impl Rng) -> Self {
        let Some(asked) = asked else { return Self::default() };
        let mut one = || {
            let which = rng.random_range(0..OPERATIONS);
            let applied = rng.random::<f64>() < APPLIED;
            let magnitude = f64::from(asked.magnitude) + f64::from(asked.deviation) * normal(rng);
            let negative = rng.random::<f64>() < 0.5;
            applied.then(|| Operation::at(which, magnitude.clamp(0.0, MOST), negative))
        };
        Self([one(), one()])
    }
}

/// A draw from the normal distribution (Box and Muller).
fn normal(rng: &mut impl Rng) -> f64 {
    let (radius, turn) = (1.0 - rng.random::<f64>(), rng.random::<f64>());
    (-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * turn).cos()
}

/// Applies draws to views in place, keeping its buffer. One per thread.
#[derive(Default)]
pub struct RandAugmenter {
    copy: Vec<u8>,
}

impl RandAugmenter {
    /// Changes a planar 3×`side`×`side` view.
    ///
    /// # Panics
    /// If the view is not of that size.
    pub fn apply(&mut self, draw: &RandAugmentDraw, view: &mut [u8], side: usize) {
        assert_eq!(view.len(), 3 * side * side, "planar view of the stated side");
        for operation in draw.0.iter().flatten() {
            operation.apply(view, side, &mut self.copy);
        }
    }
}

#[cfg(test)]
mod tests;
