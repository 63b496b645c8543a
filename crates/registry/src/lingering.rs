//! The end of a connection whose client is still sending: the refusal of a large body must be heard.
//!
//! Closing a socket with unread bytes makes the kernel send a reset, upon which the client's kernel throws away the answer that
//! it had received. So such a connection is only half closed at first, and what still comes is read and thrown away for a moment
//! (Go's `net/http` and nginx do likewise).

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::Stream;
use http_body_util::{BodyDataStream, BodyExt};
use hyper::body::{Body as _, Incoming};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use crate::limits::LINGER_TIME;

/// Whether a part of the last request of a connection has not been read. (HTTP/2 has several requests at once, and needs none of this.)
#[derive(Debug, Clone, Default)]
pub(crate) struct Unread(Arc<AtomicBool>);

impl Unread {
    /// Whether it is so now.
    pub(crate) fn is_some(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// The body of the next request.
    pub(crate) fn watch(&self, body: Incoming) -> Received {
        self.0.store(!body.is_end_stream(), Ordering::Relaxed);
        Received { data: body.into_data_stream(), unread: self.clone() }
    }
}

/// The body of a request; its end is noted.
pub(crate) struct Received {
    data: BodyDataStream<Incoming>,
    unread: Unread,
}

impl Stream for Received {
    type Item = Result<Bytes, hyper::Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = ready!(Pin::new(&mut self.data).poll_next(cx));
        if next.is_none() {
            self.unread.0.store(false, Ordering::Relaxed);
        }
        Poll::Ready(next)
    }
}

/// A connection that lingers when it ends with something unread.
pub(crate) struct Lingering<S> {
    stream: S,
    unread: Unread,
    /// Set once our side is closed.
    closed: Option<Pin<Box<Sleep>>>,
}

impl<S> Lingering<S> {
    pub(crate) fn new(stream: S, unread: Unread) -> Self {
        Self { stream, unread, closed: None }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lingering<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Lingering<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let end = match &mut this.closed {
            Some(end) => end,
            None => {
                ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
                if !this.unread.is_some() {
                    return Poll::Ready(Ok(()));
                }
                this.closed.insert(Box::pin(sleep(LINGER_TIME)))
            }
        };
        let mut thrown_away = [0; 16 * 1024];
        while end.as_mut().poll(cx).is_pending() {
            let mut buffer = ReadBuf::new(&mut thrown_away);
            let read = ready!(Pin::new(&mut this.stream).poll_read(cx, &mut buffer));
            if read.is_err() || buffer.filled().is_empty() {
                break;
            }
        }
        Poll::Ready(Ok(()))
    }
}
