//! What a store's error means for the reader: try again, or which of the ways to fail.

use object_store::Error;

use super::location::redact;
use crate::metrics::RetryReason;

/// What to do about a store's error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Try again.
    Retry(RetryReason),
    /// No such object.
    NotFound,
    /// 401 or 403.
    Denied,
    /// The object has another ETag than asked for.
    Changed,
    /// The asked range begins behind the object's end.
    OutOfRange,
    /// A web server that answers, but not with the range that was asked for, or not with the headers that tell which range it is.
    NoRanges,
    /// Trying again will not help.
    Final,
}

/// Judges a store's error.
#[must_use]
pub fn judge(error: &Error) -> Verdict {
    match error {
        Error::NotFound { .. } => Verdict::NotFound,
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => Verdict::Denied,
        Error::Precondition { .. } => Verdict::Changed,
        Error::NotSupported { .. } if says_no_ranges(error) => Verdict::NoRanges,
        Error::NotSupported { .. } | Error::NotImplemented { .. } | Error::InvalidPath { .. } | Error::UnknownConfigurationKey { .. } => {
            Verdict::Final
        }
        other => match status(&chain(other)) {
            Some(code) => judge_status(code).unwrap_or(Verdict::Retry(RetryReason::Connection)),
            None if says_no_ranges(other) => Verdict::NoRanges,
            None => Verdict::Retry(RetryReason::Connection),
        },
    }
}

/// Judges a status code; none for one that is no failure.
#[must_use]
pub fn judge_status(code: u16) -> Option<Verdict> {
    Some(match code {
        404 | 410 => Verdict::NotFound,
        401 | 403 => Verdict::Denied,
        412 => Verdict::Changed,
        416 => Verdict::OutOfRange,
        429 | 503 => Verdict::Retry(RetryReason::Throttled),
        408 | 500..=599 => Verdict::Retry(RetryReason::Server),
        400..=499 => Verdict::Final,
        _ => return None,
    })
}

/// What `object_store` says of an answer that came, but that it cannot use. The errors are private types, so their words decide; a test has
/// each of them made by a server.
const NO_RANGES: [&str; 5] = [
    "Range request not supported",
    "Received non-partial response",
    "Content-Length Header missing",
    "Content-Range header not present",
    "Invalid last modified",
];

fn says_no_ranges(error: &Error) -> bool {
    let text = chain(error);
    NO_RANGES.iter().any(|words| text.contains(words))
}

/// The status code, which `object_store` keeps in a private type but names in its text.
fn status(text: &str) -> Option<u16> {
    let rest = &text[text.find("status code: ")? + "status code: ".len()..];
    rest.get(..3)?.parse().ok()
}

/// The error and its causes in one line, without query strings.
#[must_use]
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut parts: Vec<String> = vec![];
    let mut next = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        if !parts.iter().any(|p| p.contains(&text)) {
            parts.push(text);
        }
        next = error.source();
    }
    let text = parts.join(": ");
    // Signed addresses carry their signature in the query string.
    let words: Vec<String> = text
        .split_whitespace()
        .map(|w| if w.contains("://") { redact_word(w) } else { w.to_owned() })
        .collect();
    words.join(" ")
}

fn redact_word(word: &str) -> String {
    let start = word.find(|c: char| c.is_ascii_alphanumeric()).unwrap_or(0);
    format!("{}{}", &word[..start], redact(&word[start..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(text: &str) -> Error {
        Error::Generic {
            store: "S3",
            source: text.to_owned().into(),
        }
    }

    #[test]
    fn status_codes_decide() {
        for (text, verdict) in [
            (
                "Server returned non-2xx status code: 503 Service Unavailable: ",
                Verdict::Retry(RetryReason::Throttled),
            ),
            (
                "Server returned non-2xx status code: 429 Too Many Requests: ",
                Verdict::Retry(RetryReason::Throttled),
            ),
            (
                "Server returned non-2xx status code: 500 Internal Server Error: ",
                Verdict::Retry(RetryReason::Server),
            ),
            (
                "Server returned non-2xx status code: 408 Request Timeout: ",
                Verdict::Retry(RetryReason::Server),
            ),
            (
                "Server returned non-2xx status code: 416 Range Not Satisfiable: ",
                Verdict::OutOfRange,
            ),
            ("Server returned non-2xx status code: 400 Bad Request: ", Verdict::Final),
            ("HTTP error: error sending request", Verdict::Retry(RetryReason::Connection)),
        ] {
            assert_eq!(judge(&generic(text)), verdict, "{text}");
        }
    }

    #[test]
    fn signed_addresses_lose_their_signature() {
        let shown = chain(&generic("Error performing GET https://acc.blob/x.tar?sig=SECRET&se=1 in 3ms"));
        assert!(
            !shown.contains("SECRET") && shown.contains("https://acc.blob/x.tar in 3ms"),
            "{shown}"
        );
    }
}
