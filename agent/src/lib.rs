//! The native agent of hithed as a library, the face for programs that publish by themselves.
//!
//! The agent is an optional client of the same SSH listener that stock `ssh` uses, and what it sends is a
//! command line that a person could have typed. So far there is only that language: [`Command`] and [`parse`],
//! from the crate that defines it. Connecting follows.

pub use hithe_cli_parser::{Command, parse};

/// What to use until this agent can publish.
pub const MEANWHILE: &str = "\
The agent's publishing part is still to come. Until then any stock ssh client does the same work, for example

    ssh -R 443:localhost:80 v2@tunnel.example.com http

and `ssh v2@tunnel.example.com http --help` lists what can be said.";
