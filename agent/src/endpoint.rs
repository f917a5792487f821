//! One endpoint as somebody asks for it: on the command line, in a file or in a program.

use std::path::PathBuf;

use hithe_cli_parser::Command;

use crate::Upstream;

/// What is to be published, and where it leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// By which files, inspector and console know it. One from the command line is `command_line`.
    pub name: String,
    /// What the server is asked for: what a person could have typed after `ssh HOST`.
    pub command: Command,
    pub upstream: Upstream,
    /// Whether the inspector may look into it.
    pub inspect: bool,
    /// TLS ends here and not at the server, which then sees ciphertext only.
    pub tls: Option<TlsAtAgent>,
}

/// What the agent shows to visitors whose TLS it ends (`--terminate-at agent`). Paths of PEM files, or PEM itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsAtAgent {
    /// The chain, first the certificate itself.
    pub certificate: PemSource,
    pub key: PemSource,
    /// Authorities of visitors' certificates. With one, visitors need such a certificate.
    pub authorities: Option<PemSource>,
}

/// A PEM file, or what would stand in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PemSource {
    File(PathBuf),
    Inline(hithe_cli_parser::Secret<String>),
}
