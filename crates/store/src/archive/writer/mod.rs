//! Writes an archive: a [`Sink`](airlock_oci::Sink) that puts every byte straight to the place that the layout gave it.
//!
//! Blobs and manifests come in any order and in parallel; each is hashed on the way and its slot stays a void until it is
//! complete. Links are only noted while images arrive and are written at the end, in one sweep, so that nothing ever points at
//! what is not there. [`Writer::seal`] ends it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use airlock_oci::{Digest, Error, ErrorKind};
use bytes::Bytes;
use tokio::sync::Notify;

mod opening;
mod receiving;
mod resume;
mod sealing;
mod sink;

pub use opening::partial_parts;
pub use sink::ArchiveSink;

use super::chunks::{Budget, CHUNK_BYTES, Chunks, GROUP_BYTES};
use super::journal::Journal;
use super::layout::{Kind, Layout, partial_name};
use super::tar::headers;
use super::volume::{PartFile, Volume};
use crate::storage::Region;

/// Bytes of a large blob between two `at` lines of the journal: with what is on its way, a killed run loses less than 16 MiB a connection.
const JOURNAL_STEP_BYTES: u64 = 8 * 1024 * 1024;
/// Data is synced and journaled after so many bytes …
const FLUSH_BYTES: u64 = 64 * 1024 * 1024;
/// … or after this time.
const FLUSH_EVERY: Duration = Duration::from_secs(2);
/// A blob of at most this size is received into memory before it is written.
const SMALL_BYTES: u64 = 512 * 1024;
/// A blob of at most this size is written by the task that receives it, as manifests are; a larger one has a thread.
const HERE_BYTES: u64 = 8 * 1024 * 1024;
/// Received pieces are hashed and written in batches of about this size.
const BATCH_BYTES: usize = 256 * 1024;
/// Batches that may wait for the writing thread, per blob.
const BATCHES_WAITING: usize = 2;
/// What is hashed for the blob and for its chunk before the next is looked at: a group of the chunk.
const CACHED_BYTES: usize = GROUP_BYTES as usize;
/// How far ahead of the written front a blob may begin where holes are not free (bytes).
const WINDOW_BYTES: u64 = 64 * 1024 * 1024;
/// A read of our own files.
const READ_BYTES: usize = 1024 * 1024;

const PENDING: u8 = 0;
/// A link whose image is complete; it is written when the archive is sealed.
const ENABLED: u8 = 1;
const COMPLETE: u8 = 2;
/// Being written now.
const BUSY: u8 = 3;
/// Tried and failed; it may be tried again.
const FAILED: u8 = 4;

/// How to write.
pub struct Options {
    /// Largest part in bytes, everything included.
    pub limit: u64,
    /// Refuse blobs that do not fit into a part.
    pub strict: bool,
    /// Remove the archive that lies in the directory before writing, instead of when the new one is sealed.
    pub replace: bool,
    /// Blobs that lie on this machine already, by digest: taken from there instead of being fetched.
    pub salvage: HashMap<Digest, Region>,
}

/// What a finished archive is.
#[derive(Clone, Debug)]
pub struct Sealed {
    /// Names the archive.
    pub identity: Digest,
    /// Content that is missing. Empty: whole.
    pub voids: Vec<Digest>,
    /// Parts and their bytes.
    pub parts: Vec<(PathBuf, u64)>,
}

/// An archive being written.
pub struct Writer {
    volume: Arc<dyn Volume>,
    layout: Layout,
    files: Vec<Arc<dyn PartFile>>,
    by_digest: HashMap<Digest, usize>,
    links: HashMap<String, usize>,
    absent: HashSet<Digest>,
    states: Vec<AtomicU8>,
    chunks: Vec<Mutex<Chunks>>,
    budget: Budget,
    journal: Mutex<Log>,
    /// One flush at a time: the next one must know whether this one lost something.
    flushing: Mutex<()>,
    resumable: Mutex<HashMap<usize, u64>>,
    salvage: HashMap<Digest, Region>,
    /// Manifests that wait for the end, where holes are not free.
    waiting: Option<Mutex<BTreeMap<usize, Bytes>>>,
    front: Option<Front>,
    /// Claims that are held; whoever seals waits until there are none.
    claims: (Mutex<usize>, Condvar),
    /// Told when a claim is given back.
    released: Notify,
    reused_bytes: u64,
    _lock: File,
}

struct Log {
    journal: Option<Journal>,
    lines: String,
    bytes: u64,
    flushed: Instant,
    /// The sync that failed. The system says so once and forgets which bytes it lost: nothing may be promised any more.
    lost: Option<Error>,
}

/// Slots that are being written, by part: where holes are not free, nothing begins far beyond the lowest of them.
struct Front {
    busy: Mutex<Vec<BTreeSet<usize>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A poisoned lock means that another thread panicked between two consistent states; the data is still sound.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Writer {
    fn fail(&self, doing: &str, number: usize, error: &io::Error) -> Error {
        let slot = &self.layout.slots[number];
        let part = self.volume.path().join(partial_name(slot.part));
        let failed = Error::io(format!("{doing} `{}` in {}", slot.path, part.display()), error);
        if failed.kind() == ErrorKind::Full {
            return failed.hint("free space on this disk and run the same command again: it goes on where it stopped");
        }
        failed
    }

    /// Bytes of blobs that an interrupted run had complete already.
    pub fn reused_bytes(&self) -> u64 {
        self.reused_bytes
    }

    /// Whether the directory's file system wants bytes in the order of the plan.
    pub fn is_ordered(&self) -> bool {
        self.front.is_some()
    }

    /// The layout.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    fn state(&self, number: usize) -> u8 {
        self.states[number].load(Ordering::Acquire)
    }

    fn feed(&self, part: usize, offset: u64, bytes: Bytes) {
        lock(&self.chunks[part]).feed(offset, bytes, &self.budget);
    }

    /// Writes a small entry in one go. `true`: it is time to [flush](Self::flush).
    fn write_whole(&self, number: usize, data: &[u8]) -> Result<bool, Error> {
        let slot = &self.layout.slots[number];
        let mut bytes = headers(&slot.path, slot.size);
        bytes.extend_from_slice(data);
        bytes.resize((slot.end() - slot.offset) as usize, 0);
        self.files[slot.part].write_at(&bytes, slot.offset).map_err(|e| self.fail("write", number, &e))?;
        self.feed(slot.part, slot.offset, bytes.into());
        Ok(self.complete(number))
    }

    /// Notes that an entry is written. `true`: it is time to [flush](Self::flush).
    fn complete(&self, number: usize) -> bool {
        self.states[number].store(COMPLETE, Ordering::Release);
        let slot = &self.layout.slots[number];
        if !matches!(slot.kind, Kind::Blob(_)) {
            return false;
        }
        let mut lines = format!("done {number}\n");
        // A chunk's digest holds once everything in it is final.
        for chunk in (slot.offset / CHUNK_BYTES) as usize..slot.end().div_ceil(CHUNK_BYTES) as usize {
            let digest = lock(&self.chunks[slot.part]).get(chunk);
            if let Some(digest) = digest
                && self.entries_of_chunk(slot.part, chunk).all(|n| self.state(n) == COMPLETE)
            {
                lines.push_str(&format!("chunk {} {chunk} {}\n", slot.part + 1, digest.to_hex()));
            }
        }
        self.note(&lines, slot.size)
    }

    /// Queues journal lines until the data they speak of has been synced. `true`: it is time for that.
    fn note(&self, lines: &str, bytes: u64) -> bool {
        let mut log = lock(&self.journal);
        log.lines.push_str(lines);
        log.bytes += bytes;
        log.bytes >= FLUSH_BYTES || log.flushed.elapsed() >= FLUSH_EVERY
    }

    /// Flushes, when it is time for it, on a thread that may wait for the disk.
    async fn flush_aside(self: &Arc<Self>, due: bool) -> Result<(), Error> {
        if !due {
            return Ok(());
        }
        let writer = Arc::clone(self);
        let flushing = tokio::task::spawn_blocking(move || writer.flush());
        flushing.await.map_err(|e| Error::new(ErrorKind::Io, "write the archive", e))?
    }

    /// Says how far a blob is. What it says is hashed again before it is used, so it need not wait for a sync.
    fn hint(&self, number: usize, at: u64) -> Result<(), Error> {
        let mut log = lock(&self.journal);
        log.bytes += JOURNAL_STEP_BYTES;
        let Some(journal) = &mut log.journal else { return Ok(()) };
        journal
            .append(&format!("at {number} {at}\n"), false)
            .map_err(|e| Error::io(format!("write the journal in {}", self.volume.path().display()), &e))
    }

    fn flush(&self) -> Result<(), Error> {
        let _alone = lock(&self.flushing);
        // Take the lines first: what they speak of is written by now, and what comes meanwhile waits for the next flush.
        let lines = {
            let mut log = lock(&self.journal);
            log.bytes = 0;
            log.flushed = Instant::now();
            std::mem::take(&mut log.lines)
        };
        let failed = |e: io::Error| Error::io(format!("sync the archive in {}", self.volume.path().display()), &e);
        for file in &self.files {
            if let Err(error) = file.sync().map_err(failed) {
                lock(&self.journal).lost.get_or_insert(error);
                break;
            }
        }
        let mut log = lock(&self.journal);
        if let Some(error) = &log.lost {
            return Err(error.clone());
        }
        if let Some(journal) = &mut log.journal {
            journal.append(&lines, true).map_err(failed)?;
        }
        Ok(())
    }

    /// Makes everything so far durable; an interrupted run calls it before it ends. Blocks until no thread writes any more.
    pub fn checkpoint(&self) -> Result<(), Error> {
        self.wait_for_claims();
        self.flush()
    }

    /// A future that was dropped (a time-out, an interrupt) may leave its thread behind for a moment.
    fn wait_for_claims(&self) {
        let (count, given_back) = &self.claims;
        let held = lock(count);
        let _none = given_back.wait_while(held, |held| *held > 0).unwrap_or_else(PoisonError::into_inner);
    }

    fn enable(&self, path: &str) {
        if let Some(number) = self.links.get(path) {
            let _ = self.states[*number].compare_exchange(PENDING, ENABLED, Ordering::AcqRel, Ordering::Relaxed);
        }
    }
}
