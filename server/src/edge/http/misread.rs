//! Requests that hyper cannot read. It answers them with a bare head and ends the connection; what they get instead is
//! an answer like any other of ours, with a code and a word on the cause.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{HeaderName, StatusCode, header};
use http_body_util::{BodyExt, Collected};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use crate::proxy::activity::Activity;
use crate::proxy::respond::{Form, ProxyError};

/// More than the longest answer that hyper makes.
const LONGEST: usize = 256;

/// Withholds what looks like hyper's own answer until it is known whether it is that: hyper then closes the connection
/// and says that it could not parse. Whatever else comes of it, reading or writing, lets the bytes go.
pub(super) struct Withholding<S> {
    stream: S,
    activity: Arc<Activity>,
    bare: Vec<u8>,
    unflushed: bool,
}

impl<S> Withholding<S> {
    pub(super) fn new(stream: S, activity: Arc<Activity>) -> Self {
        Self { stream, activity, bare: Vec::new(), unflushed: false }
    }

    /// Where the answer begins that is to be withheld. While a request is under way, hyper says nothing of its own.
    fn bare_from(&self, bytes: &[u8]) -> Option<usize> {
        if !bytes.ends_with(b"\r\n\r\n") || !self.activity.is_idle() {
            return None;
        }
        let earliest = bytes.len().saturating_sub(LONGEST);
        (earliest..bytes.len()).find(|from| bytes.get(*from..).is_some_and(looks_bare))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Withholding<S> {
    /// Ends a connection that hyper has done with, because of a request that it could not read or for another reason.
    /// False if the visitor is gone.
    pub(super) async fn end(&mut self, misread: bool) -> bool {
        let bare = std::mem::take(&mut self.bare);
        let words = match misread {
            // Who has got answers before takes no other one for that of a request.
            true if !bare.is_empty() || self.activity.begun() == 0 => answer(&bare).await,
            _ if bare.is_empty() => return true,
            _ => bare,
        };
        let said = async {
            self.stream.write_all(&words).await?;
            self.stream.shutdown().await
        };
        said.await.is_ok()
    }
}

impl<S: AsyncWrite + Unpin> Withholding<S> {
    fn poll_let_go(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.bare.is_empty() {
            let count = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.bare))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.bare.drain(..count);
            self.unflushed = true;
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Withholding<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_let_go(cx))?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Withholding<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_let_go(cx))?;
        match self.bare_from(buf) {
            None => Pin::new(&mut self.stream).poll_write(cx, buf),
            Some(0) => {
                self.bare = buf.to_vec();
                Poll::Ready(Ok(buf.len()))
            }
            // The end of an answer that was asked for goes first.
            Some(from) => Pin::new(&mut self.stream).poll_write(cx, buf.get(..from).unwrap_or_default()),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut pieces = bufs.iter().filter(|piece| !piece.is_empty());
        let first = pieces.next();
        if let Some(piece) = first
            && pieces.next_back().or(first).is_some_and(|last| self.bare_from(last).is_some())
        {
            return self.poll_write(cx, piece);
        }
        ready!(self.poll_let_go(cx))?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// [`Self::end`] does it where something is withheld.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.bare.is_empty() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Whether these bytes look like hyper's own answer to a request that it cannot read: a head that says one of three
/// things, the end of the connection, and nothing more. An upstream's answer may look so as well.
fn looks_bare(bytes: &[u8]) -> bool {
    bytes.len() <= LONGEST && status(bytes).is_some() && bytes.ends_with(b"\r\n\r\n")
}

/// What a visitor is told in place of hyper's own answer, or of none.
async fn answer(bare: &[u8]) -> Vec<u8> {
    let status = status(bare).unwrap_or(StatusCode::BAD_REQUEST);
    let error = match status {
        StatusCode::URI_TOO_LONG => ProxyError::TooLarge(status, "its address is longer than 64 KiB"),
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => {
            ProxyError::TooLarge(status, "it has more than 100 headers, or more than 1 MiB of them")
        }
        _ => ProxyError::BadRequest("it cannot be read as HTTP/1.1"),
    };
    let (head, body) = error.answer(Form::Text).into_parts();
    // Made of what is there already: it cannot fail.
    let body = body.collect().await.map(Collected::to_bytes).unwrap_or_default();
    let mut bytes = format!("HTTP/1.1 {status}\r\n").into_bytes();
    let mut field = |name: &HeaderName, value: &[u8]| {
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value);
        bytes.extend_from_slice(b"\r\n");
    };
    for (name, value) in &head.headers {
        field(name, value.as_bytes());
    }
    field(&header::CONTENT_LENGTH, body.len().to_string().as_bytes());
    field(&header::CONNECTION, b"close");
    if let Some(date) = date(bare) {
        field(&header::DATE, date);
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(&body);
    bytes
}

fn status(bare: &[u8]) -> Option<StatusCode> {
    let after = bare.strip_prefix(b"HTTP/1.1 ").or_else(|| bare.strip_prefix(b"HTTP/1.0 "))?;
    let status = StatusCode::from_bytes(after.get(..3)?).ok()?;
    let told =
        [StatusCode::BAD_REQUEST, StatusCode::URI_TOO_LONG, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE];
    told.contains(&status).then_some(status)
}

/// What hyper wrote there.
fn date(bare: &[u8]) -> Option<&[u8]> {
    bare.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"date: ")?.strip_suffix(b"\r"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BARE: &[u8] = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\ndate: Sat, 21 Nov 2026 07:44:17 GMT\r\n\r\n";

    #[tokio::test]
    async fn a_bare_answer_becomes_one_with_a_code_and_a_cause() {
        assert!(looks_bare(BARE));
        let answer = String::from_utf8(answer(BARE).await).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 431 Request Header Fields Too Large\r\n"), "{head}");
        for line in ["hithe-error-code: ERR_HITHE_1400", "connection: close", "cache-control: no-store"] {
            assert!(head.contains(line), "no {line:?} in {head}");
        }
        assert!(head.ends_with("\r\ndate: Sat, 21 Nov 2026 07:44:17 GMT"), "{head}");
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{head}");
        assert!(body.contains("more than 100 headers") && body.ends_with("ERR_HITHE_1400\n"), "{body}");
    }

    #[test]
    fn other_answers_are_left_alone() {
        assert!(!looks_bare(b"HTTP/1.1 404 Not Found\r\nconnection: close\r\n\r\n"));
        assert!(!looks_bare(&BARE[..BARE.len() - 1]));
        assert!(!looks_bare(b"\r\n\r\n"));
        assert!(!looks_bare(&[BARE, &[b'x'; 256], b"\r\n\r\n"].concat()));
    }
}
