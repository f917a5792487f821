//! TLS: terminated here, or passed through untouched to a `tls` endpoint.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hithe_cli_parser::{Code, printable};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::hello::{self, HelloError, Opening, Replayed};
use super::linger::linger;
use crate::endpoint::{Endpoint, EndpointId, Protocol};
use crate::proxy::Site;
use crate::proxy::tcp::Wire;
use crate::registry::{Place, Registry, Slot};
use crate::stall::StallGuard;

/// The least time for a handshake where a person may have to choose a certificate first: some browsers keep the handshake waiting meanwhile.
const CHOICE: Duration = Duration::from_secs(60);

/// How long a refused visitor may take to take what it is told.
const FAREWELL: Duration = Duration::from_secs(2);

/// A fatal `internal_error` (RFC 8446 §6.2), from a server that could not reach the other end.
pub(super) const ALERT: [u8; 7] = [0x15, 3, 3, 0, 2, 2, 80];

const NOT_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\n\
    Content-Type: text/plain; charset=utf-8\r\n\
    Cache-Control: no-store\r\n\
    hithe-error-code: ERR_HITHE_3002\r\n\
    Content-Length: 68\r\n\
    Connection: close\r\n\r\n\
    This port speaks HTTPS. Use https:// in the address.\nERR_HITHE_3002\n";

pub(super) type Stream = Replayed<StallGuard<TcpStream>>;

/// What a connection to the https port is to become.
pub(super) enum Shaken {
    /// An HTTP connection inside TLS. Boxed: it is as large as all the rest together.
    /// With the endpoint that it was made for, where that has demands of its own.
    Terminated(Box<TlsStream<Stream>>, Option<EndpointId>),
    /// A raw stream inside TLS that ended here.
    Raw(Arc<Endpoint>, Box<TlsStream<Stream>>),
    Through(Arc<Endpoint>, Stream),
}

/// Why there was no handshake.
#[derive(Debug, thiserror::Error)]
enum ShakeError {
    #[error(transparent)]
    Hello(#[from] HelloError),
    #[error("the visitor does not speak TLS")]
    NotTls,
    #[error("the handshake failed")]
    Handshake(#[source] io::Error),
    #[error("the handshake took too long")]
    TooSlow(#[from] Elapsed),
}

/// Recognises a connection and shakes hands where TLS ends here. One that fails is told why, and is gone.
pub(super) async fn shake(
    stream: StallGuard<TcpStream>,
    site: &Site,
    config: &Arc<rustls::ServerConfig>,
) -> Option<Shaken> {
    let limits = &site.visitors.limits;
    let shaken = match hello::first_byte(stream, limits.hello).await {
        Ok(begun) => begin(begun, &site.registry, config, limits.handshake).await,
        Err(error) => Err(error.into()),
    };
    shaken
        .inspect_err(|error| {
            if matches!(error, ShakeError::TooSlow(_) | ShakeError::Hello(HelloError::Silent)) {
                site.metrics.refused(Code::SLOW_HANDSHAKE);
            } else if matches!(error, ShakeError::NotTls) {
                site.metrics.refused(Code::NOT_TLS);
            }
            let cause =
                std::error::Error::source(error).map(|cause| printable(&cause.to_string()).into_owned());
            tracing::debug!(cause, "a visitor did not get through TLS: {error}");
        })
        .ok()
}

async fn begin(
    mut begun: Stream,
    registry: &Registry,
    config: &Arc<rustls::ServerConfig>,
    limit: Duration,
) -> Result<Shaken, ShakeError> {
    let started = Instant::now();
    let name = match timeout_at(started + limit, hello::read(&mut begun)).await? {
        Ok(Opening::Tls(name)) => name,
        Ok(Opening::Other) => {
            farewell(&mut begun, NOT_TLS).await;
            return Err(ShakeError::NotTls);
        }
        Err(error) => {
            if let HelloError::Malformed { alert, .. } = &error {
                farewell(&mut begun, alert).await;
            }
            return Err(error.into());
        }
    };
    let recognised = Instant::now();
    let endpoint = match name {
        Some(name) => settled(registry, &name).await,
        None => None,
    };
    let started = started + recognised.elapsed();
    if let Some(endpoint) = endpoint.as_ref().filter(|endpoint| endpoint.protocol == Protocol::Tls) {
        return Ok(Shaken::Through(Arc::clone(endpoint), begun));
    }
    // No SNI, or no certificate for it: the resolver has none to give, and rustls sends the alert.
    let demanding = endpoint.as_ref().filter(|endpoint| endpoint.tls.is_some());
    let own = demanding.and_then(|endpoint| endpoint.tls.as_ref());
    let accepted = TlsAcceptor::from(Arc::clone(own.unwrap_or(config))).accept(begun);
    let deadline = started + if own.is_some() { limit.max(CHOICE) } else { limit };
    let stream = Box::new(timeout_at(deadline, accepted).await?.map_err(ShakeError::Handshake)?);
    Ok(match endpoint {
        Some(endpoint) if endpoint.protocol == Protocol::TlsEnded => Shaken::Raw(endpoint, stream),
        endpoint => Shaken::Terminated(stream, endpoint.filter(|it| it.tls.is_some()).map(|it| it.id)),
    })
}

/// The endpoint of a name. Where a publisher was cut off, its visitors wait a moment for it to return; those of plain
/// https do that with each request.
async fn settled(registry: &Registry, name: &str) -> Option<Arc<Endpoint>> {
    for _ in 0..=MOST_WAITS {
        match registry.web(name, Slot::Secure)? {
            Place::Live(endpoint) => return Some(endpoint),
            Place::Held(was, _) if was.protocol == Protocol::Https && was.tls.is_none() => return None,
            Place::Held(_, held) if held.wait().await => {}
            Place::Held(..) => return None,
        }
    }
    None
}

/// For one that is cut off again and again.
const MOST_WAITS: usize = 3;

/// Says why and closes. What the visitor still sends is read, for a reset would take the words away from it.
pub(super) async fn farewell(stream: &mut Stream, words: &[u8]) {
    let said = async {
        stream.write_all(words).await?;
        stream.shutdown().await
    };
    if let Ok(Ok(())) = timeout(FAREWELL, said).await {
        linger(stream).await;
    }
}

impl Wire for Stream {
    fn reset_on_close(&self) {
        self.get_ref().reset_on_close();
    }

    fn refusal(&self) -> &'static [u8] {
        &ALERT
    }
}

impl Wire for TlsStream<Stream> {
    fn reset_on_close(&self) {
        self.get_ref().0.reset_on_close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_to_plain_http_is_as_long_as_it_says() {
        let text = std::str::from_utf8(NOT_TLS).unwrap();
        let (_, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(text.contains(&format!("Content-Length: {}\r\n", body.len())), "{}", body.len());
        assert_eq!(text.matches(&Code::NOT_TLS.to_string()).count(), 2);
    }
}
