//! TLS with the upstream, as its client.

use std::io;

use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// How TLS with an upstream begins.
#[derive(Debug)]
pub(crate) struct UpstreamTls {}

impl UpstreamTls {
    pub(crate) async fn connect(&self, _stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
