//! TLS termination: what can be said about it.

use std::str::FromStr;

use clap::Args;
use serde::{Deserialize, Serialize};

use super::pem::Pem;
use super::{Definition, Kind, Manual, Objection, Stage};
use crate::{Code, Secret};

/// Where TLS ends, with which certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsTermination {
    /// End TLS at the server (edge) or at the upstream; of tls endpoints [default: upstream]
    #[arg(long = "terminate-at", value_name = "edge|upstream", id = "terminate-at")]
    pub at: Option<TerminateAt>,
    /// Refuse visitors that speak an older TLS than 1.2 or 1.3
    #[arg(long = "tls-min-version", value_name = "VERSION", id = "tls-min-version")]
    pub min_version: Option<TlsVersion>,
    /// Show this certificate: PEM with its chain, PEM in base64, or a name that the server knows
    #[arg(long = "crt", value_name = "PEM|NAME", id = "crt")]
    pub certificate: Option<Pem>,
    /// The private key of --crt: PEM, or PEM in base64
    #[arg(long = "key", value_name = "PEM", id = "key")]
    pub key: Option<Secret<Pem>>,
}

/// Which side ends TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TerminateAt {
    /// The server.
    Edge,
    /// Not the server.
    Upstream,
}

/// Of TLS, from visitors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TlsVersion {
    #[serde(rename = "1.2")]
    V1_2,
    #[serde(rename = "1.3")]
    V1_3,
}

impl TlsTermination {
    /// Whether a tls endpoint ends TLS at the server.
    pub fn is_at_edge(&self) -> bool {
        self.at == Some(TerminateAt::Edge) || (self.at.is_none() && self.certificate.is_some())
    }
}

impl Definition for TlsTermination {
    const STAGE: Stage = Stage::Handshake;
    const ON: &'static [Kind] = &[Kind::Http, Kind::Tls];
    const MANUAL: Manual = Manual {
        what: "A tls endpoint passes visitors' bytes through undecrypted. With `--terminate-at edge` TLS ends at the \
               server, and the upstream gets what was inside in the clear, or encrypted anew with `--upstream-tls`. \
               http endpoints always end TLS at the server.\n\n`--crt` and `--key` bring a certificate of your own: \
               `--crt \"$(base64 -w0 cert.pem)\" --key \"$(base64 -w0 key.pem)\"`. The certificate comes first, its \
               chain behind it. Both are kept in memory only, as long as the endpoint lives. With them a custom domain \
               needs none of the operator's, though it still needs the operator's leave (`--allow-domain`) or a proof \
               (`--custom-domains`). Whether visitors trust the certificate for the name is the publisher's affair.\n\n`--crt NAME` without a key \
               stands for the folder NAME of the operator's `--certificates`. It is given only to an endpoint whose \
               name that certificate is for: exactly, or as the one label of its wildcard; a wildcard endpoint needs \
               the same wildcard. The key stays with the server.\n\n\
               A request over a connection that was made for another name gets status 421 where the endpoint has a \
               certificate or a version of its own.",
        line: "ssh -R app:443:localhost:80 HOST tls --terminate-at edge --tls-min-version 1.3",
        defaults: "TLS 1.2 and 1.3; the server's own certificate for the name. A certificate given to a tls endpoint \
                   switches `--terminate-at edge` on. No application protocol (ALPN, RFC 7301) is agreed on there: \
                   what the raw bytes are is between visitor and upstream. Clients that insist on one, such as those \
                   of HTTP/2, want http, or TLS passed through.",
        codes: &[Code::TLS_VERSION, Code::TLS_VERSION_PLACE, Code::CERTIFICATE],
    };

    fn check(&self) -> Result<(), Objection> {
        let objection = |message: &str| Err(Objection::new(Code::CERTIFICATE, message));
        match (&self.certificate, &self.key) {
            (None, Some(_)) => objection("--key needs the certificate that it belongs to: --crt"),
            (Some(Pem::Inline(_)), None) => objection("--crt needs its private key: --key"),
            (Some(Pem::Named(_)), Some(_)) => objection(
                "--crt takes a name or comes with --key, not both; is it a file? Then --crt \"$(base64 -w0 FILE)\"",
            ),
            (Some(Pem::Inline(_)), Some(key)) if matches!(key.expose(), Pem::Named(_)) => {
                objection("--key takes PEM, or PEM in base64: --key \"$(base64 -w0 FILE)\"")
            }
            _ => Ok(()),
        }
    }

    fn check_for(&self, kind: Kind) -> Result<(), Objection> {
        let through = kind == Kind::Tls && !self.is_at_edge();
        if kind == Kind::Http && self.at == Some(TerminateAt::Upstream) {
            let message = "http endpoints end TLS at the server; to pass it through, use the command tls";
            return Err(Objection::new(Code::BAD_FLAG, message));
        }
        if through && self.min_version.is_some() {
            let message = "--tls-min-version needs --terminate-at edge: the upstream chooses otherwise";
            return Err(Objection::new(Code::TLS_VERSION_PLACE, message));
        }
        if through && self.certificate.is_some() {
            let message = "--crt needs --terminate-at edge: the upstream has its own certificate otherwise";
            return Err(Objection::new(Code::CERTIFICATE, message));
        }
        Ok(())
    }

    fn flags(&self, flags: &mut Vec<(&'static str, Option<String>)>) {
        let said = [
            ("--terminate-at", self.at.map(|it| it.as_str().to_owned())),
            ("--tls-min-version", self.min_version.map(|it| it.as_str().to_owned())),
            ("--crt", self.certificate.clone().map(String::from)),
            ("--key", self.key.as_ref().map(|it| String::from(it.expose().clone()))),
        ];
        flags.extend(said.into_iter().filter(|(_, value)| value.is_some()));
    }
}

impl TerminateAt {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Edge => "edge",
            Self::Upstream => "upstream",
        }
    }
}

impl FromStr for TerminateAt {
    type Err = Objection;

    fn from_str(text: &str) -> Result<Self, Objection> {
        match text {
            "edge" => Ok(Self::Edge),
            "upstream" => Ok(Self::Upstream),
            "agent" => {
                let message = "ssh does not end TLS: take edge (the server) or upstream (your service)";
                Err(Objection::new(Code::UNSUPPORTED_FLAG, message))
            }
            _ => Err(Objection::new(Code::BAD_FLAG, "--terminate-at takes edge or upstream")),
        }
    }
}

impl TlsVersion {
    const fn as_str(self) -> &'static str {
        match self {
            Self::V1_2 => "1.2",
            Self::V1_3 => "1.3",
        }
    }
}

impl FromStr for TlsVersion {
    type Err = Objection;

    fn from_str(text: &str) -> Result<Self, Objection> {
        match text {
            "1.2" => Ok(Self::V1_2),
            "1.3" => Ok(Self::V1_3),
            _ => Err(Objection::new(Code::TLS_VERSION, "--tls-min-version takes 1.2 or 1.3")),
        }
    }
}

impl FromStr for Secret<Pem> {
    type Err = Objection;

    fn from_str(text: &str) -> Result<Self, Objection> {
        text.parse().map(Self::new)
    }
}
