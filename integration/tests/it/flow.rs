//! Clients of ours pause one channel and not the whole session, and are paused.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hithe_integration::payload::{Checker, payload};
use hithe_integration::protocol::{Flow, Opening, read_until};
use hithe_integration::{
    Download, Face, Guest, Origin, ProtocolClient, TestServer, Traffic, eventually, within,
};
use russh::client::Msg;
use russh::{Channel, ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Sig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;

const BIG: u64 = 200 << 20;
const MAX_MEMORY_KIB: u64 = 100 << 10;
/// As much as one message of SSH carries.
const PACKET: usize = 32 << 10;

/// How a client answers a request to pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    Pauses,
    GoesOn,
}

/// A client of ours in miniature, before an upstream that gives and takes what it is asked to.
struct Stage {
    server: TestServer,
    guest: Guest,
    traffic: Traffic,
    /// Of each channel as it is opened.
    flows: mpsc::UnboundedReceiver<Flow>,
    _origin: Origin,
    _session: Channel<Msg>,
    _serving: JoinSet<()>,
}

impl Stage {
    async fn of(face: Face, manner: Manner) -> Self {
        let server = TestServer::start().await;
        let mut client = ours(&server).await;
        let port = *server.tcp_ports().start();
        let (origin, traffic, guest, session) = match face {
            Face::Tcp => {
                let (origin, traffic) = Origin::tcp_payload().await;
                let session = publish_port(&client, port).await;
                (origin, traffic, Guest::of_port(server.visitor(), port), session)
            }
            _ => {
                let (origin, traffic) = Origin::payload().await;
                let url = if face == Face::Http { "http://app.localhost" } else { "https://app.localhost" };
                client.forward("app", if face == Face::Http { 80 } else { 443 }).await.unwrap();
                let mut session = client.exec("http").await;
                read_until(&mut session, url).await;
                let visitor = server.visitor();
                let visitor = if face == Face::Http2 { visitor.http2() } else { visitor };
                (origin, traffic, Guest::of_url(visitor, url), session)
            }
        };
        let target = origin.address();
        let (told, flows) = mpsc::unbounded_channel();
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut visits = JoinSet::new();
            loop {
                let Some(opening) = client.next_opening().await else { return };
                let flow = client.flow(&opening);
                let _ = told.send(flow.clone());
                visits.spawn(carry(opening, flow, target, manner));
            }
        });
        Self { server, guest, traffic, flows, _origin: origin, _session: session, _serving: serving }
    }

    /// A download on a channel of its own, and what the server asks of that.
    async fn download(&mut self, length: u64) -> (Download, Flow) {
        let download = self.guest.download(length).await;
        (download, within("a channel", self.flows.recv()).await.unwrap())
    }

    /// Visitors beside one that is slow come and go.
    async fn others_are_served(&self) {
        for _ in 0..8 {
            self.guest.connect().await.ask().await;
        }
        self.guest.download(16 << 20).await.finish().await;
        self.guest.upload(8 << 20).await;
    }
}

async fn ours(server: &TestServer) -> ProtocolClient {
    ProtocolClient::log_in_as_ours(server.ssh_address(), "v2", &server.user_key()).await
}

async fn stock(server: &TestServer) -> ProtocolClient {
    ProtocolClient::log_in(server.ssh_address(), "v2", &server.user_key()).await
}

async fn publish_port(client: &ProtocolClient, port: u16) -> Channel<Msg> {
    client.forward("localhost", u32::from(port)).await.unwrap();
    let mut session = client.exec("tcp").await;
    read_until(&mut session, "Forwarding").await;
    session
}

/// One visit, from its channel to the upstream and back.
async fn carry(opening: Opening, flow: Flow, target: SocketAddr, manner: Manner) {
    let (giving, taking) = TcpStream::connect(target).await.expect("the upstream").into_split();
    let (from_server, to_server) = opening.accept_channel().await.split();
    let heard_end = Notify::new();
    tokio::select! {
        () = carry_up(from_server, taking, &heard_end) => {}
        () = async {
            carry_down(giving, &to_server, flow, manner).await;
            heard_end.notified().await;
        } => {}
    }
    let _ = to_server.close().await;
}

async fn carry_down(mut from: OwnedReadHalf, to: &ChannelWriteHalf<Msg>, mut flow: Flow, manner: Manner) {
    while manner == Manner::GoesOn || flow.is_open().await {
        let mut piece = Vec::with_capacity(PACKET);
        match from.read_buf(&mut piece).await {
            Ok(count) if count > 0 && to.data_bytes(piece).await.is_ok() => {}
            _ => break,
        }
    }
    let _ = to.eof().await;
}

/// Until the channel is closed.
async fn carry_up(mut from: ChannelReadHalf, mut to: OwnedWriteHalf, heard_end: &Notify) {
    while let Some(message) = from.wait().await {
        match message {
            ChannelMsg::Data { data } if to.write_all(&data).await.is_err() => return,
            ChannelMsg::Eof => {
                let _ = to.shutdown().await;
                heard_end.notify_one();
            }
            _ => {}
        }
    }
}

/// Takes so much that the client may go on, and no more.
async fn take_until_it_goes_on(download: &mut Download, flow: &Flow) {
    while flow.asked().last() == Some(&false) {
        download.next().await.expect("more").expect("a download that is not cut");
    }
}

async fn a_slow_visitor_of_a_client_that_pauses_needs_no_disk(face: Face) {
    let mut stage = Stage::of(face, Manner::Pauses).await;
    let (mut slow, mut flow) = stage.download(BIG).await;
    flow.paused().await;
    stage.others_are_served().await;
    for _ in 0..5 {
        flow.paused().await;
        assert_eq!(stage.server.spooled(), 0);
        take_until_it_goes_on(&mut slow, &flow).await;
    }
    slow.finish().await;
    assert_eq!(stage.server.spooled(), 0);
    let peak = stage.server.peak_rss_kib();
    assert!(peak < MAX_MEMORY_KIB, "{peak} KiB");
}

#[tokio::test]
async fn a_slow_visitor_of_a_client_that_pauses_needs_no_disk_over_http() {
    a_slow_visitor_of_a_client_that_pauses_needs_no_disk(Face::Http).await;
}

#[tokio::test]
async fn a_slow_visitor_of_a_client_that_pauses_needs_no_disk_over_http_2() {
    a_slow_visitor_of_a_client_that_pauses_needs_no_disk(Face::Http2).await;
}

#[tokio::test]
async fn a_slow_visitor_of_a_client_that_pauses_needs_no_disk_over_tcp() {
    a_slow_visitor_of_a_client_that_pauses_needs_no_disk(Face::Tcp).await;
}

#[tokio::test]
async fn many_slow_visitors_of_a_client_that_pauses_take_little_memory() {
    let mut stage = Stage::of(Face::Tcp, Manner::Pauses).await;
    let mut slow = Vec::new();
    for _ in 0..40 {
        slow.push(stage.download(BIG).await);
    }
    for (_, flow) in &mut slow {
        flow.paused().await;
    }
    stage.others_are_served().await;
    let peak = stage.server.peak_rss_kib();
    assert!(peak < MAX_MEMORY_KIB, "{peak} KiB");
    drop(slow);
    eventually("nothing is spooled", || (stage.server.spooled() == 0).then_some(())).await;
}

#[tokio::test]
async fn a_client_that_goes_on_although_it_is_told_to_pause_gets_the_spool() {
    let mut stage = Stage::of(Face::Tcp, Manner::GoesOn).await;
    let (slow, mut flow) = stage.download(BIG).await;
    flow.paused().await;
    stage.traffic.given(BIG).await;
    eventually("most of it is spooled", || (stage.server.spooled() > BIG / 2).then_some(())).await;
    stage.others_are_served().await;
    assert_eq!(flow.asked().last(), Some(&false), "it is not told again");
    slow.finish().await;
    let peak = stage.server.peak_rss_kib();
    assert!(peak < MAX_MEMORY_KIB, "{peak} KiB");
}

#[tokio::test]
async fn a_stock_client_is_never_told_to_pause() {
    const MUCH: u64 = 32 << 20;
    let server = TestServer::start().await;
    let port = *server.tcp_ports().start();
    let mut client = stock(&server).await;
    let _session = publish_port(&client, port).await;
    let mut visitor = server.visitor().tcp(port).await;
    let (_reader, channel) = client.opening().await.accept_channel().await.split();
    for piece in payload(0, MUCH) {
        within("room for a packet", channel.data_bytes(piece)).await.unwrap();
    }
    eventually("it is spooled", || (server.spooled() > MUCH / 4).then_some(())).await;
    channel.eof().await.unwrap();
    assert_eq!(whole(&mut visitor).await.unwrap(), MUCH);
    assert_eq!(client.regulated(), 0);
}

/// Reads to the end; how much it was, all of it as it was sent.
async fn whole(visitor: &mut TcpStream) -> std::io::Result<u64> {
    let mut checker = Checker::default();
    let mut buffer = vec![0; 64 << 10];
    loop {
        match within("the next bytes", visitor.read(&mut buffer)).await? {
            0 => return Ok(checker.seen()),
            count => checker.take(buffer.get(..count).unwrap_or_default()),
        }
    }
}

/// A visit whose client does what the test says.
struct Visit {
    server: TestServer,
    port: u16,
    client: ProtocolClient,
    visitor: TcpStream,
    reader: ChannelReadHalf,
    channel: ChannelWriteHalf<Msg>,
    flow: Flow,
    session: Channel<Msg>,
}

impl Visit {
    async fn begin() -> Self {
        let server = TestServer::start().await;
        let client = ours(&server).await;
        Self::with(server, client).await
    }

    async fn with(server: TestServer, mut client: ProtocolClient) -> Self {
        let port = *server.tcp_ports().start();
        let session = publish_port(&client, port).await;
        let visitor = server.visitor().tcp(port).await;
        let opening = client.opening().await;
        let flow = client.flow(&opening);
        let (reader, channel) = opening.accept_channel().await.split();
        Self { server, port, client, visitor, reader, channel, flow, session }
    }

    /// A download that the server has told the client to pause; how much was sent.
    async fn paused_download() -> (Self, u64) {
        let mut visit = Self::begin().await;
        let mut pieces = payload(0, BIG);
        let mut sent = 0;
        // The first times the sockets still take what waits.
        while !visit.stays_paused().await {
            let piece = pieces.next().expect("a client that is told to pause");
            sent += piece.len() as u64;
            within("room for a packet", visit.channel.data_bytes(piece)).await.unwrap();
        }
        (visit, sent)
    }

    async fn stays_paused(&mut self) -> bool {
        for _ in 0..3 {
            if self.flow.asked().last() != Some(&false) {
                return false;
            }
            another_is_served(&self.server, self.port, &mut self.client).await;
        }
        true
    }

    /// Ends the endpoint and its visits, as Ctrl-C does.
    async fn withdraw(&self) {
        self.session.signal(Sig::INT).await.unwrap();
    }
}

/// A visit comes and goes, and with it whatever was under way between client and server before it.
async fn another_is_served(server: &TestServer, port: u16, client: &mut ProtocolClient) {
    let mut visitor = server.visitor().tcp(port).await;
    let mut channel = client.opening().await.accept().await;
    let mut heard = [0; 5];
    visitor.write_all(b"hello").await.unwrap();
    within("the visitor's words", channel.read_exact(&mut heard)).await.unwrap();
    channel.write_all(&heard).await.unwrap();
    within("the answer", visitor.read_exact(&mut heard)).await.unwrap();
    assert_eq!(&heard, b"hello");
}

#[tokio::test]
async fn a_client_that_ends_a_paused_download_has_all_delivered_that_it_sent() {
    let (mut visit, sent) = Visit::paused_download().await;
    let asked = visit.flow.asked();
    visit.channel.eof().await.unwrap();
    visit.channel.close().await.unwrap();
    assert_eq!(whole(&mut visit.visitor).await.unwrap(), sent);
    another_is_served(&visit.server, visit.port, &mut visit.client).await;
    assert_eq!(visit.flow.asked(), asked, "nothing more is asked of it");
}

#[tokio::test]
async fn a_visitor_who_leaves_a_paused_download_leaves_nothing_behind() {
    let (mut visit, _) = Visit::paused_download().await;
    let asked = visit.flow.asked().len();
    drop(visit.visitor);
    // What the client still has is thrown away, so that it comes to its end by itself.
    assert!(within("leave to go on", visit.flow.is_open()).await);
    until_end(&mut visit.reader).await;
    visit.channel.data_bytes("late").await.unwrap();
    visit.channel.close().await.unwrap();
    another_is_served(&visit.server, visit.port, &mut visit.client).await;
    assert_eq!((visit.flow.asked().len(), visit.server.spooled()), (asked + 1, 0));
}

async fn until_end(reader: &mut ChannelReadHalf) {
    let end = |message: &ChannelMsg| matches!(message, ChannelMsg::Eof | ChannelMsg::Close);
    within("the end of the channel", async {
        while reader.wait().await.is_some_and(|message| !end(&message)) {}
    })
    .await;
}

#[tokio::test]
async fn an_endpoint_that_is_withdrawn_ends_its_paused_downloads() {
    let (mut visit, sent) = Visit::paused_download().await;
    visit.withdraw().await;
    let end = whole(&mut visit.visitor).await;
    assert!(end.as_ref().map_or(true, |taken| *taken < sent), "{end:?} of {sent}");
    until_end(&mut visit.reader).await;
    assert_eq!(visit.server.spooled(), 0);
}

const UPLOAD: u64 = 64 << 20;

/// An upload that the client has paused.
struct PausedUpload {
    server: TestServer,
    port: u16,
    client: ProtocolClient,
    channel: ChannelWriteHalf<Msg>,
    upload: JoinSet<std::io::Result<()>>,
    /// Until the end of the channel; whether that was an orderly one.
    reading: JoinSet<bool>,
    taken: Arc<AtomicU64>,
    session: Channel<Msg>,
}

impl PausedUpload {
    async fn begin() -> Self {
        let visit = Visit::begin().await;
        Self::of(visit).await
    }

    async fn of(visit: Visit) -> Self {
        let Visit { server, port, client, mut visitor, reader, channel, session, .. } = visit;
        let taken = Arc::<AtomicU64>::default();
        let (mut upload, mut reading) = (JoinSet::new(), JoinSet::new());
        reading.spawn(take_all(reader, Arc::clone(&taken)));
        upload.spawn(async move {
            for piece in payload(0, UPLOAD) {
                visitor.write_all(&piece).await?;
            }
            visitor.shutdown().await
        });
        let begun = || (taken.load(Ordering::SeqCst) > UPLOAD / 64).then_some(());
        eventually("the upload begins", begun).await;
        signal(&channel, "XOFF@hithe").await;
        Self { server, port, client, channel, upload, reading, taken, session }
    }

    async fn others_are_served(&mut self, many: usize) {
        for _ in 0..many {
            another_is_served(&self.server, self.port, &mut self.client).await;
        }
    }

    /// Nothing comes, however much goes back and forth beside it.
    async fn comes_to_rest(&mut self) {
        self.others_are_served(3).await;
        let before = self.taken.load(Ordering::SeqCst);
        self.others_are_served(50).await;
        let after = self.taken.load(Ordering::SeqCst);
        assert_eq!(after, before, "bytes that came");
        assert!(self.upload.try_join_next().is_none() && after < UPLOAD / 2, "{after} bytes came in all");
    }
}

/// What the only task of a set gives.
async fn joined<T: 'static>(what: &str, mut set: JoinSet<T>) -> T {
    within(what, set.join_next()).await.unwrap().unwrap()
}

async fn signal(channel: &ChannelWriteHalf<Msg>, name: &str) {
    channel.signal(Sig::Custom(name.to_owned())).await.unwrap();
}

async fn take_all(mut reader: ChannelReadHalf, taken: Arc<AtomicU64>) -> bool {
    let mut checker = Checker::default();
    while let Some(message) = reader.wait().await {
        match message {
            ChannelMsg::Data { data } => {
                checker.take(&data);
                taken.store(checker.seen(), Ordering::SeqCst);
            }
            ChannelMsg::Eof => return true,
            _ => {}
        }
    }
    false
}

#[tokio::test]
async fn a_paused_upload_waits_and_goes_on() {
    let mut paused = PausedUpload::begin().await;
    paused.comes_to_rest().await;
    signal(&paused.channel, "XON@hithe").await;
    joined("the upload", paused.upload).await.unwrap();
    assert!(joined("its end", paused.reading).await);
    assert_eq!(paused.taken.load(Ordering::SeqCst), UPLOAD);
}

#[tokio::test]
async fn a_client_may_pause_and_go_on_as_often_as_it_likes() {
    let mut paused = PausedUpload::begin().await;
    for _ in 0..500 {
        signal(&paused.channel, "XON@hithe").await;
        signal(&paused.channel, "XOFF@hithe").await;
    }
    paused.others_are_served(1).await;
    signal(&paused.channel, "XON@hithe").await;
    joined("the upload", paused.upload).await.unwrap();
    assert!(joined("its end", paused.reading).await);
    assert_eq!(paused.taken.load(Ordering::SeqCst), UPLOAD);
}

#[tokio::test]
async fn a_stock_client_cannot_pause_an_upload() {
    let server = TestServer::start().await;
    let client = stock(&server).await;
    let paused = PausedUpload::of(Visit::with(server, client).await).await;
    joined("the upload", paused.upload).await.unwrap();
    assert!(joined("its end", paused.reading).await);
    assert_eq!(paused.taken.load(Ordering::SeqCst), UPLOAD);
}

#[tokio::test]
async fn a_client_that_closes_a_paused_upload_ends_it() {
    let mut paused = PausedUpload::begin().await;
    paused.comes_to_rest().await;
    paused.channel.close().await.unwrap();
    assert!(joined("the end of the upload", paused.upload).await.is_err());
    another_is_served(&paused.server, paused.port, &mut paused.client).await;
}

#[tokio::test]
async fn what_a_visitor_sent_before_it_left_a_paused_upload_still_comes() {
    let mut paused = PausedUpload::begin().await;
    paused.comes_to_rest().await;
    paused.upload.shutdown().await;
    paused.others_are_served(3).await;
    signal(&paused.channel, "XON@hithe").await;
    assert!(joined("its end", paused.reading).await);
    assert!(paused.taken.load(Ordering::SeqCst) < UPLOAD);
}

#[tokio::test]
async fn an_endpoint_that_is_withdrawn_ends_its_paused_uploads() {
    let mut paused = PausedUpload::begin().await;
    paused.comes_to_rest().await;
    paused.session.signal(Sig::INT).await.unwrap();
    assert!(joined("the end of the upload", paused.upload).await.is_err());
    joined("the end of the channel", paused.reading).await;
}
