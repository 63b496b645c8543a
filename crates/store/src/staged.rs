//! A file being written: hashed on the way, in nobody's way until it is renamed into place.

use std::fs::{self, File};
use std::io::{self, IoSlice, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use airlock_oci::{Algorithm, Content, Descriptor, Digest, Error, ErrorKind, Hasher};
use bytes::Bytes;
use futures_util::StreamExt;

use crate::disk::{self, DirectorySyncs};
use crate::source::blocking;

/// The size of the buffer with which a file is read again (bytes).
const READ_AGAIN_BYTES: usize = 256 * 1024;

/// Bytes on their way to a name. Dropped without [`Staged::keep`], the file is removed.
///
/// * The hasher has seen exactly the first `len` bytes of the file.
#[derive(Debug)]
pub(crate) struct Staged {
    path: PathBuf,
    /// Open while bytes come in.
    file: Option<File>,
    /// Whether there is a file at `path`.
    created: bool,
    hasher: Hasher,
    len: u64,
}

impl Staged {
    /// A file that will lie at `path`. Nothing touches the disk before the first byte.
    pub(crate) fn new(path: PathBuf, algorithm: Algorithm) -> Self {
        Self { path, file: None, created: false, hasher: Hasher::new(algorithm), len: 0 }
    }

    /// Bytes so far.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    fn file(&mut self) -> Result<&File, Error> {
        if self.file.is_none() {
            let file = File::options()
                .read(true)
                .write(true)
                .create_new(!self.created)
                .open(&self.path)
                .map_err(|e| disk::failed("open", &self.path, &e))?;
            disk::give_to_owner_of(self.path.parent().unwrap_or(&self.path), &file)
                .map_err(|e| disk::failed("change the owner of", &self.path, &e))?;
            self.created = true;
            self.file = Some(file);
        }
        self.file.as_ref().ok_or_else(|| Error::new(ErrorKind::Io, "write", "no file"))
    }

    /// Lets the file go until the next write, so that an upload which is only waiting costs no open file.
    pub(crate) fn close(&mut self) {
        self.file = None;
    }

    /// Appends. After an error the file is as long as before as far as anybody is concerned: the next write starts there.
    pub(crate) fn write(&mut self, chunks: &[Bytes]) -> Result<(), Error> {
        let at = self.len;
        let written = write_all_at(self.file()?, chunks, at);
        written.map_err(|e| disk::failed("write", &self.path, &e))?;
        for chunk in chunks {
            self.hasher.update(chunk);
            self.len += chunk.len() as u64;
        }
        Ok(())
    }

    /// The digest of everything written, by the algorithm of `expected`: the one hashed on the way costs nothing, another one a second read.
    pub(crate) fn digest(&mut self, algorithm: Algorithm, hashed: Algorithm) -> Result<Digest, Error> {
        if algorithm == hashed {
            return Ok(self.hasher.clone().finish());
        }
        let (mut hasher, mut at, end) = (Hasher::new(algorithm), 0, self.len);
        let mut buffer = vec![0; READ_AGAIN_BYTES];
        while at < end {
            let want = buffer.len().min((end - at) as usize);
            let read = self.file()?.read_exact_at(&mut buffer[..want], at);
            read.map_err(|e| disk::failed("read", &self.path, &e))?;
            hasher.update(&buffer[..want]);
            at += want as u64;
        }
        Ok(hasher.finish())
    }

    /// Cuts off what a failed write may have left, and closes the file: it is complete, and whoever has the path now owns it.
    pub(crate) fn keep(mut self) -> Result<PathBuf, Error> {
        let len = self.len;
        let file = self.file()?;
        let cut = file.metadata().and_then(|m| if m.len() == len { Ok(()) } else { file.set_len(len) });
        cut.map_err(|e| disk::failed("write", &self.path, &e))?;
        self.created = false;
        Ok(std::mem::take(&mut self.path))
    }
}

/// Pieces that one call of the system takes.
const MAX_PIECES: usize = 1024;

/// Writes the pieces one behind the other: over TLS they are small, and each call has its price.
fn write_all_at(mut file: &File, pieces: &[Bytes], at: u64) -> io::Result<()> {
    file.seek(SeekFrom::Start(at))?;
    for pieces in pieces.chunks(MAX_PIECES) {
        let mut slices: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
        let mut left = &mut slices[..];
        // Empty ones at the front are no sign of a full disk.
        IoSlice::advance_slices(&mut left, 0);
        while !left.is_empty() {
            match file.write_vectored(left) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => IoSlice::advance_slices(&mut left, written),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }
    Ok(())
}

/// Writes a blob: beside, at `temporary`, held against its descriptor on the way, then synced and moved to `to`.
pub(crate) async fn write_blob(
    blob: &Descriptor,
    content: &dyn Content,
    temporary: PathBuf,
    to: &Path,
) -> Result<(), Error> {
    let wrong = |cause: String| Error::new(ErrorKind::Content, format!("write blob `{}`", blob.digest), cause);
    let mut staged = Staged::new(temporary, blob.digest.algorithm());
    let mut body = content.open(0).await?;
    while let Some(chunk) = body.next().await {
        let chunk: Bytes = chunk?;
        if staged.len() + chunk.len() as u64 > blob.size {
            return Err(wrong(format!("more bytes came than the {} that the manifest says", blob.size)));
        }
        staged = blocking(move || {
            staged.write(&[chunk])?;
            Ok(staged)
        })
        .await?;
    }
    if staged.len() != blob.size {
        return Err(wrong(format!("only {} bytes came, the manifest says {}", staged.len(), blob.size)));
    }
    let (to, digest) = (to.to_owned(), blob.digest.clone());
    blocking(move || {
        let found = staged.digest(digest.algorithm(), digest.algorithm())?;
        if found != digest {
            let cause = format!("the {} bytes that came have the digest `{found}`", staged.len());
            return Err(Error::new(ErrorKind::Content, format!("write blob `{digest}`"), cause));
        }
        let path = staged.keep()?;
        File::open(&path).and_then(|f| f.sync_data()).map_err(|e| disk::failed("sync", &path, &e))?;
        let mut syncs = DirectorySyncs::default();
        syncs.publish(&path, &to)?;
        syncs.sync()
    })
    .await
}

impl Drop for Staged {
    fn drop(&mut self) {
        if self.created {
            // Best effort: the folder is emptied at the next start.
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_kept_disappears() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("s");
        let mut staged = Staged::new(path.clone(), Algorithm::Sha256);
        assert!(!path.exists());
        staged.write(&[Bytes::from_static(b"ab")]).unwrap();
        staged.close();
        staged.write(&[Bytes::from_static(b"c")]).unwrap();
        assert_eq!(staged.digest(Algorithm::Sha256, Algorithm::Sha256).unwrap(), Digest::of(b"abc"));
        assert_eq!(
            staged.digest(Algorithm::Sha512, Algorithm::Sha256).unwrap(),
            Digest::of_with(Algorithm::Sha512, b"abc")
        );
        drop(staged);
        assert!(!path.exists());
        assert!(Staged::new(path.clone(), Algorithm::Sha256).keep().unwrap().exists(), "an empty blob is a file too");
    }
}
