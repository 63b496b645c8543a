//! The bytes of a [`Region`] as a stream of pieces.
//!
//! What the kernel has in memory is read at once, without leaving the task (`RWF_NOWAIT`): a load that has just verified an archive
//! finds most of it there. From the first piece that has to come from the disk on, a blocking thread reads, one piece ahead of the
//! reader; it reads on only when the piece before was taken, so that a slow reader holds neither a thread nor more than two pieces.
//! Pieces come from buffers that are used again as soon as their bytes were dropped.

use std::io::{Error as IoError, ErrorKind as IoErrorKind, IoSliceMut};
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use airlock_oci::{BlobStream, Error, ErrorKind};
use bytes::Bytes;
use futures_util::Stream;
use rustix::io::{Errno, ReadWriteFlags};
use tokio::task::JoinHandle;

use crate::Region;

/// Bytes of one read, and of one item of the stream at most.
pub const READ_BYTES: usize = 256 * 1024;

struct RegionStream {
    region: Region,
    /// Where the next read begins, from the start of the region.
    next: u64,
    end: u64,
    what: String,
    /// The disk had to be waited for.
    cold: bool,
    reading: Option<JoinHandle<std::io::Result<Bytes>>>,
    spare: Spare,
}

/// Buffers of streams that have ended. Fresh ones would have to be cleared by the kernel, page by page.
static LEFT: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());
/// More than this many of [`READ_BYTES`] are given back to the system.
const MAX_LEFT: usize = 16;
/// What is smaller gets a buffer of its own size.
const SHARED_BYTES: usize = 32 * 1024;

/// Buffers of one stream that wait for their next use: they are warm where the stream runs. The next stream gets them when it ends.
#[derive(Clone, Default)]
struct Spare(Arc<Buffers>);

#[derive(Default)]
struct Buffers(Mutex<Vec<Vec<u8>>>);

/// A buffer with bytes in it; dropped, it is spare again.
struct Filled {
    buffer: Vec<u8>,
    len: usize,
    spare: Spare,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Spare {
    fn take(&self, want: usize) -> Vec<u8> {
        if let Some(kept) = lock(&self.0.0).pop().filter(|b| b.len() >= want) {
            return kept;
        }
        if want < SHARED_BYTES {
            return vec![0; want];
        }
        let left = lock(&LEFT).pop();
        left.unwrap_or_else(|| vec![0; READ_BYTES])
    }

    fn filled(&self, buffer: Vec<u8>, len: usize) -> Bytes {
        Bytes::from_owner(Filled { buffer, len, spare: self.clone() })
    }

    fn give_back(&self, buffer: Vec<u8>) {
        lock(&self.0.0).push(buffer);
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        let mut left = lock(&LEFT);
        let room = MAX_LEFT.saturating_sub(left.len());
        left.extend(lock(&self.0).drain(..).filter(|b| b.len() == READ_BYTES).take(room));
    }
}

impl AsRef<[u8]> for Filled {
    fn as_ref(&self) -> &[u8] {
        &self.buffer[..self.len]
    }
}

impl Drop for Filled {
    fn drop(&mut self) {
        self.spare.give_back(std::mem::take(&mut self.buffer));
    }
}

impl Region {
    /// The bytes from `offset` (from the region's start) up to `end`, both clipped to the region. Needs a tokio runtime.
    /// `what` names the thing in errors.
    pub fn stream(&self, offset: u64, end: u64, what: impl Into<String>) -> BlobStream {
        let end = end.min(self.len);
        Box::pin(RegionStream {
            region: self.clone(),
            next: offset.min(end),
            end,
            what: what.into(),
            cold: false,
            reading: None,
            spare: Spare::default(),
        })
    }
}

impl RegionStream {
    fn want(&self) -> usize {
        (self.end - self.next).min(READ_BYTES as u64) as usize
    }

    /// What can be had without waiting for the disk; `None`: nothing, or the system does not tell.
    fn at_once(&mut self) -> Option<Bytes> {
        let want = self.want();
        let mut buffer = self.spare.take(want);
        let at = self.region.offset + self.next;
        let got = loop {
            let slice = &mut [IoSliceMut::new(&mut buffer[..want])];
            match rustix::io::preadv2(&*self.region.file, slice, at, ReadWriteFlags::NOWAIT) {
                Err(Errno::INTR) => {}
                other => break other.unwrap_or(0),
            }
        };
        if got == 0 {
            self.spare.give_back(buffer);
            return None;
        }
        self.next += got as u64;
        Some(self.spare.filled(buffer, got))
    }

    /// Has a blocking thread read the next piece.
    fn start(&mut self) {
        let want = self.want();
        if want == 0 {
            return;
        }
        let (file, at) = (self.region.file.clone(), self.region.offset + self.next);
        self.next += want as u64;
        let spare = self.spare.clone();
        let mut buffer = spare.take(want);
        self.reading = Some(tokio::task::spawn_blocking(move || {
            file.read_exact_at(&mut buffer[..want], at)?;
            Ok(spare.filled(buffer, want))
        }));
    }

    fn failed(&mut self, error: &IoError) -> Error {
        self.next = self.end;
        if error.kind() == IoErrorKind::UnexpectedEof {
            let why = "the file is shorter than it was when it was opened";
            return Error::new(ErrorKind::Content, self.what.clone(), why);
        }
        Error::io(self.what.clone(), error)
    }
}

impl Stream for RegionStream {
    type Item = Result<Bytes, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if this.reading.is_none() {
            if this.want() == 0 {
                return Poll::Ready(None);
            }
            if !this.cold {
                if let Some(bytes) = this.at_once() {
                    return Poll::Ready(Some(Ok(bytes)));
                }
                this.cold = true;
            }
            this.start();
        }
        let Some(reading) = &mut this.reading else { return Poll::Ready(None) };
        let outcome = ready!(Pin::new(reading).poll(cx));
        this.reading = None;
        Poll::Ready(Some(match outcome {
            Ok(Ok(bytes)) => {
                this.start();
                Ok(bytes)
            }
            Ok(Err(e)) => Err(this.failed(&e)),
            Err(e) => Err(this.failed(&IoError::other(e))),
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;

    use futures_util::StreamExt;

    use super::*;

    #[tokio::test]
    async fn a_region_is_read_from_an_offset_to_its_end_and_not_beyond() {
        let bytes: Vec<u8> = (0..2 * READ_BYTES + 77).map(|i| (i % 251) as u8).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        let region = Region { file: Arc::new(file), offset: 10, len: bytes.len() as u64 - 20 };
        for offset in [0, 1, READ_BYTES as u64, region.len] {
            let mut stream = region.stream(offset, u64::MAX, "x");
            let mut got = Vec::new();
            while let Some(chunk) = stream.next().await {
                got.extend_from_slice(&chunk.unwrap());
            }
            assert!(got == bytes[10 + offset as usize..bytes.len() - 10], "offset {offset}");
        }
    }

    #[tokio::test]
    async fn a_file_that_was_cut_is_an_error_and_no_short_blob() {
        let region = Region { file: Arc::new(tempfile::tempfile().unwrap()), offset: 0, len: 5 };
        let mut stream = region.stream(0, 5, "read blob");
        assert_eq!(stream.next().await.unwrap().unwrap_err().kind(), ErrorKind::Content);
        assert!(stream.next().await.is_none());
    }
}
