//! The end of a connection whose visitor may still be sending.
//!
//! A socket that is closed with bytes unread, or to which more come, answers with a reset, and a reset may take away the
//! last answer from a visitor that has not read it yet (RFC 9112 §9.6).

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::{sleep, timeout};

use crate::drain::DrainWatch;

/// A visitor that sends nothing for this long has read what it was told, or never will.
const SILENCE: Duration = Duration::from_secs(2);

/// Who still sends after this is reset.
const LONGEST: Duration = Duration::from_secs(30);

/// Reads on and keeps nothing, until the visitor closes its side or falls silent, or its time is over. Our side must be
/// closed already.
pub(super) async fn linger<S: AsyncRead + Unpin>(stream: &mut S) {
    let mut unread = vec![0; 16 * 1024];
    linger_over(|cx| {
        let mut buffer = ReadBuf::new(&mut unread);
        let read = Pin::new(&mut *stream).poll_read(cx, &mut buffer);
        read.map(|read| read.is_ok() && !buffer.filled().is_empty())
    })
    .await;
}

/// The same of what comes in other pieces than bytes. `poll_next` takes one, and says whether there was one.
pub(super) async fn linger_over(mut poll_next: impl FnMut(&mut Context<'_>) -> Poll<bool>) {
    let read_on = async { while let Ok(true) = timeout(SILENCE, poll_fn(&mut poll_next)).await {} };
    let _ = timeout(LONGEST, read_on).await;
}

/// Does not hold up the end of the server.
pub(super) async fn hurried(lingering: impl Future<Output = ()>, drain: &DrainWatch) {
    let hurry = async {
        drain.draining().await;
        sleep(SILENCE).await;
    };
    tokio::select! {
        () = lingering => {}
        () = hurry => {}
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_silent_visitor_is_left_after_2_seconds() {
        let (_visitor, mut stream) = tokio::io::duplex(64);
        let started = Instant::now();
        linger(&mut stream).await;
        assert_eq!(started.elapsed(), SILENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_visitor_that_sends_for_ever_is_left_after_30_seconds() {
        let (mut visitor, mut stream) = tokio::io::duplex(64);
        let started = Instant::now();
        let send = async {
            loop {
                visitor.write_all(b"more").await.unwrap();
                sleep(Duration::from_secs(1)).await;
            }
        };
        tokio::select! {
            () = linger(&mut stream) => {}
            () = send => {}
        }
        assert_eq!(started.elapsed(), LONGEST);
    }

    #[tokio::test]
    async fn nobody_waits_for_a_visitor_that_has_closed() {
        let (mut visitor, mut stream) = tokio::io::duplex(64);
        visitor.write_all(b"the rest").await.unwrap();
        drop(visitor);
        let started = Instant::now();
        linger(&mut stream).await;
        assert!(started.elapsed() < SILENCE);
    }
}
