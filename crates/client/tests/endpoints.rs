//! `registries.conf`: which endpoints are asked, in which order, and what moves on to the next.
#![allow(clippy::unwrap_used, reason = "a test fails by unwrapping")]

mod support;

use airlock_client::{Client, Options, RegistriesConf, RegistrySink, RegistrySource};
use airlock_oci::{ErrorKind, Place, Sink, Source};
use airlock_testkit::fixture::{self, Built};
use airlock_testkit::scripted::{Auth, Fault, Registry};
use support::{Told, options, read, repo};

struct Setup {
    mirrors: Vec<Registry>,
    image: Built,
    told: Told,
    source: RegistrySource,
}

/// A source `quay.example/team` that cannot be reached, with mirrors; each gets the lines that stand here.
fn setup(count: usize, more: &[&str]) -> Setup {
    let mirrors: Vec<Registry> = (0..count).map(|_| Registry::start()).collect();
    let mut text =
        "[[registry]]\nprefix = \"quay.example/team\"\nlocation = \"127.0.0.1:1/team\"\ninsecure = true\n".to_owned();
    for (n, mirror) in mirrors.iter().enumerate() {
        text += &format!("[[registry.mirror]]\nlocation = \"{}/m\"\ninsecure = true\n", mirror.address());
        text += more.get(n).unwrap_or(&"");
        text += "\n";
    }
    let told = Told::default();
    let client = Client::new(told.listen(configured(&text))).unwrap();
    let image = fixture::image(1).layers(&[2_000_000]).build();
    Setup { mirrors, image, told, source: RegistrySource::new(client) }
}

fn configured(text: &str) -> Options {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("registries.conf");
    std::fs::write(&path, text).unwrap();
    let dropins = Some(dir.path().join("none"));
    // The file is read by Client::new; the folder may stay until the test ends.
    let _ = dir.keep();
    Options { tls_verify: true, registries_conf: RegistriesConf::File { path, dropins }, ..options() }
}

fn name() -> airlock_oci::Reference {
    "quay.example/team/app:v1".parse().unwrap()
}

#[tokio::test]
async fn the_first_mirror_that_has_it_serves_it_and_its_blobs() {
    let setup = setup(2, &[]);
    for mirror in &setup.mirrors {
        mirror.put("m/app", &setup.image, Some("v1"));
    }
    let found = setup.source.manifest(&name()).await.unwrap();
    assert_eq!(found.place, Place(format!("{}/m/app", setup.mirrors[0].address())));
    let layer = &setup.image.blobs[1];
    read(setup.source.blob(&name(), &layer.descriptor, 0, Some(&found.place)).await.unwrap()).await.unwrap();
    assert!(setup.mirrors[1].log().is_empty());
}

#[tokio::test]
async fn refusals_and_failures_go_on_to_the_next_and_are_told() {
    for status in [401, 403, 404, 500, 503] {
        let setup = setup(2, &[]);
        setup.mirrors[0].fault(Fault::on("*", "*").status(status));
        setup.mirrors[1].put("m/app", &setup.image, Some("v1"));
        let found = setup.source.manifest(&name()).await.unwrap();
        assert_eq!(found.place, Place(format!("{}/m/app", setup.mirrors[1].address())));
        assert!(setup.told.says(&format!("skipped: registry answered {status}")), "{:?}", setup.told.all());
    }
}

#[tokio::test]
async fn wrong_content_does_not_go_on() {
    let setup = setup(2, &[]);
    for mirror in &setup.mirrors {
        mirror.put("m/app", &setup.image, Some("v1"));
    }
    setup.mirrors[0].fault(Fault::on("GET", "/v2/*/manifests/*").wrong_bytes());
    let error = setup.source.manifest(&name()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Content);
    assert!(setup.mirrors[1].log().is_empty());
}

#[tokio::test]
async fn all_attempts_are_in_the_error() {
    let setup = setup(3, &[]);
    setup.mirrors[0].fault(Fault::on("*", "*").status(403));
    setup.mirrors[2].set_auth(Auth::basic("a", "b"));
    let error = setup.source.manifest(&name()).await.unwrap_err();
    let tried: Vec<(String, String)> = error.tried().iter().map(|a| (a.endpoint.clone(), a.outcome.clone())).collect();
    assert_eq!(tried.len(), 4, "{error}");
    for (n, text) in [(0, "403 Forbidden"), (1, "manifest unknown"), (2, "anonymously")] {
        assert_eq!(tried[n].0, format!("{}/m/app", setup.mirrors[n].address()));
        assert!(tried[n].1.contains(text), "{error}");
    }
    assert_eq!(tried[3].0, "127.0.0.1:1/team/app");
    assert_eq!(error.kind(), ErrorKind::Network, "the source itself counts most");
    assert!(error.to_string().contains("quay.example/team/app:v1"), "{error}");
}

#[tokio::test]
async fn a_blob_that_breaks_off_at_one_mirror_goes_on_at_the_next_from_the_same_byte() {
    let setup = setup(2, &[]);
    for mirror in &setup.mirrors {
        mirror.put("m/app", &setup.image, Some("v1"));
    }
    setup.mirrors[0].fault(Fault::on("GET", "/v2/*/blobs/*").first(1).reset_after(700_000));
    setup.mirrors[0].fault(Fault::on("GET", "/v2/*/blobs/*").status(503));
    let layer = &setup.image.blobs[1];
    let bytes = read(setup.source.blob(&name(), &layer.descriptor, 0, None).await.unwrap()).await.unwrap();
    assert_eq!(bytes, layer.bytes);
    let log = setup.mirrors[1].log();
    let range = log.last().and_then(|r| r.header("range")).unwrap();
    assert_eq!(range, "bytes=700000-");
}

#[tokio::test]
async fn blocked_endpoints_are_not_contacted() {
    let mirror = Registry::start();
    let image = fixture::image(1).build();
    mirror.put("app", &image, Some("v1"));
    let text = format!(
        "[[registry]]\nlocation = \"quay.example\"\n[[registry.mirror]]\nlocation = \"{0}/x\"\n[[registry.mirror]]\n\
         location = \"{0}\"\ninsecure = true\n[[registry]]\nlocation = \"{0}/x\"\nblocked = true\n",
        mirror.address()
    );
    let told = Told::default();
    let source = RegistrySource::new(Client::new(told.listen(configured(&text))).unwrap());
    source.manifest(&"quay.example/app:v1".parse().unwrap()).await.unwrap();
    assert!(told.says("blocked by registries.conf"), "{:?}", told.all());
    assert!(mirror.log().iter().all(|r| r.path.starts_with("/v2/app/")), "{:#?}", mirror.log());
    let all_blocked = "[[registry]]\nlocation = \"quay.example\"\nblocked = true\n";
    let source = RegistrySource::new(Client::new(configured(all_blocked)).unwrap());
    let error = source.manifest(&"quay.example/app:v1".parse().unwrap()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.to_string().contains("blocked by registries.conf"), "{error}");
}

#[tokio::test]
async fn digest_mirrors_serve_the_content_of_what_was_pulled_by_digest() {
    let setup = setup(1, &["pull-from-mirror = \"digest-only\""]);
    setup.mirrors[0].put("m/app", &setup.image, Some("v1"));
    assert!(setup.source.manifest(&name()).await.is_err(), "the tag is not asked for there");
    let by_digest = name().with_digest(setup.image.digest().clone());
    let found = setup.source.manifest(&by_digest).await.unwrap();
    // The engine names the repository as it stands in the plan, with a tag.
    let layer = &setup.image.blobs[1];
    read(setup.source.blob(&name(), &layer.descriptor, 0, Some(&found.place)).await.unwrap()).await.unwrap();
    let at = setup.source.manifest_at(&name(), &found.place).await.unwrap();
    assert_eq!(at.unwrap().digest(), setup.image.digest());
    let absent = "quay.example/team/app:sha256-x.sig".parse().unwrap();
    assert!(setup.source.manifest_at(&absent, &found.place).await.unwrap().is_none());
}

#[tokio::test]
async fn a_push_is_never_rewritten_and_insecure_counts_for_it() {
    let (target, mirror) = (Registry::start(), Registry::start());
    let text = format!(
        "[[registry]]\nlocation = \"{}\"\ninsecure = true\n[[registry.mirror]]\nlocation = \"{}\"\ninsecure = true\n",
        target.address(),
        mirror.address()
    );
    let client = Client::new(configured(&text)).unwrap();
    let sink = RegistrySink::new(client, target.registry(), Some(repo("ns"))).unwrap();
    let blob = fixture::blob("a/b", "x");
    sink.write_blob(&repo("app"), &blob.descriptor, &support::Memory::of(&blob)).await.unwrap();
    assert!(target.content(|c| c.blob("ns/app", &blob.descriptor.digest).is_some()));
    assert!(mirror.log().is_empty());
}

#[tokio::test]
async fn plain_http_is_refused_unless_allowed() {
    let registry = Registry::start();
    registry.put("app", &fixture::image(1).build(), Some("v1"));
    let strict = Options { tls_verify: true, retry_times: 0, ..options() };
    let source = RegistrySource::new(Client::new(strict).unwrap());
    let error = source.manifest(&registry.reference("app:v1")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Network);
    assert!(error.to_string().contains("server gave HTTP response to HTTPS client"), "{error}");
    assert!(error.hint_text().unwrap().contains("insecure = true"), "{error}");
    let told = Told::default();
    let source = RegistrySource::new(Client::new(told.listen(options())).unwrap());
    source.manifest(&registry.reference("app:v1")).await.unwrap();
    // Nobody listens in between on this very machine, so nobody is warned of it.
    assert!(!told.says("plain HTTP is used"), "{:?}", told.all());
}

#[tokio::test]
async fn nothing_listens_and_unknown_names_are_told_with_a_hint() {
    let quick = Options { retry_times: 0, ..options() };
    let source = RegistrySource::new(Client::new(quick).unwrap());
    let error = source.manifest(&"127.0.0.1:1/a/b:c".parse().unwrap()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Network);
    assert!(error.to_string().contains("onnection refused"), "{error}");
    assert!(error.hint_text().unwrap().contains("nothing listens"), "{error}");
}

#[tokio::test]
async fn a_mirror_that_is_down_is_not_asked_for_every_image() {
    let mirror = Registry::start();
    let image = fixture::image(1).build();
    mirror.put("app", &image, Some("v1"));
    let text = format!(
        "[[registry]]\nlocation = \"quay.example\"\n[[registry.mirror]]\nlocation = \"127.0.0.1:1\"\ninsecure = true\n\
         [[registry.mirror]]\nlocation = \"{}\"\ninsecure = true\n",
        mirror.address()
    );
    let told = Told::default();
    let source = RegistrySource::new(Client::new(told.listen(configured(&text))).unwrap());
    for _ in 0..3 {
        source.manifest(&"quay.example/app:v1".parse().unwrap()).await.unwrap();
    }
    assert!(told.says("not asked again so soon"), "{:?}", told.all());
    assert!(!told.says("try 1"), "{:?}", told.all());
}
