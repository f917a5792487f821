//! The flags of an endpoint on the agent's command line: those of the server's grammar, with files where that has PEM,
//! and the few that only an agent can have.

use std::ffi::OsString;
use std::path::Path;
use std::str::FromStr as _;

use clap::{Arg, ArgAction, ArgMatches, ValueHint};
use hithe_cli_parser::{Code, Kind, Objection, PRESERVE, Pem, Secret, TerminateAt, flags_of, is_authority};

use super::{Said, no_file};

pub(super) const ADDR: &str = "ADDR";
const INSPECT: &str = "inspect";
const AUTHORITIES: &str = "upstream-tls-verify-cas";
const TERMINATE_AT: &str = "terminate-at";

/// `http`, `tls` or `tcp` with the flags of endpoints.
pub(crate) fn command(kind: Kind) -> clap::Command {
    grammar(flags_of(kind), kind)
}

/// Adds to the server's grammar of a command what only the agent has.
fn grammar(command: clap::Command, kind: Kind) -> clap::Command {
    // No part of the group of flags before it.
    let address = Arg::new(ADDR).help(address_help(kind)).value_name("ADDR").help_heading(None);
    let inspect = Arg::new(INSPECT)
        .long(INSPECT)
        .help("Show what passes in the inspector")
        .value_name("BOOL")
        .num_args(0..=1)
        .require_equals(true)
        .value_parser(clap::value_parser!(bool))
        .default_value("true")
        .default_missing_value("true")
        .action(ArgAction::Set);
    let authorities = Arg::new(AUTHORITIES)
        .long(AUTHORITIES)
        .help(
            "Accept only a certificate of the upstream that these authorities signed; with https:// in ADDR",
        )
        .value_name("FILE")
        .value_hint(ValueHint::FilePath)
        .value_parser(pem);
    let mut command = command.arg(address).next_help_heading("Agent").arg(inspect).arg(authorities);
    // There is no -R to speak of.
    command = command.mut_args(|arg| match IN_OTHER_WORDS.iter().find(|(name, _)| arg.get_id() == *name) {
        Some((_, help)) => arg.help(*help),
        None => arg,
    });
    // Values that the server would have to refuse.
    if kind == Kind::Http {
        command = command.mut_arg("host-header", |arg| {
            arg.value_parser(host).help("The host that the upstream is asked for: rewrite is that of ADDR, preserve the public one, or a host such as localhost:3000")
        });
    }
    if kind != Kind::Tcp {
        command = command
            .mut_arg("upstream-protocol", |arg| {
                arg.hide(false)
                    .help("Speak HTTP/1.1 (http1), HTTP/2 (http2), or what the upstream chooses in its TLS handshake (auto); of tls endpoints with --terminate-at agent, what visitors have to speak: http1 or http2")
            })
            .mut_arg(TERMINATE_AT, |arg| {
                arg.value_parser(terminate_at)
                    .value_name("edge|agent|upstream")
                    .help("End TLS at the server (edge), here (agent), or at the upstream; of tls endpoints [default: upstream]")
            })
            .mut_arg("crt", |arg| file(arg).value_parser(pem).value_name("FILE|PEM|NAME"))
            .mut_arg("key", |arg| file(arg).value_parser(key).value_name("FILE|PEM"))
            .mut_arg("mutual-tls-cas", |arg| file(arg).value_parser(pem).value_name("FILE|PEM|NAME"));
    }
    command
}

/// Flags of which the server's help says what `ssh -R` has to do with them.
const IN_OTHER_WORDS: &[(&str, &str)] = &[
    ("schemes", "Answer on http, https or both (http,https) [default: https]"),
    (
        "domain",
        "The name that visitors use: app, app.example.com or *.app; without it a random one, the same each time",
    ),
    (
        "remote-addr",
        "The public port: host:port, such as tunnel.example.com:20022; without it any, the same each time",
    ),
    (
        "verify-upstream-tls",
        "Accept only a trusted certificate of the upstream: with https:// in ADDR one that this machine trusts, for the host there; otherwise, and with --upstream-protocol auto, one that the server's machine trusts",
    ),
    (
        "upstream-server-name",
        "The name that the upstream is asked for in its TLS handshake [default: the host of an https:// ADDR, otherwise localhost]",
    ),
];

fn file(arg: Arg) -> Arg {
    arg.value_hint(ValueHint::FilePath)
}

fn address_help(kind: Kind) -> &'static str {
    match kind {
        Kind::Http => {
            "What is published: a port (80), host:port, http://, https:// or h2c://host:port, unix:/path, or a folder: file:///path"
        }
        Kind::Tls => "What is published: a port (443), host:port or unix:/path, where TLS is spoken",
        Kind::Tcp => "What is published: a port (22), host:port, tls://host:port or unix:/path",
    }
}

/// What of it the server is not told.
pub(super) fn said(matches: &ArgMatches) -> Said {
    let terminates = matches.try_get_raw(TERMINATE_AT).ok().flatten();
    Said {
        ends_tls_here: terminates.is_some_and(|mut values| values.any(|it| it == "agent")),
        inspect: matches.get_one(INSPECT).copied().unwrap_or(true),
        upstream_authorities: matches.get_one(AUTHORITIES).cloned(),
    }
}

fn host(text: &str) -> Result<String, Objection> {
    if ["rewrite", PRESERVE].contains(&text) || is_authority(text) {
        return Ok(text.to_owned());
    }
    let message =
        "--host-header takes rewrite, preserve, or a host and perhaps a port, such as localhost:3000";
    Err(Objection::new(Code::BAD_FLAG, message))
}

/// `agent` is told from the rest by [`said`].
fn terminate_at(text: &str) -> Result<TerminateAt, Objection> {
    let wrong = |_| Objection::new(Code::BAD_FLAG, "--terminate-at takes edge, agent or upstream");
    TerminateAt::from_str(if text == "agent" { "upstream" } else { text }).map_err(wrong)
}

/// A file's, or what is no file.
fn pem(text: &str) -> Result<Pem, Objection> {
    let path = Path::new(text);
    if text.len() > LONGEST_PATH || !path.is_file() {
        let missing = |objection| match text.contains(['/', '\\'])
            && text.len() < LONGEST_PATH
            && !text.contains("BEGIN")
        {
            true => Objection::new(Code::BAD_FLAG, no_file(text)),
            false => objection,
        };
        return Pem::from_str(text).map_err(missing);
    }
    let failed = |error| Objection::new(Code::BAD_FLAG, format!("cannot read {text}: {error}"));
    match Pem::from_str(&std::fs::read_to_string(path).map_err(failed)?)? {
        Pem::Named(_) => Err(Objection::new(Code::BAD_FLAG, format!("there is no PEM in {text}"))),
        pem @ Pem::Inline(_) => Ok(pem),
    }
}

/// What is neither PEM nor a file may still be a key, which no message may show.
fn key(text: &str) -> Result<Secret<Pem>, Objection> {
    // Base64 has none of these.
    let looks_like_a_path =
        text.len() <= LONGEST_NAME && (text.starts_with('/') || text.contains(['.', '-', '_', '~', '\\']));
    if !looks_like_a_path && !Path::new(text).is_file() {
        return Pem::from_str(text).map(Secret::new);
    }
    pem(text).map(Secret::new)
}

/// Of a file (POSIX, `NAME_MAX`). Keys are longer, but for the smallest.
const LONGEST_NAME: usize = 255;
/// Where PEM begins.
const LONGEST_PATH: usize = 4096;

/// Puts a value that begins with hyphens behind its flag: `--crt "$(cat cert.pem)"`. As over ssh, two of them begin a flag
/// and more of them a value.
pub(crate) fn with_values(words: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut joined: Vec<OsString> = Vec::new();
    for word in words {
        let bytes = word.as_encoded_bytes();
        let of_flag = |last: &&mut OsString| {
            let flag = last.as_encoded_bytes();
            flag.len() > 2 && flag.starts_with(b"--") && !flag.starts_with(b"---") && !flag.contains(&b'=')
        };
        match joined.last_mut().filter(of_flag) {
            Some(flag) if bytes.starts_with(b"---") => {
                flag.push("=");
                flag.push(word);
            }
            _ => joined.push(word),
        }
    }
    joined
}
