//! The providers that sign in a way of their own, and those that sign nothing and show a token.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use hithe_cli_parser::Provider;
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use serde::Deserialize;

use super::delivery::{Delivery, Reason};
use super::key::{Digest, Encoding, Key};
use super::rows;

type Outcome = Result<(), Reason>;

/// Some write base64 without its padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The secret itself: <https://docs.gitlab.com/user/project/integrations/webhooks/>.
pub(super) fn gitlab(key: &Key, delivery: &Delivery<'_>) -> Outcome {
    token(key, delivery, "x-gitlab-token")
}

/// A signature or, as the publisher chose there, the secret itself:
/// <https://buildkite.com/docs/apis/webhooks/pipelines>.
pub(super) fn buildkite(key: &Key, delivery: &Delivery<'_>) -> Outcome {
    if delivery.has("x-buildkite-signature") {
        let provider = Provider::Buildkite;
        return rows::verify(rows::of(provider), key, provider.tolerance(), delivery);
    }
    token(key, delivery, "x-buildkite-token")
}

fn token(key: &Key, delivery: &Delivery<'_>, header: &'static str) -> Outcome {
    if key.is(delivery.header(header)?.as_bytes()) { Ok(()) } else { Err(Reason::Mismatch) }
}

/// Basic auth (RFC 7617) with the user and the password of the secret.
pub(super) fn vmware(key: &Key, delivery: &Delivery<'_>) -> Outcome {
    let value = delivery.header("authorization")?;
    let (scheme, encoded) = value.split_once(' ').ok_or(Reason::Form("Authorization"))?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(Reason::Form("Authorization"));
    }
    let pair = BASE64.decode(encoded.trim()).map_err(|_| Reason::Form("Authorization"))?;
    if key.is(&pair) { Ok(()) } else { Err(Reason::Mismatch) }
}

/// Base64 HMAC-SHA256 of the body, for each key of the account in a header with its number:
/// <https://developers.docusign.com/platform/webhooks/connect/validate/>.
pub(super) fn docusign(key: &Key, delivery: &Delivery<'_>) -> Outcome {
    let names =
        delivery.headers.iter().filter(|(name, _)| name.as_str().starts_with("x-docusign-signature-"));
    let values: Vec<_> = names.filter_map(|(_, value)| value.to_str().ok()).collect();
    if values.is_empty() {
        return Err(Reason::Missing("x-docusign-signature-1"));
    }
    let expected = key.expect(Digest::Sha256, Encoding::Base64, &[delivery.body]);
    if values.iter().any(|it| expected.is(it.trim())) { Ok(()) } else { Err(Reason::Mismatch) }
}

/// Base64 HMAC-SHA256 of a JSON object that holds the body as a string. Source: the official library,
/// <https://github.com/hygraph/hygraph-utils>.
pub(super) fn graphcms(key: &Key, delivery: &Delivery<'_>) -> Outcome {
    let value = delivery.header("gcms-signature")?;
    let pair = |name: &str| {
        let pairs = value.split(',').filter_map(|it| it.trim().split_once('='));
        pairs.filter(|(it, _)| *it == name).map(|(_, value)| value).next().ok_or(Reason::Form("signature"))
    };
    let (signature, environment, time) = (pair("sign")?, pair("env")?, pair("t")?);
    delivery.check_time(time, Provider::Graphcms.tolerance())?;
    // It stands in the JSON as a number.
    let time: i64 = time.parse().map_err(|_| Reason::Form("time"))?;
    let body = std::str::from_utf8(delivery.body).map_err(|_| Reason::Form("body"))?;
    let signed = key.expect_written(Digest::Sha256, Encoding::Base64, |mut to| {
        to.write_all(br#"{"Body":"#)?;
        serde_json::to_writer(&mut to, body)?;
        to.write_all(br#","EnvironmentName":"#)?;
        serde_json::to_writer(&mut to, environment)?;
        write!(to, r#","TimeStamp":{time}}}"#)
    });
    signed.map_err(|_| Reason::Form("body"))?.check(signature)
}

/// Hexadecimal HMAC-SHA256 of a time and a token, all three in the body; nothing else of it is signed:
/// <https://documentation.mailgun.com/docs/mailgun/user-manual/webhooks/securing-webhooks>.
pub(super) fn mailgun(key: &Key, delivery: &Delivery<'_>) -> Outcome {
    #[derive(Deserialize)]
    struct Payload {
        signature: Signature,
    }
    #[derive(Deserialize)]
    struct Signature {
        timestamp: String,
        token: String,
        signature: String,
    }
    let payload: Payload = serde_json::from_slice(delivery.body).map_err(|_| Reason::Form("body"))?;
    let Signature { timestamp, token, signature } = payload.signature;
    delivery.check_time(&timestamp, Provider::Mailgun.tolerance())?;
    let signed = [timestamp.as_bytes(), token.as_bytes()];
    key.expect(Digest::Sha256, Encoding::Hex, &signed).check(&signature)
}

/// ECDSA on P-256 with SHA-256 over a time and the body:
/// <https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/getting-started-event-webhook-security-features>.
pub(super) fn sendgrid(key: &Key, delivery: &Delivery<'_>) -> Outcome {
    let signature = delivery.header("x-twilio-email-event-webhook-signature")?;
    let time = delivery.header("x-twilio-email-event-webhook-timestamp")?;
    delivery.check_time(time, Provider::Sendgrid.tolerance())?;
    let signature = BASE64.decode(signature).map_err(|_| Reason::Form("signature"))?;
    let signed = [time.as_bytes(), delivery.body].concat();
    let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key.bytes());
    public.verify(&signed, &signature).map_err(|_| Reason::Mismatch)
}
