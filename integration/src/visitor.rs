//! Who comes from the public side: an HTTP client that connects to the server's bound addresses whatever the
//! URL's name resolves to, with raw, TLS and websocket faces below it, and the machine's own `curl`.

mod chromium;
mod connect;
mod curl;
pub mod frames;
mod reply;
mod request;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

pub use self::chromium::Chromium;
pub use self::connect::{Io, Tls};
pub use self::curl::Curl;
pub use self::reply::{Reply, Streaming};
pub use self::request::Connection;

/// A visitor; cheap to clone and to adjust: `server.visitor().http2().get(&url)`.
#[derive(Clone, Debug)]
pub struct Visitor {
    http: SocketAddr,
    https: SocketAddr,
    /// The source address to come from.
    from: Option<IpAddr>,
    trust: Trust,
    http2: bool,
    headers: Vec<(String, String)>,
}

#[derive(Clone, Debug)]
enum Trust {
    /// Only certificates below the one in this PEM file.
    File(PathBuf),
    Anything,
}

impl Visitor {
    /// Someone who visits these addresses, whatever the name in a URL, and trusts any certificate.
    pub fn of(http: SocketAddr, https: SocketAddr) -> Self {
        Self { http, https, from: None, trust: Trust::Anything, http2: false, headers: Vec::new() }
    }

    /// Trusts only what this PEM file vouches for; it is read at each connection.
    pub fn trusting(mut self, file: &Path) -> Self {
        self.trust = Trust::File(file.to_owned());
        self
    }

    /// Trusts any certificate.
    pub fn insecure(mut self) -> Self {
        self.trust = Trust::Anything;
        self
    }

    /// Speaks HTTP/2: by ALPN over TLS, with prior knowledge without.
    pub fn http2(mut self) -> Self {
        self.http2 = true;
        self
    }

    /// Comes from this address of the loopback, say 127.0.0.2.
    pub fn from(mut self, address: IpAddr) -> Self {
        self.from = Some(address);
        self
    }

    /// Sends this header with each request.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sends this name and password with each request.
    pub fn basic(self, user: &str, password: &str) -> Self {
        let credentials = base64(format!("{user}:{password}").as_bytes());
        self.header("authorization", &format!("Basic {credentials}"))
    }
}

/// RFC 4648 section 4.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let number =
            (0..3).fold(0_usize, |number, at| number << 8 | usize::from(*group.get(at).unwrap_or(&0)));
        for at in 0..4 {
            let digit = DIGITS.get(number >> (18 - 6 * at) & 63).copied().map_or('=', char::from);
            text.push(if at <= group.len() { digit } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn base64_is_that_of_the_rfc() {
        let texts = ["", "f", "fo", "foo", "foob", "fooba", "foobar"];
        let coded = texts.map(|text| super::base64(text.as_bytes()));
        assert_eq!(coded, ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"]);
    }
}
