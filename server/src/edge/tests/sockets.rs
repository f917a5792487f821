//! What needs real sockets: TLS by SNI and ALPN, and the ports of tcp endpoints.

use std::net::{Ipv4Addr, SocketAddr};

use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;
use crate::certs::AnyCertificate;

/// For every name the same certificate, which [`visitor_config`] does not look at.
pub(super) fn server_config() -> Arc<rustls::ServerConfig> {
    let key = rcgen::generate_simple_self_signed(["a.test".to_owned()]).unwrap();
    let private = PrivatePkcs8KeyDer::from(key.signing_key.serialize_der());
    let mut config = rustls::ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![CertificateDer::from(key.cert)], private.into())
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Arc::new(config)
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

async fn shake(address: SocketAddr, name: &str, alpn: &[&[u8]]) -> std::io::Result<TlsStream<TcpStream>> {
    let mut config = rustls::ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate::new(provider())))
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

/// Serves the https port, and gives its address and the way to open tcp ports.
fn serve_sockets(bench: &Bench) -> (SocketAddr, mpsc::Sender<OpenedPort>) {
    let https = listener();
    let address = https.local_addr().unwrap();
    let (open, tcp) = mpsc::channel(1);
    serve(&bench.edge, Listeners { http: Vec::new(), https: vec![https], tcp });
    (address, open)
}

fn listener() -> std::net::TcpListener {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    listener
}

#[tokio::test]
async fn https_speaks_http1_or_http2_by_alpn() {
    let mut bench = Bench::bare();
    bench.publish("a.test", Protocol::Https, "https://a.test", ModuleChain::default());
    let (address, _open) = serve_sockets(&bench);
    let http2 = shake(address, "a.test", &[b"h2", b"http/1.1"]).await.unwrap();
    assert_eq!(http2.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));

    let mut http1 = shake(address, "a.test", &[]).await.unwrap();
    http1.write_all(GET.as_bytes()).await.unwrap();
    let head = answer(&mut bench.upstream().await, OK).await;
    assert!(
        head.contains("x-forwarded-proto: https\r\n") && head.contains("x-forwarded-for: 127.0.0.1"),
        "{head}"
    );
    let mut response = [0; 12];
    http1.read_exact(&mut response).await.unwrap();
    assert_eq!(&response, b"HTTP/1.1 200");
}

#[tokio::test]
async fn plain_http_on_the_https_port_is_told_so() {
    let bench = Bench::new();
    let (address, _open) = serve_sockets(&bench);
    let mut visitor = TcpStream::connect(address).await.unwrap();
    visitor.write_all(GET.as_bytes()).await.unwrap();
    let mut response = String::new();
    visitor.read_to_string(&mut response).await.unwrap();
    assert!(response.starts_with("HTTP/1.1 400") && response.contains("Use https://"), "{response}");
}

#[tokio::test]
async fn a_tls_endpoint_gets_the_handshake_untouched() {
    let mut bench = Bench::bare();
    bench.publish("t.test", Protocol::Tls, "tls://t.test", ModuleChain::default());
    let (address, _open) = serve_sockets(&bench);
    let upstream = async {
        let stream = bench.upstream().await;
        let mut stream = tokio_rustls::TlsAcceptor::from(server_config()).accept(stream).await.unwrap();
        stream.write_all(b"from the upstream itself").await.unwrap();
        stream.shutdown().await.unwrap();
        stream.get_ref().1.server_name().map(str::to_owned)
    };
    let visitor = async {
        let mut stream = shake(address, "t.test", &[]).await.unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).await.unwrap();
        said
    };
    let (name, said) = tokio::join!(upstream, visitor);
    assert_eq!((name.as_deref(), said.as_str()), (Some("t.test"), "from the upstream itself"));
}

#[tokio::test]
async fn a_tls_endpoint_without_an_upstream_answers_with_an_alert() {
    let mut bench = Bench::bare();
    bench.publish("t.test", Protocol::Tls, "tls://t.test", ModuleChain::default());
    bench.dialled.close();
    let (address, _open) = serve_sockets(&bench);
    let error = shake(address, "t.test", &[]).await.unwrap_err();
    assert!(error.to_string().contains("InternalError"), "{error}");
}

/// A tcp endpoint on a port of its own.
async fn open_port(bench: &Bench, open: &mpsc::Sender<OpenedPort>) -> (SocketAddr, Arc<Endpoint>) {
    let endpoint = bench.endpoint(Protocol::Tcp, "tcp://tunnel.test:1", ModuleChain::default());
    let listener = listener();
    let address = listener.local_addr().unwrap();
    bench.registry.open_port_for_test(address.port(), &endpoint);
    open.send(OpenedPort { listener, port: address.port() }).await.unwrap();
    (address, endpoint)
}

#[tokio::test]
async fn a_tcp_endpoint_carries_bytes_and_half_closes() {
    let mut bench = Bench::bare();
    let (_, open) = serve_sockets(&bench);
    let (address, _endpoint) = open_port(&bench, &open).await;
    let mut visitor = TcpStream::connect(address).await.unwrap();
    visitor.write_all(b"question").await.unwrap();
    visitor.shutdown().await.unwrap();
    let mut upstream = bench.upstream().await;
    let mut heard = String::new();
    upstream.read_to_string(&mut heard).await.unwrap();
    upstream.write_all(b"answer").await.unwrap();
    drop(upstream);
    let mut said = String::new();
    visitor.read_to_string(&mut said).await.unwrap();
    assert_eq!((heard.as_str(), said.as_str()), ("question", "answer"));
}

#[tokio::test]
async fn a_withdrawn_port_closes_and_its_visits_go_on() {
    let mut bench = Bench::bare();
    let (_, open) = serve_sockets(&bench);
    let (address, endpoint) = open_port(&bench, &open).await;
    let mut visitor = TcpStream::connect(address).await.unwrap();
    let mut upstream = bench.upstream().await;
    endpoint.withdrawn.cancel();
    let free = async {
        while std::net::TcpListener::bind(address).is_err() {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(5), free).await.expect("the port is still taken");
    upstream.write_all(b"still here").await.unwrap();
    let mut said = [0; 10];
    visitor.read_exact(&mut said).await.unwrap();
    assert_eq!(&said, b"still here");
}

#[tokio::test]
async fn a_forward_without_a_target_is_withdrawn_and_its_publisher_told_why() {
    let mut bench = Bench::bare();
    let (_, open) = serve_sockets(&bench);
    let (address, endpoint) = open_port(&bench, &open).await;
    let mut visitor = TcpStream::connect(address).await.unwrap();
    visitor.write_all(&[5, 1, 0]).await.unwrap();
    let mut upstream = bench.upstream().await;
    upstream.read_exact(&mut [0; 3]).await.unwrap();
    upstream.write_all(&[5, 0]).await.unwrap();
    timeout(Duration::from_secs(5), endpoint.withdrawn.cancelled()).await.expect("it is still public");
    let error = visitor.read(&mut [0; 8]).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert!(bench.log.advice.lock().unwrap()[0].contains("SOCKS"));
}
