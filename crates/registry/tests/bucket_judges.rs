//! The registry over an object store as others see it: skopeo and crane push and pull, docker-registry serves the same bucket and
//! pushes to it, moto stands in for the store.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test ends where it fails")]

mod support;

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use airlock_oci::Digest;
use airlock_store::bucket::{Bucket, PART_BYTES, Settings};
use reqwest::Method;
use support::s3::{KEY, Moto, Store};
use support::*;

/// An image as an OCI layout, of one layer so large that it comes in parts; the manifest's bytes.
fn layout(root: &Path) -> Vec<u8> {
    let blobs = root.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    let write = |bytes: &[u8]| {
        std::fs::write(blobs.join(Digest::of(bytes).hex()), bytes).unwrap();
    };
    let layer: Vec<u8> = (0..PART_BYTES + 100_000).map(|i| (i * 7 % 251) as u8).collect();
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{}},"rootfs":{{"type":"layers","diff_ids":["{}"]}}}}"#,
        Digest::of(&layer)
    );
    let text = manifest(OCI_MANIFEST, config.as_bytes(), &[&layer], "");
    write(&layer);
    write(config.as_bytes());
    write(text.as_bytes());
    std::fs::write(root.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let named = descriptor(OCI_MANIFEST, text.as_bytes())
        .replace('}', r#","annotations":{"org.opencontainers.image.ref.name":"v1"}}"#);
    std::fs::write(root.join("index.json"), format!(r#"{{"schemaVersion":2,"manifests":[{named}]}}"#)).unwrap();
    text.into_bytes()
}

/// A program that is ended when this is dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

async fn listens(process: &mut Process, addr: SocketAddr, log: &Path) {
    let end = Instant::now() + Duration::from_secs(60);
    while std::net::TcpStream::connect(addr).is_err() {
        let is_there = process.0.try_wait().unwrap().is_none() && Instant::now() < end;
        assert!(is_there, "{addr} does not listen: {}", std::fs::read_to_string(log).unwrap_or_default());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// docker-registry with its own driver for object stores, at the bucket of `endpoint`.
async fn docker_registry(program: &str, endpoint: &str, folder: &Path) -> (Process, SocketAddr) {
    let addr: SocketAddr = ([127, 0, 0, 1], free_port()).into();
    let config = folder.join("config.yml");
    let text = format!(
        "version: 0.1\nlog: {{level: error}}\nstorage:\n  s3: {{accesskey: {}, secretkey: {}, region: us-east-1, regionendpoint: '{endpoint}', \
         bucket: mirror, rootdirectory: /place/in, secure: false, v4auth: true}}\n  redirect: {{disable: true}}\n  delete: {{enabled: true}}\n\
         http: {{addr: '{addr}'}}\n",
        KEY.0, KEY.1
    );
    std::fs::write(&config, text).unwrap();
    let child = Command::new(program)
        .args(["serve", config.to_str().unwrap()])
        .env("NO_PROXY", "*")
        // Its old client cannot take one, and fails.
        .env_remove("AWS_CA_BUNDLE")
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(folder.join("docker-registry.log")).unwrap())
        .spawn()
        .unwrap();
    let mut process = Process(child);
    listens(&mut process, addr, &folder.join("docker-registry.log")).await;
    (process, addr)
}

const COPY: [&str; 5] = ["copy", "--all", "--preserve-digests", "--src-tls-verify=false", "--dest-tls-verify=false"];

async fn skopeo_and_crane(registry: &Registry, work: &Path) {
    let (Some(skopeo), Some(crane)) = (tool("skopeo"), tool("crane")) else { return };
    let text = layout(&work.join("in"));
    let image = format!("docker://{}/deep/er/name:v1", registry.addr);
    run(&skopeo, &[&COPY[..], &["oci:in:v1", &image]].concat(), work).await.unwrap();
    run(&skopeo, &[&COPY[..], &[&image, "dir:out"]].concat(), work).await.unwrap();
    assert_eq!(std::fs::read(work.join("out/manifest.json")).unwrap(), text);
    let plain = image.trim_start_matches("docker://");
    let copy = plain.replace("deep/er/name:v1", "c/d:v2");
    run(&crane, &["copy", "--insecure", plain, &copy], work).await.unwrap();
    run(&crane, &["validate", "--insecure", "--remote", &copy], work).await.unwrap_or_else(|why| {
        // The layer is no tar, which is all that it may complain of.
        assert!(why.contains("tar") || why.contains("gzip") || why.contains("archive") || why.contains("EOF"), "{why}");
        String::new()
    });
    run(&crane, &["tag", "--insecure", &copy, "v3"], work).await.unwrap();
    assert_eq!(run(&crane, &["ls", "--insecure", &copy.replace(":v2", "")], work).await.unwrap(), "v2\nv3\n");
    let catalog = run(&crane, &["catalog", "--insecure", &registry.addr.to_string()], work).await.unwrap();
    assert_eq!(catalog, "c/d\ndeep/er/name\n");
    run(&skopeo, &["delete", "--tls-verify=false", &format!("docker://{copy}")], work).await.unwrap();
    assert_eq!(registry.get("/v2/c/d/manifests/v3").await.status(), 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn skopeo_and_crane_push_and_pull() {
    let (registry, work) = (Registry::on(Face::Bucket).await, tempfile::tempdir().unwrap());
    skopeo_and_crane(&registry, work.path()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn docker_registry_serves_our_bucket() {
    let (Some(skopeo), Some(program)) = (tool("skopeo"), tool("docker-registry")) else { return };
    let (store, work) = (Store::start().await, tempfile::tempdir().unwrap());
    let registry = Registry::of_bucket(store.bucket().await, None, |b| b).await;
    let text = layout(&work.path().join("in"));
    let ours = format!("docker://{}/a/b:v1", registry.addr);
    run(&skopeo, &[&COPY[..], &["oci:in:v1", &ours]].concat(), work.path()).await.unwrap();
    let (_process, addr) = docker_registry(&program, &format!("http://{}", store.addr), work.path()).await;
    let log = || std::fs::read_to_string(work.path().join("docker-registry.log")).unwrap();
    let theirs = format!("docker://{addr}/a/b:v1");
    let pulled = run(&skopeo, &[&COPY[..], &[&theirs, "dir:theirs"]].concat(), work.path()).await;
    pulled.unwrap_or_else(|why| panic!("{why}\n{}", log()));
    assert_eq!(std::fs::read(work.path().join("theirs/manifest.json")).unwrap(), text);
    let tags = client().get(format!("http://{addr}/v2/a/b/tags/list")).send().await.unwrap();
    assert_eq!(json(tags).await["tags"], serde_json::json!(["v1"]));
}

/// What docker-registry pushes to the bucket of `endpoint` is ours at once, but for the catalog, which has to be looked through.
async fn docker_registry_pushes(endpoint: &str, settings: &Settings, registry: &Registry, work: &Path) {
    let (Some(skopeo), Some(program)) = (tool("skopeo"), tool("docker-registry")) else { return };
    let text = layout(&work.join("again"));
    let (_process, addr) = docker_registry(&program, endpoint, work).await;
    let log = || std::fs::read_to_string(work.join("docker-registry.log")).unwrap();
    let pushed = format!("docker://{addr}/from/docker:v2");
    run(&skopeo, &[&COPY[..], &["oci:again:v1", &pushed]].concat(), work)
        .await
        .unwrap_or_else(|why| panic!("{why}\n{}", log()));
    let back = format!("docker://{}/from/docker:v2", registry.addr);
    run(&skopeo, &[&COPY[..], &[&back, "dir:back"]].concat(), work).await.unwrap();
    assert_eq!(std::fs::read(work.join("back/manifest.json")).unwrap(), text);
    let fresh = Registry::of_bucket(Bucket::open(settings).await.unwrap(), None, |b| b).await;
    let catalog = json(fresh.get("/v2/_catalog").await).await;
    assert!(catalog["repositories"].as_array().unwrap().contains(&"from/docker".into()), "{catalog}");
}

#[tokio::test(flavor = "multi_thread")]
async fn moto_says_the_same() {
    let Some(moto) = Moto::start().await else { return };
    let work = tempfile::tempdir().unwrap();
    let mut settings = moto.settings("place/in");
    settings.collected_age = Duration::from_secs(2);
    let bucket = Bucket::open(&settings).await.unwrap();
    let one = Registry::of_bucket(bucket.clone(), None, |b| b).await;
    let two = Registry::of_bucket(Bucket::open(&settings).await.unwrap(), None, |b| b).await;
    skopeo_and_crane(&one, work.path()).await;
    docker_registry_pushes(&moto.endpoint, &settings, &one, work.path()).await;
    let bytes: Vec<u8> = (0..2 * PART_BYTES + 5).map(|i| (i * 13 % 241) as u8).collect();
    let (digest, location) = (Digest::of(&bytes), one.begin("r").await);
    let cut = PART_BYTES + 77;
    for (registry, piece) in [(&one, &bytes[..cut]), (&two, &bytes[cut..])] {
        assert_eq!(registry.ask(Method::PATCH, &location).body(piece.to_vec()).send().await.unwrap().status(), 202);
    }
    let end = one.ask(Method::PUT, &format!("{location}?digest={digest}")).send().await.unwrap();
    assert_eq!(end.status(), 201, "{}", end.text().await.unwrap());
    let part = two.ask(Method::GET, &format!("/v2/r/blobs/{digest}")).header("range", "bytes=8388600-8388700");
    assert!(part.send().await.unwrap().bytes().await.unwrap() == bytes[8_388_600..=8_388_700]);
    // By an algorithm that was not hashed on the way, with parts and without.
    for bytes in [&bytes[..], &bytes[..1000]] {
        let location = two.begin("sha512").await;
        assert_eq!(one.ask(Method::PATCH, &location).body(bytes.to_vec()).send().await.unwrap().status(), 202);
        let end = two.ask(Method::PUT, &format!("{location}?digest={}", sha512(bytes))).send().await.unwrap();
        assert_eq!(end.status(), 201, "{}", end.text().await.unwrap());
        assert_eq!(one.head(&format!("/v2/sha512/blobs/{}", sha512(bytes))).await.status(), 200);
    }
    let (text, _) = one.push_image("tags", "t", "1").await;
    let set = async |registry: &Registry, name: &str, value: &str| {
        let request = registry.ask(Method::PUT, "/v2/tags/manifests/once").header(name.to_owned(), value);
        request.header("content-type", OCI_MANIFEST).body(text.clone()).send().await.unwrap().status().as_u16()
    };
    assert_eq!((set(&one, "if-none-match", "*").await, set(&two, "if-none-match", "*").await), (201, 412));
    assert_eq!(set(&two, "if-match", &format!("\"{}\"", Digest::of(text.as_bytes()))).await, 201);
    tokio::time::sleep(Duration::from_secs(4)).await;
    let collected = bucket.collect_garbage(false).await.unwrap();
    assert!(collected.removed_files >= 1, "{collected:?}");
    assert_eq!(two.head(&format!("/v2/r/blobs/{digest}")).await.status(), 404);
    assert_eq!(two.get("/v2/tags/manifests/once").await.status(), 200);
}
