//! Times as people and programs read them.

use std::fmt::Write;
use std::time::{Duration, SystemTime};

/// RFC 3339 in UTC; none for a time that it cannot write, beyond the year 9999.
pub(crate) fn timestamp(time: SystemTime) -> Option<String> {
    let mut text = String::new();
    write!(text, "{}", humantime::format_rfc3339_seconds(time)).is_ok().then_some(text)
}

/// How long ago it was.
pub(crate) fn age(since: SystemTime) -> String {
    // The server's clock may be ahead of this one.
    short(Duration::from_secs(since.elapsed().unwrap_or_default().as_secs()))
}

/// What is left of a time, to the second unless it is less.
pub(crate) fn left(time: Duration) -> String {
    match time.as_secs() {
        0 => short(Duration::from_millis(millis(time))),
        seconds => short(Duration::from_secs(seconds)),
    }
}

/// Whole milliseconds, as JSON shows a duration.
pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The text, or a dash where there is none.
pub(crate) fn or_dash(text: Option<impl ToString>) -> String {
    text.map_or_else(|| "-".to_owned(), |text| text.to_string())
}

/// The two largest units, like `3m12s`.
fn short(time: Duration) -> String {
    humantime::format_duration(time).to_string().split(' ').take(2).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_short_and_never_negative() {
        let since = |seconds| SystemTime::now() - Duration::from_secs(seconds);
        assert_eq!(age(since(0)), "0s");
        assert_eq!(age(since(192)), "3m12s");
        assert_eq!(age(since(2 * 86_400 + 3 * 3600 + 60)), "2days3h");
        assert_eq!(age(SystemTime::now() + Duration::from_secs(60)), "0s");
    }

    #[test]
    fn what_is_left_is_exact_below_a_second() {
        assert_eq!(left(Duration::from_millis(29_123)), "29s");
        assert_eq!(left(Duration::from_millis(123)), "123ms");
        assert_eq!(left(Duration::ZERO), "0s");
    }

    #[test]
    fn times_that_cannot_be_written_are_left_out() {
        assert_eq!(timestamp(SystemTime::UNIX_EPOCH).as_deref(), Some("1970-01-01T00:00:00Z"));
        let far = SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 50);
        assert_eq!(timestamp(far), None);
    }
}
