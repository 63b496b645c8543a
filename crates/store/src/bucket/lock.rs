//! One collector at a time: an object that only one process can make, and that it writes again and again while it works.

use std::time::{Duration, Instant, SystemTime};

use airlock_oci::{Error, ErrorKind};
use bytes::Bytes;

use super::Bucket;
use super::objects::Condition;
use crate::distribution::UploadId;

/// From which age on a lock is that of a process which died.
const STALE: Duration = Duration::from_secs(10 * 60);
/// Bytes of the object at most.
const MAX_LOCK_BYTES: u64 = 1024;

/// The right to collect garbage. Given back with [`Held::release`]; a process that dies loses it after ten minutes.
pub(super) struct Held {
    bucket: Bucket,
    token: Bytes,
    version: Option<String>,
    renewed: Instant,
}

impl Bucket {
    /// What time the store has: objects' ages are by its clock.
    pub(super) async fn store_time(&self) -> Result<SystemTime, Error> {
        let key = self.keys().clock();
        self.objects().put(&key, Bytes::new()).await?;
        match self.objects().head(&key).await? {
            Some(meta) => Ok(meta.modified),
            None => Err(Error::new(ErrorKind::Server, "ask the object store for its time", "it lost an object")),
        }
    }

    /// Takes the lock; [`ErrorKind::Locked`] when another process works.
    pub(super) async fn take_lock(&self) -> Result<Held, Error> {
        let key = self.keys().lock();
        let token = Bytes::from(UploadId::random()?.to_string());
        let mut taken = self.objects().put_if(&key, token.clone(), Condition::Absent).await?;
        if taken.is_none()
            && let Some((there, meta)) = self.objects().get(&key, MAX_LOCK_BYTES).await?
        {
            let age = self.store_time().await?.duration_since(meta.modified).unwrap_or_default();
            if there == token {
                taken = Some(meta.version);
            } else if age > STALE {
                tracing::warn!("a garbage collection of another process ended early; this one takes its place");
                taken = self.objects().put_if(&key, token.clone(), Condition::Version(meta.version)).await?;
            }
        }
        match taken {
            Some(version) => Ok(Held { bucket: self.clone(), token, version, renewed: Instant::now() }),
            None => Err(Error::new(
                ErrorKind::Locked,
                format!("collect garbage in `{}`", self.describe()),
                "a collection is under way, perhaps by another process",
            )
            .hint("wait for it; ten minutes after a process that died another one may begin")),
        }
    }
}

impl Held {
    /// To be called now and then: writes the lock again. [`ErrorKind::Locked`] when it was lost.
    pub(super) async fn renew(&mut self) -> Result<(), Error> {
        if self.renewed.elapsed() < self.bucket.0.lock_renewal {
            return Ok(());
        }
        let lost = || {
            let cause = "another process took the lock, because this one was too slow";
            Error::new(ErrorKind::Locked, format!("collect garbage in `{}`", self.bucket.describe()), cause)
        };
        if self.renewed.elapsed() > STALE {
            return Err(lost());
        }
        let key = self.bucket.keys().lock();
        let condition = Condition::Version(self.version.clone());
        let written = self.bucket.objects().put_if(&key, self.token.clone(), condition).await?;
        self.version = written.ok_or_else(lost)?;
        self.renewed = Instant::now();
        Ok(())
    }

    /// Gives it back.
    pub(super) async fn release(self) {
        let key = self.bucket.keys().lock();
        if let Ok(Some((there, _))) = self.bucket.objects().get(&key, MAX_LOCK_BYTES).await
            && there == self.token
        {
            let _ = self.bucket.objects().delete(&key).await;
        }
    }
}
