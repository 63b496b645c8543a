//! What a server reads from and writes to: a local disk, whose work is done on blocking threads, or a bucket.
//!
//! The two are a closed set, so that what only a disk can do stays in sight: answers at once from memory
//! ([`Reader::manifest_at_once`]), and regions of files that the kernel sends.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use airlock_oci::sink::ManifestName;
use airlock_oci::{Algorithm, BlobStream, Descriptor, Digest, Error, ErrorKind, Manifest, Repository, Tag};
use airlock_store::bucket::{self, Bucket};
use airlock_store::distribution::{self, Expected, UploadId, UploadStatus};
use airlock_store::{Region, Storage, Verified};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use tokio::runtime::Handle;

/// Content to read.
#[derive(Clone)]
pub(crate) enum Reader {
    Disk(Arc<dyn Storage>),
    Bucket(Bucket),
}

/// Content to write.
#[derive(Clone, Debug)]
pub(crate) enum Writer {
    Disk(distribution::Writer),
    Bucket(Bucket),
}

/// A blob that is there.
pub(crate) enum Blob {
    File(Region),
    Object(bucket::Blob),
}

/// The hold of an upload.
pub(crate) enum Upload {
    Disk(distribution::Upload),
    Bucket(Box<bucket::Upload>),
}

/// A bucket as storage that answers where it may block, never on the threads that serve.
struct Shelf {
    bucket: Bucket,
    runtime: Handle,
}

impl Storage for Shelf {
    fn describe(&self) -> String {
        self.bucket.describe()
    }

    fn repositories(&self) -> Result<Vec<Repository>, Error> {
        self.runtime.block_on(self.bucket.repositories())
    }

    fn repositories_after(&self, after: Option<&Repository>, most: usize) -> Result<Vec<Repository>, Error> {
        self.runtime.block_on(self.bucket.repositories_after(after, most))
    }

    fn tags(&self, repository: &Repository) -> Result<Option<Vec<Tag>>, Error> {
        self.tags_after(repository, "", usize::MAX)
    }

    fn tags_after(&self, repository: &Repository, after: &str, most: usize) -> Result<Option<Vec<Tag>>, Error> {
        self.runtime.block_on(self.bucket.tags_after(repository, after, most))
    }

    fn manifest(&self, repository: &Repository, at: &ManifestName) -> Result<Option<Manifest>, Error> {
        self.runtime.block_on(self.bucket.manifest(repository, at))
    }

    /// The object is fetched into a file without a name.
    fn blob(&self, repository: &Repository, digest: &Digest) -> Result<Option<Region>, Error> {
        let failed = |e: &std::io::Error| Error::io(format!("fetch blob `{digest}` from the bucket"), e);
        self.runtime.block_on(async {
            let Some(blob) = self.bucket.blob(repository, digest).await? else { return Ok(None) };
            let mut file = tempfile::tempfile().map_err(|e| failed(&e))?;
            let mut stream = blob.stream(0, blob.len(), format!("fetch blob `{digest}`"));
            while let Some(bytes) = stream.next().await {
                file.write_all(&bytes?).map_err(|e| failed(&e))?;
            }
            Ok(Some(Region { file: Arc::new(file), offset: 0, len: blob.len() }))
        })
    }

    fn referrers(&self, repository: &Repository, subject: &Digest) -> Result<Vec<Descriptor>, Error> {
        self.runtime.block_on(self.bucket.referrers(repository, subject))
    }

    fn verified(&self) -> Option<Verified> {
        self.runtime.block_on(self.bucket.verified()).ok().flatten()
    }
}

/// Runs disk work where it may block.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(e) => Err(Error::new(ErrorKind::Io, "answer a request", e)),
    }
}

impl Blob {
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::File(region) => region.len,
            Self::Object(blob) => blob.len(),
        }
    }

    pub(crate) fn stream(&self, first: u64, end: u64, what: String) -> BlobStream {
        match self {
            Self::File(region) => region.stream(first, end, what),
            Self::Object(blob) => blob.stream(first, end, what),
        }
    }
}

impl Reader {
    /// For messages.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Disk(storage) => storage.describe(),
            Self::Bucket(bucket) => bucket.describe(),
        }
    }

    pub(crate) async fn repositories(&self) -> Result<Vec<Repository>, Error> {
        match self {
            Self::Disk(storage) => {
                let storage = storage.clone();
                blocking(move || storage.repositories()).await
            }
            Self::Bucket(bucket) => bucket.repositories().await,
        }
    }

    pub(crate) async fn repositories_after(
        &self,
        after: Option<&Repository>,
        most: usize,
    ) -> Result<Vec<Repository>, Error> {
        match self {
            Self::Disk(storage) => {
                let (storage, after) = (storage.clone(), after.cloned());
                blocking(move || storage.repositories_after(after.as_ref(), most)).await
            }
            Self::Bucket(bucket) => bucket.repositories_after(after, most).await,
        }
    }

    pub(crate) async fn tags_after(
        &self,
        repository: &Repository,
        after: &str,
        most: usize,
    ) -> Result<Option<Vec<Tag>>, Error> {
        match self {
            Self::Disk(storage) => {
                let (storage, repository, after) = (storage.clone(), repository.clone(), after.to_owned());
                blocking(move || storage.tags_after(&repository, &after, most)).await
            }
            Self::Bucket(bucket) => bucket.tags_after(repository, after, most).await,
        }
    }

    /// See [`Storage::manifest_at_once`].
    pub(crate) fn manifest_at_once(&self, repository: &Repository, at: &ManifestName) -> Option<Manifest> {
        match self {
            Self::Disk(storage) => storage.manifest_at_once(repository, at),
            Self::Bucket(_) => None,
        }
    }

    pub(crate) async fn manifest(&self, repository: &Repository, at: &ManifestName) -> Result<Option<Manifest>, Error> {
        match self {
            Self::Disk(storage) => {
                let (storage, repository, at) = (storage.clone(), repository.clone(), at.clone());
                blocking(move || storage.manifest(&repository, &at)).await
            }
            Self::Bucket(bucket) => bucket.manifest(repository, at).await,
        }
    }

    /// See [`Storage::elsewhere`].
    pub(crate) fn elsewhere(&self, repository: &Repository, digest: &Digest) -> Option<String> {
        match self {
            Self::Disk(storage) => storage.elsewhere(repository, digest),
            Self::Bucket(_) => None,
        }
    }

    /// The same content, for work on blocking threads.
    pub(crate) fn shelf(&self) -> Arc<dyn Storage> {
        match self {
            Self::Disk(storage) => Arc::clone(storage),
            Self::Bucket(bucket) => Arc::new(Shelf { bucket: bucket.clone(), runtime: Handle::current() }),
        }
    }

    pub(crate) async fn blob(&self, repository: &Repository, digest: &Digest) -> Result<Option<Blob>, Error> {
        match self {
            Self::Disk(storage) => {
                if let Some(region) = storage.blob_at_once(repository, digest) {
                    return Ok(Some(Blob::File(region)));
                }
                let (storage, repository, digest) = (storage.clone(), repository.clone(), digest.clone());
                Ok(blocking(move || storage.blob(&repository, &digest)).await?.map(Blob::File))
            }
            Self::Bucket(bucket) => Ok(bucket.blob(repository, digest).await?.map(Blob::Object)),
        }
    }

    pub(crate) async fn referrers(&self, repository: &Repository, subject: &Digest) -> Result<Vec<Descriptor>, Error> {
        match self {
            Self::Disk(storage) => {
                let (storage, repository, subject) = (storage.clone(), repository.clone(), subject.clone());
                blocking(move || storage.referrers(&repository, &subject)).await
            }
            Self::Bucket(bucket) => bucket.referrers(repository, subject).await,
        }
    }
}

impl Writer {
    /// The disk's writer, for what only a disk needs.
    pub(crate) fn disk(&self) -> Option<&distribution::Writer> {
        match self {
            Self::Disk(writer) => Some(writer),
            Self::Bucket(_) => None,
        }
    }

    /// The same content, to read.
    pub(crate) fn reader(&self) -> Reader {
        match self {
            Self::Disk(writer) => Reader::Disk(Arc::new(writer.clone())),
            Self::Bucket(bucket) => Reader::Bucket(bucket.clone()),
        }
    }

    /// Our own folder, where there is one.
    pub(crate) fn own_folder(&self) -> Option<PathBuf> {
        self.disk().map(distribution::Writer::own_folder)
    }

    /// Bytes that can still be written, where that is known.
    pub(crate) async fn available(&self) -> Option<u64> {
        let writer = self.disk()?.clone();
        blocking(move || writer.available()).await.ok()
    }

    /// Bytes of a blob at most, where there is such a limit.
    pub(crate) fn max_blob_bytes(&self) -> Option<u64> {
        match self {
            Self::Disk(_) => None,
            Self::Bucket(_) => Some(bucket::MAX_BLOB_BYTES),
        }
    }

    /// Whether an upload that is not there any more may have been finished, by a request whose client did not wait for the answer.
    pub(crate) async fn was_finished(&self, repository: &Repository, digest: &Digest) -> Result<bool, Error> {
        match self {
            // There a request ends with its client.
            Self::Disk(_) => Ok(false),
            Self::Bucket(bucket) => Ok(bucket.claim_blob(repository, digest).await?.is_some()),
        }
    }

    pub(crate) fn open_uploads(&self) -> usize {
        match self {
            Self::Disk(writer) => writer.open_uploads(),
            Self::Bucket(bucket) => bucket.open_uploads(),
        }
    }

    pub(crate) fn is_searched(&self) -> bool {
        match self {
            Self::Disk(writer) => writer.is_searched(),
            Self::Bucket(bucket) => bucket.is_searched(),
        }
    }

    /// Puts in place what waits, before the program ends.
    pub(crate) async fn flush(&self) -> Result<(), Error> {
        match self {
            Self::Disk(writer) => {
                let writer = writer.clone();
                blocking(move || writer.flush()).await
            }
            Self::Bucket(_) => Ok(()),
        }
    }

    /// What has to be done now and then; how many uploads were removed.
    pub(crate) async fn maintain(&self) -> Result<usize, Error> {
        match self {
            Self::Disk(writer) => {
                let writer = writer.clone();
                blocking(move || writer.maintain()).await
            }
            Self::Bucket(bucket) => bucket.maintain().await,
        }
    }

    pub(crate) async fn search_repositories(&self) -> Result<(), Error> {
        match self {
            Self::Disk(writer) => {
                let writer = writer.clone();
                blocking(move || writer.search_repositories()).await
            }
            Self::Bucket(bucket) => bucket.search_repositories().await,
        }
    }

    /// See [`distribution::Writer::claim_manifest_at_once`].
    pub(crate) fn claim_manifest_at_once(&self, repository: &Repository, at: &ManifestName) -> Option<Manifest> {
        match self {
            Self::Disk(writer) => writer.claim_manifest_at_once(repository, at),
            Self::Bucket(_) => None,
        }
    }

    /// A manifest for somebody who would push it if it were not there. A bucket has no imports whose generations could end.
    pub(crate) async fn claim_manifest(
        &self,
        repository: &Repository,
        at: &ManifestName,
    ) -> Result<Option<Manifest>, Error> {
        match self {
            Self::Disk(writer) => {
                let (writer, repository, at) = (writer.clone(), repository.clone(), at.clone());
                blocking(move || writer.claim_manifest(&repository, &at)).await
            }
            Self::Bucket(bucket) => bucket.manifest(repository, at).await,
        }
    }

    /// A blob for somebody who is going to name it in a manifest.
    pub(crate) async fn claim_blob(&self, repository: &Repository, digest: &Digest) -> Result<Option<Blob>, Error> {
        match self {
            Self::Disk(writer) => {
                if let Some(region) = writer.claim_blob_at_once(repository, digest) {
                    return Ok(Some(Blob::File(region)));
                }
                let (writer, repository, digest) = (writer.clone(), repository.clone(), digest.clone());
                Ok(blocking(move || writer.claim_blob(&repository, &digest)).await?.map(Blob::File))
            }
            Self::Bucket(bucket) => Ok(bucket.claim_blob(repository, digest).await?.map(Blob::Object)),
        }
    }

    /// Puts a blob aside whose bytes are not those of its digest; whether it was so. In a bucket only a scrub does.
    pub(crate) async fn heal_blob(&self, digest: &Digest) -> Result<bool, Error> {
        match self {
            Self::Disk(writer) => {
                let (writer, digest) = (writer.clone(), digest.clone());
                blocking(move || writer.heal_blob(&digest)).await
            }
            Self::Bucket(_) => Ok(false),
        }
    }

    pub(crate) async fn mount_blob(
        &self,
        repository: &Repository,
        digest: &Digest,
        from: Option<&Repository>,
    ) -> Result<bool, Error> {
        match self {
            Self::Disk(writer) => {
                let (writer, from) = (writer.clone(), from.cloned());
                let (repository, digest) = (repository.clone(), digest.clone());
                blocking(move || writer.mount_blob(&repository, &digest, from.as_ref())).await
            }
            Self::Bucket(bucket) => bucket.mount_blob(repository, digest, from).await,
        }
    }

    pub(crate) async fn put_manifest_if(
        &self,
        repository: &Repository,
        manifest: &Manifest,
        tags: &[Tag],
        expected: &Expected,
    ) -> Result<bool, Error> {
        match self {
            Self::Disk(writer) => {
                let (writer, repository, manifest) = (writer.clone(), repository.clone(), manifest.clone());
                let (tags, expected) = (tags.to_vec(), expected.clone());
                blocking(move || writer.put_manifest_if(&repository, &manifest, &tags, &expected)).await
            }
            Self::Bucket(bucket) => bucket.put_manifest_if(repository, manifest, tags, expected).await,
        }
    }

    /// Deletes a tag alone, or a manifest with all its tags.
    pub(crate) async fn delete(&self, repository: Repository, at: ManifestName) -> Result<bool, Error> {
        match self {
            Self::Disk(writer) => {
                let writer = writer.clone();
                blocking(move || match &at {
                    ManifestName::Tag(tag) => writer.delete_tag(&repository, tag),
                    ManifestName::Digest(digest) => writer.delete_manifest(&repository, digest),
                })
                .await
            }
            Self::Bucket(bucket) => match &at {
                ManifestName::Tag(tag) => bucket.delete_tag(&repository, tag).await,
                ManifestName::Digest(digest) => bucket.delete_manifest(&repository, digest).await,
            },
        }
    }

    pub(crate) async fn delete_blob(&self, repository: Repository, digest: &Digest) -> Result<bool, Error> {
        match self {
            Self::Disk(writer) => {
                let (writer, digest) = (writer.clone(), digest.clone());
                blocking(move || writer.delete_blob(&repository, &digest)).await
            }
            Self::Bucket(bucket) => bucket.delete_blob(&repository, digest).await,
        }
    }

    pub(crate) async fn begin_upload(&self, repository: &Repository, algorithm: Algorithm) -> Result<UploadId, Error> {
        match self {
            Self::Disk(writer) => writer.begin_upload(repository, algorithm),
            Self::Bucket(bucket) => bucket.begin_upload(repository, algorithm).await,
        }
    }

    /// An upload that nobody else can find, of a blob whose name is known.
    pub(crate) fn named_upload(&self, repository: &Repository, digest: &Digest) -> Result<Upload, Error> {
        match self {
            Self::Disk(writer) => writer.private_upload(repository, digest.algorithm()).map(Upload::Disk),
            Self::Bucket(bucket) => Ok(Upload::Bucket(Box::new(bucket.named_upload(repository, digest)?))),
        }
    }

    pub(crate) async fn upload_status(
        &self,
        repository: &Repository,
        id: &UploadId,
    ) -> Result<Option<UploadStatus>, Error> {
        match self {
            Self::Disk(writer) => Ok(writer.upload_status(repository, id)),
            Self::Bucket(bucket) => bucket.upload_status(repository, id).await,
        }
    }

    pub(crate) async fn upload(&self, repository: &Repository, id: &UploadId) -> Result<Option<Upload>, Error> {
        match self {
            Self::Disk(writer) => Ok(writer.upload(repository, id).await?.map(Upload::Disk)),
            Self::Bucket(bucket) => {
                Ok(bucket.upload(repository, id).await?.map(|upload| Upload::Bucket(Box::new(upload))))
            }
        }
    }
}

impl Upload {
    pub(crate) fn offset(&self) -> u64 {
        match self {
            Self::Disk(upload) => upload.offset(),
            Self::Bucket(upload) => upload.offset(),
        }
    }

    pub(crate) fn id(&self) -> &UploadId {
        match self {
            Self::Disk(upload) => upload.id(),
            Self::Bucket(upload) => upload.id(),
        }
    }

    pub(crate) async fn append<S>(&mut self, body: S) -> Result<(), Error>
    where
        S: Stream<Item = Result<Bytes, Error>> + Unpin,
    {
        match self {
            Self::Disk(upload) => upload.append(body).await,
            Self::Bucket(upload) => upload.append(body).await,
        }
    }

    /// Writes down how far it is, before that is acknowledged.
    pub(crate) async fn save(&mut self) -> Result<(), Error> {
        match self {
            Self::Disk(_) => Ok(()),
            Self::Bucket(upload) => upload.save().await,
        }
    }

    pub(crate) async fn finish(self, digest: &Digest) -> Result<u64, Error> {
        match self {
            Self::Disk(upload) => upload.finish(digest).await,
            Self::Bucket(upload) => upload.finish(digest).await,
        }
    }

    pub(crate) async fn cancel(self) -> Result<(), Error> {
        match self {
            Self::Disk(upload) => upload.cancel().await,
            Self::Bucket(upload) => upload.cancel().await,
        }
    }
}
