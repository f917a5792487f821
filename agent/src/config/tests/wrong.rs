//! Files that are refused, and in which words.

use super::*;

#[test]
fn a_key_that_nobody_knows_is_refused_with_its_line_and_the_one_that_was_meant() {
    let text = tunnel("proto: http\naddr: 80\nbasic_aut: [a:b]");
    assert_eq!(refused(&text), "a.yml:6:5: tunnels.web.basic_aut: not known; did you mean basic_auth?");
    for (text, message) in [
        ("version: 2\nautoken: x\n", "a.yml:2:1: autoken: not known; did you mean authtoken?"),
        ("version: 2\ntunels: {}\n", "a.yml:2:1: tunels: not known; did you mean tunnels?"),
        (
            "version: 3\nagent:\n  log_levl: info\n",
            "a.yml:3:3: agent.log_levl: not known; did you mean log_level?",
        ),
        (
            "version: 3\nagent:\n  ssh:\n    acount: x\n",
            "a.yml:4:5: agent.ssh.acount: not known; did you mean account?",
        ),
        ("version: 3\nauthtoken: x\n", "a.yml:2:1: authtoken: in version 3 this stands below agent:"),
        ("version: 2\nagent: {}\n", "a.yml:2:1: agent: not known in version 2: say version: 3"),
        ("version: 2\nqqq: 1\n", "a.yml:2:1: qqq: not known; `hithe config schema` lists what is"),
    ] {
        assert_eq!(refused(text), message);
    }
    let section = tunnel("proto: http\nip_restriction:\n  allow_cidr: [10.0.0.0/8]");
    assert!(refused(&section).ends_with("did you mean allow_cidrs?"), "{}", refused(&section));
    let third = "version: 3\nendpoints:\n  - name: a\n    proto: http\n    upstream: {url: 80, adr: 1}\n";
    assert_eq!(
        refused(third),
        "a.yml:4:5: endpoints.a.proto: not known here: url says it, as in url: tcp://\n\
         a.yml:5:25: endpoints.a.upstream.adr: not known; `hithe config schema` lists what is"
    );
}

#[test]
fn a_value_of_the_wrong_type_is_refused_with_its_line() {
    for (text, message) in [
        ("version: 2\nweb_addr: [1]\n", "a.yml:2:11: web_addr: a text belongs here, not a list"),
        ("version: 2\nweb_addr: true\n", "a.yml:2:11: web_addr: an address to listen at belongs here"),
        ("version: 2\nheartbeat_interval: soon\n", "a.yml:2:21: heartbeat_interval: a length of time"),
        ("version: 2\ninspect_db_size: -2\n", "a.yml:2:18: inspect_db_size: a number of bytes"),
        ("version: 2\ninspect_db_size: many\n", "a.yml:2:18: inspect_db_size: a whole number"),
        (
            "version: 2\nlog_level: loud\n",
            "a.yml:2:12: log_level: one of trace, debug, info, warn, error, crit",
        ),
        ("version: 2\nlog_level: wran\n", "did you mean warn?"),
        (
            "version: 3\nagent: yes\n",
            "a.yml:2:8: agent: keys with values belong here, as in key: value, not a text; is a colon missing?",
        ),
        ("version: 3\nagent: {ssh: x}\n", "agent.ssh: keys with values belong here"),
        ("version: 3\nendpoints: {}\n", "a.yml:2:12: endpoints: a list belongs here"),
        ("version: 3\nendpoints: [1]\n", "a.yml:2:13: endpoints[0]: keys with values"),
        ("version: 3\nendpoints: [{upstream: {url: 80}}]\n", "endpoints[0]: missing: say name"),
        (
            "version: 2\ntunnels: [1]\n",
            "a.yml:2:10: tunnels: keys with values belong here, as in key: value, not a list; leave out the hyphens",
        ),
        ("version: 2\ntunnels: {a: 80}\n", "tunnels.a: keys with values belong here"),
        ("version: 2\ntunnels: {a: {addr: 80}}\n", "a.yml:2:11: tunnels.a.proto: missing"),
        ("version: 4\n", "a.yml:1:10: version: 2 or 3 belongs here"),
        ("authtoken: x\n", "version: missing: begin the file with version: 3"),
        ("- 1\n", "as in version: 3, not a list"),
        ("version: 2\na: [1\n", "a.yml:"),
        ("version: 2\nlog: x\nlog: y\n", "a.yml:3:1:"),
    ] {
        assert!(refused(text).contains(message), "{text:?}: {}", refused(text));
    }
}

#[test]
fn what_an_endpoint_cannot_have_is_said_of_its_key() {
    for (lines, message) in [
        ("proto: htp", "a.yml:4:12: tunnels.web.proto: one of http, tls, tcp belongs here"),
        ("proto: http\naddr: 99999", "a.yml:5:11: tunnels.web.addr: the port is not a number"),
        ("proto: http\nbasic_auth: ['ada:short']", "a.yml:5:18: tunnels.web.basic_auth: ERR_HITHE_360"),
        (
            "proto: http\nbasic_auth:\n  - ada:correct-horse\n  - bob:short",
            "a.yml:7:9: tunnels.web.basic_auth: ERR_HITHE_360",
        ),
        ("proto: http\ncompression: perhaps", "a.yml:5:18: tunnels.web.compression: true or false"),
        (
            "proto: http\nip_restriction: {deny_cidrs: [1.2.3]}",
            "tunnels.web.ip_restriction.deny_cidrs: ERR_HITHE_",
        ),
        (
            "proto: http\nrequest_header:\n  add:\n    - x-a: b",
            "a.yml:7:11: tunnels.web.request_header.add: a text belongs",
        ),
        ("proto: tcp\naddr: 22\nbasic_auth: ['ada:correct-horse']", "is for http endpoints, not for tcp"),
        ("proto: http\nhostname: a\nsubdomain: b", "domain can be given once only"),
        (
            "proto: http\nterminate_at: agent",
            "a.yml:5:19: tunnels.web.terminate_at: terminate_at agent is for tls",
        ),
        (
            "proto: http\nverify_webhook: {provider: github}",
            "verify_webhook github needs verify_webhook_secret",
        ),
    ] {
        let said = refused(&tunnel(lines));
        assert!(said.contains(message), "{lines}: {said}");
        assert!(!said.contains("--"), "{said}");
    }
    let url = "version: 3\nendpoints: [{name: a, url: 'ftp://x', upstream: {url: 80}}]\n";
    assert!(refused(url).contains("endpoints.a.url: a name belongs here, or a URL"));
}

#[test]
fn all_that_is_wrong_is_said_and_once() {
    let lines = |text: &str| refused(text).lines().map(str::to_owned).collect::<Vec<_>>();
    let places = |text: &str| {
        let place = |line: String| line.splitn(5, ':').skip(1).take(3).collect::<Vec<_>>().join(":");
        let is_place = |line: &String| line.starts_with("a.yml");
        lines(text).into_iter().filter(is_place).map(place).collect::<Vec<_>>()
    };
    assert_eq!(lines(&tunnel("proto: ftp")).len(), 1);
    assert_eq!(lines("version: 2\ntunnels: {a: 80}\n").len(), 1);
    let of = |rest: &str| lines(&format!("version: 3\nendpoints:\n  - name: a\n    {rest}\n"));
    for rest in ["upstream: {url: [80]}", "upstream: 80", "upstream: {}", "description: x"] {
        assert_eq!(of(rest).len(), 1, "{rest}: {:?}", of(rest));
    }
    let endpoint = tunnel(
        "proto: http\naddr: '99999'\ninspect: maybe\nbasic_auth: secret\nsubdomain: 007\ncidr_allow: x",
    );
    assert_eq!(
        places(&endpoint),
        [
            "6:14: tunnels.web.inspect",
            "7:17: tunnels.web.basic_auth",
            "9:17: tunnels.web.cidr_allow",
            "5:11: tunnels.web.addr"
        ]
    );
    let agent = "version: 3\nagent:\n  log_level: loud\n  web_addr: true\n  ssh: {acount: [a, b], config: {a: 1, b: 2}}\n  heartbeat_interval: soon\n";
    assert_eq!(
        places(agent),
        [
            "3:14: agent.log_level",
            "4:13: agent.web_addr",
            "5:9: agent.ssh.acount",
            "5:33: agent.ssh.config",
            "6:23: agent.heartbeat_interval"
        ]
    );
}

#[test]
fn protection_is_never_ignored() {
    for key in
        ["oauth", "oidc", "saml", "policy", "traffic_policy", "traffic_policy_file", "policy_file", "labels"]
    {
        let said = refused(&tunnel(&format!("proto: http\n{key}: {{provider: google}}")));
        assert!(said.starts_with(&format!("a.yml:5:5: tunnels.web.{key}: ")), "{said}");
        let endpoint =
            format!("version: 3\nendpoints:\n  - name: a\n    {key}: x\n    upstream: {{url: 80}}\n");
        assert!(refused(&endpoint).contains(&format!("endpoints.a.{key}: ")));
        // Nothing asks for nothing.
        assert!(load(&tunnel(&format!("proto: http\n{key}:"))).is_ok());
    }
    let internal = "version: 3\nendpoints: [{name: a, bindings: [internal], upstream: {url: 80}}]\n";
    assert_eq!(
        refused(internal).split(" is offered").next(),
        Some("a.yml:2:34: endpoints.a.bindings: only public")
    );
}

#[test]
fn a_certificate_that_is_not_there_is_looked_for_in_words_of_a_file() {
    let text = tunnel("proto: tls\naddr: 443\ncrt: example.crt\nkey: example.key");
    let here = std::env::current_dir().unwrap();
    assert_eq!(
        refused(&text),
        format!("a.yml:6:10: tunnels.web.crt: there is no file example.crt (looked in {})", here.display())
    );
}
