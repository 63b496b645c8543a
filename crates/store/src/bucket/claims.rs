//! What a push under way relies on, so that garbage collection leaves it alone, whichever process it runs in.
//!
//! A blob that was written not long ago is left alone for its age alone (`Settings::collected_age`), by the store's clock. Whoever relies on an older
//! one (it was told to be there, it is mounted) writes a *lease*, an empty object whose age counts instead.
//!
//! Between looking at a lease and removing the blob the collector could overlook one. So it first names the blobs that it is about to
//! remove in one object (*condemned*), then looks at their leases and ages again, removes what is old, and takes the object away. The
//! other side writes first (the lease, or the blob), then waits until the blob is not condemned, and always looks at last whether all of it is
//! there: a list may have come and gone between two of its steps. Since the store shows every write at once, either the collector sees what
//! was written, or its removals are over when the other side looks.
//!
//! Ages are those of the store's clock; nobody's own clock takes part, except in how long somebody waits.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

use airlock_oci::{Digest, Error, ErrorKind, Repository};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::objects::Meta;
use super::{Bucket, lock, read::Blob};

/// From which part of the age at which blobs are collected a blob needs a lease: the rest of its time is too short to finish a push in, and
/// the clocks may differ.
const LEASED_PART: u32 = 2;
/// For which part of that age a lease which this process wrote is not written again.
const KNOWN_PART: u32 = 24;
/// Leases remembered at most.
const MAX_KNOWN: usize = 100_000;
/// How long a collector may work at the blobs that it has condemned.
pub(super) const CONDEMNED_TIME: Duration = Duration::from_secs(60);
/// How long a request that a collector gave up may still reach the store.
pub(super) const LATE_TIME: Duration = Duration::from_secs(5);
/// From which age on a list of condemned blobs is that of a collector which died: it has had its time, and what it sent has arrived.
const CONDEMNED_STALE: Duration = Duration::from_secs(75);
/// How often the verdict is asked for, and how long; longer than a list can last.
const VERDICT_PAUSE: Duration = Duration::from_millis(100);
const VERDICT_TIME: Duration = Duration::from_secs(90);
/// Bytes of the list of condemned blobs at most.
const MAX_CONDEMNED_BYTES: u64 = 1024 * 1024;

/// The leases that this process wrote lately.
#[derive(Debug, Default)]
pub(super) struct Claims(Mutex<HashMap<Digest, Instant>>);

/// What a collector is about to remove.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Condemned {
    pub(super) digests: Vec<Digest>,
}

impl Claims {
    fn is_known(&self, digest: &Digest, time: Duration) -> bool {
        lock(&self.0).get(digest).is_some_and(|at| at.elapsed() < time)
    }

    fn note(&self, digest: &Digest, written: Instant) {
        let mut known = lock(&self.0);
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        known.insert(digest.clone(), written);
    }
}

impl Bucket {
    /// A blob for somebody who is going to name it in a manifest: if it is there, garbage collection leaves it alone until that manifest
    /// has come, or for half a day.
    pub async fn claim_blob(&self, repository: &Repository, digest: &Digest) -> Result<Option<Blob>, Error> {
        let Some(blob) = self.blob(repository, digest).await? else { return Ok(None) };
        if self.rely_on(&blob).await? {
            return Ok(Some(blob));
        }
        self.blob(repository, digest).await
    }

    /// Keeps a blob from being collected. `false`: it may have been collected just before; look again.
    pub(super) async fn rely_on(&self, blob: &Blob) -> Result<bool, Error> {
        let age = SystemTime::now().duration_since(blob.modified()).unwrap_or_default();
        let most = self.0.collected_age;
        if age < most / LEASED_PART || self.0.claims.is_known(blob.place(), most / KNOWN_PART) {
            return Ok(true);
        }
        let written = Instant::now();
        self.objects().put(&self.keys().lease(blob.place()), Bytes::new()).await?;
        self.await_verdict(blob.place()).await?;
        // Only now: before the verdict the lease may have come too late, and nobody else may count on it.
        self.0.claims.note(blob.place(), written);
        Ok(false)
    }

    /// The list of condemned blobs, if it names this one.
    async fn condemning(&self, digest: &Digest) -> Result<Option<Meta>, Error> {
        let Some((bytes, meta)) = self.objects().get(&self.keys().condemned(), MAX_CONDEMNED_BYTES).await? else {
            return Ok(None);
        };
        // What cannot be read is being written by another version of this program: it stands for every blob.
        let names = serde_json::from_slice::<Condemned>(&bytes).map_or(true, |list| list.digests.contains(digest));
        Ok(names.then_some(meta))
    }

    /// Waits until the blob is not condemned any more; it may be gone then.
    pub(super) async fn await_verdict(&self, digest: &Digest) -> Result<(), Error> {
        let start = Instant::now();
        // A list, and when it will be that of a collector which died.
        let mut judged: Option<(Meta, Instant)> = None;
        while let Some(list) = self.condemning(digest).await? {
            let stale = match &judged {
                Some((of, stale)) if *of == list => *stale,
                _ => {
                    let age = self.store_time().await?.duration_since(list.modified).unwrap_or_default();
                    let stale = Instant::now() + CONDEMNED_STALE.saturating_sub(age);
                    judged = Some((list, stale));
                    stale
                }
            };
            if Instant::now() >= stale {
                break;
            }
            if start.elapsed() > VERDICT_TIME {
                return Err(Error::new(
                    ErrorKind::Server,
                    format!("keep blob `{digest}` in `{}`", self.describe()),
                    "garbage is being collected and takes too long",
                ));
            }
            tokio::time::sleep(VERDICT_PAUSE).await;
        }
        Ok(())
    }
}
