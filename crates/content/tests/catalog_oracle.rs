//! Many filters over the world's catalogs, which are real ones: ours against the world's own rules, written by others in another language.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by failing")]

mod catalog_support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use airlock_content::catalog::{Catalog, Filter, Package, Rule, Selection, rebuild, select};
use airlock_testkit::tools;
use catalog_support::{read_named, wanted, world};
use serde_json::{Value, json};

/// The catalogs: real ones, and one for each thing that can be wrong.
const CATALOGS: [&str; 12] = [
    "registry.redhat.io/redhat/redhat-operator-index:v4.18",
    "registry.redhat.io/redhat/redhat-operator-index:v4.17",
    "registry.redhat.io/redhat/community-operator-index:v4.18",
    "quay.io/oc-mirror/oc-mirror-dev:test-catalog-latest",
    "quay.io/oc-mirror/oc-mirror-dev:test-catalog-diff",
    "quay.io/oc-mirror/oc-mirror-dev:test-catalog-prune",
    "quay.io/world-edge/catalog:multihead",
    "quay.io/world-edge/catalog:cycle",
    "quay.io/world-edge/catalog:nodefault",
    "quay.io/world-edge/catalog:nosemver",
    "quay.io/world-edge/catalog:tricky",
    "quay.io/world-edge/catalog:missing-related",
];
/// Filters for each catalog.
const FILTERS: usize = 250;

/// Numbers that are the same on every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % end.max(1)
    }

    fn one_in(&mut self, odds: usize) -> bool {
        self.below(odds) == 0
    }

    fn of<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }
}

fn version(dice: &mut Dice, package: &Package) -> String {
    let bundle = dice.of(&package.bundles);
    let text = bundle.version.as_deref().unwrap_or("1.0.0").to_owned();
    match dice.below(8) {
        0 => "1.0".to_owned(),
        // As the name has it: with the build as pre-release.
        1 => bundle.name.split_once('.').map_or(text, |(_, v)| v.trim_start_matches('v').to_owned()),
        _ => text,
    }
}

fn range(dice: &mut Dice, package: &Package, value: &mut Value) {
    let (min, max) = (version(dice, package), version(dice, package));
    match dice.below(5) {
        0 | 1 => value["minVersion"] = min.into(),
        2 => value["maxVersion"] = max.into(),
        _ => {
            value["minVersion"] = min.into();
            value["maxVersion"] = max.into();
        }
    }
}

fn operator(dice: &mut Dice, catalog: &Catalog) -> Value {
    let packages: Vec<&Package> = catalog.packages().collect();
    let mut operator = json!({"catalog": "x"});
    if dice.one_in(20) {
        return operator;
    }
    if dice.one_in(5) {
        operator["full"] = true.into();
    }
    let mut listed: BTreeMap<String, Value> = BTreeMap::new();
    for _ in 0..=dice.below(3) {
        let package = *dice.of(&packages);
        let mut value = json!({"name": *package.name});
        match dice.below(6) {
            0 => {}
            1 | 2 => range(dice, package, &mut value),
            3 => value["bundles"] = json!([{"name": *dice.of(&package.bundles).name}]),
            _ => {
                let mut channels: BTreeMap<String, Value> = BTreeMap::new();
                for _ in 0..=dice.below(3) {
                    let channel = dice.of(&package.channels);
                    let mut wanted = json!({"name": *channel.name});
                    if dice.one_in(2) {
                        range(dice, package, &mut wanted);
                    }
                    channels.insert(channel.name.to_string(), wanted);
                }
                // So that the default channel is not in the way.
                value["defaultChannel"] = channels.keys().next().unwrap().as_str().into();
                value["channels"] = channels.into_values().collect();
                if dice.one_in(10) {
                    range(dice, package, &mut value);
                }
            }
        }
        listed.insert(package.name.to_string(), value);
    }
    operator["packages"] = listed.into_values().collect();
    operator
}

/// Where oc-mirror's rule for one exact version, which oc-mirror.md 6.2 has and the world does not, may choose less.
fn is_exact(operator: &Value) -> bool {
    let exact = |v: &Value| v["minVersion"].is_string() && v["minVersion"] == v["maxVersion"];
    let packages = operator["packages"].as_array().into_iter().flatten();
    packages.clone().any(exact) || packages.flat_map(|p| p["channels"].as_array().into_iter().flatten()).any(exact)
}

/// Every entry that the kept channels have in the whole catalog.
fn entries(catalog: &Catalog, selection: &Selection) -> BTreeSet<String> {
    let kept = selection.packages.iter().flat_map(|(name, kept)| kept.channels.keys().map(move |c| (name, c)));
    let channels = kept.filter_map(|(package, channel)| catalog.package(package)?.channel(channel));
    channels.flat_map(|c| &c.entries).map(|e| e.name.to_string()).collect()
}

/// Where the defaultChannel that was asked for is left empty by its own range, which the world does not look at.
fn leaves_default_empty(errors: &[airlock_content::catalog::SelectError]) -> bool {
    errors.iter().all(|e| e.cause.starts_with("defaultChannel"))
}

#[tokio::test]
async fn real_catalogs_give_what_the_worlds_own_rules_give() {
    let Some(world) = world() else { return };
    let (Some(shared), Some(python)) = (tools::shared(), tools::need("python3")) else { return };
    let mut dice = Dice(20_261_121);
    let (mut documents, mut questions, mut ours) = (BTreeMap::new(), Vec::new(), Vec::new());
    for name in CATALOGS {
        let catalog = read_named(&world, name).await;
        let whole = select(&catalog, &Filter { full: true, packages: Vec::new() }, Rule::Table).unwrap();
        let all: Vec<Value> = rebuild::files(&catalog, &whole)
            .unwrap()
            .iter()
            .flat_map(|(_, bytes)| serde_json::Deserializer::from_slice(bytes).into_iter::<Value>().map(Result::unwrap))
            .collect();
        documents.insert(name, all);
        for _ in 0..FILTERS {
            let operator = operator(&mut dice, &catalog);
            let filter = wanted(&operator).filter;
            for rule in [Rule::Table, Rule::Head] {
                let chosen = select(&catalog, &filter, rule).map(|selection| {
                    let names = selection.packages.values().flat_map(|k| k.bundles.keys()).map(|n| n.to_string());
                    (names.collect::<BTreeSet<_>>(), entries(&catalog, &selection))
                });
                questions.push(json!({"catalog": name, "rule": rule.name(), "operator": operator}));
                ours.push(chosen);
            }
        }
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/catalog_oracle.py");
    let mut oracle = Command::new(python)
        .arg(script)
        .arg(shared.join("world"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let input = json!({"catalogs": documents, "questions": questions}).to_string();
    let mut stdin = oracle.stdin.take().unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = oracle.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success());
    let answers: Vec<Option<BTreeSet<String>>> = serde_json::from_slice(&output.stdout).unwrap();
    let (mut agreed, mut chose, mut differ) = (0, 0, Vec::new());
    for ((question, ours), answer) in questions.iter().zip(&ours).zip(&answers) {
        let same = match (ours, answer) {
            // A bundle that is skipped by a channel and no entry of it would have no place in the smaller catalog, and OLM refuses such a bundle.
            (Ok((names, entries)), Some(wanted)) if question["rule"] == "head" => {
                *names == wanted.intersection(entries).cloned().collect()
            }
            // `full` is everything for us, also what has no version; such a package is left out by the doctor.
            (Ok((names, _)), Some(wanted)) if question["operator"]["full"] == true => names
                .iter()
                .filter(|n| !n.starts_with("nosemver"))
                .eq(wanted.iter().filter(|n| !n.starts_with("nosemver"))),
            (Ok((names, _)), Some(wanted)) => names == wanted,
            (Err(_), None) => true,
            // The world finds out later that there is no image at all.
            (Err(_), Some(wanted)) if wanted.is_empty() => true,
            (Err(errors), Some(_)) if leaves_default_empty(errors) => continue,
            _ => false,
        };
        if same {
            agreed += 1;
            chose += usize::from(ours.as_ref().is_ok_and(|(names, _)| !names.is_empty()));
        } else if !(question["rule"] == "head" && is_exact(&question["operator"])) {
            let ours = ours.as_ref().map(|(names, _)| names);
            differ.push(format!("{question}\n  ours {ours:?}\n  world {answer:?}"));
        }
    }
    println!("{agreed} of {} agree, {chose} of them with bundles", questions.len());
    assert!(differ.is_empty(), "{} differ:\n{}", differ.len(), differ[..differ.len().min(5)].join("\n"));
    assert!(chose > questions.len() / 3 && agreed > questions.len() * 9 / 10, "{agreed} {chose}");
}
