//! The options of the server, each defined once: as a flag, an environment variable and a key of the file.
//!
//! Flags and environment, the file, and [`DEFAULTS`] are three values of [`Options`], laid over each other.

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::path::PathBuf;

use clap::Args;
use hithe_cli_parser::{HostName, HostPattern, Network, Period};

use super::values::{
    CipherPreference, LabelPattern, ListenAddress, ListenIp, ListenerKind, LogFormat, LogLevel, PortRange,
    Size, WorkerCount,
};

/// The lowest layer, in the words of the file.
pub(crate) const DEFAULTS: &str = r#"
domain = "localhost"
ssh-listen = "[::]:2222"
http-listen = "[::]:8080"
https-listen = "[::]:8443"
tcp-ports = "20000-20999"
tcp-listen-address = "[::]"
grace = "30s"
hold = "5s"
ssh-cipher = "auto"
login-grace = "60s"
max-logins = 1024
max-logins-per-source = 64
max-connections-per-source = 32
max-sessions = 64
max-endpoints = 256
max-ports = 64
max-visits = 16384
max-rate = "none"
max-monthly = "none"
max-visitor-connections = 512
max-visitor-requests = 1000
visitor-exempt = ["127.0.0.0/8", "::1"]
max-streams = 128
hello-timeout = "30s"
handshake-timeout = "10s"
head-timeout = "30s"
body-timeout = "60s"
idle-timeout = "5m"
stall-timeout = "60s"
penalties = ["authfail:5s", "noauth:1s", "grace-exceeded:10s", "crash:90s", "min:15s", "max:10m"]
penalty-exempt = ["127.0.0.0/8", "::1"]
log-level = "info"
log-format = "text"
reserved-labels = [
    "www", "mail", "smtp", "imap", "pop", "mx", "ns", "ns1", "ns2", "_*", "wpad", "autodiscover", "autoconfig",
    "mta-sts", "isatap", "localhost", "admin", "administrator", "hostmaster", "postmaster", "webmaster",
]
"#;

/// A value that may be missing in one layer and then shows what lies below.
trait Layer {
    fn over(self, below: Self) -> Self;
}

impl<T> Layer for Option<T> {
    fn over(self, below: Self) -> Self {
        self.or(below)
    }
}

impl<T> Layer for Vec<T> {
    fn over(self, below: Self) -> Self {
        if self.is_empty() { below } else { self }
    }
}

/// A struct of layers is a layer.
macro_rules! layered {
    ($(#[$meta:meta])* pub struct $Name:ident { $($(#[$field_meta:meta])* pub $field:ident: $Type:ty,)* }) => {
        $(#[$meta])*
        pub struct $Name { $($(#[$field_meta])* pub $field: $Type,)* }

        impl $Name {
            /// What is missing here is taken from `below`.
            pub(crate) fn over(self, below: Self) -> Self {
                Self { $($field: Layer::over(self.$field, below.$field),)* }
            }

            /// The fields that are not the same in `other`.
            pub(crate) fn differing(&self, other: &Self) -> Vec<&'static str> {
                let all = [$((stringify!($field), self.$field == other.$field),)*];
                all.into_iter().filter(|(_, same)| !same).map(|(name, _)| name).collect()
            }
        }

        impl Layer for $Name {
            fn over(self, below: Self) -> Self {
                Self::over(self, below)
            }
        }
    };
}

mod limits;

pub use limits::LimitOptions;

layered! {
    /// What the operator said, with types checked but not yet taken together.
    #[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
    pub struct Options {
        /// Read options from this TOML file; its keys are the names of these flags without the dashes
        #[arg(long, value_name = "FILE")]
        pub config: Option<PathBuf>,

        /// Listen here for publishers; repeatable. May be an address of --https-listen too: the first byte tells
        #[arg(long, value_name = "ADDRESS:PORT", value_delimiter = ',', help_heading = "Listeners")]
        pub ssh_listen: Vec<ListenAddress>,
        /// Listen here for visitors over plain HTTP; repeatable
        #[arg(long, value_name = "ADDRESS:PORT", value_delimiter = ',', help_heading = "Listeners")]
        pub http_listen: Vec<ListenAddress>,
        /// Listen here for visitors over HTTPS and TLS; repeatable
        #[arg(long, value_name = "ADDRESS:PORT", value_delimiter = ',', help_heading = "Listeners")]
        pub https_listen: Vec<ListenAddress>,
        /// Answer here how the server is: GET /healthz and /readyz; none by default, not for the public
        #[arg(long, value_name = "ADDRESS:PORT", value_delimiter = ',', help_heading = "Listeners")]
        pub health_listen: Vec<ListenAddress>,
        /// Ports that tcp endpoints may have
        #[arg(long, value_name = "FIRST-LAST", help_heading = "Listeners")]
        pub tcp_ports: Option<PortRange>,
        /// Open the ports of tcp endpoints on this address
        #[arg(long, value_name = "ADDRESS", help_heading = "Listeners")]
        pub tcp_listen_address: Option<ListenIp>,
        /// Port that visitors use for HTTP, if something forwards it to the bound one; URLs show it
        #[arg(long, value_name = "PORT", help_heading = "Listeners")]
        pub public_http_port: Option<NonZeroU16>,
        /// Port that visitors use for HTTPS, if something forwards it to the bound one; URLs show it
        #[arg(long, value_name = "PORT", help_heading = "Listeners")]
        pub public_https_port: Option<NonZeroU16>,
        /// Proxies in front of the server, which are believed about where connections come from; a list or repeated
        #[arg(long, value_name = "CIDR", value_delimiter = ',', help_heading = "Listeners")]
        pub trusted_proxies: Vec<Network>,
        /// Listeners at which connections from trusted proxies begin with a PROXY header, version 1 or 2; a list
        #[arg(long, value_name = "LISTENER", value_delimiter = ',', help_heading = "Listeners")]
        pub proxy_protocol: Vec<ListenerKind>,

        /// Endpoints get names below this domain
        #[arg(long, value_name = "NAME", help_heading = "Names")]
        pub domain: Option<HostName>,
        /// Let authorized keys publish under this custom domain too: example.com or *.example.com; repeatable
        #[arg(long = "allow-domain", value_name = "PATTERN", value_delimiter = ',', help_heading = "Names")]
        pub allow_domain: Vec<HostPattern>,
        /// Let every account claim names outside the domain that it proves to be its own by a TXT record at _hithe.NAME
        #[arg(
            long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
            hide_possible_values = true, help_heading = "Names"
        )]
        pub custom_domains: Option<bool>,
        /// Ask this name server for those records [default: those of /etc/resolv.conf]
        #[arg(long, value_name = "ADDRESS:PORT", help_heading = "Names")]
        pub dns_resolver: Option<SocketAddr>,
        /// Labels below the domain that nobody can claim, in place of the default ones; a list or repeated
        #[arg(long, value_name = "LABEL", value_delimiter = ',', help_heading = "Names")]
        pub reserved_labels: Vec<LabelPattern>,

        /// Public keys that may publish: a file in the format of sshd's authorized_keys, or a directory of such files
        #[arg(long, value_name = "FILE|DIR", help_heading = "Access")]
        pub authorized_keys: Option<PathBuf>,
        /// Authorities whose user certificates let their holders publish: public keys, one a line, as sshd's
        /// TrustedUserCAKeys
        #[arg(long, value_name = "FILE", help_heading = "Access")]
        pub trusted_user_ca: Option<PathBuf>,
        /// Keys and certificates that are refused: a list of ssh-keygen -k, or public keys, as sshd's RevokedKeys. If it
        /// cannot be read, all are refused
        #[arg(long, value_name = "FILE", help_heading = "Access")]
        pub revoked_keys: Option<PathBuf>,
        /// Let any key publish. Only for a network in which you trust everybody
        #[arg(
            long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
            hide_possible_values = true, help_heading = "Access"
        )]
        pub open: Option<bool>,
        /// Private key that the server shows to publishers, in place of its own one; repeatable
        #[arg(long, value_name = "FILE", value_delimiter = ',', help_heading = "Access")]
        pub host_key: Vec<PathBuf>,

        /// Cipher of publishers' connections: auto is aes-gcm on machines with AES instructions, else chacha20
        #[arg(long, value_name = "CIPHER", help_heading = "Access")]
        pub ssh_cipher: Option<CipherPreference>,

        /// Certificates as DIR/NAME/{fullchain,privkey}.pem, read again when they change; without, the server makes
        /// its own authority in the state directory
        #[arg(long, value_name = "DIR", help_heading = "TLS")]
        pub certificates: Option<PathBuf>,
        /// Authorities that publishers may name in --mutual-tls-cas: NAME.pem files in this directory
        #[arg(long, value_name = "DIR", help_heading = "TLS")]
        pub client_cas: Option<PathBuf>,

        /// Keep keys, names and the own authority here [default: $STATE_DIRECTORY, /var/lib/hithed as root, else
        /// ~/.local/state/hithed]
        #[arg(long, value_name = "DIR", help_heading = "State")]
        pub state_dir: Option<PathBuf>,
        /// Keep here what slow visitors have not taken yet, in unlinked files on a local disk
        /// [default: spool in the state directory]
        #[arg(long, value_name = "DIR", help_heading = "State")]
        pub spool_dir: Option<PathBuf>,
        /// Bytes that all slow visitors together may leave there; one visit may fill half, one publisher three quarters
        /// [default: three quarters of what is free at the start; the last tenth of the disk, at most 4 GiB, is never used]
        #[arg(long, value_name = "SIZE", help_heading = "State")]
        pub spool_limit: Option<Size>,
        /// Write every bound address to this file as JSON when all sockets are bound
        #[arg(long, value_name = "FILE", help_heading = "State")]
        pub ready_file: Option<PathBuf>,
        /// Time for visits to finish when the server is asked to end
        #[arg(long, value_name = "TIME", help_heading = "State")]
        pub grace: Option<Period>,

        /// How long visitors wait for a publisher that was cut off to come back, before they are told that nobody is
        /// there; 0s for not at all
        #[arg(long, value_name = "TIME", help_heading = "Names")]
        pub hold: Option<Period>,

        /// Threads that serve; a publisher's session and its visitors share one [default: one for each CPU]
        #[arg(long, value_name = "NUMBER", help_heading = "State")]
        pub workers: Option<WorkerCount>,

        #[command(flatten)]
        pub limits: LimitOptions,

        /// Log this and what is worse
        #[arg(long, value_name = "LEVEL", help_heading = "Logging")]
        pub log_level: Option<LogLevel>,
        /// Shape of the log lines
        #[arg(long, value_name = "FORMAT", help_heading = "Logging")]
        pub log_format: Option<LogFormat>,
    }
}

impl Options {
    /// These options with what a running server can change taken from `fresh`, and the names of all that differ: first
    /// those that were taken, then those that need a restart.
    pub(crate) fn renewed(&self, fresh: &Self) -> (Self, Vec<&'static str>, Vec<&'static str>) {
        let new = fresh.clone();
        let renewed = Self {
            allow_domain: new.allow_domain,
            reserved_labels: new.reserved_labels,
            trusted_proxies: new.trusted_proxies,
            proxy_protocol: new.proxy_protocol,
            grace: new.grace,
            log_level: new.log_level,
            ..self.clone()
        };
        let (taken, mut left) = (self.differing(&renewed), renewed.differing(fresh));
        if left.contains(&"limits") {
            left.retain(|name| *name != "limits");
            left.extend(renewed.limits.differing(&fresh.limits));
        }
        (renewed, taken, left)
    }

    /// A default address gives way where IPv6 is off; one that was asked for does not.
    pub(crate) fn may_fall_back(mut self) -> Self {
        let lists = [&mut self.ssh_listen, &mut self.http_listen, &mut self.https_listen];
        lists.into_iter().flatten().for_each(|it| it.fallback = true);
        self.tcp_listen_address.iter_mut().for_each(|it| it.fallback = true);
        self
    }
}
