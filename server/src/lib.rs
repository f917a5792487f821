//! `hithed`: an SSH-native reverse tunnel server.
//!
//! A publisher connects with stock `ssh -R`; a visitor reaches the published service over HTTP, HTTPS, TLS or
//! TCP. The way of a visit is `edge` -> `registry` -> `modules` -> `proxy` -> `tunnel` -> `ssh`.

mod access;
mod account;
mod admin;
#[cfg(feature = "bench")]
#[doc(hidden)]
pub mod bench;
mod body;
mod certs;
pub mod cli;
pub mod config;
pub mod demo;
pub mod drain;
mod edge;
mod endpoint;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod limits;
mod listen;
pub mod logging;
mod metrics;
mod modules;
mod proof;
mod proxy;
mod registry;
pub mod server;
mod ssh;
mod stall;
mod store;
mod trust;
mod tunnel;
mod visit;
mod workers;
mod wrapped;
