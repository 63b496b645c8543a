//! Blobs: whole, in part, or away.

use airlock_oci::{Digest, Repository};
use hyper::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderValue, IF_RANGE, RANGE,
};
use hyper::{Method, Response, StatusCode};

use crate::access::Action;
use crate::backend::{Blob, Writer};
use crate::body::Body;
use crate::range::{self, Wanted};
use crate::refusal::{Code, Refusal};
use crate::sendfile::Frames;
use crate::service::{Answer, Asked, CONTENT_DIGEST, Registry, empty, is_unchanged, set};

/// What lies under a digest never changes.
const FOR_EVER: HeaderValue = HeaderValue::from_static("max-age=31536000, immutable");

fn unknown(digest: &Digest) -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, Code::BlobUnknown, "this repository does not have the blob")
        .detail(serde_json::json!({ "digest": digest }))
}

/// GET and HEAD.
pub(crate) async fn get(
    registry: &Registry,
    asked: &Asked<'_>,
    method: &Method,
    name: Repository,
    digest: Digest,
) -> Answer {
    // Whoever asks with HEAD and may push is told "it is there" and will not upload it: it must stay for the manifest.
    let claims =
        registry.writer.as_ref().filter(|_| method == Method::HEAD && asked.permit.may(Action::Push, Some(&name)));
    let blob = match claims {
        Some(writer) => writer.claim_blob(&name, &digest).await?,
        None => registry.storage.blob(&name, &digest).await?,
    };
    let Some(blob) = blob else {
        return Err(match registry.storage.elsewhere(&name, &digest) {
            None => unknown(&digest),
            Some(place) => {
                let text = format!("this blob lies in {place}");
                let detail = serde_json::json!({ "digest": digest, "archive": place });
                Refusal::new(StatusCode::NOT_FOUND, Code::BlobUnknown, text).detail(detail)
            }
        });
    };
    let len = blob.len();
    let etag = format!("\"{digest}\"");
    let unchanged = is_unchanged(asked, &etag);
    // A range goes with the version that the client has a part of; there is only one.
    let same = asked.header(&IF_RANGE).is_none_or(|version| version.trim() == etag);
    let range = if same { range::wanted(asked.header(&RANGE), len) } else { Wanted::Whole };
    let (status, first, end) = match range {
        _ if unchanged => (StatusCode::NOT_MODIFIED, 0, 0),
        Wanted::Whole => (StatusCode::OK, 0, len),
        Wanted::Part(first, end) => (StatusCode::PARTIAL_CONTENT, first, end),
        Wanted::Unsatisfiable => {
            let text = format!("the blob has {len} bytes; none of them is in this range");
            return Err(Refusal::new(StatusCode::RANGE_NOT_SATISFIABLE, Code::RangeInvalid, text)
                .header(CONTENT_RANGE, format!("bytes */{len}")));
        }
    };
    let body = if unchanged || first == end || method == Method::HEAD {
        Body::Empty
    } else {
        let (what, left) = (format!("send blob `{digest}`"), end - first);
        match (&asked.queue, blob) {
            (Some(queue), Blob::File(region)) => {
                Body::File { frames: Frames::new(queue.clone(), region, first, end, what), left }
            }
            (_, blob) => Body::Blob { stream: blob.stream(first, end, what), left },
        }
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, FOR_EVER);
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if !unchanged {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        headers.insert(CONTENT_LENGTH, HeaderValue::from(end - first));
    }
    set(&mut response, ETAG, etag);
    set(&mut response, CONTENT_DIGEST, digest.to_string());
    if status == StatusCode::PARTIAL_CONTENT {
        set(&mut response, CONTENT_RANGE, format!("bytes {first}-{}/{len}", end - 1));
    }
    Ok(response)
}

/// DELETE: the repository does not have it any more; its bytes stay until garbage is collected.
pub(crate) async fn delete(writer: &Writer, name: Repository, digest: Digest) -> Answer {
    if writer.delete_blob(name, &digest).await? { Ok(empty(StatusCode::ACCEPTED)) } else { Err(unknown(&digest)) }
}
