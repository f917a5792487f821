//! `hithe config …`

use std::io::{self, BufRead as _, IsTerminal as _, Read as _, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Subcommand;
use hithe_cli_parser::printable;

use super::edit::{failed, keep_copy, set, write};
use super::reference::{reference, schema};
use super::upgrade::upgrade;
use super::{Config, ConfigError, Fault, default_path, read, server_address};
use crate::endpoint::Endpoint;

/// What is done with the agent's file.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Say what the file would publish, or what is wrong with it and in which line
    Check,
    /// Open the file in $VISUAL or $EDITOR, and check it afterwards; a copy stays beside it
    Edit,
    /// Save the token that logs in at the server
    #[command(alias = "add-authtoken")]
    AddToken {
        /// Asked for when missing, so that no other user of the machine sees it among the processes
        token: Option<String>,
    },
    /// Save the address of the server: host:port, [user@]host, or a Host of ~/.ssh/config
    #[command(aliases = ["add-connect-url", "add-server-addr"])]
    AddServer { address: String },
    /// Make version 3 of version 2; a copy stays beside it
    Upgrade {
        /// Only print what would be written
        #[arg(long)]
        dry_run: bool,
        /// Put the file where hithe looks for it
        #[arg(long)]
        relocate: bool,
    },
    /// Say which file is meant
    Path,
    /// Print the JSON schema of the file, for editors
    Schema,
    /// Print what every key means, as Markdown
    #[command(hide = true)]
    Reference,
}

/// With the files of `--config`, or none for the usual one. What is asked for goes to `out`, what is wrong to `err`.
pub(crate) fn run(
    command: &ConfigCommand,
    files: &[PathBuf],
    out: &mut impl Write,
    err: &mut impl Write,
) -> ExitCode {
    let result = match command {
        ConfigCommand::Check => check(files, out, err),
        ConfigCommand::Edit => one(files).and_then(|file| edit(&file, out, err)),
        ConfigCommand::AddToken { token } => {
            token.clone().map_or_else(ask_token, Ok).and_then(|token| add(files, "authtoken", &token, out))
        }
        ConfigCommand::AddServer { address } => server_address(address)
            .map_err(|why| fault(&why))
            .and_then(|()| add(files, "connect_url", address, out)),
        ConfigCommand::Upgrade { dry_run, relocate } => {
            one(files).and_then(|file| run_upgrade(&file, *dry_run, *relocate, out))
        }
        ConfigCommand::Path => one(files).map(|file| {
            let _ = writeln!(out, "{}", file.display());
        }),
        ConfigCommand::Schema => {
            let _ = out.write_all(schema().as_bytes());
            Ok(())
        }
        ConfigCommand::Reference => {
            let _ = out.write_all(reference().as_bytes());
            Ok(())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(err, "{error}");
            // As any wrong use.
            ExitCode::from(2)
        }
    }
}

fn fault(message: &str) -> ConfigError {
    Fault { position: None, path: String::new(), message: message.to_owned() }.into()
}

/// The one file that can be meant.
fn one(files: &[PathBuf]) -> Result<PathBuf, ConfigError> {
    match files {
        [] => default_path().ok_or_else(|| fault("there is no home directory: name the file with --config")),
        [file] => Ok(file.clone()),
        _ => Err(fault("several files are named: say which one with a single --config")),
    }
}

fn check(files: &[PathBuf], out: &mut impl Write, err: &mut impl Write) -> Result<(), ConfigError> {
    let config = Config::load(files)?;
    for note in &config.notes {
        let _ = writeln!(err, "{note}");
    }
    let none = config.files.is_empty();
    for file in &config.files {
        let _ = writeln!(out, "{}: valid", file.display());
    }
    if none {
        let path = default_path().map(|path| path.display().to_string()).unwrap_or_default();
        let _ = writeln!(out, "there is no file {path}: `hithe config add-server ADDRESS` makes it");
    }
    match &config.settings.connect_url {
        Some(server) => writeln!(out, "server: {}", printable(server)),
        None => writeln!(out, "server: not named; `hithe config add-server ADDRESS`, or --server"),
    }
    .unwrap_or_default();
    for endpoint in &config.endpoints {
        let _ = writeln!(out, "{}", summary(endpoint));
        // No fault of the file, which may be meant for another machine.
        if let Err(error) = crate::agent::check(endpoint) {
            let warning = format!("{}: it could not be published from here: {error}", endpoint.name);
            let _ = writeln!(err, "{}", printable(&warning));
        }
    }
    Ok(())
}

/// Without values that may be secrets: which rules there are, not what they say.
fn summary(endpoint: &Endpoint) -> String {
    let address = endpoint.command.address();
    let place = [&address.domain, &address.url, &address.remote_addr].into_iter().find_map(Clone::clone);
    let place = place.unwrap_or_else(|| "any name".to_owned());
    let rules: Vec<_> = endpoint.command.modules().clone().into_configs();
    let rules: Vec<_> = rules.iter().map(|it| name_of(&format!("{it:?}"))).collect();
    let rules = if rules.is_empty() { String::new() } else { format!("  [{}]", rules.join(", ")) };
    let kind = endpoint.kind().as_str();
    let text = format!("{}: {kind} {place} -> {}{rules}", endpoint.name, endpoint.upstream);
    printable(&text).into_owned()
}

/// `BasicAuth(BasicAuth { … })`: its variant, in words.
fn name_of(debug: &str) -> String {
    let variant = debug.split('(').next().unwrap_or_default();
    let mut name = String::new();
    for c in variant.chars() {
        if c.is_ascii_uppercase() && !name.is_empty() {
            name.push(' ');
        }
        name.push(c.to_ascii_lowercase());
    }
    name
}

fn text_of(file: &Path) -> Result<String, ConfigError> {
    if !file.exists() {
        return Ok(String::new());
    }
    let not_text = |_| failed(file, "cannot read the file", &io::ErrorKind::InvalidData.into());
    Ok(String::from_utf8(read(file)?).map_err(not_text)?)
}

fn add(files: &[PathBuf], key: &str, value: &str, out: &mut impl Write) -> Result<(), ConfigError> {
    if value.is_empty() {
        return Err(fault("it is empty: nothing was saved"));
    }
    if value.chars().any(char::is_control) {
        return Err(fault("there is a line break or another control character in it: nothing was saved"));
    }
    let file = one(files)?;
    let changed = set(&file, &text_of(&file)?, key, value)?;
    write(&file, &changed).map_err(|error| failed(&file, "cannot write the file", &error))?;
    let _ = writeln!(out, "{}: {key} is saved", file.display());
    Ok(())
}

fn ask_token() -> Result<String, ConfigError> {
    let failed = |error| fault(&format!("cannot read the token: {error}"));
    if io::stdin().is_terminal() {
        return rpassword::prompt_password("Token: ").map_err(failed);
    }
    let mut line = String::new();
    io::stdin().lock().take(MAX_TOKEN).read_line(&mut line).map_err(failed)?;
    Ok(line.trim().to_owned())
}

/// Bytes of a line that may be one.
const MAX_TOKEN: u64 = 4096;

fn run_upgrade(file: &Path, dry_run: bool, relocate: bool, out: &mut impl Write) -> Result<(), ConfigError> {
    let text = String::from_utf8_lossy(&read(file)?).into_owned();
    let home = default_path().filter(|home| relocate && home != file);
    let upgraded = upgrade(file, text.as_bytes())?;
    if dry_run {
        let shown = upgraded.as_ref().map_or(text.as_str(), |it| it.text.as_str());
        let _ = out.write_all(shown.as_bytes());
        return Ok(());
    }
    if upgraded.is_none() && home.is_none() {
        let _ = writeln!(out, "{}: nothing to do, this is version 3", file.display());
        return Ok(());
    }
    let target = home.as_deref().unwrap_or(file);
    if target != file && target.exists() {
        return Err(fault(&format!("there is a file {} already", target.display())));
    }
    let copy = keep_copy(file, &text).map_err(|error| failed(file, "cannot keep a copy", &error))?;
    let fresh = upgraded.as_ref().map_or(text.as_str(), |it| it.text.as_str());
    write(target, fresh).map_err(|error| failed(target, "cannot write the file", &error))?;
    if target != file {
        std::fs::remove_file(file).map_err(|error| failed(file, "cannot remove the file", &error))?;
    }
    let _ = writeln!(out, "{}: version 3; before: {}", target.display(), copy.display());
    if let Some(lost) = upgraded.map(|it| it.comments_lost).filter(|lost| *lost > 0) {
        let _ = writeln!(out, "comments that have no place any more, and stay in the copy: {lost}");
    }
    Ok(())
}

fn edit(file: &Path, out: &mut impl Write, err: &mut impl Write) -> Result<(), ConfigError> {
    let before = text_of(file)?;
    if before.is_empty() {
        let start = "# docs/agent-config.md lists the keys\nversion: 3\n";
        write(file, start).map_err(|error| failed(file, "cannot write the file", &error))?;
    } else if Config::load(&[file.to_path_buf()]).is_ok() {
        // A broken one is not worth the copy of one that was good.
        keep_copy(file, &before).map_err(|error| failed(file, "cannot keep a copy", &error))?;
    }
    loop {
        open_editor(file)?;
        let Err(error) = check(&[file.to_path_buf()], out, err) else { return Ok(()) };
        if !io::stdin().is_terminal() {
            return Err(error);
        }
        let _ = writeln!(err, "{error}\n[e]dit again, [u]ndo all changes, or [k]eep it as it is?");
        let mut answer = String::new();
        let _ = io::stdin().lock().read_line(&mut answer);
        match answer.trim() {
            "u" | "undo" => {
                write(file, &before).map_err(|error| failed(file, "cannot write the file", &error))?;
                let _ = writeln!(out, "{}: as it was", file.display());
                return Ok(());
            }
            // Also at the end of the input.
            "k" | "keep" | "" => return Err(error),
            _ => {}
        }
    }
}

fn open_editor(file: &Path) -> Result<(), ConfigError> {
    let named = ["VISUAL", "EDITOR"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok().filter(|it| !it.is_empty()));
    let editor = named.unwrap_or_else(|| if cfg!(windows) { "notepad" } else { "vi" }.to_owned());
    // A path with backslashes is no word of a shell.
    let words = if cfg!(windows) { None } else { shell_words::split(&editor).ok() };
    let words = words.unwrap_or_else(|| vec![editor.clone()]);
    let Some((program, arguments)) = words.split_first() else {
        return Err(fault("$EDITOR names no program"));
    };
    let status = std::process::Command::new(program).args(arguments).arg(file).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(fault(&format!("{program} has ended with {status}"))),
        Err(error) => Err(fault(&format!("cannot start {program}: {error}; set EDITOR to another"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Status, what was printed, and what was said to be wrong.
    fn ran(command: &ConfigCommand, file: &Path) -> (bool, String, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = run(command, &[file.to_path_buf()], &mut out, &mut err);
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (code == ExitCode::SUCCESS, text(out), text(err))
    }

    #[test]
    fn a_file_is_made_word_by_word_and_checked() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("hithe.yml");
        let add = ConfigCommand::AddToken { token: Some("secret".to_owned()) };
        let (good, said, _) = ran(&add, &file);
        assert!(good && !said.contains("secret"), "{said}");
        assert!(ran(&ConfigCommand::AddServer { address: "tunnel:22".to_owned() }, &file).0);
        let text = std::fs::read_to_string(&file).unwrap();
        assert_eq!(text, "version: 3\nagent:\n  connect_url: tunnel:22\n  authtoken: secret\n");
        std::fs::write(
            &file,
            format!(
                "{text}endpoints:\n  - {{name: a, upstream: {{url: 80}}, basic_auth: 'ada:correct-horse'}}\n"
            ),
        )
        .unwrap();
        let (good, said, noted) = ran(&ConfigCommand::Check, &file);
        assert!(good && noted.is_empty(), "{noted}");
        assert!(
            said.ends_with("valid\nserver: tunnel:22\na: http any name -> localhost:80  [basic auth]\n"),
            "{said}"
        );
        let (good, _, wrong) = ran(&ConfigCommand::AddServer { address: "@@".to_owned() }, &file);
        assert!(!good && wrong.contains("names no server") && wrong.contains("HOST:PORT"), "{wrong}");
        assert!(std::fs::read_to_string(&file).unwrap().contains("tunnel:22"));
        std::fs::write(&file, "version: 3\nagent:\n  connect_url: '@@'\n").unwrap();
        let (good, _, wrong) = ran(&ConfigCommand::Check, &file);
        assert!(
            !good && wrong.contains("hithe.yml:3:16: agent.connect_url: \"@@\" names no server"),
            "{wrong}"
        );
        std::fs::write(
            &file,
            "version: 3\nagent:\n  proxy_url: 'http://ada:secret@'\n  web_allow_hosts: [a, b/c]\n",
        )
        .unwrap();
        let (good, _, wrong) = ran(&ConfigCommand::Check, &file);
        assert!(
            !good && wrong.contains("hithe.yml:3:14: agent.proxy_url: ") && !wrong.contains("secret"),
            "{wrong}"
        );
        assert!(wrong.contains("hithe.yml:4:24: agent.web_allow_hosts: “b/c” is no"), "{wrong}");
        std::fs::write(&file, "version: 3\nagent:\n  tokn: x\n").unwrap();
        let (good, _, wrong) = ran(&ConfigCommand::Check, &file);
        assert!(!good && wrong.contains("hithe.yml:3:3: agent.tokn: not known"), "{wrong}");
        let several = [file.clone(), file];
        assert_eq!(run(&add, &several, &mut Vec::new(), &mut Vec::new()), ExitCode::from(2));
    }

    #[test]
    fn a_folder_that_is_not_there_is_told_and_no_fault_of_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("hithe.yml");
        let text = |name: &str| {
            let url = folder.path().join(name).display().to_string().replace('\\', "/");
            format!(
                "version: 3\nendpoints:\n  - {{name: a, upstream: {{url: 'file:///{}'}}}}\n",
                url.trim_start_matches('/')
            )
        };
        std::fs::write(&file, text("missing")).unwrap();
        let (good, said, noted) = ran(&ConfigCommand::Check, &file);
        assert!(good && said.contains("a: http any name -> file:///"), "{said}");
        assert!(
            noted.starts_with("a: it could not be published from here: ") && noted.contains("missing"),
            "{noted}"
        );
        std::fs::create_dir(folder.path().join("missing")).unwrap();
        assert_eq!(ran(&ConfigCommand::Check, &file).2, "");
    }

    #[test]
    fn an_upgrade_keeps_a_copy_and_a_dry_run_writes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.yml");
        let text = "version: 2\nlog_level: warn\n# lost\n";
        std::fs::write(&file, text).unwrap();
        let upgrade = |dry_run| ConfigCommand::Upgrade { dry_run, relocate: false };
        let fresh = "version: 3\nagent:\n  log_level: warn\n";
        assert_eq!(ran(&upgrade(true), &file).1, fresh);
        assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
        let (good, said, _) = ran(&upgrade(false), &file);
        assert!(good && said.contains("stay in the copy: 1"), "{said}");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), fresh);
        assert_eq!(std::fs::read_to_string(folder.path().join("a.yml.bak")).unwrap(), text);
        assert!(ran(&upgrade(false), &file).1.contains("nothing to do"));
    }
}
