//! What a push under way relies on, so that garbage collection leaves it alone, whichever process it runs in.
//!
//! A blob that was written not long ago is left alone for its age alone (`Settings::collected_age`), by the store's clock. Whoever relies on an older
//! one (it was told to be there, it is mounted) writes a *lease*, an empty object whose age counts instead.
//!
//! Between looking at a lease and removing the blob the collector could overlook one. So it first names the blobs that it is about to
//! remove in one object (*condemned*), then looks at their leases and ages again, removes what is old, and takes the object away. The
//! other side writes first (the lease, or the blob), then looks whether the blob is condemned, and if it is waits for the verdict and looks
//! again. Since the store shows every write at once, one of the two sees the other.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

use airlock_oci::{Digest, Error, ErrorKind, Repository};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

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
/// From which age on a list of condemned blobs is that of a collector which died.
const CONDEMNED_STALE: Duration = Duration::from_secs(5 * 60);
/// How often the verdict is asked for, and how long.
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

    fn note(&self, digest: &Digest) {
        let mut known = lock(&self.0);
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        known.insert(digest.clone(), Instant::now());
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
        self.objects().put(&self.keys().lease(blob.place()), Bytes::new()).await?;
        self.0.claims.note(blob.place());
        self.await_verdict(blob.place()).await?;
        Ok(false)
    }

    /// Whether the blob is condemned.
    pub(super) async fn is_condemned(&self, digest: &Digest) -> Result<bool, Error> {
        let Some((bytes, meta)) = self.objects().get(&self.keys().condemned(), MAX_CONDEMNED_BYTES).await? else {
            return Ok(false);
        };
        let age = SystemTime::now().duration_since(meta.modified).unwrap_or_default();
        if age > CONDEMNED_STALE {
            return Ok(false);
        }
        // What cannot be read is being written by another version of this program: it stands for every blob.
        Ok(serde_json::from_slice::<Condemned>(&bytes).map_or(true, |list| list.digests.contains(digest)))
    }

    /// Waits until the blob is not condemned any more; it may be gone then. `true`: it was condemned.
    pub(super) async fn await_verdict(&self, digest: &Digest) -> Result<bool, Error> {
        let (start, mut waited) = (Instant::now(), false);
        while self.is_condemned(digest).await? {
            waited = true;
            if start.elapsed() > VERDICT_TIME {
                return Err(Error::new(
                    ErrorKind::Server,
                    format!("keep blob `{digest}` in `{}`", self.describe()),
                    "garbage is being collected and takes too long",
                ));
            }
            tokio::time::sleep(VERDICT_PAUSE).await;
        }
        Ok(waited)
    }
}
