//! Why something could not be written to a prefix, or read from it.

use std::io;

use object_store::Error;

use crate::bucket::verdict::{Verdict, chain, judge};
use crate::metrics::RetryReason;

/// What a failure means for whoever asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PrefixFailure {
    /// No answer, or one that says that the store is in trouble: the same may succeed later.
    Away,
    /// The store asks for less.
    Throttled,
    /// 401 or 403, also with credentials that were read anew.
    Denied,
    /// There is no such object.
    Missing,
    /// The object is another one than was expected, or is there already.
    Conflict,
    /// There is no room for it.
    Full,
    /// The store cannot do this.
    Refused,
    /// What was to be written could not be read, or is not what its checksum says.
    Source,
    /// Whoever asked wants it no more.
    Stopped,
}

/// A failure with its object and the store's words, without secrets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {detail}")]
pub struct PrefixError {
    /// What it means.
    pub kind: PrefixFailure,
    /// The object, with the address of its prefix.
    pub place: String,
    /// In words.
    pub detail: String,
}

impl PrefixError {
    /// Of an error of the client.
    pub(super) fn of(error: &Error, place: String) -> Self {
        let kind = match error {
            Error::AlreadyExists { .. } => PrefixFailure::Conflict,
            Error::NotImplemented { .. } => PrefixFailure::Refused,
            other if says_full(other) => PrefixFailure::Full,
            other => match judge(other) {
                Verdict::Retry(RetryReason::Throttled) => PrefixFailure::Throttled,
                Verdict::Retry(_) => PrefixFailure::Away,
                Verdict::NotFound => PrefixFailure::Missing,
                Verdict::Denied => PrefixFailure::Denied,
                Verdict::Changed => PrefixFailure::Conflict,
                Verdict::OutOfRange | Verdict::NoRanges | Verdict::Final => PrefixFailure::Refused,
            },
        };
        Self {
            kind,
            place,
            detail: chain(error),
        }
    }
}

/// Whether a disk or a quota is full.
fn says_full(error: &Error) -> bool {
    let causes = std::iter::successors(Some(error as &dyn std::error::Error), |e| e.source());
    let mut kinds = causes.filter_map(|e| e.downcast_ref::<io::Error>()).map(io::Error::kind);
    kinds.any(|kind| matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_from_other_failures() {
        let of = |kind: io::ErrorKind| {
            let source = Box::new(io::Error::from(kind));
            PrefixError::of(
                &Error::Generic {
                    store: "LocalFileSystem",
                    source,
                },
                "x".into(),
            )
            .kind
        };
        assert_eq!(of(io::ErrorKind::StorageFull), PrefixFailure::Full);
        assert_eq!(of(io::ErrorKind::QuotaExceeded), PrefixFailure::Full);
        assert_ne!(of(io::ErrorKind::PermissionDenied), PrefixFailure::Full);
    }
}
