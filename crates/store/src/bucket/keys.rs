//! Where things lie in the bucket. Keys are made of checked names only.
//!
//! ```text
//! PREFIX/docker/registry/v2/...               docker-distribution's layout, as on a disk (see `distribution::paths`)
//! PREFIX/.airlock/uploads/ID/session          how far an upload is, and its bytes that fill no part yet
//! PREFIX/.airlock/uploads/ID/data             its bytes, while they are on their way to their name
//! PREFIX/.airlock/uploads/ID/held             a long request is at it; counts from when it was written
//! PREFIX/.airlock/repositories/NAME           there is a manifest in this repository (`/` is spelt `.`, see `marker`)
//! PREFIX/.airlock/emptied/NAME                there were manifests in this repository, and they were deleted
//! PREFIX/.airlock/leases/ALG-HEX              somebody relies on this old blob; counts from when it was written
//! PREFIX/.airlock/gc/lock                     a garbage collection is under way
//! PREFIX/.airlock/gc/condemned                the blobs that it is about to remove
//! PREFIX/.airlock/quarantine/ALG-HEX          bytes that had this name and another digest
//! PREFIX/.airlock/scrubbed.json               what the last scrub found
//! PREFIX/.airlock/clock                       written to learn what time the store has
//! ```

use airlock_oci::{Digest, Error, ErrorKind, Repository, Tag};
use object_store::path::Path;

use crate::distribution::UploadId;

/// The two kinds of link by which a repository owns content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Link {
    /// A blob.
    Layer,
    /// A manifest.
    Revision,
}

/// The keys below one prefix.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    /// Empty, or ends with a slash.
    prefix: String,
}

impl Keys {
    /// `prefix` may be empty; slashes around it do not matter.
    pub(super) fn new(prefix: &str) -> Result<Self, Error> {
        let path = Path::parse(prefix.trim_matches('/')).map_err(|e| {
            Error::new(ErrorKind::Invalid, "read the place in the bucket", e)
                .hint("write it as `s3://BUCKET/PREFIX`, without empty parts and special characters")
        })?;
        let prefix = if path.as_ref().is_empty() { String::new() } else { format!("{path}/") };
        Ok(Self { prefix })
    }

    fn at(&self, rest: &str) -> Path {
        Path::from(format!("{}{rest}", self.prefix))
    }

    pub(super) fn blobs(&self) -> Path {
        self.at("docker/registry/v2/blobs")
    }

    pub(super) fn data(&self, digest: &Digest) -> Path {
        let (algorithm, hex) = (digest.algorithm(), digest.hex());
        self.at(&format!("docker/registry/v2/blobs/{algorithm}/{}/{hex}/data", &hex[..2]))
    }

    pub(super) fn repositories(&self) -> Path {
        self.at("docker/registry/v2/repositories")
    }

    pub(super) fn repository(&self, repository: &Repository) -> Path {
        self.at(&format!("docker/registry/v2/repositories/{repository}"))
    }

    fn below(&self, repository: &Repository, rest: &str) -> Path {
        self.at(&format!("docker/registry/v2/repositories/{repository}/{rest}"))
    }

    pub(super) fn links(&self, repository: &Repository, kind: Link) -> Path {
        self.below(repository, if kind == Link::Layer { "_layers" } else { "_manifests/revisions" })
    }

    pub(super) fn link(&self, repository: &Repository, kind: Link, digest: &Digest) -> Path {
        Path::from(format!("{}/{}/{}/link", self.links(repository, kind), digest.algorithm(), digest.hex()))
    }

    pub(super) fn tags(&self, repository: &Repository) -> Path {
        self.below(repository, "_manifests/tags")
    }

    pub(super) fn current(&self, repository: &Repository, tag: &Tag) -> Path {
        self.below(repository, &format!("_manifests/tags/{tag}/current/link"))
    }

    pub(super) fn history(&self, repository: &Repository, tag: &Tag) -> Path {
        self.below(repository, &format!("_manifests/tags/{tag}/index"))
    }

    pub(super) fn past(&self, repository: &Repository, tag: &Tag, digest: &Digest) -> Path {
        Path::from(format!("{}/{}/{}/link", self.history(repository, tag), digest.algorithm(), digest.hex()))
    }

    pub(super) fn uploads(&self) -> Path {
        self.at(".airlock/uploads")
    }

    pub(super) fn upload(&self, id: &UploadId) -> Path {
        self.at(&format!(".airlock/uploads/{id}"))
    }

    pub(super) fn held(&self, id: &UploadId) -> Path {
        self.at(&format!(".airlock/uploads/{id}/held"))
    }

    pub(super) fn session(&self, id: &UploadId) -> Path {
        self.at(&format!(".airlock/uploads/{id}/session"))
    }

    pub(super) fn received(&self, id: &UploadId) -> Path {
        self.at(&format!(".airlock/uploads/{id}/data"))
    }

    pub(super) fn markers(&self) -> Path {
        self.at(".airlock/repositories")
    }

    /// One component whose order is that of the names: slashes become dots, and dots and dashes, which sort before slashes, what sorts
    /// before dots.
    pub(super) fn marker(&self, repository: &Repository) -> Path {
        self.spelt("repositories", repository)
    }

    pub(super) fn emptied(&self, repository: &Repository) -> Path {
        self.spelt("emptied", repository)
    }

    fn spelt(&self, folder: &str, repository: &Repository) -> Path {
        let spelt = |c: char| match c {
            '-' => '+',
            '.' => '-',
            '/' => '.',
            other => other,
        };
        let name: String = repository.as_str().chars().map(spelt).collect();
        self.at(&format!(".airlock/{folder}/{name}"))
    }

    /// The repository that a marker stands for.
    pub(super) fn marked(marker: &str) -> Option<Repository> {
        let spelt = |c: char| match c {
            '+' => '-',
            '-' => '.',
            '.' => '/',
            other => other,
        };
        Repository::new(&marker.chars().map(spelt).collect::<String>()).ok()
    }

    pub(super) fn leases(&self) -> Path {
        self.at(".airlock/leases")
    }

    pub(super) fn lease(&self, digest: &Digest) -> Path {
        self.at(&format!(".airlock/leases/{}-{}", digest.algorithm(), digest.hex()))
    }

    pub(super) fn lock(&self) -> Path {
        self.at(".airlock/gc/lock")
    }

    pub(super) fn condemned(&self) -> Path {
        self.at(".airlock/gc/condemned")
    }

    pub(super) fn quarantine(&self, digest: &Digest) -> Path {
        self.at(&format!(".airlock/quarantine/{}-{}", digest.algorithm(), digest.hex()))
    }

    pub(super) fn scrubbed(&self) -> Path {
        self.at(".airlock/scrubbed.json")
    }

    pub(super) fn clock(&self) -> Path {
        self.at(".airlock/clock")
    }
}

/// The digest of a key that ends with `ALG/HEX/link` or `ALG/HH/HEX/data`.
pub(super) fn digest_of(key: &Path) -> Option<Digest> {
    let parts: Vec<&str> = key.as_ref().rsplitn(5, '/').collect();
    match parts.as_slice() {
        ["link", hex, algorithm, ..] | ["data", hex, _, algorithm, ..] => format!("{algorithm}:{hex}").parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_that_of_docker_distribution() {
        let (repository, tag, digest) = (Repository::new("a/b").unwrap(), Tag::new("v1").unwrap(), Digest::of(b"abc"));
        let hex = digest.hex();
        for (prefix, before) in [("", ""), ("/x/y/", "x/y/")] {
            let keys = Keys::new(prefix).unwrap();
            let is = |key: Path, rest: String| assert_eq!(key.as_ref(), format!("{before}docker/registry/v2/{rest}"));
            is(keys.data(&digest), format!("blobs/sha256/ba/{hex}/data"));
            is(keys.link(&repository, Link::Layer, &digest), format!("repositories/a/b/_layers/sha256/{hex}/link"));
            is(
                keys.link(&repository, Link::Revision, &digest),
                format!("repositories/a/b/_manifests/revisions/sha256/{hex}/link"),
            );
            is(keys.current(&repository, &tag), "repositories/a/b/_manifests/tags/v1/current/link".into());
            is(
                keys.past(&repository, &tag, &digest),
                format!("repositories/a/b/_manifests/tags/v1/index/sha256/{hex}/link"),
            );
            assert_eq!(digest_of(&keys.data(&digest)), Some(digest.clone()));
            assert_eq!(digest_of(&keys.past(&repository, &tag, &digest)), Some(digest.clone()));
            assert_eq!(digest_of(&keys.current(&repository, &tag)), None);
        }
        assert!(Keys::new("a//b").is_err());
    }

    #[test]
    fn markers_sort_as_the_names_do() {
        let keys = Keys::new("p").unwrap();
        let mut names = ["a", "a-b", "a.b", "a/b", "a/b-c", "a/b/c", "a0", "a_b", "ab", "a--b"]
            .map(|n| Repository::new(n).unwrap());
        names.sort();
        let markers = names.clone().map(|name| keys.marker(&name));
        assert!(markers.is_sorted(), "{markers:?}");
        for (name, marker) in names.iter().zip(&markers) {
            assert_eq!(Keys::marked(marker.filename().unwrap()).as_ref(), Some(name));
        }
    }
}
