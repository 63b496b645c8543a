//! `/search?q=`: repositories, tags, releases, charts, operators and digests that have the text in their name.

use std::sync::Arc;
use std::time::{Duration, Instant};

use airlock_oci::sink::ManifestName;
use airlock_oci::{Digest, Repository, Tag};
use maud::html;

use super::description::{Asked, Description};
use super::frame::{Align, Column, Page, Table, notice};
use super::inventory::Facts;
use super::kind::Kind;
use super::offers::{matches, newest};
use super::overview::unfinished;
use super::repository::shown;
use super::words::{count, short};
use super::{Scene, View, path};
use crate::query::Query;

/// Bytes of a question.
const MAX_QUESTION_BYTES: usize = 256;
/// Things of each sort that are shown.
const MAX_FOUND: usize = 100;
/// How long tags are looked through.
const TIME: Duration = Duration::from_secs(2);
/// Tags that are asked for at once.
const STEP: usize = 1000;

/// What is searched for; nothing where it is too long for a name.
pub(super) fn question(query: &Query) -> String {
    let question = query.get("q").unwrap_or_default().trim();
    if question.len() > MAX_QUESTION_BYTES { String::new() } else { question.to_owned() }
}

impl Scene {
    pub(super) async fn search(self: &Arc<Self>) -> View {
        let question = self.visit.question.clone();
        if question.is_empty() {
            let main = html! {
                h1 { "Search" }
                p { "Search for a part of the name of a repository, a tag, a release, a chart or an operator, or for a whole digest." }
            };
            return Ok(Page { title: "Search".to_owned(), main });
        }
        let snapshot = self.snapshot().await;
        let visible: Vec<Arc<Facts>> = self.visible(&snapshot).into_iter().cloned().collect();
        let wanted = question.to_lowercase();
        // A tag that repeats a digest has another sign in it.
        let in_tags = wanted.replacen("sha256:", "sha256-", 1);
        let repositories: Vec<&Arc<Facts>> =
            visible.iter().filter(|facts| facts.name.as_str().contains(&wanted)).take(MAX_FOUND + 1).collect();
        let entries: Vec<(&Arc<Facts>, String, String, String)> = visible
            .iter()
            .flat_map(|facts| facts.entries.iter().map(move |entry| (facts, entry)))
            .filter_map(|(facts, entry)| {
                let text = match &entry.kind {
                    Kind::Release { version } => format!("Release {version}"),
                    Kind::Chart { name, version } => format!("Helm chart {name} {version}"),
                    _ => return None,
                };
                let place = match &entry.kind {
                    Kind::Release { .. } => path::release(&facts.name, &entry.digest),
                    _ => path::image(&facts.name, &entry.digest),
                };
                let digest = super::words::short_text(&entry.digest);
                text.to_lowercase().contains(&wanted).then_some((facts, text, place, digest))
            })
            .take(MAX_FOUND + 1)
            .collect();
        let (operators, unread) = self.operators(&visible, &wanted);
        let names: Vec<Repository> = visible.iter().map(|facts| facts.name.clone()).collect();
        let digest: Option<Digest> = question.parse().ok();
        let ((tags, images, cut), late) = self
            .read(move |reader| {
                let end = Instant::now() + TIME;
                let (mut tags, mut images) = (Vec::new(), Vec::new());
                for name in &names {
                    if tags.len() > MAX_FOUND || Instant::now() >= end {
                        return Ok((tags, images, true));
                    }
                    if let Some(digest) = &digest {
                        let at = ManifestName::Digest(digest.clone());
                        if images.len() <= MAX_FOUND && matches!(reader.storage.manifest(name, &at), Ok(Some(_))) {
                            images.push(name.clone());
                        }
                    }
                    let mut after = String::new();
                    while tags.len() <= MAX_FOUND && Instant::now() < end {
                        let Some(step) = reader.storage.tags_after(name, &after, STEP)? else { break };
                        let found = step.iter().filter(|tag| tag.as_str().to_lowercase().contains(&in_tags));
                        tags.extend(found.take(MAX_FOUND + 1 - tags.len()).map(|tag| (name.clone(), tag.clone())));
                        match step.last() {
                            Some(last) if step.len() == STEP => last.as_str().clone_into(&mut after),
                            _ => break,
                        }
                    }
                }
                let cut = tags.len() > MAX_FOUND || Instant::now() >= end;
                Ok((tags, images, cut))
            })
            .await?;
        let cut = cut || late || repositories.len() > MAX_FOUND || entries.len() > MAX_FOUND;
        let digest: Option<Digest> = question.parse().ok();
        let tables = [
            ("Images with this digest", images_table(&images, digest.as_ref())),
            ("Releases and charts", entries_table(&entries)),
            ("Operators", operators),
            ("Repositories", repositories_table(&repositories)),
            ("Tags", tags_table(&tags)),
        ];
        let found = tables.iter().any(|(_, table)| !table.is_empty());
        let main = html! {
            h1 { "Found for “" (question) "”" }
            (unfinished(&snapshot, visible.len()))
            @if cut { (notice(html! { "There is more: this is what was found first. A longer word finds less." })) }
            @if unread > 0 {
                (notice(html! {
                    "Operators of " (count(unread, "catalog", "catalogs")) " are not searched yet: "
                    a href="/catalogs" { "open what you need under Operators" } " once, so that it is read."
                }))
            }
            @for (heading, table) in &tables {
                @if !table.is_empty() { section { h2 { (heading) } (table.markup()) } }
            }
            @if !found { p { "Nothing that you may see has this in its name." } }
        };
        Ok(Page { title: "Search".to_owned(), main })
    }

    /// Operators of the catalogs that were read; and how many were not.
    fn operators(&self, visible: &[Arc<Facts>], wanted: &str) -> (Table, usize) {
        let mut table = Table::new(
            "Operators by catalog",
            &[
                Column("Package", Align::Text),
                Column("Operator", Align::Text),
                Column("Newest there", Align::Text),
                Column("Catalog", Align::Text),
            ],
        );
        let (mut unread, mut rows) = (0, 0);
        for facts in visible {
            for entry in facts.entries.iter().filter(|entry| entry.kind == Kind::Catalog) {
                let Some(Description::Catalog(catalog)) =
                    self.registry.site.descriptions.known(Asked::Catalog, &entry.digest)
                else {
                    unread += 1;
                    continue;
                };
                let place = path::catalog(&facts.name, &entry.digest);
                for package in catalog.packages.iter().filter(|package| matches(package, wanted)) {
                    if rows >= MAX_FOUND {
                        break;
                    }
                    rows += 1;
                    table.row(vec![
                        html! { a href={ (place) "?package=" (path::value(&package.name)) } { (package.name) } },
                        html! { (package.display_name.as_deref().unwrap_or_default()) },
                        html! { (newest(package)) },
                        html! { a href=(place) { (facts.name) @if let Some(tag) = entry.tags.first() { ":" (shown(tag)) } } },
                    ]);
                }
            }
        }
        (table, unread)
    }
}

fn images_table(images: &[Repository], digest: Option<&Digest>) -> Table {
    let mut table = Table::new(
        "Repositories that have the image",
        &[Column("Repository", Align::Text), Column("Digest", Align::Text)],
    );
    for (name, digest) in images.iter().take(MAX_FOUND).zip(digest.into_iter().cycle()) {
        table.row(vec![html! { a href=(path::image(name, digest)) { (name) } }, short(digest)]);
    }
    table
}

fn entries_table(entries: &[(&Arc<Facts>, String, String, String)]) -> Table {
    let mut table = Table::new(
        "By repository",
        &[Column("Name", Align::Text), Column("Repository", Align::Text), Column("Digest", Align::Text)],
    );
    for (facts, text, place, digest) in entries.iter().take(MAX_FOUND) {
        table.row(vec![html! { a href=(place) { (text) } }, html! { (facts.name) }, html! { code { (digest) } }]);
    }
    table
}

fn repositories_table(repositories: &[&Arc<Facts>]) -> Table {
    let mut table = Table::new("By name", &[Column("Repository", Align::Text), Column("Images", Align::Number)]);
    for facts in repositories.iter().take(MAX_FOUND) {
        table.row(vec![
            html! { a href=(path::repository(&facts.name)) { (facts.name) } },
            html! { (super::words::number(facts.images)) },
        ]);
    }
    table
}

fn tags_table(tags: &[(Repository, Tag)]) -> Table {
    let mut table =
        Table::new("By repository and name", &[Column("Tag", Align::Text), Column("Repository", Align::Text)]);
    for (name, tag) in tags.iter().take(MAX_FOUND) {
        table.row(vec![
            html! { a href=(path::tag(name, tag)) title=(tag) { (shown(tag)) } },
            html! { a href=(path::repository(name)) { (name) } },
        ]);
    }
    table
}
