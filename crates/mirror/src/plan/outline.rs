//! What is kept of an archive's plan while the archive is served or loaded: names, not the graph.
//!
//! A plan tells every blob of every image; of an archive of 100 GB that is 20 MB of text. All of it is read and must make sense, but of
//! its parts only a few outlive the reading.

use std::fmt;
use std::marker::PhantomData;

use airlock_oci::{Digest, Reference, Repository};
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::model::{Attachment, BlobNode, Catalog, Image, ManifestNode, Missing, Release};

/// What is kept of a plan.
#[derive(Debug)]
pub struct Outline {
    /// By source; those of one source in the order of the plan.
    images: Box<[Planned]>,
    /// Releases.
    pub releases: Vec<Release>,
    /// What was asked for and could not be had.
    pub missing: Vec<Missing>,
}

/// What is kept of an image.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "Image")]
pub struct Planned {
    /// What the source is asked by.
    pub source: Reference,
    /// What that stood for when the plan was made.
    pub digest: Digest,
    /// Repository at the destination.
    pub repository: Repository,
    /// Signatures and other referrers.
    pub attachments: Vec<Attachment>,
}

/// A list or map whose items must make sense, and of which nothing is kept.
struct Passed<K, V = ()>(PhantomData<(K, V)>);

/// The form of a plan. It refuses what [`Plan`](super::Plan) refuses.
#[derive(Deserialize)]
#[serde(rename = "Plan", rename_all = "camelCase")]
struct Text {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    images: Vec<Planned>,
    #[serde(rename = "manifests", deserialize_with = "map")]
    _manifests: Passed<Digest, ManifestNode>,
    #[serde(rename = "blobs", deserialize_with = "map")]
    _blobs: Passed<Digest, BlobNode>,
    #[serde(default)]
    releases: Vec<Release>,
    #[serde(default, rename = "catalogs", deserialize_with = "list")]
    _catalogs: Passed<Catalog>,
    missing: Vec<Missing>,
}

impl From<Image> for Planned {
    fn from(image: Image) -> Self {
        let Image { source, digest, repository, attachments, .. } = image;
        Self { source, digest, repository, attachments }
    }
}

impl Outline {
    /// All images, by source.
    pub fn images(&self) -> &[Planned] {
        &self.images
    }

    /// The images that a source stands for, in the order of the plan; the first is what its name meant.
    pub fn named(&self, source: &Reference) -> &[Planned] {
        let from = self.images.partition_point(|image| image.source < *source);
        let count = self.images[from..].partition_point(|image| image.source == *source);
        &self.images[from..from + count]
    }
}

impl<'de> Deserialize<'de> for Outline {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Text { mut images, releases, missing, .. } = Text::deserialize(deserializer)?;
        images.sort_by(|a, b| a.source.cmp(&b.source));
        Ok(Self { images: images.into_boxed_slice(), releases, missing })
    }
}

impl<K, V> Default for Passed<K, V> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

fn map<'de, D, K, V>(deserializer: D) -> Result<Passed<K, V>, D::Error>
where
    D: Deserializer<'de>,
    K: Deserialize<'de>,
    V: Deserialize<'de>,
{
    deserializer.deserialize_map(Passed::default())
}

fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Passed<T>, D::Error> {
    deserializer.deserialize_seq(Each(PhantomData))
}

impl<'de, K: Deserialize<'de>, V: Deserialize<'de>> Visitor<'de> for Passed<K, V> {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self, A::Error> {
        while map.next_entry::<K, V>()?.is_some() {}
        Ok(self)
    }
}

/// Goes through a list.
struct Each<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Each<T> {
    type Value = Passed<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a sequence")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Passed<T>, A::Error> {
        while list.next_element::<T>()?.is_some() {}
        Ok(Passed::default())
    }
}
