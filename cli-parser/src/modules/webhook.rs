//! Webhook verification: what can be said about it.

mod provider;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use clap::Args;
use serde::{Deserialize, Serialize};

pub use self::provider::{Provider, SecretKind};
use super::{Definition, Kind, Manual, Objection, Stage};
use crate::{Code, Secret};

/// Admits only the webhooks of one provider, by their signatures.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WebhookVerification {
    /// Admit only webhooks that this provider signed, such as github, stripe or slack; docs/modules.md lists them all
    #[arg(long = "verify-webhook", value_name = "PROVIDER", id = "verify-webhook")]
    pub provider: Option<Provider>,
    /// The key or token with which the provider signs; every provider but sns has one
    #[arg(
        long = "verify-webhook-secret",
        value_name = "SECRET",
        id = "verify-webhook-secret",
        value_parser = parse_secret
    )]
    pub secret: Option<Secret<String>>,
}

impl Definition for WebhookVerification {
    const STAGE: Stage = Stage::Verify;
    const ON: &'static [Kind] = &[Kind::Http];
    const MANUAL: Manual = Manual {
        what: WHAT,
        line: "ssh -R 443:localhost:80 HOST http --verify-webhook github --verify-webhook-secret 'its own secret'",
        defaults: "A signed time may differ from the server's by what the provider recommends, else by 180 seconds. A \
                   request may have 8 MiB, and 30 seconds to arrive. What is refused gets status 403, or 413 when it \
                   is too large, and never reaches the upstream.",
        codes: &[
            Code::WEBHOOK_REFUSED,
            Code::WEBHOOK_NO_PROVIDER,
            Code::WEBHOOK_PROVIDER,
            Code::WEBHOOK_PUBLIC_KEY,
            Code::WEBHOOK_NO_SECRET,
            Code::WEBHOOK_NEEDLESS_SECRET,
            Code::TOO_BUSY,
        ],
    };

    fn check(&self) -> Result<(), Objection> {
        let Some(provider) = self.provider else {
            let message = "--verify-webhook-secret needs --verify-webhook PROVIDER beside it";
            return Err(Objection::new(Code::WEBHOOK_NO_PROVIDER, message));
        };
        let secret = self.secret.as_ref().map(|it| it.expose().as_str()).filter(|it| !it.is_empty());
        match (provider.secret(), secret) {
            (SecretKind::None, None) => Ok(()),
            (SecretKind::None, Some(_)) => {
                let message = format!("{provider} has no secret: leave --verify-webhook-secret out");
                Err(Objection::new(Code::WEBHOOK_NEEDLESS_SECRET, message))
            }
            (_, None) => {
                let message = format!("--verify-webhook {provider} needs --verify-webhook-secret SECRET");
                Err(Objection::new(Code::WEBHOOK_NO_SECRET, message))
            }
            (kind, Some(secret)) => check_form(provider, kind, secret),
        }
    }

    fn flags(&self, flags: &mut Vec<(&'static str, Option<String>)>) {
        flags.extend(self.provider.map(|it| ("--verify-webhook", Some(it.to_string()))));
        let secret = self.secret.as_ref().map(|it| it.expose().clone());
        flags.extend(secret.map(|it| ("--verify-webhook-secret", Some(it))));
    }
}

const WHAT: &str = "\
Admits only requests that a provider of webhooks has signed with the secret you share with it, and that are not old \
copies. The body is held back until its signature is known to be good; then the upstream gets it byte for byte.

The questions with which some providers try an endpoint are answered without the upstream: the challenge-response check \
of `twitter`, the URL validations of `zoom`, `worldline` and `dropbox`, and the intent to receive of `xero`. Those of \
Facebook, Instagram and WhatsApp (`hub.challenge`) are not, because their token is not the secret; nor is \
the first request of `mailchimp`, which is signed with another key. Register those before you switch verification on.

A few providers sign less than the whole request. `gitlab`, `vmware`, the token of `buildkite`, `mailgun` and the V2 \
signature of `plivo` do not cover the body; \
what carries no time can be sent again by whoever has a copy. `sns` \
proves that Amazon sent a message, and not for which account: compare `TopicArn` in the upstream.

The secret is taken as the provider shows it: with `whsec_` for `svix`, `clerk` and `brex` (which may leave that out), \
the base64 text for `microsoft_teams`, the verification key (base64 of a P-256 public key) for `sendgrid`, and \
`USER::PASSWORD` for `vmware`. `twilio`, `square`, `mailchimp`, `plivo` and `hubspot` sign the URL too: give them the \
public one.

Providers: aftership, airship, alchemy, autodesk (or autodesk_forge), bitbucket, bolt, box, brex, buildkite, calendly, \
castle, chargify, circleci, clearbit, clerk, coinbase, contentful, docusign, dropbox, facebook_graph_api, \
facebook_messenger, frameio, github, gitlab, go1, graphcms (Hygraph), heroku, hostedhooks, hubspot, instagram, intercom, \
launch_darkly, mailchimp (Mandrill), mailgun, microsoft_teams, modern_treasury, mongodb, mux, orb, orbit, pagerduty, \
pinwheel, plivo, pusher, sendgrid, sentry, shopify, signal_sciences (or signalsciences), slack, sns, sonatype (or \
sonatype_nexus), square, stripe, svix, terraform, tiktok, trendmicro_conformity, twilio, twitter, typeform, vmware (or \
vmware_workspace), webex, whatsapp, worldline, xero, zendesk, zoom. What `go1` and `orbit` sign could \
not be compared with a full description of theirs.";

/// Providers leave the padding of their base64 out, or do not.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A value of the command line; the objection does not repeat it.
fn parse_secret(text: &str) -> Result<Secret<String>, Objection> {
    if text.chars().any(char::is_control) {
        let message = "--verify-webhook-secret must not hold control characters";
        return Err(Objection::new(Code::BAD_FLAG, message));
    }
    if text.contains(char::REPLACEMENT_CHARACTER) {
        return Err(Objection::new(Code::BAD_FLAG, "--verify-webhook-secret must be UTF-8 text"));
    }
    Ok(Secret::new(text.to_owned()))
}

/// Whether a secret can be one of this kind.
fn check_form(provider: Provider, kind: SecretKind, secret: &str) -> Result<(), Objection> {
    let (fits, code, form) = match kind {
        SecretKind::None | SecretKind::Text => return Ok(()),
        SecretKind::Base64 => (
            decode_secret(secret).is_some(),
            Code::BAD_FLAG,
            "the base64 text that the provider shows, with or without whsec_",
        ),
        SecretKind::PublicKey => (
            public_key(secret).is_some(),
            Code::WEBHOOK_PUBLIC_KEY,
            "the base64 of a public key on the curve P-256, in DER",
        ),
        SecretKind::Pair => {
            (pair(secret).is_some(), Code::BAD_FLAG, "USER::PASSWORD, with two colons in between")
        }
    };
    if fits {
        return Ok(());
    }
    Err(Objection::new(code, format!("the secret of {provider} is {form}, and this is not")))
}

impl SecretKind {
    /// The bytes with which a provider of this kind signs; for [`SecretKind::PublicKey`] the point of the curve,
    /// uncompressed, and for [`SecretKind::Pair`] what stands in a basic `Authorization`.
    pub fn key(self, secret: &str) -> Option<Vec<u8>> {
        match self {
            Self::None => Some(Vec::new()),
            Self::Text => Some(secret.as_bytes().to_vec()),
            Self::Base64 => decode_secret(secret),
            Self::PublicKey => public_key(secret),
            Self::Pair => pair(secret).map(|(user, password)| format!("{user}:{password}").into_bytes()),
        }
    }
}

fn decode_secret(secret: &str) -> Option<Vec<u8>> {
    let text = secret.strip_prefix("whsec_").unwrap_or(secret);
    BASE64.decode(text).ok().filter(|bytes| !bytes.is_empty())
}

/// The point of a P-256 `SubjectPublicKeyInfo` (RFC 5480 §2): one header fits every such key.
fn public_key(secret: &str) -> Option<Vec<u8>> {
    /// Up to the first byte of the point, which says that it is uncompressed.
    const HEADER: &[u8] =
        b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00";
    let der = BASE64.decode(secret).ok()?;
    let point = der.strip_prefix(HEADER)?;
    (point.len() == 65 && point.first() == Some(&4)).then(|| point.to_vec())
}

fn pair(secret: &str) -> Option<(&str, &str)> {
    secret.split_once("::").filter(|(user, password)| !user.is_empty() && !password.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENDGRID: &str = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE83T4O/n84iotIvIW4mdBgQ/7dAfSmpqIM8kF9mN1flpVKS3GRqe62gw+2fNNRaINXvVpiglSI8eNEc6wEA3F+g==";

    fn checked(provider: &str, secret: Option<&str>) -> Result<(), Objection> {
        let provider = Some(provider.parse().unwrap());
        WebhookVerification { provider, secret: secret.map(|it| Secret::new(it.to_owned())) }.check()
    }

    fn code(provider: &str, secret: Option<&str>) -> Code {
        checked(provider, secret).expect_err(provider).code
    }

    #[test]
    fn every_kind_of_secret_is_checked() {
        for (provider, secret) in [
            ("github", "its own secret"),
            ("svix", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
            ("brex", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
            ("microsoft_teams", "aGVsbG8"),
            ("sendgrid", SENDGRID),
            ("vmware", "ada::correct:horse"),
        ] {
            assert_eq!(checked(provider, Some(secret)), Ok(()), "{provider}");
        }
        assert_eq!(checked("sns", None), Ok(()));
        assert_eq!(code("sns", Some("owner")), Code::WEBHOOK_NEEDLESS_SECRET);
        assert_eq!(code("github", None), Code::WEBHOOK_NO_SECRET);
        assert_eq!(code("github", Some("")), Code::WEBHOOK_NO_SECRET);
        assert_eq!(code("sendgrid", Some("aGVsbG8=")), Code::WEBHOOK_PUBLIC_KEY);
        assert_eq!(code("sendgrid", SENDGRID.get(1..)), Code::WEBHOOK_PUBLIC_KEY);
        assert_eq!(code("vmware", Some("ada:correct-horse")), Code::BAD_FLAG);
        assert_eq!(code("svix", Some("whsec_!")), Code::BAD_FLAG);
        assert_eq!(WebhookVerification::default().check().unwrap_err().code, Code::WEBHOOK_NO_PROVIDER);
    }

    #[test]
    fn a_secret_is_never_printed() {
        let provider = Some(Provider::Vmware);
        let module = WebhookVerification { provider, secret: Some(Secret::new("ada:horse".to_owned())) };
        assert!(!format!("{module:?}").contains("horse"));
        assert!(!module.check().unwrap_err().to_string().contains("horse"));
        assert!(!parse_secret("horse\u{7}").unwrap_err().to_string().contains("horse"));
    }

    #[test]
    fn the_manual_names_every_provider() {
        let (_, list) = WHAT.split_once("Providers: ").unwrap();
        let named: Vec<_> = list.split(|it: char| !it.is_ascii_alphanumeric() && it != '_').collect();
        for provider in Provider::all() {
            assert!(named.contains(&provider.id()), "{provider}");
        }
        for (alias, _) in provider::ALIASES {
            assert!(named.contains(alias), "{alias}");
        }
    }
}
