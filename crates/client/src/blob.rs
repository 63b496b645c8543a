//! A blob's bytes from an offset to the end, whatever happens to the connection: after a cut the same endpoint is asked for the
//! rest, from the exact byte, then the others.

use airlock_oci::{BlobStream, Descriptor, Error, ErrorKind};
use bytes::{Buf, Bytes};
use futures_util::StreamExt;
use http::Method;
use http::header::{HeaderValue, RANGE};

use crate::Notice;
use crate::answer::Answer;
use crate::failure::Failure;
use crate::source::{Round, Spot};

/// A connection that brought at least this many bytes counts as a new beginning for the number of tries.
const PROGRESS_BYTES: u64 = 1024 * 1024;

struct Reader {
    round: Round,
    spots: std::collections::VecDeque<Spot>,
    blob: Descriptor,
    /// The next byte to hand out.
    position: u64,
    answer: Option<Answer>,
    /// Bytes of the answer before `position`: the server ignored the range.
    skip: u64,
    /// Where the current connection began.
    began: u64,
    /// Tries at the current spot without progress.
    tries: u32,
    done: bool,
}

/// Opens the blob; an endpoint that answers is found before this returns.
pub(crate) async fn open(round: Round, blob: &Descriptor, offset: u64) -> Result<BlobStream, Error> {
    let spots = round.spots().into();
    let mut reader = Reader {
        round,
        spots,
        blob: blob.clone(),
        position: offset,
        answer: None,
        skip: 0,
        began: offset,
        tries: 0,
        done: false,
    };
    if offset < blob.size {
        reader.connect().await?;
    }
    let stream = futures_util::stream::unfold(reader, |mut reader| async {
        if reader.done {
            return None;
        }
        match reader.next().await {
            Ok(Some(bytes)) => Some((Ok(bytes), reader)),
            Ok(None) => None,
            Err(error) => {
                reader.done = true;
                reader.answer = None;
                Some((Err(error), reader))
            }
        }
    });
    Ok(stream.boxed())
}

impl Reader {
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            if self.position == self.blob.size {
                self.answer = None;
                return Ok(None);
            }
            if self.answer.is_none() {
                self.connect().await?;
            }
            let Some(answer) = &mut self.answer else { continue };
            let failure = match answer.chunk().await {
                Ok(Some(mut bytes)) => {
                    if self.skip > 0 {
                        let cut = self.skip.min(bytes.len() as u64);
                        bytes.advance(cut as usize);
                        self.skip -= cut;
                    }
                    if bytes.is_empty() {
                        continue;
                    }
                    if bytes.len() as u64 > self.blob.size - self.position {
                        return self.wrong(format!(
                            "the registry sends more than the {} bytes that the manifest names",
                            self.blob.size
                        ));
                    }
                    self.position += bytes.len() as u64;
                    return Ok(Some(bytes));
                }
                Ok(None) => Failure::new(
                    ErrorKind::Network,
                    format!("the body ended at byte {} of {}", self.position, self.blob.size),
                ),
                Err(failure) => failure,
            };
            self.answer = None;
            if self.position - self.began >= PROGRESS_BYTES {
                self.tries = 0;
            }
            self.broken(failure).await?;
        }
    }

    /// After a failure of the connection: waits for the next try here, or goes on to the next spot.
    async fn broken(&mut self, failure: Failure) -> Result<(), Error> {
        let Some(spot) = self.spots.front().cloned() else { return Err(self.round.error()) };
        let policy = spot.client.policy();
        self.tries += 1;
        if failure.transient && self.tries <= policy.times {
            let (offset, cause) = (self.position, failure.cause.clone());
            let what = format!("GET {} blobs/{}", spot.place(), self.blob.digest);
            spot.client.notify(|| Notice::Resuming { what, offset, cause });
            // A connection that brought something is taken up again at once.
            if self.position == self.began {
                tokio::time::sleep(policy.delay(self.tries, failure.retry_after)).await;
            }
            return Ok(());
        }
        self.leave(&spot, failure)
    }

    fn leave(&mut self, spot: &Spot, failure: Failure) -> Result<(), Error> {
        self.round.next(spot, failure)?;
        self.spots.pop_front();
        self.tries = 0;
        if self.spots.is_empty() { Err(self.round.error()) } else { Ok(()) }
    }

    fn wrong<T>(&mut self, cause: String) -> Result<T, Error> {
        let failure = Failure::new(ErrorKind::Content, cause).hint(
            "the registry's storage or a proxy before it is damaged; ask its administrator to push the image again",
        );
        if let Some(spot) = self.spots.front().cloned() {
            self.round.next(&spot, failure)?;
        }
        Err(self.round.error())
    }

    /// Finds a spot that serves the bytes from `position`.
    async fn connect(&mut self) -> Result<(), Error> {
        loop {
            let Some(spot) = self.spots.front().cloned() else { return Err(self.round.error()) };
            match self.ask(&spot, true).await {
                Ok(()) => return Ok(()),
                Err(failure) => self.leave(&spot, failure)?,
            }
        }
    }

    async fn ask(&mut self, spot: &Spot, with_range: bool) -> Result<(), Failure> {
        let mut call = spot.call(Method::GET, &format!("blobs/{}", self.blob.digest), "pull");
        call.bulk = true;
        let ranged = with_range && self.position > 0;
        if ranged {
            let range = HeaderValue::from_str(&format!("bytes={}-", self.position));
            call.headers.insert(RANGE, range.map_err(|e| Failure::new(ErrorKind::Invalid, e.to_string()))?);
        }
        let answer = match spot.client.send(&spot.host, &call).await {
            Ok(answer) => answer,
            // Some storages do not know ranges, or answer so for a short blob; the whole tells.
            Err(failure) if ranged && failure.is_status(416) => return Box::pin(self.ask(spot, false)).await,
            Err(failure) => return Err(failure),
        };
        let wrong_size = |size: u64| {
            Failure::new(
                ErrorKind::Content,
                format!("the registry has {size} bytes of it, the manifest names {}", self.blob.size),
            )
            .hint(
                "the registry's storage is damaged or the image was published wrong; ask whoever runs or publishes it",
            )
        };
        let mut skip = 0;
        if answer.status().as_u16() == 206 {
            let (start, total) = answer.header("content-range").and_then(content_range).ok_or_else(|| {
                Failure::new(ErrorKind::Server, "the registry sends a part without saying which (Content-Range)")
            })?;
            if let Some(total) = total
                && total != self.blob.size
            {
                return Err(wrong_size(total));
            }
            if start > self.position {
                return Err(Failure::new(
                    ErrorKind::Server,
                    format!("the registry sends from byte {start} where {} was asked for", self.position),
                ));
            }
            skip = self.position - start;
        } else {
            if let Some(length) = answer.content_length()
                && length != self.blob.size
            {
                return Err(wrong_size(length));
            }
            skip += self.position;
        }
        self.skip = skip;
        self.began = self.position;
        self.answer = Some(answer);
        Ok(())
    }
}

/// `bytes 5-9/10` -> (5, 10); the total may be `*`.
fn content_range(value: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = value.trim().strip_prefix("bytes")?.trim().split_once('/')?;
    let (start, _) = range.split_once('-')?;
    Some((start.trim().parse().ok()?, total.trim().parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_range_is_read() {
        assert_eq!(content_range("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(content_range("bytes 5-9/*"), Some((5, None)));
        assert_eq!(content_range("5-9/10"), None);
    }
}
