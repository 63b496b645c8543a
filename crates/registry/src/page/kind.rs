//! What an image is: a release, a catalog, a chart, an operator's bundle, or just an image.
//!
//! Told by the configuration's type and labels, as the tools that publish these things write them. What cannot be read makes an image
//! an ordinary one, never an error: the page must show a mirror in whatever state it is.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use airlock_oci::sink::ManifestName;
use airlock_oci::{Descriptor, Digest, Manifest, Repository, Shape, Tag, media_type};
use airlock_store::Storage;
use serde::Deserialize;

use super::words::clip;

/// The label that every release payload has: its version.
const RELEASE_LABEL: &str = "io.openshift.release";
/// The label that names the directory of a file-based catalog.
const CATALOG_LABEL: &str = "operators.operatorframework.io.index.configs.v1";
/// The label that names the database of an older catalog.
const DATABASE_LABEL: &str = "operators.operatorframework.io.index.database.v1";
/// The label that names the package of an operator's bundle.
const BUNDLE_LABEL: &str = "operators.operatorframework.io.bundle.package.v1";
/// The configuration of a Helm chart.
const HELM_CONFIG: &str = "application/vnd.cncf.helm.config.v1+json";
/// The largest configuration that is looked into (bytes).
const MAX_CONFIG_BYTES: u64 = 4 * 1024 * 1024;
/// Characters of a name or version that are kept.
const MAX_NAME_CHARS: usize = 120;
/// Platforms of an image that are named.
const MAX_PLATFORMS: usize = 16;
/// Characters of a platform's name.
const MAX_PLATFORM_CHARS: usize = 40;
/// Children of an index that are looked at.
pub(super) const MAX_CHILDREN: usize = 500;
/// Blobs of one image that are counted.
const MAX_CONTENT: usize = 100_000;
/// The endings of cosign's tags.
const ATTACHED: [(&str, &str); 3] = [("sig", "signature"), ("att", "attestation"), ("sbom", "SBOM")];

/// What an image is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// An OpenShift release payload.
    Release {
        /// Such as `4.18.5`.
        version: String,
    },
    /// A catalog of operators.
    Catalog,
    /// A Helm chart.
    Chart {
        /// Its name.
        name: String,
        /// Its version.
        version: String,
    },
    /// An operator's bundle.
    Bundle {
        /// The package that it belongs to.
        package: String,
    },
    /// An image to run.
    Image,
    /// Something else that a registry holds.
    Artifact {
        /// Its media type.
        media_type: String,
    },
}

/// What is known of an image at a glance.
#[derive(Clone, Debug)]
pub(super) struct Recognised {
    pub(super) kind: Kind,
    pub(super) platforms: Vec<String>,
    /// Bytes of all manifests, configurations and layers that are here.
    pub(super) bytes: u64,
    /// Children of the index that are not here.
    pub(super) absent: usize,
    /// All of it, by [`key`], with sizes.
    pub(super) content: HashMap<u64, u64>,
}

/// An image's configuration, as far as the page shows it.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Config {
    #[serde(default)]
    pub(super) os: String,
    #[serde(default)]
    pub(super) architecture: String,
    pub(super) variant: Option<String>,
    pub(super) created: Option<String>,
    config: Option<Settings>,
    #[serde(default)]
    pub(super) history: Vec<Step>,
}

#[derive(Debug, Default, Deserialize)]
struct Settings {
    #[serde(rename = "Labels")]
    labels: Option<BTreeMap<String, String>>,
}

/// One step of building an image.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Step {
    pub(super) created_by: Option<String>,
    #[serde(default)]
    pub(super) empty_layer: bool,
}

#[derive(Deserialize)]
struct Chart {
    name: Option<String>,
    version: Option<String>,
}

/// What a tag stands for, beside what it points at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// A name of an image.
    Name,
    /// The form that a tag takes which only repeats the digest (`sha256-<hex>`), as mirroring names what has no tag.
    Digest,
    /// A signature, attestation or SBOM of another image, by cosign's names or the fallback list of referrers.
    Attachment {
        /// What kind.
        what: &'static str,
        /// Of what.
        subject: Digest,
    },
}

impl Kind {
    /// In a word.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Release { .. } => "Release",
            Self::Catalog => "Operator catalog",
            Self::Chart { .. } => "Helm chart",
            Self::Bundle { .. } => "Operator bundle",
            Self::Image => "Image",
            Self::Artifact { .. } => "Artifact",
        }
    }

    /// Its place where kinds are counted.
    pub(super) fn place(&self) -> usize {
        match self {
            Self::Release { .. } => 0,
            Self::Catalog => 1,
            Self::Chart { .. } => 2,
            Self::Bundle { .. } => 3,
            Self::Image => 4,
            Self::Artifact { .. } => 5,
        }
    }

    /// What is special about this one.
    pub(super) fn detail(&self) -> Option<String> {
        match self {
            Self::Release { version } => Some(version.clone()),
            Self::Chart { name, version } => Some(format!("{name} {version}")),
            Self::Bundle { package } => Some(package.clone()),
            Self::Artifact { media_type } => Some(media_type.clone()),
            Self::Catalog | Self::Image => None,
        }
    }
}

impl Config {
    pub(super) fn labels(&self) -> impl Iterator<Item = (&String, &String)> {
        self.config.iter().flat_map(|c| c.labels.iter().flatten())
    }

    fn label(&self, name: &str) -> Option<&String> {
        self.config.as_ref()?.labels.as_ref()?.get(name)
    }

    fn platform(&self) -> Option<String> {
        if self.os.is_empty() || self.architecture.is_empty() {
            return None;
        }
        let variant = self.variant.as_deref().filter(|v| !v.is_empty()).map(|v| format!("/{v}")).unwrap_or_default();
        Some(clip(&format!("{}/{}{variant}", self.os, self.architecture), MAX_PLATFORM_CHARS))
    }
}

/// What a tag is for.
pub(super) fn role(tag: &Tag, manifest: &Manifest) -> Role {
    let Some((subject, ending)) = subject_of(tag) else { return Role::Name };
    match ending {
        None if subject == *manifest.digest() => Role::Digest,
        // The fallback list of referrers is an index; an image under such a tag was only given an odd name.
        None if manifest.shape() == Shape::Index => Role::Attachment { what: "referrers", subject },
        None => Role::Name,
        Some(what) => Role::Attachment { what, subject },
    }
}

/// The digest that a tag like `sha256-<hex>.sig` is about.
fn subject_of(tag: &Tag) -> Option<(Digest, Option<&'static str>)> {
    let (algorithm, rest) = tag.as_str().split_once('-')?;
    let (hex, ending) = rest.split_once('.').map_or((rest, None), |(hex, ending)| (hex, Some(ending)));
    let subject: Digest = format!("{algorithm}:{hex}").parse().ok()?;
    let what = match ending {
        None => None,
        Some(ending) => Some(ATTACHED.iter().find(|(known, _)| *known == ending)?.1),
    };
    Some((subject, what))
}

/// The tags under which cosign keeps what belongs to an image.
pub(super) fn attached_tags(digest: &Digest) -> impl Iterator<Item = (Tag, &'static str)> + '_ {
    ATTACHED.into_iter().filter_map(|(ending, what)| {
        Some((Tag::new(&format!("{}-{}.{ending}", digest.algorithm(), digest.hex())).ok()?, what))
    })
}

/// Reads images for one answer, and no longer than that may take.
pub(super) struct Reader<'a> {
    pub(super) storage: &'a dyn Storage,
    until: Option<Instant>,
    late: Cell<bool>,
}

impl<'a> Reader<'a> {
    /// Takes as long as it takes.
    pub(super) fn patient(storage: &'a dyn Storage) -> Self {
        Self { storage, until: None, late: Cell::new(false) }
    }

    /// Finds nothing any more after a while.
    pub(super) fn hasty(storage: &'a dyn Storage, most: Duration) -> Self {
        Self { storage, until: Some(Instant::now() + most), late: Cell::new(false) }
    }

    /// Whether it has stopped to look.
    pub(super) fn is_late(&self) -> bool {
        if self.until.is_some_and(|until| Instant::now() >= until) {
            self.late.set(true);
        }
        self.late.get()
    }

    /// A manifest, if it is here and whole.
    pub(super) fn manifest(&self, name: &Repository, digest: &Digest) -> Option<Manifest> {
        if self.is_late() {
            return None;
        }
        self.storage.manifest(name, &ManifestName::Digest(digest.clone())).ok()?
    }

    /// The bytes of a small blob, if they are here and right.
    fn small_blob(&self, name: &Repository, blob: &Descriptor) -> Option<Vec<u8>> {
        if blob.size > MAX_CONFIG_BYTES || self.is_late() {
            return None;
        }
        let region = self.storage.blob(name, &blob.digest).ok()??;
        if region.len != blob.size {
            return None;
        }
        let mut bytes = vec![0; region.len as usize];
        region.file.read_exact_at(&mut bytes, region.offset).ok()?;
        (Digest::of_with(blob.digest.algorithm(), &bytes) == blob.digest).then_some(bytes)
    }

    /// Of an index the image that stands for all: linux/amd64 where it is here, else the first that is.
    pub(super) fn representative(&self, name: &Repository, manifest: &Manifest) -> Option<Manifest> {
        if manifest.shape() != Shape::Index {
            return Some(manifest.clone());
        }
        let is_usual =
            |d: &Descriptor| d.platform.as_ref().is_some_and(|p| p.os == "linux" && p.architecture == "amd64");
        let is_image = |d: &Descriptor| d.platform.as_ref().is_none_or(|p| p.os != "unknown");
        let candidates = manifest.children().iter().filter(|d| is_image(d) && !media_type::is_index(&d.media_type));
        let (usual, others): (Vec<_>, Vec<_>) = candidates.partition(|d| is_usual(d));
        usual.into_iter().chain(others).take(MAX_PLATFORMS).find_map(|d| self.manifest(name, &d.digest))
    }

    /// The configuration of an image.
    pub(super) fn config(&self, name: &Repository, image: &Manifest) -> Option<Config> {
        let descriptor = image.config()?;
        // The type tells images from artifacts; odd tools leave it empty or generic.
        let is_image = matches!(
            descriptor.media_type.as_str(),
            media_type::OCI_CONFIG | media_type::DOCKER_CONFIG | "" | "application/octet-stream" | "application/json"
        );
        if !is_image {
            return None;
        }
        serde_json::from_slice(&self.small_blob(name, descriptor)?).ok()
    }

    /// Looks at an image: its configuration, and which children of an index are here.
    pub(super) fn recognise(&self, name: &Repository, manifest: &Manifest) -> Recognised {
        let mut content = HashMap::new();
        let mut note = |manifest: &Manifest| {
            content.insert(key(manifest.digest()), manifest.bytes().len() as u64);
            for blob in manifest.blobs().take(MAX_CONTENT.saturating_sub(content.len())) {
                content.insert(key(&blob.digest), blob.size);
            }
        };
        note(manifest);
        let (mut platforms, mut absent) = (Vec::new(), 0);
        // One at a time: each may have megabytes.
        for descriptor in manifest.children().iter().take(MAX_CHILDREN) {
            let Some(found) = self.manifest(name, &descriptor.digest) else {
                absent += 1;
                continue;
            };
            note(&found);
            if let Some(platform) = descriptor.platform.as_ref().filter(|p| p.os != "unknown")
                && platforms.len() < MAX_PLATFORMS
            {
                platforms.push(clip(&platform.to_string(), MAX_PLATFORM_CHARS));
            }
        }
        let image = self.representative(name, manifest);
        let config = image.as_ref().and_then(|image| self.config(name, image));
        if platforms.is_empty() {
            platforms.extend(config.as_ref().and_then(Config::platform));
        }
        let kind = self.kind(name, manifest, image.as_ref(), config.as_ref());
        Recognised { kind, platforms, bytes: content.values().sum(), absent, content }
    }

    fn kind(&self, name: &Repository, manifest: &Manifest, image: Option<&Manifest>, config: Option<&Config>) -> Kind {
        if let Some(config) = config {
            let label = |label: &str| config.label(label).map(|value| clip(value, MAX_NAME_CHARS));
            if let Some(version) = label(RELEASE_LABEL) {
                return Kind::Release { version };
            }
            if label(CATALOG_LABEL).or_else(|| label(DATABASE_LABEL)).is_some() {
                return Kind::Catalog;
            }
            if let Some(package) = label(BUNDLE_LABEL) {
                return Kind::Bundle { package };
            }
            return Kind::Image;
        }
        let descriptor = image.and_then(Manifest::config);
        if let Some(descriptor) = descriptor.filter(|d| d.media_type == HELM_CONFIG) {
            let chart: Option<Chart> =
                self.small_blob(name, descriptor).and_then(|bytes| serde_json::from_slice(&bytes).ok());
            let (chart, version) = chart.map_or((None, None), |chart| (chart.name, chart.version));
            let text = |text: Option<String>| clip(&text.unwrap_or_else(|| "unknown".to_owned()), MAX_NAME_CHARS);
            return Kind::Chart { name: text(chart), version: text(version) };
        }
        let artifact = image.unwrap_or(manifest).artifact_type().filter(|kind| {
            // An image whose configuration cannot be read is an image all the same.
            !matches!(*kind, media_type::OCI_CONFIG | media_type::DOCKER_CONFIG)
        });
        match artifact {
            Some(kind) => Kind::Artifact { media_type: clip(kind, MAX_NAME_CHARS) },
            None if manifest.shape() == Shape::Artifact => Kind::Artifact { media_type: "unknown".to_owned() },
            None => Kind::Image,
        }
    }
}

/// By what a digest is told apart where very many are kept: half of what a UUID has, and nothing depends on it but a sum and a tick.
pub(super) fn key(digest: &Digest) -> u64 {
    digest.hex().get(..16).and_then(|hex| u64::from_str_radix(hex, 16).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn tags_that_speak_of_digests_are_told_apart() {
        let manifest = Manifest::parse(Bytes::from_static(br#"{"schemaVersion":2,"manifests":[]}"#), None).unwrap();
        let own = manifest.digest().hex();
        let other = Digest::of(b"other");
        let tag = |text: &str| Tag::new(text).unwrap();
        assert_eq!(role(&tag("v1.0-2"), &manifest), Role::Name);
        assert_eq!(role(&tag(&format!("sha256-{own}")), &manifest), Role::Digest);
        let attachment = |what| Role::Attachment { what, subject: other.clone() };
        assert_eq!(role(&tag(&format!("sha256-{}.sig", other.hex())), &manifest), attachment("signature"));
        assert_eq!(role(&tag(&format!("sha256-{}", other.hex())), &manifest), attachment("referrers"));
        assert_eq!(role(&tag(&format!("sha256-{}.zip", other.hex())), &manifest), Role::Name);
    }
}
