//! Where there is no terminal: a line for each change, for scripts and logs.

use std::io::{self, Write};

use hithe_cli_parser::printable;
use tokio::sync::watch;

use super::screen::own;
use crate::{EndpointStatus, Phase, Status};

/// Tells what becomes of the endpoints, until nobody keeps the status up to date any more: as events for the log, and
/// if `out` is given as plain lines there. Why one of `told` has ended for good is told elsewhere. A reader who has gone
/// is no error.
pub(crate) async fn lines(mut status: watch::Receiver<Status>, mut out: Option<impl Write>, told: &[String]) {
    let mut before: Vec<EndpointStatus> = Vec::new();
    loop {
        let now = status.borrow_and_update().endpoints.clone();
        for endpoint in &now {
            let known = before.iter().find(|it| it.name == endpoint.name);
            let changes = [Change::between(known, endpoint), Change::of_upstream(known, endpoint)];
            let is_told = |change| change == Change::Ended && told.contains(&endpoint.name);
            for change in changes.into_iter().flatten().filter(|change| !is_told(*change)) {
                change.log(endpoint);
                if let Some(writer) = &mut out
                    && change.write(endpoint, writer).is_err()
                {
                    out = None;
                }
            }
        }
        for gone in before.iter().filter(|it| now.iter().all(|endpoint| endpoint.name != it.name)) {
            Change::Stopped.log(gone);
            out =
                out.and_then(|mut writer| Change::Stopped.write(gone, &mut writer).is_ok().then_some(writer));
        }
        before = now.into_iter().map(|endpoint| remembered(endpoint, &before)).collect();
        if status.changed().await.is_err() {
            return;
        }
    }
}

/// An attempt is no news: what was told before it still holds until it succeeds or fails.
fn remembered(now: EndpointStatus, before: &[EndpointStatus]) -> EndpointStatus {
    let old = before.iter().find(|it| it.name == now.name && now.phase == Phase::Connecting);
    old.cloned().unwrap_or(now)
}

/// What is worth a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Started,
    /// Under the same URLs as before.
    Back,
    Lost,
    Ended,
    /// On request.
    Stopped,
    /// The upstream cannot be reached.
    Failing,
    /// It can again.
    Working,
}

impl Change {
    fn between(before: Option<&EndpointStatus>, now: &EndpointStatus) -> Option<Self> {
        let (phase, urls) = before.map_or((&Phase::Connecting, &[][..]), |it| (&it.phase, &it.urls[..]));
        match (phase, &now.phase) {
            (Phase::Online { .. }, Phase::Online { .. }) if urls == now.urls => None,
            (_, Phase::Online { .. }) if urls == now.urls && !urls.is_empty() => Some(Self::Back),
            (_, Phase::Online { .. }) => Some(Self::Started),
            (Phase::Waiting { why: old, .. }, Phase::Waiting { why, .. }) if old == why => None,
            // The first attempt after a loss needs no word.
            (_, Phase::Waiting { .. }) => Some(Self::Lost),
            (Phase::Ended { .. }, Phase::Ended { .. }) | (_, Phase::Connecting) => None,
            (_, Phase::Ended { .. }) => Some(Self::Ended),
        }
    }

    fn of_upstream(before: Option<&EndpointStatus>, now: &EndpointStatus) -> Option<Self> {
        let old = before.and_then(|it| it.unreachable.as_ref());
        match &now.unreachable {
            why if why.as_ref() == old => None,
            Some(_) => Some(Self::Failing),
            None => Some(Self::Working),
        }
    }

    fn write(self, endpoint: &EndpointStatus, out: &mut impl Write) -> io::Result<()> {
        let upstream = own(&endpoint.upstream);
        let mut each = |word: &str, behind: &str| -> io::Result<()> {
            if endpoint.urls.is_empty() {
                writeln!(out, "{word:<12}{}{behind}", own(&endpoint.name))?;
            }
            endpoint.urls.iter().try_for_each(|url| writeln!(out, "{word:<12}{}{behind}", printable(url)))
        };
        let behind = match &endpoint.phase {
            // The rest is advice, and comes at the end.
            Phase::Waiting { why, .. } | Phase::Ended { why } => {
                format!(" ({})", printable(why.lines().next().unwrap_or_default()))
            }
            Phase::Connecting | Phase::Online { .. } => String::new(),
        };
        match self {
            Self::Started => each("Forwarding", &format!(" -> {upstream}")),
            Self::Back => each("Reconnected", &format!(" -> {upstream}")),
            Self::Lost if endpoint.urls.is_empty() => each("Retrying", &behind),
            Self::Lost => each("Lost", &behind),
            Self::Ended => each("Ended", &behind),
            Self::Stopped => each("Stopped", ""),
            Self::Failing => {
                let why = endpoint.unreachable.as_deref().unwrap_or_default();
                each("Failing", &format!(" -> {upstream} ({})", printable(why)))
            }
            Self::Working => each("Working", &format!(" -> {upstream}")),
        }?;
        out.flush()
    }

    /// The messages and fields of ngrok's agent where it has such, since scripts look for them.
    fn log(self, endpoint: &EndpointStatus) {
        let (name, addr) = (endpoint.name.as_str(), endpoint.upstream.as_str());
        let url = endpoint.urls.first().map_or("", String::as_str);
        match (self, &endpoint.phase) {
            (Self::Started | Self::Back, _) => {
                let msg = if self == Self::Started { "started tunnel" } else { "tunnel is back" };
                for url in &endpoint.urls {
                    tracing::info!(obj = "tunnels", name, addr, url, "{msg}");
                }
            }
            (Self::Lost, Phase::Waiting { why, .. }) => {
                tracing::warn!(obj = "csess", name, url, err = why.as_str(), "connection lost, reconnecting");
            }
            (Self::Ended, Phase::Ended { why }) => {
                tracing::error!(obj = "tunnels", name, url, err = why.as_str(), "tunnel ended");
            }
            (Self::Failing, _) => {
                let err = endpoint.unreachable.as_deref();
                tracing::warn!(obj = "tunnels", name, addr, url, err, "cannot reach the upstream");
            }
            (Self::Working, _) => {
                tracing::info!(obj = "tunnels", name, addr, url, "the upstream is back");
            }
            _ => tracing::info!(obj = "tunnels", name, url, "stopped tunnel"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    fn endpoint(phase: Phase) -> EndpointStatus {
        EndpointStatus {
            name: "web".into(),
            kind: "http",
            upstream: "localhost:80".into(),
            inspect: true,
            urls: vec!["https://a.test".into(), "http://a.test".into()],
            account: None,
            latency: None,
            phase,
            unreachable: None,
        }
    }

    /// What is written while the endpoint goes through these.
    async fn told(phases: impl IntoIterator<Item = EndpointStatus>) -> String {
        told_beside(phases, &[]).await
    }

    /// The same, of whose ends some are told elsewhere.
    async fn told_beside(phases: impl IntoIterator<Item = EndpointStatus>, elsewhere: &[String]) -> String {
        let (sender, receiver) = watch::channel(Status::default());
        let (mut reader, writer) = io::pipe().unwrap();
        let story = async {
            for endpoint in phases {
                sender.send_modify(|status| status.endpoints = vec![endpoint]);
                // The teller takes each before the next comes.
                tokio::task::yield_now().await;
            }
            drop(sender);
        };
        tokio::join!(lines(receiver, Some(writer), elsewhere), story);
        io::read_to_string(&mut reader).unwrap()
    }

    fn online() -> Phase {
        Phase::Online { since: SystemTime::now() }
    }

    fn waiting(why: &str) -> Phase {
        Phase::Waiting { until: SystemTime::now() + Duration::from_secs(5), why: why.into() }
    }

    #[tokio::test]
    async fn a_script_reads_where_it_leads_and_what_becomes_of_it() {
        let mut same = endpoint(online());
        same.latency = Some(Duration::from_millis(3));
        let mut new = endpoint(Phase::Connecting);
        new.urls.clear();
        let story = [
            new,
            endpoint(online()),
            same,
            endpoint(waiting("reset")),
            endpoint(Phase::Connecting),
            endpoint(online()),
            endpoint(Phase::Ended { why: "taken\x1b[2J".into() }),
        ];
        assert_eq!(
            told(story).await,
            "Forwarding  https://a.test -> localhost:80\n\
             Forwarding  http://a.test -> localhost:80\n\
             Lost        https://a.test (reset)\n\
             Lost        http://a.test (reset)\n\
             Reconnected https://a.test -> localhost:80\n\
             Reconnected http://a.test -> localhost:80\n\
             Ended       https://a.test (taken\\u{1b}[2J)\n\
             Ended       http://a.test (taken\\u{1b}[2J)\n"
        );
    }

    #[tokio::test]
    async fn an_upstream_that_cannot_be_reached_is_told_once_and_when_it_is_back() {
        let failing = |why: &str| EndpointStatus { unreachable: Some(why.into()), ..endpoint(online()) };
        let mut story = [endpoint(online()), failing("refused"), failing("refused"), endpoint(online())];
        story.iter_mut().for_each(|it| it.urls.truncate(1));
        assert_eq!(
            told(story).await,
            "Forwarding  https://a.test -> localhost:80\n\
             Failing     https://a.test -> localhost:80 (refused)\n\
             Working     https://a.test -> localhost:80\n"
        );
    }

    #[tokio::test]
    async fn an_end_that_is_told_elsewhere_is_no_line_here() {
        let ended = || endpoint(Phase::Ended { why: "taken".into() });
        assert_eq!(told_beside([ended()], &["web".to_owned()]).await, "");
        assert!(
            told_beside([ended()], &["other".to_owned()]).await.starts_with("Ended       https://a.test")
        );
    }

    #[tokio::test]
    async fn one_reason_for_waiting_is_told_once() {
        let mut unborn = endpoint(waiting("refused"));
        unborn.urls.clear();
        let again = endpoint(Phase::Connecting);
        assert_eq!(told([unborn.clone(), again, unborn]).await, "Retrying    web (refused)\n");
    }

    #[tokio::test]
    async fn a_reader_who_has_gone_does_not_end_it() {
        let (sender, receiver) = watch::channel(Status::default());
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        sender.send_modify(|status| status.endpoints = vec![endpoint(online())]);
        let telling = lines(receiver, Some(writer), &[]);
        tokio::pin!(telling);
        let is_over = futures_util::poll!(telling.as_mut()).is_ready();
        assert!(!is_over);
        drop(sender);
        telling.await;
    }
}
