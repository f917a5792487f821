//! The command line of the program `hithe`.

mod asker;
mod run;
mod server;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgMatches, Args as _, FromArgMatches as _, Subcommand};
use clap_complete::Shell;
use hithe_cli_parser::Kind;

use self::run::RunArgs;
use self::server::ServerArgs;
use crate::config::{self, Config, ConfigCommand};
use crate::connect::Route;
use crate::publisher::Failure;
use crate::service::{self, ServiceCommand};
use crate::{COMMAND_LINE, Endpoint, completions, diagnose, endpoint, exit};

/// The program `hithe`.
pub fn main() -> ExitCode {
    keep_freed_memory();
    let _as_it_was = asker::TerminalState::now();
    let matches = grammar().get_matches();
    match obey(&matches) {
        Ok(code) => code,
        Err(failure) => {
            let _ = writeln!(io::stderr(), "{failure}");
            ExitCode::from(failure.exit_status())
        }
    }
}

/// Lets the allocator of glibc keep some megabytes that were freed, instead of giving them back and asking for them anew
/// with every packet, which costs half of the time of an upload: its thresholds follow the largest block ever freed
/// (mallopt(3), M_MMAP_THRESHOLD). Other allocators do not mind.
fn keep_freed_memory() {
    drop(std::hint::black_box(Vec::<u8>::with_capacity(4 << 20)));
}

/// Everything but `http`, `tls` and `tcp`, whose flags are those of the server's grammar.
#[derive(Debug, Subcommand)]
enum Other {
    /// Publish endpoints of the file
    Start {
        /// Their names; all that the file has with --all
        #[arg(required_unless_present = "all")]
        names: Vec<String>,
        /// All that the file has
        #[arg(long, conflicts_with = "names")]
        all: bool,
        #[command(flatten)]
        server: ServerArgs,
        #[command(flatten)]
        run: RunArgs,
    },
    /// Check, change and describe the file
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Find out what stands between this machine and the server
    Diagnose {
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Run the agent in the background
    Service {
        #[command(subcommand)]
        command: ServiceCommand,
    },
    /// Print a script that completes hithe's words in a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the version
    Version,
}

fn grammar() -> clap::Command {
    let mut grammar = clap::Command::new("hithe")
        .version(env!("CARGO_PKG_VERSION"))
        .after_help(EXAMPLES)
        .arg(
            clap::Arg::new(CONFIG)
                .long(CONFIG)
                .global(true)
                .help("Read this file; repeat for several, the later over the earlier. Without it: hithe config path")
                .value_name("FILE")
                .value_parser(clap::value_parser!(PathBuf))
                .action(clap::ArgAction::Append),
        )
        .subcommand_required(true)
        .arg_required_else_help(true);
    for kind in Kind::ALL {
        let command = endpoint::command(kind);
        // What is added brings texts of its own.
        let about = command.get_about().cloned().unwrap_or_default();
        let command = RunArgs::augment_args(ServerArgs::augment_args(command)).about(about).long_about(None);
        grammar = grammar.subcommand(
            command.arg(dry_run()).override_usage(format!("hithe {} [ADDR] [flags]", kind.as_str())),
        );
    }
    Other::augment_subcommands(grammar)
        .about("Publish local services through a server of hithed, and have them back by themselves")
        .long_about(None)
}

const EXAMPLES: &str = "\
Examples:
  hithe http 3000 --server tunnel.example.com
  hithe http 3000 --domain app --basic-auth ada:correct-horse
  hithe http file:///srv/www
  hithe tcp 22
  hithe start web ssh                endpoints of the file
  hithe http 3000 --dry-run          the ssh command that does the same

The server, key and token may stand in the file (hithe config path) or in the
environment: HITHE_SERVER, HITHE_IDENTITY, HITHE_TOKEN.";

const CONFIG: &str = "config";
const DRY_RUN: &str = "dry-run";

fn dry_run() -> clap::Arg {
    clap::Arg::new(DRY_RUN)
        .long(DRY_RUN)
        .help("Publish nothing: print the ssh command that does the same")
        .action(clap::ArgAction::SetTrue)
}

fn usage(why: impl std::fmt::Display) -> Failure {
    Failure::lasting(exit::USAGE, why.to_string())
}

fn obey(matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let Some((name, inner)) = matches.subcommand() else { return Err(usage("say a command: hithe --help")) };
    let files: Vec<PathBuf> = matches.get_many(CONFIG).into_iter().flatten().cloned().collect();
    if let Some(kind) = Kind::ALL.into_iter().find(|kind| kind.as_str() == name) {
        return publish(kind, inner, &files);
    }
    match Other::from_arg_matches(matches).map_err(usage)? {
        Other::Start { names, all: _, server, run } => start(&names, &server, run, &files),
        Other::Config { command } => Ok(config::run(&command, &files, &mut io::stdout(), &mut io::stderr())),
        Other::Diagnose { json, server } => {
            let (options, mut out) = (server.over(&load(&files)?.settings), io::stdout());
            let report = run::runtime()?.block_on(async {
                if json {
                    diagnose::diagnose_json(&options, &mut out).await
                } else {
                    diagnose::diagnose(&options, &mut out).await
                }
            });
            Ok(ExitCode::from(report.map_err(usage)?.exit_status))
        }
        #[cfg(windows)]
        Other::Service { command: ServiceCommand::Run(run) } => {
            service::answer(&run.name, move || start_as_service(&run.log, &files)).map_err(usage)
        }
        Other::Service { command } => service::run(&command, &mut io::stdout()).map_err(usage),
        Other::Completions { shell } => {
            let _ = completions::write(shell, &mut grammar(), &mut io::stdout());
            Ok(ExitCode::SUCCESS)
        }
        Other::Version => {
            let _ = writeln!(io::stdout(), "hithe {}", env!("CARGO_PKG_VERSION"));
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// What the files say. What is only worth knowing goes to standard error.
fn load(files: &[PathBuf]) -> Result<Config, Failure> {
    let config = Config::load(files).map_err(usage)?;
    for note in &config.notes {
        let _ = writeln!(io::stderr(), "{note}");
    }
    Ok(config)
}

/// An endpoint of the command line.
fn publish(kind: Kind, matches: &ArgMatches, files: &[PathBuf]) -> Result<ExitCode, Failure> {
    let server = ServerArgs::from_arg_matches(matches).map_err(usage)?;
    let run = RunArgs::from_arg_matches(matches).map_err(usage)?;
    let endpoint = Endpoint::from_matches(COMMAND_LINE, kind, matches).map_err(usage)?;
    let mut settings = load(files)?.settings;
    let route = Route::resolve(&server.over(&settings))?;
    if matches.get_flag(DRY_RUN) {
        let destination = format!("{}@{}", route.user(), route.host());
        let port = Some(route.port()).filter(|port| *port != 22);
        let _ = write!(io::stdout(), "{}", endpoint.ssh_line(&destination, port));
        return Ok(ExitCode::SUCCESS);
    }
    run.over(&mut settings);
    run::run(vec![endpoint], route, &settings)
}

/// Endpoints of the file; all without names.
fn start(
    names: &[String],
    server: &ServerArgs,
    run: RunArgs,
    files: &[PathBuf],
) -> Result<ExitCode, Failure> {
    let Config { mut settings, endpoints, .. } = load(files)?;
    if let Some(name) = names.iter().find(|name| endpoints.iter().all(|it| it.name != **name)) {
        let known: Vec<_> = endpoints.iter().map(|it| it.name.as_str()).collect();
        return Err(usage(format!("the file has no endpoint {name}; it has: {}", known.join(", "))));
    }
    let wanted = |endpoint: &Endpoint| names.is_empty() || names.contains(&endpoint.name);
    let endpoints: Vec<_> = endpoints.into_iter().filter(wanted).collect();
    if endpoints.is_empty() {
        return Err(usage("the file has no endpoints; see docs/agent-config.md"));
    }
    let route = Route::resolve(&server.over(&settings))?;
    run.over(&mut settings);
    run::run(endpoints, route, &settings)
}

/// Publishes what the files have; why that ended stands in `log`.
#[cfg(windows)]
fn start_as_service(log: &std::path::Path, files: &[PathBuf]) -> u8 {
    let target = config::LogTarget::File(log.to_owned());
    match start(&[], &ServerArgs::default(), RunArgs::logging_to(target.clone()), files) {
        Ok(_) => 0,
        Err(failure) => {
            let (format, level) = (config::LogFormat::Term, config::LogLevel::Info);
            // If it had not come to that.
            let _ = crate::logging::start(&crate::logging::Log { target, format, level });
            tracing::error!("{failure}");
            failure.exit_status()
        }
    }
}
