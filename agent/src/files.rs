//! `file:///folder`: a server for static files, reached without a socket.
//!
//! What a path names is found by [`find`], which never leaves the folder; [`opened`] hands the file to `tower-http`,
//! which knows ranges and conditions.

mod find;
mod listing;
mod opened;
mod page;

use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};

use crate::Stream;
use find::{Found, Root, Segments};
use page::Body;

/// A folder that is served.
#[derive(Clone, Debug)]
pub(crate) struct Folder {
    root: Arc<Root>,
}

impl Folder {
    /// # Errors
    /// It is no folder, or cannot be read.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { root: Arc::new(Root::open(path)?) })
    }

    /// A connection on whose other end HTTP/1.1 is served, by a task that ends with it. Needs a tokio runtime.
    pub(crate) fn serve(&self) -> impl Stream + use<> {
        let (ours, theirs) = tokio::io::duplex(PIPE);
        let folder = self.clone();
        #[expect(clippy::disallowed_methods, reason = "it ends with its stream, which has an owner")]
        tokio::spawn(async move {
            let service = service_fn(|request| folder.answer(request));
            let served = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_DEADLINE)
                // A visitor who has said everything still wants the answer.
                .half_close(true)
                .serve_connection(TokioIo::new(theirs), service)
                .await;
            if let Err(error) = served {
                tracing::debug!(%error, "a connection to the served folder ended");
            }
        });
        ours
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        let is_head = request.method() == Method::HEAD;
        let mut response = self.respond(&request).await.unwrap_or_else(page::error);
        let headers = response.headers_mut();
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        // Files change; with their ETag and Last-Modified the question costs little.
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        if is_head {
            page::keep_only_the_head(&mut response);
        }
        Ok(response)
    }

    async fn respond(&self, request: &Request<Incoming>) -> Result<Response<Body>, StatusCode> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut refusal = page::error(StatusCode::METHOD_NOT_ALLOWED);
            refusal.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return Ok(refusal);
        }
        let segments = Segments::parse(request.uri().path()).ok_or(StatusCode::NOT_FOUND)?;
        let query = request.uri().query();
        let root = Arc::clone(&self.root);
        // The disk may be slow.
        let looked = tokio::task::spawn_blocking(move || root.find(&segments).map(|found| (found, segments)));
        let (found, segments) = match looked.await {
            Ok(found) => found.map_err(|error| status(&error))?,
            Err(_) => return Err(StatusCode::INTERNAL_SERVER_ERROR),
        };
        match found {
            Found::Folder(_) | Found::Index(_) if !segments.ends_with_slash() => {
                Ok(page::redirect(&segments.with_slash(query)))
            }
            Found::File(_) if segments.ends_with_slash() => Err(StatusCode::NOT_FOUND),
            Found::File(file) | Found::Index(file) => Ok(opened::answer(file, request).await),
            Found::Folder(entries) => Ok(listing::answer(&segments, entries, query)),
        }
    }
}

fn status(error: &io::Error) -> StatusCode {
    match error.kind() {
        io::ErrorKind::PermissionDenied => StatusCode::FORBIDDEN,
        io::ErrorKind::NotFound
        | io::ErrorKind::NotADirectory
        | io::ErrorKind::InvalidInput
        | io::ErrorKind::InvalidFilename => StatusCode::NOT_FOUND,
        #[cfg(unix)]
        _ if rustix::io::Errno::from_io_error(error) == Some(rustix::io::Errno::LOOP) => {
            StatusCode::NOT_FOUND
        }
        _ => {
            tracing::warn!(%error, "a file cannot be served");
            StatusCode::INTERNAL_SERVER_ERROR
        }
    }
}

/// Bytes on their way to the tunnel: as much as one read of a file.
const PIPE: usize = 64 * 1024;

/// For the head of a request once it has begun, and between requests.
const HEADER_DEADLINE: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests;
