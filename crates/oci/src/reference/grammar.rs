//! The grammar of references (mirror-rules.md 1.1), adding nothing: which texts are names, tags and digests, and where they part.

use super::{MAX_NAME_BYTES, MAX_TAG_BYTES, ParseError};
use crate::Digest;

/// The parts of a text as the grammar splits it, before normalisation.
pub(crate) struct Raw<'a> {
    pub(crate) domain: Option<&'a str>,
    pub(crate) path: &'a str,
    pub(crate) tag: Option<&'a str>,
    pub(crate) digest: Option<Digest>,
}

impl Raw<'_> {
    /// Whether the domain is missing or does not look like one.
    pub(crate) fn is_short(&self) -> bool {
        !self.domain.is_some_and(looks_like_domain)
    }

    /// Domain and path as written, without tag and digest.
    pub(crate) fn name(&self) -> String {
        match self.domain {
            Some(domain) => format!("{domain}/{}", self.path),
            None => self.path.to_owned(),
        }
    }
}

/// Whether what stands before the first slash is meant as a host.
pub(super) fn looks_like_domain(first: &str) -> bool {
    first.contains(['.', ':']) || first == "localhost"
}

/// Splits by the grammar alone (mirror-rules 1.1), adding nothing.
pub(crate) fn parse_raw(text: &str, ipv6: bool) -> Result<Raw<'_>, ParseError> {
    if text.is_empty() {
        return Err(ParseError::Empty);
    }
    let Some((domain, path, tag, digest)) = split(text, ipv6) else {
        let lower = text.to_lowercase();
        let only_case = lower != text && split(&lower, ipv6).is_some();
        return Err(if only_case { ParseError::Uppercase } else { ParseError::Format });
    };
    if domain.map_or(0, |d| d.len() + 1) + path.len() > MAX_NAME_BYTES {
        return Err(ParseError::TooLong);
    }
    let digest = digest.map(str::parse).transpose()?;
    Ok(Raw { domain, path, tag, digest })
}

type Parts<'a> = (Option<&'a str>, &'a str, Option<&'a str>, Option<&'a str>);

fn split(text: &str, ipv6: bool) -> Option<Parts<'_>> {
    let (named, digest) = match text.split_once('@') {
        Some((named, digest)) => (named, Some(digest)),
        None => (text, None),
    };
    // A colon before the last slash belongs to the host's port.
    let last = named.rfind('/').map_or(0, |at| at + 1);
    let (name, tag) = match named[last..].split_once(':') {
        Some((component, tag)) => (&named[..last + component.len()], Some(tag)),
        None => (named, None),
    };
    if !tag.is_none_or(is_tag) || !digest.is_none_or(is_digest_syntax) {
        return None;
    }
    match name.split_once('/') {
        Some((domain, path)) if (is_domain(domain) || (ipv6 && is_ipv6_host(domain))) && is_path(path) => {
            Some((Some(domain), path, tag, digest))
        }
        _ => is_path(name).then_some((None, name, tag, digest)),
    }
}

/// Whether the text is a host with or without port by the grammar of containers/image.
pub(crate) fn is_domain(text: &str) -> bool {
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

/// An IPv6 address in brackets, with or without port.
pub(super) fn is_ipv6_host(text: &str) -> bool {
    let Some(rest) = text.strip_prefix('[') else { return false };
    let Some((address, port)) = rest.split_once(']') else { return false };
    let port_ok = port.is_empty()
        || port.strip_prefix(':').is_some_and(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()));
    address.parse::<std::net::Ipv6Addr>().is_ok() && port_ok
}

/// One or more components.
pub(super) fn is_path(text: &str) -> bool {
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

/// A tag.
pub(super) fn is_tag(text: &str) -> bool {
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
