//! The machine's own `curl` as a visitor.

use tokio::process::Command;

use super::{Trust, Visitor};
use crate::wait::within;

/// How curl ended.
#[derive(Clone, Debug)]
pub struct Curl {
    /// curl's exit status; 0 is success.
    pub code: Option<i32>,
    /// The body, and whatever `-w` or `-i` asked for.
    pub stdout: String,
    pub stderr: String,
}

impl Visitor {
    /// Runs curl with these arguments; whatever host it is told, it connects to the server.
    pub async fn curl<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Curl {
        let arguments: Vec<&str> = arguments.into_iter().collect();
        let mut command = Command::new("curl");
        command.args(["-q", "--silent", "--show-error", "--max-time", "20", "--noproxy", "*"]);
        let tls = arguments.iter().any(|argument| argument.starts_with("https:"));
        let server = if tls { self.https } else { self.http };
        command.args(["--connect-to", &format!("::{server}")]);
        match &self.trust {
            Trust::Anything => command.arg("--insecure"),
            Trust::File(file) => command.arg("--cacert").arg(file),
        };
        if let Some((certificate, key)) = &self.shows {
            command.arg("--cert").arg(certificate).arg("--key").arg(key);
        }
        for (name, value) in &self.headers {
            command.args(["--header", &format!("{name}: {value}")]);
        }
        command.args(arguments).kill_on_drop(true);
        let output = within("curl", command.output()).await.expect("curl starts");
        Curl {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}
