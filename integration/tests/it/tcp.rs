//! `tcp` endpoints: bytes as they are.

use hithe_integration::{Origin, TestServer, closed};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test]
async fn half_close_is_kept_in_both_directions() {
    let server = TestServer::start().await;
    let origin = Origin::counting_bytes().await;
    let mut ssh = server.ssh().forward_to("0", &origin).command("tcp").publish().await;
    let port = ssh.forwarding().await.remove(0).port().unwrap();
    let mut stream = server.visitor().tcp(port).await;
    stream.write_all(&[7; 100_000]).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut counted = String::new();
    stream.read_to_string(&mut counted).await.unwrap();
    assert!(counted.contains("100000"), "{counted}");
}

#[tokio::test]
async fn bytes_are_echoed_over_many_connections() {
    let server = TestServer::start().await;
    let origin = Origin::tcp_echo().await;
    let mut ssh = server.ssh().forward_to("0", &origin).command("tcp").publish().await;
    let port = ssh.forwarding().await.remove(0).port().unwrap();
    // Not 4 or 5: what begins like SOCKS and is answered like SOCKS is cut.
    for n in 100..150_u8 {
        let mut stream = server.visitor().tcp(port).await;
        stream.write_all(&[n; 10]).await.unwrap();
        let mut echo = [0; 10];
        stream.read_exact(&mut echo).await.unwrap();
        assert_eq!(echo, [n; 10]);
    }
    ssh.wait_for_text("10 B in, 10 B out").await;
}

#[tokio::test]
async fn a_forward_that_turns_out_to_be_a_socks_server_is_withdrawn() {
    let server = TestServer::start().await;
    let port = *server.tcp_ports().start();
    let mut ssh = server.ssh().forward(port.to_string()).command("tcp").publish().await;
    let mut stream = server.visitor().tcp(port).await;
    stream.write_all(b"\x05\x01\x00").await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(answer.is_empty(), "{answer:?}");
    ssh.wait_for_text("SOCKS").await;
    closed(([127, 0, 0, 1], port).into()).await;
    // Whoever publishes there next is reached.
    ssh.kill().await;
    let origin = Origin::greeting("hello\n").await;
    let _next = server.ssh().forward_to(&port.to_string(), &origin).command("tcp").publish().await;
    let mut greeting = [0; 6];
    server.visitor().tcp(port).await.read_exact(&mut greeting).await.unwrap();
    assert_eq!(&greeting, b"hello\n");
}

#[tokio::test]
async fn an_upload_to_an_upstream_that_hangs_up_ends() {
    let server = TestServer::start().await;
    let origin = Origin::closing_at_once().await;
    let mut ssh = server.ssh().forward_to("0", &origin).command("tcp").publish().await;
    let port = ssh.forwarding().await.remove(0).port().unwrap();
    let mut stream = server.visitor().tcp(port).await;
    let upload = async { while stream.write_all(&[0; 65536]).await.is_ok() {} };
    tokio::time::timeout(std::time::Duration::from_secs(10), upload).await.expect("the upload ends");
}
