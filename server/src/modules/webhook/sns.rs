//! Amazon SNS: RSA over some fields of the body, with the certificate that the body names.
//!
//! Source: <https://docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message.html>. It proves that Amazon
//! sent the message, and not for which account.

use std::borrow::Cow;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{
    RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY, RSA_PKCS1_2048_8192_SHA256, RsaParameters,
    UnparsedPublicKey,
};
use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use x509_parser::pem::parse_x509_pem;

use super::delivery::{Delivery, Reason};

/// A message whose certificate has to be looked at.
#[derive(Debug)]
pub(super) struct Unproven {
    pub(super) certificate: CertificateUrl,
    signed: String,
    signature: Vec<u8>,
    version: Version,
    now: i64,
}

#[derive(Clone, Copy, Debug)]
enum Version {
    Sha1,
    Sha256,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Message {
    #[serde(rename = "Type")]
    kind: String,
    message_id: String,
    topic_arn: String,
    message: String,
    timestamp: String,
    signature: String,
    signature_version: String,
    #[serde(rename = "SigningCertURL")]
    signing_cert_url: String,
    subject: Option<String>,
    token: Option<String>,
    #[serde(rename = "SubscribeURL")]
    subscribe_url: Option<String>,
}

const FIELDS: [&str; 13] = [
    "Type",
    "MessageId",
    "TopicArn",
    "Message",
    "Timestamp",
    "Signature",
    "SignatureVersion",
    "SigningCertURL",
    "Subject",
    "Token",
    "SubscribeURL",
    "UnsubscribeURL",
    "MessageAttributes",
];

/// Everything but the certificate.
pub(super) fn read(delivery: &Delivery<'_>) -> Result<Unproven, Reason> {
    let form = Reason::Form("body");
    let message: Message = serde_json::from_slice(delivery.body).map_err(|_| form)?;
    let WellSpelt = serde_json::from_slice(delivery.body).map_err(|_| form)?;
    let version = match message.signature_version.as_str() {
        "1" => Version::Sha1,
        "2" => Version::Sha256,
        _ => return Err(Reason::Form("signature")),
    };
    let signature = STANDARD.decode(&message.signature).map_err(|_| Reason::Form("signature"))?;
    let certificate =
        CertificateUrl::of(&message.signing_cert_url).ok_or(Reason::Form("certificate's URL"))?;
    Ok(Unproven { certificate, signed: canonical(&message)?, signature, version, now: delivery.now })
}

/// An object of whose names none [is misspelt](is_misspelt). Keeps nothing of it: there may be many.
struct WellSpelt;

impl<'de> Deserialize<'de> for WellSpelt {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Self)
    }
}

impl<'de> Visitor<'de> for WellSpelt {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the fields of a message")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self, A::Error> {
        while let Some((name, IgnoredAny)) = map.next_entry::<Cow<'de, str>, IgnoredAny>()? {
            if is_misspelt(&name) {
                return Err(A::Error::custom("a field is misspelt"));
            }
        }
        Ok(self)
    }
}

/// A field that some readers would take for a signed one: those of Go do not mind the case of letters.
fn is_misspelt(name: &str) -> bool {
    FIELDS.iter().any(|field| *field != name && field.eq_ignore_ascii_case(name))
}

/// A line for each name and each value, sorted by name.
fn canonical(message: &Message) -> Result<String, Reason> {
    let body = Reason::Form("body");
    let some = |it: &Option<String>| it.clone().ok_or(body);
    let mut fields = vec![("Message", message.message.clone()), ("MessageId", message.message_id.clone())];
    match message.kind.as_str() {
        "Notification" => fields.extend(message.subject.clone().map(|it| ("Subject", it))),
        "SubscriptionConfirmation" | "UnsubscribeConfirmation" => {
            fields.push(("SubscribeURL", some(&message.subscribe_url)?));
        }
        _ => return Err(body),
    }
    fields.push(("Timestamp", message.timestamp.clone()));
    if message.kind != "Notification" {
        fields.push(("Token", some(&message.token)?));
    }
    fields.extend([("TopicArn", message.topic_arn.clone()), ("Type", message.kind.clone())]);
    Ok(fields.iter().map(|(name, value)| format!("{name}\n{value}\n")).collect())
}

impl Unproven {
    pub(super) fn check(&self, certificate: &Certificate) -> Result<(), Reason> {
        if !certificate.is_valid_at(self.now) {
            return Err(Reason::Form("certificate"));
        }
        let algorithm: &'static RsaParameters = match self.version {
            Version::Sha1 => &RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY,
            Version::Sha256 => &RSA_PKCS1_2048_8192_SHA256,
        };
        let key = UnparsedPublicKey::new(algorithm, &certificate.key);
        key.verify(self.signed.as_bytes(), &self.signature).map_err(|_| Reason::Mismatch)
    }
}

/// Where a certificate of SNS stands: always at Amazon's own hosts, since whoever names it could name his.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct CertificateUrl {
    host: String,
    path: String,
}

impl CertificateUrl {
    /// `https://sns.REGION.amazonaws.com/NAME.pem`, or the same below `amazonaws.com.cn`. No port, no user, no
    /// folder and no query: the same host answers other questions too.
    pub(super) fn of(url: &str) -> Option<Self> {
        let (host, name) = url.strip_prefix("https://")?.split_once('/')?;
        let region = host.strip_prefix("sns.")?;
        let region =
            region.strip_suffix(".amazonaws.com").or_else(|| region.strip_suffix(".amazonaws.com.cn"))?;
        let is_name = |it: u8| it.is_ascii_alphanumeric() || b"-_.".contains(&it);
        let fits = is_region(region)
            && name.len() <= MAX_NAME
            && name.bytes().all(is_name)
            && name.strip_suffix(".pem").is_some_and(|it| !it.is_empty());
        fits.then(|| Self { host: host.to_owned(), path: format!("/{name}") })
    }

    #[cfg(test)]
    pub(super) fn at(host: &str, path: &str) -> Self {
        Self { host: host.to_owned(), path: path.to_owned() }
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }
}

/// Such as `us-east-1` or `us-gov-west-1`, and not `s3` or `s3-us-west-2`: those hosts hold the files of whoever has
/// the bucket `sns`.
fn is_region(text: &str) -> bool {
    let Some((place, number)) = text.rsplit_once('-') else { return false };
    let words: Vec<_> = place.split('-').collect();
    let is_word = |it: &&str| (2..=10).contains(&it.len()) && it.bytes().all(|it| it.is_ascii_lowercase());
    (2..=4).contains(&words.len())
        && words.iter().all(is_word)
        && (1..=2).contains(&number.len())
        && number.bytes().all(|it| it.is_ascii_digit())
}

const MAX_NAME: usize = 128;

/// What is needed of a certificate.
#[derive(Clone, Debug)]
pub(super) struct Certificate {
    /// An `RSAPublicKey` in DER.
    key: Vec<u8>,
    /// Seconds since 1970.
    valid: std::ops::RangeInclusive<i64>,
}

impl Certificate {
    /// The first certificate of a PEM file.
    pub(super) fn of_pem(pem: &[u8]) -> Option<Self> {
        let (_, pem) = parse_x509_pem(pem).ok()?;
        let certificate = pem.parse_x509().ok()?;
        let validity = certificate.validity();
        let valid = validity.not_before.timestamp()..=validity.not_after.timestamp();
        Some(Self { key: certificate.public_key().subject_public_key.data.to_vec(), valid })
    }

    fn is_valid_at(&self, now: i64) -> bool {
        self.valid.contains(&now.div_euclid(1000))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_only_amazons() {
        for url in [
            "https://sns.us-east-1.amazonaws.com/SimpleNotificationService-0123abcd.pem",
            "https://sns.us-gov-west-1.amazonaws.com/SimpleNotificationService-0123abcd.pem",
            "https://sns.cn-north-1.amazonaws.com.cn/SimpleNotificationService-0123abcd.pem",
        ] {
            assert!(CertificateUrl::of(url).is_some(), "{url}");
        }
        for url in [
            "http://sns.us-east-1.amazonaws.com/a.pem",
            "https://sns.amazonaws.com/a.pem",
            "https://sns.s3.amazonaws.com/a.pem",
            "https://sns.s3-us-west-2.amazonaws.com/a.pem",
            "https://sns.s3-website-us-west-2.amazonaws.com/a.pem",
            "https://sns.elb.amazonaws.com/a.pem",
            "https://sns..amazonaws.com/a.pem",
            "https://sns.us-east-1.amazonaws.com.evil.test/a.pem",
            "https://evil.test/sns.us-east-1.amazonaws.com/a.pem",
            "https://sns.evil.test/.amazonaws.com/a.pem",
            "https://sns.evil.test#.amazonaws.com/a.pem",
            "https://sns.us-east-1.amazonaws.com:444/a.pem",
            "https://u@sns.us-east-1.amazonaws.com/a.pem",
            "https://sns.us-east-1.amazonaws.com/?Action=x&a.pem",
            "https://sns.us-east-1.amazonaws.com/x/../a.pem",
            "https://sns.us-east-1.amazonaws.com/.pem",
            "https://sns.us-east-1.amazonaws.com/a.pem?x",
            "https://bucket.s3.amazonaws.com/a.pem",
        ] {
            assert!(CertificateUrl::of(url).is_none(), "{url}");
        }
    }

    #[test]
    fn a_field_that_differs_in_case_only_is_misspelt() {
        assert!(is_misspelt("message") && is_misspelt("SigningCertUrl"));
        assert!(!is_misspelt("Message") && !is_misspelt("Extra"));
    }
}
