//! The program `hithed`: reads the command line and runs what it says.

use std::io::{self, Write as _};
use std::process::ExitCode;

use anyhow::{Context as _, anyhow};
use hithed::cli::{Cli, Command};
use hithed::config::{Config, Options};
use hithed::server::{Passed, Server, Shutdown};
use hithed::{cli, demo, logging};

fn main() -> ExitCode {
    let cli = match Cli::read(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let done = match cli.command {
        Command::Serve(options) => serve(*options).map(|()| ExitCode::SUCCESS),
        Command::Admin(options) => cli::admin(*options, &mut io::stdout().lock())
            .map(|done| if done { ExitCode::SUCCESS } else { ExitCode::FAILURE }),
        Command::Demo(options) => run(demo::run(options)),
        Command::Health(options) => {
            let listen = std::env::var("HITHED_HEALTH_LISTEN").ok();
            cli::health(&options, listen.as_deref(), &mut io::stdout().lock())
                .map(|well| if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Command::Check(options) => {
            let fine = cli::check(*options, &mut io::stdout().lock());
            Ok(if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
    };
    done.unwrap_or_else(|error| {
        let _ = writeln!(io::stderr(), "hithed: {error:#}");
        ExitCode::FAILURE
    })
}

fn serve(options: Options) -> anyhow::Result<()> {
    let config = Config::load(options).map_err(|error| anyhow!("the configuration is wrong:\n{error}"))?;
    let level = logging::start(config.log);
    let passed = Passed::take()?;
    run(async {
        // First, since whoever sees the ready file may ask for the end at once.
        let shutdown = Shutdown::on_signals().context("cannot listen for signals")?;
        let server = Server::bind_with(config, passed)?.with_log_level(level);
        server.run(shutdown).await;
        Ok(())
    })
}

fn run<T>(program: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    // It accepts and looks after things; what is accepted is served by threads of their own.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("cannot start the runtime")?.block_on(program)
}
