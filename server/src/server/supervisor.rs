//! What systemd is told of the server: `sd_notify(3)` with `Type=notify`, and `WatchdogSec=`.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::drain::DrainWatch;
use crate::registry::Registry;
use crate::workers::Workers;

/// Who started the server and wants to hear of it; nobody, mostly.
#[derive(Clone, Debug, Default)]
pub(super) struct Supervisor {
    told: Option<Arc<(UnixDatagram, SocketAddr)>>,
    /// It kills a server that it has not heard of for this long.
    watchdog: Option<Duration>,
}

impl Supervisor {
    pub(super) fn from_environment() -> Self {
        let variable = |name: &str| std::env::var(name).ok();
        let number = |name: &str| variable(name)?.parse::<u64>().ok();
        let for_us = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|time| for_us && *time > 0).map(Duration::from_micros);
        let told = variable("NOTIFY_SOCKET").filter(|path| !path.is_empty()).and_then(|path| {
            Self::reach(&path)
                .inspect_err(|error| tracing::warn!(path, %error, "NOTIFY_SOCKET cannot be used"))
                .ok()
        });
        Self { told, watchdog }
    }

    /// `@` stands for the zero byte that an abstract name begins with (unix(7)).
    fn reach(path: &str) -> std::io::Result<Arc<(UnixDatagram, SocketAddr)>> {
        let address = match path.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(path)?,
        };
        let socket = UnixDatagram::unbound()?;
        // A supervisor that does not read must not hold up the server.
        socket.set_nonblocking(true)?;
        Ok(Arc::new((socket, address)))
    }

    fn tell(&self, state: &str) {
        let Some((socket, address)) = self.told.as_deref() else { return };
        if let Err(error) = socket.send_to_addr(state.as_bytes(), address) {
            tracing::debug!(%error, "the supervisor cannot be told");
        }
    }

    pub(super) fn ready(&self) {
        self.tell("READY=1\nSTATUS=Serving");
    }

    /// Goes on until [`Self::ready`]. The time is for `Type=notify-reload`.
    pub(super) fn reloading(&self) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let micros = now.tv_sec.saturating_mul(1_000_000).saturating_add(now.tv_nsec / 1000);
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={micros}\nSTATUS=Reading files again"));
    }

    pub(super) fn stopping(&self, grace: Duration) {
        self.tell(&format!("STOPPING=1\nSTATUS=Finishing visits, for {grace:?} at most"));
    }

    /// Tells how many there are, and for as long as every thread gets on, that the server lives. Runs to the end of the
    /// drain, which may take longer than the watchdog waits.
    pub(super) fn attend(
        &self,
        registry: Registry,
        workers: Arc<Workers>,
        visitors: DrainWatch,
        tasks: &DrainWatch,
    ) {
        if self.told.is_none() {
            return;
        }
        let (supervisor, watch) = (self.clone(), tasks.clone());
        tasks.spawn(async move {
            let every = supervisor.watchdog.map_or(STATUS, |limit| (limit / 3).min(STATUS));
            let mut ticks = interval(every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let telling = async {
                loop {
                    ticks.tick().await;
                    if supervisor.watchdog.is_some() {
                        all_get_on(&workers, &watch).await;
                        supervisor.tell("WATCHDOG=1");
                    }
                    // Also when nothing has changed: since a reload it may show something else.
                    if !visitors.is_draining() {
                        let (sessions, endpoints) = registry.count();
                        supervisor
                            .tell(&format!("STATUS=Serving {sessions} sessions, {endpoints} endpoints"));
                    }
                }
            };
            tokio::select! {
                () = telling => {}
                () = watch.draining() => {}
            }
        });
    }
}

/// Resolves when each worker has run a task of ours, which it does between those of its sessions and visits.
async fn all_get_on(workers: &Workers, tasks: &DrainWatch) {
    for worker in workers.all() {
        let (tell, mut told) = oneshot::channel();
        // Nobody waits for the answer any more when the server ends.
        let answer = async move {
            let _ = tell.send(());
        };
        tasks.spawn_on(answer, worker.runtime());
        while timeout(SLOW, &mut told).await.is_err() {
            tracing::error!("a thread that serves has not got on for {SLOW:?}");
        }
    }
}

/// Between two looks at how many there are.
const STATUS: Duration = Duration::from_secs(5);
/// After which a thread is named in the log.
const SLOW: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;
    use std::sync::mpsc;

    use super::*;
    use crate::drain::Drain;

    fn supervised(watchdog: Option<Duration>) -> (Supervisor, UnixDatagram, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let told = Some(Supervisor::reach(path.to_str().unwrap()).unwrap());
        (Supervisor { told, watchdog }, socket, folder)
    }

    fn hear(socket: &UnixDatagram) -> Option<String> {
        let mut state = [0; 512];
        let length = socket.recv(&mut state).ok()?;
        Some(String::from_utf8(state[..length].to_vec()).unwrap())
    }

    #[test]
    fn each_state_is_told_in_the_words_of_sd_notify() {
        let (supervisor, socket, _folder) = supervised(None);
        supervisor.ready();
        supervisor.reloading();
        supervisor.stopping(Duration::from_secs(30));
        assert_eq!(hear(&socket).unwrap(), "READY=1\nSTATUS=Serving");
        let reloading = hear(&socket).unwrap();
        let micros = reloading.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC=")).unwrap();
        assert!(reloading.starts_with("RELOADING=1\n") && micros.parse::<u64>().unwrap() > 0, "{reloading}");
        assert_eq!(hear(&socket).unwrap(), "STOPPING=1\nSTATUS=Finishing visits, for 30s at most");
        // Nobody listens, and nobody is harmed.
        drop(socket);
        supervisor.ready();
        Supervisor::default().ready();
    }

    #[test]
    fn a_supervisor_with_an_abstract_name_is_reached() {
        let name = format!("hithe-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        let told = Some(Supervisor::reach(&format!("@{name}")).unwrap());
        Supervisor { told, watchdog: None }.ready();
        assert!(hear(&socket).unwrap().starts_with("READY=1"));
    }

    #[tokio::test]
    async fn after_a_reload_the_supervisor_shows_again_how_many_there_are() {
        let (supervisor, socket, _folder) = supervised(Some(Duration::from_millis(60)));
        let workers = Workers::start(NonZeroUsize::new(1).unwrap()).unwrap();
        let (drain, watch) = Drain::new();
        supervisor.attend(Registry::for_test(), workers, watch.clone(), &watch);
        let until = |wanted: &'static str| {
            let socket = socket.try_clone().unwrap();
            tokio::task::spawn_blocking(move || {
                std::iter::from_fn(|| hear(&socket)).take(100).find(|it| it == wanted)
            })
        };
        let figures = "STATUS=Serving 0 sessions, 0 endpoints";
        assert!(until(figures).await.unwrap().is_some());
        supervisor.reloading();
        supervisor.ready();
        assert!(until("READY=1\nSTATUS=Serving").await.unwrap().is_some());
        assert!(until(figures).await.unwrap().is_some());
        drain.drain(Duration::from_secs(5), std::future::pending()).await;
    }

    #[tokio::test]
    async fn a_thread_that_hangs_keeps_the_watchdog_from_being_told() {
        let (supervisor, socket, _folder) = supervised(Some(Duration::from_millis(60)));
        let workers = Workers::start(NonZeroUsize::new(2).unwrap()).unwrap();
        let (drain, watch) = Drain::new();
        supervisor.attend(Registry::for_test(), Arc::clone(&workers), watch.clone(), &watch);
        let hears = |socket: &UnixDatagram| {
            let socket = socket.try_clone().unwrap();
            tokio::task::spawn_blocking(move || {
                std::iter::from_fn(|| hear(&socket)).find(|it| it == "WATCHDOG=1")
            })
        };
        assert!(hears(&socket).await.unwrap().is_some());

        let (hang, hung) = mpsc::channel::<()>();
        let (begin, begun) = oneshot::channel();
        let stuck = workers.all().last().unwrap().clone();
        watch.spawn_on(
            async move {
                begin.send(()).unwrap();
                let _ = hung.recv();
            },
            stuck.runtime(),
        );
        begun.await.unwrap();
        // What was told before may still wait to be heard; after that there is silence, for many times the interval.
        socket.set_read_timeout(Some(Duration::from_millis(400))).unwrap();
        let listener = socket.try_clone().unwrap();
        let heard =
            tokio::task::spawn_blocking(move || std::iter::from_fn(|| hear(&listener)).take(100).count());
        assert!(heard.await.unwrap() < 100, "the watchdog is told although a thread hangs");
        drop(hang);
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        assert!(hears(&socket).await.unwrap().is_some());
        drain.drain(Duration::from_secs(5), std::future::pending()).await;
    }
}
