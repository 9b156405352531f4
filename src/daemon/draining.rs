//! The end of the process, once it is wanted.

use std::time::Instant;

/// The process is to end.
pub(super) struct Draining {
    pub(super) deadline: Instant,
    pub(super) why: &'static str,
}
