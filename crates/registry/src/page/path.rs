//! The page's own paths, both ways. None of them begins with `/v2`.
//!
//! ```text
//! /                                   what is mirrored
//! /releases  /catalogs  /charts       the whole lists
//! /repositories                       every repository
//! /r/NAME                             a repository: its tags
//! /r/NAME:TAG  /r/NAME@DIGEST         an image: platforms, layers, signatures
//! /release/NAME@DIGEST                a release: its components
//! /catalog/NAME@DIGEST                a catalog: packages, and with ?package= their channels
//! /search?q=                          finds
//! /clusters  /ca.crt                  what a cluster must be told
//! /login                              asks for a password where reading needs none
//! /page/…                             the style sheet and the icon, for everybody
//! ```

use airlock_oci::sink::ManifestName;
use airlock_oci::{Digest, Repository, Tag};

use crate::query;
use crate::route::RouteError;

/// Where the style sheet lies.
pub(super) const STYLE: &str = "/page/style.css";
/// Where the icon lies.
pub(super) const ICON: &str = "/page/icon.svg";

/// What a path of the page names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// What is mirrored.
    Overview,
    /// All releases.
    Releases,
    /// All catalogs.
    Catalogs,
    /// All charts.
    Charts,
    /// All repositories.
    Repositories,
    /// One repository.
    Repository(Repository),
    /// One image.
    Image(Repository, ManifestName),
    /// What a release consists of.
    Release(Repository, Digest),
    /// What a catalog offers.
    Catalog(Repository, Digest),
    /// Finds.
    Search,
    /// What a cluster must be told.
    Clusters,
    /// The certificate that clients must trust.
    Authority,
    /// Asks for a password.
    Login,
    /// The style sheet.
    Style,
    /// The icon.
    Icon,
}

/// Reads a path as it stands in the request line; `None` when it is none of the page's.
pub(crate) fn parse(path: &str) -> Option<Result<Place, RouteError>> {
    Some(Ok(match path {
        "/" => Place::Overview,
        "/releases" => Place::Releases,
        "/catalogs" => Place::Catalogs,
        "/charts" => Place::Charts,
        "/repositories" => Place::Repositories,
        "/search" => Place::Search,
        "/clusters" => Place::Clusters,
        "/ca.crt" => Place::Authority,
        "/login" => Place::Login,
        STYLE => Place::Style,
        ICON => Place::Icon,
        _ => return below(path),
    }))
}

fn below(path: &str) -> Option<Result<Place, RouteError>> {
    let (first, rest) = path.strip_prefix('/')?.split_once('/')?;
    Some(match first {
        "r" => named(rest).map(|(name, at)| match at {
            None => Place::Repository(name),
            Some(at) => Place::Image(name, at),
        }),
        "release" | "catalog" => named(rest).and_then(|(name, at)| match at {
            Some(ManifestName::Digest(digest)) if first == "release" => Ok(Place::Release(name, digest)),
            Some(ManifestName::Digest(digest)) => Ok(Place::Catalog(name, digest)),
            _ => Err(RouteError::Unknown),
        }),
        _ => return None,
    })
}

/// `NAME`, `NAME:TAG` or `NAME@DIGEST`.
fn named(text: &str) -> Result<(Repository, Option<ManifestName>), RouteError> {
    let mut segments = Vec::new();
    for segment in text.split('/') {
        let segment = query::decode(segment).map_err(|_| RouteError::Malformed)?;
        // An encoded slash would make two segments of one.
        if segment.is_empty() || segment.contains('/') || segment == "." || segment == ".." {
            return Err(RouteError::Malformed);
        }
        segments.push(segment);
    }
    let whole = segments.join("/");
    let (name, at) = if let Some((name, digest)) = whole.split_once('@') {
        (name, Some(ManifestName::Digest(digest.parse().map_err(RouteError::Digest)?)))
    } else if let Some((name, tag)) = whole.split_once(':') {
        (name, Some(ManifestName::Tag(Tag::new(tag).map_err(|_| RouteError::Tag)?)))
    } else {
        (whole.as_str(), None)
    };
    Ok((Repository::new(name).map_err(RouteError::Name)?, at))
}

impl Place {
    /// The repository that it is about.
    pub(super) fn repository(&self) -> Option<&Repository> {
        match self {
            Self::Repository(name) | Self::Image(name, _) | Self::Release(name, _) | Self::Catalog(name, _) => {
                Some(name)
            }
            _ => None,
        }
    }
}

/// The path of a repository's page.
pub(super) fn repository(name: &Repository) -> String {
    format!("/r/{name}")
}

/// The path of a tag's page.
pub(super) fn tag(name: &Repository, tag: &Tag) -> String {
    format!("/r/{name}:{tag}")
}

/// The path of an image's page.
pub(super) fn image(name: &Repository, digest: &Digest) -> String {
    format!("/r/{name}@{digest}")
}

/// The path of a release's page.
pub(super) fn release(name: &Repository, digest: &Digest) -> String {
    format!("/release/{name}@{digest}")
}

/// The path of a catalog's page.
pub(super) fn catalog(name: &Repository, digest: &Digest) -> String {
    format!("/catalog/{name}@{digest}")
}

/// A value for a query, percent-encoded.
pub(super) fn value(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'/' | b':' | b'@');
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_comes_back() {
        let name = Repository::new("openshift/release-images").unwrap();
        let (digest, v1) = (Digest::of(b"x"), Tag::new("v1").unwrap());
        for (path, place) in [
            ("/".to_owned(), Place::Overview),
            ("/search".into(), Place::Search),
            (repository(&name), Place::Repository(name.clone())),
            (tag(&name, &v1), Place::Image(name.clone(), ManifestName::Tag(v1.clone()))),
            (image(&name, &digest), Place::Image(name.clone(), ManifestName::Digest(digest.clone()))),
            ("/r/openshift/release-images%3Av1".into(), Place::Image(name.clone(), ManifestName::Tag(v1.clone()))),
            (release(&name, &digest), Place::Release(name.clone(), digest.clone())),
            (catalog(&name, &digest), Place::Catalog(name.clone(), digest.clone())),
        ] {
            assert_eq!(parse(&path), Some(Ok(place)), "{path}");
        }
    }

    #[test]
    fn what_is_not_the_pages_is_left_to_the_protocol() {
        for path in ["/v2/", "/v2", "/v2/a/manifests/b", "/healthz", "/token", "/x", "//", "/rr/a", "/releases/", "*"] {
            assert_eq!(parse(path), None, "{path}");
        }
    }

    #[test]
    fn malformed_names_are_refused() {
        for path in [
            "/r/",
            "/r/A",
            "/r/a//b",
            "/r/../a",
            "/r/a/%2e%2e/b",
            "/r/a%2Fb",
            "/r/a%zz",
            "/r/a:",
            "/r/a:-x",
            "/r/a@sha256:12",
            "/r/a:b/c",
            "/release/a",
            "/release/a:b",
            "/catalog/a",
            "/r/%00",
        ] {
            assert!(matches!(parse(path), Some(Err(_))), "{path}");
        }
    }

    #[test]
    fn values_come_back_out_of_a_query() {
        for text in ["a b", "a+b&c=d", "ä", "\"<>'", "%"] {
            assert_eq!(query::decode(&value(text)).as_deref(), Ok(text));
        }
    }
}
