//! Host rewriting: what can be said about it.

use clap::Args;
use serde::{Deserialize, Serialize};

use super::{Definition, Kind, Manual, Objection, Stage};
use crate::Code;

/// Shows the upstream another host name than the public one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HostRewrite {
    /// The host that the upstream is asked for, such as localhost:3000; preserve leaves the public one
    #[arg(long = "host-header", value_name = "HOST", value_parser = host, id = "host-header")]
    pub host: Option<String>,
}

/// The public host stays.
pub const PRESERVE: &str = "preserve";

fn host(text: &str) -> Result<String, Objection> {
    let objection = |message: &str| Err(Objection::new(Code::BAD_FLAG, message));
    if text == "rewrite" {
        return objection(
            "ssh does not tell the server where -R points to: say the host itself, as in --host-header localhost:3000",
        );
    }
    let (name, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((name, port)) => (name, port.strip_prefix(':').or(port.is_empty().then_some("0"))),
        None => text.split_once(':').map_or((text, Some("0")), |(name, port)| (name, Some(port))),
    };
    let letter = |c: char| c.is_ascii_alphanumeric() || "-._:".contains(c);
    let valid = !name.is_empty() && name.len() <= 253 && name.chars().all(letter);
    if !valid || port.is_none_or(|port| port.parse::<u16>().is_err()) {
        return objection("--host-header takes a host and perhaps a port, such as localhost:3000");
    }
    Ok(text.to_owned())
}

impl Definition for HostRewrite {
    const STAGE: Stage = Stage::Rewrite;
    const ON: &'static [Kind] = &[Kind::Http];
    const MANUAL: Manual = Manual {
        what: "Asks the upstream for this host in place of the public one, for services that answer only to a name of \
               their own. `X-Forwarded-Host` keeps the public name. In answers, a `Location` or `Content-Location` \
               that points at the rewritten host is turned to the public address, and cookies for the rewritten \
               host's domain lose their `Domain`, so that browsers keep them for the public name. \
               `--request-header-add='host: localhost'` does the same.",
        line: "ssh -R 443:localhost:3000 HOST http --host-header localhost:3000",
        defaults: "The public host is preserved. `rewrite` is not possible over ssh, which does not tell where `-R` \
                   points to.",
        codes: &[],
    };

    fn flags(&self, flags: &mut Vec<(&'static str, Option<String>)>) {
        flags.extend(self.host.iter().map(|host| ("--host-header", Some(host.clone()))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address_and_perhaps_a_port() {
        for right in ["localhost", "localhost:3000", "app.internal", "127.0.0.1:80", "[::1]:8080", "[::1]", "preserve"] {
            assert_eq!(host(right).as_deref(), Ok(right));
        }
        for wrong in ["", "rewrite", "a b", "a/b", "a:b", "a:99999", "http://a", "a@b", "[::1]x", "a,b"] {
            assert!(host(wrong).is_err(), "{wrong}");
        }
    }
}
