//! ADDR: `80`, `host:port`, `https://host`, `h2c://host:port`, `unix:/path`, `file:///folder` …
//! (behaviour.md 6.1 and the forms of `upstream.url` in 6.2).

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use hithe_cli_parser::{Kind, printable};
use percent_encoding::percent_decode_str;

use super::{Place, Scheme, Upstream};

/// Why a text is no ADDR.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{message}: {said}\n  ADDR is a port (80), host:port, http://, https:// or h2c://host:port, unix:/path or file:///folder"
)]
pub struct AddressError {
    message: &'static str,
    said: String,
}

impl Upstream {
    /// # Errors
    /// The text names nothing that an endpoint of this kind can lead to.
    pub fn parse(said: &str, kind: Kind) -> Result<Self, AddressError> {
        let error = |message| AddressError { message, said: printable(said).into_owned() };
        let (place, scheme) = take_apart(said.trim(), kind).map_err(error)?;
        let is_http = kind == Kind::Http;
        if matches!(place, Place::Files(_)) && !is_http {
            return Err(error("only http endpoints serve files"));
        }
        if scheme == Scheme::H2c && !is_http {
            return Err(error("h2c is for http endpoints"));
        }
        Ok(Self { said: shown(said.trim(), &place), place, scheme })
    }
}

/// A bare port says little in a list of several.
fn shown(said: &str, place: &Place) -> String {
    match place {
        Place::Tcp { port, .. } if said == port.to_string() => format!("localhost:{port}"),
        _ => said.to_owned(),
    }
}

type Parts = (Place, Scheme);

fn take_apart(said: &str, kind: Kind) -> Result<Parts, &'static str> {
    if said.is_empty() {
        return Err("ADDR is empty");
    }
    if let Some(path) = behind("unix:", said) {
        if !cfg!(unix) {
            return Err("Unix sockets cannot be reached on this system");
        }
        return absolute(path.strip_prefix("//").unwrap_or(path))
            .map(|path| (Place::Unix(path), Scheme::Plain));
    }
    if let Some(path) = behind("file://", said) {
        return absolute(&decoded(path)?).map(|path| (Place::Files(path), Scheme::Plain));
    }
    let (name, rest) = said.split_once("://").map_or((None, said), |(name, rest)| (Some(name), rest));
    let name = name.map(str::to_ascii_lowercase);
    let (scheme, usual) = match (name.as_deref(), kind) {
        (None, Kind::Http) | (Some("http"), _) => (Scheme::Plain, Some(80)),
        (None | Some("tcp"), _) => (Scheme::Plain, None),
        (Some("https"), _) => (Scheme::Tls, Some(443)),
        (Some("h2c"), _) => (Scheme::H2c, Some(80)),
        // Of a tls endpoint it is what the visitors speak anyway.
        (Some("tls"), Kind::Tls) => (Scheme::Plain, None),
        (Some("tls"), _) => (Scheme::Tls, None),
        _ => return Err("this scheme is not known"),
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains(['/', '?', '#', '@']) {
        return Err("ADDR has no path, query or user: the whole service is published");
    }
    let (host, port) = host_and_port(rest)?;
    let port = port.or(usual).ok_or("ADDR needs a port here")?;
    Ok((Place::Tcp { host: host.unwrap_or("localhost").to_owned(), port }, scheme))
}

/// What follows the beginning, in whichever letters that is written (RFC 3986 §3.1).
fn behind<'a>(beginning: &str, text: &'a str) -> Option<&'a str> {
    let (first, rest) = text.split_at_checked(beginning.len())?;
    first.eq_ignore_ascii_case(beginning).then_some(rest)
}

/// A path of a file URL without its percent-encoding (RFC 8089 §2). What is none stays: paths are also pasted as they are.
fn decoded(path: &str) -> Result<OsString, &'static str> {
    let bytes: Vec<u8> = percent_decode_str(path).collect();
    if bytes.contains(&0) {
        return Err("a path has no NUL");
    }
    #[cfg(unix)]
    return Ok(std::os::unix::ffi::OsStringExt::from_vec(bytes));
    #[cfg(not(unix))]
    String::from_utf8(bytes).map(OsString::from).map_err(|_| "what is encoded in the path is not UTF-8")
}

fn host_and_port(text: &str) -> Result<(Option<&str>, Option<u16>), &'static str> {
    let number = |port: &str| match port.parse() {
        Ok(0) | Err(_) => Err("the port is not a number from 1 to 65535"),
        Ok(port) => Ok(port),
    };
    if text.is_empty() {
        return Ok((None, None));
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return number(text).map(|port| (None, Some(port)));
    }
    if let Some(rest) = text.strip_prefix('[') {
        let (address, behind) = rest.split_once(']').ok_or("an address in brackets is not closed")?;
        address.parse::<std::net::Ipv6Addr>().map_err(|_| "this is no IPv6 address")?;
        return match behind.strip_prefix(':') {
            Some(port) => number(port).map(|port| (Some(address), Some(port))),
            None if behind.is_empty() => Ok((Some(address), None)),
            None => Err("a port stands behind a colon"),
        };
    }
    let (host, port) = match text.split_once(':') {
        Some((_, port)) if port.contains(':') => return Err("an IPv6 address stands in brackets: [::1]:80"),
        Some((host, port)) => (host, Some(number(port)?)),
        None => (text, None),
    };
    let letter = |c: char| c.is_alphanumeric() || "-._".contains(c);
    match host {
        "" => Ok((None, port)),
        _ if host.chars().all(letter) => Ok((Some(host), port)),
        _ => Err("this is no host name"),
    }
}

fn absolute(path: impl AsRef<OsStr>) -> Result<PathBuf, &'static str> {
    let path = path.as_ref();
    // file:///C:/folder
    let drive =
        path.to_str().and_then(|it| it.strip_prefix('/')).filter(|it| cfg!(windows) && it.contains(':'));
    let path = PathBuf::from(drive.map_or(path, OsStr::new));
    if path.is_absolute() { Ok(path) } else { Err("the path must be absolute") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(said: &str, kind: Kind) -> String {
        let upstream = Upstream::parse(said, kind).unwrap();
        match upstream.place() {
            Place::Tcp { host, port } => format!("{:?} {host} {port}", upstream.scheme()),
            place => format!("{place:?}"),
        }
    }

    #[test]
    fn an_address_is_a_port_or_a_place_with_one() {
        for (said, meant) in [
            ("80", "Plain localhost 80"),
            (":8080", "Plain localhost 8080"),
            ("app.internal:8080", "Plain app.internal 8080"),
            ("app.internal", "Plain app.internal 80"),
            ("http://", "Plain localhost 80"),
            ("http://[::1]:8080/", "Plain ::1 8080"),
            ("https://", "Tls localhost 443"),
            ("https://localhost:8443", "Tls localhost 8443"),
            ("h2c://localhost:50051", "H2c localhost 50051"),
            ("HTTP://LOCALHOST:1", "Plain LOCALHOST 1"),
            ("Https://localhost:8443", "Tls localhost 8443"),
        ] {
            assert_eq!(place(said, Kind::Http), meant, "{said}");
        }
        assert_eq!(place("tcp://db:5432", Kind::Tcp), "Plain db 5432");
        assert_eq!(place("tls://db:5432", Kind::Tcp), "Tls db 5432");
        assert_eq!(place("tls://db:5432", Kind::Tls), "Plain db 5432");
    }

    #[cfg(unix)]
    #[test]
    fn an_address_is_a_socket_or_a_folder() {
        assert_eq!(place("unix:/run/app.sock", Kind::Http), "Unix(\"/run/app.sock\")");
        assert_eq!(place("unix:///run/app.sock", Kind::Tcp), "Unix(\"/run/app.sock\")");
        assert_eq!(place("file:///srv/www", Kind::Http), "Files(\"/srv/www\")");
        assert_eq!(place("FILE:///Srv", Kind::Http), "Files(\"/Srv\")");
        assert_eq!(place("Unix:/run/App.sock", Kind::Http), "Unix(\"/run/App.sock\")");
    }

    #[cfg(unix)]
    #[test]
    fn the_path_of_a_file_url_may_be_percent_encoded_and_need_not() {
        for (said, folder) in [
            ("file:///srv/a%20b", "/srv/a b"),
            ("file:///srv/a b", "/srv/a b"),
            ("file:///srv/%C3%A9t%c3%a9", "/srv/été"),
            ("file:///srv/100%", "/srv/100%"),
            ("file:///srv/50%25/%zz/%2", "/srv/50%/%zz/%2"),
        ] {
            assert_eq!(place(said, Kind::Http), format!("Files({folder:?})"), "{said}");
        }
        assert!(Upstream::parse("file:///srv/a%00b", Kind::Http).is_err());
    }

    #[cfg(windows)]
    #[test]
    fn an_address_is_a_folder_of_a_drive_and_no_socket() {
        assert_eq!(place("file:///C:/srv/www", Kind::Http), "Files(\"C:/srv/www\")");
        assert_eq!(place(r"file://C:\srv\www", Kind::Http), r#"Files("C:\\srv\\www")"#);
        assert!(Upstream::parse("unix:/C:/app.sock", Kind::Http).is_err());
    }

    #[test]
    fn what_cannot_be_reached_is_refused_with_the_forms_that_can() {
        for (said, kind) in [
            ("", Kind::Http),
            ("0", Kind::Http),
            ("99999", Kind::Http),
            ("ftp://host", Kind::Http),
            ("localhost:80/path", Kind::Http),
            ("::1:80", Kind::Http),
            ("[::1", Kind::Http),
            ("unix:run/app.sock", Kind::Http),
            ("file://www", Kind::Http),
            ("file:///srv", Kind::Tcp),
            ("h2c://db:1", Kind::Tcp),
            ("db.internal", Kind::Tcp),
            ("user@host:80", Kind::Http),
        ] {
            let error = Upstream::parse(said, kind).unwrap_err().to_string();
            assert!(error.contains("ADDR is a port"), "{said}: {error}");
        }
    }

    #[test]
    fn the_authority_leaves_out_a_port_that_goes_without_saying() {
        let authority = |said| Upstream::parse(said, Kind::Http).unwrap().authority();
        assert_eq!(authority("80").as_deref(), Some("localhost"));
        assert_eq!(authority("https://a:443").as_deref(), Some("a"));
        assert_eq!(authority("https://[::1]:80").as_deref(), Some("[::1]:80"));
        assert_eq!(authority(if cfg!(windows) { "file:///C:/a" } else { "unix:/a" }), None);
    }
}
