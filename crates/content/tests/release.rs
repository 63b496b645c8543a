//! Releases are read out of payload images: a real layer, every payload of the world, and what is none.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by failing")]

mod support;

use std::path::Path;

use airlock_client::{Client, Options, RegistriesConf, RegistrySource};
use airlock_content::release::{Parts, Payload, machine};
use airlock_oci::{ErrorKind, Reference};
use airlock_testkit::world::{Faults, Scale, Serving, World};
use airlock_testkit::{fixture, tools};
use serde_json::Value;
use support::{Memory, gzip, image, layer, name, release_layer, tar};

const DIGEST: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

fn vectors() -> Option<std::path::PathBuf> {
    Some(tools::shared()?.join("vectors/updates/release-payload"))
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[tokio::test]
async fn the_real_layer_of_4_12_0_gives_exactly_what_it_holds() {
    let Some(vectors) = vectors() else { return };
    let bytes = std::fs::read(vectors.join("ocp-4.12.0-x86_64-release-manifests-layer.tar.gz")).unwrap();
    let real = layer(bytes);
    assert_eq!(
        real.descriptor.digest.to_string(),
        "sha256:5b2ca04f694b70c8b41f1c2a40b7e95643181a1d037b115149ecc243324c513d"
    );
    let below = layer(gzip(&tar(&[])));
    let mut source = Memory::new();
    source.add("4.12.0-x86_64", &image(vec![below, real.clone()]));
    let payload =
        Payload::read(&source, &name("4.12.0-x86_64"), Parts { boot_images: true, platform: None }).await.unwrap();
    // The configuration and the layer on top; not the one below.
    assert_eq!(source.fetched(), [payload.image.config().unwrap().digest.clone(), real.descriptor.digest]);

    let stream = json(&vectors.join("image-references-4.12.0.json"));
    assert_eq!(payload.image_stream, stream);
    let tags = stream["spec"]["tags"].as_array().unwrap();
    assert_eq!((payload.references.components.len(), tags.len()), (183, 183));
    for (component, tag) in payload.references.components.iter().zip(tags) {
        assert_eq!(component.name, tag["name"].as_str().unwrap());
        assert_eq!(component.image.to_string(), tag["from"]["name"].as_str().unwrap());
        assert_eq!(serde_json::json!(component.annotations), tag["annotations"]);
    }
    let metadata = json(&vectors.join("release-metadata-4.12.0.json"));
    assert_eq!(payload.version(), "4.12.0");
    assert_eq!(serde_json::json!(payload.metadata.previous), metadata["previous"]);
    assert_eq!(payload.metadata.url(), metadata["metadata"]["url"].as_str());
    assert_eq!((payload.manifests, payload.other_files), (643, 1));
    // Boot images there are, but no container disk yet.
    assert!(payload.boot_images.as_ref().unwrap().kubevirt.is_empty());
}

#[tokio::test]
async fn the_container_disk_is_found_for_each_architecture() {
    let Some(vectors) = vectors() else { return };
    let bytes = std::fs::read(vectors.join("coreos-bootimages-4.15-kubevirt-trimmed.yaml")).unwrap();
    let text = String::from_utf8(bytes.clone()).unwrap();
    let images = airlock_content::release::BootImages::parse(&bytes, "4.15").unwrap();
    assert_eq!(images.kubevirt.keys().collect::<Vec<_>>(), ["s390x", "x86_64"]);
    let disk = images.kubevirt("x86_64").unwrap().unwrap().to_string();
    assert!(text.contains(&format!("\"digest-ref\": \"{disk}\"")), "{disk}");
    // The other's digest is made up, and no digest; that matters to whoever wants it.
    assert!(images.kubevirt("s390x").unwrap_err().to_string().contains("s390x"));
    assert_eq!(images.kubevirt("aarch64").unwrap(), None);
    assert_eq!((machine("amd64"), machine("arm64"), machine("s390x")), ("x86_64", "aarch64", "s390x"));
}

#[tokio::test]
async fn what_is_no_release_says_so() {
    let mut source = Memory::new();
    source.add("image", &fixture::image(1).layers(&[]).given(vec![layer(gzip(&tar(&[])))]).build());
    source.add("artifact", &fixture::artifact(1, "application/x").build());
    source.add("empty", &fixture::index(&[]).build());
    for (tag, says) in [("image", "image-references"), ("artifact", "application/x"), ("empty", "no image")] {
        let error = Payload::read(&source, &name(tag), Parts::default()).await.unwrap_err();
        assert!(error.to_string().contains(says), "{tag}: {error}");
        assert!(error.kind() == ErrorKind::Invalid || tag == "empty", "{tag}: {error}");
    }
}

#[tokio::test]
async fn of_several_architectures_the_usual_or_the_wanted_one_is_read() {
    let (mut source, etcd) = (Memory::new(), format!("quay.io/a/b@{DIGEST}"));
    let release = |seed, platform| {
        fixture::image(seed)
            .platform(platform)
            .layers(&[])
            .given(vec![release_layer("4.1.0", &[("etcd", &etcd)])])
            .build()
    };
    let (arm, amd) = (release(1, "linux/arm64"), release(2, "linux/amd64"));
    source.add("multi", &fixture::index(&[arm.clone(), amd.clone()]).docker().build());
    source.add("one", &fixture::index(std::slice::from_ref(&arm)).build());
    let read = |tag, platform: Option<&str>| {
        let parts = Parts { boot_images: false, platform: platform.map(|p| p.parse().unwrap()) };
        let source = &source;
        async move { Payload::read(source, &name(tag), parts).await }
    };
    let multi = read("multi", None).await.unwrap();
    assert_eq!((multi.image.digest(), multi.architecture(), multi.platforms().len()), (amd.digest(), "multi", 2));
    assert_ne!(multi.digest(), multi.image.digest());
    assert_eq!(read("multi", Some("linux/arm64")).await.unwrap().image.digest(), arm.digest());
    let unsaid = fixture::Built { platform: None, ..arm.clone() };
    source.add("unsaid", &fixture::index(&[unsaid]).build());
    let read = |tag, platform: Option<&str>| {
        let parts = Parts { boot_images: false, platform: platform.map(|p| p.parse().unwrap()) };
        let source = &source;
        async move { Payload::read(source, &name(tag), parts).await }
    };
    assert_eq!(read("unsaid", None).await.unwrap().image.digest(), arm.digest());
    let one = read("one", None).await.unwrap();
    assert_eq!((one.image.digest(), one.architecture()), (arm.digest(), "arm64"));
    let error = read("one", Some("linux/s390x")).await.unwrap_err();
    assert!(error.to_string().contains("linux/s390x") && error.hint_text().unwrap().contains("arm64"), "{error}");
}

#[tokio::test]
async fn a_layer_that_was_exchanged_is_not_believed() {
    let mut source = Memory::new();
    let etcd = format!("quay.io/a/b@{DIGEST}");
    let (real, other) =
        (release_layer("4.1.0", &[("etcd", &etcd)]), release_layer("4.1.0", &[("etcd", &etcd.replace("/b@", "/c@"))]));
    assert_eq!(real.bytes.len(), other.bytes.len());
    source.add("4.1.0", &image(vec![real.clone()]));
    assert!(Payload::read(&source, &name("4.1.0"), Parts::default()).await.is_ok());
    source.replace(&real.descriptor.digest, other.bytes);
    let error = Payload::read(&source, &name("4.1.0"), Parts::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Content);
    assert!(error.to_string().contains(&real.descriptor.digest.to_string()), "{error}");
}

#[tokio::test]
async fn every_payload_of_the_world_is_read() {
    let Some(world) = World::get(Scale::Small) else { return };
    let Some(upstream) = world.start(Serving::Scripted(Faults::default())) else { return };
    let releases = json(&upstream.folder().join("world.json"))["releases"]["releases"].as_array().unwrap().clone();
    assert!(releases.len() >= 11);
    let options = Options {
        registries_conf: RegistriesConf::File { path: upstream.registries_conf(), dropins: None },
        anonymous: true,
        ..Options::default()
    };
    let source = RegistrySource::new(Client::new(options).unwrap());
    for release in releases {
        let text = |key: &str| release[key].as_str().unwrap().to_owned();
        let name: Reference = format!("quay.io/openshift-release-dev/ocp-release:{}", text("tag")).parse().unwrap();
        let payload = Payload::read(&source, &name, Parts { boot_images: true, platform: None }).await.unwrap();
        assert_eq!(payload.digest().to_string(), text("digest"));
        assert_eq!((payload.version(), payload.architecture()), (text("version"), text("arch").as_str()));
        assert_eq!(payload.metadata.url(), release["url"].as_str());
        assert_eq!(serde_json::json!(payload.metadata.previous), release["previous"]);
        let mut wanted: Vec<(&str, &str)> = release["components"]
            .as_array()
            .unwrap()
            .iter()
            .map(|c| (c["name"].as_str().unwrap(), c["ref"].as_str().unwrap()))
            .collect();
        wanted.sort_unstable();
        let images: Vec<String> = payload.references.components.iter().map(|c| c.image.to_string()).collect();
        let found: Vec<(&str, &str)> =
            payload.references.components.iter().zip(&images).map(|(c, i)| (c.name.as_str(), i.as_str())).collect();
        assert_eq!(found, wanted);
        assert_eq!(serde_json::json!(payload.boot_images.unwrap().kubevirt), release["kubevirt"]);
    }
}
