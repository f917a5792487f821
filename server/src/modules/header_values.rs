//! Values of headers with `${…}` in them, filled in (behaviour.md 3.16).
//!
//! What a visitor or an upstream sent goes in without its control characters, so that no value can end its line.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use hithe_cli_parser::{HeaderRule, Objection, Part, Template, Variable};
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST, LOCATION, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, Version};
use ring::rand::SecureRandom as _;

use super::{BuildError, Visit};
use crate::body::Body;

/// The rules of one module, ready for use.
pub(super) struct Rules {
    remove: Vec<HeaderName>,
    add: Vec<(HeaderName, Value)>,
}

enum Value {
    Constant(HeaderValue),
    Template(Template),
}

impl Rules {
    pub(super) fn new(add: &[HeaderRule], remove: &[String]) -> Result<Self, BuildError> {
        let name = |text: &str| text.parse::<HeaderName>().map_err(|_| not_a_header(text));
        let remove = remove.iter().map(|it| name(it)).collect::<Result<_, _>>()?;
        let add = add.iter().map(|rule| {
            let value = match rule.value.constant() {
                Some(text) => Value::Constant(
                    HeaderValue::from_bytes(text.as_bytes()).map_err(|_| not_a_header(&rule.name))?,
                ),
                None => Value::Template(rule.value.clone()),
            };
            Ok((name(&rule.name)?, value))
        });
        Ok(Self { remove, add: add.collect::<Result<_, Objection>>()? })
    }

    /// Whether a value shows something of the request.
    pub(super) fn shows_request(&self) -> bool {
        self.add.iter().any(|(_, value)| match value {
            Value::Template(template) => template.variables().any(is_of_request),
            Value::Constant(_) => false,
        })
    }

    pub(super) fn adds(&self, name: &HeaderName) -> bool {
        self.add.iter().any(|(added, _)| added == name)
    }

    /// What is to be added, filled in with what is known before anything changes.
    pub(super) fn fill(&self, facts: &Facts<'_>) -> Vec<(HeaderName, HeaderValue)> {
        let fill = |(name, value): &(HeaderName, Value)| match value {
            Value::Constant(value) => (name.clone(), value.clone()),
            Value::Template(template) => (name.clone(), facts.fill(template)),
        };
        self.add.iter().map(fill).collect()
    }

    /// Removes, and then adds; `host` is replaced.
    pub(super) fn apply(&self, headers: &mut HeaderMap, filled: Vec<(HeaderName, HeaderValue)>) {
        for name in &self.remove {
            if *name != HOST {
                headers.remove(name);
            }
        }
        for (name, value) in filled {
            if name == HOST {
                headers.insert(name, value);
            } else {
                headers.append(name, value);
            }
        }
    }
}

fn not_a_header(name: &str) -> Objection {
    Objection::new(hithe_cli_parser::Code::HEADER_NAME, format!("{name} cannot be a header with this value"))
}

/// What a request was, as its visitor sent it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asked {
    method: Method,
    uri: Uri,
    version: Version,
    host: Option<HeaderValue>,
    user_agent: Option<HeaderValue>,
    content_type: Option<HeaderValue>,
    content_length: Option<HeaderValue>,
    authorization: Option<HeaderValue>,
}

impl Asked {
    pub(super) fn of(request: &Request<Body>) -> Self {
        let header = |name| request.headers().get(name).cloned();
        Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: request.version(),
            host: header(HOST),
            user_agent: header(USER_AGENT),
            content_type: header(CONTENT_TYPE),
            content_length: header(CONTENT_LENGTH),
            authorization: header(AUTHORIZATION),
        }
    }
}

/// What values can be filled in with.
pub(super) struct Facts<'a> {
    pub(super) visit: &'a Visit,
    pub(super) asked: Option<&'a Asked>,
    pub(super) response: Option<&'a Response<Body>>,
}

impl Facts<'_> {
    fn fill(&self, template: &Template) -> HeaderValue {
        let mut text = String::new();
        for part in template.parts() {
            match part {
                Part::Text(part) => text.push_str(part),
                Part::Variable(variable) => text.push_str(&self.value(*variable).unwrap_or_default()),
            }
        }
        line(&text)
    }

    fn value(&self, variable: Variable) -> Option<Cow<'_, str>> {
        let visit = self.visit;
        let said = |headers: &HeaderMap, name| headers.get(name).map(|it| Cow::Owned(lossy(it).into_owned()));
        match variable {
            Variable::ClientIp => Some(visit.visitor.ip().to_string().into()),
            Variable::ClientPort => Some(visit.visitor.socket_addr().port().to_string().into()),
            Variable::EndpointUrl => Some(Cow::Borrowed(&*visit.url)),
            Variable::EndpointHost => Some(self.endpoint().0.into()),
            Variable::EndpointPort => Some(self.endpoint().1.into()),
            Variable::EndpointProtocol => Some(visit.scheme().into()),
            Variable::RequestId => Some(request_id().into()),
            Variable::Now => Some(now().into()),
            Variable::Method => Some(self.asked?.method.as_str().into()),
            Variable::Host => lossy_of(self.asked?.host.as_ref()),
            Variable::Url => {
                let asked = self.asked?;
                let host = lossy_of(asked.host.as_ref()).unwrap_or_default();
                Some(format!("{}://{host}{}", visit.scheme(), asked.uri).into())
            }
            Variable::Path => Some(self.asked?.uri.path().into()),
            Variable::Query => self.asked?.uri.query().map(Cow::Borrowed),
            Variable::HttpVersion => Some(format!("{:?}", self.asked?.version).into()),
            Variable::UserAgent => lossy_of(self.asked?.user_agent.as_ref()),
            Variable::ContentType => lossy_of(self.asked?.content_type.as_ref()),
            Variable::ContentLength => lossy_of(self.asked?.content_length.as_ref()),
            Variable::UserName => {
                visit.passed.basic_auth.then(|| user_name(self.asked?)).flatten().map(Cow::Owned)
            }
            Variable::BasicAuth => visit.passed.basic_auth.then_some("allow".into()),
            Variable::IpPolicy => visit.passed.ip_restriction.then_some("allow".into()),
            Variable::Breaker => visit.passed.breaker.map(Cow::Borrowed),
            Variable::Webhook => visit.passed.webhook.then_some("allow".into()),
            Variable::Compression => visit.passed.compression.map(Cow::Borrowed),
            Variable::Status => Some(self.response?.status().as_str().to_owned().into()),
            Variable::ResponseType => said(self.response?.headers(), CONTENT_TYPE),
            Variable::ResponseLength => said(self.response?.headers(), CONTENT_LENGTH),
            Variable::Location => said(self.response?.headers(), LOCATION),
            Variable::TlsVersion | Variable::TlsCipher | Variable::TlsSni | Variable::TlsAlpn => {
                visit.tls.as_ref()?.value(variable)
            }
            Variable::Unknown => None,
        }
    }

    /// Host and port of the endpoint's URL.
    fn endpoint(&self) -> (String, String) {
        let authority = self.visit.url.split("://").nth(1).unwrap_or_default();
        let usual = if self.visit.is_secure() { "443" } else { "80" };
        let (host, port) = authority.split_once(':').unwrap_or((authority, usual));
        (host.to_owned(), port.to_owned())
    }
}

fn is_of_request(variable: Variable) -> bool {
    matches!(
        variable,
        Variable::Method
            | Variable::Host
            | Variable::Url
            | Variable::Path
            | Variable::Query
            | Variable::HttpVersion
            | Variable::UserAgent
            | Variable::ContentType
            | Variable::ContentLength
            | Variable::UserName
    )
}

fn lossy_of(value: Option<&HeaderValue>) -> Option<Cow<'_, str>> {
    value.map(lossy)
}

fn lossy(value: &HeaderValue) -> Cow<'_, str> {
    String::from_utf8_lossy(value.as_bytes())
}

/// Basic auth has let it pass, so it is one of the configured ones.
fn user_name(asked: &Asked) -> Option<String> {
    let (_, encoded) = asked.authorization.as_ref()?.as_bytes().split_at_checked("basic ".len())?;
    let unpadded = encoded.trim_ascii().split(|&byte| byte == b'=').next()?;
    let pair = STANDARD_NO_PAD.decode(unpadded).ok()?;
    let pair = String::from_utf8(pair).ok()?;
    pair.split_once(':').map(|(user, _)| user.to_owned())
}

/// 128 random bits. Without randomness there is no number, and so no lie.
fn request_id() -> String {
    let mut bytes = [0; 16];
    if ring::rand::SystemRandom::new().fill(&mut bytes).is_err() {
        return String::new();
    }
    bytes.iter().fold(String::with_capacity(32), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn now() -> String {
    let now = time::OffsetDateTime::from(SystemTime::now());
    now.format(&time::format_description::well_known::Rfc3339).unwrap_or_default()
}

/// Text as the value of one header line, cut where it is too long.
pub(super) fn line(text: &str) -> HeaderValue {
    let mut line: String = text.chars().filter(|c| !c.is_control() || *c == '\t').collect();
    let mut end = line.len().min(MAX_VALUE);
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    line.truncate(end);
    HeaderValue::try_from(line.trim()).unwrap_or(HeaderValue::from_static(""))
}

/// Bytes of a value that was filled in.
const MAX_VALUE: usize = 8 << 10;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_user_name_is_that_of_the_pair() {
        let of = |value: &str| {
            user_name(&Asked { authorization: Some(value.parse().unwrap()), ..Asked::default() })
        };
        assert_eq!(of("Basic YWRhOmNvcnJlY3QtaG9yc2U=").as_deref(), Some("ada"));
        assert_eq!(of("basic YWRhOmNvcnJlY3QtaG9yc2U").as_deref(), Some("ada"));
        assert_eq!(of("Bearer x"), None);
    }

    proptest! {
        #[test]
        fn a_value_is_always_one_line(text in "(\\PC|\r|\n|\0|\x7f|\t|é){0,200}") {
            let value = line(&text);
            prop_assert!(value.as_bytes().iter().all(|&byte| byte == b'\t' || (byte >= 0x20 && byte != 0x7f)));
        }
    }

    #[test]
    fn a_long_value_is_cut_within_no_letter() {
        assert_eq!(line(&"é".repeat(10_000)).len(), MAX_VALUE);
        assert_eq!(line(&format!("a{}", "é".repeat(10_000))).len(), MAX_VALUE - 1);
    }
}
