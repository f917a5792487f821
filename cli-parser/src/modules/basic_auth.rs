//! Basic auth (RFC 7617): what can be said about it.

use std::str::FromStr;

use clap::Args;
use serde::{Deserialize, Serialize};

use super::{Definition, Kind, Manual, Objection, Stage};
use crate::{Code, Secret};

/// Asks visitors for a user name and a password.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BasicAuth {
    /// Admit visitors with this user name and password (8 to 128 characters, or a bcrypt or argon2 hash of one); repeat for more, up to 10
    #[arg(long = "basic-auth", value_name = "USER:PASSWORD", id = "basic-auth")]
    pub credentials: Vec<Credential>,
}

impl Definition for BasicAuth {
    const STAGE: Stage = Stage::Authenticate;
    const ON: &'static [Kind] = &[Kind::Http];
    const MANUAL: Manual = Manual {
        what: "Asks visitors for a user name and a password (RFC 7617). Any one of several pairs grants access. The \
               `Authorization` header goes on to the upstream.\n\nIn place of a password there may be a hash of \
               it, so that the password itself is nowhere: bcrypt as of `htpasswd -nbB`, with a cost of up to 12, or \
               argon2 in PHC form, with up to 64 MiB, 4 passes and 4 lanes. Put it in single quotes, for it holds \
               dollar signs. A pair that was right is remembered for five minutes, so that a page with many images \
               costs one hash; when too many wrong ones come at once, the rest get status 503.",
        line: "ssh -R 443:localhost:80 HOST http --basic-auth ada:correct-horse",
        defaults: "The realm is `hithe`. What is refused gets status 401 and never reaches the upstream.",
        codes: &[
            Code::BASIC_AUTH_REQUIRED,
            Code::BASIC_AUTH_USER,
            Code::BASIC_AUTH_PASSWORD,
            Code::BASIC_AUTH_USER_LENGTH,
        ],
    };

    fn check(&self) -> Result<(), Objection> {
        if self.credentials.len() > MAX_PAIRS {
            return Err(Objection::new(Code::BAD_FLAG, "--basic-auth can be given 10 times at most"));
        }
        Ok(())
    }

    fn flags(&self, flags: &mut Vec<(&'static str, Option<String>)>) {
        let pair = |it: &Credential| format!("{}:{}", it.user, it.password.expose());
        flags.extend(self.credentials.iter().map(|it| ("--basic-auth", Some(pair(it)))));
    }
}

/// One pair that admits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Credential {
    pub user: String,
    pub password: Secret<String>,
}

impl FromStr for Credential {
    type Err = Objection;

    /// The first colon separates.
    fn from_str(text: &str) -> Result<Self, Objection> {
        let (user, password) = text.split_once(':').ok_or_else(|| {
            Objection::new(
                Code::BASIC_AUTH_PASSWORD,
                "--basic-auth takes USER:PASSWORD, and there is no colon",
            )
        })?;
        if user.is_empty() {
            return Err(Objection::new(
                Code::BASIC_AUTH_USER,
                "--basic-auth has no user name before the colon",
            ));
        }
        if user.chars().count() > MAX_USER {
            let message = "the user name of --basic-auth is longer than 128 characters";
            return Err(Objection::new(Code::BASIC_AUTH_USER_LENGTH, message));
        }
        if let Some(hash) = Hash::of(password) {
            hash.check(password)?;
        } else if !(MIN_PASSWORD..=MAX_PASSWORD).contains(&password.chars().count()) {
            let message = "the password of --basic-auth must have 8 to 128 characters";
            return Err(Objection::new(Code::BASIC_AUTH_PASSWORD, message));
        }
        if text.chars().any(char::is_control) {
            return Err(Objection::new(Code::BAD_FLAG, "--basic-auth must not hold control characters"));
        }
        if text.contains(char::REPLACEMENT_CHARACTER) {
            return Err(Objection::new(Code::BAD_FLAG, "--basic-auth must be UTF-8 text"));
        }
        Ok(Self { user: user.to_owned(), password: Secret::new(password.to_owned()) })
    }
}

/// A password of which only a hash is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hash {
    Bcrypt,
    Argon2,
}

impl Hash {
    /// By how it begins; `None` is a password as it is.
    pub fn of(password: &str) -> Option<Self> {
        let bcrypt = ["$2a$", "$2b$", "$2y$"].iter().any(|prefix| password.starts_with(prefix));
        let argon2 =
            ["$argon2id$", "$argon2i$", "$argon2d$"].iter().any(|prefix| password.starts_with(prefix));
        match (bcrypt, argon2) {
            (true, _) => Some(Self::Bcrypt),
            (_, true) => Some(Self::Argon2),
            _ => None,
        }
    }

    /// Bounds what checking one password costs the server.
    fn check(self, hash: &str) -> Result<(), Objection> {
        let parts: Vec<&str> = hash.split('$').skip(1).collect();
        let objection = |message: &str| Err(Objection::new(Code::BASIC_AUTH_PASSWORD, message));
        match (self, parts.as_slice()) {
            (Self::Bcrypt, [_, cost, rest]) if rest.len() == BCRYPT_LENGTH && rest.is_ascii() => {
                match cost.parse::<u32>() {
                    Ok(4..=MAX_BCRYPT_COST) => Ok(()),
                    _ => objection("the bcrypt hash of --basic-auth has a cost of 4 to 12"),
                }
            }
            (Self::Argon2, [_, "v=19", costs, salt, sum]) if !salt.is_empty() && !sum.is_empty() => {
                let cost = |name: &str| {
                    costs
                        .split(',')
                        .find_map(|it| it.strip_prefix(name)?.strip_prefix('=')?.parse::<u32>().ok())
                };
                match [cost("m"), cost("t"), cost("p")] {
                    [Some(8..=MAX_ARGON2_KIB), Some(1..=4), Some(1..=4)]
                        if hash.len() <= MAX_ARGON2_LENGTH =>
                    {
                        Ok(())
                    }
                    _ => objection("the argon2 hash of --basic-auth has m=8 to 65536, t=1 to 4 and p=1 to 4"),
                }
            }
            (Self::Bcrypt, _) => {
                objection("the password of --basic-auth looks like a bcrypt hash, but is none")
            }
            (Self::Argon2, _) => {
                objection("the password of --basic-auth looks like an argon2 hash, but is none")
            }
        }
    }
}

/// Salt and sum, after the cost.
const BCRYPT_LENGTH: usize = 53;
const MAX_BCRYPT_COST: u32 = 12;
const MAX_ARGON2_KIB: u32 = 64 << 10;
const MAX_ARGON2_LENGTH: usize = 512;

impl TryFrom<String> for Credential {
    type Error = Objection;

    fn try_from(text: String) -> Result<Self, Objection> {
        text.parse()
    }
}

impl From<Credential> for String {
    fn from(credential: Credential) -> Self {
        format!("{}:{}", credential.user, credential.password.expose())
    }
}

const MAX_PAIRS: usize = 10;
const MAX_USER: usize = 128;
const MIN_PASSWORD: usize = 8;
const MAX_PASSWORD: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> Code {
        text.parse::<Credential>().expect_err(text).code
    }

    #[test]
    fn the_first_colon_separates() {
        let credential: Credential = "ada:correct:horse".parse().unwrap();
        assert_eq!(
            (credential.user.as_str(), credential.password.expose().as_str()),
            ("ada", "correct:horse")
        );
    }

    #[test]
    fn limits_have_their_codes() {
        assert_eq!(refused(":correct-horse"), Code::BASIC_AUTH_USER);
        assert_eq!(refused("ada:short"), Code::BASIC_AUTH_PASSWORD);
        assert_eq!(refused(&format!("ada:{}", "x".repeat(129))), Code::BASIC_AUTH_PASSWORD);
        assert_eq!(refused(&format!("{}:correct-horse", "x".repeat(129))), Code::BASIC_AUTH_USER_LENGTH);
        assert_eq!(refused("nocolonatall"), Code::BASIC_AUTH_PASSWORD);
        assert_eq!(refused("ada:p\u{fffd}ssw\u{fffd}rd"), Code::BAD_FLAG);
        assert_eq!(refused("ada:correct\nhorse"), Code::BAD_FLAG);
    }

    #[test]
    fn a_hash_that_costs_too_much_or_is_none_is_refused() {
        let bcrypt = |cost: &str| format!("ada:$2y${cost}${}", "a".repeat(53));
        let argon2 = |costs: &str| format!("ada:$argon2id$v=19${costs}$c2FsdHNhbHQ$aGFzaA");
        for right in [bcrypt("05"), bcrypt("12"), argon2("m=65536,t=3,p=4")] {
            assert!(right.parse::<Credential>().is_ok(), "{right}");
        }
        for wrong in
            [bcrypt("13"), bcrypt("x"), argon2("m=65537,t=1,p=1"), argon2("m=8,t=5,p=1"), argon2("t=1")]
        {
            assert_eq!(refused(&wrong), Code::BASIC_AUTH_PASSWORD, "{wrong}");
        }
        assert_eq!(refused("ada:$2b$not-a-hash"), Code::BASIC_AUTH_PASSWORD);
        assert!("ada:$2 is a price".parse::<Credential>().is_ok());
    }

    #[test]
    fn a_password_is_never_printed() {
        let credential: Credential = "ada:correct-horse".parse().unwrap();
        assert!(!format!("{credential:?}").contains("horse"));
        assert!(!"ada:short".parse::<Credential>().unwrap_err().to_string().contains("short:"));
    }
}
