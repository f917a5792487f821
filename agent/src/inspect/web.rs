//! The inspector's server: its page, what the page reads, and the API.

use std::collections::{BTreeSet, HashSet};
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Path, Query, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use futures_util::Stream;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{sleep, timeout};
use tokio_util::task::TaskTracker;

use super::api::{self, ApiError, Local};
use super::content;
use super::entry::{Entry, Id, Kind, Message, Upgrade};
use super::filter::Filter;
use super::guard::{self, AllowedHost};
use super::listener::Bounded;
use super::replay::{self, Edited};
use super::{Inspector, page, show};
use crate::Status;

/// Lines of the live list. Older ones are found by a filter.
const LINES: usize = 500;

/// Pages that are told of changes at a time.
const FEEDS: usize = 32;

/// Replays at a time.
const REPLAYS: usize = 16;

/// Changes of this time are told together.
const TOGETHER: Duration = Duration::from_millis(100);

/// Longest body of a request to us, in bytes: a body of 4 MiB in JSON.
const BODY: usize = 12 << 20;

/// Bytes of what axum says of a request that it refuses.
const MESSAGE: usize = 4096;

/// Who may ask.
#[derive(Clone, Debug, Default)]
pub(crate) struct Access {
    /// `web_allow_hosts`, beside the names of this machine.
    pub(crate) allowed: Vec<AllowedHost>,
}

/// What the handlers know.
#[derive(Clone)]
pub(super) struct App {
    pub(super) inspector: Inspector,
    pub(super) local: Arc<dyn Local>,
    access: Arc<Access>,
    feeds: Arc<Semaphore>,
    pub(super) replays: Arc<Semaphore>,
    pub(super) tasks: TaskTracker,
}

/// Serves until it is dropped.
///
/// # Errors
/// The listener fails for good.
pub(crate) async fn serve(
    listener: TcpListener,
    inspector: Inspector,
    local: Arc<dyn Local>,
    access: Access,
) -> io::Result<()> {
    let app = App {
        inspector,
        local,
        access: Arc::new(access),
        feeds: Arc::new(Semaphore::new(FEEDS)),
        replays: Arc::new(Semaphore::new(REPLAYS)),
        tasks: TaskTracker::new(),
    };
    axum::serve(Bounded::new(listener), router(app)).await
}

fn router(app: App) -> Router {
    Router::new()
        .merge(page::routes())
        .merge(api::routes())
        .route("/ui/events", get(events))
        .route("/ui/status", get(status))
        .route("/ui/entries", get(|| async { StatusCode::METHOD_NOT_ALLOWED }).delete(clear))
        .route("/ui/entries/{id}", get(entry))
        .route("/ui/entries/{id}/{side}/{form}", get(bytes))
        .route("/ui/replay", post(replay))
        .layer(DefaultBodyLimit::max(BODY))
        .layer(from_fn_with_state(app.clone(), guarded))
        .with_state(app)
}

/// Refuses what is not ours, and tells browsers what the page may do: nothing that it does not need.
async fn guarded(State(app): State<App>, request: Request, next: Next) -> Response {
    let is_api = request.uri().path().starts_with("/api") || request.uri().path().starts_with("/ui");
    let verdict = guard::check(request.method(), request.headers(), &app.access.allowed);
    let mut response = match verdict {
        Ok(()) if is_api => in_our_words(next.run(request).await).await,
        Ok(()) => next.run(request).await,
        Err(refusal) if is_api => {
            ApiError::new(refusal.status, refusal.status.into(), refusal.why).into_response()
        }
        Err(refusal) => {
            let status = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::FORBIDDEN);
            (status, format!("{}\n", refusal.why)).into_response()
        }
    };
    for (name, value) in [
        ("content-security-policy", page::POLICY),
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-resource-policy", "same-origin"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cache-control", "no-store"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// What axum refuses by itself comes as plain text; here it is an error like all others.
async fn in_our_words(response: Response) -> Response {
    let status = response.status();
    let is_ours = response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == "application/json");
    if is_ours || !status.is_client_error() {
        return response;
    }
    let (head, body) = response.into_parts();
    let message = match status {
        StatusCode::PAYLOAD_TOO_LARGE => format!("the body is larger than {} MiB", BODY >> 20),
        StatusCode::METHOD_NOT_ALLOWED => "this path does not take that method".to_owned(),
        _ => {
            let text = axum::body::to_bytes(body, MESSAGE).await.unwrap_or_default();
            String::from_utf8_lossy(&text).into_owned()
        }
    };
    let mut answer = ApiError::new(status.as_u16(), 102, message).into_response();
    if let Some(allow) = head.headers.get(header::ALLOW) {
        answer.headers_mut().insert(header::ALLOW, allow.clone());
    }
    answer
}

fn find(app: &App, id: &str) -> Result<Arc<Entry>, ApiError> {
    let entry = id.parse().ok().and_then(|id| app.inspector.store().get(id));
    entry.ok_or_else(|| ApiError::new(404, 100, "this is no longer kept"))
}

async fn entry(State(app): State<App>, Path(id): Path<String>) -> Result<Response, ApiError> {
    Ok(Json(show::detail(find(&app, &id)?.as_ref())).into_response())
}

/// `body` without its codings, or `raw` as on the wire.
async fn bytes(
    State(app): State<App>,
    Path((id, side, form)): Path<(String, String, String)>,
) -> Result<Response, ApiError> {
    let entry = find(&app, &id)?;
    let missing = || ApiError::new(404, 100, "there are no such bytes");
    let is_request = match side.as_str() {
        "request" => true,
        "response" => false,
        _ => return Err(missing()),
    };
    let decoded = match form.as_str() {
        "raw" => {
            content::Decoded { bytes: raw(&entry, is_request).ok_or_else(missing)?, ..Default::default() }
        }
        "body" => {
            let message = message(&entry, is_request).ok_or_else(missing)?;
            let encoding = message.headers().into_iter().filter(|it| it.is("content-encoding"));
            let encoding = encoding.map(|it| it.value).collect::<Vec<_>>().join(",");
            content::decode(message.body().0, &encoding)
        }
        _ => return Err(missing()),
    };
    let mut response = Response::new(Body::from(decoded.bytes));
    let headers = response.headers_mut();
    // Whatever a visitor sent, it is no page of ours.
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::CONTENT_DISPOSITION, HeaderValue::from_static("attachment"));
    if decoded.is_cut {
        headers.insert("hithe-cut", HeaderValue::from_static("1"));
    }
    if let Some(error) = decoded.error.and_then(|it| HeaderValue::from_str(&it).ok()) {
        headers.insert("hithe-error", error);
    }
    Ok(response)
}

fn message(entry: &Entry, is_request: bool) -> Option<&Message> {
    let http = entry.http()?;
    if is_request { Some(&http.request) } else { http.response.as_ref().map(|it| &it.message) }
}

fn raw(entry: &Entry, is_request: bool) -> Option<Vec<u8>> {
    let mut bytes = match &entry.what {
        Kind::Http(_) => message(entry, is_request)?.raw.to_vec(),
        Kind::Connection(_) => Vec::new(),
    };
    let flow = match (&entry.what, entry.http().and_then(|http| http.upgrade.as_deref())) {
        (Kind::Connection(flow), _) => Some(flow.as_ref()),
        (_, Some(Upgrade::Other(flow))) => Some(flow),
        _ => None,
    };
    if let Some(flow) = flow {
        bytes.extend_from_slice(if is_request { &flow.request.first } else { &flow.response.first });
    }
    Some(bytes)
}

async fn clear(State(app): State<App>) -> StatusCode {
    app.inspector.store().clear();
    StatusCode::NO_CONTENT
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Again {
    id: String,
    edited: Option<Edited>,
}

async fn replay(State(app): State<App>, body: Bytes) -> Result<StatusCode, ApiError> {
    let again: Again = serde_json::from_slice(&body).map_err(|error| ApiError::bad(error.to_string()))?;
    let entry = find(&app, &again.id)?;
    replay::send(&app, &entry, again.edited, None).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Everything for the status page.
async fn status(State(app): State<App>) -> Json<Value> {
    let status = app.local.status();
    let endpoints = status.endpoints.iter().map(|it| {
        let metrics = app.inspector.metrics(&it.name);
        let mut json = show::endpoint(it);
        if let Some(fields) = json.as_object_mut() {
            fields.insert("connections".to_owned(), show::figures(&metrics.connections.figures()));
            fields.insert("http".to_owned(), show::figures(&metrics.http.figures()));
        }
        json
    });
    let (count, memory, most) = app.inspector.store().usage();
    Json(json!({
        "server": status.server,
        "version": env!("CARGO_PKG_VERSION"),
        "endpoints": endpoints.collect::<Vec<_>>(),
        "configuration": app.local.configuration(),
        "entries": count,
        "memory": memory,
        "most": most,
        "left_out": app.inspector.left_out(),
    }))
}

#[derive(Debug, Deserialize)]
struct Wanted {
    #[serde(default)]
    filter: String,
}

/// Tells a page of everything that changes.
async fn events(State(app): State<App>, Query(wanted): Query<Wanted>) -> Result<Response, ApiError> {
    let filter = Filter::parse(&wanted.filter);
    let Ok(permit) = Arc::clone(&app.feeds).try_acquire_owned() else {
        return Err(ApiError::new(503, 104, "too many pages are open"));
    };
    let changed = app.inspector.store().watch();
    let feed = Feed {
        app,
        filter,
        shown: BTreeSet::new(),
        revision: 0,
        cleared: None,
        status: None,
        changed,
        _permit: permit,
    };
    let keep_alive = KeepAlive::new().interval(Duration::from_secs(15));
    Ok(Sse::new(feed.stream()).keep_alive(keep_alive).into_response())
}

/// One page that is told.
struct Feed {
    app: App,
    /// What is wrong with it is the only event otherwise, since a page cannot read why a feed was refused.
    filter: Result<Filter, String>,
    /// What the page has.
    shown: BTreeSet<Id>,
    revision: u64,
    /// None before the first event.
    cleared: Option<u64>,
    status: Option<Arc<Status>>,
    changed: watch::Receiver<u64>,
    _permit: OwnedSemaphorePermit,
}

impl Feed {
    fn stream(self) -> impl Stream<Item = Result<Event, Infallible>> {
        futures_util::stream::unfold(self, |mut feed| async {
            let event = feed.next().await;
            Some((Ok(event), feed))
        })
    }

    async fn next(&mut self) -> Event {
        loop {
            if self.cleared.is_some() {
                // The status has no bell of its own here.
                if timeout(Duration::from_secs(1), self.changed.changed()).await.is_ok_and(|it| it.is_ok()) {
                    sleep(TOGETHER).await;
                }
                self.changed.mark_unchanged();
            }
            if let Some(news) = self.news() {
                return Event::default().json_data(news).unwrap_or_default();
            }
        }
    }

    /// What the page does not know yet.
    fn news(&mut self) -> Option<Value> {
        let filter = match &self.filter {
            Ok(filter) => filter,
            Err(_) if self.cleared.is_some() => return None,
            Err(error) => {
                self.cleared = Some(0);
                return Some(json!({ "error": error }));
            }
        };
        let store = self.app.inspector.store();
        let changes = store.since(self.revision);
        let is_anew = self.cleared != Some(changes.cleared);
        if is_anew {
            self.shown.clear();
        }
        let status = self.app.local.status();
        let has_status = self.status.as_ref() != Some(&status);
        if !is_anew && !has_status && changes.revision == self.revision {
            return None;
        }
        self.revision = changes.revision;
        self.cleared = Some(changes.cleared);
        let known: HashSet<Id> = self.shown.iter().copied().collect();
        let mut gone = store.missing(&known);
        let mut lines = Vec::new();
        let oldest = if self.shown.len() < LINES { None } else { self.shown.first().copied() };
        for entry in changes.entries.iter().filter(|it| oldest.is_none_or(|oldest| it.id >= oldest)) {
            if lines.len() == LINES {
                break;
            }
            if filter.admits(entry) {
                lines.push(show::summary(entry));
                self.shown.insert(entry.id);
            } else if self.shown.remove(&entry.id) {
                gone.push(entry.id);
            }
        }
        for id in &gone {
            self.shown.remove(id);
        }
        while self.shown.len() > LINES {
            self.shown.pop_first();
        }
        let (count, memory, most) = store.usage();
        let left_out = self.app.inspector.left_out();
        let status = has_status.then(|| {
            let endpoints: Vec<_> = status.endpoints.iter().map(show::endpoint).collect();
            let json = json!({ "server": status.server, "endpoints": endpoints });
            self.status = Some(status);
            json
        });
        let gone: Vec<_> = gone.iter().map(ToString::to_string).collect();
        Some(json!({
            "anew": is_anew,
            "lines": lines,
            "gone": gone,
            "most_lines": LINES,
            "usage": { "entries": count, "memory": memory, "most": most, "left_out": left_out },
            "status": status,
        }))
    }
}

#[cfg(test)]
mod tests;
