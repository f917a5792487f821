//! `cargo dev`: see [`hithe_integration::dev`].

use std::process::ExitCode;

fn main() -> ExitCode {
    hithe_integration::dev::main()
}
