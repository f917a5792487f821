//! The way of a visit from an endpoint to its upstream and back.
//!
//! [`http`] forwards requests one by one, [`tcp`] carries raw streams; [`respond`] is what Hithe itself answers.

pub(crate) mod activity;
mod convert;
mod forwarded;
pub(crate) mod http;
mod reach;
pub(crate) mod respond;
mod socks;
pub(crate) mod tcp;
mod upgrade;

use std::sync::Arc;

use hithe_cli_parser::HostName;

use crate::drain::DrainWatch;
use crate::limits::Visitors;
use crate::metrics::Metrics;
use crate::registry::Registry;
use crate::trust::Trust;

/// What the proxy needs to know of the server.
pub(crate) struct Site {
    pub(crate) registry: Registry,
    /// The server's own domain, which no upstream may set a cookie for.
    pub(crate) domain: HostName,
    /// Whom to believe about who a visitor is.
    pub(crate) trust: Trust,
    /// Owns the tasks of visits that outlive their HTTP connection.
    pub(crate) visits: DrainWatch,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) visitors: Arc<Visitors>,
}
