//! The elastic buffer against a model: bytes come out as they went in, whatever is taken to the disk and back.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;
use std::time::Duration;

use crate::account::Account;
use futures_util::future::BoxFuture;
use proptest::prelude::*;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

use super::super::spool::{Backlog, Spool};
use super::*;
use crate::drain::Drain;
use crate::visit::Visitor;

const MIB: usize = 1 << 20;

struct Bench {
    spool: Arc<Spool>,
    tasks: DrainWatch,
    _folder: tempfile::TempDir,
}

impl Bench {
    fn new(limit: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::open(folder.path(), Some(limit)).unwrap();
        Self { spool, tasks: Drain::new().1, _folder: folder }
    }

    fn visit(&self) -> Arc<Elastic> {
        self.visit_of(1, &Arc::default())
    }

    fn visit_of(&self, source: u8, backlog: &Arc<Backlog>) -> Arc<Elastic> {
        self.visit_with(source, backlog, None)
    }

    /// Of a client that can be told to pause; with what it was told.
    fn regulated(&self) -> (Arc<Elastic>, mpsc::UnboundedReceiver<bool>) {
        let (sender, told) = mpsc::unbounded_channel();
        let valve = Valve::new(self.tasks.clone(), Client { told: sender, leaves: None });
        (self.visit_with(1, &Arc::default(), Some(valve)), told)
    }

    fn visit_with(&self, source: u8, backlog: &Arc<Backlog>, valve: Option<Arc<Valve>>) -> Arc<Elastic> {
        let charged = ChargedTo {
            spool: Arc::clone(&self.spool),
            backlog: Arc::clone(backlog),
            publisher: key(),
            visitor: Visitor::new(SocketAddr::from(([192, 0, 2, source], 4000)), None),
        };
        Elastic::new(charged, self.tasks.clone(), valve)
    }
}

/// A client that can be told to pause.
struct Client {
    told: mpsc::UnboundedSender<bool>,
    /// Each request needs one to leave.
    leaves: Option<Arc<Semaphore>>,
}

impl Regulated for Client {
    fn tell(&self, open: bool) -> BoxFuture<'static, ()> {
        let _ = self.told.send(open);
        let leaves = self.leaves.clone();
        Box::pin(async move {
            if let Some(leaves) = leaves {
                leaves.acquire().await.unwrap().forget();
            }
        })
    }

    fn in_flight(&self) -> usize {
        4 * MIB
    }
}

fn key() -> Account {
    "SHA256:n4bQgYhMfWWaL+qgxVrQFaO/TxsrC4Is0V1sFbDwCgg".parse().unwrap()
}

async fn take(visit: &Arc<Elastic>) -> Taken {
    timeout(Duration::from_secs(20), poll_fn(|cx| visit.poll_take(cx))).await.expect("something to take")
}

/// All data up to the end.
async fn take_all(visit: &Arc<Elastic>) -> (Vec<u8>, Taken) {
    let mut all = Vec::new();
    loop {
        match take(visit).await {
            Taken::Data(data) => all.extend_from_slice(&data),
            end => return (all, end),
        }
    }
}

/// Bytes that differ wherever one is lost or out of place.
fn pattern(length: usize, from: usize) -> Bytes {
    (from..from + length).map(|at| ((at % 251) ^ (at / 251 % 256)) as u8).collect()
}

/// What comes in while nobody reads, at the speed of the disk as a session does it.
async fn fill(visit: &Arc<Elastic>, length: usize) -> Vec<u8> {
    let mut all = Vec::new();
    while all.len() < length {
        let data = pattern(32 * 1024, all.len());
        all.extend_from_slice(&data);
        visit.push(data);
        visit.charged.backlog.has_room().await;
    }
    at_rest(visit).await;
    all
}

/// Nothing is on its way to the disk, or from there.
async fn at_rest(visit: &Arc<Elastic>) {
    let at_rest = async {
        while visit.lock().busy.is_some() {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(20), at_rest).await.expect("the disk takes it");
}

#[tokio::test]
async fn what_fits_in_memory_never_sees_the_disk() {
    let bench = Bench::new(64 << 20);
    let visit = bench.visit();
    visit.push(Bytes::from_static(b"hello "));
    visit.push(Bytes::from_static(b"world"));
    visit.finish();
    visit.close();
    assert_eq!(take_all(&visit).await, (b"hello world".to_vec(), Taken::Finished));
    assert_eq!(take(&visit).await, Taken::Closed);
    assert_eq!(bench.spool.usage().visits, 0);
}

#[tokio::test]
async fn a_close_without_an_end_is_told_after_the_data() {
    let bench = Bench::new(64 << 20);
    let visit = bench.visit();
    visit.push(Bytes::from_static(b"half"));
    visit.close();
    assert_eq!(take_all(&visit).await, (b"half".to_vec(), Taken::Closed));
}

#[tokio::test]
async fn what_nobody_takes_goes_to_the_disk_and_comes_back_the_same() {
    let bench = Bench::new(256 << 20);
    let visit = bench.visit();
    let sent = fill(&visit, 40 * MIB).await;
    let usage = bench.spool.usage();
    assert!(usage.disk > 20 << 20 && usage.memory < 16 * MIB, "{usage:?}");
    visit.finish();
    let (got, end) = take_all(&visit).await;
    assert_eq!(end, Taken::Finished);
    assert!(got == sent, "the bytes differ");
    drop(visit);
    assert_eq!(bench.spool.usage(), Default::default());
}

#[tokio::test]
async fn the_disk_is_free_again_when_the_visitor_leaves() {
    let bench = Bench::new(256 << 20);
    let visit = bench.visit();
    fill(&visit, 20 * MIB).await;
    visit.abandon();
    visit.push(Bytes::from_static(b"late"));
    assert_eq!(visit.lock().discarded, 4);
    drop(visit);
    let idle = async {
        while bench.spool.usage() != Default::default() {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(20), idle).await.expect("everything is given back");
}

#[tokio::test]
async fn a_visit_over_its_share_is_cut_off_alone() {
    let bench = Bench::new(32 << 20);
    let (slow, well) = (bench.visit_of(1, &Arc::default()), bench.visit_of(2, &Arc::default()));
    well.push(Bytes::from_static(b"well"));
    fill(&slow, 40 * MIB).await;
    assert_eq!(take(&slow).await, Taken::Cut(CutOff::Visit));
    assert_eq!(take(&well).await, Taken::Data(Bytes::from_static(b"well")));
}

#[tokio::test]
async fn when_the_spool_is_full_the_visit_with_most_waiting_goes() {
    let bench = Bench::new(64 << 20);
    let (most, less, last) = (
        bench.visit_of(1, &Arc::default()),
        bench.visit_of(2, &Arc::default()),
        bench.visit_of(3, &Arc::default()),
    );
    fill(&most, 25 * MIB).await;
    let sent = fill(&less, 20 * MIB).await;
    // Three quarters of the whole are one publisher's.
    fill(&last, 15 * MIB).await;
    assert_eq!(take(&most).await, Taken::Cut(CutOff::Publisher));
    less.finish();
    let (got, end) = take_all(&less).await;
    assert!(end == Taken::Finished && got == sent);
}

#[tokio::test]
async fn visitors_of_one_address_share_half_of_the_spool() {
    let bench = Bench::new(40 << 20);
    let (most, less) = (bench.visit(), bench.visit());
    fill(&most, 14 * MIB).await;
    fill(&less, 12 * MIB).await;
    assert_eq!(take(&most).await, Taken::Cut(CutOff::Source));
}

#[tokio::test]
async fn many_visitors_who_stop_just_before_the_disk_is_needed_hold_up_nobody() {
    let bench = Bench::new(1 << 30);
    let backlog = Arc::default();
    let visits: Vec<_> = (0..60).map(|source| bench.visit_of(source, &backlog)).collect();
    for visit in &visits {
        let share = bench.spool.keep() + 250 * 1024;
        for _ in 0..share / 1024 {
            visit.push(pattern(1024, 0));
        }
    }
    timeout(Duration::from_secs(20), backlog.has_room()).await.expect("the session goes on");
}

#[tokio::test]
async fn what_a_reader_took_counts_until_it_comes_for_more() {
    let bench = Bench::new(64 << 20);
    let visit = bench.visit();
    visit.push(pattern(100_000, 0));
    assert!(matches!(take(&visit).await, Taken::Data(_)));
    assert!(bench.spool.usage().memory > 95_000, "{:?}", bench.spool.usage());
    let mut context = Context::from_waker(Waker::noop());
    assert!(visit.poll_take(&mut context).is_pending());
    assert_eq!(bench.spool.usage().memory, 0);
    // Also while its visit ends under it, and until it leaves.
    visit.push(pattern(100_000, 0));
    assert!(matches!(take(&visit).await, Taken::Data(_)));
    visit.cut(CutOff::Full);
    assert!(bench.spool.usage().memory > 95_000, "{:?}", bench.spool.usage());
    visit.abandon();
    assert_eq!(bench.spool.usage().memory, 0);
}

#[tokio::test]
async fn slow_visitors_hold_next_to_nothing_where_all_hold_much() {
    const OTHERS: usize = 200 * MIB;
    const VISITS: usize = 100;
    let bench = Bench::new(1 << 30);
    bench.spool.take_memory(OTHERS);
    let mut visits = Vec::new();
    for source in 0..VISITS {
        let visit = bench.visit_of(source as u8, &Arc::default());
        fill(&visit, MIB / 2).await;
        assert!(matches!(take(&visit).await, Taken::Data(_)));
        at_rest(&visit).await;
        visits.push(visit);
    }
    let each = (bench.spool.usage().memory - OTHERS) / VISITS;
    assert!(each <= 20 << 10, "{each} bytes each");
}

#[tokio::test]
async fn a_disk_that_fails_costs_the_visit_and_nothing_else() {
    let bench = Bench::new(256 << 20);
    let (slow, well) = (bench.visit(), bench.visit());
    std::fs::remove_dir_all(bench._folder.path()).unwrap();
    fill(&slow, 4 * MIB).await;
    assert_eq!(take(&slow).await, Taken::Cut(CutOff::Disk));
    well.push(Bytes::from_static(b"well"));
    assert_eq!(take(&well).await, Taken::Data(Bytes::from_static(b"well")));
}

#[tokio::test]
async fn a_writer_learns_of_the_close_before_the_reader_has_read_everything() {
    let bench = Bench::new(64 << 20);
    let visit = bench.visit();
    visit.push(Bytes::from_static(b"unread"));
    visit.close();
    timeout(Duration::from_secs(20), poll_fn(|cx| visit.poll_closed(cx))).await.unwrap();
}

/// Counts how often it is woken.
#[derive(Default)]
struct Bell(AtomicUsize);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Takes one chunk, as a reader does who is then busy with it.
fn take_one(visit: &Arc<Elastic>, bell: &Arc<Bell>) {
    let waker = Waker::from(Arc::clone(bell));
    let taken = visit.poll_take(&mut Context::from_waker(&waker));
    assert!(matches!(taken, Poll::Ready(Taken::Data(_))), "{taken:?}");
}

#[tokio::test]
async fn a_reader_that_is_busy_hears_of_the_end_of_its_visit_and_of_nothing_else() {
    let bench = Bench::new(64 << 20);
    for end in [|visit: &Elastic| visit.cut(CutOff::Full), Elastic::sever] {
        let (visit, bell) = (bench.visit(), Arc::default());
        visit.push(pattern(1000, 0));
        take_one(&visit, &bell);
        visit.push(pattern(1000, 0));
        assert_eq!(bell.0.load(Ordering::SeqCst), 0);
        end(&visit);
        assert_eq!(bell.0.load(Ordering::SeqCst), 1);
    }
}

#[tokio::test]
async fn what_comes_for_a_visit_that_is_over_is_unwanted_before_long() {
    let bench = Bench::new(64 << 20);
    for end in [|visit: &Elastic| visit.cut(CutOff::Full), Elastic::sever, Elastic::abandon] {
        let visit = bench.visit();
        assert_eq!(visit.push(pattern(2 * MIB, 0)), Pushed::Taken);
        end(&visit);
        assert_eq!(visit.push(pattern(MIB, 0)), Pushed::Taken, "what was on its way");
        assert_eq!(visit.push(pattern(1, 0)), Pushed::Unwanted);
        visit.close();
        assert_eq!(visit.push(pattern(1, 0)), Pushed::Taken, "the channel is closed already");
    }
}

/// Pushes packets until the client is told to pause; what it sent by then.
async fn fill_until_paused(visit: &Arc<Elastic>, told: &mut mpsc::UnboundedReceiver<bool>) -> Vec<u8> {
    let mut sent = Vec::new();
    while told.is_empty() {
        push_more(visit, &mut sent, 32 << 10);
        tokio::task::yield_now().await;
        assert!(sent.len() < 2 * MIB, "the client is told nothing");
    }
    assert_eq!(told.try_recv(), Ok(false));
    sent
}

fn push_more(visit: &Arc<Elastic>, sent: &mut Vec<u8>, length: usize) {
    let data = pattern(length, sent.len());
    sent.extend_from_slice(&data);
    visit.push(data);
}

#[tokio::test]
async fn a_client_that_pauses_when_it_is_told_leaves_the_disk_alone() {
    let bench = Bench::new(64 << 20);
    let (visit, mut told) = bench.regulated();
    let mut sent = fill_until_paused(&visit, &mut told).await;
    assert!((512 * 1024..=600 * 1024).contains(&sent.len()), "told at {}", sent.len());
    // What was on its way.
    (0..96).for_each(|_| push_more(&visit, &mut sent, 32 << 10));
    let mut got = Vec::new();
    while told.is_empty() {
        let Taken::Data(data) = take(&visit).await else { panic!("no data") };
        got.extend_from_slice(&data);
        tokio::task::yield_now().await;
    }
    assert_eq!(told.try_recv(), Ok(true));
    let left = sent.len() - got.len();
    assert!((200 * 1024..=256 * 1024).contains(&left), "told to go on with {left} bytes left");
    push_more(&visit, &mut sent, 100);
    assert_eq!(bench.spool.usage().visits, 0, "nothing is on the disk");
    visit.finish();
    let (rest, end) = take_all(&visit).await;
    got.extend_from_slice(&rest);
    assert!(end == Taken::Finished && got == sent, "the bytes differ");
    assert!(told.is_empty(), "the client is told once");
}

#[tokio::test]
async fn a_client_that_goes_on_although_it_is_told_to_pause_gets_the_disk() {
    let bench = Bench::new(256 << 20);
    let (visit, mut told) = bench.regulated();
    let sent = fill(&visit, 40 * MIB).await;
    let usage = bench.spool.usage();
    assert!(usage.disk > 20 << 20 && usage.memory < 16 * MIB, "{usage:?}");
    assert_eq!((told.try_recv(), told.is_empty()), (Ok(false), true));
    visit.finish();
    assert!(take_all(&visit).await == (sent, Taken::Finished), "the bytes differ");
}

#[tokio::test]
async fn clients_pause_sooner_and_leave_less_in_memory_where_all_hold_much() {
    const OTHERS: usize = 200 * MIB;
    let bench = Bench::new(64 << 20);
    bench.spool.take_memory(OTHERS);
    let (visit, mut told) = bench.regulated();
    let mut sent = fill_until_paused(&visit, &mut told).await;
    assert!(sent.len() < 256 << 10, "told at {}", sent.len());
    push_more(&visit, &mut sent, 2 * MIB);
    at_rest(&visit).await;
    let memory = bench.spool.usage().memory - OTHERS;
    assert!(memory < 64 << 10, "{memory} bytes in memory");
    visit.finish();
    assert!(take_all(&visit).await == (sent, Taken::Finished), "the bytes differ");
}

#[tokio::test]
async fn a_client_may_go_on_when_its_visitor_has_left() {
    let bench = Bench::new(64 << 20);
    let (visit, mut told) = bench.regulated();
    fill_until_paused(&visit, &mut told).await;
    visit.abandon();
    assert_eq!(timeout(Duration::from_secs(20), told.recv()).await, Ok(Some(true)));
}

#[tokio::test]
async fn a_client_that_has_said_everything_is_told_nothing_more() {
    for end in [Elastic::finish, Elastic::close, Elastic::sever] {
        let bench = Bench::new(64 << 20);
        let (visit, mut told) = bench.regulated();
        fill_until_paused(&visit, &mut told).await;
        end(&visit);
        take_all(&visit).await;
        visit.abandon();
        tokio::task::yield_now().await;
        assert!(told.is_empty());
    }
}

#[tokio::test]
async fn one_request_is_under_way_at_a_time_and_the_last_word_counts() {
    let tasks = Drain::new().1;
    let (sender, mut told) = mpsc::unbounded_channel();
    let sent = Arc::new(Semaphore::new(0));
    let valve = Valve::new(tasks, Client { told: sender, leaves: Some(Arc::clone(&sent)) });
    valve.set(false);
    assert_eq!(told.recv().await, Some(false));
    [true, false, true, false, true].into_iter().for_each(|open| valve.set(open));
    tokio::task::yield_now().await;
    assert!(told.is_empty(), "one at a time");
    sent.add_permits(1);
    assert_eq!(told.recv().await, Some(true));
    [false, true].into_iter().for_each(|open| valve.set(open));
    sent.add_permits(1);
    tokio::task::yield_now().await;
    assert!(told.is_empty(), "what came to nothing is not told");
}

#[test]
fn a_spool_needs_a_place_to_write() {
    assert!(Spool::open(Path::new("/proc/nowhere"), None).is_err());
}

#[derive(Clone, Debug)]
enum Step {
    Push(usize),
    /// Reads so many chunks, if there are any.
    Take(usize),
    Pause,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => prop_oneof![1..200_usize, 1..40_000_usize, 200_000..900_000_usize].prop_map(Step::Push),
        3 => (1..20_usize).prop_map(Step::Take),
        1 => Just(Step::Pause),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn bytes_come_out_as_they_went_in(steps in steps(), pressure in prop_oneof![Just(0), Just(64 * MIB), Just(200 * MIB)], regulated: bool) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (sent, got, end) = runtime.block_on(async {
            let bench = Bench::new(1 << 30);
            bench.spool.take_memory(pressure);
            let visit = if regulated { bench.regulated().0 } else { bench.visit() };
            let (mut sent, mut got) = (Vec::new(), Vec::new());
            for step in steps {
                match step {
                    Step::Push(length) => {
                        let data = pattern(length, sent.len());
                        sent.extend_from_slice(&data);
                        visit.push(data);
                    }
                    Step::Take(count) => for _ in 0..count {
                        let mut context = Context::from_waker(Waker::noop());
                        if let Poll::Ready(Taken::Data(data)) = visit.poll_take(&mut context) {
                            got.extend_from_slice(&data);
                        }
                    },
                    Step::Pause => tokio::time::sleep(Duration::from_millis(1)).await,
                }
            }
            visit.finish();
            visit.close();
            let (rest, end) = take_all(&visit).await;
            got.extend_from_slice(&rest);
            (sent, got, end)
        });
        prop_assert_eq!(end, Taken::Finished);
        prop_assert!(sent == got, "{} bytes went in, {} came out", sent.len(), got.len());
    }
}
