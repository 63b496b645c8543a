//! What must not get through: malformed requests, rights that were not given, connections that break, a disk that fills up.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test ends where it fails")]

mod support;

use std::process::Command;
use std::time::Duration;

use airlock_oci::Digest;
use airlock_registry::{Anonymous, Server, Users};
use airlock_store::distribution::{Durability, Writer};
use futures_util::StreamExt;
use reqwest::Method;
use support::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Sends bytes as they are; what comes back until the connection is closed.
async fn raw(registry: &Registry, request: &str) -> String {
    let mut stream = TcpStream::connect(registry.addr).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(120), stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn paths_that_lead_elsewhere_are_refused() {
    let registry = Registry::start().await;
    registry.push_image("a/b", "v1", "1").await;
    let digest = Digest::of(b"layer 1");
    for (path, status) in [
        ("/v2/a/b/manifests/v1".to_owned(), "200"),
        ("/v2/a/x/../b/manifests/v1".into(), "400"),
        ("/v2/a/./b/manifests/v1".into(), "400"),
        ("/v2/a//b/manifests/v1".into(), "400"),
        ("/v2/a%2fb/manifests/v1".into(), "400"),
        ("/v2/a/%2e%2e/b/manifests/v1".into(), "400"),
        ("/v2/a/b/manifests/%2e%2e%2fv1".into(), "400"),
        ("/v2/a/b/manifests/..".into(), "400"),
        ("/v2/a/b/manifests/%00".into(), "400"),
        ("/v2/a/b/manifests/%ff".into(), "400"),
        ("/v2/a/_layers/manifests/v1".into(), "400"),
        ("/../v2/a/b/manifests/v1".into(), "404"),
        ("//v2/a/b/manifests/v1".into(), "404"),
        ("/v2/a/b/blobs/sha256:../../../../etc/passwd".into(), "400"),
        (format!("/v2/a/b/blobs/{}", digest.to_string().to_uppercase()), "400"),
        (format!("/v2/{}/tags/list", "a".repeat(255)), "404"),
        (format!("/v2/{}/tags/list", "a".repeat(256)), "400"),
        (format!("/v2/{}/tags/list", vec!["a"; 128].join("/")), "404"),
    ] {
        let answer = raw(&registry, &format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {answer}");
        assert!(!answer.contains(registry.root.path().to_str().unwrap()), "{answer}");
    }
    // Nothing was made outside of the storage's own names.
    let names: Vec<_> = std::fs::read_dir(registry.root.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
}

#[tokio::test]
async fn requests_that_are_none_are_answered_with_400() {
    let registry = Registry::start().await;
    for request in [
        "GET\r\n\r\n".to_owned(),
        "GET /v2/ HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcde".into(),
        "POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n".into(),
    ] {
        let answer = raw(&registry, &request).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{request}: {answer}");
    }
    let answer = raw(&registry, &format!("GET /v2/ HTTP/1.1\r\nX: {}\r\n\r\n", "y".repeat(600_000))).await;
    assert!(answer.starts_with("HTTP/1.1 431") || answer.is_empty(), "{answer}");
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let text = format!(r#"{{"schemaVersion":2,"layers":[],"x":{deep}}}"#);
    let response = registry.put_manifest("a", "deep", OCI_MANIFEST, &text).await;
    assert_eq!(response.status(), 400);
    let itself = index(OCI_INDEX, &[], r#","subject":{"mediaType":"x/y","digest":"sha256:0","size":1}"#);
    assert_eq!(registry.put_manifest("a", "bad", OCI_INDEX, &itself).await.status(), 400);
}

#[tokio::test]
async fn nobody_gets_through_without_the_right() {
    let users = || Users::parse(&format!("anna:{}", bcrypt::hash("secret", 4).unwrap())).unwrap();
    let digest = Digest::of(b"layer 1");
    let session = "/v2/a/blobs/uploads/0123456789abcdef0123456789abcdef";
    let routes: Vec<(Method, String, bool)> = vec![
        // (method, path, whether it only reads)
        (Method::GET, "/v2/_catalog".into(), true),
        (Method::GET, "/v2/a/tags/list".into(), true),
        (Method::GET, "/v2/a/manifests/v1".into(), true),
        (Method::HEAD, "/v2/a/manifests/v1".into(), true),
        (Method::GET, format!("/v2/a/blobs/{digest}"), true),
        (Method::HEAD, format!("/v2/a/blobs/{digest}"), true),
        (Method::GET, format!("/v2/a/referrers/{digest}"), true),
        (Method::GET, "/v2/UPPER/tags/list".into(), true),
        (Method::GET, "/v2/nothing".into(), true),
        (Method::PUT, "/v2/a/manifests/v2".into(), false),
        (Method::DELETE, "/v2/a/manifests/v1".into(), false),
        (Method::DELETE, format!("/v2/a/blobs/{digest}"), false),
        (Method::POST, "/v2/a/blobs/uploads/".into(), false),
        (Method::POST, format!("/v2/a/blobs/uploads/?mount={digest}&from=a"), false),
        (Method::GET, session.into(), false),
        (Method::PATCH, session.into(), false),
        (Method::PUT, format!("{session}?digest={digest}"), false),
        (Method::DELETE, session.into(), false),
    ];
    for anonymous in [Anonymous::None, Anonymous::Pull] {
        for (method, path, reads) in &routes {
            // One for each, since too many wrong passwords are refused in another way.
            let registry = Registry::with(|b| b.users(users()).anonymous(anonymous)).await;
            for credentials in [None, Some(("anna", "wrong")), Some(("nobody", "secret")), Some(("", ""))] {
                let mut request = registry.ask(method.clone(), path).body("x");
                if let Some((name, password)) = credentials {
                    request = request.basic_auth(name, Some(password));
                }
                let response = request.send().await.unwrap();
                let claims_to_be_somebody = credentials.is_some_and(|(name, _)| !name.is_empty());
                let lets_in = *reads && anonymous == Anonymous::Pull && !claims_to_be_somebody;
                let status = response.status().as_u16();
                assert_eq!(status != 401, lets_in, "{anonymous:?} {method} {path} {credentials:?}: {status}");
                if status == 401 {
                    assert_eq!(header(&response, "www-authenticate"), "Basic realm=\"Airlock registry\"");
                }
            }
            let request = registry.ask(method.clone(), path).basic_auth("anna", Some("secret")).body("x");
            let status = request.send().await.unwrap().status();
            assert!(status != 401 && status != 403, "{method} {path}: {status}");
            assert_eq!(registry.get("/v2/").await.status(), 401);
        }
    }
}

#[tokio::test]
async fn a_connection_that_breaks_in_mid_upload_leaves_nothing_to_see() {
    let registry = Registry::start().await;
    let bytes = vec![7_u8; 3_000_000];
    let digest = Digest::of(&bytes);
    let location = registry.begin("a").await;
    let head = format!("PUT {location}?digest={digest} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", bytes.len());
    let mut stream = TcpStream::connect(registry.addr).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&bytes[..2_000_000]).await.unwrap();
    stream.flush().await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    drop(stream);
    assert_eq!(registry.head(&format!("/v2/a/blobs/{digest}")).await.status(), 404);
    // A single request is over with its connection; a session goes on from where the server says.
    let single = format!(
        "POST /v2/a/blobs/uploads/?digest={digest} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\nabc",
        bytes.len()
    );
    let mut stream = TcpStream::connect(registry.addr).await.unwrap();
    stream.write_all(single.as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    drop(stream);
    let mut next = 0;
    let end = std::time::Instant::now() + Duration::from_secs(120);
    while next < 2_000_000 && std::time::Instant::now() < end {
        let status = registry.get(&location).await;
        assert_eq!(status.status(), 204);
        next = header(&status, "range").trim_start_matches("0-").parse::<usize>().unwrap() + 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(next, 2_000_000, "what came was kept");
    let response = registry
        .ask(Method::PUT, &format!("{location}?digest={digest}"))
        .header("content-range", format!("{next}-{}", bytes.len() - 1))
        .body(bytes[next..].to_vec())
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 201);
    let folder = registry.root.path().join(".airlock/uploads");
    registry.writer.flush().unwrap();
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), 0, "the single request's bytes are gone");
}

#[tokio::test]
async fn open_uploads_are_bounded() {
    let registry = Registry::start().await;
    let mut last = None;
    for i in 0..=4096 {
        let response = registry.ask(Method::POST, "/v2/a/blobs/uploads/").send().await.unwrap();
        if response.status() != 202 {
            last = Some((i, response));
            break;
        }
    }
    let (count, response) = last.unwrap();
    assert_eq!((count, response.status().as_u16()), (4096, 429));
    assert_eq!(header(&response, "retry-after"), "10");
    assert_eq!(codes(response).await, ["TOOMANYREQUESTS"]);
}

#[tokio::test]
async fn a_large_body_that_is_refused_costs_little_and_the_refusal_is_heard() {
    let registry = Registry::start().await;
    let location = registry.begin("a").await;
    let request = registry.ask(Method::PATCH, &location).header("content-range", "5-200004").body(vec![0; 200_000]);
    assert_eq!(request.send().await.unwrap().status(), 416);
    // With `Expect: 100-continue` the client is told before it sends anything.
    let request = format!(
        "PATCH {location} HTTP/1.1\r\nHost: x\r\nContent-Range: 5-9\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
    );
    let mut stream = TcpStream::connect(registry.addr).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 416");
}

#[tokio::test]
async fn whoever_still_sends_what_was_refused_hears_it_and_does_not_come_back_on_that_connection() {
    let registry = Registry::start().await;
    const LENGTH: usize = 64 * 1024 * 1024;
    for (framing, path) in [
        (format!("Content-Length: {LENGTH}"), "/v2/a/manifests/v1"),
        ("Transfer-Encoding: chunked".into(), "/v2/A/manifests/v1"),
    ] {
        let stream = TcpStream::connect(registry.addr).await.unwrap();
        let (mut from, mut to) = stream.into_split();
        let sending = tokio::spawn(async move {
            to.write_all(format!("PUT {path} HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n").as_bytes()).await?;
            // Read as one chunk where chunks are announced.
            to.write_all(b"4000000\r\n").await?;
            // As fast as it is taken, and some after the answer.
            let piece = vec![b' '; 64 * 1024];
            for _ in 0..LENGTH / piece.len() {
                to.write_all(&piece).await?;
            }
            std::io::Result::Ok(())
        });
        // Nobody reads meanwhile; a reset would throw the answer away.
        tokio::time::sleep(Duration::from_millis(400)).await;
        let mut answer = String::new();
        from.read_to_string(&mut answer).await.expect("no reset");
        let status = if path == "/v2/A/manifests/v1" { "400" } else { "413" };
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
        assert!(answer.contains("connection: close\r\n"), "{answer}");
        assert!(answer.contains("\"errors\""), "{answer}");
        let _ = sending.await.unwrap();
    }
    // What was read to its end costs nothing.
    let response = registry.ask(Method::PUT, "/v2/A/manifests/v1").body(vec![0; 1000]).send().await.unwrap();
    assert_eq!((response.status().as_u16(), response.headers().contains_key("connection")), (400, false));
}

#[tokio::test]
async fn a_damaged_manifest_is_not_served_and_a_new_push_heals_it() {
    let registry = Registry::start().await;
    let (text, digest) = registry.push_image("a", "v1", "1").await;
    let hex = digest.hex();
    let data = registry.root.path().join(format!("docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2]));
    for damage in ["", "{}", &text.replace('2', "3")] {
        std::fs::write(&data, damage).unwrap();
        let response = registry.get("/v2/a/manifests/v1").await;
        assert_eq!(response.status(), 404);
        assert_eq!(codes(response).await, ["MANIFEST_UNKNOWN"]);
        registry.push_image("a", "v1", "1").await;
        assert_eq!(registry.get("/v2/a/manifests/v1").await.text().await.unwrap(), text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lies_in_the_place_of_a_blob_is_never_followed_nor_waited_for() {
    let registry = Registry::start().await;
    registry.push_image("a", "v1", "1").await;
    registry.push_blob("a", b"{}").await;
    let digest = registry.push_blob("a", b"a layer").await;
    registry.put_manifest("a", "v1", OCI_MANIFEST, &manifest(OCI_MANIFEST, b"{}", &[b"a layer"], "")).await;
    let hex = digest.hex();
    let data = registry.root.path().join(format!("docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2]));
    let url = format!("/v2/a/blobs/{digest}");
    for kind in ["link", "pipe"] {
        assert_eq!(registry.get(&url).await.bytes().await.unwrap(), &b"a layer"[..]);
        std::fs::remove_file(&data).unwrap();
        if kind == "link" {
            std::os::unix::fs::symlink("/etc/passwd", &data).unwrap();
        } else {
            assert!(Command::new("mkfifo").arg(&data).status().unwrap().success());
        }
        let answer = tokio::time::timeout(Duration::from_secs(10), registry.get(&url)).await.unwrap();
        assert_eq!((answer.status().as_u16(), registry.head(&url).await.status().as_u16()), (404, 404), "{kind}");
        let writer = registry.writer.clone();
        let scrubbed = tokio::task::spawn_blocking(move || writer.scrub(None)).await.unwrap().unwrap();
        assert_eq!(scrubbed.damage.len(), 1, "{kind}: {:?}", scrubbed.damage);
        assert_eq!((&scrubbed.damage[0].digest, scrubbed.damage[0].affected), (&digest, 1), "{kind}");
        registry.push_blob("a", b"a layer").await;
        registry.put_manifest("a", "v1", OCI_MANIFEST, &manifest(OCI_MANIFEST, b"{}", &[b"a layer"], "")).await;
    }
    assert!(std::fs::read("/etc/passwd").unwrap().len() > 10);
}

#[tokio::test]
async fn a_blob_that_was_cut_off_is_brought_back_by_the_next_push() {
    let registry = Registry::start().await;
    let (text, _) = registry.push_image("a", "v1", "1").await;
    registry.push_blob("a", b"{}").await;
    let digest = registry.push_blob("a", b"a layer").await;
    let text_with = manifest(OCI_MANIFEST, b"{}", &[b"a layer"], "");
    assert_ne!(text, text_with);
    assert_eq!(registry.put_manifest("a", "v2", OCI_MANIFEST, &text_with).await.status(), 201);
    let hex = digest.hex();
    let data = registry.root.path().join(format!("docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2]));
    std::fs::write(&data, "a la").unwrap();
    let response = registry.put_manifest("a", "v3", OCI_MANIFEST, &text_with).await;
    assert_eq!(response.status(), 400);
    assert_eq!(codes(response).await, ["MANIFEST_BLOB_UNKNOWN"]);
    assert_eq!(registry.head(&format!("/v2/a/blobs/{digest}")).await.status(), 404, "the client sends it again");
    registry.push_blob("a", b"a layer").await;
    assert_eq!(registry.put_manifest("a", "v3", OCI_MANIFEST, &text_with).await.status(), 201);
    assert_eq!(registry.get(&format!("/v2/a/blobs/{digest}")).await.bytes().await.unwrap(), &b"a layer"[..]);
    // A manifest that is wrong about a whole blob takes nothing away.
    let wrong = text_with.replace("\"size\":7", "\"size\":8");
    assert_ne!(wrong, text_with);
    assert_eq!(codes(registry.put_manifest("a", "v4", OCI_MANIFEST, &wrong).await).await, ["SIZE_INVALID"]);
    assert_eq!(registry.head(&format!("/v2/a/blobs/{digest}")).await.status(), 200);
}

#[tokio::test]
async fn who_guesses_passwords_hears_when_it_is_enough() {
    let users = Users::parse(&format!("anna:{}", bcrypt::hash("secret", 4).unwrap())).unwrap();
    let registry = Registry::with(|builder| builder.users(users)).await;
    let ask = async |name: &str, password: &str| {
        registry.ask(Method::GET, "/v2/").basic_auth(name, Some(password)).send().await.unwrap()
    };
    let guesses = (0..20).map(|number| async move { ask("anna", &format!("guess-{number}")).await });
    let answers = futures_util::future::join_all(guesses).await;
    let refused: Vec<_> = answers.iter().filter(|answer| answer.status() == 429).collect();
    assert_eq!(refused.len(), 10);
    assert!(refused.iter().all(|answer| header(answer, "retry-after").parse::<u64>().unwrap() >= 1));
    assert!(answers.iter().all(|answer| matches!(answer.status().as_u16(), 401 | 429)));
    assert_eq!(ask("bert", "secret").await.status(), 401, "other names are asked as before");
}

#[tokio::test]
async fn requests_under_way_finish_when_the_server_is_shut_down() {
    let registry = Registry::start().await;
    let location = registry.url(&registry.begin("a").await);
    let (sender, receiver) = tokio::sync::mpsc::channel::<Result<Vec<u8>, std::io::Error>>(1);
    let stream = futures_util::stream::unfold(receiver, |mut r| async move { r.recv().await.map(|item| (item, r)) });
    let body = reqwest::Body::wrap_stream(stream.boxed());
    let request = tokio::spawn(registry.client.patch(&location).body(body).send());
    sender.send(Ok(b"abc".to_vec())).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let addr = registry.addr;
    let stopping = tokio::spawn(registry.stop());
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(TcpStream::connect(addr).await.is_err(), "no new connections");
    sender.send(Ok(b"def".to_vec())).await.unwrap();
    drop(sender);
    let response = request.await.unwrap().unwrap();
    assert_eq!((response.status().as_u16(), header(&response, "range").as_str()), (202, "0-5"));
    stopping.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn pushing_and_deleting_the_same_things_at_once_never_fails() {
    let registry = std::sync::Arc::new(Registry::start().await);
    let end = std::time::Instant::now() + Duration::from_secs(3);
    let (config, layer) = (&b"{}"[..], &b"layer"[..]);
    let text = std::sync::Arc::new(manifest(OCI_MANIFEST, config, &[layer], ""));
    let tasks: Vec<_> = (0..8)
        .map(|task| {
            let (registry, text) = (registry.clone(), text.clone());
            tokio::spawn(async move {
                let (digest, blob) = (Digest::of(text.as_bytes()), Digest::of(layer));
                let mut rounds = 0;
                while std::time::Instant::now() < end {
                    rounds += 1;
                    match task % 4 {
                        0 | 1 => {
                            registry.push_blob("a", config).await;
                            registry.push_blob("a", layer).await;
                            let status = registry.put_manifest("a", "v1", OCI_MANIFEST, &text).await.status().as_u16();
                            // Another task may have taken a blob away in between.
                            assert!(status == 201 || status == 400, "{status}");
                        }
                        2 => {
                            let at = if rounds % 2 == 0 { "v1".to_owned() } else { digest.to_string() };
                            let status = registry.delete(&format!("/v2/a/manifests/{at}")).await.as_u16();
                            assert!(status == 202 || status == 404, "{status}");
                            let status = registry.delete(&format!("/v2/a/blobs/{blob}")).await.as_u16();
                            assert!(status == 202 || status == 404, "{status}");
                        }
                        _ => {
                            for path in [
                                "/v2/a/manifests/v1".to_owned(),
                                format!("/v2/a/blobs/{blob}"),
                                format!("/v2/a/referrers/{blob}"),
                                "/v2/a/tags/list".into(),
                                "/v2/_catalog".into(),
                            ] {
                                let status = registry.get(&path).await.status().as_u16();
                                assert!(status == 200 || status == 404, "{path}: {status}");
                            }
                        }
                    }
                }
                rounds
            })
        })
        .collect();
    for task in tasks {
        assert!(task.await.unwrap() > 0);
    }
    // In the end it is all there again.
    registry.push_blob("a", config).await;
    registry.push_blob("a", layer).await;
    assert_eq!(registry.put_manifest("a", "v1", OCI_MANIFEST, &text).await.status(), 201);
    assert_eq!(registry.get("/v2/a/manifests/v1").await.text().await.unwrap(), *text);
}

/// A small file system of its own; `None` where this user may not mount one.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(size: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let options = format!("size={size}");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "none"]).arg(folder.path()).output();
        if mount.is_ok_and(|o| o.status.success()) {
            return Some(Self(folder));
        }
        println!("skipped: a small file system cannot be mounted here");
        None
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

#[tokio::test]
async fn a_full_disk_is_said_so_and_reading_goes_on() {
    let Some(disk) = SmallDisk::mount("24m") else { return };
    let writer = Writer::open(disk.0.path(), Durability::Image).unwrap();
    let running = Server::writable(writer).anonymous(Anonymous::Push).bind(localhost()).await.unwrap();
    let (client, base) = (client(), format!("http://{}", running.addr));
    let put = async |bytes: Vec<u8>, announced: bool| {
        let digest = Digest::of(&bytes);
        let begun = client.post(format!("{base}/v2/a/blobs/uploads/")).send().await.unwrap();
        let location = format!("{base}{}", header(&begun, "location"));
        let body = if announced {
            reqwest::Body::from(bytes)
        } else {
            let pieces: Vec<Result<Vec<u8>, std::io::Error>> = bytes.chunks(100_000).map(|c| Ok(c.to_vec())).collect();
            reqwest::Body::wrap_stream(futures_util::stream::iter(pieces))
        };
        let response = client.put(format!("{location}?digest={digest}")).body(body).send().await.unwrap();
        (response, location)
    };
    let small = vec![1; 1_000_000];
    assert_eq!(put(small.clone(), true).await.0.status(), 201);
    for announced in [true, false] {
        let (response, location) = put(vec![2; 40_000_000], announced).await;
        assert_eq!(response.status(), 507, "announced: {announced}");
        let text = response.text().await.unwrap();
        assert!(text.contains("full") && text.contains("MiB are free"), "{text}");
        assert!(!text.contains(disk.0.path().to_str().unwrap()), "{text}");
        if !announced {
            assert_eq!(client.get(location).send().await.unwrap().status(), 404, "the session is over");
        }
    }
    let blob = format!("{base}/v2/a/blobs/{}", Digest::of(&small));
    assert!(client.get(&blob).send().await.unwrap().bytes().await.unwrap() == small);
    assert_eq!(put(vec![3; 500_000], true).await.0.status(), 201, "what was written in vain is gone");
    assert_eq!(client.delete(&blob).send().await.unwrap().status(), 202);
    running.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn after_an_error_of_the_disk_reading_goes_on_and_writing_begins_again_when_it_works() {
    let root = tempfile::tempdir().unwrap();
    let writer = Writer::open(root.path(), Durability::Image).unwrap();
    let builder = Server::writable(writer.clone()).anonymous(Anonymous::Push).health(localhost());
    let running = builder.bind(localhost()).await.unwrap();
    let (client, base) = (client(), format!("http://{}", running.addr));
    let ready = format!("http://{}/readyz", running.health.unwrap());
    let push = async |bytes: &'static [u8]| {
        let url = format!("{base}/v2/a/blobs/uploads/?digest={}", Digest::of(bytes));
        client.post(url).body(bytes).send().await.unwrap()
    };
    assert_eq!(push(b"before").await.status(), 201);
    writer.flush().unwrap();
    let is_ready = async || client.get(&ready).send().await.unwrap().status() == 200;
    let end = std::time::Instant::now() + Duration::from_secs(120);
    while !is_ready().await && std::time::Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(is_ready().await);
    // A disk that fails is hard to come by; a file in the place of the folder fails in the same way.
    let (uploads, aside) = (root.path().join(".airlock/uploads"), root.path().join(".airlock/aside"));
    std::fs::rename(&uploads, &aside).unwrap();
    std::fs::write(&uploads, "").unwrap();
    let response = push(b"meanwhile").await;
    assert_eq!((response.status().as_u16(), header(&response, "retry-after").as_str()), (503, "30"));
    let text = response.text().await.unwrap();
    assert!(!text.contains(root.path().to_str().unwrap()), "{text}");
    let response = push(b"meanwhile").await;
    assert_eq!((response.status().as_u16(), header(&response, "retry-after").as_str()), (503, "30"));
    assert_eq!(codes(response).await, ["UNAVAILABLE"]);
    assert!(!is_ready().await);
    let blob = format!("{base}/v2/a/blobs/{}", Digest::of(b"before"));
    assert_eq!(client.get(&blob).send().await.unwrap().bytes().await.unwrap(), &b"before"[..]);
    std::fs::remove_file(&uploads).unwrap();
    std::fs::rename(&aside, &uploads).unwrap();
    let end = std::time::Instant::now() + Duration::from_secs(120);
    while !is_ready().await && std::time::Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(push(b"afterwards").await.status(), 201);
    running.shutdown().await.unwrap();
}
