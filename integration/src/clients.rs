//! Publishers other than OpenSSH: dropbear's dbclient, PuTTY's plink, paramiko and asyncssh, each as installed
//! from Debian, each started the way its users start it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;

use crate::child::Child;
use crate::origin::Origin;
use crate::server::TestServer;
use crate::wait::within;

/// One of the other clients, about to publish.
#[derive(Clone, Debug)]
pub struct OtherClient {
    program: Program,
    server: SocketAddr,
    key: PathBuf,
    folder: PathBuf,
    user: String,
    forwards: Vec<(String, u16)>,
    command: Option<String>,
}

/// Which one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    Dbclient,
    Plink,
    Paramiko,
    Asyncssh,
}

/// The Python with Debian's modules, whatever else stands first in PATH.
pub(crate) const PYTHON: &str = "/usr/bin/python3";

impl TestServer {
    /// One of the other clients, with a key that may publish, about to connect here.
    pub fn client(&self, program: Program) -> OtherClient {
        OtherClient::to(program, self.ssh_address(), self.user_key(), self.folder())
    }
}

impl OtherClient {
    /// A client that will connect to this address, as user `v2`; `folder` takes its converted key.
    pub fn to(program: Program, server: SocketAddr, key: impl Into<PathBuf>, folder: &Path) -> Self {
        Self {
            program,
            server,
            key: key.into(),
            folder: folder.to_owned(),
            user: "v2".to_owned(),
            forwards: Vec::new(),
            command: None,
        }
    }

    /// Asks for this address (may be empty) and port, for this upstream: `443` or `app.localhost:443`.
    pub fn forward_to(mut self, bind: &str, origin: &Origin) -> Self {
        self.forwards.push((bind.to_owned(), origin.port()));
        self
    }

    /// The user name.
    pub fn user(mut self, user: &str) -> Self {
        user.clone_into(&mut self.user);
        self
    }

    /// The exec line; without it the client is started with its `-N`.
    pub fn command(mut self, line: &str) -> Self {
        self.command = Some(line.to_owned());
        self
    }

    /// Starts it.
    pub async fn spawn(self) -> Child {
        let mut command = match self.program {
            Program::Dbclient => self.dbclient().await,
            Program::Plink => self.plink().await,
            Program::Paramiko => self.python(include_str!("clients/paramiko.py")),
            Program::Asyncssh => self.python(include_str!("clients/asyncssh.py")),
        };
        command.stdin(Stdio::piped()).env("HOME", &self.folder);
        Child::spawn(command, None).expecting(self.forwards.len())
    }

    /// Starts it and waits until the server says that every forward is public.
    pub async fn publish(self) -> Child {
        let mut child = self.spawn().await;
        child.forwarding().await;
        child
    }

    async fn dbclient(&self) -> Command {
        let key = self.folder.join("id.dropbear");
        let mut convert = Command::new("dropbearconvert");
        succeed(convert.args(["openssh", "dropbear"]).arg(&self.key).arg(&key)).await;
        let mut command = Command::new("dbclient");
        command.args(["-y", "-y", "-p", &self.server.port().to_string()]).arg("-i").arg(key);
        self.forwards_and_target(command)
    }

    async fn plink(&self) -> Command {
        let key = self.folder.join("id.ppk");
        let mut convert = Command::new("puttygen");
        succeed(convert.arg(&self.key).args(["-O", "private", "-o"]).arg(&key)).await;
        let mut command = Command::new("plink");
        command.args(["-ssh", "-batch", "-P", &self.server.port().to_string()]).arg("-i").arg(key);
        command.args(["-hostkey", &self.host_fingerprint().await]);
        self.forwards_and_target(command)
    }

    /// What dbclient and plink have in common.
    fn forwards_and_target(&self, mut command: Command) -> Command {
        for (bind, port) in &self.forwards {
            command.arg("-R").arg(format!("{bind}:127.0.0.1:{port}"));
        }
        if self.command.is_none() {
            command.arg("-N");
        }
        command.arg(format!("{}@{}", self.user, self.server.ip())).args(&self.command);
        command
    }

    fn python(&self, script: &str) -> Command {
        let mut command = Command::new(PYTHON);
        let said = serde_json::json!({
            "host": self.server.ip().to_string(),
            "port": self.server.port(),
            "user": self.user,
            "key": self.key,
            "forwards": self.forwards.iter().map(|(bind, port)| {
                let (address, asked) = bind.rsplit_once(':').unwrap_or(("", bind));
                serde_json::json!({"address": address, "port": asked.parse::<u16>().ok(), "target": port})
            }).collect::<Vec<_>>(),
            "command": self.command,
        });
        command.args(["-W", "ignore", "-u", "-c", script, &said.to_string()]);
        command
    }

    /// The fingerprint of the server's ed25519 host key, as `ssh-keygen -l` writes it.
    async fn host_fingerprint(&self) -> String {
        let mut scan = Command::new("ssh-keyscan");
        scan.args(["-t", "ed25519", "-p", &self.server.port().to_string(), &self.server.ip().to_string()]);
        let keys = self.folder.join("host-key.pub");
        std::fs::write(&keys, succeed(&mut scan).await).expect("a temporary file");
        fingerprint(&keys).await
    }
}

/// `SHA256:…` of the first key in this file.
pub async fn fingerprint(public_key: &Path) -> String {
    let listed = succeed(Command::new("ssh-keygen").arg("-lf").arg(public_key)).await;
    listed.split(' ').nth(1).expect("bits, fingerprint, comment").to_owned()
}

/// Runs a program to its end, which must be a success, and returns what it printed.
async fn succeed(command: &mut Command) -> String {
    let run = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = within("a program of the harness", run).await.expect("the program starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{:?}: {} {said}", command.as_std(), output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}
