//! An S3-compatible object store in this process, which can be told to fail; and moto, another one, in a process of its own.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use airlock_store::bucket::{AccessKey, Bucket, Settings};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// What happens to a request instead of what it asks for.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// 503 `SlowDown`.
    SlowDown,
    /// 500 `InternalError`.
    Internal,
    /// 403 `AccessDenied`.
    Denied,
    /// 404 `NoSuchUpload`.
    Gone,
    /// 403 `QuotaExceeded`.
    Full,
    /// The connection is closed without an answer, before anything is done.
    Cut,
    /// It is done, and then the connection is closed without an answer.
    Unanswered,
    /// The answer ends after so many bytes.
    Short(usize),
    /// It waits until it is told to go on, and is then done.
    Held(Arc<Gate>),
}

/// Where a request waits.
#[derive(Debug)]
pub(crate) struct Gate {
    arrived: Semaphore,
    open: Semaphore,
}

/// The hold of a request. Dropped, it lets it go.
pub(crate) struct Hold(Arc<Gate>);

impl Hold {
    /// Waits for the request.
    pub(crate) async fn arrived(&self) {
        let arrived = tokio::time::timeout(Duration::from_secs(120), self.0.arrived.acquire()).await;
        arrived.expect("the request that is to be held never came").unwrap().forget();
    }

    /// Lets it go on.
    pub(crate) fn release(self) {
        drop(self);
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.open.close();
    }
}

/// A fault for the next so many requests of a method whose path and query contain a text.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) method: &'static str,
    pub(crate) path: &'static str,
    pub(crate) times: usize,
    pub(crate) fault: Fault,
}

/// A running store with one bucket, `mirror`.
pub(crate) struct Store {
    pub(crate) addr: SocketAddr,
    pub(crate) root: tempfile::TempDir,
    rules: Arc<Mutex<Vec<Rule>>>,
    requests: Arc<AtomicUsize>,
    /// Seconds by which its clock is behind.
    behind: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

pub(crate) const KEY: (&str, &str) = ("test-key", "test-secret");

impl Store {
    pub(crate) async fn start() -> Self {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("mirror")).unwrap();
        let mut builder = S3ServiceBuilder::new(s3s_fs::FileSystem::new(root.path()).unwrap());
        builder.set_auth(SimpleAuth::from_single(KEY.0, KEY.1));
        let service = builder.build();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (rules, requests) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
        let (folder, behind) = (root.path().join("mirror"), Arc::new(AtomicUsize::new(0)));
        let task = tokio::spawn(serve(listener, service, folder, rules.clone(), requests.clone(), behind.clone()));
        Self { addr, root, rules, requests, behind, task }
    }

    pub(crate) fn settings(&self, prefix: &str) -> Settings {
        settings(format!("http://{}", self.addr), prefix)
    }

    pub(crate) async fn bucket(&self) -> Bucket {
        Bucket::open(&self.settings("place/in")).await.unwrap()
    }

    /// The folder that stands for the place of [`Store::bucket`].
    pub(crate) fn folder(&self) -> PathBuf {
        self.root.path().join("mirror/place/in")
    }

    /// Makes everything that it has by now as old as this.
    pub(crate) fn age(&self, age: Duration) {
        let modified = SystemTime::now() - age;
        let mut folders = vec![self.folder()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap().flatten() {
                if entry.file_type().unwrap().is_dir() {
                    folders.push(entry.path());
                } else {
                    std::fs::File::options().write(true).open(entry.path()).unwrap().set_modified(modified).unwrap();
                }
            }
        }
    }

    pub(crate) fn fail(&self, method: &'static str, path: &'static str, times: usize, fault: Fault) {
        self.rules.lock().unwrap().push(Rule { method, path, times, fault });
    }

    /// Holds the next such request before it is done.
    pub(crate) fn hold(&self, method: &'static str, path: &'static str) -> Hold {
        self.hold_after(0, method, path)
    }

    /// Lets so many such requests pass and holds the next one.
    pub(crate) fn hold_after(&self, passing: usize, method: &'static str, path: &'static str) -> Hold {
        self.fail(method, path, passing, Fault::None);
        let gate = Arc::new(Gate { arrived: Semaphore::new(0), open: Semaphore::new(0) });
        self.fail(method, path, 1, Fault::Held(gate.clone()));
        Hold(gate)
    }

    /// Faults that have not happened yet.
    pub(crate) fn faults_left(&self) -> usize {
        self.rules.lock().unwrap().iter().map(|rule| rule.times).sum()
    }

    pub(crate) fn heal(&self) {
        self.rules.lock().unwrap().clear();
    }

    /// Requests so far.
    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }

    /// From now on its clock is behind, also in what it says of objects that it has.
    pub(crate) fn turn_back(&self, time: Duration) {
        self.behind.store(usize::try_from(time.as_secs()).unwrap(), Ordering::Relaxed);
    }

    /// Nobody listens any more.
    pub(crate) fn stop(&self) {
        self.task.abort();
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn settings(endpoint: String, prefix: &str) -> Settings {
    let mut settings = Settings::parse(&format!("s3://mirror/{prefix}")).unwrap();
    settings.endpoint = Some(endpoint);
    settings.region = Some("us-east-1".into());
    settings.key = Some(AccessKey::new(KEY.0, KEY.1));
    settings
}

/// The program that is moto.
pub(crate) const MOTO: &str = "moto_server";
/// How long it may take to listen: it is a large program for a machine that runs many tests at once.
const MOTO_START: Duration = Duration::from_secs(120);

/// moto with one bucket, `mirror`, in its memory. Unlike the store above it takes keys of every length that S3 takes.
pub(crate) struct Moto {
    pub(crate) endpoint: String,
    process: Child,
    _folder: tempfile::TempDir,
}

impl Moto {
    /// `None`, and said so, where it is not installed.
    pub(crate) async fn start() -> Option<Self> {
        let program = super::tool(MOTO)?;
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("moto.log");
        // It picks a port that nobody else has, and says which.
        let process = Command::new(program)
            .args(["-H", "127.0.0.1", "-p", "0"])
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut moto = Self { endpoint: String::new(), process, _folder: folder };
        let end = Instant::now() + MOTO_START;
        while moto.endpoint.is_empty() {
            let said = std::fs::read_to_string(&log).unwrap();
            let is_there = moto.process.try_wait().unwrap().is_none() && Instant::now() < end;
            assert!(is_there, "moto does not listen: {said}");
            if let Some((addr, _)) = said.split_once("http://").and_then(|(_, rest)| rest.split_once('\n')) {
                moto.endpoint = format!("http://{}", addr.trim());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let made = super::client().put(format!("{}/mirror", moto.endpoint)).send().await.unwrap();
        assert!(made.status().is_success(), "{}", made.text().await.unwrap());
        Some(moto)
    }

    pub(crate) fn settings(&self, prefix: &str) -> Settings {
        settings(self.endpoint.clone(), prefix)
    }

    pub(crate) async fn bucket(&self) -> Bucket {
        Bucket::open(&self.settings("place/in")).await.unwrap()
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

async fn serve(
    listener: TcpListener,
    service: S3Service,
    folder: PathBuf,
    rules: Arc<Mutex<Vec<Rule>>>,
    requests: Arc<AtomicUsize>,
    behind: Arc<AtomicUsize>,
) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                let _ = stream.set_nodelay(true);
                let (service, rules, requests) = (service.clone(), rules.clone(), requests.clone());
                let (folder, behind) = (folder.clone(), behind.clone());
                connections.spawn(async move {
                    let service = service_fn(move |request| {
                        requests.fetch_add(1, Ordering::Relaxed);
                        let (service, fault) = (service.clone(), fault_of(&rules, &request));
                        let tags = listed_tags(&folder, &request).filter(|_| fault.is_none());
                        let behind = Duration::from_secs(behind.load(Ordering::Relaxed) as u64);
                        let is_listing = request.uri().query().is_some_and(|query| query.contains("list-type=2"));
                        async move {
                            let mut answer = match tags {
                                Some(text) => return Ok(document(200, text)),
                                None => answer(&service, request, fault).await?,
                            };
                            if let Some(date) = answer.headers_mut().get_mut("last-modified") {
                                let date_here = httpdate::parse_http_date(date.to_str().unwrap()).unwrap();
                                *date = httpdate::fmt_http_date(date_here - behind).parse().unwrap();
                            }
                            if is_listing && !behind.is_zero() {
                                let (head, body) = answer.into_parts();
                                let text = String::from_utf8(body.collect().await?.to_bytes().to_vec()).unwrap();
                                answer = document(head.status.as_u16(), turned_back(&text, behind));
                            }
                            Ok::<_, std::io::Error>(answer)
                        }
                    });
                    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

fn fault_of(rules: &Mutex<Vec<Rule>>, request: &Request<Incoming>) -> Option<Fault> {
    let mut rules = rules.lock().unwrap();
    let path = request.uri().path_and_query().map_or("", |path| path.as_str());
    let hit = rules.iter_mut().find(|rule| {
        rule.times > 0 && (rule.method == "*" || request.method() == rule.method) && path.contains(rule.path)
    })?;
    hit.times -= 1;
    Some(hit.fault.clone())
}

/// A listing by a clock that is so far behind.
fn turned_back(listing: &str, behind: Duration) -> String {
    let mut pieces = listing.split("<LastModified>");
    let mut text = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (date, rest) = piece.split_once('<').unwrap();
        text += &format!("<LastModified>{}<{rest}", date_before(date, behind));
    }
    text
}

/// An RFC 3339 time in UTC, so much earlier.
fn date_before(date: &str, earlier: Duration) -> String {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = MONTHS[date[5..7].parse::<usize>().unwrap() - 1];
    let rest = format!("{} {month} {} {} GMT", &date[8..10], &date[..4], &date[11..19]);
    // The other form names the day of the week, and is no date with another one.
    let known = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]
        .iter()
        .find_map(|day| httpdate::parse_http_date(&format!("{day}, {rest}")).ok());
    let then = httpdate::fmt_http_date(known.unwrap() - earlier);
    let month = MONTHS.iter().position(|month| *month == &then[8..11]).unwrap() + 1;
    format!("{}-{month:02}-{}T{}.000Z", &then[12..16], &then[5..7], &then[17..25])
}

/// The answer to a listing of tags. s3s-fs walks through the whole bucket for each thousand keys, a thread's work for each file, which
/// takes minutes for ten thousand tags.
fn listed_tags(folder: &std::path::Path, request: &Request<Incoming>) -> Option<String> {
    let query =
        request.uri().query().filter(|query| query.contains("list-type=2") && query.contains("_manifests%2Ftags"))?;
    let value = |name: &str| {
        let found = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        found.map(|text| text.replace("%2F", "/"))
    };
    let (prefix, after) = (value("prefix")?, value("continuation-token").or_else(|| value("start-after")));
    let mut found = Vec::new();
    let mut folders = vec![folder.join(prefix.trim_end_matches('/'))];
    while let Some(path) = folders.pop() {
        for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push((
                    path.strip_prefix(folder).unwrap().to_string_lossy().into_owned(),
                    entry.metadata().unwrap().len(),
                ));
            }
        }
    }
    found.sort();
    let from = after.map_or(0, |after| found.partition_point(|(key, _)| *key <= after));
    let page = &found[from..found.len().min(from + 1000)];
    let more = from + page.len() < found.len();
    let contents: String = page
        .iter()
        .map(|(key, len)| {
            format!("<Contents><Key>{key}</Key><Size>{len}</Size><LastModified>2026-11-21T12:00:00.000Z</LastModified></Contents>")
        })
        .collect();
    let next =
        if more { format!("<NextContinuationToken>{}</NextContinuationToken>", page[999].0) } else { String::new() };
    Some(format!(
        "<ListBucketResult><Name>mirror</Name><Prefix>{prefix}</Prefix><KeyCount>{}</KeyCount><MaxKeys>1000</MaxKeys>\
         <IsTruncated>{more}</IsTruncated>{next}{contents}</ListBucketResult>",
        page.len()
    ))
}

fn document(status: u16, text: String) -> Answer {
    let body = Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed_unsync();
    Response::builder().status(status).header("content-type", "application/xml").body(body).unwrap()
}

type Answer = Response<http_body_util::combinators::UnsyncBoxBody<Bytes, std::io::Error>>;

async fn answer(
    service: &S3Service,
    request: Request<Incoming>,
    fault: Option<Fault>,
) -> Result<Answer, std::io::Error> {
    let cut = || std::io::Error::other("cut");
    let refuse = |status: u16, code: &str| {
        Ok(document(
            status,
            format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>a test</Message></Error>"),
        ))
    };
    let refused = match fault {
        Some(Fault::SlowDown) => Some((503, "SlowDown")),
        Some(Fault::Internal) => Some((500, "InternalError")),
        Some(Fault::Denied) => Some((403, "AccessDenied")),
        Some(Fault::Gone) => Some((404, "NoSuchUpload")),
        Some(Fault::Full) => Some((403, "QuotaExceeded")),
        _ => None,
    };
    if let Some((status, code)) = refused {
        // A client whose bytes are not taken may see its connection break before it sees the answer.
        let _ = request.into_body().collect().await;
        return refuse(status, code);
    }
    let after = match fault {
        Some(Fault::Cut) => return Err(cut()),
        Some(Fault::Held(gate)) => {
            gate.arrived.add_permits(1);
            let _ = gate.open.acquire().await;
            None
        }
        Some(Fault::None) => None,
        other => other,
    };
    // To its end, as a store does it: where its future is dropped, because its client was killed, this one leaves an object half joined, and
    // has forgotten its parts.
    let service = service.clone();
    let of_parts = request.uri().query().is_some_and(|query| query.contains("uploadId="));
    let done = tokio::spawn(async move { service.call(request.map(s3s::Body::from)).await });
    let response = done.await.map_err(|_| cut())?.map_err(|_| cut())?;
    if of_parts && response.status() == 403 {
        // To this one an upload that is over is somebody else's; S3 says that there is none.
        return refuse(404, "NoSuchUpload");
    }
    let left = match after {
        Some(Fault::Unanswered) => return Err(cut()),
        Some(Fault::Short(bytes)) => bytes,
        _ => usize::MAX,
    };
    Ok(response.map(|body| {
        let body = body.map_err(|e| std::io::Error::other(e.to_string())).boxed_unsync();
        Cut { body, left }.boxed_unsync()
    }))
}

/// A body that breaks off.
struct Cut {
    body: http_body_util::combinators::UnsyncBoxBody<Bytes, std::io::Error>,
    left: usize,
}

impl Body for Cut {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        if self.left == 0 {
            return Poll::Ready(Some(Err(std::io::Error::other("cut"))));
        }
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = polled {
            return Poll::Ready(Some(Ok(frame.map_data(|mut bytes| {
                bytes.truncate(self.left);
                self.left -= bytes.len();
                bytes
            }))));
        }
        polled
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
