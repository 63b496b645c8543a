//! Rights by repository, and tokens: every route, with the right, without it, and with a right to another repository.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test ends where it fails")]

mod support;

use airlock_oci::Digest;
use airlock_registry::{Anonymous, Rights, Tls, Users};
use reqwest::{Method, Response};
use support::*;

const RIGHTS: &str = "\
reader   team/a   pull
writer   team/a   pull,push
cleaner  team/a   delete
admin    **       admin
other    team/b   admin
";

fn users() -> Users {
    let line = |name: &str| format!("{name}:{}\n", bcrypt::hash(name, 4).unwrap());
    Users::parse(&["reader", "writer", "cleaner", "admin", "other", "nobody"].map(line).concat()).unwrap()
}

async fn start(tokens: bool) -> Registry {
    let registry = Registry::with(|builder| {
        let builder = builder.users(users()).rights(Rights::parse(RIGHTS).unwrap());
        if tokens { builder.tokens() } else { builder }
    })
    .await;
    // Contents that every route finds, put there without asking the server.
    let config = airlock_oci::Descriptor::new("x/y", Digest::of(b"{}"), 2);
    for name in ["team/a", "team/b"] {
        let name = airlock_oci::Repository::new(name).unwrap();
        let mut upload = registry.writer.private_upload(&name, airlock_oci::Algorithm::Sha256).unwrap();
        upload.append(futures_util::stream::iter([Ok(bytes::Bytes::from_static(b"{}"))])).await.unwrap();
        upload.finish(&config.digest).await.unwrap();
        let manifest = airlock_oci::Manifest::parse(text().into(), None).unwrap();
        registry.writer.put_manifest(&name, &manifest, &[airlock_oci::Tag::new("v1").unwrap()]).unwrap();
    }
    registry
}

fn text() -> String {
    manifest(OCI_MANIFEST, b"{}", &[], "")
}

/// Every route of a repository: method, path, and which right it takes.
fn routes(name: &str) -> Vec<(Method, String, &'static str)> {
    let (blob, image) = (Digest::of(b"{}"), Digest::of(text().as_bytes()));
    let session = format!("/v2/{name}/blobs/uploads/0123456789abcdef0123456789abcdef");
    vec![
        (Method::GET, format!("/v2/{name}/tags/list"), "pull"),
        (Method::GET, format!("/v2/{name}/manifests/v1"), "pull"),
        (Method::HEAD, format!("/v2/{name}/manifests/v1"), "pull"),
        (Method::GET, format!("/v2/{name}/manifests/{image}"), "pull"),
        (Method::GET, format!("/v2/{name}/blobs/{blob}"), "pull"),
        (Method::HEAD, format!("/v2/{name}/blobs/{blob}"), "pull"),
        (Method::GET, format!("/v2/{name}/referrers/{image}"), "pull"),
        (Method::PUT, format!("/v2/{name}/manifests/v2"), "push"),
        (Method::POST, format!("/v2/{name}/blobs/uploads/"), "push"),
        (Method::POST, format!("/v2/{name}/blobs/uploads/?mount={blob}&from={name}"), "push"),
        (Method::GET, session.clone(), "push"),
        (Method::PATCH, session.clone(), "push"),
        (Method::PUT, format!("{session}?digest={blob}"), "push"),
        (Method::DELETE, session, "push"),
        (Method::DELETE, format!("/v2/{name}/manifests/nothing"), "delete"),
        (Method::DELETE, format!("/v2/{name}/manifests/{}", Digest::of(b"nothing")), "delete"),
        (Method::DELETE, format!("/v2/{name}/blobs/{}", Digest::of(b"nothing")), "delete"),
    ]
}

fn has(user: &str, name: &str, right: &str) -> bool {
    match user {
        "reader" => name == "team/a" && right == "pull",
        "writer" => name == "team/a" && right != "delete",
        "cleaner" => name == "team/a" && right == "delete",
        "other" => name == "team/b",
        "admin" => true,
        _ => false,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_takes_its_right_in_its_repository() {
    let registry = start(false).await;
    for name in ["team/a", "team/b", "team", "elsewhere/team/a"] {
        for (method, path, right) in routes(name) {
            for user in ["reader", "writer", "cleaner", "admin", "other", "nobody", ""] {
                let mut request = registry.ask(method.clone(), &path).body("x");
                if !user.is_empty() {
                    request = request.basic_auth(user, Some(user));
                }
                let status = request.send().await.unwrap().status().as_u16();
                let refused = if user.is_empty() { 401 } else { 403 };
                assert_eq!(status != refused, has(user, name, right), "{user} {method} {path}: {status}");
                assert!(status < 500);
            }
        }
    }
    // Nothing of a repository that one may not read is told, not even that its name is wrong.
    let wrong = registry.ask(Method::GET, "/v2/UPPER/tags/list").basic_auth("nobody", Some("nobody"));
    assert_eq!(wrong.send().await.unwrap().status(), 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_and_mounts_show_only_what_may_be_read() {
    let registry = start(false).await;
    let catalog = async |user: &str, query: &str| {
        registry.ask(Method::GET, &format!("/v2/_catalog{query}")).basic_auth(user, Some(user)).send().await.unwrap()
    };
    for (user, shown) in [("admin", &["team/a", "team/b"][..]), ("reader", &["team/a"]), ("other", &["team/b"])] {
        assert_eq!(json(catalog(user, "").await).await["repositories"], serde_json::json!(shown), "{user}");
        let first = catalog(user, "?n=1").await;
        assert_eq!(header(&first, "link").is_empty(), shown.len() == 1, "{user}");
    }
    assert_eq!(catalog("nobody", "").await.status(), 403);
    let layer = b"only in b";
    let url = format!("/v2/team/b/blobs/uploads/?digest={}", Digest::of(layer));
    let pushed = registry.ask(Method::POST, &url).basic_auth("other", Some("other")).body(&layer[..]);
    assert_eq!(pushed.send().await.unwrap().status(), 201);
    let mount = async |user: &str, from: &str| {
        let url = format!("/v2/team/a/blobs/uploads/?mount={}{from}", Digest::of(layer));
        registry.ask(Method::POST, &url).basic_auth(user, Some(user)).send().await.unwrap().status().as_u16()
    };
    assert_eq!(mount("writer", "&from=team/b").await, 202, "who may not read the source uploads");
    assert_eq!(mount("writer", "").await, 202, "nor does it come from anywhere");
    assert_eq!(mount("admin", "&from=team/b").await, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_would_see_more_with_a_password_is_asked_for_it_before_the_list() {
    let with_public = format!("{RIGHTS}\n@anonymous team/b pull\n");
    let registry = Registry::with(|b| b.users(users()).rights(Rights::parse(&with_public).unwrap())).await;
    let answer = registry.get("/v2/_catalog").await;
    assert_eq!(answer.status(), 401);
    assert!(header(&answer, "www-authenticate").starts_with("Basic"));
    let known = registry.ask(Method::GET, "/v2/_catalog").basic_auth("reader", Some("reader"));
    assert_eq!(known.send().await.unwrap().status(), 200);
    // Who sees everything, and where nobody can log in, gets the list.
    let open = Registry::with(|b| b.users(users()).anonymous(Anonymous::Pull)).await;
    assert_eq!(
        (open.get("/v2/_catalog").await.status().as_u16(), open.get("/v2/").await.status().as_u16()),
        (200, 401)
    );
    let rights = Rights::parse("@anonymous public/** pull\n").unwrap();
    let nobody = Registry::with(|b| b.rights(rights)).await;
    assert_eq!(nobody.get("/v2/_catalog").await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_users_delete_where_there_are_some() {
    let registry = Registry::with(|b| b.users(users()).anonymous(Anonymous::Push)).await;
    let (_, digest) = registry.push_image("a", "v1", "1").await;
    let path = format!("/v2/a/manifests/{digest}");
    assert_eq!(registry.delete(&path).await, 401);
    let known = registry.ask(Method::DELETE, &path).basic_auth("admin", Some("admin"));
    assert_eq!(known.send().await.unwrap().status(), 202);
}

/// A token for scopes, and whether it was given.
async fn token(registry: &Registry, user: &str, scopes: &[&str]) -> (u16, String) {
    let query: String = scopes.iter().map(|scope| format!("&scope={scope}")).collect();
    let mut request = registry.ask(Method::GET, &format!("/token?service=x{query}"));
    if !user.is_empty() {
        request = request.basic_auth(user, Some(user));
    }
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let answer: serde_json::Value = response.json().await.unwrap();
    assert_eq!(answer["token"], answer["access_token"]);
    assert!(answer["issued_at"].as_str().is_some_and(|at| at.len() == 20 && at.ends_with('Z')), "{answer}");
    (status, answer["token"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_for_what_was_asked_and_allowed() {
    let registry = start(true).await;
    let with = async |token: &str, method: Method, path: &str| -> Response {
        registry.ask(method, path).bearer_auth(token).send().await.unwrap()
    };
    let challenge = registry.get("/v2/").await;
    let host = registry.addr;
    assert_eq!(
        header(&challenge, "www-authenticate"),
        format!("Bearer realm=\"http://{host}/token\",service=\"{host}\"")
    );
    let challenge = registry.ask(Method::PUT, "/v2/team/a/manifests/v2").send().await.unwrap();
    assert!(header(&challenge, "www-authenticate").ends_with(",scope=\"repository:team/a:pull,push\""));
    // The smaller of what is asked and what is allowed.
    let (_, narrow) = token(&registry, "writer", &["repository:team/a:pull"]).await;
    let (_, wide) =
        token(&registry, "writer", &["repository:team/a:pull,push", "repository:team/b:pull,push,delete"]).await;
    let manifest = "/v2/team/a/manifests/v1";
    let uploads = "/v2/team/a/blobs/uploads/";
    assert_eq!(with(&narrow, Method::GET, "/v2/").await.status(), 200);
    assert_eq!(with(&narrow, Method::GET, manifest).await.status(), 200);
    let response = with(&narrow, Method::POST, uploads).await;
    assert_eq!(response.status(), 401);
    let text = header(&response, "www-authenticate");
    assert!(text.contains("error=\"insufficient_scope\"") && text.contains("repository:team/a:pull,push"), "{text}");
    assert_eq!(with(&wide, Method::POST, uploads).await.status(), 202);
    assert_eq!(with(&wide, Method::GET, "/v2/team/b/manifests/v1").await.status(), 403);
    assert_eq!(with(&wide, Method::GET, "/v2/_catalog").await.status(), 401, "it is not for the list");
    let (_, list) = token(&registry, "writer", &["registry:catalog:*"]).await;
    assert_eq!(
        json(with(&list, Method::GET, "/v2/_catalog").await).await["repositories"],
        serde_json::json!(["team/a"])
    );
    // Nobody's, somebody else's, no one's.
    let (status, anonymous) = token(&registry, "", &["repository:team/a:pull"]).await;
    assert_eq!((status, with(&anonymous, Method::GET, manifest).await.status().as_u16()), (200, 401));
    let mut altered = wide.clone();
    altered.replace_range(5..6, if &altered[5..6] == "A" { "B" } else { "A" });
    for bad in [altered.as_str(), "x", "a.b"] {
        let response = with(bad, Method::GET, manifest).await;
        assert_eq!(response.status(), 401);
        assert!(header(&response, "www-authenticate").contains("invalid_token"));
    }
    let wrong = registry.ask(Method::GET, "/token").basic_auth("writer", Some("wrong")).send().await.unwrap();
    assert_eq!(wrong.status(), 401);
    // Passwords go on working, and the form of OAuth2 gives the same tokens.
    let direct = registry.ask(Method::GET, manifest).basic_auth("reader", Some("reader")).send().await.unwrap();
    assert_eq!(direct.status(), 200);
    let form = "grant_type=password&service=x&client_id=c&username=reader&password=reader&scope=repository:team/a:pull";
    let response = registry.ask(Method::POST, "/token").body(form).send().await.unwrap();
    let given = json(response).await["access_token"].as_str().unwrap().to_owned();
    assert_eq!(with(&given, Method::GET, manifest).await.status(), 200);
    for (body, status) in
        [("grant_type=refresh_token", 400), ("grant_type=password&username=reader&password=x", 401), ("%", 400)]
    {
        assert_eq!(registry.ask(Method::POST, "/token").body(body).send().await.unwrap().status(), status, "{body}");
    }
    assert_eq!(registry.ask(Method::PUT, "/token").send().await.unwrap().status(), 405);
    assert_eq!(start(false).await.get("/token").await.status(), 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mount_asks_for_a_token_that_is_for_both_repositories() {
    let registry = start(true).await;
    // It holds the configuration of its image.
    let mount = format!("/v2/team/a/blobs/uploads/?mount={}&from=team/b", Digest::of(b"{}"));
    let with = async |token: &str| registry.ask(Method::POST, &mount).bearer_auth(token).send().await.unwrap();
    let (here, there) = ("repository:team/a:pull,push", "repository:team/b:pull");
    let nobody = registry.ask(Method::POST, &mount).send().await.unwrap();
    assert!(header(&nobody, "www-authenticate").ends_with(&format!(",scope=\"{here} {there}\"")));
    let (_, narrow) = token(&registry, "admin", &[here]).await;
    let refused = with(&narrow).await;
    assert_eq!(refused.status(), 401);
    let challenge = header(&refused, "www-authenticate");
    assert!(challenge.ends_with(&format!(",scope=\"{here} {there}\",error=\"insufficient_scope\"")), "{challenge}");
    let (_, wide) = token(&registry, "admin", &[here, there]).await;
    assert_eq!(with(&wide).await.status(), 201);
    // Who may not read the source could ask for ever: that user uploads.
    let (_, other) = token(&registry, "writer", &[here, there]).await;
    assert_eq!(with(&other).await.status(), 202);
}

#[tokio::test(flavor = "multi_thread")]
async fn real_clients_fetch_tokens() {
    let (Some(skopeo), Some(crane)) = (tool("skopeo"), tool("crane")) else { return };
    let work = tempfile::tempdir().unwrap();
    let certificates = work.path().join("made");
    let registry = Registry::with(|b| {
        let rights = Rights::parse("admin ** admin\nreader a/* pull\n").unwrap();
        let tls = Tls::SelfMade { folder: certificates, names: vec![] };
        b.users(users()).rights(rights).anonymous(Anonymous::None).tokens().tls(tls)
    })
    .await;
    std::fs::create_dir(work.path().join("certs")).unwrap();
    std::fs::write(work.path().join("certs/ca.crt"), registry.ca_pem()).unwrap();
    let host = format!("localhost:{}", registry.addr.port());
    // An image made by hand, in the form of a folder.
    std::fs::create_dir(work.path().join("in")).unwrap();
    std::fs::write(work.path().join("in/version"), "Directory Transport Version: 1.1\n").unwrap();
    std::fs::write(work.path().join("in/manifest.json"), text()).unwrap();
    std::fs::write(work.path().join("in").join(Digest::of(b"{}").hex()), "{}").unwrap();
    let (image, copy) = (format!("docker://{host}/a/b:v1"), format!("docker://{host}/a/c:v1"));
    let push = ["copy", "--preserve-digests", "--dest-cert-dir=certs", "--src-cert-dir=certs"];
    run(&skopeo, &[&push[..], &["--dest-creds=admin:admin", "dir:in", &image]].concat(), work.path()).await.unwrap();
    let creds = ["--src-creds=admin:admin", "--dest-creds=admin:admin", &image, &copy];
    run(&skopeo, &[&push[..], &creds].concat(), work.path()).await.unwrap();
    let reading = ["--src-creds=reader:reader", &copy, "dir:out"];
    run(&skopeo, &[&push[..], &reading].concat(), work.path()).await.unwrap();
    let writing = [&push[..], &["--dest-creds=reader:reader", "dir:in", &image]].concat();
    assert!(run(&skopeo, &writing, work.path()).await.is_err(), "a reader does not write");
    run(&crane, &["auth", "login", &host, "-u", "reader", "-p", "reader"], work.path()).await.unwrap();
    let auth = std::fs::read_to_string(work.path().join("config.json")).unwrap();
    assert!(auth.contains(&host), "{auth}");
    let listed = run(&crane, &["ls", "--insecure", &format!("{host}/a/b")], work.path()).await.unwrap();
    assert_eq!(listed, "v1\n");
}
