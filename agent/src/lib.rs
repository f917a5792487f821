//! The native agent of hithed as a library, the face for programs that publish by themselves.
//!
//! The agent is an optional client of the same SSH listener that stock `ssh` uses, and what it sends is a
//! command line that a person could have typed.

mod cli;
mod endpoint;
mod files;
#[expect(dead_code, reason = "the session that records is built beside it")]
mod inspect;
#[expect(dead_code, reason = "the console reads them")]
mod metrics;
mod status;
mod upstream;

pub use hithe_cli_parser::{Command, parse};

#[doc(hidden)]
pub use cli::main;
pub use endpoint::{Endpoint, PemSource, TlsAtAgent};
pub use status::{EndpointStatus, Phase, Status};
pub use upstream::{AddressError, Dialer, Place, Scheme, Stream, Upstream, UpstreamError};
