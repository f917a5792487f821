//! To the upstream of a visit: at the member of the endpoint whose turn it is; if that cannot be reached, at another
//! one, or at whoever has taken the endpoint's place. As long as nothing was sent, no visitor notices.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use crate::endpoint::{Endpoint, Member, Turn};
use crate::tunnel::pool::Upstream;
use crate::tunnel::{DialError, Tunnel, TunnelStream};
use crate::visit::Visitor;

/// Who serves a visit. The endpoint may have been withdrawn since it was looked up; then it is whoever takes its place.
///
/// # Errors
/// Nobody does.
pub(super) async fn turn(endpoint: &Arc<Endpoint>) -> Result<Turn, DialError> {
    if let Some(turn) = endpoint.choose() {
        return Ok(turn);
    }
    // On the heap, as below.
    let next = Box::pin(successor(endpoint)).await;
    next.and_then(|next| next.choose()).ok_or(DialError::Gone)
}

/// What a visit needs.
#[derive(Clone, Copy)]
pub(super) enum Wanted<'a> {
    /// For a request, kept alive or new.
    Any,
    /// For an upgrade, which HTTP/2 has not.
    Http1,
    /// For a request that failed there.
    InsteadOf(&'a Upstream),
}

/// A connection for a request.
///
/// # Errors
/// Nobody could be reached. It is the error of the last who was tried.
pub(super) async fn upstream(
    endpoint: &Arc<Endpoint>,
    turn: &mut Turn,
    visitor: Visitor,
    wanted: Wanted<'_>,
) -> Result<Upstream, DialError> {
    let error = match connect(&turn.tunnel, visitor, wanted).await {
        Ok(upstream) => {
            turn.reached();
            return Ok(upstream);
        }
        Err(error) => error,
    };
    let wanted = if matches!(wanted, Wanted::Http1) { wanted } else { Wanted::Any };
    let connect = |tunnel: Arc<Tunnel>| async move { connect(&tunnel, visitor, wanted).await };
    // On the heap: few visits come here, and all would hold it.
    Box::pin(elsewhere(endpoint, turn, error, connect)).await
}

/// A stream to the upstream.
///
/// # Errors
/// As [`upstream`].
pub(super) async fn stream(
    endpoint: &Arc<Endpoint>,
    turn: &mut Turn,
    visitor: Visitor,
) -> Result<TunnelStream, DialError> {
    let error = match turn.tunnel.open(visitor).await {
        Ok(stream) => {
            turn.reached();
            return Ok(stream);
        }
        Err(error) => error,
    };
    let open = |tunnel: Arc<Tunnel>| async move { tunnel.open(visitor).await };
    Box::pin(elsewhere(endpoint, turn, error, open)).await
}

/// After this error of the first: what the next one gives who can be reached.
async fn elsewhere<T, F: Future<Output = Result<T, DialError>>>(
    endpoint: &Arc<Endpoint>,
    turn: &mut Turn,
    error: DialError,
    connect: impl Fn(Arc<Tunnel>) -> F,
) -> Result<T, DialError> {
    let mut others = Others::new(endpoint, error);
    while others.next(turn).await {
        match connect(Arc::clone(&turn.tunnel)).await {
            Ok(reached) => {
                turn.reached();
                return Ok(reached);
            }
            Err(error) => others.error = error,
        }
    }
    Err(others.error)
}

async fn connect(tunnel: &Arc<Tunnel>, visitor: Visitor, wanted: Wanted<'_>) -> Result<Upstream, DialError> {
    match wanted {
        Wanted::Any => tunnel.upstream(visitor).await,
        Wanted::Http1 => tunnel.connect_http1(visitor).await,
        Wanted::InsteadOf(failed) => tunnel.replace(failed, visitor).await,
    }
}

/// Who else can serve a visit.
struct Others {
    endpoint: Arc<Endpoint>,
    tried: Vec<Arc<Member>>,
    error: DialError,
    successors: usize,
}

impl Others {
    fn new(endpoint: &Arc<Endpoint>, error: DialError) -> Self {
        Self { endpoint: Arc::clone(endpoint), tried: Vec::new(), error, successors: 0 }
    }

    /// Turns to the next one. False where there is none.
    async fn next(&mut self, turn: &mut Turn) -> bool {
        if self.error != DialError::Busy {
            turn.failed();
        }
        self.tried.push(Arc::clone(turn.member()));
        if self.tried.len() >= MOST_TRIED {
            return false;
        }
        if let Some(next) = self.endpoint.choose_another(&self.tried) {
            *turn = next;
            return true;
        }
        // The others may be slow or wrong, but they are there: waiting would help nobody.
        if self.error != DialError::Gone || self.successors >= MOST_SUCCESSORS {
            return false;
        }
        self.successors += 1;
        let Some(next) = successor(&self.endpoint).await else { return false };
        let Some(chosen) = next.choose() else { return false };
        *turn = chosen;
        self.endpoint = next;
        true
    }
}

/// The endpoint that took the place of one whose publisher is gone. What its modules admitted may go on there only if
/// the rules are the same.
async fn successor(endpoint: &Arc<Endpoint>) -> Option<Arc<Endpoint>> {
    // The session may still be on its way out.
    timeout(FAREWELL, endpoint.withdrawn.cancelled()).await.ok()?;
    let held = endpoint.held()?;
    let next = if held.wait().await { held.next().cloned() } else { None };
    next.filter(|next| next.serves_like(endpoint))
}

/// Members and successors that one visit tries.
const MOST_TRIED: usize = 8;
/// Each may be waited for.
const MOST_SUCCESSORS: usize = 2;
/// From a channel that cannot be opened to the end of its session.
const FAREWELL: Duration = Duration::from_millis(250);
