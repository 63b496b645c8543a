//! Writes an OCI layout: blobs beside and renamed, `index.json` last and replaced at once.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use airlock_oci::sink::ManifestName;
use airlock_oci::{
    Abilities, Content, Descriptor, Digest, Error, ErrorKind, Manifest, Repository, Sink, Tag, media_type,
};
use async_trait::async_trait;

use super::{Index, Layout, REF_NAME, VERSION, Version, blob_path, read_index};
use crate::disk::{self, DirectorySyncs};
use crate::source::blocking;
use crate::staged;

/// An OCI layout directory being written. Repositories are not looked at: everything goes into the one layout.
///
/// A manifest that is written without a tag is listed in `index.json` without a name until an index that names it as a child is
/// written; so that in the end just what nothing else names is listed.
#[derive(Clone, Debug)]
pub struct Writer {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    /// Held while `index.json` is changed.
    index: Mutex<Option<Index>>,
    /// Held open, since it holds the lock.
    _lock: File,
}

impl std::fmt::Debug for Index {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Index({} manifests)", self.manifests.len())
    }
}

impl Writer {
    /// Opens the layout below `root`, and makes it where there is none. [`ErrorKind::Locked`] when another process of ours writes to it.
    pub fn open(root: &Path) -> Result<Self, Error> {
        let what = || format!("open OCI layout `{}` for writing", root.display());
        std::fs::create_dir_all(root).map_err(|e| Error::io(what(), &e))?;
        // The directory itself is locked, so that nothing that is no part of a layout lies in it.
        let lock = File::open(root).map_err(|e| Error::io(what(), &e))?;
        match disk::lock(&lock) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::new(ErrorKind::Locked, what(), "another process is writing to it"));
            }
            Err(TryLockError::Error(e)) => return Err(Error::io(what(), &e)),
        }
        let index = if root.join("oci-layout").exists() {
            Layout::open(root)?;
            read_index(root)?
        } else {
            if !disk::names(root)?.is_empty() {
                return Err(Error::new(ErrorKind::Invalid, what(), "the directory is not empty and is no OCI layout")
                    .hint("choose an empty or a new directory"));
            }
            None
        };
        let writer = Self { inner: Arc::new(Inner { root: root.to_owned(), index: Mutex::new(index), _lock: lock }) };
        writer.remove_leftovers()?;
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

    /// Files that an interrupted run left without a name. Nobody else writes here, so they are nobody's.
    fn remove_leftovers(&self) -> Result<(), Error> {
        for folder in [self.root().to_owned(), self.root().join("blobs")] {
            for name in disk::names(&folder)? {
                if name.starts_with(".airlock-") {
                    disk::remove_file(&folder.join(name))?;
                }
            }
        }
        Ok(())
    }

    fn temporary(&self) -> Result<PathBuf, Error> {
        let mut bits = [0_u8; 16];
        aws_lc_rs::rand::fill(&mut bits)
            .map_err(|_| Error::new(ErrorKind::Io, "write an OCI layout", "the system gives no random numbers"))?;
        Ok(self.root().join(format!("blobs/.airlock-{:032x}", u128::from_be_bytes(bits))))
    }

    fn has(&self, digest: &Digest, size: u64) -> Result<bool, Error> {
        Ok(disk::open_through_links(&blob_path(self.root(), digest))?.is_some_and(|(_, len)| len == size))
    }

    fn prepare(&self) -> Result<(), Error> {
        let mut syncs = DirectorySyncs::default();
        syncs.create(&self.root().join("blobs"))?;
        let path = self.root().join("oci-layout");
        if !path.exists() {
            let version = serde_json::to_vec(&Version { image_layout_version: VERSION.to_owned() })
                .map_err(|e| Error::new(ErrorKind::Invalid, "write `oci-layout`", e))?;
            disk::write_beside(&self.temporary()?, &path, &version, &mut syncs)?;
        }
        syncs.sync()
    }

    fn write_manifest(&self, manifest: &Manifest, tag: Option<&Tag>) -> Result<(), Error> {
        let mut held = self.inner.index.lock().unwrap_or_else(PoisonError::into_inner);
        self.prepare()?;
        let mut syncs = DirectorySyncs::default();
        let path = blob_path(self.root(), manifest.digest());
        if !self.is_whole(manifest.digest(), manifest.bytes().len() as u64)? {
            disk::write_beside(&self.temporary()?, &path, manifest.bytes(), &mut syncs)?;
            syncs.sync()?;
        }
        let mut index = match held.take() {
            Some(index) => index,
            None => Index {
                schema_version: 2,
                media_type: Some(media_type::OCI_INDEX.to_owned()),
                manifests: Vec::new(),
                annotations: Default::default(),
            },
        };
        list(&mut index.manifests, manifest, tag);
        let outcome = self.write_index(&index, &mut syncs);
        *held = Some(index);
        outcome
    }

    fn is_whole(&self, digest: &Digest, size: u64) -> Result<bool, Error> {
        let path = blob_path(self.root(), digest);
        Ok(match disk::read_small_through_links(&path, size as usize) {
            Ok(Some(bytes)) => Digest::of_with(digest.algorithm(), &bytes) == *digest,
            Ok(None) => false,
            Err(e) if e.kind() == ErrorKind::Invalid => false,
            Err(e) => return Err(e),
        })
    }

    fn write_index(&self, index: &Index, syncs: &mut DirectorySyncs) -> Result<(), Error> {
        let bytes = serde_json::to_vec(index).map_err(|e| Error::new(ErrorKind::Invalid, "write `index.json`", e))?;
        disk::write_beside(&self.temporary()?, &self.root().join("index.json"), &bytes, syncs)?;
        syncs.sync()
    }

    /// Takes matching entries out of `index.json`; the blobs stay. `false` when there was none.
    fn unlist(&self, at: &ManifestName) -> Result<bool, Error> {
        let mut held = self.inner.index.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(index) = held.as_mut() else { return Ok(false) };
        let before = index.manifests.len();
        index.manifests.retain(|d| match at {
            ManifestName::Tag(tag) => super::name_of(d) != Some(tag.as_str()),
            ManifestName::Digest(digest) => d.digest != *digest,
        });
        if index.manifests.len() == before {
            return Ok(false);
        }
        self.write_index(index, &mut DirectorySyncs::default())?;
        Ok(true)
    }
}

/// Enters a manifest into the list of `index.json`.
fn list(entries: &mut Vec<Descriptor>, manifest: &Manifest, tag: Option<&Tag>) {
    entries.retain(|d| super::name_of(d).is_some() || manifest.children().iter().all(|c| c.digest != d.digest));
    let mut descriptor = manifest.descriptor();
    descriptor.artifact_type = manifest.artifact_type().map(str::to_owned).filter(|_| manifest.subject().is_some());
    match tag {
        Some(tag) => {
            descriptor.annotations.insert(REF_NAME.to_owned(), tag.to_string());
            let nameless = |d: &Descriptor| d.digest == descriptor.digest && super::name_of(d).is_none();
            entries.retain(|d| super::name_of(d) != Some(tag.as_str()) && !nameless(d));
        }
        None if entries.iter().any(|d| d.digest == descriptor.digest) => return,
        None => {}
    }
    entries.push(descriptor);
}

#[async_trait]
impl Sink for Writer {
    fn describe(&self) -> String {
        format!("oci:{}", self.root().display())
    }

    fn abilities(&self) -> Abilities {
        Abilities { mount: false, sparse_index: Some(true), referrers: true, delete: true }
    }

    async fn head_manifest(&self, _repository: &Repository, at: &ManifestName) -> Result<Option<Digest>, Error> {
        let (writer, at) = (self.clone(), at.clone());
        blocking(move || {
            let digest = match at {
                ManifestName::Digest(digest) => digest,
                ManifestName::Tag(tag) => {
                    let held = writer.inner.index.lock().unwrap_or_else(PoisonError::into_inner);
                    let mut entries = held.iter().flat_map(|index| &index.manifests);
                    let Some(named) = entries.rfind(|d| super::name_of(d) == Some(tag.as_str())) else {
                        return Ok(None);
                    };
                    named.digest.clone()
                }
            };
            let whole = writer.is_whole(&digest, airlock_oci::MAX_MANIFEST_BYTES as u64)?;
            Ok(whole.then_some(digest))
        })
        .await
    }

    async fn has_blob(&self, _repository: &Repository, blob: &Descriptor) -> Result<bool, Error> {
        let (writer, blob) = (self.clone(), blob.clone());
        blocking(move || writer.has(&blob.digest, blob.size)).await
    }

    async fn mount_blob(&self, repository: &Repository, blob: &Descriptor, _from: &Repository) -> Result<bool, Error> {
        // There is one pool of blobs: it is here for every repository or for none.
        self.has_blob(repository, blob).await
    }

    async fn write_blob(
        &self,
        _repository: &Repository,
        blob: &Descriptor,
        content: &dyn Content,
    ) -> Result<(), Error> {
        let writer = self.clone();
        blocking(move || {
            let _held = writer.inner.index.lock().unwrap_or_else(PoisonError::into_inner);
            writer.prepare()
        })
        .await?;
        staged::write_blob(blob, content, self.temporary()?, &blob_path(self.root(), &blob.digest)).await
    }

    async fn put_manifest(
        &self,
        _repository: &Repository,
        manifest: &Manifest,
        tag: Option<&Tag>,
    ) -> Result<(), Error> {
        let (writer, manifest, tag) = (self.clone(), manifest.clone(), tag.cloned());
        blocking(move || writer.write_manifest(&manifest, tag.as_ref())).await
    }

    async fn delete_manifest(&self, _repository: &Repository, at: &ManifestName) -> Result<(), Error> {
        let (writer, at) = (self.clone(), at.clone());
        blocking(move || {
            if writer.unlist(&at)? {
                return Ok(());
            }
            let what = format!("delete `{at}` of `{}`", writer.describe());
            Err(Error::new(ErrorKind::NotFound, what, "`index.json` does not list it"))
        })
        .await
    }
}
