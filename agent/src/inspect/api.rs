//! The API of the local machine, with the paths and fields of ngrok's agent, so that tools written for that work.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::entry::{Entry, Message};
use super::web::App;
use crate::metrics::Figures;
use crate::{Dialer, EndpointStatus, Phase, Status};

/// A future on the heap.
pub(crate) type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What the agent can do for its inspector.
pub(crate) trait Local: Send + Sync + 'static {
    /// How it stands with the endpoints.
    fn status(&self) -> Arc<Status>;

    /// Names and values of the configuration, without its secrets.
    fn configuration(&self) -> Vec<(String, String)>;

    /// How the upstream of an endpoint is reached.
    fn dialer(&self, endpoint: &str) -> Option<Dialer>;

    /// Publishes one more endpoint, from the fields of a file and a `name`. Ready when it has its URLs.
    fn start(&self, fields: Value) -> BoxFuture<Result<EndpointStatus, ApiError>>;

    /// Withdraws an endpoint.
    fn stop(&self, endpoint: &str) -> BoxFuture<Result<(), ApiError>>;
}

/// Why the API does not do what it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ApiError {
    pub(crate) status: u16,
    pub(crate) code: u32,
    pub(crate) message: String,
    pub(crate) details: Vec<(String, String)>,
}

impl ApiError {
    pub(crate) fn new(status: u16, code: u32, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), details: Vec::new() }
    }

    /// The request cannot be understood.
    pub(crate) fn bad(message: impl Into<String>) -> Self {
        Self::new(400, 102, message)
    }

    fn not_found(path: String) -> Self {
        let error = Self::new(404, 100, "the requested resource was not found");
        Self { details: vec![("path".to_owned(), path)], ..error }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let details: Map<String, Value> =
            self.details.into_iter().map(|(name, value)| (name, value.into())).collect();
        let body = json!({
            "error_code": self.code,
            "status_code": self.status,
            "msg": self.message,
            "details": details,
        });
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json(body)).into_response()
    }
}

type Answer = Result<Json<Value>, ApiError>;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/api", get(root))
        .route("/api/", get(root))
        .route("/api/status", get(status))
        .route("/api/tunnels", get(tunnels).post(start))
        .route("/api/tunnels/{name}", get(tunnel).delete(stop))
        .route("/api/endpoints", get(endpoints).post(start_endpoint))
        .route("/api/endpoints/{name}", get(endpoint).delete(stop))
        .route("/api/requests/http", get(requests).post(replay).delete(clear))
        .route("/api/requests/http/{id}", get(request))
        .route("/api/{*path}", axum::routing::any(nothing))
}

async fn nothing(uri: http::Uri) -> ApiError {
    ApiError::not_found(uri.path().to_owned())
}

async fn root() -> Json<Value> {
    Json(json!({
        "uri": "/api",
        "status_uri": "/api/status",
        "tunnels_uri": "/api/tunnels",
        "endpoints_uri": "/api/endpoints",
        "requests_uri": "/api/requests/http",
    }))
}

async fn status(State(app): State<App>) -> Json<Value> {
    let status = app.local.status();
    let is_online = status.endpoints.iter().any(|it| matches!(it.phase, Phase::Online { .. }));
    let latency = status.endpoints.iter().find_map(|it| it.latency);
    Json(json!({
        "status": if is_online || status.endpoints.is_empty() { "online" } else { "connecting" },
        "agent_version": env!("CARGO_PKG_VERSION"),
        "session": { "legs": [{ "region": status.server, "latency": latency.map_or(0, nanoseconds) }] },
        "uri": "/api/status",
    }))
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// One URL of an endpoint, as a tunnel of its own.
struct Tunnel<'a> {
    endpoint: &'a EndpointStatus,
    name: String,
    url: &'a str,
}

/// The first URL has the endpoint's name. One of `http://` beside `https://` says so, as ngrok's does.
fn of(endpoint: &EndpointStatus) -> Vec<Tunnel<'_>> {
    let has_https = endpoint.urls.iter().any(|url| url.starts_with("https://"));
    let mut all: Vec<Tunnel<'_>> = Vec::new();
    for url in &endpoint.urls {
        let is_second = has_https && url.starts_with("http://");
        let plain = if is_second { format!("{} (http)", endpoint.name) } else { endpoint.name.clone() };
        let same = |name: &str| all.iter().any(|it| it.name == name);
        let numbered = (2..).map(|number| format!("{plain} ({number})"));
        let name = std::iter::once(plain.clone()).chain(numbered).find(|name| !same(name));
        all.push(Tunnel { endpoint, name: name.unwrap_or(plain), url });
    }
    all
}

/// The endpoint of a tunnel's name.
pub(super) fn endpoint_of(status: &Status, tunnel: &str) -> Option<String> {
    let is_named = |it: &&EndpointStatus| it.name == tunnel || of(it).iter().any(|it| it.name == tunnel);
    status.endpoints.iter().find(is_named).map(|it| it.name.clone())
}

impl Tunnel<'_> {
    fn json(&self, app: &App) -> Value {
        let metrics = app.inspector.metrics(&self.endpoint.name);
        let proto = self.url.split_once("://").map_or(self.endpoint.kind, |(scheme, _)| scheme);
        json!({
            "name": self.name,
            "uri": format!("/api/tunnels/{}", escaped(&self.name)),
            "public_url": self.url,
            "proto": proto,
            "config": { "addr": self.endpoint.upstream, "inspect": self.endpoint.inspect },
            "metrics": {
                "conns": figures(&metrics.connections.figures(), true),
                "http": figures(&metrics.http.figures(), false),
            },
        })
    }
}

/// As a segment of a path.
fn escaped(name: &str) -> String {
    let mut path = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            path.push(char::from(byte));
        } else {
            path.push_str(&format!("%{byte:02X}"));
        }
    }
    path
}

/// Durations in nanoseconds.
fn figures(figures: &Figures, has_gauge: bool) -> Value {
    let mut json = json!({
        "count": figures.count,
        "rate1": figures.rate1,
        "rate5": figures.rate5,
        "rate15": figures.rate15,
        "p50": nanoseconds(figures.p50),
        "p90": nanoseconds(figures.p90),
        "p95": nanoseconds(figures.p95),
        "p99": nanoseconds(figures.p99),
    });
    if let Some(fields) = json.as_object_mut().filter(|_| has_gauge) {
        fields.insert("gauge".to_owned(), figures.gauge.into());
    }
    json
}

async fn tunnels(State(app): State<App>) -> Json<Value> {
    let status = app.local.status();
    let all: Vec<_> = status.endpoints.iter().flat_map(of).map(|tunnel| tunnel.json(&app)).collect();
    Json(json!({ "tunnels": all, "uri": "/api/tunnels" }))
}

async fn tunnel(State(app): State<App>, Path(name): Path<String>) -> Answer {
    let status = app.local.status();
    let found = status.endpoints.iter().flat_map(of).find(|tunnel| tunnel.name == name);
    let not_found = || ApiError::not_found(format!("/api/tunnels/{name}"));
    found.map(|tunnel| Json(tunnel.json(&app))).ok_or_else(not_found)
}

fn fields(body: &Bytes) -> Result<Value, ApiError> {
    let fields: Value = serde_json::from_slice(body).map_err(|error| ApiError::bad(error.to_string()))?;
    if fields.is_object() { Ok(fields) } else { Err(ApiError::bad("this is no JSON object")) }
}

async fn start(State(app): State<App>, body: Bytes) -> Result<(StatusCode, Json<Value>), ApiError> {
    let started = app.local.start(fields(&body)?).await?;
    let failed = || ApiError::new(502, 103, "the endpoint has no URL");
    let tunnel = of(&started).into_iter().next().ok_or_else(failed)?;
    Ok((StatusCode::CREATED, Json(tunnel.json(&app))))
}

async fn stop(State(app): State<App>, Path(name): Path<String>) -> Result<StatusCode, ApiError> {
    let endpoint = endpoint_of(&app.local.status(), &name);
    let endpoint = endpoint.ok_or_else(|| ApiError::not_found(format!("/api/tunnels/{name}")))?;
    app.local.stop(&endpoint).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// With the words of the third version of ngrok's file.
fn third(endpoint: &EndpointStatus) -> Value {
    json!({
        "name": endpoint.name,
        "uri": format!("/api/endpoints/{}", escaped(&endpoint.name)),
        "url": endpoint.urls.first(),
        "urls": endpoint.urls,
        "inspect": endpoint.inspect,
        "upstream": { "url": endpoint.upstream },
    })
}

async fn endpoints(State(app): State<App>) -> Json<Value> {
    let all: Vec<_> = app.local.status().endpoints.iter().map(third).collect();
    Json(json!({ "endpoints": all, "uri": "/api/endpoints" }))
}

async fn endpoint(State(app): State<App>, Path(name): Path<String>) -> Answer {
    let status = app.local.status();
    let found = status.endpoints.iter().find(|endpoint| endpoint.name == name);
    found.map(|it| Json(third(it))).ok_or_else(|| ApiError::not_found(format!("/api/endpoints/{name}")))
}

async fn start_endpoint(State(app): State<App>, body: Bytes) -> Result<(StatusCode, Json<Value>), ApiError> {
    let started = app.local.start(fields(&body)?).await?;
    Ok((StatusCode::CREATED, Json(third(&started))))
}

#[derive(Debug, Deserialize)]
struct Which {
    limit: Option<usize>,
    tunnel_name: Option<String>,
}

/// Requests that are listed unless another number is asked for.
const REQUESTS: usize = 50;

/// Most bytes of requests and responses in one list.
const LISTED: usize = 32 << 20;

async fn requests(State(app): State<App>, which: Result<Query<Which>, QueryRejection>) -> Answer {
    let Query(which) = which.map_err(|error| ApiError::bad(error.body_text()))?;
    let endpoint = match &which.tunnel_name {
        Some(name) => Some(endpoint_of(&app.local.status(), name).unwrap_or_else(|| name.clone())),
        None => None,
    };
    let mut room = LISTED;
    let all = app.inspector.store().all();
    let chosen = all
        .iter()
        .filter(|entry| entry.http().is_some())
        .filter(|entry| endpoint.as_ref().is_none_or(|name| **name == *entry.endpoint))
        .take(which.limit.unwrap_or(REQUESTS))
        .take_while(|entry| {
            let fits = entry.memory() <= room;
            room = room.saturating_sub(entry.memory());
            fits
        });
    let requests: Vec<_> = chosen.filter_map(|entry| recorded(entry)).collect();
    Ok(Json(json!({ "uri": "/api/requests/http", "requests": requests })))
}

fn find(app: &App, id: &str) -> Result<Arc<Entry>, ApiError> {
    let entry = id.parse().ok().and_then(|id| app.inspector.store().get(id));
    entry.ok_or_else(|| ApiError::not_found(format!("/api/requests/http/{}", escaped(id))))
}

async fn request(State(app): State<App>, Path(id): Path<String>) -> Answer {
    let entry = find(&app, &id)?;
    recorded(&entry).map(Json).ok_or_else(|| ApiError::not_found(format!("/api/requests/http/{id}")))
}

fn recorded(entry: &Entry) -> Option<Value> {
    let http = entry.http()?;
    let start = jiff::Timestamp::try_from(entry.start).unwrap_or_default();
    let response = http.response.as_ref().map(|response| {
        json!({
            "status": format!("{} {}", response.status, response.reason).trim_end(),
            "status_code": response.status,
            "proto": response.version,
            "headers": headers(&response.message),
            "raw": BASE64.encode(&*response.message.raw),
        })
    });
    Some(json!({
        "uri": format!("/api/requests/http/{}", entry.id),
        "id": entry.id.to_string(),
        "tunnel_name": *entry.endpoint,
        "remote_addr": entry.remote(),
        "start": start.to_string(),
        "duration": entry.duration.map_or(0, nanoseconds),
        "request": {
            "method": http.method.as_str(),
            "proto": http.version,
            "headers": headers(&http.request),
            "uri": http.target.as_str(),
            "raw": BASE64.encode(&*http.request.raw),
        },
        "response": response,
    }))
}

/// By names as Go writes them, which is what programs for ngrok's API look for.
fn headers(message: &Message) -> Value {
    let mut map = Map::new();
    for header in message.headers() {
        let mut name = header.name.to_ascii_lowercase().into_bytes();
        let mut is_first = true;
        for byte in &mut name {
            if is_first {
                byte.make_ascii_uppercase();
            }
            is_first = *byte == b'-';
        }
        let name = String::from_utf8(name).unwrap_or(header.name);
        let values = map.entry(name).or_insert_with(|| json!([]));
        if let Some(values) = values.as_array_mut() {
            values.push(header.value.into());
        }
    }
    map.into()
}

#[derive(Debug, Deserialize)]
struct Again {
    id: String,
    tunnel_name: Option<String>,
}

async fn replay(State(app): State<App>, body: Bytes) -> Result<StatusCode, ApiError> {
    let again: Again = serde_json::from_slice(&body).map_err(|error| ApiError::bad(error.to_string()))?;
    let entry = find(&app, &again.id)?;
    let endpoint = match again.tunnel_name.filter(|name| !name.is_empty()) {
        Some(name) => {
            let found = endpoint_of(&app.local.status(), &name);
            Some(found.ok_or_else(|| ApiError::not_found(format!("/api/tunnels/{}", escaped(&name))))?)
        }
        None => None,
    };
    super::replay::send(&app, &entry, None, endpoint.as_deref()).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn clear(State(app): State<App>) -> StatusCode {
    app.inspector.store().clear();
    StatusCode::NO_CONTENT
}
