//! Publishers that come, stay for a while and are lost in every way there is; each comes back.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::place::Unrest;
use super::stage::{Post, Stage};
use super::visits;
use crate::{Child, Relay};

/// How often a publisher looks around.
const LOOK: Duration = Duration::from_millis(100);
/// A session without a sign of life for so long is dead to the server, and then some; until then a pool may send visits
/// to a member that was stopped.
const DEAD: Duration = Duration::from_secs(25);
/// A name that living sessions take from each other more often than three times a minute stays where it is.
const BETWEEN_TAKEOVERS: Duration = Duration::from_secs(40);
/// How long one that was taken over may finish visits; all visits of a run are shorter.
const TO_FINISH: Duration = Duration::from_secs(120);
/// A pause shorter than what the server takes for death.
const PAUSE: std::ops::Range<u64> = 500..5_000;

/// What happens to a publisher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// Ctrl-C.
    Leave,
    Kill,
    /// SIGSTOP for good.
    Stop,
    /// The network passes nothing any more.
    Cut,
    /// SIGSTOP and SIGCONT: nobody may notice.
    Pause,
    /// A network that hangs for a moment: nobody may notice.
    Blink,
    /// A second one of the same account comes for the same names: nobody may notice.
    TakeOver,
    /// The operator ends it.
    Kick,
}

/// A running ssh.
struct Life {
    child: Child,
    relay: Option<Relay>,
}

/// One that is over for the visitors, and may still be there for the server.
struct Lost {
    life: Life,
    until: Instant,
    /// What it disturbs for so long.
    unrest: Option<Unrest>,
    then: Then,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    Kill,
    /// The lid of the laptop is opened.
    WakeUp,
    /// It should have left.
    Complain,
}

struct Publisher {
    stage: Arc<Stage>,
    post: Post,
    rng: Rng,
    over: watch::Receiver<bool>,
    lost: Vec<Lost>,
    last_takeover: Option<Instant>,
}

/// Publishes at this post, again and again, until all is over. Nobody is owed anything there from then on, as long as
/// what this returns is kept.
pub(super) async fn stand(
    stage: Arc<Stage>,
    post: Post,
    rng: Rng,
    over: watch::Receiver<bool>,
    unrest: Unrest,
) -> Option<Unrest> {
    let mut publisher = Publisher { stage, post, rng, over, lost: Vec::new(), last_takeover: None };
    let mut unrest = Some(unrest);
    while !publisher.is_over() {
        match publisher.begin().await {
            Ok(life) => {
                drop(unrest.take());
                unrest = Some(publisher.live(life).await);
            }
            Err(why) => publisher.fault("publish", &why),
        }
        publisher.pass_the_gap().await;
    }
    unrest
}

impl Publisher {
    /// Whether its name or port is given at random.
    fn is_random(&self) -> bool {
        self.post.binds.iter().any(|bind| bind == "0")
    }

    fn is_over(&self) -> bool {
        *self.over.borrow()
    }

    fn fault(&self, what: &'static str, why: &str) {
        self.stage.tally.fault(what, &self.post.name(), why);
    }

    fn count(&self, what: &'static str) {
        self.stage.tally.count(what);
        self.note(what.trim_start_matches("publishers").trim_start_matches([':', ' ']));
    }

    fn note(&self, turn: &'static str) {
        self.post.places.iter().for_each(|place| place.note(turn));
    }

    /// Starts ssh and waits until it is public.
    async fn begin(&mut self) -> Result<Life, String> {
        let began = Instant::now();
        self.count("publishers started");
        let mut ssh = self.stage.ssh(&self.post);
        let mut relay = None;
        if self.rng.bool() {
            let network = Relay::to(self.stage.server.ssh_address()).await;
            ssh = ssh.through(&network);
            relay = Some(network);
        }
        let mut child = ssh.spawn();
        if self.post.bare {
            for place in &self.post.places {
                visits::until_served(&self.stage, place).await?;
            }
        } else {
            let forwardings = child.try_forwarding().await?;
            let found: Vec<_> = forwardings.into_iter().map(|it| it.url).collect();
            self.recognise(&found)?;
            let took = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.stage.tally.published(self.post.number, took);
        }
        self.note("public");
        Ok(Life { child, relay })
    }

    /// Names and ports that were given at random have to be the same each time.
    fn recognise(&self, found: &[String]) -> Result<(), String> {
        let [place] = self.post.places.as_slice() else { return Ok(()) };
        if !place.name.starts_with('?') || place.settle_at(found) {
            return Ok(());
        }
        Err(format!("has {found:?} instead of {:?}", place.addresses()))
    }

    /// From being public to being lost.
    async fn live(&mut self, mut life: Life) -> Unrest {
        let mut paused = false;
        loop {
            if !self.stay(&mut life).await {
                let unrest = self.post.unrest();
                // While it was paused the server may have asked it whether it lives.
                if !paused {
                    let said = life.child.output();
                    self.fault("stay", &format!("ssh ended by itself: {}", last(&said)));
                }
                return unrest;
            }
            if self.is_over() {
                let turn = if self.rng.bool() { Turn::Leave } else { Turn::Kill };
                return self.lose(life, turn).await;
            }
            match self.next_turn(&life) {
                turn @ (Turn::Pause | Turn::Blink) => {
                    paused |= self.asked_while_paused();
                    self.hold_up(&life, turn).await;
                }
                Turn::TakeOver => match self.take_over(life).await {
                    Ok(newer) => life = newer,
                    Err(unrest) => return unrest,
                },
                turn => return self.lose(life, turn).await,
            }
        }
    }

    /// Stays for a while; false if ssh has ended.
    async fn stay(&mut self, life: &mut Life) -> bool {
        let seconds = if self.rng.u8(..10) < 7 { self.rng.u64(3..20) } else { self.rng.u64(20..70) };
        let until = Instant::now() + Duration::from_secs(seconds);
        while Instant::now() < until && !self.is_over() {
            if !life.child.is_running() {
                return false;
            }
            self.look_after_the_lost().await;
            sleep(LOOK).await;
        }
        life.child.is_running()
    }

    fn next_turn(&mut self, life: &Life) -> Turn {
        if self.post.account == "eve" && self.rng.u8(..3) == 0 {
            return Turn::Kick;
        }
        let lately = self.last_takeover.is_some_and(|last| last.elapsed() < BETWEEN_TAKEOVERS);
        let may_take_over = !lately && !self.is_random() && !self.post.bare && !self.post.pooled;
        match self.rng.u8(..12) {
            0 | 1 => Turn::Leave,
            2 | 3 => Turn::Stop,
            4 | 5 if life.relay.is_some() => Turn::Cut,
            6 | 7 => Turn::Pause,
            8 if life.relay.is_some() => Turn::Blink,
            9 | 10 if may_take_over => Turn::TakeOver,
            _ => Turn::Kill,
        }
    }

    /// Whether a session that does not answer for a moment may be ended by the server: only where somebody of the
    /// account publishes under a random name.
    fn asked_while_paused(&self) -> bool {
        self.post.account == "ada"
    }

    async fn hold_up(&mut self, life: &Life, turn: Turn) {
        let _unrest = self.asked_while_paused().then(|| self.post.unrest());
        let pause = Duration::from_millis(self.rng.u64(PAUSE));
        match (turn, &life.relay) {
            (Turn::Blink, Some(relay)) => {
                self.count("publishers: network hung for a moment");
                relay.cut();
                sleep(pause).await;
                relay.mend();
                self.note("going on");
            }
            _ => {
                self.count("publishers: paused for a moment");
                life.child.stop();
                sleep(pause).await;
                life.child.cont();
                self.note("going on");
            }
        }
    }

    async fn take_over(&mut self, older: Life) -> Result<Life, Unrest> {
        self.count("publishers: taken over by a newer one");
        self.last_takeover = Some(Instant::now());
        match self.begin().await {
            Ok(newer) => {
                let until = Instant::now() + TO_FINISH;
                self.lost.push(Lost { life: older, until, unrest: None, then: Then::Complain });
                Ok(newer)
            }
            Err(why) => {
                self.fault("take over", &why);
                Err(self.lose(older, Turn::Kill).await)
            }
        }
    }

    async fn lose(&mut self, mut life: Life, turn: Turn) -> Unrest {
        let unrest = self.post.unrest();
        match turn {
            Turn::Stop => {
                self.count("publishers: stopped for good");
                life.child.stop();
                self.forget_later(life);
            }
            Turn::Cut => {
                self.count("publishers: cut off");
                life.relay.iter().for_each(Relay::cut);
                self.forget_later(life);
            }
            Turn::Leave => {
                self.count("publishers: left in order");
                life.child.interrupt().await;
                let until = Instant::now() + Duration::from_secs(10);
                self.lost.push(Lost { life, until, unrest: None, then: Then::Complain });
            }
            Turn::Kick => {
                self.count("publishers: ended by the operator");
                let kick = format!("sessions kick {}", self.post.account);
                let done = self.stage.server.ssh().command(&kick).run().await;
                if done.code != Some(0) {
                    self.fault("kick", &done.output());
                }
                let until = Instant::now() + Duration::from_secs(10);
                self.lost.push(Lost { life, until, unrest: None, then: Then::Complain });
            }
            _ => {
                self.count("publishers: killed");
                life.child.kill().await;
            }
        }
        unrest
    }

    /// It stays as it is for a while, whoever comes after it.
    fn forget_later(&mut self, life: Life) {
        let (seconds, then) = match self.post.pooled {
            true => (DEAD.as_secs(), Then::Kill),
            // If it woke up before the next one came, it would live, and that one would be given another name.
            false if !self.is_random() && self.rng.bool() => (self.rng.u64(1..40), Then::WakeUp),
            false => (self.rng.u64(1..40), Then::Kill),
        };
        let unrest = self.post.pooled.then(|| self.post.unrest());
        let until = Instant::now() + Duration::from_secs(seconds);
        self.lost.push(Lost { life, until, unrest, then });
    }

    async fn look_after_the_lost(&mut self) {
        let now = Instant::now();
        for lost in &mut self.lost {
            let running = lost.life.child.is_running();
            if !running || now < lost.until {
                continue;
            }
            match lost.then {
                Then::Kill => lost.life.child.kill().await,
                Then::WakeUp => {
                    lost.life.child.cont();
                    lost.life.relay.iter().for_each(Relay::mend);
                    (lost.then, lost.until) = (Then::Complain, now + TO_FINISH);
                }
                Then::Complain => {
                    let said = lost.life.child.output();
                    let why = format!("ssh is still there: {}", last(&said));
                    self.stage.tally.fault("leave", &self.post.name(), &why);
                    lost.life.child.kill().await;
                }
            }
        }
        self.lost
            .retain_mut(|lost| lost.life.child.is_running() || now < lost.until && lost.unrest.is_some());
    }

    async fn pass_the_gap(&mut self) {
        let milliseconds = match self.rng.u8(..10) {
            0..=4 => 0,
            5..=7 => self.rng.u64(..3_000),
            _ => self.rng.u64(6_000..20_000),
        };
        let until = Instant::now() + Duration::from_millis(milliseconds);
        while Instant::now() < until && !self.is_over() {
            self.look_after_the_lost().await;
            sleep(LOOK).await;
        }
    }
}

/// The last lines of what ssh said.
fn last(said: &str) -> String {
    let lines: Vec<_> = said.lines().rev().take(4).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
}
