//! Update graphs.

use airlock_updates::{Edges, Graph};

use super::magnitude;
use crate::{Features, Target};

/// Paths are looked for between the first nodes only, so that a large graph does not hold up the others.
const MAX_ENDS: usize = 6;

pub(super) const TARGET: Target = Target {
    name: "graph",
    run,
    words: &[
        b"\"nodes\":[",
        b"\"edges\":[",
        b"\"conditionalEdges\":[",
        b"{\"version\":\"4.18.1\",\"payload\":\"quay.io/a/b:1\"}",
        b"{\"version\":\"4.18.2\",\"metadata\":{\"url\":\"x\"}}",
        b"\"metadata\":{\"io.openshift.upgrades.graph.release.channels\":\"stable-4.18,fast-4.18\"}",
        b"{\"edges\":[{\"from\":\"4.18.1\",\"to\":\"4.18.2\"}],\"risks\":[{\"name\":\"R\"}]}",
        b"\"matchingRules\":[{\"type\":\"PromQL\",\"promql\":{\"promql\":\"x\"}}]",
        b"[0,1]",
        b"[1,0]",
        b"18446744073709551615",
        b"-rc.1",
        b"+amd64",
        b"{\"kind\":\"invalid_params\",\"value\":\"x\"}",
        b"<html><title>",
        b"null",
        b",",
        b"{",
        b"}",
        b"]",
    ],
};

fn run(input: &[u8], features: &mut Features) {
    let graph = match Graph::parse(input) {
        Ok(graph) => graph,
        Err(error) => {
            let text = error.to_string();
            assert!(!text.is_empty());
            features.note(text.split(['`', '(']).next().map(|words| words.replace(char::is_numeric, "")));
            return;
        }
    };
    assert!(graph.nodes().windows(2).all(|pair| pair[0].version < pair[1].version), "ascending, each version once");
    let written = graph.to_json().unwrap_or_default();
    let again = Graph::parse(&written).ok().and_then(|graph| graph.to_json().ok());
    assert_eq!(again.as_ref(), Some(&written), "what is written is read as itself");
    let ends = graph.nodes().len().min(MAX_ENDS);
    for (from, to) in (0..ends).flat_map(|from| (0..ends).map(move |to| (from, to))) {
        for edges in [Edges::Recommended, Edges::All] {
            if let Some(path) = graph.path(from, to, edges) {
                assert!(path.first() == Some(&from) && path.last() == Some(&to));
                assert!(path.windows(2).all(|step| graph.risks(step[0], step[1]).is_some()), "only updates that exist");
                features.note((edges == Edges::All, magnitude(path.len())));
            }
        }
    }
    features.note(("nodes", magnitude(graph.nodes().len())));
    features.note(("edges", magnitude(graph.edges().len())));
    features.note(("groups", magnitude(graph.conditional().len())));
    features.note(("channels", magnitude(graph.channels().len())));
}
