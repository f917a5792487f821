//! A real browser as a visitor: Debian's Chromium without a window, with a profile of its own.

use std::process::Stdio;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio_tungstenite::client_async;

use super::{Trust, Visitor};
use crate::child::Child;
use crate::wait::within;

/// A running browser with one page open. It is killed, and its profile removed, when dropped.
#[derive(Debug)]
pub struct Chromium {
    browser: Child,
    _profile: TempDir,
}

impl Chromium {
    /// Runs a script in the page until it says something other than `null`, `false` or `undefined`; gives that.
    pub async fn sees(&mut self, script: &str) -> Value {
        within(&format!("in the browser: {script}"), async {
            loop {
                let seen = self.evaluate(script).await;
                if !matches!(seen, Value::Null | Value::Bool(false)) {
                    return seen;
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        })
        .await
    }

    /// What a script in the page says now (Runtime.evaluate of the DevTools protocol).
    async fn evaluate(&mut self, script: &str) -> Value {
        let line = self.browser.wait_for_text("DevTools listening on ws://").await;
        let authority = line.split("ws://").nth(1).and_then(|rest| rest.split('/').next()).expect("a port");
        let list = format!("http://{authority}/json/list");
        let pages =
            Command::new("curl").args(["-s", "--noproxy", "*", &list]).output().await.expect("curl starts");
        let pages: Value = serde_json::from_slice(&pages.stdout).unwrap_or_default();
        let page = pages
            .as_array()
            .into_iter()
            .flatten()
            .find(|page| page.get("type").is_some_and(|it| it == "page"));
        let Some(address) = page.and_then(|page| page.get("webSocketDebuggerUrl")?.as_str()) else {
            return Value::Null;
        };
        let stream = TcpStream::connect(authority).await.expect("the browser listens");
        let (mut socket, _) = client_async(address, stream).await.expect("the browser speaks WebSocket");
        let parameters = json!({ "expression": script, "returnByValue": true, "awaitPromise": true });
        let call = json!({ "id": 1, "method": "Runtime.evaluate", "params": parameters });
        socket.send(call.to_string().into()).await.expect("the browser listens");
        while let Some(Ok(message)) = socket.next().await {
            let answer: Value = serde_json::from_slice(&message.into_data()).unwrap_or_default();
            if answer.get("id").is_some_and(|id| id == 1) {
                return answer.pointer("/result/result/value").cloned().unwrap_or_default();
            }
        }
        Value::Null
    }
}

const LOOK_AGAIN: Duration = Duration::from_millis(50);

impl Visitor {
    /// Opens a page; wherever its host is, the browser connects to the server. What it trusts beside the public
    /// authorities is this visitor's file, as if a person had imported it.
    pub async fn browse(&self, url: &str) -> Chromium {
        let profile =
            tempfile::Builder::new().prefix("hithe-browser-").tempdir().expect("a temporary folder");
        if let Trust::File(file) = &self.trust {
            let store = profile.path().join(".pki/nssdb");
            std::fs::create_dir_all(&store).expect("a folder for certificates");
            let store = format!("sql:{}", store.display());
            certutil(&store, &["-N", "--empty-password"]).await;
            let file = file.to_str().expect("a path in UTF-8");
            certutil(&store, &["-A", "-n", "hithe", "-t", "C,,", "-i", file]).await;
        }
        let mut chromium = Command::new("chromium");
        chromium.args(["--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]);
        chromium.args(["--disable-background-networking", "--disable-component-update", "--no-proxy-server"]);
        if rustix::process::geteuid().is_root() {
            chromium.arg("--no-sandbox"); // it refuses to run as root with one
        }
        if matches!(self.trust, Trust::Anything) {
            chromium.arg("--ignore-certificate-errors");
        }
        let (http, https) = (self.http, self.https);
        // What a browser asks of its maker must not come to the server, nor leave the machine.
        let uri: http::Uri = url.parse().expect("a URL");
        let host = uri.host().expect("a host in the URL");
        let rules = format!("MAP {host}:80 {http},MAP {host}:443 {https},EXCLUDE 127.0.0.1,MAP * ~NOTFOUND");
        chromium.arg(format!("--host-resolver-rules={rules}"));
        chromium.arg(format!("--user-data-dir={}", profile.path().join("profile").display()));
        chromium.args(["--remote-debugging-port=0", "--remote-allow-origins=*"]);
        chromium.arg(url).env("HOME", profile.path()).stdin(Stdio::null());
        Chromium { browser: Child::spawn(chromium, None), _profile: profile }
    }
}

async fn certutil(store: &str, arguments: &[&str]) {
    let mut command = Command::new("certutil");
    command.arg("-d").arg(store).args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let output = within("certutil", command.output()).await.expect("certutil of libnss3-tools starts");
    assert!(output.status.success(), "certutil: {}", String::from_utf8_lossy(&output.stderr));
}
