//! What a run stands on: the server, the accounts, the places with their upstreams, and who publishes what.

use std::path::PathBuf;
use std::sync::Arc;

use super::place::{Place, Speech, Unrest};
use super::tally::Tally;
use super::upstream;
use crate::{OpenSsh, Origin, TestServer};

/// What guarded places ask for.
pub(super) const USER: &str = "ada";
pub(super) const PASSWORD: &str = "correct-horse";
/// The account that looks at the server.
const OPERATOR: &str = "operator";
/// The accounts that publish. Only those of `eve` are kicked, and only `ada` has random names: who publishes under
/// one makes the server ask whether the other sessions of the account live, and one that was stopped does not say so.
pub(super) const ACCOUNTS: [&str; 4] = ["ada", "bob", "cleo", "eve"];

/// Stands for the whole run.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) server: TestServer,
    pub(super) tally: Tally,
    pub(super) places: Vec<Arc<Place>>,
    pub(super) posts: Vec<Post>,
    origins: Vec<Origin>,
}

/// Where a publisher stands: what it publishes, as whom and how.
#[derive(Clone, Debug)]
pub(super) struct Post {
    pub(super) number: usize,
    pub(super) account: &'static str,
    pub(super) places: Vec<Arc<Place>>,
    /// What stands before the upstream's port in `-R`, one for each place.
    pub(super) binds: Vec<String>,
    /// The command; with `-N` it is the user name.
    pub(super) command: &'static str,
    pub(super) bare: bool,
    pub(super) pooled: bool,
}

/// A row of the table below.
struct Row {
    account: &'static str,
    /// Name or port of each bind; `?` for a random one.
    binds: &'static [&'static str],
    command: &'static str,
    bare: bool,
    members: usize,
}

const fn row(account: &'static str, binds: &'static [&'static str], command: &'static str) -> Row {
    Row { account, binds, command, bare: false, members: 1 }
}

const ROWS: &[Row] = &[
    row("ada", &["alpha.localhost:443"], "http"),
    row("ada", &["beta.localhost:80"], "http"),
    row("ada", &["?web"], "http"),
    row("ada", &["?tcp"], "tcp"),
    row("bob", &["guarded.localhost:443"], "http --basic-auth ada:correct-horse"),
    row("bob", &["delta.localhost:443"], "tls"),
    row("bob", &["+1"], "tcp"),
    row("bob", &["one.localhost:443", "two.localhost:443", "three.localhost:443"], "http"),
    Row { members: 3, ..row("cleo", &["pool.localhost:443"], "http --pooling-enabled") },
    Row { members: 2, ..row("cleo", &["+2"], "tcp --pooling-enabled") },
    Row { bare: true, ..row("cleo", &["bare.localhost:443"], "http") },
    Row { bare: true, ..row("cleo", &["sealed.localhost:443"], "tls") },
    row("eve", &["omega.localhost:443"], "http --schemes http,https"),
];

impl Stage {
    pub(super) async fn set_up(server: TestServer, tally: Tally) -> Self {
        server.admin(&format!("accounts add {OPERATOR} --admin"));
        add_key(&server, OPERATOR, &server.user_key());
        for account in ACCOUNTS {
            server.admin(&format!("accounts add {account}"));
            add_key(&server, account, &server.another_key(account, "ed25519"));
        }
        let mut stage = Self { server, tally, places: Vec::new(), posts: Vec::new(), origins: Vec::new() };
        for row in ROWS {
            let mut places = Vec::new();
            for bind in row.binds {
                places.push(stage.add_place(bind, row.command).await);
            }
            let binds: Vec<_> = row.binds.iter().map(|bind| stage.bind(bind)).collect();
            for _ in 0..row.members {
                stage.posts.push(Post {
                    number: stage.posts.len(),
                    account: row.account,
                    places: places.clone(),
                    binds: binds.clone(),
                    command: row.command,
                    bare: row.bare,
                    pooled: row.command.contains("--pooling-enabled"),
                });
            }
        }
        stage
    }

    async fn add_place(&mut self, bind: &'static str, command: &str) -> Arc<Place> {
        let (speech, schemes): (_, &[&str]) = match command.split(' ').next() {
            Some("tls") => (Speech::Tls, &["tls"]),
            Some("tcp") => (Speech::Tcp, &["tcp"]),
            _ if command.contains("http,https") => (Speech::Web, &["http", "https"]),
            _ if bind.ends_with(":80") => (Speech::Web, &["http"]),
            _ => (Speech::Web, &["https"]),
        };
        let name = bind.split(':').next().unwrap_or(bind);
        let place = Place::new(self.places.len(), name, speech, command.contains("--basic-auth"));
        if let Some(port) = self.chosen_port(bind) {
            place.settle_at(&[format!("tcp://localhost:{port}")]);
        } else if !bind.starts_with('?') {
            let addresses: Vec<_> = schemes.iter().map(|scheme| format!("{scheme}://{name}")).collect();
            place.settle_at(&addresses);
        }
        let place = Arc::new(place);
        self.origins.push(upstream::of(&place).await);
        self.places.push(Arc::clone(&place));
        place
    }

    fn bind(&self, bind: &str) -> String {
        let port = self.chosen_port(bind).unwrap_or_default().to_string();
        if bind.contains(':') { bind.to_owned() } else { port }
    }

    /// `+N` is a port from the end of the server's range, far from those that are given at random.
    fn chosen_port(&self, bind: &str) -> Option<u16> {
        let steps: u16 = bind.strip_prefix('+')?.parse().ok()?;
        Some(self.server.tcp_ports().end() - steps)
    }

    pub(super) fn key(&self, account: &str) -> PathBuf {
        self.server.folder().join(account)
    }

    /// ssh about to publish what belongs to this post.
    pub(super) fn ssh(&self, post: &Post) -> OpenSsh {
        let forwards = post.binds.iter().zip(&post.places);
        let ssh = forwards.fold(self.server.ssh().key(self.key(post.account)), |ssh, (bind, place)| {
            let origin = self.origins.get(place.number);
            origin.into_iter().fold(ssh, |ssh, origin| ssh.forward_to(bind, origin))
        });
        match post.bare {
            true => ssh.user(post.command).without_session().stdin_null(),
            false => ssh.command(post.command),
        }
    }

    /// What a command about the server prints as JSON. A login may have to be tried again when the account is new.
    pub(super) async fn ask(&self, line: &str) -> Result<serde_json::Value, String> {
        let mut said = String::new();
        for _ in 0..5 {
            let done = self.server.ssh().command(&format!("{line} --json")).run().await;
            match serde_json::from_str(&done.stdout) {
                Ok(json) if done.code == Some(0) => return Ok(json),
                _ => said = format!("status {:?}: {}", done.code, done.output()),
            }
        }
        Err(format!("{line}: {said}"))
    }
}

fn add_key(server: &TestServer, account: &str, key: &std::path::Path) {
    server.admin(&format!("keys add {account} '{}'", TestServer::public_half(key)));
}

impl Post {
    pub(super) fn unrest(&self) -> Unrest {
        Unrest::at(&self.places)
    }

    /// As reports call it.
    pub(super) fn name(&self) -> String {
        let names: Vec<_> = self.places.iter().map(|place| place.name).collect();
        format!("publisher {} of {}", self.number, names.join(" "))
    }
}
