//! The page for people: what it shows, to whom, and what it never does, whatever the images call themselves.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test ends where it fails")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use airlock_oci::{Digest, Error, ErrorKind};
use airlock_registry::page::{Catalog, Channel, Component, Content, Describe, Needed, Package, Pin, Release, Version};
use airlock_registry::tls::own::{Folder, Given};
use airlock_registry::{Anonymous, Rights, Tls, Users};
use airlock_store::Verified;
use airlock_store::distribution::{Damage, Fault};
use async_trait::async_trait;
use reqwest::{Method, Response, StatusCode};
use support::*;

/// What would become a script, an attribute or an address if it were not escaped.
const HOSTILE: &str = r#"<script>alert(1)</script>" onmouseover="x' --> javascript:alert(2) &amp; </style></title>"#;
const HELM_CONFIG: &str = "application/vnd.cncf.helm.config.v1+json";

fn labelled(labels: &serde_json::Value) -> Vec<u8> {
    serde_json::json!({
        "architecture": "amd64", "os": "linux", "created": "2026-01-02T03:04:05Z",
        "config": { "Labels": labels },
        "history": [{ "created_by": "COPY everything /" }],
        "rootfs": { "type": "layers", "diff_ids": [] }
    })
    .to_string()
    .into_bytes()
}

impl Registry {
    /// An image with these labels; its digest.
    async fn push_labelled(&self, name: &str, tag: &str, labels: &serde_json::Value) -> Digest {
        let (config, layer) = (labelled(labels), format!("layer of {name}:{tag}"));
        self.push_blob(name, &config).await;
        self.push_blob(name, layer.as_bytes()).await;
        let text = manifest(OCI_MANIFEST, &config, &[layer.as_bytes()], "");
        assert_eq!(self.put_manifest(name, tag, OCI_MANIFEST, &text).await.status(), 201);
        Digest::of(text.as_bytes())
    }

    async fn page(&self, path: &str) -> String {
        let response = self.get(path).await;
        let status = response.status();
        assert_page(&response);
        let text = response.text().await.unwrap();
        assert_eq!(status, 200, "{path}: {text}");
        text
    }
}

/// The headers of every page.
fn assert_page(response: &Response) {
    assert_eq!(header(response, "content-type"), "text/html; charset=utf-8");
    let policy = header(response, "content-security-policy");
    assert!(policy.starts_with("default-src 'none'; style-src 'self'; img-src 'self'"), "{policy}");
    assert!(policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe") && !policy.contains("script"));
    assert_eq!(header(response, "x-content-type-options"), "nosniff");
    assert_eq!(header(response, "x-frame-options"), "DENY");
    assert_eq!(header(response, "referrer-policy"), "no-referrer");
    assert_eq!(header(response, "cache-control"), "private, no-store");
}

/// Every element is one of ours, nothing runs, nothing comes from elsewhere.
fn assert_harmless(page: &str) {
    let mut rest = page;
    while let Some(at) = rest.find('<') {
        let end = rest[at..].find('>').unwrap_or_else(|| panic!("an element without an end: {}", &rest[at..]));
        let element = &rest[at + 1..at + end];
        let name: String = element.trim_start_matches('/').chars().take_while(|c| c.is_ascii_alphanumeric()).collect();
        let known = [
            "", "html", "head", "meta", "title", "link", "body", "a", "header", "div", "img", "span", "strong", "form",
            "label", "input", "button", "p", "b", "nav", "ul", "ol", "li", "main", "footer", "h1", "h2", "h3",
            "section", "table", "caption", "thead", "tbody", "tr", "th", "td", "code", "pre", "dl", "dt", "dd",
            "details", "summary", "time", "br", "wbr",
        ];
        assert!(known.contains(&name.as_str()), "<{element}>");
        // What stands in quotes is a value.
        let bare: String = element.split('"').step_by(2).collect();
        assert!(!bare.contains(" on") && !bare.contains(" style="), "<{element}>");
        for address in element.split(" href=\"").skip(1).chain(element.split(" src=\"").skip(1)) {
            assert!(address.starts_with('/') && !address.starts_with("//") || address.starts_with('#'), "<{element}>");
        }
        rest = &rest[at + end + 1..];
    }
    assert!(!page.contains("<script"));
}

#[tokio::test]
async fn it_shows_what_is_here_and_what_it_is() {
    let registry = Registry::start().await;
    let release = registry
        .push_labelled(
            "openshift/release-images",
            "4.18.5-x86_64",
            &serde_json::json!({"io.openshift.release": "4.18.5"}),
        )
        .await;
    registry
        .push_labelled(
            "openshift/release-images",
            "4.9.12-x86_64",
            &serde_json::json!({"io.openshift.release": "4.9.12"}),
        )
        .await;
    let label = serde_json::json!({"operators.operatorframework.io.index.configs.v1": "/configs"});
    registry.push_labelled("redhat/redhat-operator-index", "v4.18", &label).await;
    let chart = br#"{"name":"podinfo","version":"6.7.1"}"#;
    registry.push_blob("charts/podinfo", chart).await;
    registry.push_blob("charts/podinfo", b"chart").await;
    let text =
        manifest(OCI_MANIFEST, chart, &[b"chart"], "").replace("application/vnd.oci.image.config.v1+json", HELM_CONFIG);
    assert_eq!(registry.put_manifest("charts/podinfo", "6.7.1", OCI_MANIFEST, &text).await.status(), 201);
    let (image, digest) = registry.push_image("team/app", "v1", "app").await;
    // One platform is here, the other is not.
    let children = [(OCI_MANIFEST, image.as_str()), (OCI_MANIFEST, "not here")];
    let both = index(OCI_INDEX, &children, "");
    let both = both.replacen(r#""size""#, r#""platform":{"os":"linux","architecture":"s390x"},"size""#, 1);
    assert_eq!(registry.put_manifest("team/app", "multi", OCI_INDEX, &both).await.status(), 201);
    // A signature by each of the two ways.
    let subject = format!(r#","subject":{}"#, descriptor(OCI_MANIFEST, image.as_bytes()));
    registry.push_blob("team/app", b"{}").await;
    let signature = manifest(OCI_MANIFEST, b"{}", &[], &subject)
        .replace("application/vnd.oci.image.config.v1+json", "application/vnd.dev.sigstore.bundle.v0.3+json");
    assert_eq!(
        registry
            .put_manifest("team/app", &Digest::of(signature.as_bytes()).to_string(), OCI_MANIFEST, &signature)
            .await
            .status(),
        201
    );
    registry.push_image("team/app", &format!("sha256-{}.sig", digest.hex()), "signature").await;
    // An image that nothing leads to.
    let (_, lonely) = registry.push_image("team/app", "", "lonely").await;

    let page = registry.page("/").await;
    for text in ["4.18.5", "redhat/redhat-operator-index:v4.18", "podinfo", "6.7.1", "team/app", "Not verified yet"] {
        assert!(page.contains(text), "{text}\n{page}");
    }
    assert!(page.contains("<strong>2</strong><span>Releases</span>"), "{page}");
    assert!(page.contains("<strong>1</strong><span>Operator catalog</span>"), "{page}");
    assert!(page.contains("<strong>1</strong><span>Helm chart</span>"), "{page}");
    // Newest first, as people count.
    let releases = registry.page("/releases").await;
    assert!(releases.find("4.18.5").unwrap() < releases.find("4.9.12").unwrap());

    let page = registry.page("/r/team/app").await;
    assert!(page.contains(r#"href="/r/team/app:v1""#) && page.contains(r#"href="/r/team/app:multi""#), "{page}");
    assert!(!page.contains(".sig"), "signatures are behind what they sign:\n{page}");
    assert!(page.contains("1 tag is not shown") && page.contains("1 image without a tag"), "{page}");
    assert!(page.contains("(1 platform not mirrored)"), "{page}");
    let page = registry.page("/r/team/app?untagged=1").await;
    assert!(page.contains(&lonely.to_string()) && !page.contains(&digest.to_string()), "{page}");

    let page = registry.page("/r/team/app:v1").await;
    for text in
        [digest.to_string().as_str(), "cosign signature", "application/vnd.dev.sigstore.bundle.v0.3+json", "1 layer"]
    {
        assert!(page.contains(text), "{text}\n{page}");
    }
    let page = registry.page("/r/team/app:multi").await;
    assert!(page.contains("linux/s390x") && page.contains("Not mirrored"), "{page}");
    let page = registry.page(&format!("/r/openshift/release-images@{release}")).await;
    assert!(page.contains("COPY everything /") && page.contains("io.openshift.release"), "{page}");
    assert!(page.contains(&format!("/release/openshift/release-images@{release}")), "{page}");

    // Every link of every page leads somewhere.
    let mut queue = vec!["/".to_owned(), "/search?q=app".to_owned()];
    let mut seen = std::collections::BTreeSet::new();
    while let Some(path) = queue.pop() {
        if !seen.insert(path.clone()) {
            continue;
        }
        let response = registry.get(&path).await;
        let status = response.status();
        assert!(status == 200 || path == "/login" && status == 303, "{path}: {status}");
        if header(&response, "content-type") != "text/html; charset=utf-8" {
            continue;
        }
        let text = response.text().await.unwrap();
        assert_harmless(&text);
        queue.extend(text.split(" href=\"").skip(1).filter_map(|rest| {
            let address = rest.split('"').next().unwrap().replace("&amp;", "&");
            address.starts_with('/').then_some(address)
        }));
    }
    assert!(seen.len() > 15, "{seen:?}");
}

#[tokio::test]
async fn a_change_shows_within_seconds() {
    let registry = Registry::start().await;
    assert!(registry.page("/").await.contains("Nothing is here yet"));
    let (_, digest) = registry.push_image("team/app", "v1", "app").await;
    let end = Instant::now() + Duration::from_secs(120);
    while !registry.page("/").await.contains("team/app") {
        assert!(Instant::now() < end, "what was pushed does not show");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    registry.delete(&format!("/v2/team/app/manifests/{digest}")).await;
    let end = Instant::now() + Duration::from_secs(120);
    while registry.page("/repositories").await.contains("team/app") {
        assert!(Instant::now() < end, "what was deleted still shows");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(registry.get("/r/team/app:v1").await.status(), 404);
}

#[tokio::test]
async fn whatever_an_image_says_is_text() {
    let registry = Registry::start().await;
    let labels = serde_json::json!({
        HOSTILE: HOSTILE, "long": "x".repeat(100_000), "io.openshift.release": HOSTILE,
        "line": "a\nb\u{0}c\u{202e}d"
    });
    let config = labelled(&labels);
    registry.push_blob("evil/image", &config).await;
    registry.push_blob("evil/image", b"layer").await;
    let fields = serde_json::json!({ HOSTILE: HOSTILE }).to_string();
    let text = manifest(OCI_MANIFEST, &config, &[b"layer"], &format!(r#","annotations":{fields}"#));
    assert_eq!(registry.put_manifest("evil/image", "v1", OCI_MANIFEST, &text).await.status(), 201);
    let chart = serde_json::json!({ "name": HOSTILE, "version": HOSTILE }).to_string();
    registry.push_blob("evil/image", chart.as_bytes()).await;
    let text = manifest(OCI_MANIFEST, chart.as_bytes(), &[b"layer"], "")
        .replace("application/vnd.oci.image.config.v1+json", HELM_CONFIG);
    assert_eq!(registry.put_manifest("evil/image", "chart", OCI_MANIFEST, &text).await.status(), 201);
    let artifact = serde_json::to_string(HOSTILE).unwrap();
    registry.push_blob("evil/image", b"{}").await;
    let text = manifest(OCI_MANIFEST, b"{}", &[], &format!(r#","artifactType":{artifact}"#))
        .replace("application/vnd.oci.image.config.v1+json", "application/vnd.oci.empty.v1+json");
    assert_eq!(registry.put_manifest("evil/image", "artifact", OCI_MANIFEST, &text).await.status(), 201);

    let question: String = HOSTILE.bytes().map(|b| format!("%{b:02X}")).collect();
    for path in [
        "/",
        "/releases",
        "/charts",
        "/r/evil/image",
        "/r/evil/image:v1",
        "/r/evil/image:chart",
        "/r/evil/image:artifact",
        &format!("/search?q={question}"),
        &format!("/repositories?last={question}"),
    ] {
        let page = registry.page(path).await;
        assert_harmless(&page);
        assert!(page.len() < 100_000, "{path}: {} bytes", page.len());
    }
    // In an answer that says no, too.
    for path in [format!("/r/{question}"), format!("/r/a:{question}"), format!("/catalog/a@{question}")] {
        let response = registry.get(&path).await;
        assert_eq!(response.status(), 400, "{path}");
        assert_harmless(&response.text().await.unwrap());
    }
    // A name that is none is not believed.
    let response = registry.ask(Method::GET, "/clusters").header("host", "a\"><script>").send().await;
    if let Ok(response) = response {
        assert_harmless(&response.text().await.unwrap());
    }
}

/// Reads nothing, and has found so many files damaged.
struct Damaged(usize);

#[async_trait]
impl Describe for Damaged {
    async fn catalog(&self, _: Content) -> Result<Catalog, Error> {
        Ok(Catalog { packages: Vec::new(), cut: false })
    }

    async fn release(&self, _: Content) -> Result<Release, Error> {
        Err(Error::new(ErrorKind::NotFound, "read a release", "it has none"))
    }

    fn verified(&self) -> Option<Verified> {
        let damage = |number: usize| Damage {
            digest: Digest::of(number.to_string().as_bytes()),
            fault: Fault::Missing,
            images: vec!["b/app:v1".to_owned()],
            affected: 1,
        };
        let damage = (0..self.0).map(damage).collect();
        Some(Verified { at: std::time::SystemTime::now(), files: 9, bytes: 999, damage })
    }
}

#[tokio::test]
async fn everybody_sees_what_he_may_pull_and_nothing_else() {
    let text = |name: &str| format!("{name}:{}\n", bcrypt::hash("secret", 4).unwrap());
    let users = Users::parse(&["root", "anna", "nobody"].map(text).concat()).unwrap();
    let rights = Rights::parse("root ** admin\nanna a/** pull\n@anonymous open/app pull\n").unwrap();
    let describe = Arc::new(Damaged(3));
    let registry = Registry::with(|builder| builder.users(users).rights(rights).tokens().describe(describe)).await;
    let client = client();
    let ask = |user: Option<&str>, path: &str| {
        let request = client.get(registry.url(path));
        match user {
            Some(user) => request.basic_auth(user, Some("secret")),
            None => request,
        }
        .send()
    };
    // One of every kind that has a page of its own is where only some may look.
    let release = labelled(&serde_json::json!({"io.openshift.release": "4.18.77"}));
    let catalog = labelled(&serde_json::json!({"operators.operatorframework.io.index.configs.v1": "/configs"}));
    let chart = br#"{"name":"chart-of-b","version":"6.7.89"}"#.to_vec();
    let pushed = [
        ("a/app", b"{}".to_vec(), ""),
        ("b/app", b"{}".to_vec(), ""),
        ("open/app", b"{}".to_vec(), ""),
        ("b/release", release, ""),
        ("b/catalog", catalog, ""),
        ("b/chart", chart, HELM_CONFIG),
    ];
    for (name, config, kind) in &pushed {
        for blob in [config.as_slice(), b"layer"] {
            let start = client.post(registry.url(&format!("/v2/{name}/blobs/uploads/?digest={}", Digest::of(blob))));
            let start = start.basic_auth("root", Some("secret")).body(blob.to_vec());
            assert_eq!(start.send().await.unwrap().status(), 201);
        }
        let put = client.put(registry.url(&format!("/v2/{name}/manifests/v1"))).header("content-type", OCI_MANIFEST);
        let text = manifest(OCI_MANIFEST, config, &[b"layer"], &format!(r#","annotations":{{"n":"{name}"}}"#));
        let kind = if kind.is_empty() { "application/vnd.oci.image.config.v1+json" } else { *kind };
        let text = text.replace("application/vnd.oci.image.config.v1+json", kind);
        assert_eq!(put.basic_auth("root", Some("secret")).body(text).send().await.unwrap().status(), 201);
    }
    // What those pages show of them, besides their names.
    let offers = [("/releases", "4.18.77"), ("/catalogs", "b/catalog"), ("/charts", "chart-of-b")];
    let names = ["a/app", "b/app", "open/app"];
    for (user, visible) in [
        (Some("root"), &names[..]),
        (Some("anna"), &["a/app", "open/app"]),
        (Some("nobody"), &["open/app"]),
        (None, &["open/app"]),
    ] {
        for path in
            ["/", "/repositories", "/search?q=app", "/search?q=v1", "/clusters", "/releases", "/catalogs", "/charts"]
        {
            let response = ask(user, path).await.unwrap();
            assert_eq!(response.status(), 200, "{user:?} {path}");
            let page = response.text().await.unwrap();
            let of_b = ["b/release", "b/catalog", "b/chart", "4.18.77", "chart-of-b"];
            if user == Some("root") {
                for (place, word) in offers {
                    assert!(path != place && path != "/" || page.contains(word), "{path} {word}:\n{page}");
                }
            } else {
                assert!(of_b.iter().all(|word| !page.contains(word)), "{user:?} {path}:\n{page}");
            }
            // How much is damaged where he may not look is not his to know.
            assert_eq!(page.contains("3 files were damaged"), path == "/" && user == Some("root"), "{user:?} {path}");
            for name in names {
                let shows = matches!(path, "/" | "/repositories" | "/search?q=app" | "/search?q=v1");
                assert_eq!(page.contains(name), shows && visible.contains(&name), "{user:?} {path} {name}");
            }
        }
        for name in names {
            let expected = match (visible.contains(&name), user) {
                (true, _) => StatusCode::OK,
                (false, Some(_)) => StatusCode::FORBIDDEN,
                (false, None) => StatusCode::UNAUTHORIZED,
            };
            for path in [format!("/r/{name}"), format!("/r/{name}:v1"), format!("/r/{name}:no-such-tag")] {
                let status = ask(user, &path).await.unwrap().status();
                let missing = path.ends_with("no-such-tag") && expected == StatusCode::OK;
                assert_eq!(status, if missing { StatusCode::NOT_FOUND } else { expected }, "{user:?} {path}");
            }
        }
    }
    // Browsers know no tokens: they are asked for a password even where clients are given tokens.
    let response = ask(None, "/r/a/app").await.unwrap();
    assert_eq!(header(&response, "www-authenticate"), "Basic realm=\"Airlock registry\", charset=\"UTF-8\"");
    assert_page(&response);
    assert_eq!(ask(None, "/login").await.unwrap().status(), 401);
    let response = ask(Some("anna"), "/login").await.unwrap();
    assert_eq!((response.status(), header(&response, "location").as_str()), (StatusCode::SEE_OTHER, "/"));
    let wrong = client.get(registry.url("/")).basic_auth("anna", Some("wrong")).send().await.unwrap();
    assert_eq!(wrong.status(), 401);
    assert!(header(&wrong, "www-authenticate").starts_with("Basic "));
    // The style sheet says nothing of anybody.
    let style = ask(None, "/page/style.css").await.unwrap();
    assert_eq!((style.status(), header(&style, "content-type").as_str()), (StatusCode::OK, "text/css; charset=utf-8"));
}

#[tokio::test]
async fn without_a_right_there_is_no_page() {
    let users = || Users::parse(&format!("anna:{}\n", bcrypt::hash("secret", 4).unwrap())).unwrap();
    let paths = [
        "/",
        "/releases",
        "/catalogs",
        "/charts",
        "/repositories",
        "/search?q=a",
        "/clusters",
        "/ca.crt",
        "/r/a",
        "/r/a:b",
        "/r/..",
        "/release/x",
    ];
    let locked = Registry::with(|builder| builder.users(users())).await;
    let closed = Registry::with(|builder| builder).await;
    let open = Registry::with(|builder| builder.users(users()).anonymous(Anonymous::Pull)).await;
    for path in paths {
        assert_eq!(locked.client.get(locked.url(path)).send().await.unwrap().status(), 401, "{path}");
        assert_eq!(closed.client.get(closed.url(path)).send().await.unwrap().status(), 403, "{path}");
        let status = open.client.get(open.url(path)).send().await.unwrap().status();
        assert!(matches!(status.as_u16(), 200 | 400 | 404), "{path}: {status}");
    }
    // The protocol's own answers are as they were.
    let response = locked.client.get(locked.url("/no/such/thing")).send().await.unwrap();
    assert_eq!(codes(response).await, ["UNAUTHORIZED"]);
    let response = open.client.get(open.url("/no/such/thing")).send().await.unwrap();
    assert_eq!(codes(response).await, ["NAME_UNKNOWN"]);
}

#[tokio::test]
async fn it_is_read_and_never_written() {
    let registry = Registry::start().await;
    registry.push_image("team/app", "v1", "app").await;
    for path in ["/", "/r/team/app", "/search?q=x", "/page/style.css"] {
        let (got, head) = (registry.get(path).await, registry.head(path).await);
        assert_eq!(got.status(), head.status(), "{path}");
        assert_eq!(header(&head, "content-type"), header(&got, "content-type"));
        let length: usize = header(&head, "content-length").parse().unwrap();
        let text = got.text().await.unwrap();
        // The time that it tells may have gone on.
        assert!(length.abs_diff(text.len()) < 16, "{path}");
        assert!(head.bytes().await.unwrap().is_empty());
        for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS] {
            let response = registry.ask(method.clone(), path).body("x").send().await.unwrap();
            assert_eq!(
                (response.status(), header(&response, "allow").as_str()),
                (StatusCode::METHOD_NOT_ALLOWED, "GET, HEAD"),
                "{method} {path}"
            );
        }
    }
    for path in ["/r/team/app:gone", "/r/team/gone", "/r/team/gone:v1", &format!("/r/team/app@{}", Digest::of(b"gone"))]
    {
        let response = registry.get(path).await;
        assert_page(&response);
        assert_eq!(response.status(), 404, "{path}");
    }
}

#[tokio::test]
async fn thousands_of_tags_come_in_pages() {
    let registry = Registry::start().await;
    let (_, digest) = registry.push_image("big/one", "v0", "app").await;
    let folder = registry.root.path().join("docker/registry/v2/repositories/big/one/_manifests/tags");
    for number in 1..1234 {
        let tag = folder.join(format!("v{number:04}/current"));
        std::fs::create_dir_all(&tag).unwrap();
        std::fs::write(tag.join("link"), digest.to_string()).unwrap();
    }
    let (mut path, mut tags, mut pages) = ("/r/big/one".to_owned(), 0, 0);
    loop {
        let page = registry.page(&path).await;
        assert!(page.len() < 200_000, "{path}: {}", page.len());
        tags += page.matches(r#"<a href="/r/big/one:v"#).count();
        pages += 1;
        let Some((before, _)) = page.split_once(r#"" rel="next""#) else { break };
        path = before.rsplit('"').next().unwrap().replace("&amp;", "&");
    }
    assert_eq!((tags, pages), (1234, 13));
    let page = registry.page("/search?q=v012").await;
    assert_eq!(page.matches(r#"<a href="/r/big/one:v"#).count(), 10);
    let page = registry.page("/search?q=v").await;
    assert!(page.matches(r#"<a href="/r/big/one:v"#).count() == 100 && page.contains("There is more"), "{page}");
    let page = registry.page(&format!("/search?q={digest}")).await;
    assert!(page.contains("Images with this digest"), "{page}");
}

#[tokio::test]
async fn the_page_does_not_grow_with_an_image() {
    let registry = Registry::start().await;
    let layers: Vec<String> = (0..1000).map(|n| format!("layer {n}")).collect();
    let layers: Vec<&[u8]> = layers.iter().map(|l| l.as_bytes()).collect();
    registry.push_blob("huge/image", b"{}").await;
    for layer in &layers {
        registry.push_blob("huge/image", layer).await;
    }
    let annotations: serde_json::Map<_, _> =
        (0..5000).map(|n| (format!("k{n}"), serde_json::Value::from("v".repeat(200)))).collect();
    let fields = format!(r#","annotations":{}"#, serde_json::Value::Object(annotations));
    let text = manifest(OCI_MANIFEST, b"{}", &layers, &fields);
    assert_eq!(registry.put_manifest("huge/image", "v1", OCI_MANIFEST, &text).await.status(), 201);
    let page = registry.page("/r/huge/image:v1").await;
    assert!(page.contains("1\u{202f}000 layers") && page.contains("and 500 more"), "{page}");
    assert!(page.len() < 500_000, "{}", page.len());
    let children: Vec<String> = (0..2000).map(|n| format!("child {n}")).collect();
    let children: Vec<(&str, &str)> = children.iter().map(|c| (OCI_MANIFEST, c.as_str())).collect();
    assert_eq!(
        registry.put_manifest("huge/image", "index", OCI_INDEX, &index(OCI_INDEX, &children, "")).await.status(),
        201
    );
    let page = registry.page("/r/huge/image:index").await;
    assert!(page.contains("and 1\u{202f}500 more") && page.len() < 300_000, "{}", page.len());
}

#[tokio::test]
async fn damage_is_told_and_not_hidden() {
    let registry = Registry::start().await;
    let (text, _) = registry.push_image("team/app", "v1", "app").await;
    let writer = registry.writer.clone();
    let scrub = move || writer.flush().and_then(|()| writer.scrub(None)).unwrap();
    let scrubbed = tokio::task::spawn_blocking(scrub.clone()).await.unwrap();
    assert!(scrubbed.damage.is_empty());
    let page = registry.page("/").await;
    assert!(page.contains("Nothing is damaged or missing") && !page.contains("Not verified yet"), "{page}");
    let layer = Digest::of(b"layer app");
    let path = format!("docker/registry/v2/blobs/sha256/{}/{}/data", &layer.hex()[..2], layer.hex());
    std::fs::write(registry.root.path().join(path), "LAYER APP").unwrap();
    assert_eq!(tokio::task::spawn_blocking(scrub).await.unwrap().damage.len(), 1);
    let page = registry.page("/").await;
    assert!(
        page.contains("Damaged") && page.contains("its bytes have changed") && page.contains("team/app@"),
        "{page}"
    );
    let digest = Digest::of(text.as_bytes());
    assert!(registry.page(&format!("/r/team/app@{digest}")).await.contains("was damaged or missing"));
    // A manifest that cannot be read leaves its row, and the rest of the page.
    let path = format!("docker/registry/v2/blobs/sha256/{}/{}/data", &digest.hex()[..2], digest.hex());
    std::fs::write(registry.root.path().join(path), "nonsense").unwrap();
    registry.push_image("team/app", "v2", "other").await;
    let page = registry.page("/r/team/app").await;
    assert!(page.contains("cannot be served") && page.contains("/r/team/app:v2"), "{page}");
    assert_eq!(registry.get("/r/team/app:v1").await.status(), 404);
}

/// Describes one catalog and one release, and counts how often it is asked.
#[derive(Default)]
struct Scripted {
    asked: AtomicUsize,
    needed: Vec<Digest>,
}

#[async_trait]
impl Describe for Scripted {
    async fn catalog(&self, _: Content) -> Result<Catalog, Error> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let package = |number: usize| {
            let bundle: Arc<str> = format!("op{number}.v1").into();
            let needs =
                self.needed.iter().map(|d| Needed { pin: Pin::of(d), source: "registry.example.com/team/app".into() });
            Package {
                name: format!("op{number:03}"),
                display_name: Some(HOSTILE.to_owned()),
                default_channel: Some("stable".to_owned()),
                channels: vec![Channel {
                    name: "stable".into(),
                    head: Some(bundle.clone()),
                    bundles: vec![bundle.clone()],
                }],
                versions: vec![Version { bundle, version: Some("1.2.3".into()), needs: needs.collect(), unpinned: 1 }],
            }
        };
        Ok(Catalog { packages: (0..250).map(package).collect(), cut: false })
    }

    async fn release(&self, image: Content) -> Result<Release, Error> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        if image.repository.as_str() == "broken/release" {
            return Err(Error::new(ErrorKind::NotFound, "read `/secret/place`", "no such file"));
        }
        let component = |(number, digest): (usize, &Digest)| Component {
            name: format!("component-{number}"),
            needed: Needed { pin: Pin::of(digest), source: "quay.io/openshift-release-dev/ocp-v4.0-art-dev".into() },
            digest: digest.clone(),
        };
        let components = self.needed.iter().enumerate().map(component).collect();
        Ok(Release { version: "4.18.5".into(), components, previous: vec!["4.18.4".into()] })
    }
}

#[tokio::test]
async fn releases_and_catalogs_are_held_against_what_is_here() {
    let image = {
        let registry = Registry::start().await;
        registry.push_image("team/app", "v1", "app").await.1
    };
    let describe = Arc::new(Scripted { needed: vec![image, Digest::of(b"missing")], ..Scripted::default() });
    let registry = Registry::with(|builder| builder.anonymous(Anonymous::Push).describe(describe.clone())).await;
    registry.push_image("team/app", "v1", "app").await;
    let release = registry
        .push_labelled(
            "openshift/release-images",
            "4.18.5-x86_64",
            &serde_json::json!({"io.openshift.release": "4.18.5"}),
        )
        .await;
    let broken = registry
        .push_labelled("broken/release", "x", &serde_json::json!({"io.openshift.release": "0.0.1", "b": "c"}))
        .await;
    let catalog = registry
        .push_labelled(
            "redhat/index",
            "v4.18",
            &serde_json::json!({"operators.operatorframework.io.index.configs.v1": "/configs"}),
        )
        .await;

    let page = registry.page(&format!("/release/openshift/release-images@{release}")).await;
    assert!(page.contains("Incomplete") && page.contains("1 component is") && page.contains("component-1"), "{page}");
    assert!(page.contains("Updates from: 4.18.4"), "{page}");
    let page = registry.page(&format!("/release/broken/release@{broken}")).await;
    assert!(page.contains("a part of it is not in this registry") && !page.contains("secret"), "{page}");
    assert!(registry.page("/releases").await.contains("1 of 2"));

    let place = format!("/catalog/redhat/index@{catalog}");
    let page = registry.page(&place).await;
    assert!(page.contains("op000") && page.contains("op099") && !page.contains("op100"), "{page}");
    assert!(page.contains("250 packages") && page.contains("1 of 2") && page.contains("1 without a digest"), "{page}");
    assert_harmless(&page);
    let page = registry.page(&format!("{place}?last=op199")).await;
    assert!(page.contains("op200") && page.contains("op249") && !page.contains("rel=\"next\""), "{page}");
    let page = registry.page(&format!("{place}?filter=OP24")).await;
    assert!(page.contains("10 packages") && page.contains("op249") && !page.contains("op250"), "{page}");
    let page = registry.page(&format!("{place}?package=op007")).await;
    assert!(page.contains("stable") && page.contains("1.2.3") && page.contains("op7.v1"), "{page}");
    assert_harmless(&page);
    assert_eq!(registry.get(&format!("{place}?package=no-such")).await.status(), 404);
    let before = describe.asked.load(Ordering::SeqCst);
    registry.page(&place).await;
    assert_eq!(describe.asked.load(Ordering::SeqCst), before, "what was read is kept");
    assert!(registry.page("/search?q=op007").await.contains("package=op007"));

    let page = registry.page("/clusters").await;
    for text in [
        "- source: quay.io/openshift-release-dev/ocp-v4.0-art-dev",
        &format!("- {}/team/app", registry.addr),
        "- source: quay.io/openshift-release-dev/ocp-release",
        &format!("- {}/openshift/release-images", registry.addr),
        "- source: registry.example.com/team/app",
        &format!("image: {}/redhat/index:v4.18", registry.addr),
    ] {
        assert!(page.contains(text), "{text}\n{page}");
    }
    // Without anybody who reads them, releases and catalogs are images.
    let plain = Registry::start().await;
    let digest = plain
        .push_labelled(
            "redhat/index",
            "v4.18",
            &serde_json::json!({"operators.operatorframework.io.index.configs.v1": "/configs"}),
        )
        .await;
    assert!(plain.page(&format!("/catalog/redhat/index@{digest}")).await.contains("cannot be read"));
}

#[tokio::test]
async fn over_tls_the_ca_and_the_password_go_with_the_snippets() {
    let registry = Registry::on(Face::TlsWithPassword).await;
    let page = registry.page("/clusters").await;
    let key = registry.addr.to_string().replace(':', "..");
    assert!(page.contains(&format!("  {key}: |")) && page.contains("BEGIN CERTIFICATE"), "{page}");
    assert!(page.contains(&format!("podman login --authfile pull-secret.json {}", registry.addr)), "{page}");
    assert!(page.contains("Signed in as"), "{page}");
    let response = registry.get("/ca.crt").await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.text().await.unwrap(), registry.ca_pem());
}

#[tokio::test]
async fn the_page_names_the_ca_of_the_certificate_that_is_shown_now() {
    let (own, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let names = vec!["localhost".to_owned()];
    let now = std::time::SystemTime::now();
    Folder::at(elsewhere.path()).issue(&names, now).unwrap();
    let theirs = |name: &str| std::fs::read_to_string(elsewhere.path().join(name)).unwrap();
    let tls = Tls::Kept { folder: own.path().to_owned(), names };
    let registry = Registry::with(|builder| builder.anonymous(Anonymous::Pull).tls(tls)).await;
    let ask = async |ca: &str, path: &str| {
        // Each with a connection of its own.
        let trusted = reqwest::Certificate::from_pem(ca.as_bytes()).unwrap();
        let client = client_builder().tls_certs_only([trusted]).build().unwrap();
        let response = client.get(format!("https://{}{path}", registry.addr)).send().await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
        response.text().await.unwrap()
    };
    let ours = registry.ca_pem();
    assert_eq!(ask(&ours, "/ca.crt").await, ours);
    let chain = theirs("tls.crt") + &theirs("ca.crt");
    let given = Given::check(chain.as_bytes(), theirs("tls.key").as_bytes(), None, now).unwrap();
    Folder::at(own.path()).put_given(&given).unwrap();
    // It looks at its files once in a second.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(ask(&theirs("ca.crt"), "/ca.crt").await, theirs("ca.crt"));
    let (line, old) = (theirs("ca.crt").lines().nth(1).unwrap().to_owned(), ours.lines().nth(1).unwrap().to_owned());
    let page = ask(&theirs("ca.crt"), "/clusters").await;
    assert!(page.contains(&line) && !page.contains(&old), "{page}");
}
