//! What a key or a token may bind: `bind:` rules (behaviour.md 7). None at all is everything.

use std::fmt;
use std::str::FromStr;

use hithe_cli_parser::{HostName, HostPattern};

/// Rules of which one has to allow what is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Acl(Vec<Rule>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Rule {
    /// `bind:*`
    Anything,
    /// `bind:app.example.com`, `bind:*.example.com`; one label stands below the server's domain.
    Name(HostPattern),
    /// `bind:example.com:20000`, `bind:*:*`
    Port { host: Option<HostName>, port: Option<u16> },
}

/// The text is no rule; says what one looks like.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no rule: write bind:NAME, bind:*.NAME, bind:HOST:PORT for a tcp endpoint, bind:*:* for all of those, or \
     bind:* for everything"
)]
pub(crate) struct AclError(String);

impl Acl {
    /// Whether it restricts nothing.
    pub(crate) fn is_everything(&self) -> bool {
        self.0.is_empty() || self.0.contains(&Rule::Anything)
    }

    /// Whether an http or tls endpoint may have this name.
    pub(crate) fn allows_name(&self, name: &HostPattern, domain: &HostName) -> bool {
        let allows = |rule: &Rule| matches!(rule, Rule::Name(rule) if below(rule, domain).covers(name));
        self.is_everything() || self.0.iter().any(allows)
    }

    /// Whether a tcp endpoint may have this port.
    pub(crate) fn allows_port(&self, wanted: u16, domain: &HostName) -> bool {
        let allows = |rule: &Rule| match rule {
            Rule::Port { host, port } => {
                host.as_ref().is_none_or(|host| host == domain) && port.is_none_or(|port| port == wanted)
            }
            Rule::Anything | Rule::Name(_) => false,
        };
        self.is_everything() || self.0.iter().any(allows)
    }
}

/// A rule of one label means that name of the server, as `-R` does.
fn below(rule: &HostPattern, domain: &HostName) -> HostPattern {
    let (HostPattern::Exact(name) | HostPattern::Wildcard(name)) = rule;
    if name == domain || name.labels().count() > 1 {
        return rule.clone();
    }
    let Ok(full) = HostName::parse(&format!("{name}.{domain}")) else { return rule.clone() };
    match rule {
        HostPattern::Exact(_) => HostPattern::Exact(full),
        HostPattern::Wildcard(_) => HostPattern::Wildcard(full),
    }
}

impl FromStr for Rule {
    type Err = AclError;

    fn from_str(text: &str) -> Result<Self, AclError> {
        let wrong = || AclError(text.chars().take(100).collect());
        let what = text.strip_prefix("bind:").ok_or_else(wrong)?;
        if what == "*" {
            return Ok(Self::Anything);
        }
        let Some((host, port)) = what.rsplit_once(':') else {
            return HostPattern::parse(what).map(Self::Name).map_err(|_| wrong());
        };
        let host = match host {
            "*" => None,
            host => Some(HostName::parse(host).map_err(|_| wrong())?),
        };
        let port = match port {
            "*" => None,
            port => Some(port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?),
        };
        Ok(Self::Port { host, port })
    }
}

impl FromStr for Acl {
    type Err = AclError;

    /// Rules with blanks or commas between them; a single `*` is everything.
    fn from_str(text: &str) -> Result<Self, AclError> {
        let words = text.split([' ', ',']).filter(|word| !word.is_empty());
        let rule = |word: &str| if word == "*" { Ok(Rule::Anything) } else { word.parse() };
        words.map(rule).collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anything => f.write_str("bind:*"),
            Self::Name(name) => write!(f, "bind:{name}"),
            Self::Port { host, port } => {
                let host = host.as_ref().map_or_else(|| "*".to_owned(), ToString::to_string);
                let port = port.map_or_else(|| "*".to_owned(), |port| port.to_string());
                write!(f, "bind:{host}:{port}")
            }
        }
    }
}

impl fmt::Display for Acl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, rule) in self.0.iter().enumerate() {
            let separator = if at == 0 { "" } else { " " };
            write!(f, "{separator}{rule}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domain() -> HostName {
        HostName::parse("w.test").unwrap()
    }

    fn names(acl: &str, name: &str) -> bool {
        acl.parse::<Acl>().unwrap().allows_name(&HostPattern::parse(name).unwrap(), &domain())
    }

    fn port(acl: &str, port: u16) -> bool {
        acl.parse::<Acl>().unwrap().allows_port(port, &domain())
    }

    #[test]
    fn no_rule_and_a_star_are_everything() {
        for acl in ["", "*", "bind:*", "bind:a.test,bind:*"] {
            assert!(names(acl, "app.w.test") && names(acl, "*.app.w.test") && port(acl, 20000), "{acl}");
        }
    }

    #[test]
    fn a_name_is_that_name_alone() {
        assert!(names("bind:app.w.test", "app.w.test") && names("bind:app", "app.w.test"));
        for other in ["b.w.test", "x.app.w.test", "*.app.w.test", "app.other.test"] {
            assert!(!names("bind:app", other), "{other}");
        }
        assert!(!port("bind:app", 20000));
    }

    #[test]
    fn a_wildcard_is_itself_and_all_below_it() {
        for name in ["x.ada.w.test", "y.x.ada.w.test", "*.ada.w.test", "*.x.ada.w.test"] {
            assert!(names("bind:*.ada", name) && names("bind:*.ada.w.test", name), "{name}");
        }
        assert!(!names("bind:*.ada", "ada.w.test") && !names("bind:*.ada", "nada.w.test"));
    }

    #[test]
    fn a_port_has_the_host_of_the_server_or_any() {
        assert!(port("bind:w.test:20000", 20000) && port("bind:*:20000", 20000) && port("bind:*:*", 1));
        assert!(!port("bind:w.test:20000", 20001) && !port("bind:other.test:20000", 20000));
        assert!(!names("bind:*:*", "app.w.test"));
    }

    #[test]
    fn one_of_several_rules_is_enough() {
        let acl = "bind:app bind:*:20000";
        assert!(names(acl, "app.w.test") && port(acl, 20000) && !names(acl, "b.w.test") && !port(acl, 20001));
    }

    #[test]
    fn what_is_no_rule_is_refused_and_never_means_everything() {
        for text in
            ["app", "bind:", "bind:a b:c", "bind:*:0", "bind:*:99999", "bind:a..b", "BIND:*", "bind:-:"]
        {
            assert!(text.parse::<Acl>().is_err(), "{text}");
        }
    }

    #[test]
    fn rules_are_written_as_they_were_read() {
        let text = "bind:app bind:*.ada.w.test bind:*:20000 bind:w.test:*";
        assert_eq!(text.parse::<Acl>().unwrap().to_string(), text);
    }
}
