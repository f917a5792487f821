//! `hithed serve` as a child: everything on free ports of the loopback, its own state directory, its own key.
//! The addresses come from the ready file; the log is kept and shown when a test fails.

mod options;
pub(crate) mod ports;

use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

pub use self::options::Options;
use self::ports::PortBlock;
use crate::origin::Origin;
use crate::visitor::Visitor;
use crate::wait::{closed, eventually};
use crate::{Agent, OpenSsh};

/// A running server. It is killed, and its state removed, when dropped.
#[derive(Debug)]
pub struct TestServer {
    process: Child,
    /// Those that were started before it and may still finish their visits.
    older: Vec<Child>,
    options: Options,
    ready: Ready,
    ports: PortBlock,
    folder: TempDir,
}

/// What the ready file says: every bound address.
#[derive(Clone, Debug)]
struct Ready {
    ssh: Vec<SocketAddr>,
    http: Vec<SocketAddr>,
    https: Vec<SocketAddr>,
    /// Empty unless asked for.
    health: Vec<SocketAddr>,
}

impl TestServer {
    /// A server for the domain `localhost` at which [`Self::ssh`]'s key may publish.
    pub async fn start() -> Self {
        Self::with(|options| options).await
    }

    /// The same with other options: `TestServer::with(|options| options.arg("--grace").arg("1s"))`.
    pub async fn with(adjust: impl FnOnce(Options) -> Options) -> Self {
        let folder = tempfile::Builder::new().prefix("hithe-test-").tempdir().expect("a temporary folder");
        let options = adjust(Options::default());
        generate_key(&folder.path().join("id"), "ed25519");
        authorize(folder.path(), &folder.path().join("id"));
        let ports = PortBlock::reserve();
        let process = options.spawn(folder.path(), &ports.range());
        let unready = Ready { ssh: Vec::new(), http: Vec::new(), https: Vec::new(), health: Vec::new() };
        let mut server = Self { process, older: Vec::new(), options, ready: unready, ports, folder };
        server.await_ready().await;
        server
    }

    /// For a server that must refuse to start: runs it to its end and returns what it said.
    pub async fn refusing(adjust: impl FnOnce(Options) -> Options) -> Output {
        let folder = tempfile::tempdir().expect("a temporary folder");
        generate_key(&folder.path().join("id"), "ed25519");
        authorize(folder.path(), &folder.path().join("id"));
        let ports = PortBlock::reserve();
        let command = adjust(Options::default()).command(folder.path(), &ports.range());
        let mut command = tokio::process::Command::from(command);
        let run = command.stdin(Stdio::null()).kill_on_drop(true).output();
        crate::within("the server refuses to start", run).await.expect("hithed runs")
    }

    async fn await_ready(&mut self) {
        let file = self.folder.path().join("ready.json");
        let process = &mut self.process;
        let log = self.folder.path().join("log");
        let text = eventually("the server writes its ready file", || {
            if let Ok(Some(status)) = process.try_wait() {
                panic!("hithed ended with {status} before it was ready:\n{}", read(&log));
            }
            std::fs::read_to_string(&file).ok()
        })
        .await;
        self.ready = Ready::parse(&text);
    }

    /// Ends the server as a crash would and starts it again on the same addresses and state.
    pub async fn restart(&mut self) {
        self.kill();
        self.start_again().await;
    }

    /// Ends the server in order and starts it again.
    pub async fn restart_in_order(&mut self) {
        self.sigterm();
        let status = self.wait().await;
        assert!(status.success(), "the server ends with {status}");
        self.start_again().await;
    }

    /// Starts another server on the same addresses and state while this one, which was asked to end, finishes its visits.
    pub async fn start_beside(&mut self) {
        for address in [self.ssh_address(), self.http_address(), self.https_address()] {
            closed(address).await;
        }
        let older = self.replace_process().await;
        self.older.push(older);
    }

    /// Waits until those that [`Self::start_beside`] left behind have ended.
    pub async fn older_ones_ended(&mut self) {
        let older = &mut self.older;
        eventually("the older servers have ended", || {
            older.iter_mut().all(|it| it.try_wait().expect("a child").is_some()).then_some(())
        })
        .await;
    }

    /// Starts a server that has ended on the same addresses and state.
    pub async fn start_again(&mut self) {
        self.replace_process().await;
    }

    async fn replace_process(&mut self) -> Child {
        std::fs::remove_file(self.folder.path().join("ready.json")).expect("the ready file");
        let listen = |addresses: &[SocketAddr]| addresses.iter().map(SocketAddr::to_string).collect();
        self.options.ssh_listen = listen(&self.ready.ssh);
        self.options.http_listen = listen(&self.ready.http);
        self.options.https_listen = listen(&self.ready.https);
        let process = self.options.spawn(self.folder.path(), &self.ports.range());
        let older = std::mem::replace(&mut self.process, process);
        self.await_ready().await;
        older
    }

    /// The machine's `ssh` about to connect here; see [`OpenSsh`].
    pub fn ssh(&self) -> OpenSsh {
        OpenSsh::to(self.ssh_address(), self.user_key())
    }

    /// The agent about to connect here; see [`Agent`].
    pub fn agent(&self) -> Agent {
        Agent::to(self.ssh_address(), self.user_key(), self.folder())
    }

    /// Publishes `origin` with stock ssh, `-R 0:…`, and this command; waits until it is public.
    pub async fn publish(&self, origin: &Origin, command: &str) -> crate::Child {
        self.ssh().forward_to("0", origin).command(command).publish().await
    }

    /// A visitor of this server, who trusts the server's own CA.
    pub fn visitor(&self) -> Visitor {
        Visitor::of(self.http_address(), self.https_address()).trusting(&self.ca())
    }

    /// The address for publishers.
    pub fn ssh_address(&self) -> SocketAddr {
        *self.ready.ssh.first().expect("an ssh address in the ready file")
    }

    /// The address for visitors without TLS.
    pub fn http_address(&self) -> SocketAddr {
        *self.ready.http.first().expect("an http address in the ready file")
    }

    /// The address for visitors with TLS.
    pub fn https_address(&self) -> SocketAddr {
        *self.ready.https.first().expect("an https address in the ready file")
    }

    /// Where it says how it is, with `--health-listen`.
    pub fn health_address(&self) -> SocketAddr {
        *self.ready.health.first().expect("a health address in the ready file")
    }

    /// Every bound address: of ssh, http and https.
    pub fn addresses(&self) -> [&[SocketAddr]; 3] {
        [&self.ready.ssh, &self.ready.http, &self.ready.https]
    }

    /// The numbers that `tcp` endpoints get here; no other server of this machine's tests has them.
    pub fn tcp_ports(&self) -> RangeInclusive<u16> {
        self.ports.range()
    }

    /// The domain below which names are given.
    pub fn domain(&self) -> &str {
        &self.options.domain
    }

    /// The state directory.
    pub fn state_dir(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// A folder for what else a test needs; removed with the server.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The certificate of the CA that the server made for itself.
    pub fn ca(&self) -> PathBuf {
        self.state_dir().join("ca.pem")
    }

    /// The private key that may publish (OpenSSH format, ed25519, no passphrase).
    pub fn user_key(&self) -> PathBuf {
        self.folder.path().join("id")
    }

    /// A new key of this type (`ed25519`, `ecdsa`, `rsa`), not known to the server.
    pub fn another_key(&self, name: &str, kind: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        generate_key(&path, kind);
        path
    }

    /// Lets `key` publish too.
    pub fn authorize(&self, key: &Path) {
        authorize(self.folder.path(), key);
    }

    /// `hithed admin …` beside this server. Panics if it fails; gives what it prints.
    pub fn admin(&self, line: &str) -> String {
        let output = self.try_admin(line);
        assert!(output.status.success(), "hithed admin {line}: {output:?}");
        String::from_utf8(output.stdout).expect("text")
    }

    /// The same where it may fail.
    pub fn try_admin(&self, line: &str) -> Output {
        let words = shell_words::split(line).expect("a line that a shell would accept");
        let mut command = Command::new(self.options.server());
        command.env_remove("HITHED_CONFIG").arg("admin").args(words).args(["--domain", self.domain()]);
        command.arg("--state-dir").arg(self.state_dir()).output().expect("hithed runs")
    }

    /// `hithed health …`: its exit status and what it printed.
    pub fn health(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let mut command = Command::new(self.options.server());
        command.env("HITHED_HEALTH_LISTEN", self.health_address().to_string()).arg("health").args(arguments);
        let output = command.output().expect("hithed runs");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The public half of a key.
    pub fn public_half(key: &Path) -> String {
        std::fs::read_to_string(key.with_extension("pub")).expect("a public key").trim().to_owned()
    }

    /// A program that prints this, for [`OpenSsh::typing`].
    pub fn prompter(&self, secret: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt as _;

        let path = self.folder.path().join(format!("prompter-{}", secret.len()));
        std::fs::write(&path, format!("#!/bin/sh\nprintf '%s\\n' '{secret}'\n")).expect("a script");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).expect("its mode");
        path
    }

    /// The `authorized_keys` file.
    pub fn authorized_keys(&self) -> PathBuf {
        self.folder.path().join("authorized_keys")
    }

    /// The server's process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Resident memory in KiB, as the kernel counts it now.
    pub fn rss_kib(&self) -> u64 {
        self.status_number("VmRSS:")
    }

    /// The most resident memory in KiB that it ever had.
    pub fn peak_rss_kib(&self) -> u64 {
        self.status_number("VmHWM:")
    }

    /// How many threads it has.
    pub fn threads(&self) -> u64 {
        self.status_number("Threads:")
    }

    fn status_number(&self, what: &str) -> u64 {
        let status = read(Path::new(&format!("/proc/{}/status", self.pid())));
        let line = status.lines().find_map(|line| line.strip_prefix(what)).expect("a live server");
        line.trim().trim_end_matches(" kB").parse().expect("a number, maybe of KiB")
    }

    /// How many files, sockets and so on it has open.
    pub fn open_files(&self) -> usize {
        self.descriptors().count()
    }

    /// Bytes of the unlinked files in its spool directory.
    pub fn spooled(&self) -> u64 {
        self.spool_files().filter_map(|file| file.metadata().ok()).map(|file| file.len()).sum()
    }

    /// The unlinked files in its spool directory, as its descriptors name them.
    pub fn spool_files(&self) -> impl Iterator<Item = PathBuf> {
        let spool = self.state_dir().join("spool");
        self.descriptors().filter(move |file| file.read_link().is_ok_and(|to| to.starts_with(&spool)))
    }

    fn descriptors(&self) -> impl Iterator<Item = PathBuf> {
        let all = std::fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("a live server");
        all.flatten().map(|entry| entry.path())
    }

    /// CPU time used so far, all threads, in nanoseconds.
    pub fn cpu_nanoseconds(&self) -> u64 {
        cpu_nanoseconds(self.pid())
    }

    /// What the server logged so far.
    pub fn log(&self) -> String {
        read(&self.folder.path().join("log"))
    }

    /// Waits for a log line that contains `part`.
    pub async fn logged(&self, part: &str) -> String {
        eventually(&format!("the server logs {part:?}"), || {
            self.log().lines().find(|line| line.contains(part)).map(str::to_owned)
        })
        .await
    }

    /// Does something and waits for one more log line that contains `part` than there were before.
    pub async fn logged_after(&self, part: &str, change: impl FnOnce()) {
        let count = || self.log().matches(part).count();
        let before = count();
        change();
        eventually(&format!("the server logs {part:?} again"), || (count() > before).then_some(())).await;
    }

    /// SIGTERM: asks for an orderly end.
    pub fn sigterm(&self) {
        self.signal(Signal::TERM);
    }

    /// SIGHUP: asks to read again what can be.
    pub fn sighup(&self) {
        self.signal(Signal::HUP);
    }

    /// Waits for the process to end.
    pub async fn wait(&mut self) -> ExitStatus {
        let process = &mut self.process;
        eventually("the server ends", || process.try_wait().expect("a child can be waited for")).await
    }

    /// SIGKILL, as a crash.
    pub fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid().cast_signed()).expect("not zero");
        kill_process(pid, signal).expect("the server still runs");
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.kill();
        for older in &mut self.older {
            let _ = older.kill();
            let _ = older.wait();
        }
        if std::thread::panicking() {
            let _ = writeln!(std::io::stderr(), "--- log of hithed {}\n{}", self.pid(), self.log());
        }
    }
}

impl Ready {
    fn parse(text: &str) -> Self {
        let json: serde_json::Value = serde_json::from_str(text).expect("the ready file is JSON");
        let addresses = |key: &str| -> Vec<SocketAddr> {
            let list = json.get(key).and_then(|list| list.as_array());
            let text =
                list.into_iter().flatten().map(|address| address.as_str().expect("an address is a string"));
            text.map(|address| address.parse().expect("ADDRESS:PORT")).collect()
        };
        Self {
            ssh: addresses("ssh"),
            http: addresses("http"),
            https: addresses("https"),
            health: addresses("health"),
        }
    }
}

/// CPU time of all threads of a process, in nanoseconds.
pub fn cpu_nanoseconds(pid: u32) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("the threads of a live process");
    let spent = tasks.flatten().map(|task| read(&task.path().join("schedstat")));
    spent.filter_map(|line| line.split(' ').next()?.parse::<u64>().ok()).sum()
}

/// Makes a key pair without a passphrase at `path` and `path.pub`.
pub fn generate_key(path: &Path, kind: &str) {
    let made = Command::new("ssh-keygen")
        .args(["-q", "-N", "", "-C", "ada@laptop", "-t", kind, "-f"])
        .arg(path)
        .stdin(Stdio::null())
        .status();
    assert!(made.expect("ssh-keygen of openssh-client starts").success(), "ssh-keygen makes a key");
}

fn authorize(folder: &Path, key: &Path) {
    let mut list = File::options().create(true).append(true).open(folder.join("authorized_keys"));
    let line = std::fs::read(key.with_extension("pub")).expect("a public key");
    list.as_mut().expect("authorized_keys").write_all(&line).expect("authorized_keys takes a line");
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}
