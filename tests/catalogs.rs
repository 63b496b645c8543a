//! The promise: what a catalog offers is listed, compared and made into a configuration wherever it lies, wrong names are answered with the
//! right ones, and `catalog mirror` carries a whole catalog as `oc adm catalog mirror` does, with rules that lead to every image.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by failing")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use airlock_testkit::binary::{Binary, Outcome};
use airlock_testkit::contents::altered;
use airlock_testkit::target::{Access, Target};
use airlock_testkit::world::{Faults, Scale, Serving, Upstream, World};
use serde_json::Value;

const AIRLOCK: &str = env!("CARGO_BIN_EXE_airlock");
const REDHAT: &str = "registry.redhat.io/redhat/redhat-operator-index";
const SMALL: &str = "quay.io/oc-mirror/oc-mirror-dev:test-catalog-latest";
const LARGER: &str = "quay.io/oc-mirror/oc-mirror-dev:test-catalog-diff";
const LACKING: &str = "quay.io/world-edge/catalog:missing-related";
const USAGE: i32 = 2;
const PARTIAL: i32 = 3;
const REFUSED: i32 = 9;

fn begin() -> Option<(Upstream, Binary)> {
    let upstream = World::get(Scale::Small)?.start(Serving::Scripted(Faults::default()))?;
    let binary = Binary::new(AIRLOCK).envs(upstream.env());
    Some((upstream, binary))
}

fn begin_with_target() -> Option<(Upstream, Binary, Target)> {
    let (upstream, binary) = begin()?;
    Some((upstream, binary, Target::airlock(Path::new(AIRLOCK), Access::default())?))
}

#[track_caller]
fn json(outcome: &Outcome) -> Value {
    serde_json::from_str(&outcome.stdout).unwrap_or_else(|error| panic!("{error}: {outcome:?}"))
}

/// The first words of lines.
fn column(text: &str) -> Vec<&str> {
    text.lines().filter_map(|line| line.split_whitespace().next()).collect()
}

/// Every image that a catalog of the world names.
fn images_of(upstream: &Upstream, catalog: &str) -> BTreeSet<String> {
    let world: Value = serde_json::from_slice(&fs::read(upstream.folder().join("world.json")).unwrap()).unwrap();
    let found = world["catalogs"].as_array().unwrap().iter().find(|c| c["ref"] == catalog).unwrap().clone();
    let bundles = found["packages"].as_array().unwrap().iter().flat_map(|p| p["bundles"].as_array().unwrap().clone());
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    bundles
        .flat_map(|b| {
            let related = b["relatedImages"].as_array().cloned().unwrap_or_default();
            related.iter().map(|i| text(&i["image"])).chain([text(&b["image"])]).collect::<Vec<_>>()
        })
        .filter(|image| !image.is_empty())
        .collect()
}

#[test]
fn operators_channels_and_versions_are_listed() {
    let Some((upstream, airlock)) = begin() else { return };
    let catalog = format!("{REDHAT}:v4.18");
    let listed = airlock.run(["catalog", "list", &catalog]).expect_code(0);
    assert!(column(&listed.stdout).contains(&"compliance-operator"), "{listed:?}");
    let of_package = airlock.run(["catalog", "list", &catalog, "--package", "compliance-operator"]).expect_code(0);
    assert_eq!(column(&of_package.stdout), ["compliance-operator", "CHANNEL", "4.7", "release-0.1", "stable"]);
    assert!(of_package.stdout.contains("compliance-operator.v1.9.2"), "{of_package:?}");
    let document = json(
        &airlock.run(["catalog", "list", SMALL, "--package", "foo", "--channel", "beta", "-o", "json"]).expect_code(0),
    );
    let channel = &document["packages"][0]["channels"][0];
    assert_eq!((&channel["name"], &channel["head"]), (&"beta".into(), &"foo.v0.3.1".into()), "{document}");
    let versions: Vec<&Value> = channel["entries"].as_array().unwrap().iter().map(|e| &e["version"]).collect();
    assert_eq!(versions, ["0.1.0", "0.2.0", "0.3.0", "0.3.1"]);

    let published = airlock.run(["catalog", "list", "--version", "4.18"]).expect_code(0);
    assert_eq!(published.stdout.lines().count(), 5, "{published:?}");
    assert!(published.stdout.contains(&format!("{catalog}  ")), "{published:?}");

    let layout = upstream.folder().join("oci/catalog");
    if layout.is_dir() {
        let listed = airlock.run(["catalog", "list", &format!("oci:{}", layout.display())]).expect_code(0);
        assert!(column(&listed.stdout).contains(&"good"), "{listed:?}");
    }
    // What cannot have one head says so, and is listed nevertheless.
    let broken = airlock.run(["catalog", "list", "quay.io/world-edge/catalog:multihead", "--package", "multihead"]);
    assert!(broken.expect_code(0).stdout.contains("multiple channel heads found"));
}

#[test]
fn a_catalog_in_an_archive_is_listed_without_a_network() {
    let Some((_upstream, here)) = begin() else { return };
    let isc = here.folder().join("isc.yaml");
    fs::write(
        &isc,
        format!("kind: ImageSetConfiguration\napiVersion: mirror.openshift.io/v2alpha1\nmirror:\n  additionalImages:\n  - name: {SMALL}\n"),
    )
    .unwrap();
    let archive = format!("file://{}", here.folder().join("archive").display());
    here.run(["mirror", "-c", isc.to_str().unwrap(), &archive]).expect_code(0);
    let there = Binary::new(AIRLOCK).env("CONTAINERS_REGISTRIES_CONF", "/dev/null");
    let catalogs = there.run(["catalog", "list", "--from", &archive]).expect_code(0);
    assert_eq!(column(&catalogs.stdout), ["CATALOG", SMALL]);
    let listed = there.run(["catalog", "list", SMALL, "--from", &archive]).expect_code(0);
    assert_eq!(column(&listed.stdout), ["PACKAGE", "bar", "baz", "foo"]);
    let text = there.run(["catalog", "init", SMALL, "--from", &archive, "--package", "foo"]).expect_code(0).stdout;
    assert!(text.contains(&format!("- catalog: {SMALL}\n")), "{text}");

    // Of a catalog that was chosen from, the archive has the published one too: a load may choose anew.
    fs::write(&isc, here.run(["catalog", "init", SMALL, "--package", "foo"]).expect_code(0).stdout).unwrap();
    let chosen = format!("file://{}", here.folder().join("chosen").display());
    here.run(["mirror", "-c", isc.to_str().unwrap(), &chosen]).expect_code(0);
    assert_eq!(there.run(["catalog", "list", "--from", &chosen]).expect_code(0).stdout, catalogs.stdout);
    let listed = there.run(["catalog", "list", SMALL, "--from", &chosen]).expect_code(0);
    assert_eq!(column(&listed.stdout), ["PACKAGE", "bar", "baz", "foo"]);
}

#[test]
fn wrong_names_are_answered_with_the_right_ones() {
    let Some((_upstream, airlock)) = begin() else { return };
    let catalog = format!("{REDHAT}:v4.18");
    for (arguments, says) in [
        (&["list", &catalog, "--package", "compliance-operatr"][..], "did you mean `compliance-operator`?"),
        (&["list", &catalog, "--package", "compliance-operator", "--channel", "stabel"], "did you mean `stable`?"),
        (&["init", &catalog, "--package", "compliance-operatr"], "did you mean `compliance-operator`?"),
        (&["init", &catalog, "--package", "compliance-operator,stabel"], "did you mean `stable`?"),
        (&["list"], "a catalog or a version is needed"),
        (&["diff", &catalog], "two catalogs, or two configurations"),
        (&["mirror", &catalog, "127.0.0.1:1", "--max-components", "1"], "--max-components must be 0"),
        (&["mirror", &catalog, "127.0.0.1:1", "--index-filter-by-os", "plan9/.*", "--dry-run"], "linux/amd64"),
    ] {
        let outcome = airlock.run(["catalog"].iter().chain(arguments)).expect_code(USAGE);
        assert!(outcome.stderr.contains(says), "{arguments:?}: {}", outcome.stderr);
    }
}

#[test]
fn scripts_of_oc_mirror_find_their_lines() {
    let Some((_upstream, airlock)) = begin() else { return };
    let list = |more: &[&str]| airlock.run(["oc-mirror", "list", "operators", "--v2"].iter().chain(more));
    let catalogs = list(&["--catalogs", "--version", "4.18"]).expect_code(0);
    let lines: Vec<&str> = catalogs.stdout.lines().collect();
    assert_eq!(
        lines[..3],
        ["Available OpenShift OperatorHub catalogs:", "OpenShift 4.18:", &format!("{REDHAT}:v4.18")]
    );
    assert!(lines[3].starts_with("Invalid catalog reference, please check version: "), "{lines:?}");
    let operators = list(&["--catalog", SMALL]).expect_code(0);
    assert!(operators.stdout.starts_with("NAME  DISPLAY NAME  DEFAULT CHANNEL\nbar "), "{operators:?}");
    let channels = list(&["--catalog", SMALL, "--package", "foo"]).expect_code(0);
    assert!(channels.stdout.ends_with("\n\nPACKAGE  CHANNEL  HEAD\nfoo      beta     foo.v0.3.1\n"), "{channels:?}");
    let versions = list(&["--catalog", SMALL, "--package", "foo", "--channel", "beta"]).expect_code(0);
    assert_eq!(versions.stdout, "VERSIONS\n0.1.0\n0.2.0\n0.3.0\n0.3.1\n");
    let broken = list(&["--catalog", "quay.io/world-edge/catalog:multihead", "--package", "multihead"]).expect_code(0);
    assert!(broken.stdout.contains("ERROR: multiple channel heads found in graph: "), "{broken:?}");
    for wrong in [
        &["--package", "foo"][..],
        &["--catalog", SMALL, "--version", "4.18"],
        &["--catalogs"],
        &["--catalog", SMALL, "--channel", "beta"],
        &["--catalog", "oci://x"],
        &["--catalog", SMALL, "--package", "fooo"],
    ] {
        list(wrong).expect_code(1);
    }
}

#[test]
fn two_catalogs_and_two_configurations_are_compared() {
    let Some((upstream, airlock)) = begin() else { return };
    let found = json(&airlock.run(["catalog", "diff", SMALL, LARGER, "-o", "json"]).expect_code(0));
    let (old, new) = (images_of(&upstream, SMALL), images_of(&upstream, LARGER));
    let only: BTreeSet<String> = new.difference(&old).cloned().collect();
    let named = |value: &Value| -> BTreeSet<String> {
        value.as_array().unwrap().iter().map(|image| image.as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(named(&found[0]["added"]["images"]), only);
    assert!(!only.is_empty() && found[0]["added"]["bytes"].as_u64().unwrap() > 0, "{found}");
    let changed = found[0]["packagesChanged"].as_array().unwrap();
    let foo = changed.iter().find(|package| package["name"] == "foo").unwrap();
    assert_eq!(foo["bundlesAdded"].as_array().unwrap().len(), 1, "{foo}");
    assert_eq!(foo["heads"][0]["was"], "foo.v0.3.1", "{foo}");

    let quick = airlock.run(["catalog", "diff", SMALL, LARGER, "--no-bytes"]).expect_code(0);
    assert!(quick.stdout.contains(&format!("+ {} images\n", only.len())), "{quick:?}");
    let same = airlock.run(["catalog", "diff", SMALL, SMALL]).expect_code(0);
    assert_eq!(same.stdout, format!("{SMALL} -> {SMALL}\n+ 0 images, 0 B\n- 0 images, 0 B\n"));

    let isc = |id: &str| upstream.isc(id).display().to_string();
    let (head, full) = (isc("op-03-package"), isc("op-04-package-full"));
    let filters = airlock.run(["catalog", "diff", "-c", &head, "-c", &full, "--no-bytes"]).expect_code(0);
    assert!(filters.stdout.contains("package"), "{filters:?}");
    let one = airlock
        .run(["catalog", "diff", &format!("{REDHAT}:v4.17"), &format!("{REDHAT}:v4.18"), "-c", &head, "--no-bytes"])
        .expect_code(0);
    assert!(!one.stdout.contains("gatekeeper"), "the filter does not hold:\n{}", one.stdout);
}

#[test]
fn a_configuration_is_written_that_reads_back() {
    let Some((_upstream, airlock)) = begin() else { return };
    let catalog = format!("{REDHAT}:v4.18");
    let file = airlock.folder().join("isc.yaml");
    let packages = ["--package", "compliance-operator", "--package", "gatekeeper-operator-product,3.11,3.14"];
    let arguments: Vec<&str> = ["catalog", "init", &catalog].into_iter().chain(packages).collect();
    let printed = airlock.run(&arguments).expect_code(0).stdout;
    let expected = format!(
        "kind: ImageSetConfiguration\napiVersion: mirror.openshift.io/v2alpha1\nmirror:\n  operators:\n  - catalog: {catalog}\n    packages:\n    \
         - name: compliance-operator\n      channels:\n      # newest 1.9.2; 15 versions, 1.4.0 to 1.9.2\n      - name: stable\n    \
         - name: gatekeeper-operator-product\n      # `stable` in the catalog, which is not among the channels\n      \
         defaultChannel: \"3.11\"\n      channels:\n"
    );
    assert!(printed.starts_with(&expected), "{printed}");
    let to_file: Vec<&str> = arguments.iter().copied().chain(["-o", file.to_str().unwrap()]).collect();
    airlock.run(&to_file).expect_code(0);
    assert_eq!(fs::read_to_string(&file).unwrap(), printed);
    airlock.run(&to_file).expect_code(REFUSED);
    airlock.run(to_file.iter().copied().chain(["--force"])).expect_code(0);
    // What it chooses is what a filter of the same names chooses.
    let path = file.to_str().unwrap();
    let found = json(&airlock.run(["catalog", "diff", "-c", path, "-c", path, "-o", "json"]).expect_code(0));
    assert_eq!(found[0]["first"], catalog.as_str());
}

#[test]
fn a_whole_catalog_arrives_and_the_rules_lead_to_it() {
    let Some((upstream, airlock, target)) = begin_with_target() else { return };
    let to = format!("{}/mirrored", target.address());
    let folder = airlock.folder().join("manifests");
    let into = folder.to_str().unwrap();
    let dry = airlock.run(["catalog", "mirror", SMALL, &to, "--dest-tls-verify=false", "--dry-run"]).expect_code(0);
    assert!(dry.stdout.contains(&format!("{SMALL}={to}/oc-mirror-oc-mirror-dev:test-catalog-latest\n")), "{dry:?}");
    airlock.run(["catalog", "mirror", SMALL, &to, "--manifests-only", "--to-manifests", into]).expect_code(0);
    assert!(target.contents().repositories.is_empty(), "something was copied");

    let done = airlock
        .run(["catalog", "mirror", SMALL, &to, "--dest-tls-verify=false", "--to-manifests", into])
        .expect_code(0);
    assert_eq!(altered(target.storage()), [""; 0]);
    let mapping = fs::read_to_string(folder.join("mapping.txt")).unwrap();
    let sources: BTreeSet<&str> = mapping.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
    let images = images_of(&upstream, SMALL);
    for image in &images {
        assert!(sources.contains(image.as_str()), "{image} is not in\n{mapping}");
    }
    assert_eq!(sources.len(), images.len() + 1);
    let contents = target.contents();
    for line in mapping.lines() {
        let (_, to) = line.split_once('=').unwrap();
        let (repository, tag) = to.strip_prefix(target.address()).unwrap()[1..].rsplit_once(':').unwrap();
        let digest = &contents.repositories[repository].tags[tag];
        assert!(done.stdout.contains(&format!("{digest} {to}\n")), "{to} is not in\n{}", done.stdout);
    }
    let source = fs::read_to_string(folder.join("catalogSource.yaml")).unwrap();
    assert!(source.contains(&format!("image: {to}/oc-mirror-oc-mirror-dev:test-catalog-latest\n")), "{source}");

    // What was written is what a node needs: nothing but the mirror can answer here.
    let rules = folder.join("imageDigestMirrorSet.yaml");
    let rendered = airlock.run(["rules", "render", rules.to_str().unwrap()]).expect_code(0).stdout;
    let conf = airlock.folder().join("rendered.conf");
    fs::write(&conf, rendered).unwrap();
    let node = Binary::new(AIRLOCK).env("CONTAINERS_REGISTRIES_CONF", conf.display().to_string());
    let by_digest: Vec<&String> = images.iter().filter(|image| image.contains('@')).collect();
    assert!(!by_digest.is_empty());
    for image in by_digest {
        let found = node.run(["image", "digest", image, "--tls-verify=false"]).expect_code(0);
        assert!(image.ends_with(found.stdout.trim()), "{image}: {found:?}");
    }
    airlock.run(["rules", "render", folder.join("imageContentSourcePolicy.yaml").to_str().unwrap()]).expect_code(0);
    // The mirrored catalog is one.
    let mirrored = format!("{to}/oc-mirror-oc-mirror-dev:test-catalog-latest");
    let listed = airlock.run(["catalog", "list", &mirrored, "--tls-verify=false"]).expect_code(0);
    assert_eq!(column(&listed.stdout), ["PACKAGE", "bar", "baz", "foo"]);
}

#[test]
fn a_catalog_crosses_the_gap_in_a_file_tree() {
    let Some((upstream, airlock, target)) = begin_with_target() else { return };
    let tree = airlock.folder().join("tree");
    let (tree, into) = (tree.to_str().unwrap(), airlock.folder().join("rules"));
    let written = airlock.run(["catalog", "mirror", SMALL, "file:///local/index", "--dir", tree]).expect_code(0);
    let name = "file://local/index/oc-mirror/oc-mirror-dev:test-catalog-latest";
    assert!(written.stdout.contains(&format!("oc adm catalog mirror {name} REGISTRY/REPOSITORY")), "{written:?}");
    // Nothing leads to the upstream.
    let there = Binary::new(AIRLOCK).env("CONTAINERS_REGISTRIES_CONF", "/dev/null");
    let more = ["--from-dir", tree, "--dest-tls-verify=false", "--to-manifests", into.to_str().unwrap()];
    there.run(["catalog", "mirror", name, target.address()].iter().chain(&more)).expect_code(0);
    assert_eq!(altered(target.storage()), [""; 0]);
    // In one go: rules are for the names that clusters ask for.
    let rules = fs::read_to_string(into.join("imageDigestMirrorSet.yaml")).unwrap();
    let contents = target.contents();
    for image in images_of(&upstream, SMALL).iter().filter(|image| image.contains('@')) {
        let (name, digest) = image.split_once('@').unwrap();
        assert!(rules.contains(&format!("source: {name}\n")), "{name} is not in\n{rules}");
        let held = contents.repositories.values().any(|held| held.manifests.contains(digest));
        assert!(held, "{image} has not arrived");
    }
}

#[test]
fn what_cannot_be_had_is_told_and_the_rest_arrives() {
    let Some((_upstream, airlock, target)) = begin_with_target() else { return };
    let mirror = |more: &[&str]| {
        let begin = ["catalog", "mirror", LACKING, target.address(), "--dest-tls-verify=false"];
        airlock.run(begin.iter().chain(more))
    };
    let refused = mirror(&["--continue-on-error=false"]);
    assert!(refused.code.is_some_and(|code| code != 0 && code != PARTIAL), "{refused:?}");
    assert!(target.contents().repositories.is_empty(), "something was copied");
    let partial = mirror(&["-o", "json"]).expect_code(PARTIAL);
    let document = json(&partial);
    let failed = document["failed"].as_array().unwrap();
    assert!(!failed.is_empty() && failed.iter().all(|f| partial.stderr.contains(f["image"].as_str().unwrap())));
    assert!(target.contents().repositories.contains_key("world-edge/catalog"), "the catalog is not there");
}
