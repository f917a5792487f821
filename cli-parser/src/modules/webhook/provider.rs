//! The providers of webhooks: their names, and what a publisher has to know of each.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::super::Objection;
use crate::Code;

/// What the secret of a provider is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretKind {
    /// There is none: the provider signs with a private key and shows its certificate.
    None,
    /// Text, whose bytes are the key.
    Text,
    /// Bytes in base64, behind `whsec_` or not (Standard Webhooks).
    Base64,
    /// The base64 of a P-256 public key in DER.
    PublicKey,
    /// `USER::PASSWORD`, for basic auth.
    Pair,
}

macro_rules! providers {
    ($($Name:ident = $id:literal, $secret:ident, $seconds:literal;)*) => {
        /// Who sends webhooks.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub enum Provider {
            $(#[doc = $id] $Name,)*
        }

        const ALL: &[Provider] = &[$(Provider::$Name),*];

        impl Provider {
            const fn row(self) -> (&'static str, SecretKind, u64) {
                match self { $(Self::$Name => ($id, SecretKind::$secret, $seconds),)* }
            }
        }
    };
}

// Seconds by which a signed time may differ from the server's: what the provider recommends, else 180; 0 where it
// sends no time.
providers! {
    Aftership = "aftership", Text, 0;
    Airship = "airship", Text, 180;
    Alchemy = "alchemy", Text, 0;
    Autodesk = "autodesk", Text, 0;
    Bitbucket = "bitbucket", Text, 0;
    Bolt = "bolt", Text, 0;
    Box = "box", Text, 600;
    Brex = "brex", Base64, 300;
    Buildkite = "buildkite", Text, 180;
    Calendly = "calendly", Text, 180;
    Castle = "castle", Text, 0;
    Chargify = "chargify", Text, 0;
    Circleci = "circleci", Text, 0;
    Clearbit = "clearbit", Text, 0;
    Clerk = "clerk", Base64, 300;
    Coinbase = "coinbase", Text, 0;
    Contentful = "contentful", Text, 180;
    Docusign = "docusign", Text, 0;
    Dropbox = "dropbox", Text, 0;
    FacebookGraphApi = "facebook_graph_api", Text, 0;
    FacebookMessenger = "facebook_messenger", Text, 0;
    Frameio = "frameio", Text, 300;
    Github = "github", Text, 0;
    Gitlab = "gitlab", Text, 0;
    Go1 = "go1", Text, 60;
    Graphcms = "graphcms", Text, 180;
    Heroku = "heroku", Text, 0;
    Hostedhooks = "hostedhooks", Text, 180;
    Hubspot = "hubspot", Text, 300;
    Instagram = "instagram", Text, 0;
    Intercom = "intercom", Text, 0;
    LaunchDarkly = "launch_darkly", Text, 0;
    Mailchimp = "mailchimp", Text, 0;
    Mailgun = "mailgun", Text, 180;
    MicrosoftTeams = "microsoft_teams", Base64, 0;
    ModernTreasury = "modern_treasury", Text, 0;
    Mongodb = "mongodb", Text, 0;
    Mux = "mux", Text, 300;
    Orb = "orb", Text, 300;
    Orbit = "orbit", Text, 0;
    Pagerduty = "pagerduty", Text, 0;
    Pinwheel = "pinwheel", Text, 180;
    Plivo = "plivo", Text, 0;
    Pusher = "pusher", Text, 0;
    Sendgrid = "sendgrid", PublicKey, 180;
    Sentry = "sentry", Text, 180;
    Shopify = "shopify", Text, 0;
    SignalSciences = "signal_sciences", Text, 0;
    Slack = "slack", Text, 300;
    Sns = "sns", None, 0;
    Sonatype = "sonatype", Text, 0;
    Square = "square", Text, 0;
    Stripe = "stripe", Text, 300;
    Svix = "svix", Base64, 300;
    Terraform = "terraform", Text, 0;
    Tiktok = "tiktok", Text, 180;
    TrendmicroConformity = "trendmicro_conformity", Text, 0;
    Twilio = "twilio", Text, 0;
    Twitter = "twitter", Text, 0;
    Typeform = "typeform", Text, 0;
    Vmware = "vmware", Pair, 0;
    Webex = "webex", Text, 0;
    Whatsapp = "whatsapp", Text, 0;
    Worldline = "worldline", Text, 0;
    Xero = "xero", Text, 0;
    Zendesk = "zendesk", Text, 180;
    Zoom = "zoom", Text, 300;
}

/// Names that ngrok's own guides use beside those of its reference.
pub(super) const ALIASES: &[(&str, Provider)] = &[
    ("autodesk_forge", Provider::Autodesk),
    ("signalsciences", Provider::SignalSciences),
    ("sonatype_nexus", Provider::Sonatype),
    ("vmware_workspace", Provider::Vmware),
];

impl Provider {
    pub fn all() -> impl Iterator<Item = Self> {
        ALL.iter().copied()
    }

    /// As it is typed.
    pub const fn id(self) -> &'static str {
        self.row().0
    }

    pub const fn secret(self) -> SecretKind {
        self.row().1
    }

    /// By how much a time that it sends may differ from the server's; `None` where it sends none.
    pub const fn tolerance(self) -> Option<Duration> {
        match self.row().2 {
            0 => None,
            seconds => Some(Duration::from_secs(seconds)),
        }
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id())
    }
}

impl FromStr for Provider {
    type Err = Objection;

    /// The objection does not repeat the word: it may be a secret in the wrong place.
    fn from_str(text: &str) -> Result<Self, Objection> {
        if text.is_empty() {
            let message = "--verify-webhook needs the name of a provider, such as github";
            return Err(Objection::new(Code::WEBHOOK_NO_PROVIDER, message));
        }
        let word = text.to_ascii_lowercase().replace('-', "_");
        let names = || ALL.iter().map(|it| (it.id(), *it)).chain(ALIASES.iter().copied());
        names().find(|(name, _)| *name == word).map(|(_, provider)| provider).ok_or_else(|| {
            let scored = names().map(|(name, _)| (strsim::jaro_winkler(&word, name), name));
            let best = scored.filter(|(score, _)| *score > 0.75).max_by(|a, b| a.0.total_cmp(&b.0));
            let hint = match best {
                Some((_, near)) => format!("did you mean {near}?"),
                None => "docs/modules.md lists them".to_owned(),
            };
            Objection::new(Code::WEBHOOK_PROVIDER, format!("this provider is not known; {hint}"))
        })
    }
}

impl TryFrom<String> for Provider {
    type Error = Objection;

    fn try_from(text: String) -> Result<Self, Objection> {
        text.parse()
    }
}

impl From<Provider> for String {
    fn from(provider: Provider) -> Self {
        provider.id().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_and_alias_is_known_however_it_is_written() {
        for provider in Provider::all() {
            assert_eq!(provider.id().parse(), Ok(provider));
        }
        for (alias, provider) in ALIASES {
            assert_eq!(alias.parse(), Ok(*provider));
        }
        assert_eq!("GitHub".parse(), Ok(Provider::Github));
        assert_eq!("launch-darkly".parse(), Ok(Provider::LaunchDarkly));
    }

    #[test]
    fn an_unknown_name_gets_the_nearest_one_and_is_not_repeated() {
        let refused = |text: &str| text.parse::<Provider>().unwrap_err();
        assert_eq!(refused("").code, Code::WEBHOOK_NO_PROVIDER);
        let near = refused("githbu");
        assert_eq!(near.code, Code::WEBHOOK_PROVIDER);
        assert!(near.message.ends_with("did you mean github?"), "{near}");
        let secret = refused("0123456789abcdef");
        assert!(!secret.message.contains("0123"), "{secret}");
    }
}
