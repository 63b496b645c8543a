//! The reading side that every place on disk has in common, and a [`Source`](airlock_oci::Source) over any of them.
//!
//! A directory in docker-distribution's layout, an OCI layout and an archive all answer the same five questions by
//! repository. They answer with regions of open files, so that whoever serves them can send straight from the file.

use std::collections::HashMap;
use std::fs::File;
use std::sync::Arc;
use std::time::SystemTime;

use airlock_oci::sink::ManifestName;
use airlock_oci::{Descriptor, Digest, Error, Manifest, Repository, Tag};

use crate::distribution::Damage;

/// A stretch of an open file: a blob's bytes.
#[derive(Clone, Debug)]
pub struct Region {
    /// The file, read with positioned reads only.
    pub file: Arc<File>,
    /// Where the bytes begin.
    pub offset: u64,
    /// How many there are.
    pub len: u64,
}

/// What came of reading every byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// When that was done.
    pub at: SystemTime,
    /// Files that were read.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What was damaged or missing then and has not been repaired since.
    pub damage: Vec<Damage>,
}

/// Content on a local disk, by repository. Calls block on the disk; async callers use a blocking thread.
pub trait Storage: Send + Sync {
    /// For messages: the path.
    fn describe(&self) -> String;

    /// All repositories that hold a manifest, sorted.
    fn repositories(&self) -> Result<Vec<Repository>, Error>;

    /// The tags of a repository, sorted; `None` when there is no such repository.
    fn tags(&self, repository: &Repository) -> Result<Option<Vec<Tag>>, Error>;

    /// At most so many repositories whose names come after `after`, sorted.
    fn repositories_after(&self, after: Option<&Repository>, most: usize) -> Result<Vec<Repository>, Error> {
        let all = self.repositories()?;
        let from = after.map_or(0, |after| all.partition_point(|name| name <= after));
        Ok(all.into_iter().skip(from).take(most).collect())
    }

    /// At most so many tags of a repository that come after `after`, sorted; `None` when there is no such repository.
    fn tags_after(&self, repository: &Repository, after: &str, most: usize) -> Result<Option<Vec<Tag>>, Error> {
        let Some(all) = self.tags(repository)? else { return Ok(None) };
        let from = all.partition_point(|tag| tag.as_str() <= after);
        Ok(Some(all.into_iter().skip(from).take(most).collect()))
    }

    /// A manifest that can be had without reading anything but the states of a few files that were read lately, so that a caller who
    /// must not wait for the disk may ask. `None` says nothing: ask [`Storage::manifest`].
    fn manifest_at_once(&self, repository: &Repository, at: &ManifestName) -> Option<Manifest> {
        let _ = (repository, at);
        None
    }

    /// A manifest, verified against its digest; `None` when it is not there. A damaged one is an error.
    fn manifest(&self, repository: &Repository, at: &ManifestName) -> Result<Option<Manifest>, Error>;

    /// Where a blob's bytes lie; `None` when the repository does not have it. Not verified.
    fn blob(&self, repository: &Repository, digest: &Digest) -> Result<Option<Region>, Error>;

    /// Where a blob's bytes lie, if that can be told without waiting for the disk, like [`Storage::manifest_at_once`]. `None` says
    /// nothing: ask [`Storage::blob`].
    fn blob_at_once(&self, repository: &Repository, digest: &Digest) -> Option<Region> {
        let _ = (repository, digest);
        None
    }

    /// Where a blob lies that is spoken of here and is not here, for whoever asked for it in vain: the archive that was not given.
    fn elsewhere(&self, repository: &Repository, digest: &Digest) -> Option<String> {
        let _ = (repository, digest);
        None
    }

    /// Descriptors (with `artifactType` and annotations) of the manifests of the repository whose subject is `subject`, sorted by digest.
    fn referrers(&self, repository: &Repository, subject: &Digest) -> Result<Vec<Descriptor>, Error>;

    /// The digests of all manifests of a repository, tagged or not; `None` where that cannot be told.
    fn manifests(&self, repository: &Repository) -> Result<Option<Vec<Digest>>, Error> {
        let _ = repository;
        Ok(None)
    }

    /// When a tag was set to what it points at, where that is known.
    fn tagged_at(&self, repository: &Repository, tag: &Tag) -> Option<SystemTime> {
        let _ = (repository, tag);
        None
    }

    /// What came of the last reading of every byte, where there was one.
    fn verified(&self) -> Option<Verified> {
        None
    }
}

/// What refers to what, by repository and subject; each list sorted by digest.
pub(crate) type ReferrerIndex = HashMap<(Repository, Digest), Vec<Descriptor>>;

/// Reads every manifest once and notes those that have a subject.
pub(crate) fn referrer_index<'a>(
    repositories: impl Iterator<Item = (&'a Repository, impl IntoIterator<Item = &'a Digest>)>,
    storage: &dyn Storage,
) -> Result<ReferrerIndex, Error> {
    let mut index = ReferrerIndex::new();
    for (repository, manifests) in repositories {
        for digest in manifests {
            let at = ManifestName::Digest(digest.clone());
            let Some(manifest) = storage.manifest(repository, &at)? else { continue };
            if let Some(subject) = manifest.subject() {
                let mut descriptor = manifest.descriptor();
                descriptor.artifact_type = manifest.artifact_type().map(str::to_owned);
                descriptor.annotations = manifest.annotations().clone();
                index.entry((repository.clone(), subject.digest.clone())).or_default().push(descriptor);
            }
        }
    }
    Ok(index)
}
