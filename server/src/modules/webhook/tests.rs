//! Every provider against deliveries that other code signed (`vectors.json`), and against what is no delivery.

mod module;

use hithe_cli_parser::Provider;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use proptest::prelude::*;
use serde::Deserialize;

use super::delivery::{Delivery, Verdict};
use super::sns::Certificate;
use super::verifier::Verifier;

/// One delivery, and what must become of it. Made from the documentation of the providers by code that shares
/// nothing with this crate, or copied from their examples.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Vector {
    provider: Provider,
    #[serde(default)]
    case: String,
    #[serde(rename = "source")]
    _source: String,
    method: String,
    url: String,
    #[serde(default)]
    headers: Vec<(String, String)>,
    body: String,
    #[serde(default)]
    secret: String,
    /// Milliseconds since 1970, as all times here.
    now: i64,
    /// The headers without which it must be refused.
    #[serde(default)]
    needs: Vec<String>,
    #[serde(default)]
    wrong_secret: Option<String>,
    /// None where the provider does not sign the body.
    #[serde(default)]
    wrong_body: Option<String>,
    /// What a wrong signature is answered with, where that is not a refusal.
    #[serde(default)]
    wrong_status: Option<u16>,
    /// The earliest and the latest time at which it is good.
    #[serde(default)]
    edges: Vec<i64>,
    #[serde(default)]
    stale: Vec<i64>,
    #[serde(default)]
    certificate: Option<String>,
    #[serde(default)]
    wrong_certificate: Option<String>,
    #[serde(default)]
    answer: Option<Expected>,
    #[serde(default)]
    refused: bool,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
struct Expected {
    status: u16,
    body: String,
}

#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Verified,
    Answered(Expected),
    Refused,
}

fn vectors() -> Vec<Vector> {
    serde_json::from_str(include_str!("vectors.json")).unwrap()
}

impl Vector {
    fn outcome(&self) -> Outcome {
        let key = self.provider.secret().key(&self.secret).expect("a secret in its form");
        let verifier = Verifier::new(self.provider, key);
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        let delivery = Delivery {
            method: &self.method.parse().unwrap(),
            url: &self.url,
            headers: &headers,
            body: self.body.as_bytes(),
            now: self.now,
        };
        if verifier.answer(&delivery).is_none() && verifier.screen(&headers).is_err() {
            return Outcome::Refused;
        }
        match verifier.verify(&delivery) {
            Verdict::Verified => Outcome::Verified,
            Verdict::Refused(_) => Outcome::Refused,
            Verdict::Answered(answer) => {
                Outcome::Answered(Expected { status: answer.status.as_u16(), body: answer.body })
            }
            Verdict::Unproven(unproven) => {
                let pem = self.certificate.as_ref().unwrap();
                let certificate = Certificate::of_pem(pem.as_bytes()).unwrap();
                unproven.check(&certificate).map_or(Outcome::Refused, |()| Outcome::Verified)
            }
        }
    }

    fn expected(&self) -> Outcome {
        match &self.answer {
            Some(answer) => Outcome::Answered(answer.clone()),
            None if self.refused => Outcome::Refused,
            None => Outcome::Verified,
        }
    }

    /// What a wrong signature leads to.
    fn denied(&self) -> Outcome {
        match self.wrong_status {
            Some(status) => Outcome::Answered(Expected { status, body: String::new() }),
            None => Outcome::Refused,
        }
    }

    fn name(&self) -> String {
        format!("{} {}", self.provider, self.case)
    }
}

/// Fails with the names of all vectors for which something else came out.
fn assert_all(what: &str, mut variants: impl FnMut(&Vector) -> Vec<(Vector, Outcome)>) {
    let mut faults = Vec::new();
    let mut tried = 0;
    for vector in vectors() {
        for (variant, expected) in variants(&vector) {
            tried += 1;
            let outcome = variant.outcome();
            if outcome != expected {
                faults.push(format!("{}: {outcome:?}", vector.name()));
            }
        }
    }
    assert!(faults.is_empty(), "{what}:\n{}", faults.join("\n"));
    assert!(tried > 0, "{what}: nothing was tried");
}

#[test]
fn every_provider_has_a_vector_that_is_verified() {
    let verified: Vec<_> =
        vectors().iter().filter(|it| it.expected() == Outcome::Verified).map(|it| it.provider).collect();
    let without: Vec<_> = Provider::all().filter(|it| !verified.contains(it)).collect();
    assert!(without.is_empty(), "{without:?}");
    let timed: Vec<_> = vectors().iter().filter(|it| !it.stale.is_empty()).map(|it| it.provider).collect();
    let untimed: Vec<_> =
        Provider::all().filter(|it| it.tolerance().is_some() != timed.contains(it)).collect();
    assert!(untimed.is_empty(), "{untimed:?}");
}

#[test]
fn what_is_signed_is_verified() {
    assert_all("as it is", |it| vec![(it.clone(), it.expected())]);
}

#[test]
fn another_body_is_refused() {
    assert_all("another body", |it| {
        let variant = |body: &String| (Vector { body: body.clone(), ..it.clone() }, it.denied());
        it.wrong_body.iter().filter(|_| !it.refused).map(variant).collect()
    });
}

#[test]
fn another_secret_is_refused() {
    assert_all("another secret", |it| {
        let signed = !it.refused && (it.answer.is_none() || !it.needs.is_empty());
        let secret = it.wrong_secret.as_ref().filter(|_| signed);
        let other = secret.map(|secret| Vector { secret: secret.clone(), ..it.clone() });
        let certificate = it.wrong_certificate.as_ref();
        let another = certificate.map(|_| Vector { certificate: certificate.cloned(), ..it.clone() });
        other.into_iter().chain(another).map(|variant| (variant, it.denied())).collect()
    });
}

#[test]
fn without_its_headers_it_is_refused() {
    assert_all("without a header", |it| {
        let without = |name: &String| {
            let mut variant = it.clone();
            variant.headers.retain(|(header, _)| header != name);
            (variant, Outcome::Refused)
        };
        it.needs.iter().filter(|_| !it.refused).map(without).collect()
    });
}

#[test]
fn a_header_given_twice_is_refused() {
    assert_all("a header twice", |it| {
        let twice = |name: &String| {
            let mut variant = it.clone();
            let header = it.headers.iter().find(|(header, _)| header == name).unwrap();
            variant.headers.push(header.clone());
            (variant, Outcome::Refused)
        };
        // Docusign's are a list anyhow.
        let tried = !it.refused && it.provider != Provider::Docusign;
        it.needs.iter().filter(|_| tried).map(twice).collect()
    });
}

#[test]
fn a_time_is_good_up_to_its_tolerance_and_no_further() {
    let at = |it: &Vector, times: &[i64], expected: fn(&Vector) -> Outcome| {
        let variant = |now: &i64| (Vector { now: *now, ..it.clone() }, expected(it));
        times.iter().map(variant).collect::<Vec<_>>()
    };
    assert_all("at the edge", |it| at(it, &it.edges, Vector::expected));
    assert_all("too old or too new", |it| at(it, &it.stale, |_| Outcome::Refused));
}

#[test]
fn another_url_is_refused_where_the_url_is_signed() {
    let by_url = [
        Provider::Contentful,
        Provider::Hubspot,
        Provider::Mailchimp,
        Provider::Plivo,
        Provider::Square,
        Provider::Twilio,
    ];
    assert_all("another URL", |it| {
        let signed = by_url.contains(&it.provider) && !it.refused && !it.case.starts_with("v1");
        let url = it.url.replace("/webhook", "/elsewhere").replace("/voice", "/v").replace("/myapp", "/m");
        if signed { vec![(Vector { url, ..it.clone() }, Outcome::Refused)] } else { Vec::new() }
    });
}

#[test]
fn no_refusal_holds_a_secret_or_what_would_have_been_right() {
    for vector in vectors() {
        let Some(key) = vector.provider.secret().key(&vector.secret).filter(|it| !it.is_empty()) else {
            continue;
        };
        let shown = format!("{:?}", Verifier::new(vector.provider, key));
        assert!(!shown.contains(&vector.secret), "{shown}");
    }
}

/// Requests that have the headers of a provider, or nearly, and anything in them.
fn arbitrary() -> impl Strategy<Value = (Vector, Vec<u8>)> {
    let text = || {
        prop_oneof![
            "[ -~]{0,40}",
            "(t=|v1=|v0=|s=|sign=|env=|sha256=|HMAC |Basic |v1,|,|, | |[0-9]{1,20}|[0-9a-f]{4}|=){0,12}",
            "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]{0,9}[Z+-]?[0-9:]{0,6}",
            "[0-9]{0,25}",
        ]
    };
    let values = prop::collection::vec(prop::option::weighted(0.7, text()), 6);
    let url = prop_oneof![
        "https://[a-z.:0-9]{0,12}(/[!-~]{0,30})?([?][!-~]{0,40})?",
        "[ -~]{0,40}",
        "https://a/\\?(crc_token|challenge|bodySHA256)=[!-~]{0,20}",
    ];
    let vector = prop::sample::select(vectors());
    (vector, values, url, any::<bool>(), prop::collection::vec(any::<u8>(), 0..80), any::<i64>()).prop_map(
        |(mut vector, values, url, keep, noise, now)| {
            for ((_, value), other) in vector.headers.iter_mut().zip(values) {
                if let Some(other) = other {
                    *value = other;
                }
            }
            let body = if keep { splice(vector.body.as_bytes(), &noise) } else { noise };
            (Vector { url, now, ..vector }, body)
        },
    )
}

/// Some bytes of a body changed, so that what reads it comes far.
fn splice(body: &[u8], noise: &[u8]) -> Vec<u8> {
    let mut body = body.to_vec();
    for pair in noise.chunks_exact(2).take(3) {
        let at = usize::from(pair[0]) % body.len().max(1);
        if let Some(byte) = body.get_mut(at) {
            *byte = pair[1];
        }
    }
    body
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_request_panics((vector, body) in arbitrary(), post in any::<bool>()) {
        let key = vector.provider.secret().key(&vector.secret).unwrap();
        let verifier = Verifier::new(vector.provider, key);
        let mut headers = HeaderMap::new();
        for (name, value) in &vector.headers {
            if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
                headers.append(name.parse::<HeaderName>().unwrap(), value);
            }
        }
        let method = if post { Method::POST } else { Method::GET };
        let (url, now) = (vector.url.as_str(), vector.now);
        let delivery = Delivery { method: &method, url, headers: &headers, body: &body, now };
        let _ = verifier.screen(&headers);
        if let Verdict::Unproven(unproven) = verifier.verify(&delivery) {
            let _ = Certificate::of_pem(&body);
            let pem = vector.certificate.unwrap();
            let _ = unproven.check(&Certificate::of_pem(pem.as_bytes()).unwrap());
        }
    }
}
