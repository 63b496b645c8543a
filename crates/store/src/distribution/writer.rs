//! Writes registry storage: blobs, links, manifests, tags; and takes them away again.
//!
//! The order is blobs, then the manifest's bytes, then its revision link, then tags, each step durable before the next, so
//! that after a crash no name leads to something incomplete. Deletion goes the other way round.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::fs::{self, File, TryLockError};
use std::hash::{Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use airlock_oci::sink::ManifestName;
use airlock_oci::{Descriptor, Digest, Error, ErrorKind, MAX_MANIFEST_BYTES, Manifest, Repository, Tag};

use super::catalog::Catalog;
use super::doubt::Doubt;
use super::generations::Generations;
use super::leases::Leases;
use super::paths::Link;
use super::publish::{Durability, MAX_PENDING_AGE, Pending, Readable, write_link};
use super::removed::{self, Aside, Removed};
use super::stamp::Stamp;
use super::uploads::{self, Sessions, UploadId};
use super::{Directory, has_digest_below, open_region, read_link};
use crate::disk::{self, DirectorySyncs};
use crate::storage::{Region, Storage, Verified};

/// Locks among which the repositories are shared out, so that changes to one repository's names happen one after the other.
const REPOSITORY_LOCKS: usize = 64;

/// Files kept open at most, for some seconds, for those who ask for the same blob again.
const MAX_OPEN: usize = 128;

/// Registry storage on a local disk, for reading and writing. Cheap to clone; all clones are the same writer.
#[derive(Clone, Debug)]
pub struct Writer(Arc<Inner>);

/// What must hold of a tag for it to be set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Expected {
    /// Anything.
    #[default]
    Anything,
    /// There is no such tag.
    Absent,
    /// There is such a tag, whatever it points at.
    Present,
    /// It points at one of these.
    OneOf(Vec<Digest>),
}

#[derive(Debug)]
struct Inner {
    directory: Directory,
    durability: Durability,
    pending: Pending,
    catalog: Catalog,
    leases: Leases,
    generations: Generations,
    removed: Removed,
    sessions: Sessions,
    locks: Vec<Mutex<()>>,
    /// Files that were sent lately, open, each with the state in which it was opened.
    open: Mutex<HashMap<Digest, (Stamp, Region)>>,
    doubt: Doubt,
    /// Held for as long as the writer lives. Open for reading only, so that the file system can be made read-only under a running server.
    _lock: File,
}

impl Expected {
    pub(crate) fn holds(&self, current: Option<&Digest>) -> bool {
        match (self, current) {
            (Self::Anything, _) | (Self::Absent, None) | (Self::Present, Some(_)) => true,
            (Self::OneOf(digests), Some(current)) => digests.contains(current),
            (Self::Absent, Some(_)) | (Self::Present | Self::OneOf(_), None) => false,
        }
    }
}

impl Writer {
    /// Opens the storage below `root` for writing, and makes it where there is none. [`ErrorKind::Locked`] when another process of ours
    /// writes there. What an earlier process left without a name is removed.
    pub fn open(root: &Path, durability: Durability) -> Result<Self, Error> {
        fs::create_dir_all(root).map_err(|e| disk::failed("create directory", root, &e))?;
        let directory = Directory::at(root);
        let paths = &directory.paths;
        let mut syncs = DirectorySyncs::default();
        syncs.create(&paths.own())?;
        let lock = take_lock(&paths.lock(), root)?;
        let doubt = Doubt::begin(root, &paths.lock())?;
        Self::give_back_taken(paths)?;
        disk::remove_tree(&paths.uploads())?;
        syncs.create(&paths.uploads())?;
        syncs.create(&paths.repositories())?;
        syncs.sync()?;
        let generations = Generations::at(paths.generations());
        let removed = Removed::at(paths.removed());
        let locks = (0..REPOSITORY_LOCKS).map(|_| Mutex::new(())).collect();
        Ok(Self(Arc::new(Inner {
            directory,
            durability,
            pending: Pending::default(),
            catalog: Catalog::default(),
            leases: Leases::default(),
            generations,
            removed,
            sessions: Sessions::default(),
            locks,
            open: Mutex::default(),
            doubt,
            _lock: lock,
        })))
    }

    /// The reading side. It does not see blobs that wait for their manifest; the writer's own [`Storage`] does.
    pub fn directory(&self) -> &Directory {
        &self.0.directory
    }

    /// Tries whether the disk takes a file and gives it back: after an error it may be better again.
    pub fn probe(&self) -> Result<(), Error> {
        let path = self.0.directory.paths.uploads().join(format!("probe-{}", UploadId::random()?));
        let written = File::create_new(&path).and_then(|file| {
            std::io::Write::write_all(&mut &file, b"probe")?;
            file.sync_data()
        });
        let _ = fs::remove_file(&path);
        written.map_err(|e| disk::failed("write", &path, &e))
    }

    /// Upload sessions that are open.
    pub fn open_uploads(&self) -> usize {
        self.0.sessions.count()
    }

    /// Whether the names of all repositories are known.
    pub fn is_searched(&self) -> bool {
        self.0.catalog.page(None, 0).is_some()
    }

    /// Our own folder below the root, for what belongs to the storage and is no content.
    pub fn own_folder(&self) -> PathBuf {
        self.0.directory.paths.own()
    }

    /// Bytes that can still be written.
    pub fn available(&self) -> Result<u64, Error> {
        let root = self.directory().root();
        disk::available(root).map_err(|e| disk::failed("find the free space of", root, &e))
    }

    /// Publishes every blob that waits for its manifest. To be called before the program ends.
    pub fn flush(&self) -> Result<(), Error> {
        self.publish_older_than(std::time::Duration::ZERO)
    }

    /// What has to be done now and then: removes upload sessions whose time is over (their number is returned), publishes blobs that
    /// have waited long for their manifest, and gives back some of the room of removed tags.
    pub fn maintain(&self) -> Result<usize, Error> {
        self.close_files();
        let expired = self.0.sessions.expire(uploads::MAX_IDLE, uploads::MAX_AGE);
        self.publish_older_than(MAX_PENDING_AGE)?;
        if let Err(error) = self.0.removed.clear_some(removed::AT_ONCE) {
            // They are gone for everybody; only their room is missing.
            tracing::warn!("what is left of removed tags cannot be taken away: {error}");
        }
        Ok(expired)
    }

    /// Gives back all the room of removed tags.
    pub(super) fn clear_removed(&self) -> Result<(), Error> {
        self.0.removed.clear_all()
    }

    /// A place for the tags that a change removes.
    pub(super) fn aside(&self) -> Result<Aside<'_>, Error> {
        self.0.removed.begin()
    }

    /// Finds the names of all repositories if that was not done lately. Until the first search has ended, lists of repositories are
    /// found by walking the folders, each time. Blocks on the disk.
    pub fn search_repositories(&self) -> Result<(), Error> {
        if !self.0.catalog.begin() {
            return Ok(());
        }
        let found = self.0.directory.repositories();
        let (found, outcome) = match found {
            Ok(found) => (Some(found), Ok(())),
            Err(e) => (None, Err(e)),
        };
        self.0.catalog.end(found);
        outcome
    }

    fn publish_older_than(&self, age: std::time::Duration) -> Result<(), Error> {
        self.publish(&self.0.pending.older_than(age))
    }

    fn publish(&self, digests: &[Digest]) -> Result<(), Error> {
        if digests.is_empty() {
            return Ok(());
        }
        self.durably(|| self.0.pending.publish(digests, &self.0.directory.paths))
    }

    /// Does something that may rely on what is in place being durable.
    pub(super) fn durably<T>(&self, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        self.0.doubt.change(work)
    }

    /// Takes something away, also while nothing can be written.
    pub(super) fn removal<T>(&self, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        self.0.doubt.removal(work)
    }

    pub(super) fn leases(&self) -> &Leases {
        &self.0.leases
    }

    pub(super) fn generations(&self) -> &Generations {
        &self.0.generations
    }

    /// Forgets the referrers that a removed manifest was, and the repository if it was the last.
    pub(super) fn removed_manifest(&self, repository: &Repository, digest: &Digest) -> Result<(), Error> {
        let directory = &self.0.directory;
        directory.referrers.changed(repository, digest);
        if !has_digest_below(&directory.paths.links(repository, Link::Revision))? {
            self.0.catalog.changed(repository, false);
        }
        Ok(())
    }

    /// Lets go of the files that are kept open, so that what is removed gives its space back.
    pub(super) fn close_files(&self) {
        self.open_files().clear();
    }

    fn open_files(&self) -> MutexGuard<'_, HashMap<Digest, (Stamp, Region)>> {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// [`Writer::claim_blob`], if that can be told without waiting for the disk; `None` says nothing.
    pub fn claim_blob_at_once(&self, repository: &Repository, digest: &Digest) -> Option<Region> {
        self.blob_at_once(repository, digest)?;
        self.0.leases.renew(repository, digest);
        self.blob_at_once(repository, digest)
    }

    /// A blob for somebody who is going to name it in a manifest: if it is there, garbage collection leaves it alone until that
    /// manifest has come, or for a day.
    pub fn claim_blob(&self, repository: &Repository, digest: &Digest) -> Result<Option<Region>, Error> {
        if self.blob(repository, digest)?.is_none() {
            return Ok(None);
        }
        self.0.leases.renew(repository, digest);
        // It may have been collected just before.
        self.blob(repository, digest)
    }

    /// [`Writer::claim_manifest`], if that can be told without waiting for the disk; `None` says nothing.
    pub fn claim_manifest_at_once(&self, repository: &Repository, at: &ManifestName) -> Option<Manifest> {
        let manifest = self.manifest_at_once(repository, at)?;
        self.0.generations.is_noted(repository, manifest.digest(), tag_of(at)).then_some(manifest)
    }

    /// A manifest for somebody who would push it if it were not there: it is theirs from now on, even if an import has brought it.
    pub fn claim_manifest(&self, repository: &Repository, at: &ManifestName) -> Result<Option<Manifest>, Error> {
        let Some(manifest) = self.manifest(repository, at)? else { return Ok(None) };
        if self.0.generations.is_noted(repository, manifest.digest(), tag_of(at)) {
            return Ok(Some(manifest));
        }
        let _names = self.lock_repository(repository);
        // It may have gone just before, with its generation.
        let Some(manifest) = self.manifest(repository, at)? else { return Ok(None) };
        let tags: Vec<Tag> = tag_of(at).cloned().into_iter().collect();
        if let Err(error) = self.0.generations.pushed(repository, &[manifest.digest()], &tags) {
            // Who only wants to read must be able to, also when the disk is full.
            tracing::warn!(%repository, %at, "that somebody relies on an imported image could not be noted: {error}");
        }
        Ok(Some(manifest))
    }

    pub(super) fn sessions(&self) -> &Sessions {
        &self.0.sessions
    }

    pub(super) fn upload_path(&self, id: &UploadId) -> PathBuf {
        self.0.directory.paths.uploads().join(id.to_string())
    }

    pub(super) fn lock_repository(&self, repository: &Repository) -> MutexGuard<'_, ()> {
        let mut hasher = DefaultHasher::new();
        repository.hash(&mut hasher);
        let lock = &self.0.locks[hasher.finish() as usize % REPOSITORY_LOCKS];
        lock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over a complete file whose digest was checked.
    pub(super) fn accept_blob(&self, repository: &Repository, digest: &Digest, staged: PathBuf) -> Result<(), Error> {
        self.0.leases.renew(repository, digest);
        self.settle(digest, self.0.pending.add(digest, Some(staged), repository)?)
    }

    fn settle(&self, digest: &Digest, many: bool) -> Result<(), Error> {
        match self.0.durability {
            Durability::Each => self.publish(std::slice::from_ref(digest)),
            Durability::Image if many => self.flush(),
            Durability::Image => Ok(()),
        }
    }

    /// Makes a blob of another repository (`None`: of any) available in this one. `false` when it is not there.
    pub fn mount_blob(
        &self,
        repository: &Repository,
        digest: &Digest,
        from: Option<&Repository>,
    ) -> Result<bool, Error> {
        self.0.leases.renew(repository, digest);
        if self.blob(repository, digest)?.is_some() {
            return Ok(true);
        }
        let there = match from {
            Some(from) => self.blob(from, digest)?.is_some(),
            None => self.0.pending.find(digest, None).is_some() || self.0.directory.blob_at(digest)?.is_some(),
        };
        if there {
            self.settle(digest, self.0.pending.add(digest, None, repository)?)?;
        } else {
            self.0.leases.release(repository, [digest].into_iter());
        }
        Ok(there)
    }

    /// Writes a manifest and points tags at it. What is there already and whole is left alone, so that doing it again costs little.
    pub fn put_manifest(&self, repository: &Repository, manifest: &Manifest, tags: &[Tag]) -> Result<(), Error> {
        self.put_manifest_if(repository, manifest, tags, &Expected::Anything).map(|_| ())
    }

    /// The same where every one of the tags is as expected; otherwise nothing is written and the answer is `false`.
    pub fn put_manifest_if(
        &self,
        repository: &Repository,
        manifest: &Manifest,
        tags: &[Tag],
        expected: &Expected,
    ) -> Result<bool, Error> {
        self.durably(|| self.put(repository, manifest, tags, expected, true))
    }

    /// The same for an import: what it brings belongs to its generation and to nobody else.
    pub(super) fn import_manifest(
        &self,
        repository: &Repository,
        manifest: &Manifest,
        tags: &[Tag],
    ) -> Result<(), Error> {
        self.durably(|| self.put(repository, manifest, tags, &Expected::Anything, false)).map(|_| ())
    }

    fn put(
        &self,
        repository: &Repository,
        manifest: &Manifest,
        tags: &[Tag],
        expected: &Expected,
        pushed: bool,
    ) -> Result<bool, Error> {
        let blobs: Vec<Digest> = manifest.blobs().map(|blob| blob.digest.clone()).collect();
        for digest in blobs.iter().chain([manifest.digest()]) {
            self.0.leases.renew(repository, digest);
        }
        let paths = &self.0.directory.paths;
        self.0.pending.publish(&blobs, paths)?;
        let _names = self.lock_repository(repository);
        for tag in tags {
            if *expected != Expected::Anything && !expected.holds(self.0.directory.current(repository, tag)?.as_ref()) {
                return Ok(false);
            }
        }
        let digest = manifest.digest();
        if pushed {
            // Whoever pushes an index relies on its children, which may be there only because of an import.
            let relied: Vec<&Digest> =
                [digest].into_iter().chain(manifest.children().iter().map(|c| &c.digest)).collect();
            self.0.generations.pushed(repository, &relied, tags)?;
        }
        let link = paths.link(repository, Link::Revision, digest);
        let mut syncs = DirectorySyncs::default();
        let data_is_whole = self.data_is(manifest)?;
        let link_is_whole = read_link(&link)?.flatten().as_ref() == Some(digest);
        if !data_is_whole || !link_is_whole {
            let data = paths.data(digest);
            if data_is_whole {
                // Another repository's push may have put it there just now and not have synced it yet.
                for path in data.ancestors().take(3) {
                    syncs.changed(path);
                }
            } else {
                let temporary = paths.uploads().join(format!("manifest-{}", UploadId::random()?));
                disk::write_beside(&temporary, &data, manifest.bytes(), &mut syncs)?;
            }
            syncs.sync()?;
            write_link(&link, digest, paths, &mut syncs)?;
            syncs.sync()?;
            self.0.directory.referrers.changed(repository, digest);
        }
        self.0.catalog.changed(repository, true);
        for tag in tags {
            let current = paths.current(repository, tag);
            if read_link(&current)?.flatten().as_ref() == Some(digest) {
                continue;
            }
            write_link(&paths.past(repository, tag, digest), digest, paths, &mut syncs)?;
            write_link(&current, digest, paths, &mut syncs)?;
        }
        syncs.sync()?;
        self.0.leases.release(repository, blobs.iter().chain([digest]));
        Ok(true)
    }

    /// Whether the bytes under the manifest's digest are the manifest's.
    fn data_is(&self, manifest: &Manifest) -> Result<bool, Error> {
        match disk::read_small(&self.0.directory.paths.data(manifest.digest()), MAX_MANIFEST_BYTES) {
            Ok(bytes) => Ok(bytes.as_deref() == Some(&manifest.bytes()[..])),
            Err(e) if e.kind() == ErrorKind::Invalid => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Removes a tag and leaves its manifest. `false` when there was none.
    pub fn delete_tag(&self, repository: &Repository, tag: &Tag) -> Result<bool, Error> {
        self.removal(|| {
            let _names = self.lock_repository(repository);
            let there = disk::is_file(&self.0.directory.paths.current(repository, tag))?;
            let mut syncs = DirectorySyncs::default();
            self.remove_tag(repository, tag, &mut self.aside()?, &mut syncs)?;
            syncs.sync()?;
            Ok(there)
        })
    }

    /// Removes a tag with its history, in one step where the disk has room for that.
    pub(super) fn remove_tag(
        &self,
        repository: &Repository,
        tag: &Tag,
        aside: &mut Aside<'_>,
        syncs: &mut DirectorySyncs,
    ) -> Result<(), Error> {
        let paths = &self.0.directory.paths;
        let folder = paths.tag(repository, tag);
        if aside.take(&folder, tag.as_str()) {
            syncs.changed(&folder);
            return Ok(());
        }
        // The name goes first, then its history.
        disk::remove_file(&paths.current(repository, tag))?;
        if disk::remove_tree(&folder)? {
            syncs.changed(&folder);
        }
        Ok(())
    }

    /// Removes a manifest from a repository, with every tag that points at it. Its blobs stay. `false` when there was none.
    pub fn delete_manifest(&self, repository: &Repository, digest: &Digest) -> Result<bool, Error> {
        self.removal(|| self.take_manifest_away(repository, digest))
    }

    fn take_manifest_away(&self, repository: &Repository, digest: &Digest) -> Result<bool, Error> {
        let _names = self.lock_repository(repository);
        let directory = &self.0.directory;
        let mut syncs = DirectorySyncs::default();
        // Also where none goes now: an attempt before may have taken some away and not have come to the sync.
        syncs.folder(directory.paths.tags(repository));
        let mut aside = self.aside()?;
        for tag in directory.tags_at(repository, digest)? {
            self.remove_tag(repository, &tag, &mut aside, &mut syncs)?;
        }
        syncs.sync()?;
        let link = directory.paths.link(repository, Link::Revision, digest);
        let there = disk::remove_file(&link)?;
        if let Some(folder) = link.parent()
            && disk::remove_tree(folder)?
        {
            syncs.changed(folder);
        }
        syncs.sync()?;
        self.removed_manifest(repository, digest)?;
        Ok(there)
    }

    /// Removes a blob from a repository; its bytes stay in the storage. `false` when it was not there.
    pub fn delete_blob(&self, repository: &Repository, digest: &Digest) -> Result<bool, Error> {
        self.removal(|| self.take_blob_away(repository, digest))
    }

    fn take_blob_away(&self, repository: &Repository, digest: &Digest) -> Result<bool, Error> {
        self.0.leases.release(repository, [digest].into_iter());
        let was_pending = self.0.pending.disown(digest, repository)?;
        let link = self.0.directory.paths.link(repository, Link::Layer, digest);
        let there = disk::remove_file(&link)?;
        if there {
            let mut syncs = DirectorySyncs::default();
            syncs.changed(&link);
            syncs.sync()?;
        }
        Ok(there || was_pending)
    }
}

impl Storage for Writer {
    fn describe(&self) -> String {
        self.0.directory.describe()
    }

    fn repositories(&self) -> Result<Vec<Repository>, Error> {
        self.repositories_after(None, usize::MAX)
    }

    fn repositories_after(&self, after: Option<&Repository>, most: usize) -> Result<Vec<Repository>, Error> {
        match self.0.catalog.page(after, most) {
            Some(page) => Ok(page),
            None => self.0.directory.repositories_after(after, most),
        }
    }

    fn tags_after(&self, repository: &Repository, after: &str, most: usize) -> Result<Option<Vec<Tag>>, Error> {
        self.0.directory.tags_after(repository, after, most)
    }

    fn manifest_at_once(&self, repository: &Repository, at: &ManifestName) -> Option<Manifest> {
        self.0.directory.manifest_at_once(repository, at)
    }

    fn tags(&self, repository: &Repository) -> Result<Option<Vec<Tag>>, Error> {
        self.0.directory.tags(repository)
    }

    fn manifest(&self, repository: &Repository, at: &ManifestName) -> Result<Option<Manifest>, Error> {
        self.0.directory.manifest(repository, at)
    }

    fn blob(&self, repository: &Repository, digest: &Digest) -> Result<Option<Region>, Error> {
        match self.0.pending.find(digest, Some(repository)) {
            Some(Readable::Staged(path)) => {
                if let Some(region) = open_region(&path)? {
                    return Ok(Some(region));
                }
                // Published between the two lines above.
                self.0.directory.blob_at(digest)
            }
            Some(Readable::InPlace) => self.0.directory.blob_at(digest),
            None => {
                let stamp = Stamp::at(&self.0.directory.paths.data(digest));
                let region = self.0.directory.blob(repository, digest)?;
                if let (Some(region), Some(stamp)) = (&region, stamp.filter(Stamp::is_settled)) {
                    let mut open = self.open_files();
                    if open.len() >= MAX_OPEN {
                        open.clear();
                    }
                    open.insert(digest.clone(), (stamp, region.clone()));
                }
                Ok(region)
            }
        }
    }

    fn blob_at_once(&self, repository: &Repository, digest: &Digest) -> Option<Region> {
        let (stamp, region) = self.open_files().get(digest).cloned()?;
        let paths = &self.0.directory.paths;
        let link = fs::metadata(paths.link(repository, Link::Layer, digest)).ok()?;
        // Another length may say that the bytes lie under another digest.
        let is_own = link.is_file() && link.len() == digest.to_string().len() as u64;
        (is_own && Stamp::at(&paths.data(digest)) == Some(stamp)).then_some(region)
    }

    fn referrers(&self, repository: &Repository, subject: &Digest) -> Result<Vec<Descriptor>, Error> {
        self.0.directory.referrers(repository, subject)
    }

    fn manifests(&self, repository: &Repository) -> Result<Option<Vec<Digest>>, Error> {
        self.0.directory.manifests(repository)
    }

    fn tagged_at(&self, repository: &Repository, tag: &Tag) -> Option<SystemTime> {
        self.0.directory.tagged_at(repository, tag)
    }

    fn verified(&self) -> Option<Verified> {
        self.0.directory.verified()
    }
}

fn tag_of(at: &ManifestName) -> Option<&Tag> {
    match at {
        ManifestName::Tag(tag) => Some(tag),
        ManifestName::Digest(_) => None,
    }
}

/// Takes the lock. The file is open for reading, where that is enough.
fn take_lock(path: &Path, root: &Path) -> Result<File, Error> {
    let open = |path: &Path| -> io::Result<File> {
        let made = File::options().create(true).write(true).truncate(false).open(path)?;
        disk::give_to_owner_of(path.parent().unwrap_or(path), &made)?;
        let file = File::open(path)?;
        match disk::lock(&file) {
            Ok(()) => Ok(file),
            // NFS locks only what may be written.
            Err(TryLockError::Error(e)) if e.raw_os_error() == Some(rustix::io::Errno::BADF.raw_os_error()) => {
                disk::lock(&made).map(|()| made).map_err(io::Error::from)
            }
            Err(e) => Err(e.into()),
        }
    };
    open(path).map_err(|e| match e.kind() {
        io::ErrorKind::WouldBlock => Error::new(
            ErrorKind::Locked,
            format!("open registry storage `{}` for writing", root.display()),
            "another process is writing to it",
        )
        .hint("stop the registry that serves this directory, or choose another directory"),
        _ => disk::failed("lock", path, &e),
    })
}
