//! Names at the destination (oc-mirror 4.2, 4.3, 4.5).

use airlock_oci::{Digest, Error, ErrorKind, Reference, Registry, Repository, Tag, reference};

use crate::config::{ImageLocation, ImageName};

/// The registry part of the reference under which an OCI layout on disk is known inside a plan: such an image has no registry.
pub const LAYOUT_REGISTRY: &str = "oci-layout.localhost";

/// The registry part of the reference under which content that was built while planning is known.
pub const GENERATED_REGISTRY: &str = "generated.localhost";

/// Whether a reference names nothing that a registry has: a layout on disk, or what was built while planning.
pub fn is_local(reference: &Reference) -> bool {
    [LAYOUT_REGISTRY, GENERATED_REGISTRY].contains(&reference.registry().as_str())
}

/// A registry as destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Host.
    pub registry: Registry,
    /// Prefix of every repository.
    pub namespace: Option<Repository>,
    /// Most components of a repository, prefix included; 0: no limit.
    pub max_nested_paths: usize,
}

/// The repository under which an image is stored, without prefix: its path as written, without the first component if there are
/// several. So `library/nginx` is stored as `nginx`, as oc-mirror does.
pub fn repository_of(name: &ImageName) -> Result<Repository, Error> {
    let path = match &name.location {
        ImageLocation::Layout(path) => {
            let text = path.to_string_lossy();
            let text = text.trim_start_matches("./").trim_matches('/').to_owned();
            return Repository::new(&text).map_err(|e| {
                Error::new(
                    ErrorKind::Invalid,
                    format!("name `{}` at the destination", name.text),
                    format!("`{text}`: {e}"),
                )
                .hint("set `targetRepo` to a name in lower case")
            });
        }
        ImageLocation::Registry(reference) => {
            let written = name.text.split('@').next().unwrap_or(&name.text);
            let components = written.split('/').count();
            if components == 1 {
                let own = reference.repository().as_str();
                own.strip_prefix("library/").unwrap_or(own).to_owned()
            } else {
                let (_, rest) = written.split_once('/').unwrap_or(("", written));
                rest.split(':').next().unwrap_or(rest).to_owned()
            }
        }
    };
    Repository::new(&path)
        .map_err(|e| Error::new(ErrorKind::Invalid, format!("name `{}` at the destination", name.text), e))
}

/// The tag under which an image is stored: its own, or `sha256-<hex>` for one that is known by digest only.
pub fn tag_of(source: &Reference, digest: &Digest) -> Tag {
    source.tag().cloned().unwrap_or_else(|| digest_tag(digest))
}

/// `<algorithm>-<hex>`, cut to 127 characters where a tag would be too long (sha512).
pub fn digest_tag(digest: &Digest) -> Tag {
    let mut text = format!("{}-{}", digest.algorithm(), digest.hex());
    if text.len() > reference::MAX_TAG_BYTES {
        text.truncate(reference::MAX_TAG_BYTES - 1);
    }
    // An algorithm, a dash and hex digits are always a tag.
    Tag::new(&text).unwrap_or_else(|_| unreachable!("`{text}` is a tag"))
}

impl Target {
    /// Parses `host[:port][/namespace]`, without tag or digest.
    pub fn parse(text: &str, max_nested_paths: usize) -> Result<Self, Error> {
        let text = text.trim_end_matches('/');
        let invalid = |cause: String| {
            Error::new(ErrorKind::Invalid, format!("read the destination `docker://{text}`"), cause)
                .hint("expected docker://host[:port][/namespace]")
        };
        let (host, namespace) = match text.split_once('/') {
            Some((host, namespace)) => (host, Some(namespace)),
            None => (text, None),
        };
        let registry = Registry::new(host).map_err(|_| invalid(format!("`{host}` is not a registry's host")))?;
        let namespace = namespace
            .map(|n| Repository::new(n).map_err(|e| invalid(format!("`{n}`: {e}; a tag or digest has no place here"))))
            .transpose()?;
        Ok(Self { registry, namespace, max_nested_paths })
    }

    /// The repository in the registry: with prefix, and with at most so many components: the first `N - 1` stay, the rest are joined by `-`.
    pub fn repository(&self, repository: &Repository) -> Result<Repository, Error> {
        let full = match &self.namespace {
            Some(namespace) => format!("{namespace}/{repository}"),
            None => repository.to_string(),
        };
        let components: Vec<&str> = full.split('/').collect();
        let limit = self.max_nested_paths;
        let path = if limit == 0 || components.len() <= limit {
            full
        } else {
            let (kept, rest) = components.split_at(limit - 1);
            let joined = rest.join("-");
            if kept.is_empty() { joined } else { format!("{}/{joined}", kept.join("/")) }
        };
        Repository::new(&path).map_err(|e| {
            Error::new(
                ErrorKind::Invalid,
                format!("name `{repository}` at `{}`", self.registry),
                format!("`{path}`: {e}"),
            )
        })
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.registry)?;
        if let Some(namespace) = &self.namespace {
            write!(f, "/{namespace}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(text: &str, limit: usize) -> Target {
        Target::parse(text, limit).unwrap()
    }

    #[test]
    fn nested_paths_are_joined_from_the_limit_on() {
        let name = Repository::new("ubi8/ubi/x").unwrap();
        for (destination, limit, expected) in [
            ("r.io/ns", 0, "ns/ubi8/ubi/x"),
            ("r.io/ns", 1, "ns-ubi8-ubi-x"),
            ("r.io/ns", 2, "ns/ubi8-ubi-x"),
            ("r.io/ns", 3, "ns/ubi8/ubi-x"),
            ("r.io/ns", 4, "ns/ubi8/ubi/x"),
            ("r.io/a/b", 1, "a-b-ubi8-ubi-x"),
            ("r.io", 1, "ubi8-ubi-x"),
            ("[::1]:5000", 2, "ubi8/ubi-x"),
        ] {
            assert_eq!(
                target(destination, limit).repository(&name).unwrap().as_str(),
                expected,
                "{destination} {limit}"
            );
        }
    }

    #[test]
    fn a_destination_with_a_tag_is_refused() {
        for bad in ["r.io/ns:v1", "r.io/NS", "", "r.io/a@sha256:00"] {
            assert!(Target::parse(bad, 0).is_err(), "{bad}");
        }
    }

    #[test]
    fn digests_become_tags() {
        assert!(digest_tag(&Digest::of(b"")).as_str().starts_with("sha256-e3b0"));
        let long = digest_tag(&Digest::of_with(airlock_oci::Algorithm::Sha512, b""));
        assert_eq!(long.as_str().len(), 127);
    }
}
