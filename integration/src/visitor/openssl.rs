//! The machine's own `openssl s_client` as a visitor.

use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::{Trust, Visitor};
use crate::wait::within;

impl Visitor {
    /// What `openssl s_client` shows of a handshake for this name and of a GET inside.
    pub async fn s_client(&self, name: &str, more: &[&str]) -> String {
        let mut command = Command::new("openssl");
        command.args(["s_client", "-connect", &self.https.to_string(), "-servername", name, "-ign_eof"]);
        if let Trust::File(file) = &self.trust {
            command.arg("-CAfile").arg(file);
        }
        if let Some((certificate, key)) = &self.shows {
            command.arg("-cert").arg(certificate).arg("-key").arg(key);
        }
        command.args(more).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("openssl starts");
        let request = format!("GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n");
        let mut stdin = child.stdin.take().expect("its input is a pipe");
        // It may have ended already.
        let _ = stdin.write_all(request.as_bytes()).await;
        let output = within("openssl", child.wait_with_output()).await.expect("openssl ends");
        drop(stdin);
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    }
}
