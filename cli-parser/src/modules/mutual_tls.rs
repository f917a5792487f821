//! Mutual TLS: what can be said about it.

use clap::Args;
use serde::{Deserialize, Serialize};

use super::pem::Pem;
use super::{Definition, Kind, Manual, Objection, Stage};
use crate::Code;

/// Admits visitors that have a certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MutualTls {
    /// Admit only visitors with a certificate that one of these authorities signed: PEM, PEM in base64, or a name that the server knows
    #[arg(long = "mutual-tls-cas", value_name = "PEM|NAME", id = "mutual-tls-cas")]
    pub authorities: Vec<Pem>,
}

impl Definition for MutualTls {
    const STAGE: Stage = Stage::Handshake;
    const ON: &'static [Kind] = &[Kind::Http, Kind::Tls];
    const MANUAL: Manual = Manual {
        what: "Asks visitors for a certificate in the TLS handshake, and ends the handshake of those that have none from \
               one of the authorities. The upstream of an http endpoint sees whose it is in `hithe-mtls-subject-cn`, \
               `hithe-mtls-subject-alt-name-dns`, `hithe-mtls-email-addresses` and `hithe-mtls-serial-number`; \
               visitors cannot send these headers themselves, with or without this module. (They are ngrok's but for the \
               prefix, which is `ngrok-` there.) Lists have commas; in each name, control characters, blanks at its \
               ends, `%`, everything outside of ASCII, and in lists the comma, stand as in a URL: `%C3%A9`. The serial \
               number is in hexadecimal. A header is left out where the certificate says nothing of the kind, or more \
               than 8 KiB; of a longer list come the names that fit.\n\nThe authorities are \
               part of the command: `--mutual-tls-cas \"$(cat ca.pem)\"`, or safe from every shell, \
               `--mutual-tls-cas \"$(base64 -w0 ca.pem)\"`. A name stands for `NAME.pem` in the operator's \
               `--client-cas` directory. A bundle may hold several, and the flag may be repeated, up to 10 in all.\n\n\
               Each connection shows its certificate anew: TLS sessions are not resumed here, since one would go on \
               after the certificate has expired. Revocation lists are not looked at.",
        line: "ssh -R app:443:localhost:80 HOST http --mutual-tls-cas corp-ca",
        defaults: "Only where TLS ends at the server: on https, and on tls with `--terminate-at edge`; an endpoint that \
                   also answers plain http is refused. A request for this endpoint over a connection that was made for \
                   another name, or for the endpoint that had this name before, gets status 421, upon which browsers \
                   open a connection of their own.",
        codes: &[Code::MUTUAL_TLS_PLACE, Code::MUTUAL_TLS_PEM, Code::MUTUAL_TLS_NO_CA, Code::MISDIRECTED],
    };

    fn flags(&self, flags: &mut Vec<(&'static str, Option<String>)>) {
        flags
            .extend(self.authorities.iter().map(|pem| ("--mutual-tls-cas", Some(String::from(pem.clone())))));
    }

    fn check(&self) -> Result<(), Objection> {
        if self.authorities.len() > MAX_AUTHORITIES {
            let message = format!("--mutual-tls-cas can be given {MAX_AUTHORITIES} times at most");
            return Err(Objection::new(Code::BAD_FLAG, message));
        }
        Ok(())
    }
}

/// Also of the certificates in one bundle.
pub const MAX_AUTHORITIES: usize = 10;
