//! Takes back what was changed when a later step fails, so that nothing half-made is left.

use std::fs::{self, Permissions};
use std::io::{Read as _, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};

use airlock_oci::{Error, ErrorKind};
use rustix::fs::OFlags;
use rustix::io::Errno;

/// Files whose content is remembered are smaller than this, in bytes.
const MAX_REMEMBERED: u64 = 16 * 1024 * 1024;

/// The permissions of folders that are made on the way to one that is wanted.
const PARENT_MODE: u32 = 0o755;

/// What was there before. Dropped without [`Undo::keep`], everything is put back.
#[derive(Debug, Default)]
pub struct Undo {
    before: Vec<Before>,
}

#[derive(Debug)]
enum Before {
    /// Nothing was at this path.
    Nothing(PathBuf),
    /// A file with this content.
    Content { path: PathBuf, bytes: Vec<u8>, mode: u32, owner: (u32, u32) },
    /// A file that lies at another path now.
    Moved { path: PathBuf, aside: PathBuf },
}

impl Undo {
    /// Remembers what is at a path now, before it is changed: nothing, or a file. A folder that is there stays. A link or a device is
    /// refused: root would read what it leads to, and give it to the user who made the link.
    pub fn watch(&mut self, path: &Path) -> Result<(), Error> {
        let failed = |e: &std::io::Error| Error::io(format!("read `{}`", path.display()), e);
        match fs::symlink_metadata(path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => self.before.push(Before::Nothing(path.to_owned())),
            Err(e) => return Err(failed(&e)),
            Ok(metadata) if metadata.is_dir() => {}
            Ok(_) => {
                let refused =
                    |cause: &str| Error::new(ErrorKind::Invalid, format!("replace `{}`", path.display()), cause);
                // What was looked at may be something else by now: the file that is open is looked at again. A pipe must not block.
                let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
                let not_a_file = || refused("it is not a file").hint("move away what is there, then try again");
                let file = fs::File::options().read(true).custom_flags(flags.bits().cast_signed()).open(path);
                let file = file.map_err(|e| match e.raw_os_error() {
                    Some(code) if code == Errno::LOOP.raw_os_error() => not_a_file(),
                    _ => failed(&e),
                })?;
                let metadata = file.metadata().map_err(|e| failed(&e))?;
                if !metadata.is_file() {
                    return Err(not_a_file());
                }
                if metadata.len() > MAX_REMEMBERED {
                    return Err(refused("it is too large"));
                }
                let mut bytes = Vec::new();
                file.take(MAX_REMEMBERED).read_to_end(&mut bytes).map_err(|e| failed(&e))?;
                let owner = (metadata.uid(), metadata.gid());
                self.before.push(Before::Content {
                    path: path.to_owned(),
                    bytes,
                    mode: metadata.mode() & 0o7777,
                    owner,
                });
            }
        }
        Ok(())
    }

    /// Makes a folder that can be taken back. Those above it that are missing are made too, open to everybody as usual: whoever the folder
    /// is given to has to get there.
    pub fn folder(&mut self, path: &Path, mode: u32) -> Result<(), Error> {
        let mut missing: Vec<&Path> = path.ancestors().take_while(|above| !above.exists()).collect();
        missing.reverse();
        for folder in missing {
            self.watch(folder)?;
            fs::create_dir(folder).map_err(|e| {
                Error::io(format!("create directory `{}`", folder.display()), &e).hint("choose another --root")
            })?;
            let mode = if folder == path { mode } else { PARENT_MODE };
            fs::set_permissions(folder, Permissions::from_mode(mode))
                .map_err(|e| Error::io(format!("set the permissions of `{}`", folder.display()), &e))?;
        }
        Ok(())
    }

    /// Writes a file, replacing one that is there at once.
    pub fn put(&mut self, path: &Path, bytes: &[u8], mode: u32) -> Result<(), Error> {
        self.watch(path)?;
        replace(path, bytes, mode)
    }

    /// Copies a program to where it will run, with another name until it is whole. One that is there is moved aside and stays there,
    /// also when nothing is taken back.
    pub fn program(&mut self, from: &Path, to: &Path) -> Result<(), Error> {
        let failed = |e: &std::io::Error| Error::io(format!("copy `{}` to `{}`", from.display(), to.display()), e);
        let beside = with_suffix(to, ".new");
        let copied = (|| {
            // A plain copy: a rename over a running program works where writing into it would not.
            let _ = fs::remove_file(&beside);
            fs::copy(from, &beside)?;
            fs::set_permissions(&beside, Permissions::from_mode(0o755))?;
            fs::File::open(&beside)?.sync_all()
        })();
        if let Err(e) = copied {
            let _ = fs::remove_file(&beside);
            return Err(failed(&e));
        }
        if to.exists() {
            let aside = previous(to);
            // The old one stays at its place until the new one takes it: whatever happens between, there is a program.
            let _ = fs::remove_file(&aside);
            fs::hard_link(to, &aside).map_err(|e| failed(&e))?;
            self.before.push(Before::Moved { path: to.to_owned(), aside });
        } else {
            self.before.push(Before::Nothing(to.to_owned()));
        }
        fs::rename(&beside, to).map_err(|e| failed(&e))
    }

    /// Nothing is to be taken back any more.
    pub fn keep(mut self) {
        self.before.clear();
    }

    /// Puts everything back, the last change first; what could not be put back.
    pub fn roll_back(mut self) -> Vec<String> {
        self.back()
    }

    fn back(&mut self) -> Vec<String> {
        let mut failures = Vec::new();
        while let Some(before) = self.before.pop() {
            if let Err((path, e)) = before.restore() {
                failures.push(format!("`{}`: {e}", path.display()));
            }
        }
        failures
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        for failure in self.back() {
            tracing::warn!("cannot be put back as it was: {failure}");
        }
    }
}

impl Before {
    fn restore(self) -> Result<(), (PathBuf, std::io::Error)> {
        match self {
            Self::Nothing(path) => {
                let removed = match fs::symlink_metadata(&path) {
                    Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(&path),
                    Ok(_) => fs::remove_file(&path),
                    Err(_) => Ok(()),
                };
                removed.map_err(|e| (path, e))
            }
            Self::Content { path, bytes, mode, owner } => {
                let restored =
                    replace(&path, &bytes, mode).map_err(std::io::Error::other).and_then(
                        |()| match fs::symlink_metadata(&path) {
                            Ok(now) if (now.uid(), now.gid()) != owner => lchown(&path, Some(owner.0), Some(owner.1)),
                            _ => Ok(()),
                        },
                    );
                restored.map_err(|e| (path, e))
            }
            Self::Moved { path, aside } => fs::rename(&aside, &path).map_err(|e| (path, e)),
        }
    }
}

/// Where the program lies that was there before.
pub fn previous(program: &Path) -> PathBuf {
    with_suffix(program, ".previous")
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Replaces a file at once, with these permissions from the first moment.
fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Error> {
    let beside = with_suffix(path, ".new");
    let written = (|| {
        let _ = fs::remove_file(&beside);
        let mut file = fs::File::options().write(true).create_new(true).mode(mode).open(&beside)?;
        // The process's mask may have taken bits away that were asked for.
        file.set_permissions(Permissions::from_mode(mode))?;
        file.write_all(bytes)?;
        file.sync_data()?;
        fs::rename(&beside, path)
    })();
    written.map_err(|e| {
        let _ = fs::remove_file(&beside);
        Error::io(format!("write `{}`", path.display()), &e)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn everything_is_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("kept"), "old").unwrap();
        fs::set_permissions(at("kept"), Permissions::from_mode(0o640)).unwrap();
        fs::write(at("program"), "one").unwrap();
        fs::write(at("next"), "two").unwrap();
        let change = |undo: &mut Undo| {
            undo.put(&at("kept"), b"new", 0o600).unwrap();
            undo.folder(&at("a/b"), 0o750).unwrap();
            undo.put(&at("a/b/c"), b"x", 0o600).unwrap();
            undo.program(&at("next"), &at("program")).unwrap();
            undo.program(&at("next"), &at("a/program")).unwrap();
            undo.watch(&at("later")).unwrap();
            fs::create_dir(at("later")).unwrap();
            fs::write(at("later/x"), "x").unwrap();
        };
        let mut undo = Undo::default();
        change(&mut undo);
        assert_eq!((mode(&at("a")), mode(&at("a/b"))), (0o755, 0o750), "the way there is open, the folder is not");
        assert_eq!((mode(&at("a/b/c")), mode(&at("program"))), (0o600, 0o755));
        assert_eq!(fs::read(previous(&at("program"))).unwrap(), b"one");
        assert!(undo.roll_back().is_empty());
        assert_eq!((fs::read(at("kept")).unwrap(), mode(&at("kept"))), (b"old".to_vec(), 0o640));
        assert_eq!(fs::read(at("program")).unwrap(), b"one");
        let mut left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["kept", "next", "program"]);
        let mut undo = Undo::default();
        change(&mut undo);
        undo.keep();
        assert_eq!(fs::read(at("kept")).unwrap(), b"new");
        assert_eq!(fs::read(at("program")).unwrap(), b"two");
    }

    #[test]
    fn what_is_no_file_is_refused_unread() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("secret"), "of somebody else").unwrap();
        std::os::unix::fs::symlink(at("secret"), at("link")).unwrap();
        std::os::unix::fs::symlink(at("nowhere"), at("dangling")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        for name in ["link", "dangling", "socket"] {
            let mut undo = Undo::default();
            assert!(undo.watch(&at(name)).is_err(), "{name}");
            assert!(undo.put(&at(name), b"new", 0o600).is_err(), "{name}");
            assert!(undo.before.is_empty() && fs::symlink_metadata(at(name)).is_ok(), "{name}");
        }
        assert!(Undo::default().watch(&at("link")).unwrap_err().cause().contains("not a file"));
        assert_eq!(fs::read(at("secret")).unwrap(), b"of somebody else");
    }

    #[test]
    fn what_cannot_be_written_says_where() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), "").unwrap();
        let mut undo = Undo::default();
        let error = undo.folder(&folder.path().join("file/below"), 0o755).unwrap_err();
        assert!(error.what().contains("file/below"), "{error}");
        assert!(undo.put(&folder.path().join("none/x"), b"", 0o600).is_err());
    }
}
