//! Why an exec line was refused, in words that teach: a code, the offending word and what to write instead.
//!
//! The publisher's terminal may be a log, so no value that may be a secret is repeated.

use std::error::Error as _;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::{NAMES, shown_grammar};
use crate::{Code, CommandError, Kind, Objection};

pub(super) fn no_command() -> CommandError {
    CommandError::new(Code::NO_COMMAND, "say what to publish: http, tls or tcp")
        .hint("for example: ssh -R 443:localhost:80 HOST http")
}

pub(super) fn too_long(most: usize) -> CommandError {
    CommandError::new(Code::BAD_FLAG, format!("the command is longer than {most} bytes"))
}

pub(super) fn plain_beside_mutual_tls() -> CommandError {
    let message = "with --mutual-tls-cas an endpoint cannot answer plain http as well";
    CommandError::new(Code::MUTUAL_TLS_PLACE, message)
        .word("--schemes")
        .hint("leave http out: --schemes https")
}

pub(super) fn objection(kind: Kind, objection: Objection) -> CommandError {
    let hint = format!("all flags: ssh HOST {} --help", kind.as_str());
    CommandError::new(objection.code, objection.message).hint(hint)
}

pub(super) fn unknown_command(word: &str) -> CommandError {
    let scored = NAMES.map(|name| (strsim::jaro_winkler(&word.to_ascii_lowercase(), name), name));
    let best = scored.into_iter().filter(|(score, _)| *score > 0.75).max_by(|a, b| a.0.total_cmp(&b.0));
    let hint = match best {
        Some((_, near)) => format!("did you mean {near}? The commands are http, tls and tcp"),
        None => "the commands are http, tls and tcp: ssh -R 443:localhost:80 HOST http".to_owned(),
    };
    CommandError::new(Code::UNKNOWN_COMMAND, "this command is not known").word(shown(word)).hint(hint)
}

/// clap's error in our words: with a code, and without the value of a secret.
pub(super) fn explain(command: &str, error: &clap::Error) -> CommandError {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        Some(ContextValue::Strings(texts)) => texts.first().map(String::as_str),
        _ => None,
    };
    let argument = context(ContextKind::InvalidArg).unwrap_or_default();
    let flag = flag_name(argument);
    if let Some(objection) = error.source().and_then(|source| source.downcast_ref::<Objection>()) {
        return CommandError::new(objection.code, objection.message.clone()).word(flag);
    }
    let bad = |message: String| CommandError::new(Code::BAD_FLAG, message);
    match error.kind() {
        ErrorKind::UnknownArgument => unknown_argument(command, argument, context(ContextKind::SuggestedArg)),
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => {
            bad_value(flag, context(ContextKind::InvalidValue).unwrap_or_default())
        }
        ErrorKind::TooManyValues => bad(format!("{flag} takes no value")).word(flag),
        ErrorKind::ArgumentConflict => bad(format!("{flag} can be given once only")).word(flag),
        _ => bad("these flags cannot be understood".to_owned()).word(flag),
    }
}

fn bad_value(flag: &str, value: &str) -> CommandError {
    if value.is_empty() {
        return CommandError::new(Code::BAD_FLAG, format!("{flag} needs a value")).word(flag);
    }
    if value.contains(char::is_whitespace) {
        let hint = "a list has commas and no blanks, and a further flag begins with two hyphens";
        let message = "the value of this flag holds a blank";
        return CommandError::new(Code::BAD_FLAG, message).word(flag).hint(hint);
    }
    let error =
        CommandError::new(Code::BAD_FLAG, format!("{flag} does not take this value")).word(shown(value));
    match flag {
        "--schemes" => error.hint("it takes http, https, or both: --schemes http,https"),
        _ if is_switch(flag) => error.hint(format!("it is on as it is; {flag}=false is off")),
        _ => error,
    }
}

pub(super) fn unknown_argument(command: &str, argument: &str, suggested: Option<&str>) -> CommandError {
    if !argument.starts_with('-') {
        let hint = format!("the port stands in -R, as in {}", EXAMPLE.replace("COMMAND", command));
        return CommandError::new(Code::BAD_FLAG, "this word is not a flag").word(shown(argument)).hint(hint);
    }
    let flag = flag_name(argument);
    let name = flag.trim_start_matches('-');
    if let Some(owner) = owner(command, name) {
        let hint = if owner != command {
            format!("it is a flag of {owner}. The flags of {command}: ssh HOST {command} --help")
        } else if flag.starts_with("--") {
            format!("its value follows a blank or an =: --{name} VALUE")
        } else {
            format!("flags have two hyphens: --{name}")
        };
        return CommandError::new(Code::BAD_FLAG, "this flag is not known").word(flag).hint(hint);
    }
    if let Some(advice) = known_elsewhere(command, name) {
        return CommandError::new(Code::UNSUPPORTED_FLAG, "this flag is not offered here")
            .word(flag)
            .hint(advice);
    }
    let hint = match suggested {
        Some(near) => format!("did you mean {near}? All flags: ssh HOST {command} --help"),
        None => format!("all flags: ssh HOST {command} --help"),
    };
    CommandError::new(Code::BAD_FLAG, "this flag is not known").word(flag).hint(hint)
}

/// Whether a flag is on or off.
fn is_switch(flag: &str) -> bool {
    let grammar = shown_grammar();
    let mut flags = grammar.get_subcommands().flat_map(clap::Command::get_arguments);
    flags.any(|it| it.get_long() == flag.strip_prefix("--") && it.get_num_args() == Some((0..=1).into()))
}

/// The command that has this flag, this one first.
fn owner(command: &str, flag: &str) -> Option<&'static str> {
    let grammar = shown_grammar();
    let has = |name: &str| {
        let flags = grammar.find_subcommand(name).into_iter().flat_map(clap::Command::get_arguments);
        flags.filter(|it| !it.is_hide_set()).filter_map(clap::Arg::get_long).any(|long| long == flag)
    };
    let this = NAMES.into_iter().filter(|name| *name == command);
    this.chain(NAMES.into_iter().filter(|name| *name != command)).find(|name| has(name))
}

/// The flag itself, without what was written behind it: `--basic-auth=ada:secret`, but also `--basic-auth:ada:secret`.
fn flag_name(argument: &str) -> &str {
    let ends = |it: char| !(it.is_ascii_alphanumeric() || it == '-' || it == '_');
    argument.split(ends).next().unwrap_or_default()
}

/// A word as it may be repeated: without what may be a password, and not at all if it may be a key.
fn shown(word: &str) -> &str {
    if word.len() > MAX_SHOWN {
        return "";
    }
    match word.split_once(':') {
        Some((_, port)) if port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit()) => word,
        Some((before, _)) => before,
        None => word,
    }
}

/// A key in base64 has more; what a slip has is shorter.
const MAX_SHOWN: usize = 40;

/// What to do instead of a flag that ngrok has and this grammar has not.
fn known_elsewhere(command: &str, flag: &str) -> Option<String> {
    let (_, advice) = KNOWN_ELSEWHERE.iter().find(|(flags, _)| flags.contains(&flag))?;
    Some(advice.replace("COMMAND", command))
}

const EXAMPLE: &str = "ssh -R 443:localhost:80 HOST COMMAND";
const NOT_YET: &str = "this server does not have it yet";
const NEVER: &str = "it needs an agent on your machine; a server that ssh connects to cannot do it";
const NO_NEED: &str = "it is not needed: ssh logs in with your key, and its own options say the rest";

/// Flags of ngrok, without their hyphens (older versions had one), and what to do.
const KNOWN_ELSEWHERE: &[(&[&str], &str)] = &[
    (&["hostname", "subdomain"], "it is called --domain NAME, or the name stands in -R"),
    (&["bind-tls"], "it is called --schemes: http, https, or http,https"),
    (&["auth"], "it is called --basic-auth USER:PASSWORD"),
    (&["inspect", "traffic-policy-file", "policy-file"], NEVER),
    (&["authtoken", "config", "region", "log", "log-format", "log-level"], NO_NEED),
    (
        &[
            "binding",
            "label",
            "oauth",
            "oauth-allow-domain",
            "oauth-allow-email",
            "oauth-client-id",
            "oauth-client-secret",
            "oauth-scope",
            "oidc",
            "oidc-client-id",
            "oidc-client-secret",
            "oidc-scope",
            "traffic-policy-url",
            "upstream-tls-verify-cas",
        ],
        NOT_YET,
    ),
];
