//! What the server has of the machine, and what is held against it when everybody has left.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::stage::Stage;

/// How long after everybody has left all may be as before. A client that was stopped or cut off is noticed after 15 s,
/// and visitors wait 5 s for it.
const TO_REST: Duration = Duration::from_secs(60);
/// Nothing is looked at before: idle threads for blocking work end after 10 s.
const AT_LEAST: Duration = Duration::from_secs(12);
/// For so long memory is looked at then; the least counts.
const LOOK_FOR: Duration = Duration::from_secs(5);

/// A look at the server.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Figures {
    pub(super) rss_kib: u64,
    pub(super) files: u64,
    pub(super) threads: u64,
    pub(super) spool_files: u64,
    pub(super) spool_bytes: u64,
    pub(super) sessions: u64,
    pub(super) endpoints: u64,
}

impl Figures {
    /// With which nothing is compared.
    pub(super) fn whatever() -> Self {
        Self {
            files: u64::MAX,
            threads: u64::MAX,
            sessions: u64::MAX,
            endpoints: u64::MAX,
            ..Self::default()
        }
    }

    /// What a server that was lazy at its start may have after its first visits.
    pub(super) fn before_warm_up(self) -> Self {
        Self { files: u64::MAX, threads: u64::MAX, ..self }
    }

    /// Without what the server has to be asked for.
    pub(super) fn now(stage: &Stage) -> Self {
        let server = &stage.server;
        Self {
            rss_kib: server.rss_kib(),
            files: server.open_files() as u64,
            threads: server.threads(),
            spool_files: server.spool_files().count() as u64,
            spool_bytes: server.spooled(),
            sessions: 0,
            endpoints: 0,
        }
    }

    /// The greatest of each.
    pub(super) fn peak(self, other: Self) -> Self {
        Self {
            rss_kib: self.rss_kib.max(other.rss_kib),
            files: self.files.max(other.files),
            threads: self.threads.max(other.threads),
            spool_files: self.spool_files.max(other.spool_files),
            spool_bytes: self.spool_bytes.max(other.spool_bytes),
            sessions: self.sessions.max(other.sessions),
            endpoints: self.endpoints.max(other.endpoints),
        }
    }

    /// With what the server says about itself.
    pub(super) async fn asked(stage: &Stage) -> Result<Self, String> {
        let status = stage.ask("status").await?;
        let number = |name: &str| status.get(name).and_then(serde_json::Value::as_u64);
        let (sessions, endpoints) = (number("sessions"), number("endpoints"));
        let sessions = sessions.ok_or("no number of sessions in the status")?;
        let endpoints = endpoints.ok_or("no number of endpoints in the status")?;
        Ok(Self { sessions, endpoints, ..Self::now(stage) })
    }

    /// What is left that was not there `before`, apart from memory.
    fn left(self, before: Self) -> Vec<String> {
        let more =
            |name: &str, now: u64, then: u64| (now > then).then(|| format!("{now} {name}, before {then}"));
        let all = [
            more("descriptors", self.files, before.files),
            more("threads", self.threads, before.threads),
            more("spool files", self.spool_files, 0),
            more("sessions", self.sessions, before.sessions),
            more("endpoints", self.endpoints, before.endpoints),
        ];
        all.into_iter().flatten().collect()
    }
}

/// When everybody has left: waits until all is as it was `before`, and says what is not.
pub(super) async fn at_rest(stage: &Stage, before: Figures) -> (Figures, Vec<String>) {
    let end = Instant::now() + TO_REST;
    sleep(AT_LEAST).await;
    loop {
        let (now, mut left) = match Figures::asked(stage).await {
            Ok(now) => (now, now.left(before)),
            Err(why) => (Figures::now(stage), vec![why]),
        };
        if left.is_empty() || Instant::now() > end {
            left.extend(live_names(stage).await);
            let least = least_memory(stage).await;
            return (Figures { rss_kib: least.min(now.rss_kib), ..now }, left);
        }
        sleep(Duration::from_secs(1)).await;
    }
}

async fn least_memory(stage: &Stage) -> u64 {
    let end = Instant::now() + LOOK_FOR;
    let mut least = stage.server.rss_kib();
    while Instant::now() < end {
        sleep(Duration::from_millis(500)).await;
        least = least.min(stage.server.rss_kib());
    }
    least
}

/// Names that are still said to be live, and sessions of publishers.
async fn live_names(stage: &Stage) -> Vec<String> {
    let mut left = Vec::new();
    match stage.ask("names").await {
        Ok(names) => left.extend(names.as_array().into_iter().flatten().filter_map(|name| {
            let state = name.get("state")?.as_str()?;
            state.contains("live").then(|| format!("a live name: {name}"))
        })),
        Err(why) => left.push(why),
    }
    match stage.ask("sessions").await {
        Ok(sessions) => left.extend(sessions.as_array().into_iter().flatten().filter_map(|session| {
            let urls = session.get("urls")?.as_array()?;
            (!urls.is_empty()).then(|| format!("a session: {session}"))
        })),
        Err(why) => left.push(why),
    }
    left
}

/// The most memory at the last rest, by what it was at the first one, in KiB: a quarter more and 16 MiB. Allocators keep
/// what they once had in pieces; what leaks with each visit or publisher passes any such bound in the end.
pub(super) fn memory_bound(first: u64) -> u64 {
    first + first / 4 + (16 << 10)
}
