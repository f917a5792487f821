//! The questions with which providers try an endpoint: answered here, so that the upstream sees only webhooks.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hithe_cli_parser::{Code, Provider};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Method, Response, StatusCode};
use serde::Deserialize;
use serde_json::json;

use super::delivery::{Delivery, Reason};
use super::key::{Digest, Key, hex};
use crate::body::{Body, ERROR_CODE};

/// What a provider is answered in place of the upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    kind: &'static str,
    pub(super) body: String,
}

impl Answer {
    fn text(body: String) -> Self {
        Self { status: StatusCode::OK, kind: "text/plain; charset=utf-8", body }
    }

    fn json(body: &serde_json::Value) -> Self {
        Self { status: StatusCode::OK, kind: "application/json", body: body.to_string() }
    }

    fn empty(status: StatusCode) -> Self {
        Self { status, kind: "", body: String::new() }
    }

    pub(super) fn into_response(self) -> Response<Body> {
        let mut response = Response::new(Body::full(self.body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        if !self.kind.is_empty() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.kind));
        }
        if !self.status.is_success()
            && let Ok(code) = HeaderValue::try_from(Code::WEBHOOK_REFUSED.to_string())
        {
            headers.insert(ERROR_CODE, code);
        }
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        response
    }
}

/// The answer to a question that has no body and no signature: one that anybody may ask.
pub(super) fn unsigned(provider: Provider, key: &Key, delivery: &Delivery<'_>) -> Option<Answer> {
    if *delivery.method != Method::GET {
        return None;
    }
    match provider {
        // https://docs.x.com/x-api/webhooks/quickstart
        Provider::Twitter => {
            let token = delivery.query("crc_token").filter(|it| is_token(it.as_bytes()))?;
            let tag = key.sign(Digest::Sha256, &[token.as_bytes()]);
            let encoded = STANDARD.encode(tag.as_ref());
            Some(Answer::json(&json!({ "response_token": format!("sha256={encoded}") })))
        }
        // https://docs.direct.worldline-solutions.com/en/integration/api-developer-guide/webhooks
        Provider::Worldline => {
            let value = delivery.header("x-gcs-webhooks-endpoint-verification").ok()?;
            is_token(value.as_bytes()).then(|| Answer::text(value.to_owned()))
        }
        // https://www.dropbox.com/developers/reference/webhooks
        Provider::Dropbox => {
            let value = delivery.query("challenge").filter(|it| is_token(it.as_bytes()))?;
            Some(Answer::text(value))
        }
        _ => None,
    }
}

/// Whether a delivery could be mistaken for what [`unsigned`] signs for anybody. No webhook can: they are JSON
/// objects.
pub(super) fn is_forgeable(provider: Provider, delivery: &Delivery<'_>) -> bool {
    provider == Provider::Twitter && is_token(delivery.body)
}

/// The answer to a question that is signed as a webhook is, or should be.
pub(super) fn signed(
    provider: Provider,
    key: &Key,
    delivery: &Delivery<'_>,
    verified: Result<(), Reason>,
) -> Option<Answer> {
    match (provider, verified) {
        // https://developers.zoom.us/docs/api/webhooks/. Unsigned, it would let anybody have anything signed.
        (Provider::Zoom, Ok(())) => {
            let event: ZoomEvent = serde_json::from_slice(delivery.body).ok()?;
            let token = event.payload.plain_token.filter(|it| is_token(it.as_bytes()))?;
            if event.event != "endpoint.url_validation" {
                return None;
            }
            let encrypted = hex(key.sign(Digest::Sha256, &[token.as_bytes()]).as_ref());
            Some(Answer::json(&json!({ "plainToken": token, "encryptedToken": encrypted })))
        }
        // https://developer.xero.com/documentation/guides/webhooks/configuring-your-server/: an intent to receive
        // has no events, and comes with wrong signatures too, which must get 401 and nothing else.
        (Provider::Xero, Ok(())) => {
            let payload: XeroPayload = serde_json::from_slice(delivery.body).ok()?;
            payload.events.is_empty().then(|| Answer::empty(StatusCode::OK))
        }
        (Provider::Xero, Err(Reason::Mismatch)) => Some(Answer::empty(StatusCode::UNAUTHORIZED)),
        _ => None,
    }
}

#[derive(Deserialize)]
struct ZoomEvent {
    event: String,
    payload: ZoomPayload,
}

#[derive(Deserialize)]
struct ZoomPayload {
    #[serde(rename = "plainToken")]
    plain_token: Option<String>,
}

#[derive(Deserialize)]
struct XeroPayload {
    events: Vec<serde::de::IgnoredAny>,
}

/// What a provider may ask to be signed or repeated: nothing that could be a webhook, or markup.
fn is_token(text: &[u8]) -> bool {
    let fits = |it: &u8| it.is_ascii_alphanumeric() || b"-_.=+/~".contains(it);
    (1..=LONGEST_TOKEN).contains(&text.len()) && text.iter().all(fits)
}

const LONGEST_TOKEN: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_could_be_a_webhook_is_a_token() {
        for token in ["qgg8vlvZRS6UYooatFL8Aw", "MzA5-_==", "a+/b="] {
            assert!(is_token(token.as_bytes()), "{token}");
        }
        for other in ["", "{}", "v0:1:x", "a b", "<b>", "a\nb", &"x".repeat(513)] {
            assert!(!is_token(other.as_bytes()), "{other}");
        }
    }
}
