//! From a port to a registry: listening, TLS, connections, and the end of it.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use airlock_oci::{Error, ErrorKind};
use airlock_store::Storage;
use airlock_store::bucket::Bucket;
use airlock_store::distribution;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Sleep;
use tokio_rustls::TlsAcceptor;

use crate::access::{Access, Anonymous, ExternalUrl, Rights, Tokens, Users};
use crate::admin;
use crate::backend::{Reader, Writer};
use crate::crowd::{Crowd, Presence};
use crate::limits::{
    DRAIN_TIME, FILES_PER_CONNECTION, FREED_BYTES_KEPT, HANDSHAKE_TIME, HEADER_TIME, LEAVE_TIME, MAINTENANCE_INTERVAL,
    MAX_CONNECTIONS, MAX_HEADER_BYTES, READ_BUFFER_BYTES, ROOM_INTERVAL, WRITE_STALL_TIME,
};
use crate::lingering::{Lingering, Unread};
use crate::page::{Describe, Site};
use crate::patience::Patient;
use crate::sendfile::{Queue, Sending};
use crate::service::Registry;
use crate::tls::{Live, Tls};

/// Where one begins: [`Server::read_only`], [`Server::writable`] or [`Server::bucket`].
#[derive(Debug)]
pub struct Server;

/// A registry that is not running yet.
#[must_use]
pub struct Builder {
    storage: Reader,
    writer: Option<Writer>,
    access: Access,
    tls: Option<Tls>,
    sparse_indexes: bool,
    sparse_images: bool,
    deletion: bool,
    health: Option<SocketAddr>,
    tokens: bool,
    describe: Option<Arc<dyn Describe>>,
}

/// A registry that is running. [`Running::shutdown`] ends it in good order; dropped, it stops as well, but nobody waits for it.
#[derive(Debug)]
pub struct Running {
    /// Where it listens.
    pub addr: SocketAddr,
    /// Where it tells of its health.
    pub health: Option<SocketAddr>,
    /// The CA that clients had to trust when it started, where it is known.
    pub ca_pem: Option<String>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
    writer: Option<Writer>,
}

impl Server {
    /// Serves content that nobody may change: an archive, a directory of somebody else's.
    pub fn read_only(storage: Arc<dyn Storage>) -> Builder {
        Builder::new(Reader::Disk(storage), None)
    }

    /// Serves a directory, and writes what is pushed into it.
    pub fn writable(writer: distribution::Writer) -> Builder {
        let writer = Writer::Disk(writer);
        Builder::new(writer.reader(), Some(writer))
    }

    /// Serves a bucket, and writes what is pushed into it. Any number of servers may serve the same one.
    pub fn bucket(bucket: Bucket) -> Builder {
        let writer = Writer::Bucket(bucket);
        Builder::new(writer.reader(), Some(writer))
    }
}

impl Builder {
    fn new(storage: Reader, writer: Option<Writer>) -> Self {
        let access = Access { realm: "Airlock registry".to_owned(), ..Access::default() };
        Self {
            storage,
            writer,
            access,
            tls: None,
            sparse_indexes: true,
            sparse_images: false,
            deletion: true,
            health: None,
            tokens: false,
            describe: None,
        }
    }

    /// What users, and others, may do where. Without it users may do everything.
    pub fn rights(mut self, rights: Rights) -> Self {
        self.access.rights = Some(rights);
        self
    }

    /// Gives clients tokens for some minutes instead of asking them for the password with every request. Passwords are still taken.
    pub fn tokens(mut self) -> Self {
        self.tokens = true;
        self
    }

    /// By which URL clients reach the server, where something stands before it: tokens are fetched there, and the page names it.
    pub fn external_url(mut self, url: ExternalUrl) -> Self {
        self.access.external = Some(url);
        self
    }

    /// Lets these users in, with all rights. Without users only [`Builder::anonymous`] gives rights.
    pub fn users(mut self, users: Users) -> Self {
        self.access.users = Some(users);
        self
    }

    /// What clients without credentials may do. Nothing, unless it is said.
    pub fn anonymous(mut self, anonymous: Anonymous) -> Self {
        self.access.anonymous = anonymous;
        self
    }

    /// Speaks HTTPS. Plain HTTP unless it is said.
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Whether an index may be pushed of which not all children are there, as when only some platforms are mirrored. It may, unless it
    /// is said otherwise.
    pub fn sparse_indexes(mut self, allowed: bool) -> Self {
        self.sparse_indexes = allowed;
        self
    }

    /// Whether images are taken that name configurations or layers which are not there. By default they are not: such an image cannot be run,
    /// and whoever pushed it would hear of that on the node.
    pub fn sparse_images(mut self, allowed: bool) -> Self {
        self.sparse_images = allowed;
        self
    }

    /// Whether those who may push may also delete. They may, unless it is said otherwise.
    pub fn deletion(mut self, allowed: bool) -> Self {
        self.deletion = allowed;
        self
    }

    /// Answers `/healthz`, `/readyz` and `/metrics` at this address, without credentials. Nowhere, unless it is said.
    pub fn health(mut self, addr: SocketAddr) -> Self {
        self.health = Some(addr);
        self
    }

    /// Lets this one read releases and catalogs for the page. Without it the page shows them as images only.
    pub fn describe(mut self, describe: Arc<dyn Describe>) -> Self {
        self.describe = Some(describe);
        self
    }

    /// Listens and starts to answer. Port 0 takes a free one; [`Running::addr`] says which.
    pub async fn bind(mut self, addr: SocketAddr) -> Result<Running, Error> {
        self.access.tls = self.tls.is_some();
        if self.tokens {
            self.access.tokens = Some(Tokens::new()?);
        }
        let tls = self.tls.take();
        let loaded = match tls {
            None => None,
            Some(tls) => Some(
                tokio::task::spawn_blocking(move || Live::load(tls))
                    .await
                    .map_err(|e| Error::new(ErrorKind::Io, "prepare TLS", e))??,
            ),
        };
        keep_freed_memory();
        let listener = TcpListener::bind(addr)
            .await
            .map_err(|e| Error::io(format!("listen on {addr}"), &e).hint("choose another address with `--listen`"))?;
        let addr = listener.local_addr().map_err(|e| Error::io(format!("listen on {addr}"), &e))?;
        let acceptor = loaded.map(Arc::new);
        let ca_pem = acceptor.as_ref().and_then(|live| live.authority());
        let health = match self.health {
            None => None,
            Some(addr) => Some(
                TcpListener::bind(addr)
                    .await
                    .map_err(|e| Error::io(format!("listen on {addr} for health and metrics"), &e))?,
            ),
        };
        let health_addr = health.as_ref().and_then(|listener| listener.local_addr().ok());
        let registry = Registry {
            storage: self.storage,
            writer: self.writer.clone(),
            access: Arc::new(self.access),
            sparse_indexes: self.sparse_indexes,
            sparse_images: self.sparse_images,
            deletion: self.deletion,
            metrics: Arc::default(),
            health: Arc::default(),
            site: Arc::new(Site::new(self.describe, acceptor.clone())),
        };
        let registry = Arc::new(registry);
        let (stop, stopping) = watch::channel(false);
        if let Some(listener) = health {
            tokio::spawn(admin::serve_health(listener, registry.clone(), stopping.clone()));
        }
        if let Some(own_folder) = self.writer.as_ref().and_then(Writer::own_folder) {
            match admin::listen(&own_folder) {
                Ok(listener) => drop(tokio::spawn(admin::serve_socket(listener, registry.clone(), stopping.clone()))),
                Err(e) => tracing::warn!(error = %e, "the storage can only be worked on while it is not served"),
            }
        }
        let task = tokio::spawn(serve(listener, acceptor, registry, stopping));
        Ok(Running { addr, health: health_addr, ca_pem, stop, task, writer: self.writer })
    }
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Builder({}, {:?})", self.storage.describe(), self.access)
    }
}

impl Running {
    /// Takes no more connections, lets the requests under way finish (for at most half a minute), and puts in place what waited
    /// for its manifest.
    pub async fn shutdown(self) -> Result<(), Error> {
        let _ = self.stop.send(true);
        self.task.await.map_err(|e| Error::new(ErrorKind::Io, "stop the registry", e))?;
        if let Some(writer) = self.writer {
            writer.flush().await?;
        }
        Ok(())
    }

    /// Waits until it stops by itself, which it only does when it fails.
    pub async fn wait(&mut self) -> Result<(), Error> {
        (&mut self.task).await.map_err(|e| Error::new(ErrorKind::Io, "serve", e))
    }
}

async fn serve(
    listener: TcpListener,
    acceptor: Option<Arc<Live>>,
    registry: Arc<Registry>,
    mut stopping: watch::Receiver<bool>,
) {
    let places = Arc::new(Semaphore::new(connection_limit()));
    let mut connections = JoinSet::new();
    let crowd = Arc::new(Crowd::default());
    let mut maintenance = tokio::time::interval(MAINTENANCE_INTERVAL);
    loop {
        // A place is taken first, so that beyond the limit clients wait in the system's queue and cost nothing here.
        let place = loop {
            tokio::select! {
                place = places.clone().acquire_owned() => break place.ok(),
                _ = stopping.changed() => break None,
                _ = maintenance.tick() => maintain(&registry),
                Some(_) = connections.join_next() => {}
                () = tokio::time::sleep(ROOM_INTERVAL) => crowd.make_room(),
            }
        };
        let Some(place) = place else { break };
        let accepted = loop {
            tokio::select! {
                accepted = listener.accept() => break Some(accepted),
                _ = stopping.changed() => break None,
                _ = maintenance.tick() => maintain(&registry),
                // Reaps what has ended, so that the set does not grow.
                Some(_) = connections.join_next() => {}
            }
        };
        match accepted {
            None => break,
            Some(Ok((stream, peer))) => {
                let (registry, acceptor, stopping) = (registry.clone(), acceptor.clone(), stopping.clone());
                let entered = crowd.enter();
                connections.spawn(async move {
                    let _place = place;
                    registry.metrics.connections.fetch_add(1, Ordering::Relaxed);
                    connection(stream, peer, acceptor, registry.clone(), stopping, entered.presence()).await;
                    registry.metrics.connections.fetch_sub(1, Ordering::Relaxed);
                });
            }
            Some(Err(e)) => {
                // Out of file descriptors, mostly: others are closed soon.
                tracing::warn!(error = %e, "cannot accept a connection");
                crowd.make_room();
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    let drained = tokio::time::timeout(DRAIN_TIME, async { while connections.join_next().await.is_some() {} }).await;
    if drained.is_err() {
        tracing::warn!(connections = connections.len(), "connections are cut off");
        connections.shutdown().await;
    }
}

/// Has the allocator keep what is freed for what comes next, up to [`FREED_BYTES_KEPT`] a pool.
///
/// Bodies come in buffers of [`READ_BUFFER_BYTES`]. glibc gives memory of that size back to the system as soon as it is freed and takes it again
/// page by page, until it has seen a larger block being freed: then it takes its size as that of what comes and goes (`M_MMAP_THRESHOLD` in
/// mallopt(3)). The block is never touched, so that it costs nothing; other allocators do nothing about it.
fn keep_freed_memory() {
    drop(std::hint::black_box(Vec::<u8>::with_capacity(FREED_BYTES_KEPT / 2)));
}

/// How many connections the system's limit of open files allows, after asking for as many files as this process may have.
fn connection_limit() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let files = match setrlimit(Resource::Nofile, wanted) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    let files = files.map_or(usize::MAX, |files| usize::try_from(files).unwrap_or(usize::MAX));
    (files / FILES_PER_CONNECTION).clamp(1, MAX_CONNECTIONS)
}

fn maintain(registry: &Registry) {
    let Some(writer) = registry.writer.clone() else { return };
    let health = registry.health.clone();
    tokio::spawn(async move {
        health.try_again(&writer).await;
        match writer.maintain().await {
            Ok(0) => {}
            Ok(expired) => tracing::info!(expired, "abandoned uploads were removed"),
            Err(e) => {
                tracing::error!(error = %e, "what has to be done now and then cannot be done");
                if e.kind() == ErrorKind::Io {
                    health.failed(&writer);
                }
            }
        }
        if let Err(e) = writer.search_repositories().await {
            tracing::error!(error = %e, "the repositories cannot be listed");
        }
    });
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    acceptor: Option<Arc<Live>>,
    registry: Arc<Registry>,
    stopping: watch::Receiver<bool>,
    presence: &Arc<Presence>,
) {
    // Answers are written whole; waiting for more only delays them.
    let _ = stream.set_nodelay(true);
    match acceptor {
        None => {
            let queue = Queue::default();
            requests(Sending::new(stream, queue.clone()), peer, registry, stopping, Some(queue), presence).await;
        }
        Some(live) => {
            let acceptor = TlsAcceptor::from(live.config().await);
            let handshake = tokio::select! {
                handshake = tokio::time::timeout(HANDSHAKE_TIME, acceptor.accept(stream)) => handshake,
                () = presence.is_over() => return tracing::debug!(%peer, "a connection without a handshake made room"),
            };
            match handshake {
                Ok(Ok(stream)) => {
                    presence.is_open();
                    requests(stream, peer, registry, stopping, None, presence).await;
                }
                Ok(Err(e)) => tracing::debug!(%peer, error = %e, "TLS handshake failed"),
                Err(_) => tracing::debug!(%peer, "TLS handshake took too long"),
            }
        }
    }
}

async fn requests<S>(
    stream: S,
    peer: SocketAddr,
    registry: Arc<Registry>,
    mut stopping: watch::Receiver<bool>,
    queue: Option<Queue>,
    presence: &Arc<Presence>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .max_buf_size(READ_BUFFER_BYTES)
        .writev(true)
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(MAX_HEADER_BYTES as u32)
        .keep_alive_interval(Some(HEADER_TIME));
    let unread = Unread::default();
    let stream = Lingering::new(Patient::new(stream, WRITE_STALL_TIME).known_to(presence), unread.clone());
    let asking = presence.clone();
    let service = service_fn(move |request| {
        let (registry, queue, unread) = (registry.clone(), queue.clone(), unread.clone());
        let turn = asking.begin();
        async move {
            let response = registry.handle(request, peer, queue, &unread).await;
            Ok::<_, std::convert::Infallible>(response.map(|body| turn.hold(body)))
        }
    });
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let over = async {
        presence.is_over().await;
        tracing::debug!(%peer, "a connection without requests is closed");
    };
    tokio::pin!(over);
    let mut leaving = None;
    let mut stop = *stopping.borrow();
    if stop {
        connection.as_mut().graceful_shutdown();
    }
    loop {
        tokio::select! {
            // First what has arrived: a request that came at the last moment is answered and not reset.
            biased;
            ended = connection.as_mut() => {
                if let Err(e) = ended {
                    tracing::debug!(%peer, error = %e, "a connection ended early");
                }
                return;
            }
            _ = stopping.changed(), if !stop => {
                stop = true;
                connection.as_mut().graceful_shutdown();
            }
            () = &mut over, if leaving.is_none() => {
                connection.as_mut().graceful_shutdown();
                leaving = Some(Box::pin(tokio::time::sleep(LEAVE_TIME)));
            }
            () = wait_for(&mut leaving) => return,
        }
    }
}

/// Waits for the end of the time, or for ever where none was set.
async fn wait_for(time: &mut Option<Pin<Box<Sleep>>>) {
    match time {
        Some(time) => time.as_mut().await,
        None => std::future::pending().await,
    }
}
