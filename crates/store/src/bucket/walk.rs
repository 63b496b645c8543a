//! What repositories' links to manifests lead to: the ground of garbage collection and of scrubbing.

use airlock_oci::{Digest, Error, ErrorKind, Manifest, Repository};

use super::Bucket;
use super::keys::Link;
use crate::distribution::digests_in;

/// What a repository's link to a manifest leads to. With it the digest under whose name the bytes lie.
pub(super) enum Revision {
    /// A manifest.
    Whole(Box<Manifest>, Digest),
    /// Bytes that are no manifest of today (schema 1): the digests that occur in them.
    Foreign(Vec<Digest>, Digest),
    /// Bytes with another digest.
    Damaged,
    /// No bytes.
    Missing,
    /// The link went since it was listed.
    Deleted,
}

impl Bucket {
    /// Looks behind a link to a manifest, at the bytes that lie there now.
    pub(super) async fn look_behind(&self, repository: &Repository, digest: &Digest) -> Result<Revision, Error> {
        let Some(place) = self.linked(repository, Link::Revision, digest).await? else { return Ok(Revision::Deleted) };
        let bytes = match self.manifest_bytes(&place).await? {
            None => return Ok(Revision::Missing),
            Some(Err(_)) => return Ok(Revision::Damaged),
            Some(Ok(bytes)) => bytes,
        };
        match Manifest::parse_expecting(bytes.clone(), None, digest) {
            Ok(manifest) => Ok(Revision::Whole(Box::new(manifest), place)),
            Err(e) if e.kind() == ErrorKind::Unsupported => Ok(Revision::Foreign(digests_in(&bytes), place)),
            Err(e) if e.kind() == ErrorKind::Content => Ok(Revision::Damaged),
            Err(e) => Err(e),
        }
    }
}
