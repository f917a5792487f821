//! `hithe diagnose`: each step into the server by itself, how long it takes, and what to do where it fails.

use std::io::{self, Write};
use std::time::Duration;

use hithe_cli_parser::printable;
use russh::client::{Config, DisconnectReason, Handle, Handler, Session};
use russh::keys::PublicKeyOrCertificate;
use russh::{ChannelMsg, Names};
use serde::Serialize;
use tokio::time::{Instant, timeout};

use crate::connect::{ConnectError, Gate, Heard, Route, ServerOptions, Verdict};
use crate::exit;

/// What a server answers to a question.
const ANSWER: Duration = Duration::from_secs(10);
const MAX_ANSWER: usize = 64 * 1024;

/// One step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Check {
    pub(crate) name: &'static str,
    #[serde(flatten)]
    pub(crate) outcome: Outcome,
    /// How long it took.
    pub(crate) milliseconds: u64,
}

/// How a step ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", rename_all = "lowercase")]
pub(crate) enum Outcome {
    Ok {
        text: String,
    },
    /// It works, but not as somebody may think.
    Warning {
        text: String,
    },
    Failed {
        why: String,
        advice: String,
    },
    /// What comes before it has failed.
    Skipped,
}

/// All steps, and what the program ends with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Report {
    pub(crate) checks: Vec<Check>,
    #[serde(skip)]
    pub(crate) exit_status: u8,
}

/// Goes through the steps and tells each when it is done.
///
/// # Errors
/// The output is gone.
pub(crate) async fn diagnose(options: &ServerOptions, out: &mut dyn Write) -> io::Result<Report> {
    let route = Route::resolve(options);
    diagnose_route(route, &mut |check| write_check(out, check)).await
}

/// The same as one JSON document at the end.
///
/// # Errors
/// The output is gone.
pub(crate) async fn diagnose_json(options: &ServerOptions, out: &mut dyn Write) -> io::Result<Report> {
    let report = diagnose_route(Route::resolve(options), &mut |_| Ok(())).await?;
    serde_json::to_writer_pretty(&mut *out, &report)?;
    writeln!(out)?;
    Ok(report)
}

type Tell<'a> = &'a mut (dyn FnMut(&Check) -> io::Result<()> + 'a);

const STEPS: [&str; 6] = ["Route", "Names", "TCP", "SSH", "Login", "Forward"];

async fn diagnose_route(route: Result<Route, ConnectError>, tell: Tell<'_>) -> io::Result<Report> {
    let report = Report { checks: Vec::new(), exit_status: 0 };
    let mut steps = Steps { tell, report, began: Instant::now() };
    if steps.walk(route).await?.is_none() {
        let last = steps.report.checks.last().map_or("", |check| check.name);
        for name in STEPS.into_iter().skip_while(|name| *name != last).skip(1) {
            steps.add(name, Outcome::Skipped)?;
        }
    }
    Ok(steps.report)
}

struct Steps<'a> {
    tell: Tell<'a>,
    report: Report,
    began: Instant,
}

impl Steps<'_> {
    /// None where a step fails: the next ones need what it gives.
    async fn walk(&mut self, route: Result<Route, ConnectError>) -> io::Result<Option<()>> {
        let route = route.map(|route| (route.in_words(), route));
        let Some(route) = self.step("Route", route)? else { return Ok(None) };
        for warning in route.warnings() {
            self.add("Route", Outcome::Warning { text: warning.clone() })?;
        }
        if self.addresses(&route).await?.is_none() {
            return Ok(None);
        }
        let gate = route.gate();
        let shaken = Box::pin(route.shake_hands(&gate, Config::default(), Listener(gate.clone()))).await;
        let shaken = shaken.map(|handle| (met(&gate.heard()), handle));
        let Some(mut handle) = self.step("SSH", shaken)? else { return Ok(None) };
        let entered = Box::pin(route.log_in(&mut handle, &gate)).await;
        let entered = match entered {
            Ok(()) => Ok((account(&handle, &route).await, ())),
            Err(error) => Err(error),
        };
        if self.step("Login", entered)?.is_none() {
            return Ok(None);
        }
        let forward = forward(&handle, &gate).await.map(|text| (text, ()));
        self.step("Forward", forward)
    }

    /// Names and TCP, of the first host on the way. Where a program goes it, that has to say what fails.
    async fn addresses(&mut self, route: &Route) -> io::Result<Option<()>> {
        let Some(host) = route.first_host() else { return Ok(Some(())) };
        let found = route.first_addresses().await.map(|addresses| {
            let shown: Vec<_> = addresses.iter().map(|address| address.ip().to_string()).collect();
            (format!("{host} is {}", shown.join(", ")), addresses)
        });
        let Some(addresses) = self.step("Names", found)? else { return Ok(None) };
        let mut answers = false;
        for address in addresses {
            let outcome = match route.try_address(address).await {
                Ok(()) => Outcome::Ok { text: format!("{address} answers") },
                Err(why) => Outcome::Failed { why: format!("{address}: {why}"), advice: UNREACHABLE.into() },
            };
            answers |= matches!(outcome, Outcome::Ok { .. });
            self.add("TCP", outcome)?;
        }
        if !answers {
            self.report.exit_status = exit::NETWORK;
        }
        Ok(answers.then_some(()))
    }

    fn step<T>(
        &mut self,
        name: &'static str,
        result: Result<(String, T), ConnectError>,
    ) -> io::Result<Option<T>> {
        match result {
            Ok((text, given)) => {
                self.add(name, Outcome::Ok { text })?;
                Ok(Some(given))
            }
            Err(error) => {
                self.report.exit_status = error.exit_status();
                self.add(name, Outcome::Failed { why: error.to_string(), advice: error.advice() })?;
                Ok(None)
            }
        }
    }

    fn add(&mut self, name: &'static str, outcome: Outcome) -> io::Result<()> {
        let took = std::mem::replace(&mut self.began, Instant::now()).elapsed();
        let check = Check { name, outcome, milliseconds: took.as_millis().try_into().unwrap_or(u64::MAX) };
        (self.tell)(&check)?;
        self.report.checks.push(check);
        Ok(())
    }
}

const UNREACHABLE: &str =
    "Check address and port with the server's operator; a firewall in between may forbid it.";

/// `[ OK ] SSH      SSH-2.0-hithed_0.1.0 … (12 ms)`, and below it what to do.
fn write_check(out: &mut dyn Write, check: &Check) -> io::Result<()> {
    let Check { name, outcome, milliseconds } = check;
    match outcome {
        Outcome::Ok { text } => writeln!(out, "[ OK ] {name:<8} {text} ({milliseconds} ms)"),
        Outcome::Warning { text } => writeln!(out, "[WARN] {name:<8} {text}"),
        Outcome::Failed { why, advice } => {
            writeln!(out, "[FAIL] {name:<8} {why} ({milliseconds} ms)")?;
            advice.lines().try_for_each(|line| writeln!(out, "       {:<8} {line}", ""))
        }
        Outcome::Skipped => writeln!(out, "[ -- ] {name:<8} skipped"),
    }
}

fn met(heard: &Heard) -> String {
    let version = heard.version.as_deref().unwrap_or("no version");
    let algorithms = heard.algorithms.as_deref().unwrap_or_default();
    let key = heard.key.as_ref().map(|(kind, fingerprint, verdict)| {
        let known = if *verdict == Verdict::Known { "known" } else { "new" };
        format!("; {kind} key {fingerprint}, {known}")
    });
    format!("{version}; {algorithms}{}", key.unwrap_or_default())
}

/// What the server says to `whoami`, in one line. One that does not know the question lets us in all the same.
async fn account(handle: &Handle<Listener>, route: &Route) -> String {
    let by_name = format!("as {}", printable(route.user()));
    match timeout(ANSWER, ask(handle, "whoami --json")).await {
        Ok(Ok(answer)) => whose(&answer).unwrap_or(by_name),
        _ => by_name,
    }
}

fn whose(answer: &[u8]) -> Option<String> {
    let answer: serde_json::Value = serde_json::from_slice(answer).ok()?;
    let word = |name: &str| Some(printable(answer.get(name)?.as_str()?).into_owned());
    Some(format!("account {}, by {}, from {}", word("account")?, word("credential")?, word("source")?))
}

/// What a command prints.
async fn ask(handle: &Handle<Listener>, command: &str) -> Result<Vec<u8>, russh::Error> {
    let mut channel = handle.channel_open_session().await?;
    channel.exec(true, command).await?;
    let mut answer = Vec::new();
    while let Some(message) = channel.wait().await {
        match message {
            ChannelMsg::Data { data } if answer.len() + data.len() <= MAX_ANSWER => {
                answer.extend_from_slice(&data)
            }
            ChannelMsg::Data { .. } | ChannelMsg::Close | ChannelMsg::Failure => break,
            _ => {}
        }
    }
    Ok(answer)
}

/// Asks for a port of the server's choice and gives it back. Without a command nothing becomes public.
async fn forward(handle: &Handle<Listener>, gate: &Gate) -> Result<String, ConnectError> {
    let port =
        gate.within("the forward", ANSWER, handle.tcpip_forward("", 0)).await.map_err(
            |error| match error {
                ConnectError::Ssh(russh::Error::RequestDenied) => gate.refused_forward(),
                ConnectError::Ssh(error) => gate.lost(&error.to_string()),
                other => other,
            },
        )?;
    let _ = timeout(ANSWER, handle.cancel_tcpip_forward("", port)).await;
    Ok(format!("-R 0 is granted (port {port}) and was given back; nothing became public"))
}

/// What is heard goes to the gate.
struct Listener(Gate);

impl Handler for Listener {
    type Error = ConnectError;

    async fn auth_banner(&mut self, banner: &str, _session: &mut Session) -> Result<(), ConnectError> {
        self.0.hear_lines(banner);
        Ok(())
    }

    async fn check_server_key(&mut self, key: &PublicKeyOrCertificate) -> Result<bool, ConnectError> {
        self.0.check_server_key(key).await
    }

    async fn kex_done(
        &mut self,
        _secret: Option<&[u8]>,
        names: &Names,
        session: &mut Session,
    ) -> Result<(), ConnectError> {
        self.0.hear_algorithms(names, session);
        Ok(())
    }

    async fn disconnected(&mut self, reason: DisconnectReason<ConnectError>) -> Result<(), ConnectError> {
        self.0.hear_the_end(&reason);
        match reason {
            DisconnectReason::ReceivedDisconnect(_) => Ok(()),
            DisconnectReason::Error(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests;
