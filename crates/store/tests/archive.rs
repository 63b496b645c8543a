//! The archive: what is written reads back, is a registry's storage after `tar xf`, survives interruption, and every
//! flipped bit is found by name.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by failing")]

use std::path::Path;
use std::sync::Arc;

use airlock_oci::sink::ManifestName;
use airlock_oci::{Digest, ErrorKind, Sink};
use airlock_store::Storage;
use airlock_store::archive::{Archive, ArchiveSink, Contents, LocalVolume, Writer, verify};
use bytes::Bytes;

mod support;
use support::{Image, Memory, contents, options, some_images};

fn writer(directory: &Path, contents: &Contents, limit: u64) -> Arc<Writer> {
    let volume = Arc::new(LocalVolume::create(directory).unwrap());
    Arc::new(Writer::open(volume, contents, options(limit)).unwrap())
}

/// Writes images, later ones first, except the blobs in `without`.
async fn write(writer: &Arc<Writer>, images: &[Image], without: &[Digest]) {
    let sink = ArchiveSink(Arc::clone(writer));
    for image in images.iter().rev() {
        let mut whole = true;
        for (blob, bytes) in image.blobs.iter().rev() {
            if without.contains(&blob.digest) {
                whole = false;
            } else if !sink.has_blob(&image.repository, blob).await.unwrap() {
                sink.write_blob(&image.repository, blob, &Memory(bytes.clone(), None)).await.unwrap();
            }
        }
        if whole {
            sink.put_manifest(&image.repository, &image.manifest, Some(&image.tag)).await.unwrap();
        }
    }
}

fn files(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<(String, Vec<u8>)> = std::fs::read_dir(directory)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.file_name().unwrap().to_str().unwrap().starts_with("mirror_"))
        .map(|p| (p.file_name().unwrap().to_str().unwrap().to_owned(), std::fs::read(p).unwrap()))
        .collect();
    files.sort();
    files
}

#[tokio::test]
async fn what_was_written_reads_back_and_verifies() {
    for limit in [u64::MAX, 6_000_000] {
        let directory = tempfile::tempdir().unwrap();
        let images = some_images();
        let writer = writer(directory.path(), &contents(&images), limit);
        write(&writer, &images, &[]).await;
        let sealed = writer.seal(true).unwrap();
        assert!(sealed.voids.is_empty());
        let archive = Archive::open(directory.path()).unwrap();
        assert_eq!(archive.identity(), &sealed.identity);
        assert_eq!(archive.parts().len(), if limit == u64::MAX { 1 } else { 3 });
        for part in archive.parts() {
            // One blob is larger than the small limit and has a part of its own.
            assert!(part.len <= limit.max(9_010_000), "{}", part.len);
        }
        for image in &images {
            let at = ManifestName::Tag(image.tag.clone());
            let manifest = archive.manifest(&image.repository, &at).unwrap().unwrap();
            assert_eq!(manifest.bytes(), image.manifest.bytes());
            for (blob, bytes) in &image.blobs {
                let region = archive.blob(&image.repository, &blob.digest).unwrap().unwrap();
                let mut read = vec![0; region.len as usize];
                std::os::unix::fs::FileExt::read_exact_at(&*region.file, &mut read, region.offset).unwrap();
                assert_eq!(&read, bytes);
            }
        }
        assert_eq!(verify::full(&archive, &|_| {}).unwrap(), []);
        assert_eq!(verify::quick(&archive).unwrap(), []);
    }
}

#[tokio::test]
async fn plain_tar_unpacks_registry_storage() {
    let directory = tempfile::tempdir().unwrap();
    let images = some_images();
    let writer = writer(directory.path(), &contents(&images), 6_000_000);
    write(&writer, &images, &[]).await;
    writer.seal(true).unwrap();
    let out = tempfile::tempdir().unwrap();
    for (name, _) in files(directory.path()) {
        let status = std::process::Command::new("tar")
            .args(["-x", "--warning=all", "-f"])
            .arg(directory.path().join(name))
            .arg("-C")
            .arg(out.path())
            .output()
            .unwrap();
        assert!(status.status.success() && status.stderr.is_empty(), "{status:?}");
    }
    let root = out.path().join("docker/registry/v2");
    for image in &images {
        for (blob, bytes) in &image.blobs {
            let hex = blob.digest.hex();
            let path = root.join(format!("blobs/sha256/{}/{hex}/data", &hex[..2]));
            assert_eq!(&std::fs::read(path).unwrap(), bytes);
        }
        let link = root.join(format!("repositories/{}/_manifests/tags/v1/current/link", image.repository));
        assert_eq!(std::fs::read_to_string(link).unwrap(), image.manifest.digest().to_string());
    }
    assert!(!out.path().join("airlock/void").exists());
}

#[tokio::test]
async fn an_interrupted_run_continues_to_the_same_bytes() {
    let images = some_images();
    let whole = tempfile::tempdir().unwrap();
    let first = writer(whole.path(), &contents(&images), 6_000_000);
    write(&first, &images, &[]).await;
    first.seal(true).unwrap();

    let cut = tempfile::tempdir().unwrap();
    let second = writer(cut.path(), &contents(&images), 6_000_000);
    let sink = ArchiveSink(Arc::clone(&second));
    let (blob, bytes) = &images[0].blobs[1];
    sink.write_blob(&images[0].repository, blob, &Memory(bytes.clone(), None)).await.unwrap();
    let (big, big_bytes) = &images[1].blobs[2];
    let error = sink.write_blob(&images[1].repository, big, &Memory(big_bytes.clone(), Some(8_000_000))).await;
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Content);
    second.checkpoint().unwrap();
    drop((sink, second));

    let third = writer(cut.path(), &contents(&images), 6_000_000);
    assert_eq!(third.reused_bytes(), 5_000_000);
    let sink = ArchiveSink(Arc::clone(&third));
    assert!(sink.has_blob(&images[0].repository, blob).await.unwrap());
    write(&third, &images, &[]).await;
    third.seal(true).unwrap();
    assert!(files(whole.path()) == files(cut.path()), "the same bytes");
    assert!(!cut.path().join(".airlock-journal").exists());
}

#[tokio::test]
async fn voids_are_sealed_as_partial_and_filled_later_to_the_same_bytes() {
    let images = some_images();
    let whole = tempfile::tempdir().unwrap();
    let first = writer(whole.path(), &contents(&images), 6_000_000);
    write(&first, &images, &[]).await;
    first.seal(true).unwrap();

    let partial = tempfile::tempdir().unwrap();
    let missing = images[1].blobs[2].0.digest.clone();
    let second = writer(partial.path(), &contents(&images), 6_000_000);
    write(&second, &images, std::slice::from_ref(&missing)).await;
    assert_eq!(second.seal(false).unwrap_err().kind(), ErrorKind::Invalid);
    let sealed = second.seal(true).unwrap();
    assert_eq!(sealed.voids.len(), 2, "the blob and the manifest that needs it");
    drop(second);
    let archive = Archive::open(partial.path()).unwrap();
    assert_eq!(verify::full(&archive, &|_| {}).unwrap(), []);
    assert!(archive.region(&missing).is_none());
    let at = ManifestName::Tag(images[1].tag.clone());
    assert!(archive.manifest(&images[1].repository, &at).unwrap().is_none());
    assert!(archive.manifest(&images[0].repository, &at).unwrap().is_some());
    drop(archive);

    let third = writer(partial.path(), &contents(&images), 6_000_000);
    let sink = ArchiveSink(Arc::clone(&third));
    let kept = &images[0].blobs[1].0;
    assert!(sink.has_blob(&images[0].repository, kept).await.unwrap(), "what is there is not fetched again");
    write(&third, &images, &[]).await;
    third.seal(true).unwrap();
    assert!(files(whole.path()) == files(partial.path()), "the same bytes");
}

#[tokio::test]
async fn another_plan_keeps_complete_blobs() {
    let images = some_images();
    let directory = tempfile::tempdir().unwrap();
    let first = writer(directory.path(), &contents(&images), u64::MAX);
    let sink = ArchiveSink(Arc::clone(&first));
    let (blob, bytes) = &images[0].blobs[1];
    sink.write_blob(&images[0].repository, blob, &Memory(bytes.clone(), None)).await.unwrap();
    first.checkpoint().unwrap();
    drop((sink, first));
    let second = writer(directory.path(), &contents(&images[..1]), u64::MAX);
    let sink = ArchiveSink(Arc::clone(&second));
    // The content that is offered is empty: only what lies on the disk can satisfy it.
    sink.write_blob(&images[0].repository, blob, &Memory(Bytes::new(), None)).await.unwrap();
}

#[tokio::test]
async fn a_second_writer_is_refused_and_wrong_bytes_complete_nothing() {
    let images = some_images();
    let directory = tempfile::tempdir().unwrap();
    let first = writer(directory.path(), &contents(&images), u64::MAX);
    let volume = Arc::new(LocalVolume::create(directory.path()).unwrap());
    let error = Writer::open(volume, &contents(&images), options(u64::MAX)).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Locked);

    let sink = ArchiveSink(Arc::clone(&first));
    let (blob, bytes) = &images[0].blobs[1];
    let mut wrong = bytes.to_vec();
    wrong[4_999_999] ^= 1;
    let error = sink.write_blob(&images[0].repository, blob, &Memory(wrong.into(), None)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Content);
    assert!(!sink.has_blob(&images[0].repository, blob).await.unwrap());
    sink.write_blob(&images[0].repository, blob, &Memory(bytes.clone(), None)).await.unwrap();
    write(&first, &images, &[]).await;
    first.seal(true).unwrap();
    let archive = Archive::open(directory.path()).unwrap();
    assert_eq!(verify::full(&archive, &|_| {}).unwrap(), []);
}

#[tokio::test]
async fn every_kind_of_damage_is_named() {
    let images = some_images();
    let directory = tempfile::tempdir().unwrap();
    let writer = writer(directory.path(), &contents(&images), 6_000_000);
    write(&writer, &images, &[]).await;
    writer.seal(true).unwrap();
    drop(writer);
    let good = files(directory.path());
    let archive = Archive::open(directory.path()).unwrap();
    let mut slots = Vec::new();
    archive
        .each_entry(|_, slot| {
            slots.push(slot);
            Ok(())
        })
        .unwrap();
    let seal_at = archive.seal().parts.last().unwrap().length;
    let parts = archive.parts().len();
    drop(archive);
    let find = |part: &str| slots.iter().find(|s| s.path.contains(part) && s.size > 0).unwrap();
    let blob = slots.iter().find(|s| s.size == 5_000_000).unwrap();
    let manifest_hex = &*images[0].manifest.digest().hex();
    let cases: Vec<(usize, u64, &str)> = vec![
        (blob.part, blob.offset + 10, "the header of blob"),
        (blob.part, blob.data_offset() + 4_500_000, "blob `sha256:"),
        (blob.part, blob.data_offset() + blob.size + 3, "the padding after blob"),
        (find(manifest_hex).part, find(manifest_hex).data_offset() + 20, manifest_hex),
        (find("/tags/").part, find("/tags/").data_offset() + 20, "link `docker"),
        (0, find("airlock/table").data_offset() + 20, "table"),
        (0, find("airlock/plan.json").data_offset(), "airlock/plan.json"),
        (0, 600, "its first entry"),
        (0, 20, "does not begin as a part"),
        (parts - 1, seal_at + 100, "seal"),
        (parts - 1, seal_at + 700, "seal"),
        (0, good[0].1.len() as u64 - 3, "end blocks"),
        (parts - 1, good[parts - 1].1.len() as u64 - 3, "seal"),
    ];
    for (part, offset, expected) in cases {
        let path = directory.path().join(&good[part].0);
        let mut bytes = good[part].1.clone();
        bytes[offset as usize] ^= 4;
        std::fs::write(&path, &bytes).unwrap();
        let said = match Archive::open(directory.path()) {
            Err(error) => error.to_string(),
            Ok(archive) => {
                let damages = verify::full(&archive, &|_| {}).unwrap();
                assert!(!damages.is_empty(), "{expected} at {offset} went unnoticed");
                {
                    let lines: Vec<String> = damages.iter().map(|d| format!("{} {}", d.part, d.what)).collect();
                    lines.join("\n")
                }
            }
        };
        assert!(said.contains(expected), "{expected} at {offset}: {said}");
        assert!(said.contains(&good[part].0), "{said}");
        std::fs::write(&path, &good[part].1).unwrap();
    }
    for (part, (name, bytes)) in good.iter().enumerate() {
        let path = directory.path().join(name);
        std::fs::remove_file(&path).unwrap();
        let error = Archive::open(directory.path()).err().unwrap().to_string();
        assert!(error.contains("missing") && error.contains(name), "{part}: {error}");
        std::fs::write(&path, &bytes[..bytes.len() - 2000]).unwrap();
        let error = Archive::open(directory.path()).err().unwrap().to_string();
        assert!(error.contains(name) && (error.contains("cut") || error.contains("ends")), "{part}: {error}");
        std::fs::write(&path, bytes).unwrap();
    }
    let other = tempfile::tempdir().unwrap();
    let second = self::writer(other.path(), &contents(&images[1..]), 6_000_000);
    write(&second, &images[1..], &[]).await;
    second.seal(true).unwrap();
    std::fs::copy(other.path().join(&good[1].0), directory.path().join(&good[1].0)).unwrap();
    let error = Archive::open(directory.path()).err().unwrap().to_string();
    assert!(error.contains(&good[1].0) && error.contains("another archive"), "{error}");
}

/// Written from docs/archive-format.md alone.
const READER: &str = include_str!("archive_reader.py");

#[tokio::test]
async fn a_reader_written_from_the_document_alone_agrees() {
    let images = some_images();
    let directory = tempfile::tempdir().unwrap();
    let writer = writer(directory.path(), &contents(&images), 6_000_000);
    write(&writer, &images, &[images[1].blobs[2].0.digest.clone()]).await;
    let sealed = writer.seal(true).unwrap();
    for tool in ["python3", "b3sum"] {
        match std::process::Command::new(tool).arg("--version").output() {
            Ok(_) => {}
            Err(e) if std::env::var_os("AIRLOCK_REQUIRE_TOOLS").is_some() => panic!("{tool}: {e}"),
            Err(e) => return println!("skipped: no {tool} ({e})"),
        }
    }
    let output = std::process::Command::new("python3")
        .args(["-c", READER])
        .arg(directory.path())
        .output()
        .expect("python3 runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains(&format!("identity {}", sealed.identity)), "{said}");
    assert!(said.contains("void 2 blobs"), "{said}");
    assert!(said.contains(&format!("tag acme/one:v1 {}", images[0].manifest.digest())), "{said}");
    assert!(!said.contains("tag acme/two:v1"), "{said}");
}

#[tokio::test]
async fn a_retry_that_is_killed_before_sealing_leaves_no_stale_chunk_digest() {
    let images = some_images();
    let whole = tempfile::tempdir().unwrap();
    let first = writer(whole.path(), &contents(&images), u64::MAX);
    write(&first, &images, &[]).await;
    first.seal(true).unwrap();

    let directory = tempfile::tempdir().unwrap();
    // The void covers chunks that hold nothing else.
    let missing = images[1].blobs[2].0.digest.clone();
    let second = writer(directory.path(), &contents(&images), u64::MAX);
    write(&second, &images, std::slice::from_ref(&missing)).await;
    second.seal(true).unwrap();
    drop(second);
    let third = writer(directory.path(), &contents(&images), u64::MAX);
    write(&third, &images, &[]).await;
    third.checkpoint().unwrap();
    drop(third);
    let fourth = writer(directory.path(), &contents(&images), u64::MAX);
    write(&fourth, &images, &[]).await;
    fourth.seal(true).unwrap();
    let archive = Archive::open(directory.path()).unwrap();
    assert_eq!(verify::full(&archive, &|_| {}).unwrap(), []);
    assert!(files(whole.path()) == files(directory.path()), "the same bytes");
}

#[tokio::test]
async fn a_crash_while_a_partial_archive_is_reopened_loses_nothing() {
    let images = some_images();
    let directory = tempfile::tempdir().unwrap();
    let missing = images[1].blobs[2].0.digest.clone();
    let second = writer(directory.path(), &contents(&images), 6_000_000);
    write(&second, &images, std::slice::from_ref(&missing)).await;
    second.seal(true).unwrap();
    drop(second);
    drop(writer(directory.path(), &contents(&images), 6_000_000));
    // As if the crash had come between the renames.
    let name = "mirror_000002.tar";
    std::fs::rename(directory.path().join(format!(".{name}.partial")), directory.path().join(name)).unwrap();
    let third = writer(directory.path(), &contents(&images), 6_000_000);
    let sink = ArchiveSink(Arc::clone(&third));
    for image in &images {
        for (blob, _) in image.blobs.iter().filter(|(b, _)| b.digest != missing) {
            assert!(sink.has_blob(&image.repository, blob).await.unwrap(), "{}", blob.digest);
        }
    }
    write(&third, &images, &[]).await;
    third.seal(true).unwrap();
    let archive = Archive::open(directory.path()).unwrap();
    assert_eq!(verify::full(&archive, &|_| {}).unwrap(), []);
}

#[tokio::test]
async fn parts_left_by_a_larger_run_never_become_part_of_a_smaller_archive() {
    let images = some_images();
    let directory = tempfile::tempdir().unwrap();
    for number in 1..=5 {
        std::fs::write(directory.path().join(format!(".mirror_{number:06}.tar.partial")), "").unwrap();
    }
    std::fs::write(directory.path().join("mirror_000007.tar"), "an older archive's").unwrap();
    let writer = writer(directory.path(), &contents(&images), u64::MAX);
    write(&writer, &images, &[]).await;
    writer.seal(true).unwrap();
    assert_eq!(files(directory.path()).len(), 1);
    Archive::open(directory.path()).unwrap();
}

#[tokio::test]
async fn a_lost_journal_costs_hashing_and_not_fetching() {
    let images = some_images();
    let directory = tempfile::tempdir().unwrap();
    let first = writer(directory.path(), &contents(&images), u64::MAX);
    write(&first, &images, &[]).await;
    first.checkpoint().unwrap();
    drop(first);
    for damage in ["", "airlock-jour"] {
        std::fs::write(directory.path().join(".airlock-journal"), damage).unwrap();
        let second = writer(directory.path(), &contents(&images), u64::MAX);
        let sink = ArchiveSink(Arc::clone(&second));
        for image in &images {
            for (blob, _) in &image.blobs {
                // What is offered is empty: only what lies on the disk can satisfy it.
                sink.write_blob(&image.repository, blob, &Memory(Bytes::new(), None)).await.unwrap();
            }
        }
    }
}

#[tokio::test]
async fn what_was_altered_between_two_runs_is_fetched_again() {
    let images = some_images();
    let directory = tempfile::tempdir().unwrap();
    let first = writer(directory.path(), &contents(&images), u64::MAX);
    write(&first, &images[..1], &[]).await;
    first.checkpoint().unwrap();
    let slot = first.layout().slots.iter().find(|s| s.size == 70_000).unwrap().clone();
    drop(first);
    let path = directory.path().join(".mirror_000001.tar.partial");
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"altered", slot.data_offset() + 10).unwrap();
    let second = writer(directory.path(), &contents(&images), u64::MAX);
    let sink = ArchiveSink(Arc::clone(&second));
    let altered = &images[0].blobs[2].0;
    assert!(!sink.has_blob(&images[0].repository, altered).await.unwrap());
    write(&second, &images, &[]).await;
    second.seal(true).unwrap();
    let archive = Archive::open(directory.path()).unwrap();
    assert_eq!(verify::full(&archive, &|_| {}).unwrap(), []);
}
