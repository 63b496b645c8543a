//! The file system under a writer, narrow enough to be replaced by one that fails on purpose.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::io::Errno;

/// What a directory's file system can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Properties {
    /// Bytes that may still be written.
    pub free_bytes: u64,
    /// The largest file, where there is a limit (FAT32).
    pub max_file_bytes: Option<u64>,
    /// Whether bytes far beyond the end can be written without filling what lies between.
    pub cheap_holes: bool,
}

/// A directory that parts are written into.
pub trait Volume: Send + Sync {
    /// Where it is, for messages.
    fn path(&self) -> &Path;
    /// What its file system can do, now.
    fn properties(&self) -> io::Result<Properties>;
    /// Opens a file for reading and writing, making it if it does not exist.
    fn open(&self, name: &str) -> io::Result<Arc<dyn PartFile>>;
    /// Renames within the directory, replacing.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file; a missing one is fine.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Names of the files in the directory, sorted.
    fn names(&self) -> io::Result<Vec<String>>;
    /// Makes renames and removals durable.
    fn sync(&self) -> io::Result<()>;
}

/// A file being written at any offset.
pub trait PartFile: Send + Sync {
    /// Writes all bytes at an offset.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Writes all pieces at an offset, one after the other; together where the system can.
    fn write_pieces_at(&self, pieces: &[&[u8]], mut offset: u64) -> io::Result<()> {
        for piece in pieces {
            self.write_at(piece, offset)?;
            offset += piece.len() as u64;
        }
        Ok(())
    }
    /// Fills the buffer from an offset.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    /// Cuts or extends.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Bytes now.
    fn size(&self) -> io::Result<u64>;
    /// Reserves space for `len` bytes where the file system can; an error of kind
    /// `Unsupported` means that it cannot.
    fn reserve(&self, len: u64) -> io::Result<()>;
    /// Makes the data durable.
    fn sync(&self) -> io::Result<()>;
}

/// A directory of the local machine.
#[derive(Debug)]
pub struct LocalVolume {
    path: PathBuf,
}

#[derive(Debug)]
struct LocalFile {
    file: File,
    /// One writer at a time, as the system would have it anyway: there the second one spins until the first is done.
    writing: Mutex<()>,
}

/// Names of file systems by their magic number (statfs(2)) that fill holes or may do so.
const FILLS_HOLES: [i64; 6] = [
    0x4d44,      // FAT
    0x2011_bab0, // exFAT
    0x6573_5546, // FUSE (NTFS-3G, sshfs, …)
    0xff53_4d42, // CIFS
    0xfe53_4d42, // SMB2
    0x517b,      // SMB
];
const FAT: i64 = 0x4d44;
/// Most pieces of one write: the smallest limit of a system that runs this (`IOV_MAX`).
const MAX_PIECES: usize = 1024;
/// FAT32's largest file.
const FAT_MAX_FILE_BYTES: u64 = u32::MAX as u64;

impl LocalVolume {
    /// A directory, made if it does not exist.
    pub fn create(path: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(path)?;
        Ok(Self { path: path.to_owned() })
    }
}

impl Volume for LocalVolume {
    fn path(&self) -> &Path {
        &self.path
    }

    fn properties(&self) -> io::Result<Properties> {
        let space = rustix::fs::statvfs(&self.path)?;
        let magic = rustix::fs::statfs(&self.path)?.f_type as i64 & 0xffff_ffff;
        Ok(Properties {
            free_bytes: space.f_bavail.saturating_mul(space.f_frsize),
            max_file_bytes: (magic == FAT).then_some(FAT_MAX_FILE_BYTES),
            cheap_holes: !FILLS_HOLES.contains(&magic),
        })
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn PartFile>> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(self.path.join(name))?;
        Ok(Arc::new(LocalFile { file, writing: Mutex::default() }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match std::fs::remove_file(self.path.join(name)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}

impl PartFile for LocalFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let _alone = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        self.file.write_all_at(bytes, offset)
    }

    fn write_pieces_at(&self, pieces: &[&[u8]], mut offset: u64) -> io::Result<()> {
        let mut slices: Vec<IoSlice> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
        let mut left = slices.as_mut_slice();
        // Empty ones at the front would look like a write of nothing.
        IoSlice::advance_slices(&mut left, 0);
        let _alone = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        while !left.is_empty() {
            let most = left.len().min(MAX_PIECES);
            match rustix::io::pwritev(&self.file, &left[..most], offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    offset += written as u64;
                    IoSlice::advance_slices(&mut left, written);
                }
                Err(Errno::INTR) => {}
                Err(other) => return Err(other.into()),
            }
        }
        Ok(())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn reserve(&self, len: u64) -> io::Result<()> {
        match rustix::fs::fallocate(&self.file, rustix::fs::FallocateFlags::empty(), 0, len) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Err(io::ErrorKind::Unsupported.into()),
            other => Ok(other?),
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}
