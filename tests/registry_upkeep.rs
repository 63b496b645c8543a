//! The promise: a registry's storage is kept in order while it serves: what is damaged is found, named and brought back from the
//! archive that it came with; what was deleted gives its space back; users come and go.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by failing")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use airlock_testkit::binary::{Binary, Started};
use airlock_testkit::fixture;
use airlock_testkit::scripted::Registry;

const AIRLOCK: &str = env!("CARGO_BIN_EXE_airlock");
/// Something is missing or altered.
const DAMAGED: i32 = 4;

/// A store that was loaded from an archive and is being served, and where.
struct Loaded {
    binary: Binary,
    server: Started,
    addr: String,
    store: PathBuf,
    archive: PathBuf,
}

impl Loaded {
    fn new() -> Self {
        let upstream = Registry::start();
        upstream.put("demo/web", &fixture::image(1).layers(&[10_000, 2_000_000]).build(), Some("1.0"));
        upstream.put("demo/tool", &fixture::image(2).layers(&[10_000, 40_000]).build(), Some("2.0"));
        let mut binary = Binary::new(AIRLOCK);
        let folder = binary.folder();
        let conf = folder.join("registries.conf");
        let (location, prefix) = (upstream.address(), "registry.example.com");
        std::fs::write(
            &conf,
            format!("[[registry]]\nprefix = \"{prefix}\"\nlocation = \"{location}\"\ninsecure = true\n"),
        )
        .unwrap();
        binary = binary.env("CONTAINERS_REGISTRIES_CONF", conf.display().to_string());
        std::fs::write(
            folder.join("isc.yaml"),
            format!(
                "kind: ImageSetConfiguration\napiVersion: mirror.openshift.io/v2alpha1\nmirror:\n  additionalImages:\n  \
                 - name: {prefix}/demo/web:1.0\n  - name: {prefix}/demo/tool:2.0\n"
            ),
        )
        .unwrap();
        binary.run(["mirror", "-c", "isc.yaml", "file://usb"]).expect_code(0);
        let (server, addr) = serve(&binary);
        let target = format!("docker://{addr}/mirror");
        binary
            .run(["mirror", "-c", "isc.yaml", "--from", "file://usb", &target, "--dest-tls-verify=false"])
            .expect_code(0);
        Self { server, addr, store: folder.join("store"), archive: folder.join("usb"), binary }
    }

    /// The largest file of the storage: a layer.
    fn layer(&self) -> PathBuf {
        let mut files = Vec::new();
        collect(&self.store.join("docker/registry/v2/blobs"), &mut files);
        files.into_iter().max_by_key(|path| std::fs::metadata(path).unwrap().len()).unwrap()
    }

    fn json(&self, arguments: &[&str], code: i32) -> serde_json::Value {
        let outcome = self.binary.run(arguments).expect_code(code);
        serde_json::from_str(&outcome.stdout).unwrap()
    }
}

fn serve(binary: &Binary) -> (Started, String) {
    let arguments = ["registry", "serve", "--root", "store", "--plain-http", "--anonymous", "--listen", "127.0.0.1:0"];
    let mut server = binary.start(arguments);
    let addr = server.until(|stderr| {
        let (_, rest) = stderr.split_once(" at http://")?;
        rest.split_once('\n').map(|(addr, _)| addr.to_owned())
    });
    (server, addr)
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { collect(&path, files) } else { files.push(path) }
    }
}

#[test]
fn what_the_log_says_is_plain_text_where_nobody_watches() {
    let loaded = Loaded::new();
    let said = loaded.server.stderr();
    assert!(said.contains("airlock_registry::audit"), "{said}");
    assert!(!said.contains('\u{1b}'), "{said:?}");
    let quickstart = loaded.binary.run(["quickstart", "--progress", "none"]).expect_code(0);
    assert!(!quickstart.stderr.contains("airlock_registry::audit"), "{}", quickstart.stderr);
}

#[test]
fn flags_that_would_do_nothing_and_files_that_are_not_there_are_refused() {
    let binary = Binary::new(AIRLOCK);
    let refused = binary.run(["registry", "serve", "--root", "store", "--anonymous", "--s3-region", "eu-west-1"]);
    assert!(refused.expect_code(2).stderr.contains("--s3"));
    let absent = binary.run(["registry", "user", "list", "--htpasswd", "nothing"]).expect_code(1);
    assert!(absent.stderr.contains("there is no such file"), "{}", absent.stderr);
}

#[test]
fn damage_is_named_and_brought_back_from_the_archive() {
    let loaded = Loaded::new();
    let store = loaded.store.to_str().unwrap();
    assert_eq!(loaded.json(&["registry", "scrub", "--root", store, "-o", "json"], 0)["damage"], serde_json::json!([]));
    let layer = loaded.layer();
    let mut bytes = std::fs::read(&layer).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&layer, &bytes).unwrap();
    let scrubbed = loaded.json(&["registry", "scrub", "--root", store, "-o", "json"], DAMAGED);
    let digest = scrubbed["damage"][0]["digest"].as_str().unwrap().to_owned();
    assert_eq!(scrubbed["damage"][0]["fault"], "altered");
    assert!(scrubbed["damage"][0]["images"][0].as_str().unwrap().contains("demo/web@sha256:"), "{scrubbed}");
    assert!(layer.display().to_string().contains(digest.trim_start_matches("sha256:")));
    assert!(!layer.exists(), "what is damaged is served no more");
    let archive = format!("file://{}", loaded.archive.display());
    let repaired = loaded.json(&["registry", "repair", "--root", store, "--from", &archive, "-o", "json"], 0);
    assert_eq!(repaired["restored"], serde_json::json!([digest]));
    bytes[middle] ^= 1;
    assert!(std::fs::read(&layer).unwrap() == bytes);
    // Without a registry that serves, the work is done directly; and the result is the same.
    drop(loaded.server);
    std::fs::remove_file(&layer).unwrap();
    let outcome = loaded.binary.run(["registry", "scrub", "--root", "store"]).expect_code(DAMAGED);
    assert!(outcome.stdout.contains("missing") && outcome.stderr.contains("airlock registry repair"), "{outcome:?}");
    let outcome =
        loaded.binary.run(["registry", "repair", "--root", "store", "--from", "usb", "--quick"]).expect_code(0);
    assert!(outcome.stdout.contains("restored"), "{}", outcome.stdout);
    loaded.binary.run(["registry", "scrub", "--root", "store"]).expect_code(0);
}

#[test]
fn what_was_deleted_gives_its_space_back_while_the_rest_is_served() {
    let loaded = Loaded::new();
    let (store, layer) = (loaded.store.to_str().unwrap(), loaded.layer());
    let dry = loaded.json(&["registry", "gc", "--root", store, "--dry-run", "-o", "json"], 0);
    assert_eq!((&dry["removedFiles"], &dry["leased"]), (&0.into(), &0.into()), "{dry}");
    let image = |name: &str| format!("docker://{}/mirror/demo/{name}", loaded.addr);
    let outcome = loaded.binary.run(["image", "digest", &image("web:1.0"), "--tls-verify=false"]).expect_code(0);
    let pinned = format!("{}@{}", image("web"), outcome.stdout.trim());
    loaded.binary.run(["image", "delete", "--yes", &pinned, "--tls-verify=false"]).expect_code(0);
    let collected = loaded.json(&["registry", "gc", "--root", store, "-o", "json"], 0);
    assert!(collected["removedBytes"].as_u64().unwrap() > 2_000_000, "{collected}");
    assert!(!layer.exists());
    loaded.binary.run(["image", "digest", &image("tool:2.0"), "--tls-verify=false"]).expect_code(0);
    drop(loaded.server);
    let table = loaded.binary.run(["registry", "gc", "--root", "store"]).expect_code(0).stdout;
    assert!(table.contains("removed") && table.contains("0 (0 B)"), "{table}");
    loaded.binary.run(["registry", "gc", "--root", "nothing"]).expect_code(1);
}

#[test]
fn users_are_added_changed_listed_and_removed() {
    let binary = Binary::new(AIRLOCK);
    let made = binary.run(["registry", "user", "add", "init"]).expect_code(0).stdout;
    assert_eq!(made.trim().len(), 32);
    binary.run(["registry", "user", "add", "init"]).expect_code(2);
    let mut child = Command::new(AIRLOCK)
        .args(["registry", "user", "add", "mirror", "--password-stdin"])
        .current_dir(binary.folder())
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"my-own-password\n").unwrap();
    assert!(child.wait().unwrap().success());
    let listed = binary.run(["registry", "user", "list", "-o", "json"]).expect_code(0).stdout;
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&listed).unwrap()["users"],
        serde_json::json!(["init", "mirror"])
    );
    let changed = binary.run(["registry", "user", "passwd", "init"]).expect_code(0).stdout;
    assert!(changed != made);
    binary.run(["registry", "user", "remove", "mirror"]).expect_code(0);
    binary.run(["registry", "user", "remove", "mirror"]).expect_code(1);
    assert_eq!(binary.run(["registry", "user", "list"]).expect_code(0).stdout, "USER\ninit\n");
}
