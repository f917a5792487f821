//! Servers that are new, known, or others than before.

use super::*;

#[tokio::test]
async fn a_new_server_is_asked_about_once_and_then_known() {
    let home = Home::new();
    let server = TestServer::start(knowing(&[&home.key("id_ed25519")])).await;
    let person = Person::who_says(&["maybe", "yes"]);
    let route = home.way_to(&server).asking(person.clone());
    enter(&route).await.unwrap();
    enter(&route).await.unwrap();
    let fingerprint = known_hosts::fingerprint(server.host_key.public_key());
    assert_eq!(person.asked().matches(&fingerprint).count(), 1, "{}", person.asked());
    assert_eq!(fs::read_to_string(home.ssh().join("known_hosts")).unwrap().lines().count(), 1);
}

#[tokio::test]
async fn several_connections_ask_about_a_new_server_once() {
    let home = Home::new();
    let server = TestServer::start(knowing(&[&home.key("id_ed25519")])).await;
    let person = Person::who_says(&["yes"]);
    let route = home.way_to(&server).asking(person.clone());
    let (one, two, three) = tokio::join!(enter(&route), enter(&route), enter(&route));
    assert!(one.is_ok() && two.is_ok() && three.is_ok());
    assert_eq!(person.asked().matches("Is it right?").count(), 1);
}

#[tokio::test]
async fn the_fingerprint_itself_is_an_answer_and_another_one_is_a_no() {
    let home = Home::new();
    let server = TestServer::start(knowing(&[&home.key("id_ed25519")])).await;
    let fingerprint: &'static str = known_hosts::fingerprint(server.host_key.public_key()).leak();
    let wrong = home.way_to(&server).asking(Person::who_says(&["SHA256:AAAA"]));
    assert!(matches!(refused(&wrong).await, ConnectError::HostKeyRefused { .. }));
    enter(&home.way_to(&server).asking(Person::who_says(&[fingerprint]))).await.unwrap();
}

#[tokio::test]
async fn a_new_server_is_refused_where_nobody_can_be_asked_unless_new_ones_are_accepted() {
    let home = Home::new();
    let server = TestServer::start(knowing(&[&home.key("id_ed25519")])).await;
    let error = refused(&home.way_to(&server)).await;
    assert!(matches!(error, ConnectError::HostKeyUnknown { .. }), "{error}");
    assert!(error.is_final());
    assert_eq!(error.exit_status(), exit::HOST_KEY);
    assert!(
        error.advice().contains(&format!("ssh-keyscan -p {} 127.0.0.1", server.address.port())),
        "{}",
        error.advice()
    );
    assert!(server.tried().is_empty(), "nothing was shown to a server that may be another");
    let elsewhere = home.ssh().join("no folder").join("known");
    let options = ServerOptions { known_hosts: Some(elsewhere), ..to(&server) };
    let advice = refused(&home.route(&options, &[])).await.advice();
    assert!(advice.contains("`mkdir -p -m 700 '") && advice.contains("/known'`"), "{advice}");
    let options = ServerOptions { host_key_policy: Some(HostKeyPolicy::AcceptNew), ..to(&server) };
    enter(&home.route(&options, &[])).await.unwrap();
    enter(&home.way_to(&server)).await.unwrap();
}

#[tokio::test]
async fn a_changed_host_key_stops_everything_whatever_the_policy() {
    let home = Home::new();
    home.key("id_ed25519");
    let server = TestServer::start(Knows::default()).await;
    let line = server.known_hosts_line();
    let place = line.split(' ').next().unwrap();
    home.write("known_hosts", format!("# mine\n{place} {}\n", new_key().public_key().to_openssh().unwrap()));
    let options = ServerOptions { host_key_policy: Some(HostKeyPolicy::AcceptNew), ..to(&server) };
    let route = home.route(&options, &[]).asking(Person::who_says(&["yes"]));
    let error = refused(&route).await;
    assert!(error.to_string().contains("but line 2 of"), "{error}");
    assert_eq!(error.exit_status(), exit::HOST_KEY);
    assert!(error.is_final());
    assert!(error.advice().contains("known_hosts"));
    assert!(server.tried().is_empty());
}

#[tokio::test]
async fn a_key_that_was_accepted_counts_also_where_it_cannot_be_noted() {
    let home = Home::new();
    let key = home.key("id_ed25519");
    // No file can be made there, as where a service may not write.
    fs::create_dir(home.ssh().join("known_hosts")).unwrap();
    let server = TestServer::start(knowing(&[&key])).await;
    let options = ServerOptions { host_key_policy: Some(HostKeyPolicy::AcceptNew), ..to(&server) };
    let route = home.route(&options, &[]);
    enter(&route).await.unwrap();
    enter(&route).await.unwrap();
    let another = PublicKeyOrCertificate::PublicKey { key: new_key().public_key().clone(), hash_alg: None };
    let error = route.gate().check_server_key(&another).await.unwrap_err();
    assert!(error.to_string().contains("the memory of this program has another"), "{error}");
    assert!(error.is_final() && error.advice().contains("start this program again"));
}

#[tokio::test]
async fn a_kind_of_key_that_is_known_is_asked_for_first() {
    let home = Home::new();
    let kind = Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 };
    let known = PrivateKey::random(&mut russh::keys::key::safe_rng(), kind.clone()).unwrap();
    let options = ServerOptions { address: Some("127.0.0.1".into()), ..Default::default() };
    home.write("known_hosts", format!("127.0.0.1 {}\n", known.public_key().to_openssh().unwrap()));
    let mut config = Config::default();
    home.route(&options, &[]).gate().prefer_known_keys(&mut config);
    assert_eq!(config.preferred.key[0], kind);
    assert!(!config.preferred.key.contains(&Algorithm::Rsa { hash: None }));
    assert!(config.preferred.host_key_certificates.is_empty());
}

#[tokio::test]
async fn a_host_certificate_of_a_trusted_authority_makes_a_server_known() {
    let home = Home::new();
    let (authority, host_key) = (new_key(), new_key());
    for (principal, is_known) in [("127.0.0.1", true), ("other.example.com", false)] {
        let certificate = certify(&authority, &host_key, CertType::Host, principal);
        let knows = Knows { host_certificate: Some(certificate), ..knowing(&[&home.key("id_ed25519")]) };
        let server = TestServer::with_key(knows, host_key.clone()).await;
        let public = authority.public_key().to_openssh().unwrap();
        home.write("known_hosts", format!("@cert-authority [127.0.0.1]:* {public}\n"));
        let entered = enter(&home.way_to(&server)).await;
        assert_eq!(entered.is_ok(), is_known, "{principal}");
    }
}
