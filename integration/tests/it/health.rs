//! What a load balancer and a container's supervisor are told.

use hithe_integration::{Origin, TestServer, Visitor};

fn listening(options: hithe_integration::server::Options) -> hithe_integration::server::Options {
    options.arg("--health-listen").arg("127.0.0.1:0")
}

#[tokio::test]
async fn the_server_says_how_it_is_until_the_end_of_its_drain() {
    let (origin, feed) = Origin::fed().await;
    let mut server = TestServer::with(listening).await;
    let asker = Visitor::of(server.health_address(), server.health_address());
    let nobody = asker.get("http://health/readyz").await;
    assert_eq!((nobody.status(), nobody.json()["sessions"].as_u64()), (200, Some(0)));

    let ssh = server.ssh().forward_to("app:443", &origin).forward_to("app:80", &origin).command("http");
    let mut ssh = ssh.publish().await;
    let ready = asker.get("http://health/readyz").await;
    let told = ready.json();
    assert_eq!(ready.status(), 200);
    assert_eq!((told["status"].as_str(), told["sessions"].as_u64()), (Some("ready"), Some(1)));
    assert_eq!(told["endpoints"], 2);
    assert!(told["version"].as_str().unwrap().contains('.'));
    assert_eq!(server.health(&[]), (Some(0), "ok\n".to_owned()));
    assert_eq!(server.health(&["--ready"]).0, Some(0));

    assert!(feed.send("first").await);
    let mut stream = server.visitor().open("http://app.localhost/").await;
    stream.next_text().await;
    server.sigterm();
    ssh.wait_for_text("shutting down").await;
    let draining = asker.get("http://health/readyz").await;
    assert_eq!((draining.status(), draining.json()["status"].as_str()), (503, Some("draining")));
    assert_eq!(asker.get("http://health/healthz").await.text(), "ok\n");
    assert_eq!((server.health(&[]).0, server.health(&["--ready"]).0), (Some(0), Some(1)));
    drop(feed);
    while stream.next().await.is_some() {}
    drop(stream);
    assert!(server.wait().await.success());
    assert_eq!(server.health(&[]), (Some(1), String::new()));
}

#[tokio::test]
async fn a_client_that_keeps_asking_does_not_keep_the_server_from_its_end() {
    let mut server = TestServer::with(listening).await;
    let _silent = server.visitor().dial(server.health_address()).await;
    let asker = Visitor::of(server.health_address(), server.health_address());
    let mut kept = asker.connection("http://health/").await;
    assert_eq!(kept.get("http://health/healthz").await.status(), 200);
    server.sigterm();
    assert!(server.wait().await.success());
}
