//! The configuration's types. Field names are those of the file; `line` is where an entry begins, counted from 1.

use std::path::PathBuf;

use airlock_oci::{Platform, Reference, Repository, Tag};
use regex::Regex;

/// Size of a part of an archive where none is configured, in GiB.
const DEFAULT_ARCHIVE_GIB: u64 = 500;

/// Which version of the format the file says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiVersion {
    /// `mirror.openshift.io/v1alpha2`: oc-mirror v1.
    V1Alpha2,
    /// `mirror.openshift.io/v2alpha1`: oc-mirror v2.
    V2Alpha1,
}

/// What to mirror.
#[derive(Clone, Debug)]
pub struct ImageSetConfiguration {
    /// As written; a missing or unknown one counts as v2alpha1.
    pub api_version: ApiVersion,
    /// Largest part of an archive.
    pub archive_size: ArchiveSize,
    /// `mirror`.
    pub mirror: Content,
}

/// What to delete.
#[derive(Clone, Debug)]
pub struct DeleteImageSetConfiguration {
    /// `delete`; it has no blocked images.
    pub delete: Content,
}

/// Largest part of an archive, at least 1 GiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArchiveSize {
    gib: u64,
}

/// The content of an image set, by kind.
#[derive(Clone, Debug, Default)]
pub struct Content {
    /// `platform`: OpenShift releases.
    pub platform: Option<Releases>,
    /// `operators`: catalogs.
    pub operators: Vec<Catalog>,
    /// `additionalImages`.
    pub additional_images: Vec<AdditionalImage>,
    /// `helm`.
    pub helm: Helm,
    /// `blockedImages`.
    pub blocked_images: Vec<BlockedImage>,
    /// `samples`: accepted and ignored.
    pub samples: Vec<Sample>,
}

/// Where an image is, as somebody wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageName {
    /// As written, without `docker://`. The text decides the name at the destination: `nginx:1` and
    /// `docker.io/library/nginx:1` are one image that is stored under two names (oc-mirror 4.2).
    pub text: String,
    /// The same, understood.
    pub location: ImageLocation,
}

/// A registry or a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageLocation {
    /// In a registry; with a tag, a digest or both.
    Registry(Reference),
    /// `oci://`: an OCI layout; `oci:///abs` is absolute, `oci://rel` relative to the current directory.
    Layout(PathBuf),
}

/// `platform`.
#[derive(Clone, Debug, Default)]
pub struct Releases {
    /// Where it begins.
    pub line: u32,
    /// Mirror the update graph as well.
    pub graph: bool,
    /// Update channels; ignored when `release` is set.
    pub channels: Vec<ReleaseChannel>,
    /// Deprecated: separate payloads by architecture. Empty means amd64.
    pub architectures: Vec<String>,
    /// Sparse filter; empty means all.
    pub platforms: Vec<Platform>,
    /// One payload, in place of channels.
    pub release: Option<ImageName>,
    /// Add the KubeVirt disk images of CoreOS.
    pub kube_virt_container: bool,
}

/// `platform.channels[]`.
#[derive(Clone, Debug)]
pub struct ReleaseChannel {
    /// Where it begins.
    pub line: u32,
    /// Such as `stable-4.18`.
    pub name: String,
    /// OpenShift or OKD.
    pub kind: ReleaseKind,
    /// Lowest version, `x.y.z`.
    pub min_version: Option<String>,
    /// Highest version, `x.y.z`.
    pub max_version: Option<String>,
    /// Only the shortest upgrade path between the two.
    pub shortest_path: bool,
    /// Every version of the channel.
    pub full: bool,
}

/// `platform.channels[].type`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReleaseKind {
    /// OpenShift Container Platform.
    #[default]
    Ocp,
    /// OKD.
    Okd,
}

/// `operators[]`.
#[derive(Clone, Debug)]
pub struct Catalog {
    /// Where it begins.
    pub line: u32,
    /// The catalog's image or OCI layout.
    pub catalog: ImageName,
    /// Path of the catalog at the destination.
    pub target_catalog: Option<Repository>,
    /// Tag of the catalog at the destination.
    pub target_tag: Option<Tag>,
    /// All bundles instead of the heads of channels.
    pub full: bool,
    /// Which packages; empty means all.
    pub packages: Vec<Package>,
    /// Accepted and without effect: dependencies are never added.
    pub skip_dependencies: bool,
    /// A template for the CatalogSource.
    pub target_catalog_source_template: Option<PathBuf>,
    /// Sparse filter; empty means all.
    pub platforms: Vec<Platform>,
}

/// `operators[].packages[]`.
#[derive(Clone, Debug)]
pub struct Package {
    /// Where it begins.
    pub line: u32,
    /// The package's name.
    pub name: String,
    /// Replaces the default channel, which must be among those mirrored.
    pub default_channel: Option<String>,
    /// Lowest version, in whichever channel.
    pub min_version: Option<String>,
    /// Highest version, in whichever channel.
    pub max_version: Option<String>,
    /// Which channels; empty means all.
    pub channels: Vec<PackageChannel>,
    /// Exactly these bundles, by name.
    pub bundles: Vec<PackageBundle>,
}

/// `operators[].packages[].bundles[]`.
#[derive(Clone, Debug)]
pub struct PackageBundle {
    /// Where it stands.
    pub line: u32,
    /// The bundle's name.
    pub name: String,
}

/// `operators[].packages[].channels[]`.
#[derive(Clone, Debug)]
pub struct PackageChannel {
    /// Where it begins.
    pub line: u32,
    /// The channel's name.
    pub name: String,
    /// Lowest version.
    pub min_version: Option<String>,
    /// Highest version.
    pub max_version: Option<String>,
}

/// `additionalImages[]`.
#[derive(Clone, Debug)]
pub struct AdditionalImage {
    /// Where it begins.
    pub line: u32,
    /// Which image; with a tag, a digest or both.
    pub name: ImageName,
    /// Path at the destination.
    pub target_repo: Option<Repository>,
    /// Tag at the destination.
    pub target_tag: Option<Tag>,
    /// Sparse filter; empty means all.
    pub platforms: Vec<Platform>,
}

/// `helm`.
#[derive(Clone, Debug, Default)]
pub struct Helm {
    /// Chart repositories.
    pub repositories: Vec<HelmRepository>,
    /// Charts on disk.
    pub local: Vec<Chart>,
}

/// `helm.repositories[]`.
#[derive(Clone, Debug)]
pub struct HelmRepository {
    /// Where it begins.
    pub line: u32,
    /// A name of one's own.
    pub name: String,
    /// Where its `index.yaml` lies.
    pub url: String,
    /// Which charts; empty means all, in every version.
    pub charts: Vec<Chart>,
}

/// A chart of a repository or on disk.
#[derive(Clone, Debug)]
pub struct Chart {
    /// Where it begins.
    pub line: u32,
    /// The chart's name.
    pub name: String,
    /// Its version.
    pub version: Option<String>,
    /// A `.tgz` or a directory, for charts on disk.
    pub path: Option<PathBuf>,
    /// JSONPaths of further images.
    pub image_paths: Vec<String>,
    /// Sparse filter; empty means all.
    pub platforms: Vec<Platform>,
}

/// `blockedImages[]`.
#[derive(Clone, Debug)]
pub struct BlockedImage {
    /// Where it begins.
    pub line: u32,
    /// Not anchored: it may match any part of a name.
    pub pattern: Regex,
}

/// `samples[]`.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Where it begins.
    pub line: u32,
    /// As written.
    pub name: String,
}

impl ArchiveSize {
    /// In GiB; 0 stands for the default.
    pub fn from_gib(gib: u64) -> Self {
        Self { gib: if gib == 0 { DEFAULT_ARCHIVE_GIB } else { gib } }
    }

    /// In GiB.
    pub fn gib(self) -> u64 {
        self.gib
    }

    /// In bytes.
    pub fn bytes(self) -> u64 {
        self.gib.saturating_mul(1024 * 1024 * 1024)
    }
}

impl Default for ArchiveSize {
    fn default() -> Self {
        Self::from_gib(0)
    }
}

impl Content {
    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        let releases = self.platform.as_ref().is_some_and(|p| p.graph || p.release.is_some() || !p.channels.is_empty());
        !releases
            && self.operators.is_empty()
            && self.additional_images.is_empty()
            && self.helm.repositories.is_empty()
            && self.helm.local.is_empty()
    }
}
