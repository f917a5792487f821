//! What a file says of a host, compared with what ssh makes of it.

use std::fs;

use super::*;
use crate::connect::modes::write_for_us;

fn said(host: &str, text: &str) -> Said {
    said_with(host, &[("config", text)])
}

fn said_with(host: &str, files: &[(&str, &str)]) -> Said {
    let home = tempfile::tempdir().unwrap();
    let ssh = home.path().join(".ssh");
    for (name, text) in files {
        let path = ssh.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        write_for_us(&path, text);
    }
    let source = Source { path: ssh.join("config"), kind: SourceKind::Users };
    Said::of(host, &[source], Some(home.path())).unwrap()
}

#[test]
fn of_each_option_the_first_word_holds_and_identity_files_add_up() {
    let text = "Host other\n User nobody\nHost t tunnel-*\n User ada\n User bob\n Port=2222\n IdentityFile a\nHost *\n User eve\n IdentityFile b";
    let said = said("t", text);
    assert_eq!(said.word("User"), Some("ada"));
    assert_eq!(said.port, Some(2222));
    assert_eq!(said.identities, ["a", "b"]);
    assert!(said.warnings.is_empty(), "{:?}", said.warnings);
}

#[test]
fn a_negated_pattern_keeps_its_block_away() {
    let text = "Host *.example.com !private.example.com\n User ada";
    assert_eq!(said("a.example.com", text).word("User"), Some("ada"));
    assert_eq!(said("private.example.com", text).word("User"), None);
}

#[test]
fn a_line_that_cannot_be_read_costs_that_line_and_is_named() {
    let said = said("t", "Host t\n Port many\n User ada\n ServerAliveInterval 1m\n AddKeysToAgent confirm");
    assert_eq!(said.word("User"), Some("ada"));
    assert_eq!(said.warnings.len(), 1, "{:?}", said.warnings);
    assert!(said.warnings[0].contains("config:2: `Port many` is left out"), "{:?}", said.warnings);
}

#[test]
fn a_line_without_meaning_here_is_not_shown_since_it_may_hold_a_secret() {
    let warnings = said("t", "SetEnv TOKEN=\"secret\nMatch exec \"get --password secret\"").warnings.concat();
    assert!(warnings.contains("`SetEnv` is left out") && !warnings.contains("secret"), "{warnings}");
}

#[test]
fn what_protects_and_is_not_heeded_is_named_once_and_only_for_its_host() {
    let text = "Host t\n RevokedHostKeys /r\n Ciphers aes256-gcm@openssh.com\n revokedhostkeys /s\n ForwardX11 no\n \
                PubkeyAuthentication yes\nHost other\n BindAddress ::1";
    assert_eq!(said("t", text).warnings, ["ssh_config: not heeded: RevokedHostKeys, Ciphers"]);
}

#[test]
fn a_match_block_holds_for_its_host_only() {
    let text = "Host t\n HostName real.example.com\nMatch host real.*\n User ada\nMatch exec \"true\"\n Port 1\nMatch originalhost x\n Port 2\nMatch all\n Port 3";
    let said = said("t", text);
    assert_eq!(said.word("User"), Some("ada"));
    assert_eq!(said.port, Some(3));
    assert!(said.warnings[0].contains("`Match exec ...`"), "{:?}", said.warnings);
}

#[test]
fn included_files_hold_where_they_are_included() {
    let files = [
        ("config", "Host t\n Include conf.d/*.conf\nHost *\n User eve"),
        ("conf.d/1.conf", "User ada\nHost other\n Port 1"),
        ("conf.d/2.conf", "Port 2222\nInclude config"),
    ];
    let for_t = said_with("t", &files);
    assert_eq!((for_t.word("User"), for_t.port), (Some("ada"), Some(2222)));
    assert!(for_t.warnings[0].contains("include one another"), "{:?}", for_t.warnings);
    let for_x = said_with("other", &files);
    assert_eq!((for_x.word("User"), for_x.port), (Some("eve"), None));
}

#[test]
fn options_without_a_field_are_kept_as_words() {
    let said =
        said("t", "UserKnownHostsFile ~/a \"b c\"\nidentitiesonly yes\nStrictHostKeyChecking accept-new");
    assert_eq!(said.words("UserKnownHostsFile").unwrap().len(), 2);
    assert!(said.is_yes("IdentitiesOnly"));
    assert_eq!(said.word("StrictHostKeyChecking"), Some("accept-new"));
}

/// What ssh makes of a file: its options, or that it refuses them.
#[cfg(unix)]
fn of_ssh(file: &Path) -> Option<Vec<(String, String)>> {
    let asked = std::process::Command::new("ssh").arg("-G").arg("-F").arg(file).arg("t").output().unwrap();
    let text = String::from_utf8(asked.stdout).unwrap();
    let pairs = text.lines().filter_map(|line| line.split_once(' '));
    asked.status.success().then(|| pairs.map(|(name, value)| (name.into(), value.into())).collect())
}

/// What a file may say of the host `t`.
#[cfg(unix)]
const LINES: &[&str] = &[
    "User 'ada'",
    "User \"ada bob\"x",
    "User a\"'\"b'\"'c",
    r"User a\ b",
    r"User 'a\ b'",
    r#"User "a\"b\\c\d\'e""#,
    r"User a\'b",
    "User ada # comment",
    "User ada#1",
    "User ada #",
    "User 'ada",
    "User \"ada' # \"",
    "User ada bob",
    "User \"\"",
    "User",
    "User=ada",
    "User = ada",
    "User == ada",
    "\tUser\t ada \t",
    "IdentityFile ~/k#1",
    "IdentityFile '~/a b'",
    "IdentityFile ~/a b",
    r"IdentityFile C:\keys\\ada",
    "HostKeyAlias a=b",
    "HostName 'h'",
    "Port '2222'",
    "Port many",
    "Port 0",
    "Port 65536",
    "ConnectTimeout 0",
    "ConnectTimeout \"1m30\"",
    "ConnectTimeout none",
    "ConnectTimeout -1",
    "ConnectTimeout none\nConnectTimeout 5",
    "ConnectTimeout 0\nConnectTimeout 5",
    "Host 't' # s\nUser ada",
    "Host \"s t\"\nUser ada",
    "Host T\nUser ada",
    "Match originalhost T\nUser ada",
    "Match originalhost x,!t,*\nUser ada",
    "HostName %h.example.com\nMatch host T.example.com\nUser ada",
    "HostName %h.example.com\nMatch host %h.example.com\nUser ada",
    "HostName t%%h\nMatch host t%h\nUser ada",
];

#[cfg(unix)]
#[test]
fn quotes_backslashes_and_comments_are_read_as_ssh_reads_them() {
    let nothing = of_ssh(Path::new("/dev/null")).unwrap();
    for line in LINES {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("config");
        fs::write(&file, line).unwrap();
        let source = Source { path: file.clone(), kind: SourceKind::Named };
        let ours = Said::of("t", &[source], None).unwrap();
        let Some(theirs) = of_ssh(&file) else {
            assert_eq!(ours.warnings.len(), 1, "{line}: {:?}", ours.warnings);
            assert!(ours.options.is_empty() && ours.port.is_none(), "{line}: {ours:?}");
            assert!(ours.identities.is_empty() && ours.connect_timeout.is_none(), "{line}: {ours:?}");
            continue;
        };
        assert!(ours.warnings.is_empty(), "{line}: {:?}", ours.warnings);
        for name in ["user", "hostkeyalias"] {
            let word = ours.word(name).map_or_else(|| values(&nothing, name), |word| vec![word.into()]);
            assert_eq!(word, values(&theirs, name), "{line}");
        }
        let limit = ours.connect_timeout.map_or("none".to_owned(), |limit| limit.as_secs().to_string());
        assert_eq!([limit], *values(&theirs, "connecttimeout"), "{line}");
        assert_eq!([ours.host_name("t")], *values(&theirs, "hostname"), "{line}");
        assert_eq!([ours.port.unwrap_or(22).to_string()], *values(&theirs, "port"), "{line}");
        if !ours.identities.is_empty() {
            assert_eq!(ours.identities, values(&theirs, "identityfile"), "{line}");
        }
    }
}

#[cfg(unix)]
fn values(options: &[(String, String)], name: &str) -> Vec<String> {
    options.iter().filter(|(known, _)| known == name).map(|(_, value)| value.clone()).collect()
}

#[cfg(unix)]
#[test]
fn an_included_file_that_others_can_change_is_refused_as_ssh_refuses_it() {
    use std::os::unix::fs::PermissionsExt as _;

    let home = tempfile::tempdir().unwrap();
    let (file, included) = (home.path().join("config"), home.path().join("in cluded"));
    fs::write(&included, "User ada").unwrap();
    fs::write(&file, format!("Include '{}'", included.display())).unwrap();
    let read = |path: &Path, kind| Said::of("t", &[Source { path: path.to_owned(), kind }], None);
    for mode in [0o600, 0o644, 0o666, 0o602, 0o400, 0o777] {
        fs::set_permissions(&included, fs::Permissions::from_mode(mode)).unwrap();
        let theirs = of_ssh(&file).is_some();
        assert_eq!(theirs, mode & 0o002 == 0, "{mode:o}");
        for (path, kind) in
            [(&file, SourceKind::Named), (&file, SourceKind::System), (&included, SourceKind::Users)]
        {
            match read(path, kind) {
                Ok(said) => assert!(theirs && said.word("User") == Some("ada"), "{mode:o}"),
                Err(error) => {
                    assert!(!theirs, "{mode:o}: {error}");
                    let mend = format!("`chmod go-w '{}'`", included.display());
                    assert!(error.advice().contains(&mend), "{}", error.advice());
                }
            }
        }
        // What is named is read whatever its mode, and the system's file is root's affair.
        assert!(read(&included, SourceKind::Named).is_ok() && read(&included, SourceKind::System).is_ok());
    }
}

#[cfg(unix)]
#[test]
fn an_include_takes_no_hidden_files_and_no_patterns_from_a_folders_name() {
    let home = tempfile::Builder::new().suffix("[a]").tempdir().unwrap();
    for (name, user) in [("conf/.hidden", "eve"), ("conf/shown", "ada"), (".d/x", "eve"), ("d/x", "bob")] {
        let path = home.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("HostKeyAlias {user}")).unwrap();
    }
    let file = home.path().join("config");
    for (pattern, expected) in [
        ("conf/*", "ada"),
        ("*/x", "bob"),
        ("conf/.h*", "eve"),
        ("conf/[sh]*", "ada"),
        ("?d/x", ""),
        ("co**/**n", "ada"),
        ("./conf//sh*", "ada"),
    ] {
        let folder = home.path().display().to_string().replace('[', "?");
        fs::write(&file, format!("Include {folder}/{pattern}")).unwrap();
        let theirs = of_ssh(&file).unwrap();
        let theirs = theirs.iter().find(|(name, _)| name == "hostkeyalias").map(|(_, value)| value.as_str());
        assert_eq!(theirs.unwrap_or_default(), expected, "{pattern}");
        fs::write(&file, format!("Include {pattern}")).unwrap();
        let source = Source { path: file.clone(), kind: SourceKind::System };
        let said = Said::of("t", &[source], None).unwrap();
        assert_eq!(said.word("HostKeyAlias").unwrap_or_default(), expected, "{pattern}");
    }
}

#[test]
fn what_the_systems_file_includes_lies_beside_it() {
    let (home, system) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::create_dir(home.path().join(".ssh")).unwrap();
    fs::write(home.path().join(".ssh/more"), "HostKeyAlias ours\nUser ada").unwrap();
    fs::write(home.path().join(".ssh/config"), "Include more").unwrap();
    fs::write(system.path().join("more"), "Port 2222\nUser eve\nInclude other").unwrap();
    fs::write(system.path().join("other"), "HostName system").unwrap();
    fs::write(system.path().join("ssh_config"), "Include more\nInclude ~/.ssh/more").unwrap();
    let sources = [
        Source { path: system.path().join("ssh_config"), kind: SourceKind::System },
        Source { path: home.path().join(".ssh/config"), kind: SourceKind::Users },
    ];
    let said = Said::of("t", &sources, Some(home.path())).unwrap();
    assert_eq!(
        (said.port, said.word("User"), said.host_name("t")),
        (Some(2222), Some("eve"), "system".into())
    );
    assert_eq!(said.word("HostKeyAlias"), Some("ours"));
    assert!(said.warnings[0].contains("can name no home directory"), "{:?}", said.warnings);
    assert_eq!(said.warnings.len(), 1, "{:?}", said.warnings);
}
