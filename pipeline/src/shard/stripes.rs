//! How an epoch is cut into stripes, so that each of several processes reads a part of the shards and all of them together keep one global order.
//!
//! An epoch's plan, seen as one row of samples by the manifest's counts, is cut into `S` equal runs, the *stripes*. Sample n of the global order is the
//! next one of stripe n mod S, and a stripe that is through begins its run of the next epoch. So everything is arithmetic: with the number of samples
//! that were consumed, the place in every stripe is known, without reading anything.

use super::plan::ShardPlan;
use crate::error::PipelineError;

/// Samples of one shard in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Index of the shard.
    pub shard: u32,
    /// First sample.
    pub from: u32,
    /// The one behind the last; `None` = the shard's end.
    pub until: Option<u32>,
}

impl Part {
    /// All samples of a shard.
    #[must_use]
    pub fn whole(shard: u32) -> Self {
        Self {
            shard,
            from: 0,
            until: None,
        }
    }
}

/// Where a sample lies in its stripe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// Pass over the stripe.
    pub(super) epoch: u32,
    /// Window within the pass.
    pub(super) window: u64,
    /// Place within the window.
    pub(super) place: u32,
}

/// The cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stripes {
    /// Samples of each shard.
    counts: Vec<u32>,
    /// Samples of all.
    total: u64,
    number: u32,
    /// Samples of a stripe that are permuted among each other.
    window: u32,
}

impl Stripes {
    /// `number` stripes of shards with so many samples each. The windows of all stripes together hold `shuffle_window` samples.
    ///
    /// # Errors
    /// [`PipelineError::BadSetting`] for more stripes than samples.
    pub fn new(counts: Vec<u32>, number: u32, shuffle_window: u32) -> Result<Self, PipelineError> {
        let total: u64 = counts.iter().map(|n| u64::from(*n)).sum();
        if total < u64::from(number) {
            return Err(PipelineError::BadSetting {
                key: "data.stripes".into(),
                value: number.to_string(),
                detail: format!("the manifest counts {total} samples, and each stripe needs one"),
            });
        }
        Ok(Self {
            counts,
            total,
            number,
            window: shuffle_window.div_ceil(number).max(1),
        })
    }

    /// Where stripe `s` begins in the row of an epoch's samples.
    fn begin(&self, stripe: u32) -> u64 {
        (u128::from(self.total) * u128::from(stripe) / u128::from(self.number)) as u64
    }

    /// Samples of a stripe in an epoch: the same in all epochs, and one more or less than those of another stripe.
    pub(super) fn size(&self, stripe: u32) -> u64 {
        self.begin(stripe + 1) - self.begin(stripe)
    }

    /// Samples of a window, but for the last one of an epoch.
    pub(super) fn window(&self) -> u32 {
        self.window
    }

    /// Samples of this window of a stripe.
    pub(super) fn window_size(&self, stripe: u32, window: u64) -> usize {
        let left = self.size(stripe) - window * u64::from(self.window);
        left.min(u64::from(self.window)) as usize
    }

    /// Stripe of the sample at a position of the global order, and its number within the stripe.
    pub(super) fn of(&self, position: u64) -> (u32, u64) {
        let number = u64::from(self.number);
        ((position % number) as u32, position / number)
    }

    /// Samples of a stripe among the first `position` of the global order.
    pub(super) fn taken(&self, stripe: u32, position: u64) -> u64 {
        let number = u64::from(self.number);
        (position + number - 1 - u64::from(stripe)) / number
    }

    /// Place of the `taken`-th sample of a stripe, from 0.
    pub(super) fn place(&self, stripe: u32, taken: u64) -> Place {
        let (size, window) = (self.size(stripe), u64::from(self.window));
        let within = taken % size;
        Place {
            epoch: (taken / size) as u32,
            window: within / window,
            place: (within % window) as u32,
        }
    }

    /// Passes over all stripes that the first `position` samples complete.
    pub(super) fn epoch(&self, position: u64) -> u32 {
        let of = |stripe| self.taken(stripe, position) / self.size(stripe);
        (0..self.number).map(of).min().unwrap_or(0) as u32
    }

    /// What a stripe reads of an epoch, in order.
    pub(super) fn parts(&self, plan: &ShardPlan, stripe: u32) -> Vec<Part> {
        let (begin, end) = (self.begin(stripe), self.begin(stripe + 1));
        let mut at = 0;
        let mut parts = vec![];
        for shard in plan.shards() {
            let count = u64::from(self.counts[shard as usize]);
            let (from, until) = (begin.max(at), end.min(at + count));
            if from < until {
                parts.push(Part {
                    shard,
                    from: (from - at) as u32,
                    until: (until < at + count).then_some((until - at) as u32),
                });
            }
            at += count;
        }
        parts
    }

    /// Where each of these parts begins in its stripe.
    pub(super) fn starts(&self, parts: &[Part]) -> Vec<u64> {
        let size = |part: &Part| u64::from(part.until.unwrap_or(self.counts[part.shard as usize]) - part.from);
        parts
            .iter()
            .scan(0, |at, part| Some(std::mem::replace(at, *at + size(part))))
            .collect()
    }

    /// Where in its stripe sample `member` of this part of it lies; `None` behind the part's end by the manifest.
    pub(super) fn offset(&self, part: Part, start: u64, member: u32) -> Option<u64> {
        let until = part.until.unwrap_or(self.counts[part.shard as usize]);
        (part.from..until).contains(&member).then(|| start + u64::from(member - part.from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_sample_of_an_epoch_is_in_one_stripe_and_every_position_has_one_place(
            counts in prop::collection::vec(0u32..50, 1..20), number in 1u32..9, window in 1u32..100, seed: u64,
        ) {
            let total: u64 = counts.iter().map(|n| u64::from(*n)).sum();
            prop_assume!(total >= u64::from(number));
            let stripes = Stripes::new(counts.clone(), number, window).unwrap();
            let plan = ShardPlan::shuffled(seed, 0, counts.len() as u32);
            let mut seen = vec![];
            for stripe in 0..number {
                let parts = stripes.parts(&plan, stripe);
                let starts = stripes.starts(&parts);
                let mut offsets = vec![];
                for (part, start) in parts.iter().zip(starts) {
                    for member in part.from..part.until.unwrap_or(counts[part.shard as usize]) {
                        seen.push((part.shard, member));
                        offsets.push(stripes.offset(*part, start, member).unwrap());
                    }
                    prop_assert_eq!(stripes.offset(*part, start, counts[part.shard as usize]), None);
                }
                prop_assert_eq!(offsets, (0..stripes.size(stripe)).collect::<Vec<_>>());
                let windows = stripes.size(stripe).div_ceil(u64::from(stripes.window()));
                let sizes: usize = (0..windows).map(|w| stripes.window_size(stripe, w)).sum();
                prop_assert_eq!(sizes as u64, stripes.size(stripe));
            }
            seen.sort_unstable();
            let all: Vec<(u32, u32)> = counts.iter().zip(0..).flat_map(|(n, shard)| (0..*n).map(move |m| (shard, m))).collect();
            prop_assert_eq!(seen, all);
            let mut taken = vec![0; number as usize];
            for position in 0..2 * total {
                for (stripe, taken) in taken.iter().enumerate() {
                    prop_assert_eq!(stripes.taken(stripe as u32, position), *taken);
                }
                let (stripe, nth) = stripes.of(position);
                prop_assert_eq!(nth, taken[stripe as usize]);
                taken[stripe as usize] += 1;
            }
            // The epoch is over when the last stripe is, which is within a row of all samples.
            prop_assert_eq!(stripes.epoch(total - 1), 0);
            prop_assert!(stripes.epoch(total + u64::from(number)) >= 1);
        }
    }

    #[test]
    fn more_stripes_than_samples_are_refused() {
        let refused = Stripes::new(vec![2, 1], 4, 10).unwrap_err().to_string();
        assert!(refused.contains("data.stripes = 4") && refused.contains("3 samples"), "{refused}");
    }
}
