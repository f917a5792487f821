//! One request of a visitor: by its authority to an endpoint, through the modules, to the upstream and back.

mod again;
mod target;

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use hithe_cli_parser::{Code, HttpVersion};
use http::header::{CONNECTION, CONTENT_LENGTH, PROXY_AUTHENTICATE, TRANSFER_ENCODING, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use tokio::time::Instant;

use self::again::Again;
use self::target::{Route, Way};
use super::Site;
use super::activity::{Activity, UnderWay};
use super::convert::Conversion;
use super::forwarded::{self, Origin};
use super::reach::{self, Wanted};
use super::respond::{self, Form, ProxyError};
use super::upgrade::{self, Upgrade};
use crate::body::{Body, Ending, Outcome, SlowBody};
use crate::endpoint::{Endpoint, EndpointId, Turn};
use crate::limits::VisitPlace;
use crate::modules::{Flow, ModuleChain, Visit};
use crate::tunnel::DialError;
use crate::tunnel::pool::{SendError, Upstream};
use crate::visit::{CutOff, Reached, STALLED, TlsFacts, VisitRecord, Visitor, log_stalled};

/// One connection of a visitor that speaks HTTP.
pub(crate) struct Connection {
    site: Arc<Site>,
    visitor: Visitor,
    /// Where TLS was terminated on it.
    tls: Option<Secured>,
    /// What is told of a request that does not come through a proxy.
    origin: Origin,
    activity: Arc<Activity>,
    /// Upstream connections that authenticate as a whole (NTLM, Negotiate), and so serve this visitor alone.
    /// Or one visitor behind a proxy, whose connection carries the requests of many.
    tied: Mutex<Vec<(EndpointId, IpAddr, Upstream)>>,
}

/// The TLS of a connection that ended here.
#[derive(Default)]
pub(crate) struct Secured {
    pub(crate) facts: Arc<TlsFacts>,
    /// The endpoint that its handshake was made for, where that has demands of its own.
    pub(crate) made_for: Option<EndpointId>,
}

impl Secured {
    /// Whether a request may reach this endpoint over the connection: another's handshake did not meet its demands.
    pub(super) fn suits(&self, endpoint: &Endpoint) -> bool {
        endpoint.tls.is_none() || self.made_for == Some(endpoint.id)
    }
}

/// More than one is kept only for an HTTP/2 connection that reaches several such endpoints, or for a proxy's.
const MAX_TIED: usize = 8;

impl Connection {
    pub(crate) fn new(
        site: Arc<Site>,
        visitor: Visitor,
        tls: Option<Secured>,
        activity: Arc<Activity>,
    ) -> Arc<Self> {
        let address = HeaderValue::try_from(visitor.ip().to_string());
        let origin = Origin {
            address: address.unwrap_or(HeaderValue::from_static("unknown")),
            scheme: HeaderValue::from_static(if tls.is_some() { "https" } else { "http" }),
            is_proxy: visitor.is_proxy(),
        };
        Arc::new(Self { site, visitor, tls, origin, activity, tied: Mutex::default() })
    }

    /// Who asks: on a proxy's connection, each request may be another one's.
    fn visitor_of(&self, headers: &HeaderMap) -> Visitor {
        if !self.visitor.is_proxy() {
            return self.visitor;
        }
        let named = forwarded::visitor_of(headers, |address| self.site.trust.trusts(address));
        named.map_or(self.visitor, |address| self.visitor.on_behalf_of(address))
    }

    fn way(&self, headers: &HeaderMap) -> Way<'_> {
        match &self.tls {
            Some(secured) => Way::Secured(secured),
            None if self.visitor.is_proxy() && forwarded::came_over_tls(headers) => Way::Proxied,
            None => Way::Plain,
        }
    }

    fn facts(&self) -> Option<&Arc<TlsFacts>> {
        self.tls.as_ref().map(|tls| &tls.facts)
    }

    /// The answer to what was refused, which is counted.
    fn say(&self, error: &ProxyError, form: Form) -> Response<Body> {
        self.site.metrics.refused(error.code());
        error.answer(form)
    }

    /// Answers a request that has no endpoint. A connection to one that is gone ends with the answer: a client that
    /// keeps it would get no other one, and a new one meets the demands of the endpoint that is there now.
    fn refuse(&self, error: &ProxyError, form: Form, version: Version) -> Response<Body> {
        let mut answer = self.say(error, form);
        if matches!(error, ProxyError::Misdirected { outdated: true }) {
            self.activity.outdate();
            if version < Version::HTTP_2 {
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
        }
        answer
    }

    fn take_tied(&self, endpoint: &Endpoint, visitor: IpAddr) -> Option<Upstream> {
        let mut tied = self.tied.lock().unwrap_or_else(PoisonError::into_inner);
        let suits = |(id, whose, upstream): &(EndpointId, IpAddr, Upstream)| {
            *id == endpoint.id && *whose == visitor && upstream.is_ready()
        };
        let found = tied.iter().position(suits)?;
        let (_, _, mut upstream) = tied.swap_remove(found);
        upstream.resume();
        Some(upstream)
    }

    fn tie(&self, endpoint: &Endpoint, visitor: IpAddr, upstream: Upstream) {
        let mut tied = self.tied.lock().unwrap_or_else(PoisonError::into_inner);
        tied.retain(|(_, _, upstream)| !upstream.is_closed());
        if tied.len() < MAX_TIED {
            tied.push((endpoint.id, visitor, upstream));
        }
    }
}

/// Answers one request. There is no limit on how long an upstream may take.
pub(crate) async fn serve(connection: Arc<Connection>, mut request: Request<Body>) -> Response<Body> {
    let form = Form::wanted(request.headers());
    let under_way = connection.activity.begin();
    let version = request.version();
    if let Err(wait) = connection.activity.place.request() {
        return connection.refuse(&ProxyError::TooMany { wait }, form, version);
    }
    if !request.body().is_end_stream() {
        // An answer may be over before its request is.
        let receiving = connection.activity.receive();
        let limit = connection.site.visitors.limits.body;
        request = request.map(|body| body.holding(receiving).within(limit));
    }
    let mut visit = match enter(connection, &mut request, under_way, form).await {
        Ok(visit) => visit,
        Err(answer) => return *answer,
    };
    match visit.exchange(request).await {
        Ok(Exchange::Response(response)) => {
            visit.status = response.status();
            response.map(|body| body.with_ending(Box::new(visit)))
        }
        Ok(Exchange::Upgrade(response, upgrade)) => {
            visit.status = response.status();
            let visits = visit.connection.site.visits.clone();
            visits.spawn(upgrade.carry(visit));
            response
        }
        Ok(Exchange::Conversion(response, conversion)) => {
            visit.status = response.status();
            let visits = visit.connection.site.visits.clone();
            visits.spawn(conversion.carry(visit));
            response
        }
        Err(error) => {
            visit.status = error.status();
            let answer = visit.connection.say(&error, form);
            answer.map(|body| body.with_ending(Box::new(visit)))
        }
    }
}

/// Finds the endpoint of a request and who serves it, and counts the visit. Otherwise gives the answer.
async fn enter(
    connection: Arc<Connection>,
    request: &mut Request<Body>,
    under_way: UnderWay,
    form: Form,
) -> Result<Visiting, Box<Response<Body>>> {
    let version = request.version();
    let routed = target::route(&connection.site.registry, connection.way(request.headers()), request).await;
    let refuse = |error: ProxyError| Box::new(connection.refuse(&error, form, version));
    let endpoint = match routed.map_err(refuse)? {
        Route::Endpoint(endpoint) => endpoint,
        Route::Redirect(response) => return Err(response),
    };
    let turn = reach::turn(&endpoint).await.map_err(|error| refuse(error.into()))?;
    let place = turn.begin_visit().map_err(|overdrawn| refuse(overdrawn.into()))?;
    Ok(Visiting {
        visitor: connection.visitor_of(request.headers()),
        method: request.method().clone(),
        uri: request.uri().clone(),
        status: StatusCode::OK,
        started: Instant::now(),
        upstream: None,
        tied: false,
        dialled: Duration::ZERO,
        connection,
        endpoint,
        turn,
        _under_way: under_way,
        _place: place,
    })
}

/// A request under way, until its response is over.
pub(super) struct Visiting {
    connection: Arc<Connection>,
    visitor: Visitor,
    endpoint: Arc<Endpoint>,
    /// Who serves it.
    turn: Turn,
    method: Method,
    uri: Uri,
    status: StatusCode,
    started: Instant,
    /// The connection that the response comes from.
    upstream: Option<Upstream>,
    /// Whether that connection stays with this visitor's.
    tied: bool,
    /// How long it took to get that connection.
    dialled: Duration,
    _under_way: UnderWay,
    /// Counts for the publisher's account.
    _place: VisitPlace,
}

/// What came of a request that was not refused.
enum Exchange {
    Response(Response<Body>),
    Upgrade(Response<Body>, Upgrade),
    Conversion(Response<Body>, Conversion),
}

impl Visiting {
    async fn exchange(&mut self, mut request: Request<Body>) -> Result<Exchange, ProxyError> {
        let endpoint = Arc::clone(&self.endpoint);
        let visit = &mut Visit::new(self.visitor, self.connection.facts(), &endpoint.url);
        let version = request.version();
        visit.upgrade = forwarded::prepare_request(request.headers_mut(), &self.connection.origin)
            .filter(|_| version == Version::HTTP_11);
        if !endpoint.modules.is_empty()
            && let Some(answer) = admit(&endpoint.modules, &mut request, visit).await?
        {
            return Ok(Exchange::Response(answer));
        }
        if let Some(headers) = visit.convert.take() {
            return self.convert(request, *headers, visit).await;
        }
        let visitor_side = visit.upgrade.take().map(|protocol| {
            forwarded::insert_upgrade(request.headers_mut(), protocol);
            hyper::upgrade::on(&mut request)
        });
        frame(&mut request)?;
        let answered = self.forward(request, visitor_side.is_some()).await;
        visit.reached = self.reached();
        // A visitor that breaks its own request off says nothing of the upstream.
        if !matches!(answered, Err(ProxyError::BadRequest(_) | ProxyError::SlowBody)) {
            let status = answered.as_ref().map_or_else(ProxyError::status, Response::status);
            endpoint.modules.outcome(status, visit);
        }
        let mut response = answered?;
        let upstream_side = match (response.status(), visitor_side) {
            (StatusCode::SWITCHING_PROTOCOLS, Some(visitor_side)) => {
                Some(Upgrade::new(visitor_side, &mut response))
            }
            (StatusCode::SWITCHING_PROTOCOLS, None) => return Err(ProxyError::UnaskedUpgrade),
            _ => None,
        };
        if has_foreign_coding(response.headers()) {
            return Err(ProxyError::ForeignCoding);
        }
        self.tied |= authenticates_connection(&response) || self.turn.tunnel.approach.is_personal();
        let protocol = upstream_side.as_ref().and_then(|_| forwarded::requested_upgrade(response.headers()));
        forwarded::prepare_response(response.headers_mut());
        *response.version_mut() = Version::HTTP_11;
        let mut response = response.map(Body::stream);
        self.hand_back(&mut response, visit);
        Ok(match upstream_side {
            None => Exchange::Response(response),
            Some(upgrade) => {
                let protocol = protocol.unwrap_or(HeaderValue::from_static("websocket"));
                forwarded::insert_upgrade(response.headers_mut(), protocol);
                Exchange::Upgrade(response, upgrade)
            }
        })
    }

    /// Answers a WebSocket's handshake in place of the upstream, once that is reached.
    async fn convert(
        &mut self,
        mut request: Request<Body>,
        headers: HeaderMap,
        visit: &mut Visit,
    ) -> Result<Exchange, ProxyError> {
        let modules = Arc::clone(&self.endpoint.modules);
        let opened = reach::stream(&self.endpoint, &mut self.turn, self.visitor).await;
        let opened = opened.map_err(ProxyError::from);
        let status = opened.as_ref().map_or_else(ProxyError::status, |_| StatusCode::SWITCHING_PROTOCOLS);
        modules.outcome(status, visit);
        let conversion = Conversion::new(hyper::upgrade::on(&mut request), opened?);
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        *response.headers_mut() = headers;
        self.hand_back(&mut response, visit);
        forwarded::insert_upgrade(response.headers_mut(), HeaderValue::from_static("websocket"));
        Ok(Exchange::Conversion(response, conversion))
    }

    /// Lets a response pass the modules. Its cookies are looked at last, for a publisher's rule may add some.
    fn hand_back(&self, response: &mut Response<Body>, visit: &mut Visit) {
        self.endpoint.modules.response(response, visit);
        forwarded::keep_cookies_here(response.headers_mut(), self.connection.site.domain.as_str());
    }

    /// Sends the request over a kept connection if there is one, else over a new one.
    ///
    /// A kept connection may have been closed by the upstream a moment ago. What was not sent, or was refused unread,
    /// goes over another one; what was sent goes again only if it is safe, has no body, and not one byte of an answer
    /// came. So it does when the publisher's connection was lost: to whoever takes its place.
    async fn forward(
        &mut self,
        mut request: Request<Body>,
        upgrades: bool,
    ) -> Result<Response<Incoming>, ProxyError> {
        let approach = &self.turn.tunnel.approach;
        let secure = approach.tls.is_some();
        let mut begun = Instant::now();
        let mut upstream = match self.connection.take_tied(&self.endpoint, self.visitor.ip()) {
            // HTTP/2 has no other protocol to change to (RFC 9113 §8.6).
            _ if upgrades && approach.protocol != HttpVersion::Http1 => self.reach(Wanted::Http1).await?,
            Some(upstream) => {
                self.tied = true;
                upstream
            }
            None => self.reach(Wanted::Any).await?,
        };
        for left in (0..MOST_TRIES).rev() {
            self.dialled = begun.elapsed();
            let again = if upstream.is_shared() {
                Some(Again::of_any(&mut request))
            } else {
                Again::of_safe(&request)
            };
            let (unsent, refused) = match upstream.send(request, secure).await {
                Ok(response) => {
                    self.upstream = Some(upstream);
                    return Ok(response);
                }
                Err(SendError::Broken(error)) => return Err(ProxyError::Broken(error)),
                Err(SendError::BadBody(error)) => return Err(bad_body(&error)),
                Err(SendError::Unsent(unsent)) => (Some(*unsent), false),
                Err(SendError::Refused) => (None, true),
                Err(SendError::Silent) => (None, false),
            };
            // It was not the upstream that hung up on a new connection, which it would do again.
            let lost = self.turn.tunnel.dial.is_gone();
            let may = upstream.is_shared() || upstream.is_reused() || lost;
            let next = unsent.or_else(|| again.filter(|_| may)?.take(refused));
            let next = next.filter(|_| left > 0 && (lost || upstream.has_company()));
            let Some(next) = next else { return Err(self.silent(&upstream)) };
            request = next;
            self.tied = false;
            begun = Instant::now();
            upstream = self.reach(Wanted::InsteadOf(&upstream)).await?;
        }
        Err(ProxyError::Silent)
    }

    async fn reach(&mut self, wanted: Wanted<'_>) -> Result<Upstream, DialError> {
        reach::upstream(&self.endpoint, &mut self.turn, self.visitor, wanted).await
    }

    fn reached(&self) -> Option<Reached> {
        let upstream = self.upstream.as_ref()?;
        Some(Reached { reused: upstream.is_reused(), dialled: self.dialled })
    }

    /// Why a response that was not finished was cut off, where it did not learn that by itself.
    fn cut_off(&self) -> Option<&'static str> {
        let spooled = self.upstream.as_ref().and_then(Upstream::cut_off);
        spooled.map(CutOff::text).or_else(|| self.connection.activity.is_stalled().then_some(STALLED))
    }

    fn silent(&self, upstream: &Upstream) -> ProxyError {
        if self.turn.tunnel.dial.is_gone() {
            return ProxyError::Left;
        }
        if let Some(log) = self.turn.log.as_ref().filter(|_| !upstream.is_reused()) {
            log.advise(respond::NO_TARGET);
        }
        ProxyError::Silent
    }
}

impl Ending for Visiting {
    fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        // Nobody waits for a visitor to take what it is given of a response that was cut off.
        match (self.connection.activity.poll_room(cx), &self.upstream) {
            (Poll::Pending, Some(upstream)) => upstream.poll_cut_off(cx),
            (room, _) => room,
        }
    }

    fn note_handed_out(&self, bytes: usize) {
        self.connection.activity.note_handed_out(bytes);
    }

    fn ended(&mut self, outcome: Outcome) {
        if !outcome.complete && self.upstream.as_ref().is_some_and(|upstream| upstream.cut_off().is_some()) {
            self.connection.site.metrics.refused(Code::SPOOL_FULL);
        }
        let fault = outcome.fault.or_else(|| self.cut_off().filter(|_| !outcome.complete));
        if fault == Some(STALLED) {
            self.connection.site.metrics.refused(Code::SLOW_READER);
            log_stalled(self.visitor, &self.endpoint.url);
        }
        if let Some(upstream) = self.upstream.take().filter(|_| outcome.complete) {
            if self.tied {
                self.connection.tie(&self.endpoint, self.visitor.ip(), upstream);
            } else {
                self.turn.tunnel.park(upstream);
            }
        }
        if let Some(log) = &self.turn.log {
            log.record(VisitRecord::Request {
                visitor: self.visitor,
                method: self.method.clone(),
                uri: self.uri.clone(),
                status: self.status,
                duration: self.started.elapsed(),
                sent: outcome.sent,
                fault,
            });
        }
    }
}

impl upgrade::Carried for Visiting {
    fn ended(mut self, sent: u64, fault: Option<&'static str>) {
        // A connection that changed its protocol carries no other request.
        self.upstream = None;
        Ending::ended(&mut self, Outcome { complete: true, sent, fault });
    }
}

/// Of one request: over a kept connection, one in its place, and one more, for the others may be shared.
const MOST_TRIES: usize = 3;

/// Lets a request pass the modules; one of them may answer it.
async fn admit(
    modules: &ModuleChain,
    request: &mut Request<Body>,
    visit: &mut Visit,
) -> Result<Option<Response<Body>>, ProxyError> {
    let flow = match modules.connect(visit) {
        Flow::Continue => modules.request(request, visit).await,
        decided => decided,
    };
    match flow {
        Flow::Continue => Ok(None),
        Flow::Refuse(refusal) => Err(ProxyError::Module(refusal)),
        Flow::Answer(response) => Ok(Some(*response)),
    }
}

/// Whose fault it is that the body of a request did not come whole.
fn bad_body(error: &hyper::Error) -> ProxyError {
    if SlowBody::caused(error) {
        return ProxyError::SlowBody;
    }
    tracing::debug!(%error, cause = std::error::Error::source(error).map(ToString::to_string), "a request's body failed");
    ProxyError::BadRequest("its body is not what its headers say, or broke off")
}

/// Makes the length of the body plain to an HTTP/1.1 upstream, whatever the visitor spoke.
fn frame(request: &mut Request<Body>) -> Result<(), ProxyError> {
    *request.version_mut() = Version::HTTP_11;
    // What hyper noted of the visitor's connection means nothing on the upstream's.
    request.extensions_mut().clear();
    let length = request.headers().get(CONTENT_LENGTH);
    if !request.body().is_end_stream() {
        if length.is_none() {
            request.headers_mut().insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        return Ok(());
    }
    match length.map(HeaderValue::as_bytes) {
        Some(b"0") => {}
        // HTTP/2 may announce a body and end the stream: the upstream would take the next request for it.
        Some(_) => return Err(ProxyError::BadRequest("its body is not as long as it says")),
        None if matches!(*request.method(), Method::POST | Method::PUT | Method::PATCH) => {
            request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        None => {}
    }
    Ok(())
}

/// Whether a body is encoded for the transfer in a way that we cannot undo and the visitor did not ask for.
fn has_foreign_coding(headers: &HeaderMap) -> bool {
    headers
        .get_all(TRANSFER_ENCODING)
        .iter()
        .any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"chunked"))
}

/// NTLM and Negotiate authenticate the connection and not the request (RFC 4559 §4).
fn authenticates_connection(response: &Response<Incoming>) -> bool {
    let challenges = match response.status() {
        StatusCode::UNAUTHORIZED => response.headers().get_all(WWW_AUTHENTICATE),
        StatusCode::PROXY_AUTHENTICATION_REQUIRED => response.headers().get_all(PROXY_AUTHENTICATE),
        _ => return false,
    };
    challenges.iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).any(
        |challenge| {
            let scheme = challenge.split_whitespace().next().unwrap_or("");
            scheme.eq_ignore_ascii_case("ntlm") || scheme.eq_ignore_ascii_case("negotiate")
        },
    )
}
