//! What the server says to people with ssh, for people with the agent. They are one thing to the server; what to do
//! about an error is told by its code.

use hithe_cli_parser::{Code, Kind};

/// A refusal of the server, from the line with its code on: `ERR_HITHE_334: -R app:443: …`, and the hint below. What a hint
/// says of `-R`, of which the agent's flags know nothing, is put in terms of those flags. Other hints are for everybody.
pub(crate) fn in_our_words(said: &[String], kind: Kind) -> Option<String> {
    let (place, code) = said.iter().enumerate().find_map(|(place, line)| Some((place, code_of(line)?)))?;
    let mut told = Vec::new();
    for line in said.get(place..).unwrap_or_default() {
        if let Some((code, message)) =
            line.split_once(": -R ").and_then(|(code, rest)| Some((code, rest.split_once(": ")?.1)))
        {
            told.push(format!("{code}: {message}"));
        } else if line.starts_with(' ') && line.contains("-R ") {
            told.extend(remedy(code, kind).map(|remedy| format!("  {remedy}")));
        } else {
            told.push(line.clone());
        }
    }
    Some(told.join("\n"))
}

fn code_of(line: &str) -> Option<Code> {
    let digits = line.split_once("ERR_HITHE_")?.1;
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    digits.get(..end)?.parse().ok().map(Code::new)
}

fn remedy(code: Code, kind: Kind) -> Option<&'static str> {
    match (code, kind) {
        (Code::NAME_IN_USE | Code::PORT_NOT_FOR_COMMAND | Code::TCP_WITH_NAME, Kind::Tcp) => {
            Some("leave --remote-addr out to let the server choose")
        }
        (Code::NAME_IN_USE, Kind::Http | Kind::Tls) => Some("ask for a name with --domain NAME"),
        (Code::NAME_RESERVED, _) => Some("ask for a name below it with --domain NAME"),
        (Code::MUTUAL_TLS_PLACE | Code::CERTIFICATE | Code::TLS_VERSION_PLACE, Kind::Http) => {
            Some("leave --schemes out, so that https is answered")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(said: &[&str], kind: Kind) -> Option<String> {
        in_our_words(&said.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>(), kind)
    }

    #[test]
    fn what_is_said_of_forwards_is_put_in_terms_of_the_agents_flags() {
        let port = [
            "Welcome",
            "ERR_HITHE_334: -R :5000: port 5000 is taken",
            "  use -R 0:... to let the server choose",
        ];
        let expected =
            "ERR_HITHE_334: port 5000 is taken\n  leave --remote-addr out to let the server choose";
        assert_eq!(told(&port, Kind::Tcp).as_deref(), Some(expected));
        let name = ["ERR_HITHE_334: -R app:443: app is another's: sorry", "  ask for another name"];
        let expected = "ERR_HITHE_334: app is another's: sorry\n  ask for another name";
        assert_eq!(told(&name, Kind::Http).as_deref(), Some(expected));
    }

    #[test]
    fn a_hint_that_is_for_ssh_alone_is_left_out_where_there_is_no_better_one() {
        assert_eq!(
            told(&["ERR_HITHE_999: no", "  use -R x"], Kind::Tcp).as_deref(),
            Some("ERR_HITHE_999: no")
        );
        assert_eq!(told(&["no code"], Kind::Tcp), None);
    }
}
