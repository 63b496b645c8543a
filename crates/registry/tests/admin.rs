//! Health, metrics, and work on the storage of a registry that serves.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test ends where it fails")]

mod support;

use std::sync::Arc;

use airlock_oci::{Digest, Manifest, Repository, Sink, Tag};
use airlock_registry::Anonymous;
use airlock_registry::admin::{Work, ask};
use airlock_store::distribution::generations::State;
use airlock_store::distribution::{Generation, Intake, Members};
use support::*;

#[tokio::test(flavor = "multi_thread")]
async fn health_and_metrics_are_told_at_an_address_of_their_own() {
    let registry = Registry::with(|b| b.anonymous(Anonymous::Push).health(localhost())).await;
    registry.push_image("a", "v1", "1").await;
    let base = format!("http://{}", registry.health());
    let get = async |path: &str| registry.client.get(format!("{base}{path}")).send().await.unwrap();
    assert_eq!(get("/healthz").await.text().await.unwrap(), "ok\n");
    let end = std::time::Instant::now() + std::time::Duration::from_secs(120);
    while get("/readyz").await.status() != 200 && std::time::Instant::now() < end {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(get("/readyz").await.status(), 200);
    let metrics = get("/metrics").await.text().await.unwrap();
    for line in [
        "airlock_registry_requests_total{kind=\"manifest\",access=\"write\",status=\"2xx\"} 1",
        "airlock_registry_requests_total{kind=\"upload\",access=\"write\",status=\"2xx\"} 4",
        "airlock_registry_writable 1",
    ] {
        assert!(metrics.lines().any(|l| l == line), "{line}\n{metrics}");
    }
    assert_eq!(get("/v2/").await.status(), 404);
    assert_eq!(
        registry.client.post(format!("{base}/gc")).send().await.unwrap().status(),
        405,
        "work only by the socket"
    );
    for path in ["/metrics", "/healthz", "/readyz"] {
        assert_eq!(registry.get(path).await.status(), 404, "clients hear nothing of it: {path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_storage_is_worked_on_while_it_is_served() {
    let registry = Registry::start().await;
    let (_, digest) = registry.push_image("a", "v1", "1").await;
    registry.push_image("a", "v2", "2").await;
    registry.delete(&format!("/v2/a/manifests/{digest}")).await;
    let root = registry.root.path().to_owned();
    let work = async |work: Work| {
        let root = root.clone();
        tokio::task::spawn_blocking(move || ask(&root, &work)).await.unwrap()
    };
    let dry = work(Work::CollectGarbage { dry_run: true, keep: None }).await.unwrap().unwrap();
    assert_eq!((&dry["dryRun"], &dry["removedFiles"]), (&true.into(), &3.into()), "{dry}");
    let collected = work(Work::CollectGarbage { dry_run: false, keep: None }).await.unwrap().unwrap();
    assert_eq!(collected["removedFiles"], 3);
    assert_eq!(registry.head(&format!("/v2/a/blobs/{}", Digest::of(b"layer 1"))).await.status(), 404);
    assert_eq!(registry.head(&format!("/v2/a/blobs/{}", Digest::of(b"layer 2"))).await.status(), 200);
    let layer = Digest::of(b"layer 2");
    let path = root.join(format!("docker/registry/v2/blobs/sha256/{}/{}/data", &layer.hex()[..2], layer.hex()));
    std::fs::write(&path, b"layer 3").unwrap();
    let scrubbed = work(Work::Scrub { bytes_per_second: None }).await.unwrap().unwrap();
    assert_eq!(scrubbed["damage"][0]["digest"], layer.to_string());
    assert_eq!(registry.head(&format!("/v2/a/blobs/{layer}")).await.status(), 404);
    let error = work(Work::Repair { from: vec![root.join("nothing here & there")], quick: true }).await.unwrap_err();
    assert!(error.to_string().contains("nothing here & there"), "{error}");
    let repaired = work(Work::Repair { from: vec![], quick: true }).await.unwrap().unwrap();
    assert_eq!(repaired["left"][0]["fault"], "missing");
    let root = registry.stop().await;
    let gone =
        tokio::task::spawn_blocking(move || ask(root.path(), &Work::CollectGarbage { dry_run: true, keep: None }));
    assert_eq!(gone.await.unwrap().unwrap(), None, "nobody serves it any more");
}

/// Imports images of one layer each, `NAME:v1`, as one generation.
async fn imported(registry: &Registry, names: &[&str]) {
    let intake = Intake::open(registry.root.path(), Arc::new(registry.writer.clone())).unwrap();
    let (mut repositories, mut images) = (std::collections::BTreeMap::new(), Vec::new());
    for name in names {
        registry.push_blob(name, name.as_bytes()).await;
        let image = Manifest::parse(manifest(OCI_MANIFEST, name.as_bytes(), &[], "").into(), None).unwrap();
        let tag = Tag::new("v1").unwrap();
        let digest = image.digest().clone();
        let members = Members { tags: [(tag.clone(), digest.clone())].into(), manifests: [digest].into() };
        repositories.insert(Repository::new(name).unwrap(), members);
        images.push((Repository::new(name).unwrap(), image, tag));
    }
    let mut generation = Generation::begun("there".into(), "then".into(), 0, repositories);
    generation.number = intake.record(generation.clone()).await.unwrap();
    for (name, image, tag) in images {
        intake.put_manifest(&name, &image, Some(&tag)).await.unwrap();
    }
    generation.state = State::Complete;
    intake.record(generation).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_would_have_pushed_does_not_go_with_the_import_that_brought_it() {
    let registry = Registry::start().await;
    imported(&registry, &["asked", "twice", "read", "untouched"]).await;
    // Clients that find an image as it should be push nothing.
    assert_eq!(registry.head("/v2/asked/manifests/v1").await.status(), 200);
    for _ in 0..2 {
        assert_eq!(registry.head("/v2/twice/manifests/v1").await.status(), 200);
    }
    assert_eq!(registry.get("/v2/read/manifests/v1").await.status(), 200);
    imported(&registry, &["new"]).await;
    let root = registry.root.path().to_owned();
    let collect = Work::CollectGarbage { dry_run: false, keep: Some(1) };
    let done = tokio::task::spawn_blocking(move || ask(&root, &collect)).await.unwrap().unwrap().unwrap();
    assert_eq!(done["retiredTags"], serde_json::json!(["read:v1", "untouched:v1"]), "{done}");
    for (name, status) in [("asked", 200), ("twice", 200), ("read", 404), ("new", 200)] {
        assert_eq!(registry.get(&format!("/v2/{name}/manifests/v1")).await.status(), status, "{name}");
    }
}
