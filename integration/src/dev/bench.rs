//! `cargo dev bench`: one upstream through Hithe and through the machine's sshd in the same run. Machines are
//! noisy, so what counts are the ratios, and CPU for the work rather than time.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context;
use tokio::time::Instant;

use super::say;
use crate::server::{cpu_nanoseconds, generate_key};
use crate::wait::eventually;
use crate::{OpenSsh, Origin, TestServer, Visitor, program};

const CONNECTIONS: usize = 16;
const SSHD: &str = "/usr/sbin/sshd";

/// What one peer did.
#[derive(Clone, Copy, Debug)]
struct Figures {
    per_second: f64,
    cpu_ms_per_10k: f64,
}

pub(super) fn run(seconds: u64) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
    runtime.block_on(compare(Duration::from_secs(seconds)));
    Ok(())
}

async fn compare(length: Duration) {
    let origin = Origin::replying(&"x".repeat(1024)).await;
    say(&format!("GET of 1 KiB, {CONNECTIONS} connections, {length:?} each; the server's CPU only"));
    let hithe = measure_hithe(&origin, length).await;
    show("hithed", hithe, None);
    if Path::new(SSHD).exists() {
        let sshd = measure_sshd(&origin, length).await;
        show("sshd", sshd, Some(hithe));
    } else {
        say(&format!("sshd    no {SSHD} to compare with (Debian: openssh-server)"));
    }
}

fn show(peer: &str, figures: Figures, hithe: Option<Figures>) {
    let ratio = hithe.map(|hithe| {
        let rate = hithe.per_second / figures.per_second;
        let cpu = hithe.cpu_ms_per_10k / figures.cpu_ms_per_10k;
        format!("   hithed/{peer}: {rate:.2}x the requests, {cpu:.2}x the CPU")
    });
    let Figures { per_second, cpu_ms_per_10k } = figures;
    let ratio = ratio.unwrap_or_default();
    say(&format!(
        "{peer:<7} {per_second:>8.0} requests/s {cpu_ms_per_10k:>8.0} ms CPU per 10k requests{ratio}"
    ));
}

async fn measure_hithe(origin: &Origin, length: Duration) -> Figures {
    let server = TestServer::with(|options| options.program(program::hithed_release())).await;
    let mut ssh = server.ssh().forward_to("80", origin).command("http").publish().await;
    let url = ssh.url().await;
    load(&server.visitor(), &url, length, || server.cpu_nanoseconds()).await
}

async fn measure_sshd(origin: &Origin, length: Duration) -> Figures {
    let sshd = Sshd::start().await;
    let port = free_port();
    let spec = format!("{port}:127.0.0.1:{}", origin.port());
    let user = std::env::var("USER").unwrap_or_else(|_| "root".to_owned());
    let ssh = OpenSsh::to(sshd.address, sshd.folder.path().join("id")).user(&user).forward(spec);
    let _ssh = ssh.without_session().spawn();
    let public = SocketAddr::from(([127, 0, 0, 1], port));
    eventually("sshd listens for the forward", || std::net::TcpStream::connect(public).ok()).await;
    load(&Visitor::of(public, public), &format!("http://localhost:{port}/"), length, || {
        sshd.cpu_nanoseconds()
    })
    .await
}

/// Asks as fast as the answers come, on kept connections.
async fn load(visitor: &Visitor, url: &str, length: Duration, cpu: impl Fn() -> u64) -> Figures {
    visitor.get(url).await;
    let (before, start) = (cpu(), Instant::now());
    let workers: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            let (visitor, url) = (visitor.clone(), url.to_owned());
            tokio::spawn(async move {
                let mut connection = visitor.connection(&url).await;
                let mut count = 0_u32;
                while start.elapsed() < length {
                    let reply = connection.get(&url).await;
                    assert_eq!(reply.status(), 200, "the upstream answers through the tunnel");
                    count += 1;
                }
                count
            })
        })
        .collect();
    let mut count = 0;
    for worker in workers {
        count += worker.await.expect("a worker");
    }
    let (spent, took) = (cpu() - before, start.elapsed());
    let count = f64::from(count);
    let milliseconds = Duration::from_nanos(spent).as_secs_f64() * 1000.0;
    Figures { per_second: count / took.as_secs_f64(), cpu_ms_per_10k: milliseconds / count * 10_000.0 }
}

/// The machine's sshd on a free port, for one key.
struct Sshd {
    process: Child,
    address: SocketAddr,
    folder: tempfile::TempDir,
}

impl Sshd {
    async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let at = |name: &str| folder.path().join(name);
        generate_key(&at("host"), "ed25519");
        generate_key(&at("id"), "ed25519");
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let options = [
            format!("ListenAddress={address}"),
            format!("HostKey={}", at("host").display()),
            format!("AuthorizedKeysFile={}", at("id.pub").display()),
            "StrictModes=no".to_owned(),
            "UsePAM=no".to_owned(),
            "PidFile=none".to_owned(),
        ];
        let _ = std::fs::create_dir_all("/run/sshd"); // sshd of a machine that never ran it misses this
        let process = Command::new(SSHD)
            .args(["-D", "-f", "/dev/null"])
            .args(options.iter().flat_map(|option| ["-o", option.as_str()]))
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("sshd starts");
        eventually("sshd listens", || std::net::TcpStream::connect(address).ok()).await;
        Self { process, address, folder }
    }

    /// Of the listener and of every process below it.
    fn cpu_nanoseconds(&self) -> u64 {
        let mut family = vec![self.process.id()];
        let mut at = 0;
        while let Some(pid) = family.get(at) {
            let children =
                std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
            family.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
            at += 1;
        }
        family.into_iter().map(cpu_nanoseconds).sum()
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A port that was free a moment ago, for programs that cannot say which one they got.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("a bound address").port()
}
