//! The same lines before the real sshd: it admits whom we admit, and permits what we permit.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::thread;
use std::time::SystemTime;

use hithe_keys::{AuthorizedKeys, Login, Restrictions, Revocations};

use crate::keygen::{Keygen, read_certificate};

const PROGRAM: &str = "/usr/sbin/sshd";

/// sshd with one file of keys that is written anew for each question. It serves until the test's process ends.
struct Sshd {
    keys: Keygen,
    address: SocketAddr,
}

impl Sshd {
    fn start() -> Self {
        let keys = Keygen::new();
        keys.key("host", "ed25519");
        keys.key("user", "ed25519");
        let config = keys.write(
            "sshd_config",
            format!(
                "HostKey {}\nAuthorizedKeysFile {}\nStrictModes no\nUsePAM no\nPermitRootLogin yes\n\
                 PasswordAuthentication no\nKbdInteractiveAuthentication no\nLogLevel DEBUG1\n",
                keys.path("host").display(),
                keys.path("authorized_keys").display()
            ),
        );
        // sshd of root on a machine that never ran it misses this; others do not need it.
        let _ = std::fs::create_dir_all("/run/sshd");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let log = File::options().create(true).append(true).open(keys.path("log")).unwrap();
        thread::spawn(move || {
            for socket in listener.incoming() {
                let socket = OwnedFd::from(socket.unwrap());
                let mut command = Command::new(PROGRAM);
                command.args(["-i", "-e", "-f"]).arg(&config).env("TZ", "UTC");
                command.stdin(Stdio::from(socket.try_clone().unwrap())).stdout(Stdio::from(socket));
                let served = command.stderr(log.try_clone().unwrap()).spawn();
                let mut child = served.expect("sshd runs (Debian: openssh-server)");
                drop(command);
                thread::spawn(move || child.wait());
            }
        });
        Self { keys, address }
    }

    /// The options in front of the user's key (KEY) or an authority's (CA), in the file that sshd reads; and how we read it.
    fn write(&self, lines: &str) -> AuthorizedKeys {
        // Words as a whole: a key may have any letters in it.
        let words = lines.split_inclusive(char::is_whitespace).map(|word| match word.trim_end() {
            "KEY" => word.replace("KEY", &self.keys.line("user")),
            "CA" => word.replace("CA", &self.keys.line("ca")),
            _ => word.to_owned(),
        });
        let lines: String = words.collect();
        AuthorizedKeys::load(&self.keys.write("authorized_keys", lines + "\n")).unwrap().0
    }

    /// Whether ssh, with these arguments too, gets in and gets what it asks for.
    fn admits(&self, arguments: &[&str]) -> bool {
        let port = self.address.port().to_string();
        let options = [
            "BatchMode=yes",
            "IdentitiesOnly=yes",
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
        ];
        let mut command = Command::new("ssh");
        command.args([
            "-F",
            "none",
            "-p",
            &port,
            "-o",
            "ExitOnForwardFailure=yes",
            "-o",
            "ConnectTimeout=20",
        ]);
        command.args(options.iter().flat_map(|option| ["-o", option])).arg("-i").arg(self.keys.path("user"));
        let run = command.args(arguments).arg("127.0.0.1").arg("true").output().unwrap();
        run.status.code().expect("ssh ends by itself") != 255
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.keys.path("log")).unwrap_or_default()
    }
}

/// Whether we let the user's key in, from the same address at the same time.
fn admitted<'a>(keys: &'a AuthorizedKeys, sshd: &Sshd) -> Option<&'a Restrictions> {
    let key = sshd.keys.public("user");
    let login = Login { user: "v2", peer: sshd.address.ip(), now: SystemTime::now() };
    keys.admit(&key, login, &Revocations::none()).ok().map(|grant| &grant.restrictions)
}

#[test]
fn a_line_admits_whom_it_admits_in_sshd() {
    let sshd = Sshd::start();
    for (lines, admits) in [
        ("KEY", true),
        ("restrict KEY", true),
        ("no-pty,,No-Agent-Forwarding KEY", true),
        (
            "user-rc,X11-forwarding,agent-forwarding,pty,port-forwarding,no-X11-forwarding,no-user-rc KEY",
            true,
        ),
        ("no-touch-required,no-verify-required KEY", true),
        (r#"from="127.0.0.1" KEY"#, true),
        (r#"from="127.0.0.0/8" KEY"#, true),
        (r#"from="127.0.0.?" KEY"#, true),
        (r#"from="*" KEY"#, true),
        (r#"from="!127.0.0.1,*" KEY"#, false),
        (r#"from="*,!127.0.0.0/8" KEY"#, false),
        (r#"from="!10.0.0.1" KEY"#, false),
        (r#"from="!10.0.0.1,127.*" KEY"#, true),
        (r#"from="10.0.0.0/8,::1" KEY"#, false),
        (r#"from="localhost" KEY"#, false),
        (r#"from="127.0.0.1/8" KEY"#, false),
        (r#"from="127.0.0.1," KEY"#, false),
        (r#"from="127.0.0.1",from="*" KEY"#, false),
        (r#"expiry-time="20991231" KEY"#, true),
        (r#"expiry-time="20991231235959Z" KEY"#, true),
        (r#"expiry-time="209912312359" KEY"#, true),
        (r#"expiry-time="20200101Z" KEY"#, false),
        (r#"expiry-time="20991231",expiry-time="20200101" KEY"#, false),
        (r#"expiry-time="2099" KEY"#, false),
        (r#"expiry-time="20991331" KEY"#, false),
        (r#"command="echo \" KEY\" hi" KEY"#, true),
        (r#"command="true",command="true" KEY"#, false),
        (r#"command=true KEY"#, false),
        (r#"command="true KEY"#, false),
        (r#"environment="A=b" KEY"#, true),
        (r#"environment="A" KEY"#, false),
        (r#"tunnel="0" KEY"#, true),
        (r#"tunnel="x" KEY"#, false),
        (r#"permitlisten="443",permitopen="localhost:80" KEY"#, true),
        (r#"permitlisten="none" KEY"#, false),
        (r#"permitlisten="0" KEY"#, false),
        (r#"permitopen="80" KEY"#, false),
        (r#"permitopen="[::1]:80" KEY"#, true),
        ("frob KEY", false),
        ("ptyx KEY", false),
        ("no-restrict KEY", false),
        ("no-pty, KEY", true),
        (",no-pty,\tKEY", true),
        ("no-pty\tKEY", true),
        ("cert-authority KEY", false),
        (r#"principals="a" KEY"#, false),
        ("# KEY", false),
        ("frob KEY\nfrom=\"10.0.0.1\" KEY\nKEY", true),
    ] {
        let keys = sshd.write(lines);
        assert_eq!(sshd.admits(&[]), admits, "sshd: {lines}\n{}", sshd.log());
        assert_eq!(admitted(&keys, &sshd).is_some(), admits, "we: {lines}");
    }
}

#[test]
fn an_option_of_ours_is_refused_by_sshd() {
    let sshd = Sshd::start();
    let keys = sshd.write(r#"account="ada" KEY"#);
    assert!(!sshd.admits(&[]) && sshd.log().contains("unknown key option"), "{}", sshd.log());
    assert!(admitted(&keys, &sshd).is_some());
}

#[test]
fn a_certificate_admits_whom_it_admits_in_sshd() {
    let sshd = Sshd::start();
    let user = user_name();
    for (line, arguments, admits) in [
        ("cert-authority CA", &[][..], true),
        ("CA", &[], false),
        ("cert-authority KEY", &[], false),
        ("cert-authority,principals=\"someone,USER\" CA", &[], true),
        ("cert-authority,principals=\"someone\" CA", &[], false),
        ("cert-authority,from=\"10.0.0.0/8\" CA", &[], false),
        ("cert-authority,from=\"10.0.0.0/8\" CA\ncert-authority CA", &[], true),
        ("cert-authority,expiry-time=\"20200101Z\" CA", &[], false),
        ("cert-authority CA", &["-V", "20200101:20200102"], false),
        ("cert-authority CA", &["-V", "20200101:20990102"], true),
        ("cert-authority CA", &["-h"], false),
        ("cert-authority CA", &["-O", "source-address=127.0.0.0/8"], true),
        ("cert-authority CA", &["-O", "source-address=10.0.0.0/8,::1"], false),
        ("cert-authority CA", &["-O", "critical:source-address=127.0.0.1/8"], false),
        ("cert-authority CA", &["-O", "critical:source-address=*"], false),
        ("cert-authority CA", &["-O", "critical:x@example.com=y"], false),
        ("cert-authority CA", &["-O", "extension:x@example.com=y"], true),
        ("cert-authority CA", &["-O", "clear", "-O", "extension:permit-pty=y"], false),
        ("cert-authority CA", &["-O", "critical:permit-pty"], false),
        ("cert-authority CA", &["-O", "critical:force-command"], false),
        ("cert-authority CA", &["-O", "force-command=true"], true),
        ("cert-authority,command=\"true\" CA", &["-O", "force-command=true"], true),
        ("cert-authority,command=\"false\" CA", &["-O", "force-command=true"], false),
        ("restrict,cert-authority CA", &["-O", "clear"], true),
    ] {
        sshd.keys.run(&[&["-s", "ca", "-I", "id", "-n", &user], arguments, &["user.pub"]].concat());
        let certificate = read_certificate(&sshd.keys.path("user-cert.pub"));
        let keys = sshd.write(&line.replace("USER", &user));
        assert_eq!(sshd.admits(&[]), admits, "sshd: {line} {arguments:?}\n{}", sshd.log());
        let login = Login { user: &user, peer: sshd.address.ip(), now: SystemTime::now() };
        let ours = keys.authorities().check(&certificate, login, &Revocations::none());
        assert_eq!(ours.is_ok(), admits, "we: {line} {arguments:?}: {ours:?}");
    }
}

/// The name that ssh logs in with.
fn user_name() -> String {
    let told = Command::new("id").arg("-un").output().unwrap();
    String::from_utf8(told.stdout).unwrap().trim().to_owned()
}

/// Lines on which we are deliberately stricter.
#[test]
fn some_lines_admit_in_sshd_and_not_here() {
    let sshd = Sshd::start();
    for lines in [
        r#"from="!*.dialup.example.com,*" KEY"#,
        r#"from="127.1" KEY"#,
        r#"permitlisten="https" KEY"#,
        "verify-required KEY",
        r#"expiry-time="20990231" KEY"#,
    ] {
        let keys = sshd.write(lines);
        assert!(sshd.admits(&[]), "{lines}\n{}", sshd.log());
        assert_eq!(admitted(&keys, &sshd), None, "{lines}");
    }
}

#[test]
fn ports_are_permitted_as_in_sshd() {
    let sshd = Sshd::start();
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    let other = if free == 1024 { 1025 } else { free - 1 };
    for (options, host, port, permitted) in [
        ("permitlisten=\"FREE\"", "localhost", free, true),
        ("permitlisten=\"FREE\"", "app.example.com", free, true),
        ("permitlisten=\"OTHER\"", "localhost", free, false),
        ("permitlisten=\"OTHER\",permitlisten=\"FREE\"", "localhost", free, true),
        ("permitlisten=\"FREE\"", "localhost", 0, false),
        ("permitlisten=\"localhost:*\"", "localhost", 0, true),
        ("permitlisten=\"localhost:FREE\"", "LocalHost", free, true),
        ("permitlisten=\"localhost:FREE\"", "127.0.0.1", free, false),
        ("permitlisten=\"*.ada.example.com:FREE\"", "x.ada.example.com", free, true),
        ("permitlisten=\"*.ada.example.com:FREE\"", "ada.example.com", free, false),
        ("permitlisten=\"app?:*\"", "app7", free, true),
        ("permitlisten=\"[::1]:FREE\"", "[::1]", free, true),
        ("permitlisten=\"*:FREE\"", "", free, true),
        ("permitlisten=\"localhost:FREE\"", "", free, false),
        ("permitopen=\"localhost:80\"", "localhost", free, true),
        ("restrict,permitlisten=\"FREE\"", "localhost", free, false),
        ("restrict,port-forwarding,permitlisten=\"FREE\"", "localhost", free, true),
        ("no-port-forwarding", "localhost", free, false),
    ] {
        let options = options.replace("FREE", &free.to_string()).replace("OTHER", &other.to_string());
        let keys = sshd.write(&format!("{options} KEY"));
        let forward = format!("{host}:{port}:localhost:1");
        assert_eq!(sshd.admits(&["-R", &forward]), permitted, "sshd: {options} {forward}\n{}", sshd.log());
        // The client takes brackets off an address.
        let sent = host.trim_matches(['[', ']']);
        let ours = admitted(&keys, &sshd).is_some_and(|limits| limits.may_listen(sent, port.into()));
        assert_eq!(ours, permitted, "we: {options} {forward}");
    }
}
