//! What an orchestrator asks: whether the server lives (`/healthz`), and whether visitors should be sent to it
//! (`/readyz`).

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::body::Body;
use crate::drain::DrainWatch;
use crate::edge::accept::{Queued, accept};
use crate::registry::Registry;

/// Answers for as long as the process serves anybody, and so until the very end of a drain.
pub(super) struct Health {
    registry: Registry,
    /// Every socket is served.
    serving: AtomicBool,
    /// Begins to drain with the visitors.
    visitors: DrainWatch,
}

/// The body of `/readyz`.
#[derive(Serialize)]
struct Report {
    status: &'static str,
    version: &'static str,
    /// Publishers that are logged in.
    sessions: usize,
    /// Public URLs.
    endpoints: usize,
}

impl Health {
    pub(super) fn new(registry: Registry, visitors: DrainWatch) -> Arc<Self> {
        Arc::new(Self { registry, serving: AtomicBool::new(false), visitors })
    }

    /// From now on every socket is served.
    pub(super) fn note_serving(&self) {
        self.serving.store(true, Ordering::Release);
    }

    /// Answers at these sockets, in tasks of `tasks`, until that drains.
    pub(super) fn serve(self: &Arc<Self>, sockets: Vec<std::net::TcpListener>, tasks: &DrainWatch) {
        let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        for listener in sockets.into_iter().filter_map(|socket| TcpListener::from_std(socket).ok()) {
            let (health, permits, watch) = (Arc::clone(self), Arc::clone(&permits), tasks.clone());
            tasks.spawn(async move {
                let stop = async {
                    watch.draining().await;
                    Queued::Left
                };
                accept(&listener, permits, stop, |stream, peer, permit| {
                    let (health, drain) = (Arc::clone(&health), watch.clone());
                    watch.spawn(async move {
                        let answer = |request| std::future::ready(Ok::<_, Infallible>(health.answer(&request)));
                        let connection = http1::Builder::new()
                            .timer(TokioTimer::new())
                            .header_read_timeout(PATIENCE)
                            .max_buf_size(MAX_HEAD)
                            .serve_connection(TokioIo::new(stream), service_fn(answer));
                        tokio::select! {
                            ended = connection => {
                                if let Err(error) = ended {
                                    tracing::debug!(%peer, %error, "a question for the server's health ended early");
                                }
                            }
                            () = drain.draining() => {}
                        }
                        drop(permit);
                    });
                })
                .await;
            });
        }
    }

    fn answer<B>(&self, request: &Request<B>) -> Response<Body> {
        let is_question = matches!(*request.method(), Method::GET | Method::HEAD);
        let (status, kind, text) = match request.uri().path() {
            _ if !is_question => (StatusCode::METHOD_NOT_ALLOWED, TEXT, "ask with GET\n".to_owned()),
            "/healthz" => (StatusCode::OK, TEXT, "ok\n".to_owned()),
            "/readyz" => self.ready(),
            _ => (StatusCode::NOT_FOUND, TEXT, "ask for /healthz or /readyz\n".to_owned()),
        };
        let mut response = Response::new(Body::full(text));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }

    fn ready(&self) -> (StatusCode, &'static str, String) {
        let (status, word) = if self.visitors.is_draining() {
            (StatusCode::SERVICE_UNAVAILABLE, "draining")
        } else if self.serving.load(Ordering::Acquire) {
            (StatusCode::OK, "ready")
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, "starting")
        };
        let (sessions, endpoints) = self.registry.count();
        let report = Report { status: word, version: env!("CARGO_PKG_VERSION"), sessions, endpoints };
        let text = serde_json::to_string(&report).unwrap_or_default() + "\n";
        (status, "application/json", text)
    }
}

const TEXT: &str = "text/plain; charset=utf-8";
/// Of those who ask.
const MAX_CONNECTIONS: usize = 64;
/// hyper takes no less.
const MAX_HEAD: usize = 8192;
/// For the head of a question, and between two on one connection.
const PATIENCE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drain::Drain;

    #[tokio::test]
    async fn it_is_ready_between_start_and_drain() {
        let (drain, watch) = Drain::new();
        let health = Health::new(Registry::for_test(), watch);
        let ask = |path: &str| health.answer(&Request::get(path).body(()).unwrap()).status().as_u16();
        assert_eq!((ask("/healthz"), ask("/readyz"), ask("/")), (200, 503, 404));
        health.note_serving();
        assert_eq!((ask("/healthz"), ask("/readyz")), (200, 200));
        drain.drain(Duration::ZERO, std::future::pending()).await;
        assert_eq!((ask("/healthz"), ask("/readyz")), (200, 503));
        assert_eq!(health.answer(&Request::post("/healthz").body(()).unwrap()).status(), 405);
    }
}
