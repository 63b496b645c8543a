//! Image references: `host[:port]/path[:tag][@digest]`.
//!
//! The grammar and the normalisation are those of containers/image (mirror-rules.md 1), which is what CRI-O, podman and
//! oc-mirror go by. [`Reference`] additionally takes IPv6 hosts in brackets, which containers/image refuses;
//! [`parse_docker`] is the strict form.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Digest, digest};

/// Most bytes of `host/path` (mirror-rules 1.1 rule 7).
pub const MAX_NAME_BYTES: usize = 255;
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
pub fn parse_docker(text: &str) -> Result<Reference, ParseError> {
    parse(text, false)
}

impl FromStr for Reference {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        parse(text, true)
    }
}

fn parse(text: &str, ipv6: bool) -> Result<Reference, ParseError> {
    if text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
        return Err(ParseError::Identifier);
    }
    let (domain, rest) = match text.split_once('/') {
        Some((first, rest))
            if first.contains('.') || first.contains(':') || first == "localhost" || (ipv6 && is_ipv6_host(first)) =>
        {
            (first, rest)
        }
        _ => ("docker.io", text),
    };
    let domain = if domain == "index.docker.io" { "docker.io" } else { domain };
    let library = domain == "docker.io" && !rest.contains('/');
    let rest = if library { format!("library/{rest}") } else { rest.to_owned() };
    let path_end = rest.find(':').unwrap_or(rest.len());
    if rest[..path_end].bytes().any(|b| b.is_ascii_uppercase()) {
        return Err(ParseError::Uppercase);
    }
    let (named, digest_text) = match rest.split_once('@') {
        Some((named, digest)) => (named, Some(digest)),
        None => (rest.as_str(), None),
    };
    let (path, tag) = match named.split_once(':') {
        Some((path, tag)) => (path, Some(Tag::new(tag)?)),
        None => (named, None),
    };
    if !is_path(path) || !(is_domain(domain) || (ipv6 && is_ipv6_host(domain))) {
        return Err(ParseError::Format);
    }
    if digest_text.is_some_and(|d| !is_digest_syntax(d)) {
        return Err(ParseError::Format);
    }
    if domain.len() + 1 + path.len() > MAX_NAME_BYTES {
        return Err(ParseError::TooLong);
    }
    let digest = digest_text.map(str::parse).transpose()?;
    Ok(Reference { registry: Registry(domain.into()), repository: Repository(path.into()), tag, digest })
}

fn is_domain(text: &str) -> bool {
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    let label = |l: &str| {
        let bytes = l.as_bytes();
        !l.is_empty()
            && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
            && bytes[0] != b'-'
            && bytes[bytes.len() - 1] != b'-'
    };
    host.split('.').all(label) && port.is_none_or(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()))
}

fn is_ipv6_host(text: &str) -> bool {
    let Some(rest) = text.strip_prefix('[') else { return false };
    let Some((address, port)) = rest.split_once(']') else { return false };
    let port_ok = port.is_empty()
        || port.strip_prefix(':').is_some_and(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()));
    address.parse::<std::net::Ipv6Addr>().is_ok() && port_ok
}

fn is_path(text: &str) -> bool {
    text.split('/').all(is_component)
}

fn is_component(text: &str) -> bool {
    let run = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    if bytes.is_empty() || !run(bytes[0]) || !run(bytes[bytes.len() - 1]) {
        return false;
    }
    let mut i = 0;
    while i < bytes.len() {
        if run(bytes[i]) {
            i += 1;
            continue;
        }
        let start = i;
        while i < bytes.len() && !run(bytes[i]) {
            i += 1;
        }
        let separator = &bytes[start..i];
        let legal = matches!(separator, b"." | b"_" | b"__") || separator.iter().all(|b| *b == b'-');
        if !legal {
            return false;
        }
    }
    true
}

fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let bytes = text.as_bytes();
    !bytes.is_empty()
        && bytes.len() <= MAX_TAG_BYTES
        && word(bytes[0])
        && bytes.iter().all(|b| word(*b) || matches!(b, b'.' | b'-'))
}

fn is_digest_syntax(text: &str) -> bool {
    let Some((algorithm, hex)) = text.split_once(':') else { return false };
    let part = |p: &str| {
        p.bytes().next().is_some_and(|b| b.is_ascii_alphabetic()) && p.bytes().all(|b| b.is_ascii_alphanumeric())
    };
    algorithm.split(['+', '.', '-', '_']).all(part) && hex.len() >= 32 && hex.bytes().all(|b| b.is_ascii_hexdigit())
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
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
