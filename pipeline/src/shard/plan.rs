//! The order of an epoch: a pure function of (seed, epoch).

use rand::RngCore;

use crate::seed::{Purpose, rng};

/// Shard indexes in the order in which an epoch reads them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardPlan(Vec<u32>);

impl ShardPlan {
    /// Shards 0, 1, 2, ….
    #[must_use]
    pub fn sequential(shards: u32) -> Self {
        Self((0..shards).collect())
    }

    /// A permutation drawn from (seed, epoch) alone, uniform over all of them.
    #[must_use]
    pub fn shuffled(seed: u64, epoch: u32, shards: u32) -> Self {
        Self(permutation(
            shards,
            &mut rng(seed, Purpose::ShardOrder, u64::from(epoch), u64::from(shards)),
        ))
    }

    /// Number of shards.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The shards in their order.
    pub fn shards(&self) -> impl Iterator<Item = u32> {
        self.0.iter().copied()
    }
}

/// A uniform permutation of `0..len` (Fisher-Yates).
///
/// Written here and not taken from `rand`, whose shuffle may give another order in another version: a run must resume after an update.
#[must_use]
pub fn permutation(len: u32, rng: &mut impl RngCore) -> Vec<u32> {
    let mut order: Vec<u32> = (0..len).collect();
    for i in (1..order.len()).rev() {
        // Multiply-shift: its bias is below 2⁻³² for every length a u32 can hold.
        let j = ((u128::from(rng.next_u64()) * (i as u128 + 1)) >> 64) as usize;
        order.swap(i, j);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_shard_comes_once_and_the_order_depends_on_seed_and_epoch_alone(seed: u64, epoch in 0u32..1000, shards in 1u32..300) {
            let plan = ShardPlan::shuffled(seed, epoch, shards);
            prop_assert_eq!(&plan, &ShardPlan::shuffled(seed, epoch, shards));
            let mut seen = plan.0.clone();
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..shards).collect::<Vec<_>>());
            if shards > 20 {
                prop_assert_ne!(&plan, &ShardPlan::shuffled(seed, epoch + 1, shards));
                prop_assert_ne!(&plan, &ShardPlan::shuffled(seed ^ 1, epoch, shards));
            }
        }
    }

    #[test]
    fn all_orders_are_equally_likely() {
        let mut counts = std::collections::BTreeMap::new();
        for seed in 0..24_000 {
            *counts.entry(ShardPlan::shuffled(seed, 0, 4).0).or_insert(0) += 1;
        }
        assert_eq!(counts.len(), 24);
        // 1000 expected, standard deviation 31: five of them.
        assert!(counts.values().all(|c| (845..=1155).contains(c)), "{counts:?}");
    }

    #[test]
    fn the_order_is_the_one_of_earlier_versions() {
        assert_eq!(ShardPlan::shuffled(7, 3, 8).0, PINNED);
    }
    const PINNED: [u32; 8] = [2, 6, 5, 3, 4, 0, 1, 7];
}
