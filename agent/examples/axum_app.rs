//! An axum application that is public without a port of its own.
//!
//! `cargo run -p hithe --example axum_app -- tunnel.example.com`

use std::net::SocketAddr;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::routing::get;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = std::env::args().nth(1).ok_or("say the server: axum_app tunnel.example.com")?;
    let session = hithe::Session::builder().server(server).ask(hithe::Terminal).build()?;
    let listener = session.http().listen().await?;
    #[expect(clippy::print_stdout, reason = "an example that people run")]
    {
        println!("{}", listener.url());
    }
    let app = Router::new().route("/", get(greet));
    axum::serve(listener, app.into_make_service_with_connect_info::<Visitor>()).await?;
    Ok(())
}

/// Where a visitor comes from, as the server says.
#[derive(Clone, Copy, Debug)]
struct Visitor(SocketAddr);

impl axum::extract::connect_info::Connected<axum::serve::IncomingStream<'_, hithe::Listener>> for Visitor {
    fn connect_info(stream: axum::serve::IncomingStream<'_, hithe::Listener>) -> Self {
        Self(*stream.remote_addr())
    }
}

async fn greet(ConnectInfo(Visitor(address)): ConnectInfo<Visitor>) -> String {
    format!("Hello, {}!\n", address.ip())
}
