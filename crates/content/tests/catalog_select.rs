//! The matrix of what a filter may say, row by row, by both rule sets; and the reason that is given for each bundle.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by failing")]

use airlock_content::catalog::{
    Asked, Catalog, ChannelFilter, Filter, Note, PackageFilter, Rule, Wanted, Why, read_directory, select,
};
use serde_json::{Value, json};

/// `foo` as oc-mirror.md 6.2 has it: beta 0.1.0 <- 0.2.0 <- 0.3.0, 0.2.0 <- 0.3.1 which skips 0.3.0; and stable with what is old; `bar` beside it.
fn catalog() -> Catalog {
    let entry = |package: &str, version: &str, replaces: Option<&str>, skips: &[&str]| {
        let name = |v: &str| format!("{package}.v{v}");
        let mut entry = json!({"name": name(version)});
        if let Some(replaces) = replaces {
            entry["replaces"] = name(replaces).into();
        }
        if !skips.is_empty() {
            entry["skips"] = skips.iter().map(|s| name(s)).collect();
        }
        entry
    };
    let channel = |package: &str, name: &str, entries: Vec<Value>| json!({"schema": "olm.channel", "package": package, "name": name, "entries": entries});
    let bundle = |package: &str, version: &str| {
        json!({"schema": "olm.bundle", "package": package, "name": format!("{package}.v{version}"), "image": format!("q.io/{package}:{version}"),
            "properties": [{"type": "olm.package", "value": {"packageName": package, "version": version}}]})
    };
    let documents = [
        json!({"schema": "olm.package", "name": "foo", "defaultChannel": "beta"}),
        channel(
            "foo",
            "beta",
            vec![
                entry("foo", "0.1.0", None, &[]),
                entry("foo", "0.2.0", Some("0.1.0"), &["0.1.1"]),
                entry("foo", "0.3.0", Some("0.2.0"), &[]),
                entry("foo", "0.3.1", Some("0.2.0"), &["0.3.0"]),
            ],
        ),
        channel("foo", "old", vec![entry("foo", "0.1.0", None, &[])]),
        bundle("foo", "0.1.0"),
        bundle("foo", "0.2.0"),
        bundle("foo", "0.3.0"),
        bundle("foo", "0.3.1"),
        json!({"schema": "olm.package", "name": "bar", "defaultChannel": "stable"}),
        channel("bar", "stable", vec![entry("bar", "1.0.0", None, &[])]),
        bundle("bar", "1.0.0"),
    ];
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("catalog"), documents.map(|d| d.to_string()).concat()).unwrap();
    read_directory(folder.path(), tempfile::tempdir().unwrap().path()).unwrap()
}

/// What is chosen of `foo`, as versions; or the error.
fn chosen(filter: &Filter, rule: Rule) -> Result<Vec<String>, String> {
    let selection = select(&catalog(), filter, rule).map_err(|errors| errors[0].to_string())?;
    let names = selection.packages.values().flat_map(|k| k.bundles.keys());
    Ok(names.filter_map(|n| n.strip_prefix("foo.v").map(str::to_owned)).collect())
}

type Range<'a> = (Option<&'a str>, Option<&'a str>);

fn foo(full: bool, range: Range<'_>, channels: &[(&str, Range<'_>)]) -> Filter {
    let own = |text: Option<&str>| text.map(str::to_owned);
    let channels =
        channels.iter().map(|(name, r)| ChannelFilter { name: (*name).to_owned(), min: own(r.0), max: own(r.1) });
    let package = PackageFilter {
        min: own(range.0),
        max: own(range.1),
        channels: channels.collect(),
        ..PackageFilter::named("foo")
    };
    Filter { full, packages: vec![package] }
}

#[test]
fn every_row_of_the_matrix_by_both_rules() {
    const ALL: Range<'_> = (None, None);
    let everything: &[&str] = &["0.1.0", "0.2.0", "0.3.0", "0.3.1"];
    let error: Result<&[&str], &str> = Err("");
    let rows: Vec<(&str, Filter, Result<&[&str], &str>, Result<&[&str], &str>)> = vec![
        ("nothing", Filter::default(), Ok(&["0.3.1"]), Ok(&["0.1.0", "0.3.1"])),
        ("full", Filter { full: true, packages: vec![] }, Ok(everything), Ok(everything)),
        ("package", foo(false, ALL, &[]), Ok(&["0.3.1"]), Ok(&["0.1.0", "0.3.1"])),
        ("package full", foo(true, ALL, &[]), Ok(everything), Ok(everything)),
        (
            "min",
            foo(false, (Some("0.2.0"), None), &[]),
            Ok(&["0.2.0", "0.3.0", "0.3.1"]),
            Ok(&["0.2.0", "0.3.0", "0.3.1"]),
        ),
        ("max", foo(false, (None, Some("0.2.0")), &[]), Ok(&["0.1.0", "0.2.0"]), Ok(&["0.1.0", "0.2.0"])),
        (
            "both",
            foo(false, (Some("0.2"), Some("0.3.0")), &[]),
            Ok(&["0.2.0", "0.3.0"]),
            Ok(&["0.2.0", "0.3.0", "0.3.1"]),
        ),
        ("one version", foo(false, (Some("0.3.1"), Some("0.3.1")), &[]), Ok(&["0.3.1"]), Ok(&["0.3.1"])),
        ("one skipped version", foo(false, (Some("0.3.0"), Some("0.3.0")), &[]), Ok(&["0.3.0"]), Ok(&["0.3.0"])),
        ("upside down", foo(false, (Some("0.3.1"), Some("0.2.0")), &[]), Ok(&[]), error),
        (
            "no such version",
            foo(false, (Some("9.0.0"), Some("9.0.0")), &[]),
            Ok(&[]),
            Err("specific version 9.0.0 not found"),
        ),
        ("channel", foo(false, ALL, &[("beta", ALL)]), Ok(&["0.3.1"]), Ok(&["0.3.1"])),
        ("channel full", foo(true, ALL, &[("beta", ALL)]), Ok(everything), Ok(everything)),
        (
            "two channels",
            foo(false, ALL, &[("beta", ALL), ("old", ALL)]),
            Ok(&["0.1.0", "0.3.1"]),
            Ok(&["0.1.0", "0.3.1"]),
        ),
        (
            "channel min",
            foo(false, ALL, &[("beta", (Some("0.3.0"), None))]),
            Ok(&["0.3.0", "0.3.1"]),
            Ok(&["0.3.0", "0.3.1"]),
        ),
        (
            "channel both",
            foo(false, ALL, &[("beta", (Some("0.1.0"), Some("0.2.9")))]),
            Ok(&["0.1.0", "0.2.0"]),
            Ok(&["0.1.0", "0.2.0"]),
        ),
        ("default filtered out", foo(false, ALL, &[("old", ALL)]), Ok(&["0.1.0"]), Err("default channel `beta`")),
        (
            "channel, package range",
            foo(false, (Some("0.2.0"), None), &[("beta", ALL)]),
            Err("together with channels"),
            Ok(&["0.2.0", "0.3.0", "0.3.1"]),
        ),
        (
            "both ranges",
            foo(false, (Some("0.2.0"), None), &[("beta", (Some("0.2.0"), None))]),
            error,
            Err("mixing both"),
        ),
        (
            "full and range",
            foo(true, (Some("0.2.0"), None), &[]),
            Err("`full: true`"),
            Err("`Full: true` cannot be mixed with versionRange"),
        ),
        (
            "full and channel range",
            foo(true, ALL, &[("beta", (Some("0.2.0"), None))]),
            Err("`full: true`"),
            Err("`Full: true`"),
        ),
        (
            "no version",
            foo(false, (Some("new"), None), &[]),
            Err("minVersion `new` is not a semantic version"),
            Err("not a semantic version"),
        ),
    ];
    for (row, filter, table, head) in rows {
        for (rule, wanted) in [(Rule::Table, table), (Rule::Head, head)] {
            match (chosen(&filter, rule), wanted) {
                (Ok(found), Ok(wanted)) => assert_eq!(found, wanted, "{row} {rule}"),
                (Err(error), Err(says)) => {
                    assert!(error.contains(says) && error.contains("foo"), "{row} {rule}: {error}")
                }
                (found, wanted) => panic!("{row} {rule}: {found:?} instead of {wanted:?}"),
            }
        }
    }
    let named = Filter {
        full: false,
        packages: vec![PackageFilter { bundles: vec!["foo.v0.2.0".into()], ..PackageFilter::named("foo") }],
    };
    assert_eq!(chosen(&named, Rule::Table).unwrap(), ["0.2.0"]);
    assert!(chosen(&named, Rule::Head).unwrap_err().contains("`bundles`"));
}

#[test]
fn each_bundle_says_who_asked_for_it_and_why() {
    let catalog = catalog();
    let mut filter = foo(false, (None, None), &[("old", (None, None)), ("beta", (Some("0.3.1"), Some("0.3.1")))]);
    filter.packages.insert(0, PackageFilter::named("bar"));
    let selection = select(&catalog, &filter, Rule::Table).unwrap();
    let why = |package: &str, bundle: &str| selection.packages[package].bundles[bundle].iter().next().unwrap().clone();
    let want = |asked, channel: &str, wanted| Why { asked, channel: Some(channel.into()), wanted };
    assert_eq!(why("foo", "foo.v0.1.0"), want(Asked::Channel(1, 0), "old", Wanted::Head));
    assert_eq!(why("foo", "foo.v0.3.1"), want(Asked::Channel(1, 1), "beta", Wanted::Range));
    assert_eq!(why("bar", "bar.v1.0.0"), want(Asked::Package(0), "stable", Wanted::Head));
    assert!(selection.notes.is_empty());
}

#[test]
fn a_default_channel_that_is_not_kept_is_replaced_or_chosen() {
    let catalog = catalog();
    let mut filter = foo(false, (None, None), &[("old", (None, None))]);
    let selection = select(&catalog, &filter, Rule::Table).unwrap();
    assert_eq!(selection.packages["foo"].default_channel.as_deref(), Some("old"));
    assert!(matches!(&selection.notes[..], [Note::DefaultChannel { now, .. }] if &**now == "old"));
    for (name, says) in [("old", ""), ("beta", "not among"), ("olds", "did you mean `old`")] {
        filter.packages[0].default_channel = Some(name.into());
        for rule in [Rule::Table, Rule::Head] {
            match select(&catalog, &filter, rule) {
                Ok(selection) => {
                    assert_eq!((name, &selection.notes[..]), ("old", &[][..]), "{rule}");
                    assert_eq!(selection.packages["foo"].default_channel.as_deref(), Some("old"));
                }
                Err(errors) => {
                    assert!(!says.is_empty() && errors[0].to_string().contains(says), "{rule} {name}: {errors:?}")
                }
            }
        }
    }
}
