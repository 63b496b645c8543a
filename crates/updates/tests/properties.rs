//! Paths and ranges on random graphs against models that are too slow and too simple to be wrong.
#![allow(clippy::unwrap_used, reason = "a test fails by unwrapping")]

use airlock_updates::{Edges, Graph, Version};
use proptest::prelude::*;

/// A random graph: versions in some order, and updates from lower to higher ones, plain, risky, or both.
#[derive(Clone, Debug)]
struct Random {
    versions: Vec<String>,
    plain: Vec<(usize, usize)>,
    risky: Vec<(usize, usize)>,
}

impl Random {
    fn parse(&self) -> Graph {
        let nodes: Vec<_> =
            self.versions.iter().map(|v| serde_json::json!({"version": v, "payload": "q.io/a/b:1"})).collect();
        let text =
            |(from, to): &(usize, usize)| serde_json::json!({"from": self.versions[*from], "to": self.versions[*to]});
        let groups: Vec<_> = self
            .risky
            .iter()
            .map(|edge| serde_json::json!({"edges": [text(edge)], "risks": [{"name": "R"}]}))
            .collect();
        let json = serde_json::json!({"nodes": nodes, "edges": self.plain, "conditionalEdges": groups});
        Graph::parse(json.to_string().as_bytes()).unwrap()
    }
}

/// Pre-releases and numbers of different length, so that the order of texts is not that of versions.
fn version() -> impl Strategy<Value = String> {
    (8_u64..=11, 0_u64..12, 0_u64..4).prop_map(|(minor, patch, pre)| match pre {
        0 => format!("4.{minor}.{patch}-rc.{}", patch + minor),
        _ => format!("4.{minor}.{patch}"),
    })
}

fn random() -> impl Strategy<Value = Random> {
    prop::collection::hash_set(version(), 1..9).prop_flat_map(|versions| {
        let versions: Vec<String> = versions.into_iter().collect();
        let mut pairs = Vec::new();
        for (a, low) in versions.iter().enumerate() {
            for (b, high) in versions.iter().enumerate() {
                if low.parse::<Version>().unwrap() < high.parse::<Version>().unwrap() {
                    pairs.push((a, b));
                }
            }
        }
        let count = pairs.len();
        prop::collection::vec(0_u8..6, count).prop_map(move |kinds| {
            let of = |wanted: &[u8]| {
                let chosen = pairs.iter().zip(&kinds).filter(|(_, kind)| wanted.contains(kind));
                chosen.map(|(pair, _)| *pair).collect::<Vec<_>>()
            };
            Random { versions: versions.clone(), plain: of(&[1, 2, 5]), risky: of(&[4, 5]) }
        })
    })
}

/// Every path there is.
fn all_paths(next: &dyn Fn(usize) -> Vec<usize>, from: usize, to: usize) -> Vec<Vec<usize>> {
    if from == to {
        return vec![vec![to]];
    }
    let mut found = Vec::new();
    for step in next(from) {
        for mut rest in all_paths(next, step, to) {
            rest.insert(0, from);
            found.push(rest);
        }
    }
    found
}

fn is_risky(graph: &Graph, from: usize, to: usize) -> bool {
    graph.risks(from, to).is_some_and(|risks| !risks.is_empty())
}

proptest! {
    #[test]
    fn a_path_is_the_shortest_and_among_those_the_newest(random in random()) {
        let graph = random.parse();
        let count = graph.nodes().len();
        let next = |from: usize| {
            (0..count).filter(|to| graph.risks(from, *to).is_some_and(|risks| risks.is_empty())).collect::<Vec<_>>()
        };
        for (from, to) in (0..count).flat_map(|from| (0..count).map(move |to| (from, to))) {
            // Positions ascend with versions: the newest of equals is the greatest.
            let best = all_paths(&next, from, to).into_iter().min_by(|a, b| a.len().cmp(&b.len()).then(b.cmp(a)));
            prop_assert_eq!(graph.path(from, to, Edges::Recommended), best);
        }
    }

    #[test]
    fn with_risks_a_path_has_as_few_as_possible_and_then_as_few_steps(random in random()) {
        let graph = random.parse();
        let count = graph.nodes().len();
        let next = |from: usize| (0..count).filter(|to| graph.risks(from, *to).is_some()).collect::<Vec<_>>();
        let cost = |path: &[usize]| {
            (path.windows(2).filter(|step| is_risky(&graph, step[0], step[1])).count(), path.len())
        };
        for (from, to) in (0..count).flat_map(|from| (0..count).map(move |to| (from, to))) {
            let best = all_paths(&next, from, to).iter().map(|path| cost(path)).min();
            let found = graph.best_path(from, to);
            prop_assert_eq!(found.as_deref().map(cost), best);
            if let Some(path) = found {
                prop_assert!(path.first() == Some(&from) && path.last() == Some(&to));
                prop_assert!(path.windows(2).all(|step| graph.risks(step[0], step[1]).is_some()));
                if best.is_some_and(|(risky, _)| risky == 0) {
                    prop_assert_eq!(Some(path), graph.path(from, to, Edges::Recommended));
                }
            }
        }
    }

    #[test]
    fn a_range_is_what_lies_between(random in random(), min in version(), max in version()) {
        let graph = random.parse();
        let (min, max): (Version, Version) = (min.parse().unwrap(), max.parse().unwrap());
        let mut expected: Vec<Version> = random.versions.iter().map(|v| v.parse().unwrap()).collect();
        expected.retain(|version| *version >= min && *version <= max);
        expected.sort();
        let found: Vec<Version> = graph.range(&min, &max).iter().map(|node| node.version.clone()).collect();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn a_written_graph_is_read_again_as_itself_and_laid_over_itself_stays(random in random()) {
        let graph = random.parse();
        let written = graph.to_json().unwrap();
        prop_assert_eq!(Graph::parse(&written).unwrap().to_json().unwrap(), written.clone());
        prop_assert_eq!(Graph::union([&graph, &graph]).to_json().unwrap(), written);
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Graph::parse(&bytes);
    }
}
