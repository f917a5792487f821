//! A real browser as a visitor: Debian's Chromium without a window, with a profile of its own.

use std::process::Stdio;

use tempfile::TempDir;
use tokio::process::Command;

use super::{Trust, Visitor};
use crate::child::Child;
use crate::wait::within;

/// A running browser with one page open. It is killed, and its profile removed, when dropped.
#[derive(Debug)]
pub struct Chromium {
    _browser: Child,
    _profile: TempDir,
}

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
        chromium.arg(url).env("HOME", profile.path()).stdin(Stdio::null());
        Chromium { _browser: Child::spawn(chromium, None), _profile: profile }
    }
}

async fn certutil(store: &str, arguments: &[&str]) {
    let mut command = Command::new("certutil");
    command.arg("-d").arg(store).args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let output = within("certutil", command.output()).await.expect("certutil of libnss3-tools starts");
    assert!(output.status.success(), "certutil: {}", String::from_utf8_lossy(&output.stderr));
}
