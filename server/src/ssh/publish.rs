//! Makes the forwards of one command public, or says why not.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{join_all, maybe_done};
use hithe_cli_parser::{Bind, Code, Command, HostName, HostPattern, Placement};
use rustls::ServerConfig;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::Publishers;
use super::forwards::{Forward, allow};
use super::publisher::Publisher;
use crate::certs::{Demands, Shown};
use crate::endpoint::{Endpoint, Member, Parts, Protocol};
use crate::modules::{ModuleChain, Plan};
use crate::proof::{ProofError, Values, record_of};
use crate::registry::{Claim, Holder, Lease, Refusal, Slot};
use crate::tunnel::Tunnel;
use crate::tunnel::approach::Approach;
use crate::tunnel::channel::{ChannelDialer, Inboxes};
use crate::visit::VisitLogRef;

/// A forward that is public.
pub(super) struct Live {
    pub(super) bind: Bind,
    pub(super) tag: u32,
    pub(super) urls: Vec<Arc<str>>,
    member: Arc<Member>,
    /// What it was published with.
    pub(super) command: Arc<Command>,
    /// Stops channels from being opened.
    cut: CancellationToken,
    inboxes: Arc<Inboxes>,
    lease: Lease,
    #[expect(dead_code, reason = "held for its drop: until then the same -R is a duplicate")]
    forward: Forward,
}

impl Live {
    /// Whether other sessions serve in place of all its endpoints.
    pub(super) fn is_displaced(&self) -> bool {
        let displaced = |it: &Arc<Endpoint>| it.held().is_some_and(|held| held.next().is_some());
        self.lease.endpoints().iter().all(displaced)
    }

    /// Waits until its visits are over, and ends those that last too long.
    pub(super) async fn finish_visits(self) {
        let _ = timeout(FINISH, self.member.idle()).await;
        self.cut();
    }

    /// Ends the running visits with the endpoint. Without this, only new visits are refused.
    pub(super) fn cut(self) {
        self.cut.cancel();
        self.inboxes.sever_the_cut();
    }
}

/// A forward that could not be made public.
pub(super) struct Failed {
    pub(super) bind: Bind,
    pub(super) refusal: Refusal,
}

/// Publishes each forward with the command's options.
pub(super) async fn publish(
    context: Arc<Publishers>,
    publisher: Arc<Publisher>,
    command: Arc<Command>,
    forwards: Vec<Forward>,
    log: VisitLogRef,
) -> Vec<Result<Live, Failed>> {
    evict_the_dead(&publisher, &forwards).await;
    let publishing = Publishing { context: &context, publisher: &publisher, command: &command, log: &log };
    let one = async |forward: Forward| {
        let bind = forward.bind.clone();
        publishing.run(forward).await.map_err(|refusal| Failed { bind, refusal })
    };
    let mut all: Vec<_> = forwards.into_iter().map(|forward| Box::pin(maybe_done(one(forward)))).collect();
    // Each goes as far as it can in its turn, so that random names and ports do not depend on who waits for what; and then
    // all wait together, so that a slow name server holds up what it has nothing to do with no longer.
    all.iter_mut().for_each(|it| _ = it.now_or_never());
    join_all(all.iter_mut()).await;
    all.iter_mut().filter_map(|it| it.as_mut().take_output()).collect()
}

/// Which random name or port it will be depends on which of the account's sessions live: those that do not answer, all
/// asked at once, give theirs to this one. What is asked for by its name passes to the newer session anyway.
async fn evict_the_dead(publisher: &Publisher, forwards: &[Forward]) {
    let registry = &publisher.registry;
    let mut others = match forwards.iter().any(Forward::is_random) {
        true => registry.others_of(publisher.account(), publisher.session),
        false => Vec::new(),
    };
    others.extend(registry.others_at_limit(publisher));
    others.sort_by_key(|other| other.id());
    others.dedup_by_key(|other| other.id());
    join_all(others.iter().map(|other| async move {
        if !other.is_alive().await {
            tracing::info!(session = %other.id(), "the client does not answer: its successor takes over");
            other.evict();
        }
    }))
    .await;
}

/// What the modules of a command come to for one forward.
struct Planned {
    modules: Arc<ModuleChain>,
    member: Arc<Member>,
    demands: Demands,
    /// Whether TLS of a tls endpoint ends here.
    ends_tls: bool,
}

impl Planned {
    /// Visitors of plain http have no certificate, and see none. What holds for https `beside` it is fine but for that
    /// of visitors.
    fn check_plain(&self, beside: bool) -> Result<(), Refusal> {
        let refusal = |code, message| Err(Refusal::new(code, message, "use port 443 in -R"));
        if self.demands.authorities.is_some() {
            let message = "with --mutual-tls-cas an endpoint cannot answer plain http";
            return refusal(Code::MUTUAL_TLS_PLACE, message);
        }
        if self.demands.certificate.is_some() && !beside {
            return refusal(
                Code::CERTIFICATE,
                "--crt is for https, and this endpoint answers plain http alone",
            );
        }
        if self.demands.min_version.is_some() && !beside {
            let message = "--tls-min-version is for https, and this endpoint answers plain http alone";
            return refusal(Code::TLS_VERSION_PLACE, message);
        }
        Ok(())
    }
}

struct Publishing<'a> {
    context: &'a Publishers,
    publisher: &'a Arc<Publisher>,
    command: &'a Arc<Command>,
    log: &'a VisitLogRef,
}

impl Publishing<'_> {
    async fn run(&self, mut forward: Forward) -> Result<Live, Refusal> {
        let registry = &self.context.registry;
        let bind = forward.bind.clone();
        let asked = self.command.asked(&bind)?;
        let placement = self.command.place(&asked, registry.tcp_ports())?;
        if let Cow::Owned(asked) = &asked {
            self.claim_anew(&mut forward, asked, placement)?;
        }
        let cut = CancellationToken::new();
        let claim = forward.claim.take();
        let planned = self.plan(&forward, &cut)?;
        let (lease, urls) = match placement {
            Placement::Tcp { port } => self.tcp(&forward, claim, port, &planned).await?,
            Placement::Tls => {
                let (claim, name) = self.name(&forward, claim).await?;
                if planned.ends_tls {
                    self.check_certificate(&name, &planned)?;
                }
                let protocol = if planned.ends_tls { Protocol::TlsEnded } else { Protocol::Tls };
                self.web(claim, &name, &planned, &[protocol])?
            }
            Placement::Http(schemes) => {
                let (claim, name) = self.name(&forward, claim).await?;
                let mut protocols = Vec::new();
                // --schemes may want the other port as well.
                let also = |port| match asked.port {
                    0 => Ok(()),
                    _ => allow(self.publisher, &Bind { address: asked.address.clone(), port }),
                };
                if schemes.http {
                    also(80)?;
                    planned.check_plain(schemes.https)?;
                    protocols.push(Protocol::Http);
                }
                if schemes.https {
                    also(443)?;
                    self.check_certificate(&name, &planned)?;
                    protocols.push(Protocol::Https);
                }
                self.web(claim, &name, &planned, &protocols)?
            }
        };
        let inboxes = Arc::clone(&self.publisher.inboxes);
        let command = Arc::clone(self.command);
        Ok(Live {
            bind,
            tag: forward.tag,
            urls,
            member: planned.member,
            command,
            cut,
            inboxes,
            lease,
            forward,
        })
    }

    /// Claims what the flags of the command name, in place of what `-R` alone came to.
    fn claim_anew(&self, forward: &mut Forward, asked: &Bind, placement: Placement) -> Result<(), Refusal> {
        let registry = &self.context.registry;
        allow(self.publisher, asked)?;
        forward.claim = None;
        let name = asked.requested_name(registry.domain()).map_err(Refusal::from)?;
        match (placement, name) {
            (Placement::Tcp { .. }, Some(name)) if name != HostPattern::Exact(registry.domain().clone()) => {
                let message =
                    format!("the tcp endpoints of this server are at {}, not at {name}", registry.domain());
                Err(Refusal::new(
                    Code::TCP_WITH_NAME,
                    message,
                    "leave -R at 0 and the flag out to get a port",
                ))
            }
            (Placement::Http(_) | Placement::Tls, Some(name)) => {
                forward.claim = registry.claim_name(&**self.publisher, &name)?;
                forward.name = Some(name);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The name that the forward asked for, or a random one.
    async fn name(&self, forward: &Forward, claim: Option<Claim>) -> Result<(Claim, HostPattern), Refusal> {
        match (&forward.name, claim) {
            (Some(name), Some(claim)) => Ok((claim, name.clone())),
            (Some(name), None) => Ok((self.claim_with_proof(name).await?, name.clone())),
            // A TCP port that was kept in case the command is tcp is given back here.
            (_, unused) => {
                drop(unused);
                self.context.registry.claim_random_name(&**self.publisher)
            }
        }
    }

    /// A name outside the domain. Nothing is held of it before it is known to be this account's.
    async fn claim_with_proof(&self, name: &HostPattern) -> Result<Claim, Refusal> {
        let (registry, identity) = (&self.context.registry, &self.publisher.identity);
        // What cannot be had anyway is worth no question.
        if let Some(claim) = registry.claim_name(&**self.publisher, name)? {
            return Ok(claim);
        }
        let Some(prover) = &self.context.prover else {
            let message = format!("{name} does not lie below {}", registry.domain());
            return Err(Refusal::new(Code::CUSTOM_DOMAIN, message, "ask the operator for --custom-domains"));
        };
        let values = self.context.access.values(identity, registry.domain());
        let proof = prover.prove(&identity.account, name, &values).await;
        let proof = proof.map_err(|error| not_proved(name, &error, &values))?;
        registry.claim_proved_name(&**self.publisher, name, &proof)
    }

    fn web(
        &self,
        claim: Claim,
        name: &HostPattern,
        planned: &Planned,
        protocols: &[Protocol],
    ) -> Result<(Lease, Vec<Arc<str>>), Refusal> {
        let endpoints: Vec<_> = protocols
            .iter()
            .map(|protocol| {
                let slot = if *protocol == Protocol::Http { Slot::Plain } else { Slot::Secure };
                let url = self.url(*protocol, name);
                let tls = if slot == Slot::Plain { None } else { self.tls(*protocol, planned)? };
                Ok((slot, self.endpoint(*protocol, url, planned, tls)))
            })
            .collect::<Result<_, Refusal>>()?;
        let urls = endpoints.iter().map(|(_, endpoint)| endpoint.url.clone()).collect();
        Ok((claim.publish(&endpoints, &planned.member)?, urls))
    }

    async fn tcp(
        &self,
        forward: &Forward,
        claim: Option<Claim>,
        port: Option<u16>,
        planned: &Planned,
    ) -> Result<(Lease, Vec<Arc<str>>), Refusal> {
        if let Some(name) = forward.name.as_ref().filter(|_| port.is_none()) {
            let message = format!("a tcp endpoint has a port and no name, so it cannot be {name}");
            return Err(Refusal::new(Code::TCP_WITH_NAME, message, "leave the name out: -R 0:localhost:22"));
        }
        let claim = match (claim, port) {
            (Some(claim), Some(_)) => claim,
            // Asked again for a random one: the end of a dead predecessor may have freed the key's own port.
            (chosen_at_the_forward, port) => {
                drop(chosen_at_the_forward);
                self.context.registry.claim_port(&**self.publisher, port)?
            }
        };
        let number = claim.port().unwrap_or_default();
        let url: Arc<str> = format!("tcp://{}:{number}", self.context.registry.domain()).into();
        let endpoint = self.endpoint(Protocol::Tcp, url.clone(), planned, None);
        Ok((claim.publish_port(endpoint, &planned.member).await?, vec![url]))
    }

    /// For handshakes with visitors, where the endpoint has demands of its own.
    fn tls(&self, protocol: Protocol, planned: &Planned) -> Result<Option<Arc<ServerConfig>>, Refusal> {
        if protocol == Protocol::Tls || planned.demands.is_none() {
            return Ok(None);
        }
        let routes = self.context.registry.clone();
        let certificates = &self.context.certificates;
        let usual = certificates.resolver(Arc::new(move |name: &HostName| routes.is_live(name.as_str())));
        let config = planned.demands.config(certificates, usual);
        config.map(Some).map_err(|error| {
            let message = format!("TLS cannot be had as the command wants it: {error}");
            Refusal::new(Code::CERTIFICATE, message, "check the certificates in the command")
        })
    }

    fn endpoint(
        &self,
        protocol: Protocol,
        url: Arc<str>,
        planned: &Planned,
        tls: Option<Arc<ServerConfig>>,
    ) -> Arc<Endpoint> {
        Endpoint::new(Parts {
            protocol,
            account: self.publisher.account().clone(),
            url,
            modules: Arc::clone(&planned.modules),
            tls,
            command: Arc::clone(self.command),
            member: Arc::clone(&planned.member),
        })
    }

    fn plan(&self, forward: &Forward, cut: &CancellationToken) -> Result<Planned, Refusal> {
        let plan = Plan::of(&self.command.modules().clone().into_configs(), &self.context.commons)
            .map_err(|error| Refusal::new(error.code(), error.to_string(), "see ssh HOST http --help"))?;
        Ok(Planned {
            modules: Arc::new(plan.chain),
            member: Member::new(self.tunnel(forward, cut, plan.approach), self.log.clone()),
            demands: Demands { raw: plan.ends_tls, ..plan.tls },
            ends_tls: plan.ends_tls,
        })
    }

    fn tunnel(&self, forward: &Forward, cut: &CancellationToken, approach: Approach) -> Arc<Tunnel> {
        let tasks = self.context.tasks.clone();
        let dialer = ChannelDialer {
            handle: self.publisher.handle.clone(),
            asked: Bind { address: forward.bind.address.clone(), port: forward.tag },
            opens: Arc::clone(&self.publisher.opens),
            tasks: tasks.clone(),
            cut: cut.clone(),
            inboxes: Arc::clone(&self.publisher.inboxes),
            spool: Arc::clone(&self.context.spool),
            publisher: self.publisher.account().clone(),
            usage: Arc::clone(&self.publisher.usage),
        };
        let tunnel = Tunnel::new(Arc::new(dialer), tasks, approach);
        Arc::new(tunnel.charged_to(Arc::clone(&self.publisher.usage)))
    }

    fn check_certificate(&self, name: &HostPattern, planned: &Planned) -> Result<(), Refusal> {
        match &planned.demands.certificate {
            Some(Shown::Own(_)) => return Ok(()),
            Some(Shown::Named(folder)) if !self.context.certificates.folder_covers(folder, name) => {
                let message =
                    format!("this server has no certificate by the name of {folder} that is for {name}");
                let hint =
                    "ask the operator for the folder under --certificates, or give one: --crt with --key";
                return Err(Refusal::new(Code::CERTIFICATE, message, hint));
            }
            _ => {}
        }
        let (HostPattern::Exact(base) | HostPattern::Wildcard(base)) = name;
        let domain = self.context.registry.domain();
        if base.is_below(domain) || self.context.certificates.covers(base) {
            return Ok(());
        }
        let hint =
            "the operator can put one under --certificates; or publish with tls and your own certificate";
        Err(Refusal::new(Code::CUSTOM_DOMAIN, format!("this server has no certificate for {name}"), hint))
    }

    fn url(&self, protocol: Protocol, name: &HostPattern) -> Arc<str> {
        let (scheme, port, usual) = match protocol {
            Protocol::Http => ("http", self.context.public.http, 80),
            Protocol::Https | Protocol::Tcp => ("https", self.context.public.https, 443),
            Protocol::Tls | Protocol::TlsEnded => ("tls", self.context.public.https, 443),
        };
        if port == usual {
            format!("{scheme}://{name}").into()
        } else {
            format!("{scheme}://{name}:{port}").into()
        }
    }
}

/// Says which record to set.
fn not_proved(name: &HostPattern, error: &ProofError, values: &Values) -> Refusal {
    let record = format!("{}. TXT \"{}\"", record_of(name), values.to_tell());
    let hint = match error {
        ProofError::NoRecord { .. } | ProofError::Another { .. } => {
            format!("set this record and publish again: {record}")
        }
        ProofError::Failed { .. } => format!("publish again later; the record to set is {record}"),
        ProofError::TooMany | ProofError::Waiting => format!("wait a minute; the record to set is {record}"),
    };
    Refusal::new(Code::CUSTOM_DOMAIN, error.to_string(), hint)
}

/// How long the visits of a forward may last whose place another session has taken.
const FINISH: Duration = Duration::from_secs(600);
