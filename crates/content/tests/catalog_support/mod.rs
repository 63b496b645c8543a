//! The world's catalogs as a source, and its image sets as filters.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by failing")]
#![allow(dead_code, reason = "each test file uses what it needs")]

use std::collections::BTreeMap;
use std::path::PathBuf;

use airlock_content::catalog::{Catalog, ChannelFilter, Filter, PackageFilter, Rule, read};
use airlock_oci::{BlobStream, Descriptor, Digest, Error, ErrorKind, Found, Manifest, Place, Reference, Source, Tag};
use airlock_store::oci_layout::Layout;
use airlock_testkit::tools;
use airlock_testkit::world::{Scale, World};
use async_trait::async_trait;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;

/// The world's content by its real names, without any server.
pub(crate) struct WorldSource(pub(crate) World);

/// One catalog of an image set.
#[derive(Debug)]
pub(crate) struct Wanted {
    /// As the set names it.
    pub(crate) catalog: String,
    pub(crate) filter: Filter,
}

/// What a rule set says of an image set.
#[derive(Debug, Deserialize)]
pub(crate) struct Expected {
    pub(crate) error: Option<String>,
    #[serde(default)]
    pub(crate) bundles: BTreeMap<String, Vec<String>>,
    pub(crate) images: Vec<Value>,
    #[serde(default)]
    pub(crate) skipped: Vec<String>,
    #[serde(default)]
    pub(crate) missing: Vec<String>,
    #[serde(default)]
    pub(crate) skipped_bundles: Vec<String>,
}

#[async_trait]
impl Source for WorldSource {
    fn describe(&self) -> String {
        "world".into()
    }

    async fn resolve(&self, name: &Reference) -> Result<Found<Digest>, Error> {
        let found = self.manifest(name).await?;
        Ok(Found { value: found.value.digest().clone(), place: found.place })
    }

    async fn manifest(&self, name: &Reference) -> Result<Found<Manifest>, Error> {
        let missing = || Error::new(ErrorKind::NotFound, format!("read `{name}`"), "the world does not have it");
        let repo = self.0.inventory().repos.get(&name.name()).ok_or_else(missing)?;
        let digest = match (name.digest(), name.tag()) {
            (Some(digest), _) => digest.clone(),
            (None, Some(tag)) => repo.tags.get(tag.as_str()).ok_or_else(missing)?.parse().unwrap(),
            (None, None) => return Err(missing()),
        };
        let declared = repo.manifests.get(&digest.to_string()).ok_or_else(missing)?;
        let bytes = Bytes::from(self.0.manifest(&digest.to_string()));
        let value = Manifest::parse_expecting(bytes, Some(declared), &digest)?;
        Ok(Found { value, place: Place("world".into()) })
    }

    async fn blob(
        &self,
        _name: &Reference,
        blob: &Descriptor,
        offset: u64,
        _near: Option<&Place>,
    ) -> Result<BlobStream, Error> {
        let bytes = Bytes::from(self.0.manifest(&blob.digest.to_string())).slice(offset as usize..);
        Ok(Box::pin(futures_util::stream::once(async { Ok(bytes) })))
    }

    async fn has_blob(&self, _name: &Reference, _blob: &Descriptor, _near: Option<&Place>) -> Result<bool, Error> {
        Ok(true)
    }

    async fn referrers(
        &self,
        _name: &Reference,
        _subject: &Digest,
        _near: Option<&Place>,
    ) -> Result<Vec<Descriptor>, Error> {
        Ok(Vec::new())
    }

    async fn tags(&self, name: &Reference) -> Result<Vec<Tag>, Error> {
        let repo = &self.0.inventory().repos[&name.name()];
        Ok(repo.tags.keys().map(|t| Tag::new(t).unwrap()).collect())
    }
}

/// The small world, or `None` with a printed line.
pub(crate) fn world() -> Option<WorldSource> {
    World::get(Scale::Small).map(WorldSource)
}

/// The folder of the generated small world.
pub(crate) fn world_folder() -> PathBuf {
    World::get(Scale::Small).expect("the world was there a moment ago").root().to_owned()
}

/// Reads a catalog as an image set names it.
pub(crate) async fn read_named(world: &WorldSource, catalog: &str) -> Catalog {
    let folder = tempfile::tempdir().unwrap();
    if let Some(path) = catalog.strip_prefix("oci://") {
        let path = world_folder().join("oci").join(path.rsplit('/').next().unwrap());
        let layout = Layout::open(&path).unwrap();
        let name: Reference = "disk.local/catalog:latest".parse().unwrap();
        return read(&layout, &name, folder.path()).await.unwrap();
    }
    read(world, &catalog.parse().unwrap(), folder.path()).await.unwrap()
}

/// Every image set of operators with what the rules say of it, and the catalogs that it names.
pub(crate) fn sets() -> Option<Vec<(String, Vec<Wanted>, BTreeMap<String, Expected>)>> {
    let folder = tools::shared()?.join("world/isc");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder.join("expected-small-seed1")).unwrap() {
        let path = entry.unwrap().path();
        let id = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if !id.starts_with("op-") && !id.starts_with("mix-") {
            continue;
        }
        let expected: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let rules: BTreeMap<String, Expected> = serde_json::from_value(expected["rules"].clone()).unwrap();
        let text = std::fs::read_to_string(folder.join(format!("{id}.yaml"))).unwrap();
        let config: Value = serde_saphyr::from_str(&text).unwrap();
        let operators = config["mirror"]["operators"].as_array().unwrap();
        found.push((id, operators.iter().map(wanted).collect(), rules));
    }
    found.sort_by(|a: &(String, _, _), b| a.0.cmp(&b.0));
    Some(found)
}

/// One of `mirror.operators`.
pub(crate) fn wanted(operator: &Value) -> Wanted {
    let text = |value: &Value, field: &str| value[field].as_str().map(str::to_owned);
    let list = |value: &Value, field: &str| value[field].as_array().cloned().unwrap_or_default();
    let packages = list(operator, "packages").into_iter().map(|package| PackageFilter {
        name: text(&package, "name").unwrap(),
        default_channel: text(&package, "defaultChannel"),
        min: text(&package, "minVersion"),
        max: text(&package, "maxVersion"),
        channels: list(&package, "channels")
            .iter()
            .map(|channel| ChannelFilter {
                name: text(channel, "name").unwrap(),
                min: text(channel, "minVersion"),
                max: text(channel, "maxVersion"),
            })
            .collect(),
        bundles: list(&package, "bundles").iter().map(|bundle| text(bundle, "name").unwrap()).collect(),
    });
    let filter = Filter { full: operator["full"].as_bool().unwrap_or(false), packages: packages.collect() };
    Wanted { catalog: text(operator, "catalog").unwrap(), filter }
}

/// The rule sets that the world's expectations name.
pub(crate) fn rules(name: &str) -> Vec<Rule> {
    match name {
        "table" => vec![Rule::Table],
        "head" => vec![Rule::Head],
        "both" => vec![Rule::Table, Rule::Head],
        other => panic!("unknown rules {other}"),
    }
}
