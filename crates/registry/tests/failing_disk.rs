//! A disk that fails: what could not be written is not acknowledged, what could not be read is never said to be absent nor sent wrong, and
//! the registry is as before when the disk works again.
//!
//! The server is a process of its own, whose calls of the C library fail with EIO as a file says (`support/failing_disk.c`), or whose calls of
//! the kernel do, which the library does not see (`strace` puts the error in their place); a read-only file system is a real one.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test ends where it fails")]

mod support;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use airlock_oci::Digest;
use airlock_registry::admin::{Work, ask};
use airlock_registry::{Anonymous, Server, Tls};
use airlock_store::distribution::{Durability, Writer};
use futures_util::StreamExt;
use reqwest::{Client, Method, Response};
use support::*;

/// Set for the process of the server: the directory that it serves.
const ROOT: &str = "AIRLOCK_FAILING_DISK_TEST_ROOT";
/// Set for the process of the server where it speaks TLS.
const WITH_TLS: &str = "AIRLOCK_FAILING_DISK_TEST_TLS";
/// Names the file that says what fails.
const RULES: &str = "FAILING_DISK";
/// How long a disk that works again may stay unnoticed: it is tried every ten seconds.
const NOTICED: Duration = Duration::from_secs(60);
const MIB: usize = 1024 * 1024;

/// A client that keeps no connections for later. The server ends those that ask for nothing after some seconds, which may be just when the
/// disk is found to work again and the next request is sent.
fn forgetful_client() -> Client {
    client_builder().pool_max_idle_per_host(0).build().unwrap()
}

/// Not a test, but the server of those below, in a process of its own.
#[test]
fn server_of_the_failing_disk() {
    let Some(root) = std::env::var_os(ROOT) else { return };
    let root = Path::new(&root);
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let writer = Writer::open(&root.join("store"), Durability::Image).unwrap();
        let mut server = Server::writable(writer).anonymous(Anonymous::Push).health(localhost());
        if std::env::var_os(WITH_TLS).is_some() {
            server = server.tls(Tls::SelfMade { folder: root.join("tls"), names: Vec::new() });
        }
        let running = server.bind(localhost()).await.unwrap();
        let known = format!("{} {}", running.addr, running.health.unwrap());
        fs::write(root.join("addr.new"), known).unwrap();
        fs::rename(root.join("addr.new"), root.join("addr")).unwrap();
        std::future::pending::<()>().await;
    });
}

/// A registry whose disk can be made to fail.
struct Registry {
    folder: tempfile::TempDir,
    process: Child,
    base: String,
    health: String,
    client: Client,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The shim, made anew; `None`, with a line, where there is no C compiler.
fn shim(folder: &Path) -> Option<PathBuf> {
    let cc = tool("cc")?;
    let made = folder.join("failing_disk.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/failing_disk.c");
    let done = Command::new(cc).args(["-shared", "-fPIC", "-O1", "-o"]).args([&made, &source]).arg("-ldl").output();
    let done = done.unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    Some(made)
}

impl Registry {
    fn start(tls: bool) -> Option<Self> {
        Self::start_as(tls, |root| {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.env(RULES, root.join("rules")).env("LD_PRELOAD", shim(root)?);
            Some(command)
        })
    }

    /// One of which each of the two threads that serve fails to send a piece of a file once, when it does so for the second time.
    fn start_failing_to_send() -> Option<Self> {
        let strace = tool("strace")?;
        // The tracer is nobody's child, so that the server is ours, and ends with it.
        let inject = ["-e", "signal=none", "-e", "trace=sendfile", "-e", "inject=sendfile:error=EIO:when=2"];
        let options = ["-D", "-f", "--seccomp-bpf", "-qq", "-o"];
        let tried = Command::new(&strace).args(["-f", "--seccomp-bpf", "-qq", "-e", "trace=sendfile", "true"]).output();
        if !tried.is_ok_and(|tried| tried.status.success()) {
            println!("skipped: no process can be traced here");
            return None;
        }
        Self::start_as(false, |root| {
            let mut command = Command::new(strace);
            command.args(options).arg(root.join("sent")).args(inject).arg(std::env::current_exe().unwrap());
            command.env("TOKIO_WORKER_THREADS", "2");
            Some(command)
        })
    }

    fn start_as(tls: bool, server: impl FnOnce(&Path) -> Option<Command>) -> Option<Self> {
        // Not in the folder for temporary files, which may be in memory: there nothing has to be read from a disk.
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let root = folder.path().canonicalize().unwrap();
        let mut command = server(&root)?;
        command.args(["--exact", "server_of_the_failing_disk"]).stdout(Stdio::null()).env(ROOT, &root);
        if tls {
            command.env(WITH_TLS, "");
        }
        let process = command.spawn().unwrap();
        let mut registry =
            Self { folder, process, base: String::new(), health: String::new(), client: forgetful_client() };
        let end = Instant::now() + Duration::from_secs(60);
        let known = loop {
            if let Ok(known) = fs::read_to_string(root.join("addr")) {
                break known;
            }
            assert!(Instant::now() < end, "the server does not start");
            std::thread::sleep(Duration::from_millis(10));
        };
        let (addr, health) = known.split_once(' ').unwrap();
        registry.health = format!("http://{health}/readyz");
        registry.base = format!("{}://{addr}", if tls { "https" } else { "http" });
        if tls {
            let builder = client_builder().pool_max_idle_per_host(0);
            registry.client = builder.tls_danger_accept_invalid_certs(true).build().unwrap();
        }
        Some(registry)
    }

    fn store(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    /// Has these calls fail, or none.
    fn fail(&self, rules: &str) {
        let (beside, path) = (self.folder.path().join("rules.new"), self.folder.path().join("rules"));
        fs::write(&beside, rules).unwrap();
        fs::rename(beside, path).unwrap();
    }

    /// The disk works again, and the registry has noticed it.
    async fn heal(&self) {
        self.fail("");
        let end = Instant::now() + NOTICED;
        while self.client.get(&self.health).send().await.unwrap().status() != 200 {
            assert!(Instant::now() < end, "it does not notice that the disk works");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn ask(&self, method: Method, path: &str) -> Response {
        self.client.request(method, format!("{}{path}", self.base)).send().await.unwrap()
    }

    async fn get(&self, path: &str) -> Response {
        self.ask(Method::GET, path).await
    }

    async fn push_blob(&self, name: &str, bytes: &[u8]) -> Response {
        let url = format!("{}/v2/{name}/blobs/uploads/?digest={}", self.base, Digest::of(bytes));
        self.client.post(url).body(bytes.to_vec()).send().await.unwrap()
    }

    async fn put_manifest(&self, name: &str, tag: &str, text: &str) -> Response {
        let url = format!("{}/v2/{name}/manifests/{tag}", self.base);
        self.client.put(url).header("content-type", OCI_MANIFEST).body(text.to_owned()).send().await.unwrap()
    }

    /// Pushes an image of one layer; its manifest.
    async fn push(&self, name: &str, tag: &str, layer: &[u8]) -> String {
        let text = image(tag, layer);
        assert_eq!(self.push_blob(name, &config(tag)).await.status(), 201);
        assert_eq!(self.push_blob(name, layer).await.status(), 201);
        assert_eq!(self.put_manifest(name, tag, &text).await.status(), 201);
        text
    }

    /// Where the bytes of a digest lie.
    fn data(&self, digest: &Digest) -> PathBuf {
        let (hex, blobs) = (digest.hex(), self.store().join("docker/registry/v2/blobs/sha256"));
        blobs.join(&hex[..2]).join(hex).join("data")
    }

    /// Has the kernel forget the bytes of a file, so that they are read from the disk.
    fn forget(&self, digest: &Digest) {
        let file = File::open(self.data(digest)).unwrap();
        file.sync_all().unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    }
}

fn config(tag: &str) -> Vec<u8> {
    format!(r#"{{"tag":"{tag}"}}"#).into_bytes()
}

fn image(tag: &str, layer: &[u8]) -> String {
    manifest(OCI_MANIFEST, &config(tag), &[layer], "")
}

/// Bytes that differ from those of other seeds.
fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..len).map(|_| next()).collect()
}

/// A write that failed is answered like those that are not tried any more, and tells nothing of this machine.
async fn assert_refused(response: Response, store: &Path) {
    assert_eq!((response.status().as_u16(), header(&response, "retry-after").as_str()), (503, "30"));
    let text = response.text().await.unwrap();
    assert!(text.contains("UNAVAILABLE") && !text.contains(store.to_str().unwrap()), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_cannot_be_written_is_refused_and_pulls_go_on() {
    let Some(registry) = Registry::start(false) else { return };
    let layer = bytes(1, 3 * MIB);
    let text = registry.push("a", "before", &layer).await;
    for rule in ["write .airlock/uploads", "open .airlock/uploads"] {
        registry.fail(rule);
        assert_refused(registry.push_blob("a", &bytes(2, MIB)).await, &registry.store()).await;
        assert_refused(registry.push_blob("b", &bytes(3, 10)).await, &registry.store()).await;
        assert_eq!(registry.get("/v2/a/manifests/before").await.text().await.unwrap(), text);
        let blob = registry.get(&format!("/v2/a/blobs/{}", Digest::of(&layer))).await;
        assert!(blob.bytes().await.unwrap() == layer);
        assert_eq!(registry.client.get(&registry.health).send().await.unwrap().status(), 503);
        registry.heal().await;
        let uploads = fs::read_dir(registry.store().join(".airlock/uploads")).unwrap().count();
        assert_eq!(uploads, 0, "nothing is left of what failed");
    }
    registry.push("a", "after", &bytes(2, MIB)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_in_pieces_goes_on_when_the_disk_works_again() {
    let Some(registry) = Registry::start(false) else { return };
    let (layer, half) = (bytes(1, 2 * MIB), MIB);
    let begun = registry.ask(Method::POST, "/v2/a/blobs/uploads/").await;
    let location = format!("{}{}", registry.base, header(&begun, "location"));
    let patch = async |bytes: &[u8]| registry.client.patch(&location).body(bytes.to_vec()).send().await.unwrap();
    assert_eq!(patch(&layer[..half]).await.status(), 202);
    registry.fail("write .airlock/uploads");
    assert_refused(patch(&layer[half..]).await, &registry.store()).await;
    registry.heal().await;
    let status = registry.client.get(&location).send().await.unwrap();
    let kept = header(&status, "range").trim_start_matches("0-").parse::<usize>().unwrap() + 1;
    assert_eq!(kept, half, "what was written before is kept, and nothing else is said to be");
    assert_eq!(patch(&layer[half..]).await.status(), 202);
    let done = registry.client.put(format!("{location}?digest={}", Digest::of(&layer))).send().await.unwrap();
    assert_eq!(done.status(), 201);
    let blob = registry.get(&format!("/v2/a/blobs/{}", Digest::of(&layer))).await;
    assert!(blob.bytes().await.unwrap() == layer);
}

/// Each step of publishing an image: its files, their names, the folders; the manifest, its link, the tag's.
const STEPS: [&str; 14] = [
    LOST,
    "name blobs/sha256/",
    "sync blobs/sha256",
    "write uploads/link-",
    "sync uploads/link-",
    "name _layers",
    "sync _layers",
    "write uploads/manifest-",
    "sync uploads/manifest-",
    "name _manifests/revisions",
    "sync _manifests/revisions",
    "name _manifests/tags",
    "sync _manifests/tags",
    "sync repositories/a",
];
/// After this the kernel has dropped what it could not write: another sync of the same file would say that all is well.
const LOST: &str = "sync .airlock/uploads/";
/// Servers among which the steps are shared out, since each takes some seconds to notice that its disk works again.
const SERVERS: usize = 5;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manifest_is_acknowledged_only_when_all_of_its_image_was_synced() {
    if tool("cc").is_none() {
        return;
    }
    let servers = STEPS.chunks(STEPS.len().div_ceil(SERVERS)).map(|steps| {
        tokio::spawn(async move {
            let registry = Registry::start(false).unwrap();
            registry.push("a", "before", &bytes(0, MIB)).await;
            for (number, step) in steps.iter().enumerate() {
                // Each in a repository of its own, whose folders are all new.
                assert_acknowledged_only_when_synced(&registry, step, &format!("a/r{number}"), number as u64 + 1).await;
            }
            let scrubbed = ask(&registry.store(), &Work::Scrub { bytes_per_second: None }).unwrap().unwrap();
            assert_eq!(scrubbed["damage"], serde_json::json!([]));
        })
    });
    for server in servers.collect::<Vec<_>>() {
        server.await.unwrap();
    }
}

async fn assert_acknowledged_only_when_synced(registry: &Registry, step: &str, name: &str, seed: u64) {
    let (tag, layer) = (format!("t{seed}"), bytes(seed, 100_000));
    let text = image(&tag, &layer);
    assert_eq!(registry.push_blob(name, &config(&tag)).await.status(), 201);
    assert_eq!(registry.push_blob(name, &layer).await.status(), 201);
    registry.fail(step);
    let refused = registry.put_manifest(name, &tag, &text).await;
    assert_eq!(refused.status(), 503, "{step}");
    assert_refused(refused, &registry.store()).await;
    registry.heal().await;
    // What shows, whole or not at all.
    let shown = registry.get(&format!("/v2/{name}/manifests/{tag}")).await;
    match shown.status().as_u16() {
        200 => assert_eq!(shown.text().await.unwrap(), text, "{step}"),
        status => assert_eq!(status, 404, "{step}"),
    }
    let again = registry.put_manifest(name, &tag, &text).await;
    if step == LOST {
        assert_eq!(again.status(), 400, "{step}");
        assert_eq!(codes(again).await.first().map(String::as_str), Some("MANIFEST_BLOB_UNKNOWN"));
        registry.push(name, &tag, &layer).await;
    } else {
        assert_eq!(again.status(), 201, "{step}");
    }
    let blob = registry.get(&format!("/v2/{name}/blobs/{}", Digest::of(&layer))).await;
    assert!(blob.bytes().await.unwrap() == layer, "{step}");
}

/// What came of a body, and whether it broke off.
async fn receive(response: Response) -> (Vec<u8>, bool) {
    let (mut got, mut stream) = (Vec::new(), response.bytes_stream());
    while let Some(piece) = stream.next().await {
        match piece {
            Ok(piece) => got.extend_from_slice(&piece),
            Err(_) => return (got, true),
        }
    }
    (got, false)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blob_that_the_kernel_cannot_send_to_its_end_breaks_the_connection() {
    let Some(registry) = Registry::start_failing_to_send() else { return };
    let (layer, small) = (bytes(1, 24 * MIB), bytes(2, 1000));
    let text = registry.push("a", "v1", &layer).await;
    registry.push("b", "v1", &small).await;
    let path = format!("/v2/a/blobs/{}", Digest::of(&layer));
    let mut broken = 0;
    loop {
        let response = registry.get(&path).await;
        assert_eq!(response.status(), 200);
        assert_eq!(header(&response, "content-length"), layer.len().to_string());
        let (got, broke) = receive(response).await;
        assert!(layer.starts_with(&got), "what came is right");
        if !broke {
            assert_eq!(got.len(), layer.len(), "what did not break is whole");
            break;
        }
        assert!(got.len() < layer.len());
        broken += 1;
        // It goes on: others pull and push, and it does not take itself for broken.
        assert_eq!(registry.get("/v2/a/manifests/v1").await.text().await.unwrap(), text);
        assert_eq!(registry.client.get(&registry.health).send().await.unwrap().status(), 200);
        registry.push("a", &format!("again{broken}"), b"reading alone stops no push").await;
    }
    let sent = fs::read_to_string(registry.folder.path().join("sent")).unwrap();
    assert_eq!(sent.matches("(INJECTED)").count(), broken, "each error broke one connection");
    assert!(broken >= 1, "nothing was sent by the kernel");
    let other = registry.get(&format!("/v2/b/blobs/{}", Digest::of(&small))).await;
    assert!(other.bytes().await.unwrap() == small);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deletion_is_acknowledged_only_when_it_was_synced_and_needs_no_room_elsewhere() {
    let Some(registry) = Registry::start(false) else { return };
    let pushed = |name: &'static str| {
        let registry = &registry;
        async move {
            let text = registry.push(name, "v1", &bytes(1, 1000)).await;
            assert_eq!(registry.put_manifest(name, "v2", &text).await.status(), 201);
            format!("/v2/{name}/manifests/{}", Digest::of(text.as_bytes()))
        }
    };
    let left = || {
        let removed = fs::read_dir(registry.store().join(".airlock/removed"));
        removed.into_iter().flatten().map(|deletion| fs::read_dir(deletion.unwrap().path()).unwrap().count()).sum()
    };
    let delete = async |path: &str| registry.ask(Method::DELETE, path).await;
    for (name, step) in [("a", "sync a/_manifests/tags"), ("b", "sync b/_manifests/revisions")] {
        let path = pushed(name).await;
        // The second attempt finds no tag any more, and knows as little as the first whether they are gone for good.
        for _ in 0..if name == "a" { 2 } else { 1 } {
            registry.fail(step);
            assert_refused(delete(&path).await, &registry.store()).await;
            registry.heal().await;
        }
        let status = delete(&path).await.status().as_u16();
        assert!(status == 202 || (name == "b" && status == 404), "{step}: {status}");
        for path in [&path, &format!("/v2/{name}/manifests/v1"), &format!("/v2/{name}/manifests/v2")] {
            assert_eq!(registry.get(path).await.status(), 404, "{step}");
        }
    }
    // Where nothing can be moved, everything goes in its place.
    let (path, before) = (pushed("c").await, left());
    registry.fail("name .airlock/removed");
    assert_eq!(delete(&path).await.status(), 202);
    assert_eq!(registry.get("/v2/c/manifests/v1").await.status(), 404);
    let tags = registry.store().join("docker/registry/v2/repositories/c/_manifests/tags");
    let after: usize = left();
    assert_eq!((fs::read_dir(tags).unwrap().count(), after <= before), (0, true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blob_that_cannot_be_read_to_its_end_breaks_the_connection() {
    for tls in [false, true] {
        let Some(registry) = Registry::start(tls) else { return };
        let (layer, fails_at) = (bytes(1, 32 * MIB), 5 * MIB);
        let digest = Digest::of(&layer);
        registry.push("a", "v1", &layer).await;
        registry.forget(&digest);
        registry.fail(&format!("read@{fails_at} {}", digest.hex()));
        let response = registry.get(&format!("/v2/a/blobs/{digest}")).await;
        assert_eq!(response.status(), 200);
        assert_eq!(header(&response, "content-length"), layer.len().to_string());
        let (got, broke) = receive(response).await;
        // What the kernel had read ahead may have come too.
        assert!(broke && got.len() < layer.len(), "TLS {tls}: {} bytes came", got.len());
        assert!(layer.starts_with(&got), "TLS {tls}: what came is right");
        // A part that can be read.
        let url = format!("{}/v2/a/blobs/{digest}", registry.base);
        let part = registry.client.get(&url).header("range", "bytes=100-4000099").send().await.unwrap();
        assert!(part.bytes().await.unwrap() == layer[100..4_000_100]);
        registry.fail("");
        assert!(registry.client.get(&url).send().await.unwrap().bytes().await.unwrap() == layer, "TLS {tls}");
        registry.push("a", "v2", b"reading alone stops no push").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_read_is_not_said_to_be_absent_and_is_no_garbage() {
    let Some(registry) = Registry::start(false) else { return };
    let layer = bytes(1, 100_000);
    let text = registry.push("a/b", "v1", &layer).await;
    let (digest, blob) = (Digest::of(text.as_bytes()), Digest::of(&layer));
    let paths = [
        "/v2/a/b/manifests/v1".to_owned(),
        format!("/v2/a/b/manifests/{digest}"),
        format!("/v2/a/b/blobs/{blob}"),
        "/v2/a/b/tags/list".into(),
        format!("/v2/a/b/referrers/{digest}"),
    ];
    let mut right = Vec::new();
    for path in &paths {
        right.push(registry.get(path).await.text().await.unwrap());
    }
    // A blob's body is read after its header was sent, which is the other test's business.
    for rule in ["open", "stat", "list", "read"] {
        let mut failed = 0;
        for (path, right) in paths.iter().zip(&right) {
            for method in [Method::HEAD, Method::GET] {
                registry.fail(&format!("{rule} docker/registry/v2"));
                let response = registry.ask(method.clone(), path).await;
                let status = response.status().as_u16();
                assert!(status == 200 || status == 500, "{rule}: {method} {path}: {status}");
                failed += usize::from(status == 500);
                let body = response.text().await;
                if method == Method::GET && status == 200 && !path.contains("/blobs/") {
                    assert_eq!(body.unwrap(), *right, "{rule}: {path}");
                }
            }
        }
        assert!(failed > 0, "{rule}: nothing failed, so that nothing was tried");
        for keep in [None, Some(1)] {
            let collected = ask(&registry.store(), &Work::CollectGarbage { dry_run: false, keep });
            assert!(collected.is_err() || rule == "stat" || rule == "read", "{rule}: {collected:?}");
        }
        registry.fail("");
        for (path, right) in paths.iter().zip(&right) {
            let response = registry.get(path).await;
            assert_eq!(response.status(), 200, "after {rule}: {path}");
            assert_eq!(response.text().await.unwrap(), *right, "after {rule}: {path}");
        }
    }
    registry.push("a/b", "v2", b"reading alone stops no push").await;
}

/// A file system of its own; `None` where this user may not mount one.
struct Disk(tempfile::TempDir);

impl Disk {
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=64m", "none"]).arg(folder.path()).output();
        if mounted.is_ok_and(|o| o.status.success()) {
            return Some(Self(folder));
        }
        println!("skipped: a file system cannot be mounted here");
        None
    }

    fn remount(&self, mode: &str) {
        let done = Command::new("mount").args(["-o", &format!("remount,{mode}")]).arg(self.0.path()).output().unwrap();
        assert!(done.status.success(), "{mode}: {}", String::from_utf8_lossy(&done.stderr));
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_system_that_becomes_read_only_is_read_and_then_written_again() {
    let Some(disk) = Disk::mount() else { return };
    let root = disk.0.path().to_owned();
    let writer = Writer::open(&root, Durability::Image).unwrap();
    let server = Server::writable(writer).anonymous(Anonymous::Push).health(localhost());
    let running = server.bind(localhost()).await.unwrap();
    let (client, base) = (forgetful_client(), format!("http://{}", running.addr));
    let ready = format!("http://{}/readyz", running.health.unwrap());
    let push = async |bytes: &'static [u8]| {
        let url = format!("{base}/v2/a/blobs/uploads/?digest={}", Digest::of(bytes));
        client.post(url).body(bytes).send().await.unwrap()
    };
    let put = async |tag: &str, text: &str| {
        let url = format!("{base}/v2/a/manifests/{tag}");
        client.put(url).header("content-type", OCI_MANIFEST).body(text.to_owned()).send().await.unwrap()
    };
    let text = manifest(OCI_MANIFEST, b"{}", &[b"layer"], "");
    assert_eq!(push(b"{}").await.status(), 201);
    assert_eq!(push(b"layer").await.status(), 201);
    assert_eq!(put("v1", &text).await.status(), 201);
    let assert_pulls = async || {
        let got = client.get(format!("{base}/v2/a/manifests/v1")).send().await.unwrap();
        assert_eq!(got.text().await.unwrap(), text);
        let got = client.get(format!("{base}/v2/a/blobs/{}", Digest::of(b"layer"))).send().await.unwrap();
        assert_eq!(got.text().await.unwrap(), "layer");
    };
    for round in ["once", "twice"] {
        // The server holds no file open for writing that would prevent it.
        disk.remount("ro");
        assert_refused(push(b"meanwhile").await, &root).await;
        assert_refused(put("v2", &text).await, &root).await;
        let delete = client.delete(format!("{base}/v2/a/manifests/v1")).send().await.unwrap();
        assert_refused(delete, &root).await;
        assert_pulls().await;
        assert_eq!(client.get(&ready).send().await.unwrap().status(), 503);
        disk.remount("rw");
        let end = Instant::now() + NOTICED;
        while client.get(&ready).send().await.unwrap().status() != 200 {
            assert!(Instant::now() < end, "it does not notice that the disk can be written to");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(push(b"afterwards").await.status(), 201);
        assert_eq!(put(round, &text).await.status(), 201);
        assert_pulls().await;
    }
    running.shutdown().await.unwrap();
}
