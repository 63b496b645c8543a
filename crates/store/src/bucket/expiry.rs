//! Uploads that nobody continues, from whichever process, are removed.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use airlock_oci::Error;
use futures_util::TryStreamExt;
use object_store::path::Path;

use super::objects::Meta;
use super::{Bucket, lock};
use crate::distribution::UploadId;

/// How long a session may lie idle before it is removed.
const MAX_IDLE: Duration = Duration::from_secs(60 * 60);
/// How often this process looks for them.
const LOOK_AGAIN: Duration = Duration::from_secs(10 * 60);

impl Bucket {
    /// What has to be done now and then; the number of uploads that were removed.
    pub async fn maintain(&self) -> Result<usize, Error> {
        {
            let mut last = lock(&self.0.expired);
            if last.is_some_and(|at| at.elapsed() < LOOK_AGAIN) {
                return Ok(0);
            }
            *last = Some(Instant::now());
        }
        self.expire_uploads(MAX_IDLE).await
    }

    /// Removes the uploads of which nothing was written for so long, by the store's clock.
    pub async fn expire_uploads(&self, idle: Duration) -> Result<usize, Error> {
        let below = self.keys().uploads();
        let start = below.as_ref().len() + 1;
        let mut uploads: BTreeMap<String, (SystemTime, Vec<Path>)> = BTreeMap::new();
        let mut found = self.objects().list(&below);
        while let Some((key, meta)) = found.try_next().await? {
            let Some((id, _)) = key.as_ref().get(start..).and_then(|rest| rest.split_once('/')) else { continue };
            let (last, keys) = uploads.entry(id.to_owned()).or_insert((meta.modified, Vec::new()));
            *last = meta.modified.max(*last);
            keys.push(key);
        }
        if uploads.is_empty() {
            return Ok(0);
        }
        let now = self.store_time().await?;
        let (mut removed, mut failed) = (0, None);
        for (name, (last, keys)) in uploads {
            let is_idle = |last| now.duration_since(last).unwrap_or_default() >= idle;
            if !is_idle(last) {
                continue;
            }
            // The list may be old by now: it is looked at again.
            let below: Vec<(Path, Meta)> = match name.parse::<UploadId>() {
                Ok(id) => self.objects().list(&self.keys().upload(&id)).try_collect().await?,
                Err(()) => Vec::new(),
            };
            if below.iter().any(|(_, meta)| !is_idle(meta.modified)) {
                continue;
            }
            match self.remove_upload(&name, keys).await {
                Ok(()) => removed += 1,
                // The others go all the same.
                Err(e) => failed = failed.or(Some(e)),
            }
        }
        failed.map_or(Ok(removed), Err)
    }

    /// Removes an upload with its parts.
    async fn remove_upload(&self, name: &str, keys: Vec<Path>) -> Result<(), Error> {
        if let Ok(id) = name.parse::<UploadId>()
            && let Some(session) = self.load_session(&id).await?
            && let Some(joins) = session.joins
        {
            self.objects().drop_parts(&self.keys().received(&id), &joins).await?;
        }
        self.objects().delete_all(keys).await
    }
}
