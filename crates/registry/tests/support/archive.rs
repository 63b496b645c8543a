//! A small archive with one of each kind.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use airlock_oci::{BlobStream, Content, Descriptor, Digest, Error, Manifest, Repository, Sink, Tag};
use airlock_store::archive::{ArchiveSink, Contents, Item, LocalVolume, Options, RepositoryContents, Writer};
use bytes::Bytes;

use super::{OCI_INDEX, OCI_MANIFEST, descriptor, index, manifest};

struct InMemory(Bytes);

#[async_trait::async_trait]
impl Content for InMemory {
    async fn open(&self, offset: u64) -> Result<BlobStream, Error> {
        Ok(Box::pin(futures_util::stream::iter([Ok(self.0.slice(offset as usize..))])))
    }
}

/// What the archive holds: an image, an index of it, and a signature of the index.
pub(crate) struct Set {
    pub(crate) blobs: Vec<Bytes>,
    pub(crate) image: String,
    pub(crate) index: String,
    pub(crate) signature: String,
}

pub(crate) fn set() -> Set {
    let layer: Bytes = (0..2_000_000_u32).map(|i| (i * 11 % 247) as u8).collect::<Vec<u8>>().into();
    let blobs = vec![Bytes::from_static(b"{}"), layer, Bytes::from_static(b"signed")];
    let image = manifest(OCI_MANIFEST, &blobs[0], &[&blobs[1]], "");
    let index = index(OCI_INDEX, &[(OCI_MANIFEST, &image)], "");
    let subject = format!(r#","artifactType":"x/sig","subject":{}"#, descriptor(OCI_INDEX, index.as_bytes()));
    let signature = manifest(OCI_MANIFEST, &blobs[0], &[&blobs[2]], &subject);
    Set { blobs, image, index, signature }
}

pub(crate) async fn write(folder: &Path, set: &Set) {
    let name = Repository::new("acme/app").unwrap();
    let (tag, other) = (Tag::new("v1").unwrap(), Tag::new("v2").unwrap());
    let texts = [&set.image, &set.index, &set.signature];
    let manifests: Vec<Manifest> = texts.iter().map(|t| Manifest::parse((*t).clone().into(), None).unwrap()).collect();
    let item = |bytes: &[u8]| Item { digest: Digest::of(bytes), size: bytes.len() as u64 };
    let offered = RepositoryContents {
        layers: set.blobs.iter().map(|b| Digest::of(b)).collect::<BTreeSet<_>>(),
        manifests: manifests.iter().map(|m| m.digest().clone()).collect(),
        tags: [&tag, &other].map(|tag| (tag.clone(), manifests[1].digest().clone())).into(),
    };
    let contents = Contents {
        files: vec![("airlock/plan.json".into(), Bytes::from_static(b"{}"))],
        blobs: set.blobs.iter().map(|b| item(b)).collect(),
        manifests: texts.iter().map(|t| item(t.as_bytes())).collect(),
        repositories: BTreeMap::from([(name.clone(), offered)]),
        sequence: 1,
        created: "2026-11-21T06:00:00Z".into(),
        ..Contents::default()
    };
    let options = Options { limit: u64::MAX, strict: false, replace: false, salvage: HashMap::new() };
    let volume = Arc::new(LocalVolume::create(folder).unwrap());
    let writer = Arc::new(Writer::open(volume, &contents, options).unwrap());
    let sink = ArchiveSink(writer.clone());
    for bytes in &set.blobs {
        let blob = Descriptor::new("x/y", Digest::of(bytes), bytes.len() as u64);
        sink.write_blob(&name, &blob, &InMemory(bytes.clone())).await.unwrap();
    }
    let [image, index, signature] = [&manifests[0], &manifests[1], &manifests[2]];
    for (manifest, tag) in [(image, None), (index, Some(&tag)), (index, Some(&other)), (signature, None)] {
        sink.put_manifest(&name, manifest, tag).await.unwrap();
    }
    writer.seal(false).unwrap();
}
