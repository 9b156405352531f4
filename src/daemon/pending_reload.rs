//! The reload that is under way.

use std::time::Instant;

use tokio::sync::oneshot;

use super::events::{ReloadReport, Trigger};
use super::reading::{NewConfig, Refusal};

/// What is known of the reload that is under way.
pub(super) struct Pending {
    /// Counts the reloads of this process.
    pub(super) number: u64,
    pub(super) trigger: Trigger,
    pub(super) reply: Option<oneshot::Sender<ReloadReport>>,
    pub(super) began: Instant,
    /// Once it has been read.
    pub(super) new: Option<NewConfig>,
    /// Why it will not come into force.
    pub(super) refusal: Option<Refusal>,
}
