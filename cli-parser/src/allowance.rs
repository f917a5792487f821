//! How much of something an account may have.

use std::fmt;

use crate::quantity::bytes;

/// What `accounts change` says of one limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allowance {
    /// What the configuration says for all accounts.
    Usual,
    Unlimited,
    AtMost(u64),
}

/// The text is no [`Allowance`]; says what one looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct AllowanceError(&'static str);

const COUNT: AllowanceError = AllowanceError("give a number, none for no limit, or default");
const BYTES: AllowanceError = AllowanceError(
    "give a number of bytes from 64KiB on, such as 10MB or 1TiB, none for no limit, or default",
);

impl Allowance {
    /// A number of things.
    ///
    /// # Errors
    /// It is none.
    pub fn count(text: &str) -> Result<Self, AllowanceError> {
        Self::of(text, |number| number.parse().ok()).filter_up_to(u64::from(u32::MAX)).ok_or(COUNT)
    }

    /// A number of bytes, or of bytes a second. At least 64 KiB: below, a tunnel would not work any more.
    ///
    /// # Errors
    /// It is none.
    pub fn bytes(text: &str) -> Result<Self, AllowanceError> {
        let bytes = Self::of(text, bytes).filter_up_to(i64::MAX.cast_unsigned());
        bytes.filter(|it| !matches!(it, Self::AtMost(..MIN_BYTES))).ok_or(BYTES)
    }

    fn of(text: &str, number: impl Fn(&str) -> Option<u64>) -> Option<Self> {
        match text.trim() {
            "default" => Some(Self::Usual),
            "none" => Some(Self::Unlimited),
            text => number(text).map(Self::AtMost),
        }
    }
}

/// Small enough for where it is kept.
trait UpTo {
    fn filter_up_to(self, most: u64) -> Self;
}

impl UpTo for Option<Allowance> {
    fn filter_up_to(self, most: u64) -> Self {
        self.filter(|it| !matches!(it, Allowance::AtMost(count) if *count > most))
    }
}

impl fmt::Display for Allowance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usual => f.write_str("default"),
            Self::Unlimited => f.write_str("none"),
            Self::AtMost(count) => count.fmt(f),
        }
    }
}

const MIN_BYTES: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_a_number_or_a_word() {
        assert_eq!(Allowance::count("3"), Ok(Allowance::AtMost(3)));
        assert_eq!(Allowance::count("0"), Ok(Allowance::AtMost(0)));
        assert_eq!(Allowance::count("none"), Ok(Allowance::Unlimited));
        assert_eq!(Allowance::bytes("default"), Ok(Allowance::Usual));
        assert_eq!(Allowance::bytes("64KiB"), Ok(Allowance::AtMost(1 << 16)));
        assert_eq!(Allowance::bytes("2 TB"), Ok(Allowance::AtMost(2_000_000_000_000)));
        for wrong in ["", "-1", "x", "1.5", "5000000000", "1MB"] {
            assert!(Allowance::count(wrong).is_err(), "{wrong}");
        }
        for wrong in ["", "0", "1KB", "10%", "99999999999TB", "9223372036854775808"] {
            assert!(Allowance::bytes(wrong).is_err(), "{wrong}");
        }
    }
}
