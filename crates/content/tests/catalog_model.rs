//! Random catalogs and filters against a slow, obvious model; and input that makes no sense, which must never panic.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by failing")]

use std::collections::{BTreeMap, BTreeSet};

use airlock_content::catalog::{
    Catalog, ChannelFilter, Filter, PackageFilter, Rule, Selection, doctor, leave_out, read_directory, rebuild,
    related, select,
};
use proptest::prelude::*;
use serde_json::{Value, json};

/// A package as the model knows it.
#[derive(Clone, Debug)]
struct Model {
    default: String,
    /// Entries: name, replaces, skips.
    channels: BTreeMap<String, Vec<(String, Option<String>, Vec<String>)>>,
    /// Bundles: name and version.
    bundles: BTreeMap<String, String>,
}

const VERSIONS: [&str; 9] = ["1.0.0", "1.0.1", "1.1.0", "1.1.0-1", "1.2.0", "1.2.0-rc.1", "2.0.0", "2.1.0", "2.2.0"];

fn name(version: usize) -> String {
    format!("p.v{}", VERSIONS[version])
}

/// Channels that are mostly whole: a chain from old to new, with some skips; now and then something goes wrong.
fn channel() -> impl Strategy<Value = Vec<(String, Option<String>, Vec<String>)>> {
    let entry = (any::<prop::sample::Index>(), 0..10_u8, prop::collection::vec(any::<prop::sample::Index>(), 0..3));
    (prop::sample::subsequence((0..VERSIONS.len()).collect::<Vec<_>>(), 1..7), prop::collection::vec(entry, 7))
        .prop_map(|(versions, odds)| {
            let mut entries = Vec::new();
            for (at, version) in versions.iter().enumerate() {
                let (other, odd, skips) = &odds[at];
                let replaces = match odd {
                    // Another one, perhaps itself, perhaps a newer one.
                    0 => Some(name(versions[other.index(versions.len())])),
                    1 => None,
                    2 => Some("p.v0.0.9".to_owned()),
                    _ if at == 0 => None,
                    _ => Some(name(versions[at - 1])),
                };
                let skips = if *odd < 4 {
                    skips.iter().map(|s| name(versions[s.index(versions.len())])).collect()
                } else {
                    Vec::new()
                };
                let mut skips: Vec<String> = skips;
                // Most skips are of older ones.
                skips.retain(|s| *odd == 3 || *s < name(*version));
                entries.push((name(*version), replaces, skips));
            }
            entries
        })
}

fn model() -> impl Strategy<Value = Model> {
    (prop::collection::vec(channel(), 1..4), 0..4_usize, any::<u8>()).prop_map(|(channels, default, odd)| {
        let channels: BTreeMap<String, _> =
            channels.into_iter().enumerate().map(|(at, entries)| (format!("c{at}"), entries)).collect();
        let names: BTreeSet<String> = channels.values().flatten().map(|(name, _, _)| name.clone()).collect();
        let mut bundles: BTreeMap<String, String> =
            names.into_iter().map(|name| (name.clone(), name.trim_start_matches("p.v").to_owned())).collect();
        if odd < 10 {
            // A bundle that an entry names, and that is not there.
            bundles.pop_first();
        }
        Model { default: format!("c{}", default.min(channels.len())), channels, bundles }
    })
}

fn bound() -> impl Strategy<Value = Option<String>> {
    prop_oneof![2 => Just(None), 3 => prop::sample::select(&VERSIONS[..]).prop_map(|v| Some(v.to_owned())), 1 => Just(Some("1.1".to_owned()))]
}

fn filter() -> impl Strategy<Value = PackageFilter> {
    let channel =
        (0..4_u8, bound(), bound()).prop_map(|(at, min, max)| ChannelFilter { name: format!("c{at}"), min, max });
    let channels = prop::collection::vec(channel, 0..3).prop_map(|mut channels| {
        channels.sort_by(|a, b| a.name.cmp(&b.name));
        channels.dedup_by(|a, b| a.name == b.name);
        channels
    });
    let default = prop_oneof![3 => Just(None), 1 => (0..4_u8).prop_map(|c| Some(format!("c{c}")))];
    let bundles =
        prop_oneof![4 => Just(Vec::new()), 1 => prop::collection::vec((0..VERSIONS.len()).prop_map(name), 1..3)];
    (channels, bound(), bound(), default, bundles).prop_map(|(channels, min, max, default_channel, bundles)| {
        let mut filter = PackageFilter { name: "p".into(), default_channel, min, max, channels, bundles };
        if !filter.bundles.is_empty() {
            (filter.channels, filter.min, filter.max) = (Vec::new(), None, None);
        }
        filter
    })
}

fn document(model: &Model) -> String {
    let mut text = json!({"schema": "olm.package", "name": "p", "defaultChannel": model.default}).to_string();
    for (channel, entries) in &model.channels {
        let entries: Vec<Value> = entries
            .iter()
            .map(|(name, replaces, skips)| json!({"name": name, "replaces": replaces, "skips": skips}))
            .collect();
        text += &json!({"schema": "olm.channel", "package": "p", "name": channel, "entries": entries}).to_string();
    }
    for (name, version) in &model.bundles {
        let properties = json!([{"type": "olm.package", "value": {"packageName": "p", "version": version}}]);
        let image = format!("quay.io/p/{}:x", name.to_lowercase());
        text += &json!({"schema": "olm.bundle", "package": "p", "name": name, "image": image, "properties": properties,
            "relatedImages": [{"name": "", "image": image}]})
        .to_string();
    }
    text
}

fn catalog(text: &[u8]) -> Result<Catalog, airlock_oci::Error> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("catalog"), text).unwrap();
    let spool = tempfile::tempdir().unwrap();
    read_directory(folder.path(), spool.path())
}

/// Versions by the letter of semver.org, through another crate than ours.
fn semver(text: &str) -> semver::Version {
    let text = if text.split(['-', '+']).next().unwrap().split('.').count() == 2 {
        format!("{text}.0")
    } else {
        text.to_owned()
    };
    semver::Version::parse(&text).unwrap()
}

type Chosen = BTreeMap<String, BTreeSet<String>>;

/// What the book's table says; `None` where it says error.
fn table(model: &Model, filter: &PackageFilter, full: bool) -> Option<Chosen> {
    let ranged = filter.min.is_some() || filter.max.is_some();
    let channels_ranged = filter.channels.iter().any(|c| c.min.is_some() || c.max.is_some());
    if (!filter.channels.is_empty() && ranged)
        || (full && (ranged || channels_ranged))
        || (!filter.bundles.is_empty() && full)
    {
        return None;
    }
    let mut chosen = Chosen::new();
    let mut keep = |channel: &str, names: BTreeSet<String>| {
        chosen
            .entry(channel.to_owned())
            .or_default()
            .extend(names.into_iter().filter(|n| model.bundles.contains_key(n)));
    };
    let pick = |entries: &Vec<(String, Option<String>, Vec<String>)>,
                min: &Option<String>,
                max: &Option<String>|
     -> BTreeSet<String> {
        let version = |name: &str| semver(name.trim_start_matches("p.v"));
        let within = |v: &semver::Version| {
            min.as_ref().is_none_or(|m| *v >= semver(m)) && max.as_ref().is_none_or(|m| *v <= semver(m))
        };
        if full {
            return entries.iter().map(|e| e.0.clone()).collect();
        }
        if min.is_none() && max.is_none() {
            let mut head = entries.iter().map(|e| &e.0).max_by_key(|n| version(n)).unwrap().clone();
            let mut pres: Vec<_> = entries.iter().filter(|e| !version(&e.0).pre.is_empty()).collect();
            pres.sort_by_key(|e| version(&e.0));
            for (name, replaces, skips) in pres {
                if replaces.as_ref() == Some(&head) || skips.contains(&head) {
                    head.clone_from(name);
                }
            }
            return [head].into();
        }
        let numbers = |v: &semver::Version| (v.major, v.minor, v.patch);
        let wanted = |name: &str| {
            let v = version(name);
            let respin = !v.pre.is_empty()
                && entries.iter().map(|e| version(&e.0)).any(|o| within(&o) && numbers(&o) == numbers(&v));
            within(&v) || respin
        };
        entries.iter().map(|e| e.0.clone()).filter(|n| wanted(n)).collect()
    };
    if !filter.bundles.is_empty() {
        for (channel, entries) in &model.channels {
            keep(channel, entries.iter().map(|e| e.0.clone()).filter(|n| filter.bundles.contains(n)).collect());
        }
    } else if !filter.channels.is_empty() {
        for wanted in &filter.channels {
            if let Some(entries) = model.channels.get(&wanted.name) {
                keep(&wanted.name, pick(entries, &wanted.min, &wanted.max));
            }
        }
    } else if full {
        for (channel, entries) in &model.channels {
            keep(channel, pick(entries, &None, &None));
        }
    } else {
        let default = filter.default_channel.as_ref().unwrap_or(&model.default);
        if let Some(entries) = model.channels.get(default) {
            keep(default, pick(entries, &filter.min, &filter.max));
        }
    }
    chosen.retain(|_, names| !names.is_empty());
    match &filter.default_channel {
        Some(default) if !chosen.is_empty() && !chosen.contains_key(default) => None,
        _ => Some(chosen),
    }
}

/// The one head of a channel without circles; `None` where there is none.
fn head(entries: &[(String, Option<String>, Vec<String>)]) -> Option<String> {
    let older = |of: &(String, Option<String>, Vec<String>)| of.1.iter().chain(&of.2).cloned().collect::<BTreeSet<_>>();
    if entries.iter().any(|e| older(e).contains(&e.0)) {
        return None;
    }
    let heads: Vec<&String> =
        entries.iter().map(|e| &e.0).filter(|name| !entries.iter().any(|e| older(e).contains(*name))).collect();
    let [head] = heads[..] else { return None };
    // No circle: following what is older for as many steps as there are entries must end.
    let mut reach: BTreeSet<String> = entries.iter().map(|e| e.0.clone()).collect();
    for _ in 0..=entries.len() {
        reach = entries
            .iter()
            .filter(|e| reach.contains(&e.0))
            .flat_map(older)
            .filter(|n| entries.iter().any(|e| e.0 == *n))
            .collect();
    }
    reach.is_empty().then(|| head.clone())
}

/// What oc-mirror says; `None` where it says error.
fn heads(model: &Model, filter: &PackageFilter, full: bool) -> Option<Chosen> {
    let ranged = filter.min.is_some() || filter.max.is_some();
    let channels_ranged = filter.channels.iter().any(|c| c.min.is_some() || c.max.is_some());
    if !filter.bundles.is_empty() || (ranged && channels_ranged) || (full && (ranged || channels_ranged)) {
        return None;
    }
    let default = filter.default_channel.as_ref().unwrap_or(&model.default);
    let mut chosen = Chosen::new();
    let mut seen_default = false;
    for (channel, entries) in &model.channels {
        let wanted = filter.channels.iter().find(|c| c.name == *channel);
        if !filter.channels.is_empty() && wanted.is_none() {
            continue;
        }
        seen_default |= channel == default;
        let own = wanted.filter(|c| c.min.is_some() || c.max.is_some());
        let (min, max) = own.map_or((&filter.min, &filter.max), |c| (&c.min, &c.max));
        let within = |name: &String| {
            let Some(version) = model.bundles.get(name).map(|v| semver(v)) else { return false };
            let fits = |bound: &Option<String>, ok: fn(&semver::Version, &semver::Version) -> bool| {
                bound.as_ref().is_none_or(|b| {
                    let b = semver(b);
                    (version.pre.is_empty() || !b.pre.is_empty()) && ok(&version, &b)
                })
            };
            fits(min, |v, b| v >= b) && fits(max, |v, b| v <= b)
        };
        let mut names: BTreeSet<String> = BTreeSet::new();
        if full {
            names.extend(entries.iter().map(|e| e.0.clone()));
        } else if min.is_some() && min == max {
            let same = |v: &String| semver(v).cmp_precedence(&semver(min.as_ref().unwrap())).is_eq();
            let all: Vec<&String> = model.bundles.iter().filter(|(_, v)| same(v)).map(|(n, _)| n).collect();
            if all.is_empty() {
                return None;
            }
            names.extend(all.into_iter().filter(|n| entries.iter().any(|e| e.0 == **n)).cloned());
        } else if min.is_some() || max.is_some() {
            let mut chain = vec![head(entries)?];
            while let Some(older) = entries.iter().find(|e| Some(&e.0) == chain.last()).and_then(|e| e.1.clone()) {
                chain.push(older);
            }
            let skips = |name: &String| entries.iter().find(|e| e.0 == *name).map(|e| e.2.clone()).unwrap_or_default();
            let below = |at: usize| -> usize {
                let all: BTreeSet<String> = chain[at..]
                    .iter()
                    .flat_map(|n| [n.clone()].into_iter().chain(skips(n)))
                    .filter(|n| within(n))
                    .collect();
                all.len()
            };
            let first = (0..chain.len()).rev().find(|at| below(*at) == below(0)).unwrap();
            let end = (0..chain.len()).find(|at| below(*at) == 0).unwrap_or(chain.len());
            for name in chain.iter().take(end).skip(first) {
                names.insert(name.clone());
                names.extend(skips(name).into_iter().filter(|n| within(n)));
            }
            names.retain(|n| entries.iter().any(|e| e.0 == *n));
        } else {
            names.insert(head(entries)?);
        }
        if names.is_empty() && channel == default {
            return None;
        }
        names.retain(|n| model.bundles.contains_key(n));
        if !names.is_empty() {
            chosen.insert(channel.clone(), names);
        }
    }
    // An override must be there at the end too; the catalog's own default may only have lost bundles that were never there.
    let overridden = filter.default_channel.is_some() && !chosen.contains_key(default);
    if !seen_default || overridden || chosen.is_empty() { None } else { Some(chosen) }
}

fn kept(selection: &Selection) -> Chosen {
    let Some(kept) = selection.packages.get("p") else { return Chosen::new() };
    kept.channels.iter().map(|(c, names)| (c.to_string(), names.iter().map(|n| n.to_string()).collect())).collect()
}

/// Whether a registry takes this channel: one head, and from it everything is replaced along the chain or skipped.
fn is_whole(entries: &[Value]) -> bool {
    let name = |e: &Value| e["name"].as_str().unwrap().to_owned();
    let skips = |e: &Value| -> Vec<String> {
        e["skips"].as_array().into_iter().flatten().map(|s| s.as_str().unwrap().to_owned()).collect()
    };
    let names: BTreeSet<String> = entries.iter().map(name).collect();
    let older: BTreeSet<String> =
        entries.iter().flat_map(|e| skips(e).into_iter().chain(e["replaces"].as_str().map(str::to_owned))).collect();
    let heads: Vec<&String> = names.difference(&older).collect();
    let [head] = heads[..] else { return false };
    let mut chain = vec![head.clone()];
    while let Some(next) =
        entries.iter().find(|e| name(e) == *chain.last().unwrap()).and_then(|e| e["replaces"].as_str())
    {
        if chain.contains(&next.to_owned()) {
            return false;
        }
        chain.push(next.to_owned());
    }
    let skipped: BTreeSet<String> = entries.iter().flat_map(skips).collect();
    names.iter().all(|n| chain.contains(n) || skipped.contains(n))
}

/// The channels of a written catalog.
fn written(catalog: &Catalog, selection: &Selection) -> Vec<Value> {
    let files = rebuild::files(catalog, selection).unwrap();
    let all = files.iter().flat_map(|(_, bytes)| {
        let documents = serde_json::Deserializer::from_slice(bytes).into_iter::<Value>();
        documents.map(Result::unwrap).collect::<Vec<_>>()
    });
    all.filter(|d| d["schema"] == "olm.channel").collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn both_rules_choose_what_the_model_does(model in model(), filter in filter(), full in prop::bool::weighted(0.2)) {
        let catalog = catalog(document(&model).as_bytes()).unwrap();
        let filters = Filter { full, packages: vec![filter.clone()] };
        for (rule, expected) in [(Rule::Table, table(&model, &filter, full)), (Rule::Head, heads(&model, &filter, full))] {
            match (select(&catalog, &filters, rule), expected) {
                (Ok(selection), Some(expected)) => prop_assert_eq!(kept(&selection), expected, "{}", rule),
                (Err(errors), None) => prop_assert!(!errors.is_empty()),
                (Ok(selection), None) => prop_assert!(false, "{}: no error, but {:?}", rule, kept(&selection)),
                (Err(errors), Some(expected)) => prop_assert!(false, "{}: {:?} instead of {:?}", rule, errors, expected),
            }
        }
    }

    #[test]
    fn what_the_doctor_lets_pass_is_whole(model in model(), filter in filter(), full in prop::bool::weighted(0.2)) {
        let catalog = catalog(document(&model).as_bytes()).unwrap();
        let filters = Filter { full, packages: vec![filter.clone()] };
        for rule in [Rule::Table, Rule::Head] {
            let Ok(selection) = select(&catalog, &filters, rule) else { continue };
            let findings = doctor::examine(&catalog, &selection);
            let refused = findings.iter().any(|f| f.severity() == doctor::Severity::Refused);
            let whole = written(&catalog, &selection).iter().all(|c| is_whole(c["entries"].as_array().unwrap()));
            prop_assert_eq!(refused, !whole, "{:?}", findings);
            let (rest, dropped) = doctor::leave_out_broken(&catalog, &selection);
            prop_assert_eq!(dropped.is_empty(), !refused);
            prop_assert!(doctor::examine(&catalog, &rest).iter().all(|f| f.severity() != doctor::Severity::Refused));
            for finding in &findings {
                let Some(mend) = doctor::mend(&catalog, &filters, &selection, finding) else { continue };
                let (then, by) = match &mend.filter {
                    Some(filter) => (select(&catalog, filter, rule), filter.clone()),
                    None => (select(&catalog, &filters, if rule == Rule::Table { Rule::Head } else { Rule::Table }), filters.clone()),
                };
                let then = then.unwrap();
                prop_assert!(
                    doctor::examine(&catalog, &then).iter().all(|f| f.severity() != doctor::Severity::Refused),
                    "{} {:?}", mend.text, by
                );
            }
        }
    }

    #[test]
    fn without_missing_images_every_channel_is_whole_or_the_package_gone(
        model in model(), full in any::<bool>(), missing in prop::collection::btree_set(0..VERSIONS.len(), 1..3)
    ) {
        let catalog = catalog(document(&model).as_bytes()).unwrap();
        let filters = Filter { full, packages: vec![PackageFilter::named("p")] };
        let Ok(selection) = select(&catalog, &filters, Rule::Table) else { return Ok(()) };
        let (selection, _) = doctor::leave_out_broken(&catalog, &selection);
        let missing: BTreeSet<_> = missing.iter().map(|v| format!("quay.io/p/{}:x", name(*v)).as_str().into()).collect();
        let (rest, left) = leave_out(&catalog, &selection, &missing);
        let images = related(&catalog, &rest).unwrap();
        prop_assert!(images.images.keys().all(|image| !missing.contains(image)));
        prop_assert!(written(&catalog, &rest).iter().all(|c| is_whole(c["entries"].as_array().unwrap())));
        prop_assert!(doctor::examine(&catalog, &rest).iter().all(|f| f.severity() != doctor::Severity::Refused));
        // Nothing goes without being named.
        prop_assert_eq!(rest == selection, left.bundles.is_empty());
        prop_assert_eq!(rest.packages.len() + left.packages.len(), selection.packages.len());
    }

    #[test]
    fn bytes_that_make_no_sense_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        everything(&bytes);
    }

    #[test]
    fn a_damaged_catalog_never_panics(
        model in model(), edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3_u8), 1..6), yaml in any::<bool>()
    ) {
        let mut bytes = document(&model).replace("}{", "}\n---\n{").into_bytes();
        if yaml {
            // Flow style is YAML too, when the first character does not say JSON.
            bytes.splice(0..0, *b"# yaml\n");
        }
        for (at, byte, kind) in edits {
            let at = at.index(bytes.len());
            match kind {
                0 => bytes[at] = byte,
                1 => { bytes.remove(at); }
                _ => bytes.insert(at, byte),
            }
        }
        everything(&bytes);
    }
}

/// Everything that is done with a catalog, as far as it goes.
fn everything(bytes: &[u8]) {
    let Ok(catalog) = catalog(bytes) else { return };
    for rule in [Rule::Table, Rule::Head] {
        for full in [false, true] {
            let Ok(selection) = select(&catalog, &Filter { full, packages: Vec::new() }, rule) else { continue };
            let findings = doctor::examine(&catalog, &selection);
            for finding in &findings {
                let _ = finding.to_string();
                let _ = doctor::mend(&catalog, &Filter::default(), &selection, finding);
            }
            let _ = related(&catalog, &selection);
            let _ = doctor::with_dependencies(&catalog, &selection);
            let (rest, _) = doctor::leave_out_broken(&catalog, &selection);
            let _ = rebuild::files(&catalog, &rest);
        }
    }
}
