//! What a store's error means, and how long to wait before the next try.

use std::time::Duration;

use object_store::Error;
use rand::Rng;

use super::location::redact;
use crate::metrics::RetryReason;

const FIRST_DELAY: Duration = Duration::from_millis(50);
const LAST_DELAY: Duration = Duration::from_secs(15);

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
        Error::NotSupported { .. } | Error::NotImplemented { .. } | Error::InvalidPath { .. } | Error::UnknownConfigurationKey { .. } => {
            Verdict::Final
        }
        other => match status(&chain(other)) {
            Some(404 | 410) => Verdict::NotFound,
            Some(401 | 403) => Verdict::Denied,
            Some(412) => Verdict::Changed,
            Some(416) => Verdict::OutOfRange,
            Some(429 | 503) => Verdict::Retry(RetryReason::Throttled),
            Some(408 | 500..=599) => Verdict::Retry(RetryReason::Server),
            Some(400..=499) => Verdict::Final,
            _ => Verdict::Retry(RetryReason::Connection),
        },
    }
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

/// Exponential waiting with decorrelated jitter, so that many readers do not come back at once.
#[derive(Debug)]
pub struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Self(FIRST_DELAY)
    }
}

impl Backoff {
    /// The next delay: uniform between the first and three times the last one, at most 15 s.
    pub fn delay(&mut self) -> Duration {
        let top = (self.0 * 3).min(LAST_DELAY);
        self.0 = rand::rng().random_range(FIRST_DELAY..=top);
        self.0
    }
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

    #[test]
    fn delays_grow_and_stay_bounded() {
        let mut backoff = Backoff::default();
        let delays: Vec<_> = (0..50).map(|_| backoff.delay()).collect();
        assert!(delays.iter().all(|d| (FIRST_DELAY..=LAST_DELAY).contains(d)));
        assert!(delays[0] <= FIRST_DELAY * 3);
        assert!(delays.iter().max().unwrap() > &Duration::from_secs(1));
    }
}
