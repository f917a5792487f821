//! Channels against a client of SSH in the same process.

use russh::keys::{Algorithm, PrivateKey, PublicKeyOrCertificate};
use russh::{client, server};
use tokio::sync::mpsc;
use tokio::task::yield_now;

use super::round_trip::MAX_WINDOW;
use super::*;
use crate::drain::Drain;

/// Lets anybody in.
struct Anybody(Arc<Inboxes>);

impl server::Handler for Anybody {
    type Error = russh::Error;

    async fn auth_none(&mut self, _: &str) -> Result<server::Auth, Self::Error> {
        Ok(server::Auth::Accept)
    }

    async fn channel_close(
        &mut self,
        channel: ChannelId,
        _: &mut server::Session,
    ) -> Result<(), Self::Error> {
        self.0.arrived(channel);
        Ok(())
    }
}

/// Accepts whatever the server opens.
struct Accepting(mpsc::UnboundedSender<Channel<client::Msg>>);

impl client::Handler for Accepting {
    type Error = russh::Error;

    async fn check_server_key(&mut self, _: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        Ok(true)
    }

    async fn server_channel_open_forwarded_tcpip(
        &mut self,
        channel: Channel<client::Msg>,
        _: &str,
        _: u32,
        _: &str,
        _: u32,
        reply: client::ChannelOpenHandle,
        _: &mut client::Session,
    ) -> Result<(), Self::Error> {
        reply.accept().await;
        let _ = self.0.send(channel);
        Ok(())
    }
}

/// A session with one forward.
struct Bench {
    dialer: ChannelDialer,
    accepted: mpsc::UnboundedReceiver<Channel<client::Msg>>,
    _client: client::Handle<Accepting>,
    _folder: tempfile::TempDir,
}

impl Bench {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let inboxes = Arc::<Inboxes>::default();
        let key = PrivateKey::random(&mut russh::keys::key::safe_rng(), Algorithm::Ed25519).unwrap();
        let config = server::Config { keys: vec![key], ..Default::default() };
        let (near, far) = tokio::io::duplex(1 << 20);
        let session = server::run_stream(Arc::new(config), near, Anybody(Arc::clone(&inboxes)));
        let (told, accepted) = mpsc::unbounded_channel();
        let client = client::connect_stream(Arc::default(), far, Accepting(told));
        let (session, client) = tokio::join!(session, client);
        let (session, mut client) = (session.unwrap(), client.unwrap());
        let tasks = Drain::new().1;
        let handle = session.handle();
        tasks.spawn(async move {
            let _ = session.await;
        });
        assert!(client.authenticate_none("v2").await.unwrap().success());
        let dialer = ChannelDialer {
            handle,
            asked: Bind { address: "app".to_owned(), port: 80 },
            opens: Arc::new(Semaphore::new(MAX_OPENS)),
            tasks,
            cut: CancellationToken::new(),
            inboxes,
            spool: Spool::open(folder.path(), Some(64 << 20)).unwrap(),
            publisher: "SHA256:n4bQgYhMfWWaL+qgxVrQFaO/TxsrC4Is0V1sFbDwCgg".parse().unwrap(),
            usage: Usage::unlimited(),
        };
        Self { dialer, accepted, _client: client, _folder: folder }
    }
}

#[tokio::test]
async fn a_channel_for_a_visitor_who_has_just_left_is_closed() {
    let mut bench = Bench::new().await;
    let permit = bench.dialer.permit().await.unwrap();
    let opened = bench.dialer.open(Visitor::new(([192, 0, 2, 7], 4000).into(), None), permit);
    let until_closed = async {
        let mut channel = bench.accepted.recv().await.unwrap();
        // The visitor leaves when the channel is there, and before anybody has taken it.
        while opened.is_empty() {
            yield_now().await;
        }
        drop(opened);
        while channel.wait().await.is_some_and(|message| !matches!(message, ChannelMsg::Eof)) {}
        channel.close().await.unwrap();
        while !bench.dialer.inboxes.lock().inboxes.is_empty() {
            yield_now().await;
        }
    };
    timeout(Duration::from_secs(20), until_closed).await.expect("the channel is closed");
}

#[test]
fn the_window_grows_with_the_round_trip() {
    let inboxes = Inboxes::default();
    assert_eq!(inboxes.window(), MIN_WINDOW);
    inboxes.note_round_trip(Duration::from_millis(50));
    assert_eq!(inboxes.window() >> 20, 31);
    inboxes.note_round_trip(Duration::from_micros(300));
    assert_eq!(inboxes.window(), MIN_WINDOW);
    let far = Inboxes::default();
    far.note_round_trip(Duration::from_secs(1));
    assert_eq!(far.window(), MAX_WINDOW);
}
