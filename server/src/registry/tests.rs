//! Who gets which name.

use std::sync::atomic::Ordering;

use futures_util::FutureExt as _;
use hithe_cli_parser::{Code, HostPattern, Parsed, parse};

use super::testing::FakeHolder;
use super::*;
use crate::drain::Drain;
use crate::endpoint::{Endpoint, Member, Parts, Protocol};
use crate::modules::ModuleChain;
use crate::store::{Database, seconds};
use crate::tunnel::Tunnel;
use crate::tunnel::testing::NoDial;

fn member() -> Arc<Member> {
    Member::new(Arc::new(Tunnel::new(Arc::new(NoDial), Drain::new().1, Default::default())), None)
}

fn endpoint() -> (Arc<Endpoint>, Arc<Member>) {
    let member = member();
    let chain = ModuleChain::default();
    (Endpoint::for_test(Protocol::Https, "https://app.w.test", chain, Arc::clone(&member)), member)
}

fn name(text: &str) -> HostPattern {
    HostPattern::parse(text).unwrap()
}

fn publish(registry: &Registry, holder: &FakeHolder, text: &str) -> Result<Lease, Refusal> {
    let (endpoint, member) = with_command(holder, "http");
    registry.claim_name(holder, &name(text))?.unwrap().publish(&[(Slot::Secure, endpoint)], &member)
}

fn refused(registry: &Registry, holder: &FakeHolder, text: &str) -> Code {
    registry.claim_name(holder, &name(text)).expect_err(text).code
}

#[tokio::test]
async fn a_claim_makes_nothing_public_and_a_dropped_lease_withdraws() {
    let registry = Registry::for_test();
    let ada = FakeHolder::enter(&registry, 1);
    let claim = registry.claim_name(&*ada, &name("app.w.test")).unwrap().unwrap();
    assert!(!registry.is_live("app.w.test"));
    let (endpoint, member) = endpoint();
    let lease = claim.publish(&[(Slot::Secure, Arc::clone(&endpoint))], &member).unwrap();
    assert!(registry.is_live("app.w.test"));
    drop(lease);
    assert!(!registry.is_live("app.w.test"));
    assert!(endpoint.withdrawn.is_cancelled());
}

#[tokio::test]
async fn a_name_belongs_to_its_key_even_when_it_has_gone() {
    let registry = Registry::for_test();
    let (ada, bob) = (FakeHolder::enter(&registry, 1), FakeHolder::enter(&registry, 2));
    let lease = publish(&registry, &ada, "app.w.test").unwrap();
    assert_eq!(refused(&registry, &bob, "app.w.test"), Code::NAME_IN_USE);
    drop(lease);
    assert_eq!(refused(&registry, &bob, "app.w.test"), Code::NAME_IN_USE);
    let _again = publish(&registry, &ada, "app.w.test").unwrap();
}

#[tokio::test]
async fn one_key_may_have_a_name_on_both_ports_but_each_once() {
    let registry = Registry::for_test();
    let ada = FakeHolder::enter(&registry, 1);
    let _secure = publish(&registry, &ada, "app.w.test").unwrap();
    let plain = registry.claim_name(&*ada, &name("app.w.test")).unwrap().unwrap();
    let (endpoint, member) = endpoint();
    let _plain = plain.publish(&[(Slot::Plain, endpoint)], &member).unwrap();
    let again = publish(&registry, &ada, "app.w.test").unwrap_err();
    assert!(again.message.contains("already published by this session"));
}

fn with_command(holder: &FakeHolder, line: &str) -> (Arc<Endpoint>, Arc<Member>) {
    let Ok(Parsed::Publish(command)) = parse(line) else { panic!("{line}") };
    let member = member();
    let endpoint = Endpoint::new(Parts {
        protocol: Protocol::Https,
        account: holder.account.clone(),
        url: "https://app.w.test".into(),
        modules: Arc::default(),
        tls: None,
        command: Arc::from(command),
        member: Arc::clone(&member),
    });
    (endpoint, member)
}

fn publish_with(registry: &Registry, holder: &FakeHolder, line: &str) -> Result<Lease, Refusal> {
    let (endpoint, member) = with_command(holder, line);
    registry.claim_name(holder, &name("app.w.test"))?.unwrap().publish(&[(Slot::Secure, endpoint)], &member)
}

fn live(registry: &Registry, host: &str) -> Option<Arc<Endpoint>> {
    registry.web(host, Slot::Secure).and_then(Place::live)
}

#[tokio::test]
async fn a_newer_session_of_the_account_takes_over_and_the_older_is_told() {
    let registry = Registry::for_test();
    let (old, new) = (FakeHolder::enter(&registry, 1), FakeHolder::enter(&registry, 1));
    let old_lease = publish(&registry, &old, "app.w.test").unwrap();
    let before = live(&registry, "app.w.test").unwrap();
    let _new_lease = publish(&registry, &new, "app.w.test").unwrap();
    let after = live(&registry, "app.w.test").unwrap();
    assert!(before.withdrawn.is_cancelled() && before.id != after.id);
    assert_eq!(before.held().unwrap().next().unwrap().id, after.id);
    assert_eq!((old.displaced.load(Ordering::Relaxed), new.displaced.load(Ordering::Relaxed)), (1, 0));
    drop(old_lease);
    assert_eq!(live(&registry, "app.w.test").unwrap().id, after.id);
}

#[tokio::test]
async fn a_name_that_changes_hands_too_often_stays_where_it_is() {
    let registry = Registry::for_test();
    let sessions: Vec<_> = (0..6).map(|_| FakeHolder::enter(&registry, 1)).collect();
    let leases: Vec<_> = sessions.iter().map(|it| publish(&registry, it, "app.w.test")).collect();
    let fates: Vec<bool> = leases.iter().map(Result::is_ok).collect();
    assert_eq!(fates, [true, true, true, true, false, false]);
    assert!(leases[5].as_ref().unwrap_err().hint.contains("--pooling-enabled"));
}

#[tokio::test]
async fn who_is_cut_off_again_and_again_has_its_name_each_time() {
    let registry = Registry::for_test();
    let mut leases = Vec::new();
    for _ in 0..20 {
        let session = FakeHolder::enter(&registry, 1);
        session.alive.store(false, Ordering::Relaxed);
        leases.push(publish(&registry, &session, "app.w.test").unwrap());
    }
}

#[tokio::test]
async fn sessions_that_share_a_name_are_one_endpoint_until_the_last_leaves() {
    let registry = Registry::for_test();
    let (one, other) = (FakeHolder::enter(&registry, 1), FakeHolder::enter(&registry, 1));
    let first = publish_with(&registry, &one, "http --pooling-enabled --compression").unwrap();
    let second = publish_with(&registry, &other, "http --compression --pooling-enabled --name b").unwrap();
    let shared = live(&registry, "app.w.test").unwrap();
    assert_eq!((shared.members().len(), second.endpoints()[0].id), (2, shared.id));
    drop(first);
    assert_eq!((live(&registry, "app.w.test").unwrap().id, shared.members().len()), (shared.id, 1));
    drop(second);
    assert!(live(&registry, "app.w.test").is_none() && shared.withdrawn.is_cancelled());
}

#[tokio::test]
async fn a_pool_has_one_set_of_rules_and_one_account() {
    let registry = Registry::for_test();
    let (one, other) = (FakeHolder::enter(&registry, 1), FakeHolder::enter(&registry, 1));
    let stranger = FakeHolder::enter(&registry, 2);
    let _lease =
        publish_with(&registry, &one, "http --pooling-enabled --basic-auth ada:correct-horse").unwrap();
    let refused = publish_with(&registry, &other, "http --pooling-enabled").unwrap_err();
    assert_eq!(refused.code, Code::POOL_DIFFERS);
    let refused = publish_with(&registry, &stranger, "http --pooling-enabled --basic-auth ada:correct-horse");
    assert_eq!(refused.unwrap_err().code, Code::NAME_IN_USE);
    let alone = publish_with(&registry, &other, "http").unwrap();
    assert_eq!(
        live(&registry, "app.w.test").unwrap().id,
        alone.endpoints()[0].id,
        "who does not share takes over"
    );
}

#[tokio::test]
async fn visitors_wait_for_who_was_cut_off_and_not_for_who_left() {
    let registry = Registry::for_test();
    let (old, new) = (FakeHolder::enter(&registry, 1), FakeHolder::enter(&registry, 1));
    let _lease = publish(&registry, &old, "app.w.test").unwrap();
    old.evict();
    let Some(Place::Held(_, held)) = registry.web("app.w.test", Slot::Secure) else { panic!("not held") };
    let waiting = async { held.wait().await.then(|| held.next().map(|next| next.id)) };
    let publishing = async { publish(&registry, &new, "app.w.test").unwrap() };
    let (next, lease) = tokio::join!(waiting, publishing);
    assert_eq!(next.unwrap(), Some(lease.endpoints()[0].id));
    drop(lease);
    assert!(registry.web("app.w.test", Slot::Secure).is_none());
}

#[tokio::test]
async fn a_visit_that_one_account_admitted_goes_on_at_no_other_even_where_the_name_has_changed_hands() {
    let registry = Registry::for_test();
    let (ada, bob) = (FakeHolder::enter(&registry, 1), FakeHolder::enter(&registry, 2));
    let _lease = publish(&registry, &ada, "app.w.test").unwrap();
    ada.evict();
    let Some(Place::Held(_, held)) = registry.web("app.w.test", Slot::Secure) else { panic!("not held") };
    assert_eq!(refused(&registry, &bob, "app.w.test"), Code::NAME_IN_USE);
    registry.set_reservations(Reservations::for_test("app.w.test", &bob.account));
    let waiting = async { held.wait().await.then(|| held.next().map(|next| next.id)) };
    let publishing = async { publish(&registry, &bob, "app.w.test").unwrap() };
    let (next, lease) = tokio::join!(waiting, publishing);
    assert_eq!(next, Some(None));
    assert_eq!(live(&registry, "app.w.test").unwrap().id, lease.endpoints()[0].id);
}

#[tokio::test]
async fn visitors_who_wait_in_the_queue_of_a_lost_port_are_not_given_to_another_account() {
    let (registry, mut opened) = Registry::for_test_on("w.test", 30136..=30136);
    let (ada, bob) = (FakeHolder::enter(&registry, 1), FakeHolder::enter(&registry, 2));
    let (endpoint, member) = with_command(&ada, "http");
    let claim = registry.claim_port(&*ada, None).unwrap();
    let _lease = claim.publish_port(endpoint, &member).await.unwrap();
    let listener = opened.recv().await.unwrap();
    let places = registry.forget(&*ada, End::CutOff);
    assert_eq!(registry.claim_port(&*bob, None).unwrap_err().code, Code::NAME_IN_USE);
    assert_eq!(registry.claim_port(&*ada, None).unwrap().port(), Some(30136));
    registry.hold_no_longer(&places);
    drop(listener);
    assert_eq!(registry.claim_port(&*bob, None).unwrap().port(), Some(30136));
}

#[tokio::test(start_paused = true)]
async fn waiting_has_an_end_and_a_bound() {
    let registry = Registry::for_test();
    let ada = FakeHolder::enter(&registry, 1);
    let _lease = publish(&registry, &ada, "app.w.test").unwrap();
    let places = registry.forget(&*ada, End::CutOff);
    let Some(Place::Held(_, held)) = registry.web("app.w.test", Slot::Secure) else { panic!("not held") };
    let mut waiting: Vec<_> = (0..1000).map(|_| Box::pin(held.wait())).collect();
    let turned_away = waiting.iter_mut().filter_map(|it| it.now_or_never()).filter(|it| !it).count();
    assert!(turned_away > 700, "{turned_away}");
    registry.hold_no_longer(&places);
    assert!(registry.web("app.w.test", Slot::Secure).is_none() && held.wait().await);
}

#[tokio::test]
async fn an_evicted_session_gives_its_names_at_once_and_its_late_farewell_harms_nobody() {
    let registry = Registry::for_test();
    let (old, new) = (FakeHolder::enter(&registry, 1), FakeHolder::enter(&registry, 1));
    let old_lease = publish(&registry, &old, "app.w.test").unwrap();
    let claim = registry.claim_name(&*new, &name("app.w.test")).unwrap().unwrap();
    old.evict();
    let (endpoint, member) = endpoint();
    let _new_lease = claim.publish(&[(Slot::Secure, endpoint)], &member).unwrap();
    drop(old_lease);
    assert!(registry.is_live("app.w.test"));
}

#[tokio::test]
async fn a_live_name_rules_over_what_lies_below_it() {
    let registry = Registry::for_test();
    let (ada, bob) = (FakeHolder::enter(&registry, 1), FakeHolder::enter(&registry, 2));
    let _lease = publish(&registry, &ada, "app.w.test").unwrap();
    assert_eq!(refused(&registry, &bob, "x.app.w.test"), Code::NAME_IN_USE);
    assert_eq!(refused(&registry, &bob, "*.app.w.test"), Code::NAME_IN_USE);
    let _below = publish(&registry, &ada, "*.app.w.test").unwrap();
    assert_eq!(refused(&registry, &bob, "a.b.app.w.test"), Code::NAME_IN_USE);
}

#[tokio::test]
async fn a_wildcard_does_not_take_the_live_name_of_another_key() {
    let registry = Registry::for_test();
    let (ada, bob) = (FakeHolder::enter(&registry, 1), FakeHolder::enter(&registry, 2));
    let _lease = publish(&registry, &bob, "x.app.w.test").unwrap();
    assert_eq!(refused(&registry, &ada, "*.app.w.test"), Code::NAME_IN_USE);
}

#[tokio::test]
async fn the_most_specific_name_answers_and_wildcards_match_any_depth() {
    let registry = Registry::for_test();
    let ada = FakeHolder::enter(&registry, 1);
    let _wide = publish(&registry, &ada, "*.app.w.test").unwrap();
    let _narrow = publish(&registry, &ada, "*.b.app.w.test").unwrap();
    let exact = publish(&registry, &ada, "a.b.app.w.test").unwrap();
    let id = |host: &str| live(&registry, host).map(|endpoint| endpoint.id);
    assert_ne!(id("a.b.app.w.test"), id("c.b.app.w.test"));
    assert_ne!(id("x.y.app.w.test"), id("c.b.app.w.test"));
    assert_eq!(id("app.w.test"), None);
    drop(exact);
    assert_eq!(id("a.b.app.w.test"), id("c.b.app.w.test"));
}

#[tokio::test]
async fn the_operators_names_cannot_be_claimed() {
    let registry = Registry::for_test();
    let ada = FakeHolder::enter(&registry, 1);
    assert_eq!(refused(&registry, &ada, "w.test"), Code::NAME_RESERVED);
    assert_eq!(refused(&registry, &ada, "www.w.test"), Code::NAME_RESERVED);
    assert_eq!(refused(&registry, &ada, "x.mail.w.test"), Code::NAME_RESERVED);
    assert_eq!(refused(&registry, &ada, "*.w.test"), Code::WILDCARD_NOT_GRANTED);
    assert!(registry.claim_name(&*ada, &name("shop.custom.test")).unwrap().is_some());
}

#[tokio::test]
async fn a_name_without_proof_is_kept_from_nobody() {
    let registry = Registry::for_test();
    let (ada, bob) = (FakeHolder::enter(&registry, 1), FakeHolder::enter(&registry, 2));
    let shop = name("shop.example.net");
    assert!(registry.claim_name(&*ada, &shop).unwrap().is_none());
    assert!(registry.claim_name(&*ada, &name("*.example.net")).unwrap().is_none());
    let proof = Proof::for_test(&bob.account, &shop);
    assert!(registry.claim_proved_name(&*ada, &shop, &proof).is_err(), "a proof is for one account");
    assert!(registry.claim_proved_name(&*bob, &name("x.example.net"), &proof).is_err(), "and for one name");
    let _claim = registry.claim_proved_name(&*bob, &shop, &proof).unwrap();
    assert_eq!(refused(&registry, &ada, "shop.example.net"), Code::NAME_IN_USE);
}

#[tokio::test]
async fn a_proved_name_is_not_kept_for_who_had_it_last() {
    let registry = Registry::for_test();
    let (ada, bob) = (FakeHolder::enter(&registry, 1), FakeHolder::enter(&registry, 2));
    let shop = name("shop.example.net");
    let publish_proved = |holder: &FakeHolder| {
        let (endpoint, member) = endpoint();
        let proof = Proof::for_test(&holder.account, &shop);
        registry.claim_proved_name(holder, &shop, &proof)?.publish(&[(Slot::Secure, endpoint)], &member)
    };
    let lease = publish_proved(&ada).unwrap();
    assert_eq!(publish_proved(&bob).unwrap_err().code, Code::NAME_IN_USE);
    registry.note_live();
    drop(lease);
    assert!(publish_proved(&bob).is_ok());
}

#[tokio::test]
async fn a_key_gets_the_same_random_name_again_and_two_at_once() {
    let registry = Registry::for_test();
    let (ada, bob) = (FakeHolder::enter(&registry, 1), FakeHolder::enter(&registry, 2));
    let (first, first_name) = registry.claim_random_name(&*ada).unwrap();
    let (_second, second_name) = registry.claim_random_name(&*ada).unwrap();
    let (_other, other_name) = registry.claim_random_name(&*bob).unwrap();
    assert_ne!(first_name, second_name);
    assert_ne!(first_name, other_name);
    drop(first);
    assert_eq!(registry.claim_random_name(&*ada).unwrap().1, first_name);
}

#[tokio::test]
async fn a_port_outside_of_the_range_is_refused_with_the_range() {
    let registry = Registry::for_test();
    let ada = FakeHolder::enter(&registry, 1);
    let refusal = registry.claim_port(&*ada, Some(25)).unwrap_err();
    assert_eq!(refusal.code, Code::PORT_NOT_FOR_COMMAND);
    assert!(refusal.message.contains("20000-20999"));
}

#[tokio::test]
async fn a_port_is_given_again_after_a_drop_and_to_nobody_else() {
    let (registry, mut opened) = Registry::for_test_on("w.test", 30100..=30119);
    let (ada, bob) = (FakeHolder::enter(&registry, 1), FakeHolder::enter(&registry, 2));
    let claim = registry.claim_port(&*ada, None).unwrap();
    let port = claim.port().unwrap();
    let (endpoint, member) = endpoint();
    let lease = claim.publish_port(endpoint, &member).await.unwrap();
    let listener = opened.recv().await.unwrap();
    assert_eq!(listener.listener.local_addr().unwrap().port(), port);
    assert_eq!(registry.claim_port(&*bob, Some(port)).unwrap_err().code, Code::NAME_IN_USE);
    drop((lease, listener));
    assert_eq!(registry.claim_port(&*bob, Some(port)).unwrap_err().code, Code::NAME_IN_USE);
    assert_eq!(registry.claim_port(&*ada, None).unwrap().port(), Some(port));
}

async fn publish_port(registry: &Registry, holder: &FakeHolder, port: Option<u16>) -> (Lease, u16) {
    let (endpoint, member) = with_command(holder, "http");
    let claim = registry.claim_port(holder, port).unwrap();
    let port = claim.port().unwrap();
    (claim.publish_port(endpoint, &member).await.unwrap(), port)
}

#[tokio::test]
async fn a_random_port_is_given_again_after_a_restart_though_a_better_one_is_free() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(&folder.path().join("hithe.db")).unwrap();
    let (registry, mut opened) = Registry::for_test_on("w.test", 30140..=30149);
    let ada = FakeHolder::enter(&registry, 1);
    let first = registry.claim_port(&*ada, None).unwrap().port().unwrap();
    let blocked = std::net::TcpListener::bind(("127.0.0.1", first)).unwrap();
    let (lease, second) = publish_port(&registry, &ada, None).await;
    assert_ne!(first, second);
    drop((opened.recv().await, lease, blocked));
    database.save_past_owners(&registry.take_changes()).unwrap();

    let (registry, _opened) = Registry::for_test_on("w.test", 30140..=30149);
    registry.ledger().past = database.past_owners().unwrap();
    let ada = FakeHolder::enter(&registry, 1);
    let again = registry.claim_port(&*ada, None).unwrap();
    assert_eq!(again.port(), Some(second));
    assert_eq!(registry.claim_port(&*ada, None).unwrap().port(), Some(first));
}

#[tokio::test]
async fn a_port_that_was_asked_for_is_given_at_random_only_when_there_is_no_other() {
    let (registry, mut opened) = Registry::for_test_on("w.test", 30150..=30157);
    let ada = FakeHolder::enter(&registry, 1);
    let first = registry.claim_port(&*ada, None).unwrap().port().unwrap();
    let (lease, _) = publish_port(&registry, &ada, Some(first)).await;
    drop((opened.recv().await, lease));
    let claims: Vec<_> = (0..8).map(|_| registry.claim_port(&*ada, None).unwrap()).collect();
    assert_eq!(claims.iter().position(|it| it.port() == Some(first)), Some(7));
}

#[tokio::test]
async fn ports_that_are_only_remembered_are_given_to_others_when_there_are_no_more() {
    let (registry, opened) = Registry::for_test_on("w.test", 30120..=30122);
    let (gone, here) = (FakeHolder::enter(&registry, 1), FakeHolder::enter(&registry, 2));
    let mut leases = Vec::new();
    for _ in 0..3 {
        let (endpoint, member) = endpoint();
        leases
            .push(registry.claim_port(&*gone, None).unwrap().publish_port(endpoint, &member).await.unwrap());
    }
    assert_eq!(registry.claim_port(&*here, None).unwrap_err().code, Code::NAME_IN_USE);
    drop((leases, opened));
    assert!(registry.claim_port(&*here, None).is_ok());
}

#[tokio::test]
async fn a_claim_that_was_never_public_gives_no_right_to_the_name() {
    let registry = Registry::for_test();
    let (ada, bob) = (FakeHolder::enter(&registry, 1), FakeHolder::enter(&registry, 2));
    let claim = registry.claim_name(&*ada, &name("app.w.test")).unwrap().unwrap();
    assert_eq!(refused(&registry, &bob, "app.w.test"), Code::NAME_IN_USE);
    drop(claim);
    let _lease = publish(&registry, &bob, "app.w.test").unwrap();
}

#[tokio::test]
async fn a_wildcard_does_not_take_a_name_that_another_key_had_lately() {
    let registry = Registry::for_test();
    let (ada, bob) = (FakeHolder::enter(&registry, 1), FakeHolder::enter(&registry, 2));
    drop(publish(&registry, &ada, "x.app.w.test").unwrap());
    assert_eq!(refused(&registry, &bob, "*.app.w.test"), Code::NAME_IN_USE);
    let _own = publish(&registry, &ada, "*.app.w.test").unwrap();
}

#[tokio::test]
async fn a_wildcard_that_has_gone_stays_with_its_key_and_so_does_what_it_covered() {
    let registry = Registry::for_test();
    let (ada, bob) = (FakeHolder::enter(&registry, 1), FakeHolder::enter(&registry, 2));
    drop(publish(&registry, &ada, "*.app.w.test").unwrap());
    assert_eq!(refused(&registry, &bob, "x.app.w.test"), Code::NAME_IN_USE);
    let _again = publish(&registry, &ada, "*.app.w.test").unwrap();
}

#[tokio::test]
async fn a_name_stays_with_its_key_when_another_publishes_above_it() {
    let registry = Registry::for_test();
    let (ada, bob) = (FakeHolder::enter(&registry, 1), FakeHolder::enter(&registry, 2));
    let lease = publish(&registry, &ada, "x.app.w.test").unwrap();
    let _above = publish(&registry, &bob, "app.w.test").unwrap();
    assert_eq!(refused(&registry, &ada, "y.app.w.test"), Code::NAME_IN_USE);
    drop(lease);
    let _again = publish(&registry, &ada, "x.app.w.test").unwrap();
}

#[tokio::test]
async fn what_lies_above_the_servers_domain_rules_over_none_of_its_names() {
    let (registry, _opened) = Registry::for_test_on("w.corp.custom.test", 20000..=20999);
    let (ada, bob) = (FakeHolder::enter(&registry, 1), FakeHolder::enter(&registry, 2));
    let _above = publish(&registry, &ada, "corp.custom.test").unwrap();
    let _name = publish(&registry, &bob, "app.w.corp.custom.test").unwrap();
    assert!(registry.claim_random_name(&*bob).is_ok());
    assert_eq!(refused(&registry, &ada, "*.corp.custom.test"), Code::WILDCARD_NOT_GRANTED);
}

#[tokio::test]
async fn a_port_that_is_kept_for_another_is_no_random_one_even_when_there_are_no_more() {
    let (registry, _opened) = Registry::for_test_on("w.test", 30130..=30131);
    let (ada, bob) = (FakeHolder::enter(&registry, 1), FakeHolder::enter(&registry, 2));
    registry.set_reservations(Reservations::for_test("port 30130", &bob.account));
    let adas = registry.claim_port(&*ada, None).unwrap();
    assert_eq!(adas.port(), Some(30131));
    assert_eq!(registry.claim_port(&*ada, None).unwrap_err().code, Code::NAME_IN_USE);
    assert_eq!(registry.claim_port(&*bob, None).unwrap().port(), Some(30130));
}

#[tokio::test]
async fn nobody_takes_what_may_be_reserved_while_reservations_cannot_be_read() {
    let (registry, _opened) = Registry::for_test_on("w.test", 30132..=30135);
    let (ada, bob) = (FakeHolder::enter(&registry, 1), FakeHolder::enter(&registry, 2));
    drop(publish(&registry, &ada, "lately.w.test").unwrap());
    let live = publish(&registry, &ada, "live.w.test").unwrap();
    registry.set_reservations(Reservations::incomplete_for_test("known.w.test", &ada.account));
    for name in ["new.w.test", "*.new.w.test", "shop.custom.test"] {
        assert_eq!(refused(&registry, &ada, name), Code::NAME_RESERVED, "{name}");
    }
    let shop = name("shop.example.net");
    let proof = Proof::for_test(&ada.account, &shop);
    let proved = registry.claim_proved_name(&*ada, &shop, &proof);
    assert_eq!(proved.unwrap_err().code, Code::NAME_RESERVED);
    assert_eq!(registry.claim_port(&*ada, Some(30132)).unwrap_err().code, Code::NAME_RESERVED);
    assert_eq!(registry.claim_port(&*ada, None).unwrap_err().code, Code::NAME_RESERVED);
    for known in ["lately.w.test", "live.w.test", "known.w.test"] {
        let _claim = registry.claim_name(&*ada, &name(known)).unwrap().unwrap();
        assert_eq!(refused(&registry, &bob, known), Code::NAME_IN_USE, "{known}");
    }
    assert!(registry.claim_random_name(&*bob).is_ok());
    drop(live);
    registry.set_reservations(Reservations::default());
    assert!(registry.claim_name(&*bob, &name("new.w.test")).unwrap().is_some());
}

#[tokio::test]
async fn what_was_released_is_free_unless_somebody_had_it_afterwards() {
    let registry = Registry::for_test();
    let (ada, bob) = (FakeHolder::enter(&registry, 1), FakeHolder::enter(&registry, 2));
    drop(publish(&registry, &ada, "app.w.test").unwrap());
    let now = seconds(SystemTime::now());
    let released = Released::One("app.w.test".to_owned());
    registry.forget_released(&released, now - 60);
    assert_eq!(refused(&registry, &bob, "app.w.test"), Code::NAME_IN_USE);
    registry.forget_released(&released, now + 60);
    drop(publish(&registry, &bob, "app.w.test").unwrap());
    registry.forget_released(&Released::AllOf(ada.account.clone()), now + 60);
    assert_eq!(refused(&registry, &ada, "app.w.test"), Code::NAME_IN_USE);
    registry.forget_released(&Released::AllOf(bob.account.clone()), now + 60);
    assert!(registry.claim_name(&*ada, &name("app.w.test")).unwrap().is_some());
}
