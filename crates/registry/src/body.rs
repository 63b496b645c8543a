//! Bodies: what is answered, and what is received as a stream that does not wait for ever.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use airlock_oci::{BlobStream, Error, ErrorKind};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use hyper::body::{Frame, SizeHint};
use tokio::time::Instant;

use crate::limits::{BODY_DRAIN_TIME, BODY_STALL_TIME, MAX_DRAINED_BYTES, SLOWEST_BODY_BYTES, SLOWEST_BODY_TIME};
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

/// What a client sends, as a stream that ends with an error when nothing comes for too long, or too little.
pub(crate) fn received<S, E>(body: S) -> impl Stream<Item = Result<Bytes, Error>> + Unpin + Send
where
    S: Stream<Item = Result<Bytes, E>> + Unpin + Send,
    E: std::fmt::Display,
{
    let stream = futures_util::stream::unfold(Some((body, Pace::default())), |state| async move {
        let (mut data, mut pace) = state?;
        let failed =
            |cause: String| Some((Err(Error::new(ErrorKind::Network, "receive a request's body", cause)), None));
        let waiting = Instant::now();
        match tokio::time::timeout(BODY_STALL_TIME, data.next()).await {
            Ok(Some(Ok(bytes))) if pace.is_enough(bytes.len() as u64, waiting.elapsed()) => {
                Some((Ok(bytes), Some((data, pace))))
            }
            Ok(Some(Ok(_))) => failed(format!(
                "the client sent less than {} bytes in {} seconds",
                SLOWEST_BODY_BYTES,
                SLOWEST_BODY_TIME.as_secs()
            )),
            Ok(Some(Err(e))) => failed(e.to_string()),
            Ok(None) => None,
            Err(_) => failed(format!("the client sent nothing for {} seconds", BODY_STALL_TIME.as_secs())),
        }
    });
    Box::pin(stream)
}

/// How fast a body comes. Only the time in which we wait for it counts: a disk or an object store that is slow is not the client's fault.
#[derive(Debug, Default)]
struct Pace {
    bytes: u64,
    waited: Duration,
}

impl Pace {
    fn is_enough(&mut self, bytes: u64, waited: Duration) -> bool {
        self.bytes += bytes;
        self.waited += waited;
        if self.bytes >= SLOWEST_BODY_BYTES {
            *self = Self::default();
        }
        self.waited < SLOWEST_BODY_TIME
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A client that sends pieces of so many bytes, with so many seconds between them.
    fn sent(
        pieces: usize,
        bytes: usize,
        seconds: u64,
    ) -> impl Stream<Item = Result<Bytes, std::io::Error>> + Unpin + Send {
        let next = move |left: usize| async move {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            (left > 0).then(|| (Ok(Bytes::from(vec![0; bytes])), left - 1))
        };
        Box::pin(futures_util::stream::unfold(pieces, next))
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_sends_a_byte_now_and_then_is_not_waited_for() {
        let begun = Instant::now();
        let heard: Vec<_> = received(sent(1000, 1, 20)).collect().await;
        let last = heard.last().unwrap().as_ref().unwrap_err();
        assert!(last.to_string().contains("less than 61440 bytes in 60 seconds"), "{last}");
        assert_eq!((heard.len(), begun.elapsed().as_secs()), (3, 60));
        // Slow, but it comes.
        let heard: Vec<_> = received(sent(100, 30 * 1024, 20)).collect().await;
        assert!(heard.len() == 100 && heard.iter().all(Result::is_ok));
        // What is slow is ourselves.
        let mut body = received(sent(100, 1, 0));
        for _ in 0..100 {
            tokio::time::sleep(Duration::from_secs(50)).await;
            body.next().await.unwrap().unwrap();
        }
        assert!(received(sent(2, 1, 70)).next().await.unwrap().is_err());
    }
}
