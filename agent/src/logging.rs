//! The agent's log: one line an event, for people, as logfmt or as JSON (behaviour.md 6.5).
//!
//! logfmt and JSON have the keys `t`, `lvl` and `msg`, and the field's own, as scripts for ngrok's agent expect them.

use std::fmt::{self, Write as _};
use std::fs::OpenOptions;
use std::io;
use std::path::Path;
use std::sync::Mutex;

use hithe_cli_parser::printable;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::{LogFormat, LogLevel, LogTarget};

/// How the log is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Log {
    pub(crate) target: LogTarget,
    pub(crate) format: LogFormat,
    pub(crate) level: LogLevel,
}

/// Starts logging for the process. A second call starts nothing.
///
/// # Errors
/// The file cannot be opened.
pub(crate) fn start(log: &Log) -> io::Result<()> {
    let (writer, is_terminal) = match &log.target {
        LogTarget::Off => return Ok(()),
        LogTarget::Stdout => (BoxMakeWriter::new(io::stdout), io::IsTerminal::is_terminal(&io::stdout())),
        LogTarget::Stderr => (BoxMakeWriter::new(io::stderr), io::IsTerminal::is_terminal(&io::stderr())),
        LogTarget::File(path) => (BoxMakeWriter::new(Mutex::new(append(path)?)), false),
    };
    let zone = if is_terminal { TimeZone::system() } else { TimeZone::UTC };
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(writer)
        // A reader who has gone is not to be complained about on another stream.
        .log_internal_errors(false)
        .event_format(Format { format: log.format, zone });
    let _already_started = tracing_subscriber::registry().with(filter(log.level)).with(lines).try_init();
    Ok(())
}

fn append(path: &Path) -> io::Result<std::fs::File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    // Paths of requests may tell what others should not read.
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Our own events from `level` on, those of libraries only when they are bad or everything is asked for.
fn filter(level: LogLevel) -> Targets {
    let (ours, others) = match level {
        LogLevel::Error | LogLevel::Crit => (LevelFilter::ERROR, LevelFilter::ERROR),
        LogLevel::Warn => (LevelFilter::WARN, LevelFilter::WARN),
        LogLevel::Info => (LevelFilter::INFO, LevelFilter::WARN),
        LogLevel::Debug => (LevelFilter::DEBUG, LevelFilter::WARN),
        LogLevel::Trace => (LevelFilter::TRACE, LevelFilter::TRACE),
    };
    Targets::new().with_default(others).with_target("hithe", ours)
}

struct Format {
    format: LogFormat,
    /// Of the form for people. The others are in UTC.
    zone: TimeZone,
}

impl<S, N> FormatEvent<S, N> for Format
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let line = line(self, *event.metadata().level(), &fields, Timestamp::now());
        writeln!(out, "{line}")
    }
}

fn line(format: &Format, level: Level, fields: &Fields, now: Timestamp) -> String {
    let level = match level {
        Level::ERROR => "eror",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "dbug",
        Level::TRACE => "trce",
    };
    let utc = || now.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string();
    match format.format {
        LogFormat::Json => {
            let mut object = Map::new();
            object.extend(fields.others.iter().map(|(name, value)| (name.clone(), value.clone())));
            object.insert("t".into(), utc().into());
            object.insert("lvl".into(), level.into());
            object.insert("msg".into(), fields.message.clone().into());
            Value::Object(object).to_string()
        }
        LogFormat::Logfmt => {
            let mut line = format!("t={} lvl={level} msg={}", utc(), quoted(&fields.message));
            fields.append_to(&mut line);
            line
        }
        LogFormat::Term => {
            let time = now.to_zoned(format.zone.clone()).strftime("%H:%M:%S");
            let mut line = format!("{time} {level} {}", printable(&fields.message));
            fields.append_to(&mut line);
            line
        }
    }
}

/// A value as logfmt has it: bare, or in quotes.
fn quoted(text: &str) -> String {
    let is_bare = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'=' | b'\\');
    if !text.is_empty() && text.bytes().all(is_bare) {
        return text.to_owned();
    }
    format!("\"{}\"", printable(&text.replace('\\', "\\\\").replace('"', "\\\"")))
}

/// What an event says.
#[derive(Default)]
struct Fields {
    message: String,
    others: Vec<(String, Value)>,
}

impl Fields {
    fn append_to(&self, line: &mut String) {
        for (name, value) in &self.others {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            // Writing to a string cannot fail.
            let _ = write!(line, " {name}={}", quoted(&text));
        }
    }

    fn add(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(message)) => self.message = message,
            // Names of ours are not for others.
            (name @ ("t" | "lvl" | "msg"), value) => self.others.push((format!("{name}_"), value)),
            (name, value) => self.others.push((name.to_owned(), value)),
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, value.into());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// The lines of a log in a file.
    fn logged(format: LogFormat, level: LogLevel, act: impl FnOnce()) -> Vec<String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        let lines = tracing_subscriber::fmt::layer()
            .with_writer(Arc::new(file.reopen().unwrap()))
            .event_format(Format { format, zone: TimeZone::UTC });
        let subscriber = tracing_subscriber::registry().with(filter(level)).with(lines);
        tracing::subscriber::with_default(subscriber, act);
        std::fs::read_to_string(file.path()).unwrap().lines().map(str::to_owned).collect()
    }

    fn started() {
        tracing::info!(
            obj = "tunnels",
            addr = "localhost:80",
            count = 2_u64,
            why = "a \"b\"=\x1b[2J\nc\\",
            "started tunnel"
        );
    }

    #[test]
    fn json_is_one_object_a_line_with_the_keys_that_scripts_know() {
        let lines = logged(LogFormat::Json, LogLevel::Info, started);
        assert_eq!(lines.len(), 1);
        assert!(!lines[0].contains('\x1b'));
        let object: Value = serde_json::from_str(&lines[0]).unwrap();
        assert_eq!(object["msg"], "started tunnel");
        assert_eq!(object["lvl"], "info");
        assert_eq!(object["addr"], "localhost:80");
        assert_eq!(object["count"], 2);
        assert_eq!(object["why"], "a \"b\"=\x1b[2J\nc\\");
        object["t"].as_str().unwrap().parse::<Timestamp>().unwrap();
    }

    #[test]
    fn logfmt_and_the_form_for_people_quote_what_is_not_plain() {
        let fields = r#"obj=tunnels addr=localhost:80 count=2 why="a \"b\"=\u{1b}[2J\nc\\""#;
        let lines = logged(LogFormat::Logfmt, LogLevel::Info, started);
        assert_eq!(lines.len(), 1);
        let (time, rest) = lines[0].split_once(' ').unwrap();
        time.strip_prefix("t=").unwrap().parse::<Timestamp>().unwrap();
        assert_eq!(rest, format!("lvl=info msg=\"started tunnel\" {fields}"));
        let lines = logged(LogFormat::Term, LogLevel::Info, started);
        assert_eq!(&lines[0][8..], format!(" info started tunnel {fields}"));
    }

    #[test]
    fn libraries_are_heard_only_when_something_is_wrong() {
        let speak = || {
            tracing::info!(target: "russh", "noise");
            tracing::warn!(target: "russh", "trouble");
            tracing::debug!("ours");
        };
        assert_eq!(logged(LogFormat::Term, LogLevel::Info, speak).len(), 1);
        assert_eq!(logged(LogFormat::Term, LogLevel::Debug, speak).len(), 2);
        assert_eq!(logged(LogFormat::Term, LogLevel::Trace, speak).len(), 3);
        assert_eq!(logged(LogFormat::Term, LogLevel::Error, speak).len(), 0);
    }

    #[test]
    fn what_is_neither_a_stream_nor_false_is_a_file() {
        let target = |text: &str| text.parse::<LogTarget>().unwrap();
        assert_eq!(target("false"), LogTarget::Off);
        assert_eq!(target("stderr"), LogTarget::Stderr);
        assert_eq!(target("/var/log/hithe"), LogTarget::File("/var/log/hithe".into()));
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_told() {
        let log = Log {
            target: LogTarget::File("/nowhere/at/all".into()),
            format: LogFormat::Term,
            level: LogLevel::Info,
        };
        assert_eq!(start(&log).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
