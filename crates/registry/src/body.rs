//! Bodies: what is answered, and what is received as a stream that does not wait for ever.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use airlock_oci::{BlobStream, Error, ErrorKind};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use hyper::body::{Frame, SizeHint};

use crate::limits::{BODY_DRAIN_TIME, BODY_STALL_TIME, MAX_DRAINED_BYTES};
use crate::lingering::Received;
use crate::sendfile::Frames;

/// The body of an answer.
pub(crate) enum Body {
    /// Nothing (or all of it was sent).
    Empty,
    /// A document.
    Full(Bytes),
    /// A blob, sent from its file.
    File {
        /// The bytes, or what stands for them.
        frames: Frames,
        /// How many are still to come.
        left: u64,
    },
    /// A blob, read as it is sent.
    Blob {
        /// The bytes.
        stream: BlobStream,
        /// How many are still to come.
        left: u64,
    },
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        match this {
            Self::Empty => Poll::Ready(None),
            Self::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                *this = Self::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Self::File { frames, left } => {
                let next = ready!(frames.poll_next(cx));
                sent(left, next)
            }
            Self::Blob { stream, left } => {
                let next = ready!(stream.poll_next_unpin(cx));
                sent(left, next)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Empty | Self::Blob { left: 0, .. } | Self::File { left: 0, .. })
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(match self {
            Self::Empty => 0,
            Self::Full(bytes) => bytes.len() as u64,
            Self::Blob { left, .. } | Self::File { left, .. } => *left,
        })
    }
}

/// The next piece of a blob for hyper.
fn sent(left: &mut u64, next: Option<Result<Bytes, Error>>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
    Poll::Ready(next.map(|piece| match piece {
        Ok(bytes) => {
            *left = left.saturating_sub(bytes.len() as u64);
            Ok(Frame::data(bytes))
        }
        Err(e) => {
            // The length was promised already: all that is left is to break the connection, and to say why here.
            tracing::error!(error = %e, "a blob could not be read to its end");
            Err(e)
        }
    }))
}

/// What a client sends, as a stream that ends with an error when nothing comes for too long.
pub(crate) fn received(body: Received) -> impl Stream<Item = Result<Bytes, Error>> + Unpin + Send {
    let stream = futures_util::stream::unfold(Some(body), |state| async move {
        let mut data = state?;
        let what = "receive a request's body";
        match tokio::time::timeout(BODY_STALL_TIME, data.next()).await {
            Ok(Some(Ok(bytes))) => Some((Ok(bytes), Some(data))),
            Ok(Some(Err(e))) => Some((Err(Error::new(ErrorKind::Network, what, e)), None)),
            Ok(None) => None,
            Err(_) => {
                let cause = format!("the client sent nothing for {} seconds", BODY_STALL_TIME.as_secs());
                Some((Err(Error::new(ErrorKind::Network, what, cause)), None))
            }
        }
    });
    Box::pin(stream)
}

/// A whole small body; `None` when it has more than `most` bytes.
pub(crate) async fn collect(body: Received, most: usize) -> Result<Option<Bytes>, Error> {
    let mut stream = received(body);
    let mut first = Bytes::new();
    let mut more = Vec::new();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk?;
        if first.len().max(more.len()) + chunk.len() > most {
            discard(&mut stream).await;
            return Ok(None);
        }
        if first.is_empty() && more.is_empty() {
            first = chunk;
        } else {
            if more.is_empty() {
                more.extend_from_slice(&first);
            }
            more.extend_from_slice(&chunk);
        }
    }
    Ok(Some(if more.is_empty() { first } else { more.into() }))
}

/// Reads a bounded amount of a body that nobody wants, so that a small one does not cost the connection.
pub(crate) async fn drain(body: Received) {
    discard(&mut received(body)).await;
}

async fn discard(stream: &mut (impl Stream<Item = Result<Bytes, Error>> + Unpin)) {
    let _ = tokio::time::timeout(BODY_DRAIN_TIME, async {
        let mut bytes = 0;
        while let Some(Ok(chunk)) = stream.next().await {
            bytes += chunk.len();
            if bytes > MAX_DRAINED_BYTES {
                break;
            }
        }
    })
    .await;
}
