//! The sample service of the demo: one page that shows what came through.

use std::convert::Infallible;
use std::net::Ipv4Addr;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use http::{Request, Response, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

pub(super) struct Upstream {
    listener: TcpListener,
    port: u16,
}

impl Upstream {
    pub(super) async fn bind() -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        Ok(Self { listener, port })
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Serves until it is dropped.
    pub(super) async fn serve(&self) {
        let mut connections = FuturesUnordered::new();
        loop {
            tokio::select! {
                accepted = self.listener.accept() => {
                    let Ok((socket, _)) = accepted else { continue };
                    let serving = http1::Builder::new().serve_connection(TokioIo::new(socket), service_fn(answer));
                    connections.push(serving);
                }
                Some(_ended) = connections.next() => {}
            }
        }
    }
}

/// The first line of the page, by which the demo knows the answer is its own.
pub(super) const GREETING: &str = "Hello from behind an ssh connection!";

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut page = format!("{GREETING}\n\n{} {}\n", request.method(), request.uri());
    for (name, value) in request.headers() {
        let value = String::from_utf8_lossy(value.as_bytes());
        page.push_str(&format!("{name}: {value}\n"));
    }
    let mut response = Response::new(Full::from(page));
    let plain = header::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    Ok(response)
}
