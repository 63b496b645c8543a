//! The JSON form of a graph (updates-and-releases 1.3): read with patience for what is new, without patience for what is wrong.

use std::collections::{BTreeMap, HashMap};

use airlock_oci::{Error, ErrorKind};
use serde::{Deserialize, Serialize};

use super::{ConditionalEdges, Graph, Node};
use crate::version::Version;

/// The largest graph that is read (bytes). The largest answers in production have about 2 MB.
pub const MAX_GRAPH_BYTES: usize = 32 * 1024 * 1024;

/// The version of the format that is written.
const FORMAT: u32 = 1;
/// Most characters of something that is no graph that are shown.
const MAX_SHOWN_CHARS: usize = 80;

/// Why bytes are not a graph.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    /// A web page: a proxy's, a login's, or that of another service at the same address.
    #[error("the answer is a web page{}, not a graph", title.as_ref().map(|t| format!(" (`{t}`)")).unwrap_or_default())]
    Html {
        /// Its title.
        title: Option<String>,
    },
    /// Not JSON.
    #[error("the answer is not JSON: {reason}; it begins with `{beginning}`")]
    NotJson {
        /// What the parser says, with line and column.
        reason: String,
        /// The first characters.
        beginning: String,
    },
    /// JSON of another shape.
    #[error("the answer is JSON but not a graph: {reason}")]
    NotGraph {
        /// What is missing or of the wrong type, with line and column.
        reason: String,
    },
    /// The service says in the body why there is no graph.
    #[error("the update service says {kind}: {message}")]
    Refused {
        /// Such as `invalid_params`.
        kind: String,
        /// For people.
        message: String,
    },
    /// A node's version cannot be understood.
    #[error("node {node} has no proper version: {reason}")]
    Version {
        /// Its position in the answer, from 0.
        node: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// Two nodes have one version.
    #[error("nodes {first} and {second} both have version {version}")]
    Duplicate {
        /// Which version.
        version: Version,
        /// The earlier position, from 0.
        first: usize,
        /// The later.
        second: usize,
    },
    /// An edge names a node that is not there.
    #[error("edge {edge} ({from} to {to}) names a node that is not there; there are {nodes}, counted from 0")]
    EdgeOutOfRange {
        /// Its position in the answer, from 0.
        edge: usize,
        /// As written.
        from: u64,
        /// As written.
        to: u64,
        /// How many nodes there are.
        nodes: usize,
    },
    /// Updates lead in a circle.
    #[error("its updates lead in a circle: {}", circle.iter().map(ToString::to_string).collect::<Vec<_>>().join(" -> "))]
    Cycle {
        /// The circle; the first version is also the last.
        circle: Vec<Version>,
    },
}

#[derive(Deserialize)]
struct WireGraph {
    nodes: Vec<WireNode>,
    edges: Vec<(u64, u64)>,
    #[serde(default, rename = "conditionalEdges")]
    conditional: Option<Vec<ConditionalEdges>>,
}

#[derive(Deserialize)]
struct WireNode {
    version: String,
    #[serde(default)]
    payload: Option<String>,
    #[serde(default)]
    metadata: Option<BTreeMap<String, String>>,
}

/// How an update service words a refusal (updates-and-releases 1.4).
#[derive(Deserialize)]
struct WireRefusal {
    kind: String,
    value: String,
}

#[derive(Serialize)]
struct Written<'g> {
    version: u32,
    nodes: &'g [Node],
    edges: &'g [(usize, usize)],
    #[serde(rename = "conditionalEdges")]
    conditional: &'g [ConditionalEdges],
}

impl Graph {
    /// Reads a graph. Fields that are not known are ignored; what cannot be right is an error that says where it stands.
    pub fn parse(bytes: &[u8]) -> Result<Self, GraphError> {
        let wire: WireGraph = serde_json::from_slice(bytes).map_err(|error| misread(bytes, &error))?;
        let mut nodes = Vec::with_capacity(wire.nodes.len());
        let mut seen: HashMap<Version, usize> = HashMap::with_capacity(wire.nodes.len());
        for (at, node) in wire.nodes.into_iter().enumerate() {
            let version: Version = node
                .version
                .parse()
                .map_err(|e: crate::InvalidVersion| GraphError::Version { node: at, reason: e.to_string() })?;
            if let Some(first) = seen.insert(version.clone(), at) {
                return Err(GraphError::Duplicate { version, first, second: at });
            }
            let payload = node.payload.filter(|payload| !payload.is_empty());
            nodes.push(Node { version, payload, metadata: node.metadata.unwrap_or_default() });
        }
        let mut edges = Vec::with_capacity(wire.edges.len());
        for (at, (from, to)) in wire.edges.into_iter().enumerate() {
            let position = |index: u64| usize::try_from(index).ok().filter(|index| *index < nodes.len());
            let (Some(a), Some(b)) = (position(from), position(to)) else {
                return Err(GraphError::EdgeOutOfRange { edge: at, from, to, nodes: nodes.len() });
            };
            edges.push((a, b));
        }
        let graph = Self::assemble(nodes, &edges, wire.conditional.unwrap_or_default());
        match graph.circle() {
            Some(circle) => {
                Err(GraphError::Cycle { circle: circle.iter().map(|at| graph.nodes[*at].version.clone()).collect() })
            }
            None => Ok(graph),
        }
    }

    /// The graph as an update service answers it: compact, in order, the same bytes for the same graph.
    pub fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(&Written {
            version: FORMAT,
            nodes: &self.nodes,
            edges: &self.edges,
            conditional: &self.conditional,
        })
    }

    /// A circle among the edges, with its first node repeated at the end. Depth first, without recursion: graphs are deep.
    fn circle(&self) -> Option<Vec<usize>> {
        let mut targets: Vec<Vec<usize>> = vec![Vec::new(); self.nodes.len()];
        for (from, to) in &self.edges {
            targets[*from].push(*to);
        }
        let mut left = vec![false; self.nodes.len()];
        let mut entered = vec![false; self.nodes.len()];
        for start in 0..self.nodes.len() {
            if left[start] {
                continue;
            }
            // The way that led here: each node with the next of its edges to follow.
            let mut way: Vec<(usize, usize)> = vec![(start, 0)];
            entered[start] = true;
            while let Some((at, next)) = way.last_mut() {
                let Some(&to) = targets[*at].get(*next) else {
                    left[*at] = true;
                    way.pop();
                    continue;
                };
                *next += 1;
                if left[to] {
                    continue;
                }
                if entered[to] {
                    let begin = way.iter().position(|(node, _)| *node == to).unwrap_or_default();
                    return Some(way[begin..].iter().map(|(node, _)| *node).chain([to]).collect());
                }
                entered[to] = true;
                way.push((to, 0));
            }
        }
        None
    }
}

impl GraphError {
    /// As the error of an operation, `read the update graph of channel …`.
    pub fn into_error(self, what: impl Into<String>) -> Error {
        let hint = match &self {
            Self::Html { .. } => {
                "the address leads to a page for people, often that of a proxy; check the proxy and UPDATE_URL_OVERRIDE, \
                 which must be the whole address of the graph, such as https://HOST/api/upgrades_info/v1/graph"
            }
            Self::NotJson { .. } | Self::NotGraph { .. } => {
                "check UPDATE_URL_OVERRIDE: it must be the whole address of the graph, such as \
                 https://HOST/api/upgrades_info/v1/graph"
            }
            Self::Refused { .. } => "check the name of the channel",
            _ => "the update service is faulty; nothing was chosen from this graph",
        };
        Error::new(ErrorKind::Server, what, self).retryable(false).hint(hint)
    }
}

fn misread(bytes: &[u8], error: &serde_json::Error) -> GraphError {
    let start = bytes.iter().position(|b| !b.is_ascii_whitespace() && *b != 0xEF && *b != 0xBB && *b != 0xBF);
    let text = String::from_utf8_lossy(&bytes[start.unwrap_or(bytes.len())..]).into_owned();
    if text.starts_with('<') {
        return GraphError::Html { title: title(&text) };
    }
    if let Ok(refusal) = serde_json::from_slice::<WireRefusal>(bytes) {
        return GraphError::Refused { kind: refusal.kind, message: refusal.value };
    }
    match error.classify() {
        serde_json::error::Category::Data => GraphError::NotGraph { reason: error.to_string() },
        _ => {
            let shown = |c: char| if c.is_control() { ' ' } else { c };
            let beginning = text.chars().take(MAX_SHOWN_CHARS).map(shown).collect();
            GraphError::NotJson { reason: error.to_string(), beginning }
        }
    }
}

fn title(page: &str) -> Option<String> {
    // ASCII only: positions must be the same in both texts.
    let lower = page.to_ascii_lowercase();
    let begin = lower.find("<title>")? + "<title>".len();
    let end = begin + lower[begin..].find("</title>")?;
    let words: Vec<&str> = page[begin..end].split_whitespace().collect();
    let title: String = words.join(" ").chars().take(MAX_SHOWN_CHARS).collect();
    (!title.is_empty()).then_some(title)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        Graph::parse(text.as_bytes()).unwrap_err().to_string()
    }

    const THREE: &str =
        r#"{"nodes":[{"version":"4.1.2"},{"version":"4.1.0","payload":"r/a@x","new":1},{"version":"4.1.1"}],"#;

    #[test]
    fn nodes_and_edges_are_sorted_and_unknown_fields_are_ignored() {
        let graph = Graph::parse(format!("{THREE}\"edges\":[[1,2],[2,0],[1,2]],\"later\":{{}}}}").as_bytes()).unwrap();
        let versions: Vec<String> = graph.nodes().iter().map(|n| n.version.to_string()).collect();
        assert_eq!(versions, ["4.1.0", "4.1.1", "4.1.2"]);
        assert_eq!(graph.edges(), [(0, 1), (1, 2)]);
        assert_eq!(graph.first().unwrap().payload.as_deref(), Some("r/a@x"));
        assert_eq!(
            String::from_utf8(graph.to_json().unwrap()).unwrap(),
            r#"{"version":1,"nodes":[{"version":"4.1.0","payload":"r/a@x"},{"version":"4.1.1"},{"version":"4.1.2"}],"edges":[[0,1],[1,2]],"conditionalEdges":[]}"#
        );
    }

    #[test]
    fn what_is_no_graph_is_named_for_what_it_is() {
        assert_eq!(
            error("\n<!DOCTYPE html><html><head><TITLE>Sign\n in</TITLE>"),
            "the answer is a web page (`Sign in`), not a graph"
        );
        assert_eq!(error("<html></html>"), "the answer is a web page, not a graph");
        assert!(
            error("oops")
                .starts_with("the answer is not JSON: expected value at line 1 column 1; it begins with `oops`")
        );
        assert!(error("").starts_with("the answer is not JSON: EOF"));
        assert!(error("{\"nodes\":[]").contains("not JSON: EOF"));
        assert!(error("{\"nodes\":[]}").starts_with("the answer is JSON but not a graph: missing field `edges`"));
        assert!(error("[]").starts_with("the answer is JSON but not a graph"));
        assert!(error(r#"{"nodes":[],"nodes":[],"edges":[]}"#).contains("duplicate field `nodes`"));
        assert_eq!(
            error(r#"{"kind":"missing_params","value":"mandatory client parameters missing: channel"}"#),
            "the update service says missing_params: mandatory client parameters missing: channel"
        );
    }

    #[test]
    fn a_faulty_graph_says_where() {
        assert_eq!(
            error(&format!("{THREE}\"edges\":[[1,2],[0,3]]}}")),
            "edge 1 (0 to 3) names a node that is not there; there are 3, counted from 0"
        );
        assert_eq!(error(&format!("{THREE}\"edges\":[[0,0]]}}")), "its updates lead in a circle: 4.1.2 -> 4.1.2");
        assert_eq!(
            error(&format!("{THREE}\"edges\":[[1,2],[2,0],[0,2]]}}")),
            "its updates lead in a circle: 4.1.1 -> 4.1.2 -> 4.1.1"
        );
        assert_eq!(
            error(r#"{"nodes":[{"version":"4.1"}],"edges":[]}"#),
            "node 0 has no proper version: `4.1` is not a version: three numbers are needed, such as 4.18.3"
        );
        assert_eq!(
            error(r#"{"nodes":[{"version":"4.1.0"},{"version":"4.1.0"}],"edges":[]}"#),
            "nodes 0 and 1 both have version 4.1.0"
        );
    }

    #[test]
    fn a_very_deep_graph_is_no_problem() {
        let count = 50_000;
        let nodes: Vec<String> = (0..count).map(|n| format!("{{\"version\":\"4.1.{n}\"}}")).collect();
        let edges: Vec<String> = (1..count).map(|n| format!("[{},{n}]", n - 1)).collect();
        let text = format!("{{\"nodes\":[{}],\"edges\":[{}]}}", nodes.join(","), edges.join(","));
        let graph = Graph::parse(text.as_bytes()).unwrap();
        assert_eq!(graph.best_path(0, count - 1).unwrap().len(), count);
    }
}
