//! Host rewriting: what can be said about it.

use std::net::Ipv6Addr;

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
    if !is_authority(text) {
        return objection("--host-header takes a host and perhaps a port, such as localhost:3000");
    }
    Ok(text.to_owned())
}

/// Whether a text is a host name or an address, and perhaps a port, as `Host` has them (RFC 9110 §7.2).
pub fn is_authority(text: &str) -> bool {
    let bracketed = text.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    let (valid, port) = match bracketed {
        Some((address, port)) => (address.parse::<Ipv6Addr>().is_ok(), port),
        None => {
            let (name, port) = text.split_at(text.find(':').unwrap_or(text.len()));
            let letter = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
            ((1..=253).contains(&name.len()) && name.chars().all(letter), port)
        }
    };
    let digits = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok();
    valid && (port.is_empty() || port.strip_prefix(':').is_some_and(digits))
}

impl Definition for HostRewrite {
    const STAGE: Stage = Stage::Rewrite;
    const ON: &'static [Kind] = &[Kind::Http];
    const MANUAL: Manual = Manual {
        what: "Asks the upstream for this host in place of the public one, for services that answer only to a name of \
               their own. `X-Forwarded-Host` keeps the public name. In answers, a `Location` or `Content-Location` \
               that points at the rewritten host is turned to the public address, and cookies for the rewritten \
               host's domain lose their `Domain`, so that browsers keep them for the public name, unless it holds for that \
               too. Relative URLs stay as they are. \
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
        for right in
            ["localhost", "localhost:3000", "app.internal", "127.0.0.1:80", "[::1]:8080", "[::1]", "preserve"]
        {
            assert_eq!(host(right).as_deref(), Ok(right));
        }
        for wrong in [
            "", "rewrite", "a b", "a/b", "a:b", "a:99999", "http://a", "a@b", "[::1]x", "a,b", "[a]", "::1",
            "a:+80", "a:",
        ] {
            assert!(host(wrong).is_err(), "{wrong}");
        }
    }
}
