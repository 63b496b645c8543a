//! References, digests, platforms.

use airlock_oci::reference::{MAX_NAME_BYTES, ParseError, is_short_name, parse_docker};
use airlock_oci::{Digest, Platform, Reference};

use super::magnitude;
use crate::{Features, Target};

pub(super) const TARGET: Target = Target {
    name: "reference",
    run,
    words: &[
        b"docker.io/",
        b"index.docker.io/",
        b"library/",
        b"localhost",
        b"quay.io/",
        b":5000/",
        b"[::1]:5000/",
        b"[fe80::1]",
        b"@sha256:",
        b"@sha512:",
        b"@md5:",
        b":latest",
        b"__",
        b"--",
        b"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        b"\xC3\x89",
    ],
};

fn run(input: &[u8], features: &mut Features) {
    let text = String::from_utf8_lossy(input);
    let ours = text.parse::<Reference>();
    let docker = parse_docker(&text);
    if let Ok(reference) = &ours {
        let printed = reference.to_string();
        assert_eq!(printed.parse::<Reference>().as_ref(), Ok(reference), "printing and parsing");
        assert!(reference.name().len() <= MAX_NAME_BYTES);
        let pulled = reference.clone().pulled();
        assert!(pulled.tag().is_some() != pulled.digest().is_some(), "a pull is by tag or by digest");
    }
    match (&docker, &ours) {
        (Ok(name), Ok(reference)) => assert_eq!(name.to_string(), reference.to_string()),
        // The one form that only upstream takes, as a short name.
        (Ok(name), Err(error)) => {
            assert!(name.domain().is_none() && *error == ParseError::Format);
            assert_eq!(is_short_name(&text), Ok(true));
        }
        // The one form that only we take.
        (Err(_), Ok(reference)) => assert!(reference.registry().as_str().starts_with('[')),
        (Err(theirs), Err(ours)) => assert!(theirs == ours || text.starts_with('[')),
    }
    if let Ok(name) = &docker {
        assert!(!name.familiar().is_empty());
    }
    let digest = text.parse::<Digest>();
    if let Ok(digest) = &digest {
        assert_eq!(digest.to_string(), text);
        assert!(digest.fallback_tag().len() <= airlock_oci::reference::MAX_TAG_BYTES);
    }
    let platform = text.parse::<Platform>();
    if let Ok(platform) = &platform {
        assert_eq!(platform.to_string(), text);
        assert!(platform.satisfies(platform));
    }
    let shape = ours.as_ref().map(|r| {
        let library = r.repository().as_str().starts_with("library/");
        let parts = magnitude(r.repository().components().count());
        (r.tag().is_some(), r.digest().map(|d| d.algorithm()), r.registry().as_str() == "docker.io", library, parts)
    });
    let shape = shape.map_err(|e| e.class());
    let theirs = docker.map(|n| n.domain().is_some()).map_err(ParseError::class);
    features.note((shape, is_short_name(&text).ok()));
    features.note((theirs, digest.is_ok(), platform.is_ok()));
    features.note(("bytes", magnitude(text.len())));
}
