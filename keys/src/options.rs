//! The options of a line, as in sshd(8), AUTHORIZED_KEYS FILE FORMAT, and one of our own: `account="name"`.
//!
//! Read from left to right like sshd: `restrict,pty` permits a terminal, `pty,restrict` does not. `account` says whom
//! the names of this key belong to; sshd refuses a line with it, as it does with every option that it does not know.

use jiff::tz::TimeZone;

use crate::complaint::shortened;
use crate::{AccountName, AddressPatterns, ListenPattern, OpenPattern, Restrictions, expiry};

/// Patterns of one kind in a line; sshd has the same bound.
const MAX_PERMITS: usize = 4096;

/// The options of one line.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// `cert-authority`
    pub(crate) authority: bool,
    /// `principals="a,b"`
    pub(crate) principals: Option<Vec<String>>,
    /// `account="name"`
    pub(crate) account: Option<AccountName>,
    pub(crate) restrictions: Restrictions,
    /// About what has no effect.
    pub(crate) warnings: Vec<String>,
}

/// The options, or why their line cannot be used.
///
/// `zone` is the time zone of times without one.
pub(crate) fn parse(text: &str, zone: &TimeZone) -> Result<Options, String> {
    let mut options = Options::default();
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find([',', '=']).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        let after = match after.strip_prefix('=') {
            Some(value) => {
                let (value, after) = dequote(name, value)?;
                options.set(name, value, zone)?;
                after
            }
            None => {
                options.flag(name)?;
                after
            }
        };
        rest = match after.strip_prefix(',') {
            Some(rest) => rest,
            None if after.is_empty() => after,
            None => return Err(format!("has {:?} after the option {}", shortened(after), shortened(name))),
        };
    }
    options.finish()
}

/// The value between double quotes, where `\"` stands for a quote and any other backslash for itself, and what follows.
fn dequote<'a>(name: &str, text: &'a str) -> Result<(String, &'a str), String> {
    let name = shortened(name);
    let mut rest = text.strip_prefix('"').ok_or_else(|| format!("needs quotes: {name}=\"...\""))?;
    let mut value = String::new();
    loop {
        let end = rest.find(['"', '\\']).ok_or_else(|| format!("has no quote at the end of {name}="))?;
        let (plain, from_mark) = rest.split_at(end);
        value.push_str(plain);
        if let Some(after) = from_mark.strip_prefix('"') {
            return Ok((value, after));
        }
        match from_mark.strip_prefix("\\\"") {
            Some(after) => {
                value.push('"');
                rest = after;
            }
            None => {
                value.push('\\');
                rest = from_mark.strip_prefix('\\').unwrap_or_default();
            }
        }
    }
}

impl Options {
    fn flag(&mut self, name: &str) -> Result<(), String> {
        let limits = &mut self.restrictions;
        match name.to_ascii_lowercase().as_str() {
            "restrict" => (limits.forwarding, limits.pty) = (false, false),
            "port-forwarding" => limits.forwarding = true,
            "no-port-forwarding" => limits.forwarding = false,
            "pty" => limits.pty = true,
            "no-pty" => limits.pty = false,
            "cert-authority" => self.authority = true,
            // There is no agent, no X11 and no rc file here, and a touch of the token is not asked for.
            "agent-forwarding"
            | "no-agent-forwarding"
            | "x11-forwarding"
            | "no-x11-forwarding"
            | "user-rc"
            | "no-user-rc"
            | "no-touch-required"
            | "no-verify-required" => {}
            // sshd passes over nothing between two commas, or after the last one.
            "" => {}
            name @ ("verify-required" | "touch-required") => {
                return Err(format!("demands {name}, which this server cannot see in a signature"));
            }
            _ => return Err(unknown(name)),
        }
        Ok(())
    }

    fn set(&mut self, name: &str, value: String, zone: &TimeZone) -> Result<(), String> {
        let limits = &mut self.restrictions;
        match name.to_ascii_lowercase().as_str() {
            "permitlisten" => permit::<ListenPattern>("permitlisten", &value, &mut limits.listen)?,
            "permitopen" => permit::<OpenPattern>("permitopen", &value, &mut limits.open)?,
            "from" => {
                let (from, warnings) = AddressPatterns::parse(&value)?;
                self.warnings.extend(warnings);
                once("from", &mut limits.from, from)?;
            }
            "command" => once("command", &mut limits.command, value)?,
            "expiry-time" => {
                let time = expiry::parse(&value, zone).ok_or_else(|| {
                    format!("has {:?} in expiry-time=, which is not YYYYMMDD[HHMM[SS]][Z]", shortened(&value))
                })?;
                limits.expiry = Some(limits.expiry.map_or(time, |earlier| earlier.min(time)));
            }
            "principals" => {
                let list = value.split(',').map(str::to_owned).collect();
                once("principals", &mut self.principals, list)?;
            }
            "account" => {
                let account = AccountName::new(&value)
                    .ok_or_else(|| format!("has {:?} in account=, which is no name", shortened(&value)))?;
                once("account", &mut self.account, account)?;
            }
            "environment" => self.environment(&value)?,
            "tunnel" => self.tunnel(&value)?,
            _ => return Err(unknown(name)),
        }
        Ok(())
    }

    fn environment(&mut self, value: &str) -> Result<(), String> {
        let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if !value.split_once('=').is_some_and(|(name, _)| !name.is_empty() && name.bytes().all(word)) {
            return Err("has an environment= that is not of the form NAME=value".to_owned());
        }
        self.warnings.push("environment= has no effect here".to_owned());
        Ok(())
    }

    fn tunnel(&mut self, value: &str) -> Result<(), String> {
        if !value.eq_ignore_ascii_case("any") && value.parse::<u32>().is_err() {
            return Err("has a tunnel= that is no number of a device".to_owned());
        }
        self.warnings.push("tunnel= has no effect here".to_owned());
        Ok(())
    }

    fn finish(mut self) -> Result<Self, String> {
        if self.principals.is_some() && !self.authority {
            return Err("has principals= without cert-authority".to_owned());
        }
        let limits = &self.restrictions;
        if !limits.forwarding && (limits.listen.is_some() || limits.open.is_some()) {
            let text =
                "permits ports to a key that may forward none: port-forwarding is missing after restrict";
            self.warnings.push(text.to_owned());
        }
        Ok(self)
    }
}

fn permit<T: std::str::FromStr>(name: &str, value: &str, list: &mut Option<Vec<T>>) -> Result<(), String>
where
    T::Err: std::fmt::Display,
{
    let pattern =
        value.parse().map_err(|error| format!("has a {name}={:?} that {error}", shortened(value)))?;
    let list = list.get_or_insert_default();
    if list.len() >= MAX_PERMITS {
        return Err(format!("has more than {MAX_PERMITS} {name}="));
    }
    list.push(pattern);
    Ok(())
}

fn once<T>(name: &str, place: &mut Option<T>, value: T) -> Result<(), String> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(format!("has {name}= twice")),
    }
}

fn unknown(name: &str) -> String {
    format!("has the unknown option {:?}", shortened(name))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Options {
        parse(text, &TimeZone::UTC).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn refused(text: &str) -> String {
        parse(text, &TimeZone::UTC).err().unwrap_or_else(|| panic!("{text} is read"))
    }

    #[test]
    fn options_count_from_left_to_right_in_any_case() {
        for (text, forwarding, pty) in [
            ("no-pty", true, false),
            ("No-Port-Forwarding", false, true),
            ("restrict", false, false),
            ("RESTRICT,Pty", false, true),
            ("pty,restrict", false, false),
            ("restrict,port-forwarding,pty", true, true),
            (
                "no-agent-forwarding,no-X11-forwarding,no-user-rc,user-rc,X11-forwarding,agent-forwarding",
                true,
                true,
            ),
            ("no-touch-required,no-verify-required", true, true),
            ("no-pty,,pty,", true, true),
        ] {
            let limits = read(text).restrictions;
            assert_eq!((limits.forwarding, limits.pty), (forwarding, pty), "{text}");
        }
    }

    #[test]
    fn quotes_in_a_command_are_escaped_and_nothing_else_is() {
        for (text, wanted) in [
            (r#"command="http --basic-auth \"ada:x y\"""#, r#"http --basic-auth "ada:x y""#),
            (r#"command="a\b\\n""#, r"a\b\\n"),
            (r#"command="""#, ""),
            (r#"command="a,b=c",no-pty"#, "a,b=c"),
            (r#"command="\\"x""#, r#"\"x"#),
        ] {
            assert_eq!(read(text).restrictions.command.as_deref(), Some(wanted), "{text}");
        }
    }

    #[test]
    fn several_permissions_stand_side_by_side_and_the_earliest_end_counts() {
        let read = read(concat!(
            r#"permitlisten="443",permitlisten="a.test:*",permitopen="localhost:80",from="10.0.0.0/8","#,
            r#"expiry-time="20300101Z",expiry-time="20290101Z",expiry-time="20310101Z",account="ada""#,
        ));
        let limits = read.restrictions;
        assert!(limits.may_listen("x", 443) && limits.may_listen("a.test", 1) && !limits.may_listen("x", 1));
        assert!(limits.may_open("localhost", 80) && !limits.may_open("localhost", 81));
        assert_eq!(limits.expiry, expiry::parse("20290101Z", &TimeZone::UTC));
        assert_eq!(read.account.unwrap().as_str(), "ada");
    }

    #[test]
    fn authorities_have_principals() {
        let read = read(r#"cert-authority,principals="ada,bob""#);
        assert!(read.authority);
        assert_eq!(read.principals, Some(vec!["ada".to_owned(), "bob".to_owned()]));
        assert!(refused(r#"principals="ada""#).contains("without cert-authority"));
    }

    #[test]
    fn what_has_no_effect_is_warned_about() {
        for text in [
            r#"environment="A=b""#,
            r#"tunnel="0""#,
            r#"tunnel="any""#,
            r#"from="*.example.com""#,
            r#"restrict,permitlisten="443""#,
        ] {
            assert_eq!(read(text).warnings.len(), 1, "{text}");
        }
        assert_eq!(read(r#"restrict,port-forwarding,permitlisten="443""#).warnings, [""; 0]);
    }

    #[test]
    fn what_is_not_understood_makes_the_line_unusable() {
        for (text, why) in [
            ("frob", r#"unknown option "frob""#),
            ("no-restrict", "unknown"),
            ("ptyx", "unknown"),
            (r#"frob="x""#, "unknown"),
            (r#"pty="x""#, "unknown"),
            ("command", "unknown"),
            ("command=x", "needs quotes"),
            (r#"command="x"#, "no quote at the end"),
            (r#"command="x\""#, "no quote at the end"),
            (r#"command="x"y"#, "after the option command"),
            (r#"command="x",command="x""#, "twice"),
            (r#"from="*",from="*""#, "twice"),
            (r#"cert-authority,principals="a",principals="a""#, "twice"),
            ("verify-required", "demands verify-required"),
            ("touch-required", "demands touch-required"),
            (r#"expiry-time="tomorrow""#, "expiry-time"),
            (r#"permitlisten="none""#, "port"),
            (r#"permitopen="80""#, "form"),
            (r#"environment="A B=c""#, "environment"),
            (r#"tunnel="x""#, "tunnel"),
            (r#"account="a b""#, "account"),
            (r#"from="!*.example.com,*""#, "keep out"),
        ] {
            assert!(refused(text).contains(why), "{text}: {}", refused(text));
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_a_panic(text in "\\PC{0,64}") {
            let _ = parse(&text, &TimeZone::UTC);
        }

        #[test]
        fn a_command_comes_back_whatever_it_says(command in "[ -~]{0,24}") {
            // A backslash before the closing quote cannot be written, in sshd neither.
            prop_assume!(!command.ends_with('\\') && !command.contains("\\\""));
            let line = format!("no-pty,command=\"{}\",pty", command.replace('"', "\\\""));
            let read = parse(&line, &TimeZone::UTC);
            prop_assert_eq!(read.map(|it| it.restrictions.command), Ok(Some(command)));
        }
    }
}
