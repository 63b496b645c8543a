//! Where content is read from.

use std::fmt;
use std::pin::Pin;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::Stream;
use serde::{Deserialize, Serialize};

use crate::{Descriptor, Digest, Error, ErrorKind, Manifest, Reference, Tag};

/// The physical place that answered: an endpoint's `host[:port]/path`, an archive's or a directory's path. For reports,
/// and to ask the same place again first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Place(pub String);

/// Something found, and where.
#[derive(Clone, Debug)]
pub struct Found<T> {
    /// What was found.
    pub value: T,
    /// The physical place that answered.
    pub place: Place,
}

/// The bytes of a blob from an offset to its end. The source resumes by itself after a cut where it can; an `Err` item is
/// final.
pub type BlobStream = Pin<Box<dyn Stream<Item = Result<Bytes, Error>> + Send>>;

/// Content by its logical reference. A remote registry, a directory, an archive, a stack of them.
///
/// `name` is always the *logical* reference, as the user, a catalog or a release wrote it; which endpoint, folder or
/// tar file that means is the source's own business. Its tag and digest matter only to [`Source::manifest`]; the
/// other methods use its registry and repository. `near` is the place that served the manifest, asked first.
#[async_trait]
pub trait Source: Send + Sync {
    /// For messages: `docker://quay.io`, `/mnt/usb/mirror_000001.tar`.
    fn describe(&self) -> String;

    /// The digest (and, where it is cheap, size and type) that a reference stands for now, without reading the manifest
    /// where the place can answer that more cheaply (HEAD). A reference with a digest is looked up by digest only.
    async fn resolve(&self, name: &Reference) -> Result<Found<Digest>, Error>;

    /// The manifest that `name` stands for: by its digest when it has one (the tag is then ignored), else by its tag. The bytes have been
    /// verified against the digest; [`crate::ErrorKind::NotFound`] when no place has it.
    async fn manifest(&self, name: &Reference) -> Result<Found<Manifest>, Error>;

    /// The manifest at one place only, the one that served what it belongs to; `None` when that place does not have it. A source that
    /// is a single place has nothing to restrict.
    async fn manifest_at(&self, name: &Reference, _place: &Place) -> Result<Option<Manifest>, Error> {
        match self.manifest(name).await {
            Ok(found) => Ok(Some(found.value)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The bytes of a blob of `name`'s repository from `offset` (less than or equal to the descriptor's size). They are *not*
    /// verified here, since a stream from the middle cannot be; whoever writes them does.
    async fn blob(
        &self,
        name: &Reference,
        blob: &Descriptor,
        offset: u64,
        near: Option<&Place>,
    ) -> Result<BlobStream, Error>;

    /// Whether this run has read the blob's bytes already and found them to be those that were once verified against its digest.
    /// Who sends them to a place that computes the digest itself need not compute it again.
    fn is_proved(&self, name: &Reference, blob: &Descriptor) -> bool {
        let _ = (name, blob);
        false
    }

    /// Whether the repository serves this blob (used for foreign layers).
    async fn has_blob(&self, name: &Reference, blob: &Descriptor, near: Option<&Place>) -> Result<bool, Error>;

    /// Descriptors of the manifests whose subject is `subject` in `name`'s repository, at the place `near`: by the referrers API or by the
    /// fallback tag. Empty when there are none.
    async fn referrers(
        &self,
        name: &Reference,
        subject: &Digest,
        near: Option<&Place>,
    ) -> Result<Vec<Descriptor>, Error>;

    /// All tags of `name`'s repository, sorted.
    async fn tags(&self, name: &Reference) -> Result<Vec<Tag>, Error>;
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
