//! Which samples `data.fraction` keeps.

use crate::seed::{Purpose, derive, mix};

/// Whether a subset of `fraction` holds the sample with this key. The same in every run, and a smaller subset lies inside a larger one;
/// classes keep their shares within the spread of a fair draw.
#[must_use]
pub fn in_subset(key: &[u8], fraction: f64) -> bool {
    if fraction >= 1.0 {
        return true;
    }
    let hash = key.chunks(8).fold(key.len() as u64, |hash, chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        mix(hash ^ u64::from_le_bytes(word))
    });
    // 53 bits, exact in f64.
    ((derive(0, Purpose::Subset, hash, 0, 0) >> 11) as f64) < fraction * (1u64 << 53) as f64
}

/// How many samples of each class a subset keeps: exactly its share, rounded, and at least one. A smaller subset lies inside a larger one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Balance {
    /// By class; none for one of which the manifest says that it has no sample.
    kept: Vec<Option<u64>>,
    unlabelled: Option<u64>,
}

impl Balance {
    /// `label_counts` and `samples` are the manifest's; samples without a label count as a class.
    #[must_use]
    pub fn new(fraction: f64, label_counts: &[u64], samples: u64) -> Self {
        let share = |n: u64| (n > 0).then(|| ((n as f64 * fraction).round() as u64).max(1));
        let unlabelled = samples.saturating_sub(label_counts.iter().sum());
        Self {
            kept: label_counts.iter().map(|n| share(*n)).collect(),
            unlabelled: share(unlabelled),
        }
    }

    /// Whether the sample of this rank within its class is kept; `None` for a class that the manifest does not count, or of which it
    /// says that there is none.
    #[must_use]
    pub fn keeps(&self, label: Option<u32>, rank: u64) -> Option<bool> {
        let kept = match label {
            None => self.unlabelled,
            Some(label) => *self.kept.get(label as usize)?,
        };
        kept.map(|kept| rank < kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A run that goes on with another version must keep the same samples.
    #[test]
    fn a_key_is_kept_at_the_share_at_which_it_always_was() {
        let least = |key: &str| (1..=1000).find(|n| in_subset(key.as_bytes(), f64::from(*n) / 1000.0)).unwrap();
        assert_eq!(KEYS.map(least), SHARES);
    }
    const KEYS: [&str; 4] = ["a", "00000042-owl", "d/ünï", "animals/birds/0123456789abcdef"];
    const SHARES: [u32; 4] = [531, 694, 148, 940];
}
