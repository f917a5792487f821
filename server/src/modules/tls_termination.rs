//! TLS termination: what the handshake with visitors is like (behaviour.md 3.11).

use hithe_cli_parser::{Code, Objection, Pem, TlsTermination, TlsVersion};

use super::{BuildError, Plan};
use crate::certs::{Shown, pair};

pub(super) fn build(config: &TlsTermination, plan: &mut Plan) -> Result<(), BuildError> {
    plan.ends_tls = config.is_at_edge();
    // 1.2 is what applies anyway: it is not worth connections of its own.
    plan.tls.min_version = config.min_version.filter(|version| *version != TlsVersion::V1_2);
    plan.tls.certificate = match (&config.certificate, config.key.as_ref().map(|key| key.expose())) {
        (Some(Pem::Named(folder)), None) => Some(Shown::Named(folder.clone())),
        (Some(Pem::Inline(certificate)), Some(Pem::Inline(key))) => {
            let pair = pair(certificate, key)
                .map_err(|fault| Objection::new(Code::CERTIFICATE, fault.to_string()))?;
            Some(Shown::Own(pair))
        }
        _ => None,
    };
    Ok(())
}
