//! A graph of updates: releases, and which of them may follow which. Read from and written to JSON in [`wire`], walked in [`path`].

mod path;
mod wire;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use crate::version::Version;

pub use path::Edges;
pub use wire::{GraphError, MAX_GRAPH_BYTES};

/// The key of a node's metadata that lists its channels, separated by commas.
pub const CHANNELS_KEY: &str = "io.openshift.upgrades.graph.release.channels";
/// The key of a node's metadata that holds the address of its errata.
pub const URL_KEY: &str = "url";

/// A graph of updates.
///
/// * Nodes are in ascending order of version and no two have the same version.
/// * Edges name existing nodes, in ascending order, each once.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    nodes: Vec<Node>,
    edges: Vec<(usize, usize)>,
    conditional: Vec<ConditionalEdges>,
    /// For each node the updates from it, newest first.
    next: Vec<Vec<Update>>,
}

/// A release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Node {
    /// Which one.
    pub version: Version,
    /// Where its payload is, by digest. Only a graph builder's own graph has nodes without.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload: Option<String>,
    /// Channels, errata and more.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
}

/// Updates that are recommended only to clusters that none of the risks concerns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConditionalEdges {
    /// Which updates.
    pub edges: Vec<VersionPair>,
    /// What may go wrong.
    pub risks: Vec<Risk>,
}

/// An update by the texts of its versions. The target may be outside of the graph.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct VersionPair {
    /// From which release.
    pub from: String,
    /// To which.
    pub to: String,
}

/// What may go wrong with an update, and for whom.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Risk {
    /// Where more is said.
    #[serde(default)]
    pub url: String,
    /// One word in CamelCase.
    #[serde(default)]
    pub name: String,
    /// For people.
    #[serde(default)]
    pub message: String,
    /// Whom it concerns: the first rule that can be evaluated decides.
    #[serde(default, rename = "matchingRules")]
    pub matching_rules: Vec<MatchingRule>,
}

/// A rule that finds out whether a cluster is concerned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MatchingRule {
    /// `Always` or `PromQL`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The query, for `PromQL`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promql: Option<PromQl>,
}

/// A query whose answer is 0 or 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromQl {
    /// The query.
    pub promql: String,
}

/// An update from a node.
#[derive(Clone, Debug)]
struct Update {
    to: usize,
    /// Groups of [`Graph::conditional`] that list it; none: it is recommended to everybody.
    groups: Vec<usize>,
}

impl Node {
    /// The channels that the release is in, as its metadata lists them.
    pub fn channels(&self) -> impl Iterator<Item = &str> {
        let listed = self.metadata.get(CHANNELS_KEY).map_or("", String::as_str);
        listed.split(',').map(str::trim).filter(|name| !name.is_empty())
    }

    /// Where its errata are.
    pub fn url(&self) -> Option<&str> {
        self.metadata.get(URL_KEY).map(String::as_str).filter(|url| !url.is_empty())
    }
}

impl Graph {
    /// Sorts and indexes. Edges are by position in `nodes`, which have distinct versions.
    fn assemble(nodes: Vec<Node>, edges: &[(usize, usize)], mut conditional: Vec<ConditionalEdges>) -> Self {
        for group in &mut conditional {
            group.edges.sort();
            group.edges.dedup();
        }
        conditional.sort_by(|a, b| a.edges.cmp(&b.edges));
        let mut order: Vec<usize> = (0..nodes.len()).collect();
        order.sort_by(|a, b| nodes[*a].version.cmp(&nodes[*b].version));
        let mut place = vec![0; nodes.len()];
        for (new, old) in order.iter().enumerate() {
            place[*old] = new;
        }
        let mut nodes: Vec<Option<Node>> = nodes.into_iter().map(Some).collect();
        let nodes: Vec<Node> = order.into_iter().filter_map(|old| nodes[old].take()).collect();
        let edges: BTreeSet<(usize, usize)> = edges.iter().map(|(a, b)| (place[*a], place[*b])).collect();
        let by_text: HashMap<String, usize> =
            nodes.iter().enumerate().map(|(at, node)| (node.version.to_string(), at)).collect();
        // An update that is listed both ways is conditional: that is how every cluster reads it (updates-and-releases 4.1).
        let mut updates: BTreeMap<(usize, usize), Vec<usize>> = edges.iter().map(|edge| (*edge, Vec::new())).collect();
        for (number, group) in conditional.iter().enumerate() {
            for pair in &group.edges {
                if let (Some(from), Some(to)) = (by_text.get(&pair.from), by_text.get(&pair.to)) {
                    updates.entry((*from, *to)).or_default().push(number);
                }
            }
        }
        let mut next: Vec<Vec<Update>> = nodes.iter().map(|_| Vec::new()).collect();
        // Descending order of the pairs leaves the newest target first.
        for ((from, to), groups) in updates.into_iter().rev() {
            next[from].push(Update { to, groups });
        }
        Self { nodes, edges: edges.into_iter().collect(), conditional, next }
    }

    /// All releases and updates of several graphs. Where two graphs disagree about an update, the one that knows a risk is believed; of two
    /// payloads of one release the first is kept.
    pub fn union<'g>(graphs: impl IntoIterator<Item = &'g Graph>) -> Self {
        let mut nodes: Vec<Node> = Vec::new();
        let mut places: HashMap<Version, usize> = HashMap::new();
        let mut edges = Vec::new();
        let mut conditional: Vec<ConditionalEdges> = Vec::new();
        for graph in graphs {
            let here: Vec<usize> = graph
                .nodes
                .iter()
                .map(|node| {
                    *places.entry(node.version.clone()).or_insert_with(|| {
                        nodes.push(node.clone());
                        nodes.len() - 1
                    })
                })
                .collect();
            edges.extend(graph.edges.iter().map(|(from, to)| (here[*from], here[*to])));
            for group in &graph.conditional {
                if !conditional.contains(group) {
                    conditional.push(group.clone());
                }
            }
        }
        Self::assemble(nodes, &edges, conditional)
    }

    /// The releases, ascending.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The updates without condition as the graph lists them, by positions in [`Graph::nodes`].
    pub fn edges(&self) -> &[(usize, usize)] {
        &self.edges
    }

    /// The updates with conditions.
    pub fn conditional(&self) -> &[ConditionalEdges] {
        &self.conditional
    }

    /// Whether there is no release.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Where a release is in [`Graph::nodes`].
    pub fn position(&self, version: &Version) -> Option<usize> {
        let at = self.nodes.partition_point(|node| node.version < *version);
        // Equal precedence suffices; a builder's graph has build metadata that no configuration writes.
        self.nodes.get(at).filter(|node| node.version.is(version)).map(|_| at)
    }

    /// A release.
    pub fn find(&self, version: &Version) -> Option<&Node> {
        self.position(version).map(|at| &self.nodes[at])
    }

    /// The oldest release.
    pub fn first(&self) -> Option<&Node> {
        self.nodes.first()
    }

    /// The newest release.
    pub fn last(&self) -> Option<&Node> {
        self.nodes.last()
    }

    /// The releases from `min` to `max`, both included, whether or not any update connects them.
    pub fn range(&self, min: &Version, max: &Version) -> &[Node] {
        let begin = self.nodes.partition_point(|node| node.version < *min && !node.version.is(min));
        let end = self.nodes.partition_point(|node| node.version <= *max || node.version.is(max));
        self.nodes.get(begin..end).unwrap_or_default()
    }

    /// The releases just below and just above a version.
    pub fn around(&self, version: &Version) -> [Option<&Version>; 2] {
        let at = self.nodes.partition_point(|node| node.version < *version);
        let below = at.checked_sub(1).map(|at| &self.nodes[at].version);
        [below, self.nodes.get(at).map(|node| &node.version)]
    }

    /// All channels that any release is in, sorted.
    pub fn channels(&self) -> BTreeSet<&str> {
        self.nodes.iter().flat_map(Node::channels).collect()
    }

    /// The releases that follow the one at `from`, newest first, each with its risks.
    pub fn updates(&self, from: usize) -> impl Iterator<Item = (&Node, Vec<&Risk>)> {
        self.next[from].iter().map(|update| (&self.nodes[update.to], self.risks_of(update)))
    }

    /// The risks of one update; empty when it is recommended to everybody. `None` when there is no such update.
    pub fn risks(&self, from: usize, to: usize) -> Option<Vec<&Risk>> {
        self.next[from].iter().find(|update| update.to == to).map(|update| self.risks_of(update))
    }

    fn risks_of(&self, update: &Update) -> Vec<&Risk> {
        let mut risks: Vec<&Risk> = Vec::new();
        for risk in update.groups.iter().flat_map(|group| &self.conditional[*group].risks) {
            if !risks.contains(&risk) {
                risks.push(risk);
            }
        }
        risks
    }
}
