//! Proxies that stand before the network: HTTP CONNECT (RFC 9110 §9.3.6), over TLS too, and SOCKS5 (RFC 1928).

mod environment;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use hithe_cli_parser::{Secret, printable, printable_bytes};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_socks::TargetAddr;
use tokio_socks::tcp::Socks5Stream;

use super::address::host_port;
use super::{ConnectError, tcp};
use crate::Stream;

pub(super) use environment::Environment;

/// Bytes of the head of an answer to CONNECT.
const MAX_HEAD: usize = 16 * 1024;
const MAX_HEADERS: usize = 64;

/// A proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Proxy {
    kind: Kind,
    host: String,
    port: u16,
    login: Option<Login>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Http,
    Https,
    /// Names are looked up here.
    Socks5,
    /// Names are looked up there.
    Socks5h,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Login {
    user: String,
    password: Secret<String>,
}

/// Without the password.
impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.kind {
            Kind::Http => "http",
            Kind::Https => "https",
            Kind::Socks5 => "socks5",
            Kind::Socks5h => "socks5h",
        };
        write!(f, "{scheme}://{}", host_port(&self.host, self.port))
    }
}

impl Proxy {
    /// `http://`, `https://`, `socks5://` or `socks5h://`, with `user:password@` if need be. Without a scheme it is http.
    ///
    /// # Errors
    /// It is no URL of a proxy.
    pub(super) fn parse(url: &str) -> Result<Self, ConnectError> {
        // The URL may hold a password, so it is not repeated.
        let refuse = |why: &str| {
            let advice = "Name it as http://HOST:PORT, https://, socks5:// or socks5h://, with USER:PASSWORD@ before the host if need be.";
            ConnectError::option(format!("the proxy's URL cannot be meant: {why}"), advice)
        };
        let (scheme, rest) = url.trim().split_once("://").unwrap_or(("http", url.trim()));
        let (kind, usual) = match scheme.to_ascii_lowercase().as_str() {
            "http" => (Kind::Http, 80),
            "https" => (Kind::Https, 443),
            "socks5" | "socks" => (Kind::Socks5, 1080),
            "socks5h" => (Kind::Socks5h, 1080),
            other => return Err(refuse(&format!("{} is no kind of proxy", printable(other)))),
        };
        let rest = rest.trim_end_matches('/');
        let (login, place) = match rest.rsplit_once('@') {
            Some((login, place)) => (Some(login), place),
            None => (None, rest),
        };
        let place: http::uri::Authority = place.parse().map_err(|_| refuse("there is no host in it"))?;
        let host = place.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() || place.port_u16().is_none() && place.as_str().len() > place.host().len() {
            return Err(refuse("there is no host in it, or no port after the colon"));
        }
        let login = login
            .map(Login::parse)
            .transpose()
            .map_err(|()| refuse("user or password is not well encoded"))?;
        Ok(Self { kind, host, port: place.port_u16().unwrap_or(usual), login })
    }

    /// Who logs in there.
    pub(super) fn user(&self) -> Option<&str> {
        self.login.as_ref().map(|login| login.user.as_str())
    }

    /// The way through it with netcat of OpenBSD, which knows neither TLS nor a login of SOCKS.
    pub(super) fn netcat(&self) -> Option<String> {
        let place = host_port(&self.host, self.port);
        match (self.kind, self.user()) {
            (Kind::Http, None) => Some(format!("nc -X connect -x {place} %h %p")),
            (Kind::Http, Some(user)) => {
                Some(format!("nc -X connect -x {place} -P {} %h %p", shell_words::quote(user)))
            }
            (Kind::Socks5 | Kind::Socks5h, None) => Some(format!("nc -X 5 -x {place} %h %p")),
            (Kind::Socks5 | Kind::Socks5h, Some(_)) | (Kind::Https, _) => None,
        }
    }

    /// Where it listens.
    pub(super) fn place(&self) -> (&str, u16) {
        (&self.host, self.port)
    }

    /// Goes to `host:port` through the proxy.
    ///
    /// # Errors
    /// The proxy cannot be reached, or refuses.
    pub(super) async fn connect(
        &self,
        host: &str,
        port: u16,
        limit: Duration,
    ) -> Result<Box<dyn Stream>, ConnectError> {
        let target = host_port(host, port);
        let late = |_| ConnectError::Timeout {
            what: format!("the way through the proxy {self} to {target}"),
            limit,
        };
        timeout(limit, self.through(host, port, limit)).await.map_err(late)?
    }

    async fn through(&self, host: &str, port: u16, limit: Duration) -> Result<Box<dyn Stream>, ConnectError> {
        match self.kind {
            Kind::Http => Ok(Box::new(self.tunnel(self.reach(limit).await?, host, port).await?)),
            Kind::Https => {
                Ok(Box::new(self.tunnel(self.secured(host, port, limit).await?, host, port).await?))
            }
            Kind::Socks5h => Ok(Box::new(self.socks((host, port), host, port, limit).await?)),
            Kind::Socks5 => {
                let mut last = None;
                for address in tcp::resolve(host, port, limit).await? {
                    match self.socks(address, host, port, limit).await {
                        Ok(stream) => return Ok(Box::new(stream)),
                        Err(error) => last = Some(error),
                    }
                }
                Err(last.unwrap_or_else(|| self.failed(host, port, "there is no address", false)))
            }
        }
    }

    /// Why it cannot be reached.
    pub(super) fn away(&self, source: ConnectError) -> ConnectError {
        ConnectError::NoProxy { proxy: self.to_string(), source: Box::new(source) }
    }

    async fn reach(&self, limit: Duration) -> Result<TcpStream, ConnectError> {
        tcp::connect(&self.host, self.port, limit).await.map_err(|error| self.away(error))
    }

    async fn secured(&self, host: &str, port: u16, limit: Duration) -> Result<impl Stream, ConnectError> {
        let failed = |why: String| self.failed(host, port, &why, false);
        let mut roots = rustls::RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| failed(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(self.host.clone()).map_err(|error| failed(error.to_string()))?;
        let stream = self.reach(limit).await?;
        let connector = TlsConnector::from(Arc::new(config));
        connector.connect(name, stream).await.map_err(|error| failed(format!("TLS: {error}")))
    }

    /// CONNECT. What comes after the head of the answer is the server's, which may speak first, and stays in the buffer.
    async fn tunnel<S: Stream>(
        &self,
        stream: S,
        host: &str,
        port: u16,
    ) -> Result<BufReader<S>, ConnectError> {
        let failed = |why: &str, refused| self.failed(host, port, why, refused);
        let mut stream = BufReader::new(stream);
        let wrote = stream.write_all(self.request(host, port).as_bytes()).await;
        wrote.and(stream.flush().await).map_err(|error| failed(&error.to_string(), false))?;
        let head = read_head(&mut stream).await.map_err(|why| failed(&why, false))?;
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut answer = httparse::Response::new(&mut headers);
        if answer.parse(&head).is_err() {
            return Err(failed("what it answers is not HTTP", false));
        }
        let status = answer.code.unwrap_or_default();
        if (200..300).contains(&status) {
            return Ok(stream);
        }
        let why = match status {
            407 if self.login.is_some() => {
                "it does not accept the name and password in its URL (407)".to_owned()
            }
            407 => "it wants a name and a password (407)".to_owned(),
            403 | 405 => format!("it does not allow that ({status})"),
            _ => format!("{status} {}", printable_bytes(answer.reason.unwrap_or_default().as_bytes())),
        };
        Err(failed(&why, matches!(status, 401 | 403 | 405 | 407)))
    }

    fn request(&self, host: &str, port: u16) -> String {
        let target = host_port(host, port);
        let login = self.login.as_ref().map(|Login { user, password }| {
            let encoded = BASE64_STANDARD.encode(format!("{user}:{}", password.expose()));
            format!("Proxy-Authorization: Basic {encoded}\r\n")
        });
        let agent = concat!("hithe/", env!("CARGO_PKG_VERSION"));
        let login = login.unwrap_or_default();
        format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nUser-Agent: {agent}\r\n{login}\r\n")
    }

    async fn socks<'t>(
        &self,
        to: impl tokio_socks::IntoTargetAddr<'t>,
        host: &str,
        port: u16,
        limit: Duration,
    ) -> Result<TcpStream, ConnectError> {
        let failed = |error: tokio_socks::Error| {
            let refused = matches!(
                error,
                tokio_socks::Error::ConnectionNotAllowedByRuleset
                    | tokio_socks::Error::NoAcceptableAuthMethods
                    | tokio_socks::Error::PasswordAuthFailure(_)
                    | tokio_socks::Error::InvalidAuthValues(_)
                    | tokio_socks::Error::AuthorizationRequired
            );
            self.failed(host, port, &error.to_string(), refused)
        };
        let to: TargetAddr<'t> = to.into_target_addr().map_err(failed)?;
        let socket = self.reach(limit).await?;
        let connected = match &self.login {
            Some(Login { user, password }) => {
                Socks5Stream::connect_with_password_and_socket(socket, to, user, password.expose()).await
            }
            None => Socks5Stream::connect_with_socket(socket, to).await,
        };
        connected.map(Socks5Stream::into_inner).map_err(failed)
    }

    fn failed(&self, host: &str, port: u16, why: &str, refused: bool) -> ConnectError {
        ConnectError::Proxy {
            proxy: self.to_string(),
            target: host_port(host, port),
            why: why.to_owned(),
            refused,
        }
    }
}

impl Login {
    fn parse(text: &str) -> Result<Self, ()> {
        let (user, password) = text.split_once(':').unwrap_or((text, ""));
        Ok(Self { user: decode(user)?, password: Secret::new(decode(password)?) })
    }
}

/// Undoes the percent encoding of a URL (RFC 3986 §2.1).
fn decode(text: &str) -> Result<String, ()> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let mut digit = || {
            bytes
                .next()
                .and_then(|byte| char::from(byte).to_digit(16))
                .and_then(|digit| u8::try_from(digit).ok())
        };
        let (high, low) = (digit().ok_or(())?, digit().ok_or(())?);
        decoded.push(high * 16 + low);
    }
    String::from_utf8(decoded).map_err(|_| ())
}

/// Up to the empty line and not a byte further.
async fn read_head<S: Stream>(stream: &mut BufReader<S>) -> Result<Vec<u8>, String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && !head.ends_with(b"\n\n") {
        let left = MAX_HEAD.saturating_sub(head.len());
        let mut bounded = tokio::io::AsyncReadExt::take(&mut *stream, left as u64);
        match bounded.read_until(b'\n', &mut head).await {
            Ok(0) if left == 0 => return Err("its answer is too long".into()),
            Ok(0) => return Err("it closed the connection without an answer".into()),
            Ok(_) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(head)
}

#[cfg(test)]
mod tests;
