//! The way from an endpoint to its publisher: one stream for each upstream connection.
//!
//! [`Dial`] is the seam between the public side and SSH; [`channel`] is the only implementation that speaks SSH,
//! and [`pool`] keeps HTTP connections to the upstream alive between requests.

pub(crate) mod approach;
pub(crate) mod channel;
pub(crate) mod elastic;
pub(crate) mod multiplex;
pub(crate) mod pool;
pub(crate) mod spool;

use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::io::{AsyncBufRead, AsyncWrite};

use crate::drain::DrainWatch;
use crate::limits::Usage;
use crate::visit::Visitor;
use crate::workers::Worker;

/// A stream to the upstream. An end of stream on reading is the upstream's half-close; a publisher that closed the
/// channel without one reads as [`std::io::ErrorKind::ConnectionReset`]. Dropping it closes the channel.
pub(crate) type TunnelStream = Box<dyn TunnelIo>;

pub(crate) trait TunnelIo: AsyncBufRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncBufRead + AsyncWrite + Send + Unpin> TunnelIo for S {}

/// Opens streams towards one forward of a publisher. Whether the publisher is on this machine is its secret.
pub(crate) trait Dial: Send + Sync {
    /// Opens a stream for `visitor`. Dropping the future gives up waiting, never harms the session.
    fn dial(&self, visitor: Visitor) -> BoxFuture<'_, Result<TunnelStream, DialError>>;

    /// Whether the publisher's connection is over, and its streams with it.
    fn is_gone(&self) -> bool {
        false
    }
}

/// Why no stream could be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DialError {
    #[error("nothing is listening where the publisher's tunnel leads to")]
    Refused,
    #[error("the publisher's client does not accept connections for this forward any more")]
    Prohibited,
    #[error("the publisher is gone")]
    Gone,
    #[error("the publisher did not answer in time")]
    Timeout,
    #[error("too many connections are being opened to this publisher")]
    Busy,
    #[error("the upstream does not speak TLS")]
    NoTls,
    #[error("the upstream's certificate is not trusted, or is for another name")]
    Certificate,
    #[error("the upstream does not speak HTTP/2")]
    NotHttp2,
    #[error("the upstream closed the connection at once")]
    Closed,
}

/// What an endpoint holds of its publisher.
pub(crate) struct Tunnel {
    pub(crate) dial: Arc<dyn Dial>,
    /// Idle HTTP connections to the upstream, shared by all visitors.
    pub(crate) pool: pool::Pool,
    /// HTTP/2 connections to the upstream.
    pub(crate) lines: multiplex::Lines,
    /// How streams to the upstream begin.
    pub(crate) approach: approach::Approach,
    /// Owns the tasks that drive upstream connections. It drains after the visitors.
    pub(crate) tasks: DrainWatch,
    /// The thread of the publisher's session, and so of its visitors.
    pub(crate) worker: Worker,
    /// What the publisher's account has of the server.
    pub(crate) usage: Arc<Usage>,
}

impl Tunnel {
    /// To be called on the thread of the publisher's session.
    pub(crate) fn new(dial: Arc<dyn Dial>, tasks: DrainWatch, approach: approach::Approach) -> Self {
        Self {
            dial,
            pool: pool::Pool::default(),
            lines: multiplex::Lines::default(),
            approach,
            tasks,
            worker: Worker::here(),
            usage: Usage::unlimited(),
        }
    }

    /// Counts its visits as those of an account.
    pub(crate) fn charged_to(mut self, usage: Arc<Usage>) -> Self {
        self.usage = usage;
        self
    }
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel").finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// A publisher that is gone.
    pub(crate) struct NoDial;

    impl Dial for NoDial {
        fn dial(&self, _: Visitor) -> BoxFuture<'_, Result<TunnelStream, DialError>> {
            Box::pin(std::future::ready(Err(DialError::Gone)))
        }
    }
}
