//! Rate limit: what can be said about it.

use std::fmt;
use std::str::FromStr;

use clap::Args;
use serde::{Deserialize, Serialize};

use super::{Definition, Kind, Manual, Objection, Stage};
use crate::{Code, Period};

/// Bounds how many requests come in a while.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RateLimit {
    /// Admit so many requests in a time (100/10s) of each visitor's address, or of ;key=endpoint or ;key=header:NAME; repeat for more limits, up to 5
    #[arg(long = "rate-limit", value_name = "COUNT/TIME[;key=KEY]", id = "rate-limit")]
    pub limits: Vec<Rate>,
}

impl Definition for RateLimit {
    const STAGE: Stage = Stage::Guard;
    const ON: &'static [Kind] = &[Kind::Http];
    const MANUAL: Manual = Manual {
        what: "Admits so many requests within a sliding time, and answers the rest with status 429 and `Retry-After`. \
               Requests are counted together that have the same key: `;key=address` the visitor's address (of IPv6 the \
               first 64 bits, which one household or server has to itself), `;key=endpoint` all of them, \
               `;key=header:NAME` those with the same value of that header, such as an API key; those without it are \
               counted together.\n\nSeveral limits hold all at once, for example 10 a second and 1000 an hour. A \
               request that one of them refuses counts for none.",
        line: "ssh -R 443:localhost:80 HOST http --rate-limit '100/10s;key=header:x-api-key'",
        defaults: "The key is the visitor's address. Counts are kept for the 16,384 keys that asked last, for each \
                   limit of each endpoint, and begin anew with the endpoint.",
        codes: &[Code::RATE_LIMITED],
    };

    fn check(&self) -> Result<(), Objection> {
        if self.limits.len() > MAX_LIMITS {
            let message = format!("--rate-limit can be given {MAX_LIMITS} times at most");
            return Err(Objection::new(Code::BAD_FLAG, message));
        }
        Ok(())
    }

    fn flags(&self, flags: &mut Vec<(&'static str, Option<String>)>) {
        flags.extend(self.limits.iter().map(|limit| ("--rate-limit", Some(limit.to_string()))));
    }
}

const MAX_LIMITS: usize = 5;

/// How many requests of one key may come in which time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Rate {
    /// At least 1.
    pub count: u32,
    /// At least a second.
    pub time: Period,
    pub key: RateKey,
}

/// What requests have in common that are counted together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RateKey {
    #[default]
    Address,
    Endpoint,
    /// The lower-case name of a header.
    Header(String),
}

impl FromStr for Rate {
    type Err = Objection;

    fn from_str(text: &str) -> Result<Self, Objection> {
        let (rate, key) = match text.split_once(';') {
            Some((rate, key)) => (rate, key.trim().strip_prefix("key=").ok_or_else(not_a_rate)?.parse()?),
            None => (text, RateKey::Address),
        };
        let (count, time) = rate.split_once('/').ok_or_else(not_a_rate)?;
        let count = count.trim().parse().ok().filter(|count| *count > 0).ok_or_else(not_a_rate)?;
        let time = time.trim();
        // 100/s is as good as 100/1s.
        let of_one = time.starts_with(|c: char| c.is_ascii_alphabetic()).then(|| format!("1{time}"));
        let time: Period = of_one.as_deref().unwrap_or(time).parse().map_err(|_| not_a_rate())?;
        if time < Period::of_seconds(1) {
            return Err(Objection::new(Code::BAD_FLAG, "the time of --rate-limit is at least a second"));
        }
        Ok(Self { count, time, key })
    }
}

fn not_a_rate() -> Objection {
    let message = "--rate-limit takes COUNT/TIME such as 100/10s, and then perhaps ;key=address, ;key=endpoint or \
                   ;key=header:NAME";
    Objection::new(Code::BAD_FLAG, message)
}

impl FromStr for RateKey {
    type Err = Objection;

    fn from_str(text: &str) -> Result<Self, Objection> {
        let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        match text {
            "address" => Ok(Self::Address),
            "endpoint" => Ok(Self::Endpoint),
            _ => match text.strip_prefix("header:") {
                Some(name) if (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(token) => {
                    Ok(Self::Header(name.to_ascii_lowercase()))
                }
                _ => Err(not_a_rate()),
            },
        }
    }
}

const MAX_NAME: usize = 128;

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.count, self.time)?;
        match &self.key {
            RateKey::Address => Ok(()),
            RateKey::Endpoint => f.write_str(";key=endpoint"),
            RateKey::Header(name) => write!(f, ";key=header:{name}"),
        }
    }
}

impl TryFrom<String> for Rate {
    type Error = Objection;

    fn try_from(text: String) -> Result<Self, Objection> {
        text.parse()
    }
}

impl From<Rate> for String {
    fn from(rate: Rate) -> Self {
        rate.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_count_a_time_and_a_key() {
        for (text, written) in [
            ("100/10s", "100/10s"),
            ("5/s", "5/1s"),
            ("1000/h;key=address", "1000/1h"),
            ("7/60s;key=endpoint", "7/1m;key=endpoint"),
            ("7/60;key=header:X-Api-Key", "7/1m;key=header:x-api-key"),
        ] {
            let rate: Rate = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(rate.to_string(), written);
            assert_eq!(written.parse(), Ok(rate));
        }
    }

    #[test]
    fn everything_else_is_refused() {
        for wrong in [
            "",
            "100",
            "0/s",
            "-1/s",
            "1/0s",
            "1/500ms",
            "1/25h",
            "1/s;",
            "1/s;key=",
            "1/s;key=cookie",
            "1/s;key=header:",
            "1/s;key=header:a b",
            "1/s;endpoint",
            "99999999999/s",
        ] {
            assert!(wrong.parse::<Rate>().is_err(), "{wrong}");
        }
    }
}
