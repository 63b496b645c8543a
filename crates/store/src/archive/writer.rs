//! Writes an archive: a [`Sink`] that puts every byte straight to the place that the layout gave it.
//!
//! Blobs and manifests come in any order and in parallel; each is hashed on the way and its slot stays a void until it is
//! complete. Links are only noted while images arrive and are written at the end, in one sweep, so that nothing ever points at
//! what is not there. [`Writer::seal`] ends it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use airlock_oci::sink::ManifestName;
use airlock_oci::{Abilities, Content, Descriptor, Digest, Error, ErrorKind, Hasher, Manifest, Repository, Sink, Tag};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::{Notify, mpsc};

use super::chunks::{Budget, CHUNK_BYTES, Chunks};
use super::journal::{Journal, Recorded};
use super::layout::{
    Contents, Kind, Layout, PART_PATH, SEAL_PATH, TABLE_PATH, lay_out, layer_link, part_name, part_text, partial_name,
    revision_link, tag_index_link, tag_link,
};
use super::seal::{Seal, SealedPart};
use super::tar::{END_BYTES, headers, padded, void_header};
use super::volume::{PartFile, Volume};
use crate::storage::Region;

/// Bytes of a large blob between two `at` lines of the journal.
const JOURNAL_STEP_BYTES: u64 = 16 * 1024 * 1024;
/// Data is synced and journaled after so many bytes …
const FLUSH_BYTES: u64 = 64 * 1024 * 1024;
/// … or after this time.
const FLUSH_EVERY: Duration = Duration::from_secs(2);
/// Received pieces are handed to the writing thread in batches of about this size.
const BATCH_BYTES: usize = 256 * 1024;
/// Batches that may wait for the writing thread, per blob.
const BATCHES_WAITING: usize = 2;
/// How far ahead of the written front a blob may begin where holes are not free (bytes).
const WINDOW_BYTES: u64 = 64 * 1024 * 1024;
/// A read of our own files.
const READ_BYTES: usize = 1024 * 1024;
/// Where an interrupted archive of another plan is kept until the new one is sealed.
const PREVIOUS_DIRECTORY: &str = ".airlock-previous";
const LOCK_NAME: &str = ".airlock-lock";

const PENDING: u8 = 0;
/// A link whose image is complete; it is written when the archive is sealed.
const ENABLED: u8 = 1;
const COMPLETE: u8 = 2;
/// Being written now.
const BUSY: u8 = 3;
/// Tried and failed: the front moves on.
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

/// What an interrupted run left.
#[derive(Clone, Debug)]
pub struct Pending {
    /// Digest of the plan it was about.
    pub plan: Digest,
    /// Number it gave its archive.
    pub sequence: u32,
    /// Date it gave its archive.
    pub created: String,
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
    resumable: Mutex<HashMap<usize, u64>>,
    salvage: HashMap<Digest, Region>,
    /// Manifests that wait for the end, where holes are not free.
    waiting: Option<Mutex<BTreeMap<usize, Bytes>>>,
    front: Option<Front>,
    reused_bytes: u64,
    _lock: File,
}

struct Log {
    journal: Option<Journal>,
    lines: String,
    bytes: u64,
    flushed: Instant,
}

/// The lowest slot of each part that is neither complete nor given up.
struct Front {
    lowest: Mutex<Vec<usize>>,
    moved: Notify,
}

/// Tells what an interrupted run in this directory was about, after finishing one that had only names left to change.
pub fn pending(volume: &dyn Volume) -> Result<Option<Pending>, Error> {
    let fail = |e: &io::Error| Error::io(format!("read the journal in {}", volume.path().display()), e);
    let Some(recorded) = Recorded::read(volume.path()).map_err(|e| fail(&e))? else { return Ok(None) };
    if recorded.sealed {
        finish_names(volume).map_err(|e| fail(&e))?;
        return Ok(None);
    }
    Ok(match (recorded.plan, recorded.created) {
        (Some(plan), Some((sequence, created))) => Some(Pending { plan, sequence, created }),
        _ => None,
    })
}

/// Gives sealed parts their names and removes what the archive replaces. Safe to repeat.
fn finish_names(volume: &dyn Volume) -> io::Result<()> {
    let names = volume.names()?;
    let fresh: Vec<&String> =
        names.iter().filter(|n| n.starts_with(".mirror_") && n.ends_with(".tar.partial")).collect();
    let mut parts = 0;
    for name in &fresh {
        let target = &name[1..name.len() - ".partial".len()];
        volume.rename(name, target)?;
    }
    // Count the new archive's parts from its first part, since some may have been renamed by an earlier attempt.
    if let Ok(mut file) = File::open(volume.path().join(part_name(0))) {
        let mut head = [0u8; 1024];
        if io::Read::read_exact(&mut file, &mut head).is_ok()
            && let Some(count) = super::reader::parts_in_header(&head)
        {
            parts = count;
        }
    }
    for name in names.iter().filter(|n| super::reader::part_number(n).is_some_and(|number| parts > 0 && number > parts))
    {
        volume.remove(name)?;
    }
    let _ = std::fs::remove_dir_all(volume.path().join(PREVIOUS_DIRECTORY));
    volume.sync()?;
    volume.remove(super::journal::JOURNAL_NAME)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A poisoned lock means that another thread panicked between two consistent states; the data is still sound.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Writer {
    /// Lays the archive out and opens its parts: anew, or where an interrupted run of the same plan stopped, or on a partial archive
    /// of the same plan whose voids are to be filled. Blocks.
    pub fn open(volume: Arc<dyn Volume>, contents: &Contents, options: Options) -> Result<Self, Error> {
        let place = volume.path().display().to_string();
        let fail = |doing: &str, e: &io::Error| Error::io(format!("{doing} in {place}"), e);
        let guard = lock_directory(volume.as_ref())?;
        pending(volume.as_ref())?;

        let properties = volume.properties().map_err(|e| fail("look at the file system", &e))?;
        let limit = properties.max_file_bytes.map_or(options.limit, |max| max.min(options.limit));
        let layout = lay_out(contents, limit, options.strict, CHUNK_BYTES)?;
        let plan = contents.files.first().map_or_else(|| Digest::of(b""), |(_, bytes)| Digest::of(bytes));

        let mut salvage = options.salvage;
        let mut recorded = Recorded::read(volume.path()).map_err(|e| fail("read the journal", &e))?;
        if recorded.as_ref().is_some_and(|r| r.set.as_ref() != Some(&layout.set)) {
            set_aside(volume.as_ref(), recorded.take(), &mut salvage)
                .map_err(|e| fail("set aside an older run", &e))?;
        }
        if recorded.is_none() {
            recorded = demote_partial(volume.as_ref(), &layout, &plan)?;
        }
        if recorded.is_none() && options.replace {
            for name in volume.names().map_err(|e| fail("list", &e))? {
                if super::reader::part_number(&name).is_some() {
                    volume.remove(&name).map_err(|e| fail("remove the old archive", &e))?;
                }
            }
        }

        let mut files = Vec::new();
        for part in 0..layout.lengths.len() {
            files.push(volume.open(&partial_name(part)).map_err(|e| fail("open a part", &e))?);
        }
        let chunks = layout.lengths.iter().map(|l| Mutex::new(Chunks::new(*l))).collect();
        let mut by_digest = HashMap::new();
        let mut links = HashMap::new();
        for (number, slot) in layout.slots.iter().enumerate() {
            match &slot.kind {
                Kind::Blob(digest) => drop(by_digest.insert(digest.clone(), number)),
                Kind::Link(_) => drop(links.insert(slot.path.clone(), number)),
                Kind::Derived | Kind::File(_) => {}
            }
        }
        let states = layout.slots.iter().map(|_| AtomicU8::new(PENDING)).collect();
        let ordered = !properties.cheap_holes;
        let mut writer = Self {
            absent: contents.absent.iter().map(|a| a.item.digest.clone()).collect(),
            front: ordered.then(|| Front { lowest: Mutex::new(vec![0; layout.lengths.len()]), moved: Notify::new() }),
            waiting: ordered.then(Mutex::default),
            volume,
            layout,
            files,
            by_digest,
            links,
            states,
            chunks,
            budget: Budget::default(),
            journal: Mutex::new(Log { journal: None, lines: String::new(), bytes: 0, flushed: Instant::now() }),
            resumable: Mutex::default(),
            salvage,
            reused_bytes: 0,
            _lock: guard,
        };
        writer.begin(contents, &plan, recorded, properties.free_bytes)?;
        Ok(writer)
    }

    fn fail(&self, doing: &str, number: usize, error: &io::Error) -> Error {
        let slot = &self.layout.slots[number];
        let part = self.volume.path().join(partial_name(slot.part));
        let failed = Error::io(format!("{doing} `{}` in {}", slot.path, part.display()), error);
        if failed.kind() == ErrorKind::Full {
            return failed.hint("free space on this disk and run the same command again: it goes on where it stopped");
        }
        failed
    }

    fn begin(
        &mut self,
        contents: &Contents,
        plan: &Digest,
        recorded: Option<Recorded>,
        free: u64,
    ) -> Result<(), Error> {
        let place = self.volume.path().display().to_string();
        let fail = |doing: &str, e: &io::Error| Error::io(format!("{doing} in {place}"), e);
        let fresh = recorded.is_none();
        let mut have = 0;
        for file in &self.files {
            have += file.len().map_err(|e| fail("look at a part", &e))?;
        }
        let total: u64 = self.layout.lengths.iter().map(|l| l + END_BYTES).sum();
        let ordered = self.front.is_some();
        if fresh || ordered {
            let need = total.saturating_sub(if fresh { 0 } else { have });
            if need > free {
                return Err(self.no_room(need, free));
            }
        }
        if !ordered {
            for (part, file) in self.files.iter().enumerate() {
                let length = self.layout.lengths[part] + END_BYTES;
                match file.reserve(length) {
                    Ok(()) => {}
                    Err(e) if e.kind() == io::ErrorKind::Unsupported => {}
                    Err(e) => {
                        let error = fail("reserve space", &e);
                        if error.kind() == ErrorKind::Full {
                            return Err(self.no_room(total, free));
                        }
                        return Err(error);
                    }
                }
                file.set_len(length).map_err(|e| fail("set the length of a part", &e))?;
            }
        }
        let log = match &recorded {
            None => {
                let (sequence, created) = (self.layout.sequence, &self.layout.created);
                Some(Journal::begin(self.volume.path(), plan, &self.layout.set, sequence, created))
            }
            Some(recorded) => Journal::go_on(self.volume.path(), recorded).transpose(),
        };
        let log = log.transpose().map_err(|e| fail("write the journal", &e))?;
        lock(&self.journal).journal = log;

        match recorded {
            None if !ordered => self.write_all_voids()?,
            None => {}
            Some(recorded) => self.recover(&recorded)?,
        }
        for number in 0..self.layout.slots.len() {
            let slot = &self.layout.slots[number];
            let bytes = match &slot.kind {
                Kind::Derived if slot.path == PART_PATH => {
                    part_text(&self.layout.set, slot.part, self.files.len()).into()
                }
                Kind::Derived if slot.path == TABLE_PATH => self.layout.table.clone(),
                Kind::File(_) => match contents.files.iter().find(|(path, _)| *path == slot.path) {
                    Some((_, bytes)) => bytes.clone(),
                    None => continue,
                },
                _ => continue,
            };
            self.write_whole(number, &bytes)?;
        }
        self.advance_front();
        Ok(())
    }

    fn no_room(&self, need: u64, free: u64) -> Error {
        Error::new(
            ErrorKind::Full,
            format!("reserve space in {}", self.volume.path().display()),
            format!("the archive needs {need} bytes, {free} bytes are free"),
        )
        .hint("use a larger disk, split the image set into several configurations, or free space and run again")
    }

    fn write_all_voids(&self) -> Result<(), Error> {
        for (number, slot) in self.layout.slots.iter().enumerate() {
            let void = void_header(&slot.void_name(number), &slot.path, slot.size);
            self.files[slot.part].write_at(&void, slot.offset).map_err(|e| self.fail("begin", number, &e))?;
        }
        Ok(())
    }

    /// Takes over what an interrupted run has: entries it journaled; others whose header is in place are hashed again.
    fn recover(&mut self, recorded: &Recorded) -> Result<(), Error> {
        let mut reused = 0;
        for number in &recorded.done {
            if let Some(slot) = self.layout.slots.get(*number)
                && matches!(slot.kind, Kind::Blob(_))
            {
                self.states[*number].store(COMPLETE, Ordering::Relaxed);
            }
        }
        for (number, slot) in self.layout.slots.iter().enumerate() {
            let Kind::Blob(digest) = &slot.kind else { continue };
            let file = &self.files[slot.part];
            if file.len().map_err(|e| self.fail("look at", number, &e))? < slot.end() {
                self.states[number].store(PENDING, Ordering::Relaxed);
                continue;
            }
            let mut header = [0u8; 512];
            file.read_at(&mut header, slot.offset).map_err(|e| self.fail("read", number, &e))?;
            let named = header[..] == headers(&slot.path, slot.size)[..512];
            let journaled = self.states[number].load(Ordering::Relaxed) == COMPLETE;
            let complete = named && (journaled || self.holds(number, digest)?);
            self.states[number].store(if complete { COMPLETE } else { PENDING }, Ordering::Relaxed);
            if complete {
                reused += slot.size;
            } else {
                let void = void_header(&slot.void_name(number), &slot.path, slot.size);
                file.write_at(&void, slot.offset).map_err(|e| self.fail("begin", number, &e))?;
            }
        }
        // A journaled chunk counts only if every entry in it was journaled as complete: others are written again.
        let done: HashSet<usize> = recorded.done.iter().copied().collect();
        for (part, chunk, digest) in &recorded.chunks {
            let Some(chunks) = self.chunks.get(*part) else { continue };
            let mut chunks = lock(chunks);
            if *chunk >= chunks.count() {
                continue;
            }
            let range = chunks.range(*chunk);
            let first = self.layout.slots.partition_point(|s| (s.part, s.end()) <= (*part, range.start));
            let settled = self.layout.slots[first..]
                .iter()
                .enumerate()
                .take_while(|(_, s)| s.part == *part && s.offset < range.end)
                .all(|(i, s)| {
                    let number = first + i;
                    done.contains(&number)
                        && matches!(s.kind, Kind::Blob(_))
                        && self.states[number].load(Ordering::Relaxed) == COMPLETE
                });
            if settled {
                chunks.set(*chunk, digest.clone());
            }
        }
        // Any other chunk may hold old bytes, so it is not hashed as a stream: it is read when the archive is sealed.
        for chunks in &self.chunks {
            let mut chunks = lock(chunks);
            for chunk in 0..chunks.count() {
                if chunks.get(chunk).is_none() {
                    let range = chunks.range(chunk);
                    chunks.postpone(range, &self.budget);
                }
            }
        }
        *lock(&self.resumable) = recorded.at.clone();
        self.reused_bytes = reused;
        Ok(())
    }

    /// Whether the bytes on disk are those of the digest.
    fn holds(&self, number: usize, digest: &Digest) -> Result<bool, Error> {
        let slot = &self.layout.slots[number];
        let mut hasher = Hasher::new(digest.algorithm());
        self.hash_prefix(number, slot.size, &mut hasher)?;
        Ok(hasher.finish() == *digest)
    }

    fn hash_prefix(&self, number: usize, len: u64, hasher: &mut Hasher) -> Result<(), Error> {
        let slot = &self.layout.slots[number];
        let mut buffer = vec![0u8; READ_BYTES.min(len as usize)];
        let mut at = 0;
        while at < len {
            let step = buffer.len().min((len - at) as usize);
            self.files[slot.part]
                .read_at(&mut buffer[..step], slot.data_offset() + at)
                .map_err(|e| self.fail("read", number, &e))?;
            hasher.update(&buffer[..step]);
            at += step as u64;
        }
        Ok(())
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

    fn feed(&self, part: usize, offset: u64, bytes: Bytes, log: &mut String) {
        for (chunk, digest) in lock(&self.chunks[part]).feed(offset, bytes, &self.budget) {
            log.push_str(&format!("chunk {} {chunk} {}\n", part + 1, digest.hex()));
        }
    }

    /// Writes a small entry in one go.
    fn write_whole(&self, number: usize, data: &[u8]) -> Result<(), Error> {
        let slot = &self.layout.slots[number];
        let mut bytes = headers(&slot.path, slot.size);
        bytes.extend_from_slice(data);
        bytes.resize((slot.end() - slot.offset) as usize, 0);
        self.files[slot.part].write_at(&bytes, slot.offset).map_err(|e| self.fail("write", number, &e))?;
        let mut lines = String::new();
        self.feed(slot.part, slot.offset, bytes.into(), &mut lines);
        self.complete(number, lines)
    }

    fn complete(&self, number: usize, mut lines: String) -> Result<(), Error> {
        self.states[number].store(COMPLETE, Ordering::Release);
        if matches!(self.layout.slots[number].kind, Kind::Blob(_)) {
            lines.push_str(&format!("done {number}\n"));
        }
        self.note(&lines, self.layout.slots[number].size)?;
        self.advance_front();
        Ok(())
    }

    /// Queues journal lines until the data they speak of has been synced.
    fn note(&self, lines: &str, bytes: u64) -> Result<(), Error> {
        let due = {
            let mut log = lock(&self.journal);
            log.lines.push_str(lines);
            log.bytes += bytes;
            log.bytes >= FLUSH_BYTES || log.flushed.elapsed() >= FLUSH_EVERY
        };
        if due { self.flush() } else { Ok(()) }
    }

    fn flush(&self) -> Result<(), Error> {
        // Take the lines first: what they speak of is written by now, and what comes meanwhile waits for the next flush.
        let lines = {
            let mut log = lock(&self.journal);
            log.bytes = 0;
            log.flushed = Instant::now();
            std::mem::take(&mut log.lines)
        };
        let failed = |e: io::Error| Error::io(format!("sync the archive in {}", self.volume.path().display()), &e);
        for file in &self.files {
            file.sync().map_err(failed)?;
        }
        let mut log = lock(&self.journal);
        if let Some(journal) = &mut log.journal {
            journal.append(&lines, true).map_err(failed)?;
        }
        Ok(())
    }

    /// Makes everything so far durable; an interrupted run calls it before it ends.
    pub fn checkpoint(&self) -> Result<(), Error> {
        self.flush()
    }

    fn advance_front(&self) {
        let Some(front) = &self.front else { return };
        let mut lowest = lock(&front.lowest);
        for (part, number) in lowest.iter_mut().enumerate() {
            *number = (*number).max(self.layout.slots.partition_point(|s| s.part < part));
            while self.layout.slots.get(*number).is_some_and(|s| s.part == part)
                && matches!(self.state(*number), COMPLETE | FAILED)
            {
                *number += 1;
            }
        }
        drop(lowest);
        front.moved.notify_waiters();
    }

    /// Where holes are not free: waits until the slot is near the front of its part.
    async fn wait_for_front(&self, number: usize) {
        let Some(front) = &self.front else { return };
        let slot = &self.layout.slots[number];
        loop {
            let moved = front.moved.notified();
            let lowest = lock(&front.lowest)[slot.part];
            let written = self.layout.slots.get(lowest).filter(|s| s.part == slot.part).map_or(u64::MAX, |s| s.offset);
            if lowest >= number || slot.offset.saturating_sub(written) <= WINDOW_BYTES {
                return;
            }
            moved.await;
        }
    }

    /// Runs on a blocking thread: writes what arrives, hashing it for the blob and for the chunks.
    fn receive(
        &self,
        number: usize,
        digest: &Digest,
        from: u64,
        batches: &mut mpsc::Receiver<Vec<Bytes>>,
    ) -> Result<(), Error> {
        let slot = &self.layout.slots[number];
        let file = &self.files[slot.part];
        let head = headers(&slot.path, slot.size);
        let failed = |e: &io::Error| self.fail("write", number, e);
        let mut lines = String::new();
        if self.front.is_some() {
            let void = void_header(&slot.void_name(number), &slot.path, slot.size);
            file.write_at(&void, slot.offset).map_err(|e| failed(&e))?;
        }
        if head.len() > 512 {
            file.write_at(&head[512..], slot.offset + 512).map_err(|e| failed(&e))?;
        }
        self.feed(slot.part, slot.offset, Bytes::copy_from_slice(&head), &mut lines);

        let mut hasher = Hasher::new(digest.algorithm());
        let mut at = 0;
        let mut buffer = if from > 0 { vec![0u8; READ_BYTES] } else { Vec::new() };
        while at < from {
            let step = buffer.len().min((from - at) as usize);
            file.read_at(&mut buffer[..step], slot.data_offset() + at).map_err(|e| failed(&e))?;
            hasher.update(&buffer[..step]);
            self.feed(slot.part, slot.data_offset() + at, Bytes::copy_from_slice(&buffer[..step]), &mut lines);
            at += step as u64;
        }
        drop(buffer);
        let mut journaled = at;
        while let Some(batch) = batches.blocking_recv() {
            for piece in batch {
                hasher.update(&piece);
                file.write_at(&piece, slot.data_offset() + at).map_err(|e| failed(&e))?;
                let len = piece.len() as u64;
                self.feed(slot.part, slot.data_offset() + at, piece, &mut lines);
                at += len;
            }
            if at - journaled >= JOURNAL_STEP_BYTES {
                journaled = at;
                self.note(&format!("{}at {number} {at}\n", std::mem::take(&mut lines)), JOURNAL_STEP_BYTES)?;
            }
        }
        if at != slot.size {
            lock(&self.resumable).insert(number, at);
            self.note(&format!("at {number} {at}\n"), 0)?;
            return Err(Error::new(
                ErrorKind::Content,
                format!("receive blob `{digest}`"),
                format!("{at} bytes came instead of {}", slot.size),
            ));
        }
        let actual = hasher.finish();
        if actual != *digest {
            return Err(Error::new(
                ErrorKind::Content,
                format!("receive blob `{digest}`"),
                format!("the bytes have the digest `{actual}`"),
            ));
        }
        let padding = (padded(slot.size) - slot.size) as usize;
        if padding > 0 {
            file.write_at(&[0u8; 512][..padding], slot.data_offset() + at).map_err(|e| failed(&e))?;
            self.feed(slot.part, slot.data_offset() + at, Bytes::from_static(&[0u8; 512]).slice(..padding), &mut lines);
        }
        file.write_at(&head[..512], slot.offset).map_err(|e| failed(&e))?;
        self.complete(number, lines)
    }

    async fn fetch(
        &self,
        claim: &Arc<Claim>,
        blob: &Descriptor,
        content: &dyn Content,
        from: u64,
    ) -> Result<(), Error> {
        let (sender, mut batches) = mpsc::channel::<Vec<Bytes>>(BATCHES_WAITING);
        let (held, digest, number) = (Arc::clone(claim), blob.digest.clone(), claim.number);
        let writing =
            tokio::task::spawn_blocking(move || held.writer.receive(held.number, &digest, from, &mut batches));
        let mut failure = None;
        match content.open(from).await {
            Err(error) => failure = Some(error),
            Ok(mut stream) => {
                let mut left = blob.size - from;
                let mut batch = Vec::new();
                let mut batched = 0;
                while let Some(item) = stream.next().await {
                    match item {
                        Err(error) => {
                            failure = Some(error);
                            break;
                        }
                        Ok(piece) if piece.len() as u64 > left => {
                            failure = Some(Error::new(
                                ErrorKind::Content,
                                format!("receive blob `{}`", blob.digest),
                                format!("more than the promised {} bytes came", blob.size),
                            ));
                            break;
                        }
                        Ok(piece) => {
                            left -= piece.len() as u64;
                            batched += piece.len();
                            batch.push(piece);
                        }
                    }
                    if batched >= BATCH_BYTES {
                        batched = 0;
                        if sender.send(std::mem::take(&mut batch)).await.is_err() {
                            break;
                        }
                    }
                }
                if !batch.is_empty() {
                    let _ = sender.send(batch).await;
                }
            }
        }
        drop(sender);
        let written = writing.await.map_err(|e| Error::new(ErrorKind::Io, "write the archive", e))?;
        match (failure, written) {
            // The source's failure explains why too little was written.
            (Some(error), Err(written)) if written.kind() == ErrorKind::Content => Err(error),
            (_, Err(written)) => Err(written),
            (Some(error), Ok(())) if self.state(number) != COMPLETE => Err(error),
            (_, Ok(())) => Ok(()),
        }
    }

    /// Copies a blob that lies on this machine.
    async fn salvage(&self, claim: &Arc<Claim>, blob: &Descriptor, region: Region) -> Result<(), Error> {
        struct Local(Region);

        #[async_trait]
        impl Content for Local {
            async fn open(&self, offset: u64) -> Result<airlock_oci::BlobStream, Error> {
                Ok(self.0.stream(offset, u64::MAX, "read a blob of an older archive"))
            }
        }
        self.fetch(claim, blob, &Local(region), 0).await
    }

    async fn write(&self, claim: &Arc<Claim>, blob: &Descriptor, content: &dyn Content) -> Result<(), Error> {
        let number = claim.number;
        let slot = &self.layout.slots[number];
        if blob.size != slot.size {
            return Err(Error::new(
                ErrorKind::Content,
                format!("write blob `{}`", blob.digest),
                format!("it is planned with {} bytes, now it has {}", slot.size, blob.size),
            ));
        }
        self.wait_for_front(number).await;
        if let Some(region) = self.salvage.get(&blob.digest)
            && self.salvage(claim, blob, region.clone()).await.is_ok()
        {
            return Ok(());
        }
        let from = lock(&self.resumable).remove(&number).unwrap_or(0).min(slot.size);
        match self.fetch(claim, blob, content, from).await {
            // What lay on the disk from before may be what is wrong: once more from the beginning.
            Err(error) if error.kind() == ErrorKind::Content && from > 0 => {
                lock(&self.resumable).remove(&number);
                self.fetch(claim, blob, content, 0).await
            }
            other => other,
        }
    }

    /// Writes the links of everything that is complete, the chunk digests and the seal, and gives the parts their names.
    ///
    /// With `partial` false an archive with voids is not sealed: the error is [`ErrorKind::Invalid`], and the journal stays for
    /// the next run. Blocks.
    pub fn seal(&self, partial: bool) -> Result<Sealed, Error> {
        let failed = |doing: &str, e: &io::Error| Error::io(format!("{doing} in {}", self.volume.path().display()), e);
        if let Some(waiting) = &self.waiting {
            for (number, bytes) in std::mem::take(&mut *lock(waiting)) {
                self.write_whole(number, &bytes)?;
            }
        }
        self.write_links()?;
        self.flush()?;

        let voids: Vec<usize> = (0..self.states.len()).filter(|n| self.state(*n) != COMPLETE).collect();
        let missing: Vec<Digest> = voids
            .iter()
            .filter_map(|n| match &self.layout.slots[*n].kind {
                Kind::Blob(digest) => Some(digest.clone()),
                _ => None,
            })
            .collect();
        if !voids.is_empty() && !partial {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("seal the archive in {}", self.volume.path().display()),
                format!("{} of its blobs and manifests are missing", missing.len()),
            )
            .hint("run the same command again: it fetches only what is missing"));
        }
        if self.front.is_some() {
            for number in &voids {
                let slot = &self.layout.slots[*number];
                let void = void_header(&slot.void_name(*number), &slot.path, slot.size);
                self.files[slot.part].write_at(&void, slot.offset).map_err(|e| self.fail("void", *number, &e))?;
            }
        }

        for (part, file) in self.files.iter().enumerate() {
            let length = self.layout.lengths[part];
            file.set_len(length).map_err(|e| failed("end a part", &e))?;
        }
        for number in &voids {
            let slot = &self.layout.slots[*number];
            lock(&self.chunks[slot.part]).postpone(slot.offset..slot.end(), &self.budget);
        }
        let mut parts = Vec::new();
        for (part, file) in self.files.iter().enumerate() {
            let mut chunks = lock(&self.chunks[part]);
            let mut digests = Vec::with_capacity(chunks.count());
            let mut buffer = Vec::new();
            for chunk in 0..chunks.count() {
                if let Some(digest) = chunks.get(chunk) {
                    digests.push(digest.clone());
                    continue;
                }
                let range = chunks.range(chunk);
                buffer.resize((range.end - range.start) as usize, 0);
                file.read_at(&mut buffer, range.start).map_err(|e| failed("read back a part", &e))?;
                let digest = Digest::of(&buffer);
                chunks.set(chunk, digest.clone());
                digests.push(digest);
            }
            parts.push(SealedPart { length: self.layout.lengths[part], chunks: digests });
        }
        let seal = Seal {
            set: self.layout.set.clone(),
            sequence: self.layout.sequence,
            created: self.layout.created.clone(),
            voids,
            parts,
        };
        let (text, identity) = seal.write();
        let last = self.files.len() - 1;
        let mut ends: Vec<Vec<u8>> = vec![vec![0; END_BYTES as usize]; self.files.len()];
        let mut entry = headers(SEAL_PATH, text.len() as u64);
        entry.extend_from_slice(text.as_bytes());
        entry.resize(padded(entry.len() as u64) as usize, 0);
        entry.extend_from_slice(&ends[last]);
        ends[last] = entry;
        let mut named = Vec::new();
        for (part, file) in self.files.iter().enumerate() {
            file.write_at(&ends[part], self.layout.lengths[part]).map_err(|e| failed("end a part", &e))?;
            file.sync().map_err(|e| failed("sync a part", &e))?;
            let bytes = self.layout.lengths[part] + ends[part].len() as u64;
            named.push((self.volume.path().join(part_name(part)), bytes));
        }
        let mut log = lock(&self.journal);
        if let Some(mut journal) = log.journal.take() {
            journal.append("sealed\n", true).map_err(|e| failed("write the journal", &e))?;
        }
        finish_names(self.volume.as_ref()).map_err(|e| failed("name the parts", &e))?;
        Ok(Sealed { identity, voids: missing, parts: named })
    }

    fn write_links(&self) -> Result<(), Error> {
        let mut run: Vec<u8> = Vec::new();
        let mut run_at = (0, 0);
        let mut lines = String::new();
        let mut written = Vec::new();
        for (number, slot) in self.layout.slots.iter().enumerate() {
            let Kind::Link(digest) = &slot.kind else { continue };
            if self.state(number) != ENABLED {
                if self.front.is_some() && self.state(number) != COMPLETE {
                    // Nothing was written here before: the void goes with the rest, in order.
                    let void = void_header(&slot.void_name(number), &slot.path, slot.size);
                    self.files[slot.part].write_at(&void, slot.offset).map_err(|e| self.fail("void", number, &e))?;
                }
                continue;
            }
            let follows = run_at.0 == slot.part && run_at.1 + run.len() as u64 == slot.offset;
            if !run.is_empty() && (!follows || run.len() >= READ_BYTES) {
                self.write_run(run_at, &mut run, &mut lines, number)?;
            }
            if run.is_empty() {
                run_at = (slot.part, slot.offset);
            }
            run.extend_from_slice(&headers(&slot.path, slot.size));
            run.extend_from_slice(digest.to_string().as_bytes());
            run.resize((slot.end() - run_at.1) as usize, 0);
            written.push(number);
        }
        if let Some(last) = written.last() {
            self.write_run(run_at, &mut run, &mut lines, *last)?;
        }
        for number in written {
            self.states[number].store(COMPLETE, Ordering::Release);
        }
        self.note(&lines, 0)
    }

    fn write_run(&self, at: (usize, u64), run: &mut Vec<u8>, lines: &mut String, number: usize) -> Result<(), Error> {
        let bytes = Bytes::from(std::mem::take(run));
        self.files[at.0].write_at(&bytes, at.1).map_err(|e| self.fail("write", number, &e))?;
        self.feed(at.0, at.1, bytes, lines);
        Ok(())
    }

    fn enable(&self, path: &str) {
        if let Some(number) = self.links.get(path) {
            let _ = self.states[*number].compare_exchange(PENDING, ENABLED, Ordering::AcqRel, Ordering::Relaxed);
        }
    }
}

fn lock_directory(volume: &dyn Volume) -> Result<File, Error> {
    let path = volume.path().join(LOCK_NAME);
    let what = || format!("lock {}", volume.path().display());
    let file = File::create(&path).map_err(|e| Error::io(what(), &e))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => {
            Err(Error::new(ErrorKind::Locked, what(), "another run of airlock is writing into this directory")
                .hint("wait until it has ended, or write to another directory"))
        }
        // A file system without locks (some network mounts): go on without.
        Err(std::fs::TryLockError::Error(_)) => Ok(file),
    }
}

/// Moves an interrupted archive of another plan out of the way and remembers where its complete blobs lie.
fn set_aside(volume: &dyn Volume, recorded: Option<Recorded>, salvage: &mut HashMap<Digest, Region>) -> io::Result<()> {
    let aside = volume.path().join(PREVIOUS_DIRECTORY);
    // What an even earlier run left there is given up.
    let _ = std::fs::remove_dir_all(&aside);
    std::fs::create_dir_all(&aside)?;
    for name in volume.names()? {
        if name.starts_with(".mirror_") && name.ends_with(".tar.partial") {
            std::fs::rename(volume.path().join(&name), aside.join(&name))?;
        }
    }
    volume.remove(super::journal::JOURNAL_NAME)?;
    if let Some(recorded) = recorded
        && let Ok(blobs) = super::reader::complete_blobs(&aside, &recorded.done)
    {
        salvage.extend(blobs);
    }
    Ok(())
}

/// If the directory holds a sealed but partial archive of exactly this layout, turns it back into one that is being written.
fn demote_partial(volume: &dyn Volume, layout: &Layout, plan: &Digest) -> Result<Option<Recorded>, Error> {
    let Ok(archive) = super::reader::Archive::open(volume.path()) else { return Ok(None) };
    if archive.set() != &layout.set || archive.voids().is_empty() {
        return Ok(None);
    }
    let voids: HashSet<usize> = archive.voids().iter().copied().collect();
    let chunks = archive.seal().parts.iter().enumerate().flat_map(|(part, sealed)| {
        sealed.chunks.iter().enumerate().map(move |(chunk, digest)| (part, chunk, digest.clone()))
    });
    let recorded = Recorded {
        plan: Some(plan.clone()),
        set: Some(layout.set.clone()),
        created: Some((layout.sequence, layout.created.clone())),
        done: (0..layout.slots.len())
            .filter(|n| !voids.contains(n) && matches!(layout.slots[*n].kind, Kind::Blob(_)))
            .collect(),
        chunks: chunks.collect(),
        ..Recorded::default()
    };
    drop(archive);
    let failed = |e: io::Error| Error::io(format!("open the partial archive in {}", volume.path().display()), &e);
    drop(Journal::go_on(volume.path(), &recorded).map_err(failed)?);
    for part in 0..layout.lengths.len() {
        volume.rename(&part_name(part), &partial_name(part)).map_err(failed)?;
    }
    volume.sync().map_err(failed)?;
    Ok(Some(recorded))
}

/// The writer as a [`Sink`].
#[derive(Clone)]
pub struct ArchiveSink(pub Arc<Writer>);

#[async_trait]
impl Sink for ArchiveSink {
    fn describe(&self) -> String {
        format!("file://{}", self.0.volume.path().display())
    }

    fn abilities(&self) -> Abilities {
        Abilities { mount: true, sparse_index: Some(true), referrers: false, delete: false }
    }

    async fn head_manifest(&self, _repository: &Repository, _at: &ManifestName) -> Result<Option<Digest>, Error> {
        // Links are written only at the end, so that every run puts every manifest: that costs no bytes.
        Ok(None)
    }

    async fn has_blob(&self, _repository: &Repository, blob: &Descriptor) -> Result<bool, Error> {
        let writer = &self.0;
        Ok(match writer.by_digest.get(&blob.digest) {
            Some(number) => writer.state(*number) == COMPLETE,
            None => writer.absent.contains(&blob.digest),
        })
    }

    async fn mount_blob(&self, repository: &Repository, blob: &Descriptor, _from: &Repository) -> Result<bool, Error> {
        self.has_blob(repository, blob).await
    }

    async fn write_blob(
        &self,
        _repository: &Repository,
        blob: &Descriptor,
        content: &dyn Content,
    ) -> Result<(), Error> {
        let writer = &self.0;
        let Some(number) = writer.by_digest.get(&blob.digest).copied() else {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("write blob `{}`", blob.digest),
                "it is not in the plan of this archive",
            ));
        };
        let state = &writer.states[number];
        loop {
            match state.load(Ordering::Acquire) {
                COMPLETE => return Ok(()),
                BUSY => {
                    return Err(Error::new(
                        ErrorKind::Invalid,
                        format!("write blob `{}`", blob.digest),
                        "it is being written already",
                    ));
                }
                now => {
                    if state.compare_exchange(now, BUSY, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                        break;
                    }
                }
            }
        }
        let claim = Arc::new(Claim { writer: Arc::clone(writer), number });
        writer.write(&claim, blob, content).await
    }

    async fn put_manifest(&self, repository: &Repository, manifest: &Manifest, tag: Option<&Tag>) -> Result<(), Error> {
        let writer = &self.0;
        let digest = manifest.digest();
        if let Some(number) = writer.by_digest.get(digest).copied()
            && writer.state(number) != COMPLETE
        {
            if let Some(waiting) = &writer.waiting {
                lock(waiting).insert(number, manifest.bytes().clone());
            } else {
                writer.write_whole(number, manifest.bytes())?;
            }
        }
        writer.enable(&revision_link(repository, digest));
        for blob in manifest.blobs() {
            // A foreign layer that was not carried has no link in the layout.
            writer.enable(&layer_link(repository, &blob.digest));
        }
        if let Some(tag) = tag {
            writer.enable(&tag_index_link(repository, tag, digest));
            writer.enable(&tag_link(repository, tag));
        }
        Ok(())
    }

    async fn delete_manifest(&self, _repository: &Repository, at: &ManifestName) -> Result<(), Error> {
        Err(Error::new(ErrorKind::Refused, format!("delete `{at}`"), "an archive is written once"))
    }
}

/// Holds a slot busy until the last of the task and the thread that write it is gone. Dropped in the middle (a time-out, an interrupt), the
/// slot counts as failed and may be tried again.
struct Claim {
    writer: Arc<Writer>,
    number: usize,
}

impl Drop for Claim {
    fn drop(&mut self) {
        let writer = &self.writer;
        let state = &writer.states[self.number];
        if state.load(Ordering::Acquire) != BUSY {
            return;
        }
        let slot = &writer.layout.slots[self.number];
        lock(&writer.chunks[slot.part]).postpone(slot.offset..slot.end(), &writer.budget);
        state.store(FAILED, Ordering::Release);
        writer.advance_front();
    }
}

/// The parts of an archive that is being written in `directory`, for messages.
pub fn partial_parts(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let mut parts: Vec<PathBuf> = entries
        .filter_map(|e| Some(e.ok()?.path()))
        .filter(|p| p.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.starts_with(".mirror_")))
        .collect();
    parts.sort();
    parts
}
