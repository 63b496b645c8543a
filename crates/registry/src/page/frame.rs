//! What all pages have in common: the frame around the content, tables, and the headers that keep a browser from doing anything else.

use std::sync::LazyLock;
use std::time::SystemTime;

use airlock_oci::Digest;
use bytes::Bytes;
use hyper::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue, REFERRER_POLICY, X_FRAME_OPTIONS,
};
use hyper::{Response, StatusCode};
use maud::{DOCTYPE, Markup, html};

use super::path;
use super::words::clip;
use crate::body::Body;

/// The style sheet.
const STYLE: &str = include_str!("style.css");
/// The icon: a tray between two doors.
const ICON: &str = concat!(
    r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><rect width="32" height="32" rx="7" fill="#0b4f8a"/>"##,
    r##"<path d="M7 7v18M25 7v18" stroke="#fff" stroke-width="3" stroke-linecap="round"/>"##,
    r##"<path d="M16 7v11m-5-4 5 5 5-5M12 25h8" fill="none" stroke="#fff" stroke-width="2.6" stroke-linecap="round" "##,
    r##"stroke-linejoin="round"/></svg>"##
);
/// Nothing is loaded but our own style sheet and icon, nothing is run, nothing is sent elsewhere, nobody frames the page.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
);
const OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");
/// Characters of a title.
const MAX_TITLE_CHARS: usize = 200;

/// The addresses of both, which change with the content, so that browsers may keep them.
static STYLE_HREF: LazyLock<String> = LazyLock::new(|| versioned(path::STYLE, STYLE));
static ICON_HREF: LazyLock<String> = LazyLock::new(|| versioned(path::ICON, ICON));

/// The links at the top.
const LINKS: [(&str, &str); 6] = [
    ("/", "Overview"),
    ("/releases", "Releases"),
    ("/catalogs", "Operators"),
    ("/charts", "Charts"),
    ("/repositories", "Repositories"),
    ("/clusters", "Connect a cluster"),
];

/// Who looks, and where.
#[derive(Clone, Debug)]
pub(super) struct Visit {
    /// The name of the registry, as the visitor's browser calls it.
    pub(super) host: String,
    /// The visitor's name; `None` without a password.
    pub(super) user: Option<String>,
    /// Whether a password could be given.
    pub(super) can_log_in: bool,
    /// Which of the links at the top this page belongs to.
    pub(super) section: &'static str,
    /// What is searched for.
    pub(super) question: String,
    pub(super) now: SystemTime,
}

/// A page that is not framed yet.
pub(super) struct Page {
    pub(super) title: String,
    pub(super) main: Markup,
}

/// A table that stays one for those who hear it, and becomes a list of cards on a narrow screen.
pub(super) struct Table {
    caption: String,
    columns: Vec<Column>,
    rows: Vec<Vec<Markup>>,
}

/// A column: its heading, and whether numbers stand in it.
#[derive(Clone, Copy)]
pub(super) struct Column(pub(super) &'static str, pub(super) Align);

/// How a column is set.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Align {
    Text,
    Number,
}

impl Table {
    /// The first column names what the row is about.
    pub(super) fn new(caption: impl Into<String>, columns: &[Column]) -> Self {
        Self { caption: caption.into(), columns: columns.to_vec(), rows: Vec::new() }
    }

    pub(super) fn row(&mut self, cells: Vec<Markup>) {
        self.rows.push(cells);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub(super) fn markup(&self) -> Markup {
        let class = |column: Option<&Column>| column.filter(|c| c.1 == Align::Number).map(|_| "number");
        // The roles are said because the narrow form changes `display`, which takes them away in some browsers.
        html! {
            table role="table" {
                caption { (self.caption) }
                thead role="rowgroup" {
                    tr role="row" {
                        @for column in &self.columns {
                            th role="columnheader" scope="col" class=[class(Some(column))] { (column.0) }
                        }
                    }
                }
                tbody role="rowgroup" {
                    @for row in &self.rows {
                        tr role="row" {
                            @for (at, cell) in row.iter().enumerate() {
                                @if at == 0 {
                                    th role="rowheader" scope="row" { (cell) }
                                } @else {
                                    td role="cell" data-label=[self.columns.get(at).map(|c| c.0)]
                                        class=[class(self.columns.get(at))] { div { (cell) } }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// A link to the rest of a list.
pub(super) fn pager(first: Option<&str>, next: Option<&str>) -> Markup {
    html! {
        @if first.is_some() || next.is_some() {
            nav.pager aria-label="Pages" {
                @if let Some(first) = first { a href=(first) { "First page" } }
                @if let Some(next) = next { a href=(next) rel="next" { "Next page" } }
            }
        }
    }
}

/// Something that the visitor should know about the page.
pub(super) fn notice(text: Markup) -> Markup {
    html! { p.notice { (text) } }
}

/// A text to be taken over elsewhere.
pub(super) fn snippet(label: &str, text: &str) -> Markup {
    // It scrolls, so that the keyboard must reach it.
    html! { pre tabindex="0" role="region" aria-label=(label) { code { (text) } } }
}

/// A command that fetches an image.
pub(super) fn pull_command(host: &str, name: &str) -> String {
    format!("podman pull {host}/{name}")
}

/// Frames a page.
pub(super) fn respond(status: StatusCode, visit: &Visit, page: Page) -> Response<Body> {
    let title = clip(&page.title, MAX_TITLE_CHARS);
    let document = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · " (visit.host) }
                link rel="icon" type="image/svg+xml" href=(*ICON_HREF);
                link rel="stylesheet" href=(*STYLE_HREF);
            }
            body {
                a.skip href="#content" { "Skip to the content" }
                header {
                    div.bar {
                        a.brand href="/" {
                            img src=(*ICON_HREF) alt="" width="28" height="28";
                            span { strong { "Airlock registry" } span.host { (visit.host) } }
                        }
                        form role="search" action="/search" method="get" {
                            label for="q" { "Search" }
                            input id="q" type="search" name="q" value=(visit.question) maxlength="256"
                                placeholder="Image, tag, operator, version, digest" autocomplete="off";
                            button type="submit" { "Search" }
                        }
                        p.who {
                            @match &visit.user {
                                Some(user) => { span.quiet { "Signed in as " } b { (clip(user, 64)) } }
                                None if visit.can_log_in => { a href="/login" { "Sign in" } }
                                None => { span.quiet { "Open without sign-in" } }
                            }
                        }
                    }
                    nav aria-label="Sections" {
                        ul {
                            @for (href, name) in LINKS {
                                li { a href=(href) aria-current=[(href == visit.section).then_some("page")] { (name) } }
                            }
                        }
                    }
                }
                main id="content" tabindex="-1" { (page.main) }
                footer {
                    p { "Airlock " (env!("CARGO_PKG_VERSION")) " · times are UTC · sizes are of compressed content" }
                }
            }
        }
    };
    let mut response = Response::new(Body::Full(Bytes::from(document.into_string())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    // It says what this visitor may see, at this moment.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
    guard(&mut response);
    response
}

fn versioned(path: &str, content: &str) -> String {
    format!("{path}?v={}", Digest::of(content.as_bytes()).hex().get(..16).unwrap_or_default())
}

/// The style sheet, or the icon.
pub(super) fn file(style: bool) -> Response<Body> {
    let (text, media_type) = if style { (STYLE, "text/css; charset=utf-8") } else { (ICON, "image/svg+xml") };
    let mut response = Response::new(Body::Full(Bytes::from_static(text.as_bytes())));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=31536000, immutable"));
    guard(&mut response);
    response
}

/// The headers that every answer of the page has.
pub(super) fn guard(response: &mut Response<Body>) {
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, POLICY);
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(OPENER_POLICY, HeaderValue::from_static("same-origin"));
    headers.insert(RESOURCE_POLICY, HeaderValue::from_static("same-origin"));
}
