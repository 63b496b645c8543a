//! A registry in this process whose every answer can be broken on purpose.
//!
//! It speaks the distribution protocol (push, pull, mount, ranges, referrers, deletion, Basic and Bearer authentication, TLS) on a
//! loopback port of its own, holds its content in memory, and writes down every request.
//!
//! ```
//! use airlock_testkit::fixture;
//! use airlock_testkit::scripted::{Fault, Registry};
//!
//! let registry = Registry::start();
//! let image = fixture::image(1).build();
//! registry.put("team/app", &image, Some("v1"));
//! registry.fault(Fault::on("GET", "/v2/*/blobs/*").first(1).reset_after(100));
//! // … let a client pull `registry.reference("team/app:v1")` …
//! assert_eq!(registry.count("GET", "/v2/team/app/manifests/v1"), 0);
//! ```

mod auth;
mod content;
mod fault;
pub(crate) mod http;
mod protocol;
mod serve;
pub(crate) mod tls;

use std::collections::HashMap;
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use airlock_oci::Digest;

pub use auth::{Auth, Bearer};
pub use content::Content;
pub use fault::{Fault, When};
pub use tls::{Certificates, Shown};

use crate::fixture::Built;

/// A running registry; ends when dropped.
#[derive(Debug)]
pub struct Registry {
    shared: Arc<Shared>,
    port: u16,
    host: &'static str,
    certificates: Option<Certificates>,
    acceptor: Option<JoinHandle<()>>,
}

/// What a registry is like before it starts.
#[derive(Clone, Debug, Default)]
pub struct Builder {
    auth: Auth,
    tls: Option<Shown>,
    client_certificate: bool,
    behaviour: Behaviour,
}

/// What a registry does and does not; can be changed while it runs by [`Registry::behave`].
#[derive(Clone, Debug)]
pub struct Behaviour {
    /// Has the referrers API (and sends `OCI-Subject`).
    pub referrers: bool,
    /// Mounts answer 201; otherwise 202 with a session.
    pub mounts: bool,
    /// Refuses all writes with 405.
    pub read_only: bool,
    /// Answers uploads with 507.
    pub full: bool,
    /// Takes a blob in one PUT; otherwise 405.
    pub monolithic: bool,
    /// The largest request body that is taken (bytes); above it 413.
    pub max_body: u64,
    /// Announced as `OCI-Chunk-Min-Length`.
    pub min_chunk: u64,
    /// Takes an index whose children are not all there.
    pub sparse: bool,
    /// Deletes manifests; otherwise 405.
    pub deletes: bool,
    /// Deletes tags; otherwise 400, as docker distribution 2.
    pub deletes_tags: bool,
    /// Entries in a page of a list; 0: everything in one, whatever is asked for.
    pub page: usize,
    /// `Location` headers are absolute.
    pub absolute_locations: bool,
}

/// One request as it was received, and how it was answered.
#[derive(Clone, Debug)]
pub struct Request {
    /// `GET`, …
    pub method: String,
    /// The path without the query.
    pub path: String,
    /// The query, without `?`; empty when there is none.
    pub query: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// The status that was sent; 0 when the connection was broken before one.
    pub status: u16,
    /// Bytes of the request's body that were received.
    pub received: u64,
    /// Bytes of the answer's body that were sent.
    pub sent: u64,
    number: u64,
    /// How often the registry had been healed when it came.
    healed: u64,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    stop: AtomicBool,
}

#[derive(Debug)]
struct State {
    auth: Auth,
    tokens: auth::Tokens,
    behaviour: Behaviour,
    content: Content,
    faults: Vec<Fault>,
    /// How often all faults were taken away.
    healed: u64,
    log: Vec<Request>,
    requests: u64,
    base: String,
    /// Open connections by number, to end them with the registry.
    connections: HashMap<u64, TcpStream>,
    connections_made: u64,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            referrers: true,
            mounts: true,
            read_only: false,
            full: false,
            monolithic: true,
            max_body: u64::MAX,
            min_chunk: 0,
            sparse: true,
            deletes: true,
            deletes_tags: true,
            page: 100,
            absolute_locations: false,
        }
    }
}

impl Builder {
    /// Who may do what.
    pub fn auth(mut self, auth: Auth) -> Self {
        self.auth = auth;
        self
    }

    /// HTTPS with a certificate of a new authority.
    pub fn tls(mut self) -> Self {
        self.tls = Some(Shown::Valid);
        self
    }

    /// HTTPS with a certificate that is wrong in this way.
    pub fn tls_showing(mut self, shown: Shown) -> Self {
        self.tls = Some(shown);
        self
    }

    /// HTTPS that asks for a client's certificate.
    pub fn client_certificate(mut self) -> Self {
        self.client_certificate = true;
        self
    }

    /// What it does and does not.
    pub fn behaviour(mut self, behaviour: Behaviour) -> Self {
        self.behaviour = behaviour;
        self
    }

    /// Starts it.
    ///
    /// # Panics
    /// When no loopback port can be had.
    pub fn start(self) -> Registry {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
        let port = listener.local_addr().expect("its address").port();
        let (certificates, config) = match self.tls {
            Some(shown) => {
                let (certificates, config) = tls::make(shown, self.client_certificate);
                (Some(certificates), Some(config))
            }
            None => (None, None),
        };
        let scheme = if config.is_some() { "https" } else { "http" };
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                auth: self.auth,
                tokens: auth::Tokens::default(),
                behaviour: self.behaviour,
                content: Content::default(),
                faults: Vec::new(),
                healed: 0,
                log: Vec::new(),
                requests: 0,
                base: format!("{scheme}://127.0.0.1:{port}"),
                connections: HashMap::new(),
                connections_made: 0,
            }),
            stop: AtomicBool::new(false),
        });
        let acceptor = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || accept(&listener, &shared, config.as_ref())
        });
        Registry { shared, port, host: "127.0.0.1", certificates, acceptor: Some(acceptor) }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>, tls: Option<&Arc<rustls::ServerConfig>>) {
    for stream in listener.incoming() {
        if shared.stop.load(Ordering::Relaxed) {
            return;
        }
        let Ok(stream) = stream else { continue };
        let Ok(copy) = stream.try_clone() else { continue };
        let number = {
            let mut state = shared.state();
            state.connections_made += 1;
            let number = state.connections_made;
            state.connections.insert(number, copy);
            number
        };
        let shared = Arc::clone(shared);
        let tls = tls.cloned();
        std::thread::spawn(move || {
            // A broken connection is the other side's to report.
            let _ = serve::connection(&shared, stream, tls.as_ref());
            // The copy goes too: only then is the connection closed.
            shared.state().connections.remove(&number);
        });
    }
}

impl Shared {
    /// Brings the log's entry of a request up to date. Done before bytes are sent, so that who has received them finds them there.
    fn update(&self, request: &Request) {
        let mut state = self.state();
        if let Some(entry) = state.log.iter_mut().rev().find(|r| r.number == request.number) {
            entry.clone_from(request);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registry {
    /// An open registry with plain HTTP.
    pub fn start() -> Self {
        Self::builder().start()
    }

    /// A registry with other properties.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// The name in a reference.
    pub fn registry(&self) -> airlock_oci::Registry {
        airlock_oci::Registry::new(&self.address()).expect("an address is a registry's name")
    }

    /// `127.0.0.1:PORT/<rest>` as a reference.
    ///
    /// # Panics
    /// When that is none.
    pub fn reference(&self, rest: &str) -> airlock_oci::Reference {
        format!("{}/{rest}", self.address()).parse().expect("a reference")
    }

    /// `http://127.0.0.1:PORT` or with `https`.
    pub fn url(&self) -> String {
        self.shared.state().base.clone()
    }

    /// The authority and a client certificate, with TLS.
    pub fn certificates(&self) -> Option<&Certificates> {
        self.certificates.as_ref()
    }

    /// Puts a fixture into a repository, and under a tag.
    pub fn put(&self, repository: &str, built: &Built, tag: Option<&str>) {
        self.shared.state().content.put(repository, built, tag);
    }

    /// Looks at, or changes, the content.
    pub fn content<T>(&self, with: impl FnOnce(&mut Content) -> T) -> T {
        with(&mut self.shared.state().content)
    }

    /// Whether a repository has this fixture whole: every manifest, byte for byte, and every blob.
    pub fn has(&self, repository: &str, built: &Built) -> bool {
        let state = self.shared.state();
        built.all().into_iter().all(|part| {
            let digest = part.digest().to_string();
            let same = state.content.manifest(repository, &digest).is_some_and(|m| m.bytes() == part.manifest.bytes());
            same && part
                .blobs
                .iter()
                .all(|b| state.content.blob(repository, &b.descriptor.digest).is_some_and(|bytes| *bytes == b.bytes))
        })
    }

    /// Adds a fault. Of several that match one request the first added has its way.
    pub fn fault(&self, fault: Fault) {
        self.shared.state().faults.push(fault);
    }

    /// Takes all faults away; requests that stall go on.
    pub fn heal(&self) {
        let mut state = self.shared.state();
        state.faults.clear();
        state.healed += 1;
    }

    /// Changes what it does and does not.
    pub fn behave(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut self.shared.state().behaviour);
    }

    /// Changes who may do what.
    pub fn set_auth(&self, auth: Auth) {
        self.shared.state().auth = auth;
    }

    /// Every token issued so far is refused from now on.
    pub fn expire_tokens(&self) {
        self.shared.state().tokens.expire();
    }

    /// Every request so far, in the order in which they came; those under way included.
    pub fn log(&self) -> Vec<Request> {
        self.shared.state().log.clone()
    }

    /// Forgets the log.
    pub fn clear_log(&self) {
        self.shared.state().log.clear();
    }

    /// How many requests had this method and path (`*` stands for anything).
    pub fn count(&self, method: &str, path: &str) -> usize {
        let state = self.shared.state();
        state.log.iter().filter(|r| http::matches(method, &r.method) && http::matches(path, &r.path)).count()
    }

    /// The blobs of which more than their size was sent, in all repositories together: nothing should be fetched twice.
    pub fn fetched_twice(&self) -> Vec<Digest> {
        let state = self.shared.state();
        let mut sent: std::collections::BTreeMap<Digest, (u64, u64)> = std::collections::BTreeMap::new();
        for request in state.log.iter().filter(|r| r.method == "GET" && matches!(r.status, 200 | 206)) {
            let Some((head, digest)) = request.path.rsplit_once("/blobs/") else { continue };
            let Ok(digest) = digest.parse::<Digest>() else { continue };
            let repository = head.trim_start_matches("/v2/");
            let size = state.content.blob(repository, &digest).map_or(0, |b| b.len() as u64);
            let entry = sent.entry(digest).or_insert((0, size));
            entry.0 += request.sent;
        }
        sent.into_iter().filter(|(_, (sent, size))| sent > size).map(|(digest, _)| digest).collect()
    }
}

impl Request {
    /// A header's first value, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// The `Authorization` header: whoever sent it knew a secret.
    pub fn authorization(&self) -> Option<&str> {
        self.header("authorization")
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        // Wakes the acceptor, which then sees that it is over.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        for (_, connection) in self.shared.state().connections.drain() {
            let _ = connection.shutdown(std::net::Shutdown::Both);
        }
    }
}
