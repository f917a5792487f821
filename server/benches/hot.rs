//! The parts that every request passes: the registry's lookup, and the buffer between a channel and its visit.
//!
//!     cargo bench -p hithed --features bench

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use hithed::bench::{Buffer, Chain, Counts, Routes};

const NAMES: usize = 10_000;
const PACKET: usize = 32 * 1024;

fn lookup(criterion: &mut Criterion) {
    let routes = Routes::of(NAMES);
    criterion.bench_function("lookup of an exact name", |bencher| {
        bencher.iter(|| routes.find(black_box("n5000.bench.test")));
    });
    criterion.bench_function("lookup below a wildcard", |bencher| {
        bencher.iter(|| routes.find(black_box("some.thing.wild.bench.test")));
    });
    criterion.bench_function("lookup of nothing", |bencher| {
        bencher.iter(|| routes.find(black_box("nobody.bench.test")));
    });
}

fn elastic(criterion: &mut Criterion) {
    let buffer = Buffer::new();
    let mut group = criterion.benchmark_group("elastic buffer");
    group.throughput(Throughput::Bytes(16 * PACKET as u64));
    group.bench_function("16 packets in and out", |bencher| bencher.iter(|| buffer.pass(16, PACKET)));
    let regulated = Buffer::regulated();
    group.bench_function("16 packets of a client that can be paused", |bencher| {
        bencher.iter(|| regulated.pass(16, PACKET));
    });
    group.sample_size(10);
    group.throughput(Throughput::Bytes(1024 * PACKET as u64));
    group.bench_function("32 MiB over the disk", |bencher| bencher.iter(|| buffer.spill(1024, PACKET)));
    group.finish();
}

/// All modules that look at each request.
const MODULES: &str = "http --cidr-allow 0.0.0.0/0,::/0 --ua-filter-deny (?i)bot --basic-auth ada:correct-horse \
                       --circuit-breaker 0.5 --rate-limit 4000000000/1h --host-header localhost \
                       --request-header-add x-ip:${conn.client_ip} --response-header-add x-by:hithe --compression";

fn modules(criterion: &mut Criterion) {
    for (name, command) in [("an empty chain", "http"), ("a chain of nine modules", MODULES)] {
        let chain = Chain::of(command);
        criterion.bench_function(name, |bencher| bencher.iter(|| chain.pass()));
    }
}

fn counts(criterion: &mut Criterion) {
    let counts = Counts::new();
    criterion.bench_function("a visit counted for its account", |bencher| bencher.iter(|| counts.visit()));
    criterion.bench_function("a request counted for its source", |bencher| bencher.iter(|| counts.request()));
}

criterion_group!(benches, lookup, elastic, modules, counts);
criterion_main!(benches);
