//! PROXY protocol towards the upstream: what can be said about it.

use std::fmt;
use std::str::FromStr;

use clap::Args;
use serde::{Deserialize, Serialize};

use super::{Definition, Kind, Manual, Objection, Stage};
use crate::Code;

/// Tells the upstream who the visitor is, before the first byte.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProxyProtocol {
    /// Begin each connection to the upstream with a PROXY header of version 1 (text) or 2 (binary)
    #[arg(
        long = "proxy-proto",
        alias = "upstream-proxy-protocol",
        value_name = "VERSION",
        id = "proxy-proto"
    )]
    pub version: Option<ProxyVersion>,
}

/// Of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ProxyVersion {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

impl Definition for ProxyProtocol {
    const STAGE: Stage = Stage::Upstream;
    const ON: &'static [Kind] = &Kind::ALL;
    const MANUAL: Manual = Manual {
        what: "Begins each connection to the upstream with a header of the PROXY protocol, which holds the address and \
               port of the visitor and those that it connected to. The upstream must expect it (`listen ... \
               proxy_protocol` in nginx, `accept-proxy` in HAProxy). It comes before TLS.",
        line: "ssh -R 0:localhost:22 HOST tcp --proxy-proto 2",
        defaults: "Off. On http endpoints a connection to the upstream then serves one visitor's connection only, for \
                   the header stands for all of its requests.",
        codes: &[Code::PROXY_VERSION],
    };

    fn flags(&self, flags: &mut Vec<(&'static str, Option<String>)>) {
        flags.extend(self.version.iter().map(|version| ("--proxy-proto", Some(version.to_string()))));
    }
}

impl FromStr for ProxyVersion {
    type Err = Objection;

    fn from_str(text: &str) -> Result<Self, Objection> {
        match text {
            "1" => Ok(Self::V1),
            "2" => Ok(Self::V2),
            _ => Err(Objection::new(Code::PROXY_VERSION, "--proxy-proto takes 1 or 2")),
        }
    }
}

impl fmt::Display for ProxyVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V1 => "1",
            Self::V2 => "2",
        })
    }
}

impl TryFrom<String> for ProxyVersion {
    type Error = Objection;

    fn try_from(text: String) -> Result<Self, Objection> {
        text.parse()
    }
}

impl From<ProxyVersion> for String {
    fn from(version: ProxyVersion) -> Self {
        version.to_string()
    }
}
