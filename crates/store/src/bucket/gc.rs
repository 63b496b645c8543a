//! Garbage collection while any number of processes serve: what no manifest names and no push relies on goes.
//!
//! Every manifest that a repository links to is a root, tagged or not, as on a disk. First all manifests are read and what they name is
//! marked; then what is unmarked and older than a day is condemned and removed in batches, in the order of steps that `claims.rs` tells. A
//! manifest that comes meanwhile names only blobs that were claimed less than half a day before, and a collection ends itself long before the
//! other half.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::{Duration, Instant, SystemTime};

use airlock_oci::{Digest, Error, ErrorKind, Repository};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, TryStreamExt};

use super::claims::{CONDEMNED_TIME, Condemned, LATE_TIME};
use super::keys::{Link, digest_of};
use super::lock::Held;
use super::objects::Meta;
use super::walk::Revision;
use super::{Bucket, PARALLEL};
use crate::distribution::Collected;

/// Blobs that are condemned at once.
const BATCH: usize = 256;
/// How long a collection may take.
const MOST_TIME: Duration = Duration::from_secs(6 * 60 * 60);

/// The time in which who has condemned blobs may remove them. By two clocks, since one of them may stand still while the machine sleeps: a
/// process that was stopped must not go on where it was, since nobody waits for it any more.
#[derive(Clone)]
pub(super) struct Term {
    place: String,
    begun: Instant,
    by_the_wall: SystemTime,
}

impl Term {
    fn begin(place: String) -> Self {
        Self { place, begun: Instant::now(), by_the_wall: SystemTime::now() }
    }

    fn elapsed(&self) -> Duration {
        self.begun.elapsed().max(self.by_the_wall.elapsed().unwrap_or_default())
    }

    fn too_slow(&self) -> Error {
        let what = format!("remove blobs from `{}`", self.place);
        Error::new(ErrorKind::Server, what, "the object store is too slow for it")
    }

    /// Whether there is time left.
    pub(super) fn check(&self) -> Result<(), Error> {
        if self.elapsed() < CONDEMNED_TIME { Ok(()) } else { Err(self.too_slow()) }
    }
}

/// Everything that must stay.
#[derive(Default)]
struct Marked {
    digests: HashSet<Digest>,
    manifests: u64,
    orphans: u64,
}

impl Bucket {
    /// Removes what nothing refers to; with `dry_run` only says what that would be. [`ErrorKind::Locked`] when a collection is under way,
    /// here or elsewhere, [`ErrorKind::Damaged`] when a manifest cannot be read: nobody knows what it names.
    pub async fn collect_garbage(&self, dry_run: bool) -> Result<Collected, Error> {
        let mut held = self.take_lock().await?;
        // What a process that died has left.
        let outcome = match self.objects().delete(&self.keys().condemned()).await {
            Ok(()) => self.mark_and_sweep(&mut held, dry_run).await,
            Err(e) => Err(e),
        };
        held.release().await;
        outcome
    }

    async fn mark_and_sweep(&self, held: &mut Held, dry_run: bool) -> Result<Collected, Error> {
        let (start, age) = (Instant::now(), self.0.collected_age);
        let now = self.store_time().await?;
        let repositories = self.all_repositories().await?;
        let mut marked = Marked::default();
        for repository in &repositories {
            self.mark_all_of(repository, &mut marked, held).await?;
        }
        let mut collected = Collected {
            dry_run,
            repositories: repositories.len() as u64,
            manifests: marked.manifests,
            orphans: marked.orphans,
            ..Collected::default()
        };
        let mut candidates: BTreeMap<Digest, u64> = BTreeMap::new();
        let mut found = self.objects().list(&self.keys().blobs());
        while let Some((key, meta)) = found.try_next().await? {
            held.renew().await?;
            let Some(digest) = digest_of(&key) else { continue };
            collected.files += 1;
            collected.bytes += meta.len;
            if marked.digests.contains(&digest) {
            } else if is_old(&meta, now, age) {
                candidates.insert(digest, meta.len);
            } else {
                collected.leased += 1;
            }
        }
        let links = self.links_to(&repositories, &candidates, held).await?;
        let digests: Vec<Digest> = candidates.keys().cloned().collect();
        for batch in digests.chunks(BATCH) {
            held.renew().await?;
            if start.elapsed() > MOST_TIME {
                let what = format!("collect garbage in `{}`", self.describe());
                return Err(Error::new(ErrorKind::Interrupted, what, "it took too long to be safe")
                    .hint("what was removed was garbage; run it again"));
            }
            let (removed, removed_links) = self.remove_batch(batch, &links, now, age, dry_run).await?;
            collected.leased += (batch.len() - removed.len()) as u64;
            collected.removed_files += removed.len() as u64;
            collected.removed_bytes += removed.iter().filter_map(|digest| candidates.get(digest)).sum::<u64>();
            collected.removed_links += removed_links;
        }
        if !dry_run {
            self.remove_old_leases(now, age).await?;
        }
        Ok(collected)
    }

    /// Marks what the manifests of one repository name.
    async fn mark_all_of(&self, repository: &Repository, marked: &mut Marked, held: &mut Held) -> Result<(), Error> {
        held.renew().await?;
        let revisions = self.revisions(repository).await?;
        let known: HashSet<&Digest> = revisions.iter().collect();
        let mut looked = futures_util::stream::iter(revisions.clone())
            .map(|digest| {
                let looked = async move {
                    let revision = self.look_behind(repository, &digest).await?;
                    Ok::<_, Error>((digest, revision))
                };
                looked.boxed()
            })
            .buffer_unordered(PARALLEL);
        while let Some((digest, revision)) = looked.try_next().await? {
            held.renew().await?;
            marked.manifests += 1;
            match revision {
                Revision::Whole(manifest, place) => {
                    marked.digests.insert(place);
                    for blob in manifest.blobs() {
                        let place = match blob.digest.algorithm() {
                            airlock_oci::Algorithm::Sha256 => None,
                            // docker-registry keeps it under another name.
                            _ => self.linked(repository, Link::Layer, &blob.digest).await?,
                        };
                        marked.digests.insert(place.unwrap_or_else(|| blob.digest.clone()));
                    }
                    if manifest.subject().is_some_and(|subject| !known.contains(&subject.digest)) {
                        marked.orphans += 1;
                    }
                }
                Revision::Foreign(digests, place) => {
                    marked.digests.insert(place);
                    marked.digests.extend(digests);
                }
                Revision::Missing | Revision::Deleted => {}
                Revision::Damaged => {
                    return Err(Error::new(
                        ErrorKind::Damaged,
                        format!("collect garbage in `{}`", self.describe()),
                        format!("the manifest `{repository}@{digest}` is damaged, so that nobody knows what it names"),
                    )
                    .hint("repair it (`airlock registry repair`), push the image again, or delete it"));
                }
            }
        }
        Ok(())
    }

    /// Which repositories link to what may be removed.
    async fn links_to(
        &self,
        repositories: &BTreeSet<Repository>,
        candidates: &BTreeMap<Digest, u64>,
        held: &mut Held,
    ) -> Result<BTreeMap<Digest, BTreeSet<Repository>>, Error> {
        let mut links: BTreeMap<Digest, BTreeSet<Repository>> = BTreeMap::new();
        if candidates.is_empty() {
            return Ok(links);
        }
        for repository in repositories {
            held.renew().await?;
            let mut found = self.objects().list(&self.keys().links(repository, Link::Layer));
            while let Some((key, _)) = found.try_next().await? {
                held.renew().await?;
                if let Some(digest) = digest_of(&key).filter(|digest| candidates.contains_key(digest)) {
                    links.entry(digest).or_default().insert(repository.clone());
                }
            }
        }
        Ok(links)
    }

    /// Condemns, looks again, removes. The digests that were removed, and how many links to them.
    async fn remove_batch(
        &self,
        batch: &[Digest],
        links: &BTreeMap<Digest, BTreeSet<Repository>>,
        now: SystemTime,
        age: Duration,
        dry_run: bool,
    ) -> Result<(Vec<Digest>, u64), Error> {
        if dry_run {
            let removed = self.still_old(batch, now, age).await?;
            let count = removed.iter().filter_map(|digest| links.get(digest)).map(|of| of.len() as u64).sum();
            return Ok((removed, count));
        }
        self.condemned(batch, |term| async move {
            let removed = self.still_old(batch, now, age).await?;
            // Links first: those to a blob that is gone would be found by no later collection.
            term.check()?;
            let count = self.remove_links(&removed, links).await?;
            term.check()?;
            let data = removed.iter().map(|digest| self.keys().data(digest)).collect();
            self.objects().delete_all(data).await?;
            Ok((removed, count))
        })
        .await
    }

    /// Tells everybody that these blobs may go, does the work that removes them, and says that it is done. To be called by who
    /// [holds the lock](Bucket::take_lock). The work asks before each removal whether there is time left.
    pub(super) async fn condemned<T, F>(&self, digests: &[Digest], work: impl FnOnce(Term) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let list = serde_json::to_vec(&Condemned { digests: digests.to_vec() })
            .map_err(|e| Error::new(ErrorKind::Invalid, "write down what is condemned", e))?;
        // From before the list can be seen.
        let term = Term::begin(self.describe());
        self.objects().put(&self.keys().condemned(), Bytes::from(list)).await?;
        let outcome = tokio::time::timeout(CONDEMNED_TIME.saturating_sub(term.elapsed()), work(term.clone())).await;
        if !matches!(outcome, Ok(Ok(_))) {
            // A removal may still be on its way: whoever waits for the verdict waits for that too.
            tokio::time::sleep(LATE_TIME).await;
        }
        self.objects().delete(&self.keys().condemned()).await?;
        outcome.unwrap_or_else(|_| Err(term.too_slow()))
    }

    /// Those that are neither young nor have a young lease.
    async fn still_old(&self, batch: &[Digest], now: SystemTime, age: Duration) -> Result<Vec<Digest>, Error> {
        futures_util::stream::iter(batch.to_vec())
            .map(|digest| {
                let judged = async move {
                    let (data, lease) = (self.keys().data(&digest), self.keys().lease(&digest));
                    let (data, lease) = tokio::try_join!(self.objects().head(&data), self.objects().head(&lease))?;
                    let is_old = |meta: Option<Meta>| meta.is_none_or(|meta| is_old(&meta, now, age));
                    Ok::<_, Error>((data.is_some() && is_old(data) && is_old(lease)).then_some(digest))
                };
                judged.boxed()
            })
            .buffered(PARALLEL)
            .try_filter_map(|digest| async move { Ok(digest) })
            .try_collect()
            .await
    }

    async fn remove_old_leases(&self, now: SystemTime, age: Duration) -> Result<(), Error> {
        let mut old = Vec::new();
        let mut found = self.objects().list(&self.keys().leases());
        while let Some((key, meta)) = found.try_next().await? {
            if is_old(&meta, now, age) {
                old.push(key);
            }
        }
        self.objects().delete_all(old).await
    }
}

fn is_old(meta: &Meta, now: SystemTime, age: Duration) -> bool {
    now.duration_since(meta.modified).is_ok_and(|found| found >= age)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_term_ends_by_whichever_clock_is_ahead() {
        let ago = CONDEMNED_TIME + Duration::from_secs(1);
        let term = || Term::begin("here".into());
        term().check().unwrap();
        // The machine slept: only the clock on the wall went on. Or somebody set that one back: only the other tells.
        let slept = Term { by_the_wall: SystemTime::now() - ago, ..term() };
        let set_back =
            Term { begun: Instant::now().checked_sub(ago).unwrap(), by_the_wall: SystemTime::now() + ago, ..term() };
        for over in [slept, set_back] {
            assert_eq!(over.check().unwrap_err().kind(), ErrorKind::Server);
        }
    }

    #[test]
    fn what_is_from_the_future_is_not_old() {
        let (now, age) = (SystemTime::now(), Duration::from_secs(60));
        let written = |modified| Meta { len: 0, modified, version: None };
        assert!(is_old(&written(now - age), now, age));
        assert!(!is_old(&written(now - age + Duration::from_secs(1)), now, age));
        assert!(!is_old(&written(now + age), now, age));
    }
}
