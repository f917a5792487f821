//! Frames of HTTP/2 that cost their sender nothing and us an answer: SETTINGS, PING and the like, sent without end
//! (CVE-2019-9512, CVE-2019-9515). The protocol bounds streams and bytes of bodies, but none of these.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::Instant;

use crate::proxy::activity::Activity;
use crate::wrapped::write_through;

/// Fails reading when there are too many of them. Counts frames as they pass, by their heads (RFC 9113 §4.1).
pub(super) struct Calm<S> {
    stream: S,
    activity: Arc<Activity>,
    frames: Frames,
}

/// Where in its frames a stream of bytes is, and how many of the idle kind there were.
#[derive(Debug)]
struct Frames {
    /// Bytes that belong to what was begun.
    rest: usize,
    head: [u8; HEAD],
    /// How much of a head has come.
    filled: usize,
    since: Instant,
    idle: u32,
}

impl<S> Calm<S> {
    pub(super) fn new(stream: S, activity: Arc<Activity>) -> Self {
        let frames = Frames { rest: PREFACE, head: [0; HEAD], filled: 0, since: Instant::now(), idle: 0 };
        Self { stream, activity, frames }
    }
}

impl Frames {
    /// Looks at more bytes: whether they are still within bounds.
    fn pass(&mut self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            let skipped = self.rest.min(bytes.len());
            self.rest -= skipped;
            bytes = bytes.get(skipped..).unwrap_or_default();
            let wanted = self.head.get_mut(self.filled..).unwrap_or_default();
            let taken = wanted.len().min(bytes.len());
            let (now, later) = bytes.split_at(taken);
            wanted.get_mut(..taken).unwrap_or_default().copy_from_slice(now);
            self.filled += taken;
            bytes = later;
            if self.filled == HEAD && !self.begin_frame() {
                return false;
            }
        }
        true
    }

    fn begin_frame(&mut self) -> bool {
        let [high, middle, low, kind, ..] = self.head;
        let length = u32::from_be_bytes([0, high, middle, low]);
        self.rest = length as usize;
        self.filled = 0;
        // What carries a request or a body is bounded otherwise.
        if matches!(kind, HEADERS | RST_STREAM | WINDOW_UPDATE) || kind == DATA && length > 0 {
            return true;
        }
        if self.since.elapsed() >= PERIOD {
            (self.since, self.idle) = (Instant::now(), 0);
        }
        self.idle += 1;
        self.idle <= MAX_IDLE
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Calm<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if self.frames.pass(buf.filled().get(before..).unwrap_or_default()) {
            return Poll::Ready(Ok(()));
        }
        self.activity.place.bar();
        Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "more frames than anybody needs")))
    }
}

write_through!(Calm<S>);

/// What a client begins with (RFC 9113 §3.4).
const PREFACE: usize = 24;
/// Bytes of a frame's head.
const HEAD: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const WINDOW_UPDATE: u8 = 8;

/// In each [`PERIOD`]. Clients that measure their line with PING send one for each round trip.
const MAX_IDLE: u32 = 20_000;
const PERIOD: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const PING: [u8; 17] = [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];

    fn frames() -> Frames {
        let mut frames = Frames { rest: PREFACE, head: [0; HEAD], filled: 0, since: Instant::now(), idle: 0 };
        assert!(frames.pass(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"));
        frames
    }

    #[tokio::test(start_paused = true)]
    async fn pings_without_end_are_too_many_however_they_are_cut() {
        for size in [1, 7, 17, 1000] {
            let mut frames = frames();
            let allowed = PING.repeat(MAX_IDLE as usize);
            assert!(allowed.chunks(size).all(|piece| frames.pass(piece)), "{size}");
            assert!(!PING.chunks(size).all(|piece| frames.pass(piece)), "{size}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn pings_at_a_pace_and_what_carries_something_are_fine() {
        let mut frames = frames();
        for _ in 0..10 {
            assert!(frames.pass(&PING.repeat(MAX_IDLE as usize)));
            advance(PERIOD).await;
        }
        let data =
            [&[0, 0, 1, DATA, 0, 0, 0, 0, 1, 6][..], &[0, 0, 4, WINDOW_UPDATE, 0, 0, 0, 0, 0, 6, 6, 6, 6]]
                .concat();
        assert!(frames.pass(&data.repeat(3 * MAX_IDLE as usize)));
        let empty = [0, 0, 0, DATA, 0, 0, 0, 0, 1];
        assert!(!frames.pass(&empty.repeat(MAX_IDLE as usize + 1)));
    }
}
