//! Names that were taken away, and whose trees have not been taken apart yet.
//!
//! A tag is a file below five folders, and more with every image that it ever pointed at. To take ten thousand of them apart takes the file
//! system seconds; to move them takes it a tenth of one. A tag therefore leaves the registry's tree in one step, whole or not at all, for a
//! folder of the change that removes it (`.airlock/removed/ID/TAG`), and is gone for good once the folder that it left is synced. What lies
//! there is nobody's: it is taken apart a little at a time, also what a killed process has left, and by garbage collection at once.
//!
//! To move needs room for a name or two. Where there is none, or the folders lie on different file systems, or whatever else is in the way,
//! the caller takes the tree apart in its place.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use airlock_oci::Error;

use super::uploads::UploadId;
use crate::disk::{self, DirectorySyncs};

/// How long one round of maintenance takes trees apart, so that requests hardly notice and the end of the program does not wait for it.
pub(super) const AT_ONCE: Duration = Duration::from_secs(2);
/// How long maintenance leaves alone what could not be removed.
const TRY_AGAIN: Duration = Duration::from_secs(5 * 60);

/// The folder of one storage.
#[derive(Debug)]
pub(super) struct Removed {
    folder: PathBuf,
    /// Folders into which something is still being moved.
    filling: Mutex<BTreeSet<String>>,
    /// Held by whoever takes trees apart: when that last failed.
    clearing: Mutex<Option<Instant>>,
}

/// The place of what one change removes. It is left alone until this is dropped.
#[derive(Debug)]
pub(super) struct Aside<'a> {
    removed: &'a Removed,
    name: String,
    is_made: bool,
}

impl Removed {
    pub(super) fn at(folder: PathBuf) -> Self {
        Self { folder, filling: Mutex::default(), clearing: Mutex::default() }
    }

    fn filling(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.filling.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for what a change is going to remove. Nothing is made before the first tree comes.
    pub(super) fn begin(&self) -> Result<Aside<'_>, Error> {
        let name = UploadId::random()?.to_string();
        self.filling().insert(name.clone());
        Ok(Aside { removed: self, name, is_made: false })
    }

    /// Takes apart what lies here, for about so long; the rest waits for the next time. What could not be removed is tried again some
    /// minutes later.
    pub(super) fn clear_some(&self, most: Duration) -> Result<(), Error> {
        self.clear(Some(most))
    }

    /// Takes apart everything that lies here, unless somebody is at it.
    pub(super) fn clear_all(&self) -> Result<(), Error> {
        self.clear(None)
    }

    fn clear(&self, most: Option<Duration>) -> Result<(), Error> {
        let mut failed = match self.clearing.try_lock() {
            Ok(failed) => failed,
            Err(TryLockError::Poisoned(failed)) => failed.into_inner(),
            Err(TryLockError::WouldBlock) => return Ok(()),
        };
        if most.is_some() && failed.is_some_and(|at| at.elapsed() < TRY_AGAIN) {
            return Ok(());
        }
        let outcome = self.clear_until(most.map(|most| Instant::now() + most));
        *failed = outcome.is_err().then(Instant::now);
        outcome
    }

    fn clear_until(&self, end: Option<Instant>) -> Result<(), Error> {
        for change in disk::names(&self.folder)? {
            if self.filling().contains(&change) {
                continue;
            }
            let folder = self.folder.join(change);
            for tree in disk::names(&folder)? {
                if end.is_some_and(|end| Instant::now() >= end) {
                    return Ok(());
                }
                disk::remove_tree(&folder.join(tree))?;
            }
            disk::remove_tree(&folder)?;
        }
        Ok(())
    }
}

impl Aside<'_> {
    /// Moves a tree here, under a name that no other tree of this change has. `false`: it is where it was, or there is none. The folder
    /// that it leaves still has to be synced; this one need not be, since nobody misses what it holds.
    pub(super) fn take(&mut self, tree: &Path, name: &str) -> bool {
        let folder = self.removed.folder.join(&self.name);
        if !self.is_made {
            self.is_made = DirectorySyncs::default().create(&folder).is_ok();
        }
        self.is_made && fs::rename(tree, folder.join(name)).is_ok()
    }
}

impl Drop for Aside<'_> {
    fn drop(&mut self) {
        self.removed.filling().remove(&self.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(root: &Path, name: &str) -> PathBuf {
        let tree = root.join(name);
        fs::create_dir_all(tree.join("current")).unwrap();
        fs::write(tree.join("current/link"), "sha256:").unwrap();
        tree
    }

    #[test]
    fn what_is_moved_here_stays_until_its_change_has_ended_and_then_goes() {
        let root = tempfile::tempdir().unwrap();
        let removed = Removed::at(root.path().join(".airlock/removed"));
        removed.clear_all().unwrap();
        let mut aside = removed.begin().unwrap();
        assert!(!aside.take(&root.path().join("none"), "none"));
        for name in ["a", "b"] {
            assert!(aside.take(&tree(root.path(), name), name));
        }
        assert!(!root.path().join("a").exists());
        removed.clear_all().unwrap();
        let folder = removed.folder.join(&aside.name);
        assert_eq!(disk::names(&folder).unwrap(), ["a", "b"], "more may come");
        drop(aside);
        removed.clear_some(Duration::ZERO).unwrap();
        assert_eq!(disk::names(&folder).unwrap(), ["a", "b"], "there was no time");
        removed.clear_some(AT_ONCE).unwrap();
        assert_eq!(disk::names(&removed.folder).unwrap(), [""; 0]);
    }

    #[test]
    fn a_tree_that_cannot_be_moved_stays_whole() {
        let root = tempfile::tempdir().unwrap();
        // A file in the folder's place.
        let removed = Removed::at(root.path().join("removed"));
        fs::write(&removed.folder, "").unwrap();
        let tree = tree(root.path(), "a");
        let mut aside = removed.begin().unwrap();
        assert!(!aside.take(&tree, "a"));
        assert!(tree.join("current/link").is_file());
        // What was in the way is gone.
        fs::remove_file(&removed.folder).unwrap();
        assert!(aside.take(&tree, "a"));
    }
}
