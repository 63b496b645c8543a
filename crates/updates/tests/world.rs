//! Every release set of the world: our selection, fed from the world's update service and once more from what was kept, is exactly the
//! payloads that the set stands for.
#![allow(clippy::unwrap_used, reason = "a test fails by unwrapping")]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use airlock_testkit::tools;
use airlock_testkit::world::{Faults, Scale, Serving, World};
use airlock_updates::{Channel, GraphData, Kept, Service, Wanted, select};
use serde_json::Value;
use support::graph_client;

/// The payloads' repository in the world.
const PAYLOADS: &str = "quay.io/openshift-release-dev/ocp-release@";

fn wanted(platform: &Value) -> Wanted {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let flag = |value: &Value| value.as_bool().unwrap_or_default();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    Wanted {
        channels: list(&platform["channels"])
            .iter()
            .enumerate()
            .map(|(number, channel)| Channel {
                name: text(&channel["name"]).unwrap(),
                line: number as u32 + 1,
                service: if channel["type"] == "okd" { Service::Okd } else { Service::Ocp },
                min: text(&channel["minVersion"]),
                max: text(&channel["maxVersion"]),
                full: flag(&channel["full"]),
                shortest_path: flag(&channel["shortestPath"]),
            })
            .collect(),
        architectures: list(&platform["architectures"]).iter().filter_map(text).collect(),
        platforms: !list(&platform["platforms"]).is_empty(),
        avoid_risks: false,
    }
}

#[tokio::test]
async fn each_set_is_exactly_the_expected_payloads_with_and_without_a_network() {
    let (Some(shared), Some(world)) = (tools::shared(), World::get(Scale::Small)) else { return };
    let Some(upstream) = world.start(Serving::Scripted(Faults::default())) else { return };
    let client = graph_client(&format!("{}/api/upgrades_info/v1/graph", upstream.http()));
    let scenarios: Vec<Value> =
        serde_json::from_slice(&std::fs::read(shared.join("world/isc/scenarios.json")).unwrap()).unwrap();
    let mut sets = 0;
    for scenario in &scenarios {
        let id = scenario["id"].as_str().unwrap();
        let wanted = wanted(&scenario["body"]["platform"]);
        if wanted.channels.is_empty() || id.starts_with("del-") {
            continue;
        }
        sets += 1;
        let expected: BTreeSet<String> = upstream
            .expected(id)
            .images
            .iter()
            .filter_map(|image| image.reference.strip_prefix(PAYLOADS).map(str::to_owned))
            .collect();
        let selection = select(&wanted, &client).await.unwrap_or_else(|error| panic!("{id}: {error}"));
        let chosen: Vec<String> = selection.releases.iter().map(|r| r.payload.digest().unwrap().to_string()).collect();
        assert_eq!(chosen.iter().cloned().collect::<BTreeSet<_>>(), expected, "{id}: {:#?}", selection.releases);
        assert_eq!(chosen.len(), expected.len(), "{id}: a payload comes twice");
        assert!(selection.releases.iter().all(|r| !r.why.is_empty()), "{id}");
        // One question for each channel and architecture.
        assert!(selection.answers.len() <= 2, "{id}: {:?}", selection.answers);

        let files: BTreeMap<_, _> =
            selection.answers.iter().map(|(query, bytes)| (query.file_name(), bytes.clone())).collect();
        let again = select(&wanted, &Kept::new("the archive", files)).await.unwrap();
        assert_eq!(again.releases, selection.releases, "{id}");
        assert_eq!(again.notes, selection.notes, "{id}");
    }
    assert!(sets >= 14, "only {sets} sets");
    let GraphData::Archive { from, .. } = client.graph_data().await.unwrap() else { panic!("no graph data") };
    assert!(from.ends_with("/api/upgrades_info/graph-data"), "{from}");
}
