//! One endpoint as somebody asks for it: on the command line, in a file or in a program.

mod flags;
mod line;

use hithe_cli_parser::{Command, CommandError, HttpVersion, Kind, Pem, Secret, TlsVersion, UpstreamProtocol};

pub(crate) use flags::{command, with_values};

use crate::upstream::{AddressError, Place, Scheme, Upstream};

/// Of [`Endpoint::gives_key_away`].
pub(crate) const KEY_LEAVES: &str =
    "this private key is SENT TO THE SERVER, which ends TLS with it and sees what visitors send.";

/// What is to be published, and where it leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// By which files, inspector and console know it.
    pub name: String,
    /// What the server is asked for: what a person could have typed after `ssh HOST`.
    pub command: Command,
    pub upstream: Upstream,
    /// Whether the inspector may look into it.
    pub inspect: bool,
    /// TLS ends here and not at the server, which then sees ciphertext only.
    pub tls: Option<TlsAtAgent>,
    /// The agent speaks TLS with the upstream.
    pub upstream_tls: Option<TlsToUpstream>,
}

/// The name of an endpoint that stands on the command line (behaviour.md 6.1).
pub const COMMAND_LINE: &str = "command_line";

/// What the agent shows to visitors whose TLS it ends (`--terminate-at agent`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsAtAgent {
    /// The chain, first the certificate itself.
    pub certificate: Pem,
    pub key: Secret<Pem>,
    /// With authorities, visitors need a certificate of theirs.
    pub authorities: Vec<Pem>,
    pub min_version: Option<TlsVersion>,
    /// What the upstream speaks, and therefore visitors have to (RFC 7301). Otherwise nothing is agreed on, and whoever
    /// speaks HTTP takes that for HTTP/1.1.
    pub protocol: Option<HttpVersion>,
}

/// How the agent speaks TLS with an upstream (`https://…`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsToUpstream {
    /// Otherwise any certificate will do.
    pub verify: bool,
    /// In place of those that this machine trusts.
    pub authorities: Option<Pem>,
    /// In place of the host in ADDR.
    pub server_name: Option<String>,
}

/// Why there can be no such endpoint.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    #[error("{0}")]
    Address(#[from] AddressError),
    #[error("{0}")]
    Command(#[from] CommandError),
    /// What only a file can be, and none is.
    #[error("{}: {flag}", no_file(name))]
    NoFile { flag: &'static str, name: String },
    #[error("{0}")]
    Together(String),
}

/// A path that leads nowhere, and from where if that matters.
pub(crate) fn no_file(path: &str) -> String {
    let here = std::env::current_dir().ok().filter(|_| std::path::Path::new(path).is_relative());
    let looked = here.map(|here| format!(" (looked in {})", here.display())).unwrap_or_default();
    format!("there is no file {path}{looked}")
}

fn apart(message: &str) -> EndpointError {
    EndpointError::Together(message.to_owned())
}

/// What was said beside the command of the server.
#[derive(Debug, Default)]
struct Said {
    ends_tls_here: bool,
    inspect: bool,
    upstream_authorities: Option<Pem>,
}

impl Endpoint {
    /// From the words behind `http`, `tls` or `tcp`, in which an ADDR may be.
    ///
    /// # Errors
    /// Says which word is at fault and what to write instead.
    pub fn from_words<W>(
        name: &str,
        kind: Kind,
        words: impl IntoIterator<Item = W>,
    ) -> Result<Self, EndpointError>
    where
        W: Into<std::ffi::OsString> + Clone,
    {
        let words = with_values(words.into_iter().map(Into::into));
        let matches = command(kind).no_binary_name(true).try_get_matches_from(words);
        let matches = matches.map_err(|error| hithe_cli_parser::explain(kind, &error))?;
        Self::from_matches(name, kind, &matches)
    }

    /// From what clap made of [`grammar`].
    ///
    /// # Errors
    /// As [`Self::from_words`].
    pub(crate) fn from_matches(
        name: &str,
        kind: Kind,
        matches: &clap::ArgMatches,
    ) -> Result<Self, EndpointError> {
        let address = matches.get_one::<String>(flags::ADDR).map_or(DEFAULT_ADDR, String::as_str);
        let upstream = Upstream::parse(address, kind)?;
        let command = Command::from_matches(kind, matches)?;
        Self::settle(name, command, upstream, flags::said(matches))
    }

    /// Takes out of the command what the agent does itself.
    fn settle(
        name: &str,
        mut command: Command,
        upstream: Upstream,
        said: Said,
    ) -> Result<Self, EndpointError> {
        // Before anything else is made of it.
        find_files(&command, said.ends_tls_here)?;
        let tls = if said.ends_tls_here { Some(take_termination(&mut command)?) } else { None };
        name_the_upstream(&mut command, &upstream)?;
        let upstream_tls = take_upstream_tls(&mut command, &upstream, said.upstream_authorities)?;
        command.check()?;
        Ok(Self { name: name.to_owned(), command, upstream, inspect: said.inspect, tls, upstream_tls })
    }

    /// `http`, `tls` or `tcp`.
    pub const fn kind(&self) -> Kind {
        self.command.kind()
    }

    /// Whether a private key goes to the server and nobody has said that it should. ngrok's agent keeps one where these flags
    /// stand, and somebody who comes from there should know.
    pub(crate) fn gives_key_away(&self) -> bool {
        let termination = self.command.modules().tls_termination.as_ref();
        self.kind() == Kind::Tls && termination.is_some_and(|it| it.key.is_some() && it.at.is_none())
    }

    /// What visitors would object to, as far as it can be known before the server is asked.
    pub(crate) fn certificate_of_others(&self) -> Option<String> {
        let bind = self.bind();
        let name = self.command.asked(&bind).ok().filter(|it| it.address != bind.address)?;
        self.tls.as_ref()?.not_for(&name.address)
    }

    /// What to speak in TLS with the upstream, as it is told in the handshake (RFC 7301).
    pub(crate) fn alpn(&self) -> Vec<Vec<u8>> {
        let protocol = self.command.modules().upstream.as_ref().and_then(|it| it.protocol);
        match self.kind() {
            Kind::Http => alpn(Some(protocol.unwrap_or_default())),
            Kind::Tls | Kind::Tcp => self.tls.as_ref().map(TlsAtAgent::alpn).unwrap_or_default(),
        }
    }
}

impl TlsAtAgent {
    /// What visitors are offered.
    pub(crate) fn alpn(&self) -> Vec<Vec<u8>> {
        alpn(self.protocol)
    }
}

fn alpn(protocol: Option<HttpVersion>) -> Vec<Vec<u8>> {
    match protocol {
        Some(HttpVersion::Http2) => vec![b"h2".to_vec()],
        Some(HttpVersion::Http1 | HttpVersion::Auto) => vec![b"http/1.1".to_vec()],
        None => Vec::new(),
    }
}

/// What people have at hand who say nothing: what ngrok takes too.
const DEFAULT_ADDR: &str = "80";

/// A name stands for what the server has: it has no keys by name, and ends no TLS that ends here.
fn find_files(command: &Command, ends_tls_here: bool) -> Result<(), EndpointError> {
    let modules = command.modules();
    let termination = modules.tls_termination.as_ref();
    let key = termination.and_then(|it| it.key.as_ref()).map(Secret::expose);
    let certificate = termination.and_then(|it| it.certificate.as_ref());
    let certificate = certificate.filter(|_| ends_tls_here || key.is_some());
    let authorities = modules.mutual_tls.iter().filter(|_| ends_tls_here).flat_map(|it| &it.authorities);
    let all = certificate.into_iter().map(|it| ("--crt", it)).chain(key.map(|it| ("--key", it)));
    let mut all = all.chain(authorities.map(|it| ("--mutual-tls-cas", it)));
    let missing = all.find_map(|(flag, pem)| match pem {
        Pem::Named(name) => Some(EndpointError::NoFile { flag, name: name.clone() }),
        Pem::Inline(_) => None,
    });
    missing.map_or(Ok(()), Err)
}

fn take_termination(command: &mut Command) -> Result<TlsAtAgent, EndpointError> {
    if command.kind() != Kind::Tls {
        return Err(apart(
            "--terminate-at agent is for tls endpoints: hithe tls ADDR --terminate-at agent --crt FILE --key FILE",
        ));
    }
    let modules = command.modules_mut();
    let termination = modules.tls_termination.take().unwrap_or_default();
    let authorities = modules.mutual_tls.take().map(|it| it.authorities).unwrap_or_default();
    let (Some(certificate), Some(key)) = (termination.certificate, termination.key) else {
        return Err(apart("--terminate-at agent needs what visitors are shown: --crt FILE --key FILE"));
    };
    let protocol = modules.upstream.as_mut().and_then(|it| it.protocol.take());
    if protocol == Some(HttpVersion::Auto) {
        return Err(apart(
            "--upstream-protocol auto does not go with --terminate-at agent: say http1 or http2",
        ));
    }
    if modules.upstream == Some(UpstreamProtocol::default()) {
        modules.upstream = None;
    }
    Ok(TlsAtAgent { certificate, key, authorities, min_version: termination.min_version, protocol })
}

/// What ssh cannot tell the server and the agent can: the host of the upstream, and that it speaks h2c.
fn name_the_upstream(command: &mut Command, upstream: &Upstream) -> Result<(), EndpointError> {
    let modules = command.modules_mut();
    if let Some(rewrite) = modules.host_rewrite.as_mut().filter(|it| it.host.as_deref() == Some("rewrite")) {
        let host = upstream.authority();
        rewrite.host = Some(host.ok_or_else(|| apart("--host-header rewrite needs an ADDR with a host"))?);
    }
    if upstream.scheme() == Scheme::H2c {
        let module = modules.upstream.get_or_insert_default();
        if module.tls {
            return Err(apart(
                "h2c:// is HTTP/2 in the clear and does not go with --upstream-tls; over TLS: https:// and --upstream-protocol http2",
            ));
        }
        let protocol = &mut module.protocol;
        if protocol.is_some_and(|it| it != HttpVersion::Http2) {
            return Err(apart("h2c:// and --upstream-protocol say different things"));
        }
        *protocol = Some(HttpVersion::Http2);
    }
    Ok(())
}

/// The agent speaks TLS with the upstream, so that it sees what the inspector shows; unless HTTP/2 or not is to be
/// found out in the handshake, which only the server can act on.
fn take_upstream_tls(
    command: &mut Command,
    upstream: &Upstream,
    authorities: Option<Pem>,
) -> Result<Option<TlsToUpstream>, EndpointError> {
    let Place::Tcp { host, .. } = upstream.place() else { return Ok(None) };
    if upstream.scheme() != Scheme::Tls {
        return match authorities {
            Some(_) => Err(apart("--upstream-tls-verify-cas needs an ADDR that begins with https://")),
            None => Ok(None),
        };
    }
    let modules = command.modules_mut();
    let module = modules.upstream.get_or_insert_default();
    if module.protocol == Some(HttpVersion::Auto) {
        if authorities.is_some() {
            return Err(apart("--upstream-tls-verify-cas does not go with --upstream-protocol auto"));
        }
        module.tls = true;
        module.server_name.get_or_insert_with(|| host.clone());
        return Ok(None);
    }
    let tls = TlsToUpstream {
        verify: std::mem::take(&mut module.verify) || authorities.is_some(),
        authorities,
        server_name: module.server_name.take(),
    };
    module.tls = false;
    if *module == UpstreamProtocol::default() {
        modules.upstream = None;
    }
    Ok(Some(tls))
}

#[cfg(test)]
mod tests;
