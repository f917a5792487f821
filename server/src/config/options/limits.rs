//! Options about how much of the server anybody may have.

use std::num::NonZeroU32;

use clap::Args;
use hithe_cli_parser::{Network, Period};

use super::Layer;
use crate::config::{AccountBytes, AccountCount, PenaltyRule};

layered! {
    /// What the operator said about limits.
    #[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
    pub struct LimitOptions {
        /// Time for a publisher's client to log in
        #[arg(long, value_name = "TIME", help_heading = "Limits of logins")]
        pub login_grace: Option<Period>,
        /// Connections of publishers that have not logged in yet
        #[arg(long, value_name = "NUMBER", help_heading = "Limits of logins")]
        pub max_logins: Option<NonZeroU32>,
        /// The same from one source: an IPv4 address, or an IPv6 network of 64 bits
        #[arg(long, value_name = "NUMBER", help_heading = "Limits of logins")]
        pub max_logins_per_source: Option<NonZeroU32>,
        /// With --open: connections of publishers from one source, logged in or not
        #[arg(long, value_name = "NUMBER", help_heading = "Limits of logins")]
        pub max_connections_per_source: Option<NonZeroU32>,
        /// Sessions of one account that publish; as all of these, accounts change sets another one for an account
        #[arg(long, value_name = "NUMBER", help_heading = "Limits of accounts")]
        pub max_sessions: Option<AccountCount>,
        /// Names and ports of one account
        #[arg(long, value_name = "NUMBER", help_heading = "Limits of accounts")]
        pub max_endpoints: Option<AccountCount>,
        /// Ports of tcp endpoints of one account
        #[arg(long, value_name = "NUMBER", help_heading = "Limits of accounts")]
        pub max_ports: Option<AccountCount>,
        /// Visits to one account at once: requests under way, WebSockets, connections to tls and tcp endpoints
        #[arg(long, value_name = "NUMBER", help_heading = "Limits of accounts")]
        pub max_visits: Option<AccountCount>,
        /// Bytes a second of one account, both ways together; what is more is slowed
        #[arg(long, value_name = "SIZE", help_heading = "Limits of accounts")]
        pub max_rate: Option<AccountBytes>,
        /// Bytes of one account in a month of the calendar (UTC), both ways together; then its visitors are turned away
        #[arg(long, value_name = "SIZE", help_heading = "Limits of accounts")]
        pub max_monthly: Option<AccountBytes>,

        /// Connections of visitors at once from one source: an IPv4 address, or an IPv6 network of 64 bits
        #[arg(long, value_name = "NUMBER", help_heading = "Limits of visitors")]
        pub max_visitor_connections: Option<NonZeroU32>,
        /// Requests a second from one source over the whole server; a connection to a tls or tcp endpoint counts as one
        #[arg(long, value_name = "NUMBER", help_heading = "Limits of visitors")]
        pub max_visitor_requests: Option<NonZeroU32>,
        /// Networks to which these two do not apply, such as that of a load balancer
        #[arg(long, value_name = "CIDR", value_delimiter = ',', help_heading = "Limits of visitors")]
        pub visitor_exempt: Vec<Network>,
        /// Requests at a time on one HTTP/2 connection
        #[arg(long, value_name = "NUMBER", help_heading = "Limits of visitors")]
        pub max_streams: Option<NonZeroU32>,
        /// Time for a visitor to say anything after it has connected
        #[arg(long, value_name = "TIME", help_heading = "Limits of visitors")]
        pub hello_timeout: Option<Period>,
        /// Time for the TLS handshake after that; a minute at least where a person may have to choose a certificate
        #[arg(long, value_name = "TIME", help_heading = "Limits of visitors")]
        pub handshake_timeout: Option<Period>,
        /// Time for the head of a request
        #[arg(long, value_name = "TIME", help_heading = "Limits of visitors")]
        pub head_timeout: Option<Period>,
        /// Time in which a request's body of known length has to bring 1 KiB more, while it is waited for
        #[arg(long, value_name = "TIME", help_heading = "Limits of visitors")]
        pub body_timeout: Option<Period>,
        /// A connection without a request under way is closed after this
        #[arg(long, value_name = "TIME", help_heading = "Limits of visitors")]
        pub idle_timeout: Option<Period>,
        /// A visitor is cut off that takes nothing for so long although something waits for it
        #[arg(long, value_name = "TIME", help_heading = "Limits of visitors")]
        pub stall_timeout: Option<Period>,

        /// How long a source is turned away for each connection that does not log in: authfail (it tried), noauth (it did
        /// not), grace-exceeded (it took too long), crash (it made the server fail). The times add up, to max at most, and
        /// count from min on. What is left out keeps its default; no for none at all
        #[arg(long, value_name = "WHAT:TIME", value_delimiter = ',', help_heading = "Limits of logins")]
        pub penalties: Vec<PenaltyRule>,
        /// Networks that are never turned away for that
        #[arg(long, value_name = "CIDR", value_delimiter = ',', help_heading = "Limits of logins")]
        pub penalty_exempt: Vec<Network>,
    }
}
