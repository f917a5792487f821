//! `hithed health`: asks a running server how it is, for those who can only run a program.

use std::io::{Read as _, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use clap::Args;
use http::Uri;

use crate::config::ListenAddress;

/// The options of `hithed health`.
#[derive(Clone, Debug, Args)]
pub struct HealthOptions {
    /// Ask whether visitors should be sent to it, not only whether it lives
    #[arg(long)]
    pub ready: bool,
    /// Where it answers, such as http://127.0.0.1:9180 [default: the address in HITHED_HEALTH_LISTEN]
    pub url: Option<Uri>,
}

/// Prints the answer; true if it is a good one. `listen` is the value of `HITHED_HEALTH_LISTEN`.
///
/// # Errors
/// Nobody answers there, or something else than a server does.
pub fn health(options: &HealthOptions, listen: Option<&str>, out: &mut dyn Write) -> anyhow::Result<bool> {
    let (host, mut path) = match &options.url {
        Some(url) => of_url(url)?,
        None => (of_listener(listen)?.to_string(), "/".to_owned()),
    };
    if path == "/" {
        path = if options.ready { "/readyz" } else { "/healthz" }.to_owned();
    }
    let answer = ask(&host, &path).with_context(|| format!("nobody answers at http://{host}{path}"))?;
    let (head, body) =
        answer.split_once("\r\n\r\n").ok_or_else(|| anyhow!("http://{host} does not speak HTTP"))?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    out.write_all(body.as_bytes())?;
    Ok(status == "200")
}

fn of_url(url: &Uri) -> anyhow::Result<(String, String)> {
    let authority = url.authority().filter(|_| url.scheme_str() == Some("http"));
    let Some(authority) = authority else { bail!("{url} is no http:// address") };
    let port = authority.port_u16().unwrap_or(80);
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    Ok((format!("{}:{port}", authority.host()), path.to_owned()))
}

/// Who listens everywhere can be asked on the loopback.
fn of_listener(listen: Option<&str>) -> anyhow::Result<SocketAddr> {
    let first = listen.and_then(|list| list.split(',').next()).filter(|first| !first.is_empty());
    let first =
        first.ok_or_else(|| anyhow!("give the URL, or set HITHED_HEALTH_LISTEN as for the server"))?;
    let ListenAddress { mut address, .. } = first.parse().context("HITHED_HEALTH_LISTEN")?;
    if address.ip().is_unspecified() {
        let loopback =
            if address.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
        address.set_ip(loopback);
    }
    Ok(address)
}

fn ask(host: &str, path: &str) -> anyhow::Result<String> {
    let addresses = host.to_socket_addrs()?;
    let mut stream = Err(anyhow!("the name has no address"));
    for address in addresses {
        stream = TcpStream::connect_timeout(&address, PATIENCE).map_err(Into::into);
        if stream.is_ok() {
            break;
        }
    }
    let mut stream = stream?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(LONGEST).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// To connect, and for each part of the answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// Bytes of an answer that are read.
const LONGEST: u64 = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_is_asked_where_it_listens() {
        for (listen, asked) in [
            ("0.0.0.0:9180", "127.0.0.1:9180"),
            ("[::]:9180,192.0.2.1:1", "[::1]:9180"),
            ("192.0.2.1:9180", "192.0.2.1:9180"),
        ] {
            assert_eq!(of_listener(Some(listen)).unwrap().to_string(), asked);
        }
        assert!(
            of_listener(None).is_err() && of_listener(Some("")).is_err() && of_listener(Some("x")).is_err()
        );
        let url = |text: &str| of_url(&text.parse().unwrap());
        assert_eq!(url("http://[::1]:9180").unwrap(), ("[::1]:9180".to_owned(), "/".to_owned()));
        assert_eq!(url("http://hithe/readyz").unwrap(), ("hithe:80".to_owned(), "/readyz".to_owned()));
        assert!(url("https://hithe").is_err() && url("/readyz").is_err());
    }
}
