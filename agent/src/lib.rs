//! The native agent of hithed as a library, the face for programs that publish by themselves.
//!
//! The agent is an optional client of the same SSH listener that stock `ssh` uses, and what it sends is a
//! command line that a person could have typed.

mod cli;
#[cfg_attr(not(test), expect(dead_code, reason = "the command line calls it"))]
mod completions;
#[cfg_attr(not(test), expect(dead_code, unused_imports, reason = "the command line calls it"))]
mod console;
mod endpoint;
mod files;
#[cfg_attr(not(test), expect(dead_code, reason = "the command line calls it"))]
mod logging;
#[expect(dead_code, reason = "the command line calls it")]
mod service;
mod status;
mod upstream;

pub use hithe_cli_parser::{Command, parse};

#[doc(hidden)]
pub use cli::main;
pub use endpoint::{Endpoint, PemSource, TlsAtAgent};
pub use status::{EndpointStatus, Phase, Status};
pub use upstream::{AddressError, Dialer, Place, Scheme, Stream, Upstream, UpstreamError};
