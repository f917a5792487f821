//! Who else is there: the operator, who looks at the server and changes it, and somebody who wants the names of others.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use tokio::sync::watch;
use tokio::time::sleep;

use super::place::Unrest;
use super::stage::{ACCOUNTS, Stage};

/// Looks, reloads, and makes accounts and tokens that it takes back.
pub(super) async fn operate(stage: Arc<Stage>, mut rng: Rng, over: watch::Receiver<bool>) -> Option<Unrest> {
    while !*over.borrow() {
        let number = rng.u32(..);
        let (what, outcome) = match rng.u8(..8) {
            0 | 1 => {
                stage.server.sighup();
                ("operator: reload", Ok(()))
            }
            2 => ("operator: status", stage.ask("status").await.map(drop)),
            3 => ("operator: sessions", stage.ask("sessions").await.map(drop)),
            4 => ("operator: names", stage.ask("names").await.map(drop)),
            5 => ("operator: audit", stage.ask("audit").await.map(drop)),
            6 => ("operator: account made and removed", account(&stage, number).await),
            _ => ("operator: token made and revoked", token(&stage, number).await),
        };
        match outcome {
            Ok(()) => stage.tally.done(what, true),
            Err(why) => stage.tally.fault(what, "operator", &why),
        }
        sleep(Duration::from_millis(rng.u64(500..6_000))).await;
    }
    None
}

async fn account(stage: &Stage, number: u32) -> Result<(), String> {
    say(stage, &format!("accounts add guest-{number}")).await?;
    say(stage, &format!("accounts remove guest-{number}")).await
}

async fn token(stage: &Stage, number: u32) -> Result<(), String> {
    say(stage, &format!("tokens add ada --description soak-{number}")).await?;
    let tokens = stage.ask("tokens").await?;
    let list = tokens.as_array().ok_or("the list of tokens is none")?;
    let id = list
        .iter()
        .find_map(|token| token.get("id")?.as_str())
        .ok_or("a token that was made is not there")?;
    say(stage, &format!("tokens revoke {id}")).await
}

async fn say(stage: &Stage, line: &str) -> Result<(), String> {
    let done = stage.server.ssh().command(line).run().await;
    if done.code == Some(0) { Ok(()) } else { Err(format!("{line}: {}", done.output())) }
}

/// Asks for names of other accounts, which must be refused whether their publishers are there or not.
pub(super) async fn intrude(stage: Arc<Stage>, mut rng: Rng, over: watch::Receiver<bool>) -> Option<Unrest> {
    while !*over.borrow() {
        sleep(Duration::from_millis(rng.u64(1_000..8_000))).await;
        let Some(post) = rng.choice(&stage.posts).cloned() else { break };
        let others: Vec<_> = ACCOUNTS.into_iter().filter(|it| *it != post.account).collect();
        let Some(other) = rng.choice(others) else { break };
        // A name that nobody had yet is anybody's.
        let was_there = stage.tally.with(|counts| counts.met.contains(&post.number));
        if post.bare || post.binds.iter().any(|bind| bind == "0") || !was_there {
            continue;
        }
        match stage.ssh(&post).key(stage.key(other)).spawn().try_forwarding().await {
            Ok(given) => {
                let why = format!("{other} was given what is {}'s: {given:?}", post.account);
                stage.tally.fault("intruders", &post.name(), &why);
            }
            Err(why) if why.contains("ERR_HITHE_334") => stage.tally.done("intruders", true),
            Err(why) => stage.tally.fault("intruders", &post.name(), &why),
        }
    }
    None
}
