//! The image from which an update service in a disconnected cluster takes the update graph's data (oc-mirror.md 5.7).
//!
//! It is a base image with one more layer, and a command that copies the data to where the service reads it:
//!
//! ```text
//! base (ubi9: a shell and cp)           stays as it is, is fetched from where it lies
//!   + /var/lib/cincinnati-graph-data/   version, channels/, blocked-edges/, raw/, LICENSE        GraphData
//!   + Cmd cp -rp … /var/lib/cincinnati/graph-data
//! ```
//!
//! The same data and the same base give the same digest: files are sorted, times are fixed, JSON is written with sorted keys. Only what is new
//! is written to the sink - the layer, the configurations, the manifests; the base's layers are read by whoever copies the image, through
//! [`GraphImageSource`].

mod data;
mod source;

use airlock_oci::sink::ManifestName;
use airlock_oci::{
    BlobStream, Content, Descriptor, Digest, Error, ErrorKind, Found, Manifest, Place, Platform, Reference, Repository,
    Shape, Sink, Source, Tag, media_type,
};
use async_trait::async_trait;
use bytes::Bytes;
use serde_json::{Map, Value, json};

pub use data::{DIRECTORY, GraphData, MAX_BYTES, MAX_FILES};
pub use source::GraphImageSource;

use crate::image::{self, MAX_CONFIG_BYTES, small_blob};

/// What runs in the image: the update service mounts an empty directory there (updates-and-releases.md 3.8).
pub const COMMAND: [&str; 3] =
    ["/bin/bash", "-c", "exec cp -rp /var/lib/cincinnati-graph-data/* /var/lib/cincinnati/graph-data"];
/// What the image's history says of our layer.
const CREATED_BY: &str = "airlock: the update graph's data";
/// Digests of layers stand in the history's order in a configuration of this kind.
const LAYERS: &str = "layers";

/// The image that the data are put upon.
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

/// A graph image that was built.
#[derive(Clone, Debug)]
pub struct GraphImage {
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

/// Bytes in memory.
struct Given(Bytes);

#[async_trait]
impl Content for Given {
    async fn open(&self, offset: u64) -> Result<BlobStream, Error> {
        let rest = self.0.slice(usize::try_from(offset).unwrap_or(usize::MAX).min(self.0.len())..);
        Ok(Box::pin(futures_util::stream::once(async { Ok(rest) })))
    }
}

/// Builds the graph image upon a base and writes what is new to a sink. Nothing is written twice.
pub async fn build(data: &GraphData, base: Base<'_>, target: Target<'_>) -> Result<GraphImage, Error> {
    let found = base.source.manifest(base.name).await?;
    let what = || format!("build the graph image upon `{}`", base.name);
    put(target, &data.layer.descriptor, data.bytes.clone()).await?;
    let mut built = GraphImage {
        manifest: found.value.clone(),
        children: Vec::new(),
        base: base.name.with_digest(found.value.digest().clone()),
        place: found.place.clone(),
        base_layers: Vec::new(),
    };
    match found.value.shape() {
        Shape::Image => built.manifest = upon(data, base, &found.value, &found.place, target, &mut built).await?,
        Shape::Index => {
            let mut index = object(&found.value)?;
            let mut entries = Vec::new();
            for (platform, child) in image::platforms(&found.value) {
                if !base.platforms.is_empty() && !base.platforms.iter().any(|wanted| platform.satisfies(wanted)) {
                    continue;
                }
                let manifest = child_of(base, &found, child).await?;
                let new = upon(data, base, &manifest, &found.place, target, &mut built).await?;
                target.sink.put_manifest(target.repository, &new, None).await?;
                // The descriptor stays what it was, but for what it points at.
                let mut entry = serde_json::to_value(child).map_err(|e| Error::new(ErrorKind::Invalid, what(), e))?;
                set(&mut entry, "digest", json!(new.digest()));
                set(&mut entry, "size", json!(new.bytes().len()));
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

async fn child_of(base: Base<'_>, found: &Found<Manifest>, child: &Descriptor) -> Result<Manifest, Error> {
    let name = base.name.with_digest(child.digest.clone());
    match base.source.manifest_at(&name, &found.place).await? {
        Some(manifest) => Ok(manifest),
        None => Ok(base.source.manifest(&name).await?.value),
    }
}

/// The image of one platform with the data upon it: writes its configuration, and answers its manifest.
async fn upon(
    data: &GraphData,
    base: Base<'_>,
    manifest: &Manifest,
    place: &Place,
    target: Target<'_>,
    built: &mut GraphImage,
) -> Result<Manifest, Error> {
    let what = || format!("build the graph image upon `{}`", base.name);
    let Some(old) = manifest.config() else {
        return Err(Error::new(ErrorKind::Unsupported, what(), "the base has no configuration"));
    };
    let bytes = small_blob(base.source, base.name, old, Some(place), MAX_CONFIG_BYTES).await?;
    let mut config: Value = serde_json::from_slice(&bytes)
        .map_err(|e| Error::new(ErrorKind::Content, what(), format!("its configuration: {e}")))?;
    extend(&mut config, data, manifest.layers().len())
        .map_err(|cause| Error::new(ErrorKind::Content, what(), cause).hint("choose another base with --graph-base"))?;
    let config = Bytes::from(sorted(&config));
    let mut descriptor = Descriptor::new(old.media_type.clone(), Digest::of(&config), config.len() as u64);
    descriptor.annotations = old.annotations.clone();
    put(target, &descriptor, config).await?;

    let mut layer = data.layer.descriptor.clone();
    if manifest.media_type() == media_type::DOCKER_MANIFEST {
        media_type::DOCKER_LAYER_GZIP.clone_into(&mut layer.media_type);
    }
    let mut new = object(manifest)?;
    new.remove("subject");
    new.insert("config".into(), json!(descriptor));
    let layers: Vec<Value> = manifest.layers().iter().chain([&layer]).map(|l| json!(l)).collect();
    new.insert("layers".into(), Value::Array(layers));
    for layer in manifest.layers() {
        if !built.base_layers.contains(layer) {
            built.base_layers.push(layer.clone());
        }
    }
    parse(&Value::Object(new), manifest.media_type())
}

/// Adds the layer and the command to a configuration, which else stays what it is: also its time, so that no clock is in the digest.
fn extend(config: &mut Value, data: &GraphData, layers: usize) -> Result<(), &'static str> {
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
    diff_ids.push(json!(data.layer.diff_id));

    let history = object.entry("history").or_insert(Value::Null);
    if history.is_null() {
        *history = json!([]);
    }
    let mut entry = json!({"created_by": CREATED_BY});
    if !created.is_null() {
        set(&mut entry, "created", created);
    }
    history.as_array_mut().ok_or("`history` is no list")?.push(entry);

    let run = object.entry("config").or_insert(Value::Null);
    if run.is_null() {
        *run = json!({});
    }
    let run = run.as_object_mut().ok_or("`config` is no object")?;
    // An entry point would take the command for its arguments.
    run.remove("Entrypoint");
    run.insert("Cmd".into(), json!(COMMAND));
    Ok(())
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
fn sorted(value: &Value) -> String {
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

async fn put(target: Target<'_>, blob: &Descriptor, bytes: Bytes) -> Result<(), Error> {
    if target.sink.has_blob(target.repository, blob).await? {
        return Ok(());
    }
    target.sink.write_blob(target.repository, blob, &Given(bytes)).await
}
