//! What is known of the agent's endpoints, for console, inspector and programs: one value in a
//! [`watch`](tokio::sync::watch) channel, replaced whenever something changes.

use std::time::{Duration, SystemTime};

/// All endpoints of this agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// `host:port` of the server.
    pub server: String,
    /// Where the inspector listens: `http://127.0.0.1:4040`.
    pub web: Option<String>,
    pub endpoints: Vec<EndpointStatus>,
}

/// One endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointStatus {
    pub name: String,
    /// `http`, `tls` or `tcp`.
    pub kind: &'static str,
    /// Where it leads, as it was given.
    pub upstream: String,
    pub inspect: bool,
    /// What the server answered: `https://app.tunnel.example.com`, in the order of its lines. Kept while the
    /// connection is lost, since the same names come back.
    pub urls: Vec<String>,
    /// As whom the server knows us.
    pub account: Option<String>,
    /// To the server and back, by the last heartbeat.
    pub latency: Option<Duration>,
    pub phase: Phase,
}

/// How it stands with an endpoint's connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    #[default]
    Connecting,
    Online {
        since: SystemTime,
    },
    /// Lost; tried again at that time, or earlier when the network returns.
    Waiting {
        until: SystemTime,
        why: String,
    },
    /// For good.
    Ended {
        why: String,
    },
}
