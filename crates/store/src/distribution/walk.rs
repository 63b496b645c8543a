//! Everything that lies in the storage, and what refers to it: the ground of garbage collection and of scrubbing.

use std::path::Path;

use airlock_oci::sink::ManifestName;
use airlock_oci::{Algorithm, Digest, Error, ErrorKind, MAX_MANIFEST_BYTES, Manifest, Repository};

use super::paths::Link;
use super::{Directory, digests_below};
use crate::disk;
use crate::storage::Storage;

/// A file of the storage with a digest for its name.
pub(super) struct StoredBlob {
    pub(super) digest: Digest,
    /// Nothing for what is no regular file.
    pub(super) len: u64,
}

/// What a repository's link to a manifest leads to.
pub(super) enum Revision {
    /// A manifest.
    Whole(Box<Manifest>),
    /// Bytes that are no manifest of today (schema 1): the digests that occur in them.
    Foreign(Vec<Digest>),
    /// Bytes with another digest.
    Damaged,
    /// No bytes.
    Missing,
}

impl Directory {
    /// Visits every file of the storage, and what stands in a file's place (a symbolic link, a pipe), which is never read.
    pub(super) fn visit_blobs(&self, visit: &mut dyn FnMut(StoredBlob) -> Result<(), Error>) -> Result<(), Error> {
        let blobs = self.paths.registry().join("blobs");
        for algorithm in disk::names(&blobs)? {
            if algorithm.parse::<Algorithm>().is_err() {
                continue;
            }
            for start in disk::names(&blobs.join(&algorithm))? {
                let folder = blobs.join(&algorithm).join(&start);
                for hex in disk::names(&folder)? {
                    let Ok(digest) = format!("{algorithm}:{hex}").parse::<Digest>() else { continue };
                    if let Some(metadata) = disk::metadata(&folder.join(&hex).join("data"))?
                        && !metadata.is_dir()
                    {
                        let len = if metadata.is_file() { metadata.len() } else { 0 };
                        visit(StoredBlob { digest, len })?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Every repository of which there is anything, manifests or only blobs.
    pub(super) fn all_repositories(&self) -> Result<Vec<Repository>, Error> {
        let mut found = Vec::new();
        collect(&self.paths.repositories(), "", &mut found)?;
        Ok(found)
    }

    /// The digests of all manifests that a repository links to.
    pub(super) fn linked_manifests(&self, repository: &Repository) -> Result<Vec<Digest>, Error> {
        digests_below(&self.paths.links(repository, Link::Revision))
    }

    /// The digests of all blobs that a repository links to.
    pub(super) fn linked_blobs(&self, repository: &Repository) -> Result<Vec<Digest>, Error> {
        digests_below(&self.paths.links(repository, Link::Layer))
    }

    /// What is behind a link to a manifest.
    pub(super) fn revision(&self, repository: &Repository, digest: &Digest) -> Result<Revision, Error> {
        match self.manifest(repository, &ManifestName::Digest(digest.clone())) {
            Ok(Some(manifest)) => Ok(Revision::Whole(Box::new(manifest))),
            Ok(None) => Ok(Revision::Missing),
            Err(e) if e.kind() == ErrorKind::Content => Ok(Revision::Damaged),
            Err(e) if e.kind() == ErrorKind::Unsupported => {
                let place = self.linked(repository, Link::Revision, digest)?.unwrap_or_else(|| digest.clone());
                let bytes = disk::read_small(&self.paths.data(&place), MAX_MANIFEST_BYTES)?.unwrap_or_default();
                Ok(Revision::Foreign(digests_in(&bytes)))
            }
            Err(e) => Err(e),
        }
    }

    /// Under which digest the bytes of a blob lie: another one only where docker-registry took a sha512 digest.
    pub(super) fn place_of(&self, repository: &Repository, kind: Link, digest: &Digest) -> Result<Digest, Error> {
        if digest.algorithm() == Algorithm::Sha256 {
            return Ok(digest.clone());
        }
        Ok(self.linked(repository, kind, digest)?.unwrap_or_else(|| digest.clone()))
    }
}

fn collect(path: &Path, name: &str, found: &mut Vec<Repository>) -> Result<(), Error> {
    let mut is_one = false;
    for entry in disk::names(path)? {
        if entry == "_manifests" || entry == "_layers" {
            is_one = true;
        } else if Repository::new(&entry).is_ok() {
            let below = if name.is_empty() { entry.clone() } else { format!("{name}/{entry}") };
            if below.len() <= airlock_oci::reference::MAX_NAME_BYTES {
                collect(&path.join(&entry), &below, found)?;
            }
        }
    }
    if is_one && let Ok(repository) = Repository::new(name) {
        found.push(repository);
    }
    Ok(())
}

/// Everything in a text that reads like a sha256 digest.
pub(crate) fn digests_in(bytes: &[u8]) -> Vec<Digest> {
    let text = String::from_utf8_lossy(bytes);
    text.match_indices("sha256:").filter_map(|(at, _)| text.get(at..at + 71)?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_found_in_any_text() {
        let (one, two) = (Digest::of(b"1"), Digest::of(b"2"));
        let text = format!(r#"{{"fsLayers":[{{"blobSum":"{one}"}},{{"blobSum":"{two}"}}],"x":"sha256:12"}}"#);
        assert_eq!(digests_in(text.as_bytes()), [one, two]);
    }
}
