//! IP restriction: admits visitors by the address that their connection comes from (behaviour.md 3.4).

use std::net::IpAddr;

use hithe_cli_parser::{Code, IpRestriction};
use http::StatusCode;

use super::{BuildError, Flow, Module, Plan, Refusal, Visit};

pub(super) fn build(config: &IpRestriction, plan: &mut Plan) -> Result<(), BuildError> {
    plan.chain.push(Networks(config.clone()));
    Ok(())
}

struct Networks(IpRestriction);

impl Networks {
    /// A denied network always wins.
    fn admits(&self, address: IpAddr) -> bool {
        let Self(IpRestriction { allow, deny }) = self;
        allow.iter().any(|it| it.contains(address)) && !deny.iter().any(|it| it.contains(address))
    }
}

impl Module for Networks {
    fn connect(&self, visit: &mut Visit) -> Flow {
        if self.admits(visit.visitor.ip()) {
            visit.passed.ip_restriction = true;
            return Flow::Continue;
        }
        let refusal = Refusal {
            status: StatusCode::FORBIDDEN,
            code: Code::IP_RESTRICTED,
            text: "Visitors from your network are not admitted here",
            hint: "Ask the publisher of this site, or come from a network that it admits.",
            header: None,
        };
        refusal.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(allow: &[&str], deny: &[&str]) -> Networks {
        let parse = |list: &[&str]| list.iter().map(|it| it.parse().unwrap()).collect();
        Networks(IpRestriction { allow: parse(allow), deny: parse(deny) })
    }

    #[test]
    fn a_visitor_must_be_in_an_allowed_network_and_in_no_denied_one() {
        let networks = networks(&["10.0.0.0/8", "2001:db8::/32"], &["10.9.0.0/16", "2001:db8:bad::/48"]);
        for (address, admitted) in [
            ("10.1.2.3", true),
            ("10.9.2.3", false),
            ("192.0.2.1", false),
            ("2001:db8::1", true),
            ("2001:db8:bad::1", false),
            ("::1", false),
        ] {
            assert_eq!(networks.admits(address.parse().unwrap()), admitted, "{address}");
        }
    }

    #[test]
    fn an_ipv4_visitor_of_a_dual_stack_socket_is_matched_as_ipv4() {
        let mapped = crate::visit::Visitor::new("[::ffff:10.1.2.3]:7".parse().unwrap(), None);
        assert!(networks(&["10.0.0.0/8"], &[]).admits(mapped.ip()));
        assert!(networks(&["::ffff:10.0.0.0/104"], &[]).admits(mapped.ip()));
        assert!(!networks(&["::/0"], &[]).admits(mapped.ip()));
    }
}
