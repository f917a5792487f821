//! Connections of visitors that speak HTTP/1 or HTTP/2, whether TLS was ended on them or not.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hithe_cli_parser::Code;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::{HttpService, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};

use self::broken::ResetIfBroken;
use self::calm::Calm;
use self::misread::Withholding;
use self::patience::Patience;
use self::streams::{Heads, Spawner, upload};
use super::EdgeContext;
use super::accept::{accept, until_drained};
use super::arrival::introduce;
use super::linger::{hurried, linger};
use super::place::{by_host, place};
use crate::body::Body;
use crate::config::ListenerKind;
use crate::drain::DrainWatch;
use crate::proxy::activity::Activity;
use crate::proxy::http::{Connection, Secured};
use crate::proxy::respond::Form;
use crate::stall::StallGuard;
use crate::visit::Visitor;

mod broken;
mod calm;
mod misread;
mod patience;
mod streams;

/// An HTTP/1 connection that idles for this long gives its buffers back, which are most of what it costs.
const REST: Duration = Duration::from_millis(100);

/// For a request that may be on its way when the drain begins.
const LAST_REQUEST: Duration = Duration::from_secs(1);

/// What an idle visitor has left to say goodbye (HTTP/2 waits for an answer to its last ping).
const GOODBYE: Duration = Duration::from_secs(10);

/// Method, target and headers of a request.
const MAX_HEAD: usize = 1 << 20;

/// What a visitor may have on its way to us: per upload, and per connection.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;

/// What may wait here for a visitor, per download.
const SEND_BUFFER: usize = 128 * 1024;

/// Streams that a visitor opened and reset at once, before the connection is closed (CVE-2023-44487).
const MAX_PENDING_RESETS: usize = 32;
/// Streams that we had to reset (CVE-2025-8671).
const MAX_LOCAL_RESETS: usize = 256;

const PING_INTERVAL: Duration = Duration::from_secs(60);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// For a visitor from a network that has too many connections.
const TOO_MANY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
    Content-Type: text/plain; charset=utf-8\r\n\
    Cache-Control: no-store\r\n\
    hithe-error-code: ERR_HITHE_715\r\n\
    Content-Length: 64\r\n\
    Connection: close\r\n\r\n\
    There are too many connections from your network.\nERR_HITHE_715\n";

/// Serves plain HTTP until the drain begins.
pub(crate) async fn serve(listener: TcpListener, edge: Arc<EdgeContext>) {
    let permits = Arc::clone(&edge.visitors);
    accept(&listener, permits, until_drained(&edge.visits), |mut stream, peer, permit| {
        let edge = Arc::clone(&edge);
        let drain = edge.visits.clone();
        drain.spawn(async move {
            let introduced = introduce(&mut stream, peer, ListenerKind::Http, &edge.site.trust).await;
            let Some(visitor) = introduced else { return };
            let Some(place_held) = edge.admit(&stream, visitor.ip(), TOO_MANY) else { return };
            let Some((parcel, worker)) = place(&edge, stream, by_host).await else { return };
            let drain = edge.visits.clone();
            let served = async move {
                let Ok(stream) = parcel.unpack() else { return };
                let stream = StallGuard::new(stream, edge.site.visitors.limits.stall);
                let activity = Activity::new(permit, place_held);
                let stream = ResetIfBroken::new(stream, Arc::clone(&activity));
                http1(&edge, stream, visitor, None, activity).await;
            };
            drain.spawn_on(served, worker.runtime());
        });
    })
    .await;
}

/// Serves one HTTP/1.0 or HTTP/1.1 connection to its end.
pub(super) async fn http1(
    edge: &EdgeContext,
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    visitor: Visitor,
    tls: Option<Secured>,
    activity: Arc<Activity>,
) {
    let connection = Connection::new(Arc::clone(&edge.site), visitor, tls, Arc::clone(&activity));
    // hyper's own limit for reading a head also runs between requests, where five minutes are allowed.
    let stream = Withholding::new(stream, Arc::clone(&activity));
    let mut stream = Patience::new(stream, Arc::clone(&activity));
    loop {
        let connection = Arc::clone(&connection);
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(None)
            .max_header_size(MAX_HEAD)
            .max_buf_size(MAX_HEAD)
            // A visitor that closes its side has left: what it asked for need not be fetched to the end.
            .half_close(false)
            .serve_connection(
                TokioIo::new(stream),
                service_fn(move |request: Request<Incoming>| answer(&connection, request.map(Body::stream))),
            )
            .with_upgrades();
        // On the heap once: an async fn would hold it wherever it is handed on, and idle connections are many.
        let Some(resting) = until_rest(Box::new(served), &activity, &edge.visits).await else { return };
        stream = resting;
        let goes_on = tokio::select! {
            goes_on = stream.wait_for_request() => goes_on,
            () = sleep(activity.place.limits().idle) => false,
            () = edge.visits.draining_for(LAST_REQUEST) => false,
        };
        if !goes_on {
            // Nobody waits for an answer: a visitor that does not take the goodbye goes without.
            let _ = timeout(GOODBYE, stream.shutdown()).await;
            return;
        }
    }
}

type Http1<S, A> = http1::UpgradeableConnection<TokioIo<Patience<Withholding<S>>>, A>;

/// Runs an HTTP/1 connection until it is over, or idles: then it gives its stream back.
async fn until_rest<S, A>(
    mut served: Box<Http1<S, A>>,
    activity: &Activity,
    drain: &DrainWatch,
) -> Option<Patience<Withholding<S>>>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    A: HttpService<Incoming, ResBody = Body> + Unpin,
    A::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let result = tokio::select! {
        result = &mut *served => result,
        () = activity.rests_for(REST) => return resting(*served),
        () = activity.idle_for(activity.place.limits().idle) => {
            Pin::new(&mut *served).graceful_shutdown();
            let _ = timeout(GOODBYE, served).await;
            return None;
        }
        asked = last_request(activity, drain) => {
            // hyper would wait for a first one.
            if !asked && activity.begun() == 0 {
                return resting(*served);
            }
            Pin::new(&mut *served).graceful_shutdown();
            (&mut *served).await
        }
    };
    log_end(&result, activity);
    // There are none if it speaks another protocol by now.
    let parts = served.into_parts()?;
    let misread = result.as_ref().is_err_and(hyper::Error::is_parse);
    if result.is_err() && !misread {
        return None;
    }
    let sends_on = misread || activity.may_send_on() || !parts.read_buf.is_empty();
    // It may be large.
    drop(parts.read_buf);
    let mut stream = parts.io.into_inner();
    if stream.get_mut().end(misread).await && sends_on {
        hurried(linger(stream.get_mut()), drain).await;
    }
    None
}

/// Takes a connection out of hyper, with what was read ahead.
fn resting<S, A>(served: Http1<S, A>) -> Option<Patience<Withholding<S>>>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    A: HttpService<Incoming, ResBody = Body> + Unpin,
    A::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let parts = served.into_parts()?;
    let mut stream = parts.io.into_inner();
    stream.give_back(&parts.read_buf);
    Some(stream)
}

/// Resolves when a connection is to end because the server drains, and says whether the last request has begun: with its
/// answer the visitor learns of the end. An end without one could cross with a request that would be lost.
async fn last_request(activity: &Activity, drain: &DrainWatch) -> bool {
    drain.draining().await;
    activity.next_begins_within(LAST_REQUEST).await
}

/// As above for HTTP/2, whose end crosses with no request. But hyper ends a connection without a word that has not said
/// yet what it is.
async fn first_request(activity: &Activity, drain: &DrainWatch) {
    drain.draining().await;
    if activity.begun() == 0 {
        activity.next_begins_within(LAST_REQUEST).await;
    }
}

/// Serves one HTTP/2 connection to its end.
pub(super) async fn http2(
    edge: &EdgeContext,
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    visitor: Visitor,
    tls: Secured,
    activity: Arc<Activity>,
) {
    let connection = Connection::new(Arc::clone(&edge.site), visitor, Some(tls), Arc::clone(&activity));
    let (visits, heads) = (edge.visits.clone(), Heads::new());
    let limits = &edge.site.visitors.limits;
    let stream = Calm::new(stream, Arc::clone(&activity));
    let served = http2::Builder::new(Spawner { tasks: edge.visits.clone(), stall: limits.stall })
        .timer(TokioTimer::new())
        .max_header_list_size(MAX_HEAD as u32)
        .max_concurrent_streams(limits.streams)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .max_local_error_reset_streams(MAX_LOCAL_RESETS)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .serve_connection(
            TokioIo::new(stream),
            service_fn(move |request: Request<Incoming>| {
                answer_stream(&connection, request.map(|body| upload(body, &visits)), &heads)
            }),
        );
    // On the heap once: an async fn would hold it wherever it is handed on, and idle connections are many.
    finish(Box::pin(served), &activity, &edge.visits).await;
}

fn answer(
    connection: &Arc<Connection>,
    request: Request<Body>,
) -> impl Future<Output = Result<Response<Body>, Infallible>> + Send + use<> {
    let connection = Arc::clone(connection);
    async move { Ok(crate::proxy::http::serve(connection, request).await) }
}

/// The same, on a connection that carries many requests at a time.
fn answer_stream(
    connection: &Arc<Connection>,
    request: Request<Body>,
    heads: &Heads,
) -> impl Future<Output = Result<Response<Body>, Infallible>> + Send + use<> {
    let connection = Arc::clone(connection);
    let admitted = heads.admit(&request);
    async move {
        Ok(match admitted {
            Ok(None) => crate::proxy::http::serve(connection, request).await,
            Ok(Some(permit)) => {
                crate::proxy::http::serve(connection, request).await.map(|body| body.holding(permit))
            }
            Err(error) => error.answer(Form::wanted(request.headers())),
        })
    }
}

/// Resolves when a connection idles for too long, or has asked for nothing within the time for a head.
async fn idle(activity: &Activity) {
    let limits = activity.place.limits();
    sleep(limits.head).await;
    if activity.begun() > 0 {
        activity.idle_for(limits.idle).await;
    }
}

/// Runs a connection to its end, which comes early when it idles, is outdated, or the server drains.
async fn finish(mut served: Pin<Box<impl Graceful>>, activity: &Activity, drain: &DrainWatch) {
    let idle = tokio::select! {
        result = &mut served => return log_end(&result, activity),
        () = idle(activity) => true,
        () = activity.outdated() => false,
        () = first_request(activity, drain) => false,
    };
    served.as_mut().end_soon();
    tokio::select! {
        result = &mut served => log_end(&result, activity),
        // A drain has its own end, and what still runs on an outdated connection its time; a visitor that idles has
        // had it.
        () = sleep(GOODBYE), if idle => {}
    }
}

/// Comes before the connection is dropped, and with it the responses that it did not finish.
fn log_end(result: &hyper::Result<()>, activity: &Activity) {
    let Err(error) = result else { return };
    let cause = std::error::Error::source(error);
    let timed_out = cause
        .and_then(|cause| cause.downcast_ref::<io::Error>())
        .is_some_and(|cause| cause.kind() == io::ErrorKind::TimedOut);
    let stalled = timed_out && !activity.is_idle();
    if stalled {
        activity.stall();
    } else if timed_out {
        activity.place.metrics().refused(Code::SLOW_HEAD);
    }
    if is_flood(error) {
        activity.place.bar();
    }
    // What hyper blames us for is a body that failed.
    if stalled || error.is_user() {
        activity.break_off();
    }
    tracing::debug!(%error, cause = cause.map(ToString::to_string), "a visitor's connection ended early");
}

/// Whether h2 ended the connection because of what its other end sent (RFC 9113 §10.5).
fn is_flood(error: &hyper::Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<h2::Error>());
    cause.and_then(h2::Error::reason) == Some(h2::Reason::ENHANCE_YOUR_CALM)
}

/// A connection that can be asked to finish what it has begun.
trait Graceful: Future<Output = hyper::Result<()>> {
    fn end_soon(self: Pin<&mut Self>);
}

impl<I, S> Graceful for http1::UpgradeableConnection<I, S>
where
    Self: Future<Output = hyper::Result<()>>,
    S: HttpService<Incoming, ResBody = Body>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    fn end_soon(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl<I, S> Graceful for http2::Connection<I, S, Spawner>
where
    Self: Future<Output = hyper::Result<()>>,
    S: HttpService<Incoming, ResBody = Body>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    S::Future: Send + 'static,
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
{
    fn end_soon(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}
