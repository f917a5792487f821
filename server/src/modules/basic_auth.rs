//! Basic auth: admits requests that carry one of the configured pairs (RFC 7617).
//!
//! Pairs are kept as HMACs under a key of this chain, so that a comparison tells neither where two pairs differ
//! nor how long they are, and no password stays in memory here. `Authorization` is forwarded to the upstream.
//! Pairs of which only a hash is known are checked on blocking threads, a few at a time.

mod hashed;

pub(super) use self::hashed::Hashing;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use hithe_cli_parser::{BasicAuth, Code, Hash};
use http::header::{AUTHORIZATION, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use ring::{hmac, rand};

use self::hashed::{Busy, Hashed};
use super::{BuildError, Flow, Module, Passage, Plan, Refusal, Visit};
use crate::body::Body;

const CHALLENGE: HeaderValue = HeaderValue::from_static(r#"Basic realm="hithe", charset="UTF-8""#);

/// Longer credentials are refused undecoded: user and password have at most 128 characters of 4 bytes each.
const MAX_ENCODED: usize = 2048;

/// Some clients leave the padding out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

pub(super) fn build(config: &BasicAuth, plan: &mut Plan) -> Result<(), BuildError> {
    let key = hmac::Key::generate(hmac::HMAC_SHA256, &rand::SystemRandom::new())
        .map_err(|_| BuildError::NoRandom)?;
    let (hashed, plain): (Vec<_>, Vec<_>) =
        config.credentials.iter().partition(|it| Hash::of(it.password.expose()).is_some());
    let tags = plain
        .into_iter()
        .map(|pair| hmac::sign(&key, format!("{}:{}", pair.user, pair.password.expose()).as_bytes()))
        .collect();
    let hashed = Hashed::new(&hashed, &plan.commons.hashing);
    plan.chain.push(Pairs { key, tags, hashed });
    Ok(())
}

struct Pairs {
    key: hmac::Key,
    tags: Vec<hmac::Tag>,
    hashed: Option<Hashed>,
}

impl Pairs {
    /// Looks at every pair, so that the time tells nothing about which one matched.
    fn knows(&self, pair: &[u8]) -> bool {
        self.tags.iter().fold(false, |known, tag| known | hmac::verify(&self.key, pair, tag.as_ref()).is_ok())
    }
}

impl Module for Pairs {
    fn request<'a>(&'a self, request: &'a mut Request<Body>, visit: &'a mut Visit) -> Passage<'a> {
        let Some(pair) = only(request.headers()) else { return Passage::Now(refuse(visit)) };
        if self.knows(&pair) {
            return Passage::Now(admit(visit));
        }
        match &self.hashed {
            None => Passage::Now(refuse(visit)),
            Some(hashed) if hashed.remembers(&self.key, &pair) => Passage::Now(admit(visit)),
            Some(hashed) => Passage::Later(Box::pin(async move {
                match hashed.check(&self.key, pair).await {
                    Ok(true) => admit(visit),
                    Ok(false) => refuse(visit),
                    Err(Busy) => busy().into(),
                }
            })),
        }
    }
}

fn admit(visit: &mut Visit) -> Flow {
    visit.passed.basic_auth = true;
    Flow::Continue
}

fn refuse(visit: &Visit) -> Flow {
    tracing::debug!(visitor = %visit.visitor.ip(), "basic auth refused a request");
    refusal().into()
}

fn busy() -> Refusal {
    Refusal {
        status: StatusCode::SERVICE_UNAVAILABLE,
        code: Code::TOO_BUSY,
        text: "Too many passwords are being checked",
        hint: "Try again in a moment.",
        header: Some((RETRY_AFTER, HeaderValue::from_static("1"))),
    }
}

fn refusal() -> Refusal {
    Refusal {
        status: StatusCode::UNAUTHORIZED,
        code: Code::BASIC_AUTH_REQUIRED,
        text: "This site asks for a user name and a password",
        hint: "Reload the page and sign in with the pair that the publisher gave you.",
        header: Some((WWW_AUTHENTICATE, CHALLENGE)),
    }
}

/// Two headers would let one reader see another pair than the next.
fn only(headers: &HeaderMap) -> Option<Vec<u8>> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    match (values.next().and_then(presented), values.next()) {
        (Some(pair), None) => Some(pair),
        _ => None,
    }
}

/// The `user:password` of `Authorization: Basic …`; the first colon separates, so the pair is compared whole.
fn presented(value: &HeaderValue) -> Option<Vec<u8>> {
    let (scheme, encoded) = value.as_bytes().split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") || encoded.len() > MAX_ENCODED {
        return None;
    }
    BASE64.decode(encoded.trim_ascii()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(known: &[&str]) -> Pairs {
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"test");
        let tags = known.iter().map(|pair| hmac::sign(&key, pair.as_bytes())).collect();
        Pairs { key, tags, hashed: None }
    }

    fn admits(pairs: &Pairs, authorization: &[&str]) -> bool {
        let headers = authorization.iter().map(|value| (AUTHORIZATION, value.parse().unwrap())).collect();
        only(&headers).is_some_and(|pair| pairs.knows(&pair))
    }

    #[test]
    fn any_one_of_several_pairs_grants_access() {
        let pairs = pairs(&["ada:correct-horse", "bob:battery:staple"]);
        assert!(admits(&pairs, &["Basic YWRhOmNvcnJlY3QtaG9yc2U="]));
        assert!(admits(&pairs, &["basic YWRhOmNvcnJlY3QtaG9yc2U"]));
        assert!(admits(&pairs, &["Basic Ym9iOmJhdHRlcnk6c3RhcGxl"]));
    }

    #[test]
    fn everything_else_is_refused() {
        let pairs = pairs(&["ada:correct-horse"]);
        for wrong in [
            &[] as &[&str],
            &["Basic"],
            &["Basic "],
            &["Basic !!!!"],
            &["Basic YWRh"],
            &["Bearer YWRhOmNvcnJlY3QtaG9yc2U="],
            &["Basic YWRhOmNvcnJlY3QtaG9yc2U=", "Basic YWRhOmNvcnJlY3QtaG9yc2U="],
        ] {
            assert!(!admits(&pairs, wrong), "{wrong:?}");
        }
    }
}
