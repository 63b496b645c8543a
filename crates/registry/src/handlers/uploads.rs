//! Uploads: in one request, in two, or in chunks.

use airlock_oci::{Algorithm, Digest, Error, ErrorKind, Repository};
use airlock_store::distribution::UploadId;
use bytes::Bytes;
use futures_util::Stream;
use hyper::header::{CONTENT_RANGE, HeaderName, LOCATION, RANGE};
use hyper::{Response, StatusCode};

use crate::access::Action;
use crate::backend::{Upload, Writer};
use crate::body::{self, Body};
use crate::limits::{CHECKED_UPLOAD_BYTES, RESERVED_DISK_BYTES};
use crate::range;
use crate::refusal::{Code, Refusal};
use crate::service::{Answer, Asked, CONTENT_DIGEST, empty, set};

const UPLOAD_ID: HeaderName = HeaderName::from_static("docker-upload-uuid");

/// There is no such session.
pub(crate) fn unknown() -> Refusal {
    let text = "there is no such upload; it was finished, cancelled or has expired, or the registry was restarted";
    Refusal::new(StatusCode::NOT_FOUND, Code::BlobUploadUnknown, text)
}

fn location(name: &Repository, id: &UploadId) -> String {
    // Relative, so that it survives proxies and forwarded ports.
    format!("/v2/{name}/blobs/uploads/{id}")
}

/// What has been received, as the protocol says it: `0-0` also for nothing.
fn received(offset: u64) -> String {
    format!("0-{}", offset.saturating_sub(1))
}

fn progress(status: StatusCode, name: &Repository, id: &UploadId, offset: u64) -> Response<Body> {
    let mut response = empty(status);
    set(&mut response, LOCATION, location(name, id));
    set(&mut response, RANGE, received(offset));
    set(&mut response, UPLOAD_ID, id.to_string());
    response
}

fn created(name: &Repository, digest: &Digest) -> Response<Body> {
    let mut response = empty(StatusCode::CREATED);
    set(&mut response, LOCATION, format!("/v2/{name}/blobs/{digest}"));
    set(&mut response, CONTENT_DIGEST, digest.to_string());
    response
}

fn parse_digest(text: &str) -> Result<Digest, Refusal> {
    text.parse().map_err(|e: airlock_oci::digest::ParseError| {
        Refusal::new(StatusCode::BAD_REQUEST, Code::DigestInvalid, e.to_string()).detail(text.into())
    })
}

/// POST: begins a session, or does all at once with `digest` and a body, or nothing but a link with `mount`.
pub(crate) async fn begin(writer: &Writer, mut asked: Asked<'_>, name: Repository) -> Answer {
    if let Some(digest) = asked.query.get("mount") {
        let digest = parse_digest(digest)?;
        let from = asked.query.get("from").filter(|from| !from.is_empty()).map(Repository::new).transpose();
        // A source that cannot exist, or that this client may not read, is one that does not: the client uploads.
        let from = from.ok().filter(|from| match from {
            Some(from) => asked.permit.may(Action::Pull, Some(from)),
            None => asked.permit.may_everywhere(Action::Pull),
        });
        if let Some(from) = from
            && writer.mount_blob(&name, &digest, from.as_ref()).await?
        {
            return Ok(created(&name, &digest));
        }
    }
    if let Some(digest) = asked.query.get("digest") {
        let digest = parse_digest(digest)?;
        // Without a body this only announces what will come, except for the blob that has no bytes.
        let empty_blob = Digest::of_with(digest.algorithm(), b"") == digest;
        if asked.length() != Some(0) || empty_blob {
            check_space(writer, &asked, 0).await?;
            let mut upload = writer.named_upload(&name, &digest)?;
            append(writer, &mut upload, body::received(asked.take_body()?)).await?;
            return publish(upload, &name, &digest).await;
        }
    }
    let algorithm = match asked.query.get("digest-algorithm") {
        None => Algorithm::Sha256,
        Some(text) => text.parse().map_err(|e: airlock_oci::digest::ParseError| {
            Refusal::new(StatusCode::BAD_REQUEST, Code::DigestInvalid, e.to_string())
        })?,
    };
    let id = writer.begin_upload(&name, algorithm).await?;
    Ok(progress(StatusCode::ACCEPTED, &name, &id, 0))
}

/// PATCH: the next bytes.
pub(crate) async fn chunk(writer: &Writer, mut asked: Asked<'_>, name: Repository, id: UploadId) -> Answer {
    let mut upload = writer.upload(&name, &id).await?.ok_or_else(unknown)?;
    let announced = check_order(&asked, &upload, &name)?;
    check_space(writer, &asked, upload.offset()).await?;
    let before = upload.offset();
    let appended = append(writer, &mut upload, body::received(asked.take_body()?)).await;
    if is_full(&appended) {
        upload.cancel().await?;
        appended?;
        return Err(unknown());
    }
    if appended.is_err() {
        // As far as it came, so that the client can go on from there.
        let _ = upload.save().await;
    }
    appended?;
    let received = upload.offset() - before;
    match upload.save().await {
        Ok(()) => {}
        Err(e) if e.kind() == ErrorKind::Full => {
            upload.cancel().await?;
            return Err(full(writer.available().await, None));
        }
        Err(e) => return Err(failed(e)),
    }
    check_length(announced, received)?;
    Ok(progress(StatusCode::ACCEPTED, &name, &id, upload.offset()))
}

/// PUT: the last bytes, if any are left, and the name.
pub(crate) async fn finish(writer: &Writer, mut asked: Asked<'_>, name: Repository, id: UploadId) -> Answer {
    let text = "the parameter `digest` is missing";
    let digest = asked
        .query
        .get("digest")
        .ok_or_else(|| Refusal::new(StatusCode::BAD_REQUEST, Code::DigestInvalid, text))
        .and_then(parse_digest)?;
    let mut upload = match writer.upload(&name, &id).await? {
        Some(upload) => upload,
        None if writer.was_finished(&name, &digest).await? => return Ok(created(&name, &digest)),
        None => return Err(unknown()),
    };
    let announced = check_order(&asked, &upload, &name)?;
    check_space(writer, &asked, upload.offset()).await?;
    let before = upload.offset();
    let appended = append(writer, &mut upload, body::received(asked.take_body()?)).await;
    if is_full(&appended) {
        upload.cancel().await?;
        appended?;
        return Err(unknown());
    }
    appended?;
    check_length(announced, upload.offset() - before)?;
    publish(upload, &name, &digest).await
}

/// GET and HEAD: how far it is.
pub(crate) async fn status(writer: &Writer, name: Repository, id: UploadId) -> Answer {
    let status = writer.upload_status(&name, &id).await?.ok_or_else(unknown)?;
    Ok(progress(StatusCode::NO_CONTENT, &name, &id, status.offset))
}

/// DELETE: the client does not want to go on.
pub(crate) async fn cancel(writer: &Writer, name: Repository, id: UploadId) -> Answer {
    writer.upload(&name, &id).await?.ok_or_else(unknown)?.cancel().await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

async fn publish(upload: Upload, name: &Repository, digest: &Digest) -> Answer {
    match upload.finish(digest).await {
        Ok(_) => Ok(created(name, digest)),
        Err(e) if e.kind() == ErrorKind::Content => {
            Err(Refusal::new(StatusCode::BAD_REQUEST, Code::DigestInvalid, e.cause().to_owned()))
        }
        Err(e) => Err(failed(e)),
    }
}

/// An upload failed: it may have ended meanwhile, or be too large.
fn failed(error: Error) -> Refusal {
    match error.kind() {
        ErrorKind::NotFound => unknown(),
        ErrorKind::Unsupported => {
            Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, Code::SizeInvalid, error.cause().to_owned())
        }
        _ => error.into(),
    }
}

/// A chunk must begin where the last one ended. How long it says it is, if it says anything.
fn check_order(asked: &Asked<'_>, upload: &Upload, name: &Repository) -> Result<Option<u64>, Refusal> {
    let Some(header) = asked.header(&CONTENT_RANGE) else { return Ok(None) };
    let (first, last) = range::chunk(header).ok_or_else(|| {
        let text = "malformed `Content-Range`: expected `first-last`";
        Refusal::new(StatusCode::BAD_REQUEST, Code::BlobUploadInvalid, text)
    })?;
    let offset = upload.offset();
    if first != offset {
        let text = format!("the chunk begins at byte {first}; the next byte is {offset}");
        return Err(Refusal::new(StatusCode::RANGE_NOT_SATISFIABLE, Code::BlobUploadInvalid, text)
            .header(LOCATION, location(name, upload.id()))
            .header(RANGE, received(offset))
            .header(UPLOAD_ID, upload.id().to_string()));
    }
    let length = last - first + 1;
    if let Some(announced) = asked.length() {
        check_length(Some(length), announced)?;
    }
    Ok(Some(length))
}

fn check_length(announced: Option<u64>, actual: u64) -> Result<(), Refusal> {
    match announced {
        Some(announced) if announced != actual => {
            let text = format!("`Content-Range` is {announced} bytes long, the body {actual}");
            Err(Refusal::new(StatusCode::BAD_REQUEST, Code::SizeInvalid, text))
        }
        _ => Ok(()),
    }
}

async fn append(
    writer: &Writer,
    upload: &mut Upload,
    body: impl Stream<Item = Result<Bytes, Error>> + Unpin,
) -> Result<(), Refusal> {
    match upload.append(body).await {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == ErrorKind::Full => Err(full(writer.available().await, None)),
        Err(e) => Err(failed(e)),
    }
}

fn is_full(appended: &Result<(), Refusal>) -> bool {
    appended.as_ref().is_err_and(|refusal| refusal.status() == StatusCode::INSUFFICIENT_STORAGE)
}

/// Refuses at once what cannot fit, before the client has sent gigabytes. `offset`: the bytes that are already there.
async fn check_space(writer: &Writer, asked: &Asked<'_>, offset: u64) -> Result<(), Refusal> {
    let Some(length) = asked.length().filter(|length| *length >= CHECKED_UPLOAD_BYTES) else { return Ok(()) };
    if let Some(most) = writer.max_blob_bytes().filter(|most| offset.saturating_add(length) > *most) {
        let text = format!("a blob in this registry's storage has at most {} GiB", most >> 30);
        return Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, Code::SizeInvalid, text));
    }
    match writer.available().await {
        Some(free) if length.saturating_add(RESERVED_DISK_BYTES) > free => Err(full(Some(free), Some(length))),
        _ => Ok(()),
    }
}

fn full(free: Option<u64>, wanted: Option<u64>) -> Refusal {
    const MIB: u64 = 1024 * 1024;
    let free = free.map(|bytes| format!(": {} MiB are free", bytes / MIB)).unwrap_or_default();
    let wanted = wanted.map(|bytes| format!(", the upload has {} MiB", bytes.div_ceil(MIB))).unwrap_or_default();
    let text = format!("the registry's storage is full{free}{wanted}");
    tracing::error!(text, "an upload was refused");
    Refusal::new(StatusCode::INSUFFICIENT_STORAGE, Code::Unavailable, text)
}
