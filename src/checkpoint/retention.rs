//! Which checkpoints to delete: a pure function of the steps that exist.

/// Steps to delete so that the newest `keep` stay, every multiple of `keep_every` (0 = none), and the `best`.
#[must_use]
pub fn surplus(steps: &[u64], keep: u32, keep_every: u64, best: Option<u64>) -> Vec<u64> {
    let mut sorted = steps.to_vec();
    sorted.sort_unstable();
    let newest = sorted.len().saturating_sub(keep.max(1) as usize);
    sorted[..newest]
        .iter()
        .copied()
        .filter(|s| (keep_every == 0 || s % keep_every != 0) && Some(*s) != best)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::surplus;

    #[test]
    fn keeps_the_newest_and_the_milestones() {
        assert_eq!(surplus(&[300, 100, 200, 400], 2, 0, None), [100, 200]);
        assert_eq!(surplus(&[100, 200, 300, 400], 1, 200, None), [100, 300]);
        assert_eq!(surplus(&[100], 3, 0, None), Vec::<u64>::new());
    }

    #[test]
    fn never_deletes_the_best_one() {
        assert_eq!(surplus(&[100, 200, 300, 400], 1, 0, Some(200)), [100, 300]);
        assert_eq!(surplus(&[100, 200], 1, 0, Some(700)), [100]);
    }

    #[test]
    fn never_deletes_the_last_one() {
        assert_eq!(surplus(&[1, 2], 0, 0, None), [1]);
    }
}
