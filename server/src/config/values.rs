//! The kinds of value that an option takes, each with its check and the words for a bad one.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroU16, NonZeroUsize};
use std::ops::RangeInclusive;
use std::str::FromStr;

use clap::ValueEnum;
use hithe_cli_parser::bytes;

/// The text is not such a value; says what one looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ValueError(pub(super) &'static str);

/// Where to listen. Port 0 takes a free port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListenAddress {
    pub address: SocketAddr,
    /// Nobody asked for this address: where IPv6 is off, 0.0.0.0 is as good.
    pub fallback: bool,
}

impl FromStr for ListenAddress {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let address = text.parse().map_err(|_| {
            ValueError("give ADDRESS:PORT with a numeric address, such as [::]:8080 or 127.0.0.1:8080")
        })?;
        Ok(Self { address, fallback: false })
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

/// An address to listen on, the port of which is known later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenIp {
    pub ip: IpAddr,
    /// As in [`ListenAddress`].
    pub fallback: bool,
}

impl ListenIp {
    pub fn with_port(self, port: u16) -> ListenAddress {
        ListenAddress { address: SocketAddr::new(self.ip, port), fallback: self.fallback }
    }
}

impl FromStr for ListenIp {
    type Err = ValueError;

    /// With or without the brackets of an IPv6 address.
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let bare = text.strip_prefix('[').and_then(|it| it.strip_suffix(']')).unwrap_or(text);
        let ip = bare
            .parse()
            .map_err(|_| ValueError("give an address without a port, such as [::] or 127.0.0.1"))?;
        Ok(Self { ip, fallback: false })
    }
}

/// `FIRST-LAST`, or one port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortRange(pub RangeInclusive<u16>);

impl FromStr for PortRange {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let wrong = ValueError("give FIRST-LAST, such as 20000-20999, with ports from 1 to 65535");
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let port = |text: &str| text.trim().parse().map(NonZeroU16::get).map_err(|_| wrong);
        let range = port(first)?..=port(last)?;
        if range.is_empty() {
            return Err(ValueError("the first port is greater than the last"));
        }
        Ok(Self(range))
    }
}

/// A number of bytes: `64MiB`, `10GB`, or a bare number. At least 64 MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

impl FromStr for Size {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let wrong = ValueError("give a number of bytes from 64MiB on, such as 512MiB, 20GB or 1TiB");
        let size = bytes(text).filter(|size| *size >= 64 << 20).ok_or(wrong)?;
        Ok(Self(size))
    }
}

/// A number of threads, from 1 to 1024.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerCount(pub NonZeroUsize);

impl FromStr for WorkerCount {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let count = text.parse().ok().filter(|count: &NonZeroUsize| count.get() <= 1024);
        count.map(Self).ok_or(ValueError("give a number of threads from 1 to 1024"))
    }
}

/// One label of a name directly below the domain, or all that begin with something: `www`, `_*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LabelPattern {
    Exact(String),
    Prefix(String),
}

impl LabelPattern {
    /// `label` is in lower case, as in a host name.
    pub fn matches(&self, label: &str) -> bool {
        match self {
            Self::Exact(exact) => label == exact,
            Self::Prefix(prefix) => label.starts_with(prefix),
        }
    }
}

impl FromStr for LabelPattern {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let text = text.trim().to_ascii_lowercase();
        let stem = text.strip_suffix('*').unwrap_or(&text);
        let is_label = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if text.is_empty() || text.len() > 63 || !stem.chars().all(is_label) {
            return Err(ValueError("give one label such as www, or the start of one with a star such as _*"));
        }
        match text.strip_suffix('*') {
            Some(prefix) => Ok(Self::Prefix(prefix.to_owned())),
            None => Ok(Self::Exact(text)),
        }
    }
}

/// What a listener is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ListenerKind {
    Ssh,
    Http,
    Https,
    /// The ports of tcp endpoints.
    Tcp,
}

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl From<LogLevel> for tracing::Level {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Error => Self::ERROR,
            LogLevel::Warn => Self::WARN,
            LogLevel::Info => Self::INFO,
            LogLevel::Debug => Self::DEBUG,
            LogLevel::Trace => Self::TRACE,
        }
    }
}

/// What publishers' connections are encrypted with, where their client has a choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CipherPreference {
    /// AES-GCM where this machine has instructions for it.
    Auto,
    AesGcm,
    Chacha20,
}

/// The shape of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_an_address_with_a_port() {
        let address: ListenAddress = "[::1]:0".parse().unwrap();
        assert_eq!((address.to_string().as_str(), address.fallback), ("[::1]:0", false));
        for wrong in ["8080", ":8080", "localhost:8080", "[::]", "::", "1.2.3.4:99999", ""] {
            assert!(wrong.parse::<ListenAddress>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_address_for_tcp_endpoints_may_stand_in_brackets() {
        for text in ["[::]", "::"] {
            assert_eq!(text.parse::<ListenIp>().unwrap().with_port(7).to_string(), "[::]:7");
        }
        assert!("127.0.0.1:80".parse::<ListenIp>().is_err());
    }

    #[test]
    fn a_range_of_ports_has_a_first_and_a_last() {
        assert_eq!("20000-20999".parse(), Ok(PortRange(20000..=20999)));
        assert_eq!("7".parse(), Ok(PortRange(7..=7)));
        for wrong in ["", "-", "9-8", "0-5", "1-65536", "1-2-3", "a-b"] {
            assert!(wrong.parse::<PortRange>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_size_has_a_unit_or_is_in_bytes() {
        for (text, size) in
            [("64MiB", 64 << 20), ("1GB", 1_000_000_000), ("2 gib", 2 << 30), ("67108864", 64 << 20)]
        {
            assert_eq!(text.parse(), Ok(Size(size)), "{text}");
        }
        for wrong in ["", "1", "10%", "1.5GB", "-1GB", "99999999999999TB", "GB"] {
            assert!(wrong.parse::<Size>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_label_pattern_is_exact_or_a_beginning() {
        let matches = |pattern: &str, label| pattern.parse::<LabelPattern>().unwrap().matches(label);
        assert!(matches("www", "www") && !matches("www", "www2"));
        assert!(matches("_*", "_dmarc") && !matches("_*", "a_b"));
        assert!(matches("WWW", "www"));
        for wrong in ["", "a.b", "*.a", "a*b", "b\u{fc}cher"] {
            assert!(wrong.parse::<LabelPattern>().is_err(), "{wrong}");
        }
    }
}
