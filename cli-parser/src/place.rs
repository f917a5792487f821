//! What the port of a `-R` means for each command.

use std::ops::RangeInclusive;

use crate::{Bind, Code, Command, CommandError, Scheme};

/// Where a forward is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    Http(Schemes),
    Tls,
    /// `None`: the server chooses.
    Tcp {
        port: Option<u16>,
    },
}

/// The schemes of an http endpoint: at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schemes {
    pub http: bool,
    pub https: bool,
}

impl Command {
    /// # Errors
    /// 1113: the port does not go with the command or its schemes.
    pub fn place(&self, bind: &Bind, tcp_ports: &RangeInclusive<u16>) -> Result<Placement, CommandError> {
        match (self, bind.port) {
            (Self::Http(http), 0 | 80 | 443) => place_http(&http.schemes, bind.port),
            (Self::Http(_), _) => Err(wrong("an http endpoint has port 80, 443 or 0", bind)),
            (Self::Tls(_), 0 | 443) => Ok(Placement::Tls),
            (Self::Tls(_), _) => Err(wrong("a tls endpoint has port 443 or 0", bind)),
            (Self::Tcp(_), 0) => Ok(Placement::Tcp { port: None }),
            (Self::Tcp(_), asked) => match u16::try_from(asked) {
                Ok(port) if tcp_ports.contains(&port) => Ok(Placement::Tcp { port: Some(port) }),
                _ => {
                    let (first, last) = (tcp_ports.start(), tcp_ports.end());
                    Err(wrong(&format!("a tcp endpoint has a port of {first}-{last}, or 0"), bind))
                }
            },
        }
    }
}

fn place_http(said: &[Scheme], port: u32) -> Result<Placement, CommandError> {
    let by_port = if port == 80 { Scheme::Http } else { Scheme::Https };
    if said.is_empty() {
        let http = by_port == Scheme::Http;
        return Ok(Placement::Http(Schemes { http, https: !http }));
    }
    if port != 0 && !said.contains(&by_port) {
        let message = format!("port {port} is {}, which --schemes leaves out", by_port.as_str());
        return Err(
            CommandError::new(Code::PORT_NOT_FOR_COMMAND, message).hint("use -R 0:..., or change --schemes")
        );
    }
    Ok(Placement::Http(Schemes { http: said.contains(&Scheme::Http), https: said.contains(&Scheme::Https) }))
}

fn wrong(message: &str, bind: &Bind) -> CommandError {
    CommandError::new(Code::PORT_NOT_FOR_COMMAND, format!("{message}, not {}", bind.port))
        .hint("use -R 0:... to let the server choose")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Parsed, parse};

    fn place(line: &str, port: u32) -> Result<Placement, Code> {
        let Ok(Parsed::Publish(command)) = parse(line) else { panic!("{line}") };
        let bind = Bind { address: "localhost".to_owned(), port };
        command.place(&bind, &(20000..=20999)).map_err(|error| error.code())
    }

    const HTTP: Result<Placement, Code> = Ok(Placement::Http(Schemes { http: true, https: false }));
    const HTTPS: Result<Placement, Code> = Ok(Placement::Http(Schemes { http: false, https: true }));
    const BOTH: Result<Placement, Code> = Ok(Placement::Http(Schemes { http: true, https: true }));
    const WRONG: Result<Placement, Code> = Err(Code::PORT_NOT_FOR_COMMAND);

    #[test]
    fn the_port_chooses_the_scheme() {
        assert_eq!(place("http", 80), HTTP);
        assert_eq!(place("http", 443), HTTPS);
        assert_eq!(place("http", 0), HTTPS);
        assert_eq!(place("http", 8080), WRONG);
    }

    #[test]
    fn schemes_must_hold_that_of_the_port() {
        assert_eq!(place("http --schemes http,https", 80), BOTH);
        assert_eq!(place("http --schemes http,https", 443), BOTH);
        assert_eq!(place("http --schemes http", 0), HTTP);
        assert_eq!(place("http --schemes https", 80), WRONG);
        assert_eq!(place("http --schemes http", 443), WRONG);
    }

    #[test]
    fn tls_and_tcp_have_their_own_ports() {
        assert_eq!(place("tls", 443), Ok(Placement::Tls));
        assert_eq!(place("tls", 80), WRONG);
        assert_eq!(place("tcp", 0), Ok(Placement::Tcp { port: None }));
        assert_eq!(place("tcp", 20005), Ok(Placement::Tcp { port: Some(20005) }));
        assert_eq!(place("tcp", 443), WRONG);
        assert_eq!(place("tcp", 70000), WRONG);
    }
}
