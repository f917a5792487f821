//! Where visitors find an endpoint, for those who would rather say it behind the command than in `-R`.

use std::borrow::Cow;

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::{Bind, Code, Command, CommandError, Kind, Scheme, printable};

/// The flags that stand for a name or a port in `-R`, of which at most one is given; and whether others may share it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[command(next_help_heading = "Address")]
pub struct Address {
    /// The name that visitors use, in place of one in -R: app, app.example.com or *.app
    #[arg(long, value_name = "NAME")]
    pub domain: Option<String>,
    /// The same as a URL of http, https, tls or tcp, such as tls://app or tcp://HOST:20022
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// The public port of a tcp endpoint, in place of one in -R
    #[arg(long, value_name = "HOST:PORT")]
    pub remote_addr: Option<String>,
    /// An older spelling of --domain
    #[arg(long, value_name = "NAME", hide = true)]
    pub hostname: Option<String>,
    /// An older spelling of --domain
    #[arg(long, value_name = "LABEL", hide = true)]
    pub subdomain: Option<String>,
    /// Share the address with other sessions of your account that say so too; visitors go to the least busy of them
    #[arg(long)]
    pub pooling_enabled: bool,
}

/// What an address flag says.
#[derive(Debug)]
struct Said<'a> {
    flag: &'static str,
    scheme: Option<&'a str>,
    host: &'a str,
    port: Option<u16>,
}

impl Address {
    /// The one flag that is given, taken apart.
    fn said(&self) -> Result<Option<Said<'_>>, CommandError> {
        let given: Vec<_> = self.given().collect();
        let (flag, value) = match given.as_slice() {
            [] => return Ok(None),
            [only] => *only,
            [(first, _), (second, _), ..] => {
                let both = [*first, *second] == ["--hostname", "--subdomain"];
                let code = if both { Code::HOSTNAME_AND_SUBDOMAIN } else { Code::BAD_FLAG };
                let message = format!("only one of {first} and {second} can be given");
                return Err(CommandError::new(code, message));
            }
        };
        let wrong = |message: &str| CommandError::new(Code::BAD_FLAG, message).word(&printable(value));
        let (scheme, rest) = match value.split_once("://") {
            Some((scheme, rest)) if flag == "--url" => (Some(scheme), rest.strip_suffix('/').unwrap_or(rest)),
            _ => (None, value),
        };
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) => (
                host,
                Some(port.parse().map_err(|_| wrong("the port in this flag is not a number to 65535"))?),
            ),
            None => (rest, None),
        };
        if rest.contains(['/', '?', '#', '@']) {
            return Err(wrong("this flag takes a name and perhaps a port, no path"));
        }
        Ok(Some(Said { flag, scheme, host, port }))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.given().next().is_none()
    }

    fn given(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let flags = [
            ("--domain", &self.domain),
            ("--url", &self.url),
            ("--remote-addr", &self.remote_addr),
            ("--hostname", &self.hostname),
            ("--subdomain", &self.subdomain),
        ];
        flags.into_iter().filter_map(|(flag, value)| Some((flag, value.as_deref()?)))
    }

    pub(crate) fn flags(&self, flags: &mut Vec<(&'static str, Option<String>)>) {
        flags.extend(self.given().map(|(flag, value)| (flag, Some(value.to_owned()))));
        if self.pooling_enabled {
            flags.push(("--pooling-enabled", None));
        }
    }

    /// What can be found wrong without a `-R`.
    pub(crate) fn check(&self, kind: Kind, schemes: &[Scheme]) -> Result<(), CommandError> {
        let Some(said) = self.said()? else { return Ok(()) };
        let tcp_flag = said.flag == "--remote-addr";
        if tcp_flag != (kind == Kind::Tcp) && said.flag != "--url" {
            let message = format!("{} is not for {} endpoints", said.flag, kind.as_str());
            let hint = match kind {
                Kind::Tcp => "a tcp endpoint has a port and no name: --remote-addr HOST:PORT",
                Kind::Http | Kind::Tls => "give the name: --domain NAME",
            };
            return Err(CommandError::new(Code::BAD_FLAG, message).word(said.flag).hint(hint));
        }
        if kind == Kind::Tcp && said.port.is_none_or(|port| port == 0) {
            let message = format!("{} needs the port of the endpoint", said.flag);
            return Err(
                CommandError::new(Code::BAD_FLAG, message).hint("for example: --url tcp://HOST:20022")
            );
        }
        let fits = match (kind, said.scheme) {
            (_, None) => true,
            (Kind::Http, Some(scheme)) => {
                let of = [Scheme::Http, Scheme::Https].into_iter().find(|it| it.as_str() == scheme);
                of.is_some_and(|scheme| schemes.is_empty() || schemes.contains(&scheme))
            }
            (_, Some(scheme)) => scheme == kind.as_str(),
        };
        if fits {
            return Ok(());
        }
        let message = format!("this URL does not go with {}", kind.as_str());
        Err(CommandError::new(Code::PORT_NOT_FOR_COMMAND, message)
            .word(&printable(self.url.as_deref().unwrap_or(""))))
    }
}

impl Command {
    pub const fn address(&self) -> &Address {
        match self {
            Self::Http(http) => &http.address,
            Self::Tls(tls) => &tls.address,
            Self::Tcp(tcp) => &tcp.address,
        }
    }

    /// What `-R` and the flags ask for together.
    ///
    /// # Errors
    /// 1113 to 1119: both say something, and not the same.
    pub fn asked<'a>(&self, bind: &'a Bind) -> Result<Cow<'a, Bind>, CommandError> {
        let Some(said) = self.address().said()? else { return Ok(Cow::Borrowed(bind)) };
        let conflict = |code, what: &str| {
            let message = format!("{} together with {what} in -R {bind}", said.flag);
            Err(CommandError::new(code, message)
                .hint("say it once: leave it out of -R, as in -R 0:localhost:80"))
        };
        let tcp = self.kind() == Kind::Tcp;
        if bind.has_name() {
            return conflict(
                match (tcp, said.flag) {
                    (true, _) => Code::REMOTE_ADDR_AND_NAME,
                    (false, "--subdomain") => Code::SUBDOMAIN_AND_NAME,
                    (false, _) => Code::HOSTNAME_AND_NAME,
                },
                "a name",
            );
        }
        if tcp && bind.port != 0 {
            return conflict(Code::REMOTE_ADDR_AND_PORT, "a port");
        }
        let by_scheme = match said.scheme {
            Some("http") => 80,
            Some("https") => 443,
            _ => bind.port,
        };
        if bind.port != 0 && bind.port != by_scheme {
            return conflict(Code::PORT_NOT_FOR_COMMAND, "another port");
        }
        // The port of an http or tls endpoint is the server's own, whatever it looks like from outside.
        let port = if tcp { said.port.map_or(0, u32::from) } else { by_scheme };
        Ok(Cow::Owned(Bind { address: said.host.to_owned(), port }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Parsed, parse};

    fn asked(line: &str, address: &str, port: u32) -> Result<String, Code> {
        let command = match parse(line) {
            Ok(Parsed::Publish(command)) => command,
            Ok(Parsed::Admin(_) | Parsed::Help(_)) => panic!("{line}"),
            Err(error) => return Err(error.code()),
        };
        let bind = Bind { address: address.to_owned(), port };
        command.asked(&bind).map(|bind| bind.to_string()).map_err(|error| error.code())
    }

    fn ok(text: &str) -> Result<String, Code> {
        Ok(text.to_owned())
    }

    #[test]
    fn a_flag_stands_for_what_r_leaves_out() {
        assert_eq!(asked("http", "app", 443), ok("app:443"));
        assert_eq!(asked("http --domain app", "localhost", 443), ok("app:443"));
        assert_eq!(asked("http --subdomain app", "", 0), ok("app:0"));
        assert_eq!(asked("http --hostname shop.example.net", "", 80), ok("shop.example.net:80"));
        assert_eq!(asked("http --url https://app.example.com/", "localhost", 0), ok("app.example.com:443"));
        assert_eq!(asked("http --url http://app:8080", "localhost", 0), ok("app:80"));
        assert_eq!(asked("tls --url tls://app", "localhost", 443), ok("app:443"));
        assert_eq!(asked("tls --domain *.app", "localhost", 443), ok("*.app:443"));
        assert_eq!(asked("tcp --url tcp://example.com:20022", "localhost", 0), ok("example.com:20022"));
        assert_eq!(asked("tcp --remote-addr example.com:20022", "localhost", 0), ok("example.com:20022"));
    }

    #[test]
    fn what_is_said_twice_has_its_code() {
        assert_eq!(asked("http --domain a", "b", 443), Err(Code::HOSTNAME_AND_NAME));
        assert_eq!(asked("http --hostname a", "b", 443), Err(Code::HOSTNAME_AND_NAME));
        assert_eq!(asked("http --subdomain a", "b", 443), Err(Code::SUBDOMAIN_AND_NAME));
        assert_eq!(asked("http --hostname a --subdomain b", "", 443), Err(Code::HOSTNAME_AND_SUBDOMAIN));
        assert_eq!(asked("http --domain a --url https://b", "", 443), Err(Code::BAD_FLAG));
        assert_eq!(asked("tcp --remote-addr h:20022", "h", 0), Err(Code::REMOTE_ADDR_AND_NAME));
        assert_eq!(asked("tcp --remote-addr h:20022", "", 20022), Err(Code::REMOTE_ADDR_AND_PORT));
        assert_eq!(asked("http --url http://a", "", 443), Err(Code::PORT_NOT_FOR_COMMAND));
    }

    #[test]
    fn flags_go_with_their_commands() {
        assert_eq!(asked("http --remote-addr h:1", "", 0), Err(Code::BAD_FLAG));
        assert_eq!(asked("tcp --domain app", "", 0), Err(Code::BAD_FLAG));
        assert_eq!(asked("tcp --url tcp://h", "", 0), Err(Code::BAD_FLAG));
        assert_eq!(asked("tls --url https://app", "", 0), Err(Code::PORT_NOT_FOR_COMMAND));
        assert_eq!(asked("http --url ftp://app", "", 0), Err(Code::PORT_NOT_FOR_COMMAND));
        assert_eq!(asked("http --url https://app --schemes http", "", 0), Err(Code::PORT_NOT_FOR_COMMAND));
        assert_eq!(asked("http --url https://app/path", "", 0), Err(Code::BAD_FLAG));
        assert_eq!(asked("http --url https://app:x", "", 0), Err(Code::BAD_FLAG));
    }
}
