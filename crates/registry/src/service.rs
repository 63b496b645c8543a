//! One request: what it asks for, whether it may, who answers.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use airlock_oci::{Error, ErrorKind, Repository};
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Version, header};

use crate::access::{Access, Action, FORWARDED_PROTO, Permit, Subject};
use crate::backend::{Reader, Writer};
use crate::body::{self, Body};
use crate::handlers::{blobs, lists, manifests, token, uploads};
use crate::health::Health;
use crate::limits::{MAX_HEADER_BYTES, MAX_URL_BYTES};
use crate::lingering::{Received, Unread};
use crate::metrics::{self, Metrics};
use crate::page::{self, Site};
use crate::query::Query;
use crate::refusal::{Code, Refusal};
use crate::route::{self, Route, RouteError};
use crate::sendfile::Queue;

const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");
pub(crate) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// What is served, and by which rules.
#[derive(Clone)]
pub(crate) struct Registry {
    pub(crate) storage: Reader,
    /// Without one the registry is read-only.
    pub(crate) writer: Option<Writer>,
    pub(crate) access: Arc<Access>,
    pub(crate) sparse_indexes: bool,
    pub(crate) sparse_images: bool,
    pub(crate) deletion: bool,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) health: Arc<Health>,
    pub(crate) site: Arc<Site>,
}

/// A request as the handlers see it.
pub(crate) struct Asked<'a> {
    pub(crate) headers: &'a HeaderMap,
    pub(crate) query: Query,
    /// Whom it comes from, and what he may do.
    pub(crate) permit: Permit,
    /// Where blobs may be sent straight from their files.
    pub(crate) queue: Option<Queue>,
    body: &'a mut Option<Received>,
}

pub(crate) type Answer = Result<Response<Body>, Refusal>;

impl Asked<'_> {
    /// A header as text; one that is no text counts as absent.
    pub(crate) fn header(&self, name: &HeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|v| v.to_str().ok())
    }

    /// The length that the client announced.
    pub(crate) fn length(&self) -> Option<u64> {
        self.header(&CONTENT_LENGTH).and_then(|v| v.parse().ok())
    }

    /// The body; what a handler does not take is read to a bounded extent and thrown away.
    pub(crate) fn take_body(&mut self) -> Result<Received, Refusal> {
        self.body.take().ok_or_else(|| Refusal::new(StatusCode::BAD_REQUEST, Code::SizeInvalid, "there is no body"))
    }
}

/// An answer without a body.
pub(crate) fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = status;
    response
}

/// An answer with a JSON document.
pub(crate) fn document(media_type: &'static str, value: &impl serde::Serialize) -> Answer {
    let bytes =
        serde_json::to_vec(value).map_err(|e| Refusal::from(Error::new(ErrorKind::Invalid, "write an answer", e)))?;
    let mut response = Response::new(Body::Full(Bytes::from(bytes)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    Ok(response)
}

/// Sets a header whose value was made of checked names.
pub(crate) fn set(response: &mut Response<Body>, name: HeaderName, value: impl AsRef<str>) {
    if let Ok(value) = HeaderValue::from_str(value.as_ref()) {
        response.headers_mut().append(name, value);
    }
}

/// The versions that a conditional header lists.
pub(crate) fn etags<'a>(asked: &'a Asked<'_>, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    asked.headers.get_all(name).iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(',')).map(str::trim)
}

/// Whether the client has this version of the content already.
pub(crate) fn is_unchanged(asked: &Asked<'_>, etag: &str) -> bool {
    etags(asked, &header::IF_NONE_MATCH).any(|known| known == "*" || known.trim_start_matches("W/") == etag)
}

impl Registry {
    /// Answers a request. Never fails: a refusal is an answer too.
    /// `queue` is that of a connection which sends from files.
    pub(crate) async fn handle(
        &self,
        request: Request<Incoming>,
        peer: SocketAddr,
        queue: Option<Queue>,
        unread: &Unread,
    ) -> Response<Body> {
        let start = Instant::now();
        let (mut parts, body) = request.into_parts();
        // Only what runs on this machine is believed when it says what the client's connection to it was.
        if !peer.ip().to_canonical().is_loopback() {
            parts.headers.remove(&FORWARDED_PROTO);
        }
        // HTTP/2 mixes the bytes of several answers, and copies them.
        let queue = queue.filter(|_| parts.version <= Version::HTTP_11);
        let mut body = Some(unread.watch(body));
        let mut subject = Subject::Anonymous;
        let uri = parts.uri.path_and_query().map_or("/", |p| p.as_str());
        let mut kind = metrics::kind(None);
        let reads = parts.method == Method::GET || parts.method == Method::HEAD;
        let authority = parts.uri.authority().map(|authority| authority.as_str());
        let answer = self
            .answer(&parts.method, uri, authority, &parts.headers, peer.ip(), &mut body, &mut subject, &mut kind, queue)
            .await;
        let mut response = match answer {
            Ok(response) => response,
            Err(refusal) => {
                let writer =
                    self.writer.as_ref().filter(|writer| !reads && refusal.is_of_disk() && writer.disk().is_some());
                match writer {
                    Some(writer) => {
                        self.health.failed(writer);
                        refusal.for_a_while().into_response()
                    }
                    None => refusal.into_response(),
                }
            }
        };
        if let Some(body) = body
            && !(response.status().is_client_error() && parts.headers.contains_key(EXPECT))
        {
            body::drain(body).await;
        }
        let headers = response.headers_mut();
        // Else the client sends its next request into a connection that is closed already.
        if unread.is_some() && parts.version <= Version::HTTP_11 {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        headers.insert(API_VERSION, HeaderValue::from_static("registry/2.0"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if parts.method == Method::HEAD {
            without_body(&mut response);
        }
        let user = match &subject {
            Subject::Anonymous => "-",
            Subject::User(name) => name,
        };
        let bytes = hyper::body::Body::size_hint(response.body()).exact().unwrap_or(0);
        self.metrics.answered(kind, &parts.method, response.status().as_u16(), bytes, start.elapsed());
        if !reads && response.status().is_success() {
            tracing::info!(
                target: "airlock_registry::audit",
                method = %parts.method, path = parts.uri.path(), query = parts.uri.query(), user, %peer,
                digest = response.headers().get(&CONTENT_DIGEST).and_then(|d| d.to_str().ok()),
                "write"
            );
        }
        tracing::info!(
            target: "airlock_registry::requests",
            method = %parts.method, path = parts.uri.path(), status = response.status().as_u16(), %peer, user,
            ms = start.elapsed().as_millis() as u64,
            "request"
        );
        response
    }

    async fn answer(
        &self,
        method: &Method,
        uri: &str,
        authority: Option<&str>,
        headers: &HeaderMap,
        from: IpAddr,
        body: &mut Option<Received>,
        subject: &mut Subject,
        kind: &mut usize,
        queue: Option<Queue>,
    ) -> Answer {
        if uri.len() > MAX_URL_BYTES {
            return Err(Refusal::new(StatusCode::URI_TOO_LONG, Code::NameInvalid, "the URL is too long"));
        }
        let header_bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        if header_bytes > MAX_HEADER_BYTES {
            let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
            return Err(Refusal::new(status, Code::Unsupported, "the headers are too large"));
        }
        let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
        if path == "/token" {
            return token::issue(&self.access, method, headers, from, query, body).await;
        }
        if let Some(place) = page::path::parse(path) {
            *kind = metrics::PAGE;
            return Ok(self.page(method, place, authority, headers, from, query, subject).await);
        }
        let permit = self.access.identify(headers, from).await?;
        *subject = permit.subject.clone();
        let route = match route::parse(path) {
            Ok(route) => route,
            Err(error) => {
                // Whoever may not even read learns nothing of names either.
                if !permit.may_see_names() {
                    self.access.check(&permit, headers, Action::Pull, None, None)?;
                }
                return Err(refuse_path(&error, method));
            }
        };
        *kind = metrics::kind(Some(&route));
        let query = Query::parse(query);
        let source = query.as_ref().ok().and_then(|query| mount_source(method, &route, query));
        self.access.check(&permit, headers, Action::of(method, &route), route.repository(), source.as_ref())?;
        let query = query
            .map_err(|e| Refusal::new(StatusCode::BAD_REQUEST, Code::NameInvalid, format!("malformed query: {e}")))?;
        self.dispatch(method, route, Asked { headers, query, permit, queue, body }).await
    }

    async fn dispatch(&self, method: &Method, route: Route, asked: Asked<'_>) -> Answer {
        let reads = method == Method::GET || method == Method::HEAD;
        let allowed = match &route {
            Route::Base | Route::Catalog | Route::Tags(_) | Route::Referrers(..) => "GET, HEAD",
            Route::Manifest(..) => "GET, HEAD, PUT, DELETE",
            Route::Blob(..) => "GET, HEAD, DELETE",
            Route::Uploads(_) => "POST",
            Route::Upload(..) => "GET, HEAD, PATCH, PUT, DELETE",
        };
        let names = allowed.split(", ").any(|name| name == method.as_str());
        if !names {
            let text = format!("`{method}` means nothing here");
            return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, Code::Unsupported, text).header(ALLOW, allowed));
        }
        if method == Method::DELETE && !self.deletion && !matches!(route, Route::Upload(..)) {
            let text = "deleting is switched off in this registry";
            return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, Code::Unsupported, text));
        }
        match (route, reads) {
            (Route::Base, _) => document("application/json", &serde_json::json!({})),
            (Route::Catalog, _) => lists::catalog(self, &asked).await,
            (Route::Tags(name), _) => lists::tags(self, &asked, name).await,
            (Route::Referrers(name, subject), _) => lists::referrers(self, &asked, name, subject).await,
            (Route::Manifest(name, at), true) => manifests::get(self, &asked, method, name, at).await,
            (Route::Blob(name, digest), true) => blobs::get(self, &asked, method, name, digest).await,
            (Route::Manifest(name, at), false) if method == Method::PUT => {
                manifests::put(self, self.writer()?, asked, name, at).await
            }
            (Route::Manifest(name, at), false) => manifests::delete(self.writer()?, name, at).await,
            (Route::Blob(name, digest), false) => blobs::delete(self.writer()?, name, digest).await,
            (Route::Uploads(name), _) => uploads::begin(self.writer()?, asked, name).await,
            (Route::Upload(name, id), _) => {
                let writer = self.writer()?;
                let id = id.ok_or_else(uploads::unknown)?;
                match *method {
                    Method::PATCH => uploads::chunk(writer, asked, name, id).await,
                    Method::PUT => uploads::finish(writer, asked, name, id).await,
                    Method::DELETE => uploads::cancel(writer, name, id).await,
                    _ => uploads::status(writer, name, id).await,
                }
            }
        }
    }

    fn writer(&self) -> Result<&Writer, Refusal> {
        let writer = self.writer.as_ref().ok_or_else(|| {
            let text = "this registry is read-only";
            Refusal::new(StatusCode::METHOD_NOT_ALLOWED, Code::Unsupported, text).header(ALLOW, "GET, HEAD")
        })?;
        if self.health.is_failed() {
            return Err(Refusal::read_only());
        }
        Ok(writer)
    }
}

/// The answer to HEAD: what GET would have said, without saying it.
fn without_body(response: &mut Response<Body>) {
    let length = hyper::body::Body::size_hint(response.body()).exact();
    *response.body_mut() = Body::Empty;
    if let Some(length) = length
        && !response.headers().contains_key(CONTENT_LENGTH)
        && response.status() != StatusCode::NO_CONTENT
        && response.status() != StatusCode::NOT_MODIFIED
    {
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
}

/// The repository that a blob is to be mounted from, where the request is for that and such a repository can be.
fn mount_source(method: &Method, route: &Route, query: &Query) -> Option<Repository> {
    let is_mount = method == Method::POST && matches!(route, Route::Uploads(_)) && query.get("mount").is_some();
    if is_mount { Repository::new(query.get("from")?).ok() } else { None }
}

fn refuse_path(error: &RouteError, method: &Method) -> Refusal {
    let (status, code) = match error {
        // What cannot be a tag names no manifest, which is all that a reader wants to know (the conformance suite asks for `.INVALID_MANIFEST_NAME`).
        RouteError::Tag if method != Method::PUT => (StatusCode::NOT_FOUND, Code::ManifestUnknown),
        RouteError::Unknown => (StatusCode::NOT_FOUND, Code::NameUnknown),
        RouteError::Malformed | RouteError::Name(_) => (StatusCode::BAD_REQUEST, Code::NameInvalid),
        RouteError::Tag => (StatusCode::BAD_REQUEST, Code::TagInvalid),
        RouteError::Digest(_) => (StatusCode::BAD_REQUEST, Code::DigestInvalid),
    };
    Refusal::new(status, code, error.to_string())
}
