//! The server's door as seen from outside: whether it is the right one, and what is said there.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use hithe_cli_parser::printable;
use russh::client::{self, DisconnectReason};
use russh::keys::ssh_key::public::KeyData;
use russh::keys::{Algorithm, PrivateKey, PublicKey, PublicKeyOrCertificate};
use russh::{Disconnect, Names};
use tokio::sync::watch;

use super::ask::{Ask, Terminal, ask};
use super::known_hosts::{self, HostKeyPlace, Verdict};
use super::{ConnectError, Hop, HostKeyPolicy, proxy_command};

/// Lines of the server that are kept.
const MAX_LINES: usize = 32;
/// Lines that fit into one of ours.
const MAX_REASON: usize = 4;
/// Lines for a person that are not shown yet.
const MAX_UNREAD: usize = 64;
/// Times that an answer which is neither yes nor no is asked for again.
const TRIES: usize = 5;

/// One person is asked one thing at a time, and nothing twice.
#[derive(Clone, Debug)]
pub(super) struct Questions {
    whom: Arc<dyn Ask>,
    /// Keys that need a passphrase. Connections come back at night.
    locks: Arc<tokio::sync::Mutex<HashMap<PathBuf, Lock>>>,
    /// The host keys that were accepted, one of each host: the file may not keep them.
    accepted: Arc<Mutex<HashMap<(String, u16), KeyData>>>,
    unread: Arc<Mutex<Unread>>,
}

/// Lines for a person, and whether a thread shows them.
#[derive(Debug, Default)]
struct Unread {
    lines: VecDeque<String>,
    is_shown: bool,
}

impl Unread {
    /// Shows what is there and what comes meanwhile.
    fn show(unread: &Mutex<Self>, whom: &dyn Ask) {
        let next = || {
            let mut unread = unread.lock().unwrap_or_else(PoisonError::into_inner);
            let line = unread.lines.pop_front();
            unread.is_shown = line.is_some();
            line
        };
        while let Some(line) = next() {
            // A terminal that is gone takes nothing.
            let _ = whom.show(&line);
        }
    }
}

/// Notes that nobody shows lines any more, also where the thread has not come to it.
struct Shown(Arc<Mutex<Unread>>);

impl Drop for Shown {
    fn drop(&mut self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_shown = false;
    }
}

/// What is known of a key that needs a passphrase.
#[derive(Clone, Debug)]
pub(super) enum Lock {
    /// It was given.
    Open(Arc<PrivateKey>),
    /// This number of others were.
    Shut(usize),
}

impl Default for Questions {
    fn default() -> Self {
        Self::to(Arc::new(Terminal))
    }
}

impl Questions {
    pub(super) fn to(whom: Arc<dyn Ask>) -> Self {
        Self { whom, locks: Arc::default(), accepted: Arc::default(), unread: Arc::default() }
    }

    /// The same questions to somebody else.
    pub(super) fn ask_now(&mut self, whom: Arc<dyn Ask>) {
        self.whom = whom;
    }

    pub(super) fn somebody_is_there(&self) -> bool {
        self.whom.is_there()
    }

    /// Waits for its turn; what is known of keys that need a passphrase comes with it.
    pub(super) async fn turn(&self) -> tokio::sync::MutexGuard<'_, HashMap<PathBuf, Lock>> {
        self.locks.lock().await
    }

    fn accept(&self, host: &str, port: u16, key: &PublicKey) {
        let mut accepted = self.accepted.lock().unwrap_or_else(PoisonError::into_inner);
        accepted.insert((host.to_owned(), port), key.key_data().clone());
    }

    fn accepted(&self, host: &str, port: u16) -> Option<KeyData> {
        let accepted = self.accepted.lock().unwrap_or_else(PoisonError::into_inner);
        accepted.get(&(host.to_owned(), port)).cloned()
    }

    /// Shows a person a line, without waiting until it is read. Lines come in their order; those that find no room
    /// stand in the log alone.
    pub(super) fn tell(&self, line: String) {
        if !self.somebody_is_there() {
            return;
        }
        let mut unread = self.unread.lock().unwrap_or_else(PoisonError::into_inner);
        if unread.lines.len() < MAX_UNREAD {
            unread.lines.push_back(line);
        }
        if !std::mem::replace(&mut unread.is_shown, true) {
            let (whom, shown) = (Arc::clone(&self.whom), Shown(Arc::clone(&self.unread)));
            tokio::task::spawn_blocking(move || Unread::show(&shown.0, &*whom));
        }
    }

    pub(super) async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&dyn Ask) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        ask(&self.whom, question).await
    }
}

/// What a [`Handler`](client::Handler) of a connection passes on: the server's key, and its words.
#[derive(Clone, Debug)]
pub(crate) struct Gate {
    hop: Arc<Hop>,
    questions: Questions,
    heard: Arc<Mutex<Heard>>,
    /// How many questions to a person are open. The clock stands still meanwhile.
    open: watch::Sender<usize>,
}

/// What a connection has told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heard {
    pub(crate) lines: Vec<String>,
    /// The words with which it ended the connection, and whether they are about us.
    pub(crate) disconnect: Option<(bool, String)>,
    /// `SSH-2.0-…`, and the algorithms.
    pub(crate) version: Option<String>,
    pub(crate) algorithms: Option<String>,
    /// Kind and fingerprint of the server's key, and what it meant before anybody was asked.
    pub(crate) key: Option<(String, String, Verdict)>,
}

impl Gate {
    pub(super) fn new(hop: &Hop, questions: Questions) -> Self {
        Self { hop: Arc::new(hop.clone()), questions, heard: Arc::default(), open: watch::Sender::new(0) }
    }

    pub(super) fn questions(&self) -> &Questions {
        &self.questions
    }

    pub(crate) fn heard(&self) -> Heard {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn hear(&self, note: impl FnOnce(&mut Heard)) {
        note(&mut self.heard.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// For [`Handler::auth_banner`](client::Handler::auth_banner), and other words of the server.
    pub(crate) fn hear_lines(&self, text: &str) {
        self.hear(|heard| {
            let room = MAX_LINES.saturating_sub(heard.lines.len());
            let lines = text.lines().map(|line| printable(line.trim_end()).into_owned());
            heard.lines.extend(lines.filter(|line| !line.is_empty()).take(room));
        });
    }

    /// For [`Handler::kex_done`](client::Handler::kex_done).
    pub(crate) fn hear_algorithms(&self, names: &Names, session: &client::Session) {
        let version = hithe_cli_parser::printable_bytes(session.remote_sshid());
        let algorithms = format!("{}, {}, {}", names.kex.as_ref(), names.key.as_str(), names.cipher.as_ref());
        self.hear(|heard| (heard.version, heard.algorithms) = (Some(version), Some(algorithms)));
    }

    /// For [`Handler::disconnected`](client::Handler::disconnected).
    pub(crate) fn hear_the_end<E: From<russh::Error> + Send>(&self, reason: &DisconnectReason<E>) {
        if let DisconnectReason::ReceivedDisconnect(info) = reason {
            let text = printable(info.message.trim()).into_owned();
            let is_refusal = matches!(
                info.reason_code,
                Disconnect::NoMoreAuthMethodsAvailable
                    | Disconnect::HostNotAllowedToConnect
                    | Disconnect::IllegalUserName
                    | Disconnect::AuthCancelledByUser
            );
            self.hear(|heard| heard.disconnect = Some((is_refusal, text)));
        }
    }

    /// For [`Handler::check_server_key`](client::Handler::check_server_key): whether this is the server. A new key is
    /// asked about, or noted, as the policy says.
    ///
    /// # Errors
    /// It is not, or nobody can tell.
    pub(crate) async fn check_server_key(
        &self,
        shown: &PublicKeyOrCertificate,
    ) -> Result<bool, ConnectError> {
        let key = shown.public_key();
        let (kind, fingerprint) = (kind(&key), known_hosts::fingerprint(&key));
        let verdict = self.judge(shown);
        self.hear(|heard| heard.key = Some((kind.clone(), fingerprint.clone(), verdict.clone())));
        let host = printable(&self.hop.name()).into_owned();
        match verdict {
            Verdict::Known => Ok(true),
            Verdict::Changed { other } => {
                let other = other.into();
                Err(ConnectError::HostKeyChanged { host, algorithm: kind, fingerprint, other })
            }
            Verdict::Revoked { file, line } => Err(ConnectError::HostKeyRevoked {
                host,
                algorithm: kind,
                fingerprint,
                file: file.into(),
                line,
            }),
            Verdict::Unknown { .. } => self.meet(shown, key).await,
        }
    }

    fn judge(&self, shown: &PublicKeyOrCertificate) -> Verdict {
        let (host, port) = self.hop.known_as();
        let keys = self.hop.known_hosts.read();
        let verdict = match shown.certificate() {
            Some(certificate) => keys.check_certificate(host, port, certificate, SystemTime::now()),
            None => keys.check(host, port, &shown.public_key()),
        };
        match (&verdict, self.questions.accepted(host, port)) {
            (Verdict::Unknown { .. }, Some(key)) if key == *shown.public_key().key_data() => Verdict::Known,
            (Verdict::Unknown { .. }, Some(_)) => Verdict::Changed { other: HostKeyPlace::Memory },
            _ => verdict,
        }
    }

    /// A key that is new.
    async fn meet(&self, shown: &PublicKeyOrCertificate, key: PublicKey) -> Result<bool, ConnectError> {
        let (host, algorithm, fingerprint) =
            (printable(&self.hop.name()).into_owned(), kind(&key), known_hosts::fingerprint(&key));
        match self.hop.policy {
            HostKeyPolicy::AcceptNew => {}
            HostKeyPolicy::Ask if self.questions.somebody_is_there() => {
                let _open = self.ask_open();
                let _turn = self.questions.turn().await;
                // Another connection may have asked in the meantime.
                if self.judge(shown) == Verdict::Known {
                    return Ok(true);
                }
                let (asked, said) = (host.clone(), format!("{algorithm} key {fingerprint}"));
                let print = fingerprint.clone();
                let answer = self.questions.ask(move |person| confirm(person, &asked, &said, &print)).await;
                if !answer.unwrap_or(false) {
                    return Err(ConnectError::HostKeyRefused { host, algorithm, fingerprint });
                }
                self.note(key).await;
                return Ok(true);
            }
            HostKeyPolicy::Ask | HostKeyPolicy::Strict => {
                let (host, scan) = (self.hop.host.clone(), self.scan());
                return Err(ConnectError::HostKeyUnknown { host, algorithm, fingerprint, scan });
            }
        }
        self.note(key).await;
        Ok(true)
    }

    /// The command that adds the server's key. ssh-keyscan knows no other names.
    fn scan(&self) -> Option<String> {
        let file = self.hop.known_hosts.user.first().filter(|_| self.hop.alias.is_none())?;
        let (port, host) = (self.hop.port, shell_words::quote(&self.hop.host));
        let quoted = |path: &Path| shell_words::quote(&path.to_string_lossy()).into_owned();
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty() && !folder.exists());
        let make = folder.map(|folder| format!("mkdir -p -m 700 {} && ", quoted(folder))).unwrap_or_default();
        Some(format!("{make}ssh-keyscan -p {port} {host} >> {}", quoted(file)))
    }

    /// That it cannot be noted does not make it wrong, but another one later.
    async fn note(&self, key: PublicKey) {
        let (host, port) = self.hop.known_as();
        self.questions.accept(host, port, &key);
        let Some(file) = self.hop.known_hosts.user.first() else { return };
        if let Err(error) = known_hosts::learn(file, host, port, &key, self.hop.known_hosts.hashed) {
            let text = format!("The key of {host} cannot be added to {}: {error}", file.display());
            tracing::warn!("{text}");
            let _ = self.questions.ask(move |person| person.show(&text)).await;
        }
    }

    /// Has the server show a kind of key that is known already, or a certificate if its authority is.
    pub(super) fn prefer_known_keys(&self, config: &mut client::Config) {
        let (host, port) = self.hop.known_as();
        let known = self.hop.known_hosts.read();
        let kinds = known.kinds(host, port);
        let is_known = |algorithm: &Algorithm| {
            let kind = match algorithm {
                Algorithm::Rsa { .. } => Algorithm::Rsa { hash: None },
                other => other.clone(),
            };
            kinds.contains(&kind)
        };
        // SHA-1 proves nothing any more.
        let usable = config
            .preferred
            .key
            .iter()
            .filter(|algorithm| !matches!(algorithm, Algorithm::Rsa { hash: None }));
        let mut keys: Vec<_> = usable.cloned().collect();
        keys.sort_by_key(|algorithm| !is_known(algorithm));
        if known.has_authority(host, port) {
            config.preferred.host_key_certificates = Cow::Owned(keys.clone());
        }
        config.preferred.key = Cow::Owned(keys);
    }

    /// While what this gives is held, a person is being asked, or a device.
    pub(super) fn ask_open(&self) -> impl Drop + use<> {
        self.open.send_modify(|open| *open += 1);
        Open(self.open.clone())
    }

    /// Waits for something that should take no longer than `limit`, not counting what people take.
    ///
    /// # Errors
    /// That of the future, or it takes too long.
    pub(crate) async fn within<T, E: Into<ConnectError>>(
        &self,
        what: &str,
        limit: Duration,
        future: impl Future<Output = Result<T, E>>,
    ) -> Result<T, ConnectError> {
        let mut future = pin!(future);
        let mut open = self.open.subscribe();
        loop {
            let is_asked = *open.borrow_and_update() > 0;
            tokio::select! {
                biased;
                done = &mut future => return done.map_err(Into::into),
                // After an answer the limit begins anew.
                Ok(()) = open.changed() => {}
                () = tokio::time::sleep(limit), if !is_asked => {
                    let what = format!("{what} with {}", self.hop.name());
                    return Err(ConnectError::Timeout { what, limit });
                }
            }
        }
    }

    /// A connection that ended: with the server's own words if there are any.
    pub(crate) fn lost(&self, otherwise: &str) -> ConnectError {
        let server = self.hop.name();
        let Heard { disconnect, lines, .. } = self.heard();
        let (is_refusal, text) = disconnect.unwrap_or_else(|| (false, otherwise.to_owned()));
        match is_refusal {
            true => ConnectError::Login { server, user: self.hop.user.clone(), why: text, said: lines },
            false => ConnectError::Lost { server, why: text },
        }
    }

    /// A forward that the server does not grant.
    pub(crate) fn refused_forward(&self) -> ConnectError {
        let why = "it does not grant a forward".to_owned();
        let said =
            vec!["What this account may publish, its operator says; `ssh HOST whoami` shows it.".to_owned()];
        ConnectError::Login { server: self.hop.name(), user: self.hop.user.clone(), why, said }
    }

    /// What russh says of a handshake, in words about the server. `preamble` is what came before its version line.
    pub(super) fn explain(&self, error: ConnectError, preamble: &[String]) -> ConnectError {
        let server = self.hop.name();
        let error = match error {
            ConnectError::Ssh(russh::Error::IO(error)) => match proxy_command::its_own_words(error) {
                Ok(ours) => return with_its_output(ours, preamble),
                Err(error) => russh::Error::IO(error),
            },
            ConnectError::Ssh(error) => error,
            other => return other,
        };
        let said = in_one_line(preamble);
        if said.starts_with("HTTP/") {
            return ConnectError::Protocol {
                server,
                why: format!("it answers {:?}", preamble.first().unwrap_or(&said)),
            };
        }
        match error {
            russh::Error::Version => {
                ConnectError::Protocol { server, why: "it sends no SSH version line".into() }
            }
            russh::Error::NoCommonAlgo { kind, theirs, .. } => {
                let theirs = printable(&theirs.join(", ")).into_owned();
                ConnectError::Protocol {
                    server,
                    why: format!("no common {kind:?} algorithm; it has {theirs}"),
                }
            }
            russh::Error::Disconnect | russh::Error::HUP | russh::Error::IO(_) if !said.is_empty() => {
                ConnectError::Lost { server, why: said }
            }
            russh::Error::IO(error) => self.lost(&error.to_string()),
            russh::Error::Disconnect | russh::Error::HUP => {
                self.lost("it closed the connection during the key exchange")
            }
            other => ConnectError::Protocol { server, why: other.to_string() },
        }
    }
}

fn in_one_line(preamble: &[String]) -> String {
    preamble.iter().take(MAX_REASON).map(String::as_str).collect::<Vec<_>>().join(" / ")
}

/// What came through a ProxyCommand says more than that it has ended. It may be the server's words or its own.
fn with_its_output(error: ConnectError, preamble: &[String]) -> ConnectError {
    match error {
        ConnectError::ProxyCommand { program, target, why, is_final: false } if !preamble.is_empty() => {
            let why = format!("{why}, after it said {:?}", in_one_line(preamble));
            ConnectError::ProxyCommand { program, target, why, is_final: false }
        }
        other => other,
    }
}

struct Open(watch::Sender<usize>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.send_modify(|open| *open -= 1);
    }
}

/// `ED25519`, as ssh calls it.
fn kind(key: &PublicKey) -> String {
    match key.algorithm() {
        Algorithm::Ed25519 => "ED25519".into(),
        Algorithm::Ecdsa { .. } => "ECDSA".into(),
        Algorithm::Rsa { .. } => "RSA".into(),
        other => other.as_str().to_owned(),
    }
}

fn confirm(person: &dyn Ask, host: &str, key: &str, fingerprint: &str) -> io::Result<bool> {
    person.show(&format!("{host} is new here. It shows the {key}."))?;
    person.show(
        "Only its operator can say whether that is right; a wrong one means that somebody stands between.",
    )?;
    for _ in 0..TRIES {
        let answer = person.line("Is it right? Answer yes, no, or paste the fingerprint you were told: ")?;
        let answer = answer.trim();
        match answer.to_ascii_lowercase().as_str() {
            "yes" => return Ok(true),
            "no" => return Ok(false),
            _ if answer == fingerprint || answer == fingerprint.trim_start_matches("SHA256:") => {
                return Ok(true);
            }
            _ if answer.starts_with("SHA256:") => {
                person.show("That is another fingerprint: this is not the server you were told about.")?;
                return Ok(false);
            }
            _ => {}
        }
    }
    Ok(false)
}
