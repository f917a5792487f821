//! See `hithe_cli_parser::fuzzing::pem`; `cargo +nightly fuzz run pem` in `cli-parser/`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hithe_cli_parser::fuzzing::pem(data));
