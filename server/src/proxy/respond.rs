//! What Hithe itself answers: the one table from a cause to its code, status, log level and text.

use std::borrow::Cow;
use std::time::Duration;

use hithe_cli_parser::{Code, printable};
use http::header::{
    ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION, REFERRER_POLICY,
    RETRY_AFTER, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};

use crate::body::{Body, ERROR_CODE};
use crate::limits::Overdrawn;
use crate::modules::Refusal;
use crate::tunnel::DialError;

/// Why a request was not answered by its upstream.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProxyError {
    #[error("the request is malformed: {0}")]
    BadRequest(&'static str),
    #[error("the head of the request is too large: {1}")]
    TooLarge(StatusCode, &'static str),
    #[error("{0} is not offered here")]
    Method(Method),
    #[error("no endpoint answers for {0}")]
    NoEndpoint(String),
    #[error("this name is not served on this connection")]
    Misdirected {
        /// The connection was made for this very name, whose endpoint is another one by now.
        outdated: bool,
    },
    #[error("refused by a module: {}", .0.text)]
    Module(Box<Refusal>),
    #[error("too many requests from one network")]
    TooMany {
        /// Until one more fits.
        wait: Duration,
    },
    #[error("the body of the request came too slowly")]
    SlowBody,
    #[error(transparent)]
    Overdrawn(#[from] Overdrawn),
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("the tunnel closed before the first byte of an answer")]
    Silent,
    /// The request is not one that may be sent twice.
    #[error("the publisher left before the first byte of an answer")]
    Left,
    #[error("the upstream did not answer with HTTP, or broke off")]
    Broken(#[source] hyper::Error),
    #[error("the upstream changed to a protocol that nobody asked for")]
    UnaskedUpgrade,
    #[error("the upstream used a transfer coding that nobody asked for")]
    ForeignCoding,
}

/// Told to the publisher's console when a tunnel closes before it said anything: what a SOCKS forward does.
pub(super) const NO_TARGET: &str = "the connection closed before the first byte of an answer: did you give -R a target, as in -R 443:localhost:80?";

/// One row of the table: what is seen of a cause.
struct Row {
    code: Code,
    status: StatusCode,
    side: Side,
    /// What happened, in one sentence.
    text: Cow<'static, str>,
    /// What can be done about it, and by whom.
    hint: &'static str,
}

/// Whose doing it is.
#[derive(Clone, Copy)]
enum Side {
    Visitor,
    Publisher,
    Upstream,
}

impl Side {
    fn name(self) -> &'static str {
        match self {
            Self::Visitor => "your request",
            Self::Publisher => "the publisher's side of the tunnel",
            Self::Upstream => "the service behind the tunnel",
        }
    }
}

impl Row {
    const fn of(code: Code, status: StatusCode, side: Side, text: &'static str, hint: &'static str) -> Self {
        Self { code, status, side, text: Cow::Borrowed(text), hint }
    }

    fn saying(self, text: String) -> Self {
        Self { text: Cow::Owned(text), ..self }
    }
}

impl ProxyError {
    /// The table: every cause stands here once, those of the tunnel in the next one.
    fn row(&self) -> Row {
        match self {
            Self::BadRequest(what) => Row::of(
                Code::BAD_REQUEST,
                StatusCode::BAD_REQUEST,
                Side::Visitor,
                "",
                "Check the client that sent it.",
            )
            .saying(format!("The request is malformed: {what}")),
            Self::TooLarge(status, what) => Row::of(
                Code::BAD_REQUEST,
                *status,
                Side::Visitor,
                "",
                "Check the client that sent it; in a browser, remove the cookies of this site.",
            )
            .saying(format!("The head of the request is too large: {what}")),
            Self::Method(_) => Row::of(
                Code::BAD_REQUEST,
                StatusCode::METHOD_NOT_ALLOWED,
                Side::Visitor,
                "This server is not a forward proxy",
                "Send the request to the site itself, without a proxy setting.",
            ),
            Self::NoEndpoint(name) => Row::of(
                Code::ENDPOINT_OFFLINE,
                StatusCode::NOT_FOUND,
                Side::Publisher,
                "",
                "Check the address. If it is right, its publisher is not connected at the moment.",
            )
            .saying(format!("Nothing is published at {}", printable(name))),
            Self::Misdirected { .. } => Row::of(
                Code::MISDIRECTED,
                StatusCode::MISDIRECTED_REQUEST,
                Side::Visitor,
                "This name is served on a connection of its own",
                "Open a new connection with this name in its TLS handshake.",
            ),
            Self::TooMany { .. } | Self::SlowBody => self.row_of_visitor(),
            Self::Module(refusal) => {
                Row::of(refusal.code, refusal.status, Side::Visitor, refusal.text, refusal.hint)
            }
            Self::Overdrawn(overdrawn) => row_of_overdrawn(*overdrawn),
            Self::Dial(error) => row_of_dial(*error),
            Self::Silent | Self::Left | Self::Broken(_) | Self::UnaskedUpgrade | Self::ForeignCoding => {
                self.row_of_no_answer()
            }
        }
    }

    /// Of an upstream that was reached and did not answer as it should.
    fn row_of_no_answer(&self) -> Row {
        match self {
            Self::Silent => Row::of(
                Code::UPSTREAM_BROKE,
                StatusCode::BAD_GATEWAY,
                Side::Upstream,
                "The service closed the connection before it answered",
                "Publisher: does the service speak HTTP there? With ssh: did you give -R a target, as in -R 443:localhost:80?",
            ),
            Self::Left => Row::of(
                Code::UPSTREAM_BROKE,
                StatusCode::BAD_GATEWAY,
                Side::Publisher,
                "The publisher disconnected while the service was answering",
                "Whether the service has done it is not known. Try again when the publisher is back.",
            ),
            _ => Row::of(
                Code::UPSTREAM_BROKE,
                StatusCode::BAD_GATEWAY,
                Side::Upstream,
                "The service did not answer with valid HTTP",
                "Publisher: check that the service speaks plain HTTP; for one with its own TLS use the command tls.",
            ),
        }
    }

    /// Of a visitor that wants too much, or too slowly.
    fn row_of_visitor(&self) -> Row {
        match self {
            Self::TooMany { .. } => Row::of(
                Code::VISITOR_REQUESTS,
                StatusCode::TOO_MANY_REQUESTS,
                Side::Visitor,
                "Too many requests come from your network",
                "Try again in a moment.",
            ),
            _ => Row::of(
                Code::SLOW_BODY,
                StatusCode::REQUEST_TIMEOUT,
                Side::Visitor,
                "The body of the request came too slowly",
                "Check your connection and send it again.",
            ),
        }
    }

    pub(crate) fn code(&self) -> Code {
        self.row().code
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.row().status
    }

    /// The answer to a visitor.
    pub(crate) fn answer(&self, form: Form) -> Response<Body> {
        let row = self.row();
        self.log(&row);
        let mut response = Response::new(Body::full(form.render(&row)));
        *response.status_mut() = row.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(form.content_type()));
        insert_fixed(headers);
        if let Ok(code) = HeaderValue::try_from(row.code.to_string()) {
            headers.insert(ERROR_CODE, code);
        }
        match self {
            Self::Module(refusal) => headers.extend(refusal.header.clone()),
            Self::Method(_) => {
                headers
                    .insert(ALLOW, HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"));
            }
            Self::TooMany { wait } => {
                headers.insert(RETRY_AFTER, HeaderValue::from(wait.as_secs() + 1));
            }
            Self::Dial(DialError::Busy) | Self::Overdrawn(Overdrawn::Visits) => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
            }
            _ => {}
        }
        response
    }

    /// Every cause in the table is the doing of somebody else, and so of interest only when one looks for it.
    fn log(&self, row: &Row) {
        if !tracing::enabled!(tracing::Level::DEBUG) {
            return;
        }
        let cause = std::error::Error::source(self).map(|cause| printable(&cause.to_string()).into_owned());
        let what = self.to_string();
        tracing::debug!(
            code = %row.code,
            status = row.status.as_u16(),
            side = row.side.name(),
            cause,
            "a request was not answered by its upstream: {}",
            printable(&what)
        );
    }
}

/// Of a publisher's account that may have no more.
fn row_of_overdrawn(overdrawn: Overdrawn) -> Row {
    let (text, hint) = match overdrawn {
        Overdrawn::Visits => (
            "This site has as many visitors at the moment as it may have",
            "Try again in a moment. Publisher: the operator of the server can admit more.",
        ),
        Overdrawn::Month => (
            "This site has used up its traffic of this month",
            "Come back next month. Publisher: the operator of the server can admit more.",
        ),
    };
    Row::of(overdrawn.code(), StatusCode::SERVICE_UNAVAILABLE, Side::Publisher, text, hint)
}

fn row_of_dial(error: DialError) -> Row {
    match error {
        DialError::Refused => Row::of(
            Code::UPSTREAM_REFUSED,
            StatusCode::BAD_GATEWAY,
            Side::Upstream,
            "The tunnel is up, but the service behind it cannot be reached",
            "Publisher: start the service, or correct where the tunnel leads; your ssh or agent says more.",
        ),
        DialError::Prohibited => Row::of(
            Code::UPSTREAM_REFUSED,
            StatusCode::BAD_GATEWAY,
            Side::Publisher,
            "The publisher's client does not accept connections for this forward",
            "Publisher, with ssh: check -R, and PermitRemoteOpen and ClearAllForwardings in the ssh configuration.",
        ),
        DialError::Gone => Row::of(
            Code::ENDPOINT_OFFLINE,
            StatusCode::NOT_FOUND,
            Side::Publisher,
            "The publisher has just disconnected",
            "Try again when it is back.",
        ),
        DialError::Timeout => Row::of(
            Code::UPSTREAM_TIMEOUT,
            StatusCode::GATEWAY_TIMEOUT,
            Side::Publisher,
            "The publisher did not open the connection in time",
            "Try again. Publisher: check that the service can be reached from your machine.",
        ),
        DialError::Busy => Row::of(
            Code::TOO_BUSY,
            StatusCode::SERVICE_UNAVAILABLE,
            Side::Publisher,
            "Too many connections are being opened to this publisher",
            "Try again in a moment.",
        ),
        DialError::NoTls | DialError::Certificate | DialError::NotHttp2 | DialError::Closed => {
            row_of_begin(error)
        }
    }
}

/// Of an upstream that is there, and is another one than its publisher said.
fn row_of_begin(error: DialError) -> Row {
    match error {
        DialError::NoTls => Row::of(
            Code::UPSTREAM_TLS,
            StatusCode::BAD_GATEWAY,
            Side::Upstream,
            "The service behind the tunnel does not speak TLS as it should",
            "Publisher: if the service speaks plain HTTP, leave --upstream-tls out.",
        ),
        DialError::Certificate => Row::of(
            Code::UPSTREAM_TLS,
            StatusCode::BAD_GATEWAY,
            Side::Upstream,
            "The certificate of the service behind the tunnel is not trusted, or is for another name",
            "Publisher: check --upstream-server-name, or leave --verify-upstream-tls out.",
        ),
        DialError::NotHttp2 => Row::of(
            Code::UPSTREAM_BROKE,
            StatusCode::BAD_GATEWAY,
            Side::Upstream,
            "The service behind the tunnel does not speak HTTP/2",
            "Publisher: if the service speaks HTTP/1.1, leave --upstream-protocol http2 out.",
        ),
        _ => Row::of(
            Code::UPSTREAM_BROKE,
            StatusCode::BAD_GATEWAY,
            Side::Upstream,
            "The service closed the connection before it answered",
            "Publisher: does the service take a PROXY header? If not, leave --proxy-proto out.",
        ),
    }
}

/// The way to https for a name that has only an https endpoint.
pub(super) fn redirect(location: &str) -> Option<Response<Body>> {
    let location = HeaderValue::try_from(location).ok()?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
    response.headers_mut().insert(LOCATION, location);
    // The endpoint may be another one tomorrow, and may then want plain http.
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Some(response)
}

/// How a visitor wants to read what Hithe says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Page,
    Text,
}

impl Form {
    /// A page for who names `text/html` and no other type that it likes better; text for the rest.
    pub(crate) fn wanted(headers: &HeaderMap) -> Self {
        let (mut page, mut other) = (0, 0);
        for range in
            headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).flat_map(|v| v.split(','))
        {
            let mut parts = range.split(';');
            let media = parts.next().unwrap_or_default().trim();
            let weight = parts.find_map(|parameter| quality(parameter.trim())).unwrap_or(1000);
            if media.eq_ignore_ascii_case("text/html") || media.eq_ignore_ascii_case("application/xhtml+xml")
            {
                page = page.max(weight);
            } else if ["text/plain", "application/json"].iter().any(|text| media.eq_ignore_ascii_case(text)) {
                other = other.max(weight);
            }
        }
        if page > 0 && page >= other { Self::Page } else { Self::Text }
    }

    fn content_type(self) -> &'static str {
        match self {
            Self::Page => "text/html; charset=utf-8",
            Self::Text => "text/plain; charset=utf-8",
        }
    }

    fn render(self, row: &Row) -> String {
        match self {
            Self::Page => page(row),
            Self::Text => format!("{}.\n{}\n{}\n", row.text, row.hint, row.code),
        }
    }
}

/// `q=0.5` in thousandths.
fn quality(parameter: &str) -> Option<u32> {
    let (name, value) = parameter.split_once('=')?;
    if !name.trim().eq_ignore_ascii_case("q") {
        return None;
    }
    let value: f32 = value.trim().parse().ok()?;
    // In range by the clamp; a NaN becomes 0.
    Some((value.clamp(0.0, 1.0) * 1000.0) as u32)
}

fn insert_fixed(headers: &mut HeaderMap) {
    const FIXED: [(HeaderName, &str); 4] = [
        (CACHE_CONTROL, "no-store"),
        (
            CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ),
        (REFERRER_POLICY, "no-referrer"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    for (name, value) in FIXED {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

/// The page for browsers. Everything that is put into it is escaped.
fn page(row: &Row) -> String {
    const PAGE: &str = include_str!("page.html");
    let status = row.status.as_str();
    let reason = row.status.canonical_reason().unwrap_or("");
    let mut page = String::with_capacity(PAGE.len() + 256);
    for (index, part) in PAGE.split("{{").enumerate() {
        let Some((name, rest)) = part.split_once("}}").filter(|_| index > 0) else {
            page.push_str(part);
            continue;
        };
        match name {
            "status" => page.push_str(status),
            "reason" => escape(reason, &mut page),
            "text" => escape(&row.text, &mut page),
            "side" => escape(row.side.name(), &mut page),
            "hint" => escape(row.hint, &mut page),
            "code" => escape(&row.code.to_string(), &mut page),
            _ => {}
        }
        page.push_str(rest);
    }
    page
}

fn escape(text: &str, page: &mut String) {
    for character in text.chars() {
        match character {
            '&' => page.push_str("&amp;"),
            '<' => page.push_str("&lt;"),
            '>' => page.push_str("&gt;"),
            '"' => page.push_str("&quot;"),
            '\'' => page.push_str("&#39;"),
            other => page.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    fn wanted(accept: &str) -> Form {
        Form::wanted(&HeaderMap::from_iter([(ACCEPT, accept.parse().unwrap())]))
    }

    async fn text_of(error: &ProxyError, form: Form) -> String {
        let body = error.answer(form).into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(body.to_vec()).unwrap()
    }

    #[test]
    fn browsers_get_a_page_and_the_rest_text() {
        assert_eq!(wanted("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"), Form::Page);
        for text in ["*/*", "application/json", "text/html;q=0", "application/json, text/html;q=0.5", ""] {
            assert_eq!(wanted(text), Form::Text, "{text}");
        }
        assert_eq!(Form::wanted(&HeaderMap::new()), Form::Text);
    }

    #[tokio::test]
    async fn a_name_from_the_network_is_escaped_on_the_page() {
        let page = text_of(&ProxyError::NoEndpoint("<script>\u{1b}&\"".to_owned()), Form::Page).await;
        assert!(!page.contains("<script>") && !page.contains('\u{1b}'), "{page}");
        assert!(page.contains("&lt;script&gt;") && !page.contains("{{") && !page.contains("}}"), "{page}");
    }

    #[tokio::test]
    async fn the_text_says_what_happened_and_what_to_do() {
        let text = text_of(&ProxyError::Dial(DialError::Refused), Form::Text).await;
        assert_eq!(
            text,
            "The tunnel is up, but the service behind it cannot be reached.\n\
             Publisher: start the service, or correct where the tunnel leads; your ssh or agent says more.\nERR_HITHE_8012\n"
        );
    }

    #[test]
    fn every_answer_carries_its_code() {
        let response = ProxyError::Dial(DialError::Timeout).answer(Form::Page);
        assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
        assert_eq!(response.headers()[ERROR_CODE], "ERR_HITHE_3005");
        assert_eq!(response.headers()[CACHE_CONTROL], "no-store");
    }
}
