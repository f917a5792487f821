//! The flags that say where the server is and who we are.

use std::path::PathBuf;
use std::time::Duration;

use hithe_cli_parser::Secret;

use crate::config::{self, HostKeys, Settings};
use crate::connect::{HostKeyPolicy, ServerOptions, SshConfigFile};

/// Where the server is, and who we are. What is not said stands in the file, or is as `ssh` has it.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Server")]
pub(super) struct ServerArgs {
    /// The server: a host, user@host, host:port, or a Host of ~/.ssh/config
    #[arg(long, env = "HITHE_SERVER", value_name = "HOST")]
    server: Option<String>,
    /// Log in with this private key; may be repeated. Without it: keys of ssh-agent, ~/.ssh/config, ~/.ssh/id_*
    #[arg(short, long, env = "HITHE_IDENTITY", value_name = "FILE", value_delimiter = ',')]
    identity: Vec<PathBuf>,
    /// Log in with an access token instead of a key; better in HITHE_TOKEN or the file, which others cannot see
    #[arg(long, alias = "authtoken", value_name = "TOKEN")]
    token: Option<String>,
    /// Of several accounts that a certificate is for, this one
    #[arg(long, env = "HITHE_ACCOUNT", value_name = "NAME")]
    account: Option<String>,
    /// Reach the server through http://, https://, socks5:// or socks5h://; none heeds no proxy of the environment
    #[arg(long, env = "HITHE_PROXY", hide_env_values = true, value_name = "URL")]
    proxy: Option<String>,
    /// The file of host keys
    #[arg(long, value_name = "FILE")]
    known_hosts: Option<PathBuf>,
    /// The ssh configuration, or none
    #[arg(long, value_name = "FILE")]
    ssh_config: Option<PathBuf>,
    /// Trust the key that an unknown server shows first, without a question; one that has changed never
    #[arg(long)]
    accept_new_host_key: bool,
    /// Give up a connection attempt after so many seconds
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    connect_timeout: Option<u64>,
}

impl ServerArgs {
    /// Over what the file says.
    pub(super) fn over(&self, file: &Settings) -> ServerOptions {
        let identities = match self.identity.is_empty() {
            true => file.ssh.identity_files.iter().map(|path| path.0.clone()).collect(),
            false => self.identity.clone(),
        };
        let policy = match (self.accept_new_host_key, file.ssh.host_key_policy) {
            (true, _) | (_, HostKeys::AcceptNew) => Some(HostKeyPolicy::AcceptNew),
            (false, HostKeys::Strict) => Some(HostKeyPolicy::Strict),
            // That of ssh_config may say more.
            (false, HostKeys::Ask) => None,
        };
        ServerOptions {
            address: self.server.clone().or_else(|| file.connect_url.clone()),
            identities,
            token: self.token.clone().map(Secret::new).or_else(|| file.authtoken.clone()),
            account: self.account.clone().or_else(|| file.ssh.account.clone()),
            proxy_jump: file.ssh.proxy_jump.clone(),
            proxy: self.proxy.clone().map(Secret::new).or_else(|| file.proxy_url.clone()),
            known_hosts: self
                .known_hosts
                .clone()
                .or_else(|| file.ssh.known_hosts.as_ref().map(|path| path.0.clone())),
            ssh_config: self.ssh_config(file),
            host_key_policy: policy,
            connect_timeout: self
                .connect_timeout
                .map(Duration::from_secs)
                .or_else(|| file.connect_timeout_is_said.then(|| file.connect_timeout.get())),
        }
    }

    fn ssh_config(&self, file: &Settings) -> SshConfigFile {
        match (&self.ssh_config, &file.ssh.config) {
            (Some(path), _) if path.as_os_str() == "none" => SshConfigFile::None,
            (Some(path), _) | (None, Some(config::SshConfig::File(path))) => {
                SshConfigFile::File(path.clone())
            }
            (None, Some(config::SshConfig::Nothing)) => SshConfigFile::None,
            (None, None) => SshConfigFile::Usual,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn a_connect_timeout_that_nobody_said_leaves_it_to_ssh_config() {
        let folder = tempfile::tempdir().unwrap();
        let file = |text: &str| {
            let path = folder.path().join("a.yml");
            std::fs::write(&path, text).unwrap();
            Config::load(&[path]).unwrap().settings
        };
        let (silent, said) = (file("version: 3\n"), file("version: 3\nagent:\n  connect_timeout: 3s\n"));
        let typed = ServerArgs { connect_timeout: Some(5), ..ServerArgs::default() };
        assert_eq!(ServerArgs::default().over(&silent).connect_timeout, None);
        assert_eq!(ServerArgs::default().over(&said).connect_timeout, Some(Duration::from_secs(3)));
        assert_eq!(typed.over(&said).connect_timeout, Some(Duration::from_secs(5)));
    }
}
