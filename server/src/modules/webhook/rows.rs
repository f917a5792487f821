//! The providers that sign with an HMAC over something of the request: one row says how.
//!
//! Sources: the behaviour reference, 3.14, and each provider's own documentation, named beside the vectors.

use std::time::Duration;

use hithe_cli_parser::Provider;

use super::delivery::{Delivery, Reason};
use super::key::{Digest, Encoding, Key};

/// Where a signature stands, how it is written, and what is signed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    header: &'static str,
    shape: Shape,
    digest: Digest,
    encoding: Encoding,
    signed: &'static [Part],
    time: Option<Time>,
}

/// What a header holds.
#[derive(Clone, Copy, Debug)]
enum Shape {
    /// The signature, behind this.
    Whole(&'static str),
    /// Named values, such as `t=1,v1=ab,v1=cd`. Any of the signatures may match: keys are exchanged in use.
    Pairs { between: char, within: char, name: &'static str },
}

/// A piece of what is signed.
#[derive(Clone, Copy, Debug)]
enum Part {
    Text(&'static str),
    Header(&'static str),
    Time,
    Url,
    Body,
}

/// Where the time stands.
#[derive(Clone, Copy, Debug)]
enum Time {
    Header(&'static str),
    /// Among the named values of the signature's own header.
    Pair(&'static str),
}

use Part::{Body, Header, Text, Url};

impl Row {
    /// The most common: hexadecimal HMAC-SHA256 of the body.
    const fn new(header: &'static str) -> Self {
        Self {
            header,
            shape: Shape::Whole(""),
            digest: Digest::Sha256,
            encoding: Encoding::Hex,
            signed: &[Body],
            time: None,
        }
    }

    const fn base64(self) -> Self {
        Self { encoding: Encoding::Base64, ..self }
    }

    const fn digest(self, digest: Digest) -> Self {
        Self { digest, ..self }
    }

    const fn behind(self, prefix: &'static str) -> Self {
        Self { shape: Shape::Whole(prefix), ..self }
    }

    /// `name=…` among others, separated by commas.
    const fn named(self, name: &'static str) -> Self {
        Self { shape: Shape::Pairs { between: ',', within: '=', name }, ..self }
    }

    /// `name<within>…` among others, separated by blanks.
    const fn spaced(self, name: &'static str, within: char) -> Self {
        Self { shape: Shape::Pairs { between: ' ', within, name }, ..self }
    }

    const fn time(self, header: &'static str) -> Self {
        Self { time: Some(Time::Header(header)), ..self }
    }

    const fn time_named(self, name: &'static str) -> Self {
        Self { time: Some(Time::Pair(name)), ..self }
    }

    const fn signs(self, signed: &'static [Part]) -> Self {
        Self { signed, ..self }
    }
}

const SHA1: Digest = Digest::Sha1;
const TIME_DOT_BODY: &[Part] = &[Part::Time, Text("."), Body];

/// As GitHub's, with the older one beside it: <https://developers.facebook.com/docs/graph-api/webhooks>.
const FACEBOOK: &[Row] = &[
    Row::new("x-hub-signature-256").behind("sha256="),
    Row::new("x-hub-signature").behind("sha1=").digest(SHA1),
];

/// Standard Webhooks, with the names of Svix and with its own.
const SVIX: &[Row] = &[
    Row::new("svix-signature").spaced("v1", ',').base64().time("svix-timestamp").signs(&[
        Header("svix-id"),
        Text("."),
        Part::Time,
        Text("."),
        Body,
    ]),
    Row::new("webhook-signature").spaced("v1", ',').base64().time("webhook-timestamp").signs(&[
        Header("webhook-id"),
        Text("."),
        Part::Time,
        Text("."),
        Body,
    ]),
];

/// Where a provider has several rows, one of them is enough.
#[rustfmt::skip]
const TABLE: &[(Provider, &[Row])] = &[
    (Provider::Aftership, &[Row::new("aftership-hmac-sha256").base64()]),
    (Provider::Airship, &[Row::new("x-ua-signature").time("x-ua-timestamp").signs(&[Part::Time, Text(":"), Body])]),
    (Provider::Alchemy, &[Row::new("x-alchemy-signature")]),
    (Provider::Autodesk, &[Row::new("x-adsk-signature").behind("sha1hash=").digest(SHA1)]),
    (Provider::Bitbucket, &[Row::new("x-hub-signature").behind("sha256=")]),
    // While a secret is exchanged, the second header has the signature of the new one.
    (Provider::Bolt, &[Row::new("x-bolt-hmac-sha256").base64(), Row::new("x-bolt-hmac-sha256-pending").base64()]),
    (Provider::Box, &[
        Row::new("box-signature-primary").base64().time("box-delivery-timestamp").signs(&[Body, Part::Time]),
        Row::new("box-signature-secondary").base64().time("box-delivery-timestamp").signs(&[Body, Part::Time]),
    ]),
    (Provider::Brex, SVIX),
    (Provider::Buildkite, &[
        Row::new("x-buildkite-signature").named("signature").time_named("timestamp").signs(TIME_DOT_BODY),
    ]),
    (Provider::Calendly, &[Row::new("calendly-webhook-signature").named("v1").time_named("t").signs(TIME_DOT_BODY)]),
    (Provider::Castle, &[Row::new("x-castle-signature").base64()]),
    (Provider::Chargify, &[Row::new("x-chargify-webhook-signature-hmac-sha-256")]),
    (Provider::Circleci, &[Row::new("circleci-signature").named("v1")]),
    (Provider::Clearbit, &[Row::new("x-request-signature").behind("sha1=").digest(SHA1)]),
    (Provider::Clerk, SVIX),
    (Provider::Coinbase, &[Row::new("x-cc-webhook-signature")]),
    (Provider::Dropbox, &[Row::new("x-dropbox-signature")]),
    (Provider::FacebookGraphApi, FACEBOOK),
    (Provider::FacebookMessenger, FACEBOOK),
    (Provider::Frameio, &[
        Row::new("x-frameio-signature").behind("v0=").time("x-frameio-request-timestamp")
            .signs(&[Text("v0:"), Part::Time, Text(":"), Body]),
    ]),
    (Provider::Github, &[Row::new("x-hub-signature-256").behind("sha256=")]),
    (Provider::Go1, &[Row::new("go1-signature").named("v1").time_named("t").signs(TIME_DOT_BODY)]),
    (Provider::Heroku, &[Row::new("heroku-webhook-hmac-sha256").base64()]),
    (Provider::Hostedhooks, &[
        Row::new("hostedhooks-signature").named("s").time_named("t").signs(TIME_DOT_BODY),
        Row::new("hostedhooks-signature").named("v1").time_named("t").signs(TIME_DOT_BODY),
    ]),
    (Provider::Instagram, FACEBOOK),
    (Provider::Intercom, &[Row::new("x-hub-signature").behind("sha1=").digest(SHA1)]),
    (Provider::LaunchDarkly, &[Row::new("x-ld-signature")]),
    (Provider::MicrosoftTeams, &[Row::new("authorization").behind("HMAC ").base64()]),
    (Provider::ModernTreasury, &[Row::new("x-signature")]),
    (Provider::Mongodb, &[
        Row::new("endpoint-signature").behind("sha256="),
        Row::new("x-hook-signature").behind("sha256="),
        // Alerts of Atlas.
        Row::new("x-mms-signature").base64().digest(SHA1),
    ]),
    (Provider::Mux, &[Row::new("mux-signature").named("v1").time_named("t").signs(TIME_DOT_BODY)]),
    (Provider::Orb, &[
        Row::new("x-orb-signature").spaced("v1", '=').time("x-orb-timestamp")
            .signs(&[Text("v1:"), Part::Time, Text(":"), Body]),
    ]),
    (Provider::Orbit, &[Row::new("x-orbit-signature"), Row::new("x-orbit-signature").behind("sha256=")]),
    (Provider::Pagerduty, &[Row::new("x-pagerduty-signature").named("v1")]),
    (Provider::Pinwheel, &[
        Row::new("x-pinwheel-signature").behind("v2=").time("x-timestamp")
            .signs(&[Text("v2:"), Part::Time, Text(":"), Body]),
    ]),
    (Provider::Pusher, &[
        Row::new("x-pusher-signature"),
        Row::new("webhook-signature").behind("sha1=").digest(SHA1),
    ]),
    // Its time is not signed: it keeps out late deliveries, and nobody who would lie.
    (Provider::Sentry, &[Row::new("sentry-hook-signature").time("sentry-hook-timestamp")]),
    (Provider::Shopify, &[Row::new("x-shopify-hmac-sha256").base64()]),
    (Provider::SignalSciences, &[Row::new("x-sigsci-signature")]),
    (Provider::Slack, &[
        Row::new("x-slack-signature").behind("v0=").time("x-slack-request-timestamp")
            .signs(&[Text("v0:"), Part::Time, Text(":"), Body]),
    ]),
    (Provider::Sonatype, &[Row::new("x-nexus-webhook-signature").digest(SHA1)]),
    (Provider::Square, &[
        Row::new("x-square-hmacsha256-signature").base64().signs(&[Url, Body]),
        Row::new("x-square-signature").base64().digest(SHA1).signs(&[Url, Body]),
    ]),
    (Provider::Stripe, &[Row::new("stripe-signature").named("v1").time_named("t").signs(TIME_DOT_BODY)]),
    (Provider::Svix, SVIX),
    (Provider::Terraform, &[Row::new("x-tfe-notification-signature").digest(Digest::Sha512)]),
    (Provider::Tiktok, &[Row::new("tiktok-signature").named("s").time_named("t").signs(TIME_DOT_BODY)]),
    (Provider::TrendmicroConformity, &[Row::new("x-conformity-signature")]),
    (Provider::Twitter, &[Row::new("x-twitter-webhooks-signature").behind("sha256=").base64()]),
    (Provider::Typeform, &[Row::new("typeform-signature").behind("sha256=").base64()]),
    (Provider::Webex, &[Row::new("x-spark-signature").digest(SHA1)]),
    (Provider::Whatsapp, FACEBOOK),
    (Provider::Worldline, &[Row::new("x-gcs-signature").base64()]),
    (Provider::Xero, &[Row::new("x-xero-signature").base64()]),
    (Provider::Zendesk, &[
        Row::new("x-zendesk-webhook-signature").base64().time("x-zendesk-webhook-signature-timestamp")
            .signs(&[Part::Time, Body]),
    ]),
    (Provider::Zoom, &[
        Row::new("x-zm-signature").behind("v0=").time("x-zm-request-timestamp")
            .signs(&[Text("v0:"), Part::Time, Text(":"), Body]),
    ]),
];

/// The rows of a provider; none for those that have a function of their own.
pub(super) fn of(provider: Provider) -> &'static [Row] {
    TABLE.iter().find(|(it, _)| *it == provider).map(|(_, rows)| *rows).unwrap_or_default()
}

/// The headers in one of which the signature stands.
pub(super) fn headers(provider: Provider) -> impl Iterator<Item = &'static str> {
    of(provider).iter().map(|row| row.header)
}

/// Whether one of the rows whose header is there verifies the delivery.
pub(super) fn verify(
    rows: &[Row],
    key: &Key,
    tolerance: Option<Duration>,
    delivery: &Delivery<'_>,
) -> Result<(), Reason> {
    let mut refused = Reason::Missing(rows.first().map_or("signature", |row| row.header));
    for row in rows.iter().filter(|row| delivery.has(row.header)) {
        match row.verify(key, tolerance, delivery) {
            Ok(()) => return Ok(()),
            Err(reason) => refused = reason,
        }
    }
    Err(refused)
}

impl Row {
    fn verify(&self, key: &Key, tolerance: Option<Duration>, delivery: &Delivery<'_>) -> Result<(), Reason> {
        let value = delivery.header(self.header)?;
        let time = match self.time {
            None => "",
            Some(Time::Header(name)) => delivery.header(name)?,
            Some(Time::Pair(name)) => self.pairs(value, name).next().ok_or(Reason::Form("signature"))?,
        };
        if self.time.is_some() {
            delivery.check_time(time, tolerance)?;
        }
        let mut signed = Vec::with_capacity(self.signed.len());
        for part in self.signed {
            signed.push(match part {
                Text(text) => text.as_bytes(),
                Header(name) => delivery.header(name)?.as_bytes(),
                Part::Time => time.as_bytes(),
                Url => delivery.url.as_bytes(),
                Body => delivery.body,
            });
        }
        // Once, however many signatures there are: each would cost a pass over the body.
        let expected = key.expect(self.digest, self.encoding, &signed);
        match self.shape {
            Shape::Whole(prefix) => {
                expected.check(value.strip_prefix(prefix).ok_or(Reason::Form("signature"))?.trim())
            }
            Shape::Pairs { name, .. } => {
                let matches = self.pairs(value, name).any(|it| expected.is(it));
                if matches { Ok(()) } else { Err(Reason::Mismatch) }
            }
        }
    }

    /// The values of this name.
    fn pairs<'v>(&self, value: &'v str, name: &'static str) -> impl Iterator<Item = &'v str> {
        let (between, within) = match self.shape {
            Shape::Pairs { between, within, .. } => (between, within),
            Shape::Whole(_) => (',', '='),
        };
        let pairs = value.split(between).filter_map(move |pair| pair.trim().split_once(within));
        pairs.filter(move |(it, _)| *it == name).map(|(_, value)| value)
    }
}
