//! What is known of one visitor's connection or request as it passes, and what is told of it afterwards.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode, Uri};

/// The public peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Visitor(pub(crate) SocketAddr);

impl Visitor {
    /// The peer's address; an IPv4 address mapped into IPv6 is written as IPv4.
    pub(crate) fn ip(self) -> IpAddr {
        self.0.ip().to_canonical()
    }

    pub(crate) fn socket_addr(self) -> SocketAddr {
        SocketAddr::new(self.ip(), self.0.port())
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

/// Where finished visits are told. Must not block: a full log drops the record and counts it.
pub(crate) trait VisitLog: Send + Sync {
    fn record(&self, record: VisitRecord);
    /// A hint for the publisher that belongs to no single visit, such as "did you give -R a target?".
    fn advise(&self, advice: &'static str);
}

/// No log for endpoints whose session has no terminal (`ssh -N`).
pub(crate) type VisitLogRef = Option<Arc<dyn VisitLog>>;
