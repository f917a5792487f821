//! Which names may be claimed at all, and the random names of keys that ask for none.

use std::fmt;

use arc_swap::ArcSwap;
use hithe_cli_parser::{Code, HostName, HostPattern};
use petname::Petnames;
use ring::hmac;

use super::Refusal;
use crate::account::Account;
use crate::config::ReservedLabels;

/// Which names the operator lets publishers claim.
#[derive(Debug)]
pub(crate) struct NameRules {
    pub(crate) domain: HostName,
    /// What the operator may change while the server runs. It holds for what is claimed from then on.
    pub(crate) choice: ArcSwap<NameChoice>,
    /// Any key may publish (`--open`): no custom domains, no wildcards, no chosen ports.
    pub(crate) open: bool,
    /// Whoever proves that a name outside the domain is theirs may claim it (`--custom-domains`).
    pub(crate) proofs: bool,
    pub(crate) secret: NameSecret,
}

/// Exceptions from the rule that a name below the domain may be claimed and another may not.
#[derive(Debug, Default)]
pub(crate) struct NameChoice {
    /// Labels directly below the domain that nobody may claim.
    pub(crate) reserved: ReservedLabels,
    /// Names outside the domain that may be claimed (`--allow-domain`).
    pub(crate) custom: Vec<HostPattern>,
}

/// Under which condition a name may be claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leave {
    Given,
    AfterProof,
}

impl NameRules {
    /// # Errors
    /// Says which rule the name breaks and what to ask for instead.
    pub(super) fn check(&self, name: &HostPattern) -> Result<Leave, Refusal> {
        if self.open && matches!(name, HostPattern::Wildcard(_)) {
            let hint = "ask for one name at a time";
            return Err(Refusal::new(Code::WILDCARD_NOT_GRANTED, "an open server gives no wildcards", hint));
        }
        match name {
            HostPattern::Exact(name) if *name == self.domain => {
                let hint = "ask for a name below it, such as -R app:443:localhost:80";
                Err(Refusal::new(Code::NAME_RESERVED, format!("{name} is the server's own name"), hint))
            }
            HostPattern::Wildcard(base) if *base == self.domain || self.domain.is_below(base) => {
                let message = format!("*.{base} would take every name of this server");
                Err(Refusal::new(
                    Code::WILDCARD_NOT_GRANTED,
                    message,
                    "ask for a wildcard of your own name: '*.app'",
                ))
            }
            HostPattern::Exact(base) | HostPattern::Wildcard(base) if base.is_below(&self.domain) => {
                self.check_label(base)
            }
            _ => self.check_custom(name),
        }
    }

    fn check_label(&self, name: &HostName) -> Result<Leave, Refusal> {
        let left = name.as_str().strip_suffix(self.domain.as_str()).unwrap_or_default();
        let label = left.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
        if self.choice.load().reserved.contains(label) {
            let message = format!("the name {label}.{} is reserved by the operator", self.domain);
            return Err(Refusal::new(Code::NAME_RESERVED, message, "choose another name"));
        }
        Ok(Leave::Given)
    }

    fn check_custom(&self, name: &HostPattern) -> Result<Leave, Refusal> {
        let allowed = !self.open && self.choice.load().custom.iter().any(|rule| rule.covers(name));
        if allowed {
            return Ok(Leave::Given);
        }
        if self.proofs && !self.open {
            return Ok(Leave::AfterProof);
        }
        let hint = "names of this server end in its domain; for others the operator must start it with --allow-domain or \
                    --custom-domains";
        let message = format!("{name} does not lie below {}", self.domain);
        Err(Refusal::new(Code::CUSTOM_DOMAIN, message, hint))
    }

    /// The `index`th random name of a key, such as `brave-otter-7k3q9` below the domain.
    pub(super) fn random(&self, account: &Account, index: u32) -> Result<HostName, Refusal> {
        let label = self.secret.label(account, index);
        HostName::parse(&format!("{label}.{}", self.domain)).map_err(|error| {
            Refusal::new(
                error.code(),
                error.to_string(),
                "the operator should give the server a shorter domain",
            )
        })
    }
}

/// The secret of the state directory from which names and ports are derived, so that a key keeps its names over
/// restarts and nobody else can compute them.
pub(crate) struct NameSecret(hmac::Key);

impl NameSecret {
    pub(crate) fn new(secret: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// 64 bits that depend on the secret, the purpose, the key and the index.
    pub(super) fn derive(&self, purpose: &str, account: &Account, index: u32) -> u64 {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(purpose.as_bytes());
        context.update(account.as_str().as_bytes());
        context.update(&index.to_be_bytes());
        let tag = context.sign();
        tag.as_ref().iter().take(8).fold(0, |bits, byte| (bits << 8) | u64::from(*byte))
    }

    /// Two words and five characters: 17 bits of words and 25 of characters, so that a name cannot be guessed by
    /// trying and collides by chance only among millions.
    fn label(&self, account: &Account, index: u32) -> String {
        let words = Petnames::small();
        let mut bits = self.derive("name", account, index);
        let mut pick = |among: usize| {
            let among = among.max(1) as u64;
            let chosen = bits % among;
            bits /= among;
            usize::try_from(chosen).unwrap_or(0)
        };
        let adjective = words.adjectives.get(pick(words.adjectives.len())).copied().unwrap_or("plain");
        let noun = words.nouns.get(pick(words.nouns.len())).copied().unwrap_or("name");
        let mut label = format!("{adjective}-{noun}-");
        label.extend((0..5).filter_map(|_| ALPHABET.get(pick(ALPHABET.len()))).map(|byte| char::from(*byte)));
        label
    }
}

impl fmt::Debug for NameSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NameSecret(..)")
    }
}

/// Crockford's base 32: no letter that reads as a digit.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// A key that has this many random names live is refused another.
pub(super) const MAX_INDEX: u32 = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_random_name_holds_at_least_forty_bits() {
        let words = Petnames::small();
        let choices = words.adjectives.len() as f64 * words.nouns.len() as f64 * 32f64.powi(5);
        assert!(choices.log2() >= 40.0, "{}", choices.log2());
    }
}
