//! Plain HTTP for what lies on no registry - update graphs, signatures, charts - with the same trust, proxies and retries.

use std::path::Path;
use std::time::Duration;

use airlock_oci::{Error, ErrorKind};
use bytes::{Bytes, BytesMut};
use http::Method;
use http::header::{ACCEPT, HeaderValue};
use tokio::fs::File;
use tokio::io::{AsyncSeekExt, AsyncWriteExt};
use tokio::time::Instant;

pub use url::Url;

use crate::Client;
use crate::auth::Scope;
use crate::client::{Call, Target};
use crate::failure::Failure;
use crate::host::{Host, name_of};

/// A server that gives no sign of life is given up after this time, tries included, so that a dead network is told within half a minute.
const ANSWER_TIME: Duration = Duration::from_secs(25);
/// How often a server that cannot be reached at all is tried: it is nearly always a matter of a name, a proxy or a route.
const MAX_UNREACHABLE_TRIES: u32 = 3;

/// One thing to fetch.
#[derive(Clone, Debug)]
pub struct Get {
    /// From where; `http` or `https`.
    pub url: Url,
    /// The value of `Accept`.
    pub accept: Option<&'static str>,
    /// What is done, for errors: `read the update graph of channel …`.
    pub what: String,
    /// The largest body that is taken (bytes).
    pub limit: u64,
}

/// Where a body goes.
enum Body<'f> {
    Memory(BytesMut),
    File { file: &'f mut File, written: u64 },
}

/// Why one try failed, and whether the server had answered by then.
struct Try {
    failure: Failure,
    answered: bool,
}

impl Client {
    /// The body of an address, in memory. Redirects are followed, never from HTTPS to plain HTTP; nobody is shown a credential.
    ///
    /// [`ErrorKind::NotFound`] for 404 and 410, [`ErrorKind::Network`] when the server could not be spoken to.
    pub async fn get(&self, get: &Get) -> Result<Bytes, Error> {
        let mut body = Body::Memory(BytesMut::new());
        self.fetch(get, &mut body).await?;
        match body {
            Body::Memory(bytes) => Ok(bytes.freeze()),
            Body::File { .. } => Ok(Bytes::new()),
        }
    }

    /// The body of an address into a file, which is there only when it is complete; its size in bytes.
    pub async fn download(&self, get: &Get, path: &Path) -> Result<u64, Error> {
        let io = |e: &std::io::Error| Error::io(format!("write `{}`", path.display()), e);
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let beside = tempfile::NamedTempFile::new_in(folder).map_err(|e| io(&e))?;
        let mut file = File::from_std(beside.reopen().map_err(|e| io(&e))?);
        let mut body = Body::File { file: &mut file, written: 0 };
        self.fetch(get, &mut body).await?;
        let written = body.len();
        file.sync_all().await.map_err(|e| io(&e))?;
        beside.persist(path).map_err(|e| io(&e.error))?;
        Ok(written)
    }

    async fn fetch(&self, get: &Get, body: &mut Body<'_>) -> Result<(), Error> {
        let named = |failure: Failure| plain_words(&get.url, failure).into_error(get.what.as_str());
        if !matches!(get.url.scheme(), "http" | "https") || get.url.host_str().is_none() {
            let cause = format!("`{}` is no address of a web server", get.url.scheme());
            return Err(Error::new(ErrorKind::Invalid, get.what.as_str(), cause).hint("write https://HOST/PATH"));
        }
        let host = self.host(&name_of(&get.url), false)?;
        // Several questions to one dead server must not add up their time-outs.
        if let Some(cause) = host.down() {
            return Err(named(Failure::new(ErrorKind::Network, cause)));
        }
        let mut call = Call::new(Method::GET, Target::Url(get.url.clone()), Scope::none());
        if let Some(accept) = get.accept {
            call.headers.insert(ACCEPT, HeaderValue::from_static(accept));
        }
        let policy = self.policy();
        let mut deadline = Instant::now() + ANSWER_TIME;
        let mut attempt = 1;
        loop {
            let Try { failure, answered } = match self.try_once(&host, &call, get.limit, deadline, body).await {
                Ok(()) => return Ok(()),
                Err(failed) => failed,
            };
            let delay = policy.delay(attempt, failure.retry_after);
            let now = Instant::now();
            if answered {
                deadline = now + delay + ANSWER_TIME;
            }
            let hopeless = !failure.transient
                || attempt > policy.times
                || (failure.unreachable && attempt >= MAX_UNREACHABLE_TRIES)
                || now + delay >= deadline;
            if hopeless {
                if !answered && failure.kind == ErrorKind::Network {
                    host.went_down(&failure.cause);
                }
                return Err(named(failure));
            }
            self.pause(&call.what(&host.name), &failure, attempt, delay).await;
            attempt += 1;
        }
    }

    async fn try_once(
        &self,
        host: &std::sync::Arc<Host>,
        call: &Call,
        limit: u64,
        deadline: Instant,
        body: &mut Body<'_>,
    ) -> Result<(), Try> {
        let unanswered = |failure: Failure| Try { answered: failure.status.is_some(), failure };
        let mut answer = match tokio::time::timeout_at(deadline, self.send_unauthorized(host, call)).await {
            Ok(answer) => answer.map_err(unanswered)?,
            Err(_) => {
                let cause = format!("`{}` gave no answer within {} s", host.name, ANSWER_TIME.as_secs());
                return Err(unanswered(Failure { unreachable: true, ..Failure::new(ErrorKind::Network, cause) }));
            }
        };
        let answered = |failure: Failure| Try { answered: true, failure };
        let too_long = || {
            let cause = format!("`{}` answers more than {limit} bytes", host.name);
            answered(Failure::new(ErrorKind::Unsupported, cause))
        };
        let expected = answer.content_length();
        if expected.is_some_and(|length| length > limit) {
            return Err(too_long());
        }
        body.restart().await.map_err(answered)?;
        while let Some(bytes) = answer.chunk().await.map_err(answered)? {
            if body.len() + bytes.len() as u64 > limit {
                return Err(too_long());
            }
            body.push(&bytes).await.map_err(answered)?;
        }
        body.finish().await.map_err(answered)
    }
}

impl Body<'_> {
    fn len(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::File { written, .. } => *written,
        }
    }

    /// Another try begins: what a former one left is of no use.
    async fn restart(&mut self) -> Result<(), Failure> {
        match self {
            Self::Memory(bytes) => bytes.clear(),
            Self::File { file, written } => {
                *written = 0;
                file.set_len(0).await.map_err(local)?;
                file.rewind().await.map_err(local)?;
            }
        }
        Ok(())
    }

    async fn push(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        match self {
            Self::Memory(all) => all.extend_from_slice(bytes),
            Self::File { file, written } => {
                file.write_all(bytes).await.map_err(local)?;
                *written += bytes.len() as u64;
            }
        }
        Ok(())
    }

    async fn finish(&mut self) -> Result<(), Failure> {
        match self {
            Self::Memory(_) => Ok(()),
            Self::File { file, .. } => file.flush().await.map_err(local),
        }
    }
}

fn local(error: std::io::Error) -> Failure {
    Error::io("write to disk", &error).into()
}

/// The same failure in words that fit a server which is no registry.
fn plain_words(url: &Url, mut failure: Failure) -> Failure {
    if let Some(rest) = failure.cause.strip_prefix("registry answered") {
        failure.cause = format!("`{}` answered{rest}", name_of(url));
    }
    failure.hint = match failure.kind {
        ErrorKind::TooManyRequests => Some("the server limits the rate; try again later".to_owned()),
        _ => failure.hint.map(|hint| hint.replace("the registry", "the server")),
    };
    failure
}
