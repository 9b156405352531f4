//! Random streams keyed by what they are for, so that no order of execution can change a draw.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::types::SampleId;

/// What a random stream decides; part of its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Purpose {
    /// Order of shards in an epoch.
    ShardOrder = 1,
    /// Order of samples in a window.
    WindowOrder = 2,
    /// Crop, flip and colour of a view.
    View = 3,
    /// Mask of a sample.
    Mask = 4,
    /// Vocabulary of a codebook.
    Codebook = 5,
    /// Which samples a subset keeps.
    Subset = 6,
    /// Which dataset a mixture draws from next.
    Mixture = 7,
    /// Drop path of a training step.
    Step = 8,
    /// How the images of a training step are mixed with each other.
    Mixing = 9,
    /// What of an image is erased in a training step.
    Erasing = 10,
    /// Which anchors and regions of a picture a detector learns from in a training step.
    Sampling = 11,
}

/// SplitMix64's finaliser: a bijection on u64 with full avalanche.
#[must_use]
pub fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// One u64 from a run seed, a purpose and up to three coordinates.
#[must_use]
pub fn derive(seed: u64, purpose: Purpose, a: u64, b: u64, c: u64) -> u64 {
    [purpose as u64, a, b, c].into_iter().fold(mix(seed), |h, x| mix(h ^ mix(x)))
}

/// Random stream of a sample for one purpose; `lane` numbers several of a kind (the view index).
#[must_use]
pub fn sample_rng(seed: u64, id: SampleId, purpose: Purpose, lane: u32) -> ChaCha8Rng {
    let place = (u64::from(id.shard) << 32) | u64::from(id.member);
    ChaCha8Rng::seed_from_u64(derive(seed, purpose, u64::from(id.epoch), place, u64::from(lane)))
}

/// Random stream of anything else.
#[must_use]
pub fn rng(seed: u64, purpose: Purpose, a: u64, b: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(derive(seed, purpose, a, b, 0))
}
