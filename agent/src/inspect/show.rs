//! Entries as the page reads them, in JSON.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Serialize;
use serde_json::{Value, json};

use super::entry::{Entry, Flow, Frame, Http, Kind, Message, Talk, Upgrade, Way};
use super::head::Header;
use crate::metrics::Figures;
use crate::{EndpointStatus, Phase};

/// A line of the list.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    id: String,
    /// `http`, `websocket` or `connection`.
    kind: &'static str,
    endpoint: String,
    remote: String,
    /// Milliseconds since 1970.
    start: f64,
    /// In milliseconds. None as long as it goes on.
    duration: Option<f64>,
    size: u64,
    method: Option<String>,
    target: Option<String>,
    host: Option<String>,
    status: Option<u16>,
    content_type: Option<String>,
    protocol: &'static str,
    replay_of: Option<String>,
    is_cut: bool,
    incomplete: Option<&'static str>,
}

/// Everything but the bodies.
#[derive(Debug, Serialize)]
pub(super) struct Detail {
    #[serde(flatten)]
    summary: Summary,
    connection: u64,
    /// In milliseconds from the start.
    sent: Option<f64>,
    answered: Option<f64>,
    request: Option<Shown>,
    response: Option<Shown>,
    talk: Option<Value>,
    flow: Option<Value>,
    /// None if it can be sent again.
    no_replay: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct Shown {
    line: String,
    headers: Vec<(String, String)>,
    trailers: Vec<(String, String)>,
    /// On the wire.
    size: u64,
    body_size: u64,
    is_truncated: bool,
    content_type: String,
    encoding: String,
}

/// Most messages of a WebSocket that are shown, the last.
const FRAMES: usize = 300;

pub(super) fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

fn since_1970(time: SystemTime) -> f64 {
    milliseconds(time.duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// Bytes on the wire in both directions.
pub(super) fn size(entry: &Entry) -> u64 {
    match &entry.what {
        Kind::Http(http) => http.size(),
        Kind::Connection(flow) => flow.request.total + flow.response.total,
    }
}

pub(super) fn summary(entry: &Entry) -> Summary {
    let http = entry.http();
    let response = http.and_then(|http| http.response.as_ref());
    let kind = match (http, http.and_then(|http| http.upgrade.as_deref())) {
        (None, _) => "connection",
        (_, Some(Upgrade::WebSocket(_))) => "websocket",
        _ => "http",
    };
    Summary {
        id: entry.id.to_string(),
        kind,
        endpoint: entry.endpoint.to_string(),
        remote: entry.remote(),
        start: since_1970(entry.start),
        duration: entry.duration.map(milliseconds),
        size: size(entry),
        method: http.map(|http| http.method.to_string()),
        target: http.map(|http| http.target.to_string()),
        host: http.and_then(|http| http.request.header("host")),
        status: http.and_then(Http::status),
        content_type: response.and_then(|it| it.message.header("content-type")),
        protocol: match &entry.what {
            Kind::Http(http) => http.version,
            Kind::Connection(flow) => flow.protocol,
        },
        replay_of: entry.replay_of.map(|id| id.to_string()),
        is_cut: entry.is_cut,
        incomplete: entry.incomplete,
    }
}

pub(super) fn detail(entry: &Entry) -> Detail {
    let http = entry.http();
    let upgrade = http.and_then(|http| http.upgrade.as_deref());
    let other = match (&entry.what, upgrade) {
        (Kind::Connection(flow), _) => Some(flow.as_ref()),
        (_, Some(Upgrade::Other(flow))) => Some(flow),
        _ => None,
    };
    Detail {
        summary: summary(entry),
        connection: entry.connection,
        sent: http.and_then(|http| http.sent).map(milliseconds),
        answered: http.and_then(|http| http.answered).map(milliseconds),
        request: http.map(|http| shown(&http.request)),
        response: http.and_then(|http| http.response.as_ref()).map(|it| shown(&it.message)),
        talk: match upgrade {
            Some(Upgrade::WebSocket(talk)) => Some(self::talk(talk)),
            _ => None,
        },
        flow: other.map(flow),
        no_replay: super::replay::objection(entry),
    }
}

fn shown(message: &Message) -> Shown {
    let first = message.head().split(|byte| *byte == b'\n').next().unwrap_or_default();
    let header = |name: &str| message.header(name).unwrap_or_default();
    let pairs = |headers: Vec<Header>| headers.into_iter().map(|it| (it.name, it.value)).collect();
    Shown {
        line: String::from_utf8_lossy(first).trim_end().to_owned(),
        headers: pairs(message.headers()),
        trailers: pairs(message.body().1),
        size: message.size,
        body_size: message.size.saturating_sub(message.head as u64),
        is_truncated: message.is_truncated(),
        content_type: header("content-type"),
        encoding: header("content-encoding"),
    }
}

fn talk(talk: &Talk) -> Value {
    let skipped = talk.frames.len().saturating_sub(FRAMES);
    json!({
        "count": talk.count,
        "request_bytes": talk.request_bytes,
        "response_bytes": talk.response_bytes,
        "broken": talk.broken,
        "frames": talk.frames.iter().skip(skipped).map(frame).collect::<Vec<_>>(),
    })
}

fn frame(frame: &Frame) -> Value {
    let text = match (frame.kind, frame.payload.as_slice()) {
        ("close", [a, b, reason @ ..]) => {
            let code = u16::from_be_bytes([*a, *b]);
            Some(format!("{code} {}", String::from_utf8_lossy(reason)).trim_end().to_owned())
        }
        // Cut at a bound, maybe within a letter.
        ("text", payload) => Some(String::from_utf8_lossy(payload).into_owned()),
        (_, payload) => std::str::from_utf8(payload).ok().filter(|it| !it.contains('\0')).map(str::to_owned),
    };
    json!({
        "number": frame.number,
        "is_request": frame.is_request,
        "at": milliseconds(frame.at),
        "kind": frame.kind,
        "size": frame.size,
        "is_cut": frame.size > frame.payload.len() as u64,
        "was_deflated": frame.was_deflated,
        "base64": text.is_none().then(|| BASE64.encode(&frame.payload)),
        "text": text,
    })
}

fn flow(flow: &Flow) -> Value {
    let way = |way: &Way| {
        json!({
            "total": way.total,
            "since": way.since.map(milliseconds),
            "first": BASE64.encode(&way.first),
        })
    };
    json!({ "request": way(&flow.request), "response": way(&flow.response) })
}

pub(super) fn figures(figures: &Figures) -> Value {
    json!({
        "count": figures.count,
        "gauge": figures.gauge,
        "rate1": figures.rate1,
        "rate5": figures.rate5,
        "rate15": figures.rate15,
        "p50": milliseconds(figures.p50),
        "p90": milliseconds(figures.p90),
        "p95": milliseconds(figures.p95),
        "p99": milliseconds(figures.p99),
    })
}

pub(super) fn endpoint(status: &EndpointStatus) -> Value {
    let unreachable = || status.unreachable.as_ref().map(|why| format!("It cannot be reached: {why}"));
    let (phase, at, why) = match &status.phase {
        Phase::Connecting => ("connecting", None, None),
        Phase::Online { since } => ("online", Some(since_1970(*since)), unreachable()),
        Phase::Waiting { until, why } => ("waiting", Some(since_1970(*until)), Some(why.clone())),
        Phase::Ended { why } => ("ended", None, Some(why.clone())),
    };
    json!({
        "name": status.name,
        "kind": status.kind,
        "upstream": status.upstream,
        "inspect": status.inspect,
        "urls": status.urls,
        "account": status.account,
        "latency": status.latency.map(milliseconds),
        "phase": phase,
        "at": at,
        "why": why,
    })
}
