//! The book of the spool against one that adds everything up anew each time.

use std::net::SocketAddr;

use proptest::prelude::*;

use super::*;
use crate::drain::{Drain, DrainWatch};

const LIMIT: u64 = 1000;
const KEYS: [&str; 2] = [
    "SHA256:n4bQgYhMfWWaL+qgxVrQFaO/TxsrC4Is0V1sFbDwCgg",
    "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU",
];

struct Bench {
    spool: Arc<Spool>,
    tasks: DrainWatch,
    /// Each with its line.
    visits: Vec<(u64, Arc<Elastic>)>,
    _folder: tempfile::TempDir,
}

impl Bench {
    fn new(limit: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::open(folder.path(), Some(limit)).unwrap();
        Self { spool, tasks: Drain::new().1, visits: Vec::new(), _folder: folder }
    }

    fn enter(&mut self, source: u8, publisher: usize) {
        let charged = ChargedTo {
            spool: Arc::clone(&self.spool),
            backlog: Arc::default(),
            publisher: KEYS[publisher].parse().unwrap(),
            visitor: Visitor::new(SocketAddr::from(([192, 0, 2, source], 4000)), None),
        };
        let visit = Elastic::new(charged.clone(), self.tasks.clone(), None);
        let line = self.spool.enter(Arc::downgrade(&visit), &charged);
        self.visits.push((line, visit));
    }

    /// Who has to go according to the lines alone: why, and how much the victim has.
    fn verdict(&self, id: u64) -> Option<(CutOff, u64)> {
        let book = self.spool.book();
        let own = book.lines.get(&id)?;
        let sum = |of: &dyn Fn(&Line) -> bool| -> (u64, u64) {
            let all = book.lines.values().filter(|line| of(line)).map(|line| line.bytes);
            (all.clone().sum(), all.max().unwrap_or_default())
        };
        let of_source = sum(&|line| line.source == own.source);
        let of_publisher = sum(&|line| line.publisher == own.publisher);
        [
            ((own.bytes, own.bytes), LIMIT / 2, CutOff::Visit),
            (sum(&|_| true), LIMIT, CutOff::Full),
            (of_source, LIMIT / 2, CutOff::Source),
            (of_publisher, LIMIT / 4 * 3, CutOff::Publisher),
        ]
        .into_iter()
        .find(|((sum, _), bound, _)| sum > bound)
        .map(|((_, most), _, why)| (why, most))
    }

    fn charge(&self, at: usize, bytes: u64) -> Result<(), TestCaseError> {
        let Some((id, _)) = self.visits.get(at) else { return Ok(()) };
        let charged = self.spool.charge(*id, bytes);
        let seen = charged.map(|(victim, why)| {
            let line = self.visits.iter().find(|(_, visit)| Arc::ptr_eq(visit, &victim)).unwrap().0;
            (why, self.spool.book().lines[&line].bytes)
        });
        prop_assert_eq!(seen, self.verdict(*id));
        Ok(())
    }
}

#[derive(Clone, Debug)]
enum Step {
    Enter(u8, usize),
    Charge(usize, u64),
    Release(usize, u64),
    Strike(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        2 => (0..3_u8, 0..2_usize).prop_map(|(source, publisher)| Step::Enter(source, publisher)),
        6 => (0..8_usize, 0..300_u64).prop_map(|(at, bytes)| Step::Charge(at, bytes)),
        2 => (0..8_usize, 0..400_u64).prop_map(|(at, bytes)| Step::Release(at, bytes)),
        1 => (0..8_usize).prop_map(Step::Strike),
    ];
    prop::collection::vec(step, 1..80)
}

proptest! {
    #[test]
    fn whoever_has_to_go_is_the_one_whom_the_lines_name(steps in steps()) {
        let mut bench = Bench::new(LIMIT);
        for step in steps {
            match step {
                Step::Enter(source, publisher) => bench.enter(source, publisher),
                Step::Charge(at, bytes) => bench.charge(at, bytes)?,
                Step::Release(at, bytes) => {
                    if let Some((id, _)) = bench.visits.get(at) {
                        bench.spool.release(*id, bytes);
                    }
                }
                Step::Strike(at) if at < bench.visits.len() => {
                    bench.spool.strike(bench.visits.swap_remove(at).0);
                }
                Step::Strike(_) => {}
            }
        }
        for (id, _) in bench.visits {
            bench.spool.strike(id);
        }
        let book = bench.spool.book();
        prop_assert_eq!(book.total, 0);
        prop_assert!(book.sources.0.is_empty() && book.publishers.0.is_empty(), "sums are left: {:?}", book);
    }
}

#[test]
fn the_spool_leaves_a_tenth_of_a_small_disk_and_four_gibibytes_of_a_large_one() {
    const GIB: u64 = 1 << 30;
    let spare = |size, free| Room { size, free, in_memory: false }.spare();
    assert_eq!(spare(10 * GIB, 3 * GIB), 2 * GIB);
    assert_eq!(spare(10 * GIB, GIB / 2), 0);
    assert_eq!(spare(1000 * GIB, 10 * GIB), 6 * GIB);
}
