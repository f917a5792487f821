//! `http|tls|tcp [flags]`: from an exec line to a [`Command`] and back.

mod refusals;

use std::fmt;

use clap::{ArgAction, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use serde::{Deserialize, Serialize};

use crate::admin::{self, ADMIN, Admin};
use crate::modules::flags_not_of;
use crate::words;
use crate::{About, CommandError, HttpSpec, Kind, ModuleSet, Scheme, TcpSpec, TlsSpec};

/// What a publisher asks for.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Command {
    /// Publish a web service over https, http or both
    Http(HttpSpec),
    /// Publish a TLS service; the server passes it through undecrypted, by the name that visitors ask for
    Tls(TlsSpec),
    /// Publish any TCP service on a port of the server
    Tcp(TcpSpec),
}

impl Command {
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Http(_) => Kind::Http,
            Self::Tls(_) => Kind::Tls,
            Self::Tcp(_) => Kind::Tcp,
        }
    }

    pub const fn about(&self) -> &About {
        match self {
            Self::Http(http) => &http.about,
            Self::Tls(tls) => &tls.about,
            Self::Tcp(tcp) => &tcp.about,
        }
    }

    pub fn schemes(&self) -> &[Scheme] {
        match self {
            Self::Http(http) => &http.schemes,
            Self::Tls(_) | Self::Tcp(_) => &[],
        }
    }

    /// What [`flags_of`] this kind were given, not yet [checked](Self::check).
    ///
    /// # Errors
    /// Says which word is at fault and what to write instead.
    pub fn from_matches(kind: Kind, matches: &clap::ArgMatches) -> Result<Self, CommandError> {
        let command = match kind {
            Kind::Http => HttpSpec::from_arg_matches(matches).map(Self::Http),
            Kind::Tls => TlsSpec::from_arg_matches(matches).map(Self::Tls),
            Kind::Tcp => TcpSpec::from_arg_matches(matches).map(Self::Tcp),
        };
        let mut command = command.map_err(|error| refusals::explain(kind.as_str(), &error))?;
        command.modules_mut().leave_out_what_is_off();
        Ok(command)
    }

    /// # Errors
    /// Flags that are fine alone and wrong together.
    pub fn check(&self) -> Result<(), CommandError> {
        self.address().check(self.kind(), self.schemes())?;
        self.about().check()?;
        if self.modules().mutual_tls.is_some() && self.schemes().contains(&Scheme::Http) {
            return Err(refusals::plain_beside_mutual_tls());
        }
        self.modules().check(self.kind()).map_err(|it| refusals::objection(self.kind(), it))
    }

    pub const fn modules_mut(&mut self) -> &mut ModuleSet {
        match self {
            Self::Http(http) => &mut http.modules,
            Self::Tls(tls) => &mut tls.modules,
            Self::Tcp(tcp) => &mut tcp.modules,
        }
    }

    /// Each flag as it would be typed, values unquoted.
    fn flags(&self) -> Vec<(&'static str, Option<String>)> {
        let mut flags = Vec::new();
        if !self.schemes().is_empty() {
            let schemes: Vec<_> = self.schemes().iter().map(|it| it.as_str()).collect();
            flags.push(("--schemes", Some(schemes.join(","))));
        }
        self.address().flags(&mut flags);
        self.about().flags(&mut flags);
        flags.extend(self.modules().flags());
        flags
    }

    /// The words of the [line](fmt::Display) as a person gives them to a shell, for which it has to quote each.
    pub fn words(&self) -> Vec<String> {
        let mut words = vec![self.kind().as_str().to_owned()];
        for (flag, value) in self.flags() {
            words.push(flag.to_owned());
            words.extend(value.map(|value| words::quote(&value)));
        }
        words
    }

    /// Asks for the address at which an endpoint is already (`https://app.example.com`, `tcp://HOST:20022`), unless one is
    /// asked for.
    pub fn claim(&mut self, url: &str) {
        let place = url.split_once("://").map_or(url, |(_, place)| place);
        let name = || place.split(':').next().map(str::to_owned);
        match self {
            Self::Http(HttpSpec { address, .. }) | Self::Tls(TlsSpec { address, .. })
                if address.is_empty() =>
            {
                address.domain = name();
            }
            Self::Tcp(TcpSpec { address, .. }) if address.is_empty() => {
                address.remote_addr = Some(place.to_owned())
            }
            Self::Http(_) | Self::Tls(_) | Self::Tcp(_) => {}
        }
    }

    /// Whether other sessions of the account may share the address.
    pub const fn pools(&self) -> bool {
        self.address().pooling_enabled
    }

    /// Whether visitors meet the same rules here as there, wherever the two stand and whatever is noted about them.
    pub fn serves_like(&self, other: &Self) -> bool {
        self.kind() == other.kind() && self.schemes() == other.schemes() && self.modules() == other.modules()
    }

    pub const fn modules(&self) -> &ModuleSet {
        match self {
            Self::Http(http) => &http.modules,
            Self::Tls(tls) => &tls.modules,
            Self::Tcp(tcp) => &tcp.modules,
        }
    }
}

/// What an exec line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    Publish(Box<Command>),
    /// Something asked of the server itself.
    Admin(Box<Admin>),
    /// The text to show.
    Help(String),
}

/// Parses the exec line of a session, as it was received.
///
/// # Errors
/// Says which word is at fault and what to write instead.
pub fn parse(line: &str) -> Result<Parsed, CommandError> {
    if line.len() > MAX_LINE {
        return Err(refusals::too_long(MAX_LINE));
    }
    let words = words::split(line);
    let Some((command, flags)) = words.split_first() else {
        return Err(refusals::no_command());
    };
    if asks_for_help(command) {
        let of = flags.first().map(String::as_str);
        if let Some(name) = of.filter(|name| ADMIN.contains(name)) {
            return parse(&format!("{name} --help"));
        }
        return Ok(Parsed::Help(help(flags.first().map(String::as_str))));
    }
    if ADMIN.contains(&command.as_str()) {
        return admin::parse(line).map(|answer| match answer {
            admin::Answer::Command(command) => Parsed::Admin(Box::new(command)),
            admin::Answer::Help(help) => Parsed::Help(help),
        });
    }
    if !NAMES.contains(&command.as_str()) {
        return Err(refusals::unknown_command(command));
    }
    if flags.iter().any(|word| asks_for_help(word)) {
        return Ok(Parsed::Help(help(Some(command))));
    }
    // clap would read `-auth` as four short flags, and everything behind `--` as positionals.
    let not_for_clap = |word: &&String| !word.starts_with("--") || word.as_str() == "--";
    if let Some(word) = flags.iter().find(not_for_clap) {
        return Err(refusals::unknown_argument(command, word, None));
    }
    let parsed: Line = grammar()
        .try_get_matches_from(&words)
        .and_then(|matches| Line::from_arg_matches(&matches))
        .map_err(|error| refusals::explain(command, &error))?;
    let mut command = parsed.command;
    command.modules_mut().leave_out_what_is_off();
    command.check()?;
    Ok(Parsed::Publish(Box::new(command)))
}

/// `help`, `--help` or `-h`, whatever follows it.
fn asks_for_help(word: &str) -> bool {
    matches!(word.split('=').next(), Some("help" | "--help" | "-h"))
}

/// Bytes of an exec line: a chain of certificates, its key and some authorities, in PEM or base64.
pub const MAX_LINE: usize = 64 * 1024;

/// The three commands.
pub(crate) const NAMES: [&str; 3] = ["http", "tls", "tcp"];

#[derive(Debug, Parser)]
#[command(no_binary_name = true, disable_version_flag = true, disable_help_subcommand = true)]
struct Line {
    #[command(subcommand)]
    command: Command,
}

/// The grammar as it is shown: each command with its own flags only. What is parsed has all modules in all commands,
/// so that one that does not belong there is refused with its name.
pub(crate) fn shown_grammar() -> clap::Command {
    let mut grammar = grammar();
    for kind in Kind::ALL {
        let hidden = flags_not_of(kind);
        let hide = |flag: clap::Arg| {
            let hides = flag.is_hide_set()
                || is_pointless(kind, flag.get_id().as_str())
                || flag.get_long().is_some_and(|long| hidden.iter().any(|it| it == long));
            flag.hide(hides)
        };
        grammar = grammar.mut_subcommand(kind.as_str(), |command| command.mut_args(hide));
    }
    grammar
}

/// The flags of one command, for a program that takes them from its own command line and adds some of its own.
pub fn flags_of(kind: Kind) -> clap::Command {
    let grammar = shown_grammar();
    let command = grammar.find_subcommand(kind.as_str()).cloned();
    let plain = clap::Command::new(kind.as_str()).disable_help_flag(true);
    command.map_or(plain, |command| command.override_usage(None).after_help(None))
}

/// Flags that a command has only to refuse them with advice.
fn is_pointless(kind: Kind, flag: &str) -> bool {
    match kind {
        Kind::Http => ["remote_addr", "terminate-at"].contains(&flag),
        Kind::Tls => ["remote_addr", "upstream-protocol"].contains(&flag),
        Kind::Tcp => ["domain", "upstream-protocol"].contains(&flag),
    }
}

/// The grammar as clap knows it.
fn grammar() -> clap::Command {
    let usage = |command: clap::Command| {
        let usage = format!("ssh -R [NAME:]PORT:localhost:LOCAL_PORT HOST {} [flags]", command.get_name());
        let examples = examples(command.get_name());
        command.override_usage(usage).after_help(examples).term_width(80).max_term_width(80)
    };
    let mut grammar = Line::command()
        .name("ssh")
        .about("Publish a local service: say its name and port in -R, and what it is as the command")
        .override_usage("ssh -R [NAME:]PORT:localhost:LOCAL_PORT HOST <http|tls|tcp> [flags]")
        .after_help(GENERAL)
        .term_width(80)
        .max_term_width(80)
        .color(clap::ColorChoice::Never);
    for kind in Kind::ALL {
        grammar = grammar.mut_subcommand(kind.as_str(), |command| usage(command.mut_args(switch)));
    }
    grammar
}

/// A flag that is on or off, as ngrok has them: alone it is on, and it takes `=true` and `=false`. Others stay as they are.
fn switch(flag: clap::Arg) -> clap::Arg {
    if !matches!(flag.get_action(), ArgAction::SetTrue) {
        return flag;
    }
    flag.action(ArgAction::Set)
        .value_parser(clap::value_parser!(bool))
        .value_name("true|false")
        .num_args(0..=1)
        .require_equals(true)
        .default_value("false")
        .default_missing_value("true")
        .hide_default_value(true)
        .hide_possible_values(true)
}

const GENERAL: &str = "\
The name and the port stand in -R:
  -R 443:localhost:3000        a random name, the same each time for your key
  -R app:443:localhost:3000    the name app below the server's domain
  -R 0:localhost:22            let the server choose the port (tcp)

Flags of one command: ssh HOST http --help
The server itself: ssh HOST whoami, status, names, sessions, keys, tokens; for
admins also accounts and audit: ssh HOST accounts --help";

fn examples(command: &str) -> &'static str {
    match command {
        "http" => {
            "\
The port in -R: 443 or 0 is https, 80 is http. The name in -R is optional.

Examples:
  ssh -R 443:localhost:3000 HOST http
  ssh -R app:443:localhost:3000 HOST http --basic-auth ada:correct-horse
  ssh -R '*.app:443:localhost:3000' HOST http
  ssh -R 80:localhost:3000 HOST http --schemes http,https"
        }
        "tls" => {
            "\
The port in -R: 443 or 0. Visitors see the certificate of your own service.

Example:
  ssh -R app:443:localhost:8443 HOST tls"
        }
        _ => {
            "\
The port in -R: 0 for a random one, or one of the server's range.

Example:
  ssh -R 0:localhost:22 HOST tcp"
        }
    }
}

fn help(command: Option<&str>) -> String {
    let mut grammar = shown_grammar();
    match command.and_then(|name| grammar.find_subcommand_mut(name)) {
        Some(command) => command.render_long_help().to_string(),
        None => grammar.render_long_help().to_string(),
    }
}

/// clap's error about [`flags_of`] a command in our words: with a code, what to do, and without the value of a secret.
pub fn explain(kind: Kind, error: &clap::Error) -> CommandError {
    refusals::explain(kind.as_str(), error)
}

/// The line that parses back to this command; the agent sends it.
impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind().as_str())?;
        for (flag, value) in self.flags() {
            match value {
                Some(value) => write!(f, " {flag}={}", words::quote(&value))?,
                None => write!(f, " {flag}")?,
            }
        }
        Ok(())
    }
}

/// What the user name of a login says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserName {
    /// `http@host`: a bare command, for connections without a session (`ssh -N`).
    Command(Box<Command>),
    /// `v2`, or any name that says nothing: the command follows.
    Version2,
    /// `v1`, `v9` …
    UnknownVersion(String),
}

impl UserName {
    pub fn parse(user: &str) -> Self {
        if NAMES.contains(&user)
            && let Ok(Parsed::Publish(command)) = parse(user)
        {
            return Self::Command(command);
        }
        let number =
            user.strip_prefix('v').filter(|it| !it.is_empty() && it.bytes().all(|b| b.is_ascii_digit()));
        match number {
            Some("2") | None => Self::Version2,
            Some(_) => Self::UnknownVersion(user.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests;
