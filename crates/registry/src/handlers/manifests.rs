//! Manifests: exactly the bytes that were pushed.

use airlock_oci::sink::ManifestName;
use airlock_oci::{
    Descriptor, Digest, Error, ErrorKind, MAX_MANIFEST_BYTES, Manifest, Repository, Shape, Tag, media_type,
};
use airlock_store::distribution::Expected;
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, TryStreamExt};
use hyper::header::{CONTENT_TYPE, ETAG, HeaderName, IF_MATCH, IF_NONE_MATCH, LOCATION};
use hyper::{Method, Response, StatusCode};

use crate::access::Action;
use crate::backend::Writer;
use crate::body::{self, Body};
use crate::limits::{CHECKED_AT_ONCE, MAX_DESCRIPTORS, MAX_JSON_DEPTH, MAX_TAGS_PER_PUSH};
use crate::refusal::{Code, Refusal};
use crate::service::{Answer, Asked, CONTENT_DIGEST, Registry, empty, etags, is_unchanged, set};

const SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
const TAG: HeaderName = HeaderName::from_static("oci-tag");

fn unknown(at: &ManifestName) -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, Code::ManifestUnknown, "this repository does not have the manifest")
        .detail(serde_json::json!({ "name": at.to_string() }))
}

/// GET and HEAD. The stored type is sent whatever the client says it accepts: nothing is ever converted, and clients that
/// leave a type out of `Accept` mostly do so by mistake.
pub(crate) async fn get(
    registry: &Registry,
    asked: &Asked<'_>,
    method: &Method,
    name: Repository,
    at: ManifestName,
) -> Answer {
    // Whoever asks with HEAD and may push is told "it is there" and will not push it: it must not go with the import that brought it.
    let claims =
        registry.writer.clone().filter(|_| method == Method::HEAD && asked.permit.may(Action::Push, Some(&name)));
    let known = match &claims {
        Some(writer) => writer.claim_manifest_at_once(&name, &at),
        None => registry.storage.manifest_at_once(&name, &at),
    };
    if let Some(manifest) = known {
        return Ok(found(asked, manifest));
    }
    let read = match &claims {
        Some(writer) => writer.claim_manifest(&name, &at).await,
        None => registry.storage.manifest(&name, &at).await,
    };
    match read {
        Ok(Some(manifest)) => Ok(found(asked, manifest)),
        Ok(None) => Err(unknown(&at)),
        Err(e) if !matches!(e.kind(), ErrorKind::Content | ErrorKind::Unsupported) => Err(e.into()),
        Err(e) => {
            tracing::error!(cause = %e, "a stored manifest cannot be served");
            let text = if e.kind() == ErrorKind::Content {
                "the stored copy of this manifest is damaged; pushing or mirroring the image again heals it"
            } else {
                "the stored manifest is of a kind that cannot be served, such as Docker schema 1"
            };
            Err(Refusal::new(StatusCode::NOT_FOUND, Code::ManifestUnknown, text))
        }
    }
}

/// The answer to GET for a manifest that is there.
fn found(asked: &Asked<'_>, manifest: Manifest) -> Response<Body> {
    let etag = format!("\"{}\"", manifest.digest());
    let mut response = if is_unchanged(asked, &etag) {
        empty(StatusCode::NOT_MODIFIED)
    } else {
        let mut response = Response::new(Body::Full(manifest.bytes().clone()));
        set(&mut response, CONTENT_TYPE, manifest.media_type());
        response
    };
    set(&mut response, ETAG, etag);
    set(&mut response, CONTENT_DIGEST, manifest.digest().to_string());
    response
}

/// PUT.
pub(crate) async fn put(
    registry: &Registry,
    writer: &Writer,
    mut asked: Asked<'_>,
    name: Repository,
    at: ManifestName,
) -> Answer {
    let too_large = || {
        let text = format!("a manifest may have at most {MAX_MANIFEST_BYTES} bytes");
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, Code::SizeInvalid, text)
    };
    if asked.length().is_some_and(|length| length > MAX_MANIFEST_BYTES as u64) {
        return Err(too_large());
    }
    let tags = tags(&asked, &at)?;
    let expected = expected(&asked);
    let declared = asked.header(&CONTENT_TYPE).map(str::to_owned);
    let bytes = body::collect(asked.take_body()?, MAX_MANIFEST_BYTES).await?.ok_or_else(too_large)?;
    let manifest = parse(bytes, declared.as_deref(), &at)?;
    check_references(registry, writer, &name, &manifest).await?;
    if !writer.put_manifest_if(&name, &manifest, &tags, &expected).await? {
        let text = "the tag does not point at what the request expects";
        return Err(Refusal::new(StatusCode::PRECONDITION_FAILED, Code::TagInvalid, text));
    }
    let mut response = empty(StatusCode::CREATED);
    set(&mut response, LOCATION, format!("/v2/{name}/manifests/{}", manifest.digest()));
    set(&mut response, CONTENT_DIGEST, manifest.digest().to_string());
    if let Some(subject) = manifest.subject() {
        // Tells the client that the referrer was noted, so that it need not write a fallback tag.
        set(&mut response, SUBJECT, subject.digest.to_string());
    }
    if matches!(at, ManifestName::Digest(_)) {
        for tag in &tags {
            set(&mut response, TAG, tag.as_str());
        }
    }
    Ok(response)
}

/// What the request wants to hold of the tags that it sets: clients that maintain a tag together must not undo each other's work.
fn expected(asked: &Asked<'_>) -> Expected {
    if etags(asked, &IF_NONE_MATCH).any(|known| known == "*") {
        return Expected::Absent;
    }
    if !asked.headers.contains_key(IF_MATCH) {
        return Expected::Anything;
    }
    if etags(asked, &IF_MATCH).any(|known| known == "*") {
        return Expected::Present;
    }
    Expected::OneOf(etags(asked, &IF_MATCH).filter_map(|known| known.trim_matches('"').parse().ok()).collect())
}

/// The tags that a push sets: the one in the path, or those in the query of a push by digest.
fn tags(asked: &Asked<'_>, at: &ManifestName) -> Result<Vec<Tag>, Refusal> {
    if let ManifestName::Tag(tag) = at {
        return Ok(vec![tag.clone()]);
    }
    let mut tags = Vec::new();
    for text in asked.query.all("tag") {
        let tag = Tag::new(text)
            .map_err(|_| Refusal::new(StatusCode::BAD_REQUEST, Code::TagInvalid, "invalid tag").detail(text.into()))?;
        if !tags.contains(&tag) {
            tags.push(tag);
        }
    }
    if tags.len() > MAX_TAGS_PER_PUSH {
        let text = format!("a manifest may be pushed with at most {MAX_TAGS_PER_PUSH} tags");
        return Err(Refusal::new(StatusCode::URI_TOO_LONG, Code::TagInvalid, text));
    }
    Ok(tags)
}

fn parse(bytes: Bytes, declared: Option<&str>, at: &ManifestName) -> Result<Manifest, Refusal> {
    let invalid = |text: String| Refusal::new(StatusCode::BAD_REQUEST, Code::ManifestInvalid, text);
    let declared = declared.map(|d| d.split(';').next().unwrap_or(d).trim()).filter(|d| !d.is_empty());
    if json_depth(&bytes) > MAX_JSON_DEPTH {
        return Err(invalid(format!("its JSON is nested more than {MAX_JSON_DEPTH} deep")));
    }
    let parsed = match at {
        ManifestName::Tag(_) => Manifest::parse(bytes, declared),
        ManifestName::Digest(expected) => {
            let found = Digest::of_with(expected.algorithm(), &bytes);
            if found != *expected {
                let text = format!("the manifest has the digest {found}");
                return Err(Refusal::new(StatusCode::BAD_REQUEST, Code::DigestInvalid, text));
            }
            Manifest::parse_expecting(bytes, declared, expected)
        }
    };
    let manifest = parsed.map_err(|e: Error| {
        let hint = e.hint_text().map(|hint| format!("; {hint}")).unwrap_or_default();
        invalid(format!("{}{hint}", e.cause()))
    })?;
    if manifest.blobs().count() + manifest.children().len() > MAX_DESCRIPTORS {
        return Err(invalid(format!("it holds more than {MAX_DESCRIPTORS} descriptors")));
    }
    let own = manifest.media_type();
    if let Some(declared) = declared
        && declared != own
    {
        return Err(invalid(format!("it was sent as `{declared}` and is `{own}`")));
    }
    if media_type::is_manifest(own) && media_type::is_index(own) != (manifest.shape() == Shape::Index) {
        return Err(invalid(format!("its content is not that of `{own}`")));
    }
    Ok(manifest)
}

/// How deep objects and arrays are nested. Text that is not JSON gives some number; parsing it fails anyway.
fn json_depth(bytes: &[u8]) -> usize {
    let (mut depth, mut most, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                most = most.max(depth);
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    most
}

/// Whether what the manifest names is there: its blobs, except those that lie elsewhere by their nature and where sparse images are
/// wanted; its children only where sparse indexes are not wanted; never its subject.
async fn check_references(
    registry: &Registry,
    writer: &Writer,
    repository: &Repository,
    manifest: &Manifest,
) -> Result<(), Refusal> {
    let (mut missing, mut different) = (Vec::new(), Vec::new());
    let blobs: Vec<Descriptor> = manifest.blobs().filter(|blob| !blob.is_foreign()).cloned().collect();
    let mut found = futures_util::stream::iter(blobs)
        .map(|blob| {
            let claimed = async move {
                let there = writer.claim_blob(repository, &blob.digest).await?;
                Ok::<_, Error>((blob, there))
            };
            claimed.boxed()
        })
        .buffered(CHECKED_AT_ONCE);
    while let Some((blob, there)) = found.try_next().await? {
        match there {
            None if registry.sparse_images || missing.contains(&blob.digest) => {}
            None => missing.push(blob.digest),
            // What was cut off must not keep the push from bringing it back.
            Some(there) if there.len() != blob.size => {
                if missing.contains(&blob.digest) || writer.heal_blob(&blob.digest).await? {
                    missing.push(blob.digest);
                } else {
                    different.push(serde_json::json!({
                        "digest": blob.digest, "size": blob.size, "actual": there.len()
                    }));
                }
            }
            Some(_) => {}
        }
    }
    if !registry.sparse_indexes {
        for child in manifest.children() {
            let at = ManifestName::Digest(child.digest.clone());
            match registry.storage.manifest(repository, &at).await {
                Ok(Some(_)) => {}
                Ok(None) => missing.push(child.digest.clone()),
                Err(e) if e.kind() == ErrorKind::Content => missing.push(child.digest.clone()),
                Err(e) => return Err(e.into()),
            }
        }
    }
    if !missing.is_empty() {
        let details = missing.iter().map(|digest| serde_json::json!({ "digest": digest }));
        let text = "the manifest names content that is not in this repository";
        return Err(Refusal::each(StatusCode::BAD_REQUEST, Code::ManifestBlobUnknown, text, details));
    }
    if !different.is_empty() {
        let text = "the manifest gives a blob another size than it has";
        return Err(Refusal::each(StatusCode::BAD_REQUEST, Code::SizeInvalid, text, different));
    }
    Ok(())
}

/// DELETE: a tag alone, or a manifest with all its tags.
pub(crate) async fn delete(writer: &Writer, name: Repository, at: ManifestName) -> Answer {
    if writer.delete(name, at.clone()).await? { Ok(empty(StatusCode::ACCEPTED)) } else { Err(unknown(&at)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_in_strings_are_no_depth() {
        for (text, depth) in [("1", 0), ("{}", 1), (r#"{"a":[[],{}]}"#, 3), (r#"["[[[","\"[[",[]]"#, 2), ("]]][", 1)] {
            assert_eq!(json_depth(text.as_bytes()), depth, "{text}");
        }
    }
}
