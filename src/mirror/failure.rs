//! Why something of the mirror could not be done, as counted and told.

use splitmask_pipeline::bucket::prefix::{PrefixError, PrefixFailure};

use crate::telemetry::metrics::MirrorFailure;

/// A try that failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub(super) struct Trouble {
    /// Under which it is counted.
    pub(super) reason: MirrorFailure,
    /// In words.
    pub(super) text: String,
    /// Whether no further try can help: another process has the mirror.
    pub(super) bars: bool,
}

impl Trouble {
    /// Of a local file.
    pub(super) fn disk(path: &std::path::Path, error: &std::io::Error) -> Self {
        Self {
            reason: MirrorFailure::Disk,
            text: format!("{}: {error}", path.display()),
            bars: false,
        }
    }

    /// The mirror is somebody else's, for good or for the moment.
    pub(super) fn lease(text: String, bars: bool) -> Self {
        Self {
            reason: MirrorFailure::Lease,
            text,
            bars,
        }
    }
}

impl From<PrefixError> for Trouble {
    fn from(e: PrefixError) -> Self {
        let reason = match e.kind {
            PrefixFailure::Throttled => MirrorFailure::Throttled,
            PrefixFailure::Denied => MirrorFailure::Denied,
            PrefixFailure::Full => MirrorFailure::NoSpace,
            PrefixFailure::Refused => MirrorFailure::Refused,
            PrefixFailure::Source => MirrorFailure::Damaged,
            PrefixFailure::Away | PrefixFailure::Missing | PrefixFailure::Conflict | PrefixFailure::Stopped => MirrorFailure::Away,
        };
        Self {
            reason,
            text: e.to_string(),
            bars: false,
        }
    }
}
