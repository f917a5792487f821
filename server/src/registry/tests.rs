//! Who gets which name.

use hithe_cli_parser::{Code, HostPattern};
use tokio_util::sync::CancellationToken;

use super::testing::FakeHolder;
use super::*;
use crate::drain::Drain;
use crate::endpoint::{EndpointId, Protocol};
use crate::modules::ModuleChain;
use crate::tunnel::{Dial, DialError, Tunnel, TunnelStream};
use crate::visit::Visitor;

struct NoDial;

impl Dial for NoDial {
    fn dial(&self, _: Visitor) -> BoxFuture<'_, Result<TunnelStream, DialError>> {
        Box::pin(std::future::ready(Err(DialError::Gone)))
    }
}

fn endpoint() -> Arc<Endpoint> {
    Arc::new(Endpoint {
        id: EndpointId::next(),
        protocol: Protocol::Https,
        url: "https://app.w.test".into(),
        modules: Arc::new(ModuleChain::default()),
        tls: None,
        tunnel: Arc::new(Tunnel::new(Arc::new(NoDial), Drain::new().1, Default::default())),
        log: None,
        withdrawn: CancellationToken::new(),
    })
}

fn name(text: &str) -> HostPattern {
    HostPattern::parse(text).unwrap()
}

fn publish(registry: &Registry, holder: &FakeHolder, text: &str) -> Result<Lease, Refusal> {
    registry.claim_name(holder, &name(text))?.publish(&[(Slot::Secure, endpoint())])
}

fn refused(registry: &Registry, holder: &FakeHolder, text: &str) -> Code {
    registry.claim_name(holder, &name(text)).expect_err(text).code
}

#[tokio::test]
async fn a_claim_makes_nothing_public_and_a_dropped_lease_withdraws() {
    let registry = Registry::for_test();
    let ada = FakeHolder::enter(&registry, 1);
    let claim = registry.claim_name(&*ada, &name("app.w.test")).unwrap();
    assert!(!registry.is_live("app.w.test"));
    let endpoint = endpoint();
    let lease = claim.publish(&[(Slot::Secure, Arc::clone(&endpoint))]).unwrap();
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
    let plain = registry.claim_name(&*ada, &name("app.w.test")).unwrap();
    let _plain = plain.publish(&[(Slot::Plain, endpoint())]).unwrap();
    let again = publish(&registry, &ada, "app.w.test").unwrap_err();
    assert!(again.message.contains("already published by this session"));
    let other_session = FakeHolder::enter(&registry, 1);
    let living = publish(&registry, &other_session, "app.w.test").unwrap_err();
    assert_eq!(living.code, Code::NAME_IN_USE);
    assert!(living.message.contains("another session of your key"));
}

#[tokio::test]
async fn an_evicted_session_gives_its_names_at_once_and_its_late_farewell_harms_nobody() {
    let registry = Registry::for_test();
    let (old, new) = (FakeHolder::enter(&registry, 1), FakeHolder::enter(&registry, 1));
    let old_lease = publish(&registry, &old, "app.w.test").unwrap();
    let claim = registry.claim_name(&*new, &name("app.w.test")).unwrap();
    old.evict();
    let _new_lease = claim.publish(&[(Slot::Secure, endpoint())]).unwrap();
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
    let id = |host: &str| registry.web(host, Slot::Secure).map(|endpoint| endpoint.id);
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
    assert_eq!(refused(&registry, &ada, "shop.example.net"), Code::CUSTOM_DOMAIN);
    assert!(registry.claim_name(&*ada, &name("shop.custom.test")).is_ok());
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
    let lease = claim.publish_port(endpoint()).await.unwrap();
    let listener = opened.recv().await.unwrap();
    assert_eq!(listener.listener.local_addr().unwrap().port(), port);
    assert_eq!(registry.claim_port(&*bob, Some(port)).unwrap_err().code, Code::NAME_IN_USE);
    drop((lease, listener));
    assert_eq!(registry.claim_port(&*bob, Some(port)).unwrap_err().code, Code::NAME_IN_USE);
    assert_eq!(registry.claim_port(&*ada, None).unwrap().port(), Some(port));
}

#[tokio::test]
async fn ports_that_are_only_remembered_are_given_to_others_when_there_are_no_more() {
    let (registry, opened) = Registry::for_test_on("w.test", 30120..=30122);
    let (gone, here) = (FakeHolder::enter(&registry, 1), FakeHolder::enter(&registry, 2));
    let mut leases = Vec::new();
    for _ in 0..3 {
        leases.push(registry.claim_port(&*gone, None).unwrap().publish_port(endpoint()).await.unwrap());
    }
    assert_eq!(registry.claim_port(&*here, None).unwrap_err().code, Code::NAME_IN_USE);
    drop((leases, opened));
    assert!(registry.claim_port(&*here, None).is_ok());
}

#[tokio::test]
async fn a_claim_that_was_never_public_gives_no_right_to_the_name() {
    let registry = Registry::for_test();
    let (ada, bob) = (FakeHolder::enter(&registry, 1), FakeHolder::enter(&registry, 2));
    let claim = registry.claim_name(&*ada, &name("app.w.test")).unwrap();
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
