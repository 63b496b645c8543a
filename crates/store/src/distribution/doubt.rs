//! Whether what is in place is on the disk as well.
//!
//! Content that is there already is not written again, which is right only as long as whoever wrote it also synced it. A change that
//! ended with an error may have moved files into place before the sync that failed; a process that was killed may have too, and the next
//! one sees the same names, which for now are only in the kernel's memory. From then on nothing that is found may be acknowledged as
//! durable until the whole file system was synced once.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use airlock_oci::Error;

use crate::disk;

/// What the lock file holds for as long as a writer lives: who finds it there succeeds one that was killed.
const IN_USE: &[u8] = b"in use\n";
/// What it holds otherwise: of the same length, since a full disk has room for no other (it is when garbage must be collected).
const AT_REST: &[u8] = b"rests.\n";

/// What one writer knows of its storage.
#[derive(Debug)]
pub(super) struct Doubt {
    /// The directory whose file system is synced.
    root: PathBuf,
    /// The lock file, in which a writer that ends in an orderly way says so.
    mark: PathBuf,
    /// Changes that failed so far.
    failures: AtomicU64,
    /// How many of them were there at the last sync.
    settled: AtomicU64,
    /// Held during a sync, so that one is enough for all who wait for it.
    syncing: Mutex<()>,
}

impl Doubt {
    /// Takes the mark, whose lock the caller holds. A writer before that was killed is one failure.
    pub(super) fn begin(root: &Path, mark: &Path) -> Result<Self, Error> {
        let marked = || -> std::io::Result<u64> {
            let mut file = File::options().read(true).write(true).open(mark)?;
            let mut before = Vec::new();
            (&file).take(IN_USE.len() as u64).read_to_end(&mut before)?;
            if before == IN_USE {
                return Ok(1);
            }
            // Not synced: after a power cut what is seen is on the disk.
            file.seek(SeekFrom::Start(0))?;
            match file.write_all(IN_USE) {
                // A disk that is full when the first writer comes must be freed by somebody.
                Err(e) if e.kind() == ErrorKind::StorageFull => Ok(1),
                written => written.map(|()| 0),
            }
        };
        let failures = marked().map_err(|e| disk::failed("write", mark, &e))?;
        Ok(Self {
            root: root.to_owned(),
            mark: mark.to_owned(),
            failures: AtomicU64::new(failures),
            settled: AtomicU64::new(0),
            syncing: Mutex::new(()),
        })
    }

    /// Makes a change, which may rely on what it finds.
    pub(super) fn change<T>(&self, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        self.settle()?;
        self.removal(work)
    }

    /// Takes something away, which relies on nothing that is found and must be possible where nothing can be written.
    pub(super) fn removal<T>(&self, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        let outcome = work();
        if outcome.is_err() {
            self.failures.fetch_add(1, Ordering::AcqRel);
        }
        outcome
    }

    /// Syncs everything if there is a doubt.
    fn settle(&self) -> Result<(), Error> {
        let failures = self.failures.load(Ordering::Acquire);
        if failures <= self.settled.load(Ordering::Acquire) {
            return Ok(());
        }
        let _one = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        // Another may have waited for the same, and more may have failed meanwhile.
        let failures = self.failures.load(Ordering::Acquire);
        if failures <= self.settled.load(Ordering::Acquire) {
            return Ok(());
        }
        disk::sync_all(&self.root)?;
        self.settled.store(failures, Ordering::Release);
        Ok(())
    }
}

impl Drop for Doubt {
    fn drop(&mut self) {
        if self.failures.load(Ordering::Acquire) <= self.settled.load(Ordering::Acquire) {
            // Where that fails the next writer syncs once too often.
            let _ = fs::OpenOptions::new().write(true).open(&self.mark).and_then(|mut file| file.write_all(AT_REST));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_doubted(doubt: &Doubt) -> bool {
        doubt.failures.load(Ordering::Acquire) > doubt.settled.load(Ordering::Acquire)
    }

    #[test]
    fn a_failure_and_a_killed_predecessor_are_doubts_until_all_is_synced() {
        let root = tempfile::tempdir().unwrap();
        let mark = root.path().join("lock");
        fs::write(&mark, "").unwrap();
        let doubt = Doubt::begin(root.path(), &mark).unwrap();
        assert!(!is_doubted(&doubt));
        doubt.change(|| Ok(())).unwrap();
        let failed = doubt.change(|| Err::<(), _>(Error::new(airlock_oci::ErrorKind::Io, "write", "no")));
        assert!(failed.is_err() && is_doubted(&doubt));
        doubt.change(|| Ok(())).unwrap();
        assert!(!is_doubted(&doubt));
        drop(doubt);
        assert_eq!(fs::read(&mark).unwrap(), AT_REST, "it ended in an orderly way");
        std::mem::forget(Doubt::begin(root.path(), &mark).unwrap());
        let next = Doubt::begin(root.path(), &mark).unwrap();
        assert!(is_doubted(&next), "it was killed");
        drop(next);
        assert_eq!(fs::read(&mark).unwrap(), IN_USE, "the doubt is handed on");
        let last = Doubt::begin(root.path(), &mark).unwrap();
        last.change(|| Ok(())).unwrap();
        drop(last);
        assert_eq!(fs::read(&mark).unwrap(), AT_REST);
    }
}
