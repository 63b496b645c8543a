//! Sources that stand on others: layouts on disk beside registries, manifests at hand before the network, the target behind an archive.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use airlock_oci::{
    BlobStream, Descriptor, Digest, Error, ErrorKind, Found, Manifest, Place, Reference, Repository, Source, Tag,
};
use airlock_store::oci_layout::Layout;
use async_trait::async_trait;

use crate::config::{ImageLocation, Loaded};
use crate::plan::naming::LAYOUT_REGISTRY;
use crate::plan::{ManifestCache, locked};

/// References to layouts on disk go to the layout, all others to the registries.
pub(crate) struct Router {
    registries: Arc<dyn Source>,
    layouts: HashMap<Repository, PathBuf>,
    opened: Mutex<HashMap<Repository, Layout>>,
}

/// Manifests by digest come from the cache where it has them.
pub(crate) struct Cached {
    /// Manifests at hand.
    pub cache: Arc<ManifestCache>,
    /// Everything else.
    pub source: Arc<dyn Source>,
}

/// Blobs that the first source does not have are read from the second, under another name: an increment is loaded into a registry that
/// has the rest already.
pub(crate) struct Backed {
    /// The archives.
    pub archives: Arc<crate::archives::Archives>,
    /// The archives as a source.
    pub first: Arc<dyn Source>,
    /// The target, as a source.
    pub target: Arc<dyn Source>,
    /// Which repository of the target has a blob.
    pub held: HashMap<Digest, Reference>,
}

impl Router {
    /// Knows the layouts that a configuration names.
    pub(crate) fn new(registries: Arc<dyn Source>, loaded: &Loaded) -> Self {
        Self { registries, layouts: layouts(loaded), opened: Mutex::default() }
    }

    fn layout(&self, name: &Reference) -> Result<Option<Layout>, Error> {
        if name.registry().as_str() != LAYOUT_REGISTRY {
            return Ok(None);
        }
        let repository = name.repository();
        let mut opened = locked(&self.opened);
        if let Some(layout) = opened.get(repository) {
            return Ok(Some(layout.clone()));
        }
        let path = self.layouts.get(repository).ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                format!("open OCI layout `{repository}`"),
                "the configuration names no such layout",
            )
        })?;
        let layout = Layout::open(path)?;
        opened.insert(repository.clone(), layout.clone());
        Ok(Some(layout))
    }
}

/// The layouts that a configuration names, by the path under which the plan knows them.
pub(crate) fn layouts(loaded: &Loaded) -> HashMap<Repository, PathBuf> {
    let mut layouts = HashMap::new();
    for image in &loaded.config.mirror.additional_images {
        if let ImageLocation::Layout(path) = &image.name.location
            && let Ok(reference) = crate::plan::layout_reference(image)
        {
            layouts.insert(reference.repository().clone(), path.clone());
        }
    }
    layouts
}

/// The reference by which a layout's only image is asked: a layout knows no `latest` unless it says so.
fn within(layout: &Layout, name: &Reference) -> Reference {
    if name.digest().is_some() || layout.names().iter().any(|n| Some(*n) == name.tag().map(Tag::as_str)) {
        return name.clone();
    }
    match layout.manifests() {
        [only] => name.with_digest(only.digest.clone()),
        _ => name.clone(),
    }
}

#[async_trait]
impl Source for Router {
    fn describe(&self) -> String {
        self.registries.describe()
    }

    async fn resolve(&self, name: &Reference) -> Result<Found<Digest>, Error> {
        match self.layout(name)? {
            Some(layout) => layout.resolve(&within(&layout, name)).await,
            None => self.registries.resolve(name).await,
        }
    }

    async fn manifest(&self, name: &Reference) -> Result<Found<Manifest>, Error> {
        match self.layout(name)? {
            Some(layout) => layout.manifest(&within(&layout, name)).await,
            None => self.registries.manifest(name).await,
        }
    }

    async fn manifest_at(&self, name: &Reference, place: &Place) -> Result<Option<Manifest>, Error> {
        match self.layout(name)? {
            // A signature in a layout is a tag like any other; it must be named, not guessed.
            Some(layout) => layout.manifest_at(name, place).await,
            None => self.registries.manifest_at(name, place).await,
        }
    }

    async fn blob(
        &self,
        name: &Reference,
        blob: &Descriptor,
        offset: u64,
        near: Option<&Place>,
    ) -> Result<BlobStream, Error> {
        match self.layout(name)? {
            Some(layout) => layout.blob(name, blob, offset, near).await,
            None => self.registries.blob(name, blob, offset, near).await,
        }
    }

    async fn has_blob(&self, name: &Reference, blob: &Descriptor, near: Option<&Place>) -> Result<bool, Error> {
        match self.layout(name)? {
            Some(layout) => layout.has_blob(name, blob, near).await,
            None => self.registries.has_blob(name, blob, near).await,
        }
    }

    async fn referrers(
        &self,
        name: &Reference,
        subject: &Digest,
        near: Option<&Place>,
    ) -> Result<Vec<Descriptor>, Error> {
        match self.layout(name)? {
            Some(layout) => layout.referrers(name, subject, near).await,
            None => self.registries.referrers(name, subject, near).await,
        }
    }

    async fn tags(&self, name: &Reference) -> Result<Vec<Tag>, Error> {
        match self.layout(name)? {
            Some(layout) => layout.tags(name).await,
            None => self.registries.tags(name).await,
        }
    }
}

#[async_trait]
impl Source for Cached {
    fn describe(&self) -> String {
        self.source.describe()
    }

    async fn resolve(&self, name: &Reference) -> Result<Found<Digest>, Error> {
        self.source.resolve(name).await
    }

    async fn manifest(&self, name: &Reference) -> Result<Found<Manifest>, Error> {
        if let Some(manifest) = name.digest().and_then(|d| self.cache.get(d)) {
            return Ok(Found { value: manifest, place: Place::default() });
        }
        self.source.manifest(name).await
    }

    async fn manifest_at(&self, name: &Reference, place: &Place) -> Result<Option<Manifest>, Error> {
        self.source.manifest_at(name, place).await
    }

    async fn blob(
        &self,
        name: &Reference,
        blob: &Descriptor,
        offset: u64,
        near: Option<&Place>,
    ) -> Result<BlobStream, Error> {
        self.source.blob(name, blob, offset, near).await
    }

    async fn has_blob(&self, name: &Reference, blob: &Descriptor, near: Option<&Place>) -> Result<bool, Error> {
        self.source.has_blob(name, blob, near).await
    }

    async fn referrers(
        &self,
        name: &Reference,
        subject: &Digest,
        near: Option<&Place>,
    ) -> Result<Vec<Descriptor>, Error> {
        self.source.referrers(name, subject, near).await
    }

    async fn tags(&self, name: &Reference) -> Result<Vec<Tag>, Error> {
        self.source.tags(name).await
    }
}

#[async_trait]
impl Source for Backed {
    fn describe(&self) -> String {
        self.first.describe()
    }

    async fn resolve(&self, name: &Reference) -> Result<Found<Digest>, Error> {
        self.first.resolve(name).await
    }

    async fn manifest(&self, name: &Reference) -> Result<Found<Manifest>, Error> {
        self.first.manifest(name).await
    }

    async fn blob(
        &self,
        name: &Reference,
        blob: &Descriptor,
        offset: u64,
        near: Option<&Place>,
    ) -> Result<BlobStream, Error> {
        match self.held.get(&blob.digest) {
            Some(held) if self.archives.region(&blob.digest).is_none() => {
                self.target.blob(held, blob, offset, None).await
            }
            _ => self.first.blob(name, blob, offset, near).await,
        }
    }

    async fn has_blob(&self, name: &Reference, blob: &Descriptor, near: Option<&Place>) -> Result<bool, Error> {
        Ok(self.held.contains_key(&blob.digest) || self.first.has_blob(name, blob, near).await?)
    }

    async fn referrers(
        &self,
        name: &Reference,
        subject: &Digest,
        near: Option<&Place>,
    ) -> Result<Vec<Descriptor>, Error> {
        self.first.referrers(name, subject, near).await
    }

    async fn tags(&self, name: &Reference) -> Result<Vec<Tag>, Error> {
        self.first.tags(name).await
    }
}
