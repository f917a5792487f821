//! Which endpoint a request is for: by its authority, never by the connection's SNI (RFC 9112 §3.2, RFC 9113
//! §8.3.1).

use std::sync::Arc;

use hithe_cli_parser::HostName;
use http::header::{HOST, TRANSFER_ENCODING};
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri};

use super::super::respond::{ProxyError, redirect};
use super::Secured;
use crate::body::Body;
use crate::endpoint::{Endpoint, Protocol};
use crate::registry::{Place, Registry, Slot};
use crate::tunnel::DialError;

pub(super) enum Route {
    Endpoint(Arc<Endpoint>),
    /// Answered already, with the way to https.
    Redirect(Box<Response<Body>>),
}

/// How a request has come.
#[derive(Clone, Copy)]
pub(super) enum Way<'a> {
    Plain,
    /// Over TLS that ended here.
    Secured(&'a Secured),
    /// Over TLS that ended at a trusted proxy.
    Proxied,
}

impl Way<'_> {
    fn suits(self, endpoint: &Endpoint) -> bool {
        match self {
            Self::Plain => true,
            Self::Secured(secured) => secured.suits(endpoint),
            // A proxy does not know of its demands.
            Self::Proxied => endpoint.tls.is_none(),
        }
    }
}

/// Finds the endpoint, and brings the request into the form in which an upstream wants it: a path and a `Host`.
pub(super) async fn route(
    registry: &Registry,
    way: Way<'_>,
    request: &mut Request<Body>,
) -> Result<Route, ProxyError> {
    let host = host(request)?;
    let found = match way {
        Way::Plain => live(registry, &host, Slot::Plain).await?,
        Way::Secured(_) => live(registry, &host, Slot::Secure).await?,
        Way::Proxied => match live(registry, &host, Slot::Secure).await? {
            Some(endpoint) => Some(endpoint),
            None => live(registry, &host, Slot::Plain).await?,
        },
    };
    if let Some(endpoint) = found {
        return match endpoint.protocol {
            Protocol::Tls | Protocol::TlsEnded => Err(misdirected(way, &host)),
            _ if !way.suits(&endpoint) => Err(misdirected(way, &host)),
            _ => Ok(Route::Endpoint(endpoint)),
        };
    }
    let elsewhere = if matches!(way, Way::Plain) { registry.web(host.as_str(), Slot::Secure) } else { None };
    elsewhere
        .filter(|place| place.endpoint().protocol == Protocol::Https)
        .and_then(|place| redirect(&location(&host, place.endpoint(), request.uri())))
        .map(|response| Route::Redirect(Box::new(response)))
        .ok_or_else(|| ProxyError::NoEndpoint(host.as_str().to_owned()))
}

/// Where a publisher was cut off, its visitors wait a moment for it to return.
async fn live(registry: &Registry, host: &HostName, slot: Slot) -> Result<Option<Arc<Endpoint>>, ProxyError> {
    for _ in 0..=MOST_WAITS {
        match registry.web(host.as_str(), slot) {
            Some(Place::Live(endpoint)) => return Ok(Some(endpoint)),
            Some(Place::Held(_, held)) if held.wait().await => {}
            Some(Place::Held(..)) => return Err(ProxyError::from(DialError::Busy)),
            None => return Ok(None),
        }
    }
    Ok(None)
}

/// For one that is cut off again and again.
const MOST_WAITS: usize = 3;

fn misdirected(way: Way<'_>, host: &HostName) -> ProxyError {
    let made_for = match way {
        Way::Secured(secured) => secured.facts.sni.as_deref(),
        Way::Plain | Way::Proxied => None,
    };
    ProxyError::Misdirected {
        outdated: made_for.is_some_and(|name| name.eq_ignore_ascii_case(host.as_str())),
    }
}

/// The https URL of the name that was asked for, which for a wildcard is not the one of the endpoint.
fn location(host: &HostName, endpoint: &Endpoint, uri: &Uri) -> String {
    let authority = endpoint.url.split("://").nth(1).unwrap_or_default();
    let port = authority.split_once(':').map(|(_, port)| format!(":{port}")).unwrap_or_default();
    let path = uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let path = if path.starts_with('/') { path } else { "/" };
    format!("https://{}{port}{path}", host.as_str())
}

fn host(request: &mut Request<Body>) -> Result<HostName, ProxyError> {
    if request.method() == Method::CONNECT {
        return Err(ProxyError::Method(Method::CONNECT));
    }
    if request.headers().get_all(TRANSFER_ENCODING).iter().any(|coding| {
        // hyper decodes only this one; another before it would reach the upstream without its name.
        !coding.as_bytes().eq_ignore_ascii_case(b"chunked")
    }) {
        return Err(ProxyError::BadRequest("its transfer coding is not supported"));
    }
    match request.uri().authority().cloned() {
        Some(authority) => host_of_absolute(request, &authority),
        None => host_of_origin(request),
    }
}

/// HTTP/2, or what a client sends that takes us for a forward proxy.
fn host_of_absolute(request: &mut Request<Body>, authority: &Authority) -> Result<HostName, ProxyError> {
    let named = single_host(request.headers())?;
    let scheme = request.uri().scheme_str().unwrap_or_default();
    let of_the_web = ["https", "http"].iter().any(|known| scheme.eq_ignore_ascii_case(known));
    if !of_the_web || authority.as_str().contains('@') {
        return Err(ProxyError::BadRequest("its target is not a URL of a web site"));
    }
    if named.is_some_and(|named| !named.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes())) {
        return Err(ProxyError::BadRequest("its target and its Host header differ"));
    }
    let host = parse(authority.as_str())?;
    if named.is_none() {
        let named = HeaderValue::from_str(authority.as_str());
        let named = named.map_err(|_| ProxyError::BadRequest("its target is not a URL of a web site"))?;
        request.headers_mut().insert(HOST, named);
    }
    let path = request.uri().path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
    check_path(request.method(), path.path())?;
    *request.uri_mut() = Uri::from(path);
    Ok(host)
}

fn host_of_origin(request: &Request<Body>) -> Result<HostName, ProxyError> {
    let named = single_host(request.headers())?.ok_or(ProxyError::BadRequest("it has no Host header"))?;
    let named = named.to_str().map_err(|_| ProxyError::BadRequest("its Host header is not a host name"))?;
    check_path(request.method(), request.uri().path())?;
    parse(named)
}

fn check_path(method: &Method, path: &str) -> Result<(), ProxyError> {
    if path.starts_with('/') || (path == "*" && method == Method::OPTIONS) {
        return Ok(());
    }
    Err(ProxyError::BadRequest("its target is not a path"))
}

fn single_host(headers: &HeaderMap) -> Result<Option<&HeaderValue>, ProxyError> {
    let mut values = headers.get_all(HOST).iter();
    let first = values.next();
    match values.next() {
        None => Ok(first),
        Some(_) => Err(ProxyError::BadRequest("it has more than one Host header")),
    }
}

/// A valid authority that is no name, such as an address, is only not found.
fn parse(authority: &str) -> Result<HostName, ProxyError> {
    HostName::from_authority(authority).ok_or_else(|| match authority.parse::<Authority>() {
        Ok(valid) if !valid.host().is_empty() && !authority.contains('@') => {
            ProxyError::NoEndpoint(valid.host().to_owned())
        }
        _ => ProxyError::BadRequest("its Host header is not a host name"),
    })
}
