//! Writing: one registry, with or without a namespace before every repository.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use airlock_oci::sink::ManifestName;
use airlock_oci::{
    Abilities, Content, Descriptor, Digest, Error, ErrorKind, Manifest, Registry, Repository, Shape, Sink, Tag,
    media_type,
};
use async_trait::async_trait;
use http::Method;
use http::header::{CONTENT_TYPE, HeaderValue};

use crate::answer::Answer;
use crate::client::{Client, Target};
use crate::failure::Failure;
use crate::host::{Finding, Host};
use crate::options::Notice;
use crate::referrers;
use crate::source::Spot;
use crate::upload::{self, Session, Upload};

/// The most sessions that are kept after a mount was answered with a session instead.
const MAX_KEPT_SESSIONS: usize = 256;
/// After so many blobs written it is worth three requests to learn how one can be saved for each that follows.
const BLOBS_BEFORE_LEARNING: usize = 16;
/// What a push may do with a repository.
const ACTIONS: &str = "pull,push";

/// A registry to write to. Cheap to clone.
#[derive(Clone)]
pub struct RegistrySink {
    client: Client,
    registry: Registry,
    namespace: Option<Repository>,
    host: Arc<Host>,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    /// Sessions that a refused mount left open, for the write that follows.
    sessions: Mutex<HashMap<(String, Digest), Session>>,
    /// One writer at a time for the fallback tag of a subject.
    subjects: Mutex<HashMap<(String, Digest), Arc<tokio::sync::Mutex<()>>>>,
    /// 0 not known, 1 yes, 2 no.
    sparse: AtomicU8,
    undeletable: AtomicU8,
    /// Blobs written so far.
    written: AtomicUsize,
    /// The blob asked for last was not there; the next one probably is not either.
    absent: AtomicBool,
}

impl RegistrySink {
    /// A sink at `registry`, with `namespace` put before every repository's name.
    pub fn new(client: Client, registry: Registry, namespace: Option<Repository>) -> Result<Self, Error> {
        let insecure = client.endpoints().insecure_for_push(&registry, namespace.as_ref())?;
        let host = client.host(registry.as_str(), insecure)?;
        Ok(Self { client, registry, namespace, host, state: Arc::default() })
    }

    /// The registry.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The client.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The repository's full path at the registry.
    pub fn full_name(&self, repository: &Repository) -> Result<Repository, Error> {
        let Some(namespace) = &self.namespace else { return Ok(repository.clone()) };
        let text = format!("{namespace}/{repository}");
        Repository::new(&text)
            .map_err(|e| Error::new(ErrorKind::Refused, format!("name `{text}` at `{}`", self.registry), e))
    }

    pub(crate) fn spot(&self, repository: &Repository) -> Result<Spot, Error> {
        Ok(Spot {
            client: self.client.clone(),
            host: Arc::clone(&self.host),
            repository: self.full_name(repository)?.to_string(),
            others: false,
        })
    }

    pub(crate) fn host(&self) -> &Arc<Host> {
        &self.host
    }

    /// Puts a manifest under a tag or digest.
    async fn put(&self, spot: &Spot, at: &str, media_type: &str, bytes: &bytes::Bytes) -> Result<Answer, Failure> {
        let mut call = spot.call(Method::PUT, &format!("manifests/{at}"), ACTIONS);
        let header = HeaderValue::from_str(media_type)
            .map_err(|_| Failure::new(ErrorKind::Unsupported, format!("media type `{media_type}` cannot be sent")))?;
        call.headers.insert(CONTENT_TYPE, header);
        call.body = bytes.clone();
        let policy = self.client.policy();
        let mut attempt = 1;
        loop {
            match self.client.send(&spot.host, &call).await {
                // The bytes were verified here. docker-registry 2.8 says this when the same content is being pushed twice at once.
                Err(failure) if failure.has_code("DIGEST_INVALID") && attempt <= policy.times => {
                    let delay = policy.delay(attempt, failure.retry_after);
                    self.client.pause(&call.what(&spot.host.name), &failure, attempt, delay).await;
                    attempt += 1;
                }
                other => return other,
            }
        }
    }

    /// Keeps a session for the write of this blob; gives it back when too many are kept already.
    fn keep(&self, spot: &Spot, blob: &Descriptor, session: Session) -> Option<Session> {
        let mut sessions = self.state.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        if sessions.len() >= MAX_KEPT_SESSIONS {
            return Some(session);
        }
        sessions.insert((spot.repository.clone(), blob.digest.clone()), session)
    }

    /// Learns whether mounts from a repository into itself are answered truly, by one blob that is there and one that nobody has.
    async fn learn_own_mount(&self, repository: &Repository, there: &Descriptor) {
        let nowhere = Descriptor { digest: Digest::of(b"a blob that no registry has"), ..there.clone() };
        let truly = matches!(self.mount_blob(repository, there, repository).await, Ok(true))
            && matches!(self.mount_blob(repository, &nowhere, repository).await, Ok(false));
        for blob in [there, &nowhere] {
            let Ok(spot) = self.spot(repository) else { continue };
            if let Some(session) = self.take_session(&spot, blob) {
                upload::cancel(&spot, &session).await;
            }
        }
        self.host.note(Finding::OwnMount, truly);
    }

    /// The session that a refused mount left for this blob.
    fn take_session(&self, spot: &Spot, blob: &Descriptor) -> Option<Session> {
        let mut sessions = self.state.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.remove(&(spot.repository.clone(), blob.digest.clone()))
    }

    fn explain(&self, manifest: &Manifest, mut failure: Failure) -> Failure {
        let index = manifest.shape() == Shape::Index;
        let missing = ["MANIFEST_BLOB_UNKNOWN", "MANIFEST_UNKNOWN", "BLOB_UNKNOWN"].iter().any(|c| failure.has_code(c));
        let invalid = failure.has_code("MANIFEST_INVALID");
        if index && (missing || invalid) {
            self.state.sparse.store(2, Ordering::Relaxed);
            failure.kind = ErrorKind::Refused;
            failure.transient = false;
            failure.hint = Some(
                "the registry refuses an index whose children are not all there (sparse index); allow it - docker distribution 3: \
                 `validation.manifests.indexes.platforms: none` (or `list` with the platforms that are mirrored) - or mirror all platforms"
                    .into(),
            );
        } else if missing {
            failure.kind = ErrorKind::Refused;
            failure.hint = Some(
                "a blob of this image got lost at the registry, or its garbage collection runs now; run again".into(),
            );
        } else if invalid {
            failure.kind = ErrorKind::Refused;
            let foreign = manifest.blobs().any(Descriptor::is_foreign);
            failure.hint = Some(if foreign {
                "the image has foreign layers (with `urls`); docker distribution takes them with `validation.manifests.urls.allow: ['.*']`".into()
            } else {
                format!("the registry does not take manifests of type `{}`", manifest.media_type())
            });
        }
        failure
    }

    /// Enters a referrer into the index at its subject's fallback tag, where the registry does not keep track itself.
    async fn update_fallback_tag(&self, spot: &Spot, manifest: &Manifest, subject: &Digest) -> Result<(), Failure> {
        let key = (spot.repository.clone(), subject.clone());
        let lock =
            Arc::clone(self.state.subjects.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default());
        let _alone = lock.lock().await;
        let tag = subject.fallback_tag();
        let mut index = match spot.manifest(&tag, None).await {
            // An image that is known by digest only is stored under just this tag (oc-mirror 4.3). Its name is kept: the referrer is there
            // by digest, only not listed.
            Ok(old) if old.digest() == subject => {
                let text = format!(
                    "`{}:{tag}` is the image itself, so what refers to it cannot be listed there; this registry has no referrers API",
                    spot.repository
                );
                self.client.notify(|| Notice::Warning { host: self.host.name.clone(), text });
                return Ok(());
            }
            Ok(old) => serde_json::from_slice::<serde_json::Value>(old.bytes()).map_err(|e| {
                Failure::new(ErrorKind::Content, format!("the index at tag `{tag}` is unreadable: {e}"))
            })?,
            Err(failure) if failure.kind == ErrorKind::NotFound => serde_json::json!({
                "schemaVersion": 2,
                "mediaType": media_type::OCI_INDEX,
                "manifests": [],
            }),
            Err(failure) => return Err(failure),
        };
        let mut descriptor = manifest.descriptor();
        descriptor.artifact_type = manifest.artifact_type().map(str::to_owned);
        descriptor.annotations = manifest.annotations().clone();
        let entry = serde_json::to_value(&descriptor)
            .map_err(|e| Failure::new(ErrorKind::Invalid, format!("cannot write a descriptor: {e}")))?;
        let Some(entries) = index.get_mut("manifests").and_then(serde_json::Value::as_array_mut) else {
            return Err(Failure::new(ErrorKind::Content, format!("tag `{tag}` holds no index")));
        };
        let digest = manifest.digest().to_string();
        if entries.iter().any(|e| e.get("digest").and_then(serde_json::Value::as_str) == Some(digest.as_str())) {
            return Ok(());
        }
        entries.push(entry);
        let bytes = serde_json::to_vec(&index)
            .map_err(|e| Failure::new(ErrorKind::Invalid, format!("cannot write an index: {e}")))?;
        self.put(spot, &tag, media_type::OCI_INDEX, &bytes.into()).await.map(drop)
    }
}

#[async_trait]
impl Sink for RegistrySink {
    fn describe(&self) -> String {
        match &self.namespace {
            Some(namespace) => format!("docker://{}/{namespace}", self.registry),
            None => format!("docker://{}", self.registry),
        }
    }

    fn abilities(&self) -> Abilities {
        Abilities {
            mount: true,
            sparse_index: match self.state.sparse.load(Ordering::Relaxed) {
                1 => Some(true),
                2 => Some(false),
                _ => None,
            },
            referrers: self.host.found(Finding::Referrers) == Some(true),
            delete: self.state.undeletable.load(Ordering::Relaxed) == 0,
        }
    }

    async fn head_manifest(&self, repository: &Repository, at: &ManifestName) -> Result<Option<Digest>, Error> {
        let spot = self.spot(repository)?;
        let what = || format!("look up `{}` {at}", spot.place());
        spot.head_manifest(&at.to_string(), ACTIONS).await.map_err(|failure| failure.into_error(what()))
    }

    async fn has_blob(&self, repository: &Repository, blob: &Descriptor) -> Result<bool, Error> {
        let spot = self.spot(repository)?;
        let what = || format!("look up blob `{}` in `{}`", blob.digest, spot.place());
        spot.has_blob(blob, ACTIONS).await.map_err(|failure| failure.into_error(what()))
    }

    /// A mount from the repository itself is one request that finds a blob or begins its upload, where HEAD and POST would be two.
    async fn offer_blob(&self, repository: &Repository, blob: &Descriptor) -> Result<bool, Error> {
        let state = &self.state;
        if state.absent.load(Ordering::Relaxed)
            && self.host.found(Finding::OwnMount) == Some(true)
            && !self.mount_blob(repository, blob, repository).await?
        {
            return Ok(false);
        }
        // A mount tells no size, and a truncated blob is one to be written again.
        let there = self.has_blob(repository, blob).await?;
        state.absent.store(!there, Ordering::Relaxed);
        Ok(there)
    }

    async fn mount_blob(&self, repository: &Repository, blob: &Descriptor, from: &Repository) -> Result<bool, Error> {
        let spot = self.spot(repository)?;
        let from = self.full_name(from)?;
        let mut call = spot.call(Method::POST, "", ACTIONS);
        call.scope = call.scope.and_pull(from.as_str());
        call.what = Some(format!("mount blob `{}` from `{from}` in `{}`", blob.digest, spot.place()));
        call.to = Target::Path(format!("/v2/{}/blobs/uploads/?mount={}&from={from}", spot.repository, blob.digest));
        match self.client.send(&self.host, &call).await {
            Ok(answer) if answer.status().as_u16() == 201 => Ok(true),
            Ok(answer) => {
                // The registry opened a session instead: the write that follows uses it.
                if let Ok(session) = upload::session_of(&spot, &answer)
                    && let Some(surplus) = self.keep(&spot, blob, session)
                {
                    upload::cancel(&spot, &surplus).await;
                }
                Ok(false)
            }
            // Who may not read the other repository, or whose registry does not know mounting, uploads.
            Err(failure)
                if matches!(
                    failure.kind,
                    ErrorKind::Refused | ErrorKind::NotFound | ErrorKind::Denied | ErrorKind::Unauthorized
                ) =>
            {
                Ok(false)
            }
            Err(failure) => Err(failure.into_error(call.what(&self.host.name))),
        }
    }

    async fn write_blob(&self, repository: &Repository, blob: &Descriptor, content: &dyn Content) -> Result<(), Error> {
        let spot = self.spot(repository)?;
        let kept = self.take_session(&spot, blob);
        Upload::new(&spot, blob, content, kept).run().await?;
        if self.state.written.fetch_add(1, Ordering::Relaxed) + 1 == BLOBS_BEFORE_LEARNING {
            self.learn_own_mount(repository, blob).await;
        }
        Ok(())
    }

    async fn put_manifest(&self, repository: &Repository, manifest: &Manifest, tag: Option<&Tag>) -> Result<(), Error> {
        let spot = self.spot(repository)?;
        let digest = manifest.digest().to_string();
        let what = match tag {
            Some(tag) => format!("push manifest `{digest}` to `{}:{tag}`", spot.place()),
            None => format!("push manifest `{digest}` to `{}`", spot.place()),
        };
        // A push by tag is addressable by its SHA-256 digest too; any other algorithm must be asked for.
        let names: Vec<&str> = match tag {
            Some(tag) if manifest.is_sha256() => vec![tag.as_str()],
            Some(tag) => vec![&digest, tag.as_str()],
            None => vec![&digest],
        };
        let mut tracked = false;
        for at in names {
            let answer = self
                .put(&spot, at, manifest.media_type(), manifest.bytes())
                .await
                .map_err(|failure| self.explain(manifest, failure).into_error(what.clone()))?;
            tracked |= answer.header("oci-subject").is_some();
            if let Some(stored) = answer.header("docker-content-digest").and_then(|h| h.parse::<Digest>().ok())
                && stored.algorithm() == manifest.digest().algorithm()
                && stored != *manifest.digest()
            {
                let cause = format!("the registry stored it as `{stored}`: it does not keep manifests byte for byte");
                return Err(Error::new(ErrorKind::Content, what, cause)
                    .hint("a proxy or the registry rewrites manifests; switch that off, digests must not change"));
            }
        }
        if let Some(subject) = manifest.subject() {
            self.host.note(Finding::Referrers, tracked);
            if !tracked {
                self.update_fallback_tag(&spot, manifest, &subject.digest).await.map_err(|failure| {
                    failure.into_error(what).context(format!(
                        "enter `{digest}` at tag `{}` of `{}`",
                        subject.digest.fallback_tag(),
                        spot.place()
                    ))
                })?;
            }
        }
        Ok(())
    }

    async fn delete_manifest(&self, repository: &Repository, at: &ManifestName) -> Result<(), Error> {
        let spot = self.spot(repository)?;
        let what = match at {
            ManifestName::Tag(tag) => format!("delete tag `{}:{tag}`", spot.place()),
            ManifestName::Digest(digest) => format!("delete manifest `{}@{digest}`", spot.place()),
        };
        let call = spot.call(Method::DELETE, &format!("manifests/{at}"), "delete");
        let Err(mut failure) = self.client.send(&self.host, &call).await else { return Ok(()) };
        if failure.is_status(405) || failure.is_status(400) || failure.has_code("UNSUPPORTED") {
            failure.kind = ErrorKind::Refused;
            failure.hint = Some(match at {
                ManifestName::Tag(_) if !failure.is_status(405) => {
                    "this registry cannot delete a tag alone (docker distribution 2 cannot); delete the manifest by its digest".into()
                }
                _ => {
                    self.state.undeletable.store(1, Ordering::Relaxed);
                    "deletion is switched off at this registry; docker distribution: `storage.delete.enabled: true`".to_owned()
                }
            });
        }
        Err(failure.into_error(what))
    }
}

impl RegistrySink {
    /// Whether the registry has the referrers API, asked once.
    pub(crate) async fn has_referrers_api(&self, spot: &Spot) -> Result<Option<bool>, Failure> {
        if self.host.found(Finding::Referrers).is_none() {
            referrers::by_api(spot, &Digest::of(b"{}")).await?;
        }
        Ok(self.host.found(Finding::Referrers))
    }
}

impl std::fmt::Debug for RegistrySink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RegistrySink({})", self.describe())
    }
}
