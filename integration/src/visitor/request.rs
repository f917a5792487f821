//! HTTP requests of a visitor: one at a time, or several on a kept connection.

use std::convert::Infallible;
use std::ops::Range;

use bytes::Bytes;
use futures_util::StreamExt;
use http::header::HOST;
use http::{Method, Request, Response, Uri};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::{Reply, Streaming, Visitor};
use crate::payload;
use crate::wait::{POLL, within};

/// A request's body.
pub(super) type Body = BoxBody<Bytes, Infallible>;

/// A kept connection, of HTTP/1.1 or HTTP/2 as its visitor speaks.
#[derive(Debug)]
pub struct Connection {
    sender: Sender,
    headers: Vec<(String, String)>,
}

#[derive(Debug)]
enum Sender {
    One(http1::SendRequest<Body>),
    Two(http2::SendRequest<Body>),
}

impl Visitor {
    /// GET; returns the whole answer.
    pub async fn get(&self, url: &str) -> Reply {
        self.send(Method::GET, url, "").await
    }

    /// GET, again until the name is public: for publishers without a session, who are told nothing.
    pub async fn get_when_public(&self, url: &str) -> Reply {
        within("the endpoint becomes public", async {
            loop {
                let reply = self.get(url).await;
                if reply.code() != Some("ERR_HITHE_3200") {
                    return reply;
                }
                tokio::time::sleep(POLL).await;
            }
        })
        .await
    }

    /// GET, again until the name is offline: how long a publisher takes to leave is its own affair. Gives the code.
    pub async fn get_until_offline(&self, url: &str) -> Option<String> {
        within("the endpoint is offline", async {
            loop {
                let reply = self.get(url).await;
                if reply.status() != 200 {
                    return reply.code().map(str::to_owned);
                }
            }
        })
        .await
    }

    /// POST; returns the whole answer.
    pub async fn post(&self, url: &str, body: impl Into<Bytes>) -> Reply {
        self.send(Method::POST, url, body).await
    }

    /// Any method; returns the whole answer.
    pub async fn send(&self, method: Method, url: &str, body: impl Into<Bytes>) -> Reply {
        self.connection(url).await.send(method, url, body).await
    }

    /// GET; returns as soon as the head of the answer is there.
    pub async fn open(&self, url: &str) -> Streaming {
        self.connection(url).await.open(url).await
    }

    /// Connects to where this URL is served.
    pub async fn connection(&self, url: &str) -> Connection {
        let stream = TokioIo::new(self.connect(&parse(url)).await);
        let sender = if self.http2 {
            let (sender, connection) =
                http2::handshake(TokioExecutor::new(), stream).await.expect("an HTTP/2 connection");
            tokio::spawn(connection);
            Sender::Two(sender)
        } else {
            let (sender, connection) = http1::handshake(stream).await.expect("an HTTP/1.1 connection");
            tokio::spawn(connection);
            Sender::One(sender)
        };
        Connection { sender, headers: self.headers.clone() }
    }
}

impl Connection {
    /// GET; returns the whole answer.
    pub async fn get(&mut self, url: &str) -> Reply {
        self.send(Method::GET, url, "").await
    }

    /// GET; returns as soon as the head of the answer is there.
    pub async fn open(&mut self, url: &str) -> Streaming {
        let request = self.build(Method::GET, url, Bytes::new());
        Streaming::new(self.request(request).await.expect("an answer"))
    }

    /// Any method; returns the whole answer.
    pub async fn send(&mut self, method: Method, url: &str, body: impl Into<Bytes>) -> Reply {
        self.try_send(method, url, body).await.expect("an answer")
    }

    /// The same, where a cut connection is what the test is about.
    pub async fn try_send(
        &mut self,
        method: Method,
        url: &str,
        body: impl Into<Bytes>,
    ) -> hyper::Result<Reply> {
        let request = self.build(method, url, body.into());
        let answer = self.request(request).await?;
        within("the answer's body", Reply::collect(answer)).await
    }

    /// POST of so many bytes of payload, sent as they are taken; waits for the answer as long as it takes.
    pub async fn post_streamed(&mut self, url: &str, length: u64) -> hyper::Result<Reply> {
        self.post_stretch(url, 0..length).await
    }

    /// The same with these bytes of the payload.
    pub async fn post_stretch(&mut self, url: &str, bytes: Range<u64>) -> hyper::Result<Reply> {
        let request = self.build(Method::POST, url, Bytes::new());
        let pieces = payload::stretch(bytes.start, bytes.end).map(|piece| Ok(Frame::data(piece)));
        let request = request.map(|_| BodyExt::boxed(StreamBody::new(pieces)));
        Reply::collect(self.send_request(request).await?).await
    }

    /// Any request. For HTTP/1.1 its URI is the path, for HTTP/2 the whole URL.
    pub async fn request(&mut self, request: Request<Body>) -> hyper::Result<Response<Incoming>> {
        within("an answer", self.send_request(request)).await
    }

    async fn send_request(&mut self, request: Request<Body>) -> hyper::Result<Response<Incoming>> {
        match &mut self.sender {
            Sender::One(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
            Sender::Two(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
        }
    }

    /// The same connection for another request at the same time; only HTTP/2 has that.
    pub fn another_stream(&self) -> Option<Self> {
        match &self.sender {
            Sender::One(_) => None,
            Sender::Two(sender) => {
                Some(Self { sender: Sender::Two(sender.clone()), headers: self.headers.clone() })
            }
        }
    }

    /// Whether the server closed it.
    pub fn is_closed(&self) -> bool {
        match &self.sender {
            Sender::One(sender) => sender.is_closed(),
            Sender::Two(sender) => sender.is_closed(),
        }
    }

    fn build(&self, method: Method, url: &str, body: Bytes) -> Request<Body> {
        let url = parse(url);
        let mut request = Request::builder().method(method);
        let named_host = self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host"));
        request = match &self.sender {
            Sender::Two(_) => request.uri(url),
            Sender::One(_) => {
                let host = url.authority().expect("a host in the URL").as_str();
                let path = url.path_and_query().map_or("/", |path| path.as_str());
                let request = request.uri(path);
                if named_host { request } else { request.header(HOST, host) }
            }
        };
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let body = if body.is_empty() { Empty::new().boxed() } else { Full::new(body).boxed() };
        request.body(body).expect("a request")
    }
}

fn parse(url: &str) -> Uri {
    url.parse().unwrap_or_else(|error| panic!("{url}: {error}"))
}
