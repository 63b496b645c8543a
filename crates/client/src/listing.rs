//! Lists that come in pages: tags of a repository, repositories of a registry.

use std::collections::BTreeSet;

use airlock_oci::{Error, ErrorKind, Registry, Repository, Tag};
use http::Method;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use url::Url;

use crate::answer::Answer;
use crate::auth::Scope;
use crate::client::{Call, Client, Target};
use crate::failure::Failure;
use crate::host::Host;
use crate::source::Spot;
use crate::{Notice, host};

/// Entries asked for in one page.
const PAGE_ENTRIES: usize = 1000;
/// The largest page that is read (bytes): registries that ignore paging send everything in one.
const MAX_PAGE_BYTES: usize = 64 * 1024 * 1024;
/// Most pages of one list.
const MAX_PAGES: usize = 100_000;

#[derive(Deserialize)]
struct TagPage {
    #[serde(default)]
    tags: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct CatalogPage {
    #[serde(default)]
    repositories: Option<Vec<String>>,
}

/// All tags of a repository, sorted.
pub(crate) async fn tags(spot: &Spot) -> Result<Vec<Tag>, Failure> {
    let call = spot.call(Method::GET, &format!("tags/list?n={PAGE_ENTRIES}"), "pull");
    let names = pages(&spot.client, &spot.host, call, |page: TagPage| page.tags.unwrap_or_default()).await?;
    Ok(known(&spot.client, &spot.host, names, Tag::new))
}

impl Client {
    /// All repositories of a registry that it shows to this user, sorted. Many public registries show none.
    pub async fn catalog(&self, registry: &Registry) -> Result<Vec<Repository>, Error> {
        let what = format!("list repositories of `{registry}`");
        let host = self.host(registry.as_str(), self.endpoints().insecure_for_push(registry, None)?)?;
        self.introduce(&host).await.map_err(|failure| failure.into_error(what.clone()))?;
        let path = format!("/v2/_catalog?n={PAGE_ENTRIES}");
        let mut call = Call::new(Method::GET, Target::Path(path), Scope::catalog());
        call.what = Some(format!("GET {registry} _catalog"));
        let names = pages(self, &host, call, |page: CatalogPage| page.repositories.unwrap_or_default())
            .await
            .map_err(|failure| failure.into_error(what))?;
        Ok(known(self, &host, names, Repository::new))
    }

    /// Says who we are, where a credential is known for the host: a registry may show everybody a part of its list without asking, and then
    /// neither the rest is seen nor that the password is wrong. The ping is what every registry challenges.
    async fn introduce(&self, host: &std::sync::Arc<Host>) -> Result<(), Failure> {
        let known = self.credentials().find(&host.name, "").await?;
        if known.credential.is_none() || host.auth().is_some() {
            return Ok(());
        }
        let mut call = Call::new(Method::GET, Target::Path("/v2/".into()), Scope::none());
        call.what = Some(format!("GET {} /v2/", host.name));
        match self.send(host, &call).await {
            // Whoever has a list and no base is odd; the list will tell.
            Err(failure) if failure.kind != ErrorKind::NotFound => Err(failure),
            _ => Ok(()),
        }
    }
}

/// The names that are legal; others are told and left out.
fn known<T: Ord, E>(
    client: &Client,
    host: &Host,
    names: BTreeSet<String>,
    parse: impl Fn(&str) -> Result<T, E>,
) -> Vec<T> {
    let mut list = Vec::with_capacity(names.len());
    for name in names {
        match parse(&name) {
            Ok(value) => list.push(value),
            Err(_) => client.notify(|| Notice::Warning {
                host: host.name.clone(),
                text: format!("the registry lists `{}`, which is no legal name", name.escape_debug()),
            }),
        }
    }
    list
}

async fn pages<P: DeserializeOwned>(
    client: &Client,
    host: &std::sync::Arc<Host>,
    mut call: Call,
    entries: impl Fn(P) -> Vec<String>,
) -> Result<BTreeSet<String>, Failure> {
    let mut all = BTreeSet::new();
    for _ in 0..MAX_PAGES {
        let mut answer = client.send(host, &call).await?;
        let next = next_page(&answer, host)?;
        let body = answer.read_all(MAX_PAGE_BYTES).await?;
        let page: P = serde_json::from_slice(&body)
            .map_err(|e| Failure::new(ErrorKind::Server, format!("the registry's list is not readable: {e}")))?;
        let before = all.len();
        all.extend(entries(page));
        match next {
            // A page that brings nothing new would come again for ever.
            Some(url) if all.len() > before => call.to = Target::Url(url),
            _ => return Ok(all),
        }
    }
    Err(Failure::new(ErrorKind::Server, format!("the registry's list has more than {MAX_PAGES} pages")))
}

/// The address of the next page, from `Link: <…>; rel="next"`.
pub(crate) fn next_page(answer: &Answer, host: &Host) -> Result<Option<Url>, Failure> {
    for value in answer.headers().get_all("link") {
        let Some(text) = value.to_str().ok().and_then(next_link) else { continue };
        let url = host::resolve_location(host, answer.url(), text)
            .ok_or_else(|| Failure::new(ErrorKind::Server, "the registry's next page has no usable address"))?;
        return Ok(Some(url));
    }
    Ok(None)
}

fn next_link(header: &str) -> Option<&str> {
    header.split(',').find_map(|link| {
        let (target, params) = link.trim().strip_prefix('<')?.split_once('>')?;
        let next = params.split(';').any(|p| {
            let p = p.trim().to_ascii_lowercase();
            p.strip_prefix("rel=").is_some_and(|v| v.trim_matches('"') == "next")
        });
        next.then_some(target)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_found_among_links() {
        assert_eq!(next_link(r#"</v2/a/tags/list?n=2&last=b>; rel="next""#), Some("/v2/a/tags/list?n=2&last=b"));
        assert_eq!(next_link(r#"</x>; rel="prev", </y>; REL=next"#), Some("/y"));
        assert_eq!(next_link("nonsense"), None);
    }
}
