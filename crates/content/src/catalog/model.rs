//! A catalog in memory: of every bundle what choosing needs, and where in the [`Spool`] the whole of it lies.
//!
//! Nine thousand bundles with twenty images each make a model of some tens of megabytes: texts that occur more than once - images, names
//! of bundles - exist once, and descriptions, icons and examples stay in the spool.

use std::collections::BTreeMap;
use std::sync::Arc;

use airlock_oci::{Digest, Error};

use super::spool::{Blob, Spool};

/// A text that several parts of a catalog share.
pub type Text = Arc<str>;

/// A catalog that was read.
#[derive(Debug)]
pub struct Catalog {
    pub(super) packages: BTreeMap<Text, Package>,
    /// Documents of other kinds that belong to no package.
    pub(super) others: Vec<Blob>,
    /// Those that belong to packages which the catalog does not have.
    pub(super) orphans: Vec<Blob>,
    pub(super) spool: Spool,
    /// Where it came from.
    pub origin: Origin,
}

/// Where a catalog came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The digest that its name stood for: of the image, or of the index of one for each platform. `None` for a directory.
    pub digest: Option<Digest>,
    /// The directory or the database inside the image, without a leading slash; or the directory on disk.
    pub path: String,
    /// How it is written.
    pub form: Form,
}

/// How a catalog is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// File-based: JSON and YAML in a directory.
    Files,
    /// A SQLite database, as up to OpenShift 4.10.
    Sqlite,
}

/// An operator.
#[derive(Clone, Debug)]
pub struct Package {
    /// Its name.
    pub name: Text,
    /// The channel that is installed from where none is named.
    pub default_channel: Option<Text>,
    /// Channels, by name.
    pub channels: Vec<Channel>,
    /// Bundles, by name.
    pub bundles: Vec<Bundle>,
    /// What is wrong with it as published, in sentences; OLM takes no catalog with such a package.
    pub faults: Vec<String>,
    pub(super) blob: Option<Blob>,
    pub(super) deprecations: Vec<Blob>,
    pub(super) others: Vec<Blob>,
}

/// A way of updates of an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Channel {
    /// Its name.
    pub name: Text,
    /// Its bundles, in the order as written.
    pub entries: Vec<Entry>,
    /// `None` where it was not written as a blob of its own.
    pub(super) blob: Option<Blob>,
}

/// A bundle's place in a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The bundle.
    pub name: Text,
    /// The bundle that it updates.
    pub replaces: Option<Text>,
    /// Bundles that it updates as well, and that are then not installed on the way.
    pub skips: Box<[Text]>,
    /// Versions that it updates as well.
    pub skip_range: Option<Text>,
}

/// One version of an operator.
#[derive(Clone, Debug)]
pub struct Bundle {
    /// Its name.
    pub name: Text,
    /// Its image; empty for the old kind whose manifests stand in the catalog.
    pub image: Text,
    /// Its version, from the property `olm.package`, as written.
    pub version: Option<Text>,
    /// Images that it needs, as written, its own often among them.
    pub related: Box<[Text]>,
    /// What it needs and provides.
    pub needs: Option<Box<Needs>>,
    /// Its name for people.
    pub display_name: Option<Text>,
    /// Whether it says that it works without a network (`features.operators.openshift.io/disconnected`).
    pub disconnected: Option<bool>,
    pub(super) blob: Blob,
}

/// What a bundle needs of others, and what it provides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Kinds that it provides (`olm.gvk`).
    pub provides: Vec<Gvk>,
    /// Kinds that another bundle must provide (`olm.gvk.required`).
    pub kinds: Vec<Gvk>,
    /// Packages that must be there (`olm.package.required`).
    pub packages: Vec<Required>,
    /// Conditions (`olm.constraint`), as JSON.
    pub constraints: Vec<Box<str>>,
}

/// A kind of the cluster's API.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Gvk {
    /// `etcd.database.coreos.com`.
    pub group: Text,
    /// `v1beta2`.
    pub version: Text,
    /// `EtcdCluster`.
    pub kind: Text,
}

/// A package that must be there.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Required {
    /// Its name.
    pub package: Text,
    /// In which versions.
    pub range: Text,
}

impl Catalog {
    /// Its operators, by name.
    pub fn packages(&self) -> impl ExactSizeIterator<Item = &Package> {
        self.packages.values()
    }

    /// An operator.
    pub fn package(&self, name: &str) -> Option<&Package> {
        self.packages.get(name)
    }

    /// How many bundles it has.
    pub fn bundles(&self) -> usize {
        self.packages.values().map(|package| package.bundles.len()).sum()
    }

    /// All of a bundle, as JSON.
    pub fn document(&self, bundle: &Bundle) -> Result<Vec<u8>, Error> {
        self.spool.get(bundle.blob)
    }
}

impl Package {
    /// The channel of this name.
    pub fn channel(&self, name: &str) -> Option<&Channel> {
        self.channels.iter().find(|channel| &*channel.name == name)
    }

    /// The bundle of this name.
    pub fn bundle(&self, name: &str) -> Option<&Bundle> {
        self.bundles.binary_search_by(|bundle| (*bundle.name).cmp(name)).ok().map(|at| &self.bundles[at])
    }
}

impl Channel {
    /// The entry of this name.
    pub fn entry(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| &*entry.name == name)
    }
}

impl Bundle {
    /// What it needs and provides.
    pub fn needs(&self) -> &Needs {
        static NOTHING: Needs =
            Needs { provides: Vec::new(), kinds: Vec::new(), packages: Vec::new(), constraints: Vec::new() };
        self.needs.as_deref().unwrap_or(&NOTHING)
    }
}

impl std::fmt::Display for Gvk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{} {}", self.group, self.version, self.kind)
    }
}

impl std::fmt::Display for Required {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.package, self.range)
    }
}
