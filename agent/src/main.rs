//! The program `hithe`.

use std::process::ExitCode;

fn main() -> ExitCode {
    hithe::main()
}
