//! One look of a visitor: is anybody there?

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Between two looks; short, since the time to the first answer is measured with them.
pub(in crate::dev::bench) const LOOK: Duration = Duration::from_millis(2);

/// How long one look may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// Whether this host answers a request with 200.
pub(in crate::dev::bench) async fn answers(port: u16, host: &str) -> bool {
    matches!(timeout(PATIENCE, status_line(port, host)).await, Ok(Ok(head)) if head.starts_with(b"HTTP/1.1 200"))
}

async fn status_line(port: u16, host: &str) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.write_all(request("GET", host).as_bytes()).await?;
    let mut head = vec![0; 64];
    let count = stream.read(&mut head).await?;
    head.truncate(count);
    Ok(head)
}

/// The head of a request without a body.
pub(super) fn request(method: &str, host: &str) -> String {
    format!("{method} / HTTP/1.1\r\nhost: {host}\r\n\r\n")
}
