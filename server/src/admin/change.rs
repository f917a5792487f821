//! The commands that change something, group by group.

use std::time::SystemTime;

use hithe_cli_parser::{AccountLimits, Accounts, Allowance, Bind, Keys, Names, Tokens};
use hithe_keys::Fingerprint;
use russh::keys::{Algorithm, PublicKey};

use super::{AdminError, Asker, Desk, Running};
use crate::account::{Account, Acl};
use crate::limits::{Overrides, Quota};
use crate::registry::{Holder, Registry};
use crate::store::{Key, NewToken, Person, seconds};

impl Desk {
    pub(super) fn accounts(&self, command: &Accounts) -> Result<String, AdminError> {
        match command {
            Accounts::List(show) => self.show_accounts(*show),
            Accounts::Add { name, description, admin } => {
                let account: Account = name.parse()?;
                if account.is_key() {
                    let text =
                        "a key that stands for itself needs no account: give the account a name of its own";
                    return Err(AdminError::Wrong(text.to_owned()));
                }
                let made = now();
                let person = Person {
                    account,
                    description: bounded(description)?,
                    admin: *admin,
                    limits: Overrides::NONE,
                    made,
                };
                self.database.add_account(&person)?;
                self.applied()?;
                Ok(format!(
                    "account {name} made; let it in with: keys add {name} \"$(cat id_ed25519.pub)\", or tokens add {name}\n"
                ))
            }
            Accounts::Change { name, description, admin, limits } => {
                let description = description.as_deref().map(bounded).transpose()?;
                self.database.change_account(
                    &name.parse()?,
                    description.as_deref(),
                    *admin,
                    said(*limits),
                )?;
                self.applied()?;
                Ok(format!("account {name} changed\n"))
            }
            Accounts::Remove { name } => {
                let account: Account = name.parse()?;
                self.database.remove_account(&account, now())?;
                if let Some(server) = &self.server {
                    server.registry.forget_account(&account);
                }
                self.applied()?;
                Ok(format!("account {name} removed with its keys, tokens, names and reservations\n"))
            }
        }
    }

    pub(super) fn keys(&self, asker: &Asker, command: &Keys) -> Result<String, AdminError> {
        match command {
            Keys::List(list) => self.show_keys(asker, list),
            Keys::Add { account, key, grant } => {
                let (key, comment) = read_key(key)?;
                let fingerprint = Fingerprint::of(&key);
                let description = if grant.description.is_empty() { &comment } else { &grant.description };
                let row = Key {
                    fingerprint,
                    account: account.parse()?,
                    description: bounded(description)?,
                    acl: acl(&grant.acl)?,
                    made: now(),
                };
                let text = key.to_openssh().map_err(|error| AdminError::Wrong(error.to_string()))?;
                self.database.add_key(&row, &text)?;
                self.applied()?;
                Ok(format!("key {fingerprint} may log in as {account}\n"))
            }
            Keys::Remove { fingerprint } => {
                let wrong = |_| {
                    AdminError::Wrong(
                        "give the fingerprint as keys list or ssh-keygen -l shows it".to_owned(),
                    )
                };
                self.database.remove_key(&fingerprint.parse().map_err(wrong)?)?;
                self.applied()?;
                Ok(format!("key {fingerprint} removed\n"))
            }
        }
    }

    pub(super) fn tokens(&self, asker: &Asker, command: &Tokens) -> Result<String, AdminError> {
        match command {
            Tokens::List(list) => self.show_tokens(asker, list),
            Tokens::Add { account, expires, grant } => {
                let made = now();
                let (id, token) = self.database.add_token(&NewToken {
                    account: account.parse()?,
                    description: bounded(&grant.description)?,
                    acl: acl(&grant.acl)?,
                    made,
                    expires: expires.map(|it| made.saturating_add(it.as_secs().cast_signed())),
                })?;
                self.applied()?;
                Ok(format!(
                    "{token}\n\nThis is token {id} of {account}. It is not shown again. A client without a key types it as its \
                     password.\n"
                ))
            }
            Tokens::Remove { id } => {
                let id = public_half(id);
                self.database.remove_token(id)?;
                self.applied()?;
                Ok(format!("token {id} removed\n"))
            }
        }
    }

    pub(super) fn names(&self, asker: &Asker, command: &Names) -> Result<String, AdminError> {
        match command {
            Names::List(list) => self.show_names(asker, list),
            Names::Reserve { name, account } => {
                let what = self.what(name)?;
                let account: Account = account.parse()?;
                let known = account.is_key() || self.database.people()?.accounts.contains_key(&account);
                if !known {
                    return Err(AdminError::Wrong(format!("there is no account {account}")));
                }
                self.database.reserve(&what, &account, now())?;
                self.applied()?;
                Ok(format!("{what} is kept for {account}\n"))
            }
            Names::Release { name } => {
                let what = self.what(name)?;
                let was_reserved = self.database.release(&what)?;
                let was_kept = match &self.server {
                    Some(server) => server.registry.forget_owner(&what),
                    None => self.database.release_past_owner(&what, now())?,
                };
                self.applied()?;
                match was_reserved || was_kept {
                    true => Ok(format!("{what} is free, unless a session has it now\n")),
                    false => Err(AdminError::Wrong(format!("nobody is kept {what} for"))),
                }
            }
        }
    }

    pub(super) fn kick(&self, asker: &Asker, who: &str) -> Result<String, AdminError> {
        let registry = self.registry("sessions kick")?;
        let asks = |holder: &dyn Holder| matches!(asker, Asker::Publisher { session, .. } if *session == holder.id());
        // All of an account, but not the one that asks.
        let is_meant = |holder: &dyn Holder| {
            holder.id().to_string() == who || holder.account().as_str() == who && !asks(holder)
        };
        let own = |holder: &dyn Holder| matches!(asker, Asker::Publisher { identity, .. } if identity.account == *holder.account());
        // Of the others, who is no admin learns not even that they are there.
        let may = |holder: &dyn Holder| self.is_admin(asker) || own(holder);
        let sessions = registry.sessions().into_iter();
        let meant: Vec<_> = sessions.filter(|holder| is_meant(&**holder) && may(&**holder)).collect();
        if meant.is_empty() {
            return Err(AdminError::Wrong(format!(
                "there is no session {who}, and none of an account by that name"
            )));
        }
        for holder in &meant {
            holder.end(&format!("this session was ended by {asker}"));
        }
        Ok(format!(
            "{} ended\n",
            if meant.len() == 1 { "1 session".to_owned() } else { format!("{} sessions", meant.len()) }
        ))
    }

    /// A name, wildcard or port as the registry writes it.
    fn what(&self, name: &str) -> Result<String, AdminError> {
        if let Ok(port) = name.parse::<u16>() {
            return Ok(format!("port {port}"));
        }
        let asked = Bind { address: name.to_owned(), port: 443 }.requested_name(&self.domain);
        let asked = asked.map_err(|error| AdminError::Wrong(error.to_string()))?;
        let wrong = || {
            AdminError::Wrong(format!("{name:?} is no name: give app, '*.app', app.example.com or a port"))
        };
        let pattern = asked.ok_or_else(wrong)?;
        Ok(pattern.to_string())
    }

    /// Lets the running server see a change at once. Beside it, it looks for itself every two seconds.
    fn applied(&self) -> Result<(), AdminError> {
        let Some(Running { access, registry, accounts, .. }) = &self.server else { return Ok(()) };
        access.reload_people()?;
        accounts.apply(|account| access.limits(account));
        registry.set_reservations(self.database.reservations()?);
        reconsider(registry);
        Ok(())
    }
}

/// Who would not be let in any more goes.
pub(crate) fn reconsider(registry: &Registry) {
    for session in registry.sessions() {
        session.reconsider();
    }
}

/// A public key with its comment, from the words of its line.
pub(super) fn read_key(words: &[String]) -> Result<(PublicKey, String), AdminError> {
    let wrong = |why: String| {
        AdminError::Wrong(format!("this is no public key ({why}): give the line of a .pub file"))
    };
    let line = words.join(" ");
    let key = PublicKey::from_openssh(line.trim()).map_err(|error| wrong(error.to_string()))?;
    if key.algorithm() == Algorithm::Dsa {
        return Err(AdminError::Wrong(
            "ssh-dss keys are not secure: make a new one with ssh-keygen -t ed25519".to_owned(),
        ));
    }
    let comment = line.trim().splitn(3, ' ').nth(2).unwrap_or_default().to_owned();
    Ok((key, comment))
}

fn said(limits: AccountLimits) -> Quota<Option<Allowance>> {
    Quota {
        sessions: limits.max_sessions,
        endpoints: limits.max_endpoints,
        ports: limits.max_ports,
        visits: limits.max_visits,
        rate: limits.max_rate,
        monthly: limits.max_monthly,
    }
}

fn acl(rules: &[String]) -> Result<Acl, AdminError> {
    Ok(rules.join(" ").parse()?)
}

/// The half of a token that is no secret, where somebody gives the whole.
pub(super) fn public_half(token: &str) -> &str {
    token.strip_prefix("hithe_").unwrap_or(token).split('_').next().unwrap_or_default()
}

/// As behaviour.md 7 has descriptions.
fn bounded(description: &str) -> Result<String, AdminError> {
    if description.len() > MAX_DESCRIPTION {
        return Err(AdminError::Wrong(format!("a description has at most {MAX_DESCRIPTION} bytes")));
    }
    Ok(description.to_owned())
}

fn now() -> i64 {
    seconds(SystemTime::now())
}

const MAX_DESCRIPTION: usize = 255;
