//! What is written: links, manifests, tags; and what is taken away again.
//!
//! The order is blobs, then the manifest's bytes, then its link, then tags; each is acknowledged by the store before the next. Deletion
//! goes the other way round.
//!
//! A tag is only ever replaced as it was last seen. S3 has no such condition for removals, so that a tag is replaced by a *tombstone* first,
//! which counts as no tag, and which nobody of us replaces while its remover works; then its history goes, then the tombstone. (Who sets a
//! tag with docker-registry in that moment may lose it: that knows no tombstones.)

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use airlock_oci::{Digest, Error, ErrorKind, Manifest, Repository, Tag};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, TryStreamExt};
use object_store::path::Path;

use super::keys::{Link, digest_of};
use super::objects::Condition;
use super::read::TOMBSTONE;
use super::{Bucket, PARALLEL};
use crate::distribution::{Expected, UploadId};

/// How often something is written again that a garbage collection took away meanwhile.
const REWRITES: usize = 3;
/// How often a tag is written again that somebody else moved meanwhile.
const MOVES: usize = 20;
/// How long a removal of a tag is waited for; its remover stops well before.
const REMOVAL_STALE: Duration = Duration::from_secs(20);
/// How often it is looked at.
const REMOVAL_PAUSE: Duration = Duration::from_millis(50);
/// Tags that are removed together; few enough to be gone in a moment.
const BURIED_AT_ONCE: usize = 64;

/// A tag with a tombstone in its place.
struct Buried {
    tag: Tag,
    tombstone: Bytes,
    /// From before it was written.
    since: Instant,
}

fn text_of(digest: &Digest) -> Bytes {
    Bytes::from(digest.to_string())
}

impl Bucket {
    /// Writes content and its link, in this order, and again if a garbage collection that had begun before took one of them away.
    /// `content` writes the bytes under the digest; `len` is how many there are.
    pub(super) async fn publish<F>(
        &self,
        repository: &Repository,
        kind: Link,
        digest: &Digest,
        len: u64,
        content: impl Fn() -> F,
    ) -> Result<(), Error>
    where
        F: Future<Output = Result<(), Error>>,
    {
        let link = self.keys().link(repository, kind, digest);
        for _ in 0..REWRITES {
            content().await?;
            self.objects().put(&link, text_of(digest)).await?;
            self.await_verdict(digest).await?;
            // Always: a collection may have taken the content between the two writes, and be over by now. The length tells a copy of which
            // the store said too early that it was made.
            let (linked, there) = tokio::try_join!(self.objects().head(&link), self.blob_at(digest))?;
            if linked.is_some() && there.is_some_and(|blob| blob.len() == len) {
                return Ok(());
            }
        }
        Err(Error::new(
            ErrorKind::Server,
            format!("keep `{digest}` in `{}`", self.describe()),
            "what was written is not there; perhaps garbage is being collected",
        ))
    }

    /// Makes a blob of another repository (`None`: of any) available in this one. `false` when it is not there.
    pub async fn mount_blob(
        &self,
        repository: &Repository,
        digest: &Digest,
        from: Option<&Repository>,
    ) -> Result<bool, Error> {
        for _ in 0..REWRITES {
            if self.claim_blob(repository, digest).await?.is_some() {
                return Ok(true);
            }
            let there = match from {
                Some(from) => self.blob(from, digest).await?,
                None => self.blob_at(digest).await?,
            };
            let Some(blob) = there else { return Ok(false) };
            // Written first: the collector looks at links to what it removes.
            self.objects().put(&self.keys().link(repository, Link::Layer, digest), text_of(blob.place())).await?;
            if self.rely_on(&blob).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Writes a manifest and points tags at it, where every one of the tags is as expected; otherwise the answer is `false`, and none of
    /// them is set that was not as expected.
    pub async fn put_manifest_if(
        &self,
        repository: &Repository,
        manifest: &Manifest,
        tags: &[Tag],
        expected: &Expected,
    ) -> Result<bool, Error> {
        if *expected != Expected::Anything {
            for tag in tags {
                if !expected.holds(self.current(repository, tag).await?.digest.as_ref()) {
                    return Ok(false);
                }
            }
        }
        let digest = manifest.digest();
        self.write_manifest(repository, manifest, tags).await?;
        self.keep(manifest);
        let (mut set, mut lost) = (Vec::new(), Vec::new());
        for tag in tags {
            if self.set_tag(repository, tag, digest, expected).await? {
                set.push(tag.clone());
            } else {
                lost.push(self.keys().past(repository, tag, digest));
            }
        }
        let all = lost.is_empty();
        // The tag never pointed here. (The manifest stays: somebody else may have pushed it meanwhile.)
        self.objects().delete_all(lost).await?;
        if all || !set.is_empty() {
            self.see_that_it_stays(repository, manifest, &set).await?;
        }
        self.tags_changed(repository);
        Ok(all)
    }

    /// Writes a manifest, its link, its repository's marker, and its place in the histories of tags.
    async fn write_manifest(&self, repository: &Repository, manifest: &Manifest, tags: &[Tag]) -> Result<(), Error> {
        let digest = manifest.digest();
        let (data, bytes) = (self.keys().data(digest), manifest.bytes());
        self.publish(repository, Link::Revision, digest, bytes.len() as u64, || async {
            self.objects().put(&data, bytes.clone()).await.map(|_| ())
        })
        .await?;
        let histories = futures_util::stream::iter(tags.to_vec())
            .map(|tag| {
                let key = self.keys().past(repository, &tag, digest);
                async move { self.objects().put(&key, text_of(digest)).await }.boxed()
            })
            .buffer_unordered(PARALLEL)
            .try_collect::<Vec<_>>();
        tokio::try_join!(self.mark(repository), histories)?;
        Ok(())
    }

    /// Looks once more at what was written: who deletes the manifest at the same time removes its tags, then its link, then tags that
    /// were set meanwhile. What is still there now is either left alone or removed as a whole.
    async fn see_that_it_stays(&self, repository: &Repository, manifest: &Manifest, tags: &[Tag]) -> Result<(), Error> {
        let digest = manifest.digest();
        for _ in 0..REWRITES {
            let mut keys = vec![self.keys().link(repository, Link::Revision, digest)];
            keys.extend(tags.iter().map(|tag| self.keys().past(repository, tag, digest)));
            let there: Vec<bool> = futures_util::stream::iter(keys)
                .map(|key| async move { Ok::<_, Error>(self.objects().head(&key).await?.is_some()) }.boxed())
                .buffer_unordered(PARALLEL)
                .try_collect()
                .await?;
            if there.into_iter().all(|there| there) {
                return Ok(());
            }
            self.write_manifest(repository, manifest, tags).await?;
            for tag in tags {
                // Whoever moved it meanwhile came later.
                self.set_tag(repository, tag, digest, &Expected::Absent).await?;
            }
        }
        Err(Error::new(
            ErrorKind::Server,
            format!("keep `{repository}@{digest}` in `{}`", self.describe()),
            "it is deleted again and again",
        ))
    }

    /// Points a tag at a manifest, where it is as expected. Names what it replaces, so that neither it nor whoever removes the tag at the
    /// same time undoes what came in between; waits for a removal that has begun.
    async fn set_tag(
        &self,
        repository: &Repository,
        tag: &Tag,
        digest: &Digest,
        expected: &Expected,
    ) -> Result<bool, Error> {
        let key = self.keys().current(repository, tag);
        // A removal under way, and since when we see it.
        let mut removal: Option<(Bytes, Instant)> = None;
        let mut attempts = 0;
        loop {
            let current = self.current(repository, tag).await?;
            if attempts > 0 && current.digest.as_ref() == Some(digest) {
                // Our own doing whose answer was lost, or somebody else's of the same effect.
                return Ok(true);
            }
            if !expected.holds(current.digest.as_ref()) {
                return Ok(false);
            }
            if let Some(tombstone) = current.tombstone {
                let since = match &removal {
                    Some((seen, since)) if *seen == tombstone => *since,
                    _ => removal.insert((tombstone, Instant::now())).1,
                };
                // Else its remover has died, or knows that it may not go on.
                if since.elapsed() < REMOVAL_STALE {
                    tokio::time::sleep(REMOVAL_PAUSE).await;
                    continue;
                }
            }
            if self.objects().put_if(&key, text_of(digest), current.condition).await?.is_some() {
                return Ok(true);
            }
            attempts += 1;
            if attempts >= MOVES {
                return Err(Error::new(
                    ErrorKind::Server,
                    format!("set `{repository}:{tag}` in `{}`", self.describe()),
                    "others set the same tag again and again",
                ));
            }
        }
    }

    /// Removes a tag and leaves its manifest. `false` when there was none.
    pub async fn delete_tag(&self, repository: &Repository, tag: &Tag) -> Result<bool, Error> {
        let there = match self.bury(repository, tag, None).await? {
            Some(buried) => {
                self.remove_buried(repository, vec![buried]).await?;
                true
            }
            None => false,
        };
        self.tags_changed(repository);
        Ok(there)
    }

    /// Removes a manifest from a repository, with every tag that points at it. Its blobs stay. `false` when there was none.
    pub async fn delete_manifest(&self, repository: &Repository, digest: &Digest) -> Result<bool, Error> {
        let link = self.keys().link(repository, Link::Revision, digest);
        let there = self.objects().head(&link).await?.is_some();
        // The names go first.
        self.remove_tags_of(repository, digest).await?;
        self.objects().delete(&link).await?;
        // Those that were set meanwhile; unless the manifest is there again: then whoever set them has seen what happened here.
        if self.objects().head(&link).await?.is_none() {
            self.remove_tags_of(repository, digest).await?;
        }
        self.tags_changed(repository);
        if there {
            self.unmark_if_empty(repository).await?;
        }
        Ok(there)
    }

    /// Removes every tag that points at a manifest.
    async fn remove_tags_of(&self, repository: &Repository, digest: &Digest) -> Result<(), Error> {
        let tags = self.tags_that_may_be(repository, digest).await?;
        for some in tags.chunks(BURIED_AT_ONCE) {
            let buried: Vec<Buried> = futures_util::stream::iter(some.to_vec())
                .map(|tag| async move { self.bury(repository, &tag, Some(digest)).await }.boxed())
                .buffer_unordered(PARALLEL)
                .try_filter_map(|buried| async move { Ok(buried) })
                .try_collect()
                .await?;
            self.remove_buried(repository, buried).await?;
        }
        Ok(())
    }

    /// Writes a tombstone in the place of a tag, if it points at `only`: from now on nobody reads it, and who sets it waits. `None` when
    /// there is no such tag.
    async fn bury(&self, repository: &Repository, tag: &Tag, only: Option<&Digest>) -> Result<Option<Buried>, Error> {
        let key = self.keys().current(repository, tag);
        let tombstone = Bytes::from(format!("{TOMBSTONE}{}", UploadId::random()?));
        for _ in 0..MOVES {
            let since = Instant::now();
            let buried = || Buried { tag: tag.clone(), tombstone: tombstone.clone(), since };
            let current = self.current(repository, tag).await?;
            match current.tombstone {
                // The answer was lost.
                Some(there) if there == tombstone => return Ok(Some(buried())),
                Some(_) => return Ok(None),
                None => {}
            }
            let is_gone = matches!(current.condition, Condition::Absent);
            if is_gone || only.is_some_and(|only| current.digest.as_ref() != Some(only)) {
                return Ok(None);
            }
            if self.objects().put_if(&key, tombstone.clone(), current.condition).await?.is_some() {
                return Ok(Some(buried()));
            }
        }
        Err(Error::new(
            ErrorKind::Server,
            format!("remove `{repository}:{tag}` in `{}`", self.describe()),
            "others set the same tag again and again",
        ))
    }

    /// Removes tags with their histories, and then their tombstones.
    async fn remove_buried(&self, repository: &Repository, buried: Vec<Buried>) -> Result<(), Error> {
        let histories: Vec<Path> = buried.iter().map(|of| self.keys().history(repository, &of.tag)).collect();
        let histories: Vec<Vec<Path>> = futures_util::stream::iter(histories)
            .map(|history| {
                let past = async move { self.objects().list(&history).map_ok(|(key, _)| key).try_collect().await };
                past.boxed()
            })
            .buffer_unordered(PARALLEL)
            .try_collect()
            .await?;
        let histories = histories.into_iter().flatten().collect();
        self.objects().delete_all(histories).await?;
        let mut names = Vec::new();
        for Buried { tag, tombstone, since } in buried {
            // Somebody who waited for too long may have set it.
            let may_be_set = since.elapsed() > REMOVAL_STALE / 2;
            if !may_be_set || self.current(repository, &tag).await?.tombstone == Some(tombstone) {
                names.push(self.keys().current(repository, &tag));
            }
        }
        self.objects().delete_all(names).await
    }

    /// The tags that may point at a manifest: those with it in their history, and those that have none. Reading ten thousand links would
    /// take minutes; listing them takes some requests.
    async fn tags_that_may_be(&self, repository: &Repository, digest: &Digest) -> Result<Vec<Tag>, Error> {
        #[derive(Default)]
        struct Seen {
            current: bool,
            this: bool,
            others: bool,
        }
        let below = self.keys().tags(repository);
        let start = below.as_ref().len() + 1;
        let mut tags: BTreeMap<String, Seen> = BTreeMap::new();
        let mut found = self.objects().list(&below);
        while let Some((key, _)) = found.try_next().await? {
            let Some((name, rest)) = key.as_ref().get(start..).and_then(|rest| rest.split_once('/')) else { continue };
            let seen = tags.entry(name.to_owned()).or_default();
            if rest == "current/link" {
                seen.current = true;
            } else if digest_of(&key).as_ref() == Some(digest) {
                seen.this = true;
            } else {
                seen.others = true;
            }
        }
        let may_be = tags.into_iter().filter(|(_, seen)| seen.current && (seen.this || !seen.others));
        Ok(may_be.filter_map(|(name, _)| Tag::new(&name).ok()).collect())
    }

    /// Removes a blob from a repository; its bytes stay in the storage. `false` when it was not there.
    pub async fn delete_blob(&self, repository: &Repository, digest: &Digest) -> Result<bool, Error> {
        let link = self.keys().link(repository, Link::Layer, digest);
        let there = self.objects().head(&link).await?.is_some();
        if there {
            self.objects().delete(&link).await?;
        }
        Ok(there)
    }

    /// Removes the links to blobs that were removed. `links`: the repositories that have them.
    pub(super) async fn remove_links(
        &self,
        removed: &[Digest],
        links: &BTreeMap<Digest, BTreeSet<Repository>>,
    ) -> Result<u64, Error> {
        let mut keys = Vec::new();
        for digest in removed {
            for repository in links.get(digest).into_iter().flatten() {
                keys.push(self.keys().link(repository, Link::Layer, digest));
            }
        }
        let count = keys.len() as u64;
        self.objects().delete_all(keys).await?;
        Ok(count)
    }
}
