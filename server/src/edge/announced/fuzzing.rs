//! What holds for any bytes that a connection from a trusted proxy begins with.

#![expect(clippy::expect_used, reason = "a broken promise fails the fuzzer or the test")]

use super::{LIMIT, Step, Whose, read, step};

/// A header is read to its last byte and no further, within the bound, and more bytes change nothing of what it says.
pub(crate) fn proxy_header(data: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let mut left = data;
    let whose = runtime.block_on(read(&mut left)).ok();
    let used = data.len() - left.len();
    assert!(used <= LIMIT, "{used} bytes are read");
    let Some(whose) = whose else { return };
    let header = data.get(..used).expect("what was read");
    assert_eq!(
        step(header).expect("it was read once"),
        Step::Whole(whose),
        "read again it says something else"
    );
    if let Whose::Visitor { from, to } = whose {
        let is_plain = |address: std::net::SocketAddr| address.ip() == address.ip().to_canonical();
        assert!(is_plain(from) && is_plain(to), "{from} or {to} is IPv4 inside IPv6");
    }
    for cut in 0..used {
        let part = header.get(..cut).expect("a part of it");
        assert!(!matches!(step(part), Ok(Step::Whole(_))), "{cut} bytes of {used} are a header too");
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    #[test]
    fn the_headers_of_real_proxies_and_what_fuzzers_have_found_are_read() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/proxy_header");
        let mut count = 0;
        for file in std::fs::read_dir(folder).unwrap() {
            super::proxy_header(&std::fs::read(file.unwrap().path()).unwrap());
            count += 1;
        }
        assert!(count >= 10, "{count} files are not the corpus");
    }
}
