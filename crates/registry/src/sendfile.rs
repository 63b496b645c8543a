//! Blobs from file to socket without a copy through this process, over plain HTTP/1.
//!
//! hyper writes bodies as pieces of memory. Here a piece of a blob is represented by a slice of one [placeholder](PLACEHOLDER) of the
//! same length, and the bytes that it stands for are noted in the connection's [`Queue`]. The connection's stream ([`Sending`]) knows the
//! placeholder by its address: where hyper writes a slice of it, the kernel sends that many bytes of the file instead. HTTP/1 answers
//! requests one after the other, so the notes are met in their order; hyper keeps slices as they are because the stream says that it
//! writes several at once. HTTP/2 and TLS copy what they write and never get placeholders.
//!
//! `sendfile` waits for the disk. Only what the kernel has in memory is sent so; the rest is read by the blocking threads of
//! [`Region::stream`], which also leaves it in memory for the next reader.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use airlock_oci::{BlobStream, Error};
use airlock_store::Region;
use bytes::Bytes;
use futures_util::StreamExt;
use rustix::io::ReadWriteFlags;
use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

/// Bytes of a blob that are announced to hyper at once.
const PIECE_BYTES: u64 = 1024 * 1024;
/// How far apart the places are at which a piece is probed for being in memory (bytes).
const PROBE_BYTES: u64 = 256 * 1024;
/// What is read through memory before it is probed again (bytes).
const COLD_BYTES: u64 = 4 * 1024 * 1024;

/// Never read: only its addresses count. Its pages are never touched, so that it costs no memory.
static PLACEHOLDER: LazyLock<Bytes> = LazyLock::new(|| Bytes::from(vec![0; PIECE_BYTES as usize]));

/// What the placeholders stand for that hyper has not written yet, in order. One for each connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Queue(Arc<Mutex<VecDeque<Region>>>);

/// A blob's bytes as frames for hyper: placeholders, or real bytes where they must come from the disk.
pub(crate) struct Frames {
    queue: Queue,
    region: Region,
    next: u64,
    end: u64,
    what: String,
    /// Reads what is not in memory.
    cold: Option<BlobStream>,
}

/// A connection whose placeholders are sent from files.
pub(crate) struct Sending {
    stream: TcpStream,
    queue: Queue,
}

impl Queue {
    fn with<T>(&self, action: impl FnOnce(&mut VecDeque<Region>) -> T) -> T {
        action(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Frames {
    /// The bytes of a region from `first` up to, not including, `end`; `what` names them in errors.
    pub(crate) fn new(queue: Queue, region: Region, first: u64, end: u64, what: String) -> Self {
        Self { queue, region, next: first, end, what, cold: None }
    }

    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        if let Some(cold) = &mut self.cold {
            match ready!(cold.poll_next_unpin(cx)) {
                Some(Ok(bytes)) => {
                    self.next += bytes.len() as u64;
                    return Poll::Ready(Some(Ok(bytes)));
                }
                Some(Err(e)) => return Poll::Ready(Some(Err(e))),
                None => self.cold = None,
            }
        }
        let len = (self.end - self.next).min(PIECE_BYTES);
        if len == 0 {
            return Poll::Ready(None);
        }
        let piece = Region { file: self.region.file.clone(), offset: self.region.offset + self.next, len };
        if is_in_memory(&piece) {
            self.next += len;
            self.queue.with(|queue| queue.push_back(piece));
            return Poll::Ready(Some(Ok(PLACEHOLDER.slice(..len as usize))));
        }
        let end = self.end.min(self.next + COLD_BYTES);
        self.cold = Some(self.region.stream(self.next, end, self.what.clone()));
        self.poll_next(cx)
    }
}

/// Whether the kernel seems to have the whole piece in memory: it is asked at some places, since asking costs as well.
fn is_in_memory(piece: &Region) -> bool {
    let mut byte = [0];
    let mut is_there = |at: u64| {
        let slice = &mut [io::IoSliceMut::new(&mut byte)];
        matches!(rustix::io::preadv2(&*piece.file, slice, piece.offset + at, ReadWriteFlags::NOWAIT), Ok(1))
    };
    let last = piece.len - 1;
    (0..piece.len).step_by(PROBE_BYTES as usize).all(&mut is_there) && is_there(last)
}

fn is_placeholder(slice: &[u8]) -> bool {
    !slice.is_empty() && PLACEHOLDER.as_ptr_range().contains(&slice.as_ptr())
}

impl Sending {
    pub(crate) fn new(stream: TcpStream, queue: Queue) -> Self {
        Self { stream, queue }
    }

    /// Sends at most `most` of the bytes that are next in the queue.
    fn poll_send(&mut self, cx: &mut Context<'_>, most: usize) -> Poll<io::Result<usize>> {
        let Some(piece) = self.queue.with(|queue| queue.front().cloned()) else {
            return Poll::Ready(Err(io::Error::other("a placeholder stands for nothing")));
        };
        let wanted = (piece.len as usize).min(most);
        let sent = loop {
            ready!(self.stream.poll_write_ready(cx))?;
            let sent = self.stream.try_io(Interest::WRITABLE, || {
                let mut offset = piece.offset;
                Ok(rustix::fs::sendfile(&self.stream, &*piece.file, Some(&mut offset), wanted)?)
            });
            match sent {
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                sent => break sent?,
            }
        };
        if sent == 0 {
            // The length was promised: nothing but breaking the connection is left.
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a blob's file became shorter")));
        }
        self.queue.with(|queue| match queue.front_mut() {
            Some(front) if front.len > sent as u64 => {
                front.offset += sent as u64;
                front.len -= sent as u64;
            }
            _ => drop(queue.pop_front()),
        });
        Poll::Ready(Ok(sent))
    }
}

impl Sending {
    /// Sends what a blob follows at once: the two travel together, where the head alone would wake the client for nothing.
    fn poll_begin(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.stream.poll_write_ready(cx))?;
            let sent = self.stream.try_io(Interest::WRITABLE, || {
                let mut nothing_else = SendAncillaryBuffer::default();
                Ok(sendmsg(&self.stream, bufs, &mut nothing_else, SendFlags::MORE | SendFlags::NOSIGNAL)?)
            });
            match sent {
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                sent => return Poll::Ready(sent),
            }
        }
    }
}

impl AsyncRead for Sending {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Sending {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if is_placeholder(buf) {
            return self.poll_send(cx, buf.len());
        }
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let first = bufs.iter().position(|buf| !buf.is_empty()).unwrap_or(0);
        let bufs = &bufs[first..];
        match bufs.first() {
            Some(buf) if is_placeholder(buf) => self.poll_send(cx, buf.len()),
            _ => match bufs.iter().position(|buf| is_placeholder(buf)) {
                Some(real) => self.poll_begin(cx, &bufs[..real]),
                None => Pin::new(&mut self.stream).poll_write_vectored(cx, bufs),
            },
        }
    }

    /// What the whole rests on: hyper copies nothing into a buffer of its own.
    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn placeholders_become_the_bytes_of_files_in_their_order() {
        let bytes: Vec<u8> = (0..5_000_000_u32).map(|i| (i * 13 % 251) as u8).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        let region = Region { file: Arc::new(file), offset: 3, len: bytes.len() as u64 - 3 };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut reader = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let queue = Queue::default();
        let mut writer = Sending::new(listener.accept().await.unwrap().0, queue.clone());
        let writing = tokio::spawn(async move {
            for (first, end) in [(0, region.len), (10, 11), (1_000_000, 3_500_000)] {
                writer.write_all(b"head").await.unwrap();
                let mut frames = Frames::new(queue.clone(), region.clone(), first, end, "x".into());
                while let Some(frame) = std::future::poll_fn(|cx| frames.poll_next(cx)).await {
                    writer.write_all(&frame.unwrap()).await.unwrap();
                }
            }
            assert_eq!(queue.with(|queue| queue.len()), 0);
        });
        for (first, end) in [(3, bytes.len()), (13, 14), (1_000_003, 3_500_003)] {
            let mut head = [0; 4];
            reader.read_exact(&mut head).await.unwrap();
            assert_eq!(&head, b"head");
            let mut body = vec![0; end - first];
            reader.read_exact(&mut body).await.unwrap();
            assert!(body == bytes[first..end], "{first}-{end}");
        }
        writing.await.unwrap();
    }

    #[tokio::test]
    async fn a_file_that_became_shorter_breaks_the_connection() {
        let region = Region { file: Arc::new(tempfile::tempfile().unwrap()), offset: 0, len: 10 };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _reader = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let queue = Queue::default();
        let mut writer = Sending::new(listener.accept().await.unwrap().0, queue.clone());
        queue.with(|queue| queue.push_back(region));
        let error = writer.write_all(&PLACEHOLDER.slice(..10)).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        let error = Sending::new(writer.stream, Queue::default()).write_all(&PLACEHOLDER.slice(..1)).await.unwrap_err();
        assert!(error.to_string().contains("nothing"), "never the placeholder's own bytes");
    }
}
