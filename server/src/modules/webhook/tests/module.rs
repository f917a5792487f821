//! The module around the verifier: what it does to a request, and what it answers.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Mutex;

use futures_util::future::{BoxFuture, ready};
use hithe_cli_parser::{ModuleConfig, Secret, WebhookVerification};
use http::header::{CONTENT_LENGTH, HOST, TRAILER};
use http::{Request, StatusCode};
use http_body_util::BodyExt;

use super::super::certificates::CertificateSource;
use super::super::sns::CertificateUrl;
use super::super::*;
use super::{Vector, vectors};
use crate::modules::Commons;
use crate::visit::Visitor;

/// Has one certificate or none, and tells what it was asked for.
#[derive(Default)]
struct Given {
    pem: Option<String>,
    asked: Mutex<Vec<String>>,
}

impl CertificateSource for Given {
    fn certificate<'a>(&'a self, url: &'a CertificateUrl) -> BoxFuture<'a, Option<Arc<sns::Certificate>>> {
        self.asked.lock().unwrap().push(format!("{}{}", url.host(), url.path()));
        let certificate = self.pem.as_ref().and_then(|pem| sns::Certificate::of_pem(pem.as_bytes()));
        Box::pin(ready(certificate.map(Arc::new)))
    }
}

fn plan(provider: Provider, secret: &str, certificates: Arc<Given>) -> Result<Plan, BuildError> {
    let secret = (!secret.is_empty()).then(|| Secret::new(secret.to_owned()));
    let config = ModuleConfig::WebhookVerification(WebhookVerification { provider: Some(provider), secret });
    let webhooks = Shared { room: Arc::new(Semaphore::new(buffer::OF_ALL)), certificates };
    Plan::of(&[config], &Arc::new(Commons { webhooks, ..Commons::default() }))
}

fn request(vector: &Vector) -> Request<Body> {
    let uri: http::Uri = vector.url.parse().unwrap();
    let mut request = Request::new(Body::full(vector.body.clone()));
    *request.method_mut() = vector.method.parse().unwrap();
    request.headers_mut().insert(HOST, uri.authority().unwrap().as_str().parse().unwrap());
    *request.uri_mut() = http::Uri::from(uri.path_and_query().unwrap().clone());
    for (name, value) in &vector.headers {
        request.headers_mut().append(name.parse::<http::HeaderName>().unwrap(), value.parse().unwrap());
    }
    request
}

async fn passed(plan: &Plan, request: &mut Request<Body>, secure: bool) -> Flow {
    let visitor = Visitor::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 1)), None);
    plan.chain
        .request(
            request,
            &mut Visit::new(visitor, secure.then(Arc::default).as_ref(), &"https://app.test".into()),
        )
        .await
}

fn vector(provider: Provider, case: &str) -> Vector {
    vectors().into_iter().find(|it| it.provider == provider && it.case == case).unwrap()
}

fn refusal(flow: Flow) -> (StatusCode, Code) {
    match flow {
        Flow::Refuse(refusal) => (refusal.status, refusal.code),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_is_verified_goes_on_byte_for_byte() {
    let vector = vector(Provider::Shopify, "");
    let plan = plan(vector.provider, &vector.secret, Arc::default()).unwrap();
    let mut request = request(&vector);
    request.headers_mut().insert(TRAILER, "x-checksum".parse().unwrap());
    assert!(matches!(passed(&plan, &mut request, true).await, Flow::Continue));
    assert_eq!(request.headers()[CONTENT_LENGTH], vector.body.len().to_string());
    assert!(!request.headers().contains_key(TRAILER));
    assert_eq!(request.into_body().collect().await.unwrap().to_bytes(), vector.body);
}

#[tokio::test]
async fn the_url_is_the_public_one() {
    let vector = vector(Provider::Square, "");
    let plan = plan(vector.provider, &vector.secret, Arc::default()).unwrap();
    assert!(matches!(passed(&plan, &mut request(&vector), true).await, Flow::Continue));
    let in_the_clear = passed(&plan, &mut request(&vector), false).await;
    assert_eq!(refusal(in_the_clear), (StatusCode::FORBIDDEN, Code::WEBHOOK_REFUSED));
}

#[tokio::test]
async fn without_a_signature_no_body_is_waited_for() {
    let plan = plan(Provider::Github, "secret", Arc::default()).unwrap();
    let mut request = Request::new(Body::full(vec![7; buffer::MAX_BODY + 1]));
    assert_eq!(
        refusal(passed(&plan, &mut request, true).await),
        (StatusCode::FORBIDDEN, Code::WEBHOOK_REFUSED)
    );
    request.headers_mut().insert("x-hub-signature-256", "sha256=00".parse().unwrap());
    let too_large = (StatusCode::PAYLOAD_TOO_LARGE, Code::WEBHOOK_REFUSED);
    assert_eq!(refusal(passed(&plan, &mut request, true).await), too_large);
}

#[tokio::test]
async fn the_certificate_of_a_message_is_fetched_and_decides() {
    // Its certificate was valid when it was made, which is long ago.
    let vector = vector(Provider::Sns, "version 1");
    let given = Arc::new(Given { pem: vector.certificate.clone(), ..Given::default() });
    let known = plan(vector.provider, "", Arc::clone(&given)).unwrap();
    let expired = passed(&known, &mut request(&vector), true).await;
    assert_eq!(refusal(expired), (StatusCode::FORBIDDEN, Code::WEBHOOK_REFUSED));
    let expected = "sns.us-east-1.amazonaws.com/SimpleNotificationService-0123456789abcdef.pem";
    assert_eq!(*given.asked.lock().unwrap(), [expected]);
    let unknown = plan(vector.provider, "", Arc::default()).unwrap();
    let flow = passed(&unknown, &mut request(&vector), true).await;
    assert_eq!(refusal(flow), (StatusCode::SERVICE_UNAVAILABLE, Code::TOO_BUSY));
}

#[tokio::test]
async fn a_question_is_answered_in_place_of_the_upstream() {
    let vector = vector(Provider::Xero, "intent to receive");
    let plan = plan(vector.provider, &vector.secret, Arc::default()).unwrap();
    let Flow::Answer(good) = passed(&plan, &mut request(&vector), true).await else { panic!() };
    assert_eq!((good.status(), good.headers().get(crate::body::ERROR_CODE)), (StatusCode::OK, None));
    let wrong = Vector { body: vector.wrong_body.clone().unwrap(), ..vector };
    let Flow::Answer(bad) = passed(&plan, &mut request(&wrong), true).await else { panic!() };
    assert_eq!(bad.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(bad.headers()[crate::body::ERROR_CODE], "ERR_HITHE_3204");
    assert!(bad.into_body().collect().await.unwrap().to_bytes().is_empty());
}

#[test]
fn a_public_key_must_be_on_the_curve() {
    let key = vector(Provider::Sendgrid, "the example of its libraries").secret;
    assert!(plan(Provider::Sendgrid, &key, Arc::default()).is_ok());
    let elsewhere = key.replace("F+g==", "F+A==");
    let error = plan(Provider::Sendgrid, &elsewhere, Arc::default()).err().unwrap();
    assert_eq!(error.code(), Code::WEBHOOK_PUBLIC_KEY);
    assert!(!error.to_string().contains(&elsewhere));
}
