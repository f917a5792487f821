//! Endpoints that run until somebody ends them: what is shown meanwhile, and with which status it ends.

use std::ffi::OsStr;
use std::io::{self, IsTerminal as _, Write};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::{interval, sleep, timeout};

use super::asker::Asker;
use super::usage;
use crate::agent::{Agent, Ended, Served};
use crate::config::{ConsoleUi, LogFormat, LogLevel, LogTarget, Settings, WebAddress};
use crate::connect::Route;
use crate::console::{self, Left, Line, Look, Numbers, Sources, plain};
use crate::inspect::{self, Access, Inspector, Limits};
use crate::logging::{self, Log};
use crate::publisher::{FINISH, Failure, Heartbeat};
use crate::{Endpoint, exit};
use crate::{Phase, Status};

/// What is shown and kept of a run. What is not said stands in the file.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Output")]
pub(super) struct RunArgs {
    /// Keep a log: stdout, stderr, a file, or false
    #[arg(long, value_name = "PLACE", value_hint = clap::ValueHint::FilePath)]
    log: Option<LogTarget>,
    /// The form of the log
    #[arg(long, value_enum, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
    /// What is logged, with what is worse
    #[arg(long, value_enum, value_name = "LEVEL")]
    log_level: Option<LogLevel>,
    /// Print lines also on a terminal, in place of the full-screen view
    #[arg(long)]
    plain: bool,
    /// Where the inspector listens, or false for nowhere; the next free port if that is taken
    #[arg(long, value_name = "ADDRESS")]
    web_addr: Option<WebAddress>,
}

impl RunArgs {
    /// Where nobody sees what is printed.
    #[cfg(windows)]
    pub(super) fn logging_to(log: LogTarget) -> Self {
        Self { log: Some(log), ..Self::default() }
    }

    /// Over what the file says.
    pub(super) fn over(self, settings: &mut Settings) {
        let Self { log, log_format, log_level, plain, web_addr } = self;
        settings.log = log.unwrap_or_else(|| settings.log_target());
        settings.log_format = log_format.unwrap_or(settings.log_format);
        settings.log_level = log_level.unwrap_or(settings.log_level);
        if plain {
            settings.console_ui = ConsoleUi::Never;
        }
        if let Some(address) = web_addr {
            settings.web_addr = address;
            settings.web_addr_is_said = true;
        }
    }
}

/// One thread: each endpoint brings its own.
pub(super) fn runtime() -> Result<Runtime, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failure::lasting(exit::HERE, format!("no runtime: {error}")))
}

/// Publishes until all endpoints have ended or somebody ends them. What it gives is the exit status.
///
/// # Errors
/// Nothing could be published, or an endpoint ended for good, whatever became of the others.
pub(super) fn run(endpoints: Vec<Endpoint>, route: Route, settings: &Settings) -> Result<u8, Failure> {
    let log = Log { target: settings.log.clone(), format: settings.log_format, level: settings.log_level };
    logging::start(&log)
        .map_err(|error| usage(format!("the log cannot be kept in {}: {error}", place(&log))))?;
    for warning in route.warnings() {
        let _ = writeln!(io::stderr(), "{warning}");
    }
    let runtime = runtime()?;
    runtime.block_on(async {
        let heartbeat = Heartbeat {
            interval: settings.heartbeat_interval.get(),
            tolerance: settings.heartbeat_tolerance.get(),
        };
        let mut limits = Limits::of_option(settings.inspect_db_size.into());
        if settings.web_addr == WebAddress::Off && !has_screen(settings) {
            // Nobody could look at it.
            limits.memory = 0;
        }
        let asker = Asker::default();
        let route = Arc::new(route.asking(Arc::new(asker.clone())));
        let (agent, mut ended) = Agent::new(route, heartbeat, Inspector::new(limits));
        let agent = Arc::new(agent);
        let inspected = inspect(&agent, settings).await?;
        let names: Vec<_> = endpoints.iter().map(|it| it.name.clone()).collect();
        let started =
            endpoints.into_iter().try_for_each(|endpoint| agent.start(endpoint).map_err(Failure::from));
        let mut failures = Failures::of(names.clone(), has_screen(settings));
        let over = match started {
            Ok(()) => tokio::select! {
                () = all_ended(&agent, &mut ended, &mut failures) => Ok(()),
                left = show(&agent, settings, &asker, &names) => left,
                failed = inspected => failed,
            },
            Err(failure) => Err(failure),
        };
        end(&agent, &mut ended, &mut failures).await;
        over.and_then(|()| failures.first())
    })
}

/// Ends in order: no new visits come, and those that run have time, unless somebody asks again.
async fn end(agent: &Agent, ended: &mut mpsc::UnboundedReceiver<Ended>, failures: &mut Failures) {
    agent.stop_all();
    let mut again = pin!(console::asked_to_end());
    let mut all = pin!(wait_for_all(agent, ended, failures));
    tokio::select! {
        () = &mut all => return,
        () = &mut again => {}
        () = wait_in_words(agent) => {}
    }
    agent.cut_all();
    let _ = timeout(LAST_WORDS, all).await;
}

/// Gives visits their time, and says what is waited for if it takes any.
async fn wait_in_words(agent: &Agent) {
    // Connections that are only kept end with the endpoint.
    sleep(UNNOTICED).await;
    let visits = numbers(agent).open;
    if visits > 0 {
        let visits = if visits == 1 { "1 visit".to_owned() } else { format!("{visits} visits") };
        let _ = writeln!(io::stderr(), "waiting for {visits}; press Ctrl-C again to end at once");
        tracing::info!("waiting for {visits}");
    }
    sleep(FINISH + FAREWELL).await;
}

/// Of the endpoints that were asked for: those that have ended for good. Each is told once.
struct Failures {
    asked_for: Vec<String>,
    /// Where others run on, one that ends is news at once, unless the view is drawn there.
    at_once: bool,
    has_screen: bool,
    /// The same for several endpoints is one.
    all: Vec<(Vec<String>, Failure)>,
}

impl Failures {
    fn of(asked_for: Vec<String>, has_screen: bool) -> Self {
        Self { at_once: asked_for.len() > 1 && !has_screen, has_screen, asked_for, all: Vec::new() }
    }

    /// Whoever manages the agent over its API lets it run on without endpoints.
    fn note(&mut self, over: Ended, is_managed: bool) {
        // What the API started and the server refused, its caller was told.
        let (Err(failure), true) = (over.result, self.asked_for.contains(&over.name)) else { return };
        tracing::error!(obj = "tunnels", name = over.name, err = %failure, "tunnel ended");
        self.at_once |= is_managed && !self.has_screen;
        self.add(over.name, failure, &mut io::stderr());
    }

    fn add(&mut self, name: String, failure: Failure, out: &mut impl Write) {
        match self.all.iter_mut().find(|(_, it)| *it == failure) {
            Some((names, _)) => {
                if self.at_once {
                    let _ = writeln!(out, "{name}: the same");
                }
                names.push(name);
            }
            None => {
                if self.at_once {
                    let _ = writeln!(out, "{}", failure.clone().of(&name));
                }
                self.all.push((vec![name], failure));
            }
        }
    }

    /// The first decides the exit status, and is an error as long as nobody has been told; the others are printed here.
    fn first(self) -> Result<u8, Failure> {
        let Some((_, first)) = self.all.first() else { return Ok(0) };
        if self.at_once {
            return Ok(first.exit_status());
        }
        let is_one = self.asked_for.len() == 1;
        let mut all = self.all.into_iter().map(|(names, failure)| match is_one {
            true => failure,
            false => failure.of(&names.join(", ")),
        });
        let Some(first) = all.next() else { return Ok(0) };
        for failure in all {
            let _ = writeln!(io::stderr(), "{failure}");
        }
        Err(first)
    }
}

/// Opens the inspector, unless it is not wanted. What it gives serves it.
async fn inspect(
    agent: &Arc<Agent>,
    settings: &Settings,
) -> Result<impl Future<Output = Result<(), Failure>> + use<>, Failure> {
    let mut listener = None;
    if let WebAddress::At(address) = &settings.web_addr {
        let bound = match tokio::net::lookup_host(address).await.map(|mut all| all.next()) {
            Ok(Some(at)) => inspect::bind(at).await,
            Ok(None) => Err(io::ErrorKind::AddrNotAvailable.into()),
            Err(error) => Err(error),
        };
        let failed = |error| format!("the inspector cannot listen at {address}: {error}");
        let bound = match bound.map_err(failed) {
            Err(why) if settings.web_addr_is_said => return Err(usage(why)),
            // Nobody has asked for it: what is published matters more.
            Err(why) => {
                let _ = writeln!(io::stderr(), "{why}; going on without it (another port: --web-addr)");
                None
            }
            Ok(bound) => Some(bound),
        };
        if let Some(Ok(at)) = bound.as_ref().map(tokio::net::TcpListener::local_addr) {
            if !at.ip().is_loopback() && settings.web_allow_hosts.is_empty() {
                let why = "would open what visitors send, and files of this machine, to its network: say in web_allow_hosts of \
                           the file under which hosts it may be called";
                return Err(usage(format!("the inspector at {at} {why}")));
            }
            agent.board.update(|status| status.web = Some(format!("http://{at}")));
        }
        listener = bound;
    }
    let allowed: Result<_, _> = settings.web_allow_hosts.iter().map(|host| host.parse()).collect();
    let access = Access { allowed: allowed.map_err(|error| usage(format!("web_allow_hosts: {error}")))? };
    let (inspector, local) = (agent.inspector.clone(), Arc::new(Served::new(Arc::clone(agent), settings)));
    Ok(async move {
        let Some(listener) = listener else { return std::future::pending().await };
        let served = inspect::serve(listener, inspector, local, access).await;
        served.map_err(|error| usage(format!("the inspector: {error}")))
    })
}

/// Shows how it goes, until somebody ends the program.
async fn show(
    agent: &Agent,
    settings: &Settings,
    asker: &Asker,
    asked_for: &[String],
) -> Result<(), Failure> {
    if has_screen(settings) {
        tokio::select! {
            () = first_answers(agent) => asker.give_up_terminal(),
            () = console::asked_to_end() => return Ok(()),
        }
        let (count, numbers) = watch::channel(Numbers::default());
        let (lines, requests) = broadcast::channel(LINES);
        let sources = Sources { status: agent.board.watch(), numbers, requests };
        let left = tokio::select! {
            left = console::run(sources, Look::of_this_terminal(settings.console_ui_color)) => left.map_err(usage)?,
            () = tell_console(agent, &count, &lines) => Left::Over,
        };
        tracing::debug!(?left, "the console is closed");
        return match left {
            Left::Quit | Left::Signal => Ok(()),
            Left::Over => std::future::pending().await,
        };
    }
    let out = (settings.log != LogTarget::Stdout).then(io::stdout);
    if let (Some(mut out), Some(web)) = (out.as_ref(), agent.board.read().web) {
        let _ = writeln!(out, "Inspector   {web}");
    }
    tokio::select! {
        () = plain::lines(agent.board.watch(), out, asked_for) => std::future::pending().await,
        () = console::asked_to_end() => Ok(()),
    }
}

/// Whether there is a full-screen view.
fn has_screen(settings: &Settings) -> bool {
    match settings.console_ui {
        // Nothing may be logged where the view is drawn.
        _ if matches!(settings.log, LogTarget::Stdout | LogTarget::Stderr) => false,
        ConsoleUi::Always => true,
        ConsoleUi::Never => false,
        ConsoleUi::IfTty => {
            io::stdout().is_terminal()
                && io::stdin().is_terminal()
                && can_draw(std::env::var_os("TERM").as_deref())
        }
    }
}

/// Whether a terminal of this name has places to write at. On Unix one without a name is not known to have; Windows
/// gives none.
fn can_draw(term: Option<&OsStr>) -> bool {
    match term.filter(|name| !name.is_empty()) {
        Some(name) => name != "dumb",
        None => cfg!(windows),
    }
}

/// Waits until it is known how the first attempt of each endpoint went: until then a person may be asked something.
async fn first_answers(agent: &Agent) {
    let mut watch = agent.board.watch();
    let connects = |status: &Status| status.endpoints.iter().any(|it| it.phase == Phase::Connecting);
    let _ = watch.wait_for(|status| !connects(status)).await;
}

/// Gives the console what it shows beside the status.
async fn tell_console(agent: &Agent, count: &watch::Sender<Numbers>, lines: &broadcast::Sender<Line>) {
    let mut finished = agent.inspector.finished();
    let mut second = interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            Some(line) = finished.next() => {
                let _ = lines.send(line);
            }
            _ = second.tick() => {
                let now = numbers(agent);
                count.send_if_modified(|before| std::mem::replace(before, now) != now);
            }
        }
    }
}

/// Of all endpoints.
fn numbers(agent: &Agent) -> Numbers {
    let figures = agent.board.read().endpoints.into_iter();
    let figures = figures.map(|it| agent.inspector.metrics(&it.name).connections.figures());
    figures.fold(Numbers::default(), |all, one| Numbers {
        total: all.total + one.count,
        open: all.open + one.gauge,
        rate1: all.rate1 + one.rate1,
        rate5: all.rate5 + one.rate5,
        // There is no percentile of several; the worst is what one looks for.
        p50: all.p50.max(one.p50),
        p90: all.p90.max(one.p90),
    })
}

/// Waits until no endpoint is left that could come back.
async fn all_ended(agent: &Agent, ended: &mut mpsc::UnboundedReceiver<Ended>, failures: &mut Failures) {
    while agent.runs() || agent.is_managed() {
        let Some(over) = ended.recv().await else { break };
        agent.forget(&over);
        failures.note(over, agent.is_managed());
    }
}

async fn wait_for_all(agent: &Agent, ended: &mut mpsc::UnboundedReceiver<Ended>, failures: &mut Failures) {
    while !agent.is_done() {
        let Some(over) = ended.recv().await else { return };
        agent.forget(&over);
        failures.note(over, agent.is_managed());
    }
}

/// Finished requests that wait to be drawn.
const LINES: usize = 64;
fn place(log: &Log) -> String {
    match &log.target {
        LogTarget::File(path) => path.display().to_string(),
        LogTarget::Off | LogTarget::Stdout | LogTarget::Stderr => "its place".to_owned(),
    }
}

/// For goodbyes to the server.
const FAREWELL: Duration = Duration::from_secs(5);
/// The same when somebody does not want to wait.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// An end that takes no longer needs no word.
const UNNOTICED: Duration = Duration::from_millis(300);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ServerOptions;
    use crate::connect::SshConfigFile;

    /// Nothing of this machine (RFC 5737).
    const ELSEWHERE: &str = "192.0.2.1:4040";

    #[tokio::test]
    async fn an_inspector_that_nobody_asked_for_does_not_stop_what_is_published() {
        let options = ServerOptions {
            address: Some("tunnel.example.com".into()),
            ssh_config: SshConfigFile::None,
            ..ServerOptions::default()
        };
        let route = Arc::new(Route::resolve(&options).unwrap());
        let (agent, _ended) = Agent::new(route, Heartbeat::default(), Inspector::new(Limits::default()));
        let agent = Arc::new(agent);
        let mut settings = Settings { web_addr: WebAddress::At(ELSEWHERE.into()), ..Settings::default() };
        assert!(inspect(&agent, &settings).await.is_ok());
        assert_eq!(agent.board.read().web, None);
        let said = RunArgs { web_addr: Some(WebAddress::At(ELSEWHERE.into())), ..RunArgs::default() };
        said.over(&mut settings);
        let failed = inspect(&agent, &settings).await.err().unwrap();
        assert!(failed.to_string().contains(ELSEWHERE), "{failed}");
    }

    #[test]
    fn a_terminal_that_cannot_draw_gets_lines() {
        assert!(can_draw(Some(OsStr::new("xterm-256color"))));
        assert!(!can_draw(Some(OsStr::new("dumb"))));
        for nameless in [Some(OsStr::new("")), None] {
            assert_eq!(can_draw(nameless), cfg!(windows));
        }
    }

    /// What is printed of failures as they come, and what the end makes of them.
    fn told(asked_for: &[&str], has_screen: bool, ends: &[(&str, &str)]) -> (String, Result<u8, String>) {
        let mut failures = Failures::of(asked_for.iter().map(|it| (*it).to_owned()).collect(), has_screen);
        let mut out = Vec::new();
        for (name, why) in ends {
            failures.add((*name).to_owned(), Failure::lasting(exit::REFUSED, *why), &mut out);
        }
        (String::from_utf8(out).unwrap(), failures.first().map_err(|it| it.to_string()))
    }

    #[test]
    fn each_failure_is_told_once() {
        assert_eq!(told(&["a"], false, &[]), (String::new(), Ok(0)));
        assert_eq!(told(&["a"], false, &[("a", "taken")]), (String::new(), Err("taken".to_owned())));
        let ends = [("b", "taken"), ("a", "taken")];
        let both = ("b: taken\na: the same\n".to_owned(), Ok(exit::REFUSED));
        assert_eq!(told(&["a", "b"], false, &ends), both);
        assert_eq!(told(&["a", "b"], true, &ends), (String::new(), Err("b, a: taken".to_owned())));
    }
}
