//! To whom names, ports and limits belong.

mod acl;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use hithe_keys::Fingerprint;
use serde::{Deserialize, Serialize};

pub(crate) use acl::{Acl, AclError};

/// A person or a machine with one or several keys. A key that nobody put under an account is one by itself, by the
/// name of its fingerprint.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Account(Arc<str>);

/// The text is no name of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "an account's name is 1 to {MAX_NAME} of the characters a-z 0-9 . _ - @ +, and begins with a letter or a digit"
)]
pub(crate) struct AccountError;

impl Account {
    pub(crate) fn of_key(fingerprint: Fingerprint) -> Self {
        Self(fingerprint.to_string().into())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is a key that stands for itself.
    pub(crate) fn is_key(&self) -> bool {
        self.0.starts_with(KEY)
    }
}

impl FromStr for Account {
    type Err = AccountError;

    fn from_str(text: &str) -> Result<Self, AccountError> {
        if text.starts_with(KEY) {
            return text.parse().map(Self::of_key).map_err(|_| AccountError);
        }
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ".-_@+".contains(c);
        let begins_well = text.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
        let is_name = begins_well && text.len() <= MAX_NAME && text.chars().all(fits);
        is_name.then(|| Self(text.into())).ok_or(AccountError)
    }
}

impl TryFrom<String> for Account {
    type Error = AccountError;

    fn try_from(text: String) -> Result<Self, AccountError> {
        text.parse()
    }
}

impl From<Account> for String {
    fn from(account: Account) -> Self {
        account.0.as_ref().into()
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How a fingerprint begins; no name does.
const KEY: &str = "SHA256:";
/// Characters of a name.
const MAX_NAME: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_fingerprints_are_accounts_and_never_the_same() {
        let printed = "SHA256:T7SvZ2cslqpPj6nKzitCBHHlpVF3r3MvLwmFL0fk0IE";
        let of_key: Account = printed.parse().unwrap();
        assert!(of_key.is_key() && of_key.as_str() == printed);
        for name in ["ada", "0", "ada.lovelace+laptop@example.com", "ci_build-7"] {
            assert!(!name.parse::<Account>().unwrap().is_key(), "{name}");
        }
    }

    #[test]
    fn what_could_be_taken_for_something_else_is_no_account() {
        for text in
            ["", "Ada", "a b", "-a", "--json", "SHA256:", "sha256:x", "a\n", "\u{e4}", "a*", &"a".repeat(65)]
        {
            assert_eq!(text.parse::<Account>(), Err(AccountError), "{text:?}");
        }
    }
}
