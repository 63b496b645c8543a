//! The promise: every set of operators of the world arrives whole, unaltered and alone by both rule sets, by way of an archive and straight;
//! the catalog at the end is one that OLM takes, with exactly the bundles that are meant; and the second half of the way needs no network.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use airlock_testkit::binary::{Binary, Outcome};
use airlock_testkit::contents::altered;
use airlock_testkit::opm::Opm;
use airlock_testkit::target::{Access, Target, serve};
use airlock_testkit::tools;
use airlock_testkit::wanted::Wanted;
use airlock_testkit::world::{Expected, Scale, Serving, Upstream, World};
use serde_json::Value;

const AIRLOCK: &str = env!("CARGO_BIN_EXE_airlock");
const RULES: [&str; 2] = ["table", "head"];
/// Some of it is there and usable.
const PARTIAL: i32 = 3;

/// One image set on its way, by one rule set.
struct Journey {
    upstream: Upstream,
    set: &'static str,
    rule: &'static str,
    more: &'static [&'static str],
    expected: Expected,
    code: i32,
    /// Which of the two registries comes first.
    turn: usize,
}

/// A catalog at the target, as the report tells it.
struct Arrived {
    name: String,
    repository: String,
    tag: String,
    digest: String,
}

impl Journey {
    /// `None`, with a printed line, where the world or what serves it is absent.
    fn begin(set: &'static str, rule: &'static str) -> Option<Self> {
        let world = World::get(Scale::Small)?;
        let upstream = world.start(Serving::DockerRegistry)?;
        let expected = upstream.expected_by(set, rule);
        Some(Self { upstream, set, rule, more: &[], expected, code: 0, turn: 0 })
    }

    fn isc(&self) -> String {
        self.upstream.isc(self.set).display().to_string()
    }

    fn run(&self, binary: &Binary, arguments: &[&str]) -> Outcome {
        let isc = self.isc();
        let mut all = vec!["mirror", "-c", &isc, "--selection", self.rule];
        all.extend(self.more);
        all.extend(arguments);
        binary.run(all)
    }

    /// A machine from which nothing leads to the upstream.
    fn enclave() -> Binary {
        Binary::new(AIRLOCK)
            .env("CONTAINERS_REGISTRIES_CONF", "/dev/null")
            .env("UPDATE_URL_OVERRIDE", "http://127.0.0.1:1/graph")
            .env("OCP_SIGNATURE_URL", "http://127.0.0.1:1/")
    }

    fn target(turn: usize) -> Option<Target> {
        if turn.is_multiple_of(2) {
            Target::docker_registry()
        } else {
            Target::airlock(Path::new(AIRLOCK), Access::default())
        }
    }

    /// By archive: the catalogs' digests.
    fn by_archive(&self) -> BTreeSet<String> {
        let here = Binary::new(AIRLOCK).envs(self.upstream.env());
        let to = format!("file://{}", here.folder().join("archive").display());
        self.run(&here, &[&to]).expect_code(self.code);
        let before = self.upstream.requests().len();
        let mut digests = BTreeSet::new();
        if let Some(target) = Self::target(self.turn) {
            let place = format!("docker://{}/deep/down", target.address());
            let there = Self::enclave();
            self.run(&there, &["--from", &to, "--dest-tls-verify=false", &place]).expect_code(self.code);
            let report = here.folder().join("archive/working-dir/load-report.json");
            digests.extend(self.judge(&target, &report, "deep/down"));
        }
        assert_eq!(self.upstream.requests().len(), before, "loading asked the upstream");
        digests
    }

    fn straight(&self) -> BTreeSet<String> {
        let mut digests = BTreeSet::new();
        if let Some(target) = Self::target(self.turn + 1) {
            let here = Binary::new(AIRLOCK).envs(self.upstream.env());
            let workspace = here.folder().join("workspace");
            let (at, place) = (format!("file://{}", workspace.display()), format!("docker://{}", target.address()));
            self.run(&here, &["--workspace", &at, "--dest-tls-verify=false", &place]).expect_code(self.code);
            self.upstream.check_by(self.set, Some(self.rule), target.address());
            let report = workspace.join("working-dir/report.json");
            digests.extend(self.judge(&target, &report, ""));
            let objects = workspace.join("working-dir/cluster-resources");
            for catalog in arrived(&report) {
                let text = format!("image: {}/{}:{}", target.address(), catalog.repository, catalog.tag);
                let files = std::fs::read_dir(&objects).expect("there are cluster resources");
                let sources = files.filter_map(|f| std::fs::read_to_string(f.ok()?.path()).ok());
                let sources: Vec<String> = sources.filter(|t| t.contains("kind: CatalogSource")).collect();
                assert!(sources.iter().any(|t| t.contains(&text)), "no CatalogSource has `{text}`: {sources:?}");
            }
        }
        digests
    }

    /// Everything that is wanted is there and nothing else, the catalogs aside; and these have their bundles.
    fn judge(&self, target: &Target, report: &Path, prefix: &str) -> BTreeSet<String> {
        let catalogs = arrived(report);
        let mut expected = self.expected.clone();
        expected.images.retain(|image| image.class != "catalog");
        let bytes = |digest: &str| target.bytes(digest);
        let mut wanted = Wanted::of(self.upstream.world(), &expected);
        let known = wanted.clone();
        let contents = target.contents();
        for catalog in &catalogs {
            self.validate(target, catalog);
            let below =
                catalog.repository.strip_prefix(prefix).expect("it lies below the prefix").trim_start_matches('/');
            wanted.include(below, &catalog.tag, &catalog.digest, bytes);
        }
        let found = wanted.differences(&contents, bytes, prefix, !target.has_referrers_api());
        assert_eq!(found, Vec::<String>::new(), "{} by {} at {}", self.set, self.rule, target.address());
        assert_eq!(known.altered(self.upstream.world(), bytes), Vec::<String>::new());
        assert_eq!(altered(target.storage()), Vec::<String>::new());
        let names: BTreeSet<&String> = catalogs.iter().map(|c| &c.name).collect();
        assert_eq!(names.len(), self.expected.bundles.len(), "{}: {names:?}", self.set);
        catalogs.into_iter().map(|c| c.digest).collect()
    }

    /// Reads the catalog at the target with tools that are not ours.
    fn validate(&self, target: &Target, catalog: &Arrived) {
        let expected = self.expected.bundles.get(&catalog.name).expect("the catalog is among those expected");
        let expected: BTreeSet<&str> = expected.iter().map(String::as_str).collect();
        if let Some(opm) = Opm::find() {
            let rendered = opm.render(&format!("{}/{}:{}", target.address(), catalog.repository, catalog.tag));
            assert_eq!(rendered.bundles(), expected, "opm render, {} by {}", catalog.name, self.rule);
            assert_eq!(opm.validate(&rendered), Ok(()), "opm validate, {} by {}", catalog.name, self.rule);
        }
        let (Some(skopeo), Some(python)) = (tools::need("skopeo"), tools::need("python3")) else { return };
        let folder = tempfile::tempdir().expect("make a folder");
        let from = format!("docker://{}/{}:{}", target.address(), catalog.repository, catalog.tag);
        let to = format!("oci:{}:catalog", folder.path().join("layout").display());
        let copied = Command::new(skopeo)
            .args(["copy", "--all", "--preserve-digests", "--src-tls-verify=false", "--insecure-policy", &from, &to])
            .env("CONTAINERS_REGISTRIES_CONF", "/dev/null")
            .output()
            .expect("run skopeo");
        // skopeo makes no OCI layout of Docker's media types without altering them; such a catalog is compared by its digest alone.
        if !copied.status.success() {
            let said = String::from_utf8_lossy(&copied.stderr);
            assert!(said.contains("preserve digests") || said.contains("Manifest list"), "{from}: {said}");
            return;
        }
        let script = tools::workspace().join("crates/content/tests/catalog_validate.py");
        let judged = Command::new(python).arg(script).arg(folder.path().join("layout")).output().expect("run python");
        let said = String::from_utf8_lossy(&judged.stderr);
        // By oc-mirror's rules the channels keep the faults that they were published with.
        assert!(judged.status.success() || self.rule == "head", "{}: {said}", catalog.name);
        let told: Value = serde_json::from_slice(&judged.stdout).expect("the judge says what it found");
        let packages = told["packages"].as_object().expect("there are packages");
        let found: BTreeSet<&str> = packages
            .values()
            .flat_map(|p| p["bundles"].as_array().into_iter().flatten().filter_map(Value::as_str))
            .collect();
        assert_eq!(found, expected, "{} by {}", catalog.name, self.rule);
    }
}

/// The catalogs that a run brought, from its report.
fn arrived(report: &Path) -> Vec<Arrived> {
    let read = std::fs::read(report).expect("there is a report");
    let report: Value = serde_json::from_slice(&read).expect("understand the report");
    let images = report["images"].as_array().expect("it has images").iter();
    let catalogs = images.filter(|i| i["type"] == "operatorCatalog" && i["status"] == "complete");
    catalogs
        .map(|image| {
            let text = |field: &str| image[field].as_str().expect("it is there").to_owned();
            let destination = text("destination");
            let (_, path) = destination.trim_start_matches("docker://").split_once('/').expect("it has a host");
            let (repository, tag) = path.rsplit_once(':').expect("it has a tag");
            let (repository, tag) = (repository.to_owned(), tag.to_owned());
            Arrived { name: text("name"), repository, tag, digest: text("digest") }
        })
        .collect()
}

/// By each rule set once by archive and once straight, with the two registries in turn.
fn journey(set: &'static str) {
    for (number, rule) in RULES.into_iter().enumerate() {
        let Some(mut journey) = Journey::begin(set, rule) else { return };
        journey.turn = number;
        if let Some(error) = &journey.expected.error {
            let here = Binary::new(AIRLOCK).envs(journey.upstream.env());
            let to = format!("file://{}", here.folder().join("archive").display());
            let outcome = journey.run(&here, &[&to]);
            assert!(outcome.code.is_some_and(|code| code != 0), "{set} by {rule}: expected {error}");
            let isc = format!("{set}.yaml:");
            assert!(outcome.stderr.contains(&isc), "no line of {isc} is named:\n{}", outcome.stderr);
            continue;
        }
        let (archived, straight) = (journey.by_archive(), journey.straight());
        assert_eq!(archived, straight, "{set} by {rule}: the same catalog either way, into any registry");
    }
}

/// A bundle that needs what does not exist is left out of the catalog, kept in it, or a reason to do nothing.
#[test]
fn a_missing_image_is_decided_about_before_anything_moves() {
    let Some(mut journey) = Journey::begin("op-30-missing-related", "table") else { return };
    journey.code = PARTIAL;
    journey.expected.bundles.values_mut().for_each(|b| b.retain(|name| name != "missing.v1.1.0"));
    journey.expected.images.retain(|image| !image.reference.contains("missing") || image.class == "catalog");
    journey.by_archive();

    let Some(mut journey) = Journey::begin("op-30-missing-related", "head") else { return };
    (journey.code, journey.more) = (PARTIAL, &["--on-missing", "keep"]);
    journey.by_archive();
    journey.straight();

    journey.more = &["--on-missing", "fail"];
    let here = Binary::new(AIRLOCK).envs(journey.upstream.env());
    let archive = here.folder().join("archive");
    let outcome = journey.run(&here, &[&format!("file://{}", archive.display())]);
    assert!(outcome.code.is_some_and(|code| code != 0 && code != PARTIAL), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("gone"), "the image is named:\n{}", outcome.stderr);
    assert!(!archive.join("mirror_000001.tar").exists());
}

/// What cannot be an image's name takes its bundle along, and by oc-mirror's rules the whole catalog.
#[test]
fn an_invalid_image_takes_its_bundle_along() {
    let Some(mut journey) = Journey::begin("op-31-invalid-related", "table") else { return };
    journey.code = PARTIAL;
    journey.expected.bundles.values_mut().for_each(|b| b.retain(|name| name != "invalid.v1.1.0"));
    journey.expected.images.retain(|image| !image.reference.contains("/invalid") || image.class == "catalog");
    journey.by_archive();
    let Some(journey) = Journey::begin("op-31-invalid-related", "head") else { return };
    let here = Binary::new(AIRLOCK).envs(journey.upstream.env());
    let outcome = journey.run(&here, &[&format!("file://{}", here.folder().join("archive").display())]);
    assert!(outcome.code.is_some_and(|code| code != 0 && code != PARTIAL), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("invalid.v1.1.0"), "{}", outcome.stderr);
}

/// A package without versions is left out and named; by oc-mirror's rules it is an error.
#[test]
fn a_package_without_versions_does_not_spoil_the_catalog() {
    let Some(mut journey) = Journey::begin("op-33-nosemver", "table") else { return };
    journey.code = PARTIAL;
    journey.by_archive();
    journey.straight();
    let Some(journey) = Journey::begin("op-33-nosemver", "head") else { return };
    let here = Binary::new(AIRLOCK).envs(journey.upstream.env());
    let outcome = journey.run(&here, &[&format!("file://{}", here.folder().join("archive").display())]);
    assert!(outcome.stderr.contains("latest") && outcome.code != Some(0), "{}", outcome.stderr);
}

/// A related image that breaks off on the way takes only its bundle's image along: the catalog stays, and a retry brings both.
#[test]
fn what_fails_on_the_way_withholds_its_bundle_and_a_retry_brings_it() {
    let Some(mut journey) = Journey::begin("op-08-channel", "table") else { return };
    let image = journey.expected.images.iter().find(|i| i.class == "related").expect("it has related images");
    let (repository, _) = image.reference.split_once('@').expect("it is named by digest");
    let mut manifest: Value = manifest_of(&journey.upstream, &image.digest);
    if let Some(child) = manifest["manifests"][0]["digest"].as_str() {
        manifest = manifest_of(&journey.upstream, child);
    }
    // The first layers are the base that other images have too.
    let layers = manifest["layers"].as_array().into_iter().flatten().filter_map(|l| l["digest"].as_str());
    let inventory = journey.upstream.world().inventory();
    let mut own = layers.filter(|layer| inventory.others_with(repository, layer).is_empty());
    let layer = own.next().expect("it has a layer of its own");
    let hidden = journey.upstream.hide_blob(repository, layer);
    let here = Binary::new(AIRLOCK).envs(journey.upstream.env());
    let archive = here.folder().join("archive");
    let to = format!("file://{}", archive.display());
    let outcome = journey.run(&here, &[&to]).expect_code(PARTIAL);
    assert!(outcome.stderr.contains("one of its related images failed to mirror"), "{}", outcome.stderr);
    let report = archive.join("working-dir/report.json");
    let told: Value =
        serde_json::from_slice(&std::fs::read(&report).expect("there is a report")).expect("understand it");
    let failed: BTreeSet<&str> = told["images"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|i| i["status"] != "complete")
        .filter_map(|i| i["type"].as_str())
        .collect();
    assert_eq!(failed, ["operatorBundle", "operatorRelatedImage"].into());
    let before: Vec<String> = arrived(&report).into_iter().map(|c| c.digest).collect();

    // What is there is loaded as far as it goes, with the catalog as it was chosen.
    let (place, target) = match Target::docker_registry() {
        Some(target) => (format!("docker://{}", target.address()), target),
        None => return,
    };
    journey.run(&Journey::enclave(), &["--from", &to, "--dest-tls-verify=false", &place]).expect_code(PARTIAL);
    let loaded = arrived(&archive.join("working-dir/load-report.json"));
    // The archive has the catalog as published besides.
    assert_eq!((loaded.len(), before.len()), (1, 2));
    assert!(before.contains(&loaded[0].digest), "the catalog is another now");
    assert!(
        target.contents().repositories.keys().all(|name| !name.contains("operator-bundle")),
        "the bundle is not there"
    );

    hidden.restore();
    here.run(["mirror", "--retry", &report.display().to_string()]).expect_code(0);
    let after: Vec<String> = arrived(&report).into_iter().map(|c| c.digest).collect();
    assert_eq!(before, after);
    (journey.code, journey.more) = (0, &["--verify", "full"]);
    journey.run(&Journey::enclave(), &["--from", &to, "--dest-tls-verify=false", &place]).expect_code(0);
    journey.judge(&target, &archive.join("working-dir/load-report.json"), "");
}

fn manifest_of(upstream: &Upstream, digest: &str) -> Value {
    serde_json::from_slice(&upstream.world().manifest(digest)).expect("it is a manifest")
}

/// A layout on disk with several images side by side, none of them named, is one catalog of several platforms.
#[test]
fn images_side_by_side_in_a_layout_are_one_catalog() {
    let Some(journey) = Journey::begin("op-25-oci-disk", "table") else { return };
    let text = std::fs::read_to_string(journey.isc()).expect("read the image set");
    let at = text.find("oci://").expect("it names a layout");
    let path: String = text[at + "oci://".len()..].chars().take_while(|c| !c.is_whitespace()).collect();
    let here = Binary::new(AIRLOCK).envs(journey.upstream.env());
    let layout = here.folder().join("side-by-side");
    let copied = Command::new("cp").arg("-rL").arg(&path).arg(&layout).status().expect("copy the layout");
    assert!(copied.success());
    let read = |file: &Path| -> Value {
        serde_json::from_slice(&std::fs::read(file).expect("read the layout")).expect("it is JSON")
    };
    let mut index = read(&layout.join("index.json"));
    let blob = |descriptor: &Value| {
        layout.join("blobs").join(descriptor["digest"].as_str().expect("it has a digest").replace(':', "/"))
    };
    let mut images: Vec<Value> = index["manifests"].as_array().expect("it has manifests").clone();
    while images.iter().any(|d| d["mediaType"].as_str().is_some_and(|t| t.contains("index") || t.contains("list"))) {
        let below = |d: &Value| read(&blob(d))["manifests"].as_array().cloned();
        images = images.iter().flat_map(|d| below(d).unwrap_or_else(|| vec![d.clone()])).collect();
    }
    let mut again = images[0].clone();
    again["platform"] = serde_json::json!({"os": "linux", "architecture": "arm64"});
    images.truncate(1);
    images.push(again);
    for image in &mut images {
        image.as_object_mut().expect("it is a descriptor").remove("annotations");
    }
    index["manifests"] = Value::Array(images);
    std::fs::write(layout.join("index.json"), index.to_string()).expect("write the layout");

    let isc = here.folder().join("isc.yaml");
    std::fs::write(&isc, text.replace(&path, &layout.display().to_string())).expect("write the image set");
    let isc = isc.display().to_string();
    let to = format!("file://{}", here.folder().join("archive").display());
    here.run(["mirror", "-c", &isc, &to]).expect_code(0);
    let Some(target) = Target::docker_registry() else { return };
    let place = format!("docker://{}", target.address());
    Journey::enclave().run(["mirror", "-c", &isc, "--from", &to, "--dest-tls-verify=false", &place]).expect_code(0);
    let loaded = arrived(&here.folder().join("archive/working-dir/load-report.json"));
    let built: Value = serde_json::from_slice(&target.bytes(&loaded[0].digest)).expect("it is an index");
    let platforms: Vec<&str> = built["manifests"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|d| d["platform"]["architecture"].as_str())
        .collect();
    assert_eq!(platforms, ["amd64", "arm64"]);
}

/// An increment carries only what is new, and is loaded alone: the catalog, which has not changed, is read by way of the target.
#[test]
fn an_increment_is_loaded_into_the_registry_that_has_the_rest() {
    let Some(journey) = Journey::begin("op-08-channel", "table") else { return };
    let here = Binary::new(AIRLOCK).envs(journey.upstream.env());
    let archive = here.folder().join("archive");
    let to = format!("file://{}", archive.display());
    journey.run(&here, &[&to]).expect_code(0);
    let Some(target) = Target::docker_registry() else { return };
    let place = format!("docker://{}/ns", target.address());
    let load = |isc: &str| {
        Journey::enclave().run(["mirror", "-c", isc, "--from", &to, "--dest-tls-verify=false", &place]).expect_code(0);
        arrived(&archive.join("working-dir/load-report.json")).remove(0).digest
    };
    let before = load(&journey.isc());
    let more = journey.upstream.expected("add-01-tags").images.remove(0).reference;
    let isc = here.folder().join("more.yaml");
    let text = std::fs::read_to_string(journey.isc()).expect("read the image set");
    std::fs::write(&isc, format!("{}\n  additionalImages:\n  - name: {more}\n", text.trim_end())).expect("write it");
    let isc = isc.display().to_string();
    here.run(["mirror", "-c", &isc, &to]).expect_code(0);
    assert_eq!(load(&isc), before);
}

/// Two runs on different machines, of catalogs in another order, build the same catalogs.
#[test]
fn the_same_choice_gives_the_same_digest_anywhere() {
    let Some(journey) = Journey::begin("op-22-multi-package", "table") else { return };
    let text = std::fs::read_to_string(journey.upstream.isc(journey.set)).expect("read the image set");
    let at = text.find("  operators:\n").expect("it has operators") + "  operators:\n".len();
    let entries: Vec<String> = text[at..].split("  - catalog:").skip(1).map(|e| format!("  - catalog:{e}")).collect();
    assert!(entries.len() > 1, "it has several catalogs");
    let turned: String = entries.iter().rev().map(|e| format!("{}\n", e.trim_end_matches('\n'))).collect();
    let mut seen = Vec::new();
    for text in [text.clone(), format!("{}{turned}", &text[..at])] {
        let here = Binary::new(AIRLOCK).envs(journey.upstream.env());
        let isc = here.folder().join("isc.yaml");
        std::fs::write(&isc, text).expect("write the image set");
        let to = format!("file://{}", here.folder().join("archive").display());
        here.run(["mirror", "-c", &isc.display().to_string(), &to]).expect_code(0);
        let digests: BTreeSet<String> = arrived(&here.folder().join("archive/working-dir/report.json"))
            .into_iter()
            .map(|c| format!("{} {} {}", c.name, c.tag, c.digest))
            .collect();
        seen.push(digests);
    }
    assert_eq!(seen[0], seen[1]);
}

/// The archive of more is loaded with a configuration that asks for less: the catalog is chosen from again, without the upstream.
#[test]
fn less_is_loaded_from_an_archive_of_more() {
    let Some(more) = Journey::begin("op-22-multi-package", "table") else { return };
    let here = Binary::new(AIRLOCK).envs(more.upstream.env());
    let to = format!("file://{}", here.folder().join("archive").display());
    more.run(&here, &[&to]).expect_code(0);
    let catalogs: BTreeMap<&String, &Vec<String>> = more.expected.bundles.iter().collect();
    let (name, bundles) = catalogs.iter().find(|(_, bundles)| bundles.len() > 1).expect("one has several bundles");
    let one = bundles.first().expect("it has one");
    let package = package_of(&more.upstream, name, one);
    let isc = here.folder().join("less.yaml");
    let text = format!(
        "kind: ImageSetConfiguration\napiVersion: mirror.openshift.io/v2alpha1\nmirror:\n  operators:\n  - catalog: {name}\n    \
         packages:\n    - name: {package}\n"
    );
    std::fs::write(&isc, text).expect("write the smaller configuration");
    let isc = isc.display().to_string();
    let before = more.upstream.requests().len();
    let Some(target) = Target::docker_registry() else { return };
    let place = format!("docker://{}", target.address());
    let there = Journey::enclave();
    there.run(["mirror", "-c", &isc, "--from", &to, "--dest-tls-verify=false", &place]).expect_code(0);
    assert_eq!(more.upstream.requests().len(), before, "loading asked the upstream");
    let loaded = arrived(&here.folder().join("archive/working-dir/load-report.json"));
    // The same as when it is mirrored so from the start.
    let Some(other) = Target::docker_registry() else { return };
    let workspace = here.folder().join("straight");
    let (at, place) = (format!("file://{}", workspace.display()), format!("docker://{}", other.address()));
    here.run(["mirror", "-c", &isc, "--workspace", &at, "--dest-tls-verify=false", &place]).expect_code(0);
    let straight = arrived(&workspace.join("working-dir/report.json"));
    assert_eq!(loaded[0].digest, straight[0].digest);
    assert_eq!(target.contents().repositories, other.contents().repositories);
}

/// A network namespace of its own, in which nothing but loopback is up: registry and program both run there, for what was mirrored and for less of it.
#[test]
fn where_there_is_no_route_the_archive_is_all_that_is_needed() {
    let (Some(unshare), Some(more)) = (tools::need("unshare"), Journey::begin("op-22-multi-package", "table")) else {
        return;
    };
    let here = Binary::new(AIRLOCK).envs(more.upstream.env());
    let archive = here.folder().join("archive");
    more.run(&here, &[&format!("file://{}", archive.display())]).expect_code(0);
    let (name, bundles) = more.expected.bundles.iter().find(|(_, b)| b.len() > 1).expect("one has several bundles");
    let package = package_of(&more.upstream, name, &bundles[0]);
    let less = here.folder().join("less.yaml");
    let text = format!(
        "kind: ImageSetConfiguration\napiVersion: mirror.openshift.io/v2alpha1\nmirror:\n  operators:\n  - catalog: {name}\n    \
         packages:\n    - name: {package}\n"
    );
    std::fs::write(&less, text).expect("write the smaller configuration");
    for isc in [more.isc(), less.display().to_string()] {
        let there = Binary::new(AIRLOCK);
        let (folder, storage) = (there.folder(), there.folder().join("storage"));
        let script = format!(
            "ip link set lo up && {{ {AIRLOCK} registry serve --root {storage} --listen 127.0.0.1:5000 --plain-http --anonymous push & }} ; \
             for n in $(seq 1200); do (echo > /dev/tcp/127.0.0.1/5000) 2>/dev/null && break; sleep 0.1; done; \
             {AIRLOCK} mirror -c {isc} --from file://{archive} --dest-tls-verify=false docker://127.0.0.1:5000/ns; code=$?; \
             {AIRLOCK} verify -c {isc} --from file://{archive} --dest-tls-verify=false docker://127.0.0.1:5000/ns || code=99; \
             kill $! 2>/dev/null; exit $code",
            storage = storage.display(),
            archive = archive.display(),
        );
        let run = Command::new(&unshare)
            .args(["--net", "bash", "-c", &script])
            .env("HOME", &folder)
            .env("XDG_CACHE_HOME", folder.join("cache"))
            .env("XDG_STATE_HOME", folder.join("state"))
            .env_remove("CONTAINERS_REGISTRIES_CONF")
            .output()
            .expect("run unshare");
        let said = String::from_utf8_lossy(&run.stderr).into_owned();
        if said.contains("Operation not permitted") {
            return tools::skipped("a network namespace needs rights that this user does not have");
        }
        assert!(run.status.success(), "{isc}: {said}");
        let loaded = arrived(&archive.join("working-dir/load-report.json"));
        let held = airlock_testkit::contents::Contents::read(&storage);
        for catalog in loaded {
            assert_eq!(held.repositories[&catalog.repository].tags.get(&catalog.tag), Some(&catalog.digest));
        }
    }
}

/// In a cluster the catalog is served by the program in its image, with the command of its image; by the target itself and out of the archive.
#[test]
fn the_chosen_catalog_is_served_as_in_a_cluster() {
    for rule in RULES {
        let (Some(opm), Some(journey)) = (Opm::find(), Journey::begin("op-22-multi-package", rule)) else { return };
        let here = Binary::new(AIRLOCK).envs(journey.upstream.env());
        let archive = here.folder().join("archive");
        journey.run(&here, &[&format!("file://{}", archive.display())]).expect_code(0);
        let more = ["--plain-http", "--anonymous", "pull"].map(str::to_owned);
        let (_server, address) = serve(Path::new(AIRLOCK), "--archive", &archive, &more);
        for (name, bundles) in &journey.expected.bundles {
            let arrived = arrived(&archive.join("working-dir/report.json"));
            // The archive has the catalog as published besides, by a tag of its digest.
            let catalog = arrived.iter().find(|c| c.name == *name && !c.tag.starts_with("sha256-"));
            let catalog = catalog.expect("it is in the archive");
            let (_, repository) = catalog.repository.rsplit_once("/archive/").expect("it lies in the archive");
            let Some(served) = opm.serve(&format!("{address}/{repository}:{}", catalog.tag)) else { return };
            let answers = served.ask("ListBundles");
            let found: BTreeSet<&str> = answers.iter().filter_map(|b| b["csvName"].as_str()).collect();
            assert_eq!(found, bundles.iter().map(String::as_str).collect(), "{name} by {rule}");
            assert!(!served.ask("ListPackages").is_empty());
        }
    }
}

/// The package of a bundle, from what the plan says of the catalog.
fn package_of(upstream: &Upstream, catalog: &str, bundle: &str) -> String {
    let here = Binary::new(AIRLOCK).envs(upstream.env());
    let isc = upstream.isc("op-22-multi-package").display().to_string();
    let planned = here.run(["plan", "-c", &isc, "-o", "json"]).expect_code(0);
    let plan: Value = serde_json::from_str(&planned.stdout).expect("understand the plan");
    let catalogs = plan["catalogs"].as_array().expect("the plan has catalogs");
    let of = catalogs.iter().find(|c| c["name"] == catalog).expect("the catalog is in the plan");
    let packages = of["packages"].as_object().expect("it has packages");
    let has = |package: &Value| package["channels"].to_string().contains(&format!("\"{bundle}\""));
    packages.iter().find(|(_, package)| has(package)).expect("a package has the bundle").0.clone()
}

macro_rules! sets {
    ($($name:ident: $set:literal),+ $(,)?) => { $(
        #[test]
        fn $name() {
            journey($set);
        }
    )+ };
}

sets! {
    heads_of_a_whole_catalog: "op-01-catalog-heads",
    a_package: "op-03-package",
    all_of_a_package: "op-04-package-full",
    a_package_from_a_version_on: "op-05-min",
    a_package_between_versions: "op-07-minmax",
    a_channel: "op-08-channel",
    all_of_a_channel: "op-09-channel-full",
    two_channels: "op-10-two-channels",
    a_channel_from_a_version_on: "op-11-channel-min",
    a_channel_between_versions: "op-13-channel-minmax",
    bundles_by_name: "op-14-bundles",
    ranges_at_both_levels: "op-15-invalid-mix",
    everything_and_a_range: "op-16-invalid-full-channel-range",
    versions_before_and_after_their_release: "op-20-prerelease-build",
    several_packages_and_catalogs: "op-22-multi-package",
    a_range_with_skips: "op-23-foo-range",
    another_name_at_the_destination: "op-24-target",
    a_catalog_on_disk: "op-25-oci-disk",
    a_catalog_by_digest: "op-27-catalog-digest",
    another_default_channel: "op-28-default-channel",
    heads_that_are_hard_to_find: "op-35-tricky-heads",
    documents_of_other_kinds: "op-36-extra-blobs",
    a_release_operators_and_images: "mix-01-happy",
    the_first_of_two_increments: "mix-02-incr-a",
    the_second_of_two_increments: "mix-03-incr-b",
}
