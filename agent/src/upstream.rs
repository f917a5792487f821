//! Where visits lead: ADDR of the command line, and how it is reached.

mod address;
mod tcp;
mod tls;

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::connect::in_words;
pub use address::AddressError;
use tcp::Tcp;
pub(crate) use tls::{TlsError, UpstreamTls, acceptor};

/// Where visits lead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// As it was given.
    said: String,
    place: Place,
    scheme: Scheme,
}

/// Where it listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A name or address, without brackets.
    Tcp { host: String, port: u16 },
    /// A Unix socket.
    Unix(PathBuf),
    /// A folder whose files the agent serves itself.
    Files(PathBuf),
}

/// What is spoken there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Whatever the visitors speak, or HTTP/1.1.
    Plain,
    /// HTTP/2 in the clear, with prior knowledge.
    H2c,
    /// TLS, and in it as above.
    Tls,
}

impl Upstream {
    pub fn place(&self) -> &Place {
        &self.place
    }

    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// `host:port` as `Host` has it, without the scheme's usual port. None where there is no host.
    pub fn authority(&self) -> Option<String> {
        let Place::Tcp { host, port } = &self.place else { return None };
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        let usual = if self.scheme == Scheme::Tls { 443 } else { 80 };
        Some(if *port == usual { host } else { format!("{host}:{port}") })
    }
}

/// As it was given.
impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.said)
    }
}

/// A connection to an upstream.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for T {}

/// An upstream with all that is needed to connect to it, of one endpoint.
#[derive(Clone, Debug)]
pub struct Dialer {
    place: Place,
    tls: Option<Arc<UpstreamTls>>,
    files: Option<Arc<crate::files::Folder>>,
}

impl Dialer {
    /// # Errors
    /// The folder cannot be read, or the authorities of the upstream's certificate.
    pub(crate) fn new(upstream: &Upstream, tls: Option<UpstreamTls>) -> io::Result<Self> {
        let files = match &upstream.place {
            Place::Files(folder) => Some(Arc::new(crate::files::Folder::open(folder)?)),
            Place::Tcp { .. } | Place::Unix(_) => None,
        };
        Ok(Self { place: upstream.place.clone(), tls: tls.map(Arc::new), files })
    }

    /// Connects, within nine seconds.
    ///
    /// # Errors
    /// Nothing listens there, or its TLS handshake fails.
    pub async fn connect(&self) -> Result<Box<dyn Stream>, UpstreamError> {
        timeout(CONNECT_DEADLINE, self.reach()).await.unwrap_or(Err(UpstreamError::Timeout))
    }

    async fn reach(&self) -> Result<Box<dyn Stream>, UpstreamError> {
        match &self.place {
            Place::Tcp { host, port } => {
                let stream = match host.as_str() {
                    // It needs no asking (RFC 6761 §6.3), which would take a thread for each visit. In ssh's order.
                    "localhost" => {
                        TcpStream::connect(&LOOPBACK.map(|address| SocketAddr::new(address, *port))[..])
                            .await?
                    }
                    host => crate::connect::tcp(host, *port, CONNECT_DEADLINE).await?,
                };
                // Small messages of interactive services go at once.
                let _ = stream.set_nodelay(true);
                let stream = Tcp::from(stream);
                match &self.tls {
                    Some(tls) => Ok(Box::new(tls.connect(stream).await.map_err(UpstreamError::Tls)?)),
                    None => Ok(Box::new(stream)),
                }
            }
            #[cfg(unix)]
            Place::Unix(path) => Ok(Box::new(tokio::net::UnixStream::connect(path).await?)),
            #[cfg(not(unix))]
            Place::Unix(_) => Err(io::Error::from(io::ErrorKind::Unsupported).into()),
            Place::Files(_) => match &self.files {
                Some(folder) => Ok(Box::new(folder.serve())),
                None => Err(io::Error::from(io::ErrorKind::NotFound).into()),
            },
        }
    }
}

/// Why an upstream cannot be reached.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    #[error("{}", in_words(.0))]
    Connect(#[from] io::Error),
    #[error("{}", tls_in_words(.0))]
    Tls(io::Error),
    #[error("no connection within {} s", CONNECT_DEADLINE.as_secs())]
    Timeout,
}

fn tls_in_words(error: &io::Error) -> String {
    let fault = error.get_ref().and_then(|it| it.downcast_ref());
    match fault {
        Some(rustls::Error::InvalidMessage(_)) => "it does not speak TLS".into(),
        Some(rustls::Error::InvalidCertificate(why)) => format!("its certificate is not accepted: {why}"),
        _ => format!("TLS: {error}"),
    }
}

const LOOPBACK: [IpAddr; 2] = [IpAddr::V6(Ipv6Addr::LOCALHOST), IpAddr::V4(Ipv4Addr::LOCALHOST)];
/// The server waits somewhat longer for a channel.
pub(crate) const CONNECT_DEADLINE: Duration = Duration::from_secs(9);
