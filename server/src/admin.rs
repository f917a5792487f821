//! `accounts`, `keys`, `tokens`, `names`, `sessions`, `audit`, `whoami`, `status`: what is asked of the server itself, over
//! ssh and, where no server needs to run, by `hithed admin`.
//!
//! [`Desk::answer`] blocks for the disk: callers run it where that is no harm.

mod change;
mod show;

use std::fmt;
use std::sync::Arc;

use hithe_cli_parser::{Accounts, Admin, Audit, Code, HostName, Keys, List, Names, Sessions, Tokens};
use hithe_keys::Fingerprint;

pub(crate) use change::reconsider;

use crate::access::{Access, Identity};
use crate::account::{Account, AccountError, AclError};
use crate::limits::Accounts as Usages;
use crate::metrics::Metrics;
use crate::registry::{Registry, SessionId};
use crate::store::{Class, Database, DatabaseError, Entry, PeopleError, Recorder};

/// Where such commands are answered.
#[derive(Clone, Debug)]
pub(crate) struct Desk {
    database: Database,
    domain: HostName,
    /// The running server; none for `hithed admin`, which works beside it.
    server: Option<Running>,
}

/// What the running server knows.
#[derive(Clone, Debug)]
pub(crate) struct Running {
    pub(crate) access: Access,
    pub(crate) registry: Registry,
    pub(crate) accounts: Usages,
    pub(crate) metrics: Arc<Metrics>,
    /// Entries that are not written yet.
    pub(crate) audit: Recorder,
}

/// Who asks.
#[derive(Clone, Debug)]
pub(crate) enum Asker {
    /// Who may read and write the state directory.
    Operator,
    /// A publisher. The source is its address.
    Publisher { identity: Arc<Identity>, session: SessionId, source: String },
}

/// Why it was not done. Who asked reads it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AdminError {
    #[error("only an admin may do that")]
    NotAdmin,
    #[error("{0}")]
    Wrong(String),
    #[error(transparent)]
    Account(#[from] AccountError),
    #[error(transparent)]
    Acl(#[from] AclError),
    #[error(transparent)]
    People(#[from] PeopleError),
    #[error(transparent)]
    Database(#[from] DatabaseError),
    #[error("this is known to the running server alone: ask it with ssh HOST {0}")]
    NeedsServer(&'static str),
}

impl AdminError {
    fn code(&self) -> Code {
        match self {
            Self::NotAdmin => Code::NOT_ADMIN,
            _ => Code::ADMIN_FAILED,
        }
    }
}

/// What is printed, and the exit status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) text: String,
    pub(crate) status: u32,
}

impl Desk {
    pub(crate) fn of_server(database: Database, server: Running) -> Self {
        Self { database, domain: server.registry.domain().clone(), server: Some(server) }
    }

    pub(crate) fn offline(database: Database, domain: HostName) -> Self {
        Self { database, domain, server: None }
    }

    /// Does what is asked and says what came of it. Changes are written into the audit log.
    pub(crate) fn answer(&self, asker: &Asker, command: &Admin) -> Answer {
        // Asked before: it may take the mark from the very account that gives it.
        let class = if self.is_admin(asker) { Class::Change } else { Class::Anybody };
        let done = self.dispatch(asker, command);
        if changes(command) || matches!(done, Err(AdminError::NotAdmin)) {
            let result = done.as_ref().map_or_else(ToString::to_string, |_| "ok".to_owned());
            let entry = Entry::now(asker.name(), asker.source(), command.action(), object(command), result);
            if let Err(error) = self.database.record(&[entry.of_class(class)]) {
                tracing::error!(%error, action = command.action(), by = %asker, "cannot write the audit log");
            }
        }
        match done {
            Ok(text) => Answer { text, status: 0 },
            Err(error) => {
                if let Some(server) = &self.server {
                    server.metrics.refused(error.code());
                }
                Answer { text: format!("{}: {error}\n", error.code()), status: 1 }
            }
        }
    }

    fn dispatch(&self, asker: &Asker, command: &Admin) -> Result<String, AdminError> {
        if is_for_admins(command) && !self.is_admin(asker) {
            return Err(AdminError::NotAdmin);
        }
        match command {
            Admin::Whoami(show) => self.whoami(asker, *show),
            Admin::Status(show) => self.status(asker, *show),
            Admin::Accounts(command) => self.accounts(command),
            Admin::Keys(command) => self.keys(asker, command),
            Admin::Tokens(command) => self.tokens(asker, command),
            Admin::Names(command) => self.names(asker, command),
            Admin::Sessions(Sessions::List(list)) => self.show_sessions(asker, list),
            Admin::Sessions(Sessions::Kick { who }) => self.kick(asker, who),
            Admin::Audit(audit) => self.show_audit(audit),
        }
    }

    /// The operator, and accounts that are marked.
    fn is_admin(&self, asker: &Asker) -> bool {
        match (asker, &self.server) {
            (Asker::Operator, _) => true,
            (Asker::Publisher { identity, .. }, Some(server)) => {
                server.access.is_admin(identity) && server.access.still_admits(identity)
            }
            (Asker::Publisher { .. }, None) => false,
        }
    }

    /// Whose things are shown: all for an admin who names nobody.
    fn whose(&self, asker: &Asker, list: &List) -> Result<Option<Account>, AdminError> {
        let named = list.account.as_deref().map(str::parse::<Account>).transpose()?;
        match asker {
            _ if self.is_admin(asker) => Ok(named),
            Asker::Publisher { identity, .. } if named.as_ref().is_none_or(|it| *it == identity.account) => {
                Ok(Some(identity.account.clone()))
            }
            _ => Err(AdminError::NotAdmin),
        }
    }

    fn registry(&self, command: &'static str) -> Result<&Registry, AdminError> {
        self.server.as_ref().map(|server| &server.registry).ok_or(AdminError::NeedsServer(command))
    }

    fn whoami(&self, asker: &Asker, show: hithe_cli_parser::Show) -> Result<String, AdminError> {
        let Asker::Publisher { identity, source, .. } = asker else {
            return Err(AdminError::Wrong("you are who may use the state directory".to_owned()));
        };
        let admin = self.is_admin(asker);
        let Some(server) = &self.server else {
            return Ok(show::whoami(identity, source, admin, &show::Known::default(), show));
        };
        let limits = server.access.limits(&identity.account);
        let (limits, moved_this_month) = server.accounts.about(&identity.account, limits);
        let record = || server.access.values(identity, &self.domain).to_tell().to_owned();
        let domain_record = server.registry.takes_proofs().then(record);
        let known = show::Known { limits, moved_this_month, domain_record };
        Ok(show::whoami(identity, source, admin, &known, show))
    }
}

impl Asker {
    fn name(&self) -> String {
        match self {
            Self::Operator => "operator".to_owned(),
            Self::Publisher { identity, .. } => identity.account.to_string(),
        }
    }

    fn source(&self) -> &str {
        match self {
            Self::Operator => "local",
            Self::Publisher { source, .. } => source,
        }
    }
}

impl fmt::Display for Asker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

/// Anybody may look at what is their own, and end their own sessions.
fn is_for_admins(command: &Admin) -> bool {
    match command {
        Admin::Accounts(_) | Admin::Audit(_) => true,
        Admin::Keys(_) | Admin::Tokens(_) | Admin::Names(_) => changes(command),
        Admin::Whoami(_) | Admin::Status(_) | Admin::Sessions(_) => false,
    }
}

/// Whether a command is for the audit log.
fn changes(command: &Admin) -> bool {
    match command {
        Admin::Whoami(_) | Admin::Status(_) | Admin::Audit(_) => false,
        Admin::Accounts(it) => !matches!(it, Accounts::List(_)),
        Admin::Keys(it) => !matches!(it, Keys::List(_)),
        Admin::Tokens(it) => !matches!(it, Tokens::List(_)),
        Admin::Names(it) => !matches!(it, Names::List(_)),
        Admin::Sessions(it) => !matches!(it, Sessions::List(_)),
    }
}

/// What a command is about, without anything secret.
fn object(command: &Admin) -> String {
    match command {
        Admin::Accounts(
            Accounts::Add { name, .. } | Accounts::Change { name, .. } | Accounts::Remove { name },
        ) => name.clone(),
        Admin::Keys(Keys::Add { account, key, .. }) => match change::read_key(key) {
            Ok((key, _)) => format!("{} of {account}", Fingerprint::of(&key)),
            Err(_) => format!("a key of {account}"),
        },
        Admin::Keys(Keys::Remove { fingerprint }) => fingerprint.clone(),
        Admin::Tokens(Tokens::Add { account, .. }) => format!("a token of {account}"),
        Admin::Tokens(Tokens::Remove { id }) => change::public_half(id).to_owned(),
        Admin::Names(Names::Reserve { name, account }) => format!("{name} for {account}"),
        Admin::Names(Names::Release { name }) => name.clone(),
        Admin::Sessions(Sessions::Kick { who }) => who.clone(),
        Admin::Audit(Audit { account: Some(account), .. }) => account.clone(),
        _ => String::new(),
    }
}
