//! The streams of an HTTP/2 connection: each has an owner, and ends when its visitor takes nothing.
//!
//! On HTTP/1 a visitor that takes nothing blocks its socket. A stream can be blocked alone, by its own window, while
//! the socket is well; its response would then wait in the tunnel for ever.
//!
//! A request that is answered before it has come whole would be reset behind its answer, as RFC 9113 §8.1 has it. Some
//! visitors (curl before version 8) forget the answer then: their uploads are read on for a while.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;

use super::super::linger::{hurried, linger_over};
use crate::body::{Body, BodyError, Progress};
use crate::drain::DrainWatch;
use crate::proxy::respond::ProxyError;

/// Gives the streams of a connection to the owner of all visits.
#[derive(Clone)]
pub(super) struct Spawner {
    pub(super) tasks: DrainWatch,
    /// How long a stream may wait for its visitor.
    pub(super) stall: Duration,
}

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Spawner {
    fn execute(&self, stream: F) {
        let limit = self.stall;
        self.tasks.spawn(async move {
            let progress = Arc::new(Progress::default());
            tokio::select! {
                // hyper resets a stream that is dropped.
                () = stalled(&progress, limit) => {}
                () = Progress::of_task(Arc::clone(&progress), stream) => {}
            }
        });
    }
}

/// Resolves after once to twice the limit without progress, for one timer and no work in between. Says so to the
/// response before that: `select!` drops the stream, and with it what tells of the visit, before it goes on.
async fn stalled(progress: &Progress, limit: Duration) {
    let mut seen = progress.seen();
    loop {
        sleep(limit).await;
        let now = progress.seen();
        if now == seen && progress.waits_for_visitor() {
            progress.cut();
            return;
        }
        seen = now;
    }
}

/// A head that is no larger costs nothing to speak of, however many there are.
const SMALL_HEAD: usize = 16 * 1024;

/// What the larger heads of all requests under way on one connection may have together.
const LARGE_HEADS: usize = 4 << 20;

/// Counts the large heads of a connection. A header that was sent once is meant again with one byte, so that a few
/// kilobytes on the wire could be a head of a megabyte for each of many streams.
pub(super) struct Heads(Arc<Semaphore>);

impl Heads {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(LARGE_HEADS)))
    }

    /// What this gives is to be kept as long as the request is under way.
    pub(super) fn admit<B>(&self, request: &Request<B>) -> Result<Option<OwnedSemaphorePermit>, ProxyError> {
        let headers = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len());
        let path = request.uri().path_and_query().map_or(0, |path| path.as_str().len());
        let size = headers.sum::<usize>() + path;
        if size <= SMALL_HEAD {
            return Ok(None);
        }
        let permits = u32::try_from(size).unwrap_or(u32::MAX);
        let admitted = Arc::clone(&self.0).try_acquire_many_owned(permits).map(Some);
        admitted.map_err(|_| {
            ProxyError::TooLarge(
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "the requests under way on this connection have more than 4 MiB of headers",
            )
        })
    }
}

/// The body of a request, whose rest is read and forgotten when nobody wants it any more.
pub(super) fn upload(incoming: Incoming, visits: &DrainWatch) -> Body {
    if incoming.is_end_stream() {
        return Body::empty();
    }
    Body::made(Upload { incoming: Some(incoming), visits: visits.clone() })
}

struct Upload {
    /// Gone only when this is dropped.
    incoming: Option<Incoming>,
    visits: DrainWatch,
}

impl HttpBody for Upload {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.incoming {
            Some(incoming) => {
                Pin::new(incoming).poll_frame(cx).map(|frame| frame.map(|it| it.map_err(Into::into)))
            }
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map(HttpBody::size_hint).unwrap_or_default()
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let rest = self.incoming.take().filter(|incoming| !incoming.is_end_stream());
        // There is no runtime any more when the program ends.
        if let (Some(mut rest), Ok(_)) = (rest, Handle::try_current()) {
            let visits = self.visits.clone();
            self.visits.spawn(async move {
                let read_on = linger_over(|cx| {
                    Pin::new(&mut rest).poll_frame(cx).map(|frame| matches!(frame, Some(Ok(_))))
                });
                hurried(read_on, &visits).await;
            });
        }
    }
}
