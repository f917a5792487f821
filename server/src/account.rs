//! To whom names, ports and limits belong.

mod acl;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use hithe_keys::{AccountName, Fingerprint};
use serde::{Deserialize, Serialize};

pub(crate) use acl::{Acl, AclError};

/// A person or a machine with one or several keys. A key that nobody put under an account is one by itself, by the
/// name of its fingerprint.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Account(Arc<str>);

/// The text is no name of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an account's name is 1 to 128 printable characters without blanks and without any of \" , : * ? /")]
pub(crate) struct AccountError;

impl Account {
    pub(crate) fn of_key(fingerprint: Fingerprint) -> Self {
        Self(fingerprint.to_string().into())
    }

    pub(crate) fn named(name: &AccountName) -> Self {
        Self(name.as_str().into())
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
        AccountName::new(text)
            .filter(|_| !text.starts_with('-'))
            .map(|name| Self::named(&name))
            .ok_or(AccountError)
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
            ["", "a b", "-a", "--json", "SHA256:", "sha256:x", "a\n", "\u{e4}", "a*", &"a".repeat(129)]
        {
            assert_eq!(text.parse::<Account>(), Err(AccountError), "{text:?}");
        }
    }
}
