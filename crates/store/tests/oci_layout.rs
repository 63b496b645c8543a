//! OCI layout directories: ours are read by skopeo, skopeo's are read by us.
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod images;

use std::fs;

use airlock_oci::{ErrorKind, Reference, Sink, Source};
use airlock_store::oci_layout::{Layout, Writer};
use futures_util::StreamExt;
use images::*;

fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}

#[tokio::test]
async fn registry_and_path_of_a_reference_are_not_looked_at() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("new/layout");
    let (writer, one, two) = (Writer::open(&path).unwrap(), image(1, 600_000), image(2, 10));
    put(&writer, &repository("x"), &one, None).await;
    let layout = Layout::open(&path).unwrap();
    for name in ["quay.io/any/thing", "a.b/c:whatever"] {
        let found = layout.manifest(&reference(name)).await.unwrap();
        assert_eq!(found.value.bytes(), one.manifest.bytes(), "the only manifest, without a name");
    }
    put(&writer, &repository("x"), &one, Some(&tag("v1"))).await;
    put(&writer, &repository("y"), &two, Some(&tag("v2"))).await;
    let layout = Layout::open(&path).unwrap();
    assert_eq!(layout.names(), ["v1", "v2"]);
    assert_eq!(layout.tags(&reference("q/q")).await.unwrap(), [tag("v1"), tag("v2")]);
    assert_eq!(layout.manifest(&reference("q/q:v2")).await.unwrap().value.digest(), two.manifest.digest());
    let by_digest = reference("q/q").with_digest(one.manifest.digest().clone());
    assert_eq!(layout.resolve(&by_digest).await.unwrap().value, *one.manifest.digest());
    let error = layout.manifest(&reference("q/q:v3")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("`v1`, `v2`"), "{error}");
    assert!(layout.manifest(&reference("q/q")).await.is_err(), "two manifests and no name");
    let mut stream = layout.blob(&by_digest, &one.blobs[1].0, 5, None).await.unwrap();
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.next().await {
        bytes.extend_from_slice(&chunk.unwrap());
    }
    assert!(bytes == one.blobs[1].1[5..]);
}

#[tokio::test]
async fn only_what_nothing_else_names_is_listed() {
    let root = tempfile::tempdir().unwrap();
    let (writer, name, amd, arm) = (Writer::open(root.path()).unwrap(), repository("x"), image(1, 9), image(2, 9));
    put(&writer, &name, &amd, None).await;
    put(&writer, &name, &arm, None).await;
    let both = index(&[&amd, &arm]);
    Sink::put_manifest(&writer, &name, &both, Some(&tag("v1"))).await.unwrap();
    let fields = format!(r#","subject":{}"#, serde_json::to_string(&both.descriptor()).unwrap());
    let signature = image_with(3, 9, &fields);
    put(&writer, &name, &signature, None).await;
    let layout = Layout::open(root.path()).unwrap();
    let listed: Vec<_> = layout.manifests().iter().map(|d| d.digest.clone()).collect();
    assert_eq!(listed, [both.digest().clone(), signature.manifest.digest().clone()]);
    let referrers = layout.referrers(&reference("a/b"), both.digest(), None).await.unwrap();
    assert_eq!(referrers[0].digest, *signature.manifest.digest());
    // The name moves on.
    put(&writer, &name, &amd, Some(&tag("v1"))).await;
    let layout = Layout::open(root.path()).unwrap();
    assert_eq!(layout.manifest(&reference("a/b:v1")).await.unwrap().value.digest(), amd.manifest.digest());
    assert_eq!(layout.manifests().len(), 2);
    let leftovers: Vec<_> = fs::read_dir(root.path().join("blobs")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(leftovers, ["sha256"]);
}

#[tokio::test]
async fn a_directory_of_something_else_is_refused() {
    let root = tempfile::tempdir().unwrap();
    assert_eq!(Layout::open(root.path()).unwrap_err().kind(), ErrorKind::NotFound);
    fs::write(root.path().join("letter.txt"), "x").unwrap();
    assert_eq!(Writer::open(root.path()).unwrap_err().kind(), ErrorKind::Invalid);
    fs::write(root.path().join("oci-layout"), r#"{"imageLayoutVersion":"2.0.0"}"#).unwrap();
    assert_eq!(Layout::open(root.path()).unwrap_err().kind(), ErrorKind::Unsupported);
}

#[tokio::test]
async fn skopeo_reads_ours_and_we_read_its() {
    if !have("skopeo") {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let (ours, theirs) = (root.path().join("ours"), root.path().join("theirs"));
    let (writer, name, amd, arm) = (Writer::open(&ours).unwrap(), repository("x"), image(1, 99), image(2, 9));
    put(&writer, &name, &amd, None).await;
    put(&writer, &name, &arm, None).await;
    let both = index(&[&amd, &arm]);
    Sink::put_manifest(&writer, &name, &both, Some(&tag("v1"))).await.unwrap();
    let (from, to) = (format!("oci:{}:v1", ours.display()), format!("oci:{}:their-tag", theirs.display()));
    run("skopeo", &["copy", "--all", "--preserve-digests", &from, &to]);
    let layout = Layout::open(&theirs).unwrap();
    let found = layout.manifest(&reference("any/thing:their-tag")).await.unwrap();
    assert_eq!(found.value.bytes(), both.bytes());
    let child = reference("a/b").with_digest(arm.manifest.digest().clone());
    assert_eq!(layout.manifest(&child).await.unwrap().value.bytes(), arm.manifest.bytes());
    assert!(layout.has_blob(&child, &arm.blobs[1].0, None).await.unwrap());
}
