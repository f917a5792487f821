//! nginx: as the upstream, as the proxy in front of sshd, and alone as the limit of what a proxy can do.

use std::path::Path;
use std::process::Command;

use anyhow::Context;

use super::{Http2, Peer, Ports, Server};
use crate::dev::bench::process::Process;
use crate::dev::bench::stage::{BULK, DOMAIN, Stage, WEB};

/// Runs with these servers and keeps its things in `folder`.
pub(in crate::dev::bench) fn start(folder: &Path, workers: &str, servers: &str) -> anyhow::Result<Process> {
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!(" {kind}_temp_path {}/{kind};\n", folder.display()))
        .concat();
    let configuration = format!(
        "daemon off; worker_processes {workers}; pid {}/pid; error_log stderr warn;\n\
         worker_rlimit_nofile 8192; events {{ worker_connections 4096; }}\n\
         http {{\n access_log off; tcp_nodelay on; keepalive_timeout 300; keepalive_requests 100000000;\n \
         default_type application/octet-stream;\n{temporary}{servers}\n}}\n",
        folder.display()
    );
    let file = folder.join("nginx.conf");
    std::fs::write(&file, configuration).context("cannot write a configuration")?;
    let program = crate::dev::bench::find_program("nginx").context("no nginx (Debian: nginx)")?;
    let mut command = Command::new(program);
    command.arg("-c").arg(&file).args(["-e", "stderr"]);
    Process::start(&mut command, &folder.join("log"))
}

/// Ends TLS at the second of the public ports, takes HTTP/1 and HTTP/2, and passes on what is for web and for
/// bulk, on kept connections.
pub(super) async fn proxy(
    stage: &Stage,
    [http, https]: [u16; 2],
    [web, bulk]: [u16; 2],
) -> anyhow::Result<Process> {
    let certificates = stage.certificates().join(DOMAIN);
    let certificates = certificates.display();
    let upstream = |name: &str, port: u16| {
        format!(
            " upstream {name} {{ server 127.0.0.1:{port}; keepalive 128; keepalive_requests 100000000; }}\n \
             server {{ listen 127.0.0.1:{http}; listen 127.0.0.1:{https} ssl http2; server_name {name};\n  \
             location / {{ proxy_pass http://{name}; }} }}\n"
        )
    };
    let servers = format!(
        " client_max_body_size 0; proxy_http_version 1.1; proxy_request_buffering off;\n \
         proxy_max_temp_file_size 0; proxy_set_header Connection ''; proxy_set_header Host $host;\n \
         ssl_certificate {certificates}/fullchain.pem; ssl_certificate_key {certificates}/privkey.pem;\n \
         ssl_session_cache shared:s:10m; ssl_protocols TLSv1.2 TLSv1.3;\n{}{}",
        upstream(WEB, web),
        upstream(BULK, bulk)
    );
    let mut nginx = start(&stage.folder_for("nginx")?, "auto", &servers)?;
    nginx.listening(https).await?;
    Ok(nginx)
}

pub(super) async fn start_alone(stage: &Stage) -> anyhow::Result<Peer> {
    let mut ports = Ports::reserve();
    let public @ [http, https] = [ports.next()?, ports.next()?];
    let nginx = proxy(stage, public, [stage.web_port, stage.bulk_port()]).await?;
    Ok(Peer {
        tunnel: None,
        http,
        https: Some(https),
        bulk: http,
        publisher: None,
        http2: Http2::Same,
        servers: vec![Server::Process(nginx)],
        _ports: ports.block,
    })
}
