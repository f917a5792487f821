//! Holds a body back until it is whole: within a bound for each, one for each endpoint and one for all.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body::Body as HttpBody;
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};
use tokio::time::timeout;

use crate::body::Body;

/// Why a body could not be held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failure {
    #[error("its body is too large")]
    TooLarge,
    #[error("too many bodies are held")]
    Full,
    #[error("its body broke off")]
    Broken,
    #[error("its body took too long to arrive")]
    Slow,
}

/// A body as it arrives.
pub(super) trait Arriving: HttpBody<Data = Bytes> + Unpin {}

impl<T: HttpBody<Data = Bytes> + Unpin> Arriving for T {}

/// Room for bodies, in bytes.
#[derive(Debug)]
pub(super) struct Room {
    /// Of one endpoint, so that what is sent to it leaves room to the others.
    own: Arc<Semaphore>,
    /// Of all endpoints.
    shared: Arc<Semaphore>,
}

/// A whole body, and the room that it takes as long as it is there.
pub(super) struct Held {
    bytes: Vec<u8>,
    taken: Vec<OwnedSemaphorePermit>,
}

/// Of one body. No provider of the table sends more than a few; GitHub's own limit is 25 MiB, its usual webhooks
/// have some 20 KiB.
pub(super) const MAX_BODY: usize = 8 << 20;
const OF_AN_ENDPOINT: usize = 16 << 20;
pub(super) const OF_ALL: usize = 64 << 20;

/// How long a body may take. Providers send at once.
const DEADLINE: Duration = Duration::from_secs(30);

/// What is allocated first.
const FIRST: usize = 4096;

impl Room {
    pub(super) fn within(shared: Arc<Semaphore>) -> Self {
        Self { own: Arc::new(Semaphore::new(OF_AN_ENDPOINT)), shared }
    }

    pub(super) async fn hold(&self, body: impl Arriving) -> Result<Held, Failure> {
        timeout(DEADLINE, self.collect(body)).await.map_err(|_| Failure::Slow)?
    }

    /// Room is taken as bytes arrive, not as they are announced: whoever only promises takes none. Trailers are
    /// dropped: nobody signs them.
    async fn collect(&self, mut body: impl Arriving) -> Result<Held, Failure> {
        let announced = body.size_hint().exact();
        let most = match announced.map(usize::try_from) {
            Some(Ok(length)) if length <= MAX_BODY => length,
            None => MAX_BODY,
            Some(_) => return Err(Failure::TooLarge),
        };
        let mut held = Held { bytes: Vec::new(), taken: Vec::new() };
        let mut capacity = 0;
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|_| Failure::Broken)?.into_data() else { continue };
            let needed = held.bytes.len() + data.len();
            if needed > most {
                return Err(Failure::TooLarge);
            }
            if needed > capacity {
                let grown = needed.max(capacity * 2).max(FIRST).min(most);
                self.take(&mut held, grown - capacity)?;
                held.bytes.reserve_exact(grown - held.bytes.len());
                capacity = grown;
            }
            held.bytes.extend_from_slice(&data);
        }
        Ok(held)
    }

    fn take(&self, held: &mut Held, bytes: usize) -> Result<(), Failure> {
        let count = u32::try_from(bytes).map_err(|_| Failure::Full)?;
        let full = |_: TryAcquireError| Failure::Full;
        held.taken.push(Arc::clone(&self.own).try_acquire_many_owned(count).map_err(full)?);
        held.taken.push(Arc::clone(&self.shared).try_acquire_many_owned(count).map_err(full)?);
        Ok(())
    }
}

impl Held {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The same bytes for the upstream. They keep their room until the last of them is sent, however long it takes.
    pub(super) fn into_body(self) -> Body {
        Body::full(Bytes::from_owner(self))
    }
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use http::HeaderMap;
    use http_body::Frame;
    use http_body_util::{Full, StreamBody};

    use super::*;

    type Frames = Vec<Result<Frame<Bytes>, &'static str>>;

    fn full(length: usize) -> Full<Bytes> {
        Full::new(Bytes::from(vec![7; length]))
    }

    /// Of unknown length.
    fn frames(frames: Frames) -> impl Arriving {
        StreamBody::new(stream::iter(frames))
    }

    async fn refused(room: &Room, body: impl Arriving) -> Option<Failure> {
        room.hold(body).await.err()
    }

    #[tokio::test]
    async fn a_body_takes_its_room_until_it_is_gone() {
        let shared = Arc::new(Semaphore::new(OF_ALL));
        let room = Room::within(Arc::clone(&shared));
        let held = room.hold(full(10_000)).await.unwrap();
        assert_eq!(held.bytes(), vec![7; 10_000]);
        assert_eq!(shared.available_permits(), OF_ALL - 10_000);
        let sent = held.into_body().collect().await.unwrap().to_bytes();
        assert_eq!((sent.len(), shared.available_permits()), (10_000, OF_ALL - 10_000));
        drop(sent);
        assert_eq!(shared.available_permits(), OF_ALL);
    }

    #[tokio::test]
    async fn frames_are_joined_and_trailers_dropped() {
        let room = Room::within(Arc::new(Semaphore::new(OF_ALL)));
        let (first, second) = (vec![1; 3000], vec![2; 3000]);
        let sent = [first.clone(), second.clone()].map(|it| Ok(Frame::data(Bytes::from(it))));
        let mut sent = Frames::from(sent);
        sent.push(Ok(Frame::trailers(HeaderMap::new())));
        assert_eq!(room.hold(frames(sent)).await.unwrap().bytes(), [first, second].concat());
    }

    #[tokio::test]
    async fn each_bound_is_kept() {
        let shared = Arc::new(Semaphore::new(OF_ALL));
        let room = Room::within(Arc::clone(&shared));
        assert_eq!(refused(&room, full(MAX_BODY + 1)).await, Some(Failure::TooLarge));
        let bytes = Bytes::from(vec![7; MAX_BODY + 1]);
        let endless = bytes.chunks(1 << 20).map(|it| Ok(Frame::data(bytes.slice_ref(it))));
        assert_eq!(refused(&room, frames(endless.collect())).await, Some(Failure::TooLarge));
        assert_eq!(shared.available_permits(), OF_ALL);
        let _first = room.hold(full(MAX_BODY)).await.unwrap();
        let _second = room.hold(full(MAX_BODY)).await.unwrap();
        assert_eq!(refused(&room, full(1)).await, Some(Failure::Full));
        let other = Room::within(Arc::clone(&shared));
        assert_eq!(refused(&other, full(1)).await, None);
        let rest = u32::try_from(shared.available_permits()).unwrap();
        let _rest = Arc::clone(&shared).try_acquire_many_owned(rest).unwrap();
        assert_eq!(refused(&other, full(1)).await, Some(Failure::Full));
        assert_eq!(refused(&other, full(0)).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_breaks_off_or_never_comes_is_refused() {
        let room = Room::within(Arc::new(Semaphore::new(OF_ALL)));
        let broken = Frames::from([Ok(Frame::data("half".into())), Err("gone")]);
        assert_eq!(refused(&room, frames(broken)).await, Some(Failure::Broken));
        let silent = StreamBody::new(stream::pending::<Result<Frame<Bytes>, &'static str>>());
        assert_eq!(refused(&room, silent).await, Some(Failure::Slow));
    }
}
