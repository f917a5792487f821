//! OpenSSH's sshd, alone or with nginx in front of its forwarded ports.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;

use super::{Http2, Peer, Ports, Publisher, Server, nginx};
use crate::dev::bench::find_program;
use crate::dev::bench::process::Process;
use crate::dev::bench::stage::Stage;

/// It wants to be started by its full path.
pub(super) fn program() -> Option<PathBuf> {
    find_program("sshd")
}

pub(super) async fn start(stage: &Stage) -> anyhow::Result<Peer> {
    let mut ports = Ports::reserve();
    let (server, publisher, [web, bulk]) = listen(stage, &mut ports).await?;
    Ok(Peer {
        tunnel: None,
        http: web,
        https: None,
        bulk,
        publisher: Some(publisher),
        http2: Http2::None,
        servers: vec![Server::Process(server)],
        _ports: ports.block,
    })
}

/// What people build by hand; CPU and memory are those of both programs.
pub(super) async fn start_behind_nginx(stage: &Stage) -> anyhow::Result<Peer> {
    let mut ports = Ports::reserve();
    let (server, publisher, upstreams) = listen(stage, &mut ports).await?;
    let public @ [http, https] = [ports.next()?, ports.next()?];
    let proxy = nginx::proxy(stage, public, upstreams).await?;
    Ok(Peer {
        tunnel: None,
        http,
        https: Some(https),
        bulk: http,
        publisher: Some(publisher),
        http2: Http2::Same,
        servers: vec![Server::Process(server), Server::Process(proxy)],
        _ports: ports.block,
    })
}

async fn listen(stage: &Stage, ports: &mut Ports) -> anyhow::Result<(Process, Publisher, [u16; 2])> {
    let ssh = ports.next()?;
    let options = [
        format!("ListenAddress=127.0.0.1:{ssh}"),
        format!("HostKey={}", stage.file("host").display()),
        format!("AuthorizedKeysFile={}", stage.file("id.pub").display()),
    ];
    let fixed = [
        "StrictModes=no",
        "UsePAM=no",
        "PidFile=none",
        "UseDNS=no",
        "MaxStartups=1000",
        "AllowTcpForwarding=remote",
        "LogLevel=ERROR",
    ];
    let _ = std::fs::create_dir_all("/run/sshd"); // sshd of a machine that never ran it misses this
    let mut command = Command::new(program().context("no sshd")?);
    command.args(["-D", "-e", "-f", "/dev/null"]);
    command.args(options.iter().map(String::as_str).chain(fixed).flat_map(|option| ["-o", option]));
    let mut server = Process::start(&mut command, &stage.folder_for("sshd")?.join("log"))?;
    server.listening(ssh).await?;
    let public @ [web, bulk] = [ports.next()?, ports.next()?];
    let forward = |port: u16, upstream: u16| format!("127.0.0.1:{port}:127.0.0.1:{upstream}");
    let publisher = Publisher {
        address: ([127, 0, 0, 1], ssh).into(),
        user: user()?,
        key: stage.key(),
        forwards: vec![forward(web, stage.web_port), forward(bulk, stage.bulk_port())],
        idle: |_| "127.0.0.1:0".to_owned(),
    };
    Ok((server, publisher, public))
}

/// Only root may let others in, and then `nobody` is nearer to how sshd is used: with a privileged monitor and
/// an unprivileged child for each publisher.
fn user() -> anyhow::Result<String> {
    if rustix::process::geteuid().is_root() {
        return Ok("nobody".to_owned());
    }
    let output = Command::new("id").arg("-un").output().context("cannot start id")?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
