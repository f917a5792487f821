//! Why there is no way into the server: whose fault it is, what to do about it, and whether to try again.

use std::path::Path;
use std::time::Duration;

use super::known_hosts::HostKeyPlace;
use crate::exit;

/// Why there is no connection. [`Display`](std::fmt::Display) gives one line that says what happened,
/// [`ConnectError::advice`] what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// What was asked for cannot be meant.
    #[error("{what}")]
    Option { what: String, advice: String },
    #[error("the name {host} cannot be resolved: {why}")]
    Dns { host: String, why: String },
    /// None of its addresses answers.
    #[error("{server} cannot be reached: {why}")]
    Unreachable { server: String, why: String },
    #[error("{what} took longer than {} s", limit.as_secs_f32())]
    Timeout { what: String, limit: Duration },
    /// The proxy is reached, but does not lead further.
    #[error("the proxy {proxy} does not lead to {target}: {why}")]
    Proxy { proxy: String, target: String, why: String, refused: bool },
    #[error("the proxy {proxy} cannot be used: {source}")]
    NoProxy { proxy: String, source: Box<Self> },
    /// The program that should lead there ended, or cannot be started. What it was given stays untold.
    #[error("the ProxyCommand `{program}` does not lead to {target}: {why}")]
    ProxyCommand { program: String, target: String, why: String, is_final: bool },
    /// What happened on the way to a jump host, or there.
    #[error("jump host {host}: {source}")]
    Jump { host: String, source: Box<Self> },
    /// Who answers is not a server of this kind.
    #[error("{server} does not speak SSH as it should: {why}")]
    Protocol { server: String, why: String },
    /// The connection ended in the middle.
    #[error("{server} ended the connection: {why}")]
    Lost { server: String, why: String },
    #[error("the {algorithm} key of {host}, {fingerprint}, is not known, and nobody can be asked")]
    HostKeyUnknown {
        host: String,
        algorithm: String,
        fingerprint: String,
        /// The command that adds the key, if there is one.
        scan: Option<String>,
    },
    #[error("the {algorithm} key of {host}, {fingerprint}, was not confirmed")]
    HostKeyRefused { host: String, algorithm: String, fingerprint: String },
    #[error(
        "THE HOST KEY OF {host} HAS CHANGED: it shows the {algorithm} key {fingerprint}, but {other} has another"
    )]
    HostKeyChanged { host: String, algorithm: String, fingerprint: String, other: Box<HostKeyPlace> },
    #[error("the {algorithm} key of {host}, {fingerprint}, is revoked by line {line} of {}", file.display())]
    HostKeyRevoked { host: String, algorithm: String, fingerprint: String, file: Box<Path>, line: usize },
    /// The server does not let us in. `said` is what it wrote about that, in lines.
    #[error("{server} does not let {user} in: {why}")]
    Login { server: String, user: String, why: String, said: Vec<String> },
    /// Something that russh has no better word for.
    #[error("{0}")]
    Ssh(russh::Error),
}

impl ConnectError {
    /// Whether another attempt would end the same way, as long as nobody changes something.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Option { .. }
            | Self::HostKeyUnknown { .. }
            | Self::HostKeyRefused { .. }
            | Self::HostKeyChanged { .. }
            | Self::HostKeyRevoked { .. }
            | Self::Login { .. } => true,
            Self::Proxy { refused, .. } => *refused,
            Self::ProxyCommand { is_final, .. } => *is_final,
            Self::Jump { source, .. } | Self::NoProxy { source, .. } => source.is_final(),
            Self::Dns { .. }
            | Self::Unreachable { .. }
            | Self::Timeout { .. }
            | Self::Protocol { .. }
            | Self::Lost { .. }
            | Self::Ssh(_) => false,
        }
    }

    /// One of [`crate::exit`].
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::Option { .. } | Self::ProxyCommand { is_final: true, .. } => exit::USAGE,
            Self::Login { .. } => exit::LOGIN,
            Self::HostKeyUnknown { .. }
            | Self::HostKeyRefused { .. }
            | Self::HostKeyChanged { .. }
            | Self::HostKeyRevoked { .. } => exit::HOST_KEY,
            Self::Jump { source, .. } | Self::NoProxy { source, .. } => source.exit_status(),
            Self::Dns { .. }
            | Self::Unreachable { .. }
            | Self::Timeout { .. }
            | Self::Proxy { .. }
            | Self::ProxyCommand { .. }
            | Self::Protocol { .. }
            | Self::Lost { .. }
            | Self::Ssh(_) => exit::NETWORK,
        }
    }

    /// What a person can do about it, in whole sentences.
    pub fn advice(&self) -> String {
        match self {
            Self::Option { advice, .. } => advice.clone(),
            Self::Dns { host, .. } => format!("Check the spelling of {host}, and that this machine has a network."),
            Self::NoProxy { .. } => {
                "Check the proxy's address in --proxy or in the environment, and that it runs. To go without it, say the \
                 proxy `none`."
                    .into()
            }
            Self::Unreachable { .. } | Self::Timeout { .. } => {
                "Check address and port with the server's operator; a firewall in between may forbid it.".into()
            }
            Self::Proxy { refused: true, .. } => {
                "Check name and password in the proxy's URL, and whether it allows this port. To go without it, add the \
                 server to no_proxy, or say the proxy `none`."
                    .into()
            }
            Self::Proxy { .. } => {
                "The fault is the proxy's, or behind it. To go without it, add the server to no_proxy, or say the proxy \
                 `none`."
                    .into()
            }
            Self::ProxyCommand { .. } => {
                "The fault is the program's, or behind it. It stands in ssh_config: correct it there, or go without it with \
                 --ssh-config none."
                    .into()
            }
            Self::Jump { source, .. } => source.advice(),
            Self::Protocol { .. } => "Check the port: it is the server's for ssh, not the one for visitors.".into(),
            Self::Lost { .. } | Self::Ssh(_) => "Usually another attempt helps; if not, ask the server's operator.".into(),
            Self::HostKeyUnknown { scan, .. } => {
                let scan =
                    scan.as_ref().map(|it| format!("add the key with `{it}`, or ")).unwrap_or_default();
                format!(
                    "Compare the fingerprint with what the server's operator says, then run this once at a terminal, or \
                     {scan}accept any first key with --accept-new-host-key."
                )
            }
            Self::HostKeyRefused { .. } => "Ask the server's operator for the fingerprint of its key.".into(),
            Self::HostKeyChanged { other, .. } => {
                let mend = match &**other {
                    HostKeyPlace::Line { .. } => format!("remove {other}"),
                    HostKeyPlace::Memory => "start this program again".into(),
                };
                format!(
                    "Either the server got a new key, or somebody stands between. Ask the server's operator for the \
                     fingerprint; only if it is the one above, {mend}."
                )
            }
            Self::HostKeyRevoked { .. } => "Whoever has this key is not the server. Ask its operator.".into(),
            Self::Login { said, .. } if !said.is_empty() => said.join("\n"),
            Self::Login { .. } => {
                "Ask the server's operator to add your public key, or name another key or a token.".into()
            }
        }
    }

    /// What happened, and what to do.
    pub(crate) fn in_full(&self) -> String {
        let advice = self.advice().replace('\n', "\n  ");
        format!("{self}\n  {advice}")
    }

    pub(super) fn option(what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::Option { what: what.into(), advice: advice.into() }
    }
}

/// So that a [`Handler`](russh::client::Handler) can have this as its error, and what
/// `Gate::check_server_key` says comes out of russh as it went in.
impl From<russh::Error> for ConnectError {
    fn from(error: russh::Error) -> Self {
        Self::Ssh(error)
    }
}

impl From<russh::SendError> for ConnectError {
    fn from(_: russh::SendError) -> Self {
        Self::Ssh(russh::Error::SendError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_jump_host_says_counts_as_if_the_server_had_said_it() {
        let login = ConnectError::Login {
            server: "bastion".into(),
            user: "ada".into(),
            why: "no key".into(),
            said: Vec::new(),
        };
        let jump = ConnectError::Jump { host: "bastion".into(), source: Box::new(login) };
        assert!(jump.is_final());
        assert_eq!(jump.exit_status(), exit::LOGIN);
    }

    #[test]
    fn who_is_on_the_way_is_to_blame_for_itself() {
        let nowhere = |host: &str| Box::new(ConnectError::Dns { host: host.into(), why: "no".into() });
        let proxy = ConnectError::NoProxy { proxy: "http://foo:80".into(), source: nowhere("foo") };
        assert!(proxy.to_string().starts_with("the proxy http://foo:80 cannot be used: the name foo"));
        assert!(proxy.advice().contains("--proxy") && !proxy.is_final());
        let jump = ConnectError::Jump { host: "gw".into(), source: nowhere("gw") };
        assert_eq!(jump.to_string(), "jump host gw: the name gw cannot be resolved: no");
        assert!(jump.advice().starts_with("Check the spelling of gw,"), "{}", jump.advice());
    }

    #[test]
    fn a_proxy_is_tried_again_unless_it_refuses() {
        let proxy = |refused| ConnectError::Proxy {
            proxy: "http://proxy".into(),
            target: "server".into(),
            why: "407".into(),
            refused,
        };
        assert!(proxy(true).is_final());
        assert!(!proxy(false).is_final());
        assert_eq!(proxy(true).exit_status(), exit::NETWORK);
    }
}
