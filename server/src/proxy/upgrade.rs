//! WebSockets, and whatever else two sides agree to speak after a 101 (RFC 9110 §7.8).

use http::Response;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::socks::SocksWatch;
use super::tcp::{Tally, join};

/// Both sides of a connection that is about to change its protocol.
pub(super) struct Upgrade {
    visitor_side: OnUpgrade,
    upstream_side: OnUpgrade,
}

/// What is told when an upgraded connection is over.
pub(super) trait Carried: Send + 'static {
    /// `sent` counts the bytes to the visitor after the 101; `fault` says why it was cut off, if it was.
    fn ended(self, sent: u64, fault: Option<&'static str>);
}

impl Upgrade {
    pub(super) fn new(visitor_side: OnUpgrade, response: &mut Response<Incoming>) -> Self {
        Self { visitor_side, upstream_side: hyper::upgrade::on(response) }
    }

    /// Carries the new protocol until both sides have ended it. `visit` keeps the upstream's connection meanwhile.
    pub(super) async fn carry(self, visit: impl Carried) {
        let (mut tally, mut cut_off) = (Tally::default(), None);
        match tokio::try_join!(self.visitor_side, self.upstream_side) {
            Ok((visitor, upstream)) => {
                let (mut visitor, mut upstream) = (TokioIo::new(visitor), TokioIo::new(upstream));
                let ended = join(&mut visitor, &mut upstream, &mut tally, SocksWatch::off()).await;
                if let Err(fault) = ended {
                    cut_off = fault.cut_off();
                    tracing::debug!(?fault, "an upgraded connection was cut");
                }
            }
            Err(error) => tracing::debug!(%error, "a connection was not upgraded"),
        }
        visit.ended(tally.sent, cut_off);
    }
}
