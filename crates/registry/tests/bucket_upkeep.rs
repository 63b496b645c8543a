//! Upkeep of a bucket: what is damaged is found, named, put aside and brought back from an archive; what a killed server leaves behind is
//! taken up by another one or goes.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test ends where it fails")]

mod support;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use airlock_oci::{Digest, ErrorKind};
use airlock_registry::admin::Sources;
use airlock_registry::{Anonymous, Server};
use airlock_store::bucket::{AccessKey, Bucket, PART_BYTES, Settings};
use airlock_store::distribution::{Damage, Fault};
use reqwest::Method;
use support::s3::{self, KEY, Store};
use support::*;

/// A server of the store's bucket, with a memory of its own.
async fn replica(store: &Store) -> Registry {
    Registry::of_bucket(store.bucket().await, None, |b| b).await
}

/// The file that is the object of a digest.
fn object(store: &Store, digest: &Digest) -> PathBuf {
    store.folder().join(format!("docker/registry/v2/blobs/sha256/{}/{}/data", &digest.hex()[..2], digest.hex()))
}

/// Changes an object, as if it had lain there for an hour.
fn alter(store: &Store, digest: &Digest, change: impl FnOnce(&mut Vec<u8>)) {
    let path = object(store, digest);
    let mut bytes = std::fs::read(&path).unwrap();
    change(&mut bytes);
    std::fs::write(&path, &bytes).unwrap();
    let old = SystemTime::now() - Duration::from_secs(3600);
    std::fs::File::options().write(true).open(&path).unwrap().set_modified(old).unwrap();
}

fn flip(bytes: &mut [u8]) {
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
}

fn noise(seed: u32, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761).max(1);
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 8) as u8
    };
    (0..len).map(next).collect()
}

/// Pulls an image whole; its text.
async fn assert_pulls(registry: &Registry, name: &str, at: &str) -> String {
    let response = registry.get(&format!("/v2/{name}/manifests/{at}")).await;
    assert_eq!(response.status(), 200, "{name} {at}");
    let text = response.text().await.unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&text).unwrap();
    for blob in std::iter::once(&manifest["config"]).chain(manifest["layers"].as_array().unwrap()) {
        let digest = blob["digest"].as_str().unwrap();
        let response = registry.get(&format!("/v2/{name}/blobs/{digest}")).await;
        assert_eq!(response.status(), 200, "{name}@{digest}");
        assert_eq!(Digest::of(&response.bytes().await.unwrap()).to_string(), digest);
    }
    text
}

fn faults(damage: &[Damage]) -> Vec<(Digest, Fault, usize)> {
    damage.iter().map(|damage| (damage.digest.clone(), damage.fault, damage.affected)).collect()
}

/// Pushes what the archive holds, and an image of another repository with the same layer.
async fn push_set(registry: &Registry, set: &archive::Set) -> Digest {
    for name in ["acme/app", "other"] {
        for blob in &set.blobs {
            registry.push_blob(name, blob).await;
        }
    }
    let image = Digest::of(set.image.as_bytes()).to_string();
    for (at, kind, text) in [
        (image.as_str(), OCI_MANIFEST, &set.image),
        ("v1", OCI_INDEX, &set.index),
        ("sig", OCI_MANIFEST, &set.signature),
    ] {
        assert_eq!(registry.put_manifest("acme/app", at, kind, text).await.status(), 201);
    }
    let other = manifest(OCI_MANIFEST, b"{}", &[&set.blobs[1]], r#","annotations":{"of":"another"}"#);
    assert_eq!(registry.put_manifest("other", "x", OCI_MANIFEST, &other).await.status(), 201);
    Digest::of(other.as_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_is_named_put_aside_and_brought_back() {
    let (store, set, folder) = (Store::start().await, archive::set(), tempfile::tempdir().unwrap());
    archive::write(folder.path(), &set).await;
    let pushed_to = replica(&store).await;
    let other = push_set(&pushed_to, &set).await;
    let large = noise(1, 2 * PART_BYTES + 1000);
    pushed_to.push_blob("large", &large).await;
    let text = manifest(OCI_MANIFEST, b"{}", &[&large], "");
    pushed_to.push_blob("large", b"{}").await;
    assert_eq!(pushed_to.put_manifest("large", "v", OCI_MANIFEST, &text).await.status(), 201);
    // By another process than the one that wrote and serves it.
    let bucket = store.bucket().await;
    assert_eq!(bucket.verified().await.unwrap(), None);
    let clean = bucket.scrub(None).await.unwrap();
    assert_eq!((clean.files, clean.manifests, clean.damage.len()), (9, 5, 0), "{clean:?}");
    assert!(clean.verdict("here").is_ok() && bucket.verified().await.unwrap().unwrap().damage.is_empty());
    let [image, layer, signed, large_digest] =
        [set.image.as_bytes(), &set.blobs[1], &set.blobs[2], &large].map(Digest::of);
    alter(&store, &layer, |bytes| flip(bytes));
    alter(&store, &image, Vec::clear);
    alter(&store, &large_digest, |bytes| bytes.truncate(PART_BYTES));
    std::fs::remove_file(object(&store, &signed)).unwrap();
    let scrubbed = bucket.scrub(None).await.unwrap();
    assert_eq!(scrubbed.verdict("here").unwrap_err().kind(), ErrorKind::Damaged);
    let mut expected = vec![
        // What a damaged manifest names nobody knows.
        (layer.clone(), Fault::Altered, 1),
        (image.clone(), Fault::Altered, 1),
        (large_digest.clone(), Fault::Altered, 1),
        (signed.clone(), Fault::Missing, 1),
    ];
    expected.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(faults(&scrubbed.damage), expected);
    let of_layer = scrubbed.damage.iter().find(|damage| damage.digest == layer).unwrap();
    assert_eq!(of_layer.images, [format!("other@{other}")]);
    // Nobody is given it any more.
    let served = replica(&store).await;
    for path in [
        format!("acme/app/blobs/{layer}"),
        format!("other/blobs/{layer}"),
        format!("large/blobs/{large_digest}"),
        format!("acme/app/manifests/{image}"),
    ] {
        assert_eq!(served.get(&format!("/v2/{path}")).await.status(), 404, "{path}");
    }
    for digest in [&layer, &image, &large_digest] {
        assert!(store.folder().join(format!(".airlock/quarantine/sha256-{}", digest.hex())).exists());
    }
    assert_eq!(bucket.verified().await.unwrap().unwrap().damage, scrubbed.damage);
    // A wrong copy helps nobody.
    let sources = Sources::open(&[folder.path().to_owned()]).unwrap();
    let wrong = |digest: &Digest| (*digest == layer).then(|| sources.find(&signed)).flatten();
    let left = bucket.repair(true, &wrong).await.unwrap();
    assert_eq!((left.restored.len(), left.left.len()), (0, 4), "{left:?}");
    assert!(!object(&store, &layer).exists());
    let repaired = bucket.repair(true, &|digest| sources.find(digest)).await.unwrap();
    let mut restored = [layer.clone(), image.clone(), signed.clone()];
    restored.sort();
    assert_eq!(repaired.restored, restored);
    assert_eq!(faults(&repaired.left), [(large_digest.clone(), Fault::Missing, 1)]);
    assert_eq!(bucket.verified().await.unwrap().unwrap().damage, repaired.left);
    // A push of the image does the same.
    pushed_to.push_blob("large", &large).await;
    assert_eq!(bucket.scrub(None).await.unwrap().damage, []);
    for (name, at) in
        [("acme/app", image.to_string()), ("acme/app", "sig".into()), ("other", "x".into()), ("large", "v".into())]
    {
        assert_pulls(&served, name, &at).await;
    }
    // The whole way in one command, a link that is gone included.
    alter(&store, &layer, |bytes| flip(bytes));
    std::fs::remove_file(
        store.folder().join(format!("docker/registry/v2/repositories/acme/app/_layers/sha256/{}/link", signed.hex())),
    )
    .unwrap();
    let repaired = bucket.repair(false, &|digest| sources.find(digest)).await.unwrap();
    restored = [layer.clone(), signed.clone(), image.clone()];
    restored[..2].sort();
    assert_eq!((&repaired.restored[..], repaired.left.len()), (&restored[..2], 0));
    assert_eq!(bucket.scrub(None).await.unwrap().damage, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_blob_comes_back_in_parts() {
    let (store, folder) = (Store::start().await, tempfile::tempdir().unwrap());
    let registry = replica(&store).await;
    let bytes = noise(2, 2 * PART_BYTES + 77);
    let digest = registry.push_blob("r", &bytes).await;
    alter(&store, &digest, |bytes| flip(bytes));
    let file = folder.path().join("file");
    std::fs::write(&file, [b"before", &bytes[..]].concat()).unwrap();
    let file = std::sync::Arc::new(std::fs::File::open(file).unwrap());
    let find = |_: &Digest| Some(airlock_store::Region { file: file.clone(), offset: 6, len: bytes.len() as u64 });
    let repaired = store.bucket().await.repair(false, &find).await.unwrap();
    assert_eq!((repaired.restored, repaired.left.len()), (vec![digest.clone()], 0));
    assert!(registry.get(&format!("/v2/r/blobs/{digest}")).await.bytes().await.unwrap() == bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_the_store_does_not_give_is_named_and_stays() {
    let (store, set, folder) = (Store::start().await, archive::set(), tempfile::tempdir().unwrap());
    archive::write(folder.path(), &set).await;
    let registry = replica(&store).await;
    push_set(&registry, &set).await;
    let bucket = store.bucket().await;
    let layer = Digest::of(&set.blobs[1]);
    let path: &'static str = format!("{}/data", layer.hex()).leak();
    store.fail("GET", path, usize::MAX, s3::Fault::Denied);
    let scrubbed = bucket.scrub(None).await.unwrap();
    assert_eq!(faults(&scrubbed.damage), [(layer.clone(), Fault::Unreadable, 2)]);
    assert!(object(&store, &layer).exists());
    let sources = Sources::open(&[folder.path().to_owned()]).unwrap();
    let repaired = bucket.repair(false, &|digest| sources.find(digest)).await.unwrap();
    assert_eq!((repaired.restored, repaired.left.len()), (vec![layer], 0));
    store.heal();
    assert_eq!(bucket.scrub(None).await.unwrap().damage, []);
    // Of a store that gives nothing nobody is told that its blobs are damaged.
    store.fail("*", "", usize::MAX, s3::Fault::Denied);
    assert_eq!(bucket.scrub(None).await.unwrap_err().kind(), ErrorKind::Denied);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scrub_waits_for_a_collection_and_keeps_to_its_rate() {
    let store = Store::start().await;
    let registry = replica(&store).await;
    let digest = registry.push_blob("r", &noise(3, 3_000_000)).await;
    let (bucket, start) = (store.bucket().await, Instant::now());
    bucket.scrub(Some(2_000_000)).await.unwrap();
    assert!(start.elapsed() > Duration::from_millis(1_400), "{:?}", start.elapsed());
    alter(&store, &digest, |bytes| flip(bytes));
    let lock = store.folder().join(".airlock/gc/lock");
    std::fs::create_dir_all(lock.parent().unwrap()).unwrap();
    std::fs::write(&lock, "somebody").unwrap();
    let wait = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert!(object(&store, &digest).exists(), "it waits");
        std::fs::remove_file(&lock).unwrap();
    };
    let (scrubbed, ()) = tokio::join!(bucket.scrub(None), wait);
    assert_eq!(faults(&scrubbed.unwrap().damage), [(digest.clone(), Fault::Altered, 0)]);
    assert!(!object(&store, &digest).exists() && !lock.exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_pushed_while_its_damaged_copy_is_put_aside_stays() {
    let store = Store::start().await;
    let (registry, bucket) = (replica(&store).await, store.bucket().await);
    for round in 0..12 {
        let bytes = noise(100 + round, 50_000);
        let digest = registry.push_blob("r", &bytes).await;
        alter(&store, &digest, |bytes| flip(bytes));
        let push = async {
            tokio::time::sleep(Duration::from_millis(u64::from(round) * 8)).await;
            registry.push_blob("r", &bytes).await;
        };
        let (scrubbed, ()) = tokio::join!(bucket.scrub(None), push);
        scrubbed.unwrap();
        let response = registry.get(&format!("/v2/r/blobs/{digest}")).await;
        assert_eq!(response.status(), 200, "round {round}: an acknowledged push is gone");
        assert!(response.bytes().await.unwrap() == bytes, "round {round}");
    }
    assert_eq!(bucket.scrub(None).await.unwrap().damage, []);
}

/// Set for the process that is to be killed: the store's URL, and where it says its address.
const ENDPOINT: &str = "AIRLOCK_BUCKET_CRASH_TEST_ENDPOINT";
const FOLDER: &str = "AIRLOCK_BUCKET_CRASH_TEST_FOLDER";
/// How often it is killed, unless the environment says otherwise.
const KILLS: u32 = 9;
/// Bytes of the blob that it is killed at: two parts and some.
const LARGE: usize = 2 * PART_BYTES + 500_000;

/// Not a test, but the server of the one below, in a process of its own.
#[test]
fn server_of_the_crash_test() {
    let (Some(endpoint), Some(folder)) = (std::env::var_os(ENDPOINT), std::env::var_os(FOLDER)) else { return };
    let mut settings = Settings::parse("s3://mirror/place/in").unwrap();
    settings.endpoint = Some(endpoint.into_string().unwrap());
    settings.region = Some("us-east-1".into());
    settings.key = Some(AccessKey::new(KEY.0, KEY.1));
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let bucket = Bucket::open(&settings).await.unwrap();
        let running = Server::bucket(bucket).anonymous(Anonymous::Push).bind(localhost()).await.unwrap();
        let folder = Path::new(&folder);
        std::fs::write(folder.join("addr.new"), running.addr.to_string()).unwrap();
        std::fs::rename(folder.join("addr.new"), folder.join("addr")).unwrap();
        std::future::pending::<()>().await;
    });
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // SIGKILL: it has no chance to tidy up.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(store: &Store, folder: &Path) -> (Killed, String) {
    let _ = std::fs::remove_file(folder.join("addr"));
    let child = Killed(
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "server_of_the_crash_test"])
            .env(ENDPOINT, format!("http://{}", store.addr))
            .env(FOLDER, folder)
            .stdout(Stdio::null())
            .spawn()
            .unwrap(),
    );
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        if let Ok(addr) = std::fs::read_to_string(folder.join("addr")) {
            return (child, addr);
        }
        assert!(Instant::now() < end, "the server does not start");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// How far the push of a large blob in chunks came before the server was gone.
struct Broken {
    location: String,
    /// Bytes that were acknowledged, and sent.
    acknowledged: usize,
    sent: usize,
    /// The name was given.
    is_named: bool,
}

/// Pushes a blob in chunks; `Err` when the server was gone before it was done.
async fn push_in_chunks(client: &reqwest::Client, addr: &str, bytes: &[u8]) -> Result<(), Option<Broken>> {
    const CHUNK: usize = 3_000_000;
    let begun = client.post(format!("http://{addr}/v2/large/blobs/uploads/")).send().await.map_err(|_| None)?;
    let location = begun.headers()["location"].to_str().unwrap().to_owned();
    let mut broken = Broken { location, acknowledged: 0, sent: 0, is_named: false };
    while broken.acknowledged < bytes.len() {
        let end = bytes.len().min(broken.acknowledged + CHUNK);
        broken.sent = end;
        let request = client.patch(format!("http://{addr}{}", broken.location));
        let request = request.header("content-range", format!("{}-{}", broken.acknowledged, end - 1));
        match request.body(bytes[broken.acknowledged..end].to_vec()).send().await {
            Ok(response) => assert_eq!(response.status(), 202),
            Err(_) => return Err(Some(broken)),
        }
        broken.acknowledged = end;
    }
    broken.is_named = true;
    let url = format!("http://{addr}{}?digest={}", broken.location, Digest::of(bytes));
    match client.put(url).send().await {
        Ok(response) => assert_eq!(response.status(), 201),
        Err(_) => return Err(Some(broken)),
    }
    Ok(())
}

/// Goes on at another server with what the killed one has left; what came of it.
async fn goes_on(registry: &Registry, broken: &Broken, bytes: &[u8]) -> &'static str {
    let (status, digest) = (registry.get(&broken.location).await, Digest::of(bytes));
    if status.status() == 404 {
        // Nothing of it is lost but what was done: it has its name.
        assert!(broken.is_named, "{} acknowledged bytes are gone", broken.acknowledged);
        assert_eq!(registry.head(&format!("/v2/large/blobs/{digest}")).await.status(), 200);
        return "was done";
    }
    // What the killed server had sent may arrive later than the first question, whose answer is then old: the client is told so, and asks again.
    let mut status = Some(status);
    for attempt in 0.. {
        let known = match status.take() {
            Some(known) => known,
            None => registry.get(&broken.location).await,
        };
        assert_eq!(known.status(), 204);
        let last: usize = header(&known, "range").strip_prefix("0-").unwrap().parse().unwrap();
        let from = if last == 0 { 0 } else { last + 1 };
        assert!((broken.acknowledged..=broken.sent).contains(&from), "{from} of {}", broken.acknowledged);
        if from == bytes.len() {
            break;
        }
        let request = registry.ask(Method::PATCH, &broken.location);
        let request = request.header("content-range", format!("{from}-{}", bytes.len() - 1));
        match request.body(bytes[from..].to_vec()).send().await.unwrap().status().as_u16() {
            202 => break,
            other => assert!([409, 416].contains(&other) && attempt < 5, "{other}"),
        }
    }
    let name =
        async || registry.ask(Method::PUT, &format!("{}?digest={digest}", broken.location)).send().await.unwrap();
    let mut end = name().await;
    // The store may still be joining the parts for the killed server: refused for now, and asked again.
    for _ in 0..10 {
        if end.status() != 503 {
            break;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        end = name().await;
    }
    // Or what the killed server had begun has been done in the meantime.
    if !(end.status() == 404 && broken.is_named) {
        assert_eq!(end.status(), 201, "{}", end.text().await.unwrap());
    }
    assert!(registry.get(&format!("/v2/large/blobs/{digest}")).await.bytes().await.unwrap() == bytes);
    if broken.is_named { "was named again" } else { "went on" }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_a_kill_and_what_was_begun_goes_on_elsewhere() {
    let kills = std::env::var("AIRLOCK_REGISTRY_KILLS").map_or(KILLS, |n| n.parse().unwrap());
    let (store, folder) = (Store::start().await, tempfile::tempdir().unwrap());
    let other = replica(&store).await;
    let (mut acknowledged, mut outcomes, mut abandoned) = (Vec::new(), Vec::new(), 0);
    let seed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().subsec_nanos();
    // How long it takes on this machine.
    let (server, addr) = start(&store, folder.path());
    let begun = Instant::now();
    push_in_chunks(&client(), &addr, &noise(999, LARGE)).await.ok().unwrap();
    let whole = begun.elapsed();
    drop(server);
    for kill in 0..kills {
        let (server, addr) = start(&store, folder.path());
        let bytes = noise(1000 + kill, LARGE);
        let chunks = tokio::spawn({
            let (addr, bytes) = (addr.clone(), bytes.clone());
            async move { push_in_chunks(&client(), &addr, &bytes).await }
        });
        let images = tokio::spawn(async move {
            let (client, mut done) = (client(), Vec::new());
            for i in 0.. {
                let (config, layer) = (format!("{{\"i\":\"{kill}-{i}\"}}"), format!("layer {kill}-{i}"));
                for blob in [&config, &layer] {
                    let url = format!("http://{addr}/v2/small/blobs/uploads/?digest={}", Digest::of(blob.as_bytes()));
                    let Ok(pushed) = client.post(url).body(blob.clone()).send().await else { return done };
                    assert_eq!(pushed.status(), 201);
                }
                let (tag, text) =
                    (format!("t{kill}-{i}"), manifest(OCI_MANIFEST, config.as_bytes(), &[layer.as_bytes()], ""));
                let url = format!("http://{addr}/v2/small/manifests/{tag}");
                let request = client.put(url).header("content-type", OCI_MANIFEST).body(text.clone());
                let Ok(pushed) = request.send().await else { return done };
                assert_eq!(pushed.status(), 201);
                done.push((tag, text));
            }
            done
        });
        // From the first byte until a little after the last one, over all the kills.
        let part = (f64::from(kill) + f64::from(seed % 1000) / 1000.0) / f64::from(kills);
        tokio::time::sleep(whole.mul_f64(1.2 * part)).await;
        drop(server);
        acknowledged.extend(images.await.unwrap());
        match chunks.await.unwrap() {
            Ok(()) => {
                let path = format!("/v2/large/blobs/{}", Digest::of(&bytes));
                assert!(other.get(&path).await.bytes().await.unwrap() == bytes);
                outcomes.push("was acknowledged");
            }
            Err(None) => outcomes.push("was not begun"),
            Err(Some(_)) if kill % 3 == 2 => {
                abandoned += 1;
                outcomes.push("was abandoned");
            }
            Err(Some(broken)) => outcomes.push(goes_on(&other, &broken, &bytes).await),
        }
    }
    println!("{} images; {outcomes:?}", acknowledged.len());
    assert!(!acknowledged.is_empty() && outcomes.iter().any(|outcome| *outcome != "was not begun"), "{outcomes:?}");
    for (tag, text) in &acknowledged {
        assert_eq!(assert_pulls(&other, "small", tag).await, *text, "{tag} was acknowledged");
    }
    // What shows is whole, acknowledged or not.
    let tags = json(other.get("/v2/small/tags/list").await).await;
    for tag in tags["tags"].as_array().unwrap() {
        assert_pulls(&other, "small", tag.as_str().unwrap()).await;
    }
    let bucket = store.bucket().await;
    assert_eq!(bucket.scrub(None).await.unwrap().damage, []);
    // What nobody goes on with expires. A part whose session the killed server did not come to write is for the bucket's own rule.
    bucket.expire_uploads(Duration::ZERO).await.unwrap();
    let uploads = store.folder().join(".airlock/uploads");
    let left = std::fs::read_dir(uploads).unwrap().flatten().flat_map(|f| std::fs::read_dir(f.path()).unwrap()).count();
    assert_eq!(left, 0, "sessions are left");
    let parts = std::fs::read_dir(store.root.path()).unwrap().flatten();
    let parts = parts.filter(|file| file.file_name().to_string_lossy().contains("part-")).count();
    assert!(parts <= kills as usize, "{parts} parts are left of {abandoned} abandoned uploads");
}
