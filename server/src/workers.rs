//! The threads that serve, each with a runtime of its own.
//!
//! What a request costs is mostly waking other threads. So a publisher's session, its endpoints and their visitors
//! share one thread; nothing depends on it, since everything that is served may be polled anywhere.

use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

/// One thread. What is spawned on it stays there.
#[derive(Clone, Debug)]
pub(crate) struct Worker {
    runtime: Handle,
    sessions: Arc<AtomicUsize>,
}

impl Worker {
    /// The thread of the calling task.
    pub(crate) fn here() -> Self {
        Self { runtime: Handle::current(), sessions: Arc::default() }
    }

    pub(crate) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// Counts a session as long as what this gives is held.
    pub(crate) fn engage(&self) -> Engaged {
        self.sessions.fetch_add(1, Ordering::Relaxed);
        Engaged(Arc::clone(&self.sessions))
    }
}

/// A session that a worker has.
#[derive(Debug)]
pub(crate) struct Engaged(Arc<AtomicUsize>);

impl Drop for Engaged {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection on its way from the thread that accepted it to the one that serves it.
#[derive(Debug)]
pub(crate) struct Parcel(std::net::TcpStream);

impl Parcel {
    /// Takes a connection off the runtime of the calling task.
    pub(crate) fn pack(stream: TcpStream) -> io::Result<Self> {
        stream.into_std().map(Self)
    }

    /// Puts it onto the runtime of the calling task.
    pub(crate) fn unpack(self) -> io::Result<TcpStream> {
        TcpStream::from_std(self.0)
    }

    /// What has arrived and stays to be read.
    pub(crate) fn peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.peek(buffer)
    }
}

/// All workers. They end when this is dropped.
#[derive(Debug)]
pub(crate) struct Workers {
    workers: Vec<Worker>,
    next: AtomicUsize,
    stop: CancellationToken,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Starts so many threads.
    ///
    /// # Errors
    /// The system gives no thread or no runtime.
    pub(crate) fn start(count: NonZeroUsize) -> io::Result<Arc<Self>> {
        let stop = CancellationToken::new();
        let (mut workers, mut threads) = (Vec::new(), Vec::new());
        for number in 1..=count.get() {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .max_blocking_threads(BLOCKING_THREADS)
                .thread_name(format!("disk-{number}"))
                .build()?;
            workers.push(Worker { runtime: runtime.handle().clone(), sessions: Arc::default() });
            let stop = stop.clone();
            let thread = std::thread::Builder::new().name(format!("worker-{number}"));
            threads.push(thread.spawn(move || {
                runtime.block_on(stop.cancelled());
                runtime.shutdown_timeout(LAST_WORK);
            })?);
        }
        Ok(Arc::new(Self { workers, next: AtomicUsize::new(0), stop, threads }))
    }

    /// No thread but the caller's.
    #[cfg(test)]
    pub(crate) fn here() -> Arc<Self> {
        Arc::new(Self {
            workers: vec![Worker::here()],
            next: AtomicUsize::new(0),
            stop: CancellationToken::new(),
            threads: Vec::new(),
        })
    }

    /// Whether there is a choice.
    pub(crate) fn are_many(&self) -> bool {
        self.workers.len() > 1
    }

    /// Every worker.
    pub(crate) fn all(&self) -> &[Worker] {
        &self.workers
    }

    /// For a session: the worker that has the fewest.
    pub(crate) fn least_engaged(&self) -> Worker {
        let least = self.workers.iter().min_by_key(|worker| worker.sessions.load(Ordering::Relaxed));
        least.cloned().unwrap_or_else(Worker::here)
    }

    /// For a visitor whose endpoint is not known: each in turn.
    pub(crate) fn any(&self) -> Worker {
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % self.workers.len().max(1);
        self.workers.get(turn).cloned().unwrap_or_else(Worker::here)
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.stop.cancel();
        for thread in self.threads.drain(..) {
            // Whoever is last to know of the workers may be one of them.
            if thread.thread().id() != std::thread::current().id() {
                // One that panicked has nothing more to end.
                let _ = thread.join();
            }
        }
    }
}

/// Of each worker, for the disk and for names to be looked up.
const BLOCKING_THREADS: usize = 16;
/// For a disk operation to end when its server does.
const LAST_WORK: Duration = Duration::from_secs(2);
