//! The protocol of the upstream: the tunnel speaks it.

use hithe_cli_parser::{Code, Objection, UpstreamProtocol};

use super::{BuildError, Plan};
use crate::tunnel::approach::{NoTls, UpstreamTls};

pub(super) fn build(config: &UpstreamProtocol, plan: &mut Plan) -> Result<(), BuildError> {
    plan.approach.protocol = config.protocol.unwrap_or_default();
    if config.tls {
        let name = config.server_name.as_deref().unwrap_or("localhost");
        let tls = UpstreamTls::new(name, config.verify, plan.approach.protocol).map_err(|error| match error {
            NoTls::Name => Objection::new(Code::BAD_FLAG, "--upstream-server-name takes a host name or an address"),
            NoTls::Roots | NoTls::Rustls(_) => Objection::new(
                Code::UPSTREAM_TLS,
                format!("the server cannot verify certificates ({error}): tell its operator, or leave --verify-upstream-tls out"),
            ),
        })?;
        plan.approach.tls = Some(tls);
    }
    Ok(())
}
