//! What of a request a signature may be about, and what comes of looking at it.

use std::time::Duration;

use http::{HeaderMap, Method};

use super::challenge::Answer;
use super::sns::Unproven;
use super::time;

/// A request as its provider signed it.
#[derive(Debug)]
pub(super) struct Delivery<'a> {
    pub(super) method: &'a Method,
    /// As the visitor sees it: with the public scheme and name, before anything is rewritten.
    pub(super) url: &'a str,
    pub(super) headers: &'a HeaderMap,
    pub(super) body: &'a [u8],
    /// Milliseconds since 1970.
    pub(super) now: i64,
}

/// What is decided about a delivery.
#[derive(Debug)]
pub(super) enum Verdict {
    Verified,
    Refused(Reason),
    /// A question of the provider about the endpoint: answered at once.
    Answered(Answer),
    /// Verified if this certificate says so.
    Unproven(Box<Unproven>),
}

/// Why a delivery was refused. Holds nothing of the secret, nor of what would have been right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Reason {
    #[error("its header {0} is missing, given twice or not text")]
    Missing(&'static str),
    #[error("its {0} is not in the form that the provider uses")]
    Form(&'static str),
    #[error("its time differs too much from the server's")]
    Stale,
    #[error("its signature does not match")]
    Mismatch,
}

impl Reason {
    /// One sentence for the visitor.
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Missing(_) => "The webhook has no signature of its provider",
            Self::Form(_) => "The webhook is not in the form that its provider uses",
            Self::Stale => "The webhook's time differs too much from the server's",
            Self::Mismatch => "The webhook's signature does not match",
        }
    }
}

impl<'a> Delivery<'a> {
    pub(super) fn has(&self, name: &'static str) -> bool {
        self.headers.contains_key(name)
    }

    /// The one value of a header. Two of them would let the upstream read another than was verified.
    pub(super) fn header(&self, name: &'static str) -> Result<&'a str, Reason> {
        let mut values = self.headers.get_all(name).iter();
        let text = match (values.next(), values.next()) {
            (Some(value), None) => value.to_str().ok().map(str::trim).filter(|it| !it.is_empty()),
            _ => None,
        };
        text.ok_or(Reason::Missing(name))
    }

    /// Whether a time that the provider sent is near enough to now, before or after.
    pub(super) fn check_time(&self, text: &str, tolerance: Option<Duration>) -> Result<(), Reason> {
        let then = time::instant(text).ok_or(Reason::Form("time"))?;
        let tolerance = tolerance.unwrap_or(UNSAID).as_millis();
        if u128::from(self.now.abs_diff(then)) <= tolerance { Ok(()) } else { Err(Reason::Stale) }
    }

    /// The value of a parameter of the query, decoded; the first of that name.
    pub(super) fn query(&self, name: &str) -> Option<String> {
        let (_, query) = self.url.split_once('?')?;
        let (_, value) =
            super::form::pairs(query.as_bytes())?.into_iter().find(|(key, _)| key == name.as_bytes())?;
        String::from_utf8(value).ok()
    }
}

/// Where a provider recommends nothing (behaviour reference, 3.14).
const UNSAID: Duration = Duration::from_secs(180);
