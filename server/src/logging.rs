//! The server's log: one line an event on standard error, as text or JSON.

use std::io::IsTerminal as _;

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, fmt, reload};

use crate::config::{Log, LogFormat, LogLevel};

/// How much is logged, which may change while the process runs.
#[derive(Clone, Debug)]
pub struct Level(reload::Handle<LevelFilter, Registry>);

impl Level {
    /// Log this and what is worse from now on.
    pub fn set(&self, level: LogLevel) {
        // It fails only where there is no log any more.
        let _ = self.0.reload(LevelFilter::from_level(level.into()));
    }
}

/// Starts logging for the process. A second call starts nothing.
pub fn start(log: Log) -> Level {
    let (filter, handle) = reload::Layer::new(LevelFilter::from_level(log.level.into()));
    let lines = fmt::layer().with_writer(std::io::stderr).with_target(false);
    let registry = tracing_subscriber::registry().with(filter);
    let _already_started = match log.format {
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).try_init(),
        LogFormat::Text => registry.with(lines.with_ansi(std::io::stderr().is_terminal())).try_init(),
    };
    Level(handle)
}
