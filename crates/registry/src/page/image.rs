//! `/r/NAME:TAG` and `/r/NAME@DIGEST`: one image, to the last layer.

use std::sync::Arc;
use std::time::SystemTime;

use airlock_oci::sink::ManifestName;
use airlock_oci::{Descriptor, Digest, ErrorKind, Manifest, Repository};
use airlock_store::Verified;
use maud::{Markup, html};

use super::frame::{Align, Column, Page, Table, notice, pull_command, snippet};
use super::kind::{Config, Kind, MAX_CHILDREN, Reader, Recognised, attached_tags};
use super::repository::{shown, trail, what};
use super::words::{clip, count, moment, number, short, short_text, size};
use super::{Failed, Scene, View, path};

/// Layers that are listed.
const MAX_LAYERS: usize = 500;
/// Labels and annotations that are listed, and characters of each.
const MAX_NOTES: usize = 200;
const MAX_NOTE_CHARS: usize = 1000;
/// Characters of the command that made a layer.
const MAX_STEP_CHARS: usize = 160;
/// Signatures and the like that are listed.
const MAX_ATTACHED: usize = 100;

/// What is read of an image.
struct Seen {
    manifest: Manifest,
    recognised: Recognised,
    config: Option<Config>,
    /// For each child of an index, whether it is here.
    here: Vec<bool>,
    attached: Vec<Attached>,
    at: Option<SystemTime>,
}

/// A signature, an SBOM or the like.
struct Attached {
    what: String,
    descriptor: Descriptor,
}

impl Scene {
    pub(super) async fn image(self: &Arc<Self>, name: Repository, at: ManifestName) -> View {
        let verified = self.verified().await;
        let (repository, wanted) = (name.clone(), at.clone());
        let (seen, late) = self.read(move |reader| see(reader, &repository, &wanted)).await?;
        let seen = match seen {
            Ok(seen) => seen,
            Err(text) => return Err(Failed::NotFound(text)),
        };
        let digest = seen.manifest.digest().clone();
        let (title, label) = match &at {
            ManifestName::Tag(tag) => (format!("{name}:{tag}"), shown(tag)),
            ManifestName::Digest(digest) => (format!("{name}@{}", short_text(digest)), short_text(digest)),
        };
        let by_name = match &at {
            ManifestName::Tag(tag) => format!("{name}:{tag}"),
            ManifestName::Digest(digest) => format!("{name}@{digest}"),
        };
        let layers = layers(&seen);
        let main = html! {
            (trail(&name, Some(&label)))
            h1 { (name) @if matches!(at, ManifestName::Tag(_)) { ":" } @else { "@" } wbr; (label) }
            (damage(&name, &digest, verified.as_ref()))
            @if late { (notice(html! { "This image has so many parts that not all of them were looked at." })) }
            @match &seen.recognised.kind {
                Kind::Release { .. } => { p { a.button href=(path::release(&name, &digest)) { "Components of this release" } } }
                Kind::Catalog => { p { a.button href=(path::catalog(&name, &digest)) { "Packages and channels of this catalog" } } }
                _ => {}
            }
            (facts(&seen))
            section {
                h2 { "Pull it" }
                (snippet("A command that pulls the image by its name", &pull_command(&self.visit.host, &by_name)))
                @if matches!(at, ManifestName::Tag(_)) {
                    (snippet("A command that pulls the image by its digest", &pull_command(&self.visit.host, &format!("{name}@{digest}"))))
                }
            }
            @if !seen.manifest.children().is_empty() { (platforms(&name, &seen)) }
            @if let Some(layers) = layers { (layers) }
            (attachments(&name, &seen.attached))
            (notes("Annotations", seen.manifest.annotations().iter()))
            @if let Some(config) = &seen.config { (notes("Labels", config.labels())) }
        };
        Ok(Page { title, main })
    }
}

fn see(
    reader: &Reader<'_>,
    name: &Repository,
    at: &ManifestName,
) -> Result<Result<Seen, &'static str>, airlock_oci::Error> {
    let manifest = match reader.storage.manifest(name, at) {
        Ok(Some(manifest)) => manifest,
        Ok(None) => return Ok(Err("There is no such image in this repository.")),
        Err(e) if e.kind() == ErrorKind::Content => {
            tracing::error!(cause = %e, "a stored manifest cannot be shown");
            return Ok(Err(
                "The copy of this image in the storage is damaged; mirror it again, or repair it from an archive.",
            ));
        }
        Err(e) if e.kind() == ErrorKind::Unsupported => {
            return Ok(Err("This image is of a kind that cannot be served, such as Docker schema 1."));
        }
        Err(e) => return Err(e),
    };
    let recognised = reader.recognise(name, &manifest);
    let config = reader.representative(name, &manifest).and_then(|image| reader.config(name, &image));
    let children = manifest.children().iter().take(MAX_CHILDREN);
    let here = children.map(|child| reader.manifest(name, &child.digest).is_some()).collect();
    let mut attached = Vec::new();
    for descriptor in reader.storage.referrers(name, manifest.digest())?.into_iter().take(MAX_ATTACHED) {
        let what = descriptor.artifact_type.clone().unwrap_or_else(|| descriptor.media_type.clone());
        attached.push(Attached { what: clip(&what, MAX_STEP_CHARS), descriptor });
    }
    for (tag, what) in attached_tags(manifest.digest()) {
        if let Ok(Some(found)) = reader.storage.manifest(name, &ManifestName::Tag(tag)) {
            attached.push(Attached { what: format!("cosign {what}"), descriptor: found.descriptor() });
        }
    }
    let at = match at {
        ManifestName::Tag(tag) => reader.storage.tagged_at(name, tag),
        ManifestName::Digest(_) => None,
    };
    Ok(Ok(Seen { manifest, recognised, config, here, attached, at }))
}

/// What the last reading of every byte found wrong with it.
fn damage(name: &Repository, digest: &Digest, verified: Option<&Verified>) -> Markup {
    let whole = format!("{name}@{digest}");
    let hit = verified.is_some_and(|v| v.damage.iter().any(|d| d.digest == *digest || d.images.contains(&whole)));
    html! {
        @if hit {
            section.verdict.bad {
                h2 { "Damaged" }
                p { "A part of this image was damaged or missing when every byte was last read. " code { "airlock registry repair" } " brings it back." }
            }
        }
    }
}

fn facts(seen: &Seen) -> Markup {
    let Seen { manifest, recognised, config, at, .. } = seen;
    html! {
        dl.facts {
            div { dt { "What it is" } dd { (what(&recognised.kind, 0)) } }
            div { dt { "Digest" } dd { code.whole { (manifest.digest()) } } }
            div { dt { "Platforms" } dd { (super::lists::platforms(&recognised.platforms)) } }
            div {
                dt { "Size" }
                dd {
                    (size(recognised.bytes))
                    @if recognised.absent > 0 { span.quiet { ", of what is here: " (count(recognised.absent, "platform is", "platforms are")) " not mirrored" } }
                }
            }
            @if at.is_some() { div { dt { "Tag set" } dd { (moment(*at)) } } }
            @if let Some(created) = config.as_ref().and_then(|c| c.created.as_deref()) {
                div { dt { "Built" } dd { (clip(created, 40)) } }
            }
            div { dt { "Media type" } dd { code { (clip(manifest.media_type(), MAX_STEP_CHARS)) } } }
            @if let Some(subject) = manifest.subject() {
                div { dt { "Belongs to" } dd { code.whole { (subject.digest) } } }
            }
        }
    }
}

/// The children of an index.
fn platforms(name: &Repository, seen: &Seen) -> Markup {
    let mut table = Table::new(
        "Platforms of this image",
        &[
            Column("Platform", Align::Text),
            Column("Digest", Align::Text),
            Column("Here", Align::Text),
            Column("Manifest", Align::Number),
        ],
    );
    for (child, here) in seen.manifest.children().iter().zip(&seen.here) {
        let platform = match &child.platform {
            Some(platform) if platform.os != "unknown" => clip(&platform.to_string(), 80),
            _ => {
                child.artifact_type.as_deref().map_or_else(|| "attestation or other".to_owned(), |kind| clip(kind, 80))
            }
        };
        table.row(vec![
            html! { (platform) },
            html! { @if *here { a href=(path::image(name, &child.digest)) { (short(&child.digest)) } } @else { (short(&child.digest)) } },
            html! { @if *here { span.mark.good { "Yes" } } @else { span.mark.neutral { "Not mirrored" } } },
            html! { (size(child.size)) },
        ]);
    }
    let more = seen.manifest.children().len() - seen.here.len();
    html! {
        section {
            h2 { "Platforms" }
            (table.markup())
            @if more > 0 { p { "and " (number(more)) " more." } }
        }
    }
}

fn layers(seen: &Seen) -> Option<Markup> {
    let layers = seen.manifest.layers();
    if layers.is_empty() {
        return None;
    }
    // The steps of the build, where every layer has one.
    let history = seen.config.iter().flat_map(|config| &config.history);
    let steps: Vec<&str> =
        history.filter(|s| !s.empty_layer).map(|s| s.created_by.as_deref().unwrap_or_default()).collect();
    let steps = if steps.len() == layers.len() { steps } else { Vec::new() };
    let mut table = Table::new(
        "Layers, from the bottom",
        &[
            Column("Layer", Align::Number),
            Column("Digest", Align::Text),
            Column("Size", Align::Number),
            Column(if steps.is_empty() { "Media type" } else { "Made by" }, Align::Text),
        ],
    );
    for (at, layer) in layers.iter().take(MAX_LAYERS).enumerate() {
        let made = match steps.get(at) {
            Some(step) => html! { code.step { (clip(step, MAX_STEP_CHARS)) } },
            None => html! {
                code { (clip(&layer.media_type, MAX_STEP_CHARS)) }
                @if let Some(title) = layer.annotations.get("org.opencontainers.image.title") { " " (clip(title, MAX_STEP_CHARS)) }
                @if layer.is_foreign() { span.quiet { " lies elsewhere" } }
            },
        };
        table.row(vec![html! { (number(at + 1)) }, short(&layer.digest), html! { (size(layer.size)) }, made]);
    }
    let total: u64 = layers.iter().map(|layer| layer.size).sum();
    Some(html! {
        section {
            h2 { "Layers" }
            p { (count(layers.len(), "layer", "layers")) ", " (size(total)) }
            (table.markup())
            @if layers.len() > MAX_LAYERS { p { "and " (number(layers.len() - MAX_LAYERS)) " more." } }
        }
    })
}

fn attachments(name: &Repository, attached: &[Attached]) -> Markup {
    let mut table = Table::new(
        "Signatures and other things that refer to this image",
        &[Column("Kind", Align::Text), Column("Digest", Align::Text), Column("Size of its manifest", Align::Number)],
    );
    for one in attached {
        table.row(vec![
            html! { (one.what) },
            html! { a href=(path::image(name, &one.descriptor.digest)) { (short(&one.descriptor.digest)) } },
            html! { (size(one.descriptor.size)) },
        ]);
    }
    html! {
        section {
            h2 { "Signatures and attachments" }
            @if table.is_empty() { p { "Nothing in this repository refers to this image." } } @else {
                (table.markup())
                p.quiet { "They are listed, not judged: clusters check signatures by their own policy." }
            }
        }
    }
}

/// What an image says of itself.
fn notes<'n>(heading: &str, notes: impl Iterator<Item = (&'n String, &'n String)>) -> Markup {
    let notes: Vec<(&String, &String)> = notes.collect();
    html! {
        @if !notes.is_empty() {
            details {
                summary { h2 { (heading) " " span.quiet { (number(notes.len())) } } }
                dl.notes {
                    @for (name, value) in notes.iter().take(MAX_NOTES) {
                        div { dt { (clip(name, MAX_NOTE_CHARS)) } dd { (clip(value, MAX_NOTE_CHARS)) } }
                    }
                }
                @if notes.len() > MAX_NOTES { p { "and " (number(notes.len() - MAX_NOTES)) " more." } }
            }
        }
    }
}
