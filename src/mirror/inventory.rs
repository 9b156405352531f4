//! What the mirror holds.

use std::collections::{BTreeMap, BTreeSet};

use splitmask_pipeline::bucket::prefix::{Prefix, PrefixError};

use super::files::{BEST, CHECKPOINTS, PICTURES, is_earlier_picture, parsed};
use crate::checkpoint::{COMPLETE, step_of};

/// Checkpoints of a mirror.
#[derive(Debug, Clone, Default)]
pub(super) struct Inventory {
    /// Those that are whole, with the text of their checksums.
    pub(super) whole: BTreeMap<u64, String>,
    /// Sizes of the objects of each step, whole or not.
    pub(super) bytes: BTreeMap<u64, u64>,
    /// Steps of which something is there, but not all: what a process that died in an upload has left.
    pub(super) torn: BTreeSet<u64>,
    /// Pictures of earlier steps.
    pub(super) pictures: BTreeSet<String>,
    /// The one of the best evaluation.
    pub(super) best: Option<u64>,
}

impl Inventory {
    /// Asks the store.
    ///
    /// # Errors
    /// What it says.
    pub(super) fn of(prefix: &Prefix) -> Result<Self, PrefixError> {
        let mut found = Self::default();
        let mut complete = BTreeSet::new();
        for (name, bytes) in prefix.list(CHECKPOINTS)? {
            let Some((step, file)) = parsed(&name) else { continue };
            *found.bytes.entry(step).or_default() += bytes;
            found.torn.insert(step);
            if file == COMPLETE {
                complete.insert(step);
            }
        }
        for step in complete {
            if let Some((text, _)) = prefix.get(&super::files::object(step, COMPLETE))? {
                found.whole.insert(step, String::from_utf8_lossy(&text).into_owned());
                found.torn.remove(&step);
            }
        }
        let pictures = prefix.list(PICTURES)?.into_iter().map(|(name, _)| name);
        found.pictures = pictures.filter(|name| is_earlier_picture(name)).collect();
        let best = prefix.get(BEST)?;
        found.best = best.and_then(|(name, _)| step_of(String::from_utf8_lossy(&name).trim()));
        Ok(found)
    }

    /// The newest whole one.
    pub(super) fn newest(&self) -> Option<u64> {
        self.whole.last_key_value().map(|(step, _)| *step)
    }
}
