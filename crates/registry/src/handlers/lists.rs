//! Lists: tags, the catalog, referrers; in pages.

use airlock_oci::{Descriptor, Digest, Repository, Tag, media_type};
use hyper::header::{HeaderName, LINK};
use hyper::{Response, StatusCode};
use serde::Serialize;

use crate::body::Body;
use crate::limits::{CATALOG_PAGE, MAX_PAGE, REFERRERS_PAGE_BYTES};
use crate::refusal::{Code, Refusal};
use crate::service::{Answer, Asked, Registry, document, set};

const FILTERS: HeaderName = HeaderName::from_static("oci-filters-applied");

#[derive(Serialize)]
struct TagList<'a> {
    name: &'a Repository,
    tags: &'a [Tag],
}

#[derive(Serialize)]
struct Catalog<'a> {
    repositories: &'a [Repository],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ReferrersIndex<'a> {
    schema_version: u8,
    media_type: &'static str,
    manifests: &'a [Descriptor],
}

/// How many names a client asked for.
fn number(asked: &Asked<'_>) -> Result<Option<usize>, Refusal> {
    let Some(text) = asked.query.get("n") else { return Ok(None) };
    match text.parse::<usize>().ok().filter(|n| *n <= MAX_PAGE) {
        Some(number) => Ok(Some(number)),
        None => {
            let text = format!("`n` must be a number up to {MAX_PAGE}");
            Err(Refusal::new(StatusCode::BAD_REQUEST, Code::PaginationNumberInvalid, text))
        }
    }
}

/// Cuts a list that has one name more than were asked for, if there are more; what to ask for next.
fn cut<T: std::fmt::Display>(names: &mut Vec<T>, number: usize) -> Option<String> {
    let more = names.len() > number;
    names.truncate(number);
    // `last` need not exist any more when it is asked for.
    names.last().filter(|_| more).map(|last| format!("n={number}&last={last}"))
}

fn link(response: &mut Response<Body>, path: &str, next: Option<String>) {
    if let Some(query) = next {
        set(response, LINK, format!("<{path}?{query}>; rel=\"next\""));
    }
}

/// `tags/list`
pub(crate) async fn tags(registry: &Registry, asked: &Asked<'_>, name: Repository) -> Answer {
    let number = number(asked);
    let most = number.as_ref().ok().copied().flatten().unwrap_or(usize::MAX);
    let after = asked.query.get("last").unwrap_or_default().to_owned();
    let found = registry.storage.tags_after(&name, &after, most.saturating_add(1)).await?;
    let Some(mut tags) = found else {
        return Err(Refusal::new(StatusCode::NOT_FOUND, Code::NameUnknown, "there is no such repository")
            .detail(serde_json::json!({ "name": name })));
    };
    number?;
    let next = cut(&mut tags, most);
    let mut response = document("application/json", &TagList { name: &name, tags: &tags })?;
    link(&mut response, &format!("/v2/{name}/tags/list"), next);
    Ok(response)
}

/// `_catalog`
pub(crate) async fn catalog(registry: &Registry, asked: &Asked<'_>) -> Answer {
    let number = number(asked)?.unwrap_or(CATALOG_PAGE);
    let last = asked.query.get("last").unwrap_or_default().to_owned();
    let (storage, permit) = (&registry.storage, &asked.permit);
    let mut after = match Repository::new(&last) {
        Ok(last) => Some(last),
        Err(_) if last.is_empty() => None,
        // No name of ours: the last one that sorts before it.
        Err(_) => storage.repositories().await?.into_iter().rfind(|name| name.as_str() <= last.as_str()),
    };
    let mut repositories = Vec::new();
    loop {
        let page = storage.repositories_after(after.as_ref(), number + 1).await?;
        let is_last = page.len() <= number;
        after = page.last().cloned();
        repositories.extend(page.into_iter().filter(|name| permit.may_see(name)));
        if is_last || repositories.len() > number {
            repositories.truncate(number + 1);
            break;
        }
    }
    let next = cut(&mut repositories, number);
    let mut response = document("application/json", &Catalog { repositories: &repositories })?;
    link(&mut response, "/v2/_catalog", next);
    Ok(response)
}

/// `referrers`: always a list, if an empty one.
pub(crate) async fn referrers(registry: &Registry, asked: &Asked<'_>, name: Repository, subject: Digest) -> Answer {
    let mut found = registry.storage.referrers(&name, &subject).await?;
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
