//! The bytes of a [`Region`] as a stream: positioned reads on blocking threads, one buffer ahead of the reader.
//!
//! A read is started only when the one before was taken, so that a slow reader holds neither a thread nor more than two
//! buffers. The buffers come from one allocation that is used again as soon as its bytes were dropped.

use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use airlock_oci::{BlobStream, Error, ErrorKind};
use bytes::{Bytes, BytesMut};
use futures_util::Stream;
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
    reading: Option<JoinHandle<(std::io::Result<Bytes>, BytesMut)>>,
    spare: Option<BytesMut>,
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
            reading: None,
            spare: None,
        })
    }
}

impl RegionStream {
    fn start(&mut self) {
        let want = (self.end - self.next).min(READ_BYTES as u64) as usize;
        if want == 0 {
            return;
        }
        let (file, at) = (self.region.file.clone(), self.region.offset + self.next);
        self.next += want as u64;
        let mut buffer = self.spare.take().unwrap_or_default();
        self.reading = Some(tokio::task::spawn_blocking(move || {
            buffer.resize(want, 0);
            let read = file.read_exact_at(&mut buffer[..], at).map(|()| buffer.split().freeze());
            (read, buffer)
        }));
    }
}

impl Stream for RegionStream {
    type Item = Result<Bytes, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if this.reading.is_none() {
            this.start();
        }
        let Some(reading) = &mut this.reading else { return Poll::Ready(None) };
        let outcome = ready!(Pin::new(reading).poll(cx));
        this.reading = None;
        let result = match outcome {
            Ok((Ok(bytes), spare)) => {
                this.spare = Some(spare);
                this.start();
                Ok(bytes)
            }
            Ok((Err(e), _)) if e.kind() == std::io::ErrorKind::UnexpectedEof => Err(Error::new(
                ErrorKind::Content,
                this.what.clone(),
                "the file is shorter than it was when it was opened",
            )),
            Ok((Err(e), _)) => Err(Error::io(this.what.clone(), &e)),
            Err(e) => Err(Error::new(ErrorKind::Io, this.what.clone(), e)),
        };
        if result.is_err() {
            this.next = this.end;
        }
        Poll::Ready(Some(result))
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
