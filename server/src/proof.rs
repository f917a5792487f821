//! Proof that a name outside of the server's domain is an account's: a TXT record that only its owner can set.
//!
//! [`Prover`] asks a name server, bounded in every direction; what it gives, a [`Proof`], is what the registry wants to
//! see before such a name is claimed. A label with an underscore is no host name (RFC 8552), so that nobody can get
//! `_hithe.co.uk` by registering a name.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::{Resolver, TokioResolver};
use hithe_cli_parser::{HostName, HostPattern};
use lru::LruCache;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use crate::account::Account;
use crate::config::NameServer;

/// That a name was an account's a moment ago.
#[derive(Debug)]
pub(crate) struct Proof {
    account: Account,
    name: HostPattern,
}

impl Proof {
    pub(crate) fn is_for(&self, account: &Account, name: &HostPattern) -> bool {
        self.account == *account && self.name == *name
    }

    #[cfg(test)]
    pub(crate) fn for_test(account: &Account, name: &HostPattern) -> Self {
        Self { account: account.clone(), name: name.clone() }
    }
}

/// Why a name could not be proved. The publisher reads it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProofError {
    #[error("there is no TXT record {record} that says that {name} is yours")]
    NoRecord { record: String, name: String },
    #[error("the TXT record {record} says that {name} is another account's")]
    Another { record: String, name: String },
    #[error("whether {name} is yours cannot be looked up: {record}: {why}")]
    Failed { record: String, name: String, why: String },
    #[error("{TRIES} proofs of your account have failed within a minute")]
    TooMany,
    #[error("other proofs of your account have been under way for {} s", TURN.as_secs())]
    Waiting,
}

/// The values of which a record has to hold one. The first is the one to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Values(Vec<String>);

impl Values {
    /// Those of an account: its name together with that of this server, or the fingerprint of one of its keys. What is
    /// proved for a key that is an account by itself stands for that key on any server.
    pub(crate) fn new(account: &Account, domain: &HostName, keys: impl Iterator<Item = String>) -> Self {
        let own = match account.is_key() {
            true => account.to_string(),
            false => format!("account={account} server={domain}"),
        };
        let mut values = vec![own];
        values.extend(keys);
        Self(values)
    }

    pub(crate) fn to_tell(&self) -> &str {
        self.0.first().map_or("", String::as_str)
    }

    /// Blanks count as one, and as none at the ends.
    fn hold(&self, text: &str) -> bool {
        self.0.iter().any(|value| value.split(' ').eq(text.split_ascii_whitespace()))
    }
}

/// The record to set for a name, as publishers are told.
pub(crate) fn record_of(name: &HostPattern) -> String {
    records(name).into_iter().next().unwrap_or_default()
}

/// The records that prove a name, from the nearest to the highest. A top-level domain is nobody's.
fn records(name: &HostPattern) -> Vec<String> {
    let (HostPattern::Exact(base) | HostPattern::Wildcard(base)) = name;
    let above = std::iter::successors(base.parent(), HostName::parent).filter(|it| it.parent().is_some());
    let names = std::iter::once(base.clone()).chain(above).map(|it| format!("{LABEL}.{it}"));
    // Where the name is as long as a name can be, its record is longer.
    names.filter(|it| it.len() <= MAX_NAME).take(MAX_RECORDS).collect()
}

/// Looks up who may have which name.
pub(crate) struct Prover {
    resolver: TokioResolver,
    asking: Semaphore,
    accounts: Mutex<LruCache<Account, Arc<OfAccount>>>,
}

/// What an account has of the prover. A name server may be slow because its owner wants it so: that must hold up nobody
/// else.
struct OfAccount {
    proving: Semaphore,
    tries: Mutex<Tries>,
}

/// Proofs of an account that have failed, or are under way.
struct Tries {
    since: Instant,
    count: u32,
}

impl OfAccount {
    fn new() -> Arc<Self> {
        let tries = Mutex::new(Tries { since: Instant::now(), count: 0 });
        Arc::new(Self { proving: Semaphore::new(MAX_PROOFS), tries })
    }

    /// Whether it may try once more; counts it.
    fn may_try(&self) -> bool {
        let now = Instant::now();
        let mut tries = self.tries();
        if now.duration_since(tries.since) >= MINUTE {
            *tries = Tries { since: now, count: 0 };
        }
        let may = tries.count < TRIES;
        tries.count += u32::from(may);
        may
    }

    fn give_back(&self) {
        let mut tries = self.tries();
        tries.count = tries.count.saturating_sub(1);
    }

    fn tries(&self) -> MutexGuard<'_, Tries> {
        self.tries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The resolver cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot ask the name servers of this machine (/etc/resolv.conf); --dns-resolver names one: {0}")]
pub(crate) struct ProverError(NetError);

impl Prover {
    pub(crate) fn new(server: NameServer) -> Result<Self, ProverError> {
        let mut builder = match server {
            NameServer::System => TokioResolver::builder_tokio().map_err(ProverError)?,
            NameServer::At(address) => {
                let connection = |mut it: ConnectionConfig| {
                    it.port = address.port();
                    it
                };
                let connections =
                    vec![connection(ConnectionConfig::udp()), connection(ConnectionConfig::tcp())];
                let server = NameServerConfig::new(address.ip(), true, connections);
                let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
                Resolver::builder_with_config(config, TokioRuntimeProvider::default())
            }
        };
        bound(builder.options_mut());
        Ok(Self {
            resolver: builder.build().map_err(ProverError)?,
            asking: Semaphore::new(MAX_LOOKUPS),
            accounts: Mutex::new(LruCache::new(MAX_ACCOUNTS)),
        })
    }

    /// Whether one of the records of a name holds one of the values. Proofs of one account beyond [`MAX_PROOFS`] wait for
    /// their turn, [`TURN`] at most; then it takes twice [`WAIT`] at most.
    pub(crate) async fn prove(
        &self,
        account: &Account,
        name: &HostPattern,
        values: &Values,
    ) -> Result<Proof, ProofError> {
        let own = self.of(account);
        let Ok(Ok(_turn)) = timeout(TURN, own.proving.acquire()).await else {
            return Err(ProofError::Waiting);
        };
        if !own.may_try() {
            return Err(ProofError::TooMany);
        }
        judge(name, &self.answers(name, values).await)?;
        // What was proved costs nobody but the owner of the name anything.
        own.give_back();
        Ok(Proof { account: account.clone(), name: name.clone() })
    }

    /// What the records of a name say, from the nearest to the highest; or as soon as one is right, those that are known.
    async fn answers(&self, name: &HostPattern, values: &Values) -> Vec<(String, Answer)> {
        let asking = records(name).into_iter().enumerate();
        let mut asking: FuturesUnordered<_> =
            asking.map(|(place, record)| async move { (place, self.ask(record, values).await) }).collect();
        let mut answers = Vec::new();
        while let Some(answer) = asking.next().await {
            let is_right = answer.1.1 == Answer::Right;
            answers.push(answer);
            if is_right {
                break;
            }
        }
        answers.sort_by_key(|(place, _)| *place);
        answers.into_iter().map(|(_, answer)| answer).collect()
    }

    async fn ask(&self, record: String, values: &Values) -> (String, Answer) {
        let Ok(Ok(_permit)) = timeout(WAIT, self.asking.acquire()).await else {
            return (record, Answer::Failed("this server looks up too much at the moment".to_owned()));
        };
        let lookup = async {
            let mut name = Name::from_ascii(&record)?;
            // The search list of /etc/resolv.conf says nothing about who a name belongs to.
            name.set_fqdn(true);
            self.resolver.lookup(name, RecordType::TXT).await
        };
        let answer = match timeout(WAIT, lookup).await {
            Ok(Ok(found)) => {
                let texts = found.answers().iter().filter_map(|it| match &it.data {
                    RData::TXT(text) => Some(text.txt_data.concat()),
                    _ => None,
                });
                Answer::of(texts.take(MAX_TEXTS), values)
            }
            Ok(Err(NetError::Dns(DnsError::NoRecordsFound(none)))) if is_no(none.response_code) => {
                Answer::None
            }
            Ok(Err(error)) => Answer::Failed(told(&error)),
            Err(_) => Answer::Failed(NO_ANSWER.to_owned()),
        };
        (record, answer)
    }

    fn of(&self, account: &Account) -> Arc<OfAccount> {
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(accounts.get_or_insert_ref(account, OfAccount::new))
    }
}

impl std::fmt::Debug for Prover {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prover").finish_non_exhaustive()
    }
}

fn bound(options: &mut ResolverOpts) {
    options.timeout = WAIT / 2;
    options.attempts = 1;
    options.cache_size = CACHED;
    options.positive_max_ttl = Some(CACHED_FOR);
    options.negative_min_ttl = Some(CACHED_NONE_FOR);
    options.negative_max_ttl = Some(CACHED_NONE_FOR);
}

/// What one record says.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Right,
    Another,
    None,
    Failed(String),
}

impl Answer {
    fn of(texts: impl Iterator<Item = Vec<u8>>, values: &Values) -> Self {
        let mut answer = Self::None;
        for text in texts {
            if std::str::from_utf8(&text).is_ok_and(|text| values.hold(text)) {
                return Self::Right;
            }
            answer = Self::Another;
        }
        answer
    }
}

/// One record suffices. Whether there is none is not known as long as one could not be looked up.
fn judge(name: &HostPattern, answers: &[(String, Answer)]) -> Result<(), ProofError> {
    if answers.iter().any(|(_, answer)| *answer == Answer::Right) {
        return Ok(());
    }
    let failed = answers.iter().find_map(|(record, answer)| match answer {
        Answer::Failed(why) => Some((record.clone(), why.clone())),
        _ => None,
    });
    let another = answers.iter().find(|(_, answer)| *answer == Answer::Another);
    let name = name.to_string();
    Err(match (failed, another) {
        (Some((record, why)), _) => ProofError::Failed { record, name, why },
        (None, Some((record, _))) => ProofError::Another { record: record.clone(), name },
        (None, None) => {
            let record = answers.first().map(|(record, _)| record.clone()).unwrap_or_default();
            ProofError::NoRecord { record, name }
        }
    })
}

/// The answers that say that there is nothing (RFC 2308 §2).
fn is_no(code: ResponseCode) -> bool {
    matches!(code, ResponseCode::NXDomain | ResponseCode::NoError)
}

fn told(error: &NetError) -> String {
    match error {
        NetError::Timeout => NO_ANSWER.to_owned(),
        NetError::Dns(DnsError::ResponseCode(ResponseCode::ServFail)) => {
            "the name server failed (SERVFAIL)".to_owned()
        }
        NetError::Dns(DnsError::ResponseCode(code)) => format!("the name server says {code}"),
        NetError::Io(_) | NetError::NoConnections => "the name server cannot be reached".to_owned(),
        error => error.to_string(),
    }
}

/// What stands before a name whose owner is asked for.
const LABEL: &str = "_hithe";
/// A name in DNS, without the last dot (RFC 1035 §2.3.4).
const MAX_NAME: usize = 253;
/// The record of a name and those of the names above it.
const MAX_RECORDS: usize = 6;
/// Texts of one answer that are looked at; there are at most 64 KiB of them.
const MAX_TEXTS: usize = 64;
/// Look-ups at a time: those of ten accounts whose name servers are all slow.
const MAX_LOOKUPS: usize = 256;
/// Proofs of one account at a time.
const MAX_PROOFS: usize = 4;
/// For the turn of a proof behind others of its account.
const TURN: Duration = Duration::from_secs(60);
/// Proofs of one account that may fail within [`MINUTE`].
const TRIES: u32 = 10;
const MINUTE: Duration = Duration::from_secs(60);
/// Accounts of which failed proofs are counted.
const MAX_ACCOUNTS: NonZeroUsize = NonZeroUsize::new(4096).unwrap();
/// For one look-up, and before it for a place among all.
const WAIT: Duration = Duration::from_secs(5);
const NO_ANSWER: &str = "the name server has not answered within 5 s";
/// Answers, of at most 64 KiB each.
const CACHED: u64 = 256;
/// An answer, if its record does not say less.
const CACHED_FOR: Duration = Duration::from_secs(300);
/// The answer that there is nothing: who waits for a record to be seen tries again.
const CACHED_NONE_FOR: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use tokio::task::yield_now;

    use super::*;

    fn name(text: &str) -> HostPattern {
        HostPattern::parse(text).unwrap()
    }

    fn values() -> Values {
        let domain = HostName::parse("t.example.com").unwrap();
        Values::new(&"ada".parse().unwrap(), &domain, std::iter::once("SHA256:key".to_owned()))
    }

    #[test]
    fn a_record_proves_what_lies_below_it_but_a_top_level_domain_is_nobodys() {
        assert_eq!(records(&name("a.shop.example")), ["_hithe.a.shop.example", "_hithe.shop.example"]);
        assert_eq!(records(&name("*.shop.example")), ["_hithe.shop.example"]);
        assert_eq!(records(&name("intranet")), ["_hithe.intranet"]);
        assert_eq!(records(&name("a.b.c.d.e.f.g.h.example")).len(), MAX_RECORDS);
    }

    #[test]
    fn the_record_of_the_longest_name_is_none() {
        let long =
            format!("{}.{}.{}.{}.example", "a".repeat(61), "b".repeat(61), "c".repeat(61), "d".repeat(59));
        assert_eq!(long.len(), MAX_NAME);
        assert!(records(&name(&long)).iter().all(|it| it.len() <= MAX_NAME && !it.contains("aaa")));
    }

    #[test]
    fn a_value_is_the_whole_text_but_for_blanks() {
        let values = values();
        for right in ["account=ada server=t.example.com", " account=ada  server=t.example.com ", "SHA256:key"]
        {
            assert!(values.hold(right), "{right}");
        }
        for wrong in ["account=ada", "account=ada server=t.example.org", "SHA256:KEY", "SHA256:key x", ""] {
            assert!(!values.hold(wrong), "{wrong}");
        }
    }

    #[test]
    fn one_right_record_suffices_and_a_failure_is_not_taken_for_none() {
        let judge = |answers: Vec<Answer>| {
            let answers: Vec<_> = answers.into_iter().map(|it| ("r".to_owned(), it)).collect();
            judge(&name("shop.example"), &answers)
        };
        let failed = || Answer::Failed("it failed".to_owned());
        assert_eq!(judge(vec![failed(), Answer::Another, Answer::Right]), Ok(()));
        assert!(matches!(judge(vec![Answer::None, failed()]), Err(ProofError::Failed { .. })));
        assert!(matches!(judge(vec![Answer::None, Answer::Another]), Err(ProofError::Another { .. })));
        assert!(matches!(judge(vec![Answer::None]), Err(ProofError::NoRecord { .. })));
    }

    #[tokio::test(start_paused = true)]
    async fn an_account_tries_ten_times_a_minute() {
        let prover = Prover::new(NameServer::At("127.0.0.1:9".parse().unwrap())).unwrap();
        let [ada, bob] = ["ada", "bob"].map(|name| prover.of(&name.parse().unwrap()));
        assert!((0..TRIES).all(|_| ada.may_try()));
        assert!(!prover.of(&"ada".parse().unwrap()).may_try() && bob.may_try());
        ada.give_back();
        assert!(ada.may_try() && !ada.may_try());
        tokio::time::advance(MINUTE).await;
        assert!(ada.may_try());
    }

    /// A name server that never answers.
    async fn silent() -> (tokio::net::UdpSocket, Prover) {
        let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let prover = Prover::new(NameServer::At(socket.local_addr().unwrap())).unwrap();
        (socket, prover)
    }

    #[tokio::test]
    async fn an_account_with_slow_name_servers_takes_no_more_than_its_share() {
        let (_silent, prover) = silent().await;
        let (eve, values) = ("eve".parse().unwrap(), values());
        let slow = name("a.b.c.d.e.f.slow.example");
        let mut proofs: Vec<_> = (0..100).map(|_| Box::pin(prover.prove(&eve, &slow, &values))).collect();
        // More than one task does in a turn.
        for _ in 0..20 {
            assert!(proofs.iter_mut().all(|it| it.now_or_never().is_none()));
            yield_now().await;
        }
        assert_eq!(prover.asking.available_permits(), MAX_LOOKUPS - MAX_PROOFS * MAX_RECORDS);
        assert_eq!(prover.of(&eve).tries().count, u32::try_from(MAX_PROOFS).unwrap());
        drop(proofs);
        assert_eq!(prover.asking.available_permits(), MAX_LOOKUPS);
        assert_eq!(prover.of(&eve).proving.available_permits(), MAX_PROOFS);
    }
}
