//! What a publisher can say of each kind of endpoint.

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::{About, Address, ModuleSet};

/// An `http` endpoint: requests are understood and pass through modules.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpSpec {
    /// Answer on http, https or both (http,https); without, the port of -R decides: 80 is http, 443 and 0 are https
    #[arg(long, alias = "scheme", value_name = "SCHEME", value_delimiter = ',')]
    pub schemes: Vec<Scheme>,
    #[command(flatten)]
    pub address: Address,
    #[command(flatten)]
    pub about: About,
    #[command(flatten)]
    pub modules: ModuleSet,
}

/// A `tls` endpoint: connections are passed through by their server name and never decrypted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsSpec {
    #[command(flatten)]
    pub address: Address,
    #[command(flatten)]
    pub about: About,
    #[command(flatten)]
    pub modules: ModuleSet,
}

/// A `tcp` endpoint: connections to a port of the server are passed through.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TcpSpec {
    #[command(flatten)]
    pub address: Address,
    #[command(flatten)]
    pub about: About,
    #[command(flatten)]
    pub modules: ModuleSet,
}

/// How visitors reach an `http` endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// In the clear, on the HTTP port
    Http,
    /// Over TLS, on the HTTPS port
    Https,
}

impl Scheme {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}
