//! Scrubbing: every byte of every blob is read and compared with its name, and everything that manifests name is looked for.
//!
//! An object whose bytes do not have its digest is put aside (`.airlock/quarantine`): it is then absent, clients hear so, and a push or a
//! repair brings it back. It is removed in the way in which garbage goes (`claims.rs`), so that a push which writes a whole one in its place
//! at the same moment sees that and writes again. What came altered is read once more before that: an error on the way must not cost the copy
//! that is whole.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use airlock_oci::{Descriptor, Digest, Error, ErrorKind, Hasher, Repository};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, TryStreamExt};

use super::keys::{Link, digest_of};
use super::objects::Meta;
use super::read::Blob;
use super::walk::Revision;
use super::{Bucket, PARALLEL};
use crate::distribution::{Damage, Fault, MAX_RECORD_BYTES, Needs, Scrubbed, recorded, recorded_repair, verified};
use crate::storage::Verified;

/// Blobs that are read at once: enough to hide the way to the store, and one piece of each is in memory.
const READ_AT_ONCE: usize = 4;
/// How often a blob is read that is altered, and that is written again each time before it can be put aside.
const READINGS: usize = 4;
/// Blobs that the store has and does not give, after which it is the store that is broken.
const MAX_UNREADABLE: usize = 32;
/// How long a garbage collection is waited for before something is put aside, and how often it is looked for.
const LOCK_TIME: Duration = Duration::from_secs(10 * 60);
const LOCK_PAUSE: Duration = Duration::from_secs(2);

/// Keeps reading below a rate, so that scrubbing leaves the way to the store to those who pull.
struct Pace {
    bytes_per_second: Option<u64>,
    start: Instant,
    bytes: AtomicU64,
}

impl Pace {
    async fn wait(&self, bytes: usize) {
        let bytes = self.bytes.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
        if let Some(rate) = self.bytes_per_second.filter(|rate| *rate > 0) {
            let due = Duration::from_secs_f64(bytes as f64 / rate as f64);
            tokio::time::sleep(due.saturating_sub(self.start.elapsed())).await;
        }
    }
}

/// A blob that was read.
struct Judged {
    digest: Digest,
    len: u64,
    fault: Option<Fault>,
}

/// What lists tell, so that not every blob of every manifest must be asked for.
struct Listed<'a> {
    /// What reading every byte has found.
    found: &'a BTreeMap<Digest, Fault>,
    /// The length of every blob.
    lengths: HashMap<Digest, u64>,
    /// The blobs that one repository links to.
    links: HashSet<Digest>,
}

impl Listed<'_> {
    /// Whether the store has it and does not give it, which no list tells.
    fn is_unreadable(&self, digest: &Digest) -> bool {
        self.found.get(digest) == Some(&Fault::Unreadable)
    }
}

impl Bucket {
    /// Reads everything. At most so many bytes a second. May be done by any process, while any number of them serve.
    pub async fn scrub(&self, bytes_per_second: Option<u64>) -> Result<Scrubbed, Error> {
        let pace = &Pace { bytes_per_second, start: Instant::now(), bytes: AtomicU64::new(0) };
        let mut scrubbed = Scrubbed::default();
        let mut found = BTreeMap::new();
        let mut judged = self
            .objects()
            .list(&self.keys().blobs())
            .try_filter_map(|(key, _)| std::future::ready(Ok(digest_of(&key))))
            .map_ok(|digest| self.judge(digest, pace).boxed())
            .try_buffer_unordered(READ_AT_ONCE);
        let mut unreadable = 0;
        while let Some(blob) = judged.try_next().await? {
            let Some(blob) = blob else { continue };
            scrubbed.files += 1;
            scrubbed.bytes += blob.len;
            unreadable += usize::from(blob.fault == Some(Fault::Unreadable));
            if unreadable > MAX_UNREADABLE {
                let what = format!("scrub `{}`", self.describe());
                let cause = format!("the object store does not give `{}` and {MAX_UNREADABLE} others", blob.digest);
                return Err(Error::new(ErrorKind::Server, what, cause).hint("see what is wrong with the object store"));
            }
            found.extend(blob.fault.map(|fault| (blob.digest, fault)));
        }
        drop(judged);
        let needs = self.needs(&found).await?;
        scrubbed.manifests = needs.manifests;
        scrubbed.damage = needs.damage(&found);
        self.note(recorded(&scrubbed)).await;
        Ok(scrubbed)
    }

    /// Reads a blob; if it is altered it is out of the way. `None` when it is not there any more.
    async fn judge(&self, digest: Digest, pace: &Pace) -> Result<Option<Judged>, Error> {
        let mut altered: Option<Meta> = None;
        for _ in 0..READINGS {
            let Some(blob) = self.blob_at(&digest).await? else { break };
            let judged = |fault| Ok(Some(Judged { digest: digest.clone(), len: blob.len(), fault }));
            match self.hash(&blob, pace).await {
                Ok(there) if there == digest => return judged(None),
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::NotFound => continue,
                Err(e) => {
                    // Only where everything else can be read.
                    self.probe().await.map_err(|_| e)?;
                    tracing::error!(%digest, "the object store has a blob and does not give it");
                    return judged(Some(Fault::Unreadable));
                }
            }
            if altered.as_ref() == Some(blob.meta()) && self.put_aside(&blob).await? {
                tracing::error!(%digest, "a blob is damaged and was put into quarantine");
                return judged(Some(Fault::Altered));
            }
            altered = Some(blob.meta().clone());
        }
        let judged = |meta: Meta| Judged { digest, len: meta.len, fault: Some(Fault::Altered) };
        Ok(altered.map(judged))
    }

    async fn hash(&self, blob: &Blob, pace: &Pace) -> Result<Digest, Error> {
        let mut hasher = Hasher::new(blob.place().algorithm());
        let mut body = blob.stream(0, blob.len(), "scrub a blob");
        while let Some(bytes) = body.try_next().await? {
            hasher.update(&bytes);
            pace.wait(bytes.len()).await;
        }
        Ok(hasher.finish())
    }

    /// Puts a blob into quarantine. `false` when another one is there by now.
    async fn put_aside(&self, blob: &Blob) -> Result<bool, Error> {
        let digest = blob.place();
        let (key, aside) = (self.keys().data(digest), self.keys().quarantine(digest));
        self.move_to(&key, &aside, blob.len()).await?;
        let start = Instant::now();
        let held = loop {
            match self.take_lock().await {
                Err(e) if e.kind() == ErrorKind::Locked && start.elapsed() < LOCK_TIME => {
                    tokio::time::sleep(LOCK_PAUSE).await;
                }
                taken => break taken?,
            }
        };
        let removed = async {
            // What a process that died has left.
            self.objects().delete(&self.keys().condemned()).await?;
            let key = &key;
            self.condemned(std::slice::from_ref(digest), |term| async move {
                let is_same = self.objects().head(key).await?.as_ref() == Some(blob.meta());
                if is_same {
                    term.check()?;
                    self.objects().delete(key).await?;
                }
                Ok(is_same)
            })
            .await
        }
        .await;
        held.release().await;
        if !matches!(removed, Ok(true)) {
            self.objects().delete(&aside).await?;
        }
        removed
    }

    /// Looks for everything that manifests name. `found`: what reading every byte has found.
    pub(super) async fn needs(&self, found: &BTreeMap<Digest, Fault>) -> Result<Needs, Error> {
        let mut listed = Listed { found, lengths: HashMap::new(), links: HashSet::new() };
        let mut blobs = self.objects().list(&self.keys().blobs());
        while let Some((key, meta)) = blobs.try_next().await? {
            listed.lengths.extend(digest_of(&key).map(|digest| (digest, meta.len)));
        }
        let mut needs = Needs::default();
        for repository in self.all_repositories().await? {
            let revisions = self.revisions(&repository).await?;
            if revisions.is_empty() {
                continue;
            }
            listed.links = self
                .objects()
                .list(&self.keys().links(&repository, Link::Layer))
                .try_filter_map(|(key, _)| async move { Ok(digest_of(&key)) })
                .try_collect()
                .await?;
            let (repository, listed) = (&repository, &listed);
            let mut looked = futures_util::stream::iter(revisions)
                .map(|digest| {
                    let looked = async move {
                        let faults = self.faults_of(repository, &digest, listed).await?;
                        Ok::<_, Error>((digest, faults))
                    };
                    looked.boxed()
                })
                .buffer_unordered(PARALLEL);
            while let Some((image, faults)) = looked.try_next().await? {
                let Some(faults) = faults else { continue };
                needs.manifests += 1;
                for (digest, fault) in faults {
                    needs.add(digest, fault, (repository.clone(), image.clone()));
                }
            }
        }
        Ok(needs)
    }

    /// What a manifest needs and is not as it should be; `None` when the manifest was deleted since it was listed.
    async fn faults_of(
        &self,
        repository: &Repository,
        digest: &Digest,
        listed: &Listed<'_>,
    ) -> Result<Option<Vec<(Digest, Fault)>>, Error> {
        if listed.is_unreadable(digest) {
            return Ok(Some(vec![(digest.clone(), Fault::Unreadable)]));
        }
        let mut faults = Vec::new();
        match self.look_behind(repository, digest).await? {
            Revision::Whole(manifest, _) => {
                for blob in manifest.blobs().filter(|blob| !blob.is_foreign()) {
                    faults.extend(
                        self.fault_of(repository, blob, listed).await?.map(|fault| (blob.digest.clone(), fault)),
                    );
                }
            }
            Revision::Foreign(..) => {}
            Revision::Damaged => faults.push((digest.clone(), Fault::Altered)),
            Revision::Missing => faults.push((digest.clone(), Fault::Missing)),
            Revision::Deleted => return Ok(None),
        }
        // With a manifest that is deleted its blobs may go: that is no damage.
        let is_needed = faults.is_empty() || self.linked(repository, Link::Revision, digest).await?.is_some();
        Ok(is_needed.then_some(faults))
    }

    async fn fault_of(
        &self,
        repository: &Repository,
        blob: &Descriptor,
        listed: &Listed<'_>,
    ) -> Result<Option<Fault>, Error> {
        if listed.is_unreadable(&blob.digest) {
            return Ok(Some(Fault::Unreadable));
        }
        if listed.links.contains(&blob.digest) && listed.lengths.get(&blob.digest) == Some(&blob.size) {
            return Ok(None);
        }
        // Pushed since the lists were made, or kept by docker-registry under another name.
        let linked = self.linked(repository, Link::Layer, &blob.digest).await?;
        let there = self.blob_at(linked.as_ref().unwrap_or(&blob.digest)).await?;
        Ok(match there {
            Some(there) if there.len() != blob.size => Some(Fault::Length),
            Some(_) if linked.is_some() => None,
            _ => Some(Fault::Missing),
        })
    }

    /// What came of the last scrub, whichever process did it.
    pub async fn verified(&self) -> Result<Option<Verified>, Error> {
        let record = self.objects().get(&self.keys().scrubbed(), MAX_RECORD_BYTES as u64).await?;
        Ok(record.and_then(|(record, _)| verified(&record)))
    }

    /// Notes what a repair has left.
    pub(super) async fn note_repair(&self, left: &[Damage]) {
        if let Ok(Some((record, _))) = self.objects().get(&self.keys().scrubbed(), MAX_RECORD_BYTES as u64).await {
            self.note(recorded_repair(&record, left)).await;
        }
    }

    async fn note(&self, record: Option<Vec<u8>>) {
        let Some(record) = record else { return };
        if let Err(e) = self.objects().put(&self.keys().scrubbed(), Bytes::from(record)).await {
            tracing::warn!(error = %e, "what the scrub found cannot be noted for the registry's page");
        }
    }
}
