//! Visits over HTTP: requests, uploads, events, WebSockets, and those that are refused.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::{SinkExt, StreamExt};
use http::Method;
use tokio::io::AsyncWriteExt;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::Message;

use super::super::stage::{PASSWORD, USER};
use super::super::upstream::{PLACE, VISIT};
use super::{Stretch, Trouble, Visit};
use crate::payload::{Checker, payload};
use crate::visitor::Connection;
use crate::{Reply, Visitor};

/// What a slow reader takes at a time, and then it rests.
const SIP: u64 = 64 << 10;
/// Messages that wait for their acknowledgement at most.
const UNACKNOWLEDGED: u64 = 4;
/// How long an acknowledgement may take.
const PATIENCE: Duration = Duration::from_secs(20);

impl Visit {
    fn visitor(&mut self) -> Visitor {
        let visitor = self.stage.server.visitor();
        if self.place.guarded { visitor.basic(USER, PASSWORD) } else { visitor }
    }

    /// HTTP/1.1 or HTTP/2.
    fn visitor_at(&mut self, address: &str) -> Visitor {
        let visitor = self.visitor();
        let multiplexed = address.starts_with("https:") && self.rng.u8(..3) == 0;
        if multiplexed { visitor.http2() } else { visitor }
    }

    pub(super) async fn get(&mut self) -> Result<(), Trouble> {
        let address = self.address()?;
        let mut connection = self.visitor_at(&address).connection(&address).await;
        self.request(&mut connection, &address).await
    }

    async fn request(&mut self, connection: &mut Connection, address: &str) -> Result<(), Trouble> {
        let stretch = self.stretch();
        let chunked = if self.rng.bool() { "?chunked" } else { "" };
        let url = format!("{address}/bytes/{}/{}/{}{chunked}", stretch.visit, stretch.from, stretch.length);
        let reply = connection.try_send(Method::GET, &url, "").await.map_err(Trouble::failed)?;
        self.is_ours(&reply, stretch)?;
        stretch.is(reply.body())
    }

    fn is_ours(&self, reply: &Reply, stretch: Stretch) -> Result<(), Trouble> {
        if reply.status() != 200 {
            let code = reply.code().unwrap_or("without a code");
            return Err(Trouble::Failed(format!("{} {code}", reply.status())));
        }
        self.is_from_here(reply.header(PLACE), reply.header(VISIT), stretch.visit)
    }

    fn is_from_here(&self, place: Option<&str>, visit: Option<&str>, expected: u64) -> Result<(), Trouble> {
        let ours = (self.place.number.to_string(), expected.to_string());
        if (place, visit) == (Some(ours.0.as_str()), Some(ours.1.as_str())) {
            return Ok(());
        }
        Err(Trouble::Wrong(format!("the answer of place {place:?} to visit {visit:?} came to {ours:?}")))
    }

    pub(super) async fn kept(&mut self) -> Result<(), Trouble> {
        let address = self.address()?;
        let mut connection = self.visitor_at(&address).connection(&address).await;
        for _ in 0..self.rng.u8(2..12) {
            self.request(&mut connection, &address).await?;
            sleep(Duration::from_millis(self.rng.u64(..400))).await;
        }
        Ok(())
    }

    pub(super) async fn side_by_side(&mut self) -> Result<(), Trouble> {
        let address = self.address()?;
        if address.starts_with("http:") {
            return self.kept().await; // there is no HTTP/2 without TLS
        }
        let connection = self.visitor().http2().connection(&address).await;
        for _ in 0..self.rng.u8(1..4) {
            let streams = (0..self.rng.u8(2..8)).filter_map(|_| connection.another_stream());
            let mut visits: Vec<_> = streams.map(|stream| (self.another(), stream)).collect();
            let all = visits.iter_mut().map(|(visit, stream)| visit.request(stream, &address));
            join_all(all).await.into_iter().collect::<Result<(), _>>()?;
        }
        Ok(())
    }

    /// Another request of the same visitor.
    fn another(&mut self) -> Self {
        Self { stage: self.stage.clone(), place: self.place.clone(), rng: self.rng.fork() }
    }

    pub(super) async fn upload(&mut self) -> Result<(), Trouble> {
        let address = self.address()?;
        let mut connection = self.visitor_at(&address).connection(&address).await;
        let stretch = self.stretch();
        let url = format!("{address}/take/{}/{}/{}", stretch.visit, stretch.from, stretch.length);
        let sent = connection.post_stretch(&url, stretch.from..stretch.end());
        let reply = sent.await.map_err(Trouble::failed)?;
        self.is_ours(&reply, stretch)?;
        let expected = format!("{} whole", stretch.length);
        match reply.text() {
            said if said == expected => Ok(()),
            said => Err(Trouble::Wrong(format!("an upload was answered 200, and {said:?} arrived"))),
        }
    }

    pub(super) async fn events(&mut self) -> Result<(), Trouble> {
        let address = self.address()?;
        let visitor = self.visitor_at(&address);
        let (visit, count, pause) = (self.stretch().visit, self.rng.u64(1..30), self.rng.u64(1..400));
        let mut answer = visitor.open(&format!("{address}/events/{visit}/{count}/{pause}")).await;
        if answer.status() != 200 {
            return Err(Trouble::failed(answer.status()));
        }
        self.is_from_here(answer.header(PLACE), answer.header(VISIT), visit)?;
        let mut heard = Vec::new();
        while let Some(piece) = answer.next().await {
            heard.extend_from_slice(&piece.map_err(Trouble::failed)?);
        }
        let expected: String = (0..count).map(|number| format!("data: {visit} {number}\n\n")).collect();
        if heard == expected.as_bytes() {
            return Ok(());
        }
        let heard = String::from_utf8_lossy(&heard);
        Err(Trouble::Wrong(format!("of {count} events of visit {visit} came {heard:?}, and an orderly end")))
    }

    /// Sends messages ahead of their acknowledgements, which have to come one for each, in order.
    pub(super) async fn talk(&mut self) -> Result<(), Trouble> {
        let address = self.address()?;
        let visit = self.stretch().visit;
        let mut socket = self.visitor().websocket(&format!("{address}/talk/{visit}")).await;
        let (mut at, mut ends) = (0, Vec::new());
        let count = self.rng.u64(1..60);
        for number in 0..count + UNACKNOWLEDGED {
            if number < count {
                let end = at + self.rng.u64(..20_000);
                let message: Vec<u8> = payload(at, end).flatten().collect();
                socket.send(Message::binary(message)).await.map_err(Trouble::failed)?;
                ends.push(end);
                at = end;
                sleep(Duration::from_millis(self.rng.u64(..200))).await;
            }
            let Some(acknowledged) = number.checked_sub(UNACKNOWLEDGED - 1) else { continue };
            let Some(end) = usize::try_from(acknowledged).ok().and_then(|at| ends.get(at)) else { break };
            let heard = timeout(PATIENCE, socket.next()).await.map_err(Trouble::failed)?;
            let heard = heard.ok_or_else(|| Trouble::failed("the WebSocket ended"))?;
            match heard.map_err(Trouble::failed)? {
                Message::Text(text) if text.as_str() == format!("{visit} {acknowledged} {end}") => {}
                Message::Close(_) => return Err(Trouble::failed("the WebSocket was closed")),
                other => return Err(Trouble::Wrong(format!("instead of message {acknowledged}: {other:?}"))),
            }
        }
        socket.close(None).await.map_err(Trouble::failed)
    }

    pub(super) async fn read_slowly(&mut self) -> Result<(), Trouble> {
        let address = self.address()?;
        let visitor = self.visitor_at(&address);
        let stretch = self.stretch_up_to(12 << 20);
        let url = format!("{address}/bytes/{}/{}/{}", stretch.visit, stretch.from, stretch.length);
        let mut answer = visitor.open(&url).await;
        if answer.status() != 200 {
            return Err(Trouble::failed(answer.status()));
        }
        self.is_from_here(answer.header(PLACE), answer.header(VISIT), stretch.visit)?;
        let mut checker = Checker::starting_at(stretch.from);
        let mut sip = SIP;
        let rest = Duration::from_millis(self.rng.u64(1..120));
        while let Some(piece) = answer.next().await {
            let piece: Bytes = piece.map_err(Trouble::failed)?;
            checker.check(&piece).map_err(Trouble::Wrong)?;
            sip = sip.saturating_sub(piece.len() as u64);
            if sip == 0 {
                sleep(rest).await;
                sip = SIP;
            }
        }
        stretch.ends(&checker)
    }

    /// A password that is wrong, or none: 401 and nothing else.
    pub(super) async fn guess(&mut self) -> Result<(), Trouble> {
        let address = self.address()?;
        let visitor = self.stage.server.visitor();
        let visitor = match self.rng.u8(..3) {
            0 => visitor,
            1 => visitor.basic(USER, "wrong-horse"),
            _ => visitor.basic("eve", PASSWORD),
        };
        let reply = visitor.get(&format!("{address}/bytes/0/0/10")).await;
        match (reply.status(), reply.code()) {
            (401, Some("ERR_HITHE_3250")) => Ok(()),
            (200, _) => Err(Trouble::Wrong("was let in without the password".to_owned())),
            (status, code) => Err(Trouble::Failed(format!("{status} {}", code.unwrap_or("without a code")))),
        }
    }

    /// A name that nobody has.
    pub(super) async fn miss(&mut self) -> Result<(), Trouble> {
        let scheme = if self.rng.bool() { "http" } else { "https" };
        let url = format!("{scheme}://nobody-{}.localhost/", self.rng.u16(..));
        let reply = self.stage.server.visitor().get(&url).await;
        match (reply.status(), reply.code()) {
            (404, Some("ERR_HITHE_3200")) => Ok(()),
            (status, code) => Err(Trouble::Wrong(format!("{status} {code:?} at {url}"))),
        }
    }

    /// Connects, says half of something or nothing, and goes.
    pub(super) async fn say_little(&mut self) -> Result<(), Trouble> {
        let visitor = self.stage.server.visitor();
        let server = &self.stage.server;
        let address = if self.rng.bool() { server.http_address() } else { server.https_address() };
        let mut stream = visitor.dial(address).await;
        let hello: Vec<u8> = match self.rng.u8(..4) {
            0 => Vec::new(),
            1 => format!("GET / HTTP/1.1\r\nHost: {}\r\n", self.place.name).into_bytes(),
            2 => vec![0x16, 0x03, 0x01, 0x02, 0x00, 0x01],
            _ => (0..self.rng.usize(1..500)).map(|_| self.rng.u8(..)).collect(),
        };
        let _ = stream.write_all(&hello).await; // the server may well have closed
        sleep(Duration::from_millis(self.rng.u64(..500))).await;
        Ok(())
    }
}
