//! The storage as a place that an import writes to, whether a registry serves it meanwhile or not.
//!
//! Blobs are written by the import itself, under their digests in `.airlock/import`, and verified there; where the source is storage on
//! the same file system, its files are linked there and then read and hashed, so that exactly what was verified is taken. What changes the
//! storage then (giving a blob its place, writing manifests, records) is asked of a [`Keeper`]: the writer of this process,
//! or the registry that serves the storage. It takes what is complete out of that folder; what is not complete stays there: an import that
//! was killed goes on where it stopped.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use airlock_oci::sink::ManifestName;
use airlock_oci::{
    Abilities, BlobStream, Content, Descriptor, Digest, Error, ErrorKind, Hasher, Manifest, Repository, Sink, Tag,
};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use rustix::fs::OFlags;
use tokio::task::JoinHandle;

use super::Directory;
use super::generations::Generation;
use super::keeper::{Change, Changed, Keeper, LOCK, take_lock};
use crate::disk::{self, DirectorySyncs};
use crate::source::blocking;
use crate::storage::Storage;

/// Received bytes that are hashed and written in one go. While they are, the next ones are received.
const BATCH_BYTES: usize = 512 * 1024;
/// Bytes of a linked file that are hashed before the task looks whether it is still wanted.
const STEP_BYTES: u64 = 16 * 1024 * 1024;
/// Bytes read at once.
const READ_BYTES: usize = 256 * 1024;

/// A link that is only tried. No digest is called so.
const PROBE: &str = "probe";

/// Says where a file with a blob's bytes may lie.
type Files = dyn Fn(&Digest) -> Option<PathBuf> + Send + Sync;

/// The storage that an import writes to. One at a time.
pub struct Intake {
    directory: Arc<Directory>,
    keeper: Arc<dyn Keeper>,
    /// Files of the source that can be linked.
    files: Option<Box<Files>>,
    linked: AtomicU64,
    /// Where blobs are until they are whole: the folder itself, whatever its name comes to mean.
    folder: File,
    _lock: File,
}

/// A blob that is coming in.
struct Partial {
    path: PathBuf,
    file: File,
    hasher: Hasher,
    len: u64,
}

impl Intake {
    /// Opens the storage below `root`, which `keeper` changes. [`ErrorKind::Locked`] when another import is under way. Blocks.
    pub fn open(root: &Path, keeper: Arc<dyn Keeper>) -> Result<Self, Error> {
        let directory = Arc::new(Directory::open(root)?);
        let folder = directory.paths.imports();
        let mut syncs = DirectorySyncs::default();
        syncs.create(&folder)?;
        syncs.sync()?;
        let opened = real_folder(&folder)?;
        let Some(lock) = take_lock(&folder)? else {
            return Err(Error::new(
                ErrorKind::Locked,
                format!("import into `{}`", root.display()),
                "another import into it is under way",
            )
            .hint("wait for it, or stop it: what it has fetched is kept"));
        };
        Ok(Self { directory, keeper, files: None, linked: AtomicU64::new(0), folder: opened, _lock: lock })
    }

    /// Blobs whose file `files` knows are linked instead of copied, where the file system allows it.
    pub fn linking(mut self, files: impl Fn(&Digest) -> Option<PathBuf> + Send + Sync + 'static) -> Self {
        self.files = Some(Box::new(files));
        self
    }

    /// Whether a blob's file can be linked, found by doing it: the file system and the kernel (`protected_hardlinks`) have their own minds.
    pub fn can_link(&self, digest: &Digest) -> bool {
        let Some(from) = self.files.as_ref().and_then(|files| files(digest)) else { return false };
        let probe = self.directory.paths.imports().join(PROBE);
        let _ = fs::remove_file(&probe);
        let can = link_file(&from, &probe);
        let _ = fs::remove_file(&probe);
        can
    }

    /// The storage, for reading.
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Bytes of blobs that were linked.
    pub fn linked_bytes(&self) -> u64 {
        self.linked.load(Ordering::Relaxed)
    }

    /// Bytes that can still be written.
    pub fn available(&self) -> Result<u64, Error> {
        let root = self.directory.root();
        disk::available(root).map_err(|e| disk::failed("find the free space of", root, &e))
    }

    /// Writes the record of a generation; answers its number.
    pub async fn record(&self, generation: Generation) -> Result<u64, Error> {
        self.change(Change::Record(Box::new(generation))).await.map(|changed| changed.number)
    }

    /// Removes the record of a generation.
    pub async fn forget(&self, number: u64) -> Result<(), Error> {
        self.change(Change::Forget { number }).await.map(|_| ())
    }

    /// Has everything that was written given its place. To be called before what was left is tidied up.
    pub async fn flush(&self) -> Result<(), Error> {
        self.change(Change::Flush).await.map(|_| ())
    }

    /// Removes what no import needs any more; to be called when one has come to its end.
    pub fn tidy(&self) -> Result<(), Error> {
        let folder = PathBuf::from(format!("/proc/self/fd/{}", self.folder.as_raw_fd()));
        for name in disk::names(&folder)?.into_iter().filter(|name| name != LOCK) {
            disk::remove_file(&folder.join(name))?;
        }
        Ok(())
    }

    async fn change(&self, change: Change) -> Result<Changed, Error> {
        let keeper = Arc::clone(&self.keeper);
        blocking(move || keeper.change(&change)).await
    }

    /// Links the source's file and hashes what was linked. `false`: it cannot be linked.
    async fn link(&self, blob: &Descriptor, path: &Path) -> Result<bool, Error> {
        let Some(from) = self.files.as_ref().and_then(|files| files(&blob.digest)) else { return Ok(false) };
        let what = format!("take blob `{}` from `{}`", blob.digest, from.display());
        let (to, size, algorithm) = (path.to_owned(), blob.size, blob.digest.algorithm());
        let opened = blocking(move || {
            disk::remove_file(&to)?;
            if !link_file(&from, &to) {
                return Ok(None);
            }
            let opened = disk::open(&to)?;
            Ok(opened.map(|(file, len)| (file, len, Hasher::new(algorithm))))
        })
        .await?;
        let Some((mut file, len, mut hasher)) = opened else { return Ok(false) };
        let wrong = |cause: String| {
            // Its name here goes; the source's file stays as it is.
            let _ = fs::remove_file(path);
            Err(Error::new(ErrorKind::Content, what.clone(), cause)
                .hint("the source is damaged there; find the image elsewhere, or leave it out"))
        };
        if len != size {
            return wrong(format!("it has {len} bytes, the manifest says {size}"));
        }
        let mut at = 0;
        while at < len {
            let end = len.min(at + STEP_BYTES);
            let failed = what.clone();
            (file, hasher) = blocking(move || {
                let mut buffer = vec![0; READ_BYTES];
                while at < end {
                    let want = buffer.len().min((end - at) as usize);
                    // What the source's disk cannot read is the source's damage.
                    file.read_exact_at(&mut buffer[..want], at)
                        .map_err(|e| Error::io(failed.clone(), &e).with_kind(ErrorKind::Damaged))?;
                    hasher.update(&buffer[..want]);
                    at += want as u64;
                }
                Ok((file, hasher))
            })
            .await?;
            at = end;
        }
        let found = hasher.finish();
        if found != blob.digest {
            return wrong(format!("its bytes have the digest `{found}`"));
        }
        Ok(true)
    }

    /// Receives the blob, going on with what an earlier import has of it; answers whether its bytes are right.
    async fn receive(&self, blob: &Descriptor, content: &dyn Content, path: &Path) -> Result<bool, Error> {
        let (at, wanted) = (path.to_owned(), blob.clone());
        let mut partial = blocking(move || Partial::open(at, &wanted)).await?;
        if partial.len < blob.size {
            let body = content.open(partial.len).await?;
            partial = append(partial, body, blob.size).await?;
        }
        if partial.len > blob.size {
            remove(path).await?;
            return Err(wrong(blob, format!("more bytes came than the {} that the manifest says", blob.size)));
        }
        if partial.len < blob.size {
            return Err(wrong(blob, format!("only {} bytes came, the manifest says {}", partial.len, blob.size)));
        }
        let found = partial.hasher.finish();
        if found == blob.digest {
            return Ok(true);
        }
        remove(path).await?;
        Ok(false)
    }
}

/// Writes what the stream gives, one piece beyond `most` bytes at most. What came before an error is kept for the next attempt.
async fn append(partial: Partial, mut body: BlobStream, most: u64) -> Result<Partial, Error> {
    let mut received = partial.len;
    let mut writing = tokio::task::spawn_blocking(move || Ok(partial));
    loop {
        let (mut batch, mut bytes, mut end) = (Vec::new(), 0, None);
        while bytes < BATCH_BYTES && end.is_none() {
            match body.next().await {
                Some(Ok(chunk)) => {
                    bytes += chunk.len();
                    batch.push(chunk);
                }
                Some(Err(e)) => end = Some(Err(e)),
                None => end = Some(Ok(())),
            }
        }
        received += bytes as u64;
        if received > most {
            end = Some(Ok(()));
        }
        let mut partial = settled(writing).await?;
        writing = tokio::task::spawn_blocking(move || {
            partial.write(&batch)?;
            Ok(partial)
        });
        if let Some(end) = end {
            let partial = settled(writing).await?;
            return end.map(|()| partial);
        }
    }
}

async fn settled(written: JoinHandle<Result<Partial, Error>>) -> Result<Partial, Error> {
    written.await.map_err(|e| Error::new(ErrorKind::Io, "write a blob", e))?
}

/// Opens the folder of imports, which is no link: who keeps the storage could otherwise have root write and delete elsewhere.
fn real_folder(folder: &Path) -> Result<File, Error> {
    let is_link = |path: &Path| fs::symlink_metadata(path).is_ok_and(|m| m.is_symlink());
    if let Some(link) = [Some(folder), folder.parent()].into_iter().flatten().find(|path| is_link(path)) {
        let what = format!("import by way of `{}`", folder.display());
        return Err(Error::new(ErrorKind::Refused, what, format!("`{}` is a link", link.display()))
            .hint("nothing is imported through links there: make it a folder"));
    }
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW;
    let opened = File::options().read(true).custom_flags(flags.bits() as i32).open(folder);
    let opened = opened.map_err(|e| disk::failed("open", folder, &e))?;
    let given = disk::give_to_owner_of(folder.parent().unwrap_or(folder), &opened);
    given.map_err(|e| disk::failed("change the owner of", folder, &e))?;
    Ok(opened)
}

/// Gives a file one more name; `false` when that cannot be done. A link is followed, so that no link comes into the storage.
fn link_file(from: &Path, to: &Path) -> bool {
    let linked = from.canonicalize().and_then(|from| fs::hard_link(from, to));
    if linked.is_ok() && fs::symlink_metadata(to).is_ok_and(|m| !m.is_file()) {
        // Replaced by a link between the two steps.
        let _ = fs::remove_file(to);
        return false;
    }
    linked.is_ok()
}

async fn remove(path: &Path) -> Result<(), Error> {
    let path = path.to_owned();
    blocking(move || disk::remove_file(&path).map(|_| ())).await
}

fn wrong(blob: &Descriptor, cause: String) -> Error {
    Error::new(ErrorKind::Content, format!("import blob `{}`", blob.digest), cause)
}

impl Partial {
    /// Opens what is there of a blob, hashing it.
    fn open(path: PathBuf, blob: &Descriptor) -> Result<Self, Error> {
        let failed = |e: &std::io::Error| disk::failed("open", &path, e);
        // A link to the source's file is none of ours to write to, nor is what a link leads to.
        if fs::symlink_metadata(&path).is_ok_and(|m| !m.is_file() || m.nlink() > 1) {
            disk::remove_file(&path)?;
        }
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false).custom_flags(OFlags::NOFOLLOW.bits() as i32);
        let file = options.open(&path).map_err(|e| failed(&e))?;
        disk::give_to_owner_of(path.parent().unwrap_or(&path), &file).map_err(|e| failed(&e))?;
        let mut len = file.metadata().map_err(|e| failed(&e))?.len();
        if len > blob.size {
            file.set_len(0).map_err(|e| failed(&e))?;
            len = 0;
        }
        let mut hasher = Hasher::new(blob.digest.algorithm());
        let (mut buffer, mut at) = (vec![0; READ_BYTES], 0);
        while at < len {
            let want = buffer.len().min((len - at) as usize);
            file.read_exact_at(&mut buffer[..want], at).map_err(|e| disk::failed("read", &path, &e))?;
            hasher.update(&buffer[..want]);
            at += want as u64;
        }
        Ok(Self { path, file, hasher, len })
    }

    fn write(&mut self, chunks: &[Bytes]) -> Result<(), Error> {
        for chunk in chunks {
            let written = self.file.write_all_at(chunk, self.len);
            written.map_err(|e| disk::failed("write", &self.path, &e))?;
            self.hasher.update(chunk);
            self.len += chunk.len() as u64;
        }
        Ok(())
    }
}

#[async_trait]
impl Sink for Intake {
    fn describe(&self) -> String {
        self.directory.root().display().to_string()
    }

    fn abilities(&self) -> Abilities {
        Abilities { mount: true, sparse_index: Some(true), referrers: true, delete: false }
    }

    async fn head_manifest(&self, repository: &Repository, at: &ManifestName) -> Result<Option<Digest>, Error> {
        let (directory, repository, at) = (Arc::clone(&self.directory), repository.clone(), at.clone());
        blocking(move || match directory.manifest(&repository, &at) {
            Ok(manifest) => Ok(manifest.map(|m| m.digest().clone())),
            // A damaged copy is as good as none: it will be written again.
            Err(e) if e.kind() == ErrorKind::Content => Ok(None),
            Err(e) => Err(e),
        })
        .await
    }

    async fn has_blob(&self, repository: &Repository, blob: &Descriptor) -> Result<bool, Error> {
        let (directory, repository, blob) = (Arc::clone(&self.directory), repository.clone(), blob.clone());
        blocking(move || {
            let region = directory.blob(&repository, &blob.digest)?;
            Ok(region.is_some_and(|region| region.len == blob.size))
        })
        .await
    }

    async fn offer_blob(&self, repository: &Repository, blob: &Descriptor) -> Result<bool, Error> {
        let (repository, digest) = (repository.clone(), blob.digest.clone());
        self.change(Change::Offer { repository, digest, size: blob.size }).await.map(|changed| changed.there)
    }

    async fn mount_blob(&self, repository: &Repository, blob: &Descriptor, _from: &Repository) -> Result<bool, Error> {
        // Wherever in the storage it lies.
        self.offer_blob(repository, blob).await
    }

    async fn write_blob(&self, repository: &Repository, blob: &Descriptor, content: &dyn Content) -> Result<(), Error> {
        let path = self.directory.paths.imported(&blob.digest);
        let is_linked = self.link(blob, &path).await?;
        if !is_linked {
            let resumed = self.directory.kept(blob) > 0;
            let mut is_right = self.receive(blob, content, &path).await?;
            if !is_right && resumed {
                // What was left of the attempt before may have been altered, as a power cut does it: once from the start.
                is_right = self.receive(blob, content, &path).await?;
            }
            if !is_right {
                return Err(wrong(blob, "the bytes that came have another digest".into()));
            }
        }
        let change = Change::Adopt { repository: repository.clone(), digest: blob.digest.clone() };
        self.change(change).await?;
        if is_linked {
            self.linked.fetch_add(blob.size, Ordering::Relaxed);
        }
        Ok(())
    }

    async fn put_manifest(&self, repository: &Repository, manifest: &Manifest, tag: Option<&Tag>) -> Result<(), Error> {
        let text = std::str::from_utf8(manifest.bytes()).map_err(|e| {
            Error::new(ErrorKind::Unsupported, format!("write manifest `{repository}@{}`", manifest.digest()), e)
        })?;
        let change = Change::Put {
            repository: repository.clone(),
            media_type: manifest.media_type().to_owned(),
            digest: manifest.digest().clone(),
            text: text.to_owned(),
            tags: tag.cloned().into_iter().collect(),
        };
        self.change(change).await.map(|_| ())
    }

    async fn delete_manifest(&self, _repository: &Repository, at: &ManifestName) -> Result<(), Error> {
        // Its abilities say so; an import takes nothing away.
        Err(Error::new(ErrorKind::Unsupported, format!("delete `{at}`"), "an import deletes nothing"))
    }
}
