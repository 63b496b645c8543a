//! Every image set of operators of the world, by both rule sets, against what the world says that it stands for.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by failing")]

mod catalog_support;

use std::collections::BTreeMap;

use airlock_content::catalog::{Catalog, select};
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
        for (rule, expected) in expectations.iter().flat_map(|(name, e)| rules(name).into_iter().map(move |r| (r, e))) {
            compared += 1;
            let mut errors = Vec::new();
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
                    }
                }
            }
            match &expected.error {
                // Images that cannot be named are found later, by whoever asks for the images.
                Some(why) if why.contains("related image") => assert_eq!(errors, [], "{id} {rule}"),
                Some(why) => {
                    assert!(!errors.is_empty(), "{id} {rule}: {why}");
                    println!("{id} {rule}: {}", errors[0]);
                }
                None => {
                    assert_eq!(errors, [], "{id} {rule}");
                    let expected: BTreeMap<String, Vec<String>> =
                        expected.bundles.iter().map(|(catalog, names)| (catalog.clone(), sorted(names))).collect();
                    assert_eq!(bundles, placed(&expected, wanted), "{id} {rule}");
                }
            }
        }
    }
    println!("{compared} expectations of {} sets", sets.len());
    assert!(compared >= 50);
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
