//! Real files, asked for as a visitor would.

use std::fs;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

struct Served {
    dir: TempDir,
    folder: Folder,
}

struct Reply {
    head: String,
    body: Vec<u8>,
}

impl Reply {
    fn status(&self) -> u16 {
        self.head.split(' ').nth(1).unwrap().parse().unwrap()
    }

    fn header(&self, name: &str) -> Option<&str> {
        let line = |line: &'_ str| line.to_ascii_lowercase().starts_with(&format!("{name}: "));
        self.head.lines().find(|it| line(it)).and_then(|line| line.split_once(": ")).map(|(_, value)| value)
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

impl Served {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("www")).unwrap();
        fs::write(dir.path().join("outside.txt"), "secret").unwrap();
        let folder = Folder::open(&dir.path().join("www")).unwrap();
        Self { dir, folder }
    }

    fn with(files: &[(&str, &str)]) -> Self {
        let served = Self::new();
        for (name, contents) in files {
            served.write(name, contents);
        }
        served
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join("www").join(name)
    }

    fn write(&self, name: &str, contents: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, contents).unwrap();
    }

    async fn ask(&self, method: &str, path: &str, headers: &str) -> Reply {
        let mut stream = self.folder.serve();
        let request =
            format!("{method} {path} HTTP/1.1\r\nHost: a.test\r\n{headers}Connection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        let end = all.windows(4).position(|it| it == b"\r\n\r\n").unwrap();
        Reply { head: String::from_utf8(all[..end].to_vec()).unwrap(), body: all[end + 4..].to_vec() }
    }

    async fn get(&self, path: &str) -> Reply {
        self.ask("GET", path, "").await
    }

    async fn status(&self, path: &str) -> u16 {
        self.get(path).await.status()
    }
}

#[tokio::test]
async fn a_file_comes_with_its_type_and_length() {
    let served = Served::with(&[
        ("a.css", "p{}"),
        ("pic.png", "\u{0}"),
        ("b.html", "<p>"),
        ("LICENSE", "for all"),
        ("data.json", "{}"),
        ("blob", "\u{0}\u{1}"),
    ]);
    for (path, kind, body) in [
        ("/a.css", "text/css; charset=utf-8", "p{}"),
        ("/pic.png", "image/png", "\u{0}"),
        ("/b.html", "text/html; charset=utf-8", "<p>"),
        ("/LICENSE", "text/plain; charset=utf-8", "for all"),
        ("/data.json", "application/json", "{}"),
        ("/blob", "application/octet-stream", "\u{0}\u{1}"),
    ] {
        let reply = served.get(path).await;
        assert_eq!(reply.status(), 200, "{path}");
        assert_eq!(reply.header("content-type"), Some(kind), "{path}");
        assert_eq!(reply.header("content-length"), Some(body.len().to_string().as_str()), "{path}");
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(reply.text(), body);
    }
}

#[tokio::test]
async fn one_connection_answers_many_requests_and_ends_with_its_stream() {
    let served = Served::with(&[("a.txt", "one")]);
    let mut stream = served.folder.serve();
    for _ in 0..3 {
        stream.write_all(b"GET /a.txt HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        let mut got = Vec::new();
        while !got.ends_with(b"one") {
            let mut some = [0; 1024];
            let length = stream.read(&mut some).await.unwrap();
            assert_ne!(length, 0);
            got.extend_from_slice(&some[..length]);
        }
    }
    // Who says no more gets the end.
    stream.shutdown().await.unwrap();
    assert_eq!(stream.read(&mut [0; 16]).await.unwrap(), 0);
    drop(stream);
    let root = Arc::downgrade(&served.folder.root);
    let Served { folder, .. } = served;
    drop(folder);
    while root.upgrade().is_some() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_part_of_a_file_is_sent_alone() {
    let served = Served::with(&[("a.txt", "0123456789"), ("empty", "")]);
    for (range, status, body, said) in [
        ("bytes=2-4", 206, "234", Some("bytes 2-4/10")),
        ("bytes=7-", 206, "789", Some("bytes 7-9/10")),
        ("bytes=-3", 206, "789", Some("bytes 7-9/10")),
        ("bytes=5-99", 206, "56789", Some("bytes 5-9/10")),
        ("bytes=0-1,5-6", 200, "0123456789", None),
        ("lines=1-2", 200, "0123456789", None),
    ] {
        let reply = served.ask("GET", "/a.txt", &format!("Range: {range}\r\n")).await;
        assert_eq!(
            (reply.status(), reply.text(), reply.header("content-range")),
            (status, body, said),
            "{range}"
        );
    }
    let reply = served.ask("GET", "/a.txt", "Range: bytes=20-30\r\n").await;
    assert_eq!((reply.status(), reply.header("content-range")), (416, Some("bytes */10")));
    assert_eq!(served.get("/empty").await.status(), 200);
    assert_eq!(served.get("/a.txt").await.header("accept-ranges"), Some("bytes"));
}

#[tokio::test]
async fn a_download_is_resumed_only_if_the_file_is_the_same() {
    let served = Served::with(&[("a.txt", "0123456789")]);
    let first = served.get("/a.txt").await;
    let (etag, time) = (first.header("etag").unwrap(), first.header("last-modified").unwrap());
    for same in [etag, time] {
        let reply = served.ask("GET", "/a.txt", &format!("Range: bytes=5-\r\nIf-Range: {same}\r\n")).await;
        assert_eq!((reply.status(), reply.text()), (206, "56789"));
    }
    served.write("a.txt", "another text");
    let reply = served.ask("GET", "/a.txt", &format!("Range: bytes=5-\r\nIf-Range: {etag}\r\n")).await;
    assert_eq!((reply.status(), reply.text()), (200, "another text"));
}

#[tokio::test]
async fn what_the_visitor_has_already_is_not_sent_again() {
    let served = Served::with(&[("a.txt", "0123456789")]);
    let first = served.get("/a.txt").await;
    let (etag, time) = (first.header("etag").unwrap(), first.header("last-modified").unwrap());
    for condition in [format!("If-None-Match: {etag}"), format!("If-Modified-Since: {time}")] {
        let reply = served.ask("GET", "/a.txt", &format!("{condition}\r\n")).await;
        assert_eq!((reply.status(), reply.text(), reply.header("etag")), (304, "", Some(etag)));
    }
    assert_eq!(served.ask("GET", "/a.txt", "If-None-Match: \"other\"\r\n").await.status(), 200);
    assert_eq!(served.ask("GET", "/a.txt", "If-Match: \"other\"\r\n").await.status(), 412);
}

#[tokio::test]
async fn head_gets_the_same_head_without_a_body() {
    let served = Served::with(&[("a.txt", "0123456789"), ("d/b", "")]);
    for path in ["/a.txt", "/d/", "/nothing", "/d"] {
        let (get, head) = (served.get(path).await, served.ask("HEAD", path, "").await);
        assert!(head.body.is_empty(), "{path}");
        assert_eq!(head.status(), get.status(), "{path}");
        for name in ["content-length", "content-type", "etag", "location"] {
            assert_eq!(head.header(name), get.header(name), "{path} {name}");
        }
    }
}

#[tokio::test]
async fn only_get_and_head_are_allowed() {
    let served = Served::with(&[("a.txt", "0123456789")]);
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        let reply = served.ask(method, "/a.txt", "").await;
        assert_eq!((reply.status(), reply.header("allow")), (405, Some("GET, HEAD")), "{method}");
    }
    assert!(served.path("a.txt").exists());
}

#[tokio::test]
async fn a_folder_shows_its_index() {
    let served = Served::with(&[("index.html", "<h1>home"), ("d/index.html", "<h1>d")]);
    assert_eq!(served.get("/").await.text(), "<h1>home");
    assert_eq!(served.get("/d/").await.text(), "<h1>d");
    assert_eq!(served.get("/d/").await.header("content-type"), Some("text/html; charset=utf-8"));
    let reply = served.get("/d?x=1").await;
    assert_eq!((reply.status(), reply.header("location")), (307, Some("/d/?x=1")));
}

#[tokio::test]
async fn a_redirect_stays_on_the_host() {
    let served = Served::with(&[("evil.test/a", "")]);
    assert_eq!(served.get("//evil.test").await.header("location"), Some("/evil.test/"));
    assert_eq!(served.get("//evil.test/%2e%2e").await.status(), 404);
}

#[tokio::test]
async fn a_listing_has_names_sizes_and_times() {
    let served = Served::with(&[("b.txt", "0123456789"), ("A.txt", ""), ("sub/x", "")]);
    let reply = served.get("/").await;
    let page = reply.text();
    let at = |text: &str| page.find(text).unwrap_or_else(|| panic!("{text} in {page}"));
    assert!(at("./sub/\"") < at("./A.txt") && at("./A.txt") < at("./b.txt"));
    at("<td>10 B</td>");
    at(&jiff::Timestamp::now().strftime("<td>%Y-%m-%d ").to_string());
    assert!(!page.contains("../"), "nothing lies above the top");
    assert!(served.get("/sub/").await.text().contains("href=\"../\""));
    assert!(reply.header("content-security-policy").unwrap().contains("default-src 'none'"));
}

#[tokio::test]
async fn a_listing_is_sorted_by_the_links_in_its_head() {
    let served = Served::with(&[("a", "333"), ("b", "1"), ("c", "22")]);
    for (query, order) in [
        ("", "abc"),
        ("?sort=name&order=desc", "cba"),
        ("?sort=size&order=asc", "bca"),
        ("?sort=size&order=desc", "acb"),
        ("?sort=%00", "abc"),
    ] {
        let reply = served.get(&format!("/{query}")).await;
        let names = reply.text().split("href=\"./").skip(1).filter_map(|it| it.chars().next());
        assert_eq!(names.collect::<String>(), order, "{query}");
    }
    assert!(served.get("/?sort=size").await.text().contains("?sort=size&amp;order=desc"));
}

#[cfg(unix)]
#[tokio::test]
async fn any_name_can_be_listed_and_got() {
    use std::os::unix::ffi::OsStrExt as _;
    let names: [&[u8]; 8] = [
        "b\u{fc}cher & kaffee.txt".as_bytes(),
        b"100%",
        b"a#b?c=d;e",
        b"<script>alert('x')</script>".split(|b| *b == b'/').next().unwrap(),
        b"javascript:x",
        b"back\\slash",
        b"\"quoted\" + plus",
        b"not\xffutf8",
    ];
    let served = Served::new();
    for name in names {
        fs::write(served.path("").join(std::ffi::OsStr::from_bytes(name)), name).unwrap();
    }
    let listing = served.get("/").await;
    let page = listing.text();
    assert!(!page.contains("<script>"), "{page}");
    let links: Vec<_> = page.split("href=\"./").skip(1).map(|it| it.split('"').next().unwrap()).collect();
    assert_eq!(links.len(), names.len());
    let mut got = Vec::new();
    for link in links {
        got.push(served.get(&format!("/{link}")).await.body);
    }
    got.sort();
    let mut wanted = names.map(<[u8]>::to_vec);
    wanted.sort();
    assert_eq!(got, wanted);
}

#[tokio::test]
async fn there_is_no_way_out_of_the_folder() {
    let served = Served::with(&[("a.txt", ""), ("d/b", "")]);
    let absolute = served.dir.path().join("outside.txt");
    let absolute = absolute.to_str().unwrap().to_owned();
    for path in [
        "/../outside.txt",
        "/d/../../outside.txt",
        "/%2e%2e/outside.txt",
        "/%2E./outside.txt",
        "/..%2foutside.txt",
        "/d/%2e%2e%2f%2e%2e%2foutside.txt",
        "/..%5coutside.txt",
        "/%252e%252e/outside.txt",
        "/..%00/outside.txt",
        "/a.txt%00",
        "/a.txt/",
        "/a.txt/b",
        "/C:/windows/win.ini",
        "/etc/passwd",
        &format!("/{absolute}"),
        &absolute.replace('/', "%2f"),
    ] {
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        let reply = served.get(&path).await;
        assert_eq!(reply.status(), 404, "{path}");
        assert!(!reply.text().contains("secret"), "{path}");
    }
}

#[tokio::test]
async fn hidden_files_are_neither_listed_nor_served() {
    let served = Served::with(&[
        (".env", "secret"),
        (".git/config", "secret"),
        ("d/.htaccess", "secret"),
        ("d/.well-known/x", "secret"),
        (".well-known/acme-challenge/x", "proof"),
        (".well-known/.x", "secret"),
    ]);
    for path in
        ["/.env", "/%2eenv", "/.git/", "/.git/config", "/d/.htaccess", "/d/.well-known/x", "/.well-known/.x"]
    {
        assert_eq!(served.status(path).await, 404, "{path}");
    }
    assert_eq!(served.get("/.well-known/acme-challenge/x").await.text(), "proof");
    let page = served.get("/").await;
    assert!(!page.text().contains(".env") && !page.text().contains(".git"));
    assert!(!served.get("/d/").await.text().contains(".htaccess"));
}

#[cfg(unix)]
#[tokio::test]
async fn links_are_followed_only_inside_the_folder() {
    use std::os::unix::fs::symlink;
    let served = Served::with(&[("real/a.txt", "inside"), (".env", "secret")]);
    symlink("real/a.txt", served.path("relative")).unwrap();
    symlink(served.path("real"), served.path("absolute")).unwrap();
    symlink("../outside.txt", served.path("out")).unwrap();
    symlink(served.dir.path(), served.path("above")).unwrap();
    symlink("/", served.path("top")).unwrap();
    symlink(".env", served.path("environment")).unwrap();
    symlink("loop", served.path("loop")).unwrap();
    symlink("nowhere", served.path("dangling")).unwrap();
    assert_eq!(served.get("/relative").await.text(), "inside");
    assert_eq!(served.get("/absolute/a.txt").await.text(), "inside");
    let out =
        ["/out", "/above/", "/above/outside.txt", "/top/etc/passwd", "/environment", "/loop", "/dangling"];
    for path in out {
        assert_eq!(served.status(path).await, 404, "{path}");
    }
    // An index that leads out is no way out either.
    fs::create_dir(served.path("d")).unwrap();
    symlink("../../outside.txt", served.path("d/index.html")).unwrap();
    assert!(!served.get("/d/").await.text().contains("secret"));
    let page = served.get("/").await;
    for name in ["./out\"", "./above", "./top", "./environment", "./loop", "./dangling"] {
        assert!(!page.text().contains(name), "{name}");
    }
    assert!(page.text().contains("./absolute/\""));
}

#[cfg(unix)]
#[tokio::test]
async fn pipes_and_sockets_are_no_files() {
    let served = Served::new();
    let made = std::process::Command::new("mkfifo").arg(served.path("pipe")).status().unwrap();
    assert!(made.success());
    let _socket = std::os::unix::net::UnixListener::bind(served.path("socket")).unwrap();
    assert_eq!(served.status("/pipe").await, 404);
    assert_eq!(served.status("/socket").await, 404);
    assert!(served.get("/").await.text().contains("empty"));
}

#[cfg(unix)]
#[tokio::test]
async fn what_cannot_be_read_is_forbidden() {
    use std::os::unix::fs::PermissionsExt as _;
    let served = Served::with(&[("a.txt", "secret")]);
    fs::set_permissions(served.path("a.txt"), fs::Permissions::from_mode(0o0)).unwrap();
    // Root reads everything.
    if fs::read(served.path("a.txt")).is_err() {
        assert_eq!(served.status("/a.txt").await, 403);
    }
    assert_eq!(status(&io::ErrorKind::PermissionDenied.into()), StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_file_that_grows_while_it_is_read_keeps_its_length() {
    use std::io::Write as _;
    let served = Served::with(&[("log", &"x".repeat(1 << 20))]);
    let mut stream = served.folder.serve();
    stream.write_all(b"GET /log HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut all = vec![0; 1000];
    stream.read_exact(&mut all).await.unwrap();
    let mut log = fs::OpenOptions::new().append(true).open(served.path("log")).unwrap();
    log.write_all(&[b'y'; 100_000]).unwrap();
    stream.read_to_end(&mut all).await.unwrap();
    let end = all.windows(4).position(|it| it == b"\r\n\r\n").unwrap();
    assert_eq!(all.len() - end - 4, 1 << 20);
}

#[tokio::test]
async fn a_folder_that_is_none_is_refused_at_the_start() {
    let served = Served::with(&[("a.txt", "")]);
    assert_eq!(Folder::open(&served.path("a.txt")).unwrap_err().kind(), io::ErrorKind::NotADirectory);
    assert_eq!(Folder::open(&served.path("missing")).unwrap_err().kind(), io::ErrorKind::NotFound);
}

#[cfg(windows)]
#[tokio::test]
async fn what_windows_takes_for_more_than_a_name_is_not_there() {
    let served = Served::with(&[("a.txt", "a"), ("sub/b.txt", "b"), ("x.php", "source"), (".env", "secret")]);
    for path in [
        "/x.php::$DATA",
        "/x.php%3A%3A$DATA",
        "/a.txt:stream",
        "/..%5coutside.txt",
        "/sub%5cb.txt",
        "/sub%5c..%5c..%5coutside.txt",
        "/C:/windows/win.ini",
        "/C%3A",
        "/%5c%5c?%5cC:%5cwindows%5cwin.ini",
        "/%5c%5c.%5cC:",
        "/con",
        "/NUL.txt",
        "/COM1",
        "/a.txt.",
        "/a.txt%20",
        "/a.t?t",
        "/a.tx%3Ft",
        "/a.%3C",
        "/.env",
    ] {
        assert_eq!(served.status(path).await, 404, "{path}");
    }
    assert_eq!(served.status("/sub/b.txt").await, 200);
    // Names have no case there.
    assert_eq!(served.status("/A.TXT").await, 200);
}

#[cfg(windows)]
#[tokio::test]
async fn what_windows_hides_is_neither_served_nor_listed() {
    let served = Served::with(&[("a.txt", "a"), ("desktop.ini", "b"), ("$RECYCLE.BIN/c.txt", "c")]);
    assert_eq!(served.status("/desktop.ini").await, 200);
    for name in ["desktop.ini", "$RECYCLE.BIN"] {
        let hidden = std::process::Command::new("attrib").arg("+h").arg(served.path(name)).status().unwrap();
        assert!(hidden.success());
    }
    for path in ["/desktop.ini", "/$RECYCLE.BIN/", "/$RECYCLE.BIN/c.txt"] {
        assert_eq!(served.status(path).await, 404, "{path}");
    }
    let listing = served.get("/").await;
    assert!(listing.text().contains("a.txt"));
    assert!(!listing.text().contains("desktop.ini") && !listing.text().contains("RECYCLE"));
}
