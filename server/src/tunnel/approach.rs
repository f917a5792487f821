//! How a stream to the upstream begins: with a PROXY header, with TLS, with both, or with neither.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hithe_cli_parser::{HttpVersion, ProxyVersion};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::{DialError, TunnelStream};
use crate::certs::AnyCertificate;
use crate::visit::Visitor;

/// How streams to one upstream begin.
#[derive(Clone, Debug, Default)]
pub(crate) struct Approach {
    pub(crate) proxy_header: Option<ProxyVersion>,
    pub(crate) tls: Option<UpstreamTls>,
    /// Of HTTP.
    pub(crate) protocol: HttpVersion,
}

/// What will be spoken on a stream, as the upstream is told in its TLS handshake (RFC 7301).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speaks {
    /// Whatever it is.
    Raw,
    Http1,
    /// What the publisher asked for.
    Http,
}

/// What was agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Agreed {
    Http1,
    Http2,
}

impl Approach {
    /// Whether a stream stands for one visitor, and must not carry the requests of another.
    pub(crate) fn is_personal(&self) -> bool {
        self.proxy_header.is_some()
    }

    /// Whether anything comes before the first byte of a raw stream.
    pub(super) fn is_plain(&self) -> bool {
        self.proxy_header.is_none() && self.tls.is_none()
    }

    /// Says what comes first on a new stream.
    pub(super) async fn begin(
        &self,
        mut stream: TunnelStream,
        visitor: Visitor,
        speaks: Speaks,
    ) -> Result<(TunnelStream, Agreed), DialError> {
        if let Some(version) = self.proxy_header {
            let told = timeout(HANDSHAKE, tell(&mut stream, &proxy_header(version, visitor))).await;
            told.map_err(|_| DialError::Timeout)?.map_err(|_| DialError::Closed)?;
        }
        let http2 = speaks == Speaks::Http && self.protocol == HttpVersion::Http2;
        let Some(tls) = &self.tls else {
            return Ok((stream, if http2 { Agreed::Http2 } else { Agreed::Http1 }));
        };
        let connected = timeout(HANDSHAKE, tls.connect(stream, speaks)).await;
        let stream = connected.map_err(|_| DialError::Timeout)?.map_err(|error| fault(&error))?;
        let chosen = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        Ok((Box::new(stream), if http2 || chosen { Agreed::Http2 } else { Agreed::Http1 }))
    }
}

async fn tell(stream: &mut TunnelStream, header: &[u8]) -> io::Result<()> {
    stream.write_all(header).await?;
    // What follows may wait for the upstream to speak first.
    stream.flush().await
}

/// How long an upstream may take for what comes before the first request: to take a PROXY header, for a handshake of
/// TLS, and to say that it speaks HTTP/2.
pub(super) const HANDSHAKE: Duration = Duration::from_secs(10);

fn fault(error: &io::Error) -> DialError {
    let cause = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    tracing::debug!(%error, "no TLS with an upstream");
    match cause {
        Some(rustls::Error::InvalidCertificate(_)) => DialError::Certificate,
        _ => DialError::NoTls,
    }
}

/// TLS towards the upstream.
#[derive(Clone)]
pub(crate) struct UpstreamTls {
    name: ServerName<'static>,
    raw: Arc<ClientConfig>,
    http1: Arc<ClientConfig>,
    http: Arc<ClientConfig>,
}

/// Why there can be no TLS towards an upstream.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoTls {
    #[error("not a name")]
    Name,
    #[error("it has no root certificates")]
    Roots,
    #[error(transparent)]
    Rustls(#[from] rustls::Error),
}

impl UpstreamTls {
    /// # Errors
    /// The name is none, or certificates are to be verified and this machine trusts nobody.
    pub(crate) fn new(name: &str, verify: bool, protocol: HttpVersion) -> Result<Self, NoTls> {
        let name = ServerName::try_from(name.to_owned()).map_err(|_| NoTls::Name)?;
        let provider = Arc::new(default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?;
        let raw = if verify {
            builder.with_root_certificates(system_roots()?).with_no_client_auth()
        } else {
            let any = Arc::new(AnyCertificate::new(provider));
            builder.dangerous().with_custom_certificate_verifier(any).with_no_client_auth()
        };
        let offering = |protocols: &[&[u8]]| {
            let mut config = raw.clone();
            config.alpn_protocols = protocols.iter().map(|it| it.to_vec()).collect();
            Arc::new(config)
        };
        let http1 = offering(&[b"http/1.1"]);
        let http = match protocol {
            HttpVersion::Http1 => Arc::clone(&http1),
            HttpVersion::Http2 => offering(&[b"h2"]),
            HttpVersion::Auto => offering(&[b"h2", b"http/1.1"]),
        };
        Ok(Self { name, raw: Arc::new(raw), http1, http })
    }

    async fn connect(
        &self,
        stream: TunnelStream,
        speaks: Speaks,
    ) -> io::Result<tokio_rustls::client::TlsStream<TunnelStream>> {
        let config = match speaks {
            Speaks::Raw => &self.raw,
            Speaks::Http1 => &self.http1,
            Speaks::Http => &self.http,
        };
        TlsConnector::from(Arc::clone(config)).connect(self.name.clone(), stream).await
    }
}

impl fmt::Debug for UpstreamTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpstreamTls").field("name", &self.name).finish_non_exhaustive()
    }
}

fn system_roots() -> Result<RootCertStore, NoTls> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() { Err(NoTls::Roots) } else { Ok(roots) }
}

/// Source and destination of the visitor's connection (PROXY protocol, sections 2.1 and 2.2).
fn proxy_header(version: ProxyVersion, visitor: Visitor) -> Vec<u8> {
    let (from, to) = (visitor.socket_addr(), visitor.connected_to());
    let (from, to) = if from.is_ipv4() == to.is_ipv4() { (from, to) } else { (in_ipv6(from), in_ipv6(to)) };
    match version {
        ProxyVersion::V1 => {
            let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
            format!("PROXY {family} {} {} {} {}\r\n", from.ip(), to.ip(), from.port(), to.port()).into_bytes()
        }
        ProxyVersion::V2 => binary(from, to),
    }
}

fn binary(from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    // Version 2, command PROXY; then TCP over IPv4 or IPv6.
    let mut header = SIGNATURE.to_vec();
    header.push(0x21);
    header.push(if from.is_ipv4() { 0x11 } else { 0x21 });
    header.extend_from_slice(&if from.is_ipv4() { 12_u16 } else { 36 }.to_be_bytes());
    for address in [from.ip(), to.ip()] {
        match address {
            IpAddr::V4(address) => header.extend_from_slice(&address.octets()),
            IpAddr::V6(address) => header.extend_from_slice(&address.octets()),
        }
    }
    header.extend_from_slice(&from.port().to_be_bytes());
    header.extend_from_slice(&to.port().to_be_bytes());
    header
}

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

fn in_ipv6(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(four) => SocketAddr::new(four.to_ipv6_mapped().into(), address.port()),
        IpAddr::V6(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visitor(from: &str, to: &str) -> Visitor {
        Visitor::new(from.parse().unwrap(), to.parse().ok())
    }

    #[test]
    fn version_1_is_a_line_of_text() {
        let line = |from, to| String::from_utf8(proxy_header(ProxyVersion::V1, visitor(from, to))).unwrap();
        assert_eq!(
            line("192.0.2.7:4000", "198.51.100.1:443"),
            "PROXY TCP4 192.0.2.7 198.51.100.1 4000 443\r\n"
        );
        assert_eq!(line("[2001:db8::7]:4000", "[::1]:443"), "PROXY TCP6 2001:db8::7 ::1 4000 443\r\n");
        assert_eq!(
            line("[::ffff:192.0.2.7]:4000", "[::ffff:198.51.100.1]:443"),
            "PROXY TCP4 192.0.2.7 198.51.100.1 4000 443\r\n"
        );
        assert_eq!(line("192.0.2.7:4000", "[::1]:443"), "PROXY TCP6 ::ffff:192.0.2.7 ::1 4000 443\r\n");
    }

    #[test]
    fn version_2_is_binary() {
        let header = proxy_header(ProxyVersion::V2, visitor("192.0.2.7:4000", "198.51.100.1:443"));
        let expected = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\xc6\x33\x64\x01\x0f\xa0\x01\xbb";
        assert_eq!(header, expected);
        let long = proxy_header(ProxyVersion::V2, visitor("[2001:db8::7]:4000", "[::1]:443"));
        assert_eq!((long.len(), long[13], long[15]), (16 + 36, 0x21, 36));
    }

    async fn begun(far: Option<tokio::io::DuplexStream>, near: tokio::io::DuplexStream) -> Option<DialError> {
        let approach = Approach { proxy_header: Some(ProxyVersion::V1), ..Approach::default() };
        let stream: TunnelStream = Box::new(tokio::io::BufStream::with_capacity(1, 1, near));
        let began = approach.begin(stream, visitor("192.0.2.7:4000", "198.51.100.1:443"), Speaks::Raw).await;
        drop(far);
        began.err()
    }

    #[tokio::test(start_paused = true)]
    async fn an_upstream_that_takes_no_proxy_header_is_not_waited_for_and_not_taken_for_its_publisher() {
        let (far, near) = tokio::io::duplex(1);
        assert_eq!(begun(Some(far), near).await, Some(DialError::Timeout));
        let (far, near) = tokio::io::duplex(1);
        drop(far);
        assert_eq!(begun(None, near).await, Some(DialError::Closed));
    }
}
