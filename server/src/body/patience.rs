//! How long a visitor may take over the body of a request.
//!
//! Only of a body whose length it has told: it has these bytes and need not make them up. A body without a length may be
//! one half of a conversation, which may fall silent.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::Frame;
use tokio::time::{Instant, Sleep, sleep};

use super::BodyError;

/// The visitor did not send the body that it had announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the body of the request came too slowly")]
pub(crate) struct SlowBody;

impl SlowBody {
    /// Whether it is the cause of an error.
    pub(crate) fn caused(error: &(dyn std::error::Error + 'static)) -> bool {
        let mut error = Some(error);
        while let Some(cause) = error {
            if cause.is::<Self>() {
                return true;
            }
            error = cause.source();
        }
        false
    }
}

/// Fails a body that brings less than [`PROGRESS`] within a time. The clock runs only while the body is waited for, and
/// stands still while nobody wants more of it.
#[derive(Debug)]
pub(super) struct Patience {
    limit: Duration,
    left: Duration,
    /// Bytes since the clock was set.
    brought: usize,
    waiting: Option<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    since: Instant,
    clock: Pin<Box<Sleep>>,
}

/// A line of 300 bits a second brings it within a minute, and no visitor has a slower one.
const PROGRESS: usize = 1024;

type Polled = Poll<Option<Result<Frame<Bytes>, BodyError>>>;

impl Patience {
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, left: limit, brought: 0, waiting: None }
    }

    pub(super) fn watch(&mut self, cx: &mut Context<'_>, polled: Polled) -> Polled {
        if polled.is_pending() {
            let left = self.left;
            let waiting = self
                .waiting
                .get_or_insert_with(|| Waiting { since: Instant::now(), clock: Box::pin(sleep(left)) });
            return waiting.clock.as_mut().poll(cx).map(|()| Some(Err(SlowBody.into())));
        }
        if let Some(waiting) = self.waiting.take() {
            self.left = self.left.saturating_sub(waiting.since.elapsed());
        }
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            self.brought += frame.data_ref().map_or(0, Bytes::len);
            if self.brought >= PROGRESS {
                (self.left, self.brought) = (self.limit, 0);
            }
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use tokio::time::advance;

    use super::*;

    fn wait(patience: &mut Patience) -> bool {
        let polled = patience.watch(&mut Context::from_waker(Waker::noop()), Poll::Pending);
        matches!(polled, Poll::Ready(Some(Err(error))) if SlowBody::caused(error.as_ref()))
    }

    fn bring(patience: &mut Patience, bytes: usize) {
        let frame = Frame::data(Bytes::from(vec![0; bytes]));
        let polled = patience.watch(&mut Context::from_waker(Waker::noop()), Poll::Ready(Some(Ok(frame))));
        assert!(matches!(polled, Poll::Ready(Some(Ok(_)))));
    }

    #[tokio::test(start_paused = true)]
    async fn drops_are_no_progress() {
        let mut patience = Patience::new(Duration::from_secs(60));
        for _ in 0..5 {
            assert!(!wait(&mut patience));
            advance(Duration::from_secs(10)).await;
            bring(&mut patience, 32);
        }
        assert!(!wait(&mut patience));
        advance(Duration::from_secs(11)).await;
        assert!(wait(&mut patience));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_line_and_an_upstream_that_does_not_read_are_left_alone() {
        let mut patience = Patience::new(Duration::from_secs(60));
        for _ in 0..100 {
            assert!(!wait(&mut patience));
            advance(Duration::from_secs(50)).await;
            bring(&mut patience, PROGRESS);
            // Nobody asks for more.
            advance(Duration::from_secs(600)).await;
        }
    }
}
