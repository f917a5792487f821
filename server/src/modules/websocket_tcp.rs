//! WebSocket-TCP converter: admits WebSocket handshakes only (behaviour.md 3.15). The proxy converts.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hithe_cli_parser::{Code, WebsocketTcp};
use http::header::{SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use ring::digest;

use super::{BuildError, Flow, Module, Passage, Plan, Refusal, Visit};
use crate::body::Body;

#[expect(clippy::unnecessary_wraps, reason = "as all modules are built")]
pub(super) fn build(config: &WebsocketTcp, plan: &mut Plan) -> Result<(), BuildError> {
    if config.enabled {
        plan.chain.push(Converter);
    }
    Ok(())
}

struct Converter;

impl Module for Converter {
    fn request<'a>(&'a self, request: &'a mut Request<Body>, visit: &'a mut Visit) -> Passage<'a> {
        let asks = visit.upgrade.as_ref().is_some_and(|it| it.as_bytes().eq_ignore_ascii_case(b"websocket"));
        let answer = if asks && *request.method() == Method::GET { answer(request.headers()) } else { None };
        Passage::Now(match answer {
            Some(answer) => {
                visit.convert = Some(answer);
                Flow::Continue
            }
            None => refusal().into(),
        })
    }
}

/// The headers of a 101, for a handshake that is one (RFC 6455 §4.2).
fn answer(asked: &HeaderMap) -> Option<Box<HeaderMap>> {
    let key = asked.get(SEC_WEBSOCKET_KEY)?;
    let is_nonce = STANDARD.decode(key.as_bytes()).is_ok_and(|nonce| nonce.len() == 16);
    if !is_nonce || asked.get(SEC_WEBSOCKET_VERSION)? != "13" {
        return None;
    }
    let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    context.update(key.as_bytes());
    context.update(GUID);
    let mut headers = HeaderMap::new();
    headers.insert(SEC_WEBSOCKET_ACCEPT, HeaderValue::try_from(STANDARD.encode(context.finish())).ok()?);
    let offered = asked.get(SEC_WEBSOCKET_PROTOCOL).and_then(|value| value.to_str().ok());
    let first = offered.and_then(|offered| offered.split(',').next()).map(str::trim);
    if let Some(first) = first.filter(|first| !first.is_empty()) {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::try_from(first).ok()?);
    }
    Some(Box::new(headers))
}

/// RFC 6455 §1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

fn refusal() -> Refusal {
    Refusal {
        status: StatusCode::BAD_REQUEST,
        code: Code::NOT_A_WEBSOCKET,
        text: "This address takes WebSockets only",
        hint: "Connect to it with a WebSocket client (version 13, over HTTP/1.1).",
        // What a client of another version has to know (RFC 6455 §4.2.2).
        header: Some((SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn the_answer_is_that_of_the_rfc() {
        let key = ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        let headers = answer(&asked(&[key, ("sec-websocket-version", "13")])).unwrap();
        assert_eq!(headers[SEC_WEBSOCKET_ACCEPT], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let protocols = ("sec-websocket-protocol", "binary, base64");
        let headers = answer(&asked(&[key, ("sec-websocket-version", "13"), protocols])).unwrap();
        assert_eq!(headers[SEC_WEBSOCKET_PROTOCOL], "binary");
        for wrong in [
            &[key][..],
            &[("sec-websocket-version", "13")],
            &[key, ("sec-websocket-version", "8")],
            &[("sec-websocket-key", "AAAA"), ("sec-websocket-version", "13")],
        ] {
            assert!(answer(&asked(wrong)).is_none(), "{wrong:?}");
        }
    }
}
