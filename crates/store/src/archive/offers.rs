//! What the repositories of an archive offer, as far as the links inside say: one answer for our archives and for oc-mirror's.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use airlock_oci::sink::ManifestName;
use airlock_oci::{Descriptor, Digest, Error, Repository, Tag};

use super::layout::{RepositoryContents, STORAGE_ROOT};
use crate::storage::{ReferrerIndex, Storage, referrer_index};

/// Repositories with their manifests, blobs and tags.
#[derive(Default)]
pub(super) struct Offers {
    repositories: BTreeMap<Repository, RepositoryContents>,
    /// Made when it is asked for first, once, while others wait: it takes reading every manifest.
    referrers: Mutex<Option<Arc<ReferrerIndex>>>,
}

impl Offers {
    /// Takes in a link by its path in docker-distribution storage; other paths are passed over.
    pub(super) fn add_link(&mut self, path: &str, digest: &Digest) {
        let Some(rest) = path.strip_prefix(STORAGE_ROOT).and_then(|p| p.strip_prefix("/repositories/")) else { return };
        if let Some((name, _)) = rest.split_once("/_layers/") {
            self.in_repository(name, |contents| {
                contents.layers.insert(digest.clone());
            });
        } else if let Some((name, _)) = rest.split_once("/_manifests/revisions/") {
            self.in_repository(name, |contents| {
                contents.manifests.insert(digest.clone());
            });
        } else if let Some((name, tag)) = rest.split_once("/_manifests/tags/")
            && let Some(tag) = tag.strip_suffix("/current/link")
            && let Ok(tag) = Tag::new(tag)
        {
            self.in_repository(name, |contents| {
                contents.tags.insert(tag, digest.clone());
            });
        }
    }

    fn in_repository(&mut self, name: &str, add: impl FnOnce(&mut RepositoryContents)) {
        if let Ok(name) = Repository::new(name) {
            add(self.repositories.entry(name).or_default());
        }
    }

    /// What each repository offers.
    pub(super) fn contents(&self) -> &BTreeMap<Repository, RepositoryContents> {
        &self.repositories
    }

    /// As [`Storage::repositories`].
    pub(super) fn repositories(&self) -> Vec<Repository> {
        self.repositories.iter().filter(|(_, c)| !c.manifests.is_empty()).map(|(r, _)| r.clone()).collect()
    }

    /// As [`Storage::tags`].
    pub(super) fn tags(&self, repository: &Repository) -> Option<Vec<Tag>> {
        self.repositories.get(repository).map(|c| c.tags.keys().cloned().collect())
    }

    /// The manifest that a repository has under a name.
    pub(super) fn manifest(&self, repository: &Repository, at: &ManifestName) -> Option<&Digest> {
        let contents = self.repositories.get(repository)?;
        match at {
            ManifestName::Digest(digest) => contents.manifests.get(digest),
            ManifestName::Tag(tag) => contents.tags.get(tag),
        }
    }

    /// Whether a repository serves this content, a manifest or another blob.
    pub(super) fn has(&self, repository: &Repository, digest: &Digest) -> bool {
        let contents = self.repositories.get(repository);
        contents.is_some_and(|c| c.layers.contains(digest) || c.manifests.contains(digest))
    }

    /// As [`Storage::referrers`]; the manifests are read from `storage`.
    pub(super) fn referrers(
        &self,
        repository: &Repository,
        subject: &Digest,
        storage: &dyn Storage,
    ) -> Result<Vec<Descriptor>, Error> {
        let index = {
            let mut made = self.referrers.lock().unwrap_or_else(PoisonError::into_inner);
            match &*made {
                Some(index) => Arc::clone(index),
                None => {
                    let manifests = self.repositories.iter().map(|(r, c)| (r, &c.manifests));
                    let index = Arc::new(referrer_index(manifests, storage)?);
                    *made = Some(Arc::clone(&index));
                    index
                }
            }
        };
        Ok(index.get(&(repository.clone(), subject.clone())).cloned().unwrap_or_default())
    }
}
