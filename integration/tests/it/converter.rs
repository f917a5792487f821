//! WebSockets of browsers, and plain TCP behind the tunnel.

use futures_util::{SinkExt, StreamExt};
use hithe_integration::{Origin, TestServer, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

const COMMAND: &str = "http --websocket-tcp-converter";
const URL: &str = "wss://app.localhost/";

async fn published(origin: &Origin, command: &str) -> (TestServer, hithe_integration::Child) {
    let server = TestServer::start().await;
    let ssh = server.ssh().forward_to("app:443", origin).command(command).publish().await;
    (server, ssh)
}

#[tokio::test]
async fn binary_messages_are_bytes_and_bytes_are_binary_messages() {
    let origin = Origin::tcp_echo().await;
    let (server, mut ssh) = published(&origin, COMMAND).await;
    let mut socket = server.visitor().websocket(URL).await;
    for sent in ["hello", "", "and more"] {
        socket.send(Message::binary(sent.as_bytes().to_vec())).await.unwrap();
    }
    socket.send(Message::Ping("are you there".into())).await.unwrap();
    let (mut heard, mut ponged) = (Vec::new(), false);
    while heard.len() < 13 || !ponged {
        match within("a message", socket.next()).await.unwrap().unwrap() {
            Message::Binary(data) => heard.extend_from_slice(&data),
            Message::Pong(data) => ponged = data == "are you there",
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(heard, b"helloand more");
    socket.close(None).await.unwrap();
    while let Some(Ok(_)) = within("the close", socket.next()).await {}
    ssh.wait_for_text("101").await;
}

#[tokio::test]
async fn much_passes_both_ways_at_once() {
    let origin = Origin::tcp_echo().await;
    let (server, _ssh) = published(&origin, COMMAND).await;
    let (mut sink, mut stream) = server.visitor().websocket(URL).await.split();
    let bytes: Vec<u8> = (0..8_000_000_u32).map(|number| (number * 31 % 251) as u8).collect();
    let send = async {
        for (index, chunk) in bytes.chunks(300_001).enumerate() {
            sink.send(Message::binary(chunk.to_vec())).await.unwrap();
            if index % 5 == 0 {
                sink.send(Message::Ping("p".into())).await.unwrap();
            }
        }
    };
    let receive = async {
        let mut heard = Vec::new();
        while heard.len() < bytes.len() {
            if let Message::Binary(data) = within("a message", stream.next()).await.unwrap().unwrap() {
                heard.extend_from_slice(&data);
            }
        }
        heard
    };
    let ((), heard) = tokio::join!(send, receive);
    assert!(heard == bytes);
}

async fn close_code(
    socket: &mut (impl StreamExt<Item = Result<Message, tokio_tungstenite::tungstenite::Error>> + Unpin),
) -> Option<CloseCode> {
    loop {
        match within("the close", socket.next()).await? {
            Ok(Message::Close(frame)) => return frame.map(|frame| frame.code),
            Ok(_) => {}
            Err(_) => return None,
        }
    }
}

#[tokio::test]
async fn the_end_says_how_it_came() {
    let greeting = Origin::serving(|mut stream, _| async move {
        let _ = stream.write_all(b"bye").await;
    })
    .await;
    let (server, _ssh) = published(&greeting, COMMAND).await;
    let mut socket = server.visitor().websocket(URL).await;
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::binary(b"bye".to_vec()));
    assert_eq!(close_code(&mut socket).await, Some(CloseCode::Normal));

    let echo = Origin::tcp_echo().await;
    let (server, mut ssh) = published(&echo, COMMAND).await;
    let mut socket = server.visitor().websocket(URL).await;
    socket.send(Message::text("words")).await.unwrap();
    assert_eq!(close_code(&mut socket).await, Some(CloseCode::Unsupported));
    let mut socket = server.visitor().websocket(URL).await;
    socket.send(Message::binary(b"x".to_vec())).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::binary(b"x".to_vec()));
    ssh.kill().await;
    assert_eq!(close_code(&mut socket).await, Some(CloseCode::Error));
}

#[tokio::test]
async fn a_visitor_that_closes_ends_the_upstreams_connection() {
    let (told, mut heard) = tokio::sync::mpsc::channel(1);
    let origin = Origin::serving(move |mut stream, _| {
        let told = told.clone();
        async move {
            let mut all = Vec::new();
            let _ = stream.read_to_end(&mut all).await;
            let _ = told.send(all).await;
            // It does not close its side by itself.
            std::future::pending::<()>().await;
        }
    })
    .await;
    let (server, _ssh) = published(&origin, COMMAND).await;
    let mut socket = server.visitor().websocket(URL).await;
    socket.send(Message::binary(b"all of it".to_vec())).await.unwrap();
    socket.close(None).await.unwrap();
    assert_eq!(within("the end", heard.recv()).await.unwrap(), b"all of it");
    while let Some(Ok(_)) = within("the close", socket.next()).await {}
}

#[tokio::test]
async fn what_is_no_websocket_and_who_may_not_come_is_told_before_the_handshake() {
    let origin = Origin::tcp_echo().await;
    let (server, _ssh) =
        published(&origin, "http --websocket-tcp-converter --basic-auth ada:correct-horse").await;
    let visitor = server.visitor().basic("ada", "correct-horse");
    let plain = visitor.get("https://app.localhost/").await;
    assert_eq!((plain.status(), plain.code()), (400, Some("ERR_HITHE_3206")));
    assert_eq!(
        plain.header("sec-websocket-version"),
        Some("13"),
        "what a client of another version has to know"
    );
    let multiplexed =
        server.visitor().http2().basic("ada", "correct-horse").get("https://app.localhost/").await;
    assert_eq!(multiplexed.status(), 400);
    let handshake = "GET / HTTP/1.1\r\nHost: app.localhost\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\n\
                     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
    let answer = server.visitor().raw_tls("app.localhost", handshake).await;
    assert!(answer.starts_with(b"HTTP/1.1 401"), "{}", String::from_utf8_lossy(&answer));
    assert_eq!(origin.connections(), 0);
    let absent = Origin::absent().await;
    let (server, _ssh) = published(&absent, COMMAND).await;
    let answer = server.visitor().raw_tls("app.localhost", handshake).await;
    assert!(answer.starts_with(b"HTTP/1.1 502"), "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test]
async fn a_forward_that_is_a_socks_server_is_not_opened_to_websockets_either() {
    let server = TestServer::start().await;
    let mut ssh = server.ssh().forward("app:443").command(COMMAND).publish().await;
    let mut socket = server.visitor().websocket(URL).await;
    socket.send(Message::binary(vec![5, 1, 0])).await.unwrap();
    let mut heard = Vec::new();
    while let Some(Ok(message)) = within("the end", socket.next()).await {
        if let Message::Binary(data) = message {
            heard.extend_from_slice(&data);
        }
    }
    assert!(heard.is_empty(), "{heard:?}");
    assert!(ssh.is_running());
}
