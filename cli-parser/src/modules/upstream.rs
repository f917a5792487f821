//! The protocol of the upstream: what can be said about it.

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use super::{Definition, Kind, Manual, Objection, Stage};
use crate::Code;

/// How the upstream is spoken to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UpstreamProtocol {
    /// Speak HTTP/1.1 (http1), HTTP/2 (http2), or what the upstream chooses in its TLS handshake (auto)
    #[arg(
        long = "upstream-protocol",
        alias = "app-protocol",
        value_name = "PROTOCOL",
        id = "upstream-protocol"
    )]
    pub protocol: Option<HttpVersion>,
    /// Speak TLS with the upstream
    #[arg(long = "upstream-tls", id = "upstream-tls")]
    pub tls: bool,
    /// Accept only a certificate that the server's machine trusts, for the name in --upstream-server-name
    #[arg(long = "verify-upstream-tls", alias = "upstream-tls-verify", id = "verify-upstream-tls")]
    pub verify: bool,
    /// The name that the upstream is asked for in its TLS handshake [default: localhost]
    #[arg(long = "upstream-server-name", value_name = "NAME", id = "upstream-server-name")]
    pub server_name: Option<String>,
}

/// Of HTTP, towards the upstream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HttpVersion {
    /// HTTP/1.1
    #[default]
    Http1,
    /// HTTP/2, in the clear with prior knowledge
    Http2,
    /// By ALPN
    Auto,
}

impl HttpVersion {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Http1 => "http1",
            Self::Http2 => "http2",
            Self::Auto => "auto",
        }
    }
}

impl Definition for UpstreamProtocol {
    const STAGE: Stage = Stage::Upstream;
    const ON: &'static [Kind] = &[Kind::Http, Kind::Tcp, Kind::Tls];
    const MANUAL: Manual = Manual {
        what: "Chooses what is spoken through the tunnel. `--upstream-tls` reaches a service that speaks HTTPS, or TLS \
               on tcp endpoints and on tls endpoints that end here. `--upstream-protocol http2` speaks HTTP/2 \
               whatever visitors speak, which gRPC services want: one connection then carries the requests of all \
               visitors. WebSockets go over HTTP/1.1 connections of their own.",
        line: "ssh -R 443:localhost:8443 HOST http --upstream-tls --upstream-protocol auto",
        defaults: "HTTP/1.1 in the clear. Without `--verify-upstream-tls` any certificate is accepted: the tunnel \
                   itself is encrypted, and most services behind one have a certificate that nobody signed. `auto` \
                   without TLS is HTTP/1.1.",
        codes: &[Code::UPSTREAM_TLS],
    };

    fn check(&self) -> Result<(), Objection> {
        let objection = |message: &str| Err(Objection::new(Code::BAD_FLAG, message));
        if !self.tls && self.verify {
            return objection("--verify-upstream-tls needs --upstream-tls");
        }
        if !self.tls && self.server_name.is_some() {
            return objection("--upstream-server-name needs --upstream-tls");
        }
        if self.verify && self.server_name.is_none() {
            return objection(
                "--verify-upstream-tls needs --upstream-server-name: ssh does not tell the server where -R points to",
            );
        }
        Ok(())
    }

    fn flags(&self, flags: &mut Vec<(&'static str, Option<String>)>) {
        flags.extend(self.protocol.iter().map(|it| ("--upstream-protocol", Some(it.as_str().to_owned()))));
        flags.extend(self.tls.then_some(("--upstream-tls", None)));
        flags.extend(self.verify.then_some(("--verify-upstream-tls", None)));
        flags.extend(self.server_name.iter().map(|it| ("--upstream-server-name", Some(it.clone()))));
    }
}
