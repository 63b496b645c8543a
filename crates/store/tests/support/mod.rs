//! Images and contents for the archive's tests.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by failing")]
#![allow(dead_code, reason = "each test file uses what it needs")]

use std::collections::{BTreeMap, BTreeSet, HashMap};

use airlock_oci::{BlobStream, Content, Descriptor, Digest, Error, Manifest, Repository, Tag};
use airlock_store::archive::{Contents, Item, Options, RepositoryContents};
use async_trait::async_trait;
use bytes::Bytes;

/// An image of one repository.
pub(crate) struct Image {
    pub repository: Repository,
    pub tag: Tag,
    pub manifest: Manifest,
    pub blobs: Vec<(Descriptor, Bytes)>,
}

pub(crate) fn noise(seed: u64, len: usize) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 24) as u8
        })
        .collect::<Vec<u8>>()
        .into()
}

pub(crate) fn image(name: &str, sizes: &[usize]) -> Image {
    let blobs: Vec<(Descriptor, Bytes)> = sizes
        .iter()
        .enumerate()
        .map(|(i, size)| {
            let bytes = noise(*size as u64 + i as u64, *size);
            (Descriptor::new("application/octet-stream", Digest::of(&bytes), bytes.len() as u64), bytes)
        })
        .collect();
    let layers: Vec<String> = blobs.iter().map(|(d, _)| serde_json::to_string(d).unwrap()).collect();
    let text = format!(r#"{{"schemaVersion":2,"config":{},"layers":[{}]}}"#, layers[0], layers[1..].join(","));
    Image {
        repository: Repository::new(name).unwrap(),
        tag: Tag::new("v1").unwrap(),
        manifest: Manifest::parse(text.into(), None).unwrap(),
        blobs,
    }
}

pub(crate) fn contents(images: &[Image]) -> Contents {
    let mut contents = Contents {
        files: vec![
            ("airlock/plan.json".into(), Bytes::from_static(b"{}")),
            ("airlock/config.yaml".into(), "x".into()),
        ],
        sequence: 1,
        created: "2026-11-21T06:00:00Z".into(),
        ..Contents::default()
    };
    let mut seen = BTreeSet::new();
    let mut repositories: BTreeMap<Repository, RepositoryContents> = BTreeMap::new();
    for image in images {
        let offered = repositories.entry(image.repository.clone()).or_default();
        for (blob, _) in &image.blobs {
            offered.layers.insert(blob.digest.clone());
            if seen.insert(blob.digest.clone()) {
                contents.blobs.push(Item { digest: blob.digest.clone(), size: blob.size });
            }
        }
        let digest = image.manifest.digest().clone();
        offered.manifests.insert(digest.clone());
        offered.tags.insert(image.tag.clone(), digest.clone());
        contents.manifests.push(Item { digest, size: image.manifest.bytes().len() as u64 });
    }
    contents.repositories = repositories;
    contents
}

pub(crate) fn options(limit: u64) -> Options {
    Options { limit, strict: false, replace: false, salvage: HashMap::new() }
}

/// Bytes, cut after so many.
pub(crate) struct Memory(pub Bytes, pub Option<u64>);

#[async_trait]
impl Content for Memory {
    async fn open(&self, offset: u64) -> Result<BlobStream, Error> {
        let end = self.1.unwrap_or(self.0.len() as u64).min(self.0.len() as u64);
        let bytes = self.0.slice(offset.min(end) as usize..end as usize);
        let mut pieces: Vec<Result<Bytes, Error>> = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            let step = 50_000.min(bytes.len() - at);
            pieces.push(Ok(bytes.slice(at..at + step)));
            at += step;
        }
        Ok(Box::pin(futures_util::stream::iter(pieces)))
    }
}

pub(crate) fn some_images() -> Vec<Image> {
    vec![
        image("acme/one", &[100, 5_000_000, 70_000]),
        image("acme/two", &[101, 5_000_000, 9_000_000]),
        image(&format!("deep/{}", "n/".repeat(60).trim_end_matches('/')), &[102, 0, 511, 512, 513]),
    ]
}
