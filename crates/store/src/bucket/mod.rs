//! docker-distribution's storage layout in a bucket of an S3-compatible object store (drawn in `keys.rs`).
//!
//! A [`Bucket`] is read and written by any number of processes at once: each keeps nothing to itself that another one needs. Whatever an
//! answer rests on is asked of the store, which shows every write at once to everybody; only content, which never changes under its
//! digest, is answered from memory, and only where its link was just seen.
//!
//! * An upload's state lies in the bucket ([`Upload`]), so that whichever process gets the next request goes on with it.
//! * Content is written before what names it: a blob's bytes, its link; a manifest's bytes, its link, its tags. Each is one object, whole
//!   or not there, so that a crash leaves nothing half-written and an acknowledged manifest is complete.
//! * Overwriting does no harm, since what lies under a digest is always the same. Where two writers of a tag must not undo each other's
//!   work, the store compares versions.
//! * What is damaged is put aside by a scrub, in the way in which garbage goes, and brought back by a repair.
//! * Garbage collection is told from the store what pushes rely on (`claims.rs`), and only one process collects at a time.
//!
//! What is read is judged with the same mistrust as on a disk: docker-registry may have written it.

mod claims;
mod expiry;
mod gc;
mod hash;
mod keys;
mod lock;
mod names;
mod objects;
mod read;
mod referrers;
mod repair;
mod scrub;
mod session;
mod settings;
mod uploads;
mod walk;
mod write;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use airlock_oci::{Digest, Error, ErrorKind, Manifest, Repository, Tag};
use futures_util::TryStreamExt;
use tokio::sync::Semaphore;

use crate::distribution::{Kept, UploadId};
use keys::Keys;
use objects::Objects;

pub use read::Blob;
pub use settings::{AccessKey, COLLECTED_AGE, MAX_COPIED_BYTES, Settings};
pub use uploads::{MAX_BLOB_BYTES, PART_BYTES, Upload};

/// Uploads whose bytes are received at once; further ones wait. Each holds at most three parts in memory: one on its way, one that is
/// filled, and at the end of a request the latter once more while it is saved.
const MAX_RECEIVING: usize = 24;
/// Uploads without further bytes whose last part is read at once, to be put in its place. No client can make these wait.
const MAX_ENDING: usize = 8;
/// Requests to the store that one piece of work has under way at once.
const PARALLEL: usize = 16;
/// How long opening a bucket may take before it counts as out of reach.
const OPEN_TIME: std::time::Duration = std::time::Duration::from_secs(30);

/// Registry storage in a bucket, for reading and writing. Cheap to clone; all clones share what they remember.
#[derive(Clone, Debug)]
pub struct Bucket(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    objects: Objects,
    keys: Keys,
    copied_bytes: u64,
    collected_age: std::time::Duration,
    lock_renewal: std::time::Duration,
    held_renewal: std::time::Duration,
    /// Manifests that were verified.
    manifests: Mutex<Kept<Digest, Manifest>>,
    /// Lists of tags, for those who turn their pages.
    lists: Mutex<Kept<Repository, (Instant, Arc<Vec<Tag>>)>>,
    referrers: referrers::Known,
    names: names::Names,
    claims: claims::Claims,
    /// Uploads that a request of this process is at.
    held: Mutex<HashMap<UploadId, Arc<tokio::sync::Mutex<()>>>>,
    receiving: Arc<Semaphore>,
    ending: Arc<Semaphore>,
    expired: Mutex<Option<Instant>>,
}

impl Bucket {
    /// Opens a bucket and sees whether it can be read. The bucket must exist; nothing need be in it.
    pub async fn open(settings: &Settings) -> Result<Self, Error> {
        let (for_client, for_keys) = (settings.clone(), settings.prefix.clone());
        // Credentials and certificates may be read from files.
        let objects = crate::source::blocking(move || Objects::open(&for_client)).await?;
        let bucket = Self(Arc::new(Inner {
            objects,
            keys: Keys::new(&for_keys)?,
            copied_bytes: settings.copied_bytes,
            collected_age: settings.collected_age,
            lock_renewal: settings.lock_renewal,
            held_renewal: settings.held_renewal,
            manifests: Mutex::default(),
            lists: Mutex::default(),
            referrers: referrers::Known::default(),
            names: names::Names::default(),
            claims: claims::Claims::default(),
            held: Mutex::default(),
            receiving: Arc::new(Semaphore::new(settings.receiving)),
            ending: Arc::new(Semaphore::new(MAX_ENDING)),
            expired: Mutex::default(),
        }));
        let what = || format!("open the bucket `{}`", bucket.describe());
        match tokio::time::timeout(OPEN_TIME, bucket.probe()).await {
            Ok(Ok(())) => Ok(bucket),
            Ok(Err(e)) => {
                let hint = match e.kind() {
                    ErrorKind::Unauthorized => {
                        "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE with ~/.aws/credentials"
                    }
                    ErrorKind::Denied => "the key needs s3:ListBucket, s3:GetObject, s3:PutObject and s3:DeleteObject",
                    ErrorKind::NotFound => "make the bucket first, or check its name, `--s3-endpoint` and `--s3-region`",
                    _ => "check `--s3-endpoint`, `--s3-region` and the network",
                };
                Err(Error::new(e.kind(), what(), e.cause()).attempts(e.tried().to_vec()).hint(hint))
            }
            Err(_) => Err(Error::new(ErrorKind::Network, what(), "the object store does not answer")
                .hint("check `--s3-endpoint` and the network; without keys in the environment the machine's own are asked for")),
        }
    }

    /// For messages.
    pub fn describe(&self) -> String {
        self.objects().place().to_owned()
    }

    /// Whether the bucket can be read.
    pub async fn probe(&self) -> Result<(), Error> {
        self.objects().list(&self.keys().repositories()).try_next().await.map(|_| ())
    }

    fn objects(&self) -> &Objects {
        &self.0.objects
    }

    fn keys(&self) -> &Keys {
        &self.0.keys
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
