//! Registry storage on a local disk: what is written is whole, survives damage, and is the same storage to docker-registry.
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod images;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use airlock_oci::sink::ManifestName;
use airlock_oci::{Algorithm, Digest, ErrorKind, Reference, Sink, Source};
use airlock_store::distribution::{Directory, Durability, Writer};
use airlock_store::{Storage, StorageSource};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use images::*;

fn writer(root: &Path) -> Writer {
    Writer::open(root, Durability::Image).unwrap()
}

fn files_below(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files_below(&path)) } else { found.push(path) }
    }
    found
}

async fn collect(mut stream: airlock_oci::BlobStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.next().await {
        bytes.extend_from_slice(&chunk.unwrap());
    }
    bytes
}

#[tokio::test]
async fn an_image_written_is_read_back_byte_for_byte_from_any_offset() {
    for durability in [Durability::Each, Durability::Image] {
        let root = tempfile::tempdir().unwrap();
        let (name, image) = (repository("a/b-c"), image(1, 700_000));
        let writer = Writer::open(root.path(), durability).unwrap();
        put(&writer, &name, &image, Some(&tag("v1"))).await;
        drop(writer);
        let source = StorageSource::new(Arc::new(Directory::open(root.path()).unwrap()));
        let reference: Reference = "quay.io/a/b-c:v1".parse().unwrap();
        let found = source.manifest(&reference).await.unwrap();
        assert_eq!(found.value.bytes(), image.manifest.bytes());
        for (blob, bytes) in &image.blobs {
            for offset in [0, 1, blob.size / 2, blob.size] {
                let read = collect(source.blob(&reference, blob, offset, None).await.unwrap()).await;
                assert!(read == bytes[offset as usize..], "{durability:?} {offset}");
            }
        }
        assert_eq!(source.tags(&reference).await.unwrap(), [tag("v1")]);
        assert_eq!(source.storage().repositories().unwrap(), [name]);
        assert_eq!(files_below(&root.path().join(".airlock/uploads")), Vec::<PathBuf>::new());
    }
}

#[tokio::test]
async fn nothing_of_an_upload_shows_before_it_has_its_digest() {
    let root = tempfile::tempdir().unwrap();
    let (writer, name) = (writer(root.path()), repository("a/b"));
    let bytes = Bytes::from(vec![7; 300_000]);
    let id = writer.begin_upload(&name, Algorithm::Sha256).unwrap();
    let mut upload = writer.upload(&name, &id).await.unwrap().unwrap();
    upload.append(stream::iter([Ok(bytes.slice(..100_000))])).await.unwrap();
    drop(upload);
    assert_eq!(writer.upload_status(&name, &id).unwrap().offset, 100_000);
    assert!(writer.upload_status(&repository("other"), &id).is_none(), "a session belongs to its repository");
    assert!(writer.blob(&name, &Digest::of(&bytes)).unwrap().is_none());
    let mut upload = writer.upload(&name, &id).await.unwrap().unwrap();
    upload.append(stream::iter([Ok(bytes.slice(100_000..))])).await.unwrap();
    upload.finish(&Digest::of(&bytes)).await.unwrap();
    assert_eq!(writer.blob(&name, &Digest::of(&bytes)).unwrap().unwrap().len, 300_000);
    assert!(writer.blob(&repository("other"), &Digest::of(&bytes)).unwrap().is_none());
    assert!(writer.upload(&name, &id).await.unwrap().is_none(), "a finished session is gone");
    // Not one file of docker-distribution's names it before the manifest or the flush.
    assert_eq!(files_below(&root.path().join("docker")), Vec::<PathBuf>::new());
    writer.flush().unwrap();
    assert_eq!(files_below(&root.path().join("docker")).len(), 2, "data and link");
}

#[tokio::test]
async fn a_wrong_digest_leaves_nothing() {
    let root = tempfile::tempdir().unwrap();
    let (writer, name) = (writer(root.path()), repository("a/b"));
    let id = writer.begin_upload(&name, Algorithm::Sha256).unwrap();
    let mut upload = writer.upload(&name, &id).await.unwrap().unwrap();
    upload.append(stream::iter([Ok(Bytes::from_static(b"abc"))])).await.unwrap();
    let error = upload.finish(&Digest::of(b"abd")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Content);
    assert!(files_below(&root.path().join(".airlock/uploads")).is_empty());
    assert!(writer.upload_status(&name, &id).is_none());
    let blob = descriptor("a/b", b"abcd");
    for wrong in [&b"abc"[..], b"abcde", b"abcx"] {
        let written = writer.write_blob(&name, &blob, &InMemory(Bytes::copy_from_slice(wrong))).await;
        assert_eq!(written.unwrap_err().kind(), ErrorKind::Content);
    }
    assert!(!writer.has_blob(&name, &blob).await.unwrap());
    assert!(files_below(&root.path().join(".airlock/uploads")).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pieces_of_any_size_at_any_pace_come_in_their_order() {
    let root = tempfile::tempdir().unwrap();
    let (writer, name) = (writer(root.path()), repository("a/b"));
    let whole: Vec<u8> = (0..6_000_000_u32).map(|i| (i * 7 % 253) as u8).collect();
    // Two thousand pieces are more than the system takes in one call, and the pauses let the writing thread end in between.
    let sizes =
        [1, 300_000, 0, 255_999, 1_000_000].into_iter().chain(std::iter::repeat_n(40, 2000)).chain([600_000, 7]);
    let (mut pieces, mut at) = (Vec::new(), 0);
    for size in sizes.chain(std::iter::repeat(70_000)) {
        let end = (at + size).min(whole.len());
        pieces.push(Bytes::copy_from_slice(&whole[at..end]));
        at = end;
        if at == whole.len() {
            break;
        }
    }
    for pause in [None, Some(Duration::from_millis(2))] {
        let mut upload = writer.private_upload(&name, Algorithm::Sha256).unwrap();
        let slow = stream::iter(pieces.clone()).enumerate().then(|(number, piece)| async move {
            if let Some(pause) = pause.filter(|_| number % 20 == 0) {
                tokio::time::sleep(pause).await;
            }
            Ok(piece)
        });
        upload.append(Box::pin(slow)).await.unwrap();
        assert_eq!(upload.offset(), whole.len() as u64);
        upload.finish(&Digest::of(&whole)).await.unwrap();
        let region = writer.blob(&name, &Digest::of(&whole)).unwrap().unwrap();
        assert!(collect(region.stream(0, u64::MAX, "read")).await == whole);
    }
}

#[tokio::test]
async fn what_cannot_be_written_is_said_and_can_be_sent_again() {
    let root = tempfile::tempdir().unwrap();
    let (writer, name) = (writer(root.path()), repository("a/b"));
    let id = writer.begin_upload(&name, Algorithm::Sha256).unwrap();
    let bytes = Bytes::from(vec![3; 3_000_000]);
    let pieces = || stream::iter((0..30).map(|i| Ok(bytes.slice(i * 100_000..(i + 1) * 100_000))).collect::<Vec<_>>());
    let (folder, away) = (root.path().join(".airlock/uploads"), root.path().join("away"));
    fs::rename(&folder, &away).unwrap();
    let mut upload = writer.upload(&name, &id).await.unwrap().unwrap();
    let error = upload.append(pieces()).await.unwrap_err();
    assert!(error.to_string().contains("uploads"), "{error}");
    assert_eq!(upload.offset(), 0);
    fs::rename(&away, &folder).unwrap();
    upload.append(pieces()).await.unwrap();
    upload.finish(&Digest::of(&bytes)).await.unwrap();
    assert_eq!(writer.blob(&name, &Digest::of(&bytes)).unwrap().unwrap().len, 3_000_000);
}

#[tokio::test]
async fn a_request_dropped_in_the_middle_leaves_a_session_that_goes_on() {
    let root = tempfile::tempdir().unwrap();
    let (writer, name) = (writer(root.path()), repository("a/b"));
    let id = writer.begin_upload(&name, Algorithm::Sha256).unwrap();
    let mut upload = writer.upload(&name, &id).await.unwrap().unwrap();
    let endless = stream::iter([Ok(Bytes::from(vec![1; 600_000]))]).chain(stream::pending());
    let dropped = tokio::time::timeout(Duration::from_millis(300), upload.append(Box::pin(endless))).await;
    assert!(dropped.is_err());
    drop(upload);
    let mut upload = writer.upload(&name, &id).await.unwrap().unwrap();
    assert_eq!(upload.offset(), 600_000);
    upload.append(stream::iter([Ok(Bytes::from_static(b"end"))])).await.unwrap();
    let whole = [vec![1; 600_000], b"end".to_vec()].concat();
    upload.finish(&Digest::of(&whole)).await.unwrap();
    assert!(writer.blob(&name, &Digest::of(&whole)).unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_blob_and_manifest_from_many_tasks_at_once() {
    let root = tempfile::tempdir().unwrap();
    for durability in [Durability::Each, Durability::Image] {
        let writer = Writer::open(root.path(), durability).unwrap();
        let image = Arc::new(image(durability as u8, 1_000_000));
        let tasks: Vec<_> = (0..8)
            .map(|i| {
                let (writer, image) = (writer.clone(), image.clone());
                tokio::spawn(async move {
                    put(&writer, &repository(&format!("r{}", i % 3)), &image, Some(&tag(&format!("t{i}")))).await;
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        let directory = writer.directory();
        for i in 0..8 {
            let name = repository(&format!("r{}", i % 3));
            let at = ManifestName::Tag(tag(&format!("t{i}")));
            assert_eq!(directory.manifest(&name, &at).unwrap().unwrap().digest(), image.manifest.digest());
            for (blob, _) in &image.blobs {
                assert_eq!(directory.blob(&name, &blob.digest).unwrap().unwrap().len, blob.size);
            }
        }
        assert!(files_below(&root.path().join(".airlock/uploads")).is_empty());
        drop(writer);
    }
}

#[tokio::test]
async fn a_restart_forgets_what_was_not_promised() {
    let root = tempfile::tempdir().unwrap();
    let (name, blob) = (repository("a/b"), descriptor("x/y", b"pending"));
    let first = writer(root.path());
    first.write_blob(&name, &blob, &InMemory(Bytes::from_static(b"pending"))).await.unwrap();
    assert!(first.has_blob(&name, &blob).await.unwrap());
    let second = Writer::open(root.path(), Durability::Image).unwrap_err();
    assert_eq!(second.kind(), ErrorKind::Locked);
    drop(first);
    let second = writer(root.path());
    assert!(!second.has_blob(&name, &blob).await.unwrap());
    assert!(files_below(&root.path().join(".airlock/uploads")).is_empty());
}

#[tokio::test]
async fn damage_is_found_and_a_new_push_heals_it() {
    let root = tempfile::tempdir().unwrap();
    let (name, image) = (repository("a/b"), image(3, 1000));
    put(&writer(root.path()), &name, &image, Some(&tag("v1"))).await;
    let (by_tag, digest) = (ManifestName::Tag(tag("v1")), image.manifest.digest().clone());
    let find = |end: &str| {
        let found: Vec<_> = files_below(root.path()).into_iter().filter(|p| p.ends_with(end)).collect();
        assert_eq!(found.len(), 1, "{end}: {found:?}");
        found[0].clone()
    };
    let data = find(&format!("{}/data", digest.hex()));
    let revision = find(&format!("_manifests/revisions/sha256/{}/link", digest.hex()));
    let current = find("tags/v1/current/link");
    let layer = find(&format!("_layers/sha256/{}/link", image.blobs[1].0.digest.hex()));
    for path in [&data, &revision, &current, &layer] {
        for damage in [&b""[..], b"sha256:12", b"\0\0\0\0\0\0\0\0", &[b'x'; 300]] {
            fs::write(path, damage).unwrap();
            let writer = writer(root.path());
            if *path == data {
                assert_eq!(writer.manifest(&name, &by_tag).unwrap_err().kind(), ErrorKind::Content);
                assert_eq!(writer.head_manifest(&name, &by_tag).await.unwrap(), None);
            } else {
                assert!(writer.manifest(&name, &by_tag).unwrap().is_some(), "{path:?} {damage:?}");
                assert!(writer.blob(&name, &image.blobs[1].0.digest).unwrap().is_some());
                assert_eq!(writer.tags(&name).unwrap().unwrap(), [tag("v1")]);
            }
            put(&writer, &name, &image, Some(&tag("v1"))).await;
            drop(writer);
            let whole = fs::read(path).unwrap();
            assert!(whole == *image.manifest.bytes() || whole.len() == 71, "{path:?} was not healed");
            let found = Directory::open(root.path()).unwrap().manifest(&name, &by_tag).unwrap().unwrap();
            assert_eq!(*found.digest(), digest);
        }
    }
}

#[tokio::test]
async fn what_no_registry_wrote_is_passed_over() {
    let root = tempfile::tempdir().unwrap();
    let (name, image) = (repository("a/b"), image(3, 1000));
    put(&writer(root.path()), &name, &image, Some(&tag("v1"))).await;
    let base = root.path().join("docker/registry/v2/repositories");
    let file = |path: &str| {
        let path = base.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "sha256:").unwrap();
    };
    file("a/b/_manifests/tags/v2/index/sha256/00/link");
    file("a/b/_manifests/tags/v1.x.tmp");
    file("a/b/_manifests/tags/v1/current/link.7f.tmp");
    file("a/b/_manifests/revisions/sha256/0000.tmp");
    file("a/b/_manifests/revisions/sha256/xyz/link");
    file("begun/_layers/sha256/00/link");
    file("UPPER/_manifests/tags/v1/current/link");
    file("emptied/_manifests/revisions/sha256/.keep");
    let directory = Directory::open(root.path()).unwrap();
    assert_eq!(directory.repositories().unwrap(), std::slice::from_ref(&name));
    assert_eq!(directory.tags(&name).unwrap().unwrap(), [tag("v1")]);
    assert_eq!(directory.tags(&repository("begun")).unwrap(), None);
    assert_eq!(Directory::open(&root.path().join("nowhere")).unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn deleting_takes_tags_manifests_and_blobs_away() {
    let root = tempfile::tempdir().unwrap();
    let (writer, name, image) = (writer(root.path()), repository("a/b"), image(3, 1000));
    let digest = image.manifest.digest().clone();
    for t in ["v1", "v2", "v3"] {
        put(&writer, &name, &image, Some(&tag(t))).await;
    }
    assert!(writer.delete_tag(&name, &tag("v1")).unwrap());
    assert!(!writer.delete_tag(&name, &tag("v1")).unwrap());
    assert_eq!(writer.tags(&name).unwrap().unwrap(), [tag("v2"), tag("v3")]);
    assert!(writer.manifest(&name, &ManifestName::Digest(digest.clone())).unwrap().is_some());
    assert!(Writer::delete_manifest(&writer, &name, &digest).unwrap());
    assert!(!Writer::delete_manifest(&writer, &name, &digest).unwrap());
    assert_eq!(writer.tags(&name).unwrap().unwrap(), []);
    assert!(writer.manifest(&name, &ManifestName::Tag(tag("v2"))).unwrap().is_none());
    assert!(writer.repositories().unwrap().is_empty());
    let blob = &image.blobs[0].0.digest;
    assert!(writer.delete_blob(&name, blob).unwrap());
    assert!(!writer.delete_blob(&name, blob).unwrap());
    assert!(writer.blob(&name, blob).unwrap().is_none());
    assert!(writer.mount_blob(&name, blob, None).unwrap(), "the bytes are still in the storage");
}

#[tokio::test]
async fn referrers_are_found_whoever_wrote_them() {
    let root = tempfile::tempdir().unwrap();
    let (writer, name, subject) = (writer(root.path()), repository("a/b"), image(3, 1000));
    put(&writer, &name, &subject, Some(&tag("v1"))).await;
    let of = |storage: &dyn Storage| -> Vec<Digest> {
        storage.referrers(&name, subject.manifest.digest()).unwrap().into_iter().map(|d| d.digest).collect()
    };
    assert_eq!(of(&writer), []);
    // A second reader that has its own memory and is not told.
    let other = Directory::open(root.path()).unwrap();
    assert_eq!(of(&other), []);
    let fields = format!(
        r#","artifactType":"x/sig","annotations":{{"k":"v"}},"subject":{}"#,
        serde_json::to_string(&subject.manifest.descriptor()).unwrap()
    );
    let referrer = image_with(9, 10, &fields);
    put(&writer, &name, &referrer, None).await;
    let listed = writer.referrers(&name, subject.manifest.digest()).unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].artifact_type.as_deref(), Some("x/sig"));
    assert_eq!(listed[0].annotations["k"], "v");
    assert_eq!(of(&other), [referrer.manifest.digest().clone()]);
    tokio::time::sleep(Duration::from_millis(2100)).await;
    assert_eq!(of(&other).len(), 1, "now from memory");
    Writer::delete_manifest(&writer, &name, referrer.manifest.digest()).unwrap();
    assert_eq!(of(&writer), []);
    assert_eq!(of(&other), []);
}

#[tokio::test]
async fn sha512_content_lies_under_its_own_name() {
    let root = tempfile::tempdir().unwrap();
    let (writer, name) = (writer(root.path()), repository("a/b"));
    let digest = Digest::of_with(Algorithm::Sha512, b"abc");
    // The algorithm is not known when the upload begins.
    let id = writer.begin_upload(&name, Algorithm::Sha256).unwrap();
    let mut upload = writer.upload(&name, &id).await.unwrap().unwrap();
    upload.append(stream::iter([Ok(Bytes::from_static(b"abc"))])).await.unwrap();
    upload.finish(&digest).await.unwrap();
    writer.flush().unwrap();
    assert_eq!(Directory::open(root.path()).unwrap().blob(&name, &digest).unwrap().unwrap().len, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn docker_registry_serves_what_we_wrote() {
    if !have("docker-registry") || !have("skopeo") {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let (name, amd, arm) = (repository("deep/er/name"), image(1, 300_000), image(2, 10));
    let writer = writer(root.path());
    put(&writer, &name, &amd, None).await;
    put(&writer, &name, &arm, None).await;
    let both = index(&[&amd, &arm]);
    Sink::put_manifest(&writer, &name, &both, Some(&tag("v1"))).await.unwrap();
    let registry = DockerRegistry::start(root.path());
    let target = tempfile::tempdir().unwrap();
    let from = format!("docker://{}/{name}:v1", registry.address);
    let to = format!("dir:{}", target.path().display());
    run("skopeo", &["copy", "--src-tls-verify=false", "--all", "--preserve-digests", &from, &to]);
    assert_eq!(fs::read(target.path().join("manifest.json")).unwrap(), &both.bytes()[..]);
    let tags = run("skopeo", &["list-tags", "--tls-verify=false", from.trim_end_matches(":v1")]);
    assert!(tags.contains("\"v1\""), "{tags}");
}

#[tokio::test(flavor = "multi_thread")]
async fn we_read_what_docker_registry_wrote_while_it_writes() {
    if !have("docker-registry") || !have("skopeo") {
        return;
    }
    let (ours, root) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let layout = ours.path().join("layout");
    let (image, name) = (image(5, 50_000), repository("some/where"));
    let writer = airlock_store::oci_layout::Writer::open(&layout).unwrap();
    put(&writer, &name, &image, Some(&tag("x"))).await;
    // Our writer is open on the root meanwhile, and sees the other's content at once.
    let here = self::writer(root.path());
    let registry = DockerRegistry::start(root.path());
    let from = format!("oci:{}:x", layout.display());
    let to = format!("docker://{}/{name}:v9", registry.address);
    run("skopeo", &["copy", "--dest-tls-verify=false", "--preserve-digests", &from, &to]);
    let found = here.manifest(&name, &ManifestName::Tag(tag("v9"))).unwrap().unwrap();
    assert_eq!(found.bytes(), image.manifest.bytes());
    assert_eq!(here.repositories().unwrap(), std::slice::from_ref(&name));
    for (blob, _) in &image.blobs {
        assert!(here.has_blob(&name, blob).await.unwrap());
    }
    assert!(here.mount_blob(&repository("our/own"), &image.blobs[1].0.digest, Some(&name)).unwrap());
}
