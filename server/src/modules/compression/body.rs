//! A body on its way through an encoder.
//!
//! The inner body is polled only when the visitor takes more, which keeps the back-pressure. When it has nothing more
//! for now, what the encoder holds is flushed, so that nothing waits for what may come much later.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame};

use super::DIGESTS;
use super::coding::Encoder;
use crate::body::{Body, BodyError};

pub(super) struct Compressed {
    inner: Body,
    /// Gone when the body was ended.
    encoder: Option<Encoder>,
    /// Came from the inner body and did not go into the encoder yet.
    unread: Bytes,
    /// Whether the encoder may hold something back.
    unflushed: bool,
    trailers: Option<HeaderMap>,
}

/// Into the encoder in one go: more would keep other visits waiting.
const CHUNK: usize = 32 << 10;
/// Into the encoder before the task has to wait for its next turn.
const BUDGET: usize = 2 * CHUNK;
/// Out of it, in one frame.
const ENOUGH: usize = 16 << 10;

impl Compressed {
    pub(super) fn new(inner: Body, encoder: Encoder) -> Self {
        Self { inner, encoder: Some(encoder), unread: Bytes::new(), unflushed: false, trailers: None }
    }

    /// Gives up on an error: without its end the body cannot be taken for a whole one.
    fn poll_encoded(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Vec<u8>, BodyError>>> {
        let mut budget = BUDGET;
        while let Some(encoder) = &mut self.encoder {
            if !self.unread.is_empty() {
                if budget == 0 {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                let taken = self.unread.len().min(CHUNK);
                budget = budget.saturating_sub(CHUNK);
                encoder.write(self.unread.get(..taken).unwrap_or_default())?;
                self.unread.advance(taken);
                self.unflushed = true;
                if let Some(ready) = encoder.take(ENOUGH) {
                    return Poll::Ready(Some(Ok(ready)));
                }
                continue;
            }
            match Pin::new(&mut self.inner).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => self.unread = data,
                    Err(frame) => self.trailers = frame.into_trailers().ok().map(of_any_coding),
                },
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
                Poll::Ready(None) => {
                    let rest = self.encoder.take().map(Encoder::finish).transpose()?.unwrap_or_default();
                    return Poll::Ready((!rest.is_empty()).then_some(Ok(rest)));
                }
                Poll::Pending => {
                    if std::mem::take(&mut self.unflushed) {
                        encoder.flush()?;
                        if let Some(ready) = encoder.take(1) {
                            return Poll::Ready(Some(Ok(ready)));
                        }
                    }
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(None)
    }
}

/// A digest may also come behind the bytes that it is of (RFC 9530 §6.5).
fn of_any_coding(mut trailers: HeaderMap) -> HeaderMap {
    DIGESTS.iter().for_each(|name| drop(trailers.remove(name)));
    trailers
}

impl HttpBody for Compressed {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let encoded = std::task::ready!(self.poll_encoded(cx));
        Poll::Ready(match encoded {
            Some(data) => Some(data.map(|data| Frame::data(data.into()))),
            None => self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use http_body_util::{BodyExt, StreamBody};
    use proptest::prelude::*;
    use tokio::sync::mpsc;

    use super::super::coding::Coding;
    use super::*;

    type Piece = Result<Frame<Bytes>, BodyError>;

    /// A body of what is sent.
    fn fed(coding: Coding) -> (mpsc::UnboundedSender<Piece>, Compressed) {
        let (sender, mut receiver) = mpsc::unbounded_channel();
        let pieces = futures_util::stream::poll_fn(move |cx| receiver.poll_recv(cx));
        (sender, Compressed::new(Body::made(StreamBody::new(pieces)), coding.encoder(None).unwrap()))
    }

    fn decoded(coding: Coding, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
        let mut plain = Vec::new();
        match coding {
            Coding::Gzip => flate2::read::GzDecoder::new(bytes).read_to_end(&mut plain)?,
            Coding::Deflate => flate2::read::ZlibDecoder::new(bytes).read_to_end(&mut plain)?,
            Coding::Br => brotli::Decompressor::new(bytes, 4096).read_to_end(&mut plain)?,
            Coding::Zstd => zstd::stream::read::Decoder::new(bytes)?.read_to_end(&mut plain)?,
        };
        Ok(plain)
    }

    /// As much as can be decoded of a stream that goes on.
    fn decoded_so_far(coding: Coding, bytes: &[u8]) -> Vec<u8> {
        let mut plain = vec![0; 4096];
        let read = match coding {
            Coding::Gzip => flate2::read::GzDecoder::new(bytes).read(&mut plain),
            Coding::Deflate => flate2::read::ZlibDecoder::new(bytes).read(&mut plain),
            Coding::Br => brotli::Decompressor::new(bytes, 4096).read(&mut plain),
            Coding::Zstd => zstd::stream::read::Decoder::new(bytes).unwrap().read(&mut plain),
        };
        plain.truncate(read.unwrap());
        plain
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn what_comes_out_decodes_to_what_went_in(
            pieces in prop::collection::vec(("[a-d]{0,40}", 1_usize..3000), 0..20),
            coding in prop::sample::select(vec![Coding::Zstd, Coding::Br, Coding::Gzip, Coding::Deflate]),
        ) {
            let (sender, body) = fed(coding);
            let mut plain = Vec::new();
            for (text, times) in pieces {
                let piece = text.repeat(times).into_bytes();
                plain.extend_from_slice(&piece);
                sender.send(Ok(Frame::data(piece.into()))).unwrap();
            }
            let trailers = [("x-sum", "7"), ("repr-digest", "sha-256=:AA==:"), ("digest", "md5=AA==")];
            let trailers = trailers.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
            sender.send(Ok(Frame::trailers(HeaderMap::from_iter(trailers)))).unwrap();
            drop(sender);
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let collected = runtime.block_on(body.collect()).unwrap();
            let trailers = collected.trailers().unwrap();
            prop_assert!(trailers["x-sum"] == "7" && trailers.len() == 1, "{:?}", trailers);
            prop_assert!(decoded(coding, &collected.to_bytes()).unwrap() == plain);
        }
    }

    #[tokio::test]
    async fn what_the_upstream_has_sent_is_decodable_before_it_goes_on() {
        for coding in [Coding::Zstd, Coding::Br, Coding::Gzip, Coding::Deflate] {
            let (sender, mut body) = fed(coding);
            let mut sent = Vec::new();
            let mut out = Vec::new();
            for event in ["data: one\n\n", "data: two\n\n"] {
                sender.send(Ok(Frame::data(event.into()))).unwrap();
                sent.extend_from_slice(event.as_bytes());
                let frame = body.frame().await.unwrap().unwrap();
                out.extend_from_slice(frame.data_ref().unwrap());
                assert_eq!(decoded_so_far(coding, &out), sent, "{coding:?}");
            }
        }
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_not_ended() {
        for coding in [Coding::Zstd, Coding::Br, Coding::Gzip, Coding::Deflate] {
            let (sender, body) = fed(coding);
            sender.send(Ok(Frame::data("half of it".into()))).unwrap();
            sender.send(Err("gone".into())).unwrap();
            assert!(body.collect().await.is_err());
        }
    }
}
