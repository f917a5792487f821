//! The agent's inspector: its page in a real browser, its API as tools for ngrok's local API use it.

use hithe_integration::visitor::Visitor;
use hithe_integration::{Child, Origin, TestServer, eventually, within};
use hyper::Method;
use serde_json::{Value, json};

/// An agent with a web service, and the address of its inspector.
async fn inspected(server: &TestServer, origin: &Origin) -> (Child, String) {
    let agent = server.agent().command("http", origin).words("--domain app --web-addr 127.0.0.1:0");
    let mut agent = agent.publish().await;
    let line = agent.wait_for_text("Inspector").await;
    let address = line.split_whitespace().last().expect("an address").to_owned();
    (agent, address)
}

async fn curl(arguments: &[&str]) -> (u16, String) {
    let all = ["-s", "--noproxy", "*", "-w", "\n%{http_code}"];
    let output = tokio::process::Command::new("curl").args(all).args(arguments).output().await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (body, status) = text.rsplit_once('\n').unwrap();
    (status.parse().unwrap(), body.to_owned())
}

async fn get(url: &str) -> Value {
    let (status, body) = curl(&[url]).await;
    assert_eq!(status, 200, "{url}: {body}");
    serde_json::from_str(&body).unwrap()
}

const JSON: &str = "content-type: application/json";

async fn requests(web: &str) -> Vec<Value> {
    let answer = get(&format!("{web}/api/requests/http")).await;
    answer.get("requests").and_then(Value::as_array).expect("a list").clone()
}

#[tokio::test]
async fn what_passes_is_listed_with_its_bytes_and_can_be_replayed() {
    let server = TestServer::start().await;
    let origin = Origin::echoing_requests().await;
    let (_agent, web) = inspected(&server, &origin).await;
    let reply = server
        .visitor()
        .header("x-mark", "one")
        .send(Method::POST, "https://app.localhost/path?q=1", "a body")
        .await;
    assert_eq!(reply.status(), 200);
    let all = eventually_listed(&web, 1).await;
    let (request, response) = (&all[0]["request"], &all[0]["response"]);
    assert_eq!((&request["method"], &request["uri"]), (&json!("POST"), &json!("/path?q=1")));
    assert_eq!(
        request["headers"]["x-mark"].as_array().or(request["headers"]["X-Mark"].as_array()).unwrap()[0],
        "one"
    );
    assert_eq!(response["status_code"], 200);
    assert_eq!(all[0]["tunnel_name"], "command_line");
    assert!(all[0]["duration"].as_u64().unwrap() > 0);

    let before = origin.requests();
    let replay = json!({ "id": all[0]["id"] }).to_string();
    let (status, body) =
        curl(&["-X", "POST", "-H", JSON, "-d", &replay, &format!("{web}/api/requests/http")]).await;
    assert_eq!(status, 204, "{body}");
    assert_eq!(eventually_listed(&web, 2).await.len(), 2);
    assert_eq!(origin.requests(), before + 1);
    let (status, _) = curl(&["-X", "DELETE", &format!("{web}/api/requests/http")]).await;
    assert_eq!(status, 204);
    assert!(requests(&web).await.is_empty());
}

async fn eventually_listed(web: &str, count: usize) -> Vec<Value> {
    within("the requests are listed", async {
        loop {
            let all = requests(web).await;
            let answered = |it: &Value| it.get("response").is_some_and(|response| !response.is_null());
            if all.len() >= count && all.iter().all(answered) {
                return all;
            }
        }
    })
    .await
}

#[tokio::test]
async fn endpoints_come_and_go_over_the_api() {
    let server = TestServer::start().await;
    let origin = Origin::replying("hello").await;
    let (_agent, web) = inspected(&server, &origin).await;
    let second = json!({ "name": "second", "proto": "http", "addr": origin.address().to_string(), "domain": "second" });
    let (status, body) =
        curl(&["-X", "POST", "-H", JSON, "-d", &second.to_string(), &format!("{web}/api/tunnels")]).await;
    assert_eq!(status, 201, "{body}");
    let made: Value = serde_json::from_str(&body).unwrap();
    assert!(made["public_url"].as_str().unwrap().starts_with("https://second.localhost"), "{made}");
    assert_eq!(server.visitor().get("https://second.localhost/").await.text(), "hello");
    assert_eq!(get(&format!("{web}/api/tunnels")).await["tunnels"].as_array().unwrap().len(), 2);
    let (status, _) = curl(&["-X", "DELETE", &format!("{web}/api/tunnels/second")]).await;
    assert_eq!(status, 204);
    let code = server.visitor().get_until_offline("https://second.localhost/").await;
    assert_eq!(code.as_deref(), Some("ERR_HITHE_3200"));
    let wrong = json!({ "name": "third", "proto": "http", "addr": "80", "basic_aut": ["a:b"] }).to_string();
    let (status, body) = curl(&["-X", "POST", "-H", JSON, "-d", &wrong, &format!("{web}/api/tunnels")]).await;
    assert_eq!(status, 400);
    assert!(body.contains("basic_auth"), "{body}");
}

#[tokio::test]
async fn whatever_the_api_refuses_is_an_error_in_its_own_form() {
    let server = TestServer::start().await;
    let origin = Origin::replying("hello").await;
    let (_agent, web) = inspected(&server, &origin).await;
    let large = server.folder().join("large");
    std::fs::write(&large, vec![b'x'; 13 << 20]).unwrap();
    let large = format!("@{}", large.display());
    let (tunnels, broken) = (format!("{web}/api/tunnels"), format!("{web}/api/tunnels/%ff"));
    for (arguments, expected) in [
        (vec!["-X", "POST", "-H", JSON, "--data-binary", &large, &tunnels], 413),
        (vec!["-X", "PUT", "-H", JSON, "-d", "{}", &tunnels], 405),
        (vec![broken.as_str()], 400),
        (vec!["-X", "POST", "-H", JSON, "-d", "{", &tunnels], 400),
    ] {
        let (status, body) = curl(&arguments).await;
        assert_eq!(status, expected, "{body}");
        let error: Value = serde_json::from_str(&body).unwrap_or_else(|_| panic!("{body}"));
        assert_eq!(error["status_code"], expected);
        assert!(error["error_code"].is_u64() && error["details"].is_object(), "{error}");
        assert!(error["msg"].as_str().is_some_and(|text| !text.is_empty()), "{error}");
    }
}

#[tokio::test]
async fn other_sites_and_other_names_get_nothing() {
    let server = TestServer::start().await;
    let origin = Origin::replying("hello").await;
    let (_agent, web) = inspected(&server, &origin).await;
    let tunnels = format!("{web}/api/tunnels");
    assert_eq!(curl(&["-H", "host: evil.example", &tunnels]).await.0, 403);
    let requests = format!("{web}/api/requests/http");
    let form = ["-X", "POST", "-H", "content-type: text/plain", "-d", "{}", requests.as_str()];
    assert!((400..500).contains(&curl(&form).await.0));
    let foreign =
        ["-X", "POST", "-H", JSON, "-H", "origin: https://evil.example", "-d", "{}", requests.as_str()];
    assert_eq!(curl(&foreign).await.0, 403);
    assert_eq!(curl(&["-X", "DELETE", "-H", "origin: https://evil.example", &requests]).await.0, 403);
}

#[tokio::test]
async fn a_person_watches_requests_and_replays_one_in_the_browser() {
    let server = TestServer::start().await;
    let origin = Origin::echoing_requests().await;
    let (_agent, web) = inspected(&server, &origin).await;
    let at: std::net::SocketAddr = web.trim_start_matches("http://").parse().unwrap();
    let mut page = Visitor::of(at, at).browse(&format!("{web}/")).await;
    page.sees("document.querySelector('#live.on') !== null").await;
    server.visitor().get("https://app.localhost/first?q=1").await;
    let text = page.sees("document.querySelector('.row .path')?.textContent").await;
    assert!(text.as_str().unwrap().starts_with("/first"), "{text}");
    page.sees("(document.querySelector('.row').click(), true)").await;
    let press = |key: &str| {
        format!(
            "(document.body.dispatchEvent(new KeyboardEvent('keydown', {{ key: '{key}', bubbles: true }})), true)"
        )
    };
    let before = origin.requests();
    page.sees(&press("r")).await;
    page.sees("document.querySelectorAll('.row').length == 2").await;
    eventually("the upstream is asked again", || (origin.requests() == before + 1).then_some(())).await;
}
