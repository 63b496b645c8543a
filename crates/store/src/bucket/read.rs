//! What is read: manifests, blobs, tags.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use airlock_oci::sink::ManifestName;
use airlock_oci::{BlobStream, Digest, Error, ErrorKind, MAX_MANIFEST_BYTES, Manifest, Repository, Tag};
use bytes::Bytes;
use futures_util::TryStreamExt;
use object_store::path::Path;

use super::keys::{Link, digest_of};
use super::objects::{Condition, Meta, Objects};
use super::{Bucket, lock};

/// Most bytes that a link may have: a sha512 digest, and the newline that an editor may have added.
const MAX_LINK_BYTES: u64 = 256;
/// Fewest bytes that name a digest: `sha256:` and 64 hex digits.
const MIN_LINK_BYTES: u64 = 71;
/// Bytes of manifests kept in memory at most, and of one of them.
const MAX_KEPT_BYTES: usize = 4 * 1024 * 1024;
const MAX_KEPT_MANIFEST: usize = 256 * 1024;
/// How long the pages of a list of tags may come from one listing.
const LIST_AGE: Duration = Duration::from_secs(30);
/// Lists of tags kept at most, and tags in all of them together.
const MAX_LISTS: usize = 512;
const MAX_LISTED_TAGS: usize = 100_000;

/// A blob that is there.
#[derive(Clone, Debug)]
pub struct Blob {
    objects: Objects,
    key: Path,
    /// The digest under whose name the bytes lie.
    place: Digest,
    meta: Meta,
}

impl Blob {
    /// How many bytes it has.
    pub fn len(&self) -> u64 {
        self.meta.len
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.meta.len == 0
    }

    pub(super) fn modified(&self) -> SystemTime {
        self.meta.modified
    }

    pub(super) fn meta(&self) -> &Meta {
        &self.meta
    }

    pub(super) fn place(&self) -> &Digest {
        &self.place
    }

    /// Its bytes from `first` up to, not including, `end`. `what` names it in errors.
    pub fn stream(&self, first: u64, end: u64, what: impl Into<String>) -> BlobStream {
        self.objects.stream(&self.key, first, end.min(self.meta.len), what)
    }
}

/// What a tag's link is at the moment.
#[derive(Debug)]
pub(super) struct Current {
    /// What it points at; `None` when there is none, or it is being removed, or it is damaged beyond doubt.
    pub(super) digest: Option<Digest>,
    /// That it has not been changed since.
    pub(super) condition: Condition,
    /// It is being removed: what its remover wrote in its place.
    pub(super) tombstone: Option<Bytes>,
}

/// What a tombstone begins with; what follows tells one from another. Shorter than any digest.
pub(super) const TOMBSTONE: &str = "removed ";

impl Bucket {
    /// A link's digest: outer `None` when there is no link, inner `None` when it is damaged.
    pub(super) async fn link(&self, key: &Path) -> Result<Option<Option<Digest>>, Error> {
        match self.objects().get(key, MAX_LINK_BYTES).await {
            Ok(found) => Ok(found.map(|(bytes, _)| digest_in(&bytes))),
            Err(e) if e.kind() == ErrorKind::Invalid => Ok(Some(None)),
            Err(e) => Err(e),
        }
    }

    /// The digest under whose name the content lies, if the repository has a link to `digest`. See `distribution`.
    pub(super) async fn linked(
        &self,
        repository: &Repository,
        kind: Link,
        digest: &Digest,
    ) -> Result<Option<Digest>, Error> {
        let key = self.keys().link(repository, kind, digest);
        // A link as long as its folder's digest names one of the same algorithm, and then the folder is right anyhow.
        let own_length = digest.to_string().len() as u64;
        match self.objects().head(&key).await? {
            None => return Ok(None),
            Some(meta) if meta.len == own_length => return Ok(Some(digest.clone())),
            Some(_) => {}
        }
        Ok(self.link(&key).await?.map(|target| match target {
            Some(target) if target.algorithm() != digest.algorithm() => target,
            _ => digest.clone(),
        }))
    }

    /// A blob, if the repository has it. Not verified.
    pub async fn blob(&self, repository: &Repository, digest: &Digest) -> Result<Option<Blob>, Error> {
        // Both at once: nearly always both are there, or neither is.
        let (linked, here) = tokio::try_join!(self.linked(repository, Link::Layer, digest), self.blob_at(digest))?;
        match linked {
            None => Ok(None),
            Some(place) if place == *digest => Ok(here),
            Some(place) => self.blob_at(&place).await,
        }
    }

    /// What lies under a digest, whoever has it.
    pub(super) async fn blob_at(&self, place: &Digest) -> Result<Option<Blob>, Error> {
        let key = self.keys().data(place);
        let meta = self.objects().head(&key).await?;
        Ok(meta.map(|meta| Blob { objects: self.objects().clone(), key, place: place.clone(), meta }))
    }

    /// A manifest, verified against its digest; `None` when it is not there. A damaged one is [`ErrorKind::Content`].
    pub async fn manifest(&self, repository: &Repository, at: &ManifestName) -> Result<Option<Manifest>, Error> {
        let digest = match at {
            ManifestName::Digest(digest) => digest.clone(),
            ManifestName::Tag(tag) => match self.current(repository, tag).await?.digest {
                Some(digest) => digest,
                None => return Ok(None),
            },
        };
        let kept = lock(&self.0.manifests).get(&digest).cloned();
        if let Some(manifest) = kept {
            return Ok(self.linked(repository, Link::Revision, &digest).await?.map(|_| manifest));
        }
        let (linked, here) =
            tokio::try_join!(self.linked(repository, Link::Revision, &digest), self.manifest_bytes(&digest))?;
        let bytes = match linked {
            None => return Ok(None),
            Some(place) if place == digest => here,
            Some(place) => self.manifest_bytes(&place).await?,
        };
        let damaged = |cause: String| {
            Error::new(ErrorKind::Content, format!("read manifest `{repository}@{digest}`"), cause)
                .hint("its copy in the bucket is damaged; push or mirror the image again")
        };
        let bytes = match bytes {
            None => return Ok(None),
            Some(Err(cause)) => return Err(damaged(cause)),
            Some(Ok(bytes)) => bytes,
        };
        match Manifest::parse_expecting(bytes, None, &digest) {
            Ok(manifest) => {
                self.keep(&manifest);
                Ok(Some(manifest))
            }
            Err(e) if e.kind() == ErrorKind::Content => Err(damaged(e.to_string())),
            Err(e) => Err(e),
        }
    }

    /// The bytes under a digest, where they can be a manifest's; inner error: they cannot.
    pub(super) async fn manifest_bytes(&self, place: &Digest) -> Result<Option<Result<Bytes, String>>, Error> {
        match self.objects().get(&self.keys().data(place), MAX_MANIFEST_BYTES as u64).await {
            Ok(found) => Ok(found.map(|(bytes, _)| Ok(bytes))),
            Err(e) if e.kind() == ErrorKind::Invalid => Ok(Some(Err(e.cause().to_owned()))),
            Err(e) => Err(e),
        }
    }

    /// Keeps a verified manifest in memory.
    pub(super) fn keep(&self, manifest: &Manifest) {
        let len = manifest.bytes().len();
        if len <= MAX_KEPT_MANIFEST {
            lock(&self.0.manifests).insert(manifest.digest().clone(), manifest.clone(), len, MAX_KEPT_BYTES);
        }
    }

    /// What a tag points at. A damaged link is made good from the tag's history where that leaves no doubt.
    pub(super) async fn current(&self, repository: &Repository, tag: &Tag) -> Result<Current, Error> {
        let key = self.keys().current(repository, tag);
        let (bytes, version) = match self.objects().get(&key, MAX_LINK_BYTES).await {
            Ok(Some((bytes, meta))) => (bytes, meta.version),
            Ok(None) => return Ok(Current { digest: None, condition: Condition::Absent, tombstone: None }),
            // Too long to be a link.
            Err(e) if e.kind() == ErrorKind::Invalid => {
                (Bytes::new(), self.objects().head(&key).await?.and_then(|meta| meta.version))
            }
            Err(e) => return Err(e),
        };
        let condition = Condition::Version(version);
        if bytes.starts_with(TOMBSTONE.as_bytes()) {
            return Ok(Current { digest: None, condition, tombstone: Some(bytes) });
        }
        let mut digest = digest_in(&bytes);
        if digest.is_none() {
            let past: Vec<(Path, Meta)> =
                self.objects().list(&self.keys().history(repository, tag)).try_collect().await?;
            if let [(key, _)] = past.as_slice() {
                digest = digest_of(key);
            }
        }
        Ok(Current { digest, condition, tombstone: None })
    }

    /// At most so many tags of a repository that come after `after`, sorted; `None` when there is no such repository. A first page is
    /// always that of now; the following ones may be half a minute old.
    pub async fn tags_after(
        &self,
        repository: &Repository,
        after: &str,
        most: usize,
    ) -> Result<Option<Vec<Tag>>, Error> {
        let kept = lock(&self.0.lists).get(repository).cloned();
        let tags = match kept {
            Some((listed, tags)) if !after.is_empty() && listed.elapsed() < LIST_AGE => tags,
            _ => match self.list_tags(repository).await? {
                Some(tags) => tags,
                None => return Ok(None),
            },
        };
        let from = tags.partition_point(|tag| tag.as_str() <= after);
        Ok(Some(tags[from..].iter().take(most).cloned().collect()))
    }

    async fn list_tags(&self, repository: &Repository) -> Result<Option<Arc<Vec<Tag>>>, Error> {
        let below = self.keys().tags(repository);
        let start = below.as_ref().len() + 1;
        let listed = Instant::now();
        let mut tags = Vec::new();
        let mut found = self.objects().list(&below);
        while let Some((key, meta)) = found.try_next().await? {
            // A tag's folder also has its history. The length alone tells a whole link from an empty or short one.
            let Some((name, "current/link")) = key.as_ref().get(start..).and_then(|rest| rest.split_once('/')) else {
                continue;
            };
            let Ok(tag) = Tag::new(name) else { continue };
            if meta.len >= MIN_LINK_BYTES || self.current(repository, &tag).await?.digest.is_some() {
                tags.push(tag);
            }
        }
        // `a-b/...` comes before `a/...` in the bucket, and after it in a list of names.
        tags.sort_unstable();
        if tags.is_empty() && !self.has_repository(repository).await? {
            return Ok(None);
        }
        let tags = Arc::new(tags);
        let weight = tags.len() + MAX_LISTED_TAGS / MAX_LISTS;
        lock(&self.0.lists).insert(repository.clone(), (listed, tags.clone()), weight, MAX_LISTED_TAGS);
        Ok(Some(tags))
    }

    /// Has the next page of tags looked up anew: they were changed here.
    pub(super) fn tags_changed(&self, repository: &Repository) {
        lock(&self.0.lists).remove(repository);
    }

    /// Whether a repository has manifests, or had some: a bucket keeps no empty folders that would tell.
    async fn has_repository(&self, repository: &Repository) -> Result<bool, Error> {
        Ok(self.objects().has_any(&self.keys().links(repository, Link::Revision)).await?
            || self.objects().head(&self.keys().emptied(repository)).await?.is_some())
    }
}

fn digest_in(link: &[u8]) -> Option<Digest> {
    std::str::from_utf8(link).ok()?.trim().parse().ok()
}
