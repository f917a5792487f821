//! A length of time as people write it.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::quantity;

/// A length of time of at most a day: `30s`, `2m`, `1h`, `500ms`, or a number of seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Period(pub Duration);

/// A text that is no [`Period`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("give a length of time of at most a day, such as 30s, 2m, 1h or 500ms")]
pub struct PeriodError;

const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];
const DAY: u64 = 24 * 3_600_000;

impl Period {
    pub const fn of_seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }
}

impl FromStr for Period {
    type Err = PeriodError;

    fn from_str(text: &str) -> Result<Self, PeriodError> {
        let (number, unit) = quantity::split(text);
        let unit = if unit.is_empty() { "s" } else { unit };
        let (_, milliseconds) = UNITS.iter().find(|(name, _)| *name == unit).ok_or(PeriodError)?;
        let number: u64 = number.parse().map_err(|_| PeriodError)?;
        let length = number.checked_mul(*milliseconds).filter(|length| *length <= DAY).ok_or(PeriodError)?;
        Ok(Self(Duration::from_millis(length)))
    }
}

/// In the largest unit that leaves nothing over.
impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let length = u64::try_from(self.0.as_millis()).unwrap_or(DAY);
        let fits = UNITS.iter().find(|(_, unit)| length > 0 && length % unit == 0);
        let (name, unit) = fits.copied().unwrap_or(("s", 1000));
        write!(f, "{}{name}", length / unit)
    }
}

impl TryFrom<String> for Period {
    type Error = PeriodError;

    fn try_from(text: String) -> Result<Self, PeriodError> {
        text.parse()
    }
}

impl From<Period> for String {
    fn from(period: Period) -> Self {
        period.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_has_a_unit_or_is_in_seconds() {
        for (text, seconds) in [("30s", 30), ("30", 30), ("2m", 120), ("1h", 3600), ("0", 0), ("5000ms", 5)] {
            assert_eq!(text.parse(), Ok(Period::of_seconds(seconds)), "{text}");
        }
        for wrong in ["", "s", "-1", "1d", "25h", "1.5s", "99999999999999999999", "99999999999999999s", "1 s"]
        {
            assert!(wrong.parse::<Period>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_period_is_written_as_it_is_read() {
        for text in ["30s", "2m", "1h", "1500ms", "0s", "90s", "24h"] {
            assert_eq!(text.parse::<Period>().unwrap().to_string(), text);
        }
    }
}
