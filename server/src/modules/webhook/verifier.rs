//! Verifies one delivery of one provider: nothing is read here but the delivery, and nothing is waited for.

use hithe_cli_parser::Provider;
use http::HeaderMap;

use super::delivery::{Delivery, Reason, Verdict};
use super::key::Key;
use super::{challenge, rows, sns, special, url};

/// A provider and the key that it signs with.
#[derive(Debug)]
pub(super) struct Verifier {
    provider: Provider,
    key: Key,
}

impl Verifier {
    pub(super) fn new(provider: Provider, key: Vec<u8>) -> Self {
        Self { provider, key: Key::new(key) }
    }

    pub(super) fn provider(&self) -> Provider {
        self.provider
    }

    /// Whether there is any signature at all: without one, no body needs to be waited for.
    pub(super) fn screen(&self, headers: &HeaderMap) -> Result<(), Reason> {
        let special: &[&'static str] = match self.provider {
            // Their signatures stand in the body.
            Provider::Mailgun | Provider::Sns => return Ok(()),
            Provider::Docusign => {
                let any = headers.keys().any(|name| name.as_str().starts_with("x-docusign-signature-"));
                return if any { Ok(()) } else { Err(Reason::Missing("x-docusign-signature-1")) };
            }
            Provider::Buildkite => &["x-buildkite-token"],
            Provider::Contentful => &["x-contentful-signature"],
            Provider::Gitlab => &["x-gitlab-token"],
            Provider::Graphcms => &["gcms-signature"],
            Provider::Hubspot => &["x-hubspot-signature-v3", "x-hubspot-signature"],
            Provider::Mailchimp => &["x-mandrill-signature"],
            Provider::Plivo => &[
                "x-plivo-signature-v3",
                "x-plivo-signature-ma-v3",
                "x-plivo-signature-v2",
                "x-plivo-signature-ma-v2",
            ],
            Provider::Sendgrid => &["x-twilio-email-event-webhook-signature"],
            Provider::Twilio => &["x-twilio-signature"],
            Provider::Vmware => &["authorization"],
            _ => &[],
        };
        let mut names = rows::headers(self.provider).chain(special.iter().copied()).peekable();
        let first = *names.peek().unwrap_or(&"signature");
        if names.any(|name| headers.contains_key(name)) { Ok(()) } else { Err(Reason::Missing(first)) }
    }

    /// The answer to a question that anybody may ask. Its body is not looked at.
    pub(super) fn answer(&self, delivery: &Delivery<'_>) -> Option<challenge::Answer> {
        challenge::unsigned(self.provider, &self.key, delivery)
    }

    pub(super) fn verify(&self, delivery: &Delivery<'_>) -> Verdict {
        if let Some(answer) = self.answer(delivery) {
            return Verdict::Answered(answer);
        }
        if self.provider == Provider::Sns {
            return match sns::read(delivery) {
                Ok(unproven) => Verdict::Unproven(Box::new(unproven)),
                Err(reason) => Verdict::Refused(reason),
            };
        }
        let verified = self.check(delivery);
        if let Some(answer) = challenge::signed(self.provider, &self.key, delivery, verified) {
            return Verdict::Answered(answer);
        }
        match verified {
            Ok(()) => Verdict::Verified,
            Err(reason) => Verdict::Refused(reason),
        }
    }

    fn check(&self, delivery: &Delivery<'_>) -> Result<(), Reason> {
        if challenge::is_forgeable(self.provider, delivery) {
            return Err(Reason::Form("body"));
        }
        let key = &self.key;
        match self.provider {
            Provider::Buildkite => special::buildkite(key, delivery),
            Provider::Contentful => url::contentful(key, delivery),
            Provider::Docusign => special::docusign(key, delivery),
            Provider::Gitlab => special::gitlab(key, delivery),
            Provider::Graphcms => special::graphcms(key, delivery),
            Provider::Hubspot => url::any(delivery, false, |it| url::hubspot(key, it)),
            Provider::Mailchimp => url::any(delivery, false, |it| url::mailchimp(key, it)),
            Provider::Mailgun => special::mailgun(key, delivery),
            Provider::Plivo => url::any(delivery, false, |it| url::plivo(key, it)),
            Provider::Sendgrid => special::sendgrid(key, delivery),
            Provider::Square => {
                url::any(delivery, false, |it| rows::verify(rows::of(Provider::Square), key, None, it))
            }
            Provider::Twilio => url::any(delivery, true, |it| url::twilio(key, it)),
            Provider::Vmware => special::vmware(key, delivery),
            provider => rows::verify(rows::of(provider), key, provider.tolerance(), delivery),
        }
    }
}
