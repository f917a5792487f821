//! What the operator decided, checked. [`Options`] is what was said; [`Config`] is the only type the server reads.
//!
//! Flags lie over environment variables, those over the file, that over the defaults.

mod file;
mod limits;
mod options;
mod values;

use std::collections::HashSet;
use std::error::Error;
use std::ffi::OsString;
use std::fmt::{self, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroU16, NonZeroUsize};
use std::ops::RangeInclusive;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::Duration;

use hithe_cli_parser::{HostName, HostPattern, Network};

pub(crate) use file::default_text;
pub use limits::{
    AccountBytes, AccountCount, AccountDefaults, Limits, LoginLimits, Penalties, PenaltyRule, VisitorLimits,
};
pub use options::{LimitOptions, Options};
pub use values::{
    CipherPreference, LabelPattern, ListenAddress, ListenIp, ListenerKind, LogFormat, LogLevel, PortRange,
    Size, ValueError, WorkerCount,
};

/// A configuration that makes sense.
#[derive(Clone, Debug)]
pub struct Config {
    /// Endpoints get names below it.
    pub domain: HostName,
    /// Keys, names and the own certificate authority live here.
    pub state_dir: PathBuf,
    /// Holds what slow visitors have not taken yet.
    pub spool_dir: PathBuf,
    /// Bytes that may lie there; without it, a share of what is free.
    pub spool_limit: Option<u64>,
    pub listen: Listen,
    /// How long the place of a publisher that was cut off is held.
    pub hold: Duration,
    /// Ports that tcp endpoints may have. Not empty, without 0.
    pub tcp_ports: RangeInclusive<u16>,
    /// Where the ports of tcp endpoints are opened.
    pub tcp_listen_address: ListenIp,
    /// Who stands in front.
    pub proxies: Proxies,
    /// What URLs show; the bound port when there is none.
    pub public_http_port: Option<u16>,
    /// As above.
    pub public_https_port: Option<u16>,
    /// Who may publish.
    pub keys: KeyPolicy,
    /// Private keys of the server; when empty, the one of the state directory.
    pub host_keys: Vec<PathBuf>,
    /// Threads that serve.
    pub workers: NonZeroUsize,
    /// Where a client has a choice.
    pub ssh_cipher: CipherPreference,
    /// When missing, the server is its own certificate authority.
    pub certificates: Option<PathBuf>,
    pub client_cas: Option<PathBuf>,
    /// Gets the bound addresses when all sockets are bound.
    pub ready_file: Option<PathBuf>,
    /// Time for visits to finish at the end.
    pub grace: Duration,
    pub limits: Limits,
    pub log: Log,
    /// Custom domains that keys may claim. Empty with [`KeyPolicy::Open`].
    pub allow_domains: Vec<HostPattern>,
    /// Whom to ask whether a custom domain is an account's, if that lets it be claimed. None with [`KeyPolicy::Open`].
    pub custom_domains: Option<NameServer>,
    /// Labels below the domain that nobody can claim.
    pub reserved_labels: ReservedLabels,
    /// What all this was made of: on the command line and in the environment, and with the file and the defaults.
    pub(crate) sources: Box<Sources>,
}

/// What a configuration was made of, to make another when the file has changed.
#[derive(Clone, Debug)]
pub(crate) struct Sources {
    pub(crate) said: Options,
    pub(crate) layered: Options,
}

/// The addresses of the listeners, at least one of each kind but the last.
#[derive(Clone, Debug)]
pub struct Listen {
    pub ssh: Vec<ListenAddress>,
    pub http: Vec<ListenAddress>,
    pub https: Vec<ListenAddress>,
    pub health: Vec<ListenAddress>,
}

/// The proxies in front of the server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    /// Where they are.
    pub trusted: Vec<Network>,
    /// At which listeners their connections begin with a PROXY header.
    pub announced: Vec<ListenerKind>,
}

impl Listen {
    /// Whether SSH and HTTPS are to be had at the same address, where the first byte tells which of them it is.
    pub fn is_shared(&self, address: ListenAddress) -> bool {
        let is_it = |other: &ListenAddress| other.address == address.address && address.address.port() != 0;
        self.ssh.iter().any(is_it) && self.https.iter().any(is_it)
    }
}

/// Which name server is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameServer {
    /// Those of this machine.
    System,
    At(SocketAddr),
}

/// Who may publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyPolicy {
    /// Any key.
    Open,
    /// The keys and tokens of the database, and the keys of this file, or of the files of this directory.
    Known(KeyFiles),
}

/// Files of the operator that decide about logins, beside the database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyFiles {
    /// A file in the format of `authorized_keys`, or a directory of such files.
    pub keys: Option<PathBuf>,
    /// Authorities whose certificates let their holders in.
    pub authorities: Option<PathBuf>,
    /// Keys and certificates that are refused.
    pub revoked: Option<PathBuf>,
}

/// How much is logged, and in which shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    pub level: LogLevel,
    pub format: LogFormat,
}

/// Labels that nobody can claim directly below the domain.
#[derive(Clone, Debug, Default)]
pub struct ReservedLabels(Vec<LabelPattern>);

impl ReservedLabels {
    /// `label` is in lower case, as in a [`HostName`].
    pub fn contains(&self, label: &str) -> bool {
        self.0.iter().any(|it| it.matches(label))
    }
}

/// One thing that is wrong, in one line, with its place in the file if it has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem(String);

impl Problem {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The error and what caused it.
    pub(crate) fn of(error: &dyn Error) -> Self {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            // Writing to a string cannot fail.
            _ = write!(text, ": {cause}");
            source = cause.source();
        }
        Self(text)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Everything that is wrong with the configuration, one line each. Not empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(Vec<Problem>);

impl ConfigError {
    pub fn problems(&self) -> &[Problem] {
        &self.0
    }

    pub(crate) fn into_problems(self) -> Vec<Problem> {
        self.0
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.0.iter().enumerate() {
            let separator = if at == 0 { "" } else { "\n" };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}

impl Error for ConfigError {}

impl Config {
    /// Reads `options.config` if there is one and checks everything together.
    pub fn load(options: Options) -> Result<Self, ConfigError> {
        let said = options.clone();
        let (options, problems) = layered(options)?;
        match Self::try_from(options) {
            Ok(mut config) if problems.is_empty() => {
                config.sources.said = said;
                Ok(config)
            }
            Ok(_) => Err(ConfigError(problems)),
            Err(more) => Err(ConfigError(problems.into_iter().chain(more.0).collect())),
        }
    }
}

/// Flags and environment over file over defaults, and what was wrong in the file.
pub(crate) fn layered(options: Options) -> Result<(Options, Vec<Problem>), ConfigError> {
    let (from_file, problems) = options.config.as_deref().map(file::read).unwrap_or_default();
    Ok((options.over(from_file).over(file::defaults()?), problems))
}

/// Where the state of a server lies, and its domain; of the rest of the options nothing is needed.
pub(crate) fn place_of_state(options: Options) -> Result<(PathBuf, HostName), ConfigError> {
    let (options, _) = layered(options)?;
    let found = state_dir(options.state_dir).and_then(|path| Ok((path, given(options.domain, "--domain")?)));
    found.map_err(|problem| ConfigError(vec![problem]))
}

impl TryFrom<Options> for Config {
    type Error = ConfigError;

    /// Finds all problems, not the first. What `options` leaves out has its default.
    fn try_from(options: Options) -> Result<Self, ConfigError> {
        let options = options.over(file::defaults()?);
        let problems = contradictions(&options);
        if !problems.is_empty() {
            return Err(ConfigError(problems));
        }
        complete(options).map_err(|problem| ConfigError(vec![problem]))
    }
}

fn complete(options: Options) -> Result<Config, Problem> {
    let sources = Box::new(Sources { said: options.clone(), layered: options.clone() });
    let keys = key_policy(&options)?;
    let state_dir = state_dir(options.state_dir)?;
    Ok(Config {
        domain: given(options.domain, "--domain")?,
        spool_dir: options.spool_dir.unwrap_or_else(|| state_dir.join("spool")),
        spool_limit: options.spool_limit.map(|it| it.0),
        state_dir,
        listen: Listen {
            ssh: options.ssh_listen,
            http: options.http_listen,
            https: options.https_listen,
            health: options.health_listen,
        },
        tcp_ports: given(options.tcp_ports, "--tcp-ports")?.0,
        tcp_listen_address: given(options.tcp_listen_address, "--tcp-listen-address")?,
        proxies: Proxies { trusted: options.trusted_proxies, announced: options.proxy_protocol },
        public_http_port: options.public_http_port.map(NonZeroU16::get),
        public_https_port: options.public_https_port.map(NonZeroU16::get),
        keys,
        host_keys: options.host_key,
        workers: options.workers.map_or_else(one_for_each_cpu, |it| it.0),
        ssh_cipher: given(options.ssh_cipher, "--ssh-cipher")?,
        certificates: options.certificates,
        client_cas: options.client_cas,
        ready_file: options.ready_file,
        grace: given(options.grace, "--grace")?.0,
        hold: given(options.hold, "--hold")?.0,
        limits: Limits::try_from(options.limits)?,
        log: Log {
            level: given(options.log_level, "--log-level")?,
            format: given(options.log_format, "--log-format")?,
        },
        allow_domains: options.allow_domain,
        custom_domains: (options.custom_domains == Some(true))
            .then(|| options.dns_resolver.map_or(NameServer::System, NameServer::At)),
        reserved_labels: ReservedLabels(options.reserved_labels),
        sources,
    })
}

fn one_for_each_cpu() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

fn given<T>(value: Option<T>, option: &str) -> Result<T, Problem> {
    value.ok_or_else(|| Problem::new(format!("{option} has no value")))
}

fn key_policy(options: &Options) -> Result<KeyPolicy, Problem> {
    let files = KeyFiles {
        keys: options.authorized_keys.clone(),
        authorities: options.trusted_user_ca.clone(),
        revoked: options.revoked_keys.clone(),
    };
    match options.open.unwrap_or(false) {
        false => Ok(KeyPolicy::Known(files)),
        true if files == KeyFiles::default() => Ok(KeyPolicy::Open),
        true => Err(Problem::new(
            "--open lets any key publish, so --authorized-keys, --trusted-user-ca and --revoked-keys would restrict \
             nobody: give one of the two",
        )),
    }
}

/// What is wrong although each value is right by itself.
fn contradictions(options: &Options) -> Vec<Problem> {
    let mut problems = Vec::new();
    problems.extend(key_policy(options).err());
    problems.extend(state_dir(options.state_dir.clone()).err());
    problems.extend(options.domain.as_ref().and_then(address_as_domain));
    problems.extend(double_listeners(options));
    if options.open == Some(true) && !options.allow_domain.is_empty() {
        problems.push(Problem::new(
            "--allow-domain has no effect with --open: a custom domain needs keys that you authorized",
        ));
    }
    if options.open == Some(true) && options.custom_domains == Some(true) {
        problems.push(Problem::new(
            "--custom-domains has no effect with --open: a custom domain needs keys that you authorized",
        ));
    }
    if options.custom_domains != Some(true) && options.dns_resolver.is_some() {
        problems.push(Problem::new(
            "--dns-resolver has no effect without --custom-domains: nobody else asks a name server",
        ));
    }
    if options.trusted_proxies.is_empty() && !options.proxy_protocol.is_empty() {
        problems.push(Problem::new(
            "--proxy-protocol has no effect without --trusted-proxies: a header is read from those only",
        ));
    }
    if let Some(domain) = &options.domain {
        problems.extend(options.allow_domain.iter().filter_map(|it| needless_pattern(domain, it)));
    }
    problems
}

fn address_as_domain(domain: &HostName) -> Option<Problem> {
    let is_address = domain.to_string().parse::<IpAddr>().is_ok();
    is_address.then(|| {
        Problem::new(format!("--domain {domain} is an address: endpoints need names below a domain"))
    })
}

/// SSH and HTTPS may share an address; nothing else may.
fn double_listeners(options: &Options) -> Vec<Problem> {
    let doubles = |lists: [&[ListenAddress]; 2]| {
        let mut seen = HashSet::new();
        let all = lists.into_iter().flatten().filter(|it| it.address.port() != 0);
        all.filter(|it| !seen.insert(it.address)).map(ToString::to_string).collect::<Vec<_>>()
    };
    let others = [options.http_listen.as_slice(), &options.health_listen].concat();
    let mut doubled = doubles([&options.ssh_listen, &others]);
    doubled.extend(doubles([&options.https_listen, &others]));
    doubled.dedup();
    let problem = |it| {
        Problem::new(format!(
            "two listeners want {it}: each needs an address and port of its own, but for one of ssh and one of https"
        ))
    };
    doubled.into_iter().map(problem).collect()
}

/// Names below the domain need no permission.
fn needless_pattern(domain: &HostName, pattern: &HostPattern) -> Option<Problem> {
    let (HostPattern::Exact(name) | HostPattern::Wildcard(name)) = pattern;
    let inside = name == domain || name.is_below(domain);
    inside.then(|| {
        Problem::new(format!(
            "--allow-domain {pattern} is below --domain {domain}, where keys may claim names"
        ))
    })
}

fn state_dir(chosen: Option<PathBuf>) -> Result<PathBuf, Problem> {
    // The owner of /proc/self is the effective user; where there is no /proc, nobody is taken for root.
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|it| it.uid() == 0);
    chosen
        .or_else(|| default_state_dir(|name| std::env::var_os(name), is_root))
        .ok_or_else(|| Problem::new("there is no place for the state: give --state-dir DIR, or set HOME"))
}

/// systemd.exec(5) StateDirectory=, else the XDG base directory specification.
fn default_state_dir(variable: impl Fn(&str) -> Option<OsString>, is_root: bool) -> Option<PathBuf> {
    let absolute = |name: &str| variable(name).map(PathBuf::from).filter(|it| it.is_absolute());
    let of_systemd = variable("STATE_DIRECTORY")
        .and_then(|list| std::env::split_paths(&list).next())
        .filter(|first| first.is_absolute());
    if of_systemd.is_some() {
        return of_systemd;
    }
    if is_root {
        return Some(PathBuf::from("/var/lib/hithed"));
    }
    let base = absolute("XDG_STATE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/state")));
    base.map(|base| base.join("hithed"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    fn open() -> Options {
        Options { open: Some(true), ..Options::default() }
    }

    fn refused(options: Options) -> String {
        Config::load(options).unwrap_err().to_string()
    }

    #[test]
    fn what_is_not_said_has_its_default() {
        let config = Config::load(open()).unwrap();
        assert_eq!(config.domain.to_string(), "localhost");
        assert_eq!(config.listen.ssh[0].to_string(), "[::]:2222");
        assert!(config.listen.ssh[0].fallback && config.tcp_listen_address.fallback);
        assert_eq!(config.tcp_ports, 20000..=20999);
        assert_eq!(config.grace, Duration::from_secs(30));
        assert_eq!(config.keys, KeyPolicy::Open);
        assert!(config.reserved_labels.contains("www") && config.reserved_labels.contains("_dmarc"));
        assert!(!config.reserved_labels.contains("app"));
    }

    #[test]
    fn a_flag_lies_over_the_file() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("hithed.toml");
        fs::write(&path, "domain = \"file.example\"\nssh-listen = \"127.0.0.1:0\"\nopen = true\n").unwrap();
        let options = Options {
            config: Some(path),
            domain: Some("flag.example".parse().unwrap()),
            ..Options::default()
        };
        let config = Config::load(options).unwrap();
        assert_eq!(config.domain.to_string(), "flag.example");
        assert_eq!(config.listen.ssh.len(), 1);
        assert!(!config.listen.ssh[0].fallback);
    }

    #[test]
    fn without_a_file_of_keys_those_of_the_database_count() {
        assert_eq!(Config::load(Options::default()).unwrap().keys, KeyPolicy::Known(KeyFiles::default()));
    }

    #[test]
    fn open_beside_authorized_keys_is_a_contradiction() {
        let told = refused(Options { authorized_keys: Some("keys".into()), ..open() });
        assert!(told.contains("give one of the two"), "{told}");
    }

    #[test]
    fn open_gives_no_custom_domains() {
        let told = refused(Options { allow_domain: vec!["example.org".parse().unwrap()], ..open() });
        assert!(told.contains("--allow-domain has no effect with --open"), "{told}");
        let told = refused(Options { custom_domains: Some(true), ..open() });
        assert!(told.contains("--custom-domains has no effect with --open"), "{told}");
    }

    #[test]
    fn a_name_server_is_for_custom_domains_alone() {
        let resolver = Some("127.0.0.1:53".parse().unwrap());
        let told = refused(Options { dns_resolver: resolver, ..Options::default() });
        assert!(told.contains("--dns-resolver has no effect without --custom-domains"), "{told}");
    }

    #[test]
    fn what_a_running_server_cannot_change_is_named() {
        let before = Options { grace: Some("5s".parse().unwrap()), ..open() };
        let fresh =
            Options { grace: Some("6s".parse().unwrap()), workers: Some("3".parse().unwrap()), ..open() };
        let (renewed, taken, left) = before.renewed(&fresh);
        assert_eq!((taken, left), (vec!["grace"], vec!["workers"]));
        assert_eq!((renewed.grace, renewed.workers), (fresh.grace, None));
    }

    #[test]
    fn nobody_can_announce_a_visitor_unless_somebody_is_trusted() {
        let told = refused(Options { proxy_protocol: vec![ListenerKind::Https], ..open() });
        assert!(told.contains("--proxy-protocol has no effect without --trusted-proxies"), "{told}");
    }

    #[test]
    fn a_custom_domain_is_not_below_the_domain() {
        let options = Options {
            authorized_keys: Some("keys".into()),
            allow_domain: vec!["*.app.localhost".parse().unwrap(), "notlocalhost".parse().unwrap()],
            ..Options::default()
        };
        let told = refused(options);
        assert!(told.contains("--allow-domain *.app.localhost is below --domain localhost"), "{told}");
        assert!(!told.contains("notlocalhost"), "{told}");
    }

    #[test]
    fn an_address_is_no_domain() {
        let Ok(domain) = "127.0.0.1".parse() else { return };
        assert!(refused(Options { domain: Some(domain), ..open() }).contains("is an address"));
    }

    #[test]
    fn two_listeners_cannot_share_an_address_unless_the_port_is_free_to_choose() {
        let address: ListenAddress = "127.0.0.1:8080".parse().unwrap();
        let told = refused(Options { http_listen: vec![address], https_listen: vec![address], ..open() });
        assert_eq!(
            told,
            "two listeners want 127.0.0.1:8080: each needs an address and port of its own, but for one of ssh and one of https"
        );
        let one = Config::load(Options { ssh_listen: vec![address], https_listen: vec![address], ..open() });
        assert!(one.unwrap().listen.is_shared(address));
        let twice = vec![address, address];
        assert!(Config::load(Options { ssh_listen: twice, https_listen: vec![address], ..open() }).is_err());
        let free: ListenAddress = "127.0.0.1:0".parse().unwrap();
        assert!(
            Config::load(Options { http_listen: vec![free], https_listen: vec![free], ..open() }).is_ok()
        );
    }

    #[test]
    fn all_problems_are_told_at_once() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("hithed.toml");
        fs::write(&path, "domian = \"a.example\"\ngrace = \"soon\"\n").unwrap();
        let told = refused(Options { config: Some(path), ..Options::default() });
        assert_eq!(told.lines().count(), 2, "{told}");
    }

    #[test]
    fn a_configuration_that_is_not_there_is_named() {
        let told = refused(Options { config: Some("/nowhere.toml".into()), ..open() });
        assert!(told.starts_with("cannot read the configuration /nowhere.toml: "), "{told}");
    }

    #[test]
    fn the_state_has_a_place_for_a_service_for_root_and_for_a_person() {
        let place = |set: &[(&str, &str)], is_root| {
            let find = |name: &str| set.iter().find(|it| it.0 == name).map(|it| OsString::from(it.1));
            default_state_dir(find, is_root).map(|it| it.display().to_string())
        };
        let home = ("HOME", "/home/ada");
        assert_eq!(place(&[("STATE_DIRECTORY", "/var/lib/a:/b"), home], true).unwrap(), "/var/lib/a");
        assert_eq!(place(&[home], true).unwrap(), "/var/lib/hithed");
        assert_eq!(place(&[home], false).unwrap(), "/home/ada/.local/state/hithed");
        assert_eq!(place(&[("XDG_STATE_HOME", "/state"), home], false).unwrap(), "/state/hithed");
        assert_eq!(
            place(&[("XDG_STATE_HOME", "relative"), home], false).unwrap(),
            "/home/ada/.local/state/hithed"
        );
        assert_eq!(place(&[], false), None);
    }
}
