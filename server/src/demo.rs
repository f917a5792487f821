//! `hithed demo`: a complete tunnel on this machine, with its own `ssh` as the publisher.
//!
//! Nothing here is special: the server is the real one, the publisher is stock OpenSSH with a fresh key, and the
//! state is thrown away at the end.

mod first;
mod upstream;

use std::io::{self, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use hithe_keys::host;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::cli::DemoOptions;
use crate::config::{Config, ListenAddress, Options};
use crate::server::{Server, Shutdown};

/// Runs until Ctrl-C, or with `--once` until the first answer.
///
/// # Errors
/// Says what is missing on this machine, or which step did not work.
pub async fn run(options: DemoOptions) -> anyhow::Result<ExitCode> {
    check_ssh().await?;
    let state =
        tempfile::Builder::new().prefix("hithe-demo-").tempdir().context("cannot make a directory")?;
    let key = fresh_key(state.path())?;
    // Another program may take a port between the look and the use.
    let usual = Server::bind(config(state.path(), &key, [2222, 8080, 8443])?);
    let server =
        usual.or_else(|_| Server::bind(config(state.path(), &key, [0; 3])?).map_err(anyhow::Error::new))?;
    let ca = server.ca_file().ok_or_else(|| anyhow!("the demo server has no authority of its own"))?;
    let ssh_port = server.addresses().ssh.first().map(SocketAddr::port).unwrap_or_default();
    trust_the_server(state.path(), ssh_port)?;
    let upstream = upstream::Upstream::bind().await.context("cannot start the sample upstream")?;

    let stop = CancellationToken::new();
    let serving = server.run(Shutdown::when(stop.clone()));
    let showing = async {
        let shown = show(&options, state, ssh_port, upstream.port(), &ca).await;
        stop.cancel();
        shown
    };
    tokio::select! {
        ((), shown) = async { tokio::join!(serving, showing) } => shown,
        () = upstream.serve() => bail!("the sample upstream ended"),
    }
}

async fn show(
    options: &DemoOptions,
    state: TempDir,
    ssh_port: u16,
    upstream: u16,
    ca: &Path,
) -> anyhow::Result<ExitCode> {
    let words = publish_command(state.path(), ssh_port, upstream);
    say(&format!("A sample service listens on http://127.0.0.1:{upstream}. This publishes it:\n\n"))?;
    say(&format!("  {}\n\n", shell_line(&words)))?;
    let mut publisher = Publisher::start(&words)?;
    let urls = publisher.urls().await?;
    let [http, https] = urls.as_slice() else { bail!("expected two URLs from ssh, got {urls:?}") };
    let answer = first::get(http).await.with_context(|| format!("the first request to {http} failed"))?;
    say(&format!("\nGET {http}/ -> {}\n  {}\n\n", answer.status, answer.first_line))?;
    if options.once {
        return Ok(if answer.is_right() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    say(&advice(&words, upstream, http, https, ca))?;
    publisher.follow().await?;
    Ok(ExitCode::SUCCESS)
}

async fn check_ssh() -> anyhow::Result<()> {
    let found = Command::new("ssh").arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status().await;
    match found {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => bail!(
            "the demo publishes with this machine's own ssh, and there is none. Install it \
             (Debian, Ubuntu: apt-get install openssh-client) and run the demo again"
        ),
        Err(error) => Err(error).context("cannot run ssh"),
    }
}

/// Loopback only, on the default ports where they are free.
fn config(state: &Path, authorized_keys: &Path, [ssh, http, https]: [u16; 3]) -> anyhow::Result<Config> {
    let options = Options {
        state_dir: Some(state.to_owned()),
        ssh_listen: loopback(ssh)?,
        http_listen: loopback(http)?,
        https_listen: loopback(https)?,
        tcp_listen_address: Some("127.0.0.1".parse()?),
        authorized_keys: Some(authorized_keys.to_owned()),
        ..Options::default()
    };
    Ok(Config::try_from(options)?)
}

/// Browsers take `*.localhost` for 127.0.0.1 or ::1, so both listen, on the same port.
fn loopback(preferred: u16) -> anyhow::Result<Vec<ListenAddress>> {
    let free = |port| {
        let v4 = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
        let port = v4.local_addr()?.port();
        let v6 = TcpListener::bind((Ipv6Addr::LOCALHOST, port));
        match v6 {
            Ok(_) => Ok((port, true)),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(error),
            Err(_no_ipv6) => Ok((port, false)),
        }
    };
    let (port, v6) = free(preferred).or_else(|_| free(0)).context("no free port on 127.0.0.1")?;
    let mut addresses = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, port))];
    addresses.extend(v6.then_some(SocketAddr::from((Ipv6Addr::LOCALHOST, port))));
    Ok(addresses.into_iter().map(|address| ListenAddress { address, fallback: false }).collect())
}

/// A key for the publisher, and the file that lets it in.
fn fresh_key(state: &Path) -> anyhow::Result<std::path::PathBuf> {
    let directory = state.join("publisher");
    std::fs::create_dir(&directory)?;
    let key = host::load_or_create(&directory).context("cannot make a key for the publisher")?;
    std::fs::rename(directory.join("ssh_host_ed25519_key"), directory.join("id_ed25519"))?;
    let authorized = state.join("authorized_keys");
    let mut public = key.public_key().clone();
    public.set_comment("demo@localhost");
    let line = public.to_openssh().context("cannot write the publisher's key")?;
    std::fs::write(&authorized, format!("{line}\n"))?;
    Ok(authorized)
}

/// The publisher knows the host key beforehand, so that ssh asks nothing.
fn trust_the_server(state: &Path, ssh_port: u16) -> anyhow::Result<()> {
    let key = host::load_or_create(state)?.public_key().to_openssh().context("cannot read the host key")?;
    std::fs::write(state.join("known_hosts"), format!("[127.0.0.1]:{ssh_port} {key}\n"))?;
    Ok(())
}

fn publish_command(state: &Path, ssh_port: u16, upstream: u16) -> Vec<String> {
    let option = |name: &str, path: &str| format!("{name}={}", state.join(path).display());
    let mut words = vec!["ssh".to_owned(), "-F".to_owned(), "none".to_owned()];
    words.extend(["-p".to_owned(), ssh_port.to_string()]);
    words.extend(["-o".to_owned(), "IdentitiesOnly=yes".to_owned()]);
    words.extend(["-o".to_owned(), option("IdentityFile", "publisher/id_ed25519")]);
    words.extend(["-o".to_owned(), option("UserKnownHostsFile", "known_hosts")]);
    words.extend(["-R".to_owned(), format!("443:localhost:{upstream}")]);
    words.extend(["v2@127.0.0.1", "http", "--schemes", "http,https"].map(str::to_owned));
    words
}

/// As one would type it, in lines that fit a terminal.
fn shell_line(words: &[String]) -> String {
    let plain = |word: &str| word.bytes().all(|b| b.is_ascii_alphanumeric() || b"@%+=:,./-_".contains(&b));
    let quote = |word: &String| match plain(word) {
        true => word.clone(),
        false => shell_words::quote(word).into_owned(),
    };
    let quoted: Vec<_> = words.iter().map(quote).collect();
    quoted.join(" ").replace(" -o ", " \\\n    -o ").replace(" -R ", " \\\n    -R ")
}

fn advice(words: &[String], upstream: u16, http: &str, https: &str, ca: &Path) -> String {
    let own = |word: &String| word.replace(&format!("localhost:{upstream}"), "localhost:YOUR_PORT");
    let own: Vec<_> = words.iter().map(own).collect();
    format!(
        "Open it:        {http}\n\
         With https:     curl --cacert {} {https}\n\
         Your own port:  {}\n\n\
         Requests appear below. Ctrl+C ends the demo.\n\n",
        shell_words::quote(&ca.display().to_string()),
        shell_line(&own)
    )
}

/// The ssh client, as a child whose lines are shown.
struct Publisher {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    errors: Lines<BufReader<Box<dyn AsyncRead + Unpin + Send>>>,
}

impl Publisher {
    fn start(words: &[String]) -> anyhow::Result<Self> {
        let (program, arguments) = words.split_first().context("no command")?;
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start ssh")?;
        let lines = child.stdout.take().context("ssh has no output")?;
        let errors = child.stderr.take().context("ssh has no error output")?;
        let errors: Box<dyn AsyncRead + Unpin + Send> = Box::new(errors);
        Ok(Self { child, lines: BufReader::new(lines).lines(), errors: BufReader::new(errors).lines() })
    }

    /// Shows what ssh prints until both URLs are there.
    async fn urls(&mut self) -> anyhow::Result<Vec<String>> {
        let mut urls = Vec::new();
        let reading = async {
            while urls.len() < 2 {
                let Some(line) = self.lines.next_line().await? else { break };
                say(&format!("  {line}\n"))?;
                let url = line.strip_prefix("Forwarding").and_then(|rest| rest.split_whitespace().next());
                urls.extend(url.map(str::to_owned));
            }
            anyhow::Ok(())
        };
        timeout(PUBLISH_WAIT, reading).await.context("ssh did not publish in time")??;
        if urls.is_empty() {
            let mut said = String::new();
            while let Ok(Some(line)) = self.errors.next_line().await {
                said.push_str(&line);
                said.push('\n');
            }
            bail!("ssh did not publish. It said:\n{said}");
        }
        Ok(urls)
    }

    /// Shows requests until Ctrl-C or the end of ssh.
    async fn follow(&mut self) -> anyhow::Result<()> {
        let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
        loop {
            tokio::select! {
                line = self.lines.next_line() => match line? {
                    Some(line) => say(&format!("  {line}\n"))?,
                    None => bail!("ssh ended: {}", self.child.wait().await?),
                },
                Ok(Some(line)) = self.errors.next_line() => say(&format!("  {line}\n"))?,
                _ = &mut interrupt => return Ok(()),
            }
        }
    }
}

fn say(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("cannot write to the terminal")
}

const PUBLISH_WAIT: Duration = Duration::from_secs(15);
