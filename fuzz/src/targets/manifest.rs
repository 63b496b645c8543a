//! Manifests and indexes.

use std::collections::HashMap;

use airlock_oci::manifest::MAX_BLOB_BYTES;
use airlock_oci::{Digest, Manifest, media_type};
use bytes::Bytes;

use super::magnitude;
use crate::{Features, Target};

pub(super) const TARGET: Target = Target {
    name: "manifest",
    run,
    words: &[
        b"\"schemaVersion\":2",
        b"\"mediaType\":\"application/vnd.oci.image.index.v1+json\"",
        b"\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\"",
        b"\"mediaType\":\"application/vnd.docker.distribution.manifest.v1+prettyjws\"",
        b"\"manifests\":[",
        b"\"layers\":[",
        b"\"blobs\":[",
        b"\"config\":{",
        b"\"subject\":{",
        b"\"artifactType\":\"a/b\"",
        b"\"annotations\":{\"a\":\"b\"}",
        b"\"platform\":{\"os\":\"linux\",\"architecture\":\"amd64\"}",
        b"\"urls\":[\"https://x\"]",
        b"\"data\":\"e30=\"",
        b"\"fsLayers\":[]",
        b"\"size\":",
        b"\"digest\":\"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\"",
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b"null",
        b"{\"digest\":\"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\",\"size\":0,\"mediaType\":\"x\"}",
    ],
};

fn run(input: &[u8], features: &mut Features) {
    let bytes = Bytes::copy_from_slice(input);
    let digest = Digest::of(input);
    for declared in
        [None, Some(media_type::OCI_INDEX), Some("application/vnd.docker.distribution.manifest.v2+json; q=1")]
    {
        match Manifest::parse(bytes.clone(), declared) {
            Err(error) => {
                assert!(!error.cause().is_empty());
                features.note((declared, error.kind()));
                // The place in the text changes with every input; the reason does not.
                features.note(error.cause().split(['`', '"']).next().map(|words| words.replace(char::is_numeric, "")));
            }
            Ok(manifest) => {
                assert_eq!(manifest.bytes(), &bytes, "the bytes stay");
                assert_eq!(manifest.digest(), &digest, "the digest is that of the bytes");
                assert!(Manifest::parse_expecting(bytes.clone(), declared, &digest).is_ok());
                let mut sizes = HashMap::new();
                for descriptor in manifest.blobs().chain(manifest.children()) {
                    assert!(descriptor.size <= MAX_BLOB_BYTES);
                    assert_eq!(*sizes.entry(&descriptor.digest).or_insert(descriptor.size), descriptor.size);
                }
                let parts = (manifest.subject().is_some(), manifest.artifact_type().is_some());
                features.note((declared, manifest.shape() as usize, parts, manifest.config().is_some()));
                features.note(("blobs", magnitude(manifest.blobs().count())));
                features.note(("children", magnitude(manifest.children().len())));
                features.note(("annotations", magnitude(manifest.annotations().len())));
            }
        }
    }
}
