//! SSH and HTTPS on one port.

use hithe_integration::{Origin, Program, TestServer, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test]
async fn publishers_and_visitors_come_to_the_same_port() {
    let server = TestServer::with(|options| options.one_port()).await;
    assert_eq!(server.ssh_address(), server.https_address());
    let origin = Origin::replying("hello").await;
    let _tunnel = server.ssh().forward_to("app:443", &origin).command("http").publish().await;
    for visitor in [server.visitor(), server.visitor().http2()] {
        assert_eq!(visitor.get("https://app.localhost/").await.text(), "hello");
    }
    for program in [Program::Dbclient, Program::Plink] {
        let client = server.client(program).forward_to("other:443", &origin).command("http");
        let mut client = client.publish().await;
        assert_eq!(server.visitor().get("https://other.localhost/").await.text(), "hello");
        client.kill().await;
    }
}

#[tokio::test]
async fn who_says_nothing_is_taken_for_ssh_and_plain_http_for_a_mistake() {
    let server = TestServer::with(|options| options.one_port()).await;
    let mut silent = TcpStream::connect(server.ssh_address()).await.unwrap();
    let mut version = [0; 15];
    within("the version line", silent.read_exact(&mut version)).await.unwrap();
    assert_eq!(&version, b"SSH-2.0-hithed_");
    let mut plain = TcpStream::connect(server.https_address()).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut heard = String::new();
    within("an answer", plain.read_to_string(&mut heard)).await.unwrap();
    assert!(heard.contains("ERR_HITHE_3002"), "{heard}");
}

#[tokio::test]
async fn an_orderly_end_takes_both_along() {
    let mut server = TestServer::with(|options| options.one_port()).await;
    let origin = Origin::replying("hello").await;
    let mut tunnel = server.ssh().forward_to("app:443", &origin).command("http").publish().await;
    let _undecided = TcpStream::connect(server.https_address()).await.unwrap();
    server.sigterm();
    assert!(server.wait().await.success());
    tunnel.wait().await;
    assert!(TcpStream::connect(server.https_address()).await.is_err());
}
