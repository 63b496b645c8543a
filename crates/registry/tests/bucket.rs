//! The registry over an object store: several servers at one bucket, servers and stores that fail, garbage, and the judgement of others.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test ends where it fails")]

mod support;

use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use airlock_oci::{Algorithm, Digest, ErrorKind, Repository};
use airlock_registry::{Anonymous, Server};
use airlock_store::bucket::{AccessKey, Bucket, PART_BYTES};
use reqwest::Method;
use support::s3::{Fault, Store};
use support::*;

const MIB: usize = 1024 * 1024;

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    (0..len).map(next).collect()
}

/// A server of the store's bucket, with a memory of its own.
async fn replica(store: &Store) -> Registry {
    Registry::of_bucket(store.bucket().await, None, |b| b).await
}

async fn patch(registry: &Registry, location: &str, bytes: &[u8]) -> u16 {
    registry.ask(Method::PATCH, location).body(bytes.to_vec()).send().await.unwrap().status().as_u16()
}

async fn offset(registry: &Registry, location: &str) -> usize {
    let response = registry.get(location).await;
    assert_eq!(response.status(), 204);
    let last: usize = header(&response, "range").strip_prefix("0-").unwrap().parse().unwrap();
    if last == 0 { 0 } else { last + 1 }
}

/// Pulls an image whole.
async fn assert_pulls(registry: &Registry, name: &str, at: &str) {
    let manifest = json(registry.get(&format!("/v2/{name}/manifests/{at}")).await).await;
    let blobs = std::iter::once(&manifest["config"]).chain(manifest["layers"].as_array().unwrap());
    for blob in blobs {
        let digest = blob["digest"].as_str().unwrap();
        let response = registry.get(&format!("/v2/{name}/blobs/{digest}")).await;
        assert_eq!(response.status(), 200, "{name}@{digest}");
        assert_eq!(Digest::of(&response.bytes().await.unwrap()).to_string(), digest);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_server_takes_the_other_has_at_once() {
    let store = Store::start().await;
    let (one, two) = (replica(&store).await, replica(&store).await);
    let (text, digest) = one.push_image("a/b", "v1", "1").await;
    assert_pulls(&two, "a/b", "v1").await;
    two.push_image("a/b", "v1", "2").await;
    assert_ne!(one.get("/v2/a/b/manifests/v1").await.text().await.unwrap(), text, "the tag was moved");
    assert_pulls(&one, "a/b", "v1").await;
    two.push_image("c", "x", "1").await;
    for registry in [&one, &two] {
        let tags = json(registry.get("/v2/a/b/tags/list").await).await;
        assert_eq!(tags["tags"], serde_json::json!(["v1"]));
        let catalog = json(registry.get("/v2/_catalog").await).await;
        assert_eq!(catalog["repositories"], serde_json::json!(["a/b", "c"]));
    }
    one.push_blob("a/b", b"{}").await;
    let points = format!(r#","subject":{}"#, descriptor(OCI_MANIFEST, text.as_bytes()));
    let referrer = manifest(OCI_MANIFEST, b"{}", &[], &points);
    assert_eq!(json(two.get(&format!("/v2/a/b/referrers/{digest}")).await).await["manifests"], serde_json::json!([]));
    assert_eq!(one.put_manifest("a/b", "sig", OCI_MANIFEST, &referrer).await.status(), 201);
    let found = json(two.get(&format!("/v2/a/b/referrers/{digest}")).await).await;
    assert_eq!(found["manifests"].as_array().unwrap().len(), 1);
    assert_eq!(two.delete("/v2/a/b/manifests/v1").await, 202);
    assert_eq!(one.get("/v2/a/b/manifests/v1").await.status(), 404);
    assert_eq!(one.delete(&format!("/v2/a/b/manifests/{digest}")).await, 202);
    assert_eq!(two.get(&format!("/v2/a/b/manifests/{digest}")).await.status(), 404);
    // Of two that set a tag only if it is not there, one does.
    let body = manifest(OCI_MANIFEST, b"{}", &[], "");
    let set = async |registry: &Registry| {
        let request = registry.ask(Method::PUT, "/v2/a/b/manifests/once").header("if-none-match", "*");
        request.header("content-type", OCI_MANIFEST).body(body.clone()).send().await.unwrap().status().as_u16()
    };
    assert_eq!((set(&one).await, set(&two).await), (201, 412));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_goes_on_at_whichever_server_gets_the_next_request() {
    let store = Store::start().await;
    let servers = [replica(&store).await, replica(&store).await];
    let bytes = noise(1, 3 * PART_BYTES + 12_345);
    // Pieces that end within, at and behind the end of a part, and one over two of them.
    let ends = [0, 1000, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 3 * PART_BYTES - 7, 3 * PART_BYTES, bytes.len()];
    let location = servers[0].begin("r").await;
    for (i, ends) in ends.windows(2).enumerate() {
        let (registry, other) = (&servers[i % 2], &servers[(i + 1) % 2]);
        let piece =
            registry.ask(Method::PATCH, &location).header("content-range", format!("{}-{}", ends[0], ends[1] - 1));
        let response = piece.body(bytes[ends[0]..ends[1]].to_vec()).send().await.unwrap();
        assert_eq!(response.status(), 202, "{ends:?}");
        assert_eq!(offset(other, &location).await, ends[1]);
        let wrong = other.ask(Method::PATCH, &location).header("content-range", "1-2").body("xx").send().await.unwrap();
        assert_eq!(wrong.status(), 416);
    }
    let digest = Digest::of(&bytes);
    let end = servers[1].ask(Method::PUT, &format!("{location}?digest={digest}")).send().await.unwrap();
    assert_eq!(end.status(), 201, "{}", end.text().await.unwrap());
    for registry in &servers {
        assert!(registry.get(&format!("/v2/r/blobs/{digest}")).await.bytes().await.unwrap() == bytes);
        assert_eq!(registry.get(&location).await.status(), 404);
    }
    // With the wrong digest, with and without parts.
    for bytes in [noise(2, 1000), noise(3, 2 * PART_BYTES + 9)] {
        let location = servers[0].begin("r").await;
        assert_eq!(patch(&servers[1], &location, &bytes).await, 202);
        let wrong =
            servers[0].ask(Method::PUT, &format!("{location}?digest={}", Digest::of(b"x"))).send().await.unwrap();
        assert_eq!(codes(wrong).await, ["DIGEST_INVALID"]);
        assert_eq!(servers[1].get(&location).await.status(), 404, "nothing is left");
    }
    let left = std::fs::read_dir(store.folder().join(".airlock/uploads")).unwrap().flatten();
    let files = left.flat_map(|folder| std::fs::read_dir(folder.path()).unwrap()).count();
    assert_eq!(files, 0, "sessions are removed when they have ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_to_a_killed_server_goes_on_at_another() {
    let store = Store::start().await;
    let two = replica(&store).await;
    // A process of its own, as far as its tasks are concerned: all of them vanish at once.
    let settings = store.settings("place/in");
    let (tell, told) = std::sync::mpsc::channel();
    let (kill, killed) = std::sync::mpsc::channel::<()>();
    let process = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let running = runtime.block_on(async {
            let bucket = Bucket::open(&settings).await.unwrap();
            Server::bucket(bucket).anonymous(Anonymous::Push).bind(localhost()).await.unwrap()
        });
        tell.send(running.addr).unwrap();
        let _ = killed.recv();
        runtime.shutdown_background();
    });
    let addr = tokio::task::spawn_blocking(move || told.recv().unwrap()).await.unwrap();
    let bytes = noise(4, 4 * PART_BYTES);
    let location = two.begin("r").await;
    let (sender, receiver) = futures_channel(&bytes[..3 * PART_BYTES]);
    let sending = client().patch(format!("http://{addr}{location}")).body(receiver).send();
    let sending = tokio::spawn(sending);
    // Two parts are with the store, the third is not full.
    let end = Instant::now() + PATIENCE;
    while offset(&two, &location).await < 2 * PART_BYTES && Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    kill.send(()).unwrap();
    process.join().unwrap();
    drop(sender);
    assert!(sending.await.unwrap().is_err(), "the client was cut off");
    let from = offset(&two, &location).await;
    assert_eq!(from, 2 * PART_BYTES);
    assert_eq!(patch(&two, &location, &bytes[from..]).await, 202);
    let digest = Digest::of(&bytes);
    let end = two.ask(Method::PUT, &format!("{location}?digest={digest}")).send().await.unwrap();
    assert_eq!(end.status(), 201, "{}", end.text().await.unwrap());
    assert!(two.get(&format!("/v2/r/blobs/{digest}")).await.bytes().await.unwrap() == bytes);
}

/// A body that gives these bytes and then waits.
fn futures_channel(bytes: &[u8]) -> (tokio::sync::oneshot::Sender<()>, reqwest::Body) {
    let (sender, receiver) = tokio::sync::oneshot::channel::<()>();
    let pieces: Vec<Vec<u8>> = bytes.chunks(MIB).map(<[u8]>::to_vec).collect();
    let given = futures_util::stream::iter(pieces.into_iter().map(Ok::<_, std::io::Error>));
    let never = futures_util::stream::once(async move {
        let _ = receiver.await;
        Err::<Vec<u8>, _>(std::io::Error::other("gone"))
    });
    (sender, reqwest::Body::wrap_stream(futures_util::StreamExt::chain(given, never)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_stumbles_is_not_noticed() {
    let store = Store::start().await;
    let registry = replica(&store).await;
    let bytes = noise(5, 2 * PART_BYTES + 77);
    for (method, path, fault) in [
        ("PUT", "partNumber=1", Fault::SlowDown),
        ("PUT", "partNumber=2", Fault::Cut),
        ("PUT", "partNumber=2", Fault::Unanswered),
        ("PUT", "/session", Fault::Unanswered),
        ("PUT", "/session", Fault::Internal),
        ("POST", "uploads", Fault::SlowDown),
        ("POST", "uploadId=", Fault::Unanswered),
        ("PUT", "/data", Fault::Internal),
        ("PUT", "/link", Fault::Cut),
        ("GET", "/session", Fault::Short(10)),
        ("GET", "/condemned", Fault::SlowDown),
        ("HEAD", "/data", Fault::Internal),
    ] {
        store.fail(method, path, 1, fault.clone());
        let location = registry.begin("r").await;
        assert_eq!(patch(&registry, &location, &bytes).await, 202, "{method} {path} {fault:?}");
        let digest = Digest::of(&bytes);
        let end = registry.ask(Method::PUT, &format!("{location}?digest={digest}")).send().await.unwrap();
        assert_eq!(end.status(), 201, "{method} {path} {fault:?}: {}", end.text().await.unwrap());
        let response = registry.head(&format!("/v2/r/blobs/{digest}")).await;
        assert_eq!(response.status(), 200);
        assert_eq!(store.faults_left(), 0, "{method} {path} {fault:?} never happened");
        assert_eq!(registry.delete(&format!("/v2/r/blobs/{digest}")).await, 202);
    }
    let digest = registry.push_blob("r", &bytes).await;
    // The bytes break off again and again, and the client sees nothing of it.
    for cut in [0, 1, 100_000, 3 * MIB] {
        store.fail("GET", "/data", 1, Fault::Short(cut));
    }
    let got = registry.get(&format!("/v2/r/blobs/{digest}")).await.bytes().await.unwrap();
    assert!(got == bytes);
    assert_eq!(store.faults_left(), 0);
    let part = registry.ask(Method::GET, &format!("/v2/r/blobs/{digest}")).header("range", "bytes=8000000-9000000");
    store.fail("GET", "/data", 1, Fault::Short(500_000));
    assert!(part.send().await.unwrap().bytes().await.unwrap() == bytes[8_000_000..=9_000_000]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_refuses_or_is_gone_is_named_and_comes_back() {
    let store = Store::start().await;
    let registry = replica(&store).await;
    registry.push_image("a", "v1", "1").await;
    store.fail("*", "", usize::MAX, Fault::Denied);
    let response = registry.get("/v2/a/tags/list").await;
    assert_eq!(response.status(), 503);
    assert_eq!(header(&response, "retry-after"), "5");
    let text = response.text().await.unwrap();
    assert!(text.contains("UNAVAILABLE") && text.contains("the object store does not allow it"), "{text}");
    assert!(!text.contains("docker/registry") && !text.contains(&store.addr.to_string()), "{text}");
    store.heal();
    store.fail("*", "", usize::MAX, Fault::SlowDown);
    let response = registry.ask(Method::POST, "/v2/a/blobs/uploads/").send().await.unwrap();
    assert_eq!(response.status(), 503);
    assert!(response.text().await.unwrap().contains("asks to slow down"));
    store.heal();
    assert_pulls(&registry, "a", "v1").await;
    store.stop();
    let response = registry.get("/v2/a/manifests/v1").await;
    assert_eq!(response.status(), 503);
    let text = response.text().await.unwrap();
    assert!(text.contains("cannot be reached") || text.contains("does not answer"), "{text}");
    assert_eq!(registry.get("/v2/").await.status(), 200, "the registry itself is there");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_the_bucket_is_said_at_the_start() {
    let store = Store::start().await;
    let mut settings = store.settings("x");
    settings.bucket = "nowhere".into();
    let error = Bucket::open(&settings).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert!(error.to_string().contains("no such bucket") && error.hint_text().unwrap().contains("make the bucket"));
    let mut settings = store.settings("x");
    settings.key = Some(AccessKey::new("test-key", "wrong"));
    let error = Bucket::open(&settings).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Unauthorized | ErrorKind::Denied), "{error}");
    assert!(!error.to_string().contains("wrong\""));
    store.stop();
    let error = Bucket::open(&store.settings("x")).await.unwrap_err();
    assert!(error.hint_text().unwrap().contains("--s3-endpoint"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_too_large_for_the_store_to_copy_passes_through() {
    let store = Store::start().await;
    let mut settings = store.settings("place/in");
    settings.copied_bytes = MIB as u64;
    let registry = Registry::of_bucket(Bucket::open(&settings).await.unwrap(), None, |b| b).await;
    let bytes = noise(6, 3 * PART_BYTES + 1);
    let digest = registry.push_blob("r", &bytes).await;
    assert!(registry.get(&format!("/v2/r/blobs/{digest}")).await.bytes().await.unwrap() == bytes);
    // One whose name is known from the beginning goes to its place at once.
    let bytes = noise(7, 2 * PART_BYTES);
    let digest = Digest::of(&bytes);
    let path = format!("/v2/r/blobs/uploads/?digest={digest}");
    assert_eq!(registry.ask(Method::POST, &path).body(bytes.clone()).send().await.unwrap().status(), 201);
    assert!(registry.get(&format!("/v2/r/blobs/{digest}")).await.bytes().await.unwrap() == bytes);
    let path = format!("/v2/r/blobs/uploads/?digest={}", Digest::of(b"another"));
    let wrong = registry.ask(Method::POST, &path).body(bytes).send().await.unwrap();
    assert_eq!(codes(wrong).await, ["DIGEST_INVALID"]);
    assert_eq!(registry.head(&format!("/v2/r/blobs/{}", Digest::of(b"another"))).await.status(), 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_tags_are_listed_in_pages() {
    let store = Store::start().await;
    let registry = replica(&store).await;
    let (_, digest) = registry.push_image("many", "first", "1").await;
    let tags = store.folder().join("docker/registry/v2/repositories/many/_manifests/tags");
    // Names of which one is the beginning of the other, with what sorts before and after a slash between.
    let name = |i: usize| match i / 100 {
        0 => format!("v{i}"),
        n => format!("v{}{}{n}", i % 100, ["-", ".", "_"][i % 3]),
    };
    let mut names: Vec<String> = (0..10_000).map(name).collect();
    names.push("first".into());
    names.sort();
    for name in &names {
        let folder = tags.join(name);
        std::fs::create_dir_all(folder.join("current")).unwrap();
        std::fs::write(folder.join("current/link"), digest.to_string()).unwrap();
    }
    let (mut path, mut seen, start) = ("/v2/many/tags/list?n=1000".to_owned(), Vec::new(), Instant::now());
    let requests = store.requests();
    loop {
        let response = registry.get(&path).await;
        let link = header(&response, "link");
        let page = json(response).await["tags"].as_array().unwrap().clone();
        seen.extend(page.into_iter().map(|tag| tag.as_str().unwrap().to_owned()));
        match link.strip_prefix('<').and_then(|l| l.strip_suffix(">; rel=\"next\"")) {
            Some(next) => path = next.to_owned(),
            None => break,
        }
    }
    let requests = store.requests() - requests;
    println!("{} tags in {:?} with {requests} requests to the store", names.len(), start.elapsed());
    assert!(seen == names, "in the order of names");
    assert!(requests <= names.len() / 1000 + 3, "{requests}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_goes_with_all_its_tags() {
    let store = Store::start().await;
    let registry = replica(&store).await;
    let (_, digest) = registry.push_image("a", "first", "1").await;
    registry.push_image("a", "moved", "1").await;
    registry.push_image("a", "moved", "2").await;
    registry.push_image("a", "other", "2").await;
    let tags = store.folder().join("docker/registry/v2/repositories/a/_manifests/tags");
    for i in 0..50 {
        // Without a history, as somebody else may have left it.
        let folder = tags.join(format!("t{i}/current"));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("link"), digest.to_string()).unwrap();
    }
    assert_eq!(json(registry.get("/v2/a/tags/list").await).await["tags"].as_array().unwrap().len(), 53);
    assert_eq!(registry.delete(&format!("/v2/a/manifests/{digest}")).await, 202);
    let left = json(registry.get("/v2/a/tags/list").await).await;
    assert_eq!(left["tags"], serde_json::json!(["moved", "other"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn abandoned_uploads_expire() {
    let store = Store::start().await;
    let bucket = store.bucket().await;
    let registry = Registry::of_bucket(bucket.clone(), None, |b| b).await;
    let (small, large) = (registry.begin("r").await, registry.begin("r").await);
    assert_eq!(patch(&registry, &small, b"some").await, 202);
    assert_eq!(patch(&registry, &large, &noise(8, PART_BYTES + 5)).await, 202);
    assert_eq!(bucket.expire_uploads(Duration::from_secs(3600)).await.unwrap(), 0);
    assert_eq!(offset(&registry, &small).await, 4);
    assert_eq!(bucket.expire_uploads(Duration::ZERO).await.unwrap(), 2);
    for location in [small, large] {
        assert_eq!(registry.get(&location).await.status(), 404);
    }
    let parts = std::fs::read_dir(store.root.path()).unwrap().flatten();
    assert_eq!(parts.filter(|f| f.file_name().to_string_lossy().contains("part-")).count(), 0, "parts are dropped");
}

/// From when on blobs are collected here: much longer than a test takes on the busiest machine, and much less than [`OLD`].
const COLLECTED: Duration = Duration::from_secs(600);
/// How old what shall be old is made.
const OLD: Duration = Duration::from_secs(3600);
/// For what must happen, on the busiest machine.
const PATIENCE: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread")]
async fn garbage_goes_and_what_was_claimed_stays() {
    let store = Store::start().await;
    let mut settings = store.settings("place/in");
    settings.collected_age = COLLECTED;
    let bucket = Bucket::open(&settings).await.unwrap();
    let registry = Registry::of_bucket(bucket.clone(), None, |b| b).await;
    let (_, digest) = registry.push_image("a", "v1", "1").await;
    registry.push_image("a", "v2", "2").await;
    registry.push_blob("b", b"claimed").await;
    registry.push_blob("b", b"mounted").await;
    registry.push_blob("b", b"forgotten").await;
    assert_eq!(registry.delete(&format!("/v2/a/manifests/{digest}")).await, 202);
    let young = bucket.collect_garbage(false).await.unwrap();
    assert_eq!((young.removed_files, young.leased), (0, 6), "{young:?}");
    store.age(OLD);
    assert_eq!(registry.head(&format!("/v2/b/blobs/{}", Digest::of(b"claimed"))).await.status(), 200);
    let mount = format!("/v2/c/blobs/uploads/?mount={}&from=b", Digest::of(b"mounted"));
    assert_eq!(registry.ask(Method::POST, &mount).send().await.unwrap().status(), 201);
    let dry = bucket.collect_garbage(true).await.unwrap();
    assert_eq!((dry.dry_run, dry.removed_files, dry.removed_links, dry.leased), (true, 4, 3, 2), "{dry:?}");
    let collected = bucket.collect_garbage(false).await.unwrap();
    assert_eq!((collected.removed_files, collected.removed_links, collected.leased), (4, 3, 2), "{collected:?}");
    for (name, bytes, status) in [
        ("b", &b"claimed"[..], 200),
        ("b", b"mounted", 200),
        ("c", b"mounted", 200),
        ("b", b"forgotten", 404),
        ("a", b"layer 1", 404),
        ("a", b"layer 2", 200),
    ] {
        let response = registry.head(&format!("/v2/{name}/blobs/{}", Digest::of(bytes))).await;
        assert_eq!(response.status(), status, "{}", String::from_utf8_lossy(bytes));
    }
    assert_pulls(&registry, "a", "v2").await;
    // One at a time, over all processes; what a dead one has left does not matter for ever.
    std::fs::write(store.folder().join(".airlock/gc/lock"), "somebody").unwrap();
    assert_eq!(bucket.collect_garbage(false).await.unwrap_err().kind(), ErrorKind::Locked);
    let old = std::time::SystemTime::now() - Duration::from_secs(3600);
    std::fs::File::options()
        .write(true)
        .open(store.folder().join(".airlock/gc/lock"))
        .unwrap()
        .set_modified(old)
        .unwrap();
    bucket.collect_garbage(false).await.unwrap();
    assert!(!store.folder().join(".airlock/gc/lock").exists());
    // A damaged manifest: nobody knows what it names.
    let (_, broken) = registry.push_image("a", "v3", "3").await;
    let path = format!("docker/registry/v2/blobs/sha256/{}/{}/data", &broken.hex()[..2], broken.hex());
    std::fs::write(store.folder().join(path), "").unwrap();
    assert_eq!(bucket.collect_garbage(false).await.unwrap_err().kind(), ErrorKind::Damaged);
}

/// A store with garbage in it: `bytes` as a blob of `r` that no manifest names, old enough to go; and a bucket that collects.
async fn with_garbage(store: &Store, bytes: &[u8]) -> Bucket {
    let mut settings = store.settings("place/in");
    settings.collected_age = COLLECTED;
    let bucket = Bucket::open(&settings).await.unwrap();
    let registry = Registry::of_bucket(bucket.clone(), None, |b| b).await;
    registry.push_blob("r", bytes).await;
    store.age(OLD);
    bucket
}

/// Another server of the bucket, which takes the same for old.
async fn server_of(store: &Store) -> Registry {
    let mut settings = store.settings("place/in");
    settings.collected_age = COLLECTED;
    Registry::of_bucket(Bucket::open(&settings).await.unwrap(), None, |b| b).await
}

fn collect(bucket: &Bucket) -> tokio::task::JoinHandle<airlock_store::distribution::Collected> {
    let bucket = bucket.clone();
    tokio::spawn(async move { bucket.collect_garbage(false).await.unwrap() })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_during_which_a_whole_collection_passes_is_whole() {
    let store = Store::start().await;
    let small = b"garbage that comes back".to_vec();
    let bucket = with_garbage(&store, &small).await;
    let registry = replica(&store).await;
    let digest = Digest::of(&small);
    // (The first thing that a collector removes is the list of one that died.)
    // The collector has judged; the bytes come again; they go; everything about the collection is over; only then comes the link.
    let removal = store.hold_after(1, "POST", "?delete");
    let collecting = collect(&bucket);
    removal.arrived().await;
    let link = store.hold("PUT", "_layers");
    let location = registry.begin("r").await;
    let end = registry.ask(Method::PUT, &format!("{location}?digest={digest}")).body(small.clone()).send();
    let pushing = tokio::spawn(end);
    link.arrived().await;
    removal.release();
    assert_eq!(collecting.await.unwrap().removed_files, 1);
    link.release();
    let end = pushing.await.unwrap().unwrap();
    assert_eq!(end.status(), 201, "{}", end.text().await.unwrap());
    assert_eq!(registry.get(&format!("/v2/r/blobs/{digest}")).await.bytes().await.unwrap(), small);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_that_cannot_write_its_bytes_again_says_so() {
    let store = Store::start().await;
    let bytes = noise(11, PART_BYTES + 5);
    let bucket = with_garbage(&store, &bytes).await;
    let registry = replica(&store).await;
    let digest = Digest::of(&bytes);
    let removal = store.hold_after(1, "POST", "?delete");
    let collecting = collect(&bucket);
    removal.arrived().await;
    let link = store.hold("PUT", "_layers");
    // Its parts go to their place at once, and are no more when they were joined.
    let path = format!("/v2/r/blobs/uploads/?digest={digest}");
    let pushing = tokio::spawn(registry.ask(Method::POST, &path).body(bytes.clone()).send());
    link.arrived().await;
    removal.release();
    collecting.await.unwrap();
    link.release();
    assert_eq!(pushing.await.unwrap().unwrap().status(), 503);
    assert_eq!(registry.head(&format!("/v2/r/blobs/{digest}")).await.status(), 404);
    assert_eq!(registry.ask(Method::POST, &path).body(bytes.clone()).send().await.unwrap().status(), 201);
    assert!(registry.get(&format!("/v2/r/blobs/{digest}")).await.bytes().await.unwrap() == bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_counts_for_others_only_after_the_verdict() {
    let store = Store::start().await;
    let bucket = with_garbage(&store, b"old").await;
    let registry = server_of(&store).await;
    registry.push_blob("r", b"{}").await;
    let digest = Digest::of(b"old");
    let removal = store.hold_after(1, "POST", "?delete");
    let collecting = collect(&bucket);
    removal.arrived().await;
    let asked = registry.ask(Method::HEAD, &format!("/v2/r/blobs/{digest}")).send();
    let asked = tokio::spawn(asked);
    let lease = store.folder().join(format!(".airlock/leases/sha256-{}", digest.hex()));
    while !lease.exists() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // Somebody else relies on the same blob, at the same server.
    let text = manifest(OCI_MANIFEST, b"{}", &[b"old"], "");
    let request = registry.ask(Method::PUT, "/v2/r/manifests/v1").header("content-type", OCI_MANIFEST);
    let pushing = tokio::spawn(request.body(text).send());
    tokio::time::sleep(Duration::from_millis(500)).await;
    removal.release();
    assert_eq!(collecting.await.unwrap().removed_files, 1);
    assert_eq!(asked.await.unwrap().unwrap().status(), 404);
    let answer = pushing.await.unwrap().unwrap();
    assert_eq!(answer.status(), 400, "its layer is gone");
    assert_eq!(codes(answer).await, ["MANIFEST_BLOB_UNKNOWN"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_died_is_told_by_the_clock_of_the_store() {
    let store = Store::start().await;
    let registry = server_of(&store).await;
    registry.push_blob("r", b"old").await;
    let digest = Digest::of(b"old");
    let list = store.folder().join(".airlock/gc/condemned");
    std::fs::create_dir_all(list.parent().unwrap()).unwrap();
    store.age(OLD);
    std::fs::write(&list, format!(r#"{{"digests":["{digest}"]}}"#)).unwrap();
    let age = |seconds| {
        let modified = std::time::SystemTime::now() - Duration::from_secs(seconds);
        std::fs::File::options().write(true).open(&list).unwrap().set_modified(modified).unwrap();
    };
    age(80);
    // Whom the verdict never reaches is refused; the answer is the proof that nobody waited for it.
    assert_eq!(registry.head(&format!("/v2/r/blobs/{digest}")).await.status(), 200);
    // One whose time is not over, by a store's clock that is twenty minutes behind ours; it ends.
    let path = format!("/v2/r/blobs/{}", registry.push_blob("r", b"older").await);
    store.age(OLD);
    std::fs::write(&list, format!(r#"{{"digests":["{}"]}}"#, Digest::of(b"older"))).unwrap();
    store.turn_back(Duration::from_secs(20 * 60));
    let asked = tokio::spawn(registry.ask(Method::HEAD, &path).send());
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!asked.is_finished(), "it waits for the verdict");
    std::fs::remove_file(&list).unwrap();
    assert_eq!(asked.await.unwrap().unwrap().status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_that_is_moved_while_its_manifest_is_deleted_stays() {
    let store = Store::start().await;
    let (one, two) = (replica(&store).await, replica(&store).await);
    let (_, first) = one.push_image("a", "latest", "1").await;
    let (_, second) = one.push_image("a", "other", "2").await;
    // The deletion has seen where the tag points.
    let removal = store.hold("PUT", "_manifests/tags/latest/current");
    let path = one.url(&format!("/v2/a/manifests/{first}"));
    let deleting = tokio::spawn(client().delete(path).send());
    removal.arrived().await;
    let (_, moved) = two.push_image("a", "latest", "2").await;
    assert_eq!(moved, second);
    removal.release();
    assert_eq!(deleting.await.unwrap().unwrap().status(), 202);
    assert_pulls(&two, "a", "latest").await;
    assert_eq!(one.get(&format!("/v2/a/manifests/{first}")).await.status(), 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_waits_for_its_removal_and_is_then_set() {
    let store = Store::start().await;
    let (one, two) = (replica(&store).await, replica(&store).await);
    let (_, first) = one.push_image("a", "latest", "1").await;
    one.push_image("a", "other", "2").await;
    // The tombstone is there; what it stands for counts as gone.
    let removal = store.hold("POST", "?delete");
    let deleting = tokio::spawn(client().delete(one.url(&format!("/v2/a/manifests/{first}"))).send());
    removal.arrived().await;
    assert_eq!(two.get("/v2/a/manifests/latest").await.status(), 404);
    assert_eq!(json(two.get("/v2/a/tags/list").await).await["tags"], serde_json::json!(["other"]));
    let text = manifest(OCI_MANIFEST, br#"{"seed":"2"}"#, &[b"layer 2"], "");
    let request = two.ask(Method::PUT, "/v2/a/manifests/latest").header("content-type", OCI_MANIFEST);
    let setting = tokio::spawn(request.body(text).send());
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!setting.is_finished());
    removal.release();
    assert_eq!(deleting.await.unwrap().unwrap().status(), 202);
    assert_eq!(setting.await.unwrap().unwrap().status(), 201);
    assert_pulls(&one, "a", "latest").await;
    // A remover that died is not waited for for ever.
    let link = store.folder().join("docker/registry/v2/repositories/a/_manifests/tags/latest/current/link");
    std::fs::write(link, "removed 00112233445566778899aabbccddeeff").unwrap();
    assert_eq!(one.get("/v2/a/manifests/latest").await.status(), 404);
    assert_eq!(one.delete("/v2/a/manifests/latest").await, 404);
    let (_, second) = two.push_image("a", "latest", "2").await;
    assert_pulls(&one, "a", "latest").await;
    assert_eq!(one.delete(&format!("/v2/a/manifests/{second}")).await, 202);
    assert_eq!(json(two.get("/v2/a/tags/list").await).await["tags"], serde_json::json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_is_pushed_while_it_is_deleted_is_there_or_not() {
    let store = Store::start().await;
    let (one, two) = (replica(&store).await, replica(&store).await);
    let (text, digest) = one.push_image("a", "v1", "1").await;
    // Its tags were looked for; another one is set; its link goes.
    let removal = store.hold_after(2, "POST", "?delete");
    let deleting = tokio::spawn(client().delete(one.url(&format!("/v2/a/manifests/{digest}"))).send());
    removal.arrived().await;
    assert_eq!(two.put_manifest("a", "v2", OCI_MANIFEST, &text).await.status(), 201);
    removal.release();
    assert_eq!(deleting.await.unwrap().unwrap().status(), 202);
    assert_eq!(json(one.get("/v2/a/tags/list").await).await["tags"], serde_json::json!([]));
    // The same, and the tag comes when everything is over.
    one.push_image("a", "v1", "1").await;
    let setting = store.hold("PUT", "_manifests/tags/v3/current");
    let request = two.ask(Method::PUT, "/v2/a/manifests/v3").header("content-type", OCI_MANIFEST);
    let pushing = tokio::spawn(request.body(text).send());
    setting.arrived().await;
    assert_eq!(one.delete(&format!("/v2/a/manifests/{digest}")).await, 202);
    setting.release();
    assert_eq!(pushing.await.unwrap().unwrap().status(), 201);
    assert_pulls(&one, "a", "v3").await;
    assert_eq!(one.delete(&format!("/v2/a/manifests/{digest}")).await, 202);
    assert_eq!(json(one.get("/v2/a/tags/list").await).await["tags"], serde_json::json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_race_for_a_tag_leaves_no_trace_in_its_history() {
    let store = Store::start().await;
    let (one, two) = (replica(&store).await, replica(&store).await);
    one.push_blob("a", b"{}").await;
    let text = manifest(OCI_MANIFEST, b"{}", &[], "");
    let setting = store.hold("PUT", "_manifests/tags/once/current");
    let request = one.ask(Method::PUT, "/v2/a/manifests/once").header("content-type", OCI_MANIFEST);
    let losing = tokio::spawn(request.header("if-none-match", "*").body(text.clone()).send());
    setting.arrived().await;
    two.push_image("a", "once", "2").await;
    setting.release();
    assert_eq!(losing.await.unwrap().unwrap().status(), 412);
    let past = format!(
        "docker/registry/v2/repositories/a/_manifests/tags/once/index/sha256/{}/link",
        Digest::of(text.as_bytes()).hex()
    );
    assert!(!store.folder().join(past).exists());
    assert_pulls(&one, "a", "once").await;
}

/// Files of parts that belong to no object (yet).
fn parts_left(store: &Store) -> usize {
    let files = std::fs::read_dir(store.root.path()).unwrap().flatten();
    files.filter(|file| file.file_name().to_string_lossy().contains("part-")).count()
}

async fn begin_and_put(registry: &Registry, bytes: &[u8]) -> reqwest::Response {
    let path = format!("/v2/r/blobs/uploads/?digest={}", Digest::of(bytes));
    registry.ask(Method::POST, &path).body(bytes.to_vec()).send().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_fails_leaves_no_parts_behind() {
    let store = Store::start().await;
    let registry = replica(&store).await;
    let bytes = noise(12, 3 * PART_BYTES);
    // A full store: what had been received goes, whether parts were saved with the session or not.
    for part in ["partNumber=1", "partNumber=2"] {
        store.fail("PUT", part, 20, Fault::Full);
        let location = registry.begin("r").await;
        assert_eq!(patch(&registry, &location, &bytes).await, 507);
        assert_eq!(registry.get(&location).await.status(), 404);
        assert_eq!(parts_left(&store), 0, "{part}");
        assert_eq!(begin_and_put(&registry, &bytes).await.status(), 507);
        assert_eq!(parts_left(&store), 0, "{part}, of a blob whose name is known");
        store.heal();
    }
    // A store that fails: what was acknowledged stays and is gone on with, what was not goes.
    for (part, kept, files) in [("partNumber=1", 0, 0), ("partNumber=2", PART_BYTES, 1)] {
        store.fail("PUT", part, 20, Fault::Denied);
        let location = registry.begin("r").await;
        assert_eq!(patch(&registry, &location, &bytes).await, 503);
        assert_eq!(parts_left(&store), files, "{part}");
        assert_eq!(begin_and_put(&registry, &bytes).await.status(), 503);
        assert_eq!(parts_left(&store), files, "{part}, of a blob whose name is known");
        store.heal();
        assert_eq!(offset(&registry, &location).await, kept);
        assert_eq!(patch(&registry, &location, &bytes[kept..]).await, 202);
        let path = format!("{location}?digest={}", Digest::of(&bytes));
        assert_eq!(registry.ask(Method::PUT, &path).send().await.unwrap().status(), 201);
        assert_eq!(parts_left(&store), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_wait_for_the_end_of_its_upload_finds_the_blob() {
    let store = Store::start().await;
    let (one, two) = (replica(&store).await, replica(&store).await);
    let bytes = noise(13, 2 * PART_BYTES + 100);
    let digest = Digest::of(&bytes);
    let location = one.begin("r").await;
    let cut = 2 * PART_BYTES + 50;
    assert_eq!(patch(&one, &location, &bytes[..cut]).await, 202);
    let copy = store.hold("POST", "uploadId=");
    let path = one.url(&format!("{location}?digest={digest}"));
    let end = tokio::spawn(client().put(path).body(bytes[cut..].to_vec()).send());
    copy.arrived().await;
    end.abort();
    assert!(end.await.unwrap_err().is_cancelled());
    // The server notices that nobody waits any more.
    tokio::time::sleep(Duration::from_millis(500)).await;
    copy.release();
    let blob = format!("/v2/r/blobs/{digest}");
    let patience = Instant::now() + PATIENCE;
    while two.head(&blob).await.status() != 200 && Instant::now() < patience {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(two.get(&blob).await.bytes().await.unwrap() == bytes);
    while one.get(&location).await.status() != 404 && Instant::now() < patience {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // It sends the same once more.
    let again = two.ask(Method::PUT, &format!("{location}?digest={digest}")).send().await.unwrap();
    assert_eq!(again.status(), 201);
    let other = two.ask(Method::PUT, &format!("{location}?digest={}", Digest::of(b"x"))).send().await.unwrap();
    assert_eq!(codes(other).await, ["BLOB_UPLOAD_UNKNOWN"]);
    assert_eq!(parts_left(&store), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_expires_only_when_it_rests_and_is_then_unknown() {
    let store = Store::start().await;
    let bucket = store.bucket().await;
    let registry = Registry::of_bucket(bucket.clone(), None, |b| b).await;
    let location = registry.begin("r").await;
    assert_eq!(patch(&registry, &location, b"some").await, 202);
    store.age(OLD);
    // All uploads were listed; this one goes on; then it is judged.
    let clock = store.hold("PUT", "clock");
    let expiring = tokio::spawn(async move { bucket.expire_uploads(COLLECTED).await.unwrap() });
    clock.arrived().await;
    assert_eq!(patch(&registry, &location, b" more").await, 202);
    clock.release();
    assert_eq!(expiring.await.unwrap(), 0);
    assert_eq!(offset(&registry, &location).await, 9);
    // Parts that were thrown away by somebody else: the client begins again.
    let bytes = noise(14, PART_BYTES + 5);
    for method in [Method::PATCH, Method::PUT] {
        let location = registry.begin("r").await;
        assert_eq!(patch(&registry, &location, &bytes).await, 202);
        store.fail("PUT", "partNumber=2", 20, Fault::Gone);
        let body = if method == Method::PATCH { noise(15, 2 * PART_BYTES) } else { Vec::new() };
        let path = format!("{location}?digest={}", Digest::of(&bytes));
        let response = registry.ask(method.clone(), &path).body(body).send().await.unwrap();
        assert_eq!((response.status().as_u16(), codes(response).await), (404, vec!["BLOB_UPLOAD_UNKNOWN".to_owned()]));
        store.heal();
    }
    // One that is ended elsewhere while its bytes come.
    let location = registry.begin("r").await;
    let saving = store.hold("PUT", "/session");
    let sending = tokio::spawn(registry.ask(Method::PATCH, &location).body("bytes").send());
    saving.arrived().await;
    let other = replica(&store).await;
    assert_eq!(other.delete(&location).await, 204);
    saving.release();
    assert_eq!(codes(sending.await.unwrap().unwrap()).await, ["BLOB_UPLOAD_UNKNOWN"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_send_nothing_do_not_stop_the_others() {
    let store = Store::start().await;
    let mut settings = store.settings("place/in");
    settings.receiving = 1;
    let registry = Registry::of_bucket(Bucket::open(&settings).await.unwrap(), None, |b| b).await;
    let mut silent = Vec::new();
    for _ in 0..3 {
        let location = registry.begin("r").await;
        let (sender, body) = futures_channel(&[]);
        silent.push((sender, tokio::spawn(registry.ask(Method::PATCH, &location).body(body).send())));
    }
    let slow = registry.begin("r").await;
    let ended = registry.begin("r").await;
    assert_eq!(patch(&registry, &ended, &noise(16, MIB)).await, 202);
    // One that holds the only place.
    let (sender, body) = futures_channel(&noise(17, MIB));
    silent.push((sender, tokio::spawn(registry.ask(Method::PATCH, &slow).body(body).send())));
    tokio::time::sleep(Duration::from_millis(500)).await;
    // The last request of another one needs none.
    let path = format!("{ended}?digest={}", Digest::of(&noise(16, MIB)));
    let end = tokio::time::timeout(PATIENCE, registry.ask(Method::PUT, &path).send()).await;
    assert_eq!(end.unwrap().unwrap().status(), 201);
    drop(silent.pop());
    let pushed = tokio::time::timeout(PATIENCE, registry.push_blob("r", b"small")).await;
    assert_eq!(pushed.unwrap(), Digest::of(b"small"));
    drop(silent);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_for_a_bucket_is_said_first() {
    let store = Store::start().await;
    let registry = replica(&store).await;
    let location = registry.begin("r").await;
    let length = airlock_store::bucket::MAX_BLOB_BYTES + 1;
    let text = format!("PATCH {location} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n");
    let addr = registry.addr;
    let answer = tokio::task::spawn_blocking(move || {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(addr).unwrap();
        stream.write_all(text.as_bytes()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let (mut answer, mut piece) = (Vec::new(), [0; 1024]);
        while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
            let read = stream.read(&mut piece).unwrap();
            assert!(read > 0);
            answer.extend_from_slice(&piece[..read]);
        }
        String::from_utf8_lossy(&answer).into_owned()
    });
    let answer = answer.await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert_eq!(offset(&registry, &location).await, 0, "the upload is still there");
}

/// How long pushes and collections go on together at least; and at most, when too little has come of it until then.
const TOGETHER: Duration = Duration::from_secs(45);
const TOGETHER_MOST: Duration = Duration::from_secs(300);
/// From its first question to its manifest no push may take longer than half of the age at which blobs are collected. One that takes longer
/// than this (ages are whole seconds) may find its blobs gone: this machine was too busy for it to be judged.
const QUICK: Duration = Duration::from_secs(4);
/// Pushes that must have been quick.
const QUICK_PUSHES: usize = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pushes_at_two_servers_and_garbage_collection_do_not_disturb_each_other() {
    let store = Store::start().await;
    let mut settings = store.settings("place/in");
    // Everything is used again when it is just old enough to be collected.
    settings.collected_age = Duration::from_secs(10);
    let mut servers = Vec::new();
    for _ in 0..2 {
        let bucket = Bucket::open(&settings).await.unwrap();
        servers.push((bucket.clone(), Registry::of_bucket(bucket, None, |b| b).await));
    }
    let begun = Instant::now();
    let (collections, removed, quick) = (AtomicUsize::new(0), AtomicU64::new(0), AtomicUsize::new(0));
    let is_enough =
        || collections.load(Relaxed) > 1 && removed.load(Relaxed) > 0 && quick.load(Relaxed) >= QUICK_PUSHES;
    let goes_on = || begun.elapsed() < TOGETHER || (begun.elapsed() < TOGETHER_MOST && !is_enough());
    let collect = async {
        while goes_on() {
            match servers[collections.load(Relaxed) % 2].0.collect_garbage(false).await {
                Ok(collected) => removed.fetch_add(collected.removed_files, Relaxed),
                Err(e) => panic!("{e}"),
            };
            collections.fetch_add(1, Relaxed);
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    };
    let push = async |worker: usize| {
        let mut pushes = 0;
        while goes_on() {
            let asked = Instant::now();
            let registry = &servers[(worker + pushes) % 2].1;
            let (config, layer) = (format!("{{\"w\":{worker}}}"), format!("layer of {worker}"));
            for bytes in [&config, &layer] {
                // As a client does: what is there is not sent again.
                let path = format!("/v2/r{worker}/blobs/{}", Digest::of(bytes.as_bytes()));
                if registry.head(&path).await.status() == 404 {
                    registry.push_blob(&format!("r{worker}"), bytes.as_bytes()).await;
                }
            }
            let text = manifest(
                OCI_MANIFEST,
                config.as_bytes(),
                &[layer.as_bytes()],
                &format!(r#","annotations":{{"n":"{pushes}"}}"#),
            );
            let other = &servers[(worker + pushes + 1) % 2].1;
            let response = other.put_manifest(&format!("r{worker}"), "v", OCI_MANIFEST, &text).await;
            let (status, is_quick) = (response.status().as_u16(), asked.elapsed() < QUICK);
            assert!(status == 201 || (status == 400 && !is_quick), "{status} {}", response.text().await.unwrap());
            if is_quick {
                assert_pulls(registry, &format!("r{worker}"), "v").await;
                quick.fetch_add(1, Relaxed);
            }
            if status == 201 {
                let digest = Digest::of(text.as_bytes());
                assert_eq!(other.delete(&format!("/v2/r{worker}/manifests/{digest}")).await, 202);
            }
            pushes += 1;
            tokio::time::sleep(Duration::from_millis(9_000 + 700 * worker as u64)).await;
        }
        pushes
    };
    let ((), a, b, c, d) = tokio::join!(collect, push(0), push(1), push(2), push(3));
    println!(
        "{} pushes, {quick:?} of them quick, {collections:?} collections, {removed:?} files removed",
        a + b + c + d
    );
    assert!(is_enough(), "{quick:?} {collections:?} {removed:?}");
}

/// Sets when an object was written: by the store's clock, since this store has the file system's.
fn written_before(path: &Path, seconds: u64) {
    let modified = std::time::SystemTime::now() - Duration::from_secs(seconds);
    std::fs::File::options().write(true).open(path).unwrap().set_modified(modified).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_a_request_holds_for_long_does_not_expire() {
    let store = Store::start().await;
    let mut settings = store.settings("place/in");
    settings.held_renewal = Duration::from_millis(50);
    let (bucket, name) = (Bucket::open(&settings).await.unwrap(), Repository::new("r").unwrap());
    let id = bucket.begin_upload(&name, Algorithm::Sha256).await.unwrap();
    let folder = store.folder().join(format!(".airlock/uploads/{id}"));
    let (session, held) = (folder.join("session"), folder.join("held"));
    let hour = Duration::from_secs(3600);
    let mut upload = bucket.upload(&name, &id).await.unwrap().unwrap();
    // Nothing of it was written for two hours; but its client is there.
    written_before(&session, 7200);
    let end = Instant::now() + Duration::from_secs(30);
    while !held.exists() {
        assert!(Instant::now() < end, "nobody is told that it is held");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(bucket.expire_uploads(hour).await.unwrap(), 0);
    // Again and again, not once.
    written_before(&held, 7200);
    let is_young = || held.metadata().unwrap().modified().unwrap().elapsed().unwrap_or_default() < hour;
    while !is_young() {
        assert!(Instant::now() < end, "it was told once only");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(bucket.expire_uploads(hour).await.unwrap(), 0);
    upload.append(futures_util::stream::iter([Ok("late".into())])).await.unwrap();
    upload.save().await.unwrap();
    drop(upload);
    let status = bucket.upload_status(&name, &id).await.unwrap();
    assert_eq!(status.map(|status| status.offset), Some(4));
    // Let go, it rests, and expires. What was on its way when it was let go may still come.
    let end = Instant::now() + Duration::from_secs(30);
    let expired = loop {
        for path in [&session, &held].into_iter().filter(|path| path.exists()) {
            written_before(path, 7200);
        }
        match bucket.expire_uploads(hour).await.unwrap() {
            0 => assert!(Instant::now() < end, "it does not expire"),
            expired => break expired,
        }
    };
    assert_eq!((expired, bucket.upload_status(&name, &id).await.unwrap()), (1, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_says_at_every_step_that_it_works_and_removes_nothing_when_it_is_not_believed() {
    let store = Store::start().await;
    let mut settings = store.settings("place/in");
    (settings.collected_age, settings.lock_renewal) = (Duration::from_secs(600), Duration::ZERO);
    let bucket = Bucket::open(&settings).await.unwrap();
    let registry = Registry::of_bucket(bucket.clone(), None, |b| b).await;
    // Two repositories, three manifests with seven blobs of theirs, and two blobs that nobody names, one of them in both.
    for (name, seed) in [("a", "1"), ("a", "2"), ("b", "3")] {
        registry.push_image(name, "v1", seed).await;
    }
    let garbage = [registry.push_blob("a", b"garbage").await, registry.push_blob("b", b"more garbage").await];
    registry.push_blob("b", b"garbage").await;
    let blobs = store.folder().join("docker/registry/v2/blobs/sha256");
    let data = |digest: &Digest| blobs.join(&digest.hex()[..2]).join(digest.hex()).join("data");
    for digest in &garbage {
        written_before(&data(digest), 3600);
    }
    let (manifests, files, links, repositories) = (3, 3 * 3 + 2, 3 * 2 + 3, 2);
    // Dry: everything but the removal.
    store.fail("PUT", "gc/lock", 1000, Fault::None);
    let dry = bucket.collect_garbage(true).await.unwrap();
    assert_eq!((dry.manifests, dry.files, dry.repositories, dry.removed_files), (manifests, files, repositories, 2));
    let written = 1000 - store.faults_left() as u64;
    store.heal();
    // It is taken; then for each repository and each of its manifests, each file, each repository and each of its links, and each batch.
    assert_eq!(written, 1 + repositories + manifests + files + repositories + links + 1);

    // Somebody takes the lock while it looks for links: it ends before it removes anything.
    let listing = store.hold("GET", "_layers");
    let collecting = tokio::spawn({
        let bucket = bucket.clone();
        async move { bucket.collect_garbage(false).await }
    });
    listing.arrived().await;
    let lock = store.folder().join(".airlock/gc/lock");
    std::fs::remove_file(&lock).unwrap();
    let other = Bucket::open(&store.settings("place/in")).await.unwrap();
    let removal = store.hold("GET", "_manifests");
    let others = tokio::spawn(async move { other.collect_garbage(true).await });
    removal.arrived().await;
    listing.release();
    assert_eq!(collecting.await.unwrap().unwrap_err().kind(), ErrorKind::Locked);
    assert!(garbage.iter().all(|digest| data(digest).exists()));
    assert!(lock.exists(), "the lock is another's");
    removal.release();
    others.await.unwrap().unwrap();
    assert_eq!(bucket.collect_garbage(false).await.unwrap().removed_files, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_removes_links_before_data() {
    let store = Store::start().await;
    let bucket = with_garbage(&store, b"garbage").await;
    let digest = Digest::of(b"garbage");
    let below = store.folder().join("docker/registry/v2");
    let link = below.join(format!("repositories/r/_layers/sha256/{}/link", digest.hex()));
    let data = below.join(format!("blobs/sha256/{}/{}/data", &digest.hex()[..2], digest.hex()));
    // The list of a collector that died, the link, the data.
    let removal = store.hold_after(2, "POST", "?delete");
    let collecting = collect(&bucket);
    removal.arrived().await;
    assert!(!link.exists() && data.exists(), "whoever dies here leaves no link to what is gone");
    // It dies here.
    collecting.abort();
    store.heal();
    assert!(collecting.await.is_err());
    written_before(&store.folder().join(".airlock/gc/lock"), 3600);
    let next = bucket.collect_garbage(false).await.unwrap();
    assert_eq!((next.removed_files, next.removed_links), (1, 0), "the next one finds it");
    removal.release();
    assert!(!data.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_old_is_told_by_the_clock_of_the_store() {
    let store = Store::start().await;
    let registry = replica(&store).await;
    let digest = registry.push_blob("r", b"young").await;
    let (day, mut settings) = (24 * 3600, store.settings("place/in"));
    settings.collected_age = Duration::from_secs(3600);
    let bucket = Bucket::open(&settings).await.unwrap();
    // Two days behind: by our clock everything in it is old, by its own it was written just now.
    store.turn_back(Duration::from_secs(2 * day));
    let collected = bucket.collect_garbage(false).await.unwrap();
    assert_eq!((collected.files, collected.removed_files, collected.leased), (1, 0, 1));
    let id = bucket.begin_upload(&Repository::new("r").unwrap(), Algorithm::Sha256).await.unwrap();
    assert_eq!(bucket.expire_uploads(Duration::from_secs(3600)).await.unwrap(), 0);
    // Old by both.
    let blobs = store.folder().join("docker/registry/v2/blobs/sha256");
    written_before(&blobs.join(&digest.hex()[..2]).join(digest.hex()).join("data"), 7200);
    written_before(&store.folder().join(format!(".airlock/uploads/{id}/session")), 7200);
    assert_eq!(bucket.collect_garbage(false).await.unwrap().removed_files, 1);
    assert_eq!(bucket.expire_uploads(Duration::from_secs(3600)).await.unwrap(), 1);
}
