//! Values of headers with `${…}` in them, filled in (behaviour.md 3.16).
//!
//! What a visitor or an upstream sent goes in without its control characters, so that no value can end its line.

mod line;

use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use hithe_cli_parser::{Code, HeaderRule, Objection, Part, Template, Variable};
use http::header::{
    AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, LOCATION, USER_AGENT,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, Version};
use ring::rand::SecureRandom as _;

use self::line::Line;
use super::host_rewrite::split_authority;
use super::{BuildError, Visit};
use crate::body::Body;

/// The rules of one module, ready for use.
pub(super) struct Rules {
    remove: Vec<HeaderName>,
    add: Vec<(HeaderName, Value)>,
}

/// What a rule adds.
pub(super) enum Value {
    Constant(HeaderValue),
    Template(Template),
}

impl Value {
    fn new(rule: &HeaderRule) -> Result<Self, Objection> {
        match rule.value.constant() {
            Some(text) => {
                let value = HeaderValue::from_bytes(text.as_bytes());
                Ok(Self::Constant(value.map_err(|_| not_a_header(&rule.name))?))
            }
            None => Ok(Self::Template(rule.value.clone())),
        }
    }

    pub(super) fn fill(&self, facts: &Facts<'_>) -> HeaderValue {
        match self {
            Self::Constant(value) => value.clone(),
            Self::Template(template) => facts.fill(template),
        }
    }

    pub(super) fn shows_request(&self) -> bool {
        match self {
            Self::Constant(_) => false,
            Self::Template(template) => template.variables().any(is_of_request),
        }
    }
}

/// Values that were filled in, in the order of their rules. Empty, and so not allocated, where there are only constants.
pub(super) struct Filled(Vec<HeaderValue>);

impl Rules {
    pub(super) fn new(add: &[HeaderRule], remove: &[String]) -> Result<Self, BuildError> {
        let name = |text: &str| text.parse::<HeaderName>().map_err(|_| not_a_header(text));
        let remove = remove.iter().map(|it| name(it)).collect::<Result<_, _>>()?;
        let add = add.iter().map(|rule| Ok((name(&rule.name)?, Value::new(rule)?)));
        Ok(Self { remove, add: add.collect::<Result<_, Objection>>()? })
    }

    /// Whether a value shows something of the request.
    pub(super) fn shows_request(&self) -> bool {
        self.add.iter().any(|(_, value)| value.shows_request())
    }

    /// Takes the rules of one name out, and gives the last of those that add it.
    pub(super) fn take(&mut self, name: &HeaderName) -> Option<Value> {
        self.remove.retain(|removed| removed != name);
        self.add.extract_if(.., |(added, _)| added == name).last().map(|(_, value)| value)
    }

    /// The values with variables, filled in with what is known before anything changes.
    pub(super) fn fill(&self, facts: &Facts<'_>) -> Filled {
        let templates = self.add.iter().filter_map(|(_, value)| match value {
            Value::Constant(_) => None,
            Value::Template(template) => Some(facts.fill(template)),
        });
        Filled(templates.collect())
    }

    /// Removes, and then adds.
    pub(super) fn apply(&self, headers: &mut HeaderMap, filled: Filled) {
        for name in &self.remove {
            headers.remove(name);
        }
        let mut filled = filled.0.into_iter();
        for (name, value) in &self.add {
            let value = match value {
                Value::Constant(value) => Some(value.clone()),
                Value::Template(_) => filled.next(),
            };
            headers.extend(value.map(|value| (name.clone(), value)));
        }
    }
}

fn not_a_header(name: &str) -> Objection {
    Objection::new(Code::HEADER_NAME, format!("{name} cannot be a header with this value"))
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
    content_encoding: Option<HeaderValue>,
    location: Option<HeaderValue>,
    authorization: Option<HeaderValue>,
}

impl Asked {
    pub(super) fn of(request: &Request<Body>, visit: &Visit) -> Self {
        let header = |name| request.headers().get(name).cloned();
        Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: request.version(),
            host: visit.rewritten.as_ref().map(|it| it.public().clone()).or_else(|| header(HOST)),
            user_agent: header(USER_AGENT),
            content_type: header(CONTENT_TYPE),
            content_length: header(CONTENT_LENGTH),
            content_encoding: header(CONTENT_ENCODING),
            location: header(LOCATION),
            authorization: header(AUTHORIZATION),
        }
    }

    /// Host and port of what was asked for; the port may be left out.
    fn authority(&self) -> (&str, &str) {
        split_authority(self.host.as_ref().and_then(|host| host.to_str().ok()).unwrap_or_default())
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
        let mut line = Line::default();
        for part in template.parts() {
            match part {
                // What a visitor sent may be long: it is not looked at for nothing.
                _ if line.is_full() => break,
                Part::Text(text) => line.push(text),
                Part::Variable(variable) => {
                    // One that is not known stays empty.
                    let _ = self.show(*variable, &mut line);
                }
            }
        }
        line.into_value()
    }

    fn show(&self, variable: Variable, line: &mut Line) -> Option<()> {
        let visit = self.visit;
        let server = visit.visitor.connected_to();
        match variable {
            Variable::ClientIp => line.show(visit.visitor.ip()),
            Variable::ClientPort => line.show(visit.visitor.socket_addr().port()),
            Variable::ServerIp if server.port() != 0 => line.show(server.ip()),
            Variable::ServerPort if server.port() != 0 => line.show(server.port()),
            Variable::ConnectedAt => line.show(timestamp(visit.visitor.since())?),
            Variable::TlsVersion | Variable::TlsCipher | Variable::TlsSni | Variable::TlsAlpn => {
                line.push(&visit.tls.as_ref()?.value(variable)?);
            }
            Variable::EndpointUrl => line.push(&visit.url),
            Variable::EndpointHost => line.push(self.endpoint().0),
            Variable::EndpointPort => line.push(self.endpoint().1),
            Variable::EndpointAddress => {
                let (host, port) = self.endpoint();
                line.show(format_args!("{host}:{port}"));
            }
            Variable::EndpointProtocol => line.push(visit.scheme()),
            Variable::RequestId => {
                line.show(format_args!("{:032x}", (*visit.request_id.get_or_init(request_id))?));
            }
            Variable::UserName if visit.passed.basic_auth => line.push(&user_name(self.asked?)?),
            Variable::BasicAuth if visit.passed.basic_auth => line.push("allow"),
            Variable::IpPolicy if visit.passed.ip_restriction => line.push("allow"),
            Variable::Webhook if visit.passed.webhook => line.push("allow"),
            Variable::Breaker => line.push(visit.passed.breaker?),
            Variable::Compression => line.push(visit.passed.compression?),
            Variable::Reused => line.show(visit.reached?.reused),
            Variable::DialDuration => {
                let reached = visit.reached.filter(|reached| !reached.reused)?;
                line.show(format_args!("{:.1}ms", reached.dialled.as_secs_f64() * 1000.0));
            }
            Variable::Now => line.show(timestamp(SystemTime::now())?),
            _ => self.show_request(variable, line).or_else(|| self.show_response(variable, line))?,
        }
        Some(())
    }

    fn show_request(&self, variable: Variable, line: &mut Line) -> Option<()> {
        let asked = self.asked?;
        match variable {
            Variable::Method => line.push(asked.method.as_str()),
            Variable::Host => line.header(asked.host.as_ref()?),
            Variable::Url => {
                line.show(format_args!("{}://", self.visit.scheme()));
                line.header(asked.host.as_ref()?);
                line.show(&asked.uri);
            }
            Variable::UrlScheme => line.push(self.visit.scheme()),
            Variable::UrlHost => line.push(asked.authority().0),
            Variable::UrlPort => line.push(self.port_or_usual(asked.authority().1)),
            Variable::Path => line.push(asked.uri.path()),
            Variable::Query => line.push(asked.uri.query()?),
            Variable::PathAndQuery => line.show(&asked.uri),
            Variable::HttpVersion => line.show(format_args!("{:?}", asked.version)),
            Variable::UserAgent => line.header(asked.user_agent.as_ref()?),
            Variable::ContentType => line.header(asked.content_type.as_ref()?),
            Variable::ContentLength => line.header(asked.content_length.as_ref()?),
            Variable::ContentEncoding => line.header(asked.content_encoding.as_ref()?),
            Variable::RequestLocation => line.header(asked.location.as_ref()?),
            _ => return None,
        }
        Some(())
    }

    fn show_response(&self, variable: Variable, line: &mut Line) -> Option<()> {
        let response = self.response?;
        let name = match variable {
            Variable::Status => {
                line.push(response.status().as_str());
                return Some(());
            }
            Variable::ResponseType => CONTENT_TYPE,
            Variable::ResponseLength => CONTENT_LENGTH,
            Variable::ResponseEncoding => CONTENT_ENCODING,
            Variable::Location => LOCATION,
            _ => return None,
        };
        line.header(response.headers().get(name)?);
        Some(())
    }

    /// Host and port of the endpoint's URL.
    fn endpoint(&self) -> (&str, &str) {
        let authority = self.visit.url.split_once("://").map_or("", |(_, authority)| authority);
        let (host, port) = split_authority(authority);
        (host, self.port_or_usual(port))
    }

    fn port_or_usual<'a>(&self, port: &'a str) -> &'a str {
        match port {
            "" if self.visit.is_secure() => "443",
            "" => "80",
            port => port,
        }
    }
}

fn is_of_request(variable: Variable) -> bool {
    matches!(
        variable,
        Variable::Method
            | Variable::Host
            | Variable::Url
            | Variable::UrlScheme
            | Variable::UrlHost
            | Variable::UrlPort
            | Variable::Path
            | Variable::Query
            | Variable::PathAndQuery
            | Variable::HttpVersion
            | Variable::UserAgent
            | Variable::ContentType
            | Variable::ContentLength
            | Variable::ContentEncoding
            | Variable::RequestLocation
            | Variable::UserName
    )
}

/// Basic auth has let it pass, so it is one of the configured ones.
fn user_name(asked: &Asked) -> Option<String> {
    let (_, encoded) = asked.authorization.as_ref()?.as_bytes().split_at_checked("basic ".len())?;
    let unpadded = encoded.trim_ascii().split(|&byte| byte == b'=').next()?;
    let pair = STANDARD_NO_PAD.decode(unpadded).ok()?;
    let pair = String::from_utf8(pair).ok()?;
    pair.split_once(':').map(|(user, _)| user.to_owned())
}

/// Without randomness there is no number, and so no lie.
fn request_id() -> Option<u128> {
    let mut bytes = [0; 16];
    ring::rand::SystemRandom::new().fill(&mut bytes).ok()?;
    Some(u128::from_ne_bytes(bytes))
}

fn timestamp(time: SystemTime) -> Option<String> {
    time::OffsetDateTime::from(time).format(&time::format_description::well_known::Rfc3339).ok()
}

/// Text as the value of one header line, cut where it is too long.
#[cfg(test)]
pub(super) fn line(text: &str) -> HeaderValue {
    let mut line = Line::default();
    line.push(text);
    line.into_value()
}

#[cfg(test)]
mod tests;
