//! The modules of an endpoint: one line here, one file that says what can be said about it, and one file of the same
//! name in the server that does it.

use std::fmt;

/// Hands `$each` one row per module. The order is the order of help.
#[macro_export]
macro_rules! for_each_module {
    ($each:ident) => {
        $each! {
            ip_restriction: IpRestriction = "IP restriction",
            mutual_tls: MutualTls = "Mutual TLS",
            tls_termination: TlsTermination = "TLS termination",
            user_agent_filter: UserAgentFilter = "User agent filter",
            basic_auth: BasicAuth = "Basic auth",
            webhook: WebhookVerification = "Webhook verification",
            circuit_breaker: CircuitBreaker = "Circuit breaker",
            rate_limit: RateLimit = "Rate limit",
            websocket_tcp: WebsocketTcp = "WebSocket-TCP converter",
            response_headers: ResponseHeaders = "Response headers",
            host_rewrite: HostRewrite = "Host rewriting",
            request_headers: RequestHeaders = "Request headers",
            compression: Compression = "Compression",
            proxy_protocol: ProxyProtocol = "PROXY protocol",
            upstream: UpstreamProtocol = "Upstream protocol",
        }
    };
}

macro_rules! define {
    ($($name:ident: $Type:ident = $heading:literal),* $(,)?) => {
        $(pub(crate) mod $name;)*
        $(pub use $name::$Type;)*

        /// The modules that an endpoint was given.
        #[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args, serde::Serialize, serde::Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct ModuleSet {
            $(
                #[command(flatten, next_help_heading = $heading)]
                #[serde(skip_serializing_if = "Option::is_none")]
                pub $name: Option<$Type>,
            )*
        }

        /// One configured module.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum ModuleConfig {
            $(#[doc = $heading] $Type($Type),)*
        }

        impl ModuleConfig {
            pub const fn stage(&self) -> Stage {
                match self { $(Self::$Type(_) => <$Type as Definition>::STAGE,)* }
            }
        }

        /// What the manual says, module by module.
        pub(crate) fn manual() -> Vec<Entry> {
            vec![$(Entry::of::<$Type>($heading)),*]
        }

        impl ModuleSet {
            /// # Errors
            /// The first module that this command has not, or whose values do not go together.
            pub fn check(&self, kind: Kind) -> Result<(), Objection> {
                $(if let Some(module) = &self.$name {
                    has(<$Type as Definition>::ON, kind, $heading)?;
                    module.check()?;
                    module.check_for(kind)?;
                })*
                self.check_together(kind)
            }

            /// The configured modules in the order in which they run, whatever the order of flags was.
            pub fn into_configs(self) -> Vec<ModuleConfig> {
                let mut configs = Vec::new();
                $(configs.extend(self.$name.map(ModuleConfig::$Type));)*
                configs.sort_by_key(ModuleConfig::stage);
                configs
            }

            /// A module of which nothing is asked is none: `--compression=false`.
            pub(crate) fn leave_out_what_is_off(&mut self) {
                $({
                    let mut flags = Vec::new();
                    self.$name.iter().for_each(|module| module.flags(&mut flags));
                    if flags.is_empty() {
                        self.$name = None;
                    }
                })*
            }

            /// Each flag as it would be typed, values unquoted.
            pub(crate) fn flags(&self) -> Vec<(&'static str, Option<String>)> {
                let mut flags = Vec::new();
                $(if let Some(module) = &self.$name { module.flags(&mut flags); })*
                flags
            }
        }
    };
}
for_each_module!(define);

mod header_rules;
mod pem;

pub use basic_auth::{Credential, Hash};
pub use circuit_breaker::Share;
pub use header_rules::HeaderRule;
pub use host_rewrite::{PRESERVE, is_authority};
pub use ip_restriction::Network;
pub use mutual_tls::MAX_AUTHORITIES;
pub use pem::Pem;
pub use proxy_protocol::ProxyVersion;
pub use rate_limit::{Rate, RateKey};
pub use tls_termination::{TerminateAt, TlsVersion};
pub use upstream::HttpVersion;
pub use user_agent_filter::{Patterns, compile};
pub use webhook::{Provider, SecretKind};

impl ModuleSet {
    /// Modules that need one another.
    fn check_together(&self, kind: Kind) -> Result<(), Objection> {
        let ends_here = self.tls_termination.as_ref().is_some_and(TlsTermination::is_at_edge);
        if kind != Kind::Tls || ends_here {
            return Ok(());
        }
        if self.mutual_tls.is_some() {
            let message =
                "--mutual-tls-cas needs --terminate-at edge: the handshake is with the upstream otherwise";
            return Err(Objection::new(crate::Code::MUTUAL_TLS_PLACE, message));
        }
        if self.upstream.as_ref().is_some_and(|upstream| upstream.tls) {
            let message =
                "--upstream-tls needs --terminate-at edge: visitors already speak TLS with the upstream";
            return Err(Objection::new(crate::Code::BAD_FLAG, message));
        }
        Ok(())
    }
}

/// The three commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Http,
    Tls,
    Tcp,
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::Http, Self::Tls, Self::Tcp];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Tls => "tls",
            Self::Tcp => "tcp",
        }
    }
}

/// The long names of the flags that one command has not, because their modules are not for it.
pub(crate) fn flags_not_of(kind: Kind) -> Vec<String> {
    let others = manual().into_iter().filter(|entry| !entry.on.contains(&kind));
    let names = |entry: Entry| {
        entry.command.get_arguments().filter_map(|it| it.get_long().map(str::to_owned)).collect::<Vec<_>>()
    };
    others.flat_map(names).collect()
}

/// A module as the manual shows it.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) heading: &'static str,
    pub(crate) stage: Stage,
    pub(crate) on: &'static [Kind],
    pub(crate) manual: Manual,
    /// Holds its flags.
    pub(crate) command: clap::Command,
}

impl Entry {
    fn of<T: Definition + clap::Args>(heading: &'static str) -> Self {
        let command = T::augment_args(clap::Command::new(""));
        Self { heading, stage: T::STAGE, on: T::ON, manual: T::MANUAL, command }
    }
}

/// What a reader of the manual wants to know of a module, beyond the help of its flags.
#[derive(Clone, Copy, Debug)]
pub struct Manual {
    /// What it does, in a paragraph or a few: Markdown.
    pub what: &'static str,
    /// As a publisher types it, whole.
    pub line: &'static str,
    /// What applies where nothing is said, in whole sentences.
    pub defaults: &'static str,
    /// With which it refuses publishers and visitors.
    pub codes: &'static [crate::Code],
}

fn has(on: &[Kind], kind: Kind, heading: &str) -> Result<(), Objection> {
    if on.contains(&kind) {
        return Ok(());
    }
    let owners: Vec<_> = on.iter().map(|it| it.as_str()).collect();
    let message = format!("{heading} is for {} endpoints, not for {}", owners.join(" and "), kind.as_str());
    Err(Objection::new(crate::Code::BAD_FLAG, message))
}

/// When a module runs. Requests pass the stages in this order, responses in reverse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    Connect,
    Handshake,
    Screen,
    Authenticate,
    Verify,
    Guard,
    Policy,
    Convert,
    Rewrite,
    Encode,
    /// How the upstream is reached: runs when a connection to it is made.
    Upstream,
}

impl Stage {
    pub const ALL: [Self; 11] = [
        Self::Connect,
        Self::Handshake,
        Self::Screen,
        Self::Authenticate,
        Self::Verify,
        Self::Guard,
        Self::Policy,
        Self::Convert,
        Self::Rewrite,
        Self::Encode,
        Self::Upstream,
    ];
}

/// What each module says about itself.
pub trait Definition {
    const STAGE: Stage;

    /// The commands that have it.
    const ON: &'static [Kind];

    const MANUAL: Manual;

    /// # Errors
    /// Values that are fine alone and wrong together.
    fn check(&self) -> Result<(), Objection> {
        Ok(())
    }

    /// # Errors
    /// Values that are wrong for this command.
    fn check_for(&self, _kind: Kind) -> Result<(), Objection> {
        Ok(())
    }

    /// Adds the flags that give this value back. The inverse of parsing.
    fn flags(&self, flags: &mut Vec<(&'static str, Option<String>)>);
}

/// What is wrong with a value, without showing a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Objection {
    pub code: crate::Code,
    pub message: String,
}

impl Objection {
    pub fn new(code: crate::Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

impl fmt::Display for Objection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Objection {}
