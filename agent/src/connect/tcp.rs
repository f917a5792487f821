//! A TCP connection to a host: all of its addresses, IPv6 and IPv4 in turn, the next one while the last still tries
//! (RFC 8305).

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{sleep, timeout};

use super::ConnectError;
use super::address::host_port;

/// Addresses of one host that are tried.
const MAX_ADDRESSES: usize = 16;
/// How long an address has the field to itself (RFC 8305 §8).
const HEAD_START: Duration = Duration::from_millis(250);

/// Connects to the first address that answers.
///
/// # Errors
/// The name leads nowhere, or none of its addresses answers within `limit`.
pub(super) async fn connect(host: &str, port: u16, limit: Duration) -> Result<TcpStream, ConnectError> {
    let addresses = resolve(host, port, limit).await?;
    let server = host_port(host, port);
    race(addresses, limit).await.map_err(|failures| unreachable(server, &failures))
}

/// As [`connect`], to what is no server of ours.
///
/// # Errors
/// What the last address said, or the resolver.
pub(crate) async fn tcp(host: &str, port: u16, limit: Duration) -> io::Result<TcpStream> {
    let addresses = resolve(host, port, limit).await.map_err(io::Error::other)?;
    race(addresses, limit).await.map_err(|mut failures| {
        failures.pop().map_or_else(|| io::ErrorKind::AddrNotAvailable.into(), |(_, error)| error)
    })
}

/// The addresses of a host, in the order in which they are tried.
///
/// # Errors
/// The name leads nowhere.
pub(super) async fn resolve(host: &str, port: u16, limit: Duration) -> Result<Vec<SocketAddr>, ConnectError> {
    // Also `fe80::1%eth0`, which is no IpAddr.
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let failed = |why: String| ConnectError::Dns { host: host.to_owned(), why };
    let found = timeout(limit, lookup_host((host, port)))
        .await
        .map_err(|_| failed(format!("no answer within {} s", limit.as_secs_f32())))?
        .map_err(|error| failed(error.to_string()))?;
    let addresses = in_turn(found.take(MAX_ADDRESSES).collect());
    if addresses.is_empty() { Err(failed("it has no address".into())) } else { Ok(addresses) }
}

/// One connection to one address.
///
/// # Errors
/// It does not answer within `limit`.
pub(super) async fn connect_to(address: SocketAddr, limit: Duration) -> io::Result<TcpStream> {
    let stream = timeout(limit, TcpStream::connect(address)).await.map_err(|_| io::ErrorKind::TimedOut)??;
    // Small messages go at once, and a peer that vanished is noticed in the end. Neither is worth a connection.
    let _ = stream.set_nodelay(true);
    let keepalive =
        TcpKeepalive::new().with_time(Duration::from_secs(30)).with_interval(Duration::from_secs(10));
    let _ = SockRef::from(&stream).set_tcp_keepalive(&keepalive);
    Ok(stream)
}

async fn race(
    addresses: Vec<SocketAddr>,
    limit: Duration,
) -> Result<TcpStream, Vec<(SocketAddr, io::Error)>> {
    let mut waiting = VecDeque::from(addresses);
    let mut running = FuturesUnordered::new();
    let mut failures = Vec::new();
    loop {
        if let Some(address) = waiting.pop_front() {
            running.push(async move { (address, connect_to(address, limit).await) });
        }
        let next_one =
            async { if waiting.is_empty() { std::future::pending().await } else { sleep(HEAD_START).await } };
        tokio::select! {
            ended = running.next() => match ended {
                Some((_, Ok(stream))) => return Ok(stream),
                Some((address, Err(error))) => failures.push((address, error)),
                None => return Err(failures),
            },
            () = next_one => {}
        }
    }
}

fn unreachable(server: String, failures: &[(SocketAddr, io::Error)]) -> ConnectError {
    let said: Vec<_> =
        failures.iter().map(|(address, error)| format!("{}: {}", address.ip(), in_words(error))).collect();
    ConnectError::Unreachable { server, why: said.join(", ") }
}

/// What went wrong with an address, without the number of the operating system.
pub(crate) fn in_words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::TimedOut => "no answer".into(),
        io::ErrorKind::ConnectionRefused => "nothing listens there".into(),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => "there is no way to it".into(),
        _ => error.to_string(),
    }
}

/// The families in turn, beginning with that of the first, in which the resolver has put its preference.
fn in_turn(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let Some(first) = addresses.first().map(SocketAddr::is_ipv6) else { return addresses };
    let (preferred, others): (Vec<_>, Vec<_>) =
        super::config::without_repeats(addresses).into_iter().partition(|address| address.is_ipv6() == first);
    let (mut preferred, mut others) = (preferred.into_iter(), others.into_iter());
    let mut order = Vec::new();
    loop {
        let pair = [preferred.next(), others.next()];
        if pair == [None, None] {
            return order;
        }
        order.extend(pair.into_iter().flatten());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_families_take_turns() {
        let found = ["[2001:db8::1]:22", "[2001:db8::2]:22", "192.0.2.1:22", "[2001:db8::2]:22"].map(address);
        let order = ["[2001:db8::1]:22", "192.0.2.1:22", "[2001:db8::2]:22"].map(address);
        assert_eq!(in_turn(found.into()), order);
    }

    #[tokio::test]
    async fn a_dead_address_does_not_keep_from_a_live_one() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dead = closed.local_addr().unwrap();
        drop(closed);
        let live = listener.local_addr().unwrap();
        let stream = race(vec![dead, live], Duration::from_secs(5)).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), live);
    }

    #[tokio::test]
    async fn what_each_address_says_is_told() {
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dead = closed.local_addr().unwrap();
        drop(closed);
        let error = connect("127.0.0.1", dead.port(), Duration::from_secs(5)).await.unwrap_err();
        assert!(error.to_string().ends_with("127.0.0.1: nothing listens there"), "{error}");
        assert!(!error.is_final());
    }

    #[tokio::test]
    async fn a_name_that_leads_nowhere_is_a_fault_of_names() {
        let error = connect("nowhere.invalid", 22, Duration::from_secs(20)).await.unwrap_err();
        assert!(matches!(error, ConnectError::Dns { .. }), "{error}");
    }
}
