//! Visits to tls and tcp places, in the line protocol of the upstream.

use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream};
use tokio::time::{sleep, timeout};

use super::super::place::Speech;
use super::{Trouble, Visit};
use crate::payload::{Checker, payload};
use crate::visitor::Io;

/// How long a line, or more bytes, may take.
const PATIENCE: Duration = Duration::from_secs(20);

type Line = BufStream<Box<dyn Io>>;

impl Visit {
    pub(super) async fn converse(&mut self) -> Result<(), Trouble> {
        let visitor = self.stage.server.visitor();
        let stream: Box<dyn Io> = match self.place.speech {
            Speech::Tls => {
                let tls = visitor.insecure().try_tls(self.place.name, &[]).await;
                Box::new(tls.map_err(Trouble::failed)?)
            }
            _ => {
                let port = self.place.port().ok_or_else(|| Trouble::failed("nobody was there yet"))?;
                let address = (self.stage.server.http_address().ip(), port).into();
                Box::new(visitor.try_dial(address).await.map_err(Trouble::failed)?)
            }
        };
        let mut line = BufStream::new(stream);
        for _ in 0..self.rng.u8(1..6) {
            if self.rng.bool() {
                self.take(&mut line).await?
            } else {
                self.give(&mut line).await?
            }
            sleep(Duration::from_millis(self.rng.u64(..300))).await;
        }
        let mut rest = Vec::new();
        line.shutdown().await.map_err(Trouble::failed)?;
        within(line.read_to_end(&mut rest)).await?;
        if rest.is_empty() { Ok(()) } else { Err(Trouble::Wrong(format!("{} bytes too many", rest.len()))) }
    }

    async fn take(&mut self, line: &mut Line) -> Result<(), Trouble> {
        let stretch = self.stretch();
        self.say(line, &format!("GET {} {} {}\n", stretch.visit, stretch.from, stretch.length)).await?;
        self.hear(line, &format!("{} {}\n", self.place.number, stretch.visit)).await?;
        let mut checker = Checker::starting_at(stretch.from);
        let mut left = usize::try_from(stretch.length).unwrap_or(usize::MAX);
        while left > 0 {
            let bytes = within(line.fill_buf()).await?;
            let count = bytes.len().min(left);
            if count == 0 {
                return Err(Trouble::failed("the connection ended in the middle"));
            }
            checker.check(bytes.get(..count).unwrap_or_default()).map_err(Trouble::Wrong)?;
            line.consume(count);
            left -= count;
        }
        Ok(())
    }

    async fn give(&mut self, line: &mut Line) -> Result<(), Trouble> {
        let stretch = self.stretch();
        self.say(line, &format!("PUT {} {} {}\n", stretch.visit, stretch.from, stretch.length)).await?;
        for piece in payload(stretch.from, stretch.end()) {
            within(line.write_all(&piece)).await?;
        }
        within(line.flush()).await?;
        self.hear(line, &format!("{} {} {}\n", self.place.number, stretch.visit, stretch.length)).await
    }

    async fn say(&self, line: &mut Line, words: &str) -> Result<(), Trouble> {
        within(line.write_all(words.as_bytes())).await?;
        within(line.flush()).await
    }

    async fn hear(&self, line: &mut Line, expected: &str) -> Result<(), Trouble> {
        let mut heard = Vec::new();
        within(line.take(expected.len() as u64).read_until(b'\n', &mut heard)).await?;
        match heard {
            heard if heard == expected.as_bytes() => Ok(()),
            heard if expected.as_bytes().starts_with(&heard) => {
                Err(Trouble::failed("the connection ended before an answer"))
            }
            // Where nobody publishes, Hithe ends TLS by itself and tells a browser why; this is no browser.
            heard if heard.starts_with(b"HTTP") => Err(Trouble::failed("an answer of Hithe's own")),
            heard => {
                let heard = String::from_utf8_lossy(&heard).into_owned();
                Err(Trouble::Wrong(format!("heard {heard:?} instead of {expected:?}")))
            }
        }
    }
}

async fn within<T>(step: impl Future<Output = std::io::Result<T>>) -> Result<T, Trouble> {
    timeout(PATIENCE, step).await.map_err(Trouble::failed)?.map_err(Trouble::failed)
}
