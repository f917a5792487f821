//! Endpoints as people ask for them, and what the server is told of it.

use super::*;

fn endpoint(kind: Kind, line: &str) -> Result<Endpoint, String> {
    Endpoint::from_words("test", kind, shell_words::split(line).unwrap()).map_err(|error| error.to_string())
}

fn sent(kind: Kind, line: &str) -> String {
    endpoint(kind, line).unwrap().command.to_string()
}

fn refused(kind: Kind, line: &str) -> String {
    endpoint(kind, line).unwrap_err()
}

#[test]
fn what_is_sent_is_what_a_person_could_have_typed() {
    assert_eq!(sent(Kind::Http, "3000"), "http");
    assert_eq!(
        sent(Kind::Http, "3000 --basic-auth 'ada:correct horse' --compression --domain app"),
        "http --domain=app --basic-auth=ada:correct horse --compression"
    );
    assert_eq!(sent(Kind::Tcp, "22 --remote-addr host:20022"), "tcp --remote-addr=host:20022");
}

#[test]
fn the_host_of_the_upstream_can_be_asked_for_by_rewrite() {
    assert_eq!(sent(Kind::Http, "localhost:3000 --host-header rewrite"), "http --host-header=localhost:3000");
    assert_eq!(sent(Kind::Http, "80 --host-header=preserve"), "http --host-header=preserve");
    let folder = if cfg!(windows) { "file:///C:/srv" } else { "file:///srv" };
    assert!(refused(Kind::Http, &format!("{folder} --host-header rewrite")).contains("ADDR with a host"));
    assert!(refused(Kind::Http, "80 --host-header 'a b'").contains("rewrite, preserve"));
}

#[test]
fn the_agent_speaks_tls_with_an_https_upstream_and_the_server_is_not_told() {
    let https = endpoint(Kind::Http, "https://localhost:8443 --upstream-protocol http2").unwrap();
    assert_eq!(https.command.to_string(), "http --upstream-protocol=http2");
    assert_eq!(https.upstream_tls, Some(TlsToUpstream::default()));
    assert_eq!(https.alpn(), [b"h2".to_vec()]);
    let verified = endpoint(Kind::Http, "https://api.internal --upstream-tls-verify").unwrap();
    assert_eq!(verified.command.to_string(), "http");
    assert!(verified.upstream_tls.unwrap().verify);
    assert_eq!(
        sent(Kind::Http, "https://localhost:8443 --upstream-protocol auto"),
        "http --upstream-protocol=auto --upstream-tls --upstream-server-name=localhost"
    );
}

#[test]
fn an_h2c_upstream_is_spoken_to_in_http2() {
    assert_eq!(sent(Kind::Http, "h2c://localhost:50051"), "http --upstream-protocol=http2");
    assert!(refused(Kind::Http, "h2c://localhost:1 --upstream-protocol http1").contains("different things"));
}

#[test]
fn tls_that_ends_here_leaves_nothing_of_certificates_in_the_command() {
    let folder = tempfile::tempdir().unwrap();
    let pair = rcgen::generate_simple_self_signed(["app.example.com".to_owned()]).unwrap();
    let (crt, key) = (folder.path().join("crt.pem"), folder.path().join("key.pem"));
    std::fs::write(&crt, pair.cert.pem()).unwrap();
    std::fs::write(&key, pair.signing_key.serialize_pem()).unwrap();
    let files = format!("--crt '{}' --key '{}'", crt.display(), key.display());
    let here = endpoint(Kind::Tls, &format!("8080 --terminate-at agent {files} --domain app")).unwrap();
    assert_eq!(here.command.to_string(), "tls --domain=app");
    assert!(here.tls.unwrap().alpn().is_empty());
    for (protocol, offered) in [("http1", "http/1.1"), ("http2", "h2")] {
        let line = format!("8080 --terminate-at agent {files} --upstream-protocol {protocol}");
        let here = endpoint(Kind::Tls, &line).unwrap();
        assert_eq!(here.command.to_string(), "tls");
        assert_eq!(here.tls.unwrap().alpn(), [offered.as_bytes()]);
    }
    let auto = format!("8080 --terminate-at agent {files} --upstream-protocol auto");
    assert!(refused(Kind::Tls, &auto).contains("say http1 or http2"));
    let edge = endpoint(Kind::Tls, &format!("8080 {files}")).unwrap();
    assert!(edge.tls.is_none() && edge.command.to_string().contains("--crt=LS0tLS1CRUdJTi"));
    assert!(refused(Kind::Tls, "8080 --terminate-at agent").contains("--crt FILE --key FILE"));
    assert!(
        refused(Kind::Tls, "8080 --terminate-at agent --crt no.pem --key no.pem").contains("no file no.pem")
    );
    assert!(refused(Kind::Http, &format!("80 --terminate-at agent {files}")).contains("hithe tls"));
}

#[test]
fn only_the_agent_is_told_what_concerns_it_alone() {
    assert!(!endpoint(Kind::Http, "80 --inspect=false").unwrap().inspect);
    assert!(endpoint(Kind::Http, "80 --inspect").unwrap().inspect);
    assert_eq!(sent(Kind::Http, "80 --inspect=false"), "http");
}

#[test]
fn what_is_wrong_is_said_as_over_ssh() {
    assert!(refused(Kind::Http, "80 --basic-auth ada:short").contains("ERR_HITHE_360"));
    assert!(refused(Kind::Http, "80 --compresion").contains("--compression"));
    assert!(refused(Kind::Tcp, "22 --compression").contains("not for tcp"));
}

#[test]
fn a_key_that_is_neither_a_file_nor_pem_is_not_repeated() {
    let key = "MC4CAQAwBQYDK2VwBCIEIHR0/zXK9l3Qy2mWmZ2v8n+Xq0B3b0c1a5Yw4b5r7d9e";
    let words = ["22", "--terminate-at", "edge", "--crt", "x", "--key", key];
    let error = Endpoint::from_words("a", Kind::Tls, words).unwrap_err().to_string();
    assert!(error.contains("--key") && !error.contains("MC4"), "{error}");
}

#[test]
fn a_value_may_begin_with_hyphens_of_its_own() {
    let words = |words: &[&str]| with_values(words.iter().map(std::ffi::OsString::from));
    assert_eq!(
        words(&["tls", "--crt", "-----BEGIN X", "--key", "-----BEGIN Y"]),
        ["tls", "--crt=-----BEGIN X", "--key=-----BEGIN Y"]
    );
    for alone in
        [&["--crt=a", "-----BEGIN"][..], &["a", "---b"], &["--a", "--b"], &["---a", "---b"], &["---a"]]
    {
        assert_eq!(words(alone), alone);
    }
}

#[test]
fn the_equivalent_ssh_command_survives_a_shell() {
    let line = |kind, line| {
        endpoint(kind, line).unwrap().ssh_line("v2@tunnel.example.com", &["-p".to_owned(), "2222".to_owned()])
    };
    assert_eq!(
        line(Kind::Http, "3000 --basic-auth 'ada:correct horse'"),
        "ssh -p 2222 -R 443:localhost:3000 v2@tunnel.example.com http --basic-auth 'ada:correct horse'\n"
    );
    assert!(line(Kind::Http, "80 --schemes http").contains("-R 80:localhost:80"));
    #[cfg(unix)]
    {
        assert!(line(Kind::Http, "unix:/run/a.sock").contains("-R 443:/run/a.sock"));
        let odd = line(Kind::Http, r"unix:/run/a:b%h\\c.sock");
        assert!(odd.contains(r"-R '443:/run/a\:b%%h\\c.sock'"), "{odd}");
    }
    assert!(line(Kind::Tcp, "22").contains("-R 0:localhost:22"));
    let https = line(Kind::Http, "https://[::1]:8443");
    assert!(https.contains("-R '443:[::1]:8443'") && https.contains("http --upstream-tls"), "{https}");
    let folder = if cfg!(windows) { "file:///C:/srv" } else { "file:///srv" };
    assert!(line(Kind::Http, folder).starts_with("# ssh serves no files"));
    let odd = Endpoint::from_words("a", Kind::Http, ["file:///srv/a\nrm"]).unwrap().ssh_line("host", &[]);
    assert!(odd.lines().all(|line| line.starts_with('#') || line.starts_with("ssh ")), "{odd}");
}

#[test]
fn a_file_that_is_missing_is_named_with_the_folder_that_was_searched() {
    let here = std::env::current_dir().unwrap();
    let searched = format!("there is no file example.crt (looked in {})", here.display());
    for line in
        ["80 --crt example.crt --key example.key", "80 --terminate-at agent --crt example.crt --key k"]
    {
        assert_eq!(refused(Kind::Tls, line), format!("{searched}: --crt"), "{line}");
    }
    let pem = "'-----BEGIN CERTIFICATE----- AA== -----END CERTIFICATE-----'";
    assert!(refused(Kind::Tls, &format!("80 --crt={pem} --key a.key")).contains("no file a.key (looked in"));
    assert!(refused(Kind::Tls, "80 --crt certs/a.crt --key k").contains("no file certs/a.crt (looked in"));
    // What the server knows by name needs no file.
    assert_eq!(sent(Kind::Tls, "80 --crt corp"), "tls --crt=corp");
}

#[test]
fn a_key_that_goes_to_the_server_unasked_is_noticed() {
    let [crt, key] =
        ["CERTIFICATE", "PRIVATE KEY"].map(|it| format!("'-----BEGIN {it}----- AA== -----END {it}-----'"));
    let gives_away = |kind, more: &str| {
        endpoint(kind, &format!("80 --crt={crt} --key={key} {more}")).unwrap().gives_key_away()
    };
    assert!(gives_away(Kind::Tls, "--domain app"));
    assert!(!gives_away(Kind::Tls, "--terminate-at edge"));
    assert!(!gives_away(Kind::Tls, "--terminate-at agent"));
    assert!(!gives_away(Kind::Http, ""));
}

#[test]
fn an_upstream_in_the_clear_is_not_spoken_to_in_tls() {
    assert!(
        refused(Kind::Http, "h2c://localhost:1 --upstream-tls").contains("h2c:// is HTTP/2 in the clear")
    );
    assert!(endpoint(Kind::Http, "h2c://localhost:1 --upstream-tls=false").is_ok());
}

#[test]
fn flags_that_are_on_or_off_may_say_so() {
    for line in ["80 --compression=true", "--compression 80", "80 --compression"] {
        let http = endpoint(Kind::Http, line).unwrap();
        assert_eq!(
            (http.command.to_string(), http.upstream.to_string()),
            ("http --compression".to_owned(), "localhost:80".to_owned()),
            "{line}"
        );
    }
    let off = endpoint(Kind::Http, "80 --compression=false --pooling-enabled=false");
    assert_eq!(off, endpoint(Kind::Http, "80"));
    assert_eq!(sent(Kind::Tcp, "22 --pooling-enabled=true"), "tcp --pooling-enabled");
}

#[test]
fn help_says_who_checks_the_upstreams_certificate() {
    let help = command(Kind::Http).render_long_help().to_string();
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(help.contains("with https:// in ADDR one that this machine trusts"), "{help}");
}
