//! hithed with its defaults, built from this tree.

use super::{Http2, Peer, Ports, Publisher, Server};
use crate::dev::bench::stage::{BULK, DOMAIN, Stage, WEB};
use crate::{TestServer, program};

pub(super) async fn start(stage: &Stage) -> anyhow::Result<Peer> {
    let program = program::try_hithed_release().map_err(anyhow::Error::msg)?;
    let certificates = stage.certificates();
    let server = TestServer::with(|options| {
        let options = options.program(program).domain(DOMAIN).arg("--certificates").arg(certificates);
        // This machine, but for the address from which `cargo dev siege` floods.
        options.arg("--visitor-exempt").arg("127.0.0.1/32")
    })
    .await;
    let targets = [(WEB, stage.web_port), (BULK, stage.bulk_port())];
    let forwards = targets
        .iter()
        .flat_map(|(name, upstream)| [80, 443].map(|port| format!("{name}:{port}:127.0.0.1:{upstream}")));
    let publisher = Publisher {
        address: server.ssh_address(),
        user: "http".to_owned(), // the command, for a connection without a session
        key: server.user_key(),
        forwards: forwards.collect(),
        idle: |number| format!("idle{number}:80"),
    };
    let http = server.http_address().port();
    Ok(Peer {
        tunnel: None,
        http,
        https: Some(server.https_address().port()),
        bulk: http,
        publisher: Some(publisher),
        http2: Http2::Same,
        servers: vec![Server::Hithed(Box::new(server))],
        _ports: Ports::reserve().block,
    })
}
