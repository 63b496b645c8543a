//! What an import asks of whoever keeps the storage: the writer of its own process, or the registry that serves it.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use airlock_oci::{Descriptor, Digest, Error, ErrorKind, Manifest, Repository, Tag};
use bytes::Bytes;
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use super::generations::{Generation, Members};
use super::paths::Paths;
use super::uploads::UploadId;
use super::{Directory, Writer};
use crate::disk;
use crate::storage::Storage;

/// How long what an import left is kept for the next one.
const ABANDONED: Duration = Duration::from_secs(7 * 24 * 3600);
/// Its lock says that an import is under way.
pub(super) const LOCK: &str = "lock";

/// A change of the storage that an import asks for.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Change {
    /// Whether a blob of this size is in the repository; where it is only elsewhere in the storage, it is linked. Garbage collection
    /// leaves it alone until a manifest of the repository names it.
    Offer {
        /// Whose.
        repository: Repository,
        /// The blob.
        digest: Digest,
        /// Its bytes.
        size: u64,
    },
    /// Takes the file that lies complete in `.airlock/import`, which is no longer there then.
    Adopt {
        /// Whose.
        repository: Repository,
        /// The blob.
        digest: Digest,
    },
    /// Writes a manifest whose blobs are there, and points tags at it.
    Put {
        /// Whose.
        repository: Repository,
        /// Its type.
        media_type: String,
        /// Its digest.
        digest: Digest,
        /// Its bytes: JSON is text.
        text: String,
        /// Tags to set.
        tags: Vec<Tag>,
    },
    /// Gives everything that was taken its place, also where no manifest is going to ask for it: a blob that an image lacked which was
    /// there otherwise.
    Flush,
    /// Writes the record of a generation.
    Record(Box<Generation>),
    /// Removes the record of a generation of which nothing came.
    Forget {
        /// Which.
        number: u64,
    },
}

/// What came of a change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// Whether the blob is there.
    pub there: bool,
    /// The generation's number.
    pub number: u64,
}

/// Who changes a storage. Blocks.
pub trait Keeper: Send + Sync {
    /// Makes a change.
    fn change(&self, change: &Change) -> Result<Changed, Error>;
}

impl Keeper for Writer {
    fn change(&self, change: &Change) -> Result<Changed, Error> {
        let there = |there| Changed { there, ..Changed::default() };
        match change {
            Change::Offer { repository, digest, size } => {
                let own = self.claim_blob(repository, digest)?;
                if own.is_some_and(|region| region.len == *size) {
                    return Ok(there(true));
                }
                // One of another length is damaged and must be written again. What has no place yet was verified a moment ago.
                let is_whole = self.directory().blob_at(digest)?.is_none_or(|region| region.len == *size);
                Ok(there(is_whole && self.mount_blob(repository, digest, None)?))
            }
            Change::Adopt { repository, digest } => {
                let path = self.directory().paths.imported(digest);
                if !disk::is_file(&path)? {
                    let what = format!("take blob `{digest}` into `{repository}`");
                    return Err(Error::new(ErrorKind::NotFound, what, "the import has not left it"));
                }
                let staged = self.take_imported(digest, &path)?;
                self.accept_blob(repository, digest, staged)?;
                Ok(there(true))
            }
            Change::Put { repository, media_type, digest, text, tags } => {
                let bytes = Bytes::copy_from_slice(text.as_bytes());
                let manifest = Manifest::parse_expecting(bytes, Some(media_type), digest)?;
                for blob in manifest.blobs().filter(|blob| !blob.is_foreign()) {
                    // A registry that was started again meanwhile may have collected what nobody had a lease on any more.
                    if self.claim_blob(repository, &blob.digest)?.is_none() {
                        return Err(Error::new(
                            ErrorKind::NotFound,
                            format!("write manifest `{repository}@{digest}`"),
                            format!("its blob `{}` is not in the repository", blob.digest),
                        )
                        .hint("import again: what is there is not fetched again"));
                    }
                }
                self.import_manifest(repository, &manifest, tags)?;
                Ok(there(true))
            }
            Change::Flush => {
                self.flush()?;
                Ok(Changed::default())
            }
            Change::Record(generation) => {
                let number = self.generations().record(generation, &|name, of, is_still| {
                    let _names = is_still.then(|| self.lock_repository(name));
                    self.directory().present_of(name, of)
                })?;
                Ok(Changed { number, ..Changed::default() })
            }
            Change::Forget { number } => {
                self.generations().forget(&[*number])?;
                Ok(Changed::default())
            }
        }
    }
}

impl Directory {
    /// What of this is there.
    pub fn present_of(&self, repository: &Repository, of: &Members) -> Result<Members, Error> {
        let mut present = Members::default();
        for digest in self.linked_manifests(repository)? {
            if of.manifests.contains(&digest) {
                present.manifests.insert(digest);
            }
        }
        for (tag, digest) in &of.tags {
            if self.current(repository, tag)?.as_ref() == Some(digest) {
                present.tags.insert(tag.clone(), digest.clone());
            }
        }
        Ok(present)
    }

    /// What the tags of a repository point at.
    pub fn targets(&self, repository: &Repository) -> Result<BTreeMap<Tag, Digest>, Error> {
        let mut targets = BTreeMap::new();
        for tag in self.tags(repository)?.unwrap_or_default() {
            if let Some(digest) = self.current(repository, &tag)? {
                targets.insert(tag, digest);
            }
        }
        Ok(targets)
    }

    /// Bytes of a blob that an interrupted import has left.
    pub fn kept(&self, blob: &Descriptor) -> u64 {
        fs::metadata(self.paths.imported(&blob.digest)).map_or(0, |m| m.len().min(blob.size))
    }

    /// The file with the content of a digest, if there is one.
    pub fn file(&self, digest: &Digest) -> Option<PathBuf> {
        Some(self.paths.data(digest)).filter(|path| path.is_file())
    }

    /// Bytes of the content of a digest, whatever repository it belongs to; `None` when it is not there.
    pub fn length(&self, digest: &Digest) -> Option<u64> {
        fs::metadata(self.paths.data(digest)).ok().filter(fs::Metadata::is_file).map(|m| m.len())
    }

    /// What imports have brought, oldest first.
    pub fn generations(&self) -> Result<Vec<Generation>, Error> {
        super::generations::read(&self.paths.generations())
    }
}

/// Takes the lock of imports; `None` when one is under way.
pub(super) fn take_lock(folder: &Path) -> Result<Option<File>, Error> {
    let path = folder.join(LOCK);
    let no_link = OFlags::NOFOLLOW.bits() as i32;
    let file = File::options().create(true).write(true).truncate(false).custom_flags(no_link).open(&path);
    let file = file.map_err(|e| disk::failed("open", &path, &e))?;
    disk::give_to_owner_of(folder, &file).map_err(|e| disk::failed("change the owner of", &path, &e))?;
    match disk::lock(&file) {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(e)) => Err(disk::failed("lock", &path, &e)),
    }
}

/// What a file that was taken from an import begins with. Its digest follows, and what makes the name unique.
const TAKEN: &str = "import-";

impl Writer {
    /// Moves what an import has left out of its folder, so that it is the writer's own: another import may tidy up there before this
    /// blob has its place.
    fn take_imported(&self, digest: &Digest, path: &Path) -> Result<PathBuf, Error> {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let taken = self.directory().paths.uploads().join(format!("{TAKEN}{name}.{}", UploadId::random()?));
        fs::rename(path, &taken).map_err(|e| {
            let error = disk::failed("take", path, &e);
            error.hint(format!("blob `{digest}` was imported and stays there for the next attempt"))
        })?;
        Ok(taken)
    }

    /// Gives back to imports what was taken and has got no place before the program ended, so that it need not be fetched again. To be
    /// called while nobody else writes.
    pub(super) fn give_back_taken(paths: &Paths) -> Result<(), Error> {
        for taken in disk::names(&paths.uploads())? {
            let name = taken.strip_prefix(TAKEN).and_then(|rest| rest.split_once('.')).map(|(name, _)| name);
            let Some(to) = name.map(|name| paths.imports().join(name)) else { continue };
            // What an import has begun anew meanwhile is that import's.
            if !to.exists() {
                // What cannot be moved is removed with the rest, and fetched again.
                let _ = fs::rename(paths.uploads().join(&taken), &to);
            }
        }
        Ok(())
    }

    /// Removes what imports left that nobody has gone on with for a week.
    pub(super) fn remove_abandoned_imports(&self) -> Result<(), Error> {
        let folder = self.directory().paths.imports();
        if !folder.is_dir() {
            return Ok(());
        }
        let Some(_lock) = take_lock(&folder)? else { return Ok(()) };
        for name in disk::names(&folder)?.into_iter().filter(|name| name != LOCK) {
            let path = folder.join(name);
            let modified = fs::metadata(&path).and_then(|m| m.modified());
            let age = modified.ok().and_then(|at| SystemTime::now().duration_since(at).ok());
            if age.is_some_and(|age| age >= ABANDONED) {
                disk::remove_file(&path)?;
            }
        }
        Ok(())
    }
}
