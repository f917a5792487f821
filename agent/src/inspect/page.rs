//! The page, embedded. It is plain HTML, CSS and JavaScript without a build, and loads nothing from elsewhere.

use axum::Router;
use axum::http::header;
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::get;

use super::web::App;

/// What a browser lets the page do. Images are made of bytes that the script fetched; nothing of a visitor runs.
pub(super) const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

macro_rules! file {
    ($name:literal, $kind:literal) => {
        (concat!("/assets/", $name), $kind, include_str!(concat!("page/", $name)))
    };
}

const FILES: [(&str, &str, &str); 8] = [
    file!("style.css", "text/css; charset=utf-8"),
    file!("app.js", "text/javascript; charset=utf-8"),
    file!("dom.js", "text/javascript; charset=utf-8"),
    file!("detail.js", "text/javascript; charset=utf-8"),
    file!("body.js", "text/javascript; charset=utf-8"),
    file!("edit.js", "text/javascript; charset=utf-8"),
    file!("status.js", "text/javascript; charset=utf-8"),
    file!("icon.svg", "image/svg+xml"),
];

pub(super) fn routes() -> Router<App> {
    let page = || async { file("text/html; charset=utf-8", include_str!("page/index.html")) };
    let mut routes = Router::new()
        .route("/", get(page))
        .route("/status", get(page))
        // Where ngrok has its list.
        .route("/inspect/http", get(|| async { Redirect::temporary("/") }))
        .route("/favicon.ico", get(|| async { Redirect::temporary("/assets/icon.svg") }));
    for (path, kind, text) in FILES {
        routes = routes.route(path, get(move || async move { file(kind, text) }));
    }
    routes
}

fn file(kind: &'static str, text: &'static str) -> Response {
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}
