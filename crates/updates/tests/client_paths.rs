//! The vectors `client-paths`: paths, bounds and ways across channels as oc-mirror's own tests have them.
#![allow(clippy::unwrap_used, reason = "a test fails by unwrapping")]

mod support;

use airlock_testkit::tools;
use airlock_updates::{
    Channel, ChannelName, Edges, Graphs, Kept, Note, SelectError, Version, Wanted, across_channels, select,
};
use serde::Deserialize;
use support::{kept, query};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Case {
    op: String,
    #[serde(default)]
    channel: String,
    #[serde(default)]
    source_channel: String,
    #[serde(default)]
    target_channel: String,
    #[serde(default)]
    from: String,
    #[serde(default)]
    to: String,
    path: Option<Vec<String>>,
    requested: Option<String>,
    warning: Option<String>,
    error: Option<String>,
    range: Option<String>,
    result: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Cases {
    cases: Vec<Case>,
}

fn version(text: &str) -> Version {
    text.parse().unwrap()
}

/// The version and the channel that an error of the vectors speaks of.
fn not_found(error: &SelectError, expected: &str) {
    let SelectError::NotInChannel { version, channel, .. } = error else { panic!("{error:?} for {expected}") };
    assert!(
        expected.contains(&format!("version {version} not found in the \"{channel}\" channel")),
        "{error}: {expected}"
    );
}

async fn in_channel(case: &Case, graphs: &Kept) {
    let answer = graphs.answer(&query(&case.channel)).await.unwrap();
    let graph = &answer.graph;
    let (from, to) = (version(&case.from), version(&case.to));
    // The whole selection says which end is missing.
    let wanted = Wanted {
        channels: vec![Channel { shortest_path: true, ..support::channel(&case.channel, &case.from, &case.to) }],
        ..Wanted::default()
    };
    let selection = select(&wanted, graphs).await;
    if let Some(expected) = &case.error {
        // A bound above the other is an error by itself before any graph is read.
        if from < to {
            not_found(&selection.unwrap_err().errors()[0], expected);
        } else {
            assert!(matches!(selection.unwrap_err().errors()[0], SelectError::MinAboveMax { .. }));
            assert!(graph.position(&from).is_none());
        }
        return;
    }
    let ends = graph.position(&from).unwrap()..graph.position(&to).unwrap();
    let path = graph.path(ends.start, ends.end, Edges::Recommended).unwrap_or_default();
    let path: Vec<String> = path.iter().map(|at| graph.nodes()[*at].version.to_string()).collect();
    assert_eq!(Some(&path), case.path.as_ref(), "{case:?}");
    if let Ok(selection) = selection {
        let chosen: Vec<String> = selection.releases.iter().map(|r| r.version.to_string()).collect();
        let expected = if path.is_empty() { vec![case.from.clone(), case.to.clone()] } else { path };
        assert_eq!(chosen, expected, "{case:?}");
    }
}

async fn across(case: &Case, graphs: &Kept) {
    let target = ChannelName::new(&case.target_channel).unwrap();
    let found =
        across_channels(graphs, &query(&case.source_channel), &version(&case.from), &target, &version(&case.to)).await;
    if let Some(expected) = &case.error {
        not_found(&found.unwrap_err(), expected);
        return;
    }
    let (releases, notes) = found.unwrap();
    let mut expected: Vec<Version> = case.path.iter().flatten().chain(&case.requested).map(|v| version(v)).collect();
    expected.sort();
    let chosen: Vec<Version> = releases.iter().map(|r| r.version.clone()).collect();
    assert_eq!(chosen, expected, "{case:?}");
    for release in &releases {
        let expected = format!("quay.io/openshift-release-dev/ocp-release:{}", release.version);
        assert_eq!(release.payload.to_string(), expected);
        assert!(!release.why.is_empty());
    }
    // oc-mirror is silent about some gaps; we never are.
    let gap = case.warning.is_some() || case.requested.is_some();
    assert_eq!(notes.iter().any(Note::is_gap), gap, "{case:?}: {notes:?}");
}

#[tokio::test]
async fn every_case_has_its_path_bounds_or_error() {
    let Some(shared) = tools::shared() else { return };
    let folder = shared.join("vectors/updates/client-paths");
    let cases: Cases = serde_json::from_slice(&std::fs::read(folder.join("cases.json")).unwrap()).unwrap();
    let graphs = kept(&folder.join("channels"));
    assert_eq!(cases.cases.len(), 16);
    for case in &cases.cases {
        match case.op.as_str() {
            "updates-in-channel" => in_channel(case, &graphs).await,
            "cross-channel" => across(case, &graphs).await,
            "channel-max" | "channel-min" => {
                let answer = graphs.answer(&query(&case.channel)).await.unwrap();
                let node = if case.op == "channel-max" { answer.graph.last() } else { answer.graph.first() };
                let expected = case.result.as_ref().and_then(|r| r.as_str()).unwrap();
                assert_eq!(node.unwrap().version.to_string(), expected);
            }
            "versions" => {
                let wanted = Wanted { channels: vec![support::channel(&case.channel, "", "")], ..Wanted::default() };
                let error = select(&wanted, &graphs).await.unwrap_err();
                let SelectError::UnknownChannel { channel, .. } = &error.errors()[0] else { panic!("{error:?}") };
                assert!(case.error.as_ref().unwrap().contains(&format!("in the \"{channel}\" channel")));
            }
            "range" => {
                let answer = graphs.answer(&query(&case.channel)).await.unwrap();
                let min = version(case.range.as_ref().unwrap().strip_prefix(">=").unwrap());
                let range = answer.graph.range(&min, &answer.graph.last().unwrap().version);
                let found: Vec<String> = range.iter().map(|node| node.version.to_string()).collect();
                let expected: Vec<String> = serde_json::from_value(case.result.clone().unwrap()).unwrap();
                assert_eq!(found, expected);
            }
            other => panic!("the vectors have a new operation: {other}"),
        }
    }
}
