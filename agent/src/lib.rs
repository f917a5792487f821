//! The native agent of hithed as a library, the face for programs that publish by themselves.
//!
//! The agent is an optional client of the same SSH listener that stock `ssh` uses, and what it sends is a
//! command line that a person could have typed.

mod agent;
mod cli;
mod completions;
pub mod config;
mod connect;
mod console;
mod diagnose;
mod endpoint;
pub mod exit;
mod files;
mod inspect;
mod logging;
mod metrics;
mod publisher;
mod remedy;
mod retry;
mod sdk;
mod service;
mod session;
mod status;
mod upstream;

pub use hithe_cli_parser::{Command, Kind, parse};

#[doc(hidden)]
pub use cli::main;
pub use config::{Config, ConfigError};
pub use connect::{
    Ask, ConnectError, HostKeyPlace, HostKeyPolicy, Nobody, ServerOptions, SshConfigFile, Terminal,
};
pub use endpoint::{COMMAND_LINE, Endpoint, EndpointError, TlsAtAgent, TlsToUpstream};
pub use publisher::{Failure, Heartbeat};
pub use sdk::{EndpointBuilder, Error, Events, Listener, Published, Session, SessionBuilder};
pub use session::Connection;
pub use status::{EndpointStatus, Phase, Status};
pub use upstream::{AddressError, Dialer, Place, Scheme, Stream, Upstream, UpstreamError};
