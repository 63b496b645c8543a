//! Every image set of operators of the world, by both rule sets, against what the world says that it stands for.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by failing")]

mod catalog_support;

use std::collections::{BTreeMap, BTreeSet};

use airlock_content::catalog::{Catalog, ChannelFilter, Filter, PackageFilter, Rule, Text, leave_out, related, select};
use catalog_support::{read_named, rules, sets, world};

#[tokio::test]
async fn every_set_stands_for_the_bundles_that_the_world_expects() {
    let (Some(world), Some(sets)) = (world(), sets()) else { return };
    let mut catalogs: BTreeMap<String, Catalog> = BTreeMap::new();
    let mut compared = 0;
    for (id, wanted, expectations) in &sets {
        for one in wanted {
            if !catalogs.contains_key(&one.catalog) {
                catalogs.insert(one.catalog.clone(), read_named(&world, &one.catalog).await);
            }
        }
        for (rule, expectation) in
            expectations.iter().flat_map(|(name, e)| rules(name).into_iter().map(move |r| (r, e)))
        {
            compared += 1;
            let mut errors = Vec::new();
            let (mut images, mut skipped, mut refused) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
            let mut bundles: BTreeMap<String, Vec<String>> = BTreeMap::new();
            for one in wanted {
                match select(&catalogs[&one.catalog], &one.filter, rule) {
                    Err(found) => errors.extend(found),
                    Ok(selection) => {
                        assert!(selection.unknown.is_empty(), "{id} {rule}: {:?}", selection.unknown);
                        let mut names: Vec<String> =
                            selection.packages.values().flat_map(|k| k.bundles.keys()).map(|n| n.to_string()).collect();
                        names.sort();
                        bundles.insert(one.catalog.clone(), names);
                        match related(&catalogs[&one.catalog], &selection) {
                            Err(error) => refused.push(error),
                            Ok(found) => {
                                images.extend(found.images.keys().map(|i| i.to_string()));
                                skipped.extend(found.invalid.iter().map(|i| i.text.to_string()));
                            }
                        }
                    }
                }
            }
            match &expectation.error {
                // Images that cannot be named are found later, by whoever asks for the images.
                Some(why) if why.contains("related image") => {
                    assert_eq!(errors, [], "{id} {rule}");
                    assert!(refused[0].to_string().contains("bundle `invalid.v1.1.0`"), "{refused:?}");
                }
                Some(why) => {
                    assert!(!errors.is_empty(), "{id} {rule}: {why}");
                    println!("{id} {rule}: {}", errors[0]);
                }
                None => {
                    assert_eq!(errors, [], "{id} {rule}");
                    let expected: BTreeMap<String, Vec<String>> =
                        expectation.bundles.iter().map(|(catalog, names)| (catalog.clone(), sorted(names))).collect();
                    assert_eq!(bundles, placed(&expected, wanted), "{id} {rule}");
                    assert!(refused.is_empty(), "{id} {rule}: {refused:?}");
                    assert_eq!(skipped, expectation.skipped.iter().cloned().collect(), "{id} {rule}");
                    let carried = expectation.images.iter().filter(|i| i["type"] == "bundle" || i["type"] == "related");
                    let carried = carried.map(|i| i["ref"].as_str().unwrap().to_owned());
                    let absent = expectation.missing.iter().chain(&expectation.skipped_bundles).cloned();
                    assert_eq!(images, carried.chain(absent).collect(), "{id} {rule}");
                }
            }
        }
    }
    println!("{compared} expectations of {} sets", sets.len());
    assert!(compared >= 50);
}

#[tokio::test]
async fn a_bundle_whose_images_are_missing_goes_and_its_package_with_it_when_the_channel_breaks() {
    let Some(world) = world() else { return };
    let catalog = read_named(&world, "quay.io/world-edge/catalog:missing-related").await;
    let selection = select(&catalog, &Filter::default(), Rule::Table).unwrap();
    let missing: BTreeSet<Text> = ["quay.io/world-edge/gone:v9.9.9".into()].into();
    let (rest, left) = leave_out(&catalog, &selection, &missing);
    assert_eq!(rest.packages.keys().map(|p| &**p).collect::<Vec<_>>(), ["good"]);
    let (bundle, lacks) = left.bundles.first_key_value().unwrap();
    assert_eq!((&*bundle.package, &*bundle.bundle, lacks), ("missing", "missing.v1.1.0", &missing));
    assert!(
        left.packages[0].cause.contains("channel `stable` of package `missing` would break"),
        "{:?}",
        left.packages
    );
    // Both versions: the older one could stay, were it not for the chain; the head alone may go.
    let both = Filter { full: true, packages: vec![PackageFilter::named("missing")] };
    let (rest, left) = leave_out(&catalog, &select(&catalog, &both, Rule::Table).unwrap(), &missing);
    assert_eq!((rest.bundles(), left.packages.len()), (1, 0));
    let one: BTreeSet<Text> = ["quay.io/world-edge/missing:v1.0.0".into()].into();
    let (rest, left) = leave_out(&catalog, &select(&catalog, &both, Rule::Table).unwrap(), &one);
    assert_eq!((rest.bundles(), left.packages.len()), (1, 0), "the head replaces what is not there any more");
    assert_eq!(leave_out(&catalog, &selection, &BTreeSet::new()).0, selection);
}

#[tokio::test]
async fn names_that_are_wrong_are_answered_with_those_that_were_meant() {
    let Some(world) = world() else { return };
    let catalog = read_named(&world, "registry.redhat.io/redhat/redhat-operator-index:v4.18").await;
    let filter = Filter {
        full: false,
        packages: vec![
            PackageFilter::named("complaince-operator"),
            PackageFilter {
                channels: vec![ChannelFilter { name: "stabel".into(), ..ChannelFilter::default() }],
                ..PackageFilter::named("elasticsearch-operator")
            },
            PackageFilter {
                bundles: vec!["aws-load-balancer-operator.v1.1.01".into()],
                ..PackageFilter::named("aws-load-balancer-operator")
            },
        ],
    };
    let selection = select(&catalog, &filter, Rule::Table).unwrap();
    let said: Vec<String> = selection.unknown.iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        [
            "the catalog has no package `complaince-operator`; did you mean `compliance-operator`?",
            "package `elasticsearch-operator` has no channel `stabel`; did you mean `stable`?",
            "package `aws-load-balancer-operator` has no bundle `aws-load-balancer-operator.v1.1.01`; did you mean \
             `aws-load-balancer-operator.v1.1.0`?",
        ]
    );
    assert_eq!(selection.dropped.len(), 2, "{:?}", selection.dropped);
    let errors =
        select(&catalog, &Filter { full: false, packages: filter.packages[..1].to_vec() }, Rule::Head).unwrap_err();
    assert!(errors[0].hint.as_ref().unwrap().contains("compliance-operator"));
}

fn sorted(names: &[String]) -> Vec<String> {
    let mut names = names.to_vec();
    names.sort();
    names
}

/// The world writes catalogs on disk with a path of its own.
fn placed(
    expected: &BTreeMap<String, Vec<String>>,
    wanted: &[catalog_support::Wanted],
) -> BTreeMap<String, Vec<String>> {
    let same =
        |catalog: &str, name: &str| catalog == name || (name.starts_with("oci://") && catalog.starts_with("oci://"));
    wanted
        .iter()
        .map(|one| {
            let found = expected.iter().find(|(catalog, _)| same(catalog, &one.catalog));
            (one.catalog.clone(), found.map(|(_, names)| names.clone()).unwrap_or_default())
        })
        .collect()
}
