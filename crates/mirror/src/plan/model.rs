//! The plan: a plain value that says which images, from where, to where, why, and the exact graph of manifests and blobs.
//!
//! Everything that follows is a function of it: forecast, dry run, explanation, the archive's layout, the transfer's jobs, cluster
//! resources, delete lists. Two equal plans serialise to equal bytes.

use std::collections::{BTreeMap, BTreeSet};

use airlock_oci::{Descriptor, Digest, MediaType, Place, Platform, Reference, Repository, Tag};
use serde::{Deserialize, Serialize};

/// What a run is going to move.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// Version of this form.
    pub api_version: String,
    /// Always `Plan`.
    pub kind: String,
    /// Images, sorted by destination.
    pub images: Vec<Image>,
    /// Every manifest that is carried, by digest.
    pub manifests: BTreeMap<Digest, ManifestNode>,
    /// Every blob that is carried, by digest.
    pub blobs: BTreeMap<Digest, BlobNode>,
    /// OpenShift releases among the images, by version.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub releases: Vec<Release>,
    /// Operator catalogs among the images, in the order of the configuration.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub catalogs: Vec<Catalog>,
    /// What was asked for and cannot be had.
    pub missing: Vec<Missing>,
}

/// One image with its name at both ends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Image {
    /// As the user wrote it.
    pub name: String,
    /// The same, qualified; what the source is asked by.
    pub source: Reference,
    /// The place that served it. Not part of what an archive carries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
    /// What kind of content.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// Who asked for it.
    pub reasons: Vec<Reason>,
    /// What the name stood for when the plan was made.
    pub digest: Digest,
    /// Repository at the destination, before prefix and nesting limit.
    pub repository: Repository,
    /// Tag at the destination.
    pub tag: Tag,
    /// Only these platforms of an index are carried; empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub platforms: Vec<Platform>,
    /// Its manifests, children before parents; the last is `digest`.
    pub nodes: Vec<Digest>,
    /// Signatures and other referrers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attachments: Vec<Attachment>,
    /// Names of images without which this one is of no use: a bundle's related images.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<Reference>,
    /// A catalog as published, which only an archive carries: loading chooses from it again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub original: bool,
}

/// The kinds of content (names as in oc-mirror's delete files).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kind {
    /// The payload of a release.
    #[serde(rename = "ocpRelease")]
    Release,
    /// A component of a release, or its KubeVirt disk.
    #[serde(rename = "ocpReleaseContent")]
    ReleaseContent,
    /// The data of the update graph.
    #[serde(rename = "cincinnatiGraph")]
    Graph,
    /// An operator catalog.
    #[serde(rename = "operatorCatalog")]
    Catalog,
    /// The image of a bundle.
    #[serde(rename = "operatorBundle")]
    Bundle,
    /// An image that a bundle needs.
    #[serde(rename = "operatorRelatedImage")]
    Related,
    /// `additionalImages`.
    #[serde(rename = "generic")]
    Additional,
}

/// An OpenShift release. Its payload is the image with this digest and kind [`Kind::Release`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Release {
    /// Such as `4.18.3`.
    pub version: String,
    /// `amd64`, `multi`, ….
    pub architecture: String,
    /// The payload's digest.
    pub digest: Digest,
    /// Where the payload is published, by tag and digest where its signature names a tag.
    pub source: Reference,
    /// The tag at the destination, with which those of its components begin.
    pub tag: Tag,
    /// Name of its signature among the documents; absent when signatures are not checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
    /// Who asked for it, and why this version.
    pub reasons: Vec<Reason>,
}

/// An operator catalog, and what is kept of it. Its image is the one of kind [`Kind::Catalog`] with this repository and tag.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Catalog {
    /// As the user wrote it.
    pub name: String,
    /// Where it is published.
    pub source: Reference,
    /// What that stood for.
    pub published: Digest,
    /// What is mirrored: the same, or what was built of it.
    pub digest: Digest,
    /// Repository at the destination, before prefix and nesting limit.
    pub repository: Repository,
    /// Tag at the destination.
    pub tag: Tag,
    /// The rules that chose: `table` or `head`.
    pub rules: String,
    /// Kept as it is, and not built anew.
    pub whole: bool,
    /// What is kept, by package.
    pub packages: BTreeMap<String, Package>,
}

/// What is kept of an operator.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Package {
    /// The channel that is installed from where none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_channel: Option<String>,
    /// Names of bundles, by channel.
    pub channels: BTreeMap<String, BTreeSet<String>>,
}

/// Who asked for an image.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Reason {
    /// File name of the configuration.
    pub file: String,
    /// Line in it.
    pub line: u32,
    /// What stands there.
    pub what: String,
}

/// Something that belongs to a manifest of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attachment {
    /// How it is attached.
    pub kind: AttachmentKind,
    /// The manifest that it belongs to.
    pub subject: Digest,
    /// Its own manifest.
    pub digest: Digest,
    /// Its tag, for those that are found by tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<Tag>,
    /// Its manifests, children first; the last is `digest`.
    pub nodes: Vec<Digest>,
}

/// The ways in which something is attached to a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AttachmentKind {
    /// cosign's `sha256-<hex>.sig`.
    Signature,
    /// cosign's `sha256-<hex>.att`.
    Attestation,
    /// cosign's `sha256-<hex>.sbom`.
    Sbom,
    /// A manifest whose `subject` it is (OCI 1.1).
    Referrer,
}

/// A manifest of the graph.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ManifestNode {
    /// Media type.
    pub media_type: MediaType,
    /// Bytes.
    pub size: u64,
    /// Children that are carried, in the order of the index.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<Digest>,
    /// Blobs that are carried: config, then layers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blobs: Vec<Digest>,
    /// Children that a platform filter leaves out (the index keeps naming them).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<Digest>,
    /// Foreign layers that no place of the source serves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub foreign: Vec<Digest>,
}

/// A blob of the graph.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BlobNode {
    /// Bytes.
    pub size: u64,
    /// Media type in the first manifest that names it.
    pub media_type: MediaType,
}

/// Something that was asked for and cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Missing {
    /// As the user wrote it.
    pub name: String,
    /// What kind of content.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// Who asked for it.
    pub reasons: Vec<Reason>,
    /// Stable word for the cause.
    pub code: String,
    /// Why, with every endpoint that was tried.
    pub cause: String,
    /// What helps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// Bytes of a plan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Bytes {
    /// Unique blobs.
    pub blobs: u64,
    /// Unique manifests.
    pub manifests: u64,
}

impl Kind {
    /// Part of a release: without it, the release is of no use to a cluster.
    pub fn is_release(self) -> bool {
        matches!(self, Self::Release | Self::ReleaseContent)
    }

    /// Part of an operator catalog.
    pub fn is_operator(self) -> bool {
        matches!(self, Self::Catalog | Self::Bundle | Self::Related)
    }
}

impl Plan {
    /// An empty plan of the current version.
    pub fn new() -> Self {
        Self { api_version: "airlock/v1".into(), kind: "Plan".into(), ..Self::default() }
    }

    /// Whether a release lacks something, so that none of its content is of use.
    pub fn lacks_release(&self) -> bool {
        self.missing.iter().any(|m| m.kind.is_release())
    }

    /// Unique bytes in all.
    pub fn bytes(&self) -> Bytes {
        Bytes {
            blobs: self.blobs.values().map(|b| b.size).sum(),
            manifests: self.manifests.values().map(|m| m.size).sum(),
        }
    }

    /// The form that an archive carries: what depends on where the plan was made is left out.
    pub fn portable(&self) -> Self {
        let mut plan = self.clone();
        for image in &mut plan.images {
            image.place = None;
        }
        for missing in &mut plan.missing {
            // The cause names endpoints and times of this moment.
            missing.cause.clear();
            missing.hint = None;
        }
        plan
    }

    /// Deterministic bytes.
    pub fn to_json(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    /// The descriptor of a blob of the plan.
    pub fn blob(&self, digest: &Digest) -> Option<Descriptor> {
        let node = self.blobs.get(digest)?;
        Some(Descriptor::new(node.media_type.clone(), digest.clone(), node.size))
    }

    /// Unique blobs of one image, attachments included.
    pub fn blobs_of(&self, image: &Image) -> BTreeSet<Digest> {
        image.all_nodes().filter_map(|d| self.manifests.get(d)).flat_map(|m| m.blobs.iter().cloned()).collect()
    }

    /// Unique bytes of one image, attachments included.
    pub fn bytes_of(&self, image: &Image) -> Bytes {
        let manifests: BTreeSet<&Digest> = image.all_nodes().collect();
        Bytes {
            blobs: self.blobs_of(image).iter().filter_map(|d| self.blobs.get(d)).map(|b| b.size).sum(),
            manifests: manifests.iter().filter_map(|d| self.manifests.get(d)).map(|m| m.size).sum(),
        }
    }
}

impl Image {
    /// All manifests of the image and of its attachments.
    pub fn all_nodes(&self) -> impl Iterator<Item = &Digest> {
        self.nodes.iter().chain(self.attachments.iter().flat_map(|a| &a.nodes))
    }
}

impl Bytes {
    /// Blobs and manifests.
    pub fn total(self) -> u64 {
        self.blobs + self.manifests
    }
}
