//! Which checkpoints are deleted, and deleting them.

use std::path::Path;

use super::CheckpointError;
use super::find::{list, newest_good};
use super::store::delete;

/// Which checkpoints of a run stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// The newest so many.
    pub keep: u32,
    /// Every multiple of this step; 0 = none.
    pub keep_every: u64,
    /// The one of the best evaluation.
    pub best: Option<u64>,
}

/// Steps to delete so that the newest `keep` stay, every multiple of `keep_every`, and the best.
#[must_use]
pub fn surplus(steps: &[u64], policy: &Policy) -> Vec<u64> {
    let mut sorted = steps.to_vec();
    sorted.sort_unstable();
    let newest = sorted.len().saturating_sub(policy.keep.max(1) as usize);
    sorted[..newest]
        .iter()
        .copied()
        .filter(|s| (policy.keep_every == 0 || s % policy.keep_every != 0) && Some(*s) != policy.best)
        .collect()
}

/// Deletes the checkpoints in `root` that `policy` does not keep; answers their steps. The newest *good* one always stays, whatever the policy says and
/// however many damaged ones are newer: `good` names it if the caller has just written it, else it is looked for.
///
/// A folder that cannot be deleted is logged and stays.
///
/// # Errors
/// [`CheckpointError::Io`] if `root` cannot be listed.
pub fn prune(root: &Path, policy: &Policy, good: Option<u64>) -> Result<Vec<u64>, CheckpointError> {
    let all = list(root)?;
    let steps: Vec<u64> = all.iter().map(|(step, _)| *step).collect();
    let mut old = surplus(&steps, policy);
    if old.is_empty() {
        return Ok(old);
    }
    let good = match good {
        Some(step) => Some(step),
        None => newest_good(root)?.good.map(|good| good.progress.step),
    };
    old.retain(|step| Some(*step) != good);
    let mut deleted = Vec::new();
    for (step, folder) in all.into_iter().filter(|(step, _)| old.contains(step)) {
        match delete(&folder) {
            Ok(()) => deleted.push(step),
            Err(e) => tracing::warn!(folder = %folder.display(), error = %e, "an old checkpoint could not be deleted"),
        }
    }
    Ok(deleted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(keep: u32, keep_every: u64, best: Option<u64>) -> Policy {
        Policy { keep, keep_every, best }
    }

    #[test]
    fn keeps_the_newest_and_the_milestones() {
        assert_eq!(surplus(&[300, 100, 200, 400], &policy(2, 0, None)), [100, 200]);
        assert_eq!(surplus(&[100, 200, 300, 400], &policy(1, 200, None)), [100, 300]);
        assert_eq!(surplus(&[100], &policy(3, 0, None)), Vec::<u64>::new());
    }

    #[test]
    fn never_deletes_the_best_one() {
        assert_eq!(surplus(&[100, 200, 300, 400], &policy(1, 0, Some(200))), [100, 300]);
        assert_eq!(surplus(&[100, 200], &policy(1, 0, Some(700))), [100]);
    }

    #[test]
    fn never_deletes_the_last_one() {
        assert_eq!(surplus(&[1, 2], &policy(0, 0, None)), [1]);
    }
}
