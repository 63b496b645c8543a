//! Every release set of the world: our selection, fed from the world's update service and once more from what was kept, is exactly the
//! payloads that the set stands for.
#![allow(clippy::unwrap_used, reason = "a test fails by unwrapping")]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use airlock_testkit::tools;
use airlock_testkit::world::{Faults, Scale, Serving, Upstream, World};
use airlock_updates::{Channel, GraphData, Kept, Note, SelectError, Service, Wanted, select};
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

/// Asks the world's own model of oc-mirror, once for all.
const MODEL: &str = "
import json, sys
sys.path.insert(0, sys.argv[1])
from lib.rules import release_select, Fail
graph = json.load(open(sys.argv[2]))
answers = []
for platform in json.load(sys.stdin):
    try:
        answers.append(sorted(release_select(graph, platform)))
    except (Fail, KeyError) as error:
        answers.append(None)
json.dump(answers, sys.stdout)
";

/// What the model of oc-mirror makes of each section; `None` where it fails.
fn model(shared: &std::path::Path, upstream: &Upstream, platforms: &[Value]) -> Option<Vec<Option<BTreeSet<String>>>> {
    let python = tools::need("python3")?;
    let input = upstream.folder().join("platforms.json");
    std::fs::write(&input, serde_json::to_vec(platforms).unwrap()).unwrap();
    let output = std::process::Command::new(python)
        .args(["-B", "-c", MODEL])
        .arg(shared.join("world"))
        .arg(upstream.folder().join("http/graph.json"))
        .stdin(std::fs::File::open(&input).unwrap())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

#[tokio::test]
async fn every_combination_of_bounds_agrees_with_the_model_or_says_why_not() {
    let (Some(shared), Some(world)) = (tools::shared(), World::get(Scale::Small)) else { return };
    let Some(upstream) = world.start(Serving::Scripted(Faults::default())) else { return };
    let versions = ["", "4.16.21", "4.17.4", "4.17.10", "4.17.37", "4.18.6", "4.18.27", "4.17.11"];
    let channels = ["stable-4.16", "stable-4.17", "stable-4.18", "eus-4.18", "candidate-4.18"];
    let bounded = |name: &str, min: &str, max: &str, shortest: bool, full: bool| {
        let mut channel = serde_json::json!({"name": name, "shortestPath": shortest, "full": full});
        for (field, version) in [("minVersion", min), ("maxVersion", max)] {
            if !version.is_empty() {
                channel[field] = version.into();
            }
        }
        channel
    };
    let mut platforms = Vec::new();
    for name in channels {
        for min in versions {
            for max in versions {
                for (shortest, full) in [(false, false), (true, false), (false, true), (true, true)] {
                    platforms.push(serde_json::json!({"channels": [bounded(name, min, max, shortest, full)]}));
                }
                for other in channels.iter().filter(|other| **other != name) {
                    let (low, high) = (bounded(name, min, min, false, false), bounded(other, max, max, true, false));
                    platforms.push(serde_json::json!({"channels": [low, high]}));
                }
            }
        }
    }
    let Some(answers) = model(&shared, &upstream, &platforms) else { return };
    // Each graph is fetched once; afterwards nobody needs the network.
    let service = graph_client(&format!("{}/graph", upstream.http()));
    let all: Vec<Channel> = channels.iter().map(|name| support::channel(name, "", "")).collect();
    let fetched = select(&Wanted { channels: all, ..Wanted::default() }, &service).await.unwrap();
    let kept = Kept::new("the world", fetched.answers.into_iter().map(|(query, b)| (query.file_name(), b)).collect());

    let (mut same, mut more, mut failed) = (0, 0, 0);
    for (platform, expected) in platforms.iter().zip(&answers) {
        let ours = select(&wanted(platform), &kept).await;
        match (ours, expected) {
            (Ok(ours), Some(expected)) => {
                let chosen: BTreeSet<String> = ours.releases.iter().map(|r| r.payload.to_string()).collect();
                assert!(chosen.is_superset(expected), "{platform}: {:?}", ours.releases);
                if chosen == *expected {
                    same += 1;
                } else {
                    // More than oc-mirror takes only what a cluster needs on its way, which is told.
                    more += 1;
                    assert!(
                        !ours.notes.is_empty() && !ours.notes.iter().any(Note::is_gap),
                        "{platform}: {:?}",
                        ours.notes
                    );
                    for release in ours.releases.iter().filter(|r| !expected.contains(&r.payload.to_string())) {
                        let on_way = release.why.iter().any(|why| {
                            matches!(why.reason.code(), "on-path" | "intermediate-minor" | "across-channels")
                        });
                        assert!(on_way, "{platform}: {release:?}");
                    }
                }
            }
            // A range without any version is no error there, if another channel has some; and an end that is missing is not always noticed.
            (Err(failures), expected) => {
                failed += 1;
                assert!(expected.is_none() || !failures.errors().is_empty(), "{platform}: {failures}");
                if let Some(expected) = expected {
                    let lenient = failures.errors().iter().all(|error| {
                        matches!(
                            error,
                            SelectError::EmptyRange { .. }
                                | SelectError::MinAboveMax { .. }
                                | SelectError::NotInChannel { .. }
                        )
                    });
                    assert!(lenient, "{platform}: {failures}, expected {expected:?}");
                }
            }
            // Where the channel of the higher version is the older one, oc-mirror counts up without end.
            (Ok(_), None) => assert_eq!(wanted(platform).channels.len(), 2, "{platform}: the model fails"),
        }
    }
    println!("{same} the same, {more} with more on the way, {failed} refused");
    assert!(same > 500 && more > 0 && failed > 0, "{same} {more} {failed}");
}
