//! Writes a file tree: everything beside, checked, synced and renamed; a manifest and its tag last.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use airlock_oci::sink::ManifestName;
use airlock_oci::{
    Abilities, Content, Descriptor, Digest, Error, ErrorKind, MAX_MANIFEST_BYTES, Manifest, Repository, Sink, Tag,
};
use async_trait::async_trait;

use super::{BLOBS, MANIFESTS, VERSION, digest_of, file, folder, tagged};
use crate::disk::{self, DirectorySyncs};
use crate::source::blocking;
use crate::staged;

/// How files that have no name yet begin. No repository can have such a name.
const TEMPORARY: &str = ".airlock-";

/// A file tree being written.
#[derive(Clone, Debug)]
pub struct Writer {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    /// Held while a folder of manifests is changed: a tag is removed and made anew.
    manifests: Mutex<()>,
    /// Held open, since it holds the lock.
    _lock: File,
}

/// Whether a file system cannot do this at all (FAT knows neither kind of link).
fn is_unsupported(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied | io::ErrorKind::TooManyLinks)
}

impl Writer {
    /// Opens the tree below `root`, and makes it where there is none. [`ErrorKind::Locked`] when another process of ours writes to it.
    pub fn open(root: &Path) -> Result<Self, Error> {
        let what = || format!("open the file tree `{}` for writing", root.display());
        fs::create_dir_all(root.join(VERSION)).map_err(|e| Error::io(what(), &e))?;
        // The directory itself is locked, so that nothing lies in it that is no part of a tree.
        let lock = File::open(root).map_err(|e| Error::io(what(), &e))?;
        match disk::lock(&lock) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::new(ErrorKind::Locked, what(), "another process is writing to it"));
            }
            Err(TryLockError::Error(e)) => return Err(Error::io(what(), &e)),
        }
        let writer = Self { inner: Arc::new(Inner { root: root.to_owned(), manifests: Mutex::new(()), _lock: lock }) };
        // Nobody else writes here, so what an interrupted run left without a name is nobody's.
        let version = root.join(VERSION);
        for name in disk::names(&version)?.iter().filter(|n| n.starts_with(TEMPORARY)) {
            disk::remove_file(&version.join(name))?;
        }
        Ok(writer)
    }

    /// The directory.
    pub fn root(&self) -> &Path {
        &self.inner.root
    }

    /// Bytes that can still be written.
    pub fn available(&self) -> Result<u64, Error> {
        disk::available(self.root()).map_err(|e| disk::failed("find the free space of", self.root(), &e))
    }

    fn temporary(&self) -> Result<PathBuf, Error> {
        let mut bits = [0_u8; 16];
        aws_lc_rs::rand::fill(&mut bits)
            .map_err(|_| Error::new(ErrorKind::Io, "write a file tree", "the system gives no random numbers"))?;
        Ok(self.root().join(VERSION).join(format!("{TEMPORARY}{:032x}", u128::from_be_bytes(bits))))
    }

    /// Whether a manifest's file is there with the right bytes.
    fn is_whole(path: &Path, digest: &Digest) -> Result<bool, Error> {
        Ok(match disk::read_small(path, MAX_MANIFEST_BYTES) {
            Ok(Some(bytes)) => Digest::of_with(digest.algorithm(), &bytes) == *digest,
            Ok(None) => false,
            Err(e) if e.kind() == ErrorKind::Invalid => false,
            Err(e) => return Err(e),
        })
    }

    fn write_manifest(&self, repository: &Repository, manifest: &Manifest, tag: Option<&Tag>) -> Result<(), Error> {
        let _held = self.inner.manifests.lock().unwrap_or_else(PoisonError::into_inner);
        let (root, digest) = (self.root(), manifest.digest());
        let mut syncs = DirectorySyncs::default();
        let (blob, own) = (file(root, repository, BLOBS, digest), file(root, repository, MANIFESTS, digest));
        if !Self::is_whole(&blob, digest)? {
            disk::write_beside(&self.temporary()?, &blob, manifest.bytes(), &mut syncs)?;
        }
        if !Self::is_whole(&own, digest)? {
            let beside = self.temporary()?;
            match fs::hard_link(&blob, &beside) {
                Ok(()) => syncs.publish(&beside, &own)?,
                Err(e) if is_unsupported(&e) => disk::write_beside(&beside, &own, manifest.bytes(), &mut syncs)?,
                Err(e) => return Err(disk::failed("link to", &blob, &e)),
            }
        }
        // The tag comes after what it points at, also after a power cut.
        syncs.sync()?;
        if let Some(tag) = tag {
            let path = folder(root, repository, MANIFESTS).join(tag.as_str());
            let beside = self.temporary()?;
            symlink(digest.to_string(), &beside).map_err(|e| {
                let unsupported = is_unsupported(&e);
                let error = disk::failed("write the tag", &path, &e);
                if unsupported {
                    error.hint("the file system has no symbolic links; choose a folder on another one")
                } else {
                    error
                }
            })?;
            syncs.publish(&beside, &path).inspect_err(|_| {
                let _ = fs::remove_file(&beside);
            })?;
            syncs.sync()?;
        }
        Ok(())
    }

    /// A blob of another repository, under a second name.
    fn link(&self, repository: &Repository, blob: &Descriptor, from: &Repository) -> Result<bool, Error> {
        let (own, other) =
            (file(self.root(), repository, BLOBS, &blob.digest), file(self.root(), from, BLOBS, &blob.digest));
        if disk::open(&other)?.is_none_or(|(_, len)| len != blob.size) {
            return Ok(false);
        }
        let beside = self.temporary()?;
        match fs::hard_link(&other, &beside) {
            Ok(()) => {}
            Err(e) if is_unsupported(&e) || disk::is_absent(&e) => return Ok(false),
            Err(e) => return Err(disk::failed("link to", &other, &e)),
        }
        let mut syncs = DirectorySyncs::default();
        syncs.publish(&beside, &own)?;
        syncs.sync()?;
        // Renaming a name onto another of the same file leaves both.
        disk::remove_file(&beside)?;
        Ok(true)
    }

    fn remove(&self, repository: &Repository, at: &ManifestName) -> Result<bool, Error> {
        let _held = self.inner.manifests.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = folder(self.root(), repository, MANIFESTS);
        let mut syncs = DirectorySyncs::default();
        let mut remove = |name: &str| {
            let path = folder.join(name);
            let removed = disk::remove_file(&path)?;
            syncs.changed(&path);
            Ok::<_, Error>(removed)
        };
        let removed = match at {
            ManifestName::Tag(tag) => tagged(self.root(), repository, tag)?.is_some() && remove(tag.as_str())?,
            ManifestName::Digest(digest) => {
                // Tags first: one that points at nothing would be a lie.
                for name in disk::names(&folder)? {
                    let target = fs::read_link(folder.join(&name)).ok();
                    if target.and_then(|t| t.to_str().and_then(digest_of)).as_ref() == Some(digest) {
                        remove(&name)?;
                    }
                }
                remove(&digest.to_string())?
            }
        };
        if removed {
            syncs.sync()?;
        }
        Ok(removed)
    }
}

#[async_trait]
impl Sink for Writer {
    fn describe(&self) -> String {
        format!("file tree {}", self.root().display())
    }

    fn abilities(&self) -> Abilities {
        Abilities { mount: true, sparse_index: Some(true), referrers: true, delete: true }
    }

    async fn head_manifest(&self, repository: &Repository, at: &ManifestName) -> Result<Option<Digest>, Error> {
        let (writer, repository, at) = (self.clone(), repository.clone(), at.clone());
        blocking(move || {
            let digest = match at {
                ManifestName::Digest(digest) => digest,
                ManifestName::Tag(tag) => match tagged(writer.root(), &repository, &tag) {
                    Ok(Some(digest)) => digest,
                    Ok(None) => return Ok(None),
                    // A tag that leads elsewhere is written anew.
                    Err(e) if e.kind() == ErrorKind::Content => return Ok(None),
                    Err(e) => return Err(e),
                },
            };
            let whole = Self::is_whole(&file(writer.root(), &repository, MANIFESTS, &digest), &digest)?;
            Ok(whole.then_some(digest))
        })
        .await
    }

    async fn has_blob(&self, repository: &Repository, blob: &Descriptor) -> Result<bool, Error> {
        let (path, size) = (file(self.root(), repository, BLOBS, &blob.digest), blob.size);
        blocking(move || Ok(disk::open(&path)?.is_some_and(|(_, len)| len == size))).await
    }

    async fn mount_blob(&self, repository: &Repository, blob: &Descriptor, from: &Repository) -> Result<bool, Error> {
        let (writer, repository, blob, from) = (self.clone(), repository.clone(), blob.clone(), from.clone());
        blocking(move || writer.link(&repository, &blob, &from)).await
    }

    async fn write_blob(&self, repository: &Repository, blob: &Descriptor, content: &dyn Content) -> Result<(), Error> {
        let to = file(self.root(), repository, BLOBS, &blob.digest);
        staged::write_blob(blob, content, self.temporary()?, &to).await
    }

    async fn put_manifest(&self, repository: &Repository, manifest: &Manifest, tag: Option<&Tag>) -> Result<(), Error> {
        let (writer, repository, manifest, tag) = (self.clone(), repository.clone(), manifest.clone(), tag.cloned());
        blocking(move || writer.write_manifest(&repository, &manifest, tag.as_ref())).await
    }

    async fn delete_manifest(&self, repository: &Repository, at: &ManifestName) -> Result<(), Error> {
        let (writer, repository, at) = (self.clone(), repository.clone(), at.clone());
        blocking(move || {
            if writer.remove(&repository, &at)? {
                return Ok(());
            }
            let what = format!("delete `{at}` of `{repository}` in `{}`", writer.root().display());
            Err(Error::new(ErrorKind::NotFound, what, "it is not there"))
        })
        .await
    }
}
