//! What is not for clients: health, metrics, and work on the storage while it is served.
//!
//! Health and metrics are answered on an address of their own (`/healthz`, `/readyz`, `/metrics`), which should be this machine's only.
//! Collecting garbage, scrubbing, repairing and what an import changes are asked for through a socket in the storage's own folder (`.airlock/admin.sock`): who can
//! write there can change the storage anyhow. [`ask`] and [`Served`] are the other side of that socket.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use airlock_oci::{Digest, Error, ErrorKind};
use airlock_store::Region;
use airlock_store::archive::{Archive, foreign::Foreign, reader};
use airlock_store::distribution::{Change, Changed, Keeper};
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;

use crate::backend;
use crate::body::Body;
use crate::limits::HEADER_TIME;
use crate::metrics::Gauges;
use crate::query::Query;
use crate::service::Registry;

/// Bytes of an answer at most, on the side that asks.
const MAX_ANSWER_BYTES: u64 = 64 * 1024 * 1024;

/// Bytes of a change at most: the record of a generation with some hundred thousand manifests.
const MAX_CHANGE_BYTES: usize = 256 * 1024 * 1024;
/// Where changes for imports are asked for.
const CHANGE: &str = "/change";
/// How long a registry may take to say whether it works.
const READY_TIME: Duration = Duration::from_secs(5);

/// What can be asked for through the socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// [`Writer::collect_garbage`](airlock_store::distribution::Writer::collect_garbage), or with `keep`
    /// [`Writer::collect_generations`](airlock_store::distribution::Writer::collect_generations)
    CollectGarbage {
        /// Only say what would go.
        dry_run: bool,
        /// First let go what only imports before the last so many have brought.
        keep: Option<usize>,
    },
    /// [`Writer::scrub`](airlock_store::distribution::Writer::scrub)
    Scrub {
        /// At most so many bytes a second.
        bytes_per_second: Option<u64>,
    },
    /// [`Writer::repair`](airlock_store::distribution::Writer::repair) from archives
    Repair {
        /// Their directories, in the order in which they are asked.
        from: Vec<PathBuf>,
        /// Only look for what is missing.
        quick: bool,
    },
}

/// A failure on its way through the socket.
#[derive(Debug, Serialize, Deserialize)]
struct Failure {
    kind: String,
    what: String,
    cause: String,
    hint: Option<String>,
}

/// Archives from which a storage is repaired.
pub struct Sources(Vec<Source>);

enum Source {
    Ours(Box<Archive>),
    Theirs(Box<Foreign>),
}

impl Sources {
    /// Opens the archive of each directory.
    pub fn open(directories: &[PathBuf]) -> Result<Self, Error> {
        let open = |directory: &PathBuf| {
            Ok(if reader::is_ours(directory)? {
                Source::Ours(Box::new(Archive::open(directory)?))
            } else {
                Source::Theirs(Box::new(Foreign::open(directory)?))
            })
        };
        directories.iter().map(open).collect::<Result<_, Error>>().map(Self)
    }

    /// The bytes under a digest, not verified.
    pub fn find(&self, digest: &Digest) -> Option<Region> {
        self.0.iter().find_map(|source| match source {
            Source::Ours(archive) => archive.region(digest),
            Source::Theirs(foreign) => foreign.region(digest),
        })
    }
}

impl Work {
    fn path(&self) -> String {
        match self {
            Self::CollectGarbage { dry_run, keep } => {
                let keep = keep.map(|keep| format!("&keep={keep}")).unwrap_or_default();
                format!("/gc?dry-run={dry_run}{keep}")
            }
            Self::Scrub { bytes_per_second } => format!("/scrub?rate={}", bytes_per_second.unwrap_or(0)),
            Self::Repair { from, quick } => {
                let from: String = from.iter().map(|path| format!("&from={}", encode(path))).collect();
                format!("/repair?quick={quick}{from}")
            }
        }
    }

    fn parse(path: &str, query: &Query) -> Option<Self> {
        let flag = |name: &str| query.get(name) == Some("true");
        match path {
            "/gc" => {
                // What cannot be read must not be taken for something milder.
                let keep = query.get("keep").map(|keep| keep.parse().ok());
                let keep = if keep == Some(None) { return None } else { keep.flatten() };
                Some(Self::CollectGarbage { dry_run: flag("dry-run"), keep })
            }
            "/scrub" => {
                let rate = query.get("rate").and_then(|rate| rate.parse().ok()).filter(|rate| *rate > 0);
                Some(Self::Scrub { bytes_per_second: rate })
            }
            "/repair" => {
                Some(Self::Repair { from: query.all("from").map(PathBuf::from).collect(), quick: flag("quick") })
            }
            _ => None,
        }
    }

    /// Does it; what came of it as JSON. Blocks on the disk.
    pub fn carry_out(&self, writer: &airlock_store::distribution::Writer) -> Result<serde_json::Value, Error> {
        let json = match self {
            Self::CollectGarbage { dry_run, keep: None } => serde_json::to_value(writer.collect_garbage(*dry_run)?),
            Self::CollectGarbage { dry_run, keep: Some(keep) } => {
                serde_json::to_value(writer.collect_generations(*keep, *dry_run)?)
            }
            Self::Scrub { bytes_per_second } => serde_json::to_value(writer.scrub(*bytes_per_second)?),
            Self::Repair { from, quick } => {
                let sources = Sources::open(from)?;
                serde_json::to_value(writer.repair(*quick, &|digest| sources.find(digest))?)
            }
        };
        json.map_err(|e| Error::new(ErrorKind::Invalid, "write the result", e))
    }
}

/// Percent-encodes a path for a query.
fn encode(path: &Path) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'/');
    let bytes = path.to_string_lossy().into_owned().into_bytes();
    bytes.into_iter().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

/// The socket's path, short enough for any depth of folders: through the open folder.
fn socket_in(folder: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/admin.sock", folder.as_raw_fd()))
}

/// Asks the registry that serves the storage below `root` to do something; `None` when none is there. Blocks until it is done.
pub fn ask(root: &Path, work: &Work) -> Result<Option<serde_json::Value>, Error> {
    ask_with(root, &work.path(), b"")
}

/// A change of the storage that a registry serves is asked of that registry.
#[derive(Clone, Debug)]
pub struct Served {
    root: PathBuf,
}

impl Served {
    /// The registry that serves the storage below `root`; `None` when none is there.
    pub fn at(root: &Path) -> Option<Self> {
        let folder = File::open(root.join(".airlock")).ok()?;
        UnixStream::connect(socket_in(&folder)).ok()?;
        Some(Self { root: root.to_owned() })
    }
}

impl Keeper for Served {
    fn change(&self, change: &Change) -> Result<Changed, Error> {
        let what = || format!("ask the registry that serves `{}`", self.root.display());
        let body = serde_json::to_vec(change).map_err(|e| Error::new(ErrorKind::Invalid, what(), e))?;
        let answer = ask_with(&self.root, CHANGE, &body)?.ok_or_else(|| {
            Error::new(ErrorKind::Network, what(), "it has ended")
                .hint("start it again, or import without it; what was fetched is kept")
        })?;
        serde_json::from_value(answer).map_err(|e| Error::new(ErrorKind::Server, what(), e))
    }
}

fn ask_with(root: &Path, path: &str, body: &[u8]) -> Result<Option<serde_json::Value>, Error> {
    let what = || format!("ask the registry that serves `{}`", root.display());
    let Ok(folder) = File::open(root.join(".airlock")) else { return Ok(None) };
    let Ok(mut stream) = UnixStream::connect(socket_in(&folder)) else { return Ok(None) };
    let head =
        format!("POST {path} HTTP/1.1\r\nHost: airlock\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    let mut answer = String::new();
    stream
        .write_all(head.as_bytes())
        .and_then(|()| stream.write_all(body))
        .and_then(|()| stream.take(MAX_ANSWER_BYTES).read_to_string(&mut answer))
        .map_err(|e| Error::io(what(), &e))?;
    let broken = || Error::new(ErrorKind::Server, what(), "it ended without an answer");
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(broken)?;
    if head.split(' ').nth(1) == Some("200") {
        return serde_json::from_str(body).map(Some).map_err(|e| Error::new(ErrorKind::Server, what(), e));
    }
    let failure: Failure = serde_json::from_str(body).map_err(|_| broken())?;
    let kind = ErrorKind::from_code(&failure.kind).unwrap_or(ErrorKind::Io);
    let error = Error::new(kind, failure.what, failure.cause);
    Err(match failure.hint {
        Some(hint) => error.hint(hint),
        None => error,
    })
}

/// Asks the registry that serves the storage below `root` whether everything works as it should, and if not, what does not; `None` when
/// none is there, or it does not talk to this user.
pub fn ready(root: &Path) -> Option<Result<(), String>> {
    let folder = File::open(root.join(".airlock")).ok()?;
    let mut stream = UnixStream::connect(socket_in(&folder)).ok()?;
    stream.set_read_timeout(Some(READY_TIME)).ok()?;
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: airlock\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.take(MAX_ANSWER_BYTES).read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some(if head.split(' ').nth(1) == Some("200") { Ok(()) } else { Err(body.trim().to_owned()) })
}

/// Listens at the socket of the storage that is served. A folder in which no socket can be made costs only this.
pub(crate) fn listen(own_folder: &Path) -> Result<UnixListener, Error> {
    let failed = |e: &std::io::Error| Error::io(format!("listen at `{}/admin.sock`", own_folder.display()), e);
    fs::set_permissions(own_folder, fs::Permissions::from_mode(0o700)).map_err(|e| failed(&e))?;
    let folder = File::open(own_folder).map_err(|e| failed(&e))?;
    let path = socket_in(&folder);
    // Left by a process that was killed: the storage's lock is ours, so nobody listens.
    let _ = fs::remove_file(&path);
    UnixListener::bind(&path).map_err(|e| failed(&e))
}

/// Answers at the socket until the server stops.
pub(crate) async fn serve_socket(listener: UnixListener, registry: Arc<Registry>, mut stopping: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                tokio::spawn(connection(TokioIo::new(stream), registry.clone(), true));
            },
            _ = stopping.changed() => return,
        }
    }
}

/// Answers about health and metrics until the server stops.
pub(crate) async fn serve_health(listener: TcpListener, registry: Arc<Registry>, mut stopping: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                tokio::spawn(connection(TokioIo::new(stream), registry.clone(), false));
            },
            _ = stopping.changed() => return,
        }
    }
}

async fn connection<S>(stream: S, registry: Arc<Registry>, works: bool)
where
    S: hyper::rt::Read + hyper::rt::Write + Unpin,
{
    let service = service_fn(move |request| {
        let registry = registry.clone();
        async move { Ok::<_, std::convert::Infallible>(handle(&registry, request, works).await) }
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    let connection =
        builder.timer(TokioTimer::new()).header_read_timeout(HEADER_TIME).serve_connection(stream, service);
    if let Err(e) = connection.await {
        tracing::debug!(error = %e, "an admin's connection ended early");
    }
}

async fn handle(registry: &Registry, request: Request<Incoming>, works: bool) -> Response<Body> {
    if works && request.method() == Method::POST && request.uri().path() == CHANGE {
        return match changed(registry, request.into_body()).await {
            Ok(changed) => answer(StatusCode::OK, "application/json", changed),
            Err(e) => failed(&e),
        };
    }
    let path = request.uri().path();
    if works && request.method() == Method::POST {
        let query = Query::parse(request.uri().query().unwrap_or_default()).unwrap_or_default();
        let disk = registry.writer.as_ref().and_then(|writer| writer.disk().cloned());
        return match (Work::parse(path, &query), disk) {
            (Some(work), Some(writer)) => {
                tracing::info!(target: "airlock_registry::audit", ?work, "work on the storage");
                match backend::blocking(move || work.carry_out(&writer)).await {
                    Ok(json) => answer(StatusCode::OK, "application/json", json.to_string()),
                    Err(e) => failed(&e),
                }
            }
            _ => answer(StatusCode::NOT_FOUND, "text/plain", "not found\n".into()),
        };
    }
    match path {
        _ if request.method() != Method::GET && request.method() != Method::HEAD => {
            answer(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "only GET\n".into())
        }
        "/healthz" => answer(StatusCode::OK, "text/plain", "ok\n".into()),
        "/readyz" => match readiness(registry).await {
            Ok(()) => answer(StatusCode::OK, "text/plain", "ready\n".into()),
            Err(why) => answer(StatusCode::SERVICE_UNAVAILABLE, "text/plain", format!("{why}\n")),
        },
        "/metrics" => {
            let free_bytes = match &registry.writer {
                Some(writer) => writer.available().await,
                None => None,
            };
            let gauges = Gauges {
                open_uploads: registry.writer.as_ref().map_or(0, |writer| writer.open_uploads() as u64),
                free_bytes,
                writable: registry.writer.is_some() && !registry.health.is_failed(),
            };
            answer(StatusCode::OK, "text/plain; version=0.0.4", registry.metrics.text(&gauges))
        }
        _ => answer(StatusCode::NOT_FOUND, "text/plain", "not found\n".into()),
    }
}

/// Makes the change that an import asks for.
async fn changed(registry: &Registry, body: Incoming) -> Result<String, Error> {
    let what = "change the storage for an import";
    // There is no socket but in the folder of a directory that is written.
    let Some(writer) = registry.writer.as_ref().and_then(|writer| writer.disk().cloned()) else {
        return Err(Error::new(ErrorKind::Refused, what, "this registry writes no directory"));
    };
    let body = Limited::new(body, MAX_CHANGE_BYTES).collect().await;
    let body = body.map_err(|e| Error::new(ErrorKind::Invalid, what, e))?.to_bytes();
    let done = tokio::task::spawn_blocking(move || {
        let change: Change = serde_json::from_slice(&body).map_err(|e| Error::new(ErrorKind::Invalid, what, e))?;
        if let Change::Put { repository, digest, tags, .. } = &change {
            tracing::info!(target: "airlock_registry::audit", %repository, %digest, ?tags, "imported");
        }
        let changed = writer.change(&change)?;
        serde_json::to_string(&changed).map_err(|e| Error::new(ErrorKind::Invalid, what, e))
    });
    done.await.unwrap_or_else(|e| Err(Error::new(ErrorKind::Io, what, e)))
}

/// Whether everything works as it should; otherwise what does not.
async fn readiness(registry: &Registry) -> Result<(), &'static str> {
    if registry.health.is_failed() {
        return Err("the storage failed; pushes are refused");
    }
    if registry.storage.repositories_after(None, 1).await.is_err() {
        return Err("the storage cannot be read");
    }
    if registry.writer.as_ref().is_some_and(|writer| !writer.is_searched()) {
        return Err("the names of the repositories are being read");
    }
    Ok(())
}

fn answer(status: StatusCode, kind: &'static str, text: String) -> Response<Body> {
    let mut response = Response::new(Body::Full(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    response
}

fn failed(error: &Error) -> Response<Body> {
    let failure = Failure {
        kind: error.kind().code().to_owned(),
        what: error.what().to_owned(),
        cause: error.cause().to_owned(),
        hint: error.hint_text().map(str::to_owned),
    };
    let text = serde_json::to_string(&failure).unwrap_or_default();
    answer(StatusCode::INTERNAL_SERVER_ERROR, "application/json", text)
}
