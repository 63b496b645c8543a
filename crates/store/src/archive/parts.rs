//! The parts of an archive as files: which there are, to which set they belong, and what stands at their beginning and end: the table, the seal.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use airlock_oci::{Digest, Error, ErrorKind, Hasher};

use super::layout::{PART_PATH, SEAL_PATH, TABLE_PATH};
use super::seal::Seal;
use super::table::{self, Line, Summary, Unreadable};
use super::tar::{self, END_BYTES, Walk, padded};

/// The largest table, seal or file under `airlock/` that is read (bytes).
const MAX_TABLE_BYTES: u64 = 512 * 1024 * 1024;
/// Bytes of a table or file that are in memory at once.
const PIECE_BYTES: usize = 256 * 1024;

/// One tar file of it.
#[derive(Debug)]
pub struct Part {
    /// Where.
    pub path: PathBuf,
    /// Open for reading.
    pub file: Arc<File>,
    /// Bytes.
    pub len: u64,
}

/// Reads a file under `airlock/` from its beginning to its end. What it gives is to be believed only once [`FileReader::finish`] has found that
/// all of it is what was written.
pub struct FileReader {
    file: Arc<File>,
    part: PathBuf,
    path: String,
    at: u64,
    end: u64,
    expected: Option<(Digest, Hasher)>,
    failed: Option<io::Error>,
}

/// The number in a part's name, from 1.
pub fn part_number(name: &str) -> Option<u32> {
    let digits = name.strip_prefix("mirror_")?.strip_suffix(".tar")?;
    if digits.len() == 6 && digits.bytes().all(|b| b.is_ascii_digit()) { digits.parse().ok() } else { None }
}

/// Parts named `mirror_NNNNNN.tar` in a directory, by number.
pub fn parts_in(directory: &Path) -> Result<Vec<(u32, PathBuf)>, Error> {
    let what = || format!("look for an archive in {}", directory.display());
    let mut parts = Vec::new();
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(no_parts(directory)),
        Err(e) => return Err(Error::io(what(), &e)),
    };
    for entry in entries {
        let entry = entry.map_err(|e| Error::io(what(), &e))?;
        if let Some(number) = entry.file_name().to_str().and_then(part_number) {
            parts.push((number, entry.path()));
        }
    }
    parts.sort();
    if parts.is_empty() { Err(no_parts(directory)) } else { Ok(parts) }
}

pub(super) fn no_parts(directory: &Path) -> Error {
    let error = Error::new(
        ErrorKind::NotFound,
        format!("look for an archive in {}", directory.display()),
        r#"no tar archives matching "mirror_[0-9]{6}\.tar""#,
    );
    if super::writer::partial_parts(directory).is_empty() {
        error.hint("give the directory that holds mirror_000001.tar, as file:///path")
    } else {
        error.hint(
            "the archive there is not finished: run `airlock mirror` again with the same configuration to complete it",
        )
    }
}

/// The set and numbers in the first kilobyte of a part; `None` when it is not one of ours.
pub(super) fn part_header(head: &[u8; 1024]) -> Option<(Digest, u32, u32)> {
    let text = std::str::from_utf8(&head[512..]).ok()?.trim_end_matches('\0');
    if head[..512] != tar::headers(PART_PATH, text.len() as u64)[..] {
        return None;
    }
    let mut lines = text.lines();
    (lines.next()? == "airlock-part 1").then_some(())?;
    let set = lines.next()?.strip_prefix("set ")?.parse().ok()?;
    let (part, parts) = lines.next()?.strip_prefix("part ")?.split_once(" of ")?;
    Some((set, part.parse().ok()?, parts.parse().ok()?))
}

/// The set that a part belongs to, and how many parts that has; `None` when it is not one of ours.
pub(super) fn set_of_part(path: &Path) -> Option<(Digest, u32)> {
    let mut head = [0u8; 1024];
    File::open(path).ok()?.read_exact_at(&mut head, 0).ok()?;
    part_header(&head).map(|(set, _, parts)| (set, parts))
}

/// Whether the parts in a directory are of our format (and not oc-mirror's).
pub fn is_ours(directory: &Path) -> Result<bool, Error> {
    for (_, path) in parts_in(directory)? {
        let file = open(&path)?;
        let len = file.metadata().map_err(|e| Error::io(format!("read {}", path.display()), &e))?.len();
        if len == 0 {
            return Err(empty(&path));
        }
        let mut head = [0u8; 1024];
        if len >= 1024 && file.read_exact_at(&mut head, 0).is_ok() && head.starts_with(b"airlock/") {
            return Ok(true);
        }
    }
    Ok(false)
}

pub(super) fn empty(path: &Path) -> Error {
    Error::new(ErrorKind::Damaged, format!("read {}", path.display()), "empty archive file")
        .hint("the file was not copied; copy it again from where it was written")
}

/// Which set the parts of a directory belong to: the one whose table lies in the first part, else the one most parts name.
pub(super) fn agreed_set(claims: &[(Digest, u32, u32, u32)], by_table: Option<&Digest>) -> Option<Digest> {
    if let Some(set) = by_table.filter(|set| claims.iter().any(|c| c.0 == **set)) {
        return Some(set.clone());
    }
    let votes = |set: &Digest| claims.iter().filter(|c| c.0 == *set).count();
    // Of equally many, the first part's: `max_by_key` takes the last, so the order is turned round.
    claims.iter().rev().max_by_key(|c| votes(&c.0)).map(|c| c.0.clone())
}

pub(super) fn open(path: &Path) -> Result<File, Error> {
    File::open(path).map_err(|e| Error::io(format!("open {}", path.display()), &e))
}

/// Refuses what cannot be where the table or a header says that it is.
fn lies_within(part: &Part, offset: u64, len: u64) -> Result<(), Error> {
    if len > MAX_TABLE_BYTES || offset.saturating_add(len) > part.len {
        return Err(Error::new(
            ErrorKind::Damaged,
            format!("read {}", part.path.display()),
            format!("{len} bytes at offset {offset} do not lie in it"),
        ));
    }
    Ok(())
}

/// A stretch of a part, which must lie in it and not be larger than what is read into memory.
pub(super) fn read(part: &Part, offset: u64, len: u64) -> Result<Vec<u8>, Error> {
    lies_within(part, offset, len)?;
    let mut bytes = vec![0u8; len as usize];
    part.file.read_exact_at(&mut bytes, offset).map_err(|e| Error::io(format!("read {}", part.path.display()), &e))?;
    Ok(bytes)
}

/// Reads the table in a part piece by piece: its digest and what it says, or why it cannot be read. Nothing of it is to be believed before its digest
/// has been compared.
pub(super) fn stream_table(
    part: &Part,
    told: &mut dyn FnMut(Line) -> Result<(), Error>,
) -> Result<(Digest, Result<Summary, Unreadable>), String> {
    let mut walk = Walk::new(part.len, |offset, buffer: &mut [u8]| part.file.read_exact_at(buffer, offset));
    walk.next().transpose().map_err(|e| e.to_string())?;
    let entry = walk.next().transpose().map_err(|e| e.to_string())?;
    let entry = entry.filter(|e| e.path == TABLE_PATH).ok_or("it is not where it should be")?;
    lies_within(part, entry.data, entry.size).map_err(|e| e.to_string())?;
    let mut reader = table::Reader::new(told);
    let mut buffer = vec![0u8; PIECE_BYTES.min(entry.size as usize)];
    let (mut at, end) = (entry.data, entry.data + entry.size);
    while at < end {
        let step = buffer.len().min((end - at) as usize);
        part.file
            .read_exact_at(&mut buffer[..step], at)
            .map_err(|e| Error::io(format!("read {}", part.path.display()), &e).to_string())?;
        reader.feed(&buffer[..step]);
        at += step as u64;
    }
    Ok(reader.finish())
}

/// What came of reading a table, if it is the one of `set`.
pub(super) fn expect_table(
    part: &Part,
    set: &Digest,
    read: Result<(Digest, Result<Summary, Unreadable>), String>,
) -> Result<Summary, Error> {
    let damaged = |cause: String| {
        Error::new(ErrorKind::Damaged, format!("read the table in {}", part.path.display()), cause)
            .hint("copy this part again from where the archive was written")
    };
    let (digest, said) = read.map_err(damaged)?;
    if digest != *set {
        return Err(damaged("its bytes are not those that were written".into()));
    }
    said.map_err(|unreadable| match unreadable {
        Unreadable::NotText(cause) => damaged(cause),
        Unreadable::Refused(error) => error,
    })
}

/// Reads the table of a set, and tells of its lines. What was told counts only when this succeeds.
pub(super) fn read_table(
    part: &Part,
    set: &Digest,
    told: &mut dyn FnMut(Line) -> Result<(), Error>,
) -> Result<Summary, Error> {
    expect_table(part, set, stream_table(part, told))
}

/// The seal that begins at an offset of the last part, and the identity that it gives.
pub(super) fn read_seal(part: &Part, at: u64) -> Result<(Seal, Digest), Error> {
    let damaged = |cause: &str| {
        Error::new(ErrorKind::Damaged, format!("read the seal in {}", part.path.display()), cause)
            .hint("copy this part again from where the archive was written")
    };
    let mut header = [0u8; 512];
    part.file.read_exact_at(&mut header, at).map_err(|e| Error::io(format!("read {}", part.path.display()), &e))?;
    let mut walk = Walk::new(part.len - at, |offset, buffer: &mut [u8]| part.file.read_exact_at(buffer, at + offset));
    let entry = match walk.next() {
        Some(Ok(entry)) if entry.path == SEAL_PATH => entry,
        Some(Err(e)) => return Err(damaged(&e.to_string())),
        _ => return Err(damaged("it is not where it should be")),
    };
    if header[..] != tar::headers(SEAL_PATH, entry.size)[..] {
        return Err(damaged("its header is altered"));
    }
    let end = at + 512 + padded(entry.size) + END_BYTES;
    if part.len != end {
        return Err(damaged(&format!("the file has {} bytes, it should have {end}", part.len)));
    }
    let bytes = read(part, at + entry.data, part.len - at - entry.data)?;
    let (text, zeros) = bytes.split_at(entry.size as usize);
    if zeros.iter().any(|b| *b != 0) {
        return Err(damaged("what follows it is not zero"));
    }
    Seal::parse(std::str::from_utf8(text).map_err(|_| damaged("it is not text"))?)
        .map_err(|e| e.context(format!("read the seal in {}", part.path.display())))
}

impl FileReader {
    pub(super) fn new(part: &Part, path: &str, offset: u64, len: u64, expected: Option<Digest>) -> Result<Self, Error> {
        lies_within(part, offset, len)?;
        Ok(Self {
            file: Arc::clone(&part.file),
            part: part.path.clone(),
            path: path.to_owned(),
            at: offset,
            end: offset + len,
            expected: expected.map(|digest| {
                let hasher = Hasher::new(digest.algorithm());
                (digest, hasher)
            }),
            failed: None,
        })
    }

    /// Bytes that have not been read.
    pub(super) fn left(&self) -> u64 {
        self.end - self.at
    }

    /// Reads what is left of the file and compares all of it with what was written.
    pub fn finish(mut self) -> Result<(), Error> {
        let mut buffer = vec![0u8; PIECE_BYTES.min(self.left() as usize)];
        while self.failed.is_none() && self.read(&mut buffer).is_ok_and(|read| read > 0) {}
        if let Some(e) = self.failed {
            return Err(Error::io(format!("read {}", self.part.display()), &e));
        }
        if self.expected.is_some_and(|(expected, hasher)| hasher.finish() != expected) {
            return Err(Error::new(
                ErrorKind::Content,
                format!("read `{}` in {}", self.path, self.part.display()),
                "its bytes are not those that were written",
            )
            .hint("copy this part again from where the archive was written"));
        }
        Ok(())
    }
}

impl Read for FileReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let step = buffer.len().min(self.left() as usize);
        if let Err(e) = self.file.read_exact_at(&mut buffer[..step], self.at) {
            // Whoever parses wraps the error; `finish` tells it as it is.
            let told = io::Error::new(e.kind(), e.to_string());
            self.failed = Some(e);
            return Err(told);
        }
        if let Some((_, hasher)) = &mut self.expected {
            hasher.update(&buffer[..step]);
        }
        self.at += step as u64;
        Ok(step)
    }
}
