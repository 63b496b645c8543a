//! Reading: any logical reference, answered by the first of its endpoints that can.

use std::sync::Arc;

use airlock_oci::{
    Attempt, BlobStream, Descriptor, Digest, Error, ErrorKind, Found, MAX_MANIFEST_BYTES, Manifest, Place, Reference,
    Source, Tag, media_type,
};
use async_trait::async_trait;
use http::Method;
use http::header::{ACCEPT, HeaderValue};

use crate::auth::Scope;
use crate::client::{Call, Client, Target};
use crate::endpoint::Wanted;
use crate::failure::Failure;
use crate::host::Host;
use crate::{Notice, blob, listing, referrers};

/// All remote registries as one source. Cheap to clone.
#[derive(Clone, Debug)]
pub struct RegistrySource {
    client: Client,
}

/// A repository at one physical host.
#[derive(Clone)]
pub(crate) struct Spot {
    pub(crate) client: Client,
    pub(crate) host: Arc<Host>,
    /// The repository's path.
    pub(crate) repository: String,
    /// Another spot is asked when this one cannot be reached.
    pub(crate) others: bool,
}

/// The endpoints of a reference, and how they went so far.
pub(crate) struct Round {
    what: String,
    spots: Vec<Spot>,
    attempts: Vec<Attempt>,
    primary: Option<Failure>,
    transient: bool,
}

impl Spot {
    /// `host[:port]/path`.
    pub(crate) fn place(&self) -> String {
        format!("{}/{}", self.host.name, self.repository)
    }

    /// A request for something below the repository: `manifests/v1`.
    pub(crate) fn call(&self, method: Method, rest: &str, actions: &str) -> Call {
        let path = format!("/v2/{}/{rest}", self.repository);
        let mut call = Call::new(method, Target::Path(path), Scope::repository(&self.repository, actions));
        call.impatient = self.others;
        call
    }

    /// Reads a manifest by tag or digest; verified. The failure of wrong content has the kind [`ErrorKind::Content`].
    pub(crate) async fn manifest(&self, at: &str, expected: Option<&Digest>) -> Result<Manifest, Failure> {
        let mut call = self.call(Method::GET, &format!("manifests/{at}"), "pull");
        call.headers.insert(ACCEPT, accepted());
        let policy = self.client.policy();
        let mut attempt = 1;
        // A body that breaks off is fetched again as a whole; it has 4 MiB at most.
        let (declared, header, bytes) = loop {
            let mut answer = self.client.send(&self.host, &call).await?;
            let declared = answer.header("content-type").map(str::to_owned);
            let header = answer.header("docker-content-digest").map(str::to_owned);
            match answer.read_all(MAX_MANIFEST_BYTES).await {
                Ok(bytes) => break (declared, header, bytes),
                Err(failure) if failure.transient && attempt <= policy.times => {
                    let delay = policy.delay(attempt, None);
                    self.client.pause(&call.what(&self.host.name), &failure, attempt, delay).await;
                    attempt += 1;
                }
                Err(failure) => return Err(failure),
            }
        };
        let page = declared.as_deref().is_some_and(|d| d.starts_with("text/html"));
        let explain = |error: Error| match Failure::from(error) {
            failure if page => failure.hint(format!(
                "`{}` answered with a web page: a proxy or a sign-in page stands before the registry",
                self.host.name
            )),
            failure => failure,
        };
        let parsed = match expected {
            Some(expected) => Manifest::parse_expecting(bytes, declared.as_deref(), expected).map_err(explain)?,
            None => {
                // The registry's own claim, where it makes one, must hold for the bytes that came.
                if let Some(claimed) = header.as_deref().and_then(|h| h.parse::<Digest>().ok()) {
                    let actual = Digest::of_with(claimed.algorithm(), &bytes);
                    if actual != claimed {
                        return Err(Failure::new(
                            ErrorKind::Content,
                            format!("the registry announces the digest `{claimed}`, but its bytes have `{actual}`"),
                        )
                        .hint("a proxy or the registry's storage alters content; ask its administrator"));
                    }
                }
                Manifest::parse(bytes, declared.as_deref()).map_err(explain)?
            }
        };
        Ok(parsed)
    }

    /// The digest at a tag or digest, by HEAD where that tells. `Ok(None)`: not there.
    pub(crate) async fn head_manifest(&self, at: &str, actions: &str) -> Result<Option<Digest>, Failure> {
        let mut call = self.call(Method::HEAD, &format!("manifests/{at}"), actions);
        call.headers.insert(ACCEPT, accepted());
        match self.client.send(&self.host, &call).await {
            Ok(answer) => {
                if let Some(digest) = answer.header("docker-content-digest").and_then(|h| h.parse().ok()) {
                    return Ok(Some(digest));
                }
            }
            Err(failure) if failure.kind == ErrorKind::NotFound => return Ok(None),
            // Not everybody knows HEAD here.
            Err(failure) if failure.is_status(400) || failure.is_status(405) || failure.is_status(501) => {}
            Err(failure) => return Err(failure),
        }
        let expected = at.parse::<Digest>().ok();
        match self.manifest(at, expected.as_ref()).await {
            Ok(manifest) => Ok(Some(manifest.digest().clone())),
            Err(failure) if failure.kind == ErrorKind::NotFound => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// Whether a blob is there with this size.
    pub(crate) async fn has_blob(&self, blob: &Descriptor, actions: &str) -> Result<bool, Failure> {
        let call = self.call(Method::HEAD, &format!("blobs/{}", blob.digest), actions);
        match self.client.send(&self.host, &call).await {
            Ok(answer) => Ok(answer.content_length().is_none_or(|length| length == blob.size)),
            Err(failure) if failure.kind == ErrorKind::NotFound => Ok(false),
            Err(failure) => Err(failure),
        }
    }
}

/// The `Accept` of a manifest.
fn accepted() -> HeaderValue {
    static TEXT: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    let text = TEXT.get_or_init(|| media_type::ACCEPTED.join(", "));
    HeaderValue::from_static(text.as_str())
}

impl Round {
    /// The endpoints for a pull of `name`, `near` first; blocked ones are already marked as tried.
    pub(crate) fn new(
        client: &Client,
        what: String,
        name: &Reference,
        wanted: Wanted<'_>,
        near: Option<&Place>,
    ) -> Result<Self, Error> {
        let mut round = Self { what, spots: Vec::new(), attempts: Vec::new(), primary: None, transient: false };
        for endpoint in client.endpoints().of(name, wanted)?.iter() {
            let (host, repository) = (endpoint.registry.as_str(), endpoint.repository.as_str());
            if let Some(table) = &endpoint.blocked_by {
                let reason = format!("blocked by registries.conf (`{table}`)");
                round.skip(client, &format!("{host}/{repository}"), Failure::new(ErrorKind::Denied, reason));
                continue;
            }
            let spot = Spot {
                client: client.clone(),
                host: client.host(host, endpoint.insecure)?,
                repository: repository.to_owned(),
                others: true,
            };
            let nearest = near.is_some_and(|near| near.0 == spot.place());
            round.spots.insert(if nearest { 0 } else { round.spots.len() }, spot);
        }
        if let Some(last) = round.spots.last_mut() {
            last.others = false;
        }
        Ok(round)
    }

    /// Only the spot at this place; it is then the last that is asked.
    fn only(mut self, place: &Place) -> Self {
        self.spots.retain(|spot| spot.place() == place.0);
        self.spots.truncate(1);
        for spot in &mut self.spots {
            spot.others = false;
        }
        self
    }

    /// The spots in the order in which they are to be asked.
    pub(crate) fn spots(&self) -> Vec<Spot> {
        self.spots.clone()
    }

    fn skip(&mut self, client: &Client, place: &str, failure: Failure) {
        client.notify(|| Notice::EndpointSkipped { endpoint: place.to_owned(), reason: failure.cause.clone() });
        self.failed(place, failure);
    }

    fn failed(&mut self, place: &str, failure: Failure) {
        self.attempts.push(Attempt { endpoint: place.to_owned(), outcome: failure.cause.clone() });
        self.transient |= failure.transient;
        // The last one asked is the source itself, whose word counts most; that it is blocked says least.
        self.primary = Some(failure);
    }

    /// Takes in a spot's failure. `Err`: the next spot must not be asked.
    pub(crate) fn next(&mut self, spot: &Spot, failure: Failure) -> Result<(), Error> {
        let stop = matches!(
            failure.kind,
            ErrorKind::Content | ErrorKind::Unsupported | ErrorKind::Invalid | ErrorKind::Interrupted
        );
        if spot.others && !stop {
            self.skip(&spot.client, &spot.place(), failure);
            return Ok(());
        }
        self.failed(&spot.place(), failure);
        if stop { Err(self.error()) } else { Ok(()) }
    }

    /// The error after the last spot.
    pub(crate) fn error(&mut self) -> Error {
        let failure =
            self.primary.take().unwrap_or_else(|| Failure::new(ErrorKind::NotFound, "there is no endpoint to ask"));
        let attempts = std::mem::take(&mut self.attempts);
        let hint = failure.hint.clone();
        let several = attempts.len() > 1 && failure.kind != ErrorKind::Content;
        let cause = if several { format!("none of its {} endpoints serves it", attempts.len()) } else { failure.cause };
        let mut error = Error::new(failure.kind, self.what.clone(), cause).retryable(self.transient);
        // Where registries.conf leads elsewhere, the host that was asked is not the one that was written.
        let elsewhere = attempts.iter().any(|attempt| !self.what.contains(&attempt.endpoint));
        if attempts.len() > 1 || elsewhere {
            error = error.attempts(attempts);
        }
        match hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }
}

impl RegistrySource {
    /// A source that asks through this client.
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// The client.
    pub fn client(&self) -> &Client {
        &self.client
    }
}

/// What stands after `manifests/` for a reference: its digest, else its tag, else `latest`.
fn manifest_name(name: &Reference) -> String {
    match (name.digest(), name.tag()) {
        (Some(digest), _) => digest.to_string(),
        (None, Some(tag)) => tag.to_string(),
        (None, None) => "latest".to_owned(),
    }
}

/// Asks one spot after the other until one answers. `$body` is a future of `Result<T, Failure>`.
macro_rules! first_of {
    ($round:expr, |$spot:ident| $body:expr) => {{
        let mut round = $round;
        let mut found = None;
        for $spot in round.spots() {
            match $body.await {
                Ok(value) => {
                    found = Some((value, $spot.place()));
                    break;
                }
                Err(failure) => round.next(&$spot, failure)?,
            }
        }
        match found {
            Some((value, place)) => Ok(Found { value, place: Place(place) }),
            None => Err(round.error()),
        }
    }};
}

#[async_trait]
impl Source for RegistrySource {
    fn describe(&self) -> String {
        "remote registries".into()
    }

    async fn resolve(&self, name: &Reference) -> Result<Found<Digest>, Error> {
        let round = Round::new(&self.client, format!("look up `{name}`"), name, Wanted::Reference, None)?;
        let at = manifest_name(name);
        first_of!(round, |spot| async {
            spot.head_manifest(&at, "pull")
                .await?
                .ok_or_else(|| Failure::new(ErrorKind::NotFound, "registry answered 404 Not Found: manifest unknown"))
        })
    }

    async fn manifest(&self, name: &Reference) -> Result<Found<Manifest>, Error> {
        let round = Round::new(&self.client, format!("pull manifest `{name}`"), name, Wanted::Reference, None)?;
        let at = manifest_name(name);
        first_of!(round, |spot| spot.manifest(&at, name.digest()))
    }

    async fn manifest_at(&self, name: &Reference, place: &Place) -> Result<Option<Manifest>, Error> {
        let what = format!("pull manifest `{name}` from `{place}`");
        // The place is known from a pull of something else, perhaps by digest where this is by tag.
        let round = Round::new(&self.client, what, name, Wanted::Content(&Digest::of(b"")), Some(place))?;
        let mut round = round.only(place);
        let Some(spot) = round.spots().into_iter().next() else {
            return match self.manifest(name).await {
                Ok(found) => Ok(Some(found.value)),
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error),
            };
        };
        match spot.manifest(&manifest_name(name), name.digest()).await {
            Ok(manifest) => Ok(Some(manifest)),
            Err(failure) if failure.kind == ErrorKind::NotFound => Ok(None),
            Err(failure) => {
                round.next(&spot, failure)?;
                Err(round.error())
            }
        }
    }

    async fn blob(
        &self,
        name: &Reference,
        blob: &Descriptor,
        offset: u64,
        near: Option<&Place>,
    ) -> Result<BlobStream, Error> {
        let what = format!("pull blob `{}` of `{}`", blob.digest, name.name());
        let round = Round::new(&self.client, what, name, Wanted::Content(&blob.digest), near)?;
        blob::open(round, blob, offset).await
    }

    async fn has_blob(&self, name: &Reference, blob: &Descriptor, near: Option<&Place>) -> Result<bool, Error> {
        let what = format!("look up blob `{}` of `{}`", blob.digest, name.name());
        let round = Round::new(&self.client, what, name, Wanted::Content(&blob.digest), near)?;
        let found = first_of!(round, |spot| async {
            if spot.has_blob(blob, "pull").await? {
                Ok(())
            } else {
                Err(Failure::new(ErrorKind::NotFound, "blob unknown"))
            }
        });
        match found {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn referrers(
        &self,
        name: &Reference,
        subject: &Digest,
        near: Option<&Place>,
    ) -> Result<Vec<Descriptor>, Error> {
        let what = format!("list referrers of `{}@{subject}`", name.name());
        let round = Round::new(&self.client, what, name, Wanted::Content(subject), near)?;
        first_of!(round, |spot| referrers::list(&spot, subject)).map(|found| found.value)
    }

    async fn tags(&self, name: &Reference) -> Result<Vec<Tag>, Error> {
        let round = Round::new(&self.client, format!("list tags of `{}`", name.name()), name, Wanted::List, None)?;
        first_of!(round, |spot| listing::tags(&spot)).map(|found| found.value)
    }
}
