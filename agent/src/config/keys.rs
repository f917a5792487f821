//! The keys of one endpoint. There is one definition of what is valid, the grammar of the command line: each of its
//! flags is a key with underscores, and [`ALSO`] has the names and sections of ngrok's file for the same flags.

use std::sync::LazyLock;

use clap::{Arg, ArgAction};
use hithe_cli_parser::Kind;

use super::settings::MEANINGLESS;
use crate::endpoint::command;

/// What a key does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    Flag(&'static Flag),
    /// Shapes the endpoint itself: see `endpoints.rs`.
    Own,
    /// Would protect what is published, or choose where; without it less protected than asked for.
    Refused(&'static str),
    /// Other versions of the file have it.
    Elsewhere(&'static str),
}

/// A flag of the command line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Flag {
    pub(super) name: String,
    pub(super) form: Form,
    /// Its value may be the path of a file.
    pub(super) is_file: bool,
    pub(super) help: String,
    /// Of these kinds of endpoints.
    pub(super) kinds: Vec<Kind>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// On, or not there.
    Switch,
    /// On unless it is said to be off.
    Boolean,
    One,
    Many,
}

impl Flag {
    pub(super) fn key(&self) -> String {
        self.name.replace('-', "_")
    }
}

/// Which list of endpoints a key stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum List {
    /// `tunnels:`, by name.
    Tunnels,
    /// `endpoints:` of version 3.
    Endpoints,
}

/// Keys whose names are not those of their flags.
const ALSO: &[(&str, &str)] = &[
    ("auth", "basic-auth"),
    ("scheme", "schemes"),
    ("hostname", "domain"),
    ("subdomain", "domain"),
    ("app_protocol", "upstream-protocol"),
    ("upstream_proxy_protocol", "proxy-proto"),
    ("upstream_tls_verify", "verify-upstream-tls"),
    ("ip_restriction.allow_cidrs", "cidr-allow"),
    ("ip_restriction.deny_cidrs", "cidr-deny"),
    ("request_header.add", "request-header-add"),
    ("request_header.remove", "request-header-remove"),
    ("response_header.add", "response-header-add"),
    ("response_header.remove", "response-header-remove"),
    ("user_agent_filter.allow", "ua-filter-allow"),
    ("user_agent_filter.deny", "ua-filter-deny"),
    ("verify_webhook.provider", "verify-webhook"),
    ("verify_webhook.secret", "verify-webhook-secret"),
];

/// The same in version 3 only.
const ALSO_IN_ENDPOINTS: &[(&str, &str)] = &[
    ("upstream.protocol", "upstream-protocol"),
    ("upstream.proxy_protocol", "proxy-proto"),
    ("upstream.tls_verify", "verify-upstream-tls"),
    ("upstream.tls_verify_cas", "upstream-tls-verify-cas"),
    ("agent_tls_termination.server_certificate", "crt"),
    ("agent_tls_termination.server_private_key", "key"),
    ("agent_tls_termination.mutual_tls_certificate_authorities", "mutual-tls-cas"),
];

/// Keys that shape an endpoint, and what the reference says of them.
const OF_TUNNELS: &[(&str, &str)] = &[
    ("proto", "What is published: `http`, `tls` or `tcp`"),
    (
        "addr",
        "Where it leads: a port, `host:port`, `http://`, `https://` or `h2c://host:port`, `unix:/path` or `file:///folder`",
    ),
    ("bind_tls", "An older form of `schemes`: `true` is https, `false` is http, `both` is both"),
];

const OF_ENDPOINTS: &[(&str, &str)] = &[
    ("name", "By which `hithe start` and other files know it, and the server's lists"),
    (
        "url",
        "What visitors use: a name, `https://name`, `http://name`, `tls://name`, `tcp://host:port`, or a scheme alone (`tls://`) for any; without it a random name on https",
    ),
    (
        "upstream.url",
        "Where it leads: a port, `host:port`, `http://`, `https://` or `h2c://host:port`, `unix:/path` or `file:///folder`",
    ),
    ("bindings", "Who may come: `public` is what there is"),
];

/// In words of flags.
const RULES: &str = "the server has no traffic policies, and without this one more would be let in than you ask for: say it with \
                     --basic-auth, --cidr-allow, --rate-limit, --ua-filter-deny, --request-header-add and the like (docs/modules.md)";
const WALL: &str = "the server cannot ask visitors to log in there, and without it everybody would be let in: protect the endpoint \
                    with --basic-auth, --cidr-allow or --mutual-tls-cas, or leave it out";
const LABELS: &str = "they name an edge at ngrok, which holds the address and the rules: say here whether it is http, tls or tcp, its \
                      --domain, and each of the rules";

pub(super) const ONLY_PUBLIC: &str =
    "only public is offered: anybody on the internet could come, which this does not ask for";

const REFUSED: &[(&str, &str)] = &[
    ("oauth", WALL),
    ("oidc", WALL),
    ("saml", WALL),
    ("policy", RULES),
    ("policy_file", RULES),
    ("traffic_policy", RULES),
    ("traffic_policy_file", RULES),
    ("traffic_policy_url", RULES),
    ("labels", LABELS),
];

/// Of the other list.
const ELSEWHERE_OF_TUNNELS: &[(&str, &str)] = &[
    ("name", "not known here: the key of the tunnel is its name"),
    ("upstream", "not known here: it is addr in tunnels"),
    ("agent_tls_termination", "not known here: in tunnels it is terminate_at: agent, with crt and key"),
    ("bindings", "not known here: it is for endpoints"),
    ("url", "not known here: proto and domain say it, or proto and remote_addr"),
];

const ELSEWHERE_OF_ENDPOINTS: &[(&str, &str)] = &[
    ("addr", "not known here: it is upstream: with url: below it"),
    ("proto", "not known here: url says it, as in url: tcp://"),
    ("bind_tls", "not known here: url says it, as in url: http://, or schemes"),
];

/// The flags of all kinds, in the order of help.
static FLAGS: LazyLock<Vec<Flag>> = LazyLock::new(|| {
    let mut flags: Vec<Flag> = Vec::new();
    for kind in Kind::ALL {
        for arg in command(kind).get_arguments() {
            let Some(name) = arg.get_long().filter(|name| *name != "name") else { continue };
            let known = flags.iter().position(|flag| flag.name == name);
            let index = known.unwrap_or(flags.len());
            if known.is_none() {
                flags.push(flag(name, arg));
            }
            if let Some(flag) = flags.get_mut(index).filter(|_| !arg.is_hide_set()) {
                flag.kinds.push(kind);
                // What a kind hides of another may have other words.
                flag.help = help(arg);
            }
        }
    }
    flags
});

fn flag(name: &str, arg: &Arg) -> Flag {
    let form = match arg.get_action() {
        ArgAction::Append => Form::Many,
        _ if name == "inspect" => Form::Boolean,
        _ if arg.get_num_args().is_some_and(|it| it.min_values() == 0) => Form::Switch,
        _ => Form::One,
    };
    let values = arg.get_value_names().unwrap_or_default();
    let is_file = values.iter().any(|value| value.contains("FILE"));
    Flag { name: name.to_owned(), form, is_file, help: help(arg), kinds: Vec::new() }
}

/// In words that fit a file.
fn help(arg: &Arg) -> String {
    let name = arg.get_long().unwrap_or_default();
    if let Some((_, help)) = HELP.iter().find(|(flag, _)| *flag == name) {
        return (*help).to_owned();
    }
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let help = help.replace("repeat for more", "a list for more").replace(": PEM", ": a file, PEM");
    in_words_of_keys(&help)
}

/// Where those of the command line speak of it.
const HELP: &[(&str, &str)] = &[
    ("schemes", "Answer on http, https or both; https without it"),
    ("domain", "The name that visitors use: app, app.example.com or *.app; random without it"),
    ("remote-addr", "The public port: host:port; any without it"),
    ("cidr-allow", "Admit only visitors from these networks: 10.0.0.0/8, 2001:db8::/32"),
    (
        "upstream-tls-verify-cas",
        "Accept only a certificate of the upstream that these authorities signed: a file, or PEM",
    ),
    (
        "verify-upstream-tls",
        "Accept only a trusted certificate of the upstream: of an `https://` address one that this machine trusts, for the host there; otherwise, and with `upstream_protocol: auto`, one that the server's machine trusts",
    ),
    (
        "upstream-server-name",
        "The name that the upstream is asked for in its TLS handshake; the host of an `https://` address, otherwise localhost, without it",
    ),
    (
        "host-header",
        "The host that the upstream is asked for: `rewrite` is its own, `preserve` the public one, or one such as localhost:3000",
    ),
];

/// What a path such as `ip_restriction.allow_cidrs` means.
pub(super) fn meaning(path: &str, list: List) -> Option<Meaning> {
    let find = |table: &'static [(&'static str, &'static str)]| {
        table.iter().find(|(key, _)| *key == path).map(|(_, value)| *value)
    };
    if find(own(list)).is_some() {
        return Some(Meaning::Own);
    }
    let elsewhere = if list == List::Tunnels { ELSEWHERE_OF_TUNNELS } else { ELSEWHERE_OF_ENDPOINTS };
    if let Some(advice) = find(elsewhere).filter(|_| !is_section(path, list)) {
        return Some(Meaning::Elsewhere(advice));
    }
    if let Some(why) = find(REFUSED) {
        return Some(Meaning::Refused(why));
    }
    let name = find(also(list).0).or_else(|| find(also(list).1));
    let named = |flag: &&Flag| name.map_or_else(|| flag.key() == path, |name| flag.name == name);
    FLAGS.iter().find(named).map(Meaning::Flag)
}

/// What there is in place of a flag of ngrok that this agent has not; `flag` is without its hyphens.
pub(crate) fn in_place_of(flag: &str) -> Option<String> {
    let key = flag.replace('-', "_");
    let find = |table: Table, key: &str| table.iter().find(|(it, _)| *it == key).map(|(_, value)| *value);
    // `--oauth-allow-domain` is of oauth, `--label` one of the labels.
    let section = key.split('_').next().unwrap_or(&key);
    let refused = [&key, section, &format!("{key}s")].into_iter().find_map(|key| find(REFUSED, key));
    let instead = |flag: &str| format!("it is called --{flag}");
    refused
        .map(str::to_owned)
        .or_else(|| find(ALSO, &key).map(instead))
        .or_else(|| find(FLAGS_OF_NGROK, &key).map(str::to_owned))
        .or_else(|| find(MEANINGLESS, &key).map(|why| why.replace("connect_url", "--server")))
}

/// What is no flag here, and as a key has a meaning of its own.
const FLAGS_OF_NGROK: Table = &[
    ("binding", ONLY_PUBLIC),
    ("bindings", ONLY_PUBLIC),
    ("bind_tls", "it is called --schemes: http, https or http,https"),
    ("server_addr", "it is called --server"),
    ("connect_url", "it is called --server"),
];

fn own(list: List) -> &'static [(&'static str, &'static str)] {
    if list == List::Tunnels { OF_TUNNELS } else { OF_ENDPOINTS }
}

type Table = &'static [(&'static str, &'static str)];

fn also(list: List) -> (Table, Table) {
    (ALSO, if list == List::Endpoints { ALSO_IN_ENDPOINTS } else { &[] })
}

/// Whether there are keys below this one.
pub(super) fn is_section(path: &str, list: List) -> bool {
    let (both, more) = also(list);
    let below = |(key, _): &(&str, &str)| key.strip_prefix(path).is_some_and(|rest| rest.starts_with('.'));
    both.iter().chain(more).chain(own(list)).any(below)
}

/// Every key with its help, sections as dotted paths.
pub(super) fn all(list: List) -> Vec<(String, String, Option<&'static Flag>)> {
    let mut keys: Vec<_> =
        own(list).iter().map(|(key, help)| ((*key).to_owned(), (*help).to_owned(), None)).collect();
    let elsewhere = if list == List::Tunnels { ELSEWHERE_OF_TUNNELS } else { ELSEWHERE_OF_ENDPOINTS };
    let has = |table: Table, flag: &Flag| table.iter().any(|(key, _)| *key == flag.key());
    let own_key = |flag: &&Flag| !has(own(list), flag) && !has(elsewhere, flag);
    let shown = FLAGS.iter().filter(|flag| !flag.kinds.is_empty()).filter(own_key);
    keys.extend(shown.map(|flag| (flag.key(), flag.help.clone(), Some(flag))));
    let (both, more) = also(list);
    for (key, name) in both.iter().chain(more) {
        let Some(flag) = FLAGS.iter().find(|flag| flag.name == *name) else { continue };
        let same = format!("The same as `{}`", flag.key());
        keys.push(((*key).to_owned(), same, Some(flag)));
    }
    keys
}

/// The keys that may stand at this level, for suggestions.
pub(super) fn names_within(section: &str, list: List) -> Vec<String> {
    let mut names: Vec<_> = all(list)
        .into_iter()
        .filter_map(|(path, ..)| {
            let rest = if section.is_empty() {
                path.as_str()
            } else {
                path.strip_prefix(section)?.strip_prefix('.')?
            };
            Some(rest.split('.').next().unwrap_or(rest).to_owned())
        })
        .collect();
    names.dedup();
    names
}

/// Flags in a message as the keys they are here.
pub(super) fn in_words_of_keys(message: &str) -> String {
    let mut words = String::new();
    let mut rest = message;
    while let Some((before, behind)) = rest.split_once("--") {
        words.push_str(before);
        let ends = |c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
        let (flag, behind) = behind.split_at(behind.find(ends).unwrap_or(behind.len()));
        let begins_a_word = before.chars().last().is_none_or(|c| !c.is_alphanumeric() && c != '-');
        match flag.starts_with(|c: char| c.is_ascii_lowercase()) && begins_a_word {
            true => words.push_str(&flag.replace('-', "_")),
            false => {
                words.push_str("--");
                words.push_str(flag);
            }
        }
        rest = behind;
    }
    words.push_str(rest);
    words
}
