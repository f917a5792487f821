//! The way to the server in the options of stock `ssh` (`--dry-run`), and in words what it has no option for.

use super::proxy::Proxy;
use super::{Hop, HostKeyPolicy, IdentitySource, Route, ServerOptions, SshConfigFile, Way};

/// What stands between `ssh` and the destination.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct SshWay {
    pub(crate) options: Vec<String>,
    /// Without secrets.
    pub(crate) notes: Vec<String>,
}

impl SshWay {
    fn say<const N: usize>(&mut self, words: [&str; N]) {
        self.options.extend(words.map(str::to_owned));
    }

    fn set(&mut self, option: &str, value: &str) {
        self.say(["-o", &format!("{option}={value}")]);
    }

    fn note(&mut self, text: &str) {
        self.notes.push(text.to_owned());
    }
}

impl Route {
    /// The same way for `ssh`. The options of which this is the route say which files it would not find by itself.
    pub(crate) fn ssh_way(&self, options: &ServerOptions) -> SshWay {
        let mut way = SshWay::default();
        match &options.ssh_config {
            SshConfigFile::None => way.say(["-F", "none"]),
            SshConfigFile::File(path) => way.say(["-F", &path.display().to_string()]),
            SshConfigFile::Usual => {}
        }
        if self.server.port != 22 || self.named.port.is_some() {
            way.say(["-p", &self.server.port.to_string()]);
        }
        self.server.log_in(&mut way);
        if self.token.is_some() {
            // ssh would offer keys before.
            way.set("PreferredAuthentications", "keyboard-interactive,password");
            way.note("ssh asks for the token, as a password; it is not part of this line");
        }
        if let Some(file) = &options.known_hosts {
            way.set("UserKnownHostsFile", &quoted(&file.display().to_string()));
        }
        if let Some(alias) = &self.server.alias {
            way.set("HostKeyAlias", alias);
        }
        match self.server.policy {
            HostKeyPolicy::Ask => {}
            HostKeyPolicy::AcceptNew => way.set("StrictHostKeyChecking", "accept-new"),
            HostKeyPolicy::Strict => way.set("StrictHostKeyChecking", "yes"),
        }
        if !self.jumps.is_empty() {
            let jumps: Vec<_> = self.jumps.iter().map(Hop::as_jump).collect();
            way.say(["-J", &jumps.join(",")]);
        }
        match &self.way {
            Way::Proxy(_) if !self.jumps.is_empty() => way.note(
                "ssh takes a jump host or a ProxyCommand: the proxy belongs into the Host entry of the first jump host",
            ),
            Way::Proxy(proxy) => proxy.ssh_way(&mut way),
            // ssh reads the same in its own file.
            Way::Command(_) | Way::Tcp => {}
        }
        way
    }
}

impl Hop {
    /// Keys that ssh would not find by itself.
    fn log_in(&self, way: &mut SshWay) {
        for identity in self.identities.iter().filter(|it| it.source != IdentitySource::Usual) {
            let path = identity.path.display().to_string();
            match path.contains('%') {
                // -i looks for the file before it takes tokens for what they stand for.
                true => way.set("IdentityFile", &quoted(&path)),
                false => way.say(["-i", &path]),
            }
        }
        if self.identities_only {
            way.set("IdentitiesOnly", "yes");
        }
        if self.has_other_identities {
            way.note("ssh offers the keys that its configuration names for this host, too");
        }
    }

    /// As `-J` has it.
    fn as_jump(&self) -> String {
        match self.host.contains(':') && self.port == 22 {
            true => format!("{}@[{}]", self.user, self.host),
            false => format!("{}@{}", self.user, self.name()),
        }
    }
}

impl Proxy {
    /// By netcat of OpenBSD, which most systems have. It knows fewer proxies than we do.
    fn ssh_way(&self, way: &mut SshWay) {
        let Some(command) = self.netcat() else {
            way.note(&format!(
                "ssh has no way through {self}: this line goes without it; ncat, proxytunnel or the like as ProxyCommand may have one"
            ));
            return;
        };
        if self.user().is_some() {
            way.note("nc asks for the proxy's password; it is not part of this line");
        }
        way.set("ProxyCommand", &command);
    }
}

/// A path as one word of an option's value, without tokens (ssh_config(5), TOKENS). A variable (`${NAME}`) cannot be quoted.
fn quoted(path: &str) -> String {
    let path = path.replace('%', "%%");
    match path.contains([' ', '\t', '"', '\'', '\\']) {
        true => format!("\"{}\"", path.replace('\\', "\\\\").replace('"', "\\\"")),
        false => path,
    }
}

#[cfg(test)]
mod tests {
    use hithe_cli_parser::Secret;

    use super::*;

    fn way(change: impl FnOnce(&mut ServerOptions)) -> (String, String) {
        let mut options = ServerOptions {
            address: Some("tunnel.example.com".into()),
            ssh_config: SshConfigFile::None,
            proxy: Some(Secret::new("none".into())),
            ..ServerOptions::default()
        };
        change(&mut options);
        let way = Route::resolve(&options).unwrap().ssh_way(&options);
        (way.options.join(" "), way.notes.join("\n"))
    }

    #[test]
    fn keys_files_and_jump_hosts_are_those_of_the_agent() {
        let key = tempfile::NamedTempFile::new().unwrap();
        let (line, notes) = way(|options| {
            options.address = Some("tunnel.example.com:2222".into());
            options.identities.push(key.path().into());
            options.known_hosts = Some("/tmp/known hosts".into());
            options.host_key_policy = Some(HostKeyPolicy::AcceptNew);
            options.proxy_jump.push("ada@bastion:2022".into());
        });
        let expected = format!(
            "-F none -p 2222 -i {} -o IdentitiesOnly=yes -o UserKnownHostsFile=\"/tmp/known hosts\" -o StrictHostKeyChecking=accept-new -J ada@bastion:2022",
            key.path().display()
        );
        assert_eq!((line, notes), (expected, String::new()));
    }

    #[test]
    fn a_proxy_is_a_command_where_there_is_one_and_its_password_is_not_shown() {
        for (url, expected, noted) in [
            ("http://proxy:3128", "-F none -o ProxyCommand=nc -X connect -x proxy:3128 %h %p", ""),
            ("socks5://[::1]", "-F none -o ProxyCommand=nc -X 5 -x [::1]:1080 %h %p", ""),
            (
                "http://ada:secret@proxy",
                "-F none -o ProxyCommand=nc -X connect -x proxy:80 -P ada %h %p",
                "password",
            ),
            ("https://proxy", "-F none", "no way through https://proxy:443"),
            ("socks5://ada:secret@proxy", "-F none", "no way through"),
        ] {
            let (line, notes) = way(|options| options.proxy = Some(Secret::new(url.into())));
            assert_eq!(line, expected, "{url}");
            assert!(notes.contains(noted) && notes.is_empty() == noted.is_empty(), "{url}: {notes}");
            assert!(!line.contains("secret") && !notes.contains("secret"), "{url}");
        }
    }

    #[test]
    fn paths_mean_themselves_and_addresses_of_jump_hosts_stand_in_brackets() {
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("50%h");
        std::fs::write(&key, "").unwrap();
        let (line, _) = way(|options| {
            options.identities.push(key.clone());
            options.known_hosts = Some(r#"/tmp/ada's "50%h"\x"#.into());
            options.proxy_jump = vec!["ada@::1".into(), "ada@[::2]:2022".into()];
        });
        let key = key.display().to_string().replace('%', "%%");
        let known_hosts = r#""/tmp/ada's \"50%%h\"\\x""#;
        let expected = format!(
            "-F none -o IdentityFile={key} -o IdentitiesOnly=yes -o UserKnownHostsFile={known_hosts} -J ada@[::1],ada@[::2]:2022"
        );
        assert_eq!(line, expected);
    }

    #[test]
    fn what_stands_in_ssh_config_by_a_name_is_found_by_ssh_under_that_name() {
        let config = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(config.path(), "Host tun\n HostName real.example.com\n Port 2222\n").unwrap();
        for (address, port) in [("tun", "-p 2222"), ("tun:22", "-p 22")] {
            let options = ServerOptions {
                address: Some(address.into()),
                ssh_config: SshConfigFile::File(config.path().into()),
                proxy: Some(Secret::new("none".into())),
                ..ServerOptions::default()
            };
            let route = Route::resolve(&options).unwrap();
            assert_eq!(route.typed_host(), "tun");
            let line = route.ssh_way(&options).options.join(" ");
            assert!(line.ends_with(port), "{line}");
        }
    }

    #[test]
    fn a_token_is_asked_for_and_not_shown() {
        let (line, notes) = way(|options| options.token = Some(Secret::new("hithe_secret".into())));
        assert_eq!(line, "-F none -o PreferredAuthentications=keyboard-interactive,password");
        assert!(notes.contains("token") && !notes.contains("hithe_secret"), "{notes}");
    }
}
