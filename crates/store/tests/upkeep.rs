//! Upkeep of registry storage: garbage collection beside pushes, scrubbing, repair.
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod images;

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use airlock_oci::sink::ManifestName;
use airlock_oci::{Digest, ErrorKind, Sink};
use airlock_store::distribution::{Durability, Fault, Writer};
use airlock_store::{Region, Storage};
use bytes::Bytes;
use images::*;

fn writer(root: &Path) -> Writer {
    Writer::open(root, Durability::Image).unwrap()
}

fn data(root: &Path, digest: &Digest) -> PathBuf {
    root.join(format!("docker/registry/v2/blobs/{}/{}/{}/data", digest.algorithm(), &digest.hex()[..2], digest.hex()))
}

fn read(region: &Region) -> Bytes {
    let mut bytes = vec![0; region.len as usize];
    region.file.read_exact_at(&mut bytes, region.offset).unwrap();
    bytes.into()
}

#[tokio::test]
async fn only_what_no_manifest_names_is_collected() {
    let root = tempfile::tempdir().unwrap();
    let (writer, name) = (writer(root.path()), repository("a/b"));
    let (kept, gone) = (image(1, 50_000), image(2, 60_000));
    put(&writer, &name, &kept, None).await;
    put(&writer, &name, &gone, Some(&tag("v1"))).await;
    assert_eq!(writer.collect_garbage(false).unwrap().removed_files, 0, "untagged is not unreferenced");
    assert!(Writer::delete_manifest(&writer, &name, gone.manifest.digest()).unwrap());
    let only: Vec<&Digest> = gone
        .blobs
        .iter()
        .map(|(blob, _)| &blob.digest)
        .chain([gone.manifest.digest()])
        .filter(|digest| kept.blobs.iter().all(|(blob, _)| blob.digest != **digest))
        .collect();
    assert!(!only.is_empty());
    let dry = writer.collect_garbage(true).unwrap();
    assert!(dry.dry_run && only.iter().all(|digest| data(root.path(), digest).exists()));
    let collected = writer.collect_garbage(false).unwrap();
    assert_eq!((dry.removed_files, dry.removed_bytes), (collected.removed_files, collected.removed_bytes));
    assert_eq!(collected.removed_files, only.len() as u64);
    assert_eq!(collected.removed_links, only.len() as u64 - 1, "the manifest's own link went with it");
    for digest in only {
        assert!(!data(root.path(), digest).exists());
        assert!(writer.blob(&name, digest).unwrap().is_none());
    }
    for (blob, bytes) in &kept.blobs {
        assert_eq!(read(&writer.blob(&name, &blob.digest).unwrap().unwrap()), *bytes);
    }
    assert_eq!(writer.collect_garbage(false).unwrap().removed_files, 0);
    // What was collected can come back.
    put(&writer, &name, &gone, Some(&tag("v1"))).await;
    assert!(writer.manifest(&name, &ManifestName::Tag(tag("v1"))).unwrap().is_some());
}

#[tokio::test]
async fn what_a_push_relies_on_stays() {
    let root = tempfile::tempdir().unwrap();
    let (writer, name, other) = (writer(root.path()), repository("a/b"), repository("c/d"));
    // Garbage, of which one push has heard that it is there, and which another has mounted.
    let old = image(1, 40_000);
    put(&writer, &name, &old, None).await;
    Writer::delete_manifest(&writer, &name, old.manifest.digest()).unwrap();
    assert!(writer.has_blob(&name, &old.blobs[0].0).await.unwrap());
    assert!(Sink::mount_blob(&writer, &other, &old.blobs[1].0, &name).await.unwrap());
    let uploaded = descriptor("x/y", b"uploaded and not yet named");
    writer.write_blob(&name, &uploaded, &InMemory(Bytes::from_static(b"uploaded and not yet named"))).await.unwrap();
    writer.flush().unwrap();
    let collected = writer.collect_garbage(false).unwrap();
    assert_eq!(collected.leased, 3, "{collected:?}");
    assert!(writer.blob(&name, &old.blobs[0].0.digest).unwrap().is_some());
    assert!(writer.blob(&other, &old.blobs[1].0.digest).unwrap().is_some());
    assert!(writer.blob(&name, &uploaded.digest).unwrap().is_some());
    assert!(!data(root.path(), old.manifest.digest()).exists());
    // The manifest that was expected comes, and goes again: nobody relies on anything any more.
    put(&writer, &name, &old, None).await;
    Writer::delete_manifest(&writer, &name, old.manifest.digest()).unwrap();
    let collected = writer.collect_garbage(false).unwrap();
    assert_eq!(collected.leased, 2, "the upload and the mount wait for their manifests: {collected:?}");
    assert!(Writer::delete_blob(&writer, &other, &old.blobs[1].0.digest).unwrap());
    assert_eq!(writer.collect_garbage(false).unwrap().leased, 1, "a deletion ends the repository's lease");
    assert!(writer.claim_blob(&name, &old.blobs[0].0.digest).unwrap().is_none());
}

#[tokio::test]
async fn nothing_is_collected_while_a_manifest_cannot_be_read() {
    let root = tempfile::tempdir().unwrap();
    let (writer, name, image) = (writer(root.path()), repository("a/b"), image(1, 10_000));
    put(&writer, &name, &image, None).await;
    fs::write(data(root.path(), image.manifest.digest()), "{}").unwrap();
    let error = writer.collect_garbage(false).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert!(error.to_string().contains(&image.manifest.digest().to_string()), "{error}");
    put(&writer, &name, &image, None).await;
    assert_eq!(writer.collect_garbage(false).unwrap().removed_files, 0, "a failed one does not block the next");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn pushes_pulls_and_collections_at_once_never_fail() {
    let root = tempfile::tempdir().unwrap();
    let writer = writer(root.path());
    let images: Arc<Vec<_>> = Arc::new((0..6).map(|seed| image(seed, 30_000)).collect());
    let stop = Arc::new(AtomicBool::new(false));
    let some = Arc::new(AtomicBool::new(false));
    let collector = {
        let (writer, stop, some) = (writer.clone(), stop.clone(), some.clone());
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                if writer.collect_garbage(false).unwrap().removed_files > 0 {
                    some.store(true, Ordering::Relaxed);
                }
            }
        })
    };
    // Three seconds, and longer where nothing has been collected in between until then.
    let begun = Instant::now();
    let tasks: Vec<_> = (0..3)
        .map(|task| {
            let (writer, images, some) = (writer.clone(), images.clone(), some.clone());
            tokio::spawn(async move {
                let name = repository(&format!("r{task}"));
                let mut rounds = 0;
                let goes_on = |rounds| {
                    let gone = begun.elapsed().as_secs();
                    rounds == 0 || gone < 3 || (gone < 120 && !some.load(Ordering::Relaxed))
                };
                while goes_on(rounds) {
                    for image in images.iter() {
                        put(&writer, &name, image, Some(&tag("v1"))).await;
                        // Acknowledged: whole, whatever was collected meanwhile.
                        for (blob, bytes) in &image.blobs {
                            let region = writer.blob(&name, &blob.digest).unwrap().expect("a blob of a manifest");
                            assert_eq!(read(&region), *bytes);
                        }
                        assert!(Writer::delete_manifest(&writer, &name, image.manifest.digest()).unwrap());
                    }
                    rounds += 1;
                }
                rounds
            })
        })
        .collect();
    for task in tasks {
        assert!(task.await.unwrap() > 0);
    }
    stop.store(true, Ordering::Relaxed);
    collector.join().unwrap();
    assert!(some.load(Ordering::Relaxed), "something was collected in between");
}

#[tokio::test]
async fn a_flipped_byte_is_found_put_aside_and_repaired() {
    let root = tempfile::tempdir().unwrap();
    let (writer, name) = (writer(root.path()), repository("a/b"));
    let image = image(1, 300_000);
    put(&writer, &name, &image, Some(&tag("v1"))).await;
    let clean = writer.scrub(None).unwrap();
    assert_eq!((clean.files, clean.damage.len()), (image.blobs.len() as u64 + 1, 0));
    clean.verdict("here").unwrap();
    let (layer, bytes) = &image.blobs[1];
    let path = data(root.path(), &layer.digest);
    let mut altered = bytes.to_vec();
    altered[bytes.len() / 2] ^= 1;
    fs::write(&path, &altered).unwrap();
    let scrubbed = writer.scrub(Some(100 << 20)).unwrap();
    assert_eq!(scrubbed.damage.len(), 1);
    let damage = &scrubbed.damage[0];
    assert_eq!((&damage.digest, damage.fault, damage.affected), (&layer.digest, Fault::Altered, 1));
    assert_eq!(damage.images, [format!("a/b@{}", image.manifest.digest())]);
    assert_eq!(scrubbed.verdict("here").unwrap_err().kind(), ErrorKind::Damaged);
    assert!(writer.blob(&name, &layer.digest).unwrap().is_none(), "it is not served any more");
    let quarantined = root.path().join(format!(".airlock/quarantine/sha256-{}", layer.digest.hex()));
    assert_eq!(fs::read(quarantined).unwrap(), altered);

    // The manifest is lost as well; both come back, also where the first source has wrong bytes.
    fs::remove_file(data(root.path(), image.manifest.digest())).unwrap();
    let copies = tempfile::tempdir().unwrap();
    let mut sources = HashMap::new();
    for (digest, bytes) in [(&layer.digest, &bytes[..]), (image.manifest.digest(), &image.manifest.bytes()[..])] {
        let file = copies.path().join(digest.hex());
        fs::write(&file, [b"....", bytes].concat()).unwrap();
        let region = Region { file: Arc::new(fs::File::open(file).unwrap()), offset: 4, len: bytes.len() as u64 };
        sources.insert(digest.clone(), region);
    }
    let wrong = |digest: &Digest| sources.get(digest).map(|r| Region { offset: 3, ..r.clone() });
    let left = writer.repair(true, &wrong).unwrap();
    assert_eq!((left.restored.len(), left.left.len()), (0, 1), "{left:?}");
    let repaired = writer.repair(true, &|digest| sources.get(digest).cloned()).unwrap();
    assert_eq!((repaired.restored.len(), repaired.left.len()), (2, 0), "{repaired:?}");
    assert_eq!(writer.scrub(None).unwrap().damage, []);
    assert_eq!(read(&writer.blob(&name, &layer.digest).unwrap().unwrap()), *bytes);
    assert!(writer.manifest(&name, &ManifestName::Tag(tag("v1"))).unwrap().is_some());
    // Reading everything finds what is altered by itself.
    fs::write(&path, &altered).unwrap();
    let repaired = writer.repair(false, &|digest| sources.get(digest).cloned()).unwrap();
    assert_eq!((repaired.restored, repaired.left), (vec![layer.digest.clone()], vec![]));
}
