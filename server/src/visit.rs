//! What is known of one visitor's connection or request as it passes, and what is told of it afterwards.

use std::borrow::Cow;
use std::error::Error;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hithe_cli_parser::Variable;
use http::{Method, StatusCode, Uri};

/// The public peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Visitor {
    peer: SocketAddr,
    /// Where it connected to.
    local: Option<SocketAddr>,
    since: SystemTime,
    is_proxy: bool,
}

impl Visitor {
    /// One that connects now.
    pub(crate) fn new(peer: SocketAddr, local: Option<SocketAddr>) -> Self {
        Self { peer, local, since: SystemTime::now(), is_proxy: false }
    }

    /// The same as a trusted proxy, if it is one.
    pub(crate) fn as_proxy(self, is_proxy: bool) -> Self {
        Self { is_proxy, ..self }
    }

    /// Whether this is a trusted proxy, whose requests are those of others.
    pub(crate) fn is_proxy(self) -> bool {
        self.is_proxy
    }

    /// Who asks through this proxy. The port it has there is not known.
    pub(crate) fn on_behalf_of(self, address: IpAddr) -> Self {
        Self { peer: SocketAddr::new(address, 0), is_proxy: false, ..self }
    }

    /// The peer's address; an IPv4 address mapped into IPv6 is written as IPv4.
    pub(crate) fn ip(self) -> IpAddr {
        self.peer.ip().to_canonical()
    }

    pub(crate) fn socket_addr(self) -> SocketAddr {
        SocketAddr::new(self.ip(), self.peer.port())
    }

    /// When it connected.
    pub(crate) fn since(self) -> SystemTime {
        self.since
    }

    /// The address of ours that it connected to, or none (`0.0.0.0:0`) where that is not known.
    pub(crate) fn connected_to(self) -> SocketAddr {
        let local = self.local.unwrap_or_else(|| match self.ip() {
            IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            IpAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        });
        SocketAddr::new(local.ip().to_canonical(), local.port())
    }
}

/// How a request reached its upstream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reached {
    /// Over a connection that another request went over before.
    pub(crate) reused: bool,
    /// How long the publisher took to connect, where it had to.
    pub(crate) dialled: Duration,
}

/// What the TLS connection of a visitor is like that ended here.
#[derive(Debug, Default)]
pub(crate) struct TlsFacts {
    /// Such as `1.3`.
    pub(crate) version: Option<&'static str>,
    pub(crate) cipher_suite: Option<&'static str>,
    /// The server name of the handshake.
    pub(crate) sni: Option<Box<str>>,
    /// `h2` or `http/1.1`.
    pub(crate) alpn: Option<&'static str>,
    /// Whose certificate the visitor showed.
    pub(crate) client: Option<Box<ClientFacts>>,
}

/// Who a visitor's certificate is for.
#[derive(Debug, Default)]
pub(crate) struct ClientFacts {
    pub(crate) common_name: String,
    pub(crate) dns_names: Vec<String>,
    pub(crate) emails: Vec<String>,
    /// In hexadecimal.
    pub(crate) serial: String,
}

impl TlsFacts {
    /// What a header shows of it.
    pub(crate) fn value(&self, variable: Variable) -> Option<Cow<'_, str>> {
        match variable {
            Variable::TlsVersion => self.version,
            Variable::TlsAlpn => self.alpn,
            Variable::TlsCipher => self.cipher_suite,
            Variable::TlsSni => self.sni.as_deref(),
            _ => None,
        }
        .map(Cow::Borrowed)
    }
}

/// One finished request or connection, as its publisher's console tells it. Holds no secret: no header, no body.
#[derive(Clone, Debug)]
pub(crate) enum VisitRecord {
    Request {
        visitor: Visitor,
        method: Method,
        /// Path and query as the visitor sent them: escape before showing.
        uri: Uri,
        status: StatusCode,
        duration: Duration,
        /// Bytes of the response body that went to the visitor.
        sent: u64,
        /// Why the response was cut off, where that is known.
        fault: Option<&'static str>,
    },
    Connection {
        visitor: Visitor,
        duration: Duration,
        /// Bytes from the visitor.
        received: u64,
        /// Bytes to the visitor.
        sent: u64,
        /// Why it ended, where that was not an orderly end.
        fault: Option<&'static str>,
    },
}

/// Why a visit was cut off alone: what waited for its visitor had no place any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CutOff {
    #[error("the visitor is too slow: more waits for it than one visit may spool")]
    Visit,
    #[error("the visitor is too slow: more waits for visitors from its address than these may spool")]
    Source,
    #[error("the visitor is too slow: more waits for visitors of this publisher than these may spool")]
    Publisher,
    #[error("the visitor is too slow: the server's spool is full")]
    Full,
    #[error("the visitor is slow and the server's disk failed")]
    Disk,
}

impl CutOff {
    /// The cause of an error, if it is this one.
    pub(crate) fn of(error: &(dyn Error + 'static)) -> Option<Self> {
        let mut error = Some(error);
        while let Some(cause) = error {
            if let Some(cut) = cause.downcast_ref::<Self>() {
                return Some(*cut);
            }
            error = cause
                .downcast_ref::<io::Error>()
                .and_then(|io| io.get_ref())
                .map(|inner| inner as &(dyn Error + 'static))
                .or_else(|| cause.source());
        }
        None
    }

    /// What the publisher's console says of the visit.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Visit => "the visitor is too slow: a visit's share of the spool is full",
            Self::Source => "the visitor is too slow: its address' share of the spool is full",
            Self::Publisher => "the visitor is too slow: your share of the server's spool is full",
            Self::Full => "the visitor is too slow: the server's spool is full",
            Self::Disk => "the visitor is slow and the server's disk failed",
        }
    }
}

/// What is said of a visitor that was cut off because it took nothing.
pub(crate) const STALLED: &str = "the visitor took nothing for a minute";

/// Logs a visit that was cut off because its visitor took nothing. What the spool cuts off, it logs by itself.
pub(crate) fn log_stalled(visitor: Visitor, url: &str) {
    tracing::info!(visitor = %visitor.ip(), url, "a visit was cut off: {STALLED}");
}

/// Where finished visits are told. Must not block: a full log drops the record and counts it.
pub(crate) trait VisitLog: Send + Sync {
    fn record(&self, record: VisitRecord);
    /// A hint for the publisher that belongs to no single visit, such as "did you give -R a target?".
    fn advise(&self, advice: &'static str);
}

/// No log for endpoints whose session has no terminal (`ssh -N`).
pub(crate) type VisitLogRef = Option<Arc<dyn VisitLog>>;
