//! Images made in code: the same call gives the same bytes, everywhere.
//!
//! ```
//! use airlock_testkit::fixture;
//!
//! let amd64 = fixture::image(1).layers(&[1000, 2000]).platform("linux/amd64").build();
//! let arm64 = fixture::image(2).layers(&[1000]).platform("linux/arm64").build();
//! let both = fixture::index(&[amd64.clone(), arm64]).build();
//! let signature = fixture::cosign(&both);
//! assert_eq!(both.manifest.children().len(), 2);
//! assert!(signature.tag.ends_with(".sig"));
//! ```

use std::collections::BTreeMap;

use airlock_oci::{Algorithm, Descriptor, Digest, Manifest, Platform, media_type};
use bytes::Bytes;
use serde_json::{Value, json};

/// A manifest with everything below it.
#[derive(Clone, Debug)]
pub struct Built {
    /// The manifest or index.
    pub manifest: Manifest,
    /// Config and layers, in order.
    pub blobs: Vec<Blob>,
    /// The manifests that an index names, except those left out of a sparse one.
    pub children: Vec<Built>,
    /// Of an image with a platform.
    pub platform: Option<Platform>,
}

/// Bytes and how a manifest names them.
#[derive(Clone, Debug)]
pub struct Blob {
    /// Type, digest, size.
    pub descriptor: Descriptor,
    /// The bytes.
    pub bytes: Bytes,
}

/// Something that is found by a tag made from another digest (cosign's convention).
#[derive(Clone, Debug)]
pub struct Attached {
    /// `sha256-<hex>.sig`.
    pub tag: String,
    /// The image.
    pub image: Built,
}

/// Manifest format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OCI image manifest and index.
    Oci,
    /// Docker schema 2 and manifest list.
    Docker,
}

/// An image in the making.
#[derive(Clone, Debug)]
pub struct ImageBuilder {
    seed: u64,
    format: Format,
    layers: Vec<usize>,
    given: Vec<Blob>,
    platform: Option<Platform>,
    annotations: BTreeMap<String, String>,
    labels: BTreeMap<String, String>,
    diff_ids: Vec<Digest>,
    artifact_type: Option<String>,
    subject: Option<Descriptor>,
    algorithm: Algorithm,
}

/// An index in the making.
#[derive(Clone, Debug)]
pub struct IndexBuilder {
    format: Format,
    children: Vec<Built>,
    absent: Vec<Built>,
    annotations: BTreeMap<String, String>,
    subject: Option<Descriptor>,
    artifact_type: Option<String>,
}

/// Bytes that look random, the same for the same seed.
pub fn random(seed: u64, len: usize) -> Bytes {
    // xorshift64*, eight bytes a step; the constant keeps small seeds apart.
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes());
    }
    bytes.truncate(len);
    bytes.into()
}

/// A blob of bytes.
pub fn blob(media_type: &str, bytes: impl Into<Bytes>) -> Blob {
    let bytes = bytes.into();
    Blob { descriptor: Descriptor::new(media_type, Digest::of(&bytes), bytes.len() as u64), bytes }
}

/// An image with one small layer; what is not said otherwise follows from the seed.
pub fn image(seed: u64) -> ImageBuilder {
    ImageBuilder {
        seed,
        format: Format::Oci,
        layers: vec![1024],
        given: Vec::new(),
        platform: None,
        annotations: BTreeMap::new(),
        diff_ids: Vec::new(),
        labels: BTreeMap::from([("seed".to_owned(), seed.to_string())]),
        artifact_type: None,
        subject: None,
        algorithm: Algorithm::Sha256,
    }
}

/// An index of these.
pub fn index(children: &[Built]) -> IndexBuilder {
    IndexBuilder {
        format: Format::Oci,
        children: children.to_vec(),
        absent: Vec::new(),
        annotations: BTreeMap::new(),
        subject: None,
        artifact_type: None,
    }
}

/// An artifact (empty config, `artifactType`) with one blob.
pub fn artifact(seed: u64, artifact_type: &str) -> ImageBuilder {
    ImageBuilder { artifact_type: Some(artifact_type.to_owned()), ..image(seed) }
}

/// A cosign signature of `image` by tag; the signature itself is not valid.
pub fn cosign(image: &Built) -> Attached {
    let payload = json!({"critical": {"image": {"docker-manifest-digest": image.digest().to_string()}}}).to_string();
    let layer = blob("application/vnd.dev.cosign.simplesigning.v1+json", payload);
    let image = self::image(0).given(vec![layer]).layers(&[]).build_signed(image);
    Attached { tag: image.1, image: image.0 }
}

impl ImageBuilder {
    /// Docker schema 2 instead of OCI.
    pub fn docker(mut self) -> Self {
        self.format = Format::Docker;
        self
    }

    /// Layers of these sizes (bytes).
    pub fn layers(mut self, sizes: &[usize]) -> Self {
        self.layers = sizes.to_vec();
        self
    }

    /// More layers, with these bytes (to share them between images).
    pub fn given(mut self, blobs: Vec<Blob>) -> Self {
        self.given = blobs;
        self
    }

    /// `os/arch[/variant]`, in the config and for an index.
    pub fn platform(mut self, platform: &str) -> Self {
        self.platform = Some(platform.parse().expect("a platform"));
        self
    }

    /// An annotation of the manifest.
    pub fn annotation(mut self, name: &str, value: &str) -> Self {
        self.annotations.insert(name.to_owned(), value.to_owned());
        self
    }

    /// A label of the configuration.
    pub fn label(mut self, name: &str, value: &str) -> Self {
        self.labels.insert(name.to_owned(), value.to_owned());
        self
    }

    /// The digests of the layers as they are unpacked, for whoever looks at them.
    pub fn diff_ids(mut self, digests: &[Digest]) -> Self {
        self.diff_ids = digests.to_vec();
        self
    }

    /// Refers to this (OCI 1.1).
    pub fn subject(mut self, subject: &Built) -> Self {
        self.subject = Some(subject.manifest.descriptor());
        self
    }

    /// The manifest is addressed by SHA-512.
    pub fn sha512(mut self) -> Self {
        self.algorithm = Algorithm::Sha512;
        self
    }

    /// Makes it.
    pub fn build(self) -> Built {
        let (manifest_type, config_type, layer_type) = match self.format {
            Format::Oci => (media_type::OCI_MANIFEST, media_type::OCI_CONFIG, media_type::OCI_LAYER_GZIP),
            Format::Docker => (media_type::DOCKER_MANIFEST, media_type::DOCKER_CONFIG, media_type::DOCKER_LAYER_GZIP),
        };
        let config = if self.artifact_type.is_some() {
            blob(media_type::OCI_EMPTY, "{}")
        } else {
            let platform = self.platform.clone().unwrap_or_else(|| "linux/amd64".parse().expect("a platform"));
            let text = json!({
                "architecture": platform.architecture, "os": platform.os, "config": {"Labels": self.labels},
                "rootfs": {"type": "layers", "diff_ids": self.diff_ids},
            });
            blob(config_type, text.to_string())
        };
        let made = self
            .layers
            .iter()
            .enumerate()
            .map(|(n, size)| blob(layer_type, random(self.seed.wrapping_mul(1000).wrapping_add(n as u64), *size)));
        let layers: Vec<Blob> = self.given.iter().cloned().chain(made).collect();
        let descriptors: Vec<&Descriptor> = layers.iter().map(|l| &l.descriptor).collect();
        let mut text = json!({
            "schemaVersion": 2, "mediaType": manifest_type, "config": config.descriptor, "layers": descriptors,
        });
        extend(&mut text, &self.annotations, self.subject.as_ref(), self.artifact_type.as_deref());
        let manifest = parse(&text, self.algorithm);
        let blobs = std::iter::once(config).chain(layers).collect();
        Built { manifest, blobs, children: Vec::new(), platform: self.platform }
    }

    fn build_signed(self, subject: &Built) -> (Built, String) {
        (self.build(), format!("{}.sig", subject.digest().fallback_tag()))
    }
}

impl IndexBuilder {
    /// Docker manifest list instead of OCI index.
    pub fn docker(mut self) -> Self {
        self.format = Format::Docker;
        self
    }

    /// Named by the index, but not part of what is stored: a sparse index.
    pub fn absent(mut self, children: &[Built]) -> Self {
        self.absent = children.to_vec();
        self
    }

    /// An annotation of the index.
    pub fn annotation(mut self, name: &str, value: &str) -> Self {
        self.annotations.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Refers to this (OCI 1.1).
    pub fn subject(mut self, subject: &Built) -> Self {
        self.subject = Some(subject.manifest.descriptor());
        self
    }

    /// Makes it.
    pub fn build(self) -> Built {
        let manifest_type = match self.format {
            Format::Oci => media_type::OCI_INDEX,
            Format::Docker => media_type::DOCKER_LIST,
        };
        let entries: Vec<Descriptor> = self
            .children
            .iter()
            .chain(&self.absent)
            .map(|child| Descriptor { platform: child.platform.clone(), ..child.manifest.descriptor() })
            .collect();
        let mut text = json!({"schemaVersion": 2, "mediaType": manifest_type, "manifests": entries});
        extend(&mut text, &self.annotations, self.subject.as_ref(), self.artifact_type.as_deref());
        Built { manifest: parse(&text, Algorithm::Sha256), blobs: Vec::new(), children: self.children, platform: None }
    }
}

impl Built {
    /// The manifest's digest.
    pub fn digest(&self) -> &Digest {
        self.manifest.digest()
    }

    /// This and everything below, children first.
    pub fn all(&self) -> Vec<&Built> {
        let mut list: Vec<&Built> = self.children.iter().flat_map(Built::all).collect();
        list.push(self);
        list
    }

    /// The blobs of this and everything below.
    pub fn all_blobs(&self) -> Vec<&Blob> {
        self.all().into_iter().flat_map(|b| &b.blobs).collect()
    }
}

fn extend(text: &mut Value, annotations: &BTreeMap<String, String>, subject: Option<&Descriptor>, kind: Option<&str>) {
    if !annotations.is_empty() {
        text["annotations"] = json!(annotations);
    }
    if let Some(subject) = subject {
        text["subject"] = json!(subject);
    }
    if let Some(kind) = kind {
        text["artifactType"] = json!(kind);
    }
}

fn parse(text: &Value, algorithm: Algorithm) -> Manifest {
    let bytes = Bytes::from(text.to_string());
    let digest = Digest::of_with(algorithm, &bytes);
    Manifest::parse_expecting(bytes, None, &digest).expect("a fixture is a manifest")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_call_gives_the_same_bytes() {
        let make = || image(7).layers(&[10, 100_000]).docker().build();
        assert_eq!(make().digest(), make().digest());
        assert_ne!(random(1, 100), random(2, 100));
        assert_eq!(random(1, 3), random(1, 100).slice(..3));
    }

    #[test]
    fn a_sparse_index_names_more_than_it_brings() {
        let (a, b) = (image(1).build(), image(2).build());
        let sparse = index(std::slice::from_ref(&a)).absent(&[b]).build();
        assert_eq!((sparse.manifest.children().len(), sparse.children.len()), (2, 1));
        let referrer = artifact(3, "application/x").subject(&sparse).build();
        assert_eq!(referrer.manifest.subject().unwrap().digest, *sparse.digest());
        assert_eq!(referrer.manifest.artifact_type(), Some("application/x"));
    }
}
