//! The agent `hithe` as a publisher, without any configuration of the person who runs the tests.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;

use tokio::process::Command;

use crate::child::Child;
use crate::origin::Origin;
use crate::program;
use crate::relay::Relay;
use crate::ssh::Finished;

/// A command line of `hithe` in the making: `server.agent().command("http", &origin).flags("--domain app").publish()`.
#[derive(Clone, Debug)]
pub struct Agent {
    server: SocketAddr,
    key: PathBuf,
    /// Where it finds its files in place of the home of who runs the tests.
    home: PathBuf,
    words: Vec<OsString>,
    server_flags: bool,
    environment: Vec<(String, OsString)>,
    /// In place of the one of the tests' own profile.
    program: Option<PathBuf>,
}

impl Agent {
    /// One that will connect to this address with this key, and trusts whom it finds there.
    pub fn to(server: SocketAddr, key: impl Into<PathBuf>, home: impl Into<PathBuf>) -> Self {
        let (key, home) = (key.into(), home.into());
        Self {
            server,
            key,
            home,
            words: Vec::new(),
            server_flags: true,
            environment: Vec::new(),
            program: None,
        }
    }

    /// `http|tls|tcp` with the upstream.
    pub fn command(self, command: &str, origin: &Origin) -> Self {
        self.words(&format!("{command} {}", origin.address()))
    }

    /// Words exactly as a person types them in a shell.
    pub fn words(mut self, line: &str) -> Self {
        let words = shell_words::split(line).expect("a line that a shell would accept");
        self.words.extend(words.into_iter().map(OsString::from));
        self
    }

    /// One word.
    pub fn word(mut self, word: impl Into<OsString>) -> Self {
        self.words.push(word.into());
        self
    }

    /// Connects over this relay, whose network can be cut.
    pub fn through(mut self, relay: &Relay) -> Self {
        self.server = relay.address();
        self
    }

    /// Another private key.
    pub fn key(mut self, key: impl Into<PathBuf>) -> Self {
        self.key = key.into();
        self
    }

    /// Says nothing of the server: the test's own words or files do.
    pub fn without_server(mut self) -> Self {
        self.server_flags = false;
        self
    }

    /// A variable of its environment.
    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// Another build of it.
    pub fn program(mut self, program: impl Into<PathBuf>) -> Self {
        self.program = Some(program.into());
        self
    }

    /// Starts it.
    pub fn spawn(self) -> Child {
        Child::spawn(self.build(), None)
    }

    /// Starts it and waits until the server says that it is public.
    pub async fn publish(self) -> Child {
        let mut child = self.spawn();
        child.forwarding().await;
        child
    }

    /// Runs it to its end.
    pub async fn run(self) -> Finished {
        let mut child = self.spawn();
        let status = child.wait().await;
        Finished { code: status.code(), stdout: child.stdout(), stderr: child.stderr() }
    }

    fn build(self) -> Command {
        let mut command = Command::new(self.program.unwrap_or_else(|| program::hithe().to_owned()));
        command.args(&self.words);
        if self.server_flags {
            command.arg("--server").arg(self.server.to_string()).arg("--identity").arg(&self.key);
            command.args(["--accept-new-host-key", "--ssh-config", "none"]);
        }
        command.env("HOME", &self.home).env("XDG_CONFIG_HOME", self.home.join(".config")).env("LC_ALL", "C");
        for name in
            ["SSH_AUTH_SOCK", "HITHE_SERVER", "HITHE_TOKEN", "HITHE_IDENTITY", "http_proxy", "all_proxy"]
        {
            command.env_remove(name);
        }
        command.envs(self.environment).stdin(Stdio::null());
        command
    }
}
