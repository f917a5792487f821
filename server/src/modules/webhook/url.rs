//! The providers that sign the URL together with something of the request.

use std::collections::BTreeSet;

use hithe_cli_parser::Provider;
use http::Method;
use ring::digest;

use super::delivery::{Delivery, Reason};
use super::form::{self, Pair};
use super::key::{Digest, Encoding, Expected, Key, hex};

type Outcome = Result<(), Reason>;

/// Base64 HMAC-SHA1 of the URL with the parameters of the form behind it, sorted; a body that is no form has its
/// SHA-256 in the query: <https://www.twilio.com/docs/usage/webhooks/webhooks-security>.
pub(super) fn twilio(key: &Key, delivery: &Delivery<'_>) -> Outcome {
    let signature = delivery.header("x-twilio-signature")?;
    let mut form = Vec::new();
    match delivery.query("bodySHA256") {
        Some(hash) => {
            let body = digest::digest(&digest::SHA256, delivery.body);
            Expected::of(body.as_ref(), Encoding::Hex).check(&hash)?;
        }
        None if delivery.body.is_empty() => {}
        None if form::is_form(delivery.headers) => form = sorted_form(delivery.body, true)?,
        // What is neither would not be signed at all.
        None => return Err(Reason::Form("body")),
    }
    let parts = std::iter::once(delivery.url.as_bytes()).chain(flat(&form));
    key.expect(Digest::Sha1, Encoding::Base64, &parts.collect::<Vec<_>>()).check(signature)
}

/// Tries `check` with the URL as it was asked for, and as a publisher may have given it to the provider: without the
/// slash of an empty path and, for Twilio, with or without its port, which it writes or leaves out as it likes.
pub(super) fn any(delivery: &Delivery<'_>, ports: bool, check: impl Fn(&Delivery<'_>) -> Outcome) -> Outcome {
    let mut refused = check(delivery);
    for url in variants(delivery.url, ports) {
        if refused != Err(Reason::Mismatch) {
            break;
        }
        refused = check(&Delivery { url: &url, ..*delivery });
    }
    refused
}

fn variants(url: &str, ports: bool) -> Vec<String> {
    let Some(Url { scheme, authority, path, query }) = Url::of(url) else { return Vec::new() };
    let port = match authority.rsplit_once(':').filter(|(_, port)| port.bytes().all(|it| it.is_ascii_digit()))
    {
        Some((host, _)) => host.to_owned(),
        None => format!("{authority}:{}", if scheme == "https" { 443 } else { 80 }),
    };
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    let bare = (path == "/").then_some("");
    let mut variants: Vec<_> = bare.iter().map(|it| format!("{scheme}://{authority}{it}{query}")).collect();
    if ports {
        let paths = std::iter::once(path).chain(bare);
        variants.extend(paths.map(|path| format!("{scheme}://{port}{path}{query}")));
    }
    variants
}

/// Base64 HMAC-SHA1 of the URL with the parameters of the form behind it, sorted:
/// <https://mailchimp.com/developer/transactional/guides/track-respond-activity-webhooks/>.
pub(super) fn mailchimp(key: &Key, delivery: &Delivery<'_>) -> Outcome {
    let signature = delivery.header("x-mandrill-signature")?;
    if !delivery.body.is_empty() && !form::is_form(delivery.headers) {
        return Err(Reason::Form("body"));
    }
    let form = sorted_form(delivery.body, false)?;
    let signed: Vec<_> = std::iter::once(delivery.url.as_bytes()).chain(flat(&form)).collect();
    key.expect(Digest::Sha1, Encoding::Base64, &signed).check(signature)
}

/// V3: base64 HMAC-SHA256 of the URL, its parameters sorted, those of the form behind them, and a nonce; V2: of the
/// URL without its query and the nonce. Sources: <https://www.plivo.com/docs/voice/concepts/signature-validation>
/// and the official libraries. Several signatures are separated by commas; `MA` is the main account's.
pub(super) fn plivo(key: &Key, delivery: &Delivery<'_>) -> Outcome {
    const V3: [&str; 2] = ["x-plivo-signature-v3", "x-plivo-signature-ma-v3"];
    const V2: [&str; 2] = ["x-plivo-signature-v2", "x-plivo-signature-ma-v2"];
    let url = Url::of(delivery.url).ok_or(Reason::Form("URL"))?;
    if V3.into_iter().any(|name| delivery.has(name)) {
        let nonce = delivery.header("x-plivo-signature-v3-nonce")?;
        let signed = plivo_v3(&url, delivery)?;
        let expected = key.expect(Digest::Sha256, Encoding::Base64, &[&signed, b".", nonce.as_bytes()]);
        return plivo_check(&expected, V3, delivery);
    }
    if !V2.into_iter().any(|name| delivery.has(name)) {
        return Err(Reason::Missing("x-plivo-signature-v3"));
    }
    let nonce = delivery.header("x-plivo-signature-v2-nonce")?;
    let base = url.base();
    let expected = key.expect(Digest::Sha256, Encoding::Base64, &[base.as_bytes(), nonce.as_bytes()]);
    plivo_check(&expected, V2, delivery)
}

fn plivo_check(expected: &Expected, names: [&'static str; 2], delivery: &Delivery<'_>) -> Outcome {
    let values = names.into_iter().filter_map(|name| delivery.header(name).ok());
    let matches = values.flat_map(|value| value.split(',')).any(|it| expected.is(it.trim()));
    if matches { Ok(()) } else { Err(Reason::Mismatch) }
}

fn plivo_v3(url: &Url<'_>, delivery: &Delivery<'_>) -> Result<Vec<u8>, Reason> {
    let mut query = form::pairs(url.query.unwrap_or_default().as_bytes()).ok_or(Reason::Form("URL"))?;
    query.sort();
    let mut form = Vec::new();
    if !delivery.body.is_empty() {
        if *delivery.method != Method::POST || !form::is_form(delivery.headers) {
            return Err(Reason::Form("body"));
        }
        form = sorted_form(delivery.body, false)?;
    }
    let mut signed = url.base().into_bytes();
    if !query.is_empty() || !form.is_empty() {
        signed.push(b'?');
    }
    for (index, (name, value)) in query.iter().enumerate() {
        if index > 0 {
            signed.push(b'&');
        }
        signed.extend_from_slice(name);
        signed.push(b'=');
        signed.extend_from_slice(value);
    }
    if !query.is_empty() && !form.is_empty() {
        signed.push(b'.');
    }
    flat(&form).into_iter().for_each(|part| signed.extend_from_slice(part));
    Ok(signed)
}

/// V3: base64 HMAC-SHA256 of method, URL, body and a time; V2 and V1: SHA-256 behind the secret, without a time.
/// Source: <https://developers.hubspot.com/docs/api/webhooks/validating-requests>.
pub(super) fn hubspot(key: &Key, delivery: &Delivery<'_>) -> Outcome {
    // The newest that is there decides: an older one beside it has no time.
    if delivery.has("x-hubspot-signature-v3") {
        return hubspot_v3(key, delivery);
    }
    let signature = delivery.header("x-hubspot-signature")?;
    let mut hash = digest::Context::new(&digest::SHA256);
    hash.update(key.bytes());
    match delivery.header("x-hubspot-signature-version")? {
        "v1" => {}
        "v2" => {
            hash.update(delivery.method.as_str().as_bytes());
            hash.update(delivery.url.as_bytes());
        }
        _ => return Err(Reason::Form("signature")),
    }
    hash.update(delivery.body);
    Expected::of(hash.finish().as_ref(), Encoding::Hex).check(signature)
}

fn hubspot_v3(key: &Key, delivery: &Delivery<'_>) -> Outcome {
    let signature = delivery.header("x-hubspot-signature-v3")?;
    let time = delivery.header("x-hubspot-request-timestamp")?;
    delivery.check_time(time, Provider::Hubspot.tolerance())?;
    let method = delivery.method.as_str().as_bytes();
    let matches = [hubspot_decoded(delivery.url), delivery.url.to_owned()].iter().any(|url| {
        let signed = [method, url.as_bytes(), delivery.body, time.as_bytes()];
        key.expect(Digest::Sha256, Encoding::Base64, &signed).is(signature)
    });
    if matches { Ok(()) } else { Err(Reason::Mismatch) }
}

/// HubSpot signs the URL with these escapes undone, and no others.
fn hubspot_decoded(url: &str) -> String {
    const ESCAPES: [(&str, &str); 12] = [
        ("%3A", ":"),
        ("%2F", "/"),
        ("%3F", "?"),
        ("%40", "@"),
        ("%21", "!"),
        ("%24", "$"),
        ("%27", "'"),
        ("%28", "("),
        ("%29", ")"),
        ("%2A", "*"),
        ("%2C", ","),
        ("%3B", ";"),
    ];
    ESCAPES.iter().fold(url.to_owned(), |url, (escape, letter)| {
        url.replace(escape, letter).replace(&escape.to_ascii_lowercase(), letter)
    })
}

/// Hexadecimal HMAC-SHA256 of method, path, the headers that are named, and the body, a line each. Sources:
/// <https://www.contentful.com/developers/docs/webhooks/request-verification/> and the official library.
pub(super) fn contentful(key: &Key, delivery: &Delivery<'_>) -> Outcome {
    const NAMES: &str = "x-contentful-signed-headers";
    const TIME: &str = "x-contentful-timestamp";
    let signature = delivery.header("x-contentful-signature")?;
    let named = delivery.header(NAMES)?;
    let time = delivery.header(TIME)?;
    delivery.check_time(time, Provider::Contentful.tolerance())?;
    let mut names: BTreeSet<String> = named.split(',').map(|it| it.trim().to_ascii_lowercase()).collect();
    names.retain(|name| delivery.headers.contains_key(name));
    names.extend([NAMES.to_owned(), TIME.to_owned()]);
    let list = names.iter().map(String::as_str).collect::<Vec<_>>().join(",");
    let mut headers = Vec::with_capacity(names.len());
    for name in &names {
        let mut values = delivery.headers.get_all(name).iter();
        let value = match (values.next(), values.next()) {
            _ if name == NAMES => list.as_str(),
            (Some(value), None) => value.to_str().map_err(|_| Reason::Form("headers"))?.trim(),
            _ => return Err(Reason::Form("headers")),
        };
        headers.push(format!("{name}:{value}"));
    }
    let url = Url::of(delivery.url).ok_or(Reason::Form("URL"))?;
    let head = |path: &str| format!("{}\n{path}\n{}\n", delivery.method, headers.join(";"));
    // As its library writes the path, and as it is.
    let matches = [contentful_path(&url), url.target()].iter().any(|path| {
        let head = head(path);
        let signed = [head.as_bytes(), delivery.body];
        key.expect(Digest::Sha256, Encoding::Hex, &signed).is(signature)
    });
    if matches { Ok(()) } else { Err(Reason::Mismatch) }
}

/// `encodeURI` of the path, and of the query that went through `querystring.escape` before.
fn contentful_path(url: &Url<'_>) -> String {
    let path = escape(url.path, URI);
    match url.query.filter(|it| !it.is_empty()) {
        Some(query) => format!("{path}?{}", escape(&escape(query, COMPONENT), URI)),
        None => path,
    }
}

/// What `encodeURI` and `querystring.escape` leave as it is, beside letters and digits.
const URI: &[u8] = b";,/?:@&=+$-_.!~*'()#";
const COMPONENT: &[u8] = b"-_.!~*'()";

fn escape(text: &str, kept: &[u8]) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || kept.contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push('%');
            escaped.push_str(&hex(&[byte]).to_ascii_uppercase());
        }
    }
    escaped
}

/// A URL in its parts.
struct Url<'a> {
    scheme: &'a str,
    authority: &'a str,
    path: &'a str,
    query: Option<&'a str>,
}

impl<'a> Url<'a> {
    fn of(url: &'a str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        Some(Self { scheme, authority, path, query })
    }

    /// Without the query.
    fn base(&self) -> String {
        format!("{}://{}{}", self.scheme, self.authority, self.path)
    }

    /// Path and query.
    fn target(&self) -> String {
        self.query.map_or_else(|| self.path.to_owned(), |query| format!("{}?{query}", self.path))
    }
}

/// By name and, among equals, by value.
fn sorted_form(body: &[u8], once: bool) -> Result<Vec<Pair>, Reason> {
    let mut pairs = form::pairs(body).ok_or(Reason::Form("body"))?;
    pairs.sort();
    if once {
        pairs.dedup();
    }
    Ok(pairs)
}

/// Names and values one behind the other.
fn flat(pairs: &[Pair]) -> Vec<&[u8]> {
    pairs.iter().flat_map(|(name, value)| [name.as_slice(), value.as_slice()]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart_and_put_together() {
        let url = Url::of("https://a.test:8443/x/y?b=1?&c").unwrap();
        assert_eq!((url.base().as_str(), url.target().as_str()), ("https://a.test:8443/x/y", "/x/y?b=1?&c"));
        assert_eq!(Url::of("https://a.test").unwrap().base(), "https://a.test");
    }

    #[test]
    fn a_publisher_may_have_written_the_url_otherwise() {
        assert_eq!(variants("https://a.test/x?y", true), ["https://a.test:443/x?y"]);
        assert_eq!(variants("http://a.test:81/x", true), ["http://a.test/x"]);
        assert_eq!(variants("https://a.test/x", false), [""; 0]);
        assert_eq!(variants("https://a.test/?y", false), ["https://a.test?y"]);
        let both = ["https://a.test", "https://a.test:443/", "https://a.test:443"];
        assert_eq!(variants("https://a.test/", true), both);
    }

    #[test]
    fn some_escapes_are_undone_and_some_done_twice() {
        assert_eq!(
            hubspot_decoded("https://a.test/%3a%2F?x=%40%20%2Bb%25"),
            "https://a.test/:/?x=@%20%2Bb%25"
        );
        let url = Url::of("https://a.test/a b?x=1&y").unwrap();
        assert_eq!(contentful_path(&url), "/a%20b?x%253D1%2526y");
    }
}
