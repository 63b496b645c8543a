//! From complete bytes to content with a name: what is synced when.
//!
//! A blob that was received whole and has the right digest is *pending*: it lies in our own folder, is served from there, and a
//! crash loses it as if it had never been sent, so that nothing half-written is ever trusted. Publishing a batch of them syncs the
//! files, renames them into place, writes the links of the repositories that own them, and syncs the directories. With
//! [`Durability::Each`] that happens before a blob is acknowledged; with [`Durability::Image`] before the manifest is that
//! names them, once for all of an image's blobs, since a client relies on nothing before that.
//!
//! A blob whose sync fails is gone, also if it was acknowledged: its manifest is refused, which makes the client send it again.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use airlock_oci::{Digest, Error, Repository};

use super::paths::{Link, Paths};
use super::uploads::UploadId;
use crate::disk::{self, DirectorySyncs};

/// When what was written is safe from a power cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Each blob before it is acknowledged.
    Each,
    /// All blobs of an image together, before its manifest is acknowledged.
    #[default]
    Image,
}

/// Blobs that may be pending; beyond that the next one publishes all.
const MAX_PENDING: usize = 256;
/// How long a blob waits for a manifest before it is published without one.
pub(super) const MAX_PENDING_AGE: Duration = Duration::from_secs(30);

/// Blobs (and links to blobs) that are complete and not yet published.
#[derive(Debug, Default)]
pub(super) struct Pending {
    entries: Mutex<HashMap<Digest, Entry>>,
    published: Condvar,
}

#[derive(Clone, Debug)]
struct Entry {
    /// The bytes; `None` when they are in place already and only links are to be written.
    staged: Option<PathBuf>,
    repositories: BTreeSet<Repository>,
    since: Instant,
    /// A thread is at it. The entry stays readable and must not be changed.
    publishing: bool,
}

/// Where a pending blob can be read.
pub(super) enum Readable {
    /// In our own folder.
    Staged(PathBuf),
    /// In its place.
    InPlace,
}

impl Pending {
    fn lock(&self) -> MutexGuard<'_, HashMap<Digest, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a complete blob, or with `staged` of `None` a link to one that is in place, for a repository. `true`: there are now so many
    /// that they should be published.
    pub(super) fn add(&self, digest: &Digest, staged: Option<PathBuf>, repository: &Repository) -> Result<bool, Error> {
        let mut entries = self.lock();
        while entries.get(digest).is_some_and(|e| e.publishing) {
            entries = self.published.wait(entries).unwrap_or_else(PoisonError::into_inner);
        }
        let mut superfluous = None;
        let entry = entries.entry(digest.clone()).or_insert_with(|| Entry {
            staged: None,
            repositories: BTreeSet::new(),
            since: Instant::now(),
            publishing: false,
        });
        entry.repositories.insert(repository.clone());
        if entry.staged.as_ref().is_some_and(|path| path.exists()) {
            // The same blob was pushed twice at once; one copy will do. One that is gone is none: the new one takes its place.
            superfluous = staged;
        } else {
            entry.staged = staged;
        }
        let many = entries.len() > MAX_PENDING;
        drop(entries);
        if let Some(path) = superfluous {
            disk::remove_file(&path)?;
        }
        Ok(many)
    }

    /// Where the blob can be read, if it is pending for this repository.
    pub(super) fn find(&self, digest: &Digest, repository: Option<&Repository>) -> Option<Readable> {
        let entries = self.lock();
        let entry = entries.get(digest)?;
        if repository.is_some_and(|r| !entry.repositories.contains(r)) {
            return None;
        }
        Some(match &entry.staged {
            Some(path) => Readable::Staged(path.clone()),
            None => Readable::InPlace,
        })
    }

    /// Takes a repository's claim to a pending blob away; `true` when there was one.
    pub(super) fn disown(&self, digest: &Digest, repository: &Repository) -> Result<bool, Error> {
        let mut entries = self.lock();
        while entries.get(digest).is_some_and(|e| e.publishing) {
            entries = self.published.wait(entries).unwrap_or_else(PoisonError::into_inner);
        }
        let Some(entry) = entries.get_mut(digest) else { return Ok(false) };
        let owned = entry.repositories.remove(repository);
        if !entry.repositories.is_empty() {
            return Ok(owned);
        }
        let staged = entries.remove(digest).and_then(|e| e.staged);
        drop(entries);
        if let Some(path) = staged {
            disk::remove_file(&path)?;
        }
        Ok(owned)
    }

    /// The blobs that have waited for longer than `age`.
    pub(super) fn older_than(&self, age: Duration) -> Vec<Digest> {
        let entries = self.lock();
        entries.iter().filter(|(_, e)| e.since.elapsed() >= age).map(|(d, _)| d.clone()).collect()
    }

    /// Publishes those of `wanted` that are pending, and returns when all of them are durable, whoever publishes them.
    pub(super) fn publish(&self, wanted: &[Digest], paths: &Paths) -> Result<(), Error> {
        loop {
            let mut batch = Vec::new();
            {
                let mut entries = self.lock();
                for digest in wanted {
                    if let Some(entry) = entries.get_mut(digest)
                        && !entry.publishing
                    {
                        entry.publishing = true;
                        batch.push((digest.clone(), entry.clone()));
                    }
                }
                if batch.is_empty() {
                    if !wanted.iter().any(|digest| entries.contains_key(digest)) {
                        return Ok(());
                    }
                    // Another thread is publishing the rest; when it fails, they are ours to try.
                    let entries = self.published.wait(entries).unwrap_or_else(PoisonError::into_inner);
                    drop(entries);
                    continue;
                }
            }
            let mut lost = Vec::new();
            let outcome = write(&batch, paths, &mut lost);
            let mut entries = self.lock();
            for (digest, _) in &batch {
                if outcome.is_ok() || lost.contains(digest) {
                    entries.remove(digest);
                } else if let Some(entry) = entries.get_mut(digest) {
                    entry.publishing = false;
                }
            }
            drop(entries);
            self.published.notify_all();
            outcome?;
        }
    }
}

/// Notes in `lost` what cannot be published any more.
fn write(batch: &[(Digest, Entry)], paths: &Paths, lost: &mut Vec<Digest>) -> Result<(), Error> {
    let mut syncs = DirectorySyncs::default();
    let staged: Vec<(&Path, &Digest)> = batch.iter().filter_map(|(d, e)| Some((e.staged.as_deref()?, d))).collect();
    let synced = disk::side_by_side(&staged, |(path, digest)| Ok(sync_staged(path, &paths.data(digest))))?;
    let mut moved = Vec::new();
    let mut failed = None;
    for ((path, digest), synced) in staged.into_iter().zip(synced) {
        match synced {
            Ok(true) => moved.push((path, digest)),
            Ok(false) => syncs.changed(&paths.data(digest)),
            Err(Unsynced { error, is_lost }) => {
                if is_lost {
                    lost.push(digest.clone());
                }
                failed.get_or_insert(error);
            }
        }
    }
    if let Some(error) = failed {
        return Err(error);
    }
    for (path, digest) in moved {
        syncs.publish(path, &paths.data(digest))?;
    }
    let noted = disk::side_by_side(batch, |(digest, entry)| {
        let mut syncs = DirectorySyncs::default();
        for repository in &entry.repositories {
            write_link(&paths.link(repository, Link::Layer, digest), digest, paths, &mut syncs)?;
        }
        Ok(syncs)
    })?;
    for noted in noted {
        syncs.join(noted);
    }
    syncs.sync()
}

/// Why a blob could not be synced, and whether it is gone by that.
struct Unsynced {
    error: Error,
    is_lost: bool,
}

/// Syncs a blob that waits; `false` when it is in its place already.
fn sync_staged(path: &Path, data: &Path) -> Result<bool, Unsynced> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if disk::is_absent(&e) => {
            return match disk::is_file(data) {
                // An earlier attempt moved it and failed later on.
                Ok(true) => Ok(false),
                // Nobody can publish it any more; the others must not wait for it for ever.
                Ok(false) => Err(Unsynced { error: disk::failed("open", path, &e), is_lost: true }),
                Err(error) => Err(Unsynced { error, is_lost: false }),
            };
        }
        Err(e) => return Err(Unsynced { error: disk::failed("open", path, &e), is_lost: false }),
    };
    file.sync_data().map(|()| true).map_err(|e| {
        // The kernel has given up what it could not write, and the next sync would succeed without it: only a new upload helps.
        let _ = std::fs::remove_file(path);
        Unsynced { error: disk::failed("sync", path, &e), is_lost: true }
    })
}

/// Writes a link unless it is there and right.
pub(super) fn write_link(path: &Path, digest: &Digest, paths: &Paths, syncs: &mut DirectorySyncs) -> Result<(), Error> {
    if let Some(Some(present)) = super::read_link(path)?
        && present == *digest
    {
        return Ok(());
    }
    let temporary = paths.uploads().join(format!("link-{}", UploadId::random()?));
    disk::write_beside(&temporary, path, digest.to_string().as_bytes(), syncs)
}
