//! What a file may say, and how it is told what it may not.

use std::time::Duration;

use hithe_cli_parser::Kind;

use super::reference::{reference, schema};
use super::*;

mod wrong;

/// An ngrok agent file of version 2, with most of what one can have.
pub(super) const SECOND: &str = "\
version: \"2\"
authtoken: hithe_token_of_ada
server_addr: tunnel.example.com:22
region: eu
console_ui: iftty
console_ui_color: transparent
heartbeat_interval: 20s
heartbeat_tolerance: 1m30s
inspect_db_size: -1
log_level: debug
log_format: logfmt
log: /var/log/hithe.log
metadata: '{\"serial\": \"00012xa-33rUtz9\"}'
proxy_url: socks5://localhost:9150
remote_management: false
root_cas: trusted
update_channel: stable
update_check: false
web_addr: localhost:4041
web_allow_hosts: [.internal, 10.0.0.0/8]
tunnels:
  site:
    proto: http
    addr: 8080
    schemes: [http, https]
    domain: app
    basic_auth:
      - ada:correct-horse
      - bob:battery-staple
    circuit_breaker: 0.5
    compression: true
    host_header: rewrite
    inspect: false
    ip_restriction:
      allow_cidrs: [10.0.0.0/8, \"2001:db8::/32\"]
      deny_cidrs: [10.1.0.0/16]
    request_header:
      add: [\"x-from: hithe\"]
      remove: [x-secret]
    response_header:
      add: [\"x-answered: ${conn.client_ip}\"]
      remove: [server]
    user_agent_filter:
      allow: ['(?i)firefox']
      deny: ['.*']
    verify_webhook:
      provider: slack
      secret: abcdefabcdefabcdefabcdefabcdef12
    websocket_tcp_converter: false
    app_protocol: http2
    proxy_proto: \"2\"
    metadata: a site
  shell:
    proto: tcp
    addr: 22
    remote_addr: tunnel.example.com:20022
  pass:
    proto: tls
    addr: localhost:8443
    subdomain: secure
";

const THIRD: &str = "\
version: 3
agent:
  authtoken: hithe_token_of_ada
  connect_url: tunnel
  connect_cas: host
  console_ui: false
  ssh:
    identity_files: [~/.ssh/tunnel]
    account: ada
    known_hosts: /etc/ssh/known
    host_key_policy: accept-new
    proxy_jump: [bastion]
    config: false
endpoints:
  - name: any
    upstream:
      url: 8080
  - name: named
    url: https://app.example.com
    description: An app
    metadata: more
    pooling_enabled: true
    bindings: [public]
    upstream:
      url: https://localhost:8443
      protocol: http1
      proxy_protocol: 1
    rate_limit: 100/10s
  - name: plain
    url: http://app
    upstream: {url: 'http://'}
  - name: port
    url: tcp://tunnel.example.com:20022
    upstream: {url: 'tcp://localhost:22'}
  - name: any-tls
    url: tls://
    upstream: {url: localhost:8443}
";

fn load(text: &str) -> Result<Config, ConfigError> {
    all(&[text])
}

fn all(texts: &[&str]) -> Result<Config, ConfigError> {
    let file = |(text, name): (&&str, char)| (PathBuf::from(format!("{name}.yml")), text.as_bytes().to_vec());
    Config::of(&texts.iter().zip('a'..).map(file).collect::<Vec<_>>())
}

fn refused(text: &str) -> String {
    load(text).expect_err("this file should be refused").to_string()
}

fn sent(config: &Config) -> Vec<String> {
    config.endpoints.iter().map(|it| format!("{} {}", it.command, it.upstream)).collect()
}

/// One tunnel of version 2 with these lines.
fn tunnel(lines: &str) -> String {
    let lines: String = lines.lines().map(|line| format!("    {line}\n")).collect();
    format!("version: 2\ntunnels:\n  web:\n{lines}")
}

#[test]
fn a_file_of_version_2_works_as_it_is() {
    let config = load(SECOND).unwrap();
    let settings = &config.settings;
    assert_eq!(settings.authtoken.as_ref().unwrap().expose(), "hithe_token_of_ada");
    assert_eq!(settings.connect_url.as_deref(), Some("tunnel.example.com:22"));
    assert_eq!(settings.heartbeat_interval.get(), Duration::from_secs(20));
    assert_eq!(settings.heartbeat_tolerance.get(), Duration::from_secs(90));
    assert_eq!(settings.inspect_db_size, InspectSize::Off);
    assert_eq!((settings.log_level, settings.log_format), (LogLevel::Debug, LogFormat::Logfmt));
    assert_eq!(settings.log, LogTarget::File("/var/log/hithe.log".into()));
    assert_eq!(settings.web_addr, WebAddress::At("localhost:4041".to_owned()));
    assert_eq!(settings.web_allow_hosts, [".internal", "10.0.0.0/8"]);
    assert_eq!(settings.metadata.as_ref().unwrap().0, "{\"serial\": \"00012xa-33rUtz9\"}");
    let names: Vec<_> = config.endpoints.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(names, ["site", "shell", "pass"]);
    let site = &config.endpoints[0];
    assert!(!site.inspect);
    assert_eq!(
        site.command.to_string(),
        "http --schemes=http,https --domain=app --name=site --metadata=a site --cidr-allow=10.0.0.0/8,2001:db8::/32 \
         --cidr-deny=10.1.0.0/16 --ua-filter-allow=(?i)firefox --ua-filter-deny=.* \
         --basic-auth=ada:correct-horse --basic-auth=bob:battery-staple --verify-webhook=slack \
         --verify-webhook-secret=abcdefabcdefabcdefabcdefabcdef12 --circuit-breaker=0.5 \
         --response-header-add=x-answered: ${conn.client_ip} --response-header-remove=server \
         --host-header=localhost:8080 --request-header-add=x-from: hithe --request-header-remove=x-secret \
         --compression --proxy-proto=2 --upstream-protocol=http2"
    );
    assert_eq!(
        sent(&config)[1..],
        [
            "tcp --remote-addr=tunnel.example.com:20022 --name=shell localhost:22",
            "tls --domain=secure --name=pass localhost:8443"
        ]
    );
}

#[test]
fn a_file_of_version_3_works_as_it_is() {
    let config = load(THIRD).unwrap();
    assert_eq!(
        sent(&config),
        [
            "http --name=any localhost:8080",
            "http --domain=app.example.com --pooling-enabled --name=named --description=An app --metadata=more \
             --rate-limit=100/10s --proxy-proto=1 --upstream-protocol=http1 https://localhost:8443",
            "http --schemes=http --domain=app --name=plain http://",
            "tcp --remote-addr=tunnel.example.com:20022 --name=port tcp://localhost:22",
            "tls --name=any-tls localhost:8443",
        ]
    );
    let ssh = &config.settings.ssh;
    assert_eq!(ssh.account.as_deref(), Some("ada"));
    assert!(ssh.identity_files[0].0.ends_with(".ssh/tunnel") && ssh.identity_files[0].0.is_absolute());
    assert_eq!(ssh.host_key_policy, HostKeys::AcceptNew);
    assert_eq!(ssh.config, Some(SshConfig::Nothing));
    assert_eq!(ssh.proxy_jump, ["bastion"]);
    assert_eq!(config.settings.log_target(), LogTarget::Stdout);
}

#[test]
fn tunnels_still_stand_in_version_3_beside_endpoints() {
    let text = "version: '3'\ntunnels:\n  a: {proto: tcp, addr: 22}\nendpoints:\n  - {name: b, upstream: {url: 80}}\n";
    assert_eq!(load(text).unwrap().endpoints.len(), 2);
    let twice =
        "version: 3\ntunnels:\n  a: {proto: tcp, addr: 22}\nendpoints:\n  - {name: a, upstream: {url: 80}}\n";
    assert!(refused(twice).contains("there is a tunnel of this name"));
}

#[test]
fn without_a_word_the_defaults_apply() {
    for text in
        ["", "# nothing\n", "version: 3\n", "version: 2\ntunnels:\n", "version: 3\nagent:\nendpoints: []\n"]
    {
        let config = load(text).unwrap();
        assert_eq!(config.settings, Settings::default(), "{text:?}");
        assert!(config.endpoints.is_empty() && config.notes.is_empty());
    }
    let settings = Settings::default();
    assert_eq!(settings.heartbeat_interval.get(), Duration::from_secs(10));
    assert_eq!(settings.inspect_db_size, InspectSize::Bytes(50_000_000));
}

#[test]
fn what_means_nothing_here_is_said_once() {
    let notes = load(SECOND).unwrap().notes;
    let paths: Vec<_> = notes.iter().map(|it| it.path.as_str()).collect();
    assert_eq!(paths, ["region", "remote_management", "root_cas", "update_channel", "update_check"]);
    assert_eq!(
        notes[0].to_string(),
        "a.yml:4:1: region: means nothing here: the server is where connect_url says"
    );
    for (key, _) in settings::MEANINGLESS {
        let config = load(&format!("version: 3\nagent:\n  {key}: [1]\n")).unwrap();
        assert_eq!(config.notes[0].path, format!("agent.{key}"));
    }
}

#[test]
fn later_files_lie_over_earlier_ones() {
    let base = "version: 2\nlog_level: warn\nssh: {}\ntunnels:\n  a: {proto: http, addr: 1, basic_auth: ['ada:correct-horse']}\n  b: {proto: tcp, addr: 2}\n";
    let over = "version: 3\nagent: {log_level: debug, connect_url: x}\ntunnels:\n  a: {addr: 3}\nendpoints:\n  - {name: c, upstream: {url: 4}, url: tls://c}\n";
    let last = "version: 3\nendpoints:\n  - {name: c, upstream: {url: 5}}\n";
    let config = all(&[base, over, last]).unwrap();
    assert_eq!(config.settings.log_level, LogLevel::Debug);
    assert_eq!(config.settings.connect_url.as_deref(), Some("x"));
    assert_eq!(
        sent(&config),
        [
            "http --name=a --basic-auth=ada:correct-horse localhost:3",
            "tcp --name=b localhost:2",
            "tls --domain=c --name=c localhost:5"
        ]
    );
    let faults = all(&[base, "version: 2\ntunnels: {a: {addr: 0}}\n"]).unwrap_err().to_string();
    assert!(faults.starts_with("b.yml:2:"), "{faults}");
}

#[test]
fn a_text_stays_as_it_is_written() {
    let config = load(&tunnel("proto: http\nmetadata: 1.10\ndescription: no")).unwrap();
    assert_eq!(config.endpoints[0].command.about().metadata.as_deref(), Some("1.10"));
    assert_eq!(config.endpoints[0].command.about().description.as_deref(), Some("no"));
    let config = load("version: 2\nauthtoken: 0123\n").unwrap();
    assert_eq!(config.settings.authtoken.unwrap().expose(), "0123");
    let anchored =
        "version: 2\ntunnels:\n  a: &web {proto: http, metadata: 1.10}\n  b:\n    <<: *web\n    addr: 81\n";
    let config = load(anchored).unwrap();
    assert_eq!(sent(&config)[1], "http --name=b --metadata=1.10 localhost:81");
}

#[test]
fn bind_tls_of_older_files_chooses_the_schemes() {
    for (said, schemes) in [("true", "https"), ("false", "http"), ("both", "http,https")] {
        let config = load(&tunnel(&format!("proto: http\nbind_tls: {said}"))).unwrap();
        assert_eq!(config.endpoints[0].command.to_string(), format!("http --schemes={schemes} --name=web"));
    }
}

#[test]
fn tls_can_end_at_the_agent_with_files_or_with_pem_in_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let pair = rcgen::generate_simple_self_signed(["app.example.com".to_owned()]).unwrap();
    let crt = folder.path().join("crt.pem");
    std::fs::write(&crt, pair.cert.pem()).unwrap();
    let key: String =
        pair.signing_key.serialize_pem().lines().map(|line| format!("        {line}\n")).collect();
    let text = format!(
        "version: 3\nendpoints:\n  - name: a\n    url: tls://app\n    upstream: {{url: 80}}\n    agent_tls_termination:\n      server_certificate: {}\n      server_private_key: |\n{key}",
        crt.display()
    );
    let config = load(&text).unwrap();
    assert!(config.endpoints[0].tls.is_some());
    assert_eq!(sent(&config), ["tls --domain=app --name=a localhost:80"]);
    assert!(!format!("{config:?}").contains("PRIVATE"));
    let missing = refused(&text.replace("crt.pem", "none.pem"));
    assert!(missing.contains("endpoints.a.agent_tls_termination.server_certificate: "), "{missing}");
}

#[test]
fn every_key_of_the_reference_is_known_and_none_is_there_twice() {
    for list in [List::Tunnels, List::Endpoints] {
        for (path, help, _) in keys::all(list) {
            assert!(keys::meaning(&path, list).is_some(), "{path}");
            assert!(!help.is_empty() && !help.contains("--"), "{path}: {help}");
        }
    }
    let page = reference();
    for key in reference::top_level(2) {
        assert!(
            ["version", "tunnels"].contains(&key.as_str()) || page.contains(&format!("`{key}`")),
            "{key}"
        );
    }
    let ngrok = [
        "addr",
        "app_protocol",
        "basic_auth",
        "bind_tls",
        "circuit_breaker",
        "compression",
        "crt",
        "domain",
        "host_header",
        "hostname",
        "inspect",
        "key",
        "metadata",
        "mutual_tls_cas",
        "proto",
        "proxy_proto",
        "remote_addr",
        "schemes",
        "subdomain",
        "terminate_at",
        "websocket_tcp_converter",
        "auth",
        "labels",
        "oauth",
        "oidc",
        "policy",
        "traffic_policy",
        "ip_restriction.allow_cidrs",
        "verify_webhook.provider",
        "user_agent_filter.deny",
    ];
    for key in ngrok {
        assert!(keys::meaning(key, List::Tunnels).is_some(), "{key}");
    }
}

#[test]
fn the_examples_of_the_reference_say_the_same() {
    let page = reference();
    let blocks: Vec<_> = page.split("```yaml\n").skip(1).filter_map(|it| it.split("```").next()).collect();
    let [third, second] = blocks.as_slice() else { panic!("two examples") };
    let (third, second) = (load(third).unwrap(), load(second).unwrap());
    assert_eq!((third.settings, third.endpoints), (second.settings, second.endpoints));
}

#[test]
fn the_schema_says_what_is_known() {
    let schema: serde_json::Value = serde_json::from_str(&schema()).unwrap();
    let third = schema.pointer("/else/properties").unwrap();
    let agent = third.pointer("/agent/properties").unwrap();
    assert_eq!(agent.pointer("/heartbeat_interval/default").unwrap(), "10s");
    assert_eq!(agent.pointer("/region/deprecated").unwrap(), true);
    assert!(agent.pointer("/ssh/properties/identity_files").is_some());
    let endpoint = third.pointer("/endpoints/items/properties").unwrap();
    assert!(endpoint.pointer("/upstream/properties/url/description").is_some());
    assert!(endpoint.pointer("/verify_webhook/properties/secret").is_some());
    assert!(endpoint.get("rate_limit").is_some() && endpoint.get("proto").is_none());
    assert!(schema.pointer("/then/properties/tunnels/additionalProperties/properties/addr").is_some());
}

#[test]
fn secrets_are_not_printed() {
    let config = load(SECOND).unwrap();
    let shown = format!("{config:?}");
    assert!(!shown.contains("hithe_token") && !shown.contains("correct-horse") && !shown.contains("abcdef"));
    let said = refused(
        "version: 2\nauthtoken: [geheimnis]\napi_key: geheimnis\ntunnels: {a: {proto: http, basic_auth: [geheimnis]}}\n",
    );
    assert!(!said.contains("geheimnis"), "{said}");
}

#[test]
fn the_environment_goes_before_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hithe.yml");
    std::fs::write(&path, "version: 3\nagent: {authtoken: file}\n").unwrap();
    let token = |token: Option<&str>| {
        let config = Config::load_with(std::slice::from_ref(&path), token.map(str::to_owned)).unwrap();
        config.settings.authtoken.unwrap().expose().clone()
    };
    assert_eq!(token(None), "file");
    assert_eq!(token(Some("")), "file");
    assert_eq!(token(Some("environment")), "environment");
    let gone = Config::load(&[folder.path().join("none.yml")]).unwrap_err().to_string();
    assert!(gone.contains("none.yml: there is no such file"));
}

#[cfg(unix)]
#[test]
fn a_token_that_others_can_read_is_worth_a_word() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hithe.yml");
    let notes = |text: &str, mode| {
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        Config::load(std::slice::from_ref(&path)).unwrap().notes.len()
    };
    assert_eq!(notes("version: 3\nagent: {authtoken: x}\n", 0o644), 1);
    assert_eq!(notes("version: 3\nagent: {authtoken: x}\n", 0o600), 0);
    assert_eq!(notes("version: 3\n", 0o644), 0);
}

#[test]
fn a_file_is_bounded_and_so_is_what_aliases_make_of_it() {
    assert!(refused(&format!("version: 3\n#{}\n", "x".repeat(1 << 20))).contains("larger than 1 MiB"));
    let mut bomb = "version: 2\na: &a [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for (one, other) in ('b'..='k').zip('a'..) {
        let nine = [format!("*{other}")].iter().cycle().take(9).cloned().collect::<Vec<_>>().join(", ");
        bomb.push_str(&format!("{one}: &{one} [{nine}]\n"));
    }
    let read = |text: &str| tree::parse(Path::new("a.yml"), text.as_bytes()).is_ok();
    let start = tokio::time::Instant::now();
    assert!(!read(&bomb));
    assert!(start.elapsed() < Duration::from_secs(2));
    assert!(!read(&"[".repeat(10_000)) && !read(&format!("{}{}", "[".repeat(40), "]".repeat(40))));
    let shared = |bytes: usize| format!("a: &a {}\nb: [{}]\n", "x".repeat(bytes), vec!["*a"; 50].join(","));
    assert!(read(&shared(1000)) && !read(&shared(100_000)));
    assert!(!read(&shared(100_000).replace("&a x", "&a 0.").replace('x', "0")));
    assert!(!read(&shared(100_000).replace("&a x", "&a \"\\n").replacen('\n', "\"\n", 1)));
    assert!(refused("version: 3\n---\nversion: 3\n").starts_with("a.yml"));
    assert!(
        Config::of(&[("a".into(), vec![b'a', 0xfe])])
            .unwrap_err()
            .to_string()
            .contains("a:1:2: this character is not UTF-8")
    );
}

proptest::proptest! {
    #[test]
    fn any_bytes_never_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
        let _ = Config::of(&[("a.yml".into(), bytes.clone())]);
        let _ = edit::set(Path::new("a.yml"), &String::from_utf8_lossy(&bytes), "authtoken", "x");
    }

    #[test]
    fn any_damage_to_a_file_never_panics(at in 0..SECOND.len(), put in "[\\PC\\n]{0,4}", third in proptest::bool::ANY) {
        let mut text = if third { THIRD } else { SECOND }.to_owned();
        let at = at.min(text.len() - 1);
        text.replace_range(at..=at, &put);
        let _ = load(&text);
        let _ = upgrade::upgrade(Path::new("a.yml"), text.as_bytes());
        let _ = edit::set(Path::new("a.yml"), &text, "connect_url", "a: b # c");
    }
}

#[test]
fn the_kind_of_each_endpoint_is_what_the_file_says() {
    let kinds: Vec<_> = load(THIRD).unwrap().endpoints.iter().map(Endpoint::kind).collect();
    assert_eq!(kinds, [Kind::Http, Kind::Http, Kind::Http, Kind::Tcp, Kind::Tls]);
}
