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
const MAX_SESSION_BYTES: u64 = PART_BYTES as u64 + 4 * 1024 * 1024;

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
        let mut bytes =
            serde_json::to_vec(&record).map_err(|e| Error::new(ErrorKind::Invalid, "write down an upload", e))?;
        bytes.push(b'\n');
        bytes.extend_from_slice(&self.rest);
        Ok(bytes.into())
    }

    fn from_bytes(bytes: &Bytes, version: Option<String>) -> Option<Self> {
        let end = bytes.iter().position(|byte| *byte == b'\n')?;
        let record: Record = serde_json::from_slice(&bytes[..end]).ok()?;
        let rest = &bytes[end + 1..];
        let in_parts = (record.parts.len() as u64).checked_mul(PART_BYTES as u64)?;
        (record.offset == in_parts + rest.len() as u64).then_some(())?;
        Some(Self {
            repository: record.repository,
            offset: record.offset,
            hash: Running::take_up(record.algorithm.parse().ok()?, &record.hash)?,
            parts: record.parts,
            joins: record.joins,
            rest: BytesMut::from(rest),
            version,
        })
    }
}

impl Bucket {
    /// Writes a new session.
    pub(super) async fn create_session(&self, id: &UploadId, session: &Session) -> Result<(), Error> {
        self.objects().put(&self.keys().session(id), session.to_bytes()?).await.map(|_| ())
    }

    /// Replaces a session; [`ErrorKind::Locked`] when another process moved it on meanwhile, or ended it.
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
                _ => {
                    written?;
                    return Err(Error::new(
                        ErrorKind::Locked,
                        format!("continue an upload to `{}`", session.repository),
                        "another request is sending it, or has ended it",
                    ));
                }
            }
        }
    }

    /// The session of this name; `None` when there is none.
    pub(super) async fn load_session(&self, id: &UploadId) -> Result<Option<Session>, Error> {
        let found = self.objects().get(&self.keys().session(id), MAX_SESSION_BYTES).await?;
        let Some((bytes, meta)) = found else { return Ok(None) };
        let session = Session::from_bytes(&bytes, meta.version);
        if session.is_none() {
            // By another version of this program; whoever sends it begins again.
            tracing::warn!(%id, "an upload's session cannot be read");
        }
        Ok(session)
    }
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
        let read = Session::from_bytes(&bytes, Some("v".into())).unwrap();
        assert_eq!((read.offset, &read.rest[..], &read.parts), (session.offset, &b"\n bytes"[..], &session.parts));
        assert_eq!((read.version.as_deref(), read.joins.as_deref()), (Some("v"), Some("id")));
        assert_eq!(read.hash.put_down(), session.hash.put_down());
        assert!(Session::from_bytes(&bytes.slice(..bytes.len() - 1), None).is_none(), "bytes are missing");
        assert!(Session::from_bytes(&Bytes::from_static(b"{}\n"), None).is_none());
    }
}
