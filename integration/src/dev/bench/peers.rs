//! Whom hithed is compared with, and how each is set up for the same work: plain HTTP, HTTPS with the same
//! certificate where it ends TLS, and a stock ssh as the publisher.

mod hithed;
pub(super) mod nginx;
mod sandhole;
mod sshd;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::ValueEnum;
use tokio::time::{Instant, sleep};

use super::measure::probe;
use super::process::Process;
use super::stage::{BULK, Stage, WEB};
use super::usage::{Memory, cpu};
use crate::server::ports::PortBlock;
use crate::{Child, OpenSsh, TestServer};

/// Which peer. In the order of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(super) enum Kind {
    /// Hithe, built from this tree with --release
    Hithed,
    /// sandhole of SANDHOLE=PATH or of PATH
    Sandhole,
    /// OpenSSH's sshd with -R: TCP ports, no HTTP, no TLS
    Sshd,
    /// The same behind nginx, which ends TLS and speaks HTTP
    SshdNginx,
    /// nginx in front of the upstream, without a tunnel: the limit
    Nginx,
}

impl Kind {
    pub(super) const ALL: [Self; 5] =
        [Self::Hithed, Self::Sandhole, Self::Sshd, Self::SshdNginx, Self::Nginx];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Hithed => "hithed",
            Self::Sandhole => "sandhole",
            Self::Sshd => "sshd",
            Self::SshdNginx => "sshd + nginx",
            Self::Nginx => "nginx, no tunnel",
        }
    }

    /// Why it cannot be measured here.
    pub(super) fn missing(self) -> Option<&'static str> {
        let absent = match self {
            Self::Sandhole => sandhole::program().is_none(),
            Self::Sshd | Self::SshdNginx => sshd::program().is_none(),
            Self::Hithed | Self::Nginx => false,
        };
        absent.then_some(match self {
            Self::Sandhole => "not in PATH, nor named by SANDHOLE=PATH",
            _ => "no sshd (Debian: openssh-server)",
        })
    }

    /// A new server, with nothing published yet.
    pub(super) async fn start(self, stage: &Stage) -> anyhow::Result<Peer> {
        let started = match self {
            Self::Hithed => hithed::start(stage).await,
            Self::Sandhole => sandhole::start(stage).await,
            Self::Sshd => sshd::start(stage).await,
            Self::SshdNginx => sshd::start_behind_nginx(stage).await,
            Self::Nginx => nginx::start_alone(stage).await,
        };
        started.context("cannot start it")
    }

    /// What it says of its own version.
    pub(super) fn version(self) -> Option<String> {
        match self {
            Self::Hithed => super::facts::hithed(),
            Self::Sandhole => super::facts::first_line(&sandhole::program()?, "--version"),
            Self::Sshd | Self::SshdNginx | Self::Nginx => None, // listed with the tools
        }
    }
}

/// A running peer.
#[derive(Debug)]
pub(super) struct Peer {
    /// Dropped first: a server ends faster without its publisher.
    tunnel: Option<Child>,
    servers: Vec<Server>,
    pub(super) http: u16,
    pub(super) https: Option<u16>,
    /// Where the endpoint for bulk is; that of web where names tell them apart.
    pub(super) bulk: u16,
    pub(super) publisher: Option<Publisher>,
    pub(super) http2: Http2,
    _ports: PortBlock,
}

#[derive(Debug)]
enum Server {
    Process(Process),
    Hithed(Box<TestServer>),
    /// A client of a server that stands elsewhere.
    Client(Box<Child>),
}

/// How stock ssh publishes at a peer.
#[derive(Clone, Debug)]
pub(super) struct Publisher {
    address: SocketAddr,
    user: String,
    key: PathBuf,
    /// The arguments of `-R` for web and bulk.
    forwards: Vec<String>,
    /// The address to bind for one more tunnel, of which there are many.
    idle: fn(usize) -> String,
}

/// Whether HTTP/2 can be measured.
#[derive(Clone, Debug)]
pub(super) enum Http2 {
    /// At the same endpoint.
    Same,
    /// At an endpoint of its own, published with this `-R` and command.
    Own {
        host: &'static str,
        forward: String,
        command: &'static str,
    },
    None,
}

impl Peer {
    /// A publisher under measure, at a server whose HTTP port this is.
    pub(super) fn of_client(client: Child, http: u16) -> Self {
        Self {
            tunnel: None,
            servers: vec![Server::Client(Box::new(client))],
            http,
            https: None,
            bulk: http,
            publisher: None,
            http2: Http2::None,
            _ports: PortBlock::reserve(),
        }
    }

    /// Of the server: its processes and theirs.
    pub(super) fn cpu(&self) -> Duration {
        cpu(&self.roots())
    }

    pub(super) fn memory(&self) -> anyhow::Result<Memory> {
        Memory::of(&self.roots()).context("its memory cannot be read by this user")
    }

    fn roots(&self) -> Vec<u32> {
        let pid = |server: &Server| match server {
            Server::Process(process) => process.pid(),
            Server::Hithed(server) => server.pid(),
            Server::Client(client) => client.pid(),
        };
        self.servers.iter().map(pid).collect()
    }

    /// Starts the publisher, if there is a tunnel, and waits until visitors are answered. Says how long the
    /// first answer took.
    pub(super) async fn publish(&mut self) -> anyhow::Result<Duration> {
        let start = Instant::now();
        if let Some(publisher) = &self.publisher {
            self.tunnel = Some(publisher.publish());
        }
        self.answers(self.http, WEB).await?;
        let took = start.elapsed();
        self.answers(self.bulk, BULK).await?;
        Ok(took)
    }

    async fn answers(&mut self, port: u16, host: &str) -> anyhow::Result<()> {
        let deadline = Instant::now() + PUBLISH;
        while !probe::answers(port, host).await {
            if self.tunnel.as_mut().is_some_and(|tunnel| !tunnel.is_running()) {
                let said = self.tunnel.take().map(|tunnel| tunnel.stderr()).unwrap_or_default();
                bail!("ssh ended: {}", said.trim());
            }
            ensure!(Instant::now() < deadline, "{host} did not answer within {PUBLISH:?}");
            sleep(probe::LOOK).await;
        }
        Ok(())
    }

    /// Ends the publisher and waits until visitors are told so.
    pub(super) async fn withdraw(&mut self) -> anyhow::Result<()> {
        if let Some(mut tunnel) = self.tunnel.take() {
            tunnel.kill().await;
        }
        let deadline = Instant::now() + PUBLISH;
        while probe::answers(self.http, WEB).await {
            ensure!(Instant::now() < deadline, "visitors are answered although the publisher has left");
            sleep(probe::LOOK).await;
        }
        Ok(())
    }
}

impl Publisher {
    /// Publishes web and bulk.
    pub(super) fn publish(&self) -> Child {
        let ssh = self.forwards.iter().fold(self.ssh(), |ssh, forward| ssh.forward(forward));
        ssh.without_session().spawn()
    }

    /// Publishes one more tunnel; ssh says on standard error when it stands.
    pub(super) fn publish_idle(&self, number: usize, upstream: u16) -> Child {
        let forward = format!("{}:127.0.0.1:{upstream}", (self.idle)(number));
        self.ssh().forward(forward).flag("-v").without_session().spawn()
    }

    /// Publishes with a session and this command.
    pub(super) fn publish_with(&self, forward: &str, command: &str) -> Child {
        self.ssh().forward(forward).command(command).spawn()
    }

    fn ssh(&self) -> OpenSsh {
        OpenSsh::to(self.address, &self.key).user(&self.user).exit_on_forward_failure().stdin_null()
    }
}

/// The ports of one peer, one after the other.
struct Ports {
    block: PortBlock,
    next: std::ops::RangeInclusive<u16>,
}

impl Ports {
    fn reserve() -> Self {
        let block = PortBlock::reserve();
        let next = block.range();
        Self { block, next }
    }

    fn next(&mut self) -> anyhow::Result<u16> {
        self.next.next().context("a peer needs more ports than it has")
    }
}

/// How long a publisher may take until visitors are answered.
const PUBLISH: Duration = Duration::from_secs(10);
