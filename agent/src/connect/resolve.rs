//! What options, ssh_config, environment and defaults mean together.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hithe_cli_parser::printable;

use super::address::{Named, host_port};
use super::config::{Said, expand, without_repeats};
use super::gate::Questions;
use super::proxy::{Environment, Proxy};
use super::{
    ConnectError, Hop, HostKeyPolicy, Identity, IdentitySource, KnownHosts, ProxyCommand, Route,
    ServerOptions, SshConfigFile, Way,
};

/// The user name that says: the command follows the current grammar.
const USER: &str = "v2";
/// Where ssh listens.
const PORT: u16 = 22;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Hosts on the way.
const MAX_JUMPS: usize = 8;
const USUAL_KEYS: [&str; 3] = ["id_ed25519", "id_ecdsa", "id_rsa"];

/// What the route depends on beside the options.
#[derive(Clone, Debug, Default)]
pub(super) struct Surroundings {
    pub(super) home: Option<PathBuf>,
    /// ssh_config of the system.
    pub(super) system_config: Option<PathBuf>,
    pub(super) variables: HashMap<String, String>,
}

impl Surroundings {
    pub(super) fn here() -> Self {
        let system_config = match std::env::var_os("ProgramData") {
            Some(data) if cfg!(windows) => PathBuf::from(data).join("ssh").join("ssh_config"),
            _ => PathBuf::from("/etc/ssh/ssh_config"),
        };
        let variables = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        Self {
            home: etcetera::home_dir().ok(),
            system_config: Some(system_config),
            variables: variables.collect(),
        }
    }

    fn variable(&self, name: &str) -> Option<String> {
        self.variables.get(name).filter(|value| !value.is_empty()).cloned()
    }

    fn local_user(&self) -> Option<String> {
        ["USER", "LOGNAME", "USERNAME"].into_iter().find_map(|name| self.variable(name))
    }

    fn in_ssh(&self, name: &str) -> Option<PathBuf> {
        Some(self.home.as_ref()?.join(".ssh").join(name))
    }

    /// `~/x` in the home directory.
    fn path(&self, text: &str) -> PathBuf {
        match (
            text.strip_prefix('~').map(|rest| rest.trim_start_matches(std::path::is_separator)),
            &self.home,
        ) {
            (Some(rest), Some(home)) if text == "~" || text.starts_with("~/") || text.starts_with("~\\") => {
                home.join(rest)
            }
            _ => PathBuf::from(text),
        }
    }
}

/// # Errors
/// An option, or what stands in its place, cannot be meant.
pub(super) fn resolve(options: &ServerOptions, around: &Surroundings) -> Result<Route, ConnectError> {
    let advice = "Name it with --server HOST or in HITHE_SERVER, or save it once: hithe config add-server HOST. Whoever runs the server knows its host.";
    let address = options.address.as_deref().filter(|address| !address.trim().is_empty());
    let named = Named::parse(address.ok_or_else(|| ConnectError::option("no server is named", advice))?)?;
    if options.connect_timeout == Some(Duration::ZERO) {
        return Err(ConnectError::option("a connect timeout of 0 s cannot be kept", "10s is usual."));
    }
    if let Some(missing) =
        options.identities.iter().find(|path| !path.exists() && !public_half(path).exists())
    {
        let what = format!("the key file {} does not exist", missing.display());
        return Err(ConnectError::option(
            what,
            "Make a key with ssh-keygen -t ed25519, or name another file.",
        ));
    }
    let mut resolver = Resolver { options, around, warnings: Vec::new() };
    let said = resolver.said(&named.host);
    let server = resolver.hop(&named, &said, true)?;
    let (jumps, command) = resolver.jumps(&named, &said)?;
    let way = resolver.way(jumps.first().unwrap_or(&server), command)?;
    let limit = options.connect_timeout.or(said.params().connect_timeout).unwrap_or(CONNECT_TIMEOUT);
    for hop in jumps.iter().chain([&server]) {
        resolver.warnings.append(&mut hop.known_hosts.read().warnings);
    }
    let warnings = without_repeats(resolver.warnings);
    let (token, questions) = (options.token.clone(), Questions::default());
    Ok(Route { server, named, jumps, way, token, limit, questions, warnings })
}

/// The first host on the way.
struct First {
    /// As it was typed, before ssh_config.
    name: String,
    /// Its ProxyCommand.
    command: Option<String>,
}

struct Resolver<'a> {
    options: &'a ServerOptions,
    around: &'a Surroundings,
    warnings: Vec<String>,
}

impl Resolver<'_> {
    fn said(&mut self, host: &str) -> Said {
        let files = match &self.options.ssh_config {
            SshConfigFile::None => Vec::new(),
            SshConfigFile::File(path) if !path.exists() => {
                self.warnings.push(format!("{} does not exist", path.display()));
                Vec::new()
            }
            SshConfigFile::File(path) => vec![path.clone()],
            SshConfigFile::Usual => {
                self.around.in_ssh("config").into_iter().chain(self.around.system_config.clone()).collect()
            }
        };
        let mut said = Said::of(host, &files, self.around.home.as_deref());
        self.warnings.append(&mut said.warnings);
        said
    }

    fn hop(&mut self, named: &Named, said: &Said, is_server: bool) -> Result<Hop, ConnectError> {
        let params = said.params();
        let host = params
            .host_name
            .as_deref()
            .map_or_else(|| named.host.clone(), |name| expand(name, &[('h', &named.host)]));
        if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c.is_control()) {
            let what = format!("HostName {:?} of ssh_config is no host", printable(&host));
            return Err(ConnectError::option(what, "Correct it there, or name the server by its address."));
        }
        let port = named.port.or(params.port).unwrap_or(PORT);
        let user = named.user.clone().or_else(|| params.user.clone());
        let user = match is_server {
            true => self.options.account.clone().or(user).unwrap_or_else(|| USER.into()),
            false => user.or_else(|| self.around.local_user()).unwrap_or_else(|| USER.into()),
        };
        let home = self.around.home.as_deref().map(Path::to_string_lossy).unwrap_or_default().into_owned();
        let (port_text, local) = (port.to_string(), self.around.local_user().unwrap_or_default());
        let tokens: &[(char, &str)] =
            &[('h', &host), ('n', &named.host), ('p', &port_text), ('r', &user), ('d', &home), ('u', &local)];
        let hop = Hop {
            port,
            alias: said.word("HostKeyAlias").map(|alias| unquote(alias).to_owned()),
            identities: self.identities(said, tokens),
            certificates: self.certificates(said, tokens),
            identities_only: said.is_yes("IdentitiesOnly"),
            agent: self.agent(said, tokens),
            known_hosts: self.known_hosts(said, tokens),
            policy: self.policy(said),
            user: user.clone(),
            host: host.clone(),
        };
        Ok(hop)
    }

    fn identities(&self, said: &Said, tokens: &[(char, &str)]) -> Vec<Identity> {
        let identity = |path, source| Identity { path, source };
        let mut all: Vec<_> = self
            .options
            .identities
            .iter()
            .cloned()
            .map(|path| identity(path, IdentitySource::Option))
            .collect();
        match &said.params().identity_file {
            Some(files) => {
                let files = files.iter().map(|path| path.to_string_lossy()).filter(|path| path != "none");
                let files = files.map(|path| self.around.path(&expand(unquote(&path), tokens)));
                all.extend(files.map(|path| identity(path, IdentitySource::SshConfig)));
            }
            None => {
                let usual = USUAL_KEYS.iter().filter_map(|name| self.around.in_ssh(name));
                all.extend(usual.map(|path| identity(path, IdentitySource::Usual)));
            }
        }
        let mut seen = Vec::new();
        all.retain(|identity| {
            !seen.contains(&identity.path) && {
                seen.push(identity.path.clone());
                true
            }
        });
        all
    }

    fn certificates(&self, said: &Said, tokens: &[(char, &str)]) -> Vec<PathBuf> {
        let named = said.certificates.iter().filter(|name| !name.eq_ignore_ascii_case("none"));
        without_repeats(named.map(|name| self.around.path(&expand(name, tokens))).collect())
    }

    fn agent(&self, said: &Said, tokens: &[(char, &str)]) -> Option<PathBuf> {
        let usual = || {
            self.around
                .variable("SSH_AUTH_SOCK")
                .map(PathBuf::from)
                .or_else(|| cfg!(windows).then(|| PathBuf::from(r"\\.\pipe\openssh-ssh-agent")))
        };
        match said.word("IdentityAgent").map(unquote) {
            Some("none") => None,
            Some("SSH_AUTH_SOCK") | None => usual(),
            Some(variable) if variable.starts_with('$') => {
                let name = variable.trim_matches(['$', '{', '}']);
                self.around.variable(name).map(PathBuf::from)
            }
            Some(path) => Some(self.around.path(&expand(path, tokens))),
        }
    }

    fn known_hosts(&self, said: &Said, tokens: &[(char, &str)]) -> KnownHosts {
        let hashed = said.is_yes("HashKnownHosts");
        if let Some(file) = &self.options.known_hosts {
            return KnownHosts { user: vec![file.clone()], system: Vec::new(), hashed };
        }
        let files = |keyword: &str, usual: Vec<PathBuf>| match said.words(keyword) {
            Some(words) => {
                let words =
                    words.iter().map(|word| unquote(word)).filter(|word| !word.eq_ignore_ascii_case("none"));
                words.map(|word| self.around.path(&expand(word, tokens))).collect()
            }
            None => usual,
        };
        let user =
            ["known_hosts", "known_hosts2"].iter().filter_map(|name| self.around.in_ssh(name)).collect();
        let beside =
            |name: &str| self.around.system_config.as_ref().map(|config| config.with_file_name(name));
        let system = ["ssh_known_hosts", "ssh_known_hosts2"].into_iter().filter_map(beside).collect();
        KnownHosts {
            user: files("UserKnownHostsFile", user),
            system: files("GlobalKnownHostsFile", system),
            hashed,
        }
    }

    fn policy(&mut self, said: &Said) -> HostKeyPolicy {
        if let Some(policy) = self.options.host_key_policy {
            return policy;
        }
        match said.word("StrictHostKeyChecking").map(str::to_ascii_lowercase).as_deref() {
            None | Some("ask") => HostKeyPolicy::Ask,
            Some("yes" | "true") => HostKeyPolicy::Strict,
            // `no` takes changed keys too, which is never right for what is entrusted to a server of this kind.
            Some("accept-new" | "no" | "off" | "false") => HostKeyPolicy::AcceptNew,
            Some(other) => {
                self.warnings
                    .push(format!("StrictHostKeyChecking {} is not known; it asks", printable(other)));
                HostKeyPolicy::Ask
            }
        }
    }

    /// The hosts of ProxyJump, and before the first of them those of its own. And the ProxyCommand of whatever host then
    /// is the first, with the name that it has there.
    fn jumps(&mut self, server: &Named, said: &Said) -> Result<(Vec<Hop>, First), ConnectError> {
        let mut hops: Vec<Hop> = Vec::new();
        let named = &self.options.proxy_jump;
        let (mut list, mut command) = match named.is_empty() {
            true => (jump_list(said), said.proxy_command.clone()),
            false => (named.clone(), None),
        };
        let mut target = server.host.clone();
        while !list.is_empty() {
            let mut stretch = Vec::new();
            let mut before = Vec::new();
            for (at, text) in list.iter().enumerate() {
                let named = Named::parse(&expand(text, &[('h', &target)]))?;
                let said = self.said(&named.host);
                stretch.push(self.hop(&named, &said, false)?);
                if at == 0 {
                    target = named.host;
                    before = jump_list(&said);
                    command = said.proxy_command;
                }
            }
            stretch.append(&mut hops);
            hops = stretch;
            if hops.len() > MAX_JUMPS {
                let what =
                    format!("ProxyJump of ssh_config leads over more than {MAX_JUMPS} hosts, or in a circle");
                return Err(ConnectError::option(what, "Correct it there."));
            }
            list = before;
        }
        Ok((hops, First { name: target, command }))
    }

    /// A proxy that was named for us comes before what ssh_config says, and that before the environment's.
    fn way(&mut self, hop: &Hop, first: First) -> Result<Way, ConnectError> {
        let command = first.command.filter(|line| !line.is_empty() && !line.eq_ignore_ascii_case("none"));
        let proxy = self.options.proxy.as_ref().map(|proxy| proxy.expose().trim());
        let proxy = match (proxy, &command) {
            (Some("" | "none" | "direct"), _) => None,
            (Some(url), _) => Some(Proxy::parse(url)?),
            (None, Some(_)) => None,
            (None, None) => {
                Environment::of(|name| self.around.variable(name)).for_host(&hop.host, hop.port)?
            }
        };
        match (proxy, command) {
            (Some(proxy), None) => Ok(Way::Proxy(proxy)),
            (Some(proxy), Some(line)) => {
                let line = printable(&line).into_owned();
                self.warnings
                    .push(format!("ProxyCommand `{line}` of ssh_config gives way to the proxy {proxy}"));
                Ok(Way::Proxy(proxy))
            }
            (None, None) => Ok(Way::Tcp),
            (None, Some(line)) => {
                let port = hop.port.to_string();
                let tokens = [('h', &*hop.host), ('n', &*first.name), ('p', &*port), ('r', &*hop.user)];
                ProxyCommand::expand(&line, &tokens, host_port(&hop.host, hop.port)).map(Way::Command)
            }
        }
    }
}

fn jump_list(said: &Said) -> Vec<String> {
    let list = said.params().proxy_jump.clone().unwrap_or_default();
    let list = list.iter().map(|jump| unquote(jump.trim()).to_owned()).filter(|jump| !jump.is_empty());
    list.filter(|jump| !jump.eq_ignore_ascii_case("none")).collect()
}

/// Enough where ssh-agent has the private half.
fn public_half(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".pub");
    name.into()
}

fn unquote(word: &str) -> &str {
    word.trim_matches('"')
}

#[cfg(test)]
mod tests {
    use std::fs;

    use hithe_cli_parser::Secret;

    use super::*;

    struct Home(tempfile::TempDir);

    impl Home {
        fn with(config: &str) -> Self {
            let home = tempfile::tempdir().unwrap();
            fs::create_dir(home.path().join(".ssh")).unwrap();
            fs::write(home.path().join(".ssh/config"), config).unwrap();
            Self(home)
        }

        fn around(&self, variables: &[(&str, &str)]) -> Surroundings {
            let variables = variables.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
            Surroundings { home: Some(self.0.path().into()), system_config: None, variables }
        }

        fn route(&self, address: &str) -> Route {
            let options = ServerOptions { address: Some(address.into()), ..Default::default() };
            resolve(&options, &self.around(&[("USER", "ada")])).unwrap()
        }

        fn ssh(&self, name: &str) -> PathBuf {
            self.0.path().join(".ssh").join(name)
        }
    }

    #[test]
    fn nothing_but_a_host_gets_the_defaults() {
        let home = Home::with("");
        let route = home.route("example.com");
        assert_eq!(route.address(), "example.com:22");
        assert_eq!(route.user(), "v2");
        assert_eq!(route.limit, CONNECT_TIMEOUT);
        let identities: Vec<_> =
            route.server.identities.iter().map(|identity| identity.path.clone()).collect();
        assert_eq!(identities, USUAL_KEYS.map(|name| home.ssh(name)));
        assert_eq!(route.server.known_hosts.user[0], home.ssh("known_hosts"));
        assert_eq!(route.server.policy, HostKeyPolicy::Ask);
    }

    #[test]
    fn an_alias_brings_what_ssh_config_says() {
        let home = Home::with(
            "Host t\n HostName real.%h.example\n Port 2222\n User bob\n IdentityFile ~/.ssh/%r_key\n IdentitiesOnly yes\n \
             UserKnownHostsFile ~/kh /dev/null\n StrictHostKeyChecking accept-new\n HostKeyAlias pinned\n ConnectTimeout 3",
        );
        let route = home.route("t");
        assert_eq!((route.address(), route.user()), ("real.t.example:2222".into(), "bob"));
        assert_eq!(route.server.identities[0].path, home.ssh("bob_key"));
        assert!(route.server.identities_only);
        assert_eq!(route.server.known_hosts.user, [home.0.path().join("kh"), "/dev/null".into()]);
        assert_eq!(route.server.policy, HostKeyPolicy::AcceptNew);
        assert_eq!(route.server.known_as(), ("pinned", 22));
        assert_eq!(route.limit, Duration::from_secs(3));
        assert_eq!(home.route("eve@t:1").address(), "real.t.example:1");
        assert_eq!(home.route("eve@t:1").user(), "eve");
    }

    #[test]
    fn what_is_said_in_options_comes_before_ssh_config() {
        let home = Home::with(
            "Host *\n User bob\n IdentityFile ~/.ssh/other\n StrictHostKeyChecking no\n ConnectTimeout 3",
        );
        fs::write(home.ssh("mine"), "").unwrap();
        let options = ServerOptions {
            address: Some("t".into()),
            identities: vec![home.ssh("mine")],
            account: Some("team".into()),
            known_hosts: Some("/kh".into()),
            host_key_policy: Some(HostKeyPolicy::Strict),
            connect_timeout: Some(Duration::from_secs(1)),
            ..Default::default()
        };
        let route = resolve(&options, &home.around(&[])).unwrap();
        assert_eq!(route.user(), "team");
        let identities: Vec<_> =
            route.server.identities.iter().map(|identity| identity.path.clone()).collect();
        assert_eq!(identities, [home.ssh("mine"), home.ssh("other")]);
        assert_eq!(route.server.known_hosts.user, [PathBuf::from("/kh")]);
        assert_eq!((route.server.policy, route.limit), (HostKeyPolicy::Strict, Duration::from_secs(1)));
        let none = ServerOptions {
            ssh_config: SshConfigFile::None,
            address: Some("t".into()),
            ..Default::default()
        };
        assert_eq!(resolve(&none, &home.around(&[])).unwrap().user(), "v2");
    }

    #[test]
    fn jump_hosts_come_in_order_with_their_own_options_and_never_in_a_circle() {
        let home = Home::with(
            "Host t\n ProxyJump eve@b:2200,c\nHost b\n HostName b.example\n ProxyJump a\nHost c\n ProxyJump none\nHost round\n ProxyJump round",
        );
        let route = home.route("t");
        let hops: Vec<_> =
            route.jumps.iter().map(|hop| format!("{}@{}:{}", hop.user, hop.host, hop.port)).collect();
        assert_eq!(hops, ["ada@a:22", "eve@b.example:2200", "ada@c:22"]);
        let options = ServerOptions { address: Some("round".into()), ..Default::default() };
        let error = resolve(&options, &home.around(&[])).unwrap_err();
        assert!(error.to_string().contains("circle"), "{error}");
    }

    fn command(route: &Route) -> Option<String> {
        match &route.way {
            Way::Command(command) => Some(command.in_words()),
            Way::Tcp | Way::Proxy(_) => None,
        }
    }

    #[test]
    fn a_proxy_command_gets_its_tokens_and_is_the_first_hosts() {
        let home = Home::with(
            "Host t\n HostName real\n ProxyCommand nc -x \"a  b\" %h %p %n %r 100%% # no comment\nHost far\n ProxyJump t\nHost no\n \
             ProxyCommand none\nHost *\n ProxyCommand usual",
        );
        let expected = "the ProxyCommand `nc -x \"a  b\" real 22 t v2 100% # no comment`";
        assert_eq!(command(&home.route("t")).as_deref(), Some(expected));
        assert_eq!(command(&home.route("far")), Some(expected.replace("v2", "ada")));
        assert_eq!(home.route("no").way, Way::Tcp);
        let mut options = ServerOptions { address: Some("t".into()), ..Default::default() };
        let around = home.around(&[("http_proxy", "http://p:1")]);
        assert!(command(&resolve(&options, &around).unwrap()).is_some());
        options.proxy = Some(Secret::new("http://q:1".into()));
        let route = resolve(&options, &around).unwrap();
        assert!(matches!(route.way, Way::Proxy(_)));
        assert!(route.warnings[0].contains("gives way to the proxy http://q:1"), "{:?}", route.warnings);
    }

    #[cfg(unix)]
    #[test]
    fn of_proxy_command_and_proxy_jump_the_first_holds_as_with_ssh() {
        for text in [
            "ProxyCommand c\nProxyJump j",
            "ProxyJump j\nProxyCommand c",
            "ProxyCommand none\nProxyJump j",
            "ProxyJump none\nProxyCommand c",
            "ProxyCommand = c\nProxyCommand d",
            "ProxyJump none\nProxyJump j",
            "ProxyJump none\nProxyJump j\nProxyCommand c",
        ] {
            let home = Home::with(&format!("Host t\n{text}"));
            let asked = std::process::Command::new("ssh")
                .arg("-G")
                .arg("-F")
                .arg(home.ssh("config"))
                .arg("t")
                .output();
            let asked = String::from_utf8(asked.unwrap().stdout).unwrap();
            let told = |name: &str| asked.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
            let route = home.route("t");
            let ours = command(&route);
            let theirs = told("proxycommand ").map(|line| format!("the ProxyCommand `{line}`"));
            assert_eq!(ours, theirs, "{text}: {asked}");
            assert_eq!(route.jumps.first().map(|hop| hop.host.clone()), told("proxyjump "), "{text}");
        }
    }

    #[test]
    fn the_environments_proxy_is_for_the_first_host_and_can_be_switched_off() {
        let home = Home::with("Host t\n ProxyJump jump.example.com");
        let around = home.around(&[("http_proxy", "http://p:1"), ("no_proxy", "example.com")]);
        let mut options = ServerOptions { address: Some("t".into()), ..Default::default() };
        assert_eq!(resolve(&options, &around).unwrap().way, Way::Tcp);
        options.address = Some("other".into());
        assert!(matches!(resolve(&options, &around).unwrap().way, Way::Proxy(_)));
        options.proxy = Some(Secret::new("none".into()));
        assert_eq!(resolve(&options, &around).unwrap().way, Way::Tcp);
        options.proxy = Some(Secret::new("socks5://q".into()));
        let Way::Proxy(proxy) = resolve(&options, &around).unwrap().way else { panic!("there is a proxy") };
        assert_eq!(proxy.to_string(), "socks5://q:1080");
    }

    #[test]
    fn the_agent_is_where_ssh_would_find_it() {
        let agent = |config: &str| Home::with(config).around(&[("SSH_AUTH_SOCK", "/a"), ("OTHER", "/b")]);
        let path = |config: &str| {
            let home = Home::with(config);
            let options = ServerOptions { address: Some("t".into()), ..Default::default() };
            let variables = agent(config).variables;
            resolve(&options, &Surroundings { variables, ..home.around(&[]) }).unwrap().server.agent
        };
        assert_eq!(path(""), Some("/a".into()));
        assert_eq!(path("IdentityAgent none"), None);
        assert_eq!(path("IdentityAgent $OTHER"), Some("/b".into()));
        assert_eq!(path("IdentityAgent \"/c d\""), Some("/c d".into()));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_advice() {
        let home = Home::with(
            "Host t\n ProxyCommand nc %q\nHost a;b\n ProxyCommand nc %h\nHost a'b\n ProxyCommand nc %r",
        );
        let refused = |options: ServerOptions| resolve(&options, &home.around(&[])).unwrap_err();
        let named = ServerOptions { address: Some("t".into()), ..Default::default() };
        for error in [
            refused(ServerOptions::default()),
            refused(ServerOptions { identities: vec!["/nowhere/key".into()], ..named.clone() }),
            refused(ServerOptions { connect_timeout: Some(Duration::ZERO), ..named.clone() }),
            refused(ServerOptions { proxy: Some(Secret::new("gopher://x".into())), ..named.clone() }),
            refused(named),
            refused(ServerOptions { address: Some("a;b".into()), ..Default::default() }),
        ] {
            assert_eq!(error.exit_status(), crate::exit::USAGE, "{error}");
            assert!(!error.advice().is_empty());
        }
    }
}
