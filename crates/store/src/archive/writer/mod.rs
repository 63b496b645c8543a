//! Writes an archive: a [`Sink`] that puts every byte straight to the place that the layout gave it.
//!
//! Blobs and manifests come in any order and in parallel; each is hashed on the way and its slot stays a void until it is
//! complete. Links are only noted while images arrive and are written at the end, in one sweep, so that nothing ever points at
//! what is not there. [`Writer::seal`] ends it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use airlock_oci::sink::ManifestName;
use airlock_oci::{Abilities, Content, Descriptor, Digest, Error, ErrorKind, Hasher, Manifest, Repository, Sink, Tag};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::{Notify, mpsc};

mod resume;
mod sealing;

use super::chunks::{Budget, CHUNK_BYTES, Chunks};
use super::journal::{Journal, Recorded};
use super::layout::{
    Contents, Kind, Layout, PART_PATH, TABLE_PATH, lay_out, layer_link, part_text, partial_name, revision_link,
    tag_index_link, tag_link,
};
use super::recovery::{self, lock_directory};
use super::tar::{END_BYTES, headers, padded, void_header};
use super::volume::{PartFile, Volume};
use crate::storage::Region;

/// Bytes of a large blob between two `at` lines of the journal: with what is on its way, a killed run loses less than 16 MiB a connection.
const JOURNAL_STEP_BYTES: u64 = 8 * 1024 * 1024;
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
    /// Lays the archive out and opens its parts: anew, or where an interrupted run of the same plan stopped, or on a partial archive
    /// of the same plan whose voids are to be filled. Blocks.
    pub fn open(volume: Arc<dyn Volume>, contents: &Contents, options: Options) -> Result<Self, Error> {
        let place = volume.path().display().to_string();
        let fail = |doing: &str, e: &io::Error| Error::io(format!("{doing} in {place}"), e);
        let guard = lock_directory(volume.as_ref())?;
        let mut properties = volume.properties().map_err(|e| fail("look at the file system", &e))?;
        let limit = properties.max_file_bytes.map_or(options.limit, |max| max.min(options.limit));
        let layout = lay_out(contents, limit, options.strict, CHUNK_BYTES)?;
        if let (Some(max), Some(blob)) = (properties.max_file_bytes, layout.oversized.first()) {
            return Err(Error::new(
                ErrorKind::Refused,
                format!("place blob `{}` in {place}", blob.digest),
                format!("it has {} bytes, and the file system takes files of at most {max}", blob.size),
            )
            .hint("use a disk with another file system (exFAT, ext4, xfs), or leave the image out"));
        }
        let plan = contents.files.first().map_or_else(|| Digest::of(b""), |(_, bytes)| Digest::of(bytes));
        let (recorded, aside) = recovery::prepare(volume.as_ref(), &layout, &plan)?;
        let mut salvage = options.salvage;
        salvage.extend(aside);
        if recorded.is_none() && options.replace {
            for name in volume.names().map_err(|e| fail("list", &e))? {
                if super::reader::part_number(&name).is_some() {
                    volume.remove(&name).map_err(|e| fail("remove the old archive", &e))?;
                }
            }
        }
        let keep = if recorded.is_some() { layout.lengths.len() } else { 0 };
        recovery::remove_partials_from(volume.as_ref(), keep).map_err(|e| fail("remove left-over parts", &e))?;

        // What there is of the parts counts as room; where it is short, what was set aside goes first.
        let have: u64 = volume
            .names()
            .map_err(|e| fail("list", &e))?
            .iter()
            .filter(|n| n.starts_with(".mirror_"))
            .filter_map(|n| std::fs::metadata(volume.path().join(n)).ok())
            .map(|m| std::os::unix::fs::MetadataExt::blocks(&m) * 512)
            .sum();
        let total: u64 = layout.lengths.iter().map(|l| l + END_BYTES).sum();
        let need = total.saturating_sub(have);
        let previous = volume.path().join(recovery::PREVIOUS_DIRECTORY);
        if need > properties.free_bytes && previous.exists() {
            tracing::warn!("{} is removed to make room: its blobs are fetched again", previous.display());
            salvage.clear();
            std::fs::remove_dir_all(&previous).map_err(|e| fail("make room", &e))?;
            properties = volume.properties().map_err(|e| fail("look at the file system", &e))?;
        }
        if need > properties.free_bytes {
            return Err(Error::new(
                ErrorKind::Full,
                format!("reserve space in {place}"),
                format!("the archive needs {need} more bytes, {} bytes are free", properties.free_bytes),
            )
            .hint("use a larger disk, split the image set into several configurations, or free space and run again"));
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
            front: ordered.then(|| Front { busy: Mutex::new(vec![BTreeSet::new(); layout.lengths.len()]) }),
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
            claims: (Mutex::new(0), Condvar::new()),
            released: Notify::new(),
            reused_bytes: 0,
            _lock: guard,
        };
        writer.begin(contents, &plan, recorded)?;
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

    fn begin(&mut self, contents: &Contents, plan: &Digest, recorded: Option<Recorded>) -> Result<(), Error> {
        let place = self.volume.path().display().to_string();
        let fail = |doing: &str, e: &io::Error| Error::io(format!("{doing} in {place}"), e);
        if self.front.is_none() {
            for (part, file) in self.files.iter().enumerate() {
                let length = self.layout.lengths[part] + END_BYTES;
                match file.reserve(length) {
                    Err(e) if e.kind() != io::ErrorKind::Unsupported => {
                        return Err(
                            fail("reserve space", &e).hint("free space on this disk and run the same command again")
                        );
                    }
                    _ => {}
                }
                file.set_len(length).map_err(|e| fail("set the length of a part", &e))?;
            }
        }
        let log = match recorded {
            None => {
                let (sequence, created) = (self.layout.sequence, &self.layout.created);
                let journal = Journal::begin(self.volume.path(), plan, &self.layout.set, sequence, created);
                if self.front.is_none() {
                    self.write_all_voids()?;
                }
                journal
            }
            // Only what holds is journaled again: whatever was claimed and is not so must not be believed by a later run.
            Some(recorded) => {
                let accepted = self.recover(&recorded)?;
                Journal::go_on(self.volume.path(), &accepted)
            }
        };
        lock(&self.journal).journal = Some(log.map_err(|e| fail("write the journal", &e))?);
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
        Ok(())
    }

    fn write_all_voids(&self) -> Result<(), Error> {
        for (number, slot) in self.layout.slots.iter().enumerate() {
            let void = void_header(&slot.void_name(number), &slot.path, slot.size);
            self.files[slot.part].write_at(&void, slot.offset).map_err(|e| self.fail("begin", number, &e))?;
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

    fn feed(&self, part: usize, offset: u64, bytes: Bytes) {
        lock(&self.chunks[part]).feed(offset, bytes, &self.budget);
    }

    /// Writes a small entry in one go.
    fn write_whole(&self, number: usize, data: &[u8]) -> Result<(), Error> {
        let slot = &self.layout.slots[number];
        let mut bytes = headers(&slot.path, slot.size);
        bytes.extend_from_slice(data);
        bytes.resize((slot.end() - slot.offset) as usize, 0);
        self.files[slot.part].write_at(&bytes, slot.offset).map_err(|e| self.fail("write", number, &e))?;
        self.feed(slot.part, slot.offset, bytes.into());
        self.complete(number)
    }

    fn complete(&self, number: usize) -> Result<(), Error> {
        self.states[number].store(COMPLETE, Ordering::Release);
        let slot = &self.layout.slots[number];
        if !matches!(slot.kind, Kind::Blob(_)) {
            return Ok(());
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

    /// Where holes are not free: waits until no entry far below in the same part is still being written.
    async fn wait_for_front(&self, number: usize) {
        let Some(front) = &self.front else { return };
        let slot = &self.layout.slots[number];
        lock(&front.busy)[slot.part].insert(number);
        loop {
            let released = self.released.notified();
            let lowest = lock(&front.busy)[slot.part].first().copied().unwrap_or(number);
            if slot.offset.saturating_sub(self.layout.slots[lowest].offset) <= WINDOW_BYTES {
                return;
            }
            released.await;
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
        if self.front.is_some() {
            let void = void_header(&slot.void_name(number), &slot.path, slot.size);
            file.write_at(&void, slot.offset).map_err(|e| failed(&e))?;
        }
        if head.len() > 512 {
            file.write_at(&head[512..], slot.offset + 512).map_err(|e| failed(&e))?;
        }
        self.feed(slot.part, slot.offset, Bytes::copy_from_slice(&head));

        let mut hasher = Hasher::new(digest.algorithm());
        let mut at = 0;
        let mut buffer = if from > 0 { vec![0u8; READ_BYTES] } else { Vec::new() };
        while at < from {
            let step = buffer.len().min((from - at) as usize);
            file.read_at(&mut buffer[..step], slot.data_offset() + at).map_err(|e| failed(&e))?;
            hasher.update(&buffer[..step]);
            self.feed(slot.part, slot.data_offset() + at, Bytes::copy_from_slice(&buffer[..step]));
            at += step as u64;
        }
        drop(buffer);
        let mut journaled = at;
        while let Some(batch) = batches.blocking_recv() {
            for piece in batch {
                hasher.update(&piece);
                file.write_at(&piece, slot.data_offset() + at).map_err(|e| failed(&e))?;
                let len = piece.len() as u64;
                self.feed(slot.part, slot.data_offset() + at, piece);
                at += len;
            }
            if at - journaled >= JOURNAL_STEP_BYTES {
                journaled = at;
                self.hint(number, at)?;
            }
        }
        if at != slot.size {
            lock(&self.resumable).insert(number, at);
            self.hint(number, at)?;
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
            self.feed(slot.part, slot.data_offset() + at, Bytes::from_static(&[0u8; 512]).slice(..padding));
        }
        file.write_at(&head[..512], slot.offset).map_err(|e| failed(&e))?;
        self.complete(number)
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

    fn enable(&self, path: &str) {
        if let Some(number) = self.links.get(path) {
            let _ = self.states[*number].compare_exchange(PENDING, ENABLED, Ordering::AcqRel, Ordering::Relaxed);
        }
    }
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
            let released = writer.released.notified();
            match state.load(Ordering::Acquire) {
                COMPLETE => return Ok(()),
                // Whoever had it was dropped, and its thread is about to notice.
                BUSY => released.await,
                now => {
                    if state.compare_exchange(now, BUSY, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                        break;
                    }
                }
            }
        }
        *lock(&writer.claims.0) += 1;
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
        let slot = &writer.layout.slots[self.number];
        if state.load(Ordering::Acquire) == BUSY {
            lock(&writer.chunks[slot.part]).postpone(slot.offset..slot.end(), &writer.budget);
            state.store(FAILED, Ordering::Release);
        }
        if let Some(front) = &writer.front {
            lock(&front.busy)[slot.part].remove(&self.number);
        }
        *lock(&writer.claims.0) -= 1;
        writer.claims.1.notify_all();
        writer.released.notify_waiters();
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
