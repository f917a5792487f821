//! What concerns the agent and not one of its endpoints. The doc comments are the published reference.

use std::path::PathBuf;
use std::time::Duration;

use hithe_cli_parser::{Period, Secret};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::tree::{at_home, boolean};

/// The keys of `agent:` in version 3, of the file itself in version 2.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// A token of the server, which logs in in place of a key. The environment variable HITHE_TOKEN goes before it; NGROK_AUTHTOKEN is not read
    #[schemars(with = "String")]
    pub authtoken: Option<Secret<String>>,
    /// The server: `host:port`, `[ssh://][user@]host[:port]`, or a `Host` of `~/.ssh/config`; `server_addr` in version 2
    #[schemars(with = "String")]
    pub connect_url: Option<String>,
    /// How ssh finds and enters the server
    pub ssh: Ssh,
    /// How long a connection to the server may take, and then the login
    pub connect_timeout: Time,
    /// Somebody said so: otherwise that of ssh_config counts.
    #[serde(skip)]
    pub connect_timeout_is_said: bool,
    /// How often the server is asked for a sign of life
    pub heartbeat_interval: Time,
    /// How long that sign may take before the connection counts as lost
    pub heartbeat_tolerance: Time,
    /// The way to the server: `http://`, `https://`, `socks5://` or `socks5h://`, or `none` whatever the environment says
    #[schemars(with = "String")]
    pub proxy_url: Option<Secret<String>>,
    /// A note about this agent, in up to 4096 bytes
    #[schemars(with = "String")]
    pub metadata: Option<Note>,
    /// Where the inspector listens, or `false` for nowhere; the next free port if this one is taken
    pub web_addr: WebAddress,
    /// Somebody said so: then it has to be had.
    #[serde(skip)]
    pub web_addr_is_said: bool,
    /// Hosts under which the inspector may be called beside the local ones: an address, a network, a host, or a `.suffix`
    pub web_allow_hosts: Vec<String>,
    /// Memory of the inspector in bytes; 0 is 50 MB, -1 keeps nothing
    pub inspect_db_size: InspectSize,
    /// The full screen: `true`, `false`, or `iftty` on a terminal only
    pub console_ui: ConsoleUi,
    /// The ground of the full screen
    pub console_ui_color: ConsoleColor,
    /// Where the log goes: `stdout`, `stderr`, `false` or a file
    pub log: LogTarget,
    /// What the log tells
    pub log_level: LogLevel,
    /// How the log tells it
    pub log_format: LogFormat,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            authtoken: None,
            connect_url: None,
            ssh: Ssh::default(),
            connect_timeout: Time::of_seconds(10),
            connect_timeout_is_said: false,
            heartbeat_interval: Time::of_seconds(10),
            heartbeat_tolerance: Time::of_seconds(15),
            proxy_url: None,
            metadata: None,
            web_addr: WebAddress::At("127.0.0.1:4040".to_owned()),
            web_addr_is_said: false,
            web_allow_hosts: Vec::new(),
            inspect_db_size: InspectSize::default(),
            console_ui: ConsoleUi::IfTty,
            console_ui_color: ConsoleColor::Transparent,
            log: LogTarget::Off,
            log_level: LogLevel::Info,
            log_format: LogFormat::Term,
        }
    }
}

impl Settings {
    /// Names and values for the eyes of who looks at the inspector, without secrets.
    pub(crate) fn shown(&self) -> Vec<(String, String)> {
        let hidden = |is_there: bool| if is_there { "set" } else { "not set" }.to_owned();
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let shown = [
            ("connect_url", text(&self.connect_url)),
            ("authtoken", hidden(self.authtoken.is_some())),
            ("proxy_url", hidden(self.proxy_url.is_some())),
            ("connect_timeout", String::from(self.connect_timeout)),
            ("heartbeat_interval", String::from(self.heartbeat_interval)),
            ("heartbeat_tolerance", String::from(self.heartbeat_tolerance)),
            ("inspect_db_size", i64::from(self.inspect_db_size).to_string()),
            ("web_allow_hosts", self.web_allow_hosts.join(", ")),
        ];
        shown
            .map(|(name, value)| (name.to_owned(), value))
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
            .collect()
    }

    /// Where the log goes in the end: without a console it is what people see.
    pub fn log_target(&self) -> LogTarget {
        match (&self.log, self.console_ui) {
            (LogTarget::Off, ConsoleUi::Never) => LogTarget::Stdout,
            (target, _) => target.clone(),
        }
    }
}

/// Everything that is not said here is as `~/.ssh/config` says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Ssh {
    /// Private keys, or public ones whose private key ssh-agent has; no other keys are offered then
    #[schemars(with = "Vec<String>")]
    pub identity_files: Vec<LocalPath>,
    /// Of several accounts that a certificate is good for, the one that is meant: the user name of the login
    #[schemars(with = "String")]
    pub account: Option<String>,
    /// The file of known host keys
    #[schemars(with = "String")]
    pub known_hosts: Option<LocalPath>,
    /// What to do with a host key that is not known; one that has changed is never accepted
    pub host_key_policy: HostKeys,
    /// The hosts that lie between, as `ProxyJump` has them: `[user@]host[:port]`
    pub proxy_jump: Vec<String>,
    /// In place of `~/.ssh/config`: a file, or `false` for none
    #[schemars(schema_with = "text_or_false")]
    pub config: Option<SshConfig>,
}

fn text_or_false(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "type": ["string", "boolean"] })
}

/// Keys of an ngrok agent file that mean nothing to this agent, and why that does no harm.
pub(super) const MEANINGLESS: &[(&str, &str)] = &[
    ("region", "means nothing here: the server is where connect_url says"),
    ("update_check", "means nothing here: hithe does not update itself"),
    ("update_channel", "means nothing here: hithe does not update itself"),
    ("remote_management", "means nothing here: nobody can stop or change this agent from afar"),
    (
        "crl_noverify",
        "means nothing here: the server is known by its host key, for which there are no revocation lists",
    ),
    (
        "connect_cas",
        "means nothing here: the server is known by its host key (ssh.known_hosts), not by authorities",
    ),
    ("api_key", "means nothing here: what it is for is done over ssh: ssh HOST --help"),
    ("dns_resolver_ips", "means nothing here: names are resolved as this machine resolves them"),
    ("connect_interface", "means nothing here: the routes of this machine decide"),
];

/// The older name of a key, and the one of version 3.
pub(super) const RENAMED: &[(&str, &str)] = &[("server_addr", "connect_url"), ("root_cas", "connect_cas")];

/// What a text in the file stands for.
macro_rules! of_text {
    ($Type:ty, $schema:tt) => {
        impl TryFrom<String> for $Type {
            type Error = &'static str;

            fn try_from(text: String) -> Result<Self, &'static str> {
                Self::of(&text)
            }
        }

        impl JsonSchema for $Type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($Type).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!($schema)
            }
        }
    };
}

/// A length of time: `10s`, `1m30s`, `500ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Time(Period);

impl Time {
    const fn of_seconds(seconds: u64) -> Self {
        Self(Period::of_seconds(seconds))
    }

    pub const fn get(self) -> Duration {
        self.0.0
    }

    fn of(text: &str) -> Result<Self, &'static str> {
        const MESSAGE: &str = "a length of time from 1ms to 1h belongs here, such as 10s or 1m30s";
        let of_several = |_| text.parse::<jiff::SignedDuration>().ok()?.try_into().ok();
        let length = text.parse().map(|Period(length)| Some(length)).unwrap_or_else(of_several);
        let fits = |it: &Duration| (Duration::from_millis(1)..=Duration::from_hours(1)).contains(it);
        length.filter(fits).map(|length| Self(Period(length))).ok_or(MESSAGE)
    }
}

impl std::str::FromStr for Time {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        Self::of(text)
    }
}

impl From<Time> for String {
    fn from(time: Time) -> Self {
        time.0.to_string()
    }
}

of_text!(Time, { "type": "string", "pattern": "^([0-9]+(ms|s|m|h)?)+$" });

/// Up to 4096 bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Note(pub String);

impl TryFrom<String> for Note {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        if text.len() > 4096 { Err("a note has 4096 bytes at most") } else { Ok(Self(text)) }
    }
}

/// Of this machine; `~/` is the home directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String")]
pub struct LocalPath(pub PathBuf);

impl From<String> for LocalPath {
    fn from(text: String) -> Self {
        Self(at_home(&text))
    }
}

/// Where the inspector listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "Falsy")]
pub enum WebAddress {
    Off,
    /// `host:port`
    At(String),
}

impl std::str::FromStr for WebAddress {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        Self::of(text)
    }
}

impl WebAddress {
    fn of(text: &str) -> Result<Self, &'static str> {
        const MESSAGE: &str = "an address to listen at belongs here, such as 127.0.0.1:4040, or false";
        match boolean(text) {
            Some(false) => return Ok(Self::Off),
            Some(true) => return Err(MESSAGE),
            None => {}
        }
        let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
        let _: u16 = port.parse().map_err(|_| MESSAGE)?;
        let host = if host.is_empty() { "127.0.0.1" } else { host };
        let is_address = |text: &str| text.parse::<std::net::IpAddr>().is_ok();
        let bare = host.strip_prefix('[').and_then(|it| it.strip_suffix(']')).unwrap_or(host);
        if is_address(bare) || host.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c)) {
            let host = if bare.contains(':') { format!("[{bare}]") } else { host.to_owned() };
            return Ok(Self::At(format!("{host}:{port}")));
        }
        Err(MESSAGE)
    }
}

of_text!(WebAddress, { "type": ["string", "integer", "boolean"] });

/// For the schema: a text, or false.
#[derive(Serialize)]
#[serde(untagged)]
enum Falsy {
    Bool(bool),
    Text(String),
}

impl From<WebAddress> for Falsy {
    fn from(address: WebAddress) -> Self {
        match address {
            WebAddress::Off => Self::Bool(false),
            WebAddress::At(address) => Self::Text(address),
        }
    }
}

/// Memory of the inspector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "i64", into = "i64")]
pub enum InspectSize {
    Off,
    Bytes(u64),
}

impl InspectSize {
    const USUAL: u64 = 50_000_000;
}

impl Default for InspectSize {
    fn default() -> Self {
        Self::Bytes(Self::USUAL)
    }
}

impl TryFrom<i64> for InspectSize {
    type Error = &'static str;

    fn try_from(number: i64) -> Result<Self, &'static str> {
        match (number, u64::try_from(number)) {
            (0, _) => Ok(Self::default()),
            (-1, _) => Ok(Self::Off),
            (_, Ok(bytes)) => Ok(Self::Bytes(bytes)),
            _ => Err("a number of bytes belongs here, 0 for 50 MB, or -1 for none"),
        }
    }
}

impl From<InspectSize> for i64 {
    fn from(size: InspectSize) -> Self {
        match size {
            InspectSize::Off => -1,
            InspectSize::Bytes(InspectSize::USUAL) => 0,
            InspectSize::Bytes(bytes) => Self::try_from(bytes).unwrap_or(Self::MAX),
        }
    }
}

impl JsonSchema for InspectSize {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "InspectSize".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "integer", "minimum": -1 })
    }
}

/// Whether there is a full screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "&'static str")]
pub enum ConsoleUi {
    Always,
    Never,
    IfTty,
}

impl ConsoleUi {
    fn of(text: &str) -> Result<Self, &'static str> {
        match (text, boolean(text)) {
            (_, Some(true)) => Ok(Self::Always),
            (_, Some(false)) => Ok(Self::Never),
            ("iftty", _) => Ok(Self::IfTty),
            _ => Err("true, false or iftty belongs here"),
        }
    }
}

impl From<ConsoleUi> for &'static str {
    fn from(ui: ConsoleUi) -> Self {
        match ui {
            ConsoleUi::Always => "true",
            ConsoleUi::Never => "false",
            ConsoleUi::IfTty => "iftty",
        }
    }
}

of_text!(ConsoleUi, { "enum": [true, false, "iftty"] });

/// The ground of the full screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum ConsoleColor {
    Black,
    Transparent,
}

/// Where the log goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "Falsy")]
pub enum LogTarget {
    Off,
    Stdout,
    Stderr,
    File(PathBuf),
}

impl std::str::FromStr for LogTarget {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        Self::of(text)
    }
}

impl LogTarget {
    fn of(text: &str) -> Result<Self, &'static str> {
        match (text, boolean(text)) {
            (_, Some(false)) => Ok(Self::Off),
            ("", _) | (_, Some(true)) => Err("stdout, stderr, false or a file belongs here"),
            ("stdout", _) => Ok(Self::Stdout),
            ("stderr", _) => Ok(Self::Stderr),
            (path, _) => Ok(Self::File(at_home(path))),
        }
    }
}

impl From<LogTarget> for Falsy {
    fn from(target: LogTarget) -> Self {
        match target {
            LogTarget::Off => Self::Bool(false),
            LogTarget::Stdout => Self::Text("stdout".to_owned()),
            LogTarget::Stderr => Self::Text("stderr".to_owned()),
            LogTarget::File(path) => Self::Text(path.display().to_string()),
        }
    }
}

of_text!(LogTarget, { "type": ["string", "boolean"] });

/// What the log tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
#[derive(clap::ValueEnum)]
pub enum LogLevel {
    /// And what the libraries do.
    Trace,
    Debug,
    Info,
    Warn,
    Error,
    Crit,
}

/// How the log tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
#[derive(clap::ValueEnum)]
pub enum LogFormat {
    Term,
    Logfmt,
    Json,
}

/// What to do with a host key that is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub enum HostKeys {
    #[default]
    Ask,
    AcceptNew,
    Strict,
}

/// What stands in for `~/.ssh/config`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String")]
pub enum SshConfig {
    Nothing,
    File(PathBuf),
}

impl From<String> for SshConfig {
    fn from(text: String) -> Self {
        if boolean(&text) == Some(false) { Self::Nothing } else { Self::File(at_home(&text)) }
    }
}
