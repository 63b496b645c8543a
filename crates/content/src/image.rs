//! An image's platforms and its configuration.

use std::collections::BTreeMap;

use airlock_oci::{Descriptor, Digest, Error, ErrorKind, Found, Manifest, Place, Platform, Reference, Shape, Source};
use futures_util::StreamExt;
use serde::Deserialize;
use serde_json::Value;

/// The largest image configuration that is read (bytes).
pub const MAX_CONFIG_BYTES: u64 = 16 * 1024 * 1024;

/// What an image says of itself (image-spec, config.md).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Operating system and architecture.
    pub platform: Platform,
    /// When it was built, RFC 3339.
    pub created: Option<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Digests of the unpacked layers, from the bottom.
    pub diff_ids: Vec<Digest>,
    /// All of it, as written.
    pub value: Value,
}

#[derive(Deserialize)]
struct Wire {
    #[serde(flatten)]
    platform: Platform,
    created: Option<String>,
    config: Option<Settings>,
    rootfs: Option<RootFs>,
}

#[derive(Deserialize)]
struct Settings {
    #[serde(rename = "Labels")]
    labels: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Option<Vec<Digest>>,
}

impl Config {
    /// Reads a configuration's bytes. `what` names the image in errors.
    pub fn parse(bytes: &[u8], what: &str) -> Result<Self, Error> {
        let fail = |e| Error::new(ErrorKind::Content, format!("read the configuration of `{what}`"), e);
        let wire: Wire = serde_json::from_slice(bytes).map_err(fail)?;
        Ok(Self {
            platform: wire.platform,
            created: wire.created,
            labels: wire.config.and_then(|c| c.labels).unwrap_or_default(),
            diff_ids: wire.rootfs.and_then(|r| r.diff_ids).unwrap_or_default(),
            value: serde_json::from_slice(bytes).map_err(fail)?,
        })
    }
}

/// A blob as a whole, checked against its digest. For configurations and other small things.
pub async fn small_blob(
    source: &dyn Source,
    name: &Reference,
    blob: &Descriptor,
    near: Option<&Place>,
    most: u64,
) -> Result<Vec<u8>, Error> {
    let what = || format!("read `{}` of `{}`", blob.digest, name.name());
    if blob.size > most {
        let cause = format!("it has {} bytes; at most {most} are expected", blob.size);
        return Err(Error::new(ErrorKind::Unsupported, what(), cause));
    }
    let mut stream = source.blob(name, blob, 0, near).await?;
    let mut bytes = Vec::new();
    while let Some(piece) = stream.next().await {
        bytes.extend_from_slice(&piece?);
        if bytes.len() as u64 > blob.size {
            break;
        }
    }
    let found = Digest::of_with(blob.digest.algorithm(), &bytes);
    if found != blob.digest {
        let cause = format!("the {} bytes that came have the digest `{found}`", bytes.len());
        return Err(Error::new(ErrorKind::Content, what(), cause));
    }
    Ok(bytes)
}

/// The configuration of an image.
pub async fn config(
    source: &dyn Source,
    name: &Reference,
    image: &Manifest,
    near: Option<&Place>,
) -> Result<Config, Error> {
    let Some(descriptor) = image.config() else {
        let cause = format!("`{}` is no image: it has no configuration", image.digest());
        return Err(Error::new(ErrorKind::Unsupported, format!("read the configuration of `{name}`"), cause));
    };
    let bytes = small_blob(source, name, descriptor, near, MAX_CONFIG_BYTES).await?;
    Config::parse(&bytes, &name.to_string())
}

/// The children of an index that are images of a platform, in the index's order: attestations and other things beside the images are not.
pub fn platforms(index: &Manifest) -> impl Iterator<Item = (&Platform, &Descriptor)> {
    index.children().iter().filter_map(|child| {
        let platform = child.platform.as_ref()?;
        let image = !airlock_oci::media_type::is_index(&child.media_type) && platform.os != "unknown";
        image.then_some((platform, child))
    })
}

/// The image itself, or of an index the child for `wanted`; without `wanted` the one for linux/amd64, or else the first.
pub async fn instance(
    source: &dyn Source,
    name: &Reference,
    found: &Found<Manifest>,
    wanted: Option<&Platform>,
) -> Result<Manifest, Error> {
    let manifest = &found.value;
    if manifest.shape() != Shape::Index {
        return Ok(manifest.clone());
    }
    let usual = Platform { os: "linux".into(), architecture: "amd64".into(), ..Platform::default() };
    let choice = platforms(manifest).find(|(p, _)| p.satisfies(wanted.unwrap_or(&usual)));
    let choice = if wanted.is_none() { choice.or_else(|| platforms(manifest).next()) } else { choice };
    // An index around a single image need not say of what platform it is.
    let only = match manifest.children() {
        [only] if wanted.is_none() && only.platform.is_none() => Some(only),
        _ => None,
    };
    let Some(child) = choice.map(|(_, child)| child).or(only) else {
        let has: Vec<String> = platforms(manifest).map(|(p, _)| p.to_string()).collect();
        let what = format!("choose a platform of `{name}`");
        return Err(match wanted {
            Some(wanted) => {
                let cause = format!("it has no image for {wanted}");
                Error::new(ErrorKind::NotFound, what, cause).hint(format!("it has: {}", has.join(", ")))
            }
            None => Error::new(ErrorKind::NotFound, what, "its index names no image of any platform"),
        });
    };
    let child = name.with_digest(child.digest.clone());
    match source.manifest_at(&child, &found.place).await? {
        Some(manifest) => Ok(manifest),
        None => Ok(source.manifest(&child).await?.value),
    }
}
