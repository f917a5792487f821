//! What a visitor gets back.

use bytes::Bytes;
use http::{HeaderMap, Response, Version};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use crate::wait::within;

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Reply {
    head: Response<()>,
    body: Bytes,
    trailers: HeaderMap,
}

impl Reply {
    /// Reads an answer to its end.
    pub(super) async fn collect(answer: Response<Incoming>) -> hyper::Result<Self> {
        let (head, body) = answer.into_parts();
        let collected = body.collect().await?;
        let trailers = collected.trailers().cloned().unwrap_or_default();
        Ok(Self { head: Response::from_parts(head, ()), body: collected.to_bytes(), trailers })
    }

    /// The status code.
    pub fn status(&self) -> u16 {
        self.head.status().as_u16()
    }

    /// The body, which must be UTF-8.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a body of text")
    }

    /// The body.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("a body of JSON")
    }

    /// The first header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.headers().get(name).map(|value| value.to_str().expect("a header of text"))
    }

    /// All headers.
    pub fn headers(&self) -> &HeaderMap {
        self.head.headers()
    }

    /// The code of an answer that Hithe itself made: `ERR_HITHE_nnnn`.
    pub fn code(&self) -> Option<&str> {
        self.header("hithe-error-code")
    }

    /// What came after the body.
    pub fn trailers(&self) -> &HeaderMap {
        &self.trailers
    }

    /// The HTTP version of the answer.
    pub fn version(&self) -> Version {
        self.head.version()
    }

    /// What [`Origin::echoing_requests`](crate::Origin::echoing_requests) saw under this header name.
    pub fn seen_header(&self, name: &str) -> Option<String> {
        let seen = self.json();
        let lines = seen.get("headers")?.as_array()?.clone();
        let text = |line: &serde_json::Value, at: usize| Some(line.get(at)?.as_str()?.to_owned());
        let values: Vec<_> = lines
            .iter()
            .filter(|line| text(line, 0).as_deref() == Some(name))
            .filter_map(|line| text(line, 1))
            .collect();
        (!values.is_empty()).then(|| values.join(", "))
    }
}

/// An answer whose head is there and whose body is still coming.
#[derive(Debug)]
pub struct Streaming {
    answer: Response<Incoming>,
}

impl Streaming {
    pub(super) fn new(answer: Response<Incoming>) -> Self {
        Self { answer }
    }

    /// The status code.
    pub fn status(&self) -> u16 {
        self.answer.status().as_u16()
    }

    /// The first header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.answer.headers().get(name).map(|value| value.to_str().expect("a header of text"))
    }

    /// The next piece of the body; `None` at its orderly end, an error if it was cut.
    pub async fn next(&mut self) -> Option<hyper::Result<Bytes>> {
        loop {
            match within("the next piece of a body", self.answer.body_mut().frame()).await? {
                Ok(frame) => {
                    if let Ok(data) = frame.into_data() {
                        return Some(Ok(data));
                    }
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// The next piece of the body as text.
    pub async fn next_text(&mut self) -> String {
        let piece = self.next().await.expect("more of the body").expect("a body that is not cut");
        String::from_utf8(piece.to_vec()).expect("a body of text")
    }

    /// The rest of the answer.
    pub async fn rest(self) -> hyper::Result<Reply> {
        within("the rest of a body", Reply::collect(self.answer)).await
    }
}
