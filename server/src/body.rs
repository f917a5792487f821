//! The bodies that pass through the proxy: streamed, never collected.
//!
//! A body that is polled only when the other side wants more *is* the back-pressure. What has to happen when a
//! response is over (count it, keep its upstream connection) hangs on the [`Body`] and runs when it is dropped.

mod patience;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;

pub(crate) use patience::SlowBody;

use self::patience::Patience;
use crate::visit::{CutOff, STALLED};

/// The header that only Hithe itself may send.
pub(crate) const ERROR_CODE: HeaderName = HeaderName::from_static("hithe-error-code");

/// The body of a request, or of a response to a visitor.
pub(crate) struct Body {
    content: Content,
    ending: Option<Box<dyn Ending>>,
    sent: u64,
    ended: bool,
    progress: Option<Arc<Progress>>,
    /// Why it broke off, where that is known.
    fault: Option<&'static str>,
    held: Option<Box<dyn Send>>,
    patience: Option<Box<Patience>>,
}

enum Content {
    Empty,
    Full(Bytes),
    /// From a visitor, or from the upstream.
    Stream(Incoming),
    /// What a module makes of another body.
    Made(Pin<Box<dyn HttpBody<Data = Bytes, Error = BodyError> + Send>>),
}

/// Why a body broke off: the connection it came over, or who changes it.
pub(crate) type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// What happens once when a response is over.
pub(crate) trait Ending: Send {
    fn ended(&mut self, outcome: Outcome);

    /// Ready when the response may go on.
    fn poll_room(&self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    fn note_handed_out(&self, _bytes: usize) {}
}

/// How a response went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Whether the body was taken to its end.
    pub(crate) complete: bool,
    /// Bytes of the body.
    pub(crate) sent: u64,
    /// Why it was not, where that is known.
    pub(crate) fault: Option<&'static str>,
}

impl Body {
    pub(crate) fn empty() -> Self {
        Self::of(Content::Empty)
    }

    pub(crate) fn full(bytes: impl Into<Bytes>) -> Self {
        Self::of(Content::Full(bytes.into()))
    }

    pub(crate) fn stream(incoming: Incoming) -> Self {
        if incoming.is_end_stream() { Self::empty() } else { Self::of(Content::Stream(incoming)) }
    }

    /// A body that a module makes of another one.
    pub(crate) fn made(content: impl HttpBody<Data = Bytes, Error = BodyError> + Send + 'static) -> Self {
        Self::of(Content::Made(Box::pin(content)))
    }

    /// Keeps `held` as long as this body is not over.
    pub(crate) fn holding(mut self, held: impl Send + 'static) -> Self {
        self.held = Some(Box::new(held));
        self
    }

    /// Fails it if it is of a known length and its visitor brings too little of it within this time.
    pub(crate) fn within(mut self, limit: Duration) -> Self {
        let is_known = self.size_hint().exact().is_some();
        self.patience = is_known.then(|| Box::new(Patience::new(limit)));
        self
    }

    /// Runs `ending` when this response is over, and tells whoever runs the task how it gets on.
    pub(crate) fn with_ending(mut self, ending: Box<dyn Ending>) -> Self {
        self.ending = Some(ending);
        self.progress = Progress::of_this_task();
        self
    }

    fn of(content: Content) -> Self {
        let ended = matches!(content, Content::Empty);
        Self {
            content,
            ending: None,
            sent: 0,
            ended,
            progress: None,
            fault: None,
            held: None,
            patience: None,
        }
    }

    fn poll_content(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.content {
            Content::Empty => Poll::Ready(None),
            Content::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                self.content = Content::Empty;
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            Content::Stream(incoming) => {
                Pin::new(incoming).poll_frame(cx).map(|frame| frame.map(|it| it.map_err(Into::into)))
            }
            Content::Made(made) => made.as_mut().poll_frame(cx),
        }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(ending) = &self.ending {
            ready!(ending.poll_room(cx));
        }
        let mut polled = self.poll_content(cx);
        if let Some(patience) = &mut self.patience {
            polled = patience.watch(cx, polled);
        }
        if let Some(progress) = &self.progress {
            progress.note(matches!(polled, Poll::Ready(Some(_))));
        }
        let mut frame = ready!(polled);
        match &mut frame {
            None => self.ended = true,
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.sent += data.len() as u64;
                    if let Some(ending) = &self.ending {
                        ending.note_handed_out(data.len());
                    }
                }
                if let Some(trailers) = frame.trailers_mut() {
                    scrub(trailers);
                    // Trailers are the last frame of a message.
                    self.ended = true;
                }
            }
            Some(Err(error)) => self.fault = CutOff::of(error.as_ref()).map(CutOff::text),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Empty => true,
            Content::Full(bytes) => bytes.is_empty(),
            Content::Stream(incoming) => incoming.is_end_stream(),
            Content::Made(made) => made.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Empty => SizeHint::with_exact(0),
            Content::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::Stream(incoming) => incoming.size_hint(),
            Content::Made(made) => made.size_hint(),
        }
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        if let Some(mut ending) = self.ending.take() {
            let complete = self.ended || self.is_end_stream();
            let stalled = self.progress.as_ref().is_some_and(|progress| progress.is_cut());
            let fault = self.fault.or(stalled.then_some(STALLED)).filter(|_| !complete);
            ending.ended(Outcome { complete, sent: self.sent, fault });
        }
    }
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Body").field("sent", &self.sent).field("ended", &self.ended).finish_non_exhaustive()
    }
}

tokio::task_local! {
    static PROGRESS: Arc<Progress>;
}

/// How the response of a task gets on. Whoever takes a body polls it only when there is room for more, so a body
/// that handed out a frame and is not polled again waits for its visitor.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    frames: AtomicU64,
    owed: AtomicBool,
    cut: AtomicBool,
}

impl Progress {
    /// Runs a task whose response tells its progress here.
    pub(crate) async fn of_task(progress: Arc<Self>, task: impl Future<Output = ()>) {
        PROGRESS.scope(progress, task).await;
    }

    /// Frames that were handed out.
    pub(crate) fn seen(&self) -> u64 {
        self.frames.load(Ordering::Acquire)
    }

    /// The task is about to be ended because its visitor takes nothing.
    pub(crate) fn cut(&self) {
        self.cut.store(true, Ordering::Release);
    }

    fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Acquire)
    }

    pub(crate) fn waits_for_visitor(&self) -> bool {
        self.owed.load(Ordering::Acquire)
    }

    fn of_this_task() -> Option<Arc<Self>> {
        PROGRESS.try_with(Arc::clone).ok()
    }

    fn note(&self, handed_out: bool) {
        if handed_out {
            self.frames.fetch_add(1, Ordering::AcqRel);
        }
        self.owed.store(handed_out, Ordering::Release);
    }
}

/// Takes out of trailers what would have been taken out of headers, whichever way they go.
fn scrub(trailers: &mut HeaderMap) {
    trailers.remove(ERROR_CODE);
    trailers.remove(http::header::SET_COOKIE);
    remove_claims(trailers);
}

/// Removes what only we know, of a visitor and of its certificate, so that nobody else can say it. Allocates only where
/// somebody did.
pub(crate) fn remove_claims(headers: &mut HeaderMap) {
    let claimed: Vec<HeaderName> = headers.keys().filter(|name| is_claim(name.as_str())).cloned().collect();
    for name in claimed {
        headers.remove(name);
    }
}

/// What even a trusted proxy cannot say: what we know of certificates, and names that would be taken for others.
pub(crate) fn remove_false_claims(headers: &mut HeaderMap) {
    let is_false = |name: &str| is_claim(name) && (name.contains('_') || !is_forwarded(name));
    let claimed: Vec<HeaderName> = headers.keys().filter(|name| is_false(name.as_str())).cloned().collect();
    for name in claimed {
        headers.remove(name);
    }
}

fn is_forwarded(name: &str) -> bool {
    name.starts_with("x-forwarded-") || name == "forwarded" || name == "x-real-ip"
}

/// Also with underscores: CGI, and what follows it, makes the same variable of both (RFC 3875 §4.1.18).
fn is_claim(name: &str) -> bool {
    let matches = |claim: &str, whole: bool| {
        let said = name.bytes().map(|byte| if byte == b'_' { b'-' } else { byte });
        if whole { said.eq(claim.bytes()) } else { said.take(claim.len()).eq(claim.bytes()) }
    };
    matches("x-forwarded-", false)
        || matches("hithe-mtls-", false)
        || matches("forwarded", true)
        || matches("x-real-ip", true)
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    struct Told(Arc<AtomicU64>);

    impl Ending for Told {
        fn ended(&mut self, outcome: Outcome) {
            self.0.store(if outcome.complete { outcome.sent } else { u64::MAX }, Ordering::SeqCst);
        }
    }

    #[tokio::test]
    async fn a_body_tells_its_size_when_it_is_over() {
        let told = Arc::new(AtomicU64::new(0));
        let body = Body::full("hello").with_ending(Box::new(Told(Arc::clone(&told))));
        assert_eq!(body.collect().await.unwrap().to_bytes(), "hello");
        assert_eq!(told.load(Ordering::SeqCst), 5);
    }

    #[test]
    fn a_body_that_was_dropped_early_is_not_complete() {
        let told = Arc::new(AtomicU64::new(0));
        drop(Body::full("hello").with_ending(Box::new(Told(Arc::clone(&told)))));
        assert_eq!(told.load(Ordering::SeqCst), u64::MAX);
    }
}
