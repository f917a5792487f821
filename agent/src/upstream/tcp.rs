//! A TCP connection to an upstream, which learns when what it was sent broke off.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Dropped before its end was said (`shutdown`), it is reset (RFC 9293 §3.5.3): an upstream does not take a part of an
/// upload for the whole, as it would if it saw an orderly end.
#[derive(Debug)]
pub(super) struct Tcp {
    stream: TcpStream,
    ended: bool,
}

impl From<TcpStream> for Tcp {
    fn from(stream: TcpStream) -> Self {
        Self { stream, ended: false }
    }
}

impl Drop for Tcp {
    fn drop(&mut self) {
        if !self.ended {
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Tcp {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Tcp {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.ended = true;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// What the other side reads after four bytes.
    async fn read_on(with: impl AsyncFnOnce(Tcp)) -> io::Result<usize> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (stream, accepted) =
            tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        let (mut upstream, _) = accepted.unwrap();
        let mut tcp = Tcp::from(stream.unwrap());
        tcp.write_all(b"part").await.unwrap();
        let mut heard = [0; 8];
        upstream.read_exact(&mut heard[..4]).await.unwrap();
        with(tcp).await;
        upstream.read(&mut heard).await
    }

    #[tokio::test]
    async fn a_connection_that_breaks_off_is_reset_and_one_that_ends_is_not() {
        assert_eq!(read_on(async |mut tcp| tcp.shutdown().await.unwrap()).await.unwrap(), 0);
        let reset = read_on(async |tcp| drop(tcp)).await.unwrap_err();
        assert_eq!(reset.kind(), io::ErrorKind::ConnectionReset);
    }
}
