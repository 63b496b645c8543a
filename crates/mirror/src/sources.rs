//! Sources that stand on others: layouts on disk beside registries, manifests at hand before the network, the target behind an archive.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};

use airlock_content::image;
use airlock_oci::{
    BlobStream, Descriptor, Digest, Error, ErrorKind, Forward, Found, Manifest, Place, Reference, Repository, Source,
    Tag,
};
use airlock_store::oci_layout::Layout;
use async_trait::async_trait;

use crate::config::{ImageLocation, Loaded};
use crate::plan::naming::{GENERATED_REGISTRY, LAYOUT_REGISTRY};
use crate::plan::{Cache, Target, locked};

/// References to layouts on disk go to the layout, those to what was built while planning to what was built, all others to the registries.
pub(crate) struct Router {
    registries: Arc<dyn Source>,
    /// `None`: layouts are read from where everything else is.
    layouts: Option<HashMap<Repository, PathBuf>>,
    opened: Mutex<HashMap<Repository, Layout>>,
    /// Layouts that are catalogs: several images side by side are the platforms of one (oc-mirror 6.1).
    catalogs: HashSet<Repository>,
    joined: Mutex<HashMap<Repository, Arc<Joined>>>,
    generated: Mutex<HashMap<Repository, Arc<dyn Source>>>,
}

/// Manifests by digest come from the cache where it has them.
pub(crate) struct Cached {
    /// Manifests at hand.
    pub cache: Arc<Cache>,
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
    /// Which repository of the target has a blob; where that is not known, the one that the archive's table names is asked.
    pub held: OnceLock<HashMap<Digest, Reference>>,
    /// The target's names.
    pub aim: Target,
}

impl Backed {
    fn held(&self, digest: &Digest) -> Option<Reference> {
        if self.archives.region(digest).is_some() {
            return None;
        }
        self.held.get().and_then(|held| held.get(digest)).cloned().or_else(|| {
            let repository = self.aim.repository(&self.archives.absent(digest)?.repository).ok()?;
            Some(Reference::new(self.aim.registry.clone(), repository, None, None))
        })
    }
}

impl Router {
    /// Knows the layouts that a configuration names.
    pub(crate) fn new(registries: Arc<dyn Source>, loaded: &Loaded) -> Self {
        Self {
            registries,
            layouts: Some(layouts(loaded)),
            opened: Mutex::default(),
            catalogs: catalogs(loaded),
            joined: Mutex::default(),
            generated: Mutex::default(),
        }
    }

    /// Knows nothing but what is built: archives have what lay in layouts.
    pub(crate) fn over(source: Arc<dyn Source>) -> Self {
        Self {
            registries: source,
            layouts: None,
            opened: Mutex::default(),
            catalogs: HashSet::new(),
            joined: Mutex::default(),
            generated: Mutex::default(),
        }
    }

    /// From now on serves what was built under this name.
    pub(crate) fn serve(&self, repository: Repository, source: Arc<dyn Source>) {
        locked(&self.generated).insert(repository, source);
    }

    fn layout(&self, name: &Reference) -> Result<Option<Layout>, Error> {
        let Some(layouts) = self.layouts.as_ref().filter(|_| name.registry().as_str() == LAYOUT_REGISTRY) else {
            return Ok(None);
        };
        let repository = name.repository();
        let mut opened = locked(&self.opened);
        if let Some(layout) = opened.get(repository) {
            return Ok(Some(layout.clone()));
        }
        let path = layouts.get(repository).ok_or_else(|| {
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
    let content = &loaded.config.mirror;
    let names = content.additional_images.iter().map(|i| &i.name).chain(content.operators.iter().map(|o| &o.catalog));
    for name in names {
        if let ImageLocation::Layout(path) = &name.location
            && let Ok(reference) = crate::plan::layout_reference(&name.text)
        {
            layouts.insert(reference.repository().clone(), path.clone());
        }
    }
    layouts
}

/// The layouts that a configuration names as catalogs.
fn catalogs(loaded: &Loaded) -> HashSet<Repository> {
    let names = loaded.config.mirror.operators.iter().map(|entry| &entry.catalog);
    let layouts = names.filter(|name| matches!(name.location, ImageLocation::Layout(_)));
    layouts.filter_map(|name| Some(crate::plan::layout_reference(&name.text).ok()?.repository().clone())).collect()
}

/// The images of a layout as the platforms of one index, which the layout itself does not have.
struct Joined {
    layout: Layout,
    index: tokio::sync::OnceCell<Manifest>,
}

impl Joined {
    fn new(layout: Layout) -> Self {
        Self { layout, index: tokio::sync::OnceCell::new() }
    }

    async fn index(&self, name: &Reference) -> Result<&Manifest, Error> {
        self.index.get_or_try_init(|| self.join(name)).await
    }

    async fn join(&self, name: &Reference) -> Result<Manifest, Error> {
        let mut children = Vec::new();
        for descriptor in self.layout.manifests() {
            let child = name.with_digest(descriptor.digest.clone());
            let found = Source::manifest(&self.layout, &child).await?;
            let platform = match &descriptor.platform {
                Some(platform) => platform.clone(),
                None => image::config(&self.layout, &child, &found.value, Some(&found.place)).await?.platform,
            };
            children.push(serde_json::json!({
                "digest": descriptor.digest,
                "mediaType": found.value.media_type(),
                "platform": platform,
                "size": found.value.bytes().len(),
            }));
        }
        let index = serde_json::json!({
            "manifests": children,
            "mediaType": airlock_oci::media_type::OCI_INDEX,
            "schemaVersion": 2,
        });
        Manifest::parse(crate::outputs::sorted(&index).to_string().into(), Some(airlock_oci::media_type::OCI_INDEX))
    }
}

#[async_trait]
impl Forward for Joined {
    fn describe(&self) -> String {
        Source::describe(&self.layout)
    }

    fn behind(&self, name: &Reference) -> Result<(Arc<dyn Source>, Reference), Error> {
        Ok((Arc::new(self.layout.clone()), name.clone()))
    }

    async fn resolve(&self, name: &Reference) -> Result<Found<Digest>, Error> {
        let found = Forward::manifest(self, name).await?;
        Ok(Found { value: found.value.digest().clone(), place: found.place })
    }

    async fn manifest(&self, name: &Reference) -> Result<Found<Manifest>, Error> {
        let index = self.index(name).await?;
        match name.digest() {
            Some(digest) if digest != index.digest() => Source::manifest(&self.layout, name).await,
            _ => Ok(Found { value: index.clone(), place: Place::default() }),
        }
    }

    async fn manifest_at(&self, name: &Reference, place: &Place) -> Result<Option<Manifest>, Error> {
        if name.digest() == Some(self.index(name).await?.digest()) {
            return Ok(Some(self.index(name).await?.clone()));
        }
        Source::manifest_at(&self.layout, name, place).await
    }
}

/// The reference by which a layout's only image is asked: a layout knows no `latest` unless it says so.
fn within(layout: &Layout, name: &Reference) -> Reference {
    if name.digest().is_some() || layout.names().iter().any(|n| Some(*n) == name.tag().map(Tag::as_str)) {
        return name.clone();
    }
    match layout.manifests() {
        // One that was asked for by another name is not the one.
        [only] if name.tag().is_none_or(|tag| tag.as_str() == "latest") || layout.names().is_empty() => {
            name.with_digest(only.digest.clone())
        }
        _ => name.clone(),
    }
}

#[async_trait]
impl Forward for Router {
    fn describe(&self) -> String {
        self.registries.describe()
    }

    fn behind(&self, name: &Reference) -> Result<(Arc<dyn Source>, Reference), Error> {
        if name.registry().as_str() == GENERATED_REGISTRY {
            let built = locked(&self.generated).get(name.repository()).cloned();
            return match built {
                Some(source) => Ok((source, name.clone())),
                // An archive has what was built when it was written.
                None if self.layouts.is_none() => Ok((Arc::clone(&self.registries), name.clone())),
                None => {
                    Err(Error::new(ErrorKind::NotFound, format!("read `{}`", name.repository()), "it was not built"))
                }
            };
        }
        Ok(match self.layout(name)? {
            Some(layout) => {
                let known = within(&layout, name);
                let several = layout.manifests().len() > 1 && self.catalogs.contains(name.repository());
                if !several || (known.digest().is_none() && known != *name) {
                    return Ok((Arc::new(layout), known));
                }
                let mut joined = locked(&self.joined);
                let joined = joined.entry(name.repository().clone()).or_insert_with(|| Arc::new(Joined::new(layout)));
                (Arc::clone(joined) as Arc<dyn Source>, name.clone())
            }
            None => (Arc::clone(&self.registries), name.clone()),
        })
    }

    async fn manifest_at(&self, name: &Reference, place: &Place) -> Result<Option<Manifest>, Error> {
        // A signature in a layout is a tag like any other; it must be named, not guessed.
        self.behind(name)?.0.manifest_at(name, place).await
    }
}

#[async_trait]
impl Forward for Cached {
    fn describe(&self) -> String {
        self.source.describe()
    }

    fn behind(&self, name: &Reference) -> Result<(Arc<dyn Source>, Reference), Error> {
        Ok((Arc::clone(&self.source), name.clone()))
    }

    async fn manifest(&self, name: &Reference) -> Result<Found<Manifest>, Error> {
        if let Some(manifest) = name.digest().and_then(|d| self.cache.get(d)) {
            return Ok(Found { value: manifest, place: Place::default() });
        }
        let found = self.source.manifest(name).await?;
        self.cache.put(&found.value);
        Ok(found)
    }

    async fn manifest_at(&self, name: &Reference, place: &Place) -> Result<Option<Manifest>, Error> {
        if let Some(manifest) = name.digest().and_then(|d| self.cache.get(d)) {
            return Ok(Some(manifest));
        }
        let found = self.source.manifest_at(name, place).await?;
        if let Some(manifest) = &found {
            self.cache.put(manifest);
        }
        Ok(found)
    }
}

#[async_trait]
impl Forward for Backed {
    fn describe(&self) -> String {
        self.first.describe()
    }

    fn behind(&self, name: &Reference) -> Result<(Arc<dyn Source>, Reference), Error> {
        Ok((Arc::clone(&self.first), name.clone()))
    }

    async fn blob(
        &self,
        name: &Reference,
        blob: &Descriptor,
        offset: u64,
        near: Option<&Place>,
    ) -> Result<BlobStream, Error> {
        match self.held(&blob.digest) {
            Some(held) => self.target.blob(&held, blob, offset, None).await,
            None => self.first.blob(name, blob, offset, near).await,
        }
    }

    async fn has_blob(&self, name: &Reference, blob: &Descriptor, near: Option<&Place>) -> Result<bool, Error> {
        Ok(self.held.get().is_some_and(|held| held.contains_key(&blob.digest))
            || self.first.has_blob(name, blob, near).await?)
    }
}
