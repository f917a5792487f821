//! Reading lists of keys: bounded, and only where not everybody can write.

use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Bytes of one file. A file that is larger is not a list of keys.
const MAX_FILE: u64 = 16 * 1024 * 1024;

/// Why a file is not used at all.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("cannot read the {what} {path}")]
    Read { what: &'static str, path: PathBuf, source: io::Error },
    #[error("{path} is larger than 16 MiB, which is no list of keys")]
    TooLarge { path: PathBuf },
    #[error("everybody on this machine can write to {path} (mode {mode:04o}): run chmod o-w {path}")]
    Writable { path: PathBuf, mode: u32 },
}

/// The content of a file; `what` names its kind in the error.
pub(crate) fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, FileError> {
    let unreadable = |source| FileError::Read { what, path: path.to_owned(), source };
    let file = fs::File::open(path).map_err(unreadable)?;
    let mode = file.metadata().map_err(unreadable)?.permissions().mode() & 0o7777;
    if mode & 0o002 != 0 {
        return Err(FileError::Writable { path: path.to_owned(), mode });
    }
    let mut content = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut content).map_err(unreadable)?;
    if content.len() as u64 > MAX_FILE {
        return Err(FileError::TooLarge { path: path.to_owned() });
    }
    Ok(content)
}

/// The files of a folder in the order of their names, without those that start with `.` or end with `~`.
///
/// Folders are passed over, symbolic links to files are followed.
pub(crate) fn files_of(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let passed_over = name.starts_with('.') || name.ends_with('~');
        // A dangling link stays in the list, so that it is complained about.
        let is_file =
            fs::metadata(entry.path()).is_ok_and(|meta| meta.is_file()) || entry.file_type()?.is_symlink();
        if !passed_over && is_file && !entry.path().is_dir() {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

/// The lines of a file with their numbers, from 1.
pub(crate) fn lines(content: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    (1..).zip(content.split(|byte| *byte == b'\n'))
}
