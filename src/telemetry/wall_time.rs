//! Wall time as text.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The last second that RFC 3339 has a year for, since 1970.
const LAST: Duration = Duration::from_secs(253_402_300_799);

/// RFC 3339 with milliseconds. A clock can be wrong by any amount: a time before 1970 is told as that year's beginning, one beyond 9999 as that year's end.
#[must_use]
pub fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default().min(LAST);
    humantime::format_rfc3339_millis(UNIX_EPOCH + since).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_clock_can_be_told() {
        let at = |seconds: u64| UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(rfc3339(at(1_700_000_000)), "2023-11-14T22:13:20.000Z");
        assert_eq!(rfc3339(UNIX_EPOCH - Duration::from_secs(86_400)), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(at(400_000_000_000)), "9999-12-31T23:59:59.000Z");
    }
}
