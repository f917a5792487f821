//! See `hithe_cli_parser::fuzzing::template`; `cargo +nightly fuzz run template` in `cli-parser/`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hithe_cli_parser::fuzzing::template(data));
