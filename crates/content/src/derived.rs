//! An image built upon another: its layers, new ones over them, and a changed configuration.
//!
//! The same base and the same layers give the same digest: JSON is written with sorted keys, and the base's time stays the image's. Only what is new
//! is written to the sink - layers, configurations, manifests; the base's layers are read by whoever copies the image, through
//! [`DerivedSource`].

use airlock_oci::sink::ManifestName;
use airlock_oci::{
    Content, Descriptor, Digest, Error, ErrorKind, Found, Manifest, Place, Platform, Reference, Repository, Shape,
    Sink, Source, Tag, media_type,
};
use bytes::Bytes;
use serde_json::{Map, Value, json};

pub use crate::graph_image::GraphImageSource as DerivedSource;
use crate::image::{self, Config, MAX_CONFIG_BYTES, small_blob};

/// What the file system of an image of layers is called in its configuration.
const LAYERS: &str = "layers";

/// The image that something is built upon.
#[derive(Clone, Copy)]
pub struct Base<'a> {
    /// Where it is read.
    pub source: &'a dyn Source,
    /// Its name.
    pub name: &'a Reference,
    /// Only these of its platforms; empty: all.
    pub platforms: &'a [Platform],
}

/// Where what is new goes.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    /// The sink.
    pub sink: &'a dyn Sink,
    /// The repository there.
    pub repository: &'a Repository,
    /// The tag there.
    pub tag: &'a Tag,
}

/// An image that was built.
#[derive(Clone, Debug)]
pub struct Derived {
    /// The image, or the index of one for each platform.
    pub manifest: Manifest,
    /// The images that an index names, in its order.
    pub children: Vec<Manifest>,
    /// The base by its digest.
    pub base: Reference,
    /// Who served the base.
    pub place: Place,
    /// The layers that are the base's: not written to the sink.
    pub base_layers: Vec<Descriptor>,
}

/// A layer that comes upon the base.
pub(crate) struct NewLayer<'a> {
    /// Of the compressed bytes, with OCI's media type.
    pub(crate) descriptor: &'a Descriptor,
    /// Of the tar.
    pub(crate) diff_id: &'a Digest,
    /// Its bytes.
    pub(crate) content: &'a dyn Content,
    /// What the history says of it.
    pub(crate) created_by: &'a str,
}

/// What is built upon a base.
pub(crate) struct Recipe<'a> {
    /// For messages: `the graph image`.
    pub(crate) what: &'a str,
    /// What helps when the base is not fit for it.
    pub(crate) hint: &'a str,
    /// From the bottom.
    pub(crate) layers: &'a [NewLayer<'a>],
    /// Whether a single image gets an index around it.
    pub(crate) index: bool,
    /// Changes what runs: the configuration's `config`.
    pub(crate) run: &'a (dyn Fn(&mut Map<String, Value>) + Sync),
}

/// Builds it and writes what is new to a sink. Nothing is written twice.
pub(crate) async fn derive(recipe: &Recipe<'_>, base: Base<'_>, target: Target<'_>) -> Result<Derived, Error> {
    let found = base.source.manifest(base.name).await?;
    let what = || format!("build {} upon `{}`", recipe.what, base.name);
    for layer in recipe.layers {
        put(target, layer.descriptor, layer.content).await?;
    }
    let mut built = Derived {
        manifest: found.value.clone(),
        children: Vec::new(),
        base: base.name.with_digest(found.value.digest().clone()),
        place: found.place.clone(),
        base_layers: Vec::new(),
    };
    match found.value.shape() {
        Shape::Image => {
            let (image, platform) = upon(recipe, base, &found.value, &found.place, target, &mut built).await?;
            built.manifest = if recipe.index { around(&image, &platform)? } else { image.clone() };
            if recipe.index {
                target.sink.put_manifest(target.repository, &image, None).await?;
                built.children.push(image);
            }
        }
        Shape::Index => {
            let mut index = object(&found.value)?;
            let mut entries = Vec::new();
            for (platform, child) in children(&found.value) {
                let wanted = |p: &Platform| base.platforms.iter().any(|wanted| p.satisfies(wanted));
                if platform.is_some_and(|p| !base.platforms.is_empty() && !wanted(p)) {
                    continue;
                }
                let manifest = child_of(base, &found, child).await?;
                let (new, own) = upon(recipe, base, &manifest, &found.place, target, &mut built).await?;
                target.sink.put_manifest(target.repository, &new, None).await?;
                // The descriptor stays what it was, but for what it points at.
                let mut entry = serde_json::to_value(child).map_err(|e| Error::new(ErrorKind::Invalid, what(), e))?;
                set(&mut entry, "digest", json!(new.digest()));
                set(&mut entry, "size", json!(new.bytes().len()));
                if platform.is_none() {
                    set(&mut entry, "platform", json!(own));
                }
                entries.push(entry);
                built.children.push(new);
            }
            if entries.is_empty() {
                let has: Vec<String> = image::platforms(&found.value).map(|(p, _)| p.to_string()).collect();
                return Err(Error::new(
                    ErrorKind::NotFound,
                    what(),
                    "it has no image for the platforms that are wanted",
                )
                .hint(format!("it has: {}", has.join(", "))));
            }
            index.remove("subject");
            index.insert("manifests".into(), Value::Array(entries));
            built.manifest = parse(&Value::Object(index), found.value.media_type())?;
        }
        Shape::Artifact => {
            return Err(Error::new(ErrorKind::Unsupported, what(), "the base is no image but an artifact"));
        }
    }
    let at = ManifestName::Tag(target.tag.clone());
    if target.sink.head_manifest(target.repository, &at).await?.as_ref() != Some(built.manifest.digest()) {
        target.sink.put_manifest(target.repository, &built.manifest, Some(target.tag)).await?;
    }
    Ok(built)
}

/// The images of an index. The only child of one need not say of what platform it is.
fn children(index: &Manifest) -> Vec<(Option<&Platform>, &Descriptor)> {
    match index.children() {
        [only] if only.platform.is_none() && !media_type::is_index(&only.media_type) => vec![(None, only)],
        _ => image::platforms(index).map(|(platform, child)| (Some(platform), child)).collect(),
    }
}

async fn child_of(base: Base<'_>, found: &Found<Manifest>, child: &Descriptor) -> Result<Manifest, Error> {
    let name = base.name.with_digest(child.digest.clone());
    match base.source.manifest_at(&name, &found.place).await? {
        Some(manifest) => Ok(manifest),
        None => Ok(base.source.manifest(&name).await?.value),
    }
}

/// An index of one image, of the same family of types.
fn around(image: &Manifest, platform: &Platform) -> Result<Manifest, Error> {
    let docker = image.media_type() == media_type::DOCKER_MANIFEST;
    let kind = if docker { media_type::DOCKER_LIST } else { media_type::OCI_INDEX };
    let entry = json!({
        "mediaType": image.media_type(), "digest": image.digest(), "size": image.bytes().len(), "platform": platform,
    });
    parse(&json!({"schemaVersion": 2, "mediaType": kind, "manifests": [entry]}), kind)
}

/// The image of one platform with the layers upon it: writes its configuration, and answers its manifest and its platform.
async fn upon(
    recipe: &Recipe<'_>,
    base: Base<'_>,
    manifest: &Manifest,
    place: &Place,
    target: Target<'_>,
    built: &mut Derived,
) -> Result<(Manifest, Platform), Error> {
    let what = || format!("build {} upon `{}`", recipe.what, base.name);
    let Some(old) = manifest.config() else {
        return Err(Error::new(ErrorKind::Unsupported, what(), "the base has no configuration"));
    };
    let bytes = small_blob(base.source, base.name, old, Some(place), MAX_CONFIG_BYTES).await?;
    let mut platform = Config::parse(&bytes, &base.name.to_string())?.platform;
    if platform.os.is_empty() || platform.architecture.is_empty() {
        platform = Platform { os: "linux".into(), architecture: "amd64".into(), ..Platform::default() };
    }
    let mut config: Value = serde_json::from_slice(&bytes)
        .map_err(|e| Error::new(ErrorKind::Content, what(), format!("its configuration: {e}")))?;
    extend(&mut config, recipe, manifest.layers().len())
        .map_err(|cause| Error::new(ErrorKind::Content, what(), cause).hint(recipe.hint))?;
    let config = Bytes::from(sorted(&config));
    let mut descriptor = Descriptor::new(old.media_type.clone(), Digest::of(&config), config.len() as u64);
    descriptor.annotations = old.annotations.clone();
    put(target, &descriptor, &Given(config)).await?;

    let mut new = object(manifest)?;
    new.remove("subject");
    new.insert("config".into(), json!(descriptor));
    let added = recipe.layers.iter().map(|layer| {
        let mut layer = layer.descriptor.clone();
        if manifest.media_type() == media_type::DOCKER_MANIFEST {
            media_type::DOCKER_LAYER_GZIP.clone_into(&mut layer.media_type);
        }
        json!(layer)
    });
    let layers: Vec<Value> = manifest.layers().iter().map(|l| json!(l)).chain(added).collect();
    new.insert("layers".into(), Value::Array(layers));
    for layer in manifest.layers() {
        if !built.base_layers.contains(layer) {
            built.base_layers.push(layer.clone());
        }
    }
    Ok((parse(&Value::Object(new), manifest.media_type())?, platform))
}

/// Adds the layers and what runs to a configuration, which else stays what it is: also its time, so that no clock is in the digest.
fn extend(config: &mut Value, recipe: &Recipe<'_>, layers: usize) -> Result<(), &'static str> {
    let object = config.as_object_mut().ok_or("its configuration is no object")?;
    let created = object.get("created").cloned().unwrap_or(Value::Null);
    let rootfs = object.get_mut("rootfs").and_then(Value::as_object_mut).ok_or("its configuration has no `rootfs`")?;
    if rootfs.get("type").is_some_and(|kind| kind != LAYERS) {
        return Err("its file system is not made of layers");
    }
    let diff_ids = rootfs.entry("diff_ids").or_insert_with(|| json!([]));
    let diff_ids = diff_ids.as_array_mut().ok_or("`rootfs.diff_ids` is no list")?;
    if diff_ids.len() != layers {
        return Err("its configuration is of another number of layers than its manifest");
    }
    diff_ids.extend(recipe.layers.iter().map(|layer| json!(layer.diff_id)));

    let history = object.entry("history").or_insert(Value::Null);
    if history.is_null() {
        *history = json!([]);
    }
    let history = history.as_array_mut().ok_or("`history` is no list")?;
    for layer in recipe.layers {
        let mut entry = json!({"created_by": layer.created_by});
        if !created.is_null() {
            set(&mut entry, "created", created.clone());
        }
        history.push(entry);
    }

    let run = object.entry("config").or_insert(Value::Null);
    if run.is_null() {
        *run = json!({});
    }
    (recipe.run)(run.as_object_mut().ok_or("`config` is no object")?);
    Ok(())
}

/// Bytes in memory.
pub(crate) struct Given(pub(crate) Bytes);

#[async_trait::async_trait]
impl Content for Given {
    async fn open(&self, offset: u64) -> Result<airlock_oci::BlobStream, Error> {
        let rest = self.0.slice(usize::try_from(offset).unwrap_or(usize::MAX).min(self.0.len())..);
        Ok(Box::pin(futures_util::stream::once(async { Ok(rest) })))
    }
}

fn set(value: &mut Value, key: &str, to: Value) {
    if let Some(object) = value.as_object_mut() {
        object.insert(key.to_owned(), to);
    }
}

fn object(manifest: &Manifest) -> Result<Map<String, Value>, Error> {
    serde_json::from_slice(manifest.bytes())
        .map_err(|e| Error::new(ErrorKind::Content, format!("read manifest `{}`", manifest.digest()), e))
}

fn parse(value: &Value, media_type: &str) -> Result<Manifest, Error> {
    Manifest::parse(sorted(value).into(), Some(media_type))
}

/// JSON with sorted keys, whatever order the map in memory has: which depends on how this program was built.
pub(crate) fn sorted(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort_unstable();
            let fields: Vec<String> =
                keys.into_iter().map(|key| format!("{}:{}", Value::from(key.as_str()), sorted(&map[key]))).collect();
            format!("{{{}}}", fields.join(","))
        }
        Value::Array(list) => format!("[{}]", list.iter().map(sorted).collect::<Vec<_>>().join(",")),
        plain => plain.to_string(),
    }
}

async fn put(target: Target<'_>, blob: &Descriptor, content: &dyn Content) -> Result<(), Error> {
    if target.sink.has_blob(target.repository, blob).await? {
        return Ok(());
    }
    target.sink.write_blob(target.repository, blob, content).await
}
