//! What refers to a manifest: by the referrers API where the host has one (one probe tells), else by the fallback tag.

use airlock_oci::{Descriptor, Digest, ErrorKind, MAX_MANIFEST_BYTES, Manifest, Shape, media_type};
use http::Method;
use http::header::{ACCEPT, HeaderValue};

use crate::client::Target;
use crate::failure::Failure;
use crate::host::Finding;
use crate::listing::next_page;
use crate::source::Spot;

/// Most pages of one list of referrers.
const MAX_PAGES: usize = 1000;

/// The descriptors, in the order that the registry gives.
pub(crate) async fn list(spot: &Spot, subject: &Digest) -> Result<Vec<Descriptor>, Failure> {
    if spot.host.found(Finding::Referrers) != Some(false)
        && let Some(list) = by_api(spot, subject).await?
    {
        return Ok(list);
    }
    by_tag(spot, subject).await
}

/// Asks the API. `None`: the host does not have it.
pub(crate) async fn by_api(spot: &Spot, subject: &Digest) -> Result<Option<Vec<Descriptor>>, Failure> {
    let mut call = spot.call(Method::GET, &format!("referrers/{subject}"), "pull");
    call.headers.insert(ACCEPT, HeaderValue::from_static(media_type::OCI_INDEX));
    let mut list = Vec::new();
    for _ in 0..MAX_PAGES {
        let mut answer = match spot.client.send(&spot.host, &call).await {
            Ok(answer) => answer,
            // The repository does not exist; that says nothing about the API.
            Err(failure) if failure.has_code("NAME_UNKNOWN") => return Ok(Some(Vec::new())),
            // Who may read the manifest may read this too; some answer so for any path that they do not know.
            Err(failure) if matches!(failure.kind, ErrorKind::Unauthorized | ErrorKind::Denied) => return Ok(None),
            Err(failure)
                if matches!(failure.kind, ErrorKind::NotFound | ErrorKind::Refused)
                    || (failure.kind == ErrorKind::Server && !failure.transient) =>
            {
                spot.host.note(Finding::Referrers, false);
                return Ok(None);
            }
            Err(failure) => return Err(failure),
        };
        let next = next_page(&answer, &spot.host)?;
        let body = answer.read_all(MAX_MANIFEST_BYTES).await?;
        let Some(index) = Manifest::parse(body, None).ok().filter(|m| m.shape() == Shape::Index) else {
            // A page of some web server.
            spot.host.note(Finding::Referrers, false);
            return Ok(None);
        };
        spot.host.note(Finding::Referrers, true);
        list.extend_from_slice(index.children());
        match next {
            Some(url) => call.to = Target::Url(url),
            None => return Ok(Some(list)),
        }
    }
    Err(Failure::new(ErrorKind::Server, format!("the list of referrers has more than {MAX_PAGES} pages")))
}

/// Reads the index at the fallback tag.
pub(crate) async fn by_tag(spot: &Spot, subject: &Digest) -> Result<Vec<Descriptor>, Failure> {
    match spot.manifest(&subject.fallback_tag(), None).await {
        // The image itself, stored under this tag because it is known by digest only: its platforms refer to nothing.
        Ok(index) if index.digest() == subject => Ok(Vec::new()),
        Ok(index) => Ok(index.children().to_vec()),
        Err(failure) if failure.kind == ErrorKind::NotFound => Ok(Vec::new()),
        Err(failure) => Err(failure),
    }
}
