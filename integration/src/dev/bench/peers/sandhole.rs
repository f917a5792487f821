//! sandhole as quiet as it can be: without its log line for each request, which costs it a fifth.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;

use super::{Http2, Peer, Ports, Publisher, Server};
use crate::dev::bench::find_program;
use crate::dev::bench::process::Process;
use crate::dev::bench::stage::{BULK, DOMAIN, Stage, WEB};

/// Its full path, since it is started in a folder of its own.
pub(super) fn program() -> Option<PathBuf> {
    let named = std::env::var_os("SANDHOLE").map(PathBuf::from);
    let program = named.filter(|path| path.is_file()).or_else(|| find_program("sandhole"))?;
    program.canonicalize().ok()
}

pub(super) async fn start(stage: &Stage) -> anyhow::Result<Peer> {
    let folder = stage.folder_for("sandhole")?;
    let keys = folder.join("user_keys");
    for name in ["user_keys", "admin_keys", "server_keys", "acme"] {
        std::fs::create_dir(folder.join(name)).context("cannot make a folder")?;
    }
    std::fs::copy(stage.file("id.pub"), keys.join("bench.pub")).context("cannot copy a key")?;
    let mut ports = Ports::reserve();
    let (ssh, http, https) = (ports.next()?, ports.next()?, ports.next()?);
    let mut command = Command::new(program().context("no sandhole")?);
    command.current_dir(&folder).env("RUST_LOG", "warn").args(["--domain", DOMAIN]);
    command.args(["--listen-address", "127.0.0.1", "--allow-requested-subdomains"]);
    command.args(["--bind-hostnames", "none", "--disable-http-logs", "--disable-tcp-logs"]);
    command.args(["--max-simultaneous-connections-per-ip", "65535"]);
    for (flag, port) in [("--ssh-port", ssh), ("--http-port", http), ("--https-port", https)] {
        command.arg(flag).arg(port.to_string());
    }
    let folders = [
        ("--user-keys-directory", keys),
        ("--admin-keys-directory", folder.join("admin_keys")),
        ("--certificates-directory", stage.certificates()),
        ("--acme-cache-directory", folder.join("acme")),
        ("--private-key-file", folder.join("server_keys/ssh")),
    ];
    for (flag, path) in folders {
        command.arg(flag).arg(path);
    }
    let mut server = Process::start(&mut command, &folder.join("log"))?;
    for port in [ssh, https] {
        server.listening(port).await?;
    }
    Ok(peer(stage, ports, server, [ssh, http, https]))
}

fn peer(stage: &Stage, ports: Ports, server: Process, [ssh, http, https]: [u16; 3]) -> Peer {
    let targets = [(WEB, stage.web_port), (BULK, stage.bulk_port())];
    let forward = |name: &str, upstream: u16| {
        let label = name.split('.').next().unwrap_or(name);
        format!("{label}:80:127.0.0.1:{upstream}")
    };
    let publisher = Publisher {
        address: ([127, 0, 0, 1], ssh).into(),
        user: "bench".to_owned(),
        key: stage.key(),
        forwards: targets.iter().map(|(name, upstream)| forward(name, *upstream)).collect(),
        idle: |number| format!("idle{number}:80"),
    };
    // It speaks HTTP/2 to visitors only if the upstream does too.
    let http2 = stage.h2c_port.map_or(Http2::None, |upstream| Http2::Own {
        host: "h2.tunnel.test",
        forward: forward("h2", upstream),
        command: "http2",
    });
    Peer {
        tunnel: None,
        http,
        https: Some(https),
        bulk: http,
        publisher: Some(publisher),
        http2,
        servers: vec![Server::Process(server)],
        _ports: ports.block,
    }
}
