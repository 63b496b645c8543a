//! What clients of the registry send: paths, queries, ranges.

use airlock_oci::Repository;
use airlock_registry::query::{Query, decode};
use airlock_registry::range::{Wanted, chunk, wanted};
use airlock_registry::route::{Route, parse};

use super::magnitude;
use crate::{Features, Target};

pub(super) const TARGET: Target = Target {
    name: "requests",
    run,
    words: &[
        b"/v2/",
        b"/manifests/",
        b"/blobs/",
        b"/blobs/uploads/",
        b"/tags/list",
        b"/referrers/",
        b"_catalog",
        b"sha256:",
        b"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        b"0123456789abcdef0123456789abcdef",
        b"%2e",
        b"%2F",
        b"..",
        b"bytes=",
        b"0-99",
        b"tag=",
        b"&",
        b"latest",
    ],
};

/// Lengths of a blob for which ranges are read.
const LENGTHS: [u64; 5] = [0, 1, 10, 1 << 40, u64::MAX];

fn run(input: &[u8], features: &mut Features) {
    let text = String::from_utf8_lossy(input);
    match parse(&text) {
        Ok(route) => {
            features.note(std::mem::discriminant(&route));
            if let Some(name) = route.repository() {
                assert!(Repository::new(name.as_str()).is_ok());
                assert!(!name.as_str().split('/').any(|part| part.starts_with('.') || part.is_empty()));
                features.note(magnitude(name.as_str().len()));
            } else {
                assert!(matches!(route, Route::Base | Route::Catalog));
            }
        }
        Err(error) => features.note(std::mem::discriminant(&error)),
    }
    for len in LENGTHS {
        match wanted(Some(&text), len) {
            Wanted::Part(first, end) => assert!(first < end && end <= len, "{first}-{end} of {len}"),
            other => features.note(std::mem::discriminant(&other)),
        }
    }
    if let Some((first, last)) = chunk(&text) {
        assert!(first <= last && last < u64::MAX);
        features.note("chunk");
    }
    if let Ok(query) = Query::parse(&text) {
        let values = query.all("tag").count();
        assert_eq!(query.get("tag").is_some(), values > 0);
        features.note(magnitude(values));
    }
    if let Ok(decoded) = decode(&text) {
        assert!(decoded.len() <= text.len());
    }
}
