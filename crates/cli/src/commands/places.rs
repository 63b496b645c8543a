//! Names of `oc`'s mirroring commands: in a registry, or in a file tree (`file://NAME:TAG`; updates-and-releases.md 8.2).

use std::path::Path;
use std::sync::Arc;

use airlock_client::{Client, RegistrySource};
use airlock_oci::{Error, ErrorKind, Forward, Reference, Registry, Repository, Source, Tag};
use airlock_store::StorageSource;
use airlock_store::file_tree::Tree;

/// What stands for a file tree where a reference has a host.
pub(crate) const TREE: &str = "file-tree.localhost";

/// Where images are read: of a file tree what its names say, everything else from registries.
pub(crate) struct Origin {
    pub tree: Option<Arc<StorageSource<Tree>>>,
    pub registries: Arc<RegistrySource>,
}

/// A repository that images go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Spot {
    /// `None`: in the file tree.
    pub registry: Option<Registry>,
    pub repository: Repository,
}

/// A repository, and the tag there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Destination {
    pub spot: Spot,
    pub tag: Tag,
}

/// Whether a name is one in the file tree.
pub(crate) fn is_in_tree(name: &Reference) -> bool {
    name.registry().as_str() == TREE
}

/// A name as the user would write it.
pub(crate) fn shown(name: &Reference) -> String {
    match name.to_string().strip_prefix(TREE) {
        Some(rest) => format!("file://{}", rest.trim_start_matches('/')),
        None => name.to_string(),
    }
}

impl Origin {
    /// Opens the file tree, if there is one.
    pub(crate) fn open(from_dir: Option<&Path>, client: Client) -> Result<Self, Error> {
        let tree = from_dir.map(Tree::open).transpose()?;
        let tree = tree.map(|tree| Arc::new(StorageSource::new(Arc::new(tree))));
        Ok(Self { tree, registries: Arc::new(RegistrySource::new(client)) })
    }
}

impl Forward for Origin {
    fn describe(&self) -> String {
        self.tree.as_ref().map_or_else(|| self.registries.describe(), |tree| tree.describe())
    }

    fn behind(&self, name: &Reference) -> Result<(Arc<dyn Source>, Reference), Error> {
        if !is_in_tree(name) {
            return Ok((self.registries.clone(), name.clone()));
        }
        let tree = self.tree.clone().ok_or_else(|| {
            Error::new(ErrorKind::NotFound, format!("read `{}`", shown(name)), "no file tree is open")
        })?;
        Ok((tree, name.clone()))
    }
}

impl Spot {
    /// `HOST/NAME`, or `file://NAME`.
    pub(crate) fn name(&self) -> String {
        match &self.registry {
            Some(registry) => format!("{registry}/{}", self.repository),
            None => format!("file://{}", self.repository),
        }
    }
}

impl std::fmt::Display for Destination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.spot.name(), self.tag)
    }
}
