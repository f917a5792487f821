//! The times that providers sign: seconds or milliseconds since 1970, or ISO 8601.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// In milliseconds since 1970. What form a time has can be seen: as seconds, the least number taken for
/// milliseconds lies in the year 5138.
pub(super) fn instant(text: &str) -> Option<i64> {
    if text.is_empty() || text.len() > LONGEST {
        return None;
    }
    if !text.bytes().all(|it| it.is_ascii_digit()) {
        return iso(text);
    }
    let number: i64 = text.parse().ok()?;
    if number < LEAST_MILLISECONDS { number.checked_mul(1000) } else { Some(number) }
}

/// Without an offset it is UTC.
fn iso(text: &str) -> Option<i64> {
    let (_, clock) = text.split_once(['T', 't'])?;
    let has_offset = clock.contains(['Z', 'z', '+', '-']);
    let text = if has_offset { text.to_owned() } else { format!("{text}Z") };
    let nanoseconds = OffsetDateTime::parse(&text, &Rfc3339).ok()?.unix_timestamp_nanos();
    i64::try_from(nanoseconds / 1_000_000).ok()
}

const LONGEST: usize = 40;
const LEAST_MILLISECONDS: i64 = 100_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_is_known_by_its_looks() {
        for text in [
            "1700000000",
            "1700000000000",
            "2023-11-14T22:13:20Z",
            "2023-11-14T22:13:20",
            "2023-11-14T15:13:20-07:00",
            "2023-11-14T22:13:20.000001+00:00",
        ] {
            assert_eq!(instant(text), Some(1_700_000_000_000), "{text}");
        }
        for text in
            ["", "now", "+5", "-5", "1e9", "9".repeat(30).as_str(), "2023-11-14", "9999999999999999999"]
        {
            assert_eq!(instant(text), None, "{text}");
        }
    }
}
