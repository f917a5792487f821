//! What tells a client of ours to pause one channel.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use russh::ChannelId;
use russh::server::Handle;

use super::round_trip::RoundTrip;
use crate::tunnel::elastic::Regulated;

/// The channel request `xon-xoff` (RFC 4254 §6.8), put to a use of our own: `client_can_do` says whether the client may
/// send on this channel.
pub(super) struct Tap {
    handle: Handle,
    channel: ChannelId,
    round_trip: Arc<RoundTrip>,
}

impl Tap {
    pub(super) fn new(handle: Handle, channel: ChannelId, round_trip: Arc<RoundTrip>) -> Self {
        Self { handle, channel, round_trip }
    }
}

impl Regulated for Tap {
    fn tell(&self, open: bool) -> BoxFuture<'static, ()> {
        let (handle, channel) = (self.handle.clone(), self.channel);
        Box::pin(async move {
            // A session that is over needs no telling.
            let _ = handle.xon_xoff_request(channel, open).await;
        })
    }

    fn in_flight(&self) -> usize {
        // Its window, and what waits at the mark or comes before the request has left.
        (self.round_trip.window() as usize).saturating_add(MARGIN)
    }
}

/// A session that is busy may receive so much before it says something.
const MARGIN: usize = 2 << 20;
