//! Which manifests refer to which: found by reading every manifest of a repository once, then kept in memory.
//!
//! The list of a repository's manifests is asked for each time, so that other processes' manifests are seen, and deleted ones are not;
//! only those that were never read before are read.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex};

use airlock_oci::{Descriptor, Digest, Error, ErrorKind, Manifest, Repository};
use futures_util::{FutureExt, StreamExt, TryStreamExt};

use super::keys::{Link, digest_of};
use super::{Bucket, PARALLEL, lock};

/// Repositories kept in memory at most; beyond that one is forgotten and read again when it is needed.
const MAX_REPOSITORIES: usize = 4096;

/// The referrers of the repositories that were asked for.
#[derive(Debug, Default)]
pub(super) struct Known(Mutex<HashMap<Repository, Arc<tokio::sync::Mutex<Read>>>>);

/// What was read of one repository.
#[derive(Debug, Default)]
struct Read {
    manifests: HashSet<Digest>,
    by_subject: HashMap<Digest, BTreeMap<Digest, Descriptor>>,
}

impl Bucket {
    /// Descriptors (with `artifactType` and annotations) of the manifests of the repository whose subject is `subject`, sorted by digest.
    pub async fn referrers(&self, repository: &Repository, subject: &Digest) -> Result<Vec<Descriptor>, Error> {
        let known = {
            let mut repositories = lock(&self.0.referrers.0);
            if repositories.len() >= MAX_REPOSITORIES && !repositories.contains_key(repository) {
                let some = repositories.keys().next().cloned();
                some.and_then(|name| repositories.remove(&name));
            }
            repositories.entry(repository.clone()).or_default().clone()
        };
        let mut known = known.lock().await;
        let present: HashSet<Digest> = self.revisions(repository).await?.into_iter().collect();
        if present.is_empty() {
            lock(&self.0.referrers.0).remove(repository);
            return Ok(Vec::new());
        }
        let new: Vec<Digest> = present.iter().filter(|digest| !known.manifests.contains(*digest)).cloned().collect();
        let mut read = futures_util::stream::iter(new)
            .map(|digest| {
                let read = async move {
                    let manifest = self.revision(repository, &digest).await?;
                    Ok::<_, Error>((digest, manifest))
                };
                read.boxed()
            })
            .buffer_unordered(PARALLEL);
        while let Some((digest, manifest)) = read.try_next().await? {
            if let Some(manifest) = &manifest
                && let Some(subject) = manifest.subject()
            {
                let mut descriptor = manifest.descriptor();
                descriptor.artifact_type = manifest.artifact_type().map(str::to_owned);
                descriptor.annotations = manifest.annotations().clone();
                known.by_subject.entry(subject.digest.clone()).or_default().insert(digest.clone(), descriptor);
            }
            if manifest.is_some() {
                known.manifests.insert(digest);
            }
        }
        drop(read);
        let found = known.by_subject.get(subject).into_iter().flatten();
        Ok(found.filter(|(digest, _)| present.contains(*digest)).map(|(_, descriptor)| descriptor.clone()).collect())
    }

    /// The digests of all manifests that a repository links to.
    pub(super) async fn revisions(&self, repository: &Repository) -> Result<Vec<Digest>, Error> {
        self.objects()
            .list(&self.keys().links(repository, Link::Revision))
            .try_filter_map(|(key, _)| async move { Ok(digest_of(&key)) })
            .try_collect()
            .await
    }

    /// A manifest that has not been looked at; `None` when it is damaged, gone or none of today's.
    async fn revision(&self, repository: &Repository, digest: &Digest) -> Result<Option<Manifest>, Error> {
        let Some(bytes) = self.manifest_bytes(digest).await? else {
            // docker-registry keeps what was pushed by sha512 under its sha256 name and says so in the link.
            let at = airlock_oci::sink::ManifestName::Digest(digest.clone());
            return match self.manifest(repository, &at).await {
                Err(e) if matches!(e.kind(), ErrorKind::Content | ErrorKind::Unsupported) => Ok(None),
                found => found,
            };
        };
        Ok(bytes.ok().and_then(|bytes| Manifest::parse_expecting(bytes, None, digest).ok()))
    }
}
