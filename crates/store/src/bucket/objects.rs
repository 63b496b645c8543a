//! The few things that are done to objects, and what their failures mean.
//!
//! Requests are tried again by the client below; what still fails afterwards has a short cause that may be shown to anybody. The store's
//! own words, with keys and addresses, go along as the attempt that failed, for the log.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use airlock_oci::{Attempt, BlobStream, Error, ErrorKind};
use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt, TryStreamExt};
use object_store::aws::AmazonS3;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutPayload, UpdateVersion};

use super::settings::Settings;

/// How long a request that carries a blob may go without a byte, and how long the store may work at one that moves a blob.
const STALL_TIME: Duration = Duration::from_secs(30);
const MOVE_TIME: Duration = Duration::from_secs(15 * 60);
/// How often a blob's bytes are asked for again after the connection broke, without a byte in between.
const RESUMES: u32 = 5;
/// The pause before the first of them; it doubles.
const RESUME_PAUSE: Duration = Duration::from_millis(200);
/// Characters of a store's own words that are kept.
const MAX_SAID_CHARS: usize = 1000;

/// The objects of one bucket. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Objects {
    store: Arc<AmazonS3>,
    /// The same for requests that take as long as their bytes.
    carrier: Arc<AmazonS3>,
    place: Arc<str>,
}

/// What is known of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Meta {
    pub(super) len: u64,
    /// By the store's clock.
    pub(super) modified: SystemTime,
    pub(super) version: Option<String>,
}

/// What must hold for an object to be written.
#[derive(Clone, Debug)]
pub(super) enum Condition {
    /// There is none.
    Absent,
    /// It has this version.
    Version(Option<String>),
}

impl From<&ObjectMeta> for Meta {
    fn from(meta: &ObjectMeta) -> Self {
        Self { len: meta.size, modified: meta.last_modified.into(), version: meta.e_tag.clone() }
    }
}

impl Objects {
    pub(super) fn open(settings: &Settings) -> Result<Self, Error> {
        Ok(Self {
            store: Arc::new(settings.client(false)?),
            carrier: Arc::new(settings.client(true)?),
            place: settings.place().into(),
        })
    }

    /// For messages.
    pub(super) fn place(&self) -> &str {
        &self.place
    }

    fn failed(&self, verb: &str, key: &Path, error: object_store::Error) -> Error {
        let what = format!("{verb} `{key}` in `{}`", self.place);
        let mut text = error.to_string();
        let (kind, cause) = meaning(&error, &text);
        if let Some((end, _)) = text.char_indices().nth(MAX_SAID_CHARS) {
            text.truncate(end);
        }
        Error::new(kind, what, cause).attempts(vec![Attempt { endpoint: self.place.to_string(), outcome: text }])
    }

    fn stalled(&self, verb: &str, key: &Path) -> Error {
        Error::new(ErrorKind::Server, format!("{verb} `{key}` in `{}`", self.place), "the object store does not answer")
    }

    pub(super) async fn head(&self, key: &Path) -> Result<Option<Meta>, Error> {
        match self.store.head(key).await {
            Ok(meta) => Ok(Some(Meta::from(&meta))),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(self.failed("look at", key, e)),
        }
    }

    /// A small object. [`ErrorKind::Invalid`] when it has more than `most` bytes.
    pub(super) async fn get(&self, key: &Path, most: u64) -> Result<Option<(Bytes, Meta)>, Error> {
        let found = match self.store.get(key).await {
            Ok(found) => found,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(e) => return Err(self.failed("read", key, e)),
        };
        let meta = Meta::from(&found.meta);
        if meta.len > most {
            let what = format!("read `{key}` in `{}`", self.place);
            return Err(Error::new(ErrorKind::Invalid, what, format!("it has {} bytes", meta.len)));
        }
        match found.bytes().await {
            Ok(bytes) => Ok(Some((bytes, meta))),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(self.failed("read", key, e)),
        }
    }

    /// The beginning of an object, at most so many bytes of it; or what comes behind: the bytes from `first` up to, not including, `end`.
    /// There must be a byte at `first`.
    pub(super) async fn get_range(&self, key: &Path, first: u64, end: u64) -> Result<Option<(Bytes, Meta)>, Error> {
        let options = GetOptions { range: Some(GetRange::Bounded(first..end)), ..GetOptions::default() };
        let found = match self.store.get_opts(key, options).await {
            Ok(found) => found,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(e) => return Err(self.failed("read", key, e)),
        };
        let (meta, range) = (Meta::from(&found.meta), found.range.clone());
        match found.bytes().await {
            Ok(bytes) if range.start == first && bytes.len() as u64 == end.min(meta.len) - first => {
                Ok(Some((bytes, meta)))
            }
            Ok(_) => {
                let what = format!("read `{key}` in `{}`", self.place);
                Err(Error::new(ErrorKind::Server, what, "the object store sent another range"))
            }
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(self.failed("read", key, e)),
        }
    }

    /// Writes an object whole; its version.
    pub(super) async fn put(&self, key: &Path, bytes: Bytes) -> Result<Option<String>, Error> {
        let written = self.store.put(key, PutPayload::from_bytes(bytes)).await;
        written.map(|result| result.e_tag).map_err(|e| self.failed("write", key, e))
    }

    /// Writes an object where the condition holds; `None` where it does not.
    pub(super) async fn put_if(
        &self,
        key: &Path,
        bytes: Bytes,
        condition: Condition,
    ) -> Result<Option<Option<String>>, Error> {
        let mode = match condition {
            Condition::Absent => PutMode::Create,
            Condition::Version(e_tag) => PutMode::Update(UpdateVersion { e_tag, version: None }),
        };
        match self.store.put_opts(key, PutPayload::from_bytes(bytes), mode.into()).await {
            Ok(result) => Ok(Some(result.e_tag)),
            Err(
                object_store::Error::AlreadyExists { .. }
                | object_store::Error::Precondition { .. }
                | object_store::Error::NotFound { .. },
            ) => Ok(None),
            Err(e) => Err(self.failed("write", key, e)),
        }
    }

    /// Removes an object; it need not be there.
    pub(super) async fn delete(&self, key: &Path) -> Result<(), Error> {
        match self.store.delete(key).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(e) => Err(self.failed("remove", key, e)),
        }
    }

    /// Removes objects, many in one request.
    pub(super) async fn delete_all(&self, keys: Vec<Path>) -> Result<(), Error> {
        let Some(first) = keys.first().cloned() else { return Ok(()) };
        let mut removed = self.store.delete_stream(futures_util::stream::iter(keys.into_iter().map(Ok)).boxed());
        while let Some(outcome) = removed.next().await {
            match outcome {
                Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
                Err(e) => return Err(self.failed("remove", &first, e)),
            }
        }
        Ok(())
    }

    /// Everything below a key, in the order of the keys, read a thousand at a time as the stream is.
    pub(super) fn list(&self, below: &Path) -> BoxStream<'static, Result<(Path, Meta), Error>> {
        let listed = self.store.list(Some(below));
        self.listed(below, listed)
    }

    /// The same from behind a key.
    pub(super) fn list_after(&self, below: &Path, after: &Path) -> BoxStream<'static, Result<(Path, Meta), Error>> {
        let listed = self.store.list_with_offset(Some(below), after);
        self.listed(below, listed)
    }

    fn listed(
        &self,
        below: &Path,
        listed: BoxStream<'static, object_store::Result<ObjectMeta>>,
    ) -> BoxStream<'static, Result<(Path, Meta), Error>> {
        let (objects, below) = (self.clone(), below.clone());
        listed
            .map_ok(|meta| (meta.location.clone(), Meta::from(&meta)))
            .map_err(move |e| objects.failed("list", &below, e))
            .boxed()
    }

    /// Whether there is anything below a key.
    pub(super) async fn has_any(&self, below: &Path) -> Result<bool, Error> {
        Ok(self.list(below).try_next().await?.is_some())
    }

    /// The folders right below a key.
    pub(super) async fn folders(&self, below: &Path) -> Result<Vec<String>, Error> {
        let found = self.store.list_with_delimiter(Some(below)).await.map_err(|e| self.failed("list", below, e))?;
        Ok(found.common_prefixes.iter().filter_map(|path| path.filename().map(str::to_owned)).collect())
    }

    /// Has the store copy an object.
    pub(super) async fn copy(&self, from: &Path, to: &Path) -> Result<(), Error> {
        match tokio::time::timeout(MOVE_TIME, self.carrier.copy(from, to)).await {
            Ok(outcome) => outcome.map_err(|e| self.failed("copy", from, e)),
            Err(_) => Err(self.stalled("copy", from)),
        }
    }

    /// Begins an object that comes in parts.
    pub(super) async fn begin_parts(&self, key: &Path) -> Result<String, Error> {
        self.store.create_multipart(key).await.map_err(|e| self.failed("begin", key, e))
    }

    /// What failed at the parts of an object. [`ErrorKind::NotFound`] means the parts, never the bucket.
    fn failed_at_parts(&self, verb: &str, key: &Path, error: object_store::Error) -> Error {
        let are_gone =
            matches!(error, object_store::Error::NotFound { .. }) && !error.to_string().contains("NoSuchBucket");
        let error = self.failed(verb, key, error);
        match error.kind() {
            ErrorKind::NotFound if !are_gone => error.with_kind(ErrorKind::Server),
            _ => error,
        }
    }

    /// Writes a part; its version. [`ErrorKind::NotFound`] when its object was finished or given up.
    pub(super) async fn put_part(&self, key: &Path, id: &str, index: usize, bytes: Bytes) -> Result<String, Error> {
        let written = self.store.put_part(key, &id.to_owned(), index, PutPayload::from_bytes(bytes)).await;
        written.map(|part| part.content_id).map_err(|e| self.failed_at_parts("write a part of", key, e))
    }

    /// Makes an object of its parts.
    pub(super) async fn join_parts(&self, key: &Path, id: &str, parts: &[String], len: u64) -> Result<(), Error> {
        let parts = parts.iter().map(|part| PartId { content_id: part.clone() }).collect();
        let id = id.to_owned();
        let error = match tokio::time::timeout(MOVE_TIME, self.carrier.complete_multipart(key, &id, parts)).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(e)) => self.failed_at_parts("join the parts of", key, e),
            Err(_) => self.stalled("join the parts of", key),
        };
        // The answer to an earlier attempt may have been lost, and then the parts are gone because they were joined.
        if self.head(key).await?.is_some_and(|meta| meta.len == len) { Ok(()) } else { Err(error) }
    }

    /// Throws the parts away; they need not be there.
    pub(super) async fn drop_parts(&self, key: &Path, id: &str) -> Result<(), Error> {
        match self.store.abort_multipart(key, &id.to_owned()).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(e) => Err(self.failed("drop the parts of", key, e)),
        }
    }

    /// The bytes of an object from `first` up to, not including, `end`. A connection that breaks is taken up where it broke. Nothing is
    /// read before it is wanted, so that a slow reader holds no more than one piece.
    pub(super) fn stream(&self, key: &Path, first: u64, end: u64, what: impl Into<String>) -> BlobStream {
        let reading = Reading {
            objects: self.clone(),
            key: key.clone(),
            next: first,
            end,
            body: None,
            failures: 0,
            what: what.into(),
        };
        Box::pin(reading.into_stream())
    }

    async fn begin(
        &self,
        key: &Path,
        first: u64,
        end: u64,
    ) -> Result<BoxStream<'static, object_store::Result<Bytes>>, Error> {
        let options = GetOptions { range: Some(GetRange::Bounded(first..end)), ..GetOptions::default() };
        match tokio::time::timeout(STALL_TIME, self.carrier.get_opts(key, options)).await {
            Ok(Ok(found)) if found.range.start == first => Ok(found.into_stream()),
            Ok(Ok(_)) => Err(Error::new(ErrorKind::Server, "read a blob", "the object store sent another range")),
            Ok(Err(e @ object_store::Error::NotFound { .. })) => {
                Err(self.failed("read", key, e).with_kind(ErrorKind::NotFound))
            }
            Ok(Err(e)) => Err(self.failed("read", key, e)),
            Err(_) => Err(self.stalled("read", key)),
        }
    }
}

/// A blob on its way to a reader.
struct Reading {
    objects: Objects,
    key: Path,
    next: u64,
    end: u64,
    body: Option<BoxStream<'static, object_store::Result<Bytes>>>,
    /// Since the last byte came.
    failures: u32,
    what: String,
}

impl Reading {
    fn into_stream(self) -> impl Stream<Item = Result<Bytes, Error>> + Send {
        futures_util::stream::try_unfold(self, |mut reading| async move {
            Ok(reading.piece().await?.map(|bytes| (bytes, reading)))
        })
    }

    async fn piece(&mut self) -> Result<Option<Bytes>, Error> {
        while self.next < self.end {
            let error = match self.body.as_mut() {
                None => match self.objects.begin(&self.key, self.next, self.end).await {
                    Ok(body) => {
                        self.body = Some(body);
                        continue;
                    }
                    Err(e) if e.kind() == ErrorKind::NotFound => return Err(e.context(self.what.clone())),
                    Err(e) => e,
                },
                Some(body) => match tokio::time::timeout(STALL_TIME, body.next()).await {
                    Ok(Some(Ok(bytes))) if bytes.is_empty() => continue,
                    Ok(Some(Ok(mut bytes))) => {
                        bytes.truncate(usize::try_from(self.end - self.next).unwrap_or(usize::MAX));
                        self.next += bytes.len() as u64;
                        self.failures = 0;
                        return Ok(Some(bytes));
                    }
                    Ok(Some(Err(e))) => self.objects.failed("read", &self.key, e),
                    Ok(None) => Error::new(ErrorKind::Server, "read a blob", "the object store sent too little"),
                    Err(_) => self.objects.stalled("read", &self.key),
                },
            };
            self.body = None;
            self.failures += 1;
            if self.failures > RESUMES {
                return Err(error.context(self.what.clone()));
            }
            tokio::time::sleep(RESUME_PAUSE * 2_u32.pow(self.failures - 1)).await;
        }
        Ok(None)
    }
}

/// What a failure means, in words that tell nothing of keys and addresses.
fn meaning(error: &object_store::Error, text: &str) -> (ErrorKind, &'static str) {
    use object_store::Error as E;
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    match error {
        _ if says(&["NoSuchBucket", "InvalidBucketName"]) => (ErrorKind::NotFound, "there is no such bucket"),
        _ if says(&["QuotaExceeded", "StorageFull", "507 Insufficient Storage"]) => {
            (ErrorKind::Full, "the object store is full")
        }
        E::Unauthenticated { .. } => (ErrorKind::Unauthorized, "the object store does not know the credentials"),
        _ if says(&["InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"]) => {
            (ErrorKind::Unauthorized, "the object store does not know the credentials")
        }
        E::PermissionDenied { .. } => (ErrorKind::Denied, "the object store does not allow it"),
        _ if says(&["AccessDenied", "403 Forbidden"]) => (ErrorKind::Denied, "the object store does not allow it"),
        _ if says(&["/latest/api/token", "/latest/meta-data", "169.254.170.2"]) => {
            (ErrorKind::Unauthorized, "there are no credentials for the object store")
        }
        E::NotFound { .. } => (ErrorKind::NotFound, "it is not there"),
        E::NotSupported { .. } | E::NotImplemented { .. } => (ErrorKind::Unsupported, "the object store cannot do it"),
        _ if says(&["SlowDown", "503 Service Unavailable", "429 Too Many"]) => {
            (ErrorKind::Server, "the object store asks to slow down")
        }
        _ if says(&["status code: 5"]) => (ErrorKind::Server, "the object store failed"),
        _ if says(&["status code: 4", "error response"]) => (ErrorKind::Server, "the object store refuses the request"),
        _ if says(&["operation timed out", "timed out"]) => {
            (ErrorKind::Server, "the object store does not answer in time")
        }
        _ => (ErrorKind::Server, "the object store cannot be reached"),
    }
}
