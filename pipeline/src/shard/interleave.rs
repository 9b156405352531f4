//! Which source a mixture draws its next sample from: a pure function of (seed, position, weights).

use super::plan::permutation;
use crate::seed::{Purpose, rng};

/// Positions within which every source gets its share exactly, up to one sample.
pub const BLOCK: u32 = 1024;
/// Fractional part of the golden ratio: its multiples are spread evenly, so roundings of blocks cancel out.
const GOLDEN: f64 = 0.618_033_988_749_894_9;

/// The order of sources.
///
/// Each block of [`BLOCK`] positions is cut into shares proportional to the weights (systematic sampling with an offset that moves from
/// block to block), then permuted. So a share is exact to one sample in every block and converges without drift.
#[derive(Debug, Clone)]
pub struct Interleave {
    seed: u64,
    /// Upper ends of the shares, the last one 1.
    ends: Vec<f64>,
    block: u64,
    order: Vec<u32>,
}

impl Interleave {
    /// `weights` above 0; only their ratios count.
    #[must_use]
    pub fn new(seed: u64, weights: &[f64]) -> Self {
        let total: f64 = weights.iter().sum();
        let mut sum = 0.0;
        let mut ends: Vec<f64> = weights
            .iter()
            .map(|w| {
                sum += w / total;
                sum
            })
            .collect();
        if let Some(last) = ends.last_mut() {
            *last = 1.0;
        }
        Self {
            seed,
            ends,
            block: u64::MAX,
            order: vec![],
        }
    }

    /// The source of a position.
    pub fn source(&mut self, position: u64) -> usize {
        let (block, within) = (position / u64::from(BLOCK), position % u64::from(BLOCK));
        if block != self.block {
            self.block = block;
            self.order = permutation(BLOCK, &mut rng(self.seed, Purpose::Mixture, block, 0));
        }
        let offset = (0.5 + block as f64 * GOLDEN).fract();
        let place = (f64::from(self.order[within as usize]) + offset) / f64::from(BLOCK);
        self.ends.iter().position(|end| place < *end).unwrap_or(self.ends.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 32, ..Default::default() })]
        #[test]
        fn shares_are_exact_in_every_block_and_do_not_drift(weights in proptest::collection::vec(0.05f64..10.0, 1..8), seed: u64, blocks in 1u64..40) {
            let total: f64 = weights.iter().sum();
            let mut order = Interleave::new(seed, &weights);
            let mut counts = vec![0u64; weights.len()];
            for block in 0..blocks {
                let mut here = vec![0u64; weights.len()];
                for n in 0..u64::from(BLOCK) {
                    here[order.source(block * u64::from(BLOCK) + n)] += 1;
                }
                for (n, w) in here.iter().zip(&weights) {
                    prop_assert!((*n as f64 - w / total * f64::from(BLOCK)).abs() < 1.001);
                }
                counts.iter_mut().zip(&here).for_each(|(c, h)| *c += h);
            }
            for (n, w) in counts.iter().zip(&weights) {
                // The golden ratio's multiples keep the sum of roundings below a few samples for ever.
                prop_assert!((*n as f64 - w / total * (blocks * u64::from(BLOCK)) as f64).abs() < 4.0);
            }
        }

        #[test]
        fn a_position_has_one_source_however_it_is_reached(seed: u64, at in 0u64..1_000_000) {
            let mut there = Interleave::new(seed, &[3.0, 1.0, 0.5]);
            let mut on_the_way = there.clone();
            for n in at.saturating_sub(1500)..at {
                on_the_way.source(n);
            }
            prop_assert_eq!(there.source(at), on_the_way.source(at));
        }
    }

    #[test]
    fn whole_ratios_are_exact() {
        let mut order = Interleave::new(7, &[3.0, 1.0]);
        let second = (0..u64::from(BLOCK)).filter(|n| order.source(*n) == 1).count();
        assert_eq!(second, 256);
    }
}
