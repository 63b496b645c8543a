//! From a path to what is asked for.
//!
//! A repository's name may hold any word, `blobs` and `manifests` included, so a path is read from its right-hand end. It is
//! decoded once, before anything is checked; a slash or a control character that was encoded, and empty, `.` and `..` segments, are refused.

use airlock_oci::sink::ManifestName;
use airlock_oci::{Digest, Repository, Tag, digest, reference};
use airlock_store::distribution::UploadId;

use crate::query;

/// What a path below `/v2/` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// `/v2/`: whether this is a registry, and how one logs in.
    Base,
    /// `/v2/_catalog`
    Catalog,
    /// `/v2/<name>/tags/list`
    Tags(Repository),
    /// `/v2/<name>/manifests/<tag or digest>`
    Manifest(Repository, ManifestName),
    /// `/v2/<name>/blobs/<digest>`
    Blob(Repository, Digest),
    /// `/v2/<name>/blobs/uploads/`
    Uploads(Repository),
    /// `/v2/<name>/blobs/uploads/<id>`; `None`: an id that we never gave out.
    Upload(Repository, Option<UploadId>),
    /// `/v2/<name>/referrers/<digest>`
    Referrers(Repository, Digest),
}

/// Why a path names nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// It has not the form of any route.
    #[error("there is nothing at this path")]
    Unknown,
    /// Encoded slashes and control characters, `.`, `..`, empty segments, escapes that are none.
    #[error("the path is malformed")]
    Malformed,
    /// The repository's name breaks the grammar.
    #[error("invalid repository name: {0}")]
    Name(reference::ParseError),
    /// The tag breaks the grammar.
    #[error("invalid tag: up to 128 of letters, digits, `_`, `.` and `-`, not beginning with `.` or `-`")]
    Tag,
    /// The digest breaks the grammar.
    #[error("{0}")]
    Digest(digest::ParseError),
}

/// Reads a path as it stands in the request line.
pub fn parse(path: &str) -> Result<Route, RouteError> {
    let rest = match path.strip_prefix("/v2") {
        Some("" | "/") => return Ok(Route::Base),
        Some(rest) => rest.strip_prefix('/').ok_or(RouteError::Unknown)?,
        None => return Err(RouteError::Unknown),
    };
    let mut segments = Vec::new();
    let mut raw = rest.split('/').peekable();
    while let Some(segment) = raw.next() {
        let segment = query::decode(segment).map_err(|_| RouteError::Malformed)?;
        let last = raw.peek().is_none();
        let has_control = segment.bytes().any(|b| b.is_ascii_control());
        if has_control || segment.contains('/') || segment == "." || segment == ".." || (segment.is_empty() && !last) {
            return Err(RouteError::Malformed);
        }
        segments.push(segment);
    }
    let words: Vec<&str> = segments.iter().map(String::as_str).collect();
    match words[..] {
        ["_catalog"] => Ok(Route::Catalog),
        [ref name @ .., "tags", "list"] => Ok(Route::Tags(repository(name)?)),
        [ref name @ .., "blobs", "uploads"] => Ok(Route::Uploads(repository(name)?)),
        [ref name @ .., "blobs", "uploads", ""] => Ok(Route::Uploads(repository(name)?)),
        [ref name @ .., "blobs", "uploads", id] => Ok(Route::Upload(repository(name)?, id.parse().ok())),
        [ref name @ .., "blobs", digest] => Ok(Route::Blob(repository(name)?, self::digest(digest)?)),
        [ref name @ .., "referrers", digest] => Ok(Route::Referrers(repository(name)?, self::digest(digest)?)),
        [ref name @ .., "manifests", at] => {
            let name = repository(name)?;
            let at = if at.contains(':') {
                ManifestName::Digest(digest(at)?)
            } else {
                ManifestName::Tag(Tag::new(at).map_err(|_| RouteError::Tag)?)
            };
            Ok(Route::Manifest(name, at))
        }
        _ => Err(RouteError::Unknown),
    }
}

impl Route {
    /// The repository that it is about.
    pub fn repository(&self) -> Option<&Repository> {
        match self {
            Self::Base | Self::Catalog => None,
            Self::Tags(name)
            | Self::Manifest(name, _)
            | Self::Blob(name, _)
            | Self::Uploads(name)
            | Self::Upload(name, _)
            | Self::Referrers(name, _) => Some(name),
        }
    }
}

fn repository(segments: &[&str]) -> Result<Repository, RouteError> {
    if segments.is_empty() {
        return Err(RouteError::Unknown);
    }
    Repository::new(&segments.join("/")).map_err(RouteError::Name)
}

fn digest(text: &str) -> Result<Digest, RouteError> {
    text.parse().map_err(RouteError::Digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Repository {
        Repository::new(text).unwrap()
    }

    #[test]
    fn paths_are_read_from_the_right() {
        let digest = Digest::of(b"abc");
        let tag = |t: &str| ManifestName::Tag(Tag::new(t).unwrap());
        let id: UploadId = "0123456789abcdef0123456789abcdef".parse().unwrap();
        for (path, route) in [
            ("/v2".to_owned(), Route::Base),
            ("/v2/".into(), Route::Base),
            ("/v2/_catalog".into(), Route::Catalog),
            ("/v2/a/tags/list".into(), Route::Tags(name("a"))),
            ("/v2/tags/list/tags/list".into(), Route::Tags(name("tags/list"))),
            ("/v2/a/manifests/list".into(), Route::Manifest(name("a"), tag("list"))),
            ("/v2/a/tags/manifests/list".into(), Route::Manifest(name("a/tags"), tag("list"))),
            ("/v2/a/blobs/uploads/manifests/v1".into(), Route::Manifest(name("a/blobs/uploads"), tag("v1"))),
            (format!("/v2/a/b/manifests/{digest}"), Route::Manifest(name("a/b"), ManifestName::Digest(digest.clone()))),
            (format!("/v2/a/blobs/{digest}"), Route::Blob(name("a"), digest.clone())),
            (format!("/v2/blobs/blobs/sha256%3A{}", digest.hex()), Route::Blob(name("blobs"), digest.clone())),
            ("/v2/a/blobs/uploads".into(), Route::Uploads(name("a"))),
            ("/v2/a/blobs/uploads/".into(), Route::Uploads(name("a"))),
            (format!("/v2/a/blobs/uploads/{id}"), Route::Upload(name("a"), Some(id))),
            ("/v2/a/blobs/uploads/xyz".into(), Route::Upload(name("a"), None)),
            (format!("/v2/a/referrers/{digest}"), Route::Referrers(name("a"), digest.clone())),
        ] {
            assert_eq!(parse(&path), Ok(route), "{path}");
        }
    }

    #[test]
    fn what_leads_nowhere_is_refused_by_its_reason() {
        for (path, error) in [
            ("/", RouteError::Unknown),
            ("/v1/", RouteError::Unknown),
            ("/v2x", RouteError::Unknown),
            ("/v2/manifests/x", RouteError::Unknown),
            ("/v2/a", RouteError::Unknown),
            ("/v2/a/manifests/x/", RouteError::Unknown),
            ("/v2/a/_catalog", RouteError::Unknown),
            ("/v2//a/tags/list", RouteError::Malformed),
            ("/v2/a/../b/tags/list", RouteError::Malformed),
            ("/v2/a/%2e%2e/tags/list", RouteError::Malformed),
            ("/v2/a%2fb/tags/list", RouteError::Malformed),
            ("/v2/a/%/tags/list", RouteError::Malformed),
            ("/v2/a/manifests/%00", RouteError::Malformed),
            ("/v2/A/tags/list", RouteError::Name(reference::ParseError::Uppercase)),
            ("/v2/_x/tags/list", RouteError::Name(reference::ParseError::Format)),
            ("/v2/a/manifests/.x", RouteError::Tag),
            ("/v2/a/manifests/sha256:baddigeststring", RouteError::Digest(digest::ParseError::Format)),
            ("/v2/a/blobs/md5:00", RouteError::Digest(digest::ParseError::Algorithm)),
            ("/v2/a/referrers/x", RouteError::Digest(digest::ParseError::Format)),
        ] {
            assert_eq!(parse(path), Err(error), "{path}");
        }
        let long = format!("/v2/{}/tags/list", "a".repeat(256));
        assert_eq!(parse(&long), Err(RouteError::Name(reference::ParseError::TooLong)));
    }
    /// Pieces of paths put together at random: nothing panics, and what is accepted is what its parts say.
    #[test]
    fn whatever_is_asked_is_understood_or_refused() {
        let digest = Digest::of(b"abc").to_string();
        let pieces = [
            "/v2/",
            "/",
            "a",
            "b-c",
            "_catalog",
            "tags",
            "list",
            "manifests",
            "blobs",
            "uploads",
            "referrers",
            "..",
            "%2e",
            "%2F",
            "%",
            "A",
            "__",
            "latest",
            "0123456789abcdef0123456789abcdef",
            &digest,
            "sha256:",
            "\u{e9}",
            "%c3%a9",
            "?",
            "",
        ];
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let (mut accepted, mut refused) = (0, 0);
        for _ in 0..50_000 {
            let mut path = String::from("/v2/");
            loop {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                path.push_str(pieces[(state % pieces.len() as u64) as usize]);
                if state >> 32 & 1 == 1 {
                    path.push('/');
                }
                if (state >> 40).is_multiple_of(4) {
                    break;
                }
            }
            match parse(&path) {
                Ok(route) => {
                    accepted += 1;
                    if let Some(name) = route.repository() {
                        assert!(Repository::new(name.as_str()).is_ok());
                        assert!(path.starts_with(&format!("/v2/{name}/")), "{path}");
                    }
                }
                Err(_) => refused += 1,
            }
        }
        assert!(accepted > 100 && refused > 100, "{accepted} {refused}");
    }
}
