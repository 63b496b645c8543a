//! Certificates: an authority of one's own in `certs.d`, client certificates, and what is said when trust fails.
#![allow(clippy::unwrap_used, reason = "a test fails by unwrapping")]

mod support;

use airlock_client::{Client, Options, RegistrySource};
use airlock_oci::{ErrorKind, Reference, Source};
use airlock_testkit::fixture;
use airlock_testkit::scripted::{Registry, Shown};
use support::{options, read};

fn certs_d(registry: &Registry, files: &[(&str, &str)]) -> (tempfile::TempDir, Options) {
    let dir = tempfile::tempdir().unwrap();
    let host = dir.path().join(registry.address());
    std::fs::create_dir(&host).unwrap();
    for (name, text) in files {
        std::fs::write(host.join(name), text).unwrap();
    }
    let options = Options { tls_verify: true, retry_times: 0, certs_d: Some(vec![dir.path().to_owned()]), ..options() };
    (dir, options)
}

fn upstream(registry: &Registry) -> fixture::Built {
    let image = fixture::image(1).layers(&[1_000_000]).build();
    registry.put("app", &image, Some("v1"));
    image
}

#[tokio::test]
async fn an_authority_in_certs_d_is_trusted_for_its_host() {
    let registry = Registry::builder().tls().start();
    let image = upstream(&registry);
    let ca = registry.certificates().unwrap().ca.clone();
    let (_dir, options) = certs_d(&registry, &[("ca.crt", &ca)]);
    let source = RegistrySource::new(Client::new(options).unwrap());
    let name = registry.reference("app:v1");
    source.manifest(&name).await.unwrap();
    let layer = &image.blobs[1];
    assert_eq!(read(source.blob(&name, &layer.descriptor, 0, None).await.unwrap()).await.unwrap(), layer.bytes);
}

#[tokio::test]
async fn an_unknown_authority_is_explained_with_the_place_for_its_certificate() {
    let registry = Registry::builder().tls().start();
    upstream(&registry);
    let (_dir, options) = certs_d(&registry, &[]);
    let source = RegistrySource::new(Client::new(options).unwrap());
    let error = source.manifest(&registry.reference("app:v1")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Network);
    assert!(error.to_string().contains("x509: certificate signed by unknown authority"), "{error}");
    assert!(error.hint_text().unwrap().contains(&format!("certs.d/{}/ca.crt", registry.address())), "{error}");
    assert!(!error.is_retryable());
}

#[tokio::test]
async fn other_names_and_expired_certificates_are_told_apart() {
    for (shown, text) in [(Shown::OtherName, "valid for other names"), (Shown::Expired, "has expired")] {
        let registry = Registry::builder().tls_showing(shown).start();
        upstream(&registry);
        let ca = registry.certificates().unwrap().ca.clone();
        let (_dir, options) = certs_d(&registry, &[("ca.crt", &ca)]);
        let source = RegistrySource::new(Client::new(options).unwrap());
        let error = source.manifest(&registry.reference("app:v1")).await.unwrap_err();
        assert!(error.to_string().contains("x509: ") && error.to_string().contains(text), "{error}");
    }
}

#[tokio::test]
async fn insecure_asks_for_no_certificate_but_prefers_tls() {
    let registry = Registry::builder().tls_showing(Shown::OtherName).start();
    upstream(&registry);
    let source = RegistrySource::new(Client::new(options()).unwrap());
    source.manifest(&registry.reference("app:v1")).await.unwrap();
}

#[tokio::test]
async fn a_client_certificate_is_shown_where_it_is_asked_for() {
    let registry = Registry::builder().tls().client_certificate().start();
    upstream(&registry);
    let certificates = registry.certificates().unwrap().clone();
    let (_dir, with) = certs_d(
        &registry,
        &[
            ("ca.crt", &certificates.ca),
            ("client.cert", &certificates.client_cert),
            ("client.key", &certificates.client_key),
        ],
    );
    let source = RegistrySource::new(Client::new(with).unwrap());
    source.manifest(&registry.reference("app:v1")).await.unwrap();
    let (_dir, without) = certs_d(&registry, &[("ca.crt", &certificates.ca)]);
    let source = RegistrySource::new(Client::new(without).unwrap());
    let error = source.manifest(&registry.reference("app:v1")).await.unwrap_err();
    assert!(error.hint_text().unwrap_or_default().contains("client certificate"), "{error}");
}

#[tokio::test]
async fn wrong_files_in_certs_d_are_named() {
    let registry = Registry::builder().tls().start();
    for (files, text) in [(vec![("ca.crt", "no certificate")], "ca.crt"), (vec![("ca.cert", "x")], "ca.key")] {
        let (_dir, options) = certs_d(&registry, &files);
        let source = RegistrySource::new(Client::new(options).unwrap());
        let error = source.manifest(&registry.reference("app:v1")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains(text) && error.hint_text().is_some(), "{error}");
    }
}

#[tokio::test]
async fn one_request_of_many_finds_out_that_a_host_has_no_tls() {
    const TLS_HANDSHAKE: u8 = 0x16;
    let registry = Registry::start();
    let image = fixture::image(1).build();
    registry.put("app", &image, Some("v1"));
    let front = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let name: Reference = format!("{}/app:v1", front.local_addr().unwrap()).parse().unwrap();
    let (server, handshakes) = (registry.address(), std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0)));
    let seen = std::sync::Arc::clone(&handshakes);
    std::thread::spawn(move || {
        for client in front.incoming() {
            let mut first = [0];
            let client = client.unwrap();
            if client.peek(&mut first).is_ok() && first[0] == TLS_HANDSHAKE {
                seen.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            } else {
                support::join(client, &server, usize::MAX);
            }
        }
    });
    let source = support::source();
    let all = futures_util::future::join_all((0..8).map(|_| source.manifest(&name))).await;
    for found in all {
        assert_eq!(found.unwrap().value.digest(), image.digest());
    }
    assert_eq!(handshakes.load(std::sync::atomic::Ordering::Relaxed), 1);
}
