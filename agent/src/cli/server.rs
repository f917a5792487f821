//! The flags that say where the server is and who we are.

use std::path::PathBuf;
use std::time::Duration;

use hithe_cli_parser::Secret;

use crate::connect::{HostKeyPolicy, ServerOptions, SshConfigFile};

/// Where the server is, and who we are.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Server")]
pub(crate) struct ServerArgs {
    /// The server: a host, user@host, host:port, or a Host of ~/.ssh/config
    #[arg(long, env = "HITHE_SERVER", value_name = "HOST")]
    pub(crate) server: Option<String>,
    /// Log in with this private key; may be repeated. Without it: keys of ssh-agent, ~/.ssh/config, ~/.ssh/id_*
    #[arg(short, long, env = "HITHE_IDENTITY", value_name = "FILE", value_delimiter = ',')]
    pub(crate) identity: Vec<PathBuf>,
    /// Log in with an access token instead of a key; better in the environment or the file
    #[arg(long, alias = "authtoken", env = "HITHE_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    pub(crate) token: Option<String>,
    /// Of several accounts that a certificate is for, this one
    #[arg(long, env = "HITHE_ACCOUNT", value_name = "NAME")]
    pub(crate) account: Option<String>,
    /// Reach the server through http://, https://, socks5:// or socks5h://; none heeds no proxy of the environment
    #[arg(long, env = "HITHE_PROXY", value_name = "URL")]
    pub(crate) proxy: Option<String>,
    /// The file of host keys
    #[arg(long, value_name = "FILE")]
    pub(crate) known_hosts: Option<PathBuf>,
    /// The ssh configuration, or none
    #[arg(long, value_name = "FILE")]
    pub(crate) ssh_config: Option<PathBuf>,
    /// Trust the key that an unknown server shows first, without a question; one that has changed never
    #[arg(long)]
    pub(crate) accept_new_host_key: bool,
    /// Give up a connection attempt after so many seconds
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) connect_timeout: Option<u64>,
}

impl ServerArgs {
    pub(crate) fn options(&self) -> ServerOptions {
        ServerOptions {
            address: self.server.clone(),
            identities: self.identity.clone(),
            token: self.token.clone().map(Secret::new),
            account: self.account.clone(),
            proxy: self.proxy.clone().map(Secret::new),
            known_hosts: self.known_hosts.clone(),
            ssh_config: match &self.ssh_config {
                None => SshConfigFile::Usual,
                Some(path) if path.as_os_str() == "none" => SshConfigFile::None,
                Some(path) => SshConfigFile::File(path.clone()),
            },
            host_key_policy: self.accept_new_host_key.then_some(HostKeyPolicy::AcceptNew),
            connect_timeout: self.connect_timeout.map(Duration::from_secs),
        }
    }
}
