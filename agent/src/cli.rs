//! The command line of the program `hithe`.

mod asker;
mod output;
mod run;
mod server;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgMatches, Args as _, FromArgMatches as _, Subcommand};
use clap_complete::Shell;
use hithe_cli_parser::{Kind, printable};

use self::output::{Output, print};
use self::run::RunArgs;
use self::server::ServerArgs;
use crate::config::{self, Config, ConfigCommand};
use crate::connect::Route;
use crate::publisher::Failure;
use crate::service::{self, ServiceCommand};
use crate::{COMMAND_LINE, Endpoint, agent, completions, diagnose, endpoint, exit};

/// The program `hithe`.
pub fn main() -> ExitCode {
    keep_freed_memory();
    let _as_it_was = asker::TerminalState::now();
    match completions::answer(grammar) {
        Ok(true) => return ExitCode::SUCCESS,
        Ok(false) => {}
        Err(_) => return ExitCode::from(exit::HERE),
    }
    let ended = grammar()
        .try_get_matches_from(endpoint::with_values(std::env::args_os()))
        .map_or_else(|said| tell(&said), |matches| obey(&matches));
    match ended {
        Ok(code) => code,
        Err(failure) => {
            let _ = writeln!(io::stderr(), "{failure}");
            ExitCode::from(failure.exit_status())
        }
    }
}

/// Prints help or the version, or what is wrong with the command line.
fn tell(said: &clap::Error) -> Result<ExitCode, Failure> {
    if !said.use_stderr() {
        return print(&said.render().to_string());
    }
    match instead(said) {
        Some(why) => {
            let _ = writeln!(io::stderr(), "{why}");
        }
        None => {
            let _ = said.print();
        }
    }
    Ok(ExitCode::from(exit::USAGE))
}

/// What is said of a flag of ngrok that there is not.
fn instead(said: &clap::Error) -> Option<String> {
    let Some(ContextValue::String(flag)) = said.get(ContextKind::InvalidArg) else { return None };
    let flag = flag.split('=').next().filter(|_| said.kind() == ErrorKind::UnknownArgument)?;
    let why = config::in_place_of(flag.strip_prefix("--")?)?;
    Some(format!("{}: {why}", printable(flag)))
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
    /// Publish endpoints that stand in the file; `hithe config path` says where that is
    Start {
        /// Their names in the file
        #[arg(add = completions::endpoints())]
        names: Vec<String>,
        /// All of them
        #[arg(long, conflicts_with = "names")]
        all: bool,
        #[command(flatten)]
        server: ServerArgs,
        #[command(flatten)]
        run: RunArgs,
    },
    /// Check and change the file of the agent, in which endpoints, server and token may stand
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
    /// Print a script that completes hithe's words, and names of the file's endpoints, in a shell
    ///
    /// It asks hithe, so let the shell read it anew each time it starts:
    ///   bash   echo 'source <(hithe completions bash)' >> ~/.bashrc
    ///   zsh    echo 'source <(hithe completions zsh)' >> ~/.zshrc
    ///   fish   echo 'hithe completions fish | source' > ~/.config/fish/completions/hithe.fish
    #[command(verbatim_doc_comment)]
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
        .after_help(after_help())
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

fn after_help() -> String {
    let mut text = format!("{EXAMPLES}\n\nExit status:\n");
    for (status, meaning) in exit::TABLE {
        text.push_str(&format!("  {status}  {meaning}\n"));
    }
    text.push_str("`hithe service status` has its own: see its help.");
    text
}

const CONFIG: &str = "config";
const DRY_RUN: &str = "dry-run";

fn dry_run() -> clap::Arg {
    clap::Arg::new(DRY_RUN)
        .long(DRY_RUN)
        .help("Publish nothing: print the ssh command that does the same")
        .action(clap::ArgAction::SetTrue)
}

/// Where they belong, with one to begin with.
fn no_endpoints(config: &Config) -> String {
    let files: Vec<_> = config.files.iter().map(|file| file.display().to_string()).collect();
    let usual = config::default_path().map(|path| path.display().to_string()).unwrap_or_default();
    let what = match files.is_empty() {
        true => format!("there is no file {usual}"),
        false => format!("no endpoint stands in {}", files.join(", ")),
    };
    format!(
        "{what}\n  Open it with `hithe config edit`, and write such as this; docs/agent-config.md has more:\n\n\
         version: 3\nendpoints:\n  - name: web\n    upstream:\n      url: 3000\n\n  \
         Without a file: hithe http 3000"
    )
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
        Other::Start { names, all, server, run } => {
            start(&names, all, &server, run, &files).map(ExitCode::from)
        }
        Other::Config { command } => {
            let mut out = Output::standard();
            let code = config::run(&command, &files, &mut out, &mut io::stderr());
            out.end(Ok(code))
        }
        Other::Diagnose { json, server } => {
            let (options, mut out) = (server.over(&load(&files)?.settings)?, Output::standard());
            let report = run::runtime()?.block_on(async {
                if json {
                    diagnose::diagnose_json(&options, &mut out).await
                } else {
                    diagnose::diagnose(&options, &mut out).await
                }
            });
            out.end(report.map(|report| ExitCode::from(report.exit_status)).map_err(usage))
        }
        #[cfg(windows)]
        Other::Service { command: ServiceCommand::Run(run) } => {
            service::answer(&run.name, move || start_as_service(&run.log, &files)).map_err(usage)
        }
        Other::Service { command } => {
            let mut out = Output::standard();
            let code = service::run(&command, &mut out).map_err(usage);
            out.end(code)
        }
        Other::Completions { shell } => {
            let mut out = Output::standard();
            let written = completions::write(shell, &mut out);
            out.end(written.map(|()| ExitCode::SUCCESS).map_err(usage))
        }
        Other::Version => print(concat!("hithe ", env!("CARGO_PKG_VERSION"), "\n")),
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
    let endpoint = Endpoint::from_matches(COMMAND_LINE, kind, matches);
    // The grammar is the server's, and so is its advice.
    let endpoint = endpoint.map_err(|error| usage(error.to_string().replace("ssh HOST ", "hithe ")))?;
    let mut settings = load(files)?.settings;
    let options = server.over(&settings)?;
    let route = Route::resolve(&options)?;
    for warning in warnings(&endpoint) {
        let _ = writeln!(io::stderr(), "{warning}");
    }
    if matches.get_flag(DRY_RUN) {
        agent::check(&endpoint).map_err(usage)?;
        for warning in route.warnings() {
            let _ = writeln!(io::stderr(), "{warning}");
        }
        let way = route.ssh_way(&options);
        let destination = format!("{}@{}", route.user(), route.typed_host());
        let notes: String = way.notes.iter().map(|note| format!("# {}\n", printable(note))).collect();
        return print(&format!("{notes}{}", endpoint.ssh_line(&destination, &way.options)));
    }
    run.over(&mut settings);
    run::run(vec![endpoint], route, &settings).map(ExitCode::from)
}

/// What is worth knowing of an endpoint of the command line; of those of a file its lines are told.
fn warnings(endpoint: &Endpoint) -> Vec<String> {
    let stays =
        "To keep it on this machine, say --terminate-at agent; if the server is meant, --terminate-at edge";
    let leaves = endpoint.gives_key_away().then(|| format!("--key: {} {stays}", endpoint::KEY_LEAVES));
    leaves.into_iter().chain(endpoint.certificate_of_others()).collect()
}

/// Endpoints of the file. What it gives is the exit status.
fn start(
    names: &[String],
    all: bool,
    server: &ServerArgs,
    run: RunArgs,
    files: &[PathBuf],
) -> Result<u8, Failure> {
    let config = load(files)?;
    if config.endpoints.is_empty() {
        return Err(usage(no_endpoints(&config)));
    }
    let Config { mut settings, endpoints, .. } = config;
    let known = || endpoints.iter().map(|it| it.name.as_str()).collect::<Vec<_>>().join(", ");
    if names.is_empty() && !all {
        return Err(usage(format!("which endpoints? Name some of these, or say --all: {}", known())));
    }
    if let Some(name) = names.iter().find(|name| endpoints.iter().all(|it| it.name != **name)) {
        return Err(usage(format!("the file has no endpoint {name}; it has: {}", known())));
    }
    let wanted = |endpoint: &Endpoint| names.is_empty() || names.contains(&endpoint.name);
    let endpoints: Vec<_> = endpoints.into_iter().filter(wanted).collect();
    let route = Route::resolve(&server.over(&settings)?)?;
    run.over(&mut settings);
    run::run(endpoints, route, &settings)
}

/// Publishes what the files have; why that ended stands in `log`.
#[cfg(windows)]
fn start_as_service(log: &std::path::Path, files: &[PathBuf]) -> u8 {
    let target = config::LogTarget::File(log.to_owned());
    match start(&[], true, &ServerArgs::default(), RunArgs::logging_to(target.clone()), files) {
        Ok(status) => status,
        Err(failure) => {
            let (format, level) = (config::LogFormat::Term, config::LogLevel::Info);
            // If it had not come to that.
            let _ = crate::logging::start(&crate::logging::Log { target, format, level });
            tracing::error!("{failure}");
            failure.exit_status()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said of a command line that clap does not take, if it is of us.
    fn said(line: &str) -> Option<String> {
        let words = shell_words::split(line).unwrap();
        instead(&grammar().try_get_matches_from(words).unwrap_err())
    }

    #[test]
    fn flags_of_ngrok_that_there_are_not_say_what_there_is() {
        for (line, answer) in [
            ("hithe http 80 --oauth google", "--oauth: the server cannot ask visitors to log in there"),
            (
                "hithe http 80 --oauth-allow-domain=a.com",
                "protect the endpoint with --basic-auth, --cidr-allow",
            ),
            ("hithe http 80 --auth a:b", "--auth: it is called --basic-auth"),
            (
                "hithe http 80 --traffic-policy-file p.yml",
                "--traffic-policy-file: the server has no traffic policies",
            ),
            ("hithe http 80 --region eu", "--region: means nothing here: the server is where --server says"),
            ("hithe start --all --region eu", "--region: means nothing here"),
            ("hithe http 80 --bind-tls=true", "it is called --schemes"),
            ("hithe http 80 --binding internal", "only public is offered"),
            ("hithe tls 443 --label edge=x", "they name an edge at ngrok"),
        ] {
            let told = said(line).unwrap_or_default();
            assert!(told.contains(answer), "{line}: {told}");
            assert!(!told.contains('_') && !told.contains("a:b"), "{line}: {told}");
        }
        assert_eq!(said("hithe http 80 --compresion"), None);
    }

    #[test]
    fn a_time_may_be_a_number_of_seconds_or_have_a_unit() {
        for (time, is_taken) in [("10", true), ("10s", true), ("1m30s", true), ("0", false), ("soon", false)]
        {
            let taken = grammar().try_get_matches_from(["hithe", "http", "80", "--connect-timeout", time]);
            assert_eq!(taken.is_ok(), is_taken, "{time}");
        }
    }

    #[test]
    fn a_key_that_leaves_and_a_certificate_of_others_are_worth_a_word() {
        let pair = rcgen::generate_simple_self_signed(["app.example.com".to_owned()]).unwrap();
        let warned = |more: &str| {
            let mut words = vec!["80".to_owned()];
            words.push(format!("--crt={}", pair.cert.pem()));
            words.push(format!("--key={}", pair.signing_key.serialize_pem()));
            words.extend(shell_words::split(more).unwrap());
            warnings(&Endpoint::from_words(COMMAND_LINE, Kind::Tls, words).unwrap())
        };
        let leaves = warned("--domain app").join("\n");
        assert!(leaves.contains("SENT TO THE SERVER") && leaves.contains("--terminate-at agent"), "{leaves}");
        assert!(warned("--terminate-at edge").is_empty());
        assert!(warned("--terminate-at agent --domain app").is_empty());
        let others = warned("--terminate-at agent --url tls://www.example.com").join("\n");
        assert!(
            others.contains("not for www.example.com") && others.ends_with("it is for app.example.com"),
            "{others}"
        );
    }
}
