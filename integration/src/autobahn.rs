//! Autobahn's websocket test suite as a visitor: the same cases against a server itself and through a tunnel, and
//! what each of them saw. `cargo dev setup` fetches the suite from PyPI; none of it is in this repository.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::process::Command;

use crate::child::Child;
use crate::clients::PYTHON;
use crate::program;
use crate::server::TestServer;
use crate::wait::{PATIENCE, within};

/// The release of `autobahntestsuite` that is used.
pub(crate) const RELEASE: &str = "25.10.1";
/// The SHA-256 of its wheel.
pub(crate) const DIGEST: &str = "b57ee6b22de624a03256878ad453c9897d2ad7ee08a4c38b35ee2847637e1383";

/// Where `cargo dev setup` puts the suite.
pub(crate) fn folder() -> PathBuf {
    program::target().join("dev").join(format!("autobahntestsuite-{RELEASE}"))
}

/// Cases of the suite, by the beginning of their numbers.
#[derive(Clone, Debug)]
pub struct Autobahn {
    cases: Vec<String>,
    servers: Vec<(String, Value)>,
}

/// What each case saw, by its number.
pub type Seen = BTreeMap<String, Outcome>;

/// What one case saw.
#[derive(Clone, Debug)]
pub struct Outcome(Value);

impl Autobahn {
    /// The cases whose numbers begin so: `"7"` and `"9.1"` stand for 7.1.1 … 7.13.2 and 9.1.1 … 9.1.6.
    pub fn cases<'a>(numbers: impl IntoIterator<Item = &'a str>) -> Self {
        let cases = numbers.into_iter().map(str::to_owned).collect();
        Self { cases, servers: Vec::new() }
    }

    /// Runs them against the websocket server at this port of the loopback.
    pub fn at(self, port: u16) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        self.server("itself", &format!("ws://127.0.0.1:{port}/"), address, &Value::Null)
    }

    /// Runs them against what `server` has published under this `ws:` or `wss:` URL, which names them in the result.
    pub fn through(self, server: &TestServer, url: &str) -> Self {
        let (address, ca) = if url.starts_with("wss:") {
            (server.https_address(), json!(server.ca()))
        } else {
            (server.http_address(), Value::Null)
        };
        self.server(url, url, address, &ca)
    }

    fn server(mut self, name: &str, url: &str, address: SocketAddr, ca: &Value) -> Self {
        let address = json!([address.ip().to_string(), address.port()]);
        self.servers.push((name.to_owned(), json!({"name": name, "url": url, "address": address, "ca": ca})));
        self
    }

    /// Runs so many cases at a time, up to `minutes` in all; what was seen comes in the order of the servers.
    pub async fn run(self, together: usize, minutes: u32) -> Vec<Seen> {
        let suite = folder();
        assert!(suite.is_dir(), "no {}: `cargo dev setup` fetches it", suite.display());
        let said = json!({
            "suite": suite,
            "cases": self.cases,
            "together": together,
            // The suite waits for a half or a whole second at most, which is little on a busy machine.
            "patience": PATIENCE.as_secs(),
            "servers": self.servers.iter().map(|(_, server)| server).collect::<Vec<_>>(),
        });
        let mut python = python(include_str!("autobahn/fuzzer.py"));
        python.arg(said.to_string()).stdin(Stdio::null()).kill_on_drop(true);
        let ended =
            tokio::time::timeout(60 * minutes * std::time::Duration::from_secs(1), python.output()).await;
        let output = ended.expect("the suite ends in time").expect("Debian's python3 starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "the suite's driver: {}\n{said}", output.status);
        let mut seen: BTreeMap<String, BTreeMap<String, Value>> =
            serde_json::from_slice(&output.stdout).expect("the suite's driver prints JSON");
        let mut of = |name| seen.remove(name).unwrap_or_default().into_iter();
        self.servers
            .iter()
            .map(|(name, _)| of(name).map(|(case, saw)| (case, Outcome(saw))).collect())
            .collect()
    }
}

impl Outcome {
    /// Whether the suite is content: with what came, and with how the connection ended.
    pub fn passed(&self) -> bool {
        let fine = |what: &str| matches!(what, "OK" | "NON-STRICT" | "INFORMATIONAL");
        fine(self.text("behavior")) && fine(self.text("close"))
    }

    /// Whether the suite found what it was about to test, such as an extension.
    pub fn applied(&self) -> bool {
        self.text("behavior") != "UNIMPLEMENTED"
    }

    /// Whether both saw the same frames and the same end. Where a server answers frames while it still reads others,
    /// it may or may not answer before it fails the connection; the suite knows such cases and accepts both. Then
    /// it is the end that has to be the same.
    pub fn like(&self, other: &Self) -> bool {
        let end = ["close", "extensions", "code", "reason", "clean", "closed_by_me", "dropped_by_me"];
        let same = |what: &str| self.0.get(what) == other.0.get(what);
        let either = self.text("behavior") != other.text("behavior") && self.passed() && other.passed();
        end.into_iter().all(same) && (either || same("frames") && same("behavior"))
    }

    fn text(&self, what: &str) -> &str {
        self.0.get(what).and_then(Value::as_str).unwrap_or_default()
    }
}

/// Starts a websocket echo server, Python's `websockets`, and returns it with its port.
pub async fn websockets_echo() -> (Child, u16) {
    let mut python = python(include_str!("autobahn/echo.py"));
    python.stdin(Stdio::null());
    let mut server = Child::spawn(python, None);
    let line = within("the port", server.wait_for_line(|line| line.parse::<u16>().is_ok())).await;
    (server, line.parse().expect("a port"))
}

fn python(script: &str) -> Command {
    let mut python = Command::new(PYTHON);
    python.args(["-W", "ignore", "-u", "-c", script]);
    python
}
