//! What a proxy says of a connection before its first byte: versions 1 and 2 of haproxy's PROXY protocol, as
//! `proxy-protocol.txt` of haproxy describes them.
//!
//! A header is read to its last byte and no further, so that whoever reads next finds the visitor's own first byte.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::{AsyncRead, AsyncReadExt};

/// With all its extensions (TLVs), which are skipped.
const LIMIT: usize = 4096;

/// The longest line of version 1 (section 2.1), with its end.
const LIMIT_V1: usize = 107;

/// What version 2 begins with (section 2.2). No protocol that is meant to be read as text does.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// Signature, version and command, family and transport, and the length of the rest.
const FIXED: usize = 16;

/// Whose connection it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// The proxy's own, say to look whether the server is there (`LOCAL`).
    Proxy,
    /// Somebody's whose address the proxy does not know or cannot say (`UNKNOWN`, a unix socket).
    Unknown,
    /// A visitor's: from where, and to which address of the proxy.
    Visitor { from: SocketAddr, to: SocketAddr },
}

/// How far the bytes of a header get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// At least so many more belong to it.
    More(usize),
    Whole(Whose),
}

/// Why a connection does not begin with a header.
#[derive(Debug, thiserror::Error)]
pub(super) enum HeaderError {
    #[error("it ended within its PROXY header")]
    Left(#[from] io::Error),
    #[error("it does not begin with a PROXY header: does the proxy send one?")]
    NoHeader,
    #[error("its PROXY header is malformed")]
    Malformed,
    #[error("its PROXY header is longer than 4 KiB")]
    TooLong,
}

/// Reads a header. The caller bounds the time.
pub(super) async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Whose, HeaderError> {
    let mut header = Vec::with_capacity(LIMIT_V1);
    loop {
        match step(&header)? {
            Step::Whole(whose) => return Ok(whose),
            Step::More(count) => {
                let begun = header.len();
                header.resize(begun + count, 0);
                stream.read_exact(header.get_mut(begun..).unwrap_or_default()).await?;
            }
        }
    }
}

fn step(header: &[u8]) -> Result<Step, HeaderError> {
    if let Some(missing) = SIGNATURE.len().checked_sub(header.len()).filter(|missing| *missing > 0) {
        return Ok(Step::More(missing));
    }
    if header.starts_with(&SIGNATURE) {
        version_2(header)
    } else if header.starts_with(b"PROXY ") {
        version_1(header)
    } else {
        Err(HeaderError::NoHeader)
    }
}

fn version_1(header: &[u8]) -> Result<Step, HeaderError> {
    if let Some(line) = header.strip_suffix(b"\r\n") {
        return line_of_text(line).map(Step::Whole).ok_or(HeaderError::Malformed);
    }
    if header.ends_with(b"\n") || header.len() >= LIMIT_V1 {
        return Err(HeaderError::Malformed);
    }
    Ok(Step::More(if header.ends_with(b"\r") || header.len() + 1 == LIMIT_V1 { 1 } else { 2 }))
}

fn line_of_text(line: &[u8]) -> Option<Whose> {
    let line = std::str::from_utf8(line).ok().filter(|line| !line.contains(['\r', '\n']))?;
    let mut words = line.strip_prefix("PROXY ")?.split(' ');
    let family = words.next()?;
    if family == "UNKNOWN" {
        return Some(Whose::Unknown);
    }
    let mut address = || match family {
        "TCP4" => words.next()?.parse().ok().map(IpAddr::V4),
        "TCP6" => words.next()?.parse().ok().map(IpAddr::V6),
        _ => None,
    };
    let (from, to) = (address()?, address()?);
    let (from, to) = (socket(from, port(words.next()?)?), socket(to, port(words.next()?)?));
    words.next().is_none().then_some(Whose::Visitor { from, to })
}

/// In decimal, without a sign or zeros in front.
fn port(text: &str) -> Option<u16> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain)
}

fn version_2(header: &[u8]) -> Result<Step, HeaderError> {
    let Some((fixed, rest)) = header.split_first_chunk::<FIXED>() else {
        return Ok(Step::More(FIXED - header.len()));
    };
    let [.., version_and_command, family_and_transport, high, low] = *fixed;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if FIXED + length > LIMIT {
        return Err(HeaderError::TooLong);
    }
    let is_proxied = match version_and_command {
        0x20 => false,
        0x21 => true,
        _ => return Err(HeaderError::Malformed),
    };
    if let Some(missing) = length.checked_sub(rest.len()).filter(|missing| *missing > 0) {
        return Ok(Step::More(missing));
    }
    // The transport says nothing that the addresses depend on; the last valid one is that of datagrams.
    let (family, transport) = (family_and_transport >> 4, family_and_transport & 0xf);
    let whose = match family {
        _ if !is_proxied => Some(Whose::Proxy),
        _ if transport > 2 => None,
        0 | 3 => Some(Whose::Unknown),
        1 => addresses::<4, 12>(rest, |octets| Ipv4Addr::from(octets).into()),
        2 => addresses::<16, 36>(rest, |octets| Ipv6Addr::from(octets).into()),
        _ => None,
    };
    whose.map(Step::Whole).ok_or(HeaderError::Malformed)
}

/// Two addresses and two ports, `ALL` bytes of them. What follows are extensions.
fn addresses<const ONE: usize, const ALL: usize>(
    block: &[u8],
    address: impl Fn([u8; ONE]) -> IpAddr,
) -> Option<Whose> {
    let block = block.first_chunk::<ALL>()?;
    let (from, block) = block.split_first_chunk::<ONE>()?;
    let (to, block) = block.split_first_chunk::<ONE>()?;
    let [high, low, to_high, to_low] = *block.first_chunk::<4>()?;
    Some(Whose::Visitor {
        from: socket(address(*from), u16::from_be_bytes([high, low])),
        to: socket(address(*to), u16::from_be_bytes([to_high, to_low])),
    })
}

/// An IPv4 address mapped into IPv6 is an IPv4 address.
fn socket(address: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(address.to_canonical(), port)
}

/// What the fuzzer calls.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What is read of these bytes, and what is left for the next reader.
    fn read_all(bytes: &[u8]) -> (Result<Whose, String>, Vec<u8>) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut stream = bytes;
        let whose = runtime.block_on(read(&mut stream)).map_err(|error| error.to_string());
        (whose, stream.to_vec())
    }

    fn read_whole(bytes: &[u8]) -> Result<Whose, String> {
        let (whose, left) = read_all(&[bytes, b"GET /"].concat());
        assert!(whose.is_err() || left == b"GET /", "{left:?} is left");
        whose
    }

    fn visitor(from: &str, to: &str) -> Result<Whose, String> {
        Ok(Whose::Visitor { from: from.parse().unwrap(), to: to.parse().unwrap() })
    }

    fn binary(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
        let length = u16::try_from(block.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, block].concat()
    }

    const FOUR: [u8; 12] = [192, 0, 2, 7, 198, 51, 100, 1, 0x0f, 0xa0, 0x01, 0xbb];

    #[test]
    fn a_line_of_version_1_names_the_visitor() {
        assert_eq!(
            read_whole(b"PROXY TCP4 192.0.2.7 198.51.100.1 4000 443\r\n"),
            visitor("192.0.2.7:4000", "198.51.100.1:443")
        );
        assert_eq!(
            read_whole(b"PROXY TCP6 2001:db8::7 ::ffff:198.51.100.1 0 65535\r\n"),
            visitor("[2001:db8::7]:0", "198.51.100.1:65535")
        );
        let longest =
            format!("PROXY UNKNOWN {} {} 65535 65535\r\n", ["ffff"; 8].join(":"), ["ffff"; 8].join(":"));
        assert_eq!(longest.len(), LIMIT_V1);
        for unknown in ["PROXY UNKNOWN\r\n", "PROXY UNKNOWN what ever\r\n", &longest] {
            assert_eq!(read_whole(unknown.as_bytes()), Ok(Whose::Unknown));
        }
    }

    #[test]
    fn a_line_that_is_not_quite_one_is_refused() {
        for line in [
            "PROXY TCP4 192.0.2.7 198.51.100.1 4000\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 4000 443 1\r\n",
            "PROXY TCP4 192.0.2.7  198.51.100.1 4000 443\r\n",
            "PROXY TCP4 192.0.2.07 198.51.100.1 4000 443\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 +400 443\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 0400 443\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 4000 65536\r\n",
            "PROXY TCP4 2001:db8::7 2001:db8::1 4000 443\r\n",
            "PROXY TCP6 192.0.2.7 198.51.100.1 4000 443\r\n",
            "PROXY UDP4 192.0.2.7 198.51.100.1 4000 443\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 4000 443\n",
            "PROXY UNKNOWNS\r\n",
            "PROXY UNKNOWN\r\r\n",
            "proxy TCP4 192.0.2.7 198.51.100.1 4000 443\r\n",
            "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n",
            "SSH-2.0-OpenSSH_9.2\r\n",
        ] {
            assert!(read_whole(line.as_bytes()).is_err(), "{line:?}");
        }
        let endless = format!("PROXY UNKNOWN {}", "x".repeat(LIMIT));
        let (whose, left) = read_all(endless.as_bytes());
        assert!(whose.is_err());
        assert_eq!(endless.len() - left.len(), LIMIT_V1);
    }

    #[test]
    fn a_block_of_version_2_names_the_visitor_and_its_extensions_are_skipped() {
        let here = visitor("192.0.2.7:4000", "198.51.100.1:443");
        assert_eq!(read_whole(&binary(0x21, 0x11, &FOUR)), here);
        assert_eq!(read_whole(&binary(0x21, 0x11, &[&FOUR[..], &[4; 4000]].concat())), here);
        let mut six = [0; 36];
        six[..4].copy_from_slice(&[0x20, 1, 0xd, 0xb8]);
        six[15] = 7;
        six[31] = 1;
        six[33] = 9;
        assert_eq!(read_whole(&binary(0x21, 0x21, &six)), visitor("[2001:db8::7]:9", "[::1]:0"));
    }

    #[test]
    fn who_has_no_address_keeps_that_of_the_proxy() {
        assert_eq!(read_whole(&binary(0x20, 0x11, &FOUR)), Ok(Whose::Proxy));
        assert_eq!(read_whole(&binary(0x20, 0xff, &[])), Ok(Whose::Proxy));
        assert_eq!(read_whole(&binary(0x21, 0, &[])), Ok(Whose::Unknown));
        assert_eq!(read_whole(&binary(0x21, 0x31, &[b'x'; 216])), Ok(Whose::Unknown));
    }

    #[test]
    fn a_block_that_is_not_quite_one_is_refused() {
        for block in [
            binary(0x11, 0x11, &FOUR),
            binary(0x22, 0x11, &FOUR),
            binary(0x21, 0x13, &FOUR),
            binary(0x21, 0x41, &FOUR),
            binary(0x21, 0x11, &FOUR[..11]),
            binary(0x21, 0x21, &FOUR),
            binary(0x21, 0x11, &[0; LIMIT - FIXED + 1]),
        ] {
            assert!(read_whole(&block).is_err(), "{:?}", &block[12..]);
        }
    }

    proptest! {
        #[test]
        fn whoever_a_header_names_is_read_of_it(from: SocketAddr, to: SocketAddr, more: Vec<u8>) {
            let (from, to) = (socket(from.ip(), from.port()), socket(to.ip(), to.port()));
            let family = match (from.ip(), to.ip()) {
                (IpAddr::V4(_), IpAddr::V4(_)) => "TCP4",
                (IpAddr::V6(_), IpAddr::V6(_)) => "TCP6",
                _ => return Ok(()),
            };
            let line = format!("PROXY {family} {} {} {} {}\r\n", from.ip(), to.ip(), from.port(), to.port());
            let (whose, left) = read_all(&[line.as_bytes(), &more].concat());
            prop_assert_eq!(whose, Ok(Whose::Visitor { from, to }));
            prop_assert_eq!(left, more);
        }

        #[test]
        fn any_bytes_can_be_read(bytes: Vec<u8>, begin in 0..4_u8) {
            let begins: [&[u8]; 4] = [b"", b"PROXY TCP4 ", &SIGNATURE, b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0"];
            fuzzing::proxy_header(&[begins[usize::from(begin)], &bytes].concat());
        }
    }
}
