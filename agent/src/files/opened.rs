//! An open file as the answer to a request: `tower-http` does types, ranges and conditions, on the file that was
//! found and not on a path.

use std::ffi::OsStr;
use std::future::{Ready, ready};
use std::io::{self, Read as _, Seek as _};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Empty;
use hyper::body::Incoming;
use tokio::io::{AsyncRead, AsyncSeek, ReadBuf};
use tower::ServiceExt as _;
use tower_http::services::fs::{Backend, File, ServeDir};

use super::find::Opened;
use super::page::{self, Body};

/// Answers GET and HEAD.
pub(super) async fn answer(opened: Opened, request: &Request<Incoming>) -> Response<Body> {
    let Opened { name, file } = opened;
    let Ok(Ok((file, metadata, is_text))) = tokio::task::spawn_blocking(move || look_into(file)).await else {
        return page::error(StatusCode::INTERNAL_SERVER_ERROR);
    };
    let one = One { file: Arc::new(Mutex::new(Some(file))), metadata: Arc::new(metadata) };
    let mut asked = Request::new(Empty::<Bytes>::new());
    *asked.method_mut() = request.method().clone();
    *asked.uri_mut() = uri(&name);
    for name in KNOWN {
        for value in request.headers().get_all(&name) {
            asked.headers_mut().append(name.clone(), value.clone());
        }
    }
    if !is_range_wanted(&one, request).await {
        asked.headers_mut().remove(header::RANGE);
    }
    let mut response = one.serve(asked).await;
    if response.status().is_client_error() {
        let kept = response.headers().get(header::CONTENT_RANGE).cloned();
        response = page::error(response.status());
        kept.map(|range| response.headers_mut().insert(header::CONTENT_RANGE, range));
    } else {
        name_the_encoding(&mut response, is_text);
    }
    response
}

/// Also whether it begins like a text in UTF-8. Blocks.
fn look_into(mut file: std::fs::File) -> io::Result<(std::fs::File, std::fs::Metadata, bool)> {
    let metadata = file.metadata()?;
    let mut start = Vec::with_capacity(512);
    (&mut file).take(512).read_to_end(&mut start)?;
    file.rewind()?;
    let text = match std::str::from_utf8(&start) {
        Ok(text) => Some(text),
        // The last character may be cut in two.
        Err(error) if error.error_len().is_none() => {
            start.get(..error.valid_up_to()).and_then(|start| std::str::from_utf8(start).ok())
        }
        Err(_) => None,
    };
    let is_text = text
        .is_some_and(|text| !text.contains(|c: char| c.is_control() && !c.is_whitespace() && c != '\x1b'));
    Ok((file, metadata, is_text))
}

/// The type follows from the extension; the rest of the name has been dealt with.
fn uri(name: &OsStr) -> http::Uri {
    let extension = Path::new(name).extension().and_then(OsStr::to_str);
    let is_simple = |it: &&str| it.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let path = extension.filter(is_simple).map(|extension| format!("/file.{extension}"));
    path.and_then(|path| path.parse().ok()).unwrap_or_else(|| http::Uri::from_static("/file"))
}

/// A range is an offer of the file as it was when the visitor got its first part (RFC 9110 section 13.1.5), and
/// units that are not bytes are not known (14.2).
async fn is_range_wanted(one: &One, request: &Request<Incoming>) -> bool {
    let Some(range) = request.headers().get(header::RANGE) else { return false };
    if !range.as_bytes().to_ascii_lowercase().starts_with(b"bytes=") {
        return false;
    }
    let Some(condition) = request.headers().get(header::IF_RANGE) else { return true };
    let mut head = Request::new(Empty::<Bytes>::new());
    *head.method_mut() = Method::HEAD;
    let now = one.serve(head).await;
    let is = |name| now.headers().get(name) == Some(condition);
    is(header::ETAG) || is(header::LAST_MODIFIED)
}

/// Texts are taken for UTF-8, as what is written today is. Without a known extension, the contents decide whether
/// the browser shows the file or saves it.
fn name_the_encoding(response: &mut Response<Body>, is_text: bool) {
    let Some(kind) = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()) else {
        return;
    };
    let named = match kind {
        "application/octet-stream" if is_text => "text/plain; charset=utf-8".to_owned(),
        kind if kind.starts_with("text/") && !kind.contains("charset") && is_text => {
            format!("{kind}; charset=utf-8")
        }
        _ => return,
    };
    if let Ok(value) = HeaderValue::try_from(named) {
        response.headers_mut().insert(header::CONTENT_TYPE, value);
    }
}

/// What a request may ask of a file.
const KNOWN: [header::HeaderName; 5] = [
    header::RANGE,
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_UNMODIFIED_SINCE,
];

/// A file system of one file, whatever the path.
#[derive(Clone)]
struct One {
    file: Arc<Mutex<Option<std::fs::File>>>,
    metadata: Arc<std::fs::Metadata>,
}

impl One {
    async fn serve(&self, request: Request<Empty<Bytes>>) -> Response<Body> {
        let files = ServeDir::with_backend("", self.clone()).ignore_multi_range_requests(true);
        match files.oneshot(request).await {
            Ok(response) => response.map(http_body_util::BodyExt::boxed_unsync),
            Err(never) => match never {},
        }
    }
}

impl Backend for One {
    type File = OneFile;
    type Metadata = Metadata;
    type OpenFuture = Ready<io::Result<OneFile>>;
    type MetadataFuture = Ready<io::Result<Metadata>>;

    fn open(&self, _: PathBuf) -> Self::OpenFuture {
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner).take();
        ready(match file {
            Some(file) => Ok(OneFile {
                file: tokio::fs::File::from_std(file),
                metadata: Metadata(Arc::clone(&self.metadata)),
            }),
            None => Err(io::ErrorKind::NotFound.into()),
        })
    }

    fn metadata(&self, _: PathBuf) -> Self::MetadataFuture {
        ready(Ok(Metadata(Arc::clone(&self.metadata))))
    }
}

struct OneFile {
    file: tokio::fs::File,
    metadata: Metadata,
}

impl File for OneFile {
    type Metadata = Metadata;
    type MetadataFuture<'a> = Ready<io::Result<Metadata>>;

    fn metadata(&self) -> Self::MetadataFuture<'_> {
        ready(Ok(self.metadata.clone()))
    }
}

impl AsyncRead for OneFile {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.file).poll_read(cx, buffer)
    }
}

impl AsyncSeek for OneFile {
    fn start_seek(mut self: Pin<&mut Self>, position: io::SeekFrom) -> io::Result<()> {
        Pin::new(&mut self.file).start_seek(position)
    }

    fn poll_complete(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<u64>> {
        Pin::new(&mut self.file).poll_complete(cx)
    }
}

#[derive(Clone)]
struct Metadata(Arc<std::fs::Metadata>);

impl tower_http::services::fs::Metadata for Metadata {
    fn is_dir(&self) -> bool {
        false
    }

    fn modified(&self) -> io::Result<std::time::SystemTime> {
        self.0.modified()
    }

    fn len(&self) -> u64 {
        self.0.len()
    }
}
