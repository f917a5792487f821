//! WebSocket-TCP converter: what can be said about it.

use clap::Args;
use serde::{Deserialize, Serialize};

use super::{Definition, Kind, Manual, Stage};
use crate::Code;

/// Lets browsers reach a TCP service.
#[derive(Clone, Debug, PartialEq, Eq, Args, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WebsocketTcp {
    /// Take WebSockets from visitors and speak plain TCP with the upstream: each binary message is bytes, and back
    #[arg(long = "websocket-tcp-converter", id = "websocket-tcp-converter")]
    pub enabled: bool,
}

impl Default for WebsocketTcp {
    /// To name it is to want it.
    fn default() -> Self {
        Self { enabled: true }
    }
}

impl Definition for WebsocketTcp {
    const STAGE: Stage = Stage::Convert;
    const ON: &'static [Kind] = &[Kind::Http];
    const MANUAL: Manual = Manual {
        what: "Answers WebSocket handshakes itself and opens a raw connection to the upstream for each. What comes in \
               binary messages goes to the upstream as bytes, however they were split; what the upstream sends goes \
               back in binary messages of up to 32 KiB. Modules before it apply to the handshake, so basic auth or an \
               IP restriction guard the TCP service.\n\nThe end of the upstream's stream closes the WebSocket with \
               1000, a connection that breaks with 1011, a text message with 1003.",
        line: "ssh -R 443:localhost:5900 HOST http --websocket-tcp-converter",
        defaults: "Requests that are no WebSocket handshakes get status 400, an upstream that cannot be reached is \
                   answered before the handshake with status 502. A message may have 1 MiB. The first of the \
                   subprotocols that a visitor offers is taken; compression is not offered.",
        codes: &[Code::NOT_A_WEBSOCKET],
    };

    fn flags(&self, flags: &mut Vec<(&'static str, Option<String>)>) {
        flags.extend(self.enabled.then_some(("--websocket-tcp-converter", None)));
    }
}
