//! How far an upload is, as it lies in the bucket: one object, replaced as a whole.
//!
//! The object is a line of JSON and then the bytes that do not fill a part yet, so that one write moves both on together. Each write names
//! the version that it replaces: of two processes that continue the same upload at once, one is told so.

use std::time::{SystemTime, UNIX_EPOCH};

use airlock_oci::{Algorithm, Error, ErrorKind, Repository};
use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use super::Bucket;
use super::hash::Running;
use super::objects::Condition;
use super::uploads::PART_BYTES;
use crate::distribution::UploadId;

/// Bytes of a session at most: a part, and the versions of ten thousand of them.
const MAX_SESSION_BYTES: u64 = PART_BYTES as u64 + MAX_RECORD_BYTES;
/// Bytes of its first line at most.
const MAX_RECORD_BYTES: u64 = 4 * 1024 * 1024;
/// Bytes that are read first: nearly always the whole line, and whatever little is behind it.
const HEAD_BYTES: u64 = 16 * 1024;

/// How often a session is written whose writing failed.
const SAVES: u32 = 3;

/// How far an upload is.
#[derive(Clone)]
pub(super) struct Session {
    pub(super) repository: Repository,
    /// Bytes received.
    pub(super) offset: u64,
    /// Has seen all of them.
    pub(super) hash: Running,
    /// The parts that were written, and the name under which the store keeps them.
    pub(super) parts: Vec<String>,
    pub(super) joins: Option<String>,
    /// The bytes after the last part.
    pub(super) rest: BytesMut,
    /// Where in the object the bytes lie that belong into `rest`, and where it ends, while they have not been read.
    pub(super) unread: Option<(u64, u64)>,
    /// The version of the object that this was read from.
    pub(super) version: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    repository: Repository,
    algorithm: String,
    /// Seconds since 1970.
    saved: u64,
    offset: u64,
    hash: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    parts: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    joins: Option<String>,
}

impl Session {
    pub(super) fn new(repository: &Repository, algorithm: Algorithm) -> Self {
        Self {
            repository: repository.clone(),
            offset: 0,
            hash: Running::new(algorithm),
            parts: Vec::new(),
            joins: None,
            rest: BytesMut::new(),
            unread: None,
            version: None,
        }
    }

    fn to_bytes(&self) -> Result<Bytes, Error> {
        let saved = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let record = Record {
            repository: self.repository.clone(),
            algorithm: self.hash.algorithm().name().to_owned(),
            saved,
            offset: self.offset,
            hash: self.hash.put_down(),
            parts: self.parts.clone(),
            joins: self.joins.clone(),
        };
        let record =
            serde_json::to_vec(&record).map_err(|e| Error::new(ErrorKind::Invalid, "write down an upload", e))?;
        let mut bytes = Vec::with_capacity(record.len() + 1 + self.rest.len());
        bytes.extend_from_slice(&record);
        bytes.push(b'\n');
        bytes.extend_from_slice(&self.rest);
        Ok(bytes.into())
    }

    /// Of the beginning of an object that has `len` bytes; there must be a whole line in it.
    fn from_bytes(bytes: &Bytes, len: u64, version: Option<String>) -> Option<Self> {
        let end = bytes.iter().position(|byte| *byte == b'\n')?;
        let record: Record = serde_json::from_slice(&bytes[..end]).ok()?;
        let rest_at = end as u64 + 1;
        let in_parts = (record.parts.len() as u64).checked_mul(PART_BYTES as u64)?;
        (record.offset == in_parts + len.checked_sub(rest_at)?).then_some(())?;
        let is_whole = bytes.len() as u64 == len;
        Some(Self {
            repository: record.repository,
            offset: record.offset,
            hash: Running::take_up(record.algorithm.parse().ok()?, &record.hash)?,
            parts: record.parts,
            joins: record.joins,
            rest: if is_whole { BytesMut::from(&bytes[end + 1..]) } else { BytesMut::new() },
            unread: (!is_whole).then_some((rest_at, len)),
            version,
        })
    }
}

impl Bucket {
    /// Writes a new session.
    pub(super) async fn create_session(&self, id: &UploadId, session: &Session) -> Result<(), Error> {
        self.objects().put(&self.keys().session(id), session.to_bytes()?).await.map(|_| ())
    }

    /// Replaces a session; [`ErrorKind::Locked`] when another process moved it on meanwhile, [`ErrorKind::NotFound`] when it was ended.
    pub(super) async fn save_session(&self, id: &UploadId, session: &mut Session) -> Result<(), Error> {
        let (key, bytes) = (self.keys().session(id), session.to_bytes()?);
        let mut attempts = 0;
        loop {
            attempts += 1;
            let condition = Condition::Version(session.version.clone());
            let written = match self.objects().put_if(&key, bytes.clone(), condition).await {
                Ok(Some(version)) => {
                    session.version = version;
                    return Ok(());
                }
                Ok(None) => Ok(()),
                Err(e) => Err(e),
            };
            // Either another request has moved it on, or an answer was lost: what lies there tells.
            match self.objects().get(&key, MAX_SESSION_BYTES).await? {
                Some((there, meta)) if there == bytes => {
                    session.version = meta.version;
                    return Ok(());
                }
                Some((_, meta)) if meta.version == session.version && attempts < SAVES => {}
                None => return Err(gone()),
                Some(_) => {
                    written?;
                    return Err(moved_on(&session.repository));
                }
            }
        }
    }

    /// The session of this name, without its bytes if there are many; `None` when there is none.
    pub(super) async fn load_session(&self, id: &UploadId) -> Result<Option<Session>, Error> {
        let key = self.keys().session(id);
        let Some((mut bytes, mut meta)) = self.objects().get_range(&key, 0, HEAD_BYTES).await? else {
            return Ok(None);
        };
        if !bytes.contains(&b'\n') && meta.len > HEAD_BYTES {
            // Thousands of parts.
            match self.objects().get_range(&key, 0, MAX_RECORD_BYTES).await? {
                Some(found) => (bytes, meta) = found,
                None => return Ok(None),
            }
        }
        let session = Session::from_bytes(&bytes, meta.len, meta.version);
        if session.is_none() {
            // By another version of this program; whoever sends it begins again.
            tracing::warn!(%id, "an upload's session cannot be read");
        }
        Ok(session)
    }

    /// Reads the bytes that belong to a session, at most a part of them. [`ErrorKind::Locked`] when it was moved on meanwhile.
    pub(super) async fn read_rest(&self, id: &UploadId, session: &mut Session) -> Result<(), Error> {
        let Some((first, end)) = session.unread else { return Ok(()) };
        match self.objects().get_range(&self.keys().session(id), first, end).await? {
            Some((bytes, meta)) if meta.version == session.version && meta.len == end => {
                session.rest = BytesMut::from(bytes);
                session.unread = None;
                Ok(())
            }
            Some(_) => Err(moved_on(&session.repository)),
            None => Err(gone()),
        }
    }
}

/// The session has ended.
pub(super) fn gone() -> Error {
    Error::new(ErrorKind::NotFound, "continue an upload", "it was finished or cancelled")
}

fn moved_on(repository: &Repository) -> Error {
    Error::new(ErrorKind::Locked, format!("continue an upload to `{repository}`"), "another request is sending it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_read_as_it_was_written() {
        let mut session = Session::new(&Repository::new("a/b").unwrap(), Algorithm::Sha256);
        session.hash.update(b"some \n bytes");
        session.rest.extend_from_slice(b"\n bytes");
        session.offset = 7 + PART_BYTES as u64;
        session.parts = vec!["\"etag\"".into()];
        session.joins = Some("id".into());
        let bytes = session.to_bytes().unwrap();
        let len = bytes.len() as u64;
        let read = Session::from_bytes(&bytes, len, Some("v".into())).unwrap();
        assert_eq!((read.offset, &read.rest[..], &read.parts), (session.offset, &b"\n bytes"[..], &session.parts));
        assert_eq!((read.version.as_deref(), read.joins.as_deref()), (Some("v"), Some("id")));
        assert_eq!(read.hash.put_down(), session.hash.put_down());
        assert!(Session::from_bytes(&bytes.slice(..bytes.len() - 1), len - 1, None).is_none(), "bytes are missing");
        assert!(Session::from_bytes(&Bytes::from_static(b"{}\n"), 3, None).is_none());
        // Its beginning tells where the rest is.
        let begun = Session::from_bytes(&bytes.slice(..bytes.len() - 2), len, None).unwrap();
        assert_eq!((begun.offset, begun.rest.len(), begun.unread), (session.offset, 0, Some((len - 7, len))));
    }
}
