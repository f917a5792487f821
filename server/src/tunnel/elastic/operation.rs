//! One disk operation of an elastic buffer, as it runs on a blocking thread.

use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;

use super::cost;

/// The next thing to do with the disk.
pub(super) enum Operation {
    Read { file: Arc<File>, at: u64, length: usize },
    Write { file: Option<Arc<File>>, chunks: Vec<Bytes> },
}

/// What came of it.
pub(super) enum Done {
    Read(Bytes),
    Written { file: Arc<File>, bytes: u64 },
}

/// An operation that failed, and what can be tried again.
pub(super) struct Failure {
    pub(super) error: io::Error,
    pub(super) undone: Option<Operation>,
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self { error, undone: None }
    }
}

impl Operation {
    /// Memory that is held while it runs.
    pub(super) fn cost(&self) -> usize {
        match self {
            Self::Read { length, .. } => *length,
            Self::Write { chunks, .. } => chunks.iter().map(cost).sum(),
        }
    }

    /// What the session may not receive in its place until this is done.
    pub(super) fn backlog(&self) -> usize {
        match self {
            Self::Read { .. } => 0,
            Self::Write { .. } => self.cost(),
        }
    }

    /// Blocks.
    pub(super) fn run(self, segment: &dyn Fn() -> io::Result<File>) -> Result<Done, Failure> {
        match self {
            Self::Read { file, at, length } => {
                let mut buffer = vec![0; length];
                file.read_exact_at(&mut buffer, at)?;
                Ok(Done::Read(buffer.into()))
            }
            Self::Write { file: Some(file), chunks } => Self::write(file, chunks),
            Self::Write { file: None, chunks } => match segment() {
                Ok(file) => Self::write(Arc::new(file), chunks),
                Err(error) => Err(Failure { error, undone: Some(Self::Write { file: None, chunks }) }),
            },
        }
    }

    fn write(file: Arc<File>, chunks: Vec<Bytes>) -> Result<Done, Failure> {
        let begin = io::Seek::stream_position(&mut &*file)?;
        match write_all(&file, &chunks) {
            Ok(bytes) => Ok(Done::Written { file, bytes }),
            Err(error) => {
                // The file counts as it was before.
                io::Seek::seek(&mut &*file, io::SeekFrom::Start(begin))?;
                Err(Failure { error, undone: Some(Self::Write { file: Some(file), chunks }) })
            }
        }
    }
}

/// Writes at the end of the file; its place is where the last write ended, since reading does not move it.
fn write_all(mut file: &File, chunks: &[Bytes]) -> io::Result<u64> {
    let mut bytes = 0;
    for group in chunks.chunks(MAX_SLICES) {
        let mut slices: Vec<_> = group.iter().map(|chunk| IoSlice::new(chunk)).collect();
        let mut slices = slices.as_mut_slice();
        while !slices.is_empty() {
            let written = match file.write_vectored(slices) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            bytes += written as u64;
            IoSlice::advance_slices(&mut slices, written);
        }
    }
    Ok(bytes)
}

/// As IOV_MAX of Linux.
const MAX_SLICES: usize = 1024;
