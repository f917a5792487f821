//! How a visitor connects: TCP, TLS with or without checks, raw bytes, websockets.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use http::Uri;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::WebSocketStream;

use super::{Trust, Visitor};
use crate::wait::within;

/// Anything that carries bytes both ways.
pub trait Io: AsyncRead + AsyncWrite + Unpin + Send + fmt::Debug {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + fmt::Debug> Io for T {}

/// A TLS connection of a visitor.
pub type Tls = tokio_rustls::client::TlsStream<TcpStream>;

impl Visitor {
    /// A connection to this address, from the address that [`Visitor::from`] says.
    pub async fn dial(&self, address: SocketAddr) -> TcpStream {
        self.try_dial(address).await.expect("a visitor can connect")
    }

    /// The same, where a refusal is what the test is about.
    pub async fn try_dial(&self, address: SocketAddr) -> std::io::Result<TcpStream> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        if let Some(from) = self.from {
            socket.bind((from, 0).into())?;
        }
        let stream = within("a visitor connects", socket.connect(address)).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// A connection to a `tcp` endpoint on the host of the server's HTTP listener.
    pub async fn tcp(&self, port: u16) -> TcpStream {
        self.dial((self.http.ip(), port).into()).await
    }

    /// A TLS connection with this server name, offering these protocols.
    pub async fn tls(&self, name: &str, protocols: &[&str]) -> Tls {
        self.try_tls(name, protocols).await.expect("a TLS handshake")
    }

    /// The same, where a failure is what the test is about.
    pub async fn try_tls(&self, name: &str, protocols: &[&str]) -> std::io::Result<Tls> {
        let stream = self.try_dial(self.https).await?;
        let mut config = self.tls_config();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        let name = ServerName::try_from(name.to_owned()).expect("a server name");
        within("a TLS handshake", TlsConnector::from(Arc::new(config)).connect(name, stream)).await
    }

    /// Sends these bytes to the HTTP listener and returns all that comes back until the server closes.
    pub async fn raw(&self, bytes: impl AsRef<[u8]>) -> Vec<u8> {
        exchange(self.dial(self.http).await, bytes.as_ref(), false).await
    }

    /// As [`Self::raw`], and ends its side after the last byte.
    pub async fn raw_half_closed(&self, bytes: impl AsRef<[u8]>) -> Vec<u8> {
        exchange(self.dial(self.http).await, bytes.as_ref(), true).await
    }

    /// The same inside TLS.
    pub async fn raw_tls(&self, name: &str, bytes: impl AsRef<[u8]>) -> Vec<u8> {
        exchange(self.tls(name, &[]).await, bytes.as_ref(), false).await
    }

    /// As [`Self::raw_half_closed`], inside TLS.
    pub async fn raw_tls_half_closed(&self, name: &str, bytes: impl AsRef<[u8]>) -> Vec<u8> {
        exchange(self.tls(name, &[]).await, bytes.as_ref(), true).await
    }

    /// A websocket to this `ws://`, `wss://`, `http://` or `https://` address.
    pub async fn websocket(&self, url: &str) -> WebSocketStream<Box<dyn Io>> {
        let url: Uri = url.replacen("http", "ws", 1).parse().expect("a URL");
        let mut request = http::Request::get(&url)
            .header("host", url.authority().expect("a host in the URL").as_str())
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "AAAAAAAAAAAAAAAAAAAAAA==");
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let stream = self.connect(&url).await;
        let request = request.body(()).expect("a request");
        let shaken = tokio_tungstenite::client_async(request, stream);
        within("a websocket handshake", shaken).await.expect("a websocket").0
    }

    /// Where a URL of this scheme is served.
    pub(super) async fn connect(&self, url: &Uri) -> Box<dyn Io> {
        if !matches!(url.scheme_str(), Some("https" | "wss")) {
            return Box::new(self.dial(self.http).await);
        }
        let protocols: &[&str] = if self.http2 { &["h2"] } else { &["http/1.1"] };
        Box::new(self.tls(url.host().expect("a host in the URL"), protocols).await)
    }

    fn tls_config(&self) -> ClientConfig {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has the default versions");
        let config = match &self.trust {
            Trust::Anything => config.dangerous().with_custom_certificate_verifier(Arc::new(NoChecks)),
            Trust::File(file) => {
                let mut roots = RootCertStore::empty();
                for certificate in CertificateDer::pem_file_iter(file).expect("a file of certificates") {
                    roots.add(certificate.expect("a certificate")).expect("a CA certificate");
                }
                config.with_root_certificates(roots)
            }
        };
        match &self.shows {
            None => config.with_no_client_auth(),
            Some((certificate, key)) => {
                let certificate = CertificateDer::from_pem_file(certificate).expect("a certificate");
                let key = PrivateKeyDer::from_pem_file(key).expect("a private key");
                config.with_client_auth_cert(vec![certificate], key).expect("a key of the certificate")
            }
        }
    }
}

/// Sends `bytes` and the end of input; returns everything up to the end of output.
async fn exchange(mut stream: impl Io, bytes: &[u8], half_close: bool) -> Vec<u8> {
    let mut answer = Vec::new();
    within("an exchange of raw bytes", async {
        // The server may well refuse and close before it took everything.
        let _ = stream.write_all(bytes).await;
        if half_close {
            let _ = stream.shutdown().await;
        }
        let _ = stream.read_to_end(&mut answer).await;
    })
    .await;
    answer
}

#[derive(Debug)]
struct NoChecks;

impl ServerCertVerifier for NoChecks {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
