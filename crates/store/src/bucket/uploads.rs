//! Uploads: bytes that arrive in pieces, over several connections and through several processes, until a digest gives them a name.
//!
//! Bytes are gathered into parts of [`PART_BYTES`]; a full one is sent to the store while the next one is filled, and when the store has
//! it the session is saved, so that a process which dies costs at most two parts. What does not fill a part at the end of a request is
//! saved with the session, before the request is acknowledged. No process keeps a session between two requests, and none reads those
//! bytes before there is something to do with them, and memory for it.
//!
//! When the name comes and the digest is right, a blob of less than a part is written in place. A larger one was sent to a place of its
//! own, since its name was not known: its parts are joined there and the store copies it. Where the name is known from the beginning
//! ([`Bucket::named_upload`]) it goes to its place at once, and becomes visible only when its parts are joined.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use airlock_oci::{Algorithm, BlobStream, Digest, Error, ErrorKind, Repository};
use bytes::{Bytes, BytesMut};
use futures_util::{FutureExt, Stream, StreamExt, TryStreamExt};
use object_store::path::Path;
use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit};
use tokio::task::JoinHandle;

use super::hash::Running;
use super::keys::Link;
use super::session::{Session, gone};
use super::{Bucket, lock};
use crate::distribution::{UploadId, UploadStatus};

/// Bytes of a part. S3 takes parts of 5 MiB and more, and ten thousand of them: 78 GiB.
pub const PART_BYTES: usize = 8 * 1024 * 1024;
/// Parts of one object at most.
const MAX_PARTS: usize = 10_000;
/// Bytes of a blob at most.
pub const MAX_BLOB_BYTES: u64 = MAX_PARTS as u64 * PART_BYTES as u64;
/// How long an upload waits until its bytes can be received.
const RECEIVING_WAIT: Duration = Duration::from_secs(120);
/// How long a request waits for another one at the same process that holds the same session.
const BUSY_WAIT: Duration = Duration::from_secs(10);
/// Parts under way at once when a blob is too large for the store to copy it.
const MOVED_AT_ONCE: usize = 3;

/// The hold of an upload.
pub struct Upload {
    bucket: Bucket,
    id: UploadId,
    /// `None` once it was given up or finished.
    session: Option<Session>,
    /// The name, where it is known from the beginning; such an upload has no session in the bucket.
    name: Option<Digest>,
    /// A part on its way: its name, and the version of the session that was saved with it.
    sending: Option<JoinHandle<Result<(String, Option<String>), Error>>>,
    /// There is more than the bucket knows.
    unsaved: bool,
    /// It was dropped, and this is what saves it.
    is_dropped: bool,
    _hold: Option<OwnedMutexGuard<()>>,
    holding: Option<Holding>,
    /// For the bytes in memory.
    permit: Option<OwnedSemaphorePermit>,
}

/// Says again and again that a request is at an upload, so that it does not expire. Ends when it is dropped.
struct Holding {
    task: JoinHandle<()>,
    said: Arc<AtomicBool>,
}

impl Holding {
    fn new(bucket: &Bucket, id: &UploadId) -> Self {
        let (bucket, key, said) = (bucket.clone(), bucket.keys().held(id), Arc::new(AtomicBool::new(false)));
        let told = said.clone();
        let task = tokio::spawn(async move {
            loop {
                tokio::time::sleep(bucket.0.held_renewal).await;
                told.store(true, Ordering::Relaxed);
                if let Err(e) = bucket.objects().put(&key, Bytes::new()).await {
                    tracing::debug!(error = %e, "nobody was told that an upload is held");
                }
            }
        });
        Self { task, said }
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Bucket {
    /// Begins a session.
    pub async fn begin_upload(&self, repository: &Repository, algorithm: Algorithm) -> Result<UploadId, Error> {
        let id = UploadId::random()?;
        self.create_session(&id, &Session::new(repository, algorithm)).await?;
        Ok(id)
    }

    /// An upload of a blob whose name is known. Nobody else can find it; dropped before it is finished, it leaves nothing.
    pub fn named_upload(&self, repository: &Repository, digest: &Digest) -> Result<Upload, Error> {
        Ok(Upload {
            bucket: self.clone(),
            id: UploadId::random()?,
            session: Some(Session::new(repository, digest.algorithm())),
            name: Some(digest.clone()),
            sending: None,
            unsaved: false,
            is_dropped: false,
            _hold: None,
            holding: None,
            permit: None,
        })
    }

    /// How far a session is; `None` when there is none of this name in this repository.
    pub async fn upload_status(&self, repository: &Repository, id: &UploadId) -> Result<Option<UploadStatus>, Error> {
        let session = self.load_session(id).await?.filter(|session| session.repository == *repository);
        Ok(session.map(|session| UploadStatus { offset: session.offset }))
    }

    /// Takes hold of a session; `None` when there is none of this name in this repository. Waits a while for another request to this
    /// process that holds it; then [`ErrorKind::Locked`]. A request to another process shows when the session is saved.
    pub async fn upload(&self, repository: &Repository, id: &UploadId) -> Result<Option<Upload>, Error> {
        let busy = || {
            let what = format!("continue an upload to `{repository}`");
            Error::new(ErrorKind::Locked, what, "another request is sending it")
        };
        let hold = {
            let mut held = lock(&self.0.held);
            held.retain(|_, hold| Arc::strong_count(hold) > 1);
            held.entry(id.clone()).or_default().clone()
        };
        let hold = tokio::time::timeout(BUSY_WAIT, hold.lock_owned()).await.map_err(|_| busy())?;
        let session = self.load_session(id).await?.filter(|session| session.repository == *repository);
        Ok(session.map(|session| Upload {
            bucket: self.clone(),
            id: id.clone(),
            session: Some(session),
            name: None,
            sending: None,
            unsaved: false,
            is_dropped: false,
            _hold: Some(hold),
            holding: Some(Holding::new(self, id)),
            permit: None,
        }))
    }

    /// Uploads that requests to this process are at.
    pub fn open_uploads(&self) -> usize {
        lock(&self.0.held).values().filter(|hold| Arc::strong_count(hold) > 1).count()
    }
}

impl Upload {
    /// Bytes received.
    pub fn offset(&self) -> u64 {
        self.session.as_ref().map_or(0, |session| session.offset)
    }

    /// The session's name.
    pub fn id(&self) -> &UploadId {
        &self.id
    }

    /// Where its parts go.
    fn key(&self) -> Path {
        match &self.name {
            Some(digest) => self.bucket.keys().data(digest),
            None => self.bucket.keys().received(&self.id),
        }
    }

    fn session(&mut self) -> Result<&mut Session, Error> {
        self.session.as_mut().ok_or_else(gone)
    }

    /// Appends what the stream gives. After an error of the stream what came before it is kept, once it is [saved](Self::save); after an
    /// error of the store the session is as it was last saved.
    pub async fn append<S>(&mut self, mut body: S) -> Result<(), Error>
    where
        S: Stream<Item = Result<Bytes, Error>> + Unpin,
    {
        while let Some(chunk) = body.next().await {
            let mut chunk = chunk?;
            if !chunk.is_empty() {
                self.receive().await?;
            }
            while !chunk.is_empty() {
                // A full part goes when there is a byte behind it: a blob of one part needs no joining.
                if self.session()?.rest.len() >= PART_BYTES
                    && let Err(e) = self.send().await
                {
                    self.give_up().await;
                    return Err(e);
                }
                let session = self.session()?;
                let piece = chunk.split_to(chunk.len().min(PART_BYTES - session.rest.len()));
                session.hash.update(&piece);
                session.rest.extend_from_slice(&piece);
                session.offset += piece.len() as u64;
                self.unsaved = true;
            }
        }
        Ok(())
    }

    /// Waits until there is memory for bytes; not before some have come, so that silent clients hold up nobody.
    async fn receive(&mut self) -> Result<(), Error> {
        if self.permit.is_none() {
            let receiving = self.bucket.0.receiving.clone();
            let permit = tokio::time::timeout(RECEIVING_WAIT, receiving.acquire_owned()).await.map_err(|_| {
                let what = format!("receive an upload in `{}`", self.bucket.describe());
                Error::new(ErrorKind::TooManyRequests, what, "too many others are received")
            })?;
            self.permit = permit.ok();
        }
        self.read_rest().await
    }

    async fn read_rest(&mut self) -> Result<(), Error> {
        if self.session()?.unread.is_none() {
            return Ok(());
        }
        let (bucket, id) = (self.bucket.clone(), self.id.clone());
        bucket.read_rest(&id, self.session()?).await
    }

    /// Sends the full part, after the one before has arrived.
    async fn send(&mut self) -> Result<(), Error> {
        self.arrived().await?;
        let (bucket, key, too_large) = (self.bucket.clone(), self.key(), self.too_large());
        let session = self.session()?;
        if session.parts.len() >= MAX_PARTS {
            return Err(too_large);
        }
        let id = match &session.joins {
            Some(id) => id.clone(),
            None => {
                let id = bucket.objects().begin_parts(&key).await?;
                session.joins = Some(id.clone());
                id
            }
        };
        let part = std::mem::take(&mut session.rest).freeze();
        let (index, mut then) = (session.parts.len(), session.clone());
        let session_id = self.name.is_none().then(|| self.id.clone());
        self.sending = Some(tokio::spawn(async move {
            let part = bucket.objects().put_part(&key, &id, index, part).await?;
            then.parts.push(part.clone());
            // At once, so that a process that dies costs no more than what it has not sent.
            if let Some(id) = session_id {
                bucket.save_session(&id, &mut then).await?;
            }
            Ok((part, then.version))
        }));
        Ok(())
    }

    fn too_large(&self) -> Error {
        let most = MAX_BLOB_BYTES >> 30;
        let cause =
            format!("it has more than {most} GiB, the most that a bucket takes in parts of {} MiB", PART_BYTES >> 20);
        Error::new(ErrorKind::Unsupported, format!("upload a blob to `{}`", self.bucket.describe()), cause)
    }

    /// Waits for the part on its way.
    async fn arrived(&mut self) -> Result<(), Error> {
        let Some(sending) = self.sending.as_mut() else { return Ok(()) };
        // Taken only afterwards, so that a request which is dropped while it waits here leaves the part where it can be found.
        let arrived = sending.await;
        self.sending = None;
        let (part, version) = arrived.map_err(|e| Error::new(ErrorKind::Server, "send a part", e))??;
        let session = self.session()?;
        session.parts.push(part);
        session.version = version;
        Ok(())
    }

    /// Writes down how far it is, so that any process can go on from here. To be called before what came is acknowledged.
    pub async fn save(&mut self) -> Result<(), Error> {
        if let Err(e) = self.arrived().await {
            self.give_up().await;
            return Err(e);
        }
        if self.unsaved && self.name.is_none() {
            let (bucket, id) = (self.bucket.clone(), self.id.clone());
            bucket.save_session(&id, self.session()?).await?;
        }
        self.unsaved = false;
        Ok(())
    }

    /// What this process knows is of no use any more; what the bucket knows is. Parts of which the bucket knows nothing are removed.
    async fn give_up(&mut self) {
        let (session, sending) = (self.session.take(), self.sending.take());
        self.permit = None;
        let Some(joins) = session.and_then(|session| session.joins) else { return };
        let (bucket, key) = (self.bucket.clone(), self.key());
        let id = self.name.is_none().then(|| self.id.clone());
        // A task of its own: the request may be dropped.
        let _ = tokio::spawn(async move {
            if let Some(sending) = sending {
                let _ = sending.await;
            }
            let known = match id {
                None => false,
                Some(id) => match bucket.load_session(&id).await {
                    Ok(saved) => saved.is_some_and(|saved| saved.joins.as_ref() == Some(&joins)),
                    // Nobody can tell; what is not needed goes when the session expires, or by the bucket's own rule.
                    Err(_) => true,
                },
            };
            if !known && let Err(e) = bucket.objects().drop_parts(&key, &joins).await {
                tracing::warn!(error = %e, "parts of an upload that failed are left behind");
            }
        })
        .await;
    }

    /// Gives the bytes their name: the blob is then in the repository. [`ErrorKind::Content`], and nothing is left, when they have another
    /// digest. Goes on when nobody waits for it any more: it may take long, and half of it would be done again.
    pub async fn finish(self, digest: &Digest) -> Result<u64, Error> {
        let digest = digest.clone();
        let finishing = tokio::spawn(self.finish_here(digest));
        finishing.await.unwrap_or_else(|e| Err(Error::new(ErrorKind::Server, "finish an upload", e)))
    }

    async fn finish_here(mut self, digest: Digest) -> Result<u64, Error> {
        // From here on there is nothing that is worth saving.
        self.unsaved = false;
        let (repository, len) = (self.session.as_ref().map(|session| session.repository.clone()), self.offset());
        let outcome = self.name_it(&digest).await;
        match &outcome {
            Ok(_) => {}
            // On a full store nothing may stay that nobody asked for.
            Err(e) if matches!(e.kind(), ErrorKind::Content | ErrorKind::Full) => self.throw_away().await,
            // What arrived can be finished by another request.
            Err(_) if self.name.is_none() => self.give_up().await,
            Err(_) => self.throw_away().await,
        }
        // A request that was sent twice, to two servers: the other one was first.
        if let (Err(e), Some(repository)) = (&outcome, repository)
            && e.kind() == ErrorKind::NotFound
            && let Ok(Some(blob)) = self.bucket.claim_blob(&repository, &digest).await
            && blob.len() == len
        {
            return Ok(len);
        }
        outcome
    }

    async fn name_it(&mut self, digest: &Digest) -> Result<u64, Error> {
        self.arrived().await?;
        if self.permit.is_none() && self.session()?.unread.is_some() {
            self.permit = self.bucket.0.ending.clone().acquire_owned().await.ok();
        }
        self.read_rest().await?;
        let (bucket, key, too_large) = (self.bucket.clone(), self.key(), self.too_large());
        let session = self.session.as_mut().ok_or_else(gone)?;
        let (len, rest) = (session.offset, std::mem::take(&mut session.rest).freeze());
        let repository = session.repository.clone();
        let same = session.hash.algorithm() == digest.algorithm();
        if same {
            check(session.hash.clone().finish()?, digest, len, &repository)?;
        }
        let to = bucket.keys().data(digest);
        let Some(joins) = session.joins.clone() else {
            if !same {
                check(Digest::of_with(digest.algorithm(), &rest), digest, len, &repository)?;
            }
            bucket
                .publish(&repository, Link::Layer, digest, len, || async {
                    bucket.objects().put(&to, rest.clone()).await.map(|_| ())
                })
                .await?;
            self.forget(false).await;
            return Ok(len);
        };
        // An earlier attempt may have come this far. Its bytes are hashed again: they are not those of this request.
        let was_joined =
            async || Ok(key != to && bucket.objects().head(&key).await?.is_some_and(|meta| meta.len == len));
        let mut is_joined = was_joined().await?;
        if !is_joined {
            if session.parts.len() >= MAX_PARTS {
                return Err(too_large);
            }
            let joined = async {
                let part = bucket.objects().put_part(&key, &joins, session.parts.len(), rest).await?;
                session.parts.push(part);
                // All of it is with the store: the memory is somebody else's now.
                self.permit = None;
                bucket.objects().join_parts(&key, &joins, &session.parts, len).await
            };
            if let Err(e) = joined.await {
                // A server that was killed may have had it joined meanwhile: the store goes on without who asked.
                is_joined = was_joined().await?;
                if !is_joined {
                    return Err(e);
                }
            }
        }
        self.permit = None;
        if !same || is_joined {
            check(bucket.hash_again(&key, len, digest.algorithm()).await?, digest, len, &repository)?;
        }
        bucket
            .publish(&repository, Link::Layer, digest, len, || async {
                if key == to { Ok(()) } else { bucket.move_to(&key, &to, len).await }
            })
            .await?;
        self.forget(true).await;
        Ok(len)
    }

    /// Ends the session; its bytes are removed.
    pub async fn cancel(mut self) -> Result<(), Error> {
        self.throw_away().await;
        Ok(())
    }

    /// Removes everything but the blob. What cannot be removed is removed when the session has expired.
    async fn forget(&mut self, has_parts: bool) {
        self.session = None;
        let said = self.holding.take().is_some_and(|holding| holding.said.load(Ordering::Relaxed));
        if self.name.is_none() {
            let keys = self.bucket.keys();
            let mut left = vec![keys.session(&self.id)];
            if has_parts {
                left.push(keys.received(&self.id));
            }
            if said {
                left.push(keys.held(&self.id));
            }
            let _ = self.bucket.objects().delete_all(left).await;
        }
    }

    async fn throw_away(&mut self) {
        if let Some(sending) = self.sending.take() {
            let _ = sending.await;
        }
        let joins = match (self.session.take(), &self.name) {
            (Some(session), _) => session.joins,
            // It was given up; the bucket still knows what there is of it.
            (None, None) => self.bucket.load_session(&self.id).await.ok().flatten().and_then(|saved| saved.joins),
            (None, Some(_)) => None,
        };
        if let Some(id) = &joins {
            let _ = self.bucket.objects().drop_parts(&self.key(), id).await;
        }
        self.forget(joins.is_some()).await;
    }
}

/// Holds what came against what was promised.
fn check(found: Digest, digest: &Digest, len: u64, repository: &Repository) -> Result<(), Error> {
    if found == *digest {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Content,
        format!("upload blob `{digest}` to `{repository}`"),
        format!("the {len} bytes received have the digest `{found}`"),
    ))
}

impl Bucket {
    /// Reads an object again: its name is of another algorithm than was hashed on the way.
    pub(super) async fn hash_again(&self, key: &Path, len: u64, algorithm: Algorithm) -> Result<Digest, Error> {
        let mut hash = Running::new(algorithm);
        let mut body = self.objects().stream(key, 0, len, "hash an upload");
        while let Some(bytes) = body.try_next().await? {
            hash.update(&bytes);
        }
        hash.finish()
    }

    /// Brings an object to its place: the store copies it, or, where it is too large for that, it passes through this process in parts.
    pub(super) async fn move_to(&self, from: &Path, to: &Path, len: u64) -> Result<(), Error> {
        if len <= self.0.copied_bytes {
            return self.objects().copy(from, to).await;
        }
        self.in_parts(to, len, |first, end| self.objects().stream(from, first, end, "move an upload to its place"))
            .await
    }

    /// Writes an object in parts of what `read` gives from one byte up to, not including, another. Nothing is left when that fails.
    pub(super) async fn in_parts(
        &self,
        to: &Path,
        len: u64,
        read: impl Fn(u64, u64) -> BlobStream + Sync,
    ) -> Result<(), Error> {
        let id = self.objects().begin_parts(to).await?;
        let parts = len.div_ceil(PART_BYTES as u64);
        let (id, read) = (&id, &read);
        let moved = futures_util::stream::iter(0..parts).map(|index| {
            let moved = async move {
                let (first, end) = (index * PART_BYTES as u64, len.min((index + 1) * PART_BYTES as u64));
                let mut part = BytesMut::with_capacity((end - first) as usize);
                let mut body = read(first, end);
                while let Some(bytes) = body.try_next().await? {
                    part.extend_from_slice(&bytes);
                }
                self.objects().put_part(to, id, index as usize, part.freeze()).await
            };
            moved.boxed()
        });
        let outcome = async {
            let parts: Vec<String> = moved.buffered(MOVED_AT_ONCE).try_collect().await?;
            self.objects().join_parts(to, id, &parts, len).await
        }
        .await;
        if outcome.is_err() {
            let _ = self.objects().drop_parts(to, id).await;
        }
        outcome
    }
}

impl Drop for Upload {
    /// A request that is dropped in the middle has received bytes: they are saved all the same, or thrown away where nobody can find them.
    fn drop(&mut self) {
        let Some(session) = self.session.take() else { return };
        let has_parts = session.joins.is_some() || self.sending.is_some();
        let is_known = if self.name.is_some() { !has_parts } else { !self.unsaved };
        // A runtime that is shut down drops at once what is given to it: once is enough.
        if is_known || self.is_dropped {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let mut upload = Upload {
            bucket: self.bucket.clone(),
            id: self.id.clone(),
            session: Some(session),
            name: self.name.take(),
            sending: self.sending.take(),
            unsaved: self.unsaved,
            is_dropped: true,
            _hold: self._hold.take(),
            holding: self.holding.take(),
            permit: self.permit.take(),
        };
        runtime.spawn(async move {
            if upload.name.is_some() {
                upload.throw_away().await;
            } else if let Err(e) = upload.save().await {
                tracing::debug!(error = %e, "an upload that was broken off is not kept to its last byte");
            }
        });
    }
}
