//! The commands that show something: a table for people, JSON for programs.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hithe_cli_parser::{Allowance, Audit, List, Show, printable};
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{AdminError, Asker, Desk};
use crate::access::Identity;
use crate::account::Account;
use crate::limits::Quota;
use crate::store::{AuditQuery, Person, seconds};

/// A row of what is shown: its cells as people read them, its fields as programs do.
trait Row: Serialize {
    const HEAD: &'static [&'static str];
    fn cells(&self) -> Vec<String>;
}

fn shown<R: Row>(rows: &[R], show: Show) -> String {
    if show.json {
        return json(&rows);
    }
    let head = R::HEAD.iter().map(ToString::to_string).collect();
    table(std::iter::once(head).chain(rows.iter().map(Row::cells)).collect())
}

fn json(value: &impl Serialize) -> String {
    // Nothing here has keys that are no strings, which is all that could fail.
    let mut text = serde_json::to_string_pretty(value).unwrap_or_default();
    text.push('\n');
    text
}

/// Columns as wide as their widest cell; what is no printable character is escaped.
fn table(rows: Vec<Vec<String>>) -> String {
    let rows: Vec<Vec<String>> =
        rows.into_iter().map(|row| row.iter().map(|cell| printable(cell).into_owned()).collect()).collect();
    let columns = rows.first().map_or(0, Vec::len);
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(String::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[derive(Serialize)]
struct AccountRow {
    account: Account,
    description: String,
    admin: bool,
    keys: usize,
    tokens: usize,
    /// What is said of it alone.
    limits: BTreeMap<&'static str, String>,
    made: String,
}

impl Row for AccountRow {
    const HEAD: &'static [&'static str] = &["ACCOUNT", "ADMIN", "KEYS", "TOKENS", "MADE", "DESCRIPTION"];

    fn cells(&self) -> Vec<String> {
        let admin = if self.admin { "yes" } else { "no" };
        let (keys, tokens) = (self.keys.to_string(), self.tokens.to_string());
        vec![
            self.account.to_string(),
            admin.to_owned(),
            keys,
            tokens,
            self.made.clone(),
            self.description.clone(),
        ]
    }
}

#[derive(Serialize)]
struct KeyRow {
    fingerprint: String,
    account: Account,
    acl: String,
    made: String,
    description: String,
}

impl Row for KeyRow {
    const HEAD: &'static [&'static str] = &["FINGERPRINT", "ACCOUNT", "MAY BIND", "MADE", "DESCRIPTION"];

    fn cells(&self) -> Vec<String> {
        let account = self.account.to_string();
        vec![self.fingerprint.clone(), account, self.acl.clone(), self.made.clone(), self.description.clone()]
    }
}

#[derive(Serialize)]
struct TokenRow {
    id: String,
    account: Account,
    acl: String,
    made: String,
    expires: Option<String>,
    description: String,
}

impl Row for TokenRow {
    const HEAD: &'static [&'static str] = &["TOKEN", "ACCOUNT", "MAY BIND", "MADE", "EXPIRES", "DESCRIPTION"];

    fn cells(&self) -> Vec<String> {
        let expires = self.expires.clone().unwrap_or_else(|| "never".to_owned());
        let account = self.account.to_string();
        vec![self.id.clone(), account, self.acl.clone(), self.made.clone(), expires, self.description.clone()]
    }
}

#[derive(Serialize)]
struct NameRow {
    name: String,
    account: Account,
    /// `live`, `kept` for who had it last, or `reserved`; one may be both of the first and the last.
    state: String,
    urls: Vec<String>,
    seen: Option<String>,
}

impl Row for NameRow {
    const HEAD: &'static [&'static str] = &["NAME", "ACCOUNT", "STATE", "SEEN", "URL"];

    fn cells(&self) -> Vec<String> {
        let seen = self.seen.clone().unwrap_or_default();
        vec![self.name.clone(), self.account.to_string(), self.state.clone(), seen, self.urls.join(" ")]
    }
}

#[derive(Serialize)]
struct SessionRow {
    session: String,
    account: Account,
    credential: String,
    source: String,
    since: String,
    urls: Vec<String>,
}

impl Row for SessionRow {
    const HEAD: &'static [&'static str] = &["SESSION", "ACCOUNT", "SOURCE", "SINCE", "CREDENTIAL", "URLS"];

    fn cells(&self) -> Vec<String> {
        let (account, urls) = (self.account.to_string(), self.urls.join(" "));
        vec![
            self.session.clone(),
            account,
            self.source.clone(),
            self.since.clone(),
            self.credential.clone(),
            urls,
        ]
    }
}

#[derive(Serialize)]
struct AuditRow {
    at: String,
    account: String,
    source: String,
    action: String,
    object: String,
    result: String,
}

impl Row for AuditRow {
    const HEAD: &'static [&'static str] = &["AT", "ACCOUNT", "SOURCE", "ACTION", "OBJECT", "RESULT"];

    fn cells(&self) -> Vec<String> {
        [&self.at, &self.account, &self.source, &self.action, &self.object, &self.result]
            .map(Clone::clone)
            .to_vec()
    }
}

#[derive(Serialize)]
struct Status {
    version: &'static str,
    domain: String,
    sessions: usize,
    endpoints: usize,
    /// For admins: how often each code was the reason of a refusal since the server was started.
    #[serde(skip_serializing_if = "Option::is_none")]
    refusals: Option<BTreeMap<String, u64>>,
    own: Vec<SessionRow>,
}

#[derive(Serialize)]
struct Whoami<'a> {
    account: Account,
    credential: String,
    source: String,
    admin: bool,
    may_bind: String,
    #[serde(flatten)]
    known: &'a Known,
}

/// What the running server knows of an account.
#[derive(Default, Serialize)]
pub(super) struct Known {
    /// What the account may have at most; `null` is no limit.
    pub(super) limits: Quota,
    /// Bytes that it moved this month.
    pub(super) moved_this_month: u64,
    /// What the TXT record `_hithe.NAME` has to hold to make a custom domain the account's, where that is possible.
    pub(super) domain_record: Option<String>,
}

/// Who asks, to itself.
pub(super) fn whoami(identity: &Identity, source: &str, admin: bool, known: &Known, show: Show) -> String {
    let who = Whoami {
        account: identity.account.clone(),
        credential: identity.credential.to_string(),
        source: source.to_owned(),
        admin,
        may_bind: identity.rights.to_string(),
        known,
    };
    if show.json {
        return json(&who);
    }
    let mut rows = vec![
        vec!["Account".to_owned(), who.account.to_string()],
        vec!["Login".to_owned(), format!("{}  {}", who.credential, identity.comment)],
        vec!["From".to_owned(), who.source],
        vec!["Admin".to_owned(), if admin { "yes" } else { "no" }.to_owned()],
        vec!["May bind".to_owned(), who.may_bind],
        vec!["Limits".to_owned(), limits_in_words(&known.limits)],
        vec!["Moved".to_owned(), format!("{} bytes this month", known.moved_this_month)],
    ];
    let record = known
        .domain_record
        .as_ref()
        .map(|value| format!("_hithe.NAME. TXT \"{value}\" proves that NAME is yours"));
    rows.extend(record.map(|record| vec!["Domains".to_owned(), record]));
    table(rows)
}

fn limits_of(person: &Person) -> BTreeMap<&'static str, String> {
    let said = person.limits.columns().into_iter().filter(|(_, said)| *said != Allowance::Usual);
    said.map(|(name, said)| (name, said.to_string())).collect()
}

fn limits_in_words(limits: &Quota) -> String {
    let most = |what: &str, limit: Option<u64>| limit.map(|limit| format!("{limit} {what}"));
    let all = [
        most("sessions", limits.sessions),
        most("names and ports", limits.endpoints),
        most("tcp ports", limits.ports),
        most("visits at once", limits.visits),
        most("bytes/s", limits.rate),
        most("bytes a month", limits.monthly),
    ];
    let all: Vec<_> = all.into_iter().flatten().collect();
    if all.is_empty() { "none".to_owned() } else { all.join(", ") }
}

impl Desk {
    pub(super) fn show_accounts(&self, show: Show) -> Result<String, AdminError> {
        let people = self.database.people()?;
        let keys = tally(people.keys.values().map(|key| &key.account));
        let tokens = tally(people.tokens().map(|token| &token.account));
        let of = |tally: &HashMap<_, _>, account| tally.get(account).copied().unwrap_or_default();
        let mut rows: Vec<_> = people
            .accounts
            .values()
            .map(|person| AccountRow {
                account: person.account.clone(),
                description: person.description.clone(),
                admin: person.admin,
                keys: of(&keys, &person.account),
                tokens: of(&tokens, &person.account),
                limits: limits_of(person),
                made: day(person.made),
            })
            .collect();
        rows.sort_by(|a, b| a.account.cmp(&b.account));
        Ok(shown(&rows, show))
    }

    pub(super) fn show_keys(&self, asker: &Asker, list: &List) -> Result<String, AdminError> {
        let of = self.whose(asker, list)?;
        let people = self.database.people()?;
        let mut rows: Vec<_> = people
            .keys
            .values()
            .filter(|key| of.as_ref().is_none_or(|of| key.account == *of))
            .map(|key| KeyRow {
                fingerprint: key.fingerprint.to_string(),
                account: key.account.clone(),
                acl: if key.acl.is_everything() { "bind:*".to_owned() } else { key.acl.to_string() },
                made: day(key.made),
                description: key.description.clone(),
            })
            .collect();
        rows.sort_by(|a, b| (&a.account, &a.fingerprint).cmp(&(&b.account, &b.fingerprint)));
        Ok(shown(&rows, list.show))
    }

    pub(super) fn show_tokens(&self, asker: &Asker, list: &List) -> Result<String, AdminError> {
        let of = self.whose(asker, list)?;
        let people = self.database.people()?;
        let mut rows: Vec<_> = people
            .tokens()
            .filter(|token| of.as_ref().is_none_or(|of| token.account == *of))
            .map(|token| TokenRow {
                id: token.id.clone(),
                account: token.account.clone(),
                acl: if token.acl.is_everything() { "bind:*".to_owned() } else { token.acl.to_string() },
                made: day(token.made),
                expires: token.expires.map(moment),
                description: token.description.clone(),
            })
            .collect();
        rows.sort_by(|a, b| (&a.account, &a.id).cmp(&(&b.account, &b.id)));
        Ok(shown(&rows, list.show))
    }

    pub(super) fn show_names(&self, asker: &Asker, list: &List) -> Result<String, AdminError> {
        let of = self.whose(asker, list)?;
        let names = match &self.server {
            Some(server) => server.registry.names(of.as_ref()),
            None => {
                let past = self.database.past_owners()?;
                let reserved = self.database.reservations()?;
                crate::registry::names_of(&past, &reserved, of.as_ref())
            }
        };
        let rows: Vec<_> = names
            .into_iter()
            .map(|it| NameRow {
                state: it.state(),
                name: it.name,
                account: it.account,
                urls: it.urls.iter().map(ToString::to_string).collect(),
                seen: it.seen.map(moment),
            })
            .collect();
        Ok(shown(&rows, list.show))
    }

    pub(super) fn show_sessions(&self, asker: &Asker, list: &List) -> Result<String, AdminError> {
        let of = self.whose(asker, list)?;
        let rows = self.sessions(of.as_ref(), "sessions")?;
        Ok(shown(&rows, list.show))
    }

    fn sessions(&self, of: Option<&Account>, command: &'static str) -> Result<Vec<SessionRow>, AdminError> {
        let registry = self.registry(command)?;
        let mut sessions = registry.sessions();
        sessions.retain(|holder| of.is_none_or(|of| holder.account() == of));
        sessions.sort_by_key(|holder| holder.id());
        let mut urls = registry.urls();
        let rows = sessions.into_iter().map(|holder| {
            let about = holder.about();
            SessionRow {
                session: holder.id().to_string(),
                account: holder.account().clone(),
                credential: about.credential,
                source: about.source,
                since: moment(seconds(about.since)),
                urls: urls.remove(&holder.id()).unwrap_or_default().iter().map(ToString::to_string).collect(),
            }
        });
        Ok(rows.collect())
    }

    pub(super) fn status(&self, asker: &Asker, show: Show) -> Result<String, AdminError> {
        let registry = self.registry("status")?;
        let own = match asker {
            Asker::Publisher { identity, .. } => self.sessions(Some(&identity.account), "status")?,
            Asker::Operator => Vec::new(),
        };
        let metrics = self.server.as_ref().filter(|_| self.is_admin(asker)).map(|server| &server.metrics);
        let (sessions, endpoints) = registry.count();
        let status = Status {
            version: env!("CARGO_PKG_VERSION"),
            domain: self.domain.to_string(),
            sessions,
            endpoints,
            refusals: metrics
                .map(|metrics| metrics.refusals().map(|(code, count)| (code.to_string(), count)).collect()),
            own,
        };
        if show.json {
            return Ok(json(&status));
        }
        let own = match status.own.is_empty() {
            true => "You publish nothing.\n".to_owned(),
            false => shown(&status.own, show),
        };
        Ok(format!(
            "hithed {} at {}: {} sessions, {} endpoints\n\n{own}",
            status.version, status.domain, status.sessions, status.endpoints
        ))
    }

    pub(super) fn show_audit(&self, audit: &Audit) -> Result<String, AdminError> {
        // Who asks what has just happened is not told what had happened two seconds ago.
        if let Some(server) = &self.server {
            server.audit.flush(&self.database);
        }
        let since =
            audit.since.map(|it| seconds(SystemTime::now()).saturating_sub(it.as_secs().cast_signed()));
        let query = AuditQuery { account: audit.account.clone(), since, limit: audit.limit };
        let rows: Vec<_> = self
            .database
            .audit(&query)?
            .into_iter()
            .map(|it| AuditRow {
                at: moment(it.at),
                account: it.account,
                source: it.source,
                action: it.action,
                object: it.object,
                result: it.result,
            })
            .collect();
        Ok(shown(&rows, audit.show))
    }
}

/// How many of them each account has.
fn tally<'a>(accounts: impl Iterator<Item = &'a Account>) -> HashMap<&'a Account, usize> {
    let mut tally = HashMap::new();
    for account in accounts {
        *tally.entry(account).or_default() += 1;
    }
    tally
}

fn when(at: i64) -> OffsetDateTime {
    let since = Duration::from_secs(u64::try_from(at).unwrap_or(0));
    UNIX_EPOCH.checked_add(since).map_or(OffsetDateTime::UNIX_EPOCH, OffsetDateTime::from)
}

/// RFC 3339, in UTC.
fn moment(at: i64) -> String {
    when(at).format(&Rfc3339).unwrap_or_default()
}

fn day(at: i64) -> String {
    when(at).date().to_string()
}
