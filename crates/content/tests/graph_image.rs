//! The graph image: same data and base, same digest; what is in it is what upstream's data say; a real tool reads it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by failing")]

mod support;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use airlock_content::graph_image::{Base, COMMAND, GraphData, GraphImage, GraphImageSource, Target, build};
use airlock_content::layers::{self, Collect, Image, Limits, Wanted};
use airlock_oci::{Digest, Manifest, Platform, Repository, Source, Tag, media_type};
use airlock_store::oci_layout::{Layout, Writer};
use airlock_testkit::fixture::{self, Blob, Built};
use airlock_testkit::tools;
use bytes::Bytes;
use serde_json::{Value, json};
use support::{Memory, directory, file, gzip, layer, name, symlink, tar};

fn small_data() -> Vec<u8> {
    gzip(&tar(&[
        directory("./"),
        file("./version", b"1.1.0\n"),
        file("./channels/stable-4.16.yaml", b"name: stable-4.16\n"),
        file("./LICENSE", b"L"),
        file("./blocked-edges/4.16.1-Risk.yaml", b"to: 4.16.1\n"),
        file("./raw/metadata.json", b"{}"),
    ]))
}

/// An image whose configuration tells its layers, as a base has.
fn base_image(platform: &str, docker: bool) -> Built {
    let bytes = tar(&[file("bin/sh", platform.as_bytes())]);
    let shell = Blob { descriptor: layer(gzip(&bytes)).descriptor, bytes: gzip(&bytes).into() };
    let platform: Platform = platform.parse().unwrap();
    let config = json!({
        "architecture": platform.architecture, "os": platform.os, "created": "2025-01-01T00:00:00Z", "x-kept": [1, {"b": 1, "a": 2}],
        "config": {"Cmd": ["/bin/sh"], "Entrypoint": ["/entry"], "Labels": {"name": "ubi9"}},
        "rootfs": {"type": "layers", "diff_ids": [Digest::of(&bytes)]}, "history": [{"created_by": "base"}],
    });
    let (manifest_type, config_type, layer_type) = if docker {
        (media_type::DOCKER_MANIFEST, media_type::DOCKER_CONFIG, media_type::DOCKER_LAYER_GZIP)
    } else {
        (media_type::OCI_MANIFEST, media_type::OCI_CONFIG, media_type::OCI_LAYER_GZIP)
    };
    let config = fixture::blob(config_type, config.to_string());
    let mut shell = shell;
    shell.descriptor.media_type = layer_type.to_owned();
    let text = json!({"schemaVersion": 2, "mediaType": manifest_type, "config": config.descriptor, "layers": [shell.descriptor]});
    let manifest = Manifest::parse(Bytes::from(text.to_string()), None).unwrap();
    Built { manifest, blobs: vec![config, shell], children: Vec::new(), platform: Some(platform) }
}

struct Made {
    folder: tempfile::TempDir,
    image: GraphImage,
}

async fn make(data: &GraphData, source: &dyn Source, tag: &str, platforms: &[Platform]) -> Made {
    let folder = tempfile::tempdir().unwrap();
    let writer = Writer::open(folder.path()).unwrap();
    let (repository, latest, name) =
        (Repository::new("openshift/graph-image").unwrap(), Tag::new("latest").unwrap(), name(tag));
    let target = Target { sink: &writer, repository: &repository, tag: &latest };
    let image = build(data, Base { source, name: &name, platforms }, target).await.unwrap();
    Made { folder, image }
}

#[tokio::test]
async fn the_layer_and_the_command_come_upon_every_platform() {
    let (amd, arm) = (base_image("linux/amd64", true), base_image("linux/arm64", true));
    let mut source = Memory::new();
    let attestation = fixture::image(9).platform("unknown/unknown").build();
    source.add("base", &fixture::index(&[amd.clone(), arm.clone(), attestation]).docker().build());
    let data = GraphData::read(&small_data()[..], "data").unwrap();
    assert_eq!((data.version.as_str(), data.channels, data.blocked_edges), ("1.1.0", 1, 1));
    let made = make(&data, &source, "base", &[]).await;
    let layers_before = source.fetched();
    assert!(
        !layers_before.iter().any(|d| made.image.base_layers.iter().any(|l| l.digest == *d)),
        "no layer of the base is read"
    );

    assert_eq!(made.image.manifest.media_type(), media_type::DOCKER_LIST);
    assert_eq!(made.image.manifest.children().len(), 2);
    let layout = Layout::open(made.folder.path()).unwrap();
    let found = layout.manifest(&name("latest")).await.unwrap();
    assert_eq!(found.value.bytes(), made.image.manifest.bytes());
    for (child, base) in made.image.manifest.children().iter().zip([&amd, &arm]) {
        assert_eq!(child.platform, base.platform);
        let manifest = layout.manifest(&name("x").with_digest(child.digest.clone())).await.unwrap().value;
        assert_eq!(child.size, manifest.bytes().len() as u64);
        assert_eq!(manifest.media_type(), media_type::DOCKER_MANIFEST);
        assert_eq!(manifest.layers()[0], base.manifest.layers()[0]);
        assert_eq!(
            (manifest.layers().len(), manifest.layers()[1].media_type.as_str()),
            (2, media_type::DOCKER_LAYER_GZIP)
        );
        let bytes =
            std::fs::read(made.folder.path().join("blobs/sha256").join(manifest.config().unwrap().digest.hex()))
                .unwrap();
        let config: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(config["config"], json!({"Cmd": COMMAND, "Labels": {"name": "ubi9"}}));
        assert_eq!(
            (config["x-kept"][1]["a"].as_u64(), config["created"].as_str()),
            (Some(2), Some("2025-01-01T00:00:00Z"))
        );
        assert_eq!(config["rootfs"]["diff_ids"][1], json!(data.layer.diff_id));
        assert_eq!(config["history"].as_array().unwrap().len(), 2);
    }
}

#[tokio::test]
async fn the_same_input_gives_the_same_image_whatever_its_order() {
    let mut source = Memory::new();
    source.add("base", &base_image("linux/amd64", false));
    let one = GraphData::read(&small_data()[..], "one").unwrap();
    // Another order, no `./`, no compression, below the directory of an archive of the repository.
    let other = tar(&[
        file("data-1/raw/metadata.json", b"{}"),
        file("data-1/blocked-edges/4.16.1-Risk.yaml", b"to: 4.16.1\n"),
        file("data-1/version", b"1.1.0\n"),
        file("data-1/LICENSE", b"L"),
        file("data-1/channels/stable-4.16.yaml", b"name: stable-4.16\n"),
    ]);
    let other = GraphData::read(&other[..], "other").unwrap();
    assert_eq!(one.layer, other.layer);
    let (a, b) = (make(&one, &source, "base", &[]).await, make(&other, &source, "base", &[]).await);
    assert_eq!(a.image.manifest.digest(), b.image.manifest.digest());
    assert_eq!(a.image.manifest.media_type(), media_type::OCI_MANIFEST);
    // Known bytes: a change of them is a change of everybody's graph image.
    assert_eq!(&*a.image.manifest.digest().short(), "a18e141ff8f8");
}

#[tokio::test]
async fn only_wanted_platforms_are_built_upon() {
    let mut source = Memory::new();
    source.add("base", &fixture::index(&[base_image("linux/amd64", false), base_image("linux/arm64", false)]).build());
    let data = GraphData::read(&small_data()[..], "data").unwrap();
    let arm: Platform = "linux/arm64".parse().unwrap();
    let made = make(&data, &source, "base", std::slice::from_ref(&arm)).await;
    assert_eq!(made.image.manifest.children().iter().map(|c| c.platform.clone().unwrap()).collect::<Vec<_>>(), [arm]);
    let folder = tempfile::tempdir().unwrap();
    let writer = Writer::open(folder.path()).unwrap();
    let (repository, tag) = (Repository::new("g").unwrap(), Tag::new("latest").unwrap());
    let target = Target { sink: &writer, repository: &repository, tag: &tag };
    let power: Platform = "linux/ppc64le".parse().unwrap();
    let base = Base { source: &source, name: &name("base"), platforms: std::slice::from_ref(&power) };
    let error = build(&data, base, target).await.unwrap_err();
    assert!(error.hint_text().unwrap().contains("linux/amd64"), "{error}");
}

#[tokio::test]
async fn the_image_is_copied_from_two_places_and_a_tool_unpacks_it() {
    let Some(shared) = tools::shared() else { return };
    let real: PathBuf = shared.join("vectors/updates/graph-data/graph-data-731d0424.tar.gz");
    let data = GraphData::read(std::fs::File::open(&real).unwrap(), "graph-data").unwrap();
    assert_eq!((data.channels, data.blocked_edges), (76, 1717));
    let base = base_image("linux/amd64", false);
    let mut source = Memory::new();
    source.add("base", &base);
    let made = make(&data, &source, "base", &[]).await;
    let stacked =
        GraphImageSource::new(&made.image, Arc::new(Layout::open(made.folder.path()).unwrap()), Arc::new(source));
    let graph = name("latest");
    let manifest = stacked.manifest(&graph).await.unwrap().value;
    let image = Image { source: &stacked, name: &graph, manifest: &manifest, near: None };
    let files = layers::files(image, &Wanted::new().tree("/").unwrap(), Limits::default(), Collect::new(1 << 24))
        .await
        .unwrap()
        .into_files();
    assert_eq!(files["bin/sh"], b"linux/amd64");
    // What tar unpacks from upstream's file is what the layer holds, and what tar unpacks from the layer.
    let unpack = |archive: &std::path::Path| {
        let folder = tempfile::tempdir().unwrap();
        let done = Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(folder.path()).status().unwrap();
        assert!(done.success());
        folder
    };
    let (upstream, layer) =
        (unpack(&real), made.folder.path().join("blobs/sha256").join(data.layer.descriptor.digest.hex()));
    let ours = unpack(&layer);
    let mut count = 0;
    for (path, bytes) in &files {
        let Some(inside) = path.strip_prefix("var/lib/cincinnati-graph-data/") else { continue };
        count += 1;
        assert_eq!(std::fs::read(upstream.path().join(inside)).unwrap(), *bytes, "{inside}");
        assert_eq!(std::fs::read(ours.path().join(path)).unwrap(), *bytes, "{path}");
    }
    let listed = Command::new("tar").arg("-tvzf").arg(&layer).arg("--numeric-owner").output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let modes: BTreeMap<&str, usize> = listed.lines().fold(BTreeMap::new(), |mut all, line| {
        *all.entry(&line[..line.find(" 0/0 ").expect("owned by root")]).or_default() += 1;
        all
    });
    assert_eq!(modes.keys().copied().collect::<Vec<_>>(), ["-rw-r--r--", "drwxr-xr-x"]);
    assert_eq!(modes["-rw-r--r--"], count);
}

#[test]
fn what_are_no_graph_data_is_refused_by_name() {
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("empty", Vec::new(), "no `version`"),
        ("a page", b"<html>route not found</html>".repeat(40), "checksum"),
        ("a cut file", small_data()[..60].to_vec(), ""),
        ("no channels", tar(&[file("version", b"1.1.0")]), "channels/"),
        ("the future", tar(&[file("version", b"2.0.0"), file("channels/a.yaml", b"")]), "2.0.0"),
        ("a link", tar(&[file("version", b"1.1.0"), symlink("channels", "/etc")]), "neither a file"),
        ("climbing", tar(&[file("version", b"1.1.0"), file("../x", b"")]), "no path"),
        ("twice", tar(&[file("version", b"1.1.0"), file("./version", b"")]), "twice"),
        ("too large", tar(&[file("version", &vec![0; (32 << 20) + 1])]), "more than"),
    ];
    for (case, bytes, says) in cases {
        let error = GraphData::read(&bytes[..], "data").expect_err(case);
        assert!(error.to_string().contains(says), "{case}: {error}");
    }
}
