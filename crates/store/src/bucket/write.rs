//! What is written: links, manifests, tags; and what is taken away again.
//!
//! The order is blobs, then the manifest's bytes, then its link, then tags; each is acknowledged by the store before the next. Deletion
//! goes the other way round. Two processes that set and delete the same tag at the same time may leave its history behind, never a tag
//! that points at less than a whole manifest's link.

use std::collections::{BTreeMap, BTreeSet};

use airlock_oci::{Digest, Error, ErrorKind, Manifest, Repository, Tag};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, TryStreamExt};
use object_store::path::Path;

use super::keys::{Link, digest_of};
use super::objects::Condition;
use super::{Bucket, PARALLEL};
use crate::distribution::Expected;

/// How often something is written again that a garbage collection took away meanwhile.
const REWRITES: usize = 3;

fn text_of(digest: &Digest) -> Bytes {
    Bytes::from(digest.to_string())
}

impl Bucket {
    /// Writes content and its link, in this order, and again if a garbage collection that had begun before took one of them away.
    /// `content` writes the bytes under the digest.
    pub(super) async fn publish<F>(
        &self,
        repository: &Repository,
        kind: Link,
        digest: &Digest,
        content: impl Fn() -> F,
    ) -> Result<(), Error>
    where
        F: Future<Output = Result<(), Error>>,
    {
        let link = self.keys().link(repository, kind, digest);
        for _ in 0..REWRITES {
            content().await?;
            self.objects().put(&link, text_of(digest)).await?;
            if !self.await_verdict(digest).await? {
                return Ok(());
            }
            let (linked, there) = tokio::try_join!(self.objects().head(&link), self.blob_at(digest))?;
            if linked.is_some() && there.is_some() {
                return Ok(());
            }
        }
        Err(Error::new(
            ErrorKind::Server,
            format!("keep `{digest}` in `{}`", self.describe()),
            "garbage collections take it away again and again",
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
        let mut conditions = Vec::new();
        for tag in tags {
            let condition = if *expected == Expected::Anything {
                None
            } else {
                let current = self.current(repository, tag).await?;
                if !expected.holds(current.as_ref().map(|(digest, _)| digest)) {
                    return Ok(false);
                }
                Some(current.map_or(Condition::Absent, |(_, version)| Condition::Version(version)))
            };
            conditions.push((tag, condition));
        }
        let digest = manifest.digest();
        let data = self.keys().data(digest);
        self.publish(repository, Link::Revision, digest, || async {
            self.objects().put(&data, manifest.bytes().clone()).await.map(|_| ())
        })
        .await?;
        self.keep(manifest);
        let histories = futures_util::stream::iter(tags.to_vec())
            .map(|tag| {
                let key = self.keys().past(repository, &tag, digest);
                async move { self.objects().put(&key, text_of(digest)).await }.boxed()
            })
            .buffer_unordered(PARALLEL)
            .try_collect::<Vec<_>>();
        tokio::try_join!(self.mark(repository), histories)?;
        let mut all = true;
        for (tag, condition) in conditions {
            let current = self.keys().current(repository, tag);
            match condition {
                None => drop(self.objects().put(&current, text_of(digest)).await?),
                Some(condition) => {
                    let set = self.objects().put_if(&current, text_of(digest), condition).await?.is_some();
                    // The answer to an earlier attempt may have been lost.
                    all &= set || self.current(repository, tag).await?.is_some_and(|(now, _)| now == *digest);
                }
            }
        }
        self.tags_changed(repository);
        Ok(all)
    }

    /// Removes a tag and leaves its manifest. `false` when there was none.
    pub async fn delete_tag(&self, repository: &Repository, tag: &Tag) -> Result<bool, Error> {
        let there = self.objects().head(&self.keys().current(repository, tag)).await?.is_some();
        // The name goes first, then its history.
        self.objects().delete(&self.keys().current(repository, tag)).await?;
        let history: Vec<Path> =
            self.objects().list(&self.keys().history(repository, tag)).map_ok(|(key, _)| key).try_collect().await?;
        self.objects().delete_all(history).await?;
        self.tags_changed(repository);
        Ok(there)
    }

    /// Removes a manifest from a repository, with every tag that points at it. Its blobs stay. `false` when there was none.
    pub async fn delete_manifest(&self, repository: &Repository, digest: &Digest) -> Result<bool, Error> {
        let link = self.keys().link(repository, Link::Revision, digest);
        let there = self.objects().head(&link).await?.is_some();
        let tags = self.tags_that_may_be(repository, digest).await?;
        let pointing: Vec<(Tag, Vec<Path>)> = futures_util::stream::iter(tags)
            .map(|(tag, history)| {
                let judged = async move {
                    let current = self.current(repository, &tag).await?;
                    Ok::<_, Error>(current.is_some_and(|(now, _)| now == *digest).then_some((tag, history)))
                };
                judged.boxed()
            })
            .buffer_unordered(PARALLEL)
            .try_filter_map(|tag| async move { Ok(tag) })
            .try_collect()
            .await?;
        // The names go first, then their histories.
        let (names, histories): (Vec<Path>, Vec<Vec<Path>>) =
            pointing.into_iter().map(|(tag, history)| (self.keys().current(repository, &tag), history)).unzip();
        self.objects().delete_all(names).await?;
        self.objects().delete(&link).await?;
        self.objects().delete_all(histories.into_iter().flatten().collect()).await?;
        self.tags_changed(repository);
        if there {
            self.unmark_if_empty(repository).await?;
        }
        Ok(there)
    }

    /// The tags that may point at a manifest: those with it in their history, and those that have none. Reading ten thousand links would
    /// take minutes; listing them takes some requests. With each its history.
    async fn tags_that_may_be(&self, repository: &Repository, digest: &Digest) -> Result<Vec<(Tag, Vec<Path>)>, Error> {
        #[derive(Default)]
        struct Seen {
            current: bool,
            this: bool,
            past: Vec<Path>,
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
            } else {
                seen.this |= digest_of(&key).as_ref() == Some(digest);
                seen.past.push(key);
            }
        }
        let may_be = tags.into_iter().filter(|(_, seen)| seen.current && (seen.this || seen.past.is_empty()));
        Ok(may_be.filter_map(|(name, seen)| Some((Tag::new(&name).ok()?, seen.past))).collect())
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
