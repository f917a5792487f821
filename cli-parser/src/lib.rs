//! The language that a publisher speaks: the single definition of commands, flags, names and error codes.
//!
//! The server parses with it what arrives over ssh, the agent and the configuration files use the same types, and
//! the reference in `docs/` is generated from it.

mod about;
mod address;
mod admin;
mod allowance;
mod code;
mod command;
mod endpoint;
mod error;
mod forward;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod host_name;
mod modules;
mod period;
mod place;
mod printable;
mod quantity;
mod reference;
mod secret;
mod template;
mod words;

pub use about::About;
pub use address::Address;
pub use admin::{AccountLimits, Accounts, Admin, Audit, Grant, Keys, List, Names, Sessions, Show, Tokens};
pub use allowance::{Allowance, AllowanceError};
pub use code::Code;
pub use command::{Command, MAX_LINE, Parsed, UserName, explain, flags_of, parse};
pub use endpoint::{HttpSpec, Scheme, TcpSpec, TlsSpec};
pub use error::CommandError;
pub use forward::Bind;
pub use host_name::{HostName, HostPattern, NameError};
pub use modules::{
    BasicAuth, CircuitBreaker, Compression, Credential, Definition, Hash, HeaderRule, HostRewrite,
    HttpVersion, IpRestriction, Kind, MAX_AUTHORITIES, Manual, ModuleConfig, ModuleSet, MutualTls, Network,
    Objection, PRESERVE, Patterns, Pem, Provider, ProxyProtocol, ProxyVersion, Rate, RateKey, RateLimit,
    RequestHeaders, ResponseHeaders, SecretKind, Share, Stage, TerminateAt, TlsTermination, TlsVersion,
    UpstreamProtocol, UserAgentFilter, WebhookVerification, WebsocketTcp, compile, is_authority,
};
pub use period::{Period, PeriodError};
pub use place::{Placement, Schemes};
pub use printable::{printable, printable_bytes};
pub use quantity::bytes;
pub use reference::{modules, reference};
pub use secret::Secret;
pub use template::{Part, Template, Variable};
