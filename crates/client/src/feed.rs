//! The bytes of an upload on their way: hashed as they pass, the last ones held back until the digest is known to be right.
//!
//! What has been [proved](Content::is_proved) is not hashed: the registry computes the digest before it completes a blob, and a third
//! time would be most of what a load costs. A registry that finds it wrong is believed: from then on it is hashed here, to tell damage
//! at the source from damage on the way.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use airlock_oci::{Algorithm, BlobStream, Content, Descriptor, Error, ErrorKind, Hasher};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};

/// States of the hash are kept at this distance at least (bytes), so that a resumed upload does not hash from the beginning.
const SNAPSHOT_BYTES: u64 = 16 << 20;
/// At most this many states are kept for a blob.
const MAX_SNAPSHOTS: u64 = 256;
/// What the body and its watcher share.
pub(crate) struct Progress {
    /// Bytes handed to the connection in this attempt.
    sent: AtomicU64,
    /// The body is complete.
    finished: AtomicBool,
    /// The body waits for its source, not for the registry.
    starved: AtomicBool,
    /// Why the body ended early: the source failed, or its bytes are wrong.
    failed: Mutex<Option<Error>>,
    /// The bytes are hashed as they pass.
    hashing: AtomicBool,
    /// States of the hash, by offset, ascending.
    snapshots: Mutex<Vec<(u64, Hasher)>>,
    /// After a chunk: the source, open where the next chunk begins.
    parked: Mutex<Option<Feed>>,
}

/// The bytes of one attempt.
pub(crate) struct Feed {
    stream: BlobStream,
    /// `None`: what remains needs no hash, since it is known to be right.
    hasher: Option<Hasher>,
    /// The blob's bytes so far, taken from the stream.
    taken: u64,
    /// Taken, not yet sent.
    ready: VecDeque<Bytes>,
    blob: Descriptor,
    /// The first byte after this request's body.
    end: u64,
    /// The next byte to send.
    position: u64,
    progress: Arc<Progress>,
    what: String,
}

impl Progress {
    pub(crate) fn new(algorithm: Algorithm, is_proved: bool) -> Self {
        Self {
            hashing: AtomicBool::new(!is_proved),
            sent: AtomicU64::new(0),
            finished: AtomicBool::new(false),
            starved: AtomicBool::new(false),
            failed: Mutex::default(),
            snapshots: Mutex::new(vec![(0, Hasher::new(algorithm))]),
            parked: Mutex::default(),
        }
    }

    /// A new attempt begins.
    pub(crate) fn begin(&self) {
        self.sent.store(0, Ordering::Relaxed);
        self.finished.store(false, Ordering::Relaxed);
    }

    /// Whether the bytes are hashed here.
    pub(crate) fn is_hashing(&self) -> bool {
        self.hashing.load(Ordering::Relaxed)
    }

    /// The registry found the bytes wrong: the next attempt hashes them, whatever was known of them.
    pub(crate) fn doubt(&self) {
        self.hashing.store(true, Ordering::Relaxed);
    }

    /// Bytes handed to the connection in this attempt.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Whether the last byte was handed over.
    pub(crate) fn is_finished(&self) -> bool {
        self.finished.load(Ordering::Relaxed)
    }

    /// Whether the body waits for its source.
    pub(crate) fn is_starved(&self) -> bool {
        self.starved.load(Ordering::Relaxed)
    }

    /// The upload has ended: a source that was put aside for its next chunk is let go.
    pub(crate) fn end(&self) {
        lock(&self.parked).take();
    }

    /// The body cannot be completed.
    pub(crate) fn fail(&self, error: Error) {
        *lock(&self.failed) = Some(error);
    }

    /// Why the body could not be completed.
    pub(crate) fn take_failure(&self) -> Option<Error> {
        lock(&self.failed).take()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Feed {
    /// Opens the content at the beginning of `part` of the blob. What lies before is hashed from the nearest state that was kept.
    pub(crate) async fn open(
        content: &dyn Content,
        blob: &Descriptor,
        progress: &Arc<Progress>,
        part: Range<u64>,
        what: String,
    ) -> Result<Self, Error> {
        let parked = lock(&progress.parked).take();
        if let Some(mut feed) = parked.filter(|feed| feed.position == part.start) {
            feed.end = part.end;
            return Ok(feed);
        }
        let (at, hasher) = if progress.is_hashing() {
            let snapshots = lock(&progress.snapshots);
            let best = snapshots.iter().rev().find(|(at, _)| *at <= part.start);
            let (at, hasher) = best.cloned().unwrap_or_else(|| (0, Hasher::new(blob.digest.algorithm())));
            (at, Some(hasher))
        } else {
            (part.start, None)
        };
        let mut feed = Self {
            stream: content.open(at).await?,
            hasher,
            taken: at,
            ready: VecDeque::new(),
            blob: blob.clone(),
            end: part.end,
            position: part.start,
            progress: Arc::clone(progress),
            what,
        };
        while feed.taken < part.start {
            let Some(mut bytes) = feed.pull().await? else { break };
            if feed.taken > part.start {
                feed.ready.push_back(bytes.split_off(bytes.len() - (feed.taken - part.start) as usize));
            }
        }
        if part.is_empty() {
            // Nothing can be held back of an empty blob.
            feed.verify().await?;
            progress.finished.store(true, Ordering::Relaxed);
        }
        Ok(feed)
    }

    /// As the body of a request.
    pub(crate) fn into_body(self) -> impl Stream<Item = Result<Bytes, std::io::Error>> {
        futures_util::stream::unfold(Some(self), |feed| async {
            let mut feed = feed?;
            match feed.next().await {
                // The connection may never ask for what comes after the announced length: the source is put aside now.
                Ok(Some(bytes)) if feed.position == feed.end => {
                    let progress = Arc::clone(&feed.progress);
                    // At the blob's end nothing is left to send: kept, the source and what shares it would keep each other alive.
                    *lock(&progress.parked) = (feed.position < feed.blob.size).then_some(feed);
                    progress.finished.store(true, Ordering::Relaxed);
                    Some((Ok(bytes), None))
                }
                Ok(Some(bytes)) => Some((Ok(bytes), Some(feed))),
                Ok(None) => None,
                Err(error) => {
                    let text = error.to_string();
                    feed.progress.fail(error);
                    Some((Err(std::io::Error::other(text)), None))
                }
            }
        })
    }

    /// The next bytes from the source, hashed and counted; `None` at the blob's end.
    async fn pull(&mut self) -> Result<Option<Bytes>, Error> {
        self.progress.starved.store(true, Ordering::Relaxed);
        let next = loop {
            match self.stream.next().await {
                Some(Ok(bytes)) if bytes.is_empty() => {}
                other => break other.transpose(),
            }
        };
        self.progress.starved.store(false, Ordering::Relaxed);
        let Some(bytes) = next? else { return Ok(None) };
        if bytes.len() as u64 > self.blob.size.saturating_sub(self.taken) {
            return Err(
                self.wrong(format!("the source gives more than the {} bytes that the manifest names", self.blob.size))
            );
        }
        self.taken += bytes.len() as u64;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&bytes);
            let mut snapshots = lock(&self.progress.snapshots);
            let last = snapshots.last().map_or(0, |(at, _)| *at);
            if self.taken >= last + SNAPSHOT_BYTES.max(self.blob.size / MAX_SNAPSHOTS) {
                snapshots.push((self.taken, hasher.clone()));
            }
        }
        Ok(Some(bytes))
    }

    /// The next bytes of the body. The last ones of the blob come only when all of it is right.
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let room = self.end - self.position;
        if room == 0 {
            return Ok(None);
        }
        loop {
            // A piece may go when something stays behind it, or when everything was found right.
            let first = self.ready.front().map_or(0, |piece| piece.len() as u64);
            if first > 0 && (self.ready.len() > 1 || first > room || self.hasher.is_none()) {
                break;
            }
            if self.taken == self.blob.size {
                self.verify().await?;
                continue;
            }
            let Some(bytes) = self.pull().await? else {
                return Err(self.wrong(format!(
                    "the source ends after {} of the {} bytes that the manifest names",
                    self.taken, self.blob.size
                )));
            };
            self.ready.push_back(bytes);
        }
        let Some(mut out) = self.ready.pop_front() else { return Ok(None) };
        if out.len() as u64 > room {
            self.ready.push_front(out.split_off(room as usize));
        }
        self.position += out.len() as u64;
        self.progress.sent.fetch_add(out.len() as u64, Ordering::Relaxed);
        Ok(Some(out))
    }

    async fn verify(&mut self) -> Result<(), Error> {
        let Some(hasher) = self.hasher.take() else { return Ok(()) };
        if self.stream.next().await.transpose()?.is_some_and(|extra| !extra.is_empty()) {
            return Err(
                self.wrong(format!("the source gives more than the {} bytes that the manifest names", self.blob.size))
            );
        }
        let actual = hasher.finish();
        if actual != self.blob.digest {
            return Err(self.wrong(format!("the bytes have the digest `{actual}`")));
        }
        Ok(())
    }

    fn wrong(&self, cause: String) -> Error {
        Error::new(ErrorKind::Content, self.what.clone(), cause)
            .hint("nothing was completed at the target; the source is damaged, verify or fetch it again")
    }
}
