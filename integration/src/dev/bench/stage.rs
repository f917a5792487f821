//! What all peers of a run share: a folder, a key, a certificate, and the upstreams behind their tunnels.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::process::Process;
use super::{find_program, peers};
use crate::Origin;
use crate::server::generate_key;
use crate::server::ports::PortBlock;

pub(super) const DOMAIN: &str = "tunnel.test";
/// What answers with 1 KiB.
pub(super) const WEB: &str = "web.tunnel.test";
/// What sends and takes without end.
pub(super) const BULK: &str = "bulk.tunnel.test";

/// Stands for the whole run.
#[derive(Debug)]
pub(super) struct Stage {
    folder: TempDir,
    _web: Process,
    _h2c: Option<Process>,
    pub(super) web_port: u16,
    pub(super) h2c_port: Option<u16>,
    bulk: Origin,
    received: Arc<AtomicU64>,
    _ports: PortBlock,
}

impl Stage {
    pub(super) async fn set_up() -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("hithe-bench-").tempdir().context("no folder")?;
        open_to_all(folder.path())?;
        generate_key(&folder.path().join("id"), "ed25519");
        generate_key(&folder.path().join("host"), "ed25519");
        write_certificate(&folder.path().join("certificates").join(DOMAIN))?;
        let ports = PortBlock::reserve();
        let (web_port, h2c_port) = (*ports.range().start(), ports.range().start() + 1);
        let web = web(folder.path(), web_port).await.context("nginx as the upstream")?;
        let h2c = h2c(folder.path(), h2c_port, web_port).await.context("haproxy as an upstream")?;
        let h2c_port = h2c.is_some().then_some(h2c_port);
        let received = Arc::<AtomicU64>::default();
        let bulk = bulk(Arc::clone(&received)).await;
        Ok(Self { folder, _web: web, _h2c: h2c, web_port, h2c_port, bulk, received, _ports: ports })
    }

    pub(super) fn bulk_port(&self) -> u16 {
        self.bulk.port()
    }

    /// Bytes of uploads that came through so far.
    pub(super) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// A new empty folder for one server.
    pub(super) fn folder_for(&self, peer: &str) -> anyhow::Result<PathBuf> {
        let folder = tempfile::Builder::new().prefix(peer).tempdir_in(&self.folder).context("no folder")?;
        open_to_all(folder.path())?;
        Ok(folder.keep()) // it goes with the folder of the stage
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The key that may publish.
    pub(super) fn key(&self) -> PathBuf {
        self.file("id")
    }

    /// A folder with one folder for the domain, in which are `fullchain.pem` and `privkey.pem`.
    pub(super) fn certificates(&self) -> PathBuf {
        self.file("certificates")
    }
}

/// The unprivileged processes of sshd and nginx look into it; private keys in it are closed by themselves.
fn open_to_all(folder: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).context("cannot open a folder")
}

/// A CA of P-256 and a certificate of it for the domain and all names below.
fn write_certificate(folder: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder).context("cannot make a folder")?;
    let mut authority = CertificateParams::new(Vec::<String>::new())?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let names = vec![DOMAIN.to_owned(), format!("*.{DOMAIN}")];
    let certificate = CertificateParams::new(names)?.signed_by(&key, &authority)?;
    let chain = certificate.pem() + &authority.pem();
    std::fs::write(folder.join("fullchain.pem"), chain).context("cannot write a certificate")?;
    write_private(&folder.join("privkey.pem"), &key.serialize_pem())
}

fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let file = std::fs::File::options().create(true).write(true).truncate(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).context("cannot write a key")
}

/// One worker, which needs least of what the machine has.
async fn web(folder: &Path, port: u16) -> anyhow::Result<Process> {
    let folder = folder.join("web");
    std::fs::create_dir(&folder).context("cannot make a folder")?;
    let body = "x".repeat(1024);
    let server = format!("server {{ listen 127.0.0.1:{port} backlog=4096; return 200 '{body}'; }}");
    let mut nginx = peers::nginx::start(&folder, "1", &server)?;
    nginx.listening(port).await?;
    Ok(nginx)
}

/// HTTP/2 without TLS in front of the same upstream, for a peer that takes HTTP/2 only to such.
///
/// haproxy, since nginx waits 40 ms for an acknowledgement here where a connection carries one stream.
async fn h2c(folder: &Path, port: u16, web: u16) -> anyhow::Result<Option<Process>> {
    let Some(program) = find_program("haproxy") else { return Ok(None) };
    let file = folder.join("haproxy.cfg");
    let text = format!(
        "global\n maxconn 4000\n nbthread 1\n\
         defaults\n mode http\n timeout connect 5s\n timeout client 300s\n timeout server 300s\n\
         frontend f\n bind 127.0.0.1:{port} proto h2\n default_backend b\n\
         backend b\n http-reuse always\n server s 127.0.0.1:{web}\n"
    );
    std::fs::write(&file, text).context("cannot write a configuration")?;
    let mut command = Command::new(program);
    command.arg("-db").arg("-f").arg(&file);
    let mut haproxy = Process::start(&mut command, &folder.join("haproxy.log"))?;
    haproxy.listening(port).await?;
    Ok(Some(haproxy))
}

/// Answers a GET with bytes without end, and takes any other request's body and counts it.
async fn bulk(received: Arc<AtomicU64>) -> Origin {
    Origin::serving(move |stream, _| {
        let received = Arc::clone(&received);
        async move {
            let _ = serve_bulk(stream, &received).await; // a peer that leaves is how each of these ends
        }
    })
    .await
}

async fn serve_bulk(mut stream: TcpStream, received: &AtomicU64) -> std::io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    let count = stream.read(&mut buffer).await?;
    if buffer.get(..count).is_some_and(|head| head.starts_with(b"GET")) {
        stream.write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {ENDLESS}\r\n\r\n").as_bytes()).await?;
        loop {
            stream.write_all(&buffer).await?;
        }
    }
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok(()),
            count => received.fetch_add(count as u64, Ordering::Relaxed),
        };
    }
}

/// A length that no measure gets to the end of.
pub(super) const ENDLESS: u64 = 1 << 44;
/// What bulk is read and written in.
pub(super) const CHUNK: usize = 256 * 1024;
