//! How much of the server anybody may have, checked.

use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use hithe_cli_parser::{Allowance, Network, Period};

use super::{LimitOptions, Problem, ValueError, given};

/// All limits.
#[derive(Clone, Debug)]
pub struct Limits {
    pub logins: LoginLimits,
    pub accounts: AccountDefaults,
    pub visitors: VisitorLimits,
}

/// What visitors may have, and how long they may take.
#[derive(Clone, Debug)]
pub struct VisitorLimits {
    /// Connections at once from one source.
    pub connections: usize,
    /// Requests a second from one source. Not 0.
    pub requests: u32,
    /// Where these two do not apply.
    pub exempt: Vec<Network>,
    /// Requests at a time on one HTTP/2 connection.
    pub streams: u32,
    /// To the first byte of a connection that begins with TLS, or of any that waits to be given to a worker.
    pub hello: Duration,
    /// From the first byte to the end of the TLS handshake.
    pub handshake: Duration,
    /// To the first byte of a connection with HTTP, and from the first to the last byte of the head of a request.
    pub head: Duration,
    /// For each bit of a body of known length.
    pub body: Duration,
    /// For a connection without a request under way.
    pub idle: Duration,
    /// For a visitor that takes nothing of what waits for it.
    pub stall: Duration,
}

impl VisitorLimits {
    fn of(options: &mut LimitOptions) -> Result<Self, Problem> {
        Ok(Self {
            connections: count(options.max_visitor_connections, "--max-visitor-connections")?,
            requests: given(options.max_visitor_requests, "--max-visitor-requests")?.get(),
            exempt: std::mem::take(&mut options.visitor_exempt),
            streams: given(options.max_streams, "--max-streams")?.get(),
            hello: time(options.hello_timeout, "--hello-timeout")?,
            handshake: time(options.handshake_timeout, "--handshake-timeout")?,
            head: time(options.head_timeout, "--head-timeout")?,
            body: time(options.body_timeout, "--body-timeout")?,
            idle: time(options.idle_timeout, "--idle-timeout")?,
            stall: time(options.stall_timeout, "--stall-timeout")?,
        })
    }
}

#[cfg(test)]
impl Default for VisitorLimits {
    fn default() -> Self {
        Limits::try_from(super::file::defaults().unwrap().limits).unwrap().visitors
    }
}

/// What each account may have of which nothing else is said; `None` is as much as it likes.
#[derive(Clone, Copy, Debug)]
pub struct AccountDefaults {
    /// Sessions that publish.
    pub sessions: Option<u64>,
    /// Names and ports.
    pub endpoints: Option<u64>,
    /// Ports of tcp endpoints.
    pub ports: Option<u64>,
    /// Visits at once.
    pub visits: Option<u64>,
    /// Bytes a second, both ways together.
    pub rate: Option<u64>,
    /// Bytes a month, both ways together.
    pub monthly: Option<u64>,
}

/// A number of things, or `none` for no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccountCount(pub Option<u64>);

/// A number of bytes, or `none` for no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccountBytes(pub Option<u64>);

impl FromStr for AccountCount {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        limit(Allowance::count(text).ok()).map(Self).ok_or(ValueError("give a number, or none for no limit"))
    }
}

impl FromStr for AccountBytes {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let wrong = "give a number of bytes from 64KiB on, such as 10MB or 1TiB, or none for no limit";
        limit(Allowance::bytes(text).ok()).map(Self).ok_or(ValueError(wrong))
    }
}

fn limit(said: Option<Allowance>) -> Option<Option<u64>> {
    match said? {
        // That is what is said here.
        Allowance::Usual => None,
        Allowance::Unlimited => Some(None),
        Allowance::AtMost(limit) => Some(Some(limit)),
    }
}

/// What a publisher may cost before its login.
#[derive(Clone, Debug)]
pub struct LoginLimits {
    /// From accept to login.
    pub grace: Duration,
    /// Connections that have not logged in, in total.
    pub total: usize,
    /// The same from one source.
    pub per_source: usize,
    /// On an open server: all connections from one source.
    pub per_source_when_open: usize,
    /// `None` where nobody is punished.
    pub penalties: Option<Penalties>,
    /// Who is never punished.
    pub exempt: Vec<Network>,
}

/// For how long a source is turned away after a connection that did not log in, as sshd's `PerSourcePenalties`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Penalties {
    /// It tried to log in, and failed.
    pub failed: Duration,
    /// It left before it tried.
    pub not_tried: Duration,
    /// It was cut off because it took too long.
    pub too_slow: Duration,
    /// It made the server fail.
    pub crash: Duration,
    /// What has added up counts from here on.
    pub min: Duration,
    /// It adds up to this at most.
    pub max: Duration,
}

/// One entry of `--penalties`: `authfail:5s`, or `no`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PenaltyRule(Option<(Offence, Duration)>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Offence {
    Failed,
    NotTried,
    TooSlow,
    Crash,
    Min,
    Max,
}

impl FromStr for PenaltyRule {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        if text == "no" {
            return Ok(Self(None));
        }
        let wrong = ValueError(
            "give no, or one of authfail, noauth, grace-exceeded, crash, min and max with a time, such as authfail:5s",
        );
        let (name, time) = text.split_once(':').ok_or(wrong)?;
        let offence = match name {
            "authfail" => Offence::Failed,
            "noauth" => Offence::NotTried,
            "grace-exceeded" => Offence::TooSlow,
            "crash" => Offence::Crash,
            "min" => Offence::Min,
            "max" => Offence::Max,
            _ => return Err(wrong),
        };
        Ok(Self(Some((offence, time.parse::<Period>().map_err(|_| wrong)?.0))))
    }
}

impl Penalties {
    fn of(rules: &[PenaltyRule]) -> Option<Self> {
        let said: Option<Vec<_>> = rules.iter().map(|rule| rule.0).collect();
        Some(said?.into_iter().fold(USUAL, |mut all, (offence, time)| {
            match offence {
                Offence::Failed => all.failed = time,
                Offence::NotTried => all.not_tried = time,
                Offence::TooSlow => all.too_slow = time,
                Offence::Crash => all.crash = time,
                Offence::Min => all.min = time,
                Offence::Max => all.max = time,
            }
            all
        }))
    }
}

/// As sshd has them.
const USUAL: Penalties = Penalties {
    failed: Duration::from_secs(5),
    not_tried: Duration::from_secs(1),
    too_slow: Duration::from_secs(10),
    crash: Duration::from_secs(90),
    min: Duration::from_secs(15),
    max: Duration::from_secs(600),
};

impl TryFrom<LimitOptions> for Limits {
    type Error = Problem;

    fn try_from(mut options: LimitOptions) -> Result<Self, Problem> {
        let visitors = VisitorLimits::of(&mut options)?;
        let logins = LoginLimits {
            grace: time(options.login_grace, "--login-grace")?,
            total: count(options.max_logins, "--max-logins")?,
            per_source: count(options.max_logins_per_source, "--max-logins-per-source")?,
            per_source_when_open: count(options.max_connections_per_source, "--max-connections-per-source")?,
            penalties: Penalties::of(&options.penalties),
            exempt: options.penalty_exempt,
        };
        let accounts = AccountDefaults {
            sessions: given(options.max_sessions, "--max-sessions")?.0,
            endpoints: given(options.max_endpoints, "--max-endpoints")?.0,
            ports: given(options.max_ports, "--max-ports")?.0,
            visits: given(options.max_visits, "--max-visits")?.0,
            rate: given(options.max_rate, "--max-rate")?.0,
            monthly: given(options.max_monthly, "--max-monthly")?.0,
        };
        Ok(Self { logins, accounts, visitors })
    }
}

fn time(value: Option<Period>, option: &str) -> Result<Duration, Problem> {
    match given(value, option)?.0 {
        Duration::ZERO => Err(Problem::new(format!("{option} is no time: nobody could be so fast"))),
        time => Ok(time),
    }
}

fn count(value: Option<NonZeroU32>, option: &str) -> Result<usize, Problem> {
    Ok(given(value, option)?.get() as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> Option<Penalties> {
        Penalties::of(&text.split(',').map(|rule| rule.parse().unwrap()).collect::<Vec<_>>())
    }

    #[test]
    fn what_is_not_said_of_penalties_is_as_in_sshd() {
        let said = rules("authfail:1m,min:0").unwrap();
        assert_eq!(said, Penalties { failed: Duration::from_secs(60), min: Duration::ZERO, ..USUAL });
        let defaults = Limits::try_from(super::super::file::defaults().unwrap().limits).unwrap();
        assert_eq!(defaults.logins.penalties, Some(USUAL));
    }

    #[test]
    fn penalties_can_be_switched_off() {
        assert_eq!(rules("no"), None);
        for wrong in ["", "yes", "authfail", "authfail:", "authfail:x", "other:5s"] {
            assert!(wrong.parse::<PenaltyRule>().is_err(), "{wrong}");
        }
    }
}
