//! Basic auth: admits requests that carry one of the configured pairs (RFC 7617).
//!
//! Pairs are kept as HMACs under a key of this chain, so that a comparison tells neither where two pairs differ
//! nor how long they are, and no password stays in memory here. `Authorization` is forwarded to the upstream.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use hithe_cli_parser::{BasicAuth, Code};
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderValue, Request, StatusCode};
use ring::{hmac, rand};

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
    let tags = config
        .credentials
        .iter()
        .map(|pair| hmac::sign(&key, format!("{}:{}", pair.user, pair.password.expose()).as_bytes()))
        .collect();
    plan.chain.push(Pairs { key, tags });
    Ok(())
}

struct Pairs {
    key: hmac::Key,
    tags: Vec<hmac::Tag>,
}

impl Pairs {
    fn admit(&self, request: &Request<Body>) -> bool {
        let mut values = request.headers().get_all(AUTHORIZATION).iter();
        match (values.next().and_then(presented), values.next()) {
            (Some(pair), None) => self.knows(&pair),
            _ => false,
        }
    }

    /// Looks at every pair, so that the time tells nothing about which one matched.
    fn knows(&self, pair: &[u8]) -> bool {
        self.tags.iter().fold(false, |known, tag| known | hmac::verify(&self.key, pair, tag.as_ref()).is_ok())
    }
}

impl Module for Pairs {
    fn request<'a>(&'a self, request: &'a mut Request<Body>, visit: &'a mut Visit) -> Passage<'a> {
        Passage::Now(if self.admit(request) {
            visit.passed.basic_auth = true;
            Flow::Continue
        } else {
            tracing::debug!(visitor = %visit.visitor.ip(), "basic auth refused a request");
            refusal().into()
        })
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
        Pairs { key, tags }
    }

    fn admits(pairs: &Pairs, authorization: &[&str]) -> bool {
        let mut request = Request::new(Body::empty());
        for value in authorization {
            request.headers_mut().append(AUTHORIZATION, value.parse().unwrap());
        }
        pairs.admit(&request)
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
