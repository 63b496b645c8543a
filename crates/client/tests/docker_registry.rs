//! Against Debian's docker-registry 2.8.2: round trips, Basic authentication, TLS, and the limits that it has.
#![allow(clippy::unwrap_used, reason = "a test fails by unwrapping")]

mod support;

use airlock_client::{Client, HostCredentials, Options, RegistrySink, RegistrySource, Secret};
use airlock_oci::sink::ManifestName;
use airlock_oci::{Error, ErrorKind, Reference, Registry, Sink, Source, Tag};
use airlock_testkit::fixture::{self, Built};
use airlock_testkit::target::{Access, Program, Target};
use support::{Cutter, Memory, options, read, repo};

fn name(target: &Target, rest: &str) -> Reference {
    format!("{}/{rest}", target.address()).parse().unwrap()
}

fn sink_at(target: &Target, options: Options) -> RegistrySink {
    let registry = Registry::new(target.address()).unwrap();
    RegistrySink::new(Client::new(options).unwrap(), registry, Some(repo("ns"))).unwrap()
}

async fn push(sink: &RegistrySink, repository: &str, image: &Built, tag: &str) -> Result<(), Error> {
    let tag = Tag::new(tag).unwrap();
    for part in image.all() {
        for blob in &part.blobs {
            if !sink.has_blob(&repo(repository), &blob.descriptor).await? {
                sink.write_blob(&repo(repository), &blob.descriptor, &Memory::of(blob)).await?;
            }
        }
        let tag = Some(&tag).filter(|_| part.digest() == image.digest());
        sink.put_manifest(&repo(repository), &part.manifest, tag).await?;
    }
    Ok(())
}

/// Pulls everything and compares it.
async fn check(source: &RegistrySource, name: &Reference, image: &Built) {
    let found = source.manifest(name).await.unwrap();
    assert_eq!(found.value.bytes(), image.manifest.bytes());
    for part in image.all() {
        let by_digest = name.with_digest(part.digest().clone());
        assert_eq!(source.manifest(&by_digest).await.unwrap().value.bytes(), part.manifest.bytes());
        for blob in &part.blobs {
            let size = blob.descriptor.size;
            for offset in [0, 1.min(size), size / 2, size] {
                let stream = source.blob(name, &blob.descriptor, offset, Some(&found.place)).await.unwrap();
                assert_eq!(read(stream).await.unwrap(), blob.bytes.slice(offset as usize..));
            }
        }
    }
}

fn index() -> Built {
    let images = [
        fixture::image(1).layers(&[3_000_001, 0]).platform("linux/amd64").build(),
        fixture::image(2).layers(&[10_000]).docker().platform("linux/arm64").build(),
    ];
    fixture::index(&images).build()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_comes_back_as_it_was_pushed() {
    let Some(target) = Target::docker_registry() else { return };
    let sink = sink_at(&target, options());
    let index = index();
    push(&sink, "team/app", &index, "v1").await.unwrap();
    let source = RegistrySource::new(sink.client().clone());
    check(&source, &name(&target, "ns/team/app:v1"), &index).await;
    assert_eq!(source.tags(&name(&target, "ns/team/app")).await.unwrap(), [Tag::new("v1").unwrap()]);
    let layer = &index.children[0].blobs[1].descriptor;
    assert!(sink.mount_blob(&repo("team/other"), layer, &repo("team/app")).await.unwrap());
    let unknown = fixture::blob("a/b", "unknown");
    assert!(!sink.mount_blob(&repo("team/other"), &unknown.descriptor, &repo("team/app")).await.unwrap());
    sink.write_blob(&repo("team/other"), &unknown.descriptor, &Memory::of(&unknown)).await.unwrap();
    let all = sink.client().catalog(sink.registry()).await.unwrap();
    assert!(all.contains(&repo("ns/team/app")), "{all:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_images_that_share_blobs_are_pushed_at_once() {
    let Some(target) = Target::docker_registry() else { return };
    let sink = sink_at(&target, options());
    let shared = vec![fixture::blob("a/layer", fixture::random(9, 200_000))];
    let images: Vec<Built> =
        (10..40).map(|seed| fixture::image(seed).given(shared.clone()).layers(&[5000]).build()).collect();
    let tags: Vec<String> = (0..images.len()).map(|n| format!("t{n}")).collect();
    let pushes = images.iter().zip(&tags).map(|(image, tag)| push(&sink, "shared", image, tag));
    for result in futures_util::future::join_all(pushes).await {
        result.unwrap();
    }
    let source = RegistrySource::new(sink.client().clone());
    for (image, tag) in images.iter().zip(&tags) {
        check(&source, &name(&target, &format!("ns/shared:{tag}")), image).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_that_are_cut_again_and_again_arrive() {
    let Some(target) = Target::docker_registry() else { return };
    let cutter = Cutter::before(target.address(), vec![2_000_000, 3_000_000, 900_000]);
    let registry = Registry::new(&cutter.address).unwrap();
    let sink = RegistrySink::new(Client::new(options()).unwrap(), registry, Some(repo("ns"))).unwrap();
    let image = fixture::image(1).layers(&[5_000_000]).build();
    push(&sink, "app", &image, "v1").await.unwrap();
    check(&RegistrySource::new(sink.client().clone()), &name(&target, "ns/app:v1"), &image).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn basic_authentication_over_tls_with_the_certificate_in_certs_d() {
    let access = Access { user: Some(("me".into(), "pw".into())), tls: true };
    let Some(target) = Target::start(Program::DockerRegistry2, access) else { return };
    let dir = tempfile::tempdir().unwrap();
    let host = dir.path().join(target.address());
    std::fs::create_dir(&host).unwrap();
    std::fs::copy(target.certificate().unwrap(), host.join("ca.crt")).unwrap();
    let trusting =
        Options { tls_verify: true, retry_times: 0, certs_d: Some(vec![dir.path().to_owned()]), ..options() };
    let error = sink_at(&target, trusting.clone()).probe(&repo("app")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized);
    assert!(error.to_string().contains("failed to authenticate: pinging container registry"), "{error}");
    let credentials =
        vec![HostCredentials { host: target.address().to_owned(), username: "me".into(), password: Secret::new("pw") }];
    let options = Options { anonymous: false, credentials, ..trusting };
    let sink = sink_at(&target, options);
    assert!(sink.probe(&repo("app")).await.unwrap().refusals().is_empty());
    let index = index();
    push(&sink, "app", &index, "v1").await.unwrap();
    check(&RegistrySource::new(sink.client().clone()), &name(&target, "ns/app:v1"), &index).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn its_limits_are_recognised() {
    let Some(target) = Target::docker_registry() else { return };
    let sink = sink_at(&target, options());
    let child = fixture::image(1).build();
    let sparse = fixture::index(std::slice::from_ref(&child)).absent(&[fixture::image(2).build()]).build();
    let error = push(&sink, "app", &sparse, "v1").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    assert!(error.hint_text().unwrap().contains("sparse"), "{error}");

    // No referrers API: the fallback tag is written, and read.
    let referrer = fixture::artifact(3, "application/x").subject(&child).build();
    push(&sink, "app", &referrer, "sbom").await.unwrap();
    assert!(!sink.abilities().referrers);
    let source = RegistrySource::new(sink.client().clone());
    let list = source.referrers(&name(&target, "ns/app:v1"), child.digest(), None).await.unwrap();
    assert_eq!(list.iter().map(|d| &d.digest).collect::<Vec<_>>(), [referrer.digest()]);

    let probe = sink.probe(&repo("app/deep/er")).await.unwrap();
    assert!(probe.refusals().is_empty(), "{probe:?}");
    assert_eq!(probe.referrers, Some(false));

    let tag = ManifestName::Tag(Tag::new("sbom").unwrap());
    let error = sink.delete_manifest(&repo("app"), &tag).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    sink.delete_manifest(&repo("app"), &ManifestName::Digest(child.digest().clone())).await.unwrap();
    assert!(sink.head_manifest(&repo("app"), &ManifestName::Digest(child.digest().clone())).await.unwrap().is_none());
}
