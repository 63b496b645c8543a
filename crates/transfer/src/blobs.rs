//! Gets a blob into a repository of the sink: there already, mounted, or written; each digest by one task at a time.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use airlock_oci::{
    BlobStream, Content, Descriptor, Digest, Error, ErrorKind, Place, Reference, Repository, Sink, Source,
};
use async_trait::async_trait;
use futures_util::StreamExt;

use crate::{Event, Events, Job};

/// What is known of blobs during a run.
pub(crate) struct Blobs {
    source: Arc<dyn Source>,
    sink: Arc<dyn Sink>,
    events: Events,
    /// One lock a digest: whoever holds it looks, mounts or writes.
    claims: Mutex<HashMap<Digest, Arc<tokio::sync::Mutex<()>>>>,
    /// A repository of the sink that has the blob.
    at: Mutex<HashMap<Digest, Repository>>,
    ensured: Mutex<HashSet<(Repository, Digest)>>,
    /// What a source could not give is not asked for again by the next image that shares it.
    failed: Mutex<HashMap<(String, Digest), Error>>,
    counted: Mutex<HashSet<Digest>>,
}

/// A blob of the source, counting what passes for the first time.
struct Pull {
    source: Arc<dyn Source>,
    name: Reference,
    near: Option<Place>,
    blob: Descriptor,
    events: Events,
    /// How far the blob has been counted.
    mark: Arc<AtomicU64>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Blobs {
    pub(crate) fn new(
        source: Arc<dyn Source>,
        sink: Arc<dyn Sink>,
        events: Events,
        held: HashMap<Digest, Repository>,
    ) -> Self {
        Self {
            source,
            sink,
            events,
            claims: Mutex::default(),
            at: Mutex::new(held),
            ensured: Mutex::default(),
            failed: Mutex::default(),
            counted: Mutex::default(),
        }
    }

    /// Holds a digest for one task: for a blob while it is brought in, for a manifest while it is put and tagged.
    pub(crate) fn claim(&self, digest: &Digest) -> Arc<tokio::sync::Mutex<()>> {
        Arc::clone(lock(&self.claims).entry(digest.clone()).or_default())
    }

    /// Makes the blob available in the job's repository.
    pub(crate) async fn ensure(&self, job: &Job, blob: &Descriptor) -> Result<(), Error> {
        let key = (job.repository.clone(), blob.digest.clone());
        if lock(&self.ensured).contains(&key) {
            return Ok(());
        }
        let claim = self.claim(&blob.digest);
        let _held = claim.lock().await;
        if lock(&self.ensured).contains(&key) {
            return Ok(());
        }
        let elsewhere = lock(&self.at).get(&blob.digest).cloned();
        let mounted = match elsewhere {
            Some(from) if self.sink.abilities().mount => self.sink.mount_blob(&job.repository, blob, &from).await?,
            _ => false,
        };
        if mounted || self.sink.offer_blob(&job.repository, blob).await? {
            if lock(&self.counted).insert(blob.digest.clone()) {
                (self.events)(Event::Reused { digest: blob.digest.clone(), bytes: blob.size });
            }
        } else {
            self.write(job, blob).await?;
        }
        lock(&self.at).entry(blob.digest.clone()).or_insert_with(|| job.repository.clone());
        lock(&self.ensured).insert(key);
        Ok(())
    }

    async fn write(&self, job: &Job, blob: &Descriptor) -> Result<(), Error> {
        let origin = (job.source.name(), blob.digest.clone());
        if let Some(error) = lock(&self.failed).get(&origin) {
            return Err(error.clone());
        }
        let fresh = lock(&self.counted).insert(blob.digest.clone());
        let mark = Arc::new(AtomicU64::new(if fresh { 0 } else { blob.size }));
        let pull = Pull {
            source: Arc::clone(&self.source),
            name: job.source.clone(),
            near: job.near.clone(),
            blob: blob.clone(),
            events: Arc::clone(&self.events),
            mark: Arc::clone(&mark),
        };
        let written = self.sink.write_blob(&job.repository, blob, &pull).await;
        if let Err(mut error) = written {
            // What looks at the bytes knows neither which image they are of, nor who gave them.
            if error.kind() == ErrorKind::Content && !error.what().contains(&job.source.name()) {
                let from = job.near.as_ref().filter(|near| near.0 != job.source.name());
                let from = from.map_or_else(String::new, |near| format!(" from `{near}`"));
                error = error.context(format!("copy blob `{}` of `{}`{from}", blob.digest, job.source.name()));
            }
            lock(&self.counted).remove(&blob.digest);
            // Only what will not be otherwise in a minute is remembered for the next image that shares the blob.
            let lasting = matches!(
                error.kind(),
                ErrorKind::NotFound | ErrorKind::Unauthorized | ErrorKind::Denied | ErrorKind::Content
            );
            if lasting {
                lock(&self.failed).insert(origin, error.clone());
            }
            return Err(error);
        }
        // What the sink did not ask the source for, it had: told now, so that sums come out.
        let told = mark.swap(blob.size, Ordering::Relaxed);
        if told < blob.size {
            (self.events)(Event::Reused { digest: blob.digest.clone(), bytes: blob.size - told });
        }
        (self.events)(Event::Written { digest: blob.digest.clone(), bytes: blob.size });
        Ok(())
    }
}

/// A disk that the source reads from is no concern of the sink's disk: such a failure is one of this content.
fn of_the_source(error: Error) -> Error {
    match error.kind() {
        ErrorKind::Io | ErrorKind::Full => error.with_kind(ErrorKind::Damaged),
        _ => error,
    }
}

#[async_trait]
impl Content for Pull {
    fn is_proved(&self) -> bool {
        self.source.is_proved(&self.name, &self.blob)
    }

    async fn open(&self, offset: u64) -> Result<BlobStream, Error> {
        let stream =
            self.source.blob(&self.name, &self.blob, offset, self.near.as_ref()).await.map_err(of_the_source)?;
        let (mark, events, mut at) = (Arc::clone(&self.mark), Arc::clone(&self.events), offset);
        // A prefix that the sink kept from an interrupted run did not pass here.
        let before = mark.fetch_max(offset, Ordering::Relaxed);
        if offset > before {
            events(Event::Reused { digest: self.blob.digest.clone(), bytes: offset - before });
        }
        let stream = stream.map(|item| item.map_err(of_the_source));
        Ok(Box::pin(stream.inspect(move |item| {
            if let Ok(bytes) = item {
                at += bytes.len() as u64;
                let before = mark.fetch_max(at, Ordering::Relaxed);
                if at > before {
                    events(Event::Moved { bytes: at - before });
                }
            }
        })))
    }
}
