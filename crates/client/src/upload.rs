//! Sending a blob: one PUT where the registry takes that, chunks where it does not, resumed from the registry's own offset.
//!
//! The bytes are hashed while they are sent, and the last piece is held back until the digest is known to be right. So a wrong blob is
//! never completed: the request ends short of its announced length and the session is cancelled.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use airlock_oci::{BlobStream, Content, Descriptor, Error, ErrorKind, Hasher};
use bytes::Bytes;
use futures_util::StreamExt;
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderName, HeaderValue};
use reqwest::{Body, Method, Url};
use tokio::time::Instant;

use crate::Notice;
use crate::client::{Answer, Call, Target};
use crate::failure::Failure;
use crate::host::{Finding, resolve_location};
use crate::source::Spot;

/// Sizes of chunks for registries that take no whole blob, largest first: each is tried when the one before was refused as too
/// large (bytes). The last is below the usual limit of a proxy, 1 MiB.
const CHUNK_BYTES: [u64; 4] = [64 << 20, 16 << 20, 4 << 20, 960 << 10];
/// States of the hash are kept at this distance at least (bytes), so that a resumed upload does not hash from the beginning.
const SNAPSHOT_BYTES: u64 = 16 << 20;
/// At most this many states are kept for a blob.
const MAX_SNAPSHOTS: u64 = 256;
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

/// What the body and its watcher share.
struct Progress {
    /// Bytes handed to the connection in this attempt.
    sent: AtomicU64,
    /// The body is complete.
    finished: AtomicBool,
    /// The body waits for its source, not for the registry.
    starved: AtomicBool,
    /// Why the body ended early: the source failed, or its bytes are wrong.
    failed: Mutex<Option<Error>>,
    /// States of the hash, by offset, ascending.
    snapshots: Mutex<Vec<(u64, Hasher)>>,
    /// After a chunk: the source, open where the next chunk begins.
    parked: Mutex<Option<Feed>>,
}

/// The bytes of one attempt.
struct Feed {
    stream: BlobStream,
    hasher: Option<Hasher>,
    /// Bytes taken from the stream and hashed.
    hashed: u64,
    /// Hashed, not yet sent.
    ready: VecDeque<Bytes>,
    blob: Descriptor,
    /// The first byte after this request's body.
    end: u64,
    /// The next byte to send.
    position: u64,
    progress: Arc<Progress>,
    what: String,
}

impl<'a> Upload<'a> {
    pub(crate) fn new(
        spot: &'a Spot,
        blob: &'a Descriptor,
        content: &'a dyn Content,
        session: Option<Session>,
    ) -> Self {
        let progress = Progress {
            sent: AtomicU64::new(0),
            finished: AtomicBool::new(false),
            starved: AtomicBool::new(false),
            failed: Mutex::default(),
            snapshots: Mutex::new(vec![(0, Hasher::new(blob.digest.algorithm()))]),
            parked: Mutex::default(),
        };
        let chunk = (spot.host.found(Finding::Monolithic) == Some(false)).then_some(0);
        Self { spot, blob, content, progress: Arc::new(progress), session, chunk }
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
            let broken = self.progress.failed.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(error) = broken {
                self.cancel().await;
                return Err(error);
            }
            let all_sent = self.progress.finished.load(Ordering::Relaxed);
            if self.adapt(&failure) {
                continue;
            }
            // The registry found the bytes wrong that were right here: they were damaged on the way, or a resumption went astray.
            let astray = failure.has_code("DIGEST_INVALID");
            let lost = failure.is_status(404) || failure.is_status(416) || failure.has_code("BLOB_UPLOAD_UNKNOWN");
            // A new token was fetched when the old one was refused.
            let token = failure.is_status(401) && self.session.is_some() && tries < 2;
            if !(failure.transient || astray || lost && self.session.is_some() || token) || tries >= policy.times {
                self.cancel().await;
                return Err(failure.into_error(self.what()));
            }
            tries += 1;
            if failure.transient {
                let delay = policy.delay(tries, failure.retry_after);
                self.spot.client.pause(&self.what(), &failure, tries, delay).await;
            }
            if astray || lost {
                self.session = None;
            } else if !token {
                // Who is not let in has sent nothing: the session is where it was.
                self.session = self.status().await;
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
        self.progress.sent.store(0, Ordering::Relaxed);
        self.progress.finished.store(false, Ordering::Relaxed);
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
        call.what = format!("POST {} blobs/uploads/", self.spot.place());
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
        call.what = self.what();
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
        let opened = match self.feed(from, end).await {
            // Nothing is held back of an empty blob.
            Ok(mut feed) if length == 0 => feed.verify().await.map(|()| feed),
            other => other,
        };
        let feed = match opened {
            Ok(feed) => feed,
            Err(error) => {
                let failure = Failure::from(error.clone());
                *self.progress.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                return Err(failure);
            }
        };
        let body = futures_util::stream::unfold(Some(feed), |feed| async {
            let mut feed = feed?;
            match feed.next().await {
                // The connection may never ask for what comes after the announced length: the source is put aside now.
                Ok(Some(bytes)) if feed.position == feed.end => {
                    let progress = Arc::clone(&feed.progress);
                    *progress.parked.lock().unwrap_or_else(PoisonError::into_inner) = Some(feed);
                    progress.finished.store(true, Ordering::Relaxed);
                    Some((Ok(bytes), None))
                }
                Ok(Some(bytes)) => Some((Ok(bytes), Some(feed))),
                Ok(None) => None,
                Err(error) => {
                    let text = error.to_string();
                    *feed.progress.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    Some((Err(std::io::Error::other(text)), None))
                }
            }
        });
        if length == 0 {
            self.progress.finished.store(true, Ordering::Relaxed);
        }
        let sending = self.spot.client.send_stream(&self.spot.host, &call, Body::wrap_stream(body));
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
            let sent = self.progress.sent.load(Ordering::Relaxed);
            if sent != seen || self.progress.starved.load(Ordering::Relaxed) {
                (seen, since) = (sent, Instant::now());
                continue;
            }
            let finished = self.progress.finished.load(Ordering::Relaxed);
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

    /// Opens the content and brings the hash up to `from`.
    async fn feed(&self, from: u64, end: u64) -> Result<Feed, Error> {
        let parked = self.progress.parked.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut feed) = parked.filter(|feed| feed.position == from) {
            feed.end = end;
            return Ok(feed);
        }
        let (at, hasher) = {
            let snapshots = self.progress.snapshots.lock().unwrap_or_else(PoisonError::into_inner);
            let best = snapshots.iter().rev().find(|(at, _)| *at <= from);
            best.cloned().unwrap_or_else(|| (0, Hasher::new(self.blob.digest.algorithm())))
        };
        let mut feed = Feed {
            stream: self.content.open(at).await?,
            hasher: Some(hasher),
            hashed: at,
            ready: VecDeque::new(),
            blob: self.blob.clone(),
            end,
            position: from,
            progress: Arc::clone(&self.progress),
            what: self.what(),
        };
        // What the registry has already is only hashed.
        while feed.hashed < from {
            let Some(mut bytes) = feed.pull().await? else { break };
            if feed.hashed > from {
                feed.ready.push_back(bytes.split_off(bytes.len() - (feed.hashed - from) as usize));
            }
        }
        Ok(feed)
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

impl Feed {
    /// The next bytes from the source, hashed and counted; `None` at the blob's end.
    async fn pull(&mut self) -> Result<Option<Bytes>, Error> {
        self.progress.starved.store(true, Ordering::Relaxed);
        let next = loop {
            match self.stream.next().await {
                Some(Ok(bytes)) if bytes.is_empty() => {}
                other => break other.transpose(),
            }
        };
        self.progress.starved.store(false, Ordering::Relaxed);
        let Some(bytes) = next? else { return Ok(None) };
        if bytes.len() as u64 > self.blob.size.saturating_sub(self.hashed) {
            return Err(
                self.wrong(format!("the source gives more than the {} bytes that the manifest names", self.blob.size))
            );
        }
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&bytes);
            self.hashed += bytes.len() as u64;
            let mut snapshots = self.progress.snapshots.lock().unwrap_or_else(PoisonError::into_inner);
            let last = snapshots.last().map_or(0, |(at, _)| *at);
            if self.hashed >= last + SNAPSHOT_BYTES.max(self.blob.size / MAX_SNAPSHOTS) {
                snapshots.push((self.hashed, hasher.clone()));
            }
        }
        Ok(Some(bytes))
    }

    /// The next bytes of the body. The last ones of the blob come only when all of it is right.
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let room = self.end - self.position;
        if room == 0 {
            return Ok(None);
        }
        loop {
            // A piece may go when something stays behind it, or when everything was found right.
            let first = self.ready.front().map_or(0, |piece| piece.len() as u64);
            if first > 0 && (self.ready.len() > 1 || first > room || self.hasher.is_none()) {
                break;
            }
            if self.hashed == self.blob.size {
                self.verify().await?;
                continue;
            }
            let Some(bytes) = self.pull().await? else {
                return Err(self.wrong(format!(
                    "the source ends after {} of the {} bytes that the manifest names",
                    self.hashed, self.blob.size
                )));
            };
            self.ready.push_back(bytes);
        }
        let Some(mut out) = self.ready.pop_front() else { return Ok(None) };
        if out.len() as u64 > room {
            self.ready.push_front(out.split_off(room as usize));
        }
        self.position += out.len() as u64;
        self.progress.sent.fetch_add(out.len() as u64, Ordering::Relaxed);
        Ok(Some(out))
    }

    async fn verify(&mut self) -> Result<(), Error> {
        let Some(hasher) = self.hasher.take() else { return Ok(()) };
        if self.stream.next().await.transpose()?.is_some_and(|extra| !extra.is_empty()) {
            return Err(
                self.wrong(format!("the source gives more than the {} bytes that the manifest names", self.blob.size))
            );
        }
        let actual = hasher.finish();
        if actual != self.blob.digest {
            return Err(self.wrong(format!("the bytes have the digest `{actual}`")));
        }
        Ok(())
    }

    fn wrong(&self, cause: String) -> Error {
        Error::new(ErrorKind::Content, self.what.clone(), cause)
            .hint("nothing was completed at the target; the source is damaged, verify or fetch it again")
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
