//! `cargo dev generate`: the parts of `docs/` that are made from the programs themselves.

use std::process::Command;

use anyhow::{Context, bail, ensure};

use super::{root, say};

/// Writes each generated file; with `check` only says which are out of date.
pub(super) fn run(check: bool) -> anyhow::Result<()> {
    let files = [
        ("docs/commands.md", commands()),
        ("docs/modules.md", hithe_cli_parser::modules()),
        ("docs/options.md", options()?),
        ("docs/agent-config.md", agent_file("reference")?),
        ("docs/agent-config.schema.json", agent_file("schema")?),
    ];
    for (path, text) in files {
        let file = root().join(path);
        let current = std::fs::read_to_string(&file).unwrap_or_default();
        if current == text {
            continue;
        }
        if check {
            bail!("{path} is out of date: run `cargo dev generate`");
        }
        std::fs::create_dir_all(root().join("docs")).context("cannot make docs/")?;
        std::fs::write(&file, text).with_context(|| format!("cannot write {path}"))?;
        say(&format!("generate: wrote {path}"));
    }
    Ok(())
}

/// What a publisher can say, from the crate that defines it.
fn commands() -> String {
    hithe_cli_parser::reference()
}

/// What the agent says of its file.
fn agent_file(what: &str) -> anyhow::Result<String> {
    let program = crate::program::try_hithe().map_err(anyhow::Error::msg)?;
    let output = Command::new(program).args(["config", what]).env_clear().env("HOME", "/home/you").output();
    let output = output.context("cannot start hithe")?;
    ensure!(output.status.success(), "hithe config {what}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).context("the reference is UTF-8")
}

/// The server's options, from its own help.
fn options() -> anyhow::Result<String> {
    let program = crate::program::try_hithed().map_err(anyhow::Error::msg)?;
    let mut text = String::from(
        "<!-- Written by `cargo dev generate`; do not edit. -->\n\n# Options of hithed\n\n\
         Each option is a flag, an environment variable, and a key of the same name in the file that `--config` names.\n",
    );
    for command in [
        &["--help"][..],
        &["serve", "--help"],
        &["demo", "--help"],
        &["check", "--help"],
        &["health", "--help"],
    ] {
        // A clean environment, so that nothing of this machine shows in the defaults.
        let output = Command::new(program).args(command).env_clear().env("HOME", "/home/you").output();
        let output = output.context("cannot start hithed")?;
        let line = command.join(" ");
        ensure!(output.status.success(), "hithed {line}: {}", String::from_utf8_lossy(&output.stderr));
        let help = String::from_utf8(output.stdout).context("help is UTF-8")?;
        let help: String = help.lines().map(|line| line.trim_end().to_owned() + "\n").collect();
        text.push_str(&format!("\n## `hithed {line}`\n\n```text\n{}\n```\n", help.trim_end()));
    }
    Ok(text)
}
