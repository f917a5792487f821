//! Networks of a test's own, with cables that can be pulled: the kernel of either end is told nothing but that its link
//! is down, there is no FIN and no RST, and what is sent is lost.
//!
//! The whole test runs again as a child in a network namespace, where it may do what otherwise only root may. Linux
//! makes one for root, and for everybody where users may have namespaces (`unshare --user`).

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::net::{TcpStream, UnixListener};
use tokio::task::JoinHandle;

use crate::Origin;
use crate::wait::eventually;

/// Says that this process is the child, and in a network of its own.
const INSIDE: &str = "HITHE_TEST_NETWORK";
/// Debian keeps it out of the PATH of users.
const IP: &str = "/usr/sbin/ip";
/// How long a test may take in there.
const LONGEST: Duration = Duration::from_secs(600);

/// Where the server stands: a network without anything but what the test puts into it.
#[derive(Debug)]
pub struct Site {
    hosts: u8,
}

/// A machine at the other end of a cable to the site.
#[derive(Debug)]
pub struct Host {
    number: u8,
    /// Keeps the namespace.
    keeper: Child,
}

/// An upstream that programs on every [`Host`] reach, as a socket in the file system, which all networks share.
#[derive(Debug)]
pub struct Door(JoinHandle<()>);

impl Site {
    /// Runs the calling test again in a network of its own and waits for it; gives the site there, and `None` in the
    /// process that waited, which has nothing more to do.
    ///
    /// On a machine that has no namespaces for us it says why and does nothing, except where `CI` is set: there the
    /// test has failed.
    pub async fn enter() -> Option<Self> {
        if std::env::var_os(INSIDE).is_some() {
            ip(&["link", "set", "lo", "up"]);
            return Some(Self { hosts: 0 });
        }
        match namespace() {
            Ok(unshare) => again(&unshare).await,
            Err(why) if std::env::var_os("CI").is_some_and(|set| !set.is_empty()) => {
                panic!("this test needs network namespaces, and CI has to have them: {why}")
            }
            Err(why) => crate::dev::tell(&format!("not tested: no network namespaces here: {why}")),
        }
        None
    }

    /// One more machine, with its cable plugged in.
    pub async fn host(&mut self) -> Host {
        self.hosts += 1;
        let mut keep = Command::new("unshare");
        keep.args(["--net", "sleep", "infinity"]).stdin(Stdio::null());
        let host = Host { number: self.hosts, keeper: keep.spawn().expect("unshare of util-linux starts") };
        let network = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/net")).ok();
        let keeper = host.keeper.id().to_string();
        eventually("a network for a host", || {
            network(&keeper).filter(|own| Some(own) != network("self").as_ref())
        })
        .await;
        let (near, far) = (format!("near{}", host.number), "far");
        ip(&["link", "add", &near, "type", "veth", "peer", "name", far, "netns", &keeper]);
        ip(&["address", "add", &format!("{}/24", host.site_address()), "dev", &near]);
        ip(&["link", "set", &near, "up"]);
        host.ip(&["link", "set", "lo", "up"]);
        host.ip(&["address", "add", &format!("{}/24", host.address(2)), "dev", far]);
        host.plug_in();
        host
    }
}

impl Host {
    /// The site as this host sees it.
    pub fn site_address(&self) -> IpAddr {
        self.address(1)
    }

    /// Takes the link down at this end: the other one sees that there is no carrier, and nothing else.
    pub fn pull_cable(&self) {
        self.ip(&["link", "set", "far", "down"]);
    }

    /// Puts it back.
    pub fn plug_in(&self) {
        self.ip(&["link", "set", "far", "up"]);
    }

    /// What runs a program on this host, as its first words.
    pub fn launcher(&self) -> Vec<String> {
        ["nsenter", "--net", "--target", &self.keeper.id().to_string()].map(str::to_owned).to_vec()
    }

    fn address(&self, last: u8) -> IpAddr {
        Ipv4Addr::new(10, 77, self.number, last).into()
    }

    fn ip(&self, arguments: &[&str]) {
        let words = self.launcher();
        succeed(Command::new("nsenter").args(words.iter().skip(1)).arg(IP).args(arguments));
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}

impl Door {
    /// Passes what comes to the socket at `path` on to this upstream.
    pub fn to(origin: &Origin, path: &Path) -> Self {
        let listener = UnixListener::bind(path).expect("a socket in a temporary folder");
        let address = origin.address();
        Self(tokio::spawn(async move {
            while let Ok((mut outside, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let Ok(mut inside) = TcpStream::connect(address).await else { return };
                    let _ = tokio::io::copy_bidirectional(&mut outside, &mut inside).await;
                });
            }
        }))
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// How this machine makes namespaces for us, or why it does not.
fn namespace() -> Result<Vec<&'static str>, String> {
    let mut refusals = Vec::new();
    for words in [&["--user", "--map-root-user", "--net"][..], &["--net"][..]] {
        let mut probe = Command::new("unshare");
        // A cable is what counts, not the network alone.
        probe.args(words).args([IP, "link", "add", "near", "type", "veth", "peer", "name", "far"]);
        match probe.stdin(Stdio::null()).output() {
            Ok(output) if output.status.success() => return Ok(words.to_vec()),
            Ok(output) => refusals.push(format!(
                "unshare {}: {}",
                words.join(" "),
                String::from_utf8_lossy(&output.stderr).trim()
            )),
            Err(error) => refusals.push(format!("unshare: {error}")),
        }
    }
    Err(refusals.join("; "))
}

/// The running test, found by the name that its thread has.
async fn again(unshare: &[&str]) {
    crate::program::hithed(); // so that nothing has to be built in there
    let name = std::thread::current().name().expect("a test runs in a thread of its name").to_owned();
    let program = std::env::current_exe().expect("the path of this program");
    let mut command = tokio::process::Command::new("unshare");
    command.args(unshare).arg(program).args([&name, "--exact", "--include-ignored", "--nocapture"]);
    command.env(INSIDE, "1").stdin(Stdio::null()).kill_on_drop(true);
    let ran = tokio::time::timeout(LONGEST, command.output()).await;
    let output = ran.expect("a test in a network of its own ends").expect("unshare starts");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{name} in a network of its own: {}\n{stdout}\n{stderr}", output.status);
    assert!(stdout.contains("1 passed"), "{name} was not found:\n{stdout}");
    crate::dev::tell(&stderr);
}

fn ip(arguments: &[&str]) {
    succeed(Command::new(IP).args(arguments));
}

fn succeed(command: &mut Command) {
    let output =
        command.stdin(Stdio::null()).output().expect("ip of iproute2 and nsenter of util-linux start");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
