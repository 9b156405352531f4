//! What a member's name says: key and extension, and whether a subset holds the key.

use crate::seed::{Purpose, derive, mix};

/// Whether a subset of `fraction` holds the sample with this key. The same in every run, and a smaller subset lies inside a larger one;
/// classes keep their shares within the spread of a fair draw.
#[must_use]
pub fn in_subset(key: &str, fraction: f64) -> bool {
    if fraction >= 1.0 {
        return true;
    }
    let hash = key.as_bytes().chunks(8).fold(key.len() as u64, |hash, chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        mix(hash ^ u64::from_le_bytes(word))
    });
    // 53 bits, exact in f64.
    ((derive(0, Purpose::Subset, hash, 0, 0) >> 11) as f64) < fraction * (1u64 << 53) as f64
}

/// How many samples of each class a subset keeps: exactly its share, rounded. A smaller subset lies inside a larger one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Balance {
    kept: Vec<u64>,
    unlabelled: u64,
}

impl Balance {
    /// `label_counts` and `samples` are the manifest's; samples without a label count as a class.
    #[must_use]
    pub fn new(fraction: f64, label_counts: &[u64], samples: u64) -> Self {
        let share = |n: u64| (n as f64 * fraction).round() as u64;
        let unlabelled = samples.saturating_sub(label_counts.iter().sum());
        Self {
            kept: label_counts.iter().map(|n| share(*n)).collect(),
            unlabelled: share(unlabelled),
        }
    }

    /// Whether the sample of this rank within its class is kept; `None` for a class that the manifest does not count.
    #[must_use]
    pub fn keeps(&self, label: Option<u32>, rank: u64) -> Option<bool> {
        let kept = match label {
            None => self.unlabelled,
            Some(label) => *self.kept.get(label as usize)?,
        };
        Some(rank < kept)
    }
}

/// Key and extension of a member: the path is cut at the first dot of its file name. `None` for names without either.
#[must_use]
pub fn split_name(path: &str) -> Option<(&str, &str)> {
    let file = path.rfind('/').map_or(0, |slash| slash + 1);
    let dot = file + path[file..].find('.')?;
    let (key, extension) = (&path[..dot], &path[dot + 1..]);
    (dot > file && !extension.is_empty()).then_some((key, extension))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cut_at_the_first_dot_of_the_file_name() {
        assert_eq!(split_name("a.b/c.seg.png"), Some(("a.b/c", "seg.png")));
        assert_eq!(split_name("c.JPG"), Some(("c", "JPG")));
        for name in ["no_dot", "a.b/none", ".hidden.jpg", "a/.x", "x."] {
            assert_eq!(split_name(name), None, "{name}");
        }
    }
}
