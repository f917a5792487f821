//! How the agent finds the server and enters it: what is said of it (options, ssh_config, environment), the way there
//! (addresses, proxies, jump hosts), whether it is the right one, and the login.
//!
//! A [`Route`] is resolved once and serves every connection, also those of other endpoints: what a person was asked is
//! remembered in it.

mod address;
mod ask;
mod config;
mod error;
mod gate;
mod identity;
mod jump;
mod known_hosts;
mod line;
mod locked;
mod login;
mod modes;
mod preamble;
mod proxy;
mod proxy_command;
mod resolve;
mod tcp;
#[cfg(test)]
pub(crate) mod tests;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hithe_cli_parser::{Secret, printable};
use russh::client::{self, Handle, Handler};

use self::address::{Named, host_port};
use self::gate::Questions;
use self::preamble::Preamble;
use self::proxy::Proxy;
use self::proxy_command::ProxyCommand;
use self::resolve::Surroundings;
use crate::Stream;

pub use self::ask::{Ask, Nobody, Terminal};
pub use self::error::ConnectError;
pub(crate) use self::gate::{Gate, Heard};
pub use self::known_hosts::HostKeyPlace;
use self::known_hosts::HostKeys;
pub(crate) use self::known_hosts::Verdict;
pub(crate) use self::tcp::{in_words, tcp};

/// What is said of the server on the command line, in the environment or in a file. Everything may be left out but
/// the address; ssh_config and defaults fill it up.
#[derive(Clone, Debug, Default)]
pub struct ServerOptions {
    /// `[ssh://][user@]host[:port]`, or an alias of ssh_config.
    pub address: Option<String>,
    /// Private keys, or public ones whose private key ssh-agent has. The server is offered no
    /// others; at jump hosts they come first.
    pub identities: Vec<PathBuf>,
    /// An access token, which logs in instead of a key.
    pub token: Option<Secret<String>>,
    /// Of several accounts that a certificate is good for, the one that is meant: the user name.
    pub account: Option<String>,
    /// Hosts on the way, as `ProxyJump` has them (`[user@]host[:port]`, the nearest first), in place of ssh_config's.
    pub proxy_jump: Vec<String>,
    /// `http://`, `https://`, `socks5://` or `socks5h://`, or `none` for no proxy whatever the environment says. It may
    /// hold a password.
    pub proxy: Option<Secret<String>>,
    /// Instead of the files that ssh_config names.
    pub known_hosts: Option<PathBuf>,
    pub ssh_config: SshConfigFile,
    pub host_key_policy: Option<HostKeyPolicy>,
    /// How long the connection may take, and then the login; 10 s. Time for answers of a person is not counted.
    pub connect_timeout: Option<Duration>,
}

/// Which ssh_config counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SshConfigFile {
    /// `~/.ssh/config`, then the system's.
    #[default]
    Usual,
    /// This one only.
    File(PathBuf),
    None,
}

/// What to do with a host key that is not known. One that has changed is never accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HostKeyPolicy {
    /// Ask, if somebody can be asked.
    #[default]
    Ask,
    /// Take it down without a question.
    AcceptNew,
    /// Refuse.
    Strict,
}

/// The way to the server and into it.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    server: Hop,
    /// As it was typed, by which ssh_config knows it.
    named: Named,
    /// Hosts on the way, the nearest first.
    jumps: Vec<Hop>,
    /// How the first host is reached.
    way: Way,
    token: Option<Secret<String>>,
    limit: Duration,
    questions: Questions,
    warnings: Vec<String>,
}

/// How the first host is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Way {
    Tcp,
    Proxy(Proxy),
    Command(ProxyCommand),
}

/// A host that speaks SSH: the server, or a jump host.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Hop {
    host: String,
    port: u16,
    user: String,
    /// As what it stands in known_hosts, if not as host and port.
    alias: Option<String>,
    identities: Vec<Identity>,
    /// Those that `CertificateFile` names.
    certificates: Vec<PathBuf>,
    /// No keys of ssh-agent but those that the identity files name.
    identities_only: bool,
    /// ssh_config names some that are not offered.
    has_other_identities: bool,
    /// Where ssh-agent listens.
    agent: Option<PathBuf>,
    known_hosts: KnownHosts,
    policy: HostKeyPolicy,
}

/// The name of a key file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Identity {
    path: PathBuf,
    source: IdentitySource,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum IdentitySource {
    Option,
    SshConfig,
    /// Where ssh-keygen puts keys. It need not exist.
    Usual,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct KnownHosts {
    /// New keys go to the first of them.
    user: Vec<PathBuf>,
    system: Vec<PathBuf>,
    /// Names are written as hashes.
    hashed: bool,
}

impl KnownHosts {
    fn read(&self) -> HostKeys {
        HostKeys::read(self.user.iter().chain(&self.system))
    }
}

impl Hop {
    /// As errors call it.
    fn name(&self) -> String {
        if self.port == 22 { self.host.clone() } else { host_port(&self.host, self.port) }
    }

    /// As what it stands in known_hosts.
    fn known_as(&self) -> (&str, u16) {
        self.alias.as_deref().map_or((&self.host, self.port), |alias| (alias, 22))
    }
}

impl Route {
    /// Finds out what the options mean here: over ssh_config, over the environment, over defaults.
    ///
    /// # Errors
    /// An option, or what stands in its place, cannot be meant.
    pub(crate) fn resolve(options: &ServerOptions) -> Result<Self, ConnectError> {
        resolve::resolve(options, &Surroundings::here())
    }

    /// The same route, with somebody else to ask than the terminal. What was asked before is not forgotten.
    #[must_use]
    pub(crate) fn asking(mut self, whom: Arc<dyn Ask>) -> Self {
        self.questions.ask_now(whom);
        self
    }

    /// `host:port` of the server.
    pub(crate) fn address(&self) -> String {
        host_port(&self.server.host, self.server.port)
    }

    /// As it was typed: ssh finds the rest in its own files by that.
    pub(crate) fn typed_host(&self) -> &str {
        &self.named.host
    }

    /// As whom the agent logs in.
    pub(crate) fn user(&self) -> &str {
        &self.server.user
    }

    /// What stands in a file and is not heeded.
    pub(crate) fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Each connection gets a gate: it knows the server, and hears what it says.
    pub(crate) fn gate(&self) -> Gate {
        Gate::new(&self.server, self.questions.clone())
    }

    /// A connection to the server's SSH port, however it is reached. Nothing was said on it.
    ///
    /// # Errors
    /// There is no way.
    pub(crate) async fn dial(&self) -> Result<Box<dyn Stream>, ConnectError> {
        let hops: Vec<_> = self.jumps.iter().chain([&self.server]).collect();
        let first = hops.first().copied().unwrap_or(&self.server);
        let mut stream: Box<dyn Stream> = match &self.way {
            Way::Tcp => {
                let reached = tcp::connect(&first.host, first.port, self.limit).await;
                Box::new(reached.map_err(|error| self.of_first(error))?)
            }
            Way::Proxy(proxy) => proxy.connect(&first.host, first.port, self.limit).await?,
            Way::Command(command) => Box::new(command.start(&self.questions)?),
        };
        for pair in hops.windows(2) {
            let [jump, next] = pair else { continue };
            let way = jump::through(jump, next, stream, self.limit, &self.questions);
            let failed = |source| ConnectError::Jump { host: jump.name(), source: Box::new(source) };
            stream = Box::pin(way).await.map_err(failed)?;
        }
        Ok(stream)
    }

    /// Logs in.
    ///
    /// # Errors
    /// The server does not let us in, or the connection ends.
    pub(crate) async fn log_in<H: Handler>(
        &self,
        handle: &mut Handle<H>,
        gate: &Gate,
    ) -> Result<(), ConnectError> {
        let login = login::log_in(&self.server, self.token.as_ref(), handle, gate);
        gate.within("the login", self.limit.max(LOGIN), login).await
    }

    /// All of it: the way, the key exchange and the login.
    ///
    /// # Errors
    /// One of them fails.
    #[cfg(test)]
    pub(crate) async fn connect<H>(
        &self,
        config: client::Config,
        handler: impl FnOnce(Gate) -> H,
    ) -> Result<Handle<H>, ConnectError>
    where
        H: Handler<Error = ConnectError> + 'static,
    {
        let gate = self.gate();
        let handler = handler(gate.clone());
        let mut handle = Box::pin(self.shake_hands(&gate, config, handler)).await?;
        Box::pin(self.log_in(&mut handle, &gate)).await?;
        Ok(handle)
    }

    /// The key exchange over a stream that [`Self::dial`] gave.
    ///
    /// # Errors
    /// Who answers is not the server.
    pub(crate) async fn greet<H>(
        &self,
        gate: &Gate,
        config: client::Config,
        stream: Box<dyn Stream>,
        handler: H,
    ) -> Result<Handle<H>, ConnectError>
    where
        H: Handler<Error = ConnectError> + 'static,
    {
        shake_hands(gate, self.limit, config, stream, handler).await
    }

    /// The way and the key exchange.
    pub(crate) async fn shake_hands<H>(
        &self,
        gate: &Gate,
        config: client::Config,
        handler: H,
    ) -> Result<Handle<H>, ConnectError>
    where
        H: Handler<Error = ConnectError> + 'static,
    {
        let stream = self.dial().await?;
        shake_hands(gate, self.limit, config, stream, handler).await
    }

    /// All that was found out, without secrets.
    pub(crate) fn in_words(&self) -> String {
        let mut words = format!("{}@{}", self.server.user, self.address());
        if !self.jumps.is_empty() {
            let jumps: Vec<_> = self.jumps.iter().map(Hop::name).collect();
            words = format!("{words} over {}", jumps.join(", "));
        }
        match &self.way {
            Way::Tcp => {}
            Way::Proxy(proxy) => words = format!("{words} through {proxy}"),
            Way::Command(command) => words = format!("{words} through {}", command.in_words()),
        }
        if self.token.is_some() {
            words.push_str(", with a token");
        }
        printable(&words).into_owned()
    }

    /// What we reach by TCP: the proxy, a jump host or the server. None where a program does that.
    fn first(&self) -> Option<(&str, u16)> {
        let hop = self.jumps.first().unwrap_or(&self.server);
        match &self.way {
            Way::Tcp => Some((&hop.host, hop.port)),
            Way::Proxy(proxy) => Some(proxy.place()),
            Way::Command(_) => None,
        }
    }

    /// None where a program goes the whole way.
    pub(crate) fn first_host(&self) -> Option<String> {
        self.first().map(|(host, _)| printable(host).into_owned())
    }

    /// None where a program goes the whole way.
    ///
    /// # Errors
    /// Its name leads nowhere.
    pub(crate) async fn first_addresses(&self) -> Result<Vec<SocketAddr>, ConnectError> {
        let Some((host, port)) = self.first() else { return Ok(Vec::new()) };
        tcp::resolve(host, port, self.limit).await.map_err(|error| self.of_first(error))
    }

    /// A fault of whoever is the first on the way.
    fn of_first(&self, error: ConnectError) -> ConnectError {
        match (&self.way, self.jumps.first()) {
            (Way::Proxy(proxy), _) => proxy.away(error),
            (_, Some(jump)) => ConnectError::Jump { host: jump.name(), source: Box::new(error) },
            (_, None) => error,
        }
    }

    /// # Errors
    /// Why one of these addresses does not answer.
    pub(crate) async fn try_address(&self, address: SocketAddr) -> Result<(), String> {
        let tried = tcp::connect_to(address, self.limit).await;
        tried.map(drop).map_err(|error| in_words(&error))
    }
}

/// The key exchange, up to the login.
async fn shake_hands<H>(
    gate: &Gate,
    limit: Duration,
    mut config: client::Config,
    stream: Box<dyn Stream>,
    handler: H,
) -> Result<Handle<H>, ConnectError>
where
    H: Handler<Error = ConnectError> + 'static,
{
    gate.prefer_known_keys(&mut config);
    let preamble = Preamble::default();
    let stream = preamble.listen(stream);
    // russh does the key exchange in a task of its own, which would wait for a silent server without end.
    let hang_up = preamble.hang_up_on_drop();
    let shaken = client::connect_stream(Arc::new(config), stream, handler);
    let shaken = gate.within("the key exchange", limit, shaken).await;
    if shaken.is_ok() {
        hang_up.disarm();
        preamble.is_over();
    }
    shaken.map_err(|error| gate.explain(error, &preamble.said()))
}

/// The login has to wait for hashing, for ssh-agent and for servers that are slow on purpose.
const LOGIN: Duration = Duration::from_secs(20);
