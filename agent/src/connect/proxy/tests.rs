//! Proxies that run in the test.

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;

use super::*;

const LIMIT: Duration = Duration::from_secs(5);

#[test]
fn proxies_are_named_by_urls() {
    let shown = |url: &str| Proxy::parse(url).unwrap().to_string();
    assert_eq!(shown("proxy:3128"), "http://proxy:3128");
    assert_eq!(shown("HTTP://proxy/"), "http://proxy:80");
    assert_eq!(shown("https://[::1]"), "https://[::1]:443");
    assert_eq!(shown("socks5h://a:b@proxy"), "socks5h://proxy:1080");
    let with_login = Proxy::parse("http://a%40b:p%3Aw%25@proxy:1").unwrap();
    let encoded = BASE64_STANDARD.encode("a@b:p:w%");
    assert!(with_login.request("host", 22).contains(&format!("Proxy-Authorization: Basic {encoded}\r\n")));
}

#[test]
fn a_password_is_never_shown() {
    let proxy = Proxy::parse("http://ada:secret@proxy:1").unwrap();
    assert!(!format!("{proxy} {proxy:?}").contains("secret"));
    let error = Proxy::parse("ftp://ada:secret@proxy").unwrap_err();
    assert!(!format!("{error} {error:?}").contains("secret"));
}

#[test]
fn what_is_no_proxy_is_refused() {
    for url in [
        "",
        "http://",
        "ftp://proxy",
        "http://proxy:",
        "http://proxy:70000",
        "http://a%zz@proxy",
        "http://a b",
    ] {
        assert!(Proxy::parse(url).is_err(), "{url}");
    }
}

/// A proxy that takes one connection, reads the head of a request and answers.
async fn proxy_that_answers(answer: &'static [u8]) -> (Proxy, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://ada:pw@{}", listener.local_addr().unwrap());
    #[expect(clippy::disallowed_methods, reason = "the test waits for it")]
    let task = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = BufReader::new(stream);
        let head = read_head(&mut stream).await.unwrap();
        stream.write_all(answer).await.unwrap();
        String::from_utf8(head).unwrap()
    });
    (Proxy::parse(&url).unwrap(), task)
}

#[tokio::test]
async fn a_server_that_speaks_first_loses_nothing_behind_a_proxy() {
    let (proxy, task) = proxy_that_answers(b"HTTP/1.1 200 Fine\r\nVia: x\r\n\r\nSSH-2.0-x\r\n").await;
    let mut stream = proxy.connect("2001:db8::1", 2222, LIMIT).await.unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).await.unwrap();
    assert_eq!(said, "SSH-2.0-x\r\n");
    let request = task.await.unwrap();
    assert!(
        request.starts_with("CONNECT [2001:db8::1]:2222 HTTP/1.1\r\nHost: [2001:db8::1]:2222\r\n"),
        "{request}"
    );
    assert!(request.contains("Proxy-Authorization: Basic YWRhOnB3\r\n"), "{request}");
}

#[tokio::test]
async fn a_proxy_that_wants_another_password_is_not_asked_again() {
    let (proxy, _task) = proxy_that_answers(b"HTTP/1.1 407 Who are you\r\n\r\n").await;
    let Err(error) = proxy.connect("host", 22, LIMIT).await else { panic!("407 leads nowhere") };
    assert!(error.is_final(), "{error}");
    assert!(error.to_string().contains("does not accept the name and password"), "{error}");
}

#[tokio::test]
async fn a_proxy_whose_way_is_closed_is_asked_again() {
    for (answer, said) in [
        (&b"HTTP/1.1 502 Bad\x1b[2J\r\n\r\n"[..], "502"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 200", "without an answer"),
        (b"", "without an answer"),
        (&[b'a'; 20_000], "too long"),
    ] {
        let (proxy, _task) = proxy_that_answers(answer).await;
        let Err(error) = proxy.connect("host", 22, LIMIT).await else { panic!("{said} leads nowhere") };
        assert!(error.to_string().contains(said) || said == "502", "{said}: {error}");
        assert!(!error.is_final());
        assert!(!error.to_string().contains('\x1b'));
    }
}

/// A SOCKS5 proxy for one connection that wants `ada:pw`, and returns what it was asked for.
async fn socks_proxy(scheme: &str) -> (Proxy, tokio::task::JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("{scheme}://ada:pw@{}", listener.local_addr().unwrap());
    #[expect(clippy::disallowed_methods, reason = "the test waits for it")]
    let task = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut greeting = [0; 2];
        stream.read_exact(&mut greeting).await.unwrap();
        let mut methods = vec![0; greeting[1].into()];
        stream.read_exact(&mut methods).await.unwrap();
        assert!(methods.contains(&2));
        stream.write_all(&[5, 2]).await.unwrap();
        let mut login = [0; 8];
        stream.read_exact(&mut login).await.unwrap();
        assert_eq!(&login, b"\x01\x03ada\x02pw");
        stream.write_all(&[1, 0]).await.unwrap();
        let mut request = [0; 4];
        stream.read_exact(&mut request).await.unwrap();
        let length = if request[3] == 3 { stream.read_u8().await.unwrap().into() } else { 4 };
        let mut host = vec![0; length];
        stream.read_exact(&mut host).await.unwrap();
        assert_eq!(stream.read_u16().await.unwrap(), 2222);
        stream.write_all(b"\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x00SSH-2.0-x\r\n").await.unwrap();
        host
    });
    (Proxy::parse(&url).unwrap(), task)
}

#[tokio::test]
async fn socks5h_has_the_name_looked_up_by_the_proxy_and_socks5_does_it_here() {
    for (scheme, host, asked) in
        [("socks5h", "name.invalid", b"name.invalid".to_vec()), ("socks5", "127.0.0.1", vec![127, 0, 0, 1])]
    {
        let (proxy, task) = socks_proxy(scheme).await;
        let mut stream = proxy.connect(host, 2222, LIMIT).await.unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).await.unwrap();
        assert_eq!(said, "SSH-2.0-x\r\n");
        assert_eq!(task.await.unwrap(), asked);
    }
}
