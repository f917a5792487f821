//! Pages of our own: errors and redirects, in the looks of the listing.

use std::borrow::Cow;
use std::io;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, Full};

/// The body of an answer.
pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// A page in HTML; `title` and `content` are HTML already.
pub(super) fn html(status: StatusCode, title: &str, content: &str) -> Response<Body> {
    let page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{title}</title>\
         <style>{STYLE}</style></head>\n<body>{content}</body></html>\n"
    );
    let mut response = Response::new(Full::from(page).map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    // Names of files may try to be more than names.
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'"),
    );
    response
}

/// What went wrong, in a sentence.
pub(super) fn error(status: StatusCode) -> Response<Body> {
    let reason = match status {
        StatusCode::FORBIDDEN => "The program that serves this folder may not read it.",
        StatusCode::NOT_FOUND => "There is no such file in this folder.",
        StatusCode::METHOD_NOT_ALLOWED => "Files can be read here, and nothing else.",
        StatusCode::RANGE_NOT_SATISFIABLE => "The file has no such part.",
        StatusCode::PRECONDITION_FAILED => "The file has changed.",
        _ => "The file cannot be read at the moment.",
    };
    let title = format!("{} {}", status.as_u16(), status.canonical_reason().unwrap_or_default());
    html(status, &title, &format!("<h1>{title}</h1><p>{reason}</p>"))
}

/// To the path of a folder.
pub(super) fn redirect(location: &str) -> Response<Body> {
    let Ok(value) = HeaderValue::try_from(location) else { return error(StatusCode::NOT_FOUND) };
    let mut response = Response::new(Empty::new().map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
    response.headers_mut().insert(header::LOCATION, value);
    response
}

/// HEAD gets the length that GET would have.
pub(super) fn keep_only_the_head(response: &mut Response<Body>) {
    use http_body::Body as _;
    let length = response
        .body()
        .size_hint()
        .exact()
        .filter(|_| !response.headers().contains_key(header::CONTENT_LENGTH));
    if let Some(length) = length {
        response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
    }
    *response.body_mut() = Empty::new().map_err(|never| match never {}).boxed_unsync();
}

/// Text as HTML has it, also in attributes.
pub(super) fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(['&', '<', '>', '"', '\'']) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    Cow::Owned(escaped)
}

const STYLE: &str = ":root{color-scheme:light dark}\
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:0 auto;padding:1rem}\
h1{font-size:1.25rem;overflow-wrap:anywhere}\
table{border-collapse:collapse;width:100%}\
th,td{text-align:left;padding:.4rem .5rem;border-bottom:1px solid #8884}\
td:first-child{overflow-wrap:anywhere;width:100%}\
td+td,th+th{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}\
a{text-decoration:none}a:hover,a:focus{text-decoration:underline}\
@media(max-width:36rem){td+td+td,th+th+th{display:none}}";
