//! Who a connection is from: its peer, or whom a trusted proxy announces before the first byte.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

use super::announced::{self, HeaderError, Whose};
use crate::config::ListenerKind;
use crate::trust::Trust;
use crate::visit::Visitor;

/// A proxy sends the header with the connection.
const HEADER: Duration = Duration::from_secs(5);

/// Reads the PROXY header where one has to come. `None` if it does not: the connection is of no use then.
pub(crate) async fn introduce(
    stream: &mut TcpStream,
    peer: SocketAddr,
    listener: ListenerKind,
    trust: &Trust,
) -> Option<Visitor> {
    let local = stream.local_addr().ok();
    let itself = Visitor::new(peer, local);
    if !trust.expects_header(listener, peer.ip()) {
        return Some(itself.as_proxy(trust.trusts(peer.ip())));
    }
    let fault = match timeout(HEADER, announced::read(stream)).await {
        Ok(Ok(Whose::Proxy)) => {
            tracing::debug!(proxy = %peer.ip(), ?listener, "a trusted proxy came for itself");
            return Some(itself.as_proxy(true));
        }
        // What somebody says in its own headers must not count for as much as if the proxy said it.
        Ok(Ok(Whose::Unknown)) => return Some(itself),
        Ok(Ok(Whose::Visitor { from, to })) => {
            return Some(Visitor::new(from, Some(to)).as_proxy(trust.trusts(from.ip())));
        }
        Ok(Err(error)) => error,
        Err(_) => HeaderError::NoHeader,
    };
    if matches!(fault, HeaderError::Left(_)) {
        tracing::debug!(proxy = %peer.ip(), ?listener, "a connection was closed: {fault}");
    } else {
        tracing::warn!(proxy = %peer.ip(), ?listener, "a connection from a trusted proxy was closed: {fault}");
    }
    None
}
