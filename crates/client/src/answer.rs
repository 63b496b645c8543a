//! An answer: status, headers, and a body that is read in pieces with a limit of time and size.

use std::time::Duration;

use airlock_oci::ErrorKind;
use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http::header::HeaderMap;
use url::Url;

use crate::exchange::Response;
use crate::failure::{self, Failure};
use crate::limits::Permit;

/// Most bytes of an error's body that are read.
const MAX_ERROR_BYTES: usize = 64 * 1024;

/// An answer, with its place in the host's limit.
pub(crate) struct Answer {
    response: Response,
    host: String,
    stall: Duration,
    /// Held for as long as the body is read.
    _permit: Option<Permit>,
}

impl Answer {
    pub(crate) fn new(response: Response, host: String, stall: Duration, permit: Option<Permit>) -> Self {
        Self { response, host, stall, _permit: permit }
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.response.status()
    }

    pub(crate) fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    /// A header as text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers().get(name).and_then(|v| v.to_str().ok())
    }

    /// `Content-Length`, also of an answer to HEAD.
    pub(crate) fn content_length(&self) -> Option<u64> {
        self.header("content-length").and_then(|l| l.parse().ok())
    }

    /// The address that answered, after redirects.
    pub(crate) fn url(&self) -> &Url {
        self.response.url()
    }

    /// The next bytes; `None` at the end. Fails when nothing comes for the stall time.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, Failure> {
        match tokio::time::timeout(self.stall, self.response.chunk()).await {
            Ok(Ok(chunk)) => Ok(chunk),
            Ok(Err(error)) => {
                let mut failure =
                    failure::from_transport(&self.host, self.response.url().scheme(), error.as_ref(), false);
                failure.cause = failure.cause.replacen("cannot talk to", "the connection broke while reading from", 1);
                Err(failure)
            }
            Err(_) => Err(Failure::new(
                ErrorKind::Network,
                format!("`{}` stalled: no byte for {} s", self.host, self.stall.as_secs_f64()),
            )),
        }
    }

    /// The whole body, at most `limit` bytes; more is an error before it is in memory.
    pub(crate) async fn read_all(&mut self, limit: usize) -> Result<Bytes, Failure> {
        let too_long =
            || Failure::new(ErrorKind::Unsupported, format!("`{}` answers more than {limit} bytes", self.host));
        if self.content_length().is_some_and(|l| l > limit as u64) {
            return Err(too_long());
        }
        let Some(first) = self.chunk().await? else { return Ok(Bytes::new()) };
        let mut all = BytesMut::new();
        let mut next = Some(first);
        while let Some(bytes) = next {
            if all.len() + bytes.len() > limit {
                return Err(Failure::new(
                    ErrorKind::Unsupported,
                    format!("`{}` answers more than {limit} bytes", self.host),
                ));
            }
            all.extend_from_slice(&bytes);
            next = self.chunk().await?;
        }
        Ok(all.freeze())
    }

    /// What a refusal says.
    pub(crate) async fn into_failure(mut self) -> Failure {
        let mut body = BytesMut::new();
        while let Ok(Some(chunk)) = self.chunk().await {
            body.extend_from_slice(&chunk[..chunk.len().min(MAX_ERROR_BYTES - body.len())]);
            if body.len() >= MAX_ERROR_BYTES {
                break;
            }
        }
        Failure::from_answer(self.status(), self.headers(), &body)
    }
}
