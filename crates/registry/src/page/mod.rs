//! The page for people: what is mirrored, looked at in a browser.
//!
//! ```text
//! request ──path──► Place ──rights──► a view ──► HTML
//!                                      │ asks
//!                      inventory ◄─────┼─────► kind (one image)      descriptions (releases, catalogs)
//! ```
//!
//! * Rendered here, whole; nothing runs in the browser, nothing is loaded from elsewhere, and the answer's headers say so.
//! * Behind the registry's login: a visitor sees what he may pull, and nothing tells him of the rest.
//! * It reads only. GET and HEAD are all it answers.
//! * Whatever an image says of itself is text, cut to a length; a page has a bounded number of rows, and a bounded time to find them.

mod clusters;
mod description;
mod frame;
mod image;
mod inventory;
mod kind;
mod lists;
mod offers;
mod overview;
pub(crate) mod path;
mod repository;
mod search;
pub(crate) mod words;

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use airlock_oci::sink::ManifestName;
use airlock_oci::{Digest, Error, ErrorKind, Repository};
use airlock_store::Verified;
use bytes::Bytes;
use hyper::header::{ALLOW, CONTENT_TYPE, HOST, HeaderMap, HeaderValue, LOCATION, WWW_AUTHENTICATE};
use hyper::{Method, Response, StatusCode};
use maud::html;
use tokio::sync::Semaphore;

pub use description::{Catalog, Channel, Component, Content, Describe, Needed, Package, Pin, Release, Version};

use self::description::Descriptions;
use self::frame::{Page, Visit};
use self::inventory::{Facts, Inventory, Snapshot};
use self::kind::Reader;
use self::path::Place;
use crate::access::{Action, Permit, Subject};
use crate::body::Body;
use crate::query::Query;
use crate::refusal::Refusal;
use crate::route::RouteError;
use crate::service::{Registry, set};
use crate::tls::Live;

/// Rows of one table.
const ROWS: usize = 100;
/// Visitors for whom something is read at once; others wait.
const TURNS: usize = 2;
/// How long is looked for what one page shows.
const TIME: Duration = Duration::from_secs(5);
/// Bytes of a `Host` header that is believed.
const MAX_HOST_BYTES: usize = 255;

/// What the page keeps between two visits.
pub(crate) struct Site {
    inventory: Arc<Inventory>,
    descriptions: Descriptions,
    turns: Arc<Semaphore>,
    /// Knows the CA that clients must trust; none where there is no TLS.
    certificate: Option<Arc<Live>>,
}

/// One visit, as the views see it. A view first asks for what it needs, then draws where that may take its time.
struct Scene {
    registry: Registry,
    permit: Permit,
    visit: Visit,
    query: Query,
}

/// Why a page is not shown.
enum Failed {
    /// There is nothing of that name.
    NotFound(&'static str),
    /// The storage failed; the log has it.
    Refused(Refusal),
}

type View = Result<Page, Failed>;

impl From<Refusal> for Failed {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl Site {
    pub(crate) fn new(describe: Option<Arc<dyn Describe>>, certificate: Option<Arc<Live>>) -> Self {
        Self {
            inventory: Arc::default(),
            descriptions: Descriptions::new(describe),
            turns: Arc::new(Semaphore::new(TURNS)),
            certificate,
        }
    }

    /// The CA that clients must trust now, as PEM, where it is known.
    fn authority(&self) -> Option<String> {
        self.certificate.as_ref()?.authority()
    }
}

impl Registry {
    /// Answers a request for the page. Never fails: that something is not there is a page too.
    pub(crate) async fn page(
        &self,
        method: &Method,
        place: Result<Place, RouteError>,
        authority: Option<&str>,
        headers: &HeaderMap,
        from: IpAddr,
        query: &str,
        subject: &mut Subject,
    ) -> Response<Body> {
        let mut visit = Visit {
            host: match &self.access.external {
                Some(url) => url.authority.clone(),
                None => host(authority, headers),
            },
            user: None,
            can_log_in: self.access.users.is_some(),
            section: "",
            question: String::new(),
            now: SystemTime::now(),
        };
        if method != Method::GET && method != Method::HEAD {
            let mut response = said(StatusCode::METHOD_NOT_ALLOWED, &visit, "This page can only be read.");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match place {
            Ok(Place::Style) => return frame::file(true),
            Ok(Place::Icon) => return frame::file(false),
            _ => {}
        }
        let permit = match self.access.identify(headers, from).await {
            Ok(permit) => permit,
            Err(refusal) => return self.refused(&visit, refusal),
        };
        *subject = permit.subject.clone();
        if let Subject::User(name) = &permit.subject {
            visit.user = Some(name.clone());
        }
        let is_stranger = permit.subject == Subject::Anonymous && self.access.users.is_some();
        if place == Ok(Place::Login) {
            if is_stranger {
                return self.ask(&visit, "Sign in with your user name and password for this registry.");
            }
            let mut response = said(StatusCode::SEE_OTHER, &visit, "You are signed in.");
            response.headers_mut().insert(LOCATION, HeaderValue::from_static("/"));
            return response;
        }
        let repository = place.as_ref().ok().and_then(Place::repository);
        if !permit.may(Action::Pull, repository) {
            return if is_stranger {
                self.ask(&visit, "This registry shows what it holds to those who sign in.")
            } else {
                said(StatusCode::FORBIDDEN, &visit, "You may not see this.")
            };
        }
        let (place, query) = match (place, Query::parse(&query.replace('+', "%20"))) {
            (Ok(place), Ok(query)) => (place, query),
            (Err(RouteError::Unknown), _) => return said(StatusCode::NOT_FOUND, &visit, "There is no such page."),
            (Err(error), _) => {
                return said(StatusCode::BAD_REQUEST, &visit, &format!("This address names nothing: {error}."));
            }
            (_, Err(_)) => {
                return said(StatusCode::BAD_REQUEST, &visit, "What follows the question mark is malformed.");
            }
        };
        visit.section = section(&place);
        if place == Place::Authority {
            return self.authority(&visit);
        }
        if place == Place::Search {
            visit.question = search::question(&query);
        }
        let scene = Arc::new(Scene { registry: self.clone(), permit, visit, query });
        match scene.view(place).await {
            Ok(page) => frame::respond(StatusCode::OK, &scene.visit, page),
            Err(Failed::NotFound(text)) => said(StatusCode::NOT_FOUND, &scene.visit, text),
            Err(Failed::Refused(refusal)) => self.refused(&scene.visit, refusal),
        }
    }

    fn authority(&self, visit: &Visit) -> Response<Body> {
        let Some(pem) = self.site.authority() else {
            let text = "This registry's certificate was given to it; ask its administrator who issued it.";
            return said(StatusCode::NOT_FOUND, visit, text);
        };
        let mut response = Response::new(Body::Full(Bytes::from(pem)));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-pem-file"));
        frame::guard(&mut response);
        response
    }

    /// Asks for a password, as browsers do it: they know no tokens.
    fn ask(&self, visit: &Visit, text: &str) -> Response<Body> {
        let mut response = said(StatusCode::UNAUTHORIZED, visit, text);
        let realm = self.access.realm.replace(['"', '\\'], "");
        set(&mut response, WWW_AUTHENTICATE, format!("Basic realm=\"{realm}\", charset=\"UTF-8\""));
        response
    }

    fn refused(&self, visit: &Visit, refusal: Refusal) -> Response<Body> {
        let (status, text) = refusal.for_people();
        if status == StatusCode::UNAUTHORIZED { self.ask(visit, &text) } else { said(status, visit, &text) }
    }
}

impl Scene {
    async fn view(self: &Arc<Self>, place: Place) -> View {
        match place {
            Place::Overview => self.overview().await,
            Place::Releases => self.releases().await,
            Place::Catalogs => self.catalogs().await,
            Place::Charts => self.charts().await,
            Place::Repositories => self.repositories().await,
            Place::Repository(name) => self.repository(name).await,
            Place::Image(name, at) => self.image(name, at).await,
            Place::Release(name, digest) => self.release(name, digest).await,
            Place::Catalog(name, digest) => self.catalog(name, digest).await,
            Place::Search => self.search().await,
            Place::Clusters => self.clusters().await,
            Place::Authority | Place::Login | Place::Style | Place::Icon => {
                Err(Failed::NotFound("There is no such page."))
            }
        }
    }

    async fn snapshot(&self) -> Arc<Snapshot> {
        self.registry.site.inventory.snapshot(&self.registry.storage.shelf()).await
    }

    /// Whether the visitor may see a repository.
    fn may_see(&self, name: &Repository) -> bool {
        self.permit.may(Action::Pull, Some(name))
    }

    /// The repositories that the visitor may see.
    fn visible<'s>(&self, snapshot: &'s Snapshot) -> Vec<&'s Arc<Facts>> {
        snapshot.repositories.iter().filter(|facts| self.may_see(&facts.name)).collect()
    }

    /// When everything was last verified, and what came of it.
    async fn verified(&self) -> Option<Verified> {
        let registry = self.registry.clone();
        // Small files, but files.
        let storage = registry.storage.shelf();
        let read = move || storage.verified().or_else(|| registry.site.descriptions.verified());
        tokio::task::spawn_blocking(read).await.ok()?
    }

    /// Draws where that may take its time: lists may be long, and other visitors' pulls must not wait for it.
    async fn draw<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, Failed> + Send + 'static,
    ) -> Result<T, Failed> {
        let turn = self.registry.site.turns.clone().acquire_owned().await;
        let scene = Arc::clone(self);
        let drawn = tokio::task::spawn_blocking(move || {
            // Held where the work is: who goes away does not make room for another's work beside his own.
            let _turn = turn;
            work(&scene)
        });
        match drawn.await {
            Ok(drawn) => drawn,
            Err(e) => Err(Refusal::from(Error::new(ErrorKind::Io, "draw a page", e)).into()),
        }
    }

    /// Reads images where that may block, for no longer than a page may take; the second is whether that was too short.
    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Reader<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<(T, bool), Failed> {
        let turn = self.registry.site.turns.clone().acquire_owned().await;
        let storage = self.registry.storage.shelf();
        let read = crate::backend::blocking(move || {
            let _turn = turn;
            let reader = Reader::hasty(storage.as_ref(), TIME);
            let found = work(&reader)?;
            let late = reader.is_late();
            Ok((found, late))
        });
        Ok(read.await.map_err(Refusal::from)?)
    }

    /// The image of one platform that stands for a release or a catalog.
    async fn content(&self, name: &Repository, digest: &Digest) -> Result<Option<Content>, Failed> {
        let (repository, top) = (name.clone(), digest.clone());
        let found = self.read(move |reader| {
            let Some(manifest) = reader.storage.manifest(&repository, &ManifestName::Digest(top))? else {
                return Ok(None);
            };
            Ok(reader.representative(&repository, &manifest).map(|image| image.digest().clone()))
        });
        let storage = self.registry.storage.shelf();
        Ok(found.await?.0.map(|digest| Content { storage, repository: name.clone(), digest }))
    }

    /// Where a list goes on.
    fn last(&self) -> &str {
        self.query.get("last").unwrap_or_default()
    }
}

/// Every manifest in these repositories.
fn pins(repositories: &[&Arc<Facts>]) -> HashSet<u64> {
    repositories.iter().flat_map(|facts| facts.manifests()).copied().collect()
}

/// The link at the top that a page belongs to.
fn section(place: &Place) -> &'static str {
    match place {
        Place::Overview => "/",
        Place::Releases | Place::Release(..) => "/releases",
        Place::Catalogs | Place::Catalog(..) => "/catalogs",
        Place::Charts => "/charts",
        Place::Repositories | Place::Repository(_) | Place::Image(..) => "/repositories",
        Place::Clusters => "/clusters",
        _ => "",
    }
}

/// A page with one sentence.
fn said(status: StatusCode, visit: &Visit, text: &str) -> Response<Body> {
    let heading = match status {
        StatusCode::UNAUTHORIZED => "Sign in",
        StatusCode::FORBIDDEN => "Not for you",
        StatusCode::NOT_FOUND => "Not found",
        StatusCode::SEE_OTHER => "Signed in",
        s if s.is_server_error() => "The registry has a problem",
        _ => "This cannot be answered",
    };
    let main = html! {
        h1 { (heading) }
        p { (words::clip(text, 500)) }
        p { a href="/" { "To the overview" } }
    };
    frame::respond(status, visit, Page { title: heading.to_owned(), main })
}

/// The name by which the visitor knows the registry, if it has the form of one. HTTP/2 says it in the address.
fn host(authority: Option<&str>, headers: &HeaderMap) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':' | b'[' | b']');
    let is_name = |host: &&str| !host.is_empty() && host.len() <= MAX_HOST_BYTES && host.bytes().all(plain);
    let said = authority.or_else(|| headers.get(HOST).and_then(|host| host.to_str().ok()));
    said.filter(is_name).unwrap_or("registry.example.com").to_owned()
}
