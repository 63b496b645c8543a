//! File trees as `oc image mirror` lays them out: what is in them, and what is never in them.
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod images;

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::sync::Arc;

use airlock_oci::sink::ManifestName;
use airlock_oci::{ErrorKind, Reference, Sink, Source};
use airlock_store::file_tree::{Tree, Writer};
use airlock_store::{Storage, StorageSource};
use bytes::Bytes;
use futures_util::StreamExt;
use images::*;

fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}

fn source(root: &Path) -> StorageSource<Tree> {
    StorageSource::new(Arc::new(Tree::open(root).unwrap()))
}

/// Everything that has no name yet.
fn leftovers(root: &Path) -> Vec<String> {
    let names = fs::read_dir(root.join("v2")).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    names.filter(|n| n.starts_with('.')).collect()
}

#[tokio::test]
async fn blobs_manifests_and_tags_lie_where_oc_looks_for_them() {
    let root = tempfile::tempdir().unwrap();
    let (writer, name, one) = (Writer::open(root.path()).unwrap(), repository("openshift/release"), image(1, 600_000));
    put(&writer, &name, &one, Some(&tag("4.1.0-x86_64"))).await;
    let at = |rest: &str| root.path().join("v2/openshift/release").join(rest);
    let digest = one.manifest.digest();
    for (blob, bytes) in &one.blobs {
        assert_eq!(&fs::read(at(&format!("blobs/{}", blob.digest))).unwrap(), bytes);
    }
    let (blob, manifest) = (at(&format!("blobs/{digest}")), at(&format!("manifests/{digest}")));
    assert_eq!(&fs::read(&manifest).unwrap(), one.manifest.bytes());
    assert_eq!(fs::metadata(&blob).unwrap().ino(), fs::metadata(&manifest).unwrap().ino(), "a hard link");
    assert_eq!(fs::read_link(at("manifests/4.1.0-x86_64")).unwrap().to_str().unwrap(), digest.to_string());
    assert!(leftovers(root.path()).is_empty());

    let source = source(root.path());
    assert_eq!(source.storage().repositories().unwrap(), std::slice::from_ref(&name));
    assert_eq!(source.tags(&reference("x.y/openshift/release")).await.unwrap(), [tag("4.1.0-x86_64")]);
    let by_tag = reference("x.y/openshift/release:4.1.0-x86_64");
    let found = source.manifest(&by_tag).await.unwrap().value;
    assert_eq!((found.bytes(), found.media_type()), (one.manifest.bytes(), one.manifest.media_type()));
    let mut stream = source.blob(&by_tag, &one.blobs[1].0, 7, None).await.unwrap();
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.next().await {
        bytes.extend_from_slice(&chunk.unwrap());
    }
    assert!(bytes == one.blobs[1].1[7..]);
    let missing = source.manifest(&reference("x.y/openshift/release:4.2.0")).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    assert_eq!(source.tags(&reference("x.y/other")).await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn what_came_with_another_digest_or_length_gets_no_name() {
    let root = tempfile::tempdir().unwrap();
    let (writer, name, one) = (Writer::open(root.path()).unwrap(), repository("a"), image(1, 1000));
    let (blob, bytes) = &one.blobs[1];
    let mut flipped = bytes.to_vec();
    flipped[5] ^= 1;
    for bad in [Bytes::from(flipped), bytes.slice(1..), Bytes::from([bytes.as_ref(), b"x"].concat())] {
        let error = writer.write_blob(&name, blob, &InMemory(bad)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Content, "{error}");
        assert!(!writer.has_blob(&name, blob).await.unwrap());
    }
    assert!(leftovers(root.path()).is_empty());
    assert!(!root.path().join("v2/a").exists());
}

#[tokio::test]
async fn a_tag_moves_on_and_goes_with_its_manifest() {
    let root = tempfile::tempdir().unwrap();
    let (writer, name, one, two) = (Writer::open(root.path()).unwrap(), repository("a/b"), image(1, 9), image(2, 9));
    let latest = ManifestName::Tag(tag("latest"));
    put(&writer, &name, &one, Some(&tag("latest"))).await;
    put(&writer, &name, &two, Some(&tag("latest"))).await;
    put(&writer, &name, &one, Some(&tag("old"))).await;
    assert_eq!(writer.head_manifest(&name, &latest).await.unwrap().as_ref(), Some(two.manifest.digest()));
    let by_digest = ManifestName::Digest(two.manifest.digest().clone());
    writer.delete_manifest(&name, &by_digest).await.unwrap();
    assert_eq!(writer.head_manifest(&name, &latest).await.unwrap(), None);
    assert_eq!(writer.head_manifest(&name, &by_digest).await.unwrap(), None);
    assert_eq!(Tree::open(root.path()).unwrap().tags(&name).unwrap().unwrap(), [tag("old")]);
    writer.delete_manifest(&name, &ManifestName::Tag(tag("old"))).await.unwrap();
    let kept = ManifestName::Digest(one.manifest.digest().clone());
    assert!(writer.head_manifest(&name, &kept).await.unwrap().is_some(), "only the tag went");
    let error = writer.delete_manifest(&name, &ManifestName::Tag(tag("old"))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn another_repository_gets_a_blob_without_its_bytes() {
    let root = tempfile::tempdir().unwrap();
    let (writer, from, to, one) =
        (Writer::open(root.path()).unwrap(), repository("a"), repository("b/c"), image(1, 99));
    put(&writer, &from, &one, None).await;
    let blob = &one.blobs[1].0;
    for _ in 0..2 {
        assert!(writer.mount_blob(&to, blob, &from).await.unwrap());
    }
    assert!(writer.has_blob(&to, blob).await.unwrap());
    assert!(!writer.mount_blob(&to, &image(2, 99).blobs[1].0, &from).await.unwrap());
    assert!(leftovers(root.path()).is_empty());
    let file = root.path().join(format!("v2/b/c/blobs/{}", blob.digest));
    assert_eq!(fs::metadata(file).unwrap().nlink(), 2);
}

#[tokio::test]
async fn damage_is_found_and_a_link_that_leads_elsewhere_is_not_followed() {
    let root = tempfile::tempdir().unwrap();
    let (writer, name, one) = (Writer::open(root.path()).unwrap(), repository("a"), image(1, 9));
    put(&writer, &name, &one, Some(&tag("v1"))).await;
    let folder = root.path().join("v2/a/manifests");
    fs::write(root.path().join("secret"), one.manifest.bytes()).unwrap();
    symlink("../../../secret", folder.join("evil")).unwrap();
    let source = source(root.path());
    let error = source.manifest(&reference("x.y/a:evil")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Content);
    let path = folder.join(one.manifest.digest().to_string());
    let mut bytes = fs::read(&path).unwrap();
    bytes[3] ^= 1;
    fs::write(&path, bytes).unwrap();
    assert_eq!(source.manifest(&reference("x.y/a:v1")).await.unwrap_err().kind(), ErrorKind::Content);
    // What is damaged is not there, and written again.
    let at = ManifestName::Tag(tag("v1"));
    assert_eq!(writer.head_manifest(&name, &at).await.unwrap(), None);
    put(&writer, &name, &one, Some(&tag("v1"))).await;
    assert!(writer.head_manifest(&name, &at).await.unwrap().is_some());
    assert!(source.manifest(&reference("x.y/a:v1")).await.is_ok());
}

#[tokio::test]
async fn referrers_are_found_and_names_of_windows_are_read() {
    let root = tempfile::tempdir().unwrap();
    let (writer, name, one) = (Writer::open(root.path()).unwrap(), repository("a"), image(1, 9));
    put(&writer, &name, &one, Some(&tag("v1"))).await;
    let fields = format!(r#","subject":{}"#, serde_json::to_string(&one.manifest.descriptor()).unwrap());
    let signature = image_with(3, 9, &fields);
    put(&writer, &name, &signature, None).await;
    let asked = reference("x.y/a:v1");
    let found = source(root.path()).referrers(&asked, one.manifest.digest(), None).await.unwrap();
    assert_eq!(found.iter().map(|d| &d.digest).collect::<Vec<_>>(), [signature.manifest.digest()]);
    for kind in ["blobs", "manifests"] {
        let folder = root.path().join("v2/a").join(kind);
        for entry in fs::read_dir(&folder).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if name.contains(':') {
                fs::rename(folder.join(&name), folder.join(name.replace(':', "-"))).unwrap();
            }
        }
    }
    let link = root.path().join("v2/a/manifests/v1");
    fs::remove_file(&link).unwrap();
    symlink(one.manifest.digest().to_string().replace(':', "-"), &link).unwrap();
    let source = source(root.path());
    assert_eq!(source.manifest(&asked).await.unwrap().value.digest(), one.manifest.digest());
    assert!(source.has_blob(&asked, &one.blobs[0].0, None).await.unwrap());
    let tree = source.storage();
    assert_eq!(tree.find(signature.manifest.digest(), &repository("other")).unwrap(), Some(name));
    assert_eq!(tree.find(image(7, 7).manifest.digest(), &repository("a")).unwrap(), None);
}

#[tokio::test]
async fn two_writers_at_once_are_refused_and_leftovers_go() {
    let root = tempfile::tempdir().unwrap();
    assert_eq!(Tree::open(root.path()).unwrap_err().kind(), ErrorKind::NotFound);
    let first = Writer::open(root.path()).unwrap();
    assert_eq!(Writer::open(root.path()).unwrap_err().kind(), ErrorKind::Locked);
    drop(first);
    fs::write(root.path().join("v2/.airlock-1"), "half").unwrap();
    Writer::open(root.path()).unwrap();
    assert!(leftovers(root.path()).is_empty());
}
