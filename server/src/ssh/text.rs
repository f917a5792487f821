//! The words that a publisher reads, in one place.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hithe_cli_parser::{About, Bind, Code, printable};

use crate::access::Identity;
use crate::registry::Refusal;
use crate::visit::VisitRecord;

/// The head of a console.
pub(super) fn banner(identity: &Identity) -> String {
    format!("hithe (via SSH) (Ctrl+C to quit)\n\nAccount     {}\n", whose(identity))
}

/// The account, and by what it logged in.
fn whose(identity: &Identity) -> String {
    let (comment, credential) = (printable(&identity.comment), &identity.credential);
    if identity.account.is_key() {
        return format!("{comment}  {credential}");
    }
    let separator = if comment.is_empty() { "" } else { ", " };
    format!("{}  ({comment}{separator}{credential})", identity.account)
}

pub(super) fn forwarding(url: &str, bind: &Bind) -> String {
    format!("Forwarding  {url} -> {}\n", printable(&bind.to_string()))
}

/// A command as the log may have it: its first word and the names of its flags, without values that may be secrets.
pub(super) fn outline(line: &str) -> String {
    let words = line.split_whitespace().enumerate();
    let names = words.filter(|(at, word)| *at == 0 || word.starts_with("--"));
    let names = names.take(32).map(|(_, word)| word.split(['=', ':']).next().unwrap_or_default());
    printable(&names.collect::<Vec<_>>().join(" ")).into_owned()
}

/// What the publisher noted about an endpoint, below its line.
pub(super) fn about(about: &About) -> String {
    let noted = [("Name", &about.name), ("About", &about.description), ("Metadata", &about.metadata)];
    let lines = noted.iter().filter_map(|(label, text)| Some((label, text.as_deref()?)));
    lines.map(|(label, text)| format!("{label:<12}{}\n", printable(text))).collect()
}

pub(super) fn refused(bind: &Bind, refusal: &Refusal) -> String {
    let Refusal { code, message, hint } = refusal;
    format!("{code}: -R {}: {}\n  {hint}\n", printable(&bind.to_string()), printable(message))
}

/// `ssh host` without a command, and without `-N`.
pub(super) fn no_command() -> String {
    format!(
        "{}: say what to publish: http, tls or tcp\n  \
         for example: ssh -R 443:localhost:80 HOST http\n  \
         all options: ssh HOST http --help\n",
        Code::NO_COMMAND
    )
}

pub(super) fn no_forward() -> String {
    format!(
        "{}: this command has no -R to publish\n  for example: ssh -R 443:localhost:80 HOST http\n",
        Code::NO_FORWARD
    )
}

/// An endpoint that another session serves now.
pub(super) fn taken_over(url: &str) -> String {
    format!("Taken over  {url} by another session of your account; running visits are finished here\n")
}

/// Nothing is left of a session.
pub(super) fn all_taken_over() -> String {
    format!("{}: another session of your account has taken over", Code::TAKEN_OVER)
}

/// The key or token of a session that is there was removed, or may do less than it did.
pub(super) fn login_taken_away() -> String {
    format!(
        "{}: your key or token is no longer what it was on this server. Connect again, or ask its operator.",
        Code::UNKNOWN_KEY
    )
}

pub(super) fn no_command_in_time() -> String {
    format!(
        "{}: no command came with -R. Say it: ssh -R 443:localhost:80 HOST http. With -N say it as the user name: \
         ssh -N -R 443:localhost:80 http@HOST",
        Code::NO_SESSION_IN_TIME
    )
}

pub(super) fn nothing_asked() -> String {
    format!(
        "{}: nothing is published over this connection. Publish with ssh -R 443:localhost:80 HOST http",
        Code::NO_FORWARD
    )
}

pub(super) fn unknown_version(user: &str) -> String {
    format!(
        "{}: this server does not know the command syntax {}. Use v2@, or no user name",
        Code::UNKNOWN_SYNTAX_VERSION,
        printable(user)
    )
}

/// Ours connects to the next server when it reads the code, and finishes its visits here.
pub(super) fn shutting_down() -> String {
    format!(
        "{}: the server is shutting down; running visits are finished, new ones are refused\n",
        Code::DRAINING
    )
}

pub(super) const SHUT_DOWN: &str = "The server has shut down. Connect again in a moment.";

/// One line for a finished request or connection.
pub(super) fn visit(record: &VisitRecord) -> String {
    let mut line = clock(SystemTime::now());
    match record {
        VisitRecord::Request { visitor, method, uri, status, duration, sent, fault } => {
            let path = uri.path_and_query().map_or("/", |path| path.as_str());
            let (path, status) = (shortened(path), status.as_u16());
            let _ = write!(line, "  {method} {path}  {status}  {}  {}", took(*duration), size(*sent));
            let _ = write!(line, "  {}", visitor.ip());
            if let Some(fault) = fault {
                let _ = write!(line, "  cut: {fault}");
            }
        }
        VisitRecord::Connection { visitor, duration, received, sent, fault } => {
            let peer = visitor.socket_addr();
            let _ = write!(line, "  {peer}  {}", took(*duration));
            let _ = write!(line, "  {} in, {} out", size(*received), size(*sent));
            if let Some(fault) = fault {
                let _ = write!(line, "  {fault}");
            }
        }
    }
    line.push('\n');
    line
}

pub(super) fn dropped(lines: u64) -> String {
    format!("... {lines} lines not shown: this terminal did not read them\n")
}

fn shortened(path: &str) -> String {
    let shown = printable(path);
    match shown.char_indices().nth(MAX_PATH) {
        Some((end, _)) => format!("{}...", shown.get(..end).unwrap_or_default()),
        None => shown.into_owned(),
    }
}

/// Time of day in UTC: the server does not know where the publisher is.
fn clock(now: SystemTime) -> String {
    let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    format!("{:02}:{:02}:{:02}Z", seconds / 3600 % 24, seconds / 60 % 60, seconds % 60)
}

fn took(duration: Duration) -> String {
    match duration.as_millis() {
        0 => format!("{} us", duration.as_micros()),
        millis @ 1..10_000 => format!("{millis} ms"),
        _ => format!("{} s", duration.as_secs()),
    }
}

fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut units = UNITS.iter();
    let mut unit = units.next().copied().unwrap_or_default();
    for larger in units {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = larger;
    }
    format!("{value:.1} {unit}")
}

/// A longer path is cut in the log line.
const MAX_PATH: usize = 200;

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use http::{Method, StatusCode};

    use super::*;
    use crate::visit::Visitor;

    #[test]
    fn a_request_line_says_method_path_status_duration_and_bytes() {
        let record = VisitRecord::Request {
            visitor: Visitor::new(SocketAddr::from(([127, 0, 0, 1], 4711)), None),
            method: Method::GET,
            uri: "/a?b=c".parse().unwrap(),
            status: StatusCode::OK,
            duration: Duration::from_millis(12),
            sent: 2048,
            fault: None,
        };
        let line = visit(&record);
        assert!(line.ends_with("Z  GET /a?b=c  200  12 ms  2.0 KiB  127.0.0.1\n"), "{line}");
    }
}
