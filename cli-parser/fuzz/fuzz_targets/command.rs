//! See `hithe_cli_parser::fuzzing::command`; `cargo +nightly fuzz run command` in `cli-parser/`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hithe_cli_parser::fuzzing::command(data));
