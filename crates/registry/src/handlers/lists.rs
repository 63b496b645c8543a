//! Lists: tags, the catalog, referrers; in pages.

use airlock_oci::{Descriptor, Digest, Repository, media_type};
use hyper::header::{HeaderName, LINK};
use hyper::{Response, StatusCode};
use serde::Serialize;

use crate::body::Body;
use crate::limits::{CATALOG_PAGE, MAX_PAGE, REFERRERS_PAGE_BYTES};
use crate::refusal::{Code, Refusal};
use crate::service::{Answer, Asked, Registry, blocking, document, set};

const FILTERS: HeaderName = HeaderName::from_static("oci-filters-applied");

#[derive(Serialize)]
struct TagList<'a> {
    name: &'a Repository,
    tags: &'a [&'a str],
}

#[derive(Serialize)]
struct Catalog<'a> {
    repositories: &'a [&'a str],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ReferrersIndex<'a> {
    schema_version: u8,
    media_type: &'static str,
    manifests: &'a [Descriptor],
}

/// The part of a sorted list that a client asked for, and what to ask for next.
fn page<'a>(names: &[&'a str], asked: &Asked<'_>, usual: usize) -> Result<(Vec<&'a str>, Option<String>), Refusal> {
    let number = match asked.query.get("n") {
        None => usual,
        Some(text) => text.parse::<usize>().ok().filter(|n| *n <= MAX_PAGE).ok_or_else(|| {
            let text = format!("`n` must be a number up to {MAX_PAGE}");
            Refusal::new(StatusCode::BAD_REQUEST, Code::PaginationNumberInvalid, text)
        })?,
    };
    let last = asked.query.get("last").unwrap_or_default();
    // `last` need not exist any more.
    let first = names.partition_point(|name| *name <= last);
    let end = first.saturating_add(number).min(names.len());
    let shown = names[first..end].to_vec();
    let next = match shown.last() {
        Some(last) if end < names.len() => Some(format!("n={number}&last={last}")),
        _ => None,
    };
    Ok((shown, next))
}

fn link(response: &mut Response<Body>, path: &str, next: Option<String>) {
    if let Some(query) = next {
        set(response, LINK, format!("<{path}?{query}>; rel=\"next\""));
    }
}

/// `tags/list`
pub(crate) async fn tags(registry: &Registry, asked: &Asked<'_>, name: Repository) -> Answer {
    let (storage, repository) = (registry.storage.clone(), name.clone());
    let Some(tags) = blocking(move || storage.tags(&repository)).await? else {
        return Err(Refusal::new(StatusCode::NOT_FOUND, Code::NameUnknown, "there is no such repository")
            .detail(serde_json::json!({ "name": name })));
    };
    let names: Vec<&str> = tags.iter().map(|tag| tag.as_str()).collect();
    let (shown, next) = page(&names, asked, usize::MAX)?;
    let mut response = document("application/json", &TagList { name: &name, tags: &shown })?;
    link(&mut response, &format!("/v2/{name}/tags/list"), next);
    Ok(response)
}

/// `_catalog`
pub(crate) async fn catalog(registry: &Registry, asked: &Asked<'_>) -> Answer {
    let storage = registry.storage.clone();
    let repositories = blocking(move || storage.repositories()).await?;
    let names: Vec<&str> = repositories.iter().map(|name| name.as_str()).collect();
    let (shown, next) = page(&names, asked, CATALOG_PAGE)?;
    let mut response = document("application/json", &Catalog { repositories: &shown })?;
    link(&mut response, "/v2/_catalog", next);
    Ok(response)
}

/// `referrers`: always a list, if an empty one.
pub(crate) async fn referrers(registry: &Registry, asked: &Asked<'_>, name: Repository, subject: Digest) -> Answer {
    let (storage, repository, wanted) = (registry.storage.clone(), name.clone(), subject.clone());
    let mut found = blocking(move || storage.referrers(&repository, &wanted)).await?;
    let kind = asked.query.get("artifactType").filter(|kind| !kind.is_empty());
    if let Some(kind) = kind {
        found.retain(|descriptor| descriptor.artifact_type.as_deref() == Some(kind));
    }
    if let Some(last) = asked.query.get("last") {
        found.retain(|descriptor| descriptor.digest.to_string().as_str() > last);
    }
    let (mut bytes, mut shown) = (0, 0);
    for descriptor in &found {
        bytes += serde_json::to_vec(descriptor).map_or(0, |text| text.len() + 1);
        if bytes > REFERRERS_PAGE_BYTES && shown > 0 {
            break;
        }
        shown += 1;
    }
    let index = ReferrersIndex { schema_version: 2, media_type: media_type::OCI_INDEX, manifests: &found[..shown] };
    let mut response = document(media_type::OCI_INDEX, &index)?;
    if kind.is_some() {
        set(&mut response, FILTERS, "artifactType");
    }
    if shown < found.len() {
        let filter = kind.map(|kind| format!("artifactType={}&", encode(kind))).unwrap_or_default();
        let next = format!("{filter}last={}", found[shown - 1].digest);
        link(&mut response, &format!("/v2/{name}/referrers/{subject}"), Some(next));
    }
    Ok(response)
}

/// Percent-encodes what would end a value in a query or a `Link` header.
fn encode(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'/' | b':');
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}
