//! Why things are left out, counted.

use std::collections::BTreeMap;

/// By reason: how often, and the first of it.
pub(super) type Reasons = BTreeMap<&'static str, (u64, String)>;

/// Counts one more of a reason; `example` describes the first.
pub(super) fn count(reasons: &mut Reasons, reason: &'static str, example: impl FnOnce() -> String) {
    reasons.entry(reason).or_insert_with(|| (0, example())).0 += 1;
}
