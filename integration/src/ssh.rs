//! The machine's own `ssh` as a publisher, without any configuration of the person who runs the tests.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;

use crate::child::Child;
use crate::origin::Origin;
use crate::relay::Relay;
use crate::terminal::Terminal;

/// An ssh command line in the making: `server.ssh().forward("443:localhost:80").command("http").publish()`.
#[derive(Clone, Debug)]
pub struct OpenSsh {
    server: SocketAddr,
    key: PathBuf,
    user: String,
    flags: Vec<OsString>,
    forwards: usize,
    words: Vec<String>,
    input: Input,
    secret: Option<PathBuf>,
    first: Vec<String>,
    again: bool,
    launcher: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Input {
    Null,
    Pipe,
    /// And standard output is a pipe to another process.
    Pipeline,
    Terminal,
}

impl OpenSsh {
    /// An ssh that will connect to this address with this key, as user `v2`.
    pub fn to(server: SocketAddr, key: impl Into<PathBuf>) -> Self {
        Self {
            server,
            key: key.into(),
            user: "v2".to_owned(),
            flags: Vec::new(),
            forwards: 0,
            words: Vec::new(),
            input: Input::Pipe,
            secret: None,
            first: Vec::new(),
            again: false,
            launcher: Vec::new(),
        }
    }

    /// `-R` exactly as a person types it.
    pub fn forward(mut self, spec: impl Into<String>) -> Self {
        self.forwards += 1;
        self.flag("-R").flag(spec.into())
    }

    /// `-R BIND:127.0.0.1:PORT` to this upstream; `bind` is `443`, `app:443`, …
    pub fn forward_to(self, bind: &str, origin: &Origin) -> Self {
        self.forward(format!("{bind}:127.0.0.1:{}", origin.port()))
    }

    /// Connects over this relay, whose network can be cut.
    pub fn through(mut self, relay: &Relay) -> Self {
        self.server = relay.address();
        self
    }

    /// The user name in front of the `@`.
    pub fn user(mut self, user: &str) -> Self {
        user.clone_into(&mut self.user);
        self
    }

    /// Another private key.
    pub fn key(mut self, key: impl Into<PathBuf>) -> Self {
        self.key = key.into();
        self
    }

    /// What stands behind the host, as typed in a shell: the shell takes one layer of quotes away, and ssh
    /// joins the words with blanks.
    pub fn command(self, line: &str) -> Self {
        let words = shell_words::split(line).expect("a line that a shell would accept");
        self.command_words(words)
    }

    /// The words behind the host exactly as ssh gets them.
    pub fn command_words(mut self, words: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.words = words.into_iter().map(Into::into).collect();
        self
    }

    /// Any flag, or the value of one.
    pub fn flag(mut self, flag: impl Into<OsString>) -> Self {
        self.flags.push(flag.into());
        self
    }

    /// `-o NAME=VALUE`.
    pub fn option(self, option: &str) -> Self {
        self.flag("-o").flag(option)
    }

    /// `-o NAME=VALUE` in place of what every client of the tests is given.
    pub fn first_option(mut self, option: &str) -> Self {
        self.first.push(option.to_owned());
        self
    }

    /// `-N`: no session, only forwards.
    pub fn without_session(self) -> Self {
        self.flag("-N")
    }

    /// `-o ExitOnForwardFailure=yes`.
    pub fn exit_on_forward_failure(self) -> Self {
        self.option("ExitOnForwardFailure=yes")
    }

    /// `-M -S PATH`: others may share this connection.
    pub fn as_master(self, control: &Path) -> Self {
        self.flag("-M").flag("-S").flag(control)
    }

    /// `-S PATH`: shares the connection of a master.
    pub fn sharing(self, control: &Path) -> Self {
        self.flag("-S").flag(control)
    }

    /// `-O ACTION` on a shared connection: `forward`, `cancel`, `exit`, `check`.
    pub fn control(self, action: &str) -> Self {
        self.flag("-O").flag(action)
    }

    /// Without a key: what this program prints is typed where ssh asks for a password or anything else.
    pub fn typing(self, program: &Path) -> Self {
        let program = program.to_owned();
        Self {
            secret: Some(program),
            ..self.option("PubkeyAuthentication=no").option("NumberOfPasswordPrompts=2")
        }
    }

    /// `while true; do ssh …; done`, as people write it who want their tunnel back.
    pub fn again_and_again(mut self) -> Self {
        self.again = true;
        self
    }

    /// Started by this command, which gets ssh and its arguments as its last words and becomes it.
    pub fn launched_by(mut self, words: Vec<String>) -> Self {
        self.launcher = words;
        self
    }

    /// Standard input from /dev/null, as under systemd. Otherwise it is a pipe that stays open.
    pub fn stdin_null(mut self) -> Self {
        self.input = Input::Null;
        self
    }

    /// Standard input and output are a terminal; give `-t` too if the server is to have one with a command.
    pub fn terminal(mut self) -> Self {
        self.input = Input::Terminal;
        self
    }

    /// Standard output goes to another process, as in `ssh … | cat`.
    pub fn pipeline(mut self) -> Self {
        self.input = Input::Pipeline;
        self
    }

    /// Starts it.
    pub fn spawn(self) -> Child {
        let forwards = self.forwards;
        if self.input == Input::Pipeline {
            return Child::spawn_into_pipe(self.build()).expecting(forwards);
        }
        let terminal = (self.input == Input::Terminal).then(Terminal::open);
        Child::spawn(self.build(), terminal).expecting(forwards)
    }

    /// Starts it and waits until the server says that every forward is public.
    pub async fn publish(self) -> Child {
        let mut child = self.spawn();
        child.forwarding().await;
        child
    }

    /// Runs it to its end: for what is refused, and for control commands.
    pub async fn run(self) -> Finished {
        let mut child = self.spawn();
        let status = child.wait().await;
        Finished { code: status.code(), stdout: child.stdout(), stderr: child.stderr() }
    }

    fn build(self) -> Command {
        let program = if self.again { "bash" } else { "ssh" };
        let mut words = self.launcher.iter().map(String::as_str).chain([program]);
        let mut command = Command::new(words.next().unwrap_or(program));
        command.args(words);
        if self.again {
            command.args(["-c", "while true; do ssh \"$@\"; sleep 0.1; done", "again"]);
        }
        command.args(["-F", "none", "-p", &self.server.port().to_string()]).arg("-i").arg(&self.key);
        command.args(self.first.iter().flat_map(|option| ["-o", option]));
        let options = [
            "IdentitiesOnly=yes",
            "IdentityAgent=none",
            "UserKnownHostsFile=/dev/null",
            "GlobalKnownHostsFile=/dev/null",
            "StrictHostKeyChecking=no",
            "ConnectTimeout=20",
        ];
        command.args(options.iter().flat_map(|option| ["-o", option]));
        command.args(&self.flags);
        command.args(["-l", &self.user, &self.server.ip().to_string()]).args(&self.words);
        command.stdin(if self.input == Input::Null { Stdio::null() } else { Stdio::piped() });
        if let Some(program) = &self.secret {
            command.env("SSH_ASKPASS", program).env("SSH_ASKPASS_REQUIRE", "force");
        }
        command.env("LC_ALL", "C").env("TERM", "xterm").env_remove("SSH_AUTH_SOCK");
        command
    }
}

/// A client that has ended.
#[derive(Clone, Debug)]
pub struct Finished {
    /// `None` if a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Finished {
    /// Both outputs, standard output first.
    pub fn output(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}
