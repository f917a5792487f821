//! The harness: real clients and misbehaving upstreams around the built server.
//!
//! [`TestServer`] runs `hithed` as a child, [`OpenSsh`] publishes through it with the machine's own `ssh`,
//! [`Origin`] is what is published, [`Visitor`] is who comes. A step that fails panics, which fails its test.
#![expect(clippy::expect_used, clippy::panic, reason = "a harness fails its test by panicking")]
#![expect(clippy::disallowed_methods, reason = "tasks of the harness end with the test's runtime")]

pub mod agent;
pub mod autobahn;
pub mod child;
pub mod clients;
pub mod dev;
pub mod dns;
pub mod front;
pub mod network;
pub mod origin;
pub mod payload;
pub mod program;
pub mod protocol;
pub mod relay;
pub mod scene;
pub mod server;
pub mod ssh;
pub mod systemd;
pub mod terminal;
pub mod visitor;
pub mod wait;

pub use agent::Agent;
pub use autobahn::Autobahn;
pub use child::{Child, Forwarding};
pub use clients::{OtherClient, Program};
pub use dns::NameServer;
pub use network::{Door, Host, Site};
pub use origin::{Origin, Traffic};
pub use protocol::ProtocolClient;
pub use relay::Relay;
pub use scene::{Download, Face, Guest, Line, Scene};
pub use server::{TestServer, generate_key};
pub use ssh::{Finished, OpenSsh};
pub use visitor::{Reply, Visitor};
pub use wait::{closed, eventually, patiently, within};
