//! Values with `${…}` in them: what a visit is like, put into a header (behaviour.md 3.16).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Code, Objection};

/// Text and variables in turn. `$${` is a plain `${`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Template {
    source: String,
    parts: Vec<Part>,
}

/// A part of a [`Template`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    Text(String),
    Variable(Variable),
}

impl Template {
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    pub fn as_str(&self) -> &str {
        &self.source
    }

    /// The value, where it holds no variable.
    pub fn constant(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [] => Some(""),
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    pub fn variables(&self) -> impl Iterator<Item = Variable> {
        self.parts.iter().filter_map(|part| match part {
            Part::Variable(variable) => Some(*variable),
            Part::Text(_) => None,
        })
    }
}

impl FromStr for Template {
    type Err = Objection;

    fn from_str(source: &str) -> Result<Self, Objection> {
        let mut parts = Vec::new();
        let mut text = String::new();
        let mut rest = source;
        while let Some((before, behind)) = rest.split_once("${") {
            if let Some(escaped) = before.strip_suffix('$') {
                text.push_str(escaped);
                text.push_str("${");
                rest = behind;
                continue;
            }
            text.push_str(before);
            let (name, behind) = behind.split_once('}').ok_or_else(|| {
                Objection::new(Code::BAD_FLAG, "a ${ has no } behind it; a plain ${ is written $${")
            })?;
            if !text.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut text)));
            }
            parts.push(Part::Variable(variable(name.trim())?));
            rest = behind;
        }
        text.push_str(rest);
        if !text.is_empty() {
            parts.push(Part::Text(text));
        }
        if parts.len() > MAX_PARTS {
            return Err(Objection::new(Code::BAD_FLAG, "a value holds too many variables"));
        }
        Ok(Self { source: source.to_owned(), parts })
    }
}

impl TryFrom<String> for Template {
    type Error = Objection;

    fn try_from(text: String) -> Result<Self, Objection> {
        text.parse()
    }
}

impl From<Template> for String {
    fn from(template: Template) -> Self {
        template.source
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)
    }
}

/// A name that is nearly a known one is a slip; any other that is not known stays empty, as one of a module that the
/// endpoint has not.
fn variable(name: &str) -> Result<Variable, Objection> {
    if let Some((_, variable, _)) = VARIABLES.iter().find(|(names, ..)| names.contains(&name)) {
        return Ok(*variable);
    }
    let names = VARIABLES.iter().flat_map(|(names, ..)| names.iter());
    let scored = names.map(|known| (strsim::normalized_damerau_levenshtein(name, known), known));
    match scored.filter(|(score, _)| *score >= NEARLY).max_by(|a, b| a.0.total_cmp(&b.0)) {
        Some((_, near)) => {
            let shown: String = name.chars().take(64).collect();
            let message =
                format!("${{{}}} is not known: did you mean ${{{near}}}?", crate::printable(&shown));
            Err(Objection::new(Code::BAD_FLAG, message))
        }
        None => Ok(Variable::Unknown),
    }
}

const NEARLY: f64 = 0.85;
const MAX_PARTS: usize = 64;

macro_rules! variables {
    ($($Variable:ident: [$($name:literal),*] = $meaning:literal;)*) => {
        /// What can stand between `${` and `}`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Variable {
            $(#[doc = $meaning] $Variable,)*
            /// Stays empty.
            Unknown,
        }

        const VARIABLES: &[(&[&str], Variable, &str)] =
            &[$((&[$($name),*], Variable::$Variable, $meaning)),*];
    };
}

variables! {
    ClientIp: ["conn.client_ip", ".ngrok.client_ip", ".hithe.client_ip"] = "the visitor's address";
    ClientPort: ["conn.client_port"] = "the visitor's port";
    ServerIp: ["conn.server_ip"] = "the address of the server that the visitor connected to";
    ServerPort: ["conn.server_port"] = "its port";
    ConnectedAt: ["conn.ts.start"] = "when the visitor connected (RFC 3339, UTC)";
    TlsVersion: ["conn.tls.version"] = "the TLS version of the visitor's connection, such as `1.3`";
    TlsCipher: ["conn.tls.cipher_suite"] = "its cipher suite";
    TlsSni: ["conn.tls.sni"] = "the server name that the visitor sent in its handshake";
    TlsAlpn: ["conn.tls.negotiated_alpn"] = "`h2` or `http/1.1`";
    EndpointUrl: ["endpoint.url"] = "the URL of the endpoint";
    EndpointHost: ["endpoint.host"] = "its host name";
    EndpointPort: ["endpoint.port"] = "its port";
    EndpointAddress: ["endpoint.addr"] = "its host name and port";
    EndpointProtocol: ["endpoint.protocol"] = "`http` or `https`";
    RequestId: [".ngrok.request_id", ".hithe.request_id", "req.id"] = "a random number, the same wherever it is shown for one request";
    Method: ["req.method"] = "the method";
    Host: ["req.host", "req.url.authority"] = "the host that the visitor asked for, with a port if it said one";
    Url: ["req.url", "req.url.raw"] = "the whole URL";
    UrlScheme: ["req.url.scheme"] = "its scheme, `http` or `https`";
    UrlHost: ["req.url.host"] = "its host, without a port";
    UrlPort: ["req.url.port"] = "its port, the usual one if it says none";
    Path: ["req.url.path", "req.url.raw_path", "req.path"] = "its path, not decoded";
    Query: ["req.url.query", "req.query"] = "its query";
    PathAndQuery: ["req.url.uri"] = "its path and its query";
    HttpVersion: ["req.version"] = "the HTTP version that the visitor spoke, such as `HTTP/1.1`";
    UserAgent: ["req.user_agent", "req.user_agent.raw"] = "the header User-Agent";
    ContentType: ["req.content_type", "req.content_type.raw"] = "the header Content-Type of the request";
    ContentLength: ["req.content_length"] = "the header Content-Length of the request";
    ContentEncoding: ["req.content_encoding"] = "the header Content-Encoding of the request";
    RequestLocation: ["req.location"] = "the header Location of the request";
    UserName: [".basic_auth.username"] = "the user name that basic auth admitted";
    BasicAuth: [".basic_auth.decision"] = "`allow`, where the endpoint has basic auth";
    IpPolicy: [".ip_policy.decision"] = "`allow`, where the endpoint has an IP restriction";
    Breaker: [".circuit_breaker.decision"] = "`allow` or `allow_while_open`, where it has a circuit breaker";
    Webhook: [".webhook_validation.decision"] = "`allow`, where it verifies webhooks";
    Status: ["res.status_code"] = "the status of the response";
    ResponseType: ["res.content_type", "res.content_type.raw"] = "the header Content-Type of the response";
    ResponseLength: ["res.content_length"] = "the header Content-Length of the response";
    ResponseEncoding: ["res.content_encoding"] = "the header Content-Encoding of the response";
    Location: ["res.location"] = "the header Location of the response";
    Compression: [".compression.algorithm"] = "the coding of a compressed response";
    Reused: [".backend.connection_reused"] = "`true` or `false`: whether an earlier request went over the connection to the upstream";
    DialDuration: [".backend.dial_duration"] = "how long a new one took, such as `12.3ms`";
    Now: ["time.now"] = "the time (RFC 3339, UTC)";
}

/// Names and meanings for the manual.
pub(crate) fn known() -> impl Iterator<Item = (&'static [&'static str], &'static str)> {
    VARIABLES.iter().map(|(names, _, meaning)| (*names, *meaning))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parts(text: &str) -> Vec<Part> {
        text.parse::<Template>().unwrap().parts
    }

    #[test]
    fn text_and_variables_come_in_turn() {
        let text = |text: &str| Part::Text(text.to_owned());
        assert_eq!(parts("plain"), [text("plain")]);
        assert_eq!(
            parts("a ${conn.client_ip} b${ .ngrok.client_ip }"),
            [text("a "), Part::Variable(Variable::ClientIp), text(" b"), Part::Variable(Variable::ClientIp)]
        );
        assert_eq!(parts("costs $5 or $${x}"), [text("costs $5 or ${x}")]);
        assert_eq!(parts("${conn.geo.country_code}"), [Part::Variable(Variable::Unknown)]);
    }

    #[test]
    fn what_is_documented_and_not_known_here_stays_empty() {
        for name in [
            "conn.geo.country_code",
            "conn.server_region",
            "conn.bytes_in",
            "conn.tls.session_resumed",
            "conn.tls.client.subject.common_name",
            "conn.tls.server.issuer",
            "endpoint.id",
            "req.cookies",
            "req.headers",
            "req.trailers",
            "req.ts.header_received",
            "req.url.query_params",
            "req.url.user_password",
            "req.user_agent.name",
            "req.user_agent.is_bot",
            "req.content_type.parameters",
            "res.content_type.parameters",
            "res.cookies",
            "res.trailers",
            ".backend.id",
            ".compression.bytes_saved",
            ".ip_policy.matching_rule",
            ".ngrok.saml.subject",
            ".oauth.app_client_id",
            ".oauth.decision",
            ".oauth.user.email",
        ] {
            assert_eq!(parts(&format!("${{{name}}}")), [Part::Variable(Variable::Unknown)], "{name}");
        }
    }

    #[test]
    fn a_slip_is_refused_with_what_was_meant() {
        let objection = "${conn.clientip}".parse::<Template>().unwrap_err();
        assert!(objection.message.contains("did you mean ${conn.client_ip}?"), "{objection}");
        assert!("${conn.client_ip".parse::<Template>().is_err());
    }

    proptest! {
        #[test]
        fn no_text_panics_and_what_is_read_is_written_again(text in "(\\PC|\\$|\\{|\\}|\\$\\{){0,40}") {
            if let Ok(template) = text.parse::<Template>() {
                prop_assert_eq!(template.as_str(), text.as_str());
            }
        }
    }
}
