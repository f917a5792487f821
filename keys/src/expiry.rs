//! `expiry-time="YYYYMMDD[HHMM[SS]][Z]"`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// The last second in which the line admits somebody.
///
/// Without `Z` or `UTC` at its end the time is of this time zone. sshd reads such a time as one of the zone's winter
/// time even in summer; here the clock on the wall counts, as its manual says.
pub(crate) fn parse(text: &str, zone: &TimeZone) -> Option<SystemTime> {
    let in_utc = text.strip_suffix(['Z', 'z']).or_else(|| text.strip_suffix("UTC"));
    let digits = in_utc.unwrap_or(text);
    if !matches!(digits.len(), 8 | 12 | 14) || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number =
        |range: std::ops::Range<usize>| digits.get(range).map_or(Some(0_i8), |part: &str| part.parse().ok());
    let year: i16 = digits.get(..4)?.parse().ok()?;
    let wall = DateTime::new(
        year,
        number(4..6)?,
        number(6..8)?,
        number(8..10)?,
        number(10..12)?,
        number(12..14)?,
        0,
    );
    let zone = if in_utc.is_some() { &TimeZone::UTC } else { zone };
    let seconds = zone.to_timestamp(wall.ok()?).ok()?.as_second();
    let seconds = u64::try_from(seconds).ok().filter(|it| *it > 0)?;
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

/// Whether that second is over.
pub(crate) fn is_over(expiry: SystemTime, now: SystemTime) -> bool {
    let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    seconds(now) > seconds(expiry)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(text: &str, zone: &TimeZone) -> Option<u64> {
        parse(text, zone).map(|time| time.duration_since(UNIX_EPOCH).unwrap().as_secs())
    }

    #[test]
    fn a_time_is_read_to_the_second() {
        for (text, wanted) in [
            ("20260101Z", 1_767_225_600),
            ("20260101", 1_767_225_600),
            ("202601011230Z", 1_767_270_600),
            ("20260101123015z", 1_767_270_615),
            ("20260101UTC", 1_767_225_600),
        ] {
            assert_eq!(seconds(text, &TimeZone::UTC), Some(wanted), "{text}");
        }
    }

    #[test]
    fn without_a_z_the_clock_on_the_wall_counts() {
        let berlin = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        assert_eq!(seconds("202601011230", &berlin), Some(1_767_270_600 - 3600));
        assert_eq!(seconds("202607011230", &berlin), seconds("202607011030Z", &berlin));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "Z",
            "2026",
            "2026010",
            "202601011",
            "2026010112",
            "20260101123",
            "20261301Z",
            "20260230Z",
            "202601012460Z",
            "202601012500Z",
            "20260101-",
            "2026-01-01",
            "20260101ZZ",
            "19700101Z",
            "00000000Z",
            " 20260101",
            "２０２６０１０１",
        ] {
            assert_eq!(parse(text, &TimeZone::UTC), None, "{text:?}");
        }
    }

    #[test]
    fn a_line_admits_within_its_last_second() {
        let expiry = parse("20260101Z", &TimeZone::UTC).unwrap();
        assert!(!is_over(expiry, expiry + Duration::from_millis(999)));
        assert!(is_over(expiry, expiry + Duration::from_secs(1)));
    }
}
