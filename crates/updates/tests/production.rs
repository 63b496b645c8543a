//! A real answer of the production service and those of an upstream test run: read, walked and written again.
#![allow(clippy::unwrap_used, reason = "a test fails by unwrapping")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use airlock_testkit::tools;
use airlock_updates::{Channel, Edges, Graph, Kept, Version, Wanted, select};
use serde_json::Value;

fn vectors() -> Option<PathBuf> {
    Some(tools::shared()?.join("vectors/updates"))
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))).unwrap()
}

fn read(path: &Path) -> Graph {
    Graph::parse(&std::fs::read(path).unwrap()).unwrap()
}

/// The updates that need no condition, as pairs of versions.
fn recommended(graph: &Graph) -> BTreeSet<(String, String)> {
    let version = |at: usize| graph.nodes()[at].version.to_string();
    let edges = graph.edges().iter().filter(|(from, to)| graph.risks(*from, *to).is_some_and(|r| r.is_empty()));
    edges.map(|(from, to)| (version(*from), version(*to))).collect()
}

/// The updates with risks, with the names of those.
fn conditional(graph: &Graph) -> BTreeMap<(String, String), BTreeSet<String>> {
    let mut found = BTreeMap::new();
    for (at, node) in graph.nodes().iter().enumerate() {
        for (to, risks) in graph.updates(at).filter(|(_, risks)| !risks.is_empty()) {
            let names = risks.iter().map(|risk| risk.name.clone()).collect();
            found.insert((node.version.to_string(), to.version.to_string()), names);
        }
    }
    found
}

#[test]
fn the_answer_of_stable_4_13_means_what_todays_service_would_say() {
    let Some(folder) = vectors().map(|v| v.join("prod-stable-4.13")) else { return };
    let graph = read(&folder.join("response-amd64-stable-4.13.json"));
    let expected = json(&folder.join("expected-current-semantics.derived.json"));
    assert_eq!((graph.nodes().len(), graph.edges().len(), graph.conditional().len()), (98, 1171, 37));
    let nodes = expected["nodes"].as_array().unwrap();
    for (node, expected) in graph.nodes().iter().zip(nodes) {
        assert_eq!(node.version.to_string(), expected["version"].as_str().unwrap());
        assert_eq!(node.payload.as_deref(), expected["payload"].as_str());
        assert_eq!(node.url(), expected["url"].as_str());
        assert_eq!(node.channels().collect::<Vec<_>>().join(","), expected["channels"].as_str().unwrap());
    }
    let pair = |value: &Value| (value[0].as_str().unwrap().to_owned(), value[1].as_str().unwrap().to_owned());
    // 136 updates are listed both ways, by a fault of that time; they are conditional.
    let expected_edges: BTreeSet<_> = expected["edges"].as_array().unwrap().iter().map(pair).collect();
    let old: BTreeSet<_> =
        json(&folder.join("edges-only-in-old-response.derived.json")).as_array().unwrap().iter().map(pair).collect();
    assert_eq!(old.len(), 136);
    assert_eq!(recommended(&graph), expected_edges);
    assert!(old.iter().all(|edge| conditional(&graph).contains_key(edge)));
    let expected_risks: BTreeMap<_, BTreeSet<String>> = expected["conditionalEdges"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| {
            (pair(entry), entry[2].as_array().unwrap().iter().map(|n| n.as_str().unwrap().to_owned()).collect())
        })
        .collect();
    assert_eq!(expected_risks.len(), 2394);
    assert_eq!(conditional(&graph), expected_risks);
}

#[tokio::test]
async fn ranges_and_paths_of_stable_4_13() {
    let Some(folder) = vectors().map(|v| v.join("prod-stable-4.13")) else { return };
    let bytes = std::fs::read(folder.join("response-amd64-stable-4.13.json")).unwrap();
    let graphs = Kept::new("the vectors", [("amd64-stable-4.13.json".to_owned(), bytes.into())].into());
    let chosen = async |channel: Channel| {
        let selection = select(&Wanted { channels: vec![channel], ..Wanted::default() }, &graphs).await.unwrap();
        let versions: Vec<String> = selection.releases.iter().map(|r| r.version.to_string()).collect();
        (versions, selection.notes)
    };
    assert_eq!(chosen(Channel { full: true, ..support::channel("stable-4.13", "", "") }).await.0.len(), 98);
    let newest = chosen(support::channel("stable-4.13", "", "")).await.0;
    let range = chosen(support::channel("stable-4.13", "4.13.40", "")).await.0;
    assert_eq!(range.last(), newest.last());
    assert!(range.iter().all(|v| v.parse::<Version>().unwrap() >= "4.13.40".parse().unwrap()));
    let along = |min: &str| Channel { shortest_path: true, ..support::channel("stable-4.13", min, "") };
    let (path, notes) = chosen(along("4.12.0")).await;
    assert!(path.len() >= 3 && path[0] == "4.12.0", "{path:?}");
    assert!(notes.is_empty(), "there is a way without risks: {notes:?}");
}

#[test]
fn written_again_every_answer_is_the_same_graph_in_stable_order() {
    let Some(folder) = vectors() else { return };
    let mut files = vec![folder.join("prod-stable-4.13/response-amd64-stable-4.13.json")];
    for entry in std::fs::read_dir(folder.join("e2e-134475077")).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_str().unwrap().starts_with("response_") {
            files.push(path);
        }
    }
    assert_eq!(files.len(), 6);
    for file in files {
        let graph = read(&file);
        let written = graph.to_json().unwrap();
        let again = Graph::parse(&written).unwrap();
        assert_eq!(again.to_json().unwrap(), written, "{}", file.display());
        assert_eq!(again.nodes(), graph.nodes());
        assert_eq!((recommended(&again), conditional(&again)), (recommended(&graph), conditional(&graph)));
        // Nothing of the answer was lost on the way.
        let counts = |value: &Value| {
            let pairs =
                value["conditionalEdges"].as_array().unwrap().iter().map(|g| g["edges"].as_array().unwrap().len());
            (value["nodes"].as_array().unwrap().len(), value["edges"].as_array().unwrap().len(), pairs.sum::<usize>())
        };
        assert_eq!(counts(&serde_json::from_slice(&written).unwrap()), counts(&json(&file)), "{}", file.display());
    }
}

#[test]
fn the_answers_of_the_test_run_have_the_sizes_that_are_known_of_them() {
    let Some(folder) = vectors().map(|v| v.join("e2e-134475077")) else { return };
    for (file, nodes, edges, groups) in [
        ("response_stable-4.7_amd64_v1.json", 102, Some(3244), 2),
        ("response_stable-4.8_amd64_v1.json", 101, None, 1),
        ("response_stable-4.9_amd64_v1.json", 90, None, 0),
        ("response_candidate-4.12_multi_v1.json", 5, None, 0),
    ] {
        let graph = read(&folder.join(file));
        assert_eq!((graph.nodes().len(), graph.conditional().len()), (nodes, groups), "{file}");
        assert!(edges.is_none_or(|edges| graph.edges().len() == edges), "{file}");
        // From the oldest release every other is within reach or is not, but a path is always one of updates.
        for to in 0..graph.nodes().len() {
            for path in [graph.path(0, to, Edges::Recommended), graph.path(0, to, Edges::All)].into_iter().flatten() {
                assert!(path.windows(2).all(|step| graph.risks(step[0], step[1]).is_some()), "{file}");
            }
        }
    }
}
