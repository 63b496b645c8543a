//! Everything that can go wrong while pulling, and what the client makes of it.
#![allow(clippy::unwrap_used, reason = "a test fails by unwrapping")]

mod support;

use std::time::{Duration, Instant};

use airlock_client::{Client, Options, RegistrySource};
use airlock_oci::{Error, ErrorKind, Source};
use airlock_testkit::fixture::{self, Built};
use airlock_testkit::scripted::{Behaviour, Fault, Registry};
use bytes::Bytes;
use support::{Told, layers, lying, options, read, source};

const MANIFEST: &str = "/v2/*/manifests/*";
const BLOB: &str = "/v2/*/blobs/*";

fn upstream() -> (Registry, Built) {
    let registry = Registry::start();
    let image = fixture::image(1).layers(&[300_000, 2_500_000]).build();
    registry.put("team/app", &image, Some("v1"));
    (registry, image)
}

async fn pull_blob(source: &RegistrySource, registry: &Registry, image: &Built, layer: usize) -> Result<Bytes, Error> {
    let name = registry.reference("team/app:v1");
    read(source.blob(&name, &layers(image)[layer].descriptor, 0, None).await?).await
}

fn told() -> (Told, RegistrySource) {
    let told = Told::default();
    let source = RegistrySource::new(Client::new(told.listen(options())).unwrap());
    (told, source)
}

#[tokio::test]
async fn a_busy_registry_is_asked_again_and_the_user_is_told() {
    for status in [429, 500, 502, 503, 504] {
        let (registry, image) = upstream();
        registry.fault(Fault::on("GET", MANIFEST).first(3).status(status));
        let (told, source) = told();
        let found = source.manifest(&registry.reference("team/app:v1")).await.unwrap();
        assert_eq!(found.value.bytes(), image.manifest.bytes());
        assert_eq!(found.place.0, format!("{}/team/app", registry.address()));
        assert!(told.says(&format!("registry answered {status}")), "{:?}", told.all());
        assert!(told.says("try 3 of 4"), "{:?}", told.all());
    }
}

#[tokio::test]
async fn after_the_last_try_the_error_says_status_message_and_that_it_may_pass() {
    let (registry, _) = upstream();
    registry.fault(Fault::on("GET", MANIFEST).status(503));
    let error = source().manifest(&registry.reference("team/app:v1")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Server);
    assert!(error.is_retryable());
    let text = error.to_string();
    assert!(text.contains("pull manifest") && text.contains(&registry.address()), "{text}");
    assert!(text.contains("503 Service Unavailable") && text.contains("scripted"), "{text}");
    assert_eq!(registry.count("GET", MANIFEST), 4);
}

#[tokio::test]
async fn retry_after_is_obeyed_in_seconds_and_capped() {
    let (registry, _) = upstream();
    registry.fault(Fault::on("GET", MANIFEST).first(1).too_many_requests("1"));
    let (told, source) = told();
    let started = Instant::now();
    source.manifest(&registry.reference("team/app:v1")).await.unwrap();
    assert!(started.elapsed() >= Duration::from_secs(1), "{:?}", started.elapsed());
    assert!(told.says("asks to wait"), "{:?}", told.all());

    registry.heal();
    registry.fault(Fault::on("GET", MANIFEST).first(1).too_many_requests("86400"));
    let options = Options { max_retry_after: Duration::from_millis(50), ..options() };
    let source = RegistrySource::new(Client::new(options).unwrap());
    source.manifest(&registry.reference("team/app:v1")).await.unwrap();
}

#[tokio::test]
async fn statuses_that_will_not_change_are_final() {
    for (status, kind) in [
        (401, ErrorKind::Unauthorized),
        (403, ErrorKind::Denied),
        (404, ErrorKind::NotFound),
        (400, ErrorKind::Refused),
    ] {
        let (registry, _) = upstream();
        registry.fault(Fault::on("GET", MANIFEST).status(status));
        let error = source().manifest(&registry.reference("team/app:v1")).await.unwrap_err();
        assert_eq!(error.kind(), kind);
        assert!(!error.is_retryable());
        assert_eq!(registry.count("GET", MANIFEST), 1, "{status}");
    }
}

#[tokio::test]
async fn a_missing_tag_is_not_found_with_the_registrys_words() {
    let (registry, _) = upstream();
    let error = source().manifest(&registry.reference("team/app:nope")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("manifest unknown"), "{error}");
    let error = source().resolve(&registry.reference("team/app:nope")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_cut_body_goes_on_at_the_exact_byte() {
    let (registry, image) = upstream();
    registry.fault(Fault::on("GET", BLOB).nth(1).reset_after(1_000_000));
    registry.fault(Fault::on("GET", BLOB).nth(2).truncate_after(500_001));
    let (told, source) = told();
    let bytes = pull_blob(&source, &registry, &image, 1).await.unwrap();
    assert_eq!(bytes, layers(&image)[1].bytes);
    assert_eq!(registry.fetched_twice(), [], "{:#?}", registry.log());
    let ranges: Vec<_> = registry.log().iter().filter_map(|r| r.header("range").map(str::to_owned)).collect();
    assert_eq!(ranges.last().map(String::as_str), Some("bytes=1500001-"));
    assert!(told.says("resuming at byte"), "{:?}", told.all());
}

#[tokio::test]
async fn a_server_that_ignores_ranges_costs_bytes_but_not_the_blob() {
    let (registry, image) = upstream();
    registry.fault(Fault::on("GET", BLOB).nth(1).truncate_after(1_000_000));
    registry.fault(Fault::on("GET", BLOB).since(1).ignore_range());
    let bytes = pull_blob(&source(), &registry, &image, 1).await.unwrap();
    assert_eq!(bytes, layers(&image)[1].bytes);
}

#[tokio::test]
async fn a_blob_that_never_comes_through_is_a_network_error_with_its_place() {
    let (registry, image) = upstream();
    registry.fault(Fault::on("GET", BLOB).reset_after(1000));
    let error = pull_blob(&source(), &registry, &image, 1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Network);
    assert!(error.is_retryable());
    assert!(error.to_string().contains("connection broke"), "{error}");
    assert!(error.to_string().contains(&layers(&image)[1].descriptor.digest.to_string()), "{error}");
}

#[tokio::test]
async fn a_stalled_body_is_noticed_and_resumed() {
    let (registry, image) = upstream();
    registry.fault(Fault::on("GET", BLOB).first(1).stall_after(100_000, Duration::from_secs(300)));
    let told = Told::default();
    let mut options = told.listen(options());
    options.timeouts.stall = Duration::from_secs(1);
    let source = RegistrySource::new(Client::new(options).unwrap());
    let bytes = pull_blob(&source, &registry, &image, 0).await.unwrap();
    assert_eq!(bytes, layers(&image)[0].bytes);
    assert!(told.says("stalled: no byte for 1 s"), "{:?}", told.all());
}

#[tokio::test]
async fn a_silent_registry_times_out() {
    let (registry, _) = upstream();
    registry.fault(Fault::on("GET", MANIFEST).delay(Duration::from_secs(300)));
    let mut options = Options { retry_times: 0, ..options() };
    options.timeouts.connect = Duration::from_secs(2);
    options.timeouts.first_byte = Duration::from_secs(2);
    let source = RegistrySource::new(Client::new(options).unwrap());
    let error = source.manifest(&registry.reference("team/app:v1")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Network);
    assert!(error.to_string().contains("gave no answer within"), "{error}");
}

#[tokio::test]
async fn wrong_bytes_of_a_manifest_are_found_by_digest_and_by_the_registrys_own_header() {
    let (registry, image) = upstream();
    registry.fault(Fault::on("GET", MANIFEST).wrong_bytes());
    for name in ["team/app:v1".to_owned(), format!("team/app@{}", image.digest())] {
        let error = source().manifest(&registry.reference(&name)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Content, "{name}: {error}");
        assert!(error.to_string().contains("digest"), "{error}");
        assert!(!error.is_retryable());
    }
    assert_eq!(registry.count("GET", MANIFEST), 2);
}

#[tokio::test]
async fn a_missing_digest_header_is_made_up_for() {
    let (registry, image) = upstream();
    registry.fault(Fault::on("*", MANIFEST).without_header("Docker-Content-Digest"));
    let name = registry.reference("team/app:v1");
    assert_eq!(source().manifest(&name).await.unwrap().value.digest(), image.digest());
    assert_eq!(source().resolve(&name).await.unwrap().value, *image.digest());
}

#[tokio::test]
async fn a_registry_without_head_is_asked_by_get() {
    let (registry, image) = upstream();
    registry.fault(Fault::on("HEAD", MANIFEST).status(405));
    assert_eq!(source().resolve(&registry.reference("team/app:v1")).await.unwrap().value, *image.digest());
}

#[tokio::test]
async fn a_cut_manifest_is_fetched_again() {
    let (registry, image) = upstream();
    registry.fault(Fault::on("GET", MANIFEST).first(2).truncate_after(10));
    let found = source().manifest(&registry.reference("team/app:v1")).await.unwrap();
    assert_eq!(found.value.digest(), image.digest());
}

#[tokio::test]
async fn a_blob_of_another_length_is_wrong_content() {
    for by in [-1, 7] {
        let (registry, image) = upstream();
        registry.fault(Fault::on("GET", BLOB).wrong_length(by));
        let error = pull_blob(&source(), &registry, &image, 0).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Content, "{by}: {error}");
        assert!(error.to_string().contains(&format!("{} bytes", 300_000 + by)), "{error}");
        assert_eq!(registry.count("GET", BLOB), 1);
    }
    // A manifest that names more or less than there is.
    let (registry, image) = upstream();
    let name = registry.reference("team/app:v1");
    for size in [299_999, 300_001] {
        let Err(error) = source().blob(&name, &lying(&layers(&image)[0], size), 10, None).await else {
            panic!("a wrong size was believed")
        };
        assert_eq!(error.kind(), ErrorKind::Content, "{error}");
    }
}

#[tokio::test]
async fn a_huge_manifest_is_refused_before_it_is_in_memory() {
    let (registry, _) = upstream();
    registry.fault(Fault::on("GET", MANIFEST).wrong_length(5 * 1024 * 1024));
    let error = source().manifest(&registry.reference("team/app:v1")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("4194304"), "{error}");
}

#[tokio::test]
async fn a_redirect_is_followed_without_the_credentials() {
    let storage = Registry::start();
    let (registry, image) = upstream();
    storage.put("cdn", &image, None);
    let layer = &layers(&image)[0];
    let to = format!("{}/v2/cdn/blobs/{}?sig=secret", storage.url(), layer.descriptor.digest);
    registry.fault(Fault::on("GET", BLOB).redirect(&to));
    registry.set_auth(airlock_testkit::scripted::Auth::basic("me", "pw"));
    let mut options = options();
    options.anonymous = false;
    options.credentials = vec![airlock_client::HostCredentials {
        host: registry.address(),
        username: "me".into(),
        password: airlock_client::Secret::new("pw"),
    }];
    let source = RegistrySource::new(Client::new(options).unwrap());
    let name = registry.reference("team/app:v1");
    source.manifest(&name).await.unwrap();
    let bytes = read(source.blob(&name, &layer.descriptor, 0, None).await.unwrap()).await.unwrap();
    assert_eq!(bytes, layer.bytes);
    assert!(registry.log().iter().any(|r| r.authorization().is_some()));
    assert_eq!(storage.count("GET", "/v2/cdn/*"), 1);
    assert!(storage.log().iter().all(|r| r.authorization().is_none()));
}

#[tokio::test]
async fn a_circle_of_redirects_ends() {
    let (registry, image) = upstream();
    let digest = &layers(&image)[0].descriptor.digest;
    registry.fault(Fault::on("GET", BLOB).redirect(&format!("/v2/team/app/blobs/{digest}")));
    let error = pull_blob(&source(), &registry, &image, 0).await.unwrap_err();
    assert!(error.to_string().contains("redirects more than 10 times"), "{error}");
}

#[tokio::test]
async fn blobs_are_looked_up_and_empty_ones_need_no_request() {
    let (registry, image) = upstream();
    let name = registry.reference("team/app:v1");
    let there = &layers(&image)[0].descriptor;
    let absent = fixture::blob("a/b", "absent").descriptor;
    assert!(source().has_blob(&name, there, None).await.unwrap());
    assert!(!source().has_blob(&name, &absent, None).await.unwrap());
    let end = read(source().blob(&name, there, there.size, None).await.unwrap()).await.unwrap();
    assert!(end.is_empty());
    let Err(error) = source().blob(&name, &absent, 0, None).await else { panic!("an absent blob was found") };
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn tags_come_in_pages_and_without() {
    let (registry, image) = upstream();
    for n in 0..25 {
        registry.put("team/app", &image, Some(&format!("t{n:02}")));
    }
    for page in [1, 7, 0] {
        registry.behave(|b| b.page = page);
        registry.clear_log();
        let tags = source().tags(&registry.reference("team/app")).await.unwrap();
        assert_eq!(tags.len(), 26);
        assert!(tags.is_sorted());
        assert_eq!(registry.log().len(), if page == 0 { 1 } else { 26_usize.div_ceil(page) });
    }
    let error = source().tags(&registry.reference("no/such")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    registry.put("other", &image, None);
    registry.behave(|b| b.page = 1);
    let all = support::client().catalog(&registry.registry()).await.unwrap();
    assert_eq!(all.iter().map(ToString::to_string).collect::<Vec<_>>(), ["other", "team/app"]);
}

#[tokio::test]
async fn referrers_are_found_by_the_api_or_by_the_tag_after_one_probe() {
    for api in [true, false] {
        let registry = Registry::builder().behaviour(Behaviour { referrers: api, ..Behaviour::default() }).start();
        let image = fixture::image(1).build();
        let sbom = fixture::artifact(2, "application/spdx").annotation("a", "b").subject(&image).build();
        registry.put("app", &image, Some("v1"));
        registry.put("app", &sbom, None);
        if !api {
            let index = fixture::index(std::slice::from_ref(&sbom)).build();
            registry.put("app", &index, Some(&image.digest().fallback_tag()));
        }
        let source = source();
        let name = registry.reference("app:v1");
        for _ in 0..2 {
            let list = source.referrers(&name, image.digest(), None).await.unwrap();
            assert_eq!(list.len(), 1, "api {api}");
            assert_eq!(list[0].digest, *sbom.digest());
        }
        assert_eq!(registry.count("GET", "/v2/app/referrers/*"), if api { 2 } else { 1 });
        assert!(source.referrers(&name, sbom.digest(), None).await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_host_that_is_overloaded_is_asked_less_at_once_and_everything_arrives() {
    let registry = Registry::start();
    let images: Vec<Built> = (1..40).map(|seed| fixture::image(seed).layers(&[50_000]).build()).collect();
    for (n, image) in images.iter().enumerate() {
        registry.put("team/app", image, Some(&format!("v{n}")));
    }
    registry.fault(Fault::on("GET", MANIFEST).first(10).too_many_requests("0"));
    registry.fault(Fault::on("GET", BLOB).first(5).status(503));
    let source = RegistrySource::new(Client::new(Options { requests_per_host: 4, ..options() }).unwrap());
    let pulls = images.iter().enumerate().map(|(n, image)| {
        let (source, name) = (source.clone(), registry.reference(&format!("team/app:v{n}")));
        async move {
            source.manifest(&name).await?;
            read(source.blob(&name, &layers(image)[0].descriptor, 0, None).await?).await
        }
    });
    for (result, image) in futures_util::future::join_all(pulls).await.into_iter().zip(&images) {
        assert_eq!(result.unwrap(), layers(image)[0].bytes);
    }
    assert_eq!(registry.fetched_twice(), []);
}
