//! `accounts|keys|tokens|names|sessions|audit|whoami|status`: asking a server about itself and changing who may use
//! it. Typed over ssh and behind `hithed admin`.

use std::time::Duration;

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::{Allowance, Code, CommandError, quantity, words};

/// What is asked of the server itself.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Admin {
    /// Say who you are to this server, and what you may bind
    Whoami(Show),
    /// Say how the server is and what of it is yours
    Status(Show),
    /// People and machines, each with keys and tokens
    #[command(subcommand)]
    Accounts(Accounts),
    /// Public keys of accounts
    #[command(subcommand)]
    Keys(Keys),
    /// Tokens: what clients without a key type in place of a password
    #[command(subcommand)]
    Tokens(Tokens),
    /// Names and ports that are live, kept for who had them last, or reserved
    #[command(subcommand)]
    Names(Names),
    /// Connections of publishers
    #[command(subcommand)]
    Sessions(Sessions),
    /// Who did what, from where, and what came of it; the newest first
    Audit(Audit),
}

/// How an answer is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Args)]
pub struct Show {
    /// As JSON, for programs
    #[arg(long)]
    pub json: bool,
}

/// Whose things are shown, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct List {
    pub account: Option<String>,
    #[command(flatten)]
    pub show: Show,
}

/// `accounts …`
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Accounts {
    /// Show all accounts
    List(Show),
    /// Make an account
    Add {
        /// Its name: a-z 0-9 . _ - @ +
        name: String,
        /// Whose it is
        #[arg(long, default_value = "", hide_default_value = true)]
        description: String,
        /// May use all commands of this kind
        #[arg(long)]
        admin: bool,
    },
    /// Change what an account is
    Change {
        name: String,
        #[arg(long)]
        description: Option<String>,
        /// Whether it may use all commands of this kind: true or false
        #[arg(long, value_name = "BOOL", hide_possible_values = true)]
        admin: Option<bool>,
        #[command(flatten)]
        limits: AccountLimits,
    },
    /// Remove an account with its keys, tokens, names and reservations; its sessions end
    #[command(visible_alias = "rm")]
    Remove { name: String },
}

/// What an account may have, in place of what the configuration says for all: a number, none for no limit, or default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Args)]
pub struct AccountLimits {
    /// Sessions that publish
    #[arg(long, value_name = "NUMBER", value_parser = Allowance::count)]
    pub max_sessions: Option<Allowance>,
    /// Names and ports
    #[arg(long, value_name = "NUMBER", value_parser = Allowance::count)]
    pub max_endpoints: Option<Allowance>,
    /// Ports of tcp endpoints
    #[arg(long, value_name = "NUMBER", value_parser = Allowance::count)]
    pub max_ports: Option<Allowance>,
    /// Visits at once
    #[arg(long, value_name = "NUMBER", value_parser = Allowance::count)]
    pub max_visits: Option<Allowance>,
    /// Bytes a second, both ways together, such as 10MB
    #[arg(long, value_name = "SIZE", value_parser = Allowance::bytes)]
    pub max_rate: Option<Allowance>,
    /// Bytes a month, both ways together, such as 1TB
    #[arg(long, value_name = "SIZE", value_parser = Allowance::bytes)]
    pub max_monthly: Option<Allowance>,
}

/// `keys …`
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Keys {
    /// Show your keys; an admin sees all, or those of one account
    List(List),
    /// Let a public key log in as an account
    Add {
        account: String,
        /// The line of the .pub file: "$(cat id_ed25519.pub)"
        #[arg(required = true, num_args = 1..)]
        key: Vec<String>,
        #[command(flatten)]
        grant: Grant,
    },
    /// Take a key away; its sessions end
    #[command(visible_alias = "rm")]
    Remove {
        /// As shown by ssh-keygen -l
        fingerprint: String,
    },
}

/// `tokens …`
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Tokens {
    /// Show your tokens, not their secrets; an admin sees all, or those of one account
    List(List),
    /// Make a token. It is shown once, now
    Add {
        account: String,
        /// It admits nobody after this time, such as 12h or 90d
        #[arg(long, value_name = "TIME", value_parser = long_time)]
        expires: Option<Duration>,
        #[command(flatten)]
        grant: Grant,
    },
    /// Take a token away; its sessions end
    #[command(visible_aliases = ["revoke", "rm"])]
    Remove {
        /// What stands between the underscores of the token
        id: String,
    },
}

/// What a key or token is for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct Grant {
    /// Where it is kept, or what for
    #[arg(long, default_value = "", hide_default_value = true)]
    pub description: String,
    /// What alone it may bind: bind:app, bind:*.ada, bind:*:20000 for a tcp port, bind:*:* for all of these; repeatable
    #[arg(long = "acl", value_name = "RULE", value_delimiter = ',')]
    pub acl: Vec<String>,
}

/// `names …`
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Names {
    /// Show your names and ports; an admin sees all, or those of one account
    List(List),
    /// Keep a name, a wildcard or a port for an account, whoever had it before
    Reserve {
        /// app, '*.app', app.example.com or a port number
        name: String,
        account: String,
    },
    /// Let go of a reservation, and of the memory of who had the name last
    Release { name: String },
}

/// `sessions …`
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Sessions {
    /// Show your sessions; an admin sees all, or those of one account
    List(List),
    /// End one of your sessions; an admin ends any, or all of an account
    Kick {
        /// The number of a session, or the name of an account
        who: String,
    },
}

/// `audit …`
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Audit {
    /// Of this account alone
    pub account: Option<String>,
    /// Not older than this, such as 2h or 7d
    #[arg(long, value_name = "TIME", value_parser = long_time)]
    pub since: Option<Duration>,
    /// So many entries at most
    #[arg(long, value_name = "NUMBER", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub limit: u32,
    #[command(flatten)]
    pub show: Show,
}

impl Admin {
    /// The command and its verb, for the audit log: `keys add`.
    pub fn action(&self) -> &'static str {
        match self {
            Self::Whoami(_) => "whoami",
            Self::Status(_) => "status",
            Self::Accounts(Accounts::List(_)) => "accounts list",
            Self::Accounts(Accounts::Add { .. }) => "accounts add",
            Self::Accounts(Accounts::Change { .. }) => "accounts change",
            Self::Accounts(Accounts::Remove { .. }) => "accounts remove",
            Self::Keys(Keys::List(_)) => "keys list",
            Self::Keys(Keys::Add { .. }) => "keys add",
            Self::Keys(Keys::Remove { .. }) => "keys remove",
            Self::Tokens(Tokens::List(_)) => "tokens list",
            Self::Tokens(Tokens::Add { .. }) => "tokens add",
            Self::Tokens(Tokens::Remove { .. }) => "tokens remove",
            Self::Names(Names::List(_)) => "names list",
            Self::Names(Names::Reserve { .. }) => "names reserve",
            Self::Names(Names::Release { .. }) => "names release",
            Self::Sessions(Sessions::List(_)) => "sessions list",
            Self::Sessions(Sessions::Kick { .. }) => "sessions kick",
            Self::Audit(_) => "audit",
        }
    }
}

/// The commands that are no endpoints.
pub(crate) const ADMIN: [&str; 8] =
    ["whoami", "status", "accounts", "keys", "tokens", "names", "sessions", "audit"];

/// Each of these alone means its `list`.
const LISTS: [&str; 5] = ["accounts", "keys", "tokens", "names", "sessions"];

#[derive(Debug, Parser)]
#[command(no_binary_name = true, disable_version_flag = true, disable_help_subcommand = true)]
struct Line {
    #[command(subcommand)]
    command: Admin,
}

/// The grammar with its help.
fn grammar() -> clap::Command {
    Line::command().name("ssh HOST").term_width(80).max_term_width(80).color(clap::ColorChoice::Never)
}

/// A command, or the help that was asked for.
pub(crate) enum Answer {
    Command(Admin),
    Help(String),
}

/// Parses a line that begins with one of [`ADMIN`].
pub(crate) fn parse(line: &str) -> Result<Answer, CommandError> {
    let mut words = split(line);
    if words.len() == 1 && words.first().is_some_and(|word| LISTS.contains(&word.as_str())) {
        words.push("list".to_owned());
    } else if let [command, flag, ..] = words.as_slice()
        && LISTS.contains(&command.as_str())
        && flag == "--json"
    {
        words.insert(1, "list".to_owned());
    }
    match grammar().try_get_matches_from(&words).and_then(|matches| Line::from_arg_matches(&matches)) {
        Ok(line) => Ok(Answer::Command(line.command)),
        Err(error) if !error.use_stderr() => Ok(Answer::Help(error.to_string())),
        Err(error) => Err(refused(&words, &error)),
    }
}

/// Words as for publishing, where a value reaches to the next flag; but a switch has no value, and words that follow
/// it stand alone.
fn split(line: &str) -> Vec<String> {
    let switch =
        |word: &String| word.starts_with("--json=") || word == "--admin=" || word.starts_with("--help=");
    let words = words::split(line).into_iter();
    let words = words.flat_map(|word| match word.split_once('=') {
        Some((flag, rest)) if switch(&word) => {
            std::iter::once(flag).chain(rest.split_whitespace()).map(str::to_owned).collect()
        }
        _ => vec![word],
    });
    words.collect()
}

/// clap's error in one code with its own words, which name what is missing and show the usage.
fn refused(words: &[String], error: &clap::Error) -> CommandError {
    let text = error.to_string();
    let message = text.lines().next().unwrap_or_default().trim_start_matches("error: ").trim_end_matches(':');
    let missing: Vec<_> =
        text.lines().skip(1).take_while(|line| line.starts_with("  ")).map(str::trim).collect();
    let command = words.first().map_or("", String::as_str);
    CommandError::new(Code::BAD_FLAG, format!("{message} {}", missing.join(", ")).trim().to_owned())
        .hint(format!("see ssh HOST {command} --help"))
}

/// A length of time that may have days.
fn long_time(text: &str) -> Result<Duration, String> {
    let wrong = || "give a length of time such as 30m, 12h or 90d".to_owned();
    let (number, unit) = quantity::split(text);
    let seconds: u64 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86400,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number
        .checked_mul(seconds)
        .filter(|it| (1..=MAX_TIME).contains(it))
        .map(Duration::from_secs)
        .ok_or_else(wrong)
}

/// Ten years.
const MAX_TIME: u64 = 3650 * 86400;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Admin {
        match parse(line).unwrap() {
            Answer::Command(command) => command,
            Answer::Help(help) => panic!("{help}"),
        }
    }

    fn refusal(line: &str) -> String {
        match parse(line) {
            Err(error) => error.to_string(),
            Ok(_) => panic!("{line} was taken"),
        }
    }

    #[test]
    fn the_grammar_is_consistent_and_knows_each_command() {
        grammar().debug_assert();
        for name in ADMIN {
            assert!(grammar().find_subcommand(name).is_some(), "{name}");
        }
        assert_eq!(grammar().get_subcommands().count(), ADMIN.len());
    }

    #[test]
    fn a_command_alone_lists() {
        assert_eq!(read("accounts"), read("accounts list"));
        assert_eq!(read("names --json"), read("names list --json"));
        assert_eq!(read("sessions"), Admin::Sessions(Sessions::List(List::default())));
    }

    #[test]
    fn a_public_key_is_taken_as_its_file_has_it() {
        let line = "keys add ada ssh-ed25519 AAAAC3Nza ada at her laptop --acl bind:app,bind:*:20000 --description big one";
        let Admin::Keys(Keys::Add { account, key, grant }) = read(line) else { panic!("no keys add") };
        assert_eq!(
            (account.as_str(), key.join(" ").as_str()),
            ("ada", "ssh-ed25519 AAAAC3Nza ada at her laptop")
        );
        assert_eq!(grant.acl, ["bind:app", "bind:*:20000"]);
        assert_eq!(grant.description, "big one");
    }

    #[test]
    fn limits_of_an_account_are_changed_one_by_one() {
        let Admin::Accounts(Accounts::Change { name, limits, .. }) =
            read("accounts change ada --max-visits 10 --max-monthly none --max-rate default")
        else {
            panic!("no change")
        };
        let wanted = AccountLimits {
            max_visits: Some(Allowance::AtMost(10)),
            max_monthly: Some(Allowance::Unlimited),
            max_rate: Some(Allowance::Usual),
            ..AccountLimits::default()
        };
        assert_eq!((name.as_str(), limits), ("ada", wanted));
        assert!(refusal("accounts change ada --max-rate 1KB").contains("64KiB"));
    }

    #[test]
    fn a_switch_has_no_value() {
        let line = "keys list --json ada";
        let Admin::Keys(Keys::List(List { account, show })) = read(line) else { panic!("no list") };
        assert!(show.json && account.as_deref() == Some("ada"));
    }

    #[test]
    fn times_may_have_days() {
        let Admin::Tokens(Tokens::Add { expires, .. }) = read("tokens add ci --expires 90d") else {
            panic!("no add")
        };
        assert_eq!(expires, Some(Duration::from_secs(90 * 86400)));
        for wrong in ["90", "0d", "d", "-1d", "99999999d", "1w"] {
            let told = refusal(&format!("tokens add ci --expires {wrong}"));
            assert!(told.contains("90d"), "{told}");
        }
    }

    #[test]
    fn what_is_missing_is_named_with_the_help_to_read() {
        let told = refusal("keys add");
        assert!(told.contains("<ACCOUNT>") && told.contains("ssh HOST keys --help"), "{told}");
        let told = refusal("accounts ad ada");
        assert!(told.contains("'ad'"), "{told}");
    }

    #[test]
    fn help_is_shown_where_it_is_asked_for() {
        for line in ["accounts --help", "keys add --help", "audit -h"] {
            assert!(matches!(parse(line), Ok(Answer::Help(help)) if help.contains("Usage:")), "{line}");
        }
    }
}
