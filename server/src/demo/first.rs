//! The demo's first request, made as a visitor would.

use std::net::Ipv4Addr;

use anyhow::Context as _;
use bytes::Bytes;
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::upstream::GREETING;

pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) first_line: String,
}

impl Answer {
    pub(super) fn is_right(&self) -> bool {
        self.status == StatusCode::OK && self.first_line == GREETING
    }
}

/// Gets `http://NAME.localhost:PORT` from loopback, whether this machine's resolver knows `*.localhost` or not.
pub(super) async fn get(url: &str) -> anyhow::Result<Answer> {
    let uri: Uri = url.parse()?;
    let authority = uri.authority().context("a URL without a host")?;
    let socket = TcpStream::connect((Ipv4Addr::LOCALHOST, authority.port_u16().unwrap_or(80))).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(socket)).await?;
    let request = Request::get("/").header("host", authority.as_str()).body(Empty::<Bytes>::new())?;
    let answering = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        let text = String::from_utf8_lossy(&body);
        anyhow::Ok(Answer { status, first_line: text.lines().next().unwrap_or_default().to_owned() })
    };
    tokio::select! {
        answer = answering => answer,
        ended = connection => {
            ended?;
            anyhow::bail!("the server closed the connection without an answer")
        }
    }
}
