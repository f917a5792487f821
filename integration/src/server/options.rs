//! The command line of a test server.

use std::ffi::OsString;
use std::fs::File;
use std::ops::RangeInclusive;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::program;

/// What a [`TestServer`](super::TestServer) is started with.
#[derive(Clone, Debug)]
pub struct Options {
    pub(super) domain: String,
    pub(super) ssh_listen: Vec<String>,
    pub(super) http_listen: Vec<String>,
    pub(super) https_listen: Vec<String>,
    launcher: Vec<OsString>,
    program: Option<&'static Path>,
    keys: bool,
    one_port: bool,
    arguments: Vec<OsString>,
    environment: Vec<(String, OsString)>,
}

impl Default for Options {
    fn default() -> Self {
        let loopback = || vec!["127.0.0.1:0".to_owned()];
        Self {
            domain: "localhost".to_owned(),
            ssh_listen: loopback(),
            http_listen: loopback(),
            https_listen: loopback(),
            launcher: Vec::new(),
            program: None,
            keys: true,
            one_port: false,
            arguments: Vec::new(),
            environment: Vec::new(),
        }
    }
}

impl Options {
    /// One more word of the command line.
    pub fn arg(mut self, word: impl Into<OsString>) -> Self {
        self.arguments.push(word.into());
        self
    }

    /// A variable of its environment, say `HITHED_LOG_LEVEL`.
    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// Started by this command, which gets the server's own as its last words and becomes it.
    pub fn launched_by(mut self, words: Vec<OsString>) -> Self {
        self.launcher = words;
        self
    }

    /// Another build of the server than the test's own.
    pub fn program(mut self, path: &'static Path) -> Self {
        self.program = Some(path);
        self
    }

    /// Another domain than `localhost`.
    pub fn domain(mut self, domain: &str) -> Self {
        domain.clone_into(&mut self.domain);
        self
    }

    /// Every listener on `[::1]` too.
    pub fn dual_stack(mut self) -> Self {
        for list in [&mut self.ssh_listen, &mut self.http_listen, &mut self.https_listen] {
            list.push("[::1]:0".to_owned());
        }
        self
    }

    /// Listens for publishers here and nowhere else.
    pub fn ssh_listen(mut self, address: &str) -> Self {
        self.ssh_listen = vec![address.to_owned()];
        self
    }

    /// Listens for ssh and https at the same port.
    pub fn one_port(mut self) -> Self {
        self.one_port = true;
        self
    }

    /// Any key may publish; no list of keys is given.
    pub fn open(self) -> Self {
        self.without_keys().arg("--open")
    }

    /// No list of keys is given.
    pub fn without_keys(mut self) -> Self {
        self.keys = false;
        self
    }

    /// The build of the server that is run.
    pub(super) fn server(&self) -> &'static Path {
        self.program.unwrap_or_else(program::hithed)
    }

    /// The whole command, for a server that keeps its things in `folder`.
    pub(super) fn command(&self, folder: &Path, tcp_ports: &RangeInclusive<u16>) -> Command {
        let server = self.server();
        let mut command = match self.launcher.split_first() {
            None => Command::new(server),
            Some((launcher, words)) => {
                let mut command = Command::new(launcher);
                command.args(words).arg(server);
                command
            }
        };
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("HITHED_"))
        {
            command.env_remove(name);
        }
        command.current_dir(folder).arg("serve").args(["--domain", &self.domain]);
        command.arg("--state-dir").arg(folder.join("state"));
        command.arg("--ready-file").arg(folder.join("ready.json"));
        command.args(["--tcp-ports", &format!("{}-{}", tcp_ports.start(), tcp_ports.end())]);
        if !self.arguments.iter().any(|word| word == "--tcp-listen-address") {
            command.args(["--tcp-listen-address", "127.0.0.1"]);
        }
        let one = vec![format!("127.0.0.1:{}", tcp_ports.end())];
        let or_one = |own| if self.one_port { &one } else { own };
        let listeners = [
            ("--ssh-listen", or_one(&self.ssh_listen)),
            ("--http-listen", &self.http_listen),
            ("--https-listen", or_one(&self.https_listen)),
        ];
        for (flag, addresses) in listeners {
            command.args(addresses.iter().flat_map(|address| [flag, address]));
        }
        if self.keys {
            command.arg("--authorized-keys").arg(folder.join("authorized_keys"));
        }
        command.args(&self.arguments);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    pub(super) fn spawn(&self, folder: &Path, tcp_ports: &RangeInclusive<u16>) -> Child {
        let log = File::options().create(true).append(true).open(folder.join("log")).expect("a log file");
        self.command(folder, tcp_ports)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle of the log"))
            .stderr(log)
            .spawn()
            .expect("hithed starts")
    }
}
