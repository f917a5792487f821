//! Blocks of TCP ports, each for one test server, although tests run side by side in several processes.

use std::net::TcpListener;
use std::ops::RangeInclusive;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};

/// Below the ports that Linux gives to outgoing connections (32768 and up).
const FIRST: u16 = 20_000;
const BLOCKS: u16 = 600;
/// The guard and twenty ports to use.
const BLOCK: u16 = 21;

/// Twenty ports. The port below them is bound for as long as this value lives, and says to every other test
/// process that the block is taken.
#[derive(Debug)]
pub(crate) struct PortBlock {
    guard: TcpListener,
}

impl PortBlock {
    /// Finds a block of which every port can be bound now.
    pub(crate) fn reserve() -> Self {
        static NEXT: OnceLock<AtomicU16> = OnceLock::new();
        // Processes start at different places, so that they seldom try the same block.
        let next = NEXT.get_or_init(|| AtomicU16::new((std::process::id() % u32::from(BLOCKS)) as u16 * 7));
        (0..BLOCKS)
            .map(|_| FIRST + next.fetch_add(1, Ordering::Relaxed) % BLOCKS * BLOCK)
            .find_map(Self::try_block)
            .expect("a block of free ports")
    }

    fn try_block(first: u16) -> Option<Self> {
        let guard = TcpListener::bind(("127.0.0.1", first)).ok()?;
        let free = (first + 1..first + BLOCK).all(|port| TcpListener::bind(("0.0.0.0", port)).is_ok());
        free.then_some(Self { guard })
    }

    pub(crate) fn range(&self) -> RangeInclusive<u16> {
        let guard = self.guard.local_addr().expect("a bound address").port();
        guard + 1..=guard + BLOCK - 1
    }
}
