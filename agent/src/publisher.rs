//! Keeps one endpoint published: connects, serves, and connects again under the same name after each loss.

mod stop;

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tokio_util::task::TaskTracker;

use hithe_cli_parser::{Code, Command};
pub(crate) use stop::{AskOnDrop, FINISH, Stop};

use crate::Endpoint;
use crate::connect::{ConnectError, Route};
use crate::exit;
use crate::remedy::in_our_words;
use crate::retry::{self, Backoff};
use crate::session::{Heard, Session, Target};
use crate::status::{Board, Phase};

/// Why an endpoint is not, or no longer, published.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Failure {
    why: String,
    /// With what status the program ends; none where another attempt may help.
    status: Option<u8>,
    /// By the server, which knows us.
    was_refused: bool,
}

impl Failure {
    pub(crate) fn passing(why: impl Into<String>) -> Self {
        Self { why: why.into(), status: None, was_refused: false }
    }

    pub(crate) fn lasting(status: u8, why: impl Into<String>) -> Self {
        Self { why: why.into(), status: Some(status), was_refused: false }
    }

    /// Whether another attempt would end the same way.
    pub const fn is_final(&self) -> bool {
        self.status.is_some()
    }

    /// Says whose failure it is, where there are several.
    pub(crate) fn of(mut self, endpoints: &str) -> Self {
        self.why = format!("{endpoints}: {}", self.why);
        self
    }

    /// With what status a program should end.
    pub const fn exit_status(&self) -> u8 {
        match self.status {
            Some(status) => status,
            None => exit::NETWORK,
        }
    }
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        if error.is_final() {
            return Self::lasting(error.exit_status(), error.in_full());
        }
        Self::passing(error.to_string())
    }
}

/// How often the server is asked whether it is there, and how long it may take to answer (behaviour.md 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    pub interval: Duration,
    pub tolerance: Duration,
}

impl Default for Heartbeat {
    fn default() -> Self {
        Self { interval: Duration::from_secs(10), tolerance: Duration::from_secs(15) }
    }
}

/// One endpoint's connection, again and again.
pub(crate) struct Publisher {
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) route: Arc<Route>,
    pub(crate) target: Target,
    pub(crate) heartbeat: Heartbeat,
    pub(crate) board: Board,
    pub(crate) stop: Stop,
}

/// How a connection came to its end.
enum End {
    /// As we were asked to.
    Stopped,
    Failed(Failure),
    /// It has served long enough.
    Worn,
    /// The server finishes the visits that run, and takes no more.
    Leaving(Failure),
}

/// What is known from one attempt to the next.
#[derive(Default)]
struct Attempts {
    backoff: Backoff,
    server: Option<SocketAddr>,
    /// Ends when a server that is leaving has gone: the next one may be there.
    leaving: Option<JoinHandle<()>>,
}

type Connected = (Session, mpsc::Receiver<Heard>);

impl Publisher {
    /// Runs until it is stopped.
    ///
    /// # Errors
    /// What another attempt would not change.
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let retired = TaskTracker::new();
        let result = self.keep(&retired).await;
        // Whatever ended, sessions that were replaced have visits to finish.
        self.stop.ask();
        retired.close();
        retired.wait().await;
        result
    }

    /// Connects again and again until it is stopped. Sessions that were replaced go to `retired`.
    async fn keep(&self, retired: &TaskTracker) -> Result<(), Failure> {
        let mut attempts = Attempts::default();
        loop {
            self.phase(Phase::Connecting);
            let Err(failure) = self.serve(&mut attempts, retired).await else { return Ok(()) };
            if failure.is_final() {
                self.phase(Phase::Ended { why: failure.to_string() });
                return Err(failure);
            }
            let wait = attempts.backoff.next();
            tracing::warn!(
                endpoint = self.endpoint.name,
                "{failure}; trying again in {:.1} s",
                wait.as_secs_f32()
            );
            self.phase(Phase::Waiting { until: SystemTime::now() + wait, why: failure.to_string() });
            tokio::select! {
                () = retry::pause(wait, attempts.server) => {}
                () = gone(&mut attempts.leaving) => attempts.backoff.reset(),
                () = self.stop.asked() => return Ok(()),
            }
        }
    }

    /// One connection from its beginning to its end, and those that take its place without a gap.
    async fn serve(&self, attempts: &mut Attempts, retired: &TaskTracker) -> Result<(), Failure> {
        let (mut session, mut heard) = match self.connect_as_before().await {
            Err(_) if self.stop.is_asked() => return Ok(()),
            connected => connected?,
        };
        attempts.leaving = None;
        if attempts.server.is_none() {
            // To see changes of the way there, any of its addresses will do.
            let all = tokio::select! {
                all = self.route.first_addresses() => all.ok(),
                () = self.stop.asked() => None,
            };
            attempts.server = all.and_then(|all| all.first().copied());
        }
        let online = Instant::now();
        let mut not_before = Some(Instant::now());
        loop {
            let end = self.attend(&session, &mut heard, not_before).await;
            if online.elapsed() >= SETTLED {
                attempts.backoff.reset();
            }
            match end {
                End::Stopped => {
                    self.finish(session, &mut heard).await;
                    return Ok(());
                }
                End::Failed(failure) => return Err(failure),
                End::Leaving(failure) => {
                    attempts.leaving = Some(self.leave_behind((session, heard), retired));
                    return Err(failure);
                }
                End::Worn => match self.replace(&session, &mut heard).await {
                    Ok(next) => {
                        let old = std::mem::replace(&mut session, next.0);
                        heard = next.1;
                        retired.spawn(retire(old, self.stop.clone()));
                    }
                    Err(End::Failed(failure)) => return Err(failure),
                    Err(End::Leaving(failure)) => {
                        attempts.leaving = Some(self.leave_behind((session, heard), retired));
                        return Err(failure);
                    }
                    Err(End::Stopped) => not_before = None,
                    Err(End::Worn) => not_before = Some(Instant::now() + REPLACE_LATER),
                },
            }
        }
    }

    /// Lets a session finish its visits on a server that is leaving. What it gives ends when that has gone.
    fn leave_behind(&self, session: Connected, retired: &TaskTracker) -> JoinHandle<()> {
        retired.spawn(see_off(session, self.heartbeat, self.stop.clone()))
    }

    /// Takes the endpoint back, and gives running visits their time.
    async fn finish(&self, session: Session, heard: &mut mpsc::Receiver<Heard>) {
        tokio::select! {
            () = session.finish(heard) => {}
            () = self.stop.time_is_over() => {}
        }
        session.leave().await;
    }

    /// Connects and asks for the address that the endpoint had, also where that was left to the server: otherwise two
    /// endpoints that return could change places. If the server gives no address by name, what was asked for at first.
    async fn connect_as_before(&self) -> Result<Connected, Failure> {
        let command = self.command_now();
        match self.connect(&command).await {
            Err(failure) if failure.was_refused && command != self.endpoint.command => {
                self.connect(&self.endpoint.command).await
            }
            connected => connected,
        }
    }

    fn command_now(&self) -> Command {
        let mut command = self.endpoint.command.clone();
        if let Some(url) = self.urls().first() {
            command.claim(url);
        }
        command
    }

    /// Where the endpoint is, or was.
    fn urls(&self) -> Vec<String> {
        self.board.endpoint_now(&self.endpoint.name).map(|it| it.urls).unwrap_or_default()
    }

    /// Connects and asks for the endpoint. Returns when it is public.
    async fn connect(&self, command: &Command) -> Result<Connected, Failure> {
        let stopped = || Failure::passing("stopped");
        let session = tokio::select! {
            opened = Session::open(&self.route, self.target.clone()) => opened?,
            () = self.stop.asked() => return Err(stopped()),
        };
        let (tell, mut heard) = mpsc::channel(LINES);
        let published = async {
            session.publish(self.endpoint.bind(), &command.to_string(), tell).await?;
            self.hear_where(&session, &mut heard).await
        };
        let published = tokio::select! {
            published = timeout(PUBLISH, published) => {
                published.unwrap_or_else(|_| Err(Failure::passing("the server does not answer to the command")))
            }
            () = self.stop.asked() => Err(stopped()),
        };
        match published {
            Ok(()) => Ok((session, heard)),
            Err(failure) => {
                session.leave().await;
                Err(failure)
            }
        }
    }

    /// Opens a connection that takes over from this one, which goes on meanwhile. What it gives in place of that: that we
    /// are to stop, that both are lost, or that this one has to go on.
    async fn replace(&self, old: &Session, heard: &mut mpsc::Receiver<Heard>) -> Result<Connected, End> {
        let command = self.command_now();
        let mut next = pin!(self.connect(&command));
        let ended = tokio::select! {
            next = &mut next => return next.map_err(|failure| {
                tracing::debug!(endpoint = self.endpoint.name, "cannot be replaced: {failure}");
                End::Worn
            }),
            ended = self.attend(old, heard, None) => ended,
        };
        match (ended, next.await) {
            (End::Stopped, next) => {
                // It may be public by now, and visitors would be held for it.
                if let Ok((next, _)) = next {
                    next.leave().await;
                }
                Err(End::Stopped)
            }
            // It may have ended because the next one is there.
            (_, Ok(next)) => Ok(next),
            (End::Leaving(failure), Err(_)) => Err(End::Leaving(failure)),
            (End::Failed(failure), Err(_)) => Err(End::Failed(Failure::passing(failure.to_string()))),
            (End::Worn, Err(_)) => Err(End::Worn),
        }
    }

    /// Waits for the server to say where the endpoint is.
    async fn hear_where(&self, session: &Session, heard: &mut mpsc::Receiver<Heard>) -> Result<(), Failure> {
        let mut said = Vec::new();
        let mut urls = Vec::new();
        let first = async {
            loop {
                match heard.recv().await.unwrap_or(Heard::Closed) {
                    Heard::Forwarding(url) => {
                        urls.push(url);
                        return Ok(());
                    }
                    Heard::Account(account) => {
                        self.board.endpoint(&self.endpoint.name, |it| it.account = Some(account))
                    }
                    Heard::Line(line) if is_leaving(&line) => return Err(Some(Failure::passing(line))),
                    Heard::Error(line) | Heard::Line(line) if said.len() < LINES => said.push(line),
                    Heard::Error(_) | Heard::Line(_) | Heard::Exit(_) => {}
                    Heard::Closed => return Err(None),
                }
            }
        };
        if let Err(leaving) = first.await {
            if let Some(failure) = leaving {
                return Err(failure);
            }
            let before = !self.urls().is_empty();
            return Err(refusal(
                in_our_words(&said, self.endpoint.kind()).or(session.parting_words().await),
                before,
            ));
        }
        self.board.endpoint(&self.endpoint.name, |it| {
            it.urls = urls;
            it.phase = Phase::Online { since: SystemTime::now() };
        });
        Ok(())
    }

    /// Serves until the connection is lost, is worn, or we are to stop.
    async fn attend(
        &self,
        session: &Session,
        heard: &mut mpsc::Receiver<Heard>,
        worn_not_before: Option<Instant>,
    ) -> End {
        tokio::select! {
            end = self.listen(session, heard) => end,
            failure = self.beat(session) => End::Failed(failure),
            () = wears_out(session, worn_not_before) => End::Worn,
            () = self.stop.asked() => End::Stopped,
        }
    }

    /// To what the server says while it forwards.
    async fn listen(&self, session: &Session, heard: &mut mpsc::Receiver<Heard>) -> End {
        let name = &self.endpoint.name;
        let mut last_error = None;
        loop {
            match heard.recv().await.unwrap_or(Heard::Closed) {
                Heard::Forwarding(url) => self.board.endpoint(name, |it| note(&mut it.urls, url)),
                Heard::Account(account) => self.board.endpoint(name, |it| it.account = Some(account)),
                Heard::Error(line) => {
                    tracing::warn!(endpoint = name, "{line}");
                    last_error = Some(line);
                }
                Heard::Line(line) if is_leaving(&line) => return End::Leaving(Failure::passing(line)),
                Heard::Line(line) => tracing::debug!(endpoint = name, "{line}"),
                Heard::Exit(_) => {}
                Heard::Closed => {
                    return End::Failed(refusal_later(session.parting_words().await.or(last_error)));
                }
            }
        }
    }

    /// Until the server does not answer any more.
    async fn beat(&self, session: &Session) -> Failure {
        let note = |latency| self.board.endpoint(&self.endpoint.name, |it| it.latency = Some(latency));
        let error = pulse(session, self.heartbeat, note).await;
        match session.parting_words().await {
            Some(said) => refusal_later(Some(said)),
            None => error.into(),
        }
    }

    fn phase(&self, phase: Phase) {
        self.board.endpoint(&self.endpoint.name, |it| it.phase = phase);
    }
}

/// An endpoint has an address for each scheme.
fn note(urls: &mut Vec<String>, url: String) {
    if urls.len() < MOST_URLS && !urls.contains(&url) {
        urls.push(url);
    }
}

/// Waits until a session should have a successor.
async fn wears_out(session: &Session, not_before: Option<Instant>) {
    let Some(not_before) = not_before else { return std::future::pending().await };
    sleep_until(not_before).await;
    let mut tick = interval(LOOK_AT_WEAR);
    while !session.shared.is_worn() {
        tick.tick().await;
    }
}

/// Lets a session that was replaced finish its visits; in less time if we are to stop. Where its name is shared, the next one
/// stands beside it and has not taken over, so that it has to let go of it.
async fn retire(session: Session, stop: Stop) {
    let finished = async {
        session.take_back().await;
        session.idle().await;
    };
    tokio::select! {
        _ = timeout(RETIREMENT, finished) => {}
        () = stop.time_is_over() => {}
    }
    session.leave().await;
}

/// Whether the server says that it takes no more visits.
fn is_leaving(line: &str) -> bool {
    line.starts_with(&format!("{}:", Code::DRAINING))
}

/// Serves the visits that run on a server that is leaving, until it hangs up.
async fn see_off((session, mut heard): Connected, heartbeat: Heartbeat, stop: Stop) {
    // How long it takes is the server's affair, as long as it is there.
    let hung_up = async { while heard.recv().await.is_some_and(|it| it != Heard::Closed) {} };
    let finished = async {
        stop.asked().await;
        session.idle().await;
    };
    tokio::select! {
        () = hung_up => {}
        _ = pulse(&session, heartbeat, |_| ()) => {}
        () = finished => {}
        () = stop.time_is_over() => {}
    }
    session.leave().await;
}

/// Asks the server again and again whether it is there, until it is not.
async fn pulse(session: &Session, heartbeat: Heartbeat, mut each: impl FnMut(Duration)) -> ConnectError {
    let mut tick = interval(heartbeat.interval);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        match session.heartbeat(heartbeat.tolerance).await {
            Ok(latency) => each(latency),
            Err(error) => return error,
        }
    }
}

/// Waits until a server that is leaving has gone, if there is one.
async fn gone(leaving: &mut Option<JoinHandle<()>>) {
    match leaving {
        Some(last) => {
            // Gone it is also where that failed.
            let _ = last.await;
            *leaving = None;
        }
        None => std::future::pending().await,
    }
}

/// A command that the server did not carry out. What was public before may be so again: ports that are just being
/// closed, a name server that fails.
fn refusal(said: Option<String>, was_public: bool) -> Failure {
    let Some(said) = said else { return Failure::passing("the server ended the connection without a word") };
    let has = |code: &Code| said.contains(&format!("{code}:"));
    let passes = PASSING.iter().any(has) || (was_public && !has(&Code::TAKEN_OVER));
    Failure { why: said, status: (!passes).then_some(exit::REFUSED), was_refused: true }
}

/// The end of a connection over which an endpoint was published.
fn refusal_later(said: Option<String>) -> Failure {
    match said {
        Some(said) if said.contains(&format!("{}:", Code::TAKEN_OVER)) => {
            Failure::lasting(exit::REFUSED, said)
        }
        Some(said) => Failure::passing(said),
        None => Failure::passing("the server closed the connection"),
    }
}

/// Refusals that may not last.
const PASSING: [Code; 3] = [Code::DRAINING, Code::SESSION_LIMIT, Code::TRAFFIC_USED_UP];

/// From the command to the first address.
const PUBLISH: Duration = Duration::from_secs(30);
const MOST_URLS: usize = 8;
const LOOK_AT_WEAR: Duration = Duration::from_secs(1);
/// After the server did not let a connection take over: it allows three a minute.
const REPLACE_LATER: Duration = Duration::from_secs(61);
/// As long as the server gives it.
const RETIREMENT: Duration = Duration::from_secs(10 * 60);
/// A connection that lasted so long says that the next attempt may come soon.
const SETTLED: Duration = Duration::from_secs(1);
/// Of the server that wait to be read.
const LINES: usize = 256;
