//! The login (RFC 4252): a token where one is given, otherwise keys as ssh would offer them, then questions of the server.

use std::collections::HashSet;

use hithe_cli_parser::{Secret, printable};
use russh::client::{AuthResult, Handle, Handler, KeyboardInteractiveAuthResponse as Reply, Prompt};
use russh::keys::{Algorithm, HashAlg};
use russh::{MethodKind, MethodSet};

use super::gate::Gate;
use super::identity::Keyring;
use super::{ConnectError, Hop};

/// Keys that are offered: servers end the connection after six failures (sshd's MaxAuthTries), and one is left for
/// its questions.
const MAX_OFFERS: usize = 5;
/// Rounds of questions of one server.
const MAX_ROUNDS: usize = 10;

/// # Errors
/// The server does not let us in, or the connection ends.
pub(super) async fn log_in<H: Handler>(
    hop: &Hop,
    token: Option<&Secret<String>>,
    handle: &mut Handle<H>,
    gate: &Gate,
) -> Result<(), ConnectError> {
    let mut login = Login {
        hop,
        handle,
        gate,
        methods: MethodSet::empty(),
        notes: Vec::new(),
        is_in: false,
        lacks_signature: false,
    };
    match token {
        Some(token) => login.by_token(token).await,
        None => login.by_all_means().await,
    }
}

struct Login<'a, H: Handler> {
    hop: &'a Hop,
    handle: &'a mut Handle<H>,
    gate: &'a Gate,
    /// What the server still takes.
    methods: MethodSet,
    /// What was tried, and what could not be.
    notes: Vec<String>,
    is_in: bool,
    /// It would take a key with which nobody could sign, or might.
    lacks_signature: bool,
}

impl<H: Handler> Login<'_, H> {
    async fn by_token(&mut self, token: &Secret<String>) -> Result<(), ConnectError> {
        let sent = self.handle.authenticate_password(&self.hop.user, token.expose()).await;
        self.settle(sent)?;
        if self.is_in {
            return Ok(());
        }
        let advice = "Look whether the token is complete, and whether it has expired; the server's operator makes new ones.";
        Err(self.refused("this access token is not known to it, or has expired", vec![advice.into()]))
    }

    async fn by_all_means(&mut self) -> Result<(), ConnectError> {
        let asked = self.handle.authenticate_none(&self.hop.user).await;
        self.settle(asked)?;
        if !self.is_in && self.takes(MethodKind::PublicKey) {
            self.by_keys().await?;
        }
        if self.lacks_signature && !self.is_in && !self.gate.questions().somebody_is_there() {
            // What it would say now, that it does not know the key, is not true.
            let advice = "Put the key into ssh-agent with ssh-add, or name one that needs no passphrase.";
            return Err(self.refused(&self.notes.join("; "), vec![advice.into()]));
        }
        if !self.is_in && self.takes(MethodKind::KeyboardInteractive) {
            self.by_answers().await?;
        } else if !self.is_in && self.takes(MethodKind::Password) {
            self.by_password().await?;
        }
        if self.is_in {
            return Ok(());
        }
        let why = match self.notes.is_empty() {
            true => "there is no key to offer".to_owned(),
            false => self.notes.join("; "),
        };
        let said = self.gate.heard().lines;
        Err(self.refused(&why, said))
    }

    async fn by_keys(&mut self) -> Result<(), ConnectError> {
        let binding = self.handle.agent_session_binding().cloned();
        let mut ring = Keyring::of(self.hop, self.gate, binding.as_ref()).await;
        let hash =
            match ring.offers.iter().any(|offer| matches!(offer.key.algorithm(), Algorithm::Rsa { .. })) {
                true => self.rsa_hash().await?,
                false => None,
            };
        let mut refused = Vec::new();
        for at in 0..ring.offers.len().min(MAX_OFFERS) {
            if self.is_in || !self.takes(MethodKind::PublicKey) {
                break;
            }
            let Some((offer, mut signer)) = ring.signer(at, self.gate) else { break };
            let is_rsa = matches!(offer.key.algorithm(), Algorithm::Rsa { .. });
            if is_rsa && hash.is_none() {
                self.notes.push(format!("{}: the server takes RSA keys only with SHA-1", offer.name));
                continue;
            }
            let (user, hash) = (&self.hop.user, hash.filter(|_| is_rsa));
            let shown = match &offer.certificate {
                Some(certificate) => {
                    Box::pin(self.handle.authenticate_certificate_with(
                        user,
                        certificate.clone(),
                        hash,
                        &mut signer,
                    ))
                    .await
                }
                None => {
                    Box::pin(self.handle.authenticate_publickey_with(
                        user,
                        offer.key.clone(),
                        hash,
                        &mut signer,
                    ))
                    .await
                }
            };
            let name = offer.name.clone();
            match shown {
                Err(error) if !self.handle.is_closed() => {
                    self.lacks_signature = true;
                    self.notes.push(format!("{name}: {error}"));
                }
                other => {
                    self.settle(other)?;
                    refused.push(name);
                }
            }
        }
        if !self.is_in {
            let beyond = ring.offers.len().saturating_sub(MAX_OFFERS);
            self.lacks_signature |= ring.is_locked;
            self.notes.append(&mut ring.notes);
            self.note_refused(&refused, beyond);
        }
        Ok(())
    }

    fn note_refused(&mut self, refused: &[String], beyond: usize) {
        if !refused.is_empty() {
            self.notes.insert(0, format!("it does not accept {}", refused.join(", ")));
        }
        if beyond > 0 {
            self.notes.push(format!(
                "{beyond} more keys were not offered, since servers count failures: name the right one"
            ));
        }
    }

    /// Never SHA-1.
    async fn rsa_hash(&self) -> Result<Option<HashAlg>, ConnectError> {
        match self.handle.best_supported_rsa_hash().await {
            Ok(Some(best)) => Ok(best),
            Ok(None) => Ok(Some(HashAlg::Sha512)),
            Err(_) => Err(self.gate.lost(GONE)),
        }
    }

    /// keyboard-interactive (RFC 4256): the server explains, and may ask.
    async fn by_answers(&mut self) -> Result<(), ConnectError> {
        let started =
            self.handle.authenticate_keyboard_interactive_start(&self.hop.user, None::<String>).await;
        let mut reply = started.map_err(|_| self.gate.lost(GONE))?;
        let mut shown = HashSet::new();
        for _ in 0..MAX_ROUNDS {
            match reply {
                Reply::Success => {
                    self.is_in = true;
                    return Ok(());
                }
                Reply::Failure { remaining_methods, .. } => {
                    // It asks again as long as it says that it may.
                    let again = remaining_methods.contains(&MethodKind::KeyboardInteractive);
                    self.methods = remaining_methods;
                    if !again || !self.gate.questions().somebody_is_there() || shown.is_empty() {
                        return Ok(());
                    }
                    let started = self
                        .handle
                        .authenticate_keyboard_interactive_start(&self.hop.user, None::<String>)
                        .await;
                    reply = started.map_err(|_| self.gate.lost(GONE))?;
                }
                Reply::InfoRequest { name, instructions, prompts } => {
                    let text = format!("{name}\n{instructions}");
                    self.gate.hear_lines(&text);
                    if !prompts.is_empty() && !self.gate.questions().somebody_is_there() {
                        return Ok(());
                    }
                    let is_asked = !prompts.is_empty();
                    let Some(answers) = self.answers(text, prompts).await else { return Ok(()) };
                    if is_asked {
                        shown.insert(answers.len());
                    }
                    let sent = self.handle.authenticate_keyboard_interactive_respond(answers).await;
                    reply = sent.map_err(|_| self.gate.lost(GONE))?;
                }
            }
        }
        Ok(())
    }

    /// None if nobody answers.
    async fn answers(&self, text: String, prompts: Vec<Prompt>) -> Option<Vec<String>> {
        if prompts.is_empty() {
            return Some(Vec::new());
        }
        let _open = self.gate.ask_open();
        let _turn = self.gate.questions().turn().await;
        let asked = self.gate.questions().ask(move |person| {
            for line in text.lines().filter(|line| !line.trim().is_empty()) {
                person.show(&printable(line))?;
            }
            let answer = |Prompt { prompt, echo }: Prompt| {
                let prompt = printable(&prompt).into_owned();
                if echo {
                    person.line(&prompt)
                } else {
                    person.secret(&prompt).map(|typed| typed.expose().clone())
                }
            };
            prompts.into_iter().map(answer).collect()
        });
        asked.await.ok()
    }

    /// Where a server asks for nothing else.
    async fn by_password(&mut self) -> Result<(), ConnectError> {
        if !self.gate.questions().somebody_is_there() {
            return Ok(());
        }
        let question =
            printable(&format!("Password of {} at {}: ", self.hop.user, self.hop.name())).into_owned();
        let typed = {
            let _open = self.gate.ask_open();
            let _turn = self.gate.questions().turn().await;
            self.gate.questions().ask(move |person| person.secret(&question)).await
        };
        let Ok(typed) = typed else { return Ok(()) };
        let sent = self.handle.authenticate_password(&self.hop.user, typed.expose()).await;
        self.settle(sent)?;
        if !self.is_in {
            self.notes.push("it does not accept the password".into());
        }
        Ok(())
    }

    fn takes(&self, method: MethodKind) -> bool {
        self.methods.contains(&method)
    }

    /// russh says of a connection that ended that nothing is left to try.
    fn settle<E>(&mut self, result: Result<AuthResult, E>) -> Result<(), ConnectError> {
        match result {
            Ok(AuthResult::Success) => self.is_in = true,
            Ok(AuthResult::Failure { remaining_methods, .. }) if !self.handle.is_closed() => {
                self.methods = remaining_methods;
            }
            _ => return Err(self.gate.lost(GONE)),
        }
        Ok(())
    }

    fn refused(&self, why: &str, said: Vec<String>) -> ConnectError {
        let user = printable(&self.hop.user).into_owned();
        ConnectError::Login { server: self.hop.name(), user, why: why.into(), said }
    }
}

const GONE: &str = "it closed the connection during the login";
