//! How a vocabulary is used: the numbers that tell a useful one from a useless one (docs/method.md §2).

/// Statistics of word counts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Usage {
    /// Words counted.
    pub total: u64,
    /// Words that occur.
    pub distinct: usize,
    /// Entropy of the word frequencies, nats: the cross-entropy of a model that knows nothing but frequencies.
    pub entropy_nats: f64,
    /// exp(entropy): the number of equally frequent words with the same entropy.
    pub perplexity: f64,
    /// Share of the commonest word.
    pub top_share: f64,
    /// The commonest word.
    pub top_word: usize,
}

/// Measures counts per word. All zero gives zeros and perplexity 1.
#[must_use]
pub fn usage(counts: &[u64]) -> Usage {
    let total: u64 = counts.iter().sum();
    let share = |c: u64| c as f64 / total.max(1) as f64;
    let entropy_nats = counts
        .iter()
        .filter(|c| **c > 0)
        .map(|&c| -share(c) * share(c).ln())
        .sum::<f64>()
        .max(0.0);
    let (top_word, top) = counts.iter().copied().enumerate().rev().max_by_key(|(_, c)| *c).unwrap_or((0, 0));
    Usage {
        total,
        distinct: counts.iter().filter(|c| **c > 0).count(),
        entropy_nats,
        perplexity: entropy_nats.exp(),
        top_share: share(top),
        top_word,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_distributions() {
        let flat = usage(&[5, 5, 5, 5, 0, 0]);
        assert_eq!((flat.distinct, flat.total, flat.top_share, flat.top_word), (4, 20, 0.25, 0));
        assert!((flat.perplexity - 4.0).abs() < 1e-12 && (flat.entropy_nats - 4f64.ln()).abs() < 1e-12);
        let one = usage(&[0, 9]);
        assert_eq!((one.distinct, one.perplexity, one.top_share, one.top_word), (1, 1.0, 1.0, 1));
        let none = usage(&[0, 0]);
        assert_eq!((none.distinct, none.perplexity, none.top_share), (0, 1.0, 0.0));
    }
}
