//! Visits of all kinds. What they ask for they know beforehand, to the byte; anything else is wrong.

mod lines;
mod web;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fastrand::Rng;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::place::{Place, Speech, Unrest};
use super::stage::Stage;
use crate::payload::Checker;

/// No visit takes longer; one that does hangs, whatever happens to its publisher.
const LONGEST: Duration = Duration::from_secs(100);
/// How long a visitor may wait for a publisher that said nothing about being public.
const SERVED_WITHIN: Duration = Duration::from_secs(30);

/// What was not as it should be.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Nothing excuses this: other bytes, another's answer, an end that looks orderly and is none.
    Wrong(String),
    /// No answer, or one that says why not.
    Failed(String),
}

impl Trouble {
    fn failed(error: impl std::fmt::Display) -> Self {
        Self::Failed(error.to_string())
    }
}

/// What a visitor does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Get,
    Kept,
    Http2,
    Upload,
    Events,
    WebSocket,
    SlowReader,
    Leaver,
    WrongPassword,
    UnknownName,
    Silent,
    Conversation,
    LineLeaver,
}

impl Kind {
    const WEB: &[Self] = &[
        Self::Get,
        Self::Get,
        Self::Kept,
        Self::Http2,
        Self::Upload,
        Self::Upload,
        Self::Events,
        Self::WebSocket,
        Self::SlowReader,
        Self::Leaver,
        Self::UnknownName,
        Self::Silent,
    ];
    const LINES: &[Self] = &[Self::Conversation, Self::Conversation, Self::Conversation, Self::LineLeaver];

    fn name(self) -> &'static str {
        match self {
            Self::Get => "visits: one request",
            Self::Kept => "visits: requests on a kept connection",
            Self::Http2 => "visits: requests side by side over HTTP/2",
            Self::Upload => "visits: upload",
            Self::Events => "visits: server-sent events",
            Self::WebSocket => "visits: WebSocket",
            Self::SlowReader => "visits: slow reader",
            Self::Leaver => "visits: left in the middle",
            Self::WrongPassword => "visits: wrong password",
            Self::UnknownName => "visits: unknown name",
            Self::Silent => "visits: connected, said little and left",
            Self::Conversation => "visits: conversation over tls or tcp",
            Self::LineLeaver => "visits: left in the middle of tls or tcp",
        }
    }
}

/// One visit.
#[derive(Debug)]
struct Visit {
    stage: Arc<Stage>,
    place: Arc<Place>,
    rng: Rng,
}

/// A stretch of the payload that one request is about.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    /// Unlike that of any other request of the run.
    visit: u64,
    from: u64,
    length: u64,
}

/// Visits one place after another until all is over.
pub(super) async fn come(
    stage: Arc<Stage>,
    number: usize,
    mut rng: Rng,
    over: watch::Receiver<bool>,
) -> Option<Unrest> {
    while !*over.borrow() {
        let Some(place) = rng.choice(&stage.places).map(Arc::clone) else { break };
        let kinds = if place.speech == Speech::Web { Kind::WEB } else { Kind::LINES };
        let mut kind = rng.choice(kinds).copied().unwrap_or(Kind::Get);
        if place.guarded && rng.u8(..3) == 0 {
            kind = Kind::WrongPassword;
        }
        let visit = Visit { stage: Arc::clone(&stage), place, rng: rng.fork() };
        judge(visit, kind, number).await;
        sleep(Duration::from_millis(rng.u64(..400))).await;
    }
    None
}

/// Makes the visit and says what came of it.
async fn judge(visit: Visit, kind: Kind, visitor: usize) {
    let (stage, place) = (Arc::clone(&visit.stage), Arc::clone(&visit.place));
    let who = format!("visitor {visitor} at {}", place.name);
    let watch = place.watch();
    let began = Instant::now();
    let outcome = in_a_task(visit, kind).await;
    // A name that nobody has, and one that is not asked to the end, need no publisher.
    let owed = kind == Kind::UnknownName || watch.calm();
    let took = began.elapsed();
    match outcome {
        Ok(()) => stage.tally.done(kind.name(), owed),
        Err(Trouble::Wrong(why)) => {
            stage.tally.fault(kind.name(), &who, &format!("after {took:.1?}: {why} ({})", place.lately()));
        }
        Err(Trouble::Failed(why)) if owed => {
            stage.tally.fault(kind.name(), &who, &format!("after {took:.1?}: {why} ({})", place.lately()));
        }
        Err(Trouble::Failed(why)) => stage.tally.excused(kind.name(), &why),
    }
}

/// The harness fails by panicking; here that is the failure of one visit.
async fn in_a_task(visit: Visit, kind: Kind) -> Result<(), Trouble> {
    let mut task = JoinSet::new(); // unlike a handle, it takes the task with it
    task.spawn(visit.make(kind));
    match timeout(LONGEST, task.join_next()).await {
        Ok(Some(Ok(outcome))) => outcome,
        Ok(Some(Err(error))) => Err(Trouble::failed(error)),
        Ok(None) => Ok(()),
        Err(_) => Err(Trouble::Wrong(format!("no end within {LONGEST:?}"))),
    }
}

/// Waits until the place answers, for publishers without a session, who are told nothing.
pub(super) async fn until_served(stage: &Arc<Stage>, place: &Arc<Place>) -> Result<(), String> {
    let kind = if place.speech == Speech::Web { Kind::Get } else { Kind::Conversation };
    let end = Instant::now() + SERVED_WITHIN;
    loop {
        let visit = Visit { stage: Arc::clone(stage), place: Arc::clone(place), rng: Rng::with_seed(1) };
        let visited = timeout(Duration::from_secs(5), in_a_task(visit, kind)).await;
        match visited {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(Trouble::Wrong(why))) => return Err(why),
            _ if Instant::now() > end => return Err(format!("not served: {visited:?}")),
            _ => sleep(Duration::from_millis(50)).await,
        }
    }
}

impl Visit {
    async fn make(mut self, kind: Kind) -> Result<(), Trouble> {
        match kind {
            Kind::Get => self.get().await,
            Kind::Kept => self.kept().await,
            Kind::Http2 => self.side_by_side().await,
            Kind::Upload => self.upload().await,
            Kind::Events => self.events().await,
            Kind::WebSocket => self.talk().await,
            Kind::SlowReader => self.read_slowly().await,
            Kind::WrongPassword => self.guess().await,
            Kind::UnknownName => self.miss().await,
            Kind::Silent => self.say_little().await,
            Kind::Conversation => self.converse().await,
            Kind::Leaver => {
                let stay = Duration::from_millis(self.rng.u64(5..1_500));
                let what = self.rng.u8(..4);
                let visit = async {
                    match what {
                        0 => self.upload().await,
                        1 => self.talk().await,
                        2 => self.events().await,
                        _ => self.read_slowly().await,
                    }
                };
                timeout(stay, visit).await.unwrap_or(Ok(()))
            }
            Kind::LineLeaver => {
                let stay = Duration::from_millis(self.rng.u64(5..500));
                timeout(stay, self.converse()).await.unwrap_or(Ok(()))
            }
        }
    }

    /// Most are small, a few are large.
    fn stretch(&mut self) -> Stretch {
        let most = match self.rng.u8(..20) {
            0 => 4 << 20,
            1..=4 => 300 << 10,
            _ => 10 << 10,
        };
        self.stretch_up_to(most)
    }

    fn stretch_up_to(&mut self, most: u64) -> Stretch {
        static VISITS: AtomicU64 = AtomicU64::new(1);
        let visit = VISITS.fetch_add(1, Ordering::Relaxed);
        Stretch { visit, from: self.rng.u64(..1_000_000), length: self.rng.u64(1..most) }
    }

    /// One of the addresses of the place.
    fn address(&mut self) -> Result<String, Trouble> {
        let addresses = self.place.addresses();
        self.rng.choice(addresses).ok_or_else(|| Trouble::failed("nobody was there yet"))
    }
}

impl Stretch {
    fn end(self) -> u64 {
        self.from + self.length
    }

    /// All of it, and nothing else.
    fn is(self, bytes: &[u8]) -> Result<(), Trouble> {
        let mut checker = Checker::starting_at(self.from);
        checker.check(bytes).map_err(Trouble::Wrong)?;
        self.ends(&checker)
    }

    /// An end that looks orderly has to be the end.
    fn ends(self, checker: &Checker) -> Result<(), Trouble> {
        if checker.seen() == self.end() {
            return Ok(());
        }
        let came = checker.seen() - self.from;
        Err(Trouble::Wrong(format!("{came} of {} bytes, and an end that looks orderly", self.length)))
    }
}
