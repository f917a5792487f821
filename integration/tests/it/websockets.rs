//! WebSockets as seen by Autobahn's test suite: what it sees at an echo server it sees through a tunnel.

use std::io::Write;

use hithe_integration::autobahn::{Outcome, Seen, websockets_echo};
use hithe_integration::{Autobahn, Origin, TestServer};

/// Runs the cases at the server at this port and through a tunnel, which has to make no difference.
async fn compare(port: u16, command: &str, cases: Autobahn, together: usize, minutes: u32) -> Seen {
    let server = TestServer::start().await;
    let ssh = server.ssh().forward(format!("plain:80:127.0.0.1:{port}"));
    let ssh = ssh.forward(format!("app:443:127.0.0.1:{port}")).command(command);
    let _ssh = ssh.publish().await;
    let cases = cases.at(port).through(&server, "ws://plain.localhost/");
    let started = tokio::time::Instant::now();
    let seen = cases.through(&server, "wss://app.localhost/").run(together, minutes).await;
    let [direct, plain, tls] = <[Seen; 3]>::try_from(seen).unwrap();
    let passed = |seen: &Seen| seen.values().filter(|outcome| outcome.passed()).count();
    let [ran, at, ws, wss] = [direct.len(), passed(&direct), passed(&plain), passed(&tls)];
    let took = started.elapsed();
    let _ = writeln!(
        std::io::stderr(),
        "{ran} cases: {at} pass at the server, {ws} by ws, {wss} by wss ({took:?})"
    );
    for (way, seen) in [("ws", &plain), ("wss", &tls)] {
        assert_eq!(seen.len(), direct.len());
        let other =
            direct.iter().filter(|(case, at)| !seen.get(*case).is_some_and(|through| through.like(at)));
        let other: Vec<_> = other.map(|(case, at)| (case, at, seen.get(case))).collect();
        assert!(other.is_empty(), "by {way} it is not as at the server: {other:#?}");
    }
    direct
}

/// Framing, pings, reserved bits, opcodes, fragmentation, UTF-8, closing, automatic fragmentation.
const RULES: [&str; 8] = ["1", "2", "3", "4", "5", "6", "7", "10"];

#[tokio::test]
async fn autobahns_cases_see_an_echo_server_in_rust_through_a_tunnel_as_it_is() {
    let origin = Origin::websocket_echo().await;
    let seen = compare(origin.port(), "http", Autobahn::cases(RULES), 32, 5).await;
    assert_eq!(seen.len(), 247);
}

#[tokio::test]
async fn autobahns_cases_see_an_echo_server_in_python_through_a_tunnel_as_it_is() {
    let (_python, port) = websockets_echo().await;
    let seen = compare(port, "http", Autobahn::cases(RULES), 32, 5).await;
    assert!(seen.len() == 247 && seen.values().all(Outcome::passed));
}

/// It is about responses, and leaves alone what follows a 101.
const COMPRESSION: &str = "http --compression";

#[tokio::test]
async fn big_messages_and_compressed_ones_pass_as_they_are() {
    let (_python, port) = websockets_echo().await;
    let big = ["9.1", "9.2.6", "9.3.4", "9.4.8", "9.5.6", "9.6.3"];
    let deflate = ["12.2.5", "13.1.1", "13.3.1", "13.5.1", "13.7.1"];
    let seen = compare(port, COMPRESSION, Autobahn::cases(big.into_iter().chain(deflate)), 4, 5).await;
    for (case, outcome) in seen {
        assert!(outcome.passed() && outcome.applied(), "{case}: {outcome:?}");
    }
}

#[tokio::test]
#[ignore = "takes some minutes"]
async fn all_of_autobahns_limits_are_the_same_through_a_tunnel() {
    let origin = Origin::websocket_echo().await;
    let (_python, port) = websockets_echo().await;
    for port in [origin.port(), port] {
        let seen = compare(port, COMPRESSION, Autobahn::cases(["9"]), 4, 30).await;
        assert!(seen.len() == 54 && seen.values().all(Outcome::passed));
    }
}

#[tokio::test]
#[ignore = "takes up to an hour: each of the 216 cases sends 1000 messages three times"]
async fn all_of_autobahns_compressed_messages_pass_as_they_are() {
    let (_python, port) = websockets_echo().await;
    let seen = compare(port, COMPRESSION, Autobahn::cases(["12", "13"]), 4, 120).await;
    assert!(seen.len() == 216 && seen.values().all(|outcome| outcome.passed() && outcome.applied()));
}
