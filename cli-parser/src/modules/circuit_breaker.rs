//! Circuit breaker: what can be said about it.

use std::fmt;
use std::str::FromStr;

use clap::Args;
use serde::{Deserialize, Serialize};

use super::{Definition, Kind, Manual, Objection, Stage};
use crate::{Code, Period};

/// Spares a failing upstream its requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CircuitBreaker {
    /// Answer 503 for a while once this share of the requests has failed, from 0 to 1
    #[arg(long = "circuit-breaker", value_name = "SHARE", id = "circuit-breaker")]
    pub threshold: Option<Share>,
    /// How far back requests count, from 1s to 2m [default: 10s]
    #[arg(long = "circuit-breaker-window", value_name = "TIME", id = "circuit-breaker-window")]
    pub window: Option<Period>,
    /// How many requests there must be within the window before any share counts [default: 20]
    #[arg(long = "circuit-breaker-volume", value_name = "COUNT", id = "circuit-breaker-volume")]
    pub volume: Option<u32>,
    /// How long to wait before one request may try the upstream again, from 1s to 2m [default: 10s]
    #[arg(long = "circuit-breaker-probe", value_name = "TIME", id = "circuit-breaker-probe")]
    pub probe: Option<Period>,
}

impl CircuitBreaker {
    pub const WINDOW: Period = Period::of_seconds(10);
    pub const VOLUME: u32 = 20;
    pub const PROBE: Period = Period::of_seconds(10);
}

impl Definition for CircuitBreaker {
    const STAGE: Stage = Stage::Guard;
    const ON: &'static [Kind] = &[Kind::Http];
    const MANUAL: Manual = Manual {
        what: "Opens when the given share of the requests of the last seconds has failed: visitors then get status 503 at \
               once, and nothing reaches the upstream. After a while one request at a time is let through; a good \
               answer closes the breaker, a bad one keeps it open for as long again.\n\nAn answer with a status of 500 or \
               above has failed, whether the upstream gave it or Hithe in its place (502, 504). A visitor that leaves \
               before an answer counts neither way.",
        line: "ssh -R 443:localhost:80 HOST http --circuit-breaker 0.5",
        defaults: "At least 20 requests within 10 seconds; a probe after 10 seconds. Each endpoint has a breaker of its \
                   own. The refusal's `Retry-After` says when the next probe may go.",
        codes: &[Code::BREAKER_OPEN, Code::BREAKER_SHARE],
    };

    fn check(&self) -> Result<(), Objection> {
        if self.threshold.is_none() {
            let message = "say when the breaker opens: --circuit-breaker 0.5";
            return Err(Objection::new(Code::BREAKER_SHARE, message));
        }
        for (flag, period) in
            [("--circuit-breaker-window", self.window), ("--circuit-breaker-probe", self.probe)]
        {
            if period.is_some_and(|period| !(SHORTEST..=LONGEST).contains(&period)) {
                let message = format!("{flag} takes a time from {SHORTEST} to {LONGEST}");
                return Err(Objection::new(Code::BAD_FLAG, message));
            }
        }
        if self.volume == Some(0) {
            return Err(Objection::new(Code::BAD_FLAG, "--circuit-breaker-volume is at least 1"));
        }
        Ok(())
    }

    fn flags(&self, flags: &mut Vec<(&'static str, Option<String>)>) {
        let said = [
            ("--circuit-breaker", self.threshold.map(|it| it.to_string())),
            ("--circuit-breaker-window", self.window.map(|it| it.to_string())),
            ("--circuit-breaker-volume", self.volume.map(|it| it.to_string())),
            ("--circuit-breaker-probe", self.probe.map(|it| it.to_string())),
        ];
        flags.extend(said.into_iter().filter(|(_, value)| value.is_some()));
    }
}

const SHORTEST: Period = Period::of_seconds(1);
const LONGEST: Period = Period::of_seconds(120);

/// A number from 0 to 1, to six places.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Share(u32);

impl Share {
    const WHOLE: u32 = 1_000_000;

    /// Whether `part` of `all` is this share, or more.
    pub fn is_reached(self, part: u64, all: u64) -> bool {
        u128::from(part) * u128::from(Self::WHOLE) >= u128::from(all) * u128::from(self.0)
    }
}

impl FromStr for Share {
    type Err = Objection;

    fn from_str(text: &str) -> Result<Self, Objection> {
        let number: f64 = text.parse().map_err(|_| not_a_share())?;
        number.try_into()
    }
}

impl TryFrom<f64> for Share {
    type Error = Objection;

    fn try_from(number: f64) -> Result<Self, Objection> {
        if !(0.0..=1.0).contains(&number) {
            return Err(not_a_share());
        }
        Ok(Self((number * f64::from(Self::WHOLE)).round() as u32))
    }
}

fn not_a_share() -> Objection {
    Objection::new(Code::BREAKER_SHARE, "--circuit-breaker takes a share from 0 to 1, such as 0.5")
}

impl From<Share> for f64 {
    fn from(share: Share) -> Self {
        Self::from(share.0) / Self::from(Share::WHOLE)
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f64::from(*self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_number_from_0_to_1() {
        for (text, written) in
            [("0.5", "0.5"), ("1", "1"), ("0", "0"), (".25", "0.25"), ("0.333333", "0.333333")]
        {
            assert_eq!(text.parse::<Share>().unwrap().to_string(), written);
        }
        for wrong in ["", "1.1", "-0.1", "50%", "NaN", "inf", "half"] {
            assert_eq!(
                wrong.parse::<Share>().map_err(|error| error.code),
                Err(Code::BREAKER_SHARE),
                "{wrong}"
            );
        }
    }

    #[test]
    fn a_share_is_reached_by_as_many_or_more() {
        let half: Share = "0.5".parse().unwrap();
        assert!(half.is_reached(10, 20) && half.is_reached(20, 20) && !half.is_reached(9, 20));
    }

    #[test]
    fn times_have_bounds() {
        let breaker = |window: &str| CircuitBreaker {
            threshold: "0.5".parse().ok(),
            window: window.parse().ok(),
            ..CircuitBreaker::default()
        };
        assert!(breaker("1s").check().is_ok() && breaker("2m").check().is_ok());
        assert!(breaker("999ms").check().is_err() && breaker("121s").check().is_err());
        assert!(CircuitBreaker::default().check().is_err());
    }
}
