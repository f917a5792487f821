//! From the path of a request to a file inside the folder, and never to one outside of it.
//!
//! Three locks, one behind the other: segments of a path that could mean more than a name are refused; the path with
//! all symlinks resolved has to lie in the folder, and no part of it may be hidden; `cap-std` opens that path
//! beneath the folder's handle, so that a link which appears meanwhile leads nowhere either.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use cap_std::ambient_authority;
use cap_std::fs::{Dir, OpenOptions};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, percent_encode};

/// The decoded path of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Segments {
    names: Vec<OsString>,
    slash: bool,
}

impl Segments {
    /// None where a segment is no plain name, or a hidden one.
    pub(super) fn parse(path: &str) -> Option<Self> {
        let mut names = Vec::new();
        for segment in path.split('/').filter(|segment| !segment.is_empty()) {
            let name = os_string(percent_decode_str(segment).collect())?;
            if !is_plain(&name) || is_hidden(&name, names.is_empty()) {
                return None;
            }
            names.push(name);
        }
        Some(Self { names, slash: path.ends_with('/') })
    }

    pub(super) fn names(&self) -> &[OsString] {
        &self.names
    }

    pub(super) fn ends_with_slash(&self) -> bool {
        self.slash
    }

    /// The same path as a folder has it. It begins with one slash only, since two would name another host.
    pub(super) fn with_slash(&self, query: Option<&str>) -> String {
        let mut path = String::from("/");
        for name in &self.names {
            path.push_str(&encode(name));
            path.push('/');
        }
        match query {
            Some(query) => format!("{path}?{query}"),
            None => path,
        }
    }
}

/// What stands in a path of a URL for this name.
pub(super) fn encode(name: &OsStr) -> String {
    #[cfg(unix)]
    let bytes = std::os::unix::ffi::OsStrExt::as_bytes(name);
    #[cfg(not(unix))]
    let text = name.to_string_lossy();
    #[cfg(not(unix))]
    let bytes = text.as_bytes();
    percent_encode(bytes, RESERVED).to_string()
}

/// Everything but the unreserved characters of RFC 3986 section 2.3. What is not ASCII is encoded anyway.
const RESERVED: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'$')
    .add(b'%')
    .add(b'&')
    .add(b'\'')
    .add(b'(')
    .add(b')')
    .add(b'*')
    .add(b'+')
    .add(b',')
    .add(b'/')
    .add(b':')
    .add(b';')
    .add(b'<')
    .add(b'=')
    .add(b'>')
    .add(b'?')
    .add(b'@')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

#[cfg(unix)]
#[expect(clippy::unnecessary_wraps, reason = "elsewhere names are text")]
fn os_string(bytes: Vec<u8>) -> Option<OsString> {
    Some(std::os::unix::ffi::OsStringExt::from_vec(bytes))
}

#[cfg(not(unix))]
fn os_string(bytes: Vec<u8>) -> Option<OsString> {
    String::from_utf8(bytes).ok().map(Into::into)
}

/// Whether a name is just that: no separator, no drive, no stream of a file, no device.
fn is_plain(name: &OsStr) -> bool {
    let bytes = name.as_encoded_bytes();
    if bytes.is_empty()
        || bytes == b"."
        || bytes == b".."
        || bytes.iter().any(|byte| matches!(byte, 0 | b'/'))
    {
        return false;
    }
    !cfg!(windows) || is_plain_on_windows(&name.to_string_lossy())
}

fn is_plain_on_windows(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or_default().trim_end().to_ascii_uppercase();
    let is_numbered = |prefix| stem.strip_prefix(prefix).is_some_and(|rest: &str| rest.chars().count() == 1);
    !name.contains(['\\', ':', '*', '?', '"', '<', '>', '|'])
        && !name.contains(char::is_control)
        // Windows takes `name. ` for `name`.
        && !name.ends_with(['.', ' '])
        && !matches!(stem.as_str(), "CON" | "PRN" | "AUX" | "NUL" | "CONIN$" | "CONOUT$")
        && !is_numbered("COM")
        && !is_numbered("LPT")
}

/// `.git`, `.env` and their like. `.well-known` has its place at the top (RFC 8615 section 3).
fn is_hidden(name: &OsStr, at_the_top: bool) -> bool {
    name.as_encoded_bytes().starts_with(b".") && !(at_the_top && name == ".well-known")
}

/// What a path names.
pub(super) enum Found {
    File(Opened),
    /// The `index.html` of the folder that was asked for.
    Index(Opened),
    Folder(Entries),
}

/// A regular file.
pub(super) struct Opened {
    /// Without the folders.
    pub(super) name: OsString,
    pub(super) file: File,
}

/// The contents of a folder.
pub(super) struct Entries {
    pub(super) entries: Vec<Entry>,
    /// There are more than [`MAX_ENTRIES`].
    pub(super) is_cut: bool,
}

pub(super) struct Entry {
    pub(super) name: OsString,
    pub(super) is_folder: bool,
    pub(super) size: u64,
    pub(super) modified: Option<SystemTime>,
}

/// The folder that is served.
#[derive(Debug)]
pub(super) struct Root {
    /// Without symlinks.
    path: PathBuf,
    dir: Dir,
}

impl Root {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let path = path.canonicalize()?;
        if !path.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        let dir = Dir::open_ambient_dir(&path, ambient_authority())?;
        // One that cannot be read is noticed now and not by the first visitor.
        dir.entries()?;
        Ok(Self { path, dir })
    }

    /// Blocks.
    pub(super) fn find(&self, segments: &Segments) -> io::Result<Found> {
        let path: PathBuf = segments.names().iter().collect();
        let inside = self.resolve(&path)?;
        if !self.dir.metadata(or_dot(&inside))?.is_dir() {
            let name = segments.names().last().cloned().unwrap_or_default();
            return self.open_file(&inside, name).map(Found::File);
        }
        let index = self.resolve(&path.join(INDEX)).and_then(|inside| self.open_file(&inside, INDEX.into()));
        match index {
            Ok(index) => Ok(Found::Index(index)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.list(&path, &inside).map(Found::Folder)
            }
            Err(error) => Err(error),
        }
    }

    /// Follows all symlinks of a path in the folder. What leads out of it, or to something hidden, is not found.
    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        let full = self.path.join(path).canonicalize()?;
        let inside = full.strip_prefix(&self.path).map_err(|_| io::ErrorKind::NotFound)?;
        let is_seen =
            inside.iter().enumerate().all(|(depth, name)| is_plain(name) && !is_hidden(name, depth == 0));
        #[cfg(windows)]
        let is_seen = is_seen && self.is_shown_by_windows(inside)?;
        if is_seen { Ok(inside.to_owned()) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    /// There an attribute hides files and folders: `$RECYCLE.BIN`, `System Volume Information`, `desktop.ini`. What begins
    /// with a dot has been judged.
    #[cfg(windows)]
    fn is_shown_by_windows(&self, inside: &Path) -> io::Result<bool> {
        use std::os::windows::fs::MetadataExt as _;
        let has_dot = |part: &Path| part.file_name().is_some_and(|name| is_hidden(name, false));
        for part in inside.ancestors().filter(|part| !part.as_os_str().is_empty() && !has_dot(part)) {
            if std::fs::metadata(self.path.join(part))?.file_attributes() & HIDDEN_OR_SYSTEM != 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn open_file(&self, inside: &Path, name: OsString) -> io::Result<Opened> {
        let is_file = |metadata: &cap_std::fs::Metadata| match metadata.is_file() {
            true => Ok(()),
            // Pipes, sockets, devices, and a folder with the name of an index.
            false => Err(io::Error::from(io::ErrorKind::NotFound)),
        };
        is_file(&self.dir.metadata(inside)?)?;
        let mut options = OpenOptions::new();
        options.read(true);
        #[cfg(unix)]
        {
            use cap_std::fs::OpenOptionsExt as _;
            // If a pipe took the file's place just now, it does not hold us up.
            options.custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed());
        }
        let file = self.dir.open_with(inside, &options)?;
        is_file(&file.metadata()?)?;
        Ok(Opened { name, file: file.into_std() })
    }

    fn list(&self, path: &Path, inside: &Path) -> io::Result<Entries> {
        let dir = self.dir.open_dir(or_dot(inside))?;
        let mut entries = Vec::new();
        for entry in dir.entries()? {
            let name = entry?.file_name();
            if !is_plain(&name) || is_hidden(&name, inside.as_os_str().is_empty()) {
                continue;
            }
            if entries.len() == MAX_ENTRIES {
                return Ok(Entries { entries, is_cut: true });
            }
            // What would not be served is not shown either.
            let Ok(target) = self.resolve(&path.join(&name)) else { continue };
            let Ok(metadata) = self.dir.metadata(or_dot(&target)) else { continue };
            if metadata.is_dir() || metadata.is_file() {
                entries.push(Entry {
                    name,
                    is_folder: metadata.is_dir(),
                    size: metadata.len(),
                    modified: metadata.modified().ok().map(cap_std::time::SystemTime::into_std),
                });
            }
        }
        Ok(Entries { entries, is_cut: false })
    }
}

fn or_dot(path: &Path) -> &Path {
    if path.as_os_str().is_empty() { Path::new(".") } else { path }
}

/// winnt.h: `FILE_ATTRIBUTE_HIDDEN` and `FILE_ATTRIBUTE_SYSTEM`.
#[cfg(windows)]
const HIDDEN_OR_SYSTEM: u32 = 0x2 | 0x4;

const INDEX: &str = "index.html";

/// A page of so many rows is no pleasure, and folders have millions of files.
pub(super) const MAX_ENTRIES: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_on_windows_names_no_drive_stream_or_device() {
        for name in
            ["C:", "a\\b", "..\\x", "file.txt::$DATA", "nul", "NUL.txt", "com1", "LPT9.log", "x.", "x "]
        {
            assert!(!is_plain_on_windows(name), "{name}");
        }
        for name in ["comet", "nullable.txt", "a b.txt", "b\u{fc}cher"] {
            assert!(is_plain_on_windows(name), "{name}");
        }
    }

    #[test]
    fn a_segment_is_a_name_and_nothing_else() {
        for path in [
            "/..",
            "/a/../b",
            "/%2e%2e/x",
            "/.%2E",
            "/a%2fb",
            "/a%00b",
            "/.",
            "/./a",
            "/.git/config",
            "/a/.env",
        ] {
            assert_eq!(Segments::parse(path), None, "{path}");
        }
        assert_eq!(Segments::parse("/a/.well-known/x"), None);
        assert!(Segments::parse("/.well-known/x").is_some());
        assert_eq!(Segments::parse("//a///b").unwrap().with_slash(Some("q")), "/a/b/?q");
    }
}
