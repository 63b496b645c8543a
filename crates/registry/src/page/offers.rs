//! `/release/NAME@DIGEST` and `/catalog/NAME@DIGEST`: what a release consists of and what a catalog offers, held against what is here.

use std::collections::HashSet;
use std::sync::Arc;

use airlock_oci::{Digest, Repository};
use maud::{Markup, html};

use super::description::{Asked, Catalog, Description, Needed, Package, Release, State, Version};
use super::frame::{Align, Column, Page, Table, notice, pager};
use super::inventory::Snapshot;
use super::lists::share;
use super::words::{clip, count, natural, number, short};
use super::{Failed, ROWS, Scene, View, path, pins};

/// Components of a release that are listed.
const MAX_COMPONENTS: usize = 1000;
/// Versions and channels of a package that are listed.
const MAX_VERSIONS: usize = 500;
const MAX_CHANNELS: usize = 200;
/// Versions that a channel's row names.
const MAX_NAMED: usize = 6;
/// Releases that a release's page names as leading to it.
const MAX_PREVIOUS: usize = 60;
/// Bytes of the name that packages are filtered by.
const MAX_FILTER_BYTES: usize = 256;

impl Scene {
    pub(super) async fn release(self: &Arc<Self>, name: Repository, digest: Digest) -> View {
        let state = self.describe(Asked::Release, &name, &digest).await?;
        let snapshot = self.snapshot().await;
        self.draw(move |scene| Ok(scene.draw_release(&snapshot, &name, &digest, state))).await
    }

    fn draw_release(&self, snapshot: &Snapshot, name: &Repository, digest: &Digest, state: State) -> Page {
        let here = pins(&self.visible(snapshot));
        let (title, body) = match state {
            State::Ready(Description::Release(release)) => {
                (format!("Release {}", release.version), components(&release, &here))
            }
            State::Failed(why) => ("Release".to_owned(), unreadable("release", why)),
            State::Reading | State::Ready(_) => ("Release".to_owned(), reading("release")),
        };
        let main = html! {
            (trail(("/releases", "Releases"), &title))
            h1 { (clip(&title, 120)) }
            p.lead { a href=(path::image(name, digest)) { (name) } " " (short(digest)) }
            (body)
        };
        Page { title, main }
    }

    pub(super) async fn catalog(self: &Arc<Self>, name: Repository, digest: Digest) -> View {
        let state = self.describe(Asked::Catalog, &name, &digest).await?;
        let snapshot = self.snapshot().await;
        self.draw(move |scene| scene.draw_catalog(&snapshot, &name, &digest, state)).await
    }

    fn draw_catalog(&self, snapshot: &Snapshot, name: &Repository, digest: &Digest, state: State) -> View {
        let here = pins(&self.visible(snapshot));
        let label = snapshot
            .repository(name)
            .and_then(|facts| facts.entries.iter().find(|entry| entry.digest == *digest))
            .and_then(|entry| entry.tags.first())
            .map_or_else(|| name.to_string(), |tag| format!("{name}:{}", super::repository::shown(tag)));
        let place = path::catalog(name, digest);
        let (title, head, body) = match (state, self.query.get("package")) {
            (State::Ready(Description::Catalog(catalog)), Some(package)) => {
                let found = catalog.packages.iter().find(|known| known.name == package);
                let found = found.ok_or(Failed::NotFound("There is no such package in this catalog."))?;
                (found.name.clone(), trail_of(&place, &label, &found.name), one(found, &here))
            }
            (State::Ready(Description::Catalog(catalog)), None) => {
                let title = label.clone();
                (title, trail(("/catalogs", "Operator catalogs"), &label), self.packages(&catalog, &place, &here))
            }
            (State::Failed(why), _) => {
                (label.clone(), trail(("/catalogs", "Operator catalogs"), &label), unreadable("catalog", why))
            }
            (State::Reading | State::Ready(_), _) => {
                (label.clone(), trail(("/catalogs", "Operator catalogs"), &label), reading("catalog"))
            }
        };
        let main = html! {
            (head)
            h1 { (clip(&title, 200)) }
            p.lead { a href=(path::image(name, digest)) { (label) } " " (short(digest)) }
            (body)
        };
        Ok(Page { title, main })
    }

    /// What is known of a release or a catalog by now.
    async fn describe(&self, asked: Asked, name: &Repository, digest: &Digest) -> Result<State, Failed> {
        let content = self.content(name, digest).await?;
        let content = content.ok_or(Failed::NotFound("There is no such image in this repository."))?;
        if !self.registry.site.descriptions.is_possible() {
            return Ok(State::Failed("this server does not read them"));
        }
        Ok(self.registry.site.descriptions.get(asked, digest, content).await)
    }

    /// A page of packages.
    fn packages(&self, catalog: &Catalog, place: &str, here: &HashSet<u64>) -> Markup {
        let filter = self.query.get("filter").unwrap_or_default().trim();
        let filter = if filter.len() > MAX_FILTER_BYTES { "" } else { filter };
        let found: Vec<&Package> = catalog.packages.iter().filter(|package| matches(package, filter)).collect();
        let last = self.last();
        let from = found.partition_point(|package| package.name.as_str() <= last);
        let shown = &found[from..found.len().min(from + ROWS)];
        let mut table = Table::new(
            "Packages by name",
            &[
                Column("Package", Align::Text),
                Column("Operator", Align::Text),
                Column("Default channel", Align::Text),
                Column("Newest there", Align::Text),
                Column("Channels", Align::Number),
                Column("Versions", Align::Number),
                Column("Images here", Align::Text),
            ],
        );
        for package in shown {
            table.row(vec![
                html! { a href={ (place) "?package=" (path::value(&package.name)) } { (package.name) } },
                html! { (package.display_name.as_deref().unwrap_or_default()) },
                html! { (clip(package.default_channel.as_deref().unwrap_or("–"), 80)) },
                html! { (clip(&newest(package), 80)) },
                html! { (number(package.channels.len())) },
                html! { (number(package.versions.len())) },
                needed(package.versions.iter(), here),
            ]);
        }
        let with_filter = if filter.is_empty() { String::new() } else { format!("filter={}", path::value(filter)) };
        let first = if filter.is_empty() { place.to_owned() } else { format!("{place}?{with_filter}") };
        let next = (from + ROWS < found.len()).then(|| shown.last()).flatten().map(|package| {
            let and = if filter.is_empty() { "" } else { "&" };
            format!("{place}?{with_filter}{and}last={}", path::value(&package.name))
        });
        html! {
            @if catalog.cut { (notice(html! { "This catalog is larger than what this page keeps; packages at its end are left out." })) }
            form.filter action=(place) method="get" {
                label for="filter" { "Packages whose name has" }
                input id="filter" type="search" name="filter" value=(filter) maxlength=(MAX_FILTER_BYTES);
                button type="submit" { "Filter" }
            }
            p { (count(found.len(), "package", "packages")) @if !filter.is_empty() { " of " (number(catalog.packages.len())) } }
            @if !table.is_empty() { (table.markup()) }
            (pager((from > 0).then_some(first.as_str()), next.as_deref()))
            p.quiet {
                "A catalog that was mirrored whole offers more than was mirrored with it: an operator can be installed when the images of its version are here."
            }
        }
    }
}

/// Whether a package's name, or its name for people, has the text in it.
pub(super) fn matches(package: &Package, text: &str) -> bool {
    let text = text.to_lowercase();
    package.name.to_lowercase().contains(&text)
        || package.display_name.as_ref().is_some_and(|name| name.to_lowercase().contains(&text))
}

/// The version at the head of the default channel.
pub(super) fn newest(package: &Package) -> String {
    let default = package.default_channel.as_deref();
    let channel =
        package.channels.iter().find(|c| Some(c.name.as_str()) == default).or_else(|| package.channels.first());
    match channel.and_then(|channel| channel.head.as_ref()) {
        Some(head) => version_of(package, head),
        None => "–".to_owned(),
    }
}

/// The version of a bundle, or its name where it says none.
fn version_of(package: &Package, bundle: &str) -> String {
    let version = package.versions.iter().find(|version| *version.bundle == *bundle);
    version.and_then(|v| v.version.as_deref()).unwrap_or(bundle).to_owned()
}

/// How many of the images of these versions are here.
fn needed<'v>(versions: impl Iterator<Item = &'v Version>, here: &HashSet<u64>) -> Markup {
    let (mut all, mut unpinned) = (HashSet::new(), 0);
    for version in versions {
        all.extend(version.needs.iter().map(|needed| needed.pin.0));
        unpinned += version.unpinned;
    }
    let found = all.iter().filter(|pin| here.contains(pin)).count();
    html! {
        @if all.is_empty() { span.quiet { "–" } } @else { (share(found, all.len())) }
        @if unpinned > 0 { span.quiet { " and " (number(unpinned)) " without a digest" } }
    }
}

/// A package with its channels and versions.
fn one(package: &Package, here: &HashSet<u64>) -> Markup {
    let mut channels = Table::new(
        "Channels",
        &[
            Column("Channel", Align::Text),
            Column("Installs", Align::Text),
            Column("Versions", Align::Text),
            Column("Images here", Align::Text),
        ],
    );
    for channel in package.channels.iter().take(MAX_CHANNELS) {
        let mut names: Vec<String> = channel.bundles.iter().map(|bundle| version_of(package, bundle)).collect();
        names.sort_by(|a, b| natural(b, a));
        let bundles: HashSet<&str> = channel.bundles.iter().map(AsRef::as_ref).collect();
        let versions = package.versions.iter().filter(|version| bundles.contains(&*version.bundle));
        channels.row(vec![
            html! {
                (clip(&channel.name, 120))
                @if Some(&channel.name) == package.default_channel.as_ref() { " " span.mark.neutral { "default" } }
            },
            html! { @match &channel.head { Some(head) => { (clip(&version_of(package, head), 120)) } None => { span.quiet { "–" } } } },
            html! {
                (number(names.len())) ": "
                (clip(&names.iter().take(MAX_NAMED).map(String::as_str).collect::<Vec<_>>().join(", "), 400))
                @if names.len() > MAX_NAMED { ", …" }
            },
            needed(versions, here),
        ]);
    }
    let mut versions: Vec<&Version> = package.versions.iter().collect();
    let name = |version: &Version| version.version.clone().unwrap_or_else(|| Arc::clone(&version.bundle));
    versions.sort_by(|a, b| natural(&name(b), &name(a)));
    let mut table = Table::new(
        "Versions, newest first",
        &[Column("Version", Align::Text), Column("Bundle", Align::Text), Column("Images here", Align::Text)],
    );
    for version in versions.iter().take(MAX_VERSIONS) {
        table.row(vec![
            html! { (clip(version.version.as_deref().unwrap_or("–"), 120)) },
            html! { (clip(&version.bundle, 200)) },
            needed(std::iter::once(*version), here),
        ]);
    }
    html! {
        @if let Some(name) = &package.display_name { p { (name) } }
        section { h2 { "Channels" } (channels.markup()) }
        section {
            h2 { "Versions" }
            (table.markup())
            @if versions.len() > MAX_VERSIONS { p { "and " (number(versions.len() - MAX_VERSIONS)) " more." } }
        }
    }
}

/// The components of a release.
fn components(release: &Release, here: &HashSet<u64>) -> Markup {
    let is_here = |needed: &Needed| here.contains(&needed.pin.0);
    let found = release.components.iter().filter(|component| is_here(&component.needed)).count();
    let all = release.components.len();
    let mut table = Table::new(
        "Components, missing ones first",
        &[
            Column("Component", Align::Text),
            Column("Here", Align::Text),
            Column("Digest", Align::Text),
            Column("Published in", Align::Text),
        ],
    );
    let (missing, present): (Vec<_>, Vec<_>) = release.components.iter().partition(|c| !is_here(&c.needed));
    for component in missing.into_iter().chain(present).take(MAX_COMPONENTS) {
        table.row(vec![
            html! { (clip(&component.name, 120)) },
            html! { @if is_here(&component.needed) { span.mark.good { "Yes" } } @else { span.mark.bad { "Missing" } } },
            short(&component.digest),
            html! { (clip(&component.needed.source, 200)) },
        ]);
    }
    html! {
        @if found == all {
            section.verdict.good {
                h2 { "Complete" }
                p { "All " (count(all, "component", "components")) " of this release are in this registry." }
            }
        } @else {
            section.verdict.bad {
                h2 { "Incomplete" }
                p {
                    (count(all - found, "component is", "components are")) " not here, or in a repository that you may not see. "
                    "A cluster cannot be installed from here with this release."
                }
            }
        }
        @if !release.previous.is_empty() {
            p {
                "Updates from: "
                (clip(&release.previous.iter().rev().take(MAX_PREVIOUS).map(String::as_str).collect::<Vec<_>>().join(", "), 2000))
                @if release.previous.len() > MAX_PREVIOUS { ", …" }
            }
        }
        section { h2 { "Components" } (table.markup()) }
    }
}

fn unreadable(what: &str, why: &str) -> Markup {
    html! {
        section.verdict.unknown {
            h2 { "It cannot be read" }
            p { "What this " (what) " contains cannot be shown: " (why) "." }
        }
    }
}

fn reading(what: &str) -> Markup {
    html! {
        section.verdict.unknown {
            h2 { "It is being read" }
            p { "A large " (what) " takes half a minute. Load this page again in a moment." }
        }
    }
}

fn trail(up: (&str, &str), here: &str) -> Markup {
    html! {
        nav.trail aria-label="You are here" {
            ol { li { a href=(up.0) { (up.1) } } li aria-current="page" { (clip(here, 120)) } }
        }
    }
}

fn trail_of(place: &str, label: &str, package: &str) -> Markup {
    html! {
        nav.trail aria-label="You are here" {
            ol {
                li { a href="/catalogs" { "Operator catalogs" } }
                li { a href=(place) { (label) } }
                li aria-current="page" { (clip(package, 120)) }
            }
        }
    }
}
