//! When a lost connection is tried again.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use tokio::time::{interval, sleep};

/// Waits of half a second, doubling up to 30 s (behaviour.md 6.3), each shortened at random by up to a quarter, so that
/// agents that lost the same server do not all return at once.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// It went well for some time.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    pub(crate) fn next(&mut self) -> Duration {
        let full = FIRST.saturating_mul(1 << self.failures.min(10)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        full.mul_f64(1.0 - fastrand::f64() / 4.0)
    }
}

const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(30);

/// Waits; less when this machine's way to the server is another than it was, as when a network returns.
pub(crate) async fn pause(length: Duration, server: Option<SocketAddr>) {
    let Some(server) = server else { return sleep(length).await };
    let before = way_to(server);
    let changed = async {
        let mut tick = interval(LOOK_EVERY);
        loop {
            tick.tick().await;
            let now = way_to(server);
            if now.is_some() && now != before {
                return;
            }
        }
    };
    tokio::select! {
        () = sleep(length) => {}
        () = changed => {}
    }
}

/// The address of ours from which the system would send there. Nothing is sent: a connected UDP socket only asks for
/// the route, on every system.
fn way_to(server: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr = if server.is_ipv4() { [0, 0, 0, 0].into() } else { [0_u16; 8].into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(server).ok()?;
    socket.local_addr().ok().map(|address| address.ip())
}

const LOOK_EVERY: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_to_half_a_minute_and_begin_anew_after_success() {
        let mut backoff = Backoff::default();
        let within = |wait: Duration, full: u64| {
            let full = Duration::from_millis(full);
            assert!(wait <= full && wait >= full.mul_f64(0.75), "{wait:?} of {full:?}");
        };
        for full in [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000] {
            within(backoff.next(), full);
        }
        backoff.reset();
        within(backoff.next(), 500);
    }

    #[test]
    fn the_way_to_this_machine_is_over_this_machine() {
        let loopback: SocketAddr = "127.0.0.1:22".parse().unwrap();
        assert_eq!(way_to(loopback), Some(loopback.ip()));
    }
}
