//! `/r/NAME`: the tags of a repository, in pages, with signatures and the like behind what they belong to.

use std::sync::Arc;
use std::time::SystemTime;

use airlock_oci::sink::ManifestName;
use airlock_oci::{Digest, ErrorKind, Repository, Tag};
use maud::{Markup, html};

use super::frame::{Align, Column, Page, Table, notice, pager, snippet};
use super::kind::{Kind, Reader, Recognised, Role, attached_tags, role};
use super::lists::platforms;
use super::words::{count, moment, number, short, size};
use super::{Failed, ROWS, Scene, View, path};

/// Tags that are looked at for one page: those of signatures take no row.
const MAX_LOOKED_AT: usize = 20 * ROWS;
/// Hex digits of a tag that only repeats a digest.
const TAG_HEX: usize = 12;
/// What there is not.
const NONE: &str = "There is no such repository.";

/// An image under a tag.
struct Row {
    tag: Option<Tag>,
    at: Option<SystemTime>,
    /// `None`: the storage's copy is damaged.
    image: Option<(Digest, Recognised, usize)>,
}

/// One page of a repository.
#[derive(Default)]
struct Rows {
    rows: Vec<Row>,
    hidden: usize,
    next: Option<String>,
}

impl Scene {
    pub(super) async fn repository(self: &Arc<Self>, name: Repository) -> View {
        let snapshot = self.snapshot().await;
        let facts = snapshot.repository(&name).cloned();
        let last = self.last().to_owned();
        let untagged = self.query.get("untagged").is_some();
        let nameless = facts.as_ref().map(|facts| facts.untagged.clone()).unwrap_or_default();
        let (repository, from) = (name.clone(), last.clone());
        let (rows, late) = self
            .read(move |reader| {
                if untagged {
                    Ok(Some(of_digests(reader, &repository, &nameless, &from)))
                } else {
                    tags(reader, &repository, &from)
                }
            })
            .await?;
        let rows = rows.ok_or(Failed::NotFound(NONE))?;
        let here = path::repository(&name);
        let first = if untagged { format!("{here}?untagged=1") } else { here.clone() };
        let next = rows.next.as_ref().map(|next| {
            let sign = if untagged { '&' } else { '?' };
            format!("{first}{sign}last={}", path::value(next))
        });
        let table = table(&name, &rows.rows, untagged);
        let main = html! {
            (trail(&name, None))
            h1 { (name) }
            @if let Some(facts) = &facts {
                p.lead {
                    (count(facts.images, "image", "images")) ", " (count(facts.tags, "tag", "tags")) ", " (size(facts.bytes))
                    @if facts.partial { " at least" }
                    @if facts.newest.is_some() { ", changed " (moment(facts.newest)) }
                }
            }
            @if let Some(tag) = rows.rows.iter().find_map(|row| row.tag.as_ref()).filter(|_| !untagged && last.is_empty()) {
                (snippet("A command that pulls an image", &super::frame::pull_command(&self.visit.host, &format!("{name}:{tag}"))))
            }
            @if late { (notice(html! { "There is so much in this repository that not all of it was looked at for this page." })) }
            @if untagged { p { a href=(here) { "Images with tags" } } }
            @if table.is_empty() {
                p { @if untagged { "No image is without a tag." } @else { "No tag is left on this page." } }
            } @else { (table.markup()) }
            (pager((!last.is_empty()).then_some(first.as_str()), next.as_deref()))
            @if rows.hidden > 0 {
                p.quiet { (count(rows.hidden, "tag is", "tags are")) " not shown: signatures and the like are listed with the image that they belong to." }
            }
            @if let Some(facts) = facts.as_ref().filter(|facts| !untagged && !facts.untagged.is_empty()) {
                p { a href={ (path::repository(&name)) "?untagged=1" } { (count(facts.untagged.len(), "image", "images")) " without a tag" } }
            }
        };
        Ok(Page { title: name.to_string(), main })
    }
}

/// A page of tags; `None` when there is no such repository.
fn tags(reader: &Reader<'_>, name: &Repository, last: &str) -> Result<Option<Rows>, airlock_oci::Error> {
    let Some(tags) = reader.storage.tags_after(name, last, MAX_LOOKED_AT + 1)? else { return Ok(None) };
    let more = tags.len() > MAX_LOOKED_AT;
    let mut page = Rows::default();
    let mut before: Option<&Tag> = None;
    for tag in tags.iter().take(MAX_LOOKED_AT) {
        if page.rows.len() >= ROWS || (reader.is_late() && !page.rows.is_empty()) {
            page.next = before.map(ToString::to_string);
            return Ok(Some(page));
        }
        before = Some(tag);
        let manifest = match reader.storage.manifest(name, &ManifestName::Tag(tag.clone())) {
            Ok(Some(manifest)) => manifest,
            // It went away in this moment.
            Ok(None) => continue,
            Err(e) if matches!(e.kind(), ErrorKind::Content | ErrorKind::Unsupported) => {
                page.rows.push(Row { tag: Some(tag.clone()), at: None, image: None });
                continue;
            }
            Err(e) => return Err(e),
        };
        if matches!(role(tag, &manifest), Role::Attachment { .. }) {
            page.hidden += 1;
            continue;
        }
        let attached = attached(reader, name, manifest.digest());
        let image = Some((manifest.digest().clone(), reader.recognise(name, &manifest), attached));
        page.rows.push(Row { tag: Some(tag.clone()), at: reader.storage.tagged_at(name, tag), image });
    }
    page.next = before.filter(|_| more).map(ToString::to_string);
    Ok(Some(page))
}

/// A page of images without tags.
fn of_digests(reader: &Reader<'_>, name: &Repository, all: &[Digest], last: &str) -> Rows {
    let last: Option<Digest> = last.parse().ok();
    let from = last.map_or(0, |last| all.partition_point(|digest| *digest <= last));
    let mut page = Rows::default();
    for (at, digest) in all.iter().enumerate().skip(from) {
        if page.rows.len() >= ROWS || (reader.is_late() && !page.rows.is_empty()) {
            page.next = at.checked_sub(1).and_then(|at| all.get(at)).map(ToString::to_string);
            break;
        }
        let Some(manifest) = reader.manifest(name, digest) else { continue };
        let attached = attached(reader, name, digest);
        let image = Some((digest.clone(), reader.recognise(name, &manifest), attached));
        page.rows.push(Row { tag: None, at: None, image });
    }
    page
}

/// How many signatures and the like belong to an image.
fn attached(reader: &Reader<'_>, name: &Repository, digest: &Digest) -> usize {
    if reader.is_late() {
        return 0;
    }
    let by_subject = reader.storage.referrers(name, digest).map_or(0, |found| found.len());
    let is_there = |tag: Tag| matches!(reader.storage.manifest(name, &ManifestName::Tag(tag)), Ok(Some(_)));
    by_subject + attached_tags(digest).filter(|(tag, _)| is_there(tag.clone())).count()
}

fn table(name: &Repository, rows: &[Row], untagged: bool) -> Table {
    let caption = if untagged { "Images without a tag, by digest" } else { "Tags by name" };
    let mut table = Table::new(
        caption,
        &[
            Column(if untagged { "Digest" } else { "Tag" }, Align::Text),
            Column("What it is", Align::Text),
            Column("Platforms", Align::Text),
            Column("Size", Align::Number),
            Column("Attached", Align::Number),
            Column("Set", Align::Text),
        ],
    );
    for row in rows {
        let link = html! {
            @match (&row.tag, &row.image) {
                (Some(tag), _) => { a href=(path::tag(name, tag)) title=(tag) { (shown(tag)) } }
                (None, Some((digest, ..))) => { a href=(path::image(name, digest)) { (short(digest)) } }
                (None, None) => {}
            }
        };
        let Some((_, image, attached)) = &row.image else {
            let damaged = html! { span.mark.bad { "Damaged" } " its copy here cannot be served; mirror it again" };
            table.row(vec![link, damaged, html! {}, html! {}, html! {}, moment(row.at)]);
            continue;
        };
        table.row(vec![
            link,
            what(&image.kind, image.absent),
            platforms(&image.platforms),
            html! { (size(image.bytes)) },
            html! { @if *attached > 0 { (number(*attached)) } @else { span.quiet { "–" } } },
            moment(row.at),
        ]);
    }
    table
}

/// What an image is, in a word and what is special about it.
pub(super) fn what(kind: &Kind, absent: usize) -> Markup {
    html! {
        span.kind { (kind.word()) }
        @if let Some(detail) = kind.detail() { " " (detail) }
        @if absent > 0 { span.quiet { " (" (count(absent, "platform", "platforms")) " not mirrored)" } }
    }
}

/// A tag as it is shown: one that only repeats a digest is cut.
pub(super) fn shown(tag: &Tag) -> String {
    let text = tag.as_str();
    let hex = |text: &str| text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
    match text.strip_prefix("sha256-").map_or(("", text), |rest| ("sha256-", rest)) {
        (prefix, rest) if hex(rest) => format!("{prefix}{}…", rest.get(..TAG_HEX).unwrap_or_default()),
        _ => text.to_owned(),
    }
}

/// The way back.
pub(super) fn trail(name: &Repository, image: Option<&str>) -> Markup {
    html! {
        nav.trail aria-label="You are here" {
            ol {
                li { a href="/repositories" { "Repositories" } }
                @match image {
                    None => { li aria-current="page" { (name) } }
                    Some(image) => {
                        li { a href=(path::repository(name)) { (name) } }
                        li aria-current="page" { (image) }
                    }
                }
            }
        }
    }
}
