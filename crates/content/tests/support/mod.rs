//! A source in memory that counts what is fetched, and tar files as no honest tool writes them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by failing")]
#![allow(dead_code, reason = "each test file uses what it needs")]

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;

use airlock_oci::{
    BlobStream, Descriptor, Digest, Error, ErrorKind, Found, Manifest, Place, Reference, Source, Tag, media_type,
};
use airlock_testkit::fixture::{self, Blob, Built};
use async_trait::async_trait;
use bytes::Bytes;
use serde_json::json;

/// Content by digest; every repository has all of it.
#[derive(Default)]
pub(crate) struct Memory {
    manifests: HashMap<Digest, Bytes>,
    tags: BTreeMap<String, Digest>,
    blobs: HashMap<Digest, Bytes>,
    fetched: Mutex<Vec<Digest>>,
    /// Bytes of a piece of a stream.
    pub(crate) piece: usize,
}

/// One entry of a tar.
pub(crate) struct Item<'a> {
    pub(crate) path: &'a str,
    pub(crate) kind: u8,
    pub(crate) data: &'a [u8],
    pub(crate) link: &'a str,
}

impl Memory {
    pub(crate) fn new() -> Self {
        Self { piece: 1000, ..Self::default() }
    }

    /// Keeps an image, and everything below it, under a tag.
    pub(crate) fn add(&mut self, tag: &str, built: &Built) {
        for part in built.all() {
            self.manifests.insert(part.digest().clone(), part.manifest.bytes().clone());
        }
        for blob in built.all_blobs() {
            self.blobs.insert(blob.descriptor.digest.clone(), blob.bytes.clone());
        }
        self.tags.insert(tag.to_owned(), built.digest().clone());
    }

    /// Changes the bytes behind a digest.
    pub(crate) fn replace(&mut self, digest: &Digest, bytes: impl Into<Bytes>) {
        self.blobs.insert(digest.clone(), bytes.into());
    }

    /// The blobs that were fetched since the last call, in order.
    pub(crate) fn fetched(&self) -> Vec<Digest> {
        std::mem::take(&mut self.fetched.lock().unwrap())
    }
}

#[async_trait]
impl Source for Memory {
    fn describe(&self) -> String {
        "memory".into()
    }

    async fn resolve(&self, name: &Reference) -> Result<Found<Digest>, Error> {
        let found = self.manifest(name).await?;
        Ok(Found { value: found.value.digest().clone(), place: found.place })
    }

    async fn manifest(&self, name: &Reference) -> Result<Found<Manifest>, Error> {
        let missing = || Error::new(ErrorKind::NotFound, format!("read `{name}`"), "it is not in memory");
        let digest = match (name.digest(), name.tag()) {
            (Some(digest), _) => digest,
            (None, Some(tag)) => self.tags.get(tag.as_str()).ok_or_else(missing)?,
            (None, None) => return Err(missing()),
        };
        let bytes = self.manifests.get(digest).ok_or_else(missing)?.clone();
        let value = Manifest::parse_expecting(bytes, None, digest)?;
        Ok(Found { value, place: Place("memory".into()) })
    }

    async fn blob(
        &self,
        name: &Reference,
        blob: &Descriptor,
        offset: u64,
        _near: Option<&Place>,
    ) -> Result<BlobStream, Error> {
        let bytes = self.blobs.get(&blob.digest).cloned().ok_or_else(|| {
            Error::new(ErrorKind::NotFound, format!("read blob `{}` of `{name}`", blob.digest), "it is not in memory")
        })?;
        self.fetched.lock().unwrap().push(blob.digest.clone());
        let bytes = bytes.slice(offset as usize..);
        let pieces: Vec<Result<Bytes, Error>> =
            bytes.chunks(self.piece).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        Ok(Box::pin(futures_util::stream::iter(pieces)))
    }

    async fn has_blob(&self, _name: &Reference, blob: &Descriptor, _near: Option<&Place>) -> Result<bool, Error> {
        Ok(self.blobs.contains_key(&blob.digest))
    }

    async fn referrers(&self, _: &Reference, _: &Digest, _: Option<&Place>) -> Result<Vec<Descriptor>, Error> {
        Ok(Vec::new())
    }

    async fn tags(&self, _name: &Reference) -> Result<Vec<Tag>, Error> {
        Ok(self.tags.keys().map(|t| Tag::new(t).unwrap()).collect())
    }
}

pub(crate) fn name(tag: &str) -> Reference {
    format!("quay.io/example/image:{tag}").parse().unwrap()
}

/// A regular file.
pub(crate) fn file<'a>(path: &'a str, data: &'a [u8]) -> Item<'a> {
    Item { path, kind: b'0', data, link: "" }
}

/// A directory.
pub(crate) fn directory(path: &str) -> Item<'_> {
    Item { path, kind: b'5', data: b"", link: "" }
}

/// A symbolic link.
pub(crate) fn symlink<'a>(path: &'a str, link: &'a str) -> Item<'a> {
    Item { path, kind: b'2', data: b"", link }
}

/// A hard link.
pub(crate) fn hard_link<'a>(path: &'a str, link: &'a str) -> Item<'a> {
    Item { path, kind: b'1', data: b"", link }
}

/// A header with its checksum.
pub(crate) fn header(path: &[u8], kind: u8, size: u64, link: &[u8]) -> [u8; 512] {
    let mut header = [0_u8; 512];
    header[..path.len()].copy_from_slice(path);
    header[100..108].copy_from_slice(b"0000644\0");
    header[108..116].copy_from_slice(b"0000000\0");
    header[116..124].copy_from_slice(b"0000000\0");
    header[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
    header[136..148].copy_from_slice(b"14000000000\0");
    header[156] = kind;
    header[157..157 + link.len()].copy_from_slice(link);
    header[257..265].copy_from_slice(b"ustar\x0000");
    seal(&mut header);
    header
}

/// Puts the checksum of a header right.
pub(crate) fn seal(header: &mut [u8; 512]) {
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// Data, filled up to whole blocks.
pub(crate) fn padded(data: &[u8]) -> Vec<u8> {
    let mut out = data.to_vec();
    out.resize(data.len().div_ceil(512) * 512, 0);
    out
}

/// A tar of these entries.
pub(crate) fn tar(items: &[Item<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    for item in items {
        out.extend(header(item.path.as_bytes(), item.kind, item.data.len() as u64, item.link.as_bytes()));
        out.extend(padded(item.data));
    }
    out.resize(out.len() + 1024, 0);
    out
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A layer of these bytes, whatever they are.
pub(crate) fn layer(bytes: impl Into<Bytes>) -> Blob {
    fixture::blob(media_type::OCI_LAYER_GZIP, bytes)
}

/// An image of these layers, from the bottom.
pub(crate) fn image(layers: Vec<Blob>) -> Built {
    fixture::image(1).layers(&[]).given(layers).build()
}

/// A release's documents as a layer.
pub(crate) fn release_layer(version: &str, components: &[(&str, &str)]) -> Blob {
    let tags: Vec<_> = components
        .iter()
        .map(|(name, image)| json!({"name": name, "from": {"kind": "DockerImage", "name": image}}))
        .collect();
    let references = json!({"kind": "ImageStream", "apiVersion": "image.openshift.io/v1",
        "metadata": {"name": version}, "spec": {"tags": tags}})
    .to_string();
    let metadata = json!({"kind": "cincinnati-metadata-v0", "version": version, "previous": []}).to_string();
    layer(gzip(&tar(&[
        directory("release-manifests/"),
        file("release-manifests/image-references", references.as_bytes()),
        file("release-manifests/release-metadata", metadata.as_bytes()),
        file("release-manifests/0000_10_a.yaml", b"kind: A\n"),
    ])))
}
