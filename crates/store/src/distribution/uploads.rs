//! Uploads: bytes that arrive in pieces, perhaps over several connections, until a digest gives them a name.
//!
//! A session is known by its [`UploadId`] within this process only; after a restart its bytes are gone and the client begins again.
//! [`Upload`] is the exclusive hold of a session. Its blocking writes carry the hold with them, so that a request that is
//! dropped in the middle of a write leaves the session consistent and free only after that write.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use airlock_oci::{Algorithm, Digest, Error, ErrorKind, Repository};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use tokio::sync::OwnedMutexGuard;

use super::Writer;
use super::lane::Lane;
use crate::staged::Staged;

/// Sessions at once; beyond that a new one is refused.
pub(super) const MAX_SESSIONS: usize = 4096;
/// How long a session may lie idle before it is removed.
pub(super) const MAX_IDLE: Duration = Duration::from_secs(60 * 60);
/// How long a session may live at all.
pub(super) const MAX_AGE: Duration = Duration::from_secs(24 * 60 * 60);
/// Received bytes that are hashed and written in one go. While they are, the next ones are received.
const BATCH_BYTES: usize = 256 * 1024;
/// How long a request waits for another one that holds the same session.
const BUSY_WAIT: Duration = Duration::from_secs(10);

/// Names a session: 128 random bits in hex, so that nobody guesses another's.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UploadId(Box<str>);

/// How far a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UploadStatus {
    /// Bytes received.
    pub offset: u64,
}

/// All sessions of a writer.
#[derive(Debug, Default)]
pub(super) struct Sessions(Mutex<HashMap<UploadId, Arc<Session>>>);

#[derive(Debug)]
pub(super) struct Session {
    repository: Repository,
    /// The algorithm that is hashed on the way.
    algorithm: Algorithm,
    started: Instant,
    last_use: Mutex<Instant>,
    offset: AtomicU64,
    /// `None` once the session is finished or cancelled.
    staged: Arc<tokio::sync::Mutex<Option<Staged>>>,
}

pub(super) type Hold = OwnedMutexGuard<Option<Staged>>;

/// The exclusive hold of a session.
pub struct Upload {
    writer: Writer,
    id: UploadId,
    session: Arc<Session>,
    /// `None` only while a write carries it.
    hold: Option<Hold>,
}

impl UploadId {
    pub(crate) fn random() -> Result<Self, Error> {
        let mut bits = [0_u8; 16];
        aws_lc_rs::rand::fill(&mut bits)
            .map_err(|_| Error::new(ErrorKind::Io, "begin an upload", "the system gives no random numbers"))?;
        Ok(Self(format!("{:032x}", u128::from_be_bytes(bits)).into()))
    }
}

impl FromStr for UploadId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if text.len() == 32 && text.bytes().all(hex) { Ok(Self(text.into())) } else { Err(()) }
    }
}

impl fmt::Display for UploadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Session {
    fn touch(&self) {
        *self.last_use.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// So many bytes were written.
    pub(super) fn written(&self, offset: u64) {
        self.offset.store(offset, Ordering::Release);
        self.touch();
    }

    fn is_expired(&self, idle: Duration, age: Duration) -> bool {
        let idle_for = self.last_use.lock().unwrap_or_else(PoisonError::into_inner).elapsed();
        idle_for >= idle || self.started.elapsed() >= age
    }
}

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, HashMap<UploadId, Arc<Session>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, repository: &Repository, id: &UploadId) -> Option<Arc<Session>> {
        self.lock().get(id).filter(|session| session.repository == *repository).cloned()
    }

    pub(super) fn count(&self) -> usize {
        self.lock().len()
    }

    fn remove(&self, id: &UploadId) {
        self.lock().remove(id);
    }

    /// Removes the sessions whose time is over, except those in use. Their files go with them.
    pub(super) fn expire(&self, idle: Duration, age: Duration) -> usize {
        let mut sessions = self.lock();
        let before = sessions.len();
        sessions.retain(|_, session| !session.is_expired(idle, age) || session.staged.try_lock().is_err());
        before - sessions.len()
    }
}

impl Writer {
    /// Begins a session. Nothing touches the disk before its first byte.
    pub fn begin_upload(&self, repository: &Repository, algorithm: Algorithm) -> Result<UploadId, Error> {
        let (id, session) = self.new_session(repository, algorithm)?;
        let mut sessions = self.sessions().lock();
        if sessions.len() >= MAX_SESSIONS {
            return Err(Error::new(
                ErrorKind::TooManyRequests,
                format!("begin an upload to `{repository}`"),
                format!("{MAX_SESSIONS} uploads are under way"),
            ));
        }
        sessions.insert(id.clone(), session);
        Ok(id)
    }

    /// An upload that nobody else can find; dropped before it is finished, it leaves nothing.
    pub fn private_upload(&self, repository: &Repository, algorithm: Algorithm) -> Result<Upload, Error> {
        let (id, session) = self.new_session(repository, algorithm)?;
        let hold = session.staged.clone().try_lock_owned().ok();
        Ok(Upload { writer: self.clone(), id, session, hold })
    }

    fn new_session(&self, repository: &Repository, algorithm: Algorithm) -> Result<(UploadId, Arc<Session>), Error> {
        let id = UploadId::random()?;
        let staged = Staged::new(self.upload_path(&id), algorithm);
        let session = Arc::new(Session {
            repository: repository.clone(),
            algorithm,
            started: Instant::now(),
            last_use: Mutex::new(Instant::now()),
            offset: AtomicU64::new(0),
            staged: Arc::new(tokio::sync::Mutex::new(Some(staged))),
        });
        Ok((id, session))
    }

    /// How far a session is; `None` when there is none of this name in this repository.
    pub fn upload_status(&self, repository: &Repository, id: &UploadId) -> Option<UploadStatus> {
        let session = self.sessions().get(repository, id)?;
        Some(UploadStatus { offset: session.offset.load(Ordering::Acquire) })
    }

    /// Takes hold of a session; `None` when there is none of this name in this repository. Waits a while for another
    /// request that holds it; then [`ErrorKind::Locked`].
    pub async fn upload(&self, repository: &Repository, id: &UploadId) -> Result<Option<Upload>, Error> {
        let Some(session) = self.sessions().get(repository, id) else { return Ok(None) };
        let hold = tokio::time::timeout(BUSY_WAIT, session.staged.clone().lock_owned()).await.map_err(|_| {
            Error::new(
                ErrorKind::Locked,
                format!("continue an upload to `{repository}`"),
                "another request is sending it",
            )
        })?;
        if hold.is_none() {
            return Ok(None);
        }
        session.touch();
        Ok(Some(Upload { writer: self.clone(), id: id.clone(), session, hold: Some(hold) }))
    }
}

impl Upload {
    /// Bytes received.
    pub fn offset(&self) -> u64 {
        self.session.offset.load(Ordering::Acquire)
    }

    /// The session's name.
    pub fn id(&self) -> &UploadId {
        &self.id
    }

    /// Appends what the stream gives. After an error, what came before it is kept, and [`Upload::offset`] says how much that is.
    pub async fn append<S>(&mut self, mut body: S) -> Result<(), Error>
    where
        S: Stream<Item = Result<Bytes, Error>> + Unpin,
    {
        let lane = Lane::new(self.session.clone(), self.take_hold()?);
        let received = loop {
            let (mut batch, mut bytes, mut end) = (Vec::new(), 0, None);
            while bytes < BATCH_BYTES && end.is_none() {
                match body.next().await {
                    Some(Ok(chunk)) if chunk.is_empty() => {}
                    Some(Ok(chunk)) => {
                        bytes += chunk.len();
                        batch.push(chunk);
                    }
                    Some(Err(e)) => end = Some(Err(e)),
                    None => end = Some(Ok(())),
                }
            }
            if !batch.is_empty()
                && let Err(e) = lane.send(batch).await
            {
                break Err(e);
            }
            if let Some(end) = end {
                break end;
            }
        };
        let (hold, written) = lane.settle().await;
        self.hold = hold;
        // What could not be written is the cause, where both went wrong.
        written.and(received)
    }

    fn take_hold(&mut self) -> Result<Hold, Error> {
        self.hold.take().ok_or_else(gone)
    }

    /// Gives the bytes their name: the blob is then in the repository. [`ErrorKind::Content`], and nothing is left, when they have another digest.
    pub async fn finish(mut self, digest: &Digest) -> Result<u64, Error> {
        let mut hold = self.take_hold()?;
        self.writer.sessions().remove(&self.id);
        let (writer, session, digest) = (self.writer.clone(), self.session.clone(), digest.clone());
        crate::source::blocking(move || {
            let mut staged = hold.take().ok_or_else(gone)?;
            let found = staged.digest(digest.algorithm(), session.algorithm)?;
            if found != digest {
                return Err(Error::new(
                    ErrorKind::Content,
                    format!("upload blob `{digest}` to `{}`", session.repository),
                    format!("the {} bytes received have the digest `{found}`", staged.len()),
                ));
            }
            let len = staged.len();
            writer.accept_blob(&session.repository, &digest, staged.keep()?)?;
            Ok(len)
        })
        .await
    }

    /// Ends the session; its bytes are removed.
    pub async fn cancel(mut self) -> Result<(), Error> {
        let mut hold = self.take_hold()?;
        self.writer.sessions().remove(&self.id);
        crate::source::blocking(move || {
            drop(hold.take());
            Ok(())
        })
        .await
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let Some(staged) = self.hold.as_mut().and_then(|hold| hold.as_mut()) {
            staged.close();
        }
    }
}

pub(super) fn gone() -> Error {
    Error::new(ErrorKind::NotFound, "continue an upload", "it was finished or cancelled")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::distribution::Durability;

    #[tokio::test]
    async fn an_upload_expires_when_nobody_is_at_it_and_nobody_was_lately() {
        let root = tempfile::tempdir().unwrap();
        let writer = Writer::open(root.path(), Durability::Image).unwrap();
        let name = Repository::new("a/b").unwrap();
        let id = writer.begin_upload(&name, Algorithm::Sha256).unwrap();
        let long_ago = || {
            let session = writer.sessions().get(&name, &id).unwrap();
            *session.last_use.lock().unwrap() = Instant::now().checked_sub(2 * MAX_IDLE).unwrap();
        };
        let bytes = || futures_util::stream::iter([Ok(Bytes::from_static(b"some"))]);
        let mut upload = writer.upload(&name, &id).await.unwrap().unwrap();
        upload.append(bytes()).await.unwrap();
        long_ago();
        // A client that is slow, or was asleep: its request still has the upload.
        assert_eq!(writer.sessions().expire(Duration::ZERO, Duration::ZERO), 0);
        upload.append(bytes()).await.unwrap();
        drop(upload);
        assert_eq!(writer.sessions().expire(MAX_IDLE, MAX_AGE), 0, "bytes came just now");
        long_ago();
        drop(writer.upload(&name, &id).await.unwrap().unwrap());
        assert_eq!(writer.sessions().expire(MAX_IDLE, MAX_AGE), 0, "a request came just now");
        let files = || std::fs::read_dir(root.path().join(".airlock/uploads")).unwrap().count();
        assert_eq!((writer.upload_status(&name, &id).unwrap().offset, files()), (8, 1));
        long_ago();
        assert_eq!((writer.sessions().expire(MAX_IDLE, MAX_AGE), files()), (1, 0));
        assert!(writer.upload(&name, &id).await.unwrap().is_none());
    }
}
