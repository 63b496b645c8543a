//! A round trip through Debian's docker-registry 2.8.2.

mod support;

use airlock_client::{Client, RegistrySink, RegistrySource};
use airlock_oci::sink::ManifestName;
use airlock_oci::{Descriptor, Digest, Manifest, Repository, Sink, Source, Tag};
use bytes::Bytes;
use support::{Memory, docker_registry, options, read};

fn bytes_of(len: usize, seed: u32) -> Bytes {
    let mut x = seed | 1;
    let mut v = Vec::with_capacity(len);
    for _ in 0..len {
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        v.push(x as u8);
    }
    v.into()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_comes_back_as_it_was_pushed() {
    let Some(registry) = docker_registry("") else { return };
    let mut options = options();
    options.tls_verify = false;
    let client = Client::new(options).unwrap();
    let sink = RegistrySink::new(client.clone(), registry.name(), Some(Repository::new("ns").unwrap())).unwrap();
    let repo = Repository::new("team/app").unwrap();
    let layer = bytes_of(3_000_001, 7);
    let config = Bytes::from_static(b"{}");
    let blob = |b: &Bytes| Descriptor::new("application/octet-stream", Digest::of(b), b.len() as u64);
    for content in [&layer, &config, &Bytes::new()] {
        let descriptor = blob(content);
        assert!(!sink.has_blob(&repo, &descriptor).await.unwrap());
        sink.write_blob(&repo, &descriptor, &Memory::new(content.clone(), 100_000)).await.unwrap();
        assert!(sink.has_blob(&repo, &descriptor).await.unwrap());
    }
    let other = Repository::new("team/other").unwrap();
    assert!(sink.mount_blob(&other, &blob(&layer), &repo).await.unwrap());
    let unknown = blob(&bytes_of(10, 9));
    assert!(!sink.mount_blob(&other, &unknown, &repo).await.unwrap());
    sink.write_blob(&other, &unknown, &Memory::new(bytes_of(10, 9), 3)).await.unwrap();
    let text = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{},"layers":[{}]}}"#,
        serde_json::to_string(&blob(&config)).unwrap(),
        serde_json::to_string(&blob(&layer)).unwrap()
    );
    let manifest = Manifest::parse(text.into(), None).unwrap();
    let tag = Tag::new("v1").unwrap();
    sink.put_manifest(&repo, &manifest, Some(&tag)).await.unwrap();
    assert_eq!(
        sink.head_manifest(&repo, &ManifestName::Tag(tag.clone())).await.unwrap().as_ref(),
        Some(manifest.digest())
    );
    let source = RegistrySource::new(client.clone());
    let name: airlock_oci::Reference = format!("{}/ns/team/app:v1", registry.name()).parse().unwrap();
    let found = source.manifest(&name).await.unwrap();
    assert_eq!(found.value.bytes(), manifest.bytes());
    assert_eq!(source.resolve(&name).await.unwrap().value, *manifest.digest());
    assert_eq!(source.tags(&name).await.unwrap(), [tag]);
    for offset in [0, 1, 2_999_999, 3_000_001] {
        let stream = source.blob(&name, &blob(&layer), offset, Some(&found.place)).await.unwrap();
        assert_eq!(read(stream).await.unwrap(), layer.slice(offset as usize..));
    }
    let all: Vec<String> = client.catalog(&registry.name()).await.unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(all, ["ns/team/app", "ns/team/other"]);
}
