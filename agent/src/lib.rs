//! The native agent of hithed as a library, the face for programs that publish by themselves.
//!
//! The agent is an optional client of the same SSH listener that stock `ssh` uses, and what it sends is a
//! command line that a person could have typed.

mod cli;
pub mod config;
mod endpoint;
mod files;
mod status;
mod upstream;

pub use hithe_cli_parser::{Command, Kind, parse};

#[doc(hidden)]
pub use cli::main;
pub use config::{Config, ConfigError};
pub use endpoint::{COMMAND_LINE, Endpoint, EndpointError, TlsAtAgent, TlsToUpstream};
pub use status::{EndpointStatus, Phase, Status};
pub use upstream::{AddressError, Dialer, Place, Scheme, Stream, Upstream, UpstreamError};
