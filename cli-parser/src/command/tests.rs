//! The grammar as publishers meet it.

use proptest::prelude::*;

use super::*;
use crate::{
    BasicAuth, Code, Credential, HeaderRule, HostRewrite, ModuleSet, MutualTls, Patterns, Pem, Provider,
    RequestHeaders, ResponseHeaders, Secret, SecretKind, TerminateAt, TlsTermination, TlsVersion,
    UserAgentFilter, WebhookVerification,
};

fn command(line: &str) -> Command {
    match parse(line) {
        Ok(Parsed::Publish(command)) => *command,
        other => panic!("{line}: {other:?}"),
    }
}

fn refused(line: &str) -> CommandError {
    parse(line).expect_err(line)
}

fn pairs(line: &str) -> Vec<(String, String)> {
    let Command::Http(http) = command(line) else { panic!("{line} is not http") };
    let credentials = http.modules.basic_auth.unwrap_or_default().credentials;
    credentials.into_iter().map(|it| (it.user, it.password.expose().clone())).collect()
}

#[test]
fn the_three_commands_stand_alone() {
    assert_eq!(command("http"), Command::Http(HttpSpec::default()));
    assert_eq!(command("tls"), Command::Tls(TlsSpec::default()));
    assert_eq!(command(" tcp "), Command::Tcp(TcpSpec::default()));
}

#[test]
fn documented_lines_work_with_the_quotes_eaten_by_the_shell() {
    let expected = [("u1", "password1"), ("u2", "password2")].map(|(u, p)| (u.to_owned(), p.to_owned()));
    assert_eq!(pairs("http --basic-auth u1:password1 --basic-auth u2:password2"), expected);
    assert_eq!(pairs("http --basic-auth='u1:password1' --basic-auth \"u2:password2\""), expected);
}

#[test]
fn a_list_of_user_agents_may_come_with_or_without_its_quotes() {
    for line in ["http --ua-filter-allow=(foo),(bar)", r#"http --ua-filter-allow="(foo)","(bar)""#] {
        let filter = command(line).modules().user_agent_filter.clone().unwrap();
        assert_eq!(
            filter.allow.iter().flat_map(|it| it.expressions()).collect::<Vec<_>>(),
            ["(foo)", "(bar)"]
        );
    }
}

#[test]
fn a_password_may_hold_blanks_hashes_commas_quotes_and_backslashes() {
    for password in
        ["correct horse", "#comment?", r"\d\d\d\d\d", "it's fine", "two  blanks", "a,b,c,d,e,f", "a=b=c=d="]
    {
        assert_eq!(
            pairs(&format!("http --basic-auth ada:{password}")),
            [("ada".to_owned(), password.to_owned())]
        );
    }
}

#[test]
fn schemes_take_a_comma_list_or_repeat() {
    for line in ["http --schemes http,https", "http --schemes=http --schemes https"] {
        let Command::Http(http) = command(line) else { panic!() };
        assert_eq!(http.schemes, [Scheme::Http, Scheme::Https]);
    }
}

#[test]
fn what_is_on_or_off_may_say_so() {
    for on in ["http --compression", "http --compression=true", "http --compression true"] {
        assert_eq!(command(on).to_string(), "http --compression", "{on}");
    }
    for off in [
        "http --compression=false",
        "http --websocket-tcp-converter=false --compression false",
        "http --verify-upstream-tls=false",
        "http --pooling-enabled=false",
    ] {
        assert_eq!(command(off), command("http"), "{off}");
    }
    assert!(command("http --pooling-enabled=true").pools());
    let tls = "http --upstream-tls=true --upstream-tls-verify=true --upstream-server-name a";
    assert!(command(tls).modules().upstream.as_ref().unwrap().verify);
    let port = refused("http --compression 80");
    assert_eq!((port.code(), port.offending_word()), (Code::BAD_FLAG, Some("80")));
    assert!(port.advice().unwrap().contains("--compression=false"), "{port}");
}

#[test]
fn one_of_two_flags_of_the_address_has_to_go() {
    let both = refused("http --domain a --url https://b");
    assert_eq!(both.to_string(), "ERR_HITHE_1110: only one of --domain and --url can be given");
}

#[test]
fn the_reference_names_no_value_where_there_is_none() {
    for page in [crate::reference(), crate::modules()] {
        assert!(page.contains("| `--compression` |") && page.contains("--upstream-protocol PROTOCOL`"));
    }
    assert!(crate::reference().contains("| `--pooling-enabled` |"));
}

#[test]
fn help_is_of_exactly_this_grammar() {
    let Ok(Parsed::Help(help)) = parse("http --help") else { panic!() };
    for part in ["--basic-auth <USER:PASSWORD>", "--schemes <SCHEME>", "ssh -R", "app:443"] {
        assert!(help.contains(part), "{part} is not in\n{help}");
    }
    assert!(help.lines().all(|line| line.len() <= 80), "{help}");
    assert!(matches!(parse("--help"), Ok(Parsed::Help(help)) if help.contains("tcp")));
    assert!(matches!(parse("tcp -h"), Ok(Parsed::Help(_))));
    for line in ["http help", "help http", "http --help 80", "http -h 80", "--help http"] {
        assert_eq!(parse(line), Ok(Parsed::Help(help.clone())), "{line}");
    }
    assert!(matches!(parse("http --basic-auth a:password --help"), Ok(Parsed::Help(_))));
}

#[test]
fn the_line_that_the_manual_shows_of_a_module_can_be_typed() {
    for entry in crate::modules::manual() {
        let line = entry.manual.line;
        let (_, said) = line.split_once(" HOST ").unwrap_or_else(|| panic!("{line}"));
        let eaten_by_the_shell = said.replace('\'', "");
        assert!(command(&eaten_by_the_shell).modules() != &ModuleSet::default(), "{line}");
    }
}

#[test]
fn each_mistake_has_its_code_its_word_and_a_hint() {
    let missing = refused("");
    assert_eq!(missing.code(), Code::NO_COMMAND);
    let command = refused("htp");
    assert_eq!((command.code(), command.offending_word()), (Code::UNKNOWN_COMMAND, Some("htp")));
    assert!(command.advice().unwrap().contains("did you mean http"));
    let flag = refused("http --basic-aut u:password");
    assert_eq!((flag.code(), flag.offending_word()), (Code::BAD_FLAG, Some("--basic-aut")));
    assert!(flag.advice().unwrap().contains("--basic-auth"));
    let value = refused("http --schemes ftp");
    assert_eq!((value.code(), value.offending_word()), (Code::BAD_FLAG, Some("ftp")));
    let port = refused("http 80");
    assert_eq!((port.code(), port.offending_word()), (Code::BAD_FLAG, Some("80")));
    assert!(port.advice().unwrap().contains("-R"));
    assert_eq!(refused("http --basic-auth").code(), Code::BAD_FLAG);
    assert_eq!(refused("tcp --basic-auth ada:correct-horse").code(), Code::BAD_FLAG);
}

#[test]
fn flags_known_elsewhere_say_what_to_do() {
    for line in [
        "http -hostname=app",
        "http -auth=ada:correct-horse",
        "http --inspect",
        "http -inspect=false",
        "http --authtoken x",
    ] {
        let error = refused(line);
        assert_eq!(error.code(), Code::UNSUPPORTED_FLAG, "{line}");
        assert!(error.advice().is_some());
    }
}

#[test]
fn a_bad_password_is_refused_without_being_shown() {
    let error = refused("http --basic-auth ada:horse");
    assert_eq!(error.code(), Code::BASIC_AUTH_PASSWORD);
    assert!(!error.to_string().contains("horse"), "{error}");
    let stray = refused("http --basic-auth ada:correct-horse --basic-auth :battery-staple");
    assert_eq!(stray.code(), Code::BASIC_AUTH_USER);
    assert!(!stray.to_string().contains("staple"), "{stray}");
}

#[test]
fn a_secret_in_the_wrong_place_is_not_repeated_either() {
    for line in [
        "http --schemes https \u{2014}basic-auth ada:correct-horse",
        "http --schemes https -basic-auth ada:correct-horse",
        "http --schemes ada:correct-horse",
        "http -basic-auth ada:correct-horse",
        "http --basic-authada:correct-horse",
        "http --basic-auth:ada:correct-horse",
        "http --bsic-auth=ada:correct-horse",
        "http ada:correct-horse",
        "ada:correct-horse http",
        "tcp --basic-auth ada:correct-horse",
    ] {
        let error = refused(line);
        assert!(!error.to_string().contains("horse"), "{line}: {error}");
    }
    assert_eq!(refused("http localhost:8080").offending_word(), Some("localhost:8080"));
}

#[test]
fn a_key_is_not_repeated_wherever_it_stands() {
    let key = "-----BEGIN PRIVATE KEY-----\nMIGHorse/AgEAMBMGByqGSM49AgEG==\n-----END PRIVATE KEY-----\n";
    let packed = "TUlHSG9yc2UvQWdFQU1CTUdCeXFHU000OUFnRUc9PQpNSUdIb3JzZS9BZ0VBTUJNR0J5cUdTTTQ5QWdFRz09Cg==";
    for line in [
        format!("http {key}"),
        format!("http {packed}"),
        format!("http --key {key}"),
        format!("http --crt {key}"),
        format!("http --crt corp --key {key}"),
        format!("http --crt {key} --key {packed}"),
        format!("http --schemes {packed}"),
        format!("tcp --crt {key} --key {key}"),
        format!("tls --terminate-at upstream --crt {key} --key {key}"),
        format!("{packed} http"),
    ] {
        let error = refused(&line);
        assert!(
            !error.to_string().contains("Horse") && !error.to_string().contains("TUlH"),
            "{line}: {error}"
        );
    }
    assert!(!format!("{:?}", command(&format!("http --crt {key} --key {key}"))).contains("Horse"));
}

#[test]
fn advice_fits_the_command_it_is_given_to() {
    let advice = |line: &str| refused(line).advice().unwrap().to_owned();
    assert!(
        refused("tcp --basic-auth ada:correct-horse").message().contains("for http endpoints, not for tcp")
    );
    assert!(advice("tcp -basic-auth ada:correct-horse").contains("a flag of http"));
    assert!(advice("tcp --domain app").contains("--remote-addr"));
    assert!(advice("http -hostname=app").contains("--domain"));
    assert!(advice("tcp -remote-addr=host:1").contains("--remote-addr"));
    assert!(advice("tcp 22").contains("HOST tcp"));
    assert!(advice("tls --terminated").contains("tls --help"));
    assert!(advice("http -schemes https").contains("--schemes"));
    assert!(advice("HTTP").contains("did you mean http?"));
}

#[test]
fn nothing_stands_behind_two_hyphens() {
    for line in ["http --", "http -- 80", "http --basic-auth ada:password1 -- 80", "http -- --schemes http"] {
        assert_eq!(refused(line).code(), Code::BAD_FLAG, "{line}");
    }
    assert_eq!(
        pairs("http --basic-auth 'ada:password1 -- 80'"),
        [("ada".to_owned(), "password1 -- 80".to_owned())]
    );
}

#[test]
fn a_flag_after_a_value_is_never_lost_in_it() {
    for line in [
        "http --schemes https\t--basic-auth ada:correct-horse",
        "http --schemes='https' --basic-auth ada:correct-horse",
        "http --basic-auth 'eve:it's fine' --basic-auth ada:correct-horse",
        "http --basic-auth eve:#password --basic-auth ada:correct-horse",
        "http --basic-auth \"eve:pass word --basic-auth ada:correct-horse",
    ] {
        let last = pairs(line).pop();
        assert_eq!(last, Some(("ada".to_owned(), "correct-horse".to_owned())), "{line}");
    }
}

#[test]
fn a_webhook_needs_a_known_provider_and_its_secret() {
    let Command::Http(http) = command("http --verify-webhook slack --verify-webhook-secret a b") else {
        panic!()
    };
    let expected =
        WebhookVerification { provider: Some(Provider::Slack), secret: Some(Secret::new("a b".to_owned())) };
    assert_eq!(http.modules.webhook, Some(expected));
    for (line, code) in [
        ("http --verify-webhook-secret horse", Code::WEBHOOK_NO_PROVIDER),
        ("http --verify-webhook githbu --verify-webhook-secret horse", Code::WEBHOOK_PROVIDER),
        ("http --verify-webhook horse", Code::WEBHOOK_PROVIDER),
        ("http --verify-webhook github", Code::WEBHOOK_NO_SECRET),
        ("http --verify-webhook sns --verify-webhook-secret horse", Code::WEBHOOK_NEEDLESS_SECRET),
        ("http --verify-webhook sendgrid --verify-webhook-secret horse", Code::WEBHOOK_PUBLIC_KEY),
        ("http --verify-webhook vmware --verify-webhook-secret horse", Code::BAD_FLAG),
        ("http --verify-webhook github --verify-webhook-secret horse\u{7}", Code::BAD_FLAG),
        ("tcp --verify-webhook sns", Code::BAD_FLAG),
    ] {
        let error = refused(line);
        assert_eq!(error.code(), code, "{line}");
        assert!(!error.to_string().contains("horse"), "{error}");
    }
}

#[test]
fn a_command_has_a_greatest_length() {
    let most = |letter: &str| format!("{}:{}", letter.repeat(128), "'".repeat(128));
    let credentials = ["\u{1f40e}"; 10].map(|it| most(it).parse().unwrap()).to_vec();
    let modules = ModuleSet { basic_auth: Some(BasicAuth { credentials }), ..ModuleSet::default() };
    let greatest = Command::Http(HttpSpec { modules, ..HttpSpec::default() });
    assert_eq!(parse(&greatest.to_string()), Ok(Parsed::Publish(Box::new(greatest))));
    // Quotes that open and never close must not make the parser look again and again.
    let hostile = format!("http --x '{}", "\" --a\"".repeat(40_000));
    assert_eq!(refused(&hostile).code(), Code::BAD_FLAG);
}

#[test]
fn the_user_name_may_be_the_command_or_a_version() {
    assert_eq!(UserName::parse("http"), UserName::Command(Box::new(Command::Http(HttpSpec::default()))));
    assert_eq!(UserName::parse("v2"), UserName::Version2);
    assert_eq!(UserName::parse("ada"), UserName::Version2);
    assert_eq!(UserName::parse("v"), UserName::Version2);
    assert_eq!(UserName::parse("v9"), UserName::UnknownVersion("v9".to_owned()));
}

fn credential() -> impl Strategy<Value = Credential> {
    let user = prop_oneof!["[^:\\pC]{1,20}", "['\" \\\\=#-]{1,8}"];
    let user = user.prop_filter("text", |it| !it.contains(char::REPLACEMENT_CHARACTER));
    let password = prop_oneof!["\\PC{8,60}", "(['\"]| --| -|--x|=| |\\\\|#|,|:|é|a){12,30}"];
    let password = password.prop_filter("fits", |it| {
        it.chars().count() <= 128 && !it.chars().any(|c| c.is_control() || c == char::REPLACEMENT_CHARACTER)
    });
    (user, password).prop_map(|(user, password)| Credential { user, password: Secret::new(password) })
}

fn webhook() -> impl Strategy<Value = WebhookVerification> {
    let text = |it: &Provider| it.secret() == SecretKind::Text;
    let provider = prop::sample::select(Provider::all().filter(text).collect::<Vec<_>>());
    (provider, credential()).prop_map(|(provider, it)| WebhookVerification {
        provider: Some(provider),
        secret: Some(it.password),
    })
}

fn header_rules() -> impl Strategy<Value = Vec<HeaderRule>> {
    let value = prop_oneof![
        "\\PC{0,40}",
        r#"(['"]| --| -|--x|=| |\\|#|,|:|é|\$|\$\$\{|\$\{conn\.client_ip\}){0,20}"#,
    ];
    let rule = ("x-[a-z!#$%&'*+.^_`|~-]{1,12}", value);
    let rule =
        rule.prop_filter_map("a rule", |(name, value)| HeaderRule::try_from(format!("{name}: {value}")).ok());
    prop::collection::vec(rule, 0..4)
}

/// All that look at headers or change them.
fn of_headers() -> impl Strategy<Value = ModuleSet> {
    let pattern = prop_oneof!["[a-z ,'\"#=-]{1,20}", "\\((a|'|\"| --)\\),\\((b|\\\\d| )\\)"];
    let pattern = pattern.prop_filter_map("a pattern", |it| it.parse::<Patterns>().ok());
    let patterns = prop::collection::vec(pattern, 0..4);
    let names = prop::collection::vec("x-[a-zA-Z!#$%&'*+.^_`|~-]{1,12}", 0..4);
    let host = prop::sample::select(vec!["preserve", "localhost:3000", "[::1]:80", "app.internal"]);
    let lists = (header_rules(), names.clone(), header_rules(), names, patterns.clone(), patterns);
    (lists, prop::option::of(host)).prop_map(|((add, remove, answer, hide, allow, deny), host)| ModuleSet {
        request_headers: some(RequestHeaders { add, remove }),
        response_headers: some(ResponseHeaders { add: answer, remove: hide }),
        user_agent_filter: some(UserAgentFilter { allow, deny }),
        host_rewrite: some(HostRewrite { host: host.map(str::to_owned) }),
        ..ModuleSet::default()
    })
}

fn pem() -> impl Strategy<Value = Pem> {
    let block = |label| format!("-----BEGIN {label}-----\nMIIB/+8=\n-----END {label}-----\n");
    let labels = prop::sample::select(vec!["CERTIFICATE", "EC PRIVATE KEY", "X509 CRL"]);
    prop::collection::vec(labels, 1..4)
        .prop_map(move |labels| Pem::Inline(labels.into_iter().map(block).collect()))
}

fn named() -> impl Strategy<Value = Pem> {
    "[a-zA-Z0-9_][a-zA-Z0-9._-]{0,20}".prop_map(Pem::Named)
}

/// Of visitors, as http and tls have it.
fn tls(kind: Kind) -> impl Strategy<Value = ModuleSet> {
    let crt = prop_oneof![
        Just((None, None)),
        named().prop_map(|name| (Some(name), None)),
        (pem(), pem()).prop_map(|(crt, key)| (Some(crt), Some(Secret::new(key)))),
    ];
    let at = prop::option::of(prop::sample::select(vec![TerminateAt::Edge, TerminateAt::Upstream]));
    let version = prop::option::of(prop::sample::select(vec![TlsVersion::V1_2, TlsVersion::V1_3]));
    let authorities = prop::collection::vec(prop_oneof![pem(), named()], 0..3);
    let parts =
        (at, version, crt, authorities).prop_map(|(at, min_version, (certificate, key), authorities)| {
            ModuleSet {
                tls_termination: some(TlsTermination { at, min_version, certificate, key }),
                mutual_tls: some(MutualTls { authorities }),
                ..ModuleSet::default()
            }
        });
    parts.prop_filter("is taken", move |modules| modules.check(kind).is_ok())
}

/// A module without a flag is none.
fn some<T: Default + PartialEq>(module: T) -> Option<T> {
    Some(module).filter(|module| *module != T::default())
}

fn any_command() -> impl Strategy<Value = Command> {
    let scheme = prop_oneof![Just(Scheme::Http), Just(Scheme::Https)];
    let basic_auth = prop::option::of(prop::collection::vec(credential(), 1..4))
        .prop_map(|it| it.map(|credentials| BasicAuth { credentials }));
    let others = (of_headers(), prop::option::of(webhook()), tls(Kind::Http));
    let modules = (basic_auth, others).prop_map(|(basic_auth, (headers, webhook, tls))| ModuleSet {
        basic_auth,
        webhook,
        tls_termination: tls.tls_termination,
        mutual_tls: tls.mutual_tls,
        ..headers
    });
    prop_oneof![
        tls(Kind::Tls).prop_map(|modules| Command::Tls(TlsSpec { modules, ..TlsSpec::default() })),
        Just(Command::Tcp(TcpSpec::default())),
        (prop::collection::vec(scheme, 0..3), modules)
            .prop_filter("is taken", |(schemes, modules)| {
                modules.mutual_tls.is_none() || !schemes.contains(&Scheme::Http)
            })
            .prop_map(|(schemes, modules)| Command::Http(HttpSpec {
                schemes,
                modules,
                ..HttpSpec::default()
            })),
    ]
}

/// Flags that go together in any choice, as they may be typed.
const FLAGS: &[&str] = &[
    "--cidr-allow 10.1.2.3/8,::/0 --cidr-deny 10.9.0.0/16",
    "--circuit-breaker 0.25 --circuit-breaker-window 90s --circuit-breaker-volume 5 --circuit-breaker-probe 2m",
    "--rate-limit 100/10s;key=header:X-Key --rate-limit 5/s",
    "--proxy-proto 2 --websocket-tcp-converter --compression",
    "--mutual-tls-cas corp-ca --tls-min-version 1.3",
    "--crt LS0tLS1CRUdJTiBYLS0tLS0KQUE9PQotLS0tLUVORCBYLS0tLS0K --key -----BEGIN X----- AA== -----END X-----",
    "--upstream-tls --upstream-protocol auto --verify-upstream-tls --upstream-server-name app.internal",
    "--ua-filter-allow (foo),(bar) --ua-filter-deny (?i)bot\\d+, like",
    "--host-header localhost:3000 --request-header-add X-A: ${conn.client_ip} --request-header-add X-A: 2",
    "--request-header-remove cookie --response-header-add x-b: it's --response-header-remove server",
    "--url https://app.example.com --name the app --description 'a --quoted  one' --metadata {\"a\": 1}",
];

proptest! {
    #[test]
    fn any_flags_are_given_back(flags in prop::sample::subsequence(FLAGS, 0..=FLAGS.len()).prop_shuffle()) {
        let first = command(&format!("http {}", flags.join(" ")));
        let line = first.to_string();
        prop_assert_eq!(parse(&line), Ok(Parsed::Publish(Box::new(first))), "{}", line);
    }

    #[test]
    fn modules_run_in_the_order_of_their_stages_whatever_the_order_of_flags(
        flags in prop::sample::subsequence(FLAGS, 0..=FLAGS.len()).prop_shuffle()
    ) {
        let configs = command(&format!("http {}", flags.join(" "))).modules().clone().into_configs();
        let sorted = command(&format!("http {}", { let mut it = flags; it.sort_unstable(); it }.join(" ")));
        prop_assert!(configs.is_sorted_by_key(crate::ModuleConfig::stage));
        prop_assert_eq!(configs, sorted.modules().clone().into_configs());
    }

    #[test]
    fn a_command_is_given_back_by_its_line(command in any_command()) {
        let line = command.to_string();
        prop_assert_eq!(parse(&line), Ok(Parsed::Publish(Box::new(command))), "{}", line);
    }

    #[test]
    fn no_line_panics(line in "(http|tls|tcp|) ?(--[a-z-]{0,12}[ =]?)?.*") {
        let _ = parse(&line);
        let _ = UserName::parse(&line);
    }
}
