//! Local files with errors that carry the path, and directory changes that survive a power cut.

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use airlock_oci::{Error, ErrorKind};
use rustix::fs::OFlags;
use rustix::io::Errno;

/// The directories whose entries were changed and not yet synced.
///
/// A rename or a new file is durable only once its directory is. Changes are collected so that one sync covers many.
#[derive(Debug, Default)]
pub(crate) struct DirectorySyncs(BTreeSet<PathBuf>);

/// Whether an error only says that there is nothing at a path (a file in the place of a directory included).
pub(crate) fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Whether there is a regular file. A disk that fails to tell has not said that there is none.
pub(crate) fn is_file(path: &Path) -> Result<bool, Error> {
    metadata(path).map(|found| found.is_some_and(|m| m.is_file()))
}

/// Whether there is a directory, or a symbolic link to one: an administrator may keep parts of a storage on another disk.
pub(crate) fn is_directory(path: &Path) -> Result<bool, Error> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(metadata.is_dir()),
        Err(e) if is_absent(&e) => Ok(false),
        Err(e) => Err(failed("look at", path, &e)),
    }
}

/// What the file system says of a path, of a symbolic link itself; `None` when there is nothing.
pub(crate) fn metadata(path: &Path) -> Result<Option<fs::Metadata>, Error> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(e) if is_absent(&e) => Ok(None),
        Err(e) => Err(failed("look at", path, &e)),
    }
}

/// Writes everything to the disk that the file system of a directory has in memory, and waits for it.
pub(crate) fn sync_all(directory: &Path) -> Result<(), Error> {
    let synced = File::open(directory).and_then(|d| Ok(rustix::fs::syncfs(d)?));
    synced.map_err(|e| failed("sync the file system of", directory, &e))
}

/// Bytes that may still be written to a path's file system.
pub(crate) fn available(path: &Path) -> io::Result<u64> {
    let space = rustix::fs::statvfs(path)?;
    Ok(space.f_bavail.saturating_mul(space.f_frsize))
}

/// An error about a path.
pub(crate) fn failed(doing: &str, path: &Path, error: &io::Error) -> Error {
    Error::io(format!("{doing} `{}`", path.display()), error)
}

/// Opens a regular file for reading; `None` when there is none. A symbolic link is none: it could lead to any file of this machine, which would
/// then be served. Nothing else is waited for either, as a named pipe would be.
pub(crate) fn open(path: &Path) -> Result<Option<(File, u64)>, Error> {
    open_with(path, OFlags::NOFOLLOW)
}

/// The same for the files of somebody else's who was named as the source, and who may have made them of links (as Bazel makes its layouts).
pub(crate) fn open_through_links(path: &Path) -> Result<Option<(File, u64)>, Error> {
    open_with(path, OFlags::empty())
}

fn open_with(path: &Path, flags: OFlags) -> Result<Option<(File, u64)>, Error> {
    let flags = (flags | OFlags::NONBLOCK).bits() as i32;
    let file = match File::options().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(e) if is_absent(&e) => return Ok(None),
        // A symbolic link, or something without a reader's side (a socket).
        Err(e) if is_special(&e) => return Ok(None),
        Err(e) => return Err(failed("open", path, &e)),
    };
    let metadata = file.metadata().map_err(|e| failed("read", path, &e))?;
    if !metadata.is_file() {
        return Ok(None);
    }
    Ok(Some((file, metadata.len())))
}

fn is_special(error: &io::Error) -> bool {
    let special = [Errno::LOOP, Errno::NXIO, Errno::NODEV];
    special.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// The whole of a small file, `None` when there is none; see [`open`]. More than `most` bytes are an error.
pub(crate) fn read_small(path: &Path, most: usize) -> Result<Option<Vec<u8>>, Error> {
    read_opened(path, open(path)?, most)
}

/// The same with [`open_through_links`].
pub(crate) fn read_small_through_links(path: &Path, most: usize) -> Result<Option<Vec<u8>>, Error> {
    read_opened(path, open_through_links(path)?, most)
}

fn read_opened(path: &Path, opened: Option<(File, u64)>, most: usize) -> Result<Option<Vec<u8>>, Error> {
    let Some((file, len)) = opened else { return Ok(None) };
    let too_long = || {
        Error::new(
            ErrorKind::Invalid,
            format!("read `{}`", path.display()),
            format!("it has {len} bytes, more than the {most} that such a file may have"),
        )
    };
    if len > most as u64 {
        return Err(too_long());
    }
    let mut bytes = Vec::with_capacity(len as usize);
    file.take(most as u64 + 1).read_to_end(&mut bytes).map_err(|e| failed("read", path, &e))?;
    if bytes.len() > most {
        return Err(too_long());
    }
    Ok(Some(bytes))
}

/// The names in a directory, sorted; empty when there is no such directory. Names that are not UTF-8 are no names of ours.
pub(crate) fn names(path: &Path) -> Result<Vec<String>, Error> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(e) if is_absent(&e) => return Ok(Vec::new()),
        Err(e) => return Err(failed("read directory", path, &e)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|e| failed("read directory", path, &e))?;
        if let Ok(name) = entry.file_name().into_string() {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Removes a file; `false` when there was none.
pub(crate) fn remove_file(path: &Path) -> Result<bool, Error> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(e) if is_absent(&e) => Ok(false),
        Err(e) => Err(failed("remove", path, &e)),
    }
}

/// Removes a directory with everything below it; `false` when there was none.
pub(crate) fn remove_tree(path: &Path) -> Result<bool, Error> {
    match fs::remove_dir_all(path) {
        Ok(()) => Ok(true),
        Err(e) if is_absent(&e) => Ok(false),
        Err(e) => Err(failed("remove", path, &e)),
    }
}

/// Gives what root has just made to whom the folder belongs in which it lies: the service that keeps a storage must be able to go on with
/// what an import by root has written there. What has other names (a file that was linked) stays whose it is.
pub(crate) fn give_to_owner_of(folder: &Path, made: &File) -> io::Result<()> {
    let own = made.metadata()?;
    if own.uid() != 0 || (own.is_file() && own.nlink() > 1) {
        return Ok(());
    }
    let folder = fs::metadata(folder)?;
    if folder.uid() == 0 {
        return Ok(());
    }
    match fchown(made, Some(folder.uid()), Some(folder.gid())) {
        // A user who finds something of root's there, or a file system without owners.
        Err(e) if matches!(e.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported) => Ok(()),
        outcome => outcome,
    }
}

/// The same for a directory.
fn give_directory(path: &Path) -> Result<(), Error> {
    let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) else { return Ok(()) };
    let flags = (OFlags::DIRECTORY | OFlags::NOFOLLOW).bits() as i32;
    let opened = File::options().read(true).custom_flags(flags).open(path);
    match opened.and_then(|made| give_to_owner_of(folder, &made)) {
        // Whoever collects garbage may have taken it away again; then it is made anew.
        Err(e) if is_absent(&e) => Ok(()),
        outcome => outcome.map_err(|e| failed("change the owner of", path, &e)),
    }
}

impl DirectorySyncs {
    /// Makes a directory and the missing ones above it.
    pub(crate) fn create(&mut self, path: &Path) -> Result<(), Error> {
        match fs::create_dir(path) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::NotFound && path.parent().is_some_and(|p| p != path) => {
                self.create(path.parent().unwrap_or(path))?;
                match fs::create_dir(path) {
                    Ok(()) => {}
                    // Another task made it in between; it also syncs it, but perhaps later than we must.
                    Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                    Err(e) => return Err(failed("create directory", path, &e)),
                }
            }
            Err(e) => return Err(failed("create directory", path, &e)),
        }
        give_directory(path)?;
        self.changed(path);
        Ok(())
    }

    /// Moves a complete file to its place, whose directory is made first.
    pub(crate) fn publish(&mut self, from: &Path, to: &Path) -> Result<(), Error> {
        let parent = to.parent().unwrap_or(to);
        self.create(parent)?;
        match fs::rename(from, to) {
            Ok(()) => {}
            // A deletion may have taken the directory away in between; once is enough, both sides hold locks otherwise.
            Err(e) if e.kind() == io::ErrorKind::NotFound && from.exists() => {
                self.create(parent)?;
                fs::rename(from, to).map_err(|e| failed("move into place", to, &e))?;
            }
            Err(e) => return Err(failed("move into place", to, &e)),
        }
        self.changed(to);
        Ok(())
    }

    /// Notes that the entry at `path` was added, replaced or removed.
    pub(crate) fn changed(&mut self, path: &Path) {
        if let Some(parent) = path.parent() {
            self.folder(parent.to_owned());
        }
    }

    /// Notes that entries of a directory may have changed.
    pub(crate) fn folder(&mut self, path: PathBuf) {
        self.0.insert(path);
    }

    /// Makes everything noted so far durable.
    pub(crate) fn sync(&mut self) -> Result<(), Error> {
        let paths: Vec<PathBuf> = std::mem::take(&mut self.0).into_iter().collect();
        side_by_side(&paths, |path| match File::open(path).and_then(|d| d.sync_all()) {
            Ok(()) => Ok(()),
            // Removed in the meantime; then its parent was noted by whoever removed it.
            Err(e) if is_absent(&e) => Ok(()),
            Err(e) => Err(failed("sync directory", path, &e)),
        })
        .map(drop)
    }

    /// Takes over what another has noted.
    pub(crate) fn join(&mut self, other: Self) {
        self.0.extend(other.0);
    }
}

/// How long a lock is waited for.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
/// How long between two looks.
const LOCK_INTERVAL: Duration = Duration::from_millis(20);

/// Takes a lock, for which it waits a moment: whoever held it may just be ending, and a process that is being started holds the locks of the one
/// that starts it until its program has begun.
pub(crate) fn lock(file: &File) -> Result<(), TryLockError> {
    let begun = Instant::now();
    loop {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) if begun.elapsed() < LOCK_PATIENCE => std::thread::sleep(LOCK_INTERVAL),
            outcome => return outcome,
        }
    }
}

/// Syncs at once. The disk takes them together, so that eight cost little more than one.
const SYNCS_AT_ONCE: usize = 8;

/// Does something that waits for the disk to each of the items, some at a time; answers what came of each, or the first error.
pub(crate) fn side_by_side<T: Sync, R: Send>(
    items: &[T],
    action: impl Fn(&T) -> Result<R, Error> + Sync,
) -> Result<Vec<R>, Error> {
    if items.len() <= 2 {
        return items.iter().map(action).collect();
    }
    let share = items.len().div_ceil(SYNCS_AT_ONCE);
    let each = &|part: &[T]| part.iter().map(&action).collect::<Result<Vec<R>, Error>>();
    let parts: Vec<Result<Vec<R>, Error>> = std::thread::scope(|scope| {
        let begin = |part| (part, std::thread::Builder::new().spawn_scoped(scope, move || each(part)));
        let parts: Vec<_> = items.chunks(share).map(begin).collect();
        let end = |(part, thread): (_, std::io::Result<std::thread::ScopedJoinHandle<'_, _>>)| match thread {
            Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            // The system gives no more threads: this one does it.
            Err(_) => each(part),
        };
        parts.into_iter().map(end).collect()
    });
    let mut done = Vec::with_capacity(items.len());
    for part in parts {
        done.append(&mut part?);
    }
    Ok(done)
}

/// Writes a small file so that it is there whole or not at all: beside, synced, renamed. The directory still has to be synced.
pub(crate) fn write_beside(
    temporary: &Path,
    path: &Path,
    bytes: &[u8],
    syncs: &mut DirectorySyncs,
) -> Result<(), Error> {
    let written = File::create_new(temporary).and_then(|file| {
        io::Write::write_all(&mut &file, bytes)?;
        give_to_owner_of(temporary.parent().unwrap_or(temporary), &file)?;
        file.sync_data()
    });
    let published = written.map_err(|e| failed("write", temporary, &e)).and_then(|()| syncs.publish(temporary, path));
    if published.is_err() {
        // What is left is no content; it would be cleaned up at the next start anyway.
        let _ = fs::remove_file(temporary);
    }
    published
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn side_by_side_all_is_done_in_order_or_the_error_is_told() {
        for count in [0, 1, 2, 3, 8, 9, 100_u32] {
            let items: Vec<u32> = (0..count).collect();
            let doubled: Vec<u32> = items.iter().map(|i| i * 2).collect();
            assert_eq!(side_by_side(&items, |i| Ok(i * 2)).unwrap(), doubled);
            let outcome = side_by_side(&items, |i| {
                if i + 1 == count { Err(failed("sync", Path::new("x"), &io::Error::other("no"))) } else { Ok(()) }
            });
            assert_eq!(outcome.is_err(), count > 0);
        }
    }

    #[test]
    fn neither_links_nor_pipes_are_files() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        fs::write(at("file"), b"x").unwrap();
        std::os::unix::fs::symlink(at("file"), at("link")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, at("pipe"), rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        assert!(open(&at("file")).unwrap().is_some() && is_file(&at("file")).unwrap());
        for name in ["link", "pipe", "socket", "nothing"] {
            assert!(open(&at(name)).unwrap().is_none(), "{name}");
            assert!(read_small(&at(name), 9).unwrap().is_none() && !is_file(&at(name)).unwrap(), "{name}");
        }
        assert!(open_through_links(&at("link")).unwrap().is_some());
        assert!(open_through_links(&at("pipe")).unwrap().is_none());
        fs::create_dir(at("folder")).unwrap();
        std::os::unix::fs::symlink(at("folder"), at("other-disk")).unwrap();
        assert!(is_directory(&at("other-disk")).unwrap() && open(&at("folder")).unwrap().is_none());
    }

    #[test]
    fn a_file_is_written_into_directories_that_are_made_for_it() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a/b/c/link");
        let mut syncs = DirectorySyncs::default();
        write_beside(&root.path().join("t"), &path, b"x", &mut syncs).unwrap();
        assert_eq!(syncs.0.len(), 4, "root, a, b and c changed: {syncs:?}");
        syncs.sync().unwrap();
        assert_eq!(read_small(&path, 1).unwrap().unwrap(), b"x");
        assert!(read_small(&path, 0).is_err());
        assert!(read_small(&path.join("below-a-file"), 9).unwrap().is_none());
    }
}
