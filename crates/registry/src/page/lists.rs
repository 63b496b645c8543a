//! `/releases`, `/catalogs`, `/charts`, `/repositories`: the whole lists.

use std::collections::HashSet;
use std::sync::Arc;

use airlock_oci::{Digest, Repository};
use maud::{Markup, html};

use super::description::{Asked, Description};
use super::frame::{Align, Column, Page, Table, pager};
use super::inventory::{Entry, Facts, Snapshot};
use super::kind::Kind;
use super::overview::unfinished;
use super::words::{moment, natural, number, short, size};
use super::{Failed, ROWS, Scene, View, path, pins};

/// Releases whose components are looked for when somebody looks at the list.
const PREPARED: usize = 24;
/// Rows of the lists of releases, catalogs and charts.
const MAX_ROWS: usize = 1000;
/// Platforms that a row names.
const MAX_PLATFORMS: usize = 4;

impl Scene {
    pub(super) async fn releases(self: &Arc<Self>) -> View {
        let snapshot = self.snapshot().await;
        self.prepare_releases(&snapshot).await?;
        self.draw(move |scene| Ok(scene.draw_releases(&snapshot))).await
    }

    /// Has the newest releases read, without waiting for it.
    pub(super) async fn prepare_releases(&self, snapshot: &Snapshot) -> Result<(), Failed> {
        for (name, digest) in self.undescribed_releases(snapshot) {
            if let Some(content) = self.content(&name, &digest).await? {
                self.registry.site.descriptions.prepare(Asked::Release, &digest, content);
            }
        }
        Ok(())
    }

    /// The newest releases that were not read yet.
    pub(super) fn undescribed_releases(&self, snapshot: &Snapshot) -> Vec<(Repository, Digest)> {
        if !self.registry.site.descriptions.is_possible() {
            return Vec::new();
        }
        let visible = self.visible(snapshot);
        let entries = entries(&visible, |kind| matches!(kind, Kind::Release { .. }));
        let newest = entries.into_iter().take(PREPARED);
        newest
            .filter(|(_, entry)| self.registry.site.descriptions.known(Asked::Release, &entry.digest).is_none())
            .map(|(facts, entry)| (facts.name.clone(), entry.digest.clone()))
            .collect()
    }

    fn draw_releases(&self, snapshot: &Snapshot) -> Page {
        let visible = self.visible(snapshot);
        let main = html! {
            h1 { "Releases" }
            (unfinished(snapshot, visible.len()))
            @match self.release_table(&visible, None) {
                Some((table, _)) => {
                    p.lead { "OpenShift releases that a cluster can be installed with or updated to from this registry." }
                    (table)
                }
                None => { p { "No release is mirrored here." } }
            }
        };
        Page { title: "Releases".to_owned(), main }
    }

    pub(super) async fn catalogs(self: &Arc<Self>) -> View {
        let snapshot = self.snapshot().await;
        self.draw(move |scene| Ok(scene.draw_catalogs(&snapshot))).await
    }

    fn draw_catalogs(&self, snapshot: &Snapshot) -> Page {
        let visible = self.visible(snapshot);
        let main = html! {
            h1 { "Operator catalogs" }
            (unfinished(snapshot, visible.len()))
            @match self.catalog_table(&visible, None) {
                Some((table, _)) => {
                    p.lead { "Catalogs say which operators there are. Open one to see its packages, their channels, and which of their images are here." }
                    (table)
                }
                None => { p { "No catalog of operators is mirrored here." } }
            }
        };
        Page { title: "Operator catalogs".to_owned(), main }
    }

    pub(super) async fn charts(self: &Arc<Self>) -> View {
        let snapshot = self.snapshot().await;
        self.draw(move |scene| Ok(scene.draw_charts(&snapshot))).await
    }

    fn draw_charts(&self, snapshot: &Snapshot) -> Page {
        let visible = self.visible(snapshot);
        let main = html! {
            h1 { "Helm charts" }
            (unfinished(snapshot, visible.len()))
            @match Self::chart_table(&visible, None) {
                Some((table, _)) => { (table) }
                None => { p { "No chart is kept in this registry." } }
            }
        };
        Page { title: "Helm charts".to_owned(), main }
    }

    pub(super) async fn repositories(self: &Arc<Self>) -> View {
        let snapshot = self.snapshot().await;
        self.draw(move |scene| Ok(scene.draw_repositories(&snapshot))).await
    }

    fn draw_repositories(&self, snapshot: &Snapshot) -> Page {
        let visible = self.visible(snapshot);
        let last = self.last().to_owned();
        let from = visible.partition_point(|facts| facts.name.as_str() <= last.as_str());
        let shown = &visible[from..visible.len().min(from + ROWS)];
        let mut table = Table::new(
            "Repositories by name",
            &[
                Column("Repository", Align::Text),
                Column("Images", Align::Number),
                Column("Tags", Align::Number),
                Column("Content", Align::Number),
                Column("Changed", Align::Text),
            ],
        );
        for facts in shown {
            table.row(vec![
                html! { a href=(path::repository(&facts.name)) { (facts.name) } },
                html! { (number(facts.images)) },
                html! { (number(facts.tags)) },
                html! { (size(facts.bytes)) @if facts.partial { " at least" } },
                moment(facts.newest),
            ]);
        }
        let next = (from + ROWS < visible.len()).then(|| shown.last()).flatten();
        let next = next.map(|facts| format!("/repositories?last={}", path::value(facts.name.as_str())));
        let main = html! {
            h1 { "Repositories" }
            (unfinished(snapshot, visible.len()))
            p.lead { (super::words::count(visible.len(), "repository", "repositories")) }
            @if table.is_empty() { p { "There is none." } } @else { (table.markup()) }
            (pager((from > 0).then_some("/repositories"), next.as_deref()))
        };
        Page { title: "Repositories".to_owned(), main }
    }

    /// The releases; how many are not in the table.
    pub(super) fn release_table(&self, visible: &[&Arc<Facts>], most: Option<usize>) -> Option<(Markup, usize)> {
        let entries = entries(visible, |kind| matches!(kind, Kind::Release { .. }));
        let here = pins(visible);
        let mut table = Table::new(
            "Releases, newest first",
            &[
                Column("Version", Align::Text),
                Column("Platforms", Align::Text),
                Column("Components here", Align::Text),
                Column("Image", Align::Text),
                Column("Mirrored", Align::Text),
            ],
        );
        let all = entries.len();
        for (facts, entry) in entries.into_iter().take(most.unwrap_or(MAX_ROWS)) {
            let Kind::Release { version } = &entry.kind else { continue };
            table.row(vec![
                html! { a.version href=(path::release(&facts.name, &entry.digest)) { (version) } },
                platforms(&entry.platforms),
                self.components(&entry.digest, &here),
                name(facts, entry),
                moment(entry.at),
            ]);
        }
        let shown = all.min(most.unwrap_or(MAX_ROWS));
        (!table.is_empty()).then(|| (table.markup(), all - shown))
    }

    /// The catalogs; how many are not in the table.
    pub(super) fn catalog_table(&self, visible: &[&Arc<Facts>], most: Option<usize>) -> Option<(Markup, usize)> {
        let entries = entries(visible, |kind| *kind == Kind::Catalog);
        let mut table = Table::new(
            "Catalogs by name",
            &[
                Column("Catalog", Align::Text),
                Column("Packages", Align::Number),
                Column("Platforms", Align::Text),
                Column("Size", Align::Number),
                Column("Mirrored", Align::Text),
            ],
        );
        let all = entries.len();
        for (facts, entry) in entries.into_iter().take(most.unwrap_or(MAX_ROWS)) {
            let known = self.registry.site.descriptions.known(Asked::Catalog, &entry.digest);
            let packages = html! {
                @match known {
                    Some(Description::Catalog(catalog)) => { (number(catalog.packages.len())) }
                    _ => { a href=(path::catalog(&facts.name, &entry.digest)) { "Read it" } }
                }
            };
            table.row(vec![
                html! { a href=(path::catalog(&facts.name, &entry.digest)) { (label(facts, entry)) } },
                packages,
                platforms(&entry.platforms),
                html! { (size(entry.bytes)) },
                moment(entry.at),
            ]);
        }
        let shown = all.min(most.unwrap_or(MAX_ROWS));
        (!table.is_empty()).then(|| (table.markup(), all - shown))
    }

    /// The charts; how many are not in the table.
    pub(super) fn chart_table(visible: &[&Arc<Facts>], most: Option<usize>) -> Option<(Markup, usize)> {
        let entries = entries(visible, |kind| matches!(kind, Kind::Chart { .. }));
        let mut table = Table::new(
            "Charts by name, newest version first",
            &[
                Column("Chart", Align::Text),
                Column("Version", Align::Text),
                Column("Image", Align::Text),
                Column("Size", Align::Number),
                Column("Mirrored", Align::Text),
            ],
        );
        let all = entries.len();
        for (facts, entry) in entries.into_iter().take(most.unwrap_or(MAX_ROWS)) {
            let Kind::Chart { name: chart, version } = &entry.kind else { continue };
            table.row(vec![
                html! { a href=(path::image(&facts.name, &entry.digest)) { (chart) } },
                html! { (version) },
                name(facts, entry),
                html! { (size(entry.bytes)) },
                moment(entry.at),
            ]);
        }
        let shown = all.min(most.unwrap_or(MAX_ROWS));
        (!table.is_empty()).then(|| (table.markup(), all - shown))
    }

    /// How many of a release's components are here.
    fn components(&self, digest: &Digest, here: &HashSet<u64>) -> Markup {
        let known = self.registry.site.descriptions.known(Asked::Release, digest);
        html! {
            @match known {
                Some(Description::Release(release)) => {
                    @let found = release.components.iter().filter(|c| here.contains(&c.needed.pin.0)).count();
                    (share(found, release.components.len()))
                }
                _ => { span.quiet { "not read yet" } }
            }
        }
    }
}

/// So many of so many, in words and with a sign.
pub(super) fn share(found: usize, all: usize) -> Markup {
    html! {
        @if found == all { span.mark.good { "All " (number(all)) } }
        @else if found == 0 { span.mark.bad { "None of " (number(all)) } }
        @else { span.mark.bad { (number(found)) " of " (number(all)) } }
    }
}

/// Everything of a kind: newest versions first, otherwise by name.
fn entries<'s>(visible: &[&'s Arc<Facts>], wanted: impl Fn(&Kind) -> bool) -> Vec<(&'s Facts, &'s Entry)> {
    let mut found: Vec<(&Facts, &Entry)> = visible
        .iter()
        .copied()
        .flat_map(|facts: &'s Arc<Facts>| facts.entries.iter().map(move |entry| (facts.as_ref(), entry)))
        .filter(|(_, entry)| wanted(&entry.kind))
        .collect();
    found.sort_by(|(fa, a), (fb, b)| {
        let order = match (&a.kind, &b.kind) {
            (Kind::Release { version: a }, Kind::Release { version: b }) => natural(b, a),
            (Kind::Chart { name: na, version: a }, Kind::Chart { name: nb, version: b }) => {
                na.cmp(nb).then_with(|| natural(b, a))
            }
            _ => std::cmp::Ordering::Equal,
        };
        order.then_with(|| fa.name.cmp(&fb.name)).then_with(|| natural(&tag(b), &tag(a)))
    });
    found
}

fn tag(entry: &Entry) -> String {
    entry.tags.first().map(ToString::to_string).unwrap_or_default()
}

/// The name of an entry, as text.
fn label(facts: &Facts, entry: &Entry) -> String {
    match entry.tags.first() {
        Some(tag) => format!("{}:{}", facts.name, super::repository::shown(tag)),
        None => facts.name.to_string(),
    }
}

/// The name of an entry, with a link to its image.
fn name(facts: &Facts, entry: &Entry) -> Markup {
    html! {
        @match entry.tags.first() {
            Some(tag) => {
                a href=(path::tag(&facts.name, tag)) { (facts.name) ":" (super::repository::shown(tag)) }
                @if entry.tags.len() > 1 { span.quiet { " and " (number(entry.tags.len() - 1)) " more" } }
            }
            None => { a href=(path::image(&facts.name, &entry.digest)) { (facts.name) } " " (short(&entry.digest)) }
        }
    }
}

/// Platforms, the first few.
pub(super) fn platforms(platforms: &[String]) -> Markup {
    html! {
        @for (at, platform) in platforms.iter().take(MAX_PLATFORMS).enumerate() {
            @if at > 0 { ", " }
            span.platform { (platform) }
        }
        @if platforms.len() > MAX_PLATFORMS { span.quiet { " and " (number(platforms.len() - MAX_PLATFORMS)) " more" } }
        @if platforms.is_empty() { span.quiet { "–" } }
    }
}
