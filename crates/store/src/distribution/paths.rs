//! Where things lie below the root. Paths are made of checked names only, so that none leads outside.
//!
//! ```text
//! docker/registry/v2/
//!   blobs/ALG/HH/HEX/data                                     every blob and every manifest, raw bytes, once
//!   repositories/NAME/_layers/ALG/HEX/link                    the repository may serve this blob
//!   repositories/NAME/_manifests/revisions/ALG/HEX/link       the repository has this manifest
//!   repositories/NAME/_manifests/tags/TAG/current/link        what the tag points at
//!   repositories/NAME/_manifests/tags/TAG/index/ALG/HEX/link  everything the tag ever pointed at
//! .airlock/lock                                               held by the one writer of ours
//! .airlock/uploads/                                           bytes that have no name yet
//! .airlock/import/ALG-HEX                                     blobs that an import is fetching, or was
//! .airlock/generations/                                       what each import brought (`generations.rs`)
//! .airlock/scrubbed.json                                      what the last scrub found
//! .airlock/quarantine/ALG-HEX                                 files whose bytes do not have their digest
//! .airlock/removed/ID/TAG                                     tags that were removed, to be taken apart (`removed.rs`)
//! ```
//!
//! A `link` holds `ALG:HEX` and nothing else: 71 bytes for sha256.

use std::path::{Path, PathBuf};

use airlock_oci::{Digest, Repository, Tag};

/// The two kinds of link by which a repository owns content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Link {
    /// A blob.
    Layer,
    /// A manifest.
    Revision,
}

/// The paths below one root.
#[derive(Clone, Debug)]
pub(super) struct Paths {
    root: PathBuf,
}

impl Paths {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn registry(&self) -> PathBuf {
        self.root.join("docker/registry/v2")
    }

    pub(super) fn repositories(&self) -> PathBuf {
        self.root.join("docker/registry/v2/repositories")
    }

    pub(super) fn repository(&self, repository: &Repository) -> PathBuf {
        self.repositories().join(repository.as_str())
    }

    pub(super) fn data(&self, digest: &Digest) -> PathBuf {
        let (algorithm, hex) = (digest.algorithm().name(), digest.hex());
        self.root.join(format!("docker/registry/v2/blobs/{algorithm}/{}/{hex}/data", &hex[..2]))
    }

    pub(super) fn links(&self, repository: &Repository, kind: Link) -> PathBuf {
        let folder = match kind {
            Link::Layer => "_layers",
            Link::Revision => "_manifests/revisions",
        };
        self.repository(repository).join(folder)
    }

    pub(super) fn link(&self, repository: &Repository, kind: Link, digest: &Digest) -> PathBuf {
        self.links(repository, kind).join(format!("{}/{}/link", digest.algorithm(), digest.hex()))
    }

    pub(super) fn tags(&self, repository: &Repository) -> PathBuf {
        self.repository(repository).join("_manifests/tags")
    }

    pub(super) fn tag(&self, repository: &Repository, tag: &Tag) -> PathBuf {
        self.tags(repository).join(tag.as_str())
    }

    pub(super) fn current(&self, repository: &Repository, tag: &Tag) -> PathBuf {
        self.tag(repository, tag).join("current/link")
    }

    pub(super) fn history(&self, repository: &Repository, tag: &Tag) -> PathBuf {
        self.tag(repository, tag).join("index")
    }

    pub(super) fn past(&self, repository: &Repository, tag: &Tag, digest: &Digest) -> PathBuf {
        self.history(repository, tag).join(format!("{}/{}/link", digest.algorithm(), digest.hex()))
    }

    /// Our own folder, on the same file system as the content, so that publishing is one rename.
    pub(super) fn own(&self) -> PathBuf {
        self.root.join(".airlock")
    }

    pub(super) fn lock(&self) -> PathBuf {
        self.own().join("lock")
    }

    pub(super) fn quarantine(&self) -> PathBuf {
        self.own().join("quarantine")
    }

    /// Where imports keep blobs until they are whole. Unlike uploads, they are there after a restart.
    pub(super) fn imports(&self) -> PathBuf {
        self.own().join("import")
    }

    /// A blob that is being imported.
    pub(super) fn imported(&self, digest: &Digest) -> PathBuf {
        self.imports().join(format!("{}-{}", digest.algorithm(), digest.hex()))
    }

    pub(super) fn generations(&self) -> PathBuf {
        self.own().join("generations")
    }

    pub(super) fn removed(&self) -> PathBuf {
        self.own().join("removed")
    }

    pub(super) fn scrubbed(&self) -> PathBuf {
        self.own().join("scrubbed.json")
    }

    pub(super) fn uploads(&self) -> PathBuf {
        self.own().join("uploads")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_that_of_docker_distribution() {
        let paths = Paths::new(Path::new("/r"));
        let (repository, tag) = (Repository::new("a/b").unwrap(), Tag::new("v1").unwrap());
        let digest = Digest::of(b"abc");
        let hex = digest.hex();
        let is = |path: PathBuf, rest: String| {
            assert_eq!(path, PathBuf::from(format!("/r/docker/registry/v2/{rest}")));
        };
        is(paths.data(&digest), format!("blobs/sha256/ba/{hex}/data"));
        is(paths.link(&repository, Link::Layer, &digest), format!("repositories/a/b/_layers/sha256/{hex}/link"));
        is(
            paths.link(&repository, Link::Revision, &digest),
            format!("repositories/a/b/_manifests/revisions/sha256/{hex}/link"),
        );
        is(paths.current(&repository, &tag), "repositories/a/b/_manifests/tags/v1/current/link".into());
        is(
            paths.past(&repository, &tag, &digest),
            format!("repositories/a/b/_manifests/tags/v1/index/sha256/{hex}/link"),
        );
    }
}
