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
    /// Admit visitors with this user name and password (8 to 128 characters); repeat for more, up to 10
    #[arg(long = "basic-auth", value_name = "USER:PASSWORD", id = "basic-auth")]
    pub credentials: Vec<Credential>,
}

impl Definition for BasicAuth {
    const STAGE: Stage = Stage::Authenticate;
    const ON: &'static [Kind] = &[Kind::Http];
    const MANUAL: Manual = Manual {
        what: "Asks visitors for a user name and a password (RFC 7617). Any one of several pairs grants access. The \
               `Authorization` header goes on to the upstream.",
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
        if !(MIN_PASSWORD..=MAX_PASSWORD).contains(&password.chars().count()) {
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
    fn a_password_is_never_printed() {
        let credential: Credential = "ada:correct-horse".parse().unwrap();
        assert!(!format!("{credential:?}").contains("horse"));
        assert!(!"ada:short".parse::<Credential>().unwrap_err().to_string().contains("short:"));
    }
}
