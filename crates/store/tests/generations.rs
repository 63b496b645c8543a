//! Imports into registry storage: what arrives is verified, a prefix that was altered is fetched anew, and what goes with old generations
//! is exactly what nothing else needs.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test ends where it fails")]

mod images;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use airlock_oci::sink::ManifestName;
use airlock_oci::{BlobStream, Content, Digest, Error, ErrorKind, Manifest, Repository, Sink, media_type};
use airlock_store::Storage;
use airlock_store::distribution::generations::State;
use airlock_store::distribution::{Change, Changed, Durability, Generation, Intake, Keeper, Members, Writer};
use bytes::Bytes;
use images::*;

fn writer(root: &Path) -> Writer {
    Writer::open(root, Durability::Image).unwrap()
}

fn intake(root: &Path, writer: &Writer) -> Intake {
    Intake::open(root, Arc::new(writer.clone())).unwrap()
}

/// Puts images as an import does, with a record; each with its tag.
async fn imported(writer: &Writer, name: &Repository, images: &[(&Image, &str)]) -> u64 {
    let intake = intake(writer.directory().root(), writer);
    let mut members = Members::default();
    for (image, of) in images {
        members.manifests.insert(image.manifest.digest().clone());
        if !of.is_empty() {
            members.tags.insert(tag(of), image.manifest.digest().clone());
        }
    }
    let repositories = BTreeMap::from([(name.clone(), members)]);
    let mut generation = Generation::begun("there".into(), "then".into(), 0, repositories);
    generation.number = intake.record(generation.clone()).await.unwrap();
    for (image, of) in images {
        put(&intake, name, image, (!of.is_empty()).then(|| tag(of)).as_ref()).await;
    }
    generation.state = State::Complete;
    intake.record(generation).await.unwrap()
}

/// An index of these images.
fn index(children: &[&Image], fields: &str) -> Image {
    let children: Vec<String> =
        children.iter().map(|c| serde_json::to_string(&c.manifest.descriptor()).unwrap()).collect();
    let text = format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[{}]{fields}}}"#,
        media_type::OCI_INDEX,
        children.join(",")
    );
    Image { manifest: Manifest::parse(Bytes::from(text), None).unwrap(), blobs: Vec::new() }
}

fn subject(image: &Image) -> String {
    format!(r#","subject":{}"#, serde_json::to_string(&image.manifest.descriptor()).unwrap())
}

fn there(writer: &Writer, name: &Repository, image: &Image) -> bool {
    writer.manifest(name, &ManifestName::Digest(image.manifest.digest().clone())).unwrap().is_some()
}

#[tokio::test]
async fn what_goes_is_what_nothing_else_needs() {
    let root = tempfile::tempdir().unwrap();
    let (writer, name) = (writer(root.path()), repository("a/b"));
    let [old, child, signed, kept, tagged] = [1, 2, 3, 4, 5].map(|seed| image(seed, 20_000));
    let signature = image_with(6, 1_000, &subject(&signed));
    let of_old = image_with(7, 1_000, &subject(&old));
    let cosign = image(8, 1_000);
    let cosign_tag = format!("{}.sig", signed.manifest.digest().fallback_tag());
    let first = [
        (&old, "old"),
        (&child, ""),
        (&signed, "signed"),
        (&signature, ""),
        (&of_old, ""),
        (&cosign, cosign_tag.as_str()),
        (&kept, "kept"),
        (&tagged, "tagged"),
    ];
    assert_eq!(imported(&writer, &name, &first).await, 1);
    // By hand: an index of a child that only the import brought, and another tag of an image of it.
    put(&writer, &name, &index(&[&child], ""), Some(&tag("hand"))).await;
    put(&writer, &name, &tagged, Some(&tag("mine"))).await;
    assert_eq!(imported(&writer, &name, &[(&signed, "signed"), (&kept, "other")]).await, 2);
    let dry = writer.collect_generations(1, true).unwrap();
    assert!(there(&writer, &name, &old));
    let done = writer.collect_generations(1, false).unwrap();
    assert_eq!((&dry.retired_tags, &dry.retired_manifests), (&done.retired_tags, &done.retired_manifests));
    assert_eq!(done.retired_tags, ["a/b:kept", "a/b:old", "a/b:tagged"]);
    let gone = [&old, &of_old].map(|image| format!("a/b@{}", image.manifest.digest()));
    assert!(gone.iter().all(|name| done.retired_manifests.contains(name)) && done.retired_manifests.len() == 2);
    assert_eq!((dry.removed_files, dry.removed_bytes), (done.removed_files, done.removed_bytes));
    for stays in [&child, &signed, &signature, &cosign, &kept, &tagged] {
        assert!(there(&writer, &name, stays));
    }
    assert!(!there(&writer, &name, &old) && !there(&writer, &name, &of_old));
    assert_eq!(writer.directory().generations().unwrap().len(), 1);
    assert_eq!(writer.scrub(None).unwrap().damage, []);
    assert_eq!(writer.collect_generations(1, false).unwrap().removed_files, 0, "nothing is left to go");
    // What is attached to an image that the second has goes when the image goes; what somebody relies on stays.
    assert_eq!(imported(&writer, &name, &[(&old, "again")]).await, 3);
    let done = writer.collect_generations(1, false).unwrap();
    assert_eq!(done.retired_tags, ["a/b:other".to_owned(), format!("a/b:{cosign_tag}"), "a/b:signed".to_owned()]);
    for goes in [&signed, &signature, &cosign, &kept] {
        assert!(!there(&writer, &name, goes));
    }
    assert!(there(&writer, &name, &child) && there(&writer, &name, &tagged) && there(&writer, &name, &old));
}

#[tokio::test]
async fn what_was_there_before_or_is_pushed_while_an_import_has_it_stays() {
    let root = tempfile::tempdir().unwrap();
    let (writer, name) = (writer(root.path()), repository("a/b"));
    let [before, during, deleted] = [1, 2, 3].map(|seed| image(seed, 20_000));
    put(&writer, &name, &before, Some(&tag("v1"))).await;
    imported(&writer, &name, &[(&before, "v1"), (&during, "v2"), (&deleted, "v3")]).await;
    put(&writer, &name, &during, Some(&tag("v2"))).await;
    // Taken away by hand, and pushed again.
    Writer::delete_manifest(&writer, &name, deleted.manifest.digest()).unwrap();
    put(&writer, &name, &deleted, Some(&tag("v3"))).await;
    imported(&writer, &name, &[(&image(9, 1_000), "new")]).await;
    // Also for a program that has just been started.
    drop(writer);
    let writer = Writer::open(root.path(), Durability::Each).unwrap();
    let done = writer.collect_generations(1, false).unwrap();
    assert_eq!((done.generations, done.retired_tags, done.retired_manifests), (vec![1], vec![], vec![]));
}

#[tokio::test]
async fn an_import_under_way_keeps_what_it_counts_on() {
    let root = tempfile::tempdir().unwrap();
    let (writer, name, shared) = (writer(root.path()), repository("a/b"), image(1, 20_000));
    imported(&writer, &name, &[(&shared, "v1")]).await;
    imported(&writer, &name, &[(&image(2, 1_000), "v2")]).await;
    let intake = intake(root.path(), &writer);
    let members = Members { tags: BTreeMap::new(), manifests: [shared.manifest.digest().clone()].into() };
    let begun = Generation::begun("x".into(), "now".into(), 0, [(name.clone(), members)].into());
    intake.record(begun).await.unwrap();
    writer.collect_generations(1, false).unwrap();
    assert!(there(&writer, &name, &shared), "it finds it there and does not bring it again");
    let other = Intake::open(root.path(), Arc::new(writer.clone())).map(|_| ()).unwrap_err();
    assert_eq!(other.kind(), ErrorKind::Locked);
}

/// Counts the bytes that are asked for.
struct Counted(Bytes, AtomicU64);

#[async_trait::async_trait]
impl Content for Counted {
    async fn open(&self, offset: u64) -> Result<BlobStream, Error> {
        self.1.fetch_add(self.0.len() as u64 - offset, Ordering::Relaxed);
        InMemory(self.0.clone()).open(offset).await
    }
}

#[tokio::test]
async fn a_prefix_is_gone_on_with_unless_it_was_altered() {
    let root = tempfile::tempdir().unwrap();
    let (writer, name) = (writer(root.path()), repository("a/b"));
    let bytes = Bytes::from((0..3_000_000_u32).map(|i| (i % 251) as u8).collect::<Vec<u8>>());
    for (seed, flip, asked) in [(0_usize, false, 2_000_000), (1, true, 5_000_000)] {
        let bytes = bytes.slice(seed..);
        let asked = asked - seed as u64 * if flip { 2 } else { 1 };
        let blob = descriptor("x/y", &bytes);
        let folder = root.path().join(".airlock/import");
        fs::create_dir_all(&folder).unwrap();
        let mut prefix = bytes[..1_000_000].to_vec();
        prefix[500_000] ^= u8::from(flip);
        fs::write(folder.join(format!("sha256-{}", blob.digest.hex())), prefix).unwrap();
        let content = Counted(bytes.clone(), AtomicU64::new(0));
        intake(root.path(), &writer).write_blob(&name, &blob, &content).await.unwrap();
        assert_eq!(content.1.load(Ordering::Relaxed), asked);
        writer.flush().unwrap();
        assert_eq!(writer.blob(&name, &blob.digest).unwrap().unwrap().len, blob.size);
    }
    let scrubbed = writer.scrub(None).unwrap();
    assert_eq!((scrubbed.files, scrubbed.damage.len()), (2, 0));
}

#[tokio::test]
async fn wrong_bytes_are_taken_neither_from_a_stream_nor_by_a_link() {
    let root = tempfile::tempdir().unwrap();
    let (writer, name) = (writer(root.path()), repository("a/b"));
    let (right, wrong) = (Bytes::from(vec![1; 100_000]), Bytes::from(vec![2; 100_000]));
    let blob = descriptor("x/y", &right);
    let file = root.path().join("source");
    fs::write(&file, &wrong).unwrap();
    for (linking, content) in [(false, &wrong), (false, &right.slice(1..)), (true, &wrong)] {
        let mut intake = intake(root.path(), &writer);
        let given = file.clone();
        if linking {
            intake = intake.linking(move |_| Some(given.clone()));
        }
        let error = intake.write_blob(&name, &blob, &InMemory(content.clone())).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Content, "{error}");
        assert!(error.to_string().contains(&blob.digest.to_string()), "{error}");
        intake.tidy().unwrap();
    }
    let long = descriptor("x/y", &[&right[..], b"x"].concat());
    let error =
        intake(root.path(), &writer).write_blob(&name, &blob, &InMemory([&right[..], b"x"].concat().into())).await;
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Content, "{long:?}");
    assert_eq!(fs::read(&file).unwrap(), wrong, "the source's file stays");
    assert!(writer.blob(&name, &blob.digest).unwrap().is_none());
    // A file that is right is linked, and a manifest is not written without its blobs.
    fs::write(&file, &right).unwrap();
    let given = file.clone();
    let intake = intake(root.path(), &writer).linking(move |_| Some(given.clone()));
    intake.write_blob(&name, &blob, &InMemory(Bytes::new())).await.unwrap();
    assert_eq!(intake.linked_bytes(), 100_000);
    let image = image(1, 1_000);
    let error = intake.put_manifest(&name, &image.manifest, None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(Digest::of(&fs::read(&file).unwrap()), blob.digest);
}

#[tokio::test]
async fn what_was_taken_keeps_its_place_whatever_becomes_of_the_import() {
    let root = tempfile::tempdir().unwrap();
    let (writer, name, image) = (writer(root.path()), repository("a/b"), image(1, 20_000));
    put(&writer, &name, &image, Some(&tag("v1"))).await;
    let (blob, bytes) = &image.blobs[1];
    let data = root.path().join(format!(
        "docker/registry/v2/blobs/sha256/{}/{}/data",
        &blob.digest.hex()[..2],
        blob.digest.hex()
    ));
    // Its layer is lost, and an import brings it while the manifest is there.
    fs::remove_file(&data).unwrap();
    let first = intake(root.path(), &writer);
    first.write_blob(&name, blob, &InMemory(bytes.clone())).await.unwrap();
    // Another import comes to its end meanwhile.
    first.tidy().unwrap();
    drop(first);
    assert_eq!(
        writer.blob(&name, &blob.digest).unwrap().unwrap().len,
        blob.size,
        "it is served before it has its place"
    );
    let second = intake(root.path(), &writer);
    second.flush().await.unwrap();
    assert_eq!(Digest::of(&fs::read(&data).unwrap()), blob.digest);
    // A blob that is in the storage gets its link in a repository whose manifest nobody writes.
    let other = repository("other");
    assert!(second.mount_blob(&other, blob, &name).await.unwrap());
    second.flush().await.unwrap();
    drop((second, writer));
    let reader = Writer::open(root.path(), Durability::Image).unwrap();
    assert!(reader.directory().blob(&other, &blob.digest).unwrap().is_some());
    assert_eq!(reader.scrub(None).unwrap().damage, []);
}

#[tokio::test]
async fn what_was_taken_and_has_no_place_is_not_fetched_again_after_a_kill() {
    let root = tempfile::tempdir().unwrap();
    let (name, image) = (repository("a/b"), image(1, 20_000));
    let (blob, bytes) = &image.blobs[1];
    let killed = writer(root.path());
    intake(root.path(), &killed).write_blob(&name, blob, &InMemory(bytes.clone())).await.unwrap();
    drop(killed);
    let writer = writer(root.path());
    assert_eq!(writer.directory().kept(blob), blob.size);
    let content = Counted(bytes.clone(), AtomicU64::new(0));
    intake(root.path(), &writer).write_blob(&name, blob, &content).await.unwrap();
    assert_eq!(content.1.load(Ordering::Relaxed), 0);
    assert_eq!(fs::read_dir(root.path().join(".airlock/uploads")).unwrap().count(), 1);
}

#[tokio::test]
async fn a_blob_whose_file_was_lost_before_it_had_its_place_can_be_pushed() {
    let root = tempfile::tempdir().unwrap();
    let (writer, name, image) = (writer(root.path()), repository("a/b"), image(1, 20_000));
    let (blob, bytes) = &image.blobs[1];
    writer.write_blob(&name, blob, &InMemory(bytes.clone())).await.unwrap();
    for entry in fs::read_dir(root.path().join(".airlock/uploads")).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    assert!(writer.flush().is_err());
    put(&writer, &name, &image, Some(&tag("v1"))).await;
    assert_eq!(writer.scrub(None).unwrap().damage, []);
}

#[tokio::test]
async fn nothing_is_written_or_removed_by_way_of_links() {
    let root = tempfile::tempdir().unwrap();
    let (writer, name, image) = (writer(root.path()), repository("a/b"), image(1, 20_000));
    let elsewhere = tempfile::tempdir().unwrap();
    let file = elsewhere.path().join("file");
    fs::write(&file, "somebody's").unwrap();
    let folder = root.path().join(".airlock/import");
    std::os::unix::fs::symlink(elsewhere.path(), &folder).unwrap();
    let error = Intake::open(root.path(), Arc::new(writer.clone())).map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    fs::remove_file(&folder).unwrap();
    // A blob's name in the folder, and the folder once it is open.
    let intake = intake(root.path(), &writer);
    let (blob, bytes) = &image.blobs[1];
    std::os::unix::fs::symlink(&file, folder.join(format!("sha256-{}", blob.digest.hex()))).unwrap();
    intake.write_blob(&name, blob, &InMemory(bytes.clone())).await.unwrap();
    fs::rename(&folder, root.path().join("away")).unwrap();
    std::os::unix::fs::symlink(elsewhere.path(), &folder).unwrap();
    intake.tidy().unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), "somebody's");
}

/// Everything below a folder, and the folder.
fn all_below(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut found = vec![folder.to_owned()];
    let mut at = 0;
    while at < found.len() {
        if fs::symlink_metadata(&found[at]).unwrap().is_dir() {
            found.extend(fs::read_dir(&found[at]).unwrap().map(|entry| entry.unwrap().path()));
        }
        at += 1;
    }
    found
}

#[tokio::test]
async fn what_root_imports_belongs_to_whom_the_storage_belongs() {
    use std::os::unix::fs::{MetadataExt, chown};
    const SOMEBODY: u32 = 54_321;
    let root = tempfile::tempdir().unwrap();
    if fs::metadata(root.path()).unwrap().uid() != 0 {
        return println!("skipped: only root can import for somebody else");
    }
    chown(root.path(), Some(SOMEBODY), Some(SOMEBODY)).unwrap();
    let (writer, name, image) = (writer(root.path()), repository("a/b"), image(1, 20_000));
    put(&writer, &name, &image, None).await;
    imported(&writer, &name, &[(&image, "v1")]).await;
    let intake = intake(root.path(), &writer);
    let linked = tempfile::NamedTempFile::new().unwrap();
    fs::write(linked.path(), "linked").unwrap();
    let given = linked.path().to_owned();
    let intake = intake.linking(move |_| Some(given.clone()));
    let blob = descriptor("x/y", b"linked");
    intake.write_blob(&name, &blob, &InMemory(Bytes::new())).await.unwrap();
    intake.flush().await.unwrap();
    assert!(root.path().join(".airlock/generations/pushed").exists());
    let others: Vec<_> =
        all_below(root.path()).into_iter().filter(|path| fs::metadata(path).unwrap().uid() != SOMEBODY).collect();
    let linked_here = root.path().join(format!(
        "docker/registry/v2/blobs/sha256/{}/{}/data",
        &blob.digest.hex()[..2],
        blob.digest.hex()
    ));
    assert_eq!(others, [linked_here], "a file that was linked stays whose it is");
}

#[tokio::test]
async fn what_imports_left_and_cannot_be_looked_at_does_not_fail_a_collection() {
    let root = tempfile::tempdir().unwrap();
    let writer = writer(root.path());
    fs::create_dir_all(root.path().join(".airlock/import/lock")).unwrap();
    assert_eq!(writer.collect_garbage(false).unwrap().removed_files, 0);
}

#[tokio::test]
async fn a_source_file_that_is_a_link_is_linked_as_what_it_leads_to() {
    let root = tempfile::tempdir().unwrap();
    let (writer, name) = (writer(&root.path().join("store")), repository("a/b"));
    let (file, link) = (root.path().join("file"), root.path().join("link"));
    fs::write(&file, "bytes").unwrap();
    std::os::unix::fs::symlink("file", &link).unwrap();
    let blob = descriptor("x/y", b"bytes");
    let intake = intake(&root.path().join("store"), &writer).linking(move |_| Some(link.clone()));
    intake.write_blob(&name, &blob, &InMemory(Bytes::new())).await.unwrap();
    intake.flush().await.unwrap();
    fs::remove_file(&file).unwrap();
    let place = writer.directory().file(&blob.digest).unwrap();
    assert!(fs::symlink_metadata(&place).unwrap().is_file());
    assert_eq!(fs::read(&place).unwrap(), b"bytes");
}

/// A registry that does not take what was imported.
struct Unwilling;

impl Keeper for Unwilling {
    fn change(&self, _: &Change) -> Result<Changed, Error> {
        Err(Error::new(ErrorKind::Refused, "change the storage", "not now"))
    }
}

#[tokio::test]
async fn what_was_linked_and_not_taken_does_not_count_as_linked() {
    let root = tempfile::tempdir().unwrap();
    let store = root.path().join("store");
    let (_writer, file) = (writer(&store), root.path().join("file"));
    fs::write(&file, "bytes").unwrap();
    let intake = Intake::open(&store, Arc::new(Unwilling)).unwrap().linking(move |_| Some(file.clone()));
    let refused = intake.write_blob(&repository("a/b"), &descriptor("x/y", b"bytes"), &InMemory(Bytes::new())).await;
    assert_eq!((refused.unwrap_err().kind(), intake.linked_bytes()), (ErrorKind::Refused, 0));
}

#[tokio::test]
async fn whether_a_file_can_be_linked_is_tried() {
    let root = tempfile::tempdir().unwrap();
    let store = root.path().join("store");
    let (writer, file) = (writer(&store), root.path().join("file"));
    fs::write(&file, "bytes").unwrap();
    let (there, gone) = (descriptor("x/y", b"bytes").digest, Digest::of(b"gone"));
    let known = there.clone();
    // A file of the kernel's lies on another file system, and a folder has one name.
    let files = move |digest: &Digest| {
        Some(if *digest == known { file.clone() } else { std::path::PathBuf::from("/proc/self/status") })
    };
    let intake = intake(&store, &writer).linking(files);
    assert!(intake.can_link(&there) && !intake.can_link(&gone));
    let folder = root.path().to_owned();
    let intake = {
        drop(intake);
        self::intake(&store, &writer).linking(move |_| Some(folder.clone()))
    };
    assert!(!intake.can_link(&there));
    assert_eq!(fs::read_dir(store.join(".airlock/import")).unwrap().count(), 1, "nothing but the lock is left");
}
