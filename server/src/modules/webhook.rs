//! Webhook verification: admits only requests that one provider has signed (behaviour reference, 3.14).
//!
//! A body is held back until it is whole ([`buffer`]), looked at ([`verifier`]), and handed on byte for byte.
//! Questions with which providers try an endpoint are answered here ([`challenge`]).

mod buffer;
mod certificates;
mod challenge;
mod delivery;
mod form;
mod key;
mod rows;
mod sns;
mod special;
#[cfg(test)]
mod tests;
mod time;
mod url;
mod verifier;

use std::mem;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use hithe_cli_parser::{Code, Definition as _, Objection, Provider, SecretKind, WebhookVerification};
use http::header::{CONTENT_LENGTH, HOST, RETRY_AFTER, TRAILER};
use http::uri::PathAndQuery;
use http::{HeaderValue, Request, StatusCode};
use ring::agreement::{self, ECDH_P256, EphemeralPrivateKey, UnparsedPublicKey};
use ring::rand::SystemRandom;
use tokio::sync::Semaphore;

use self::buffer::{Failure, Held, Room};
use self::certificates::{Amazon, CertificateSource};
use self::challenge::Answer;
use self::delivery::{Delivery, Reason, Verdict};
use self::verifier::Verifier;
use super::{BuildError, Flow, Module, Passage, Plan, Refusal, Visit};
use crate::body::Body;

/// What the webhooks of all endpoints share.
pub(super) struct Shared {
    room: Arc<Semaphore>,
    certificates: Arc<dyn CertificateSource>,
}

impl Default for Shared {
    fn default() -> Self {
        Self { room: Arc::new(Semaphore::new(buffer::OF_ALL)), certificates: Arc::new(Amazon::default()) }
    }
}

pub(super) fn build(config: &WebhookVerification, plan: &mut Plan) -> Result<(), BuildError> {
    config.check()?;
    let Some(provider) = config.provider else { return Ok(()) };
    let secret = config.secret.as_ref().map(|it| it.expose().as_str()).unwrap_or_default();
    let bad = || Objection::new(Code::BAD_FLAG, format!("the secret of {provider} cannot be used"));
    let key = provider.secret().key(secret).ok_or_else(bad)?;
    if provider.secret() == SecretKind::PublicKey {
        check_point(&key)?;
    }
    let shared = &plan.commons.webhooks;
    let webhooks = Webhooks {
        verifier: Verifier::new(provider, key),
        room: Room::within(Arc::clone(&shared.room)),
        certificates: Arc::clone(&shared.certificates),
    };
    plan.chain.push(webhooks);
    Ok(())
}

/// Whether a point is on the curve: agreeing on a key with it finds that out.
fn check_point(point: &[u8]) -> Result<(), BuildError> {
    let random = SystemRandom::new();
    let own = EphemeralPrivateKey::generate(&ECDH_P256, &random).map_err(|_| BuildError::NoRandom)?;
    agreement::agree_ephemeral(own, &UnparsedPublicKey::new(&ECDH_P256, point), |_| ()).map_err(|_| {
        let message = format!("the secret of {} is not a point of the curve P-256", Provider::Sendgrid);
        Objection::new(Code::WEBHOOK_PUBLIC_KEY, message).into()
    })
}

struct Webhooks {
    verifier: Verifier,
    room: Room,
    certificates: Arc<dyn CertificateSource>,
}

/// Why a request does not go on.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error(transparent)]
    Reason(#[from] Reason),
    #[error(transparent)]
    Buffer(#[from] Failure),
    #[error("the certificate of its signature was not to be had")]
    NoCertificate,
}

impl Module for Webhooks {
    fn request<'a>(&'a self, request: &'a mut Request<Body>, visit: &'a mut Visit) -> Passage<'a> {
        Passage::Later(Box::pin(async move {
            match self.admit(request, visit).await {
                Ok(None) => {
                    visit.passed.webhook = true;
                    Flow::Continue
                }
                Ok(Some(answer)) => Flow::Answer(Box::new(answer.into_response())),
                Err(refused) => {
                    let provider = self.verifier.provider();
                    tracing::debug!(visitor = %visit.visitor.ip(), %provider, "webhook refused: {refused}");
                    refused.refusal().into()
                }
            }
        }))
    }
}

impl Webhooks {
    /// Leaves the request as it was, or gives the answer in its place.
    async fn admit(&self, request: &mut Request<Body>, visit: &Visit) -> Result<Option<Answer>, Refused> {
        let url = public_url(request, visit);
        if let Some(answer) = self.verifier.answer(&delivery(request, &url, &[])) {
            return Ok(Some(answer));
        }
        self.verifier.screen(request.headers())?;
        let body = mem::replace(request.body_mut(), Body::empty());
        let held = self.room.hold(body).await?;
        match self.verifier.verify(&delivery(request, &url, held.bytes())) {
            Verdict::Verified => {}
            Verdict::Refused(reason) => return Err(reason.into()),
            Verdict::Answered(answer) => return Ok(Some(answer)),
            Verdict::Unproven(unproven) => {
                let certificate = self.certificates.certificate(&unproven.certificate).await;
                unproven.check(&*certificate.ok_or(Refused::NoCertificate)?)?;
            }
        }
        put_back(request, held);
        Ok(None)
    }
}

/// The same bytes, in a body of which the length is known.
fn put_back(request: &mut Request<Body>, held: Held) {
    request.headers_mut().remove(TRAILER);
    if !held.bytes().is_empty() {
        request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(held.bytes().len()));
    }
    *request.body_mut() = held.into_body();
}

fn delivery<'a>(request: &'a Request<Body>, url: &'a str, body: &'a [u8]) -> Delivery<'a> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
    Delivery { method: request.method(), url, headers: request.headers(), body, now }
}

/// As the visitor asked for it: this stage comes before everything that rewrites.
fn public_url(request: &Request<Body>, visit: &Visit) -> String {
    let scheme = visit.scheme();
    let host = request.headers().get(HOST).and_then(|it| it.to_str().ok()).unwrap_or_default();
    let target = request.uri().path_and_query().map_or("/", PathAndQuery::as_str);
    format!("{scheme}://{host}{target}")
}

impl Refused {
    fn refusal(&self) -> Refusal {
        const AGAIN: &str = "Send it again in a moment.";
        const SMALLER: &str = "This server takes webhooks of 8 MiB at most.";
        const CHECK: &str =
            "Publisher: check the provider and the secret of --verify-webhook, and the clock of the server.";
        let refused = Code::WEBHOOK_REFUSED;
        let (status, code, text, hint) = match self {
            Self::Reason(reason) => (StatusCode::FORBIDDEN, refused, reason.text(), CHECK),
            Self::Buffer(Failure::TooLarge) => {
                (StatusCode::PAYLOAD_TOO_LARGE, refused, "The webhook is too large to be verified", SMALLER)
            }
            Self::Buffer(Failure::Full) => (
                StatusCode::SERVICE_UNAVAILABLE,
                Code::TOO_BUSY,
                "Too many webhooks are being verified",
                AGAIN,
            ),
            Self::Buffer(Failure::Broken) => {
                (StatusCode::BAD_REQUEST, Code::BAD_REQUEST, "The webhook broke off", AGAIN)
            }
            Self::Buffer(Failure::Slow) => {
                (StatusCode::REQUEST_TIMEOUT, refused, "The webhook took too long to arrive", AGAIN)
            }
            Self::NoCertificate => (
                StatusCode::SERVICE_UNAVAILABLE,
                Code::TOO_BUSY,
                "The certificate of the webhook's signature cannot be had at the moment",
                AGAIN,
            ),
        };
        let again = (RETRY_AFTER, HeaderValue::from_static("1"));
        let header = (status == StatusCode::SERVICE_UNAVAILABLE).then_some(again);
        Refusal { status, code, text, hint, header }
    }
}
