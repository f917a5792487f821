//! Upstreams below HTTP or beside its rules: echo, silence, sudden ends, scripted bytes, websockets, TLS.

use std::sync::Arc;

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::tls::self_signed;
use super::{Counters, Origin};

impl Origin {
    /// Sends back what it gets; answers the end of input with the end of output, after the last byte.
    pub async fn tcp_echo() -> Self {
        Self::serving(|stream, _| echo(stream)).await
    }

    /// The same behind TLS, with its own certificate for `name`.
    pub async fn tls_echo(name: &str) -> Self {
        Self::serving_tls(name, echo).await
    }

    /// An upstream that gives each TLS connection to `serve`, with its own certificate for `name`.
    pub async fn serving_tls<F>(
        name: &str,
        serve: impl Fn(TlsStream<TcpStream>) -> F + Clone + Send + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (acceptor, certificate) = self_signed(name, &[]);
        let mut origin = Self::serving(move |stream, _| {
            let (acceptor, serve) = (acceptor.clone(), serve.clone());
            async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    serve(stream).await;
                }
            }
        })
        .await;
        origin.certificate = Some(certificate);
        origin
    }

    /// Reads to the end of input, then answers how many bytes there were: needs half-close both ways.
    pub async fn counting_bytes() -> Self {
        Self::serving(|mut stream, _| async move {
            let counted = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.unwrap_or_default();
            let _ = stream.write_all(counted.to_string().as_bytes()).await;
            let _ = stream.shutdown().await;
        })
        .await
    }

    /// Speaks first, as an SMTP or SSH server does, then reads to the end.
    pub async fn greeting(line: &str) -> Self {
        let line = line.to_owned();
        Self::serving(move |mut stream, _| {
            let line = line.clone();
            async move {
                let _ = stream.write_all(line.as_bytes()).await;
                let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
            }
        })
        .await
    }

    /// Accepts and closes at once.
    pub async fn closing_at_once() -> Self {
        Self::serving(|stream, _| async move { drop(stream) }).await
    }

    /// Accepts, reads, and never says anything.
    pub async fn silent() -> Self {
        Self::serving(|mut stream, _| async move {
            let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
            std::future::pending().await
        })
        .await
    }

    /// Accepts and never reads: what is sent to it piles up on the way.
    pub async fn never_reading() -> Self {
        Self::serving(|stream, _| async move {
            std::future::pending::<()>().await;
            drop(stream);
        })
        .await
    }

    /// Reads a request's head, sends exactly these bytes and closes.
    pub async fn scripted(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes: Arc<[u8]> = bytes.into().into();
        Self::serving(move |stream, counters| script(stream, counters, Arc::clone(&bytes))).await
    }

    /// Answers in HTTP/1.0, without a length: the end of the connection is the end of the body.
    pub async fn http_1_0(body: &str) -> Self {
        Self::scripted(format!("HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n{body}")).await
    }

    /// A websocket that sends back each message, and the close.
    pub async fn websocket_echo() -> Self {
        Self::serving(|stream, counters| async move {
            let Ok(mut socket) = tokio_tungstenite::accept_async(stream).await else { return };
            counters.request();
            while let Some(Ok(message)) = socket.next().await {
                let echoed = message.is_text() || message.is_binary();
                if echoed && socket.send(message).await.is_err() {
                    break;
                }
            }
        })
        .await
    }
}

async fn echo(stream: impl AsyncRead + AsyncWrite) {
    let (mut input, mut output) = tokio::io::split(stream);
    let _ = tokio::io::copy(&mut input, &mut output).await;
    let _ = output.shutdown().await;
}

pub(super) async fn script(mut stream: TcpStream, counters: Arc<Counters>, bytes: Arc<[u8]>) {
    if read_head(&mut stream).await {
        counters.request();
        let _ = stream.write_all(&bytes).await;
        let _ = stream.shutdown().await;
    }
}

/// Reads up to the blank line; false if the connection ended before it.
async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> bool {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return false,
        }
    }
    true
}
