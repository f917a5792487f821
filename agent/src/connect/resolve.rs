//! What options, ssh_config, environment and defaults mean together.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hithe_cli_parser::printable;

use super::address::{Named, host_port};
use super::config::{Said, Source, SourceKind, expand, expand_all, without_repeats};
use super::gate::Questions;
use super::proxy::{Environment, Proxy};
use super::proxy_command::shown;
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

    /// The file that ssh_config means by this: `~/` is the home directory, `%h` and its like are tokens, and `${NAME}` is a
    /// variable.
    ///
    /// # Errors
    /// A variable is not set, which ssh does not take for an empty one either.
    fn file(&self, keyword: &str, text: &str, tokens: &[(char, &str)]) -> Result<PathBuf, ConnectError> {
        let expand = |text: &str| {
            expand_all(text, tokens, |name| self.variables.get(name).cloned()).map_err(|why| {
                let what = format!("{keyword} of ssh_config leads nowhere: {}", printable(&why));
                ConnectError::option(what, "Set the variable, or correct it there.")
            })
        };
        match &self.home {
            Some(home) if text == "~" || text.starts_with("~/") || text.starts_with("~\\") => {
                let rest = expand(text.trim_start_matches('~'))?;
                Ok(home.join(rest.trim_start_matches(std::path::is_separator)))
            }
            _ => expand(text).map(PathBuf::from),
        }
    }

    fn files(
        &self,
        keyword: &str,
        names: &[String],
        tokens: &[(char, &str)],
    ) -> Result<Vec<PathBuf>, ConnectError> {
        let names = names.iter().filter(|name| !name.eq_ignore_ascii_case("none"));
        names.map(|name| self.file(keyword, name, tokens)).collect()
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
    let said = resolver.said(&named.host)?;
    let server = resolver.hop(&named, &said, true)?;
    let (jumps, command) = resolver.jumps(&named, &said, &server)?;
    let way = resolver.way(jumps.first().unwrap_or(&server), command)?;
    let of_config = said.connect_timeout.filter(|limit| !limit.is_zero());
    let limit = options.connect_timeout.or(of_config).unwrap_or(CONNECT_TIMEOUT);
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

impl First {
    /// Puts the values of tokens into what ssh_config says of this host.
    fn fill_in(&self, list: &[String], hop: &Hop) -> Vec<String> {
        let port = hop.port.to_string();
        let tokens = [('h', &*hop.host), ('n', &*self.name), ('p', &*port), ('r', &*hop.user)];
        list.iter().map(|text| expand(text, &tokens)).collect()
    }
}

struct Resolver<'a> {
    options: &'a ServerOptions,
    around: &'a Surroundings,
    warnings: Vec<String>,
}

impl Resolver<'_> {
    fn said(&mut self, host: &str) -> Result<Said, ConnectError> {
        let source = |path, kind| Source { path, kind };
        let sources = match &self.options.ssh_config {
            SshConfigFile::None => Vec::new(),
            SshConfigFile::File(path) if !path.exists() => {
                self.warnings.push(format!("{} does not exist", path.display()));
                Vec::new()
            }
            SshConfigFile::File(path) => vec![source(path.clone(), SourceKind::Named)],
            SshConfigFile::Usual => {
                let users = self.around.in_ssh("config").map(|path| source(path, SourceKind::Users));
                let system = self.around.system_config.clone().map(|path| source(path, SourceKind::System));
                users.into_iter().chain(system).collect()
            }
        };
        let mut said = Said::of(host, &sources, self.around.home.as_deref())?;
        self.warnings.append(&mut said.warnings);
        Ok(said)
    }

    fn hop(&mut self, named: &Named, said: &Said, is_server: bool) -> Result<Hop, ConnectError> {
        let host = said.host_name(&named.host);
        if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c.is_control()) {
            let what = format!("HostName {:?} of ssh_config is no host", printable(&host));
            return Err(ConnectError::option(what, "Correct it there, or name the server by its address."));
        }
        let port = named.port.or(said.port).unwrap_or(PORT);
        let user = named.user.clone().or_else(|| said.word("User").map(str::to_owned));
        let user = match is_server {
            true => self.options.account.clone().or(user).unwrap_or_else(|| USER.into()),
            false => user.or_else(|| self.around.local_user()).unwrap_or_else(|| USER.into()),
        };
        let home = self.around.home.as_deref().map(Path::to_string_lossy).unwrap_or_default().into_owned();
        let (port_text, local) = (port.to_string(), self.around.local_user().unwrap_or_default());
        let tokens: &[(char, &str)] =
            &[('h', &host), ('n', &named.host), ('p', &port_text), ('r', &user), ('d', &home), ('u', &local)];
        let certificates = self.around.files("CertificateFile", &said.certificates, tokens)?;
        // Who it is must not depend on what else lies about: names stay with the account that had them. Hosts on the way have
        // keys of their own.
        let named_alone = is_server && !self.options.identities.is_empty();
        let hop = Hop {
            port,
            alias: said.word("HostKeyAlias").map(str::to_owned),
            identities: self.identities(said, tokens, named_alone)?,
            certificates: without_repeats(certificates),
            has_other_identities: named_alone && !said.identities.is_empty(),
            identities_only: said.is_yes("IdentitiesOnly") || named_alone,
            agent: self.agent(said, tokens)?,
            known_hosts: self.known_hosts(said, tokens)?,
            policy: self.policy(said),
            user: user.clone(),
            host: host.clone(),
        };
        Ok(hop)
    }

    fn identities(
        &self,
        said: &Said,
        tokens: &[(char, &str)],
        named_alone: bool,
    ) -> Result<Vec<Identity>, ConnectError> {
        let usual = || USUAL_KEYS.iter().filter_map(|name| self.around.in_ssh(name)).collect();
        let (others, source) = match said.identities.is_empty() {
            _ if named_alone => (Vec::new(), IdentitySource::Usual),
            true => (usual(), IdentitySource::Usual),
            false => {
                (self.around.files("IdentityFile", &said.identities, tokens)?, IdentitySource::SshConfig)
            }
        };
        let named = self.options.identities.iter().cloned().map(|path| (path, IdentitySource::Option));
        let mut seen = HashSet::new();
        let all = named.chain(others.into_iter().map(|path| (path, source)));
        let all = all.filter(|(path, _)| seen.insert(path.clone()));
        Ok(all.map(|(path, source)| Identity { path, source }).collect())
    }

    fn agent(&self, said: &Said, tokens: &[(char, &str)]) -> Result<Option<PathBuf>, ConnectError> {
        let usual = || {
            self.around
                .variable("SSH_AUTH_SOCK")
                .map(PathBuf::from)
                .or_else(|| cfg!(windows).then(|| PathBuf::from(r"\\.\pipe\openssh-ssh-agent")))
        };
        Ok(match said.word("IdentityAgent") {
            Some("none") => None,
            Some("SSH_AUTH_SOCK") | None => usual(),
            // The older form, which is a whole path, and not an error where the variable is not set.
            Some(word) if word.starts_with('$') && !word.starts_with("${") => {
                self.around.variable(word.trim_start_matches('$')).map(PathBuf::from)
            }
            Some(word) => Some(self.around.file("IdentityAgent", word, tokens)?),
        })
    }

    fn known_hosts(&self, said: &Said, tokens: &[(char, &str)]) -> Result<KnownHosts, ConnectError> {
        let hashed = said.is_yes("HashKnownHosts");
        if let Some(file) = &self.options.known_hosts {
            return Ok(KnownHosts { user: vec![file.clone()], system: Vec::new(), hashed });
        }
        let files = |keyword: &str, usual: Vec<PathBuf>| match said.words(keyword) {
            Some(words) => self.around.files(keyword, words, tokens),
            None => Ok(usual),
        };
        let user =
            ["known_hosts", "known_hosts2"].iter().filter_map(|name| self.around.in_ssh(name)).collect();
        let beside =
            |name: &str| self.around.system_config.as_ref().map(|config| config.with_file_name(name));
        let system = ["ssh_known_hosts", "ssh_known_hosts2"].into_iter().filter_map(beside).collect();
        Ok(KnownHosts {
            user: files("UserKnownHostsFile", user)?,
            system: files("GlobalKnownHostsFile", system)?,
            hashed,
        })
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
    fn jumps(&mut self, named: &Named, said: &Said, server: &Hop) -> Result<(Vec<Hop>, First), ConnectError> {
        let mut hops: Vec<Hop> = Vec::new();
        let of_config = |said: &Said| said.jumps.clone().unwrap_or_default();
        let (mut list, command) = match self.options.proxy_jump.as_slice() {
            [] => (of_config(said), said.proxy_command.clone()),
            jumps => (jumps.to_owned(), None),
        };
        let mut first = First { name: named.host.clone(), command };
        while !list.is_empty() {
            // Tokens in the list are of the host that it leads to.
            let jumps = first.fill_in(&list, hops.first().unwrap_or(server));
            let (mut stretch, mut before) = (Vec::new(), Vec::new());
            for text in &jumps {
                let named = Named::parse(text)?;
                let said = self.said(&named.host)?;
                let hop = self.hop(&named, &said, false)?;
                if stretch.is_empty() {
                    before = of_config(&said);
                    first = First { name: named.host, command: said.proxy_command };
                }
                stretch.push(hop);
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
        Ok((hops, first))
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
                let line = shown(&line);
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

/// Enough where ssh-agent has the private half.
fn public_half(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".pub");
    name.into()
}

#[cfg(test)]
mod tests;
