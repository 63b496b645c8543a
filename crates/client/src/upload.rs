//! Sending a blob: one PUT where the registry takes that, chunks where it does not, resumed from the registry's own offset.
//!
//! A wrong blob is never completed: [`Feed`] holds the last bytes back until the digest is known to be right, so the request ends short
//! of its announced length, and the session is cancelled. Of content that was proved before, the registry's own sum is the judge.

use std::sync::Arc;
use std::time::Duration;

use airlock_oci::{Content, Descriptor, Error, ErrorKind};
use http::Method;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderName, HeaderValue};
use tokio::time::Instant;
use url::Url;

use crate::Notice;
use crate::answer::Answer;
use crate::client::{Call, Target};
use crate::exchange;
use crate::failure::Failure;
use crate::feed::{Feed, Progress};
use crate::host::{Finding, resolve_location};
use crate::source::Spot;

/// Sizes of chunks for registries that take no whole blob, largest first: each is tried when the one before was refused as too
/// large (bytes). The last is below the usual limit of a proxy, 1 MiB.
const CHUNK_BYTES: [u64; 4] = [64 << 20, 16 << 20, 4 << 20, 960 << 10];
/// After the last byte a registry may hash and move the whole blob before it answers; slower than this it is taken for dead.
const SLOWEST_COMMIT_BYTES_PER_SECOND: u64 = 20 << 20;
/// An attempt after which the registry has this much more counts as a new beginning for the number of tries.
const PROGRESS_BYTES: u64 = 1 << 20;
/// How often the progress of an upload is looked at.
const WATCH: Duration = Duration::from_millis(250);

/// One blob on its way to one repository.
pub(crate) struct Upload<'a> {
    spot: &'a Spot,
    blob: &'a Descriptor,
    content: &'a dyn Content,
    progress: Arc<Progress>,
    /// Where the session goes on, and from which byte.
    session: Option<Session>,
    /// Index into [`CHUNK_BYTES`]; `None`: the whole blob in one request.
    chunk: Option<usize>,
}

/// An open upload session.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    /// The address as the registry gave it, query and all.
    pub(crate) url: Url,
    /// What it has already.
    pub(crate) offset: u64,
    /// The smallest chunk that it takes.
    pub(crate) min_chunk: u64,
}

impl Drop for Upload<'_> {
    fn drop(&mut self) {
        self.progress.end();
    }
}

impl<'a> Upload<'a> {
    pub(crate) fn new(
        spot: &'a Spot,
        blob: &'a Descriptor,
        content: &'a dyn Content,
        session: Option<Session>,
    ) -> Self {
        let chunk = (spot.host.found(Finding::Monolithic) == Some(false)).then_some(0);
        let progress = Arc::new(Progress::new(blob.digest.algorithm(), content.is_proved()));
        Self { spot, blob, content, progress, session, chunk }
    }

    fn what(&self) -> String {
        format!("push blob `{}` to `{}`", self.blob.digest, self.spot.place())
    }

    /// Sends the blob. Returns when the registry has it, or cannot get it.
    pub(crate) async fn run(mut self) -> Result<(), Error> {
        // One place for the whole upload; the source's reads have places of their own, so neither can wait for the other.
        let _permit = self.spot.host.writes.acquire().await;
        let policy = self.spot.client.policy();
        let mut tries = 0;
        loop {
            let from = self.session.as_ref().map_or(0, |s| s.offset);
            let failure = match self.attempt().await {
                Ok(()) => return Ok(()),
                Err(failure) => failure,
            };
            if let Some(error) = self.progress.take_failure() {
                self.cancel().await;
                return Err(error);
            }
            let all_sent = self.progress.is_finished();
            if self.adapt(&failure) {
                continue;
            }
            // The registry found the bytes wrong that were right here: they were damaged on the way, or a resumption went astray.
            let astray = failure.has_code("DIGEST_INVALID");
            // Not every registry has that code.
            let unhashed = !self.progress.is_hashing() && (astray || failure.is_status(400));
            let lost = failure.is_status(404)
                || failure.has_code("BLOB_UPLOAD_UNKNOWN")
                || failure.has_code("BLOB_UPLOAD_INVALID");
            // The registry's offset is another than ours: it is asked.
            let misplaced = failure.is_status(416);
            // A new token was fetched when the old one was refused.
            let token = failure.is_status(401) && self.session.is_some() && tries < 2;
            if !unhashed
                && (!(failure.transient || astray || (lost || misplaced) && self.session.is_some() || token)
                    || tries >= policy.times)
            {
                self.cancel().await;
                return Err(failure.into_error(self.what()));
            }
            tries += 1;
            if failure.transient {
                let delay = policy.delay(tries, failure.retry_after);
                self.spot.client.pause(&self.what(), &failure, tries, delay).await;
            }
            if unhashed {
                self.progress.doubt();
            }
            if astray || lost || unhashed {
                self.session = None;
            } else if !token {
                // Who is not let in has sent nothing: the session is where it was.
                let before = self.session.clone();
                self.session = self.status().await;
                if let (None, Some(before), Some(_)) = (&self.session, before, failure.status) {
                    cancel(self.spot, &before).await;
                }
            }
            // The session is gone after everything was sent: perhaps because the blob was completed and only the answer was lost.
            if all_sent && self.session.is_none() && self.spot.has_blob(self.blob, "pull,push").await.unwrap_or(false) {
                return Ok(());
            }
            if let Some(session) = self.session.as_ref().filter(|s| s.offset > 0 || from > 0) {
                // Only what the registry keeps is progress.
                if session.offset >= from + PROGRESS_BYTES {
                    tries = 0;
                }
                let (what, offset, cause) = (self.what(), session.offset, failure.cause);
                self.spot.client.notify(|| Notice::Resuming { what, offset, cause });
            }
        }
    }

    /// Takes another way when the registry refuses this one. `true`: something changed, try again at once.
    fn adapt(&mut self, failure: &Failure) -> bool {
        let whole_refused = self.chunk.is_none()
            && !failure.has_code("DIGEST_INVALID")
            && failure.status.is_some_and(|s| matches!(s.as_u16(), 400 | 405 | 411 | 413 | 415 | 501))
            && !failure.has_code("BLOB_UPLOAD_INVALID");
        if whole_refused && self.session.is_some() {
            if !failure.is_status(413) {
                self.spot.host.note(Finding::Monolithic, false);
            }
            self.chunk = Some(usize::from(failure.is_status(413)));
            self.session = None;
            return true;
        }
        let too_large = failure.is_status(413) && self.session.as_ref().is_some_and(|s| s.min_chunk <= CHUNK_BYTES[3]);
        match self.chunk {
            Some(size) if too_large && size + 1 < CHUNK_BYTES.len() => {
                self.chunk = Some(size + 1);
                self.session = None;
                true
            }
            _ => false,
        }
    }

    async fn attempt(&mut self) -> Result<(), Failure> {
        self.progress.begin();
        let mut session = match self.session.clone() {
            Some(session) => session,
            None => self.begin().await?,
        };
        self.session = Some(session.clone());
        if session.offset == 0 && self.chunk.is_none() {
            let answer = self.send(Method::PUT, &with_digest(&session.url, self.blob), 0, self.blob.size).await?;
            return self.check_completed(&answer);
        }
        while session.offset < self.blob.size {
            let size = CHUNK_BYTES[self.chunk.unwrap_or(0)].max(session.min_chunk);
            // What is left of an interrupted whole goes in one piece.
            let end = match self.chunk {
                Some(_) => self.blob.size.min(session.offset + size),
                None => self.blob.size,
            };
            let answer = self.send(Method::PATCH, &session.url, session.offset, end).await?;
            session = self.continued(&answer, &session, end)?;
            self.session = Some(session.clone());
        }
        let call = self.call(Method::PUT, Target::Url(with_digest(&session.url, self.blob)));
        let answer = self.spot.client.send_once(&self.spot.host, &call).await?;
        self.check_completed(&answer)
    }

    /// Opens a session.
    async fn begin(&self) -> Result<Session, Failure> {
        let mut call = self.call(Method::POST, Target::Path(format!("/v2/{}/blobs/uploads/", self.spot.repository)));
        call.what = Some(format!("POST {} blobs/uploads/", self.spot.place()));
        let answer = self.spot.client.send(&self.spot.host, &call).await?;
        session_of(self.spot, &answer)
    }

    /// Asks how far the session is. `None`: it is lost, or cannot be gone on with.
    async fn status(&self) -> Option<Session> {
        let session = self.session.as_ref()?;
        let call = self.call(Method::GET, Target::Url(session.url.clone()));
        let answer = self.spot.client.send_once(&self.spot.host, &call).await.ok()?;
        let offset = answer.header("range").and_then(received)?;
        let url = match answer.header("location") {
            Some(location) => resolve_location(&self.spot.host, answer.url(), location)?,
            None => session.url.clone(),
        };
        (offset <= self.blob.size).then_some(Session { url, offset, min_chunk: session.min_chunk })
    }

    /// Gives up the session; what it holds is of no use to anybody.
    async fn cancel(&mut self) {
        if let Some(session) = self.session.take() {
            cancel(self.spot, &session).await;
        }
    }

    fn call(&self, method: Method, to: Target) -> Call {
        let mut call = self.spot.call(method, "", "pull,push");
        call.to = to;
        call.what = Some(self.what());
        call.seated = true;
        call
    }

    /// Sends the bytes from `from` to `end` as the body of one request.
    async fn send(&self, method: Method, url: &Url, from: u64, end: u64) -> Result<Answer, Failure> {
        let mut call = self.call(method.clone(), Target::Url(url.clone()));
        let length = end - from;
        let mut set = |name: HeaderName, value: String| {
            let value = HeaderValue::from_str(&value).map_err(|e| Failure::new(ErrorKind::Invalid, e.to_string()))?;
            call.headers.insert(name, value);
            Ok::<(), Failure>(())
        };
        set(CONTENT_TYPE, "application/octet-stream".into())?;
        set(CONTENT_LENGTH, length.to_string())?;
        if method == Method::PATCH {
            set(CONTENT_RANGE, format!("{from}-{}", end - 1))?;
        }
        let feed = Feed::open(self.content, self.blob, &self.progress, from..end, self.what()).await;
        let feed = feed.map_err(|error| {
            let failure = Failure::from(error.clone());
            self.progress.fail(error);
            failure
        })?;
        let sending = self.spot.client.send_stream(&self.spot.host, &call, exchange::pieces(feed.into_body()));
        self.watch(sending).await
    }

    /// Waits for the answer as long as bytes go out, and for a time that grows with the blob after the last.
    async fn watch(&self, sending: impl Future<Output = Result<Answer, Failure>>) -> Result<Answer, Failure> {
        let timeouts = self.spot.client.options().timeouts;
        let commit = timeouts.first_byte + Duration::from_secs(self.blob.size / SLOWEST_COMMIT_BYTES_PER_SECOND);
        let mut sending = std::pin::pin!(sending);
        let (mut seen, mut since) = (u64::MAX, Instant::now());
        let mut tick = tokio::time::interval(WATCH.min(timeouts.stall / 4).max(Duration::from_millis(1)));
        loop {
            tokio::select! {
                biased;
                answer = &mut sending => return answer,
                _ = tick.tick() => {}
            }
            let sent = self.progress.sent();
            if sent != seen || self.progress.is_starved() {
                (seen, since) = (sent, Instant::now());
                continue;
            }
            let finished = self.progress.is_finished();
            let patience = if finished { commit } else { timeouts.stall };
            if since.elapsed() >= patience {
                let state = if finished { "gave no answer after the last byte" } else { "stalled: it took no byte" };
                return Err(Failure::new(
                    ErrorKind::Network,
                    format!("`{}` {state} for {} s", self.spot.host.name, patience.as_secs_f64()),
                ));
            }
        }
    }

    /// The session after a chunk, from the registry's own words.
    fn continued(&self, answer: &Answer, before: &Session, sent_to: u64) -> Result<Session, Failure> {
        let offset = answer.header("range").and_then(received).unwrap_or(sent_to);
        if offset > sent_to || offset <= before.offset {
            return Err(Failure::new(
                ErrorKind::Server,
                format!("the registry says that it has {offset} bytes after {sent_to} were sent"),
            ));
        }
        let url = match answer.header("location") {
            Some(location) => resolve_location(&self.spot.host, answer.url(), location)
                .ok_or_else(|| Failure::new(ErrorKind::Server, "the upload session has no usable address"))?,
            None => before.url.clone(),
        };
        Ok(Session { url, offset, min_chunk: before.min_chunk })
    }

    fn check_completed(&self, answer: &Answer) -> Result<(), Failure> {
        if let Some(stored) = answer.header("docker-content-digest")
            && stored.parse().is_ok_and(|d: airlock_oci::Digest| {
                d.algorithm() == self.blob.digest.algorithm() && d != self.blob.digest
            })
        {
            return Err(Failure::new(ErrorKind::Content, format!("the registry stored the blob as `{stored}`")));
        }
        Ok(())
    }
}

/// The session that an answer to POST opens.
pub(crate) fn session_of(spot: &Spot, answer: &Answer) -> Result<Session, Failure> {
    let location = answer
        .header("location")
        .and_then(|location| resolve_location(&spot.host, answer.url(), location))
        .ok_or_else(|| Failure::new(ErrorKind::Server, "the registry opens an upload without a usable address"))?;
    let min_chunk = answer.header("oci-chunk-min-length").and_then(|v| v.parse().ok()).unwrap_or(0);
    Ok(Session { url: location, offset: 0, min_chunk })
}

/// Cancels a session, at once; the registry forgets it by itself later if this does not reach it.
pub(crate) async fn cancel(spot: &Spot, session: &Session) {
    let mut call = spot.call(Method::DELETE, "", "pull,push");
    call.to = Target::Url(session.url.clone());
    call.seated = true;
    if let Err(failure) = spot.client.send_once(&spot.host, &call).await {
        tracing::debug!("cancelling an upload at {}: {}", spot.place(), failure.cause);
    }
}

/// The session's address with the digest added; the rest of the query stays as it is.
fn with_digest(url: &Url, blob: &Descriptor) -> Url {
    let mut url = url.clone();
    let query = match url.query().filter(|q| !q.is_empty()) {
        Some(query) => format!("{query}&digest={}", blob.digest),
        None => format!("digest={}", blob.digest),
    };
    url.set_query(Some(&query));
    url
}

/// `0-99` -> 100 bytes received; `0-0` is what an empty session says.
fn received(range: &str) -> Option<u64> {
    let (_, last) = range.trim().trim_start_matches("bytes=").split_once('-')?;
    match last.trim().parse::<u64>().ok()? {
        0 => Some(0),
        last => last.checked_add(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sessions_query_stays_and_the_digest_is_added() {
        let blob = Descriptor::new("a/b", airlock_oci::Digest::of(b""), 0);
        let url = |text: &str| with_digest(&Url::parse(text).unwrap(), &blob).to_string();
        let end = format!("digest={}", blob.digest);
        assert_eq!(
            url("http://r/v2/a/u/1?_state=a%2Fb%3D%3D&x"),
            format!("http://r/v2/a/u/1?_state=a%2Fb%3D%3D&x&{end}")
        );
        assert_eq!(url("http://r/v2/a/u/1"), format!("http://r/v2/a/u/1?{end}"));
    }

    #[test]
    fn the_registrys_offset_is_read() {
        assert_eq!(received("0-99"), Some(100));
        assert_eq!(received("bytes=0-99"), Some(100));
        assert_eq!(received("0-0"), Some(0));
        assert_eq!(received("x"), None);
        assert_eq!(received(&format!("0-{}", u64::MAX)), None);
    }
}
