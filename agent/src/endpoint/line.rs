//! The `ssh` command line that asks for the same (`--dry-run`).

use std::fmt::Write as _;

use hithe_cli_parser::{Bind, Command, Kind, Scheme, printable};

use super::Endpoint;
use crate::upstream::Place;

impl Endpoint {
    /// What `-R` asks for, as a person would say it. Names stand in the command's own flags.
    pub(crate) fn bind(&self) -> Bind {
        let port = match self.kind() {
            Kind::Http if is_plain(&self.command) => 80,
            Kind::Http | Kind::Tls => 443,
            Kind::Tcp => 0,
        };
        Bind { address: "localhost".to_owned(), port }
    }

    /// The command line for stock `ssh` that publishes the same, and in comments what that cannot do. `options` are those of
    /// the way to the server, such as `-p 2222`.
    pub fn ssh_line(&self, destination: &str, options: &[String]) -> String {
        let mut notes = String::new();
        let target = match self.upstream.place() {
            Place::Tcp { host, port } if host.contains(':') => format!("[{host}]:{port}"),
            Place::Tcp { host, port } => format!("{host}:{port}"),
            Place::Unix(path) => for_forward(&path.display().to_string()),
            Place::Files(folder) => {
                let folder = folder.display().to_string();
                let _ = writeln!(
                    notes,
                    "# ssh serves no files: start a web server first, such as\n#   python3 -m http.server --bind localhost --directory {} 8000",
                    // Whatever it is, it stays a comment.
                    printable(&shell_words::quote(&folder))
                );
                "localhost:8000".to_owned()
            }
        };
        if self.tls.is_some() {
            notes.push_str("# ssh does not end TLS: the service behind it has to\n");
        }
        let mut command = self.command.clone();
        if self.upstream_tls.is_some() {
            self.over_server_tls(&mut command);
            notes.push_str("# here the server speaks TLS with the service, and not the agent\n");
        }
        if self.upstream_tls.as_ref().is_some_and(|tls| tls.authorities.is_some()) {
            notes.push_str("# and it trusts its own authorities, not those of --upstream-tls-verify-cas\n");
        }
        if command.modules().tls_termination.as_ref().is_some_and(|tls| tls.key.is_some()) {
            notes.push_str("# the private key is part of this line\n");
        }
        let mut words = vec!["ssh".to_owned()];
        words.extend_from_slice(options);
        let forward = format!("{}:{target}", self.bind());
        words.extend(["-R".to_owned(), forward, destination.to_owned()]);
        // The line survives the shell as one word each, and ssh joins them again.
        words.extend(command.words());
        format!("{notes}{}\n", shell_words::join(words))
    }

    fn over_server_tls(&self, command: &mut Command) {
        let Some(tls) = &self.upstream_tls else { return };
        let module = command.modules_mut().upstream.get_or_insert_default();
        module.tls = true;
        module.verify = tls.verify;
        let host = match self.upstream.place() {
            Place::Tcp { host, .. } => Some(host.clone()),
            Place::Unix(_) | Place::Files(_) => None,
        };
        module.server_name = tls.server_name.clone().or(host.filter(|_| tls.verify));
    }
}

/// A path as `-R` reads it: colons end it, backslashes take their meaning away, and `%` begins a token.
fn for_forward(path: &str) -> String {
    path.replace('\\', "\\\\").replace(':', "\\:").replace('%', "%%")
}

/// Whether an endpoint answers in the clear only.
fn is_plain(command: &Command) -> bool {
    let url = command.address().url.as_deref().unwrap_or_default();
    command.schemes() == [Scheme::Http] || url.starts_with("http://")
}
