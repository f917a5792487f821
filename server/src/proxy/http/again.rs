//! Requests that may have to be sent a second time.
//!
//! A kept connection may have been closed by the upstream a moment ago, and an HTTP/2 upstream may refuse a stream
//! unread. A copy is made before a request goes; of a body it has what was read so far, as long as that is not much.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Method, Request};
use http_body::{Body as HttpBody, Frame, SizeHint};

use crate::body::{Body, BodyError};

/// A copy of a request.
pub(super) struct Again {
    request: Request<Body>,
    /// The body of the copy, where it has one.
    spare: Option<Arc<Mutex<Spare>>>,
    safe: bool,
}

impl Again {
    /// A copy of a request that may be sent twice although the upstream may have seen it (RFC 9110 §9.2.1 and §9.2.2).
    pub(super) fn of_safe(request: &Request<Body>) -> Option<Self> {
        let safe = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
        if !safe || !request.body().is_end_stream() {
            return None;
        }
        Some(Self { request: head(request), spare: None, safe })
    }

    /// A copy of any request, for an upstream that may say that it has not seen it. What is read of its body from now on
    /// is kept.
    pub(super) fn of_any(request: &mut Request<Body>) -> Self {
        if let Some(again) = Self::of_safe(request) {
            return again;
        }
        let mut copy = head(request);
        let mut spare = None;
        if !request.body().is_end_stream() {
            let inner = std::mem::replace(request.body_mut(), Body::empty());
            let kept = Arc::new(Mutex::new(Spare::new(inner)));
            *request.body_mut() = Body::made(Read { spare: Arc::clone(&kept), second: false });
            *copy.body_mut() = Body::made(Read { spare: Arc::clone(&kept), second: true });
            spare = Some(kept);
        }
        Self { request: copy, spare, safe: false }
    }

    /// The copy, if what became of the first one allows to send it.
    pub(super) fn take(mut self, refused: bool) -> Option<Request<Body>> {
        if !self.safe && !refused {
            return None;
        }
        if let Some(spare) = &self.spare {
            let mut spare = lock(spare);
            if spare.lost {
                return None;
            }
            spare.second = true;
        }
        self.spare = None;
        Some(std::mem::replace(&mut self.request, Request::new(Body::empty())))
    }
}

impl Drop for Again {
    /// Nothing has to be kept when the request was answered.
    fn drop(&mut self) {
        if let Some(spare) = &self.spare {
            lock(spare).lose();
        }
    }
}

fn head(request: &Request<Body>) -> Request<Body> {
    let mut copy = Request::new(Body::empty());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    copy
}

/// Bytes of one body that are kept.
const MOST: usize = 64 << 10;

/// A body, and what was read of it.
struct Spare {
    inner: Option<Body>,
    /// The last first, when they are read again.
    kept: Vec<Bytes>,
    bytes: usize,
    /// Something was read and not kept.
    lost: bool,
    /// Whether the copy goes on where the first one was. That one gets nothing more.
    second: bool,
}

impl Spare {
    fn new(inner: Body) -> Self {
        Self { inner: Some(inner), kept: Vec::new(), bytes: 0, lost: false, second: false }
    }

    fn lose(&mut self) {
        self.lost = true;
        self.kept = Vec::new();
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.second && !self.kept.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(self.kept.remove(0)))));
        }
        let Some(inner) = &mut self.inner else { return Poll::Ready(None) };
        let polled = Pin::new(inner).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) if !self.second && !self.lost => match frame.data_ref() {
                Some(data) if self.bytes + data.len() <= MOST => {
                    self.bytes += data.len();
                    self.kept.push(data.clone());
                }
                _ => self.lose(),
            },
            Poll::Ready(None) => self.inner = None,
            _ => {}
        }
        polled
    }
}

fn lock(spare: &Mutex<Spare>) -> MutexGuard<'_, Spare> {
    spare.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One of the two that read a body.
struct Read {
    spare: Arc<Mutex<Spare>>,
    second: bool,
}

impl HttpBody for Read {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut spare = lock(&self.spare);
        if spare.second != self.second {
            return Poll::Ready(Some(Err("the other one reads it".into())));
        }
        spare.poll(cx)
    }

    fn size_hint(&self) -> SizeHint {
        let spare = lock(&self.spare);
        let kept = if self.second { spare.kept.iter().map(Bytes::len).sum::<usize>() as u64 } else { 0 };
        let inner = spare.inner.as_ref().map_or(SizeHint::with_exact(0), HttpBody::size_hint);
        let mut hint = SizeHint::new();
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper.saturating_add(kept));
        }
        hint.set_lower(inner.lower().saturating_add(kept));
        hint
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, StreamBody};

    use super::*;

    fn post(pieces: &[usize]) -> Request<Body> {
        let frames: Vec<Result<_, BodyError>> =
            pieces.iter().map(|size| Ok(Frame::data(Bytes::from(vec![*size as u8; *size])))).collect();
        let body = Body::made(StreamBody::new(futures_util::stream::iter(frames)));
        let mut request = Request::new(body);
        *request.method_mut() = Method::POST;
        request
    }

    #[tokio::test]
    async fn a_body_that_was_partly_read_is_whole_in_the_copy() {
        for read in 0..3 {
            let mut request = post(&[3, 5, 7]);
            let again = Again::of_any(&mut request);
            for _ in 0..read {
                request.body_mut().frame().await.unwrap().unwrap();
            }
            let copy = again.take(true).unwrap();
            let whole = [vec![3; 3], vec![5; 5], vec![7; 7]].concat();
            assert_eq!(copy.into_body().collect().await.unwrap().to_bytes(), whole);
            assert!(request.body_mut().frame().await.unwrap().is_err(), "nobody else reads it meanwhile");
        }
    }

    #[tokio::test]
    async fn a_request_that_may_have_been_seen_or_is_too_long_has_no_copy() {
        assert!(Again::of_any(&mut post(&[1])).take(false).is_none());
        let mut long = post(&[MOST, 1]);
        let again = Again::of_any(&mut long);
        for _ in 0..2 {
            long.body_mut().frame().await.unwrap().unwrap();
        }
        assert!(again.take(true).is_none());
        let mut get = Request::new(Body::empty());
        assert!(Again::of_any(&mut get).take(false).is_some());
        assert!(Again::of_safe(&post(&[1])).is_none());
    }

    #[tokio::test]
    async fn a_request_that_was_answered_is_read_to_its_end_and_not_kept() {
        let mut request = post(&[3, 5]);
        let again = Again::of_any(&mut request);
        request.body_mut().frame().await.unwrap().unwrap();
        drop(again);
        assert_eq!(request.into_body().collect().await.unwrap().to_bytes(), vec![5; 5]);
    }
}
