//! The flags that say where the server is and who we are.

use std::path::PathBuf;

use hithe_cli_parser::Secret;

use super::usage;
use crate::config::{self, HostKeys, Settings, Time};
use crate::connect::{HostKeyPolicy, ServerOptions, SshConfigFile};
use crate::publisher::Failure;

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
    /// Give up a connection attempt after this time: 10s, 1m30s, or a number of seconds
    #[arg(long, value_name = "TIME")]
    connect_timeout: Option<Time>,
}

impl ServerArgs {
    /// Over what the file says.
    ///
    /// # Errors
    /// A file that was named is not there.
    pub(super) fn over(&self, file: &Settings) -> Result<ServerOptions, Failure> {
        let options = self.options(file);
        match &options.ssh_config {
            SshConfigFile::File(path) if !path.exists() => Err(usage(format!(
                "the ssh configuration {} does not exist\n  Name another file, or none.",
                path.display()
            ))),
            _ => Ok(options),
        }
    }

    fn options(&self, file: &Settings) -> ServerOptions {
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
                .map(Time::get)
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
    use std::time::Duration;

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
        let timeout = |typed: &ServerArgs, file| typed.over(file).unwrap().connect_timeout;
        let (silent, said) = (file("version: 3\n"), file("version: 3\nagent:\n  connect_timeout: 3s\n"));
        let typed = ServerArgs { connect_timeout: Some("5".parse().unwrap()), ..ServerArgs::default() };
        assert_eq!(timeout(&ServerArgs::default(), &silent), None);
        assert_eq!(timeout(&ServerArgs::default(), &said), Some(Duration::from_secs(3)));
        assert_eq!(timeout(&typed, &said), Some(Duration::from_secs(5)));
    }

    #[test]
    fn an_ssh_configuration_that_was_named_and_is_not_there_is_refused() {
        let gone = tempfile::tempdir().unwrap().path().join("gone");
        let typed = ServerArgs { ssh_config: Some(gone.clone()), ..ServerArgs::default() };
        let mut file = Settings::default();
        let none = ServerArgs { ssh_config: Some("none".into()), ..ServerArgs::default() };
        assert!(none.over(&file).is_ok());
        let refused = typed.over(&file).unwrap_err();
        assert_eq!(refused.exit_status(), crate::exit::USAGE);
        assert!(refused.to_string().contains("gone does not exist"), "{refused}");
        file.ssh.config = Some(config::SshConfig::File(gone));
        assert!(ServerArgs::default().over(&file).is_err());
    }
}
