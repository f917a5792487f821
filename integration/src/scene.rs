//! A published upstream that gives and takes as much as asked, and visitors of it who read as they like: the same
//! words for each way in which an endpoint is reached.

use std::net::IpAddr;

use bytes::Bytes;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::child::Child;
use crate::origin::{Origin, Traffic};
use crate::payload::{Checker, payload};
use crate::server::{Options, TestServer};
use crate::ssh::OpenSsh;
use crate::visitor::{Connection, Streaming, Visitor};
use crate::wait::within;

/// How visitors reach an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Face {
    Http,
    Https,
    /// HTTP/2 over TLS.
    Http2,
    Tcp,
}

/// A server, a publisher (stock ssh if nothing else is said), and the upstream behind it.
#[derive(Debug)]
pub struct Scene {
    pub server: TestServer,
    pub ssh: Child,
    /// What the upstream gave.
    pub traffic: Traffic,
    face: Face,
    place: Place,
    _origin: Origin,
}

#[derive(Clone, Debug)]
enum Place {
    Url(String),
    Port(u16),
}

impl Scene {
    /// Publishes for visitors of this kind.
    pub async fn of(face: Face) -> Self {
        Self::with(face, |options| options, |ssh| ssh).await
    }

    /// The same with other options of the server and of ssh.
    pub async fn with(
        face: Face,
        options: impl FnOnce(Options) -> Options,
        flags: impl FnOnce(OpenSsh) -> OpenSsh,
    ) -> Self {
        let publish = async |server: &TestServer, origin: &Origin| {
            let (bind, command) = match face {
                Face::Http => ("app:80", "http"),
                Face::Https | Face::Http2 => ("app:443", "http"),
                Face::Tcp => ("0", "tcp"),
            };
            flags(server.ssh().forward_to(bind, origin).command(command)).publish().await
        };
        Self::published(face, options, publish).await
    }

    /// The same by the agent in place of ssh.
    pub async fn by_agent(face: Face) -> Self {
        let publish = async |server: &TestServer, origin: &Origin| {
            let (command, flags) = match face {
                Face::Http => ("http", "--domain app --schemes http"),
                Face::Https | Face::Http2 => ("http", "--domain app"),
                Face::Tcp => ("tcp", ""),
            };
            server.agent().command(command, origin).words(flags).publish().await
        };
        Self::published(face, |options| options, publish).await
    }

    async fn published(
        face: Face,
        options: impl FnOnce(Options) -> Options,
        publish: impl AsyncFnOnce(&TestServer, &Origin) -> Child,
    ) -> Self {
        let server = TestServer::with(options).await;
        let (origin, traffic) = match face {
            Face::Tcp => Origin::tcp_payload().await,
            _ => Origin::payload().await,
        };
        let mut ssh = publish(&server, &origin).await;
        let forwarding = ssh.forwarding().await.remove(0);
        let place = match face {
            Face::Tcp => Place::Port(forwarding.port().expect("a tcp endpoint has a port")),
            _ => Place::Url(forwarding.url),
        };
        Self { server, ssh, traffic, face, place, _origin: origin }
    }

    /// Somebody who visits it.
    pub fn guest(&self) -> Guest {
        let visitor = self.server.visitor();
        let visitor = if self.face == Face::Http2 { visitor.http2() } else { visitor };
        Guest { visitor, place: self.place.clone() }
    }

    /// What visitors type.
    pub fn url(&self) -> String {
        match &self.place {
            Place::Url(url) => url.clone(),
            Place::Port(port) => format!("tcp://{}:{port}", self.server.domain()),
        }
    }

    /// The port of its `tcp` endpoint.
    pub fn port(&self) -> u16 {
        match self.place {
            Place::Port(port) => port,
            Place::Url(_) => panic!("not a tcp endpoint"),
        }
    }
}

/// Somebody who visits a [`Scene`]; cheap to clone.
#[derive(Clone, Debug)]
pub struct Guest {
    visitor: Visitor,
    place: Place,
}

impl Guest {
    /// Somebody who visits this URL of a payload upstream.
    pub fn of_url(visitor: Visitor, url: &str) -> Self {
        Self { visitor, place: Place::Url(url.to_owned()) }
    }

    /// Somebody who visits this `tcp` endpoint of one.
    pub fn of_port(visitor: Visitor, port: u16) -> Self {
        Self { visitor, place: Place::Port(port) }
    }

    /// Comes from this address of the loopback.
    pub fn from(mut self, address: IpAddr) -> Self {
        self.visitor = self.visitor.from(address);
        self
    }

    /// Connects.
    pub async fn connect(&self) -> Line {
        match &self.place {
            Place::Url(url) => Line::Http(self.visitor.connection(url).await, url.clone()),
            Place::Port(port) => Line::Tcp(BufReader::new(self.visitor.tcp(*port).await)),
        }
    }

    /// Asks for so many bytes, on a connection of its own.
    pub async fn download(&self, length: u64) -> Download {
        self.connect().await.download(length).await
    }

    /// Sends so many bytes, on a connection of its own; they must arrive as they were sent.
    pub async fn upload(&self, length: u64) {
        match self.connect().await {
            Line::Http(mut connection, url) => {
                let reply = connection.post_streamed(&url, length).await.expect("an answer to an upload");
                assert_eq!((reply.status(), reply.text()), (200, length.to_string().as_str()));
            }
            Line::Tcp(mut stream) => {
                send(&mut stream, &format!("POST {length}"), length).await.expect("an upload is taken");
                let mut answer = String::new();
                within("an answer to an upload", stream.read_line(&mut answer)).await.expect("an answer");
                assert_eq!(answer, format!("{length}\n"));
            }
        }
    }

    /// Sends so many bytes that nobody reads; ends when it is cut.
    pub async fn upload_in_vain(&self, length: u64) {
        match self.connect().await {
            Line::Http(mut connection, url) => {
                let _ = connection.post_streamed(&format!("{url}/stuck"), length).await;
            }
            Line::Tcp(mut stream) => {
                let _ = send(&mut stream, "STUCK 0", length).await;
            }
        }
    }
}

async fn send(stream: &mut BufReader<TcpStream>, line: &str, length: u64) -> std::io::Result<()> {
    stream.write_all(format!("{line}\n").as_bytes()).await?;
    for piece in payload(0, length) {
        stream.write_all(&piece).await?;
    }
    Ok(())
}

/// A connection of a [`Guest`].
#[derive(Debug)]
pub enum Line {
    Http(Connection, String),
    Tcp(BufReader<TcpStream>),
}

impl Line {
    /// Asks for so many bytes. What is not read waits somewhere on the way.
    pub async fn download(self, length: u64) -> Download {
        self.request(length, "").await
    }

    /// The same, where the answer does not begin with its length.
    pub async fn download_chunked(self, length: u64) -> Download {
        self.request(length, "?chunked").await
    }

    async fn request(self, length: u64, query: &str) -> Download {
        let source = match self {
            Self::Http(mut connection, url) => {
                let answer = connection.open(&format!("{url}/{length}{query}")).await;
                assert_eq!(answer.status(), 200);
                Source::Http(answer)
            }
            Self::Tcp(mut stream) => {
                let line = format!("GET {length}\n");
                stream.write_all(line.as_bytes()).await.expect("a request is taken");
                Source::Tcp(stream)
            }
        };
        Download { source, length, checker: Checker::default() }
    }

    /// Asks for a few bytes and gets them, on a kept connection.
    pub async fn ask(&mut self) {
        let mut checker = Checker::default();
        match self {
            Self::Http(connection, url) => {
                let reply = connection.get(&format!("{url}/{FEW}")).await;
                assert_eq!(reply.status(), 200, "{:?}", reply.headers());
                checker.take(reply.body());
            }
            Self::Tcp(stream) => {
                let mut few = [0; FEW];
                let asked = async {
                    stream.write_all(format!("GET {FEW}\n").as_bytes()).await?;
                    stream.read_exact(&mut few).await
                };
                within("an answer over TCP", asked).await.expect("an answer over TCP");
                checker.take(&few);
            }
        }
        assert_eq!(checker.seen(), FEW as u64);
    }

    /// Another line on the same connection; only HTTP/2 has that.
    pub fn beside(&self) -> Option<Self> {
        match self {
            Self::Http(connection, url) => Some(Self::Http(connection.another_stream()?, url.clone())),
            Self::Tcp(_) => None,
        }
    }
}

/// What a small request asks for.
const FEW: usize = 100;

/// An answer that is on its way.
#[derive(Debug)]
pub struct Download {
    source: Source,
    length: u64,
    checker: Checker,
}

#[derive(Debug)]
enum Source {
    Http(Streaming),
    Tcp(BufReader<TcpStream>),
}

impl Download {
    /// Bytes that were taken so far.
    pub fn taken(&self) -> u64 {
        self.checker.seen()
    }

    /// Takes the next bytes, which must be as they were sent. `None` at the orderly end, an error if it was cut.
    pub async fn next(&mut self) -> Option<anyhow::Result<usize>> {
        let bytes = match &mut self.source {
            Source::Http(answer) => match answer.next().await? {
                Ok(bytes) => bytes,
                Err(error) => return Some(Err(error.into())),
            },
            Source::Tcp(_) if self.checker.seen() == self.length => return None,
            Source::Tcp(stream) => {
                let mut bytes = Vec::with_capacity(16 * 1024);
                match within("the next bytes over TCP", stream.read_buf(&mut bytes)).await {
                    Ok(0) => return None,
                    Ok(_) => Bytes::from(bytes),
                    Err(error) => return Some(Err(error.into())),
                }
            }
        };
        self.checker.take(&bytes);
        Some(Ok(bytes.len()))
    }

    /// Takes the rest, which must come whole.
    pub async fn finish(mut self) {
        while let Some(next) = self.next().await {
            next.expect("a download that is not cut");
        }
        assert_eq!(self.taken(), self.length, "the download is whole");
    }

    /// Takes what still comes; it must be less than all, and its end must say so.
    pub async fn finish_cut_off(mut self) {
        loop {
            match self.next().await {
                Some(Ok(_)) => {}
                Some(Err(_)) => break,
                None => panic!("the download looks complete after {} bytes", self.taken()),
            }
        }
        assert!(self.taken() < self.length, "all of it came");
    }
}
