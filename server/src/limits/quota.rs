//! How much one account may have.

use hithe_cli_parser::Allowance;
use serde::Serialize;

use crate::config::AccountDefaults;

/// One value for each limit of an account: a limit, where `None` is none, or what is said of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Quota<T = Option<u64>> {
    /// Sessions that publish.
    pub(crate) sessions: T,
    /// Names and ports.
    pub(crate) endpoints: T,
    /// Ports of tcp endpoints.
    pub(crate) ports: T,
    /// Visits at once.
    pub(crate) visits: T,
    /// Bytes a second, both ways together.
    pub(crate) rate: T,
    /// Bytes a month, both ways together.
    pub(crate) monthly: T,
}

/// What is said of one account.
pub(crate) type Overrides = Quota<Allowance>;

impl From<AccountDefaults> for Quota {
    fn from(usual: AccountDefaults) -> Self {
        let AccountDefaults { sessions, endpoints, ports, visits, rate, monthly } = usual;
        Self { sessions, endpoints, ports, visits, rate, monthly }
    }
}

impl<T> Quota<T> {
    /// Each with the name by which it is stored.
    pub(crate) fn columns(self) -> [(&'static str, T); 6] {
        [
            ("max_sessions", self.sessions),
            ("max_endpoints", self.endpoints),
            ("max_ports", self.ports),
            ("max_visits", self.visits),
            ("max_rate", self.rate),
            ("max_monthly", self.monthly),
        ]
    }
}

impl Overrides {
    pub(crate) const NONE: Self = Self {
        sessions: Allowance::Usual,
        endpoints: Allowance::Usual,
        ports: Allowance::Usual,
        visits: Allowance::Usual,
        rate: Allowance::Usual,
        monthly: Allowance::Usual,
    };

    /// What comes of it where `usual` holds for all.
    pub(crate) fn over(self, usual: Quota) -> Quota {
        let of = |said, usual| match said {
            Allowance::Usual => usual,
            Allowance::Unlimited => None,
            Allowance::AtMost(limit) => Some(limit),
        };
        Quota {
            sessions: of(self.sessions, usual.sessions),
            endpoints: of(self.endpoints, usual.endpoints),
            ports: of(self.ports, usual.ports),
            visits: of(self.visits, usual.visits),
            rate: of(self.rate, usual.rate),
            monthly: of(self.monthly, usual.monthly),
        }
    }
}
