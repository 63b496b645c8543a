//! Image references: `host[:port]/path[:tag][@digest]`.
//!
//! The grammar and the normalisation are those of containers/image (mirror-rules.md 1), which is what CRI-O, podman and
//! oc-mirror go by: [`parse_docker`]. [`Reference`] additionally takes IPv6 hosts in brackets, which containers/image
//! refuses, and is always fully qualified.

mod grammar;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub(crate) use grammar::{Raw, is_domain, parse_raw};
use grammar::{is_ipv6_host, is_path, is_tag, looks_like_domain};

use crate::{Digest, digest};

/// Most bytes of `host/path` (mirror-rules 1.1 rule 7).
pub const MAX_NAME_BYTES: usize = 255;
/// Transports of containers/image without `//` that are not read here.
const FOREIGN_TRANSPORTS: [&str; 10] = [
    "atomic",
    "containers-storage",
    "dir",
    "docker-archive",
    "docker-daemon",
    "oci-archive",
    "ostree",
    "sif",
    "static",
    "tarball",
];
/// Most bytes of a tag.
pub const MAX_TAG_BYTES: usize = 128;

/// `host[:port]`, as written: the case is kept and compared.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Registry(Box<str>);

/// The path of a repository within its registry: `library/busybox`.
///
/// * One or more components of `[a-z0-9]+`, joined inside by `.`, `_`, `__` or any run of `-`, and by `/`.
/// * No registry host, tag or digest.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Repository(Box<str>);

/// A tag: `[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(Box<str>);

/// A fully qualified, normalised reference. Tag and digest may both be absent; nothing is added silently
/// except Docker Hub's host and `library/`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    registry: Registry,
    repository: Repository,
    tag: Option<Tag>,
    digest: Option<Digest>,
}

/// A name as containers/image normalises it: what CRI-O, podman and skopeo make of a text.
///
/// Differs from [`Reference`] in the odd forms that exist only there (see [`DockerName::domain`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DockerName {
    domain: Option<Registry>,
    path: Repository,
    tag: Option<Tag>,
    digest: Option<Digest>,
}

/// Why a text is not a reference (mirror-rules 1.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Nothing there.
    #[error("empty reference")]
    Empty,
    /// Not of the form `host/path:tag@digest`.
    #[error("invalid reference format: expected host/path:tag or host/path@sha256:…")]
    Format,
    /// The path must be in lower case.
    #[error("repository name must be lowercase")]
    Uppercase,
    /// Over [`MAX_NAME_BYTES`].
    #[error("repository name must not be longer than 255 characters")]
    TooLong,
    /// 64 hex digits: an image ID.
    #[error("looks like an image ID (64 hex digits), not like a reference")]
    Identifier,
    /// Wrong length or case of the digest.
    #[error("invalid digest: expected `sha256:` and 64 lower-case hex digits")]
    DigestFormat,
    /// Unknown algorithm.
    #[error("unsupported digest algorithm")]
    DigestAlgorithm,
}

impl ParseError {
    /// The class under which test vectors and `-o json` name this error.
    pub fn class(self) -> &'static str {
        match self {
            Self::Empty => "E_REF_EMPTY",
            Self::Format => "E_REF_FORMAT",
            Self::Uppercase => "E_REF_UPPERCASE",
            Self::TooLong => "E_REF_TOO_LONG",
            Self::Identifier => "E_REF_IDENTIFIER",
            Self::DigestFormat => "E_DIGEST_FORMAT",
            Self::DigestAlgorithm => "E_DIGEST_ALGORITHM",
        }
    }
}

impl From<digest::ParseError> for ParseError {
    fn from(error: digest::ParseError) -> Self {
        match error {
            digest::ParseError::Format => Self::DigestFormat,
            digest::ParseError::Algorithm => Self::DigestAlgorithm,
        }
    }
}

/// The transport that a name begins with where it is one that other tools know and a registry's image is hardly called by:
/// `dir:foo` would else be the tag `foo` of Docker Hub's `dir`.
pub fn foreign_transport(text: &str) -> Option<&'static str> {
    let (before, _) = text.split_once(':')?;
    FOREIGN_TRANSPORTS.into_iter().find(|transport| *transport == before)
}

impl Registry {
    /// Checks and keeps a host, with or without port; IPv6 in brackets.
    pub fn new(text: &str) -> Result<Self, ParseError> {
        if is_domain(text) || is_ipv6_host(text) { Ok(Self(text.into())) } else { Err(ParseError::Format) }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Repository {
    /// Checks and keeps a path.
    pub fn new(text: &str) -> Result<Self, ParseError> {
        if text.len() > MAX_NAME_BYTES {
            return Err(ParseError::TooLong);
        }
        if is_path(text) {
            Ok(Self(text.into()))
        } else if is_path(&text.to_ascii_lowercase()) {
            Err(ParseError::Uppercase)
        } else {
            Err(ParseError::Format)
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The components between the slashes.
    pub fn components(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }
}

impl Tag {
    /// Checks and keeps a tag.
    pub fn new(text: &str) -> Result<Self, ParseError> {
        if is_tag(text) { Ok(Self(text.into())) } else { Err(ParseError::Format) }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Reference {
    /// Puts a reference together from checked parts.
    pub fn new(registry: Registry, repository: Repository, tag: Option<Tag>, digest: Option<Digest>) -> Self {
        Self { registry, repository, tag, digest }
    }

    /// The host.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The path.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// The tag, if one was written.
    pub fn tag(&self) -> Option<&Tag> {
        self.tag.as_ref()
    }

    /// The digest, if one was written.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// `host/path`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// What a pull asks for: the tag is dropped where there is a digest, and `:latest` added where there is neither.
    pub fn pulled(mut self) -> Self {
        (self.tag, self.digest) = pulled(self.tag, self.digest);
        self
    }

    /// The same repository by digest only.
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { tag: None, digest: Some(digest), ..self.clone() }
    }

    /// The same repository by tag only.
    pub fn with_tag(&self, tag: Tag) -> Self {
        Self { tag: Some(tag), digest: None, ..self.clone() }
    }
}

/// Parses and normalises exactly as containers/image does (mirror-rules 1.1, 1.2): no IPv6.
pub fn parse_docker(text: &str) -> Result<DockerName, ParseError> {
    normalize(text, false)
}

/// Whether containers/image takes `text` for a short name, which is completed from the aliases and search registries:
/// one whose first part is no host with a dot, a port, or the name `localhost` (mirror-rules 2.7 step 1).
pub fn is_short_name(text: &str) -> Result<bool, ParseError> {
    Ok(parse_raw(text, false)?.is_short())
}

impl FromStr for Reference {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let name = normalize(text, true)?;
        // `reg_istry.corp/a` parses as a path without a host. Docker Hub cannot have been meant, so it is refused.
        let registry = name.domain.ok_or(ParseError::Format)?;
        Ok(Self { registry, repository: name.path, tag: name.tag, digest: name.digest })
    }
}

impl DockerName {
    /// The host. `None` for the one odd form that containers/image lets through: a first part with a dot which is no
    /// legal host (`reg_istry.corp/a`); it counts as part of the path, and as a short name (mirror-rules 1.2 rule 7).
    pub fn domain(&self) -> Option<&Registry> {
        self.domain.as_ref()
    }

    /// The path.
    pub fn path(&self) -> &Repository {
        &self.path
    }

    /// The tag, if one was written.
    pub fn tag(&self) -> Option<&Tag> {
        self.tag.as_ref()
    }

    /// The digest, if one was written.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The form for people: without `docker.io/`, and without `library/` below it.
    pub fn familiar(&self) -> String {
        let text = self.to_string();
        let Some(hub) = text.strip_prefix("docker.io/") else { return text };
        match self.path.as_str().strip_prefix("library/") {
            Some(official) if !official.contains('/') => hub["library/".len()..].to_owned(),
            _ => hub.to_owned(),
        }
    }

    /// What a pull asks for: the tag is dropped where there is a digest, and `:latest` added where there is neither.
    pub fn pulled(mut self) -> Self {
        (self.tag, self.digest) = pulled(self.tag, self.digest);
        self
    }
}

impl fmt::Display for DockerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(domain) = &self.domain {
            write!(f, "{domain}/")?;
        }
        write_parts(f, &self.path, self.tag.as_ref(), self.digest.as_ref())
    }
}

fn pulled(tag: Option<Tag>, digest: Option<Digest>) -> (Option<Tag>, Option<Digest>) {
    match digest {
        Some(digest) => (None, Some(digest)),
        None => (Some(tag.unwrap_or_else(|| Tag("latest".into()))), None),
    }
}

fn normalize(text: &str, ipv6: bool) -> Result<DockerName, ParseError> {
    if text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
        return Err(ParseError::Identifier);
    }
    let (domain, rest) = match text.split_once('/') {
        Some((first, rest)) if looks_like_domain(first) => (first, rest),
        _ => ("docker.io", text),
    };
    let domain = if domain == "index.docker.io" { "docker.io" } else { domain };
    let library = if domain == "docker.io" && !rest.contains('/') { "library/" } else { "" };
    let path_end = rest.find(':').unwrap_or(rest.len());
    if rest[..path_end].to_lowercase() != rest[..path_end] {
        return Err(ParseError::Uppercase);
    }
    let full = format!("{domain}/{library}{rest}");
    let raw = parse_raw(&full, ipv6)?;
    Ok(DockerName {
        domain: raw.domain.map(|d| Registry(d.into())),
        path: Repository(raw.path.into()),
        tag: raw.tag.map(|t| Tag(t.into())),
        digest: raw.digest,
    })
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/", self.registry)?;
        write_parts(f, &self.repository, self.tag.as_ref(), self.digest.as_ref())
    }
}

fn write_parts(
    f: &mut fmt::Formatter<'_>,
    path: &Repository,
    tag: Option<&Tag>,
    digest: Option<&Digest>,
) -> fmt::Result {
    f.write_str(path.as_str())?;
    if let Some(tag) = tag {
        write!(f, ":{tag}")?;
    }
    if let Some(digest) = digest {
        write!(f, "@{digest}")?;
    }
    Ok(())
}

macro_rules! text_form {
    ($($name:ident: $parse:expr),*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                $parse(&text).map_err(|e: ParseError| serde::de::Error::custom(format!("`{text}`: {e}")))
            }
        }
    )*};
}

text_form!(Registry: Registry::new, Repository: Repository::new, Tag: Tag::new, Reference: str::parse::<Reference>);

macro_rules! display_inner {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}

display_inner!(Registry, Repository, Tag);
