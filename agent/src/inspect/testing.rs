//! What the inspector's tests share.

use std::net::SocketAddr;

use bytes::Bytes;

use super::{Inspector, Limits};

pub(super) fn inspector() -> Inspector {
    Inspector::new(Limits::default())
}

pub(super) fn visitor() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 7], 51_000))
}

/// A connection of the endpoint `web` with this request and this response.
pub(super) fn exchange(inspector: &Inspector, request: &[u8], response: &[u8]) {
    let recording = inspector.tap("web").open(visitor());
    recording.request(&Bytes::copy_from_slice(request));
    recording.response(&Bytes::copy_from_slice(response));
    drop(recording);
    inspector.settle();
}
