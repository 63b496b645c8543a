//! The promise: whatever a registry, its storage, archives or layouts hold can be moved into a registry of ours: everything that belongs
//! together, every byte compared with its digest, nothing fetched twice; and what only old imports brought goes when it is asked for.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by failing")]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use airlock_testkit::binary::{Binary, Started};
use airlock_testkit::contents::{Contents, altered, blob_path};
use airlock_testkit::fixture::{self, Built};
use airlock_testkit::process::Running;
use airlock_testkit::scripted::{Fault, Registry};
use airlock_testkit::target::{Program, Target};
use airlock_testkit::tools;
use serde_json::Value;

const AIRLOCK: &str = env!("CARGO_BIN_EXE_airlock");
/// Some of it could not be had.
const PARTIAL: i32 = 3;
/// Something is missing or altered.
const DAMAGED: i32 = 4;
/// No space.
const FULL: i32 = 6;

/// A registry with one of everything.
struct Old {
    registry: Registry,
    web: Built,
    tool: Built,
    sparse: Built,
    signature: fixture::Attached,
    sbom: Built,
}

impl Old {
    fn new() -> Self {
        let registry = Registry::start();
        let amd64 = fixture::image(1).layers(&[10_000, 200_000]).platform("linux/amd64").build();
        let arm64 = fixture::image(2).layers(&[10_000, 300_000]).platform("linux/arm64").build();
        let web = fixture::index(&[amd64.clone(), arm64.clone()]).build();
        let tool = fixture::image(3).docker().layers(&[40_000]).build();
        let sparse = fixture::index(&[amd64]).absent(&[arm64]).build();
        let signature = fixture::cosign(&web);
        let sbom = fixture::artifact(4, "application/spdx+json").layers(&[5_000]).subject(&tool).build();
        registry.put("demo/web", &web, Some("1.0"));
        registry.put("demo/web", &web, Some("latest"));
        registry.put("demo/web", &signature.image, Some(&signature.tag));
        registry.put("demo/tool", &tool, Some("2.1"));
        registry.put("demo/tool", &sbom, None);
        registry.put("demo/deep/er/sparse", &sparse, Some("s"));
        registry.put("scratch/me", &fixture::image(9).layers(&[70_000]).build(), Some("x"));
        Self { registry, web, tool, sparse, signature, sbom }
    }

    fn url(&self) -> String {
        format!("docker://{}", self.registry.address())
    }

    /// That the storage has everything but `scratch`, as it is.
    #[track_caller]
    fn is_in(&self, root: &Path, prefix: &str) {
        let contents = Contents::read(root);
        let held = |name: &str| contents.repositories.get(&format!("{prefix}{name}")).cloned().unwrap_or_default();
        let web = held("demo/web");
        let digest = self.web.digest().to_string();
        assert_eq!((web.tags.get("1.0"), web.tags.get("latest")), (Some(&digest), Some(&digest)));
        assert_eq!(web.tags.get(&self.signature.tag), Some(&self.signature.image.digest().to_string()));
        assert_eq!(web.manifests.len(), 4, "the index, its two images and the signature");
        let tool = held("demo/tool");
        assert_eq!(tool.tags.get("2.1"), Some(&self.tool.digest().to_string()));
        assert!(tool.manifests.contains(&self.sbom.digest().to_string()), "what names it as its subject came along");
        let sparse = held("demo/deep/er/sparse");
        assert_eq!(sparse.tags.get("s"), Some(&self.sparse.digest().to_string()));
        assert_eq!(sparse.manifests.len(), 2, "an index that lacked a platform lacks it still");
        for built in [&self.web, &self.tool, &self.signature.image, &self.sbom] {
            for blob in built.all_blobs() {
                assert!(contents.blobs.contains_key(&blob.descriptor.digest.to_string()));
            }
        }
        assert_eq!(altered(root), Vec::<String>::new());
        assert_eq!(contents.uploads, Vec::<PathBuf>::new());
    }
}

fn json(binary: &Binary, arguments: &[&str], code: i32) -> Value {
    let outcome = binary.run(arguments).expect_code(code);
    serde_json::from_str(&outcome.stdout).unwrap()
}

/// `registry import` with what every test gives.
fn import(binary: &Binary, source: &str, more: &[&str], code: i32) -> Value {
    let mut arguments = vec!["registry", "import", source, "-o", "json", "--tls-verify=false"];
    arguments.extend(more);
    json(binary, &arguments, code)
}

fn path(binary: &Binary, name: &str) -> PathBuf {
    binary.folder().join(name)
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

/// Everything below a folder, with its bytes, but for what a lock file or a socket is.
fn snapshot(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(path) = open.pop() {
        for entry in fs::read_dir(&path).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                open.push(entry.path());
            } else if entry.file_type().unwrap().is_file() {
                files.push((entry.path(), fs::read(entry.path()).unwrap()));
            }
        }
    }
    files.sort();
    files
}

#[test]
fn a_registry_is_taken_over_with_all_that_belongs_to_its_images() {
    let (old, binary) = (Old::new(), Binary::new(AIRLOCK));
    let into = ["--root", "store", "--exclude", "scratch/**"];
    let dry = import(&binary, &old.url(), &[&into[..], &["--dry-run"]].concat(), 0);
    assert!(!path(&binary, "store").exists(), "a dry run changes nothing");
    assert_eq!(
        (&dry["status"], &dry["dryRun"], &dry["bytes"]["present"]),
        (&"complete".into(), &true.into(), &0.into())
    );
    old.registry.clear_log();
    let report = import(&binary, &old.url(), &into, 0);
    assert_eq!(report["bytes"]["moved"], dry["bytes"]["needed"], "the dry run was exact");
    assert_eq!((&report["generation"], &report["bytes"]["linked"]), (&1.into(), &0.into()));
    assert_eq!(old.registry.fetched_twice(), []);
    assert_eq!(old.registry.count("GET", "/v2/scratch/*"), 0, "what was excluded is not even looked at");
    let store = path(&binary, "store");
    old.is_in(&store, "");
    assert!(report["warnings"][0].as_str().unwrap().contains("sparse"), "{report}");
    assert_eq!(fs::read_dir(store.join(".airlock/import")).unwrap().count(), 1, "only the lock is left");

    // Again: nothing is fetched, and it is a generation of its own.
    old.registry.clear_log();
    let again = import(&binary, &old.url(), &into, 0);
    assert_eq!(
        (&again["generation"], &again["bytes"]["needed"], &again["bytes"]["moved"]),
        (&2.into(), &0.into(), &0.into())
    );
    assert_eq!(old.registry.count("GET", "*/blobs/*"), 0);
    let listed = json(&binary, &["registry", "generations", "--root", "store", "-o", "json"], 0);
    assert_eq!(listed.as_array().unwrap().len(), 2);
    assert_eq!(
        (&listed[1]["state"], &listed[1]["tags"], &listed[1]["manifests"]),
        (&"complete".into(), &5.into(), &8.into())
    );
    assert_eq!(listed[1]["source"], old.url());
    let table = binary.run(["registry", "generations", "--root", "store"]).expect_code(0).stdout;
    assert!(table.contains("complete") && table.contains("docker://"), "{table}");
    binary.run(["registry", "scrub", "--root", "store"]).expect_code(0);
    assert_eq!(json(&binary, &["registry", "gc", "--root", "store", "-o", "json"], 0)["removedFiles"], 0);

    // docker-registry serves it, and skopeo takes an image out of it.
    let (Some(served), Some(skopeo)) = (Target::start_over(Program::DockerRegistry2, &store), tools::need("skopeo"))
    else {
        return;
    };
    let mut command = Command::new(skopeo);
    command.args(["copy", "--all", "--preserve-digests", "--src-tls-verify=false"]);
    command.arg(format!("docker://{}/demo/web:1.0", served.address()));
    assert!(command.arg(format!("dir:{}", path(&binary, "out").display())).status().unwrap().success());
}

#[test]
fn names_are_chosen_and_put_below_a_prefix_also_where_there_is_no_catalog() {
    let (old, binary) = (Old::new(), Binary::new(AIRLOCK));
    import(&binary, &old.url(), &["--root", "store", "--include", "demo/**", "--prefix", "mirror/old"], 0);
    old.is_in(&path(&binary, "store"), "mirror/old/");
    let below = import(&binary, &format!("{}/demo/deep", old.url()), &["--root", "below", "--dry-run"], 0);
    assert_eq!(below["images"].as_array().unwrap().len(), 1);
    old.registry.fault(Fault::on("GET", "/v2/_catalog*").status(404));
    let refused = binary.run(["registry", "import", &old.url(), "--root", "other", "--tls-verify=false"]);
    assert!(refused.code != Some(0) && refused.stderr.contains("--include"), "{}", refused.stderr);
    let named = import(&binary, &old.url(), &["--root", "other", "--include", "demo/tool", "--include", "demo/w*"], 0);
    assert_eq!(named["images"].as_array().unwrap().len(), 1, "{named}");
    let one = import(&binary, &format!("{}/demo/web", old.url()), &["--root", "other"], 0);
    assert_eq!(one["status"], "complete");
    let nothing =
        binary.run(["registry", "import", &old.url(), "--root", "o", "--include", "no/*", "--tls-verify=false"]);
    assert!(nothing.code != Some(0), "{}", nothing.stderr);
    binary.run(["registry", "import", &old.url(), "--root", "o", "--include", "A//b"]).expect_code(2);
    binary.run(["registry", "import", &old.url()]).expect_code(2);
}

#[test]
fn what_cannot_be_had_is_named_and_the_rest_is_there() {
    let (old, binary) = (Old::new(), Binary::new(AIRLOCK));
    let layer = old.tool.all_blobs()[1].descriptor.digest.clone();
    let at = format!("/v2/demo/tool/blobs/{layer}");
    old.registry.fault(Fault::on("GET", &at).wrong_bytes());
    let report = import(&binary, &old.url(), &["--root", "store"], PARTIAL);
    let failed: Vec<_> = report["images"].as_array().unwrap().iter().filter(|i| i["status"] == "failed").collect();
    assert_eq!((failed.len(), &failed[0]["name"]), (1, &"demo/tool:2.1".into()), "{report}");
    assert!(failed[0]["errors"][0]["cause"].as_str().unwrap().contains(&layer.to_string()), "{failed:?}");
    let store = path(&binary, "store");
    assert!(!blob_path(&store, &layer.to_string()).exists(), "wrong bytes are not taken");
    assert_eq!(altered(&store), Vec::<String>::new());
    let listed = json(&binary, &["registry", "generations", "--root", "store", "-o", "json"], 0);
    assert_eq!(listed[0]["state"], "partial");
    old.registry.heal();
    old.registry.clear_log();
    import(&binary, &old.url(), &["--root", "store"], 0);
    old.is_in(&store, "");
    assert_eq!(old.registry.count("GET", "*/blobs/*"), 1, "only what was missing is fetched");
    // Nothing at all: no generation is left of it.
    let empty = Binary::new(AIRLOCK);
    old.registry.fault(Fault::on("GET", "*/blobs/*").status(404));
    let report = import(&empty, &old.url(), &["--root", "store", "--include", "demo/tool"], 1);
    assert_eq!((&report["status"], report.get("generation")), (&"failed".into(), None));
    assert_eq!(json(&empty, &["registry", "generations", "--root", "store", "-o", "json"], 0), serde_json::json!([]));
}

/// A registry with images that take a while, and where their largest blob lies.
fn slow() -> (Registry, Vec<Built>) {
    let registry = Registry::start();
    let images: Vec<Built> =
        (0..6).map(|seed| fixture::image(100 + seed).layers(&[300_000, 6_000_000]).build()).collect();
    for (number, image) in images.iter().enumerate() {
        registry.put(&format!("team/app{number}"), image, Some("v1"));
    }
    (registry, images)
}

#[test]
fn a_killed_import_goes_on_where_it_stopped() {
    let ((registry, images), binary) = (slow(), Binary::new(AIRLOCK));
    let url = format!("docker://{}", registry.address());
    let arguments = [
        "registry",
        "import",
        &url,
        "--root",
        "store",
        "--tls-verify=false",
        "--parallel-images",
        "1",
        "--parallel-layers",
        "1",
    ];
    // The largest blob of the third image stands still in its middle: whatever came before it is there by then.
    let third = images[2].all_blobs().into_iter().max_by_key(|b| b.bytes.len()).unwrap().descriptor.clone();
    let at = format!("/v2/team/app2/blobs/{}", third.digest);
    registry.fault(Fault::on("GET", &at).stall_after(4_000_000, Duration::from_secs(120)));
    let started = binary.start(arguments);
    let store = path(&binary, "store");
    let partial = store.join(format!(".airlock/import/sha256-{}", third.digest.hex()));
    let end = Instant::now() + Duration::from_secs(60);
    while fs::metadata(&partial).map_or(0, |m| m.len()) < 2_000_000 {
        assert!(Instant::now() < end, "{}", started.stderr());
        std::thread::sleep(Duration::from_millis(10));
    }
    // Without warning.
    drop(started);
    registry.heal();
    let unfinished = json(&binary, &["registry", "generations", "--root", "store", "-o", "json"], 0);
    assert_eq!((&unfinished[0]["state"], &unfinished[0]["number"]), (&"unfinished".into(), &1.into()));
    let kept = fs::metadata(&partial).unwrap().len();
    let before = registry.log().len();
    let dry = import(&binary, &url, &["--root", "store", "--dry-run"], 0);
    let left = snapshot(&store.join(".airlock/import")).iter().map(|(_, bytes)| bytes.len() as u64).sum::<u64>();
    assert_eq!(dry["bytes"]["resumed"].as_u64().unwrap(), left, "{}", dry["bytes"]);
    let report = import(&binary, &url, &["--root", "store"], 0);
    assert_eq!(report["generation"], 2);
    let log = registry.log();
    let blobs: Vec<_> = log[..].iter().filter(|r| r.method == "GET" && r.path.contains("/blobs/")).collect();
    for image in &images {
        for blob in image.all_blobs() {
            let asked = blobs.iter().filter(|r| r.path.ends_with(&blob.descriptor.digest.to_string())).count();
            let expected = if blob.descriptor.digest == third.digest { 2 } else { 1 };
            assert_eq!(asked, expected, "{}", blob.descriptor.digest);
        }
    }
    let resumed = log[before..].iter().find(|r| r.path == at).unwrap();
    assert_eq!(resumed.header("range"), Some(&*format!("bytes={kept}-")));
    assert_eq!(altered(&store), Vec::<String>::new());
    let listed = json(&binary, &["registry", "generations", "--root", "store", "-o", "json"], 0);
    assert_eq!(
        (listed.as_array().unwrap().len(), &listed[0]["state"]),
        (1, &"complete".into()),
        "one import, one record"
    );
}

#[test]
fn an_import_killed_anywhere_leaves_storage_that_is_whole() {
    let ((registry, images), binary) = (slow(), Binary::new(AIRLOCK));
    let url = format!("docker://{}", registry.address());
    let arguments = ["registry", "import", &url, "--root", "store", "--tls-verify=false"];
    let store = path(&binary, "store");
    for round in 1..12 {
        if binary.kill_after(Duration::from_millis(25 * round), arguments).is_some() {
            break;
        }
        let contents = Contents::read(&store);
        assert_eq!(altered(&store), Vec::<String>::new());
        for (name, held) in &contents.repositories {
            for tag in held.tags.values() {
                assert!(held.manifests.contains(tag) && contents.blobs.contains_key(tag), "{name}: {tag}");
                assert_eq!(held.layers.len(), 3, "{name}: an image that has its name is whole");
            }
        }
    }
    import(&binary, &url, &["--root", "store"], 0);
    assert_eq!(Contents::read(&store).repositories.len(), images.len());
    binary.run(["registry", "scrub", "--root", "store"]).expect_code(0);
}

#[test]
fn storage_is_taken_over_by_links_and_what_is_damaged_there_is_not() {
    let (old, binary) = (Old::new(), Binary::new(AIRLOCK));
    // docker-registry 2.8 writes its storage itself; it takes no sparse index and keeps referrers in a tag.
    let theirs = path(&binary, "theirs");
    let Some(server) = Target::start_over(Program::DockerRegistry2, &theirs) else { return };
    let to = format!("docker://{}", server.address());
    import(&binary, &old.url(), &["--to", &to, "--exclude", "**/sparse"], 0);
    // An image that is known by its digest only, as those of releases are.
    let pinned = fixture::image(20).layers(&[900_000]).build();
    old.registry.put("demo/pinned", &pinned, Some("v1"));
    let from = format!("{}/demo/pinned:v1", old.url());
    binary.run(["image", "copy", &from, &format!("{to}/demo/pinned:v1"), "--tls-verify=false"]).expect_code(0);
    // By its API, while it serves: all that its tags lead to.
    import(&binary, &to, &["--root", "by-api"], 0);
    let (theirs_now, by_api) = (Contents::read(&theirs), Contents::read(&path(&binary, "by-api")));
    assert_eq!(by_api.repositories.keys().collect::<Vec<_>>(), theirs_now.repositories.keys().collect::<Vec<_>>());
    for (name, held) in &theirs_now.repositories {
        let taken = &by_api.repositories[name];
        assert_eq!((&taken.tags, &taken.manifests), (&held.tags, &held.manifests), "{name}");
    }
    drop(server);
    fs::remove_dir_all(theirs.join("docker/registry/v2/repositories/demo/pinned/_manifests/tags/v1")).unwrap();
    let before = snapshot(&theirs);
    let source = theirs.to_str().unwrap();
    let dry = import(&binary, source, &["--root", "store", "--dry-run"], 0);
    let report = import(&binary, source, &["--root", "store"], 0);
    assert_eq!(report["bytes"]["linked"], dry["bytes"]["needed"], "{}", report["bytes"]);
    assert_eq!(report["bytes"]["moved"], report["bytes"]["linked"], "all of it lies on one file system");
    let store = path(&binary, "store");
    let inode = |root: &Path, digest: &str| fs::metadata(blob_path(root, digest)).unwrap().ino();
    let layer = |built: &Built| built.all_blobs()[1].descriptor.digest.to_string();
    assert_eq!(inode(&theirs, &layer(&pinned)), inode(&store, &layer(&pinned)));
    let manifest = pinned.digest().to_string();
    assert!(inode(&theirs, &manifest) != inode(&store, &manifest), "docker-registry writes manifests in place");
    let (a, b) = (Contents::read(&theirs), Contents::read(&store));
    assert_eq!(a.repositories, b.repositories, "every repository, tag, manifest and layer");
    assert_eq!(a.blobs, b.blobs);
    assert!(snapshot(&theirs) == before, "the source is as it was");
    assert!(binary.run(["registry", "import", source, "--root", source]).code == Some(2), "into itself");

    // A flipped byte: named, not taken, and everything else is there.
    let damaged = blob_path(&theirs, &layer(&pinned));
    let mut bytes = fs::read(&damaged).unwrap();
    bytes[450_000] ^= 1;
    fs::remove_file(&damaged).unwrap();
    fs::write(&damaged, &bytes).unwrap();
    for (name, more) in [("linked", &[][..]), ("copied", &["--copy"][..])] {
        let report = import(&binary, source, &[&["--root", name], more].concat(), PARTIAL);
        let failed: Vec<_> = report["images"].as_array().unwrap().iter().filter(|i| i["status"] == "failed").collect();
        assert_eq!((failed.len(), &failed[0]["name"]), (1, &format!("demo/pinned@{manifest}").into()), "{report}");
        assert!(failed[0]["errors"][0]["cause"].as_str().unwrap().contains(&layer(&pinned)), "{failed:?}");
        let taken = path(&binary, name);
        assert!(!blob_path(&taken, &layer(&pinned)).exists() && altered(&taken).is_empty());
        assert_eq!(Contents::read(&taken).repositories["demo/tool"], b.repositories["demo/tool"]);
        if name == "copied" {
            assert_eq!(report["bytes"]["linked"], 0);
            assert!(inode(&theirs, &layer(&old.tool)) != inode(&taken, &layer(&old.tool)));
        }
    }
    assert!(fs::read(&damaged).unwrap() == bytes, "the source is only read");
}

#[test]
fn archives_and_layouts_are_taken_over() {
    let (old, binary) = (Old::new(), Binary::new(AIRLOCK));
    let name = old.registry.address();
    fs::write(
        path(&binary, "isc.yaml"),
        format!(
            "kind: ImageSetConfiguration\napiVersion: mirror.openshift.io/v2alpha1\nmirror:\n  additionalImages:\n  \
             - name: {name}/demo/web:1.0\n  - name: {name}/demo/tool:2.1\n"
        ),
    )
    .unwrap();
    binary.run(["mirror", "-c", "isc.yaml", "file://usb", "--tls-verify=false"]).expect_code(0);
    let report = import(&binary, "file://usb", &["--root", "store"], 0);
    let contents = Contents::read(&path(&binary, "store"));
    assert_eq!(contents.repositories["demo/web"].tags["1.0"], old.web.digest().to_string());
    assert!(contents.repositories["demo/web"].tags.contains_key(&old.signature.tag), "{report}");
    assert_eq!(contents.repositories["demo/tool"].tags["2.1"], old.tool.digest().to_string());
    assert_eq!(altered(&path(&binary, "store")), Vec::<String>::new());
    assert_eq!(import(&binary, "usb", &["--root", "store"], 0)["bytes"]["needed"], 0);

    // One layout; then several, each in the folder of its name, as zot keeps them.
    for (image, layout) in
        [("demo/web:1.0", "lay:1.0"), ("demo/tool:2.1", "zot/a/tool:2.1"), ("demo/web:1.0", "zot/web:1.0")]
    {
        fs::create_dir_all(path(&binary, "zot/a")).unwrap();
        let from = format!("{}/{image}", old.url());
        binary.run(["image", "copy", &from, &format!("oci:{layout}"), "--tls-verify=false"]).expect_code(0);
    }
    import(&binary, "oci:lay", &["--root", "layout", "--name", "demo/web"], 0);
    let contents = Contents::read(&path(&binary, "layout"));
    assert_eq!(contents.repositories["demo/web"].tags["1.0"], old.web.digest().to_string());
    let report = import(&binary, "zot", &["--root", "zots"], 0);
    assert!(report["bytes"]["linked"].as_u64().unwrap() > 0, "files of a layout are linked too: {}", report["bytes"]);
    let contents = Contents::read(&path(&binary, "zots"));
    assert_eq!(contents.repositories.keys().collect::<Vec<_>>(), ["a/tool", "web"]);
    assert_eq!(contents.repositories["a/tool"].tags["2.1"], old.tool.digest().to_string());
    let nothing = binary.run(["registry", "import", "lay/blobs", "--root", "store"]).expect_code(1);
    assert!(nothing.stderr.contains("neither registry storage"), "{}", nothing.stderr);
}

#[test]
fn the_storage_of_zot_is_taken_over() {
    let Some(zot) = tools::need("zot") else { return };
    let (old, binary) = (Old::new(), Binary::new(AIRLOCK));
    let folder = binary.folder();
    let root = folder.join("zot-root");
    let server = Running::start(&folder.join("zot.log"), |port| {
        let config = serde_json::json!({
            "distSpecVersion": "1.1.1",
            "storage": {"rootDirectory": root, "gc": false},
            "http": {"address": "127.0.0.1", "port": port.number().to_string()},
            "log": {"level": "error"},
        });
        fs::write(folder.join("zot.json"), config.to_string()).unwrap();
        let mut command = Command::new(&zot);
        command.arg("serve").arg(folder.join("zot.json"));
        command
    });
    let to = format!("docker://{}", server.address());
    // zot takes Docker's own manifests only when it is told to.
    import(&binary, &old.url(), &["--to", &to, "--include", "demo/web"], 0);
    import(&binary, &to, &["--root", "by-api"], 0);
    drop(server);
    let report = import(&binary, root.to_str().unwrap(), &["--root", "store"], 0);
    assert_eq!(report["bytes"]["linked"], report["bytes"]["needed"], "{report}");
    for name in ["by-api", "store"] {
        let taken = path(&binary, name);
        let web = &Contents::read(&taken).repositories["demo/web"];
        assert_eq!(web.tags["latest"], old.web.digest().to_string());
        assert_eq!((web.manifests.len(), altered(&taken)), (4, Vec::<String>::new()));
    }
}

#[test]
fn an_import_goes_into_the_registry_that_serves_and_collects_meanwhile() {
    let (old, binary) = (Old::new(), Binary::new(AIRLOCK));
    let (server, addr) = serve(&binary);
    let hand = fixture::image(30).layers(&[50_000]).build();
    old.registry.put("own/thing", &hand, Some("v1"));
    let (from, to) = (format!("{}/own/thing:v1", old.url()), format!("docker://{addr}/own/thing:v1"));
    binary.run(["image", "copy", &from, &to, "--tls-verify=false"]).expect_code(0);
    old.registry.content(|content| content.remove_tag("own/thing", "v1"));
    let url = old.url();
    std::thread::scope(|scope| {
        let importing = scope.spawn(|| import(&binary, &url, &["--root", "store"], 0));
        while !importing.is_finished() {
            binary.run(["registry", "gc", "--root", "store"]).expect_code(0);
            binary.run(["image", "digest", &to, "--tls-verify=false"]).expect_code(0);
        }
        assert_eq!(importing.join().unwrap()["generation"], 1);
    });
    // The registry that serves has it at once, names and blobs.
    let web = format!("docker://{addr}/demo/web:latest");
    let digest = binary.run(["image", "digest", &web, "--tls-verify=false"]).expect_code(0).stdout;
    assert_eq!(digest.trim(), old.web.digest().to_string());
    binary.run(["image", "copy", &web, "oci:out:latest", "--tls-verify=false"]).expect_code(0);
    old.is_in(&path(&binary, "store"), "");
    assert!(Contents::read(&path(&binary, "store")).repositories["own/thing"].tags.contains_key("v1"));
    drop(server);
    binary.run(["registry", "scrub", "--root", "store"]).expect_code(0);
}

#[test]
fn what_only_old_imports_brought_goes_and_what_was_pushed_stays() {
    let (old, binary) = (Old::new(), Binary::new(AIRLOCK));
    let (server, addr) = serve(&binary);
    let store = path(&binary, "store");
    let push = |from: &str, to: &str| {
        let (from, to) = (format!("{}/{from}", old.url()), format!("docker://{addr}/{to}"));
        binary.run(["image", "copy", &from, &to, "--tls-verify=false", "--remove-signatures"]).expect_code(0);
    };
    // Pushed before any import had it; pushed while an import has it; and an image of the import under a name of ours.
    let [before, after, only, named] =
        [40, 41, 42, 43].map(|seed| fixture::image(seed).layers(&[60_000 + seed as usize]).build());
    for (name, image) in [("before", &before), ("after", &after), ("only", &only), ("named", &named)] {
        old.registry.put(&format!("app/{name}"), image, Some("v1"));
    }
    push("app/before:v1", "app/before:v1");
    import(&binary, &old.url(), &["--root", "store"], 0);
    // It is there, so that only a question comes: it is relied on all the same.
    push("app/after:v1", "app/after:v1");
    push("app/named:v1", "app/named:mine");
    // Upstream has let everything of `app` go but for one tag, and has a new image.
    for name in ["before", "after", "only", "named"] {
        old.registry.content(|content| content.remove_tag(&format!("app/{name}"), "v1"));
    }
    old.registry.content(|content| content.remove_tag("demo/web", "1.0"));
    let new = fixture::image(44).layers(&[10_000]).build();
    old.registry.put("app/new", &new, Some("v2"));
    import(&binary, &old.url(), &["--root", "store"], 0);

    let same = json(&binary, &["registry", "gc", "--root", "store", "--keep", "2", "--dry-run", "-o", "json"], 0);
    assert_eq!((&same["generations"], &same["removedBytes"]), (&serde_json::json!([]), &0.into()), "{same}");
    let snap = snapshot(&store);
    let dry = json(&binary, &["registry", "gc", "--root", "store", "--keep", "1", "--dry-run", "-o", "json"], 0);
    assert!(snapshot(&store) == snap, "a dry run changes nothing");
    assert_eq!(dry["generations"], serde_json::json!([1]));
    assert_eq!(dry["retiredTags"], serde_json::json!(["app/named:v1", "app/only:v1", "demo/web:1.0"]), "{dry}");
    assert_eq!(dry["retiredManifests"], serde_json::json!([format!("app/only@{}", only.digest())]));
    let table = binary.run(["registry", "gc", "--root", "store", "--keep", "1", "--dry-run"]).expect_code(0).stdout;
    assert!(table.contains("app/only:v1") && table.contains("would be removed"), "{table}");
    let done = json(&binary, &["registry", "gc", "--root", "store", "--keep", "1", "-o", "json"], 0);
    for what in ["retiredTags", "retiredManifests", "removedFiles", "removedBytes", "generations"] {
        assert_eq!(done[what], dry[what], "{what}: the dry run was exact");
    }
    let contents = Contents::read(&store);
    let tags = |name: &str| contents.repositories[name].tags.keys().cloned().collect::<Vec<_>>();
    assert_eq!(
        (tags("app/before"), tags("app/after"), tags("app/named")),
        (vec!["v1".into()], vec!["v1".into()], vec!["mine".into()])
    );
    assert!(
        !contents.repositories.contains_key("app/only") && !contents.blobs.contains_key(&only.digest().to_string())
    );
    assert!(!tags("demo/web").contains(&"1.0".to_owned()) && tags("demo/web").contains(&"latest".to_owned()));
    let missing = format!("docker://{addr}/app/only:v1");
    assert!(binary.run(["image", "digest", &missing, "--tls-verify=false"]).code != Some(0));
    drop(server);
    binary.run(["registry", "scrub", "--root", "store"]).expect_code(0);
    // Offline it is the same; and docker-registry still serves what is left.
    old.registry.content(|content| content.remove_tag("app/new", "v2"));
    import(&binary, &old.url(), &["--root", "store"], 0);
    let done = json(&binary, &["registry", "gc", "--root", "store", "--keep", "1", "-o", "json"], 0);
    assert_eq!(
        (&done["generations"], &done["retiredTags"]),
        (&serde_json::json!([2]), &serde_json::json!(["app/new:v2"]))
    );
    binary.run(["registry", "scrub", "--root", "store"]).expect_code(0);
    let Some(served) = Target::start_over(Program::DockerRegistry2, &store) else { return };
    let image = format!("docker://{}/app/before:v1", served.address());
    binary.run(["image", "copy", &image, "oci:out:v1", "--tls-verify=false"]).expect_code(0);
}

#[test]
fn an_import_heals_what_a_scrub_found_damaged() {
    let (old, binary) = (Old::new(), Binary::new(AIRLOCK));
    import(&binary, &old.url(), &["--root", "store"], 0);
    let store = path(&binary, "store");
    let layer = old.tool.all_blobs().into_iter().max_by_key(|b| b.bytes.len()).unwrap().descriptor.digest.to_string();
    for is_served in [false, true] {
        let _server = is_served.then(|| serve(&binary));
        fs::write(blob_path(&store, &layer), "altered").unwrap();
        binary.run(["registry", "scrub", "--root", "store"]).expect_code(DAMAGED);
        assert!(!blob_path(&store, &layer).exists());
        // The manifest is there, so that nothing but the layer comes.
        import(&binary, &old.url(), &["--root", "store"], 0);
        assert!(blob_path(&store, &layer).exists(), "served: {is_served}");
        binary.run(["registry", "scrub", "--root", "store"]).expect_code(0);
    }
}

#[test]
fn a_disk_that_is_too_small_is_said_before_the_first_byte() {
    let ((registry, _), binary) = (slow(), Binary::new(AIRLOCK));
    let small = path(&binary, "small");
    fs::create_dir(&small).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"]).arg(&small).output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        return tools::skipped("file systems cannot be mounted here");
    }
    let url = format!("docker://{}", registry.address());
    let outcome = binary.run(["registry", "import", &url, "--root", "small/store", "--tls-verify=false"]);
    let few = ["registry", "import", &url, "--root", "small/store", "--tls-verify=false", "--include", "none/*"];
    let refused = binary.run(few);
    assert!(Command::new("umount").arg(&small).status().unwrap().success());
    assert_eq!(outcome.code, Some(FULL), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("bytes are needed"), "{}", outcome.stderr);
    assert_eq!(registry.count("GET", "*/blobs/*"), 0);
    assert!(refused.code != Some(0));
}

#[test]
fn a_record_that_cannot_be_read_stops_only_what_needs_it() {
    let (old, binary) = (Old::new(), Binary::new(AIRLOCK));
    import(&binary, &old.url(), &["--root", "store"], 0);
    fs::write(path(&binary, "store/.airlock/generations/000001.json"), "{").unwrap();
    binary.run(["registry", "generations", "--root", "store"]).expect_code(DAMAGED);
    binary.run(["registry", "gc", "--root", "store", "--keep", "1"]).expect_code(DAMAGED);
    binary.run(["registry", "gc", "--root", "store", "--keep", "0"]).expect_code(2);
    binary.run(["registry", "gc", "--root", "store"]).expect_code(0);
    let (_server, addr) = serve(&binary);
    let (from, to) = (format!("{}/demo/tool:2.1", old.url()), format!("docker://{addr}/own/tool:1"));
    binary.run(["image", "copy", &from, &to, "--tls-verify=false"]).expect_code(0);
}
