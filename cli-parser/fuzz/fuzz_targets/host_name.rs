//! See `hithe_cli_parser::fuzzing::host_name`; `cargo +nightly fuzz run host_name` in `cli-parser/`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hithe_cli_parser::fuzzing::host_name(data));
