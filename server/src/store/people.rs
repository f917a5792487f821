//! Accounts with their keys and tokens.

use std::collections::HashMap;

use hithe_cli_parser::Allowance;
use hithe_keys::Fingerprint;
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use rusqlite::{OptionalExtension as _, Row, params};
use subtle::ConstantTimeEq as _;

use super::database::{Database, DatabaseError};
use super::names::LEAVE_WORD;
use crate::account::{Account, Acl};
use crate::limits::{Overrides, Quota};

/// Why something was not done. Who asked for it reads it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PeopleError {
    #[error(transparent)]
    Database(#[from] DatabaseError),
    #[error("there is no {0}")]
    None(String),
    #[error("there is {0} already")]
    Taken(String),
    #[error("an account has at most {MAX_EACH} keys and {MAX_EACH} tokens")]
    TooMany,
    #[error("no randomness from the operating system")]
    Random,
}

impl From<rusqlite::Error> for PeopleError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error.into())
    }
}

/// A person or a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Person {
    pub(crate) account: Account,
    pub(crate) description: String,
    /// May ask for, and change, what is not its own.
    pub(crate) admin: bool,
    /// What alone holds for it.
    pub(crate) limits: Overrides,
    /// Seconds since 1970, as all times here.
    pub(crate) made: i64,
}

/// A public key of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) fingerprint: Fingerprint,
    pub(crate) account: Account,
    pub(crate) description: String,
    pub(crate) acl: Acl,
    pub(crate) made: i64,
}

/// What stands for a key where a client has none. The secret itself is not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) id: String,
    pub(crate) account: Account,
    hash: [u8; 32],
    pub(crate) description: String,
    pub(crate) acl: Acl,
    pub(crate) made: i64,
    /// It admits nobody from then on.
    pub(crate) expires: Option<i64>,
}

impl Token {
    pub(crate) fn has_expired(&self, now: i64) -> bool {
        self.expires.is_some_and(|expires| now >= expires)
    }
}

/// A token that is to be made.
#[derive(Clone, Debug)]
pub(crate) struct NewToken {
    pub(crate) account: Account,
    pub(crate) description: String,
    pub(crate) acl: Acl,
    pub(crate) made: i64,
    pub(crate) expires: Option<i64>,
}

/// All of them, as logins see them: a login never waits for the disk.
#[derive(Debug, Default)]
pub(crate) struct People {
    pub(crate) accounts: HashMap<Account, Person>,
    pub(crate) keys: HashMap<Fingerprint, Key>,
    tokens: HashMap<String, Token>,
}

impl People {
    /// The token that this text is, whoever shows it. Takes as long for a wrong secret as for the right one.
    pub(crate) fn token(&self, text: &str) -> Option<&Token> {
        let (id, _) = text.strip_prefix(TOKEN)?.split_once('_')?;
        let shown = hash(text);
        let token = self.tokens.get(id);
        let wanted = token.map_or([0; 32], |token| token.hash);
        let is_right = bool::from(wanted.ct_eq(&shown));
        token.filter(|_| is_right)
    }

    pub(crate) fn has_tokens(&self) -> bool {
        !self.tokens.is_empty()
    }

    pub(crate) fn token_by_id(&self, id: &str) -> Option<&Token> {
        self.tokens.get(id)
    }

    pub(crate) fn tokens(&self) -> impl Iterator<Item = &Token> {
        self.tokens.values()
    }

    /// What alone holds for an account.
    pub(crate) fn limits(&self, account: &Account) -> Overrides {
        self.accounts.get(account).map_or(Overrides::NONE, |person| person.limits)
    }

    pub(crate) fn is_admin(&self, account: &Account) -> bool {
        self.accounts.get(account).is_some_and(|person| person.admin)
    }
}

impl Database {
    /// All that can be read. What is damaged admits nobody, and the log says so.
    pub(crate) fn people(&self) -> Result<People, DatabaseError> {
        let mut people = People::default();
        let connection = self.lock();
        let mut accounts = connection.prepare(
            "SELECT name, description, admin, made, max_sessions, max_endpoints, max_ports, max_visits, max_rate,
             max_monthly FROM accounts",
        )?;
        for person in accounts.query_map([], |row| Ok(person(row)))? {
            if let Some(person) = readable("accounts", person?) {
                people.accounts.insert(person.account.clone(), person);
            }
        }
        let mut keys = connection.prepare("SELECT fingerprint, account, description, acl, made FROM keys")?;
        for key in keys.query_map([], |row| Ok(key(row)))? {
            if let Some(key) = readable("keys", key?) {
                people.keys.insert(key.fingerprint, key);
            }
        }
        let mut tokens =
            connection.prepare("SELECT id, account, hash, description, acl, made, expires FROM tokens")?;
        for token in tokens.query_map([], |row| Ok(token(row)))? {
            if let Some(token) = readable("tokens", token?) {
                people.tokens.insert(token.id.clone(), token);
            }
        }
        Ok(people)
    }

    pub(crate) fn add_account(&self, person: &Person) -> Result<(), PeopleError> {
        let added = self.lock().execute(
            "INSERT INTO accounts (name, description, admin, made) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
            params![person.account.as_str(), person.description, person.admin, person.made],
        )?;
        if added == 0 { Err(PeopleError::Taken(format!("an account {}", person.account))) } else { Ok(()) }
    }

    /// Changes what is given.
    pub(crate) fn change_account(
        &self,
        account: &Account,
        description: Option<&str>,
        admin: Option<bool>,
        limits: Quota<Option<Allowance>>,
    ) -> Result<(), PeopleError> {
        let mut connection = self.lock();
        let change = connection.transaction()?;
        let changed = change.execute(
            "UPDATE accounts SET description = ifnull(?2, description), admin = ifnull(?3, admin) WHERE name = ?1",
            params![account.as_str(), description, admin],
        )?;
        if changed == 0 {
            return Err(no_account(account));
        }
        for (column, said) in limits.columns() {
            if let Some(said) = said {
                let change_limit = format!("UPDATE accounts SET {column} = ?2 WHERE name = ?1");
                change.execute(&change_limit, params![account.as_str(), stored(said)])?;
            }
        }
        Ok(change.commit()?)
    }

    /// With its keys, tokens, names and reservations.
    pub(crate) fn remove_account(&self, account: &Account, at: i64) -> Result<(), PeopleError> {
        let mut connection = self.lock();
        let change = connection.transaction()?;
        change.execute("DELETE FROM traffic WHERE account = ?1", [account.as_str()])?;
        // Whoever works beside a server leaves word for it.
        change.execute(LEAVE_WORD, params![true, account.as_str(), at])?;
        change.execute("DELETE FROM names WHERE account = ?1", [account.as_str()])?;
        change.execute("DELETE FROM reservations WHERE account = ?1", [account.as_str()])?;
        if change.execute("DELETE FROM accounts WHERE name = ?1", [account.as_str()])? == 0 {
            return Err(no_account(account));
        }
        Ok(change.commit()?)
    }

    /// `public_key` in the format of OpenSSH, for the record.
    pub(crate) fn add_key(&self, key: &Key, public_key: &str) -> Result<(), PeopleError> {
        let connection = self.lock();
        let holder = connection
            .query_row(
                "SELECT account FROM keys WHERE fingerprint = ?1",
                [key.fingerprint.to_string()],
                |row| row.get::<_, String>(0),
            )
            .optional()?;
        if let Some(holder) = holder {
            return Err(PeopleError::Taken(format!("this key under the account {holder}")));
        }
        check_room(&connection, "keys", &key.account)?;
        connection.execute(
            "INSERT INTO keys (fingerprint, account, public_key, description, acl, made) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![
                key.fingerprint.to_string(),
                key.account.as_str(),
                public_key,
                key.description,
                key.acl.to_string(),
                key.made
            ],
        )?;
        Ok(())
    }

    pub(crate) fn remove_key(&self, fingerprint: &Fingerprint) -> Result<(), PeopleError> {
        let removed =
            self.lock().execute("DELETE FROM keys WHERE fingerprint = ?1", [fingerprint.to_string()])?;
        if removed == 0 {
            Err(PeopleError::None(format!("key {fingerprint} in the database")))
        } else {
            Ok(())
        }
    }

    /// Makes a token. Its text, the second part of what is returned after the public half, is known now and never again.
    pub(crate) fn add_token(&self, new: &NewToken) -> Result<(String, String), PeopleError> {
        let NewToken { account, description, acl, made, expires } = new;
        let (id, text) = fresh_token()?;
        let connection = self.lock();
        check_room(&connection, "tokens", account)?;
        connection.execute(
            "INSERT INTO tokens (id, account, hash, description, acl, made, expires) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![id, account.as_str(), hash(&text), description, acl.to_string(), made, expires],
        )?;
        Ok((id, text))
    }

    pub(crate) fn remove_token(&self, id: &str) -> Result<(), PeopleError> {
        let removed = self.lock().execute("DELETE FROM tokens WHERE id = ?1", [id])?;
        if removed == 0 { Err(PeopleError::None(format!("token {id}"))) } else { Ok(()) }
    }
}

fn no_account(account: &Account) -> PeopleError {
    PeopleError::None(format!("account {account}"))
}

fn check_room(connection: &rusqlite::Connection, table: &str, account: &Account) -> Result<(), PeopleError> {
    let exists: bool = connection.query_row(
        "SELECT EXISTS (SELECT 1 FROM accounts WHERE name = ?1)",
        [account.as_str()],
        |row| row.get(0),
    )?;
    if !exists {
        return Err(no_account(account));
    }
    let count = format!("SELECT count(*) FROM {table} WHERE account = ?1");
    let held: u32 = connection.query_row(&count, [account.as_str()], |row| row.get(0))?;
    if held >= MAX_EACH { Err(PeopleError::TooMany) } else { Ok(()) }
}

/// A row that makes no sense is as good as none.
fn readable<T>(table: &str, row: Result<T, Box<dyn std::error::Error>>) -> Option<T> {
    row.map_err(|error| tracing::error!(table, %error, "a row of the database is damaged and admits nobody"))
        .ok()
}

fn person(row: &Row<'_>) -> Result<Person, Box<dyn std::error::Error>> {
    let account = row.get::<_, String>(0)?.parse()?;
    let mut column = 3;
    let mut limit = || {
        column += 1;
        row.get(column).map(allowance)
    };
    let limits = Quota {
        sessions: limit()?,
        endpoints: limit()?,
        ports: limit()?,
        visits: limit()?,
        rate: limit()?,
        monthly: limit()?,
    };
    Ok(Person { account, description: row.get(1)?, admin: row.get(2)?, limits, made: row.get(3)? })
}

fn allowance(stored: Option<i64>) -> Allowance {
    stored.map_or(Allowance::Usual, |limit| {
        u64::try_from(limit).map_or(Allowance::Unlimited, Allowance::AtMost)
    })
}

fn stored(said: Allowance) -> Option<i64> {
    match said {
        Allowance::Usual => None,
        Allowance::Unlimited => Some(-1),
        Allowance::AtMost(limit) => Some(limit.cast_signed()),
    }
}

fn key(row: &Row<'_>) -> Result<Key, Box<dyn std::error::Error>> {
    Ok(Key {
        fingerprint: row.get::<_, String>(0)?.parse()?,
        account: row.get::<_, String>(1)?.parse()?,
        description: row.get(2)?,
        acl: row.get::<_, String>(3)?.parse()?,
        made: row.get(4)?,
    })
}

fn token(row: &Row<'_>) -> Result<Token, Box<dyn std::error::Error>> {
    Ok(Token {
        id: row.get(0)?,
        account: row.get::<_, String>(1)?.parse()?,
        hash: row.get(2)?,
        description: row.get(3)?,
        acl: row.get::<_, String>(4)?.parse()?,
        made: row.get(5)?,
        expires: row.get(6)?,
    })
}

fn hash(text: &str) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
    bytes
}

/// `hithe_` with a public and a secret half: 50 and 256 bits.
fn fresh_token() -> Result<(String, String), PeopleError> {
    let mut random = [0_u8; 42];
    SystemRandom::new().fill(&mut random).map_err(|_| PeopleError::Random)?;
    let letters = |bytes: &[u8]| -> String {
        bytes
            .iter()
            .map(|byte| ALPHABET.get(usize::from(byte % 32)).map_or('0', |byte| char::from(*byte)))
            .collect()
    };
    let (id, secret) = random.split_at(10);
    let secret: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let id = letters(id);
    Ok((id.clone(), format!("{TOKEN}{id}_{secret}")))
}

/// How every token begins, so that scanners for leaked secrets can know it.
const TOKEN: &str = "hithe_";
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// Keys, and tokens, of one account.
const MAX_EACH: u32 = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "SHA256:T7SvZ2cslqpPj6nKzitCBHHlpVF3r3MvLwmFL0fk0IE";

    fn database() -> (tempfile::TempDir, Database) {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::open(&folder.path().join("hithe.db")).unwrap();
        (folder, database)
    }

    fn ada() -> Account {
        "ada".parse().unwrap()
    }

    fn with_ada() -> (tempfile::TempDir, Database) {
        let (folder, database) = database();
        let person = Person {
            account: ada(),
            description: "Ada".to_owned(),
            admin: false,
            limits: Overrides::NONE,
            made: 1,
        };
        database.add_account(&person).unwrap();
        (folder, database)
    }

    fn new_token(expires: Option<i64>) -> NewToken {
        NewToken { account: ada(), description: "ci".to_owned(), acl: Acl::default(), made: 3, expires }
    }

    fn key() -> Key {
        let acl = "bind:app".parse().unwrap();
        Key {
            fingerprint: KEY.parse().unwrap(),
            account: ada(),
            description: "laptop".to_owned(),
            acl,
            made: 2,
        }
    }

    #[test]
    fn what_is_added_is_found_again() {
        let (_folder, database) = with_ada();
        database.add_key(&key(), "ssh-ed25519 AAAA").unwrap();
        let people = database.people().unwrap();
        assert_eq!(people.keys.get(&KEY.parse().unwrap()), Some(&key()));
        assert!(!people.is_admin(&ada()));
        let limits = Quota {
            visits: Some(Allowance::AtMost(3)),
            rate: Some(Allowance::Unlimited),
            ..Quota::default()
        };
        database.change_account(&ada(), None, Some(true), limits).unwrap();
        let back = Quota { rate: Some(Allowance::Usual), ..Quota::default() };
        assert_eq!(database.people().unwrap().limits(&ada()).rate, Allowance::Unlimited);
        database.change_account(&ada(), None, None, back).unwrap();
        let limits = Overrides { visits: Allowance::AtMost(3), ..Overrides::NONE };
        assert_eq!(database.people().unwrap().limits(&ada()), limits);
        let people = database.people().unwrap();
        assert!(people.is_admin(&ada()));
        assert_eq!(people.accounts[&ada()].description, "Ada");
    }

    #[test]
    fn a_key_belongs_to_one_account() {
        let (_folder, database) = with_ada();
        database.add_key(&key(), "").unwrap();
        let told = database.add_key(&key(), "").unwrap_err().to_string();
        assert_eq!(told, "there is this key under the account ada already");
        let strangers = Key {
            account: "bob".parse().unwrap(),
            fingerprint: KEY.replace('T', "U").parse().unwrap(),
            ..key()
        };
        assert_eq!(database.add_key(&strangers, "").unwrap_err().to_string(), "there is no account bob");
    }

    #[test]
    fn who_goes_takes_keys_and_tokens_along() {
        let (_folder, database) = with_ada();
        database.add_key(&key(), "").unwrap();
        database.add_token(&new_token(None)).unwrap();
        database.remove_account(&ada(), 1).unwrap();
        let people = database.people().unwrap();
        assert!(people.accounts.is_empty() && people.keys.is_empty() && people.tokens().count() == 0);
        assert_eq!(database.remove_account(&ada(), 1).unwrap_err().to_string(), "there is no account ada");
    }

    #[test]
    fn a_token_is_known_by_its_whole_text_alone() {
        let (_folder, database) = with_ada();
        let (id, text) = database.add_token(&new_token(Some(10))).unwrap();
        let people = database.people().unwrap();
        let token = people.token(&text).unwrap();
        assert_eq!((&token.id, token.has_expired(9), token.has_expired(10)), (&id, false, true));
        let stored: String = format!("{people:?}");
        assert!(!stored.contains(text.rsplit('_').next().unwrap()), "the secret itself is not kept");
        for wrong in [&text[..text.len() - 1], &format!("{text}0"), &text.to_uppercase(), "hithe_", "", &id] {
            assert!(people.token(wrong).is_none(), "{wrong}");
        }
        database.remove_token(&id).unwrap();
        assert!(database.people().unwrap().token(&text).is_none());
    }

    #[test]
    fn a_damaged_row_admits_nobody_and_harms_no_other() {
        let (_folder, database) = with_ada();
        database.add_key(&key(), "").unwrap();
        let bad = "INSERT INTO keys (fingerprint, account, public_key, acl, made) VALUES ('SHA256:T', 'ada', '', '', 0)";
        database.lock().execute(bad, []).unwrap();
        database.lock().execute("INSERT INTO accounts (name, made) VALUES ('B O B', 0)", []).unwrap();
        let people = database.people().unwrap();
        assert_eq!((people.keys.len(), people.accounts.len()), (1, 1));
        database.lock().execute("UPDATE keys SET acl = 'anything'", []).unwrap();
        assert_eq!(
            database.people().unwrap().keys.len(),
            0,
            "a restriction that cannot be read is never ignored"
        );
    }
}
