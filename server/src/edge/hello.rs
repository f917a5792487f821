//! What a connection to the https port begins with, read within bounds and then replayed.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};
use tokio::time::timeout;

use crate::wrapped::write_through;

/// A ClientHello with post-quantum key shares has about 2 KB; one over this is no visitor.
const HELLO_LIMIT: usize = 16 * 1024;

/// Most ClientHellos come whole in one read of this size.
const READ: usize = 2048;

/// The first byte of every TLS handshake record.
const HANDSHAKE_RECORD: u8 = 0x16;

/// The alert for what is not even a handshake (RFC 8446 §6.2), where rustls has none to give.
const DECODE_ERROR: [u8; 7] = [0x15, 3, 3, 0, 2, 2, 50];

/// What a connection begins with.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Opening {
    /// TLS, with the name in the SNI in lower case, if there is one.
    Tls(Option<String>),
    /// Most likely plain HTTP.
    Other,
}

/// Why a connection got no further.
#[derive(Debug, thiserror::Error)]
pub(super) enum HelloError {
    #[error("the visitor said nothing")]
    Silent,
    #[error("the visitor left before it said what it wants")]
    Left(#[from] io::Error),
    #[error("the ClientHello is larger than 16 KiB")]
    TooLarge,
    /// The alert goes to the visitor.
    #[error("the ClientHello is malformed")]
    Malformed { alert: Vec<u8>, source: rustls::Error },
}

/// Waits for the first bytes. The caller bounds the time after the first byte.
pub(super) async fn first_byte<S: AsyncRead + Unpin>(
    mut stream: S,
    limit: Duration,
) -> Result<Replayed<S>, HelloError> {
    let mut buffer = Vec::with_capacity(READ);
    let read = timeout(limit, stream.read_buf(&mut buffer)).await.map_err(|_| HelloError::Silent)??;
    if read == 0 {
        return Err(HelloError::Left(io::ErrorKind::UnexpectedEof.into()));
    }
    Ok(Replayed { head: buffer, replayed: 0, stream })
}

/// Reads the ClientHello, if that is what the connection begins with.
pub(super) async fn read<S: AsyncRead + Unpin>(begun: &mut Replayed<S>) -> Result<Opening, HelloError> {
    if begun.head.first() != Some(&HANDSHAKE_RECORD) {
        return Ok(Opening::Other);
    }
    let mut acceptor = Acceptor::default();
    let mut parsed = 0;
    loop {
        let mut unparsed = begun.head.get(parsed..).unwrap_or_default();
        while !unparsed.is_empty() {
            parsed += acceptor.read_tls(&mut unparsed)?;
            match acceptor.accept() {
                Ok(Some(accepted)) => {
                    let name = accepted.client_hello().server_name().map(str::to_ascii_lowercase);
                    return Ok(Opening::Tls(name));
                }
                Ok(None) => {}
                Err((source, mut alert)) => {
                    let mut bytes = Vec::new();
                    alert.write_all(&mut bytes)?;
                    if bytes.is_empty() {
                        bytes.extend_from_slice(&DECODE_ERROR);
                    }
                    return Err(HelloError::Malformed { alert: bytes, source });
                }
            }
        }
        if begun.head.len() >= HELLO_LIMIT {
            return Err(HelloError::TooLarge);
        }
        begun.head.reserve(READ);
        // Not all of the room that a vector may have: the limit holds to the byte.
        let most = READ.min(HELLO_LIMIT - begun.head.len()) as u64;
        if (&mut begun.stream).take(most).read_buf(&mut begun.head).await? == 0 {
            return Err(HelloError::Left(io::ErrorKind::UnexpectedEof.into()));
        }
    }
}

/// A stream that is read from its begin again.
#[derive(Debug)]
pub(super) struct Replayed<S> {
    head: Vec<u8>,
    replayed: usize,
    stream: S,
}

impl<S> Replayed<S> {
    pub(super) fn get_ref(&self) -> &S {
        &self.stream
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Replayed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let rest = self.head.get(self.replayed..).unwrap_or_default();
        if rest.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let count = rest.len().min(buf.remaining());
        buf.put_slice(rest.get(..count).unwrap_or_default());
        self.replayed += count;
        if self.replayed >= self.head.len() {
            self.head = Vec::new();
            self.replayed = 0;
        }
        Poll::Ready(Ok(()))
    }
}

write_through!(Replayed<S>);

/// What the fuzzer calls.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::pki_types::ServerName;
    use tokio::io::AsyncWriteExt;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    fn client_hello(name: &str) -> Vec<u8> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        bytes
    }

    #[tokio::test]
    async fn a_client_hello_in_pieces_is_read_and_replayed() {
        let hello = client_hello("App.Example.test");
        let (mut visitor, stream) = tokio::io::duplex(64);
        let send = async {
            for piece in hello.chunks(7) {
                visitor.write_all(piece).await.unwrap();
            }
            visitor.write_all(b"more").await.unwrap();
            visitor.shutdown().await.unwrap();
        };
        let receive = async {
            let mut begun = first_byte(stream, LIMIT).await.unwrap();
            assert_eq!(read(&mut begun).await.unwrap(), Opening::Tls(Some("app.example.test".to_owned())));
            let mut all = Vec::new();
            begun.read_to_end(&mut all).await.unwrap();
            all
        };
        let ((), all) = tokio::join!(send, receive);
        assert_eq!(all, [hello.as_slice(), b"more"].concat());
    }

    #[tokio::test]
    async fn plain_http_is_not_tls() {
        let mut begun = first_byte(b"GET / HTTP/1.1\r\n".as_slice(), LIMIT).await.unwrap();
        assert_eq!(read(&mut begun).await.unwrap(), Opening::Other);
    }

    #[tokio::test]
    async fn nonsense_in_a_handshake_record_is_answered_with_an_alert() {
        let mut begun = first_byte([0x16, 3, 1, 0, 4, 9, 9, 9, 9].as_slice(), LIMIT).await.unwrap();
        let Err(HelloError::Malformed { alert, .. }) = read(&mut begun).await else { panic!("it was taken") };
        assert_eq!(alert.first(), Some(&0x15));
    }

    #[tokio::test]
    async fn an_endless_client_hello_is_given_up() {
        // Records that announce a handshake message larger than the limit.
        let record = [&[0x16, 3, 1, 0x0f, 0xa0, 1, 0, 0xff, 0xff][..], &[0; 3996]].concat();
        let bytes = [record, [&[0x16, 3, 1, 0x0f, 0xa0][..], &[0; 4000]].concat().repeat(5)].concat();
        let mut begun = first_byte(bytes.as_slice(), LIMIT).await.unwrap();
        assert!(read(&mut begun).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_visitor_is_given_up() {
        let (_visitor, stream) = tokio::io::duplex(64);
        assert!(matches!(first_byte(stream, LIMIT).await, Err(HelloError::Silent)));
    }
}
