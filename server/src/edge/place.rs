//! Which worker a visitor's connection goes to: that of the endpoint it will ask for.
//!
//! This is a guess from the first bytes, which are looked at and not taken. A wrong one costs a little speed and
//! changes nothing else: routing happens later, from what is really asked.

use std::sync::Arc;

use hithe_cli_parser::{Code, HostName};
use rustls::server::Acceptor;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{EdgeContext, LAST_WORD};
use crate::endpoint::Endpoint;
use crate::registry::{Registry, Slot};
use crate::workers::{Parcel, Worker};

/// The name stands in the first kilobyte or two.
const LOOK: usize = 2048;

/// How to find the endpoint in the first bytes.
pub(super) type Guess = fn(&[u8], &Registry) -> Option<Arc<Endpoint>>;

/// Waits for the first bytes and chooses. `None` if the visitor has left or stays silent, which is not
/// waited for long when the server drains.
pub(super) async fn place(edge: &EdgeContext, stream: TcpStream, guess: Guess) -> Option<(Parcel, Worker)> {
    if !edge.workers.are_many() {
        return Some((Parcel::pack(stream).ok()?, edge.workers.any()));
    }
    // Only a peek that succeeds tells that something is there. One byte, since many may wait here.
    let limits = &edge.site.visitors.limits;
    let mut first_byte = [0];
    tokio::select! {
        first = timeout(limits.hello, stream.peek(&mut first_byte)) => match first {
            Ok(first) => first.ok()?,
            Err(_) => {
                edge.site.metrics.refused(Code::SLOW_HANDSHAKE);
                return None;
            }
        },
        () = edge.visits.draining_for(LAST_WORD) => return None,
    };
    let parcel = Parcel::pack(stream).ok()?;
    let mut buffer = [0; LOOK];
    let length = parcel.peek(&mut buffer).ok()?;
    let endpoint = guess(buffer.get(..length).unwrap_or_default(), &edge.site.registry);
    let worker = endpoint.and_then(|endpoint| endpoint.worker()).unwrap_or_else(|| edge.workers.any());
    Some((parcel, worker))
}

/// By the `Host` of a request.
pub(super) fn by_host(head: &[u8], registry: &Registry) -> Option<Arc<Endpoint>> {
    let host = head.split(|byte| *byte == b'\n').find_map(|line| {
        let (name, value) = line.split_at_checked(5)?;
        name.eq_ignore_ascii_case(b"host:").then_some(value)
    })?;
    let name = HostName::from_authority(std::str::from_utf8(host).ok()?.trim())?;
    registry.web(name.as_str(), Slot::Plain)?.live()
}

/// By the name in a ClientHello.
pub(super) fn by_sni(mut hello: &[u8], registry: &Registry) -> Option<Arc<Endpoint>> {
    let mut acceptor = Acceptor::default();
    acceptor.read_tls(&mut hello).ok()?;
    let accepted = acceptor.accept().ok()??;
    let name = accepted.client_hello().server_name()?.to_ascii_lowercase();
    registry.web(&name, Slot::Secure)?.live()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_without_a_known_host_goes_anywhere() {
        let registry = Registry::for_test();
        for head in [
            &b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"[..],
            b"GET / HTTP/1.1\r\nHo",
            b"\x16\x03",
            b"\xff\nhost:\xff",
        ] {
            assert!(by_host(head, &registry).is_none());
            assert!(by_sni(head, &registry).is_none());
        }
    }
}
