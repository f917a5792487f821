//! PROXY protocol towards the upstream: the tunnel writes the header.

use hithe_cli_parser::ProxyProtocol;

use super::{BuildError, Plan};

#[expect(clippy::unnecessary_wraps, reason = "as all modules are built")]
pub(super) fn build(config: &ProxyProtocol, plan: &mut Plan) -> Result<(), BuildError> {
    plan.approach.proxy_header = config.version;
    Ok(())
}
