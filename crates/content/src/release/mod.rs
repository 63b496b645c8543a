//! An OpenShift release, read out of its payload image (updates-and-releases.md 5).
//!
//! The payload is the image of the cluster version operator with one layer on top, which holds `release-manifests/`:
//!
//! ```text
//! release-manifests/image-references                                which image is which component
//! release-manifests/release-metadata                                version, and what it updates from
//! release-manifests/0000_50_installer_coreos-bootimages.yaml        KubeVirt's container disk, among others
//! release-manifests/0000_NN_component_rest.yaml                     what the operator applies
//! ```
//!
//! A release for several architectures is an index of such images, one for each; what they say is the same, and one of them is read.
//!
//! ```no_run
//! # async fn example(source: &dyn airlock_oci::Source) -> Result<(), airlock_oci::Error> {
//! use airlock_content::release::{Parts, Payload};
//!
//! let name = "quay.io/openshift-release-dev/ocp-release:4.16.0-x86_64".parse().unwrap();
//! let payload = Payload::read(source, &name, Parts { boot_images: true, platform: None }).await?;
//! for component in &payload.references.components {
//!     let (name, image) = (&component.name, &component.image);
//! }
//! let kubevirt = payload.kubevirt("x86_64")?;
//! # Ok(())
//! # }
//! ```

pub mod boot_images;
pub mod image_references;
pub mod metadata;
pub mod tools;
pub mod versions;

use std::collections::BTreeMap;
use std::io::Read;

use airlock_oci::{Digest, Error, ErrorKind, Found, Manifest, Place, Platform, Reference, Shape, Source};
use serde_json::Value;

pub use boot_images::BootImages;
pub use image_references::{Component, ImageReferences};
pub use metadata::Metadata;
pub use versions::ComponentVersions;

use crate::image::{self, Config};
use crate::layers::{self, File, Image, Limits, Visitor, Wanted};

/// The directory of a payload that readers look into.
pub const DIRECTORY: &str = "release-manifests";
/// Which image is which component.
pub const IMAGE_REFERENCES: &str = "release-manifests/image-references";
/// Version and updates.
pub const RELEASE_METADATA: &str = "release-manifests/release-metadata";
/// The largest of the files that are read into memory (bytes); 4.12's image references have 130 KiB.
pub const MAX_DOCUMENT_BYTES: u64 = 16 * 1024 * 1024;
/// Most compressed bytes of an image that is searched for a release although its configuration does not say that it is one.
pub const MAX_UNLABELLED_BYTES: u64 = 1 << 30;
/// Most bytes to which a payload's layers unpack; the operator and its base have less than a GiB.
const MAX_UNPACKED_BYTES: u64 = 8 << 30;
/// The label that every payload has: its version.
const LABEL: &str = "io.openshift.release";

/// What to read of a payload beside the image references and the metadata.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// The boot images. Where a payload has none, all of its layers are searched for them.
    pub boot_images: bool,
    /// Of a release for several architectures, the image for this one; otherwise that for linux/amd64, or else the first.
    pub platform: Option<Platform>,
}

/// A release.
#[derive(Clone, Debug)]
pub struct Payload {
    /// As it was asked for.
    pub name: Reference,
    /// The manifest that the name stands for: an image, or an index with one image for each architecture. Its digest is the release's.
    pub manifest: Manifest,
    /// The image that was read: [`Self::manifest`], or one of its children.
    pub image: Manifest,
    /// Who answered.
    pub place: Place,
    /// The configuration of [`Self::image`].
    pub config: Config,
    /// The components.
    pub references: ImageReferences,
    /// `image-references` as the payload has it.
    pub image_stream: Value,
    /// Version and updates.
    pub metadata: Metadata,
    /// The boot images, if they were asked for and the payload has them.
    pub boot_images: Option<BootImages>,
    /// Files of the payload's own layer that a cluster applies.
    pub manifests: usize,
    /// Other files of it, beside image references and metadata.
    pub other_files: usize,
}

/// Keeps the documents and counts the rest.
#[derive(Default)]
struct Documents {
    wanted: Vec<&'static str>,
    kept: BTreeMap<String, Vec<u8>>,
    manifests: usize,
    others: usize,
}

/// What machines call an architecture that Go and images call by another name: as in release tags and in boot images.
pub fn machine(architecture: &str) -> &str {
    match architecture {
        "amd64" => "x86_64",
        "arm64" => "aarch64",
        other => other,
    }
}

fn is_manifest(path: &str) -> bool {
    [".yaml", ".yml", ".json"].iter().any(|extension| path.ends_with(extension))
}

impl Visitor for Documents {
    fn file(&mut self, file: &File<'_>, content: &mut dyn Read) -> Result<(), Error> {
        if is_manifest(file.path) {
            self.manifests += 1;
        } else if file.path != IMAGE_REFERENCES && file.path != RELEASE_METADATA {
            self.others += 1;
        }
        if !self.wanted.contains(&file.path) {
            return Ok(());
        }
        let what = || format!("read `{}`", file.path);
        if file.size > MAX_DOCUMENT_BYTES {
            let cause = format!("it has {} bytes; at most {MAX_DOCUMENT_BYTES} are expected", file.size);
            return Err(Error::new(ErrorKind::Unsupported, what(), cause));
        }
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes).map_err(|e| layers::broken(e, what()))?;
        self.kept.insert(file.path.to_owned(), bytes);
        Ok(())
    }
}

/// What the layers of a payload say.
#[derive(Clone, Debug)]
pub struct Contents {
    /// The components.
    pub references: ImageReferences,
    /// `image-references` as the payload has it.
    pub image_stream: Value,
    /// Version and updates.
    pub metadata: Metadata,
    /// The boot images, if they were asked for and the payload has them.
    pub boot_images: Option<BootImages>,
    /// Files of the payload's own layer that a cluster applies.
    pub manifests: usize,
    /// Other files of it, beside image references and metadata.
    pub other_files: usize,
}

fn no_release(name: &Reference, cause: &str) -> Error {
    Error::new(ErrorKind::Invalid, format!("read the release `{name}`"), format!("this is no release image: {cause}"))
        .hint("a release is named like quay.io/openshift-release-dev/ocp-release:4.16.0-x86_64")
}

/// The one image of a payload that is read.
async fn instance(
    source: &dyn Source,
    name: &Reference,
    found: &Found<Manifest>,
    parts: &Parts,
) -> Result<Manifest, Error> {
    if found.value.shape() == Shape::Artifact {
        return Err(no_release(name, "it is an artifact"));
    }
    let image = image::instance(source, name, found, parts.platform.as_ref()).await?;
    if image.shape() != Shape::Image || image.config().is_none_or(|c| !is_image_config(&c.media_type)) {
        let kind = image.artifact_type().unwrap_or(image.media_type());
        return Err(no_release(name, &format!("it is `{kind}`")));
    }
    Ok(image)
}

impl Contents {
    /// Reads what is known to be a release (an update graph names it) by nothing but its manifest and the layers that are needed.
    pub async fn read(source: &dyn Source, name: &Reference, parts: Parts) -> Result<Self, Error> {
        let found = source.manifest(name).await?;
        let image = instance(source, name, &found, &parts).await?;
        Self::of(source, name, &image, &found.place, &parts).await
    }

    async fn of(
        source: &dyn Source,
        name: &Reference,
        image: &Manifest,
        place: &Place,
        parts: &Parts,
    ) -> Result<Self, Error> {
        let mut wanted = Wanted::new().tree(DIRECTORY)?.until(IMAGE_REFERENCES)?.until(RELEASE_METADATA)?;
        let mut documents = Documents { wanted: vec![IMAGE_REFERENCES, RELEASE_METADATA], ..Documents::default() };
        if parts.boot_images {
            wanted = wanted.until(boot_images::PATH)?;
            documents.wanted.push(boot_images::PATH);
        }
        let limits = Limits { unpacked: MAX_UNPACKED_BYTES, ..Limits::default() };
        let read = Image { source, name, manifest: image, near: Some(place) };
        let mut documents = layers::files(read, &wanted, limits, documents).await?;
        let mut take = |path: &str| documents.kept.remove(path);
        let (Some(references), Some(metadata)) = (take(IMAGE_REFERENCES), take(RELEASE_METADATA)) else {
            return Err(no_release(name, &format!("it lacks `{IMAGE_REFERENCES}` or `{RELEASE_METADATA}`")));
        };
        let boot_images = take(boot_images::PATH);
        let what = name.to_string();
        Ok(Self {
            references: ImageReferences::parse(&references, &what)?,
            image_stream: image_references::raw(&references),
            metadata: Metadata::parse(&metadata, &what)?,
            boot_images: boot_images.map(|bytes| BootImages::parse(&bytes, &what)).transpose()?,
            manifests: documents.manifests,
            other_files: documents.others,
        })
    }
}

impl Payload {
    /// Finds the release that a name stands for, and reads it: the manifest, for several architectures one more, the configuration, and the
    /// layer that holds `release-manifests/`.
    pub async fn read(source: &dyn Source, name: &Reference, parts: Parts) -> Result<Self, Error> {
        let found = source.manifest(name).await?;
        Self::of(source, name, found, parts).await
    }

    /// Reads a release whose manifest is there already.
    pub async fn of(
        source: &dyn Source,
        name: &Reference,
        found: Found<Manifest>,
        parts: Parts,
    ) -> Result<Self, Error> {
        let image = instance(source, name, &found, &parts).await?;
        let config = image::config(source, name, &image, Some(&found.place)).await?;
        let compressed: u64 = image.layers().iter().map(|l| l.size).sum();
        if !config.labels.contains_key(LABEL) && compressed > MAX_UNLABELLED_BYTES {
            return Err(no_release(name, &format!("it has no label `{LABEL}`")));
        }
        let contents = Contents::of(source, name, &image, &found.place, &parts).await?;
        Ok(Self {
            name: name.clone(),
            place: found.place,
            config,
            references: contents.references,
            image_stream: contents.image_stream,
            metadata: contents.metadata,
            boot_images: contents.boot_images,
            manifests: contents.manifests,
            other_files: contents.other_files,
            manifest: found.value,
            image,
        })
    }

    /// What its layers say, without the rest.
    pub fn into_contents(self) -> Contents {
        Contents {
            references: self.references,
            image_stream: self.image_stream,
            metadata: self.metadata,
            boot_images: self.boot_images,
            manifests: self.manifests,
            other_files: self.other_files,
        }
    }

    /// The release's digest: what signatures, clusters and the update graph name it by.
    pub fn digest(&self) -> &Digest {
        self.manifest.digest()
    }

    /// The version, such as `4.16.0`.
    pub fn version(&self) -> String {
        self.metadata.version.to_string()
    }

    /// The release's name by digest.
    pub fn pull_spec(&self) -> Reference {
        self.name.with_digest(self.digest().clone())
    }

    /// What the update graph calls the architecture: `multi`, or Go's name.
    pub fn architecture(&self) -> &str {
        if self.is_multi() { "multi" } else { &self.config.platform.architecture }
    }

    /// Whether it is for several architectures: by its own word, or an index of several images.
    pub fn is_multi(&self) -> bool {
        self.metadata.is_multi() || image::platforms(&self.manifest).count() > 1
    }

    /// The platforms that it is for.
    pub fn platforms(&self) -> Vec<Platform> {
        match self.manifest.shape() {
            Shape::Index => image::platforms(&self.manifest).map(|(p, _)| p.clone()).collect(),
            Shape::Image | Shape::Artifact => vec![self.config.platform.clone()],
        }
    }

    /// KubeVirt's container disk for a machine architecture (`x86_64`), if the boot images were read and name one.
    pub fn kubevirt(&self, machine: &str) -> Result<Option<Reference>, Error> {
        self.boot_images.as_ref().map_or(Ok(None), |images| images.kubevirt(machine))
    }

    /// Hands every file below `release-manifests/` to `visitor`. Reads all layers, since any of them may have some.
    pub async fn files<V: Visitor + 'static>(&self, source: &dyn Source, visitor: V) -> Result<V, Error> {
        let limits = Limits { unpacked: MAX_UNPACKED_BYTES, file: MAX_DOCUMENT_BYTES };
        let image = Image { source, name: &self.name, manifest: &self.image, near: Some(&self.place) };
        layers::files(image, &Wanted::new().tree(DIRECTORY)?, limits, visitor).await
    }

    /// Hands one file below `release-manifests/` to `visitor`.
    pub async fn file<V: Visitor + 'static>(&self, source: &dyn Source, name: &str, visitor: V) -> Result<V, Error> {
        let limits = Limits { unpacked: MAX_UNPACKED_BYTES, file: MAX_DOCUMENT_BYTES };
        let image = Image { source, name: &self.name, manifest: &self.image, near: Some(&self.place) };
        layers::files(image, &Wanted::new().file(&format!("{DIRECTORY}/{name}"))?, limits, visitor).await
    }
}

fn is_image_config(media_type: &str) -> bool {
    // The type of the config is what tells images from artifacts; odd tools leave it empty or generic.
    use airlock_oci::media_type::{DOCKER_CONFIG, OCI_CONFIG};
    matches!(media_type, OCI_CONFIG | DOCKER_CONFIG | "" | "application/octet-stream" | "application/json")
}
