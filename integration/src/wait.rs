//! How the harness waits: for a future, and for a condition outside this process.
//! Both are bounded, and a wait that passes its bound says what it waited for.

use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

/// Far beyond what any step takes on a busy machine, so that only a real hang reaches it.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// How long to wait between two looks at something that does not tell of its changes.
pub(crate) const POLL: Duration = Duration::from_millis(5);

/// Awaits `step`; panics with `what` when it takes longer than [`PATIENCE`].
pub async fn within<T>(what: &str, step: impl Future<Output = T>) -> T {
    match timeout(PATIENCE, step).await {
        Ok(done) => done,
        Err(_) => panic!("{what}: not done within {PATIENCE:?}"),
    }
}

/// Asks `probe` every few milliseconds until it has an answer; panics with `what` after [`PATIENCE`].
///
/// For what happens in other processes and signals nothing: a file appears, memory is given back.
pub async fn eventually<T>(what: &str, probe: impl FnMut() -> Option<T>) -> T {
    patiently(what, PATIENCE, probe).await
}

/// Waits until nobody listens at this address of this machine.
pub async fn closed(address: SocketAddr) {
    eventually("nobody listens any more", || TcpListener::bind(address).is_ok().then_some(())).await;
}

/// As [`eventually`], for what is known to take so long.
pub async fn patiently<T>(what: &str, patience: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: not so within {patience:?}");
        sleep(POLL).await;
    }
}
