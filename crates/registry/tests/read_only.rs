//! An archive as a registry: every way of reading, in place, and no way of writing.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test ends where it fails")]

mod support;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use airlock_oci::{BlobStream, Content, Descriptor, Digest, Error, Manifest, Repository, Sink, Tag};
use airlock_registry::{Anonymous, Server};
use airlock_store::archive::{Archive, ArchiveSink, Contents, Item, LocalVolume, Options, RepositoryContents, Writer};
use bytes::Bytes;
use reqwest::Method;
use support::*;

struct InMemory(Bytes);

#[async_trait::async_trait]
impl Content for InMemory {
    async fn open(&self, offset: u64) -> Result<BlobStream, Error> {
        Ok(Box::pin(futures_util::stream::iter([Ok(self.0.slice(offset as usize..))])))
    }
}

/// What the archive holds: an image, an index of it, and a signature of the index.
struct Set {
    blobs: Vec<Bytes>,
    image: String,
    index: String,
    signature: String,
}

fn set() -> Set {
    let layer: Bytes = (0..2_000_000_u32).map(|i| (i * 11 % 247) as u8).collect::<Vec<u8>>().into();
    let blobs = vec![Bytes::from_static(b"{}"), layer, Bytes::from_static(b"signed")];
    let image = manifest(OCI_MANIFEST, &blobs[0], &[&blobs[1]], "");
    let index = index(OCI_INDEX, &[(OCI_MANIFEST, &image)], "");
    let subject = format!(r#","artifactType":"x/sig","subject":{}"#, descriptor(OCI_INDEX, index.as_bytes()));
    let signature = manifest(OCI_MANIFEST, &blobs[0], &[&blobs[2]], &subject);
    Set { blobs, image, index, signature }
}

async fn write_archive(folder: &std::path::Path, set: &Set) {
    let (name, tag) = (Repository::new("acme/app").unwrap(), Tag::new("v1").unwrap());
    let texts = [&set.image, &set.index, &set.signature];
    let manifests: Vec<Manifest> = texts.iter().map(|t| Manifest::parse((*t).clone().into(), None).unwrap()).collect();
    let item = |bytes: &[u8]| Item { digest: Digest::of(bytes), size: bytes.len() as u64 };
    let offered = RepositoryContents {
        layers: set.blobs.iter().map(|b| Digest::of(b)).collect::<BTreeSet<_>>(),
        manifests: manifests.iter().map(|m| m.digest().clone()).collect(),
        tags: BTreeMap::from([(tag.clone(), manifests[1].digest().clone())]),
    };
    let contents = Contents {
        files: vec![("airlock/plan.json".into(), Bytes::from_static(b"{}"))],
        blobs: set.blobs.iter().map(|b| item(b)).collect(),
        manifests: texts.iter().map(|t| item(t.as_bytes())).collect(),
        repositories: BTreeMap::from([(name.clone(), offered)]),
        sequence: 1,
        created: "2026-11-21T06:00:00Z".into(),
        ..Contents::default()
    };
    let options = Options { limit: u64::MAX, strict: false, replace: false, salvage: HashMap::new() };
    let volume = Arc::new(LocalVolume::create(folder).unwrap());
    let writer = Arc::new(Writer::open(volume, &contents, options).unwrap());
    let sink = ArchiveSink(writer.clone());
    for bytes in &set.blobs {
        let blob = Descriptor::new("x/y", Digest::of(bytes), bytes.len() as u64);
        sink.write_blob(&name, &blob, &InMemory(bytes.clone())).await.unwrap();
    }
    for (manifest, tag) in manifests.iter().zip([None, Some(&tag), None]) {
        sink.put_manifest(&name, manifest, tag).await.unwrap();
    }
    writer.seal(false).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_is_read_in_every_way_and_written_in_none() {
    let (folder, set) = (tempfile::tempdir().unwrap(), set());
    write_archive(folder.path(), &set).await;
    let archive = Arc::new(Archive::open(folder.path()).unwrap());
    let running = Server::read_only(archive).anonymous(Anonymous::Push).bind(localhost()).await.unwrap();
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
    assert_eq!(json(get("/v2/acme/app/tags/list").await).await["tags"], serde_json::json!(["v1"]));
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
        ("/v2/acme/app/manifests/v2", 404),
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
