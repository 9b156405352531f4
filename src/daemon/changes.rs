//! Changes of a config, chosen and told.

use crate::config::{Change, Class};

/// The frozen ones among some changes.
#[must_use]
pub(super) fn frozen(changes: &[Change]) -> Vec<Change> {
    changes.iter().filter(|c| c.class == Class::Frozen).cloned().collect()
}

/// Changes in one line.
#[must_use]
pub(super) fn listed(changes: &[Change]) -> String {
    changes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
