//! What it costs to read the command line of a session.
//!
//!     cargo bench -p hithe-cli-parser

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use hithe_cli_parser::parse;

fn parsing(criterion: &mut Criterion) {
    for (name, line) in [
        ("bare command", "http"),
        (
            "basic auth",
            "http --schemes http,https --basic-auth 'ada:correct-horse' --basic-auth bob:battery-staple",
        ),
        ("misspelt flag", "http --basic-aut ada:correct-horse"),
    ] {
        criterion.bench_function(name, |bencher| bencher.iter(|| parse(black_box(line)).is_ok()));
    }
}

criterion_group!(benches, parsing);
criterion_main!(benches);
