//! Requests as fast as the answers come, by h2load: a program in C, which takes little of the CPU that the
//! server, its publisher and the upstream share with it.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use tokio::process::Command;

use super::super::figures::Figure;
use super::super::peers::Peer;
use super::super::stage::Stage;
use super::Values;
use crate::dev::bench::find_program;

/// One run of h2load.
#[derive(Debug)]
pub(super) struct Load {
    arguments: Vec<String>,
    /// What the server must agree to speak.
    protocol: &'static str,
}

/// What a run came to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Done {
    pub(super) requests: f64,
    pub(super) took: Duration,
}

/// Connections of the loads with HTTP/1.1.
const CONNECTIONS: usize = 32;
/// New connections that start at once.
const BURST: usize = 100;

/// HTTP/1.1 without TLS.
pub(super) fn http1(peer: &Peer, host: &str, seconds: u64) -> Load {
    Load::new("http", host, peer.http).http1().connections(CONNECTIONS, 1).seconds(seconds)
}

/// HTTP/1.1 inside TLS.
pub(super) fn https1(peer: &Peer, host: &str, seconds: u64) -> anyhow::Result<Load> {
    let load = Load::new("https", host, https(peer)?).http1();
    Ok(load.connections(CONNECTIONS, 1).seconds(seconds))
}

/// HTTP/2 inside TLS.
pub(super) fn http2(peer: &Peer, host: &str, seconds: u64) -> anyhow::Result<Load> {
    Ok(Load::new("https", host, https(peer)?).connections(4, 8).seconds(seconds))
}

/// One HTTP/2 request.
pub(super) fn one_http2(peer: &Peer, host: &str) -> anyhow::Result<Load> {
    Ok(Load::new("https", host, https(peer)?).connections(1, 1).requests(1))
}

/// The median and the slowest hundredth of single requests, one after the other on one connection.
pub(in crate::dev::bench) async fn latency(
    peer: &Peer,
    stage: &Stage,
    host: &str,
    seconds: u64,
) -> anyhow::Result<Values> {
    let log = stage.file("latencies");
    let load = Load::new("http", host, peer.http).http1().connections(1, 1).seconds(seconds).log(&log);
    load.run().await?;
    let text = std::fs::read_to_string(&log).context("cannot read the log of h2load")?;
    std::fs::remove_file(&log).context("cannot remove the log of h2load")?;
    let mut times: Vec<f64> = text.lines().filter_map(|line| line.split('\t').nth(2)?.parse().ok()).collect();
    times.sort_by(f64::total_cmp);
    let at = |hundredths: usize| times.get(times.len() * hundredths / 100).copied();
    let (Some(median), Some(tail)) = (at(50), at(99)) else { bail!("h2load wrote no times") };
    Ok(vec![(Figure::LatencyMedian, median), (Figure::LatencyTail, tail)])
}

/// Bursts of new connections, each with a full handshake and one request.
pub(super) async fn connect(peer: &Peer, host: &str, seconds: u64) -> anyhow::Result<Values> {
    let burst = Load::new("https", host, https(peer)?).http1().connections(BURST, 1).requests(BURST);
    let (before, mut requests, mut took) = (peer.cpu(), 0.0, Duration::ZERO);
    while took < Duration::from_secs(seconds) {
        let done = burst.run().await?;
        requests += done.requests;
        took += done.took;
    }
    let spent = peer.cpu().saturating_sub(before).as_secs_f64();
    Ok(vec![
        (Figure::ConnectRate, requests / took.as_secs_f64()),
        (Figure::ConnectCpu, spent / requests * 10_000.0),
    ])
}

fn https(peer: &Peer) -> anyhow::Result<u16> {
    peer.https.context("this peer has no TLS")
}

impl Load {
    fn new(scheme: &str, host: &str, port: u16) -> Self {
        let to = format!("--connect-to=127.0.0.1:{port}");
        let url = format!("{scheme}://{host}:{port}/");
        Self { arguments: vec!["-t1".to_owned(), to, url], protocol: "h2" }
    }

    fn http1(mut self) -> Self {
        self.protocol = "http/1.1";
        self.with("--h1")
    }

    fn connections(self, connections: usize, streams: usize) -> Self {
        self.with(&format!("-c{connections}")).with(&format!("-m{streams}"))
    }

    fn seconds(self, seconds: u64) -> Self {
        self.with(&format!("-D{seconds}"))
    }

    fn requests(self, requests: usize) -> Self {
        self.with(&format!("-n{requests}"))
    }

    fn log(self, file: &Path) -> Self {
        self.with(&format!("--log-file={}", file.display()))
    }

    fn with(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// Runs it; every answer must be a 200.
    pub(super) async fn run(&self) -> anyhow::Result<Done> {
        let program = find_program("h2load").context("no h2load (Debian: nghttp2-client)")?;
        let output = Command::new(program).args(&self.arguments).kill_on_drop(true).output().await;
        let output = output.context("cannot start h2load")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let done = Done::parse(&text).with_context(|| format!("h2load says: {}", text.trim()))?;
        let spoken = after(&text, "Application protocol: ").unwrap_or(self.protocol);
        ensure!(spoken == self.protocol, "the server speaks {spoken} in place of {}", self.protocol);
        Ok(done)
    }
}

impl Done {
    fn parse(text: &str) -> anyhow::Result<Self> {
        let took = after(text, "finished in ").and_then(|rest| rest.split(',').next()).and_then(duration);
        let codes = after(text, "status codes: ").context("no status codes")?;
        let counts: Vec<f64> =
            codes.split(", ").filter_map(|part| part.split(' ').next()?.parse().ok()).collect();
        let [good, others @ ..] = &*counts else { bail!("no status codes") };
        ensure!(
            *good > 0.0 && others.iter().all(|count| *count == 0.0),
            "not every answer was a 200: {codes}"
        );
        Ok(Self { requests: *good, took: took.context("no duration")? })
    }
}

/// The rest of the line behind the first occurrence of `label`.
fn after<'text>(text: &'text str, label: &str) -> Option<&'text str> {
    text.split_once(label)?.1.lines().next()
}

/// `1.50s`, `492.60ms` or `25us`.
fn duration(text: &str) -> Option<Duration> {
    let unit = text.trim_start_matches(|letter: char| letter.is_ascii_digit() || letter == '.');
    let number: f64 = text.strip_suffix(unit)?.parse().ok()?;
    let seconds = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        _ => return None,
    };
    Some(Duration::from_secs_f64(number * seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "Application protocol: h2\n\nfinished in 492.60ms, 406.01 req/s, 59.08KB/s\n\
                        requests: 200 total, 200 started\nstatus codes: 200 2xx, 0 3xx, 0 4xx, 0 5xx\n";

    #[test]
    fn what_h2load_says_is_understood() {
        let done = Done::parse(SAID).unwrap();
        assert_eq!((done.requests, done.took), (200.0, Duration::from_micros(492_600)));
        assert_eq!(after(SAID, "Application protocol: "), Some("h2"));
    }

    #[test]
    fn other_answers_than_200_are_no_result() {
        assert!(Done::parse(&SAID.replace("0 5xx", "3 5xx")).is_err());
        assert!(Done::parse(&SAID.replace("200 2xx", "0 2xx")).is_err());
        assert!(Done::parse("").is_err());
    }
}
