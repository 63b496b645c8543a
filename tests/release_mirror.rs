//! The promise: `release mirror` does what `oc adm release mirror` does, takes signatures along, and never leaves half a release, or one that
//! nobody trusted has signed, under a release's name.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by failing")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use airlock_content::layers::writer::Writer;
use airlock_testkit::binary::{Binary, Outcome};
use airlock_testkit::contents::{Contents, altered};
use airlock_testkit::fixture::{self, Blob, Built};
use airlock_testkit::scripted::Registry;
use airlock_testkit::target::{Access, Target};
use airlock_testkit::world::{Faults, Scale, Serving, Upstream, World};
use serde_json::{Value, json};

const AIRLOCK: &str = env!("CARGO_BIN_EXE_airlock");
const RELEASES: &str = "quay.io/openshift-release-dev/ocp-release";
const COMPONENTS: &str = "quay.io/openshift-release-dev/ocp-v4.0-art-dev";
const TAG: &str = "4.17.10-x86_64";
const USAGE: i32 = 2;
const DAMAGED: i32 = 4;

/// A release of the world, and an empty registry.
struct Setting {
    upstream: Upstream,
    target: Target,
    binary: Binary,
}

impl Setting {
    fn new() -> Option<Self> {
        let upstream = World::get(Scale::Small)?.start(Serving::Scripted(Faults::default()))?;
        let target = target()?;
        let binary = Binary::new(AIRLOCK).envs(upstream.env());
        Some(Self { upstream, target, binary })
    }

    fn mirror(&self, tag: &str, more: &[&str]) -> Outcome {
        mirror(&self.binary, &format!("{RELEASES}:{tag}"), more)
    }

    fn to(&self, repository: &str) -> String {
        format!("{}/{repository}", self.target.address())
    }

    /// Tag to digest, as `oc` names the images of a release.
    fn expected(&self, tag: &str) -> BTreeMap<String, String> {
        let release = self.release(tag);
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let components = release["components"].as_array().unwrap().iter();
        let mut tags: BTreeMap<_, _> =
            components.map(|c| (format!("{tag}-{}", text(&c["name"])), text(&c["digest"]))).collect();
        tags.insert(tag.to_owned(), text(&release["digest"]));
        tags
    }

    fn release(&self, tag: &str) -> Value {
        let world: Value = json_of(&self.upstream.folder().join("world.json"));
        world["releases"]["releases"].as_array().unwrap().iter().find(|r| r["tag"] == tag).unwrap().clone()
    }
}

fn target() -> Option<Target> {
    Target::airlock(Path::new(AIRLOCK), Access::default())
}

fn mirror(binary: &Binary, release: &str, more: &[&str]) -> Outcome {
    binary.run(["release", "mirror", release, "--dest-tls-verify=false"].iter().chain(more))
}

fn json_of(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn tags(contents: &Contents, repository: &str) -> BTreeMap<String, String> {
    contents.repositories.get(repository).map(|held| held.tags.clone()).unwrap_or_default()
}

/// The object that was printed at the end.
fn printed_object(stdout: &str) -> &str {
    let at = stdout.find("apiVersion: ").unwrap_or_else(|| panic!("no object in\n{stdout}"));
    stdout[at..].split("\n\n").next().unwrap()
}

#[test]
fn a_release_arrives_whole_and_the_printed_rules_lead_to_it() {
    let Some(it) = Setting::new() else { return };
    let to = it.to("ocp4");
    let signatures = it.binary.folder().join("signatures").display().to_string();
    let more = ["--to", &to, "--print-mirror-instructions", "idms", "--release-image-signature-to-dir", &signatures];
    let done = it.mirror(TAG, &more).expect_code(0);
    let expected = it.expected(TAG);
    assert_eq!(tags(&it.target.contents(), "ocp4"), expected);
    assert_eq!(altered(it.target.storage()), [""; 0]);
    for line in ["Success", &format!("Update image:  {to}:{TAG}"), &format!("Mirror prefix: {to}")] {
        assert!(done.stdout.lines().any(|l| l == line), "`{line}` is not in\n{}", done.stdout);
    }
    for (tag, digest) in &expected {
        let line = format!("{digest} {to}:{tag}");
        assert!(done.stdout.lines().any(|l| l == line), "`{line}` is not in\n{}", done.stdout);
    }
    let hex = expected[TAG].strip_prefix("sha256:").unwrap();
    let file = Path::new(&signatures).join(format!("signature-sha256-{}.json", &hex[..16]));
    assert!(done.stdout.contains(&format!("oc apply -f {}\n", file.display())), "{}", done.stdout);

    // What was printed is what a node needs: nothing but the mirror can answer here.
    let rules = it.binary.folder().join("idms.yaml");
    fs::write(&rules, printed_object(&done.stdout)).unwrap();
    let rendered = it.binary.run(["rules", "render", rules.to_str().unwrap()]).expect_code(0).stdout;
    let conf = it.binary.folder().join("rendered.conf");
    fs::write(&conf, rendered).unwrap();
    let node = Binary::new(AIRLOCK).env("CONTAINERS_REGISTRIES_CONF", conf.display().to_string());
    let etcd = &expected[&format!("{TAG}-etcd")];
    for (repository, digest) in [(RELEASES, &expected[TAG]), (COMPONENTS, etcd)] {
        let name = format!("docker://{repository}@{digest}");
        let resolved = node.run(["image", "digest", &name, "--tls-verify=false"]).expect_code(0);
        assert_eq!(resolved.stdout.trim(), digest);
    }
    assert!(done.stdout.contains(&format!("imageDigestSources:\n- mirrors:\n  - {to}\n  source: {RELEASES}\n")));

    // Once more copies nothing, and prints what old clusters need.
    let again = it.mirror(TAG, &["--to", &to]).expect_code(0);
    assert!(again.stdout.contains("kind: ImageContentSourcePolicy\nmetadata:\n  name: example\n"), "{}", again.stdout);
    assert!(again.stderr.contains("deprecated"), "{}", again.stderr);
    let rules = it.binary.folder().join("icsp.yaml");
    fs::write(&rules, printed_object(&again.stdout)).unwrap();
    it.binary.run(["rules", "render", rules.to_str().unwrap()]).expect_code(0);
}

/// A place without an upstream: every name leads to a closed port, every store of signatures is empty.
fn enclave(key: &Path) -> Binary {
    let binary = Binary::new(AIRLOCK);
    let conf = binary.folder().join("nowhere.conf");
    fs::write(&conf, "[[registry]]\nprefix = \"quay.io\"\nlocation = \"127.0.0.1:1\"\ninsecure = true\n").unwrap();
    let conf = conf.display().to_string();
    binary
        .env("CONTAINERS_REGISTRIES_CONF", conf)
        .env("OCP_SIGNATURE_URL", "http://127.0.0.1:1/")
        .env("OCP_SIGNATURE_VERIFICATION_PK", key.display().to_string())
}

fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_file_tree_carries_a_release_to_where_there_is_no_network() {
    let Some(it) = Setting::new() else { return };
    let tree = it.binary.folder().join("tree");
    let done = it.mirror(TAG, &["--to-dir", tree.to_str().unwrap()]).expect_code(0);
    let expected = it.expected(TAG);
    let hint = format!(
        "\nTo upload local images to a registry, run:\n\n    oc image mirror --from-dir={} 'file://openshift/release:{TAG}*' REGISTRY/REPOSITORY\n",
        tree.display()
    );
    assert!(done.stdout.contains(&hint), "{}", done.stdout);
    assert!(!done.stdout.contains("apiVersion"), "a tree is no mirror: {}", done.stdout);
    let manifests = tree.join("v2/openshift/release/manifests");
    for (tag, digest) in &expected {
        assert_eq!(fs::read_link(manifests.join(tag)).unwrap().to_str().unwrap(), digest);
    }
    let (digest, hex) = (&expected[TAG], &expected[TAG]["sha256:".len()..]);
    let stem = tree.join("config").join(format!("signature-sha256-{}", &hex[..16]));
    let text = fs::read_to_string(stem.with_extension("json")).unwrap();
    assert_eq!(text.trim_end().lines().count(), 1);
    let map: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(map["metadata"]["name"], format!("sha256-{hex}"));
    assert_eq!(map["metadata"]["namespace"], "openshift-config-managed");
    assert_eq!(map["metadata"]["labels"]["release.openshift.io/verification-signatures"], "");
    let data = map["binaryData"][format!("sha256-{hex}-1")].as_str().unwrap();
    let yaml = fs::read_to_string(stem.with_extension("yaml")).unwrap();
    assert!(yaml.contains(&format!("\n  sha256-{hex}-1: {data}\n")) && yaml.contains("kind: ConfigMap\n"), "{yaml}");

    let key = it.binary.folder().join("key.asc");
    fs::copy(it.upstream.folder().join("keys/release-pk.asc"), &key).unwrap();
    let layer = it.upstream.world().manifest(&expected[&format!("{TAG}-etcd")]);
    let layer: Value = serde_json::from_slice(&layer).unwrap();
    let layer = layer["layers"][0]["digest"].as_str().unwrap().to_owned();
    let Setting { upstream, target: first, binary: _kept } = it;
    drop(upstream);
    let inside = enclave(&key);
    let load = |target: &Target, more: &[&str]| {
        let to = format!("{}/mirror/ocp", target.address());
        let from = format!("file://openshift/release:{TAG}");
        let fixed = ["--from-dir", tree.to_str().unwrap(), "--to", &to, "--print-mirror-instructions=idms"];
        mirror(&inside, &from, &fixed.iter().chain(more).copied().collect::<Vec<_>>())
    };
    let loaded = load(&first, &[]).expect_code(0);
    assert_eq!(tags(&first.contents(), "mirror/ocp"), expected);
    assert_eq!(altered(first.storage()), [""; 0]);
    // Clusters do not ask for a file tree's names.
    for source in [RELEASES, COMPONENTS] {
        assert!(printed_object(&loaded.stdout).contains(&format!("source: {source}")), "{}", loaded.stdout);
    }
    assert!(!printed_object(&loaded.stdout).contains("file"), "{}", loaded.stdout);

    // A flipped bit of a layer: the release does not get its name.
    let Some(second) = target() else { return };
    let blob = tree.join("v2/openshift/release/blobs").join(&layer);
    flip(&blob);
    let refused = load(&second, &[]).expect_code(DAMAGED);
    assert!(refused.stderr.contains(&layer), "{}", refused.stderr);
    let there = tags(&second.contents(), "mirror/ocp");
    assert!(!there.contains_key(TAG) && !there.contains_key(&format!("{TAG}-etcd")), "{there:?}");
    assert_eq!(altered(second.storage()), [""; 0]);
    flip(&blob);
    load(&second, &[]).expect_code(0);
    assert_eq!(tags(&second.contents(), "mirror/ocp"), expected);

    // Of the payload's manifest, and of its signature: nothing is copied at all.
    let Some(third) = target() else { return };
    let manifest = manifests.join(digest);
    flip(&manifest);
    load(&third, &[]).expect_code(DAMAGED);
    flip(&manifest);
    fs::write(stem.with_extension("json"), text.replace(&data[400..440], &data[440..480])).unwrap();
    let refused = load(&third, &[]).expect_code(DAMAGED);
    assert!(refused.stderr.contains("--skip-verification"), "{}", refused.stderr);
    assert_eq!(third.contents(), Contents::default());
}

#[test]
fn what_is_only_asked_for_is_only_told() {
    let Some(it) = Setting::new() else { return };
    let to = it.to("ocp4");
    let expected = it.expected(TAG);
    let lines = it.mirror(TAG, &["--to", &to, "--to-mirror"]).expect_code(0).stdout;
    let mut pairs = BTreeSet::new();
    for (tag, digest) in &expected {
        let source = if tag == TAG { RELEASES } else { COMPONENTS };
        pairs.insert(format!("{source}@{digest} {to}:{tag}"));
    }
    assert_eq!(lines.lines().map(str::to_owned).collect::<BTreeSet<_>>(), pairs);

    let dry = it.mirror(TAG, &["--to", &to, "--dry-run"]).expect_code(0);
    assert!(dry.stdout.is_empty(), "{}", dry.stdout);
    for (tag, digest) in &expected {
        assert!(dry.stderr.contains(&format!("\n      {digest} -> {tag}\n")), "{}", dry.stderr);
    }
    let (host, repository) = to.split_once('/').expect("a host and a path");
    let tree = format!("\n{host}/\n  {repository}\n    blobs:\n      {COMPONENTS} sha256:");
    let ends =
        ["\n    manifests:\n", "\n  stats: shared=", "\ninfo: Planning completed in ", "\ninfo: Dry run complete\n"];
    for part in [&tree[..]].iter().chain(&ends) {
        assert!(dry.stderr.contains(part), "`{part}` is not in\n{}", dry.stderr);
    }
    let document = it.mirror(TAG, &["--to", &to, "--dry-run", "-o", "json"]).expect_code(0);
    let document: Value = serde_json::from_str(&document.stdout).unwrap();
    assert_eq!((&document["digest"], &document["dryRun"]), (&json!(expected[TAG]), &json!(true)));
    assert_eq!(document["images"].as_array().unwrap().len(), expected.len());
    assert_eq!(document["updateImage"], format!("{to}:{TAG}"));
    let tree = it.binary.folder().join("tree");
    it.mirror(TAG, &["--to-dir", tree.to_str().unwrap(), "--dry-run"]).expect_code(0);
    assert!(!tree.exists());
    assert_eq!(it.target.contents(), Contents::default());
}

#[test]
fn a_release_that_nobody_trusted_has_signed_is_refused_before_anything_is_copied() {
    let Some(it) = Setting::new() else { return };
    let to = it.to("ocp4");
    let empty = it.binary.folder().join("no-signatures");
    fs::create_dir(&empty).unwrap();
    let release = format!("{RELEASES}:{TAG}");
    let unsigned =
        Binary::new(AIRLOCK).envs(it.upstream.env()).env("OCP_SIGNATURE_URL", format!("file://{}", empty.display()));
    let refused = mirror(&unsigned, &release, &["--to", &to]).expect_code(DAMAGED);
    assert!(refused.stderr.contains("no signature") && refused.stdout.is_empty(), "{}", refused.stderr);
    // Without the world's key only Red Hat is trusted, who did not sign this.
    let no_key = it.upstream.env().into_iter().filter(|(name, _)| name != "OCP_SIGNATURE_VERIFICATION_PK");
    let refused = mirror(&Binary::new(AIRLOCK).envs(no_key), &release, &["--to", &to]).expect_code(DAMAGED);
    assert!(refused.stderr.contains("not among the trusted keys"), "{}", refused.stderr);
    assert_eq!(it.target.contents(), Contents::default());

    let taken = mirror(&unsigned, &release, &["--to", &to, "--skip-verification", "--skip-release-image"]);
    let taken = taken.expect_code(0);
    let mut expected = it.expected(TAG);
    expected.remove(TAG);
    assert_eq!(tags(&it.target.contents(), "ocp4"), expected);
    assert!(!taken.stdout.contains("Update image"), "{}", taken.stdout);
    let both = ["--to", &to, "--skip-verification", "--release-image-signature-to-dir", "x"];
    mirror(&unsigned, &release, &both).expect_code(USAGE);
}

#[test]
fn patterns_and_another_place_for_the_release_image() {
    let Some(it) = Setting::new() else { return };
    let expected = it.expected(TAG);
    let (to, other) = (it.to("ocp4:${version}-${component}"), it.to("releases/mine:newest"));
    let done = it.mirror(TAG, &["--to", &to]).expect_code(0);
    let renamed: BTreeMap<String, String> = expected
        .iter()
        .map(|(tag, digest)| {
            let component = tag.strip_prefix(TAG).unwrap().strip_prefix('-').unwrap_or("release");
            (format!("4.17.10-{component}-x86_64"), digest.clone())
        })
        .collect();
    assert_eq!(tags(&it.target.contents(), "ocp4"), renamed);
    let said = format!("Mirrored to: {}\n", it.to("ocp4:4.17.10-${component}-x86_64"));
    assert!(done.stdout.contains(&said), "{}", done.stdout);

    let more = ["--to", &it.to("parts"), "--to-release-image", &other, "--print-mirror-instructions=idms"];
    let done = it.mirror(TAG, &more).expect_code(0);
    for place in [&it.to("parts"), &other] {
        assert!(done.stdout.contains(&format!("\nMirror prefix: {place}\n")), "{}", done.stdout);
    }
    let contents = it.target.contents();
    assert_eq!(tags(&contents, "releases/mine"), BTreeMap::from([("newest".to_owned(), expected[TAG].clone())]));
    assert_eq!(tags(&contents, "parts").len(), expected.len() - 1);
    let rules = printed_object(&done.stdout);
    assert!(rules.contains(&format!("    - {}\n    source: {RELEASES}", it.to("releases/mine"))), "{rules}");
    assert!(rules.contains(&format!("    - {}\n    source: {COMPONENTS}", it.to("parts"))), "{rules}");

    for (to, says) in [("ocp4:latest", "has a tag"), ("${component}", "in the tag only")] {
        let refused = it.mirror(TAG, &["--to", &it.to(to)]).expect_code(USAGE);
        assert!(refused.stderr.contains(says), "{}", refused.stderr);
    }
    for flag in ["--to-image-stream=x", "--apply-release-image-signature", "--overwrite"] {
        let refused = it.mirror(TAG, &["--to", &it.to("a"), flag]).expect_code(USAGE);
        assert!(refused.stderr.contains("live cluster") && refused.stderr.contains("hint: "), "{}", refused.stderr);
    }
    it.mirror(TAG, &[]).expect_code(USAGE);
    mirror(&it.binary, "file://openshift/release:1", &["--to", &it.to("a")]).expect_code(USAGE);
}

#[test]
fn a_release_for_several_architectures_is_taken_whole_or_for_one() {
    let Some(it) = Setting::new() else { return };
    let whole = it.mirror("4.18.27-multi", &["--to", &it.to("whole"), "--keep-manifest-list"]).expect_code(0);
    let contents = it.target.contents();
    assert_eq!(tags(&contents, "whole"), it.expected("4.18.27-multi"));
    assert!(!whole.stderr.contains("warning"), "{}", whole.stderr);
    let list: Value = serde_json::from_slice(&it.target.bytes(&it.expected("4.18.27-multi")["4.18.27-multi"])).unwrap();
    let child = |architecture: &str| {
        let children = list["manifests"].as_array().unwrap();
        let found = children.iter().find(|c| c["platform"]["architecture"] == architecture).unwrap();
        found["digest"].as_str().unwrap().to_owned()
    };
    let one = it.mirror("4.18.27-multi", &["--to", &it.to("one"), "--platform", "linux/arm64"]).expect_code(0);
    let there = tags(&it.target.contents(), "one");
    assert_eq!(there["4.18.27-aarch64"], child("arm64"));
    assert_eq!(there.len(), it.expected("4.18.27-multi").len());
    assert!(one.stderr.contains("--keep-manifest-list takes them whole"), "{}", one.stderr);
    for digest in there.values() {
        let manifest: Value = serde_json::from_slice(&it.target.bytes(digest)).unwrap();
        assert!(manifest["layers"].is_array(), "an image, no list: {manifest}");
    }
}

fn image_of(seed: u64, files: &[(&str, &[u8])]) -> Built {
    let mut writer = Writer::new(Vec::new(), 0);
    for (path, bytes) in files {
        writer.file(path, bytes.len() as u64, &mut &bytes[..]).unwrap();
    }
    let (bytes, layer) = writer.finish().unwrap();
    let blob = Blob { descriptor: layer.descriptor, bytes: bytes.into() };
    fixture::image(seed).platform("linux/amd64").layers(&[]).given(vec![blob]).build()
}

/// A release at `registry`, with images that have cosign signatures.
fn publish(registry: &Registry) -> (Built, Vec<(&'static str, Built)>) {
    let components: Vec<(&str, Built)> =
        vec![("etcd", image_of(1, &[("etcd", b"one")])), ("oauth", image_of(2, &[("oauth", b"two")]))];
    let list: Vec<Value> = components
        .iter()
        .map(|(name, image)| {
            let at = format!("{}/up/art@{}", registry.address(), image.digest());
            json!({"name": name, "from": {"kind": "DockerImage", "name": at}})
        })
        .collect();
    let references = json!({"kind": "ImageStream", "apiVersion": "image.openshift.io/v1", "metadata": {"name": "4.21.0"}, "spec": {"tags": list}});
    let metadata = json!({"kind": "cincinnati-metadata-v0", "version": "4.21.0", "previous": []});
    let payload = image_of(
        9,
        &[
            ("release-manifests/image-references", references.to_string().as_bytes()),
            ("release-manifests/release-metadata", metadata.to_string().as_bytes()),
        ],
    );
    registry.put("up/release", &payload, Some("4.21.0"));
    for (name, image) in &components {
        registry.put("up/art", image, Some(name));
    }
    for (repository, image) in
        [("up/release", &payload)].into_iter().chain(components.iter().map(|(_, i)| ("up/art", i)))
    {
        let signature = fixture::cosign(image);
        registry.put(repository, &signature.image, Some(&signature.tag));
    }
    (payload, components)
}

#[test]
fn cosign_signatures_travel_by_registry_and_by_tree() {
    let upstream = Registry::start();
    let (payload, components) = publish(&upstream);
    let (Some(direct), Some(loaded)) = (target(), target()) else { return };
    let binary = Binary::new(AIRLOCK);
    let from = format!("{}/up/release:4.21.0", upstream.address());
    let tree: PathBuf = binary.folder().join("tree");
    let tree = tree.to_str().unwrap();
    let skip = ["--skip-verification", "--src-tls-verify=false"];
    let run = |from: &str, more: &[&str]| {
        mirror(&binary, from, &skip.iter().chain(more).copied().collect::<Vec<_>>()).expect_code(0)
    };
    run(&from, &["--to", &format!("{}/ocp4", direct.address())]);
    run(&from, &["--to-dir", tree]);
    drop(upstream);
    let file = "file://openshift/release:4.21.0-x86_64";
    run(file, &["--from-dir", tree, "--to", &format!("{}/ocp4", loaded.address())]);
    let images = [&payload].into_iter().chain(components.iter().map(|(_, image)| image));
    let signatures: BTreeSet<String> =
        images.map(|image| format!("{}.sig", image.digest().to_string().replace(':', "-"))).collect();
    for target in [&direct, &loaded] {
        let there: BTreeSet<String> = tags(&target.contents(), "ocp4").into_keys().collect();
        assert!(signatures.is_subset(&there), "{there:?}");
        assert_eq!(there.len(), 6);
        assert_eq!(altered(target.storage()), [""; 0]);
    }
    // From that mirror on, nothing is asked of where it came from.
    let Some(second) = target() else { return };
    let from = format!("{}/ocp4:4.21.0-x86_64", direct.address());
    run(&from, &["--to", &format!("{}/again", second.address())]);
    assert_eq!(tags(&second.contents(), "again"), tags(&direct.contents(), "ocp4"));
}

#[test]
fn without_one_component_the_release_gets_no_name() {
    let upstream = Registry::start();
    let (_, components) = publish(&upstream);
    let Some(target) = target() else { return };
    let binary = Binary::new(AIRLOCK);
    let layer = &components[1].1.blobs.last().unwrap().descriptor.digest;
    upstream.content(|content| content.remove_blob(layer));
    let from = format!("{}/up/release:4.21.0", upstream.address());
    let to = format!("{}/ocp4", target.address());
    let more = ["--to", &to, "--skip-verification", "--src-tls-verify=false", "--retry-times=0"];
    let failed = mirror(&binary, &from, &more).expect_code(1);
    assert!(failed.stderr.contains(&layer.to_string()) && !failed.stdout.contains("Success"), "{}", failed.stderr);
    let there = tags(&target.contents(), "ocp4");
    assert!(!there.contains_key("4.21.0-x86_64") && !there.contains_key("4.21.0-x86_64-oauth"), "{there:?}");
}
