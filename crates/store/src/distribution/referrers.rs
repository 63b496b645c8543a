//! Which manifests refer to which: found by reading every manifest of a repository once, then kept in memory.
//!
//! Nothing on disk says what refers to what, except the manifests themselves (a fallback tag's index lists the same
//! manifests, so that they need no reading of their own). The memory is checked against the modification times of the
//! directories of revisions, in which a new manifest is a new entry: another process's manifests are seen too.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use airlock_oci::{Descriptor, Digest, Error, ErrorKind, Repository};

use super::Directory;
use super::paths::Link;
use super::stamp::SETTLED;

/// Repositories kept in memory at most; beyond that one is forgotten and read again when it is needed.
const MAX_REPOSITORIES: usize = 4096;

/// The referrers of the repositories that were asked for.
#[derive(Debug, Default)]
pub(super) struct Index(Mutex<HashMap<Repository, Arc<Mutex<Known>>>>);

/// What is known of one repository.
#[derive(Debug, Default)]
struct Known {
    /// The state of the directories when they were read; `None` before that, or when it cannot be relied on.
    stamp: Option<Vec<SystemTime>>,
    /// Every manifest that was read.
    read: HashSet<Digest>,
    /// By subject, then by digest.
    by_subject: HashMap<Digest, BTreeMap<Digest, Descriptor>>,
}

impl Index {
    /// The referrers of `subject`, sorted by digest.
    pub(super) fn of(
        &self,
        directory: &Directory,
        repository: &Repository,
        subject: &Digest,
    ) -> Result<Vec<Descriptor>, Error> {
        let known = {
            let mut repositories = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if repositories.len() >= MAX_REPOSITORIES && !repositories.contains_key(repository) {
                let some = repositories.keys().next().cloned();
                some.and_then(|name| repositories.remove(&name));
            }
            repositories.entry(repository.clone()).or_default().clone()
        };
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        known.refresh(directory, repository)?;
        let Some(found) = known.by_subject.get(subject) else { return Ok(Vec::new()) };
        let mut descriptors = Vec::with_capacity(found.len());
        for (digest, descriptor) in found {
            // docker-registry removes a link and may leave its directory.
            if directory.linked(repository, Link::Revision, digest)?.is_some() {
                descriptors.push(descriptor.clone());
            }
        }
        Ok(descriptors)
    }

    /// Has a repository looked at again: a manifest of it was written or removed.
    pub(super) fn changed(&self, repository: &Repository, digest: &Digest) {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(repository).cloned();
        if let Some(known) = known {
            let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
            known.stamp = None;
            known.forget(digest);
        }
    }
}

impl Known {
    fn refresh(&mut self, directory: &Directory, repository: &Repository) -> Result<(), Error> {
        let stamp = stamp(directory, repository);
        if self.stamp.is_some() && self.stamp == stamp {
            return Ok(());
        }
        let present: HashSet<Digest> = directory.linked_manifests(repository)?.into_iter().collect();
        let gone: Vec<Digest> = self.read.iter().filter(|d| !present.contains(*d)).cloned().collect();
        for digest in gone {
            self.forget(&digest);
        }
        let mut whole = true;
        for digest in present {
            if self.read.contains(&digest) {
                continue;
            }
            let manifest = match directory.manifest_by_digest(repository, &digest) {
                Ok(Some(manifest)) => manifest,
                // Not all there or damaged: it refers to nothing now; it is tried again, since somebody may heal it.
                Ok(None) => {
                    whole = false;
                    continue;
                }
                Err(e) if e.kind() == ErrorKind::Content => {
                    whole = false;
                    continue;
                }
                Err(e) if e.kind() == ErrorKind::Unsupported => {
                    self.read.insert(digest);
                    continue;
                }
                Err(e) => return Err(e),
            };
            if let Some(subject) = manifest.subject() {
                let mut descriptor = manifest.descriptor();
                descriptor.artifact_type = manifest.artifact_type().map(str::to_owned);
                descriptor.annotations = manifest.annotations().clone();
                self.by_subject.entry(subject.digest.clone()).or_default().insert(digest.clone(), descriptor);
            }
            self.read.insert(digest);
        }
        self.stamp = stamp.filter(|_| whole);
        Ok(())
    }

    fn forget(&mut self, digest: &Digest) {
        if self.read.remove(digest) {
            self.by_subject.retain(|_, found| {
                found.remove(digest);
                !found.is_empty()
            });
        }
    }
}

/// The modification times of the directories in which a new manifest shows; `None` when one is too recent to be relied on.
fn stamp(directory: &Directory, repository: &Repository) -> Option<Vec<SystemTime>> {
    let revisions = directory.paths.links(repository, Link::Revision);
    let mut times = Vec::new();
    for path in [revisions.clone(), revisions.join("sha256"), revisions.join("sha384"), revisions.join("sha512")] {
        let time = match std::fs::metadata(&path).and_then(|m| m.modified()) {
            Ok(time) => time,
            Err(e) if crate::disk::is_absent(&e) => SystemTime::UNIX_EPOCH,
            Err(_) => return None,
        };
        // A time stamp in the future (a clock that was set back) never settles; then every question reads the names again.
        if SystemTime::now().duration_since(time).is_ok_and(|age| age >= SETTLED) {
            times.push(time);
        } else {
            return None;
        }
    }
    Some(times)
}
