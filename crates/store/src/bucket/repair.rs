//! Repairing: what a scrub found damaged or missing is taken from an archive, verified, and written to its place with the links that
//! manifests need.

use std::collections::BTreeMap;

use airlock_oci::{Digest, Error, Hasher, Repository};
use bytes::BytesMut;
use futures_util::TryStreamExt;

use super::Bucket;
use super::keys::Link;
use super::uploads::PART_BYTES;
use crate::distribution::{Fault, Repaired};
use crate::storage::Region;

impl Bucket {
    /// Brings back what is damaged or missing: `find` gives the bytes, which are verified. With `quick` only what is missing is looked
    /// for; otherwise everything is read first.
    pub async fn repair(
        &self,
        quick: bool,
        find: &(dyn Fn(&Digest) -> Option<Region> + Sync),
    ) -> Result<Repaired, Error> {
        let mut found: BTreeMap<Digest, Fault> = BTreeMap::new();
        if !quick {
            // What is missing shows again below.
            let is_read = |fault| matches!(fault, Fault::Altered | Fault::Unreadable);
            let damage = self.scrub(None).await?.damage.into_iter().filter(|damage| is_read(damage.fault));
            found.extend(damage.map(|damage| (damage.digest, damage.fault)));
        }
        let mut repaired = Repaired::default();
        // A manifest that is back may name more that is missing: again, until a round has brought nothing.
        loop {
            let needs = self.needs(&found).await?;
            let before = repaired.restored.len();
            for digest in needs.wanted(&found, &repaired.restored) {
                if let Some(region) = find(&digest)
                    && self.restore(&digest, &region, needs.owners(&digest)).await?
                {
                    found.remove(&digest);
                    repaired.restored.push(digest);
                }
            }
            if repaired.restored.len() == before {
                repaired.left = needs.damage(&found);
                repaired.restored.sort();
                self.note_repair(&repaired.left).await;
                return Ok(repaired);
            }
        }
    }

    /// Copies a region to its place; `false`, and nothing is written, when it has another digest.
    async fn restore(
        &self,
        digest: &Digest,
        region: &Region,
        owners: impl IntoIterator<Item = (Repository, bool)>,
    ) -> Result<bool, Error> {
        let read = |first, end| region.stream(first, end, format!("read `{digest}` to repair it"));
        let mut hasher = Hasher::new(digest.algorithm());
        let mut body = read(0, region.len);
        while let Some(bytes) = body.try_next().await? {
            hasher.update(&bytes);
        }
        if hasher.finish() != *digest {
            return Ok(false);
        }
        let write = async || {
            let to = self.keys().data(digest);
            if region.len > PART_BYTES as u64 {
                return self.in_parts(&to, region.len, read).await;
            }
            let mut bytes = BytesMut::with_capacity(region.len as usize);
            let mut body = read(0, region.len);
            while let Some(piece) = body.try_next().await? {
                bytes.extend_from_slice(&piece);
            }
            self.objects().put(&to, bytes.freeze()).await.map(|_| ())
        };
        // Over whatever lies there: it is damaged.
        write().await?;
        for (repository, is_manifest) in owners {
            let kind = if is_manifest { Link::Revision } else { Link::Layer };
            let again = async || if self.blob_at(digest).await?.is_some() { Ok(()) } else { write().await };
            self.publish(&repository, kind, digest, region.len, again).await?;
            if is_manifest {
                self.mark(&repository).await?;
            }
        }
        Ok(true)
    }
}
