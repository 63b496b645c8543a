//! Reading catalogs: every form they are written in, out of images and directories, and what is said of those that are wrong.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by failing")]

mod support;

use std::collections::BTreeMap;
use std::path::Path;

use airlock_content::catalog::{
    Base, CONFIGS_LABEL, Catalog, DATABASE_LABEL, Filter, Form, PackageFilter, Rule, Target, read, read_database,
    read_directory, rebuild, select,
};
use airlock_oci::{Digest, Repository, Tag};
use airlock_store::oci_layout::Writer;
use airlock_testkit::fixture;
use airlock_testkit::tools;
use serde_json::{Value, json};
use support::{Memory, directory, file, gzip, image, layer, name, tar};

const PACKAGE: &str = r#"{"schema": "olm.package", "name": "a", "defaultChannel": "stable"}"#;
const CHANNEL: &str = r#"{"schema": "olm.channel", "package": "a", "name": "stable", "entries": [{"name": "a.v1.0.0", "skipRange": "<1.0.0"}]}"#;
const BUNDLE: &str = r#"{"schema": "olm.bundle", "package": "a", "name": "a.v1.0.0", "image": "q.io/a:1",
  "properties": [
    {"type": "olm.package", "value": {"packageName": "a", "version": "1.0.0"}},
    {"type": "olm.gvk", "value": {"group": "g", "version": "v1", "kind": "A"}},
    {"type": "olm.gvk.required", "value": {"group": "g", "version": "v1", "kind": "B"}},
    {"type": "olm.package.required", "value": {"packageName": "b", "versionRange": ">=1.0.0"}},
    {"type": "olm.constraint", "value": {"failureMessage": "needs b", "package": {"packageName": "b", "versionRange": ">=1.0.0"}}},
    {"type": "olm.csv.metadata", "value": {"displayName": "An A", "annotations": {"features.operators.openshift.io/disconnected": "true"}}},
    {"type": "somebody.elses", "value": [1, 2]}],
  "relatedImages": [{"name": "", "image": "q.io/a:1"}, {"name": "x", "image": "q.io/x@sha256:0000000000000000000000000000000000000000000000000000000000000000"}]}"#;

const YAML: &str = "---
schema: olm.package
name: a
defaultChannel: stable
---
# the channel
schema: olm.channel
package: a
name: stable
entries:
- name: a.v1.0.0
  skipRange: '<1.0.0'
---
";

fn on_disk(files: &[(&str, &str)]) -> Result<Catalog, airlock_oci::Error> {
    let folder = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let spool = tempfile::tempdir().unwrap();
    let catalog = read_directory(folder.path(), spool.path());
    assert_eq!(std::fs::read_dir(spool.path()).unwrap().count(), 0, "the spool has no name");
    catalog
}

/// What a catalog says, without where it lies.
fn says(catalog: &Catalog) -> BTreeMap<String, Value> {
    let texts = |list: &[airlock_content::catalog::Text]| list.iter().map(|t| t.to_string()).collect::<Vec<_>>();
    catalog
        .packages()
        .map(|package| {
            let channels: BTreeMap<String, Value> = package
                .channels
                .iter()
                .map(|c| {
                    let entry = |e: &airlock_content::catalog::Entry| {
                        json!({"name": *e.name, "replaces": e.replaces.as_deref(), "skips": texts(&e.skips), "range": e.skip_range.as_deref()})
                    };
                    let mut entries: Vec<Value> = c.entries.iter().map(entry).collect();
                    entries.sort_by_key(|e| e["name"].as_str().unwrap().to_owned());
                    (c.name.to_string(), json!(entries))
                })
                .collect();
            let bundles: BTreeMap<String, Value> = package
                .bundles
                .iter()
                .map(|b| {
                    let needs = b.needs();
                    let mut provides: Vec<String> = needs.provides.iter().map(ToString::to_string).collect();
                    provides.sort();
                    let kinds: Vec<String> = needs.kinds.iter().map(ToString::to_string).collect();
                    let packages: Vec<String> = needs.packages.iter().map(ToString::to_string).collect();
                    (b.name.to_string(), json!({"image": *b.image, "version": b.version.as_deref(), "related": texts(&b.related),
                        "provides": provides, "kinds": kinds, "packages": packages, "constraints": needs.constraints,
                        "display": b.display_name.as_deref(), "disconnected": b.disconnected}))
                })
                .collect();
            (package.name.to_string(), json!({"default": package.default_channel.as_deref(), "channels": channels, "bundles": bundles, "faults": package.faults}))
        })
        .collect()
}

#[test]
fn every_way_of_writing_is_understood_and_means_the_same() {
    let json = on_disk(&[("a/catalog.json", &format!("{PACKAGE}\n{CHANNEL}\n{BUNDLE}"))]).unwrap();
    let said = says(&json);
    let bundle = &said["a"]["bundles"]["a.v1.0.0"];
    assert_eq!((&bundle["kinds"], &bundle["packages"]), (&json!(["g/v1 B"]), &json!(["b >=1.0.0"])));
    assert_eq!((&bundle["display"], &bundle["disconnected"]), (&json!("An A"), &json!(true)));
    assert_eq!(bundle["related"].as_array().unwrap().len(), 2);
    assert_eq!(bundle["constraints"].as_array().unwrap().len(), 1);
    let ways: [&[(&str, &str)]; 4] = [
        &[("p.json", PACKAGE), ("c.json", CHANNEL), ("b.yaml", BUNDLE)],
        &[("x.yaml", YAML), ("deep/er/bundle", BUNDLE)],
        &[
            ("a.txt", &format!("{PACKAGE}{CHANNEL}")),
            ("b", &format!("\n\n---\n{BUNDLE}")),
            ("empty.yaml", "---\n---\n"),
        ],
        &[("catalog.json", &format!("{BUNDLE}\n---\n{CHANNEL}")), ("z", PACKAGE)],
    ];
    for files in ways {
        assert_eq!(says(&on_disk(files).unwrap()), said, "{files:?}");
    }
}

#[test]
fn ignored_files_do_not_count_wherever_the_list_comes() {
    let catalog = on_disk(&[
        ("a/catalog.json", &format!("{PACKAGE}{CHANNEL}{BUNDLE}")),
        ("README.md", "No catalog: [but words"),
        ("z/.indexignore", "*.bin\n!good.bin"),
        ("z/bad.bin", "\u{1}"),
        ("z/good.bin", r#"{"schema": "other"}"#),
        (".indexignore", "README.md"),
    ])
    .unwrap();
    assert_eq!((catalog.packages().len(), catalog.bundles()), (1, 1));
    let error = on_disk(&[("README.md", "No catalog: [but words"), ("p.json", PACKAGE)]).unwrap_err();
    assert!(error.to_string().contains("`README.md`, line") && error.hint_text().unwrap().contains(".indexignore"));
}

#[test]
fn what_is_wrong_is_named_with_file_and_line() {
    let cases = [
        ("a.json", format!("{PACKAGE}\n\n{{\"schema\":\n \"olm.channel\",}}"), "`a.json`, line 4"),
        ("a.json", format!("{PACKAGE}\n{{\"schema\": \"olm.bundle\""), "`a.json`, line 2"),
        ("a.json", format!("{PACKAGE}\n[1]"), "line 2"),
        ("a.json", r#"{"name": "a"}"#.to_owned(), "no `schema`"),
        ("a.json", r#"{"schema": "olm.bundle", "name": "a"}"#.to_owned(), "has no `package`"),
        ("a.json", BUNDLE.replace("\"1.0.0\"}", "1}"), "property `olm.package` of bundle `a.v1.0.0`"),
        ("a/b.yaml", "---\nschema: olm.package\nname: a\n---\nschema: [\n".to_owned(), "`a/b.yaml`, line 5"),
        ("b.yaml", "- a\n- b\n".to_owned(), "`b.yaml`, line 1"),
        ("b.yaml", "just text".to_owned(), "`b.yaml`, line 1"),
    ];
    for (path, text, says) in cases {
        let error = on_disk(&[(path, &text)]).unwrap_err().to_string();
        assert!(error.contains(says), "{says}: {error}");
    }
    let error = on_disk(&[("empty.json", "")]).unwrap_err();
    assert!(error.to_string().contains("no document"), "{error}");
}

#[test]
fn a_package_that_is_not_whole_is_kept_with_its_faults() {
    let twice = format!("{PACKAGE}{PACKAGE}{CHANNEL}{CHANNEL}{BUNDLE}{BUNDLE}");
    let catalog = on_disk(&[("a", &twice)]).unwrap();
    assert_eq!(catalog.package("a").unwrap().faults.len(), 3);
    assert_eq!(catalog.bundles(), 1);
    let catalog = on_disk(&[("a", &format!("{CHANNEL}{BUNDLE}"))]).unwrap();
    assert!(catalog.package("a").unwrap().faults[0].contains("olm.package"));
}

#[tokio::test]
async fn a_catalog_is_read_out_of_its_image() {
    let whole = format!("{PACKAGE}{CHANNEL}{BUNDLE}");
    let old = PACKAGE.replace("\"a\"", "\"old\"");
    for (label, path) in [("/configs", "configs"), ("srv/cat/", "srv/cat"), ("/", "")] {
        let bottom = layer(gzip(&tar(&[
            directory("configs/"),
            file("configs/old.json", old.as_bytes()),
            file("bin/opm", b"x"),
        ])));
        let inner = format!("{path}/a/catalog.json");
        let inner = if path.is_empty() { "configs/a/catalog.json".to_owned() } else { inner };
        let top = layer(gzip(&tar(&[file("configs/.wh.old.json", b""), file(&inner, whole.as_bytes())])));
        let mut source = Memory::new();
        source.add("index", &labelled(vec![bottom, top], CONFIGS_LABEL, label));
        let spool = tempfile::tempdir().unwrap();
        let catalog = read(&source, &name("index"), spool.path()).await;
        if path.is_empty() {
            assert!(catalog.unwrap_err().to_string().contains("no directory inside it"));
            continue;
        }
        let catalog = catalog.unwrap();
        assert_eq!((catalog.origin.path.as_str(), catalog.origin.form), (path, Form::Files));
        assert_eq!(says(&catalog).keys().collect::<Vec<_>>(), ["a"]);
        let document: Value =
            serde_json::from_slice(&catalog.document(&catalog.package("a").unwrap().bundles[0]).unwrap()).unwrap();
        assert_eq!(document, serde_json::from_str::<Value>(BUNDLE).unwrap());
    }
    let mut source = Memory::new();
    source.add("no", &image(vec![layer(gzip(&tar(&[file("configs/a", b"{}")])))]));
    let error = read(&source, &name("no"), Path::new("/tmp")).await.unwrap_err();
    assert!(error.to_string().contains("no catalog of operators"), "{error}");
}

fn labelled(layers: Vec<fixture::Blob>, label: &str, value: &str) -> fixture::Built {
    use airlock_oci::{Manifest, media_type};
    let config = json!({"architecture": "amd64", "os": "linux", "config": {"Labels": {label: value}}, "rootfs": {"type": "layers", "diff_ids": vec![Digest::of(b""); layers.len()]}});
    let config = fixture::blob(media_type::OCI_CONFIG, config.to_string());
    let descriptors: Vec<_> = layers.iter().map(|l| l.descriptor.clone()).collect();
    let text = json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "config": config.descriptor, "layers": descriptors});
    let manifest = Manifest::parse(text.to_string().into(), None).unwrap();
    let mut blobs = layers;
    blobs.push(config);
    fixture::Built { manifest, blobs, children: Vec::new(), platform: None }
}

#[tokio::test]
async fn a_known_choice_has_a_known_digest() {
    let whole = format!("{PACKAGE}{CHANNEL}{BUNDLE}{}", PACKAGE.replace("\"a\"", "\"b\""));
    let layers = vec![layer(gzip(&tar(&[file("configs/index.json", whole.as_bytes())])))];
    let mut source = Memory::new();
    source.add("index", &labelled(layers, CONFIGS_LABEL, "/configs"));
    let folder = tempfile::tempdir().unwrap();
    let catalog = read(&source, &name("index"), folder.path()).await.unwrap();
    let filter = Filter { full: false, packages: vec![PackageFilter::named("a")] };
    let selection = select(&catalog, &filter, Rule::Table).unwrap();
    let writer = Writer::open(&folder.path().join("layout")).unwrap();
    let (repository, tag) = (Repository::new("index").unwrap(), Tag::new("filtered").unwrap());
    let target = Target { sink: &writer, repository: &repository, tag: &tag };
    let base = Base { source: &source, name: &name("index"), platforms: &[] };
    let built = rebuild(&catalog, &selection, base, target, folder.path()).await.unwrap();
    // Known bytes: a change of them is a change of everybody's catalogs.
    let layers: Vec<_> = built.children[0].layers()[1..].iter().map(|l| l.digest.short().to_string()).collect();
    assert_eq!(layers, ["68061e1b153b", "7bc6b26829c6"]);
}

#[tokio::test]
async fn a_database_says_what_the_files_made_of_it_say() {
    let Some(shared) = tools::shared() else { return };
    let folder = shared.join("vectors/updates/catalog");
    let spool = tempfile::tempdir().unwrap();
    let files = read_directory(&folder.join("test-declcfg"), spool.path()).unwrap();
    let database = read_database(&folder.join("sqlite-index.db"), spool.path()).unwrap();
    assert_eq!(database.origin.form, Form::Sqlite);
    assert_eq!(says(&database), says(&files));
    assert_eq!(properties(&database), properties(&files));
    // The same out of an image.
    let bytes = std::fs::read(folder.join("sqlite-index.db")).unwrap();
    let mut source = Memory::new();
    let layers = vec![layer(gzip(&tar(&[file("database/index.db", &bytes)])))];
    source.add("index", &labelled(layers, DATABASE_LABEL, "/database/index.db"));
    let read = read(&source, &name("index"), spool.path()).await.unwrap();
    assert_eq!(says(&read), says(&files));
    assert_eq!(std::fs::read_dir(spool.path()).unwrap().count(), 0, "the copy of the database is gone");
}

/// Properties and icons of the documents: where a channel stood in a property, it stands in a document of its own now.
fn properties(catalog: &Catalog) -> BTreeMap<String, Vec<String>> {
    let mut found = BTreeMap::new();
    for bundle in catalog.packages().flat_map(|p| &p.bundles) {
        let document: Value = serde_json::from_slice(&catalog.document(bundle).unwrap()).unwrap();
        let own = |p: &&Value| !matches!(p["type"].as_str().unwrap(), "olm.channel" | "olm.skips" | "olm.skipRange");
        let mut all: Vec<String> =
            document["properties"].as_array().unwrap().iter().filter(own).map(ToString::to_string).collect();
        all.sort();
        found.insert(bundle.name.to_string(), all);
    }
    found
}

#[test]
fn what_is_no_database_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.db");
    for bytes in [&b""[..], b"no database at all, but long enough to look like one", &[0; 4096]] {
        std::fs::write(&path, bytes).unwrap();
        let error = read_database(&path, folder.path()).unwrap_err();
        assert!(error.to_string().contains("database"), "{error}");
    }
}
