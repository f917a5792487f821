//! Where visits lead: ADDR of the command line, and how it is reached.

use tokio::io::{AsyncRead, AsyncWrite};

/// Where visits lead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {}

/// A connection to an upstream.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for T {}

/// Why an upstream cannot be reached.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    #[error("cannot connect: {0}")]
    Connect(#[from] std::io::Error),
}
