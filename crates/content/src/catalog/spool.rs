//! The documents of a catalog in one file on disk, in the order in which they were read: a hundred and fifty megabytes that are not in memory.
//!
//! The file has no name any more once it was opened, so that nothing is left behind, however the program ends.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use airlock_oci::{Error, ErrorKind};

/// How many names are tried for the file, before it is given none.
const MAX_NAMES: u32 = 1000;

/// Where a document lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Blob {
    at: u64,
    pub(super) len: u32,
}

/// A spool to be read.
#[derive(Clone, Debug)]
pub(super) struct Spool {
    file: Arc<File>,
}

/// A spool to be written.
#[derive(Debug)]
pub(super) struct SpoolWriter {
    file: BufWriter<File>,
    at: u64,
}

/// A part of a file, read from its beginning.
pub(super) struct Range {
    file: Arc<File>,
    at: u64,
    left: u64,
}

/// A name in a folder that no other part of this process uses.
pub(super) fn new_path(folder: &Path) -> Result<PathBuf, Error> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    std::fs::create_dir_all(folder).map_err(|e| Error::io(format!("create `{}`", folder.display()), &e))?;
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    Ok(folder.join(format!(".catalog-{}-{number}", std::process::id())))
}

/// A new file in a folder that nothing else can open.
pub(super) fn unnamed(folder: &Path) -> Result<File, Error> {
    let what = || format!("create a file for the catalog in `{}`", folder.display());
    for _ in 0..MAX_NAMES {
        let path = new_path(folder)?;
        match OpenOptions::new().read(true).write(true).create_new(true).open(&path) {
            Ok(file) => {
                std::fs::remove_file(&path).map_err(|e| Error::io(what(), &e))?;
                return Ok(file);
            }
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(Error::io(what(), &e)),
        }
    }
    Err(Error::new(ErrorKind::Io, what(), "every name for it is taken"))
}

fn failed(error: &std::io::Error) -> Error {
    Error::io("keep the documents of a catalog on disk", error)
}

impl SpoolWriter {
    /// An empty one in this folder.
    pub(super) fn create(folder: &Path) -> Result<Self, Error> {
        Ok(Self { file: BufWriter::with_capacity(1 << 16, unnamed(folder)?), at: 0 })
    }

    /// Keeps a document.
    pub(super) fn put(&mut self, document: &[u8]) -> Result<Blob, Error> {
        let len = u32::try_from(document.len())
            .map_err(|_| Error::new(ErrorKind::Unsupported, "keep a document of a catalog", "it is too large"))?;
        self.file.write_all(document).map_err(|e| failed(&e))?;
        let blob = Blob { at: self.at, len };
        self.at += u64::from(len);
        Ok(blob)
    }

    /// All documents are there.
    pub(super) fn finish(self) -> Result<Spool, Error> {
        let file = self.file.into_inner().map_err(|e| failed(e.error()))?;
        Ok(Spool { file: Arc::new(file) })
    }
}

impl Spool {
    /// A document as a whole.
    pub(super) fn get(&self, blob: Blob) -> Result<Vec<u8>, Error> {
        let mut bytes = vec![0; blob.len as usize];
        self.file.read_exact_at(&mut bytes, blob.at).map_err(|e| failed(&e))?;
        Ok(bytes)
    }

    /// A document as a stream.
    pub(super) fn open(&self, blob: Blob) -> Range {
        Range { file: Arc::clone(&self.file), at: blob.at, left: u64::from(blob.len) }
    }
}

impl Range {
    /// All of a file from an offset.
    pub(super) fn from(file: &Arc<File>, at: u64, end: u64) -> Self {
        Self { file: Arc::clone(file), at, left: end.saturating_sub(at) }
    }
}

impl Read for Range {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let most = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let read = self.file.read_at(&mut buffer[..most], self.at)?;
        self.at += read as u64;
        self.left -= read as u64;
        Ok(read)
    }
}
