//! One layer's bytes: from the source's stream to a reader on a blocking thread, hashed on the way, and unpacked.

use std::io::{self, BufReader, Cursor, Read};

use airlock_oci::{BlobStream, Descriptor, Error, ErrorKind, Hasher};
use bytes::{Buf, Bytes};
use flate2::read::MultiGzDecoder;
use futures_util::StreamExt;
use tokio::sync::mpsc;

/// Pieces of a blob that wait between the network and the reader.
const PIECES: usize = 4;
/// The largest window of a zstd frame that is unpacked, as a power of two (32 MiB): what the builders of images write at their best
/// compression. A frame may claim much more, and the memory for it is taken at once.
const MAX_ZSTD_WINDOW_LOG: u32 = 25;
/// Bytes by which a compression is told.
const MAGIC_BYTES: usize = 6;
/// The buffer between the blob and the unpacker, in bytes.
const BUFFER_BYTES: usize = 64 * 1024;

enum Piece {
    Bytes(Bytes),
    End,
    Failed(Error),
}

/// The reading end of a blob.
pub(super) struct Body {
    pieces: mpsc::Receiver<Piece>,
    current: Bytes,
    hasher: Hasher,
    blob: Descriptor,
    seen: u64,
    ended: bool,
}

/// The writing end of a blob.
pub(super) struct Feed {
    pieces: mpsc::Sender<Piece>,
}

/// How many unpacked bytes may still come, over all layers.
pub(super) struct Budget {
    pub(super) left: u64,
    pub(super) most: u64,
}

struct Metered<'a, R> {
    inner: R,
    budget: &'a mut Budget,
}

/// Two ends of a blob that is read on another thread.
pub(super) fn channel(blob: &Descriptor) -> (Feed, Body) {
    let (sender, receiver) = mpsc::channel(PIECES);
    let body = Body {
        pieces: receiver,
        current: Bytes::new(),
        hasher: Hasher::new(blob.digest.algorithm()),
        blob: blob.clone(),
        seen: 0,
        ended: false,
    };
    (Feed { pieces: sender }, body)
}

impl Feed {
    /// Passes the stream on until it ends or nobody reads any more.
    pub(super) async fn pass(self, mut stream: BlobStream) {
        while let Some(item) = stream.next().await {
            let (piece, last) = match item {
                Ok(bytes) => (Piece::Bytes(bytes), false),
                Err(error) => (Piece::Failed(error), true),
            };
            if self.pieces.send(piece).await.is_err() || last {
                return;
            }
        }
        // Nobody hears it when the reader has gone, and then nobody needs to.
        let _ = self.pieces.send(Piece::End).await;
    }
}

impl Body {
    fn wrong(&self, cause: String) -> Error {
        Error::new(ErrorKind::Content, format!("read blob `{}`", self.blob.digest), cause)
    }

    /// The next piece; empty at the end.
    fn piece(&mut self) -> Result<&mut Bytes, Error> {
        while self.current.is_empty() && !self.ended {
            match self.pieces.blocking_recv() {
                Some(Piece::Bytes(bytes)) => {
                    self.seen += bytes.len() as u64;
                    if self.seen > self.blob.size {
                        let size = self.blob.size;
                        return Err(self.wrong(format!("more bytes came than the {size} that the manifest says")));
                    }
                    self.hasher.update(&bytes);
                    self.current = bytes;
                }
                Some(Piece::End) => self.ended = true,
                Some(Piece::Failed(error)) => return Err(error),
                None => return Err(Error::new(ErrorKind::Interrupted, "read a layer", "the reading was given up")),
            }
        }
        Ok(&mut self.current)
    }

    /// Reads what is left and checks size and digest. Until this has said yes, nothing that was read may be believed.
    pub(super) fn verify(mut self) -> Result<(), Error> {
        loop {
            let piece = self.piece()?;
            if piece.is_empty() {
                break;
            }
            piece.clear();
        }
        if self.seen != self.blob.size {
            return Err(self
                .wrong(format!("only {} bytes came, the manifest says {}", self.seen, self.blob.size))
                .retryable(true));
        }
        let found = self.hasher.clone().finish();
        if found != self.blob.digest {
            return Err(self.wrong(format!("the {} bytes that came have the digest `{found}`", self.seen)));
        }
        Ok(())
    }
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let piece = self.piece().map_err(io::Error::other)?;
        let most = piece.len().min(buffer.len());
        piece.copy_to_slice(&mut buffer[..most]);
        Ok(most)
    }
}

impl<R: Read> Read for Metered<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        match self.budget.left.checked_sub(read as u64) {
            Some(left) => self.budget.left = left,
            None => {
                let cause = format!("its layers unpack to more than {} bytes", self.budget.most);
                let error = Error::new(ErrorKind::Unsupported, "unpack an image", cause)
                    .hint("no image that is meant to be read is that large; ask whoever published it");
                return Err(io::Error::other(error));
            }
        }
        Ok(read)
    }
}

/// The tar inside a blob. Which compression it has is seen from its bytes: media types are wrong too often.
pub(super) fn unpacked<'a>(
    body: &'a mut (impl Read + Send),
    media_type: &str,
    budget: &'a mut Budget,
) -> io::Result<Box<dyn Read + 'a>> {
    let mut head = Vec::with_capacity(MAGIC_BYTES);
    body.take(MAGIC_BYTES as u64).read_to_end(&mut head)?;
    let unsupported = |what: &str| {
        let cause = format!("a layer is {what} (its type is `{media_type}`)");
        let error = Error::new(ErrorKind::Unsupported, "unpack a layer", cause);
        Err(io::Error::other(error.hint("layers that are gzip, zstd or plain tar can be read")))
    };
    let whole = BufReader::with_capacity(BUFFER_BYTES, Read::chain(Cursor::new(head.clone()), body));
    let inner: Box<dyn Read + 'a> = match head[..] {
        [0x1f, 0x8b, ..] => Box::new(MultiGzDecoder::new(whole)),
        // A frame, or one of the frames to be skipped that some builders put first.
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(whole)?;
            decoder.window_log_max(MAX_ZSTD_WINDOW_LOG)?;
            Box::new(decoder)
        }
        [b'B', b'Z', b'h', ..] => return unsupported("compressed with bzip2"),
        [0xfd, b'7', b'z', b'X', b'Z', 0] => return unsupported("compressed with xz"),
        _ if media_type.ends_with("+encrypted") => return unsupported("encrypted"),
        _ => Box::new(whole),
    };
    Ok(Box::new(Metered { inner, budget }))
}
