//! Certificates that are replaced while the registry serves.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test ends where it fails")]

mod support;

use std::path::Path;
use std::time::Duration;

use airlock_registry::{Anonymous, Server, Tls};
use airlock_store::distribution::{Durability, Writer};
use futures_util::StreamExt;
use support::*;

/// Makes a certificate under a CA of its own; the CA.
async fn make(folder: &Path) -> reqwest::Certificate {
    let root = tempfile::tempdir().unwrap();
    let writer = Writer::open(root.path(), Durability::Image).unwrap();
    let tls = Tls::SelfMade { folder: folder.to_owned(), names: Vec::new() };
    let running = Server::writable(writer).anonymous(Anonymous::Push).tls(tls).bind(localhost()).await.unwrap();
    let ca = reqwest::Certificate::from_pem(running.ca_pem.clone().unwrap().as_bytes()).unwrap();
    running.shutdown().await.unwrap();
    ca
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_replaced_without_dropping_anybody() {
    let work = tempfile::tempdir().unwrap();
    let (old, new) = (work.path().join("old"), work.path().join("new"));
    let (old_ca, new_ca) = (make(&old).await, make(&new).await);
    let (certificate, key) = (work.path().join("tls.crt"), work.path().join("tls.key"));
    let put = |from: &Path| {
        for (name, path) in [("tls.crt", &certificate), ("tls.key", &key)] {
            std::fs::copy(from.join(name), path).unwrap();
        }
    };
    put(&old);
    let tls = Tls::Files { certificate: certificate.clone(), key: key.clone() };
    let registry = Registry::with(|b| b.anonymous(Anonymous::Push).tls(tls)).await;
    let client = |ca: &reqwest::Certificate| {
        reqwest::Client::builder().no_proxy().http1_only().tls_certs_only([ca.clone()]).build().unwrap()
    };
    let base = format!("https://{}/v2/", registry.addr);
    let staying = client(&old_ca);
    assert_eq!(staying.get(&base).send().await.unwrap().status(), 200);
    // A push that takes longer than the change.
    let begun = staying.post(format!("{base}a/blobs/uploads/")).send().await.unwrap();
    let location = format!("https://{}{}", registry.addr, header(&begun, "location"));
    let (sender, receiver) = tokio::sync::mpsc::channel::<Result<Vec<u8>, std::io::Error>>(1);
    let stream = futures_util::stream::unfold(receiver, |mut r| async move { r.recv().await.map(|item| (item, r)) });
    let push = tokio::spawn(staying.patch(location).body(reqwest::Body::wrap_stream(stream.boxed())).send());
    sender.send(Ok(b"abc".to_vec())).await.unwrap();
    // Half of a pair changes nothing.
    std::fs::copy(new.join("tls.crt"), &certificate).unwrap();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(client(&old_ca).get(&base).send().await.unwrap().status(), 200);
    put(&new);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(client(&new_ca).get(&base).send().await.unwrap().status(), 200);
    assert!(client(&old_ca).get(&base).send().await.is_err(), "new connections get the new one");
    sender.send(Ok(b"def".to_vec())).await.unwrap();
    drop(sender);
    let response = push.await.unwrap().unwrap();
    assert_eq!((response.status().as_u16(), header(&response, "range").as_str()), (202, "0-5"));
}
