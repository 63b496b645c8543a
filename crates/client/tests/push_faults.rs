//! Everything that can go wrong while pushing, and what the client makes of it.
#![allow(clippy::unwrap_used, reason = "a test fails by unwrapping")]

mod support;

use std::time::Duration;

use airlock_client::{Client, RegistrySink};
use airlock_oci::sink::ManifestName;
use airlock_oci::{Descriptor, Digest, Error, ErrorKind, Sink, Tag};
use airlock_testkit::fixture::{self, Blob, Built};
use airlock_testkit::scripted::{Auth, Behaviour, Fault, Registry};
use support::{Memory, Told, lying, options, repo, sink};

const SESSION: &str = "/v2/*/blobs/uploads/session*";
const BEGIN: &str = "/v2/*/blobs/uploads/";

fn with(behaviour: Behaviour) -> Registry {
    Registry::builder().behaviour(behaviour).start()
}

fn big() -> Blob {
    fixture::blob("application/octet-stream", fixture::random(3, 3_000_000))
}

async fn push(sink: &RegistrySink, blob: &Blob) -> Result<(), Error> {
    sink.write_blob(&repo("app"), &blob.descriptor, &Memory::of(blob)).await
}

async fn push_image(sink: &RegistrySink, repository: &str, image: &Built, tag: Option<&str>) -> Result<(), Error> {
    let tag = tag.map(|t| Tag::new(t).unwrap());
    for part in image.all() {
        for blob in &part.blobs {
            sink.write_blob(&repo(repository), &blob.descriptor, &Memory::of(blob)).await?;
        }
        let tag = tag.as_ref().filter(|_| part.digest() == image.digest());
        sink.put_manifest(&repo(repository), &part.manifest, tag).await?;
    }
    Ok(())
}

fn stored(registry: &Registry, blob: &Blob) -> bool {
    registry.content(|c| c.blob("app", &blob.descriptor.digest).is_some_and(|b| *b == blob.bytes))
}

#[tokio::test]
async fn images_indexes_and_empty_blobs_arrive_whole() {
    for absolute in [false, true] {
        let registry = with(Behaviour { absolute_locations: absolute, ..Behaviour::default() });
        let sink = sink(&registry);
        let images = [fixture::image(1).layers(&[0, 70_000]).build(), fixture::image(2).docker().build()];
        let index = fixture::index(&images).build();
        push_image(&sink, "team/app", &index, Some("v1")).await.unwrap();
        assert!(registry.has("team/app", &index));
        let at = ManifestName::Tag(Tag::new("v1").unwrap());
        assert_eq!(sink.head_manifest(&repo("team/app"), &at).await.unwrap().as_ref(), Some(index.digest()));
        assert_eq!(registry.content(|c| c.open_uploads()), 0);
    }
}

#[tokio::test]
async fn a_wrong_blob_is_never_completed() {
    let blob = big();
    for descriptor in [
        Descriptor { digest: Digest::of(b"other"), ..blob.descriptor.clone() },
        lying(&blob, 2_999_999),
        lying(&blob, 3_000_001),
        Descriptor::new("a/b", Digest::of(b"x"), 0),
    ] {
        // What was proved may have been damaged since.
        for proved in [false, true] {
            let registry = Registry::start();
            let sink = sink(&registry);
            let content = match descriptor.size {
                0 => Memory::new(bytes::Bytes::new(), 1),
                _ => Memory::of(&blob),
            };
            let content = if proved { content.proved() } else { content };
            let error = sink.write_blob(&repo("app"), &descriptor, &content).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Content, "{error}");
            assert!(
                error.to_string().contains("the bytes have the digest") || error.to_string().contains("the source")
            );
            assert!(!error.is_retryable());
            assert!(registry.content(
                |c| c.blob("app", &descriptor.digest).is_none() && c.blob("app", &blob.descriptor.digest).is_none()
            ));
            // The last piece was held back, or the registry's sum did not agree: no request with a digest ever was complete.
            let complete = registry.log().iter().any(|r| r.method == "PUT" && r.status == 201);
            assert!(!complete, "{:#?}", registry.log());
            assert_eq!(registry.content(|c| c.open_uploads()), 0, "the session was cancelled");
        }
    }
}

#[tokio::test]
async fn a_registry_that_finds_proved_bytes_wrong_gets_them_hashed() {
    let blob = big();
    let invalid = r#"{"errors":[{"code":"DIGEST_INVALID","message":"damaged on the way"}]}"#;
    for answer in [invalid, "no"] {
        let registry = Registry::start();
        registry.fault(Fault::on("PUT", SESSION).first(1).answer(400, &[], answer));
        let content = Memory::of(&blob).proved();
        sink(&registry).write_blob(&repo("app"), &blob.descriptor, &content).await.unwrap();
        assert!(stored(&registry, &blob));
    }
}

#[tokio::test]
async fn a_busy_registry_is_asked_again() {
    let blob = big();
    for status in [429, 500, 502, 503, 504] {
        for (method, path) in [("POST", BEGIN), ("PUT", SESSION)] {
            let registry = Registry::start();
            registry.fault(Fault::on(method, path).first(2).status(status));
            push(&sink(&registry), &blob).await.unwrap();
            assert!(stored(&registry, &blob), "{method} {status}");
        }
    }
}

#[tokio::test]
async fn transient_errors_of_a_head_do_not_cost_the_blob() {
    let registry = Registry::start();
    let image = fixture::image(1).build();
    registry.put("app", &image, None);
    registry.fault(Fault::on("HEAD", "/v2/*/blobs/*").first(2).status(500));
    assert!(sink(&registry).has_blob(&repo("app"), &image.blobs[1].descriptor).await.unwrap());
}

#[tokio::test]
async fn an_upload_that_broke_goes_on_from_the_registrys_offset() {
    let registry = Registry::start();
    let blob = big();
    registry.fault(Fault::on("PUT", SESSION).first(1).reset_upload_after(1_200_000));
    registry.fault(Fault::on("PATCH", SESSION).first(1).reset_upload_after(800_000));
    let told = Told::default();
    let client = Client::new(told.listen(options())).unwrap();
    let sink = RegistrySink::new(client, registry.registry(), None).unwrap();
    push(&sink, &blob).await.unwrap();
    assert!(stored(&registry, &blob));
    let sent: u64 = registry.log().iter().map(|r| r.received).sum();
    assert_eq!(sent, blob.descriptor.size, "no byte was sent twice: {:#?}", registry.log());
    let ranges: Vec<_> = registry.log().iter().filter_map(|r| r.header("content-range").map(str::to_owned)).collect();
    assert_eq!(ranges, ["1200000-2999999", "2000000-2999999"]);
    assert!(told.says("resuming at byte 1200000"), "{:?}", told.all());
}

#[tokio::test]
async fn proved_content_is_read_from_where_the_registry_goes_on() {
    let blob = big();
    for (proved, opened) in [(false, [0, 0]), (true, [0, 1_200_000])] {
        let registry = Registry::start();
        registry.fault(Fault::on("PUT", SESSION).first(1).reset_upload_after(1_200_000));
        let content = Memory::of(&blob);
        let content = if proved { content.proved() } else { content };
        sink(&registry).write_blob(&repo("app"), &blob.descriptor, &content).await.unwrap();
        assert!(stored(&registry, &blob));
        assert_eq!(*content.opened.lock().unwrap(), opened);
    }
}

#[tokio::test]
async fn a_lost_session_is_begun_anew() {
    for _ in 0..2 {
        let registry = Registry::start();
        let blob = big();
        registry.fault(Fault::on("PUT", SESSION).first(1).lose_session());
        push(&sink(&registry), &blob).await.unwrap();
        assert!(stored(&registry, &blob));
        assert_eq!(registry.count("POST", BEGIN), 2);
    }
    // 416 in the middle of a chunked upload.
    let registry = with(Behaviour { monolithic: false, ..Behaviour::default() });
    let blob = big();
    registry.fault(Fault::on("PATCH", SESSION).first(1).status(416));
    push(&sink(&registry), &blob).await.unwrap();
    assert!(stored(&registry, &blob));
}

#[tokio::test]
async fn a_lost_answer_to_the_last_request_is_not_sent_again() {
    let registry = Registry::start();
    let blob = big();
    registry.fault(Fault::on("PUT", SESSION).first(1).lose_answer());
    push(&sink(&registry), &blob).await.unwrap();
    assert!(stored(&registry, &blob));
    assert_eq!(registry.count("PUT", SESSION), 1);
}

#[tokio::test]
async fn a_registry_that_takes_no_whole_blob_gets_chunks() {
    let registry = with(Behaviour { monolithic: false, ..Behaviour::default() });
    let (first, second) = (big(), fixture::blob("a/b", fixture::random(4, 50_000)));
    let sink = sink(&registry);
    push(&sink, &first).await.unwrap();
    push(&sink, &second).await.unwrap();
    assert!(stored(&registry, &first) && stored(&registry, &second));
    // The second blob did not try in vain.
    assert_eq!(registry.log().iter().filter(|r| r.status == 405).count(), 1);
}

#[tokio::test]
async fn a_proxy_that_limits_requests_gets_smaller_chunks_without_reading_the_source_twice() {
    let registry = with(Behaviour { max_body: 1024 * 1024, ..Behaviour::default() });
    let blob = fixture::blob("a/b", fixture::random(5, 8_000_000));
    let content = Memory::of(&blob);
    sink(&registry).write_blob(&repo("app"), &blob.descriptor, &content).await.unwrap();
    assert!(stored(&registry, &blob));
    let accepted: u64 =
        registry.log().iter().filter(|r| r.method == "PATCH" && r.status == 202).map(|r| r.received).sum();
    assert_eq!(accepted, 8_000_000);
    // Once for each size that was refused, once for all chunks of the size that was taken.
    assert!(content.opened.lock().unwrap().len() <= 4, "{:?}", content.opened.lock().unwrap());
}

#[tokio::test]
async fn a_body_limit_below_every_chunk_is_explained() {
    let registry = with(Behaviour { max_body: 1000, ..Behaviour::default() });
    let error = push(&sink(&registry), &big()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Full);
    assert!(error.to_string().contains("413"), "{error}");
    assert!(error.hint_text().unwrap().contains("client_max_body_size"), "{error}");
}

#[tokio::test]
async fn a_full_registry_and_a_read_only_one_are_named() {
    let registry = with(Behaviour { full: true, ..Behaviour::default() });
    let error = push(&sink(&registry), &big()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Full);
    assert!(
        error.to_string().contains("507 Insufficient Storage") && error.to_string().contains("no space left"),
        "{error}"
    );
    assert!(error.hint_text().unwrap().contains("space"));
    assert_eq!(registry.content(|c| c.open_uploads()), 0);

    let registry = with(Behaviour { read_only: true, ..Behaviour::default() });
    let error = push(&sink(&registry), &big()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.to_string().contains("read-only"), "{error}");
}

#[tokio::test]
async fn a_registry_that_stops_taking_bytes_or_answering_is_noticed() {
    let registry = Registry::start();
    registry.fault(Fault::on("PUT", SESSION).first(1).delay(Duration::from_secs(300)));
    let mut options = options();
    options.timeouts.first_byte = Duration::from_secs(3);
    let sink = RegistrySink::new(Client::new(options).unwrap(), registry.registry(), None).unwrap();
    push(&sink, &big()).await.unwrap();
}

#[tokio::test]
async fn a_mount_is_done_or_its_session_is_used() {
    let image = fixture::image(1).build();
    let layer = &image.blobs[1];
    for mounts in [true, false] {
        let registry = with(Behaviour { mounts, ..Behaviour::default() });
        registry.put("base", &image, None);
        let sink = sink(&registry);
        assert_eq!(sink.mount_blob(&repo("app"), &layer.descriptor, &repo("base")).await.unwrap(), mounts);
        if !mounts {
            push(&sink, layer).await.unwrap();
            assert_eq!(registry.count("POST", BEGIN), 1, "the session that the mount opened was used");
        }
        assert!(stored(&registry, layer));
        assert_eq!(registry.content(|c| c.open_uploads()), 0);
    }
    let registry = Registry::start();
    registry.fault(Fault::on("POST", BEGIN).status(400));
    assert!(!sink(&registry).mount_blob(&repo("app"), &layer.descriptor, &repo("base")).await.unwrap());
}

#[tokio::test]
async fn a_mount_from_the_repository_itself_saves_the_look_where_the_registry_answers_it_truly() {
    for mounts in [true, false] {
        let registry = with(Behaviour { mounts, ..Behaviour::default() });
        let sink = sink(&registry);
        let looks = || registry.count("HEAD", "/v2/*/blobs/*");
        let blobs: Vec<_> = (0..40).map(|n| fixture::image(n).build().blobs.swap_remove(1)).collect();
        for blob in &blobs[..20] {
            assert!(!sink.offer_blob(&repo("app"), &blob.descriptor).await.unwrap());
            push(&sink, blob).await.unwrap();
        }
        let before = looks();
        for blob in &blobs[20..] {
            assert!(!sink.offer_blob(&repo("app"), &blob.descriptor).await.unwrap());
            push(&sink, blob).await.unwrap();
        }
        assert_eq!(looks() - before, if mounts { 0 } else { 20 });
        for blob in &blobs {
            assert!(stored(&registry, blob));
            assert!(sink.offer_blob(&repo("app"), &blob.descriptor).await.unwrap());
        }
        // A mount does not tell the size: a blob that the registry has cut short is written again.
        let other = fixture::image(50).build().blobs.swap_remove(1);
        assert!(!sink.offer_blob(&repo("app"), &other.descriptor).await.unwrap());
        let lying = airlock_oci::Descriptor { size: blobs[0].descriptor.size + 1, ..blobs[0].descriptor.clone() };
        assert!(!sink.offer_blob(&repo("app"), &lying).await.unwrap());
        push(&sink, &other).await.unwrap();
        assert_eq!(registry.content(|c| c.open_uploads()), 0);
    }
}

#[tokio::test]
async fn a_sparse_index_that_is_refused_names_the_setting() {
    let registry = with(Behaviour { sparse: false, ..Behaviour::default() });
    let children = [fixture::image(1).build()];
    let sparse = fixture::index(&children).absent(&[fixture::image(2).build()]).build();
    let sink = sink(&registry);
    let error = push_image(&sink, "app", &sparse, Some("v1")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.hint_text().unwrap().contains("validation.manifests.indexes.platforms: none"), "{error}");
    assert_eq!(sink.abilities().sparse_index, Some(false));
    assert!(registry.content(|c| c.manifest("app", "v1").is_none()));
}

#[tokio::test]
async fn concurrent_tag_pushes_may_look_like_wrong_digests() {
    let registry = Registry::start();
    registry.fault(Fault::on("PUT", "/v2/*/manifests/*").first(2).answer(
        400,
        &[],
        r#"{"errors":[{"code":"DIGEST_INVALID","message":"provided digest did not match uploaded content"}]}"#,
    ));
    let image = fixture::image(1).build();
    push_image(&sink(&registry), "app", &image, Some("v1")).await.unwrap();
    assert!(registry.has("app", &image));
}

#[tokio::test]
async fn a_referrer_gets_its_fallback_tag_only_where_there_is_no_api() {
    for api in [true, false] {
        let registry = with(Behaviour { referrers: api, ..Behaviour::default() });
        let image = fixture::image(1).build();
        let sink = sink(&registry);
        push_image(&sink, "app", &image, Some("v1")).await.unwrap();
        let referrers: Vec<Built> = (2..6)
            .map(|n| fixture::artifact(n, "application/x").annotation("n", &n.to_string()).subject(&image).build())
            .collect();
        let pushes = referrers.iter().map(|r| push_image(&sink, "app", r, None));
        for result in futures_util::future::join_all(pushes).await {
            result.unwrap();
        }
        // Twice is once.
        push_image(&sink, "app", &referrers[0], None).await.unwrap();
        assert_eq!(sink.abilities().referrers, api);
        let tag = image.digest().fallback_tag();
        let entries = registry.content(|c| c.manifest("app", &tag).map(|m| m.children().to_vec()));
        if api {
            assert!(entries.is_none());
        } else {
            let entries = entries.unwrap();
            assert_eq!(entries.len(), 4);
            for referrer in &referrers {
                let entry = entries.iter().find(|e| e.digest == *referrer.digest()).unwrap();
                assert_eq!(entry.artifact_type.as_deref(), Some("application/x"));
                assert!(entry.annotations.contains_key("n"));
            }
        }
    }
}

#[tokio::test]
async fn an_image_stored_under_its_own_fallback_tag_is_never_altered() {
    let registry = with(Behaviour { referrers: false, ..Behaviour::default() });
    let image = fixture::index(&[fixture::image(1).platform("linux/amd64").build()]).build();
    let tag = image.digest().fallback_tag();
    let sink = sink(&registry);
    push_image(&sink, "app", &image, Some(&tag)).await.unwrap();
    let referrer = fixture::artifact(2, "application/x").subject(&image).build();
    push_image(&sink, "app", &referrer, None).await.unwrap();
    assert!(registry.has("app", &referrer));
    let kept = registry.content(|c| c.manifest("app", &tag).map(|m| m.digest().clone()));
    assert_eq!(kept.as_ref(), Some(image.digest()));
}

#[tokio::test]
async fn deletion_that_is_switched_off_says_so() {
    let image = fixture::image(1).build();
    let tag = ManifestName::Tag(Tag::new("v1").unwrap());
    let digest = ManifestName::Digest(image.digest().clone());
    for (deletes, deletes_tags, at, hint) in [
        (false, false, &digest, Some("storage.delete.enabled")),
        (true, false, &tag, Some("by its digest")),
        (true, true, &tag, None),
        (true, true, &digest, None),
    ] {
        let registry = with(Behaviour { deletes, deletes_tags, ..Behaviour::default() });
        registry.put("app", &image, Some("v1"));
        let sink = sink(&registry);
        let result = sink.delete_manifest(&repo("app"), at).await;
        match hint {
            Some(hint) => {
                let error = result.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Refused);
                assert!(error.hint_text().unwrap().contains(hint), "{error}");
            }
            None => {
                result.unwrap();
                assert!(registry.content(|c| c.manifest("app", "v1").is_none()));
            }
        }
    }
}

#[tokio::test]
async fn sha512_manifests_are_put_under_their_own_digest() {
    let registry = Registry::start();
    let image = fixture::image(1).sha512().build();
    push_image(&sink(&registry), "app", &image, None).await.unwrap();
    assert!(registry.has("app", &image));
    assert!(image.digest().to_string().starts_with("sha512:"));
}

#[tokio::test]
async fn a_probe_finds_limits_and_leaves_nothing() {
    let registry = Registry::start();
    let name = repo("a/b/c/d");
    let probe = sink(&registry).probe(&name).await.unwrap();
    assert!(probe.refusals().is_empty(), "{probe:?}");
    assert_eq!(probe.referrers, Some(true));
    assert_eq!(registry.content(|c| (c.open_uploads(), c.repositories().len())), (0, 0));

    registry.fault(Fault::on("POST", BEGIN).answer(
        404,
        &[],
        r#"{"errors":[{"code":"NAME_INVALID","message":"invalid"}]}"#,
    ));
    let probe = sink(&registry).probe(&name).await.unwrap();
    let refusal = probe.push.refusal().unwrap();
    assert!(refusal.hint_text().unwrap().contains("--max-nested-paths"), "{refusal}");

    registry.heal();
    registry.set_auth(Auth::basic("me", "pw"));
    let error = sink(&registry).probe(&name).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized);
    assert!(error.to_string().contains("failed to authenticate: pinging container registry"), "{error}");
    let address = registry.registry();
    drop(registry);
    let gone = RegistrySink::new(support::client(), address, None).unwrap();
    let error = gone.probe(&name).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Network);
    assert!(
        error.to_string().contains("pinging container registry") && error.to_string().contains("onnection refused"),
        "{error}"
    );
}
