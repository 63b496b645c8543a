//! An archive as a registry: every way of reading, in place, and no way of writing.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test ends where it fails")]

mod support;

use std::sync::Arc;

use airlock_oci::Digest;
use airlock_registry::{Anonymous, Server};
use airlock_store::archive::Archive;
use reqwest::Method;
use support::*;

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_is_read_in_every_way_and_written_in_none() {
    let (folder, set) = (tempfile::tempdir().unwrap(), archive::set());
    archive::write(folder.path(), &set).await;
    let served = Arc::new(Archive::open(folder.path()).unwrap());
    let running = Server::read_only(served).anonymous(Anonymous::Push).bind(localhost()).await.unwrap();
    let (client, base) = (client(), format!("http://{}", running.addr));
    let ask = async |method: Method, path: &str, header: Option<(&str, String)>| {
        let mut request = client.request(method, format!("{base}{path}"));
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        request.send().await.unwrap()
    };
    let get = async |path: &str| ask(Method::GET, path, None).await;

    assert_eq!(get("/v2/").await.status(), 200);
    assert_eq!(json(get("/v2/_catalog").await).await["repositories"], serde_json::json!(["acme/app"]));
    assert_eq!(json(get("/v2/acme/app/tags/list").await).await["tags"], serde_json::json!(["v1", "v2"]));
    let digest_of = |text: &str| Digest::of(text.as_bytes()).to_string();
    for (at, text, kind) in [
        ("v1".to_owned(), &set.index, OCI_INDEX),
        (digest_of(&set.index), &set.index, OCI_INDEX),
        (digest_of(&set.image), &set.image, OCI_MANIFEST),
        (digest_of(&set.signature), &set.signature, OCI_MANIFEST),
    ] {
        let path = format!("/v2/acme/app/manifests/{at}");
        let head = ask(Method::HEAD, &path, None).await;
        assert_eq!(header(&head, "content-length"), text.len().to_string());
        let response = get(&path).await;
        assert_eq!(header(&response, "content-type"), kind);
        assert_eq!(header(&response, "docker-content-digest"), digest_of(text));
        assert_eq!(response.text().await.unwrap(), *text);
        let known = Some(("if-none-match", format!("\"{}\"", digest_of(text))));
        assert_eq!(ask(Method::GET, &path, known).await.status(), 304);
    }
    for bytes in &set.blobs {
        let path = format!("/v2/acme/app/blobs/{}", Digest::of(bytes));
        assert_eq!(header(&ask(Method::HEAD, &path, None).await, "content-length"), bytes.len().to_string());
        assert_eq!(get(&path).await.bytes().await.unwrap(), bytes);
        let last = bytes.len() - 1;
        let response = ask(Method::GET, &path, Some(("range", format!("bytes=1-{last}")))).await;
        assert_eq!((response.status().as_u16(), response.bytes().await.unwrap()), (206, bytes.slice(1..)));
        let beyond = ask(Method::GET, &path, Some(("range", format!("bytes={}-", bytes.len())))).await;
        assert_eq!(beyond.status(), 416);
    }
    let referrers = format!("/v2/acme/app/referrers/{}", digest_of(&set.index));
    let found = json(get(&format!("{referrers}?artifactType=x/sig")).await).await;
    assert_eq!(found["manifests"][0]["digest"], digest_of(&set.signature));
    assert_eq!(json(get(&format!("{referrers}?artifactType=other")).await).await["manifests"], serde_json::json!([]));
    for (path, status) in [
        ("/v2/acme/app/manifests/v3", 404),
        ("/v2/acme/other/tags/list", 404),
        ("/v2/acme/app/blobs/sha256:x", 400),
        (&format!("/v2/acme/other/blobs/{}", Digest::of(b"{}")), 404),
    ] {
        assert_eq!(get(path).await.status(), status, "{path}");
    }

    let (blob, session) = (Digest::of(b"{}"), "/v2/acme/app/blobs/uploads/0123456789abcdef0123456789abcdef");
    for (method, path) in [
        (Method::POST, "/v2/acme/app/blobs/uploads/"),
        (Method::POST, &format!("/v2/acme/app/blobs/uploads/?mount={blob}&from=acme/app")),
        (Method::POST, &format!("/v2/acme/app/blobs/uploads/?digest={blob}")),
        (Method::GET, session),
        (Method::PATCH, session),
        (Method::PUT, &format!("{session}?digest={blob}")),
        (Method::DELETE, session),
        (Method::PUT, "/v2/acme/app/manifests/v2"),
        (Method::DELETE, "/v2/acme/app/manifests/v1"),
        (Method::DELETE, &format!("/v2/acme/app/manifests/{}", digest_of(&set.image))),
        (Method::DELETE, &format!("/v2/acme/app/blobs/{blob}")),
    ] {
        let response = ask(method.clone(), path, None).await;
        assert_eq!(response.status(), 405, "{method} {path}");
        assert_eq!(header(&response, "allow"), "GET, HEAD");
        assert_eq!(codes(response).await, ["UNSUPPORTED"]);
    }
    running.shutdown().await.unwrap();
}
