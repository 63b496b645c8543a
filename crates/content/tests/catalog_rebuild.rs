//! The smaller catalogs of the world's image sets: judged by a checker that shares no code with ours, read back, and the same on every run.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by failing")]

mod catalog_support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use airlock_content::catalog::{
    Base, Catalog, Derived, DerivedSource, Form, Kept, Rule, Selection, Target, Text, doctor, read, rebuild, select,
};
use airlock_oci::{Platform, Reference, Repository, Source, Tag};
use airlock_store::oci_layout::{Layout, Writer};
use airlock_testkit::tools;
use catalog_support::{WorldSource, read_named, rules, sets, world};
use serde_json::Value;

/// Judges a directory or a layout: what it holds, or what is wrong.
fn judge(root: &Path) -> Result<Value, String> {
    let python = tools::need("python3").unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/catalog_validate.py");
    let done = Command::new(python).arg(script).arg(root).output().unwrap();
    if done.status.success() {
        return Ok(serde_json::from_slice(&done.stdout).unwrap());
    }
    Err(String::from_utf8_lossy(&done.stderr).into_owned())
}

struct Made {
    folder: tempfile::TempDir,
    image: Derived,
}

async fn make(
    catalog: &Catalog,
    selection: &Selection,
    source: &dyn Source,
    name: &Reference,
    platforms: &[Platform],
) -> Made {
    let folder = tempfile::tempdir().unwrap();
    let layout = folder.path().join("layout");
    let writer = Writer::open(&layout).unwrap();
    let (repository, tag) = (Repository::new("redhat/index").unwrap(), Tag::new("filtered").unwrap());
    let target = Target { sink: &writer, repository: &repository, tag: &tag };
    let base = Base { source, name, platforms };
    let image = rebuild::rebuild(catalog, selection, base, target, folder.path()).await.unwrap();
    Made { folder, image }
}

fn shape(
    packages: &BTreeMap<Text, Kept>,
) -> BTreeMap<String, (Option<String>, BTreeSet<String>, BTreeMap<String, BTreeSet<String>>)> {
    let own = |t: &Text| t.to_string();
    packages
        .iter()
        .map(|(name, kept)| {
            let channels = kept.channels.iter().map(|(c, entries)| (own(c), entries.iter().map(own).collect()));
            (
                own(name),
                (kept.default_channel.as_ref().map(own), kept.bundles.keys().map(own).collect(), channels.collect()),
            )
        })
        .collect()
}

#[tokio::test]
async fn every_smaller_catalog_is_one_that_opm_takes_and_holds_what_was_chosen() {
    let (Some(world), Some(sets)) = (world(), sets()) else { return };
    if tools::need("python3").is_none() {
        return;
    }
    let world: Arc<WorldSource> = Arc::new(world);
    let mut built = BTreeSet::new();
    let linux: Platform = "linux/amd64".parse().unwrap();
    for (id, wanted, expectations) in &sets {
        for one in wanted.iter().filter(|w| !w.catalog.starts_with("oci://")) {
            let catalog = read_named(&world, &one.catalog).await;
            let name: Reference = one.catalog.parse().unwrap();
            for rule in expectations.keys().flat_map(|name| rules(name)) {
                let Ok(chosen) = select(&catalog, &one.filter, rule) else { continue };
                let (selection, dropped) = doctor::leave_out_broken(&catalog, &chosen);
                assert_eq!(dropped, [], "{id} {rule}");
                // Both rule sets often choose the same.
                if !built.insert(format!("{} {:?}", one.catalog, shape(&selection.packages))) {
                    continue;
                }
                let made = make(&catalog, &selection, &*world, &name, std::slice::from_ref(&linux)).await;
                let held = judge(&made.folder.path().join("layout")).unwrap_or_else(|e| panic!("{id} {rule}: {e}"));
                let names: BTreeSet<String> =
                    selection.packages.values().flat_map(|k| k.bundles.keys()).map(|b| b.to_string()).collect();
                let there: BTreeSet<String> = held["packages"]
                    .as_object()
                    .unwrap()
                    .values()
                    .flat_map(|p| p["bundles"].as_array().unwrap())
                    .map(|b| b.as_str().unwrap().to_owned())
                    .collect();
                assert_eq!(names, there, "{id} {rule}");
                // Read back through the base's layers: nothing of the old catalog is seen.
                let layout = Arc::new(Layout::open(&made.folder.path().join("layout")).unwrap());
                let stacked = DerivedSource::new(&made.image, layout, Arc::clone(&world) as Arc<dyn Source>);
                let again =
                    read(&stacked, &name.with_tag(Tag::new("filtered").unwrap()), made.folder.path()).await.unwrap();
                let all = select(&again, &airlock_content::catalog::Filter { full: true, packages: Vec::new() }, rule)
                    .unwrap();
                assert_eq!(shape(&all.packages), shape(&selection.packages), "{id} {rule}");
                assert_eq!(again.origin.path, "configs");
                assert_eq!(again.origin.form, Form::Files);
            }
        }
    }
    assert!(built.len() > 25, "{}", built.len());
}

#[tokio::test]
async fn the_same_choice_gives_the_same_digest() {
    let Some(world) = world() else { return };
    let name: Reference = "quay.io/oc-mirror/oc-mirror-dev:test-catalog-extra-blobs".parse().unwrap();
    let mut digests = BTreeSet::new();
    for packages in [["foo", "bar"], ["bar", "foo"]] {
        let catalog = read_named(&world, &name.to_string()).await;
        let packages = packages.iter().map(|p| airlock_content::catalog::PackageFilter::named(*p)).collect();
        let filter = airlock_content::catalog::Filter { full: false, packages };
        let selection = select(&catalog, &filter, Rule::Table).unwrap();
        let made = make(&catalog, &selection, &world, &name, &[]).await;
        digests.insert(made.image.manifest.digest().to_string());
        let held = judge(&made.folder.path().join("layout")).unwrap();
        // Documents of other kinds: those of `bar` and of nobody stay, those of other packages go.
        let others: Vec<&str> = held["others"].as_array().unwrap().iter().map(|o| o.as_str().unwrap()).collect();
        assert!(others.iter().any(|o| o.ends_with("/bar")), "{others:?}");
        assert!(others.iter().any(|o| o.ends_with('/')), "{others:?}");
        assert!(others.iter().all(|o| o.ends_with("/bar") || o.ends_with('/')), "{others:?}");
    }
    assert_eq!(digests.len(), 1);
}

#[tokio::test]
async fn every_platform_is_built_and_only_those_that_are_wanted() {
    let Some(world) = world() else { return };
    let name: Reference = "registry.redhat.io/redhat/redhat-operator-index:v4.18".parse().unwrap();
    let catalog = read_named(&world, &name.to_string()).await;
    let filter = airlock_content::catalog::Filter {
        full: false,
        packages: vec![airlock_content::catalog::PackageFilter::named("jaeger-product")],
    };
    let selection = select(&catalog, &filter, Rule::Table).unwrap();
    let all = make(&catalog, &selection, &world, &name, &[]).await;
    let held = judge(&all.folder.path().join("layout")).unwrap();
    assert_eq!(held["platforms"].as_array().unwrap().len(), 4);
    let arm: Platform = "linux/arm64".parse().unwrap();
    let one = make(&catalog, &selection, &world, &name, &[arm]).await;
    let held = judge(&one.folder.path().join("layout")).unwrap();
    assert_eq!(held["platforms"], serde_json::json!(["linux/arm64"]));
}

#[test]
fn the_checker_itself_sees_what_is_wrong() {
    if tools::need("python3").is_none() {
        return;
    }
    let package = r#"{"schema":"olm.package","name":"a","defaultChannel":"c"}"#;
    let bundle = |v: &str| {
        format!(
            r#"{{"schema":"olm.bundle","name":"a.v{v}","package":"a","image":"q.io/a:{v}","properties":[{{"type":"olm.package","value":{{"packageName":"a","version":"{v}"}}}}]}}"#
        )
    };
    let channel =
        |entries: &str| format!(r#"{{"schema":"olm.channel","package":"a","name":"c","entries":[{entries}]}}"#);
    let good = r#"{"name":"a.v1.0.0"},{"name":"a.v1.1.0","replaces":"a.v1.0.0"}"#;
    let cases = [
        (format!("{package}{}{}{}", channel(good), bundle("1.0.0"), bundle("1.1.0")), ""),
        (format!("{package}{}{}", channel(good), bundle("1.0.0")), "no olm.bundle blob"),
        (
            format!("{package}{}{}", channel(r#"{"name":"a.v1.0.0"},{"name":"a.v1.1.0"}"#), bundle("1.0.0")),
            "2 channel heads",
        ),
        (
            format!("{package}{}{}", channel(r#"{"name":"a.v1.0.0"}"#), bundle("1.0.0")) + &bundle("1.1.0"),
            "not found in any",
        ),
        (channel(good), "unknown package"),
        (
            package.replace("\"c\"", "\"d\"") + &channel(r#"{"name":"a.v1.0.0"}"#) + &bundle("1.0.0"),
            "default channel d",
        ),
    ];
    for (text, says) in cases {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("catalog.json"), &text).unwrap();
        match judge(folder.path()) {
            Ok(_) => assert_eq!(says, "", "{text}"),
            Err(error) => assert!(!says.is_empty() && error.contains(says), "{says}: {error}"),
        }
    }
}
