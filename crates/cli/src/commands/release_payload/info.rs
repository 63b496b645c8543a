//! `release info`: what a release is, and how two differ. The form is that of `oc adm release info` (updates-and-releases.md 7.2).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use airlock_content::image;
use airlock_content::release::{Component, ComponentVersions, Payload};
use airlock_mirror::event::Events;
use airlock_oci::{Digest, Error, ErrorKind, Shape};
use futures_util::{StreamExt, TryStreamExt};
use serde::Serialize;
use serde_json::{Value, json};

use super::{Opened, open};
use crate::args::release::{InfoArgs, InfoFormat};
use crate::exit::Failure;
use crate::output::{self, Format, size, table};

/// Components whose manifests are read at once.
const PARALLEL: usize = 8;
const COMMIT: &str = "io.openshift.build.commit.id";
const SOURCE: &str = "io.openshift.build.source-location";

/// A release as a document; the names are those of `oc adm release info -o json`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    image: String,
    digest: String,
    content_digest: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    list_digest: Option<String>,
    config: Value,
    metadata: Value,
    references: Value,
    versions: BTreeMap<String, String>,
    display_versions: BTreeMap<String, Value>,
    versions_tags: BTreeMap<String, Vec<String>>,
    images: Option<BTreeMap<String, ImageSize>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

/// What a component takes.
#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct ImageSize {
    /// Of the manifest that the release names.
    digest: String,
    /// Layers of the image, or of all images of its index.
    layers: usize,
    /// Bytes of them, each once.
    bytes: u64,
    /// Bytes of the layers that no other component has.
    unique_bytes: u64,
    /// The layer at the bottom.
    base: String,
}

/// All layers of a release, each once.
#[derive(Clone, Copy, Default)]
struct Total {
    layers: usize,
    bytes: u64,
}

/// Two releases as a document.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Difference {
    from: Value,
    to: Value,
    upgrade: bool,
    changed_images: BTreeMap<String, Changed>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Changed {
    name: String,
    from: Option<String>,
    to: Option<String>,
    /// Built anew from the same sources.
    rebuilt: bool,
}

pub(super) async fn run(args: InfoArgs, events: &Events) -> Result<u8, Failure> {
    let views = &args.views;
    if views.image_for.is_some() && args.output != InfoFormat::Table {
        return Err(Failure::usage("--image-for prints one name and takes no --output", "leave one of them out"));
    }
    let opened = open(&args.release, &args.place, events).await?;
    if let Some(other) = &args.other {
        if views.image_for.is_some() || views.sizes || views.commits {
            return Err(Failure::usage(
                "of two releases only the difference is shown",
                "give one release, or no more than --pullspecs",
            ));
        }
        let other = open(other, &args.place, events).await?;
        return difference(&opened.payload, &other.payload, &args.output, views.pullspecs);
    }
    let payload = &opened.payload;
    if let Some(name) = &views.image_for {
        let Some(component) = payload.references.component(name) else {
            return Err(no_component(payload, name).into());
        };
        output::text(&format!("{}\n", component.image))?;
        return Ok(0);
    }
    let (sizes, total) = if views.sizes {
        sizes(&opened).await.map(|(sizes, total)| (Some(sizes), total))?
    } else {
        (None, Total::default())
    };
    let versions = ComponentVersions::of(&payload.references);
    match &args.output {
        InfoFormat::Table => {
            let text = match &sizes {
                Some(sizes) => head(payload, &versions) + &size_table(sizes, total),
                None => head(payload, &versions) + &components(payload, views.pullspecs, views.commits),
            };
            output::text(&text)?;
            for warning in &versions.warnings {
                eprintln!("warning: {warning}");
            }
        }
        InfoFormat::Digest => output::text(&format!("{}\n", payload.digest()))?,
        InfoFormat::Pullspec => output::text(&format!("{}\n", payload.pull_spec()))?,
        InfoFormat::Name => {
            let names: Vec<&str> = payload.references.components.iter().map(|c| c.name.as_str()).collect();
            output::text(&format!("{}\n", names.join("\n")))?;
        }
        InfoFormat::Json => drop(output::value(Format::Json, &document(payload, &versions, sizes)?)?),
        InfoFormat::Yaml => drop(output::value(Format::Yaml, &document(payload, &versions, sizes)?)?),
        InfoFormat::Field(names) => {
            let document = document(payload, &versions, sizes)?;
            output::text(&format!("{}\n", field(&json!(document), names)?))?;
        }
    }
    Ok(0)
}

fn no_component(payload: &Payload, name: &str) -> Error {
    let what = format!("find `{name}` in the release `{}`", payload.name);
    let error = Error::new(ErrorKind::NotFound, what, format!("no component of {} has this name", payload.version()));
    let near: Vec<&str> =
        payload.references.components.iter().map(|c| c.name.as_str()).filter(|c| c.contains(name)).collect();
    if near.is_empty() {
        error.hint("`airlock release info RELEASE -o name` lists the names")
    } else {
        error.hint(format!("there are {}", near.join(", ")))
    }
}

/// A release as text, with the place of each component.
pub(super) fn description(payload: &Payload) -> String {
    head(payload, &ComponentVersions::of(&payload.references)) + &components(payload, true, false)
}

/// The part of the text that comes before the components.
fn head(payload: &Payload, versions: &ComponentVersions) -> String {
    let mut lines = vec![
        ("Name:", payload.version()),
        ("Digest:", payload.digest().to_string()),
        ("Created:", payload.config.created.clone().unwrap_or_default()),
        ("OS/Arch:", platform(payload)),
        ("Manifests:", payload.manifests.to_string()),
    ];
    if payload.other_files > 0 {
        lines.push(("Metadata files:", payload.other_files.to_string()));
    }
    let width = lines.iter().map(|(label, _)| label.len()).max().unwrap_or(0);
    let mut text = String::new();
    for (label, value) in lines.into_iter().filter(|(_, value)| !value.is_empty()) {
        let _ = writeln!(text, "{label:width$} {value}");
    }
    let metadata = &payload.metadata;
    let _ = writeln!(text, "\nPull From: {}", payload.pull_spec());
    let mut previous = metadata.previous.clone();
    previous.sort();
    let upgrades: Vec<String> = previous.iter().map(ToString::to_string).collect();
    let upgrades = if upgrades.is_empty() { "<none>".to_owned() } else { upgrades.join(", ") };
    let _ = writeln!(text, "\nRelease Metadata:\n  Version:  {}\n  Upgrades: {upgrades}", metadata.version);
    let notes: Vec<(&String, String)> = metadata
        .metadata
        .iter()
        .map(|(key, value)| (key, value.as_str().map_or_else(|| value.to_string(), str::to_owned)))
        .filter(|(_, value)| !value.is_empty())
        .collect();
    if !notes.is_empty() {
        let _ = writeln!(text, "  Metadata:");
    }
    for (key, value) in notes {
        let _ = writeln!(text, "    {key}: {value}");
    }
    if !versions.versions.is_empty() {
        let _ = writeln!(text, "\nComponent Versions:");
        let width = versions.versions.keys().map(String::len).max().unwrap_or(0);
        for (key, version) in &versions.versions {
            let line = format!("  {key:width$} {} {}", version.version, version.display_name);
            let _ = writeln!(text, "{}", line.trim_end());
        }
    }
    text.push_str("\nImages:\n");
    text
}

fn platform(payload: &Payload) -> String {
    let platform = payload.config.platform.to_string();
    if payload.is_multi() { format!("multi ({platform})") } else { platform }
}

fn indented(text: &str) -> String {
    text.lines().fold(String::new(), |out, line| out + "  " + line + "\n")
}

fn digest_of(component: &Component) -> String {
    component.image.digest().map(ToString::to_string).unwrap_or_default()
}

fn components(payload: &Payload, pullspecs: bool, commits: bool) -> String {
    let header: &[&str] = match (pullspecs, commits) {
        (true, _) => &["NAME", "PULL SPEC"],
        (false, true) => &["NAME", "REPO", "COMMIT"],
        (false, false) => &["NAME", "DIGEST"],
    };
    let row = |c: &Component| {
        let note = |name| c.annotation(name).unwrap_or_default().to_owned();
        match (pullspecs, commits) {
            (true, _) => vec![c.name.clone(), c.image.to_string()],
            (false, true) => vec![c.name.clone(), note(SOURCE), note(COMMIT)],
            (false, false) => vec![c.name.clone(), digest_of(c)],
        }
    };
    let rows: Vec<Vec<String>> = payload.references.components.iter().map(row).collect();
    indented(&table(header, &rows))
}

fn size_table(sizes: &BTreeMap<String, ImageSize>, total: Total) -> String {
    let mut bases: Vec<&str> = Vec::new();
    for image in sizes.values() {
        if !image.base.is_empty() && !bases.contains(&image.base.as_str()) {
            bases.push(&image.base);
        }
    }
    let rows: Vec<Vec<String>> = sizes
        .iter()
        .map(|(name, image)| {
            let base = bases.iter().position(|b| *b == image.base).map(|at| (at + 1).to_string());
            let unique = if image.unique_bytes == 0 { String::new() } else { size(image.unique_bytes) };
            vec![name.clone(), image.layers.to_string(), size(image.bytes), unique, base.unwrap_or_default()]
        })
        .collect();
    let (bytes, layers, bases) = (size(total.bytes), total.layers, bases.len());
    indented(&table(&["NAME", "LAYERS", "SIZE", "UNIQUE", "BASE"], &rows))
        + &format!("\n  {bytes} in {layers} layers, upon {bases} base images\n")
}

/// The manifests of all components, and what their layers add up to.
async fn sizes(opened: &Opened) -> Result<(BTreeMap<String, ImageSize>, Total), Failure> {
    let read = |component: &Component| {
        let component = component.clone();
        async move {
            let (name, found) = opened.component(&component).await?;
            let mut images = Vec::new();
            if found.value.shape() == Shape::Index {
                for (platform, _) in image::platforms(&found.value) {
                    images.push(image::instance(opened.source.as_ref(), &name, &found, Some(platform)).await?);
                }
            } else {
                images.push(found.value.clone());
            }
            Ok::<_, Error>((component, images))
        }
    };
    let futures: Vec<_> = opened.payload.references.components.iter().map(read).collect();
    let all: Vec<_> = futures_util::stream::iter(futures).buffered(PARALLEL).try_collect().await?;
    let layers = |images: &[airlock_oci::Manifest]| -> BTreeMap<Digest, u64> {
        images.iter().flat_map(|i| i.layers()).map(|l| (l.digest.clone(), l.size)).collect()
    };
    let (mut users, mut total): (BTreeMap<Digest, usize>, _) = (BTreeMap::new(), Total::default());
    let distinct: BTreeSet<String> = all.iter().map(|(c, _)| digest_of(c)).collect();
    for digest in distinct {
        // Two components that are one image have no layer in common with another.
        let Some((_, images)) = all.iter().find(|(c, _)| digest_of(c) == digest) else { continue };
        for (layer, bytes) in layers(images) {
            let users = users.entry(layer).or_default();
            if *users == 0 {
                total.layers += 1;
                total.bytes += bytes;
            }
            *users += 1;
        }
    }
    let sizes = all.iter().map(|(component, images)| {
        let layers = layers(images);
        let unique = layers.iter().filter(|(digest, _)| users.get(*digest) == Some(&1)).map(|(_, size)| size).sum();
        let base = images.first().and_then(|i| i.layers().first()).map(|l| l.digest.to_string());
        let size = ImageSize {
            digest: digest_of(component),
            layers: layers.len(),
            bytes: layers.values().sum(),
            unique_bytes: unique,
            base: base.unwrap_or_default(),
        };
        (component.name.clone(), size)
    });
    Ok((sizes.collect(), total))
}

fn document(
    payload: &Payload,
    versions: &ComponentVersions,
    images: Option<BTreeMap<String, ImageSize>>,
) -> Result<Document, Failure> {
    let metadata = serde_json::to_value(&payload.metadata)
        .map_err(|e| Error::new(ErrorKind::Invalid, "write the release's metadata", e))?;
    let list = payload.manifest.shape() == Shape::Index;
    Ok(Document {
        image: payload.pull_spec().to_string(),
        digest: payload.digest().to_string(),
        content_digest: payload.image.digest().to_string(),
        list_digest: list.then(|| payload.manifest.digest().to_string()),
        config: payload.config.value.clone(),
        metadata,
        references: payload.image_stream.clone(),
        versions: versions.versions.iter().map(|(k, v)| (k.clone(), v.version.clone())).collect(),
        display_versions: versions
            .versions
            .iter()
            .map(|(k, v)| (k.clone(), json!({"Version": v.version, "DisplayName": v.display_name})))
            .collect(),
        versions_tags: versions.versions.iter().map(|(k, v)| (k.clone(), v.tags.clone())).collect(),
        images,
        warnings: versions.warnings.clone(),
    })
}

/// A field of a document as text: a string as it is, anything else as JSON. One that is not there is empty, as for `oc`.
fn field(document: &Value, names: &[String]) -> Result<String, Failure> {
    let found = names.iter().try_fold(document, |value, name| value.get(name));
    Ok(match found {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    })
}

fn difference(from: &Payload, to: &Payload, format: &InfoFormat, pullspecs: bool) -> Result<u8, Failure> {
    let names: BTreeSet<&str> =
        from.references.components.iter().chain(&to.references.components).map(|c| c.name.as_str()).collect();
    let mut changed = BTreeMap::new();
    for name in names {
        let (a, b) = (from.references.component(name), to.references.component(name));
        // The digest is the image; the place it was pushed to is not.
        if a.map(digest_of) == b.map(digest_of) {
            continue;
        }
        let commit = |c: Option<&Component>| c.and_then(|c| c.annotation(COMMIT)).map(str::to_owned);
        let rebuilt = a.is_some() && b.is_some() && commit(a).is_some() && commit(a) == commit(b);
        let text = |c: Option<&Component>| c.map(|c| if pullspecs { c.image.to_string() } else { digest_of(c) });
        changed.insert(name.to_owned(), Changed { name: name.to_owned(), from: text(a), to: text(b), rebuilt });
    }
    let upgrade = to.metadata.previous.contains(&from.metadata.version);
    let summary = |p: &Payload| {
        json!({"image": p.pull_spec().to_string(), "digest": p.digest().to_string(), "version": p.version(),
            "created": p.config.created, "platform": platform(p)})
    };
    let difference = Difference { from: summary(from), to: summary(to), upgrade, changed_images: changed };
    match format {
        InfoFormat::Json => drop(output::value(Format::Json, &difference)?),
        InfoFormat::Yaml => drop(output::value(Format::Yaml, &difference)?),
        InfoFormat::Field(names) => output::text(&format!("{}\n", field(&json!(difference), names)?))?,
        InfoFormat::Table => output::text(&difference_text(from, to, &difference))?,
        InfoFormat::Digest | InfoFormat::Name | InfoFormat::Pullspec => {
            return Err(Failure::usage("two releases have no one digest or name", "use -o table, json or yaml"));
        }
    }
    Ok(0)
}

fn difference_text(from: &Payload, to: &Payload, difference: &Difference) -> String {
    if from.digest() == to.digest() {
        return "Releases are identical\n".into();
    }
    let row = |label: &str, of: &dyn Fn(&Payload) -> String| vec![label.to_owned(), of(from), of(to)];
    let mut rows = vec![
        row("Name:", &|p| p.version()),
        row("Digest:", &|p| p.digest().to_string()),
        row("Created:", &|p| p.config.created.clone().unwrap_or_default()),
    ];
    if platform(from) != platform(to) {
        rows.push(row("OS/Arch:", &platform));
    }
    let mut text = table(&["", "FROM", "TO"], &rows);
    let _ = writeln!(text, "\nUpgrade From: {}", if difference.upgrade { "Yes" } else { "No" });
    let mut section = |title: &str, wanted: &dyn Fn(&Changed) -> bool| {
        let rows: Vec<Vec<String>> = difference
            .changed_images
            .values()
            .filter(|c| wanted(c))
            .map(|c| [Some(c.name.clone()), c.from.clone(), c.to.clone()].into_iter().flatten().collect())
            .collect();
        if rows.is_empty() {
            return;
        }
        let both = rows[0].len() == 3;
        let header: &[&str] = if both { &["NAME", "FROM", "TO"] } else { &["NAME", "DIGEST"] };
        let _ = write!(text, "\n{title}:\n{}", indented(&table(header, &rows)));
    };
    section("Images Changed", &|c| c.from.is_some() && c.to.is_some() && !c.rebuilt);
    section("Images Rebuilt", &|c| c.rebuilt);
    section("Images Added", &|c| c.from.is_none());
    section("Images Removed", &|c| c.to.is_none());
    text
}
