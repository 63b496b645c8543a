//! Showing a registry who asks: Basic, Bearer with tokens that expire, credentials that go only where they belong.
#![allow(clippy::unwrap_used, reason = "a test fails by unwrapping")]

mod support;

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use airlock_client::auth::login::{login, logout};
use airlock_client::{Client, HostCredentials, Options, RegistriesConf, RegistrySink, RegistrySource, Secret};
use airlock_oci::{ErrorKind, Sink, Source};
use airlock_testkit::fixture;
use airlock_testkit::scripted::{Auth, Bearer, Fault, Registry};
use support::{Memory, Told, options, read, repo};

fn authfile(dir: &Path, entries: &[(&str, &str, &str)]) -> PathBuf {
    let auths: serde_json::Map<String, serde_json::Value> = entries
        .iter()
        .map(|(key, user, password)| ((*key).to_owned(), serde_json::json!({"username": user, "password": password})))
        .collect();
    let path = dir.join("auth.json");
    std::fs::write(&path, serde_json::json!({ "auths": auths }).to_string()).unwrap();
    path
}

fn with_file(path: &Path) -> Options {
    Options { anonymous: false, authfile: Some(path.to_owned()), ..options() }
}

fn bearer(change: impl FnOnce(&mut Bearer)) -> Auth {
    let Auth::Bearer(mut rules) = Auth::bearer("me", "pw") else { unreachable!("bearer makes a bearer") };
    change(&mut rules);
    Auth::Bearer(rules)
}

#[tokio::test]
async fn basic_credentials_are_sent_after_the_first_challenge_only() {
    let registry = Registry::builder().auth(Auth::basic("me", "pw")).start();
    let image = fixture::image(1).build();
    registry.put("team/app", &image, Some("v1"));
    let dir = tempfile::tempdir().unwrap();
    let file = authfile(
        dir.path(),
        &[(&registry.address(), "no", "no"), (&format!("{}/team", registry.address()), "me", "pw")],
    );
    let told = Told::default();
    let source = RegistrySource::new(Client::new(told.listen(with_file(&file))).unwrap());
    let name = registry.reference("team/app:v1");
    source.manifest(&name).await.unwrap();
    source.manifest(&name).await.unwrap();
    let sent: Vec<bool> = registry.log().iter().map(|r| r.authorization().is_some()).collect();
    assert_eq!(sent, [false, true, true]);
    assert!(
        told.says(&format!("credential `{}/team` of `{}`", registry.address(), file.display())),
        "{:?}",
        told.all()
    );
}

#[tokio::test]
async fn a_refusal_says_which_credential_was_used_and_never_the_secret() {
    let registry = Registry::builder().auth(Auth::basic("me", "pw")).start();
    let dir = tempfile::tempdir().unwrap();
    let file = authfile(dir.path(), &[(&registry.address(), "me", "hunter2")]);
    let source = RegistrySource::new(Client::new(with_file(&file)).unwrap());
    let error = source.manifest(&registry.reference("team/app:v1")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized);
    let text = format!("{error} {error:?}");
    assert!(text.contains("401 Unauthorized") && text.contains("authentication required"), "{text}");
    assert!(text.contains(&format!("credential `{}` of `{}`", registry.address(), file.display())), "{text}");
    assert!(!text.contains("hunter2"), "{text}");
    assert_eq!(registry.log().len(), 2, "a password that was refused is not sent again");

    let other = authfile(dir.path(), &[("other.example", "me", "hunter2")]);
    let source = RegistrySource::new(Client::new(with_file(&other)).unwrap());
    let error = source.manifest(&registry.reference("team/app:v1")).await.unwrap_err();
    assert!(error.to_string().contains("anonymously: no credential for"), "{error}");
    assert!(error.to_string().contains(&other.display().to_string()), "{error}");
    assert!(error.hint_text().unwrap().contains("airlock login"), "{error}");
}

/// A registry that shows everybody a part of its list, and asks for the password (`me:pw`) only at the ping.
fn lenient() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let (mut head, mut byte) = (Vec::new(), [0]);
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read == 1) {
                head.push(byte[0]);
                // TLS is tried first, and this speaks none.
                if head[0] == 0x16 {
                    break;
                }
            }
            let Ok(head) = String::from_utf8(head) else { continue };
            if !head.starts_with("GET ") {
                continue;
            }
            let is_me = head.contains("Basic bWU6cHc=");
            let (status, more, body) = match head.split(' ').nth(1) {
                Some("/v2/") if !is_me => ("401 Unauthorized", "WWW-Authenticate: Basic realm=\"x\"\r\n", "{}"),
                Some("/v2/") => ("200 OK", "", "{}"),
                _ if is_me => ("200 OK", "", r#"{"repositories":["private","public"]}"#),
                _ => ("200 OK", "", r#"{"repositories":["public"]}"#),
            };
            let length = body.len();
            let answer =
                format!("HTTP/1.1 {status}\r\n{more}Connection: close\r\nContent-Length: {length}\r\n\r\n{body}");
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    address
}

#[tokio::test]
async fn who_has_a_credential_shows_it_before_the_list_of_repositories() {
    let address = lenient();
    let registry = airlock_oci::Registry::new(&address).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let list = async |user: &str, password: &str| {
        let file = authfile(dir.path(), &[(&address, user, password)]);
        Client::new(with_file(&file)).unwrap().catalog(&registry).await
    };
    let all = list("me", "pw").await.unwrap();
    assert_eq!(all.iter().map(ToString::to_string).collect::<Vec<_>>(), ["private", "public"]);
    let error = list("me", "wrong").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error}");
    let other = authfile(dir.path(), &[("other.example", "me", "pw")]);
    let public = Client::new(with_file(&other)).unwrap().catalog(&registry).await.unwrap();
    assert_eq!(public.len(), 1, "who has none goes on without");
}

#[tokio::test]
async fn a_malformed_credential_file_is_named_by_line_and_column() {
    let registry = Registry::builder().auth(Auth::basic("me", "pw")).start();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("auth.json");
    std::fs::write(&path, "{\n  \"auths\": {,}\n}").unwrap();
    let source = RegistrySource::new(Client::new(with_file(&path)).unwrap());
    let error = source.manifest(&registry.reference("team/app:v1")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("line 2 column 13") && error.to_string().contains("auth.json"), "{error}");
}

#[tokio::test]
async fn one_token_serves_many_requests_and_is_fetched_once() {
    let registry = Registry::builder().auth(bearer(|b| b.anonymous_pull = true)).start();
    let image = fixture::image(1).build();
    registry.put("team/app", &image, Some("v1"));
    let source = support::source();
    let name = registry.reference("team/app:v1");
    source.manifest(&name).await.unwrap();
    let many = (0..20).map(|_| source.manifest(&name));
    for result in futures_util::future::join_all(many).await {
        result.unwrap();
    }
    assert_eq!(registry.count("GET", "/token"), 1);
}

#[tokio::test]
async fn tokens_that_expire_are_renewed_also_in_the_middle_of_a_blob() {
    let registry = Registry::builder().auth(bearer(|b| (b.anonymous_pull, b.uses) = (true, 2))).start();
    let image = fixture::image(1).layers(&[2_000_000]).build();
    registry.put("team/app", &image, Some("v1"));
    registry.fault(Fault::on("GET", "/v2/*/blobs/*").first(3).reset_after(300_000));
    let source = support::source();
    let name = registry.reference("team/app:v1");
    source.manifest(&name).await.unwrap();
    let layer = &image.blobs[1];
    let bytes = read(source.blob(&name, &layer.descriptor, 0, None).await.unwrap()).await.unwrap();
    assert_eq!(bytes, layer.bytes);
    assert!(registry.count("GET", "/token") >= 2);
    registry.expire_tokens();
    source.manifest(&name).await.unwrap();

    // A short life is taken at its word: a new token before the old one is refused.
    registry.heal();
    registry.set_auth(bearer(|b| (b.anonymous_pull, b.lifetime) = (true, Duration::from_secs(2))));
    let source = support::source();
    source.manifest(&name).await.unwrap();
    registry.clear_log();
    tokio::time::sleep(Duration::from_millis(1700)).await;
    source.manifest(&name).await.unwrap();
    assert!(registry.log().iter().all(|r| r.status == 200), "{:#?}", registry.log());
    assert_eq!(registry.count("GET", "/token"), 1);
}

#[tokio::test]
async fn a_push_outlives_its_token() {
    let registry = Registry::builder().auth(bearer(|b| b.uses = 1)).start();
    let dir = tempfile::tempdir().unwrap();
    let file = authfile(dir.path(), &[(&registry.address(), "me", "pw")]);
    let sink = RegistrySink::new(Client::new(with_file(&file)).unwrap(), registry.registry(), None).unwrap();
    let image = fixture::image(1).layers(&[700_000]).build();
    for blob in &image.blobs {
        assert!(!sink.has_blob(&repo("app"), &blob.descriptor).await.unwrap());
        sink.write_blob(&repo("app"), &blob.descriptor, &Memory::of(blob)).await.unwrap();
    }
    sink.put_manifest(&repo("app"), &image.manifest, None).await.unwrap();
    assert!(registry.has("app", &image));
}

#[tokio::test]
async fn wrong_credentials_at_the_token_server_and_missing_rights_are_told_apart() {
    let registry = Registry::builder().auth(bearer(|b| b.anonymous_pull = true)).start();
    let dir = tempfile::tempdir().unwrap();
    let file = authfile(dir.path(), &[(&registry.address(), "me", "wrong")]);
    let source = RegistrySource::new(Client::new(with_file(&file)).unwrap());
    let error = source.manifest(&registry.reference("a/b:c")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized);
    assert!(error.to_string().contains("token server") && error.to_string().contains("incorrect username"), "{error}");
    assert!(error.to_string().contains(&file.display().to_string()), "{error}");

    let sink = support::sink(&registry);
    let blob = fixture::blob("a/b", "x");
    let error = sink.write_blob(&repo("app"), &blob.descriptor, &Memory::of(&blob)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized);
    assert!(error.to_string().contains("anonymously"), "{error}");
}

#[tokio::test]
async fn an_identity_token_buys_access_tokens() {
    let registry = Registry::builder().auth(bearer(|b| b.identity_token = Some("refresh+1/=".into()))).start();
    registry.put("a/b", &fixture::image(1).build(), Some("c"));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("auth.json");
    let text = serde_json::json!({"auths": {registry.address(): {"auth": "MDA6", "identitytoken": "refresh+1/="}}});
    std::fs::write(&path, text.to_string()).unwrap();
    let source = RegistrySource::new(Client::new(with_file(&path)).unwrap());
    source.manifest(&registry.reference("a/b:c")).await.unwrap();
    assert_eq!(registry.count("POST", "/token"), 1);
}

#[tokio::test]
async fn credentials_of_the_command_line_go_to_their_host_only() {
    let written = Registry::builder().auth(Auth::basic("me", "pw")).start();
    let mirror = Registry::builder().auth(Auth::basic("other", "other")).start();
    let image = fixture::image(1).build();
    written.put("team/app", &image, Some("v1"));
    let dir = tempfile::tempdir().unwrap();
    let conf = dir.path().join("registries.conf");
    let text = format!(
        "[[registry]]\nlocation = \"{}\"\ninsecure = true\n[[registry.mirror]]\nlocation = \"{}\"\ninsecure = true\n",
        written.address(),
        mirror.address()
    );
    std::fs::write(&conf, text).unwrap();
    let options = Options {
        anonymous: false,
        tls_verify: true,
        authfile: Some(authfile(dir.path(), &[])),
        registries_conf: RegistriesConf::File { path: conf, dropins: Some(dir.path().join("none")) },
        credentials: vec![HostCredentials {
            host: written.address(),
            username: "me".into(),
            password: Secret::new("pw"),
        }],
        ..options()
    };
    let source = RegistrySource::new(Client::new(options).unwrap());
    let found = source.manifest(&written.reference("team/app:v1")).await.unwrap();
    assert_eq!(found.place.0, format!("{}/team/app", written.address()));
    assert!(!mirror.log().is_empty());
    assert!(mirror.log().iter().all(|r| r.authorization().is_none()));
}

#[tokio::test]
async fn login_verifies_and_writes_and_logout_takes_out() {
    let registry = Registry::builder().auth(bearer(|_| {})).start();
    registry.put("a/b", &fixture::image(1).build(), Some("c"));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sub/auth.json");
    let options = Options { authfile: Some(path.clone()), ..options() };
    let name = format!("docker://{}/", registry.address());
    let error = login(options.clone(), &name, "me", &Secret::new("wrong")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized);
    assert!(!path.exists());
    let kept = login(options.clone(), &name, "me", &Secret::new("pw")).await.unwrap();
    assert_eq!((kept.path.as_path(), kept.key.as_str()), (path.as_path(), registry.address().as_str()));
    let source = RegistrySource::new(Client::new(with_file(&path)).unwrap());
    source.manifest(&registry.reference("a/b:c")).await.unwrap();
    assert!(logout(Some(path.clone()), &name).await.unwrap().is_some());
    assert!(logout(Some(path.clone()), &name).await.unwrap().is_none());
    let source = RegistrySource::new(Client::new(with_file(&path)).unwrap());
    assert!(source.manifest(&registry.reference("a/b:c")).await.is_err());
}
