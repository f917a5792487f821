//! What the server prints on the session of a command: the same lines that a person reads.

use hithe_cli_parser::printable;
use russh::client::Msg;
use russh::{Channel, ChannelMsg};
use tokio::sync::mpsc;

/// Something that the server said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// `Forwarding  URL -> BIND`: the endpoint is public there.
    Forwarding(String),
    /// `Account     NAME`
    Account(String),
    /// One line of anything else.
    Line(String),
    /// One line of an error.
    Error(String),
    /// The command ended with this status.
    Exit(u32),
    /// Nothing more comes.
    Closed,
}

/// Reads until the channel ends, whether anybody listens or not: what is not read would hold up all visits.
pub(super) async fn read(mut channel: Channel<Msg>, heard: mpsc::Sender<Heard>) {
    let skips_visits = !tracing::enabled!(tracing::Level::DEBUG);
    let (mut output, mut errors) = (Lines { skips_visits, ..Lines::default() }, Lines::default());
    while let Some(message) = channel.wait().await {
        match message {
            ChannelMsg::Data { data } => output.push(&data, |line| tell(&heard, out(line))),
            ChannelMsg::ExtendedData { data, .. } => {
                errors.push(&data, |line| tell(&heard, Heard::Error(line)))
            }
            ChannelMsg::ExitStatus { exit_status } => tell(&heard, Heard::Exit(exit_status)),
            ChannelMsg::Close => break,
            _ => {}
        }
    }
    let _ = heard.send(Heard::Closed).await;
}

/// Lines that nobody has time for are dropped, but for the end.
fn tell(heard: &mpsc::Sender<Heard>, what: Heard) {
    let _ = heard.try_send(what);
}

fn out(line: String) -> Heard {
    if let Some(rest) = line.strip_prefix("Forwarding ") {
        let url = rest.split_whitespace().next().unwrap_or_default();
        return Heard::Forwarding(url.to_owned());
    }
    match line.strip_prefix("Account ") {
        Some(name) => Heard::Account(name.trim().to_owned()),
        None => Heard::Line(line),
    }
}

/// Bytes into lines that a terminal may be given.
#[derive(Debug, Default)]
struct Lines {
    begun: Vec<u8>,
    /// Nobody reads what the server says of each visit, of which there may be thousands a second.
    skips_visits: bool,
}

/// A whole line with the time of day at its beginning.
fn is_of_a_visit(line: &[u8]) -> bool {
    matches!(line, [b'0'..=b'2', b'0'..=b'9', b':', .., b'\n'])
}

impl Lines {
    fn push(&mut self, data: &[u8], mut each: impl FnMut(String)) {
        for piece in data.split_inclusive(|byte| *byte == b'\n') {
            if self.skips_visits && self.begun.is_empty() && is_of_a_visit(piece) {
                continue;
            }
            let room = LONGEST.saturating_sub(self.begun.len());
            self.begun.extend_from_slice(piece.get(..piece.len().min(room)).unwrap_or_default());
            if piece.ends_with(b"\n") {
                let text = String::from_utf8_lossy(&self.begun);
                let line = printable(text.trim_end()).into_owned();
                self.begun.clear();
                if !line.is_empty() {
                    each(line);
                }
            }
        }
    }
}

/// Of a line.
const LONGEST: usize = 8192;

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(pieces: &[&str]) -> Vec<Heard> {
        let (mut lines, mut all) = (Lines::default(), Vec::new());
        pieces.iter().for_each(|piece| lines.push(piece.as_bytes(), |line| all.push(out(line))));
        all
    }

    #[test]
    fn the_lines_of_the_server_are_read_however_they_are_cut() {
        let text = [
            "hithe (via SSH)\r\n\r\nAccount     ada  (laptop, SHA256:x)\nForw",
            "arding  https://app.example.com -> 443\n12:00 GET /",
            "\n",
        ];
        assert_eq!(
            heard(&text),
            [
                Heard::Line("hithe (via SSH)".to_owned()),
                Heard::Account("ada  (laptop, SHA256:x)".to_owned()),
                Heard::Forwarding("https://app.example.com".to_owned()),
                Heard::Line("12:00 GET /".to_owned()),
            ]
        );
    }

    #[test]
    fn lines_about_visits_are_skipped_where_nobody_reads_them() {
        let (mut lines, mut all) = (Lines { skips_visits: true, ..Lines::default() }, Vec::new());
        let text = "12:00:00Z  GET /  200\n0 names\nForwarding  https://a -> 443\n23:59:59Z  GET";
        for piece in [text, " /later\nWithdrawn  a\n"] {
            lines.push(piece.as_bytes(), |line| all.push(line));
        }
        // One that comes in two pieces is not worth the trouble.
        assert_eq!(all, ["0 names", "Forwarding  https://a -> 443", "23:59:59Z  GET /later", "Withdrawn  a"]);
    }

    #[test]
    fn a_line_without_an_end_is_bounded_and_what_terminals_obey_is_escaped() {
        let long = "x".repeat(100_000);
        let Some(Heard::Line(line)) = heard(&[&long, "\n"]).pop() else { panic!() };
        assert!(line.len() <= LONGEST);
        assert_eq!(heard(&["a\u{1b}[2Jb\n"]), [Heard::Line(r"a\u{1b}[2Jb".to_owned())]);
    }
}
