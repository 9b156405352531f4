//! Who reads `/metrics`, and how often: a finished run stays until its scraper has read that it is finished, and no longer.

use std::time::{Duration, Instant};

/// Longest time that a finished run stays.
const LONGEST: Duration = Duration::from_secs(120);

/// When `/metrics` was read.
#[derive(Debug, Default)]
pub(crate) struct Scrapes {
    last: Option<Instant>,
    /// Time between the last two.
    interval: Option<Duration>,
}

impl Scrapes {
    /// Remembers a scrape at `now`.
    pub(super) fn note(&mut self, now: Instant) {
        self.interval = self.last.replace(now).map(|last| now - last);
    }

    /// Whether one came at `then` or later.
    pub(super) fn any_since(&self, then: Instant) -> bool {
        self.last.is_some_and(|last| last >= then)
    }

    /// Until when another is expected, if somebody scrapes at intervals and has not stopped to: the double of the interval after the last one.
    pub(super) fn expected_by(&self, now: Instant) -> Option<Instant> {
        let by = self.last? + 2 * self.interval?;
        (by > now).then(|| by.min(now + LONGEST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_somebody_who_comes_again_is_waited_for() {
        let start = Instant::now();
        let after = |s: u64| start + Duration::from_secs(s);
        let mut scrapes = Scrapes::default();
        assert_eq!(scrapes.expected_by(after(1)), None);
        scrapes.note(after(10));
        assert_eq!(scrapes.expected_by(after(11)), None, "once is curiosity");
        scrapes.note(after(25));
        assert_eq!(scrapes.expected_by(after(30)), Some(after(55)));
        assert_eq!(scrapes.expected_by(after(56)), None, "he went away");
        assert!(scrapes.any_since(after(25)) && !scrapes.any_since(after(26)));
        scrapes.note(after(1000));
        assert_eq!(scrapes.expected_by(after(1001)), Some(after(1121)), "two minutes at most");
    }
}
