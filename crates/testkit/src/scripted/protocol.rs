//! The distribution protocol over the content, as a function from request to answer.

use airlock_oci::{Digest, Manifest, media_type};
use bytes::Bytes;

use super::auth::{Auth, basic_of};
use super::content::Upload;
use super::http::{Answer, Head};
use super::{Behaviour, State};

/// What a path below `/v2/` names.
pub(super) enum Route<'a> {
    Ping,
    Catalog,
    Tags(&'a str),
    Manifest(&'a str, &'a str),
    Blob(&'a str, &'a str),
    Begin(&'a str),
    Session(&'a str, &'a str),
    Referrers(&'a str, &'a str),
    Unknown,
}

pub(super) fn route(path: &str) -> Route<'_> {
    if matches!(path, "/v2/" | "/v2") {
        return Route::Ping;
    }
    let Some(rest) = path.strip_prefix("/v2/") else { return Route::Unknown };
    if rest == "_catalog" {
        return Route::Catalog;
    }
    if let Some(name) = rest.strip_suffix("/tags/list") {
        return Route::Tags(name);
    }
    // From the right, since a name may contain any of these words.
    if let Some((name, id)) = rest.rsplit_once("/blobs/uploads/") {
        return if id.is_empty() { Route::Begin(name) } else { Route::Session(name, id) };
    }
    let Some((head, last)) = rest.rsplit_once('/') else { return Route::Unknown };
    match head.rsplit_once('/') {
        Some((name, "manifests")) => Route::Manifest(name, last),
        Some((name, "blobs")) => Route::Blob(name, last),
        Some((name, "referrers")) => Route::Referrers(name, last),
        _ => Route::Unknown,
    }
}

fn params(query: &str) -> Vec<(String, String)> {
    query
        .split('&')
        .filter(|p| !p.is_empty())
        .map(|p| p.split_once('=').unwrap_or((p, "")))
        .map(|(n, v)| (decode(n), decode(v)))
        .collect()
}

fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes.get(at + 1..at + 3).and_then(|h| std::str::from_utf8(h).ok());
        match (bytes[at], hex.and_then(|h| u8::from_str_radix(h, 16).ok())) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 2;
            }
            (b'+', _) => out.push(b' '),
            (byte, _) => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Authentication and what can be refused without the body.
pub(super) fn refuse(state: &mut State, head: &Head, path: &str) -> Option<Answer> {
    if path == "/token" {
        return None;
    }
    let route = route(path);
    let (repository, action) = match (&route, head.method.as_str()) {
        (Route::Ping, _) => ("", "pull"),
        (Route::Catalog, _) => ("*", "*"),
        (Route::Begin(name) | Route::Session(name, _), _) => (*name, "push"),
        (Route::Manifest(name, _) | Route::Blob(name, _), "PUT") => (*name, "push"),
        (Route::Manifest(name, _) | Route::Blob(name, _), "DELETE") => (*name, "delete"),
        (Route::Manifest(name, _) | Route::Blob(name, _) | Route::Tags(name) | Route::Referrers(name, _), _) => {
            (*name, "pull")
        }
        (Route::Unknown, _) => return Some(Answer::new(404).body("404 page not found")),
    };
    let allowed = match &state.auth {
        Auth::Open => true,
        Auth::Basic { user, password } => basic_of(head).is_some_and(|(u, p)| u == *user && p == *password),
        Auth::Bearer(_) => {
            let wanted = match &route {
                Route::Ping => None,
                Route::Catalog => Some("registry:catalog:*".to_owned()),
                _ => Some(format!("repository:{repository}:{action}")),
            };
            state.tokens.allows(head, wanted.as_deref())
        }
    };
    if !allowed {
        let challenge = match &state.auth {
            Auth::Bearer(rules) => {
                let realm = rules.realm.clone().unwrap_or_else(|| format!("{}/token", state.base));
                let error = if head.header("authorization").is_some() { ",error=\"insufficient_scope\"" } else { "" };
                let actions = if action == "push" { "pull,push" } else { action };
                format!(
                    "Bearer realm=\"{realm}\",service=\"scripted\",scope=\"repository:{repository}:{actions}\"{error}"
                )
            }
            _ => "Basic realm=\"scripted\"".to_owned(),
        };
        let answer = Answer::error(401, "UNAUTHORIZED", "authentication required").with("WWW-Authenticate", challenge);
        return Some(answer);
    }
    let writes = matches!(head.method.as_str(), "POST" | "PUT" | "PATCH");
    let behaviour = &state.behaviour;
    let length = head.header("content-length").and_then(|l| l.parse::<u64>().ok()).unwrap_or(0);
    if writes && behaviour.read_only {
        return Some(Answer::error(405, "UNSUPPORTED", "the registry is read-only"));
    }
    if writes && behaviour.full && length > 0 {
        return Some(Answer::error(507, "UNKNOWN", "no space left on device"));
    }
    if writes && length > behaviour.max_body {
        return Some(Answer::new(413).body("<html>413 Request Entity Too Large</html>"));
    }
    let whole = head.method == "PUT" && length > 0 && matches!(route, Route::Session(..));
    if whole && !behaviour.monolithic {
        return Some(Answer::error(405, "UNSUPPORTED", "send the blob in chunks"));
    }
    None
}

pub(super) fn respond(
    state: &mut State,
    head: &Head,
    path: &str,
    query: &str,
    body: Bytes,
    ignore_range: bool,
) -> Answer {
    let method = head.method.as_str();
    let params_list = params(query);
    let param = |name: &str| params_list.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
    if path == "/token" {
        let Auth::Bearer(rules) = state.auth.clone() else { return Answer::new(404) };
        let list = if method == "POST" { params(&String::from_utf8_lossy(&body)) } else { params_list };
        return state.tokens.issue(&rules, head, &list);
    }
    match (method, route(path)) {
        ("GET" | "HEAD", Route::Ping) => Answer::new(200).with("Content-Type", "application/json").body("{}"),
        ("GET", Route::Catalog) => {
            let names: Vec<String> = state.content.repositories().into_iter().map(str::to_owned).collect();
            page(&state.behaviour, path, &names, param("last"), |page| serde_json::json!({"repositories": page}))
        }
        ("GET", Route::Tags(name)) => match state.content.tags(name) {
            None => Answer::error(404, "NAME_UNKNOWN", "repository name not known to registry"),
            Some(tags) => {
                let tags: Vec<String> = tags.into_iter().map(str::to_owned).collect();
                page(
                    &state.behaviour,
                    path,
                    &tags,
                    param("last"),
                    |page| serde_json::json!({"name": name, "tags": page}),
                )
            }
        },
        ("GET", Route::Referrers(name, digest)) => referrers(state, name, digest),
        ("GET" | "HEAD", Route::Manifest(name, at)) => match state.content.manifest(name, at) {
            None => Answer::error(404, "MANIFEST_UNKNOWN", "manifest unknown"),
            Some(manifest) => Answer::new(200)
                .with("Content-Type", manifest.media_type())
                .with("Docker-Content-Digest", manifest.digest().to_string())
                .body(manifest.bytes().clone()),
        },
        ("PUT", Route::Manifest(name, at)) => put_manifest(state, head, name, at, body),
        ("DELETE", Route::Manifest(name, at)) => delete_manifest(state, name, at),
        ("GET" | "HEAD", Route::Blob(name, digest)) => {
            let found = digest.parse::<Digest>().ok().and_then(|digest| state.content.blob(name, &digest));
            match found {
                None => Answer::error(404, "BLOB_UNKNOWN", "blob unknown to registry"),
                Some(bytes) => part(head, bytes, digest, ignore_range),
            }
        }
        ("POST", Route::Begin(name)) => {
            if let (Some(digest), Some(from)) = (param("mount"), param("from"))
                && state.behaviour.mounts
                && let Ok(digest) = digest.parse::<Digest>()
                && let Some(bytes) = state.content.blob(from, &digest).cloned()
            {
                state.content.put_blob(name, digest.clone(), bytes);
                return Answer::new(201)
                    .with("Location", format!("/v2/{name}/blobs/{digest}"))
                    .with("Docker-Content-Digest", digest.to_string());
            }
            state.content.uploads_begun += 1;
            let id = format!("session-{}", state.content.uploads_begun);
            state.content.uploads.insert(id.clone(), Upload { repository: name.to_owned(), data: Vec::new() });
            let mut answer = session(state, name, &id, 0, 202);
            if state.behaviour.min_chunk > 0 {
                answer = answer.with("OCI-Chunk-Min-Length", state.behaviour.min_chunk.to_string());
            }
            answer
        }
        (_, Route::Session(name, id)) => upload(state, head, name, id, param("digest"), param("_state"), &body),
        _ => Answer::error(405, "UNSUPPORTED", "the operation is unsupported"),
    }
}

/// A blob or the part of it that was asked for.
fn part(head: &Head, bytes: &Bytes, digest: &str, ignore_range: bool) -> Answer {
    let answer = Answer::new(200)
        .with("Content-Type", "application/octet-stream")
        .with("Docker-Content-Digest", digest)
        .with("Accept-Ranges", "bytes");
    let range = head.header("range").filter(|_| !ignore_range).and_then(|r| r.strip_prefix("bytes="));
    let Some((from, to)) = range.and_then(|r| r.split_once('-')) else { return answer.body(bytes.clone()) };
    let from: usize = from.parse().unwrap_or(0);
    let to = to.parse::<usize>().map_or(bytes.len(), |to| (to + 1).min(bytes.len()));
    if from >= bytes.len() || from >= to {
        return Answer::error(416, "RANGE_INVALID", "invalid range")
            .with("Content-Range", format!("bytes */{}", bytes.len()));
    }
    let range = format!("bytes {from}-{}/{}", to - 1, bytes.len());
    Answer { status: 206, ..answer.with("Content-Range", range).body(bytes.slice(from..to)) }
}

fn page(
    behaviour: &Behaviour,
    path: &str,
    all: &[String],
    last: Option<&str>,
    body: impl Fn(&[String]) -> serde_json::Value,
) -> Answer {
    let size = if behaviour.page == 0 { usize::MAX } else { behaviour.page };
    let from = match last {
        Some(last) if behaviour.page > 0 => all.partition_point(|name| name.as_str() <= last),
        _ => 0,
    };
    let to = from.saturating_add(size).min(all.len());
    let mut answer = Answer::new(200).with("Content-Type", "application/json").body(body(&all[from..to]).to_string());
    if to < all.len() {
        answer = answer.with("Link", format!("<{path}?n={size}&last={}>; rel=\"next\"", all[to - 1]));
    }
    answer
}

fn referrers(state: &State, name: &str, digest: &str) -> Answer {
    if !state.behaviour.referrers {
        return Answer::new(404).body("404 page not found");
    }
    let Ok(subject) = digest.parse::<Digest>() else { return Answer::error(400, "DIGEST_INVALID", "invalid digest") };
    let list: Vec<serde_json::Value> = state
        .content
        .referrers(name, &subject)
        .into_iter()
        .map(|manifest| {
            let mut descriptor = manifest.descriptor();
            descriptor.artifact_type = manifest.artifact_type().map(str::to_owned);
            descriptor.annotations = manifest.annotations().clone();
            serde_json::json!(descriptor)
        })
        .collect();
    let body = serde_json::json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": list});
    Answer::new(200).with("Content-Type", media_type::OCI_INDEX).body(body.to_string())
}

fn put_manifest(state: &mut State, head: &Head, name: &str, at: &str, body: Bytes) -> Answer {
    let declared = head.header("content-type");
    let parsed = match at.parse::<Digest>() {
        Ok(digest) => Manifest::parse_expecting(body, declared, &digest),
        Err(_) => Manifest::parse(body, declared),
    };
    let manifest = match parsed {
        Ok(manifest) => manifest,
        Err(error) => return Answer::error(400, "MANIFEST_INVALID", &error.to_string()),
    };
    for blob in manifest.blobs().filter(|b| !b.is_foreign()) {
        if state.content.blob(name, &blob.digest).is_none() {
            return Answer::error(400, "MANIFEST_BLOB_UNKNOWN", &format!("blob unknown to registry: {}", blob.digest));
        }
    }
    if !state.behaviour.sparse
        && let Some(absent) =
            manifest.children().iter().find(|c| state.content.manifest(name, &c.digest.to_string()).is_none())
    {
        return Answer::error(400, "MANIFEST_BLOB_UNKNOWN", &format!("manifest unknown: {}", absent.digest));
    }
    let digest = manifest.digest().clone();
    let subject = manifest.subject().map(|s| s.digest.clone());
    let tag = at.parse::<Digest>().is_err().then_some(at);
    state.content.put_manifest(name, manifest, tag);
    let mut answer = Answer::new(201)
        .with("Location", format!("/v2/{name}/manifests/{digest}"))
        .with("Docker-Content-Digest", digest.to_string());
    if let Some(subject) = subject.filter(|_| state.behaviour.referrers) {
        answer = answer.with("OCI-Subject", subject.to_string());
    }
    answer
}

fn delete_manifest(state: &mut State, name: &str, at: &str) -> Answer {
    if !state.behaviour.deletes {
        return Answer::error(405, "UNSUPPORTED", "the operation is unsupported");
    }
    let gone = match at.parse::<Digest>() {
        Ok(digest) => state.content.remove_manifest(name, &digest),
        Err(_) if !state.behaviour.deletes_tags => {
            return Answer::error(400, "DIGEST_INVALID", "provided digest did not match uploaded content");
        }
        Err(_) => state.content.remove_tag(name, at),
    };
    if gone { Answer::new(202) } else { Answer::error(404, "MANIFEST_UNKNOWN", "manifest unknown") }
}

fn session(state: &State, name: &str, id: &str, size: usize, status: u16) -> Answer {
    let base = if state.behaviour.absolute_locations { state.base.as_str() } else { "" };
    Answer::new(status)
        .with("Location", format!("{base}/v2/{name}/blobs/uploads/{id}?_state=a%2Fb%3D%3D.{size}&x=y"))
        .with("Range", format!("0-{}", size.saturating_sub(1)))
        .with("Docker-Upload-UUID", id)
}

fn upload(
    state: &mut State,
    head: &Head,
    name: &str,
    id: &str,
    digest: Option<&str>,
    opaque: Option<&str>,
    body: &Bytes,
) -> Answer {
    let unknown = || Answer::error(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry");
    let Some(upload) = state.content.uploads.get_mut(id).filter(|u| u.repository == name) else { return unknown() };
    // The registry's own part of the query must come back as it was given.
    if !opaque.is_some_and(|s| s.starts_with("a/b==.")) {
        return Answer::error(400, "BLOB_UPLOAD_INVALID", "the state of the session is missing");
    }
    match head.method.as_str() {
        "GET" => {
            let size = upload.data.len();
            session(state, name, id, size, 204)
        }
        "DELETE" => {
            state.content.uploads.remove(id);
            Answer::new(204)
        }
        "PATCH" | "PUT" => {
            let size = upload.data.len();
            if let Some((from, _)) = head.header("content-range").and_then(|r| r.split_once('-'))
                && from.parse() != Ok(size)
            {
                return session(state, name, id, size, 416);
            }
            upload.data.extend_from_slice(body);
            let size = upload.data.len();
            if head.method == "PATCH" {
                return session(state, name, id, size, 202);
            }
            let Some(Ok(digest)) = digest.map(str::parse::<Digest>) else {
                return Answer::error(400, "DIGEST_INVALID", "no digest was given");
            };
            let data = Bytes::from(std::mem::take(&mut upload.data));
            state.content.uploads.remove(id);
            let actual = Digest::of_with(digest.algorithm(), &data);
            if actual != digest {
                return Answer::error(400, "DIGEST_INVALID", "provided digest did not match uploaded content");
            }
            state.content.put_blob(name, digest.clone(), data);
            Answer::new(201)
                .with("Location", format!("/v2/{name}/blobs/{digest}"))
                .with("Docker-Content-Digest", digest.to_string())
        }
        _ => Answer::error(405, "UNSUPPORTED", "the operation is unsupported"),
    }
}
