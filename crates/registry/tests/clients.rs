//! Real clients: skopeo, podman, crane and regctl push and pull, plain, over TLS and with a password; docker-registry serves what they pushed.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test ends where it fails")]

mod support;

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use airlock_oci::Digest;
use airlock_registry::{Anonymous, Server, Tls, Users};
use airlock_store::Storage;
use airlock_store::distribution::Directory;
use support::*;

#[tokio::test(flavor = "multi_thread")]
async fn skopeo_copies_in_and_out_plain() {
    let Some(skopeo) = tool("skopeo") else { return };
    let (registry, work) = (Registry::start().await, tempfile::tempdir().unwrap());
    let index = layout::index(&work.path().join("in")).await;
    let image = format!("docker://{}/deep/er/name:v1", registry.addr);
    let copy = ["copy", "--all", "--preserve-digests", "--src-tls-verify=false", "--dest-tls-verify=false"];
    run(&skopeo, &[&copy[..], &["oci:in:v1", &image]].concat(), work.path()).await.unwrap();
    run(&skopeo, &[&copy[..], &[&image, "dir:out"]].concat(), work.path()).await.unwrap();
    assert_eq!(fs::read(work.path().join("out/manifest.json")).unwrap(), &index[..]);
    // The second repository gets its blobs by mounting.
    let other = image.replace("er/name", "other");
    run(&skopeo, &[&copy[..], &[&image, &other]].concat(), work.path()).await.unwrap();
    let tags = run(&skopeo, &["list-tags", "--tls-verify=false", other.trim_end_matches(":v1")], work.path()).await;
    assert!(tags.unwrap().contains("\"v1\""));
    run(&skopeo, &["delete", "--tls-verify=false", &other], work.path()).await.unwrap();
    assert_eq!(registry.get("/v2/deep/other/manifests/v1").await.status(), 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn skopeo_copies_over_tls_with_a_password_and_not_without() {
    let Some(skopeo) = tool("skopeo") else { return };
    let work = tempfile::tempdir().unwrap();
    let users = Users::parse(&format!("anna:{}", bcrypt::hash("secret", 5).unwrap())).unwrap();
    let certificates = work.path().join("made");
    let registry = Registry::with(|builder| {
        builder.users(users).anonymous(Anonymous::Pull).tls(Tls::SelfMade { folder: certificates, names: vec![] })
    })
    .await;
    fs::create_dir(work.path().join("certs")).unwrap();
    fs::write(work.path().join("certs/ca.crt"), registry.ca_pem()).unwrap();
    layout::index(&work.path().join("in")).await;
    let image = format!("docker://localhost:{}/a/b:v1", registry.addr.port());
    let push = ["copy", "--all", "--preserve-digests", "--dest-cert-dir=certs"];
    let refused = run(&skopeo, &[&push[..], &["oci:in:v1", &image]].concat(), work.path()).await.unwrap_err();
    assert!(refused.to_lowercase().contains("auth"), "{refused}");
    let wrong = [&push[..], &["--dest-creds=anna:wrong", "oci:in:v1", &image]].concat();
    assert!(run(&skopeo, &wrong, work.path()).await.is_err());
    run(&skopeo, &[&push[..], &["--dest-creds=anna:secret", "oci:in:v1", &image]].concat(), work.path()).await.unwrap();
    let pull = ["copy", "--all", "--src-cert-dir=certs", &image, "dir:anonymous"];
    run(&skopeo, &pull, work.path()).await.unwrap();
    let untrusted = run(&skopeo, &["inspect", "--raw", &image], work.path()).await.unwrap_err();
    assert!(untrusted.contains("certificate"), "{untrusted}");
}

#[tokio::test(flavor = "multi_thread")]
async fn both_versions_of_http_are_spoken_over_tls() {
    let work = tempfile::tempdir().unwrap();
    let tls = Tls::SelfMade { folder: work.path().join("made"), names: vec!["mirror.example".into()] };
    let registry = Registry::with(|builder| builder.anonymous(Anonymous::Push).tls(tls)).await;
    let ca = reqwest::Certificate::from_pem(registry.ca_pem().as_bytes()).unwrap();
    let bytes: Vec<u8> = (0..5_000_000_u32).map(|i| (i % 239) as u8).collect();
    let digest = Digest::of(&bytes);
    for (only_http1, version) in [(false, reqwest::Version::HTTP_2), (true, reqwest::Version::HTTP_11)] {
        // The certificate is also for the names that were given, not only for this machine.
        let mut client = reqwest::Client::builder().no_proxy().tls_certs_only([ca.clone()]);
        client = client.resolve("mirror.example", registry.addr);
        if only_http1 {
            client = client.http1_only();
        }
        let client = client.build().unwrap();
        let base = format!("https://mirror.example:{}/v2/a", registry.addr.port());
        let url = format!("{base}/blobs/uploads/?digest={digest}");
        let response = client.post(url).body(bytes.clone()).send().await.unwrap();
        assert_eq!((response.status().as_u16(), response.version()), (201, version));
        let got = client.get(format!("{base}/blobs/{digest}")).send().await.unwrap();
        assert!(got.bytes().await.unwrap() == bytes);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn podman_pulls_and_pushes() {
    let (Some(podman), Some(skopeo)) = (tool("podman"), tool("skopeo")) else { return };
    let (registry, work) = (Registry::start().await, tempfile::tempdir().unwrap());
    layout::index(&work.path().join("in")).await;
    let image = format!("{}/a/b:v1", registry.addr);
    let target = format!("docker://{image}");
    run(&skopeo, &["copy", "--all", "--dest-tls-verify=false", "oci:in:v1", &target], work.path()).await.unwrap();
    let storage = ["--root=store", "--runroot=run", "--storage-driver=vfs"];
    if let Err(why) = run(&podman, &[&storage[..], &["images"]].concat(), work.path()).await {
        assert!(std::env::var_os("AIRLOCK_REQUIRE_TOOLS").is_none(), "{why}");
        println!("skipped: podman cannot keep images here: {why}");
        return;
    }
    run(&podman, &[&storage[..], &["pull", "--tls-verify=false", &image]].concat(), work.path()).await.unwrap();
    let other = image.replace("a/b:v1", "from/podman:v2");
    run(&podman, &[&storage[..], &["push", "--tls-verify=false", &image, &other]].concat(), work.path()).await.unwrap();
    assert_eq!(registry.get("/v2/from/podman/manifests/v2").await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn crane_copies_and_validates() {
    let (Some(crane), Some(skopeo)) = (tool("crane"), tool("skopeo")) else { return };
    let (registry, work) = (Registry::start().await, tempfile::tempdir().unwrap());
    layout::index(&work.path().join("in")).await;
    let image = format!("{}/a/b:v1", registry.addr);
    let target = format!("docker://{image}");
    run(&skopeo, &["copy", "--all", "--dest-tls-verify=false", "oci:in:v1", &target], work.path()).await.unwrap();
    let copy = image.replace("a/b:v1", "c/d:v2");
    run(&crane, &["copy", "--insecure", &image, &copy], work.path()).await.unwrap();
    run(&crane, &["validate", "--insecure", "--remote", &copy], work.path()).await.unwrap();
    run(&crane, &["tag", "--insecure", &copy, "v3"], work.path()).await.unwrap();
    assert_eq!(run(&crane, &["ls", "--insecure", &copy.replace(":v2", "")], work.path()).await.unwrap(), "v2\nv3\n");
    let catalog = run(&crane, &["catalog", "--insecure", &registry.addr.to_string()], work.path()).await.unwrap();
    assert_eq!(catalog, "a/b\nc/d\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn regctl_copies_referrers_deletes_and_finds_blobs_mounted() {
    let (Some(regctl), Some(skopeo)) = (tool("regctl"), tool("skopeo")) else { return };
    let (registry, work) = (Registry::start().await, tempfile::tempdir().unwrap());
    layout::index(&work.path().join("in")).await;
    let (image, copy) = (format!("{}/a/b:v1", registry.addr), format!("{}/c/d:v2", registry.addr));
    let target = format!("docker://{image}");
    run(&skopeo, &["copy", "--all", "--dest-tls-verify=false", "oci:in:v1", &target], work.path()).await.unwrap();
    let host = format!("reg={},tls=disabled", registry.addr);
    let regctl = async |args: &[&str]| run(&regctl, &[&["--host", &host], args].concat(), work.path()).await;
    fs::write(work.path().join("sbom.txt"), "what is inside").unwrap();
    let put = ["artifact", "put", "--artifact-type", "x/sbom", "--subject", &image, "--file", "sbom.txt"];
    regctl(&put).await.unwrap();
    let listed = regctl(&["artifact", "list", &image]).await.unwrap();
    assert!(listed.contains("x/sbom"), "{listed}");
    regctl(&["image", "copy", "--referrers", &image, &copy]).await.unwrap();
    assert!(regctl(&["artifact", "list", "--filter-artifact-type", "x/sbom", &copy]).await.unwrap().contains("x/sbom"));
    assert_eq!(regctl(&["artifact", "get", "--subject", &copy]).await.unwrap().trim(), "what is inside");
    // The client sees that the registry keeps referrers, and writes no fallback tag.
    assert_eq!(regctl(&["tag", "ls", &copy]).await.unwrap(), "v2\n");
    assert!(regctl(&["repo", "ls", &registry.addr.to_string()]).await.unwrap().contains("c/d"));
    regctl(&["tag", "delete", &copy]).await.unwrap();
    assert_eq!(registry.get("/v2/c/d/manifests/v2").await.status(), 404);
    let digest = regctl(&["image", "digest", &image]).await.unwrap();
    let pinned = format!("{}@{}", image.trim_end_matches(":v1"), digest.trim());
    regctl(&["manifest", "delete", &pinned]).await.unwrap();
    assert_eq!(registry.get("/v2/a/b/manifests/v1").await.status(), 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn docker_registry_serves_what_was_pushed_and_we_serve_it_read_only() {
    let (Some(skopeo), Some(docker_registry)) = (tool("skopeo"), tool("docker-registry")) else { return };
    let (registry, work) = (Registry::start().await, tempfile::tempdir().unwrap());
    let index = layout::index(&work.path().join("in")).await;
    let image = format!("docker://{}/a/b:v1", registry.addr);
    let copy = ["copy", "--all", "--preserve-digests", "--src-tls-verify=false", "--dest-tls-verify=false"];
    run(&skopeo, &[&copy[..], &["oci:in:v1", &image]].concat(), work.path()).await.unwrap();
    let root = registry.stop().await;

    let config = work.path().join("config.yml");
    let end = Instant::now() + Duration::from_secs(120);
    // Until it gets the port that was free a moment before.
    let (mut child, port) = 'started: loop {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        fs::write(
            &config,
            format!(
                "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n",
                root.path().display()
            ),
        )
        .unwrap();
        let mut child = Command::new(&docker_registry)
            .args(["serve", config.to_str().unwrap()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        while child.try_wait().unwrap().is_none() {
            if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() || Instant::now() > end {
                break 'started (child, port);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(Instant::now() < end, "docker-registry does not start");
    };
    let theirs = format!("docker://127.0.0.1:{port}/a/b:v1");
    let copied = run(&skopeo, &[&copy[..], &[&theirs, "dir:theirs"]].concat(), work.path()).await;
    child.kill().unwrap();
    child.wait().unwrap();
    copied.unwrap();
    assert_eq!(fs::read(work.path().join("theirs/manifest.json")).unwrap(), &index[..]);

    let directory = Directory::open(root.path()).unwrap();
    assert_eq!(directory.repositories().unwrap().len(), 1);
    let running =
        Server::read_only(std::sync::Arc::new(directory)).anonymous(Anonymous::Push).bind(localhost()).await.unwrap();
    let ours = format!("docker://{}/a/b:v1", running.addr);
    run(&skopeo, &[&copy[..], &[&ours, "dir:ours"]].concat(), work.path()).await.unwrap();
    assert_eq!(fs::read(work.path().join("ours/manifest.json")).unwrap(), &index[..]);
    let refused = run(&skopeo, &[&copy[..], &["oci:in:v1", &ours.replace("v1", "v2")]].concat(), work.path()).await;
    assert!(refused.unwrap_err().contains("read-only"));
    running.shutdown().await.unwrap();
}
