//! See `hithe_keys::fuzzing::authorized`; `cargo +nightly fuzz run authorized` in `keys/`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hithe_keys::fuzzing::authorized(data));
