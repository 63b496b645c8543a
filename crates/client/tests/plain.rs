//! What lies on no registry: trust, proxies, redirects, faults and limits of plain fetches.
#![allow(clippy::unwrap_used, reason = "a test fails by unwrapping")]

mod support;

use std::process::Command;

use airlock_client::{Client, Get, Options, Url};
use airlock_oci::ErrorKind;
use airlock_testkit::fixture::{self, Built};
use airlock_testkit::scripted::{Fault, Registry};
use support::options;

const NAME: &str = "TEST_PLAIN_URL";
const LIMIT: u64 = 10_000_000;

/// A layer of the image is as good a file as any other.
fn upstream(registry: &Registry) -> (Built, String) {
    let image = fixture::image(1).layers(&[300_000]).build();
    registry.put("app", &image, Some("v1"));
    let path = format!("/v2/app/blobs/{}", image.blobs[1].descriptor.digest);
    (image, path)
}

fn get(url: &str) -> Get {
    Get { url: Url::parse(url).unwrap(), accept: None, what: "fetch the file".into(), limit: LIMIT }
}

/// Certificates are checked and nothing of this machine counts.
fn strict(certs_d: &std::path::Path) -> Client {
    let options = Options { tls_verify: true, certs_d: Some(vec![certs_d.to_owned()]), retry_times: 2, ..options() };
    Client::new(options).unwrap()
}

#[tokio::test]
async fn a_download_is_there_when_it_is_whole_and_not_before() {
    let registry = Registry::start();
    let (image, path) = upstream(&registry);
    let client = Client::new(Options { retry_times: 3, ..options() }).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    registry.fault(Fault::on("GET", "*").first(1).status(503));
    registry.fault(Fault::on("GET", "*").nth(2).truncate_after(100_000));
    registry.fault(Fault::on("GET", "*").nth(3).reset_after(200_000));
    let size = client.download(&get(&format!("{}{path}", registry.url())), &file).await.unwrap();
    let layer = &image.blobs[1].bytes;
    assert_eq!(size, layer.len() as u64);
    assert_eq!(std::fs::read(&file).unwrap(), *layer);
    assert_eq!(registry.count("GET", "*"), 4);

    std::fs::remove_file(&file).unwrap();
    let few = Get { limit: 1000, ..get(&format!("{}{path}", registry.url())) };
    let error = client.download(&few, &file).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    let missing = client.download(&get(&format!("{}/v2/none", registry.url())), &file).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound, "{missing}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing half-written is left");
}

#[tokio::test]
async fn an_authority_in_certs_d_is_trusted_and_another_is_not() {
    let registry = Registry::builder().tls().start();
    let (image, path) = upstream(&registry);
    let url = format!("{}{path}", registry.url());
    let folder = tempfile::tempdir().unwrap();
    let error = strict(folder.path()).get(&get(&url)).await.unwrap_err();
    assert!(error.cause().contains("x509: certificate signed by unknown authority"), "{error}");
    assert_eq!((error.what(), error.kind()), ("fetch the file", ErrorKind::Network));
    let host = folder.path().join(registry.address());
    std::fs::create_dir(&host).unwrap();
    std::fs::write(host.join("ca.crt"), &registry.certificates().unwrap().ca).unwrap();
    assert_eq!(strict(folder.path()).get(&get(&url)).await.unwrap(), image.blobs[1].bytes);
}

#[tokio::test]
async fn redirects_are_followed_but_never_from_tls_to_plain_http() {
    let (from, to) = (Registry::start(), Registry::start());
    let (image, path) = upstream(&to);
    from.fault(Fault::on("GET", "*").redirect(&format!("{}{path}", to.url())));
    let client = Client::new(options()).unwrap();
    assert_eq!(client.get(&get(&format!("{}/old", from.url()))).await.unwrap(), image.blobs[1].bytes);

    let secure = Registry::builder().tls().start();
    secure.fault(Fault::on("GET", "*").redirect(&format!("{}{path}", to.url())));
    let folder = tempfile::tempdir().unwrap();
    let host = folder.path().join(secure.address());
    std::fs::create_dir(&host).unwrap();
    std::fs::write(host.join("ca.crt"), &secure.certificates().unwrap().ca).unwrap();
    let error = strict(folder.path()).get(&get(&format!("{}/old", secure.url()))).await.unwrap_err();
    assert!(error.cause().contains("to plain HTTP"), "{error}");
}

/// Not a test by itself: what runs with a proxy in the environment.
#[tokio::test]
#[ignore = "run by the other test with another environment"]
async fn child() {
    let Ok(url) = std::env::var(NAME) else { return };
    let client = Client::new(Options { retry_times: 1, ..options() }).unwrap();
    match client.get(&get(&url)).await {
        Ok(bytes) => println!("\nfound {} bytes", bytes.len()),
        Err(error) => println!("\nfailed {error}"),
    }
}

fn run(url: &str, env: &[(&str, &str)]) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", "child", "--nocapture"]).env(NAME, url);
    for variable in ["http_proxy", "https_proxy", "all_proxy", "no_proxy"] {
        command.env_remove(variable).env_remove(variable.to_uppercase());
    }
    command.envs(env.iter().copied());
    String::from_utf8_lossy(&command.output().unwrap().stdout).into_owned()
}

#[test]
fn a_proxy_of_the_environment_is_used_and_a_dead_one_is_told() {
    let proxy = Registry::start();
    let (image, path) = upstream(&proxy);
    let url = format!("http://updates.invalid{path}");
    let out = run(&url, &[("HTTP_PROXY", &proxy.url())]);
    assert!(out.contains(&format!("found {} bytes", image.blobs[1].bytes.len())), "{out}");
    let out = run("https://updates.invalid/graph", &[("HTTPS_PROXY", "http://127.0.0.1:1")]);
    assert!(out.contains("failed") && out.contains("updates.invalid"), "{out}");
    assert!(out.to_lowercase().contains("connection refused"), "{out}");
}
