//! What options, ssh_config and the environment come to, compared with what ssh makes of them.

use std::fs;

use hithe_cli_parser::Secret;

use super::*;
use crate::connect::modes::write_for_us;

struct Home(tempfile::TempDir);

impl Home {
    fn with(config: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join(".ssh")).unwrap();
        write_for_us(&home.path().join(".ssh/config"), config);
        Self(home)
    }

    fn around(&self, variables: &[(&str, &str)]) -> Surroundings {
        let variables = variables.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        Surroundings { home: Some(self.0.path().into()), system_config: None, variables }
    }

    fn route(&self, address: &str) -> Route {
        let options = ServerOptions { address: Some(address.into()), ..Default::default() };
        resolve(&options, &self.around(&[("USER", "ada")])).unwrap()
    }

    fn ssh(&self, name: &str) -> PathBuf {
        self.0.path().join(".ssh").join(name)
    }
}

#[test]
fn nothing_but_a_host_gets_the_defaults() {
    let home = Home::with("");
    let route = home.route("example.com");
    assert_eq!(route.address(), "example.com:22");
    assert_eq!(route.user(), "v2");
    assert_eq!(route.limit, CONNECT_TIMEOUT);
    let identities: Vec<_> = route.server.identities.iter().map(|identity| identity.path.clone()).collect();
    assert_eq!(identities, USUAL_KEYS.map(|name| home.ssh(name)));
    assert_eq!(route.server.known_hosts.user[0], home.ssh("known_hosts"));
    assert_eq!(route.server.policy, HostKeyPolicy::Ask);
}

#[test]
fn an_alias_brings_what_ssh_config_says() {
    let home = Home::with(
        "Host t\n HostName real.%h.example\n Port 2222\n User bob\n IdentityFile ~/.ssh/%r_key\n IdentitiesOnly yes\n \
         UserKnownHostsFile ~/kh /dev/null\n StrictHostKeyChecking accept-new\n HostKeyAlias pinned\n ConnectTimeout 3",
    );
    let route = home.route("t");
    assert_eq!((route.address(), route.user()), ("real.t.example:2222".into(), "bob"));
    assert_eq!(route.server.identities[0].path, home.ssh("bob_key"));
    assert!(route.server.identities_only);
    assert_eq!(route.server.known_hosts.user, [home.0.path().join("kh"), "/dev/null".into()]);
    assert_eq!(route.server.policy, HostKeyPolicy::AcceptNew);
    assert_eq!(route.server.known_as(), ("pinned", 22));
    assert_eq!(route.limit, Duration::from_secs(3));
    assert_eq!(home.route("eve@t:1").address(), "real.t.example:1");
    assert_eq!(home.route("eve@t:1").user(), "eve");
}

#[test]
fn what_is_said_in_options_comes_before_ssh_config() {
    let home = Home::with(
        "Host *\n User bob\n IdentityFile ~/.ssh/other\n StrictHostKeyChecking no\n ConnectTimeout 3",
    );
    fs::write(home.ssh("mine"), "").unwrap();
    let options = ServerOptions {
        address: Some("t".into()),
        identities: vec![home.ssh("mine")],
        account: Some("team".into()),
        known_hosts: Some("/kh".into()),
        host_key_policy: Some(HostKeyPolicy::Strict),
        connect_timeout: Some(Duration::from_secs(1)),
        ..Default::default()
    };
    let route = resolve(&options, &home.around(&[])).unwrap();
    assert_eq!(route.user(), "team");
    let identities: Vec<_> = route.server.identities.iter().map(|identity| identity.path.clone()).collect();
    assert_eq!(identities, [home.ssh("mine")]);
    assert!(route.server.identities_only && route.server.has_other_identities);
    assert_eq!(route.server.known_hosts.user, [PathBuf::from("/kh")]);
    assert_eq!((route.server.policy, route.limit), (HostKeyPolicy::Strict, Duration::from_secs(1)));
    let none =
        ServerOptions { ssh_config: SshConfigFile::None, address: Some("t".into()), ..Default::default() };
    assert_eq!(resolve(&none, &home.around(&[])).unwrap().user(), "v2");
}

#[test]
fn jump_hosts_come_in_order_with_their_own_options_and_never_in_a_circle() {
    let home = Home::with(
        "Host t\n ProxyJump eve@b:2200,c\nHost b\n HostName b.example\n ProxyJump a\nHost c\n ProxyJump none\nHost round\n ProxyJump round",
    );
    let route = home.route("t");
    let hops: Vec<_> =
        route.jumps.iter().map(|hop| format!("{}@{}:{}", hop.user, hop.host, hop.port)).collect();
    assert_eq!(hops, ["ada@a:22", "eve@b.example:2200", "ada@c:22"]);
    let options = ServerOptions { address: Some("round".into()), ..Default::default() };
    let error = resolve(&options, &home.around(&[])).unwrap_err();
    assert!(error.to_string().contains("circle"), "{error}");
}

fn command(route: &Route) -> Option<String> {
    match &route.way {
        Way::Command(command) => Some(command.line().to_owned()),
        Way::Tcp | Way::Proxy(_) => None,
    }
}

#[test]
fn a_proxy_command_gets_its_tokens_and_is_the_first_hosts() {
    let home = Home::with(
        "Host t\n HostName real\n ProxyCommand nc -x \"a  b\" %h %p %n %r 100%% # no comment\nHost far\n ProxyJump t\nHost no\n \
         ProxyCommand none\nHost *\n ProxyCommand usual",
    );
    let expected = "nc -x \"a  b\" real 22 t v2 100% # no comment";
    assert_eq!(command(&home.route("t")).as_deref(), Some(expected));
    assert_eq!(command(&home.route("far")), Some(expected.replace("v2", "ada")));
    assert_eq!(home.route("no").way, Way::Tcp);
    let mut options = ServerOptions { address: Some("t".into()), ..Default::default() };
    let around = home.around(&[("http_proxy", "http://p:1")]);
    assert!(command(&resolve(&options, &around).unwrap()).is_some());
    options.proxy = Some(Secret::new("http://q:1".into()));
    let route = resolve(&options, &around).unwrap();
    assert!(matches!(route.way, Way::Proxy(_)));
    assert!(route.warnings[0].contains("gives way to the proxy http://q:1"), "{:?}", route.warnings);
}

#[cfg(unix)]
#[test]
fn of_proxy_command_and_proxy_jump_the_first_holds_as_with_ssh() {
    for text in [
        "ProxyCommand c\nProxyJump j",
        "ProxyJump j\nProxyCommand c",
        "ProxyCommand none\nProxyJump j",
        "ProxyJump none\nProxyCommand c",
        "ProxyCommand = c\nProxyCommand d",
        "ProxyJump none\nProxyJump j",
        "ProxyJump none\nProxyJump j\nProxyCommand c",
    ] {
        let home = Home::with(&format!("Host t\n{text}"));
        let asked =
            std::process::Command::new("ssh").arg("-G").arg("-F").arg(home.ssh("config")).arg("t").output();
        let asked = String::from_utf8(asked.unwrap().stdout).unwrap();
        let told = |name: &str| asked.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
        let route = home.route("t");
        let ours = command(&route);
        let theirs = told("proxycommand ");
        assert_eq!(ours, theirs, "{text}: {asked}");
        assert_eq!(route.jumps.first().map(|hop| hop.host.clone()), told("proxyjump "), "{text}");
    }
}

#[test]
fn the_environments_proxy_is_for_the_first_host_and_can_be_switched_off() {
    let home = Home::with("Host t\n ProxyJump jump.example.com");
    let around = home.around(&[("http_proxy", "http://p:1"), ("no_proxy", "example.com")]);
    let mut options = ServerOptions { address: Some("t".into()), ..Default::default() };
    assert_eq!(resolve(&options, &around).unwrap().way, Way::Tcp);
    options.address = Some("other".into());
    assert!(matches!(resolve(&options, &around).unwrap().way, Way::Proxy(_)));
    options.proxy = Some(Secret::new("none".into()));
    assert_eq!(resolve(&options, &around).unwrap().way, Way::Tcp);
    options.proxy = Some(Secret::new("socks5://q".into()));
    let Way::Proxy(proxy) = resolve(&options, &around).unwrap().way else { panic!("there is a proxy") };
    assert_eq!(proxy.to_string(), "socks5://q:1080");
}

#[test]
fn the_agent_is_where_ssh_would_find_it() {
    let agent = |config: &str| Home::with(config).around(&[("SSH_AUTH_SOCK", "/a"), ("OTHER", "/b")]);
    let path = |config: &str| {
        let home = Home::with(config);
        let options = ServerOptions { address: Some("t".into()), ..Default::default() };
        let variables = agent(config).variables;
        resolve(&options, &Surroundings { variables, ..home.around(&[]) }).unwrap().server.agent
    };
    assert_eq!(path(""), Some("/a".into()));
    assert_eq!(path("IdentityAgent none"), None);
    assert_eq!(path("IdentityAgent $OTHER"), Some("/b".into()));
    assert_eq!(path("IdentityAgent \"/c d\""), Some("/c d".into()));
}

#[test]
fn what_cannot_be_meant_is_refused_with_advice() {
    let home = Home::with(
        "Host t\n ProxyCommand nc %q\nHost a;b\n ProxyCommand nc %h\nHost a'b\n ProxyCommand nc %r",
    );
    let refused = |options: ServerOptions| resolve(&options, &home.around(&[])).unwrap_err();
    let named = ServerOptions { address: Some("t".into()), ..Default::default() };
    for error in [
        refused(ServerOptions::default()),
        refused(ServerOptions { identities: vec!["/nowhere/key".into()], ..named.clone() }),
        refused(ServerOptions { connect_timeout: Some(Duration::ZERO), ..named.clone() }),
        refused(ServerOptions { proxy: Some(Secret::new("gopher://x".into())), ..named.clone() }),
        refused(named),
        refused(ServerOptions { address: Some("a;b".into()), ..Default::default() }),
    ] {
        assert_eq!(error.exit_status(), crate::exit::USAGE, "{error}");
        assert!(!error.advice().is_empty());
    }
}

#[test]
fn variables_are_replaced_where_ssh_replaces_them_and_must_be_set() {
    let home = Home::with(
        "Host t\n IdentityAgent ${RUN}/agent\n IdentityFile ~/${RUN}/k\n IdentityFile ${RUN}/%n\n CertificateFile ${RUN}/c\n \
         UserKnownHostsFile ${RUN}/a '${EMPTY}b c'\nHost unset\n IdentityAgent $NO\nHost agent\n IdentityAgent ${NO}/x\nHost key\n \
         IdentityFile ${NO}\nHost certificate\n CertificateFile a${NO}\nHost hosts\n UserKnownHostsFile /a ${NO}",
    );
    let around = home.around(&[("RUN", "/run"), ("EMPTY", "")]);
    let resolve = |host: &str| {
        let options = ServerOptions { address: Some(host.into()), ..Default::default() };
        resolve(&options, &around)
    };
    let server = resolve("t").unwrap().server;
    assert_eq!(server.agent, Some("/run/agent".into()));
    let identities: Vec<_> = server.identities.iter().map(|identity| identity.path.clone()).collect();
    assert_eq!(identities, [home.0.path().join("run/k"), "/run/t".into()]);
    assert_eq!(server.certificates, [PathBuf::from("/run/c")]);
    assert_eq!(server.known_hosts.user, [PathBuf::from("/run/a"), "b c".into()]);
    assert_eq!(resolve("unset").unwrap().server.agent, None);
    for (host, keyword) in [
        ("agent", "IdentityAgent"),
        ("key", "IdentityFile"),
        ("certificate", "CertificateFile"),
        ("hosts", "UserKnownHostsFile"),
    ] {
        let error = resolve(host).unwrap_err();
        let expected = format!("{keyword} of ssh_config leads nowhere: the environment has no NO");
        assert_eq!(error.to_string(), expected);
        assert_eq!(error.exit_status(), crate::exit::USAGE);
    }
}

#[test]
fn a_connect_timeout_of_0_in_ssh_config_is_the_usual_one() {
    assert_eq!(Home::with("ConnectTimeout 0\nConnectTimeout 3").route("t").limit, CONNECT_TIMEOUT);
    assert_eq!(Home::with("ConnectTimeout 1m").route("t").limit, Duration::from_secs(60));
}

/// With a program instead of the first host, so that ssh looks no name up.
#[cfg(unix)]
#[test]
fn tokens_of_a_list_of_jump_hosts_are_filled_in_as_ssh_does_it() {
    let home = Home::with(
        "Host q\n HostName real.example\n User me\n Port 2200\n ProxyJump a.%h,%n.%p,%r@gw.%h\nHost a.*\n HostName first.example\n \
         Port 2022\n User eve\n ProxyJump z.%h.%n.%p.%r\nHost z.*\n ProxyCommand false\n",
    );
    let mut ssh = std::process::Command::new("ssh");
    let said = ssh.arg("-v").arg("-F").arg(home.ssh("config")).args(["q", "true"]).output().unwrap();
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    let started = said.lines().filter(|line| line.contains("Executing proxy command: exec ssh"));
    let mut theirs: Vec<_> = started.filter_map(|line| line.split_whitespace().last()).collect();
    theirs.reverse();
    let route = home.route("q");
    let ours: Vec<_> = route.jumps.iter().map(|hop| hop.host.clone()).collect();
    // ssh tells hosts as they were typed.
    let typed: Vec<_> =
        ours.iter().map(|host| if host == "first.example" { "a.real.example" } else { host }).collect();
    assert_eq!(typed, theirs, "{said}");
    assert_eq!(ours[1], "first.example");
    assert_eq!(route.jumps[3].user, "me");
    let options = ServerOptions {
        address: Some("q".into()),
        proxy_jump: vec!["x.%h".into(), "y.%h".into()],
        ..Default::default()
    };
    let jumps = resolve(&options, &home.around(&[])).unwrap().jumps;
    assert_eq!(jumps.iter().map(|hop| &*hop.host).collect::<Vec<_>>(), ["x.real.example", "y.real.example"]);
}

#[test]
fn what_a_proxy_command_is_given_stays_untold() {
    let home = Home::with(
        "Host t\n ProxyCommand ncat --proxy-auth ada:secret %h\nHost v\n ProxyCommand PW=secret nc %h",
    );
    for (host, shown) in [("t", "the ProxyCommand `ncat ...`"), ("v", "the ProxyCommand `PW=...`")] {
        let route = home.route(host);
        assert!(route.in_words().ends_with(shown), "{}", route.in_words());
        assert!(!format!("{route:?}").contains("secret"), "{route:?}");
        let options = ServerOptions {
            address: Some(host.into()),
            proxy: Some(Secret::new("http://q:1".into())),
            ..Default::default()
        };
        let warnings = resolve(&options, &home.around(&[])).unwrap().warnings.concat();
        assert!(warnings.contains("gives way") && !warnings.contains("secret"), "{warnings}");
    }
}
