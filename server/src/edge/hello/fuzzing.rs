//! What holds for any bytes that a connection to the https port begins with.

#![expect(clippy::expect_used, reason = "a broken promise fails the fuzzer or the test")]

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

use super::{HELLO_LIMIT, Opening, READ, first_byte, read};

/// Bytes that come in pieces of one size.
struct Pieces<'a> {
    bytes: &'a [u8],
    size: usize,
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let count = self.size.min(self.bytes.len()).min(buf.remaining());
        let (piece, rest) = self.bytes.split_at(count);
        buf.put_slice(piece);
        self.bytes = rest;
        Poll::Ready(Ok(()))
    }
}

/// The first byte says in what pieces the others come. Who is there does not depend on that, nothing beyond the limit is
/// kept, and whoever takes over reads the very bytes.
pub(crate) fn hello(data: &[u8]) {
    let Some((size, bytes)) = data.split_first().filter(|(_, bytes)| !bytes.is_empty()) else { return };
    let clock = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let whole = clock.block_on(open(bytes, READ));
    let pieces = clock.block_on(open(bytes, usize::from(*size) + 1));
    assert_eq!(whole, pieces, "the pieces decide who is there");
    if let Some(Opening::Tls(Some(name))) = &whole {
        assert!(name.is_ascii() && !name.bytes().any(|byte| byte.is_ascii_uppercase()), "{name:?}");
    }
    // What a guess from the first bytes does with them.
    let mut acceptor = Acceptor::default();
    if acceptor.read_tls(&mut &*bytes).is_ok()
        && let Ok(Some(accepted)) = acceptor.accept()
    {
        let _ = accepted.client_hello().server_name();
    }
}

async fn open(bytes: &[u8], size: usize) -> Option<Opening> {
    let mut begun = first_byte(Pieces { bytes, size }, std::time::Duration::from_secs(10))
        .await
        .expect("there is a byte");
    let opening = read(&mut begun).await;
    assert!(begun.head.len() <= HELLO_LIMIT, "{} bytes are kept", begun.head.len());
    let mut replayed = Vec::new();
    begun.read_to_end(&mut replayed).await.expect("bytes in memory");
    assert_eq!(replayed, bytes, "who takes over reads something else");
    opening.ok()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    #[test]
    fn the_hellos_of_real_clients_and_what_fuzzers_have_found_are_read() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/hello");
        let mut count = 0;
        for file in std::fs::read_dir(folder).unwrap() {
            super::hello(&std::fs::read(file.unwrap().path()).unwrap());
            count += 1;
        }
        assert!(count >= 14, "{count} files are not the corpus");
    }
}
