//! `/`: what is mirrored, and whether it is whole.

use std::collections::HashSet;
use std::sync::Arc;

use airlock_store::Verified;
use airlock_store::distribution::Fault;
use maud::{Markup, html};

use super::frame::{Align, Column, Page, Table, notice, snippet};
use super::inventory::{Facts, Snapshot};
use super::words::{ago, count, moment, number, short, size};
use super::{Scene, View, path};

/// Releases, catalogs and charts that the overview names.
const FEW: usize = 6;
/// Repositories that changed last.
const NEWEST: usize = 8;
/// Damaged files that are named.
const MAX_DAMAGE: usize = 50;

impl Scene {
    pub(super) async fn overview(self: &Arc<Self>) -> View {
        let snapshot = self.snapshot().await;
        let verified = self.verified().await;
        self.prepare_releases(&snapshot).await?;
        self.draw(move |scene| Ok(scene.draw_overview(&snapshot, verified.as_ref()))).await
    }

    fn draw_overview(&self, snapshot: &Snapshot, verified: Option<&Verified>) -> Page {
        let visible = self.visible(snapshot);
        let sum = |place: usize| visible.iter().map(|facts| facts.kinds[place]).sum::<usize>();
        let content: HashSet<&(u64, u64)> = visible.iter().flat_map(|facts| facts.content()).collect();
        let bytes: u64 = content.iter().map(|(_, bytes)| bytes).sum();
        drop(content);
        let tiles = [
            (number(sum(0)), one(sum(0), "Release", "Releases"), Some("/releases")),
            (number(sum(1)), one(sum(1), "Operator catalog", "Operator catalogs"), Some("/catalogs")),
            (number(sum(2)), one(sum(2), "Helm chart", "Helm charts"), Some("/charts")),
            (number(sum(3) + sum(4) + sum(5)), "Other images", None),
            (number(visible.len()), one(visible.len(), "Repository", "Repositories"), Some("/repositories")),
            (size(bytes), "Content", None),
        ];
        let main = html! {
            h1 { "What is mirrored" }
            p.lead {
                code { (self.visit.host) } " "
                @if self.registry.writer.is_some() { "serves these images; those who may can push more." }
                @else { "serves these images read-only; nothing can be pushed." }
            }
            (unfinished(snapshot, visible.len()))
            ul.tiles {
                @for (value, name, href) in &tiles {
                    li {
                        @if let Some(href) = href {
                            a href=(href) { strong { (value) } span { (name) } }
                        } @else {
                            div { strong { (value) } span { (name) } }
                        }
                    }
                }
            }
            (self.verdict(verified))
            @if visible.is_empty() && snapshot.complete { (self.nothing()) }
            @let releases = self.release_table(&visible, Some(FEW));
            @if let Some((table, more)) = &releases { section { h2 { "Releases" } (table) (rest(*more, "/releases", "releases")) } }
            @let catalogs = self.catalog_table(&visible, Some(FEW));
            @if let Some((table, more)) = &catalogs {
                section { h2 { "Operator catalogs" } (table) (rest(*more, "/catalogs", "catalogs")) }
            }
            @let charts = Self::chart_table(&visible, Some(FEW));
            @if let Some((table, more)) = &charts { section { h2 { "Helm charts" } (table) (rest(*more, "/charts", "charts")) } }
            (newest(&visible))
        };
        Page { title: "Overview".to_owned(), main }
    }

    /// Nothing is here yet: how to begin.
    fn nothing(&self) -> Markup {
        html! {
            section {
                h2 { "Nothing is here yet" }
                @if self.registry.writer.is_some() {
                    p { "Mirror an image set into this registry, or load an archive that came through the door:" }
                    (snippet("Commands", &format!(
                        "airlock mirror -c imageset.yaml --workspace file://workspace docker://{0}\n\
                         airlock mirror -c imageset.yaml --from file://ARCHIVE docker://{0}", self.visit.host)))
                } @else {
                    p { "There is nothing in this registry that you may see." }
                }
            }
        }
    }

    /// Whether the content was read and found whole, and when.
    fn verdict(&self, verified: Option<&Verified>) -> Markup {
        // Who may not see everything is not told what is damaged elsewhere.
        let everything = self.permit.may_everywhere(crate::access::Action::Pull);
        html! {
            @match verified {
                None => {
                    section.verdict.unknown aria-labelledby="verified" {
                        h2 id="verified" { "Not verified yet" }
                        p {
                            "Manifests are compared with their digests whenever they are served. To have every byte read and compared, run "
                            @if self.registry.writer.is_some() { code { "airlock registry scrub" } "." }
                            @else { code { "airlock archive verify" } "." }
                        }
                    }
                }
                Some(verified) if verified.damage.is_empty() => {
                    section.verdict.good aria-labelledby="verified" {
                        h2 id="verified" { "Verified" }
                        p {
                            "Every byte was read and compared with its digest on " (moment(Some(verified.at))) " ("
                            (ago(verified.at, self.visit.now)) ")"
                            @if everything && verified.files > 0 {
                                ": " (count(verified.files as usize, "file", "files")) ", " (size(verified.bytes))
                            }
                            ". Nothing is damaged or missing."
                        }
                    }
                }
                Some(verified) => {
                    section.verdict.bad aria-labelledby="verified" {
                        h2 id="verified" { "Damaged" }
                        p {
                            "When every byte was last read, on " (moment(Some(verified.at))) " (" (ago(verified.at, self.visit.now)) "), "
                            @if everything { (count(verified.damage.len(), "file was", "files were")) } @else { "files were" }
                            " damaged or missing. "
                            code { "airlock registry repair --from ARCHIVE" } " brings them back; so does mirroring the images again."
                        }
                        @if everything { (damage(verified)) }
                    }
                }
            }
        }
    }
}

fn damage(verified: &Verified) -> Markup {
    let mut table = Table::new(
        "Damaged and missing files",
        &[
            Column("File", Align::Text),
            Column("What is wrong", Align::Text),
            Column("Images that need it", Align::Text),
        ],
    );
    for one in verified.damage.iter().take(MAX_DAMAGE) {
        let fault = match one.fault {
            Fault::Altered => "its bytes have changed; it is in quarantine",
            Fault::Missing => "it is not there",
            Fault::Length => "it has another length than its image says",
            Fault::Unreadable => "the object store does not give it",
        };
        let images = html! {
            @for image in one.images.iter().take(3) { a href={ "/r/" (image) } { (image) } br; }
            @if one.affected > 3 { span.quiet { "and " (number(one.affected - 3)) " more" } }
        };
        table.row(vec![short(&one.digest), html! { (fault) }, images]);
    }
    html! {
        (table.markup())
        @if verified.damage.len() > MAX_DAMAGE { p { "and " (number(verified.damage.len() - MAX_DAMAGE)) " more." } }
    }
}

fn one(count: usize, one: &'static str, many: &'static str) -> &'static str {
    if count == 1 { one } else { many }
}

/// The picture is not whole. Only what the visitor may see is counted.
pub(super) fn unfinished(snapshot: &Snapshot, visible: usize) -> Markup {
    html! {
        @if !snapshot.complete {
            (notice(html! {
                "The storage is being looked through for the first time: "
                (count(visible, "repository", "repositories"))
                " so far. Load this page again in a moment for the rest."
            }))
        } @else if snapshot.failed {
            (notice(html! { "A part of the storage could not be read, or is more than this page counts. The registry's log says which." }))
        }
    }
}

/// A link to the whole list.
fn rest(more: usize, href: &str, what: &str) -> Markup {
    html! { @if more > 0 { p { a href=(href) { "All " (what) } " (" (number(more)) " more)" } } }
}

/// The repositories that changed last.
fn newest(visible: &[&Arc<Facts>]) -> Markup {
    let mut changed: Vec<&Arc<Facts>> = visible.iter().copied().filter(|facts| facts.newest.is_some()).collect();
    changed.sort_by(|a, b| b.newest.cmp(&a.newest).then_with(|| a.name.cmp(&b.name)));
    let mut table = Table::new(
        "Repositories that changed last",
        &[
            Column("Repository", Align::Text),
            Column("Images", Align::Number),
            Column("Content", Align::Number),
            Column("Changed", Align::Text),
        ],
    );
    for facts in changed.iter().take(NEWEST) {
        table.row(vec![
            html! { a href=(path::repository(&facts.name)) { (facts.name) } },
            html! { (number(facts.images)) },
            html! { (size(facts.bytes)) },
            moment(facts.newest),
        ]);
    }
    html! { @if !table.is_empty() { section { h2 { "Changed last" } (table.markup()) p { a href="/repositories" { "All repositories" } } } } }
}
