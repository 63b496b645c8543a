//! Where content is written to.

use async_trait::async_trait;

use crate::{BlobStream, Descriptor, Digest, Error, Manifest, Repository, Tag};

/// What a sink can do, so that the engine adapts instead of trying and failing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abilities {
    /// A blob present in one repository can be made available in another without its bytes.
    pub mount: bool,
    /// Accepts indexes whose children are not all there. `None`: not known before the first such push.
    pub sparse_index: Option<bool>,
    /// Keeps track of referrers itself; otherwise a fallback tag is written with each.
    pub referrers: bool,
    /// Manifests can be deleted.
    pub delete: bool,
}

/// A blob's bytes, as often and from wherever the sink needs them.
#[async_trait]
pub trait Content: Send + Sync {
    /// Opens the bytes from `offset`. A sink that lost its connection opens again from where the other side stopped.
    async fn open(&self, offset: u64) -> Result<BlobStream, Error>;

    /// As [`Source::is_proved`](crate::Source::is_proved).
    fn is_proved(&self) -> bool {
        false
    }
}

/// Takes content. Repositories are the sink's own: a registry sink puts its host and namespace before them.
#[async_trait]
pub trait Sink: Send + Sync {
    /// For messages: `docker://mirror.example:5000/ns`, `file:///mnt/usb`.
    fn describe(&self) -> String;

    /// What this sink can do.
    fn abilities(&self) -> Abilities;

    /// The digest of the manifest at a tag, or `Some` of the same digest when that manifest is in the repository.
    async fn head_manifest(&self, repository: &Repository, at: &ManifestName) -> Result<Option<Digest>, Error>;

    /// Whether the blob is in the repository, whole.
    async fn has_blob(&self, repository: &Repository, blob: &Descriptor) -> Result<bool, Error>;

    /// [`has_blob`](Self::has_blob), asked by who writes the blob where it is absent: with the same question a sink may open what
    /// the write needs.
    async fn offer_blob(&self, repository: &Repository, blob: &Descriptor) -> Result<bool, Error> {
        self.has_blob(repository, blob).await
    }

    /// Makes a blob of `from` available in `repository`. `false`: the sink did not; write it.
    async fn mount_blob(&self, repository: &Repository, blob: &Descriptor, from: &Repository) -> Result<bool, Error>;

    /// Writes a blob whole. The sink hashes what passes and completes nothing whose digest or size is wrong
    /// ([`crate::ErrorKind::Content`]); where the other side computes the digest, the hash of [proved](Content::is_proved) content is
    /// left to it. It opens `content` at the offset that it has already.
    async fn write_blob(&self, repository: &Repository, blob: &Descriptor, content: &dyn Content) -> Result<(), Error>;

    /// Writes a manifest, byte for byte, under its digest and, with a tag, under that tag. Its blobs and children are
    /// there already, except those that a sparse index leaves out.
    async fn put_manifest(&self, repository: &Repository, manifest: &Manifest, tag: Option<&Tag>) -> Result<(), Error>;

    /// Removes a tag (alone) or a manifest with all its tags.
    async fn delete_manifest(&self, repository: &Repository, at: &ManifestName) -> Result<(), Error>;
}

/// A manifest within a repository.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ManifestName {
    /// What the tag points at now.
    Tag(Tag),
    /// Exactly this content.
    Digest(Digest),
}

impl std::fmt::Display for ManifestName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tag(tag) => tag.fmt(f),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}
