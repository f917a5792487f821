//! The server's log: one line an event on standard error, as text or JSON.

use std::io::IsTerminal as _;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt;

use crate::config::{Log, LogFormat};

/// Starts logging for the process. A second call does nothing.
pub fn start(log: Log) {
    let builder = fmt()
        .with_writer(std::io::stderr)
        .with_max_level(LevelFilter::from_level(log.level.into()))
        .with_target(false);
    let _already_started = match log.format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
    };
}
